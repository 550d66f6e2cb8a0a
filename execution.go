package pgqrs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// pausedFor is how long the message of a paused run is put off; Resume wakes it.
const pausedFor = 100 * 365 * 24 * time.Hour

// execute is one execution of a run: it begins it, calls the function, and ends or suspends it.
func (s *Store) execute(ctx context.Context, name string, m *MessageInfo, call func(context.Context, *Run, []byte) (any, error)) (err error) {
	e, status, fresh, err := s.beginRun(ctx, name, m)
	if err != nil {
		return s.setback(ctx, err)
	}
	switch {
	case !status.ofRun():
		return Permanent(malformedError(fmt.Sprintf("run %d", e.id), fmt.Sprintf("status: %q is not one of a run", string(status))))
	case status.final():
		return nil // its message outlived it; the ack follows
	case status == Paused:
		return &suspension{after: pausedFor}
	}
	s.tellAwaiting(RunInfo{ID: e.id, Status: Running})
	defer func() {
		if err != nil {
			s.tellAwaiting(RunInfo{ID: e.id}) // it is over, and the run is not
		}
	}()
	if !fresh {
		if err := e.load(ctx); errors.Is(err, ErrMalformed) {
			return err
		} else if err != nil {
			return s.setback(ctx, err)
		}
	}
	e.cancelling = status == Cancelling
	if e.cancelling && len(e.stored) == 0 {
		return e.finish(ctx, nil, nil)
	}
	user, interrupt := context.WithCancelCause(context.WithValue(ctx, runKey{}, e))
	defer interrupt(nil)
	if m.hold != nil {
		m.hold.interrupt.Store(&interrupt)
	}
	var out any
	if bad := caught(func() { out, err = call(user, &Run{execution: e}, inputOf(m.Raw)) }); bad != nil {
		out, err = nil, bad
	}
	return e.end(user, out, foreign(err))
}

// setback turns an error of the database into a suspension: nothing is lost, and no attempt burned.
func (s *Store) setback(ctx context.Context, err error) error {
	return &suspension{after: time.Second, cause: setbackOf(ctx, err)}
}

// inputOf returns the input in the payload of a run's message. A payload
// without one is the input itself, as for pgqrs 0.15.
func inputOf(raw []byte) []byte {
	var payload map[string]json.RawMessage
	if json.Unmarshal(raw, &payload) == nil {
		if in, ok := payload["input"]; ok {
			return in
		}
	}
	return raw
}

// beginRun marks a run as running. A message that pgqrs 0.15 enqueued has no run yet, and gets one.
func (s *Store) beginRun(ctx context.Context, name string, m *MessageInfo) (e *execution, status State, fresh bool, err error) {
	e = newExecution(s, name, m)
	e.lease = ctx
	for range 2 {
		found := false
		err = s.single(ctx, func(c conn) error {
			found = false
			return c.rows(ctx, s.dialect.workflow.begin, []any{m.ID, m.WorkerID, m.Claim}, func(rows *sql.Rows) error {
				found = true
				_, err := scanLoosely(rows, "id status fresh", &e.id, &status, &fresh) // execute looks at the status
				return err
			})
		})
		if err != nil || found {
			return e, status, fresh, err
		}
		err = s.atomic(ctx, func(c conn) error {
			runs, err := c.ids(ctx, s.dialect.workflow.exists, m.ID)
			if err != nil {
				return err
			}
			if len(runs) > 0 {
				return lostError([]int64{m.ID})
			}
			_, err = c.insertRunRows(ctx, name, [][]any{{m.ID, nil, nil, nil}})
			return err
		})
		if err != nil {
			return nil, "", false, err
		}
	}
	return nil, "", false, lostError([]int64{m.ID})
}

// An execution is one go at a run.
type execution struct {
	store    *Store // nil: a test's, without a database
	workflow string
	id       int64
	m        *MessageInfo
	lease    context.Context // ends when the worker has to let go

	inflight sync.WaitGroup // steps being run

	mu         sync.Mutex
	rows       []string // names of steps that have a row, with a record or without
	stored     map[string]*stepRecord
	loaded     time.Time
	asked      map[string]bool
	flying     []string // names of steps that are in flight
	txs        int      // transactions of steps that are open
	ran        []string // names whose function was called
	waits      map[string]int
	closed     *suspension
	calls      int      // since it was closed
	cancelling bool     // somebody asked for it
	cleaning   bool     // the function has been told
	refused    []string // the steps that told it, until that is recorded
	paused     bool
	over       bool  // the function has returned
	reused     error // the first ErrStepReused
	warned     bool
	given      map[string]any // a test's results
}

func newExecution(s *Store, workflow string, m *MessageInfo) *execution {
	return &execution{store: s, workflow: workflow, m: m, stored: map[string]*stepRecord{}, asked: map[string]bool{}, waits: map[string]int{}}
}

// load reads the steps that earlier executions recorded. One that Retry has
// cleared has no record; where it goes another way now, so may what came after it.
func (e *execution) load(ctx context.Context) error {
	e.loaded = time.Now()
	retried := false
	return conn{e.store, nil}.rows(ctx, e.store.dialect.step.load, []any{e.id}, func(rows *sql.Rows) error {
		s, err := scanStep(rows)
		if err == nil && s.malformed != "" {
			err = e.malformedStep(s)
		}
		retried = retried || s.retried
		s.optional = retried
		e.rows = append(e.rows, s.name)
		if s.status != Queued {
			e.stored[s.name] = s
		}
		return err
	})
}

// remaining is how long a waiting step has yet to wait.
func (e *execution) remaining(s *stepRecord) time.Duration {
	return durationOf(s.wait.Int64) - time.Since(e.loaded)
}

// ask is how every call begins. It returns the record of a step, if there is
// one, and an error if the call is not to go on: the run is suspended, or the name is no good.
func (e *execution) ask(name string) (*stepRecord, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed != nil {
		if e.calls++; e.calls > maxClosedCalls {
			runtime.Goexit() // it would never return
		}
		return nil, e.closed
	}
	if err := checkName("step name", name); err != nil {
		return nil, &operationError{fmt.Sprintf("run %d", e.id), err}
	}
	if e.asked[name] {
		err := fmt.Errorf("%w: %q", ErrStepReused, name)
		if e.reused == nil {
			e.reused = err
		}
		return nil, err
	}
	e.asked[name] = true
	return e.stored[name], nil
}

// enter counts a step as in flight, unless the execution is closed, or the step comes too late.
func (e *execution) enter(name string) (late bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed != nil || e.over {
		return e.closed == nil, e.closedError()
	}
	e.flying = append(e.flying, name)
	e.inflight.Add(1)
	return false, nil
}

// closedError is the suspension as an error, or nil. The caller holds e.mu.
func (e *execution) closedError() error {
	if e.closed == nil {
		return nil
	}
	return e.closed
}

// isLate reports whether the function has returned, for good.
func (e *execution) isLate() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.over && e.closed == nil
}

// refuseLate warns of a step that is asked for after the function has returned, and returns its error.
func (e *execution) refuseLate(name string) error {
	e.warnOfSteps(fmt.Sprintf("step %q was asked for after the function had returned, and was not run: the function has to wait for its goroutines", name))
	return fmt.Errorf("%w: step %q: the function of run %d has returned", ErrState, name, e.id)
}

// lookForChange warns if a new step came before recorded ones.
func (e *execution) lookForChange(name string) {
	e.mu.Lock()
	var skipped []string
	for other, rec := range e.stored {
		if rec.final() && !rec.optional && !e.asked[other] {
			skipped = append(skipped, other)
		}
	}
	quiet := len(skipped) == 0 || e.warned
	e.warned = e.warned || !quiet
	e.mu.Unlock()
	if !quiet {
		slices.Sort(skipped)
		e.warnOfChange(fmt.Sprintf("step %q is new, and was asked for before the recorded steps %q: the code has changed under the run, or does not do the same each time", name, skipped))
	}
}

// warnOfChange warns that the code does not fit the records.
func (e *execution) warnOfChange(text string) {
	if e.store != nil {
		e.store.log.Warn("pgqrs: the code of a run has changed", "workflow", e.workflow, "run", e.id, "warning", text)
		e.warn(text)
	}
}

// warnOfSteps warns that the function did not wait for steps of its goroutines.
func (e *execution) warnOfSteps(text string) {
	if e.store != nil {
		e.store.log.Warn("pgqrs: a run's function did not wait for its steps", "workflow", e.workflow, "run", e.id, "warning", text)
		e.warn(text)
	}
}

// warn records a warning.
func (e *execution) warn(text string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.lease), statementTimeout)
	defer cancel()
	err := e.store.single(ctx, func(c conn) error {
		_, err := c.exec(ctx, e.store.dialect.workflow.warn, e.id, text)
		return err
	})
	if err != nil {
		e.store.log.Warn("pgqrs: could not record the warning", "run", e.id, "err", err)
	}
}

// boundary is where an execution can be stopped: before a step that has no
// recorded result.
func (e *execution) boundary(ctx context.Context, name string) error {
	e.mu.Lock()
	if cause := context.Cause(ctx); errors.Is(cause, ErrCancelled) {
		e.cancelling = true
	}
	var stop error
	var refused []string
	switch {
	case e.store == nil:
	case context.Cause(e.lease) != nil:
		stop = e.suspendLocked(0, context.Cause(e.lease))
	case e.m.hold != nil && e.m.hold.draining.Load():
		stop = e.suspendLocked(0, nil)
	case e.cancelling && !e.cleaning:
		stop = e.refuseLocked(name)
	case e.paused:
		stop = e.suspendLocked(pausedFor, nil)
	default:
		refused, e.refused = e.refused, nil
	}
	e.mu.Unlock()
	for _, name := range refused {
		if err := e.recordRefusal(ctx, name); err != nil {
			return err
		}
	}
	return stop
}

// refuse tells the function, by a step, that the run is being cancelled.
func (e *execution) refuse(name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.refuseLocked(name)
}

func (e *execution) refuseLocked(name string) error {
	e.cancelling, e.cleaning = true, true
	e.refused = append(e.refused, name)
	return ErrCancelled
}

// recordRefusal records where a cancelled run was told so, now that it goes on
// to clean up: a replay has to take the same turn.
func (e *execution) recordRefusal(ctx context.Context, name string) error {
	_, err := e.save(ctx, name, step{status: Failed, failure: failure{Code: codeCancelled, Message: ErrCancelled.Error()}.encode()})
	return err
}

// suspend closes the execution for now.
func (e *execution) suspend(after time.Duration, cause error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.suspendLocked(after, cause)
}

func (e *execution) suspendLocked(after time.Duration, cause error) error {
	after = max(0, after)
	if e.closed == nil {
		e.closed = &suspension{after: after, cause: cause}
	}
	e.closed.after = min(e.closed.after, after)
	return e.closed
}
