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
)

// forever is how long a run waits for what wakes it.
const forever = 100 * 365 * 24 * time.Hour

// Sleep suspends the run for d, without holding a worker, however long that
// is, and across restarts. It returns nil when the time has passed by the
// database's clock, and until then an error matching ErrSuspended. The name is that of a step.
func (r *Run) Sleep(ctx context.Context, name string, d time.Duration) error {
	_, err := r.once(ctx, name, func(rec *stepRecord) ([]byte, error) { return r.sleep(ctx, name, rec, d) })
	return err
}

func (r *Run) sleep(ctx context.Context, name string, rec *stepRecord, d time.Duration) ([]byte, error) {
	wait, asleep := d, rec != nil && rec.wait.Valid
	if asleep {
		wait = r.remaining(rec)
	}
	onward := func() ([]byte, error) { return nil, r.suspend(wait, nil) }
	switch {
	case wait <= 0 || r.store == nil:
		return r.put(ctx, name, step{status: Succeeded}, func() ([]byte, error) { return nil, nil })
	case asleep:
		return onward()
	default:
		return r.put(ctx, name, step{status: Running, delay: d.Microseconds()}, onward)
	}
}

// Version returns which version of a change in the code this run is to
// follow: the given one if the run had not come past this point when it was
// made, and 0 if it had. It had if anything is recorded of a step after it: a result, a
// wait, a child, or a retry to come.
// The answer is recorded as a step named "version:" and the change, so that it stays:
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
	if err := r.refuseNested(ctx, fmt.Sprintf("%q", name)); err != nil {
		return 0, err
	}
	if r.hasPassed(name) {
		return 0, nil
	}
	return Step(ctx, r, name, func(context.Context) (int, error) { return version, nil })
}

// hasPassed reports whether the run has come past a step that has no record: another
// step has a row, whatever became of it, and has not been asked for yet.
func (e *execution) hasPassed(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stored[name] != nil || e.closed != nil {
		return false
	}
	return slices.ContainsFunc(e.rows, func(other string) bool { return !e.asked[other] })
}

// A Signal is a message to a run, with a value of type T. Its value is its name:
//
//	const Approved pgqrs.Signal[bool] = "approved"
type Signal[T any] string

// Send sends a signal to a run. It is never lost: a run that does not wait for
// it yet finds it when it does, and one that waits is woken. On a Store made by
// WithTx it is sent if and only if the transaction commits.
//
// It returns errors matching ErrNotFound for a run that does not exist,
// ErrState for one that has ended and for a run's own ctx outside a step, and
// ErrInvalidPayload.
func (g Signal[T]) Send(ctx context.Context, s *Store, runID int64, v T) error {
	return wrap(ctx, s.signal(ctx, string(g), runID, v), "send signal %q to run %d", string(g), runID)
}

func (s *Store) signal(ctx context.Context, name string, run int64, v any) error {
	if err := s.usable(); err != nil {
		return err
	}
	if err := checkName("signal name", name); err != nil {
		return err
	}
	if err := outsideStep(ctx); err != nil {
		return err
	}
	payload, err := s.cfg.Limits.encode(v)
	if err != nil {
		return err
	}
	return s.atomic(ctx, func(c conn) error {
		// The message first: its row lock puts the signals of a run in order.
		if err := c.wakeRun(ctx, run); err != nil {
			return err
		}
		_, err := c.exec(ctx, s.dialect.signal.insert, run, name, payload)
		return err
	})
}

// wakeRun makes the message of an unfinished run due.
func (c conn) wakeRun(ctx context.Context, run int64) error {
	list, err := jsonList([]int64{run})
	if err != nil {
		return err
	}
	var queue string
	err = c.rows(ctx, c.store.dialect.workflow.wake, []any{list}, func(rows *sql.Rows) error {
		var id int64
		return rows.Scan(&id, &queue)
	})
	if err != nil {
		return err
	}
	if queue == "" {
		info, err := c.run(ctx, run)
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: run %d is %s", ErrState, run, info.Status)
	}
	return c.store.wake(ctx, queue)
}

// Wait returns the value of the next signal of that name: the nth Wait in a
// run takes the nth signal sent. Until there is one the run is suspended, without
// holding a worker. After the timeout, if it is not zero, the error matches
// ErrTimeout, and the wait has ended: a signal that comes later is for the next
// Wait. It is recorded as a step named after the signal and its number, as "approved#1".
func (g Signal[T]) Wait(ctx context.Context, run *Run, timeout time.Duration) (T, error) {
	raw, name, err := run.wait(ctx, string(g), timeout)
	return decodeStep[T](run, name, raw, err)
}

func (r *Run) wait(ctx context.Context, signal string, timeout time.Duration) ([]byte, string, error) {
	if err := checkName("signal name", signal); err != nil {
		return nil, "", &operationError{fmt.Sprintf("run %d", r.id), err}
	}
	if err := r.refuseNested(ctx, fmt.Sprintf("the Wait for %q", signal)); err != nil {
		return nil, signal, err
	}
	r.mu.Lock()
	r.waits[signal]++
	name := fmt.Sprintf("%s#%d", signal, r.waits[signal])
	r.mu.Unlock()
	r.giveSignal(signal, name)
	raw, err := r.once(ctx, name, func(rec *stepRecord) ([]byte, error) { return r.take(ctx, signal, name, rec, timeout) })
	return raw, name, err
}

// take delivers a signal to a step, or has the step wait.
func (r *Run) take(ctx context.Context, signal, name string, rec *stepRecord, timeout time.Duration) ([]byte, error) {
	if r.store == nil {
		return nil, fmt.Errorf("%w: Wait %q needs a database, or a given value", ErrUnsupported, name)
	}
	ctx = r.ofLease(ctx)
	var value any
	var malformed *failure
	var status State
	err := r.store.atomic(ctx, func(c conn) error {
		value, malformed, status = nil, nil, ""
		taken := step{status: Succeeded}
		err := c.rows(ctx, r.store.dialect.signal.take, []any{r.id, signal, name}, func(rows *sql.Rows) error {
			var payload jsonColumn
			err := rows.Scan(&payload)
			if _, bad := listedJSON("payload", payload); bad != "" {
				malformed = &failure{Code: codePermanent, Message: malformedError(fmt.Sprintf("signal %q", signal), bad).Error()}
				taken = step{status: Failed, failure: malformed.encode()}
				return err
			}
			value = canonical(string(payload))
			taken.output = value
			return err
		})
		if err != nil || value == nil && malformed == nil {
			return err
		}
		status, err = c.saveStep(ctx, saving{r.id, r.m, name, taken})
		if err == nil && status == "" {
			err = errAdopted
		}
		return err
	})
	switch {
	case errors.Is(err, errAdopted):
		return r.adopted(ctx, name)
	case err != nil:
		return nil, r.setback(err)
	case malformed != nil:
		r.note(status)
		return nil, r.failed(name, *malformed)
	case value != nil:
		r.note(status)
		return bytesOf(value), nil
	}
	return r.keepWaiting(ctx, name, rec, timeout)
}

// keepWaiting suspends the run until a signal comes or the time is up.
func (r *Run) keepWaiting(ctx context.Context, name string, rec *stepRecord, timeout time.Duration) ([]byte, error) {
	left, begun := forever, step{status: Paused}
	switch {
	case rec != nil && rec.wait.Valid:
		left = r.remaining(rec)
	case rec == nil && timeout != 0:
		left, begun.delay = timeout, timeout.Microseconds()
	}
	if left <= 0 {
		return r.timedOut(ctx, name)
	}
	onward := func() ([]byte, error) { return nil, r.suspend(left, nil) }
	if rec != nil {
		return onward()
	}
	return r.put(ctx, name, begun, onward)
}

// timedOut records that no signal came in time.
func (r *Run) timedOut(ctx context.Context, name string) ([]byte, error) {
	f := failure{Code: codeTimeout, Message: "no signal came in time"}
	return r.put(ctx, name, step{status: Failed, failure: f.encode()}, func() ([]byte, error) { return nil, r.failed(name, f) })
}

// Child runs the workflow as a child of a run, under the name of a step, and
// returns its result. The child is started once, whatever happens; the parent
// is suspended, without holding a worker, until the child has ended. A failed
// child's error is a *RunError with the child's workflow and id. Cancelling the parent cancels the child.
// If the child is deleted first, that error matches ErrNotFound.
func (w *Workflow[In, Out]) Child(ctx context.Context, run *Run, name string, in In, opts ...Option) (Out, error) {
	outs, err := w.children(ctx, run, name, []In{in}, true, opts)
	if len(outs) == 0 {
		var zero Out
		return zero, err
	}
	return outs[0], err
}

// Children is Child for many at once, in one batch and with one wait for all
// of them. There are as many results as inputs, in their order. Those of failed children are
// zero, and the error joins their *RunErrors. If the function asks for more or fewer children than it has
// started under that name, all results are zero, and the error matches ErrState.
func (w *Workflow[In, Out]) Children(ctx context.Context, run *Run, name string, in []In, opts ...Option) ([]Out, error) {
	if len(in) == 0 {
		return nil, nil
	}
	return w.children(ctx, run, name, in, false, opts)
}

// children is Children, or, if it is for one, Child.
func (w *Workflow[In, Out]) children(ctx context.Context, run *Run, name string, in []In, one bool, opts []Option) ([]Out, error) {
	if err := run.giveChildren(w.name, name, len(in), one); err != nil {
		return nil, err
	}
	raw, err := run.children(ctx, w.name, name, len(in), func(ctx context.Context) ([]item, error) {
		if keyed(opts, len(in)) {
			return nil, errors.New("a child has no key: it is started once for its step")
		}
		bound := &Workflow[In, Out]{store: run.store, name: w.name, policy: w.policy}
		return bound.items(ctx, in, opts)
	})
	if err != nil {
		return nil, err
	}
	return decodeChildren[Out](run, name, raw, len(in))
}

// A childResult is what became of a child, as the parent records it.
type childResult struct {
	Workflow  string          `json:"workflow"`
	RunID     int64           `json:"run_id"`
	Output    json.RawMessage `json:"output,omitempty"`
	Error     *string         `json:"error,omitempty"`
	Cancelled bool            `json:"cancelled,omitempty"`
	Deleted   bool            `json:"deleted,omitempty"` // it has an Error too, for former versions
}

// deletedChild is the result of a child that is not there any more; its id is 0 if nobody knows it.
func deletedChild(workflow string, id int64) childResult {
	text := ErrNotFound.Error() + ": it was deleted before its parent had its result"
	return childResult{Workflow: workflow, RunID: id, Error: &text, Deleted: true}
}

// failure is why a child has no result; nil if it has.
func (c childResult) failure() error {
	switch {
	case c.Cancelled:
		return &RunError{c.Workflow, c.RunID, "", ErrCancelled}
	case c.Deleted:
		return &RunError{c.Workflow, c.RunID, "", &recordedError{*c.Error, ErrNotFound}}
	case c.Error != nil:
		return &RunError{c.Workflow, c.RunID, "", &recordedError{*c.Error, nil}}
	}
	return nil
}

// decodeChildren returns the results of n children, as the record of their step has them.
func decodeChildren[Out any](run *Run, name string, raw []byte, n int) ([]Out, error) {
	results, err := decodeStep[[]childResult](run, name, raw, nil)
	if err != nil {
		return nil, err
	}
	outs := make([]Out, n)
	if len(results) != n {
		return outs, fmt.Errorf("%w: step %q of run %d has the results of %d children, and is asked for %d", ErrState, name, run.id, len(results), n)
	}
	var errs []error
	for i, c := range results {
		if err := c.failure(); err != nil {
			errs = append(errs, err)
			continue
		}
		if len(c.Output) == 0 {
			continue
		}
		if err := json.Unmarshal(c.Output, &outs[i]); err != nil {
			errs = append(errs, fmt.Errorf("%w: result of run %d of workflow %q does not decode into %T: %w", ErrInvalidPayload, c.RunID, c.Workflow, outs[i], err))
		}
	}
	return outs, errors.Join(errs...)
}

// children starts n runs of a workflow once, and returns their results when all have ended.
func (r *Run) children(ctx context.Context, workflow, name string, n int, items func(context.Context) ([]item, error)) ([]byte, error) {
	return r.once(ctx, name, func(rec *stepRecord) ([]byte, error) {
		ctx := r.ofLease(ctx)
		if r.store == nil {
			return nil, fmt.Errorf("%w: Child %q needs a database, or a given result", ErrUnsupported, name)
		}
		if rec != nil {
			return r.awaitChildren(ctx, workflow, name, n, rec)
		}
		list, err := items(context.WithValue(ctx, stepKey{}, &stepScope{run: r.execution, name: name}))
		if err != nil {
			return nil, wrap(ctx, err, "start children %q of run %d", name, r.id)
		}
		return nil, r.startChildren(ctx, workflow, name, list)
	})
}

// awaitChildren records the results of a step's children, if all have ended, and suspends the run otherwise.
func (r *Run) awaitChildren(ctx context.Context, workflow, name string, n int, rec *stepRecord) ([]byte, error) {
	found, ended, err := r.childResults(ctx, name)
	if err != nil {
		return nil, r.setback(err)
	}
	if !ended {
		return nil, r.suspend(forever, nil)
	}
	results, err := placed(found, rec.output, workflow, n)
	if err != nil {
		return nil, err
	}
	raw, err := marshal(results)
	if err != nil {
		return nil, err
	}
	output := canonical(string(raw))
	return r.put(ctx, name, step{status: Succeeded, output: output}, func() ([]byte, error) { return bytesOf(output), nil })
}

// placed returns the results of a step's children, each in the place of its input. found are those that are
// there, by id; started is the list of all ids, of which former versions have recorded none.
func placed(found []childResult, started []byte, workflow string, n int) ([]childResult, error) {
	if started == nil && len(found) == n {
		return found, nil
	}
	ids := make([]int64, n) // unknown ones: which of the children are left, nobody can tell
	if started != nil {
		if err := json.Unmarshal(started, &ids); err != nil {
			return nil, Permanent(malformedError("the step that has started children", malformedColumn("output", err)))
		}
	}
	results := make([]childResult, len(ids))
	for i, id := range ids {
		results[i] = deletedChild(workflow, id)
		at, there := slices.BinarySearchFunc(found, id, func(c childResult, id int64) int { return cmp.Compare(c.RunID, id) })
		if there {
			results[i] = found[at]
		}
	}
	return results, nil
}

// startChildren starts the runs and records which they are, in one transaction, and suspends the run.
func (r *Run) startChildren(ctx context.Context, workflow, name string, items []item) error {
	err := r.store.atomic(ctx, func(c conn) error {
		ids, err := c.store.startRuns(ctx, workflow, items, &parent{r.id, name})
		if err != nil {
			return err
		}
		list, err := jsonList(ids)
		if err != nil {
			return err
		}
		status, err := c.saveStep(ctx, saving{r.id, r.m, name, step{status: Paused, output: list}})
		if err == nil && status == "" {
			err = lostError([]int64{r.m.ID})
		}
		return err
	})
	if err != nil {
		return r.setback(err)
	}
	return r.suspend(forever, nil)
}

// childResults reads what became of a step's children, and whether all have ended.
func (r *Run) childResults(ctx context.Context, name string) ([]childResult, bool, error) {
	var results []childResult
	ended := true
	err := conn{r.store, nil}.rows(ctx, r.store.dialect.workflow.results, []any{r.id, name}, func(rows *sql.Rows) error {
		var c childResult
		var status State
		var output, failure []byte
		bad, err := scanLoosely(rows, "id workflow status output error", &c.RunID, &c.Workflow, &status, &output, &failure)
		if err != nil {
			return err
		}
		c.Output, c.Cancelled = output, status == Cancelled
		ended = ended && status.final()
		if status == Failed {
			text := runErrorText(failure)
			c.Error, c.Output = &text, nil
		}
		if _, badOutput := listedJSON("output", c.Output); status.final() && bad+badOutput != "" {
			text := malformedError("its row", joinMalformed(bad, badOutput)).Error()
			c.Error, c.Output = &text, nil
		}
		results = append(results, c)
		return nil
	})
	return results, ended, err
}
