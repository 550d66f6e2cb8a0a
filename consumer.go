package pgqrs

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A consumer is the worker row behind one queue's Dequeue calls.
type consumer struct {
	queue string
	turn  chan struct{} // holds one: a claim under Config.Concurrent, where those of one worker could only collide

	mu      sync.Mutex
	row     registration // zero: not registered
	limited bool         // its queue has a limit
	asOf    time.Time    // when the row said so
	size    int          // of a payload in bytes, on average, in the latest claim
}

// consumerBeat is after how long a Dequeue heartbeats first: the row must not
// go silent while messages come, and may have news.
const consumerBeat = 10 * time.Second

// consumer returns the one of a queue.
func (s *Store) consumer(queue string) (*consumer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("%w: the Store is closed", ErrState)
	}
	c := s.consumers[queue]
	if c == nil {
		c = &consumer{queue: queue, turn: make(chan struct{}, 1)}
		s.consumers[queue] = c
	}
	return c, nil
}

// worker returns the row, which it makes if there is none, whether the
// queue has a limit, and whether that is so old that the row should be asked again.
func (c *consumer) worker(ctx context.Context, s *Store) (row registration, limited, old bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.row.id == 0 {
		c.row, c.limited, err = s.register(ctx, c.queue, uniqueName()+"/"+c.queue, "ready")
		c.asOf = time.Now()
	}
	return c.row, c.limited, time.Since(c.asOf) > consumerBeat, err
}

// claim leases messages. When none came it finds out whether the row is to
// blame: it may have been suspended, or been taken for dead while idle.
func (c *consumer) claim(ctx context.Context, s *Store, n int, lease time.Duration) ([]*MessageInfo, error) {
	for {
		row, limited, old, err := c.worker(ctx, s)
		if err != nil {
			return nil, err
		}
		if old {
			if err := c.beat(ctx, s, row); err != nil {
				return nil, err
			}
			continue
		}
		ms, err := c.claimAs(ctx, s, row.id, c.claimable(n), lease, limited)
		c.seen(ms)
		if err != nil || len(ms) > 0 {
			return ms, err
		}
		if err := c.beat(ctx, s, row); err != nil {
			return nil, err
		}
		if now, _, _, err := c.worker(ctx, s); now == row || err != nil {
			return nil, err // its row is well, and there is nothing for it
		}
	}
}

// claimable bounds a claim of n messages by the size of those that came last.
func (c *consumer) claimable(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return claimable(n, c.size)
}

// seen notes the size of claimed messages.
func (c *consumer) seen(ms []*MessageInfo) {
	if len(ms) == 0 {
		return
	}
	total := 0
	for _, m := range ms {
		total += len(m.Raw)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size = total / len(ms)
}

// beat heartbeats the row and takes in what it says. It forgets one that is
// stopped, gone or another's, so that the next call makes another.
func (c *consumer) beat(ctx context.Context, s *Store, row registration) error {
	states, err := s.heartbeat(ctx, []int64{row.id})
	if err != nil {
		return err
	}
	state := states[row.id]
	if !state.of(row) {
		c.forget(row)
		return nil
	}
	switch state.status {
	case "ready", "polling":
		c.know(row, state.limited)
		return nil
	case "interrupted":
		if _, err := s.moveWorker(ctx, row.id, "suspended"); err != nil {
			return err
		}
		fallthrough
	case "suspended":
		return fmt.Errorf("%w: worker %d was %s; ResumeWorker lets it go on", ErrState, row.id, state.status)
	}
	c.forget(row)
	return nil
}

// know notes what the row said just now.
func (c *consumer) know(row registration, limited bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.row == row {
		c.limited, c.asOf = limited, time.Now()
	}
}

func (c *consumer) claimAs(ctx context.Context, s *Store, id int64, n int, lease time.Duration, limited bool) ([]*MessageInfo, error) {
	if s.cfg.Concurrent {
		select {
		case c.turn <- struct{}{}:
			defer func() { <-c.turn }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var ms []*MessageInfo
	var err error
	if limited {
		var room room
		ms, room, err = s.claimLimited(ctx, c.queue, id, n, lease, true)
		if err == nil && room.closed() {
			err = fmt.Errorf("the limits of its policy allow no delivery now: %w", &RateLimitError{Wait: max(room.wait, heldWait)})
		}
	} else {
		ms, err = s.claim(ctx, c.queue, id, n, lease, true)
	}
	if err == nil {
		err = s.findRuns(ctx, ms)
	}
	return ms, err
}

// forget drops a row that is stopped, gone or another's, so that the next call makes another.
func (c *consumer) forget(row registration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.row == row {
		c.row = registration{}
	}
}

// registered returns the rows of consumers that have one.
func registered(consumers map[string]*consumer) []registration {
	var rows []registration
	for _, c := range consumers {
		c.mu.Lock()
		if c.row.id != 0 {
			rows = append(rows, c.row)
		}
		c.mu.Unlock()
	}
	return rows
}
