package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var inputCases = []testcase{
	{"a name with a space at an end is refused, and what has one already can be looked after", "two queues would look alike, and one of them fill up unseen", inputSpaces},
	{"a nil database is an error of every call", "an application that wires its parts in the wrong order would crash with a nil pointer far away", inputNilDB},
	{"an unknown dialect is an error of every call that lists the known ones", "a typing mistake in a flag would show as a syntax error in SQL", inputUnknownDialect},
	{"a queue name that is empty, too long, no text or has control characters is refused", "such a queue could not be found, logged or typed again", inputBadNames},
	{"a queue name may have 255 characters, whatever their bytes", "names in other scripts would be cut to a fraction of the promised length", inputLongName},
	{"a policy that makes no sense is refused by every call", "a negative number from a configuration file would retry for ever or never", inputBadPolicy},
	{"text that looks like SQL, JSON, dates or wildcards goes through unharmed", "a customer's name could delete the queue, or come back changed", inputHostile},
	{"text like that names workflows, run keys, steps and signals unharmed", "a run could not be found by what it was started for, or take another's steps", inputHostileRuns},
	{"a name that nothing can have is not found, on every database alike", "an operator's typing mistake would end the transaction, on PostgreSQL alone, with an error about encodings", inputNowhere},
	{"a name of 10,000 characters is refused, a header and a payload are not", "it would be cut to another's name, or fail deep in the database", inputLongNames},
	{"a cancelled ctx ends each call with an error that matches context.Canceled", "a request that was given up would go on, or be reported as a database failure", inputCancelled},
	{"a call whose ctx is cancelled stores nothing", "a caller that was told of a failure would find the work done", inputCancelledNothing},
}

func inputNilDB(t *testing.T, e *env) {
	s := pgqrs.New(nil, e.dialect)
	calls := append(everyCall(s, "q"), installCalls(s)...)
	wantEach(t, t.Context(), append(calls, runWorker(s, "q")), pgqrs.ErrUnsupported, "nil *sql.DB")
	if s.DB() != (*sql.DB)(nil) || s.Dialect() != e.dialect {
		t.Errorf("DB is %v and Dialect %v; want what New was given", s.DB(), s.Dialect())
	}
	must(t, s.Close())
}

func inputUnknownDialect(t *testing.T, e *env) {
	for _, dialect := range []pgqrs.Dialect{"", "mysql", "Postgres"} {
		s := pgqrs.New(e.db, dialect)
		calls := append(everyCall(s, "q"), installCalls(s)...)
		wantEach(t, t.Context(), append(calls, runWorker(s, "q")), pgqrs.ErrUnsupported,
			fmt.Sprintf("unknown dialect %q; use pgqrs.Postgres, pgqrs.SQLite or pgqrs.Turso", string(dialect)))
		must(t, s.Close())
	}
	defer func() {
		if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), `"mysql"`) {
			t.Errorf("Migrations of an unknown dialect panicked with %v; want a text that names it", v)
		}
	}()
	pgqrs.Dialect("mysql").Migrations()
}

func inputBadNames(t *testing.T, e *env) {
	for name, want := range map[string]string{
		"":                       "empty queue name",
		strings.Repeat("n", 256): "more than 255 characters",
		strings.Repeat("é", 256): "more than 255 characters",
		"two\nlines":             `"two\nlines" has a control character`,
		"nul\x00":                "control character",
		"\x7f":                   "control character",
		"broken \xff":            "not valid UTF-8",
	} {
		calls := queueCalls(pgqrs.NewQueue[string](e.store, name))
		wantEach(t, t.Context(), append(calls, runWorker(e.store, name)), nil, want)
	}
	equal(t, "queues made", len(value(e.store.Queues(t.Context()))(t)), 0)
	equal(t, "workers made", len(value(e.store.Workers(t.Context()))(t)), 0)
}

func inputLongName(t *testing.T, e *env) {
	for _, letter := range []string{"n", "é", "𝄞"} {
		q := pgqrs.NewQueue[string](e.store, strings.Repeat(letter, 255))
		enqueue(t, q, "x")
		m := dequeueOne(t, q)
		equal(t, "queue", e.info(t, m.ID).Queue, strings.Repeat(letter, 255))
		must(t, q.Ack(t.Context(), m))
	}
}

func inputBadPolicy(t *testing.T, e *env) {
	for want, p := range map[string]pgqrs.Policy{
		"Policy.MaxAttempts is -2": {MaxAttempts: -2},
		"Policy.Timeout is -1s":    {Timeout: -time.Second},
		"Policy.Concurrency is -1": {Concurrency: -1},
	} {
		q := pgqrs.NewQueue[string](e.store, "parcels").With(p)
		h := q.Handle(func(context.Context, *pgqrs.Message[string]) error { return nil })
		wantEach(t, t.Context(), append(queueCalls(q), runHandler(h)), nil, want)
	}
	equal(t, "queues made", len(value(e.store.Queues(t.Context()))(t)), 0)
}

// hostileTexts are texts that somebody may type into a form.
var hostileTexts = []string{
	`'; DROP TABLE pgqrs_messages; --`,
	`"double" and 'single' quotes`,
	`back\slash \' \" \\ \n \u0000`,
	`100 % _ of [it]*`,
	`$1 $2 ? ?1 :name @name #{x} ${x} {{x}}`,
	`/* pgqrs:message.claim */ -- comment`,
	`{"json": [1, null]}`,
	`2026-11-22`,
	`2026-11-22 10:00:00`,
	`2026-11-22T10:00:00Z`,
	`null`, `true`, `0`, `007`, `1e3`, `-0.0`, `0x1F`, `\x41`, `NaN`,
	`spaces  in   the middle`,
	"Ünïcödé ☃ \U0001F389 \u202eright to left\u202c \u2028 \ufeff",
	`<script>alert("&amp;")</script>`,
}

func inputHostile(t *testing.T, e *env) {
	for i, text := range hostileTexts {
		hostileMessage(t, e, text)
		hostileAdmin(t, e, text)
		equal(t, "queues", len(value(e.store.Queues(t.Context()))(t)), i+1)
	}
	hostileWorkers(t, e)
}

// hostileMessage sends a text through everything that a message carries.
func hostileMessage(t *testing.T, e *env, text string) {
	t.Helper()
	ctx := t.Context()
	q := pgqrs.NewQueue[string](e.store, text)
	options := []pgqrs.Option{pgqrs.Key(text), pgqrs.Headers(map[string]string{text: text})}
	id := enqueue(t, q, text, options...)
	equal(t, "id of the second with the key "+text, enqueue(t, q, text, options...), id)
	_, err := q.Enqueue(ctx, text, pgqrs.Unique(text))
	wantError(t, err, pgqrs.ErrDuplicate)
	equalSlices(t, "ids of a batch with the key "+text, value(q.EnqueueBatch(ctx, []string{text}, options...))(t), []int64{id})

	m := dequeueOne(t, q)
	equal(t, "payload", m.Payload, text)
	wantHostile(t, m.MessageInfo, text)
	must(t, q.Fail(ctx, pgqrs.RetryAfter(0, errors.New(text)), m))
	m = dequeueOne(t, q)
	equal(t, "last error as delivered", m.LastError, text)
	must(t, q.Fail(ctx, pgqrs.Permanent(errors.New(text)), m))
	dead := value(e.store.Messages(ctx, pgqrs.MessageFilter{Queue: text, State: pgqrs.Dead}))(t)
	equalSlices(t, "dead letters", infoIDs(dead), []int64{id})
	wantHostile(t, dead[0], text)
	equal(t, "last error", dead[0].LastError, text)
}

func wantHostile(t *testing.T, m pgqrs.MessageInfo, text string) {
	t.Helper()
	equal(t, "queue", m.Queue, text)
	equal(t, "key", m.Key, text)
	equal(t, "header", m.Headers[text], text)
	equal(t, "number of headers", len(m.Headers), 1)
}

// hostileAdmin names a queue by the text in each administrative call.
func hostileAdmin(t *testing.T, e *env, text string) {
	t.Helper()
	ctx := t.Context()
	equal(t, "name", e.stats(t, text).Name, text)
	must(t, e.store.PauseQueue(ctx, text))
	must(t, e.store.ResumeQueue(ctx, text))
	equal(t, "messages redriven", value(e.store.RedriveAll(ctx, text))(t), 1)
	equal(t, "messages purged", value(e.store.Purge(ctx, text, pgqrs.Ready))(t), 1)
	must(t, e.stopAll(t, text))
	must(t, e.store.DropQueue(ctx, text))
	enqueue(t, pgqrs.NewQueue[string](e.store, text), text)
}

// hostileWorkers runs workers that are named by the texts.
func hostileWorkers(t *testing.T, e *env) {
	t.Helper()
	for _, text := range hostileTexts {
		handled := make(chan string, 1)
		stop := start(t, &pgqrs.Worker{Name: text, Handlers: []pgqrs.Handler{
			pgqrs.NewQueue[string](e.store, text).Handle(func(_ context.Context, m *pgqrs.Message[string]) error {
				handled <- m.Payload
				return nil
			}),
		}})
		equal(t, "handled", <-handled, text)
		must(t, stop())
		list := value(e.store.Workers(t.Context()))(t)
		if !slices.ContainsFunc(list, func(w pgqrs.WorkerInfo) bool { return w.Name == text+"/"+text && w.Queue == text }) {
			t.Errorf("workers are %+v; want one named %q", list, text+"/"+text)
		}
	}
}

func inputCancelled(t *testing.T, e *env) {
	e.oneOfEach(t, "parcels")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantEach(t, ctx, append(everyCall(e.store, "parcels"), installCalls(e.store)...), context.Canceled, "context canceled")
	tx := value(e.db.BeginTx(t.Context(), nil))(t)
	defer tx.Rollback()
	var bound []call
	for _, c := range everyCall(e.store.WithTx(tx), "parcels") {
		if c.name != "Dequeue" { // Dequeue is refused there in any case
			bound = append(bound, c)
		}
	}
	wantEach(t, ctx, bound, context.Canceled, "context canceled")
}

func inputCancelledNothing(t *testing.T, e *env) {
	_, ids, held := e.oneOfEach(t, "parcels")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q := pgqrs.NewQueue[string](e.store, "parcels")
	for _, c := range append(everyCall(e.store, "parcels"),
		call{"Ack", true, func(ctx context.Context) error { return q.Ack(ctx, held) }},
		call{"Store.Delete", true, func(ctx context.Context) error { _, err := e.store.Delete(ctx, ids[pgqrs.Ready]); return err }},
		call{"Redrive", true, func(ctx context.Context) error { _, err := e.store.Redrive(ctx, ids[pgqrs.Dead]); return err }},
		call{"Uninstall", true, e.store.Uninstall},
	) {
		if err := c.run(ctx); err == nil {
			t.Errorf("%s: no error", c.name)
		}
	}
	e.wantCounts(t, "parcels", 1, 1, 1, 1, 1)
	equal(t, "time of a pause", e.stats(t, "parcels").PausedAt, time.Time{})
}
