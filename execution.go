package pgqrs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
	case status.final():
		return nil // its message outlived it; the ack follows
	case status == Paused:
		return &suspension{after: pausedFor}
	}
	s.executing(e.id)
	defer func() {
		if err != nil {
			s.executed(e.id, false)
		}
	}()
	if !fresh {
		if err := e.load(ctx); err != nil {
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
	out, err := guarded(func() (any, error) { return call(user, &Run{execution: e}, inputOf(m.Raw)) })
	return e.end(user, out, err)
}

// guarded calls fn and makes its panic an error.
func guarded(fn func() (any, error)) (v any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicError(p)
		}
	}()
	return fn()
}

// setback turns an error of the database into a suspension: nothing is lost, and no attempt burned.
func (s *Store) setback(ctx context.Context, err error) error {
	if !errors.Is(err, ErrLeaseLost) && context.Cause(ctx) == nil {
		s.log.Warn("pgqrs: run is put off because of the database", "err", err)
	}
	return &suspension{after: time.Second, cause: err}
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
				return rows.Scan(&e.id, &status, &fresh)
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

// bury ends the run of a message that goes to the dead letters, together with it.
func (s *Store) bury(ctx context.Context, m *MessageInfo, cause error, deadLetter string) error {
	message, err := marshal(errorText(cause))
	if err != nil {
		return err
	}
	return s.atomic(ctx, func(c conn) error {
		runs, err := c.ids(ctx, s.dialect.workflow.exists, m.ID)
		if err != nil {
			return err
		}
		for _, run := range runs {
			if _, err := c.endRun(ctx, run, Failed, nil, string(message)); err != nil {
				return err
			}
		}
		done, err := c.store.settle(ctx, []settlement{{m, outcome{kind: died, err: cause}, deadLetter}})
		if err == nil && len(done) == 0 {
			err = lostError([]int64{m.ID})
		}
		return err
	})
}

// endRun writes a final status, unless there is one, and tells the parent. It returns the status that stands.
func (c conn) endRun(ctx context.Context, run int64, status State, output, message any) (State, error) {
	var stands State
	var parent sql.NullInt64
	err := c.rows(ctx, c.store.dialect.workflow.finish, []any{run, string(status), output, message}, func(rows *sql.Rows) error {
		return rows.Scan(&stands, &parent)
	})
	if err == nil && stands == Cancelled {
		err = c.cancelChildren(ctx, run) // that were being started as it was cancelled
	}
	if err != nil || !parent.Valid {
		return stands, err
	}
	join := c.store.dialect.workflow.join
	if _, err := c.exec(ctx, join[0], run); err != nil {
		return stands, err
	}
	return stands, c.woken(ctx, join[1], run)
}

// woken runs a statement that makes the messages of runs due, and tells the workers of this process.
func (c conn) woken(ctx context.Context, text string, args ...any) error {
	var queues []string
	err := c.rows(ctx, text, args, func(rows *sql.Rows) error {
		var run int64
		var queue string
		err := rows.Scan(&run, &queue)
		queues = append(queues, queue)
		return err
	})
	for _, queue := range queues {
		err = errors.Join(err, c.store.wake(ctx, queue))
	}
	return err
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
	stored     map[string]*stepRecord
	loaded     time.Time
	asked      map[string]bool
	ran        []string // names whose function was called
	waits      map[string]int
	closed     *suspension
	calls      int      // since it was closed
	cancelling bool     // somebody asked for it
	cleaning   bool     // the function has been told
	refused    []string // the steps that told it, until that is recorded
	paused     bool
	warned     bool
	given      map[string]any // a test's results
}

func newExecution(s *Store, workflow string, m *MessageInfo) *execution {
	return &execution{store: s, workflow: workflow, m: m, stored: map[string]*stepRecord{}, asked: map[string]bool{}, waits: map[string]int{}}
}

// load reads the steps that earlier executions recorded.
func (e *execution) load(ctx context.Context) error {
	e.loaded = time.Now()
	return conn{e.store, nil}.rows(ctx, e.store.dialect.step.load, []any{e.id}, func(rows *sql.Rows) error {
		s, err := scanStep(rows)
		e.stored[s.name] = s
		return err
	})
}

// remaining is how long a waiting step has yet to wait.
func (e *execution) remaining(s *stepRecord) time.Duration {
	return time.Duration(s.wait.Int64)*time.Microsecond - time.Since(e.loaded)
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
		return nil, fmt.Errorf("%w: %q", ErrStepReused, name)
	}
	e.asked[name] = true
	return e.stored[name], nil
}

// lookForChange warns if a new step came before recorded ones.
func (e *execution) lookForChange(name string) {
	e.mu.Lock()
	var skipped []string
	for other, rec := range e.stored {
		if rec.final() && !e.asked[other] {
			skipped = append(skipped, other)
		}
	}
	quiet := len(skipped) == 0 || e.warned
	e.warned = e.warned || !quiet
	e.mu.Unlock()
	if !quiet {
		slices.Sort(skipped)
		e.warn(fmt.Sprintf("step %q is new, and was asked for before the recorded steps %q: the code has changed under the run, or does not do the same each time", name, skipped))
	}
}

// warn records a warning and logs it.
func (e *execution) warn(text string) {
	if e.store == nil {
		return
	}
	e.store.log.Warn("pgqrs: the code of a run has changed", "workflow", e.workflow, "run", e.id, "warning", text)
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

// end ends the execution: the run is finished, unless it was suspended.
func (e *execution) end(ctx context.Context, out any, err error) error {
	e.inflight.Wait()
	e.mu.Lock()
	closed, told := e.closed, e.cleaning
	e.mu.Unlock()
	cause := context.Cause(e.lease)
	switch {
	case errors.Is(cause, ErrTimeout) && (closed != nil || err != nil):
		return fmt.Errorf("run %d: %w", e.id, ErrTimeout) // of the whole execution, which counts
	case closed != nil:
		return closed
	case cause != nil && err != nil && !told:
		return &suspension{cause: cause} // it was cut short
	}
	return e.finish(ctx, out, err)
}

// finish records how the run ended and acks its message, in one transaction.
func (e *execution) finish(_ context.Context, out any, err error) error {
	status, output, message := Succeeded, any(nil), any(nil)
	if err == nil && out != nil {
		var text string
		if text, err = e.store.cfg.Limits.encode(out); err == nil {
			output = text
		} else {
			err = &operationError{fmt.Sprintf("result of run %d", e.id), err}
		}
	}
	if err != nil {
		raw, encodeErr := marshal(errorText(err))
		if encodeErr != nil {
			return encodeErr
		}
		status, message = Failed, string(raw)
	}
	e.lookForLeftOver(status)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.lease), statementTimeout)
	defer cancel()
	if e.m.hold != nil {
		e.m.hold.settling.Add(1)
		defer e.m.hold.settling.Add(-1)
	}
	stands, failed := e.endAtOnce(ctx, status, output, message)
	if failed == nil && stands == "" {
		stands, failed = e.endInParts(ctx, status, output, message)
	}
	if failed != nil {
		return e.store.setback(e.lease, failed)
	}
	if e.m.hold != nil {
		e.m.hold.settled.Store(true)
	}
	e.store.executed(e.id, true)
	if stands == Failed {
		e.store.log.Warn("pgqrs: run failed", "workflow", e.workflow, "run", e.id, "err", err)
	}
	return nil
}

// endAtOnce ends a run and acks its message by one statement, where there is one and no other run or message is
// concerned. It returns the status that stands, or "" if it did nothing.
func (e *execution) endAtOnce(ctx context.Context, status State, output, message any) (stands State, err error) {
	texts := e.store.dialect.workflow.end
	if len(texts) == 0 || len(followersOf([]settlement{{m: e.m}})) > 0 {
		return "", nil
	}
	err = e.store.single(ctx, func(c conn) error {
		stands = ""
		args := []any{e.id, e.m.ID, e.m.WorkerID, e.m.Claim, string(status), output, message}
		return c.rowsUntil(ctx, 1, texts, args, func(rows *sql.Rows) error { return rows.Scan(&stands) })
	})
	return stands, err
}

// endInParts is endAtOnce for every run, by several statements.
func (e *execution) endInParts(ctx context.Context, status State, output, message any) (stands State, err error) {
	err = e.store.atomic(ctx, func(c conn) error {
		var err error
		if stands, err = c.endRun(ctx, e.id, status, output, message); err != nil {
			return err
		}
		done, err := c.store.settle(ctx, []settlement{{m: e.m}})
		if err == nil && len(done) == 0 {
			err = lostError([]int64{e.m.ID})
		}
		return err
	})
	return stands, err
}

// lookForLeftOver warns if the function did not ask for steps that are recorded.
func (e *execution) lookForLeftOver(status State) {
	var left []string
	e.mu.Lock()
	if !e.warned && status == Succeeded && !e.cleaning {
		for _, name := range slices.Sorted(maps.Keys(e.stored)) {
			if !e.asked[name] {
				left = append(left, name)
			}
		}
	}
	e.mu.Unlock()
	if len(left) > 0 {
		e.warn(fmt.Sprintf("the recorded steps %q were not asked for: the code has changed under the run", left))
	}
}
