package turso

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/dsn"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
)

// Open makes pgqrs.Open create a new database, with options such as ?mvcc=1. It closes the database
// when the test ends.
func Open(t *testing.T, options string) (*sql.DB, pgqrs.Dialect) {
	t.Helper()
	Require(t)
	s := dsn.Open(t, pgqrs.Config{}, "turso:"+filepath.Join(t.TempDir(), "pgqrs.db")+options)
	s.DB().SetMaxOpenConns(pool.Max)
	return s.DB(), s.Dialect()
}

// OpenTraced returns a new database with the settings for MVCC mode. It calls trace after each
// statement, as [Connector] documents.
func OpenTraced(t testing.TB, trace func(text string, err error)) *sql.DB {
	t.Helper()
	Require(t)
	c, err := NewConnector(filepath.Join(t.TempDir(), "pgqrs.db"))
	if err != nil {
		t.Fatal(err)
	}
	c.Pragmas = []string{"busy_timeout = 0", "synchronous = normal", "foreign_keys = on"}
	c.Trace = trace
	return sqlite.Use(t, sql.OpenDB(c))
}
