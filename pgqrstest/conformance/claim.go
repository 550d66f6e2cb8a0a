package conformance

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var claimCases = []testcase{
	{"eight consumers at once get each of 2,000 messages exactly once, the urgent ones first", "work would be done twice, or never", func(t *testing.T, e *env) {
		stores := make([]*pgqrs.Store, 8)
		for i := range stores {
			stores[i] = e.newStore(t, pgqrs.Config{})
		}
		ExactlyOnce(t, stores, 2000)
	}},
	{"a consumer by itself keeps the order, whatever its claims collide with", "steps that were enqueued in order would run out of order", claimLone},
	{"of consumers whose claims collide each takes messages that stand together, of the highest priority that has enough", "urgent work would wait behind bulk work", claimSpread},
	{"consumers whose claims collide still get a message of an expired lease by itself, and at once when it is first", "one that kills its process would take others with it, or never have its turn", claimCrashed},
	{"a worker whose claims collide takes a message of an expired lease only into a free slot", "one that kills its process would burn the attempts of what was claimed ahead", claimSlot},
	{"consumers whose claims collide get nothing from a paused queue, nor while they are suspended", "an operator could not stop a process that is busy", claimPaused},
}

// ExactlyOnce consumes one queue of n messages with a consumer on each Store, until all are acked.
// It fails the test in these cases:
//
//   - A message is delivered twice, or as a second attempt.
//   - A message is delivered although more urgent messages are left than the other consumers could
//     hold.
func ExactlyOnce(t *testing.T, stores []*pgqrs.Store, n int) {
	t.Helper()
	const queue, batch = "exactly once", 10
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	// The second half has a higher priority.
	priority := pgqrs.Each(func(i int) []pgqrs.Option { return []pgqrs.Option{pgqrs.Priority(2 * i / n)} })
	value(pgqrs.NewQueue[int](stores[0], queue).EnqueueBatch(t.Context(), all, priority))(t)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var mu sync.Mutex
	var got []int
	urgent := n - n/2
	record := func(i int, ms []*pgqrs.Message[int]) (left int) {
		mu.Lock()
		defer mu.Unlock()
		bulk := false
		for _, m := range ms {
			got = append(got, m.Payload)
			bulk = bulk || m.Priority == 0
			urgent -= m.Priority
			if m.Attempt != 1 {
				t.Errorf("consumer %d gets message %d as attempt %d", i, m.ID, m.Attempt)
			}
		}
		if most := (len(stores) - 1) * batch; bulk && urgent > most {
			t.Errorf("consumer %d gets what is not urgent with %d urgent ones left; want %d at most", i, urgent, most)
		}
		return n - len(got)
	}
	together(t, len(stores), func(i int) error {
		q := pgqrs.NewQueue[int](stores[i], queue)
		// A call may return nothing while others claim the last messages.
		for left := n; left > 0; {
			ms, err := q.Dequeue(ctx, batch, time.Hour)
			if err == nil {
				left = record(i, ms)
				err = q.Ack(ctx, ms...)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	slices.Sort(got)
	equalSlices(t, "messages", got, all)
	info := value(stores[0].Queues(t.Context(), queue))(t)[0]
	equal(t, "archived", info.Archived, int64(n))
	equal(t, "left", info.Ready+info.Scheduled+info.Leased+info.Dead, 0)
}

var claiming = regexp.MustCompile(`pgqrs:message\.(spread_|next_)?claim `)

// colliding returns a Store whose claims all meet a conflict first, and a function that counts the
// claims.
func colliding(t *testing.T, e *env) (store *pgqrs.Store, claims func() int) {
	t.Helper()
	store, net := e.farStore(t)
	var sent gauge
	net.fail(func(text string) fault {
		if !claiming.MatchString(text) {
			return none
		}
		sent.add(1)
		if n, _ := sent.read(); n%2 == 1 {
			return refuted
		}
		return none
	})
	return store, func() int { n, _ := sent.read(); return n / 2 }
}

// collidingJobs returns the queue of jobs on a colliding Store that has another consumer.
func collidingJobs(t *testing.T, e *env) *pgqrs.Queue[string] {
	t.Helper()
	store, _ := colliding(t, e)
	q := pgqrs.NewQueue[string](store, "jobs")
	wantNone(t, jobs(e))
	wantNone(t, q)
	return q
}

func claimLone(t *testing.T, e *env) {
	want := make([]string, 60)
	for i := range want {
		want[i] = strings.Repeat("x", i)
	}
	wantNone(t, pgqrs.NewQueue[string](e.store, "others"))
	wantNone(t, jobs(e))
	must(t, e.stopAll(t, "jobs"))
	store, _ := colliding(t, e)
	q := pgqrs.NewQueue[string](store, "jobs")
	for _, n := range []int{1, 7} {
		value(q.EnqueueBatch(t.Context(), want[20:], pgqrs.Priority(0)))(t)
		value(q.EnqueueBatch(t.Context(), want[:20], pgqrs.Priority(1)))(t)
		equalSlices(t, "payloads", drainBy(t, q, n), want)
	}
}

// keep is like dequeue, with a lease that outlasts the case on any machine.
func keep(t *testing.T, q *pgqrs.Queue[string], n int) []*pgqrs.Message[string] {
	t.Helper()
	return value(q.Dequeue(t.Context(), n, time.Hour))(t)
}

func claimSpread(t *testing.T, e *env) {
	const each, n = 100, 5
	q := collidingJobs(t, e)
	var left []int64 // in order
	for _, p := range []int{2, 1, -1} {
		left = append(left, value(q.EnqueueBatch(t.Context(), make([]string, each), pgqrs.Priority(p)))(t)...)
	}
	for range 5 { // a claim without a conflict begins with the first
		equalSlices(t, "messages without a conflict", idsOf(dequeue(t, jobs(e), n)), left[:n])
		left = left[n:]
	}
	aside := 0
	for len(left) > 0 {
		ids := idsOf(keep(t, q, n))
		if len(ids) == 0 {
			t.Fatalf("a claim returns nothing while %d are left", len(left))
		}
		at := slices.Index(left, ids[0])
		if at > 0 {
			aside++
		}
		equalSlices(t, "messages that stand together", ids, left[at:min(at+n, len(left))])
		if urgent := (len(left)-1)%each + 1; at > 0 && at+n > urgent {
			t.Fatalf("a claim takes messages %d to %d, where %d of the highest priority are left", at, at+n, urgent)
		}
		left = slices.Delete(left, at, at+len(ids))
	}
	if e.config.Concurrent {
		equal(t, "whether any claim began aside", aside > 0, true)
	} else {
		equal(t, "claims that began aside", aside, 0)
	}
}

func claimCrashed(t *testing.T, e *env) {
	q := collidingJobs(t, e)
	ids := value(q.EnqueueBatch(t.Context(), make([]string, 100)))(t)
	e.poke(t, "UPDATE pgqrs_messages SET due_at = vt, read_ct = 1 WHERE id IN (%d, %d)", ids[0], ids[40]) // their last holder did not answer
	equalSlices(t, "what comes first", idsOf(keep(t, q, 10)), ids[:1])
	for left := slices.Clone(ids[1:]); len(left) > 0; {
		got := idsOf(keep(t, q, 10))
		if len(got) == 0 {
			t.Fatalf("a claim returns nothing while %d are left", len(left))
		}
		at := slices.Index(left, got[0])
		want := left[at:min(at+10, len(left))]
		if stop := slices.Index(want, ids[40]); stop >= 0 {
			want = want[:max(1, stop)]
		}
		equalSlices(t, "messages up to the one of an expired lease", got, want)
		left = slices.Delete(left, at, at+len(got))
	}
}

func claimSlot(t *testing.T, e *env) {
	store, claims := colliding(t, e)
	wantNone(t, pgqrs.NewQueue[int](e.store, "ahead"))
	a := newAhead(t, e, store, pgqrs.Worker{})
	id := enqueue(t, pgqrs.NewQueue[int](e.store, "ahead"), quick, pgqrs.Delay(time.Hour))
	before := claims()
	e.poke(t, "UPDATE pgqrs_messages SET vt = enqueued_at, due_at = enqueued_at, read_ct = 1 WHERE id = %d", id)
	eventually(t, "the worker has asked for it", func() bool { return claims() > before && store.DB().Stats().InUse == 0 })
	equal(t, "state while the slot is taken", e.info(t, id).State, pgqrs.Ready)
	close(a.gate)
	e.awaitState(t, id, pgqrs.Archived)
}

func claimPaused(t *testing.T, e *env) {
	q := collidingJobs(t, e)
	value(q.EnqueueBatch(t.Context(), make([]string, 20)))(t)
	m := dequeueOneOf(t, q)
	must(t, e.store.PauseQueue(t.Context(), "jobs"))
	wantNone(t, q)
	must(t, e.store.ResumeQueue(t.Context(), "jobs"))
	must(t, e.store.SuspendWorker(t.Context(), m.WorkerID))
	_, err := q.Dequeue(t.Context(), 1, time.Minute)
	wantError(t, err, pgqrs.ErrState)
	must(t, e.store.ResumeWorker(t.Context(), m.WorkerID))
	dequeueOneOf(t, q)
}

// dequeueOneOf leases one message of several.
func dequeueOneOf(t *testing.T, q *pgqrs.Queue[string]) *pgqrs.Message[string] {
	t.Helper()
	ms := dequeue(t, q, 1)
	equal(t, "number of messages", len(ms), 1)
	return ms[0]
}
