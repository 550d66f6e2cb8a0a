package pgqrs

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
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
