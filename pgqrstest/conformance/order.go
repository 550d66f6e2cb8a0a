package conformance

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var orderCases = []testcase{
	{"messages come by priority, then by id", "urgent work would wait behind bulk work", func(t *testing.T, e *env) {
		want := []string{"2 first", "2 second", "1 first", "1 second", "0 first", "0 second", "-1 first", "-1 second"}
		enqueueOrder := []int{6, 4, 2, 0, 5, 7, 1, 3}
		for _, n := range []int{1, 3, 10} {
			q := jobs(e)
			for _, i := range enqueueOrder {
				enqueue(t, q, want[i], pgqrs.Priority(2-i/2))
			}
			equalSlices(t, "payloads", drainBy(t, q, n), want)
		}
	}},
	{"within a priority messages come by when they became due", "a delayed message would overtake those that wait, or starve behind later ones", func(t *testing.T, e *env) {
		for _, n := range []int{1, 2, 10} {
			q := jobs(e)
			enqueue(t, q, "due third", pgqrs.Delay(10*time.Second))
			enqueue(t, q, "due first")
			enqueue(t, q, "due second", pgqrs.Delay(5*time.Second))
			pgqrstest.Advance(t, e.store, 11*time.Second)
			enqueue(t, q, "due last")
			enqueue(t, q, "urgent", pgqrs.Priority(1))
			equalSlices(t, "payloads", drainBy(t, q, n), []string{"urgent", "due first", "due second", "due third", "due last"})
		}
	}},
	{"a batch keeps its order, also when it is taken in parts", "steps that were enqueued in order would run out of order", func(t *testing.T, e *env) {
		q := jobs(e)
		want := []string{"a", "b", "c", "d", "e", "f", "g"}
		value(q.EnqueueBatch(t.Context(), want))(t)
		equalSlices(t, "payloads", drainBy(t, q, 3), want)
	}},
	{"a message that was given back takes its place by when it is due again", "a retry would block those behind it, or never come", func(t *testing.T, e *env) {
		q := jobs(e)
		value(q.EnqueueBatch(t.Context(), []string{"a", "b", "c"}))(t)
		must(t, q.Release(t.Context(), 10*time.Second, dequeue(t, q, 1)...))
		pgqrstest.Advance(t, e.store, 20*time.Second)
		enqueue(t, q, "d")
		equalSlices(t, "payloads", payloads(dequeue(t, q, 10)), []string{"b", "c", "a", "d"})
	}},
	{"a higher priority is taken first even when that leaves no room for the rest", "a full batch of bulk work would keep urgent work waiting", func(t *testing.T, e *env) {
		q := jobs(e)
		value(q.EnqueueBatch(t.Context(), make([]string, 20), pgqrs.Priority(-1)))(t)
		pgqrstest.Advance(t, e.store, time.Minute)
		value(q.EnqueueBatch(t.Context(), []string{"u1", "u2"}, pgqrs.Priority(2)))(t)
		equalSlices(t, "payloads", payloads(dequeue(t, q, 3)), []string{"u1", "u2", ""})
	}},
	{"four consumers at once get each of 500 messages exactly once", "work would be done twice, or never", func(t *testing.T, e *env) {
		const n, consumers = 500, 4
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		value(pgqrs.NewQueue[int](e.store, "crowd").EnqueueBatch(t.Context(), all))(t)
		var queues []*pgqrs.Queue[int]
		for range consumers {
			queues = append(queues, pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "crowd"))
		}
		got := make([][]int, consumers)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var left atomic.Int64
		left.Store(n)
		together(t, consumers, func(i int) error {
			// A call may return nothing while others claim the last messages.
			for left.Load() > 0 {
				ms, err := queues[i].Dequeue(ctx, 7, time.Minute)
				if err == nil {
					err = queues[i].Ack(ctx, ms...)
				}
				if err != nil {
					return err
				}
				got[i] = append(got[i], payloads(ms)...)
				left.Add(int64(-len(ms)))
			}
			return nil
		})
		once := slices.Concat(got...)
		slices.Sort(once)
		equalSlices(t, "messages", once, all)
		equal(t, "archived", e.stats(t, "crowd").Archived, n)
	}},
}

// drainBy dequeues and acks n messages at a time until the queue is empty.
func drainBy(t *testing.T, q *pgqrs.Queue[string], n int) []string {
	t.Helper()
	var got []string
	for {
		ms := dequeue(t, q, n)
		if len(ms) == 0 {
			return got
		}
		got = append(got, payloads(ms)...)
		must(t, q.Ack(t.Context(), ms...))
	}
}
