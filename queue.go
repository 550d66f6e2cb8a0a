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

// A Queue is a named stream of messages with payloads of type T, which are stored as JSON. Delivery
// is at least once: a message is delivered until it is acked, is deleted or has died. A consumer
// receives messages by priority, then by due time, then by id. Between several consumers there is
// no order.
//
// A Queue is a name and a type. Making one does no I/O, and its row in the database is made on
// first use. It is safe for concurrent use. Use json.RawMessage as T to pass payloads through as
// they are.
type Queue[T any] struct {
	store  *Store
	name   string
	policy Policy
}

// NewQueue returns the queue of that name. A name has 1 to 255 characters, no control character,
// and no space at either end. A bad name makes every call return an error.
func NewQueue[T any](s *Store, name string) *Queue[T] {
	return &Queue[T]{store: s, name: name}
}

// With returns a copy of the queue with p in place of its whole policy.
func (q *Queue[T]) With(p Policy) *Queue[T] {
	return &Queue[T]{store: q.store, name: q.name, policy: p}
}

// WithTx returns a copy of the queue that works in the caller's transaction (see [Store.WithTx]).
// Dequeue, Handle and HandleTx do not work on it.
func (q *Queue[T]) WithTx(tx Tx) *Queue[T] {
	return &Queue[T]{store: q.store.WithTx(tx), name: q.name, policy: q.policy}
}

// usable returns an error if the queue cannot be used.
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

// Enqueue stores a message and returns its id. It sends one statement. The first Enqueue on a queue
// makes the queue's row with another. On a Queue made by WithTx the message exists if and only if
// the transaction commits.
//
// Enqueue returns an error matching:
//   - ErrInvalidPayload if the payload does not marshal, breaks a limit of Limits or cannot be held
//     by every dialect. Nothing is stored.
//   - ErrRateLimited above a rate that Limits sets.
//   - ErrDuplicate, with the first message's id, if the key of a Unique option is taken.
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

// EnqueueBatch stores messages with one statement, whatever their number, and returns their ids in
// the order of the payloads. It stores all of them or none. They are delivered in the order of the
// payloads. An empty batch is an error.
//
// A message whose key (see [Each]) is taken is not stored, and its id is the id of the first
// message with that key. If the key was given by Unique, the error matches ErrDuplicate and names
// the message's index. The ids are complete even then, and the other messages are stored.
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

// Dequeue leases up to n due messages for the given time and returns them in order. It is not an
// error if there are none. Settle each message by Ack, Delete, Release or Fail before its lease
// ends, or it is delivered again. Extend gives it more time. The first call makes a worker row for
// this Store and queue, which Close stops.
//
// A message whose previous lease expired is returned alone. If it crashes this process too, no
// other message loses an attempt.
//
// However many messages are asked for, a call returns no more once their payloads, headers, errors
// and keys reach 8 MiB. On PostgreSQL the length of a payload's JSON text counts, and not its
// stored size.
//
// A message that is past the policy's MaxAttempts, or does not decode into T, goes to the dead
// letters instead of being returned.
//
// A queue and a workflow should not have the same name. Otherwise Dequeue also returns messages of
// the workflow's runs, which only the workflow's handler can settle. Each time such a lease ends,
// an attempt is counted.
//
// Dequeue returns:
//   - an error matching ErrState if the worker row was suspended or interrupted.
//   - an error matching ErrUnsupported on a Queue made by WithTx.
//   - a *RateLimitError, which matches ErrRateLimited, while the queue's MaxLeased or Rate (see
//     [Policy]) allows no delivery.
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

// accept decodes claimed messages. It sends messages that do not decode, or that are past their
// last attempt, to the dead letters. A panic of T is a failed attempt.
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
		// A message whose lease is lost here has been claimed by another consumer, which fails on
		// it in the same way.
		if _, err := q.store.settle(ctx, unfit); err != nil {
			return ms, fmt.Errorf("settle %d messages that cannot be returned: %w", len(unfit), err)
		}
	}
	return ms, nil
}

// attemptsExceeded is the error of a message whose last allowed attempt ended without an answer.
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

// Ack archives messages that are done. It sends one statement. The error names messages whose lease
// was lost, and matches ErrLeaseLost. It also names messages that belong to runs of a workflow of
// the queue's name, and then matches ErrState. The other messages are archived. Acking again a
// message that this lease acked is not an error, and neither is an Ack without messages.
//
// An Ack after the lease has ended still counts if nobody has claimed the message since.
func (q *Queue[T]) Ack(ctx context.Context, ms ...*Message[T]) error {
	return q.settle(ctx, "ack", outcome{kind: acked}, ms)
}

// Delete deletes messages without a trace. Otherwise it is like Ack. [Store.Delete] deletes the
// message of a run, together with the run.
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

// undeleted returns an error with the reasons why messages were not deleted.
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

// Release makes messages ready again after the delay. The attempt does not count. Otherwise it is
// like Ack, except that releasing a message twice is a lost lease.
func (q *Queue[T]) Release(ctx context.Context, delay time.Duration, ms ...*Message[T]) error {
	if delay < 0 {
		return wrap(ctx, fmt.Errorf("negative delay %v", delay), "release on queue %q", q.name)
	}
	return q.settle(ctx, "release", outcome{kind: released, delay: delay}, ms)
}

// Extend makes leases end after the given time from now. Otherwise it is like Ack. It may be
// repeated as long as the lease lasts.
func (q *Queue[T]) Extend(ctx context.Context, lease time.Duration, ms ...*Message[T]) error {
	if err := checkLease(lease); err != nil {
		return wrap(ctx, err, "extend on queue %q", q.name)
	}
	return q.fenced(ctx, "extend", ms, func(c conn, leases leaseTuples) ([]int64, error) {
		return c.execLeases(ctx, c.store.dialect.lease.extend, leases, lease.Microseconds())
	})
}

// Fail records cause and makes messages ready again after the policy's backoff, or sends them to
// the dead letters if it was their last attempt. A cause made by Permanent, RetryAfter or Snooze
// has the same effect as in a handler. Otherwise Fail is like Release. A nil cause is an error.
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

// fenced runs one statement on leases, and unblocks the dependents of the messages whose leases
// end.
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

// report runs an operation on messages, except on messages of runs. The error names the messages of
// runs and the messages whose lease was lost.
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

// lostError names messages in an error matching ErrLeaseLost. It is nil if there are none.
func lostError(lost []int64) error {
	if len(lost) == 0 {
		return nil
	}
	raw, err := json.Marshal(lost)
	return errors.Join(fmt.Errorf("%w: of messages %s", ErrLeaseLost, raw), err)
}
