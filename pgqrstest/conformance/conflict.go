package conformance

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var conflictCases = []testcase{
	{"an enqueue that meets a conflict stores its messages once, and returns their ids", "a batch would be lost while its ids say that it was stored", conflictEnqueue},
	{"an enqueue that loses its key in a conflict returns who has it", "the id of a message that never was would be taken for the first one's", conflictKey},
	{"a claim that meets a conflict returns only what it holds", "two consumers would work on one message", conflictClaim},
	{"an Observer is told of a start only once it is there", "a counter would count runs that a conflict undid", conflictStart},
	{"a run that is lost in a conflict as it begins is not executed", "two workers would execute one run", conflictBegin},
	{"HandleTx and StepTx that meet a conflict at their COMMIT have their effect once, and count one attempt", "an effect would happen twice, or a conflict pass for a failure", conflictTx},
	{"an enqueue that is under way while its queue is dropped is stored all the same", "a message would hang on a queue that is gone, unseen for ever", conflictDrop},
	{"a consumer whose row goes in a conflict makes it anew", "it would wait beside a full queue", conflictRow},
}

func conflictEnqueue(t *testing.T, e *env) {
	var told [][]int64
	store, net := e.farStoreWith(t, pgqrs.Config{Observer: &pgqrs.Observer{
		Enqueued: func(_ context.Context, _ string, ids []int64) { told = append(told, ids) },
	}})
	q := pgqrs.NewQueue[any](store, "jobs")
	enqueue[any](t, q, 0)
	told = nil
	keys := pgqrs.Each(func(i int) []pgqrs.Option { return []pgqrs.Option{pgqrs.Key(fmt.Sprint(i))} })
	for _, c := range []struct {
		tag   string
		items []any
		opts  []pgqrs.Option
	}{
		{"pgqrs:message.enqueue", []any{1}, nil},
		{"pgqrs:message.enqueue", []any{2}, []pgqrs.Option{pgqrs.Key("two")}},
		{"pgqrs:message.batch_enqueue", []any{[]int{3}, []int{4}, []int{5}}, nil},
		{"pgqrs:message.mixed_enqueue", []any{6, 7, 8}, []pgqrs.Option{keys}},
	} {
		net.fail(conflict(c.tag, nil))
		ids := value(q.EnqueueBatch(t.Context(), c.items, c.opts...))(t)
		equal(t, "number of ids", len(ids), len(c.items))
		for i, id := range ids {
			equal(t, "payload", string(e.info(t, id).Raw), fmt.Sprint(c.items[i]))
		}
		equal(t, "times the Observer is told", len(told), 1)
		slices.Sort(told[0])
		equalSlices(t, "ids that the Observer is told", told[0], ids)
		told = nil
	}
	equal(t, "messages", e.stats(t, "jobs").Ready, 9)
}

func conflictKey(t *testing.T, e *env) {
	store, net := e.farStore(t)
	far, near := pgqrs.NewQueue[string](store, "jobs"), jobs(e)
	enqueue(t, near, "makes the queue")
	var first int64
	net.fail(conflict("pgqrs:message.enqueue", func() { first = enqueue(t, near, "near", pgqrs.Key("k")) }))
	equal(t, "id", enqueue(t, far, "far", pgqrs.Key("k")), first)
	net.fail(conflict("pgqrs:message.mixed_enqueue", func() { first = enqueue(t, near, "near", pgqrs.Key("l")) }))
	ids, err := far.EnqueueBatch(t.Context(), []string{"a", "far", "b"}, pgqrs.Each(func(i int) []pgqrs.Option {
		if i != 1 {
			return nil
		}
		return []pgqrs.Option{pgqrs.Unique("l")}
	}))
	wantError(t, err, pgqrs.ErrDuplicate)
	equal(t, "id of the one that is taken", ids[1], first)
	equal(t, "payload", string(e.info(t, ids[0]).Raw), `"a"`)
	equal(t, "payload", string(e.info(t, ids[2]).Raw), `"b"`)

	// The first message of a key may be gone before its id is known.
	net.fail(conflict("pgqrs:message.keyed", func() { value(e.store.Delete(t.Context(), first))(t) }))
	id := enqueue(t, far, "again", pgqrs.Key("l"))
	equal(t, "payload", string(e.info(t, id).Raw), `"again"`)
}

func conflictClaim(t *testing.T, e *env) {
	store, net := e.farStore(t)
	far, near := pgqrs.NewQueue[string](store, "jobs"), jobs(e)
	value(near.EnqueueBatch(t.Context(), []string{"a", "b", "c", "d"}))(t)
	var other []*pgqrs.Message[string]
	net.fail(conflict("pgqrs:message.claim", func() { other = dequeue(t, near, 2) }))
	equalSlices(t, "messages of the one", payloads(dequeue(t, far, 2)), []string{"c", "d"})
	equalSlices(t, "messages of the other", payloads(other), []string{"a", "b"})
}

func conflictStart(t *testing.T, e *env) {
	var told []int64
	store, net := e.farStoreWith(t, pgqrs.Config{Observer: &pgqrs.Observer{
		Enqueued: func(_ context.Context, _ string, ids []int64) { told = append(told, ids...) },
	}})
	for _, tag := range []string{"pgqrs:run.start|pgqrs:run.insert", "pgqrs:run.start|pgqrs:commit"} {
		told = nil
		net.fail(conflict(tag, nil))
		h := value(orders(store).Start(t.Context(), order{}))(t)
		equalSlices(t, "messages that the Observer is told", told, []int64{e.runInfo(t, h.ID()).MessageID})
	}
	equal(t, "runs", len(e.runIDs(t, pgqrs.RunFilter{})), 2)
	equal(t, "messages", e.stats(t, "orders").Ready, 2)
}

func conflictBegin(t *testing.T, e *env) {
	store, net := e.farStore(t)
	h := e.run(t)
	net.fail(conflict("pgqrs:run.begin", func() { e.loseRun(t, h.ID()) }))
	var calls tally[int]
	start(t, fast(play(store, func(_ context.Context, _ *pgqrs.Run, execution int) (receipt, error) {
		calls.add(execution)
		return receipt{}, nil
	})))
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	equal(t, "attempts", e.info(t, e.runInfo(t, h.ID()).MessageID).Attempt, 2)
	equalSlices(t, "executions", calls.all(), []int{1})
}

func conflictTx(t *testing.T, e *env) {
	count := e.effects(t)
	store, net := e.farStore(t)
	q := pgqrs.NewQueue[int](store, "orders by hand")
	var handled, booked gauge
	net.fail(conflict(txCommit, nil))
	start(t, fast(q.With(atOnce(1)).HandleTx(func(ctx context.Context, tx *sql.Tx, _ *pgqrs.Message[int]) error {
		handled.add(1)
		_, err := tx.ExecContext(ctx, effect)
		return err
	})))
	equal(t, "attempts", e.awaitState(t, enqueue(t, q, 1), pgqrs.Archived).Attempt, 1)
	times, _ := handled.read()
	equal(t, "calls of the handler", times, 2)
	equal(t, "effects", count(), 1)

	net.fail(conflict(txCommit, nil))
	h := e.run(t)
	start(t, fast(play(store, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		return receipt{}, run.With(atOnce(1)).DoTx(ctx, "book", func(ctx context.Context, tx *sql.Tx) error {
			booked.add(1)
			return book(ctx, tx)
		})
	})))
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	times, _ = booked.read()
	equal(t, "calls of the step", times, 2)
	equal(t, "effects", count(), 2)
	equal(t, "retries of the step", e.step(t, h.ID(), "book").Retries, 0)
}

func conflictDrop(t *testing.T, e *env) {
	store, net := e.farStore(t)
	q := pgqrs.NewQueue[string](store, "jobs")
	value(e.store.Delete(t.Context(), enqueue(t, q, "makes the queue")))(t)
	tag := "pgqrs:message.enqueue"
	if e.config.Concurrent {
		tag = "pgqrs:commit"
	}
	net.just(tag, func() { must(t, e.store.DropQueue(t.Context(), "jobs")) })
	id := enqueue(t, q, "x")
	equal(t, "state", e.info(t, id).State, pgqrs.Ready)
	equal(t, "id", dequeueOne(t, q).ID, id)
}

func conflictRow(t *testing.T, e *env) {
	store, net := e.farStore(t)
	q := pgqrs.NewQueue[string](store, "jobs")
	enqueue(t, q, "x")
	must(t, q.Ack(t.Context(), dequeueOne(t, q)))
	net.fail(conflict("pgqrs:worker.heartbeat", func() {
		e.poke(t, "DELETE FROM pgqrs_workers")
		enqueue(t, jobs(e), "meanwhile")
	}))
	ms := value(q.Dequeue(t.Context(), 1, time.Minute))(t)
	equalSlices(t, "payloads", payloads(ms), []string{"meanwhile"})
}
