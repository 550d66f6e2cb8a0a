package conformance

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var foreignCases = []testcase{
	{"an error whose methods panic is one failed attempt, in every kind of handler", "a nil pointer in an error would end the process, and every message in hand with it", foreignErrors},
	{"an error whose methods end the goroutine is one failed attempt", "a slot would be blocked for ever", foreignErrorExits},
	{"an error whose methods panic fails a step or a run like any other", "a nil pointer in an error would end the process", foreignRunErrors},
	{"a Fail by hand whose cause panics records that", "a nil pointer in an error would end the process", foreignFail},
	{"a Backoff that panics is as good as the default one", "an index out of range would end the process", foreignBackoff},
	{"an Observer that panics changes nothing", "a mistake in a metric would end the process, or fail work that is done", foreignObserver},
	{"an Observer that ends its goroutine changes nothing", "claimed messages would hang, or a slot be blocked for ever", foreignObserverExits},
	{"a logger that panics or ends its goroutine changes nothing", "a mistake in logging would end the process", foreignLogger},
	{"a Notifier that panics or ends its goroutine is one that fails", "a mistake in what only saves time would end the process", foreignNotifier},
	{"middleware that panics fails an attempt, and Run where it is made", "a mistake in tracing would end the process", foreignMiddleware},
	{"a payload or result that panics as it is marshalled is refused, and nothing beside it", "one caller's mistake would block the enqueues of all", foreignMarshal},
	{"a payload that panics as it is decoded is one failed attempt", "a mistake in a type would end the process, or hold messages for a lease", foreignUnmarshal},
	{"Config.Headers that panics is an error of the call, and of the schedule's instant", "a mistake in tracing would end the process, or a schedule", foreignHeaders},
	{"a rule whose String panics is refused", "a worker would not start for a reason that nobody sees", foreignRule},
}

// A hostile is an error with a method that does something. As a nil pointer, all its methods panic.
type hostile struct {
	do func()
	in string // the method: Error, Is, As, Unwrap, LogValue, SQLState
}

func (h *hostile) when(method string) {
	if h.in == method {
		h.do()
	}
}

func (h *hostile) Error() string { h.when("Error"); return "boom in " + h.in }

func (h *hostile) Is(error) bool        { h.when("Is"); return false }
func (h *hostile) As(any) bool          { h.when("As"); return false }
func (h *hostile) Unwrap() error        { h.when("Unwrap"); return nil }
func (h *hostile) LogValue() slog.Value { h.when("LogValue"); return slog.StringValue("hostile") }
func (h *hostile) SQLState() string     { h.when("SQLState"); return "" }

// typedNil is an error that is not nil, but panics in every method.
var typedNil error = (*hostile)(nil)

// hostiles returns errors that each call do in one method, by the method's name.
func hostiles(do func()) map[string]error {
	list := map[string]error{}
	for _, method := range []string{"Error", "Is", "As", "Unwrap", "LogValue", "SQLState"} {
		list[method] = &hostile{do, method}
	}
	return list
}

// panicking returns errors that panic, by the way in which they do it.
func panicking() map[string]error {
	list := hostiles(func() { panic("a hostile error") })
	list["nil"] = typedNil
	list["wrapped"] = fmt.Errorf("wrapped: %w", typedNil)
	list["joined"] = errors.Join(errBoom, typedNil)
	list["permanent"] = pgqrs.Permanent(typedNil)
	list["later"] = pgqrs.RetryAfter(0, typedNil)
	return list
}

func foreignErrors(t *testing.T, e *env) {
	attempts := func(how string) int {
		if how == "permanent" {
			return 1
		}
		return 2
	}
	queue := func(kind string) *pgqrs.Queue[string] {
		return pgqrs.NewQueue[string](e.store, kind).With(atOnce(2))
	}
	errs := panicking()
	pick := func(how string) error {
		if how == "neighbour" {
			return nil
		}
		return errs[how]
	}
	batch := func(_ context.Context, ms []*pgqrs.Message[string]) error {
		failed := pgqrs.BatchError{}
		for _, m := range ms {
			failed[m.ID] = pick(m.Payload)
		}
		return failed
	}
	kinds := map[string]pgqrs.Handler{
		"handle": queue("handle").Handle(func(_ context.Context, m *pgqrs.Message[string]) error { return pick(m.Payload) }),
		"tx":     queue("tx").HandleTx(func(_ context.Context, _ *sql.Tx, m *pgqrs.Message[string]) error { return pick(m.Payload) }),
		"alone": queue("alone").HandleBatch(func(_ context.Context, ms []*pgqrs.Message[string]) error {
			return pick(ms[0].Payload)
		}, 1, 0),
		"batch": queue("batch").HandleBatch(batch, 5, 0),
		"panic": queue("panic").Handle(func(_ context.Context, m *pgqrs.Message[string]) error {
			if err := pick(m.Payload); err != nil {
				panic(err)
			}
			return nil
		}),
	}
	var handlers []pgqrs.Handler
	for _, h := range kinds {
		handlers = append(handlers, h)
	}
	start(t, fast(handlers...))
	ids := map[string]int64{}
	for kind := range kinds {
		for how := range errs {
			ids[kind+" "+how] = enqueue(t, queue(kind), how)
		}
		ids[kind+" neighbour"] = enqueue(t, queue(kind), "neighbour")
	}
	for which, id := range ids {
		kind, how, _ := strings.Cut(which, " ")
		if how == "neighbour" {
			e.awaitState(t, id, pgqrs.Archived)
			continue
		}
		m := e.awaitState(t, id, pgqrs.Dead)
		equal(t, "attempts of "+which, m.Attempt, attempts(how))
		if m.LastError == "" {
			t.Errorf("%s: no last error", which)
		}
		if kind == "handle" && how == "nil" {
			wantText(t, "last error", m.LastError, "hostile", "panicked", "nil pointer")
		}
	}
}

func foreignErrorExits(t *testing.T, e *env) {
	errs := hostiles(runtime.Goexit)
	delete(errs, "SQLState") // nothing asks for that here
	delete(errs, "LogValue")
	pick := func(how string) error { return errs[how] }
	panics := func(how string) error {
		if err := errs[how]; err != nil {
			panic(err)
		}
		return nil
	}
	queue := func(kind string) *pgqrs.Queue[string] { return pgqrs.NewQueue[string](e.store, kind) }
	handle := func(kind string, do func(string) error) pgqrs.Handler {
		return queue(kind).Handle(func(_ context.Context, m *pgqrs.Message[string]) error { return do(m.Payload) })
	}
	batch := func(kind string, do func(string) error) pgqrs.Handler {
		return queue(kind).HandleBatch(func(_ context.Context, ms []*pgqrs.Message[string]) error { return do(ms[0].Payload) }, 1, 0)
	}
	w := fast(handle("returned", pick), handle("panicked", panics), batch("returned of a batch", pick), batch("panicked of a batch", panics))
	w.Concurrency = 2
	start(t, w)
	for _, kind := range []string{"returned", "panicked", "returned of a batch", "panicked of a batch"} {
		for how := range errs {
			m := e.awaitState(t, enqueue(t, queue(kind), how), pgqrs.Scheduled)
			equal(t, "attempts of "+kind+" "+how, m.Attempt, 1)
			if m.LastError == "" {
				t.Errorf("%s %s: no last error", kind, how)
			}
		}
		e.awaitState(t, enqueue(t, queue(kind), "fine"), pgqrs.Archived)
	}
}

func foreignRunErrors(t *testing.T, e *env) {
	for how, err := range panicking() {
		w := pgqrs.NewWorkflow[string, int](e.store, how)
		var calls tally[string]
		stop := start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, in string) (int, error) {
			once := run.With(atOnce(1))
			step := func(context.Context) error { calls.add(in); return err }
			switch in {
			case "step":
				if failed := once.Do(ctx, "step", step); failed == nil || errors.Is(failed, pgqrs.ErrSuspended) {
					return 0, fmt.Errorf("the step returned %w", failed)
				}
				return 1, nil
			case "transaction":
				failed := once.DoTx(ctx, "transaction", func(ctx context.Context, _ *sql.Tx) error { return step(ctx) })
				if failed == nil || errors.Is(failed, pgqrs.ErrSuspended) {
					return 0, fmt.Errorf("the step returned %w", failed)
				}
				return 1, nil
			}
			calls.add(in)
			return 0, err
		})))
		for in, want := range map[string]pgqrs.RunState{"step": pgqrs.Succeeded, "transaction": pgqrs.Succeeded, "run": pgqrs.Failed} {
			h := value(w.Start(t.Context(), in))(t)
			e.awaitRun(t, h.ID(), want)
		}
		equal(t, "calls with "+how, calls.len(), 3)
		must(t, stop())
	}
}

func foreignFail(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "jobs").With(atOnce(1))
	for how, err := range panicking() {
		enqueue(t, q, 1)
		m := dequeueOne(t, q)
		must(t, q.Fail(t.Context(), err, m))
		equal(t, "state with "+how, e.info(t, m.ID).State, pgqrs.Dead)
	}
}

func foreignBackoff(t *testing.T, e *env) {
	p := pgqrs.Policy{Backoff: func(attempt int) time.Duration { return []time.Duration{}[attempt] }}
	id := e.failing(t, p, errBoom)
	m := e.awaitState(t, id, pgqrs.Scheduled)
	equal(t, "attempts", m.Attempt, 1)
	wantText(t, "last error", m.LastError, "boom", "Policy.Backoff", "index out of range")

	var attempts tally[int]
	w := pgqrs.NewWorkflow[int, int](e.store, "steps")
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (int, error) {
		return 1, run.With(p).Do(ctx, "flaky", func(context.Context) error {
			if attempts.add(1); attempts.len() == 1 {
				return errBoom
			}
			return nil
		})
	})))
	h := value(w.Start(t.Context(), 1))(t)
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	equal(t, "retries", e.step(t, h.ID(), "flaky").Retries, 1)
}

// observing returns an Observer whose functions call do, and counts the calls of each function.
func observing(calls *tally[string], do func()) *pgqrs.Observer {
	called := func(name string) { calls.add(name); do() }
	return &pgqrs.Observer{
		Enqueued: func(context.Context, string, []int64) { called("Enqueued") },
		Claimed:  func(context.Context, *pgqrs.MessageInfo) { called("Claimed") },
		Finished: func(context.Context, *pgqrs.MessageInfo, time.Duration, error) { called("Finished") },
		Stepping: func(ctx context.Context, _ int64, _ string) context.Context { called("Stepping"); return ctx },
		Stepped:  func(context.Context, int64, string, time.Duration, error) { called("Stepped") },
	}
}

func foreignObserver(t *testing.T, e *env) {
	var calls tally[string]
	s := e.newStore(t, pgqrs.Config{Observer: observing(&calls, func() { panic("a metric") })})
	q, w := pgqrs.NewQueue[int](s, "jobs"), orders(s)
	start(t, fast(q.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil }), w.Handle(func(ctx context.Context, run *pgqrs.Run, _ order) (receipt, error) {
		return receipt{}, run.Do(ctx, "step", func(context.Context) error { return nil })
	})))
	m := e.awaitState(t, enqueue(t, q, 1), pgqrs.Archived)
	equal(t, "attempts", m.Attempt, 1)
	h := value(w.Start(t.Context(), order{}))(t)
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	seen := strings.Join(calls.all(), " ")
	wantText(t, "what was called", seen, "Enqueued", "Claimed", "Finished", "Stepping", "Stepped")
	wantText(t, "log", e.log.String(), "a function of the Observer panicked", "a metric")
}

func foreignObserverExits(t *testing.T, e *env) {
	var calls tally[string]
	s := e.newStore(t, pgqrs.Config{Observer: &pgqrs.Observer{
		Claimed:  observing(&calls, runtime.Goexit).Claimed,
		Finished: observing(&calls, runtime.Goexit).Finished,
	}})
	q := pgqrs.NewQueue[int](s, "jobs").With(atOnce(1))
	w := fast(q.Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
		if m.Payload%2 == 0 {
			return errBoom
		}
		return nil
	}))
	w.Concurrency = 2
	start(t, w)
	for n := range 10 {
		id := enqueue(t, q, n)
		want := pgqrs.Archived
		if n%2 == 0 {
			want = pgqrs.Dead
		}
		equal(t, "attempts", e.awaitState(t, id, want).Attempt, 1)
	}
	equal(t, "calls", calls.len(), 20)
}

// A brokenLog is a slog.Handler whose Handle does something. It counts the calls of Handle.
type brokenLog struct {
	slog.Handler
	calls *atomic.Int64
	do    func()
}

func (l brokenLog) Handle(context.Context, slog.Record) error {
	l.calls.Add(1)
	l.do()
	return nil
}

func (l brokenLog) WithAttrs([]slog.Attr) slog.Handler { return l }

func foreignLogger(t *testing.T, e *env) {
	for name, do := range map[string]func(){"panics": func() { panic("no log") }, "exits": runtime.Goexit} {
		var calls atomic.Int64
		s := e.newStore(t, pgqrs.Config{Logger: slog.New(brokenLog{slog.DiscardHandler, &calls, do})})
		// DiscardHandler is enabled for no level. This handler is enabled for all levels.
		q := pgqrs.NewQueue[int](s, name).With(atOnce(2))
		start(t, fast(q.Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
			if m.Payload == 1 {
				return errBoom
			}
			return nil
		})))
		m := e.awaitState(t, enqueue(t, q, 1), pgqrs.Dead)
		equal(t, "attempts", m.Attempt, 2)
		e.awaitState(t, enqueue(t, q, 2), pgqrs.Archived)
		if calls.Load() == 0 {
			t.Errorf("%s: the logger was not called", name)
		}
	}
}

// Enabled returns true for every level.
func (l brokenLog) Enabled(context.Context, slog.Level) bool { return true }

// A brokenNotifier does something whenever it is called.
type brokenNotifier struct {
	notified, listened atomic.Int64
	do                 func()
}

func (n *brokenNotifier) Notify(context.Context, pgqrs.Tx, string) error {
	n.notified.Add(1)
	n.do()
	return nil
}

func (n *brokenNotifier) Listen(context.Context, func(string)) error {
	n.listened.Add(1)
	n.do()
	return nil
}

func foreignNotifier(t *testing.T, e *env) {
	for name, do := range map[string]func(){"panics": func() { panic("no news") }, "exits": runtime.Goexit} {
		n := &brokenNotifier{do: do}
		s := e.newStore(t, pgqrs.Config{Notifier: n})
		q := pgqrs.NewQueue[int](s, name)
		stop := start(t, fast(q.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil })))
		for range 3 {
			e.awaitState(t, enqueue(t, q, 1), pgqrs.Archived)
		}
		eventually(t, "Listen is called again", func() bool { return n.listened.Load() > 1 })
		if n.notified.Load() == 0 {
			t.Errorf("%s: Notify was not called", name)
		}
		must(t, stop())
		wantText(t, "log", e.log.String(), "could not notify other processes", "cannot hear of messages from other processes")
	}
}

func foreignMiddleware(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "jobs").With(atOnce(2))
	w := fast(q.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil }))
	w.Middleware = []func(pgqrs.WorkFunc) pgqrs.WorkFunc{func(next pgqrs.WorkFunc) pgqrs.WorkFunc {
		return func(ctx context.Context, m *pgqrs.MessageInfo) error {
			if string(m.Raw) == "1" {
				panic("no trace")
			}
			return next(ctx, m)
		}
	}}
	stop := start(t, w)
	equal(t, "attempts", e.awaitState(t, enqueue(t, q, 1), pgqrs.Dead).Attempt, 2)
	e.awaitState(t, enqueue(t, q, 2), pgqrs.Archived)
	must(t, stop())
	for says, make := range map[string]func(pgqrs.WorkFunc) pgqrs.WorkFunc{
		"panic: no trace": func(pgqrs.WorkFunc) pgqrs.WorkFunc { panic("no trace") },
		"returned nil":    func(pgqrs.WorkFunc) pgqrs.WorkFunc { return nil },
		"nil pointer":     nil,
	} {
		w.Middleware = []func(pgqrs.WorkFunc) pgqrs.WorkFunc{make}
		err := receive(t, "Run returns", startOnly(t, w))
		if err == nil {
			t.Fatalf("Run returned nil; want an error that says %q", says)
		}
		wantText(t, "error", err.Error(), "pgqrs: run: middleware 0", `queue "jobs"`, says)
	}
	equal(t, "live workers", liveWorkers(t, e), 0)
}

func liveWorkers(t *testing.T, e *env) (n int) {
	for _, w := range value(e.store.Workers(t.Context()))(t) {
		if w.State != pgqrs.WorkerStopped {
			n++
		}
	}
	return n
}

// A mine that is armed panics when it is marshalled. A mine with a fuse panics when it is
// unmarshalled.
type mine struct{ Armed, Fuse bool }

func (m mine) MarshalJSON() ([]byte, error) {
	if m.Armed {
		panic("a mine")
	}
	return json.Marshal(m.Fuse)
}

func (m *mine) UnmarshalJSON(raw []byte) error {
	if string(raw) == "true" {
		panic("a mine")
	}
	return nil
}

func foreignMarshal(t *testing.T, e *env) {
	q := pgqrs.NewQueue[mine](e.store, "mines")
	enqueue(t, q, mine{})
	done := make(chan error, 20)
	for n := range cap(done) {
		go func() {
			_, err := q.Enqueue(t.Context(), mine{Armed: n%2 == 0})
			if n%2 == 0 && errors.Is(err, pgqrs.ErrInvalidPayload) {
				err = nil
			}
			done <- err
		}()
	}
	for range cap(done) {
		must(t, receive(t, "every call returns", done))
	}
	equal(t, "messages", e.stats(t, "mines").Ready, 1+int64(cap(done))/2)
	_, err := q.EnqueueBatch(t.Context(), []mine{{}, {Armed: true}})
	wantError(t, err, pgqrs.ErrInvalidPayload)
	wantText(t, "error", err.Error(), "item 1", "panic: a mine")

	w := pgqrs.NewWorkflow[string, mine](e.store, "results")
	var calls tally[string]
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, in string) (mine, error) {
		if in == "step" {
			_, err := pgqrs.Step(ctx, run, "step", func(context.Context) (mine, error) { calls.add(in); return mine{Armed: true}, nil })
			return mine{}, err
		}
		calls.add(in)
		return mine{Armed: true}, nil
	})))
	for _, in := range []string{"step", "run"} {
		h := value(w.Start(t.Context(), in))(t)
		wantText(t, "error", e.awaitRun(t, h.ID(), pgqrs.Failed).Error, "panic: a mine")
	}
	equal(t, "calls", calls.len(), 2)
}

func foreignUnmarshal(t *testing.T, e *env) {
	q := pgqrs.NewQueue[mine](e.store, "mines").With(atOnce(2))
	ids := value(q.EnqueueBatch(t.Context(), []mine{{Fuse: true}, {}}))(t)
	ms := dequeue(t, q, 2)
	equal(t, "messages dequeued", len(ms), 1)
	equal(t, "attempts", e.info(t, ids[0]).Attempt, 1)
	must(t, q.Ack(t.Context(), ms...))
	equal(t, "messages dequeued", len(dequeue(t, q, 2)), 0)
	m := e.awaitState(t, ids[0], pgqrs.Dead)
	equal(t, "attempts", m.Attempt, 2)
	wantText(t, "last error", m.LastError, "panic: a mine")

	w := pgqrs.NewWorkflow[int, mine](e.store, "mined")
	start(t, fast(q.Handle(func(context.Context, *pgqrs.Message[mine]) error { return nil }),
		w.Handle(func(context.Context, *pgqrs.Run, int) (mine, error) { return mine{Fuse: true}, nil })))
	_, err := value(w.Start(t.Context(), 1))(t).Result(t.Context())
	wantError(t, err, pgqrs.ErrInvalidPayload)
	wantText(t, "error", err.Error(), "does not decode into conformance.mine", "panic: a mine")
	equal(t, "attempts", e.awaitState(t, enqueue(t, q, mine{Fuse: true}), pgqrs.Dead).Attempt, 2)
	e.awaitState(t, enqueue(t, q, mine{}), pgqrs.Archived)
}

func foreignHeaders(t *testing.T, e *env) {
	var broken atomic.Bool
	s := e.newStore(t, pgqrs.Config{Headers: func(context.Context) map[string]string {
		if broken.Load() {
			panic("no trace")
		}
		return nil
	}})
	q := pgqrs.NewQueue[int](s, "jobs")
	broken.Store(true)
	_, err := q.Enqueue(t.Context(), 1)
	if err == nil {
		t.Fatal("Enqueue returned no error")
	}
	wantText(t, "error", err.Error(), "Config.Headers", "panic: no trace")
	g := newGrid(time.Hour)
	schedule := pgqrs.Schedule{Name: "hourly", Rule: g, Target: q.Target(2)}
	e.register(t, schedule)
	e.setNext(t, "hourly", g.last(0))
	ticking(t, schedule)
	eventually(t, "the schedule fails", func() bool { return e.log.has("schedules have to wait") && e.log.has("no trace") })
	broken.Store(false)
	eventually(t, "the instant is run", func() bool { return len(e.runsOf(t, "hourly")) == 1 })
	enqueue(t, q, 3)
}

// A mute is a rule whose String panics.
type mute struct{ pgqrs.Rule }

func (mute) String() string { panic("no name") }

func foreignRule(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "jobs")
	w := &pgqrs.Worker{Schedules: []pgqrs.Schedule{{Name: "mute", Rule: mute{pgqrs.Every(time.Hour)}, Target: q.Target(1)}}}
	err := receive(t, "Run returns", startOnly(t, w))
	if err == nil {
		t.Fatal("Run returned nil")
	}
	wantText(t, "error", err.Error(), `schedule "mute"`, "no Text")
}
