package conformance

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var maintenanceCases = []testcase{
	{"a starting worker marks silent ones stopped, and no others", "dead workers would be listed as live, and their names be blocked", maintenanceSilent},
	{"the owner of a lease that has expired is cleared, and the message stays deliverable", "workers of pgqrs 0.15 would never see the message again", maintenanceDisown},
	{"archived messages past their queue's retention are deleted, dead ones are not", "the table would grow for ever, or failures vanish unseen", maintenanceRetention},
	{"a negative retention keeps archived messages for ever", "an audit trail would be deleted", maintenanceKeep},
	{"rows that stopped more than a day ago are deleted, unless they hold messages", "the table would grow with every restart, or a held message lose its holder", maintenanceRows},
	{"beside pgqrs 0.15, rows are kept as long as a message refers to them", "its foreign keys would stop maintenance, or its verify fail", maintenanceShared},
	{"rows of pgqrs 0.15 are neither marked stopped nor deleted", "its workers, which are silent while they are busy, would fail", maintenanceOthers},
	{"a run goes on when pgqrs 0.15 has ended its last child", "it would wait for ever: pgqrs 0.15 knows of no parents", maintenanceJoin},
}

// maintenance runs a worker of another queue. A worker does maintenance when it starts.
func (e *env) maintenance(t *testing.T, policy pgqrs.Policy) {
	t.Helper()
	q := pgqrs.NewQueue[string](e.store, "maintenance").With(policy)
	h, _ := handling(q)
	w := fast(h)
	w.Name = "maintenance"
	start(t, w)
}

// hand makes the row of a consumer that calls Dequeue itself, in a Store of its own.
func (e *env) hand(t *testing.T, queue string) (*pgqrs.Queue[int], pgqrs.WorkerInfo) {
	t.Helper()
	before := value(e.store.Workers(t.Context()))(t)
	q := pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), queue)
	dequeue(t, q, 1)
	after := value(e.store.Workers(t.Context()))(t)
	equal(t, "rows", len(after), len(before)+1)
	made := slices.DeleteFunc(after, func(w pgqrs.WorkerInfo) bool {
		return slices.ContainsFunc(before, func(b pgqrs.WorkerInfo) bool { return b.ID == w.ID })
	})
	equal(t, "rows made", len(made), 1)
	return q, made[0]
}

func maintenanceSilent(t *testing.T, e *env) {
	_, silent := e.hand(t, "hand")
	pgqrstest.Advance(t, e.store, time.Minute)
	_, live := e.hand(t, "hand")
	e.maintenance(t, pgqrs.Policy{})
	w := e.awaitStatus(t, silent.Name, "stopped")
	equal(t, "whether it has shut down", w.ShutdownAt.IsZero(), false)
	equal(t, "status of one that lives", e.worker(t, live.Name).State, "ready")
}

func maintenanceDisown(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "expired")
	expired, live := enqueue(t, q, 1), enqueue(t, q, 2)
	dequeue(t, q, 1)
	equal(t, "messages with a longer lease", len(value(q.Dequeue(t.Context(), 1, time.Hour))(t)), 1)
	pgqrstest.Advance(t, e.store, time.Minute)
	e.maintenance(t, pgqrs.Policy{})
	eventually(t, "the owner is cleared", func() bool { return e.info(t, expired).WorkerID == 0 })
	equal(t, "state", e.info(t, expired).State, pgqrs.Ready)
	equal(t, "attempts", e.info(t, expired).Attempt, 1)
	equal(t, "whether the live lease has an owner", e.info(t, live).WorkerID != 0, true)
	enqueue(t, q, 3)
	m := dequeueOne(t, pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "expired")) // alone: it may have killed its holder
	equal(t, "message", m.ID, expired)
	equal(t, "attempt", m.Attempt, 2)
}

func maintenanceRetention(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "maintenance")
	other := pgqrs.NewQueue[string](e.store, "other")
	old, dead, elsewhere := enqueue(t, q, "old"), deadLetter(t, q), enqueue(t, other, "old")
	must(t, q.Ack(t.Context(), dequeue(t, q, 10)...))
	must(t, other.Ack(t.Context(), dequeueOne(t, other)))
	pgqrstest.Advance(t, e.store, 2*time.Hour)
	recent := enqueue(t, q, "recent")
	must(t, q.Ack(t.Context(), dequeueOne(t, q)))
	waiting := enqueue(t, q, "waiting", pgqrs.Delay(time.Hour))
	e.maintenance(t, pgqrs.Policy{Retention: time.Hour})
	eventually(t, "the old message is deleted", func() bool { return e.stats(t, "maintenance").Archived == 1 })
	there := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{IDs: []int64{old, dead, elsewhere, recent, waiting}}))(t)
	equalSlices(t, "messages that are left", infoIDs(there), []int64{dead, elsewhere, recent, waiting})
}

func maintenanceKeep(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "maintenance")
	id := enqueue(t, q, "old")
	must(t, q.Ack(t.Context(), dequeueOne(t, q)))
	// Another queue has old messages that are deleted, which shows that maintenance was done.
	other := pgqrs.NewQueue[string](e.store, "other")
	enqueue(t, other, "old")
	must(t, other.Ack(t.Context(), dequeueOne(t, other)))
	pgqrstest.Advance(t, e.store, 10000*time.Hour)
	keep, _ := handling(q.With(pgqrs.Policy{Retention: -1}))
	prune, _ := handling(other)
	start(t, fast(keep, prune))
	eventually(t, "the other queue's old message is deleted", func() bool { return e.stats(t, "other").Archived == 0 })
	equal(t, "state", e.info(t, id).State, pgqrs.Archived)
}

func maintenanceRows(t *testing.T, e *env) {
	_, old := e.hand(t, "old")
	held, holder := e.hand(t, "held")
	enqueue(t, held, 1)
	equal(t, "messages held", len(value(held.Dequeue(t.Context(), 1, 100*time.Hour))(t)), 1)
	must(t, e.store.StopWorker(t.Context(), old.ID))
	must(t, e.store.StopWorker(t.Context(), holder.ID))
	pgqrstest.Advance(t, e.store, 25*time.Hour)
	_, recent := e.hand(t, "recent")
	must(t, e.store.StopWorker(t.Context(), recent.ID))
	pgqrstest.Advance(t, e.store, 20*time.Hour)
	e.maintenance(t, pgqrs.Policy{})
	eventually(t, "the old row is deleted", func() bool { return e.worker(t, old.Name).ID == 0 })
	equal(t, "row of the one that holds a message", e.worker(t, holder.Name).ID, holder.ID)
	equal(t, "row of the one that stopped lately", e.worker(t, recent.Name).ID, recent.ID)
}

// join makes the row of a worker of pgqrs 0.15, which lived long ago.
func (e *env) join(t *testing.T) pgqrs.WorkerInfo {
	t.Helper()
	statement(t, e.db, `INSERT INTO pgqrs_workers (name, started_at, heartbeat_at) VALUES ('of pgqrs 0.15', '2020-01-01 00:00:00', '2020-01-01 00:00:00')`)
	return e.worker(t, "of pgqrs 0.15")
}

func maintenanceShared(t *testing.T, e *env) {
	e.join(t)
	q, referred := e.hand(t, "old")
	_, free := e.hand(t, "free")
	enqueue(t, q, 1)
	must(t, q.Ack(t.Context(), dequeueOne(t, q)))
	stop := func() {
		for _, w := range []pgqrs.WorkerInfo{referred, free} {
			must(t, e.store.StopWorker(t.Context(), w.ID))
		}
		pgqrstest.Advance(t, e.store, 25*time.Hour)
	}
	stop()
	must(t, e.store.Install(t.Context())) // finds pgqrs 0.15, and makes the indexes for it
	wantComplete(t, e.store)
	e.maintenance(t, pgqrs.Policy{})
	eventually(t, "the row that nothing refers to is deleted", func() bool { return e.worker(t, free.Name).ID == 0 })
	equal(t, "row of the one that archived a message", e.worker(t, referred.Name).ID, referred.ID)
	value(e.store.Purge(t.Context(), "old", pgqrs.Archived))(t)
	other := pgqrs.NewQueue[string](e.store, "other")
	h, _ := handling(other)
	start(t, fast(h))
	eventually(t, "the row is deleted when its message is", func() bool { return e.worker(t, referred.Name).ID == 0 })
}

func maintenanceOthers(t *testing.T, e *env) {
	theirs := e.join(t)
	statement(t, e.db, `INSERT INTO pgqrs_workers (name, status, started_at, heartbeat_at, shutdown_at) VALUES ('stopped', 'stopped', '2020-01-01 00:00:00', '2020-01-01 00:00:00', '2020-01-01 00:00:00')`)
	stopped := e.worker(t, "stopped")
	must(t, e.store.Install(t.Context()))
	_, silent := e.hand(t, "hand")
	_, old := e.hand(t, "old")
	must(t, e.store.StopWorker(t.Context(), old.ID))
	pgqrstest.Advance(t, e.store, 25*time.Hour)
	e.maintenance(t, pgqrs.Policy{})
	eventually(t, "ours are marked and deleted", func() bool {
		return e.worker(t, silent.Name).State != "ready" && e.worker(t, old.Name).ID == 0
	})
	equal(t, "status of theirs", e.worker(t, theirs.Name).State, "ready")
	equal(t, "row of theirs that stopped", e.worker(t, stopped.Name).ID, stopped.ID)
}

func maintenanceJoin(t *testing.T, e *env) {
	e.join(t)
	child := pgqrs.NewWorkflow[int, int](e.store, "child")
	w := pgqrs.NewWorkflow[int, int](e.store, "parent")
	parent := w.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
		outs, err := child.Children(ctx, run, "children", []int{n, n})
		if err != nil {
			return 0, err
		}
		return outs[0] + outs[1], nil
	})
	run := value(w.Start(t.Context(), 1))(t)
	stop := start(t, fast(parent))
	var children []pgqrs.RunInfo
	eventually(t, "it waits for its children", func() bool {
		children = value(e.store.Runs(t.Context(), pgqrs.RunFilter{Workflow: "child"}))(t)
		return len(children) == 2 && e.info(t, e.runInfo(t, run.ID()).MessageID).State == pgqrs.Scheduled
	})
	must(t, stop())
	e.poke(t, `UPDATE pgqrs_workflow_runs SET status = 'SUCCESS', output = '20' WHERE id = %d`, children[0].ID)
	must(t, e.store.Install(t.Context()))
	_, old := e.hand(t, "old")
	must(t, e.store.StopWorker(t.Context(), old.ID))
	pgqrstest.Advance(t, e.store, 25*time.Hour)
	stop = start(t, fast(parent))
	eventually(t, "maintenance is done, to its end", func() bool { return e.worker(t, old.Name).ID == 0 })
	must(t, stop())
	equal(t, "status with a child to come", e.runInfo(t, run.ID()).Status, pgqrs.Running)
	equal(t, "state of its message", e.info(t, e.runInfo(t, run.ID()).MessageID).State, pgqrs.Scheduled)
	e.poke(t, `UPDATE pgqrs_workflow_runs SET status = 'SUCCESS', output = '22' WHERE id = %d`, children[1].ID)
	start(t, fast(parent))
	equal(t, "result", value(run.Result(t.Context()))(t), 42)
}
