package conformance

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

// loseRun takes a run from its worker, as if the worker had died and its lease had ended.
func (e *env) loseRun(t *testing.T, id int64) {
	t.Helper()
	e.poke(t, "UPDATE pgqrs_messages SET vt = enqueued_at, consumer_worker_id = NULL WHERE id = (SELECT message_id FROM pgqrs_workflow_runs WHERE id = %d)", id)
}

// later lets time pass for waiting runs while no worker polls. A worker that polled in the middle
// would find the message due, but not its step.
func (e *env) later(t *testing.T, d time.Duration) {
	t.Helper()
	must(t, e.store.PauseQueue(t.Context(), "orders"))
	pgqrstest.Advance(t, e.store, d)
	must(t, e.store.ResumeQueue(t.Context(), "orders"))
}

// A script is the function of the workflow that most cases use.
type script func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error)

// play returns a handler for a script. The script receives the number of the run's execution by
// this handler, from 1.
func play(s *pgqrs.Store, fn script) pgqrs.Handler {
	var mu sync.Mutex
	executions := make(map[int64]int)
	return orders(s).Handle(func(ctx context.Context, run *pgqrs.Run, _ order) (receipt, error) {
		mu.Lock()
		executions[run.ID()]++
		n := executions[run.ID()]
		mu.Unlock()
		return fn(ctx, run, n)
	})
}

// act starts a worker for a script and a run of the script.
func (e *env) act(t *testing.T, fn script) *pgqrs.RunHandle[receipt] {
	t.Helper()
	w := fast(play(e.store, fn))
	w.Concurrency = 1
	start(t, w)
	return e.run(t)
}

// step returns a recorded step.
func (e *env) step(t *testing.T, run int64, name string) pgqrs.StepInfo {
	t.Helper()
	for _, s := range value(e.store.RunHandle(run).Steps(t.Context()))(t) {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("run %d has no step %q", run, name)
	panic("unreachable")
}

// counting returns the function of a step that notes its call and returns v.
func counting[T any](calls *tally[string], name string, v T) func(context.Context) (T, error) {
	return func(context.Context) (T, error) {
		calls.add(name)
		return v, nil
	}
}
