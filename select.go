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
