package concurrent_test

import (
	"database/sql"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"

	_ "github.com/ncruces/go-sqlite3/driver"
	_ "github.com/ncruces/go-sqlite3/embed/bcw2"
)

const params = "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_pragma=foreign_keys(on)"

func TestConformance(t *testing.T) { pgqrstest.ConformanceConcurrent(t, open) }

// uri returns the DSN of a new database file.
func uri(t *testing.T) string {
	path := filepath.ToSlash(filepath.Join(t.TempDir(), "pgqrs.db"))
	u := url.URL{Scheme: "file", Path: path, OmitHost: true, RawQuery: params}
	return u.String()
}

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) {
	db, err := sql.Open("sqlite3", uri(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	db.SetMaxOpenConns(20)
	// One connection turns on WAL alone: of several that do it at once some may fail.
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	return db, pgqrs.Turso
}
