//go:build unix

package interop_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"math/big"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/tests/postgres"

	_ "github.com/lib/pq"
	_ "modernc.org/sqlite"
)

// A pair is a database of one test with a Go side and a Python side.
type pair struct {
	dialect pgqrs.Dialect
	db      *sql.DB
	store   *pgqrs.Store
	py      *python

	driver, goDSN string // of db

	env    string // of Python
	dsn    string // in the form for Python
	schema string
}

// A proof is a sentence about sharing tables, and the test that proves it.
type proof struct {
	sentence string
	test     func(*testing.T, *pair)
}

// prove runs proofs on PostgreSQL and on SQLite, each on an empty database. The Python side has
// connected as `my.store`. Neither side has installed tables.
func prove(t *testing.T, proofs []proof) {
	for _, x := range proofs {
		t.Run(x.sentence, func(t *testing.T) {
			t.Parallel()
			onBoth(t, x.sentence, x.test)
		})
	}
}

// proveShared is like prove, but Python has installed the tables and Go has adopted them.
func proveShared(t *testing.T, proofs []proof) {
	for _, x := range proofs {
		shared := func(t *testing.T, p *pair) {
			p.share(t)
			x.test(t, p)
		}
		t.Run(x.sentence, func(t *testing.T) {
			t.Parallel()
			onBoth(t, x.sentence, shared)
		})
	}
}

func onBoth(t *testing.T, sentence string, test func(*testing.T, *pair)) {
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		env := environment(t, wheel)
		dsn := postgres.Schema(t, "postgres")
		db, err := sql.Open("postgres", dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		p := &pair{dialect: pgqrs.Postgres, db: db, driver: "postgres", goDSN: dsn, env: env}
		p.dsn, p.schema = pythonDSN(t, dsn)
		p.begin(t, test)
		t.Logf("proved on PostgreSQL: %s", sentence)
	})
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		env := environment(t, source)
		path := filepath.Join(t.TempDir(), "pgqrs.db")
		dsn := (&url.URL{Scheme: "file", Path: path, OmitHost: true,
			RawQuery: "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_pragma=foreign_keys(on)"}).String()
		p := &pair{dialect: pgqrs.SQLite, db: sqlite.Open(t, "sqlite", dsn), driver: "sqlite", goDSN: dsn, env: env, dsn: "sqlite://" + path}
		p.begin(t, test)
		t.Logf("proved on SQLite: %s", sentence)
	})
}

func (p *pair) begin(t *testing.T, test func(*testing.T, *pair)) {
	p.store = p.newStore(t, pgqrs.Config{})
	p.py = p.python(t)
	test(t, p)
}

// newStore returns another Store, which logs to the test.
func (p *pair) newStore(t *testing.T, c pgqrs.Config) *pgqrs.Store {
	t.Helper()
	c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	s := c.New(p.db, p.dialect)
	t.Cleanup(func() { _ = s.Close() }) // the tables may be missing
	return s
}

// python starts another Python process, and connects it.
func (p *pair) python(t *testing.T) *python {
	t.Helper()
	py := startPython(t, p.env)
	py.run(t, `
		config = pgqrs.Config(dsn, max_connections=4)
		if schema:
			config.schema = schema
		my.config = config
		my.store = await pgqrs.connect_with(config)
		my.admin = pgqrs.admin(my.store)
	`, args{"dsn": p.dsn, "schema": p.schema})
	return py
}

// pythonDSN converts lib/pq's DSN to a URL and the schema of its search_path.
func pythonDSN(t *testing.T, dsn string) (string, string) {
	t.Helper()
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		query := u.Query()
		schema := query.Get("search_path")
		query.Del("search_path")
		u.RawQuery = query.Encode()
		return u.String(), schema
	}
	values := map[string]string{}
	// The DSN of the tests' own server contains no spaces.
	for _, field := range strings.Fields(dsn) {
		key, value, _ := strings.Cut(field, "=")
		values[key] = strings.Trim(value, "'")
	}
	schema := values["search_path"]
	u := url.URL{Scheme: "postgres", User: url.User(values["user"]), Host: "localhost:" + values["port"], Path: values["dbname"]}
	query := url.Values{"host": {values["host"]}, "sslmode": {values["sslmode"]}}
	if password := values["password"]; password != "" {
		u.User = url.UserPassword(values["user"], password)
	}
	u.RawQuery = query.Encode()
	return u.String(), schema
}

// share installs the tables as in a mixed deployment: first Python, then Go.
func (p *pair) share(t *testing.T) {
	t.Helper()
	p.py.run(t, `await my.admin.install()`, nil)
	must(t, p.store.Install(t.Context()))
}

// work runs a Worker until the test ends or the returned function is called.
func (p *pair) work(t *testing.T, handlers ...pgqrs.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	w := &pgqrs.Worker{Handlers: handlers}
	go func() { done <- w.Run(ctx) }()
	stopped := false
	stop = func() {
		if cancel(); !stopped {
			stopped = true
			must(t, <-done)
		}
	}
	t.Cleanup(stop)
	return stop
}

// query returns the first column of a query's only row as text.
func (p *pair) query(t *testing.T, text string, a ...any) string {
	t.Helper()
	var v sql.NullString
	if err := p.db.QueryRowContext(t.Context(), text, a...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v.String
}

func (p *pair) exec(t *testing.T, text string, a ...any) {
	t.Helper()
	if _, err := p.db.ExecContext(t.Context(), text, a...); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// value returns v, unless there was an error.
func value[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s is %v; want %v", what, got, want)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v; want one matching %v", err, want)
	}
}

func wantOK(t *testing.T, s *pgqrs.Store) {
	t.Helper()
	if r := value(s.Verify(t.Context()))(t); !r.OK() {
		t.Fatalf("Verify: %+v", r)
	}
}

func bytesReader(b []byte) *bytes.Reader { return bytes.NewReader(b) }

// numbers replaces the numbers in a decoded JSON value by texts that differ if the values differ.
func numbers(t *testing.T, v any) any {
	t.Helper()
	switch v := v.(type) {
	case json.Number:
		r, ok := new(big.Rat).SetString(v.String())
		if !ok {
			t.Fatalf("%s is no number", v)
		}
		return r.String()
	case []any:
		for i := range v {
			v[i] = numbers(t, v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = numbers(t, v[key])
		}
	}
	return v
}

func sqlInt(n int64) string { return strconv.FormatInt(n, 10) }

// soon returns a ctx for calls that wait.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
