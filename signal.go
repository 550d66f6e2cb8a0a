package pgqrs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/pgjson"
)

// A Signal is a message to a run, with a value of type T. Its value is its name:
//
//	const Approved pgqrs.Signal[bool] = "approved"
type Signal[T any] string

// Send sends a signal to a run. A signal is never lost. A waiting run is woken, and another run
// finds the signal when it waits for it. On a Store made by WithTx the signal is sent if and only
// if the transaction commits.
//
// Send returns errors matching:
//   - ErrNotFound if the run does not exist.
//   - ErrState if the run has ended, and with a run's own ctx outside a step.
//   - ErrInvalidPayload if v cannot be stored.
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
		// The message comes first, since its row lock puts the signals of a run in order.
		if err := c.wakeRun(ctx, run); err != nil {
			return err
		}
		_, err := c.exec(ctx, s.dialect.signal.insert, run, name, payload)
		return err
	})
}

// wakeRun makes the message of an unfinished run due.
func (c conn) wakeRun(ctx context.Context, run int64) error {
	var queue string
	err := c.rows(ctx, c.store.dialect.workflow.wake, []any{idList([]int64{run})}, func(rows *sql.Rows) error {
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

// Wait returns the value of the next signal of that name. The nth Wait in a run takes the nth
// signal sent. Until there is one, the run is suspended without holding a worker. If the timeout is
// not zero and passes, the error matches ErrTimeout, and the wait has ended. A later signal is for
// the next Wait. A wait is recorded as a step named after the signal and its number, such as
// "approved#1".
func (g Signal[T]) Wait(ctx context.Context, run *Run, timeout time.Duration) (T, error) {
	raw, name, err := run.waitForSignal(ctx, string(g), timeout)
	return decodeStep[T](run, name, raw, err)
}

func (r *Run) waitForSignal(ctx context.Context, signal string, timeout time.Duration) ([]byte, string, error) {
	if err := checkName("signal name", signal); err != nil {
		return nil, "", &operationError{fmt.Sprintf("run %d", r.id), err}
	}
	if err := r.checkNotNested(ctx, fmt.Sprintf("the Wait for %q", signal)); err != nil {
		return nil, signal, err
	}
	name := r.nextWait(ctx, signal)
	r.backend.useSignal(signal, name)
	raw, err := r.runStepOnce(ctx, name, func(rec *stepRecord) ([]byte, error) { return r.takeSignal(ctx, signal, name, rec, timeout) })
	return raw, name, err
}

// nextWait returns the name of the next wait for a signal. Each branch counts its own waits, since
// branches may take turns in another order in the next execution.
func (r *Run) nextWait(ctx context.Context, signal string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.branchOf(ctx); b != nil {
		signal += "@" + b.path
	}
	r.signalWaits[signal]++
	return fmt.Sprintf("%s#%d", signal, r.signalWaits[signal])
}

// takeSignal delivers a signal to a step, or makes the step wait.
func (r *Run) takeSignal(ctx context.Context, signal, name string, rec *stepRecord, timeout time.Duration) ([]byte, error) {
	if err := r.backend.checkUsable(fmt.Sprintf("Wait %q", name)); err != nil {
		return nil, err
	}
	ctx = r.withoutCancel(ctx)
	raw, taken, err := r.deliverSignal(ctx, name, signalTake{
		text: r.store.dialect.signal.take, args: []any{r.id, signal, name},
		scan:   func(rows *sql.Rows, payload *jsonColumn) (string, error) { return signal, rows.Scan(payload) },
		output: func(_, payload string) (string, error) { return payload, nil },
	})
	if taken || err != nil {
		return raw, err
	}
	return r.suspendWait(ctx, name, rec, timeout, timeout != 0, func() ([]byte, error) { return r.recordTimeout(ctx, name) })
}

// A signalTake is a statement that takes a signal for a step, and how to read its row.
type signalTake struct {
	text string
	args []any
	// scan scans a row and returns the name of the signal.
	scan func(rows *sql.Rows, payload *jsonColumn) (signal string, err error)
	// output returns the result of the step.
	output func(signal, payload string) (string, error)
}

// deliverSignal delivers a signal to a step, if there is one, in one transaction.
func (r *Run) deliverSignal(ctx context.Context, name string, take signalTake) (raw []byte, taken bool, err error) {
	var value any
	var malformed *stepFailure
	var status RunState
	err = r.store.atomic(ctx, func(c conn) error {
		value, malformed, status = nil, nil, ""
		ended := stepValues{status: Succeeded}
		err := c.rows(ctx, take.text, take.args, func(rows *sql.Rows) error {
			var payload jsonColumn
			signal, err := take.scan(rows, &payload)
			if err != nil {
				return err
			}
			if _, bad := listedJSON("payload", payload); bad != "" {
				malformed = &stepFailure{Code: codePermanent, Message: malformedError(fmt.Sprintf("signal %q", signal), bad).Error()}
				ended = stepValues{status: Failed, failure: malformed.encode()}
				return nil
			}
			text, err := take.output(signal, string(payload))
			value = pgjson.Canonical(text)
			ended.output = value
			return err
		})
		if err != nil || value == nil && malformed == nil {
			return err
		}
		status, err = c.saveStep(ctx, stepWrite{r.id, r.message, name, ended})
		if err == nil && status == "" {
			err = errStepEnded
		}
		return err
	})
	switch {
	case errors.Is(err, errStepEnded):
		raw, err = r.endedStepResult(ctx, name)
		return raw, true, err
	case err != nil:
		return nil, true, r.suspendOnInfraError(err)
	case malformed != nil:
		r.noteStatus(status)
		return nil, true, r.stepError(name, *malformed)
	case value != nil:
		r.noteStatus(status)
		return bytesOf(value), true, nil
	}
	return nil, false, nil
}

// suspendWait suspends the run until a signal comes or, if the wait has a timeout, the time is up.
// Then it returns the result of timedOut.
func (r *Run) suspendWait(ctx context.Context, name string, rec *stepRecord, timeout time.Duration, timed bool, timedOut func() ([]byte, error)) ([]byte, error) {
	left, begun := wakeOnlyDelay, stepValues{status: Paused}
	switch {
	case rec != nil && rec.wait.Valid:
		left = r.remainingWait(rec)
	case rec == nil && timed:
		left, begun.delay = timeout, timeout.Microseconds()
	}
	if left <= 0 {
		return timedOut()
	}
	onward := func() ([]byte, error) { return nil, r.wait(ctx, left) }
	if rec != nil {
		return onward()
	}
	return r.saveThen(ctx, name, begun, onward)
}

// recordTimeout records that no signal came in time.
func (r *Run) recordTimeout(ctx context.Context, name string) ([]byte, error) {
	f := stepFailure{Code: codeTimeout, Message: "no signal came in time"}
	return r.saveThen(ctx, name, stepValues{status: Failed, failure: f.encode()}, func() ([]byte, error) { return nil, r.stepError(name, f) })
}

// A Case is one of the waits of [Run.Select]. [Signal.Case] and [After] make cases.
type Case struct {
	signal string
	timer  bool
	after  time.Duration
	decode func(raw []byte) error
}

// Case is a case of [Run.Select]: a signal comes. Select sets v to its value, unless v is nil.
func (g Signal[T]) Case(v *T) Case {
	return Case{signal: string(g), decode: func(raw []byte) error {
		if v == nil {
			return nil
		}
		return json.Unmarshal(raw, v)
	}}
}

// After is a case of [Run.Select]: the time d has passed since the run came to Select.
func After(d time.Duration) Case { return Case{timer: true, after: d} }

// Selected is the record of a [Run.Select]. A unit test gives it as the result of the step.
type Selected struct {
	Case  int `json:"case"`            // the number of the case, from 0
	Value any `json:"value,omitempty"` // of the signal
}

// Select waits for the first of several signals, or for a time to pass, and returns the number of
// the case. It takes the oldest signal that has been sent. The others stay for later waits. Until
// there is one, the run is suspended without holding a worker. Select is recorded as a step of that
// name, so that a replay returns the same case and value. On an error the number is -1.
//
// A signal may occur in one case. Without an [After], Select waits for as long as it takes. If
// there are several Afters, the shortest counts, from the first execution that came to Select.
//
// Select returns an error matching ErrState if the record is of a case that is not there any more,
// and one matching ErrInvalidPayload if the value does not decode.
func (r *Run) Select(ctx context.Context, name string, cases ...Case) (int, error) {
	if err := checkCases(cases); err != nil {
		return -1, &operationError{fmt.Sprintf("Select %q of run %d", name, r.id), err}
	}
	raw, err := r.runStepOnce(ctx, name, func(rec *stepRecord) ([]byte, error) { return r.takeCase(ctx, name, rec, cases) })
	if err != nil {
		return -1, err
	}
	return r.selected(name, raw, cases)
}

func checkCases(cases []Case) error {
	if len(cases) == 0 {
		return errors.New("there are no cases")
	}
	signals := map[string]bool{}
	for i, c := range cases {
		if c.timer {
			continue
		}
		if err := checkName("signal name", c.signal); err != nil {
			return fmt.Errorf("case %d: %w", i, err)
		}
		if signals[c.signal] {
			return fmt.Errorf("case %d: the signal %q is in another case too", i, c.signal)
		}
		signals[c.signal] = true
	}
	return nil
}

// selected returns the case of a recorded Select, and sets the value.
func (r *Run) selected(name string, raw []byte, cases []Case) (int, error) {
	taken := struct {
		Case  int             `json:"case"`
		Value json.RawMessage `json:"value"`
	}{Case: -1}
	if err := json.Unmarshal(raw, &taken); err != nil || taken.Case < 0 {
		return -1, fmt.Errorf("%w: step %q of run %d is not the record of a Select", ErrInvalidPayload, name, r.id)
	}
	if taken.Case >= len(cases) {
		return -1, fmt.Errorf("%w: step %q of run %d has taken case %d, and there are %d", ErrState, name, r.id, taken.Case, len(cases))
	}
	c := cases[taken.Case]
	if c.timer {
		return taken.Case, nil
	}
	if err := c.decode(taken.Value); err != nil {
		return -1, fmt.Errorf("%w: signal %q of step %q of run %d does not decode: %w", ErrInvalidPayload, c.signal, name, r.id, err)
	}
	return taken.Case, nil
}

// takeCase records the case that has come first, or suspends the run.
func (r *Run) takeCase(ctx context.Context, name string, rec *stepRecord, cases []Case) ([]byte, error) {
	if err := r.backend.checkUsable(fmt.Sprintf("Select %q", name)); err != nil {
		return nil, err
	}
	ctx = r.withoutCancel(ctx)
	var signals []string
	timer := -1
	for i, c := range cases {
		switch {
		case !c.timer:
			signals = append(signals, c.signal)
		case timer < 0 || c.after < cases[timer].after:
			timer = i
		}
	}
	if len(signals) > 0 {
		raw, taken, err := r.takeFirstSignal(ctx, name, signals, cases)
		if taken || err != nil {
			return raw, err
		}
	}
	var timeout time.Duration
	if timer >= 0 {
		timeout = cases[timer].after
	}
	return r.suspendWait(ctx, name, rec, timeout, timer >= 0, func() ([]byte, error) {
		output, err := recordOfCase(timer, nil)
		if err != nil {
			return nil, err
		}
		return r.saveThen(ctx, name, stepValues{status: Succeeded, output: output}, func() ([]byte, error) { return []byte(output), nil })
	})
}

// takeFirstSignal delivers the oldest of the signals to a step, if there is one.
func (r *Run) takeFirstSignal(ctx context.Context, name string, signals []string, cases []Case) (raw []byte, taken bool, err error) {
	list, err := jsonTexts(signals)
	if err != nil {
		return nil, false, err
	}
	return r.deliverSignal(ctx, name, signalTake{
		text: r.store.dialect.signal.takeFirst, args: []any{r.id, name, list},
		scan: func(rows *sql.Rows, payload *jsonColumn) (signal string, err error) {
			err = rows.Scan(&signal, payload)
			return signal, err
		},
		output: func(signal, payload string) (string, error) {
			at := slices.IndexFunc(cases, func(c Case) bool { return c.signal == signal && !c.timer })
			return recordOfCase(at, json.RawMessage(payload))
		},
	})
}

// recordOfCase encodes a Selected.
func recordOfCase(at int, value json.RawMessage) (string, error) {
	s := Selected{Case: at}
	if value != nil {
		s.Value = value
	}
	raw, err := encodeJSON(s)
	return pgjson.Canonical(string(raw)), err
}
