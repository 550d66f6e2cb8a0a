//go:build unix

package interop_test

import (
	"database/sql"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var installProofs = []proof{
	{"Go adopts what Python installed, with what is in it, and Python goes on", adopt},
	{"both may install again, in any order, and nothing changes", again},
	{"several Go processes may adopt at once", adoptTogether},
	{"Go first: on SQLite Python installs on top, on PostgreSQL it works without, and its install fails and harms nothing", goFirst},
	{"Go adopts the tables of another schema by Config.Schema", adoptSchema},
	{"Uninstall refuses tables that Python installed", uninstall},
	{"what an adopted enumerated type lacked is there, and Verify and Install look after it", statuses},
}

func TestInstall(t *testing.T) { prove(t, installProofs) }

// ledger returns the migrations that Python has recorded.
func (p *pair) ledger(t *testing.T) string {
	t.Helper()
	rows := value(p.db.QueryContext(t.Context(), `SELECT version, description, success, checksum FROM _sqlx_migrations ORDER BY version`))(t)
	defer rows.Close()
	var list []string
	for rows.Next() {
		var version, description, success string
		var checksum []byte
		must(t, rows.Scan(&version, &description, &success, &checksum))
		list = append(list, strings.Join([]string{version, description, success, string(checksum)}, " "))
	}
	must(t, rows.Err())
	return strings.Join(list, "\n")
}

// wantWorking sends a message in each direction.
func (p *pair) wantWorking(t *testing.T) {
	t.Helper()
	q := pgqrs.NewQueue[string](p.store, "works")
	value(q.Enqueue(t.Context(), "to Python"))(t)
	p.py.run(t, `
		async def take(m):
			assert m.payload == "to Python", m.payload
		await pgqrs.consume(my.store, "works", take)
		await pgqrs.produce(my.store, "works", "to Go")
		await my.admin.verify()
	`, nil)
	ms := value(q.Dequeue(t.Context(), 10, time.Minute))(t)
	equal(t, "messages", len(ms), 1)
	equal(t, "payload", ms[0].Payload, "to Go")
	must(t, q.Ack(t.Context(), ms...))
}

func adopt(t *testing.T, p *pair) {
	p.py.run(t, `
		await my.admin.install()
		await my.store.queue("jobs")
		my.producer = await my.store.producer("jobs")
		my.consumer = await my.store.consumer("jobs")
		for n in range(3):
			await my.producer.enqueue({"n": n})
		await my.consumer.archive((await my.consumer.dequeue())[0].id)
		[my.held] = await my.consumer.dequeue()
		await pgqrs.workflow().name("flow").store(my.store).create()
		await pgqrs.workflow().name("flow").store(my.store).trigger({"a": 1}).execute()
	`, nil)
	before := p.ledger(t)
	_, err := p.store.Queues(t.Context())
	wantError(t, err, pgqrs.ErrNotInstalled)
	must(t, p.store.Install(t.Context()))
	wantOK(t, p.store)
	equal(t, "Python's migrations", p.ledger(t), before)
	s := p.stats(t, "jobs")
	equal(t, "ready, leased and archived", [3]int64{s.Ready, s.Leased, s.Archived}, [3]int64{1, 1, 1})
	q := pgqrs.NewQueue[map[string]int](p.store, "jobs")
	ms := value(q.Dequeue(t.Context(), 10, time.Minute))(t)
	equal(t, "messages", len(ms), 1)
	equal(t, "payload", ms[0].Payload["n"], 2)
	p.py.run(t, `
		assert await my.consumer.archive(my.held.id)
		await my.producer.enqueue({"n": 3})
		await my.admin.verify()
	`, nil)
	w := pgqrs.NewWorkflow[map[string]int, int](p.store, "flow")
	p.work(t, w.Handle(takeA))
	equal(t, "result of the run", value(w.RunHandle(p.runOf(t, "flow").ID).Result(soon(t)))(t), 1)
	p.wantWorking(t)
}

func again(t *testing.T, p *pair) {
	p.share(t)
	p.wantWorking(t)
	before := p.ledger(t)
	count := func() string { return p.query(t, `SELECT count(*) FROM pgqrs_messages`) }
	messages := count()
	for range 2 {
		p.python(t).run(t, `await my.admin.install()`, nil)
		must(t, p.newStore(t, pgqrs.Config{}).Install(t.Context()))
		p.py.run(t, `await my.admin.install()`, nil)
	}
	wantOK(t, p.store)
	equal(t, "Python's migrations", p.ledger(t), before)
	equal(t, "messages", count(), messages)
	p.wantWorking(t)
}

func adoptTogether(t *testing.T, p *pair) {
	p.py.run(t, `await my.admin.install()`, nil)
	done := make(chan error)
	for range 5 {
		s := p.newStore(t, pgqrs.Config{})
		go func() { done <- s.Install(t.Context()) }()
	}
	for range 5 {
		must(t, <-done)
	}
	wantOK(t, p.store)
	p.wantWorking(t)
}

func goFirst(t *testing.T, p *pair) {
	must(t, p.store.Install(t.Context()))
	if p.dialect == pgqrs.Postgres {
		p.wantWorking(t)
		p.py.fails(t, `await my.admin.install()`, nil, "InternalError", `relation "pgqrs_queues" already exists`)
	} else {
		p.py.run(t, `await my.admin.install()`, nil)
	}
	p.wantWorking(t)
	must(t, p.store.Install(t.Context()))
	wantOK(t, p.store)
	p.wantWorking(t)
}

func adoptSchema(t *testing.T, p *pair) {
	if p.dialect != pgqrs.Postgres {
		t.Skip("only PostgreSQL has schemas")
	}
	p.py.run(t, `await my.admin.install()`, nil)
	elsewhere, err := sql.Open(p.driver, withoutSearchPath(p.goDSN))
	must(t, err)
	t.Cleanup(func() { elsewhere.Close() })
	p.store = pgqrs.Config{Schema: p.schema}.New(elsewhere, p.dialect)
	must(t, p.store.Install(t.Context()))
	must(t, p.store.Install(t.Context()))
	wantOK(t, p.store)
	p.wantWorking(t)
	must(t, p.store.Close())
}

// withoutSearchPath removes the schema from lib/pq's DSN.
func withoutSearchPath(dsn string) string {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		query := u.Query()
		query.Del("search_path")
		u.RawQuery = query.Encode()
		return u.String()
	}
	before, _, _ := strings.Cut(dsn, " search_path=")
	return before
}

func uninstall(t *testing.T, p *pair) {
	p.share(t)
	wantError(t, p.store.Uninstall(t.Context()), pgqrs.ErrState)
	p.wantWorking(t)
}

func statuses(t *testing.T, p *pair) {
	if p.dialect != pgqrs.Postgres {
		t.Skip("only PostgreSQL has enumerated types")
	}
	p.py.run(t, `await my.admin.install()`, nil)
	missing := strings.Join(value(p.store.Verify(t.Context()))(t).Missing, "\n")
	for _, status := range []string{"CANCELLING", "CANCELLED"} {
		if want := "value " + status + " of type pgqrs_workflow_status"; !strings.Contains(missing, want) {
			t.Errorf("Verify misses\n%s\nwant %s among them", missing, want)
		}
	}
	must(t, p.store.Install(t.Context()))
	run := value(pgqrs.NewWorkflow[int, int](p.store, "flow").Start(t.Context(), 1))(t)
	must(t, run.Cancel(t.Context()))
	p.work(t, pgqrs.NewWorkflow[int, int](p.store, "flow").Handle(nil1))
	_, err := run.Result(soon(t))
	wantError(t, err, pgqrs.ErrCancelled)
}
