//go:build unix

package interop_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var workersProofs = []proof{
	{"each side lists the other's workers, with the same queue and status", lists},
	{"Go suspends a polling Python worker, and resumes it", suspendPython},
	{"Go interrupts a polling Python worker", interruptPython},
	{"a Go Worker obeys what pgqrs writes: suspended, resumed, interrupted and stopped", obey},
	{"what a dead Go worker held, Python takes after a Go Worker's maintenance", deadGo},
	{"what a dead Go worker held, Python takes at once after release_worker_messages", deadGoReleased},
	{"what a killed Python process held, Go takes when its lease ends", deadPython},
	{"a Go Worker that pgqrs reclaimed because it was silent comes back", reclaimed},
	{"a Go Worker that was stopped by StopWorker while it was silent stays stopped", stoppedSilent},
	{"a Python worker that is silent while it is busy is left alone by Go's maintenance", busyPython},
	{"Go deletes old messages and workers of a shared database without breaking its references", pruned},
	{"Purge, Delete and DropQueue leave nothing that refers to what they deleted", dropped},
}

func TestWorkers(t *testing.T) { proveShared(t, workersProofs) }

// workerOf returns the row of a queue's only worker with a status.
func (p *pair) workerOf(t *testing.T, queue string, status pgqrs.WorkerState) pgqrs.WorkerInfo {
	t.Helper()
	var found pgqrs.WorkerInfo
	eventually(t, "a worker of "+queue+" is "+string(status), func() bool {
		for _, w := range value(p.store.Workers(t.Context()))(t) {
			if w.Queue == queue && w.State == status {
				found = w
				return true
			}
		}
		return false
	})
	return found
}

func (p *pair) worker(t *testing.T, id int64) pgqrs.WorkerInfo {
	t.Helper()
	for _, w := range value(p.store.Workers(t.Context()))(t) {
		if w.ID == id {
			return w
		}
	}
	return pgqrs.WorkerInfo{}
}

func (p *pair) awaitStatus(t *testing.T, id int64, status pgqrs.WorkerState) {
	t.Helper()
	eventually(t, "the worker is "+string(status), func() bool { return p.worker(t, id).State == status })
}

// poll starts a Python worker that polls a queue. It keeps its messages in my.got, and its result
// in my.task.
const poll = `
	my.got = []
	my.consumer = await my.store.consumer(queue)
	async def handle(m):
		my.got.append(m.payload)
	async def poll():
		await pgqrs.dequeue().worker(my.consumer).poll_interval(20).handle(handle).poll(my.store)
	my.task = asyncio.create_task(poll())
	return my.consumer.worker_id
`

func lists(t *testing.T, p *pair) {
	p.makeQueue(t, "jobs")
	stop := p.work(t, pgqrs.NewQueue[string](p.store, "jobs").Handle(func(context.Context, *pgqrs.Message[string]) error { return nil }))
	mine := p.workerOf(t, "jobs", "polling")
	theirs := do[int64](t, p.py, `
		workers = {w.id: w for w in await (await my.store.get_workers()).list()}
		assert workers[id].name == name and workers[id].queue_id == queue, workers[id].name
		assert workers[id].status == pgqrs.WorkerStatus.Polling, workers[id].status
		my.consumer = await my.store.consumer("jobs")
		return my.consumer.worker_id
	`, args{"id": mine.ID, "name": mine.Name, "queue": p.stats(t, "jobs").ID})
	w := p.worker(t, theirs)
	equal(t, "queue", w.Queue, "jobs")
	equal(t, "status", w.State, "ready")
	equal(t, "whether it has a heartbeat", time.Since(w.HeartbeatAt) < time.Hour, true)
	stop()
	p.py.run(t, `assert (await (await my.store.get_workers()).get(id)).status == pgqrs.WorkerStatus.Stopped`, args{"id": mine.ID})
}

func suspendPython(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	value(q.Enqueue(t.Context(), "first"))(t)
	id := do[int64](t, p.py, poll, args{"queue": "jobs"})
	eventually(t, "Python handles it", func() bool { return p.stats(t, "jobs").Archived == 1 })
	must(t, p.store.SuspendWorker(t.Context(), id))
	p.py.eventually(t, "its loop ends, as pgqrs has it", `return my.task.done() and "suspended" in str(my.task.exception())`, nil)
	p.py.run(t, `assert await my.consumer.status() == pgqrs.WorkerStatus.Suspended`, nil)
	equal(t, "Go's mark on Python's worker", p.query(t, `SELECT go_state FROM pgqrs_workers WHERE id = `+sqlInt(id)), "")
	must(t, p.store.ResumeWorker(t.Context(), id))
	value(q.Enqueue(t.Context(), "second"))(t)
	p.py.run(t, `
		async def again():
			await pgqrs.dequeue().worker(my.consumer).poll_interval(20).handle(lambda m: asyncio.sleep(0)).poll(my.store)
		my.task = asyncio.create_task(again())
	`, nil)
	eventually(t, "Python handles the second", func() bool { return p.stats(t, "jobs").Archived == 2 })
}

func interruptPython(t *testing.T, p *pair) {
	p.makeQueue(t, "jobs")
	id := do[int64](t, p.py, poll, args{"queue": "jobs"})
	p.awaitStatus(t, id, "polling")
	must(t, p.store.InterruptWorker(t.Context(), id))
	p.py.eventually(t, "its loop ends", `return my.task.done() and "interrupted" in str(my.task.exception())`, nil)
	p.awaitStatus(t, id, "suspended")
}

func obey(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	var got box[string]
	done := make(chan error, 1)
	go func() { done <- (&pgqrs.Worker{Handlers: []pgqrs.Handler{q.Handle(got.handle)}}).Run(t.Context()) }()
	id := p.workerOf(t, "jobs", "polling").ID
	// These are statements of pgqrs. Python has no call that does this to another process's worker.
	move := func(to, from string) {
		t.Helper()
		p.exec(t, `UPDATE pgqrs_workers SET status = '`+to+`' WHERE status IN (`+from+`)`)
		equal(t, "status", p.worker(t, id).State, pgqrs.WorkerState(to))
	}
	move("suspended", `'ready', 'polling', 'interrupted'`)
	value(q.Enqueue(t.Context(), "x"))(t)
	p.py.run(t, `assert (await (await my.store.get_workers()).get(id)).status == pgqrs.WorkerStatus.Suspended`, args{"id": id})
	move("ready", `'suspended'`)
	eventually(t, "it goes on", func() bool { return len(got.all()) == 1 })
	p.awaitStatus(t, id, "polling")
	move("interrupted", `'polling'`)
	p.awaitStatus(t, id, "suspended")
	p.py.run(t, `assert (await (await my.store.get_workers()).get(id)).status == pgqrs.WorkerStatus.Suspended`, args{"id": id})
	now := map[pgqrs.Dialect]string{pgqrs.Postgres: `now()`, pgqrs.SQLite: `strftime('%Y-%m-%d %H:%M:%f', 'now')`}[p.dialect]
	p.exec(t, `UPDATE pgqrs_workers SET status = 'stopped', shutdown_at = `+now+` WHERE status = 'suspended'`)
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("Run goes on after its row was stopped")
	}
}

// abandon enqueues a message and leases it for a minute to the worker of a Go process that is gone.
// It returns the ids of the message and of the worker.
func (p *pair) abandon(t *testing.T, queue string) (id, worker int64) {
	t.Helper()
	q := pgqrs.NewQueue[string](p.newStore(t, pgqrs.Config{}), queue)
	id = value(q.Enqueue(t.Context(), "abandoned"))(t)
	m := value(q.Dequeue(t.Context(), 1, time.Minute))(t)
	equal(t, "messages", len(m), 1)
	return id, m[0].WorkerID
}

func deadGo(t *testing.T, p *pair) {
	id, worker := p.abandon(t, "jobs")
	p.py.run(t, `my.consumer = await my.store.consumer("jobs")`, nil)
	pgqrstest.Advance(t, p.store, 2*time.Minute)
	p.py.run(t, `assert await my.consumer.dequeue() == [], "an owner hides a message from Python, however long ago its lease ended"`, nil)
	p.work(t, pgqrs.NewQueue[string](p.store, "other").Handle(func(context.Context, *pgqrs.Message[string]) error { return nil }))
	p.py.eventually(t, "Python gets it", `
		for m in await my.consumer.dequeue():
			assert m.id == id and m.read_ct == 2, f"{m.id} {m.read_ct}"
			return await my.consumer.archive(id)
		return False
	`, args{"id": id})
	p.awaitStatus(t, worker, "stopped")
}

func deadGoReleased(t *testing.T, p *pair) {
	id, worker := p.abandon(t, "jobs")
	p.py.run(t, `
		my.consumer = await my.store.consumer("jobs")
		assert await my.consumer.dequeue() == []
		assert await my.admin.release_worker_messages(worker) == 1
	`, args{"worker": worker})
	p.py.eventually(t, "Python gets it", `return [m.id for m in await my.consumer.dequeue()] == [id]`, args{"id": id})
}

func deadPython(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	id := value(q.Enqueue(t.Context(), "x"))(t)
	p.py.run(t, `[my.held] = await (await my.store.consumer("jobs")).dequeue()`, nil)
	p.py.kill()
	equal(t, "messages before the lease ends", len(value(q.Dequeue(t.Context(), 1, time.Minute))(t)), 0)
	pgqrstest.Advance(t, p.store, 31*time.Second) // the lease of pgqrs is 30 s
	ms := value(q.Dequeue(t.Context(), 1, time.Minute))(t)
	equal(t, "messages then", len(ms), 1)
	equal(t, "id", ms[0].ID, id)
	equal(t, "attempt", ms[0].Attempt, 2)
	must(t, q.Ack(t.Context(), ms...))
}

// silent returns a statement that moves a worker's last heartbeat back, as if its process had been
// suspended.
func (p *pair) silent(id int64, ago, more string) string {
	past := map[pgqrs.Dialect]string{pgqrs.Postgres: `now() - interval '` + ago + `'`, pgqrs.SQLite: `strftime('%Y-%m-%d %H:%M:%f', 'now', '-` + ago + `')`}[p.dialect]
	return `UPDATE pgqrs_workers SET heartbeat_at = ` + past + more + ` WHERE id = ` + sqlInt(id)
}

// reclaim does to a worker what reclaim_messages of pgqrs does to silent workers. Python has no
// call for the second half. It also makes the worker silent in the same call, because a live worker
// could send a heartbeat in between.
func (p *pair) reclaim(t *testing.T, id int64) {
	t.Helper()
	p.py.run(t, `await my.admin.release_worker_messages(id)`, args{"id": id})
	now := map[pgqrs.Dialect]string{pgqrs.Postgres: `now()`, pgqrs.SQLite: `datetime('now')`}[p.dialect]
	p.exec(t, p.silent(id, `6 seconds`, `, status = 'stopped', shutdown_at = `+now))
}

func reclaimed(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	lost, first := make(chan error, 1), true
	var got box[string]
	p.work(t, q.Handle(func(ctx context.Context, m *pgqrs.Message[string]) error {
		if first {
			first = false
			<-ctx.Done()
			lost <- context.Cause(ctx)
			return ctx.Err()
		}
		return got.handle(ctx, m)
	}))
	value(q.Enqueue(t.Context(), "x"))(t)
	id := p.workerOf(t, "jobs", "polling").ID
	eventually(t, "the handler runs", func() bool { return p.worker(t, id).Leased == 1 })
	p.reclaim(t, id)
	select {
	case cause := <-lost:
		if !errors.Is(cause, pgqrs.ErrLeaseLost) {
			t.Fatalf("the handler's ctx ends because of %v; want ErrLeaseLost", cause)
		}
	case <-time.After(patience):
		t.Fatal("the handler goes on without its lease")
	}
	eventually(t, "the worker is back and handles it", func() bool { return len(got.all()) == 1 })
	p.awaitStatus(t, id, "polling")
}

func stoppedSilent(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	done := make(chan error, 1)
	go func() {
		done <- (&pgqrs.Worker{Handlers: []pgqrs.Handler{q.Handle(func(context.Context, *pgqrs.Message[string]) error { return nil })}}).Run(t.Context())
	}()
	id := p.workerOf(t, "jobs", "polling").ID
	tx := value(p.db.BeginTx(t.Context(), nil))(t)
	defer tx.Rollback()
	value(tx.ExecContext(t.Context(), p.silent(id, "6 seconds", "")))(t)
	must(t, p.store.WithTx(tx).StopWorker(t.Context(), id))
	must(t, tx.Commit())
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("Run goes on after StopWorker")
	}
}

func busyPython(t *testing.T, p *pair) {
	q := pgqrs.NewQueue[string](p.store, "jobs")
	value(q.Enqueue(t.Context(), "long"))(t)
	id := do[int64](t, p.py, `
		my.consumer = await my.store.consumer("jobs")
		my.begun, my.go_on, my.got = asyncio.Event(), asyncio.Event(), []
		async def handle(m):
			my.begun.set()
			await my.go_on.wait()
			my.got.append(m.payload)
		async def poll():
			await pgqrs.dequeue().worker(my.consumer).poll_interval(20).handle(handle).poll(my.store)
		my.task = asyncio.create_task(poll())
		await my.begun.wait()
		return my.consumer.worker_id
	`, nil)
	// A Go worker that is equally silent shows that maintenance has been done.
	_, mine := p.abandon(t, "other")
	p.exec(t, p.silent(mine, "1 minute", ""))
	p.exec(t, p.silent(id, "1 minute", ""))
	p.work(t, pgqrs.NewQueue[string](p.store, "maintenance").Handle(func(context.Context, *pgqrs.Message[string]) error { return nil }))
	p.awaitStatus(t, mine, "stopped")
	equal(t, "status of Python's worker", p.worker(t, id).State, "polling")
	p.py.run(t, `my.go_on.set()`, nil)
	eventually(t, "Python archives it", func() bool { return p.stats(t, "jobs").Archived == 1 })
	value(q.Enqueue(t.Context(), "next"))(t)
	eventually(t, "Python goes on polling", func() bool { return p.stats(t, "jobs").Archived == 2 })
	equal(t, "how often it was handled", do[string](t, p.py, `return " ".join(my.got)`, nil), "long next")
}

func pruned(t *testing.T, p *pair) {
	_, referred := p.abandon(t, "kept")
	p.exec(t, `UPDATE pgqrs_messages SET archived_at = enqueued_at`) // by the dead worker
	q := pgqrs.NewQueue[string](p.store, "jobs").With(pgqrs.Policy{Retention: time.Hour})
	value(q.Enqueue(t.Context(), "x"))(t)
	must(t, q.Ack(t.Context(), value(q.Dequeue(t.Context(), 1, time.Minute))(t)...))
	p.py.run(t, `
		await pgqrs.produce(my.store, "jobs", "y")
		async def take(m): pass
		await pgqrs.consume(my.store, "jobs", take)
	`, nil)
	w := pgqrs.NewWorkflow[int, int](p.store, "sum").With(pgqrs.Policy{Retention: time.Hour})
	sum := func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
		return pgqrs.Step(ctx, run, "add", func(context.Context) (int, error) { return n + 1, nil })
	}
	run := value(w.Start(t.Context(), 1))(t)
	stop := p.work(t, w.Handle(sum))
	equal(t, "result", value(run.Result(soon(t)))(t), 2)
	stop()
	must(t, p.store.Close())
	pgqrstest.Advance(t, p.store, 30*24*time.Hour)

	p.store = p.newStore(t, pgqrs.Config{})
	nothing := func(context.Context, *pgqrs.Message[string]) error { return nil }
	before := p.query(t, `SELECT count(*) FROM pgqrs_workers WHERE go_state IS NULL`)
	work := func() func() {
		return p.work(t, pgqrs.NewQueue[string](p.store, "jobs").With(pgqrs.Policy{Retention: time.Hour}).Handle(nothing),
			pgqrs.NewQueue[string](p.store, "kept").With(pgqrs.Policy{Retention: 100 * 24 * time.Hour}).Handle(nothing),
			pgqrs.NewWorkflow[int, int](p.store, "sum").With(pgqrs.Policy{Retention: time.Hour}).Handle(sum))
	}
	stop = work()
	eventually(t, "old messages, runs and workers are deleted", func() bool {
		return p.query(t, `SELECT count(*) FROM pgqrs_messages`) == "1" && p.query(t, `SELECT count(*) FROM pgqrs_workflow_runs`) == "0" &&
			p.query(t, `SELECT count(*) FROM pgqrs_workers WHERE go_state IS NOT NULL AND shutdown_at IS NOT NULL AND id <> `+sqlInt(referred)) == "0"
	})
	equal(t, "workers of Python", p.query(t, `SELECT count(*) FROM pgqrs_workers WHERE go_state IS NULL`), before)
	equal(t, "the worker that a message refers to", p.worker(t, referred).State, "stopped")
	p.py.run(t, `await my.admin.verify()`, nil)
	stop()

	value(p.store.Purge(t.Context(), "kept", pgqrs.Archived))(t)
	work()
	eventually(t, "that worker is deleted too", func() bool { return p.worker(t, referred).ID == 0 })
	p.py.run(t, `await my.admin.verify()`, nil)
}

func dropped(t *testing.T, p *pair) {
	p.makeQueue(t, "jobs")
	p.py.run(t, `
		await pgqrs.produce_batch(my.store, "jobs", [1, 2, 3])
		async def take(m): pass
		await pgqrs.consume(my.store, "jobs", take)
		await pgqrs.workflow().name("flow").store(my.store).create()
		await pgqrs.workflow().name("flow").store(my.store).trigger({}).execute()
		consumer = await my.store.consumer("flow")
		[m] = await consumer.dequeue()
		run = await pgqrs.run().message(m).store(my.store).execute()
		await (await run.acquire_step("one")).guard.success(1)
	`, nil)
	for _, queue := range []string{"jobs", "flow"} {
		for _, state := range []pgqrs.MessageState{pgqrs.Ready, pgqrs.Scheduled, pgqrs.Leased, pgqrs.Archived, pgqrs.Dead} {
			value(p.store.Purge(t.Context(), queue, state))(t)
		}
		pgqrstest.Advance(t, p.store, time.Minute) // its workers then count as gone
		must(t, p.store.DropQueue(t.Context(), queue))
	}
	for _, table := range []string{"queues", "messages", "workers WHERE queue_id IS NOT NULL", "workflows", "workflow_runs", "workflow_steps"} {
		equal(t, "rows of pgqrs_"+table, p.query(t, `SELECT count(*) FROM pgqrs_`+table), "0")
	}
	p.py.run(t, `await my.admin.verify()`, nil)
}
