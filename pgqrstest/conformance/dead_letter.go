package conformance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var deadLetterCases = []testcase{
	{"a message that dies is copied to the queue its policy names, with where it comes from, and stays among the dead letters", "nobody would be told what died, or it could not be redriven", deadLetterCopy},
	{"every way to die leads there, by hand and in a worker", "what kills its process would die unheard", deadLetterWays},
	{"a run whose message dies ends, and is copied", "a workflow that kills its process would die unheard", deadLetterRun},
	{"a death in a transaction leaves its copy if and only if that commits", "one would be told of a death that never was", deadLetterTx},
	{"a holder that lost its lease copies nothing", "one would be told of the death of a message that lives", deadLetterLost},
	{"what dies in a dead-letter queue is not copied back to where it came from", "two queues would feed each other for ever", deadLetterLoop},
	{"a conflict leaves one copy", "one would be told twice", deadLetterConflict},
}

func mortal(e *env, name string) *pgqrs.Queue[int] {
	return pgqrs.NewQueue[int](e.store, name).With(pgqrs.Policy{MaxAttempts: 1, DeadLetter: "graveyard"})
}

// graves returns the messages of the dead-letter queue.
func (e *env) graves(t *testing.T) []pgqrs.MessageInfo {
	t.Helper()
	return value(e.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "graveyard", State: pgqrs.Ready}))(t)
}

func deadLetterCopy(t *testing.T, e *env) {
	q := mortal(e, "parcels")
	id := enqueue(t, q, 42, pgqrs.Priority(1), pgqrs.Key("k"), pgqrs.Headers(map[string]string{"lang": "en"}))
	must(t, q.Fail(t.Context(), fmt.Errorf(`no such "place"`), dequeueOne(t, q)))
	equal(t, "state of the message", e.info(t, id).State, pgqrs.Dead)
	graves := e.graves(t)
	equal(t, "copies", len(graves), 1)
	m := graves[0]
	sameJSON(t, m.Raw, "42")
	equal(t, "priority", m.Priority, 1)
	equal(t, "key", m.Key, "")
	equal(t, "attempts", m.Attempt, 0)
	for name, want := range map[string]string{
		"lang": "en", "dead-letter-queue": "parcels", "dead-letter-id": fmt.Sprint(id), "dead-letter-attempts": "1", "dead-letter-error": `no such "place"`,
	} {
		equal(t, "header "+name, m.Headers[name], want)
	}
	equal(t, "headers", len(m.Headers), 5)
	equal(t, "messages redriven", value(e.store.Redrive(t.Context(), id))(t), 1)
	equal(t, "state of the message", e.info(t, id).State, pgqrs.Ready)
	copied := dequeueOne(t, pgqrs.NewQueue[int](e.store, "graveyard"))
	equal(t, "payload of the copy", copied.Payload, 42)
	must(t, q.Ack(t.Context(), dequeueOne(t, q)))

	value(q.EnqueueBatch(t.Context(), []int{7}, pgqrs.Group("a"), pgqrs.Then(pgqrs.NewQueue[int](e.store, "then"), 8)))(t)
	m7 := dequeueOne(t, q)
	equal(t, "group", m7.Group, "a")
	must(t, q.Fail(t.Context(), pgqrs.Permanent(errBoom), m7))
	copied = dequeueOne(t, pgqrs.NewQueue[int](e.store, "graveyard"))
	equal(t, "payload of the copy", copied.Payload, 7)
	equal(t, "its group, which is another queue's", copied.Group, "")
	equal(t, "its batch, which has ended without it", copied.BatchID, int64(0))
}

func deadLetterWays(t *testing.T, e *env) {
	overdrawn := mortal(e, "overdrawn")
	enqueue(t, overdrawn, 1)
	dequeueOne(t, overdrawn)
	pgqrstest.Advance(t, e.store, time.Hour)
	equal(t, "messages past their last attempt", len(dequeue(t, overdrawn, 1)), 0)
	equal(t, "copies", len(e.graves(t)), 1)

	enqueue(t, pgqrs.NewQueue[string](e.store, "odd"), "no number")
	equal(t, "messages that do not decode", len(dequeue(t, mortal(e, "odd"), 1)), 0)
	equal(t, "copies", len(e.graves(t)), 2)

	var ids []int64
	for range 3 {
		ids = append(ids, enqueue(t, mortal(e, "failing"), 1))
	}
	start(t, fast(mortal(e, "failing").Handle(func(context.Context, *pgqrs.Message[int]) error { return errBoom })))
	for _, id := range ids {
		e.awaitState(t, id, pgqrs.Dead)
	}
	equal(t, "copies", len(e.graves(t)), 5)
}

func deadLetterRun(t *testing.T, e *env) {
	w := pgqrs.NewWorkflow[int, int](e.store, "doomed").With(pgqrs.Policy{MaxAttempts: 1, DeadLetter: "graveyard"})
	run := value(w.Start(t.Context(), 7))(t)
	dequeueOne(t, pgqrs.NewQueue[any](e.store, "doomed")) // and never answers
	pgqrstest.Advance(t, e.store, time.Hour)
	start(t, fast(w.Handle(func(context.Context, *pgqrs.Run, int) (int, error) { return 0, nil })))
	_, err := run.Result(t.Context())
	if err == nil {
		t.Fatal("the run succeeded")
	}
	graves := e.graves(t)
	equal(t, "copies", len(graves), 1)
	sameJSON(t, graves[0].Raw, `{"input": 7}`)
}

func deadLetterTx(t *testing.T, e *env) {
	q := mortal(e, "parcels")
	id := enqueue(t, q, 1)
	m := dequeueOne(t, q)
	for _, commits := range []bool{false, true} {
		tx := value(e.db.BeginTx(t.Context(), nil))(t)
		must(t, q.WithTx(tx).Fail(t.Context(), errBoom, m))
		if !commits {
			must(t, tx.Rollback())
			equal(t, "state after the rollback", e.info(t, id).State, pgqrs.Leased)
			equal(t, "copies after the rollback", len(e.graves(t)), 0)
			continue
		}
		must(t, tx.Commit())
	}
	equal(t, "state after the commit", e.info(t, id).State, pgqrs.Dead)
	equal(t, "copies after the commit", len(e.graves(t)), 1)
}

func deadLetterLost(t *testing.T, e *env) {
	q := mortal(e, "parcels")
	for i := range 2 {
		enqueue(t, q, i)
	}
	ms := dequeue(t, q, 2)
	must(t, q.Release(t.Context(), 0, ms[0]))
	wantError(t, q.Fail(t.Context(), errBoom, ms...), pgqrs.ErrLeaseLost)
	equal(t, "state of the one that was lost", e.info(t, ms[0].ID).State, pgqrs.Ready)
	graves := e.graves(t)
	equal(t, "copies", len(graves), 1)
	equal(t, "copied message", graves[0].Headers["dead-letter-id"], fmt.Sprint(ms[1].ID))
}

func deadLetterLoop(t *testing.T, e *env) {
	q := mortal(e, "parcels")
	enqueue(t, q, 1)
	must(t, q.Fail(t.Context(), errBoom, dequeueOne(t, q)))
	back := pgqrs.NewQueue[int](e.store, "graveyard").With(pgqrs.Policy{MaxAttempts: 1, DeadLetter: "parcels"})
	must(t, back.Fail(t.Context(), errBoom, dequeueOne(t, back)))
	equal(t, "messages that came back", e.stats(t, "parcels").Ready, 0)
	equal(t, "dead letters of dead letters", e.stats(t, "graveyard").Dead, 1)
}

func deadLetterConflict(t *testing.T, e *env) {
	store, net := e.farStore(t)
	q := mortal(e, "parcels")
	far := pgqrs.NewQueue[int](store, "parcels").With(pgqrs.Policy{MaxAttempts: 1, DeadLetter: "graveyard"})
	for n, tag := range []string{"pgqrs:message.fail", "pgqrs:queue.make", "pgqrs:message.dead_letter", "pgqrs:commit"} {
		enqueue(t, q, n)
		m := dequeueOne(t, q)
		net.fail(conflict(tag, nil))
		must(t, far.Fail(t.Context(), errBoom, m))
		net.heal()
		equal(t, "copies after a conflict in "+tag, len(e.graves(t)), n+1)
	}
}
