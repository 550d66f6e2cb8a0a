// Package ncruces_test runs the conformance suite on github.com/ncruces/go-sqlite3/driver.
package ncruces_test

import (
	"database/sql"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/drivertest/internal/pool"
	"github.com/pgqrs/pgqrs-go/drivertest/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/pgqrstest"

	_ "github.com/ncruces/go-sqlite3/driver"
)

// The busy timeout stands first: the PRAGMAs run in the order of the DSN.
const params = "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_pragma=foreign_keys(on)"

func TestConformance(t *testing.T) { pgqrstest.Conformance(t, open) }

func TestConnections(t *testing.T) { pool.Check(t, open, sqlite.Settings...) }

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) {
	return sqlite.Open(t, "sqlite3", sqlite.URI(t, params)), pgqrs.SQLite
}
