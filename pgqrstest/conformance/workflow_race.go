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

var raceCases = []testcase{
	{"Cancel against the end of a run: it is CANCELLED if Cancel said nil, and SUCCESS if it said ErrState", "Cancel would report success for a run that went through", raceCancelComplete},
	{"Cancel against the failure of a run: it is CANCELLED if Cancel said nil, and ERROR if it said ErrState", "a failure would be hidden, or a cancelled run be retried by an operator", raceCancelFail},
	{"Pause against the end of a run: the run ends, and Pause may say either", "a run would be paused that has nothing more to do, for ever", racePauseComplete},
	{"Send against the end of a run: ErrState stores nothing, and nil came before the end", "a signal would be taken by nobody while its sender believes it arrived", raceSignalFinish},
	{"Send against the end of a Wait's time: this Wait has it or the next, never neither or both", "an approval at the last moment would be lost", raceSignalTimeout},
	{"Resume against the putting off of the paused run: it goes on", "a resumed run would stay paused for ever", raceResume},
	{"Cancel against the putting off of a run: it ends", "a cancelled run would sleep on for ever", raceCancelRelease},
	{"of two executions of one run only the one with the lease records anything", "a worker that was held up would overwrite its successor's work", raceExecutions},
	{"a result that a later execution has recorded is adopted by the one that lost its lease", "two executions would take different turns", raceAdopts},
	{"a run that pgqrs 0.15 has ended while it is executed stays as it ended", "a failure that an operator has seen would turn into a success", raceForeignEnd},
	{"Retry against Cancel: a failed run goes on, or goes on and is cancelled", "a run would be left between the states", raceRetryCancel},
	{"two Cancels and two Retries at once do it once", "two operators would do it twice, or fail for no reason", raceTwice},
}

const rounds = 15 // of a race that the test cannot control

// race lets the function of a run return while act is called, over and over. It passes the run's
// end and the result of act to check.
func race(t *testing.T, e *env, result error, act func(*pgqrs.RunHandle[receipt]) error, check func(info pgqrs.RunInfo, err error)) {
	t.Helper()
	begun, gate := make(chan struct{}, 10), make(chan struct{}, 10)
	start(t, fast(play(e.store, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		if err := run.Do(ctx, "only", func(context.Context) error { return nil }); err != nil {
			return receipt{}, err
		}
		begun <- struct{}{}
		<-gate
		return receipt{Item: "done"}, result
	})))
	for i := range rounds {
		h := e.run(t)
		receive(t, "the function is about to return", begun)
		var err error
		together(t, 2, func(side int) error {
			if side == 0 {
				gate <- struct{}{}
				return nil
			}
			for range i % 3 { // let the other one go first, by a statement or two
				e.runInfo(t, h.ID())
			}
			err = act(h)
			return nil
		})
		eventually(t, "the run has ended", func() bool { return !e.runInfo(t, h.ID()).EndedAt.IsZero() })
		info := e.runInfo(t, h.ID())
		equal(t, "state of the message", e.info(t, info.MessageID).State, pgqrs.Archived)
		if err != nil {
			wantError(t, err, pgqrs.ErrState)
		}
		check(info, err)
	}
}

func raceCancelComplete(t *testing.T, e *env) {
	race(t, e, nil, func(h *pgqrs.RunHandle[receipt]) error { return h.Cancel(t.Context()) }, func(info pgqrs.RunInfo, err error) {
		want := pgqrs.Cancelled
		if err != nil {
			want = pgqrs.Succeeded
		}
		equal(t, fmt.Sprintf("status after %v", err), info.Status, want)
		equal(t, "whether it has a result", info.Output != nil, err != nil)
	})
}

func raceCancelFail(t *testing.T, e *env) {
	race(t, e, errBoom, func(h *pgqrs.RunHandle[receipt]) error { return h.Cancel(t.Context()) }, func(info pgqrs.RunInfo, err error) {
		want := pgqrs.Cancelled
		if err != nil {
			want = pgqrs.Failed
		}
		equal(t, fmt.Sprintf("status after %v", err), info.Status, want)
		equal(t, "whether it has an error", info.Error != "", err != nil)
	})
}

func racePauseComplete(t *testing.T, e *env) {
	race(t, e, nil, func(h *pgqrs.RunHandle[receipt]) error { return h.Pause(t.Context()) }, func(info pgqrs.RunInfo, _ error) {
		equal(t, "status", info.Status, pgqrs.Succeeded)
		wantError(t, orders(e.store).RunHandle(info.ID).Resume(t.Context()), pgqrs.ErrState)
	})
}

func raceSignalFinish(t *testing.T, e *env) {
	stored := 0
	race(t, e, nil, func(h *pgqrs.RunHandle[receipt]) error {
		return approved.Send(t.Context(), e.store, h.ID(), "x")
	}, func(info pgqrs.RunInfo, err error) {
		equal(t, "status", info.Status, pgqrs.Succeeded)
		if err == nil {
			stored++
		}
		equal(t, "signals stored", e.signals(t), stored)
	})
}

func raceSignalTimeout(t *testing.T, e *env) {
	w := waiters(e.store)
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		v, err := approved.Wait(ctx, run, 5*time.Millisecond)
		if errors.Is(err, pgqrs.ErrTimeout) {
			return approved.Wait(ctx, run, 0)
		}
		return v, err
	})))
	for i := range rounds {
		run := launch(t, w, 1)
		eventually(t, "it waits", func() bool { return len(value(run.Steps(t.Context()))(t)) > 0 })
		must(t, approved.Send(t.Context(), e.store, run.ID(), fmt.Sprint(i)))
		equal(t, "result", finished(t, run), fmt.Sprint(i))
	}
}

func raceResume(t *testing.T, e *env) {
	store, net := e.farStore(t)
	h := e.run(t)
	must(t, h.Pause(t.Context()))
	net.just("pgqrs:message.release", func() { must(t, h.Resume(t.Context())) })
	start(t, fast(sells(orders(store))))
	equal(t, "result", finished(t, h).Total, 20)
}

func raceCancelRelease(t *testing.T, e *env) {
	store, net := e.farStore(t)
	run := launch(t, waiters(e.store), 1)
	net.just("pgqrs:message.release", func() { must(t, run.Cancel(t.Context())) })
	start(t, fast(waiters(store).Handle(waiting(0))))
	e.awaitRun(t, run.ID(), pgqrs.Cancelled)
}

// A twin is one of two executions of a run, each on a Store of its own. Its step "work" and its end
// wait at gates.
type twin struct {
	begun, gate chan struct{}
	returned    chan error // by the step
}

// newTwin starts the worker of a twin with the given name.
func newTwin(t *testing.T, e *env, name string) *twin {
	t.Helper()
	w := &twin{make(chan struct{}, 10), make(chan struct{}), make(chan error, 10)}
	worker := fast(play(e.newStore(t, pgqrs.Config{}), func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		work, err := pgqrs.Step(ctx, run, "work", func(context.Context) (string, error) {
			w.begun <- struct{}{}
			<-w.gate
			return name, nil
		})
		w.returned <- err
		return receipt{Item: work + " by " + name}, nil // whatever the step returned
	}))
	worker.Concurrency = 1 // so that the first cannot claim the run again
	start(t, worker)
	return w
}

// newTwins starts the first twin's step, and then the second twin's, which has the lease.
func newTwins(t *testing.T, e *env) (h *pgqrs.RunHandle[receipt], first, second *twin) {
	t.Helper()
	h = e.run(t)
	first = newTwin(t, e, "first")
	receive(t, "the first is in its step", first.begun)
	second = newTwin(t, e, "second")
	e.loseRun(t, h.ID())
	receive(t, "the second is in its step", second.begun)
	return h, first, second
}

func raceExecutions(t *testing.T, e *env) {
	h, first, second := newTwins(t, e)
	close(first.gate)
	wantError(t, receive(t, "the first's step returns", first.returned), pgqrs.ErrSuspended)
	equal(t, "recorded steps", len(value(h.Steps(t.Context()))(t)), 0)
	equal(t, "status", e.runInfo(t, h.ID()).Status, pgqrs.Running)
	close(second.gate)
	must(t, receive(t, "the second's step returns", second.returned))
	equal(t, "result", finished(t, h).Item, "second by second")
	equal(t, "record", string(e.step(t, h.ID(), "work").Output), `"second"`)
}

func raceAdopts(t *testing.T, e *env) {
	h, first, second := newTwins(t, e)
	close(second.gate)
	must(t, receive(t, "the second's step returns", second.returned))
	equal(t, "result", finished(t, h).Item, "second by second")
	before := e.runInfo(t, h.ID())
	close(first.gate)
	must(t, receive(t, "the first's step returns, with the second's result", first.returned))
	eventually(t, "the log says that the first came too late", func() bool { return e.log.has("lease") })
	equal(t, "run afterwards", fmt.Sprint(e.runInfo(t, h.ID())), fmt.Sprint(before))
}

func raceForeignEnd(t *testing.T, e *env) {
	begun, gate := make(chan struct{}, 1), make(chan struct{})
	start(t, fast(play(e.store, func(context.Context, *pgqrs.Run, int) (receipt, error) {
		begun <- struct{}{}
		<-gate
		return receipt{Item: "ours"}, nil
	})))
	h := e.run(t)
	receive(t, "the function has begun", begun)
	e.poke(t, `UPDATE pgqrs_workflow_runs SET status = 'ERROR', error = '"theirs"' WHERE id = %d`, h.ID())
	close(gate)
	e.awaitState(t, e.runInfo(t, h.ID()).MessageID, pgqrs.Archived)
	r := e.runInfo(t, h.ID())
	equal(t, "status", r.Status, pgqrs.Failed)
	equal(t, "error", r.Error, "theirs")
	equal(t, "output", string(r.Output), "")
}

func raceRetryCancel(t *testing.T, e *env) {
	var executed sync.Map
	start(t, fast(play(e.store, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		if err := run.Do(ctx, "only", func(context.Context) error { return nil }); err != nil {
			return receipt{}, err
		}
		if _, again := executed.LoadOrStore(run.ID(), true); again {
			return receipt{}, nil
		}
		return receipt{}, errBoom
	})))
	for range rounds {
		h := e.run(t)
		e.awaitRun(t, h.ID(), pgqrs.Failed)
		var cancelled error
		together(t, 2, func(side int) error {
			if side == 0 {
				return h.Retry(t.Context())
			}
			cancelled = h.Cancel(t.Context())
			return nil
		})
		want := pgqrs.Cancelled
		if cancelled != nil { // it had not been retried yet, or it had ended again
			wantError(t, cancelled, pgqrs.ErrState)
			want = pgqrs.Succeeded
		}
		equal(t, "error", e.awaitRun(t, h.ID(), want).Error, "")
	}
}

func raceTwice(t *testing.T, e *env) {
	for range rounds {
		h := e.run(t)
		together(t, 2, func(int) error { return h.Cancel(t.Context()) })
		equal(t, "status", e.runInfo(t, h.ID()).Status, pgqrs.Cancelled)
	}
	begun, gate := make(chan struct{}, 10*rounds), make(chan struct{})
	start(t, fast(waiters(e.store).Handle(func(_ context.Context, _ *pgqrs.Run, n int) (string, error) {
		begun <- struct{}{}
		if e.log.has("run failed") {
			<-gate
			return "", nil
		}
		return "", errBoom
	})))
	h := launch(t, waiters(e.store), 1)
	e.awaitRun(t, h.ID(), pgqrs.Failed)
	eventually(t, "the failure is logged", func() bool { return e.log.has("run failed") })
	receive(t, "it was executed", begun)
	errs := make([]error, 2)
	together(t, 2, func(i int) error { errs[i] = h.Retry(t.Context()); return nil })
	receive(t, "it is executed again", begun)
	close(gate)
	finished(t, h)
	equal(t, "times it was executed besides", len(begun), 0)
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("errors are %v; want one", errs)
	}
	wantError(t, errors.Join(errs...), pgqrs.ErrState)
}
