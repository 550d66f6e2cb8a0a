package pq_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// These rows would be in no listing, or would fill the memory of a worker.
func TestNewMessagesThatNoMessageCanBeAreRefused(t *testing.T) {
	r := newRights(t)
	_, err := pgqrs.NewQueue[int](r.owner, "jobs").Enqueue(t.Context(), 1)
	check(t, err)
	for column, value := range map[string]string{
		"headers":    `jsonb_build_object('a', repeat('x', 300000))`,
		"vt":         `'9999-12-31 23:59:59.999+00'`,
		"due_at, vt": `NULL, NULL`,
		"dedup_key":  `repeat('x', 3000)`,
		"group_key":  `repeat('x', 3000)`,
		"last_error": `repeat('x', 1100000)`,
	} {
		_, err := r.owner.DB().ExecContext(t.Context(), `INSERT INTO pgqrs_messages (queue_id, payload, `+column+`) SELECT id, '1', `+value+` FROM pgqrs_queues`)
		var refused *pq.Error
		if !errors.As(err, &refused) || refused.Code != "54000" {
			t.Errorf("%s: %v", column, err)
		}
	}
	if depths, err := r.owner.Depths(t.Context(), "jobs"); err != nil || depths[0].Ready != 1 {
		t.Errorf("the queue has %+v (%v)", depths, err)
	}
}

// The text of such payloads takes seconds to make, so a listing shows none of them.
func TestLargePayloadsAreListedWithoutTheirText(t *testing.T) {
	r := newRights(t)
	s := pgqrs.Config{Limits: pgqrs.Limits{MaxPayload: 8 << 20, MaxString: 8 << 20}}.New(r.owner.DB(), pgqrs.Postgres)
	const size = 5 << 20
	_, err := pgqrs.NewQueue[string](s, "jobs").Enqueue(t.Context(), strings.Repeat("x", size), pgqrs.Delay(time.Hour))
	check(t, err)
	flow := pgqrs.NewWorkflow[string, int](s, "flow")
	run, err := flow.Start(t.Context(), strings.Repeat("x", size))
	check(t, err)

	ms, err := s.Messages(t.Context(), pgqrs.MessageFilter{Queue: "jobs", State: pgqrs.Scheduled})
	check(t, err)
	if len(ms) != 1 || len(ms[0].Raw) != 0 || !ms[0].Cut || ms[0].PayloadSize < size {
		t.Errorf("the listing has %d messages: %.100s", len(ms), fmt.Sprintf("%+v", ms))
	}
	runs, err := s.Runs(t.Context(), pgqrs.RunFilter{Workflow: "flow"})
	check(t, err)
	if len(runs) != 1 || len(runs[0].Input) != 0 || !runs[0].Cut || runs[0].InputSize < size {
		t.Errorf("the listing has %d runs: %.100s", len(runs), fmt.Sprintf("%+v", runs))
	}
	m, err := s.Message(t.Context(), ms[0].ID)
	check(t, err)
	info, err := run.Info(t.Context())
	check(t, err)
	if len(m.Raw) != size+2 || len(info.Input) < size {
		t.Errorf("the whole payload has %d bytes, the whole input %d", len(m.Raw), len(info.Input))
	}
	if n, err := s.Purge(t.Context(), "jobs", pgqrs.Scheduled); n != 1 || err != nil {
		t.Errorf("%d messages are purged (%v)", n, err)
	}
}

// A claim makes the text of a few large payloads at most.
func TestAClaimOfLargePayloadsReturnsFew(t *testing.T) {
	r := newRights(t)
	s := pgqrs.Config{Limits: pgqrs.Limits{MaxPayload: 8 << 20, MaxString: 8 << 20}}.New(r.owner.DB(), pgqrs.Postgres)
	q := pgqrs.NewQueue[string](s, "jobs")
	for range 8 {
		_, err := q.Enqueue(t.Context(), strings.Repeat("x", 2<<20))
		check(t, err)
	}
	for _, want := range []int{2, 2, 2, 2, 0} {
		ms, err := q.Dequeue(t.Context(), 8, time.Minute)
		check(t, err)
		if len(ms) != want {
			t.Errorf("a claim returned %d messages, want %d", len(ms), want)
		}
	}
}

// DropQueue does not keep enqueuers waiting behind an open transaction.
func TestDropQueueLetsOthersEnqueue(t *testing.T) {
	r := newRights(t)
	s := r.owner
	jobs, other := pgqrs.NewQueue[int](s, "jobs"), pgqrs.NewQueue[int](s, "other")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := jobs.Enqueue(ctx, 1)
	check(t, err)
	_, err = s.Purge(ctx, "jobs", pgqrs.Ready)
	check(t, err)
	_, err = other.Enqueue(ctx, 0)
	check(t, err)
	tx, err := s.DB().BeginTx(ctx, nil)
	check(t, err)
	_, err = other.WithTx(tx).Enqueue(ctx, 1)
	check(t, err)

	dropped := make(chan error, 1)
	go func() { dropped <- s.DropQueue(ctx, "jobs") }()
	waits := `SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname = 'pgqrs_messages' AND NOT l.granted AND c.relnamespace = $1::regnamespace`
	for waiting := 0; waiting == 0; {
		check(t, s.DB().QueryRowContext(ctx, waits, r.schema).Scan(&waiting))
	}
	_, err = other.Enqueue(ctx, 2)
	check(t, err)
	check(t, tx.Commit())
	check(t, <-dropped)
	if _, err := s.Queues(ctx, "jobs"); err != nil {
		t.Error(err)
	}

	tx, err = s.DB().BeginTx(ctx, nil)
	check(t, err)
	defer tx.Rollback()
	_, err = other.WithTx(tx).Enqueue(ctx, 3)
	check(t, err)
	own, err := s.DB().BeginTx(ctx, nil)
	check(t, err)
	defer own.Rollback()
	if err := s.WithTx(own).DropQueue(ctx, "other"); !errors.Is(err, pgqrs.ErrState) || !strings.Contains(err.Error(), "still open") {
		t.Errorf("in a caller's transaction: %v", err)
	}
}

// A dead-letter copy, and a message that waits for a batch, get headers of the library too. Large
// headers are left out, or the trigger would refuse the row, and the message would never die.
func TestLargeHeadersDoNotKeepAMessageAlive(t *testing.T) {
	r := newRights(t)
	q := pgqrs.NewQueue[int](r.owner, "jobs").With(pgqrs.Policy{MaxAttempts: 1, DeadLetter: "graveyard"})
	ids, err := q.EnqueueBatch(t.Context(), []int{1, 2}, pgqrs.Then(pgqrs.NewQueue[int](r.owner, "then"), 3))
	check(t, err)
	r.exec(t, `UPDATE pgqrs_messages SET headers = COALESCE(headers, '{}') || jsonb_build_object('a', 1, 'b', repeat('x', 262090))`)
	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{q.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil })}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	for _, id := range ids {
		awaitState(t, r.owner, id, pgqrs.Dead)
	}
	stop()
	check(t, <-ended)
	copies, err := r.owner.Messages(t.Context(), pgqrs.MessageFilter{Queue: "graveyard", State: pgqrs.Ready})
	check(t, err)
	if len(copies) != 2 || len(copies[0].Headers) != 4 || copies[0].Headers["dead-letter-queue"] != "jobs" {
		t.Errorf("there are %d copies: %.300s", len(copies), fmt.Sprintf("%+v", copies))
	}
	then, err := r.owner.Messages(t.Context(), pgqrs.MessageFilter{Queue: "then", State: pgqrs.Ready})
	check(t, err)
	if len(then) != 1 || then[0].Batch.Dead != 2 {
		t.Errorf("there are %d messages: %.300s", len(then), fmt.Sprintf("%+v", then))
	}
}

func awaitState(t *testing.T, s *pgqrs.Store, id int64, want pgqrs.MessageState) {
	t.Helper()
	var m pgqrs.MessageInfo
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var err error
		m, err = s.Message(t.Context(), id)
		check(t, err)
		if m.State == want {
			return
		}
	}
	t.Fatalf("message %d is %s, want %s", id, m.State, want)
}
