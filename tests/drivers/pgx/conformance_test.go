// Package pgx_test runs the conformance suite on github.com/jackc/pgx/v5/stdlib.
package pgx_test

import (
	"database/sql"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/postgres"

	_ "github.com/jackc/pgx/v5/stdlib"
)

var processes = conformance.Processes{New: newDSN, Open: pgqrs.Open}

func newDSN(t *testing.T) string { return postgres.URL(postgres.Schema(t, "pgx")) }

func TestMain(m *testing.M) {
	processes.Main()
	postgres.Main(m)
}

func TestConformance(t *testing.T) { conformance.Run(t, open) }

func TestProcesses(t *testing.T) { processes.Run(t) }

func TestConnections(t *testing.T) { pool.Check(t, open) }

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) {
	return postgres.Open(t, "pgx"), pgqrs.Postgres
}
