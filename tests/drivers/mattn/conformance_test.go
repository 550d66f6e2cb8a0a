// Package mattn_test runs the conformance suite on github.com/mattn/go-sqlite3.
package mattn_test

import (
	"database/sql"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"

	_ "github.com/mattn/go-sqlite3"
)

const params = "_busy_timeout=5000&_journal_mode=WAL&_synchronous=NORMAL&_foreign_keys=on"

var processes = conformance.Processes{New: sqlite.File("sqlite"), Open: pgqrs.Open}

func TestMain(m *testing.M) {
	processes.Main()
	m.Run()
}

func TestConformance(t *testing.T) { conformance.Run(t, open) }

func TestProcesses(t *testing.T) { processes.Run(t) }

func TestConnections(t *testing.T) { pool.Check(t, open, sqlite.Settings...) }

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) {
	return sqlite.Open(t, "sqlite3", sqlite.URI(t, params)), pgqrs.SQLite
}

func TestUTF16IsRefused(t *testing.T) { sqlite.RefusesUTF16(t, "sqlite3", sqlite.URI(t, "")) }
