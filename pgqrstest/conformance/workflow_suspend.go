package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var workflowSuspendCases = []testcase{
	{"a lost connection is no failure of a step: nothing is compensated, and the run goes on", "a refund would follow a charge that stands", suspendFault},
	{"a draining worker is no failure of a step: nothing is compensated, and no attempt burned", "every deploy would refund the orders that it interrupts", suspendDrain},
	{"a draining worker begins no further step", "a deploy would wait for a whole run, and cut it in the middle", suspendBoundary},
	{"a lost lease is no failure of a step: nothing is compensated", "a worker that lost its run would refund what another goes on with", suspendLost},
	{"a swallowed suspension does not finish the run, whatever its function returns then", "a run would end without having done its work", suspendSwallowed},
	{"deferred functions that look at the error compensate for failures only", "the usual way to clean up in Go would refund at every retry", suspendDefer},
	{"a function that goes on for ever on a suspended run is ended, and counts an attempt", "one loop without a look at its error would take a slot for ever", suspendLoop},
	{"a step that was cut short because a step beside it suspended the run burns no attempt", "one of many steps at once would use up the attempts of all", suspendSiblings},
}

// refunding returns a script of two steps that compensates for whatever it takes for a failure.
func refunding(calls, refunds *tally[string], charge func(context.Context) error) script {
	return func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		err := run.With(atOnce(1)).Do(ctx, "charge", func(ctx context.Context) error {
			calls.add("charge")
			return charge(ctx)
		})
		if err == nil {
			err = run.Do(ctx, "book", func(context.Context) error { calls.add("book"); return nil })
		}
		if err != nil && !errors.Is(err, pgqrs.ErrSuspended) {
			refunds.add(err.Error())
		}
		return receipt{"tea", 1}, err
	}
}

func suspendFault(t *testing.T, e *env) {
	for tag, kinds := range map[string]map[fault]int{
		// Each fault, and how often the step is called with it.
		"pgqrs:step.save":                 {refused: 2, muted: 1},
		"pgqrs:run.begin":                 {refused: 1, muted: 1},
		"pgqrs:run.end|pgqrs:run.finish":  {refused: 1, muted: 1},
		"pgqrs:run.end|pgqrs:message.ack": {refused: 1, muted: 1},
	} {
		for kind, times := range kinds {
			store, net := e.farStore(t)
			var calls, refunds tally[string]
			h := e.run(t)
			f, happened := once(tag, kind)
			net.fail(f)
			w := fast(play(store, refunding(&calls, &refunds, func(context.Context) error { return nil })))
			stop := start(t, w)
			receive(t, "the connection is lost at "+tag, happened)
			equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 1})
			must(t, stop())
			charges := 0
			for _, call := range calls.all() {
				if call == "charge" {
					charges++
				}
			}
			equal(t, fmt.Sprint("calls of the step after a lost ", tag, " of kind ", kind), charges, times)
			equalSlices(t, "refunds", refunds.all(), nil)
			m := e.info(t, e.runInfo(t, h.ID()).MessageID)
			equal(t, "state", m.State, pgqrs.Archived)
			equal(t, "attempts", m.Attempt, 1)
		}
	}
}

func suspendDrain(t *testing.T, e *env) {
	var calls, refunds tally[string]
	begun := make(chan struct{}, 2)
	cut := refunding(&calls, &refunds, func(ctx context.Context) error {
		begun <- struct{}{}
		if calls.len() > 1 {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	})
	w := fast(play(e.store, cut))
	w.Grace = time.Millisecond
	stop := start(t, w)
	h := e.run(t)
	receive(t, "the step has begun", begun)
	must(t, stop())
	m := e.info(t, e.runInfo(t, h.ID()).MessageID)
	equal(t, "state", m.State, pgqrs.Ready)
	equal(t, "attempts", m.Attempt, 0)
	equal(t, "steps", len(value(h.Steps(t.Context()))(t)), 0)
	start(t, fast(play(e.newStore(t, pgqrs.Config{}), cut)))
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 1})
	equalSlices(t, "calls", calls.all(), []string{"charge", "charge", "book"})
	equalSlices(t, "refunds", refunds.all(), nil)
}

func suspendBoundary(t *testing.T, e *env) {
	var calls, refunds tally[string]
	begun, gate := make(chan struct{}, 2), make(chan struct{})
	waiting := refunding(&calls, &refunds, func(context.Context) error {
		begun <- struct{}{}
		<-gate
		return nil
	})
	// Another handler shows when the drain has begun, because its message is released.
	a := newAhead(t, e, e.newStore(t, pgqrs.Config{}), pgqrs.Worker{})
	close(a.gate)
	must(t, a.stop())
	q := jobs(e)
	w := fast(play(e.store, waiting), q.Handle(func(ctx context.Context, _ *pgqrs.Message[string]) error { return nil }))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	h := e.run(t)
	receive(t, "the step has begun", begun)
	cancel()
	// A draining worker claims nothing, so a message that is enqueued now stays ready.
	eventually(t, "the worker drains", func() bool {
		id := enqueue(t, q, "x")
		e.beats(t, 1)
		return e.info(t, id).State == pgqrs.Ready
	})
	close(gate)
	must(t, receive(t, "Run returns", done))
	m := e.info(t, e.runInfo(t, h.ID()).MessageID)
	equal(t, "state", m.State, pgqrs.Ready)
	equal(t, "attempts", m.Attempt, 0)
	equalSlices(t, "calls", calls.all(), []string{"charge"})
	start(t, fast(play(e.newStore(t, pgqrs.Config{}), waiting)))
	value(h.Result(t.Context()))(t)
	equalSlices(t, "calls in the end", calls.all(), []string{"charge", "book"})
	equalSlices(t, "refunds", refunds.all(), nil)
}

func suspendLost(t *testing.T, e *env) {
	var calls, refunds tally[string]
	begun, ended := make(chan struct{}, 2), make(chan struct{}, 2)
	lost := refunding(&calls, &refunds, func(ctx context.Context) error {
		begun <- struct{}{}
		if calls.len() > 1 {
			return nil
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	w := fast(play(e.store, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		defer func() { ended <- struct{}{} }()
		return lost(ctx, run, execution)
	}))
	w.Lease, w.Concurrency = 600*time.Millisecond, 1 // it does not claim the run again
	start(t, w)
	h := e.run(t)
	receive(t, "the step has begun", begun)
	elsewhere := pgqrs.NewQueue[json.RawMessage](e.newStore(t, pgqrs.Config{}), "orders")
	takeOver(t, e, elsewhere, e.runInfo(t, h.ID()).MessageID)
	receive(t, "the execution ends", ended)
	e.loseRun(t, h.ID())
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 1})
	equalSlices(t, "calls", calls.all(), []string{"charge", "charge", "book"})
	equalSlices(t, "refunds", refunds.all(), nil)
}

func suspendSwallowed(t *testing.T, e *env) {
	var calls tally[string]
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		v, _ := pgqrs.Step(ctx, run, "charge", func(context.Context) (int, error) {
			calls.add("charge")
			if execution == 1 {
				return 0, pgqrs.RetryAfter(time.Hour, errBoom)
			}
			return 7, nil
		})
		_ = run.Do(ctx, "book", func(context.Context) error { calls.add("book"); return nil })
		if execution == 1 {
			// a frequent result of swallowing the error
			panic("of a value that the step did not return")
		}
		return receipt{"tea", v}, nil
	})
	eventually(t, "the run waits", func() bool { return calls.len() == 1 && e.stats(t, "orders").Scheduled == 1 })
	r := e.runInfo(t, h.ID())
	equal(t, "status", r.Status, pgqrs.Running)
	equal(t, "attempts", r.Attempts, 0)
	e.later(t, time.Hour)
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 7})
	equalSlices(t, "calls", calls.all(), []string{"charge", "charge", "book"})
}

func suspendDefer(t *testing.T, e *env) {
	var attempts, refunds tally[string]
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (out receipt, err error) {
		defer func() {
			if err != nil { // no check for ErrSuspended, because a step does not start then
				err = errors.Join(err, run.Do(ctx, "refund", func(context.Context) error { refunds.add("refund"); return nil }))
			}
		}()
		if err := run.Do(ctx, "charge", func(context.Context) error { return nil }); err != nil {
			return receipt{}, err
		}
		return receipt{}, run.With(atOnce(3)).Do(ctx, "ship", func(context.Context) error { attempts.add("ship"); return errBoom })
	})
	r := e.awaitRun(t, h.ID(), pgqrs.Failed)
	equal(t, "attempts", attempts.len(), 3)
	equal(t, "refunds", refunds.len(), 1)
	wantText(t, "error", r.Error, `step "ship"`, "boom")
}

func suspendLoop(t *testing.T, e *env) {
	w := orders(e.store).With(pgqrs.Policy{MaxAttempts: 2, Backoff: func(int) time.Duration { return time.Hour }})
	var calls gauge
	worker := fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ order) (receipt, error) {
		for {
			err := run.Do(ctx, "charge", func(context.Context) error { return pgqrs.Snooze(0) })
			calls.add(1)
			if err == nil {
				return receipt{}, nil
			}
		}
	}))
	worker.Concurrency = 1
	start(t, worker)
	h := e.run(t)
	eventually(t, "the execution has failed", func() bool {
		r := e.runInfo(t, h.ID())
		return e.stats(t, "orders").Scheduled == 1 && r.Attempts == 1
	})
	equal(t, "status", e.runInfo(t, h.ID()).Status, pgqrs.Running)
	now, _ := calls.read()
	equal(t, "calls that the run bore", now, 1001)
	e.later(t, time.Hour)
	r := e.awaitRun(t, h.ID(), pgqrs.Failed)
	wantText(t, "error", r.Error, "Goexit")
	equal(t, "state", e.info(t, r.MessageID).State, pgqrs.Dead)
}

func suspendSiblings(t *testing.T, e *env) {
	var quick, slow tally[int]
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		group, cancel := context.WithCancel(ctx) // as of an errgroup
		defer cancel()
		started := make(chan struct{})  // or refused
		finished := make(chan struct{}) // the quick step ended well
		var both sync.WaitGroup
		both.Add(1)
		var first, second error
		go func() {
			defer both.Done()
			second = run.With(atOnce(2)).Do(group, "slow", func(ctx context.Context) error {
				slow.add(1)
				if quick.len() >= 4 {
					return nil
				}
				close(started)
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-finished:
					return nil
				}
			})
			if errors.Is(second, pgqrs.ErrSuspended) && ctx.Err() == nil && group.Err() == nil {
				close(started)
			}
		}()
		first = run.With(atOnce(5)).Do(group, "quick", func(context.Context) error {
			quick.add(1)
			if quick.len() >= 4 {
				return nil
			}
			<-started
			return errBoom
		})
		if first != nil {
			cancel()
		} else {
			close(finished)
		}
		both.Wait()
		return receipt{}, errors.Join(first, second)
	})
	value(h.Result(t.Context()))(t)
	equal(t, "retries of the slow step", e.step(t, h.ID(), "slow").Retries, 0)
	equal(t, "retries of the quick step", e.step(t, h.ID(), "quick").Retries, 3)
}
