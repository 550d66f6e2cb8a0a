package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/pgqrs/pgqrs-go/internal/pgjson"
)

// Child runs the workflow as a child of a run, under the name of a step, and returns its result.
// The child is started exactly once. Until it has ended, Child returns an error matching
// [ErrSuspended], which the function returns as it is. The parent then waits without holding a
// worker.
//
// The error of a failed child is a *RunError with the child's workflow and id. If the child is
// deleted first, that error matches ErrNotFound. Cancelling the parent cancels the child. The
// options are those of [Workflow.Start], except Key and Unique.
func (w *Workflow[In, Out]) Child(ctx context.Context, run *Run, name string, in In, opts ...Option) (Out, error) {
	outs, err := w.children(ctx, run, name, []In{in}, true, opts)
	if len(outs) == 0 {
		var zero Out
		return zero, err
	}
	return outs[0], err
}

// Children is Child for many children, in one batch and with one wait for all of them. Until all
// have ended, it returns an error matching [ErrSuspended]. Then it returns as many results as
// inputs, in the same order. The results of failed children are zero, and the error joins their
// *RunErrors. The options apply to each child. Without inputs Children returns nil at once.
//
// If an earlier execution of the run has started more or fewer children under that name, all
// results are zero, and the error matches ErrState.
func (w *Workflow[In, Out]) Children(ctx context.Context, run *Run, name string, in []In, opts ...Option) ([]Out, error) {
	if len(in) == 0 {
		return nil, nil
	}
	return w.children(ctx, run, name, in, false, opts)
}

// children is Children, or Child if one is true.
func (w *Workflow[In, Out]) children(ctx context.Context, run *Run, name string, in []In, one bool, opts []Option) ([]Out, error) {
	if err := run.backend.useChildren(w.name, name, len(in), one); err != nil {
		return nil, err
	}
	raw, err := run.children(ctx, w.name, name, len(in), func(ctx context.Context) ([]enqueueRow, error) {
		if hasKey(opts, len(in)) {
			return nil, errors.New("a child has no key: it is started once for its step")
		}
		if one {
			opts = append(slices.Clip(opts), noEach)
		}
		bound := &Workflow[In, Out]{store: run.store, name: w.name, policy: w.policy}
		return bound.items(ctx, in, opts)
	})
	if err != nil {
		return nil, err
	}
	return decodeChildren[Out](run, name, raw, len(in))
}

// A childResult is the result of a child, as the parent records it.
type childResult struct {
	Workflow  string          `json:"workflow"`
	RunID     int64           `json:"run_id"`
	Output    json.RawMessage `json:"output,omitempty"`
	Error     *string         `json:"error,omitempty"`
	Cancelled bool            `json:"cancelled,omitempty"`
	// A deleted child has an Error too, for former versions of the library.
	Deleted bool `json:"deleted,omitempty"`
}

// deletedChild is the result of a child that was deleted. Its id is 0 if it is unknown.
func deletedChild(workflow string, id int64) childResult {
	text := ErrNotFound.Error() + ": it was deleted before its parent had its result"
	return childResult{Workflow: workflow, RunID: id, Error: &text, Deleted: true}
}

// err returns the error of a child without a result, or nil.
func (c childResult) err() error {
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
		if err := c.err(); err != nil {
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
func (r *Run) children(ctx context.Context, workflow, name string, n int, items func(context.Context) ([]enqueueRow, error)) ([]byte, error) {
	return r.runStepOnce(ctx, name, func(rec *stepRecord) ([]byte, error) {
		ctx := r.withoutCancel(ctx)
		if err := r.backend.checkUsable(fmt.Sprintf("Child %q", name)); err != nil {
			return nil, err
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

// awaitChildren records the results of a step's children if all have ended. Otherwise it suspends
// the run.
func (r *Run) awaitChildren(ctx context.Context, workflow, name string, n int, rec *stepRecord) ([]byte, error) {
	found, ended, err := r.childResults(ctx, name)
	if err != nil {
		return nil, r.suspendOnInfraError(err)
	}
	if !ended {
		return nil, r.wait(ctx, wakeOnlyDelay)
	}
	results, err := placeResults(found, rec.output, workflow, n)
	if err != nil {
		return nil, err
	}
	raw, err := encodeJSON(results)
	if err != nil {
		return nil, err
	}
	output := pgjson.Canonical(string(raw))
	return r.saveThen(ctx, name, stepValues{status: Succeeded, output: output}, func() ([]byte, error) { return bytesOf(output), nil })
}

// placeResults returns the results of a step's children in the order of their inputs. The list
// found has the existing children, by id. The JSON started has the ids of all children. Former
// versions recorded no ids.
func placeResults(found []childResult, started []byte, workflow string, n int) ([]childResult, error) {
	if started == nil && len(found) == n {
		return found, nil
	}
	ids := make([]int64, n) // unknown ids, since nothing tells which of the children are left
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

// startChildren starts the runs and records their ids, in one transaction, and suspends the run.
func (r *Run) startChildren(ctx context.Context, workflow, name string, items []enqueueRow) error {
	err := r.store.atomic(ctx, func(c conn) error {
		ids, err := c.store.startRuns(ctx, workflow, items, &parent{r.id, name})
		if err != nil {
			return err
		}
		status, err := c.saveStep(ctx, stepWrite{r.id, r.message, name, stepValues{status: Paused, output: idList(ids)}})
		if err == nil && status == "" {
			err = lostError([]int64{r.message.ID})
		}
		return err
	})
	if err != nil {
		return r.suspendOnInfraError(err)
	}
	return r.wait(ctx, wakeOnlyDelay)
}

// childResults reads the results of a step's children, and whether all have ended.
func (r *Run) childResults(ctx context.Context, name string) ([]childResult, bool, error) {
	var results []childResult
	ended := true
	err := r.store.onPool().rows(ctx, r.store.dialect.workflow.results, []any{r.id, name}, func(rows *sql.Rows) error {
		var c childResult
		var status RunState
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
