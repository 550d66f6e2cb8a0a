package conformance

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// inputHostileRuns uses the texts as all names that a run has.
func inputHostileRuns(t *testing.T, e *env) {
	for _, text := range hostileTexts {
		hostileRun(t, e, text)
	}
	if r := value(e.store.Verify(t.Context()))(t); !r.OK() {
		t.Errorf("after all that the tables are %+v", r)
	}
}

func hostileRun(t *testing.T, e *env, text string) {
	t.Helper()
	ctx := t.Context()
	w := pgqrs.NewWorkflow[string, string](e.store, text)
	signal := pgqrs.Signal[string](text)
	run := value(w.Start(ctx, text, pgqrs.Key(text)))(t)
	must(t, signal.Send(ctx, e.store, run.ID(), text))
	stop := start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, in string) (string, error) {
		step, err := pgqrs.Step(ctx, run, text, func(context.Context) (string, error) { return in, nil })
		if err != nil {
			return "", err
		}
		sent, err := signal.Wait(ctx, run, time.Hour)
		return step + sent, err
	})))
	equal(t, "result", value(run.Result(ctx))(t), text+text)

	info := value(run.Info(ctx))(t)
	equal(t, "workflow", info.Workflow, text)
	equal(t, "key", info.Key, text)
	equal(t, "id of the run with the key "+text, value(w.Find(ctx, text))(t).ID(), run.ID())
	equal(t, "output of the step "+text, string(e.step(t, run.ID(), text).Output), string(e.step(t, run.ID(), text+"#1").Output))
	listed := value(e.store.Runs(ctx, pgqrs.RunFilter{Workflow: text}))(t)
	equal(t, "runs of "+text, len(listed), 1)
	equal(t, "run of "+text, listed[0].ID, run.ID())
	again := value(run.RerunFrom(ctx, text+"#1"))(t)
	equal(t, "result of the run again", value(func() (string, error) {
		must(t, signal.Send(ctx, e.store, again.ID(), "sent"))
		return again.Result(ctx)
	}())(t), text+"sent")
	must(t, stop())
}

// nowhere are names that nothing can have.
var nowhere = map[string]string{"a\x00b": "has a zero byte", "\xff": "is not valid UTF-8"}

func inputNowhere(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "parcels")
	run := value(pgqrs.NewWorkflow[string, string](e.store, "orders").Start(t.Context(), "x"))(t)
	for name, want := range nowhere {
		t.Run(want, func(t *testing.T) {
			wantEach(t, t.Context(), callsByName(e.store, run, name), pgqrs.ErrNotFound, want)
			tx := value(e.db.BeginTx(t.Context(), nil))(t)
			defer tx.Rollback()
			id := enqueue(t, q.WithTx(tx), want) // SQLite's transactions begin with a write
			bound := callsByName(e.store.WithTx(tx), nil, name)
			wantEach(t, t.Context(), bound, pgqrs.ErrNotFound, want)
			must(t, tx.Commit())
			equal(t, "state of the message", e.info(t, id).State, pgqrs.Ready)
		})
	}
}

// callsByName lists the calls that look for something by a name.
func callsByName(s *pgqrs.Store, run *pgqrs.RunHandle[string], name string) []call {
	calls := []call{
		{"Queues", false, func(ctx context.Context) error { _, err := s.Queues(ctx, "other", name); return err }},
		{"PauseQueue", false, func(ctx context.Context) error { return s.PauseQueue(ctx, name) }},
		{"ResumeQueue", false, func(ctx context.Context) error { return s.ResumeQueue(ctx, name) }},
		{"DropQueue", false, func(ctx context.Context) error { return s.DropQueue(ctx, name) }},
		{"Messages", false, func(ctx context.Context) error {
			_, err := s.Messages(ctx, pgqrs.MessageFilter{Queue: name, State: pgqrs.Ready})
			return err
		}},
		{"Purge", false, func(ctx context.Context) error { _, err := s.Purge(ctx, name, pgqrs.Ready); return err }},
		{"RedriveAll", false, func(ctx context.Context) error { _, err := s.RedriveAll(ctx, name); return err }},
		{"Runs", false, func(ctx context.Context) error { _, err := s.Runs(ctx, pgqrs.RunFilter{Workflow: name}); return err }},
	}
	if run != nil {
		calls = append(calls, call{"RerunFrom", false, func(ctx context.Context) error { _, err := run.RerunFrom(ctx, name); return err }})
	}
	return calls
}

// inputLongNames gives names of 10,000 characters to everything that stores a name.
func inputLongNames(t *testing.T, e *env) {
	long := strings.Repeat("n", 10_000)
	ctx := t.Context()
	q := pgqrs.NewQueue[string](e.store, "parcels")
	enqueue(t, q, long, pgqrs.Headers(map[string]string{long: long}))
	m := dequeueOne(t, q)
	equal(t, "payload", m.Payload, long)
	equal(t, "header", m.Headers[long], long)

	run := value(pgqrs.NewWorkflow[string, string](e.store, "orders").Start(ctx, "x"))(t)
	refused := make(chan []error, 1)
	start(t, fast(pgqrs.NewWorkflow[string, string](e.store, "orders").Handle(func(ctx context.Context, run *pgqrs.Run, _ string) (string, error) {
		_, step := pgqrs.Step(ctx, run, long, func(context.Context) (string, error) { return "", nil })
		_, wait := pgqrs.Signal[string](long).Wait(ctx, run, 0)
		refused <- []error{step, wait, run.Sleep(ctx, long, 0)}
		return "done", nil
	})))
	equal(t, "result", value(run.Result(ctx))(t), "done")
	seen := append(<-refused, pgqrs.Signal[string](long).Send(ctx, e.store, run.ID(), "x"), func() error {
		_, err := q.Enqueue(ctx, "x", pgqrs.Key(long))
		return err
	}(), func() error {
		_, err := pgqrs.NewWorkflow[string, string](e.store, long).Start(ctx, "x")
		return err
	}(), (&pgqrs.Worker{Name: long, Handlers: []pgqrs.Handler{q.Handle(nil)}}).Run(ctx))
	for i, err := range seen {
		if err == nil || !strings.Contains(err.Error(), "more than 255 characters") {
			t.Errorf("call %d: error is %v; want one that says what a name may have", i, err)
		}
	}
	names := value(e.store.Queues(ctx))(t)
	if slices.ContainsFunc(names, func(q pgqrs.QueueInfo) bool { return len(q.Name) > 255 }) {
		t.Error("a queue with the long name was made")
	}
}

func inputSpaces(t *testing.T, e *env) {
	ctx := t.Context()
	for _, name := range []string{" parcels", "parcels ", "\u00a0parcels"} {
		q := pgqrs.NewQueue[string](e.store, name)
		w := pgqrs.NewWorkflow[string, string](e.store, name)
		good := pgqrs.NewQueue[string](e.store, "parcels")
		h, _ := handling(good)
		named := fast(h)
		named.Name = name
		scheduled := fast(h)
		scheduled.Schedules = []pgqrs.Schedule{{Name: name, Rule: pgqrs.Every(time.Hour), Target: good.Target("x")}}
		for what, do := range map[string]func() error{
			"Enqueue":    func() error { _, err := q.Enqueue(ctx, "x"); return err },
			"Dequeue":    func() error { _, err := q.Dequeue(ctx, 1, time.Minute); return err },
			"Start":      func() error { _, err := w.Start(ctx, "x"); return err },
			"DeadLetter": func() error { return good.With(pgqrs.Policy{DeadLetter: name}).Configure(ctx) },
			"Worker":     func() error { return named.Run(ctx) },
			"Schedule":   func() error { return scheduled.Run(ctx) },
		} {
			err := do()
			if err == nil {
				t.Errorf("%s takes the name %q", what, name)
				continue
			}
			wantText(t, "error of "+what, err.Error(), "begins or ends with a space")
		}
	}
	equal(t, "queues", len(value(e.store.Queues(ctx))(t)), 0)

	statement(t, e.db, `INSERT INTO pgqrs_queues (queue_name) VALUES (' old ')`)
	statement(t, e.db, `INSERT INTO pgqrs_messages (queue_id, payload) SELECT id, '1' FROM pgqrs_queues`)
	equal(t, "ready", e.stats(t, " old ").Ready, 1)
	must(t, e.store.PauseQueue(ctx, " old "))
	must(t, e.store.ResumeQueue(ctx, " old "))
	equal(t, "messages", len(value(e.store.Messages(ctx, pgqrs.MessageFilter{Queue: " old ", State: pgqrs.Ready}))(t)), 1)
	equal(t, "purged", value(e.store.Purge(ctx, " old ", pgqrs.Ready))(t), 1)
	must(t, e.store.DropQueue(ctx, " old "))
	enqueue(t, pgqrs.NewQueue[string](e.store, "parcels"), "x", pgqrs.Key(" a key is the caller's "))
}
