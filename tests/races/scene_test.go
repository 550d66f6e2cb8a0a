// Package races_test tests two sides of one database at the point where they meet. It stops one
// side between its statements, lets the other side finish, and then continues the first. Each order
// has one outcome.
//
// On SQLite a side within its transaction blocks the other side. So there it is stopped before it
// begins or after it has committed. Cases with an open transaction run on PostgreSQL only.
package races_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/tests/internal/tap"
	"github.com/pgqrs/pgqrs-go/tests/postgres"

	_ "github.com/lib/pq"
	_ "github.com/ncruces/go-sqlite3/driver"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// A side is a Store with connections of its own, like another process.
type side struct {
	name  string // of its connections, on PostgreSQL
	db    *sql.DB
	store *pgqrs.Store
	tap   *tap.Tap
	log   *notes
}

// A notes keeps a Store's log.
type notes struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements [io.Writer].
func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(b)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// A scene is a database and its two sides.
type scene struct {
	*testing.T
	dialect pgqrs.Dialect
	a, b    side
	another func() side // creates one more side
}

// onBoth runs a case on SQLite and on PostgreSQL.
func onBoth(t *testing.T, name string, run func(*scene)) {
	t.Helper()
	t.Run(name+" on SQLite", func(t *testing.T) {
		t.Parallel()
		run(installed(newSQLite(t)))
	})
	onPostgres(t, name, run)
}

// onPostgres runs a case on PostgreSQL.
func onPostgres(t *testing.T, name string, run func(*scene)) {
	t.Helper()
	t.Run(name+" on PostgreSQL", func(t *testing.T) {
		t.Parallel()
		run(installed(newPostgres(t)))
	})
}

func newSQLite(t *testing.T) *scene {
	dsn := sqlite.URI(t, "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_pragma=foreign_keys(on)")
	s := &scene{T: t, dialect: pgqrs.SQLite}
	s.another = func() side { return s.side("sqlite3", dsn, "") }
	s.a, s.b = s.another(), s.another()
	return s
}

func newPostgres(t *testing.T) *scene {
	dsn := postgres.Schema(t, "postgres")
	s := &scene{T: t, dialect: pgqrs.Postgres}
	s.another = func() side {
		name := "pgqrs-race-" + rand.Text()
		return s.side("postgres", dsn+" application_name="+name, name)
	}
	s.a, s.b = s.another(), s.another()
	return s
}

func (s *scene) side(driver, dsn, name string) side {
	s.Helper()
	db := sqlite.Use(s, tap.Open(s, driver, dsn))
	db.SetMaxOpenConns(pool.Max)
	log := new(notes)
	store := pgqrs.Config{Logger: slog.New(slog.NewTextHandler(log, nil))}.New(db, s.dialect)
	s.Cleanup(func() { s.must(store.Close()) })
	return side{name, db, store, tap.Of(db), log}
}

func installed(s *scene) *scene {
	s.Helper()
	s.must(s.b.store.Install(s.Context()))
	return s
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) wantError(err, target error) {
	s.Helper()
	if !errors.Is(err, target) {
		s.Fatalf("error is %v; want one matching %q", err, target)
	}
}

func equal[T comparable](s *scene, what string, got, want T) {
	s.Helper()
	if got != want {
		s.Fatalf("%s is %v; want %v", what, got, want)
	}
}

// value returns v, and fails the test on an error.
func value[T any](v T, err error) func(*scene) T {
	return func(s *scene) T {
		s.Helper()
		s.must(err)
		return v
	}
}

// async runs fn in another goroutine.
func async(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// tooLong is how long to wait for something that should happen at once.
const tooLong = time.Minute

// receive waits for a value.
func receive[T any](s *scene, what string, c <-chan T) T {
	s.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(tooLong):
		s.Fatalf("not within %v: %s", tooLong, what)
		panic("unreachable")
	}
}

// eventually waits for a condition.
func (s *scene) eventually(what string, condition func() bool) {
	s.Helper()
	deadline := time.After(tooLong)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			s.Fatalf("not within %v: %s", tooLong, what)
		case <-tick.C:
		}
	}
}

// waitsForLock reports whether a side starts to wait for the other's lock. It returns false if the
// side finishes.
func (s *scene) waitsForLock(of side, done func() bool) bool {
	s.Helper()
	waits := false
	s.eventually("it is done, or waits for a lock", func() bool {
		waits = s.inWait(of)
		return waits || done()
	})
	return waits
}

// inWait reports whether a side is waiting for a lock.
func (s *scene) inWait(of side) (waits bool) {
	s.Helper()
	s.must(s.b.db.QueryRowContext(s.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock')`, of.name).Scan(&waits))
	return waits
}

// wantWait fails the test unless a side starts to wait for the other's lock.
func (s *scene) wantWait(of side, done <-chan error) {
	s.Helper()
	if !s.waitsForLock(of, func() bool { return len(done) > 0 }) {
		s.Fatalf("it did not wait for the other's lock, but said %v", <-done)
	}
}

// begin begins a transaction of the caller.
func (s *scene) begin(of side) *sql.Tx {
	s.Helper()
	tx, err := of.db.BeginTx(s.Context(), nil)
	s.must(err)
	s.Cleanup(func() { tx.Rollback() })
	return tx
}

// expire makes the lease of a message end some seconds ago.
func (s *scene) expire(id int64, seconds int) {
	s.Helper()
	past := map[pgqrs.Dialect]string{
		pgqrs.SQLite:   `strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '-%d seconds')`,
		pgqrs.Postgres: `clock_timestamp() - %d * interval '1 second'`,
	}[s.dialect]
	_, err := s.b.db.ExecContext(s.Context(), fmt.Sprintf("UPDATE pgqrs_messages SET vt = "+past+" WHERE id = %d", seconds, id))
	s.must(err)
}

// count runs a query that counts.
func (s *scene) count(query string) int {
	s.Helper()
	var n int
	s.must(s.b.db.QueryRowContext(s.Context(), query).Scan(&n))
	return n
}

// message reads a message, or returns nil.
func (s *scene) message(id int64) *pgqrs.MessageInfo {
	s.Helper()
	ms := value(s.b.store.Messages(s.Context(), pgqrs.MessageFilter{IDs: []int64{id}}))(s)
	if len(ms) == 0 {
		return nil
	}
	return &ms[0]
}

// state returns the state of a message, or "gone".
func (s *scene) state(id int64) pgqrs.MessageState {
	s.Helper()
	if m := s.message(id); m != nil {
		return m.State
	}
	return "gone"
}

// jobs returns the cases' queue on a side.
func (of side) jobs() *pgqrs.Queue[int] { return pgqrs.NewQueue[int](of.store, "jobs") }

func (s *scene) enqueue(of side, opts ...pgqrs.Option) int64 {
	s.Helper()
	return value(of.jobs().Enqueue(s.Context(), 1, opts...))(s)
}

func (s *scene) dequeue(of side) []*pgqrs.Message[int] {
	s.Helper()
	return value(of.jobs().Dequeue(s.Context(), 10, time.Hour))(s)
}

// take leases the only ready message.
func (s *scene) take(of side) *pgqrs.Message[int] {
	s.Helper()
	ms := s.dequeue(of)
	if len(ms) != 1 {
		s.Fatalf("dequeued %d messages; want 1", len(ms))
	}
	return ms[0]
}

// kill makes a message a dead letter.
func (s *scene) kill(id int64) {
	s.Helper()
	m := s.take(s.b)
	equal(s, "the message", m.ID, id)
	s.must(s.b.jobs().Fail(s.Context(), pgqrs.Permanent(errors.New("killed")), m))
}

// claimInVain makes side b claim messages, up to the point where the statement is about to be sent.
// The returned function sends it, and wants no message.
func (s *scene) claimInVain() (ask func()) {
	s.Helper()
	claim := s.b.tap.Before(s, "pgqrs:message.claim")
	claimed := make(chan int, 1)
	done := async(func() error {
		ms, err := s.b.jobs().Dequeue(s.Context(), 10, time.Hour)
		claimed <- len(ms)
		return err
	})
	claim.Wait(s)
	return func() {
		s.Helper()
		claim.Go()
		s.must(receive(s, "Dequeue returns", done))
		equal(s, "messages claimed", <-claimed, 0)
	}
}

// work runs a worker until the test ends. Its leases outlast any case.
func (s *scene) work(handlers ...pgqrs.Handler) {
	s.Helper()
	s.run(&pgqrs.Worker{Handlers: handlers, Lease: time.Minute, PollInterval: 10 * time.Millisecond})
}

// run runs a worker until the returned function stops it or the test ends.
func (s *scene) run(w *pgqrs.Worker) (stop func()) {
	s.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.Context()))
	done := async(func() error { return w.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		s.must(receive(s, "Run returns", done))
	})
	s.Cleanup(stop)
	return stop
}
