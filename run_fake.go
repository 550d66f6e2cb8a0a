package pgqrs

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/pgqrs/pgqrs-go/internal/testkit"
)

// The test kit reaches what is not exported through these.
func init() {
	testkit.NewRun = func(given map[string]any) any {
		e := newExecution(nil, "test", &MessageInfo{ID: 1})
		e.id, e.testResults = 1, maps.Clone(given)
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

// testStep returns the result that a test gives a step.
func (e *execution) testStep(name string) (*stepRecord, bool, error) {
	e.mu.Lock()
	v, ok := e.testResults[name]
	e.mu.Unlock()
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

// testError is a failure as its record would give it back.
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

// testSignal lets a test give the first signal of a name by that name alone.
func (e *execution) testSignal(signal, step string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, plain := e.testResults[signal]
	if _, exact := e.testResults[step]; plain && !exact && step == signal+"#1" {
		e.testResults[step] = v
	}
}

// testChildren turns what a test gives for n runs of a workflow into what would
// be recorded of them. For Children it is a slice, of results or errors, or an error for all.
func (e *execution) testChildren(workflow, step string, n int, one bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, ok := e.testResults[step]
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
	e.testResults[step] = results
	return nil
}

// testValues is what is given for each of n children.
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
