package plan_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"
	sqlitedriver "github.com/ncruces/go-sqlite3/driver"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
)

// fillSQLite is fillPostgres for SQLite.
const fillSQLite = `
	WITH RECURSIVE kinds (kind, n) AS (VALUES ('archived', %d), ('scheduled', %d), ('leased', %d), ('ready', %d), ('dead', %d), ('idle', %d)),
	rows (kind, i) AS (SELECT kind, n FROM kinds UNION ALL SELECT kind, i - 1 FROM rows WHERE i > 1),
	holder (id, queue_id, now) AS MATERIALIZED (SELECT max(w.id), q.id, julianday('now') FROM pgqrs_workers w JOIN pgqrs_queues q ON q.queue_name = 'big')
	INSERT INTO pgqrs_messages (queue_id, payload, priority, vt, archived_at, failed_at, consumer_worker_id, claim_ct, read_ct, due_at, last_error, dedup_key)
	SELECT CASE kind WHEN 'idle' THEN (SELECT id FROM pgqrs_queues WHERE queue_name = 'idle') ELSE h.queue_id END, i, i %% 4 - 1,
		strftime('%%Y-%%m-%%d %%H:%%M:%%f', h.now + CASE WHEN kind IN ('scheduled', 'idle') THEN 1 / 24.0 + i / 86400.0 WHEN kind = 'leased' THEN 1 / 24.0 + i / 86400000.0 ELSE -i / 86400000.0 END),
		CASE WHEN kind IN ('archived', 'dead') THEN strftime('%%Y-%%m-%%d %%H:%%M:%%f', h.now - i / 172800.0) END,
		CASE kind WHEN 'dead' THEN strftime('%%Y-%%m-%%d %%H:%%M:%%f', h.now - i / 172800.0) END,
		CASE WHEN kind IN ('archived', 'leased') THEN h.id END, 1, 1,
		CASE kind WHEN 'leased' THEN strftime('%%Y-%%m-%%d %%H:%%M:%%f', h.now) END, CASE kind WHEN 'dead' THEN 'x' END, CASE kind WHEN 'dead' THEN 'k' || i END
	FROM rows CROSS JOIN holder h`

func TestSQLite(t *testing.T) {
	c, err := (&sqlitedriver.SQLite{}).OpenConnector(sqlite.URI(t, "_pragma=journal_mode(wal)&_pragma=synchronous(off)"))
	must(t, err)
	p := &sqlitePlans{t: t, few: map[string]int{}, failed: map[string]bool{}}
	w := &watcher{Connector: c, look: p.look}
	w.reset()
	db := watchedDB(t, w)
	exec := func(text string) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), text)
		must(t, err)
	}
	must(t, pgqrs.New(db, pgqrs.SQLite).Install(t.Context()))
	exec(`INSERT INTO pgqrs_queues (queue_name) VALUES ('big'), ('idle')`)
	exec(`INSERT INTO pgqrs_workers (name, queue_id, status, go_state) SELECT 'holder', id, 'polling', 'live' FROM pgqrs_queues WHERE queue_name = 'big'`)
	exec(fmt.Sprintf(fillSQLite, fewMessages...))
	operate(t, w, db, pgqrs.SQLite)

	exec(fmt.Sprintf(fillSQLite, manyMessages...))
	p.when = "a table that was never analyzed"
	operate(t, w, db, pgqrs.SQLite)
	exec(`ANALYZE`)
	p.when = "an analyzed table"
	operate(t, w, db, pgqrs.SQLite)
	p.when = "a shared database"
	operateShared(t, w, db, pgqrs.SQLite)
}

func TestGroupsOnSQLite(t *testing.T) {
	c, err := (&sqlitedriver.SQLite{}).OpenConnector(sqlite.URI(t, "_pragma=journal_mode(wal)&_pragma=synchronous(off)"))
	must(t, err)
	p := &sqlitePlans{t: t, few: map[string]int{}, failed: map[string]bool{}}
	w := &watcher{Connector: c, look: p.look}
	w.reset()
	db := watchedDB(t, w)
	must(t, pgqrs.New(db, pgqrs.SQLite).Install(t.Context()))
	planGroups(t, w, db, pgqrs.SQLite, [][2]string{{"a table that was never analyzed", ""}, {"an analyzed table", "ANALYZE"}}, func(when string) { p.when = when })
}

// A sqlitePlans counts the steps of SQLite's virtual machine for a statement. It compares the steps
// on a full table with those on a small one.
type sqlitePlans struct {
	t      *testing.T
	when   string         // the situation, or empty on the small table
	few    map[string]int // the most steps of each tag on the small table
	failed map[string]bool
}

func (p *sqlitePlans) look(_ context.Context, c driver.Conn, tag, text string, args []driver.NamedValue) error {
	conn := rawSQLite(c)
	plan, err := explain(conn, text)
	if err != nil {
		return err
	}
	if tag == "message.claim" {
		p.checkClaim(plan)
	}
	steps, err := count(conn, text, args)
	if err != nil {
		return err
	}
	what := tag + " on " + p.when
	if p.when == "" {
		p.few[tag] = max(p.few[tag], steps)
		return nil
	}
	// Reading a message takes some 40 steps, and claiming or renewing one some 120.
	limit := int64(2*p.few[tag]) + 1000 + 100*reads[tag]
	for _, arg := range args {
		switch v := arg.Value.(type) {
		case string: // possibly a list of leases
			limit += 200 * int64(strings.Count(v, "["))
		case int: // how many to claim
			limit += 200 * int64(v)
		}
	}
	if int64(steps) > limit && !p.failed[what] {
		p.failed[what] = true
		p.t.Errorf("%s: %d steps, and %d on a small table; want %d at most\n%s", what, steps, p.few[tag], limit, plan)
	}
	return nil
}

func rawSQLite(c driver.Conn) *sqlite3.Conn { return c.(interface{ Raw() *sqlite3.Conn }).Raw() }

var claimBand = regexp.MustCompile(`SEARCH pgqrs_messages USING INDEX pgqrs_messages_claim \(queue_id=\? AND priority=\? AND vt<\?\)`)

// checkClaim wants the claim to read the four priorities by ranges of the index, in its order.
func (p *sqlitePlans) checkClaim(plan string) {
	due, _, _ := strings.Cut(plan, "MATERIALIZE crashed")
	if n := len(claimBand.FindAllString(plan, -1)); n != 4 || strings.Contains(plan, "SCAN pgqrs_messages") {
		p.t.Errorf("the claim reads %d priorities by the index, and must not scan; want 4\n%s", n, plan)
	}
	if strings.Contains(due, "TEMP B-TREE") {
		p.t.Errorf("the claim sorts what is due\n%s", plan)
	}
}

// explain returns the text of a statement's plan.
func explain(conn *sqlite3.Conn, text string) (string, error) {
	stmt, _, err := conn.Prepare("EXPLAIN QUERY PLAN " + text)
	if err != nil {
		return "", err
	}
	var plan strings.Builder
	for stmt.Step() {
		fmt.Fprintf(&plan, "%d %s\n", stmt.ColumnInt(1), stmt.ColumnText(3))
	}
	return plan.String(), errors.Join(stmt.Err(), stmt.Close())
}

// count executes a statement and rolls it back. It returns the number of steps.
func count(conn *sqlite3.Conn, text string, args []driver.NamedValue) (steps int, err error) {
	if err := conn.Exec("SAVEPOINT look"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Exec("ROLLBACK TO look"), conn.Exec("RELEASE look")) }()
	stmt, _, err := conn.Prepare(text)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stmt.Close()) }()
	for _, arg := range args {
		if err := bind(stmt, arg); err != nil {
			return 0, err
		}
	}
	for stmt.Step() {
	}
	if err := stmt.Err(); err != nil {
		return 0, err
	}
	if stmt.Status(sqlite3.STMTSTATUS_REPREPARE, false) > 0 {
		return 0, errors.New("SQLite compiles it again whenever an argument changes")
	}
	return stmt.Status(sqlite3.STMTSTATUS_VM_STEP, false), nil
}

func bind(stmt *sqlite3.Stmt, arg driver.NamedValue) error {
	switch v := arg.Value.(type) {
	case nil:
		return stmt.BindNull(arg.Ordinal)
	case string:
		return stmt.BindText(arg.Ordinal, v)
	case int64:
		return stmt.BindInt64(arg.Ordinal, v)
	case int:
		return stmt.BindInt(arg.Ordinal, v)
	case bool:
		return stmt.BindBool(arg.Ordinal, v)
	default:
		return fmt.Errorf("argument %d is a %T", arg.Ordinal, v)
	}
}
