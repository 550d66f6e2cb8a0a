package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var workflowStepCases = []testcase{
	{"a finished step is not called again after its worker has died, and keeps its times", "every crash would charge the customer once more", stepReplay},
	{"a worker that lost its run records nothing more, and does not finish it", "a worker that comes back to life would overwrite what another has done", stepZombie},
	{"a step's value comes from its record, the first time too", "a run would take one turn now and another after a crash", stepRoundTrip},
	{"what is recorded is what a replay returns, and ErrInvalidPayload if it does not decode", "a record of an old version would be taken for a zero value", stepTampered},
	{"recorded steps are not read for a fresh run, and by one statement for a replay", "a run of ten steps would cost ten statements more", stepLoads},
	{"a step name asked for twice is ErrStepReused, and a bad one is refused", "the second of two charges would silently return the first one's record", stepNames},
	{"a step's times say how long its function took, also those of StepTx, of a failed one, and of several at once", "nobody could see which step is slow", stepTimes},
	{"a step's result is recorded although the ctx that the step was called with has ended meanwhile", "a caller that stops waiting would have the customer charged again", stepOutlastsCtx},
	{"steps run at once in goroutines, and are replayed together", "a fan-out would lose its records", stepConcurrent},
}

func stepTimes(t *testing.T, e *env) {
	const least = 50 * time.Millisecond
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		slow := func(context.Context) error { <-time.After(least); return nil }
		var wg sync.WaitGroup
		for _, name := range []string{"a", "b", "c", "d"} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				_ = run.Do(ctx, name, slow)
			}()
		}
		wg.Wait()
		_ = run.Do(ctx, "failed", func(ctx context.Context) error { return pgqrs.Permanent(errors.Join(slow(ctx), errBoom)) })
		return receipt{}, run.DoTx(ctx, "tx", func(ctx context.Context, _ *sql.Tx) error { return slow(ctx) })
	})
	value(h.Result(t.Context()))(t)
	steps := value(h.Steps(t.Context()))(t)
	equal(t, "steps", len(steps), 6)
	for _, s := range steps {
		// SQLite's times have milliseconds
		if took := s.EndedAt.Sub(s.StartedAt); took < least-time.Millisecond {
			t.Errorf("step %q is recorded to have taken %v, want %v at least", s.Name, took, least)
		}
	}
}

func stepOutlastsCtx(t *testing.T, e *env) {
	var calls tally[string]
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		waiting, stop := context.WithCancel(ctx)
		defer stop()
		_, err := pgqrs.Step(waiting, run, "charge", func(context.Context) (int, error) {
			calls.add("charge")
			stop()
			return 20, nil
		})
		return receipt{}, err
	})
	finished(t, h)
	equalSlices(t, "calls", calls.all(), []string{"charge"})
	equal(t, "status of the step", e.step(t, h.ID(), "charge").Status, pgqrs.Succeeded)
}

func stepReplay(t *testing.T, e *env) {
	var calls tally[string]
	var before pgqrs.StepInfo
	cut := make(chan error, 1)
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		a, err := pgqrs.Step(ctx, run, "a", counting(&calls, "a", 20))
		if err != nil {
			return receipt{}, err
		}
		if execution == 1 {
			before = e.step(t, run.ID(), "a")
			e.loseRun(t, run.ID())
		}
		b, err := pgqrs.Step(ctx, run, "b", counting(&calls, "b", 3))
		if execution == 1 {
			cut <- err
		}
		return receipt{"tea", a + b}, err
	})
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 23})
	wantError(t, receive(t, "the first execution is cut short", cut), pgqrs.ErrSuspended)
	equalSlices(t, "calls", calls.all(), []string{"a", "b", "b"})
	after := e.step(t, h.ID(), "a")
	equal(t, "the step's beginning", after.StartedAt.Equal(before.StartedAt), true)
	equal(t, "the step's end", after.EndedAt.Equal(before.EndedAt), true)
	equal(t, "status", after.Status, pgqrs.Succeeded)
	sameJSON(t, after.Output, "20")
}

func stepZombie(t *testing.T, e *env) {
	begun, gate, ended := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	zombie := fast(play(e.store, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		v, err := pgqrs.Step(ctx, run, "a", func(context.Context) (int, error) {
			close(begun)
			<-gate
			return 1, nil
		})
		ended <- fmt.Sprint(v, err)
		return receipt{"zombie", v}, nil
	}))
	zombie.Concurrency = 1 // it does not claim the run again
	h := e.run(t)
	stop := start(t, zombie)
	receive(t, "the step is under way", begun)
	e.loseRun(t, h.ID())
	start(t, fast(play(e.newStore(t, pgqrs.Config{}), func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		v, err := pgqrs.Step(ctx, run, "a", func(context.Context) (int, error) { return 2, nil })
		return receipt{"tea", v}, err
	})))
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	close(gate)
	equal(t, "what the first worker's step returns", receive(t, "it returns", ended), "2 <nil>")
	must(t, stop())
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 2})
	sameJSON(t, e.step(t, h.ID(), "a").Output, "2")
	equal(t, "state", e.info(t, e.runInfo(t, h.ID()).MessageID).State, pgqrs.Archived)
}

// A parcel loses something when it is encoded to JSON.
type parcel struct {
	Kept int
	Lost int `json:"-"`
}

func stepRoundTrip(t *testing.T, e *env) {
	var got tally[string]
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		p, err := pgqrs.Step(ctx, run, "parcel", func(context.Context) (parcel, error) { return parcel{1, 2}, nil })
		n, err2 := pgqrs.Step(ctx, run, "nothing", func(context.Context) (*int, error) { return nil, nil })
		m, err3 := pgqrs.Step(ctx, run, "map", func(context.Context) (any, error) { return map[string]int{"a": 1}, nil })
		err4 := run.Do(ctx, "do", func(context.Context) error { return nil })
		got.add(fmt.Sprintf("%+v %v %T %v", p, n, m, errors.Join(err, err2, err3, err4)))
		if execution == 1 {
			e.loseRun(t, run.ID())
		}
		return receipt{}, run.Do(ctx, "end", func(context.Context) error { return nil })
	})
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	want := "{Kept:1 Lost:0} <nil> map[string]interface {} <nil>"
	equalSlices(t, "values", got.all(), []string{want, want})
}

func stepTampered(t *testing.T, e *env) {
	var got tally[int]
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		v, err := pgqrs.Step(ctx, run, "a", func(context.Context) (int, error) { return 1, nil })
		if err != nil {
			return receipt{}, err
		}
		got.add(v)
		e.poke(t, "UPDATE pgqrs_workflow_steps SET output = '%s' WHERE run_id = %d", []string{"", "42", `"text"`}[execution], run.ID())
		e.loseRun(t, run.ID())
		return receipt{}, run.Do(ctx, fmt.Sprint("again", execution), func(context.Context) error { return nil })
	})
	r := e.awaitRun(t, h.ID(), pgqrs.Failed)
	equalSlices(t, "values", got.all(), []int{1, 42})
	wantText(t, "error", r.Error, "invalid payload", `step "a"`, "does not decode into int")
}

func stepLoads(t *testing.T, e *env) {
	store, net := e.farStore(t)
	var sent tally[string]
	net.fail(func(text string) fault {
		for _, tag := range []string{"pgqrs:step.", "pgqrs:run."} {
			if _, rest, ok := strings.Cut(text, tag); ok {
				switch name, _, _ := strings.Cut(rest, " "); name {
				case "resave": // after a save that made no row, on Turso
				case "finish": // in a transaction with the ack, where one statement cannot do it
					sent.add("end")
				default:
					sent.add(name)
				}
			}
		}
		return none
	})
	w := fast(play(store, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		for i := range 3 {
			if err := run.Do(ctx, fmt.Sprint(i), func(context.Context) error { return nil }); err != nil {
				return receipt{}, err
			}
			if execution == 1 && i == 1 {
				e.loseRun(t, run.ID())
			}
		}
		return receipt{}, nil
	}))
	w.Concurrency = 1
	start(t, w)
	e.awaitRun(t, e.run(t).ID(), pgqrs.Succeeded)
	equalSlices(t, "statements", withoutHeartbeats(sent.all()), []string{
		"begin", "save", "save", "save", "get", // the last save found the lease gone
		"begin", "load", "save", "end",
	})
}

// withoutHeartbeats leaves out the statements that a worker sends from time to time.
func withoutHeartbeats(tags []string) (list []string) {
	for _, tag := range tags {
		if !slices.Contains([]string{"interrupted", "expired", "stranded"}, tag) {
			list = append(list, tag)
		}
	}
	return list
}

func stepNames(t *testing.T, e *env) {
	var calls tally[string]
	errs := make(chan error, 20)
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		errs <- run.Do(ctx, "charge", func(context.Context) error { calls.add("first"); return nil })
		_, err := pgqrs.Step(ctx, run.With(pgqrs.Policy{MaxAttempts: 1}), "charge", counting(&calls, "second", 1))
		errs <- err
		for _, name := range []string{"", strings.Repeat("n", 256), "a\x00b", "\xff"} {
			errs <- run.Do(ctx, name, func(context.Context) error { calls.add(name); return nil })
		}
		errs <- run.Do(ctx, strings.Repeat("ü", 255), func(context.Context) error { return nil })
		return receipt{}, nil
	})
	info := e.awaitRun(t, h.ID(), pgqrs.Failed)
	wantText(t, "error", info.Error, "step name is used twice", `"charge"`)
	must(t, <-errs)
	reused := <-errs
	wantError(t, reused, pgqrs.ErrStepReused)
	wantErrorText(t, reused, `"charge"`)
	for range 4 {
		wantErrorText(t, <-errs, "step name")
	}
	must(t, <-errs)
	equalSlices(t, "calls", calls.all(), []string{"first"})
}

func stepConcurrent(t *testing.T, e *env) {
	const n = 5
	var calls tally[string]
	var all sync.WaitGroup // of the first execution's steps
	all.Add(n)
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		values := make([]int, n)
		errs := make([]error, n)
		var group sync.WaitGroup
		for i := range n {
			group.Add(1)
			go func() {
				defer group.Done()
				name := fmt.Sprint("part ", i)
				values[i], errs[i] = pgqrs.Step(ctx, run, name, func(context.Context) (int, error) {
					calls.add(name)
					all.Done()
					all.Wait() // they run at once
					return i * i, nil
				})
			}()
		}
		group.Wait()
		if err := errors.Join(errs...); err != nil {
			return receipt{}, err
		}
		if execution == 1 {
			e.loseRun(t, run.ID())
		}
		total := 0
		for _, v := range values {
			total += v
		}
		return receipt{"parts", total}, run.Do(ctx, "join", func(context.Context) error { return nil })
	})
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"parts", 30})
	equal(t, "calls", calls.len(), n)
	equal(t, "warning", e.runInfo(t, h.ID()).Warning, "")
}
