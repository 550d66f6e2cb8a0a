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
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
	"github.com/pgqrs/pgqrs-go/internal/testkit"
)

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// wantHidden fails the test if a secret shows, whatever its case.
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
	// What is not secret is still there.
	if text := fmt.Sprintf("%+v", c); !strings.Contains(text, "EncryptionKey:[redacted] Cipher:aegis256") {
		t.Errorf("%%+v of a Config is %s", text)
	}
	if text := fmt.Sprintf("%+v", Config{Schema: "jobs"}); strings.Contains(text, "redacted") || !strings.Contains(text, "Schema:jobs") {
		t.Errorf("%%+v of a Config without a key is %s", text)
	}
}

// Drivers quote their DSN, or the statement, in errors.
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

// A holdingError is as pgx has them: its text is clean, and it holds what it connected with.
type holdingError struct {
	dsn   *string
	cause error
}

func (e *holdingError) Error() string { return "cannot connect: " + e.cause.Error() }
func (e *holdingError) Unwrap() error { return e.cause }

// However an error of connecting is looked at, it holds no secret, and matches what it did.
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

// What a driver panics with goes into errors and logs.
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

// A pool that the application made is none of Open's. Errors of its connections hold no DSN either.
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

// An unconnected connects to nothing.
type unconnected struct{ err error }

func (u unconnected) Connect(context.Context) (driver.Conn, error) { return nil, u.err }
func (u unconnected) Driver() driver.Driver                        { return nil }

// Names of options that hold secrets are not this library's alone.
func TestSecretsOfAnyDriverAreHidden(t *testing.T) {
	for _, dsn := range []string{
		"sqlite:q.db?_key=hunter2", "sqlite:q.db?_auth_pass=hunter2&x=1", "sqlite:q.db&_auth_pass=hunter2", "sqlite:q.db?hexkey=hunter2", "sqlite:q.db?textkey=hunter2",
		"sqlite:q.db?_pragma=key('hunter2')", "sqlite:q.db&_pragma=hexkey(hunter2)", "sqlite:q.db?_pragma=textkey%28%22hunter2%22%29", "libsql://h?authToken=hunter2",
		"libsql://h?auth_token=hunter2", "host=h password=hunter2 user=u", "host=h password = 'hunter2' user=u", "postgres:host=h password=hunter2", "turso:q.db?encryption_hexkey=hunter2",
		"postgres://h/db?sslpassword=hunter2", "file:q.db?KEY=hunter2", "sqlite:q.db?pass%77ord=hunter2",
	} {
		if text := secretsOf(dsn, "").in("the driver says: " + dsn + ", and hunter2"); strings.Contains(text, "hunter2") {
			t.Errorf("%s: the secret shows in %s", dsn, text)
		}
		_, err := Open(t.Context(), dsn)
		if where := testkit.Secret(err, "hunter2"); err == nil || where != "" {
			t.Errorf("%s: the secret stands in %s: %v", dsn, where, err)
		}
	}
}

// The pool connects long after Open, too.
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
	hide := secretsOf("postgres://ada:hunter2@h/db", "")
	if err := errors.New("connection refused"); hide.from(err) != err || hide.from(nil) != nil {
		t.Error("an error without a secret was changed")
	}
	err := hide.from(fmt.Errorf("hunter2: %w", coded{"28P01"}))
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
	// Wherever the key stands in a DSN under its name, and whatever is wrong
	// with the rest, an error must not show it.
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
	// Whoever the user is, and whatever follows the password, an error does not show that.
	f.Fuzz(func(t *testing.T, user, rest string) {
		_, err := Open(context.Background(), "postgres://"+user+":"+secret+"@"+rest)
		if err == nil {
			t.Fatalf("%q, %q: opened on a driver that opens nothing", user, rest)
		}
		wantHidden(t, "the error", err.Error(), secret)
		wantHidden(t, "the error", err.Error(), "correct-horse-battery")
	})
}
