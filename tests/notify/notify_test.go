// Package notify_test tests processes that notify each other of new messages through PostgreSQL.
package notify_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/lib/pq"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/notifypgqrs"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

// childVariable is the environment variable with the order of a child process.
const childVariable = "PGQRS_NOTIFY_CHILD"

// An order tells a child what to enqueue, and where.
type order struct {
	DSN, Channel string
	Payloads     []int
	InTx         bool
	// Times is how many messages with the current time to enqueue, one after the other, instead of
	// Payloads.
	Times int
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		if err := beChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	postgres.Main(m)
}

// beChild enqueues, in a transaction or not.
func beChild(text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	db, err := sql.Open("postgres", o.DSN)
	if err != nil {
		return err
	}
	defer db.Close()
	store := pgqrs.Config{Notifier: &notifypgqrs.Notifier{Channel: o.Channel}}.New(db, pgqrs.Postgres)
	defer store.Close()
	q := pgqrs.NewQueue[int](store, "jobs")
	for n := range o.Times {
		time.Sleep(time.Duration(300+n*37%200) * time.Millisecond) // until all is quiet, and not in step with polls
		if _, err := q.Enqueue(ctx, int(time.Now().UnixMicro())); err != nil {
			return err
		}
	}
	if o.Times > 0 {
		return nil
	}
	if !o.InTx {
		_, err := q.EnqueueBatch(ctx, o.Payloads)
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, payload := range o.Payloads {
		if _, err := q.WithTx(tx).Enqueue(ctx, payload); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// An ear is a Notifier that reports what it receives.
type ear struct {
	*notifypgqrs.Notifier
	heard chan<- string
}

func (e ear) Listen(ctx context.Context, wake func(queue string)) error {
	return e.Notifier.Listen(ctx, func(queue string) {
		wake(queue)
		e.heard <- queue
	})
}

// A listener is a worker of this process that is notified of messages.
type listener struct {
	t       testing.TB
	dsn     string
	name    string // of the listening connection, and of the channel
	store   *pgqrs.Store
	db      *sql.DB
	heard   chan string
	handled chan int
	log     *logs
	stop    func()
}

func listen(t testing.TB) *listener {
	t.Helper()
	l := &listener{t: t, dsn: postgres.Schema(t, "postgres"), name: "pgqrs-notify-" + rand.Text(), heard: make(chan string, 1000), handled: make(chan int, 1000), log: &logs{}}
	var err error
	if l.db, err = sql.Open("postgres", l.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.db.Close() })
	config := pgqrs.Config{
		Notifier: ear{&notifypgqrs.Notifier{DSN: l.dsn + " application_name=" + l.name, Channel: l.name}, l.heard},
		Logger:   slog.New(slog.NewTextHandler(l.log, nil)),
	}
	l.store = config.New(l.db, pgqrs.Postgres)
	if err := l.store.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{
		pgqrs.NewQueue[int](l.store, "jobs").Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
			l.handled <- m.Payload
			return nil
		}),
	}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(l.stop)
	l.wantHeard("")
	return l
}

// logs collects what is logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logs) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// eventually waits for a condition.
func (l *listener) eventually(what string, condition func() bool) {
	l.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			l.t.Fatalf("not within a minute: %s", what)
		case <-tick.C:
		}
	}
}

// wantHeard waits until the worker is notified of a queue.
func (l *listener) wantHeard(queue string) {
	l.t.Helper()
	select {
	case got := <-l.heard:
		if got != queue {
			l.t.Fatalf("it heard of the queue %q; want %q", got, queue)
		}
	case <-time.After(time.Minute):
		l.t.Fatalf("it did not hear of the queue %q within a minute", queue)
	}
}

// onBackends counts the listening connections that match a query.
func (l *listener) onBackends(query string) (n int) {
	l.t.Helper()
	if err := l.db.QueryRow(query+` FROM pg_stat_activity WHERE application_name = $1`, l.name).Scan(&n); err != nil {
		l.t.Fatal(err)
	}
	return n
}

// wantHandled waits until payloads are handled.
func (l *listener) wantHandled(payloads ...int) {
	l.t.Helper()
	left := map[int]bool{}
	for _, p := range payloads {
		left[p] = true
	}
	for len(left) > 0 {
		select {
		case p := <-l.handled:
			delete(left, p)
		case <-time.After(time.Minute):
			l.t.Fatalf("not handled within a minute: %v", left)
		}
	}
}

// child makes another process enqueue.
func (l *listener) child(inTx bool, payloads ...int) {
	l.t.Helper()
	l.run(order{Payloads: payloads, InTx: inTx})
}

// run makes another process execute an order.
func (l *listener) run(o order) {
	l.t.Helper()
	o.DSN, o.Channel = l.dsn, l.name
	text, err := json.Marshal(o)
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.CommandContext(l.t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("the child: %v: %s", err, out)
	}
}

func TestWorkerHearsOfWhatAnotherProcessEnqueues(t *testing.T) {
	l := listen(t)
	l.child(false, 1, 2, 3)
	l.wantHeard("jobs")
	l.wantHandled(1, 2, 3)
	l.child(true, 4, 5)
	l.wantHeard("jobs")
	l.wantHandled(4, 5)
}

func TestWorkerHearsAgainAfterItsConnectionWasKilled(t *testing.T) {
	l := listen(t)
	for n := range 3 {
		if killed := l.onBackends(`SELECT count(pg_terminate_backend(pid))`); killed != 1 {
			t.Fatalf("%d connections were killed; want 1", killed)
		}
		l.child(false, n) // it may not be listening yet
		l.eventually("it listens again", func() bool {
			for len(l.heard) > 0 {
				if <-l.heard == "" {
					return true
				}
			}
			return false
		})
		l.wantHandled(n)
		l.child(false, 100+n)
		l.wantHeard("jobs")
		l.wantHandled(100 + n)
	}
	if !l.log.has("cannot hear") {
		t.Error("nothing about it in the log")
	}
}

func TestWorkerThatCannotListenWorksAllTheSame(t *testing.T) {
	l := listen(t)
	deaf := pgqrs.Config{Notifier: &notifypgqrs.Notifier{DSN: "host=/nowhere"}, Logger: slog.New(slog.NewTextHandler(l.log, nil))}.New(l.db, pgqrs.Postgres)
	defer deaf.Close()
	handled := make(chan int, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{pgqrs.NewQueue[int](deaf, "others").Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
		handled <- m.Payload
		return nil
	})}}
	go func() { done <- worker.Run(ctx) }()
	if _, err := pgqrs.NewQueue[int](l.store, "others").Enqueue(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	select {
	case <-handled:
	case <-time.After(time.Minute):
		t.Error("its message was not handled within a minute")
	}
	// This must come before the test ends, which may be sooner.
	l.eventually("the log says so", func() bool { return l.log.has("connect to listen") })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNothingIsHeardOfWhatIsRolledBack(t *testing.T) {
	l := listen(t)
	sender := pgqrs.Config{Notifier: &notifypgqrs.Notifier{Channel: l.name}}.New(l.db, pgqrs.Postgres)
	defer sender.Close()
	for _, queue := range []string{"never", "jobs"} {
		tx, err := l.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pgqrs.NewQueue[int](sender, queue).WithTx(tx).Enqueue(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		end := tx.Commit
		if queue == "never" {
			end = tx.Rollback
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	l.wantHeard("jobs") // the first notification
}

func TestWorkerThatEndsLeavesNoConnection(t *testing.T) {
	l := listen(t)
	l.stop()
	l.eventually("its connection is gone", func() bool { return l.onBackends(`SELECT count(*)`) == 0 })
}

// BenchmarkPickup measures the time from before another process enqueues a message until its
// handler is called. Both processes use the same clock.
func BenchmarkPickup(b *testing.B) {
	const times = 40
	l := listen(b)
	var took []time.Duration
	for b.Loop() {
		done := make(chan struct{})
		go func() { defer close(done); l.run(order{Times: times}) }()
		for range times {
			took = append(took, time.Since(time.UnixMicro(int64(<-l.handled))))
		}
		<-done
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
