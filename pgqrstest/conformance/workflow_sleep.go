package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var sleepCases = []testcase{
	{"a sleeping run holds no slot of its worker", "a worker full of sleeping runs would do nothing else for days", sleepSlot},
	{"a sleep survives its worker: another one goes on when the time has passed", "every deploy would begin all sleeps anew, or end them", sleepTakeover},
	{"a run wakes when its time has come by the database's clock, and not before", "a host whose clock is wrong would wake runs too early or too late", sleepClock},
	{"a sleep of no time returns at once, and is recorded", "a computed delay that comes out as nothing would cost a round, or go wrong on replay", sleepZero},
	{"a sleeping run costs no statement, and shows as scheduled until it wakes", "a million sleeping runs would keep the database busy", sleepIdle},
	{"sleeps burn no attempt, however many there are", "a run of many sleeps would end in the dead letters", sleepAttempts},
}

// launch starts a run.
func launch[In, Out any](t *testing.T, w *pgqrs.Workflow[In, Out], in In, opts ...pgqrs.Option) *pgqrs.RunHandle[Out] {
	t.Helper()
	return value(w.Start(t.Context(), in, opts...))(t)
}

// patience returns a ctx that ends after the time that a case waits for anything.
func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), tooLong)
	t.Cleanup(cancel)
	return ctx
}

// finished waits for a run's result, which must not be an error.
func finished[Out any](t *testing.T, run *pgqrs.RunHandle[Out]) Out {
	t.Helper()
	return value(run.Result(patience(t)))(t)
}

// stepOf reads a step of a run. It returns the zero value if the run has no step of that name.
func stepOf[Out any](t *testing.T, run *pgqrs.RunHandle[Out], name string) pgqrs.StepInfo {
	t.Helper()
	for _, s := range value(run.Steps(t.Context()))(t) {
		if s.Name == name {
			return s
		}
	}
	return pgqrs.StepInfo{}
}

// asleep waits until a run is suspended: it has no worker, and the named step waits.
func asleep[Out any](t *testing.T, e *env, run *pgqrs.RunHandle[Out], step string) {
	t.Helper()
	eventually(t, fmt.Sprintf("run %d waits at step %q", run.ID(), step), func() bool {
		return stepOf(t, run, step).Name == step && e.info(t, e.runInfo(t, run.ID()).MessageID).State == pgqrs.Scheduled
	})
}

// napping returns a function that calls a step, sleeps, and calls another step.
func napping(calls *tally[string], d time.Duration) func(context.Context, *pgqrs.Run, string) (string, error) {
	return func(ctx context.Context, run *pgqrs.Run, in string) (string, error) {
		calls.add("function")
		if err := noted(ctx, run, calls, "before"); err != nil {
			return "", err
		}
		if err := run.Sleep(ctx, "nap", d); err != nil {
			return "", err
		}
		return in + " is up", noted(ctx, run, calls, "after")
	}
}

// noted is a step that notes its name.
func noted(ctx context.Context, run *pgqrs.Run, calls *tally[string], name string) error {
	return run.Do(ctx, name, func(context.Context) error {
		calls.add(name)
		return nil
	})
}

var onceAround = []string{"function", "before", "function", "after"}

func sleepSlot(t *testing.T, e *env) {
	w, q := pgqrs.NewWorkflow[string, string](e.store, "naps"), pgqrs.NewQueue[string](e.store, "other")
	h, got := handling(q)
	var calls tally[string]
	worker := fast(w.Handle(napping(&calls, time.Hour)), h)
	worker.Concurrency = 1
	start(t, worker)
	runs := []*pgqrs.RunHandle[string]{launch(t, w, "one"), launch(t, w, "two")}
	for _, run := range runs {
		asleep(t, e, run, "nap")
	}
	enqueue(t, q, "x")
	receive(t, "the worker handles something else", got)
	for _, run := range runs {
		equal(t, "status", e.runInfo(t, run.ID()).Status, pgqrs.Running)
	}
}

func sleepTakeover(t *testing.T, e *env) {
	var calls tally[string]
	w := pgqrs.NewWorkflow[string, string](e.store, "naps")
	stop := start(t, fast(w.Handle(napping(&calls, time.Hour))))
	run := launch(t, w, "it")
	asleep(t, e, run, "nap")
	must(t, stop())
	pgqrstest.Advance(t, e.store, time.Hour)
	other := pgqrs.NewWorkflow[string, string](e.newStore(t, pgqrs.Config{}), "naps")
	start(t, fast(other.Handle(napping(&calls, time.Hour))))
	equal(t, "result", finished(t, run), "it is up")
	equalSlices(t, "calls", calls.all(), onceAround)
}

func sleepClock(t *testing.T, e *env) {
	var calls tally[string]
	w := pgqrs.NewWorkflow[string, string](e.store, "naps")
	h := w.Handle(napping(&calls, time.Hour))
	run := launch(t, w, "it")
	round := func() {
		t.Helper()
		stop := start(t, fast(h))
		asleep(t, e, run, "nap")
		must(t, stop())
	}
	round()
	begun := e.step(t, run.ID(), "nap")
	equal(t, "status of the step", begun.Status, pgqrs.Running)
	stillWaits(t, begun, time.Hour)
	pgqrstest.Advance(t, e.store, 50*time.Minute)
	e.poke(t, "UPDATE pgqrs_messages SET vt = enqueued_at") // woken for another reason
	round()
	equalSlices(t, "calls when it was woken too early", calls.all(), []string{"function", "before", "function"})
	stillWaits(t, e.step(t, run.ID(), "nap"), 10*time.Minute)
	pgqrstest.Advance(t, e.store, 10*time.Minute)
	start(t, fast(h))
	equal(t, "result", finished(t, run), "it is up")
	ended := e.step(t, run.ID(), "nap")
	equal(t, "status of the step", ended.Status, pgqrs.Succeeded)
	if slept := ended.EndedAt.Sub(ended.StartedAt); slept < time.Hour || slept > time.Hour+time.Minute {
		t.Errorf("it slept for %v; want an hour", slept)
	}
}

func sleepZero(t *testing.T, e *env) {
	for _, d := range []time.Duration{0, -time.Hour} {
		var calls tally[string]
		w := pgqrs.NewWorkflow[string, string](e.store, fmt.Sprint("naps", d))
		start(t, fast(w.Handle(napping(&calls, d))))
		run := launch(t, w, "it")
		equal(t, "result", finished(t, run), "it is up")
		equalSlices(t, "calls", calls.all(), []string{"function", "before", "after"})
		equal(t, "status of the step", e.step(t, run.ID(), "nap").Status, pgqrs.Succeeded)
	}
}

// A counter counts the statements that pass a network, by their tags.
type counter struct {
	mu   sync.Mutex
	tags map[string]int
}

// watch starts a counter.
func (n *network) watch() *counter {
	c := &counter{tags: map[string]int{}}
	n.fail(func(text string) fault {
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, after, ok := strings.Cut(text, "/* pgqrs:"); ok {
			tag, _, _ := strings.Cut(after, " ")
			c.tags[tag]++
		}
		return none
	})
	return c
}

func (c *counter) count(tag string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tags[tag]
}

// maintenance lists other statements that a Worker sends when it starts, and a few times a minute.
// The prefix "schema." is for a single check of the database's settings.
var maintenance = []string{
	"message.disown", "message.prune", "message.unreachable", "message.bury", "run.expired", "run.stranded", "queue.unattended", "queue.misfit", "schema.shared",
	"schedule.prune", "group.sweep", "group.prune", "batch.sweep",
}

func sleepIdle(t *testing.T, e *env) {
	store, net := e.farStore(t)
	var calls tally[string]
	w := pgqrs.NewWorkflow[string, string](store, "naps")
	start(t, fast(w.Handle(napping(&calls, time.Hour))))
	run := launch(t, w, "it")
	asleep(t, e, run, "nap")
	polls := func(c *counter, n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("the worker has polled %d times", n), func() bool { return c.count("worker.poll") >= n })
	}
	polls(net.watch(), 2) // it may have claimed once more
	c := net.watch()
	polls(c, 10)
	net.heal()
	maintained := 0
	for _, tag := range maintenance {
		maintained += c.count(tag)
	}
	for tag, n := range c.tags {
		if (tag == "begin" || tag == "commit") && n <= maintained+1 {
			continue // of a maintenance transaction, where BEGIN is a statement. One may have begun before
		}
		if !strings.HasPrefix(tag, "worker.") && !(strings.HasPrefix(tag, "schema.") && n == 1) && !slices.Contains(maintenance, tag) {
			t.Errorf("%d statements %q while the run slept", n, tag)
		}
	}
	q, info, nap := e.stats(t, "naps"), e.runInfo(t, run.ID()), e.step(t, run.ID(), "nap")
	equal(t, "scheduled", q.Scheduled, 1)
	equal(t, "ready and leased", q.Ready+q.Leased, 0)
	equal(t, "status", info.Status, pgqrs.Running)
	if wait := info.DueAt.Sub(nap.StartedAt); wait < time.Hour || wait > time.Hour+time.Minute {
		t.Errorf("the run is due %v after it went to sleep; want an hour", wait)
	}
}

func sleepAttempts(t *testing.T, e *env) {
	const naps = 12
	w := pgqrs.NewWorkflow[int, int](e.store, "naps").With(atOnce(2))
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, in int) (int, error) {
		for i := range naps {
			if err := run.Sleep(ctx, fmt.Sprint("nap ", i), time.Millisecond); err != nil {
				return 0, err
			}
		}
		return naps, nil
	})))
	run := launch(t, w, 1)
	equal(t, "result", finished(t, run), naps)
	m := e.info(t, e.runInfo(t, run.ID()).MessageID)
	equal(t, "attempts", m.Attempt, 1)
	if m.Claim <= naps {
		t.Errorf("it was claimed %d times; want one more than %d sleeps", m.Claim, naps)
	}
}
