package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var batchCases = []testcase{
	{"a batch handler is called when a batch is full, with its messages in order, and all are acked", "batches would be no larger than their first message", batchFull},
	{"a batch that does not fill is handled when its first message has waited for the age", "a lone message would wait for ever", batchAge},
	{"each message of a batch has an outcome of its own", "one bad row would have the whole batch done again", batchOutcomes},
	{"after a failure of the whole batch its messages are handled alone, and only the one to blame dies", "one message would take its neighbours to the dead letters", batchPoison},
	{"a BatchError that names a message of another batch fails the whole batch", "failures would be acked by mistake", batchStranger},
	{"what does not decode goes to the dead letters, and the batch without it is handled", "one malformed message would hold up the others", batchUndecodable},
	{"a message whose last holder never answered is handled alone", "a message that kills its process would burn the attempts of others", batchCrashed},
	{"leases of messages that wait for a batch, and of those in one, are kept", "batches that take long would be delivered twice", batchLeases},
	{"a worker that drains begins the batch that it has, and gives back the one that outlives Grace, uncounted", "every deploy would cost a lease, or an attempt", batchDrain},
	{"batches take no slots of other queues, and Policy.Concurrency bounds how many there are", "a batch that fills slowly would keep everything else waiting", batchSlots},
	{"a batch handler that cannot work is refused when the worker starts", "a mistake would show as messages that are never handled", batchRefused},
}

// batching returns a handler that keeps the contents of its batches.
func batching(q *pgqrs.Queue[int], size int, age time.Duration) (pgqrs.Handler, *tally[string]) {
	var calls tally[string]
	return q.HandleBatch(func(_ context.Context, ms []*pgqrs.Message[int]) error {
		calls.add(fmt.Sprint(payloads(ms)))
		return nil
	}, size, age), &calls
}

// allIn waits until all messages are in a state.
func (e *env) allIn(t *testing.T, state pgqrs.MessageState, ids ...int64) {
	t.Helper()
	for _, id := range ids {
		e.awaitState(t, id, state)
	}
}

func batchFull(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "rows")
	ids := value(q.EnqueueBatch(t.Context(), []int{1, 2, 3, 4, 5, 6}))(t)
	h, calls := batching(q, 3, never)
	start(t, fast(h))
	e.allIn(t, pgqrs.Archived, ids...)
	equalSlices(t, "batches", calls.all(), []string{"[1 2 3]", "[4 5 6]"})
}

func batchAge(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "rows")
	h, calls := batching(q, 1000, 20*time.Millisecond)
	start(t, fast(h))
	for range 2 {
		e.allIn(t, pgqrs.Archived, enqueue(t, q, 1))
	}
	equal(t, "batches", calls.len(), 2)
	h, _ = batching(pgqrs.NewQueue[int](e.store, "at once"), 1000, 0)
	start(t, fast(h))
	e.allIn(t, pgqrs.Archived, enqueue(t, pgqrs.NewQueue[int](e.store, "at once"), 1))
}

func batchOutcomes(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "rows").With(pgqrs.Policy{Backoff: func(int) time.Duration { return time.Hour }})
	ids := value(q.EnqueueBatch(t.Context(), []int{0, 1, 2, 3, 4, 5}))(t)
	start(t, fast(q.HandleBatch(func(ctx context.Context, ms []*pgqrs.Message[int]) error {
		failed := pgqrs.BatchError{}
		for _, m := range ms {
			switch m.Payload {
			case 1:
				failed[m.ID] = errors.New("no luck")
			case 2:
				failed[m.ID] = pgqrs.Permanent(errors.New("no good"))
			case 3:
				failed[m.ID] = pgqrs.Snooze(time.Hour)
			case 4:
				failed[m.ID] = nil
			case 5:
				if err := q.Fail(ctx, pgqrs.Permanent(errors.New("by hand")), m); err != nil {
					return err
				}
			}
		}
		return fmt.Errorf("some failed: %w", failed)
	}, len(ids), never)))
	for i, want := range []struct {
		state   pgqrs.MessageState
		attempt int
		err     string
	}{{pgqrs.Archived, 1, ""}, {pgqrs.Scheduled, 1, "no luck"}, {pgqrs.Dead, 1, "no good"}, {pgqrs.Scheduled, 0, ""}, {pgqrs.Archived, 1, ""}, {pgqrs.Dead, 1, "by hand"}} {
		m := e.awaitState(t, ids[i], want.state)
		equal(t, fmt.Sprint("attempts of ", i), m.Attempt, want.attempt)
		equal(t, fmt.Sprint("error of ", i), m.LastError, want.err)
	}
}

func batchPoison(t *testing.T, e *env) {
	for what, fail := range map[string]func() error{
		"an error": func() error { return errors.New("bad") },
		"a panic":  func() error { panic("bad") },
	} {
		q := pgqrs.NewQueue[int](e.store, what).With(atOnce(3))
		ids := value(q.EnqueueBatch(t.Context(), []int{1, 2, 13, 4}))(t)
		start(t, fast(q.HandleBatch(func(_ context.Context, ms []*pgqrs.Message[int]) error {
			for _, m := range ms {
				if m.Attempt > 1 && len(ms) > 1 {
					t.Errorf("%s: message %d is delivered again, in a batch of %d", what, m.Payload, len(ms))
				}
			}
			for _, m := range ms {
				if m.Payload == 13 {
					return fail()
				}
			}
			return nil
		}, 4, never)))
		for i, id := range ids {
			if i == 2 {
				equal(t, "attempts of the poison", e.awaitState(t, id, pgqrs.Dead).Attempt, 3)
			} else {
				equal(t, "attempts of another", e.awaitState(t, id, pgqrs.Archived).Attempt, 2)
			}
		}
	}
}

func batchStranger(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "rows").With(pgqrs.Policy{MaxAttempts: 1})
	ids := value(q.EnqueueBatch(t.Context(), []int{1, 2}))(t)
	start(t, fast(q.HandleBatch(func(_ context.Context, ms []*pgqrs.Message[int]) error {
		return pgqrs.BatchError{-5: errors.New("an index for an id")}
	}, 2, never)))
	for _, id := range ids {
		if m := e.awaitState(t, id, pgqrs.Dead); !strings.Contains(m.LastError, "names message -5, which is not in the batch") {
			t.Errorf("the error is %q", m.LastError)
		}
	}
}

func batchUndecodable(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "rows")
	bad := enqueue(t, pgqrs.NewQueue[string](e.store, "rows"), "none")
	ids := value(q.EnqueueBatch(t.Context(), []int{1, 2}))(t)
	h, calls := batching(q, 2, never)
	start(t, fast(h))
	e.allIn(t, pgqrs.Archived, ids...)
	e.allIn(t, pgqrs.Dead, bad)
	equal(t, "batches", calls.len(), 1)
}

func batchCrashed(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "rows")
	crashed := enqueue(t, q, 7)
	dequeueOne(t, q)
	e.makeDue(t, crashed)
	ids := value(q.EnqueueBatch(t.Context(), []int{1, 2}))(t)
	h, calls := batching(q, 2, never)
	start(t, fast(h))
	e.allIn(t, pgqrs.Archived, append(ids, crashed)...)
	found := false
	for _, call := range calls.all() {
		found = found || call == "[7]"
	}
	equal(t, "whether it was handled alone", found, true)
	equal(t, "batches", calls.len(), 2)
}

func batchLeases(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "rows")
	begun, gate := make(chan int, 10), make(chan struct{})
	w := fast(q.HandleBatch(func(_ context.Context, ms []*pgqrs.Message[int]) error {
		begun <- len(ms)
		<-gate
		return nil
	}, 2, never))
	w.Lease = 2 * time.Second
	start(t, w)
	first := enqueue(t, q, 1)
	renewed := func() {
		t.Helper()
		until := e.awaitState(t, first, pgqrs.Leased).LeasedUntil
		for range 2 {
			eventually(t, "the lease is renewed", func() bool { return e.info(t, first).LeasedUntil.After(until) })
			until = e.info(t, first).LeasedUntil
		}
	}
	renewed()
	second := enqueue(t, q, 2)
	equal(t, "messages", receive(t, "the batch begins", begun), 2)
	renewed()
	close(gate)
	e.allIn(t, pgqrs.Archived, first, second)
	equal(t, "attempts", e.info(t, first).Attempt, 1)
	equal(t, "batches besides", len(begun), 0)
}

func batchDrain(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "rows")
	h, calls := batching(q, 2, never)
	w, begun := fast(h), make(chan struct{}, 1)
	w.Middleware = []func(pgqrs.WorkFunc) pgqrs.WorkFunc{func(next pgqrs.WorkFunc) pgqrs.WorkFunc {
		return func(ctx context.Context, m *pgqrs.MessageInfo) error {
			begun <- struct{}{}
			return next(ctx, m)
		}
	}}
	stop := start(t, w)
	id := enqueue(t, q, 1)
	receive(t, "the message is in hand", begun)
	must(t, stop())
	equal(t, "state of what waited", e.info(t, id).State, pgqrs.Archived)
	equal(t, "batches", calls.len(), 1)

	w = fast(q.HandleBatch(func(ctx context.Context, _ []*pgqrs.Message[int]) error {
		begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}, 2, never))
	w.Grace = time.Millisecond
	stop = start(t, w)
	ids := value(q.EnqueueBatch(t.Context(), []int{1, 2, 3}))(t)
	receive(t, "a batch begins", begun)
	must(t, stop())
	for _, id := range ids {
		m := e.info(t, id)
		equal(t, "state", m.State, pgqrs.Ready)
		equal(t, "attempts", m.Attempt, 0)
	}
}

func batchSlots(t *testing.T, e *env) {
	rows, other := pgqrs.NewQueue[int](e.store, "rows"), pgqrs.NewQueue[string](e.store, "other")
	gate := make(chan struct{})
	var g gauge
	batches := rows.With(pgqrs.Policy{Concurrency: 2}).HandleBatch(func(_ context.Context, ms []*pgqrs.Message[int]) error {
		g.add(1)
		defer g.add(-1)
		<-gate
		return nil
	}, 3, 0)
	h, got := handling(other)
	w := fast(batches, h)
	w.Concurrency = 1
	start(t, w)
	ids := value(rows.EnqueueBatch(t.Context(), make([]int, 12)))(t)
	eventually(t, "two batches are being handled", func() bool {
		now, _ := g.read()
		return now == 2
	})
	for range 3 {
		enqueue(t, other, "x")
		receive(t, "another queue's message is handled", got)
	}
	close(gate)
	e.allIn(t, pgqrs.Archived, ids...)
	_, most := g.read()
	equal(t, "batches at a time", most, 2)
}

func batchRefused(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "rows")
	pinned := value(e.db.Conn(t.Context()))(t)
	defer pinned.Close()
	fn := func(context.Context, []*pgqrs.Message[int]) error { return nil }
	for says, h := range map[string]pgqrs.Handler{
		"size 0":               q.HandleBatch(fn, 0, time.Second),
		"size 1001":            q.HandleBatch(fn, 1001, time.Second),
		"negative age":         q.HandleBatch(fn, 10, -time.Second),
		"nil handler function": q.HandleBatch(nil, 10, time.Second),
		"not longer than":      q.With(pgqrs.Policy{Timeout: time.Second}).HandleBatch(fn, 10, time.Second),
		"caller's transaction": q.WithTx(pinned).HandleBatch(fn, 10, time.Second),
	} {
		err := (&pgqrs.Worker{Handlers: []pgqrs.Handler{h}}).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got the error %v; want one that says %q", err, says)
		}
	}
}
