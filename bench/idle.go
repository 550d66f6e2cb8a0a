package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

const (
	idleQueues = 20
	idleBefore = 30 * time.Second // before the counting begins
	idleFor    = 20 * time.Second
)

// idle counts the statements of a Worker with many queues and no messages, below the pool.
func idle(e *engine) opener {
	return rounds(func(ctx context.Context, _ measure.Spec) (measure.Sample, error) {
		counts := newStatements()
		l, err := e.counting(counts).openLibrary(ctx)
		if err != nil {
			return nil, err
		}
		var handlers []pgqrs.Handler
		for i := range idleQueues {
			queue := pgqrs.NewQueue[measure.Job](l.store, fmt.Sprintf("idle-%d", i))
			handlers = append(handlers, queue.Handle(func(context.Context, *pgqrs.Message[measure.Job]) error { return nil }))
		}
		stop := l.background(ctx, &pgqrs.Worker{Handlers: handlers})
		err = measure.Wait(ctx, idleBefore)
		counts.take()
		start := time.Now()
		err = errors.Join(err, measure.Wait(ctx, idleFor))
		total, tags := counts.take()
		sample := measure.Sample{"statements": float64(total) / time.Since(start).Seconds()}
		for tag, n := range tags {
			sample[tag] = float64(n) / time.Since(start).Seconds()
		}
		if err == nil && total == 0 {
			err = errors.New("the worker sent nothing at all")
		}
		return sample, errors.Join(err, stop(), l.close())
	})
}
