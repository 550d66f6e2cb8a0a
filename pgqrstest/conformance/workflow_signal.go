package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var signalCases = []testcase{
	{"a signal that is sent before anybody waits for it is found by the Wait", "an approval that comes quickly would be lost, and the order wait for ever", signalBefore},
	{"a signal wakes a waiting run at once", "whoever approved would wait for the next poll for no reason", signalWakes},
	{"a signal in the caller's transaction is sent if and only if it commits", "a run would go on because of something that never happened", signalTx},
	{"a signal that is sent between the look for it and the going to sleep is not lost", "a run would wait for ever, with its signal in the table", signalBetween},
	{"many signals from several senders each arrive once, in each sender's order", "signals would be lost, doubled or turned round under load", signalMany},
	{"an execution that has lost its lease takes no signal", "the signal would be lost, and the run wait for ever", signalStale},
	{"the nth Wait takes the nth signal, now and on every replay", "a replayed run would take another turn than the first time", signalNumbers},
	{"a Wait whose time is up fails the same on every replay, and leaves a late signal to the next", "a late approval would turn a run round that has gone on without it", signalTimeout},
	{"a Wait without a timeout waits for ever, and shows as waiting", "a run would give up without being told to, or an operator not see what it waits for", signalForever},
	{"signals of different names do not mix", "a rejection would be taken for an approval", signalNames},
	{"a signal that nobody can receive is an error for its sender", "the sender would believe that it had arrived", signalErrors},
	{"a signal's value that does not decode is an error of the Wait, the same on every replay", "a typing mistake would be taken for a zero value", signalDecode},
	{"a Wait costs no slot and burns no attempt, however often its run is woken in vain", "a chatty sender would bury the run in the dead letters", signalVain},
}

const (
	approved pgqrs.Signal[string] = "approved"
	rejected pgqrs.Signal[string] = "rejected"
)

// waiting returns a function that waits for n signals and returns their values.
func waiting(timeout time.Duration) func(context.Context, *pgqrs.Run, int) (string, error) {
	return func(ctx context.Context, run *pgqrs.Run, n int) (string, error) {
		var values []string
		for range n {
			v, err := approved.Wait(ctx, run, timeout)
			if err != nil {
				return "", err
			}
			values = append(values, v)
		}
		return strings.Join(values, " "), nil
	}
}

func waiters(s *pgqrs.Store) *pgqrs.Workflow[int, string] {
	return pgqrs.NewWorkflow[int, string](s, "waiters")
}

func signalBefore(t *testing.T, e *env) {
	w := waiters(e.store)
	run := launch(t, w, 1)
	must(t, approved.Send(t.Context(), e.store, run.ID(), "early"))
	start(t, fast(w.Handle(waiting(time.Hour))))
	equal(t, "result", finished(t, run), "early")
	equal(t, "number of steps", len(value(run.Steps(t.Context()))(t)), 1)
}

func signalWakes(t *testing.T, e *env) {
	store, net := e.farStore(t)
	w := waiters(store)
	start(t, &pgqrs.Worker{Handlers: []pgqrs.Handler{w.Handle(waiting(0))}, PollInterval: never})
	run := launch(t, w, 1)
	asleep(t, e, run, "approved#1")
	(&idler{net: net}).sleep(t, e)
	must(t, approved.Send(t.Context(), store, run.ID(), "now"))
	equal(t, "result", finished(t, run), "now")
}

func signalTx(t *testing.T, e *env) {
	w := waiters(e.store)
	start(t, fast(w.Handle(waiting(0))))
	eachTx(e, func(tx *callerTx) {
		run := launch(t, w, 1)
		asleep(t, e, run, "approved#1")
		before := e.view(t, e.runInfo(t, run.ID()).MessageID)
		must(t, approved.Send(t.Context(), e.store.WithTx(tx.begin(t)), run.ID(), "in the transaction"))
		equal(t, "the run's message before the end", e.view(t, e.runInfo(t, run.ID()).MessageID), before)
		tx.end(t)
		want := "in the transaction"
		if !tx.commit {
			want = "after it"
			must(t, approved.Send(t.Context(), e.store, run.ID(), want))
		}
		equal(t, "result", finished(t, run), want)
	})
}

// just calls do, unless it is nil, before the first statement with the tag reaches the database. do
// must not use the same network.
func (n *network) just(tag string, do func()) {
	f, _ := once(tag, refused)
	n.fail(func(text string) fault {
		if f(text) != none {
			do()
		}
		return none
	})
}

func signalBetween(t *testing.T, e *env) {
	for _, tag := range []string{"pgqrs:message.release", "pgqrs:step.save", "pgqrs:signal.take"} {
		store, net := e.farStore(t)
		name := strings.TrimPrefix(tag, "pgqrs:")
		w := pgqrs.NewWorkflow[int, string](store, name)
		run := launch(t, pgqrs.NewWorkflow[int, string](e.store, name), 1)
		if tag == "pgqrs:signal.take" {
			// Inside its transaction nobody else could write on SQLite.
			start(t, fast(w.Handle(func(ctx context.Context, r *pgqrs.Run, n int) (string, error) {
				if stepOf(t, run, "approved#1").Name == "" {
					must(t, approved.Send(t.Context(), e.store, run.ID(), tag))
				}
				return waiting(0)(ctx, r, n)
			})))
		} else {
			net.just(tag, func() { must(t, approved.Send(t.Context(), e.store, run.ID(), tag)) })
			start(t, fast(w.Handle(waiting(0))))
		}
		equal(t, "result", finished(t, run), tag)
	}
}

// sendMany sends a signal. Under BEGIN CONCURRENT it sends it again if the call gives up, because
// then nothing was sent.
func (e *env) sendMany(t *testing.T, run int64, value string) error {
	err := approved.Send(t.Context(), e.store, run, value)
	for tries := 1; tries < 10 && e.config.Concurrent && err != nil && strings.Contains(err.Error(), "tried 25 times"); tries++ {
		err = approved.Send(t.Context(), e.store, run, value)
	}
	return err
}

func signalMany(t *testing.T, e *env) {
	const senders, each = 4, 50
	w := waiters(e.store)
	worker := w.Handle(waiting(0))
	start(t, fast(worker))
	run := launch(t, w, senders*each)
	together(t, senders, func(i int) error {
		for n := range each {
			if err := e.sendMany(t, run.ID(), fmt.Sprintf("%d:%02d", i, n)); err != nil {
				return err
			}
		}
		return nil
	})
	got := strings.Fields(finished(t, run))
	equal(t, "number of signals", len(got), senders*each)
	next := make([]int, senders)
	for _, v := range got {
		var sender, n int
		value(fmt.Sscanf(v, "%d:%d", &sender, &n))(t)
		equal(t, fmt.Sprintf("next signal of sender %d", sender), n, next[sender])
		next[sender]++
	}
}

func signalStale(t *testing.T, e *env) {
	h := stale(t, e, true, func(ctx context.Context, s *pgqrs.Store, run *pgqrs.Run) (string, error) {
		if err := approved.Send(context.WithoutCancel(t.Context()), s, run.ID(), "yes"); err != nil {
			return "", err
		}
		return approved.Wait(ctx, run, 0)
	})
	equal(t, "result", finished(t, h), "yes")
}

func signalNumbers(t *testing.T, e *env) {
	w := waiters(e.store)
	var seen tally[string]
	h := w.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (string, error) {
		values, err := waiting(time.Hour)(ctx, run, n)
		if err != nil {
			return "", err
		}
		seen.add(values)
		return values, run.Sleep(ctx, "nap", time.Millisecond)
	})
	run := launch(t, w, 3)
	for _, v := range []string{"one", "two", "three", "four"} {
		must(t, approved.Send(t.Context(), e.store, run.ID(), v))
	}
	start(t, fast(h))
	equal(t, "result", finished(t, run), "one two three")
	equalSlices(t, "values of each execution", seen.all(), []string{"one two three", "one two three"})
	for i, want := range []string{`"one"`, `"two"`, `"three"`} {
		equal(t, "recorded value", string(e.step(t, run.ID(), fmt.Sprintf("approved#%d", i+1)).Output), want)
	}
}

func signalTimeout(t *testing.T, e *env) {
	w := waiters(e.store)
	var seen tally[string]
	h := w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		_, err := approved.Wait(ctx, run, time.Hour)
		if errors.Is(err, pgqrs.ErrSuspended) {
			return "", err
		}
		var failed *pgqrs.RunError
		seen.add(fmt.Sprint(errors.Is(err, pgqrs.ErrTimeout), errors.As(err, &failed), err))
		if err := run.Sleep(ctx, "nap", time.Hour); err != nil {
			return "", err
		}
		return approved.Wait(ctx, run, time.Hour)
	})
	run := launch(t, w, 1)
	until := func(step string) {
		t.Helper()
		stop := start(t, fast(h))
		asleep(t, e, run, step)
		must(t, stop())
	}
	until("approved#1")
	waits := e.step(t, run.ID(), "approved#1")
	equal(t, "status of the step", waits.Status, pgqrs.Paused)
	stillWaits(t, waits, time.Hour)
	pgqrstest.Advance(t, e.store, time.Hour)
	until("nap")
	must(t, approved.Send(t.Context(), e.store, run.ID(), "late"))
	pgqrstest.Advance(t, e.store, time.Hour)
	start(t, fast(h))
	equal(t, "result", finished(t, run), "late")
	all := seen.all()
	equal(t, "times it went past the first Wait", len(all) >= 2, true)
	for _, s := range all {
		equal(t, "error of the first Wait", s, all[0])
	}
	wantText(t, "error", all[0], "true true", "approved#1")
	equal(t, "status of the first Wait", e.step(t, run.ID(), "approved#1").Status, pgqrs.Failed)
}

func signalForever(t *testing.T, e *env) {
	w := waiters(e.store)
	h := w.Handle(waiting(0))
	run := launch(t, w, 1)
	until := func() {
		t.Helper()
		stop := start(t, fast(h))
		asleep(t, e, run, "approved#1")
		must(t, stop())
	}
	until()
	equal(t, "status of the step", e.step(t, run.ID(), "approved#1").Status, pgqrs.Paused)
	equal(t, "time it has left", e.step(t, run.ID(), "approved#1").RetryIn, 0)
	pgqrstest.Advance(t, e.store, 10*365*24*time.Hour)
	equal(t, "scheduled", e.stats(t, "waiters").Scheduled, 1)
	e.poke(t, "UPDATE pgqrs_messages SET vt = enqueued_at") // woken for another reason
	until()
	start(t, fast(h))
	must(t, approved.Send(t.Context(), e.store, run.ID(), "at last"))
	equal(t, "result", finished(t, run), "at last")
}

func signalNames(t *testing.T, e *env) {
	w := waiters(e.store)
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		a, err := approved.Wait(ctx, run, time.Hour)
		if err != nil {
			return "", err
		}
		b, err := rejected.Wait(ctx, run, time.Hour)
		return a + " " + b, err
	})))
	run, other := launch(t, w, 1), launch(t, w, 2)
	must(t, rejected.Send(t.Context(), e.store, run.ID(), "no"))
	must(t, rejected.Send(t.Context(), e.store, other.ID(), "other"))
	asleep(t, e, run, "approved#1")
	must(t, approved.Send(t.Context(), e.store, run.ID(), "yes"))
	equal(t, "result", finished(t, run), "yes no")
	asleep(t, e, other, "approved#1")
	equal(t, "status of another run", e.runInfo(t, other.ID()).Status, pgqrs.Running)
}

func signalErrors(t *testing.T, e *env) {
	w := waiters(e.store)
	ctx := t.Context()
	wantError(t, approved.Send(ctx, e.store, 1<<40, "x"), pgqrs.ErrNotFound)
	run, cancelled := launch(t, w, 0), launch(t, w, 1)
	must(t, cancelled.Cancel(ctx))
	wantError(t, pgqrs.Signal[chan int]("approved").Send(ctx, e.store, run.ID(), nil), pgqrs.ErrInvalidPayload)
	wantErrorText(t, pgqrs.Signal[int]("").Send(ctx, e.store, run.ID(), 1), "empty signal name")
	limited := e.newStore(t, pgqrs.Config{Limits: pgqrs.Limits{MaxPayload: 10}})
	wantError(t, approved.Send(ctx, limited, run.ID(), strings.Repeat("x", 20)), pgqrs.ErrInvalidPayload)
	start(t, fast(w.Handle(waiting(0))))
	finished(t, run)
	e.awaitRun(t, cancelled.ID(), pgqrs.Cancelled)
	for _, over := range []*pgqrs.RunHandle[string]{run, cancelled} {
		err := approved.Send(ctx, e.store, over.ID(), "x")
		wantError(t, err, pgqrs.ErrState)
		wantText(t, "error", err.Error(), fmt.Sprint("run ", over.ID()), "approved", string(e.runInfo(t, over.ID()).Status))
	}
	equal(t, "signals stored", e.signals(t), 0)
}

// signals counts the signals that are stored.
func (e *env) signals(t *testing.T) (n int) {
	t.Helper()
	must(t, e.db.QueryRowContext(t.Context(), "SELECT count(*) FROM pgqrs_workflow_signals").Scan(&n))
	return n
}

func signalDecode(t *testing.T, e *env) {
	w := pgqrs.NewWorkflow[int, string](e.store, "waiters")
	var seen tally[string]
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		v, err := pgqrs.Signal[int]("approved").Wait(ctx, run, 0)
		if errors.Is(err, pgqrs.ErrSuspended) {
			return "", err
		}
		seen.add(fmt.Sprint(v, errors.Is(err, pgqrs.ErrInvalidPayload), err))
		return "went on", run.Sleep(ctx, "nap", time.Millisecond)
	})))
	run := launch(t, w, 1)
	must(t, approved.Send(t.Context(), e.store, run.ID(), "text"))
	equal(t, "result", finished(t, run), "went on")
	all := seen.all()
	equal(t, "executions", len(all), 2)
	equal(t, "error on replay", all[1], all[0])
	wantText(t, "error", all[0], "0 true", "approved#1", "int")
}

func signalVain(t *testing.T, e *env) {
	w := waiters(e.store).With(atOnce(2))
	worker := fast(w.Handle(waiting(0)))
	worker.Concurrency = 1
	start(t, worker)
	run := launch(t, w, 1)
	asleep(t, e, run, "approved#1")
	for i := range 5 {
		claims := e.info(t, e.runInfo(t, run.ID()).MessageID).Claim
		must(t, rejected.Send(t.Context(), e.store, run.ID(), fmt.Sprint(i)))
		eventually(t, "the run has been woken", func() bool { return e.info(t, e.runInfo(t, run.ID()).MessageID).Claim > claims })
		asleep(t, e, run, "approved#1")
		equal(t, "attempts", e.info(t, e.runInfo(t, run.ID()).MessageID).Attempt, 0)
	}
	must(t, approved.Send(t.Context(), e.store, run.ID(), "yes"))
	equal(t, "result", finished(t, run), "yes")
}
