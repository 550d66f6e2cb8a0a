package pgqrs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// end ends the execution: the run is finished, unless it was suspended.
func (e *execution) end(ctx context.Context, out any, err error) error {
	e.waitForSteps()
	e.mu.Lock()
	closed, told, reused := e.closed, e.cleaning, e.reused
	e.mu.Unlock()
	if err == nil {
		err = reused // which the function has ignored
	}
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

// waitForSteps waits until no step is in flight any more, and keeps others from beginning. It warns of
// steps that the function did not wait for, unless the run is suspended.
func (e *execution) waitForSteps() {
	e.mu.Lock()
	e.over = true
	var left []string
	if e.closed == nil {
		left = slices.Sorted(slices.Values(e.flying))
	}
	e.mu.Unlock()
	e.inflight.Wait()
	if len(left) > 0 {
		e.warnOfSteps(fmt.Sprintf("the function returned while the steps %q were under way: it has to wait for its goroutines", left))
	}
}

// finish records how the run ended and acks its message, in one transaction.
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
	stands, failed := e.write(ctx, status, output, message)
	if untranslatable(failed) {
		if err == nil {
			err = &operationError{fmt.Sprintf("result of run %d", e.id), invalid(failed)}
		}
		raw, encodeErr := marshal(asciiText(errorText(err)))
		if encodeErr != nil {
			return encodeErr
		}
		status, output, message = Failed, nil, string(raw)
		stands, failed = e.write(ctx, status, output, message)
	}
	if failed != nil {
		return e.store.setback(e.lease, failed)
	}
	if e.m.hold != nil {
		e.m.hold.settled.Store(true)
	}
	e.store.tellAwaiting(e.outcome(stands, output))
	if stands == Failed {
		e.store.log.Warn("pgqrs: run failed", "workflow", e.workflow, "run", e.id, "err", err)
	}
	return nil
}

// write ends a run and acks its message, and returns the status that stands.
func (e *execution) write(ctx context.Context, status State, output, message any) (stands State, err error) {
	stands, err = e.endAtOnce(ctx, status, output, message)
	if err == nil && stands == "" {
		stands, err = e.endInParts(ctx, status, output, message)
	}
	return stands, err
}

// outcome is what those who wait for the run here hear of its end.
func (e *execution) outcome(stands State, output any) RunInfo {
	info := RunInfo{ID: e.id, Workflow: e.workflow, Status: stands}
	if text, ok := output.(string); ok && stands == Succeeded {
		info.Output = json.RawMessage(text)
	}
	return info
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
			if !e.stored[name].optional && !e.asked[name] {
				left = append(left, name)
			}
		}
	}
	e.mu.Unlock()
	if len(left) > 0 {
		e.warnOfChange(fmt.Sprintf("the recorded steps %q were not asked for: the code has changed under the run", left))
	}
}

// endRun writes a final status, unless there is one, and tells the parent. It returns the status that stands.
func (c conn) endRun(ctx context.Context, run int64, status State, output, message any) (State, error) {
	var stands State
	var parent sql.NullInt64
	err := c.rows(ctx, c.store.dialect.workflow.finish, []any{run, string(status), output, message}, func(rows *sql.Rows) error {
		_, err := scanLoosely(rows, "status parent_run_id", &stands, &parent) // what does not decode is no parent
		return err
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
		_, err := scanLoosely(rows, "id queue", &run, &queue) // a malformed row may be in no queue
		queues = append(queues, queue)
		return err
	})
	for _, queue := range queues {
		err = errors.Join(err, c.store.wake(ctx, queue))
	}
	return err
}

// bury ends the run of a message that goes to the dead letters, together with it.
func (s *Store) bury(ctx context.Context, m *MessageInfo, cause error, deadLetter string) error {
	err := s.buryAsIs(ctx, m, cause, deadLetter)
	if plain := inASCII(cause); untranslatable(err) && plain != nil {
		return s.buryAsIs(ctx, m, plain, deadLetter)
	}
	return err
}

func (s *Store) buryAsIs(ctx context.Context, m *MessageInfo, cause error, deadLetter string) error {
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
