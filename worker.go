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

// A Worker runs handlers. It claims messages of their queues in batches, renews the leases while
// handlers run, and records the outcomes in batches. A handler's error or panic does not end it,
// and neither does an outage of the database. The Worker tries again until the database is back.
//
// Each of its queues has a row among [Store.Workers], named Name/queue. Through the row another
// process can suspend, resume, interrupt and stop the Worker's work on the queue. A Worker also
// does maintenance: it marks workers without heartbeats stopped and deletes messages past their
// queue's retention.
//
// The fields must not change while Run runs.
type Worker struct {
	// Handlers is the code to run, one for each queue. All must be of one Store.
	Handlers []Handler
	// Schedules are run beside the handlers, or without any (see [Schedule]). Their targets must be
	// of the same Store.
	Schedules []Schedule
	// Middleware wraps every handler. The first is the outermost. It may change the error of a
	// handler. It can neither end a run that has not ended, nor keep a suspended run from
	// continuing.
	Middleware []func(WorkFunc) WorkFunc
	// Name identifies the worker. No other worker may have the same Name at the same time. If the
	// name is in use, Run waits half a minute, in case its owner has died, and then returns an
	// error matching ErrState. Empty means a name of host, process id and a random number.
	Name string
	// Concurrency is how many messages are handled at a time. Zero means 16.
	Concurrency int
	// Lease is how long a message stays with a Worker whose heartbeats have stopped. A live Worker
	// renews it. Zero means 30 s. Less than 100 ms is an error. Policy.Lease takes precedence.
	Lease time.Duration
	// PollInterval is how often an idle Worker polls for messages that another process enqueued or
	// that have become due. The interval varies at random. After half a minute without a message it
	// grows to 1 s. Zero means 250 ms.
	PollInterval time.Duration
	// Grace is how long handlers may continue after Run's ctx is done, before their own ctx ends.
	// Zero means 30 s.
	Grace time.Duration
}

const (
	maxClaim    = 500  // messages in one claim
	maxPrefetch = 1000 // messages of a queue that wait for a free slot
	// maxPrefetchSize is in bytes of their payloads, if they are like the latest messages.
	maxPrefetchSize = 8 << 20
	// fullClaimSize is in bytes. A claim that returned less has left no message for its size. It is
	// far less than claimedBytes, since PostgreSQL overestimates large messages.
	fullClaimSize         = 512 << 10
	slowLargeClaim        = 2 * time.Second       // see boundClaims
	prefetchTime          = 50 * time.Millisecond // amount of work to have claimed
	maxPendingCompletions = 2000                  // outcomes waiting to be written
	maxHeartbeat          = 2 * time.Second       // pgqrs 0.15 gives a worker up after 5 s
	minLease              = 100 * time.Millisecond
	statementTimeout      = 10 * time.Second // of a worker's own statements
	// maintenanceTimeout bounds statements that nothing waits for. They may have to read past tens
	// of millions of dead rows.
	maintenanceTimeout = time.Minute
	cancelWait         = 2 * time.Second // for handlers to return after Grace
)

// Run works until ctx is done. Then it claims no more messages, gives handlers Grace to finish,
// ends their ctx, and releases unfinished messages without counting the attempt. It returns nil,
// unless handlers have not returned even then. In that case the error names their messages, which
// are delivered again when their leases end. Run also returns nil after all its rows were stopped
// by [Store.StopWorker].
//
// Run waits for a database that is away, at its beginning and later. It returns an error at once if
// waiting does not help: for an invalid field, an error matching ErrNotInstalled, ErrUnsupported or
// ErrState, or another error about the Worker's row.
func (w *Worker) Run(ctx context.Context) error {
	settings, err := w.settings()
	if err != nil {
		return wrap(ctx, err, "run")
	}
	r, err := newRunner(ctx, settings)
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

// store returns the Store of the handlers or, without any, of the schedules.
func (w *Worker) store() *Store {
	if len(w.Handlers) > 0 {
		return w.Handlers[0].store
	}
	return w.Schedules[0].Target.store
}

// uniqueName returns a name that no other worker has.
func uniqueName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), strings.ToLower(rand.Text()[:8]))
}

// A runner is a Worker at work. Its dispatchLoop decides what to claim and which handlers to start.
type runner struct {
	*Worker
	store  *Store
	log    *slog.Logger
	queues []*queueRunner

	// handlerBase is the ctx of handlers and statements. It has the values of Run's ctx, and never
	// ends.
	handlerBase context.Context
	// maintenanceReads is the ctx of statements that may read for long and delay no handler. It
	// ends with the drain.
	maintenanceReads context.Context
	stopReads        context.CancelFunc

	completer completer
	scheduler *scheduler

	// These are the events of the dispatch loop.
	answers        chan queryAnswer
	begun          chan *delivery // to executors
	finished       chan *delivery // from executors, nil wakes the loop
	woken          atomic.Bool    // a nil is on its way
	workerStatuses chan map[*queueRunner]WorkerState

	// lastHeartbeat is the beginning of the latest heartbeat that was answered.
	lastHeartbeat atomic.Pointer[time.Time]
	repeated      failureLogs
	maintenanceState

	mu          sync.Mutex
	held        map[int64]*delivery // every message that it has leased, by id
	infraErrors infraErrorCounts
}

// A queueRunner is one queue of a runner.
type queueRunner struct {
	Handler
	worker        atomic.Int64 // id of its row. 0: it has none
	incarnation   atomic.Int64 // of its row
	claimUnknown  atomic.Bool  // a claim may have committed without an answer
	limited       atomic.Bool  // the queue has a limit
	throttleEnded atomic.Bool  // the time of the throttle is over
	capacityFreed atomic.Bool  // this worker has finished with a message since the latest claim began
	waker         waker
	runsLeft      limitedLog // messages of runs that a plain handler has met
	lease         time.Duration
	// releaseTimeout is for the next attempt to clear up after an unknown claim. Only claims use
	// it.
	releaseTimeout time.Duration

	// policyUnwritten means that the policy of the queue has to be written again. Only the
	// heartbeat uses it.
	policyUnwritten bool

	queueDispatch
}

// A queueDispatch holds the fields of a queue that only the dispatch loop uses.
type queueDispatch struct {
	// flush starts the batches that wait for more messages. It is nil if the handler is not for
	// batches.
	flush           func()
	limit           int // handlers at a time
	handling        int
	waiting         []*delivery // claimed messages that wait for a slot
	cursor          claimCursor
	mayHaveMessages bool
	enqueuedSince   bool // a message was enqueued since the latest claim began
	pollSawDue      bool // a poll has seen a due message since the latest claim began
	needsSlot       bool // the next message is claimed only into a free slot
	suspended       bool
	stopped         bool // for good
	throttle        throttle
	refusals        int           // claims in a row that the database refused
	averageTime     time.Duration // of a handler
	averageSize     int           // of a message in the latest claim
	claimBound      int           // of a claim after a slow one, 0 means none
}

// newRunner prepares a Worker to run. It returns an error of the Worker's Middleware.
func newRunner(ctx context.Context, w *Worker) (*runner, error) {
	store := w.store()
	r := &runner{
		Worker: w, store: store, log: store.log.With("worker", w.Name),
		handlerBase: context.WithoutCancel(ctx),
		answers:     make(chan queryAnswer, 3), workerStatuses: make(chan map[*queueRunner]WorkerState, 1),
		held: map[int64]*delivery{}, infraErrors: infraErrorCounts{},
	}
	r.repeated.log = r.log
	r.maintenanceReads, r.stopReads = context.WithCancel(r.handlerBase)
	calls := w.Concurrency // of handlers, at most
	for _, h := range w.Handlers {
		q := &queueRunner{lease: cmp.Or(h.policy.Lease, w.Lease)}
		q.limit, q.mayHaveMessages = w.Concurrency, true
		if c := h.policy.Concurrency; c > 0 {
			q.limit = min(c, w.Concurrency)
		}
		if h.batch != nil {
			b := h.batch()
			h.work, q.flush, q.limit = b.work, b.flush, b.limit
			calls += q.limit
		}
		if err := h.wrap(w.Middleware); err != nil {
			return nil, err
		}
		q.Handler = h
		q.waker.wake = r.wake
		r.queues = append(r.queues, q)
	}
	r.begun, r.finished = make(chan *delivery, calls), make(chan *delivery, calls+1)
	r.completer = completer{r: r, work: make(chan struct{}, 1)}
	r.scheduler = newScheduler(r)
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

// register makes a row for each queue runner and each schedule, and writes the policies of queues.
// It waits for a database that is away.
func (r *runner) register(ctx context.Context) error {
	if err := r.retryWhileUnavailable(ctx, "find out what the database is", r.store.checkEngine); err != nil {
		return err
	}
	rows := make([]policyRow, len(r.queues))
	for i, q := range r.queues {
		if err := r.registerQueue(ctx, q); err != nil {
			return err
		}
		rows[i] = q.policy.row(q.queue)
	}
	if err := r.retryWhileUnavailable(ctx, "write the policies of queues", func(ctx context.Context) error { return r.store.configure(ctx, rows) }); err != nil {
		return err
	}
	return r.retryWhileUnavailable(ctx, "make the rows of schedules", r.scheduler.register)
}

// registerQueue makes the row of a queue runner. If the name is in use, its owner may be a process
// that died, or a try of registerQueue whose answer was lost. So registerQueue waits for as long as
// it takes to find out.
func (r *runner) registerQueue(ctx context.Context, q *queueRunner) error {
	var deadline time.Time
	for {
		err := r.retryWhileUnavailable(ctx, "make the worker's row", func(ctx context.Context) error {
			row, limited, err := r.store.register(ctx, q.queue, r.rowName(q), WorkerPolling)
			q.setRow(row)
			q.limited.Store(limited || q.policy.limited())
			return err
		})
		if !errors.Is(err, ErrState) {
			return err
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(heartbeatTimeout + 5*time.Second)
		}
		if time.Now().After(deadline) {
			return err
		}
		r.log.Warn("pgqrs: waiting for a worker of the same name to be given up", "queue", q.queue)
		if !pause(ctx, time.Second) {
			return ctx.Err()
		}
	}
}

// retryWhileUnavailable repeats do until the database is available. A database that cannot be
// opened or written to is an error, since the configuration may be wrong.
func (r *runner) retryWhileUnavailable(ctx context.Context, what string, do func(context.Context) error) error {
	wait := backoff{first: 100 * time.Millisecond, max: 5 * time.Second}
	for {
		limited, cancel := context.WithTimeout(ctx, statementTimeout)
		err := do(limited)
		late := limited.Err() != nil
		cancel()
		if err == nil || ctx.Err() != nil || !sqlerr.Unreachable(err) && !r.store.dialect.retryable(err) && !late {
			return err
		}
		r.log.Warn("pgqrs: could not start; trying again", "what", what, "err", err)
		if !wait.pause(ctx) {
			return ctx.Err()
		}
	}
}

func (r *runner) rowName(q *queueRunner) string { return r.Name + "/" + q.queue }

// run works until ctx is done and everything has ended.
func (r *runner) run(ctx context.Context) error {
	for _, q := range r.queues {
		defer r.store.listen(q.queue, &q.waker)()
	}
	var maintenance, beating sync.WaitGroup
	maintenanceCtx, stopUpkeep := context.WithCancel(ctx)
	beatCtx, stopBeating := context.WithCancel(r.handlerBase)
	maintenance.Add(2)
	go func() {
		defer maintenance.Done()
		r.restartAfterPanic("maintenance", func() { r.maintenanceLoop(maintenanceCtx) })
	}()
	go func() {
		defer maintenance.Done()
		r.restartAfterPanic("schedules", func() { r.scheduler.loop(maintenanceCtx) })
	}()
	if r.store.cfg.Notifier != nil {
		maintenance.Add(1)
		go func() {
			defer maintenance.Done()
			r.restartAfterPanic("listening", func() { r.listenLoop(maintenanceCtx) })
		}()
	}
	beating.Add(2)
	go func() { defer beating.Done(); r.restartAfterPanic("heartbeats", func() { r.heartbeatLoop(beatCtx) }) }()
	go func() { defer beating.Done(); r.restartAfterPanic("recording", func() { r.completer.run(beatCtx) }) }()

	newDispatchLoop(r).run(ctx)
	close(r.begun)

	stopUpkeep()
	maintenance.Wait()
	stopBeating()
	beating.Wait()
	r.completer.finish()
	r.retire()
	return r.leftOver()
}

// restartAfterPanic runs fn until it returns. It runs fn again if foreign code in it, such as an
// Observer, panics or ends the goroutine.
func (r *runner) restartAfterPanic(what string, fn func()) {
	for {
		err := foreign.Isolate(fn)
		if err == nil {
			return
		}
		r.log.Error("pgqrs: a part of the worker was ended by code that it called; it begins again", "what", what, "err", err)
		time.Sleep(restartWait)
	}
}

// restartWait is the time between two starts of a part of the worker.
const restartWait = 100 * time.Millisecond

// retire releases the messages of a claim with an unknown outcome, and marks the rows stopped.
func (r *runner) retire() {
	ctx, cancel := context.WithTimeout(r.handlerBase, statementTimeout)
	defer cancel()
	var rows []registration
	for _, q := range r.queues {
		if q.worker.Load() == 0 {
			continue // it was never made, or belongs to another worker
		}
		rows = append(rows, q.row())
		if q.claimUnknown.Load() {
			if err := r.releaseOrphans(ctx, q); err != nil {
				r.log.Warn("pgqrs: could not give back messages of a claim whose answer was lost", "queue", q.queue, "err", err)
			}
		}
	}
	if err := r.store.retire(ctx, rows); err != nil {
		r.log.Warn("pgqrs: could not mark the worker stopped", "err", err)
	}
}

// leftOver returns an error that names the messages whose handlers did not return.
func (r *runner) leftOver() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for _, d := range r.held {
		if d.cancel != nil && !d.finished {
			names = append(names, fmt.Sprintf("message %d of queue %q", d.m.ID, d.queue.queue))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d handlers did not return within Grace and %v: %s", ErrTimeout, len(names), cancelWait, strings.Join(names, ", "))
}
