package turso

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/pgqrs/pgqrs-go/drivertest/internal/sqlite"
)

// Open opens a new database in a journal mode (wal or mvcc) and closes it when
// the test ends. trace may be nil; see [Connector].
func Open(t testing.TB, journal string, trace func(text string, err error)) *sql.DB {
	t.Helper()
	Require(t)
	c, err := NewConnector(filepath.Join(t.TempDir(), "pgqrs.db"))
	if err != nil {
		t.Fatal(err)
	}
	c.Trace = trace
	return sqlite.Use(t, sql.OpenDB(sqlite.WithPragmas(c, "journal_mode = "+journal, "synchronous = normal", "foreign_keys = on")))
}
