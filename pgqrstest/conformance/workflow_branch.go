package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var branchCases = []testcase{
	{"a wait in one branch does not stop the steps of the others, and the run sleeps until the first wait is over", "a reminder in a week would hold up the order that it is for", branchWaits},
	{"of several waits in branches the first signal to come continues the run", "a run that waits for a yes or a no would hang when the no comes", branchSignals},
	{"a step that is to be tried again holds up its own branch alone", "a service that is down would stop the work that does not need it", branchRetry},
	{"children of branches run at the same time, and each branch continues when its own child ends", "ten imports in branches would take turns", branchChildren},
	{"a wait that is over ends between two steps of another branch", "a branch of a thousand steps would delay a reminder by a day", branchDue},
	{"All joins the errors of all branches in their order, a panic among them, the first time and on replay", "one failure would hide the others, or a replay would take another turn", branchErrors},
	{"when the run is cancelled each branch is refused once, and cleans up, also after a crash", "a branch would do new work in place of the cleaning up", branchCancel},
	{"the waits of branches keep their names, whichever branch comes first", "a replay would give one branch the signal of another", branchNames},
	{"branches may have branches", "two libraries of steps could not be used together", branchNested},
	{"All in a step, and Version in a branch, are ErrState", "the one would wait for ever, and the other take a new way by chance", branchRefused},
}

// newBranching returns a workflow whose function calls All once.
func newBranching(s *pgqrs.Store) *pgqrs.Workflow[int, string] {
	return pgqrs.NewWorkflow[int, string](s, "branches")
}

type branchFunc = func(context.Context, *pgqrs.Run) error

// inBranches returns the function of a run that calls All with the functions.
func inBranches(fns ...branchFunc) func(context.Context, *pgqrs.Run, int) (string, error) {
	return func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		return "done", all(ctx, run, fns...)
	}
}

func all(ctx context.Context, run *pgqrs.Run, fns ...branchFunc) error {
	list := make([]func(context.Context) error, len(fns))
	for i, fn := range fns {
		list[i] = func(ctx context.Context) error { return fn(ctx, run) }
	}
	return run.All(ctx, list...)
}

// after returns a branch that sleeps, and then calls a step.
func after(d time.Duration, calls *tally[string], name string) branchFunc {
	return func(ctx context.Context, run *pgqrs.Run) error {
		if err := run.Sleep(ctx, "before "+name, d); err != nil {
			return err
		}
		return noted(ctx, run, calls, name)
	}
}

// working returns a branch that calls n steps.
func working(calls *tally[string], n int) branchFunc {
	return func(ctx context.Context, run *pgqrs.Run) error {
		for i := range n {
			if err := noted(ctx, run, calls, fmt.Sprint("work ", i)); err != nil {
				return err
			}
		}
		return nil
	}
}

// sorted returns the calls, in the order of their names.
func sorted(calls *tally[string]) string {
	return strings.Join(slices.Sorted(slices.Values(calls.all())), ", ")
}

func branchWaits(t *testing.T, e *env) {
	var calls tally[string]
	w := newBranching(e.store)
	h := w.Handle(inBranches(after(7*24*time.Hour, &calls, "remind"), after(24*time.Hour, &calls, "ask"), working(&calls, 4)))
	stop := start(t, fast(h))
	run := launch(t, w, 1)
	asleep(t, e, run, "before remind")
	equal(t, "calls before the first wait is over", sorted(&calls), "work 0, work 1, work 2, work 3")
	info := e.info(t, e.runInfo(t, run.ID()).MessageID)
	if in := info.DueAt.Sub(info.EnqueuedAt); in < 23*time.Hour || in > 25*time.Hour {
		t.Errorf("the run continues after %v, want a day", in)
	}
	must(t, stop())
	pgqrstest.Advance(t, e.store, 25*time.Hour)
	stop = start(t, fast(h))
	eventually(t, "the second branch continues", func() bool { return calls.len() == 5 })
	asleep(t, e, run, "before remind")
	must(t, stop())
	pgqrstest.Advance(t, e.store, 7*24*time.Hour)
	start(t, fast(h))
	equal(t, "result", finished(t, run), "done")
	equal(t, "all calls", sorted(&calls), "ask, remind, work 0, work 1, work 2, work 3")
	equal(t, "warning", e.runInfo(t, run.ID()).Warning, "")
}

func branchSignals(t *testing.T, e *env) {
	const yes, no pgqrs.Signal[string] = "yes", "no"
	for name, send := range map[string]pgqrs.Signal[string]{"the first": yes, "the second": no} {
		w := pgqrs.NewWorkflow[int, string](e.store, "answers "+name)
		stop := start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
			answers := make(chan string, 2)
			wait := func(signal pgqrs.Signal[string]) branchFunc {
				return func(ctx context.Context, run *pgqrs.Run) error {
					by, err := signal.Wait(ctx, run, time.Hour)
					if err == nil {
						answers <- string(signal) + " by " + by
						err = noted(ctx, run, &tally[string]{}, "note "+string(signal))
					}
					return err
				}
			}
			err := all(ctx, run, wait(yes), wait(no))
			if len(answers) == 2 {
				return "both", err
			}
			return "", err
		})))
		run := launch(t, w, 1)
		asleep(t, e, run, "yes@1.1#1")
		asleep(t, e, run, "no@1.2#1")
		must(t, send.Send(t.Context(), e.store, run.ID(), "Ann"))
		eventually(t, name+" signal continues its branch", func() bool { return stepOf(t, run, "note "+string(send)).Status == pgqrs.Succeeded })
		for _, signal := range []pgqrs.Signal[string]{yes, no} {
			if signal != send {
				must(t, signal.Send(t.Context(), e.store, run.ID(), "Ben"))
			}
		}
		equal(t, "result", finished(t, run), "both")
		must(t, stop())
	}
}

func branchRetry(t *testing.T, e *env) {
	var calls tally[string]
	w := newBranching(e.store)
	start(t, fast(w.Handle(inBranches(
		func(ctx context.Context, run *pgqrs.Run) error {
			return run.With(pgqrs.Policy{Backoff: func(int) time.Duration { return time.Hour }}).Do(ctx, "flaky", func(context.Context) error {
				calls.add("flaky")
				return errBoom
			})
		},
		func(ctx context.Context, run *pgqrs.Run) error {
			eventually(t, "the step of the other branch has failed", func() bool { return e.hasStep(t, run.ID(), "flaky") })
			return working(&calls, 3)(ctx, run)
		},
	))))
	run := launch(t, w, 1)
	asleep(t, e, run, "flaky")
	equal(t, "calls before the next attempt", sorted(&calls), "flaky, work 0, work 1, work 2")
}

// hasStep reports whether a run has a record of a step.
func (e *env) hasStep(t *testing.T, run int64, name string) bool {
	t.Helper()
	steps := value(e.store.RunHandle(run).Steps(t.Context()))(t)
	return slices.ContainsFunc(steps, func(s pgqrs.StepInfo) bool { return s.Name == name })
}

func branchChildren(t *testing.T, e *env) {
	var calls tally[string]
	var begun tally[int]
	started, gate := make(chan struct{}), make(chan struct{})
	kids := pgqrs.NewWorkflow[int, int](e.store, "kids")
	start(t, fast(kids.Handle(func(ctx context.Context, _ *pgqrs.Run, n int) (int, error) {
		begun.add(n)
		for _, wait := range map[int][]chan struct{}{1: {started}, 2: {started, gate}, 3: {started}}[n] {
			select {
			case <-wait:
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		return 2 * n, nil
	})))
	w := newBranching(e.store)
	child := func(n int) branchFunc {
		return func(ctx context.Context, run *pgqrs.Run) error {
			if n > 1 {
				eventually(t, "the branch before waits", func() bool { return e.hasStep(t, run.ID(), fmt.Sprint("kid ", n-1)) })
			}
			out, err := kids.Child(ctx, run, fmt.Sprint("kid ", n), n)
			if err != nil {
				return err
			}
			return noted(ctx, run, &calls, fmt.Sprint("got ", out))
		}
	}
	start(t, fast(w.Handle(inBranches(child(1), child(2), child(3)))))
	run := launch(t, w, 1)
	eventually(t, "all children run at the same time", func() bool { return begun.len() == 3 })
	close(started)
	eventually(t, "two branches continue while a child runs", func() bool { return calls.len() == 2 })
	equal(t, "calls", sorted(&calls), "got 2, got 6")
	close(gate)
	equal(t, "result", finished(t, run), "done")
	equal(t, "calls", sorted(&calls), "got 2, got 4, got 6")
}

func branchDue(t *testing.T, e *env) {
	var calls tally[string]
	w := newBranching(e.store)
	start(t, fast(w.Handle(inBranches(
		after(30*time.Millisecond, &calls, "remind"),
		func(ctx context.Context, run *pgqrs.Run) error {
			for i := range 100_000 { // until the other branch has continued
				err := run.Do(ctx, fmt.Sprint("work ", i), func(context.Context) error { return nil })
				if err != nil || slices.Contains(calls.all(), "remind") {
					return err
				}
			}
			return errBoom
		},
	))))
	run := launch(t, w, 1)
	equal(t, "result", finished(t, run), "done")
}

func branchErrors(t *testing.T, e *env) {
	var calls tally[string]
	w := newBranching(e.store)
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		fails := func(name string) branchFunc {
			return func(ctx context.Context, run *pgqrs.Run) error {
				return run.Do(ctx, name, func(context.Context) error { return pgqrs.Permanent(errors.New(name + " is broken")) })
			}
		}
		err := all(ctx, run, fails("first"), working(&calls, 2), fails("second"), func(context.Context, *pgqrs.Run) error { panic("third") })
		if errors.Is(err, pgqrs.ErrSuspended) {
			return "", err
		}
		text, _, _ := strings.Cut(err.Error(), "goroutine")
		calls.add(text)
		return "failed", run.Sleep(ctx, "nap", 20*time.Millisecond)
	})))
	run := launch(t, w, 1)
	equal(t, "result", finished(t, run), "failed")
	texts := calls.all()[2:]
	if len(texts) != 2 || texts[0] != texts[1] {
		t.Fatalf("the errors are %q, want the same twice", texts)
	}
	at := 0
	for _, part := range []string{"first is broken", "second is broken", "third"} {
		next := strings.Index(texts[0][at:], part)
		if next < 0 {
			t.Fatalf("the error is %q, want %q after the others", texts[0], part)
		}
		at += next
	}
}

func branchCancel(t *testing.T, e *env) {
	var calls tally[string]
	w := newBranching(e.store)
	crash := true
	tidies := func(name string) branchFunc {
		return func(ctx context.Context, run *pgqrs.Run) error {
			err := after(time.Hour, &calls, name)(ctx, run)
			if !errors.Is(err, pgqrs.ErrCancelled) {
				return err
			}
			return errors.Join(err, run.Do(ctx, "tidy "+name, func(context.Context) error {
				calls.add("tidy " + name)
				if name == "second" && crash {
					crash = false
					e.loseRun(t, run.ID())
				}
				return nil
			}))
		}
	}
	start(t, fast(w.Handle(inBranches(tidies("first"), tidies("second")))))
	run := launch(t, w, 1)
	asleep(t, e, run, "before first")
	asleep(t, e, run, "before second")
	must(t, run.Cancel(t.Context()))
	e.awaitRun(t, run.ID(), pgqrs.Cancelled)
	if got := slices.Compact(slices.Sorted(slices.Values(calls.all()))); !slices.Equal(got, []string{"tidy first", "tidy second"}) {
		t.Errorf("the branches have called %q", got)
	}
	for _, name := range []string{"first", "second"} {
		equal(t, "status of the refused sleep", stepOf(t, run, "before "+name).Status, pgqrs.Failed)
		equal(t, "status of the cleaning up", stepOf(t, run, "tidy "+name).Status, pgqrs.Succeeded)
	}
}

func branchNames(t *testing.T, e *env) {
	const go1 pgqrs.Signal[int] = "go"
	w := newBranching(e.store)
	waits := func(first chan struct{}, executions *tally[string], late bool) branchFunc {
		return func(ctx context.Context, run *pgqrs.Run) error {
			if late == (executions.len() == 1) {
				<-first // the branches take turns in another order in the next execution
			} else {
				defer close(first)
			}
			_, err := go1.Wait(ctx, run, time.Hour)
			return err
		}
	}
	var executions tally[string]
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		executions.add("one")
		first := make(chan struct{})
		return "done", all(ctx, run, waits(first, &executions, false), waits(first, &executions, true))
	})))
	run := launch(t, w, 1)
	asleep(t, e, run, "go@1.2#1")
	for i := range 2 {
		must(t, go1.Send(t.Context(), e.store, run.ID(), i))
	}
	equal(t, "result", finished(t, run), "done")
	outputs := string(stepOf(t, run, "go@1.1#1").Output) + string(stepOf(t, run, "go@1.2#1").Output)
	if outputs != "01" && outputs != "10" {
		t.Errorf("the waits have %s, want one signal each", outputs)
	}
}

func branchNested(t *testing.T, e *env) {
	var calls tally[string]
	w := newBranching(e.store)
	start(t, fast(w.Handle(inBranches(
		func(ctx context.Context, run *pgqrs.Run) error {
			return all(ctx, run, after(20*time.Millisecond, &calls, "one"), after(40*time.Millisecond, &calls, "two"))
		},
		func(ctx context.Context, run *pgqrs.Run) error {
			_, err := approved.Wait(ctx, run, 0)
			return err
		},
	))))
	run := launch(t, w, 1)
	eventually(t, "the inner branches end", func() bool { return calls.len() == 2 })
	must(t, approved.Send(t.Context(), e.store, run.ID(), "Ann"))
	equal(t, "result", finished(t, run), "done")
	equal(t, "calls", sorted(&calls), "one, two")
}

func branchRefused(t *testing.T, e *env) {
	w := newBranching(e.store)
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		var version error
		must(t, run.All(ctx))
		must(t, run.All(ctx, func(ctx context.Context) error {
			_, version = run.Version(ctx, "new", 1)
			return nil
		}))
		inStep := run.Do(ctx, "step", func(ctx context.Context) error { return run.All(ctx) })
		return fmt.Sprint(errors.Is(version, pgqrs.ErrState), inStep != nil && strings.Contains(inStep.Error(), "All is called in the function of step")), nil
	})))
	equal(t, "errors", finished(t, launch(t, w, 1)), "true true")
}
