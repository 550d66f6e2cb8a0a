//go:build unix

package interop_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

var limitsProofs = []proof{
	{"the same limits take and refuse the same payloads on both sides", samePayloads},
	{"both sides stop at the burst; a batch above it passes in Go alone", sameRate},
	{"an input that Go takes within the limits, Python refuses for the payload around it", sameInputs},
}

func TestLimits(t *testing.T) { proveShared(t, limitsProofs) }

// limit gives both sides the same limits.
func (p *pair) limit(t *testing.T) pgqrs.Limits {
	t.Helper()
	p.makeQueue(t, "jobs")
	p.py.run(t, `
		config = my.config
		config.max_payload_size_bytes = 200
		config.max_string_length = 10
		config.max_object_depth = 3
		config.forbidden_keys = ["__proto__", "constructor"]
		config.required_keys = ["id"]
		config.max_enqueue_per_second = None
		my.limited = await pgqrs.connect_with(config)
		my.producer = await my.limited.producer("jobs")
	`, nil)
	return pgqrs.Limits{MaxPayload: 200, MaxString: 10, MaxDepth: 3, ForbiddenKeys: []string{"__proto__", "constructor"}, RequiredKeys: []string{"id"}}
}

func samePayloads(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[json.RawMessage](p.newStore(t, pgqrs.Config{Limits: p.limit(t)}), "jobs")
	taken, refused := 0, 0
	for _, text := range []string{
		`1`, `"0123456789"`, `"01234567890"`, `"ééééé"`, `"éééééé"`, `[]`, `[[[[1]]]]`, `[[[1]]]`, `{}`, `{"id": 1}`, `{"id": null}`, `{"ID": 1}`,
		`{"id": {"a": {"b": 1}}}`, `{"id": {"a": {"b": [1]}}}`, `{"id": {"a": {"b": []}}}`, `{"id": 1, "0123456789": 1}`, `{"id": 1, "01234567890": 1}`,
		`{"id": 1, "__proto__": 1}`, `[{"constructor": 1}]`, `[{"a": {"__proto__": 1}}]`, `{"id": "__proto__"}`,
		`{"id": [` + strings.Repeat(`123456789,`, 18) + `1]}`, `{"id": [` + strings.Repeat(`123456789,`, 19) + `1]}`,
	} {
		_, err := q.Enqueue(t.Context(), json.RawMessage(strings.ReplaceAll(text, " ", "")))
		got := p.py.ask(t, `await my.producer.enqueue(json.loads(text))`, args{"text": text})
		if (err == nil) != (got.Class == "") || err != nil && (!errors.Is(err, pgqrs.ErrInvalidPayload) || got.Class != "ValidationError") {
			t.Errorf("%s: Go says %v, and Python %s %s", text, err, got.Class, got.Text)
		}
		if err == nil {
			taken++
		} else {
			refused++
		}
	}
	if taken < 8 || refused < 8 {
		t.Errorf("%d were taken and %d refused; want some of each", taken, refused)
	}
}

func sameRate(t *testing.T, p *pair) {
	p.makeQueue(t, "jobs")
	q := pgqrs.NewQueue[int](p.newStore(t, pgqrs.Config{Limits: pgqrs.Limits{MaxPerSecond: 1.0 / 3600, Burst: 5}}), "jobs")
	for i := range 5 {
		value(q.Enqueue(t.Context(), i))(t)
	}
	_, err := q.Enqueue(t.Context(), 5)
	wantError(t, err, pgqrs.ErrRateLimited)
	p.py.run(t, `
		my.config.max_enqueue_per_second = 1  # its rates are whole numbers; nothing is added at 0
		my.config.max_enqueue_burst = 5
		producer = await (await pgqrs.connect_with(my.config)).producer("jobs")
		try:
			for i in range(100):
				await producer.enqueue(i)
			assert False, "no limit"
		except pgqrs.RateLimitedError:
			assert i >= 5, i
	`, nil)
	// A batch above the burst never passes in Python. In Go it passes once the burst is full.
	p.py.fails(t, `await pgqrs.produce_batch(await pgqrs.connect_with(my.config), "jobs", list(range(6)))`, nil, "RateLimitedError", "")
	full := pgqrs.NewQueue[int](p.newStore(t, pgqrs.Config{Limits: pgqrs.Limits{MaxPerSecond: 1.0 / 3600, Burst: 5}}), "jobs")
	equal(t, "stored", len(value(full.EnqueueBatch(t.Context(), make([]int, 6)))(t)), 6)
}

func sameInputs(t *testing.T, p *pair) {
	l := p.limit(t)
	p.makeWorkflow(t, "flow")
	value(pgqrs.NewWorkflow[map[string]int, int](p.newStore(t, pgqrs.Config{Limits: l}), "flow").Start(t.Context(), map[string]int{"id": 1}))(t)
	p.py.fails(t, `await pgqrs.workflow().name("flow").store(my.limited).trigger({"id": 1}).execute()`, nil, "ValidationError", "id")
}
