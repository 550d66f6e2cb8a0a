package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var misuseCases = []testcase{
	{"a call of the run in the function of its own step is ErrState at once, and fails the step for good", "the step would be put off for a hundred years, and the run hang", misuseNested},
	{"a step whose function ignores that a call in it was refused has failed, and its transaction is rolled back", "a child that was never started would be taken for done", misuseNestedIgnored},
	{"the ctx of a step of one run is good for the calls of another", "a worker that is started in a step could run nothing", misuseOtherRun},
	{"a step that waits for its own run is ErrState at once", "the run would wait for itself for ever", misuseOwnResult},
	{"a step in a goroutine that the function does not wait for ends before its run, which is warned", "a result would be lost, and nobody know why", misuseUnawaited},
	{"a step that is asked for after the function has returned is not run, and its run is warned", "a step would take effect for a run that is over, unrecorded", misuseLate},
	{"a goroutine that outlives a suspension is no reason for a warning", "the warning that matters would drown in false ones", misuseSuspended},
	{"an ErrStepReused that the function ignores ends the run with it", "the second of two charges would silently be left out", misuseReused},
	{"middleware that does not call the handler of a workflow is a failed attempt", "the run would wait for a message that is archived", misuseSkipped},
	{"middleware that swallows the error of a suspended run does not keep it from going on", "the run would sleep until it is rescued", misuseSwallowed},
}

// A nestedCall is a call of a run that is made in a step's function.
type nestedCall func(ctx context.Context, run *pgqrs.Run) error

// nestedCalls returns all calls of a run, by the name in their error.
func nestedCalls(e *env) map[string]nestedCall {
	child := pgqrs.NewWorkflow[int, int](e.store, "children")
	return map[string]nestedCall{
		"step": func(ctx context.Context, run *pgqrs.Run) error {
			_, err := pgqrs.Step(ctx, run, "step", returns(1))
			return err
		},
		"do": func(ctx context.Context, run *pgqrs.Run) error {
			return run.With(pgqrs.Policy{MaxAttempts: 1}).Do(ctx, "do", func(context.Context) error { return nil })
		},
		"steptx": func(ctx context.Context, run *pgqrs.Run) error {
			_, err := pgqrs.StepTx(ctx, run, "steptx", func(context.Context, *sql.Tx) (int, error) { return 1, nil })
			return err
		},
		"dotx": func(ctx context.Context, run *pgqrs.Run) error {
			return run.DoTx(ctx, "dotx", func(context.Context, *sql.Tx) error { return nil })
		},
		"nap": func(ctx context.Context, run *pgqrs.Run) error { return run.Sleep(ctx, "nap", time.Hour) },
		"approved": func(ctx context.Context, run *pgqrs.Run) error {
			_, err := approved.Wait(ctx, run, time.Hour)
			return err
		},
		"version:change": func(ctx context.Context, run *pgqrs.Run) error {
			_, err := run.Version(ctx, "change", 1)
			return err
		},
		"child": func(ctx context.Context, run *pgqrs.Run) error {
			_, err := child.Child(ctx, run, "child", 1)
			return err
		},
		"kids": func(ctx context.Context, run *pgqrs.Run) error {
			_, err := child.Children(ctx, run, "kids", []int{1, 2})
			return err
		},
	}
}

// nesting returns a handler. Its runs make the call that their input names, in a step or in a
// StepTx. The step passes the error to then and returns the result.
func nesting(t *testing.T, e *env, then func(error) error) (*pgqrs.Workflow[string, int], pgqrs.Handler) {
	w := pgqrs.NewWorkflow[string, int](e.store, "nesting")
	calls := nestedCalls(e)
	return w, w.Handle(func(ctx context.Context, run *pgqrs.Run, in string) (int, error) {
		name, tx := strings.CutSuffix(in, " in a transaction")
		inner := func(ctx context.Context) error {
			err := calls[name](ctx, run)
			if !errors.Is(err, pgqrs.ErrState) {
				t.Errorf("%s: %v, want an error matching ErrState", in, err)
			}
			return then(err)
		}
		if !tx {
			return 0, run.Do(ctx, "outer", inner)
		}
		return 0, run.DoTx(ctx, "outer", func(ctx context.Context, tx *sql.Tx) error {
			if err := book(ctx, tx); err != nil {
				return err
			}
			return inner(ctx)
		})
	})
}

// wantNested runs every nested call, and fails the test unless each ends its run at once.
func wantNested(t *testing.T, e *env, then func(error) error) {
	t.Helper()
	count := e.effects(t)
	w, h := nesting(t, e, then)
	start(t, fast(h))
	for name := range nestedCalls(e) {
		for _, in := range []string{name, name + " in a transaction"} {
			run := launch(t, w, in)
			info := e.awaitRun(t, run.ID(), pgqrs.Failed)
			wantText(t, "error", info.Error, `"outer"`, fmt.Sprintf("%q is called in the function of step \"outer\" of run %d", name, run.ID()))
			equal(t, "executions", e.info(t, info.MessageID).Claim, 1)
			equal(t, "recorded steps", len(value(run.Steps(t.Context()))(t)), 1)
		}
	}
	equal(t, "effects of transactions", count(), 0)
	equal(t, "children", len(e.runIDs(t, pgqrs.RunFilter{Workflow: "children"})), 0)
}

func misuseNested(t *testing.T, e *env) {
	wantNested(t, e, func(err error) error { return err })
}

func misuseNestedIgnored(t *testing.T, e *env) {
	wantNested(t, e, func(error) error { return nil })
}

func misuseOtherRun(t *testing.T, e *env) {
	inner := pgqrs.NewWorkflow[int, int](e.store, "inner")
	handler := inner.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
		return pgqrs.Step(ctx, run, "step", returns(n))
	})
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		n, err := pgqrs.Step(ctx, run, "outer", func(ctx context.Context) (int, error) {
			other, err := inner.Start(ctx, 7)
			if err != nil {
				return 0, err
			}
			working, stop := context.WithCancel(ctx)
			defer stop()
			ended := make(chan error, 1)
			go func() { ended <- fast(handler).Run(working) }()
			n, err := other.Result(ctx)
			stop()
			return n, errors.Join(err, <-ended)
		})
		return receipt{"tea", n}, err
	})
	equal(t, "result", finished(t, h), receipt{"tea", 7})
}

func misuseOwnResult(t *testing.T, e *env) {
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		return pgqrs.Step(ctx, run.With(pgqrs.Policy{MaxAttempts: 1}), "outer", func(ctx context.Context) (receipt, error) {
			return orders(e.store).RunHandle(run.ID()).Result(ctx)
		})
	})
	info := e.awaitRun(t, h.ID(), pgqrs.Failed)
	wantText(t, "error", info.Error, `"outer"`, fmt.Sprintf("wait for run %d", h.ID()), pgqrs.ErrState.Error()[len("pgqrs: "):])
}

// wantUnawaited fails the test unless the run has a warning about a step, in the log too.
func (e *env) wantUnawaited(t *testing.T, run int64, parts ...string) {
	t.Helper()
	eventually(t, "the run has a warning", func() bool { return e.runInfo(t, run).Warning != "" })
	wantText(t, "warning", e.runInfo(t, run).Warning, append(parts, "wait for its goroutines")...)
	if !e.log.has("a run's function did not wait for its steps") {
		t.Error("the log does not say so")
	}
}

func misuseUnawaited(t *testing.T, e *env) {
	gate := make(chan struct{})
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		begun := make(chan struct{})
		go func() {
			_ = run.Do(ctx, "beside", func(context.Context) error { close(begun); <-gate; return nil })
		}()
		<-begun
		time.AfterFunc(50*time.Millisecond, func() { close(gate) })
		return receipt{"tea", 1}, run.Do(ctx, "awaited", func(context.Context) error { return nil })
	})
	equal(t, "result", finished(t, h), receipt{"tea", 1})
	e.wantUnawaited(t, h.ID(), `["beside"]`)
	equal(t, "status of the step", e.step(t, h.ID(), "beside").Status, pgqrs.Succeeded)
}

func misuseLate(t *testing.T, e *env) {
	gate, late := make(chan struct{}), make(chan error, 1)
	var calls tally[string]
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		go func() {
			<-gate
			late <- run.Do(ctx, "late", func(context.Context) error { calls.add("late"); return nil })
		}()
		return receipt{"tea", 1}, nil
	})
	equal(t, "result", finished(t, h), receipt{"tea", 1})
	close(gate)
	wantError(t, receive(t, "the late step returns", late), pgqrs.ErrState)
	equalSlices(t, "calls", calls.all(), nil)
	e.wantUnawaited(t, h.ID(), `"late"`)
	equal(t, "recorded steps", len(value(h.Steps(t.Context()))(t)), 0)
}

func misuseSuspended(t *testing.T, e *env) {
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		begun, gate := make(chan struct{}), make(chan struct{})
		beside := make(chan error, 1)
		go func() {
			beside <- run.Do(ctx, "beside", func(context.Context) error { close(begun); <-gate; return nil })
		}()
		if execution == 1 {
			<-begun
			err := run.Sleep(ctx, "nap", time.Millisecond)
			time.AfterFunc(20*time.Millisecond, func() { close(gate) })
			return receipt{}, err
		}
		return receipt{"tea", 1}, errors.Join(<-beside, run.Sleep(ctx, "nap", time.Millisecond))
	})
	equal(t, "result", finished(t, h), receipt{"tea", 1})
	equal(t, "warning", e.runInfo(t, h.ID()).Warning, "")
}

func misuseReused(t *testing.T, e *env) {
	var calls tally[string]
	reuse := map[string]nestedCall{
		"Do":    func(ctx context.Context, run *pgqrs.Run) error { return noted(ctx, run, &calls, "charge") },
		"Sleep": func(ctx context.Context, run *pgqrs.Run) error { return run.Sleep(ctx, "charge", time.Hour) },
		"Child": func(ctx context.Context, run *pgqrs.Run) error {
			_, err := pgqrs.NewWorkflow[int, int](e.store, "children").Child(ctx, run, "charge", 1)
			return err
		},
	}
	w := pgqrs.NewWorkflow[string, int](e.store, "reusing")
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, in string) (int, error) {
		if err := noted(ctx, run, &calls, "charge"); err != nil {
			return 0, err
		}
		_ = reuse[in](ctx, run)
		return 1, noted(ctx, run, &calls, "mail")
	})))
	for in := range reuse {
		info := e.awaitRun(t, launch(t, w, in).ID(), pgqrs.Failed)
		wantText(t, "error of "+in, info.Error, "step name is used twice", `"charge"`)
	}
	equalSlices(t, "calls", calls.all(), []string{"charge", "mail", "charge", "mail", "charge", "mail"})
}

func misuseSkipped(t *testing.T, e *env) {
	w := pgqrs.NewWorkflow[int, int](e.store, "runs").With(atOnce(2))
	worker := fast(w.Handle(func(context.Context, *pgqrs.Run, int) (int, error) { return 1, nil }))
	var calls tally[string]
	worker.Middleware = []func(pgqrs.WorkFunc) pgqrs.WorkFunc{func(pgqrs.WorkFunc) pgqrs.WorkFunc {
		return func(context.Context, *pgqrs.MessageInfo) error { calls.add("skipped"); return nil }
	}}
	start(t, worker)
	info := e.awaitRun(t, launch(t, w, 1).ID(), pgqrs.Failed)
	equal(t, "deliveries", calls.len(), 2)
	if !strings.Contains(info.Error, "without calling the handler") {
		t.Errorf("the run failed with %q", info.Error)
	}
}

func misuseSwallowed(t *testing.T, e *env) {
	w := pgqrs.NewWorkflow[int, int](e.store, "runs").With(atOnce(1))
	worker := fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (int, error) {
		return 1, run.Sleep(ctx, "nap", 20*time.Millisecond)
	}))
	worker.Middleware = []func(pgqrs.WorkFunc) pgqrs.WorkFunc{func(next pgqrs.WorkFunc) pgqrs.WorkFunc {
		return func(ctx context.Context, m *pgqrs.MessageInfo) error {
			if err := next(ctx, m); errors.Is(err, pgqrs.ErrSuspended) && m.Claim%2 == 0 {
				return errBoom
			}
			return nil
		}
	}}
	start(t, worker)
	h := launch(t, w, 1)
	equal(t, "result", finished(t, h), 1)
	equal(t, "attempts", e.info(t, e.runInfo(t, h.ID()).MessageID).Attempt, 1)
}
