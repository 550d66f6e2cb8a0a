package pgqrs

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ErrSuspended matches what the calls of a [Run] return when this execution
// of it is over for now: a retry is to come, it sleeps, waits for a signal or a
// child, lost its lease or the database, is paused, or its worker stops. The
// run goes on later, from its beginning, with the recorded results.
//
// Return it like any other error. After it nothing of the run starts any more
// and what the function returns is ignored, so that swallowing it does no harm;
// but do not take it for a failure:
//
//	if err != nil && !errors.Is(err, pgqrs.ErrSuspended) {
//		// a recorded failure, or a cancellation: compensate here
//	}
//
// Compensation by steps needs no such care, as steps do not start after it.
var ErrSuspended = errors.New("pgqrs: run is suspended")

// ErrCancelled is returned by the first step of a cancelled run that has no
// recorded result, and by [RunHandle.Result]. The steps after it do run, so
// that the run can clean up. It is also the cause of a ctx in a run that is being cancelled.
var ErrCancelled = errors.New("pgqrs: run is cancelled")

// ErrStepReused is returned when one execution asks for a step of the same
// name twice. In loops, put what the iteration is about into the name:
// "charge:" + order.ID rather than a counter, if the order may change. A function
// that ignores the error ends its run with it.
var ErrStepReused = errors.New("pgqrs: step name is used twice in one run")

// A RunError is a failure that is recorded, of a step or of a run. It is the
// same on every replay: Err has the recorded text, and matches only errors of this package.
type RunError struct {
	Workflow string
	RunID    int64
	Step     string // empty: the run itself
	Err      error
}

// Error returns the recorded text with what failed.
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
	cause error // nil: it is as it should be
}

func (s *suspension) Error() string {
	if s.cause != nil {
		return ErrSuspended.Error() + ": " + unprefixed(s.cause)
	}
	return ErrSuspended.Error()
}

func (s *suspension) Is(target error) bool { return target == ErrSuspended }

// maxClosedCalls is how many calls a suspended run bears before its function
// is taken for one that will never return.
const maxClosedCalls = 1000

// A Run is a run from the inside, as its function sees it. It is safe for
// concurrent use: steps may run in goroutines, if the function waits for them.
// Step names of up to 255 characters are unique in a run.
//
// A wait suspends the whole run: a Sleep, a Wait, a Child, or a step that is to
// be tried again. Steps that other goroutines are in end first, and are recorded.
// Every other call returns an error matching ErrSuspended, until the run goes on. So a
// Sleep of a day in one goroutine holds up the steps of the others for a day.
//
// If the function returns before a step of one of its goroutines has ended, the
// run ends after that step, with a [RunInfo].Warning. A step that is asked for later
// is not run. It returns an error matching ErrState, and the run gets the warning too.
//
// The calls of a run are not for the function of one of its steps. There they return an
// error matching ErrState, and the step fails with it. The library knows by ctx. With
// the ctx of the run's function, such a call is taken for one of another goroutine.
type Run struct {
	*execution
	policy Policy // of steps
}

// ID returns the run's id.
func (r *Run) ID() int64 { return r.id }

// With returns a copy of the run whose steps follow p in place of the default
// policy for steps: 3 attempts, a backoff of 1 s to 1 min, no timeout.
func (r *Run) With(p Policy) *Run { return &Run{execution: r.execution, policy: p} }

type (
	runKey  struct{}
	stepKey struct{} // its value is a *stepScope
)

// A stepScope is the step in whose function a ctx is used.
type stepScope struct {
	run     *execution
	name    string
	refused atomic.Pointer[error] // of the first call that is not for a step's function
}

// scopeOf returns the step of a ctx, or nil outside a step.
func scopeOf(ctx context.Context) *stepScope {
	scope, _ := ctx.Value(stepKey{}).(*stepScope)
	return scope
}

// refuseNested returns an error if a call of a run is made in the function of one of the run's own steps.
func (e *execution) refuseNested(ctx context.Context, call string) error {
	scope := scopeOf(ctx)
	if scope == nil || scope.run != e {
		return nil
	}
	err := Permanent(fmt.Errorf("%w: %s is called in the function of step %q of run %d", ErrState, call, scope.name, e.id))
	scope.refused.CompareAndSwap(nil, &err)
	return err
}

// scopeError returns what the function of a step returned, or, if that is nil, why a call in it was refused.
func scopeError(ctx context.Context, err error) error {
	scope := scopeOf(ctx)
	if err != nil || scope == nil {
		return err
	}
	if refused := scope.refused.Load(); refused != nil {
		return *refused
	}
	return nil
}

// outsideStep returns an error if ctx is that of a run's function, but not of
// a step: what is done there is done again with every replay.
func outsideStep(ctx context.Context) error {
	if ctx.Value(runKey{}) != nil && ctx.Value(stepKey{}) == nil {
		return fmt.Errorf("%w: in a run, but outside a step, it would be done again with every replay", ErrState)
	}
	return nil
}
