// Package encodings_test runs the library on PostgreSQL databases whose encoding is not UTF-8. Such
// a database refuses a text with a character that its encoding lacks.
package encodings_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

func TestMain(m *testing.M) { postgres.Main(m) }

const (
	latin1   = "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
	sqlASCII = "ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
	patience = time.Minute
)

// A place is a database with the schema installed.
type place struct {
	store *pgqrs.Store
	log   *journal
}

type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// each runs a test with both drivers. lib/pq sets client_encoding, and for pgx the test sets it.
// The library refuses other encodings of the client.
func each(t *testing.T, options string, run func(t *testing.T, p place)) {
	for _, c := range []struct {
		name, driver string
		params       []string
	}{
		{"pq", "postgres", nil}, {"pgx", "pgx", []string{"client_encoding=UTF8"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, err := sql.Open(c.driver, postgres.Database(t, c.driver, options, c.params...))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			p := place{log: &journal{}}
			p.store = pgqrs.Config{Logger: slog.New(slog.NewTextHandler(p.log, nil))}.New(db, pgqrs.Postgres)
			t.Cleanup(func() {
				if err := p.store.Close(); err != nil {
					t.Error(err)
				}
				if t.Failed() {
					t.Log(p.log)
				}
			})
			if err := p.store.Install(t.Context()); err != nil {
				t.Fatal(err)
			}
			run(t, p)
		})
	}
}

// work runs a worker until the test ends.
func (p place) work(t *testing.T, handlers ...pgqrs.Handler) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- (&pgqrs.Worker{Handlers: handlers, PollInterval: 10 * time.Millisecond}).Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// await waits until a message is in a state.
func (p place) await(t *testing.T, id int64, state pgqrs.MessageState) pgqrs.MessageInfo {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		ms, err := p.store.Messages(t.Context(), pgqrs.MessageFilter{IDs: []int64{id}})
		if err != nil {
			t.Fatal(err)
		}
		if len(ms) == 1 && ms[0].State == state {
			return ms[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("message %d is not %s: %+v", id, state, ms)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (p place) awaitRun(t *testing.T, id int64, state pgqrs.RunState) pgqrs.RunInfo {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		info, err := p.store.RunHandle(id).Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.Status == state {
			return info
		}
		if time.Now().After(deadline) {
			t.Fatalf("run %d is not %s: %+v", id, state, info)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A failure is the error of a handler, and the text that the database stores for it.
type failure struct{ text, latin1 string }

var errs = map[string]failure{
	"ascii":   {"no coffee", "no coffee"},
	"latin":   {"no café", "no café"},
	"euro":    {"10 € short", `10 \u20ac short`},
	"beyond":  {"no 𝄞", `no \U0001d11e`},
	"invalid": {"broken \xff", `broken \ufffd`},
	"zero":    {"zero \x00", `zero \ufffd`},
	"line":    {"two\u2028lines", `two\u2028lines`},
}

// These texts do not keep the outcomes of other messages from being recorded.
func TestErrorsThatTheEncodingLacks(t *testing.T) {
	each(t, latin1, func(t *testing.T, p place) {
		fails := func(_ context.Context, m *pgqrs.Message[string]) error {
			if e, ok := errs[m.Payload]; ok {
				return errors.New(e.text)
			}
			return nil
		}
		later := func(int) time.Duration { return time.Hour }
		retried := pgqrs.NewQueue[string](p.store, "retried").With(pgqrs.Policy{Backoff: later})
		dead := pgqrs.NewQueue[string](p.store, "dead").With(pgqrs.Policy{MaxAttempts: 1})
		copied := pgqrs.NewQueue[string](p.store, "copied").With(pgqrs.Policy{MaxAttempts: 1, DeadLetter: "letters"})
		names := []string{"fine"}
		for name := range errs {
			names = append(names, name)
		}
		queues := []*pgqrs.Queue[string]{retried, dead, copied}
		ids := map[*pgqrs.Queue[string]][]int64{}
		var handlers []pgqrs.Handler
		for _, q := range queues {
			ids[q] = must(q.EnqueueBatch(t.Context(), names))(t)
			handlers = append(handlers, q.Handle(fails))
		}
		p.work(t, handlers...)
		for _, q := range queues {
			state := pgqrs.Dead
			if q == retried {
				state = pgqrs.Scheduled
			}
			for i, name := range names {
				if name == "fine" {
					p.await(t, ids[q][i], pgqrs.Archived)
					continue
				}
				if m := p.await(t, ids[q][i], state); m.LastError != errs[name].latin1 || m.Attempt != 1 {
					t.Errorf("%s: %q after %d attempts, want %q after one", name, m.LastError, m.Attempt, errs[name].latin1)
				}
			}
		}
		if !strings.Contains(p.log.String(), "an error's text was written in ASCII") {
			t.Error("the log does not say so")
		}
	})
}

func TestFailuresByHandThatTheEncodingLacks(t *testing.T) {
	each(t, latin1, func(t *testing.T, p place) {
		q := pgqrs.NewQueue[string](p.store, "jobs").With(pgqrs.Policy{MaxAttempts: 1})
		for _, e := range errs {
			id := must(q.Enqueue(t.Context(), "x"))(t)
			ms := must(q.Dequeue(t.Context(), 1, time.Minute))(t)
			if err := q.Fail(t.Context(), errors.New(e.text), ms...); err != nil {
				t.Fatal(err)
			}
			if m := p.await(t, id, pgqrs.Dead); m.LastError != e.latin1 {
				t.Errorf("%q, want %q", m.LastError, e.latin1)
			}
		}
		// In the caller's transaction, which has failed by then, it is the caller's error.
		must(q.Enqueue(t.Context(), "x"))(t)
		ms := must(q.Dequeue(t.Context(), 1, time.Minute))(t)
		tx := must(p.store.DB().BeginTx(t.Context(), nil))(t)
		defer tx.Rollback()
		if err := q.WithTx(tx).Fail(t.Context(), errors.New("€"), ms...); !errors.Is(err, pgqrs.ErrInvalidPayload) {
			t.Errorf("in a transaction: %v", err)
		}
	})
}

func TestRunsThatTheEncodingLacks(t *testing.T) {
	each(t, latin1, func(t *testing.T, p place) {
		policy := pgqrs.Policy{MaxAttempts: 2, Backoff: func(int) time.Duration { return 0 }}
		w := pgqrs.NewWorkflow[string, string](p.store, "runs")
		p.work(t, w.Handle(func(ctx context.Context, run *pgqrs.Run, what string) (string, error) {
			steps := run.With(policy)
			switch what {
			case "step fails":
				return "", steps.Do(ctx, "step", func(context.Context) error { return errors.New("€") })
			case "step in a transaction fails":
				return "", steps.DoTx(ctx, "step", func(context.Context, *sql.Tx) error { return errors.New("€") })
			case "step returns":
				return pgqrs.Step(ctx, steps, "step", func(context.Context) (string, error) { return "€", nil })
			case "step in a transaction returns":
				return pgqrs.StepTx(ctx, steps, "step", func(context.Context, *sql.Tx) (string, error) { return "€", nil })
			case "child":
				return w.Child(ctx, run, "child", "€")
			case "returns":
				return "€", nil
			case "fails":
				return "", errors.New("€")
			case "recovers": // from a step whose result cannot be stored
				_, err := pgqrs.Step(ctx, steps, "step", func(context.Context) (string, error) { return "€", nil })
				if errors.Is(err, pgqrs.ErrSuspended) {
					return "", err
				}
				return fmt.Sprint(errors.Is(err, pgqrs.ErrPermanent)), nil
			}
			return what, nil
		}))
		for what, want := range map[string]string{
			"step fails": `\u20ac`, "step in a transaction fails": `\u20ac`, "fails": `\u20ac`,
			"step returns": "invalid payload", "step in a transaction returns": "invalid payload", "child": "invalid payload", "returns": "invalid payload",
		} {
			h := must(w.Start(t.Context(), what))(t)
			if info := p.awaitRun(t, h.ID(), pgqrs.Failed); !strings.Contains(info.Error, want) {
				t.Errorf("%s: the error is %q, want one with %q", what, info.Error, want)
			}
		}
		h := must(w.Start(t.Context(), "recovers"))(t)
		if result := must(h.Result(t.Context()))(t); result != "true" {
			t.Errorf("whether the step's error is permanent: %s", result)
		}
	})
}

// A run ends with its message as after a killed worker.
func TestDeathsOfRunsThatTheEncodingLacks(t *testing.T) {
	each(t, latin1, func(t *testing.T, p place) {
		w := pgqrs.NewWorkflow[string, string](p.store, "runs").With(pgqrs.Policy{MaxAttempts: 1})
		h := must(w.Start(t.Context(), "x"))(t)
		broken := func(pgqrs.WorkFunc) pgqrs.WorkFunc {
			return func(context.Context, *pgqrs.MessageInfo) error { return errors.New("no 𝄞") }
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		handler := w.Handle(func(context.Context, *pgqrs.Run, string) (string, error) { return "", nil })
		go func() {
			done <- (&pgqrs.Worker{Handlers: []pgqrs.Handler{handler}, Middleware: []func(pgqrs.WorkFunc) pgqrs.WorkFunc{broken}, PollInterval: 10 * time.Millisecond}).Run(ctx)
		}()
		info := p.awaitRun(t, h.ID(), pgqrs.Failed)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if want := errs["beyond"].latin1; !strings.Contains(info.Error, want) || info.Attempts != 1 {
			t.Errorf("the error is %q after %d attempts", info.Error, info.Attempts)
		}
	})
}

// If a text cannot be stored, the call returns an error that names it.
func TestPayloadsThatTheEncodingLacks(t *testing.T) {
	each(t, latin1, func(t *testing.T, p place) {
		refusesPayloads(t, p, "€")
	})
}

// A database without an encoding accepts every byte, but no escape of a character outside ASCII.
func TestPayloadsWithoutAnEncoding(t *testing.T) {
	each(t, sqlASCII, func(t *testing.T, p place) {
		q := pgqrs.NewQueue[string](p.store, "jobs").With(pgqrs.Policy{MaxAttempts: 1})
		must(q.Enqueue(t.Context(), "€"))(t)
		ms := must(q.Dequeue(t.Context(), 1, time.Minute))(t)
		if len(ms) != 1 || ms[0].Payload != "€" {
			t.Fatalf("dequeued %v", ms)
		}
		if err := q.Fail(t.Context(), errors.New("two\u2028lines, 10 €"), ms...); err != nil {
			t.Fatal(err)
		}
		p.await(t, ms[0].ID, pgqrs.Dead)
		refusesPayloads(t, p, "\u2028") // JSON writes it as an escape
	})
}

func refusesPayloads(t *testing.T, p place, text string) {
	t.Helper()
	ctx := t.Context()
	texts, raws := pgqrs.NewQueue[string](p.store, "texts"), pgqrs.NewQueue[json.RawMessage](p.store, "raws")
	w := pgqrs.NewWorkflow[string, string](p.store, "runs")
	must(texts.Enqueue(ctx, "makes the queue"))(t)
	must(w.Start(ctx, "makes the workflow"))(t)
	escaped := fmt.Sprintf(`"\u%04x"`, []rune(text)[0])
	calls := map[string]func() error{
		"a payload": func() error { _, err := texts.Enqueue(ctx, text); return err },
		"an escape": func() error { _, err := raws.Enqueue(ctx, json.RawMessage(escaped)); return err },
		"a batch":   func() error { _, err := texts.EnqueueBatch(ctx, []string{"fine", text}); return err },
		"a header": func() error {
			_, err := texts.Enqueue(ctx, "x", pgqrs.Headers(map[string]string{"h": text}))
			return err
		},
		"a run":           func() error { _, err := w.Start(ctx, text); return err },
		"a run of a key":  func() error { _, err := w.Start(ctx, text, pgqrs.Key("k")); return err },
		"a delayed one":   func() error { _, err := texts.Enqueue(ctx, text, pgqrs.Delay(time.Hour)); return err },
		"one of a group":  func() error { _, err := texts.Enqueue(ctx, text, pgqrs.Group("g")); return err },
		"one of no group": func() error { _, err := texts.EnqueueBatch(ctx, []string{text, text}); return err },
	}
	for what, call := range calls {
		if err := call(); !errors.Is(err, pgqrs.ErrInvalidPayload) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The error of one call does not fail concurrent calls.
	done := make(chan error, 40)
	for n := range cap(done) {
		go func() {
			payload := "fine"
			if n%4 == 0 {
				payload = text
			}
			_, err := texts.Enqueue(ctx, payload)
			if n%4 == 0 && errors.Is(err, pgqrs.ErrInvalidPayload) {
				err = nil
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	infos := must(p.store.Queues(ctx, "texts"))(t)
	if infos[0].Ready != 31 {
		t.Errorf("%d messages are ready, want 31", infos[0].Ready)
	}
}
