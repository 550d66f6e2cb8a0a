// Package sqlite is shared by the tests of all drivers of the SQLite family. It has a new database
// file and the settings that each connection must have.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
)

// Settings are PRAGMAs and the answers that every connection of a test database must give. A
// driver's DSN sets them in its own form.
var Settings = []pool.Setting{
	{Query: "PRAGMA busy_timeout", Want: "5000"},
	{Query: "PRAGMA journal_mode", Want: "wal"},
	{Query: "PRAGMA synchronous", Want: "1"}, // NORMAL
	{Query: "PRAGMA foreign_keys", Want: "1"},
}

// URI returns the file: URI of a new database in the test's directory. Its query has the driver's
// parameters.
func URI(t testing.TB, query string) string {
	path := filepath.ToSlash(filepath.Join(t.TempDir(), "pgqrs.db"))
	uri := url.URL{Scheme: "file", Path: path, OmitHost: true, RawQuery: query}
	return uri.String()
}

// RefusesUTF16 checks that Install, Verify and Worker.Run refuse a file whose text is UTF-16. Their
// errors must name the file's encoding.
func RefusesUTF16(t *testing.T, driver, dsn string) {
	db := Open(t, driver, dsn)
	db.SetMaxOpenConns(1)
	for _, text := range []string{"PRAGMA encoding = 'UTF-16le'", "CREATE TABLE application (name TEXT)"} {
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	s := pgqrs.New(db, pgqrs.SQLite)
	_, verified := s.Verify(t.Context())
	worked := (&pgqrs.Worker{Handlers: []pgqrs.Handler{
		pgqrs.NewQueue[int](s, "q").Handle(func(context.Context, *pgqrs.Message[int]) error { return nil }),
	}}).Run(t.Context())
	for call, err := range map[string]error{"Install": s.Install(t.Context()), "Verify": verified, "Worker.Run": worked} {
		if !errors.Is(err, pgqrs.ErrUnsupported) || !strings.Contains(err.Error(), "UTF-16le") {
			t.Errorf("%s: %v; want an error that names the encoding", call, err)
		}
	}
}

// File returns a function that returns a DSN of pgqrs.Open for a new file in the test's directory.
func File(scheme string) func(t *testing.T) (dsn string) {
	return func(t *testing.T) string { return scheme + ":" + filepath.Join(t.TempDir(), "pgqrs.db") }
}

// Open opens dsn and closes it when the test ends.
func Open(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	return Use(t, db)
}

// Use limits the pool of db, makes its first connection, and closes it when the test ends. The
// first connection turns on WAL alone. If several connections do it at once, some may fail with
// SQLITE_BUSY, whatever their busy timeout.
func Use(t testing.TB, db *sql.DB) *sql.DB {
	t.Helper()
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	db.SetMaxOpenConns(pool.Max)
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	return db
}
