// Package dsn tests valid and invalid DSNs of pgqrs.Open on a driver.
package dsn

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
)

// A Driver describes what to expect of a driver for files.
type Driver struct {
	Scheme string // of its DSNs
	Name   string // the name in errors
	// Turso is whether it has the options of Turso's own driver: mvcc=1, vfs=syscall, vfs=io_uring.
	Turso   bool
	Ciphers map[string]int // the length of keys in bytes, by cipher
	Cipher  string         // the default cipher
}

// Files tests DSNs that name files, and databases in memory.
func Files(t *testing.T, d Driver) {
	OnDisk(t, d)
	t.Run("a database in memory is one for all connections", func(t *testing.T) { d.memory(t) })
}

// OnDisk tests DSNs that name files.
func OnDisk(t *testing.T, d Driver) {
	t.Run("good DSNs open the file they name", func(t *testing.T) { d.good(t) })
	t.Run("each connection has the settings", func(t *testing.T) {
		pool.Check(t, func(t *testing.T) (*sql.DB, pgqrs.Dialect) {
			s := Open(t, pgqrs.Config{}, d.Scheme+":"+filepath.Join(t.TempDir(), "q.db"))
			return s.DB(), s.Dialect()
		}, sqlite.Settings...)
	})
	t.Run("bad DSNs are refused and leave nothing behind", func(t *testing.T) { d.bad(t) })
	t.Run("a file that cannot be opened is an error", func(t *testing.T) { d.broken(t) })
	Encrypted(t, d)
}

// Open opens a DSN until the test ends.
func Open(t testing.TB, c pgqrs.Config, dsn string) *pgqrs.Store {
	t.Helper()
	s, err := c.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close %s: %v", dsn, err)
		}
	})
	return s
}

func (d Driver) good(t *testing.T) {
	for _, c := range []struct{ path, query, file string }{
		{"plain.db", "", "plain.db"},
		{"auto.db", "?vfs=auto&mvcc=0&synchronous=full", "auto.db"},
		{"a b%25c%23d&e=f+g;ü.db", "?vfs=auto", "a b%c#d&e=f+g;ü.db"},
		{"sub/../q'\"@:$.db", "", "q'\"@:$.db"},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, slashes := range []string{"", "//"} {
			dsn := d.Scheme + ":" + slashes + dir + "/" + c.path + c.query
			s := Open(t, pgqrs.Config{}, dsn)
			install(t, s)
			if _, err := os.Stat(filepath.Join(dir, c.file)); err != nil {
				t.Errorf("%s: %v", dsn, err)
			}
			if strings.Contains(c.query, "full") {
				wantAnswer(t, s, "PRAGMA synchronous", "2")
			}
		}
	}
	t.Run("relative", func(t *testing.T) {
		t.Chdir(t.TempDir())
		for _, dsn := range []string{":here.db", "://here.db", ":./here.db"} {
			install(t, Open(t, pgqrs.Config{}, d.Scheme+dsn))
		}
		if found, err := filepath.Glob("*.db"); len(found) != 1 || err != nil {
			t.Errorf("found %q, %v; want one file", found, err)
		}
	})
	t.Run("with a worker", func(t *testing.T) { work(t, Open(t, pgqrs.Config{}, d.Scheme+":"+t.TempDir()+"/q.db")) })
}

func install(t testing.TB, s *pgqrs.Store) {
	t.Helper()
	if err := s.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := s.Verify(t.Context())
	// No release of libSQL is without this bug.
	warnings := slices.DeleteFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "WAL-reset bug") })
	// A test's server has the settings of whoever started it.
	if err != nil || !r.OK() || len(warnings) > 0 && s.Dialect() != pgqrs.Postgres {
		t.Errorf("verify: %+v, %v", r, err)
	}
}

func wantAnswer(t *testing.T, s *pgqrs.Store, query, want string) {
	t.Helper()
	var got string
	if err := s.DB().QueryRowContext(t.Context(), query).Scan(&got); err != nil || got != want {
		t.Errorf("%s = %q, %v; want %q", query, got, err, want)
	}
}

func (d Driver) bad(t *testing.T) {
	const key = "00112233445566778899aabbccddeeff"
	cases := []struct {
		query  string
		config pgqrs.Config
		want   string
	}{
		{"?cache=shared", pgqrs.Config{}, `unknown option "cache"`},
		{"?_pragma=foreign_keys(off)", pgqrs.Config{}, `unknown option "_pragma"`},
		{"?vfs=auto&vfs=auto", pgqrs.Config{}, `option "vfs" is given twice`},
		{"?vfs=floppy", pgqrs.Config{}, "vfs=floppy; it can be auto, syscall, io_uring, memory"},
		{"?vfs=%zz", pgqrs.Config{}, `malformed percent-encoding in the value of the option "vfs"`},
		{"%zz", pgqrs.Config{}, "malformed percent-encoding in the path"},
		{"?mvcc=on", pgqrs.Config{}, "mvcc=on; it can be 0, 1"},
		{"?synchronous=off", pgqrs.Config{}, "synchronous=off; it can be full, normal"},
		{"?encryption_key=", pgqrs.Config{}, `option "encryption_key" is empty`},
		{"?encryption_key=" + key + "0", pgqrs.Config{}, "encryption_key is not hexadecimal"},
		{"?encryption_key=" + key + "0g", pgqrs.Config{}, "encryption_key is not hexadecimal"},
		{"&encryption_key=" + key, pgqrs.Config{}, "encryption_key stands in the path"},
		{"?cipher=adiantum", pgqrs.Config{}, "cipher=adiantum without encryption_key"},
		{"?vfs=memory&encryption_key=" + key, pgqrs.Config{}, "has no file to encrypt"},
		{"?vfs=auto", pgqrs.Config{VFS: "memory"}, "the option vfs and Config.VFS disagree"},
		{"?encryption_key=" + key, pgqrs.Config{EncryptionKey: key[2:] + "00"}, "the option encryption_key and Config.EncryptionKey disagree"},
		{"", pgqrs.Config{VFS: "floppy"}, `Config.VFS is "floppy"`},
		{"", pgqrs.Config{Schema: "jobs"}, "only PostgreSQL has schemas"},
	}
	add := func(query string, config pgqrs.Config, want string) {
		cases = append(cases, struct {
			query  string
			config pgqrs.Config
			want   string
		}{query, config, want})
	}
	if !d.Turso {
		add("?mvcc=1", pgqrs.Config{}, "mvcc=1: the driver "+d.Name+" has no BEGIN CONCURRENT; turso")
		add("", pgqrs.Config{Concurrent: true}, "mvcc=1: the driver "+d.Name)
		add("?vfs=io_uring", pgqrs.Config{}, "vfs=io_uring: the driver "+d.Name+" does not have it; turso")
		add("?vfs=syscall", pgqrs.Config{}, "vfs=syscall: the driver "+d.Name)
	}
	if len(d.Ciphers) == 0 {
		add("?encryption_key="+key, pgqrs.Config{}, "encryption_key: the driver "+d.Name+" has no encryption; sqlite3 of github.com/ncruces/go-sqlite3, turso and libsql have")
		add("", pgqrs.Config{EncryptionKey: key}, "encryption_key: the driver "+d.Name)
	} else {
		add("?encryption_key="+key[2:], pgqrs.Config{}, fmt.Sprintf("encryption_key has 15 bytes; the cipher %s takes %d", d.Cipher, d.Ciphers[d.Cipher]))
		add("?cipher=rot13&encryption_key="+key, pgqrs.Config{}, "cipher=rot13: the driver "+d.Name+" does not have it; it has "+d.Cipher)
	}
	dir := t.TempDir()
	for _, c := range cases {
		dsn := d.Scheme + ":" + dir + "/q.db" + c.query
		s, err := c.config.Open(t.Context(), dsn)
		if err == nil {
			t.Errorf("%s was opened (%v)", dsn, s.Close())
			continue
		}
		if !errors.Is(err, pgqrs.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v; want one matching ErrUnsupported that says %q", dsn, err, c.want)
		}
		if strings.Contains(err.Error(), key[2:]) {
			t.Errorf("the key shows in %v", err)
		}
	}
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("bad DSNs left %v, %v", left, err)
	}
}

func (d Driver) broken(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.db")
	if err := os.WriteFile(junk, []byte(strings.Repeat("this is no database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		junk:                               "the file is not a database, or it is encrypted and there is no encryption_key",
		filepath.Join(dir, "nowhere/q.db"): `pgqrs: open `,
		dir:                                `pgqrs: open `,
	} {
		s, err := pgqrs.Open(t.Context(), d.Scheme+":"+path)
		if err == nil {
			t.Errorf("%s was opened (%v)", path, s.Close())
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("error is %v; want one that says %q and %s", err, want, path)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pgqrs.Open(ctx, d.Scheme+":"+filepath.Join(dir, "late.db")); !errors.Is(err, context.Canceled) {
		t.Errorf("with a ctx that is done: %v", err)
	}
}

func (d Driver) memory(t *testing.T) {
	t.Chdir(t.TempDir()) // a driver that takes the name for a file name would create the file here
	pool.Check(t, func(t *testing.T) (*sql.DB, pgqrs.Dialect) {
		s := Open(t, pgqrs.Config{}, d.Scheme+"::memory:")
		return s.DB(), s.Dialect()
	}, pool.Setting{Query: "PRAGMA busy_timeout", Want: "5000"}, pool.Setting{Query: "PRAGMA foreign_keys", Want: "1"})

	s := Open(t, pgqrs.Config{}, d.Scheme+"://:memory:")
	work(t, s)
	waits(t, s.DB())
	s.DB().SetMaxIdleConns(0) // closes all connections
	if queues, err := s.Queues(t.Context(), "first"); err != nil || len(queues) != 1 {
		t.Errorf("without the pool's connections: %v, %v; want the queue", queues, err)
	}

	name := strings.ToLower(t.Name())
	a, b := Open(t, pgqrs.Config{VFS: "memory"}, d.Scheme+":"+name), Open(t, pgqrs.Config{}, d.Scheme+":"+name+"?vfs=memory")
	install(t, a)
	if r, err := b.Verify(t.Context()); err != nil || !r.OK() {
		t.Errorf("a second Store on the same name finds %+v, %v", r, err)
	}
	if left, err := os.ReadDir("."); len(left) > 0 || err != nil {
		t.Errorf("databases in memory left %v, %v", left, err)
	}
}

// waits lets several connections write at once. They all succeed, because each waits for the
// others.
func waits(t *testing.T, db *sql.DB) {
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE counter AS SELECT 0 AS n"); err != nil {
		t.Fatal(err)
	}
	count := func() error {
		conn, err := db.Conn(t.Context())
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, text := range []string{"BEGIN IMMEDIATE", "UPDATE counter SET n = n + 1", "COMMIT"} {
			if _, err := conn.ExecContext(t.Context(), text); err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		return nil
	}
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range 50 {
				if err := count(); err != nil {
					t.Errorf("a write did not wait for another: %v", err)
					return
				}
			}
		})
	}
	writers.Wait()
}

// work sends messages through three queues at once. One has a handler in a transaction, one a
// handler on the pool, and one a workflow.
func work(t *testing.T, s *pgqrs.Store) {
	install(t, s)
	const messages = 30
	first, second := pgqrs.NewQueue[int](s, "first"), pgqrs.NewQueue[int](s, "second")
	third := pgqrs.NewWorkflow[int, int](s, "third")
	ctx, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	var arrived sync.WaitGroup
	arrived.Add(messages)
	w := &pgqrs.Worker{Concurrency: 8, Handlers: []pgqrs.Handler{
		first.HandleTx(func(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[int]) error {
			_, err := second.WithTx(tx).Enqueue(ctx, m.Payload)
			return err
		}),
		second.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
			_, err := third.Start(ctx, m.Payload)
			return err
		}),
		third.Handle(func(ctx context.Context, run *pgqrs.Run, in int) (int, error) {
			defer arrived.Done()
			return pgqrs.StepTx(ctx, run, "one", func(context.Context, *sql.Tx) (int, error) { return in, nil })
		}),
	}}
	go func() {
		arrived.Wait()
		done()
	}()
	for i := range messages {
		go func() {
			if _, err := first.Enqueue(t.Context(), i); err != nil {
				t.Errorf("enqueue: %v", err)
			}
		}()
	}
	if err := w.Run(ctx); err != nil {
		t.Errorf("run: %v", err)
	}
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Error("not all messages arrived within a minute")
	}
}

// Unlinked checks that a DSN which needs a missing package is refused, and that the error names the
// import.
func Unlinked(t *testing.T, dsn, want string) {
	t.Helper()
	t.Chdir(t.TempDir())
	s, err := pgqrs.Open(t.Context(), dsn)
	if err == nil {
		t.Fatalf("%s was opened (%v)", dsn, s.Close())
	}
	if !errors.Is(err, pgqrs.ErrUnsupported) || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: error is %v; want one matching ErrUnsupported that says %q", dsn, err, want)
	}
	if left, err := os.ReadDir("."); len(left) > 0 || err != nil {
		t.Errorf("%s left %v, %v", dsn, left, err)
	}
}
