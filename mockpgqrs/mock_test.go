package mockpgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	syncatomic "sync/atomic"
	"testing"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/pgqrs/pgqrs-go"
)

type email struct{ To string }

func emails(s *pgqrs.Store) *pgqrs.Queue[email] { return pgqrs.NewQueue[email](s, "emails") }

// An operation is a call of this package, and the call of the library that it is for.
type operation struct {
	name   string
	expect func(mock sqlmock.Sqlmock, d pgqrs.Dialect)
	call   func(ctx context.Context, s *pgqrs.Store) error
	noTx   bool // the library refuses it in a transaction of the caller
	once   bool // a Store sends it once
}

var operations = slices.Concat(queueOperations, workflowOperations, schemaOperations)

// differ returns an error if two values differ.
func differ(what string, got, want any) error {
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		return fmt.Errorf("%s is %s, want %s", what, g, w)
	}
	return nil
}

// match returns an error unless an error matches another.
func match(err, want error) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("got %v, want %w", err, want)
	}
	return nil
}

var dialects = []pgqrs.Dialect{pgqrs.Postgres, pgqrs.SQLite, pgqrs.Turso}

// run makes the call of an operation on a mock that expects it, on a Store or in a transaction. It
// returns the error of the call, or the expectations that were not met.
func (op operation) run(ctx context.Context, db *sql.DB, mock sqlmock.Sqlmock, c pgqrs.Config, d pgqrs.Dialect, inTx bool) error {
	s := c.New(db, d)
	if !inTx {
		op.expect(mock, d)
		return errors.Join(op.call(ctx, s), mock.ExpectationsWereMet())
	}
	mock.ExpectBegin()
	op.expect(WithTx(mock), d)
	mock.ExpectCommit()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	return errors.Join(op.call(ctx, s.WithTx(tx)), tx.Commit(), mock.ExpectationsWereMet())
}

// each calls a function for each operation on each dialect, on a Store and in a transaction.
func each(do func(op operation, d pgqrs.Dialect, inTx bool)) {
	for _, op := range operations {
		for _, d := range dialects {
			do(op, d, false)
			if !op.noTx {
				do(op, d, true)
			}
		}
	}
}

func (op operation) title(d pgqrs.Dialect, inTx bool) string {
	return fmt.Sprintf("%s on %s%s", op.name, d, map[bool]string{true: " in a transaction"}[inTx])
}

// newMock returns a mock, and a database by which a proxy reaches it.
func newMock(t *testing.T, p *proxy) (*sql.DB, sqlmock.Sqlmock) {
	t.Helper()
	p.name = fmt.Sprint(t.Name(), " ", mocks.Add(1))
	inner, mock, err := sqlmock.NewWithDSN(p.name)
	if err != nil {
		t.Fatal(err)
	}
	p.driver = inner.Driver()
	db := sql.OpenDB(p)
	t.Cleanup(func() {
		_, _ = db.Close(), inner.Close() // which the mock does not expect
	})
	return db, mock
}

var mocks syncatomic.Int64

// A proxy passes statements to a mock. It can change them as if the library had changed.
type proxy struct {
	driver driver.Driver
	name   string

	tag           string // of the statement to change
	args, columns int    // how many to add
	changed       bool   // an argument, or a row
	prepares      bool   // statements can be prepared
	prepared      int    // how many were prepared

	mu   sync.Mutex
	sent map[string]int // the number of arguments, by tag
}

func (p *proxy) Driver() driver.Driver { return p.driver }

func (p *proxy) Connect(context.Context) (driver.Conn, error) {
	conn, err := p.driver.Open(p.name)
	if err != nil {
		return nil, err
	}
	return &proxyConn{conn.(mockConn), p}, nil
}

// A mockConn is what a mock's connections can do.
type mockConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.QueryerContext
}

type proxyConn struct {
	mockConn
	*proxy
}

var tagOf = regexp.MustCompile(`^/\* pgqrs:([a-z_.]+) \*/`)

// change returns the arguments of a statement, and whether it is the one to change.
func (p *proxy) change(text string, args []driver.NamedValue) ([]driver.NamedValue, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	tag := tagOf.FindStringSubmatch(text)[1]
	if p.sent == nil {
		p.sent = map[string]int{}
	}
	p.sent[tag] = len(args)
	if tag != p.tag {
		return args, false
	}
	p.changed = p.changed || p.args != 0
	if p.args < 0 {
		return args[:len(args)+p.args], true
	}
	for range p.args {
		args = append(args, driver.NamedValue{Ordinal: len(args) + 1})
	}
	return args, true
}

func (c *proxyConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	args, _ = c.change(text, args)
	return c.mockConn.ExecContext(ctx, text, args)
}

func (c *proxyConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	args, it := c.change(text, args)
	rows, err := c.mockConn.QueryContext(ctx, text, args)
	if err != nil || !it {
		return rows, err
	}
	return &proxyRows{rows, c.proxy}, nil
}

func (c *proxyConn) PrepareContext(ctx context.Context, text string) (driver.Stmt, error) {
	if !c.prepares {
		return c.mockConn.PrepareContext(ctx, text)
	}
	c.prepared++
	return &proxyStmt{c, text}, nil
}

// proxyRows have more columns than the rows of the mock.
type proxyRows struct {
	driver.Rows
	*proxy
}

func (r *proxyRows) Columns() []string {
	return append(r.Rows.Columns(), make([]string, r.columns)...)
}

func (r *proxyRows) Next(values []driver.Value) error {
	own := len(values) - r.columns
	err := r.Rows.Next(values[:own])
	for i := own; err == nil && i < len(values); i++ {
		values[i], r.changed = int64(1), true // which scans into anything
	}
	return err
}

// A proxyStmt is a prepared statement whose mock expects it as if it were not prepared.
type proxyStmt struct {
	*proxyConn
	text string
}

func (s *proxyStmt) Close() error { return nil }

func (s *proxyStmt) NumInput() int { return -1 }

func (s *proxyStmt) Exec([]driver.Value) (driver.Result, error) { return nil, errors.ErrUnsupported }

func (s *proxyStmt) Query([]driver.Value) (driver.Rows, error) { return nil, errors.ErrUnsupported }

func (s *proxyStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.proxyConn.ExecContext(ctx, s.text, args)
}

func (s *proxyStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.proxyConn.QueryContext(ctx, s.text, args)
}

func TestEveryOperationSendsWhatIsExpected(t *testing.T) {
	each(func(op operation, d pgqrs.Dialect, inTx bool) {
		for _, c := range []pgqrs.Config{{}, {NoPrepare: true}} {
			db, mock := newMock(t, &proxy{})
			if err := op.run(t.Context(), db, mock, c, d, inTx); err != nil {
				t.Errorf("%s: %v", op.title(d, inTx), err)
			}
		}
	})
}

// A mock may match expectations in any order.
func TestOperationsInAnyOrder(t *testing.T) {
	each(func(op operation, d pgqrs.Dialect, inTx bool) {
		db, mock := newMock(t, &proxy{})
		mock.MatchExpectationsInOrder(false)
		if err := op.run(t.Context(), db, mock, pgqrs.Config{}, d, inTx); err != nil {
			t.Errorf("%s: %v", op.title(d, inTx), err)
		}
	})
}

// A change of the library, and the text of the error by which a mock notices it.
type change struct {
	proxy
	complaint string
}

// A mock must notice a change of the number of a statement's arguments, or of its columns.
func TestEveryOperationNoticesAChangeOfTheLibrary(t *testing.T) {
	noticed := map[string]int{}
	each(func(op operation, d pgqrs.Dialect, inTx bool) {
		if d == pgqrs.Turso { // which is like SQLite
			return
		}
		var known proxy
		db, mock := newMock(t, &known)
		if err := op.run(t.Context(), db, mock, pgqrs.Config{}, d, inTx); err != nil {
			t.Fatalf("%s: %v", op.title(d, inTx), err)
		}
		for tag, args := range known.sent {
			more := 1
			if tag == "run.get" {
				more = 3 // a listing has two more
			}
			changes := []change{{proxy{tag: tag, args: 1}, "arguments"}, {proxy{tag: tag, columns: more}, "arguments in Scan"}}
			if args > 0 {
				changes = append(changes, change{proxy{tag: tag, args: -1}, "arguments"})
			}
			for i := range changes {
				p := &changes[i].proxy
				db, mock := newMock(t, p)
				err := op.run(t.Context(), db, mock, pgqrs.Config{}, d, inTx)
				if p.changed && !strings.Contains(fmt.Sprint(err), changes[i].complaint) {
					t.Errorf("%s with %d more arguments and %d more columns of %s: %v", op.title(d, inTx), p.args, p.columns, tag, err)
				}
				if p.changed {
					noticed[tag]++
				}
			}
		}
	})
	if len(noticed) < 25 {
		t.Errorf("only %d statements were changed; the test has gone blind", len(noticed))
	}
}

// Expectations are the same after a Store has begun to prepare its statements, or has been refused.
func TestOperationsAfterManyOthers(t *testing.T) {
	for _, prepares := range []bool{false, true} {
		each(func(op operation, d pgqrs.Dialect, inTx bool) {
			if op.once || inTx || d == pgqrs.Turso || prepares && d == pgqrs.Postgres { // which looks for a pooler first
				return
			}
			p := &proxy{prepares: prepares}
			db, mock := newMock(t, p)
			s := pgqrs.New(db, d)
			for range 12 {
				op.expect(mock, d)
				if err := errors.Join(op.call(t.Context(), s), mock.ExpectationsWereMet()); err != nil {
					t.Fatalf("%s: %v", op.title(d, inTx), err)
				}
			}
			if prepares && p.prepared == 0 {
				t.Errorf("%s: nothing was prepared", op.title(d, inTx))
			}
		})
	}
}

// The package says how to make an operation fail.
func TestOperationsThatFail(t *testing.T) {
	errDisk := errors.New("disk I/O error")
	enqueue := func(ctx context.Context, s *pgqrs.Store, opts ...pgqrs.Option) error {
		_, err := emails(s).Enqueue(ctx, email{"ada"}, opts...)
		return match(err, errDisk)
	}
	for _, d := range dialects {
		for _, op := range []operation{{
			name:   "one statement",
			expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectEnqueue(mock, d, 7).WillReturnError(errDisk) },
			call:   func(ctx context.Context, s *pgqrs.Store) error { return enqueue(ctx, s) },
		}, {
			name:   "several statements",
			expect: func(mock sqlmock.Sqlmock, _ pgqrs.Dialect) { failAtBeginning(mock, errDisk) },
			call:   func(ctx context.Context, s *pgqrs.Store) error { return enqueue(ctx, s, pgqrs.Group("a")) },
		}} {
			for _, inTx := range []bool{false, true} {
				db, mock := newMock(t, &proxy{})
				if err := op.run(t.Context(), db, mock, pgqrs.Config{}, d, inTx); err != nil {
					t.Errorf("%s: %v", op.title(d, inTx), err)
				}
			}
		}
	}
}

func failAtBeginning(mock sqlmock.Sqlmock, err error) {
	if inTx(mock) {
		mock.ExpectQuery("pgqrs:group.lock").WillReturnError(err)
	} else {
		mock.ExpectBegin().WillReturnError(err)
	}
}

func TestMessageThatDoesNotMarshal(t *testing.T) {
	defer func() {
		if v := recover(); v == nil {
			t.Error("no panic")
		}
	}()
	Message(7, make(chan int))
}
