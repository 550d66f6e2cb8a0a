package pgqrstest

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

var verifyCases = []testcase{
	{"Verify changes nothing and names all that is missing before Install", "a check before a deployment would lie, or deploy by itself", verifyEmpty},
	{"Verify names a missing index, column and table, and Install brings them back", "a queue that crawls since somebody dropped an index would look healthy, and the advice to call Install would be wrong", verifyMissing},
	{"Verify names the concurrency model and finds nothing to warn of in a database set up as advised", "an operator could not tell whether two processes may write at once", verifyModel},
	{"Verify warns of a setting that fails calls or loses data, and of a pool of one connection", "a queue that forgets what it acknowledged, or a handler that waits for itself, would be found out in production", verifyWarns},
	{"what is written on a connection after Verify and Install looked at the schema there is committed", "messages would be lost with the connection, though their ids were returned", verifyHarmless},
}

// wantComplete checks that Verify finds nothing wrong.
func wantComplete(t *testing.T, s *pgqrs.Store) {
	t.Helper()
	r := value(s.Verify(t.Context()))(t)
	if !r.OK() || len(r.Missing)+len(r.Newer)+len(warnings(r)) > 0 || r.Schema != r.Library || r.Library < 2 {
		t.Fatalf("Verify: OK is %v, report %+v; want nothing wrong", r.OK(), r)
	}
	if r.Dialect != s.Dialect() || !strings.ContainsAny(r.Engine, "123456789") {
		t.Fatalf("Verify: dialect %q, engine %q; want the Store's dialect and a version", r.Dialect, r.Engine)
	}
}

// warnings returns what Verify warns of, but for a server whose only data is a test's.
func warnings(r pgqrs.Report) []string {
	return slices.DeleteFunc(slices.Clone(r.Warnings), func(w string) bool { return strings.HasPrefix(w, "fsync is off: ") })
}

var allTables = []string{"pgqrs_migrations", "pgqrs_queues", "pgqrs_workers", "pgqrs_messages", "pgqrs_workflows", "pgqrs_workflow_runs", "pgqrs_workflow_steps"}

func verifyEmpty(t *testing.T, e *env) {
	s := e.blank(t)
	r := value(s.Verify(t.Context()))(t)
	equal(t, "OK", r.OK(), false)
	equal(t, "schema version", r.Schema, 0)
	for _, table := range allTables {
		if !slices.Contains(r.Missing, "table "+table) {
			t.Errorf("missing: %v; want table %s among them", r.Missing, table)
		}
	}
	_, err := s.Queues(t.Context())
	wantError(t, err, pgqrs.ErrNotInstalled)
}

func verifyMissing(t *testing.T, e *env) {
	for _, c := range []struct{ text, want string }{
		{`DROP INDEX pgqrs_messages_claim`, "index pgqrs_messages_claim of table pgqrs_messages"},
		{`ALTER TABLE pgqrs_queues DROP COLUMN paused_at`, "column paused_at of table pgqrs_queues"},
		{`DROP TABLE pgqrs_workflow_steps`, "table pgqrs_workflow_steps"},
	} {
		statement(t, e.db, c.text)
		r := value(e.store.Verify(t.Context()))(t)
		equal(t, "OK after "+c.text, r.OK(), false)
		if r.Missing[0] != c.want {
			t.Errorf("after %s: missing: %v; want %q first", c.text, r.Missing, c.want)
		}
		for _, missing := range r.Missing {
			if table := c.want[strings.LastIndex(c.want, " "):]; !strings.HasSuffix(missing, table) {
				t.Errorf("after %s: missing: %v; want nothing of other tables", c.text, r.Missing)
			}
		}
		must(t, e.store.Install(t.Context()))
		wantComplete(t, e.store)
	}
}

func verifyModel(t *testing.T, e *env) {
	models := map[pgqrs.Dialect]string{pgqrs.Postgres: "multi-process", pgqrs.SQLite: "single-writer", pgqrs.Turso: "single-writer"}
	want := models[e.dialect]
	if e.config.Concurrent {
		want = "experimental"
	}
	r := value(e.store.Verify(t.Context()))(t)
	equal(t, "concurrency", r.Concurrency, want)
	equalSlices(t, "warnings", warnings(r), nil)
}

// forgetful makes the only connection of a pool worth a warning.
var forgetful = map[pgqrs.Dialect]struct{ text, warning string }{
	pgqrs.Postgres: {`SET synchronous_commit = off`, "synchronous_commit is off: "},
	pgqrs.SQLite:   {`PRAGMA busy_timeout = 0`, "busy_timeout is 0: "},
	pgqrs.Turso:    {`PRAGMA busy_timeout = 0`, "busy_timeout is 0: "},
}

func verifyWarns(t *testing.T, e *env) {
	s := e.blank(t)
	must(t, s.Install(t.Context()))
	s.DB().SetMaxOpenConns(1)
	forgetful := forgetful[e.dialect]
	if e.dialect == pgqrs.Turso {
		var mode string
		must(t, s.DB().QueryRowContext(t.Context(), "PRAGMA journal_mode").Scan(&mode))
		if mode == "mvcc" {
			forgetful.text, forgetful.warning = `PRAGMA busy_timeout = 5000`, "busy_timeout is 5000: "
		}
	}
	statement(t, s.DB(), forgetful.text)
	r := value(s.Verify(t.Context()))(t)
	equal(t, "OK", r.OK(), true)
	for _, want := range []string{forgetful.warning, "SetMaxOpenConns(1)"} {
		if !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, want) }) {
			t.Errorf("warnings are %q; want one with %q", r.Warnings, want)
		}
	}
	equal(t, "warnings", len(warnings(r)), 2)
}

func verifyHarmless(t *testing.T, e *env) {
	e.db.SetMaxOpenConns(1)
	for _, look := range []func() error{
		func() error { _, err := e.store.Verify(t.Context()); return err },
		func() error { return e.store.Install(t.Context()) },
	} {
		must(t, look())
		id := enqueue(t, jobs(e), "x")
		e.db.SetMaxIdleConns(-1) // closes the connection
		equal(t, "state", e.info(t, id).State, pgqrs.Ready)
		e.db.SetMaxIdleConns(1)
	}
}
