package faults_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/postgres"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
)

// drivers has the names of PostgreSQL's drivers, by the names under which they register.
var drivers = map[string]string{"postgres": "lib/pq", "pgx": "pgx"}

// A lab is a PostgreSQL server that will fail, with a schema for one application.
type lab struct {
	*postgres.Server
	dsn string
	db  *sql.DB // the application's
	own *sql.DB // the test's
}

// newLab opens a pool for the application. It uses a driver and additional parameters for its DSN.
func newLab(t *testing.T, server *postgres.Server, driver, params string) *lab {
	t.Helper()
	dsn := postgres.SchemaOn(t, "postgres", server.DSN())
	l := &lab{Server: server, own: open(t, "postgres", dsn), dsn: dsn + " application_name=application" + params}
	l.db = open(t, driver, l.dsn)
	l.db.SetMaxOpenConns(pool.Max)
	l.db.SetMaxIdleConns(pool.Max / 2) // idle connections must fail too
	return l
}

func open(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func (l *lab) exec(t *testing.T, text string, args ...any) {
	t.Helper()
	if _, err := l.own.Exec(text, args...); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// set sets a parameter of the server for all sessions, including open ones.
func (l *lab) set(t *testing.T, name, value string) {
	t.Helper()
	l.exec(t, "ALTER SYSTEM SET "+name+" = "+value)
	l.exec(t, "SELECT pg_reload_conf()")
}

func (l *lab) work(t *testing.T) *workload {
	t.Helper()
	return work(t, l.db, pgqrs.Postgres, pgqrs.Config{})
}

func TestPostgres(t *testing.T) {
	server := postgres.Private(t)
	var faults []fault
	add := func(name string, on []string, test func(t *testing.T, server *postgres.Server, driver string, share time.Duration)) {
		for _, driver := range on {
			faults = append(faults, fault{name + ", " + strings.ReplaceAll(drivers[driver], "/", "_"),
				func(t *testing.T, share time.Duration) { test(t, server, driver, share) }})
		}
	}
	both, libpq := []string{"postgres", "pgx"}, []string{"postgres"}
	add("the server ends connections", both, testTerminated)
	add("the server goes down and comes back", both, testRestarted)
	add("the server hangs", both, testPaused)
	add("others take all connections", libpq, testCrowded)
	add("the server is read-only", libpq, testReadOnly)
	add("the disk is full", libpq, testFullDisk)
	add("a process of the application hangs", libpq, testHangingProcess)
	add("a stranger keeps a transaction open", libpq, testHeldOpen)
	inject(t, faults)
}

func testTerminated(t *testing.T, server *postgres.Server, driver string, share time.Duration) {
	l := newLab(t, server, driver, "")
	w := l.work(t)
	runs := 0
	for runs = range rounds(20, share) {
		l.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'application'
			ORDER BY $1 AND state = 'idle', random() LIMIT 1`, runs%2 == 0)
		w.progress(5)
	}
	w.finish(l.own, "PostgreSQL ends connections, "+drivers[driver], "pg_terminate_backend at random", runs)
}

func testRestarted(t *testing.T, server *postgres.Server, driver string, share time.Duration) {
	l := newLab(t, server, driver, "")
	w := l.work(t)
	l.own.SetMaxIdleConns(0) // its own pool must keep no dead connection
	runs := 0
	for runs = range rounds(1, share) {
		w.progress(50)
		if err := l.Abort(); err != nil {
			t.Fatal(err)
		}
		w.refusals(1)
		if err := l.Start(); err != nil {
			t.Fatal(err)
		}
		w.progress(50)
	}
	w.finish(l.own, "PostgreSQL goes down and comes back, "+drivers[driver], "immediate shutdown, start", runs)
}

// While the server hangs, calls on pgx return when their ctx ends. On lib/pq, calls on existing
// connections wait for the server, as long as it hangs.
func testPaused(t *testing.T, server *postgres.Server, driver string, share time.Duration) {
	l := newLab(t, server, driver, "")
	w := l.work(t)
	runs := 0
	for runs = range rounds(1, share) {
		w.progress(50)
		l.pause(t, func() {
			if driver == "pgx" {
				w.allReturn()
			} else {
				l.silence(t)
			}
		})
		w.progress(50)
	}
	w.finish(l.own, "PostgreSQL hangs, "+drivers[driver], "SIGSTOP, SIGCONT", runs, "deadline exceeded")
}

// silence returns once a new connection, of the driver that gives up, has waited in vain.
func (l *lab) silence(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	if err := open(t, "pgx", l.dsn).PingContext(ctx); err == nil {
		t.Error("a server that hangs answers")
	}
}

// pause calls meanwhile while the server hangs.
func (l *lab) pause(t *testing.T, meanwhile func()) {
	t.Helper()
	if err := l.Pause(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Resume(); err != nil {
			t.Fatal(err)
		}
	}()
	meanwhile()
}

func testCrowded(t *testing.T, server *postgres.Server, driver string, share time.Duration) {
	const limit = 24
	restart(t, server, fmt.Sprintf("max_connections=%d", limit))
	t.Cleanup(func() { restart(t, server) })
	l := newLab(t, server, driver, "")
	w := l.work(t)
	l.db.SetMaxIdleConns(1) // so that it always needs new connections
	runs := 0
	for runs = range rounds(1, share) {
		w.progress(50)
		crowd := l.crowd(t, server.DSN(), limit)
		w.refusals(20)
		crowd()
		w.progress(50)
	}
	w.finish(l.own, "PostgreSQL takes no more connections", "other sessions take them all", runs, "too many clients", "slots are reserved", "deadline exceeded")
}

func restart(t *testing.T, server *postgres.Server, settings ...string) {
	t.Helper()
	if err := server.Restart(settings...); err != nil {
		t.Fatal(err)
	}
}

// crowd takes every connection, and every connection that becomes free, until leave is called.
func (l *lab) crowd(t *testing.T, dsn string, limit int) (leave func()) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		others, err := sql.Open("postgres", dsn)
		if err != nil {
			t.Error(err)
			return
		}
		defer others.Close()
		for ctx.Err() == nil {
			conn, err := others.Conn(ctx)
			if err == nil {
				defer conn.Close()
			}
		}
	}()
	leave = func() { stop(); <-gone }
	t.Cleanup(leave)
	return leave
}

func testReadOnly(t *testing.T, server *postgres.Server, driver string, share time.Duration) {
	l := newLab(t, server, driver, "")
	t.Cleanup(func() { l.set(t, "default_transaction_read_only", "off") })
	w := l.work(t)
	runs := 0
	for runs = range rounds(2, share) {
		w.progress(50)
		l.set(t, "default_transaction_read_only", "on")
		w.refusals(50)
		l.set(t, "default_transaction_read_only", "off")
		w.progress(50)
	}
	w.finish(l.own, "PostgreSQL is read-only", "default_transaction_read_only", runs, "read-only transaction")
}

func testFullDisk(t *testing.T, server *postgres.Server, driver string, share time.Duration) {
	disk, err := server.Mkdir()
	if err != nil {
		t.Fatal(err)
	}
	mountSmall(t, disk, "64m")
	admin := open(t, "postgres", server.DSN())
	if _, err := admin.Exec("CREATE TABLESPACE small LOCATION '" + disk + "'"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.Exec("DROP TABLESPACE small"); err != nil {
			t.Error(err)
		}
	})
	l := newLab(t, server, driver, " default_tablespace=small")
	w := l.work(t)
	runs := 0
	for runs = range rounds(2, min(share, time.Minute)) { // archived messages take space too
		w.progress(50)
		filler := fill(t, disk)
		w.refusals(20)
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		w.progress(50)
	}
	w.finish(l.own, "PostgreSQL's disk is full", "tablespace on a small tmpfs", runs, "No space left on device")
}

// An open transaction keeps dead rows in the tables. The claim has to find its rows nevertheless.
func testHeldOpen(t *testing.T, server *postgres.Server, driver string, share time.Duration) {
	l := newLab(t, server, driver, "")
	w := l.work(t)
	w.progress(1)
	tx, err := l.own.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	var n int
	if err := tx.QueryRow("SELECT count(*) FROM pgqrs_messages").Scan(&n); err != nil {
		t.Fatal(err)
	}
	for range rounds(10, share) {
		w.progress(100)
	}
	w.finish(l.own, "PostgreSQL cannot vacuum", "a transaction held open by somebody else", 1)
	if w.log.has("a pooler") {
		t.Errorf("the Store saw a pooler where there is none:\n%s", w.log)
	}
}

// A process that hangs for longer than its leases is overtaken. Its remaining work, in transactions
// that are still open, must not be done again.
func testHangingProcess(t *testing.T, server *postgres.Server, driver string, share time.Duration) {
	l := newLab(t, server, driver, "")
	p := pace{Lease: time.Second, Orders: 20 * time.Millisecond}
	w := workAt(t, p, l.db, pgqrs.Postgres, pgqrs.Config{})
	w.leasesEnd = true
	c := spawn(t, task{Name: "hangs", Driver: driver, DSN: l.dsn, Dialect: pgqrs.Postgres, Pace: p})
	runs := 0
	for runs = range rounds(3, share) {
		w.progress(100)
		c.hang(func() { l.overtake(t) })
	}
	w.join(c)
	w.finish(l.own, "a process hangs, PostgreSQL", "SIGSTOP for longer than its leases", runs)
}

// overtake returns when every message that is leased now is done. The exception is messages that an
// open transaction has just acked, which are locked until it ends.
func (l *lab) overtake(t *testing.T) {
	t.Helper()
	const leased = "SELECT COALESCE(array_agg(id), '{}') FROM pgqrs_messages WHERE archived_at IS NULL AND consumer_worker_id IS NOT NULL"
	var ids string
	if err := l.own.QueryRow(leased).Scan(&ids); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what the process held is done by another", func() (bool, error) {
		left := -1
		err := l.own.QueryRow(`SELECT count(*) FROM
			(SELECT 1 FROM pgqrs_messages WHERE archived_at IS NULL AND id = ANY ($1::bigint[]) FOR UPDATE SKIP LOCKED) unlocked`, ids).Scan(&left)
		return left == 0, errors.Join(err, fmt.Errorf("%d left", left))
	})
}
