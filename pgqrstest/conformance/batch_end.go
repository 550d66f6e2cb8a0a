package conformance

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var batchEndCases = []testcase{
	{"the message that waits for a batch comes when all of it is done, and tells how it went", "an application would have to count for itself", batchEndDone},
	{"it comes once, whoever ends the batch, and when", "an invoice would go out twice, or never", batchEndOnce},
	{"in the caller's transaction batch and message are there if and only if it commits", "a message would wait for a batch that never was", batchEndInTx},
	{"its delay counts beside the batch", "a report would go out before the hour that was promised", batchEndDelayed},
	{"a batch of which every key is taken is done at once", "the message would wait for ever", batchEndKeyed},
	{"a dead message that is redriven is waited for again, but nothing is told twice", "a report would be sent for each repair", batchEndRedriven},
	{"a batch whose message has gone is not looked at again and again", "each repair of a dead message would cost twenty transactions", batchEndGone},
	{"messages of a batch may have groups", "order and a common end would exclude each other", batchEndGrouped},
	{"a batch that is done, but whose message still waits, is found by maintenance", "a process that died at the wrong time would hold back the message for ever", batchEndSwept},
	{"maintenance leaves batches that are open, and blocked messages of groups", "a thousand open batches would hide one that is done", batchEndOpen},
	{"archived messages are counted however long the batch takes", "what retention deletes would be missing from the result", batchEndRetained},
	{"Purge spares messages of a batch that is waited for, and takes them when its message has gone", "an operator who clears the history would take them from the result", batchEndPurged},
	{"what cannot be is refused", "a mistake would show only when the message does not come", batchEndRefused},
}

// A fan is a batch in the queue jobs, and its batch callback in the queue reports.
type fan struct {
	*env
	jobs, reports *pgqrs.Queue[string]
	ids           []int64
}

func (e *env) fan(t *testing.T, n int, opts ...pgqrs.Option) *fan {
	t.Helper()
	f := &fan{env: e, jobs: jobs(e), reports: pgqrs.NewQueue[string](e.store, "reports")}
	opts = append(opts, pgqrs.Then(f.reports, "report"))
	f.ids = value(f.jobs.EnqueueBatch(t.Context(), make([]string, n), opts...))(t)
	return f
}

// wantReport fails the test unless the batch callback has arrived, and nothing after it.
func (f *fan) wantReport(t *testing.T, done, dead int64) {
	t.Helper()
	m := dequeueOne(t, f.reports)
	equal(t, "payload", m.Payload, "report")
	equal(t, "result", m.Batch, pgqrs.BatchResult{Done: done, Dead: dead})
	equal(t, "headers", len(m.Headers), 0)
	must(t, f.reports.Ack(t.Context(), m))
	wantNone(t, f.reports)
}

func batchEndDone(t *testing.T, e *env) {
	f := e.fan(t, 5)
	s := e.stats(t, "reports")
	equalSlices(t, "ready, scheduled, blocked", []int64{s.Ready, s.Scheduled, s.Blocked}, []int64{0, 0, 1})
	blocked := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "reports", State: pgqrs.Blocked}))(t)
	equal(t, "messages that wait", len(blocked), 1)
	ms := dequeue(t, f.jobs, 10)
	equal(t, "batch of a message", ms[0].BatchID, blocked[0].ID)
	must(t, f.jobs.Ack(t.Context(), ms[0], ms[1]))
	kill(t, f.jobs, ms[2])
	must(t, f.jobs.Delete(t.Context(), ms[3]))
	must(t, f.jobs.Release(t.Context(), 0, ms[4]))
	wantNone(t, f.reports)
	equal(t, "deleted", value(e.store.Delete(t.Context(), f.ids[4]))(t), 1)
	f.wantReport(t, 2, 1)
}

func batchEndOnce(t *testing.T, e *env) {
	const batches, each = 5, 8
	work := func(context.Context, *pgqrs.Message[int]) error {
		switch rand.N(6) {
		case 0:
			return errors.New("not yet")
		case 1:
			return pgqrs.Permanent(errors.New("never"))
		}
		return nil
	}
	var told tally[int64]
	report := func(_ context.Context, m *pgqrs.Message[int]) error {
		told.add(m.Batch.Done + m.Batch.Dead)
		return nil
	}
	for _, s := range []*pgqrs.Store{e.store, e.newStore(t, pgqrs.Config{})} {
		q, r := pgqrs.NewQueue[int](s, "jobs").With(atOnce(-1)), pgqrs.NewQueue[int](s, "reports")
		start(t, fast(q.Handle(work), r.Handle(report)))
		start(t, fast(q.Handle(work), r.Handle(report)))
	}
	q, r := pgqrs.NewQueue[int](e.store, "jobs"), pgqrs.NewQueue[int](e.store, "reports")
	for range batches {
		value(q.EnqueueBatch(t.Context(), make([]int, each), pgqrs.Then(r, 0)))(t)
	}
	eventually(t, "all batches are done", func() bool { return told.len() >= batches })
	eventually(t, "nothing is left", func() bool {
		s := e.stats(t, "reports")
		return s.Ready+s.Scheduled+s.Leased+s.Blocked == 0
	})
	equalSlices(t, "messages that had ended", told.all(), []int64{each, each, each, each, each})
}

func batchEndInTx(t *testing.T, e *env) {
	eachTx(e, func(tx *callerTx) {
		q, reports := jobs(e), pgqrs.NewQueue[string](e.store, "reports")
		bound := q.WithTx(tx.begin(t))
		ids := value(bound.EnqueueBatch(t.Context(), []string{"a", "b"}, pgqrs.Then(reports, "report")))(t)
		tx.end(t)
		f := &fan{env: e, jobs: q, reports: reports, ids: ids}
		if !tx.commit {
			wantNone(t, q)
			if qs := value(e.store.Queues(t.Context(), "reports"))(t); len(qs) > 0 {
				equal(t, "messages that wait", qs[0].Blocked, 0)
			}
			return
		}
		ms := dequeue(t, q, 10)
		must(t, q.Ack(t.Context(), ms[0]))
		last := &callerTx{e: e, pinned: tx.pinned, commit: true}
		must(t, q.WithTx(last.begin(t)).Ack(t.Context(), ms[1]))
		last.end(t)
		f.wantReport(t, 2, 0)
	})
}

func batchEndDelayed(t *testing.T, e *env) {
	past := e.fan(t, 1, pgqrs.At(time.Now().Add(-time.Hour)))
	if m := dequeueOne(t, past.jobs); m.DueAt.Before(m.EnqueuedAt) {
		t.Errorf("a message of the past is due %v before it was enqueued", m.EnqueuedAt.Sub(m.DueAt))
	} else {
		must(t, past.jobs.Ack(t.Context(), m))
		past.wantReport(t, 1, 0)
	}
	q, reports := jobs(e), pgqrs.NewQueue[string](e.store, "reports")
	value(q.EnqueueBatch(t.Context(), []string{"a"}, pgqrs.Then(reports, "report", pgqrs.Delay(time.Hour), pgqrs.Headers(map[string]string{"a": "b"}))))(t)
	must(t, q.Ack(t.Context(), dequeueOne(t, q)))
	wantNone(t, reports)
	equal(t, "scheduled", e.stats(t, "reports").Scheduled, 1)
	pgqrstest.Advance(t, e.store, 2*time.Hour)
	m := dequeueOne(t, reports)
	equal(t, "header", m.Headers["a"], "b")
	equal(t, "done", m.Batch.Done, 1)
}

func batchEndKeyed(t *testing.T, e *env) {
	q := jobs(e)
	first := enqueue(t, q, "first", pgqrs.Key("k"))
	f := e.fan(t, 1, pgqrs.Key("k"))
	equal(t, "id", f.ids[0], first)
	f.wantReport(t, 0, 0)
}

func batchEndRedriven(t *testing.T, e *env) {
	f := e.fan(t, 2)
	ms := dequeue(t, f.jobs, 10)
	kill(t, f.jobs, ms[0])
	equal(t, "redriven", value(e.store.Redrive(t.Context(), ms[0].ID))(t), 1)
	must(t, f.jobs.Ack(t.Context(), ms[1]))
	wantNone(t, f.reports)
	kill(t, f.jobs, dequeueOne(t, f.jobs))
	report := dequeueOne(t, f.reports)
	equal(t, "result", report.Batch, pgqrs.BatchResult{Done: 1, Dead: 1})
	equal(t, "redriven", value(e.store.Redrive(t.Context(), ms[0].ID))(t), 1)
	kill(t, f.jobs, dequeueOne(t, f.jobs)) // while the report is being handled
	wantNone(t, f.reports)
	must(t, f.reports.Ack(t.Context(), report))
	equal(t, "redriven", value(e.store.Redrive(t.Context(), ms[0].ID))(t), 1)
	must(t, f.jobs.Ack(t.Context(), dequeueOne(t, f.jobs)))
	wantNone(t, f.reports)
}

func batchEndGone(t *testing.T, e *env) {
	store, net := e.farStore(t)
	f := (&env{store: store, db: e.db, dialect: e.dialect, log: e.log}).fan(t, 1)
	m := dequeueOne(t, f.jobs)
	kill(t, f.jobs, m)
	f.wantReport(t, 0, 1)
	equal(t, "redriven", value(store.Redrive(t.Context(), m.ID))(t), 1)
	var looks atomic.Int64
	net.fail(func(text string) fault {
		if strings.Contains(text, "pgqrs:batch.try_lock") {
			looks.Add(1)
		}
		return none
	})
	must(t, f.jobs.Ack(t.Context(), dequeueOne(t, f.jobs)))
	id := enqueue(t, f.jobs, "half a second later", pgqrs.Delay(time.Second/2))
	e.awaitState(t, id, pgqrs.Ready)
	equal(t, "looks at the batch", looks.Load(), 1)
}

func batchEndGrouped(t *testing.T, e *env) {
	f := e.fan(t, 3, pgqrs.Group("a"))
	for range 3 {
		wantNone(t, f.reports)
		m := dequeueOne(t, f.jobs)
		equal(t, "group", m.Group, "a")
		must(t, f.jobs.Ack(t.Context(), m))
	}
	f.wantReport(t, 3, 0)
}

func batchEndSwept(t *testing.T, e *env) {
	f := e.fan(t, 3)
	value(pgqrs.NewQueue[string](e.store, "jobs").EnqueueBatch(t.Context(), []string{"open"}, pgqrs.Then(f.reports, "early")))(t)
	e.poke(t, "UPDATE pgqrs_messages SET archived_at = enqueued_at WHERE id <= %d AND batch_id IS NOT NULL", f.ids[2]) // as pgqrs 0.15 would
	h, told := handling(f.reports)
	start(t, fast(h))
	equal(t, "payload", receive(t, "the report", told), "report")
	equal(t, "the other batch's message", e.stats(t, "reports").Blocked, 1)
}

func batchEndOpen(t *testing.T, e *env) {
	f := e.fan(t, 2)
	grouped(t, f.reports, "a", "head", "next")
	equal(t, "payload", dequeueOne(t, f.reports).Payload, "head")
	store, net := e.farStore(t)
	var looks, pruned atomic.Int64
	net.fail(func(text string) fault {
		switch {
		case strings.Contains(text, "pgqrs:batch.try_lock"):
			looks.Add(1)
		case strings.Contains(text, "pgqrs:group.prune"): // it comes after the sweep
			pruned.Add(1)
		}
		return none
	})
	h, _ := handling(pgqrs.NewQueue[string](store, "reports"))
	start(t, fast(h))
	eventually(t, "maintenance has been done", func() bool { return pruned.Load() > 0 })
	equal(t, "looks at batches", looks.Load(), 0)
}

func batchEndRetained(t *testing.T, e *env) {
	f := e.fan(t, 2)
	free := enqueue(t, f.jobs, "free")
	ms := dequeue(t, f.jobs, 10)
	must(t, f.jobs.Ack(t.Context(), ms[0], ms[2]))
	pgqrstest.Advance(t, e.store, 2*time.Hour)
	last := dequeueOne(t, f.jobs) // again, so that the batch is not done
	h, _ := handling(f.jobs.With(pgqrs.Policy{Retention: time.Hour}))
	start(t, fast(h))
	eventually(t, "what is in no batch is deleted", func() bool { return e.view(t, free) == "none" })
	must(t, f.jobs.Ack(t.Context(), last))
	f.wantReport(t, 2, 0)
}

func batchEndPurged(t *testing.T, e *env) {
	f := e.fan(t, 3)
	ms := dequeue(t, f.jobs, 3)
	must(t, f.jobs.Ack(t.Context(), ms[0]))
	kill(t, f.jobs, ms[1])
	for _, state := range []pgqrs.MessageState{pgqrs.Archived, pgqrs.Dead} {
		equal(t, "purged while the batch is waited for", value(e.store.Purge(t.Context(), "jobs", state))(t), 0)
	}
	must(t, f.jobs.Ack(t.Context(), ms[2]))
	f.wantReport(t, 2, 1)
	for state, want := range map[pgqrs.MessageState]int64{pgqrs.Archived: 2, pgqrs.Dead: 1} {
		equal(t, "purged afterwards", value(e.store.Purge(t.Context(), "jobs", state))(t), want)
	}
}

func batchEndRefused(t *testing.T, e *env) {
	q, reports := jobs(e), pgqrs.NewQueue[string](e.store, "reports")
	then := func(opts ...pgqrs.Option) error {
		_, err := q.EnqueueBatch(t.Context(), []string{"a"}, pgqrs.Then(reports, "report", opts...))
		return err
	}
	for _, opt := range []pgqrs.Option{pgqrs.Key("k"), pgqrs.Unique("k"), pgqrs.Group("g"), pgqrs.Then(reports, "again")} {
		wantErrorText(t, then(opt), "waits for a batch has no Key")
	}
	wantErrorText(t, then(pgqrs.Delay(-1)), "negative delay")
	_, err := q.EnqueueBatch(t.Context(), []string{"a"}, pgqrs.Then(reports, "1"), pgqrs.Then(reports, "2"))
	wantErrorText(t, err, "two Thens")
	_, err = q.EnqueueBatch(t.Context(), []string{"a"}, pgqrs.Each(func(int) []pgqrs.Option { return []pgqrs.Option{pgqrs.Then(reports, "1")} }))
	wantErrorText(t, err, "for all of a batch")
	other := pgqrs.NewQueue[string](e.newStore(t, pgqrs.Config{}), "reports")
	_, err = q.EnqueueBatch(t.Context(), []string{"a"}, pgqrs.Then(other, "report"))
	wantError(t, err, pgqrs.ErrUnsupported)
	_, err = q.EnqueueBatch(t.Context(), []string{"a"}, pgqrs.Then(pgqrs.NewQueue[string](e.store, ""), "report"))
	wantErrorText(t, err, "empty queue name")
	_, err = pgqrs.NewWorkflow[int, int](e.store, "flow").Start(t.Context(), 1, pgqrs.Then(reports, "report"))
	wantError(t, err, pgqrs.ErrUnsupported)
	wantNone(t, q)
}
