package pgqrs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
	"github.com/pgqrs/pgqrs-go/internal/testkit"
)

// maxCallsAfterSuspension is how many calls a function may make after its run was suspended. After
// that the function is assumed never to return.
const maxCallsAfterSuspension = 1000

// A Run is a run from the inside, as its function sees it. It is safe for concurrent use. Steps may
// run in goroutines, if the function waits for them. Step names have up to 255 characters and are
// unique in a run.
//
// A wait suspends the whole run. Waits are a Sleep, a Wait, a Child, or a step that is to be tried
// again. Steps in progress in other goroutines end first and are recorded. Every other call returns
// an error matching ErrSuspended, until the run continues. So a Sleep of a day in one goroutine
// delays the steps of the others for a day. In a branch of [Run.All] a wait suspends that branch
// alone.
//
// If the function returns before a step of one of its goroutines has ended, the run ends after that
// step, with a [RunInfo].Warning. A step that is called later does not run. It returns an error
// matching ErrState, and the run gets the warning too.
//
// The function of a step must not make calls of its run. There they return an error matching
// ErrState, and the step fails with it. The library recognises such a call by its ctx. If the call
// has the ctx of the run's function, it counts as a call of another goroutine.
type Run struct {
	*execution
	policy Policy // of steps
}

// ID returns the run's id.
func (r *Run) ID() int64 { return r.id }

// With returns a copy of the run whose steps use p in place of the default policy for steps. The
// default is 3 attempts, a backoff of 1 s to 1 min, and no timeout.
func (r *Run) With(p Policy) *Run { return &Run{execution: r.execution, policy: p} }

type (
	runKey  struct{}
	stepKey struct{} // its value is a *stepScope
)

// A stepScope is the step whose function has a ctx.
type stepScope struct {
	run       *execution
	name      string
	nestedErr atomic.Pointer[error] // of the first call that a step's function must not make
}

// stepScopeOf returns the step of a ctx, or nil outside a step.
func stepScopeOf(ctx context.Context) *stepScope {
	scope, _ := ctx.Value(stepKey{}).(*stepScope)
	return scope
}

// checkNotNested returns an error if a call of a run is made in the function of one of the run's
// own steps.
func (e *execution) checkNotNested(ctx context.Context, call string) error {
	scope := stepScopeOf(ctx)
	if scope == nil || scope.run != e {
		return nil
	}
	err := Permanent(fmt.Errorf("%w: %s is called in the function of step %q of run %d", ErrState, call, scope.name, e.id))
	scope.nestedErr.CompareAndSwap(nil, &err)
	return err
}

// nestedCallError returns the error of a step's function. If that is nil, it returns the error of a
// refused call in the function.
func nestedCallError(ctx context.Context, err error) error {
	scope := stepScopeOf(ctx)
	if err != nil || scope == nil {
		return err
	}
	if refused := scope.nestedErr.Load(); refused != nil {
		return *refused
	}
	return nil
}

// outsideStep returns an error if ctx belongs to a run's function, but not to a step. A call
// outside a step is repeated with every replay.
func outsideStep(ctx context.Context) error {
	if ctx.Value(runKey{}) != nil && ctx.Value(stepKey{}) == nil {
		return fmt.Errorf("%w: in a run, but outside a step, it would be done again with every replay", ErrState)
	}
	return nil
}

// pausedDelay is the delay of a paused run's message. Resume wakes the run.
const pausedDelay = 100 * 365 * 24 * time.Hour

// execute is one execution of a run. It begins the execution, calls the function, and ends or
// suspends the run.
func (s *Store) execute(ctx context.Context, name string, m *MessageInfo, call func(context.Context, *Run, []byte) (any, error)) (err error) {
	e, status, fresh, err := s.beginRun(ctx, name, m)
	if err != nil {
		return s.suspendOnInfraError(ctx, err)
	}
	switch {
	case !status.known():
		return Permanent(malformedError(fmt.Sprintf("run %d", e.id), fmt.Sprintf("status: %q is not one of a run", string(status))))
	case status.final():
		return nil // its message outlived it, and the ack follows
	case status == Paused:
		return &suspension{after: pausedDelay}
	}
	s.notifyAwaiting(RunInfo{ID: e.id, Status: Running})
	defer func() {
		if err != nil {
			s.notifyAwaiting(RunInfo{ID: e.id}) // the execution is over, the run is not
		}
	}()
	if !fresh {
		if err := e.load(ctx); errors.Is(err, ErrMalformed) {
			return err
		} else if err != nil {
			return s.suspendOnInfraError(ctx, err)
		}
	}
	e.cancelling = status == Cancelling
	if e.cancelling && len(e.records) == 0 {
		return e.finish(ctx, nil, nil)
	}
	user, interrupt := context.WithCancelCause(context.WithValue(ctx, runKey{}, e))
	defer interrupt(nil)
	if m.delivery != nil {
		m.delivery.interrupt.Store(&interrupt)
	}
	var out any
	if bad := foreign.Catch(func() { out, err = call(user, &Run{execution: e}, inputOf(m.Raw)) }); bad != nil {
		out, err = nil, bad
	}
	return e.end(user, out, foreign.Safe(err))
}

// suspendOnInfraError turns an error of the database into a suspension. Nothing is lost, and the
// attempt does not count.
func (s *Store) suspendOnInfraError(ctx context.Context, err error) error {
	return &suspension{after: time.Second, cause: infraCause(ctx, err)}
}

// inputOf returns the input in the payload of a run's message. As for pgqrs 0.15, a payload without
// an input is the input itself.
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
func (s *Store) beginRun(ctx context.Context, name string, m *MessageInfo) (e *execution, status RunState, fresh bool, err error) {
	e = s.newExecution(name, m)
	e.lease = ctx
	for range 2 {
		found := false
		err = s.single(ctx, func(c conn) error {
			found = false
			return c.rows(ctx, s.dialect.workflow.begin, []any{m.ID, m.WorkerID, m.Claim}, func(rows *sql.Rows) error {
				found = true
				// The caller, execute, checks the status.
				_, err := scanLoosely(rows, "id status fresh", &e.id, &status, &fresh)
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

// An execution is one execution of a run.
type execution struct {
	backend  runBackend
	store    *Store // backend's, nil without a database
	log      *slog.Logger
	workflow string
	id       int64
	message  *MessageInfo
	lease    context.Context // ends when the lease is lost or the worker stops

	inflight sync.WaitGroup // steps in progress

	mu                   sync.Mutex
	stepNames            []string // names of steps that have a row, with a record or without
	records              map[string]*stepRecord
	loaded               time.Time
	asked                map[string]bool
	unaskedRecords       int      // records that the code has to ask for, and has not
	runningSteps         []string // names of steps in progress
	openTxs              int      // open transactions of steps
	calledSteps          []string // names whose function was called
	signalWaits          map[string]int
	suspension           *suspension
	callsAfterSuspension int       // since it was closed
	alls                 int       // calls of All so far, outside of branches
	branchDue            time.Time // when the first wait of a branch is over, zero means never
	cancelling           bool      // whether the run is being cancelled
	cleanUp              bool      // whether the function was notified of that
	cancelNotified       []string  // the steps that notified it, until that is recorded
	paused               bool
	returned             bool  // whether the function has returned
	reusedErr            error // the first ErrStepReused
	warned               bool
}

// A runBackend is where an execution records its steps. It is the database (storeBackend), or
// nothing in a test (fakeBackend). It is safe for concurrent use.
type runBackend interface {
	// checkUsable returns an error without a database, if call needs one.
	checkUsable(call string) error
	// isOf reports whether the backend is that store.
	isOf(s *Store) bool
	limits() Limits
	observer() Observer
	// resumes reports whether a later execution continues one that is suspended.
	resumes() bool

	// givenStep returns the result that a test gives a step, if it gives one.
	givenStep(e *execution, name string) (rec *stepRecord, ok bool, err error)
	// useSignal and useChildren turn the value that a test gives a wait for a signal, or for n runs
	// of a workflow, into the result of its step.
	useSignal(signal, step string)
	useChildren(workflow, step string, n int, one bool) error

	// save records a step. If the step had ended, it returns the existing record. If the lease is
	// lost, it returns a suspension.
	save(ctx context.Context, e *execution, name string, st stepValues) (*stepRecord, error)
	// warn records a warning about the code of a run.
	warn(e *execution, text string)
}

// A storeBackend records steps in a Store.
type storeBackend struct{ *Store }

func (b storeBackend) checkUsable(string) error { return nil }

func (b storeBackend) isOf(s *Store) bool { return b.core == s.core }

func (b storeBackend) limits() Limits { return b.cfg.Limits }

// observer returns the Store's Observer, or an empty one.
func (b storeBackend) observer() Observer {
	if b.cfg.Observer == nil {
		return Observer{}
	}
	return *b.cfg.Observer
}

func (b storeBackend) resumes() bool { return true }

func (b storeBackend) givenStep(*execution, string) (*stepRecord, bool, error) {
	return nil, false, nil
}

func (b storeBackend) useSignal(string, string) {}

func (b storeBackend) useChildren(string, string, int, bool) error { return nil }

func (s *Store) newExecution(workflow string, m *MessageInfo) *execution {
	e := newExecution(storeBackend{s}, workflow, m)
	e.store, e.log = s, s.log
	return e
}

func newExecution(b runBackend, workflow string, m *MessageInfo) *execution {
	return &execution{backend: b, workflow: workflow, message: m, records: map[string]*stepRecord{}, asked: map[string]bool{}, signalWaits: map[string]int{}}
}

// load reads the steps that earlier executions recorded. A step that Retry has cleared has no
// record. If it takes another way now, the records after it may not be needed.
func (e *execution) load(ctx context.Context) error {
	e.loaded = time.Now()
	retried := false
	return e.store.onPool().rows(ctx, e.store.dialect.step.load, []any{e.id}, func(rows *sql.Rows) error {
		leftOut := false
		s, err := scanStep(rows, &leftOut)
		if err == nil && s.malformed != "" {
			err = e.malformedStep(s)
		}
		s.leftOut = leftOut
		retried = retried || s.retried
		s.optional = retried
		e.stepNames = append(e.stepNames, s.name)
		if s.status != Queued {
			e.records[s.name] = s
			if s.expected() {
				e.unaskedRecords++
			}
		}
		return err
	})
}

// remainingWait is how long a waiting step still has to wait.
func (e *execution) remainingWait(s *stepRecord) time.Duration {
	return durationOf(s.wait.Int64) - time.Since(e.loaded)
}

// lookUpStep begins every call. It returns the record of a step, if there is one. It returns an
// error if the call must not continue, because the run is suspended or the name is not valid.
func (e *execution) lookUpStep(ctx context.Context, name string) (*stepRecord, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.branchOf(ctx)
	if stop := e.suspensionOf(b); stop != nil {
		calls := &e.callsAfterSuspension
		if b != nil {
			calls = &b.callsAfterSuspension
		}
		if *calls++; *calls > maxCallsAfterSuspension {
			runtime.Goexit() // it would never return
		}
		return nil, stop
	}
	if err := checkName("step name", name); err != nil {
		return nil, &operationError{fmt.Sprintf("run %d", e.id), err}
	}
	if e.asked[name] {
		err := fmt.Errorf("%w: %q", ErrStepReused, name)
		if e.reusedErr == nil {
			e.reusedErr = err
		}
		return nil, err
	}
	e.asked[name] = true
	rec := e.records[name]
	if rec != nil && rec.expected() {
		e.unaskedRecords--
	}
	return rec, nil
}

// startStep counts a step as in progress, unless the execution is closed or the function has
// returned.
func (e *execution) startStep(ctx context.Context, name string) (late bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if stop := e.suspensionOf(e.branchOf(ctx)); stop != nil || e.returned {
		return stop == nil, stop
	}
	e.runningSteps = append(e.runningSteps, name)
	e.inflight.Add(1)
	return false, nil
}

// hasReturned reports whether the function has returned and the run is not suspended.
func (e *execution) hasReturned() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.returned && e.suspension == nil
}

// lateStepError adds a warning of a step that is called after the function has returned, and
// returns its error.
func (e *execution) lateStepError(name string) error {
	e.warnOfSteps(fmt.Sprintf("step %q was asked for after the function had returned, and was not run: the function has to wait for its goroutines", name))
	return fmt.Errorf("%w: step %q: the function of run %d has returned", ErrState, name, e.id)
}

// warnIfSkipped adds a warning if a new step came before recorded steps.
func (e *execution) warnIfSkipped(name string) {
	e.mu.Lock()
	var skipped []string
	if e.unaskedRecords > 0 && !e.warned {
		for other, rec := range e.records {
			if rec.expected() && !e.asked[other] {
				skipped = append(skipped, other)
			}
		}
		e.warned = true
	}
	e.mu.Unlock()
	if len(skipped) > 0 {
		slices.Sort(skipped)
		e.warnOfChange(fmt.Sprintf("step %q is new, and was asked for before the recorded steps %q: the code has changed under the run, or does not do the same each time", name, skipped))
	}
}

// warnOfChange adds a warning that the code does not fit the records.
func (e *execution) warnOfChange(text string) {
	e.log.Warn("pgqrs: the code of a run has changed", "workflow", e.workflow, "run", e.id, "warning", text)
	e.backend.warn(e, text)
}

// warnOfSteps adds a warning that the function did not wait for steps of its goroutines.
func (e *execution) warnOfSteps(text string) {
	e.log.Warn("pgqrs: a run's function did not wait for its steps", "workflow", e.workflow, "run", e.id, "warning", text)
	e.backend.warn(e, text)
}

// warn implements [runBackend].
func (b storeBackend) warn(e *execution, text string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.lease), statementTimeout)
	defer cancel()
	err := b.single(ctx, func(c conn) error {
		_, err := c.exec(ctx, b.dialect.workflow.warn, e.id, text)
		return err
	})
	if err != nil {
		b.log.Warn("pgqrs: could not record the warning", "run", e.id, "err", err)
	}
}

// checkpoint may stop an execution before a step that has no recorded result.
func (e *execution) checkpoint(ctx context.Context, name string) error {
	e.mu.Lock()
	if cause := context.Cause(ctx); errors.Is(cause, ErrCancelled) {
		e.cancelling = true
	}
	b := e.branchOf(ctx)
	var stop error
	var refused []string
	switch {
	case context.Cause(e.lease) != nil:
		stop = e.suspendLocked(0, context.Cause(e.lease))
	case e.message.delivery != nil && e.message.delivery.draining.Load():
		stop = e.suspendLocked(0, nil)
	case e.cancelling && !e.isCancelNotified(b):
		stop = e.notifyCancelledLocked(b, name)
	case e.paused:
		stop = e.suspendLocked(pausedDelay, nil)
	case e.branchWaits():
		stop = e.suspendLocked(0, nil)
	default:
		refused, e.cancelNotified = e.cancelNotified, nil
	}
	e.mu.Unlock()
	for _, name := range refused {
		if err := e.recordCancelNotified(ctx, name); err != nil {
			return err
		}
	}
	return stop
}

// notifyCancelled returns ErrCancelled to the function, by a step, if the run is being cancelled.
func (e *execution) notifyCancelled(ctx context.Context, name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.notifyCancelledLocked(e.branchOf(ctx), name)
}

// isCancelNotified reports whether a branch, or the function if b is nil, was notified of the
// cancellation. The caller holds e.mu.
func (e *execution) isCancelNotified(b *branch) bool {
	if b == nil {
		return e.cleanUp
	}
	return b.cancelNotified
}

func (e *execution) notifyCancelledLocked(b *branch, name string) error {
	if b != nil {
		b.cancelNotified = true
	}
	e.cancelling, e.cleanUp = true, true
	e.cancelNotified = append(e.cancelNotified, name)
	return ErrCancelled
}

// recordCancelNotified records the step that notified the function of a cancellation, before the
// clean-up continues. A replay has to notify it at the same step.
func (e *execution) recordCancelNotified(ctx context.Context, name string) error {
	_, err := e.save(ctx, name, stepValues{status: Failed, failure: stepFailure{Code: codeCancelled, Message: ErrCancelled.Error()}.encode()})
	return err
}

// suspend closes the execution and suspends the run.
func (e *execution) suspend(after time.Duration, cause error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.suspendLocked(after, cause)
}

func (e *execution) suspendLocked(after time.Duration, cause error) error {
	after = max(0, after)
	if e.suspension == nil {
		e.suspension = &suspension{after: after, cause: cause}
	}
	e.suspension.after = min(e.suspension.after, after)
	return e.suspension
}

// end ends the execution. It finishes the run, unless the run was suspended.
func (e *execution) end(ctx context.Context, out any, err error) error {
	e.waitForSteps()
	e.mu.Lock()
	closed, told, reused := e.suspension, e.cleanUp, e.reusedErr
	e.mu.Unlock()
	if err == nil {
		err = reused // the function has ignored it
	}
	cause := context.Cause(e.lease)
	switch {
	case errors.Is(cause, ErrTimeout) && (closed != nil || err != nil):
		// The whole execution has timed out, which counts.
		return fmt.Errorf("run %d: %w", e.id, ErrTimeout)
	case closed != nil:
		return closed
	case cause != nil && err != nil && !told:
		return &suspension{cause: cause} // it was interrupted
	}
	return e.finish(ctx, out, err)
}

// waitForSteps waits until no step is in progress, and keeps others from starting. It adds a
// warning of steps that the function did not wait for, unless the run is suspended.
func (e *execution) waitForSteps() {
	e.mu.Lock()
	e.returned = true
	var left []string
	if e.suspension == nil {
		left = slices.Sorted(slices.Values(e.runningSteps))
	}
	e.mu.Unlock()
	e.inflight.Wait()
	if len(left) > 0 {
		e.warnOfSteps(fmt.Sprintf("the function returned while the steps %q were under way: it has to wait for its goroutines", left))
	}
}

// finish records the end of the run and acks its message, in one transaction.
func (e *execution) finish(_ context.Context, out any, err error) error {
	status, output, message := Succeeded, any(nil), any(nil)
	if err == nil && out != nil {
		var text string
		if text, err = e.store.cfg.Limits.record(out); err == nil {
			output = text
		} else {
			err = &operationError{fmt.Sprintf("result of run %d", e.id), err}
		}
	}
	if err != nil {
		raw, encodeErr := encodeJSON(errorText(err))
		if encodeErr != nil {
			return encodeErr
		}
		status, message = Failed, string(raw)
	}
	e.warnIfUnused(status)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.lease), statementTimeout)
	defer cancel()
	if e.message.delivery != nil {
		e.message.delivery.settling.Add(1)
		defer e.message.delivery.settling.Add(-1)
	}
	stands, failed := e.writeEnd(ctx, status, output, message)
	if sqlerr.Untranslatable(failed) {
		if err == nil {
			err = &operationError{fmt.Sprintf("result of run %d", e.id), invalidTextError(failed)}
		}
		raw, encodeErr := encodeJSON(asciiText(errorText(err)))
		if encodeErr != nil {
			return encodeErr
		}
		status, output, message = Failed, nil, string(raw)
		stands, failed = e.writeEnd(ctx, status, output, message)
	}
	if failed != nil {
		return e.store.suspendOnInfraError(e.lease, failed)
	}
	if e.message.delivery != nil {
		e.message.delivery.settled.Store(true)
	}
	e.store.notifyAwaiting(e.endInfo(stands, output))
	if stands == Failed {
		e.store.log.Warn("pgqrs: run failed", "workflow", e.workflow, "run", e.id, "err", err)
	}
	return nil
}

// writeEnd ends a run and acks its message. It returns the status that the run has then.
func (e *execution) writeEnd(ctx context.Context, status RunState, output, message any) (stands RunState, err error) {
	stands, err = e.endByOneStatement(ctx, status, output, message)
	if err == nil && stands == "" {
		stands, err = e.endByTransaction(ctx, status, output, message)
	}
	return stands, err
}

// endInfo is the news of a run's end for the calls that wait for it in this process.
func (e *execution) endInfo(stands RunState, output any) RunInfo {
	info := RunInfo{ID: e.id, Workflow: e.workflow, Status: stands}
	if text, ok := output.(string); ok && stands == Succeeded {
		info.Output = json.RawMessage(text)
	}
	return info
}

// endByOneStatement ends a run and acks its message with one statement, if the dialect has one and
// no other run or message is concerned. It returns the status that the run has then, or "" if it
// did nothing.
func (e *execution) endByOneStatement(ctx context.Context, status RunState, output, message any) (stands RunState, err error) {
	if !e.store.dialect.runsByOneStatement || len(dependentsOf([]settlement{{m: e.message}})) > 0 {
		return "", nil
	}
	err = e.store.single(ctx, func(c conn) error {
		stands = ""
		args := []any{e.id, e.message.ID, e.message.WorkerID, e.message.Claim, string(status), output, message}
		return c.rowsUntil(ctx, 1, e.store.dialect.workflow.end, args, func(rows *sql.Rows) error { return rows.Scan(&stands) })
	})
	return stands, err
}

// endByTransaction is endByOneStatement for every run, with several statements.
func (e *execution) endByTransaction(ctx context.Context, status RunState, output, message any) (stands RunState, err error) {
	err = e.store.atomic(ctx, func(c conn) error {
		var err error
		if stands, err = c.endRun(ctx, e.id, status, output, message); err != nil {
			return err
		}
		done, err := c.store.settle(ctx, []settlement{{m: e.message}})
		if err == nil && len(done) == 0 {
			err = lostError([]int64{e.message.ID})
		}
		return err
	})
	return stands, err
}

// warnIfUnused adds a warning if the function did not call recorded steps.
func (e *execution) warnIfUnused(status RunState) {
	var left []string
	e.mu.Lock()
	if !e.warned && status == Succeeded && !e.cleanUp {
		for _, name := range slices.Sorted(maps.Keys(e.records)) {
			if !e.records[name].optional && !e.asked[name] {
				left = append(left, name)
			}
		}
	}
	e.mu.Unlock()
	if len(left) > 0 {
		e.warnOfChange(fmt.Sprintf("the recorded steps %q were not asked for: the code has changed under the run", left))
	}
}

// endRun writes a final status, unless the run has one, and updates the parent. It returns the
// status that the run has then.
func (c conn) endRun(ctx context.Context, run int64, status RunState, output, message any) (RunState, error) {
	var stands RunState
	var parent sql.NullInt64
	err := c.rows(ctx, c.store.dialect.workflow.finish, []any{run, string(status), output, message}, func(rows *sql.Rows) error {
		// A malformed row has no parent.
		_, err := scanLoosely(rows, "status parent_run_id", &stands, &parent)
		return err
	})
	if err == nil && stands == Cancelled {
		// These children were being started when the run was cancelled.
		err = c.cancelChildren(ctx, run)
	}
	if err != nil || !parent.Valid {
		return stands, err
	}
	join := c.store.dialect.workflow.join
	if _, err := c.exec(ctx, join[0], run); err != nil {
		return stands, err
	}
	return stands, c.wakeRunsBy(ctx, join[1], run)
}

// wakeRunsBy runs a statement that makes the messages of runs due, and wakes the workers of this
// process.
func (c conn) wakeRunsBy(ctx context.Context, text string, args ...any) error {
	var queues []string
	err := c.rows(ctx, text, args, func(rows *sql.Rows) error {
		var run int64
		var queue string
		_, err := scanLoosely(rows, "id queue", &run, &queue) // a malformed row may be in no queue
		queues = append(queues, queue)
		return err
	})
	for _, queue := range queues {
		err = errors.Join(err, c.store.wake(ctx, queue))
	}
	return err
}

// failRun ends the run of a message that goes to the dead letters, together with the message.
func (s *Store) failRun(ctx context.Context, m *MessageInfo, cause error, deadLetter string) error {
	err := s.failRunAsIs(ctx, m, cause, deadLetter)
	if plain := inASCII(cause); sqlerr.Untranslatable(err) && plain != nil {
		return s.failRunAsIs(ctx, m, plain, deadLetter)
	}
	return err
}

func (s *Store) failRunAsIs(ctx context.Context, m *MessageInfo, cause error, deadLetter string) error {
	message, err := encodeJSON(errorText(cause))
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

// wakeOnlyDelay is the delay of a run that waits for a wake-up.
const wakeOnlyDelay = 100 * 365 * 24 * time.Hour

// Sleep suspends the run for d, without holding a worker, however long d is, and across restarts.
// It returns an error matching ErrSuspended until the time has passed by the database's clock, and
// nil after that. The sleep is recorded as a step of that name.
func (r *Run) Sleep(ctx context.Context, name string, d time.Duration) error {
	_, err := r.runStepOnce(ctx, name, func(rec *stepRecord) ([]byte, error) { return r.sleep(ctx, name, rec, d) })
	return err
}

func (r *Run) sleep(ctx context.Context, name string, rec *stepRecord, d time.Duration) ([]byte, error) {
	wait, asleep := d, rec != nil && rec.wait.Valid
	if asleep {
		wait = r.remainingWait(rec)
	}
	onward := func() ([]byte, error) { return nil, r.wait(ctx, wait) }
	switch {
	case wait <= 0 || !r.backend.resumes():
		return r.saveThen(ctx, name, stepValues{status: Succeeded}, func() ([]byte, error) { return nil, nil })
	case asleep:
		return onward()
	default:
		return r.saveThen(ctx, name, stepValues{status: Running, delay: d.Microseconds()}, onward)
	}
}

// Version returns the version of a change in the code that this run has to follow. It returns the
// given version if the run had not passed this point when the change was made, and 0 if the run
// had. A run has passed this point if a later step has a record: a result, a wait, a child, or a
// retry to come. The answer is recorded as a step named "version:" and the change, so that it stays
// the same:
//
//	if v, err := run.Version(ctx, "fraud-check", 1); err != nil {
//		return err
//	} else if v >= 1 {
//		// the new way
//	}
func (r *Run) Version(ctx context.Context, change string, version int) (int, error) {
	if version < 1 {
		return 0, fmt.Errorf("pgqrs: version %d of change %q is less than 1", version, change)
	}
	name := "version:" + change
	if err := r.checkNotNested(ctx, fmt.Sprintf("%q", name)); err != nil {
		return 0, err
	}
	if b := r.branchOf(ctx); b != nil {
		return 0, fmt.Errorf("%w: Version of change %q is called in a branch of run %d; call it before All", ErrState, change, r.id)
	}
	if r.hasPassed(name) {
		return 0, nil
	}
	return Step(ctx, r, name, func(context.Context) (int, error) { return version, nil })
}

// hasPassed reports whether the run has passed a step that has no record. It has if another step
// has a row, whatever its state, and has not been called yet.
func (e *execution) hasPassed(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.records[name] != nil || e.suspension != nil {
		return false
	}
	return slices.ContainsFunc(e.stepNames, func(other string) bool { return !e.asked[other] })
}

// Runs and plain consumers. A workflow and a queue of one name share a queue. A message there may
// belong to a run, and only the workflow's handler may settle it. Otherwise the run would wait for
// ever.

// unknownRun is the run of a message that was claimed from a workflow's queue and may have a run.
const unknownRun = -1

// findRuns finds the runs of messages that a plain consumer has claimed. It queries only messages
// of a workflow's queue.
func (s *Store) findRuns(ctx context.Context, ms []*MessageInfo) error {
	asked := map[int64]*MessageInfo{}
	var ids []int64
	for _, m := range ms {
		if m.run == unknownRun {
			m.run = 0
			asked[m.ID] = m
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	list, err := jsonList(ids)
	if err != nil {
		return err
	}
	return s.onPool().rows(ctx, s.dialect.workflow.ofMessages, []any{list}, func(rows *sql.Rows) error {
		var message, run int64
		if err := rows.Scan(&message, &run); err != nil {
			return err
		}
		if m := asked[message]; m != nil {
			m.run = run
		}
		return nil
	})
}

// withoutRuns returns the messages that belong to no run, and an error that names the others.
func withoutRuns[T any](what string, ms []*Message[T]) ([]*Message[T], error) {
	var plain []*Message[T]
	var errs []error
	for _, m := range ms {
		if m.run <= 0 {
			plain = append(plain, m)
			continue
		}
		errs = append(errs, belongsError(what, m.ID, m.run))
	}
	if len(errs) == 0 {
		return ms, nil
	}
	return plain, errors.Join(errs...)
}

func belongsError(what string, message, run int64) error {
	who := "only its workflow's handler settles it"
	if what == "delete" {
		who = "Store.Delete deletes both"
	}
	return fmt.Errorf("%w: message %d belongs to run %d; %s", ErrState, message, run, who)
}

// The test kit reaches unexported functions through these.
func init() {
	testkit.NewRun = func(given map[string]any) any {
		e := newExecution(&fakeBackend{results: maps.Clone(given)}, "test", &MessageInfo{ID: 1})
		e.id, e.lease, e.log = 1, context.Background(), slog.New(slog.DiscardHandler)
		return &Run{execution: e}
	}
	testkit.Ran = func(run any) []string {
		e := run.(*Run).execution
		e.mu.Lock()
		defer e.mu.Unlock()
		return slices.Clone(e.calledSteps)
	}
	testkit.Render = func(store any, text string) string { return store.(*Store).render(text) }
	testkit.Queue = func(handler any) string { return handler.(Handler).queue }
}

// A fakeBackend records nothing. It gives the steps of a test's run their results.
type fakeBackend struct {
	mu      sync.Mutex
	results map[string]any
}

func (b *fakeBackend) checkUsable(call string) error {
	return fmt.Errorf("%w: %s needs a database, or a given result", ErrUnsupported, call)
}

func (b *fakeBackend) isOf(*Store) bool { return false }

func (b *fakeBackend) limits() Limits { return Limits{} }

func (b *fakeBackend) observer() Observer { return Observer{} }

func (b *fakeBackend) resumes() bool { return false }

func (b *fakeBackend) save(context.Context, *execution, string, stepValues) (*stepRecord, error) {
	return nil, nil
}

func (b *fakeBackend) warn(*execution, string) {}

// givenStep implements [runBackend].
func (b *fakeBackend) givenStep(e *execution, name string) (*stepRecord, bool, error) {
	b.mu.Lock()
	v, ok := b.results[name]
	b.mu.Unlock()
	if !ok {
		return nil, false, nil
	}
	if err, failed := v.(error); failed {
		return nil, true, e.testError(name, err)
	}
	text, err := Limits{}.record(v)
	if err != nil {
		return nil, true, fmt.Errorf("the value given for %q: %w", name, err)
	}
	return &stepRecord{name: name, status: Succeeded, output: []byte(text)}, true, nil
}

// testError returns a failure as its record would return it.
func (e *execution) testError(name string, err error) error {
	if errors.Is(err, ErrSuspended) {
		return e.suspend(0, nil)
	}
	f := stepFailure{Code: failureCode(err), Message: errorText(err)}
	if errors.Is(err, ErrCancelled) {
		f.Code = codeCancelled
	}
	return e.stepError(name, f)
}

// useSignal lets a test give the first signal of a name by that name alone.
func (b *fakeBackend) useSignal(signal, step string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, plain := b.results[signal]
	if _, exact := b.results[step]; plain && !exact && step == signal+"#1" {
		b.results[step] = v
	}
}

// useChildren turns the value that a test gives for n runs of a workflow into the record of a
// backend with a database. For Children the test gives a slice of results or errors, or an error
// for all.
func (b *fakeBackend) useChildren(workflow, step string, n int, one bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok := b.results[step]
	if _, done := v.([]childResult); done || !ok {
		return nil
	}
	if err, failed := v.(error); failed && errors.Is(err, ErrSuspended) {
		return nil
	}
	values, err := testValues(v, n, one)
	results := make([]childResult, len(values))
	for i := 0; i < len(values) && err == nil; i++ {
		results[i], err = testChild(workflow, int64(i+2), values[i])
	}
	if err != nil {
		return fmt.Errorf("%w: the value given for %q: %w", ErrInvalidPayload, step, err)
	}
	b.results[step] = results
	return nil
}

// testValues returns the value for each of n children.
func testValues(v any, n int, one bool) ([]any, error) {
	if _, failed := v.(error); failed || one {
		return slices.Repeat([]any{v}, n), nil
	}
	list := reflect.ValueOf(v)
	if list.Kind() != reflect.Slice || list.Len() != n {
		return nil, fmt.Errorf("it is %T; want a slice of %d, or an error", v, n)
	}
	values := make([]any, n)
	for i := range values {
		values[i] = list.Index(i).Interface()
	}
	return values, nil
}

func testChild(workflow string, id int64, v any) (childResult, error) {
	c := childResult{Workflow: workflow, RunID: id}
	if err, failed := v.(error); failed {
		text := errorText(err)
		c.Error, c.Cancelled = &text, errors.Is(err, ErrCancelled)
		return c, nil
	}
	raw, err := json.Marshal(v)
	c.Output = raw
	return c, err
}
