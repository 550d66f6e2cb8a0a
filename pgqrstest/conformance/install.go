package conformance

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var installCases = []testcase{
	{"Install makes everything on an empty database, and again does nothing", "an application that installs at every start would fail at its second", installTwice},
	{"ten Stores may install at once", "a fleet that starts up together would crash on its first deployment", installTogether},
	{"Config.Concurrent works after Install, or Install says that the database has no BEGIN CONCURRENT", "the setting would show as a syntax error at the first enqueue", installConcurrent},
	{"a newer schema that still fits is used and listed", "a rolling deployment would stop the processes that are not upgraded yet", installNewer},
	{"a newer schema that does not fit is refused with the advice to upgrade", "an old process would damage what it does not understand", installTooNew},
	{"Uninstall removes everything, and Install works again", "trying the library out would leave its tables behind", installUninstall},
	{"Uninstall refuses tables that pgqrs 0.15 may have installed", "the other library's queues would be dropped with ours", installUninstallAdopted},
	{"Install and Uninstall refuse what has a name of the library's and is the application's, and leave it as it is", "an application's table would be written to, or its type be dropped", installOccupied},
	{"Install says which index it cannot make because its name is taken", "a queue would crawl for the lack of an index that Install says is there", installOccupiedIndex},
	{"Uninstall leaves a type that was there before Install, and one that the application uses", "an application's type would be dropped, or Uninstall fail halfway", installTypes},
	{"Install says what it lacks: a schema that search_path names, or a right", "whoever calls Install would be told to call Install", installRefused},
	{"every call on a database without the schema matches ErrNotInstalled and names Install", "whoever forgot Install would read a driver's error about a table they have never heard of", installMissing},
	{"Install adopts the tables of pgqrs 0.15 with what is in them", "moving from the other library would lose messages", installAdopt},
	{"Install and Uninstall are refused in a caller's transaction", "the schema would be half made in a transaction that is rolled back", installInTx},
	{"the migration files, run by another tool, amount to Install", "applications that run all migrations by one tool could not use the library", installByHand},
	{"two schemas in one database do not see each other", "two applications in one database would work each other's messages", installSchemas},
	{"Uninstall looks for the tables of pgqrs 0.15 in its own schema", "an application with such a table elsewhere could not uninstall, or the other library's tables would go", installSchemasAdopted},
	{"a Config.Schema that is no plain identifier is refused by every call", "a name from a configuration file would run as SQL", installBadSchema},
	{"Config.Schema is refused where there are no schemas", "the setting would be ignored in silence", installNoSchemas},
	{"a closed pool is a clear error at each call", "an application would hang or panic while it shuts down", installClosed},
	{"a read-only database is a clear error at each call that writes", "a replica that was taken for the primary would seem to take work", installReadOnly},
}

const longLease = time.Minute

// blank returns a Store on another database, with nothing installed.
func (e *env) blank(t *testing.T) *pgqrs.Store {
	t.Helper()
	db, dialect := e.open(t)
	c := e.config
	c.Logger = e.log.logger(t)
	return c.New(db, dialect)
}

// statement runs SQL of the test's own. It is a query because go-libsql refuses to execute a
// statement that returns rows.
func statement(t *testing.T, db *sql.DB, text string) {
	t.Helper()
	rows, err := db.QueryContext(context.WithoutCancel(t.Context()), text)
	must(t, err)
	for rows.Next() {
	}
	must(t, errors.Join(rows.Err(), rows.Close()))
}

// wantWorking sends a message through a Store.
func wantWorking(t *testing.T, s *pgqrs.Store) {
	t.Helper()
	q := pgqrs.NewQueue[string](s, "works")
	id := enqueue(t, q, "yes")
	m := dequeueOne(t, q)
	equal(t, "id", m.ID, id)
	must(t, q.Ack(t.Context(), m))
}

func installTwice(t *testing.T, e *env) {
	s := e.blank(t)
	must(t, s.Install(t.Context()))
	wantComplete(t, s)
	wantWorking(t, s)
	must(t, s.Install(t.Context()))
	wantComplete(t, s)
	equal(t, "archived messages after the second Install", value(s.Queues(t.Context(), "works"))(t)[0].Archived, 1)
	must(t, s.Close())
}

func installTogether(t *testing.T, e *env) {
	db, dialect := e.open(t)
	done := make(chan error)
	for range 10 {
		go func() { done <- e.config.New(db, dialect).Install(t.Context()) }()
	}
	for range 10 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	wantComplete(t, e.config.New(db, dialect))
}

func installConcurrent(t *testing.T, e *env) {
	if e.dialect == pgqrs.Postgres {
		t.Skip("PostgreSQL has no such setting")
	}
	db, _ := e.open(t)
	s := pgqrs.Config{Concurrent: true, Logger: e.log.logger(t)}.New(db, pgqrs.Turso)
	err := s.Install(t.Context())
	if err == nil {
		equal(t, "writers", value(s.Verify(t.Context()))(t).Writers, pgqrs.ConcurrentWriters)
		wantWorking(t, s)
		must(t, s.Close())
		return
	}
	_, enqueue := pgqrs.NewQueue[string](s, "q").Enqueue(t.Context(), "x")
	for _, err := range []error{err, enqueue} {
		wantError(t, err, pgqrs.ErrUnsupported)
		if !strings.Contains(err.Error(), "BEGIN CONCURRENT") {
			t.Errorf("error is %v; want it to name BEGIN CONCURRENT", err)
		}
	}
	r := value(s.Verify(t.Context()))(t)
	if found := warnings(r); len(found) != 1 || !strings.Contains(found[0], "BEGIN CONCURRENT") {
		t.Errorf("warnings are %q; want one that names BEGIN CONCURRENT", found)
	}
}

func installNewer(t *testing.T, e *env) {
	statement(t, e.db, `INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (990001, 'future', 1)`)
	must(t, e.store.Install(t.Context()))
	r := value(e.store.Verify(t.Context()))(t)
	equal(t, "OK", r.OK(), true)
	equal(t, "schema version", r.SchemaVersion, 990001)
	equalSlices(t, "newer", r.Newer, []string{"990001 (future)"})
	equal(t, "warnings", len(warnings(r)), 0)
	wantWorking(t, e.store)
}

func installTooNew(t *testing.T, e *env) {
	statement(t, e.db, `INSERT INTO pgqrs_migrations (version, name, oldest) VALUES (990001, 'future', 990001)`)
	err := e.store.Install(t.Context())
	wantError(t, err, pgqrs.ErrUnsupported)
	if !strings.Contains(err.Error(), "upgrade") || !strings.Contains(err.Error(), "990001") {
		t.Errorf("error is %v; want it to name the version and to say upgrade", err)
	}
	r := value(e.store.Verify(t.Context()))(t)
	equal(t, "OK", r.OK(), false)
	equalSlices(t, "newer", r.Newer, []string{"990001 (future)"})
	if !strings.Contains(fmt.Sprint(r.Warnings), "upgrade") {
		t.Errorf("warnings are %v; want one that says upgrade", r.Warnings)
	}
}

func installUninstall(t *testing.T, e *env) {
	wantWorking(t, e.store)
	must(t, e.store.Close())
	s := e.newStore(t, pgqrs.Config{})
	must(t, s.Uninstall(t.Context()))
	r := value(s.Verify(t.Context()))(t)
	for _, table := range allTables {
		if !slices.Contains(r.Missing, "table "+table) {
			t.Errorf("missing after Uninstall: %v; want table %s among them", r.Missing, table)
		}
	}
	must(t, s.Uninstall(t.Context()))
	must(t, s.Install(t.Context()))
	wantComplete(t, s)
	wantWorking(t, s)
}

func installUninstallAdopted(t *testing.T, e *env) {
	for _, table := range []string{"_sqlx_migrations", "pgqrs_schema_version"} {
		s := e.blank(t)
		must(t, s.Install(t.Context()))
		statement(t, s.DB(), `CREATE TABLE `+table+` (version BIGINT)`)
		err := s.Uninstall(t.Context())
		wantError(t, err, pgqrs.ErrState)
		if !strings.Contains(err.Error(), table) {
			t.Errorf("error is %v; want it to name %s", err, table)
		}
		wantComplete(t, s)
	}
	must(t, e.store.Uninstall(t.Context()))
}

// occupied lists objects of an application that have the library's names.
var occupied = map[pgqrs.Dialect][]struct{ text, name, what string }{
	pgqrs.Postgres: {
		{`CREATE TABLE pgqrs_queues (id BIGINT, title TEXT)`, "pgqrs_queues", "no column queue_name"},
		{`CREATE TABLE pgqrs_groups (id BIGINT)`, "pgqrs_groups", "no column queue_id"},
		{`CREATE TABLE pgqrs_migrations (id BIGINT)`, "pgqrs_migrations", "no column version"},
		{`CREATE VIEW pgqrs_messages AS SELECT 1 AS id`, "pgqrs_messages", "view"},
		{`CREATE SEQUENCE pgqrs_workers`, "pgqrs_workers", "relation"},
		{`CREATE TYPE worker_status AS ENUM ('busy', 'idle')`, "worker_status", "no value ready"},
		{`CREATE TYPE worker_status AS ENUM ('ready', 'polling', 'suspended', 'stopped')`, "worker_status", "no value interrupted"},
		{`CREATE TABLE worker_status (id BIGINT)`, "worker_status", "table"},
		{`CREATE DOMAIN worker_status AS TEXT`, "worker_status", "no enumeration"},
		{`CREATE TYPE pgqrs_workflow_status AS ENUM ('QUEUED')`, "pgqrs_workflow_status", "no value RUNNING"},
	},
	pgqrs.SQLite: occupiedFile,
	pgqrs.Turso:  occupiedFile,
}

var occupiedFile = []struct{ text, name, what string }{
	{`CREATE TABLE pgqrs_queues (id INTEGER, title TEXT)`, "pgqrs_queues", "no column queue_name"},
	{`CREATE TABLE pgqrs_groups (id INTEGER)`, "pgqrs_groups", "no column queue_id"},
	{`CREATE TABLE pgqrs_migrations (id INTEGER)`, "pgqrs_migrations", "no column version"},
	{`CREATE VIEW pgqrs_messages AS SELECT 1 AS id`, "pgqrs_messages", "view"},
}

func installOccupied(t *testing.T, e *env) {
	for _, c := range occupied[e.dialect] {
		s := e.blank(t)
		statement(t, s.DB(), c.text)
		for _, do := range []func(context.Context) error{s.Install, s.Uninstall, s.Install} {
			err := do(t.Context())
			wantError(t, err, pgqrs.ErrState)
			wantText(t, "error after "+c.text, err.Error(), c.name, c.what, map[bool]string{true: "Config.Schema", false: "file of its own"}[e.dialect == pgqrs.Postgres])
			if errors.Is(err, pgqrs.ErrNotInstalled) {
				t.Errorf("%v matches ErrNotInstalled, which asks for Install", err)
			}
		}
		r := value(s.Verify(t.Context()))(t)
		equal(t, "OK", r.OK(), false)
		wantText(t, "warnings", fmt.Sprint(r.Warnings), c.name, c.what)
		statement(t, s.DB(), strings.Replace(c.text, "CREATE", "DROP", 1)[:strings.Index(c.text, c.name)-len("CREATE")+len("DROP")+len(c.name)])
		must(t, s.Install(t.Context()))
		wantWorking(t, s)
		must(t, s.Close())
	}
}

func installOccupiedIndex(t *testing.T, e *env) {
	s := e.blank(t)
	statement(t, s.DB(), `CREATE TABLE others (id INTEGER)`)
	statement(t, s.DB(), `CREATE INDEX pgqrs_messages_claim ON others (id)`)
	err := s.Install(t.Context())
	wantError(t, err, pgqrs.ErrState)
	wantText(t, "error", err.Error(), "index pgqrs_messages_claim of table pgqrs_messages")
	if missing := value(s.Verify(t.Context()))(t).Missing; !slices.Contains(missing, "table pgqrs_messages") {
		t.Errorf("missing after an Install that failed: %v; want everything", missing)
	}
	statement(t, s.DB(), `DROP INDEX pgqrs_messages_claim`)
	must(t, s.Install(t.Context()))
	wantComplete(t, s)
}

func installTypes(t *testing.T, e *env) {
	if e.dialect != pgqrs.Postgres {
		t.Skip("PostgreSQL alone has types")
	}
	types := func(s *pgqrs.Store) (n int) {
		t.Helper()
		must(t, s.DB().QueryRowContext(t.Context(), `SELECT count(*) FROM pg_type WHERE oid IN (to_regtype('worker_status'), to_regtype('pgqrs_workflow_status'))`).Scan(&n))
		return n
	}
	before := e.blank(t)
	statement(t, before.DB(), `CREATE TYPE worker_status AS ENUM ('stopped', 'ready', 'polling', 'suspended', 'interrupted', 'retired')`)
	must(t, before.Install(t.Context()))
	wantWorking(t, before)
	must(t, before.Uninstall(t.Context()))
	equal(t, "types that were there before", types(before), 1)

	used := e.blank(t)
	must(t, used.Install(t.Context()))
	statement(t, used.DB(), `CREATE TABLE machines (status worker_status)`)
	must(t, used.Uninstall(t.Context()))
	equal(t, "types that the application uses", types(used), 1)
	must(t, used.Install(t.Context()))
	wantWorking(t, used)
	statement(t, used.DB(), `DROP TABLE machines`)
	must(t, used.Uninstall(t.Context()))
	equal(t, "types in the end", types(used), 0)
}

func installRefused(t *testing.T, e *env) {
	if e.dialect != pgqrs.Postgres {
		t.Skip("PostgreSQL alone has schemas and rights")
	}
	s := e.blank(t)
	s.DB().SetMaxOpenConns(1)
	statement(t, s.DB(), `SET search_path = ''`)
	err := s.Install(t.Context())
	wantError(t, err, pgqrs.ErrUnsupported)
	wantText(t, "error without a schema", err.Error(), "search_path", "Config.Schema")
	if errors.Is(err, pgqrs.ErrNotInstalled) {
		t.Errorf("%v matches ErrNotInstalled, which asks for Install", err)
	}

	s = e.blank(t)
	s.DB().SetMaxOpenConns(1)
	role := "pgqrs_" + strings.ToLower(rand.Text())
	statement(t, s.DB(), `CREATE ROLE `+role)
	t.Cleanup(func() { statement(t, e.db, `DROP ROLE `+role) })
	var schema string
	must(t, s.DB().QueryRowContext(t.Context(), `SELECT current_schema()`).Scan(&schema))
	statement(t, s.DB(), `GRANT USAGE ON SCHEMA "`+schema+`" TO `+role)
	statement(t, s.DB(), `SET ROLE `+role)
	err = s.Install(t.Context())
	wantText(t, "error without a right", fmt.Sprint(err), "lacks a right that Install needs", "permission denied")
	if errors.Is(err, pgqrs.ErrNotInstalled) {
		t.Errorf("%v matches ErrNotInstalled, which asks for Install", err)
	}
	statement(t, s.DB(), `RESET ROLE`)
	statement(t, s.DB(), `REVOKE USAGE ON SCHEMA "`+schema+`" FROM `+role)
}

func installMissing(t *testing.T, e *env) {
	s := e.blank(t)
	wantEach(t, t.Context(), append(everyCall(s, "q"), runWorker(s, "q")), pgqrs.ErrNotInstalled, "Install")
	tx := value(s.DB().BeginTx(t.Context(), nil))(t)
	defer tx.Rollback()
	_, err := pgqrs.NewQueue[string](s, "q").WithTx(tx).Enqueue(t.Context(), "x")
	wantError(t, err, pgqrs.ErrNotInstalled)
}

// migrationFile returns the statements of the dialect's migration file whose
// name begins with prefix.
func migrationFile(t *testing.T, d pgqrs.Dialect, prefix string) []string {
	t.Helper()
	names := value(fs.Glob(d.Migrations(), prefix+"*.up.sql"))(t)
	equal(t, "files "+prefix+"*.up.sql", len(names), 1)
	text := string(value(fs.ReadFile(d.Migrations(), names[0]))(t))
	if !strings.HasPrefix(text, "-- +goose Up\n") {
		t.Fatalf("%s does not begin with goose's marker", names[0])
	}
	var list []string
	for _, block := range strings.Split(text, "-- +goose StatementBegin\n")[1:] {
		statement, _, found := strings.Cut(block, "\n-- +goose StatementEnd")
		equal(t, "statement has an end", found, true)
		list = append(list, statement)
	}
	return list
}

func installAdopt(t *testing.T, e *env) {
	for _, half := range []bool{false, true} {
		s := e.blank(t)
		for _, text := range migrationFile(t, e.dialect, "0001") {
			statement(t, s.DB(), text)
		}
		statement(t, s.DB(), `INSERT INTO pgqrs_queues (queue_name) VALUES ('old')`)
		statement(t, s.DB(), `INSERT INTO pgqrs_messages (queue_id, payload) SELECT id, '{"n": 1}' FROM pgqrs_queues`)
		statement(t, s.DB(), `DROP TABLE pgqrs_migrations`) // pgqrs 0.15 does not have it
		if half {                                           // as an interrupted earlier attempt may leave it
			statement(t, s.DB(), `ALTER TABLE pgqrs_messages ADD COLUMN last_error TEXT`)
		}
		_, err := s.Queues(t.Context())
		wantError(t, err, pgqrs.ErrNotInstalled)
		equal(t, "OK before Install", value(s.Verify(t.Context()))(t).OK(), false)
		must(t, s.Install(t.Context()))
		wantComplete(t, s)
		m := dequeueOne(t, pgqrs.NewQueue[map[string]int](s, "old"))
		equal(t, "payload", m.Payload["n"], 1)
		equal(t, "attempt", m.Attempt, 1)
		must(t, s.Close())
	}
}

func installInTx(t *testing.T, e *env) {
	tx := value(e.db.BeginTx(t.Context(), nil))(t)
	defer tx.Rollback()
	bound := e.store.WithTx(tx)
	wantError(t, bound.Install(t.Context()), pgqrs.ErrUnsupported)
	wantError(t, bound.Uninstall(t.Context()), pgqrs.ErrUnsupported)
	equal(t, "OK in the transaction", value(bound.Verify(t.Context()))(t).OK(), true)
}

func installByHand(t *testing.T, e *env) {
	s := e.blank(t)
	files := value(fs.Glob(e.dialect.Migrations(), "*.up.sql"))(t)
	for _, file := range files {
		for _, text := range migrationFile(t, e.dialect, strings.TrimSuffix(file, ".up.sql")) {
			statement(t, s.DB(), text)
		}
	}
	r := value(s.Verify(t.Context()))(t)
	equal(t, "OK", r.OK(), true)
	equal(t, "schema version", fmt.Sprintf("%04d", r.SchemaVersion), files[len(files)-1][:4])
	must(t, s.Install(t.Context())) // MVCC mode is no migration
	wantComplete(t, s)
	wantWorking(t, s)
	must(t, s.Close())
}

// schema returns a Store on a schema of its own, which is dropped when the test ends.
func (e *env) schema(t *testing.T, prefix string) *pgqrs.Store {
	t.Helper()
	name := prefix + rand.Text()
	s := e.newStore(t, pgqrs.Config{Schema: name})
	t.Cleanup(func() {
		_ = s.Close() // before its worker rows are gone
		statement(t, e.db, `DROP SCHEMA IF EXISTS "`+name+`" CASCADE`)
	})
	return s
}

// schemas skips the test on a database without schemas.
func (e *env) schemas(t *testing.T) {
	t.Helper()
	if e.dialect != pgqrs.Postgres {
		t.Skip("only PostgreSQL has schemas")
	}
}

func installSchemas(t *testing.T, e *env) {
	e.schemas(t)
	mixed, dollar := e.schema(t, "Mixed_Case_"), e.schema(t, "_with$dollar_")
	for _, s := range []*pgqrs.Store{mixed, dollar} {
		wantEach(t, t.Context(), everyCall(s, "q"), pgqrs.ErrNotInstalled, "Install")
		equal(t, "OK before Install", value(s.Verify(t.Context()))(t).OK(), false)
		must(t, s.Install(t.Context()))
		must(t, s.Install(t.Context()))
		wantComplete(t, s)
		wantWorking(t, s)
	}
	enqueue(t, pgqrs.NewQueue[int](mixed, "only here"), 1)
	equal(t, "queues in the one", len(value(mixed.Queues(t.Context()))(t)), 2)
	equal(t, "queues in the other", len(value(dollar.Queues(t.Context()))(t)), 1)
	equal(t, "queues in search_path", len(value(e.store.Queues(t.Context()))(t)), 0)
	must(t, mixed.Uninstall(t.Context()))
	wantComplete(t, dollar)
	wantComplete(t, e.store)
}

func installSchemasAdopted(t *testing.T, e *env) {
	e.schemas(t)
	s := e.schema(t, "own_")
	must(t, s.Install(t.Context()))
	statement(t, e.db, `CREATE TABLE _sqlx_migrations (version BIGINT)`) // elsewhere, in search_path
	wantError(t, e.store.Uninstall(t.Context()), pgqrs.ErrState)
	must(t, s.Uninstall(t.Context()))
}

func installBadSchema(t *testing.T, e *env) {
	e.schemas(t)
	for _, name := range []string{strings.Repeat("a", 64), "1abc", "$abc", "a-b", `a"b`, "a b", "a.b", "é", "a;DROP TABLE pgqrs_queues", "\x00"} {
		s := e.newStore(t, pgqrs.Config{Schema: name})
		wantEach(t, t.Context(), append(everyCall(s, "q"), installCalls(s)...), pgqrs.ErrUnsupported, "Config.Schema "+fmt.Sprintf("%q", name))
	}
	longest := e.schema(t, strings.Repeat("a", 63-len(rand.Text())))
	must(t, longest.Install(t.Context()))
	wantWorking(t, longest)
}

func installNoSchemas(t *testing.T, e *env) {
	if e.dialect == pgqrs.Postgres {
		t.Skip("PostgreSQL has schemas")
	}
	s := e.newStore(t, pgqrs.Config{Schema: "jobs"})
	wantEach(t, t.Context(), append(everyCall(s, "q"), installCalls(s)...), pgqrs.ErrUnsupported, `Config.Schema "jobs"`)
}

func installClosed(t *testing.T, e *env) {
	s := e.blank(t)
	must(t, s.Install(t.Context()))
	must(t, s.DB().Close())
	calls := append(everyCall(s, "q"), installCalls(s)...)
	wantEach(t, t.Context(), append(calls, runWorker(s, "q")), nil, "closed")
}

// readOnly makes the only connection of a pool refuse to write.
var readOnly = map[pgqrs.Dialect]string{
	pgqrs.Postgres: `SET default_transaction_read_only = on`,
	pgqrs.SQLite:   `PRAGMA query_only = 1`,
	pgqrs.Turso:    `PRAGMA query_only = 1`,
}

func installReadOnly(t *testing.T, e *env) {
	s := e.blank(t)
	must(t, s.Install(t.Context()))
	q := pgqrs.NewQueue[string](s, "q")
	deadLetter(t, q)
	enqueue(t, q, "ready")
	value(s.Delete(t.Context(), enqueue(t, pgqrs.NewQueue[string](s, "empty"), "x")))(t)
	must(t, s.Close())
	s.DB().SetMaxOpenConns(1)
	statement(t, s.DB(), readOnly[e.dialect])
	s = e.config.New(s.DB(), e.dialect)
	writing := []call{{"DropQueue of an empty queue", true, func(ctx context.Context) error { return s.DropQueue(ctx, "empty") }}}
	for _, c := range append(everyCall(s, "q"), runWorker(s, "q"), installCalls(s)[2]) {
		if c.name == "DropQueue" {
			continue // messages exist, so Install writes nothing
		}
		if c.writes {
			writing = append(writing, c)
		} else if err := c.run(t.Context()); err != nil {
			t.Errorf("%s: %v; want none", c.name, err)
		}
	}
	wantEach(t, t.Context(), writing, nil, "read-only", "readonly", "query_only")
	must(t, s.Install(t.Context()))
	equal(t, "OK", value(s.Verify(t.Context()))(t).OK(), true)
}
