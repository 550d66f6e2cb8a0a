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

var workflowRetryCases = []testcase{
	{"a failed step is tried again by its policy, in another process too, and meanwhile holds no slot and burns no attempt", "one broken gateway would block every worker, and bury its runs in the dead letters", stepRetry},
	{"an error is final after the last attempt or Permanent, and is the same *RunError now and on replay", "a run would compensate now, and go on after a crash", stepFinal},
	{"RetryAfter and Snooze in a step set the delay, and Snooze does not count", "a gateway's own advice would be ignored, or waiting for it end the run", stepDelays},
	{"a panic in a step is an error of the step, with its stack", "a bug in one step would take the process down", stepPanic},
	{"a result that does not marshal is a permanent failure of its step", "a step would be repeated for ever, effect and all", stepUnmarshalable},
	{"a step whose caller ends its ctx has not failed: nothing of it is recorded, and it is not tried again", "the sibling of a failed step would be tried again three times, and be recorded as failed", stepCutShort},
	{"Policy.Timeout ends an attempt of a step with the cause ErrTimeout, which its final error matches", "a step that hangs would hold its slot for ever", stepTimeout},
}

func stepRetry(t *testing.T, e *env) {
	var attempts, refunds tally[string]
	hours := pgqrs.Policy{MaxAttempts: 3, Backoff: func(attempt int) time.Duration { return time.Duration(attempt) * time.Hour }}
	failing := func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		v, err := pgqrs.Step(ctx, run.With(hours), "charge", func(context.Context) (int, error) {
			attempts.add("charge")
			if attempts.len() < 3 {
				return 0, errBoom
			}
			return 7, nil
		})
		if err != nil && !errors.Is(err, pgqrs.ErrSuspended) {
			refunds.add(err.Error())
		}
		return receipt{"tea", v}, err
	}
	other := pgqrs.NewQueue[string](e.store, "other")
	plain, got := handling(other)
	w := fast(play(e.store, failing), plain)
	w.Concurrency = 1
	stop := start(t, w)
	h := e.run(t)
	waits := func(attempt int) {
		t.Helper()
		eventually(t, "the step waits for its next attempt", func() bool {
			return attempts.len() == attempt && e.stats(t, "orders").Scheduled == 1
		})
		r := e.runInfo(t, h.ID())
		equal(t, "status", r.Status, pgqrs.Running)
		equal(t, "attempts of the message", r.Attempts, 0)
		s := e.step(t, h.ID(), "charge")
		equal(t, "step's status", s.Status, pgqrs.Failed)
		equal(t, "retries", s.Retries, attempt)
		equal(t, "error", s.Error, "boom")
		stillWaits(t, s, time.Duration(attempt)*time.Hour)
	}
	waits(1)
	enqueue(t, other, "x")
	receive(t, "the only slot is free", got)
	must(t, stop())
	e.loseRun(t, h.ID()) // delivered too early
	start(t, fast(play(e.newStore(t, pgqrs.Config{}), failing)))
	waits(1)
	e.later(t, time.Hour)
	waits(2)
	e.later(t, 2*time.Hour)
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 7})
	equal(t, "retries in the end", e.step(t, h.ID(), "charge").Retries, 2)
	equal(t, "error in the end", e.step(t, h.ID(), "charge").Error, "")
	equalSlices(t, "refunds", refunds.all(), nil)
}

func stepFinal(t *testing.T, e *env) {
	for what, c := range map[string]struct {
		err   error
		tries int
		match error
	}{
		"exhausted": {errBoom, 2, nil},
		"permanent": {fmt.Errorf("wrapped: %w", pgqrs.Permanent(errBoom)), 1, pgqrs.ErrPermanent},
		// A sentinel of the library is recorded only if it is about attempts.
		"not found": {pgqrs.ErrNotFound, 2, nil},
	} {
		var attempts, seen, refunds tally[string]
		w := pgqrs.NewWorkflow[int, int](e.store, what)
		var executions gauge
		stop := start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (int, error) {
			_, err := pgqrs.Step(ctx, run.With(atOnce(2)), "charge", func(context.Context) (int, error) {
				attempts.add(what)
				return 0, c.err
			})
			if err == nil || errors.Is(err, pgqrs.ErrSuspended) {
				return 0, err
			}
			var failed *pgqrs.RunError
			if !errors.As(err, &failed) || failed.Step != "charge" || failed.RunID != run.ID() || failed.Workflow != what {
				failed = &pgqrs.RunError{}
			}
			seen.add(fmt.Sprintf("%v|%v|%v|%v|%v", err, failed.Err, errors.Is(err, errBoom), errors.Is(err, pgqrs.ErrNotFound),
				c.match != nil && errors.Is(err, c.match)))
			if refund := run.Do(ctx, "refund", func(context.Context) error { refunds.add(what); return nil }); refund != nil {
				return 0, refund
			}
			if executions.add(1); seen.len() == 1 {
				e.loseRun(t, run.ID())
			}
			if next := run.Do(ctx, "next", func(context.Context) error { return nil }); next != nil {
				return 0, next
			}
			return 0, err
		})))
		h := value(w.Start(t.Context(), 1))(t)
		r := e.awaitRun(t, h.ID(), pgqrs.Failed)
		must(t, stop())
		equal(t, "attempts of "+what, attempts.len(), c.tries)
		want := fmt.Sprintf("pgqrs: step %q of run %d of workflow %q: %s|%v|false|false|%v", "charge", h.ID(), what,
			strings.TrimPrefix(c.err.Error(), "pgqrs: "), c.err, c.match != nil)
		equalSlices(t, "errors of "+what, seen.all(), []string{want, want})
		equal(t, "refunds", refunds.len(), 1)
		equal(t, "step's status", e.step(t, h.ID(), "charge").Status, pgqrs.Failed)
		equal(t, "step's wait", e.step(t, h.ID(), "charge").RetryIn, 0)
		wantText(t, "the run's error", r.Error, `step "charge"`, strings.TrimPrefix(c.err.Error(), "pgqrs: "))
	}
}

func stepDelays(t *testing.T, e *env) {
	script := []error{pgqrs.RetryAfter(5*time.Hour, errBoom), pgqrs.Snooze(6 * time.Hour), fmt.Errorf("not now: %w", pgqrs.Snooze(7*time.Hour)), nil}
	var attempts tally[int]
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		return receipt{}, run.With(pgqrs.Policy{MaxAttempts: 2}).Do(ctx, "call", func(context.Context) error {
			attempts.add(1)
			return script[attempts.len()-1]
		})
	})
	for i, hours := range []time.Duration{5, 6, 7} {
		eventually(t, "the step waits", func() bool { return attempts.len() == i+1 && e.stats(t, "orders").Scheduled == 1 })
		s := e.step(t, h.ID(), "call")
		equal(t, "retries", s.Retries, 1)
		stillWaits(t, s, hours*time.Hour)
		e.later(t, hours*time.Hour)
	}
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
}

// stillWaits fails the test unless a step has to wait for the given time, or up to a minute less.
// SQLite's times are accurate to some 40 us, so the wait may be a little longer.
func stillWaits(t *testing.T, s pgqrs.StepInfo, want time.Duration) {
	t.Helper()
	if s.RetryIn > want+time.Millisecond || s.RetryIn < want-time.Minute {
		t.Errorf("step %q has yet to wait for %v; want %v, or a little less", s.Name, s.RetryIn, want)
	}
}

func stepPanic(t *testing.T, e *env) {
	var attempts tally[int]
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		return receipt{}, run.With(atOnce(2)).Do(ctx, "bug", func(context.Context) error {
			attempts.add(1)
			panic(errBoom)
		})
	})
	r := e.awaitRun(t, h.ID(), pgqrs.Failed)
	equal(t, "attempts", attempts.len(), 2)
	wantText(t, "the run's error", r.Error, `step "bug"`, "panic: boom", "stepPanic")
}

func stepUnmarshalable(t *testing.T, e *env) {
	for name, v := range map[string]any{"channel": make(chan int), "nul": "a\x00b", "large": strings.Repeat("x", 2<<20)} {
		w := pgqrs.NewWorkflow[int, int](e.store, name)
		var attempts tally[int]
		failures := make(chan error, 10)
		start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (int, error) {
			_, err := pgqrs.Step(ctx, run, "bad", func(context.Context) (any, error) {
				attempts.add(1)
				return v, nil
			})
			failures <- err
			return 0, err
		})))
		h := value(w.Start(t.Context(), 1))(t)
		r := e.awaitRun(t, h.ID(), pgqrs.Failed)
		equal(t, "attempts", attempts.len(), 1)
		wantError(t, <-failures, pgqrs.ErrPermanent)
		wantText(t, "error", r.Error, `step "bad"`, "invalid payload")
		equal(t, "step's status", e.step(t, h.ID(), "bad").Status, pgqrs.Failed)
	}
}

func stepTimeout(t *testing.T, e *env) {
	causes := make(chan error, 2)
	finals := make(chan error, 2)
	p := atOnce(2)
	p.Timeout = 10 * time.Millisecond
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		err := run.With(p).Do(ctx, "hangs", func(ctx context.Context) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return ctx.Err()
		})
		finals <- err
		return receipt{}, err
	})
	r := e.awaitRun(t, h.ID(), pgqrs.Failed)
	for range 2 {
		wantError(t, <-causes, pgqrs.ErrTimeout)
	}
	wantError(t, <-finals, pgqrs.ErrSuspended)
	final := <-finals
	wantError(t, final, pgqrs.ErrTimeout)
	if errors.Is(final, pgqrs.ErrSuspended) || errors.Is(final, context.DeadlineExceeded) {
		t.Errorf("the final error matches more than ErrTimeout: %v", final)
	}
	wantText(t, "error", r.Error, "timeout after 10ms")
}

// outOfTime is a ctx whose deadline passes when the ctx in it is cancelled.
type outOfTime struct{ context.Context }

// Err implements [context.Context].
func (c outOfTime) Err() error {
	if c.Context.Err() == nil {
		return nil
	}
	return context.DeadlineExceeded
}

func stepCutShort(t *testing.T, e *env) {
	count := e.effects(t)
	ends := map[string]func(context.Context) (context.Context, context.CancelFunc){
		"cancelled": context.WithCancel,
		"timed out": func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			return outOfTime{ctx}, cancel
		},
		"with a cause": func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			return ctx, func() { cancel(errBoom) }
		},
	}
	for what, end := range ends {
		var calls, cuts tally[string]
		handler := play(e.store, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
			group, cancel := end(ctx)
			defer cancel()
			begun, errs := make(chan struct{}), make(chan error, 2)
			slow := func(ctx context.Context) error {
				calls.add("slow")
				begun <- struct{}{}
				<-ctx.Done()
				return ctx.Err()
			}
			go func() { errs <- run.Do(group, "slow", slow) }()
			<-begun
			go func() {
				errs <- run.DoTx(group, "slow too", func(ctx context.Context, tx *sql.Tx) error { return errors.Join(book(ctx, tx), slow(ctx)) })
			}()
			<-begun
			cancel()
			for range 2 {
				err := <-errs
				cuts.add(fmt.Sprint(errors.Is(err, group.Err()), strings.Contains(err.Error(), "was cut short")))
			}
			if execution == 1 {
				_ = run.Do(ctx, "undo", func(context.Context) error { return nil })
				e.loseRun(t, run.ID())
			}
			return receipt{}, errors.Join(errBoom, walk("undo")(ctx, run))
		})
		stop := start(t, fast(handler))
		h := e.run(t)
		info := e.awaitRun(t, h.ID(), pgqrs.Failed)
		must(t, stop())
		wantText(t, "error of a run that was "+what, info.Error, "boom")
		equalSlices(t, "calls", calls.all(), []string{"slow", "slow", "slow", "slow"})
		equalSlices(t, "errors", cuts.all(), []string{"true true", "true true", "true true", "true true"})
		equal(t, "recorded steps", len(value(h.Steps(t.Context()))(t)), 1)
		equal(t, "warning", info.Warning, "")
	}
	equal(t, "effects", count(), 0)
}
