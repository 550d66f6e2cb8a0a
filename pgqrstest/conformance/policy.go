package conformance

import (
	"context"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var policyCases = []testcase{
	{"a worker writes the policies of its handlers to their queues, for operators to see", "an operator would have to read the source to know why a message waits", policyByWorker},
	{"Configure makes the queue and writes its policy, and the last one written counts", "a limit would be that of a version that is gone", policyConfigured},
	{"each change of a policy is written, by itself", "a limit that was changed alone would never take effect", policyChanges},
	{"a policy in a transaction is seen if and only if that commits", "a migration that failed half-way would leave its limits behind", policyInTx},
	{"the lease of a queue's policy wins over the worker's, for claims and renewals", "a queue of long jobs would need a worker of its own, or its jobs be done twice", policyLease},
}

// policy reads a queue's policy, and checks that both listings agree on it.
func (e *env) policy(t *testing.T, queue string) pgqrs.PolicyInfo {
	t.Helper()
	p := e.stats(t, queue).Policy
	equal(t, "policy in Depths", e.depth(t, queue).Policy, p)
	return p
}

const week = 7 * 24 * time.Hour

func policyByWorker(t *testing.T, e *env) {
	emails, parcels := pgqrs.NewQueue[int](e.store, "emails"), pgqrs.NewQueue[int](e.store, "parcels")
	enqueue(t, parcels, 1)
	equal(t, "policy that nobody has written", e.policy(t, "parcels"), pgqrs.PolicyInfo{})
	emails = emails.With(pgqrs.Policy{
		MaxAttempts: -1, Backoff: pgqrs.Exponential(time.Minute, time.Hour), Timeout: time.Minute, Concurrency: 3, Lease: time.Hour, Retention: -1,
		DeadLetter: `the "dead"`, MaxLeased: 7, Rate: pgqrs.Rate{N: 3, Per: time.Second},
		GroupConcurrency: 2, GroupRate: pgqrs.Rate{N: 10, Per: time.Minute}, SkipFailed: true,
	})
	handle := func(context.Context, *pgqrs.Message[int]) error { return nil }
	start(t, fast(emails.Handle(handle), parcels.Handle(handle)))
	eventually(t, "the policies are there", func() bool {
		return len(value(e.store.Queues(t.Context(), "emails"))(t)) == 1 && e.stats(t, "emails").Policy != pgqrs.PolicyInfo{}
	})
	equal(t, "policy of parcels", e.policy(t, "parcels"), pgqrs.PolicyInfo{MaxAttempts: 5, Backoff: "1s to 1h", Retention: week, GroupConcurrency: 1})
	equal(t, "policy of emails", e.policy(t, "emails"), pgqrs.PolicyInfo{
		MaxAttempts: -1, Backoff: "1m to 1h", Timeout: time.Minute, Concurrency: 3, Lease: time.Hour, Retention: -1,
		DeadLetter: `the "dead"`, MaxLeased: 7, Rate: pgqrs.Rate{N: 3, Per: time.Second},
		GroupConcurrency: 2, GroupRate: pgqrs.Rate{N: 10, Per: time.Minute}, SkipFailed: true,
	})
}

func policyConfigured(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "parcels")
	want := pgqrs.PolicyInfo{MaxAttempts: 5, Backoff: "1s to 1h", Retention: week, GroupConcurrency: 1}
	for _, held := range []int{3, 3, 0, 4} {
		must(t, q.With(pgqrs.Policy{MaxLeased: held}).Configure(t.Context()))
		want.MaxLeased = held
		equal(t, "policy", e.policy(t, "parcels"), want)
	}
	must(t, q.With(pgqrs.Policy{DeadLetter: "elsewhere"}).Configure(t.Context()))
	want.MaxLeased, want.DeadLetter = 0, "elsewhere"
	equal(t, "policy", e.policy(t, "parcels"), want)
	equal(t, "queues", len(value(e.store.Queues(t.Context()))(t)), 1)
}

func policyChanges(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "parcels")
	base := pgqrs.Policy{
		MaxAttempts: 3, Timeout: time.Minute, Lease: time.Hour, Retention: time.Hour, DeadLetter: "a", Concurrency: 2,
		MaxLeased: 7, Rate: pgqrs.Rate{N: 2, Per: 2 * time.Second}, GroupConcurrency: 2, GroupRate: pgqrs.Rate{N: 10, Per: 10 * time.Minute},
	}
	want := pgqrs.PolicyInfo{
		MaxAttempts: 3, Backoff: "1s to 1h", Timeout: time.Minute, Lease: time.Hour, Retention: time.Hour, DeadLetter: "a", Concurrency: 2,
		MaxLeased: 7, Rate: base.Rate, GroupConcurrency: 2, GroupRate: base.GroupRate,
	}
	for what, c := range map[string]struct {
		policy func(p *pgqrs.Policy)
		info   func(i *pgqrs.PolicyInfo)
	}{
		"MaxAttempts":               {func(p *pgqrs.Policy) { p.MaxAttempts = 4 }, func(i *pgqrs.PolicyInfo) { i.MaxAttempts = 4 }},
		"DeadLetter":                {func(p *pgqrs.Policy) { p.DeadLetter = "b" }, func(i *pgqrs.PolicyInfo) { i.DeadLetter = "b" }},
		"MaxLeased":                 {func(p *pgqrs.Policy) { p.MaxLeased = 8 }, func(i *pgqrs.PolicyInfo) { i.MaxLeased = 8 }},
		"Rate's interval":           {func(p *pgqrs.Policy) { p.Rate.Per *= 2 }, func(i *pgqrs.PolicyInfo) { i.Rate.Per *= 2 }},
		"Rate's burst":              {func(p *pgqrs.Policy) { p.Rate = pgqrs.Rate{N: 4, Per: 4 * time.Second} }, func(i *pgqrs.PolicyInfo) { i.Rate = pgqrs.Rate{N: 4, Per: 4 * time.Second} }},
		"GroupConcurrency":          {func(p *pgqrs.Policy) { p.GroupConcurrency = 3 }, func(i *pgqrs.PolicyInfo) { i.GroupConcurrency = 3 }},
		"GroupRate's interval":      {func(p *pgqrs.Policy) { p.GroupRate.Per *= 2 }, func(i *pgqrs.PolicyInfo) { i.GroupRate.Per *= 2 }},
		"GroupRate's burst":         {func(p *pgqrs.Policy) { p.GroupRate = pgqrs.Rate{N: 20, Per: 20 * time.Minute} }, func(i *pgqrs.PolicyInfo) { i.GroupRate = pgqrs.Rate{N: 20, Per: 20 * time.Minute} }},
		"SkipFailed":                {func(p *pgqrs.Policy) { p.SkipFailed = true }, func(i *pgqrs.PolicyInfo) { i.SkipFailed = true }},
		"no MaxLeased and no rates": {func(p *pgqrs.Policy) { p.MaxLeased, p.Rate, p.GroupRate = 0, pgqrs.Rate{}, pgqrs.Rate{} }, func(i *pgqrs.PolicyInfo) { i.MaxLeased, i.Rate, i.GroupRate = 0, pgqrs.Rate{}, pgqrs.Rate{} }},
	} {
		must(t, q.With(base).Configure(t.Context()))
		equal(t, "policy", e.policy(t, "parcels"), want)
		p, i := base, want
		c.policy(&p)
		c.info(&i)
		must(t, q.With(p).Configure(t.Context()))
		equal(t, "policy after a change of "+what, e.policy(t, "parcels"), i)
	}
}

func policyInTx(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "parcels").With(pgqrs.Policy{MaxLeased: 3})
	tx := value(e.db.BeginTx(t.Context(), nil))(t)
	must(t, q.WithTx(tx).Configure(t.Context()))
	must(t, tx.Rollback())
	equal(t, "queues after the rollback", len(value(e.store.Queues(t.Context()))(t)), 0)
	tx = value(e.db.BeginTx(t.Context(), nil))(t)
	must(t, q.WithTx(tx).Configure(t.Context()))
	must(t, tx.Commit())
	equal(t, "messages held at most after the commit", e.policy(t, "parcels").MaxLeased, 3)
}

func policyLease(t *testing.T, e *env) {
	long, short := pgqrs.NewQueue[int](e.store, "long").With(pgqrs.Policy{Lease: 3 * time.Hour}), pgqrs.NewQueue[int](e.store, "short")
	handle := func(ctx context.Context, _ *pgqrs.Message[int]) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	w := fast(long.Handle(handle), short.Handle(handle))
	w.Lease, w.Grace = 6*time.Second, time.Millisecond
	start(t, w)
	first, second := enqueue(t, long, 1), enqueue(t, short, 1)
	until := func(id int64) time.Time { return e.awaitState(t, id, pgqrs.Leased).LeasedUntil }
	early := until(second)
	if left := until(first).Sub(early); left < 2*time.Hour || left > 4*time.Hour {
		t.Errorf("the lease of the policy ends %v after the worker's; want 3 h", left)
	}
	firstEnd := until(first)
	eventually(t, "both leases are renewed, by what they are", func() bool {
		return until(first).After(firstEnd) && until(second).After(early) && until(second).Before(early.Add(time.Hour))
	})
}
