package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/coalesce"
	"github.com/pgqrs/pgqrs-go/internal/foreign"
	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

const defaultStepAttempts = 3

var defaultStepBackoff = Exponential(time.Second, time.Minute)

// Step runs fn and records its result. If the step has a record already, Step returns the result of
// the record and does not call fn. The result comes from the record in either case, so it is the
// same each time. T goes through JSON. The JSON of a record has one form on every database: keys
// are sorted, the last of equal keys counts, numbers have no exponent, and zero has no sign.
//
// fn may run more than once. It runs again after an error, or if its process died or lost its lease
// before the result was recorded. It may then run again before a former call has returned. Use
// [StepTx] for effects in the database that must happen once.
//
// An error is retried by the run's policy (see [Run.With]). The run waits without holding a worker,
// and Step returns an error matching ErrSuspended. Permanent, RetryAfter and Snooze have the same
// effect as in a handler. After the last attempt the error is recorded. Step returns it as a
// *RunError, now and on every replay. A panic is an error.
//
// If ctx has ended and fn returns an error, the step has not failed. Nothing is recorded, and Step
// returns an error that matches ctx.Err(). To limit each attempt, use Policy.Timeout, or a ctx that
// fn makes.
//
// Step also returns errors matching:
//   - ErrCancelled if the run is being cancelled (see [ErrCancelled]).
//   - ErrStepReused if the execution has already used the name.
//   - ErrState in the function of another step of the run.
//   - ErrInvalidPayload if a recorded result does not decode into T.
func Step[T any](ctx context.Context, run *Run, name string, fn func(context.Context) (T, error)) (T, error) {
	raw, err := run.step(ctx, name, func(ctx context.Context) (any, error) { return fn(ctx) })
	return decodeStep[T](run, name, raw, err)
}

// Do is [Step] for a function without a result.
func (r *Run) Do(ctx context.Context, name string, fn func(context.Context) error) error {
	_, err := r.step(ctx, name, func(ctx context.Context) (any, error) { return nil, fn(ctx) })
	return err
}

func decodeStep[T any](run *Run, name string, raw []byte, err error) (T, error) {
	var out T
	if err != nil {
		return out, err
	}
	if raw == nil {
		return out, nil
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return out, fmt.Errorf("%w: result of step %q of run %d does not decode into %T: %w", ErrInvalidPayload, name, run.id, out, err)
	}
	return out, nil
}

// runStepOnce returns the recorded result of a step. If the step has none, it returns the result of
// do.
func (r *Run) runStepOnce(ctx context.Context, name string, do func(*stepRecord) ([]byte, error)) (raw []byte, err error) {
	rec, err := r.next(ctx, name)
	if err != nil {
		return nil, err
	}
	if rec != nil && rec.final() {
		raw, err = r.recorded(name, rec)
		if errors.Is(err, ErrCancelled) {
			r.replayCancel(ctx)
		}
		return raw, err
	}
	defer func() {
		var cut *cutShortError
		isNew := rec == nil && !errors.As(err, &cut)
		r.endStep(name, isNew && r.branchOf(ctx) == nil) // in another branch recorded steps may follow
	}()
	return do(rec)
}

// step returns the recorded result of a step, or runs it.
func (r *Run) step(ctx context.Context, name string, fn func(context.Context) (any, error)) ([]byte, error) {
	return r.runStepOnce(ctx, name, func(rec *stepRecord) ([]byte, error) { return r.runStep(ctx, name, rec, fn) })
}

func (r *Run) runStep(ctx context.Context, name string, rec *stepRecord, fn func(context.Context) (any, error)) ([]byte, error) {
	own, stop := r.stepContext(ctx)
	defer stop()
	start := time.Now()
	v, err := r.attempt(own, name, func(ctx context.Context) (any, error) {
		v, err := fn(ctx)
		return v, nestedCallError(ctx, err)
	})
	if err != nil {
		return r.stepFailed(own, name, rec, start, err)
	}
	output, err := r.encode(v)
	if err != nil {
		return r.stepFailed(own, name, rec, start, Permanent(err))
	}
	done := stepValues{status: Succeeded, output: output, retries: retriesOf(rec), duration: time.Since(start)}
	raw, err := r.saveThen(ctx, name, done, func() ([]byte, error) { return bytesOf(output), nil })
	if errors.Is(err, ErrInvalidPayload) {
		return r.stepFailed(own, name, rec, start, Permanent(err))
	}
	return raw, err
}

// bytesOf returns the output of encode as it would be read back.
func bytesOf(output any) []byte {
	text, ok := output.(string)
	if !ok {
		return nil
	}
	return []byte(text)
}

// next decides whether a step has to run. If it returns neither a final record nor an error, the
// step counts as in progress.
func (r *Run) next(ctx context.Context, name string) (*stepRecord, error) {
	if err := r.checkNotNested(ctx, fmt.Sprintf("%q", name)); err != nil {
		return nil, err
	}
	if err := r.policy.check(); err != nil {
		return nil, &operationError{fmt.Sprintf("step %q of run %d", name, r.id), err}
	}
	if r.hasReturned() {
		return nil, r.lateStepError(name)
	}
	rec, err := r.lookUpStep(ctx, name)
	if err != nil {
		return nil, err
	}
	if given, ok, err := r.backend.givenStep(r.execution, name); ok || err != nil {
		return given, err
	}
	if rec != nil && rec.leftOut {
		if rec, err = r.readWhole(ctx, rec); err != nil {
			return nil, err
		}
	}
	if rec != nil && rec.final() {
		return rec, nil
	}
	if err := r.checkpoint(ctx, name); err != nil {
		return nil, err
	}
	if rec != nil && rec.status == Failed && r.remainingWait(rec) > 0 {
		return nil, r.wait(ctx, r.remainingWait(rec))
	}
	late, err := r.startStep(ctx, name)
	if late {
		return nil, r.lateStepError(name)
	}
	return rec, err
}

// endStep ends a step that was in progress. Only then is it clear whether recorded steps are called
// after this step, or beside it.
func (r *Run) endStep(name string, isNew bool) {
	if isNew {
		r.warnIfSkipped(name)
	}
	r.mu.Lock()
	r.runningSteps = slices.DeleteFunc(r.runningSteps, func(other string) bool { return other == name })
	r.mu.Unlock()
	r.inflight.Done()
}

func (e *execution) encode(v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	return e.backend.limits().record(v)
}

func retriesOf(rec *stepRecord) int {
	if rec == nil {
		return 0
	}
	return rec.retries
}

// attempt calls fn once, with a ctx of its own.
func (r *Run) attempt(ctx context.Context, name string, fn func(context.Context) (any, error)) (v any, err error) {
	if r.policy.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.policy.Timeout, ErrTimeout)
		defer cancel()
	}
	r.mu.Lock()
	r.calledSteps = append(r.calledSteps, name)
	r.mu.Unlock()
	observer := r.backend.observer()
	if observer.Stepping != nil {
		ctx = cmp.Or(observer.Stepping(ctx, r.id, name), ctx)
	}
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			err = foreign.NewPanic(p)
		}
		raw := err
		err = foreign.Safe(err)
		if err != nil && errors.Is(context.Cause(ctx), ErrTimeout) {
			err = fmt.Errorf("%w after %v: %w", ErrTimeout, r.policy.Timeout, err)
			raw = err
		}
		if observer.Stepped != nil {
			observer.Stepped(ctx, r.id, name, time.Since(start), raw)
		}
	}()
	return fn(context.WithValue(ctx, stepKey{}, &stepScope{run: r.execution, name: name}))
}

// stepContext returns the ctx of a step. It is the caller's ctx. While the run cleans up after a
// cancellation, it is a ctx that the cancellation does not end.
func (r *Run) stepContext(ctx context.Context) (context.Context, func()) {
	if !r.inCleanUp() {
		return ctx, func() {}
	}
	return r.ignoreCancel(ctx)
}

// ignoreCancel returns a ctx that ends with the lease and with ctx, except if the end of ctx is the
// cancellation of the run.
func (e *execution) ignoreCancel(ctx context.Context) (context.Context, func()) {
	free, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	pass := func(from context.Context) func() bool {
		return context.AfterFunc(from, func() {
			if cause := context.Cause(from); !errors.Is(cause, ErrCancelled) {
				cancel(cause)
			}
		})
	}
	stopCtx, stopLease := pass(ctx), pass(e.lease)
	return free, func() {
		stopCtx()
		stopLease()
		cancel(nil)
	}
}

// withoutCancel returns the ctx for the library's own statements. An existing result is recorded
// even if the caller's ctx has ended.
func (e *execution) withoutCancel(ctx context.Context) context.Context {
	return context.WithoutCancel(ctx)
}

// A cutShortError is the error of a step whose caller ended its ctx before the step had a result.
// The step has not failed, and nothing is recorded.
type cutShortError struct{ *operationError }

// cutShort returns the error of a step whose function did not fail by itself, because its ctx ended
// or the run was suspended meanwhile. Otherwise it returns nil.
func (r *Run) cutShort(ctx context.Context, name string, cause error) error {
	stop := r.suspended(ctx)
	switch {
	case context.Cause(r.lease) != nil:
		return r.suspend(0, context.Cause(r.lease))
	case errors.Is(context.Cause(ctx), ErrCancelled):
		return r.notifyCancelled(ctx, name)
	case stop != nil && (ctx.Err() != nil || errors.Is(cause, ErrSuspended)):
		return stop
	case ctx.Err() != nil:
		return &cutShortError{&operationError{fmt.Sprintf("step %q of run %d was cut short", name, r.id), ctx.Err()}}
	}
	return nil
}

// stepFailed records a failed attempt, with a later attempt or for good. ctx is the ctx of the
// step. A step that was cut short has not failed.
func (r *Run) stepFailed(ctx context.Context, name string, rec *stepRecord, start time.Time, cause error) ([]byte, error) {
	if err := r.cutShort(ctx, name, cause); err != nil {
		return nil, err
	}
	retries := retriesOf(rec) + 1
	limit := cmp.Or(r.policy.MaxAttempts, defaultStepAttempts)
	backoff := r.policy.Backoff
	if backoff == nil {
		backoff = defaultStepBackoff
	}
	p := Policy{MaxAttempts: limit, Backoff: backoff}
	result := p.outcome(retries, cause)
	if !r.backend.resumes() {
		result.kind = died // no later execution can try again
	}
	if result.err != nil {
		cause = result.err // it may have further errors
	}
	f := stepFailure{Transient: result.kind != died, Code: failureCode(cause), Message: errorText(cause)}
	st := stepValues{status: Failed, retries: retries, duration: time.Since(start)}
	switch result.kind {
	case died:
		st.failure = f.encode()
		return r.saveThen(ctx, name, st, func() ([]byte, error) { return nil, r.stepError(name, f) })
	case released: // snoozed
		st.retries--
	}
	seconds := result.delay.Seconds()
	f.RetryAfter = &seconds
	st.failure, st.delay = f.encode(), result.delay.Microseconds()
	return r.saveThen(ctx, name, st, func() ([]byte, error) {
		r.store.log.Info("pgqrs: step will be tried again", "workflow", r.workflow, "run", r.id, "step", name, "attempt", retries, "in", result.delay, "err", cause)
		return nil, r.wait(ctx, result.delay)
	})
}

// suspended returns the suspension of the branch of a ctx, or of the run, or nil.
func (e *execution) suspended(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.suspensionOf(e.branchOf(ctx))
}

func (e *execution) inCleanUp() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cleanUp
}

func failureCode(err error) string {
	switch {
	case errors.Is(err, ErrTimeout):
		return codeTimeout
	case errors.Is(err, ErrPermanent):
		return codePermanent
	}
	return codeInternal
}

// StepTx is [Step] for work in the database. fn gets a transaction, in which its result is recorded
// too, so that its effects happen once. The transaction is rolled back if fn returns an error or
// the lease is lost. The function must not commit the transaction, may run again after a conflict,
// and should do nothing but SQL.
//
// On PostgreSQL the transaction is READ COMMITTED. On SQLite and Turso it holds the write lock from
// its beginning. There a write on the Store itself, called with fn's ctx, would wait for that lock.
// It returns an error matching ErrState instead. Use WithTx.
//
// On Turso in MVCC mode return the first error that the database gives. The engine ends the
// transaction at a conflict, and commits each statement after that by itself. If fn swallows the
// error, the step fails for good, and the statements after the conflict stay committed.
func StepTx[T any](ctx context.Context, run *Run, name string, fn func(context.Context, *sql.Tx) (T, error)) (T, error) {
	raw, err := run.stepTx(ctx, name, func(ctx context.Context, tx *sql.Tx) (any, error) { return fn(ctx, tx) })
	return decodeStep[T](run, name, raw, err)
}

// DoTx is [StepTx] for a function without a result.
func (r *Run) DoTx(ctx context.Context, name string, fn func(context.Context, *sql.Tx) error) error {
	_, err := r.stepTx(ctx, name, func(ctx context.Context, tx *sql.Tx) (any, error) { return nil, fn(ctx, tx) })
	return err
}

// errStepEnded rolls a transaction back whose step another execution has ended.
var errStepEnded = errors.New("pgqrs: step has ended elsewhere")

func (r *Run) stepTx(ctx context.Context, name string, fn func(context.Context, *sql.Tx) (any, error)) ([]byte, error) {
	return r.runStepOnce(ctx, name, func(rec *stepRecord) ([]byte, error) { return r.runStepTx(ctx, name, rec, fn) })
}

func (r *Run) runStepTx(ctx context.Context, name string, rec *stepRecord, fn func(context.Context, *sql.Tx) (any, error)) ([]byte, error) {
	if err := r.backend.checkUsable(fmt.Sprintf("StepTx %q", name)); err != nil {
		return nil, err
	}
	r.countTx(1)
	defer r.countTx(-1)
	own, stop := r.stepContext(ctx)
	defer stop()
	start := time.Now()
	var output any
	var status RunState
	_, err := r.attempt(own, name, func(ctx context.Context) (any, error) {
		return nil, r.store.inTx(ctx, func(ctx context.Context, tx *userTx) error {
			var err error
			output, status, err = r.workTx(ctx, tx, name, fn)
			return err
		})
	})
	switch {
	case errors.Is(err, errStepEnded):
		return r.endedStepResult(ctx, name)
	case isInfraError(err) && own.Err() == nil:
		return nil, r.suspendOnInfraError(err)
	case err != nil:
		return r.stepFailed(own, name, rec, start, err)
	}
	r.noteStatus(status)
	return bytesOf(output), nil
}

// countTx counts open transactions of steps for the heartbeat. On SQLite they may keep it from
// renewing the lease. Several can be open at once.
func (e *execution) countTx(n int) {
	if e.message.delivery == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.openTxs += n
	e.message.delivery.inTransaction.Store(e.openTxs > 0)
}

// workTx opens the step, calls fn and closes the step, in tx.
func (r *Run) workTx(ctx context.Context, tx *userTx, name string, fn func(context.Context, *sql.Tx) (any, error)) (output any, status RunState, err error) {
	c := conn{r.store, tx}
	lease := []any{r.id, name, r.message.ID, r.message.WorkerID, r.message.Claim}
	scan := func(rows *sql.Rows) error { return rows.Scan(&status) }
	if err := c.rowsUntil(ctx, 1, r.store.dialect.step.open, lease, scan); err != nil {
		return nil, "", err
	}
	if status == "" {
		return nil, "", errStepEnded
	}
	v, err := fn(ctx, tx.Tx)
	if err = nestedCallError(ctx, err); err != nil {
		return nil, "", r.store.blame(ctx, tx, err)
	}
	if output, err = r.encode(v); err != nil {
		return nil, "", &userError{Permanent(err)}
	}
	status = ""
	err = r.store.checkTx(ctx, tx)
	if err == nil {
		err = c.rows(ctx, r.store.dialect.step.close, append(lease, output), scan)
	}
	switch {
	case errors.Is(err, sql.ErrTxDone) && ctx.Err() == nil:
		return nil, "", errTxDoneByUser
	case errors.Is(err, errTxEnded):
		return nil, "", &userError{err}
	case sqlerr.Untranslatable(err):
		return nil, "", &userError{Permanent(invalidTextError(err))}
	case err != nil:
		return nil, "", err
	}
	if status == "" {
		return nil, "", errStepEnded
	}
	return output, status, nil
}

// A stepRecord is a row of the steps.
type stepRecord struct {
	name     string
	status   RunState
	output   []byte
	failure  []byte
	retries  int
	wait     sql.NullInt64 // microseconds from the time at which it was read
	started  timestamp
	ended    timestamp
	retried  bool // RunHandle.Retry has made it run again
	optional bool // the function need not call it, since a step before it has run again
	leftOut  bool // load has left the output out, because it is large

	malformed string // columns that do not decode, and why
}

func (s *stepRecord) final() bool {
	return s.status == Succeeded || s.status == Failed && !s.wait.Valid
}

// expected reports whether a replay has to ask for the step.
func (s *stepRecord) expected() bool { return s.final() && !s.optional }

func scanStep(rows *sql.Rows, more ...any) (*stepRecord, error) {
	var s stepRecord
	scan := scanLoosely
	if len(more) > 0 {
		scan = scanRowLoosely
	}
	into := append([]any{&s.name, &s.status, &s.output, &s.failure, &s.retries, &s.wait, &s.started, &s.ended, &s.retried}, more...)
	bad, err := scan(rows, "step_name status output error retry_count retry_at started_at completed_at last_retry_at output", into...)
	if !s.status.known() {
		bad = joinMalformed(bad, fmt.Sprintf("status: %q is not one of a step", string(s.status)))
	}
	s.malformed = bad
	return &s, err
}

// info describes the step as a [RunHandle] returns it.
func (s *stepRecord) info() StepInfo {
	info := StepInfo{Name: s.name, Status: s.status, Retries: s.retries, StartedAt: s.started.Time, EndedAt: s.ended.Time, Malformed: s.malformed}
	if s.status == Succeeded {
		info.Output = s.output // a step that waits for children has their ids
		info.OutputSize = int64(len(s.output))
	}
	if s.failure != nil {
		info.Error = runErrorText(s.failure)
	}
	if s.wait.Valid && !s.final() {
		info.RetryIn = max(0, durationOf(s.wait.Int64))
	}
	return info
}

// A stepValues has the values that save writes.
type stepValues struct {
	status   RunState
	output   any // JSON as string, or nil
	failure  any
	retries  int
	delay    any // microseconds, or nil
	duration time.Duration
}

// A stepWrite is a step to record, fenced by the lease of its run's message.
type stepWrite struct {
	runID   int64
	message *MessageInfo
	name    string
	stepValues
}

// args returns the arguments of step.save.
func (x stepWrite) args() []any {
	return []any{x.runID, x.name, x.message.ID, x.message.WorkerID, x.message.Claim, string(x.status), x.output, x.failure, x.retries, x.delay, x.duration.Microseconds()}
}

// shareable reports whether a step may share a statement with other steps.
func (x stepWrite) shareable() bool {
	output, _ := x.output.(string)
	failure, _ := x.failure.(string)
	return len(output)+len(failure) <= maxShared
}

// save records a step and returns nil. If the step had ended, it returns the existing record. If
// the lease is lost, it returns a suspension.
func (e *execution) save(ctx context.Context, name string, st stepValues) (*stepRecord, error) {
	return e.backend.save(ctx, e, name, st)
}

// save implements [runBackend].
func (b storeBackend) save(ctx context.Context, e *execution, name string, st stepValues) (*stepRecord, error) {
	x := stepWrite{e.id, e.message, name, st}
	record := b.saveStep
	if x.shareable() {
		record = b.stepWrites.Do
	}
	status, err := record(e.withoutCancel(ctx), x)
	if plain, ok := st.inASCII(); ok && sqlerr.Untranslatable(err) {
		x.stepValues = plain
		status, err = record(e.withoutCancel(ctx), x)
	}
	if err != nil {
		return nil, e.suspendOnInfraError(err)
	}
	if status == "" {
		return e.readEndedStep(e.withoutCancel(ctx), name)
	}
	e.noteStatus(status)
	return nil, nil
}

// saveStep writes a step and returns the run's status, or "" if it wrote nothing.
func (s *Store) saveStep(ctx context.Context, x stepWrite) (status RunState, err error) {
	err = s.single(ctx, func(c conn) (err error) {
		status, err = c.saveStep(ctx, x)
		return err
	})
	return status, err
}

func (c conn) saveStep(ctx context.Context, x stepWrite) (status RunState, err error) {
	err = c.rowsUntil(ctx, 1, c.store.dialect.step.save, x.args(), func(rows *sql.Rows) error { return rows.Scan(&status) })
	return status, err
}

// saveSteps is saveStep for several steps.
func (s *Store) saveSteps(ctx context.Context, list []stepWrite) ([]RunState, error) {
	type key struct {
		run  int64
		name string
	}
	index := make(map[key]int, len(list))
	args := make([][]any, len(list))
	for i, x := range list {
		index[key{x.runID, x.name}] = i
		args[i] = x.args()
	}
	if len(index) < len(list) {
		return nil, coalesce.ErrContended
	}
	arg, err := jsonList(args)
	if err != nil {
		return nil, err
	}
	states := make([]RunState, len(list))
	err = s.single(ctx, func(c conn) error {
		clear(states)
		return c.rowsUntil(ctx, len(list), s.dialect.step.saveBatch, []any{arg}, func(rows *sql.Rows) error {
			var k key
			var status RunState
			err := rows.Scan(&k.run, &k.name, &status)
			states[index[k]] = status
			return err
		})
	})
	return states, err
}

// noteStatus stores the status of the run that a statement on one of its steps returned.
func (e *execution) noteStatus(status RunState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cancelling = e.cancelling || status == Cancelling
	e.paused = status == Paused
}

// saveThen saves a step and returns the result of then. If the step had already ended, it returns
// the recorded result.
func (e *execution) saveThen(ctx context.Context, name string, st stepValues, then func() ([]byte, error)) ([]byte, error) {
	first, err := e.save(ctx, name, st)
	switch {
	case err != nil:
		return nil, err
	case first != nil:
		return e.recorded(name, first)
	}
	return then()
}

// endedStepResult returns the recorded result of a step that another execution has ended first.
func (e *execution) endedStepResult(ctx context.Context, name string) ([]byte, error) {
	first, err := e.readEndedStep(e.withoutCancel(ctx), name)
	if err != nil {
		return nil, err
	}
	return e.recorded(name, first)
}

// suspendOnInfraError closes the execution because of an infrastructure error. A text that the
// database's encoding cannot represent is not such an error, and neither is a step in the
// transaction of another step.
func (e *execution) suspendOnInfraError(err error) error {
	switch {
	case sqlerr.Untranslatable(err):
		return invalidTextError(err)
	case errors.Is(err, errInTx):
		return wrap(e.lease, err, "run %d", e.id)
	}
	return e.suspend(time.Second, infraCause(e.lease, err))
}

// readEndedStep returns the record of a step that another execution has ended first.
func (e *execution) readEndedStep(ctx context.Context, name string) (*stepRecord, error) {
	rec, err := e.readStep(ctx, name)
	if err == nil && !rec.final() {
		return nil, e.suspend(0, lostError([]int64{e.message.ID}))
	}
	return rec, err
}

// readStep reads the record of a step. Without one the run is suspended: its rows are gone.
func (e *execution) readStep(ctx context.Context, name string) (*stepRecord, error) {
	var rec *stepRecord
	err := e.store.onPool().rows(ctx, e.store.dialect.step.get, []any{e.id, name}, func(rows *sql.Rows) (err error) {
		rec, err = scanStep(rows)
		return err
	})
	switch {
	case err != nil:
		return nil, e.suspendOnInfraError(err)
	case rec == nil:
		return nil, e.suspend(0, lostError([]int64{e.message.ID}))
	case rec.malformed != "":
		return nil, e.malformedStep(rec)
	}
	return rec, nil
}

// readWhole returns a record with the output that load has left out.
func (e *execution) readWhole(ctx context.Context, rec *stepRecord) (*stepRecord, error) {
	found, err := e.readStep(e.withoutCancel(ctx), rec.name)
	if err != nil {
		return nil, err
	}
	whole := *rec
	whole.output, whole.leftOut = found.output, false
	return &whole, nil
}

// malformedStep is the error of a run with a step whose row does not decode. Only a change of the
// row mends that, so the run fails.
func (e *execution) malformedStep(s *stepRecord) error {
	return Permanent(malformedError(fmt.Sprintf("step %q of run %d", s.name, e.id), s.malformed))
}

// stepFailure is the error of a step as it is recorded, in the form of pgqrs 0.15.
type stepFailure struct {
	Transient  bool     `json:"is_transient"`
	Code       string   `json:"code"`
	Message    string   `json:"message"`
	RetryAfter *float64 `json:"retry_after,omitempty"` // seconds
}

const (
	codeInternal  = "INTERNAL"
	codePermanent = "NON_RETRYABLE"
	codeTimeout   = "TIMEOUT"
	codeCancelled = "CANCELLED"
)

// inASCII returns the values for a database that cannot represent the text of the error.
func (s stepValues) inASCII() (plain stepValues, ok bool) {
	text, _ := s.failure.(string)
	if isASCII(text) {
		return s, false
	}
	var f stepFailure
	if json.Unmarshal([]byte(text), &f) != nil {
		return s, false
	}
	f.Message = asciiText(f.Message)
	s.failure = f.encode()
	return s, true
}

func (f stepFailure) encode() any {
	raw, err := encodeJSON(f)
	if err != nil {
		panic(err) // strings and numbers marshal
	}
	return string(raw)
}

// recorded returns the output or the error of a step that has ended.
func (e *execution) recorded(name string, rec *stepRecord) ([]byte, error) {
	if rec.status == Succeeded {
		return rec.output, nil
	}
	return nil, e.stepError(name, decodeFailure(rec.failure))
}

// decodeFailure is the reverse of stepFailure.encode. A record without a message is a message
// itself.
func decodeFailure(raw []byte) stepFailure {
	var f struct {
		stepFailure
		Message *string `json:"message"`
	}
	if err := json.Unmarshal(raw, &f); err != nil || f.Message == nil {
		f.stepFailure.Message = runErrorText(raw)
		return f.stepFailure
	}
	f.stepFailure.Message = *f.Message
	return f.stepFailure
}

// stepError returns a recorded failure as an error.
func (e *execution) stepError(name string, f stepFailure) error {
	switch f.Code {
	case codeCancelled:
		e.mu.Lock()
		e.cleanUp = true
		e.mu.Unlock()
		return ErrCancelled
	case codeTimeout:
		return &RunError{e.workflow, e.id, name, &recordedError{f.Message, ErrTimeout}}
	case codePermanent:
		return &RunError{e.workflow, e.id, name, &recordedError{f.Message, ErrPermanent}}
	}
	return &RunError{e.workflow, e.id, name, &recordedError{f.Message, nil}}
}

// listed turns the output into JSON, unless it is cut.
func (i *StepInfo) listed() {
	output, bad := listedWhole("output", i.Output, i.OutputSize)
	i.Output, i.Malformed = output, joinMalformed(i.Malformed, bad)
}
