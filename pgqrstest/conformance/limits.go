package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var limitCases = []testcase{
	{"payloads outside the limits are refused with what is wrong, and nothing is stored", "what other services of the deployment refuse would come in by this one", limitsPayload},
	{"one payload outside the limits refuses its batch, and is named", "half a batch would be stored, or the culprit have to be guessed", limitsBatch},
	{"a workflow's input is measured, and not the payload around it", "a policy that suits messages would refuse every run", limitsInput},
	{"limits on what is enqueued leave results, signals and headers alone", "a run would fail at its end, with its work done", limitsOthers},
	{"above the rate a call stores nothing and says how long to wait", "a runaway producer would fill the database", limitsRate},
	{"a batch above the burst passes once, and is paid off", "a batch that is larger than the burst could never be stored", limitsBurst},
	{"copies of a Store have one rate, and another Store its own", "a producer would get round the limit by WithTx, or be held up by a stranger", limitsShared},
	{"what is refused for its payload does not count against the rate", "a producer's mistakes would keep its good messages out", limitsUncounted},
	{"what a run starts does not count against the rate", "a run would fail because the service is busy", limitsChildren},
	{"a handler that returns the error of the rate is tried again after the wait", "its message would come back too early, or hours too late", limitsHandler},
}

// slow is a rate so low that nothing is added while a test runs.
const slow = 0.0001

func (e *env) limited(t *testing.T, l pgqrs.Limits) *pgqrs.Store {
	t.Helper()
	return e.newStore(t, pgqrs.Config{Limits: l})
}

var strict = pgqrs.Limits{MaxString: 8, MaxDepth: 2, ForbiddenKeys: []string{"__proto__"}, RequiredKeys: []string{"id"}}

func limitsPayload(t *testing.T, e *env) {
	q := pgqrs.NewQueue[json.RawMessage](e.limited(t, strict), "q")
	for payload, text := range map[string]string{
		`{"id": "123456789"}`:                "9 bytes, 8 allowed",
		`{"id": ["éééé_"]}`:                  "9 bytes, 8 allowed",
		`{"id": {"123456789": 1}}`:           "9 bytes, 8 allowed",
		`{"id": {"a": {"b": 1}}}`:            "deeper than 2",
		`{"id": [[1]]}`:                      "deeper than 2",
		`[[[]]]`:                             "",
		`[[[[]]]]`:                           "deeper than 2",
		`{"id": 1, "a": {"__proto__": {}}}`:  `"__proto__" is forbidden`,
		`[{"__proto__": 1}]`:                 `"__proto__" is forbidden`,
		`{"name": "a"}`:                      `"id" is required`,
		`{"a": {"id": 1}}`:                   `"id" is required`,
		`{"id": {"a": [], "b": "12345678"}}`: "",
		`{"id": null}`:                       "",
		`[]`:                                 "",
		`"éééé"`:                             "",
		`1234567890123`:                      "",
	} {
		_, err := q.Enqueue(t.Context(), json.RawMessage(payload))
		if text == "" {
			must(t, err)
			sameJSON(t, dequeueOne(t, q).Payload, payload)
			continue
		}
		wantError(t, err, pgqrs.ErrInvalidPayload)
		wantErrorText(t, err, text)
	}
	wantNone(t, q)
	deep := json.RawMessage(strings.Repeat("[", 20) + strings.Repeat("]", 20))
	enqueue(t, pgqrs.NewQueue[json.RawMessage](e.store, "free"), deep) // zero is no limit
}

func limitsBatch(t *testing.T, e *env) {
	q := pgqrs.NewQueue[map[string]int](e.limited(t, strict), "q")
	_, err := q.EnqueueBatch(t.Context(), []map[string]int{{"id": 1}, {"id": 2}, {"no": 3}})
	wantError(t, err, pgqrs.ErrInvalidPayload)
	wantErrorText(t, err, "item 2")
	e.wantEmpty(t)
}

func limitsInput(t *testing.T, e *env) {
	w := pgqrs.NewWorkflow[map[string]any, int](e.limited(t, strict), "w")
	value(w.Start(t.Context(), map[string]any{"id": map[string]any{"a": 1}}))(t)
	for _, in := range []map[string]any{{"a": 1}, {"id": map[string]any{"a": []int{1}}}, {"id": 1, "__proto__": 1}} {
		_, err := w.Start(t.Context(), in)
		wantError(t, err, pgqrs.ErrInvalidPayload)
	}
	equal(t, "runs", len(value(e.store.Runs(t.Context(), pgqrs.RunFilter{}))(t)), 1)
}

func limitsOthers(t *testing.T, e *env) {
	s := e.limited(t, strict)
	w := pgqrs.NewWorkflow[int, string](s, "w")
	const long = pgqrs.Signal[string]("long")
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		text, err := long.Wait(ctx, run, 0)
		if err != nil {
			return "", err
		}
		return pgqrs.Step(ctx, run, "double", func(context.Context) (string, error) { return text + text, nil })
	})))
	run := value(w.Start(t.Context(), 1, pgqrs.Headers(map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c"})))(t)
	must(t, long.Send(t.Context(), s, run.ID(), "more than eight bytes"))
	equal(t, "result", value(run.Result(t.Context()))(t), "more than eight bytesmore than eight bytes")
}

func wantLimited(t *testing.T, err error, atMost time.Duration) {
	t.Helper()
	var limited *pgqrs.RateLimitError
	if !errors.Is(err, pgqrs.ErrRateLimited) || !errors.As(err, &limited) {
		t.Fatalf("error is %v; want a *RateLimitError", err)
	}
	if limited.Wait <= 0 || limited.Wait > atMost {
		t.Fatalf("it is to wait %v; want up to %v", limited.Wait, atMost)
	}
	wantErrorText(t, err, "try again in "+limited.Wait.String())
}

// perMessage is how long one message takes at the slow rate.
var perMessage = time.Duration(float64(time.Second) / slow)

func limitsRate(t *testing.T, e *env) {
	s := e.limited(t, pgqrs.Limits{MaxPerSecond: slow, Burst: 3})
	q, w := pgqrs.NewQueue[int](s, "q"), pgqrs.NewWorkflow[int, int](s, "w")
	enqueue(t, q, 1)
	value(w.Start(t.Context(), 1))(t)
	_, err := q.EnqueueBatch(t.Context(), []int{2, 3})
	wantLimited(t, err, perMessage)
	enqueue(t, q, 2)
	_, err = q.Enqueue(t.Context(), 3)
	wantLimited(t, err, perMessage)
	_, err = q.EnqueueBatch(t.Context(), []int{3, 4})
	wantLimited(t, err, 2*perMessage)
	_, err = w.Start(t.Context(), 2)
	wantLimited(t, err, perMessage)
	equal(t, "messages", len(dequeue(t, q, 10)), 2)
	equal(t, "runs", len(value(e.store.Runs(t.Context(), pgqrs.RunFilter{}))(t)), 1)
	// A limit that adds faster than calls can take.
	fastest := pgqrs.NewQueue[int](e.limited(t, pgqrs.Limits{MaxPerSecond: 1e12, Burst: 1}), "fastest")
	for i := range 20 {
		enqueue(t, fastest, i)
	}
}

func limitsBurst(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.limited(t, pgqrs.Limits{MaxPerSecond: slow, Burst: 2}), "q")
	equal(t, "stored", len(value(q.EnqueueBatch(t.Context(), make([]int, 10)))(t)), 10)
	_, err := q.Enqueue(t.Context(), 1)
	wantLimited(t, err, 9*perMessage)
	if limited := (*pgqrs.RateLimitError)(nil); !errors.As(err, &limited) || limited.Wait < 8*perMessage {
		t.Fatalf("error is %v; want a wait for what the batch took above the burst", err)
	}
	equal(t, "messages", len(dequeue(t, q, 20)), 10)
}

func limitsShared(t *testing.T, e *env) {
	s := e.limited(t, pgqrs.Limits{MaxPerSecond: slow, Burst: 2})
	q := pgqrs.NewQueue[int](s, "q")
	enqueue(t, q, 1)
	tx := value(e.db.BeginTx(t.Context(), nil))(t)
	defer tx.Rollback()
	value(q.WithTx(tx).With(pgqrs.Policy{MaxAttempts: 1}).Enqueue(t.Context(), 2))(t)
	_, err := pgqrs.NewWorkflow[int, int](s.WithTx(tx), "w").Start(t.Context(), 1)
	wantLimited(t, err, perMessage)
	must(t, tx.Commit())
	_, err = pgqrs.NewQueue[int](s, "other").Enqueue(t.Context(), 3)
	wantLimited(t, err, perMessage)
	enqueue(t, pgqrs.NewQueue[int](e.limited(t, pgqrs.Limits{MaxPerSecond: slow}), "q"), 3)
	equal(t, "messages", len(dequeue(t, q, 10)), 3)
}

func limitsUncounted(t *testing.T, e *env) {
	l := strict
	l.MaxPerSecond, l.Burst, l.MaxPayload = slow, 1, 50
	q := pgqrs.NewQueue[any](e.limited(t, l), "q")
	for range 3 {
		for _, bad := range []any{map[string]int{"no": 1}, make([]int, 100), func() {}} {
			_, err := q.Enqueue(t.Context(), bad)
			wantError(t, err, pgqrs.ErrInvalidPayload)
		}
	}
	enqueue[any](t, q, 1)
}

func limitsChildren(t *testing.T, e *env) {
	s := e.limited(t, pgqrs.Limits{MaxPerSecond: slow, Burst: 1})
	child := pgqrs.NewWorkflow[int, int](s, "child")
	w := pgqrs.NewWorkflow[int, int](s, "parent")
	start(t, fast(
		child.Handle(func(_ context.Context, _ *pgqrs.Run, n int) (int, error) { return 10 * n, nil }),
		w.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
			outs, err := child.Children(ctx, run, "children", []int{n, n + 1, n + 2})
			if err != nil {
				return 0, err
			}
			return outs[0] + outs[1] + outs[2], nil
		})))
	equal(t, "result", value(value(w.Start(t.Context(), 1))(t).Result(t.Context()))(t), 60)
}

func limitsHandler(t *testing.T, e *env) {
	s := e.limited(t, pgqrs.Limits{MaxPerSecond: slow, Burst: 1})
	q, next := pgqrs.NewQueue[int](s, "q"), pgqrs.NewQueue[int](s, "next")
	id := enqueue(t, q, 1)
	start(t, fast(q.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
		_, err := next.Enqueue(ctx, m.Payload)
		return err
	})))
	eventually(t, "the message is put off", func() bool { return e.info(t, id).State == pgqrs.Scheduled })
	if due := time.Until(e.info(t, id).DueAt); due < perMessage/2 || due > 2*perMessage {
		t.Fatalf("it is due in %v; want about %v", due, perMessage)
	}
	equal(t, "attempts", e.info(t, id).Attempt, 1)
	wantText(t, "its error", e.info(t, id).LastError, "rate limit")
}
