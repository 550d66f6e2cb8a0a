package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var queueLimitCases = []testcase{
	{"eight consumers at once never hold more than MaxLeased, and get everything", "a service that bears three calls at a time would get twenty", limitCrowd},
	{"a worker handles no more than MaxLeased at a time, and goes on as soon as it has finished with one", "a limit would cost a poll for each message, or be no limit", limitWorker},
	{"what is acked, released, failed or expired makes room under MaxLeased, and nothing else does", "a crash would close the queue for good, or a renewal open it", limitRoom},
	{"nothing counts as held but what is leased, of the queue itself", "delayed messages, or another queue's work, would keep the queue closed", limitHeld},
	{"deliveries begin as Rate says: a burst, and then one each time a token comes back", "a service that allows a hundred calls an hour would lock us out", limitRate},
	{"tokens are taken by what was claimed, and no more than a burst of them is ever kept", "a quiet night would be paid for in the morning", limitTokens},
	{"a worker waits as long as the rate says, without asking the database in between", "a rate would cost a query each time it says no, or messages would wait for a poll", limitRateWorker},
	{"a limit that is set or lifted elsewhere is noticed by those who consume already", "an operator could not slow down what runs", limitNoticed},
	{"a worker that runs notices a limit with its next heartbeat", "a limit would hold only after a restart of everything", limitNoticedByWorker},
	{"both limits hold together, and a paused queue stays paused", "one of them would be forgotten", limitBoth},
	{"a rate begins anew when it is changed, and when the clock has gone back", "a limit of one a day that was a mistake would keep the queue closed for a day", limitAnew},
	{"while somebody's transaction has a queue's row, a claim with a limit is told to come again, and soon", "one migration would hold up all queues of a worker, or look like a broken database", limitLocked},
	{"a claim with a limit that meets a conflict begins again, and takes its tokens once", "messages would be claimed twice or be lost, or the rate be halved", limitConflict},
}

// limitedQueue returns a queue with messages 1 to n, and a policy in its row.
func limitedQueue(t *testing.T, s *pgqrs.Store, n int, p pgqrs.Policy) *pgqrs.Queue[int] {
	t.Helper()
	q := pgqrs.NewQueue[int](s, "limited").With(p)
	must(t, q.Configure(t.Context()))
	list := make([]int, n)
	for i := range list {
		list[i] = i + 1
	}
	if n > 0 {
		value(q.EnqueueBatch(t.Context(), list))(t)
	}
	return q
}

// wantClosed wants an error that says when to try again, and returns that time.
func wantClosed(t *testing.T, q *pgqrs.Queue[int]) time.Duration {
	t.Helper()
	ms, err := q.Dequeue(t.Context(), 10, time.Minute)
	var limit *pgqrs.RateLimitError
	if len(ms) > 0 || !errors.As(err, &limit) || !errors.Is(err, pgqrs.ErrRateLimited) {
		t.Fatalf("dequeued %d messages, and the error is %v; want a RateLimitError", len(ms), err)
	}
	return limit.Wait
}

func limitCrowd(t *testing.T, e *env) {
	const n, held, consumers = 60, 3, 8
	limitedQueue(t, e.store, n, pgqrs.Policy{MaxLeased: held})
	var mu sync.Mutex
	got := map[int]int{}
	var inHand atomic.Int64
	var all sync.WaitGroup
	deadline := time.Now().Add(tooLong)
	consume := func(q *pgqrs.Queue[int]) error {
		for time.Now().Before(deadline) {
			ms, err := q.Dequeue(t.Context(), 2, time.Minute)
			if errors.Is(err, pgqrs.ErrRateLimited) {
				continue
			}
			if err != nil || len(ms) == 0 {
				return err
			}
			if now := inHand.Add(int64(len(ms))); now > held {
				t.Errorf("%d messages are leased at a time; want %d at most", now, held)
			}
			mu.Lock()
			for _, m := range ms {
				got[m.Payload]++
			}
			mu.Unlock()
			inHand.Add(-int64(len(ms)))
			if err := q.Ack(t.Context(), ms...); err != nil {
				return err
			}
		}
		return errors.New("not done within a minute")
	}
	for range consumers {
		q := pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "limited")
		all.Add(1)
		go func() {
			defer all.Done()
			if err := consume(q); err != nil {
				t.Error(err)
			}
		}()
	}
	all.Wait()
	equal(t, "messages delivered", len(got), n)
	for payload, times := range got {
		if times != 1 {
			t.Errorf("message %d was delivered %d times", payload, times)
		}
	}
	equal(t, "archived", e.stats(t, "limited").Archived, int64(n))
}

func limitWorker(t *testing.T, e *env) {
	const n, held = 30, 2
	q := limitedQueue(t, e.store, n, pgqrs.Policy{MaxLeased: held})
	var inHand, most atomic.Int64
	w := fast(q.Handle(func(context.Context, *pgqrs.Message[int]) error {
		now := inHand.Add(1)
		defer inHand.Add(-1)
		for {
			old := most.Load()
			if old >= now || most.CompareAndSwap(old, now) {
				return nil
			}
		}
	}))
	w.PollInterval = never
	start(t, w)
	eventually(t, "every message is archived", func() bool { return e.stats(t, "limited").Archived == n })
	if got := most.Load(); got > held {
		t.Errorf("%d messages were handled at a time; want %d at most", got, held)
	}
}

func limitRoom(t *testing.T, e *env) {
	ctx := t.Context()
	q := limitedQueue(t, e.store, 20, pgqrs.Policy{MaxLeased: 2, Backoff: func(int) time.Duration { return 0 }})
	other := pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "limited")
	equal(t, "messages at first", len(dequeue(t, other, 1)), 1)
	ms := dequeue(t, q, 10)
	equal(t, "messages beside it", len(ms), 1)
	settles := []struct {
		what string
		do   func(m *pgqrs.Message[int]) error
	}{
		{"ack", func(m *pgqrs.Message[int]) error { return q.Ack(ctx, m) }},
		{"release", func(m *pgqrs.Message[int]) error { return q.Release(ctx, 0, m) }},
		{"fail", func(m *pgqrs.Message[int]) error { return q.Fail(ctx, errBoom, m) }},
		{"death", func(m *pgqrs.Message[int]) error { return q.Fail(ctx, pgqrs.Permanent(errBoom), m) }},
		{"delete", func(m *pgqrs.Message[int]) error { return q.Delete(ctx, m) }},
		{"expiry", func(*pgqrs.Message[int]) error { pgqrstest.Advance(t, e.store, 31*time.Second); return nil }},
	}
	for i, settle := range settles {
		must(t, q.Extend(ctx, 30*time.Second, ms...))
		wantClosed(t, q)
		wantClosed(t, other)
		must(t, settle.do(ms[0]))
		ms = dequeue(t, q, 10)
		want := 1
		if i == len(settles)-1 {
			want = 2 // the other lease has expired too
		}
		equal(t, "messages after "+settle.what, len(ms), want)
	}
	wantClosed(t, other)
}

func limitHeld(t *testing.T, e *env) {
	q := limitedQueue(t, e.store, 0, pgqrs.Policy{MaxLeased: 2})
	another := pgqrs.NewQueue[int](e.store, "another")
	value(another.EnqueueBatch(t.Context(), []int{1, 2, 3}))(t)
	equal(t, "leased of another queue", len(dequeue(t, another, 10)), 3)
	for range 3 {
		enqueue(t, q, 0, pgqrs.Delay(time.Hour))
	}
	value(q.EnqueueBatch(t.Context(), []int{1, 2, 3}, pgqrs.Group("a")))(t)
	value(q.EnqueueBatch(t.Context(), []int{4, 5}))(t)
	equal(t, "leased", len(dequeue(t, q, 10)), 2)
	wantClosed(t, q)
}

func limitRate(t *testing.T, e *env) {
	q := limitedQueue(t, e.store, 20, pgqrs.Policy{Rate: pgqrs.Rate{N: 3, Per: time.Hour}})
	other := pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "limited")
	equal(t, "messages at first", len(dequeue(t, q, 1)), 1)
	equal(t, "messages elsewhere", len(dequeue(t, other, 10)), 2)
	if wait := wantClosed(t, q); wait < 19*time.Minute || wait > 20*time.Minute {
		t.Errorf("told to wait for %v; want 20 min, less what has passed", wait)
	}
	wantClosed(t, other)
	pgqrstest.Advance(t, e.store, 20*time.Minute)
	equal(t, "messages after 20 min", len(dequeue(t, q, 10)), 1)
	wantClosed(t, q)
	pgqrstest.Advance(t, e.store, 40*time.Minute)
	equal(t, "messages after another 40 min", len(dequeue(t, other, 10)), 2)
	wantClosed(t, q)
}

func limitTokens(t *testing.T, e *env) {
	q := limitedQueue(t, e.store, 1, pgqrs.Policy{Rate: pgqrs.Rate{N: 3, Per: time.Hour}})
	equal(t, "messages at first", len(dequeue(t, q, 10)), 1)
	for range 5 {
		equal(t, "messages where there are none", len(dequeue(t, q, 10)), 0)
	}
	value(q.EnqueueBatch(t.Context(), make([]int, 20)))(t)
	equal(t, "messages that the tokens left allow", len(dequeue(t, q, 10)), 2)
	pgqrstest.Advance(t, e.store, 5*time.Hour)
	equal(t, "messages after five hours", len(dequeue(t, q, 10)), 3)
	wantClosed(t, q)
}

func limitRateWorker(t *testing.T, e *env) {
	const n = 8
	policy := pgqrs.Policy{Rate: pgqrs.Rate{N: 2, Per: 200 * time.Millisecond}}
	store, net := e.farStore(t)
	limitedQueue(t, e.store, n, policy)
	var asked atomic.Int64
	net.fail(func(text string) fault {
		if strings.Contains(text, "pgqrs:limit.room") {
			asked.Add(1)
		}
		return none
	})
	w := fast(pgqrs.NewQueue[int](store, "limited").With(policy).Handle(func(context.Context, *pgqrs.Message[int]) error { return nil }))
	w.PollInterval = never
	began := time.Now()
	start(t, w)
	eventually(t, "every message is archived", func() bool { return e.stats(t, "limited").Archived == n })
	if took := time.Since(began); took < (n-2)*100*time.Millisecond-10*time.Millisecond {
		t.Errorf("%d messages at two in 200 ms took %v", n, took)
	}
	if asked := asked.Load(); asked > 4*n {
		t.Errorf("the worker looked %d times whether it may go on, for %d messages", asked, n)
	}
}

func limitNoticed(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "limited")
	elsewhere := pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "limited")
	equal(t, "messages at first", len(dequeue(t, q, 10)), 0)
	must(t, elsewhere.With(pgqrs.Policy{MaxLeased: 2}).Configure(t.Context()))
	equal(t, "messages under the limit", len(dequeue(t, q, 10)), 0)
	value(elsewhere.EnqueueBatch(t.Context(), make([]int, 10)))(t)
	equal(t, "messages that the limit allows", len(dequeue(t, q, 10)), 2)
	wantClosed(t, q)
	must(t, elsewhere.Configure(t.Context()))
	equal(t, "messages after it was lifted", len(dequeue(t, q, 10)), 8)
}

func limitNoticedByWorker(t *testing.T, e *env) {
	store, net := e.farStore(t)
	var noticed atomic.Bool
	net.fail(func(text string) fault {
		if strings.Contains(text, "pgqrs:limit.lock") {
			noticed.Store(true)
		}
		return none
	})
	q := pgqrs.NewQueue[int](store, "limited")
	var inHand, most atomic.Int64
	gate := make(chan struct{})
	w := fast(q.Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
		if m.Payload == 0 {
			return nil
		}
		most.Store(max(most.Load(), inHand.Add(1)))
		<-gate
		inHand.Add(-1)
		return nil
	}))
	w.Lease = time.Second
	start(t, w)
	e.awaitState(t, enqueue(t, q, 0), pgqrs.Archived)
	must(t, pgqrs.NewQueue[int](e.store, "limited").With(pgqrs.Policy{MaxLeased: 1}).Configure(t.Context()))
	eventually(t, "the worker claims within the limit", func() bool {
		e.awaitState(t, enqueue(t, q, 0), pgqrs.Archived)
		return noticed.Load()
	})
	ids := value(q.EnqueueBatch(t.Context(), []int{1, 2, 3, 4}))(t)
	for range ids {
		receiveIn(t, "a handler takes its turn", gate)
	}
	for _, id := range ids {
		e.awaitState(t, id, pgqrs.Archived)
	}
	equal(t, "handlers at a time", most.Load(), 1)
}

// receiveIn sends a value to a receiver of c.
func receiveIn(t *testing.T, what string, c chan<- struct{}) {
	t.Helper()
	select {
	case c <- struct{}{}:
	case <-time.After(tooLong):
		t.Fatalf("not within %v: %s", tooLong, what)
	}
}

func limitBoth(t *testing.T, e *env) {
	q := limitedQueue(t, e.store, 20, pgqrs.Policy{MaxLeased: 4, Rate: pgqrs.Rate{N: 6, Per: time.Hour}})
	must(t, e.store.PauseQueue(t.Context(), "limited"))
	equal(t, "messages of the paused queue", len(dequeue(t, q, 10)), 0)
	must(t, e.store.ResumeQueue(t.Context(), "limited"))
	ms := dequeue(t, q, 1)
	equal(t, "messages of one that is asked for", len(ms), 1)
	ms = append(ms, dequeue(t, q, 10)...)
	equal(t, "messages at first", len(ms), 4)
	wantClosed(t, q)
	must(t, q.Ack(t.Context(), ms...))
	equal(t, "messages after an ack of all", len(dequeue(t, q, 10)), 2)
	if wait := wantClosed(t, q); wait < 9*time.Minute {
		t.Errorf("told to wait for %v; want 10 min, less what has passed", wait)
	}
}

func limitAnew(t *testing.T, e *env) {
	q := limitedQueue(t, e.store, 20, pgqrs.Policy{Rate: pgqrs.Rate{N: 1, Per: 24 * time.Hour}})
	equal(t, "messages at first", len(dequeue(t, q, 10)), 1)
	wantClosed(t, q)
	must(t, q.Configure(t.Context())) // the same settings change nothing
	wantClosed(t, q)
	// Another setting changes nothing either.
	must(t, q.With(pgqrs.Policy{Rate: pgqrs.Rate{N: 1, Per: 24 * time.Hour}, Retention: time.Hour}).Configure(t.Context()))
	wantClosed(t, q)
	for _, rate := range []pgqrs.Rate{{N: 1, Per: 12 * time.Hour}, {N: 2, Per: 24 * time.Hour}} { // another interval, another burst
		must(t, q.With(pgqrs.Policy{Rate: rate}).Configure(t.Context()))
		equal(t, fmt.Sprintf("messages after a change to %v", rate), len(dequeue(t, q, 10)), rate.N)
		wantClosed(t, q)
	}
	must(t, q.With(pgqrs.Policy{Rate: pgqrs.Rate{N: 2, Per: 50 * time.Hour}}).Configure(t.Context()))
	equal(t, "messages after the change", len(dequeue(t, q, 10)), 2)
	wantClosed(t, q)
	back := map[pgqrs.Dialect]string{
		pgqrs.Postgres: "UPDATE pgqrs_queues SET rate_at = rate_at + interval '3 hours'",
		pgqrs.SQLite:   "UPDATE pgqrs_queues SET rate_at = rate_at + 10800000000",
	}
	back[pgqrs.Turso] = back[pgqrs.SQLite]
	e.poke(t, "%s", back[e.dialect])
	equal(t, "messages after the clock went back", len(dequeue(t, q, 10)), 2)
	wantClosed(t, q)
}

func limitLocked(t *testing.T, e *env) {
	if e.dialect != pgqrs.Postgres {
		t.Skip("the other databases have one writer, or none waits")
	}
	q := limitedQueue(t, e.store, 3, pgqrs.Policy{MaxLeased: 2})
	equal(t, "messages", len(dequeue(t, q, 1)), 1)
	tx := value(e.db.BeginTx(t.Context(), nil))(t)
	must(t, q.With(pgqrs.Policy{MaxLeased: 3}).WithTx(tx).Configure(t.Context()))
	began := time.Now()
	wantClosed(t, q)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	free := pgqrs.NewQueue[string](e.store, "free")
	h, done := handling(free)
	start(t, fast(q.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil }), h))
	enqueue(t, free, "x")
	receive(t, "the message of another queue of the worker", done)
	must(t, tx.Rollback())
	eventually(t, "the queue goes on", func() bool { return e.stats(t, "limited").Archived == 2 })
}

func limitConflict(t *testing.T, e *env) {
	store, net := e.farStore(t)
	limitedQueue(t, e.store, 20, pgqrs.Policy{Rate: pgqrs.Rate{N: 5, Per: time.Hour}})
	q := pgqrs.NewQueue[int](store, "limited")
	for _, tag := range []string{"pgqrs:limit.lock", "pgqrs:limit.room", "pgqrs:message.claim", "pgqrs:limit.take", "pgqrs:commit"} {
		net.fail(conflict(tag, nil))
		ms := dequeue(t, q, 1)
		net.heal()
		equal(t, "messages after a conflict in "+tag, len(ms), 1)
		equal(t, "attempt", ms[0].Attempt, 1)
	}
	wantClosed(t, q)
}
