// Package pq_test runs the conformance suite on github.com/lib/pq, and fails
// the cases that leave anything open.
package pq_test

import (
	"database/sql"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/internal/tap"
	"github.com/pgqrs/pgqrs-go/tests/postgres"

	_ "github.com/lib/pq"
)

var processes = conformance.Processes{New: newDSN, Open: pgqrs.Open, Scale: 3}

func newDSN(t *testing.T) string { return postgres.URL(postgres.Schema(t, "postgres")) }

func TestMain(m *testing.M) {
	processes.Main()
	postgres.Main(m)
}

func TestConformance(t *testing.T) { conformance.Run(t, open) }

func TestProcesses(t *testing.T) { processes.Run(t) }

func TestConnections(t *testing.T) { pool.Check(t, open) }

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) {
	db := tap.Open(t, "postgres", postgres.Schema(t, "postgres"))
	db.SetMaxOpenConns(pool.Max)
	tap.WantNoLeak(t, db)
	return db, pgqrs.Postgres
}
