//go:build unix

package plan_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"
	sqlitedriver "github.com/ncruces/go-sqlite3/driver"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

// A timetable has numbers: of schedules, of schedules that have run, of the runs of each, and of
// all messages.
type timetable struct{ schedules, busy, runs, messages int }

var (
	fewSchedules = timetable{1000, 10, 200, 1000}
	// Nearly a million runs, of which a thousand stay for each schedule.
	manySchedules = timetable{100_000, 900, 1100, 100_000}
)

// fill adds what is missing of a timetable. The schedules are s1, s2 and so on. The first ones have
// run often.
func (n timetable) fill(t *testing.T, db *sql.DB, d pgqrs.Dialect) {
	t.Helper()
	at := map[pgqrs.Dialect]string{
		pgqrs.Postgres: `timestamptz '2026-01-01' + %s * interval '1 min'`,
		pgqrs.SQLite:   `strftime('%%Y-%%m-%%d %%H:%%M:%%f', '2026-01-01', %s || ' minutes')`,
	}[d]
	const upTo = `WITH RECURSIVE number (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < %d) `
	for _, text := range []string{
		fmt.Sprintf(upTo+`INSERT INTO pgqrs_messages (queue_id, payload, archived_at) SELECT q.id, '1', `+at+` FROM number CROSS JOIN pgqrs_queues q`, n.messages, "1"),
		fmt.Sprintf(upTo+`INSERT INTO pgqrs_schedules (name, queue_name, payload, rule, next_at) SELECT 's' || i, 'beats', '1', '@every 1m', `+at+` FROM number WHERE true ON CONFLICT DO NOTHING`, n.schedules, "1000000"),
		fmt.Sprintf(upTo+`INSERT INTO pgqrs_schedule_runs (schedule_id, due_at, message_id) SELECT s.id, `+at+`, 1 + (s.id + i) %% %d
			FROM number CROSS JOIN pgqrs_schedules s WHERE s.id <= %d ON CONFLICT DO NOTHING`, n.runs, "i", n.messages, n.busy),
	} {
		_, err := db.ExecContext(t.Context(), text)
		must(t, err)
	}
}

// scheduleOperations are the tags that operateSchedules must send.
var scheduleOperations = strings.Fields(`
	schedule.find schedule.put schedule.advance schedule.record schedule.prune
	schedule.take schedule.pause schedule.named_list schedule.history schedule.remove_runs schedule.remove_row`)

// runsRead has how many rows a statement on schedules may read of a table. The number is enough for
// a page of a history, and for three schedules.
var runsRead = map[string]int64{
	"schedule.history":     50,
	"schedule.remove_runs": 1100,
	"schedule.prune":       3 * 1200, // a thousand stay for each
}

func mayRead(tag string) int64 { return 20 + runsRead[tag] }

// operateSchedules makes a worker run three schedules, and an operator list some.
func operateSchedules(t *testing.T, w *watcher, db *sql.DB, d pgqrs.Dialect, remove string) {
	t.Helper()
	w.reset()
	s := pgqrs.Config{NoPrepare: true}.New(db, d)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	worker := &pgqrs.Worker{}
	for i := range 3 {
		worker.Schedules = append(worker.Schedules, pgqrs.Schedule{
			Name: fmt.Sprint("s", i+1), Rule: pgqrs.Every(time.Second), Target: pgqrs.NewQueue[int](s, "beats").Target(1),
		})
	}
	working, dismiss := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- worker.Run(working) }()
	await(ctx, func() bool { return w.has("schedule.record") && w.has("schedule.prune") })
	dismiss()
	must(t, <-done)
	must(t, s.PauseSchedule(ctx, "s4"))
	must(t, s.ResumeSchedule(ctx, "s4"))
	value(s.RunSchedule(ctx, "s4"))(t)
	if got := len(value(s.ScheduleRuns(ctx, "s5", 50))(t)); got != 50 {
		t.Errorf("%d runs of a schedule are listed; want 50", got)
	}
	if list := value(s.Schedules(ctx, "s6", "s999", "s6"))(t); len(list) != 2 {
		t.Errorf("%d schedules are listed; want 2", len(list))
	}
	must(t, s.DeleteSchedule(ctx, remove))
	for _, tag := range scheduleOperations {
		if !w.has(tag) {
			t.Errorf("%s was not sent", tag)
		}
	}
}

// planSchedules operates few schedules, and then many. It does so in several situations, each of
// which has a name and a statement that prepares it.
func planSchedules(t *testing.T, w *watcher, db *sql.DB, d pgqrs.Dialect, situations [][2]string, say func(when string)) {
	t.Helper()
	// Configure creates the queue.
	must(t, pgqrs.NewQueue[int](pgqrs.New(db, d), "beats").Configure(t.Context()))
	fewSchedules.fill(t, db, d)
	operateSchedules(t, w, db, d, "s7")
	manySchedules.fill(t, db, d)
	for i, situation := range situations {
		if situation[1] != "" {
			_, err := db.ExecContext(t.Context(), situation[1])
			must(t, err)
		}
		say(situation[0])
		operateSchedules(t, w, db, d, fmt.Sprint("s", 8+i))
	}
}

func TestSchedulesReadNoOthersOnPostgres(t *testing.T) {
	c, err := pq.NewConnector(postgres.Schema(t, "postgres"))
	must(t, err)
	when := ""
	p := &postgresPlans{t: t, check: func(tag, kind, raw string) error {
		var explained []struct{ Plan node }
		if err := json.Unmarshal([]byte(raw), &explained); err != nil || when == "" || !strings.HasPrefix(tag, "schedule.") {
			return err
		}
		for _, table := range []string{"pgqrs_schedules", "pgqrs_schedule_runs", "pgqrs_messages"} {
			if most, count := explained[0].Plan.most(table); count > mayRead(tag) {
				t.Errorf("%s, %s on %s: %s %s reads %d rows of %s, %d at most wanted\n%s", tag, kind, when, most.Type, most.Index, count, table, mayRead(tag), raw)
			}
		}
		if pages, limit := explained[0].Plan.Hit+explained[0].Plan.Read, 100+10*mayRead(tag); pages > limit {
			t.Errorf("%s, %s on %s, reads %d pages, %d at most wanted\n%s", tag, kind, when, pages, limit, raw)
		}
		return nil
	}}
	w := &watcher{Connector: c, look: p.look}
	w.reset()
	db := watchedDB(t, w)
	must(t, pgqrs.New(db, pgqrs.Postgres).Install(t.Context()))
	for _, text := range []string{
		// Autovacuum would analyze them at any moment.
		`ALTER TABLE pgqrs_messages SET (autovacuum_enabled = off)`,
		`ALTER TABLE pgqrs_schedules SET (autovacuum_enabled = off)`,
		`ALTER TABLE pgqrs_schedule_runs SET (autovacuum_enabled = off)`,
		`SET plan_cache_mode = force_generic_plan`, `VACUUM ANALYZE`,
	} {
		_, err := db.ExecContext(t.Context(), text)
		must(t, err)
	}
	planSchedules(t, w, db, pgqrs.Postgres, [][2]string{
		// A plan for few schedules may read all of them until autovacuum analyzes the grown table.
		// So no plan is kept.
		{"tables that were never analyzed", "DEALLOCATE ALL"}, {"analyzed tables", "ANALYZE; DEALLOCATE ALL"},
	}, func(situation string) { when = situation })
}

func TestSchedulesReadNoOthersOnSQLite(t *testing.T) {
	c, err := (&sqlitedriver.SQLite{}).OpenConnector(sqlite.URI(t, "_pragma=journal_mode(wal)&_pragma=synchronous(off)"))
	must(t, err)
	when := ""
	w := &watcher{Connector: c, look: func(_ context.Context, c driver.Conn, tag, text string, args []driver.NamedValue) error {
		conn := rawSQLite(c)
		steps, err := count(conn, text, args)
		if limit := int(2000 + 60*mayRead(tag)); err == nil && when != "" && strings.HasPrefix(tag, "schedule.") && steps > limit {
			plan, err := explain(conn, text)
			must(t, err)
			t.Errorf("%s on %s takes %d steps, %d at most wanted\n%s", tag, when, steps, limit, plan)
		}
		return err
	}}
	w.reset()
	db := watchedDB(t, w)
	must(t, pgqrs.New(db, pgqrs.SQLite).Install(t.Context()))
	planSchedules(t, w, db, pgqrs.SQLite, [][2]string{{"tables that were never analyzed", ""}, {"analyzed tables", "ANALYZE"}}, func(situation string) { when = situation })
}
