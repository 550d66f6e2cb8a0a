package pgqrstest

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/testkit"
)

// advanceTexts move every time in the tables back, by a number of microseconds. Workers know their rows by when they were made, which stays.
var advanceTexts = map[pgqrs.Dialect][]string{
	pgqrs.Postgres: {
		`UPDATE pgqrs_messages SET vt = CASE WHEN parked_vt IS NULL THEN vt - a.d ELSE vt END, parked_vt = parked_vt - a.d, enqueued_at = enqueued_at - a.d, due_at = due_at - a.d,
			dequeued_at = dequeued_at - a.d, archived_at = archived_at - a.d, failed_at = failed_at - a.d
			FROM (SELECT $1::bigint * interval '1 microsecond' AS d) a`,
		`UPDATE pgqrs_groups SET next_at = next_at - a.d, touched_at = touched_at - a.d
			FROM (SELECT $1::bigint * interval '1 microsecond' AS d) a`,
		`UPDATE pgqrs_workers SET heartbeat_at = heartbeat_at - a.d, shutdown_at = shutdown_at - a.d
			FROM (SELECT $1::bigint * interval '1 microsecond' AS d) a`,
		`UPDATE pgqrs_workflow_runs SET created_at = created_at - a.d, started_at = started_at - a.d, paused_at = paused_at - a.d, completed_at = completed_at - a.d
			FROM (SELECT $1::bigint * interval '1 microsecond' AS d) a`,
		`UPDATE pgqrs_workflow_steps SET created_at = created_at - a.d, started_at = started_at - a.d, completed_at = completed_at - a.d, retry_at = retry_at - a.d
			FROM (SELECT $1::bigint * interval '1 microsecond' AS d) a`,
		`UPDATE pgqrs_queues SET rate_at = rate_at - $1::bigint * interval '1 microsecond' WHERE rate_at IS NOT NULL`,
		`UPDATE pgqrs_schedules SET created_at = created_at - a.d, updated_at = updated_at - a.d, paused_at = paused_at - a.d, resumed_at = resumed_at - a.d, next_at = next_at - a.d
			FROM (SELECT $1::bigint * interval '1 microsecond' AS d) a`,
	},
	pgqrs.SQLite: sqliteAdvance,
	pgqrs.Turso:  sqliteAdvance,
}

var sqliteAdvance = []string{
	`WITH a (d) AS (SELECT printf('-%.6f seconds', ? / 1000000.0))
		UPDATE pgqrs_messages SET
			vt = CASE WHEN parked_vt IS NULL THEN strftime('%Y-%m-%d %H:%M:%f', vt, (SELECT d FROM a)) ELSE vt END,
			parked_vt = strftime('%Y-%m-%d %H:%M:%f', parked_vt, (SELECT d FROM a)),
			enqueued_at = strftime('%Y-%m-%d %H:%M:%f', enqueued_at, (SELECT d FROM a)),
			due_at = strftime('%Y-%m-%d %H:%M:%f', due_at, (SELECT d FROM a)),
			dequeued_at = strftime('%Y-%m-%d %H:%M:%f', dequeued_at, (SELECT d FROM a)),
			archived_at = strftime('%Y-%m-%d %H:%M:%f', archived_at, (SELECT d FROM a)),
			failed_at = strftime('%Y-%m-%d %H:%M:%f', failed_at, (SELECT d FROM a))`,
	`WITH a (d) AS (SELECT printf('-%.6f seconds', ? / 1000000.0))
		UPDATE pgqrs_groups SET
			next_at = strftime('%Y-%m-%d %H:%M:%f', next_at, (SELECT d FROM a)),
			touched_at = strftime('%Y-%m-%d %H:%M:%f', touched_at, (SELECT d FROM a))`,
	`WITH a (d) AS (SELECT printf('-%.6f seconds', ? / 1000000.0))
		UPDATE pgqrs_workers SET
			heartbeat_at = strftime('%Y-%m-%d %H:%M:%f', heartbeat_at, (SELECT d FROM a)),
			shutdown_at = strftime('%Y-%m-%d %H:%M:%f', shutdown_at, (SELECT d FROM a))`,
	`WITH a (d) AS (SELECT printf('-%.6f seconds', ? / 1000000.0))
		UPDATE pgqrs_workflow_runs SET
			created_at = strftime('%Y-%m-%d %H:%M:%f', created_at, (SELECT d FROM a)),
			started_at = strftime('%Y-%m-%d %H:%M:%f', started_at, (SELECT d FROM a)),
			paused_at = strftime('%Y-%m-%d %H:%M:%f', paused_at, (SELECT d FROM a)),
			completed_at = strftime('%Y-%m-%d %H:%M:%f', completed_at, (SELECT d FROM a))`,
	`WITH a (d) AS (SELECT printf('-%.6f seconds', ? / 1000000.0))
		UPDATE pgqrs_workflow_steps SET
			created_at = strftime('%Y-%m-%d %H:%M:%f', created_at, (SELECT d FROM a)),
			started_at = strftime('%Y-%m-%d %H:%M:%f', started_at, (SELECT d FROM a)),
			completed_at = strftime('%Y-%m-%d %H:%M:%f', completed_at, (SELECT d FROM a)),
			retry_at = strftime('%Y-%m-%d %H:%M:%f', retry_at, (SELECT d FROM a))`,
	`UPDATE pgqrs_queues SET rate_at = rate_at - ? WHERE rate_at IS NOT NULL`,
	`WITH a (d) AS (SELECT printf('-%.6f seconds', ? / 1000000.0))
		UPDATE pgqrs_schedules SET
			created_at = strftime('%Y-%m-%d %H:%M:%f', created_at, (SELECT d FROM a)),
			updated_at = strftime('%Y-%m-%d %H:%M:%f', updated_at, (SELECT d FROM a)),
			paused_at = strftime('%Y-%m-%d %H:%M:%f', paused_at, (SELECT d FROM a)),
			resumed_at = strftime('%Y-%m-%d %H:%M:%f', resumed_at, (SELECT d FROM a)),
			next_at = strftime('%Y-%m-%d %H:%M:%f', next_at, (SELECT d FROM a))`,
}

// Advance lets time pass for everything in the store's tables: delays,
// backoffs, leases and what rates keep back come that much closer to their end,
// and schedules to their next instant. A running Worker finds out about schedules within a
// minute; one that starts, at once.
func Advance(t testing.TB, s *pgqrs.Store, d time.Duration) {
	t.Helper()
	// The messages last: a worker must not find a run's message due before its step is.
	for _, text := range slices.Backward(advanceTexts[s.Dialect()]) {
		retry(t, func() error {
			_, err := s.DB().ExecContext(t.Context(), testkit.Render(s, text), d.Microseconds())
			return err
		})
	}
}

// retry gives a statement of the test's own some patience with a busy database.
func retry(t testing.TB, fn func() error) {
	t.Helper()
	var err error
	deadline := time.Now().Add(tooLong)
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
	for _, state := range []pgqrs.State{pgqrs.Ready, pgqrs.Scheduled, pgqrs.Blocked, pgqrs.Leased} {
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

// Drain runs the handlers until none of the named queues (a workflow's is named
// like it) has a message that is due, leased or waiting for a retry: backoffs are
// skipped, of messages and of steps, and so are the sleeps of runs. Messages that were
// enqueued with a delay, and runs that wait for a signal, with a timeout or without, are
// left until their time has passed; see Advance.
//
// It fails the test if that takes more than a minute, or as soon as nothing is left but
// messages of queues that no handler and no other Worker takes. The failure names
// the queues, why their messages are left, and some of these with their latest errors.
func Drain(t testing.TB, s *pgqrs.Store, queues []string, handlers ...pgqrs.Handler) {
	t.Helper()
	drainWithin(t, s, tooLong, queues, handlers...)
}

// orphaned is how long messages that nobody takes are watched before Drain fails: a Worker may be about to start.
const orphaned = time.Second

// drainWithin is Drain that takes no longer than limit.
func drainWithin(t testing.TB, s *pgqrs.Store, limit time.Duration, queues []string, handlers ...pgqrs.Handler) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	w := &pgqrs.Worker{Handlers: handlers, PollInterval: 2 * time.Millisecond}
	go func() { done <- w.Run(ctx) }()
	handled := map[string]bool{}
	for _, h := range handlers {
		handled[testkit.Queue(h)] = true
	}
	began := time.Now()
	for taken := began; ; {
		left := remaining(ctx, t, s, queues)
		if len(left) == 0 {
			break
		}
		if !unhandled(ctx, t, s, left, handled) {
			taken = time.Now()
		}
		if time.Since(began) > limit || time.Since(taken) > orphaned {
			t.Fatalf("drain: after %v there is left:%s", time.Since(began).Round(time.Millisecond), describe(ctx, t, s, left, handled))
		}
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

// remaining returns the queues that have something to do, after making due what only
// waits. It looks at all queues at once: a handler may enqueue from one to another.
func remaining(ctx context.Context, t testing.TB, s *pgqrs.Store, queues []string) (left []pgqrs.QueueInfo) {
	t.Helper()
	if len(queues) == 0 {
		return nil
	}
	infos, err := s.Queues(ctx, queues...)
	if err != nil {
		t.Fatalf("drain: %v", err)
	}
	for _, info := range infos {
		if waits := info.Scheduled > 0 && hurry(ctx, t, s, info.Name); waits || info.Ready > 0 || info.Leased > 0 {
			left = append(left, info)
		}
	}
	return left
}

// unhandled reports whether queues have messages that nobody takes, and nothing else is left.
func unhandled(ctx context.Context, t testing.TB, s *pgqrs.Store, left []pgqrs.QueueInfo, handled map[string]bool) bool {
	t.Helper()
	for _, info := range left {
		if handled[info.Name] || info.Leased > 0 {
			return false
		}
	}
	for _, w := range workersOf(ctx, t, s) {
		if slices.ContainsFunc(left, func(info pgqrs.QueueInfo) bool { return info.Name == w.Queue }) {
			return false
		}
	}
	return true
}

// workersOf returns the workers that are not stopped, by id.
func workersOf(ctx context.Context, t testing.TB, s *pgqrs.Store) map[int64]pgqrs.WorkerInfo {
	t.Helper()
	list, err := s.Workers(ctx)
	if err != nil {
		t.Fatalf("drain: %v", err)
	}
	workers := map[int64]pgqrs.WorkerInfo{}
	for _, w := range list {
		if w.Status != "stopped" {
			workers[w.ID] = w
		}
	}
	return workers
}

// describe says what is left in queues, and why.
func describe(ctx context.Context, t testing.TB, s *pgqrs.Store, left []pgqrs.QueueInfo, handled map[string]bool) string {
	t.Helper()
	workers := workersOf(ctx, t, s)
	var b strings.Builder
	for _, info := range left {
		fmt.Fprintf(&b, "\n\tqueue %q: %d ready, %d leased, %d scheduled: %s", info.Name, info.Ready, info.Leased, info.Scheduled, reason(info, workers, handled))
		for _, state := range []pgqrs.State{pgqrs.Ready, pgqrs.Leased, pgqrs.Scheduled} { // as they move
			ms, err := s.Messages(ctx, pgqrs.MessageFilter{Queue: info.Name, State: state, Limit: 3})
			if err != nil {
				t.Fatalf("drain: %v", err)
			}
			for _, m := range ms {
				fmt.Fprintf(&b, "\n\t\tmessage %d, %s, attempt %d", m.ID, m.State, m.Attempt)
				if w, ok := workers[m.WorkerID]; ok && state == pgqrs.Leased {
					fmt.Fprintf(&b, ", held by worker %q", w.Name)
				}
				if m.LastError != "" {
					fmt.Fprintf(&b, ", last error: %.200s", m.LastError)
				}
			}
		}
	}
	return b.String()
}

// reason says why messages of a queue are left.
func reason(info pgqrs.QueueInfo, workers map[int64]pgqrs.WorkerInfo, handled map[string]bool) string {
	if !info.PausedAt.IsZero() {
		return "the queue is paused"
	}
	var others []string
	for _, w := range workers {
		switch {
		case w.Queue != info.Name:
		case w.Status == "suspended" || w.Status == "interrupted":
			return fmt.Sprintf("worker %q is %s", w.Name, w.Status)
		default:
			others = append(others, fmt.Sprintf("%q", w.Name))
		}
	}
	slices.Sort(others)
	switch {
	case !handled[info.Name] && len(others) > 0:
		return fmt.Sprintf("no handler for queue %q, but worker %s", info.Name, strings.Join(others, ", "))
	case !handled[info.Name]:
		return fmt.Sprintf("no handler for queue %q", info.Name)
	case info.Leased > 0:
		return "a handler has not returned"
	default:
		return "its handler has not finished with them"
	}
}

// A hurryText makes due what waits in a queue: messages for their retry, messages
// of runs that sleep or wait for the retry of a step, and then those steps.
type hurryText struct{ messages, runs, steps string }

var hurryTexts = map[pgqrs.Dialect]hurryText{
	pgqrs.Postgres: {
		messages: `UPDATE pgqrs_messages SET vt = clock_timestamp() WHERE queue_id = (SELECT id FROM pgqrs_queues WHERE queue_name = $1)
			AND archived_at IS NULL AND consumer_worker_id IS NULL AND parked_vt IS NULL AND last_error IS NOT NULL AND vt > clock_timestamp()
			AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs r LEFT JOIN pgqrs_workflow_steps s ON s.run_id = r.id AND s.status = 'PAUSED'
				WHERE r.message_id = pgqrs_messages.id AND (r.status = 'PAUSED' OR s.id IS NOT NULL))`,
		runs: `UPDATE pgqrs_messages SET vt = clock_timestamp() WHERE queue_id = (SELECT id FROM pgqrs_queues WHERE queue_name = $1)
			AND archived_at IS NULL AND consumer_worker_id IS NULL AND parked_vt IS NULL AND vt > clock_timestamp()
			AND EXISTS (SELECT 1 FROM pgqrs_workflow_runs r JOIN pgqrs_workflow_steps s ON s.run_id = r.id WHERE r.message_id = pgqrs_messages.id
				AND r.status IN ('RUNNING', 'CANCELLING') AND s.status IN ('RUNNING', 'ERROR') AND s.retry_at > clock_timestamp())`,
		steps: `UPDATE pgqrs_workflow_steps SET retry_at = clock_timestamp() WHERE status IN ('RUNNING', 'ERROR') AND retry_at > clock_timestamp()
			AND run_id IN (SELECT r.id FROM pgqrs_workflow_runs r JOIN pgqrs_messages m ON m.id = r.message_id
				WHERE m.queue_id = (SELECT id FROM pgqrs_queues WHERE queue_name = $1) AND m.archived_at IS NULL AND m.consumer_worker_id IS NULL AND m.vt <= clock_timestamp())`,
	},
	pgqrs.SQLite: sqliteHurry,
	pgqrs.Turso:  sqliteHurry,
}

const sqliteNow = `strftime('%Y-%m-%d %H:%M:%f', 'now')`

var sqliteHurry = hurryText{
	messages: `UPDATE pgqrs_messages SET vt = ` + sqliteNow + ` WHERE queue_id = (SELECT id FROM pgqrs_queues WHERE queue_name = ?)
		AND archived_at IS NULL AND consumer_worker_id IS NULL AND parked_vt IS NULL AND last_error IS NOT NULL AND vt > ` + sqliteNow + `
		AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs r LEFT JOIN pgqrs_workflow_steps s ON s.run_id = r.id AND s.status = 'PAUSED'
				WHERE r.message_id = pgqrs_messages.id AND (r.status = 'PAUSED' OR s.id IS NOT NULL))`,
	runs: `UPDATE pgqrs_messages SET vt = ` + sqliteNow + ` WHERE queue_id = (SELECT id FROM pgqrs_queues WHERE queue_name = ?)
		AND archived_at IS NULL AND consumer_worker_id IS NULL AND parked_vt IS NULL AND vt > ` + sqliteNow + `
		AND EXISTS (SELECT 1 FROM pgqrs_workflow_runs r JOIN pgqrs_workflow_steps s ON s.run_id = r.id WHERE r.message_id = pgqrs_messages.id
			AND r.status IN ('RUNNING', 'CANCELLING') AND s.status IN ('RUNNING', 'ERROR') AND s.retry_at > ` + sqliteNow + `)`,
	steps: `UPDATE pgqrs_workflow_steps SET retry_at = ` + sqliteNow + ` WHERE status IN ('RUNNING', 'ERROR') AND retry_at > ` + sqliteNow + `
		AND run_id IN (SELECT r.id FROM pgqrs_workflow_runs r JOIN pgqrs_messages m ON m.id = r.message_id
			WHERE m.queue_id = (SELECT id FROM pgqrs_queues WHERE queue_name = ?) AND m.archived_at IS NULL AND m.consumer_worker_id IS NULL AND m.vt <= ` + sqliteNow + `)`,
}

// hurry makes due what waits, and reports whether there was anything. It does
// so in one transaction: a run that wakes is to find that its steps have waited long enough.
func hurry(ctx context.Context, t testing.TB, s *pgqrs.Store, queue string) (found bool) {
	t.Helper()
	begin := beginText(ctx, t, s)
	texts := hurryTexts[s.Dialect()]
	retry(t, func() error {
		found = false
		conn, err := s.DB().Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.ExecContext(ctx, begin); err != nil {
			return err
		}
		for _, text := range []string{texts.messages, texts.runs, texts.steps} {
			result, err := conn.ExecContext(ctx, testkit.Render(s, text), queue)
			if err == nil {
				var n int64
				n, err = result.RowsAffected()
				found = found || n > 0
			}
			if err != nil {
				return errors.Join(err, rollback(ctx, conn))
			}
		}
		// Without a ctx that may end: the begin-concurrent branch takes what ncruces waits for that with for a statement in progress.
		if _, err := conn.ExecContext(context.WithoutCancel(ctx), "COMMIT"); err != nil {
			return errors.Join(err, rollback(ctx, conn))
		}
		return nil
	})
	return found
}

// beginText opens a transaction as the Store opens its own. In particular an
// exclusive one beside concurrent ones is more than Turso 0.7.2 can bear.
func beginText(ctx context.Context, t testing.TB, s *pgqrs.Store) string {
	t.Helper()
	r, err := s.Verify(ctx)
	switch {
	case err != nil:
		t.Fatalf("drain: %v", err)
		return ""
	case r.Concurrency == "experimental":
		return "BEGIN CONCURRENT"
	case s.Dialect() == pgqrs.Postgres:
		return "BEGIN"
	default:
		return "BEGIN IMMEDIATE"
	}
}

// rollback ends a transaction that failed, unless the engine has done so.
func rollback(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	if err != nil && strings.Contains(err.Error(), "no transaction is active") {
		return nil
	}
	return err
}
