package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

var deletedCases = []testcase{
	{"a parent goes on when its last child is deleted, with an error in that child's place", "the parent would wait for ever, or take a child that is gone for one that has succeeded", deletedChild},
	{"a child that has ended and is deleted is an error in its own place, and the others keep theirs", "a parent would take one child's result for another's", deletedEnded},
	{"Purge spares children of a parent that has not ended, archived and dead ones, and takes them when it has", "an operator who clears the history would take results away from runs", deletedPurged},
	{"Purge of children that wait ends them for their parent", "the parent would wait for ever", deletedPurgedWaiting},
	{"Retry of a parent whose children were deleted starts no others", "an order would be sent twice", deletedRetried},
	{"children that a former version has started keep their places, and none has a place if some were deleted", "a run that is under way during an upgrade would get results in wrong places", deletedFormer},
	{"a function that asks for another number of children than it has started gets an error", "its results would belong to other inputs", deletedMiscounted},
	{"a deleted child and the last one to end, at the same moment, wake their parent", "each would leave the waking to the other, and the parent wait for ever", deletedAtOnce},
}

// A nursery is a parent that waits for children. A child returns the double of its input as soon as
// the gate allows.
type nursery struct {
	*family
	run  *pgqrs.RunHandle[[]int]
	kids []pgqrs.RunInfo // in the order of the inputs
	errs chan error      // the error of Children
	gate chan struct{}   // of children
	stop func() error    // the parent's worker
}

// newNursery starts a parent with n children. No worker handles the children yet.
func newNursery(t *testing.T, e *env, n int) *nursery {
	t.Helper()
	y := &nursery{family: newFamily(e.store), errs: make(chan error, 10), gate: make(chan struct{}, 100)}
	y.stop = start(t, fast(y.parents.Handle(func(ctx context.Context, run *pgqrs.Run, in []int) ([]int, error) {
		out, err := y.double.Children(ctx, run, "kids", in)
		if errors.Is(err, pgqrs.ErrSuspended) {
			return nil, err
		}
		y.errs <- err
		return out, nil
	})))
	in := make([]int, n)
	for i := range in {
		in[i] = i + 1
	}
	y.run = launch(t, y.parents, in)
	asleep(t, e, y.run, "kids")
	all := value(e.store.Runs(t.Context(), pgqrs.RunFilter{Parent: y.run.ID()}))(t)
	for i := range all {
		y.kids = append(y.kids, all[len(all)-1-i])
	}
	return y
}

// work starts a worker for the children. A child for which waits returns true waits at the gate.
func (y *nursery) work(t *testing.T, waits func(n int) bool) (stop func() error) {
	t.Helper()
	return start(t, fast(y.double.Handle(func(ctx context.Context, _ *pgqrs.Run, n int) (int, error) {
		if waits(n) {
			select {
			case <-y.gate:
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		return 2 * n, nil
	})))
}

// third reports whether a child's input is 3.
func third(n int) bool { return n == 3 }

// wantResults waits until the parent ends, and checks its results.
func (y *nursery) wantResults(t *testing.T, results []int, deleted ...int) {
	t.Helper()
	equalSlices(t, "results", finished(t, y.run), results)
	err := receive(t, "Children returns", y.errs)
	if len(deleted) == 0 {
		must(t, err)
		return
	}
	wantError(t, err, pgqrs.ErrNotFound)
	joined, _ := err.(interface{ Unwrap() []error })
	equal(t, "number of errors", len(joined.Unwrap()), len(deleted))
	for i, err := range joined.Unwrap() {
		var failed *pgqrs.RunError
		equal(t, "whether it is a *RunError", errors.As(err, &failed), true)
		equal(t, "run and workflow", fmt.Sprint(failed.RunID, failed.Workflow), fmt.Sprint(y.kids[deleted[i]].ID, "doubles"))
	}
}

func (y *nursery) remove(t *testing.T, e *env, n int) {
	t.Helper()
	equal(t, "messages deleted", value(e.store.Delete(t.Context(), y.kids[n].MessageID))(t), 1)
}

func deletedChild(t *testing.T, e *env) {
	y := newNursery(t, e, 1)
	y.remove(t, e, 0)
	y.wantResults(t, []int{0}, 0)
}

func deletedEnded(t *testing.T, e *env) {
	y := newNursery(t, e, 3)
	y.work(t, third)
	for _, n := range []int{0, 1} {
		e.awaitRun(t, y.kids[n].ID, pgqrs.Succeeded)
	}
	y.remove(t, e, 0)
	y.gate <- struct{}{}
	y.wantResults(t, []int{0, 4, 6}, 0)
}

func deletedPurged(t *testing.T, e *env) {
	y := newNursery(t, e, 3)
	// As if so many workers had died while handling it.
	e.poke(t, "UPDATE pgqrs_messages SET read_ct = 5 WHERE id = %d", y.kids[1].MessageID)
	y.work(t, third)
	e.awaitRun(t, y.kids[0].ID, pgqrs.Succeeded)
	e.awaitRun(t, y.kids[1].ID, pgqrs.Failed)
	states := map[pgqrs.MessageState]int64{pgqrs.Archived: 2, pgqrs.Dead: 1}
	for state := range states {
		equal(t, "purged while the parent waits", value(e.store.Purge(t.Context(), "doubles", state))(t), 0)
	}
	y.gate <- struct{}{}
	equalSlices(t, "results", finished(t, y.run), []int{2, 0, 6})
	err := receive(t, "Children returns", y.errs)
	equal(t, "whether a child is taken for deleted", errors.Is(err, pgqrs.ErrNotFound), false)
	wantText(t, "error", err.Error(), "ended without an answer")
	for state, want := range states {
		equal(t, "purged when the parent has ended", value(e.store.Purge(t.Context(), "doubles", state))(t), want)
	}
	equal(t, "children that are left", len(y.childRuns(t, e)), 0)
}

func deletedPurgedWaiting(t *testing.T, e *env) {
	y := newNursery(t, e, 2)
	equal(t, "purged", value(e.store.Purge(t.Context(), "doubles", pgqrs.Ready))(t), 2)
	y.wantResults(t, []int{0, 0}, 0, 1)
}

func deletedRetried(t *testing.T, e *env) {
	y := newNursery(t, e, 2)
	e.poke(t, "UPDATE pgqrs_messages SET read_ct = 5 WHERE id = %d", e.runInfo(t, y.run.ID()).MessageID)
	must(t, approved.Send(t.Context(), e.store, y.run.ID(), "wake up"))
	e.awaitRun(t, y.run.ID(), pgqrs.Failed)
	equal(t, "purged", value(e.store.Purge(t.Context(), "doubles", pgqrs.Ready))(t), 2)
	must(t, y.run.Retry(t.Context()))
	y.wantResults(t, []int{0, 0}, 0, 1)
	equal(t, "children", len(y.childRuns(t, e)), 0)
}

func deletedFormer(t *testing.T, e *env) {
	for _, removed := range []bool{false, true} {
		y := newNursery(t, e, 2)
		e.poke(t, "UPDATE pgqrs_workflow_steps SET output = NULL WHERE run_id = %d", y.run.ID())
		if removed {
			y.remove(t, e, 0)
		}
		stop := start(t, fast(y.doubles()))
		if !removed {
			y.wantResults(t, []int{2, 4})
		} else {
			equalSlices(t, "results", finished(t, y.run), []int{0, 0})
			wantError(t, receive(t, "Children returns", y.errs), pgqrs.ErrNotFound)
		}
		must(t, errors.Join(stop(), y.stop()))
	}
}

func deletedMiscounted(t *testing.T, e *env) {
	f := newFamily(e.store)
	errs := make(chan error, 1)
	n := 2
	start(t, fast(f.parents.Handle(func(ctx context.Context, run *pgqrs.Run, _ []int) ([]int, error) {
		out, err := f.double.Children(ctx, run, "kids", make([]int, n))
		if errors.Is(err, pgqrs.ErrSuspended) {
			n = 3
			return nil, err
		}
		errs <- err
		return out, nil
	}), f.doubles()))
	equalSlices(t, "results", finished(t, launch(t, f.parents, nil)), []int{0, 0, 0})
	err := receive(t, "Children returns", errs)
	wantError(t, err, pgqrs.ErrState)
	wantText(t, "error", err.Error(), "2 children", "asked for 3")
}

func deletedAtOnce(t *testing.T, e *env) {
	for range 10 {
		y := newNursery(t, e, 2)
		stop := y.work(t, func(int) bool { return true })
		e.awaitState(t, y.kids[0].MessageID, pgqrs.Leased)
		e.awaitState(t, y.kids[1].MessageID, pgqrs.Leased)
		y.gate <- struct{}{}
		y.gate <- struct{}{}
		y.remove(t, e, 0)
		results := finished(t, y.run)
		equal(t, "number of results", len(results), 2)
		equal(t, "result of the other", results[1], 4)
		must(t, errors.Join(stop(), y.stop()))
	}
}
