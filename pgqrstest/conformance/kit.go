package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/dbtest"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var kitCases = []testcase{
	{"Drain works through retries without waiting for their backoff", "a user's test would take as long as the backoff", kitDrain},
	{"Drain leaves messages that are delayed, until Advance makes them due", "a user could not test what happens later", kitDelayed},
	{"Drain names what is left, and why", "a user would wait a minute to learn that something is wrong, and not what", kitDrainFails},
	{"Drain and Advance find the tables of Config.Schema", "a user's tests would need another schema than the application", kitSchema},
	{"RequireEnqueued finds an unfinished message by its payload, whatever its state", "a user could not test what their code enqueues", kitRequire},
	{"Advance ends leases", "a user could not test what happens after a crash", kitAdvance},
	{"Drain skips the sleeps of runs and the backoffs of their steps, with their children", "a user's test of a workflow would take as long as the workflow", kitDrainRuns},
	{"Drain leaves runs that wait for a signal, with a timeout or without, and paused ones", "a user could not test what happens while nobody answers", kitDrainWaits},
	{"Advance wakes sleeping runs and ends the time of Waits", "a user could not test what happens when nobody answers", kitAdvanceRuns},
	{"NewRun returns given results as a replay would, and Ran says what ran", "a user could not test a workflow's function without a database", kitNewRun},
	{"NewRun takes the results of children", "a user could not test a parent without its children", kitNewRunChildren},
	{"NewRun says what needs a database", "a user would not know why their test fails", kitNewRunRefuses},
}

func kitDrain(t *testing.T, e *env) {
	slow := pgqrs.Policy{MaxAttempts: 4, Backoff: func(int) time.Duration { return 100 * time.Hour }}
	a, b := pgqrs.NewQueue[int](e.store, "a").With(slow), pgqrs.NewQueue[int](e.store, "b").With(slow)
	var attempts tally[int]
	ha := a.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
		attempts.add(m.Attempt)
		if m.Attempt < 3 {
			return errBoom
		}
		_, err := b.Enqueue(ctx, m.Payload)
		return err
	})
	hb := b.Handle(func(context.Context, *pgqrs.Message[int]) error { return errBoom })
	id := enqueue(t, a, 7)
	pgqrstest.Drain(t, e.store, []string{"a", "b"}, ha, hb)
	equalSlices(t, "attempts", attempts.all(), []int{1, 2, 3})
	equal(t, "state", e.info(t, id).State, pgqrs.Archived)
	dead := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "b", State: pgqrs.Dead}))(t)
	equal(t, "dead letters of the other queue", len(dead), 1)
	equal(t, "their attempts", dead[0].Attempt, 4)
}

func kitDelayed(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "later")
	h, got := handling(q)
	id := enqueue(t, q, "x", pgqrs.Delay(time.Hour))
	pgqrstest.Drain(t, e.store, []string{"later"}, h)
	equal(t, "messages handled", len(got), 0)
	pgqrstest.Advance(t, e.store, time.Hour)
	pgqrstest.Drain(t, e.store, []string{"later"}, h)
	equal(t, "messages handled", len(got), 1)
	equal(t, "state", e.info(t, id).State, pgqrs.Archived)
}

func kitRequire(t *testing.T, e *env) {
	type mail struct{ To, Subject string }
	q := pgqrs.NewQueue[mail](e.store, "mail")
	leased := enqueue(t, q, mail{"ada", "hello"}, pgqrs.Priority(2))
	done := enqueue(t, q, mail{"gone", "hello"}, pgqrs.Priority(1))
	ms := dequeue(t, q, 2)
	equalSlices(t, "dequeued", messageIDs(ms), []int64{leased, done})
	must(t, q.Ack(t.Context(), ms[1]))
	ready := enqueue(t, q, mail{"bob", "hello"})
	delayed := enqueue(t, q, mail{"eve", "later"}, pgqrs.Delay(time.Hour))
	for to, id := range map[string]int64{"ada": leased, "bob": ready, "eve": delayed} {
		m := pgqrstest.RequireEnqueued(t, e.store, "mail", func(m mail) bool { return m.To == to })
		equal(t, "message to "+to, m.ID, id)
		equal(t, "recipient", m.Payload.To, to)
	}
	equal(t, "any message", pgqrstest.RequireEnqueued[mail](t, e.store, "mail", nil).ID, ready)
	equal(t, "whether a test fails that wants one that is done", failsTest(t, func(tb testing.TB) {
		pgqrstest.RequireEnqueued(tb, e.store, "mail", func(m mail) bool { return m.To == "gone" })
	}), true)
}

// A probe is a testing.TB that records its failure instead of failing the test.
type probe struct {
	testing.TB
	failure string
}

// Fatalf records the failure and ends the goroutine, as a test's Fatalf does.
func (p *probe) Fatalf(format string, args ...any) {
	p.failure = fmt.Sprintf(format, args...)
	panic(p)
}

// failsTest reports whether fn fails the test that it is given.
func failsTest(t *testing.T, fn func(testing.TB)) bool {
	t.Helper()
	return failure(t, fn) != ""
}

// failure returns the text with which fn fails the test that it is given, or "".
func failure(t *testing.T, fn func(testing.TB)) (text string) {
	t.Helper()
	p := &probe{TB: t}
	defer func() {
		if v := recover(); v != nil && v != any(p) {
			panic(v)
		}
		text = p.failure
	}()
	fn(p)
	return ""
}

func kitDrainFails(t *testing.T, e *env) {
	const inTime, tooEarly = 3 * time.Second, 20 * time.Millisecond
	mistyped := pgqrs.NewQueue[int](e.store, "a")
	id := enqueue(t, mistyped, 7)
	began := time.Now()
	text := failure(t, func(tb testing.TB) {
		pgqrstest.Drain(tb, e.store, []string{"a", "b"}, pgqrs.NewQueue[int](e.store, "b").Handle(nothing))
	})
	wantText(t, "failure", text, `queue "a": 1 ready`, `no handler for queue "a"`, fmt.Sprintf("message %d, ready", id))
	if took := time.Since(began); took > tooLong/2 {
		t.Errorf("Drain took %v to find out that nobody takes the messages of a queue", took)
	}
	stop := start(t, fast(mistyped.Handle(nothing)))
	pgqrstest.Drain(t, e.store, []string{"a"}, pgqrs.NewQueue[int](e.store, "b").Handle(nothing))
	must(t, stop())

	must(t, e.store.PauseQueue(t.Context(), "a"))
	enqueue(t, mistyped, 7)
	wantText(t, "failure", failure(t, func(tb testing.TB) {
		dbtest.Drain(tb, e.store, tooEarly, []string{"a"}, mistyped.Handle(nothing))
	}), `queue "a": 1 ready`, "the queue is paused")

	endless := pgqrs.NewQueue[int](e.store, "endless").With(pgqrs.Policy{MaxAttempts: -1})
	enqueue(t, endless, 7)
	wantText(t, "failure", failure(t, func(tb testing.TB) {
		dbtest.Drain(tb, e.store, inTime, []string{"endless"}, endless.Handle(func(context.Context, *pgqrs.Message[int]) error { return errBoom }))
	}), `queue "endless"`, "last error: "+errBoom.Error())

	hangs := pgqrs.NewQueue[int](e.store, "hangs")
	id = enqueue(t, hangs, 7)
	gate := make(chan struct{})
	defer close(gate)
	begun := make(chan struct{}, 1)
	wantText(t, "failure", failure(t, func(tb testing.TB) {
		dbtest.Drain(tb, e.store, inTime, []string{"hangs"}, hangs.Handle(func(context.Context, *pgqrs.Message[int]) error {
			begun <- struct{}{}
			<-gate
			return nil
		}))
	}), `queue "hangs"`, "1 leased", "a handler has not returned", fmt.Sprintf("message %d, leased, attempt 1, held by worker", id))
}

func nothing(context.Context, *pgqrs.Message[int]) error { return nil }

func kitSchema(t *testing.T, e *env) {
	e.schemas(t)
	store := e.schema(t, "kit_")
	must(t, store.Install(t.Context()))
	q := pgqrs.NewQueue[string](store, "q")
	h, got := handling(q)
	enqueue(t, q, "later", pgqrs.Delay(time.Hour))
	pgqrstest.Advance(t, store, time.Hour)
	pgqrstest.Drain(t, store, []string{"q"}, h)
	equal(t, "messages handled", len(got), 1)
	slow := q.With(pgqrs.Policy{MaxAttempts: 2, Backoff: func(int) time.Duration { return time.Hour }})
	enqueue(t, q, "again")
	pgqrstest.Drain(t, store, []string{"q"}, slow.Handle(func(context.Context, *pgqrs.Message[string]) error { return errBoom }))
	equal(t, "dead letters", value(store.Queues(t.Context(), "q"))(t)[0].Dead, int64(1))
}

func kitAdvance(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "crashed")
	id := enqueue(t, q, 1)
	m := dequeueOne(t, q)
	pgqrstest.Advance(t, e.store, 20*time.Second)
	equal(t, "state before the lease ends", e.info(t, id).State, pgqrs.Leased)
	pgqrstest.Advance(t, e.store, 10*time.Second)
	equal(t, "state after", e.info(t, id).State, pgqrs.Ready)
	again := dequeueOne(t, pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "crashed"))
	equal(t, "attempt", again.Attempt, 2)
	wantError(t, q.Ack(t.Context(), m), pgqrs.ErrLeaseLost)
}

func kitDrainRuns(t *testing.T, e *env) {
	kids := pgqrs.NewWorkflow[int, int](e.store, "kids")
	var tries gauge
	h := kids.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
		if err := run.Sleep(ctx, "nap", 100*time.Hour); err != nil {
			return 0, err
		}
		return pgqrs.Step(ctx, run, "unsteady", func(context.Context) (int, error) {
			tries.add(1)
			if _, most := tries.read(); most < 3 {
				return 0, pgqrs.RetryAfter(100*time.Hour, errBoom)
			}
			return 2 * n, nil
		})
	})
	parents := pgqrs.NewWorkflow[int, int](e.store, "parents")
	run := launch(t, parents, 21)
	pgqrstest.Drain(t, e.store, []string{"parents", "kids"}, h, parents.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
		for i := range 3 {
			if err := run.Sleep(ctx, fmt.Sprint("nap ", i), 100*time.Hour); err != nil {
				return 0, err
			}
		}
		return kids.Child(ctx, run, "kid", n)
	}))
	equal(t, "status when Drain returns", e.runInfo(t, run.ID()).Status, pgqrs.Succeeded)
	equal(t, "result", finished(t, run), 42)
}

func kitDrainWaits(t *testing.T, e *env) {
	runs := map[time.Duration]*pgqrs.RunHandle[string]{}
	queues, handlers := []string{}, []pgqrs.Handler{}
	for _, timeout := range []time.Duration{0, time.Hour} {
		w := pgqrs.NewWorkflow[int, string](e.store, fmt.Sprint("waiters", timeout))
		runs[timeout] = launch(t, w, 1)
		queues = append(queues, fmt.Sprint("waiters", timeout))
		handlers = append(handlers, w.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (string, error) {
			if err := run.Sleep(ctx, "nap", time.Hour); err != nil {
				return "", err
			}
			return waiting(timeout)(ctx, run, n)
		}))
	}
	paused := e.run(t)
	must(t, paused.Pause(t.Context()))
	queues, handlers = append(queues, "orders"), append(handlers, sells(orders(e.store)))
	pgqrstest.Drain(t, e.store, queues, handlers...)
	equal(t, "status of a paused run", e.runInfo(t, paused.ID()).Status, pgqrs.Paused)
	for timeout, run := range runs {
		equal(t, "status of a run that waits", e.runInfo(t, run.ID()).Status, pgqrs.Running)
		equal(t, "time it has left", e.step(t, run.ID(), "approved#1").RetryIn > timeout-time.Minute, true)
		must(t, approved.Send(t.Context(), e.store, run.ID(), "yes"))
	}
	pgqrstest.Drain(t, e.store, queues, handlers...)
	for _, run := range runs {
		equal(t, "status when Drain returns", e.runInfo(t, run.ID()).Status, pgqrs.Succeeded)
	}
}

func kitAdvanceRuns(t *testing.T, e *env) {
	w := waiters(e.store)
	h := w.Handle(waiting(time.Hour))
	run := launch(t, w, 1)
	for _, minutes := range []int{0, 40, 20} {
		pgqrstest.Advance(t, e.store, time.Duration(minutes)*time.Minute)
		equal(t, "whether it has ended", e.runInfo(t, run.ID()).EndedAt.IsZero(), true)
		pgqrstest.Drain(t, e.store, []string{"waiters"}, h)
	}
	info := e.runInfo(t, run.ID())
	equal(t, "status", info.Status, pgqrs.Failed)
	wantText(t, "error", info.Error, "no signal came in time")

	var calls tally[string]
	naps := pgqrs.NewWorkflow[string, string](e.store, "naps")
	nap := launch(t, naps, "it")
	stop := start(t, fast(naps.Handle(napping(&calls, time.Hour))))
	asleep(t, e, nap, "nap")
	must(t, stop())
	pgqrstest.Advance(t, e.store, time.Hour)
	equal(t, "ready after Advance", e.stats(t, "naps").Ready, int64(1))
	start(t, fast(naps.Handle(napping(&calls, time.Hour))))
	equal(t, "result", finished(t, nap), "it is up")
}

func kitNewRun(t *testing.T, _ *env) {
	ctx := t.Context()
	run := pgqrstest.NewRun(t, map[string]any{
		"charge": map[string]any{"id": "ch_1"}, "ship": errBoom, "late": pgqrs.ErrTimeout, "stop": pgqrs.Permanent(errBoom),
		"approved": "yes", "approved#3": "third", "version:fraud": 1, "cancelled": pgqrs.ErrCancelled, "gone": pgqrs.ErrSuspended,
	})
	type charge struct{ ID string }
	equal(t, "result", value(pgqrs.Step(ctx, run, "charge", func(context.Context) (charge, error) { return charge{}, errTest }))(t).ID, "ch_1")
	var failed *pgqrs.RunError
	err := run.Do(ctx, "ship", nil)
	equal(t, "whether it is a recorded failure", errors.As(err, &failed), true)
	equal(t, "whether it matches what it was made of", errors.Is(err, errBoom), false)
	equal(t, "step and text", failed.Step+" "+failed.Err.Error(), "ship "+errBoom.Error())
	wantError(t, run.Do(ctx, "stop", nil), pgqrs.ErrPermanent)
	equal(t, "first signal", value(approved.Wait(ctx, run, 0))(t), "yes")
	_, err = approved.Wait(ctx, run, 0)
	wantError(t, err, pgqrs.ErrUnsupported)
	wantText(t, "error", err.Error(), "approved#2")
	equal(t, "third signal", value(approved.Wait(ctx, run, 0))(t), "third")
	_, err = pgqrs.Signal[string]("late").Wait(ctx, run, time.Hour)
	wantError(t, err, pgqrs.ErrTimeout)
	equal(t, "version", value(run.Version(ctx, "fraud", 2))(t), 1)
	must(t, run.Sleep(ctx, "nap", 100*time.Hour))
	equal(t, "result of a step that runs", value(pgqrs.Step(ctx, run, "count", func(context.Context) (int, error) { return 3, nil }))(t), 3)
	wantErrorText(t, run.Do(ctx, "fails", func(context.Context) error { return errTest }), errTest.Error())
	wantError(t, run.Do(ctx, "count", nil), pgqrs.ErrStepReused)
	wantError(t, run.Do(ctx, "cancelled", nil), pgqrs.ErrCancelled)
	must(t, run.Do(ctx, "clean up", func(context.Context) error { return nil }))
	wantError(t, run.Do(ctx, "gone", nil), pgqrs.ErrSuspended)
	wantError(t, run.Do(ctx, "after", nil), pgqrs.ErrSuspended)
	equalSlices(t, "what ran", pgqrstest.Ran(run), []string{"count", "fails", "clean up"})
}

func kitNewRunChildren(t *testing.T, _ *env) {
	ctx := t.Context()
	w := pgqrs.NewWorkflow[int, []int](pgqrs.New(nil, pgqrs.SQLite), "kids")
	run := pgqrstest.NewRun(t, map[string]any{
		"one": []int{1, 2}, "bad": errBoom, "cancelled": pgqrs.ErrCancelled,
		"many": []any{[]int{1}, errBoom, []int{3}}, "all": errBoom, "few": []any{[]int{1}},
	})
	equalSlices(t, "child", value(w.Child(ctx, run, "one", 1))(t), []int{1, 2})
	_, err := w.Child(ctx, run, "bad", 1)
	var failed *pgqrs.RunError
	equal(t, "whether it is a recorded failure", errors.As(err, &failed), true)
	equal(t, "workflow and text", failed.Workflow+" "+failed.Err.Error(), "kids "+errBoom.Error())
	_, err = w.Child(ctx, run, "cancelled", 1)
	wantError(t, err, pgqrs.ErrCancelled)
	out, err := w.Children(ctx, run, "many", []int{1, 2, 3})
	equal(t, "children", fmt.Sprint(out), "[[1] [] [3]]")
	equal(t, "whether it is a recorded failure", errors.As(err, &failed), true)
	_, err = w.Children(ctx, run, "all", []int{1, 2})
	equal(t, "whether it is a recorded failure", errors.As(err, &failed), true)
	_, err = w.Children(ctx, run, "few", []int{1, 2})
	wantErrorText(t, err, "slice of 2")
	equalSlices(t, "what ran", pgqrstest.Ran(run), nil)
}

func kitNewRunRefuses(t *testing.T, _ *env) {
	ctx := t.Context()
	run := pgqrstest.NewRun(t, nil)
	w := pgqrs.NewWorkflow[int, int](pgqrs.New(nil, pgqrs.SQLite), "kids")
	_, waitErr := approved.Wait(ctx, run, 0)
	_, childErr := w.Child(ctx, run, "kid", 1)
	txErr := run.DoTx(ctx, "book", func(context.Context, *sql.Tx) error { return nil })
	for name, err := range map[string]error{"approved#1": waitErr, "kid": childErr, "book": txErr} {
		wantError(t, err, pgqrs.ErrUnsupported)
		wantText(t, "error", err.Error(), name, "needs a database", "given")
	}
	equal(t, "whether a test fails that gives what is no JSON", failsTest(t, func(tb testing.TB) {
		pgqrstest.NewRun(tb, map[string]any{"x": func() {}})
	}), true)
}
