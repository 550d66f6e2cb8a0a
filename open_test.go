package pgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pgqrs/pgqrs-go/internal/dsn"
	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
	"github.com/pgqrs/pgqrs-go/internal/testkit"
)

const testKey = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"

// A linked is a driver with a name that Open looks for. Each test sets its behaviour.
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

// A server is the database of a linked driver.
type server struct {
	*fake
	dsns    []string          // of the connections that were made
	answers map[string]string // to PRAGMAs, by text
	err     func(dsn string) error
}

// serve makes the driver of a name accept settings. Its tests cannot be parallel.
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

// pragmas returns the PRAGMAs that ran since its last call.
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

func TestEveryConnectionGetsTheSettingsInOrder(t *testing.T) {
	s := serve(t, "sqlite3")
	store, err := Open(t.Context(), "sqlite:q.db?synchronous=full")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var conns []*sql.Conn
	for range 3 {
		conn, err := store.DB().Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		conn.Close()
	}
	settings := []string{"busy_timeout = 5000", "journal_mode = wal", "synchronous = full", "foreign_keys = on"}
	if got, want := s.pragmas(), slices.Concat(settings, settings, settings); !slices.Equal(got, want) {
		t.Errorf("three connections were told\n%q, want\n%q", got, want)
	}
	if got := store.Dialect(); got != SQLite {
		t.Errorf("the dialect is %s", got)
	}
}

func TestASettingThatDoesNotTakeIsAnError(t *testing.T) {
	s := serve(t, "sqlite3")
	s.answers["journal_mode = wal"] = "delete"
	_, err := Open(t.Context(), "sqlite:q.db")
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), `PRAGMA journal_mode answers "delete"; it should be "wal"`) {
		t.Errorf("error is %v", err)
	}
	s.wantClosed(t, 1)

	inner := s.answer
	s.fake.answer = func(c call) ([][]driver.Value, error) {
		if strings.Contains(c.text, "synchronous") && c.how == "run" {
			return nil, errors.New("no such thing")
		}
		return inner(c)
	}
	s.answers["journal_mode = wal"] = "wal"
	_, err = Open(t.Context(), "sqlite:q.db")
	if err == nil || !strings.Contains(err.Error(), `pgqrs: open sqlite "q.db": PRAGMA synchronous: no such thing`) {
		t.Errorf("error is %v", err)
	}
	s.wantClosed(t, 2)
}

// Another process may be turning on WAL, or may be in recovery.
func TestOpenTriesAgainWhileTheDatabaseIsLocked(t *testing.T) {
	s := serve(t, "sqlite3")
	tries := 0
	s.err = func(string) error {
		if tries++; tries < 3 {
			return errors.New("database is locked")
		}
		return nil
	}
	store, err := Open(t.Context(), "sqlite:q.db")
	if err != nil {
		t.Fatal(err)
	}
	store.Close()
}

func TestOpenGivesUpWhenItsCtxEnds(t *testing.T) {
	s := serve(t, "postgres")
	ctx, cancel := context.WithCancel(t.Context())
	entered, leave, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
	l := linkedDrivers["postgres"]
	l.open = func(string) (driver.Conn, error) {
		close(entered)
		<-leave
		return closing{fakeConn{s.fake}, left}, nil
	}
	go func() { <-entered; cancel() }()
	if _, err := Open(ctx, "postgres://h/db"); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v; want context.Canceled", err)
	}
	close(leave)
	<-left // the connection that came too late was closed
}

// A closing connection reports when it is closed.
type closing struct {
	fakeConn
	closed chan struct{}
}

func (c closing) Close() error { close(c.closed); return nil }

func TestAStoreClosesTheDatabaseThatItOpened(t *testing.T) {
	s := serve(t, "turso")
	store, err := Open(t.Context(), "turso::memory:")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
	s.wantClosed(t, 2) // the pool's connection, and the connection that kept the database
	if err := store.DB().PingContext(t.Context()); err == nil {
		t.Error("the *sql.DB of Open is open after Close")
	}

	_, store = newFake(t, Config{}, Turso, nil)
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	if err := store.DB().PingContext(t.Context()); err != nil {
		t.Errorf("the *sql.DB given to New: %v", err)
	}
}

// The connection that keeps a database in memory is outside the pool, because the pool may close
// all of its connections.
func TestADatabaseInMemoryOutlivesThePoolsConnections(t *testing.T) {
	s := serve(t, "turso")
	store, err := Open(t.Context(), "turso::memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	store.DB().SetMaxIdleConns(0)
	s.wantClosed(t, len(s.dsns)-1)
}

// A connection with a wrong key may damage the log beside the file. So the file must have been read
// without a connection first.
func TestAFileThatIsThereIsLookedAtFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "q.db")
	open := func() (*server, error) {
		s := serve(t, "sqlite3")
		s.err = func(dsn string) error {
			if strings.Contains(dsn, "immutable") {
				return errors.New("file is not a database")
			}
			return nil
		}
		store, err := Open(t.Context(), "sqlite:"+path)
		if err == nil {
			store.Close()
		}
		return s, err
	}
	if s, err := open(); err != nil || len(s.dsns) != 1 {
		t.Errorf("no file: opened %q, %v", s.dsns, err)
	}
	if err := os.WriteFile(path, []byte("something"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := open()
	if err == nil || !strings.Contains(err.Error(), "the file is not a database, or it is encrypted and there is no encryption_key (file is not a database)") {
		t.Errorf("error is %v", err)
	}
	if want := "file:" + path + "?immutable=1"; len(s.dsns) == 0 || slices.ContainsFunc(s.dsns, func(dsn string) bool { return dsn != want }) {
		t.Errorf("opened %q; want only %q", s.dsns, want)
	}
}

func TestWhatIsForOpenIsRefusedByNew(t *testing.T) {
	for _, c := range []Config{{VFS: "auto"}, {Cipher: "xts"}, {EncryptionKey: testKey}} {
		_, store := newFake(t, c, Turso, nil)
		_, err := store.Queues(t.Context())
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "Config.VFS, EncryptionKey and Cipher are for Open") {
			t.Errorf("%v: %v", c, err)
		}
		wantHidden(t, "the error", err.Error(), testKey)
	}
}

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// wantHidden fails the test if text shows the secret in upper or lower case.
func wantHidden(t *testing.T, what, text, secret string) {
	t.Helper()
	if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
		t.Errorf("%s shows the secret: %s", what, text)
	}
}

func TestTheKeyIsNotPrinted(t *testing.T) {
	c := Config{Schema: "jobs", EncryptionKey: testKey}
	serve(t, "turso")
	store, err := c.openOn(t.Context(), "turso:q.db", "linux")
	if err == nil || store != nil {
		t.Fatal("a schema was taken for Turso")
	}
	c.Schema = ""
	store, err = c.openOn(t.Context(), "turso:q.db", "linux")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()

	c.Cipher = "aegis256"
	for name, value := range map[string]any{
		"Config": c, "*Config": &c, "slice": []Config{c}, "nested": struct{ C Config }{c},
		"Store": store, "Store value": *store, "DB": store.DB(), "New's Store": c.New(store.DB(), Turso), "core": store.core, "driver": store.DB().Driver(),
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%60v"} {
			wantHidden(t, name+" by "+verb, fmt.Sprintf(verb, value), testKey)
		}
		var log strings.Builder
		for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
			slog.New(h).Info("made", "it", value)
		}
		wantHidden(t, name+" by slog", log.String(), testKey)
		data, err := json.Marshal(value)
		wantHidden(t, name+" by json", fmt.Sprint(string(data), err), testKey)
	}
	// All other fields are still there.
	if text := fmt.Sprintf("%+v", c); !strings.Contains(text, "EncryptionKey:[redacted] Cipher:aegis256") {
		t.Errorf("%%+v of a Config is %s", text)
	}
	if text := fmt.Sprintf("%+v", Config{Schema: "jobs"}); strings.Contains(text, "redacted") || !strings.Contains(text, "Schema:jobs") {
		t.Errorf("%%+v of a Config without a key is %s", text)
	}
}

// Drivers quote their DSN or a statement in errors.
func TestErrorsOfDriversAreCleaned(t *testing.T) {
	upper := strings.ToUpper(testKey)
	quoting := func(dsn string) error { return fmt.Errorf("cannot open %q at 10%%: %w", dsn, driver.ErrBadConn) }
	for _, c := range []struct{ driver, dsn, secret, want string }{
		{"turso", "turso:q.db?encryption_key=" + testKey, testKey, `"q.db?encryption_cipher=aegis256&encryption_hexkey=[redacted]&experimental=encryption" at 10%`},
		{"turso", "turso:q.db?encryption_key=" + upper, testKey, "encryption_hexkey=[redacted]&"},
		{"turso", "turso:q.db?encryption%5Fkey=" + testKey, testKey, "encryption_hexkey=[redacted]&"},
		{"postgres", "postgres://ada:hunter2@h/db", "hunter2", "postgres://ada:[redacted]@h/db"},
		{"postgres", "postgres://ada:hun%2Fter%222@h/db", "ter", "postgres://ada:[redacted]@h/db"},
		{"postgres", "postgres://ada:hun%74er2@h/db", "er2", "postgres://ada:[redacted]@h/db"},
		{"postgres", "postgres://ada:%61da@h/db", "%61da", "postgres://ada:[redacted]@h/db"},
		{"postgres", "postgres://h/db?password=hun%74er2&user=ada", "er2", "postgres://h/db?password=[redacted]&user=ada"},
		{"postgres", "postgres://h/db?user=ada&password=hunter2&sslpassword=x%26y", "hunter2", "postgres://h/db?user=ada&password=[redacted]&sslpassword=[redacted]"},
		{"postgres", "postgres://ada:ada@h/db", ":ada@", "postgres://ada[redacted]h/db"},
		{"postgres", "postgres://ada:o@h/db", ":o@", `cannot open "postgres://ada:[redacted]@h/db"`},
		{"postgres", "postgres://ada: @h/db", ": @", `cannot open "postgres://ada[redacted]h/db"`},
	} {
		s := serve(t, c.driver)
		s.err = quoting
		_, err := Open(t.Context(), c.dsn)
		if err == nil || !errors.Is(err, driver.ErrBadConn) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want one matching driver.ErrBadConn with %s", c.dsn, err, c.want)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%q"} {
			wantHidden(t, "the error by "+verb, fmt.Sprintf(verb, err), c.secret)
		}
		for cause := err; cause != nil; cause = errors.Unwrap(cause) {
			wantHidden(t, "what the error wraps", cause.Error(), c.secret)
		}
	}
}

// A holdingError is like the errors of pgx: its text is clean, but a field holds the DSN.
type holdingError struct {
	dsn   *string
	cause error
}

func (e *holdingError) Error() string { return "cannot connect: " + e.cause.Error() }
func (e *holdingError) Unwrap() error { return e.cause }

// An error of connecting holds no secret in any form, and still matches the same errors.
func TestErrorsOfConnectingHoldNoSecret(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("hunter2: %w", io.EOF)}
	for _, c := range []struct{ driver, dsn, secret string }{
		{"postgres", "postgres://ada:hunter2@h/db", "hunter2"},
		{"postgres", "postgres://h/db?password=hunter2", "hunter2"},
		{"turso", "turso:q.db?encryption_key=" + testKey, testKey},
	} {
		s := serve(t, c.driver)
		s.err = func(dsn string) error { return &holdingError{&dsn, errors.Join(refused, coded{"28P01"})} }
		_, err := Open(t.Context(), c.dsn)
		var holding *holdingError
		if where := testkit.Secret(err, c.secret, &holding, new(*net.OpError)); where != "" || holding != nil {
			t.Errorf("%s: the secret stands in %s, %v", c.dsn, where, holding)
		}
		if !errors.Is(err, io.EOF) || !errors.Is(err, coded{"28P01"}) || sqlerr.State(err) != "28P01" || !sqlerr.Unreachable(err) || !strings.Contains(err.Error(), "cannot connect: ") {
			t.Errorf("%v lost what it was", err)
		}
	}
}

// The panic of a driver is written into errors and logs.
func TestPanicsOfConnectingAreCleaned(t *testing.T) {
	s := serve(t, "postgres")
	store, err := Open(t.Context(), "postgres://ada:hunter2@h/db")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s.err = func(dsn string) error { panic("no way to " + dsn) }
	store.DB().SetMaxIdleConns(0)
	_, err = store.Queues(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no way to postgres://ada:[redacted]@h/db") {
		t.Errorf("error is %v; want one with the password taken out", err)
	}
}

// Open does not know the secrets of a pool that the application made. Errors of its connections
// hold no DSN either.
func TestErrorsOfOthersPoolsHoldNoDSN(t *testing.T) {
	for _, verb := range []string{"connect", "statement"} {
		f := &fake{answer: func(call) ([][]driver.Value, error) {
			return nil, &url.Error{Op: "parse", URL: "postgres://ada:hunter2@h", Err: coded{"28P01"}}
		}}
		db := sql.OpenDB(f)
		if verb == "connect" {
			db = sql.OpenDB(unconnected{&url.Error{Op: "parse", URL: "postgres://ada:hunter2@h", Err: coded{"28P01"}}})
		}
		defer db.Close()
		_, err := New(db, Postgres).Queues(t.Context())
		if found := (*url.Error)(nil); errors.As(err, &found) || sqlerr.State(err) != "28P01" {
			t.Errorf("%s: %v holds %v, and its code is %q", verb, err, found, sqlerr.State(err))
		}
	}
}

// An unconnected is a database that fails every connection.
type unconnected struct{ err error }

func (u unconnected) Connect(context.Context) (driver.Conn, error) { return nil, u.err }
func (u unconnected) Driver() driver.Driver                        { return nil }

// The options of any driver can hold secrets, not only those of this library.
func TestSecretsOfAnyDriverAreHidden(t *testing.T) {
	for _, text := range []string{
		"sqlite:q.db?_key=hunter2", "sqlite:q.db?_auth_pass=hunter2&x=1", "sqlite:q.db&_auth_pass=hunter2", "sqlite:q.db?hexkey=hunter2", "sqlite:q.db?textkey=hunter2",
		"sqlite:q.db?_pragma=key('hunter2')", "sqlite:q.db&_pragma=hexkey(hunter2)", "sqlite:q.db?_pragma=textkey%28%22hunter2%22%29", "libsql://h?authToken=hunter2",
		"libsql://h?auth_token=hunter2", "host=h password=hunter2 user=u", "host=h password = 'hunter2' user=u", "postgres:host=h password=hunter2", "turso:q.db?encryption_hexkey=hunter2",
		"postgres://h/db?sslpassword=hunter2", "file:q.db?KEY=hunter2", "sqlite:q.db?pass%77ord=hunter2",
		"sqlite:q.db?encryptionkey=hunter2", "sqlite:q.db;encryptionkey=hunter2", "sqlite:q.db;key=hunter2", "turso:q.db?EncryptionKey=hunter2", "sqlite:q.db;x=1&enckey=hunter2",
	} {
		if shown := dsn.SecretsOf(text, "").Hide("the driver says: " + text + ", and hunter2"); strings.Contains(shown, "hunter2") {
			t.Errorf("%s: the secret shows in %s", text, shown)
		}
		_, err := Open(t.Context(), text)
		if where := testkit.Secret(err, "hunter2"); err == nil || where != "" {
			t.Errorf("%s: the secret stands in %s: %v", text, where, err)
		}
	}
}

// A password that is not percent-encoded makes a URL malformed.
func TestPasswordsOfMalformedURLsAreHidden(t *testing.T) {
	for _, text := range []string{
		"postgres://ada:hun/ter@two@h/db", "postgres://ada:hun?ter@h/db", "postgres://ada:hun#ter@h/db", "postgres://ada:hun ter/@h/db", "postgres://ada:hun%zzter@h/db",
		"postgres://ada:hunter", "postgres:ada:hunter@h/db", "postgresql:/ada:hun/ter@h/db", "POSTGRES:ada:hunter@h/db", "postgres://ada:\"hun/ter@h/db",
	} {
		hide := dsn.SecretsOf(text, "")
		for _, shown := range []string{hide.Hide("it is " + text), hide.Hide(fmt.Sprintf("it is %q", text))} {
			if strings.Contains(shown, "hun") || strings.Contains(shown, "ter") || !strings.Contains(shown, "ada:") {
				t.Errorf("%s is shown as %s", text, shown)
			}
		}
	}
	for _, text := range []string{"postgres://ada@h:5432/db", "postgres://h:5432", "postgres:h", "sqlite:a:b@c.db"} {
		if hide := dsn.SecretsOf(text, ""); len(hide) > 0 {
			t.Errorf("%s has the secrets %q", text, []string(hide))
		}
	}
}

func TestNamesOfFilesAreNoSecrets(t *testing.T) {
	const text = "postgres://ada@h/db?sslkey=client.key&passfile=/home/ada/.pgpass"
	if hide := dsn.SecretsOf(text, ""); len(hide) > 0 {
		t.Errorf("%q are taken for secrets", []string(hide))
	}
}

func TestAKeyInThePathIsRefused(t *testing.T) {
	for text, refused := range map[string]bool{
		"sqlite:q.db;key=hunter2": true, "sqlite:q.db;encryptionkey=hunter2": true, "sqlite:q.db&hexkey=hunter2": true, "turso:q.db; encryption_key=hunter2": true,
		"sqlite:key=1.db": false, "sqlite:a;b.db": false, "sqlite:monkey.db": false,
	} {
		if _, err := dsn.Parse(text); err != nil != refused {
			t.Errorf("%s: error is %v", text, err)
		}
	}
}

// The pool also makes connections long after Open.
func TestErrorsOfLaterConnectionsAreCleaned(t *testing.T) {
	s := serve(t, "turso")
	store, err := Open(t.Context(), "turso:q.db?encryption_key="+testKey)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s.err = func(dsn string) error { return errors.New("cannot open " + dsn) }
	store.DB().SetMaxIdleConns(0)
	_, err = store.Queues(t.Context())
	if err == nil || !strings.Contains(err.Error(), "[redacted]") {
		t.Errorf("error is %v; want one with the key taken out", err)
	}
	wantHidden(t, "the error", fmt.Sprint(err), testKey)
}

func TestAnErrorWithoutSecretsIsLeftAlone(t *testing.T) {
	hide := dsn.SecretsOf("postgres://ada:hunter2@h/db", "")
	if err := errors.New("connection refused"); hide.Redact(err) != err || hide.Redact(nil) != nil {
		t.Error("an error without a secret was changed")
	}
	err := hide.Redact(fmt.Errorf("hunter2: %w", coded{"28P01"}))
	if err.Error() != "[redacted]: server says 28P01" || sqlerr.State(err) != "28P01" || !errors.Is(err, coded{"28P01"}) {
		t.Errorf("%v lost what it was", err)
	}
}

func FuzzDSN(f *testing.F) {
	for _, dsn := range []string{
		"", ":", "sqlite:", "sqlite:q.db", "sqlite://q.db?vfs=auto", "sqlite::memory:", "sqlite:q.db?vfs=memory&", "sqlite:%zz?%zz", "file:///q.db?a",
		"turso:q.db?", "turso:q.db?vfs=io_uring&mvcc=1&", "turso:q.db?cipher=aegis256&", "turso:q.db", "turso:q.db?x", "turso:q.db?x=", "turso:q%3Fb?",
		"postgres://u:p@h/db?schema=a&", "postgres://u:", "postgres://u", "postgres://", "postgres:", "postgres://u:p%zz@h/", "postgres://h/db?x=",
		"mysql://", "host=h password=", "encryption_key=", "encryption_key=1&",
	} {
		f.Add(dsn, "")
		f.Add(dsn, "&vfs=auto")
		f.Add(dsn, "%zz")
		f.Add(dsn, "@h/db")
		f.Add(dsn, "?")
		f.Add(dsn, ": @")
	}
	for _, l := range linkedDrivers {
		l.open = func(dsn string) (driver.Conn, error) { return nil, fmt.Errorf("cannot open %q, that is %s", dsn, dsn) }
	}
	// The key may stand anywhere in the DSN under its name, and the rest may be malformed. An error
	// must not show the key.
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, dsn := range []string{before + "encryption_key=" + testKey + after, before + "?encryption_key=" + testKey + after, before + after} {
			for _, config := range []Config{{}, {EncryptionKey: testKey}} {
				store, err := config.Open(context.Background(), dsn)
				if err == nil {
					store.Close()
					t.Fatalf("%q was opened on a driver that opens nothing", dsn)
				}
				wantHidden(t, "the error", err.Error(), testKey)
				if !strings.HasPrefix(err.Error(), "pgqrs: open") {
					t.Errorf("%q: %v", dsn, err)
				}
			}
		}
	})
}

func FuzzPassword(f *testing.F) {
	for _, c := range [][2]string{
		{"ada", "h/db"}, {"", "h"}, {"ada", "h/db?sslmode=disable"}, {"ada", "h:port/db"}, {"ada", "h/db#x"}, {"ada%zz", "h/db"}, {"ada", "h/d@b"}, {"ada", "h/db?schema=a&schema=b"},
		{"ada", "h/db?schema=a-b"}, {"ada", "h/db?%zz"}, {"a/b", "h"}, {"a?b", "h"}, {"a@b", "h"}, {"a:b", "h"}, {"ada", "[::1]:5432/db"}, {"ada", "h1,h2:x/db"}, {"", "@"}, {"a\x00", "h"},
	} {
		f.Add(c[0], c[1])
	}
	for _, l := range linkedDrivers {
		l.open = func(dsn string) (driver.Conn, error) { return nil, fmt.Errorf("cannot open %q, that is %s", dsn, dsn) }
	}
	const secret = "correct-horse%2Dbattery"
	// An error shows no password, for any user name and any text after the password.
	f.Fuzz(func(t *testing.T, user, rest string) {
		_, err := Open(context.Background(), "postgres://"+user+":"+secret+"@"+rest)
		if err == nil {
			t.Fatalf("%q, %q: opened on a driver that opens nothing", user, rest)
		}
		wantHidden(t, "the error", err.Error(), secret)
		wantHidden(t, "the error", err.Error(), "correct-horse-battery")
	})
}

// Drivers take the text of a private key for a file name, and quote it.
func TestPrivateKeysAreHidden(t *testing.T) {
	for _, text := range []string{
		"open -----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n: no such file",
		`cannot parse sslkey=-----BEGIN RSA PRIVATE KEY-----\nhunter2`,
		"sslkey=-----BEGIN%20EC%20PRIVATE%20KEY-----%0Ahunter2%0A-----END%20EC%20PRIVATE%20KEY-----&user=ada",
	} {
		shown := dsn.Secrets(nil).Hide(text)
		if strings.Contains(shown, "hunter2") || !strings.Contains(shown, dsn.Redacted) {
			t.Errorf("%q is shown as %q", text, shown)
		}
	}
}
