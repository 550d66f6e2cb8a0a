package conformance

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var leaseCases = []testcase{
	{"a leased message goes to nobody else while its lease lives", "two processes would do the same work at once", func(t *testing.T, e *env) {
		a, b := jobs(e), another(t, e)
		ids := value(a.EnqueueBatch(t.Context(), []string{"1", "2", "3"}))(t)
		equalSlices(t, "ids of the first", idsOf(dequeue(t, a, 2)), ids[:2])
		equalSlices(t, "ids of the second", idsOf(dequeue(t, b, 10)), ids[2:])
		wantNone(t, a)
		wantNone(t, b)
		pgqrstest.Advance(t, e.store, 20*time.Second)
		wantNone(t, b)
		equal(t, "leased", e.stats(t, "jobs").Leased, 3)
	}},
	{"Dequeue returns no more than it was asked for and refuses what makes no sense", "a consumer would hold more than it can do in time", func(t *testing.T, e *env) {
		q := jobs(e)
		value(q.EnqueueBatch(t.Context(), make([]string, 10)))(t)
		equal(t, "number of messages", len(dequeue(t, q, 5)), 5)
		equal(t, "ready messages left", e.stats(t, "jobs").Ready, 5)
		for _, n := range []int{0, -1} {
			_, err := q.Dequeue(t.Context(), n, time.Minute)
			wantErrorText(t, err, fmt.Sprintf("asked for %d", n))
		}
		for _, lease := range []time.Duration{0, -time.Minute, time.Millisecond - 1} {
			_, err := q.Dequeue(t.Context(), 1, lease)
			wantErrorText(t, err, "lease")
		}
		equal(t, "ready messages left", e.stats(t, "jobs").Ready, 5)
	}},
	{"a delivery says whose it is, which attempt, and until when", "a consumer could not tell a retry, nor when to extend", func(t *testing.T, e *env) {
		q := jobs(e)
		id := enqueue(t, q, "x", pgqrs.Priority(1), pgqrs.Key("k"))
		m, stored := dequeueOne(t, q), e.info(t, id)
		equal(t, "listed state", stored.State, pgqrs.Leased)
		equal(t, "queue", m.Queue, "jobs")
		equal(t, "state", m.State, pgqrs.Leased)
		equal(t, "priority", m.Priority, 1)
		equal(t, "key", m.Key, "k")
		equal(t, "attempt", m.Attempt, stored.Attempt)
		equal(t, "end of the lease", m.LeasedUntil, stored.LeasedUntil)
		equal(t, "length of the lease", m.LeasedUntil.After(m.EnqueuedAt.Add(30*time.Second-time.Millisecond)), true)
		equal(t, "time it became due", m.DueAt, m.EnqueuedAt)
		equal(t, "worker", m.WorkerID, handRow(t, e, "jobs").ID)
		equal(t, "held by the worker", handRow(t, e, "jobs").Leased, 1)
	}},
	{"an expired lease makes the message deliverable again, and the attempt counts", "what a killed process held would be lost, or crash one process after another", func(t *testing.T, e *env) {
		a, b := jobs(e), another(t, e)
		enqueue(t, a, "x")
		first := dequeueOne(t, a)
		pgqrstest.Advance(t, e.store, 31*time.Second)
		equal(t, "state", e.info(t, first.ID).State, pgqrs.Ready)
		second := dequeueOne(t, b)
		equal(t, "id", second.ID, first.ID)
		equal(t, "attempt", second.Attempt, 2)
		if second.Claim <= first.Claim {
			t.Errorf("claim number went from %d to %d", first.Claim, second.Claim)
		}
	}},
	{"a holder that lost its lease changes nothing and is told so", "a process that was held up would undo what its successor does", func(t *testing.T, e *env) {
		loseLease(t, e, jobs(e), another(t, e))
	}},
	{"a lease can be lost to the same consumer", "a held-up goroutine would settle what another one of its process has in hand", func(t *testing.T, e *env) {
		loseLease(t, e, jobs(e), jobs(e))
	}},
	{"an expired lease that nobody has taken still settles", "work that took a little long would be done again for nothing", func(t *testing.T, e *env) {
		q := jobs(e)
		for what, settle := range settlements(t, q) {
			enqueue(t, q, what)
			m := dequeueOne(t, q)
			pgqrstest.Advance(t, e.store, 31*time.Second)
			if err := settle(m); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			value(e.store.Delete(t.Context(), m.ID))(t)
		}
	}},
	{"Extend makes the lease last, past its first end", "long work would be taken away from its holder", func(t *testing.T, e *env) {
		q := jobs(e)
		enqueue(t, q, "x")
		m := dequeueOne(t, q)
		for range 3 {
			must(t, q.Extend(t.Context(), 2*time.Minute, m))
			pgqrstest.Advance(t, e.store, 100*time.Second)
			wantNone(t, q)
		}
		pgqrstest.Advance(t, e.store, 21*time.Second)
		again := dequeueOne(t, q)
		equal(t, "attempt", again.Attempt, 2)
		wantError(t, q.Extend(t.Context(), time.Minute, m), pgqrs.ErrLeaseLost)
		wantErrorText(t, q.Extend(t.Context(), 0, again), "lease")
	}},
	{"Extend may shorten the lease", "a consumer could not hand over what it will not do in a while", func(t *testing.T, e *env) {
		q := jobs(e)
		enqueue(t, q, "x")
		must(t, q.Extend(t.Context(), time.Second, dequeueOne(t, q)))
		pgqrstest.Advance(t, e.store, 2*time.Second)
		equal(t, "attempt", dequeueOne(t, q).Attempt, 2)
	}},
	{"the claim number grows with every claim and never goes back", "an old holder could pass for the present one", func(t *testing.T, e *env) {
		q := jobs(e)
		id := enqueue(t, q, "x")
		last := int64(0)
		claim := func(attempt int) *pgqrs.Message[string] {
			t.Helper()
			m := dequeueOne(t, q)
			equal(t, "attempt", m.Attempt, attempt)
			if m.Claim <= last {
				t.Fatalf("claim number went from %d to %d", last, m.Claim)
			}
			last = m.Claim
			return m
		}
		must(t, q.Release(t.Context(), 0, claim(1)))
		must(t, q.Fail(t.Context(), pgqrs.RetryAfter(0, errTest), claim(1)))
		must(t, q.Fail(t.Context(), pgqrs.Permanent(errTest), claim(2)))
		equal(t, "number redriven", value(e.store.Redrive(t.Context(), id))(t), 1)
		must(t, q.Ack(t.Context(), claim(1)))
		equal(t, "number redriven", value(e.store.Redrive(t.Context(), id))(t), 1)
		claim(1)
	}},
	{"a message past its last attempt goes to the dead letters with the reason", "a message that kills its process would be retried for ever, or hidden for ever", func(t *testing.T, e *env) {
		q := jobs(e).With(pgqrs.Policy{MaxAttempts: 2})
		id := enqueue(t, q, "x")
		must(t, q.Fail(t.Context(), pgqrs.RetryAfter(0, errors.New("disk full")), dequeueOne(t, q)))
		dequeueOne(t, q)
		pgqrstest.Advance(t, e.store, 31*time.Second)
		wantNone(t, q)
		m := e.info(t, id)
		equal(t, "state", m.State, pgqrs.Dead)
		for _, text := range []string{"attempt 2 ended without an answer", "disk full"} {
			if !strings.Contains(m.LastError, text) {
				t.Errorf("last error is %q; want it to say %q", m.LastError, text)
			}
		}
	}},
	{"a message whose last holder never answered is delivered alone", "one that kills its process would burn the attempts of its neighbours", func(t *testing.T, e *env) {
		q := jobs(e)
		enqueue(t, q, "crash")
		value(q.Dequeue(t.Context(), 1, 10*time.Second))(t)
		enqueue(t, q, "before 1", pgqrs.Delay(2*time.Second))
		enqueue(t, q, "before 2", pgqrs.Delay(5*time.Second))
		enqueue(t, q, "after 1", pgqrs.Delay(20*time.Second))
		enqueue(t, q, "after 2", pgqrs.Delay(21*time.Second))
		pgqrstest.Advance(t, e.store, 29*time.Second)
		for _, want := range [][]string{{"before 1", "before 2"}, {"crash"}, {"after 1", "after 2"}, {}} {
			equalSlices(t, "batch", payloads(dequeue(t, q, 10)), want)
		}
	}},
	{"messages whose last holder never answered come one at a time, in order", "they would not come at all, or kill their process together", func(t *testing.T, e *env) {
		q := jobs(e)
		value(q.EnqueueBatch(t.Context(), []string{"a", "b", "c"}))(t)
		equal(t, "number of messages", len(dequeue(t, q, 10)), 3)
		enqueue(t, q, "urgent", pgqrs.Priority(2))
		pgqrstest.Advance(t, e.store, 31*time.Second)
		for _, want := range []string{"urgent", "a", "b", "c"} {
			equalSlices(t, "batch", payloads(dequeue(t, q, 10)), []string{want})
		}
	}},
	{"a message that was given back is no suspect", "released work would crawl, one message a call", func(t *testing.T, e *env) {
		q := jobs(e)
		value(q.EnqueueBatch(t.Context(), []string{"a", "b", "c"}))(t)
		must(t, q.Release(t.Context(), 0, dequeue(t, q, 10)...))
		must(t, q.Fail(t.Context(), pgqrs.RetryAfter(0, errTest), dequeue(t, q, 10)...))
		pgqrstest.Advance(t, e.store, time.Second)
		equal(t, "number of messages", len(dequeue(t, q, 10)), 3)
	}},
}

// loseLease lets q take the message that old holds, and tries everything that old might do then.
func loseLease(t *testing.T, e *env, old, q *pgqrs.Queue[string]) {
	t.Helper()
	for what, settle := range settlements(t, old) {
		id := enqueue(t, old, what)
		stale := dequeueOne(t, old)
		pgqrstest.Advance(t, e.store, 31*time.Second)
		held := dequeueOne(t, q)
		before := e.view(t, id)
		err := settle(stale)
		if !errors.Is(err, pgqrs.ErrLeaseLost) || !strings.Contains(err.Error(), fmt.Sprintf("[%d]", id)) {
			t.Errorf("%s: error is %v; want ErrLeaseLost that names message %d", what, err, id)
		}
		equal(t, "message after a late "+what, e.view(t, id), before)
		must(t, q.Ack(t.Context(), held))
		wantError(t, settle(stale), pgqrs.ErrLeaseLost)
		equal(t, "state", e.info(t, id).State, pgqrs.Archived)
	}
}

// settlements are all calls that settle messages.
func settlements(t *testing.T, q *pgqrs.Queue[string]) map[string]func(...*pgqrs.Message[string]) error {
	type message = pgqrs.Message[string]
	ctx := t.Context()
	return map[string]func(...*message) error{
		"ack":     func(ms ...*message) error { return q.Ack(ctx, ms...) },
		"delete":  func(ms ...*message) error { return q.Delete(ctx, ms...) },
		"release": func(ms ...*message) error { return q.Release(ctx, 0, ms...) },
		"delay":   func(ms ...*message) error { return q.Release(ctx, time.Hour, ms...) },
		"extend":  func(ms ...*message) error { return q.Extend(ctx, time.Hour, ms...) },
		"fail":    func(ms ...*message) error { return q.Fail(ctx, pgqrs.RetryAfter(time.Hour, errTest), ms...) },
		"bury":    func(ms ...*message) error { return q.Fail(ctx, pgqrs.Permanent(errTest), ms...) },
		"snooze":  func(ms ...*message) error { return q.Fail(ctx, pgqrs.Snooze(0), ms...) },
	}
}

// another returns the queue of jobs as another process would have it.
func another(t *testing.T, e *env) *pgqrs.Queue[string] {
	t.Helper()
	return pgqrs.NewQueue[string](e.newStore(t, pgqrs.Config{}), "jobs")
}
