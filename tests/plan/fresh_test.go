//go:build unix

package plan_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

// sessions is the name of the sessions whose reading is counted, because other tests use the same
// server.
const sessions = "plans_of_empty_tables"

// The plan for an almost empty table reads the whole table. PostgreSQL keeps the plan until the
// table is analyzed. A prepared statement must not keep the plan for so long.
func TestPlansOfEmptyTablesAreMadeAnewOnPostgres(t *testing.T) {
	for when, text := range map[string]string{"never analyzed": "SELECT", "analyzed when empty": "VACUUM ANALYZE pgqrs_messages"} {
		t.Run(when, func(t *testing.T) {
			dsn := postgres.Schema(t, "postgres") + " application_name=" + sessions
			db := openPool(t, dsn)
			s := pgqrs.New(db, pgqrs.Postgres)
			must(t, s.Install(t.Context()))
			exec := func(text string) {
				t.Helper()
				_, err := db.ExecContext(t.Context(), text)
				must(t, err)
			}
			exec(`ALTER TABLE pgqrs_messages SET (autovacuum_enabled = off)`)
			exec(text)

			q := pgqrs.NewQueue[int](s, "q")
			handle(t, q, 50) // with plans for a small table
			const many, times = 20_000, 1000
			exec(fmt.Sprintf(`INSERT INTO pgqrs_messages (queue_id, payload, archived_at) SELECT id, '1', now() FROM pgqrs_queues CROSS JOIN generate_series(1, %d)`, many))
			handle(t, q, times)
			must(t, s.Close())
			must(t, db.Close()) // so that the sessions report what they have read

			// Claims and acks read all messages, some more than once, until they are planned again.
			if read := rowsScanned(t, dsn); read > many*times {
				t.Errorf("%d messages were handled by reading %d rows, where there are %d", times, read, many)
			}
		})
	}
}

func openPool(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// handle enqueues, dequeues and acks a message, again and again.
func handle(t *testing.T, q *pgqrs.Queue[int], times int) {
	t.Helper()
	for range times {
		value(q.Enqueue(t.Context(), 1))(t)
		must(t, q.Ack(t.Context(), value(q.Dequeue(t.Context(), 1, time.Minute))(t)...))
	}
}

// rowsScanned returns how many messages were read by scans of the table. It waits for the end of
// the other sessions.
func rowsScanned(t *testing.T, dsn string) (read int) {
	t.Helper()
	db := openPool(t, dsn)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	others := 1
	await(ctx, func() bool {
		must(t, db.QueryRowContext(ctx, `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()`, sessions).Scan(&others))
		return others == 0
	})
	if others > 0 {
		t.Fatalf("%d sessions have not ended", others)
	}
	must(t, db.QueryRowContext(ctx, `SELECT seq_tup_read FROM pg_stat_user_tables WHERE relid = 'pgqrs_messages'::regclass`).Scan(&read))
	return read
}
