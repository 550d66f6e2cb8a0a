package pgqrs_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/pgqrs/pgqrs-go"
)

// A statement is a statement that an operation is expected to send.
type statement struct {
	how     string // query, exec, or a call of database/sql: begin, commit, rollback
	tag     string
	args    []driver.Value
	rows    [][]driver.Value
	columns int
	err     error
	on      pgqrs.Dialect // the dialect that sends it, or empty for both
}

// onPostgres returns statements that are sent on PostgreSQL only.
func onPostgres(list ...statement) []statement { return onDialect(pgqrs.Postgres, list) }

// onSQLite returns statements that are sent on SQLite only.
func onSQLite(list ...statement) []statement { return onDialect(pgqrs.SQLite, list) }

func onDialect(d pgqrs.Dialect, list []statement) []statement {
	list = slices.Clone(list)
	for i := range list {
		list[i].on = d
	}
	return list
}

// query expects a Query of a tag and arguments that returns no rows.
func query(tag string, args ...driver.Value) statement {
	return statement{how: "query", tag: tag, args: args, columns: 1}
}

// exec expects an Exec of a tag and arguments.
func exec(tag string, args ...driver.Value) statement {
	return statement{how: "exec", tag: tag, args: args}
}

// The calls of database/sql in transactions of the caller or of user code.
var (
	txBegin    = statement{how: "begin"}
	txCommit   = statement{how: "commit"}
	txRollback = statement{how: "rollback"}
)

// ownBegin begins a transaction of the library's own.
var ownBegin = statement{how: "own begin"}

// parts returns the parts of the statement that the mock sees.
func (s statement) parts() []statement {
	if s.how != "own begin" {
		return []statement{s}
	}
	return onDialect(s.on, []statement{txBegin, exec("open")})
}

// row adds a row to what a query returns.
func (s statement) row(values ...driver.Value) statement {
	s.rows, s.columns = append(s.rows[:len(s.rows):len(s.rows)], values), len(values)
	return s
}

// ids adds a row for each id.
func (s statement) ids(ids ...int64) statement {
	for _, id := range ids {
		s = s.row(id)
	}
	return s
}

func (s statement) fails(err error) statement {
	s.err = err
	return s
}

// expect registers the statement with a mock.
func (s statement) expect(mock sqlmock.Sqlmock) {
	switch s.how {
	case "begin":
		mock.ExpectBegin()
		return
	case "commit":
		mock.ExpectCommit()
		return
	case "rollback":
		mock.ExpectRollback()
		return
	case "exec":
		e := mock.ExpectExec(s.tag).WithArgs(s.args...).WillReturnResult(sqlmock.NewResult(0, int64(len(s.rows))))
		if s.err != nil {
			e.WillReturnError(s.err)
		}
		return
	}
	rows := sqlmock.NewRows(make([]string, s.columns))
	for _, values := range s.rows {
		rows.AddRow(values...)
	}
	e := mock.ExpectQuery(s.tag).WithArgs(s.args...).WillReturnRows(rows)
	if s.err != nil {
		e.WillReturnError(s.err)
	}
}

// byTag matches statements by their whole tag. It is stricter than the regular expressions of
// users.
var byTag = sqlmock.QueryMatcherFunc(func(tag, actual string) error {
	if !strings.HasPrefix(actual, "/* pgqrs:"+tag+" */") {
		return fmt.Errorf("want the tag %s, got %.50q", tag, actual)
	}
	return nil
})

// newMock returns a Store on a mock that expects the statements in order, and nothing else: no
// BEGIN, no Prepare. It fails the test if a statement is not sent.
func newMock(t *testing.T, d pgqrs.Dialect, want ...statement) (*pgqrs.Store, sqlmock.Sqlmock) {
	t.Helper()
	return newMockWith(t, pgqrs.Config{}, d, want...)
}

// newMockWith is like newMock, for a Store with settings.
func newMockWith(t *testing.T, c pgqrs.Config, d pgqrs.Dialect, want ...statement) (*pgqrs.Store, sqlmock.Sqlmock) {
	t.Helper()
	db, mock, err := sqlmock.New(sqlmock.QueryMatcherOption(byTag))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range want {
		if s.on != "" && s.on != d {
			continue
		}
		for _, part := range s.parts() {
			part.expect(mock)
		}
	}
	t.Cleanup(func() {
		if err := mock.ExpectationsWereMet(); err != nil {
			t.Error(err)
		}
		mock.ExpectClose()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	c.Logger = slog.New(slog.NewTextHandler(watch{t}, nil))
	return c.New(db, d), mock
}

// A watch fails a test if the log has a complaint of a mock. Without it a run would treat the
// complaint as a transient error of the database, and be suspended.
type watch struct{ t *testing.T }

func (w watch) Write(line []byte) (int, error) {
	w.check(string(line))
	return len(line), nil
}

func (w watch) check(text string) {
	for _, complaint := range []string{"was not expected", "already fulfilled", "want the tag", "arguments do not match"} {
		if strings.Contains(text, complaint) {
			w.t.Error(text)
		}
	}
}

// bothDialects runs a test with PostgreSQL's statements and with SQLite's.
func bothDialects(t *testing.T, run func(t *testing.T, d pgqrs.Dialect)) {
	for _, d := range []pgqrs.Dialect{pgqrs.Postgres, pgqrs.SQLite} {
		t.Run(string(d), func(t *testing.T) { run(t, d) })
	}
}

// An operation is a public call and the statements it sends.
type operation struct {
	name string
	call func(ctx context.Context, s *pgqrs.Store) error
	want []statement
	err  error // an error that its error matches
}

func runOperations(t *testing.T, operations []operation) {
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d pgqrs.Dialect) {
				s, _ := newMock(t, d, op.want...)
				err := op.call(t.Context(), s)
				if !errors.Is(err, op.err) {
					t.Errorf("got %v, want %v", err, op.err)
				}
				watch{t}.check(fmt.Sprint(err))
			})
		})
	}
}

// wantRefused fails the test unless an error has the text, begins with "pgqrs:" and contains that
// only once.
func wantRefused(t *testing.T, err error, text string, match error) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want %s", text)
	}
	if got := err.Error(); !strings.HasPrefix(got, "pgqrs: ") || strings.Count(got, "pgqrs: ") != 1 || !strings.Contains(got, text) {
		t.Errorf("got %q, want one prefix, and %q", got, text)
	}
	if match != nil && !errors.Is(err, match) {
		t.Errorf("%q does not match %q", err, match)
	}
}
