package pgqrs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// A Queue is a named stream of messages with payloads of type T, which is
// stored as JSON. Delivery is at least once: a message is delivered until it
// is acked, deleted or has died. A consumer receives messages by priority,
// then by when they became due, then by id; several consumers at once get no
// order between them.
//
// A Queue is a name and a type; making one does no I/O, and its row in the
// database is made on first use. It is safe for concurrent use. Use
// json.RawMessage as T to pass payloads through as they are.
type Queue[T any] struct {
	store  *Store
	name   string
	policy Policy
}

// NewQueue returns the queue of that name: 1 to 255 characters, none of them a
// control character, and no space at either end. A bad name makes every call return an error.
func NewQueue[T any](s *Store, name string) *Queue[T] {
	return &Queue[T]{store: s, name: name}
}

// With returns a copy of the queue with p in place of its whole policy.
func (q *Queue[T]) With(p Policy) *Queue[T] {
	return &Queue[T]{store: q.store, name: q.name, policy: p}
}

// WithTx returns a copy of the queue that does its work in the caller's
// transaction; see [Store.WithTx]. Dequeue, Handle and HandleTx are not for it.
func (q *Queue[T]) WithTx(tx Tx) *Queue[T] {
	return &Queue[T]{store: q.store.WithTx(tx), name: q.name, policy: q.policy}
}

// usable returns why the queue cannot be used, if so.
func (q *Queue[T]) usable() error {
	if err := q.store.usable(); err != nil {
		return err
	}
	if err := checkTitle("queue name", q.name); err != nil {
		return err
	}
	if q.policy.DeadLetter == q.name {
		return errors.New("Policy.DeadLetter is the queue itself")
	}
	return q.policy.check()
}

// Enqueue stores a message and returns its id. It is one statement; the first
// one of a queue makes the queue's row in another. On a Queue made by WithTx
// the message is there if and only if the transaction commits.
//
// It returns an error matching ErrInvalidPayload, with nothing stored, if the
// payload does not marshal, is not what Limits allows or cannot be held by every
// dialect; one matching ErrRateLimited, above a rate that Limits sets; one matching
// ErrDuplicate, with the first message's id, if the key of a Unique option is taken.
func (q *Queue[T]) Enqueue(ctx context.Context, payload T, opts ...Option) (int64, error) {
	if len(opts) > 0 {
		opts = append(slices.Clip(opts), noEach)
	}
	ids, err := q.enqueue(ctx, []any{payload}, opts)
	if len(ids) == 0 {
		return 0, wrap(ctx, err, "enqueue on queue %q", q.name)
	}
	return ids[0], wrap(ctx, err, "enqueue on queue %q", q.name)
}

// EnqueueBatch stores messages by one statement, whatever their number, and
// returns their ids in the order of the payloads. All are stored, or none. Their
// order of delivery is that of the payloads. An empty batch is an error.
//
// With keys (by [Each]) the id of a message whose key is taken is that of the
// first one. If any of them was Unique, the error matches ErrDuplicate and
// names their indexes; the ids are complete, and the others are stored.
func (q *Queue[T]) EnqueueBatch(ctx context.Context, payloads []T, opts ...Option) ([]int64, error) {
	list := make([]any, len(payloads))
	for i, payload := range payloads {
		list[i] = payload
	}
	ids, err := q.enqueue(ctx, list, opts)
	return ids, wrap(ctx, err, "enqueue a batch of %d on queue %q", len(payloads), q.name)
}

func (q *Queue[T]) enqueue(ctx context.Context, payloads []any, opts []Option) ([]int64, error) {
	if err := q.usable(); err != nil {
		return nil, err
	}
	if err := outsideStep(ctx); err != nil {
		return nil, err
	}
	if len(payloads) == 0 {
		return nil, errors.New("no messages to enqueue")
	}
	items, err := q.store.encodeRows(ctx, payloads, opts)
	if err == nil {
		err = q.store.cfg.Limits.admit(items, func(raw []byte) []byte { return raw })
	}
	if err == nil && q.store.rate != nil {
		err = q.store.rate.spend(time.Now(), len(items))
	}
	if err != nil {
		return nil, err
	}
	if then := items[0].callback; then != nil {
		return q.store.enqueueBatch(ctx, q.name, items, then)
	}
	return q.store.enqueue(ctx, q.name, items)
}

// Dequeue leases up to n messages that are due for the given time and returns
// them in order; none is no error. Each is to be settled by Ack, Delete,
// Release or Fail before its lease ends, or it is delivered again; Extend gives
// it more time. The first call makes a worker row for this Store and queue,
// which Close stops. Only one message is returned if its last holder never
// answered, so that one that kills its process takes no others with it.
//
// Messages come up to 8 MiB of payloads, headers, errors and keys, and one message more, however
// many are asked for. On PostgreSQL a payload that is stored, compressed or not, in up to 2000
// bytes counts as those.
//
// Messages that are past the policy's MaxAttempts, or do not decode into T, go
// to the dead letters instead of being returned.
//
// A queue and a workflow should not have one name: messages of the workflow's runs are then
// returned too, but only the workflow's handler can settle them, and each time a lease ends here an
// attempt is counted.
//
// It returns an error matching ErrState if the worker row was suspended or
// interrupted, ErrUnsupported on a Queue made by WithTx, and a *RateLimitError,
// which matches ErrRateLimited, while the queue's MaxLeased or Rate (see [Policy])
// allows no delivery.
func (q *Queue[T]) Dequeue(ctx context.Context, n int, lease time.Duration) ([]*Message[T], error) {
	ms, err := q.dequeue(ctx, n, lease)
	return ms, wrap(ctx, err, "dequeue from queue %q", q.name)
}

func (q *Queue[T]) dequeue(ctx context.Context, n int, lease time.Duration) ([]*Message[T], error) {
	if err := q.usable(); err != nil {
		return nil, err
	}
	if err := q.store.pooled("Dequeue"); err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, fmt.Errorf("asked for %d messages", n)
	}
	if err := checkLease(lease); err != nil {
		return nil, err
	}
	c, err := q.store.consumer(q.name)
	if err != nil {
		return nil, err
	}
	for {
		infos, err := c.claim(ctx, q.store, n, lease)
		if err != nil || len(infos) == 0 {
			return nil, err
		}
		ms, err := q.accept(ctx, infos)
		if err != nil || len(ms) > 0 {
			return ms, err
		}
	}
}

// accept decodes claimed messages; those it cannot, or that are past their
// last attempt, it sends to the dead letters. A panic of T is a failed attempt.
func (q *Queue[T]) accept(ctx context.Context, infos []*MessageInfo) ([]*Message[T], error) {
	var ms []*Message[T]
	var unfit []settlement
	for _, info := range infos {
		m, err := newMessage[T](&q.store.cfg, info)
		if q.policy.attemptsExceeded(info.Attempt) {
			err = Permanent(attemptsExceeded(info))
		}
		switch {
		case err != nil && info.run > 0: // not this consumer's to judge
			unfit = append(unfit, settlement{info, outcome{kind: released, delay: leaveRunFor}, ""})
			continue
		case err != nil:
			unfit = append(unfit, settlement{info, q.policy.outcome(info.Attempt, foreign.Safe(err)), q.policy.DeadLetter})
			continue
		}
		q.store.observeClaim(ctx, info)
		ms = append(ms, m)
	}
	if len(unfit) > 0 {
		// What is lost here has been taken by another, who will find the same.
		if _, err := q.store.settle(ctx, unfit); err != nil {
			return ms, fmt.Errorf("settle %d messages that cannot be returned: %w", len(unfit), err)
		}
	}
	return ms, nil
}

// attemptsExceeded is the error of a message whose last allowed attempt never answered.
func attemptsExceeded(m *MessageInfo) error {
	err := fmt.Errorf("attempt %d ended without an answer: its lease expired", m.Attempt-1)
	if m.LastError != "" {
		err = fmt.Errorf("%w; the last error before: %s", err, m.LastError)
	}
	return err
}

func checkLease(lease time.Duration) error {
	if lease < time.Millisecond {
		return fmt.Errorf("lease %v is shorter than 1 ms", lease)
	}
	return nil
}

// Ack archives messages: they are done. It is one statement. Messages whose
// lease was lost are named in an error matching ErrLeaseLost, and those that
// belong to runs of a workflow of the queue's name in one matching ErrState; the others are
// done. Acking again what this lease acked is no error. No messages is no error.
//
// An Ack after the lease has ended still counts if nobody has taken the message since.
func (q *Queue[T]) Ack(ctx context.Context, ms ...*Message[T]) error {
	return q.settle(ctx, "ack", outcome{kind: acked}, ms)
}

// Delete deletes messages without a trace. Otherwise it is like Ack.
// [Store.Delete] deletes the message of a run, together with the run.
func (q *Queue[T]) Delete(ctx context.Context, ms ...*Message[T]) error {
	var done []int64
	err := q.fenced(ctx, "delete", ms, func(c conn, leases leaseTuples) (_ []int64, err error) {
		done, err = c.execLeases(ctx, c.store.dialect.lease.delete, leases)
		return done, err
	})
	if !errors.Is(err, ErrLeaseLost) {
		return err
	}
	return wrap(ctx, q.undeleted(ctx, ms, done), "delete on queue %q", q.name)
}

// undeleted says why messages were not deleted.
func (q *Queue[T]) undeleted(ctx context.Context, ms []*Message[T], done []int64) error {
	var errs []error
	var lost []int64
	for _, m := range ms {
		if slices.Contains(done, m.ID) {
			continue
		}
		runs, err := q.store.conn().ids(ctx, q.store.dialect.workflow.exists, m.ID)
		switch {
		case err != nil:
			return err
		case len(runs) > 0:
			errs = append(errs, belongsError("delete", m.ID, runs[0]))
		default:
			lost = append(lost, m.ID)
		}
	}
	return errors.Join(append(errs, lostError(lost))...)
}

// Release gives messages back, to be delivered again after the delay. The
// attempt does not count. Otherwise it is like Ack, but for releasing again,
// which is a lost lease.
func (q *Queue[T]) Release(ctx context.Context, delay time.Duration, ms ...*Message[T]) error {
	if delay < 0 {
		return wrap(ctx, fmt.Errorf("negative delay %v", delay), "release on queue %q", q.name)
	}
	return q.settle(ctx, "release", outcome{kind: released, delay: delay}, ms)
}

// Extend makes leases end after the given time from now. Otherwise it is like
// Ack, and may be repeated as long as the lease stands.
func (q *Queue[T]) Extend(ctx context.Context, lease time.Duration, ms ...*Message[T]) error {
	if err := checkLease(lease); err != nil {
		return wrap(ctx, err, "extend on queue %q", q.name)
	}
	return q.fenced(ctx, "extend", ms, func(c conn, leases leaseTuples) ([]int64, error) {
		return c.execLeases(ctx, c.store.dialect.lease.extend, leases, lease.Microseconds())
	})
}

// Fail records cause and gives messages back after the policy's backoff, or
// sends them to the dead letters if it was their last attempt; a cause made by
// Permanent, RetryAfter or Snooze decides as it would in a handler. Otherwise
// it is like Release. A nil cause is an error.
func (q *Queue[T]) Fail(ctx context.Context, cause error, ms ...*Message[T]) error {
	if cause == nil {
		return wrap(ctx, errors.New("nil cause"), "fail on queue %q", q.name)
	}
	if err := q.policy.check(); err != nil {
		return wrap(ctx, err, "fail on queue %q", q.name)
	}
	cause = foreign.Safe(cause)
	return q.settleEach(ctx, "fail", ms, func(m *Message[T]) outcome { return q.policy.outcome(m.Attempt, cause) })
}

func (q *Queue[T]) settle(ctx context.Context, what string, o outcome, ms []*Message[T]) error {
	return q.settleEach(ctx, what, ms, func(*Message[T]) outcome { return o })
}

func (q *Queue[T]) settleEach(ctx context.Context, what string, ms []*Message[T], decide func(*Message[T]) outcome) error {
	return q.report(ctx, what, ms, true, func(ms []*Message[T]) ([]int64, error) {
		list := make([]settlement, len(ms))
		for i, m := range ms {
			list[i] = settlement{&m.MessageInfo, decide(m), q.policy.DeadLetter}
		}
		return q.store.settleShared(ctx, list)
	})
}

// fenced runs one statement on leases, and lets go what follows those that it ends.
func (q *Queue[T]) fenced(ctx context.Context, what string, ms []*Message[T], run func(conn, leaseTuples) ([]int64, error)) error {
	return q.report(ctx, what, ms, what != "extend", func(ms []*Message[T]) (done []int64, err error) {
		var leases leaseTuples
		next := dependents{}
		for _, m := range ms {
			leases.add(&m.MessageInfo)
			if what != "extend" {
				next.add(q.name, m.Group, m.BatchID)
			}
		}
		do := q.store.single
		if len(next) > 0 {
			do = q.store.atomic
		}
		err = do(ctx, func(c conn) (err error) {
			if done, err = run(c, leases); err != nil {
				return err
			}
			return c.unblock(ctx, next)
		})
		return done, err
	})
}

// report runs an operation on messages, except those of runs, and names these and those that were
// lost.
func (q *Queue[T]) report(ctx context.Context, what string, ms []*Message[T], settles bool, run func([]*Message[T]) ([]int64, error)) error {
	err := q.usable()
	if err == nil && slices.Contains(ms, nil) {
		err = errors.New("nil message")
	}
	if err != nil {
		return wrap(ctx, err, "%s on queue %q", what, q.name)
	}
	ms, belongs := withoutRuns(what, ms)
	if len(ms) == 0 {
		return wrap(ctx, belongs, "%s on queue %q", what, q.name)
	}
	for _, m := range ms {
		if settles && m.delivery != nil {
			m.delivery.settling.Add(1)
			defer m.delivery.settling.Add(-1)
		}
	}
	done, err := run(ms)
	if err != nil {
		return wrap(ctx, errors.Join(err, belongs), "%s on queue %q", what, q.name)
	}
	var lost []int64
	for _, m := range ms {
		if !slices.Contains(done, m.ID) {
			lost = append(lost, m.ID)
		} else if settles && m.delivery != nil {
			m.delivery.settled.Store(true)
		}
	}
	return wrap(ctx, errors.Join(lostError(lost), belongs), "%s on queue %q", what, q.name)
}

// lostError names messages in an error matching ErrLeaseLost; nil for none.
func lostError(lost []int64) error {
	if len(lost) == 0 {
		return nil
	}
	raw, err := json.Marshal(lost)
	return errors.Join(fmt.Errorf("%w: of messages %s", ErrLeaseLost, raw), err)
}
