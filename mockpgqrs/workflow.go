package mockpgqrs

import (
	"database/sql/driver"
	"fmt"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/pgqrs/pgqrs-go"
)

// ExpectStart expects a Start without a Key and a Group. The Start returns the handle of the run.
//
// The statement of the returned expectation is pgqrs:run.start on PostgreSQL, and
// pgqrs:message.enqueue on SQLite and Turso.
func ExpectStart(mock sqlmock.Sqlmock, d pgqrs.Dialect, run int64) (e *sqlmock.ExpectedQuery) {
	if d == pgqrs.Postgres {
		return query(mock, "run.start", args(6), row{run, run})
	}
	atomic(mock, func() { e = store(mock, run) })
	return e
}

// ExpectStartKey expects a Start with a [pgqrs.Key] or [pgqrs.Unique] that is not taken, and
// without a Group. The Start returns the handle of the run.
func ExpectStartKey(mock sqlmock.Sqlmock, d pgqrs.Dialect, run int64) (e *sqlmock.ExpectedQuery) {
	atomic(mock, func() {
		lookUp(mock)
		e = store(mock, run)
	})
	return e
}

// ExpectStartDuplicate expects a Start whose key is taken by the run. With [pgqrs.Key] the Start
// returns the handle of the run. With [pgqrs.Unique] it also returns an error matching
// [pgqrs.ErrDuplicate].
func ExpectStartDuplicate(mock sqlmock.Sqlmock, d pgqrs.Dialect, key string, run int64) (e *sqlmock.ExpectedQuery) {
	atomic(mock, func() { e = lookUp(mock, row{key, run}) })
	return e
}

// ExpectStartGroup expects a Start with a [pgqrs.Group], and without a Key. The Start returns the
// handle of the run.
func ExpectStartGroup(mock sqlmock.Sqlmock, d pgqrs.Dialect, run int64) (e *sqlmock.ExpectedQuery) {
	atomic(mock, func() {
		e = enqueueGroup(mock, []int64{run})
		query(mock, "run.insert", args(2), row{run, run})
	})
	return e
}

// lookUp expects the look-up of a key. In a transaction of the caller a write comes first.
func lookUp(mock sqlmock.Sqlmock, found ...row) *sqlmock.ExpectedQuery {
	if inTx(mock) {
		exec(mock, "workflow.make", sqlmock.AnyArg())
	}
	return query(mock, "run.keyed", args(2), found...)
}

// store expects that a run and its message, which gets the same id, are stored.
func store(mock sqlmock.Sqlmock, run int64) *sqlmock.ExpectedQuery {
	e := query(mock, "message.enqueue", args(7), row{run})
	query(mock, "run.insert", args(2), row{run, run})
	return e
}

// ExpectSend expects a Send of a signal to a run that has not ended. The payload is JSON, such as
// "true", or [sqlmock.AnyArg].
func ExpectSend(mock sqlmock.Sqlmock, d pgqrs.Dialect, run int64, name string, payload driver.Value) {
	atomic(mock, func() {
		wake(mock, run)
		exec(mock, "signal.insert", run, name, payload)
	})
}

// wake expects that a run is woken.
func wake(mock sqlmock.Sqlmock, run int64) {
	query(mock, "run.wake", args(1, runList(run)), row{run, "workflow"})
}

// runList returns a run as the statements take it.
func runList(run int64) driver.Value { return fmt.Sprintf("[%d]", run) }

// ExpectCancel expects a Cancel of a run that has begun, and that has no children. A handle does
// not work in the caller's transaction, so a mock made by [WithTx] makes no difference.
func ExpectCancel(mock sqlmock.Sqlmock, d pgqrs.Dialect, run int64) {
	if tx, ok := mock.(txMock); ok {
		mock = tx.Sqlmock
	}
	atomic(mock, func() {
		query(mock, "run.cancel", args(1, runList(run)), row{run})
		query(mock, "run.unstarted_archive", args(1))
		wake(mock, run)
		query(mock, "run.children", args(1))
	})
}

// ExpectRun expects the statement that reads a run once. An Info sends it, and so does the Result
// of a run that has ended. They return the values of info. With WillReturnRows and no rows the run
// does not exist.
func ExpectRun(mock sqlmock.Sqlmock, d pgqrs.Dialect, info pgqrs.RunInfo) *sqlmock.ExpectedQuery {
	return query(mock, "run.get", args(1, info.ID), row{
		info.ID, info.Workflow, info.MessageID, string(info.Status), []byte(info.Input), []byte(info.Output), marshal(info.Error),
		info.Key, info.ParentID, info.ParentStep, info.Warning,
		info.CreatedAt, info.StartedAt, info.PausedAt, info.EndedAt, info.DueAt, info.Attempts,
	})
}
