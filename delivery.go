package pgqrs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
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

// claim asks for messages of a lane, from a place on. It is not cut short when Run's ctx is
// done: a claim that committed unheard would keep its messages until the lease ends.
func (r *running) claim(l *lane, n int, alone bool, place place) answer {
	a := answer{lane: l, asked: n, alone: alone}
	if l.doubtful.Load() {
		if a.err = r.settle(l); a.err != nil {
			return r.failed(r.reads, a)
		}
	}
	ctx, cancel := context.WithTimeout(r.base, statementTimeout)
	defer cancel()
	var ms []*MessageInfo
	var err error
	start := time.Now()
	switch {
	case l.limited.Load():
		ms, a.room, err = r.store.claimLimited(ctx, l.queue, l.worker.Load(), n, l.lease, alone)
		a.asked = a.room.n
		l.limited.Store(err != nil || a.room.limited)
	case place.isBeginning():
		ms, err = r.store.claim(ctx, l.queue, l.worker.Load(), n, l.lease, alone)
		a.took, a.stuck = time.Since(start), err != nil && r.stuck(start)
	default:
		ms, err = r.store.nextClaim(ctx, l.queue, l.worker.Load(), n, l.lease, alone, place)
		a.from = place
	}
	if err == nil && !l.workflow {
		err = r.store.findRuns(ctx, ms)
	}
	if err != nil {
		// It may have committed all the same.
		l.doubtful.Store(true)
		a.err = err
		return r.failed(r.base, a)
	}
	a.ms = r.take(l, ms, start.Add(l.lease))
	return a
}

// take makes deliveries of messages that were claimed.
func (r *running) take(l *lane, ms []*MessageInfo, until time.Time) []*delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	ds := make([]*delivery, 0, len(ms))
	for _, m := range ms {
		d := &delivery{m: m, lane: l, until: until}
		m.hold = &d.hold
		// An old one lost its lease, and this worker took the message again; or its
		// run has ended and was retried, before the old one was put away.
		if old := r.held[m.ID]; old != nil && !old.hold.settled.Load() {
			r.lose(old)
		}
		r.held[m.ID] = d
		ds = append(ds, d)
	}
	return ds
}

// settle clears up after a claim with an unknown end. It has longer each time that it
// failed: a worker with tens of millions of dead rows behind it may need it, but one whose
// connection is gone should not wait for that long.
func (r *running) settle(l *lane) error {
	wait := cmp.Or(l.settling, statementTimeout)
	ctx, cancel := context.WithTimeout(r.reads, wait)
	defer cancel()
	if err := r.releaseStrays(ctx, l); err != nil {
		if ctx.Err() != nil || !r.store.dialect.refused(err) {
			l.settling = min(2*wait, readingTimeout)
			return err
		}
		r.recurring.of("strays "+l.queue).Error("pgqrs: the database refuses to take back messages of a claim whose answer was lost; they are ready again when their leases end",
			"queue", l.queue, "err", err)
	}
	l.settling = 0
	l.doubtful.Store(false)
	return nil
}

// releaseStrays gives back, uncounted, what a lost claim left in the table.
func (r *running) releaseStrays(ctx context.Context, l *lane) error {
	r.mu.Lock()
	var ids []int64
	for id := range r.held {
		ids = append(ids, id)
	}
	r.mu.Unlock()
	list, err := jsonList(ids)
	if err != nil {
		return err
	}
	return r.store.single(ctx, func(c conn) error {
		n, err := c.exec(ctx, r.store.dialect.lease.strays, l.worker.Load(), l.since.Load(), list)
		if n > 0 {
			r.log.Info("pgqrs: gave back messages of a claim whose answer was lost", "queue", l.queue, "messages", n)
		}
		return err
	})
}

// poll asks which workers have messages due.
func (r *running) poll(workers []int64) answer {
	ctx, cancel := context.WithTimeout(r.base, statementTimeout)
	defer cancel()
	a := answer{due: map[int64]bool{}}
	list, err := jsonList(workers)
	if err != nil {
		a.err = err
		return r.failed(r.base, a)
	}
	start := time.Now()
	ids, err := conn{r.store, nil}.ids(ctx, r.store.dialect.worker.poll, list)
	if err != nil {
		a.err, a.stuck = err, r.stuck(start)
		return r.failed(r.base, a)
	}
	for _, id := range ids {
		a.due[id] = true
	}
	return a
}

// failed logs why the database gave no answer, unless the question was cut short by the end of ctx.
func (r *running) failed(ctx context.Context, a answer) answer {
	if ctx.Err() != nil {
		return a
	}
	r.log.Warn("pgqrs: could not look for messages; trying again", "err", a.err)
	return a
}

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
		r.conclude(ctx, d, foreign(raw))
		concluded = true
	}()
	defer func() {
		if v := recover(); v != nil {
			raw = panicError(v)
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
	err := fmt.Errorf("what became of the handler cannot be told: %w", errForeignGoexit)
	if v != nil {
		err = fmt.Errorf("what became of the handler cannot be told: %w", panicError(v))
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
