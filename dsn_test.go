package pgqrs

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
)

const testKey = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"

// A linked is a driver under a name that Open looks for. Each test says what
// it does with a DSN.
type linked struct {
	mu   sync.Mutex
	open func(dsn string) (driver.Conn, error)
}

func (l *linked) Open(dsn string) (driver.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		return nil, errors.New("no test is using this driver")
	}
	return l.open(dsn)
}

var linkedDrivers = map[string]*linked{"postgres": {}, "sqlite3": {}, "turso": {}}

func init() {
	for name, l := range linkedDrivers {
		sql.Register(name, l)
	}
}

// A server is what a linked driver connects to in a test.
type server struct {
	*fake
	dsns    []string          // of the connections that were made
	answers map[string]string // to PRAGMAs
	err     func(dsn string) error
}

// serve has the driver of a name answer as settings that took do. Its tests cannot be parallel.
func serve(t *testing.T, name string) *server {
	s := &server{answers: map[string]string{"journal_mode = wal": "wal"}}
	s.fake = &fake{answer: func(c call) ([][]driver.Value, error) {
		pragma, _ := strings.CutPrefix(c.text, "PRAGMA ")
		if answer, ok := s.answers[pragma]; ok && c.how == "run" {
			return row([]byte(answer)), nil
		}
		return nil, nil
	}}
	l := linkedDrivers[name]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = func(dsn string) (driver.Conn, error) {
		s.dsns = append(s.dsns, dsn)
		if s.err != nil {
			if err := s.err(dsn); err != nil {
				return nil, err
			}
		}
		return fakeConn{s.fake}, nil
	}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.open = nil
	})
	return s
}

// pragmas returns the PRAGMAs that ran since it was last called.
func (s *server) pragmas() []string {
	var list []string
	for _, c := range s.log() {
		if pragma, ok := strings.CutPrefix(c.text, "PRAGMA "); ok && c.how == "run" {
			list = append(list, pragma)
		}
	}
	return list
}

func TestDSNsThatAreRefused(t *testing.T) {
	key := "encryption_key=" + testKey
	for _, c := range []struct {
		dsn    string
		config Config
		want   string
	}{
		{"", Config{}, "the DSN has no scheme; begin it with postgres:, postgresql:, sqlite:, turso: or file:"},
		{"queue.db", Config{}, "no scheme"},
		{":memory:", Config{}, "no scheme"},
		{"host=localhost password=hunter2:x", Config{}, "no scheme"},
		{"mysql://root:hunter2@localhost/db", Config{}, `unknown scheme "mysql"; use postgres:, postgresql:, sqlite:, turso: or file:`},
		{"SQLITE:q.db", Config{}, `unknown scheme "SQLITE"`},

		{"sqlite:", Config{}, "names no file; write sqlite:PATH or sqlite::memory:"},
		{"turso://?vfs=auto", Config{}, "names no file; write turso:PATH or turso::memory:"},
		{"sqlite:q%zz.db", Config{}, "malformed percent-encoding in the path"},
		{"sqlite:q%00.db", Config{}, "zero byte"},
		{"turso:q.db&" + key, Config{}, "encryption_key stands in the path; options begin with ?"},
		{"turso:q%3F.db", Config{}, "the driver turso cannot open a path with a question mark"},

		{"sqlite:q.db?cache=shared", Config{}, `unknown option "cache"; sqlite has cipher, encryption_key, mvcc, synchronous, vfs`},
		{"sqlite:q.db?schema=jobs", Config{}, `unknown option "schema"`},
		{"sqlite:q.db?_pragma=busy_timeout(1)", Config{}, `unknown option "_pragma"`},
		{"sqlite:q.db?VFS=auto", Config{}, `unknown option "VFS"`},
		{"sqlite:q.db?vfs=auto&vfs=auto", Config{}, `option "vfs" is given twice`},
		{"turso:q.db?" + key + "&" + key, Config{}, `option "encryption_key" is given twice`},
		{"sqlite:q.db?vfs", Config{}, "vfs=; it can be auto, syscall, io_uring, memory"},
		{"sqlite:q.db?vfs=floppy", Config{}, "vfs=floppy; it can be auto, syscall, io_uring, memory"},
		{"sqlite:q.db", Config{VFS: "floppy"}, `Config.VFS is "floppy"; it can be auto, syscall, io_uring, memory`},
		{"sqlite:q.db?synchronous=off", Config{}, "synchronous=off; it can be full, normal"},
		{"turso:q.db?mvcc=yes", Config{}, "mvcc=yes; it can be 0, 1"},
		{"sqlite:q.db?vfs=%zz", Config{}, `malformed percent-encoding in the value of the option "vfs"`},
		{"sqlite:q.db?v%zz=auto", Config{}, `malformed percent-encoding in the option "v%zz"`},
		{"turso:q.db?" + key + "%zz", Config{}, `malformed percent-encoding in the value of the option "encryption_key"`},

		{"turso:q.db?encryption_key=", Config{}, `option "encryption_key" is empty`},
		{"turso:q.db?" + key + "0", Config{}, "encryption_key is not hexadecimal"},
		{"turso:q.db", Config{EncryptionKey: testKey[:62] + "xy"}, "encryption_key is not hexadecimal"},
		{"turso:q.db?cipher=", Config{}, `option "cipher" is empty`},
		{"turso:q.db?cipher=aegis256", Config{}, "cipher=aegis256 without encryption_key"},
		{"turso:q.db?cipher=rot13&" + key, Config{}, "cipher=rot13: the driver turso (github.com/pgqrs/pgqrs-go) does not have it; it has aegis256, aegis256x2"},
		{"turso:q.db?cipher=aegis128l&" + key, Config{}, "encryption_key has 32 bytes; the cipher aegis128l takes 16"},
		{"turso:q.db?encryption_key=00ff", Config{}, "encryption_key has 2 bytes; the cipher aegis256 takes 32"},
		{"sqlite:q.db?" + key, Config{}, "encryption_key: the driver sqlite3 (github.com/pgqrs/pgqrs-go) has no encryption; sqlite3 of github.com/ncruces/go-sqlite3, turso and libsql have"},
		{"turso::memory:?" + key, Config{}, "a database in memory has no file to encrypt"},
		{"turso:q.db?vfs=memory&" + key, Config{}, "a database in memory has no file to encrypt"},
		{"turso::memory:?vfs=syscall", Config{}, "vfs=syscall: a database in memory has no file"},
		{"sqlite:q.db?vfs=io_uring", Config{}, "vfs=io_uring: the driver sqlite3 (github.com/pgqrs/pgqrs-go) does not have it; turso (turso.tech/database/tursogo) has"},
		{"sqlite:q.db?mvcc=1", Config{}, "mvcc=1: the driver sqlite3 (github.com/pgqrs/pgqrs-go) has no BEGIN CONCURRENT; turso (turso.tech/database/tursogo) has"},
		{"sqlite:q.db", Config{Concurrent: true}, "mvcc=1: the driver sqlite3"},

		{"turso:q.db?mvcc=0", Config{Concurrent: true}, "mvcc=0 and Config.Concurrent disagree"},
		{"turso:q.db?vfs=auto", Config{VFS: "syscall"}, "the option vfs and Config.VFS disagree"},
		{"turso:q.db?" + key + "&cipher=aegis256", Config{Cipher: "aes256gcm"}, "the option cipher and Config.Cipher disagree"},
		{"turso:q.db?" + key, Config{EncryptionKey: strings.Repeat("00", 32)}, "the option encryption_key and Config.EncryptionKey disagree"},
		{"postgres://h/db?schema=a", Config{Schema: "b"}, "the option schema and Config.Schema disagree"},

		{"postgres:db", Config{}, "not of the form postgres://user:password@host/database"},
		{"postgres://u:hun%zzter2@h/db", Config{}, "not a valid URL; percent-encode what is not a letter or digit"},
		{"postgres://u:hun/ter2@h/db", Config{}, "not a valid URL"},
		{"postgres://u:12/hunter2@h/db", Config{}, "not a valid URL"},
		{"postgres://u:hunter2", Config{}, "not a valid URL"},
		{"postgres://u:hunter2,h:1/db", Config{}, "not a valid URL"},
		{"postgres://u:12#hunter2@h/db", Config{}, "not a valid URL"},
		{"postgres://u:12?hunter2@h/db", Config{}, "not a valid URL"},
		{"postgres://h/db?vfs=auto", Config{}, `option "vfs" is not one of PostgreSQL; sqlite: and turso: have it`},
		{"postgres://h/db?" + key, Config{}, `option "encryption_key" is not one of PostgreSQL`},
		{"postgres://h/db", Config{EncryptionKey: testKey}, "Config.EncryptionKey is not for PostgreSQL"},
		{"postgres://h/db", Config{Concurrent: true}, "postgres has no BEGIN CONCURRENT"},
		{"postgres://h/db?schema=a&schema=a", Config{}, `option "schema" is given twice`},
		{"postgres://h/db?schema=", Config{}, `option "schema" is empty`},
		{"postgres://h/db?schema=1;drop", Config{}, "not a plain identifier"},
		{"postgres://h/db?application_name=%zz", Config{}, `malformed percent-encoding in the value of the option "application_name"`},
		{"sqlite:q.db", Config{Schema: "jobs"}, "only PostgreSQL has schemas"},
	} {
		t.Run(c.dsn, func(t *testing.T) {
			for name := range linkedDrivers {
				serve(t, name)
			}
			s, err := c.config.Open(t.Context(), c.dsn)
			if err == nil {
				t.Fatalf("opened %s", errors.Join(s.Close()))
			}
			if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "pgqrs: open") {
				t.Errorf("error is %v; want one matching ErrUnsupported that says %q", err, c.want)
			}
			for _, secret := range []string{testKey, "hunter2", "ter2"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("a secret shows in %v", err)
				}
			}
		})
	}
}

// What each driver is given, and what each of its connections is told.
func TestWhatDriversAreGiven(t *testing.T) {
	const setup = "busy_timeout = 5000, journal_mode = wal, synchronous = normal, foreign_keys = on"
	short := testKey[:32]
	for _, c := range []struct {
		kind             *kind
		dsn              string
		want, look, told string
	}{
		{plainKind, "sqlite:q.db", "file:q.db", "file:q.db?immutable=1", setup},
		{plainKind, "sqlite://dir/q.db", "file:dir/q.db", "file:dir/q.db?immutable=1", setup},
		{plainKind, "sqlite:///var/q.db", "file:/var/q.db", "file:/var/q.db?immutable=1", setup},
		{plainKind, "sqlite:////var/q.db", "file:/var/q.db", "file:/var/q.db?immutable=1", setup},
		{plainKind, "sqlite:a b%25%3F%23&=+ü.db", "file:a%20b%25%3F%23&=+%C3%BC.db", "file:a%20b%25%3F%23&=+%C3%BC.db?immutable=1", setup},
		{plainKind, "sqlite:q.db?vfs=auto&mvcc=0&", "file:q.db", "file:q.db?immutable=1", setup},
		{plainKind, "sqlite:q.db?synchronous=full", "file:q.db", "file:q.db?immutable=1", strings.Replace(setup, "normal", "full", 1)},
		{plainKind, "sqlite:jobs?vfs=memory", "file:/jobs?vfs=memdb", "", strings.Replace(setup, "journal_mode = wal, ", "", 1)},
		{ncrucesKind, "sqlite:q.db", "file:q.db", "file:q.db?immutable=1", setup},
		{ncrucesKind, "sqlite:q.db?encryption_key=" + strings.ToUpper(testKey), "file:q.db?vfs=adiantum", "file:q.db?immutable=1&vfs=adiantum", "hexkey = '" + testKey + "', " + setup},
		{ncrucesKind, "sqlite:q.db?cipher=xts&encryption_key=" + testKey + testKey, "file:q.db?vfs=xts", "file:q.db?immutable=1&vfs=xts", "hexkey = '" + testKey + testKey + "', " + setup},
		{libsqlKind, "turso:q.db", "file:q.db", "file:q.db?immutable=1", setup},
		{libsqlKind, "file:q.db?encryption_key=" + testKey, "file:q.db", "file:q.db?immutable=1", "cipher = 'aes256cbc', hexkey = '" + testKey + "', " + setup},
		{libsqlKind, "turso:jobs?vfs=memory", "file:/jobs?vfs=memdb", "", strings.Replace(setup, "journal_mode = wal, ", "", 1)},
		{tursoKind, "turso:a b%25&.db", "a b%&.db", "", "busy_timeout = 5000, synchronous = normal, foreign_keys = on"},
		{tursoKind, "file:///var/q.db?mvcc=1", "/var/q.db", "", "busy_timeout = 0, synchronous = normal, foreign_keys = on"},
		{tursoKind, "turso:q.db?vfs=io_uring", "q.db?vfs=io_uring", "", "busy_timeout = 5000, synchronous = normal, foreign_keys = on"},
		{tursoKind, "turso:q.db?vfs=syscall", "q.db?vfs=syscall", "", "busy_timeout = 5000, synchronous = normal, foreign_keys = on"},
		{tursoKind, "turso:jobs?vfs=memory", "pgqrs-memory-jobs?vfs=memory", "", "busy_timeout = 5000, synchronous = normal, foreign_keys = on"},
		{tursoKind, "turso:q.db?encryption_key=" + testKey, "q.db?encryption_cipher=aegis256&encryption_hexkey=" + testKey + "&experimental=encryption", "", "busy_timeout = 5000, synchronous = normal, foreign_keys = on"},
		{tursoKind, "turso:q.db?cipher=aes128gcm&encryption_key=" + short, "q.db?encryption_cipher=aes128gcm&encryption_hexkey=" + short + "&experimental=encryption", "", "busy_timeout = 5000, synchronous = normal, foreign_keys = on"},
		{plainKind, "postgres://u:p%40@h:1,i:2/db?sslmode=disable&schema=jobs&x=a%20b", "postgres://u:p%40@h:1,i:2/db?sslmode=disable&x=a%20b", "", ""},
		{plainKind, "postgres://[::1]:5432,[fe80::1]/db", "postgres://[::1]:5432,[fe80::1]/db", "", ""},
		{plainKind, "postgresql:///db?host=/run&schema=jobs", "postgresql:///db?host=/run", "", ""},
		{plainKind, "postgres://h/db?schema=jobs", "postgres://h/db", "", ""},
	} {
		src, err := parseDSN(c.dsn)
		if err == nil {
			err = src.merge(&Config{})
		}
		src.goos = "linux"
		if err != nil {
			t.Errorf("%s: %v", c.dsn, err)
			continue
		}
		p, err := found{kind: c.kind}.plan(src)
		var told []string
		for _, s := range append(slices.Clone(p.unlock), p.setup...) {
			told = append(told, s.name+" = "+s.value)
		}
		if slices.ContainsFunc(p.unlock, func(s setting) bool { return s.want == "" }) {
			t.Errorf("%s: nothing tells whether the key was taken", c.dsn)
		}
		if got := strings.Join(told, ", "); err != nil || p.dsn != c.want || p.look != c.look || got != c.told {
			t.Errorf("%s:\n gives %q, %q, %s, %v\n want  %q, %q, %s", c.dsn, p.dsn, p.look, got, err, c.want, c.look, c.told)
		}
	}
}

func TestEachStoreHasAnInMemoryDatabaseOfItsOwn(t *testing.T) {
	s := serve(t, "turso")
	for range 2 {
		store, err := Open(t.Context(), "turso::memory:")
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
	}
	if len(s.dsns) != 4 || s.dsns[0] != s.dsns[1] || s.dsns[2] != s.dsns[3] || s.dsns[0] == s.dsns[2] {
		t.Errorf("two Stores opened %q; want each one name twice: to keep the database, and to use it", s.dsns)
	}
}

func TestTheLogSaysThatIoUringFallsBack(t *testing.T) {
	for goos, want := range map[string]string{"darwin": "q.db?vfs=syscall", "linux": "q.db?vfs=io_uring"} {
		s := serve(t, "turso")
		var log strings.Builder
		store, err := Config{VFS: "io_uring", Logger: textLogger(&log)}.openOn(t.Context(), "turso:q.db", goos)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		if said := strings.Contains(log.String(), "vfs=io_uring is there on Linux only; using syscall"); s.dsns[0] != want || said != (goos == "darwin") {
			t.Errorf("%s: opened %q, want %q; logged %q", goos, s.dsns[0], want, log.String())
		}
	}
}

func TestDriversAreFoundByNameInOrder(t *testing.T) {
	for _, c := range []struct {
		dialect    Dialect
		registered []string
		want       string // the driver, or of the error
	}{
		{Postgres, []string{"pgx", "postgres", "sqlite3"}, "postgres"},
		{SQLite, []string{"sqlite", "sqlite3", "turso"}, "sqlite3"},
		{Turso, []string{"libsql", "sqlite3", "turso"}, "turso"},
		{Postgres, []string{"sqlite3", "turso"}, "no driver for postgres is linked in; import github.com/lib/pq or github.com/jackc/pgx/v5/stdlib"},
		{SQLite, nil, "no driver for sqlite is linked in; import github.com/ncruces/go-sqlite3/driver, modernc.org/sqlite or github.com/mattn/go-sqlite3"},
		{Turso, []string{"sqlite3"}, "no driver for turso is linked in; import turso.tech/database/tursogo or github.com/tursodatabase/go-libsql"},
	} {
		f, err := find(c.dialect, c.registered)
		if err != nil && (!errors.Is(err, ErrUnsupported) || !strings.HasSuffix(err.Error(), c.want)) {
			t.Errorf("%s among %q: %v, want %s", c.dialect, c.registered, err, c.want)
		}
		if err == nil && f.driver != linkedDrivers[c.want] {
			t.Errorf("%s among %q: found %s, want %s", c.dialect, c.registered, f.label, c.want)
		}
	}
	for pkg, want := range map[string]*kind{
		"github.com/ncruces/go-sqlite3/driver": ncrucesKind, "github.com/mattn/go-sqlite3": plainKind, "modernc.org/sqlite": plainKind,
		"github.com/tursodatabase/go-libsql": libsqlKind, "example.com/wrapper": plainKind,
	} {
		if got := kindOf("sqlite3", pkg); got != want {
			t.Errorf("a driver of %s is taken for another", pkg)
		}
	}
	if kindOf("turso", "turso.tech/database/tursogo") != tursoKind {
		t.Error("the driver turso is taken for another")
	}
}
