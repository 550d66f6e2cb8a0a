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

// What the database keeps from being done is no failure of the code that wanted it: it is done
// later, and the attempt does not count. This file tells the database's errors from those of user
// code, and bounds how often that goes on.

// An userError is that of a step's or handler's function, not the database's.
type userError struct{ err error }

func (e *userError) Error() string { return e.err.Error() }

func (e *userError) Unwrap() error { return e.err }

// errTxDoneByUser is for a function that ended the transaction it was given.
var errTxDoneByUser = &userError{Permanent(errors.New("the function ended the transaction"))}

// An infraError is the database's: what it kept from being done is done
// later, and the attempt does not count.
type infraError struct{ err error }

func (e *infraError) Error() string { return e.err.Error() }

func (e *infraError) Unwrap() error { return e.err }

// infraCause is the cause of a suspension because of err: an infrastructure error, unless the lease has ended.
func infraCause(lease context.Context, err error) error {
	if errors.Is(err, ErrLeaseLost) || context.Cause(lease) != nil {
		return err
	}
	return &infraError{err}
}

// isInfraError reports whether what ended a transaction with user code in it is the
// database's trouble, and no failure of that code.
func isInfraError(err error) bool { return err != nil && !isUserError(err) }

// isUserError reports whether an error is user code's, a panic's or a timeout's.
func isUserError(err error) bool {
	var e *userError
	var p *foreign.Panic
	return errors.As(err, &e) || errors.As(err, &p) || errors.Is(err, ErrTimeout) || sqlerr.Aborted(err)
}

// isTransient reports whether an error says that the database could not do just now what it may do
// later.
func (d *dialect) isTransient(err error) bool { return d.isUnavailable(err) || d.retryable(err) }

// isRefused reports whether the database has refused work for what it is, so that other work may
// succeed.
func (d *dialect) isRefused(err error) bool { return !d.isTransient(err) && !sqlerr.Missing(err) }

// blame finds out whether an error that user code returned in a transaction is the database's: only
// what the transaction itself returned is. Any other it marks as that code's own. An error that
// does not look like the database's is not asked after.
func (s *Store) blame(ctx context.Context, tx *userTx, err error) error {
	err = foreign.Safe(err)
	if ctx.Err() == nil && s.dialect.isTransient(err) && s.confirmsError(ctx, tx, err) {
		return err
	}
	return &userError{err}
}

// confirmsError asks a transaction whether an error that looks like the database's came from it.
func (s *Store) confirmsError(ctx context.Context, tx *userTx, err error) bool {
	ctx, cancel := context.WithTimeout(ctx, rollbackTimeout)
	defer cancel()
	if errors.Is(s.checkTx(ctx, tx), errTxEnded) {
		return true
	}
	said := conn{s, tx}.rows(ctx, s.dialect.transaction.probe, nil, func(*sql.Rows) error { return nil })
	switch state := sqlerr.State(said); {
	case said == nil:
		return sqlerr.Retryable(sqlerr.State(err)) // it was met in a savepoint
	case errors.Is(said, sql.ErrTxDone):
		return false // the function ended it
	case sqlerr.TransactionFailed(said):
		return sqlerr.State(err) != "" // it has failed with a code, as err has
	case !s.dialect.isTransient(said):
		return state == "" && s.isDriverText(err, said)
	}
	return true
}

// isDriverText reports whether what makes err look like the database's is of the type that the
// driver's errors have, as said is one. Many users' errors are of the type that errors.New makes;
// so are those of go-libsql, which have a form of their own.
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
	maxInfraErrors      = 16          // of a message in a row, before they count: some 11 minutes
	maxInfraErrorWait   = time.Minute // between two of them
	infraErrorsKept     = time.Hour   // that are counted
	manyInfraErrors     = 1000        // that are remembered without looking which have passed
	firstInfraErrorWait = time.Second
)

// infraErrorCounts count how often in a row the database has kept a message from being handled.
type infraErrorCounts map[int64]infraErrorCount

type infraErrorCount struct {
	n    int
	last time.Time
}

// add counts one more of a message, and returns how many there have been and how long to wait.
func (s infraErrorCounts) add(id int64) (n int, wait time.Duration) {
	if len(s) >= manyInfraErrors {
		maps.DeleteFunc(s, func(_ int64, c infraErrorCount) bool { return time.Since(c.last) > infraErrorsKept })
	}
	n = s[id].n + 1
	s[id] = infraErrorCount{n, time.Now()}
	return n, min(firstInfraErrorWait<<min(n-1, 10), maxInfraErrorWait)
}

// countInfraError counts one more infrastructure error of a delivery's message, and returns how long to wait.
func (r *runner) countInfraError(d *delivery) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, wait := r.infraErrors.add(d.m.ID)
	return wait
}

// infraErrorIn returns what the database has against it, if that is what ended a delivery.
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

// outcomeOf decides what becomes of a delivery that ended with an error. The database's does not
// count, unless it comes again and again.
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
