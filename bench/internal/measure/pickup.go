package measure

import (
	"context"
	"fmt"
	"time"
)

const (
	leastPause = 100 * time.Millisecond // between two messages of a pickup
	mostPause  = 200 * time.Millisecond
	patience   = 30 * time.Second // for one message
)

// Pickup sends jobs one at a time, with pauses between them, and waits until each has begun. The ID
// of a job is the time at which it was sent. The channel begun delivers the time from then to the
// job's beginning.
func Pickup(ctx context.Context, n int, begun <-chan time.Duration, send func(context.Context, Job) error) (Sample, error) {
	took := make([]time.Duration, 0, n)
	for range n {
		Pause(leastPause, mostPause)
		if err := send(ctx, NewJob(time.Now().UnixNano())); err != nil {
			return nil, err
		}
		select {
		case d := <-begun:
			took = append(took, d)
		case <-time.After(patience):
			return nil, fmt.Errorf("a message was not picked up within %v", patience)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return Latencies(took), nil
}
