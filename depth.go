package pgqrs

import (
	"context"
	"database/sql"
	"time"
)

// DepthLimit is how far Depths counts.
const DepthLimit = 100_000

const depthLimit = "100000" // as the statements have it

// QueueDepth says how a queue stands at present. A count that is DepthLimit means as many or more.
type QueueDepth struct {
	Name     string
	PausedAt time.Time // zero unless paused

	// Messages by state. Scheduled and leased ones are counted together: where
	// they come to DepthLimit, so does Scheduled.
	Ready, Scheduled, Leased, Dead int64
	// Blocked messages wait for others of their groups.
	Blocked int64
	// Archived and Died are the messages that came to these ends in the last
	// minute and have not been deleted or redriven since.
	Archived, Died int64
	// OldestReady is how long the message that has waited longest has been ready.
	OldestReady time.Duration
	// Policy is what the code that handles the queue has written.
	Policy PolicyInfo
	// Workers are the live workers that take from it, those that are suspended left out. One of Dequeue is
	// live for half a minute after a call.
	Workers int64
	// Malformed says which columns of the row do not decode, and why; see [MessageInfo]. Their fields are zero.
	Malformed string
}

// Depths describes the named queues, or all, by name. Names that do not exist
// are left out. Unlike Queues it counts no archived message older than a
// minute, and of each kind no more than DepthLimit, so that it can be asked
// every few seconds about queues of any size.
func (s *Store) Depths(ctx context.Context, names ...string) ([]QueueDepth, error) {
	list, err := s.depths(ctx, names)
	return list, wrap(ctx, err, "look at queues")
}

func (s *Store) depths(ctx context.Context, names []string) ([]QueueDepth, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	var list []QueueDepth
	err := s.eachQueue(ctx, s.dialect.queue.depth, names, func(rows *sql.Rows) error {
		var q QueueDepth
		var paused timestamp
		var waiting, oldest int64
		var policy []byte
		bad, err := scanRowLoosely(rows, "name paused_at ready waiting leased dead archived died oldest policy blocked workers",
			&q.Name, &paused, &q.Ready, &waiting, &q.Leased, &q.Dead, &q.Archived, &q.Died, &oldest, &policy, &q.Blocked, &q.Workers)
		q.Policy, q.Malformed = listedPolicy(policy, bad)
		q.PausedAt, q.OldestReady = paused.Time, durationOf(oldest)
		q.Leased = min(q.Leased, DepthLimit)
		q.Scheduled = waiting
		if waiting < DepthLimit {
			q.Scheduled = max(0, waiting-q.Leased)
		}
		list = append(list, q)
		return err
	})
	return list, err
}
