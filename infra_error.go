package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// If an error of the database keeps work from being done, user code has not failed. The work is
// done later, and the attempt does not count. This file tells errors of the database from errors of
// user code, and bounds how often such work is repeated.

// A userError is an error of a step's or handler's function, as opposed to an error of the
// database.
type userError struct{ err error }

func (e *userError) Error() string { return e.err.Error() }

func (e *userError) Unwrap() error { return e.err }

// errTxDoneByUser is the error of a function that ended its transaction.
var errTxDoneByUser = &userError{Permanent(errors.New("the function ended the transaction"))}

// An infraError is an infrastructure error. The work that failed is done later, and the attempt
// does not count.
type infraError struct{ err error }

func (e *infraError) Error() string { return e.err.Error() }

func (e *infraError) Unwrap() error { return e.err }

// infraCause returns the cause of a suspension because of err: an infrastructure error, unless the
// lease has ended.
func infraCause(lease context.Context, err error) error {
	if errors.Is(err, ErrLeaseLost) || context.Cause(lease) != nil {
		return err
	}
	return &infraError{err}
}

// isInfraError reports whether the error of a transaction with user code in it is an infrastructure
// error, and not a failure of that code.
func isInfraError(err error) bool { return err != nil && !isUserError(err) }

// isUserError reports whether an error comes from user code, a panic or a timeout.
func isUserError(err error) bool {
	var e *userError
	var p *foreign.Panic
	return errors.As(err, &e) || errors.As(err, &p) || errors.Is(err, ErrTimeout) || sqlerr.Aborted(err)
}

// isTransient reports whether the database may be able to do later what it could not do now.
func (d *dialect) isTransient(err error) bool { return d.isUnavailable(err) || d.retryable(err) }

// isRefused reports whether the database has refused this work in particular, so that other work
// may succeed.
func (d *dialect) isRefused(err error) bool { return !d.isTransient(err) && !sqlerr.Missing(err) }

// blame finds out whether an error that user code returned in a transaction is the database's. Only
// an error that the transaction itself returned is. Any other error becomes a userError. If the
// error does not look like the database's, blame does not ask the transaction.
func (s *Store) blame(ctx context.Context, tx *userTx, err error) error {
	err = foreign.Safe(err)
	if ctx.Err() == nil && s.dialect.isTransient(err) && s.confirmsError(ctx, tx, err) {
		return err
	}
	return &userError{err}
}

// confirmsError finds out from a transaction whether it returned an error that looks like the
// database's.
func (s *Store) confirmsError(ctx context.Context, tx *userTx, err error) bool {
	ctx, cancel := context.WithTimeout(ctx, rollbackTimeout)
	defer cancel()
	if errors.Is(s.checkTx(ctx, tx), errTxEnded) {
		return true
	}
	said := conn{s, tx}.rows(ctx, s.dialect.transaction.probe, nil, func(*sql.Rows) error { return nil })
	switch state := sqlerr.State(said); {
	case said == nil:
		return sqlerr.Retryable(sqlerr.State(err)) // a savepoint has caught it
	case errors.Is(said, sql.ErrTxDone):
		return false // the function has ended the transaction
	case sqlerr.TransactionFailed(said):
		return sqlerr.State(err) != "" // it has failed with a code, as err has
	case !s.dialect.isTransient(said):
		return state == "" && s.isDriverText(err, said)
	}
	return true
}

// isDriverText reports whether an error in err that looks like the database's has the type of the
// driver's errors, which is the type of said. Errors of errors.New have the same type in many
// users' code and in go-libsql, whose errors have a form of their own.
func (s *Store) isDriverText(err, said error) bool {
	kind := reflect.TypeOf(foreign.Innermost(said))
	texts := slices.Concat(s.dialect.errors.busy, s.dialect.errors.unavailable)
	found := false
	foreign.Walk(err, func(err error) {
		if reflect.TypeOf(err) == kind && sqlerr.Contains(err, texts) {
			found = found || !foreign.Plain(err) || strings.Contains(err.Error(), "SQLite failure: `")
		}
	})
	return found
}

const (
	// maxInfraErrors is how many a message may have in a row, before they count as attempts. They
	// take some 11 minutes.
	maxInfraErrors      = 16
	maxInfraErrorWait   = time.Minute // between two of them
	infraErrorsKept     = time.Hour   // how long each is counted
	manyInfraErrors     = 1000        // that are kept without checking which have expired
	firstInfraErrorWait = time.Second
)

// infraErrorCounts counts for each message how often in a row an infrastructure error has kept it
// from being handled.
type infraErrorCounts map[int64]infraErrorCount

type infraErrorCount struct {
	n    int
	last time.Time
}

// add counts an infrastructure error of a message, and returns how many there have been and how
// long to wait.
func (s infraErrorCounts) add(id int64) (n int, wait time.Duration) {
	if len(s) >= manyInfraErrors {
		maps.DeleteFunc(s, func(_ int64, c infraErrorCount) bool { return time.Since(c.last) > infraErrorsKept })
	}
	n = s[id].n + 1
	s[id] = infraErrorCount{n, time.Now()}
	return n, min(firstInfraErrorWait<<min(n-1, 10), maxInfraErrorWait)
}

// countInfraError counts an infrastructure error of a delivery's message, and returns how long to
// wait.
func (r *runner) countInfraError(d *delivery) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, wait := r.infraErrors.add(d.m.ID)
	return wait
}

// infraErrorIn returns the infrastructure error that ended a delivery, or nil.
func infraErrorIn(err error) error {
	var found *infraError
	var suspended *suspension
	switch {
	case errors.As(err, &suspended):
		if errors.As(suspended.cause, &found) {
			return found.err
		}
	case errors.As(err, &found):
		return found.err
	}
	return nil
}

// outcomeOf returns the outcome of a delivery by its error. An infrastructure error does not count
// as an attempt, unless it repeats maxInfraErrors times.
func (r *runner) outcomeOf(d *delivery, err error) outcome {
	cause := infraErrorIn(err)
	r.mu.Lock()
	n, wait := 0, time.Duration(0)
	if cause == nil {
		delete(r.infraErrors, d.m.ID)
	} else {
		n, wait = r.infraErrors.add(d.m.ID)
	}
	r.mu.Unlock()
	switch {
	case cause == nil:
		return d.queue.policy.outcome(d.m.Attempt, err)
	case n > maxInfraErrors:
		return d.queue.policy.outcome(d.m.Attempt, fmt.Errorf("the database has kept it from being done %d times: %w", n, cause))
	}
	if failure := r.repeated.key("put off " + d.queue.queue); d.queue.workflow {
		failure.Warn("pgqrs: run is put off because of the database", "queue", d.queue.queue, "message", d.m.ID, "err", cause)
	} else {
		failure.Warn("pgqrs: message is put off because of the database", "queue", d.queue.queue, "message", d.m.ID, "err", cause)
	}
	return outcome{kind: released, delay: wait}
}
