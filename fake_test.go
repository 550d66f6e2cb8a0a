package pgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fake is a database that answers by a function and records its calls. It serves tests that
// sqlmock cannot express: prepared statements, lost connections, and workers under a fake clock.
type fake struct {
	answer func(call) ([][]driver.Value, error)

	// If strict is set, a statement whose ctx ends meanwhile fails. Otherwise it is executed
	// nevertheless.
	strict bool

	mu     sync.Mutex
	calls  []call
	closed int // connections
}

// A call is one call that reached the fake.
type call struct {
	how  string // query, exec, prepare, run (of a prepared statement), begin, commit, rollback
	text string
	args []driver.NamedValue
	at   time.Time
	ctx  context.Context
}

// tag returns the statement's tag without its "pgqrs:".
func (c call) tag() string {
	_, rest, _ := strings.Cut(c.text, "/* pgqrs:")
	tag, _, _ := strings.Cut(rest, " */")
	return tag
}

func (c call) String() string { return strings.TrimSpace(c.how + " " + c.tag()) }

// newFake returns a Store on a fake. A nil answer gives id 1 to every query.
func newFake(t testing.TB, c Config, d Dialect, answer func(call) ([][]driver.Value, error)) (*fake, *Store) {
	t.Helper()
	if answer == nil {
		answer = func(call) ([][]driver.Value, error) { return row(int64(1)), nil }
	}
	f := &fake{answer: answer}
	db := sql.OpenDB(f)
	t.Cleanup(func() { db.Close() })
	return f, c.New(db, d)
}

func row(values ...driver.Value) [][]driver.Value { return [][]driver.Value{values} }

// ask checks ctx as a careful driver does.
func (f *fake) ask(ctx context.Context, c call) ([][]driver.Value, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.at, c.ctx = time.Now(), ctx
	f.mu.Lock()
	f.calls = append(f.calls, c)
	f.mu.Unlock()
	rows, err := f.answer(c)
	if f.strict && err == nil {
		err = ctx.Err()
	}
	return rows, err
}

// log returns the calls since its last call.
func (f *fake) log() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// wantLog fails the test unless exactly these calls were made since the last check.
func (f *fake) wantLog(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, c := range f.log() {
		got = append(got, c.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("the database was asked\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func (f *fake) wantClosed(t *testing.T, want int) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed != want {
		t.Errorf("%d connections were closed, want %d", f.closed, want)
	}
}

func (f *fake) Connect(context.Context) (driver.Conn, error) { return fakeConn{f}, nil }
func (f *fake) Driver() driver.Driver                        { return f }
func (f *fake) Open(string) (driver.Conn, error)             { return fakeConn{f}, nil }

type fakeConn struct{ *fake }

func (c fakeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
	return nil
}

func (c fakeConn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx records the isolation level in place of a tag.
func (c fakeConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	_, err := c.ask(ctx, call{how: "begin", text: "/* pgqrs:" + sql.IsolationLevel(o.Isolation).String() + " */"})
	return c, err
}

func (c fakeConn) Commit() error {
	_, err := c.ask(context.Background(), call{how: "commit"})
	return err
}
func (c fakeConn) Rollback() error {
	_, err := c.ask(context.Background(), call{how: "rollback"})
	return err
}

func (c fakeConn) Prepare(text string) (driver.Stmt, error) {
	_, err := c.ask(context.Background(), call{how: "prepare", text: text})
	return fakeStmt{c, text}, err
}

func (c fakeConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.ask(ctx, call{how: "query", text: text, args: args})
	return &fakeRows{left: rows}, err
}

func (c fakeConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	rows, err := c.ask(ctx, call{how: "exec", text: text, args: args})
	return driver.RowsAffected(len(rows)), err
}

type fakeStmt struct {
	c    fakeConn
	text string
}

func (s fakeStmt) Close() error {
	_, err := s.c.ask(context.Background(), call{how: "close", text: s.text})
	return err
}
func (s fakeStmt) NumInput() int { return -1 }

func (s fakeStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := s.c.ask(ctx, call{how: "run", text: s.text, args: args})
	return &fakeRows{left: rows}, err
}

func (s fakeStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	rows, err := s.c.ask(ctx, call{how: "run", text: s.text, args: args})
	return driver.RowsAffected(len(rows)), err
}

func (s fakeStmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }
func (s fakeStmt) Query([]driver.Value) (driver.Rows, error)  { return nil, driver.ErrSkip }

type fakeRows struct {
	left    [][]driver.Value
	columns []string
}

func (r *fakeRows) Columns() []string {
	if r.columns == nil {
		r.columns = []string{"id"}
		if len(r.left) > 0 {
			r.columns = make([]string, len(r.left[0]))
		}
	}
	return r.columns
}

func (r *fakeRows) Close() error { return nil }

func (r *fakeRows) Next(into []driver.Value) error {
	if len(r.left) == 0 {
		return io.EOF
	}
	copy(into, r.left[0])
	r.left = r.left[1:]
	return nil
}

// A coded is an error with a PostgreSQL code, as lib/pq and pgx return it.
type coded struct{ state string }

func (e coded) Error() string    { return "server says " + e.state }
func (e coded) SQLState() string { return e.state }

// newTestLoop returns the dispatch loop of a Worker whose middleware and batch handlers work.
func newTestLoop(t testing.TB, w *Worker) *dispatchLoop {
	t.Helper()
	r, err := newRunner(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return newDispatchLoop(r)
}

// The exported functions below are for the tests of package pgqrs_test.

// Work handles a message like a Worker that has claimed it.
func (h Handler) Work(ctx context.Context, m *MessageInfo) error {
	m.delivery = new(deliveryState)
	return h.work(ctx, m)
}

// Bury ends a run whose message has used up its attempts, like a Worker.
func (s *Store) Bury(ctx context.Context, m *MessageInfo, cause error) error {
	return s.failRun(ctx, m, cause, "")
}

// InRun returns the ctx that a run's function gets.
func InRun(ctx context.Context) context.Context {
	return context.WithValue(ctx, runKey{}, newExecution(nil, "test", nil))
}

// InStep returns the ctx that a step's function gets.
func InStep(ctx context.Context) context.Context {
	return context.WithValue(InRun(ctx), stepKey{}, &stepScope{run: newExecution(nil, "test", nil), name: "outer"})
}

// Tick creates the rows of the schedules and runs what is due, like a Worker that starts.
func (w *Worker) Tick(ctx context.Context) error {
	settings, err := w.settings()
	if err != nil {
		return err
	}
	r, err := newRunner(ctx, settings)
	if err != nil {
		return err
	}
	k := r.scheduler
	if err := k.register(ctx); err != nil {
		return err
	}
	k.runDue(ctx)
	k.waitForRunning()
	return nil
}
