package concurrent_test

import (
	"context"
	"database/sql"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest/conformance"

	_ "github.com/ncruces/go-sqlite3/driver"
	_ "github.com/ncruces/go-sqlite3/embed/bcw2"
)

const params = "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_pragma=foreign_keys(on)"

var processes = conformance.Processes{New: uri, Open: openConcurrent}

func TestMain(m *testing.M) {
	processes.Main()
	m.Run()
}

func TestConformance(t *testing.T) { conformance.RunConcurrent(t, open) }

func TestProcesses(t *testing.T) { processes.Run(t) }

func openConcurrent(ctx context.Context, dsn string) (*pgqrs.Store, error) {
	db, err := sql.Open("sqlite3", dsn)
	if err != nil {
		return nil, err
	}
	// The comment in open explains the dialect.
	return pgqrs.Config{Concurrent: true}.New(db, pgqrs.Turso), db.PingContext(ctx)
}

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
	// Only one connection may turn on WAL. If several do it at once, some of them may fail.
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	return db, pgqrs.Turso
}
