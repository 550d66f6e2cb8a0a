package pgqrs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// A Notifier notifies other processes of new messages. Correctness does not depend on it, since
// Workers poll in any case. If Notify fails in a transaction that the library began, the enqueue is
// stored nevertheless. If Listen fails, the Worker calls it again. A Notifier must be safe for
// concurrent use. The module notifypgqrs has one, on lib/pq.
type Notifier interface {
	// Notify sends the queue's name, which listeners receive once tx commits. In a caller's
	// transaction it is called once for each queue, and the enqueue returns its error. Otherwise it
	// is called at most once in 20 ms for each queue. Messages of the next 20 ms share one
	// notification at their end.
	Notify(ctx context.Context, tx Tx, queue string) error
	// Listen calls wake with the name of each queue that it receives. It calls wake with "" if it
	// may have missed some, as before it connected. It returns when ctx is done or its connection
	// fails. Every Worker calls it while it runs.
	Listen(ctx context.Context, wake func(queue string)) error
}

const (
	notifyEvery = 20 * time.Millisecond // for one queue, in one Store
	notifyMuted = 10 * time.Second      // after a failure
)

// notifications limits how often a Store calls its Notifier.
type notifications struct {
	mu     sync.Mutex
	muted  time.Time // no notifications before this time
	queues map[string]*notification
}

type notification struct {
	latest  time.Time
	pending bool // whether another notification follows, for messages enqueued since
}

// notifies reports whether the Notifier may be called for a queue now.
func (s *Store) notifies(queue string) bool {
	if s.cfg.Notifier == nil {
		return false
	}
	s.notifications.mu.Lock()
	defer s.notifications.mu.Unlock()
	n := s.notifications.queue(queue)
	return !n.pending && time.Since(n.latest) >= notifyEvery && time.Now().After(s.notifications.muted)
}

// queue returns the entry of a queue. The caller holds mu.
func (ns *notifications) queue(queue string) *notification {
	if ns.queues == nil {
		ns.queues = map[string]*notification{}
	}
	n := ns.queues[queue]
	if n == nil {
		n = &notification{}
		ns.queues[queue] = n
	}
	return n
}

// notify notifies other processes of a queue in the store's transaction, if it is in one.
func (s *Store) notify(ctx context.Context, queue string) error {
	if s.cfg.Notifier == nil || s.tx == nil {
		return nil
	}
	if _, told := s.notified.LoadOrStore(queue, true); told {
		return nil
	}
	if s.afterCommit == nil { // the caller's transaction
		if err := s.callNotify(ctx, queue); err != nil {
			return fmt.Errorf("notify: %w", err)
		}
		return nil
	}
	if !s.notifies(queue) {
		s.onCommit(func() { s.notifyLater(queue) })
		return nil
	}
	s.notifications.mu.Lock()
	s.notifications.queue(queue).latest = time.Now()
	s.notifications.mu.Unlock()
	err := s.callNotify(ctx, queue)
	if err != nil && ctx.Err() == nil { // the error of a cancelled call is not the Notifier's
		err = &notifierError{err}
	}
	return err
}

// callNotify calls Notify in the store's transaction.
func (s *Store) callNotify(ctx context.Context, queue string) (err error) {
	tx := s.tx
	if user, ok := tx.(*userTx); ok {
		tx = user.Tx // the type that was given to the handler
	}
	if bad := foreign.Isolate(func() { err = foreign.Safe(s.cfg.Notifier.Notify(ctx, tx, queue)) }); bad != nil {
		return bad
	}
	return err
}

// A notifierError is a failure of the Notifier that must not fail the transaction.
type notifierError struct{ err error }

func (e *notifierError) Error() string { return fmt.Sprintf("notify: %v", e.err) }

func (e *notifierError) Unwrap() error { return e.err }

// muteNotifier reports whether a transaction failed because of its notifications, and stops them
// for a while. PostgreSQL may report such a failure at the commit.
func (s *Store) muteNotifier(err error) bool {
	var failed *notifierError
	if s.cfg.Notifier == nil || err == nil || !errors.As(err, &failed) && !sqlerr.LimitExceeded(err) {
		return false
	}
	s.notifications.mu.Lock()
	again := time.Now().Before(s.notifications.muted)
	s.notifications.muted = time.Now().Add(notifyMuted)
	s.notifications.mu.Unlock()
	if !again {
		s.log.Warn("pgqrs: could not notify other processes, whose polls will do instead", "for", notifyMuted, "err", err)
	}
	return true
}

// notifyLater calls the Notifier for a queue as soon as that is allowed again, once for all
// messages until then.
func (s *Store) notifyLater(queue string) {
	if s.cfg.Notifier == nil {
		return
	}
	s.notifications.mu.Lock()
	defer s.notifications.mu.Unlock()
	n := s.notifications.queue(queue)
	if n.pending || time.Now().Before(s.notifications.muted) {
		return
	}
	n.pending = true
	time.AfterFunc(notifyEvery-time.Since(n.latest), func() { s.notifyLate(queue) })
}

func (s *Store) notifyLate(queue string) {
	s.notifications.mu.Lock()
	n := s.notifications.queue(queue)
	n.pending, n.latest = false, time.Now()
	s.notifications.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	pool := &Store{core: s.core}
	if pool.usable() != nil {
		return
	}
	err := pool.atomic(ctx, func(c conn) error { return c.store.callNotify(ctx, queue) })
	if err != nil && pool.usable() == nil {
		pool.muteNotifier(&notifierError{err})
	}
}

const (
	minListenWait = 100 * time.Millisecond // before Listen is called again
	maxListenWait = 15 * time.Second
	goodListen    = time.Minute // after so long a failure counts as the first
)

// listenLoop wakes the queue runners that the Notifier names, until ctx is done.
func (r *runner) listenLoop(ctx context.Context) {
	wait := backoff{first: minListenWait, max: maxListenWait, jitter: true}
	for {
		began := time.Now()
		err := r.callListen(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > goodListen {
			wait.reset()
		}
		r.log.Warn("pgqrs: cannot hear of messages from other processes; polling alone until that works again", "err", err)
		if !wait.pause(ctx) {
			return
		}
	}
}

// callListen calls Listen.
func (r *runner) callListen(ctx context.Context) (err error) {
	if bad := foreign.Isolate(func() { err = foreign.Safe(r.store.cfg.Notifier.Listen(ctx, r.notified)) }); bad != nil {
		return bad
	}
	return err
}

// notified wakes the runner of a queue. An empty name wakes all queue runners.
func (r *runner) notified(queue string) {
	for _, q := range r.queues {
		if queue == "" || queue == q.queue {
			q.waker.now.Store(true)
			r.wake()
		}
	}
}

// A waker lets a Store notify a Worker of the same process that a queue has new messages, without a
// query.
type waker struct {
	now, fast atomic.Bool
	wake      func()
}

// wake wakes the workers of a queue in this process: now, or by a fast poll if the message is in a
// caller's transaction. In a transaction it also notifies other processes.
func (s *Store) wake(ctx context.Context, queue string) error {
	if s.afterCommit == nil {
		s.wakeWorkers(queue, s.tx != nil)
	} else {
		s.onCommit(func() { s.wakeWorkers(queue, false) })
	}
	return s.notify(ctx, queue)
}

// onCommit calls fn, or adds it to the after-commit hooks of a transaction of the library's own.
func (s *Store) onCommit(fn func()) {
	if s.afterCommit == nil {
		fn()
		return
	}
	*s.afterCommit = append(*s.afterCommit, fn)
}

func (s *Store) wakeWorkers(queue string, soon bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.wakers[queue] {
		if soon {
			w.fast.Store(true)
		} else {
			w.now.Store(true)
		}
		w.wake()
	}
}

// listen adds a waker. The returned function removes it.
func (s *Store) listen(queue string, w *waker) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wakers[queue] == nil {
		s.wakers[queue] = map[*waker]struct{}{}
	}
	s.wakers[queue][w] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.wakers[queue], w)
	}
}
