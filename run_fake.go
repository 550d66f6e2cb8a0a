package pgqrs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/pgqrs/pgqrs-go/internal/testkit"
)

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
