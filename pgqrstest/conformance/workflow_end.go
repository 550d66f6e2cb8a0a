package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var workflowEndCases = []testcase{
	{"a run that returns a result is SUCCESS, and Result has it, typed", "a caller would not learn what became of the order", endSuccess},
	{"a run whose function returns an error is ERROR at once, and Result returns it as a *RunError", "a run that failed would begin again, or its reason be lost", endError},
	{"a run whose function ignores its ctx and returns past Grace has ended", "work that is done would be done again", endLate},
	{"a panic of the function ends its run as ERROR, with its stack", "a bug would be repeated for hours before anybody learns of it", endPanic},
	{"a run ends and its message is acked together or not at all", "a run would be finished and worked again, or acked and never finished", endTogether},
	{"a worker that has lost its run does not end it", "a run would end with the result of a worker that nobody counts on any more", endLost},
	{"a worker that has lost its run does not end it, after it has ended many", "statements that are prepared by then would be run outside their transaction", endLostLater},
	{"a finished run that is delivered again is acked without a call of its function", "a redelivery would charge the customer twice", endRedelivered},
	{"a result that does not marshal, and an input that does not decode, end the run as ERROR", "a run would be worked again and again, with all its effects", endUndecodable},
	{"a run that kills its worker every time ends in the dead letters, and as ERROR", "a caller would wait for ever for a run that nobody works any more", endKiller},
	{"an execution that takes too long counts an attempt and waits for its backoff", "a workflow that hangs would do so without end, and without a pause", endTimeout},
	{"an unknown run is ErrNotFound to every call", "a mistyped id would wait for ever, or look like success", endUnknown},
	{"Result ends with its ctx", "a request handler would hang with its run", endResultCtx},
	{"a result that does not decode into Out is ErrInvalidPayload", "a caller would take a zero value for the result", endOtherType},
	{"finished runs are pruned with their steps and signals, but not a child whose parent waits", "the tables would grow for ever, or a parent lose its child's result", endRetention},
	{"deleting or purging a run's message takes the run, its steps and its signals along", "rows would be left that nothing ever deletes", endRemoved},
	{"a holder's Delete leaves the message of a run, and says so", "a caller would wait for ever for a run that has lost its message", endDelete},
}

func endSuccess(t *testing.T, e *env) {
	h := e.run(t)
	start(t, fast(sells(orders(e.store))))
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 20})
	equal(t, "result, to another process", value(orders(e.newStore(t, pgqrs.Config{})).RunHandle(h.ID()).Result(t.Context()))(t), receipt{"tea", 20})
	r := e.runInfo(t, h.ID())
	equal(t, "status", r.Status, pgqrs.Succeeded)
	sameJSON(t, r.Output, `{"item":"tea","total":20}`)
	equal(t, "error", r.Error, "")
	equal(t, "whether its times ascend", !r.StartedAt.Before(r.CreatedAt) && !r.EndedAt.Before(r.StartedAt), true)
	equal(t, "whether it is due", r.DueAt.IsZero(), true)
	equal(t, "state", e.info(t, r.MessageID).State, pgqrs.Archived)
	equalSlices(t, "runs that have succeeded", e.runIDs(t, pgqrs.RunFilter{Status: pgqrs.Succeeded}), []int64{h.ID()})
}

// failedRun returns a run's error, after checks that apply to every such error.
func failedRun(t *testing.T, h *pgqrs.RunHandle[receipt]) error {
	t.Helper()
	out, err := h.Result(t.Context())
	var failed *pgqrs.RunError
	if !errors.As(err, &failed) {
		t.Fatalf("error is %v; want a *RunError", err)
	}
	equal(t, "result", out, receipt{})
	equal(t, "run", failed.RunID, h.ID())
	equal(t, "workflow", failed.Workflow, "orders")
	equal(t, "step", failed.Step, "")
	return err
}

func endError(t *testing.T, e *env) {
	var calls tally[int]
	h := e.act(t, func(_ context.Context, _ *pgqrs.Run, execution int) (receipt, error) {
		calls.add(execution)
		return receipt{"tea", 1}, fmt.Errorf("no tea: %w", errBoom)
	})
	err := failedRun(t, h)
	equal(t, "text", err.Error(), fmt.Sprintf("pgqrs: run %d of workflow %q: no tea: boom", h.ID(), "orders"))
	equal(t, "whether it matches what was not recorded", errors.Is(err, errBoom), false)
	r := e.runInfo(t, h.ID())
	equal(t, "status", r.Status, pgqrs.Failed)
	equal(t, "error", r.Error, "no tea: boom")
	equal(t, "output", string(r.Output), "")
	equal(t, "calls", calls.len(), 1)
	equal(t, "state", e.info(t, r.MessageID).State, pgqrs.Archived)
	eventually(t, "it is in the log", func() bool { return e.log.has("run failed") && e.log.has("no tea: boom") })
}

func endLate(t *testing.T, e *env) {
	begun := make(chan struct{}, 1)
	w := fast(play(e.store, func(ctx context.Context, _ *pgqrs.Run, _ int) (receipt, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return receipt{"tea", 3}, nil
	}))
	w.Grace = time.Millisecond
	stop := start(t, w)
	h := e.run(t)
	receive(t, "the function has begun", begun)
	must(t, stop())
	r := e.runInfo(t, h.ID())
	equal(t, "status", r.Status, pgqrs.Succeeded)
	sameJSON(t, r.Output, `{"item":"tea","total":3}`)
	m := e.info(t, r.MessageID)
	equal(t, "state", m.State, pgqrs.Archived)
	equal(t, "attempts", m.Attempt, 1)
}

func endPanic(t *testing.T, e *env) {
	var calls tally[int]
	h := e.act(t, func(_ context.Context, _ *pgqrs.Run, execution int) (receipt, error) {
		calls.add(execution)
		panic(errBoom)
	})
	wantText(t, "error", failedRun(t, h).Error(), "panic: boom", "endPanic")
	equal(t, "calls", calls.len(), 1)
	equal(t, "state", e.info(t, e.runInfo(t, h.ID()).MessageID).State, pgqrs.Archived)
}

func endTogether(t *testing.T, e *env) {
	for _, tag := range []string{"pgqrs:run.end|pgqrs:message.ack", "pgqrs:run.end|pgqrs:commit"} {
		store, net := e.farStore(t)
		h := e.run(t)
		began := strings.Count(e.log.String(), "put off because of the database")
		var ending atomic.Bool
		net.fail(func(text string) fault {
			if mentions(text, "pgqrs:run.end|pgqrs:run.finish") {
				ending.Store(true)
			}
			if ending.Load() && mentions(text, tag) {
				return refused
			}
			return none
		})
		stop := start(t, fast(sells(orders(store))))
		eventually(t, "the run could not be ended", func() bool {
			return strings.Count(e.log.String(), "put off because of the database") > began
		})
		r := e.runInfo(t, h.ID())
		equal(t, "status", r.Status, pgqrs.Running)
		equal(t, "whether its message is acked", e.info(t, r.MessageID).State == pgqrs.Archived, false)
		net.heal()
		equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 20})
		equal(t, "state", e.info(t, r.MessageID).State, pgqrs.Archived)
		equal(t, "attempts", e.info(t, r.MessageID).Attempt, 1)
		must(t, stop())
	}
}

func endLost(t *testing.T, e *env) {
	h := e.act(t, func(_ context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		if execution == 1 {
			e.loseRun(t, run.ID())
			return receipt{"late", 1}, nil
		}
		return receipt{"tea", 2}, nil
	})
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 2})
	m := e.awaitState(t, e.runInfo(t, h.ID()).MessageID, pgqrs.Archived)
	equal(t, "claims", m.Claim, 2)
}

func endLostLater(t *testing.T, e *env) {
	const last = 15 // by then the statements that end a run are prepared
	var tries gauge
	start(t, fast(orders(e.store).Handle(func(_ context.Context, run *pgqrs.Run, o order) (receipt, error) {
		if o.N == last {
			tries.add(1)
			if n, _ := tries.read(); n == 1 {
				e.loseRun(t, run.ID())
				return receipt{"late", 1}, nil
			}
		}
		return receipt{"tea", o.N}, nil
	})))
	for n := range last + 1 {
		run := value(orders(e.store).Start(t.Context(), order{"tea", n}))(t)
		equal(t, "result", value(run.Result(t.Context()))(t), receipt{"tea", n})
	}
}

func endRedelivered(t *testing.T, e *env) {
	var calls tally[int]
	results := []error{nil, errBoom}
	h := orders(e.store).Handle(func(_ context.Context, run *pgqrs.Run, o order) (receipt, error) {
		calls.add(o.N)
		return receipt{"tea", o.N}, results[o.N]
	})
	start(t, fast(h))
	for n, status := range []pgqrs.RunState{pgqrs.Succeeded, pgqrs.Failed} {
		run := value(orders(e.store).Start(t.Context(), order{"tea", n}))(t)
		before := e.awaitRun(t, run.ID(), status)
		equal(t, "redriven", value(e.store.Redrive(t.Context(), before.MessageID))(t), 1)
		m := e.awaitState(t, before.MessageID, pgqrs.Archived)
		equal(t, "claims", m.Claim, 2)
		after := e.runInfo(t, run.ID())
		equal(t, "run", fmt.Sprintf("%+v", after), fmt.Sprintf("%+v", before))
		equal(t, "calls", calls.len(), n+1)
	}
}

func endUndecodable(t *testing.T, e *env) {
	var calls tally[string]
	w := pgqrs.NewWorkflow[string, any](e.store, "results")
	bad := map[string]any{"channel": make(chan int), "nan": math.NaN(), "nul": "\x00", "large": strings.Repeat("x", 2<<20)}
	start(t, fast(w.Handle(func(_ context.Context, _ *pgqrs.Run, in string) (any, error) {
		calls.add(in)
		return bad[in], nil
	})))
	for in := range bad {
		h := value(w.Start(t.Context(), in))(t)
		r := e.awaitRun(t, h.ID(), pgqrs.Failed)
		wantText(t, "error", r.Error, "invalid payload", "result of run")
		equal(t, "state", e.info(t, r.MessageID).State, pgqrs.Archived)
	}
	equal(t, "calls", calls.len(), len(bad))
	raw := pgqrs.NewWorkflow[json.RawMessage, json.RawMessage](e.store, "results")
	for _, in := range []string{`{"a":1}`, `7`, `[]`} {
		h := value(raw.Start(t.Context(), json.RawMessage(in)))(t)
		wantText(t, "error", e.awaitRun(t, h.ID(), pgqrs.Failed).Error, "invalid payload", "does not decode into string")
	}
	// null decodes to a string's zero value
	null := value(raw.Start(t.Context(), json.RawMessage(`null`)))(t)
	e.awaitRun(t, null.ID(), pgqrs.Succeeded)
	equal(t, "calls in the end", calls.len(), len(bad)+1)
}

func endKiller(t *testing.T, e *env) {
	h := e.run(t)
	for range 2 {
		// The process that dequeues it dies.
		dequeueOne(t, pgqrs.NewQueue[json.RawMessage](e.newStore(t, pgqrs.Config{}), "orders"))
		pgqrstest.Advance(t, e.store, time.Minute)
	}
	var calls tally[int64]
	start(t, fast(orders(e.store).With(atOnce(2)).Handle(func(_ context.Context, run *pgqrs.Run, _ order) (receipt, error) {
		calls.add(run.ID())
		return receipt{}, nil
	})))
	wantText(t, "error", failedRun(t, h).Error(), "attempt 2", "lease expired")
	r := e.runInfo(t, h.ID())
	m := e.info(t, r.MessageID)
	equal(t, "state", m.State, pgqrs.Dead)
	wantText(t, "last error", m.LastError, "lease expired")
	equal(t, "calls", calls.len(), 0)
	equal(t, "redriven", value(e.store.Redrive(t.Context(), r.MessageID))(t), 1)
	e.awaitState(t, r.MessageID, pgqrs.Archived)
	equal(t, "status after that", e.runInfo(t, h.ID()).Status, pgqrs.Failed)
	equal(t, "calls after that", calls.len(), 0)
}

func endTimeout(t *testing.T, e *env) {
	var asked tally[int]
	causes := make(chan error, 10)
	// Timeout leaves a slow machine enough time to reach the step.
	w := orders(e.store).With(pgqrs.Policy{MaxAttempts: 2, Timeout: time.Second, Backoff: func(attempt int) time.Duration {
		asked.add(attempt)
		return time.Hour
	}})
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ order) (receipt, error) {
		return receipt{}, run.Do(ctx, "hangs", func(ctx context.Context) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return ctx.Err()
		})
	})))
	h := e.run(t)
	wantError(t, receive(t, "the step's ctx ends", causes), pgqrs.ErrTimeout)
	eventually(t, "the run waits for its backoff", func() bool { return e.stats(t, "orders").Scheduled == 1 })
	r := e.runInfo(t, h.ID())
	equal(t, "status", r.Status, pgqrs.Running)
	equal(t, "attempts", r.Attempts, 1)
	wantText(t, "last error", e.info(t, r.MessageID).LastError, "timeout")
	equal(t, "steps that it has failed", len(value(h.Steps(t.Context()))(t)), 0)
	e.later(t, time.Hour)
	wantText(t, "error", failedRun(t, h).Error(), "timeout")
	equal(t, "state", e.info(t, r.MessageID).State, pgqrs.Dead)
	equal(t, "further calls", len(causes), 1)
	equalSlices(t, "attempts that had a backoff", asked.all(), []int{1})
}

func endUnknown(t *testing.T, e *env) {
	for _, id := range []int64{4711, 0, -1, math.MaxInt64} {
		h := orders(e.store).RunHandle(id)
		for what, call := range map[string]func(context.Context) error{
			"Info":      func(ctx context.Context) error { _, err := h.Info(ctx); return err },
			"Steps":     func(ctx context.Context) error { _, err := h.Steps(ctx); return err },
			"Result":    func(ctx context.Context) error { _, err := h.Result(ctx); return err },
			"RerunFrom": func(ctx context.Context) error { _, err := h.RerunFrom(ctx, "a"); return err },
			"Send":      func(ctx context.Context) error { return pgqrs.Signal[int]("s").Send(ctx, e.store, id, 1) },
			"Cancel":    h.Cancel, "Pause": h.Pause, "Resume": h.Resume, "Retry": h.Retry,
		} {
			err := call(t.Context())
			if !errors.Is(err, pgqrs.ErrNotFound) || !strings.Contains(err.Error(), fmt.Sprint("run ", id)) {
				t.Errorf("%s of run %d: error is %v; want ErrNotFound, and which run", what, id, err)
			}
		}
	}
}

func endResultCtx(t *testing.T, e *env) {
	h := e.run(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := h.Result(ctx)
		done <- err
	}()
	cancel()
	err := receive(t, "Result returns", done)
	wantError(t, err, context.Canceled)
	wantErrorText(t, err, fmt.Sprint("run ", h.ID()))
	late, stop := context.WithTimeout(t.Context(), time.Millisecond)
	defer stop()
	_, err = h.Result(late)
	wantError(t, err, context.DeadlineExceeded)
	equal(t, "status", e.runInfo(t, h.ID()).Status, pgqrs.Queued)
}

func endOtherType(t *testing.T, e *env) {
	h := e.run(t)
	start(t, fast(sells(orders(e.store))))
	value(h.Result(t.Context()))(t)
	_, err := pgqrs.NewWorkflow[order, []int](e.store, "orders").RunHandle(h.ID()).Result(t.Context())
	wantError(t, err, pgqrs.ErrInvalidPayload)
	wantErrorText(t, err, "[]int")
}

// rows counts the runs, steps and signals in the tables.
func (e *env) rows(t *testing.T) (list []int) {
	t.Helper()
	for _, table := range []string{"pgqrs_workflow_runs", "pgqrs_workflow_steps", "pgqrs_workflow_signals"} {
		var n int
		must(t, e.db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
		list = append(list, n)
	}
	return list
}

// stepping is a script with a step, for runs that also receive a signal.
func stepping(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
	return receipt{}, run.Do(ctx, "step", func(context.Context) error { return nil })
}

// signalled starts a run with a signal.
func (e *env) signalled(t *testing.T) *pgqrs.RunHandle[receipt] {
	t.Helper()
	h := e.run(t)
	must(t, pgqrs.Signal[int]("s").Send(t.Context(), e.store, h.ID(), 1))
	return h
}

func endRetention(t *testing.T, e *env) {
	w := orders(e.store).With(pgqrs.Policy{Retention: time.Hour})
	parents := pgqrs.NewWorkflow[int, int](e.store, "parents").With(pgqrs.Policy{Retention: time.Hour})
	handlers := []pgqrs.Handler{
		w.Handle(func(ctx context.Context, run *pgqrs.Run, _ order) (receipt, error) { return stepping(ctx, run, 1) }),
		parents.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (int, error) {
			if _, err := w.Child(ctx, run, "child", order{}); err != nil {
				return 0, err
			}
			return 0, run.Sleep(ctx, "long", 1000*time.Hour)
		}),
	}
	old := e.signalled(t)
	parent := value(parents.Start(t.Context(), 1))(t)
	stop := start(t, fast(handlers...))
	e.awaitRun(t, old.ID(), pgqrs.Succeeded)
	eventually(t, "the parent sleeps", func() bool {
		return len(value(parent.Steps(t.Context()))(t)) == 2 && e.stats(t, "parents").Scheduled == 1
	})
	must(t, stop())
	pgqrstest.Advance(t, e.store, 2*time.Hour)
	recent := e.signalled(t)
	start(t, fast(handlers...)) // the worker does maintenance
	e.awaitRun(t, recent.ID(), pgqrs.Succeeded)
	eventually(t, "the old run is gone", func() bool {
		_, err := old.Info(t.Context())
		return errors.Is(err, pgqrs.ErrNotFound)
	})
	equalSlices(t, "rows", e.rows(t), []int{3, 4, 1}) // of the parent, its child and the recent run
	equal(t, "the child's parent", e.runInfo(t, e.runIDs(t, pgqrs.RunFilter{Workflow: "orders"})[1]).ParentID, parent.ID())
}

func endRemoved(t *testing.T, e *env) {
	a, b, c := e.signalled(t), e.signalled(t), e.signalled(t)
	stop := start(t, fast(play(e.store, stepping)))
	for _, h := range []*pgqrs.RunHandle[receipt]{a, b, c} {
		e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	}
	must(t, stop())
	equalSlices(t, "rows", e.rows(t), []int{3, 3, 3})
	equal(t, "deleted", value(e.store.Delete(t.Context(), e.runInfo(t, a.ID()).MessageID))(t), 1)
	equalSlices(t, "rows after Delete", e.rows(t), []int{2, 2, 2})
	queued := e.signalled(t)
	equal(t, "purged", value(e.store.Purge(t.Context(), "orders", pgqrs.Archived))(t), 2)
	equalSlices(t, "rows after Purge", e.rows(t), []int{1, 0, 1})
	equal(t, "deleted", value(e.store.Delete(t.Context(), e.runInfo(t, queued.ID()).MessageID))(t), 1)
	equalSlices(t, "rows in the end", e.rows(t), []int{0, 0, 0})
	_, err := queued.Result(t.Context())
	wantError(t, err, pgqrs.ErrNotFound)
}

func endDelete(t *testing.T, e *env) {
	h := e.run(t)
	q := pgqrs.NewQueue[json.RawMessage](e.store, "orders")
	plain := enqueue(t, q, json.RawMessage(`1`))
	ms := dequeue(t, q, 10)
	equal(t, "messages", len(ms), 2)
	err := q.Delete(t.Context(), ms...)
	wantError(t, err, pgqrs.ErrState)
	wantText(t, "error", err.Error(), fmt.Sprint("run ", h.ID()), "Store.Delete")
	left := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{IDs: []int64{ms[0].ID, plain}}))(t)
	equalSlices(t, "messages left", infoIDs(left), []int64{ms[0].ID})
	pgqrstest.Advance(t, e.store, time.Minute) // so that its lease ends
	start(t, fast(sells(orders(e.store))))
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 20})
}
