package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var cancelCases = []testcase{
	{"a run that is cancelled before any worker sees it ends at once, without its function being called", "an order that was cancelled at once would still be begun, or would wait for its turn to end", cancelBefore},
	{"who waits for a run that is cancelled before it begins learns of it at once, in this process and in others", "a caller would wait for a run that nobody works", cancelBeforeAwaited},
	{"a run that has recorded steps cleans up when it is cancelled, and is left to a worker for that", "what it has taken would never be given back", cancelLeft},
	{"Cancel ends a thousand children that wait for their turn, and their parent, at once", "cancelling an import would take as long as the import", cancelMany},
	{"Cancel ends the ctx of the running step, and the step that this cuts short is refused", "a long step would go on for hours for nothing", cancelCuts},
	{"a step that ignores the cancellation is recorded, and the next one is refused", "what was done would be forgotten, and could not be undone", cancelIgnored},
	{"steps after the refusal do run, with a live ctx, and the run ends CANCELLED whatever is returned", "a cancelled run could not give back what it has taken", cancelCleanUp},
	{"a step of the cleaning up that begins before the ctx of its run ends goes on", "a refund would be cut short, and be taken for failed", cancelCleanUpEarly},
	{"a crash in the cleaning up takes the same turn again", "a replayed run would do what it was told not to, or undo it twice", cancelCrash},
	{"the cleaning up may sleep, wait for signals and have children", "a refund that needs an approval could not be made", cancelSlow},
	{"steps that were cut short at once are all refused", "one of two parallel steps would be taken for failed, and be tried again", cancelParallel},
	{"Cancel wakes a run that sleeps, waits for a signal, or waits for a retry", "a cancelled run would sleep on for days", cancelWakes},
	{"a run that is cancelled after its last step ends CANCELLED, and its result is dropped", "Cancel would report success, and the run end as if nothing had happened", cancelLast},
	{"cancelling again is no error, unless the run has ended otherwise, and Result says ErrCancelled", "two operators would alarm each other, or a late one believe it had helped", cancelAgain},
	{"a paused run can be cancelled", "an operator would have to let it go on first", cancelPaused},
}

// quickBeats returns a worker that sends a heartbeat, and so sees cancellations, every 0.1 s.
func quickBeats(h ...pgqrs.Handler) *pgqrs.Worker {
	w := fast(h...)
	w.Lease = 600 * time.Millisecond
	return w
}

func cancelBefore(t *testing.T, e *env) {
	var calls tally[string]
	h := e.run(t, pgqrs.Delay(time.Hour))
	paused := e.run(t)
	must(t, paused.Pause(t.Context()))
	ready := e.run(t)
	for _, run := range []*pgqrs.RunHandle[receipt]{h, paused, ready} {
		must(t, run.Cancel(t.Context()))
		info := e.runInfo(t, run.ID())
		equal(t, "status", info.Status, pgqrs.Cancelled)
		equal(t, "result and error", string(info.Output)+info.Error, "")
		equal(t, "state of the message", e.info(t, info.MessageID).State, pgqrs.Archived)
		equal(t, "whether it has an end", info.EndedAt.IsZero(), false)
	}
	start(t, fast(play(e.store, func(context.Context, *pgqrs.Run, int) (receipt, error) {
		calls.add("function")
		return receipt{}, nil
	})))
	finished(t, e.run(t))
	equal(t, "calls", calls.len(), 1)
}

func cancelBeforeAwaited(t *testing.T, e *env) {
	h := e.run(t)
	results := make(chan error, 2)
	for _, s := range []*pgqrs.Store{e.store, e.newStore(t, pgqrs.Config{})} {
		go func() {
			_, err := s.RunHandle(h.ID()).Result(patience(t))
			results <- err
		}()
	}
	_, err := h.Result(expired(t))
	wantError(t, err, context.DeadlineExceeded)
	must(t, h.Cancel(t.Context()))
	for range 2 {
		wantError(t, receive(t, "the result comes", results), pgqrs.ErrCancelled)
	}
	_, err = h.Result(patience(t)) // of the process that started it
	wantError(t, err, pgqrs.ErrCancelled)
}

// expired returns a ctx that ends soon.
func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func cancelLeft(t *testing.T, e *env) {
	var calls tally[string]
	fn := func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		err := noted(ctx, run, &calls, "charge")
		if err == nil {
			err = run.Sleep(ctx, "nap", time.Hour)
		}
		if errors.Is(err, pgqrs.ErrCancelled) {
			err = noted(ctx, run, &calls, "refund")
		}
		return receipt{}, err
	}
	stop := start(t, fast(play(e.store, fn)))
	h := e.run(t)
	asleep(t, e, h, "nap")
	must(t, stop())
	must(t, h.Cancel(t.Context()))
	info := e.runInfo(t, h.ID())
	equal(t, "status", info.Status, pgqrs.Cancelling)
	equal(t, "state of the message", e.info(t, info.MessageID).State, pgqrs.Ready)
	start(t, fast(play(e.store, fn)))
	e.awaitRun(t, h.ID(), pgqrs.Cancelled)
	equalSlices(t, "calls", calls.all(), []string{"charge", "refund"})
}

func cancelMany(t *testing.T, e *env) {
	const n = 1000
	kids := pgqrs.NewWorkflow[int, int](e.store, "kids") // no worker handles it
	start(t, fast(play(e.store, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		_, err := kids.Children(ctx, run, "kids", make([]int, n))
		return receipt{}, err
	})))
	h := e.run(t)
	asleep(t, e, h, "kids")
	must(t, h.Cancel(t.Context()))
	equal(t, "children that are cancelled", len(e.runIDs(t, pgqrs.RunFilter{Workflow: "kids", Status: pgqrs.Cancelled, Limit: n})), n)
	equal(t, "messages that wait", e.stats(t, "kids").Ready, 0)
	e.awaitRun(t, h.ID(), pgqrs.Cancelled)
}

// A stopper is a run that is in a step, and the channels that control it.
type stopper struct {
	*pgqrs.RunHandle[receipt]
	begun chan struct{} // the step has begun
	gate  chan struct{} // the step waits for this
	calls tally[string]
	stop  func() error
}

// A cleaner is the clean-up of a run that received err. It returns the error of the run's function.
type cleaner func(ctx context.Context, run *pgqrs.Run, calls *tally[string], err error) error

// newStopper starts a run with the steps "first" and "second", which then cleans up. The step
// "first" waits at the gate if ignores is true, and otherwise for the end of its ctx.
func newStopper(t *testing.T, e *env, ignores bool, cleanUp cleaner) *stopper {
	t.Helper()
	s := &stopper{begun: make(chan struct{}, 10), gate: make(chan struct{})}
	s.stop = start(t, quickBeats(play(e.store, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		err := run.Do(ctx, "first", func(ctx context.Context) error {
			s.calls.add("first")
			s.begun <- struct{}{}
			if ignores {
				<-s.gate
				return nil
			}
			<-ctx.Done()
			s.calls.add(fmt.Sprint(errors.Is(context.Cause(ctx), pgqrs.ErrCancelled)))
			return ctx.Err()
		})
		if err == nil {
			err = noted(ctx, run, &s.calls, "second")
		}
		if err == nil || errors.Is(err, pgqrs.ErrSuspended) {
			return receipt{}, err
		}
		s.calls.add(fmt.Sprint("told ", errors.Is(err, pgqrs.ErrCancelled)))
		return receipt{Item: "whatever"}, cleanUp(ctx, run, &s.calls, err)
	})))
	s.RunHandle = e.run(t)
	receive(t, "the step has begun", s.begun)
	return s
}

func giveUp(_ context.Context, _ *pgqrs.Run, _ *tally[string], err error) error { return err }

func cancelCuts(t *testing.T, e *env) {
	s := newStopper(t, e, false, giveUp)
	must(t, s.Cancel(t.Context()))
	info := e.awaitRun(t, s.ID(), pgqrs.Cancelled)
	equalSlices(t, "what happened", s.calls.all(), []string{"first", "true", "told true"})
	equal(t, "executions", e.info(t, info.MessageID).Claim, 1)
	equal(t, "recorded steps", len(value(s.Steps(t.Context()))(t)), 0)
}

func cancelIgnored(t *testing.T, e *env) {
	s := newStopper(t, e, true, giveUp)
	must(t, s.Cancel(t.Context()))
	close(s.gate)
	e.awaitRun(t, s.ID(), pgqrs.Cancelled)
	equalSlices(t, "what happened", s.calls.all(), []string{"first", "told true"})
	equal(t, "status of the step", e.step(t, s.ID(), "first").Status, pgqrs.Succeeded)
}

func cancelCleanUp(t *testing.T, e *env) {
	for _, result := range []error{nil, errBoom} {
		s := newStopper(t, e, false, func(ctx context.Context, run *pgqrs.Run, calls *tally[string], _ error) error {
			for _, name := range []string{"refund", "mail"} {
				err := run.Do(ctx, name, func(ctx context.Context) error {
					calls.add(fmt.Sprint(name, " ", ctx.Err()))
					return nil
				})
				if err != nil {
					return err
				}
			}
			return result
		})
		must(t, s.Cancel(t.Context()))
		info := e.awaitRun(t, s.ID(), pgqrs.Cancelled)
		equalSlices(t, "what happened", s.calls.all(), []string{"first", "true", "told true", "refund <nil>", "mail <nil>"})
		equal(t, "result and error", string(info.Output)+info.Error, "")
		equal(t, "status of the refused step", e.step(t, s.ID(), "first").Status, pgqrs.Failed)
		equal(t, "status of a step of the cleaning up", e.step(t, s.ID(), "mail").Status, pgqrs.Succeeded)
		equal(t, "executions", e.info(t, info.MessageID).Claim, 1)
		must(t, s.stop())
	}
}

func cancelCleanUpEarly(t *testing.T, e *env) {
	s := newStopper(t, e, true, func(ctx context.Context, run *pgqrs.Run, calls *tally[string], _ error) error {
		return run.With(pgqrs.Policy{MaxAttempts: 1}).Do(ctx, "refund", func(own context.Context) error {
			<-ctx.Done() // usually cancelled by a heartbeat
			calls.add(fmt.Sprint("refund ", own.Err()))
			return own.Err()
		})
	})
	must(t, s.Cancel(t.Context()))
	close(s.gate)
	e.awaitRun(t, s.ID(), pgqrs.Cancelled)
	equalSlices(t, "what happened", s.calls.all(), []string{"first", "told true", "refund <nil>"})
	equal(t, "status of the refund", e.step(t, s.ID(), "refund").Status, pgqrs.Succeeded)
}

func cancelCrash(t *testing.T, e *env) {
	crashed := false
	s := newStopper(t, e, false, func(ctx context.Context, run *pgqrs.Run, calls *tally[string], _ error) error {
		if err := noted(ctx, run, calls, "refund"); err != nil {
			return err
		}
		return run.Do(ctx, "mail", func(context.Context) error {
			calls.add("mail")
			if !crashed {
				crashed = true
				e.loseRun(t, run.ID())
			}
			return nil
		})
	})
	must(t, s.Cancel(t.Context()))
	e.awaitRun(t, s.ID(), pgqrs.Cancelled)
	equalSlices(t, "what happened", s.calls.all(), []string{"first", "true", "told true", "refund", "mail", "told true", "mail"})
}

func cancelSlow(t *testing.T, e *env) {
	kids := pgqrs.NewWorkflow[string, string](e.store, "kids")
	start(t, fast(kids.Handle(func(_ context.Context, _ *pgqrs.Run, in string) (string, error) { return in + " paid", nil })))
	s := newStopper(t, e, false, func(ctx context.Context, run *pgqrs.Run, calls *tally[string], _ error) error {
		if err := run.Sleep(ctx, "nap", 20*time.Millisecond); err != nil {
			return err
		}
		by, err := approved.Wait(ctx, run, time.Hour)
		if err != nil {
			return err
		}
		out, err := kids.Child(ctx, run, "kid", by)
		if err == nil {
			calls.add(out)
		}
		return err
	})
	must(t, s.Cancel(t.Context()))
	asleep(t, e, s.RunHandle, "approved#1")
	must(t, approved.Send(t.Context(), e.store, s.ID(), "ada"))
	e.awaitRun(t, s.ID(), pgqrs.Cancelled)
	all := s.calls.all()
	equalSlices(t, "how it began", all[:3], []string{"first", "true", "told true"})
	equal(t, "how it ended", all[len(all)-1], "ada paid")
	if e.log.has("because of the database") {
		t.Error("the log speaks of trouble with the database")
	}
}

func cancelParallel(t *testing.T, e *env) {
	begun, errs := make(chan struct{}, 10), make(chan error, 10)
	start(t, quickBeats(play(e.store, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		both := make(chan error, 2)
		for _, name := range []string{"a", "b"} {
			go func() {
				both <- run.Do(ctx, name, func(ctx context.Context) error {
					begun <- struct{}{}
					<-ctx.Done()
					return ctx.Err()
				})
			}()
		}
		err := errors.Join(<-both, <-both)
		errs <- err
		return receipt{}, run.Do(ctx, "mail", func(context.Context) error { return nil })
	})))
	h := e.run(t)
	receive(t, "one step has begun", begun)
	receive(t, "the other step has begun", begun)
	must(t, h.Cancel(t.Context()))
	info := e.awaitRun(t, h.ID(), pgqrs.Cancelled)
	equal(t, "executions", e.info(t, info.MessageID).Claim, 1)
	equal(t, "errors", receive(t, "the steps return", errs).Error(), fmt.Sprint(pgqrs.ErrCancelled, "\n", pgqrs.ErrCancelled))
	for _, name := range []string{"a", "b"} {
		equal(t, "recorded error", e.step(t, h.ID(), name).Error, pgqrs.ErrCancelled.Error())
	}
}

func cancelWakes(t *testing.T, e *env) {
	waits := map[string]script{
		"nap": func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
			return receipt{}, run.Sleep(ctx, "nap", time.Hour)
		},
		"approved#1": func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
			_, err := approved.Wait(ctx, run, 0)
			return receipt{}, err
		},
		"retried": func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
			return receipt{}, run.Do(ctx, "retried", func(context.Context) error { return pgqrs.RetryAfter(time.Hour, errBoom) })
		},
	}
	for step, fn := range waits {
		store, net := e.farStore(t)
		stop := start(t, &pgqrs.Worker{Handlers: []pgqrs.Handler{play(store, fn)}, PollInterval: never})
		h := value(orders(store).Start(t.Context(), order{}))(t)
		asleep(t, e, h, step)
		(&idler{net: net}).sleep(t, e)
		must(t, h.Cancel(t.Context()))
		e.awaitRun(t, h.ID(), pgqrs.Cancelled)
		must(t, stop())
	}
}

func cancelLast(t *testing.T, e *env) {
	begun, gate := make(chan struct{}, 1), make(chan struct{})
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		if err := run.Do(ctx, "only", func(context.Context) error { return nil }); err != nil {
			return receipt{}, err
		}
		begun <- struct{}{}
		<-gate
		return receipt{Item: "dropped"}, nil
	})
	receive(t, "the last step is over", begun)
	must(t, h.Cancel(t.Context()))
	close(gate)
	info := e.awaitRun(t, h.ID(), pgqrs.Cancelled)
	equal(t, "result", string(info.Output), "")
}

func cancelAgain(t *testing.T, e *env) {
	ctx := t.Context()
	wantError(t, e.store.RunHandle(1<<40).Cancel(ctx), pgqrs.ErrNotFound)
	h := e.run(t)
	for range 3 {
		must(t, h.Cancel(ctx))
	}
	start(t, fast(orders(e.store).Handle(func(_ context.Context, _ *pgqrs.Run, o order) (receipt, error) {
		if o.N == 0 {
			return receipt{}, errBoom
		}
		return receipt{}, nil
	})))
	_, err := h.Result(patience(t))
	wantError(t, err, pgqrs.ErrCancelled)
	well := e.run(t)
	badly := value(orders(e.store).Start(ctx, order{}))(t)
	e.awaitRun(t, well.ID(), pgqrs.Succeeded)
	e.awaitRun(t, badly.ID(), pgqrs.Failed)
	must(t, h.Cancel(ctx))
	for _, over := range []*pgqrs.RunHandle[receipt]{well, badly} {
		before := e.runInfo(t, over.ID())
		err := over.Cancel(ctx)
		wantError(t, err, pgqrs.ErrState)
		wantText(t, "error", err.Error(), string(before.Status))
		equal(t, "run afterwards", fmt.Sprint(e.runInfo(t, over.ID())), fmt.Sprint(before))
	}
}

func cancelPaused(t *testing.T, e *env) {
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		return receipt{}, run.Sleep(ctx, "nap", time.Hour)
	})
	asleep(t, e, h, "nap")
	must(t, h.Pause(t.Context()))
	must(t, h.Cancel(t.Context()))
	e.awaitRun(t, h.ID(), pgqrs.Cancelled)
	wantError(t, h.Resume(t.Context()), pgqrs.ErrState)
}
