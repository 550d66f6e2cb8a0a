// Package mockpgqrs helps applications that test their own code with
// [github.com/DATA-DOG/go-sqlmock]. One call expects all statements of an operation of
// [github.com/pgqrs/pgqrs-go]:
//
//	db, mock, err := sqlmock.New()
//	...
//	mock.ExpectBegin()
//	mock.ExpectExec("INSERT INTO orders").WillReturnResult(sqlmock.NewResult(1, 1))
//	mockpgqrs.ExpectEnqueueGroup(mockpgqrs.WithTx(mock), pgqrs.Postgres, 7)
//	mock.ExpectCommit()
//
// Every function takes the dialect of the Store, because some operations send other statements on
// SQLite and Turso than on PostgreSQL. The mock needs sqlmock's default matcher. The Store may
// prepare statements or not, but it must have neither Config.Notifier nor Config.Concurrent. The
// queue or workflow has been used before.
//
// The page docs/STATEMENTS.md lists the statements of all operations, and of those that this
// package leaves out.
//
// # Arguments
//
// A function returns the expectation of the statement that has the caller's data. By default it
// accepts any data. WithArgs compares the data, in the order of docs/STATEMENTS.md:
//
//	mockpgqrs.ExpectEnqueue(mock, pgqrs.Postgres, 7).
//		WithArgs("packing", `{"Item":"teapot"}`, 0, nil, 0, nil, nil)
//
// # Errors
//
// If the operation sends one statement, WillReturnError on the returned expectation makes it fail.
// Make an operation of several statements, such as an Enqueue with a Group, fail at its beginning:
//
//	mock.ExpectBegin().WillReturnError(err)                   // on a Store
//	mock.ExpectQuery("pgqrs:group.lock").WillReturnError(err) // in the caller's transaction
package mockpgqrs

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"

	"github.com/DATA-DOG/go-sqlmock"
)

// WithTx returns a mock for the operations of a Store made by [pgqrs.Store.WithTx], and of its
// queues and workflows. On this mock the functions of the package expect no Begin and no Commit.
// The caller's own are expected as usual.
func WithTx(mock sqlmock.Sqlmock) sqlmock.Sqlmock { return txMock{mock} }

// A txMock is a mock made by WithTx.
type txMock struct{ sqlmock.Sqlmock }

// inTx reports whether a mock was made by WithTx.
func inTx(mock sqlmock.Sqlmock) bool {
	_, ok := mock.(txMock)
	return ok
}

// A row is a row of an answer.
type row []driver.Value

// query expects a Query that returns rows.
func query(mock sqlmock.Sqlmock, tag string, args []driver.Value, rows ...row) *sqlmock.ExpectedQuery {
	columns := 0
	if len(rows) > 0 {
		columns = len(rows[0])
	}
	answer := sqlmock.NewRows(make([]string, columns))
	for _, values := range rows {
		answer.AddRow(values...)
	}
	e := mock.ExpectQuery("pgqrs:" + tag).WillReturnRows(answer)
	if len(args) == 0 {
		return e.WithoutArgs()
	}
	return e.WithArgs(args...)
}

// exec expects an Exec.
func exec(mock sqlmock.Sqlmock, tag string, args ...driver.Value) {
	e := mock.ExpectExec("pgqrs:" + tag).WillReturnResult(sqlmock.NewResult(0, 1)).WithArgs(args...)
	if len(args) == 0 {
		e.WithoutArgs()
	}
}

// args returns n arguments: the first ones, and others that may have any value.
func args(n int, first ...driver.Value) []driver.Value {
	for len(first) < n {
		first = append(first, sqlmock.AnyArg())
	}
	return first
}

// atomic expects statements in one transaction: the caller's on a mock made by WithTx, or one of
// the Store's own.
func atomic(mock sqlmock.Sqlmock, expect func()) {
	if inTx(mock) {
		expect()
		return
	}
	mock.ExpectBegin()
	exec(mock, "open")
	expect()
	mock.ExpectCommit()
}

// idRows returns a row for each id.
func idRows(ids []int64) []row {
	rows := make([]row, len(ids))
	for i, id := range ids {
		rows[i] = row{id}
	}
	return rows
}

// marshal encodes a value.
func marshal(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("mockpgqrs: %v", err))
	}
	return raw
}
