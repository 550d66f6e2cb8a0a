package pq_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/pgqrs/pgqrs-go"
)

// longNumbers is JSONB of some hundred bytes whose text has 1.3 MB.
const longNumbers = `(SELECT jsonb_agg('1e131071'::jsonb) FROM generate_series(1, 10))`

// wantRefused fails the test unless the trigger of a JSON column refused a statement.
func wantRefused(t *testing.T, what string, err error) {
	t.Helper()
	var refused *pq.Error
	if !errors.As(err, &refused) || refused.Code != "54000" || !strings.Contains(refused.Message, "too many digits") {
		t.Errorf("%s: %v", what, err)
	}
}

// Rows with such JSON would make claims and listings fail, or use all memory.
func TestJSONOfManyDigitsIsRefused(t *testing.T) {
	r := newRights(t)
	flow := pgqrs.NewWorkflow[int, int](r.owner, "flow")
	r.failed(t, flow) // also creates schedules and a step
	waiting, err := flow.Start(t.Context(), 1)
	check(t, err)
	check(t, approved.Send(t.Context(), r.owner, waiting.ID(), true))
	check(t, pgqrs.NewQueue[int](r.owner, "limited").Configure(t.Context()))

	columns := [][2]string{
		{"pgqrs_messages", "payload"}, {"pgqrs_messages", "headers"}, {"pgqrs_queues", "policy"}, {"pgqrs_workflow_signals", "payload"},
		{"pgqrs_workflow_runs", "input"}, {"pgqrs_workflow_runs", "output"}, {"pgqrs_workflow_runs", "error"},
	}
	for _, c := range columns {
		_, err := r.owner.DB().ExecContext(t.Context(), "UPDATE "+c[0]+" SET "+c[1]+" = "+longNumbers)
		wantRefused(t, c[0]+"."+c[1], err)
	}
	const large = `to_jsonb(repeat('x', 68000000))`
	_, err = r.owner.DB().ExecContext(t.Context(), "UPDATE pgqrs_messages SET payload = "+large)
	wantRefused(t, "a payload of 68 MB", err)
	_, err = r.owner.DB().ExecContext(t.Context(), `INSERT INTO pgqrs_messages (queue_id, payload) SELECT id, `+longNumbers+` FROM pgqrs_queues LIMIT 1`)
	wantRefused(t, "an INSERT", err)
}

// The triggers accept everything that the library accepts.
func TestJSONOfTheLibraryIsNotRefused(t *testing.T) {
	r := newRights(t)
	s := pgqrs.Config{Limits: pgqrs.Limits{MaxPayload: 4 << 20}}.New(r.owner.DB(), pgqrs.Postgres)
	q := pgqrs.NewQueue[json.RawMessage](s, "extremes")
	for name, text := range map[string]string{
		"numbers of many digits": `[1e131071` + strings.Repeat(`,1e131071`, 6) + `]`,
		"small numbers":          `[1e-300` + strings.Repeat(`,1e-300`, 3400) + `]`,
		"decimal places":         `[1.` + strings.Repeat("0", 16383) + strings.Repeat(`,1e-16383`, 60) + `]`,
		"a digit each":           `[1` + strings.Repeat(`,1`, 500_000) + `]`,
		"lists":                  strings.Repeat("[", 900) + strings.Repeat("]", 900),
		"empty lists":            `[[]` + strings.Repeat(`,[]`, 340_000) + `]`,
		"escapes":                `"` + strings.Repeat(`\u0001`, 170_000) + `"`,
		"what compresses well":   `"` + strings.Repeat(`x`, 3_000_000) + `"`,
	} {
		_, err := q.Enqueue(t.Context(), json.RawMessage(text))
		check(t, err)
		ms, err := q.Dequeue(t.Context(), 1, time.Minute)
		check(t, err)
		if len(ms) != 1 {
			t.Fatalf("%s: %d messages", name, len(ms))
		}
		check(t, q.Ack(t.Context(), ms[0]))
	}
	// A compressed column that an UPDATE does not change is not taken for a short one.
	r.exec(t, "UPDATE pgqrs_messages SET last_error = 'again'")
	r.exec(t, "UPDATE pgqrs_messages SET payload = payload")
}

// A claim is limited by the size of the text that it returns, not by the stored size.
func TestAClaimCountsTheDigitsOfItsMessages(t *testing.T) {
	r := newRights(t)
	q := pgqrs.NewQueue[json.RawMessage](r.owner, "digits")
	payloads := slices.Repeat([]json.RawMessage{json.RawMessage(`[1e131071` + strings.Repeat(`,1e131071`, 6) + `]`)}, 50)
	_, err := q.EnqueueBatch(t.Context(), payloads)
	check(t, err)
	ms, err := q.Dequeue(t.Context(), len(payloads), time.Minute)
	check(t, err)
	size := 0
	for _, m := range ms {
		size += len(m.Raw)
	}
	if len(ms) == 0 || size > 10<<20 {
		t.Errorf("a claim returned %d messages, %d bytes", len(ms), size)
	}
}
