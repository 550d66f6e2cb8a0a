package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/testkit"
)

// orphaned is how long Drain waits before it fails for messages that nobody takes. A Worker may be
// about to start.
const orphaned = time.Second

// Drain runs the handlers until no queue has work left, for no longer than limit. Package pgqrstest
// documents it.
func Drain(t testing.TB, s *pgqrs.Store, limit time.Duration, queues []string, handlers ...pgqrs.Handler) {
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

// remaining returns the queues that have work left, after it has made waiting messages due. It
// reads all queues at once, because a handler may enqueue from one queue to another.
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

// unhandled reports whether all messages that are left are in queues that nobody handles.
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
		if w.State != pgqrs.WorkerStopped {
			workers[w.ID] = w
		}
	}
	return workers
}

// describe returns what is left in queues, and why.
func describe(ctx context.Context, t testing.TB, s *pgqrs.Store, left []pgqrs.QueueInfo, handled map[string]bool) string {
	t.Helper()
	workers := workersOf(ctx, t, s)
	var b strings.Builder
	for _, info := range left {
		fmt.Fprintf(&b, "\n\tqueue %q: %d ready, %d leased, %d scheduled: %s", info.Name, info.Ready, info.Leased, info.Scheduled, reason(info, workers, handled))
		// The states are in the order in which messages change them.
		for _, state := range []pgqrs.MessageState{pgqrs.Ready, pgqrs.Leased, pgqrs.Scheduled} {
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

// reason returns why messages of a queue are left.
func reason(info pgqrs.QueueInfo, workers map[int64]pgqrs.WorkerInfo, handled map[string]bool) string {
	if !info.PausedAt.IsZero() {
		return "the queue is paused"
	}
	var others []string
	for _, w := range workers {
		switch {
		case w.Queue != info.Name:
		case w.State == pgqrs.WorkerSuspended || w.State == pgqrs.WorkerInterrupted:
			return fmt.Sprintf("worker %q is %s", w.Name, w.State)
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

// A hurryText makes the waiting messages of a queue due. It has statements for messages that wait
// for a retry, for messages of runs that sleep or wait for a step's retry, and for these steps.
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

// hurry makes waiting messages due, and reports whether there were any. It uses one transaction,
// because a run that resumes must find that its steps have waited long enough.
func hurry(ctx context.Context, t testing.TB, s *pgqrs.Store, queue string) (found bool) {
	t.Helper()
	begin := beginText(ctx, t, s)
	texts := hurryTexts[s.Dialect()]
	Retry(t, func() error {
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
		// The ctx must not end here. The begin-concurrent branch mistakes the statement by which
		// ncruces waits for the end of a ctx for a statement in progress.
		if _, err := conn.ExecContext(context.WithoutCancel(ctx), "COMMIT"); err != nil {
			return errors.Join(err, rollback(ctx, conn))
		}
		return nil
	})
	return found
}

// beginText returns the statement by which the Store begins its transactions. Turso 0.7.2 fails if
// an exclusive transaction runs beside concurrent ones.
func beginText(ctx context.Context, t testing.TB, s *pgqrs.Store) string {
	t.Helper()
	r, err := s.Verify(ctx)
	switch {
	case err != nil:
		t.Fatalf("drain: %v", err)
		return ""
	case r.Writers == pgqrs.ConcurrentWriters:
		return "BEGIN CONCURRENT"
	case s.Dialect() == pgqrs.Postgres:
		return "BEGIN"
	default:
		return "BEGIN IMMEDIATE"
	}
}

// rollback ends a transaction that failed, unless the engine has ended it already.
func rollback(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	if err != nil && strings.Contains(err.Error(), "no transaction is active") {
		return nil
	}
	return err
}
