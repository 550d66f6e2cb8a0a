// Package model_test executes random operations on queues and runs, on SQLite and PostgreSQL. It
// compares the results with models in memory. It also checks histories of concurrent operations on
// one queue.
//
// A failing sequence is shortened as far as possible, and printed with a seed that repeats it.
// PGQRS_SOAK, a Go duration, sets how long each test runs.
package model_test

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/reliability"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
	"pgregory.net/rapid"

	_ "github.com/lib/pq"
	_ "github.com/ncruces/go-sqlite3/driver"
)

// defaults are the number of sequences in a test, and of operations in a sequence on average. Flags
// of the same names change them.
var defaults = map[string]string{"rapid.checks": "50", "rapid.steps": "40", "rapid.nofailfile": "true"}

func TestMain(m *testing.M) {
	for name, value := range defaults {
		if err := flag.Set(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	postgres.Main(m)
}

// An engine is a database to test on.
type engine struct {
	name  string
	open  func(t *testing.T) *pgqrs.Store
	clock string // reads the database's clock
}

var engines = []engine{
	{"sqlite", openSQLite, `SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')`},
	{"postgres", openPostgres, `SELECT clock_timestamp()`},
}

func openSQLite(t *testing.T) *pgqrs.Store {
	const params = "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_pragma=foreign_keys(on)"
	return install(t, pgqrs.New(sqlite.Open(t, "sqlite3", sqlite.URI(t, params)), pgqrs.SQLite))
}

func openPostgres(t *testing.T) *pgqrs.Store {
	return install(t, pgqrs.New(postgres.Open(t, "postgres"), pgqrs.Postgres))
}

func install(t *testing.T, s *pgqrs.Store) *pgqrs.Store {
	t.Helper()
	if err := s.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// now reads the database's clock.
func (e engine) now(ctx context.Context, db *sql.DB) (time.Time, error) {
	var v any
	if err := db.QueryRowContext(ctx, e.clock).Scan(&v); err != nil {
		return time.Time{}, err
	}
	switch v := v.(type) {
	case time.Time:
		return v.UTC(), nil
	case string:
		return time.Parse("2006-01-02 15:04:05", v)
	default:
		return time.Time{}, fmt.Errorf("the clock reads %v, a %T", v, v)
	}
}

// eachEngine runs sequences on each engine, for as long as PGQRS_SOAK says. A sequence returns how
// many messages it has handled.
func eachEngine(t *testing.T, what string, sequence func(t *testing.T, e engine, s *pgqrs.Store, rt *rapid.T) int) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			s := e.open(t)
			row := reliability.Row{Fault: what + ", " + e.name, Injected: "random sequences, compared with a model after each operation"}
			end := time.Now().Add(reliability.Soak(t))
			for ok := true; ok; ok = time.Now().Before(end) {
				rapid.Check(t, func(rt *rapid.T) {
					row.Messages += sequence(t, e, s, rt)
					row.Runs++
				})
			}
			reliability.Report(t, row)
		})
	}
}
