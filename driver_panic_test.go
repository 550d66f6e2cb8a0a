package pgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// A mined is a database whose driver panics once, at one point. A connection that has panicked
// panics at every later call except Close, and records the call.
type mined struct {
	*fake
	// point is where it panics: query, next, rows close, exec, affected, begin, commit, rollback,
	// prepare, run, run next, run exec.
	point string
	tag   string // of the statement, or empty for any

	mu       sync.Mutex
	armed    bool
	asked    []string // of broken connections
	opened   int
	shut     int
	stubborn bool // Close of a broken connection panics too
	gentle   bool // Close of its rows does not panic
}

func (m *mined) Connect(context.Context) (driver.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened++
	return &minedConn{fakeConn: fakeConn{m.fake}, m: m}, nil
}

type minedConn struct {
	fakeConn
	m      *mined
	broken bool
}

// pass panics at the mined point, and on a broken connection.
func (c *minedConn) pass(point, text string) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.broken {
		c.m.asked = append(c.m.asked, point)
		panic("broken: " + point)
	}
	if c.m.armed && point == c.m.point && strings.Contains(text, c.m.tag) {
		c.m.armed, c.broken = false, true
		panic("mine at " + point)
	}
}

func (c *minedConn) Close() error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.shut++
	if c.broken && c.m.stubborn {
		panic("broken: close")
	}
	return nil
}

func (c *minedConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	c.pass("query", text)
	rows, err := c.fakeConn.QueryContext(ctx, text, args)
	return &minedRows{rows.(*fakeRows), c, text, ""}, err
}

func (c *minedConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	c.pass("exec", text)
	result, err := c.fakeConn.ExecContext(ctx, text, args)
	return minedResult{result, c, text}, err
}

func (c *minedConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	c.pass("begin", "")
	_, err := c.fakeConn.BeginTx(ctx, o)
	return c, err
}

func (c *minedConn) Commit() error   { c.pass("commit", ""); return c.fakeConn.Commit() }
func (c *minedConn) Rollback() error { c.pass("rollback", ""); return c.fakeConn.Rollback() }

func (c *minedConn) Prepare(text string) (driver.Stmt, error) {
	c.pass("prepare", text)
	stmt, err := c.fakeConn.Prepare(text)
	return &minedStmt{stmt.(fakeStmt), c}, err
}

type minedStmt struct {
	fakeStmt
	conn *minedConn
}

func (s *minedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	s.conn.pass("run", s.text)
	rows, err := s.fakeStmt.QueryContext(ctx, args)
	return &minedRows{rows.(*fakeRows), s.conn, s.text, "run "}, err
}

func (s *minedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	s.conn.pass("run exec", s.text)
	return s.fakeStmt.ExecContext(ctx, args)
}

type minedRows struct {
	*fakeRows
	conn *minedConn
	text string
	how  string
}

func (r *minedRows) Next(into []driver.Value) error {
	r.conn.pass(r.how+"next", r.text)
	return r.fakeRows.Next(into)
}

func (r *minedRows) Close() error {
	if r.conn.broken && r.conn.m.gentle {
		return nil
	}
	r.conn.pass(r.how+"rows close", r.text)
	return r.fakeRows.Close()
}

type minedResult struct {
	driver.Result
	conn *minedConn
	text string
}

func (r minedResult) RowsAffected() (int64, error) {
	r.conn.pass("affected", r.text)
	return r.Result.RowsAffected()
}

// newMined returns a Store on a mined database with one connection.
func newMined(t *testing.T, c Config, d Dialect, point, tag string) (*mined, *Store) {
	t.Helper()
	return newMinedOn(t, func(m *mined) driver.Connector { return m }, c, d, point, tag)
}

// newMinedOn is like newMined, with a driver around the mined one.
func newMinedOn(t *testing.T, around func(*mined) driver.Connector, c Config, d Dialect, point, tag string) (*mined, *Store) {
	t.Helper()
	m := &mined{fake: &fake{answer: func(call) ([][]driver.Value, error) { return row(int64(1)), nil }}, point: point, tag: tag}
	db := sql.OpenDB(around(m))
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return m, c.New(db, d)
}

// within fails the test if a call does not return soon.
func within(t *testing.T, what string, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("%s has not returned within 20 s", what)
		return nil
	}
}

// A minePoint is a call, and where the driver panics in it.
type minePoint struct {
	point, tag string
	dialect    Dialect
	config     Config
	call       func(context.Context, *Store) error
}

func enqueueOnce(ctx context.Context, s *Store) error {
	_, err := NewQueue[int](s, "q").Enqueue(ctx, 1)
	return err
}

func configureOnce(ctx context.Context, s *Store) error { return NewQueue[int](s, "q").Configure(ctx) }

// transactOnce runs a transaction of the library's own, with a query and an exec.
func transactOnce(ctx context.Context, s *Store) error {
	return s.atomic(ctx, func(c conn) error {
		if _, err := c.ids(ctx, "/* pgqrs:test.query */ SELECT 1"); err != nil {
			return err
		}
		_, err := c.exec(ctx, "/* pgqrs:test.exec */ UPDATE t")
		return err
	})
}

// rollbackOnce is like transactOnce, but fails.
func rollbackOnce(ctx context.Context, s *Store) error {
	err := s.atomic(ctx, func(conn) error { return errBroken })
	if errors.Is(err, errBroken) && !isDriverPanic(err) {
		return nil
	}
	return err
}

var minePoints = []minePoint{
	{"query", "message.enqueue", Postgres, Config{}, enqueueOnce},
	{"next", "message.enqueue", Postgres, Config{}, enqueueOnce},
	{"rows close", "message.enqueue", Postgres, Config{}, enqueueOnce},
	{"exec", "queue.make", Postgres, Config{}, configureOnce},
	{"affected", "queue.make", Postgres, Config{}, configureOnce},
	{"begin", "", Postgres, Config{}, transactOnce},
	{"exec", "open", Postgres, Config{}, transactOnce},
	{"query", "test.query", Postgres, Config{}, transactOnce},
	{"next", "test.query", Postgres, Config{}, transactOnce},
	{"rows close", "test.query", Postgres, Config{}, transactOnce},
	{"exec", "test.exec", Postgres, Config{}, transactOnce},
	{"affected", "test.exec", Postgres, Config{}, transactOnce},
	{"commit", "", Postgres, Config{}, transactOnce},
	{"rollback", "", Postgres, Config{}, rollbackOnce},
	// Transactions that begin and end by SQL texts.
	{"exec", "begin", Turso, Config{Concurrent: true}, transactOnce},
	{"query", "test.query", Turso, Config{Concurrent: true}, transactOnce},
	{"next", "test.query", Turso, Config{Concurrent: true}, transactOnce},
	{"rows close", "test.query", Turso, Config{Concurrent: true}, transactOnce},
	{"exec", "test.exec", Turso, Config{Concurrent: true}, transactOnce},
	{"exec", "commit", Turso, Config{Concurrent: true}, transactOnce},
	{"exec", "rollback", Turso, Config{Concurrent: true}, rollbackOnce},
}

func TestDriverThatPanicsFailsOneCall(t *testing.T) {
	for _, p := range minePoints {
		for _, mood := range []string{"", "stubborn", "gentle"} {
			t.Run(fmt.Sprint(p.dialect, " ", p.point, " ", p.tag, " ", mood), func(t *testing.T) {
				m, s := newMined(t, p.config, p.dialect, p.point, p.tag)
				m.stubborn, m.gentle = mood == "stubborn", mood == "gentle"
				if err := p.call(t.Context(), s); err != nil {
					t.Fatalf("before: %v", err)
				}
				for range 3 { // more often than the pool has connections
					m.armed = true
					err := within(t, "the call", func() error { return p.call(t.Context(), s) })
					if p.point == "rollback" || p.tag == "rollback" {
						if err != nil && !strings.Contains(err.Error(), "driver panicked") {
							t.Fatalf("got %v", err)
						}
					} else if err == nil || !strings.Contains(err.Error(), "the database driver panicked: mine at "+p.point) {
						t.Fatalf("got %v", err)
					}
					if err := within(t, "the next call", func() error { return p.call(t.Context(), s) }); err != nil {
						t.Fatalf("after: %v", err)
					}
				}
				m.mu.Lock()
				defer m.mu.Unlock()
				if m.armed || m.shut != 3 || m.opened != 4 {
					t.Errorf("%d connections were opened and %d closed; want 4 and 3", m.opened, m.shut)
				}
				// database/sql has no way to end rows except to call the driver.
				if asked := slices.DeleteFunc(m.asked, func(what string) bool { return what == "rows close" }); len(asked) > 0 {
					t.Errorf("broken connections were asked for %q", asked)
				}
			})
		}
	}
}

// A closed connection of SQLite keeps its transaction while it has prepared statements. So the
// transaction is rolled back before Close.
func TestDriverThatPanicsLeavesNoTransactionOpen(t *testing.T) {
	for _, d := range []Dialect{SQLite, Turso} {
		for _, point := range []string{"query", "exec", "commit"} {
			t.Run(fmt.Sprint(d, " ", point), func(t *testing.T) {
				m, s := newMined(t, Config{}, d, point, map[string]string{"query": "test.query", "exec": "test.exec"}[point])
				m.armed = true
				err := within(t, "the call", func() error { return transactOnce(t.Context(), s) })
				if err == nil || !strings.Contains(err.Error(), "mine at "+point) {
					t.Fatalf("got %v", err)
				}
				m.mu.Lock()
				defer m.mu.Unlock()
				if got := fmt.Sprint(m.asked); got != "[exec exec]" || m.shut != 1 {
					t.Errorf("the broken connection was asked for %s and closed %d times; want a BEGIN, a ROLLBACK and once", got, m.shut)
				}
			})
		}
	}
}

// A caller that waits for the connection of a pool gets another connection.
func TestDriverThatPanicsLeavesNobodyWaiting(t *testing.T) {
	m, s := newMined(t, Config{}, Postgres, "query", "")
	m.armed = true
	held := make(chan struct{})
	m.fake.answer = func(call) ([][]driver.Value, error) { return row(int64(1)), nil }
	var waiting sync.WaitGroup
	var failed atomic.Int32
	conn, err := s.DB().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			<-held
			if _, err := NewQueue[int](s, fmt.Sprint(n)).Enqueue(t.Context(), 1); err != nil {
				failed.Add(1)
			}
		}()
	}
	close(held)
	for deadline := time.Now().Add(time.Minute); s.DB().Stats().WaitCount < 5; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the five callers do not wait for a connection")
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := within(t, "an enqueue", func() error { waiting.Wait(); return nil }); err != nil || failed.Load() != 1 {
		t.Errorf("%d of 5 calls failed, want 1; %v", failed.Load(), err)
	}
}

// Only database/sql knows the connection of a prepared statement.
func TestDriverThatPanicsInAPreparedStatement(t *testing.T) {
	for _, point := range []string{"prepare", "run", "run next", "run rows close"} {
		t.Run(point, func(t *testing.T) {
			m, s := newMined(t, Config{}, SQLite, point, "message.enqueue")
			m.gentle = point == "run next"
			q := NewQueue[int](s, "q")
			if point != "prepare" {
				enqueueTimes(t, q, prepareAfter+2)
			}
			m.armed = true
			var err error
			for n := 0; n < prepareAfter+2 && err == nil; n++ {
				err = within(t, "the call", func() error { return enqueueOnce(t.Context(), s) })
			}
			switch {
			case point == "prepare" && err != nil:
				t.Fatalf("a statement that cannot be prepared: %v", err)
			case point != "prepare" && (err == nil || !strings.Contains(err.Error(), "the database driver panicked: mine at "+point)):
				t.Fatalf("got %v", err)
			}
			if m.armed {
				t.Fatal("nothing panicked")
			}
			m.fake.log()
			for range prepareAfter + 2 {
				if err := within(t, "the next call", func() error { return enqueueOnce(t.Context(), s) }); err != nil {
					t.Fatalf("after: %v", err)
				}
			}
			if n := count(m.fake.log(), "query"); n != prepareAfter+2 {
				t.Errorf("%d of the calls after ran unprepared, want all", n)
			}
			if err := within(t, "Close", s.Close); err != nil {
				t.Error(err)
			}
			if held := point == "run" || point == "run rows close"; held == (m.shut == 1) {
				// A connection that database/sql still holds is not closed.
				t.Errorf("%d connections were closed", m.shut)
			}
		})
	}
}

// A panic in user code's part of a transaction is a failure of the user code. A panic in the
// library's part is the driver's.
func TestDriverThatPanicsInATransactionOfUserCode(t *testing.T) {
	user := func(ctx context.Context, tx *sql.Tx, _ *Message[int]) error {
		var n int
		if err := tx.QueryRowContext(ctx, "/* user */ SELECT 1").Scan(&n); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "/* user */ UPDATE t")
		return err
	}
	for _, p := range []minePoint{
		{point: "begin"}, {point: "query", tag: "message.check"}, {point: "next", tag: "message.check"}, {point: "query", tag: "user"}, {point: "next", tag: "user"},
		{point: "rows close", tag: "user"}, {point: "exec", tag: "user"}, {point: "query", tag: "message.ack"}, {point: "next", tag: "message.ack"}, {point: "commit"},
	} {
		t.Run(p.point+" "+p.tag, func(t *testing.T) {
			m, s := newMined(t, Config{}, Postgres, p.point, p.tag)
			handle := func(ctx context.Context) (err error) {
				held := &MessageInfo{ID: 1, WorkerID: 3, Claim: 1, Attempt: 1, Raw: []byte(`5`), delivery: new(deliveryState)}
				if bad := foreign.Catch(func() { err = NewQueue[int](s, "q").HandleTx(user).work(ctx, held) }); bad != nil {
					return bad
				}
				return err
			}
			for range 3 {
				m.armed = true
				ctx, cancel := context.WithCancel(t.Context())
				err := within(t, "the handler", func() error { return handle(ctx) })
				if err == nil || !strings.Contains(err.Error(), "mine at "+p.point) && !strings.Contains(err.Error(), "panic: broken: rows close") {
					t.Fatalf("got %v", err)
				}
				if want := p.tag == "user"; isDriverPanic(err) == want {
					t.Errorf("whether it is the driver's: %v", !want)
				}
				cancel() // database/sql must not call the driver again
				if err := within(t, "the next handler", func() error { return handle(t.Context()) }); err != nil {
					t.Fatalf("after: %v", err)
				}
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.shut != 3 {
				t.Errorf("%d connections were closed, want 3", m.shut)
			}
			if asked := slices.DeleteFunc(m.asked, func(what string) bool { return what == "rows close" }); len(asked) > 0 {
				t.Errorf("broken connections were asked for %q", asked)
			}
		})
	}
}

// Columns is called for the name of a column that could not be scanned.
func (r *minedRows) Columns() []string {
	if r.columns != nil {
		r.conn.pass("columns", r.text)
	}
	return r.fakeRows.Columns()
}

// A panic in Scan leaves a lock held that Close waits for.
func TestDriverThatPanicsInScan(t *testing.T) {
	m, s := newMined(t, Config{}, Postgres, "columns", "message.enqueue")
	m.armed = true
	m.fake.answer = func(call) ([][]driver.Value, error) { return row("no number"), nil }
	ctx, cancel := context.WithCancel(t.Context())
	err := within(t, "the call", func() error { return enqueueOnce(ctx, s) })
	if err == nil || !strings.Contains(err.Error(), "the database driver panicked: mine at columns") {
		t.Errorf("got %v", err)
	}
	cancel()
	m.fake.answer = func(call) ([][]driver.Value, error) { return row(int64(1)), nil }
	if err := within(t, "the next call", func() error { return enqueueOnce(t.Context(), s) }); err != nil {
		t.Errorf("after: %v", err)
	}
	if m.shut != 1 {
		t.Errorf("%d connections were closed, want 1", m.shut)
	}
}
