package pgqrs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// A delivery is one message in a Worker's hands.
type delivery struct {
	m    *MessageInfo
	lane *lane
	hold hold
	ctx  context.Context // of its handler; nil until it begins
	took time.Duration   // by the handler

	// The rest is guarded by running.mu.
	until    time.Time               // when its lease ends, by this process's clock, unless it is renewed
	lost     bool                    // its lease is gone
	finished bool                    // its outcome is to be recorded
	cancel   context.CancelCauseFunc // of its handler; nil until it begins
}

// errDrained is the cause of a handler's ctx after Grace.
var errDrained = fmt.Errorf("worker is stopping: %w", context.Canceled)

// lose notes that a delivery's lease is gone, and ends its handler's ctx. The
// caller holds r.mu.
func (r *running) lose(d *delivery) {
	d.lost = true
	if d.cancel != nil {
		d.cancel(ErrLeaseLost)
	}
	r.log.Warn("pgqrs: lease lost", "queue", d.lane.queue, "message", d.m.ID)
}

// begin passes a waiting delivery to a hand, unless its lease is gone. Then it
// gives it back, which does nothing if somebody else has it.
func (r *running) begin(d *delivery) bool {
	r.mu.Lock()
	lost := d.lost
	if !lost {
		d.ctx, d.cancel = context.WithCancelCause(r.base)
	}
	r.mu.Unlock()
	if lost {
		r.giveBack([]*delivery{d})
		return false
	}
	if r.busy == r.hands {
		r.hands++
		go r.hand()
	}
	r.begun <- d // there is room for as many as there can be handlers
	return true
}

// hand handles deliveries until there are no more. It is one goroutine for many,
// for a new one would have to grow its stack each time. If a handler ends it, by
// runtime.Goexit, another takes its place.
func (r *running) hand() {
	ended := false
	defer func() {
		if !ended {
			go r.hand()
		}
	}()
	for d := range r.begun {
		r.handle(d.ctx, d)
	}
	ended = true
}

// handle runs the handler and hands its outcome on. The deferred parts run whatever the handler
// does, runtime.Goexit included, and whatever the Observer, the policy or the error do that are
// asked about it: in the end the attempt is recorded as a failure without them.
func (r *running) handle(ctx context.Context, d *delivery) {
	defer d.cancel(nil)
	if limit := d.lane.policy.Timeout; limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, limit, ErrTimeout)
		defer stop()
	}
	start := time.Now()
	var raw error // as the handler returned it
	returned, concluded := false, false
	defer func() { r.finished <- d }()
	defer func() {
		if v := recover(); v != nil || !concluded {
			r.concludeBlindly(d, v)
		}
	}()
	defer func() {
		r.conclude(ctx, d, foreign.Safe(raw))
		concluded = true
	}()
	defer func() {
		if v := recover(); v != nil {
			raw = foreign.NewPanic(v)
		} else if !returned {
			raw = errGoexit
		}
		d.took = time.Since(start)
		if o := r.store.cfg.Observer; o != nil && o.Finished != nil {
			o.Finished(ctx, d.m, d.took, raw)
		}
	}()
	if raw = r.leave(d); raw == nil {
		raw = r.work(ctx, d)
	}
	returned = true
}

// work runs the handler, unless the message is malformed or has used up its attempts.
func (r *running) work(ctx context.Context, d *delivery) error {
	if err := d.m.malformed(); err != nil {
		return err
	}
	if d.lane.policy.overdrawn(d.m.Attempt) {
		return Permanent(overdrawn(d.m))
	}
	return d.lane.work(ctx, d.m)
}

// concludeBlindly records a failed attempt without asking what has just panicked, or ended the goroutine.
func (r *running) concludeBlindly(d *delivery, v any) {
	r.mu.Lock()
	finished := d.finished || r.held[d.m.ID] != d
	r.mu.Unlock()
	if finished {
		return
	}
	err := fmt.Errorf("what became of the handler cannot be told: %w", foreign.ErrGoexit)
	if v != nil {
		err = fmt.Errorf("what became of the handler cannot be told: %w", foreign.NewPanic(v))
	}
	r.record(d, outcome{kind: retried, delay: defaultBackoff(d.m.Attempt), err: err})
}

// conclude decides what becomes of a delivery and has it recorded.
func (r *running) conclude(ctx context.Context, d *delivery, err error) {
	if d.lane.workflow {
		err = d.m.hold.runError(err)
	}
	if err == nil {
		r.mu.Lock()
		delete(r.setbacks, d.m.ID)
		r.mu.Unlock()
	}
	var result outcome
	switch cause := context.Cause(ctx); {
	case err == nil && d.m.hold.settled.Load():
		r.forget(d) // the handler saw to it
		return
	case err == nil:
		result = outcome{kind: acked}
	case errors.Is(cause, errDrained), errors.Is(cause, ErrLeaseLost):
		result = outcome{kind: released} // cut short, through no fault of its own
	case errors.Is(cause, ErrTimeout):
		err = fmt.Errorf("%w after %v: %w", ErrTimeout, d.lane.policy.Timeout, err)
		fallthrough
	default:
		result = r.judge(d, err)
	}
	if result.err != nil {
		r.log.Warn("pgqrs: handler failed", "queue", d.lane.queue, "message", d.m.ID, "attempt", d.m.Attempt,
			"outcome", result.kind.String(), "err", result.err)
	}
	if result.kind == died && d.lane.workflow {
		if err := r.bury(d, result.err); err != nil {
			r.recurring.of("bury "+d.lane.queue).Warn("pgqrs: could not end a run whose message is dead; trying again", "message", d.m.ID, "err", err)
			result = outcome{kind: retried, delay: r.putOff(d), err: result.err}
		} else {
			r.forget(d)
			return
		}
	}
	r.record(d, result)
}

// bury ends a run together with its message.
func (r *running) bury(d *delivery, cause error) error {
	ctx, cancel := context.WithTimeout(r.base, statementTimeout)
	defer cancel()
	return r.store.bury(ctx, d.m, cause, d.lane.policy.DeadLetter)
}

// record queues an outcome for writing. One of a delivery whose message this worker has claimed again is not written: where a backup
// was restored meanwhile, the new lease, even of another message, may have the old one's numbers.
func (r *running) record(d *delivery, result outcome) {
	r.mu.Lock()
	d.finished = true
	superseded := r.held[d.m.ID] != nil && r.held[d.m.ID] != d
	r.mu.Unlock()
	if superseded {
		r.recorder.missed(recording{d: d, outcome: result}, false)
		r.ease(d.lane)
		return
	}
	r.recorder.add(d, result)
}

// giveBack releases deliveries that no handler has begun.
func (r *running) giveBack(ds []*delivery) {
	for _, d := range ds {
		r.record(d, outcome{kind: released})
	}
}

// forget drops deliveries that are settled.
func (r *running) forget(ds ...*delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range ds {
		if r.held[d.m.ID] == d {
			delete(r.held, d.m.ID)
		}
		r.ease(d.lane)
	}
}

// cutShort ends the ctx of every handler that runs.
func (r *running) cutShort() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.held {
		if d.cancel != nil {
			d.cancel(errDrained)
		}
	}
}

// A hold is what a Worker and the code that handles a message tell each other.
type hold struct {
	settled   atomic.Bool                             // by the handler itself
	settling  atomic.Int32                            // calls under way that may settle it, and may have done so already
	draining  atomic.Bool                             // the Worker is to stop
	inTx      atomic.Bool                             // a transaction is open that ends with the fence
	interrupt atomic.Pointer[context.CancelCauseFunc] // ends the ctx of a run's function
	executed  atomic.Pointer[error]                   // what the execution of a run returned to the middleware around it
}

// errNotExecuted is for a run whose message middleware took for handled.
var errNotExecuted = errors.New("middleware returned nil without calling the handler of the workflow")

// runError returns what became of a run, where err is what middleware made of it. Middleware can
// change the error of a failure, but it can neither end a run nor wake a suspended one.
func (h *hold) runError(err error) error {
	executed := h.executed.Load()
	switch {
	case executed == nil && err == nil:
		return errNotExecuted
	case executed == nil:
		return err
	case err == nil || errors.Is(*executed, ErrSuspended):
		return *executed
	}
	return err
}

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
	if plain := inASCII(x.err); sqlerr.Untranslatable(err) && plain != nil {
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
