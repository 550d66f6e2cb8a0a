package faults_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A workload is an application at work on a database that fails. It enqueues
// orders, which a Worker books in a transaction with their ack; mails, which it
// handles without one; and starts runs, which book twice. Every tenth order and
// mail is bad: it has to end in the dead letters, and leave no booking.
//
// A booking is a row in a table that forbids nothing, so that a second one shows.
type workload struct {
	t     *testing.T
	store *pgqrs.Store
	log   *journal

	orders, mails *pgqrs.Queue[item]
	runs          *pgqrs.Workflow[item, int]

	stopProducing, stopWorking func()
	working                    chan error // what Worker.Run returned

	handled atomic.Int64 // messages, to see progress by
	sent    atomic.Int64 // items

	mu       sync.Mutex
	bad      map[int64]bool // messages whose ids were returned, and whether they are bad
	started  []int64        // runs whose ids were returned
	failures []error        // of the producers
}

// An item is what messages and runs carry.
type item struct {
	N   int64
	Bad bool
}

const (
	callTimeout   = 2 * time.Second      // of a producer's call
	producePeriod = 5 * time.Millisecond // between two of a producer's
	producers     = 3
)

// work installs the tables and starts an application on the pool.
func work(t *testing.T, db *sql.DB, d pgqrs.Dialect, c pgqrs.Config) *workload {
	t.Helper()
	w := &workload{t: t, log: &journal{}, bad: map[int64]bool{}, working: make(chan error, 1)}
	c.Logger = slog.New(slog.NewTextHandler(w.log, nil))
	w.store = c.New(db, d)
	if err := w.store.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE IF NOT EXISTS bookings (kind TEXT NOT NULL, id BIGINT NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	w.orders = pgqrs.NewQueue[item](w.store, "orders")
	w.mails = pgqrs.NewQueue[item](w.store, "mails")
	w.runs = pgqrs.NewWorkflow[item, int](w.store, "runs")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last of the log:\n%s", w.log)
		}
	})

	ctx, stop := context.WithCancel(context.Background())
	w.stopWorking = stop
	t.Cleanup(stop)
	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{w.orders.HandleTx(w.bookOrder), w.mails.Handle(w.sendMail), w.runs.Handle(w.run)}}
	go func() { w.working <- worker.Run(ctx) }()
	w.produce()
	return w
}

func (w *workload) produce() {
	ctx, stop := context.WithCancel(context.Background())
	var producing sync.WaitGroup
	w.stopProducing = func() { stop(); producing.Wait() }
	w.t.Cleanup(w.stopProducing)
	for range producers {
		producing.Go(func() {
			tick := time.NewTicker(producePeriod)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					w.send(w.sent.Add(1))
				}
			}
		})
	}
}

// send is one call of a producer. It is not ended by the end of the producer: a
// call that was cut short would not show whether it hangs.
func (w *workload) send(n int64) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	var ids []int64
	var run int64
	var err error
	it := item{n, n%10 == 0}
	switch n % 8 {
	case 0:
		var h *pgqrs.RunHandle[int]
		if h, err = w.runs.Start(ctx, item{N: n}, pgqrs.Key(fmt.Sprint(n))); err == nil {
			run = h.ID()
		}
	case 1, 2, 3:
		ids, err = one(w.mails.Enqueue(ctx, it))
	case 4:
		ids, err = w.orders.EnqueueBatch(ctx, []item{it, it, it})
	default:
		ids, err = one(w.orders.Enqueue(ctx, it))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failures = append(w.failures, err)
		return
	}
	for _, id := range ids {
		w.bad[id] = it.Bad
	}
	if run != 0 {
		w.started = append(w.started, run)
	}
}

func one(id int64, err error) ([]int64, error) { return []int64{id}, err }

var errBad = pgqrs.Permanent(errors.New("a bad item"))

func (w *workload) bookOrder(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[item]) error {
	defer w.handled.Add(1)
	if err := book(ctx, tx, "order", m.ID); err != nil {
		return err
	}
	if m.Payload.Bad {
		return errBad
	}
	return nil
}

func (w *workload) sendMail(ctx context.Context, m *pgqrs.Message[item]) error {
	defer w.handled.Add(1)
	if m.Payload.Bad {
		return errBad
	}
	return nil
}

func (w *workload) run(ctx context.Context, run *pgqrs.Run, it item) (int, error) {
	defer w.handled.Add(1)
	err := run.DoTx(ctx, "reserve", func(ctx context.Context, tx *sql.Tx) error { return book(ctx, tx, "reserve", run.ID()) })
	if err != nil {
		return 0, err
	}
	price, err := pgqrs.Step(ctx, run, "price", func(context.Context) (int, error) { return int(it.N), nil })
	if err != nil {
		return 0, err
	}
	if err := run.Sleep(ctx, "a moment", 20*time.Millisecond); err != nil {
		return 0, err
	}
	return pgqrs.StepTx(ctx, run, "charge", func(ctx context.Context, tx *sql.Tx) (int, error) {
		return price, book(ctx, tx, "charge", run.ID())
	})
}

func book(ctx context.Context, tx *sql.Tx, kind string, id int64) error {
	_, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO bookings (kind, id) VALUES ('%s', %d)", kind, id))
	return err
}

// progress returns once n more messages have been handled: the fault is over, or does not stop the work.
func (w *workload) progress(n int64) {
	w.t.Helper()
	until := w.handled.Load() + n
	eventually(w.t, fmt.Sprintf("%d more messages handled", n), func() (bool, error) {
		return w.handled.Load() >= until, w.stillRuns()
	})
}

// stillRuns returns an error if the Worker has ended, and ends the test.
func (w *workload) stillRuns() error {
	select {
	case err := <-w.working:
		w.t.Fatalf("the Worker ended: %v", err)
	default:
	}
	return nil
}

// refusals returns once n more calls of the producers have failed.
func (w *workload) refusals(n int) {
	w.t.Helper()
	w.mu.Lock()
	until := len(w.failures) + n
	w.mu.Unlock()
	eventually(w.t, fmt.Sprintf("%d more calls refused", n), func() (bool, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.failures) >= until, nil
	})
}

// finish stops the producers, waits until all is done on a database that is
// well again, ends the Worker, and counts. What failed must have said what was
// being done and, if words are given, one of them.
func (w *workload) finish(db *sql.DB, fault string, injected string, runs int, words ...string) {
	w.t.Helper()
	w.stopProducing()
	eventually(w.t, "all messages in the archive", func() (bool, error) {
		left := -1
		err := db.QueryRow("SELECT count(*) FROM pgqrs_messages WHERE archived_at IS NULL").Scan(&left)
		return left == 0, errors.Join(err, fmt.Errorf("%d left", left), w.stillRuns())
	})
	w.stopWorking()
	select {
	case err := <-w.working:
		if err != nil {
			w.t.Errorf("Worker.Run: %v", err)
		}
	case <-time.After(patience):
		w.t.Fatalf("the Worker does not end")
	}
	if err := w.store.Close(); err != nil {
		w.t.Errorf("close the Store: %v", err)
	}
	w.checkErrors(words)
	w.audit(db, fault, injected, runs)
}

func (w *workload) checkErrors(words []string) {
	w.t.Helper()
	for _, err := range w.failures {
		text := err.Error()
		rest, named := text, false
		for _, op := range []string{`pgqrs: enqueue on queue "orders": `, `pgqrs: enqueue on queue "mails": `, `pgqrs: enqueue a batch of 3 on queue "orders": `, `pgqrs: start workflow "runs": `} {
			if after, ok := strings.CutPrefix(text, op); ok {
				rest, named = after, true
			}
		}
		if !named || rest == "" || strings.Contains(rest, "pgqrs: ") {
			w.t.Errorf("an error does not say, once, what was being done, and what came of it: %q", text)
		}
		if len(words) > 0 && !containsAny(rest, words) {
			w.t.Errorf("an error says none of %q: %q", words, text)
		}
	}
}

func containsAny(text string, words []string) bool {
	for _, word := range words {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

// A journal keeps the last of a log.
type journal struct {
	mu   sync.Mutex
	text []byte
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text = append(j.text, p...)
	if n := len(j.text) - 32<<10; n > 0 {
		j.text = j.text[n:]
	}
	return len(p), nil
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(bytes.ToValidUTF8(j.text, nil))
}
