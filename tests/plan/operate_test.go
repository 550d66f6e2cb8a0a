package plan_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// operate makes the library send every statement, each for up to 100 messages, on a queue with
// messages in all states.
func operate(t *testing.T, w *watcher, db *sql.DB, d pgqrs.Dialect) {
	t.Helper()
	w.reset()
	s := pgqrs.Config{NoPrepare: true}.New(db, d) // so that each statement is sent as text
	q := pgqrs.NewQueue[int](s, "big")
	operateQueue(t, s, q)
	operateStore(t, s)
	operateLimits(t, pgqrs.Config{NoPrepare: true}.New(db, d))
	operateWorker(t, w, s, q) // last, because it waits until all statements were sent
	must(t, s.Close())
	if left := w.missing(); len(left) > 0 {
		t.Fatalf("statements that were not sent: %v", left)
	}
}

func operateQueue(t *testing.T, s *pgqrs.Store, q *pgqrs.Queue[int]) {
	t.Helper()
	ctx := t.Context()
	value(q.Enqueue(ctx, 1))(t)
	for range 2 {
		value(q.Enqueue(ctx, 1, pgqrs.Key("taken")))(t)
	}
	value(q.EnqueueBatch(ctx, make([]int, asked), pgqrs.Each(func(i int) []pgqrs.Option {
		if i%2 == 0 {
			return nil
		}
		return []pgqrs.Option{pgqrs.Key("taken")}
	})))(t)
	value(pgqrs.NewQueue[[1]int](s, "lists").EnqueueBatch(ctx, make([][1]int, asked)))(t)
	if ms := value(pgqrs.NewQueue[int](s, "idle").Dequeue(ctx, 10, time.Minute))(t); len(ms) > 0 {
		t.Fatalf("dequeued %d messages that are not due", len(ms))
	}
	take := func() []*pgqrs.Message[int] {
		ms := value(q.Dequeue(ctx, 10, time.Minute))(t)
		if len(ms) != 10 {
			t.Fatalf("dequeued %d messages; want 10", len(ms))
		}
		return ms
	}
	ms := take()
	must(t, q.Extend(ctx, time.Minute, ms...))
	must(t, q.Ack(ctx, ms...))
	must(t, q.Release(ctx, 0, take()...))
	must(t, q.Delete(ctx, take()...))
	must(t, q.Fail(ctx, pgqrs.RetryAfter(0, errors.New("x")), take()...))
	must(t, q.Fail(ctx, pgqrs.Permanent(errors.New("x")), take()...))
}

func operateStore(t *testing.T, s *pgqrs.Store) {
	t.Helper()
	ctx := t.Context()
	list := func(f pgqrs.MessageFilter) []int64 {
		var ids []int64
		for _, m := range value(s.Messages(ctx, f))(t) {
			ids = append(ids, m.ID)
			f.After = m.Cursor
		}
		if len(ids) == 0 {
			t.Fatalf("no messages for %+v", f)
		}
		if f.After != "" {
			value(s.Messages(ctx, f))(t)
		}
		return ids
	}
	for _, state := range []pgqrs.MessageState{pgqrs.Ready, pgqrs.Scheduled, pgqrs.Leased, pgqrs.Archived, pgqrs.Dead} {
		ids := list(pgqrs.MessageFilter{Queue: "big", State: state, Limit: 50})
		list(pgqrs.MessageFilter{IDs: ids})
		value(s.Redrive(ctx, ids[:5]...))(t)
		if state != pgqrs.Leased {
			value(s.Delete(ctx, ids[:5]...))(t)
		}
	}
	value(s.Queues(ctx, "big"))(t)
	value(s.Depths(ctx))(t)
	value(s.Verify(ctx))(t)
	if err := s.DropQueue(ctx, "big"); !errors.Is(err, pgqrs.ErrState) {
		t.Fatalf("drop a queue that is full: %v", err)
	}
	empty := pgqrs.NewQueue[int](s, "empty")
	value(s.Delete(ctx, value(empty.Enqueue(ctx, 1))(t)))(t)
	must(t, s.DropQueue(ctx, "empty"))
	must(t, s.PauseQueue(ctx, "big"))
	must(t, s.ResumeQueue(ctx, "big"))
	if err := s.ResumeWorker(ctx, value(s.Workers(ctx))(t)[0].ID); !errors.Is(err, pgqrs.ErrState) {
		t.Fatalf("resume a worker that is not suspended: %v", err)
	}
}

// operateWorker runs a Worker after a claim that failed. Its handler holds a message until the
// lease was renewed. A second Worker finds nothing to do.
func operateWorker(t *testing.T, w *watcher, s *pgqrs.Store, q *pgqrs.Queue[int]) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	handled := make(chan struct{}, 1)
	h := q.HandleTx(func(context.Context, *sql.Tx, *pgqrs.Message[int]) error {
		select {
		case handled <- struct{}{}:
		default:
		}
		return nil
	})
	idle := pgqrs.NewQueue[int](s, "idle").Handle(func(context.Context, *pgqrs.Message[int]) error { return nil })
	w.failNext("message.claim")
	done := make(chan error, 1)
	go func() {
		done <- (&pgqrs.Worker{Handlers: []pgqrs.Handler{h, idle}, Concurrency: 2, Lease: 300 * time.Millisecond}).Run(ctx)
	}()
	<-handled
	await(ctx, func() bool { return len(w.missing()) == 0 })
	stop()
	must(t, <-done)
}

// await waits for a condition, or until ctx is done.
func await(ctx context.Context, condition func() bool) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() && ctx.Err() == nil {
		<-tick.C
	}
}

// operateShared runs maintenance on a database that pgqrs 0.15 uses too. A stopped worker there is
// referred to by a million messages.
func operateShared(t *testing.T, w *watcher, db *sql.DB, d pgqrs.Dialect) {
	t.Helper()
	w.reset()
	for _, text := range []string{
		`UPDATE pgqrs_workers SET status = 'stopped', heartbeat_at = '2020-01-01 00:00:00', shutdown_at = '2020-01-01 00:00:00'`,
		`INSERT INTO pgqrs_workers (name) VALUES ('of pgqrs 0.15')`,
	} {
		_, err := db.ExecContext(t.Context(), text)
		must(t, err)
	}
	s := pgqrs.Config{NoPrepare: true}.New(db, d)
	must(t, s.Install(t.Context()))
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	done := make(chan error, 1)
	go func() {
		nothing := func(context.Context, *pgqrs.Run, int) (int, error) { return 0, nil }
		done <- (&pgqrs.Worker{Handlers: []pgqrs.Handler{pgqrs.NewWorkflow[int, int](s, "idle").Handle(nothing)}}).Run(ctx)
	}()
	sent := func() bool { return w.has("run.shared_join") && w.has("worker.shared_prune") }
	await(ctx, sent)
	stop()
	must(t, <-done)
	if !sent() {
		t.Fatal("run.shared_join or worker.shared_prune was not sent")
	}
}

// operateLimits claims under limits, and makes the claimed messages dead letters.
func operateLimits(t *testing.T, s *pgqrs.Store) {
	t.Helper()
	ctx := t.Context()
	q := pgqrs.NewQueue[int](s, "big")
	limited := q.With(pgqrs.Policy{MaxLeased: 1_000_000, Rate: pgqrs.Rate{N: 1_000_000, Per: time.Hour}, DeadLetter: "grave"})
	must(t, limited.Configure(ctx))
	value(limited.EnqueueBatch(ctx, make([]int, 10)))(t)
	ms := value(limited.Dequeue(ctx, 10, time.Minute))(t)
	if len(ms) != 10 {
		t.Fatalf("dequeued %d messages; want 10", len(ms))
	}
	must(t, limited.Fail(ctx, pgqrs.Permanent(errors.New("x")), ms...))
	must(t, q.Configure(ctx))
	must(t, s.Close())
}
