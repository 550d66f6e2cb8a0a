//go:build unix

package interop_test

import (
	"context"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

// differencesProofs prove effects of a mixed deployment that this library cannot change.
// docs/INTEROP.md lists them. If a proof fails here, the page is out of date.
var differencesProofs = []proof{
	{"a Python consumer that is slower than its lease loses the message to Go", slowPython},
	{"Python hides a message as long as it has an owner, whose lease has ended too", hidden},
	{"Python takes messages by when they were enqueued, and Go by priority", priorities},
	{"Python goes on with a queue that Go has paused", pausedQueue},
	{"Python cannot read a run that Go cancelled, nor any list with it", cancelled},
	{"Python starts a run that Go has paused", pausedRun},
	{"Python overwrites the end of a run that Go has ended", overwritten},
	{"integers beyond 64 bits are floats in Python, and numbers beyond 1e308 stop it on PostgreSQL", hugeNumbers},
	{"Python shows a payload's input in place of the payload", inputKey},
	{"Go deletes what either side archived when the queue's retention is over", retention},
}

func TestDifferences(t *testing.T) { proveShared(t, differencesProofs) }

func takeA(_ context.Context, _ *pgqrs.Run, in map[string]int) (int, error) { return in["a"], nil }

func nil1(context.Context, *pgqrs.Run, int) (int, error) { return 0, nil }

func slowPython(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	id := value(q.Enqueue(t.Context(), "x"))(t)
	p.py.run(t, `
		my.consumer = await my.store.consumer("jobs")
		[my.held] = await my.consumer.dequeue()
		assert await my.consumer.extend_vt(my.held.id, 60)  # from 30 to 90 s
	`, nil)
	pgqrstest.Advance(t, p.store, 60*time.Second)
	equal(t, "messages while it lasts", len(value(q.Dequeue(t.Context(), 1, time.Minute))(t)), 0)
	pgqrstest.Advance(t, p.store, 31*time.Second)
	ms := value(q.Dequeue(t.Context(), 1, time.Minute))(t)
	equal(t, "messages then", len(ms), 1)
	p.py.run(t, `assert not await my.consumer.archive(my.held.id)`, nil)
	must(t, q.Ack(t.Context(), ms...))
	equal(t, "state", p.message(t, id).State, pgqrs.Archived)
}

func hidden(t *testing.T, p *pair) {
	id, _ := p.abandon(t, "jobs")
	pgqrstest.Advance(t, p.store, time.Hour)
	p.py.run(t, `assert await (await my.store.consumer("jobs")).dequeue() == []`, nil)
	equal(t, "state", p.message(t, id).State, pgqrs.Ready)
}

func priorities(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	low := value(q.Enqueue(t.Context(), "first", pgqrs.Priority(-1)))(t)
	p.exec(t, map[pgqrs.Dialect]string{
		pgqrs.Postgres: `UPDATE pgqrs_messages SET enqueued_at = enqueued_at - interval '1 second'`,
		pgqrs.SQLite:   `UPDATE pgqrs_messages SET enqueued_at = strftime('%Y-%m-%d %H:%M:%f', enqueued_at, '-1 second')`,
	}[p.dialect])
	high := value(q.Enqueue(t.Context(), "second", pgqrs.Priority(2)))(t)
	equal(t, "what Python takes", do[int64](t, p.py, `
		my.consumer = await my.store.consumer("jobs")
		[m] = await my.consumer.dequeue()
		await my.consumer.release_messages([m.id])
		return m.id
	`, nil), low)
	equal(t, "what Go takes", value(q.Dequeue(t.Context(), 1, time.Minute))(t)[0].ID, high)
}

func pausedQueue(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	value(q.Enqueue(t.Context(), "x"))(t)
	must(t, p.store.PauseQueue(t.Context(), "jobs"))
	equal(t, "what Go takes", len(value(q.Dequeue(t.Context(), 1, time.Minute))(t)), 0)
	p.py.run(t, `[_] = await (await my.store.consumer("jobs")).dequeue()`, nil)
}

func cancelled(t *testing.T, p *pair) {
	p.makeWorkflow(t, "order")
	p.trigger(t, "order", order{"ink", 7})
	run := value(pgqrs.NewWorkflow[order, receipt](p.store, "order").Start(t.Context(), order{"pen", 1}))(t)
	p.py.run(t, `assert len(await (await my.store.get_workflow_runs()).list()) == 1`, nil)
	must(t, run.Cancel(t.Context()))
	p.py.fails(t, `await (await my.store.get_workflow_runs()).list()`, nil,
		map[pgqrs.Dialect]string{pgqrs.Postgres: "PgqrsConnectionError", pgqrs.SQLite: "InternalError"}[p.dialect], "CANCELLED")
}

func pausedRun(t *testing.T, p *pair) {
	run := value(pgqrs.NewWorkflow[order, receipt](p.store, "order").Start(t.Context(), order{"ink", 7}))(t)
	must(t, run.Pause(t.Context()))
	p.py.run(t, openRun, nil)
	equal(t, "status", value(run.Info(t.Context()))(t).Status, pgqrs.Running)
}

func overwritten(t *testing.T, p *pair) {
	run := value(pgqrs.NewWorkflow[order, receipt](p.store, "order").Start(t.Context(), order{"ink", 7}))(t)
	p.py.run(t, openRun, nil)
	pgqrstest.Advance(t, p.store, time.Minute) // the handler is slower than its lease
	p.work(t, pgqrs.NewWorkflow[order, receipt](p.store, "order").Handle(takeOrder))
	equal(t, "total", value(run.Result(soon(t)))(t).Total, 21)
	p.py.run(t, `await my.run.complete({"total": 1, "lines": []})`, nil)
	equal(t, "total then", value(run.Result(soon(t)))(t).Total, 1)
}

func hugeNumbers(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[any](p.store, "jobs")
	value(q.Enqueue(t.Context(), uint64(1<<64-1)))(t)
	p.py.run(t, `
		my.consumer = await my.store.consumer("jobs")
		[m] = await my.consumer.dequeue()
		assert type(m.payload) is float and m.payload == 2.0**64, repr(m.payload)
	`, nil)
	if p.dialect == pgqrs.Postgres {
		value(q.Enqueue(t.Context(), 1.7976931348623157e308))(t)
		id := value(q.Enqueue(t.Context(), "behind it"))(t)
		p.py.fails(t, `await my.consumer.dequeue()`, nil, "PgqrsConnectionError", "number out of range")
		equal(t, "state of the message before this one", p.message(t, id-1).State, pgqrs.Leased)
	}
}

func inputKey(t *testing.T, p *pair) {
	value(pgqrs.NewQueue[map[string]int](p.store, "jobs").Enqueue(t.Context(), map[string]int{"input": 1, "more": 2}))(t)
	equal(t, "payload", do[int](t, p.py, `return (await (await my.store.consumer("jobs")).dequeue())[0].payload`, nil), 1)
}

func retention(t *testing.T, p *pair) {
	p.makeQueue(t, "jobs")
	p.py.run(t, `
		await pgqrs.produce(my.store, "jobs", "x")
		async def take(m): pass
		await pgqrs.consume(my.store, "jobs", take)
	`, nil)
	equal(t, "archived", p.stats(t, "jobs").Archived, 1)
	pgqrstest.Advance(t, p.store, 8*24*time.Hour)
	p.work(t, pgqrs.NewQueue[string](p.store, "jobs").Handle(func(context.Context, *pgqrs.Message[string]) error { return nil }))
	eventually(t, "Go deletes it after a week", func() bool { return p.stats(t, "jobs").Archived == 0 })
}
