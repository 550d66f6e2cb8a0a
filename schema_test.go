package pgqrs

import (
	"database/sql/driver"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestVerifyWarnsOfTheWALResetBug(t *testing.T) {
	for engine, bad := range map[string]bool{
		"SQLite 3.38.0": true, "SQLite 3.44.5": true, "SQLite 3.44.6": false, "SQLite 3.45.1": true, "SQLite 3.50.4": true, "SQLite 3.50.6": true,
		"SQLite 3.50.7": false, "SQLite 3.51.0": true, "SQLite 3.51.2": true, "SQLite 3.51.3": false, "SQLite 3.52.0": false, "SQLite 3.53.0": false,
		"SQLite 4.0.0": false, "Turso 3.47.0": false, "SQLite": false, "PostgreSQL 15.1": false,
	} {
		warning := walResetWarning(engine, "wal", "example.org/driver")
		if (warning != "") != bad {
			t.Errorf("%s: warning %q", engine, warning)
		}
		if bad && (!strings.Contains(warning, engine) || !strings.Contains(warning, "example.org/driver")) {
			t.Errorf("%s: warning %q does not name it and its driver", engine, warning)
		}
		for _, journal := range []string{"memory", "delete", "mvcc"} {
			if warning := walResetWarning(engine, journal, "example.org/driver"); warning != "" {
				t.Errorf("%s in the mode %s: %s", engine, journal, warning)
			}
		}
	}
}

func TestEngineThatNobodyKnows(t *testing.T) {
	unknown := errors.New("syntax error near everything")
	_, s := newFake(t, Config{}, Postgres, func(call) ([][]driver.Value, error) { return nil, unknown })
	if err := s.Install(t.Context()); !errors.Is(err, unknown) || errors.Is(err, ErrUnsupported) {
		t.Errorf("Install: %v; want the database's error alone", err)
	}
}

// The database is identified only once, if it has answered.
func TestEngineIsAskedOnce(t *testing.T) {
	away := true
	f, s := newFake(t, Config{NoPrepare: true}, Postgres, func(c call) ([][]driver.Value, error) {
		switch {
		case away:
			return nil, driver.ErrBadConn
		case c.tag() == "schema.encoding":
			return row("UTF8"), nil
		}
		return row("PostgreSQL 15"), nil
	})
	if err := s.checkEngine(t.Context()); !errors.Is(err, driver.ErrBadConn) {
		t.Errorf("a database that is away: %v", err)
	}
	for _, c := range f.log() {
		if !strings.Contains(c.text, "server_version") {
			t.Errorf("a database that is away is asked for another: %s", c.text)
		}
	}
	away = false
	f.log()
	for range 3 {
		if err := s.checkEngine(t.Context()); err != nil {
			t.Error(err)
		}
	}
	f.wantLog(t, "query schema.engine", "query schema.encoding")
}

func TestEngine_Encoding(t *testing.T) {
	for encoding, refused := range map[string]bool{"UTF8": false, "UTF-8": false, "": false, "UTF-16le": true, "LATIN1": true, "SQL_ASCII": true} {
		_, s := newFake(t, Config{}, Postgres, func(c call) ([][]driver.Value, error) {
			if c.tag() == "schema.encoding" {
				return row(encoding), nil
			}
			return row("PostgreSQL 15"), nil
		})
		if err := s.checkEngine(t.Context()); errors.Is(err, ErrUnsupported) != refused || refused && !strings.Contains(err.Error(), encoding) {
			t.Errorf("encoding %q: %v", encoding, err)
		}
	}
}

func TestOpenFindsOutThatTheDatabaseIsAnother(t *testing.T) {
	s := serve(t, "postgres")
	s.fake.answer = func(c call) ([][]driver.Value, error) {
		switch {
		case c.tag() == "schema.engine" && strings.Contains(c.text, "sqlite_version"):
			return row("SQLite 3.53.0"), nil
		case c.tag() == "schema.engine", c.tag() == "schema.turso":
			return nil, errors.New("no such function: any")
		}
		return nil, nil
	}
	_, err := Open(t.Context(), "postgres://host/database")
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "this is SQLite 3.53.0, not PostgreSQL") {
		t.Errorf("error is %v", err)
	}
	s.wantClosed(t, 1)
}

// If a statement fails that shows whether the database is Turso, its error is returned.
func TestEngineThatDoesNotSayWhetherItIsTurso(t *testing.T) {
	_, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) {
		if !strings.Contains(c.text, "sqlite_version") {
			return nil, errBroken
		}
		return row("SQLite 3.53.0"), nil
	})
	if err := s.checkEngine(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("error is %v", err)
	}
}

// After Uninstall a Store behaves like a new Store.
func TestUninstallMakesTheStoreForget(t *testing.T) {
	f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.tag() == "worker.register" || c.tag() == "message.enqueue" {
			return row(int64(1)), nil
		}
		if c.tag() == "worker.heartbeat" {
			return row(int64(1), "ready"), nil
		}
		return nil, nil
	})
	q := NewQueue[int](s, "q")
	dequeue := func() {
		t.Helper()
		if _, err := q.Dequeue(t.Context(), 1, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	enqueue := func() {
		t.Helper()
		if _, err := q.Enqueue(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	dequeue()
	for range prepareAfter + 2 {
		enqueue()
	}
	f.log()
	enqueue()
	dequeue()
	f.wantLog(t, "run message.enqueue", "query message.claim", "query worker.heartbeat")
	s.collisions.Store("q", time.Now())
	if err := s.Uninstall(t.Context()); err != nil {
		t.Fatal(err)
	}
	if calls := f.log(); !slices.ContainsFunc(calls, func(c call) bool { return c.String() == "close message.enqueue" }) {
		t.Errorf("the prepared statement was not closed: %v", calls)
	}
	if _, found := s.collisions.Load("q"); found {
		t.Error("a collision is remembered")
	}
	enqueue()
	dequeue()
	f.wantLog(t, "query message.enqueue", "query worker.register", "query message.claim", "query worker.heartbeat")
}
