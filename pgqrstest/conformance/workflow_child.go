package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var childCases = []testcase{
	{"Child returns the child's result, and the child says whose it is", "a run could not be put together of others, or an operator not see why one was started", childResult},
	{"a failed child is a *RunError with its workflow and id, the same on every replay", "a parent could not tell which of its children failed, or take another turn on replay", childFails},
	{"Children keeps the order, with zero for those that failed, and joins their errors", "results would be taken for another child's", childOrder},
	{"a child is started once, though its parent is cut short right after", "an order would be sent twice", childOnce},
	{"a child is started once, though the answer to its start is lost", "an order would be sent twice", childMuted},
	{"an execution that has lost its lease starts no children", "an order would be sent twice", childStale},
	{"a waiting parent holds no slot: one worker with one slot runs both", "parents would fill the worker and wait for children that never run", childSlot},
	{"a hundred children are started at once and waited for once", "a parent would be woken a hundred times, or miss some of them", childHundred},
	{"the last two children to end, at the same moment, wake their parent", "each would leave the waking to the other, and the parent wait for ever", childLastTwo},
	{"a child that ends before its parent has gone to sleep wakes it", "the parent would wait for ever", childQuick},
	{"a parent's Cancel reaches its children and theirs", "a cancelled order would still be sent by a child", childCancel},
	{"children that were being started while their parent was cancelled are cancelled with it", "a child would go on for nobody", childCancelLate},
	{"a cancelled child is an error of its parent's Child that matches ErrCancelled", "a parent would take it for a success", childCancelled},
	{"a child that is cancelled before it begins wakes its parent", "the parent would wait for ever", childCancelledUnstarted},
	{"a workflow can be its own child", "trees could not be worked through", childRecursion},
	{"children that cannot be started are an error of the call, and nothing is started", "a parent would try for ever, or half of them run", childRefused},
	{"Runs of a Parent are its children, not theirs, by the other fields too", "an operator could not find what a run waits for", childListed},
	{"no children at all return at once", "an empty list would make its run wait for ever", childNone},
}

var errSpilt = errors.New("spilt")

// A family is a parent and its children. A child returns the double of its input, or fails if the
// input is negative.
type family struct {
	parents *pgqrs.Workflow[[]int, []int]
	double  *pgqrs.Workflow[int, int]
}

func newFamily(s *pgqrs.Store) *family {
	return &family{parents: pgqrs.NewWorkflow[[]int, []int](s, "parents"), double: pgqrs.NewWorkflow[int, int](s, "doubles")}
}

// handlers returns the handlers of a parent that starts Children, and of its children.
func (f *family) handlers() []pgqrs.Handler {
	return []pgqrs.Handler{
		f.parents.Handle(func(ctx context.Context, run *pgqrs.Run, in []int) ([]int, error) {
			return f.double.Children(ctx, run, "kids", in)
		}),
		f.doubles(),
	}
}

func (f *family) doubles() pgqrs.Handler {
	return f.double.Handle(func(_ context.Context, _ *pgqrs.Run, n int) (int, error) {
		if n < 0 {
			return 0, fmt.Errorf("%w: %d", errSpilt, n)
		}
		return 2 * n, nil
	})
}

// childRuns lists the runs of the children, the latest first.
func (f *family) childRuns(t *testing.T, e *env) []pgqrs.RunInfo {
	t.Helper()
	return value(e.store.Runs(t.Context(), pgqrs.RunFilter{Workflow: "doubles", Limit: 1000}))(t)
}

func childResult(t *testing.T, e *env) {
	f := newFamily(e.store)
	start(t, fast(f.handlers()...))
	run := launch(t, f.parents, []int{21})
	equalSlices(t, "result", finished(t, run), []int{42})
	kids := f.childRuns(t, e)
	equal(t, "number of children", len(kids), 1)
	equal(t, "parent", kids[0].ParentID, run.ID())
	equal(t, "parent's step", kids[0].ParentStep, "kids")
	equal(t, "parent of the parent", e.runInfo(t, run.ID()).ParentID, 0)
	equal(t, "status of the step", e.step(t, run.ID(), "kids").Status, pgqrs.Succeeded)
}

func childFails(t *testing.T, e *env) {
	f := newFamily(e.store)
	var seen tally[string]
	parents := pgqrs.NewWorkflow[int, string](e.store, "parents")
	start(t, fast(f.doubles(), parents.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (string, error) {
		v, err := f.double.Child(ctx, run, "kid", n)
		if errors.Is(err, pgqrs.ErrSuspended) {
			return "", err
		}
		var failed *pgqrs.RunError
		if !errors.As(err, &failed) {
			return "", fmt.Errorf("not a *RunError: %w", err)
		}
		seen.add(fmt.Sprint(v, failed.Workflow, failed.RunID, failed.Step, err))
		return "went on", run.Sleep(ctx, "nap", time.Millisecond)
	})))
	run := launch(t, parents, -1)
	equal(t, "result", finished(t, run), "went on")
	kid := f.childRuns(t, e)[0]
	equal(t, "status of the child", kid.Status, pgqrs.Failed)
	all := seen.all()
	equalSlices(t, "what each execution saw", all, []string{all[0], all[0]})
	wantText(t, "error", all[0], fmt.Sprint("0doubles", kid.ID, "pgqrs"), "spilt: -1")
}

func childOrder(t *testing.T, e *env) {
	f := newFamily(e.store)
	errs := make(chan error, 1)
	start(t, fast(f.doubles(), f.parents.Handle(func(ctx context.Context, run *pgqrs.Run, in []int) ([]int, error) {
		out, err := f.double.Children(ctx, run, "kids", in)
		if !errors.Is(err, pgqrs.ErrSuspended) {
			errs <- err
		}
		return out, nil
	})))
	run := launch(t, f.parents, []int{3, -1, 1, -2, 2})
	equalSlices(t, "result", finished(t, run), []int{6, 0, 2, 0, 4})
	err := receive(t, "Children returns", errs)
	var failed *pgqrs.RunError
	equal(t, "whether a *RunError is found", errors.As(err, &failed), true)
	joined, ok := err.(interface{ Unwrap() []error })
	equal(t, "whether it is of several", ok, true)
	equal(t, "number of errors", len(joined.Unwrap()), 2)
	wantText(t, "errors", err.Error(), "spilt: -1", "spilt: -2")
}

func childOnce(t *testing.T, e *env) {
	store, net := e.farStore(t)
	f := newFamily(store)
	run := launch(t, newFamily(e.store).parents, []int{1, 2})
	net.just("pgqrs:message.release", func() { e.loseRun(t, run.ID()) })
	start(t, fast(f.handlers()...))
	equalSlices(t, "result", finished(t, run), []int{2, 4})
	equal(t, "number of children", len(f.childRuns(t, e)), 2)
}

func childMuted(t *testing.T, e *env) {
	store, net := e.farStore(t)
	f := newFamily(store)
	run := launch(t, newFamily(e.store).parents, []int{1, 2})
	fail, happened := once("pgqrs:step.save", muted)
	net.fail(fail)
	start(t, fast(f.parents.Handle(func(ctx context.Context, run *pgqrs.Run, in []int) ([]int, error) {
		return f.double.Children(ctx, run, "kids", in)
	})))
	receive(t, "the answer is lost", happened)
	asleep(t, e, run, "kids")
	start(t, fast(newFamily(e.store).doubles()))
	equalSlices(t, "result", finished(t, run), []int{2, 4})
	equal(t, "number of children", len(f.childRuns(t, e)), 2)
}

// stale runs a function of a workflow in two processes. The first execution loses its run at the
// beginning. It makes the call before the second execution does if first is true. Otherwise it
// makes the call while the second execution is suspended in it.
func stale[Out any](t *testing.T, e *env, first bool, call func(ctx context.Context, s *pgqrs.Store, run *pgqrs.Run) (Out, error)) *pgqrs.RunHandle[Out] {
	t.Helper()
	begun, gate, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	name := fmt.Sprint("stale ", first)
	slow := pgqrs.NewWorkflow[int, Out](e.store, name)
	worker := fast(slow.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (Out, error) {
		close(begun)
		<-gate
		out, err := call(ctx, e.store, run)
		ended <- err
		return out, err
	}))
	worker.Concurrency = 1 // it does not claim the run again
	stop := start(t, worker)
	h := launch(t, slow, 1)
	receive(t, "the first execution has begun", begun)
	e.loseRun(t, h.ID())
	second, going := make(chan struct{}, 10), make(chan struct{})
	goOn := sync.OnceFunc(func() { close(going) })
	defer goOn()
	s := e.newStore(t, pgqrs.Config{})
	start(t, fast(pgqrs.NewWorkflow[int, Out](s, name).Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (Out, error) {
		second <- struct{}{}
		<-going
		return call(ctx, s, run)
	})))
	receive(t, "the second execution has begun", second)
	if !first {
		goOn()
		eventually(t, "the second execution is asleep", func() bool { return e.info(t, e.runInfo(t, h.ID()).MessageID).State == pgqrs.Scheduled })
	}
	close(gate)
	wantError(t, receive(t, "the first execution is over", ended), pgqrs.ErrSuspended)
	goOn()
	must(t, stop())
	return h
}

func childStale(t *testing.T, e *env) {
	for _, first := range []bool{true, false} {
		h := stale(t, e, first, func(ctx context.Context, s *pgqrs.Store, run *pgqrs.Run) ([]int, error) {
			return newFamily(s).double.Children(ctx, run, "kids", []int{1, 2})
		})
		f := newFamily(e.store)
		stop := start(t, fast(f.doubles()))
		equalSlices(t, "result", finished(t, h), []int{2, 4})
		equal(t, "number of children", len(e.runIDs(t, pgqrs.RunFilter{Parent: h.ID()})), 2)
		must(t, stop())
	}
	equal(t, "number of all children", len(newFamily(e.store).childRuns(t, e)), 4)
}

func childSlot(t *testing.T, e *env) {
	f := newFamily(e.store)
	worker := fast(f.handlers()...)
	worker.Concurrency = 1
	start(t, worker)
	runs := []*pgqrs.RunHandle[[]int]{launch(t, f.parents, []int{1}), launch(t, f.parents, []int{2}), launch(t, f.parents, []int{3})}
	for i, run := range runs {
		equalSlices(t, "result", finished(t, run), []int{2 * (i + 1)})
		equal(t, "attempts of the parent", e.info(t, e.runInfo(t, run.ID()).MessageID).Attempt, 1)
	}
}

func childHundred(t *testing.T, e *env) {
	const n = 100
	f := newFamily(e.store)
	in, want := make([]int, n), make([]int, n)
	for i := range in {
		in[i], want[i] = i, 2*i
	}
	start(t, fast(f.handlers()...))
	run := launch(t, f.parents, in)
	equalSlices(t, "result", finished(t, run), want)
	equal(t, "number of children", len(f.childRuns(t, e)), n)
	equal(t, "claims of the parent", e.info(t, e.runInfo(t, run.ID()).MessageID).Claim, 2)
}

func childLastTwo(t *testing.T, e *env) {
	meet := make(chan struct{})
	for range 2 { // processes
		f := newFamily(e.newStore(t, pgqrs.Config{}))
		worker := fast(f.handlers()[0], f.double.Handle(func(ctx context.Context, _ *pgqrs.Run, n int) (int, error) {
			select { // each one continues when the other does
			case meet <- struct{}{}:
			case <-meet:
			case <-ctx.Done():
			}
			return 2 * n, nil
		}))
		worker.PollInterval = 2 * time.Millisecond
		start(t, worker)
	}
	f := newFamily(e.store)
	for range 20 {
		run := launch(t, f.parents, []int{1, 2})
		equalSlices(t, "result", finished(t, run), []int{2, 4})
	}
}

func childQuick(t *testing.T, e *env) {
	store, net := e.farStore(t)
	near := newFamily(e.store)
	run := launch(t, near.parents, []int{1})
	stop := func() {}
	net.just("pgqrs:message.release", func() {
		end := start(t, fast(near.doubles()))
		stop = func() { must(t, end()) }
		eventually(t, "the child has ended", func() bool {
			kids := near.childRuns(t, e)
			return len(kids) == 1 && kids[0].Status == pgqrs.Succeeded
		})
	})
	start(t, fast(newFamily(store).handlers()[0]))
	equalSlices(t, "result", finished(t, run), []int{2})
	stop()
}

// lineage returns a workflow that is its own child down to a depth, where it waits for a signal.
func lineage(s *pgqrs.Store) (*pgqrs.Workflow[int, string], pgqrs.Handler) {
	w := pgqrs.NewWorkflow[int, string](s, "lineage")
	return w, w.Handle(func(ctx context.Context, run *pgqrs.Run, depth int) (string, error) {
		if depth == 0 {
			return approved.Wait(ctx, run, 0)
		}
		below, err := w.Child(ctx, run, "below", depth-1)
		return fmt.Sprint(depth, " ", below), err
	})
}

// generations waits until the whole lineage is there, and returns it from the bottom up.
func generations(t *testing.T, e *env, n int) []pgqrs.RunInfo {
	t.Helper()
	list := func() []pgqrs.RunInfo {
		return value(e.store.Runs(t.Context(), pgqrs.RunFilter{Workflow: "lineage"}))(t)
	}
	eventually(t, fmt.Sprintf("there are %d generations", n), func() bool { return len(list()) == n })
	asleep(t, e, e.store.RunHandle(list()[0].ID), "approved#1")
	return list()
}

func childCancel(t *testing.T, e *env) {
	w, h := lineage(e.store)
	start(t, fast(h))
	run := launch(t, w, 2)
	all := generations(t, e, 3)
	must(t, run.Cancel(t.Context()))
	for _, r := range all {
		e.awaitRun(t, r.ID, pgqrs.Cancelled)
	}
}

func childCancelLate(t *testing.T, e *env) {
	w, h := lineage(e.store)
	start(t, fast(h))
	run := launch(t, w, 2)
	all := generations(t, e, 3)
	// As if Cancel had not seen the children yet.
	e.poke(t, "UPDATE pgqrs_workflow_runs SET status = 'CANCELLING' WHERE id = %d", run.ID())
	e.poke(t, "UPDATE pgqrs_messages SET vt = enqueued_at WHERE id = %d", e.runInfo(t, run.ID()).MessageID)
	for _, r := range all {
		e.awaitRun(t, r.ID, pgqrs.Cancelled)
	}
}

func childCancelled(t *testing.T, e *env) {
	w, h := lineage(e.store)
	start(t, fast(h))
	run := launch(t, w, 1)
	kid := generations(t, e, 2)[0]
	must(t, e.store.RunHandle(kid.ID).Cancel(t.Context()))
	info := e.awaitRun(t, run.ID(), pgqrs.Failed)
	wantText(t, "error", info.Error, fmt.Sprintf("run %d of workflow %q", kid.ID, "lineage"), "cancelled")
}

func childCancelledUnstarted(t *testing.T, e *env) {
	f := newFamily(e.store)
	results := make(chan error, 1)
	start(t, fast(f.parents.Handle(func(ctx context.Context, run *pgqrs.Run, in []int) ([]int, error) {
		out, err := f.double.Children(ctx, run, "kids", in)
		if !errors.Is(err, pgqrs.ErrSuspended) {
			results <- err
		}
		return out, nil
	})))
	run := launch(t, f.parents, []int{1, 2})
	asleep(t, e, run, "kids")
	for _, kid := range f.childRuns(t, e) {
		must(t, e.store.RunHandle(kid.ID).Cancel(t.Context()))
	}
	equalSlices(t, "result", finished(t, run), []int{0, 0})
	wantError(t, receive(t, "Children returns", results), pgqrs.ErrCancelled)
}

func childListed(t *testing.T, e *env) {
	w, h := lineage(e.store)
	f := newFamily(e.store)
	start(t, fast(append(f.handlers(), h)...))
	finished(t, launch(t, f.parents, []int{1})) // a child of another run
	parent := launch(t, f.parents, []int{1, -1, 2})
	e.awaitRun(t, parent.ID(), pgqrs.Failed)
	kids := f.childRuns(t, e)[:3]
	equalSlices(t, "children", e.runIDs(t, pgqrs.RunFilter{Parent: parent.ID()}), []int64{kids[0].ID, kids[1].ID, kids[2].ID})
	equalSlices(t, "those that failed", e.runIDs(t, pgqrs.RunFilter{Parent: parent.ID(), Status: pgqrs.Failed}), []int64{kids[1].ID})
	equalSlices(t, "those of another workflow", e.runIDs(t, pgqrs.RunFilter{Parent: parent.ID(), Workflow: "parents"}), []int64{})
	equalSlices(t, "the first page", e.runIDs(t, pgqrs.RunFilter{Parent: parent.ID(), Limit: 2}), []int64{kids[0].ID, kids[1].ID})
	equalSlices(t, "the second page", e.runIDs(t, pgqrs.RunFilter{Parent: parent.ID(), Limit: 2, Before: kids[1].ID}), []int64{kids[2].ID})
	equalSlices(t, "children of a child", e.runIDs(t, pgqrs.RunFilter{Parent: kids[0].ID}), []int64{})

	eldest := launch(t, w, 2)
	line := generations(t, e, 3)
	equalSlices(t, "children without theirs", e.runIDs(t, pgqrs.RunFilter{Parent: eldest.ID()}), []int64{line[1].ID})
	must(t, eldest.Cancel(t.Context()))
	e.awaitRun(t, line[0].ID, pgqrs.Cancelled)
}

func childRecursion(t *testing.T, e *env) {
	w, h := lineage(e.store)
	worker := fast(h)
	worker.Concurrency = 1
	start(t, worker)
	run := launch(t, w, 3)
	must(t, approved.Send(t.Context(), e.store, generations(t, e, 4)[0].ID, "bottom"))
	equal(t, "result", finished(t, run), "3 2 1 bottom")
}

func childRefused(t *testing.T, e *env) {
	hopeless := pgqrs.NewWorkflow[any, int](e.store, "doubles")
	parents := pgqrs.NewWorkflow[int, int](e.store, "parents")
	tries := map[int]func(context.Context, *pgqrs.Run) error{
		0: func(ctx context.Context, run *pgqrs.Run) error {
			_, err := hopeless.Child(ctx, run, "kid", 1, pgqrs.Key("k"))
			return err
		},
		1: func(ctx context.Context, run *pgqrs.Run) error {
			_, err := hopeless.Children(ctx, run, "kid", []any{1, 2}, pgqrs.Each(func(int) []pgqrs.Option { return []pgqrs.Option{pgqrs.Unique("k")} }))
			return err
		},
		2: func(ctx context.Context, run *pgqrs.Run) error {
			_, err := hopeless.Children(ctx, run, "kid", []any{1, make(chan int)})
			return err
		},
		3: func(ctx context.Context, run *pgqrs.Run) error {
			_, err := hopeless.Child(ctx, run, "kid", 1, pgqrs.Priority(9))
			return err
		},
	}
	start(t, fast(parents.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
		return 0, tries[n](ctx, run)
	})))
	for n, want := range []string{"key", "key", "chan int", "priority"} {
		run := launch(t, parents, n)
		info := e.awaitRun(t, run.ID(), pgqrs.Failed)
		wantText(t, "error", info.Error, want)
		equal(t, "executions", e.info(t, info.MessageID).Claim, 1)
		equal(t, "number of children", len(newFamily(e.store).childRuns(t, e)), 0)
	}
}

func childNone(t *testing.T, e *env) {
	f := newFamily(e.store)
	start(t, fast(f.handlers()...))
	run := launch(t, f.parents, []int{})
	equal(t, "number of results", len(finished(t, run)), 0)
	equal(t, "claims", e.info(t, e.runInfo(t, run.ID()).MessageID).Claim, 1)
}
