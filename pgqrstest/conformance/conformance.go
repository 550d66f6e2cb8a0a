// Package conformance is a test suite for database drivers. It states each guarantee of pgqrs once,
// as a test case, and runs all cases on a driver:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, func(t *testing.T) (*sql.DB, pgqrs.Dialect) {
//			db, err := sql.Open("mydriver", filepath.Join(t.TempDir(), "test.db"))
//			...
//			return db, pgqrs.SQLite
//		})
//	}
//
// [Processes] tests several processes that share one database.
package conformance

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/dbtest"
)

// A testcase states one guarantee of pgqrs.
type testcase struct {
	name string // the guarantee, as a sentence
	why  string // the harm without it, printed when the case fails
	run  func(t *testing.T, e *env)
}

// A feature is a group of cases.
type feature struct {
	name  string
	cases []testcase
}

func features() []feature {
	return []feature{
		{"enqueue", enqueueCases},
		{"worker", workerCases},
		{"worker outcomes", outcomeCases},
		{"worker leases", leaseKeepingCases},
		{"worker drain", drainCases},
		{"worker control", controlCases},
		{"worker maintenance", maintenanceCases},
		{"worker faults", faultCases},
		{"worker input", workerInputCases},
		{"foreign code", foreignCases},
		{"worker batches", batchCases},
		{"kit", kitCases},
		{"keys", keyCases},
		{"payload", payloadCases},
		{"limits", limitCases},
		{"policies", policyCases},
		{"queue limits", queueLimitCases},
		{"dead letters", deadLetterCases},
		{"groups", groupCases},
		{"groups at work", groupWorkerCases},
		{"batch ends", batchEndCases},
		{"lease", leaseCases},
		{"settle", settleCases},
		{"consumer", consumerCases},
		{"identity", identityCases},
		{"foreign runs", foreignRunCases},
		{"order", orderCases},
		{"tx", txCases},
		{"cancelled ctx", cancelledCases},
		{"admin", adminCases},
		{"conflicts", conflictCases},
		{"concurrent claims", claimCases},
		{"crowd", crowdCases},
		{"install", installCases},
		{"verify", verifyCases},
		{"input", inputCases},
		{"workflow sleep", sleepCases},
		{"workflow signal", signalCases},
		{"workflow child", childCases},
		{"workflow deletion", deletedCases},
		{"workflow cancel", cancelCases},
		{"workflow control", runControlCases},
		{"workflow races", raceCases},
		{"workflow start", workflowStartCases},
		{"workflow step", workflowStepCases},
		{"workflow step retries", workflowRetryCases},
		{"workflow suspend", workflowSuspendCases},
		{"workflow replay", replayCases},
		{"workflow misuse", misuseCases},
		{"workflow steptx", workflowStepTxCases},
		{"workflow end", workflowEndCases},
		{"workflow version", workflowVersionCases},
		{"workflow branches", branchCases},
		{"workflow select", selectCases},
		{"schedules", scheduleCases},
		{"reserved names", reservedCases},
		{"memory", memoryCases},
		{"kept fields", keptCases},
		{"malformed rows", malformedCases},
	}
}

// Run runs the suite. Each call of open returns a new, empty database, with the settings that the
// documentation advises for its driver. It closes the database by t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) (*sql.DB, pgqrs.Dialect)) {
	run(t, open, pgqrs.Config{})
}

// RunConcurrent runs the suite with Config.Concurrent. The engine must support BEGIN CONCURRENT.
func RunConcurrent(t *testing.T, open func(t *testing.T) (*sql.DB, pgqrs.Dialect)) {
	run(t, open, pgqrs.Config{Concurrent: true})
}

func run(t *testing.T, open func(t *testing.T) (*sql.DB, pgqrs.Dialect), config pgqrs.Config) {
	for _, f := range features() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range f.cases {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					t.Cleanup(func() {
						if t.Failed() {
							t.Logf("why it matters: %s", c.why)
						}
					})
					c.run(t, newEnv(t, open, config))
				})
			}
		})
	}
}

// An env is the environment of a case: a database of its own, with the schema installed.
type env struct {
	db      *sql.DB
	dialect pgqrs.Dialect
	store   *pgqrs.Store
	open    func(t *testing.T) (*sql.DB, pgqrs.Dialect)
	config  pgqrs.Config // the config of every Store in the suite
	log     *logs
}

func newEnv(t *testing.T, open func(t *testing.T) (*sql.DB, pgqrs.Dialect), config pgqrs.Config) *env {
	t.Helper()
	db, dialect := open(t)
	e := &env{db: db, dialect: dialect, open: open, config: config, log: &logs{}}
	e.store = e.newStore(t, pgqrs.Config{})
	if err := e.store.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Every case ends with all connections back in the pool. An open cursor or transaction is a
	// leak.
	t.Cleanup(func() {
		eventually(t, "all connections are back in the pool", func() bool { return db.Stats().InUse == 0 })
	})
	return e
}

// newStore returns another Store on the case's database, as another process would have.
func (e *env) newStore(t *testing.T, c pgqrs.Config) *pgqrs.Store {
	t.Helper()
	if c.Logger == nil {
		c.Logger = e.log.logger(t)
	}
	c.Concurrent = e.config.Concurrent
	s := c.New(e.db, e.dialect)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// tooLong is how long a case waits for anything. It is long because a slow machine may run many
// cases at once.
const tooLong = dbtest.Patience

// eventually waits for a condition. It fails the test if that takes tooLong.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(tooLong)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			t.Errorf("not within %v: %s", tooLong, what)
			return
		case <-tick.C:
		}
	}
}

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// value returns v, and fails the test on an error.
func value[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantError fails the test unless err matches target.
func wantError(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error is %v; want one matching %q", err, target)
	}
}

// equal fails the test unless got equals want.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s is %v; want %v", what, got, want)
	}
}

// equalSlices fails the test unless got has the elements of want, in order.
func equalSlices[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %v; want %v", what, got, want)
	}
}

// enqueue stores a message.
func enqueue[T any](t *testing.T, q *pgqrs.Queue[T], payload T, opts ...pgqrs.Option) int64 {
	t.Helper()
	return value(q.Enqueue(t.Context(), payload, opts...))(t)
}

// dequeue leases up to n messages for half a minute.
func dequeue[T any](t *testing.T, q *pgqrs.Queue[T], n int) []*pgqrs.Message[T] {
	t.Helper()
	return value(q.Dequeue(t.Context(), n, 30*time.Second))(t)
}

// dequeueOne leases the one message there is.
func dequeueOne[T any](t *testing.T, q *pgqrs.Queue[T]) *pgqrs.Message[T] {
	t.Helper()
	ms := dequeue(t, q, 10)
	if len(ms) != 1 {
		t.Fatalf("dequeued %d messages; want 1", len(ms))
	}
	return ms[0]
}

// payloads returns the payloads of messages.
func payloads[T any](ms []*pgqrs.Message[T]) []T {
	list := make([]T, len(ms))
	for i, m := range ms {
		list[i] = m.Payload
	}
	return list
}

// info reads a message by id.
func (e *env) info(t *testing.T, id int64) pgqrs.MessageInfo {
	t.Helper()
	ms := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{IDs: []int64{id}}))(t)
	if len(ms) != 1 {
		t.Fatalf("there are %d messages with the id %d; want 1", len(ms), id)
	}
	return ms[0]
}

// stats reads the counts of a queue.
func (e *env) stats(t *testing.T, queue string) pgqrs.QueueInfo {
	t.Helper()
	qs := value(e.store.Queues(t.Context(), queue))(t)
	if len(qs) != 1 {
		t.Fatalf("there are %d queues named %q; want 1", len(qs), queue)
	}
	return qs[0]
}

// start runs a worker until the returned function stops it and returns the result of Run. If that
// function is not called, the test's cleanup stops the worker, and an error of Run fails the test.
func start(t *testing.T, w *pgqrs.Worker) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stopped := false
	stop = func() error {
		t.Helper()
		stopped = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(60 * time.Second):
			t.Fatal("Worker.Run did not return within a minute of its ctx's end")
			return nil
		}
	}
	t.Cleanup(func() {
		if stopped {
			return
		}
		if err := stop(); err != nil {
			t.Errorf("Worker.Run: %v", err)
		}
	})
	return stop
}
