package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var runControlCases = []testcase{
	{"Pause stops a run before its next step, and Resume lets it go on from there", "an operator could not hold back a run that is about to do harm", pauseStep},
	{"a run can be paused while it is queued", "a run that was started by mistake could not be held back", pauseQueued},
	{"a run can be paused while it sleeps, and sleeps on after Resume", "a pause would cut a sleep short, or make it begin anew", pauseAsleep},
	{"a paused run keeps the signals that come", "an approval would be lost because somebody was looking into the run", pauseSignal},
	{"pausing and resuming what cannot be is an error, and changes nothing", "an operator would believe that it had helped", pauseRefused},
	{"Retry lets a failed run go on at its failed step", "a fixed bug would cost a charge twice, or an order be lost", retryGoesOn},
	{"Retry lets a run go on whose message has died", "a run that killed its worker could not be run again once that is fixed", retryDead},
	{"a run that Retry sends another way than before is not warned of", "the warning that matters would drown in false ones", retryOtherWay},
	{"Retry waits for the children that a run has started, and starts no others", "an order would be sent twice", retryParent},
	{"Retry of what has not failed is an error, and changes nothing", "a run would be done twice", retryRefused},
	{"RerunFrom starts a new run that has the results before a step and does the rest anew", "a wrong shipment could not be sent again without charging again", rerunGoesOn},
	{"Runs lists by workflow, status and time, in pages", "an operator could not find the runs that are stuck", runsList},
	{"Steps says of each step how it stands, in their order", "an operator could not see what a run did and what it waits for", stepsList},
}

// A held run is in its first step, which waits at a gate. A second step follows.
type held struct {
	*pgqrs.RunHandle[receipt]
	gate  chan struct{}
	calls tally[string]
}

func newHeld(t *testing.T, e *env) *held {
	t.Helper()
	h := &held{gate: make(chan struct{})}
	begun := make(chan struct{}, 10)
	h.RunHandle = e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		err := run.Do(ctx, "first", func(context.Context) error {
			h.calls.add("first")
			begun <- struct{}{}
			<-h.gate
			return nil
		})
		if err != nil {
			return receipt{}, err
		}
		return receipt{Item: "done"}, noted(ctx, run, &h.calls, "second")
	})
	receive(t, "the first step has begun", begun)
	return h
}

// pausedNow waits until no worker holds the message of a paused run, and checks the run.
func (e *env) pausedNow(t *testing.T, id int64) {
	t.Helper()
	e.awaitState(t, e.runInfo(t, id).MessageID, pgqrs.Scheduled)
	info := e.runInfo(t, id)
	equal(t, "status", info.Status, pgqrs.Paused)
	equal(t, "whether it has the time of the pause", info.PausedAt.IsZero(), false)
}

func pauseStep(t *testing.T, e *env) {
	h := newHeld(t, e)
	must(t, h.Pause(t.Context()))
	must(t, h.Pause(t.Context()))
	close(h.gate)
	e.pausedNow(t, h.ID())
	equalSlices(t, "steps called", h.calls.all(), []string{"first"})
	equal(t, "status of the step", e.step(t, h.ID(), "first").Status, pgqrs.Succeeded)
	must(t, h.Resume(t.Context()))
	equal(t, "result", finished(t, h.RunHandle).Item, "done")
	equalSlices(t, "steps called", h.calls.all(), []string{"first", "second"})
}

func pauseQueued(t *testing.T, e *env) {
	h := e.run(t)
	must(t, h.Pause(t.Context()))
	start(t, fast(sells(orders(e.store))))
	e.pausedNow(t, h.ID())
	must(t, h.Resume(t.Context()))
	equal(t, "result", finished(t, h).Total, 20)
}

func pauseAsleep(t *testing.T, e *env) {
	var calls tally[string]
	w := pgqrs.NewWorkflow[string, string](e.store, "naps")
	h := w.Handle(napping(&calls, time.Hour))
	run := launch(t, w, "it")
	round := func(await func()) {
		t.Helper()
		stop := start(t, fast(h))
		await()
		must(t, stop())
	}
	round(func() { asleep(t, e, run, "nap") })
	must(t, run.Pause(t.Context()))
	claims := e.info(t, e.runInfo(t, run.ID()).MessageID).Claim
	pgqrstest.Advance(t, e.store, time.Hour)
	round(func() {
		eventually(t, "a worker has looked at it", func() bool { return e.info(t, e.runInfo(t, run.ID()).MessageID).Claim > claims })
		e.pausedNow(t, run.ID())
	})
	must(t, run.Resume(t.Context()))
	equal(t, "status", e.runInfo(t, run.ID()).Status, pgqrs.Running)
	equal(t, "whether the time of the pause is gone", e.runInfo(t, run.ID()).PausedAt.IsZero(), true)
	start(t, fast(h))
	equal(t, "result", finished(t, run), "it is up")
	equalSlices(t, "calls", calls.all(), onceAround)
}

func pauseSignal(t *testing.T, e *env) {
	w := waiters(e.store)
	start(t, fast(w.Handle(waiting(0))))
	run := launch(t, w, 1)
	asleep(t, e, run, "approved#1")
	must(t, run.Pause(t.Context()))
	claims := e.info(t, e.runInfo(t, run.ID()).MessageID).Claim
	must(t, approved.Send(t.Context(), e.store, run.ID(), "kept"))
	eventually(t, "a worker has looked at it", func() bool { return e.info(t, e.runInfo(t, run.ID()).MessageID).Claim > claims })
	e.pausedNow(t, run.ID())
	must(t, run.Resume(t.Context()))
	equal(t, "result", finished(t, run), "kept")
}

// ends starts runs with every kind of end, and runs in every state before the end.
func ends(t *testing.T, e *env) map[pgqrs.RunState]*pgqrs.RunHandle[receipt] {
	t.Helper()
	stop := start(t, fast(orders(e.store).Handle(func(ctx context.Context, run *pgqrs.Run, o order) (receipt, error) {
		switch o.Item {
		case "fails":
			return receipt{}, errBoom
		case "naps":
			return receipt{}, run.Sleep(ctx, "nap", time.Hour)
		}
		return receipt{}, nil
	})))
	runs := map[pgqrs.RunState]*pgqrs.RunHandle[receipt]{
		pgqrs.Succeeded: launch(t, orders(e.store), order{}),
		pgqrs.Failed:    launch(t, orders(e.store), order{Item: "fails"}),
		pgqrs.Running:   launch(t, orders(e.store), order{Item: "naps"}),
		pgqrs.Cancelled: launch(t, orders(e.store), order{}, pgqrs.Delay(time.Hour)),
	}
	must(t, runs[pgqrs.Cancelled].Cancel(t.Context()))
	for status, run := range runs {
		e.awaitRun(t, run.ID(), status)
	}
	asleep(t, e, runs[pgqrs.Running], "nap")
	runs[pgqrs.Cancelling] = launch(t, orders(e.store), order{Item: "naps"})
	asleep(t, e, runs[pgqrs.Cancelling], "nap")
	must(t, stop())
	runs[pgqrs.Queued] = launch(t, orders(e.store), order{})
	runs[pgqrs.Paused] = launch(t, orders(e.store), order{})
	must(t, runs[pgqrs.Paused].Pause(t.Context()))
	must(t, runs[pgqrs.Cancelling].Cancel(t.Context())) // no worker handles it
	return runs
}

// refuses makes a call on runs in all states except the given ones, and on a run that does not
// exist. It wants errors and no change.
func refuses(t *testing.T, e *env, call func(*pgqrs.RunHandle[receipt]) error, but ...pgqrs.RunState) {
	t.Helper()
	wantError(t, call(orders(e.store).RunHandle(1<<40)), pgqrs.ErrNotFound)
	runs := ends(t, e)
	for _, status := range but {
		delete(runs, status)
	}
	for status, run := range runs {
		before := e.runInfo(t, run.ID())
		err := call(run)
		wantError(t, err, pgqrs.ErrState)
		wantText(t, "error", err.Error(), fmt.Sprint("run ", run.ID()), string(status))
		equal(t, "run afterwards", fmt.Sprint(e.runInfo(t, run.ID())), fmt.Sprint(before))
	}
}

func pauseRefused(t *testing.T, e *env) {
	ctx := t.Context()
	refuses(t, e, func(run *pgqrs.RunHandle[receipt]) error { return run.Pause(ctx) }, pgqrs.Queued, pgqrs.Running, pgqrs.Paused)
	refuses(t, e, func(run *pgqrs.RunHandle[receipt]) error { return run.Resume(ctx) }, pgqrs.Paused)
}

// failing returns a function whose steps "charge" and "ship" are noted. The step "ship" fails while
// broken is true.
func failing(calls *tally[string], broken *bool) script {
	return func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		if err := noted(ctx, run, calls, "charge"); err != nil {
			return receipt{}, err
		}
		err := run.With(atOnce(2)).Do(ctx, "ship", func(context.Context) error {
			calls.add("ship")
			if *broken {
				return errBoom
			}
			return nil
		})
		return receipt{Item: "shipped"}, err
	}
}

func retryGoesOn(t *testing.T, e *env) {
	var calls tally[string]
	broken := true
	start(t, fast(play(e.store, failing(&calls, &broken))))
	h := e.run(t)
	info := e.awaitRun(t, h.ID(), pgqrs.Failed)
	wantText(t, "error", info.Error, "boom", `"ship"`)
	equalSlices(t, "calls", calls.all(), []string{"charge", "ship", "ship"})
	must(t, h.Retry(t.Context())) // it is still broken, and has all its attempts before it again
	eventually(t, "it has failed again", func() bool { return calls.len() == 5 })
	e.awaitRun(t, h.ID(), pgqrs.Failed)
	broken = false
	must(t, h.Retry(t.Context()))
	equal(t, "result", finished(t, h).Item, "shipped")
	equalSlices(t, "calls", calls.all()[3:], []string{"ship", "ship", "ship"})
	equal(t, "error afterwards", e.runInfo(t, h.ID()).Error, "")
}

func retryDead(t *testing.T, e *env) {
	w := waiters(e.store)
	start(t, fast(w.Handle(waiting(0))))
	run := launch(t, w, 2)
	must(t, approved.Send(t.Context(), e.store, run.ID(), "one"))
	asleep(t, e, run, "approved#2")
	// As if so many workers had died while handling it.
	e.poke(t, "UPDATE pgqrs_messages SET read_ct = 5")
	must(t, approved.Send(t.Context(), e.store, run.ID(), "two"))
	info := e.awaitRun(t, run.ID(), pgqrs.Failed)
	equal(t, "state of the message", e.info(t, info.MessageID).State, pgqrs.Dead)
	wantText(t, "error", info.Error, "without an answer")
	must(t, run.Retry(t.Context()))
	equal(t, "result", finished(t, run), "one two")
}

// failsAtCharge runs a run until it fails at step "charge". The run compensates by step "refund".
func failsAtCharge(t *testing.T, e *env) *pgqrs.RunHandle[receipt] {
	t.Helper()
	h := e.run(t)
	stop := start(t, fast(play(e.store, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		if err := walk("reserve")(ctx, run); err != nil {
			return receipt{}, err
		}
		err := run.With(atOnce(1)).Do(ctx, "charge", func(context.Context) error { return errBoom })
		return receipt{}, errors.Join(err, walk("refund")(ctx, run))
	})))
	e.awaitRun(t, h.ID(), pgqrs.Failed)
	must(t, stop())
	return h
}

func retryOtherWay(t *testing.T, e *env) {
	h := failsAtCharge(t, e)
	e.poke(t, "UPDATE pgqrs_workflow_steps SET created_at = '2026-01-01 00:00:00.000', started_at = '2026-01-01 00:00:00.000'")
	long := e.step(t, h.ID(), "refund").StartedAt
	must(t, h.Retry(t.Context()))
	equal(t, "status until it is taken anew", e.step(t, h.ID(), "charge").Status, pgqrs.Queued)
	stop := start(t, fast(play(e.store, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		err := walk("reserve", "charge")(ctx, run)
		if err == nil {
			// The function goes on in another execution.
			err = run.Sleep(ctx, "nap", time.Millisecond)
		}
		if err == nil {
			err = walk("ship")(ctx, run)
		}
		return receipt{}, err
	})))
	finished(t, h)
	equal(t, "warning", e.runInfo(t, h.ID()).Warning, "")
	var names []string
	for _, s := range value(h.Steps(t.Context()))(t) {
		names = append(names, s.Name)
		equal(t, "whether it began long ago: "+s.Name, s.StartedAt.Equal(long), s.Name == "reserve" || s.Name == "refund")
	}
	equalSlices(t, "steps", names, []string{"reserve", "charge", "refund", "nap", "ship"})
	again := value(h.RerunFrom(t.Context(), "ship"))(t)
	finished(t, again)
	equal(t, "warning of a run from its last step", e.runInfo(t, again.ID()).Warning, "")
	must(t, stop())

	h = failsAtCharge(t, e)
	must(t, h.Retry(t.Context()))
	start(t, fast(play(e.store, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		return receipt{}, walk("new", "reserve", "charge")(ctx, run)
	})))
	finished(t, h)
	e.wantWarning(t, e.runInfo(t, h.ID()), `"new"`, `["reserve"]`)
}

func retryParent(t *testing.T, e *env) {
	f := newFamily(e.store)
	start(t, fast(f.handlers()[0]))
	run := launch(t, f.parents, []int{1, 2})
	asleep(t, e, run, "kids")
	// As if so many workers had died while handling it.
	e.poke(t, "UPDATE pgqrs_messages SET read_ct = 5 WHERE id = %d", e.runInfo(t, run.ID()).MessageID)
	must(t, approved.Send(t.Context(), e.store, run.ID(), "wake up"))
	e.awaitRun(t, run.ID(), pgqrs.Failed)
	must(t, run.Retry(t.Context()))
	start(t, fast(f.doubles()))
	equalSlices(t, "result", finished(t, run), []int{2, 4})
	equal(t, "number of children", len(f.childRuns(t, e)), 2)
}

func retryRefused(t *testing.T, e *env) {
	refuses(t, e, func(run *pgqrs.RunHandle[receipt]) error { return run.Retry(t.Context()) }, pgqrs.Failed)
}

func rerunGoesOn(t *testing.T, e *env) {
	var calls tally[string]
	broken := true
	start(t, fast(play(e.store, failing(&calls, &broken))))
	h := e.run(t, pgqrs.Key("k"))
	e.awaitRun(t, h.ID(), pgqrs.Failed)
	before := e.runInfo(t, h.ID())
	for _, run := range []*pgqrs.RunHandle[receipt]{h, orders(e.store).RunHandle(1 << 40)} {
		_, err := run.RerunFrom(t.Context(), "wrap")
		wantError(t, err, pgqrs.ErrNotFound)
	}
	broken = false
	again := value(h.RerunFrom(t.Context(), "ship"))(t)
	equal(t, "whether it is a new run", again.ID() != h.ID(), true)
	equal(t, "result", finished(t, again).Item, "shipped")
	equalSlices(t, "calls", calls.all(), []string{"charge", "ship", "ship", "ship"})
	sameJSON(t, e.runInfo(t, again.ID()).Input, string(before.Input))
	equal(t, "the first run afterwards", fmt.Sprint(e.runInfo(t, h.ID())), fmt.Sprint(before))
	first := value(again.RerunFrom(t.Context(), "charge"))(t)
	finished(t, first)
	equalSlices(t, "calls of one from the first step", calls.all()[4:], []string{"charge", "ship"})
	equal(t, "number of runs", len(e.runIDs(t, pgqrs.RunFilter{})), 3)
}

func runsList(t *testing.T, e *env) {
	runs := ends(t, e)
	other := launch(t, waiters(e.store), 1)
	for status, run := range runs {
		equalSlices(t, string(status), e.runIDs(t, pgqrs.RunFilter{Workflow: "orders", Status: status}), []int64{run.ID()})
	}
	equalSlices(t, "another workflow", e.runIDs(t, pgqrs.RunFilter{Workflow: "waiters"}), []int64{other.ID()})
	equalSlices(t, "no workflow", e.runIDs(t, pgqrs.RunFilter{Workflow: "nothing"}), []int64{})
	all := e.runIDs(t, pgqrs.RunFilter{})
	equal(t, "number of runs", len(all), len(runs)+1)
	var paged []int64
	for f := (pgqrs.RunFilter{Limit: 3}); ; f.Before = paged[len(paged)-1] {
		page := e.runIDs(t, f)
		paged = append(paged, page...)
		if len(page) < f.Limit {
			break
		}
	}
	equalSlices(t, "pages", paged, all)
	runsByTime(t, e, all)
	for _, f := range []pgqrs.RunFilter{{Limit: -1}, {Limit: 1001}, {Status: "DONE"}, {Status: "success"}} {
		if _, err := e.store.Runs(t.Context(), f); err == nil {
			t.Errorf("%+v is no error", f)
		}
	}
}

// runsByTime lists runs by their start time. All runs of the database are given.
func runsByTime(t *testing.T, e *env, all []int64) {
	t.Helper()
	e.poke(t, "UPDATE pgqrs_workflow_runs SET created_at = '2026-01-01 00:00:00.000'")
	e.poke(t, "UPDATE pgqrs_workflow_runs SET created_at = '2026-01-02 00:00:00.000' WHERE id = %d", all[0])
	at := e.runInfo(t, all[0]).CreatedAt
	for what, f := range map[string]pgqrs.RunFilter{"since": {Since: at}, "since a bit before": {Since: at.Add(-time.Second)}, "until a bit after": {Since: at, Until: at.Add(time.Second)}} {
		equalSlices(t, what, e.runIDs(t, f), all[:1])
	}
	equalSlices(t, "until", e.runIDs(t, pgqrs.RunFilter{Until: at}), all[1:])
	equalSlices(t, "since a bit after", e.runIDs(t, pgqrs.RunFilter{Since: at.Add(time.Second)}), []int64{})
}

func stepsList(t *testing.T, e *env) {
	start(t, fast(play(e.store, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		_, _ = pgqrs.Step(ctx, run, "good", func(context.Context) (int, error) { return 7, nil })
		_ = run.With(atOnce(2)).Do(ctx, "bad", func(context.Context) error { return errBoom })
		_ = run.Sleep(ctx, "short", 0)
		return receipt{}, run.Do(ctx, "retried", func(context.Context) error { return pgqrs.RetryAfter(time.Hour, errBoom) })
	})))
	h := e.run(t)
	asleep(t, e, h, "retried")
	var got []string
	for _, s := range value(h.Steps(t.Context()))(t) {
		got = append(got, fmt.Sprint(s.Name, " ", s.Status, " ", string(s.Output), " ", s.Error, " ", s.Retries, " ", s.RetryIn > 59*time.Minute, " ", s.EndedAt.IsZero()))
		equal(t, "whether it has a beginning", s.StartedAt.IsZero(), false)
	}
	equalSlices(t, "steps", got, []string{
		"good SUCCESS 7  0 false false",
		"bad ERROR  boom 2 false false",
		"short SUCCESS   0 false false",
		"retried ERROR  boom 1 true true",
	})
	_, err := e.store.RunHandle(1 << 40).Steps(t.Context())
	wantError(t, err, pgqrs.ErrNotFound)
	_, err = e.store.RunHandle(1 << 40).Info(t.Context())
	wantError(t, err, pgqrs.ErrNotFound)
}
