package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var workflowVersionCases = []testcase{
	{"Version gives new runs the new version, and keeps it when the code moves on", "a run would change its course with every deploy", versionKept},
	{"Version is 0 for runs that have come past it, and stays 0", "a live run would do a new step where it has long done what follows", versionPassed},
	{"Version is 0 while a step after it waits for a signal, a child, a retry or the end of a sleep, and after a Retry of it", "the old branch and the new one would both run, and charge twice", versionPending},
	{"a version less than 1 is refused", "0 would mean both the old way and the new", versionRefused},
	{"a new step before recorded ones is reported, in the log and by Info", "a deploy would break live runs, and nobody would know why", versionInserted},
	{"recorded steps that the code no longer asks for are reported, in the log and by Info", "a deploy would break live runs, and nobody would know why", versionDropped},
	{"steps that run at once may come back in any order, without a warning", "the warning that matters would drown in false ones", versionConcurrent},
}

// deploy runs a run by one version of its code up to a crash, and then by another version to its
// end.
func (e *env) deploy(t *testing.T, before, after func(ctx context.Context, run *pgqrs.Run) error) pgqrs.RunInfo {
	t.Helper()
	w := fast(play(e.store, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		if execution > 1 {
			return receipt{}, after(ctx, run)
		}
		if err := before(ctx, run); err != nil {
			return receipt{}, err
		}
		e.loseRun(t, run.ID())
		return receipt{}, nil // too late
	}))
	w.Concurrency = 1
	h := e.run(t)
	stop := start(t, w)
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	must(t, stop())
	return e.runInfo(t, h.ID())
}

// walk returns code that calls the named steps.
func walk(names ...string) func(ctx context.Context, run *pgqrs.Run) error {
	return func(ctx context.Context, run *pgqrs.Run) error {
		for _, name := range names {
			if err := run.Do(ctx, name, func(context.Context) error { return nil }); err != nil {
				return err
			}
		}
		return nil
	}
}

// versioned is like walk, with a Version between the two steps, which it records in seen.
func versioned(seen *tally[int], version int, first, last string) func(ctx context.Context, run *pgqrs.Run) error {
	return func(ctx context.Context, run *pgqrs.Run) error {
		if err := walk(first)(ctx, run); err != nil {
			return err
		}
		v, err := run.Version(ctx, "fraud-check", version)
		if err != nil {
			return err
		}
		seen.add(v)
		return walk(last)(ctx, run)
	}
}

func versionKept(t *testing.T, e *env) {
	var seen tally[int]
	r := e.deploy(t, versioned(&seen, 1, "a", "b"), versioned(&seen, 2, "a", "b"))
	equalSlices(t, "versions", seen.all(), []int{1, 1})
	sameJSON(t, e.step(t, r.ID, "version:fraud-check").Output, "1")
	equal(t, "warning", r.Warning, "")
	// A run that has not reached that point uses the new version.
	var later tally[int]
	r = e.deploy(t, walk("a"), versioned(&later, 2, "a", "b"))
	equalSlices(t, "versions of a run that was before it", later.all(), []int{2})
	equal(t, "warning of that run", r.Warning, "")
}

func versionPassed(t *testing.T, e *env) {
	var seen tally[int]
	r := e.deploy(t, walk("a", "b"), func(ctx context.Context, run *pgqrs.Run) error {
		if err := versioned(&seen, 1, "a", "b")(ctx, run); err != nil || seen.len() > 1 {
			return err
		}
		e.loseRun(t, run.ID())
		return nil
	})
	equalSlices(t, "versions", seen.all(), []int{0, 0})
	equal(t, "warning", r.Warning, "")
	equal(t, "steps", len(value(e.store.RunHandle(r.ID).Steps(t.Context()))(t)), 2)
}

func versionPending(t *testing.T, e *env) {
	kids := pgqrs.NewWorkflow[int, int](e.store, "kids") // no worker handles it
	pending := map[string]func(ctx context.Context, run *pgqrs.Run) error{
		"nap":        func(ctx context.Context, run *pgqrs.Run) error { return run.Sleep(ctx, "nap", time.Hour) },
		"approved#1": func(ctx context.Context, run *pgqrs.Run) error { _, err := approved.Wait(ctx, run, 0); return err },
		"kid":        func(ctx context.Context, run *pgqrs.Run) error { _, err := kids.Child(ctx, run, "kid", 1); return err },
		"retried": func(ctx context.Context, run *pgqrs.Run) error {
			return run.Do(ctx, "retried", func(context.Context) error { return pgqrs.RetryAfter(time.Hour, errBoom) })
		},
		"failed": func(ctx context.Context, run *pgqrs.Run) error {
			return run.Do(ctx, "failed", func(context.Context) error { return pgqrs.Permanent(errBoom) })
		},
	}
	for step, old := range pending {
		var seen tally[int]
		stop := start(t, fast(play(e.store, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
			if execution == 1 {
				return receipt{}, old(ctx, run)
			}
			v, err := run.Version(ctx, "by-step", 1)
			if err != nil {
				return receipt{}, err
			}
			seen.add(v)
			if v == 0 {
				return receipt{}, old(ctx, run)
			}
			return receipt{}, walk("new")(ctx, run)
		})))
		h := e.run(t)
		if step == "failed" {
			e.awaitRun(t, h.ID(), pgqrs.Failed)
			must(t, h.Retry(t.Context()))
		} else {
			asleep(t, e, h, step)
			e.poke(t, "UPDATE pgqrs_messages SET vt = enqueued_at WHERE id = %d", e.runInfo(t, h.ID()).MessageID)
		}
		eventually(t, "the new code runs", func() bool { return seen.len() > 0 })
		must(t, stop())
		equal(t, "version while "+step+" is under way", seen.all()[0], 0)
		equal(t, "recorded steps", len(value(h.Steps(t.Context()))(t)), 1)
	}
}

func versionRefused(t *testing.T, e *env) {
	errs := make(chan error, 2)
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		for _, v := range []int{0, -1} {
			_, err := run.Version(ctx, "change", v)
			errs <- err
		}
		return receipt{}, nil
	})
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	for range 2 {
		err := <-errs
		wantErrorText(t, err, `"change"`)
		equal(t, "whether the run is suspended", errors.Is(err, pgqrs.ErrSuspended), false)
	}
}

// wantWarning fails the test unless a run has one warning, in the log too.
func (e *env) wantWarning(t *testing.T, r pgqrs.RunInfo, parts ...string) {
	t.Helper()
	wantText(t, "warning", r.Warning, parts...)
	found := 0
	for line := range strings.Lines(e.log.String()) {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, "the code has changed") && strings.Contains(line, fmt.Sprintf("run=%d", r.ID)) {
			found++
		}
	}
	equal(t, "warnings in the log", found, 1)
}

func versionInserted(t *testing.T, e *env) {
	r := e.deploy(t, walk("a", "b", "c"), walk("a", "new", "newer", "b", "c"))
	e.wantWarning(t, r, `"new"`, `["b" "c"]`)
	r = e.deploy(t, walk("a", "b"), walk("a", "b", "new"))
	equal(t, "warning of a run with a step at its end", r.Warning, "")
}

func versionDropped(t *testing.T, e *env) {
	r := e.deploy(t, walk("a", "b", "c", "d"), walk("a", "c"))
	e.wantWarning(t, r, `["b" "d"]`, "not asked for")
	r = e.deploy(t, walk("a"), walk("a"))
	equal(t, "warning of a run whose code is the same", r.Warning, "")
}

func versionConcurrent(t *testing.T, e *env) {
	r := e.deploy(t, walk("a", "b", "c"), func(ctx context.Context, run *pgqrs.Run) error {
		asked, passed, beside := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			beside <- run.Do(ctx, "slow", func(context.Context) error { // the crash had interrupted it
				close(asked)
				<-passed
				return nil
			})
		}()
		<-asked
		err := walk("a", "b", "c")(ctx, run)
		close(passed)
		return errors.Join(err, <-beside)
	})
	equal(t, "warning", r.Warning, "")
}
