package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var outcomeCases = []testcase{
	{"an error brings the message back after the policy's backoff, and in the end to the dead letters", "a failure would be lost, or repeated without end", outcomeRetry},
	{"Permanent makes a dead letter at the first attempt, however it is wrapped", "what cannot succeed would be tried again and again", outcomePermanent},
	{"RetryAfter sets the delay, however it is wrapped, and the attempt counts", "a rate limit's own advice would be ignored", outcomeRetryAfter},
	{"Snooze brings the message back later without counting the attempt", "waiting for something else would end in the dead letters", outcomeSnooze},
	{"a panic is an error with its stack, and an error that was its value still matches", "a bug would take the whole process down, or leave no trace", outcomePanic},
	{"runtime.Goexit in a handler is a failure like any other", "a t.FailNow in a handler would block a slot for ever", outcomeGoexit},
	{"a payload that does not decode dies, and the worker lives on", "one bad message would stop a queue", outcomeUndecodable},
	{"an attempt that takes too long ends with the cause ErrTimeout, and counts", "a handler that hangs would hold its slot for ever", outcomeTimeout},
	{"a handler that ignores its ctx and returns nil has done its work, past its Timeout and past Grace", "work that is done would be done again", outcomeIgnoresCtx},
	{"a message that its handler settled is left at that", "what a handler decided would be overruled, or its context cancelled", outcomeSettled},
	{"a message past its last attempt dies without being handled", "a message that kills its process would do so for ever", outcomeOverdrawn},
	{"HandleTx commits the effect and the ack together", "an effect would happen without its ack, or the ack without its effect", outcomeTx},
	{"HandleTx rolls the effect back on an error, to which the policy applies", "a failed attempt would leave half its effects behind", outcomeTxError},
	{"HandleTx does nothing when its lease was taken over before it began", "an effect would happen twice", outcomeTxLost},
	{"HandleTx rolls the effect back when its lease is lost under way", "an effect would happen twice", outcomeTxLostLate},
}

var errBoom = errors.New("boom")

// failing starts a worker whose handler returns err, and enqueues a message for it.
func (e *env) failing(t *testing.T, p pgqrs.Policy, err error) (id int64) {
	t.Helper()
	q := pgqrs.NewQueue[int](e.store, "failing").With(p)
	start(t, fast(q.Handle(func(context.Context, *pgqrs.Message[int]) error { return err })))
	return enqueue(t, q, 1)
}

// wantText fails the test unless text contains each part.
func wantText(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s is %q; want it to contain %q", what, text, part)
		}
	}
}

// wantDelay fails the test unless the message waits for about the given time, by the database's
// clock.
func wantDelay(t *testing.T, m pgqrs.MessageInfo, want time.Duration) {
	t.Helper()
	if d := m.DueAt.Sub(m.EnqueuedAt); d < want || d > want+time.Minute {
		t.Fatalf("the message is due %v after it was enqueued; want %v, or a little more", d, want)
	}
}

func outcomeRetry(t *testing.T, e *env) {
	var asked tally[int]
	p := pgqrs.Policy{MaxAttempts: 3, Backoff: func(attempt int) time.Duration {
		asked.add(attempt)
		return time.Duration(attempt) * time.Hour
	}}
	id := e.failing(t, p, errBoom)
	for attempt := 1; attempt < 3; attempt++ {
		eventually(t, fmt.Sprintf("attempt %d has failed", attempt), func() bool {
			m := e.info(t, id)
			return m.State == pgqrs.Scheduled && m.Attempt == attempt
		})
		m := e.info(t, id)
		wantText(t, "last error", m.LastError, "boom")
		wantDelay(t, m, time.Duration(attempt)*time.Hour)
		e.makeDue(t, id)
	}
	m := e.awaitState(t, id, pgqrs.Dead)
	equal(t, "attempts", m.Attempt, 3)
	equal(t, "last error", m.LastError, "boom")
	equalSlices(t, "backoffs asked for", asked.all(), []int{1, 2})
}

func outcomePermanent(t *testing.T, e *env) {
	m := e.awaitState(t, e.failing(t, pgqrs.Policy{}, fmt.Errorf("charge: %w", pgqrs.Permanent(errBoom))), pgqrs.Dead)
	equal(t, "attempts", m.Attempt, 1)
	equal(t, "last error", m.LastError, "charge: boom")
}

func outcomeRetryAfter(t *testing.T, e *env) {
	m := e.awaitState(t, e.failing(t, atOnce(5), fmt.Errorf("charge: %w", pgqrs.RetryAfter(2*time.Hour, errBoom))), pgqrs.Scheduled)
	equal(t, "attempts", m.Attempt, 1)
	equal(t, "last error", m.LastError, "charge: boom")
	wantDelay(t, m, 2*time.Hour)
}

func outcomeSnooze(t *testing.T, e *env) {
	id := e.failing(t, atOnce(1), fmt.Errorf("not yet: %w", pgqrs.Snooze(2*time.Hour)))
	for round := int64(1); round <= 3; round++ {
		m := e.awaitState(t, id, pgqrs.Scheduled)
		equal(t, "attempts", m.Attempt, 0)
		equal(t, "last error", m.LastError, "")
		equal(t, "claims", m.Claim, round)
		e.makeDue(t, id)
		eventually(t, "the message has been claimed again", func() bool { return e.info(t, id).Claim == round+1 })
	}
	e.awaitState(t, id, pgqrs.Scheduled)
	if e.log.has("handler failed") {
		t.Error("a snooze was logged as a failure")
	}
}

func outcomePanic(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "panics").With(atOnce(2))
	start(t, fast(q.Handle(func(_ context.Context, m *pgqrs.Message[string]) error {
		switch m.Payload {
		case "value":
			panic("paper jam")
		case "error":
			panic(fmt.Errorf("jam: %w", pgqrs.Permanent(errBoom)))
		}
		return nil
	})))
	byValue, byError, fine := enqueue(t, q, "value"), enqueue(t, q, "error"), enqueue(t, q, "fine")
	m := e.awaitState(t, byValue, pgqrs.Dead)
	equal(t, "attempts of a panic with a value", m.Attempt, 2)
	wantText(t, "last error", m.LastError, "panic: paper jam", "outcomePanic", "goroutine")
	m = e.awaitState(t, byError, pgqrs.Dead)
	equal(t, "attempts of a panic with a permanent error", m.Attempt, 1)
	wantText(t, "last error", m.LastError, "panic: jam: boom", "outcomePanic")
	e.awaitState(t, fine, pgqrs.Archived)
}

func outcomeGoexit(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "exits").With(atOnce(2))
	w := fast(q.Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
		if m.Payload < 3 {
			runtime.Goexit()
		}
		return nil
	}))
	w.Concurrency = 1
	start(t, w)
	ids := value(q.EnqueueBatch(t.Context(), []int{1, 2, 3}))(t)
	for _, id := range ids[:2] {
		m := e.awaitState(t, id, pgqrs.Dead)
		equal(t, "attempts", m.Attempt, 2)
		wantText(t, "last error", m.LastError, "Goexit")
	}
	e.awaitState(t, ids[2], pgqrs.Archived)
}

func outcomeIgnoresCtx(t *testing.T, e *env) {
	begun := make(chan struct{}, 2)
	late := func(ctx context.Context, _ *pgqrs.Message[int]) error {
		begun <- struct{}{}
		<-ctx.Done()
		return nil
	}
	timed := pgqrs.NewQueue[int](e.store, "timed").With(pgqrs.Policy{Timeout: time.Millisecond})
	drained := pgqrs.NewQueue[int](e.store, "drained")
	w := fast(timed.Handle(late), drained.Handle(late))
	w.Grace = time.Millisecond
	stop := start(t, w)
	ids := []int64{enqueue(t, timed, 1), enqueue(t, drained, 1)}
	for range ids {
		receive(t, "a handler has begun", begun)
	}
	e.awaitState(t, ids[0], pgqrs.Archived)
	must(t, stop())
	for _, id := range ids {
		m := e.info(t, id)
		equal(t, "state", m.State, pgqrs.Archived)
		equal(t, "attempts", m.Attempt, 1)
	}
}

func outcomeUndecodable(t *testing.T, e *env) {
	var handled tally[int]
	q := pgqrs.NewQueue[int](e.store, "numbers")
	start(t, fast(q.Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
		handled.add(m.Payload)
		return nil
	})))
	bad := enqueue(t, pgqrs.NewQueue[string](e.store, "numbers"), "seven")
	good := enqueue(t, q, 7)
	m := e.awaitState(t, bad, pgqrs.Dead)
	equal(t, "attempts", m.Attempt, 1)
	wantText(t, "last error", m.LastError, "invalid payload", "int")
	e.awaitState(t, good, pgqrs.Archived)
	equalSlices(t, "handled", handled.all(), []int{7})
}

func outcomeTimeout(t *testing.T, e *env) {
	p := atOnce(2)
	p.Timeout = 20 * time.Millisecond
	q := pgqrs.NewQueue[int](e.store, "slow").With(p)
	causes := make(chan error, 2)
	start(t, fast(q.Handle(func(ctx context.Context, _ *pgqrs.Message[int]) error {
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return fmt.Errorf("call: %w", ctx.Err())
	})))
	id := enqueue(t, q, 1)
	for range 2 {
		wantError(t, receive(t, "the handler's ctx ends", causes), pgqrs.ErrTimeout)
	}
	m := e.awaitState(t, id, pgqrs.Dead)
	equal(t, "attempts", m.Attempt, 2)
	wantText(t, "last error", m.LastError, "timeout", "20ms", "call: context deadline exceeded")
}

// beats waits until every worker row has had n more heartbeats. Leases are renewed before each.
func (e *env) beats(t *testing.T, n int) {
	t.Helper()
	last := map[int64]time.Time{}
	count := map[int64]int{}
	eventually(t, fmt.Sprintf("workers have had %d more heartbeats", n), func() bool {
		done := true
		for _, w := range value(e.store.Workers(t.Context()))(t) {
			if w.State == pgqrs.WorkerStopped {
				continue
			}
			if w.HeartbeatAt.After(last[w.ID]) {
				count[w.ID]++
				last[w.ID] = w.HeartbeatAt
			}
			done = done && count[w.ID] > n // the first count is the base
		}
		return done
	})
}

func outcomeSettled(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "own").With(pgqrs.Policy{Backoff: func(int) time.Duration { return time.Hour }})
	settled, gate, ended := make(chan error, 4), make(chan struct{}), make(chan error, 4)
	w := fast(q.Handle(func(ctx context.Context, m *pgqrs.Message[string]) error {
		settled <- map[string]func() error{
			"ack":     func() error { return q.Ack(ctx, m) },
			"delete":  func() error { return q.Delete(ctx, m) },
			"release": func() error { return q.Release(ctx, time.Hour, m) },
			"fail":    func() error { return q.Fail(ctx, errBoom, m) },
		}[m.Payload]()
		<-gate
		ended <- context.Cause(ctx)
		return nil
	}))
	w.Lease = 600 * time.Millisecond
	stop := start(t, w)
	ids := value(q.EnqueueBatch(t.Context(), []string{"ack", "delete", "release", "fail"}))(t)
	for range ids {
		must(t, receive(t, "a handler settles its message", settled))
	}
	e.beats(t, 3)
	close(gate)
	for range ids {
		if cause := receive(t, "a handler returns", ended); cause != nil {
			t.Errorf("a handler that had settled its message was cancelled: %v", cause)
		}
	}
	must(t, stop())
	equal(t, "state after Ack", e.info(t, ids[0]).State, pgqrs.Archived)
	equal(t, "messages after Delete", len(value(e.store.Messages(t.Context(), pgqrs.MessageFilter{IDs: ids[1:2]}))(t)), 0)
	released, failed := e.info(t, ids[2]), e.info(t, ids[3])
	equal(t, "state after Release", released.State, pgqrs.Scheduled)
	equal(t, "attempts after Release", released.Attempt, 0)
	equal(t, "state after Fail", failed.State, pgqrs.Scheduled)
	equal(t, "attempts after Fail", failed.Attempt, 1)
	equal(t, "last error after Fail", failed.LastError, "boom")
	if e.log.has("lease lost") || e.log.has("lease was lost") {
		t.Error("a settled message was taken for a lost one")
	}
}

func outcomeOverdrawn(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "killer").With(atOnce(1))
	id := enqueue(t, q, "x")
	dequeueOne(t, q) // its process dies
	pgqrstest.Advance(t, e.store, time.Minute)
	h, got := handling(q)
	start(t, fast(h))
	m := e.awaitState(t, id, pgqrs.Dead)
	wantText(t, "last error", m.LastError, "attempt 1", "lease expired")
	equal(t, "times it was handled", len(got), 0)
}

// effects makes a table for the effects of handlers, and returns a function that counts them.
func (e *env) effects(t *testing.T) (count func() int) {
	t.Helper()
	e.poke(t, "CREATE TABLE effects (n INTEGER)")
	return func() (n int) {
		t.Helper()
		must(t, e.db.QueryRowContext(t.Context(), "SELECT count(*) FROM effects").Scan(&n))
		return n
	}
}

const effect = "INSERT INTO effects VALUES (1)"

func outcomeTx(t *testing.T, e *env) {
	count := e.effects(t)
	q := pgqrs.NewQueue[int](e.store, "orders")
	start(t, fast(q.HandleTx(func(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[int]) error {
		_, err := tx.ExecContext(ctx, effect)
		return err
	})))
	ids := value(q.EnqueueBatch(t.Context(), []int{1, 2, 3}))(t)
	for _, id := range ids {
		equal(t, "attempts", e.awaitState(t, id, pgqrs.Archived).Attempt, 1)
	}
	equal(t, "effects", count(), 3)
}

func outcomeTxError(t *testing.T, e *env) {
	count := e.effects(t)
	q := pgqrs.NewQueue[int](e.store, "orders").With(atOnce(3))
	start(t, fast(q.HandleTx(func(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[int]) error {
		if _, err := tx.ExecContext(ctx, effect); err != nil {
			return err
		}
		switch {
		case m.Payload == 1:
			return errBoom
		case m.Payload == 2 && m.Attempt == 1:
			panic(errBoom)
		}
		return nil
	})))
	first, second := enqueue(t, q, 1), enqueue(t, q, 2)
	m := e.awaitState(t, first, pgqrs.Dead)
	equal(t, "attempts", m.Attempt, 3)
	equal(t, "last error", m.LastError, "boom")
	equal(t, "attempts of the other", e.awaitState(t, second, pgqrs.Archived).Attempt, 2)
	equal(t, "effects", count(), 1)
}

func outcomeTxLost(t *testing.T, e *env) {
	count := e.effects(t)
	q := pgqrs.NewQueue[int](e.store, "orders")
	elsewhere := pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "orders")
	claimed, gate, ended := make(chan int64, 1), make(chan struct{}), make(chan error, 1)
	var calls tally[int]
	w := fast(q.HandleTx(func(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[int]) error {
		calls.add(m.Payload)
		_, err := tx.ExecContext(ctx, effect)
		return err
	}))
	w.Concurrency = 1
	w.Middleware = []func(pgqrs.WorkFunc) pgqrs.WorkFunc{func(next pgqrs.WorkFunc) pgqrs.WorkFunc {
		return func(ctx context.Context, m *pgqrs.MessageInfo) error {
			claimed <- m.ID
			<-gate
			err := next(context.WithoutCancel(ctx), m)
			ended <- err
			return err
		}
	}}
	stop := start(t, w)
	id := enqueue(t, q, 1)
	receive(t, "the worker has the message", claimed)
	m := takeOver(t, e, elsewhere, id)
	close(gate)
	wantError(t, receive(t, "the handler returns", ended), pgqrs.ErrLeaseLost)
	must(t, stop())
	equal(t, "calls", calls.len(), 0)
	equal(t, "effects", count(), 0)
	equal(t, "holder", e.info(t, id).WorkerID, m.WorkerID)
	must(t, elsewhere.Ack(t.Context(), m))
}

// takeOver ends a message's lease and lets another consumer take the message.
func takeOver[T any](t *testing.T, e *env, q *pgqrs.Queue[T], id int64) (m *pgqrs.Message[T]) {
	t.Helper()
	eventually(t, "another consumer takes the message", func() bool {
		e.makeDue(t, id)
		ms := value(q.Dequeue(t.Context(), 1, time.Hour))(t)
		if len(ms) == 0 || ms[0].ID != id {
			return false // the lease was renewed in between
		}
		m = ms[0]
		return true
	})
	if m == nil {
		t.FailNow()
	}
	return m
}

func outcomeTxLostLate(t *testing.T, e *env) {
	count := e.effects(t)
	q := pgqrs.NewQueue[int](e.store, "orders").With(atOnce(1))
	ended := make(chan error, 1)
	w := fast(q.HandleTx(func(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[int]) error {
		// On SQLite nobody else could take it now, because the transaction holds the write lock.
		_, err := tx.ExecContext(ctx, fmt.Sprintf("UPDATE pgqrs_messages SET claim_ct = claim_ct + 1 WHERE id = %d", m.ID))
		if err == nil {
			_, err = tx.ExecContext(ctx, effect)
		}
		return err
	}))
	w.Middleware = []func(pgqrs.WorkFunc) pgqrs.WorkFunc{func(next pgqrs.WorkFunc) pgqrs.WorkFunc {
		return func(ctx context.Context, m *pgqrs.MessageInfo) error {
			err := next(ctx, m)
			ended <- err
			return err
		}
	}}
	start(t, w)
	id := enqueue(t, q, 1)
	wantError(t, receive(t, "the handler returns", ended), pgqrs.ErrLeaseLost)
	equal(t, "effects", count(), 0)
	e.awaitState(t, id, pgqrs.Dead) // by the policy, because the theft was rolled back too
}
