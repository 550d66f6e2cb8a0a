package conformance

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var cancelledCases = []testcase{
	{"a call with a cancelled ctx says so and writes nothing", "a request that was given up would still have its effect, or fail for a reason nobody understands", func(t *testing.T, e *env) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		refuseAll(t, e, ctx, context.Canceled)
	}},
	{"a call past its deadline says so and writes nothing", "a timeout would look like a broken database", func(t *testing.T, e *env) {
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		refuseAll(t, e, ctx, context.DeadlineExceeded)
	}},
}

// refuseAll makes every call with a ctx that is done, on an empty store and on a leased message.
func refuseAll(t *testing.T, e *env, done context.Context, want error) {
	t.Helper()
	for what, call := range everyQueueCall(jobs(e), &pgqrs.Message[string]{}) {
		if err := call(done); !errors.Is(err, want) {
			t.Errorf("%s on an empty store: error is %v; want %v", what, err, want)
		}
	}
	e.wantEmpty(t)
	q := jobs(e)
	enqueue(t, q, "held")
	m := dequeueOne(t, q)
	enqueue(t, q, "next")
	before, stats := e.view(t, m.ID), e.stats(t, "jobs")
	for what, call := range everyQueueCall(q, m) {
		err := call(done)
		if !errors.Is(err, want) {
			t.Errorf("%s: error is %v; want %v", what, err, want)
		}
		wantErrorText(t, err, "jobs")
		equal(t, "message after "+what, e.view(t, m.ID), before)
		after := e.stats(t, "jobs")
		after.OldestReady = stats.OldestReady
		equal(t, "queue after "+what, after, stats)
	}
	must(t, q.Ack(t.Context(), m))
}

// everyQueueCall lists every call of a queue that reaches the database.
func everyQueueCall(q *pgqrs.Queue[string], m *pgqrs.Message[string]) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Enqueue":       func(ctx context.Context) error { _, err := q.Enqueue(ctx, "x"); return err },
		"Enqueue keyed": func(ctx context.Context) error { _, err := q.Enqueue(ctx, "x", pgqrs.Unique("k")); return err },
		"EnqueueBatch":  func(ctx context.Context) error { _, err := q.EnqueueBatch(ctx, []string{"x", "y"}); return err },
		"Dequeue":       func(ctx context.Context) error { _, err := q.Dequeue(ctx, 1, time.Minute); return err },
		"Ack":           func(ctx context.Context) error { return q.Ack(ctx, m) },
		"Delete":        func(ctx context.Context) error { return q.Delete(ctx, m) },
		"Release":       func(ctx context.Context) error { return q.Release(ctx, 0, m) },
		"Extend":        func(ctx context.Context) error { return q.Extend(ctx, time.Hour, m) },
		"Fail":          func(ctx context.Context) error { return q.Fail(ctx, errTest, m) },
	}
}
