package conformance

import (
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var identityCases = []testcase{
	{"a consumer whose tables were dropped and made anew receives its own queue's messages, and no others", "messages of another queue would be taken, decoded as something else and acked", identityConsumer},
	{"a lease of tables that were dropped holds nothing in those made anew", "a message that another holds would be acked, though nobody has done it", identityLease},
	{"a worker whose tables were dropped and made anew handles its own queue's messages, and no others", "messages of another queue would be handled by the wrong code and acked, and its own would wait for ever", identityWorker},
	{"numbers that are given out again are no other worker's", "after TRUNCATE ... RESTART IDENTITY, or with a restored backup, workers would share a row", identityNumbers},
	{"a worker whose row another of its name has taken over claims nothing until the name is free", "two processes would give back each other's messages, and stop each other", identityTakenOver},
	{"a worker that ends leaves a row alone that another has taken over", "a process that ends would stop the one that took its place", identityEnd},
	{"what another holds under a row that it has taken over is not given back after a lost claim", "messages would be taken out of another's hands", identityStrays},
}

// reinstall drops the tables and installs them again, as another process would.
func (e *env) reinstall(t *testing.T) {
	t.Helper()
	s := e.newStore(t, pgqrs.Config{})
	must(t, s.Uninstall(t.Context()))
	must(t, s.Install(t.Context()))
}

func identityConsumer(t *testing.T, e *env) {
	a := pgqrs.NewQueue[string](e.store, "a")
	wantNone(t, a)
	e.reinstall(t)
	other := e.newStore(t, pgqrs.Config{})
	b := pgqrs.NewQueue[string](other, "b")
	wantNone(t, b)
	enqueue(t, b, "theirs")
	wantNone(t, a)
	equal(t, "state of the other queue's message", e.stats(t, "b").Ready, 1)
	enqueue(t, a, "own")
	equal(t, "payload", dequeueOne(t, a).Payload, "own")
	equal(t, "payload", dequeueOne(t, b).Payload, "theirs")
}

func identityLease(t *testing.T, e *env) {
	a := pgqrs.NewQueue[string](e.store, "a")
	enqueue(t, a, "old")
	old := dequeueOne(t, a)
	e.reinstall(t)
	other := pgqrs.NewQueue[string](e.newStore(t, pgqrs.Config{}), "a")
	enqueue(t, other, "new")
	m := dequeueOne(t, other)
	equal(t, "id, as before", m.ID, old.ID)
	wantError(t, a.Ack(t.Context(), old), pgqrs.ErrLeaseLost)
	equal(t, "state", e.info(t, m.ID).State, pgqrs.Leased)
	must(t, other.Ack(t.Context(), m))
}

func identityWorker(t *testing.T, e *env) {
	h, got := handling(pgqrs.NewQueue[string](e.store, "a").With(pgqrs.Policy{MaxLeased: 7}))
	start(t, named(h))
	enqueue(t, pgqrs.NewQueue[string](e.store, "a"), "first")
	receive(t, "it works", got)
	e.reinstall(t)
	other := e.newStore(t, pgqrs.Config{})
	b := pgqrs.NewQueue[string](other, "b")
	wantNone(t, b)
	enqueue(t, b, "theirs")
	enqueue(t, pgqrs.NewQueue[string](other, "a"), "own")
	equal(t, "payload", receive(t, "its own message is handled", got), "own")
	e.awaitStatus(t, "w/a", "polling")
	equal(t, "payload", dequeueOne(t, b).Payload, "theirs")
	equal(t, "messages handled besides", len(got), 0)
	eventually(t, "the queue's policy is written again", func() bool { return e.stats(t, "a").Policy.MaxLeased == 7 })
}

// renumber empties the table of workers and restarts its ids.
var renumber = map[pgqrs.Dialect][]string{
	pgqrs.Postgres: {`TRUNCATE pgqrs_workers RESTART IDENTITY`},
	pgqrs.SQLite:   {`DELETE FROM pgqrs_workers`, `DELETE FROM sqlite_sequence WHERE name = 'pgqrs_workers'`},
	pgqrs.Turso:    {`DELETE FROM pgqrs_workers`}, // its engine allows no writes to sqlite_sequence
}

func identityNumbers(t *testing.T, e *env) {
	seen := map[int64]bool{}
	for range 5 {
		q := pgqrs.NewQueue[string](e.newStore(t, pgqrs.Config{}), "a")
		enqueue(t, q, "x")
		m := dequeueOne(t, q)
		equal(t, "whether the number was used before", seen[m.WorkerID], false)
		seen[m.WorkerID] = true
		if m.WorkerID < 1 || m.WorkerID > 1<<48 {
			t.Errorf("worker %d is not a number of 48 bits", m.WorkerID)
		}
		for _, text := range renumber[e.dialect] {
			e.poke(t, "%s", text)
		}
	}
}

// takeOver has another process take over the row of a worker, and returns the row.
func (e *env) takeOver(t *testing.T, name string) pgqrs.WorkerInfo {
	t.Helper()
	row := e.awaitStatus(t, name, "polling")
	e.poke(t, "UPDATE pgqrs_workers SET started_at = '2020-01-01 00:00:00' WHERE id = %d", row.ID)
	return row
}

func identityTakenOver(t *testing.T, e *env) {
	h, got := handling(pgqrs.NewQueue[string](e.store, "a"))
	beside, _ := handling(pgqrs.NewQueue[string](e.store, "beside"))
	start(t, named(h, beside))
	row := e.takeOver(t, "w/a")
	eventually(t, "it has noticed", func() bool { return e.log.has("another worker of the same name has taken over the worker's row") })
	eventually(t, "it claims no more", func() bool { return e.log.has(`status="taken over"`) })
	beat := e.worker(t, "w/a").HeartbeatAt
	other := pgqrs.NewQueue[string](e.newStore(t, pgqrs.Config{}), "a")
	enqueue(t, other, "x")
	equal(t, "payload of what another consumer gets", dequeueOne(t, other).Payload, "x")
	enqueue(t, other, "y")
	for range 2 {
		last := e.worker(t, "w/beside").HeartbeatAt
		eventually(t, "its other row has a heartbeat", func() bool { return e.worker(t, "w/beside").HeartbeatAt.After(last) })
	}
	equal(t, "heartbeat of a row that is another's", e.worker(t, "w/a").HeartbeatAt, beat)
	equal(t, "messages handled", len(got), 0)
	must(t, e.store.StopWorker(t.Context(), row.ID))
	equal(t, "payload", receive(t, "it goes on when the name is free", got), "y")
	equal(t, "row", e.worker(t, "w/a").ID, row.ID)
}

func identityEnd(t *testing.T, e *env) {
	h, _ := handling(pgqrs.NewQueue[string](e.store, "a"))
	w := named(h)
	w.Lease = time.Hour // so that it ends before its next heartbeat
	stop := start(t, w)
	e.takeOver(t, "w/a")
	must(t, stop())
	equal(t, "status", e.worker(t, "w/a").State, "polling")
	other := e.newStore(t, pgqrs.Config{})
	wantNone(t, pgqrs.NewQueue[string](other, "b"))
	e.poke(t, "UPDATE pgqrs_workers SET started_at = '2020-01-01 00:00:00' WHERE id = %d", handRow(t, e, "b").ID)
	must(t, other.Close())
	equal(t, "status of a consumer's row", handRow(t, e, "b").State, "ready")
}

func identityStrays(t *testing.T, e *env) {
	store, net := e.farStore(t)
	near := pgqrs.NewQueue[string](e.store, "a")
	enqueue(t, near, "held")
	held := value(near.Dequeue(t.Context(), 1, time.Hour))(t)
	h, got := handling(pgqrs.NewQueue[string](store, "a"))
	w := named(h)
	w.Lease = time.Hour
	start(t, w)
	enqueue(t, near, "first")
	receive(t, "it works", got)
	eventually(t, "it has nothing in hand", func() bool { return e.stats(t, "a").Archived == 1 })
	row := e.awaitStatus(t, "w/a", "polling")
	// The new owner of the row holds it.
	e.poke(t, "UPDATE pgqrs_messages SET consumer_worker_id = %d WHERE archived_at IS NULL", row.ID)
	claimed, happened := once("pgqrs:message.claim", refused)
	gave, given := once("pgqrs:message.strays", none)
	net.fail(func(text string) fault {
		if mentions(text, "pgqrs:worker.heartbeat") { // the worker would notice
			return refused
		}
		return max(claimed(text), gave(text))
	})
	e.takeOver(t, "w/a")
	enqueue(t, near, "next")
	receive(t, "a claim's answer is lost", happened)
	receive(t, "it clears up", given)
	equal(t, "payload", receive(t, "it goes on", got), "next")
	equal(t, "state of what another holds", e.info(t, held[0].ID).State, pgqrs.Leased)
}
