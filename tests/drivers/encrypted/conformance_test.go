// Package encrypted_test runs the conformance suite on encrypted files, with
// github.com/ncruces/go-sqlite3 and its adiantum VFS.
package encrypted_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"
	"github.com/pgqrs/pgqrs-go/tests/internal/dsn"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"

	_ "github.com/ncruces/go-sqlite3/driver"
	_ "github.com/ncruces/go-sqlite3/vfs/adiantum"
)

const key = "7a6b2f0c9d1e4835a6f7c8091b2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f"

var processes = conformance.Processes{New: sqlite.File("sqlite"), Open: pgqrs.Config{EncryptionKey: key}.Open}

func TestMain(m *testing.M) {
	processes.Main()
	m.Run()
}

func TestConformance(t *testing.T) { conformance.Run(t, open) }

func TestProcesses(t *testing.T) { processes.Run(t) }

func TestConnections(t *testing.T) { pool.Check(t, open, sqlite.Settings...) }

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) {
	s := dsn.Open(t, pgqrs.Config{EncryptionKey: key}, "sqlite:"+filepath.Join(t.TempDir(), "pgqrs.db"))
	s.DB().SetMaxOpenConns(pool.Max)
	return s.DB(), s.Dialect()
}

func TestFilesAreSecret(t *testing.T) {
	dsn.Encrypted(t, dsn.Driver{Scheme: "sqlite", Ciphers: map[string]int{"adiantum": 32}, Cipher: "adiantum"})
}

// If a VFS was not imported, the error names its import. This binary has adiantum only.
func TestDSNs(t *testing.T) {
	dsn.Unlinked(t, "sqlite:q.db?cipher=xts&encryption_key="+key, `cipher=xts needs import _ "github.com/ncruces/go-sqlite3/vfs/xts"`)
	dsn.Unlinked(t, "sqlite::memory:", `a database in memory needs import _ "github.com/ncruces/go-sqlite3/vfs/memdb"`)
	dsn.Unlinked(t, "postgres://localhost/db", "no driver for postgres is linked in; import github.com/lib/pq or github.com/jackc/pgx/v5/stdlib")
	dsn.Unlinked(t, "turso:q.db", "no driver for turso is linked in; import turso.tech/database/tursogo or github.com/tursodatabase/go-libsql")
}
