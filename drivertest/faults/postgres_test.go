package faults_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/drivertest/internal/pool"
	"github.com/pgqrs/pgqrs-go/drivertest/internal/postgres"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
)

// applications has the drivers of PostgreSQL, each by the name it registers.
var applications = []string{"postgres", "pgx"}

// A lab is a PostgreSQL server that is to fail, with a schema for one application.
type lab struct {
	*postgres.Server
	dsn string  // of the application
	db  *sql.DB // the application's
	own *sql.DB // the test's
}

func newLab(t *testing.T, server *postgres.Server, driver string) *lab {
	t.Helper()
	dsn := postgres.SchemaOn(t, "postgres", server.DSN())
	l := &lab{Server: server, dsn: dsn + " application_name=application"}
	l.own, l.db = open(t, "postgres", dsn), open(t, driver, l.dsn)
	l.db.SetMaxOpenConns(pool.Max)
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

// eachDriver runs a test on both drivers.
func eachDriver(t *testing.T, server *postgres.Server, test func(*testing.T, *lab)) {
	for _, driver := range applications {
		t.Run(driver, func(t *testing.T) { test(t, newLab(t, server, driver)) })
	}
}

func TestPostgres(t *testing.T) {
	server := postgres.Private(t)
	t.Run("a connection that the server ends at any moment", func(t *testing.T) { eachDriver(t, server, testTerminated) })
	t.Run("an immediate shutdown and a restart", func(t *testing.T) { eachDriver(t, server, testRestarted) })
}

func testTerminated(t *testing.T, l *lab) {
	w := work(t, l.db, pgqrs.Postgres, pgqrs.Config{})
	runs := 0
	for runs = range rounds(t, 40) {
		l.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = 'application' ORDER BY random() LIMIT 1`)
		w.progress(5)
	}
	w.finish(l.own, "PostgreSQL: a connection ends at any moment", "pg_terminate_backend", runs)
}

func testRestarted(t *testing.T, l *lab) {
	w := work(t, l.db, pgqrs.Postgres, pgqrs.Config{})
	runs := 0
	for runs = range rounds(t, 2) {
		w.progress(50)
		if err := l.Abort(); err != nil {
			t.Fatal(err)
		}
		w.refusals(1)
		if err := l.Start(); err != nil {
			t.Fatal(err)
		}
		l.own.SetMaxIdleConns(0) // those that it has are dead
		w.progress(50)
	}
	w.finish(l.own, "PostgreSQL: the server goes down and comes back", "immediate shutdown and restart", runs)
}

var _ = fmt.Sprint
