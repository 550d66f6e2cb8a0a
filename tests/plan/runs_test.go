//go:build unix

package plan_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"
	sqlitedriver "github.com/ncruces/go-sqlite3/driver"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

// fillRuns adds 200,000 runs. The 10th, 20th and 30th are children of the 7th, and two have failed.
var fillRuns = []string{
	`INSERT INTO pgqrs_queues (queue_name) VALUES ('orders')`,
	`INSERT INTO pgqrs_workflows (name, queue_id) SELECT queue_name, id FROM pgqrs_queues`,
	`WITH RECURSIVE number (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < 200000)
	INSERT INTO pgqrs_workflow_runs (workflow_id, message_id, status, parent_run_id, parent_step)
	SELECT w.id, i, 'SUCCESS', CASE WHEN i IN (10, 20, 30) THEN 7 WHEN i > 1000 THEN i - 500 END, CASE WHEN i IN (10, 20, 30) OR i > 1000 THEN 'kids' END
	FROM number CROSS JOIN pgqrs_workflows w`,
	`UPDATE pgqrs_workflow_runs SET status = 'ERROR' WHERE id IN (40, 50)`,
	`INSERT INTO pgqrs_messages (id, queue_id, payload) SELECT message_id, (SELECT id FROM pgqrs_queues), '{}' FROM pgqrs_workflow_runs`,
	`UPDATE pgqrs_workflow_runs SET status = 'QUEUED' WHERE id > 199000`,
}

// lookAfterRuns makes a consumer and a worker look for runs of messages, and for stranded runs.
func lookAfterRuns(t *testing.T, s *pgqrs.Store, w *watcher) {
	t.Helper()
	w.reset()
	ms := value(pgqrs.NewQueue[json.RawMessage](s, "orders").Dequeue(t.Context(), 50, time.Hour))(t)
	if len(ms) != 50 {
		t.Fatalf("dequeued %d messages, want 50", len(ms))
	}
	must(t, s.PauseQueue(t.Context(), "orders"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	handler := pgqrs.NewWorkflow[int, int](s, "orders").Handle(func(context.Context, *pgqrs.Run, int) (int, error) { return 0, nil })
	go func() { done <- (&pgqrs.Worker{Handlers: []pgqrs.Handler{handler}}).Run(ctx) }()
	for deadline := time.Now().Add(time.Minute); !w.has("worker.prune") && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	must(t, <-done)
	must(t, s.ResumeQueue(t.Context(), "orders"))
	for _, tag := range []string{"run.of_messages", "run.stranded"} {
		if !w.has(tag) {
			t.Errorf("%s was not sent", tag)
		}
	}
}

// listRuns reads the pages of runs that an operator sees, before the tables are first analyzed, and
// after.
func listRuns(t *testing.T, db *sql.DB, d pgqrs.Dialect, w *watcher) {
	t.Helper()
	s := pgqrs.Config{NoPrepare: true}.New(db, d)
	must(t, s.Install(t.Context()))
	for _, text := range fillRuns {
		_, err := db.ExecContext(t.Context(), text)
		must(t, err)
	}
	for _, analyze := range []string{"", "ANALYZE", "DEALLOCATE ALL"} {
		if analyze == "DEALLOCATE ALL" && d != pgqrs.Postgres {
			continue
		}
		_, err := db.ExecContext(t.Context(), analyze)
		must(t, err)
		lookAfterRuns(t, s, w)
		for _, c := range []struct {
			f    pgqrs.RunFilter
			runs int
		}{
			{pgqrs.RunFilter{Limit: 50}, 50},
			{pgqrs.RunFilter{Limit: 50, Before: 1000}, 50},
			{pgqrs.RunFilter{Status: pgqrs.Failed}, 2},
			{pgqrs.RunFilter{Status: pgqrs.Failed, Workflow: "orders", Limit: 1}, 1},
			{pgqrs.RunFilter{Status: pgqrs.Succeeded, Limit: 50, Before: 1000}, 50},
			{pgqrs.RunFilter{Status: pgqrs.Paused}, 0},
			{pgqrs.RunFilter{Parent: 7}, 3},
			{pgqrs.RunFilter{Parent: 7, Status: pgqrs.Succeeded, Limit: 2, Before: 30}, 2},
		} {
			if got := len(value(s.Runs(t.Context(), c.f))(t)); got != c.runs {
				t.Errorf("%+v lists %d runs, want %d", c.f, got, c.runs)
			}
		}
	}
	for _, tag := range []string{"run.list", "run.status_list", "run.child_list"} { // since lookAfterRuns
		if !w.has(tag) {
			t.Errorf("%s was not sent", tag)
		}
	}
}

// ofRuns reports whether a statement reads runs only. Another test covers retention.
func ofRuns(tag string) bool { return strings.HasPrefix(tag, "run.") && tag != "run.expired" }

func TestListsOfRunsReadNoOthersOnPostgres(t *testing.T) {
	c, err := pq.NewConnector(postgres.Schema(t, "postgres"))
	must(t, err)
	p := &postgresPlans{t: t, check: func(tag, kind, raw string) error {
		var explained []struct{ Plan node }
		if err := json.Unmarshal([]byte(raw), &explained); err != nil {
			return err
		}
		most := map[string]int64{"run.stranded": 5000}[tag] // a thousand runs, and their messages
		if pages := explained[0].Plan.Hit + explained[0].Plan.Read; pages > max(500, most) && ofRuns(tag) {
			t.Errorf("%s, %s, reads %d pages\n%s", tag, kind, pages, raw)
		}
		return nil
	}}
	w := &watcher{Connector: c, look: p.look}
	w.reset()
	listRuns(t, watchedDB(t, w), pgqrs.Postgres, w)
}

func TestListsOfRunsReadNoOthersOnSQLite(t *testing.T) {
	c, err := (&sqlitedriver.SQLite{}).OpenConnector(sqlite.URI(t, "_pragma=journal_mode(wal)&_pragma=synchronous(off)"))
	must(t, err)
	w := &watcher{Connector: c, look: func(_ context.Context, c driver.Conn, tag, text string, args []driver.NamedValue) error {
		steps, err := count(rawSQLite(c), text, args)
		if steps > 10_000 && ofRuns(tag) && tag != "run.stranded" || steps > 100_000 && tag == "run.stranded" {
			t.Errorf("%s takes %d steps", tag, steps)
		}
		return err
	}}
	w.reset()
	listRuns(t, watchedDB(t, w), pgqrs.SQLite, w)
}
