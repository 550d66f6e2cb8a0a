//go:build unix

// Package postgres gives tests a PostgreSQL database of their own.
//
// [Open] and [Schema] create a new schema on a server that the test binary shares. The server is
// private. It is started on first use in a temporary directory, listens only on a unix socket
// there, and ends when the test binary ends, even if that is killed. [Private] starts another
// server, for tests that stop, kill or pause it.
//
// The binaries initdb, postgres and pg_ctl are taken from PATH, or else from the newest
// /usr/lib/postgresql/*/bin. If they are missing the test fails if CI is set in the environment,
// and is skipped otherwise.
//
// If PGQRS_TEST_POSTGRES has a DSN, schemas are created on that server instead.
package postgres

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
)

// shared is the server of this test binary, once a test has used it.
var shared struct {
	sync.Mutex
	server *Server
	err    error
}

// Main runs the tests and removes the shared server, if one was started.
func Main(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// Open returns a pool of connections of the named driver, in a new schema. The pool is closed and
// the schema is dropped when the test ends.
func Open(t testing.TB, driver string) *sql.DB {
	t.Helper()
	return OpenOn(t, driver, server(t))
}

// OpenOn is like [Open], on the server of the given DSN.
func OpenOn(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, SchemaOn(t, driver, dsn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(pool.Max)
	return db
}

// Schema creates a new schema with the named driver and drops it when the test ends. Connections
// with the returned DSN have it as their search_path.
func Schema(t testing.TB, driver string) (dsn string) {
	t.Helper()
	return SchemaOn(t, driver, server(t))
}

// SchemaOn is like [Schema], on the server of the given DSN.
func SchemaOn(t testing.TB, driver, dsn string) string {
	t.Helper()
	schema := "pgqrs_test_" + strings.ToLower(rand.Text())
	if err := run(driver, dsn, "CREATE SCHEMA "+schema); err != nil {
		t.Fatalf("create a schema for the test: %v", err)
	}
	t.Cleanup(func() {
		if err := run(driver, dsn, "DROP SCHEMA "+schema+" CASCADE"); err != nil {
			t.Errorf("drop the test's schema (did the test leave a transaction open?): %v", err)
		}
	})
	return withSearchPath(dsn, schema)
}

// Database creates a database with the named driver and the options of CREATE DATABASE, such as its
// encoding. It drops the database when the test ends. It returns the database's DSN, with more
// parameters of the form name=value.
func Database(t testing.TB, driver, options string, params ...string) string {
	t.Helper()
	dsn := server(t)
	name := "pgqrs_test_" + strings.ToLower(rand.Text())
	if err := run(driver, dsn, "CREATE DATABASE "+name+" "+options); err != nil {
		t.Fatalf("create a database for the test: %v", err)
	}
	t.Cleanup(func() {
		if err := run(driver, dsn, "DROP DATABASE "+name); err != nil {
			t.Errorf("drop the test's database (did the test leave a connection open?): %v", err)
		}
	})
	return withDatabase(dsn, name, params)
}

// withDatabase puts the name of a database, and parameters, into a DSN in URL or key=value form.
func withDatabase(dsn, name string, params []string) string {
	if !strings.Contains(dsn, "://") {
		return strings.Join(append([]string{dsn, "dbname=" + name}, params...), " ")
	}
	base, query, _ := strings.Cut(dsn, "?")
	base = base[:strings.LastIndexByte(base, '/')+1] + name
	return base + "?" + strings.Join(append([]string{query}, params...), "&")
}

// run executes one statement on a connection of its own.
func run(driver, dsn, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, statement)
	return err
}

// withSearchPath adds the parameter to a DSN in URL or key=value form.
func withSearchPath(dsn, schema string) string {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		return dsn + " search_path=" + schema
	}
	base, query, found := strings.Cut(dsn, "?")
	if found {
		query += "&"
	}
	return base + "?" + query + "search_path=" + url.QueryEscape(schema)
}

// URL converts a DSN that [Schema] returned to a URL.
func URL(dsn string) string {
	if strings.Contains(dsn, "://") {
		return dsn
	}
	query := url.Values{}
	for _, field := range strings.Fields(dsn) {
		name, value, _ := strings.Cut(field, "=")
		query.Set(name, strings.Trim(value, "'"))
	}
	return "postgres:///?" + query.Encode()
}

// server returns the DSN of the server on which schemas are created.
func server(t testing.TB) string {
	t.Helper()
	if dsn := os.Getenv("PGQRS_TEST_POSTGRES"); dsn != "" {
		return dsn
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = Start()
	}
	check(t, shared.err)
	return shared.server.DSN()
}

// Private starts a server for this test alone, with settings such as "fsync=on" in addition to the
// defaults. It closes the server when the test ends.
func Private(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := Start(settings...)
	check(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Available reports whether there is a server on which schemas can be created, for tests that also
// make sense without one. If CI is set there must be a server.
func Available() bool {
	_, err := findInstallation(debianBin)
	return err == nil || os.Getenv("PGQRS_TEST_POSTGRES") != "" || os.Getenv("CI") != ""
}

// check ends the test if no server could be started. It skips the test if PostgreSQL is not
// installed, except in CI.
func check(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrNotFound) && os.Getenv("CI") == "":
		t.Skipf("%v: install it (Debian: apt-get install postgresql; macOS: brew install postgresql) "+
			"or set PGQRS_TEST_POSTGRES to the DSN of a running server", err)
	default:
		t.Fatal(err)
	}
}
