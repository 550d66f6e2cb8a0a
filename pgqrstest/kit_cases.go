package pgqrstest

import (
	"context"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var kitCases = []testcase{
	{"Drain works through retries without waiting for their backoff", "a user's test would take as long as the backoff", kitDrain},
	{"Drain leaves messages that are delayed, until Advance makes them due", "a user could not test what happens later", kitDelayed},
	{"RequireEnqueued finds an unfinished message by its payload, whatever its state", "a user could not test what their code enqueues", kitRequire},
	{"Advance ends leases", "a user could not test what happens after a crash", kitAdvance},
}

func kitDrain(t *testing.T, e *env) {
	slow := pgqrs.Policy{MaxAttempts: 4, Backoff: func(int) time.Duration { return 100 * time.Hour }}
	a, b := pgqrs.NewQueue[int](e.store, "a").With(slow), pgqrs.NewQueue[int](e.store, "b").With(slow)
	var attempts tally[int]
	ha := a.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
		attempts.add(m.Attempt)
		if m.Attempt < 3 {
			return errBoom
		}
		_, err := b.Enqueue(ctx, m.Payload)
		return err
	})
	hb := b.Handle(func(context.Context, *pgqrs.Message[int]) error { return errBoom })
	id := enqueue(t, a, 7)
	Drain(t, e.store, []string{"a", "b"}, ha, hb)
	equalSlices(t, "attempts", attempts.all(), []int{1, 2, 3})
	equal(t, "state", e.info(t, id).State, pgqrs.Archived)
	dead := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "b", State: pgqrs.Dead}))(t)
	equal(t, "dead letters of the other queue", len(dead), 1)
	equal(t, "their attempts", dead[0].Attempt, 4)
}

func kitDelayed(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "later")
	h, got := handling(q)
	id := enqueue(t, q, "x", pgqrs.Delay(time.Hour))
	Drain(t, e.store, []string{"later"}, h)
	equal(t, "messages handled", len(got), 0)
	Advance(t, e.store, time.Hour)
	Drain(t, e.store, []string{"later"}, h)
	equal(t, "messages handled", len(got), 1)
	equal(t, "state", e.info(t, id).State, pgqrs.Archived)
}

func kitRequire(t *testing.T, e *env) {
	type mail struct{ To, Subject string }
	q := pgqrs.NewQueue[mail](e.store, "mail")
	leased := enqueue(t, q, mail{"ada", "hello"}, pgqrs.Priority(2))
	done := enqueue(t, q, mail{"gone", "hello"}, pgqrs.Priority(1))
	ms := dequeue(t, q, 2)
	equalSlices(t, "dequeued", messageIDs(ms), []int64{leased, done})
	must(t, q.Ack(t.Context(), ms[1]))
	ready := enqueue(t, q, mail{"bob", "hello"})
	delayed := enqueue(t, q, mail{"eve", "later"}, pgqrs.Delay(time.Hour))
	for to, id := range map[string]int64{"ada": leased, "bob": ready, "eve": delayed} {
		m := RequireEnqueued(t, e.store, "mail", func(m mail) bool { return m.To == to })
		equal(t, "message to "+to, m.ID, id)
		equal(t, "recipient", m.Payload.To, to)
	}
	equal(t, "any message", RequireEnqueued[mail](t, e.store, "mail", nil).ID, ready)
	equal(t, "whether a test fails that wants one that is done", failsTest(t, func(tb testing.TB) {
		RequireEnqueued(tb, e.store, "mail", func(m mail) bool { return m.To == "gone" })
	}), true)
}

// A probe is a test that notes whether it fails, instead of failing.
type probe struct {
	testing.TB
	failed bool
}

// Fatalf ends the goroutine, as that of a test does.
func (p *probe) Fatalf(string, ...any) {
	p.failed = true
	panic(p)
}

// failsTest reports whether fn fails the test it is given.
func failsTest(t *testing.T, fn func(testing.TB)) (failed bool) {
	t.Helper()
	p := &probe{TB: t}
	defer func() {
		if v := recover(); v != nil && v != any(p) {
			panic(v)
		}
		failed = p.failed
	}()
	fn(p)
	return false
}

func kitAdvance(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "crashed")
	id := enqueue(t, q, 1)
	m := dequeueOne(t, q)
	Advance(t, e.store, 29*time.Second)
	equal(t, "state before the lease ends", e.info(t, id).State, pgqrs.Leased)
	Advance(t, e.store, time.Second)
	equal(t, "state after", e.info(t, id).State, pgqrs.Ready)
	again := dequeueOne(t, pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "crashed"))
	equal(t, "attempt", again.Attempt, 2)
	wantError(t, q.Ack(t.Context(), m), pgqrs.ErrLeaseLost)
}
