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

// An ownError is that of a step's or handler's function, not the database's.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }

func (e *ownError) Unwrap() error { return e.err }

// errTxDone is for a function that ended the transaction it was given.
var errTxDone = &ownError{Permanent(errors.New("the function ended the transaction"))}

// A setbackError is the database's: what it kept from being done is done
// later, and the attempt does not count.
type setbackError struct{ err error }

func (e *setbackError) Error() string { return e.err.Error() }

func (e *setbackError) Unwrap() error { return e.err }

// setbackOf is the cause of a suspension because of err: a setback, unless the lease has ended.
func setbackOf(lease context.Context, err error) error {
	if errors.Is(err, ErrLeaseLost) || context.Cause(lease) != nil {
		return err
	}
	return &setbackError{err}
}

// setback reports whether what ended a transaction with user code in it is the
// database's trouble, and no failure of that code.
func setback(err error) bool { return err != nil && !own(err) }

// own reports whether an error is user code's, a panic's or a timeout's.
func own(err error) bool {
	var e *ownError
	var p *foreign.Panic
	return errors.As(err, &e) || errors.As(err, &p) || errors.Is(err, ErrTimeout) || spoiled(err)
}

// spoiledClasses are the classes of PostgreSQL's codes that say what is wrong with the work, and not
// with the database: its data, its constraints, the transaction, its names and rights, its size, and
// what a trigger has against it.
var spoiledClasses = []string{"22", "23", "25P02", "27", "2F", "38", "39", "42", "44", "54", "P0"}

// spoiled reports whether a transaction failed at its end because of what was done in it: an error
// was swallowed, a constraint that is checked last is broken, or a trigger refuses it.
func spoiled(err error) bool {
	state := sqlerr.State(err)
	if state == "" {
		return sqlerr.Contains(err, []string{"constraint failed"})
	}
	return !sqlerr.Unprepared(err) && slices.ContainsFunc(spoiledClasses, func(class string) bool { return strings.HasPrefix(state, class) })
}

// troubled reports whether an error says that the database could not do just now what it may do later.
func (d *dialect) troubled(err error) bool { return d.away(err) || d.retryable(err) }

// refused reports whether the database has refused work for what it is, so that other work may succeed.
func (d *dialect) refused(err error) bool { return !d.troubled(err) && !sqlerr.Missing(err) }

// blame finds out whether an error that user code returned in a transaction is the database's: only
// what the transaction itself returned is. Any other it marks as that code's own. An error that does
// not look like the database's is not asked after.
func (s *Store) blame(ctx context.Context, tx *userTx, err error) error {
	err = foreign.Safe(err)
	if ctx.Err() == nil && s.dialect.troubled(err) && s.confirms(ctx, tx, err) {
		return err
	}
	return &ownError{err}
}

// confirms asks a transaction whether an error that looks like the database's came from it.
func (s *Store) confirms(ctx context.Context, tx *userTx, err error) bool {
	ctx, cancel := context.WithTimeout(ctx, rollbackTimeout)
	defer cancel()
	if errors.Is(s.intact(ctx, tx), errEnded) {
		return true
	}
	said := conn{s, tx}.rows(ctx, s.dialect.ask, nil, func(*sql.Rows) error { return nil })
	switch state := sqlerr.State(said); {
	case said == nil:
		return sqlerr.Retryable(sqlerr.State(err)) // it was met in a savepoint
	case errors.Is(said, sql.ErrTxDone):
		return false // the function ended it
	case state == "25P02":
		return sqlerr.State(err) != "" // it has failed with a code, as err has
	case !s.dialect.troubled(said):
		return state == "" && s.saidBy(err, said)
	}
	return true
}

// saidBy reports whether what makes err look like the database's is of the type that the driver's
// errors have, as said is one. Many users' errors are of the type that errors.New makes; so are
// those of go-libsql, which have a form of their own.
func (s *Store) saidBy(err, said error) bool {
	kind := reflect.TypeOf(foreign.Innermost(said))
	texts := slices.Concat(s.dialect.busy, s.dialect.gone)
	found := false
	foreign.Walk(err, func(err error) {
		if reflect.TypeOf(err) == kind && sqlerr.Contains(err, texts) {
			found = found || !foreign.Plain(err) || strings.Contains(err.Error(), "SQLite failure: `")
		}
	})
	return found
}

const (
	maxSetbacks      = 16          // of a message in a row, before they count: some 11 minutes
	maxSetbackWait   = time.Minute // between two of them
	setbacksKept     = time.Hour   // that are counted
	manySetbacks     = 1000        // that are remembered without looking which have passed
	firstSetbackWait = time.Second
)

// setbacks count how often in a row the database has kept a message from being handled.
type setbacks map[int64]setbackCount

type setbackCount struct {
	n    int
	last time.Time
}

// add counts one more of a message, and returns how many there have been and how long to wait.
func (s setbacks) add(id int64) (n int, wait time.Duration) {
	if len(s) >= manySetbacks {
		maps.DeleteFunc(s, func(_ int64, c setbackCount) bool { return time.Since(c.last) > setbacksKept })
	}
	n = s[id].n + 1
	s[id] = setbackCount{n, time.Now()}
	return n, min(firstSetbackWait<<min(n-1, 10), maxSetbackWait)
}

// countInfraError counts one more setback of a delivery's message, and returns how long to wait.
func (r *runner) countInfraError(d *delivery) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, wait := r.infraErrors.add(d.m.ID)
	return wait
}

// setbackIn returns what the database has against it, if that is what ended a delivery.
func setbackIn(err error) error {
	var found *setbackError
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
	cause := setbackIn(err)
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
	case n > maxSetbacks:
		return d.queue.policy.outcome(d.m.Attempt, fmt.Errorf("the database has kept it from being done %d times: %w", n, cause))
	}
	if failure := r.repeated.of("put off " + d.queue.queue); d.queue.workflow {
		failure.Warn("pgqrs: run is put off because of the database", "queue", d.queue.queue, "message", d.m.ID, "err", cause)
	} else {
		failure.Warn("pgqrs: message is put off because of the database", "queue", d.queue.queue, "message", d.m.ID, "err", cause)
	}
	return outcome{kind: released, delay: wait}
}
