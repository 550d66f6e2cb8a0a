// Package memory_test runs the conformance suite on databases in memory, with
// github.com/ncruces/go-sqlite3 and its memdb VFS.
package memory_test

import (
	"database/sql"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"
	"github.com/pgqrs/pgqrs-go/tests/internal/dsn"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"

	_ "github.com/ncruces/go-sqlite3/driver"
	_ "github.com/ncruces/go-sqlite3/vfs/memdb"
)

func TestConformance(t *testing.T) { conformance.Run(t, open) }

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) {
	s := dsn.Open(t, pgqrs.Config{}, "sqlite::memory:")
	s.DB().SetMaxOpenConns(pool.Max)
	return s.DB(), s.Dialect()
}

// If a VFS was not imported, the error names its import.
func TestDSNs(t *testing.T) {
	dsn.Unlinked(t, "sqlite:q.db?encryption_key=7a6b2f0c9d1e4835a6f7c8091b2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f",
		`encryption_key needs import _ "github.com/ncruces/go-sqlite3/vfs/adiantum"`)
}
