package conformance

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var groupWorkerCases = []testcase{
	{"workers of two Stores keep every group's order, one message at a time, whatever fails and panics", "two workers would book one account's movements at once", groupWorkers},
	{"an idle worker goes on with a group at once, without polling", "a group of a hundred messages would take a hundred polls", groupWakes},
	{"under HandleTx a group goes on when the transaction commits", "the next message would not see what the one before it wrote", groupHandleTx},
	{"a group's policy of several at a time holds, in order of enqueue", "a tenant would have one slot or all of them", groupLimit},
	{"a tenant's thousand messages do not hold up another's ten", "one customer's import would stop everybody's mail", groupFair},
	{"a group's rate lets messages go no faster, whoever works", "a customer's server would be called more often than it allows", groupRate},
	{"a message that is delayed, or was deleted before its time, does not use up its group's rate", "a group would wait for a token that nobody needs", groupRateDelayed},
	{"where messages need not wait for one that is delayed, it takes a token of now", "a group would wait for a message that may not hold it up", groupRateNow},
	{"a group's rate is kept though its interval is no whole number of milliseconds", "700 a second would be a thousand", groupRateFine},
	{"with SkipFailed a message that waits for its group's rate is not passed over", "a steady stream would put off each of its messages for ever", groupSkipRate},
	{"with SkipFailed what waits for its time does not use up its group's rate", "a group would wait an hour for a message that may not hold it up", groupSkipRetryRate},
	{"with SkipFailed a group goes on past a failed message, which comes when its time has come", "a group would wait for a message that nothing depends on", groupSkip},
	{"with SkipFailed a retry is not overtaken once it is due, and one message at a time is kept", "a retry would starve, or run beside another", groupSkipDue},
	{"a message of a workflow's run may have a group: its runs are executed one after the other", "two runs would change one account at once", groupRuns},
	{"a run that is cancelled before it begins ends at once, blocked or not, and its group goes on as if it had never been there", "a cancelled run would hold up its group, or wait for hours to end", groupRunCancelled},
}

// A ledger records which message of each group is being handled, and in what order they ended.
type ledger struct {
	mu    sync.Mutex
	open  map[string]int
	most  int
	ended map[string][]int
}

func (l *ledger) begin(group string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open, l.ended = map[string]int{}, map[string][]int{}
	}
	l.open[group]++
	l.most = max(l.most, l.open[group])
}

func (l *ledger) end(group string, n int, done bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[group]--
	if done {
		l.ended[group] = append(l.ended[group], n)
	}
}

func (l *ledger) total() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, done := range l.ended {
		n += len(done)
	}
	return n
}

func groupWorkers(t *testing.T, e *env) {
	const groups, each = 7, 8
	var l ledger
	work := func(_ context.Context, m *pgqrs.Message[int]) error {
		l.begin(m.Group)
		outcome := rand.N(8)
		defer l.end(m.Group, m.Payload, outcome > 1)
		switch outcome {
		case 0:
			return errors.New("not yet")
		case 1:
			panic("not yet")
		}
		return nil
	}
	stores := []*pgqrs.Store{e.store, e.newStore(t, pgqrs.Config{})}
	for _, s := range stores {
		q := pgqrs.NewQueue[int](s, "grouped").With(atOnce(-1))
		start(t, fast(q.Handle(work)))
		start(t, fast(q.Handle(work)))
	}
	var wg sync.WaitGroup
	for g := range groups {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := range each {
				q := pgqrs.NewQueue[int](stores[n%2], "grouped")
				if _, err := q.Enqueue(t.Context(), n, pgqrs.Group(fmt.Sprint(g))); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	eventually(t, "all is done", func() bool { return l.total() == groups*each })
	equal(t, "messages of a group at a time, at most", l.most, 1)
	for g, done := range l.ended {
		if !slices.IsSorted(done) || len(done) != each {
			t.Errorf("group %s was done in the order %v", g, done)
		}
	}
}

func groupWakes(t *testing.T, e *env) {
	q := jobs(e)
	h, done := handling(q)
	w := fast(h)
	w.PollInterval = never
	start(t, w)
	grouped(t, q, "a", slices.Repeat([]string{"x"}, 20)...)
	for range 20 {
		receive(t, "each message of the group", done)
	}
}

func groupHandleTx(t *testing.T, e *env) {
	q := jobs(e)
	var seen tally[string]
	ids := grouped(t, q, "a", "1", "2", "3")
	start(t, fast(q.HandleTx(func(_ context.Context, _ *sql.Tx, m *pgqrs.Message[string]) error {
		seen.add(m.Payload)
		return nil
	})))
	e.awaitState(t, ids[2], pgqrs.Archived)
	equalSlices(t, "payloads", slices.Compact(seen.all()), []string{"1", "2", "3"})
}

func groupLimit(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "grouped").With(pgqrs.Policy{GroupConcurrency: 3})
	must(t, q.Configure(t.Context()))
	var all []int
	for n := range 7 {
		all = append(all, n)
	}
	value(q.EnqueueBatch(t.Context(), all, pgqrs.Group("a")))(t)
	value(q.EnqueueBatch(t.Context(), all[:2], pgqrs.Group("b")))(t)
	of := func(ms []*pgqrs.Message[int], group string) (list []*pgqrs.Message[int]) {
		for _, m := range ms {
			if m.Group == group {
				list = append(list, m)
			}
		}
		slices.SortFunc(list, func(a, b *pgqrs.Message[int]) int { return cmp.Compare(a.ID, b.ID) })
		return list
	}
	ms := dequeue(t, q, 20)
	a := of(ms, "a")
	equalSlices(t, "of a", payloads(a), []int{0, 1, 2})
	equalSlices(t, "of b", payloads(of(ms, "b")), []int{0, 1})
	wantNone(t, q)
	must(t, q.Ack(t.Context(), a[1]))
	equalSlices(t, "after one ack", payloads(dequeue(t, q, 20)), []int{3})
	must(t, q.Ack(t.Context(), a[0], a[2]))
	equalSlices(t, "after two more", payloads(of(dequeue(t, q, 20), "a")), []int{4, 5})
	must(t, q.With(pgqrs.Policy{}).Configure(t.Context()))
	value(q.EnqueueBatch(t.Context(), all[:2], pgqrs.Group("a")))(t)
	wantNone(t, q)
}

func groupFair(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "grouped").With(pgqrs.Policy{GroupConcurrency: 2})
	must(t, q.Configure(t.Context()))
	value(q.EnqueueBatch(t.Context(), make([]int, 1000), pgqrs.Group("bulk")))(t)
	value(q.EnqueueBatch(t.Context(), make([]int, 10), pgqrs.Group("small")))(t)
	small, all := 0, 0
	for small < 10 {
		for _, m := range dequeue(t, q, 1) {
			all++
			if m.Group == "small" {
				small++
			}
			must(t, q.Ack(t.Context(), m))
			pgqrstest.Advance(t, e.store, time.Millisecond) // messages that are unblocked in the same millisecond are delivered by id
		}
	}
	if all > 24 {
		t.Errorf("the ten messages of the small tenant were done only after %d", all)
	}
}

func groupRate(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "grouped").With(pgqrs.Policy{GroupRate: pgqrs.Rate{N: 3, Per: 3 * time.Hour}})
	must(t, q.Configure(t.Context()))
	value(q.EnqueueBatch(t.Context(), make([]int, 9), pgqrs.Group("a")))(t)
	take := func() (n int) {
		for {
			ms := dequeue(t, q, 10)
			if len(ms) == 0 {
				return n
			}
			n += len(ms)
			must(t, q.Ack(t.Context(), ms...))
		}
	}
	equal(t, "messages of the burst", take(), 3)
	for _, wait := range []struct {
		time time.Duration
		want int
	}{{50 * time.Minute, 0}, {20 * time.Minute, 1}, {2 * time.Hour, 2}, {10 * time.Hour, 3}} {
		pgqrstest.Advance(t, e.store, wait.time)
		equal(t, fmt.Sprintf("messages after another %v", wait.time), take(), wait.want)
	}
}

// paced returns a queue whose groups have a policy. A failed message waits ten hours.
func paced(t *testing.T, e *env, p pgqrs.Policy) *pgqrs.Queue[string] {
	t.Helper()
	p.Backoff = func(int) time.Duration { return 10 * time.Hour }
	q := jobs(e).With(p)
	must(t, q.Configure(t.Context()))
	return q
}

func groupRateDelayed(t *testing.T, e *env) {
	q := paced(t, e, pgqrs.Policy{GroupConcurrency: 2, GroupRate: pgqrs.Rate{N: 1, Per: time.Minute}})
	enqueue(t, q, "delayed", pgqrs.Group("a"), pgqrs.Delay(10*time.Hour))
	grouped(t, q, "a", "next")
	pgqrstest.Advance(t, e.store, 3*time.Minute)
	equalSlices(t, "payloads beside one that is delayed", drainBy(t, q, 10), []string{"next"})
	q = paced(t, e, pgqrs.Policy{GroupRate: pgqrs.Rate{N: 1, Per: time.Minute}})
	head := enqueue(t, q, "delayed", pgqrs.Group("b"), pgqrs.Delay(10*time.Hour))
	grouped(t, q, "b", "next")
	equal(t, "deleted", value(e.store.Delete(t.Context(), head))(t), 1)
	pgqrstest.Advance(t, e.store, 3*time.Minute)
	equalSlices(t, "payloads after one that was deleted", drainBy(t, q, 10), []string{"next"})
}

func groupRateNow(t *testing.T, e *env) {
	hourly := pgqrs.Rate{N: 1, Per: time.Hour}
	q := paced(t, e, pgqrs.Policy{SkipFailed: true, GroupRate: hourly})
	enqueue(t, q, "delayed", pgqrs.Group("skips"), pgqrs.Delay(90*time.Minute))
	grouped(t, q, "skips", "now")
	equalSlices(t, "payloads beside one that is passed over", drainBy(t, q, 10), []string{"now"})

	q = paced(t, e, pgqrs.Policy{GroupConcurrency: 2, GroupRate: hourly})
	enqueue(t, q, "delayed", pgqrs.Group("two at a time"), pgqrs.Delay(90*time.Minute))
	grouped(t, q, "two at a time", "next")
	pgqrstest.Advance(t, e.store, 65*time.Minute)
	equalSlices(t, "payloads of two at a time an hour later", drainBy(t, q, 10), []string{"next"})

	q = paced(t, e, pgqrs.Policy{SkipFailed: true, GroupConcurrency: 3, GroupRate: hourly})
	value(q.EnqueueBatch(t.Context(), make([]string, 3), pgqrs.Group("three at a time"), pgqrs.Delay(10*time.Hour)))(t)
	grouped(t, q, "three at a time", "now")
	equalSlices(t, "payloads beside three that are passed over", drainBy(t, q, 10), []string{"now"})
}

func groupRateFine(t *testing.T, e *env) {
	const n, burst, interval = 60, 5, 1400 * time.Microsecond
	q := paced(t, e, pgqrs.Policy{GroupConcurrency: n, GroupRate: pgqrs.Rate{N: burst, Per: burst * interval}})
	ids := grouped(t, q, "a", make([]string, n)...)
	first, last := e.info(t, ids[0]).DueAt, e.info(t, ids[n-1]).DueAt
	if most := (n - burst) * interval; last.Sub(first) < most-time.Millisecond {
		t.Errorf("%d messages are let go within %v; want %v or more", n, last.Sub(first), most)
	}
}

func groupSkipRate(t *testing.T, e *env) {
	q := paced(t, e, pgqrs.Policy{SkipFailed: true, GroupRate: pgqrs.Rate{N: 1, Per: time.Hour}})
	grouped(t, q, "a", "1")
	equalSlices(t, "payloads", drainBy(t, q, 10), []string{"1"})
	for _, payload := range []string{"2", "3", "4"} {
		grouped(t, q, "a", payload)
	}
	for _, want := range []string{"2", "3", "4"} {
		wantNone(t, q)
		pgqrstest.Advance(t, e.store, 61*time.Minute)
		equalSlices(t, "payloads after an hour", drainBy(t, q, 10), []string{want})
	}
}

func groupSkipRetryRate(t *testing.T, e *env) {
	q := paced(t, e, pgqrs.Policy{SkipFailed: true, GroupRate: pgqrs.Rate{N: 1, Per: time.Minute}})
	grouped(t, q, "a", "1")
	must(t, q.Fail(t.Context(), errors.New("later"), dequeueOne(t, q)))
	grouped(t, q, "a", "2")
	pgqrstest.Advance(t, e.store, 3*time.Minute)
	equalSlices(t, "payloads beside the retry", drainBy(t, q, 10), []string{"2"})
	pgqrstest.Advance(t, e.store, 10*time.Hour)
	equalSlices(t, "payloads when it is due", drainBy(t, q, 10), []string{"1"})
	for i := range 5 {
		enqueue(t, q, "delayed", pgqrs.Group("b"), pgqrs.Delay(time.Duration(10-i)*time.Hour))
	}
	grouped(t, q, "b", "now")
	equalSlices(t, "payloads beside several that are delayed", drainBy(t, q, 10), []string{"now"})
}

// skipping returns a queue whose groups pass over a failed message for an hour.
func skipping(t *testing.T, e *env) *pgqrs.Queue[string] {
	t.Helper()
	q := jobs(e).With(pgqrs.Policy{SkipFailed: true, Backoff: func(int) time.Duration { return time.Hour }})
	must(t, q.Configure(t.Context()))
	return q
}

func groupSkip(t *testing.T, e *env) {
	q := skipping(t, e)
	ids := grouped(t, q, "a", "1", "2")
	must(t, q.Fail(t.Context(), errors.New("later"), dequeueOne(t, q)))
	equalSlices(t, "states", e.states(t, ids...), []pgqrs.MessageState{pgqrs.Blocked, pgqrs.Ready})
	equalSlices(t, "payloads", drainBy(t, q, 10), []string{"2"})
	equal(t, "state of the one that failed", e.info(t, ids[0]).State, pgqrs.Scheduled)
	enqueue(t, q, "3", pgqrs.Group("a"))
	equal(t, "its state beside a third", e.info(t, ids[0]).State, pgqrs.Blocked)
	equalSlices(t, "payloads", drainBy(t, q, 10), []string{"3"})
	wantNone(t, q)
	pgqrstest.Advance(t, e.store, 2*time.Hour)
	m := dequeueOne(t, q)
	equal(t, "payload", m.Payload, "1")
	equal(t, "attempt", m.Attempt, 2)
}

func groupSkipDue(t *testing.T, e *env) {
	q := skipping(t, e)
	first := grouped(t, q, "a", "1")[0]
	must(t, q.Fail(t.Context(), errors.New("later"), dequeueOne(t, q)))
	grouped(t, q, "a", "2", "3")
	second := dequeueOne(t, q)
	equal(t, "payload", second.Payload, "2")
	// The retry is due, and the lease of the second message has ended.
	pgqrstest.Advance(t, e.store, 2*time.Hour)
	equal(t, "payload", dequeueOne(t, q).Payload, "2")
	equal(t, "state of the retry", e.info(t, first).State, pgqrs.Blocked)
	wantNone(t, q)
	enqueue(t, q, "4", pgqrs.Group("a"))
	pgqrstest.Advance(t, e.store, time.Minute)
	equalSlices(t, "payloads", drainBy(t, q, 10), []string{"2", "3", "1", "4"})
}

func groupRuns(t *testing.T, e *env) {
	w := pgqrs.NewWorkflow[int, int](e.store, "grouped")
	var l ledger
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
		l.begin("a")
		defer l.end("a", n, true)
		if err := run.Do(ctx, "step", func(context.Context) error { return nil }); err != nil {
			return 0, err
		}
		return n, run.Sleep(ctx, "nap", 10*time.Millisecond)
	})))
	var runs []*pgqrs.RunHandle[int]
	for n := range 4 {
		runs = append(runs, value(w.Start(t.Context(), n, pgqrs.Group("a")))(t))
	}
	ctx, cancel := context.WithTimeout(t.Context(), tooLong)
	defer cancel()
	for n, run := range runs {
		equal(t, "result", value(run.Result(ctx))(t), n)
	}
	equal(t, "runs at a time", l.most, 1)
	if !slices.IsSorted(l.ended["a"]) {
		t.Errorf("executions in the order %v", l.ended["a"])
	}
}

func groupRunCancelled(t *testing.T, e *env) {
	w := pgqrs.NewWorkflow[int, int](e.store, "grouped")
	runs := make([]*pgqrs.RunHandle[int], 5)
	for n := range runs {
		runs[n] = launch(t, w, n, pgqrs.Group("a"))
	}
	state := func(n int) pgqrs.MessageState { return e.info(t, e.runInfo(t, runs[n].ID()).MessageID).State }
	cancel := func(n int) {
		t.Helper()
		must(t, runs[n].Cancel(t.Context()))
		equal(t, "status", e.runInfo(t, runs[n].ID()).Status, pgqrs.Cancelled)
		equal(t, "state of its message", state(n), pgqrs.Archived)
	}
	cancel(0) // the head
	e.awaitState(t, e.runInfo(t, runs[1].ID()).MessageID, pgqrs.Ready)
	cancel(2) // blocked
	equal(t, "blocked messages", e.stats(t, "grouped").Blocked, 2)
	var calls tally[int]
	gate := make(chan struct{})
	start(t, fast(w.Handle(func(_ context.Context, _ *pgqrs.Run, n int) (int, error) {
		calls.add(n)
		<-gate
		return n, nil
	})))
	e.awaitState(t, e.runInfo(t, runs[1].ID()).MessageID, pgqrs.Leased)
	cancel(3) // the next message, while the head is being handled
	equal(t, "state of the last message", state(4), pgqrs.Blocked)
	close(gate)
	equal(t, "result of the head", finished(t, runs[1]), 1)
	equal(t, "result of the last", finished(t, runs[4]), 4)
	equalSlices(t, "calls", calls.all(), []int{1, 4})
}
