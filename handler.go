package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
)

// A WorkFunc handles one delivery. It is what middleware wraps. Its error
// decides what becomes of the message:
//   - nil: it is acked.
//   - an error matching [ErrPermanent]: it goes to the dead letters.
//   - [Snooze]: it comes back later, and the attempt does not count.
//   - [RetryAfter]: it comes back after that time, unless this was the last attempt.
//   - any other, or a panic: it comes back after the policy's backoff, unless this was the last attempt.
//
// ctx carries the values of the ctx given to Worker.Run, but outlives it until
// Grace has passed. Its cause is ErrLeaseLost once the message is no longer
// held, and ErrTimeout after Policy.Timeout.
type WorkFunc func(ctx context.Context, m *MessageInfo) error

// A Handler is code for a queue, to be run by a [Worker]. Queue.Handle,
// Queue.HandleTx, Queue.HandleBatch and Workflow.Handle make it.
type Handler struct {
	store  *Store
	queue  string
	policy Policy
	work   WorkFunc
	err    error // why it cannot work

	workflow bool            // its messages have runs
	batch    func() batching // makes work for one Worker, if that handles several messages at once
}

// Handle returns a handler that calls fn with each message of the queue; see
// [WorkFunc] for what its error means. A message whose payload does not decode
// into T goes to the dead letters without fn being called. A message that fn
// settled itself, by Ack and its like, is left at that. One that belongs to a run of a workflow
// of the queue's name is given back, uncounted, for the workflow's handler.
func (q *Queue[T]) Handle(fn func(context.Context, *Message[T]) error) Handler {
	h := q.handler(fn == nil)
	h.work = func(ctx context.Context, info *MessageInfo) error {
		m, err := newMessage[T](&q.store.cfg, info)
		if err != nil {
			return err
		}
		return fn(ctx, m)
	}
	return h
}

// HandleTx returns a handler that calls fn with a transaction, in which the
// message is acked after fn: what fn does there and the ack happen together or
// not at all. If the lease is lost meanwhile, or fn returns an error, the
// transaction is rolled back. If the database is to blame, the message comes
// back after a second, and the attempt does not count, unless that happens 16 times in a row. The
// transaction itself is asked about an error of fn: one from elsewhere, as from a file or a service,
// counts. fn must not commit the transaction, may run again after a
// conflict, and should do nothing but SQL. On SQLite and Turso the transaction
// holds the write lock from its beginning. A call on the Store itself that writes would wait for it there, and
// returns an error matching ErrState if its ctx is fn's: use WithTx. On PostgreSQL the transaction is READ COMMITTED.
//
// On Turso in MVCC mode return the first error that the database gives: the
// engine ends the transaction at a conflict, and what is sent after it commits
// by itself. If that is swallowed, the message goes to the dead letters, and
// what was sent after the conflict stays.
func (q *Queue[T]) HandleTx(fn func(context.Context, *sql.Tx, *Message[T]) error) Handler {
	h := q.handler(fn == nil)
	h.work = func(ctx context.Context, info *MessageInfo) error {
		m, err := newMessage[T](&q.store.cfg, info)
		if err != nil {
			return err
		}
		if m.hold == nil {
			m.hold = new(hold)
		}
		m.hold.inTx.Store(true)
		defer m.hold.inTx.Store(false)
		err = q.store.inTx(ctx, func(ctx context.Context, tx *userTx) error { return q.workTx(ctx, tx, m, fn) })
		if errors.Is(err, ErrLeaseLost) || context.Cause(ctx) != nil || !setback(err) {
			return err
		}
		return &setbackError{err}
	}
	return h
}

// workTx runs fn and the ack in tx.
func (q *Queue[T]) workTx(ctx context.Context, tx *userTx, m *Message[T], fn func(context.Context, *sql.Tx, *Message[T]) error) error {
	m.hold.settled.Store(false) // by a run that was rolled back
	bound := q.WithTx(tx)
	held, err := conn{bound.store, tx}.ids(ctx, q.store.dialect.lease.check, m.ID, m.WorkerID, m.Claim)
	if err == nil && len(held) == 0 {
		err = lostError([]int64{m.ID})
	}
	if err != nil {
		return wrap(ctx, err, "handle in a transaction on queue %q", q.name)
	}
	if err := fn(ctx, tx.Tx, m); err != nil {
		return q.store.blame(ctx, tx, err)
	}
	if err := q.store.intact(ctx, tx); err != nil {
		return wrap(ctx, err, "handle in a transaction on queue %q", q.name)
	}
	if m.hold.settled.Load() {
		return nil
	}
	if err := bound.Ack(ctx, m); !errors.Is(err, sql.ErrTxDone) || ctx.Err() != nil {
		return err
	}
	return errTxDone
}

// errEnded is for user code that went on after an error which ended its transaction.
var errEnded = error(&ownError{Permanent(errors.New("the database ended the transaction at a conflict, and the function did not return that error: what it did before is undone, and what it did after is committed"))})

// intact finds out whether the engine has ended a transaction that inTx began,
// before anything is recorded in it.
func (s *Store) intact(ctx context.Context, tx *userTx) error {
	if !s.cfg.Concurrent {
		return nil
	}
	_, err := conn{s, tx}.exec(ctx, s.dialect.release)
	if err != nil && containsAny(err, []string{"no such savepoint"}) {
		return fmt.Errorf("%w (%w)", errEnded, err)
	}
	return err
}

func (q *Queue[T]) handler(noCode bool) Handler {
	h := Handler{store: q.store, queue: q.name, policy: q.policy, err: q.usable()}
	switch {
	case h.err != nil:
	case q.store.tx != nil:
		h.err = q.store.pooled("Handle")
	case noCode:
		h.err = errors.New("nil handler function")
	}
	if h.err != nil {
		h.err = &operationError{fmt.Sprintf("handler of queue %q", q.name), h.err}
	}
	return h
}

// inTx runs fn in a transaction of database/sql, for user code. It runs again
// when the database asks for it. The ctx of fn is marked as that of the transaction.
func (s *Store) inTx(ctx context.Context, fn func(context.Context, *userTx) error) error {
	return s.retry(ctx, func() error { return s.inTxOnce(ctx, fn) })
}

func (s *Store) inTxOnce(ctx context.Context, fn func(context.Context, *userTx) error) error {
	u, err := s.beginUser(ctx)
	if err != nil {
		return err
	}
	defer u.end() // it is rolled back, unless it is committed
	mark := new(openTx)
	defer mark.ended.Store(true)
	if s.cfg.Concurrent {
		if _, err := (conn{s, u}).exec(ctx, s.dialect.savepoint); err != nil {
			return err
		}
	}
	if err := fn(context.WithValue(ctx, txKey{s.core}, mark), u); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return u.own.end(u.Tx.Commit)
}

// txKey is the key of an openTx in the ctx of user code.
type txKey struct{ store *core }

// An openTx is the mark of a transaction that user code has got.
type openTx struct{ ended atomic.Bool }

// errInTx is for a write that would wait for the transaction that it is called in.
var errInTx = fmt.Errorf("%w: its ctx is that of a transaction of HandleTx or StepTx, which holds the database's only write lock, so that the call would wait for itself; use WithTx with that transaction", ErrState)

// outsideTx returns an error if ctx is that of a transaction which keeps out the write to come.
func (s *Store) outsideTx(ctx context.Context) error {
	if s.dialect.concurrency != singleWriter || s.tx != nil {
		return nil // under Config.Concurrent too: user code's transaction begins as BeginTx has it, and keeps others out
	}
	if open, ok := ctx.Value(txKey{s.core}).(*openTx); ok && !open.ended.Load() {
		return errInTx
	}
	return nil
}

// A userTx is a transaction that user code gets. The library's own statements in it note if the driver panics.
type userTx struct {
	*sql.Tx
	own    *session
	untie  func() bool // from ctx, whose end rolls it back
	cancel context.CancelFunc
}

// beginUser begins a transaction that ends with ctx.
func (s *Store) beginUser(ctx context.Context) (*userTx, error) {
	limited, cancel := context.WithCancel(context.WithoutCancel(ctx))
	u := &userTx{untie: context.AfterFunc(ctx, cancel), cancel: cancel}
	own, err := s.sessionFor(ctx, func(own *session) (err error) {
		u.Tx, err = own.begin(limited, s.dialect.isolation)
		return err
	})
	if err != nil {
		u.untie()
		if !isDriverPanic(err) {
			cancel()
		}
		return nil, err
	}
	u.own = own
	return u, nil
}

func (u *userTx) on() *session { return u.own }

// Commit implements [transaction].
func (u *userTx) Commit(context.Context) error { return u.own.end(u.Tx.Commit) }

// Rollback implements [transaction].
func (u *userTx) Rollback(context.Context) error { return u.own.end(u.Tx.Rollback) }

// end rolls the transaction back, unless it has ended. It is to be deferred: after a panic of the
// driver under user code database/sql is not asked for anything any more, not even by the end of ctx.
func (u *userTx) end() {
	u.untie()
	if u.own.panic == nil && panickedIn("database/sql.") {
		u.own.broken(u.own.store.driverPanicked("in a transaction of user code", true))
	}
	if u.own.panic == nil {
		_ = u.own.end(u.Tx.Rollback)
	}
	if u.own.panic == nil {
		u.cancel()
	}
	u.own.release()
}
