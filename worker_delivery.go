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

// A delivery is one message that a Worker has leased.
type delivery struct {
	m     *MessageInfo
	queue *queueRunner
	state deliveryState
	ctx   context.Context // of its handler, nil until it begins
	took  time.Duration   // by the handler

	// runner.mu guards the fields below.
	until    time.Time               // when its lease ends, by this process's clock, unless it is renewed
	lost     bool                    // its lease is gone
	finished bool                    // its outcome is to be recorded
	cancel   context.CancelCauseFunc // of its handler, nil until it begins
}

// errDrained is the cause of a handler's ctx after Grace.
var errDrained = fmt.Errorf("worker is stopping: %w", context.Canceled)

// loseLease marks a delivery's lease lost, and ends its handler's ctx. The caller holds r.mu.
func (r *runner) loseLease(d *delivery) {
	d.lost = true
	if d.cancel != nil {
		d.cancel(ErrLeaseLost)
	}
	r.log.Warn("pgqrs: lease lost", "queue", d.queue.queue, "message", d.m.ID)
}

// executor handles deliveries until there are no more. One goroutine handles many, since a new
// goroutine would have to grow its stack each time. If a handler ends the goroutine by
// runtime.Goexit, another replaces it.
func (r *runner) executor() {
	ended := false
	defer func() {
		if !ended {
			go r.executor()
		}
	}()
	for d := range r.begun {
		r.handle(d.ctx, d)
	}
	ended = true
}

// handle runs the handler and passes its outcome on. The deferred parts run even after
// runtime.Goexit in the handler, and whatever the Observer, the policy or the error's methods do.
// If those fail too, the attempt is recorded as a failure without them.
func (r *runner) handle(ctx context.Context, d *delivery) {
	defer d.cancel(nil)
	if limit := d.queue.policy.Timeout; limit > 0 {
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
			r.completeBlindly(d, v)
		}
	}()
	defer func() {
		r.complete(ctx, d, foreign.Safe(raw))
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
	if raw = r.leaveRun(d); raw == nil {
		raw = r.callHandler(ctx, d)
	}
	returned = true
}

// callHandler runs the handler, unless the message is malformed or has used up its attempts.
func (r *runner) callHandler(ctx context.Context, d *delivery) error {
	if err := d.m.malformed(); err != nil {
		return err
	}
	if d.queue.policy.attemptsExceeded(d.m.Attempt) {
		return Permanent(attemptsExceeded(d.m))
	}
	return d.queue.work(ctx, d.m)
}

// completeBlindly records a failed attempt without calling the code that has just panicked or ended
// the goroutine.
func (r *runner) completeBlindly(d *delivery, v any) {
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
	r.enqueueCompletion(d, outcome{kind: retried, delay: defaultBackoff(d.m.Attempt), err: err})
}

// complete determines the outcome of a delivery and queues it for writing.
func (r *runner) complete(ctx context.Context, d *delivery, err error) {
	if d.queue.workflow {
		err = d.m.delivery.runError(err)
	}
	if err == nil {
		r.mu.Lock()
		delete(r.infraErrors, d.m.ID)
		r.mu.Unlock()
	}
	var result outcome
	switch cause := context.Cause(ctx); {
	case err == nil && d.m.delivery.settled.Load():
		r.forget(d) // the handler has settled it
		return
	case err == nil:
		result = outcome{kind: acked}
	case errors.Is(cause, errDrained), errors.Is(cause, ErrLeaseLost):
		result = outcome{kind: released} // interrupted, which is not its failure
	case errors.Is(cause, ErrTimeout):
		err = fmt.Errorf("%w after %v: %w", ErrTimeout, d.queue.policy.Timeout, err)
		fallthrough
	default:
		result = r.outcomeOf(d, err)
	}
	if result.err != nil {
		r.log.Warn("pgqrs: handler failed", "queue", d.queue.queue, "message", d.m.ID, "attempt", d.m.Attempt,
			"outcome", result.kind.String(), "err", result.err)
	}
	if result.kind == died && d.queue.workflow {
		if err := r.failRun(d, result.err); err != nil {
			r.repeated.key("bury "+d.queue.queue).Warn("pgqrs: could not end a run whose message is dead; trying again", "message", d.m.ID, "err", err)
			result = outcome{kind: retried, delay: r.countInfraError(d), err: result.err}
		} else {
			r.forget(d)
			return
		}
	}
	r.enqueueCompletion(d, result)
}

// failRun ends a run together with its message.
func (r *runner) failRun(d *delivery, cause error) error {
	ctx, cancel := context.WithTimeout(r.handlerBase, statementTimeout)
	defer cancel()
	return r.store.failRun(ctx, d.m, cause, d.queue.policy.DeadLetter)
}

// enqueueCompletion queues an outcome for writing. It drops the outcome if this worker has claimed
// the delivery's message again. If a backup was restored meanwhile, the new lease, even of another
// message, may have the old lease's numbers.
func (r *runner) enqueueCompletion(d *delivery, result outcome) {
	r.mu.Lock()
	d.finished = true
	superseded := r.held[d.m.ID] != nil && r.held[d.m.ID] != d
	r.mu.Unlock()
	if superseded {
		r.completer.logLostLease(completion{d: d, outcome: result}, false)
		r.capacityFreed(d.queue)
		return
	}
	r.completer.add(d, result)
}

// giveBack releases deliveries whose handlers have not begun.
func (r *runner) giveBack(ds []*delivery) {
	for _, d := range ds {
		r.enqueueCompletion(d, outcome{kind: released})
	}
}

// forget drops deliveries that are settled.
func (r *runner) forget(ds ...*delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range ds {
		if r.held[d.m.ID] == d {
			delete(r.held, d.m.ID)
		}
		r.capacityFreed(d.queue)
	}
}

// cancelHandlers ends the ctx of every running handler.
func (r *runner) cancelHandlers() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.held {
		if d.cancel != nil {
			d.cancel(errDrained)
		}
	}
}

// A deliveryState is shared by a Worker and the code that handles a message.
type deliveryState struct {
	settled atomic.Bool // by the handler itself
	// settling counts calls in progress that may settle it, and may have done so already.
	settling      atomic.Int32
	draining      atomic.Bool                             // the Worker is to stop
	inTransaction atomic.Bool                             // a transaction is open that ends with the fence
	interrupt     atomic.Pointer[context.CancelCauseFunc] // ends the ctx of a run's function
	// executed is the result of the run's execution, before the middleware around it.
	executed atomic.Pointer[error]
}

// errNotExecuted is the error of a run whose handler middleware did not call.
var errNotExecuted = errors.New("middleware returned nil without calling the handler of the workflow")

// runError returns the error of a run, from the error that middleware returned. Middleware can
// change the error of a failure. It can neither end a run nor wake a suspended one.
func (h *deliveryState) runError(err error) error {
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

// A completer writes outcomes as they come. Outcomes that arrive while one batch is being written
// form the next batch. If the database refuses a batch, the completer writes it in halves, down to
// the refused outcome, which it tries again alone.
type completer struct {
	r    *runner
	work chan struct{} // holds one: there is something to write

	mu           sync.Mutex
	queue        []completion
	refused      []completion // by the database, each is tried again in its time
	refusedOf    map[*queueRunner]int
	ending       bool // they are due now, since the worker ends
	closed       bool
	mayBeWritten bool // whether an earlier try of the queued outcomes may have succeeded
}

type completion struct {
	d *delivery
	outcome
	refusals int       // of this outcome alone
	next     time.Time // when a refused outcome is tried again
}

const (
	maxCompletions        = 1000 // outcomes in one statement
	maxCompletionRefusals = 3    // of one outcome, before it is dropped
	maxRefusedOfQueue     = 100  // refused outcomes of a queue, until it is claimed from again
	// firstRefusalWait is the wait before a refused outcome is tried again. Each further wait is
	// twice as long.
	firstRefusalWait = time.Second
)

// add queues an outcome.
func (c *completer) add(d *delivery, o outcome) {
	c.mu.Lock()
	shut := c.closed
	if !shut {
		c.queue = append(c.queue, completion{d: d, outcome: o})
	}
	c.mu.Unlock()
	if shut {
		c.r.log.Warn("pgqrs: handler returned after its worker had ended; the message will be delivered again",
			"queue", d.queue.queue, "message", d.m.ID)
		return
	}
	c.wake()
}

// wake makes the completer look for work.
func (c *completer) wake() {
	select {
	case c.work <- struct{}{}:
	default:
	}
}

// keepsUp reports whether the completer can take more outcomes of a queue. Refused outcomes of one
// queue do not hold up others.
func (c *completer) keepsUp(q *queueRunner) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue) <= maxPendingCompletions && c.refusedOf[q] <= maxRefusedOfQueue
}

// run writes outcomes until ctx is done. After a failure it tries again until it succeeds.
func (c *completer) run(ctx context.Context) {
	wait := backoff{first: 50 * time.Millisecond, max: 5 * time.Second}
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.work:
		}
		for c.flush(ctx) != nil {
			if !wait.pause(ctx) {
				return
			}
		}
		wait.reset()
	}
}

// finish writes the remaining outcomes, for as long as one statement may take, and accepts no more.
func (c *completer) finish() {
	ctx, cancel := context.WithTimeout(c.r.handlerBase, statementTimeout)
	defer cancel()
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	for c.flush(ctx) != nil {
		if !pause(ctx, 100*time.Millisecond) {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if n := len(c.queue) + len(c.refused); n > 0 {
		c.r.log.Error("pgqrs: could not record outcomes; their messages will be delivered again", "messages", n)
	}
}

// flush writes all queued outcomes, and then the refused outcomes that are due.
func (c *completer) flush(ctx context.Context) error {
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
		if err := c.writeAll(ctx, []completion{x}, true); err != nil {
			return err
		}
	}
	return nil
}

func (c *completer) take() ([]completion, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), maxCompletions)
	batch := slices.Clone(c.queue[:n])
	c.queue = slices.Delete(c.queue, 0, n)
	return batch, c.mayBeWritten
}

// takeRefused removes and returns the refused outcomes that are due.
func (c *completer) takeRefused() (due []completion) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var later []completion
	for _, x := range c.refused {
		if c.ending || !x.next.After(time.Now()) {
			due = append(due, x)
			c.refusedOf[x.d.queue]--
		} else {
			later = append(later, x)
		}
	}
	c.refused = later
	return due
}

// writeAll is write. If foreign code in it, such as an Observer, ends the goroutine, no outcome is
// lost.
func (c *completer) writeAll(ctx context.Context, batch []completion, doubt bool) error {
	written := false
	defer func() {
		if !written {
			c.putBack(batch)
			c.wake()
		}
	}()
	err := c.write(ctx, batch, doubt)
	written = true
	return err
}

// putBack queues outcomes again that were not recorded, or not known to be.
func (c *completer) putBack(left []completion) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(slices.Clone(left), c.queue...)
	c.mayBeWritten = true
}

// write records a batch. Outcomes that it could not record go back to the queue, except refused
// ones.
func (c *completer) write(ctx context.Context, batch []completion, doubt bool) error {
	left, refused, err := c.writeOnce(ctx, batch, doubt)
	switch {
	case err == nil:
		c.noteWritten()
		return nil
	case !refused:
		c.putBack(left)
		c.r.repeated.key("record").Warn("pgqrs: could not record outcomes; trying again", "messages", len(left), "err", err)
		return err
	case len(left) == 1:
		return c.retryRefused(ctx, left[0], err)
	}
	half := len(left) / 2
	if err := c.write(ctx, left[:half], doubt); err != nil {
		c.putBack(left[half:])
		return err
	}
	return c.write(ctx, left[half:], doubt)
}

// noteWritten records that the database accepts outcomes.
func (c *completer) noteWritten() {
	c.mu.Lock()
	c.mayBeWritten = c.mayBeWritten && len(c.queue) > 0
	c.mu.Unlock()
	c.r.repeated.key("record").over()
}

// writeOnce records as many outcomes of a batch as it can. It returns the others, and whether the
// database refused them in particular.
func (c *completer) writeOnce(ctx context.Context, batch []completion, doubt bool) (left []completion, refused bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
	defer cancel()
	list := make([]settlement, len(batch))
	for i, x := range batch {
		list[i] = settlement{x.d.m, x.outcome, x.d.queue.policy.DeadLetter}
	}
	ids, err := c.r.store.settleAsIs(ctx, list)
	var done map[int64]bool // nil means all
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
			c.logLostLease(x, doubt)
		}
	}
	c.r.forget(settled...)
	return left, err != nil && ctx.Err() == nil && c.r.store.dialect.isRefused(err), err
}

// retryRefused handles an outcome that the database refuses. It writes a text that the database
// cannot hold in ASCII. Otherwise it tries again a few times, and then drops the outcome. The
// message is delivered again when its lease ends.
func (c *completer) retryRefused(ctx context.Context, x completion, err error) error {
	if plain := inASCII(x.err); sqlerr.Untranslatable(err) && plain != nil {
		x.err = plain
		c.r.repeated.key("text").Warn("pgqrs: an error's text was written in ASCII, since the database refused it", "queue", x.d.queue.queue, "message", x.d.m.ID, "err", err)
		return c.write(ctx, []completion{x}, true)
	}
	x.refusals++
	if x.refusals > maxCompletionRefusals {
		c.r.repeated.key("refused "+x.d.queue.queue).Error("pgqrs: the database refuses an outcome; its message is delivered again when its lease ends",
			"queue", x.d.queue.queue, "message", x.d.m.ID, "outcome", x.kind.String(), "err", err)
		c.r.forget(x.d)
		return nil
	}
	wait := firstRefusalWait << (x.refusals - 1)
	x.next = time.Now().Add(wait)
	c.r.repeated.key("refusal "+x.d.queue.queue).Warn("pgqrs: the database refuses an outcome; trying again", "queue", x.d.queue.queue, "message", x.d.m.ID,
		"outcome", x.kind.String(), "err", err)
	c.mu.Lock()
	c.refused = append(c.refused, x)
	if c.refusedOf == nil {
		c.refusedOf = map[*queueRunner]int{}
	}
	c.refusedOf[x.d.queue]++
	c.mu.Unlock()
	time.AfterFunc(wait, c.wake)
	return nil
}

// logLostLease logs that an outcome could not be recorded because the lease was lost.
func (c *completer) logLostLease(x completion, doubt bool) {
	log := c.r.log.With("queue", x.d.queue.queue, "message", x.d.m.ID, "outcome", x.kind.String())
	switch {
	case x.d.m.delivery.settled.Load():
	case doubt:
		log.Info("pgqrs: outcome was recorded before the connection was lost, or the lease was")
	default:
		log.Warn("pgqrs: lease was lost before the outcome could be recorded", "err", ErrLeaseLost)
	}
}

const (
	leaveRunFor         = 5 * time.Second // delay of a run's message that a plain handler has met
	leaveRunLogInterval = time.Minute     // between two log lines about that
)

// leaveRun returns the error with which a plain handler releases a message that belongs to a run.
// The attempt does not count. It returns nil for other messages.
func (r *runner) leaveRun(d *delivery) error {
	if d.queue.workflow || d.m.run <= 0 {
		return nil
	}
	if n := d.queue.runsLeft.count(leaveRunLogInterval); n > 0 {
		r.log.Warn("pgqrs: messages belong to runs of a workflow of the queue's name, and its handler here is a plain one; leaving them to others",
			"queue", d.queue.queue, "message", d.m.ID, "run", d.m.run, "messages", n)
	}
	return fmt.Errorf("message %d belongs to run %d: %w", d.m.ID, d.m.run, Snooze(leaveRunFor))
}
