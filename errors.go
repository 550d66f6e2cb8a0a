package pgqrs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// ErrNotInstalled is returned if the tables are missing or older than the library needs.
// [Store.Install] makes them.
var ErrNotInstalled = errors.New("pgqrs: schema is not installed; call Store.Install")

// ErrNotFound is returned if the queue, message or worker that a call names does not exist.
var ErrNotFound = errors.New("pgqrs: not found")

// ErrState is returned if the state of a thing does not allow the call.
var ErrState = errors.New("pgqrs: not possible in this state")

// ErrUnsupported is returned for a call that this database, driver or transaction does not support.
var ErrUnsupported = errors.New("pgqrs: not supported")

// ErrInvalidPayload is returned, before anything is stored, for a payload that does not marshal to
// JSON, breaks a limit of [Limits], or cannot be stored and returned by every dialect. The same
// holds for headers and keys. A message whose payload does not decode dies with this error.
var ErrInvalidPayload = errors.New("pgqrs: invalid payload")

// ErrDuplicate is returned by an enqueue with [Unique] whose key is taken, and by a redrive of
// messages whose key has been taken since.
var ErrDuplicate = errors.New("pgqrs: duplicate key")

// ErrLeaseLost is returned if the lease of the call no longer holds the message. The lease expired
// and another consumer claimed the message, or the message was settled or deleted. Nothing was
// changed for that message. ErrLeaseLost is also the cause of a handler's ctx once its lease is
// lost.
var ErrLeaseLost = errors.New("pgqrs: lease lost")

// ErrRateLimited matches every [RateLimitError].
var ErrRateLimited = errors.New("pgqrs: rate limit")

// ErrMalformed is matched by the error of a message or a run whose own rows do not decode, because
// something other than this library wrote them. The message goes to the dead letters with the
// reason, and the run fails with it. Listings show such rows with the reason in their Malformed
// field.
var ErrMalformed = errors.New("pgqrs: malformed row")

// A RateLimitError is returned by a call above [Limits].MaxPerSecond, with nothing stored. It is
// also returned by a Dequeue from a queue whose policy allows no delivery now, with nothing leased.
// A handler, or a step, that returns it is tried again after Wait.
type RateLimitError struct {
	// Wait is the time after which the same call would pass, if nothing else happens meanwhile. If
	// MaxLeased is reached, Wait is the time after which to ask again.
	Wait time.Duration
}

// Error says how long to wait.
func (e *RateLimitError) Error() string {
	return fmt.Sprintf("%v: try again in %v", ErrRateLimited, e.Wait)
}

// Is reports whether target is ErrRateLimited.
func (e *RateLimitError) Is(target error) bool { return target == ErrRateLimited }

// As gives a handler that returns the error the outcome of RetryAfter.
func (e *RateLimitError) As(target any) bool {
	after, ok := target.(**retryAfterError)
	if ok {
		*after = &retryAfterError{e.Wait, e}
	}
	return ok
}

// ErrPermanent matches errors made by [Permanent].
var ErrPermanent = errors.New("pgqrs: permanent failure")

// Permanent marks err as a failure that no further attempt can fix. A handler that returns it sends
// its message to the dead letters now. The result matches ErrPermanent and everything that err
// matches. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }

func (e *permanentError) Unwrap() error { return e.err }

func (e *permanentError) Is(target error) bool { return target == ErrPermanent }

// RetryAfter sets the wait before the next attempt to d, in place of the policy's backoff. The
// attempt counts. The result matches everything that err matches. RetryAfter(d, nil) is nil.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{max(0, d), err}
}

type retryAfterError struct {
	after time.Duration
	err   error
}

func (e *retryAfterError) Error() string { return e.err.Error() }

func (e *retryAfterError) Unwrap() error { return e.err }

// ErrSnoozed matches the error that [Snooze] returns.
var ErrSnoozed = errors.New("pgqrs: snoozed")

// Snooze returns an error that makes the message ready again after d. A snoozed message has not
// failed, and the attempt does not count. Middleware and an Observer can recognise the error, since
// it matches ErrSnoozed.
func Snooze(d time.Duration) error { return &snoozeError{max(0, d)} }

type snoozeError struct{ after time.Duration }

func (e *snoozeError) Error() string { return fmt.Sprintf("pgqrs: snoozed for %v", e.after) }

func (e *snoozeError) Is(target error) bool { return target == ErrSnoozed }

// ErrTimeout is the cause of a handler's ctx after Policy.Timeout has passed.
var ErrTimeout = errors.New("pgqrs: timeout")

// A BatchError maps the ids of the messages of a batch that failed to their errors. The other
// messages are done. A nil entry is not a failure. If an id is not in the batch, the whole batch
// fails.
type BatchError map[int64]error

// Error names the messages that failed.
func (e BatchError) Error() string {
	var list []string
	for _, id := range slices.Sorted(maps.Keys(e)) {
		if e[id] != nil {
			list = append(list, fmt.Sprintf("message %d: %s", id, unprefixed(e[id])))
		}
	}
	return fmt.Sprintf("pgqrs: %d messages of a batch failed: %s", len(list), strings.Join(list, "; "))
}

// Unwrap returns the errors of the messages.
func (e BatchError) Unwrap() []error {
	var list []error
	for _, id := range slices.Sorted(maps.Keys(e)) {
		if e[id] != nil {
			list = append(list, e[id])
		}
	}
	return list
}

// ErrSuspended matches the error that the calls of a [Run] return when this execution of the run is
// over for now. The reason is one of these:
//   - The run waits for a retry, a time, a signal or a child.
//   - It has lost its lease or the database.
//   - It is paused.
//   - Its worker stops.
//
// The run continues later from its beginning, with the recorded results.
//
// Return the error like any other error. After it no call of the run starts anything, and the
// function's result is ignored, so that swallowing the error does no harm. Do not handle it as a
// failure:
//
//	if err != nil && !errors.Is(err, pgqrs.ErrSuspended) {
//		// a recorded failure, or a cancellation: compensate here
//	}
//
// Compensation by steps needs no such check, as steps do not start after it.
var ErrSuspended = errors.New("pgqrs: run is suspended")

// ErrCancelled is returned by the first step of a cancelled run that has no recorded result, and by
// [RunHandle.Result]. The steps after it do run, so that the run can clean up. It is also the cause
// of a ctx in a run that is being cancelled.
var ErrCancelled = errors.New("pgqrs: run is cancelled")

// ErrStepReused is returned when one execution asks for a step of the same name twice. In a loop,
// make the name from the item of the iteration, such as "charge:" + order.ID, rather than from a
// counter, if the order may change. If the function ignores the error, its run ends with it.
var ErrStepReused = errors.New("pgqrs: step name is used twice in one run")

// A RunError is the recorded failure of a step or of a run. It is the same in the execution that
// records the failure and in every replay. Err has the recorded text, and matches only errors of
// this package. It never wraps the error that the application's function returned.
type RunError struct {
	Workflow string
	RunID    int64
	Step     string // empty if the run itself failed
	Err      error
}

// Error returns the recorded text and names the workflow, run or step that failed.
func (e *RunError) Error() string {
	if e.Step == "" {
		return fmt.Sprintf("pgqrs: run %d of workflow %q: %s", e.RunID, e.Workflow, unprefixed(e.Err))
	}
	return fmt.Sprintf("pgqrs: step %q of run %d of workflow %q: %s", e.Step, e.RunID, e.Workflow, unprefixed(e.Err))
}

// Unwrap returns Err.
func (e *RunError) Unwrap() error { return e.Err }

// recordedError has a recorded text, and matches a sentinel by its recorded code.
type recordedError struct {
	text     string
	sentinel error
}

func (e *recordedError) Error() string { return e.text }

func (e *recordedError) Unwrap() error { return e.sentinel }

// A suspension ends an execution for now.
type suspension struct {
	after time.Duration
	cause error // nil if the suspension is regular
}

func (s *suspension) Error() string {
	if s.cause != nil {
		return ErrSuspended.Error() + ": " + unprefixed(s.cause)
	}
	return ErrSuspended.Error()
}

func (s *suspension) Is(target error) bool { return target == ErrSuspended }

// An operationError names the operation once, however often the error is wrapped.
type operationError struct {
	what string
	err  error
}

func (e *operationError) Error() string {
	return "pgqrs: " + e.what + ": " + unprefixed(e.err)
}

func (e *operationError) Unwrap() error { return e.err }

// wrap names the operation and its operand in an error, and makes it match the errors that callers
// look for. A nil error stays nil.
func wrap(ctx context.Context, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	switch {
	case sqlerr.Unprepared(err):
		err = fmt.Errorf("%w (a pooler between transactions? %s)", err, poolerAdvice)
	case sqlerr.Missing(err) && !errors.Is(err, ErrNotInstalled):
		err = fmt.Errorf("%w (%w)", ErrNotInstalled, err)
	case sqlerr.Denied(err) && !strings.Contains(err.Error(), lackedRight):
		err = fmt.Errorf("%s; Verify names those it lacks (%w)", lackedRight, err)
	case sqlerr.Untranslatable(err) && !errors.Is(err, ErrInvalidPayload):
		err = invalidTextError(err)
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		err = fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	return &operationError{what: fmt.Sprintf(format, args...), err: err}
}

// unprefixed is the text of an error for use behind another prefix.
func unprefixed(err error) string { return strings.TrimPrefix(err.Error(), "pgqrs: ") }

// malformedError is the error of a row that does not decode. The argument what names the row.
func malformedError(what, malformed string) error {
	return fmt.Errorf("%w: %s: %s", ErrMalformed, what, malformed)
}
