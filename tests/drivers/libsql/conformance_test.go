// Package libsql_test runs the conformance suite on github.com/tursodatabase/go-libsql. It uses a
// local file that pgqrs.Open opened, because the driver has no DSN parameters for PRAGMAs.
package libsql_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"
	"github.com/pgqrs/pgqrs-go/tests/internal/dsn"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"

	_ "github.com/tursodatabase/go-libsql"
)

var processes = conformance.Processes{New: sqlite.File("turso"), Open: pgqrs.Open}

func TestMain(m *testing.M) {
	processes.Main()
	m.Run()
}

func TestConformance(t *testing.T) { conformance.Run(t, open) }

func TestProcesses(t *testing.T) { processes.Run(t) }

func TestConnections(t *testing.T) { pool.Check(t, open, sqlite.Settings...) }

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) {
	s := dsn.Open(t, pgqrs.Config{}, "turso:"+filepath.Join(t.TempDir(), "pgqrs.db"))
	s.DB().SetMaxOpenConns(pool.Max)
	return s.DB(), s.Dialect()
}
