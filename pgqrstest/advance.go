package pgqrstest

import (
	"slices"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/dbtest"
	"github.com/pgqrs/pgqrs-go/internal/testkit"
)

// Advance makes the time d pass for everything in the store's tables. Delays, backoffs, leases and
// rate limits end earlier by d, and so do the waits of schedules for their next instants.
//
// A running Worker notices the change of a schedule within a minute. A Worker that starts notices
// it at once.
func Advance(t testing.TB, s *pgqrs.Store, d time.Duration) {
	t.Helper()
	// Messages come last: a worker must not find a run's message due before the run's step is due.
	for _, text := range slices.Backward(advanceTexts[s.Dialect()]) {
		dbtest.Retry(t, func() error {
			_, err := s.DB().ExecContext(t.Context(), testkit.Render(s, text), d.Microseconds())
			return err
		})
	}
}

// advanceTexts move every time in the tables back by a number of microseconds. They leave out the
// time at which a worker's row was made, because a Worker knows its row by that time.
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
