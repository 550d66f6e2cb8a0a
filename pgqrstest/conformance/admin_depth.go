package conformance

import (
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

// depth reads the depth of a queue.
func (e *env) depth(t *testing.T, queue string) pgqrs.QueueDepth {
	t.Helper()
	qs := value(e.store.Depths(t.Context(), queue))(t)
	if len(qs) != 1 {
		t.Fatalf("there are %d queues named %q; want 1", len(qs), queue)
	}
	return qs[0]
}

func adminDepths(t *testing.T, e *env) {
	ctx := t.Context()
	equal(t, "queues of an unknown name", len(value(e.store.Depths(ctx, "nobody's"))(t)), 0)
	q := pgqrs.NewQueue[int](e.store, "parcels")
	for i := range 12 {
		enqueue(t, q, i, pgqrs.Priority(i%4-1))
	}
	for range 3 {
		enqueue(t, q, 0, pgqrs.Delay(5*time.Hour))
	}
	enqueue(t, pgqrs.NewQueue[int](e.store, "letters"), 1, pgqrs.Priority(2))
	ms := dequeue(t, q, 5)
	must(t, q.Ack(ctx, ms[0]))
	kill(t, q, ms[1:3]...)
	got := e.depth(t, "parcels")
	got.OldestReady = 0
	equal(t, "depth", got, pgqrs.QueueDepth{Name: "parcels", Ready: 7, Scheduled: 3, Leased: 2, Dead: 2, ArchivedLastMinute: 1, DiedLastMinute: 2, Workers: 1})
	must(t, e.store.PauseQueue(ctx, "letters"))
	all := value(e.store.Depths(ctx))(t)
	equal(t, "queues", len(all), 2)
	equal(t, "the first by name", all[0].Name, "letters")
	equal(t, "ready letters", all[0].Ready, 1)
	equal(t, "workers of the letters", all[0].Workers, 0)
	equal(t, "whether the letters are paused", all[0].PausedAt.IsZero(), false)
	equal(t, "whether the parcels are paused", all[1].PausedAt.IsZero(), true)
}

func adminPace(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "parcels")
	for i := range 4 {
		enqueue(t, q, i)
	}
	ms := dequeue(t, q, 4)
	must(t, q.Ack(t.Context(), ms[0]))
	kill(t, q, ms[1])
	pgqrstest.Advance(t, e.store, 2*time.Minute)
	must(t, q.Ack(t.Context(), ms[2]))
	got := e.depth(t, "parcels")
	equal(t, "archived in the last minute", got.ArchivedLastMinute, 1)
	equal(t, "died in the last minute", got.DiedLastMinute, 0)
	equal(t, "dead", got.Dead, 1)
	kill(t, q, ms[3])
	equal(t, "died in the last minute", e.depth(t, "parcels").DiedLastMinute, 1)
}
