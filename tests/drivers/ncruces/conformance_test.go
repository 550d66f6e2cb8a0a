// Package ncruces_test runs the conformance suite on github.com/ncruces/go-sqlite3/driver,
// and fails the cases that leave anything open.
package ncruces_test

import (
	"database/sql"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/tests/internal/tap"

	_ "github.com/ncruces/go-sqlite3/driver"
)

// The busy timeout comes first, because the PRAGMAs run in the order of the DSN.
const params = "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_pragma=foreign_keys(on)"

var processes = conformance.Processes{New: sqlite.File("sqlite"), Open: pgqrs.Open, Scale: 3}

func TestMain(m *testing.M) {
	processes.Main()
	m.Run()
}

func TestConformance(t *testing.T) { conformance.Run(t, open) }

func TestProcesses(t *testing.T) { processes.Run(t) }

func TestConnections(t *testing.T) { pool.Check(t, open, sqlite.Settings...) }

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) {
	db := sqlite.Use(t, tap.Open(t, "sqlite3", sqlite.URI(t, params)))
	tap.WantNoLeak(t, db)
	return db, pgqrs.SQLite
}

func TestUTF16IsRefused(t *testing.T) { sqlite.RefusesUTF16(t, "sqlite3", sqlite.URI(t, "")) }
