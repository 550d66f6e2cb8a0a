package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// A WorkFunc handles one delivery. Middleware wraps it. Its error decides the outcome of the
// message:
//   - nil: it is acked.
//   - an error matching [ErrPermanent]: it goes to the dead letters.
//   - [Snooze]: it becomes ready later, and the attempt does not count.
//   - [RetryAfter]: it becomes ready after that time, unless this was the last attempt.
//   - any other, or a panic: it becomes ready after the policy's backoff, unless this was the last
//     attempt.
//
// ctx has the values of the ctx given to Worker.Run, but outlives that ctx until Grace has passed.
// Its cause is ErrLeaseLost if the lease is lost, and ErrTimeout after Policy.Timeout.
type WorkFunc func(ctx context.Context, m *MessageInfo) error

// A Handler is code for a queue that a [Worker] runs. Queue.Handle, Queue.HandleTx,
// Queue.HandleBatch and Workflow.Handle make it.
type Handler struct {
	store  *Store
	queue  string
	policy Policy
	work   WorkFunc
	err    error // why it cannot work

	workflow bool // its messages have runs
	// batch makes work for one Worker, if the handler takes several messages at once.
	batch func() batchWork
}

// Handle returns a handler that calls fn with each message of the queue. See [WorkFunc] for the
// effects of the error of fn. A message whose payload does not decode into T goes to the dead
// letters, and fn is not called. If fn settles a message itself, by Ack for example, the Worker
// does not settle it again. A message that belongs to a run of a workflow of the queue's name is
// released for the workflow's handler, and the attempt does not count.
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

// HandleTx returns a handler that calls fn with a transaction, in which the message is acked after
// fn. The work of fn in it and the ack happen together or not at all. If the lease is lost
// meanwhile, or fn returns an error, the transaction is rolled back.
//
// If the database caused the error, the message becomes ready after a second, and the attempt does
// not count, unless that happens 16 times in a row. The state of the transaction decides whether
// the database caused an error of fn. An error from elsewhere, as from a file or a service, counts.
//
// fn must not commit the transaction, may run again after a conflict, and should do nothing but
// SQL. On PostgreSQL the transaction is READ COMMITTED. On SQLite and Turso it holds the write lock
// from its beginning. There a write on the Store itself, called with fn's ctx, would wait for that
// lock. It returns an error matching ErrState instead. Use WithTx.
//
// On Turso in MVCC mode return the first error that the database gives. The engine ends the
// transaction at a conflict, and commits each statement after that by itself. If fn swallows the
// error, the message goes to the dead letters, and the statements after the conflict stay
// committed.
func (q *Queue[T]) HandleTx(fn func(context.Context, *sql.Tx, *Message[T]) error) Handler {
	h := q.handler(fn == nil)
	h.work = func(ctx context.Context, info *MessageInfo) error {
		m, err := newMessage[T](&q.store.cfg, info)
		if err != nil {
			return err
		}
		if m.delivery == nil {
			m.delivery = new(deliveryState)
		}
		m.delivery.inTransaction.Store(true)
		defer m.delivery.inTransaction.Store(false)
		err = q.store.inTx(ctx, func(ctx context.Context, tx *userTx) error { return q.workTx(ctx, tx, m, fn) })
		if errors.Is(err, ErrLeaseLost) || context.Cause(ctx) != nil || !isInfraError(err) {
			return err
		}
		return &infraError{err}
	}
	return h
}

// workTx runs fn and the ack in tx.
func (q *Queue[T]) workTx(ctx context.Context, tx *userTx, m *Message[T], fn func(context.Context, *sql.Tx, *Message[T]) error) error {
	m.delivery.settled.Store(false) // it may be set by an attempt that was rolled back
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
	if err := q.store.checkTx(ctx, tx); err != nil {
		return wrap(ctx, err, "handle in a transaction on queue %q", q.name)
	}
	if m.delivery.settled.Load() {
		return nil
	}
	if err := bound.Ack(ctx, m); !errors.Is(err, sql.ErrTxDone) || ctx.Err() != nil {
		return err
	}
	return errTxDoneByUser
}

// errTxEnded is the error of user code that continued after an error which ended its transaction.
var errTxEnded = error(&userError{Permanent(errors.New("the database ended the transaction at a conflict, and the function did not return that error: what it did before is undone, and what it did after is committed"))})

// checkTx finds out whether the engine has ended a transaction that inTx began, before anything is
// recorded in the transaction.
func (s *Store) checkTx(ctx context.Context, tx *userTx) error {
	if !s.cfg.Concurrent {
		return nil
	}
	_, err := conn{s, tx}.exec(ctx, s.dialect.transaction.release)
	if err != nil && sqlerr.NoSavepoint(err) {
		return fmt.Errorf("%w (%w)", errTxEnded, err)
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

// inTx runs fn in a transaction of database/sql, for user code. It runs fn again if the database
// asks for that. The ctx of fn has the mark of the transaction.
func (s *Store) inTx(ctx context.Context, fn func(context.Context, *userTx) error) error {
	return s.retry(ctx, func() error { return s.inTxOnce(ctx, fn) })
}

func (s *Store) inTxOnce(ctx context.Context, fn func(context.Context, *userTx) error) error {
	u, err := s.beginUser(ctx)
	if err != nil {
		return err
	}
	defer u.end() // it is rolled back, unless it is committed
	mark := new(txMark)
	defer mark.ended.Store(true)
	if s.cfg.Concurrent {
		if _, err := (conn{s, u}).exec(ctx, s.dialect.transaction.savepoint); err != nil {
			return err
		}
	}
	if err := fn(context.WithValue(ctx, txKey{s.core}, mark), u); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return u.own.endTx(u.Tx.Commit)
}

// txKey is the key of an openTx in the ctx of user code.
type txKey struct{ store *core }

// A txMark marks a transaction that was given to user code.
type txMark struct{ ended atomic.Bool }

// errInTx is the error of a write that would wait for the transaction in which it is called.
var errInTx = fmt.Errorf("%w: its ctx is that of a transaction of HandleTx or StepTx, which holds the database's only write lock, so that the call would wait for itself; use WithTx with that transaction", ErrState)

// outsideTx returns an error if the coming write would wait for the transaction that ctx belongs
// to.
func (s *Store) outsideTx(ctx context.Context) error {
	if !s.dialect.singleWriter || s.tx != nil {
		// The same holds under Config.Concurrent, because user code's transaction begins as BeginTx
		// has it, and keeps others out.
		return nil
	}
	if open, ok := ctx.Value(txKey{s.core}).(*txMark); ok && !open.ended.Load() {
		return errInTx
	}
	return nil
}

// A userTx is a transaction that is given to user code. The library's own statements in it record a
// panic of the driver.
type userTx struct {
	*sql.Tx
	own    *session
	untie  func() bool // unties it from ctx, whose end rolls it back
	cancel context.CancelFunc
}

// beginUser begins a transaction that ends with ctx.
func (s *Store) beginUser(ctx context.Context) (*userTx, error) {
	limited, cancel := context.WithCancel(context.WithoutCancel(ctx))
	u := &userTx{untie: context.AfterFunc(ctx, cancel), cancel: cancel}
	own, err := s.sessionFor(ctx, func(own *session) (err error) {
		u.Tx, err = own.begin(limited, s.dialect.transaction.isolation)
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

func (u *userTx) onSession() *session { return u.own }

// Commit implements [transaction].
func (u *userTx) Commit(context.Context) error { return u.own.endTx(u.Tx.Commit) }

// Rollback implements [transaction].
func (u *userTx) Rollback(context.Context) error { return u.own.endTx(u.Tx.Rollback) }

// end rolls the transaction back, unless it has ended. It is deferred. After the driver has
// panicked under user code, database/sql is not called any more, not even when ctx ends.
func (u *userTx) end() {
	u.untie()
	if u.own.panic == nil && foreign.OnStack("database/sql.") {
		u.own.notePanic(u.own.store.driverPanicked("in a transaction of user code", true))
	}
	if u.own.panic == nil {
		_ = u.own.endTx(u.Tx.Rollback)
	}
	if u.own.panic == nil {
		u.cancel()
	}
	u.own.release()
}

// maxBatch is how many messages a batch may have.
const maxBatch = 1000

// HandleBatch returns a handler that calls fn with up to size messages at once. A batch begins when
// the Worker has that many messages, or has had the first of them for age. With an age of zero it
// does not wait, and a batch consists of the messages that came while the previous batch was
// handled.
//
// The messages of a batch are in the order of their delivery. If fn returns nil, all messages are
// acked. If it returns a [BatchError], the messages that it names fail, and the others are acked.
// Any other error, or a panic, is the failure of each message. See [WorkFunc] for the effects of an
// error. A message that has been delivered before is handled alone, so that it cannot fail other
// messages with it again. If fn settles a message itself, by Ack for example, the Worker does not
// settle it again. A message whose payload does not decode into T goes to the dead letters.
//
// Policy.Concurrency is how many batches are handled at a time. Zero means 1. Messages in batches
// do not count against Worker.Concurrency. Policy.Timeout includes the wait for a batch, and must
// be longer than age. The ctx of fn has the values of the first message's ctx. It ends when the ctx
// of every message has ended, so one lost lease does not end it. Middleware is called for each
// message. A Worker that is stopping does not wait for more messages, but begins the batches of the
// messages that it has.
func (q *Queue[T]) HandleBatch(fn func(ctx context.Context, ms []*Message[T]) error, size int, age time.Duration) Handler {
	h := q.handler(fn == nil)
	if h.err == nil {
		if err := q.checkBatch(size, age); err != nil {
			h.err = &operationError{fmt.Sprintf("batch handler of queue %q", q.name), err}
		}
	}
	fresh := func() *batcher[T] {
		return &batcher[T]{cfg: &q.store.cfg, fn: fn, size: size, maxAge: age, maxRunning: max(1, q.policy.Concurrency)}
	}
	h.batch = func() batchWork {
		b := fresh()
		return batchWork{b.work, b.flush, b.size * b.maxRunning}
	}
	h.work = func(ctx context.Context, m *MessageInfo) error { // by itself, outside a Worker
		b := fresh()
		b.flush()
		return b.work(ctx, m)
	}
	return h
}

func (q *Queue[T]) checkBatch(size int, age time.Duration) error {
	switch timeout := q.policy.Timeout; {
	case size < 1 || size > maxBatch:
		return fmt.Errorf("size %d is not between 1 and %d", size, maxBatch)
	case age < 0:
		return fmt.Errorf("negative age %v", age)
	case timeout > 0 && timeout <= age:
		return fmt.Errorf("Policy.Timeout %v is not longer than the age %v, for which messages wait", timeout, age)
	}
	return nil
}

// A batchWork is how a Worker calls a batch handler, once for each message, each time in a
// goroutine of its own.
type batchWork struct {
	work  WorkFunc
	flush func() // begins the waiting messages, and all later ones at once
	limit int    // maximum number of messages at a time
}

// A batcher gathers the messages of one Worker and queue. Each message waits in a call of work,
// which returns its outcome.
type batcher[T any] struct {
	cfg        *Config
	fn         func(context.Context, []*Message[T]) error
	size       int
	maxAge     time.Duration
	maxRunning int // batches at a time

	mu          sync.Mutex
	waiting     []*batchEntry[T] // for more messages
	redelivered []*batchEntry[T] // messages delivered before, each for a batch of its own
	running     int
	flushed     bool
	ageTimer    *time.Timer
}

// A batchEntry is a message in a batcher.
type batchEntry[T any] struct {
	ctx     context.Context
	message *Message[T]
	since   time.Time
	result  chan error // holds one
}

// work handles a message together with others.
func (b *batcher[T]) work(ctx context.Context, info *MessageInfo) error {
	m, err := newMessage[T](b.cfg, info)
	if err != nil {
		return err
	}
	e := &batchEntry[T]{ctx, m, time.Now(), make(chan error, 1)}
	b.mu.Lock()
	if m.Attempt > 1 {
		b.redelivered = append(b.redelivered, e)
	} else {
		b.waiting = append(b.waiting, e)
	}
	b.startBatches()
	b.mu.Unlock()
	select {
	case err := <-e.result:
		return err
	case <-ctx.Done():
	}
	if b.remove(e) {
		return context.Cause(ctx)
	}
	return <-e.result
}

// remove removes a message that still waits.
func (b *batcher[T]) remove(e *batchEntry[T]) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, list := range []*[]*batchEntry[T]{&b.waiting, &b.redelivered} {
		if i := slices.Index(*list, e); i >= 0 {
			*list = slices.Delete(*list, i, i+1)
			return true
		}
	}
	return false
}

// flush makes the batcher wait for no more messages.
func (b *batcher[T]) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flushed = true
	b.startBatches()
}

// startBatches starts the batches that may start, and sets the timer for the next call. The caller
// holds b.mu.
func (b *batcher[T]) startBatches() {
	for b.running < b.maxRunning {
		batch := b.next()
		if len(batch) == 0 {
			break
		}
		b.running++
		go b.run(batch)
	}
	if b.ageTimer != nil {
		b.ageTimer.Stop()
		b.ageTimer = nil
	}
	if b.running < b.maxRunning && len(b.waiting) > 0 {
		b.ageTimer = time.AfterFunc(b.maxAge-time.Since(b.waiting[0].since), func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.startBatches()
		})
	}
}

// next removes and returns the batch to start, if there is one. The caller holds b.mu.
func (b *batcher[T]) next() (batch []*batchEntry[T]) {
	if len(b.redelivered) > 0 {
		batch, b.redelivered = b.redelivered[:1:1], b.redelivered[1:]
		return batch
	}
	n := min(len(b.waiting), b.size)
	if n < b.size && !b.flushed && (n == 0 || time.Since(b.waiting[0].since) < b.maxAge) {
		return nil
	}
	batch, b.waiting = b.waiting[:n:n], b.waiting[n:]
	return batch
}

// errGoexit is the error of a handler that ends its goroutine.
var errGoexit = errors.New("pgqrs: handler called runtime.Goexit")

// run calls fn with a batch and sends each message its result. The deferred part runs even after
// runtime.Goexit in fn.
func (b *batcher[T]) run(batch []*batchEntry[T]) {
	err := errGoexit
	defer func() {
		if v := recover(); v != nil {
			err = foreign.NewPanic(v)
		}
		results := batchResults(err, batch)
		for i, e := range batch {
			e.result <- results[i]
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.running--
		b.startBatches()
	}()
	slices.SortFunc(batch, func(a, b *batchEntry[T]) int { // the goroutines came in no order
		return cmp.Or(-cmp.Compare(a.message.Priority, b.message.Priority), a.message.DueAt.Compare(b.message.DueAt), cmp.Compare(a.message.ID, b.message.ID))
	})
	ms := make([]*Message[T], len(batch))
	for i, e := range batch {
		ms[i] = e.message
	}
	ctx, cancel := batchContext(batch)
	defer cancel()
	err = foreign.Safe(b.fn(ctx, ms))
}

// checkBatchError makes a BatchError that names unknown messages an error of the whole batch.
func checkBatchError[T any](err error, batch []*batchEntry[T]) error {
	var each BatchError
	if !errors.As(err, &each) {
		return err
	}
	for id := range each {
		if !slices.ContainsFunc(batch, func(e *batchEntry[T]) bool { return e.message.ID == id }) {
			return fmt.Errorf("the BatchError names message %d, which is not in the batch: %s", id, unprefixed(err))
		}
	}
	return err
}

// batchResults returns the error of each message of a batch. It calls methods of the error in a
// goroutine of its own. An error that ends its goroutine then does not end the caller, which has to
// send the results.
func batchResults[T any](err error, batch []*batchEntry[T]) []error {
	results := make([]error, len(batch))
	if err == nil {
		return results
	}
	bad := foreign.Isolate(func() {
		err = checkBatchError(err, batch)
		for i, e := range batch {
			results[i] = batchResult(err, e.message.ID)
		}
	})
	if bad != nil {
		for i := range results {
			results[i] = fmt.Errorf("what became of the batch cannot be told: %w", bad)
		}
	}
	return results
}

// batchResult returns the error of one message of a batch.
func batchResult(err error, id int64) error {
	var each BatchError
	if errors.As(err, &each) {
		return each[id]
	}
	return err
}

// batchContext returns a ctx that ends when the ctx of every message has ended.
func batchContext[T any](batch []*batchEntry[T]) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(batch[0].ctx))
	var mu sync.Mutex
	left := len(batch)
	var stops []func() bool
	for _, e := range batch {
		stops = append(stops, context.AfterFunc(e.ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			if left--; left == 0 {
				cancel(context.Cause(e.ctx))
			}
		}))
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}
