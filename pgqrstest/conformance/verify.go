package conformance

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var verifyCases = []testcase{
	{"Verify changes nothing and names all that is missing before Install", "a check before a deployment would lie, or deploy by itself", verifyEmpty},
	{"Verify names a missing index, column and table, and Install brings them back", "a queue that crawls since somebody dropped an index would look healthy, and the advice to call Install would be wrong", verifyMissing},
	{"Verify names the concurrency model and finds nothing to warn of in a database set up as advised", "an operator could not tell whether two processes may write at once", verifyModel},
	{"Verify warns of a setting that fails calls or loses data, and of a pool of one connection", "a queue that forgets what it acknowledged, or a handler that waits for itself, would be found out in production", verifyWarns},
	{"Verify warns of a read-only database", "a replica that was taken for the primary would be found out by its first enqueue", verifyReadOnly},
	{"Verify, and the log of other workers, name queues with ready messages that no live worker takes", "a queue whose name is spelled otherwise in the worker would fill up in silence", verifyUnattended},
	{"Install, Verify and Run find out that the database is not what the dialect says", "a wrong dialect would show as a syntax error, or lose what is written", verifyMistaken},
	{"a worker logs once, when it begins, what Verify warns of", "a database that fails calls would run for months without a word", verifyLogged},
	{"what is written on a connection after Verify and Install looked at the schema there is committed", "messages would be lost with the connection, though their ids were returned", verifyHarmless},
}

// wantComplete fails the test unless Verify finds nothing wrong.
func wantComplete(t *testing.T, s *pgqrs.Store) {
	t.Helper()
	r := value(s.Verify(t.Context()))(t)
	if !r.OK() || len(r.Missing)+len(r.Newer)+len(warnings(r)) > 0 || r.SchemaVersion != r.LibraryVersion || r.LibraryVersion < 2 {
		t.Fatalf("Verify: OK is %v, report %+v; want nothing wrong", r.OK(), r)
	}
	if r.Dialect != s.Dialect() || !strings.ContainsAny(r.Engine, "123456789") {
		t.Fatalf("Verify: dialect %q, engine %q; want the Store's dialect and a version", r.Dialect, r.Engine)
	}
}

// warnings returns Verify's warnings without three that tests provoke: a test server without fsync,
// the engine version of a driver, and messages that no worker takes.
func warnings(r pgqrs.Report) []string {
	return slices.DeleteFunc(slices.Clone(r.Warnings), func(w string) bool {
		return strings.HasPrefix(w, "fsync is off: ") || strings.Contains(w, "WAL-reset bug") || strings.HasSuffix(w, "no live worker takes them")
	})
}

var allTables = []string{"pgqrs_migrations", "pgqrs_queues", "pgqrs_workers", "pgqrs_messages", "pgqrs_workflows", "pgqrs_workflow_runs", "pgqrs_workflow_steps"}

func verifyEmpty(t *testing.T, e *env) {
	s := e.blank(t)
	r := value(s.Verify(t.Context()))(t)
	equal(t, "OK", r.OK(), false)
	equal(t, "schema version", r.SchemaVersion, 0)
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
	models := map[pgqrs.Dialect]pgqrs.Writers{pgqrs.Postgres: pgqrs.ManyWriters, pgqrs.SQLite: pgqrs.SingleWriter, pgqrs.Turso: pgqrs.SingleWriter}
	want := models[e.dialect]
	if e.config.Concurrent {
		want = pgqrs.ConcurrentWriters
	}
	r := value(e.store.Verify(t.Context()))(t)
	equal(t, "writers", r.Writers, want)
	equalSlices(t, "warnings", warnings(r), nil)
}

// forgetful gives the only connection of a pool a setting that Verify warns of.
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

func verifyReadOnly(t *testing.T, e *env) {
	s := e.blank(t)
	must(t, s.Install(t.Context()))
	s.DB().SetMaxOpenConns(1)
	statement(t, s.DB(), readOnly[e.dialect])
	r := value(s.Verify(t.Context()))(t)
	equal(t, "OK", r.OK(), true)
	if !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.HasPrefix(w, "read_only is ") }) {
		t.Errorf("warnings are %q; want one that says read_only", r.Warnings)
	}
}

// unattended returns Verify's warnings about queues without workers.
func (e *env) unattended(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(value(e.store.Verify(t.Context()))(t).Warnings, func(w string) bool { return !strings.HasSuffix(w, "no live worker takes them") })
}

func verifyUnattended(t *testing.T, e *env) {
	want := func(what string, queues ...string) {
		t.Helper()
		got := e.unattended(t)
		equal(t, "queues "+what, len(got), len(queues))
		for i, name := range queues {
			wantText(t, "warning "+what, got[i], fmt.Sprintf("queue %q has ready messages", name))
		}
	}
	a, b := pgqrs.NewQueue[string](e.store, "a"), pgqrs.NewQueue[string](e.store, "b")
	want("in an empty database")
	enqueue(t, b, "x", pgqrs.Priority(2))
	enqueue(t, a, "x")
	enqueue(t, pgqrs.NewQueue[string](e.store, "later"), "x", pgqrs.Delay(time.Hour))
	want("without workers", "a", "b")
	must(t, e.store.PauseQueue(t.Context(), "b"))
	want("when one is paused", "a")
	must(t, e.store.ResumeQueue(t.Context(), "b"))

	consumer := pgqrs.NewQueue[string](e.newStore(t, pgqrs.Config{}), "b")
	dequeueOne(t, consumer)
	enqueue(t, b, "y")
	want("with a consumer of one", "a")
	row := handRow(t, e, "b")
	must(t, e.store.SuspendWorker(t.Context(), row.ID))
	want("when that is suspended", "a", "b")
	must(t, e.store.ResumeWorker(t.Context(), row.ID))
	equal(t, "workers", e.depth(t, "b").Workers, 1)
	pgqrstest.Advance(t, e.store, time.Minute)
	want("when that has been silent for a minute", "a", "b")
	equal(t, "workers", e.depth(t, "b").Workers, 0)

	h, got := handling(a)
	start(t, fast(h))
	receive(t, "a worker takes what is there", got)
	want("with a worker for one", "b")
	eventually(t, "its log says so", func() bool {
		return strings.Contains(e.log.String(), `msg="pgqrs: a queue has ready messages, and no live worker takes them"`)
	})
	if log := e.log.String(); !strings.Contains(log, " queue=b ") || strings.Contains(log, " queue=a oldest=") {
		t.Errorf("logged:\n%s\nwant queue b, and not queue a", log)
	}
}

func verifyMistaken(t *testing.T, e *env) {
	wrong := map[pgqrs.Dialect][]pgqrs.Dialect{
		pgqrs.Postgres: {pgqrs.SQLite, pgqrs.Turso},
		pgqrs.SQLite:   {pgqrs.Postgres},
		pgqrs.Turso:    {pgqrs.Postgres},
	}[e.dialect]
	engine := value(e.store.Verify(t.Context()))(t).Engine
	if strings.HasPrefix(engine, "Turso ") {
		// SQLite's statements leave a connection unable to commit there
		wrong = append(wrong, pgqrs.SQLite)
	}
	for _, d := range wrong {
		s := pgqrs.New(e.db, d)
		h, _ := handling(pgqrs.NewQueue[string](s, "q"))
		for what, do := range map[string]func() error{
			"Install": func() error { return s.Install(t.Context()) },
			"Verify":  func() error { _, err := s.Verify(t.Context()); return err },
			"Run":     func() error { return fast(h).Run(t.Context()) },
		} {
			err := do()
			wantError(t, err, pgqrs.ErrUnsupported)
			wantText(t, fmt.Sprint("error of ", what, " as ", d), err.Error(), "this is "+engine+", not ")
		}
		must(t, s.Close())
	}
	wantWorking(t, e.store)
}

func verifyLogged(t *testing.T, e *env) {
	s := e.blank(t)
	must(t, s.Install(t.Context()))
	must(t, s.Close())
	s = e.config.New(s.DB(), e.dialect)
	log := &logs{}
	c := e.config
	c.Logger = log.logger(t)
	s = c.New(s.DB(), e.dialect)
	s.DB().SetMaxOpenConns(1) // Verify warns of this too
	h, got := handling(pgqrs.NewQueue[string](s, "a"))
	const said = `warning="the pool has one connection (SetMaxOpenConns(1))`
	stop := start(t, fast(h))
	eventually(t, "it is logged", func() bool { return log.has(said) })
	for range 3 {
		enqueue(t, pgqrs.NewQueue[string](s, "a"), "x")
		receive(t, "a message is handled", got)
	}
	must(t, stop())
	equal(t, "times it was logged", strings.Count(log.String(), said), 1)
	must(t, s.Close())
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
