package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/dbtest"
)

var workerCases = []testcase{
	{"handles messages and acks them", "work would not be done, or done again and again", workerHandles},
	{"serves several queues, each by its own policy", "one queue's patience would be forced on another", workerPolicies},
	{"handles as many messages at a time as Concurrency says, and never more", "a worker would overload what its handlers call, or leave it idle", workerConcurrency},
	{"handles no more of a queue at a time than its policy says, while others go on", "a slow queue would take every slot", workerQueueConcurrency},
	{"does not let a busy queue starve another", "mail would not go out as long as a bulk import runs", workerFair},
	{"calls middleware from the outside in, with the message, and takes the error it returns", "tracing and error mapping are written as middleware", workerMiddleware},
	{"tells the Observer what it claims and how it ended", "metrics would be wrong", workerObserver},
	{"tells the Observer which steps ran, not which were replayed, and gives its ctx to their functions", "metrics would be wrong, and what a step calls be missing from its trace", workerObserverSteps},
	{"logs a failure with queue, message and attempt", "an operator could not find the message that fails", workerLogs},
	{"handles a message at once when this process enqueues it", "a job would wait for the next poll for no reason", workerWakes},
	{"handles a message soon after the caller's transaction commits", "a job would wait for the next poll for no reason", workerWakesTx},
	{"handles a message of a caller's transaction soon although the poll under way fails", "a job would wait for the next poll because of one that came before it", workerWakesTxAsking},
	{"finds what another Store enqueued, by polling", "several processes could not share a queue", workerPolls},
	{"finds delayed messages when they are due, by polling", "a delayed job would never run", workerDelayed},
	{"finds a message that comes to stand before all others while it never runs dry and its claims are slow", "a message whose transaction committed late would wait for ever", workerSlowClaims},
	{"takes less urgent messages in their order after a slow claim", "bulk work would be done in any order whenever the database is slow", workerSlowOrder},
	{"is woken by ResumeQueue in its process", "a queue that was held back would go on only when the next poll comes", workerResumed},
	{"takes nothing from a paused queue until it is resumed", "an operator could not hold a queue back", workerPaused},
}

// fast returns a worker that polls often.
func fast(handlers ...pgqrs.Handler) *pgqrs.Worker {
	return &pgqrs.Worker{Handlers: handlers, PollInterval: 10 * time.Millisecond}
}

// never is a PollInterval that is longer than any test.
const never = time.Hour

// atOnce is a policy without a backoff.
func atOnce(maxAttempts int) pgqrs.Policy {
	return pgqrs.Policy{MaxAttempts: maxAttempts, Backoff: func(int) time.Duration { return 0 }}
}

// A tally collects what handlers receive. It is safe for concurrent use.
type tally[T any] struct {
	mu   sync.Mutex
	seen []T
}

func (l *tally[T]) add(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, v)
}

func (l *tally[T]) all() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.seen)
}

func (l *tally[T]) len() int { return len(l.all()) }

// A gauge counts concurrent activities, and keeps the maximum.
type gauge struct {
	mu        sync.Mutex
	now, most int
}

func (g *gauge) add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now += n
	g.most = max(g.most, g.now)
}

func (g *gauge) read() (now, most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now, g.most
}

// awaitState waits until a message is in a state, and returns the message.
func (e *env) awaitState(t *testing.T, id int64, state pgqrs.MessageState) (m pgqrs.MessageInfo) {
	t.Helper()
	eventually(t, fmt.Sprintf("message %d is %s", id, state), func() bool {
		m = e.info(t, id)
		return m.State == state
	})
	return m
}

// awaitGivenBack waits until a worker has given a message back, and its attempt does not count. A
// claim that is under way at that time may take the message once more, and gives it back too.
func (e *env) awaitGivenBack(t *testing.T, id int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("message %d is given back uncounted", id), func() bool {
		m := e.info(t, id)
		return m.State == pgqrs.Ready && m.Attempt == 0
	})
}

// receive waits for a value from a handler.
func receive[T any](t *testing.T, what string, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(tooLong):
		t.Fatalf("not within %v: %s", tooLong, what)
	}
	return v
}

// poke changes the tables without the library. Its arguments are those of fmt.Sprintf, because
// dialects differ in how they bind arguments.
func (e *env) poke(t *testing.T, format string, args ...any) {
	t.Helper()
	dbtest.Retry(t, func() error {
		_, err := e.db.ExecContext(context.WithoutCancel(t.Context()), fmt.Sprintf(format, args...))
		return err
	})
}

// makeDue ends a message's delay, or its lease. Unlike Advance it leaves the
// heartbeats of running workers alone.
func (e *env) makeDue(t *testing.T, id int64) {
	t.Helper()
	e.poke(t, "UPDATE pgqrs_messages SET vt = enqueued_at WHERE id = %d", id)
}

func workerHandles(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "mail")
	var got tally[string]
	first := enqueue(t, q, "before")
	start(t, fast(q.Handle(func(_ context.Context, m *pgqrs.Message[string]) error {
		got.add(fmt.Sprint(m.ID, m.Queue, m.Attempt, m.Payload))
		return nil
	})))
	second := enqueue(t, q, "after")
	for _, id := range []int64{first, second} {
		m := e.awaitState(t, id, pgqrs.Archived)
		equal(t, "attempt", m.Attempt, 1)
	}
	want := []string{fmt.Sprint(first, "mail", 1, "before"), fmt.Sprint(second, "mail", 1, "after")} // ids ascend
	handled := got.all()
	slices.Sort(handled) // two at a time have no order
	equalSlices(t, "handled", handled, want)
}

func workerPolicies(t *testing.T, e *env) {
	var handlers []pgqrs.Handler
	var ids []int64
	for i, name := range []string{"a", "b", "c"} {
		q := pgqrs.NewQueue[int](e.store, name).With(atOnce(i + 1))
		handlers = append(handlers, q.Handle(func(context.Context, *pgqrs.Message[int]) error { return errors.New("no") }))
		ids = append(ids, enqueue(t, q, i))
	}
	start(t, fast(handlers...))
	for i, id := range ids {
		equal(t, "attempts", e.awaitState(t, id, pgqrs.Dead).Attempt, i+1)
	}
}

// quick is how many messages a worker needs to learn that claiming ahead pays.
const quick = 30

// backlog stores quick messages with payload 0, and then n messages with payload 1.
func backlog(t *testing.T, q *pgqrs.Queue[int], n int) {
	t.Helper()
	payloads := make([]int, quick+n)
	for i := range n {
		payloads[quick+i] = 1
	}
	value(q.EnqueueBatch(t.Context(), payloads))(t)
}

// counted returns a handler that counts how many messages are being handled. Messages with another
// payload than 0 wait at the gate.
func counted(q *pgqrs.Queue[int], g *gauge, gate <-chan struct{}) pgqrs.Handler {
	return q.Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
		g.add(1)
		defer g.add(-1)
		if m.Payload != 0 {
			<-gate
		}
		return nil
	})
}

func workerConcurrency(t *testing.T, e *env) {
	var g gauge
	gate := make(chan struct{})
	var handlers []pgqrs.Handler
	for _, name := range []string{"a", "b"} { // the two queues share the worker's limit
		q := pgqrs.NewQueue[int](e.store, name)
		backlog(t, q, 6)
		handlers = append(handlers, counted(q, &g, gate))
	}
	archived := func() int64 { return e.stats(t, "a").Archived + e.stats(t, "b").Archived }
	w := fast(handlers...)
	w.Concurrency = 3
	start(t, w)
	for left := 12; left > 0; left-- {
		want := min(left, 3)
		eventually(t, fmt.Sprintf("%d messages wait at the gate", want), func() bool { now, _ := g.read(); return now == want })
		gate <- struct{}{}
	}
	eventually(t, "all are acked", func() bool { return archived() == 2*quick+12 })
	_, most := g.read()
	equal(t, "the most at a time", most, 3)
}

func workerQueueConcurrency(t *testing.T, e *env) {
	slow := pgqrs.NewQueue[int](e.store, "slow").With(pgqrs.Policy{Concurrency: 2})
	other := pgqrs.NewQueue[int](e.store, "other")
	var g gauge
	gate := make(chan struct{})
	backlog(t, slow, 6)
	w := fast(counted(slow, &g, gate), other.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil }))
	w.Concurrency = 4
	start(t, w)
	eventually(t, "the quick ones are acked", func() bool { return e.stats(t, "slow").Archived == quick })
	eventually(t, "two are being handled", func() bool { now, _ := g.read(); return now == 2 })
	value(other.EnqueueBatch(t.Context(), make([]int, 20)))(t)
	eventually(t, "the other queue is done", func() bool { return e.stats(t, "other").Archived == 20 })
	close(gate)
	eventually(t, "the slow queue is done", func() bool { return e.stats(t, "slow").Archived == quick+6 })
	_, most := g.read()
	equal(t, "the most of the slow queue at a time", most, 2)
}

func workerFair(t *testing.T, e *env) {
	const most = 1000 // messages of the busy queue while another waits: some batches
	busy, rare := pgqrs.NewQueue[int](e.store, "busy"), pgqrs.NewQueue[int](e.store, "rare")
	var handled, before gauge
	done := make(chan struct{})
	value(busy.EnqueueBatch(t.Context(), make([]int, 100)))(t)
	endless := busy.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
		handled.add(1)
		if n, _ := before.read(); n > 0 {
			if now, _ := handled.read(); now > n+most {
				return nil // the queue has kept the worker to itself for long enough, and ends
			}
		}
		_, err := busy.Enqueue(ctx, m.Payload+1)
		return err
	})
	w := fast(endless, rare.Handle(func(context.Context, *pgqrs.Message[int]) error {
		close(done)
		return nil
	}))
	w.Concurrency = 2
	stop := start(t, w)
	eventually(t, "the busy queue is well under way", func() bool { now, _ := handled.read(); return now > 200 })
	now, _ := handled.read()
	before.add(now)
	enqueue(t, rare, 1)
	receive(t, "the message of the rare queue is handled", done)
	after, _ := handled.read()
	must(t, stop())
	if after > now+most {
		t.Errorf("%d messages of the busy queue were handled before the other's; want %d at most", after-now, most)
	}
}

func workerMiddleware(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "mapped").With(atOnce(1))
	var calls tally[string]
	around := func(name string) func(pgqrs.WorkFunc) pgqrs.WorkFunc {
		return func(next pgqrs.WorkFunc) pgqrs.WorkFunc {
			return func(ctx context.Context, m *pgqrs.MessageInfo) error {
				calls.add(fmt.Sprint(name, " ", m.Queue, " ", m.ID, " ", m.Attempt, " ", string(m.Raw), " ", m.Headers["trace"]))
				err := next(ctx, m)
				calls.add(fmt.Sprint(name, " ", err))
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	w := fast(q.Handle(func(context.Context, *pgqrs.Message[int]) error {
		calls.add("handler")
		return errors.New("no")
	}))
	w.Middleware = []func(pgqrs.WorkFunc) pgqrs.WorkFunc{around("outer"), around("inner")}
	start(t, w)
	id := enqueue(t, q, 7, pgqrs.Headers(map[string]string{"trace": "x"}))
	m := e.awaitState(t, id, pgqrs.Dead)
	seen := fmt.Sprintf(" mapped %d 1 7 x", id)
	equalSlices(t, "calls", calls.all(), []string{"outer" + seen, "inner" + seen, "handler", "inner no", "outer inner: no"})
	equal(t, "last error", m.LastError, "outer: inner: no")
}

func workerObserver(t *testing.T, e *env) {
	var claimed, finished tally[string]
	var wrong tally[string]
	boom := errors.New("boom")
	store := e.newStore(t, pgqrs.Config{Observer: &pgqrs.Observer{
		Claimed: func(_ context.Context, m *pgqrs.MessageInfo) {
			claimed.add(fmt.Sprint(m.ID, m.Queue, m.Attempt))
			if m.State != pgqrs.Leased || m.WorkerID == 0 || m.Claim == 0 || m.DueAt.IsZero() || !m.LeasedUntil.After(m.DueAt) || !json.Valid(m.Raw) {
				wrong.add(fmt.Sprintf("%+v", *m))
			}
		},
		Finished: func(_ context.Context, m *pgqrs.MessageInfo, took time.Duration, err error) {
			finished.add(fmt.Sprint(m.ID, m.Queue, m.Attempt, errors.Is(err, boom)))
			if took <= 0 || took > time.Minute {
				wrong.add(fmt.Sprint("took ", took))
			}
		},
	}})
	q := pgqrs.NewQueue[int](store, "watched").With(atOnce(2))
	start(t, fast(q.Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
		if m.Attempt == 1 {
			panic(boom)
		}
		return nil
	})))
	id := enqueue(t, q, 1)
	e.awaitState(t, id, pgqrs.Archived)
	equalSlices(t, "claimed", claimed.all(), []string{fmt.Sprint(id, "watched", 1), fmt.Sprint(id, "watched", 2)})
	equalSlices(t, "finished", finished.all(), []string{fmt.Sprint(id, "watched", 1, true), fmt.Sprint(id, "watched", 2, false)})
	equalSlices(t, "wrong values", wrong.all(), nil)
}

func workerObserverSteps(t *testing.T, e *env) {
	var stepped tally[string]
	var got tally[any]
	boom := errors.New("boom")
	type key struct{}
	store := e.newStore(t, pgqrs.Config{Observer: &pgqrs.Observer{
		Stepping: func(ctx context.Context, run int64, step string) context.Context {
			if step == "first" {
				return nil // changes nothing
			}
			return context.WithValue(ctx, key{}, fmt.Sprint(run, step))
		},
		Stepped: func(ctx context.Context, run int64, step string, took time.Duration, err error) {
			stepped.add(fmt.Sprint(run, step, took > 0, errors.Is(err, boom), ctx.Value(key{})))
		},
	}})
	w := pgqrs.NewWorkflow[int, int](store, "watched")
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
		if err := run.Do(ctx, "first", func(context.Context) error { return nil }); err != nil {
			return 0, err
		}
		return n, run.With(atOnce(2)).Do(ctx, "second", func(ctx context.Context) error {
			got.add(ctx.Value(key{}))
			return boom
		})
	})))
	run := value(w.Start(t.Context(), 1))(t)
	_, err := run.Result(t.Context())
	var failed *pgqrs.RunError
	if !errors.As(err, &failed) {
		t.Fatalf("error is %v; want a *RunError", err)
	}
	id := run.ID()
	second := fmt.Sprint(id, "second")
	equalSlices(t, "stepped", stepped.all(), []string{fmt.Sprint(id, "first", true, false, nil), fmt.Sprint(second, true, true, second), fmt.Sprint(second, true, true, second)})
	equalSlices(t, "what Stepping gave the function", got.all(), []any{second, second})
}

func workerLogs(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "noisy").With(atOnce(2))
	start(t, fast(q.Handle(func(context.Context, *pgqrs.Message[int]) error { return errors.New("printer on fire") })))
	id := enqueue(t, q, 1)
	e.awaitState(t, id, pgqrs.Dead)
	for attempt, outcome := range []string{"retried", "dead"} {
		want := []string{"queue=noisy", fmt.Sprintf("message=%d ", id), fmt.Sprintf("attempt=%d", attempt+1), "outcome=" + outcome, "printer on fire"}
		found := slices.ContainsFunc(strings.Split(e.log.String(), "\n"), func(line string) bool {
			return !slices.ContainsFunc(want, func(part string) bool { return !strings.Contains(line, part) })
		})
		if !found {
			t.Errorf("no line in the log with all of %q", want)
		}
	}
}
