package conformance

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var foreignRunCases = []testcase{
	{"a run's message cannot be acked, released, failed, extended or deleted by a queue of the workflow's name", "a program with a queue of the same name would end the message, and the run would wait for ever", foreignHeld},
	{"a plain handler leaves messages of runs to the workflow's, uncounted", "a worker with a queue of the same name would ack runs that it knows nothing of", foreignHandler},
	{"a batch handler and HandleTx leave messages of runs to the workflow's", "a worker with a queue of the same name would ack runs that it knows nothing of", foreignHandlers},
	{"a plain handler that has begun before the workflow's first run leaves that", "whoever was first on a queue would take what comes later", foreignFirst},
	{"a run's message that a consumer cannot decode, or that is past its attempts, does not go to the dead letters", "a consumer of the wrong type would bury runs", foreignUnfit},
	{"messages of a plain consumer are settled beside those of runs", "one run would keep the plain messages of its queue from being done", foreignBeside},
	{"a run whose message was archived without it goes on", "a run would wait for ever after a plain consumer of an older release took its message", foreignArchived},
	{"a run whose message was archived without it goes on in its group", "a run in a group would wait for ever", foreignGrouped},
	{"a run whose message died or was deleted without it fails, and Retry lets it go on if there is a message", "whoever waits for its result would wait for ever", foreignDead},
	{"a run whose message ended a moment ago, or has not ended, is left alone", "a run would be executed again that pgqrs 0.15 is just about to end", foreignRecent},
}

// plainOrders returns a queue with the name of the workflow that most cases use.
func plainOrders(s *pgqrs.Store) *pgqrs.Queue[json.RawMessage] {
	return pgqrs.NewQueue[json.RawMessage](s, "orders")
}

func foreignHeld(t *testing.T, e *env) {
	h := e.run(t)
	q := plainOrders(e.newStore(t, pgqrs.Config{}))
	m := dequeueOne(t, q)
	for what, call := range map[string]func(context.Context) error{
		"Ack":     func(ctx context.Context) error { return q.Ack(ctx, m) },
		"Release": func(ctx context.Context) error { return q.Release(ctx, 0, m) },
		"Fail":    func(ctx context.Context) error { return q.Fail(ctx, pgqrs.Permanent(errors.New("no")), m) },
		"Extend":  func(ctx context.Context) error { return q.Extend(ctx, time.Hour, m) },
		"Delete":  func(ctx context.Context) error { return q.Delete(ctx, m) },
	} {
		err := call(t.Context())
		wantError(t, err, pgqrs.ErrState)
		wantText(t, "error of "+what, err.Error(), fmt.Sprint("message ", m.ID), fmt.Sprint("run ", h.ID()))
	}
	tx := value(e.db.BeginTx(t.Context(), nil))(t)
	err := q.WithTx(tx).Ack(t.Context(), m)
	must(t, tx.Rollback())
	wantError(t, err, pgqrs.ErrState)
	equal(t, "state", e.info(t, m.ID).State, pgqrs.Leased)
	pgqrstest.Advance(t, e.store, time.Minute)
	start(t, fast(sells(orders(e.store))))
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 20})
}

// leaves runs a worker of a plain handler. It fails the test unless the handler leaves a run alone
// and handles a message.
func (e *env) leaves(t *testing.T, h pgqrs.Handler, handled <-chan string) {
	t.Helper()
	run := e.run(t)
	stop := start(t, fast(h))
	eventually(t, "it says what it has met", func() bool { return e.log.has("messages belong to runs of a workflow of the queue's name") })
	enqueue(t, plainOrders(e.store), json.RawMessage(`"plain"`))
	equal(t, "payload", receive(t, "the plain message is handled", handled), `"plain"`)
	must(t, stop())
	r := e.runInfo(t, run.ID())
	equal(t, "status", r.Status, pgqrs.Queued)
	m := e.info(t, r.MessageID)
	equal(t, "state of its message", m.State, pgqrs.Scheduled)
	equal(t, "attempts", m.Attempt, 0)
	equal(t, "messages handled besides", len(handled), 0)
	pgqrstest.Advance(t, e.store, time.Minute)
	stop = start(t, fast(sells(orders(e.store))))
	equal(t, "result", value(run.Result(t.Context()))(t), receipt{"tea", 20})
	must(t, stop())
}

func foreignHandler(t *testing.T, e *env) {
	got := make(chan string, 10)
	e.leaves(t, plainOrders(e.newStore(t, pgqrs.Config{})).With(pgqrs.Policy{MaxAttempts: 1}).Handle(func(_ context.Context, m *pgqrs.Message[json.RawMessage]) error {
		got <- string(m.Payload)
		return nil
	}), got)
}

func foreignHandlers(t *testing.T, e *env) {
	got := make(chan string, 10)
	e.leaves(t, plainOrders(e.store).HandleBatch(func(_ context.Context, ms []*pgqrs.Message[json.RawMessage]) error {
		for _, m := range ms {
			got <- string(m.Payload)
		}
		return nil
	}, 10, 0), got)
	e.leaves(t, plainOrders(e.store).HandleTx(func(_ context.Context, _ *sql.Tx, m *pgqrs.Message[json.RawMessage]) error {
		got <- string(m.Payload)
		return nil
	}), got)
}

func foreignFirst(t *testing.T, e *env) {
	got := make(chan string, 10)
	w := named(plainOrders(e.store).Handle(func(_ context.Context, m *pgqrs.Message[json.RawMessage]) error {
		got <- string(m.Payload)
		return nil
	}))
	w.Lease = time.Hour // a heartbeat in two seconds
	start(t, w)
	enqueue(t, plainOrders(e.store), json.RawMessage(`"first"`))
	receive(t, "a plain message is handled", got)
	run := e.run(t)
	eventually(t, "the run is left", func() bool { return e.info(t, e.runInfo(t, run.ID()).MessageID).State == pgqrs.Scheduled })
	equal(t, "messages handled besides", len(got), 0)
}

func foreignUnfit(t *testing.T, e *env) {
	h := e.run(t)
	numbers := pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "orders")
	wantNone(t, numbers)
	m := e.info(t, e.runInfo(t, h.ID()).MessageID)
	equal(t, "state after a consumer that cannot decode it", m.State, pgqrs.Scheduled)
	equal(t, "attempts", m.Attempt, 0)
	pgqrstest.Advance(t, e.store, time.Minute)
	once := plainOrders(e.newStore(t, pgqrs.Config{})).With(pgqrs.Policy{MaxAttempts: 1})
	dequeueOne(t, once)
	pgqrstest.Advance(t, e.store, time.Minute)
	equal(t, "messages past their attempts", len(dequeue(t, once, 10)), 0)
	m = e.info(t, m.ID)
	equal(t, "state after a consumer past its attempts", m.State, pgqrs.Scheduled)
	equal(t, "attempts", m.Attempt, 1)
}

func foreignBeside(t *testing.T, e *env) {
	h := e.run(t)
	q := plainOrders(e.store)
	ids := value(q.EnqueueBatch(t.Context(), []json.RawMessage{json.RawMessage(`1`), json.RawMessage(`2`)}))(t)
	ms := dequeue(t, q, 10)
	equal(t, "messages", len(ms), 3)
	err := q.Ack(t.Context(), ms...)
	wantError(t, err, pgqrs.ErrState)
	if errors.Is(err, pgqrs.ErrLeaseLost) {
		t.Errorf("%v matches ErrLeaseLost too", err)
	}
	for _, id := range ids {
		equal(t, "state of a plain one", e.info(t, id).State, pgqrs.Archived)
	}
	equal(t, "state of the run's", e.info(t, e.runInfo(t, h.ID()).MessageID).State, pgqrs.Leased)
}

// endWithout ends the message of a run two minutes ago, as a program that does not know of runs
// would.
func (e *env) endWithout(t *testing.T, run int64, how string) {
	t.Helper()
	e.poke(t, "UPDATE pgqrs_messages SET archived_at = enqueued_at%s WHERE id = %d", how, e.runInfo(t, run).MessageID)
	pgqrstest.Advance(t, e.store, 2*time.Minute)
}

func foreignArchived(t *testing.T, e *env) {
	h, keyed := e.run(t), e.run(t, pgqrs.Key("k"))
	e.endWithout(t, h.ID(), "")
	e.endWithout(t, keyed.ID(), "")
	start(t, fast(sells(orders(e.store))))
	for _, run := range []*pgqrs.RunHandle[receipt]{h, keyed} {
		e.awaitRun(t, run.ID(), pgqrs.Succeeded)
	}
	equal(t, "whether it was said", e.log.has("a run had lost its message"), true)
}

func foreignGrouped(t *testing.T, e *env) {
	first, second := e.run(t, pgqrs.Group("g")), e.run(t, pgqrs.Group("g"))
	e.endWithout(t, first.ID(), "")
	start(t, fast(sells(orders(e.store))))
	for _, run := range []*pgqrs.RunHandle[receipt]{first, second} {
		e.awaitRun(t, run.ID(), pgqrs.Succeeded)
	}
}

func foreignDead(t *testing.T, e *env) {
	dead, gone, other := e.run(t), e.run(t), e.run(t)
	e.endWithout(t, dead.ID(), ", failed_at = enqueued_at, last_error = 'no such order'")
	e.poke(t, "DELETE FROM pgqrs_messages WHERE id = %d", e.runInfo(t, gone.ID()).MessageID)
	start(t, fast(sells(orders(e.store))))
	wantText(t, "error", e.awaitRun(t, dead.ID(), pgqrs.Failed).Error, "its message is dead: no such order")
	wantText(t, "error", e.awaitRun(t, gone.ID(), pgqrs.Failed).Error, "its message was deleted")
	equal(t, "result of another", value(other.Result(t.Context()))(t), receipt{"tea", 20})
	must(t, dead.Retry(t.Context()))
	equal(t, "result in the end", value(dead.Result(t.Context()))(t), receipt{"tea", 20})
}

func foreignRecent(t *testing.T, e *env) {
	h := e.run(t)
	e.poke(t, "UPDATE pgqrs_messages SET archived_at = enqueued_at WHERE id = %d", e.runInfo(t, h.ID()).MessageID)
	later := e.run(t, pgqrs.Delay(time.Hour))
	lost := e.run(t)
	e.poke(t, "DELETE FROM pgqrs_messages WHERE id = %d", e.runInfo(t, lost.ID()).MessageID)
	start(t, fast(sells(orders(e.store))))
	e.awaitRun(t, lost.ID(), pgqrs.Failed) // the check has been made
	equal(t, "state of what ended a moment ago", e.info(t, e.runInfo(t, h.ID()).MessageID).State, pgqrs.Archived)
	equal(t, "status", e.runInfo(t, h.ID()).Status, pgqrs.Queued)
	equal(t, "status of one that is to come", e.runInfo(t, later.ID()).Status, pgqrs.Queued)
}
