package pgqrs

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A recorder writes outcomes as they come: what arrives while one batch is
// being written makes the next.
type recorder struct {
	r    *running
	work chan struct{} // holds one: there is something to write

	mu    sync.Mutex
	queue []recording
	shut  bool
	doubt bool // whether an earlier try of what is queued may have succeeded
}

type recording struct {
	d *delivery
	outcome
}

const maxRecord = 1000 // outcomes in one statement

// add queues an outcome.
func (c *recorder) add(d *delivery, o outcome) {
	c.mu.Lock()
	shut := c.shut
	if !shut {
		c.queue = append(c.queue, recording{d, o})
	}
	c.mu.Unlock()
	if shut {
		c.r.log.Warn("pgqrs: handler returned after its worker had ended; the message will be delivered again",
			"queue", d.lane.queue, "message", d.m.ID)
		return
	}
	select {
	case c.work <- struct{}{}:
	default:
	}
}

func (r *running) unrecorded() int {
	r.recorder.mu.Lock()
	defer r.recorder.mu.Unlock()
	return len(r.recorder.queue)
}

// run writes until ctx is done, and after a failure again until it succeeds.
func (c *recorder) run(ctx context.Context) {
	wait := 50 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.work:
		}
		for c.flush(ctx) != nil {
			if !pause(ctx, wait) {
				return
			}
			wait = min(2*wait, 5*time.Second)
		}
		wait = 50 * time.Millisecond
	}
}

// finish writes what is left, for as long as one statement may take, and takes no more.
func (c *recorder) finish() {
	ctx, cancel := context.WithTimeout(c.r.base, statementTimeout)
	defer cancel()
	for c.flush(ctx) != nil {
		if !pause(ctx, 100*time.Millisecond) {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
	if n := len(c.queue); n > 0 {
		c.r.log.Error("pgqrs: could not record outcomes; their messages will be delivered again", "messages", n)
	}
}

// flush writes everything that is queued.
func (c *recorder) flush(ctx context.Context) error {
	for {
		batch, doubt := c.take()
		if len(batch) == 0 {
			return nil
		}
		if err := c.write(ctx, batch, doubt); err != nil {
			return err
		}
	}
}

func (c *recorder) take() ([]recording, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), maxRecord)
	batch := slices.Clone(c.queue[:n])
	c.queue = slices.Delete(c.queue, 0, n)
	return batch, c.doubt
}

// write records a batch; what could not be recorded goes back to the queue.
func (c *recorder) write(ctx context.Context, batch []recording, doubt bool) error {
	list := make([]settlement, len(batch))
	for i, x := range batch {
		list[i] = settlement{x.d.m, x.outcome, x.d.lane.policy.DeadLetter}
	}
	ids, err := c.settle(ctx, list)
	var done map[int64]bool // nil: all were
	if err != nil || len(ids) < len(batch) {
		done = make(map[int64]bool, len(ids))
		for _, id := range ids {
			done[id] = true
		}
	}
	var left []recording
	settled := make([]*delivery, 0, len(batch))
	for _, x := range batch {
		missed := done != nil && !done[x.d.m.ID]
		if err != nil && missed {
			left = append(left, x)
			continue
		}
		settled = append(settled, x.d)
		if missed {
			c.missed(x, doubt)
		}
	}
	c.r.forget(settled...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(left, c.queue...)
	c.doubt = err != nil
	if err != nil {
		c.r.log.Warn("pgqrs: could not record outcomes; trying again", "messages", len(left), "err", err)
	}
	return err
}

func (c *recorder) settle(ctx context.Context, list []settlement) ([]int64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
	defer cancel()
	return c.r.store.settle(ctx, list)
}

// missed says that an outcome could not be recorded because its lease was gone.
func (c *recorder) missed(x recording, doubt bool) {
	log := c.r.log.With("queue", x.d.lane.queue, "message", x.d.m.ID, "outcome", x.kind.String())
	switch {
	case x.d.m.hold.settled.Load():
	case doubt:
		log.Info("pgqrs: outcome was recorded before the connection was lost, or the lease was")
	default:
		log.Warn("pgqrs: lease was lost before the outcome could be recorded", "err", ErrLeaseLost)
	}
}
