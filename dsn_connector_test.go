package pgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

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

// Another process may be turning WAL on, or be in recovery.
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

// A closing connection says when it is closed.
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
	s.wantClosed(t, 2) // the pool's, and the one that kept the database
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

// The one connection that keeps a database in memory is not of the pool, which
// may close all of its own.
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

// A connection with a wrong key may damage the log beside the file: the file
// must have been read without it first.
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
