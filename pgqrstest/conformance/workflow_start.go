package conformance

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var workflowStartCases = []testcase{
	{"a run is there, QUEUED and listed, before any worker has seen it, and its message carries the input", "a run that nobody works yet could be neither seen nor cancelled", startVisible},
	{"a program without the code or the types starts runs, by json.RawMessage", "a web server would have to link every workflow's code", startRaw},
	{"a start in the caller's transaction is there if and only if that commits", "there would be an order without its checkout, or a checkout without its order", startTx},
	{"Delay and Priority hold for runs", "a run would begin too early, or behind a bulk import", startOptions},
	{"a Key returns the same run for as long as it is kept, also after it has ended", "a repeated click would charge the customer twice", startKey},
	{"Unique returns ErrDuplicate, and the run that has the key", "a caller could not tell a new run from an old one", startUnique},
	{"starts of one key at once make one run", "two clicks at once would charge the customer twice", startRace},
	{"a start waits for a transaction that is starting the same key", "two transactions at once would make two runs, or fail", startWaits},
	{"Find returns the run of a key, or ErrNotFound", "a request could not find the run that an earlier one started", startFind},
	{"a message that was enqueued as pgqrs 0.15 does gets its run when it is worked", "producers in other languages could not start runs", startForeign},
	{"runs whose code no worker knows stay queued, and other handlers leave them alone", "a deploy that lacks one workflow would eat its runs", startUnknown},
	{"names of workflows, keys and steps may be any text", "a name with an accent or emoji would lose its runs", startNames},
	{"with a run's own ctx, Enqueue, Start, Send, Result and changes are ErrState outside a step, and work in one", "every replay would enqueue, start and send once more", startInRun},
	{"a start that makes no sense is refused and stores nothing", "bad input would surface in a worker, far from its cause", startRefused},
}

// An order is the input of most workflows in these cases.
type order struct {
	Item string `json:"item"`
	N    int    `json:"n"`
}

// A receipt is the result of most workflows in these cases.
type receipt struct {
	Item  string `json:"item"`
	Total int    `json:"total"`
}

// orders returns the workflow that most cases use.
func orders(s *pgqrs.Store) *pgqrs.Workflow[order, receipt] {
	return pgqrs.NewWorkflow[order, receipt](s, "orders")
}

// run starts a run of the workflow that most cases use.
func (e *env) run(t *testing.T, opts ...pgqrs.Option) *pgqrs.RunHandle[receipt] {
	t.Helper()
	return value(orders(e.store).Start(t.Context(), order{"tea", 2}, opts...))(t)
}

// runInfo reads a run.
func (e *env) runInfo(t *testing.T, id int64) pgqrs.RunInfo {
	t.Helper()
	return value(e.store.RunHandle(id).Info(t.Context()))(t)
}

// awaitRun waits until a run has a status, and returns the run.
func (e *env) awaitRun(t *testing.T, id int64, status pgqrs.RunState) pgqrs.RunInfo {
	t.Helper()
	eventually(t, fmt.Sprintf("run %d is %s", id, status), func() bool { return e.runInfo(t, id).Status == status })
	return e.runInfo(t, id)
}

// runIDs lists the runs that match a filter, by id.
func (e *env) runIDs(t *testing.T, f pgqrs.RunFilter) []int64 {
	t.Helper()
	ids := []int64{}
	for _, r := range value(e.store.Runs(t.Context(), f))(t) {
		ids = append(ids, r.ID)
	}
	return ids
}

// sells returns a handler that multiplies the numbers of an order.
func sells(w *pgqrs.Workflow[order, receipt]) pgqrs.Handler {
	return w.Handle(func(_ context.Context, _ *pgqrs.Run, o order) (receipt, error) {
		return receipt{o.Item, 10 * o.N}, nil
	})
}

func startVisible(t *testing.T, e *env) {
	h := e.run(t)
	r := value(h.Info(t.Context()))(t)
	equal(t, "id", r.ID, h.ID())
	equal(t, "workflow", r.Workflow, "orders")
	equal(t, "status", r.Status, pgqrs.Queued)
	equal(t, "times", r.CreatedAt.IsZero() || r.DueAt.IsZero() || !r.StartedAt.IsZero() || !r.EndedAt.IsZero(), false)
	equal(t, "text", fmt.Sprint(r.Key, r.Error, r.Warning, r.ParentStep, r.Attempts, r.ParentID), "0 0")
	sameJSON(t, r.Input, `{"input":{"item":"tea","n":2}}`)
	m := e.info(t, r.MessageID)
	equal(t, "queue", m.Queue, "orders")
	sameJSON(t, m.Raw, `{"input":{"item":"tea","n":2}}`)
	equalSlices(t, "runs that are queued", e.runIDs(t, pgqrs.RunFilter{Status: pgqrs.Queued}), []int64{r.ID})
	equal(t, "steps", len(value(h.Steps(t.Context()))(t)), 0)
	equal(t, "ready", e.stats(t, "orders").Ready, 1)
}

func startRaw(t *testing.T, e *env) {
	producer := e.newStore(t, pgqrs.Config{})
	raw := pgqrs.NewWorkflow[json.RawMessage, json.RawMessage](producer, "orders")
	h := value(raw.Start(t.Context(), json.RawMessage(`{"item": "tea", "n": 3}`)))(t)
	typed := value(orders(producer).Start(t.Context(), order{"tea", 4}))(t)
	start(t, fast(sells(orders(e.store))))
	sameJSON(t, value(h.Result(t.Context()))(t), `{"item":"tea","total":30}`)
	sameJSON(t, value(producer.RunHandle(typed.ID()).Result(t.Context()))(t), `{"item":"tea","total":40}`)
	equal(t, "result", value(orders(e.store).RunHandle(h.ID()).Result(t.Context()))(t), receipt{"tea", 30})
}

func startTx(t *testing.T, e *env) {
	start(t, fast(sells(orders(e.store))))
	first := e.run(t)
	value(first.Result(t.Context()))(t)
	eachTx(e, func(tx *callerTx) {
		bound := orders(e.store).WithTx(tx.begin(t))
		h := value(bound.Start(t.Context(), order{"tea", 5}))(t)
		keyed := value(bound.Start(t.Context(), order{"tea", 6}, pgqrs.Key(fmt.Sprint(h.ID()))))(t)
		again := value(bound.Start(t.Context(), order{"tea", 7}, pgqrs.Key(fmt.Sprint(h.ID()))))(t)
		equal(t, "the run of a repeated key", again.ID(), keyed.ID())
		_, err := h.Info(t.Context()) // of the pool
		wantError(t, err, pgqrs.ErrNotFound)
		tx.end(t)
		if !tx.commit {
			_, err := h.Result(t.Context())
			wantError(t, err, pgqrs.ErrNotFound)
			return
		}
		equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 50})
		equal(t, "result of the keyed one", value(again.Result(t.Context()))(t), receipt{"tea", 60})
	})
	equal(t, "runs", len(e.runIDs(t, pgqrs.RunFilter{})), 5)
}

func startOptions(t *testing.T, e *env) {
	late := e.run(t, pgqrs.Delay(time.Hour))
	low := e.run(t, pgqrs.Priority(-1))
	high := e.run(t, pgqrs.Priority(1), pgqrs.Headers(map[string]string{"trace": "x"}))
	equal(t, "header", e.info(t, e.runInfo(t, high.ID()).MessageID).Headers["trace"], "x")
	if d := e.runInfo(t, late.ID()).DueAt.Sub(e.runInfo(t, low.ID()).DueAt); d < 59*time.Minute {
		t.Errorf("the delayed run is due %v after the other; want about an hour", d)
	}
	var seen tally[int64]
	w := fast(orders(e.store).Handle(func(_ context.Context, run *pgqrs.Run, _ order) (receipt, error) {
		seen.add(run.ID())
		return receipt{}, nil
	}))
	w.Concurrency = 1
	start(t, w)
	e.awaitRun(t, low.ID(), pgqrs.Succeeded)
	equal(t, "status before its time", e.runInfo(t, late.ID()).Status, pgqrs.Queued)
	pgqrstest.Advance(t, e.store, time.Hour)
	e.awaitRun(t, late.ID(), pgqrs.Succeeded)
	equalSlices(t, "runs in order", seen.all(), []int64{high.ID(), low.ID(), late.ID()})
}

func startKey(t *testing.T, e *env) {
	h := e.run(t, pgqrs.Key("o-1"))
	equal(t, "key", e.runInfo(t, h.ID()).Key, "o-1")
	equal(t, "the run while it is queued", e.run(t, pgqrs.Key("o-1")).ID(), h.ID())
	other := pgqrs.NewWorkflow[order, receipt](e.store, "other")
	equal(t, "whether another workflow has keys of its own", value(other.Start(t.Context(), order{}, pgqrs.Key("o-1")))(t).ID() != h.ID(), true)
	stop := start(t, fast(sells(orders(e.store))))
	value(h.Result(t.Context()))(t)
	again := e.run(t, pgqrs.Key("o-1"))
	equal(t, "the run after it has ended", again.ID(), h.ID())
	equal(t, "its result", value(again.Result(t.Context()))(t), receipt{"tea", 20})
	must(t, stop())
	equal(t, "messages", e.stats(t, "orders").Archived+e.stats(t, "orders").Ready, 1)
	value(e.store.Delete(t.Context(), e.runInfo(t, h.ID()).MessageID))(t)
	equal(t, "whether a deleted run has freed its key", e.run(t, pgqrs.Key("o-1")).ID() != h.ID(), true)
}

func startUnique(t *testing.T, e *env) {
	first := e.run(t, pgqrs.Unique("o-1"))
	check := func() {
		t.Helper()
		h, err := orders(e.store).Start(t.Context(), order{}, pgqrs.Unique("o-1"))
		wantError(t, err, pgqrs.ErrDuplicate)
		wantErrorText(t, err, fmt.Sprintf("run %d", first.ID()))
		equal(t, "run", h.ID(), first.ID())
	}
	check()
	start(t, fast(sells(orders(e.store))))
	value(first.Result(t.Context()))(t)
	check()
	eachTx(e, func(tx *callerTx) { // the transaction stays usable after the error
		bound := orders(e.store).WithTx(tx.begin(t))
		h, err := bound.Start(t.Context(), order{}, pgqrs.Unique("o-1"))
		wantError(t, err, pgqrs.ErrDuplicate)
		equal(t, "run", h.ID(), first.ID())
		next := value(bound.Start(t.Context(), order{"tea", 1}))(t)
		tx.end(t)
		if tx.commit {
			equal(t, "result of the next", value(next.Result(t.Context()))(t), receipt{"tea", 10})
		}
	})
}

func startRace(t *testing.T, e *env) {
	const n = 8
	for round := range 5 {
		ids := make([]int64, n)
		together(t, n, func(i int) error {
			h, err := orders(e.store).Start(t.Context(), order{"tea", i}, pgqrs.Key(fmt.Sprint(round)))
			if err == nil {
				ids[i] = h.ID()
			}
			return err
		})
		for _, id := range ids {
			equal(t, "run", id, ids[0])
		}
		equal(t, "runs", len(e.runIDs(t, pgqrs.RunFilter{})), round+1)
		equal(t, "messages", e.stats(t, "orders").Ready, int64(round+1))
	}
}

func startWaits(t *testing.T, e *env) {
	e.run(t) // makes the queue and the definition
	var options sql.TxOptions
	if e.dialect == pgqrs.Postgres {
		options.Isolation = sql.LevelReadCommitted // at a stricter level the wait ends with a serialization failure
	}
	for _, commit := range []bool{true, false} {
		key := pgqrs.Key(fmt.Sprint(commit))
		first := value(e.db.BeginTx(t.Context(), nil))(t)
		h := value(orders(e.store).WithTx(first).Start(t.Context(), order{}, key))(t)
		// The other transaction is seen on its way: it cannot end before the first one does.
		far, net := e.farStore(t)
		watch, seen := once("/* pgqrs:", none)
		net.fail(watch)
		done := make(chan error, 1)
		var waited *pgqrs.RunHandle[receipt]
		second := func() error {
			tx, err := far.DB().BeginTx(t.Context(), &options)
			if err != nil {
				return err
			}
			defer tx.Rollback() // does nothing once it is committed
			if waited, err = orders(far).WithTx(tx).Start(t.Context(), order{}, key); err != nil {
				return err
			}
			return tx.Commit()
		}
		go func() {
			err := second()
			for e.config.Concurrent && err != nil && strings.Contains(err.Error(), "database is locked") {
				err = second() // without a busy timeout the caller waits by itself
			}
			done <- err
		}()
		receive(t, "the second start is on its way", seen)
		select {
		case err := <-done:
			t.Fatalf("the second start did not wait: %v", err)
		default:
		}
		if commit {
			must(t, first.Commit())
		} else {
			must(t, first.Rollback())
		}
		must(t, receive(t, "the second start ends", done))
		if commit {
			equal(t, "the run", waited.ID(), h.ID())
		}
		equal(t, "status", e.runInfo(t, waited.ID()).Status, pgqrs.Queued)
	}
	equal(t, "runs", len(e.runIDs(t, pgqrs.RunFilter{})), 3)
	equal(t, "messages", e.stats(t, "orders").Ready, 3)
}

func startFind(t *testing.T, e *env) {
	_, err := orders(e.store).Find(t.Context(), "o-1")
	wantError(t, err, pgqrs.ErrNotFound)
	wantErrorText(t, err, `"o-1"`)
	h := e.run(t, pgqrs.Key("o-1"))
	e.run(t)
	found := value(orders(e.newStore(t, pgqrs.Config{})).Find(t.Context(), "o-1"))(t)
	equal(t, "run", found.ID(), h.ID())
	for _, key := range []string{"o-2", "O-1", "o-1 "} {
		_, err = orders(e.store).Find(t.Context(), key)
		wantError(t, err, pgqrs.ErrNotFound)
	}
	_, err = orders(e.store).Find(t.Context(), "")
	wantErrorText(t, err, "empty key")
	start(t, fast(sells(orders(e.store))))
	equal(t, "result", value(found.Result(t.Context()))(t), receipt{"tea", 20})
}

func startForeign(t *testing.T, e *env) {
	q := pgqrs.NewQueue[json.RawMessage](e.store, "orders")
	ids := []int64{
		enqueue(t, q, json.RawMessage(`{"input":{"item":"tea","n":7}}`)),
		enqueue(t, q, json.RawMessage(`{"item":"tea","n":7}`)), // the bare input
	}
	start(t, fast(sells(orders(e.store))))
	for _, id := range ids {
		e.awaitState(t, id, pgqrs.Archived)
	}
	for _, r := range value(e.store.Runs(t.Context(), pgqrs.RunFilter{Workflow: "orders"}))(t) {
		equal(t, "status", r.Status, pgqrs.Succeeded)
		sameJSON(t, r.Output, `{"item":"tea","total":70}`)
	}
	equal(t, "runs", len(e.runIDs(t, pgqrs.RunFilter{})), len(ids))
}

func startUnknown(t *testing.T, e *env) {
	h := e.run(t)
	q := jobs(e)
	other := pgqrs.NewWorkflow[order, receipt](e.store, "other")
	plain, got := handling(q)
	start(t, fast(plain, sells(other)))
	for range 5 { // the worker has polled
		enqueue(t, q, "x")
		receive(t, "a message is handled", got)
		value(value(other.Start(t.Context(), order{}))(t).Result(t.Context()))(t)
	}
	r := e.runInfo(t, h.ID())
	equal(t, "status", r.Status, pgqrs.Queued)
	equal(t, "attempts", r.Attempts, 0)
	equal(t, "ready", e.stats(t, "orders").Ready, 1)
	start(t, fast(sells(orders(e.newStore(t, pgqrs.Config{})))))
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
}

func startNames(t *testing.T, e *env) {
	for _, name := range []string{"Bestellung für Ömer", "заказ/1", "🧾🚀", "it's \"quoted\" %d $1 ?", "2026-11-22"} {
		w := pgqrs.NewWorkflow[string, string](e.store, name)
		h := value(w.Start(t.Context(), name, pgqrs.Key(name)))(t)
		stop := start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, in string) (string, error) {
			return pgqrs.Step(ctx, run, in, func(context.Context) (string, error) { return in, nil })
		})))
		equal(t, "result", value(h.Result(t.Context()))(t), name)
		must(t, stop())
		r := e.runInfo(t, h.ID())
		equal(t, "workflow", r.Workflow, name)
		equal(t, "key", r.Key, name)
		equal(t, "step", value(h.Steps(t.Context()))(t)[0].Name, name)
		equal(t, "found", value(w.Find(t.Context(), name))(t).ID(), h.ID())
		equalSlices(t, "runs of the workflow", e.runIDs(t, pgqrs.RunFilter{Workflow: name}), []int64{h.ID()})
	}
}

// inRun returns all calls that a run's own ctx must not make outside a step.
func inRun(e *env, other int64) map[string]func(context.Context) error {
	q := pgqrs.NewQueue[string](e.store, "from the run")
	w := pgqrs.NewWorkflow[order, receipt](e.store, "from the run too")
	h := w.RunHandle(other)
	return map[string]func(context.Context) error{
		"Enqueue":      func(ctx context.Context) error { _, err := q.Enqueue(ctx, "x"); return err },
		"EnqueueBatch": func(ctx context.Context) error { _, err := q.EnqueueBatch(ctx, []string{"x"}); return err },
		"Start":        func(ctx context.Context) error { _, err := w.Start(ctx, order{}); return err },
		"Send":         func(ctx context.Context) error { return pgqrs.Signal[int]("s").Send(ctx, e.store, other, 1) },
		"Pause":        h.Pause,
		"Resume":       h.Resume,
		"RerunFrom":    func(ctx context.Context) error { _, err := h.RerunFrom(ctx, "made"); return err },
		"Cancel":       h.Cancel,
		"Result": func(ctx context.Context) error {
			if _, err := h.Result(ctx); !errors.Is(err, pgqrs.ErrCancelled) {
				return err
			}
			return nil
		},
	}
}

// inRunOrder is an order in which all these calls succeed.
var inRunOrder = []string{"Enqueue", "EnqueueBatch", "Start", "Send", "Pause", "Resume", "RerunFrom", "Cancel", "Result"}

func startInRun(t *testing.T, e *env) {
	other := pgqrs.NewWorkflow[order, receipt](e.store, "other")
	made := make(chan struct{}, 1)
	start(t, fast(other.Handle(func(ctx context.Context, run *pgqrs.Run, _ order) (receipt, error) {
		if err := run.Do(ctx, "made", func(context.Context) error { return nil }); err != nil {
			return receipt{}, err
		}
		select {
		case made <- struct{}{}:
		default:
		}
		return receipt{}, run.Sleep(ctx, "for ever", 1000*time.Hour)
	})))
	target := value(other.Start(t.Context(), order{}))(t)
	receive(t, "the other run has a step", made)
	calls := inRun(e, target.ID())
	var wrong tally[string]
	start(t, fast(orders(e.store).Handle(func(ctx context.Context, run *pgqrs.Run, _ order) (receipt, error) {
		for what, call := range calls {
			if err := call(ctx); !errors.Is(err, pgqrs.ErrState) {
				wrong.add(fmt.Sprintf("%s outside a step: %v", what, err))
			}
		}
		for _, what := range inRunOrder {
			err := run.Do(ctx, what, calls[what])
			if errors.Is(err, pgqrs.ErrSuspended) {
				return receipt{}, err
			}
			if err != nil {
				wrong.add(fmt.Sprintf("%s in a step: %v", what, err))
			}
		}
		return receipt{}, nil
	})))
	e.awaitRun(t, e.run(t).ID(), pgqrs.Succeeded)
	equalSlices(t, "wrong answers", wrong.all(), nil)
	equal(t, "messages enqueued", e.stats(t, "from the run").Ready, 2)
	equal(t, "runs started", e.stats(t, "from the run too").Ready, 1)
}

func startRefused(t *testing.T, e *env) {
	w := pgqrs.NewWorkflow[any, any](e.store, "picky")
	each := pgqrs.Each(func(int) []pgqrs.Option { return nil })
	for what, opts := range map[string][]pgqrs.Option{
		"negative delay": {pgqrs.Delay(-1)}, "priority": {pgqrs.Priority(3)}, "empty key": {pgqrs.Key("")},
		"long key": {pgqrs.Unique(strings.Repeat("k", 256))}, "Each": {each},
	} {
		if h, err := w.Start(t.Context(), 1, opts...); err == nil || h != nil {
			t.Errorf("%s: a run was started, or its error is nil: %v", what, err)
		}
	}
	for _, in := range []any{make(chan int), "a\x00b", json.RawMessage(`{`), strings.Repeat("x", 2<<20)} {
		_, err := w.Start(t.Context(), in)
		wantError(t, err, pgqrs.ErrInvalidPayload)
		wantErrorText(t, err, `start workflow "picky"`)
	}
	for _, name := range []string{"", "a\x00b", strings.Repeat("n", 256)} {
		bad := pgqrs.NewWorkflow[any, any](e.store, name)
		_, err := bad.Start(t.Context(), 1)
		wantErrorText(t, err, "name")
		_, err = bad.Find(t.Context(), "k")
		wantErrorText(t, err, "name")
		err = receive(t, "Run returns", startOnly(t, fast(bad.Handle(func(context.Context, *pgqrs.Run, any) (any, error) { return nil, nil }))))
		wantErrorText(t, err, "name")
	}
	_, err := w.WithTx(e.db).Start(t.Context(), 1)
	wantError(t, err, pgqrs.ErrUnsupported)
	wantErrorText(t, receive(t, "Run returns", startOnly(t, fast(w.Handle(nil)))), "nil handler")
	e.wantEmpty(t)
}
