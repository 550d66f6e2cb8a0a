package pgqrstest

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// advanceTexts move every time in the tables back, by a number of microseconds.
var advanceTexts = map[pgqrs.Dialect][]string{
	pgqrs.Postgres: {
		`UPDATE pgqrs_messages SET vt = vt - a.d, enqueued_at = enqueued_at - a.d, due_at = due_at - a.d,
			dequeued_at = dequeued_at - a.d, archived_at = archived_at - a.d, failed_at = failed_at - a.d
			FROM (SELECT $1::bigint * interval '1 microsecond' AS d) a`,
		`UPDATE pgqrs_workers SET heartbeat_at = heartbeat_at - a.d, started_at = started_at - a.d, shutdown_at = shutdown_at - a.d
			FROM (SELECT $1::bigint * interval '1 microsecond' AS d) a`,
	},
	pgqrs.SQLite: sqliteAdvance,
	pgqrs.Turso:  sqliteAdvance,
}

var sqliteAdvance = []string{
	`WITH a (d) AS (SELECT printf('-%.6f seconds', ? / 1000000.0))
		UPDATE pgqrs_messages SET
			vt = strftime('%Y-%m-%d %H:%M:%f', vt, (SELECT d FROM a)),
			enqueued_at = strftime('%Y-%m-%d %H:%M:%f', enqueued_at, (SELECT d FROM a)),
			due_at = strftime('%Y-%m-%d %H:%M:%f', due_at, (SELECT d FROM a)),
			dequeued_at = strftime('%Y-%m-%d %H:%M:%f', dequeued_at, (SELECT d FROM a)),
			archived_at = strftime('%Y-%m-%d %H:%M:%f', archived_at, (SELECT d FROM a)),
			failed_at = strftime('%Y-%m-%d %H:%M:%f', failed_at, (SELECT d FROM a))`,
	`WITH a (d) AS (SELECT printf('-%.6f seconds', ? / 1000000.0))
		UPDATE pgqrs_workers SET
			heartbeat_at = strftime('%Y-%m-%d %H:%M:%f', heartbeat_at, (SELECT d FROM a)),
			started_at = strftime('%Y-%m-%d %H:%M:%f', started_at, (SELECT d FROM a)),
			shutdown_at = strftime('%Y-%m-%d %H:%M:%f', shutdown_at, (SELECT d FROM a))`,
}

// Advance lets time pass for everything in the store's tables: delays,
// backoffs and leases come that much closer to their end. It needs tables that
// the database finds without Config.Schema.
func Advance(t testing.TB, s *pgqrs.Store, d time.Duration) {
	t.Helper()
	for _, text := range advanceTexts[s.Dialect()] {
		retry(t, func() error {
			_, err := s.DB().ExecContext(t.Context(), text, d.Microseconds())
			return err
		})
	}
}

// retry gives a statement of the test's own some patience with a busy database.
func retry(t testing.TB, fn func() error) {
	t.Helper()
	var err error
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if err = fn(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// RequireEnqueued returns the first unfinished message of the queue whose
// payload match accepts, and fails the test if there is none. A nil match accepts any.
func RequireEnqueued[T any](t testing.TB, s *pgqrs.Store, queue string, match func(T) bool) pgqrs.Message[T] {
	t.Helper()
	for _, state := range []pgqrs.State{pgqrs.Ready, pgqrs.Scheduled, pgqrs.Leased} {
		f := pgqrs.MessageFilter{Queue: queue, State: state, Limit: 1000}
		for {
			ms, err := s.Messages(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, info := range ms {
				m := pgqrs.Message[T]{MessageInfo: info}
				if err := json.Unmarshal(info.Raw, &m.Payload); err != nil {
					t.Fatalf("payload of message %d: %v", info.ID, err)
				}
				if match == nil || match(m.Payload) {
					return m
				}
			}
			if len(ms) < f.Limit {
				break
			}
			f.After = ms[len(ms)-1].Cursor
		}
	}
	t.Fatalf("no unfinished message like that in queue %q", queue)
	panic("unreachable")
}

// Drain runs the handlers until none of the named queues has a message that is
// due, leased or waiting for a retry: backoffs are skipped. Messages that were
// enqueued with a delay are left until it has passed; see Advance. It fails
// the test if that takes more than half a minute.
func Drain(t testing.TB, s *pgqrs.Store, queues []string, handlers ...pgqrs.Handler) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	w := &pgqrs.Worker{Handlers: handlers, PollInterval: 2 * time.Millisecond}
	go func() { done <- w.Run(ctx) }()
	for !drained(ctx, t, s, queues) {
		select {
		case err := <-done:
			t.Fatalf("drain: the worker ended early: %v", errors.Join(err, ctx.Err()))
		case <-time.After(2 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatalf("drain: %v", err)
	}
}

// drained reports whether nothing is left to do, after making retries due.
func drained(ctx context.Context, t testing.TB, s *pgqrs.Store, queues []string) bool {
	t.Helper()
	left := false
	for _, q := range queues {
		infos, err := s.Queues(ctx, q)
		if err != nil {
			t.Fatalf("drain: %v", err)
		}
		for _, info := range infos {
			left = left || info.Ready > 0 || info.Leased > 0 || info.Scheduled > 0 && hurry(ctx, t, s, q)
		}
	}
	return !left
}

var hurryTexts = map[pgqrs.Dialect]string{
	pgqrs.Postgres: `UPDATE pgqrs_messages SET vt = clock_timestamp() WHERE queue_id = (SELECT id FROM pgqrs_queues WHERE queue_name = $1)
		AND archived_at IS NULL AND consumer_worker_id IS NULL AND last_error IS NOT NULL AND vt > clock_timestamp()`,
	pgqrs.SQLite: sqliteHurry,
	pgqrs.Turso:  sqliteHurry,
}

const sqliteHurry = `UPDATE pgqrs_messages SET vt = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE queue_id = (SELECT id FROM pgqrs_queues WHERE queue_name = ?)
	AND archived_at IS NULL AND consumer_worker_id IS NULL AND last_error IS NOT NULL AND vt > strftime('%Y-%m-%d %H:%M:%f', 'now')`

// hurry makes messages due that wait for a retry, and reports whether there were any.
func hurry(ctx context.Context, t testing.TB, s *pgqrs.Store, queue string) bool {
	t.Helper()
	var n int64
	retry(t, func() error {
		result, err := s.DB().ExecContext(ctx, hurryTexts[s.Dialect()], queue)
		if err != nil {
			return err
		}
		n, err = result.RowsAffected()
		return err
	})
	return n > 0
}
