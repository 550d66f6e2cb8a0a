package pgqrs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// maxBranchWait is how long a branch that only a wake-up continues may wait for branches with work.
const maxBranchWait = time.Minute

// A branch is one function of an All. The execution's mu guards its fields.
type branch struct {
	run                  *execution
	parent               *branch // nil if the run's function called All
	path                 string  // unique in the run, and the same in every execution
	alls                 int     // calls of All so far
	suspension           *suspension
	until                time.Time // when the suspension ends
	callsAfterSuspension int
	cancelNotified       bool // whether it was notified of the run's cancellation
}

type branchKey struct{} // its value is a *branch

// branchOf returns the branch of a ctx, or nil if the ctx belongs to the run's function.
func (e *execution) branchOf(ctx context.Context) *branch {
	b, _ := ctx.Value(branchKey{}).(*branch)
	if b == nil || b.run != e {
		return nil
	}
	return b
}

// All calls functions as branches of the run, each in its own goroutine, and returns when all of
// them have returned. A wait in one branch does not stop the others. Waits are a Sleep, a Wait, a
// Child, or a step that is to be tried again. The call that waits returns an error matching
// ErrSuspended, and so does every later call of that branch. All returns such an error once each
// branch has ended or waits, and the run is suspended until the first wait is over. Then the
// function and its branches run again, with the recorded results.
//
// A branch has to make its calls with the ctx that it gets. Branches share the names of steps.
// Signals are numbered by branch: the first Wait of the second branch of the first All is recorded
// as "approved@1.2#1". Version belongs before All, and returns an error matching ErrState in a
// branch.
//
// While other branches have steps to run, a wait that is over ends between two steps of them. If
// only a signal or a child can end it, that takes up to a minute.
//
// All returns the errors of all branches, joined in their order. A panic is an error. An error of
// one branch does not stop the others. When the run is cancelled, each branch gets ErrCancelled
// from its next call (see [ErrCancelled]).
func (r *Run) All(ctx context.Context, branches ...func(context.Context) error) error {
	if err := r.checkNotNested(ctx, "All"); err != nil {
		return err
	}
	parent := r.branchOf(ctx)
	list, err := r.newBranches(parent, len(branches))
	if err != nil {
		return err
	}
	errs := make([]error, len(branches))
	var running sync.WaitGroup
	running.Add(len(branches))
	for i, fn := range branches {
		own := context.WithValue(ctx, branchKey{}, list[i])
		go func() {
			defer running.Done()
			errs[i] = foreign.ErrGoexit // unless fn returns or panics
			if bad := foreign.Catch(func() { errs[i] = fn(own) }); bad != nil {
				errs[i] = bad
			}
		}()
	}
	running.Wait()
	return r.endBranches(parent, list, errs)
}

// newBranches returns the branches of a call of All.
func (e *execution) newBranches(parent *branch, n int) ([]*branch, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if stop := e.suspensionOf(parent); stop != nil {
		return nil, stop
	}
	path, count, told := "", &e.alls, e.cleanUp
	if parent != nil {
		path, count, told = parent.path+".", &parent.alls, parent.cancelNotified
	}
	*count++
	list := make([]*branch, n)
	for i := range list {
		list[i] = &branch{run: e, parent: parent, path: fmt.Sprintf("%s%d.%d", path, *count, i+1), cancelNotified: told}
	}
	return list, nil
}

// endBranches suspends the caller of All if a branch waits. Otherwise it returns the errors of the
// branches.
func (e *execution) endBranches(parent *branch, list []*branch, errs []error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if stop := e.suspensionOf(parent); stop != nil {
		return stop
	}
	var first *branch
	for _, b := range list {
		if b.suspension != nil && (first == nil || b.until.Before(first.until)) {
			first = b
		}
	}
	if first != nil {
		return e.suspendBranchLocked(parent, time.Until(first.until))
	}
	return errors.Join(errs...)
}

// suspensionOf returns the suspension of a branch, of one that it is part of, or of the run. It
// returns nil if none of them is suspended. The caller holds e.mu.
func (e *execution) suspensionOf(b *branch) error {
	if e.suspension != nil {
		return e.suspension
	}
	for ; b != nil; b = b.parent {
		if b.suspension != nil {
			return b.suspension
		}
	}
	return nil
}

// wait suspends the branch of a ctx, or the run if ctx belongs to its function.
func (e *execution) wait(ctx context.Context, after time.Duration) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.suspendBranchLocked(e.branchOf(ctx), after)
}

func (e *execution) suspendBranchLocked(b *branch, after time.Duration) error {
	if b == nil {
		return e.suspendLocked(after, nil)
	}
	if stop := e.suspensionOf(b); stop != nil {
		return stop
	}
	after = max(0, after)
	now := time.Now()
	b.suspension, b.until = &suspension{after: after}, now.Add(after)
	if due := now.Add(min(after, maxBranchWait)); e.branchDue.IsZero() || due.Before(e.branchDue) {
		e.branchDue = due
	}
	return b.suspension
}

// replayCancel records that a branch was notified of the cancellation by a recorded step.
func (e *execution) replayCancel(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.branchOf(ctx); b != nil {
		b.cancelNotified = true
	}
}

// branchWaits reports whether the wait of a branch is over while other branches have work. The
// caller holds e.mu.
func (e *execution) branchWaits() bool {
	return !e.branchDue.IsZero() && !time.Now().Before(e.branchDue)
}
