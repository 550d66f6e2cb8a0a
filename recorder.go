package pgqrs

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A recorder writes outcomes as they come: what arrives while one batch is
// being written makes the next. A batch that the database refuses is written in
// halves, down to the outcome that it is about, which is tried again by itself.
type recorder struct {
	r    *running
	work chan struct{} // holds one: there is something to write

	mu      sync.Mutex
	queue   []recording
	refused []recording // by the database; each is tried again in its time
	last    bool        // its time is now: the worker ends
	shut    bool
	doubt   bool // whether an earlier try of what is queued may have succeeded
}

type recording struct {
	d *delivery
	outcome
	refusals int       // of this outcome alone
	next     time.Time // when a refused one is tried again
}

const (
	maxRecord    = 1000        // outcomes in one statement
	maxRefusals  = 3           // of one outcome, before its message is let go
	firstRefusal = time.Second // before a refused outcome is tried again; then twice as long
)

// add queues an outcome.
func (c *recorder) add(d *delivery, o outcome) {
	c.mu.Lock()
	shut := c.shut
	if !shut {
		c.queue = append(c.queue, recording{d: d, outcome: o})
	}
	c.mu.Unlock()
	if shut {
		c.r.log.Warn("pgqrs: handler returned after its worker had ended; the message will be delivered again",
			"queue", d.lane.queue, "message", d.m.ID)
		return
	}
	c.kick()
}

// kick has the recorder look for work.
func (c *recorder) kick() {
	select {
	case c.work <- struct{}{}:
	default:
	}
}

func (r *running) unrecorded() int {
	r.recorder.mu.Lock()
	defer r.recorder.mu.Unlock()
	return len(r.recorder.queue) + len(r.recorder.refused)
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
	c.mu.Lock()
	c.last = true
	c.mu.Unlock()
	for c.flush(ctx) != nil {
		if !pause(ctx, 100*time.Millisecond) {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
	if n := len(c.queue) + len(c.refused); n > 0 {
		c.r.log.Error("pgqrs: could not record outcomes; their messages will be delivered again", "messages", n)
	}
}

// flush writes everything that is queued, and then what was refused and is due.
func (c *recorder) flush(ctx context.Context) error {
	for {
		batch, doubt := c.take()
		if len(batch) == 0 {
			break
		}
		if err := c.writeAll(ctx, batch, doubt); err != nil {
			return err
		}
	}
	for _, x := range c.takeRefused() {
		if err := c.writeAll(ctx, []recording{x}, true); err != nil {
			return err
		}
	}
	return nil
}

func (c *recorder) take() ([]recording, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), maxRecord)
	batch := slices.Clone(c.queue[:n])
	c.queue = slices.Delete(c.queue, 0, n)
	return batch, c.doubt
}

// takeRefused takes out the refused outcomes whose time has come.
func (c *recorder) takeRefused() (due []recording) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var later []recording
	for _, x := range c.refused {
		if c.last || !x.next.After(time.Now()) {
			due = append(due, x)
		} else {
			later = append(later, x)
		}
	}
	c.refused = later
	return due
}

// writeAll is write. If code that is not the library's ends the goroutine meanwhile, as an Observer
// may, nothing is lost.
func (c *recorder) writeAll(ctx context.Context, batch []recording, doubt bool) error {
	written := false
	defer func() {
		if !written {
			c.putBack(batch)
			c.kick()
		}
	}()
	err := c.write(ctx, batch, doubt)
	written = true
	return err
}

// putBack queues what could not be recorded, and may have been all the same.
func (c *recorder) putBack(left []recording) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(slices.Clone(left), c.queue...)
	c.doubt = true
}

// write records a batch. What could not be recorded goes back to the queue, unless it was refused.
func (c *recorder) write(ctx context.Context, batch []recording, doubt bool) error {
	left, refused, err := c.try(ctx, batch, doubt)
	switch {
	case err == nil:
		c.written()
		return nil
	case !refused:
		c.putBack(left)
		c.r.recurring.of("record").Warn("pgqrs: could not record outcomes; trying again", "messages", len(left), "err", err)
		return err
	case len(left) == 1:
		return c.refuse(ctx, left[0], err)
	}
	half := len(left) / 2
	if err := c.write(ctx, left[:half], doubt); err != nil {
		c.putBack(left[half:])
		return err
	}
	return c.write(ctx, left[half:], doubt)
}

// written notes that the database takes outcomes.
func (c *recorder) written() {
	c.mu.Lock()
	c.doubt = c.doubt && len(c.queue) > 0
	c.mu.Unlock()
	c.r.recurring.of("record").over()
}

// try records what it can of a batch, and returns what is left, and whether the database refuses it for what it is.
func (c *recorder) try(ctx context.Context, batch []recording, doubt bool) (left []recording, refused bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
	defer cancel()
	list := make([]settlement, len(batch))
	for i, x := range batch {
		list[i] = settlement{x.d.m, x.outcome, x.d.lane.policy.DeadLetter}
	}
	ids, err := c.r.store.settleAsIs(ctx, list)
	var done map[int64]bool // nil: all were
	if err != nil || len(ids) < len(batch) {
		done = make(map[int64]bool, len(ids))
		for _, id := range ids {
			done[id] = true
		}
	}
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
	return left, err != nil && ctx.Err() == nil && c.r.store.dialect.refused(err), err
}

// refuse sees to an outcome that the database refuses. A text that it cannot hold is written in
// ASCII. Otherwise it is tried again some times, and then its message is let go: it is delivered
// again when its lease ends.
func (c *recorder) refuse(ctx context.Context, x recording, err error) error {
	if plain := inASCII(x.err); untranslatable(err) && plain != nil {
		x.err = plain
		c.r.recurring.of("text").Warn("pgqrs: an error's text was written in ASCII, since the database refused it", "queue", x.d.lane.queue, "message", x.d.m.ID, "err", err)
		return c.write(ctx, []recording{x}, true)
	}
	x.refusals++
	if x.refusals > maxRefusals {
		c.r.recurring.of("refused "+x.d.lane.queue).Error("pgqrs: the database refuses an outcome; its message is delivered again when its lease ends",
			"queue", x.d.lane.queue, "message", x.d.m.ID, "outcome", x.kind.String(), "err", err)
		c.r.forget(x.d)
		return nil
	}
	wait := firstRefusal << (x.refusals - 1)
	x.next = time.Now().Add(wait)
	c.r.recurring.of("refusal "+x.d.lane.queue).Warn("pgqrs: the database refuses an outcome; trying again", "queue", x.d.lane.queue, "message", x.d.m.ID,
		"outcome", x.kind.String(), "err", err)
	c.mu.Lock()
	c.refused = append(c.refused, x)
	c.mu.Unlock()
	time.AfterFunc(wait, c.kick)
	return nil
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
