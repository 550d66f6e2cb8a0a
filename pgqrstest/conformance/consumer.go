package conformance

import (
	"errors"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/dbtest"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var consumerCases = []testcase{
	{"Dequeue makes one worker row for a Store and queue", "the list of workers would fill up, or not show who holds what", func(t *testing.T, e *env) {
		q := jobs(e)
		equal(t, "number of workers", len(value(e.store.Workers(t.Context()))(t)), 0)
		for range 3 {
			wantNone(t, q)
			wantNone(t, pgqrs.NewQueue[int](e.store, "jobs"))
		}
		w := handRow(t, e, "jobs")
		equal(t, "status", w.State, "ready")
		wantNone(t, another(t, e))
		wantNone(t, pgqrs.NewQueue[int](e.store, "others"))
		equal(t, "number of workers", len(value(e.store.Workers(t.Context()))(t)), 3)
	}},
	{"many first calls of Dequeue at once share one worker row", "each goroutine of a process would pass for a process", func(t *testing.T, e *env) {
		together(t, 8, func(int) error {
			_, err := jobs(e).Dequeue(t.Context(), 1, time.Minute)
			return err
		})
		handRow(t, e, "jobs")
	}},
	{"a suspended consumer gets an error until it is resumed, and what it holds stays its own", "an operator could not stop one process, or would do it harm", func(t *testing.T, e *env) {
		q := jobs(e)
		value(q.EnqueueBatch(t.Context(), []string{"held", "next"}))(t)
		held := dequeue(t, q, 1)
		id := handRow(t, e, "jobs").ID
		must(t, e.store.SuspendWorker(t.Context(), id))
		for range 2 {
			_, err := q.Dequeue(t.Context(), 1, time.Minute)
			wantError(t, err, pgqrs.ErrState)
			wantErrorText(t, err, "suspended")
		}
		must(t, q.Ack(t.Context(), held...))
		must(t, e.store.ResumeWorker(t.Context(), id))
		equal(t, "payload", dequeueOne(t, q).Payload, "next")
		equal(t, "worker", handRow(t, e, "jobs").ID, id)
	}},
	{"an interrupted consumer becomes a suspended one", "an interrupt from pgqrs 0.15 would be ignored", func(t *testing.T, e *env) {
		q := jobs(e)
		enqueue(t, q, "x")
		equal(t, "number of messages", len(dequeue(t, q, 1)), 1)
		id := handRow(t, e, "jobs").ID
		// Only a worker that polls can be interrupted.
		wantError(t, e.store.InterruptWorker(t.Context(), id), pgqrs.ErrState)
		dbtest.Retry(t, func() error {
			_, err := e.db.ExecContext(t.Context(), "UPDATE pgqrs_workers SET status = 'interrupted'")
			return err
		})
		enqueue(t, q, "y")
		_, err := q.Dequeue(t.Context(), 1, time.Minute)
		wantError(t, err, pgqrs.ErrState)
		wantErrorText(t, err, "interrupted")
		equal(t, "status", handRow(t, e, "jobs").State, "suspended")
		must(t, e.store.ResumeWorker(t.Context(), id))
		equal(t, "payload", dequeueOne(t, q).Payload, "y")
	}},
	{"a consumer whose row was stopped or deleted goes on with a fresh one", "a consumer that maintenance took for dead would never get a message again", func(t *testing.T, e *env) {
		q := jobs(e)
		enqueue(t, q, "before")
		before := dequeueOne(t, q)
		must(t, e.store.StopWorker(t.Context(), before.WorkerID))
		enqueue(t, q, "stopped")
		stopped := dequeueOne(t, q)
		equal(t, "payload", stopped.Payload, "stopped")
		if stopped.WorkerID == before.WorkerID {
			t.Error("the stopped row claimed")
		}
		must(t, q.Ack(t.Context(), before, stopped))
		dbtest.Retry(t, func() error {
			_, err := e.db.ExecContext(t.Context(), "DELETE FROM pgqrs_workers")
			return err
		})
		enqueue(t, q, "deleted")
		equal(t, "payload", dequeueOne(t, q).Payload, "deleted")
		handRow(t, e, "jobs")
	}},
	{"Close stops the consumer's row and every later call says that the Store is closed", "a process that is gone would look alive, and its use after Close would go unseen", func(t *testing.T, e *env) {
		s := e.newStore(t, pgqrs.Config{})
		q := pgqrs.NewQueue[string](s, "jobs")
		enqueue(t, q, "x")
		m := dequeueOne(t, q)
		must(t, s.Close())
		must(t, s.Close())
		w := handRow(t, e, "jobs")
		equal(t, "status", w.State, "stopped")
		equal(t, "has an end", w.ShutdownAt.IsZero(), false)
		for what, call := range everyQueueCall(q, m) {
			if err := call(t.Context()); !errors.Is(err, pgqrs.ErrState) {
				t.Errorf("%s: error is %v; want ErrState", what, err)
			}
		}
		must(t, e.db.PingContext(t.Context()))
		equal(t, "state", e.info(t, m.ID).State, pgqrs.Leased)
		pgqrstest.Advance(t, e.store, 31*time.Second)
		equal(t, "id", dequeueOne(t, jobs(e)).ID, m.ID)
	}},
}

// handRow returns the one worker row of a queue.
func handRow(t *testing.T, e *env, queue string) pgqrs.WorkerInfo {
	t.Helper()
	var rows []pgqrs.WorkerInfo
	for _, w := range value(e.store.Workers(t.Context()))(t) {
		if w.Queue == queue {
			rows = append(rows, w)
		}
	}
	if len(rows) != 1 {
		t.Fatalf("queue %q has %d workers; want 1", queue, len(rows))
	}
	return rows[0]
}
