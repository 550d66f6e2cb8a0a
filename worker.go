package pgqrs

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// A Worker runs handlers. It claims messages of their queues in batches,
// keeps the leases alive while handlers run, and records in batches what came
// of them. A handler's error or panic never ends it, nor does a database that
// goes away for a while: it tries again until it is back.
//
// Each of its queues has a row among [Store.Workers], named Name/queue, by
// which another process can suspend, resume, interrupt and stop it there. A
// Worker also does the upkeep: it marks silent workers stopped and prunes what
// is past its queue's retention.
//
// The fields must not change while Run runs.
type Worker struct {
	// Handlers is the code to run, one for each queue. All must be of one Store.
	Handlers []Handler
	// Schedules are run beside the handlers, or without any; see [Schedule].
	// Their targets must be of the same Store.
	Schedules []Schedule
	// Middleware wraps every handler; the first is the outermost. It may change the error of a handler.
	// It can neither end a run that has not ended, nor keep a suspended run from going on.
	Middleware []func(WorkFunc) WorkFunc
	// Name tells workers apart. It must not be used twice at a time: Run waits
	// half a minute for one that died to be given up, and then returns an error
	// matching ErrState. Empty means one of host, process id and a random number.
	Name string
	// Concurrency is how many messages are handled at a time. Zero means 16.
	Concurrency int
	// Lease is how long a message stays with a Worker that has gone silent. It
	// is renewed while the Worker lives. Zero means 30 s; less than 100 ms is an error.
	// Policy.Lease wins over it.
	Lease time.Duration
	// PollInterval is how often an idle Worker looks for messages that another
	// process enqueued or that have become due, give or take some jitter; after
	// half a minute without any it slows down to 1 s. Zero means 250 ms.
	PollInterval time.Duration
	// Grace is how long handlers may go on once Run's ctx is done, before their
	// own ctx ends. Zero means 30 s.
	Grace time.Duration
}

const (
	maxClaim         = 500                   // messages in one claim
	maxPrefetch      = 1000                  // messages of a queue waiting for a free slot
	maxPrefetchSize  = 8 << 20               // bytes of their payloads, if they are like those that came last
	prefetchTime     = 50 * time.Millisecond // of work to have at hand
	maxUnrecorded    = 2000                  // outcomes waiting to be written
	maxHeartbeat     = 2 * time.Second       // pgqrs 0.15 gives a worker up after 5 s
	minLease         = 100 * time.Millisecond
	statementTimeout = 10 * time.Second // of a worker's own statements
	readingTimeout   = time.Minute      // of those that nothing waits for, and that may have to read past tens of millions of dead rows
	cutWait          = 2 * time.Second  // for handlers to return after Grace
)

// Run works until ctx is done. Then it claims no more, gives handlers Grace to
// finish, ends their ctx, and gives back what they had not finished, without
// burning an attempt. It returns nil, unless handlers did not return even
// then: an error names their messages, which are delivered again when their
// leases end. It also returns nil after all its rows were stopped by
// [Store.StopWorker].
//
// A database that is away when Run begins is waited for, as it is later. Run
// returns an error at once where waiting would not help: of a field that makes
// no sense, one matching ErrNotInstalled, ErrUnsupported or ErrState, or what
// else the database has against the Worker's row.
func (w *Worker) Run(ctx context.Context) error {
	settings, err := w.settings()
	if err != nil {
		return wrap(ctx, err, "run")
	}
	r, err := newRunning(ctx, settings)
	if err != nil {
		return wrap(ctx, err, "run")
	}
	if err := r.register(ctx); err != nil {
		r.retire()
		if ctx.Err() != nil {
			return nil
		}
		return wrap(ctx, err, "worker %q", settings.Name)
	}
	return wrap(context.WithoutCancel(ctx), r.run(ctx), "worker %q", settings.Name)
}

// settings returns a copy of w with the defaults filled in.
func (w *Worker) settings() (*Worker, error) {
	s := *w
	if s.Name == "" {
		s.Name = uniqueName()
	}
	s.Concurrency = cmp.Or(s.Concurrency, 16)
	s.Lease = cmp.Or(s.Lease, 30*time.Second)
	s.PollInterval = cmp.Or(s.PollInterval, 250*time.Millisecond)
	s.Grace = cmp.Or(s.Grace, 30*time.Second)
	switch {
	case s.Concurrency < 0:
		return nil, fmt.Errorf("Worker.Concurrency is %d", s.Concurrency)
	case s.Lease < minLease:
		return nil, fmt.Errorf("Worker.Lease %v is shorter than 100 ms", s.Lease)
	case s.PollInterval < 0:
		return nil, fmt.Errorf("Worker.PollInterval is %v", s.PollInterval)
	case s.Grace < 0:
		return nil, fmt.Errorf("Worker.Grace is %v", s.Grace)
	case len(s.Handlers)+len(s.Schedules) == 0:
		return nil, errors.New("no handlers and no schedules")
	}
	return &s, errors.Join(checkTitle("worker name", s.Name), s.checkHandlers(), s.checkSchedules())
}

func (w *Worker) checkHandlers() error {
	queues := map[string]bool{}
	for i, h := range w.Handlers {
		switch {
		case h.work == nil:
			return fmt.Errorf("handler %d is a zero Handler; make it by Queue.Handle", i)
		case h.err != nil:
			return h.err
		case h.store.core != w.Handlers[0].store.core:
			return fmt.Errorf("%w: handlers of two Stores in one Worker", ErrUnsupported)
		case queues[h.queue]:
			return fmt.Errorf("two handlers for queue %q", h.queue)
		}
		queues[h.queue] = true
	}
	return nil
}

func (w *Worker) checkSchedules() error {
	names := map[string]bool{}
	for _, s := range w.Schedules {
		if err := s.check(); err != nil {
			return err
		}
		switch {
		case s.Target.store.core != w.store().core:
			return fmt.Errorf("%w: handlers and schedules of two Stores in one Worker", ErrUnsupported)
		case names[s.Name]:
			return fmt.Errorf("two schedules named %q", s.Name)
		}
		names[s.Name] = true
	}
	return nil
}

// store is that of the handlers or, without any, of the schedules.
func (w *Worker) store() *Store {
	if len(w.Handlers) > 0 {
		return w.Handlers[0].store
	}
	return w.Schedules[0].Target.store
}

// uniqueName is a name that no other worker has.
func uniqueName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), strings.ToLower(rand.Text()[:8]))
}

// A running is a Worker at work. One goroutine, the scheduler, decides what is
// claimed and what is handled when; the database is asked and handlers are
// called on others, which send it their answers.
type running struct {
	*Worker
	store *Store
	log   *slog.Logger
	lanes []*lane
	base  context.Context // of handlers and statements: Run's values, never done

	reads     context.Context // of what may read for long, and holds up no handler: done when draining
	stopReads context.CancelFunc

	recorder   recorder
	timekeeper *timekeeper
	answers    chan answer
	begun      chan *delivery // to hands
	finished   chan *delivery // nil: the bell was rung
	rung       atomic.Bool    // the bell, and the scheduler has not looked since
	statuses   chan map[*lane]string

	lastBeat atomic.Pointer[time.Time] // when the latest heartbeat began that was answered

	recurring failures

	mu       sync.Mutex
	held     map[int64]*delivery // every message leased to it, by id
	setbacks setbacks

	swept      sweepCursor            // the upkeep's
	rescued    map[strandedPage]int64 // run that the look for stranded ones goes on after; the upkeep's
	nextDisown time.Time              // not before; the upkeep's

	nextUnreachable time.Time // the same

	// The rest belongs to the scheduler.
	busy       int  // handlers running
	hands      int  // goroutines to run them: the most that were busy at once
	batched    int  // of them in batches, which take no slots
	polling    bool // an answer to a poll is on its way
	claiming   bool // an answer to a claim is on its way
	looking    bool // an answer to a look is on its way
	draining   bool
	patience   alarm // with handlers, while draining: Grace, then cutWait
	cut        bool  // Grace is over
	abandoned  bool  // cutWait is over
	lastServed int   // lane of the latest message that was begun
	lastAsked  int   // lane of the latest claim
	lastLooked int   // lane of the latest look
	nextPoll   alarm
	pollDue    bool
	lastActive time.Time
	active     bool          // a message has been handled since the latest poll
	failures   int           // questions in a row that the database did not answer
	hint       time.Duration // until the next poll, when something is about to come; 0: nothing is
	soon       bool          // whether a message is expected that the question under way came too early for
}

// A lane is one queue of a running Worker.
type lane struct {
	Handler
	worker    atomic.Int64 // id of its row; 0: it has none
	since     atomic.Int64 // incarnation of its row
	doubtful  atomic.Bool  // a claim may have committed unheard
	limited   atomic.Bool  // its queue has a limit
	opened    atomic.Bool  // the time for which gate was closed is over
	eased     atomic.Bool  // this worker has finished with a message since the latest claim began
	waker     waker
	left      noteTimer // messages that belong to runs, where it is no workflow's
	unwritten bool      // its queue's policy is to be written again; the heartbeat's
	lease     time.Duration
	settling  time.Duration // that the next attempt to clear up after a doubtful claim may take; claims', one at a time

	// The rest belongs to the scheduler.
	flush     func() // has what waits in batches begun; nil unless the handler is for batches
	limit     int    // handlers at a time
	busy      int
	waiting   []*delivery // claimed, and waiting for a slot
	low       lowWater
	more      bool // there may be messages
	again     bool // something was enqueued since the latest claim began
	seen      bool // a poll has seen a due message since the latest claim began
	needsSlot bool // the next message is to be claimed only into a free slot
	off       bool // suspended
	stopped   bool // for good
	gate      gate
	average   time.Duration // of what a handler takes
	size      int           // of a message, on average, in the latest claim
}

// An answer is what the database said: to a claim on a lane, to a look at one, or to a poll.
type answer struct {
	lane  *lane
	asked int
	alone bool
	seen  bool          // to a claim: a poll had seen a due message
	look  bool          // it is to a look from the beginning; see lowWater
	from  place         // where a claim went on, or up to where it was looked
	took  time.Duration // by a look, or a claim from the beginning
	stuck bool          // a poll, or a claim from the beginning, failed while the database answered other questions
	room  room
	ms    []*delivery

	passed []place        // messages that claims have passed over
	due    map[int64]bool // workers with messages due
	err    error
}

// newRunning makes a Worker ready to run. The error is that of its Middleware.
func newRunning(ctx context.Context, w *Worker) (*running, error) {
	store := w.store()
	r := &running{
		Worker: w, store: store, log: store.log.With("worker", w.Name),
		base:    context.WithoutCancel(ctx),
		answers: make(chan answer, 3), statuses: make(chan map[*lane]string, 1),
		held: map[int64]*delivery{}, setbacks: setbacks{}, lastActive: time.Now(),
	}
	r.recurring.log = r.log
	r.reads, r.stopReads = context.WithCancel(r.base)
	r.nextPoll.ring, r.patience.ring = r.ring, r.ring
	calls := w.Concurrency // of handlers, at most
	for _, h := range w.Handlers {
		l := &lane{lease: cmp.Or(h.policy.Lease, w.Lease), limit: w.Concurrency, more: true}
		if c := h.policy.Concurrency; c > 0 {
			l.limit = min(c, w.Concurrency)
		}
		if h.batch != nil {
			b := h.batch()
			h.work, l.flush, l.limit = b.work, b.flush, b.limit
			calls += l.limit
		}
		if err := h.wrap(w.Middleware); err != nil {
			return nil, err
		}
		l.Handler = h
		l.waker.ring = r.ring
		r.lanes = append(r.lanes, l)
	}
	r.begun, r.finished = make(chan *delivery, calls), make(chan *delivery, calls+1)
	r.recorder = recorder{r: r, work: make(chan struct{}, 1)}
	r.timekeeper = newTimekeeper(r)
	return r, nil
}

// wrap puts middleware around the handler's code, the first outermost.
func (h *Handler) wrap(middleware []func(WorkFunc) WorkFunc) error {
	for i := len(middleware) - 1; i >= 0; i-- {
		work := h.work
		err := foreign.Catch(func() { work = middleware[i](work) })
		if err == nil && work == nil {
			err = errors.New("it returned nil")
		}
		if err != nil {
			return &operationError{fmt.Sprintf("middleware %d for queue %q", i, h.queue), err}
		}
		h.work = work
	}
	return nil
}

// register makes a row for each lane and each schedule, and writes the policies of queues. It outlasts a database that is away.
func (r *running) register(ctx context.Context) error {
	if err := r.outlast(ctx, "find out what the database is", r.store.checkEngine); err != nil {
		return err
	}
	rows := make([]policyRow, len(r.lanes))
	for i, l := range r.lanes {
		if err := r.registerLane(ctx, l); err != nil {
			return err
		}
		rows[i] = l.policy.row(l.queue)
	}
	if err := r.outlast(ctx, "write the policies of queues", func(ctx context.Context) error { return r.store.configure(ctx, rows) }); err != nil {
		return err
	}
	return r.outlast(ctx, "make the rows of schedules", r.timekeeper.register)
}

// registerLane makes the row of a lane. A name that is in use may be that of a
// process that died, or of a row made by a try whose answer was lost: it waits
// until that would have shown.
func (r *running) registerLane(ctx context.Context, l *lane) error {
	var deadline time.Time
	for {
		err := r.outlast(ctx, "make the worker's row", func(ctx context.Context) error {
			row, limited, err := r.store.register(ctx, l.queue, r.rowName(l), "polling")
			l.have(row)
			l.limited.Store(limited || l.policy.limited())
			return err
		})
		if !errors.Is(err, ErrState) {
			return err
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(silence + 5*time.Second)
		}
		if time.Now().After(deadline) {
			return err
		}
		r.log.Warn("pgqrs: waiting for a worker of the same name to be given up", "queue", l.queue)
		if !pause(ctx, time.Second) {
			return ctx.Err()
		}
	}
}

// outlast does something again until the database is there. One that cannot be
// opened or written to is an error: the configuration may be to blame.
func (r *running) outlast(ctx context.Context, what string, do func(context.Context) error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		limited, cancel := context.WithTimeout(ctx, statementTimeout)
		err := do(limited)
		late := limited.Err() != nil
		cancel()
		if err == nil || ctx.Err() != nil || !sqlerr.Unreachable(err) && !r.store.dialect.retryable(err) && !late {
			return err
		}
		r.log.Warn("pgqrs: could not start; trying again", "what", what, "err", err)
		if !pause(ctx, wait) {
			return ctx.Err()
		}
	}
}

func (r *running) rowName(l *lane) string { return r.Name + "/" + l.queue }

// run works until ctx is done and everything is wound up.
func (r *running) run(ctx context.Context) error {
	for _, l := range r.lanes {
		defer r.store.listen(l.queue, &l.waker)()
	}
	var upkeep, beating sync.WaitGroup
	upkeepCtx, stopUpkeep := context.WithCancel(ctx)
	beatCtx, stopBeating := context.WithCancel(r.base)
	upkeep.Add(2)
	go func() { defer upkeep.Done(); r.steadily("upkeep", func() { r.maintain(upkeepCtx) }) }()
	go func() { defer upkeep.Done(); r.steadily("schedules", func() { r.timekeeper.run(upkeepCtx) }) }()
	if r.store.cfg.Notifier != nil {
		upkeep.Add(1)
		go func() { defer upkeep.Done(); r.steadily("listening", func() { r.listen(upkeepCtx) }) }()
	}
	beating.Add(2)
	go func() { defer beating.Done(); r.steadily("heartbeats", func() { r.beat(beatCtx) }) }()
	go func() { defer beating.Done(); r.steadily("recording", func() { r.recorder.run(beatCtx) }) }()

	r.schedule(ctx)
	close(r.begun)

	stopUpkeep()
	upkeep.Wait()
	stopBeating()
	beating.Wait()
	r.recorder.finish()
	r.retire()
	return r.leftOver()
}

// steadily runs fn until it returns: again, if code that is not the library's has panicked in it
// or ended its goroutine, as an Observer may.
func (r *running) steadily(what string, fn func()) {
	for {
		err := foreign.Isolate(fn)
		if err == nil {
			return
		}
		r.log.Error("pgqrs: a part of the worker was ended by code that it called; it begins again", "what", what, "err", err)
		time.Sleep(steadyWait)
	}
}

// steadyWait is between two starts of a part of the worker.
const steadyWait = 100 * time.Millisecond

// drain claims no more and gives back what no handler has begun.
func (r *running) drain() {
	r.draining = true
	r.stopReads()
	r.mu.Lock()
	for _, d := range r.held {
		d.m.hold.draining.Store(true)
	}
	r.mu.Unlock()
	for _, l := range r.lanes {
		r.giveBack(l.waiting)
		l.waiting = nil
		if l.gate.closed {
			l.gate.timer.Stop()
		}
		if l.flush != nil {
			l.flush()
		}
	}
	r.patience.set(r.Grace)
}

// retire gives back what a claim with an unknown end may have taken, and marks the rows stopped.
func (r *running) retire() {
	ctx, cancel := context.WithTimeout(r.base, statementTimeout)
	defer cancel()
	var rows []registration
	for _, l := range r.lanes {
		if l.worker.Load() == 0 {
			continue // it was never made, or is another's
		}
		rows = append(rows, l.row())
		if l.doubtful.Load() {
			if err := r.releaseStrays(ctx, l); err != nil {
				r.log.Warn("pgqrs: could not give back messages of a claim whose answer was lost", "queue", l.queue, "err", err)
			}
		}
	}
	if err := r.store.retire(ctx, rows); err != nil {
		r.log.Warn("pgqrs: could not mark the worker stopped", "err", err)
	}
}

// leftOver names the messages whose handlers did not return.
func (r *running) leftOver() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for _, d := range r.held {
		if d.cancel != nil && !d.finished {
			names = append(names, fmt.Sprintf("message %d of queue %q", d.m.ID, d.lane.queue))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d handlers did not return within Grace and %v: %s", ErrTimeout, len(names), cutWait, strings.Join(names, ", "))
}
