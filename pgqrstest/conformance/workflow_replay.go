package conformance

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var replayCases = []testcase{
	{"what Step, StepTx, Wait, Child and Children return is the same the first time and on every replay, byte by byte", "a run would take one turn now and another after a crash, because the database writes JSON in its own way", replayValues},
	{"a failure is the same the first time and on every replay, whatever its text is", "a run that looks at the text of an error would take another turn after a crash", replayErrors},
	{"Result in the process that ended the run is Result in every other one, byte by byte", "two callers would get two results of one run", replayResult},
}

// A verbatim is a JSON value of which every byte counts.
type verbatim string

func (v verbatim) MarshalJSON() ([]byte, error)     { return []byte(v), nil }
func (v *verbatim) UnmarshalJSON(text []byte) error { *v = verbatim(text); return nil }

// verbatims are values that some databases return in another form.
var verbatims = []verbatim{
	`{"b":1,"a":1e2}`, `{"a":1,"bb":{"z":2,"y":3},"b":2}`, `{"a":1,"a":2}`, `[-0,-0.0,1.50,1E+2,15e-1,0.05e1]`,
	`" \u003c\u0041\/\u00e9\u2028 "`, `[ ]`, `{ "a" : [ 1 ] }`, `null`,
}

// A diary records what each execution of a run receives from its calls.
type diary struct {
	mu   sync.Mutex
	seen map[string][]string
}

// note adds the result of a call, unless it is a suspension.
func (d *diary) note(call string, v any, err error) error {
	if errors.Is(err, pgqrs.ErrSuspended) {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen == nil {
		d.seen = map[string][]string{}
	}
	d.seen[call] = append(d.seen[call], fmt.Sprintf("%+v, %v", v, err))
	return nil
}

// wantSame fails the test unless there are n calls and each returned the same result several times.
func (d *diary) wantSame(t *testing.T, calls int) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	equal(t, "number of calls", len(d.seen), calls)
	for _, call := range slices.Sorted(maps.Keys(d.seen)) {
		values := d.seen[call]
		if len(values) < 2 {
			t.Errorf("%s was called %d times, want several", call, len(values))
		}
		for _, v := range values {
			if v != values[0] {
				t.Errorf("%s returned %s at first, and then %s", call, values[0], v)
			}
		}
	}
}

// entry is like note, for a call with a value.
func entry[T any](d *diary, call string) func(v T, err error) error {
	return func(v T, err error) error { return d.note(call, v, err) }
}

// returns makes a step's function that returns v.
func returns[T any](v T) func(context.Context) (T, error) {
	return func(context.Context) (T, error) { return v, nil }
}

func replayValues(t *testing.T, e *env) {
	const raw pgqrs.Signal[verbatim] = "raw"
	echo := pgqrs.NewWorkflow[verbatim, verbatim](e.store, "echo")
	type input struct {
		N int
		V verbatim
	}
	w := pgqrs.NewWorkflow[input, int](e.store, "values")
	var d diary
	start(t, fast(echo.Handle(func(_ context.Context, _ *pgqrs.Run, v verbatim) (verbatim, error) { return v, nil }),
		w.Handle(func(ctx context.Context, run *pgqrs.Run, in input) (int, error) {
			v := verbatims[in.N]
			tx := func(context.Context, *sql.Tx) (verbatim, error) { return v, nil }
			errs := []error{
				d.note("the input", in.V, nil),
				entry[verbatim](&d, "Step")(pgqrs.Step(ctx, run, "step", returns(v))),
				entry[verbatim](&d, "StepTx")(pgqrs.StepTx(ctx, run, "steptx", tx)),
				entry[json.RawMessage](&d, "RawMessage")(pgqrs.Step(ctx, run, "raw message", returns(json.RawMessage(v)))),
				entry[json.Number](&d, "Number")(pgqrs.Step(ctx, run, "number", returns(json.Number("-1.50e1")))),
				entry[float64](&d, "float64")(pgqrs.Step(ctx, run, "float64", returns(math.Copysign(0, -1)))),
				entry[any](&d, "any")(pgqrs.Step(ctx, run, "any", returns[any](map[string]any{"b": 1, "a": v}))),
				entry[map[string]verbatim](&d, "map")(pgqrs.Step(ctx, run, "map", returns(map[string]verbatim{"b": v, "a": "1e1"}))),
				entry[verbatim](&d, "Wait")(raw.Wait(ctx, run, 0)),
				entry[verbatim](&d, "Child")(echo.Child(ctx, run, "child", v)),
				entry[[]verbatim](&d, "Children")(echo.Children(ctx, run, "children", verbatims)),
			}
			if err := errors.Join(errs...); err != nil {
				return 0, err
			}
			return 1, run.Sleep(ctx, "nap", time.Millisecond)
		})))
	for n, v := range verbatims {
		d = diary{}
		run := launch(t, w, input{n, v})
		must(t, raw.Send(t.Context(), e.store, run.ID(), v))
		finished(t, run)
		d.wantSame(t, 11)
	}
}

func replayErrors(t *testing.T, e *env) {
	texts := []string{"", "no <room>", "\x00", "\xff\xfe", "\ufffd", "\u2028\u00e9", `{"message":"x"}`, strings.Repeat("é", 10_000), "\x1b\\\""}
	child := pgqrs.NewWorkflow[string, int](e.store, "children")
	w := pgqrs.NewWorkflow[int, int](e.store, "errors")
	var d diary
	start(t, fast(child.Handle(func(_ context.Context, _ *pgqrs.Run, text string) (int, error) {
		return 0, errors.New(text + "!")
	}), w.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
		fails := func(context.Context) error { return pgqrs.Permanent(errors.New(texts[n])) }
		failsTx := func(ctx context.Context, _ *sql.Tx) error { return fails(ctx) }
		_, childErr := child.Child(ctx, run, "child", strings.ToValidUTF8(strings.ReplaceAll(texts[n], "\x00", ""), ""))
		errs := []error{
			d.note("Do", nil, run.Do(ctx, "step", fails)),
			d.note("DoTx", nil, run.DoTx(ctx, "steptx", failsTx)),
			d.note("Child", nil, childErr),
		}
		if err := errors.Join(errs...); err != nil {
			return 0, err
		}
		return 1, run.Sleep(ctx, "nap", time.Millisecond)
	})))
	for n := range texts {
		d = diary{}
		finished(t, launch(t, w, n))
		d.wantSame(t, 3)
	}
}

func replayResult(t *testing.T, e *env) {
	w := pgqrs.NewWorkflow[int, verbatim](e.store, "results")
	start(t, fast(w.Handle(func(_ context.Context, _ *pgqrs.Run, n int) (verbatim, error) { return verbatims[n], nil })))
	for n, v := range verbatims {
		run := launch(t, w, n)
		here := finished(t, run)
		there := finished(t, pgqrs.NewWorkflow[int, verbatim](e.newStore(t, pgqrs.Config{}), "results").RunHandle(run.ID()))
		equal(t, fmt.Sprintf("result of %s here and elsewhere", v), here, there)
	}
}
