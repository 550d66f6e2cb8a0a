package model_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
	"pgregory.net/rapid"
)

// TestRun starts runs of random scripts and lets a worker execute them. In random order it moves
// time, sends signals, pauses, cancels and retries runs, and lets workers die that hold them. It
// compares each run with its model.
func TestRun(t *testing.T) {
	eachEngine(t, "any order of operations on runs", func(t *testing.T, e engine, s *pgqrs.Store, rt *rapid.T) int {
		m := newRunMachine(t, s)
		defer m.close()
		m.start(rt)
		ops := map[string]func(*rapid.T){
			"start": m.start, "work": m.work, "work too": m.work, "advance": m.advance, "crash": m.crash,
			"signal": m.signal, "cancel": m.cancel, "pause": m.pause, "resume": m.resume, "retry": m.retry,
		}
		for range rapid.IntRange(1, 15).Draw(rt, "operations") {
			ops[rapid.SampledFrom(slices.Sorted(maps.Keys(ops))).Draw(rt, "operation")](rt)
			m.compare(rt)
		}
		return len(m.runs)
	})
}

// A runMachine executes operations on the library and on the models.
type runMachine struct {
	t        *testing.T
	store    *pgqrs.Store
	workflow *pgqrs.Workflow[[]string, []string]
	name     string
	dead     *pgqrs.Queue[json.RawMessage] // of the worker that dies
	runs     []*startedRun

	mu    sync.Mutex
	calls map[string]int // of step functions, by run and step
}

type startedRun struct {
	*pgqrs.RunHandle[[]string]
	message int64
	model   *modelRun
}

func newRunMachine(t *testing.T, s *pgqrs.Store) *runMachine {
	m := &runMachine{t: t, store: s, name: fmt.Sprint("w", time.Now().UnixNano()), calls: map[string]int{}}
	m.workflow = pgqrs.NewWorkflow[[]string, []string](s, m.name).With(pgqrs.Policy{MaxAttempts: -1})
	m.dead = pgqrs.NewQueue[json.RawMessage](s, m.name).With(pgqrs.Policy{MaxAttempts: -1})
	return m
}

func (m *runMachine) ctx() context.Context { return m.t.Context() }

func (m *runMachine) close() {
	var ids []int64
	for _, r := range m.runs {
		ids = append(ids, r.message)
	}
	if _, err := m.store.Delete(m.ctx(), ids...); err != nil {
		m.t.Error(err)
	}
}

// play is the function of the workflow.
func (m *runMachine) play(ctx context.Context, run *pgqrs.Run, script []string) ([]string, error) {
	results := []string{}
	for i, kind := range script {
		name := fmt.Sprint(i)
		result := kind
		var err error
		switch kind {
		case "sleep":
			err = run.Sleep(ctx, name, sleepFor)
		case "wait":
			result, err = pgqrs.Signal[string]("go").Wait(ctx, run, waitFor)
			if errors.Is(err, pgqrs.ErrTimeout) {
				result, err = timedOut, nil
			}
		default:
			result, err = pgqrs.Step(ctx, run, name, func(context.Context) (string, error) { return kind, m.call(run.ID(), i, kind) })
		}
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

// call is the function of a step.
func (m *runMachine) call(run int64, step int, kind string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := fmt.Sprint(run, "/", step)
	m.calls[key]++
	switch {
	case kind == "bad" && m.calls[key] == 1:
		return pgqrs.Permanent(errors.New("bad"))
	case kind == "flaky" && m.calls[key] == 1:
		return pgqrs.RetryAfter(retryIn, errors.New("flaky"))
	default:
		return nil
	}
}

func (m *runMachine) start(rt *rapid.T) {
	script := rapid.SliceOfN(rapid.SampledFrom([]string{"ok", "flaky", "bad", "sleep", "wait"}), 0, 4).Draw(rt, "script")
	if script == nil {
		script = []string{}
	}
	run, err := m.workflow.Start(m.ctx(), script)
	if err != nil {
		rt.Fatal(err)
	}
	info, err := run.Info(m.ctx())
	if err != nil {
		rt.Fatal(err)
	}
	m.runs = append(m.runs, &startedRun{run, info.MessageID, newModelRun(script)})
}

// work runs a worker that does everything that is due.
func (m *runMachine) work(rt *rapid.T) {
	held := int64(0)
	for _, r := range m.runs {
		if r.model.held > 0 {
			held++
		}
		r.model.execute()
	}
	ctx, cancel := context.WithTimeout(m.ctx(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	w := &pgqrs.Worker{Handlers: []pgqrs.Handler{m.workflow.Handle(m.play)}, PollInterval: 2 * time.Millisecond}
	go func() { done <- w.Run(ctx) }()
	for {
		infos, err := m.store.Queues(ctx, m.name)
		if err != nil {
			rt.Fatal(err)
		}
		if infos[0].Ready == 0 && infos[0].Leased == held {
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		rt.Fatal(err)
	}
}

// crash runs a worker that claims a run and dies.
func (m *runMachine) crash(rt *rapid.T) {
	ms, err := m.dead.Dequeue(m.ctx(), 1, time.Hour)
	if err != nil {
		rt.Fatal(err)
	}
	for _, msg := range ms {
		for _, r := range m.runs {
			if r.message == msg.ID {
				if r.model.held > 0 || r.model.ended() {
					rt.Fatalf("run %d was delivered; it is %s, and held for %v", r.ID(), r.model.status, r.model.held)
				}
				r.model.held = time.Hour
			}
		}
	}
}

func (m *runMachine) advance(rt *rapid.T) {
	d := time.Hour + hours.Draw(rt, "time")
	pgqrstest.Advance(m.t, m.store, d)
	for _, r := range m.runs {
		r.model.advance(d)
	}
}

// change makes a call on a run. The call must fail with ErrState if the model cannot do it.
func (m *runMachine) change(rt *rapid.T, what string, real func(*startedRun) error, model func(*modelRun) bool) {
	r := rapid.SampledFrom(m.runs).Draw(rt, "run")
	err := real(r)
	wantSentinel(rt, what, err, pgqrs.ErrState, !model(r.model))
}

func (m *runMachine) signal(rt *rapid.T) {
	m.change(rt, "signal", func(r *startedRun) error {
		return pgqrs.Signal[string]("go").Send(m.ctx(), m.store, r.ID(), "wait")
	}, (*modelRun).signal)
}

func (m *runMachine) cancel(rt *rapid.T) {
	m.change(rt, "cancel", func(r *startedRun) error { return r.Cancel(m.ctx()) }, (*modelRun).cancel)
}

func (m *runMachine) pause(rt *rapid.T) {
	m.change(rt, "pause", func(r *startedRun) error { return r.Pause(m.ctx()) }, (*modelRun).pause)
}

func (m *runMachine) resume(rt *rapid.T) {
	m.change(rt, "resume", func(r *startedRun) error { return r.Resume(m.ctx()) }, (*modelRun).resume)
}

func (m *runMachine) retry(rt *rapid.T) {
	m.change(rt, "retry", func(r *startedRun) error { return r.Retry(m.ctx()) }, (*modelRun).retry)
}

// compare compares every run, its steps and the calls of their functions with its model.
func (m *runMachine) compare(rt *rapid.T) {
	for _, r := range m.runs {
		info, err := r.Info(m.ctx())
		if err != nil {
			rt.Fatal(err)
		}
		if info.Status != r.model.status {
			rt.Fatalf("run %d of %v is %s; want %s, with %d steps done", r.ID(), r.model.script, info.Status, r.model.status, r.model.next())
		}
		if info.Status == pgqrs.Succeeded {
			var results []string
			if err := json.Unmarshal(info.Output, &results); err != nil || !slices.Equal(results, r.model.results) {
				rt.Fatalf("run %d returned %s, %v; want %q", r.ID(), info.Output, err, r.model.results)
			}
		}
		m.compareSteps(rt, r)
		m.mu.Lock()
		for i, want := range r.model.calls {
			if got := m.calls[fmt.Sprint(r.ID(), "/", i)]; got != want {
				rt.Fatalf("step %d of run %d of %v was called %d times; want %d", i, r.ID(), r.model.script, got, want)
			}
		}
		m.mu.Unlock()
	}
}

func (m *runMachine) compareSteps(rt *rapid.T, r *startedRun) {
	names := make([]string, len(r.model.script))
	waits := 0
	for i, kind := range r.model.script {
		names[i] = fmt.Sprint(i)
		if kind == "wait" {
			waits++
			names[i] = fmt.Sprint("go#", waits)
		}
	}
	var want, got []string
	for _, i := range r.model.taken {
		if r.model.has[i] || i == r.model.next() && r.model.status == pgqrs.Failed {
			want = append(want, names[i])
		}
	}
	steps, err := r.Steps(m.ctx())
	if err != nil {
		rt.Fatal(err)
	}
	for _, s := range steps {
		if !s.EndedAt.IsZero() {
			got = append(got, s.Name)
		}
	}
	if !slices.Equal(got, want) {
		rt.Fatalf("steps %v of run %d of %v have ended; want %v", got, r.ID(), r.model.script, want)
	}
}
