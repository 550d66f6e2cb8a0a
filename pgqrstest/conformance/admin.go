package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var adminCases = []testcase{
	{"Queues lists all queues or the named ones, by name", "an operator would look at the wrong queue, or miss one", adminQueues},
	{"the counts of a queue follow its messages through every state", "a dashboard would show work that is not there, or hide work that is stuck", adminCounts},
	{"the age of the oldest ready message grows with time and ignores delayed messages", "an alarm on a queue that falls behind would never ring, or ring for messages that are not due", adminOldest},
	{"Depths counts what waits as Queues does, for all queues or the named ones", "two views of one queue would contradict each other, in the middle of an incident", adminDepths},
	{"Depths says what was archived and what died in the last minute", "nobody could see whether a queue moves, and how fast", adminPace},
	{"live messages are listed by due time, page by page, each once", "going through a long listing would skip messages or show them twice", adminLivePages},
	{"archived and dead messages are listed newest first, page by page, each once", "at 3 a.m. the latest failure must stand at the top", adminEndedPages},
	{"messages with equal times are listed page by page, each once", "a batch shares one instant: pages would repeat or drop parts of it", adminTies},
	{"messages are listed by id whatever their queue and state", "somebody with an id from a log could not find out what became of the message", adminByID},
	{"the unfinished message of a key is found by it", "somebody with an order's number could not find the message that holds the order up", adminByKey},
	{"a filter that makes no sense is an error that names what is wrong", "a mistyped state or a cut-off cursor would read as an empty queue", adminBadFilters},
	{"a payload that does not decode is listed, redriven and deleted all the same", "the very messages an operator has to look at would be out of reach", adminUndecodable},
	{"a dead letter carries its last error and its attempts", "nobody could tell why a message died", adminDeadLetter},
	{"a redriven dead letter begins anew under a larger claim number", "a fixed bug would not help the messages it killed, or their old holder could ack the new run", adminRedriveDead},
	{"an archived message can be redriven", "work that was acked too early could not be done again", adminRedriveArchived},
	{"Redrive leaves live and unknown messages alone, and without ids does nothing", "an empty list from a script would redrive everything, or a running message would run twice", adminRedriveNothing},
	{"Redrive leaves a message whose key was taken since and names it", "two unfinished messages would share a key, or one would vanish without a word", adminRedriveTaken},
	{"of two dead letters with one key a single Redrive takes the first", "redriving both would fail for all or break the key's promise", adminRedriveTwins},
	{"RedriveAll takes every dead letter of its queue, also beyond one page", "after an outage part of the dead letters would stay behind unseen", adminRedriveAll},
	{"Purge deletes one state of one queue", "clearing the dead letters would delete work that waits", adminPurge},
	{"Purge goes beyond one page", "a queue of any size could not be emptied", adminPurgeMany},
	{"the holder of a purged or deleted message is told that its lease is lost", "it would believe its work was recorded", adminPurgeLeased},
	{"Delete deletes the named messages in any state, and without ids none", "an empty list from a script would delete everything", adminDelete},
	{"a paused queue delivers to nobody until it is resumed", "an operator could not hold traffic back while a dependency is down", adminPause},
	{"DropQueue deletes an empty queue, and an enqueue makes it anew", "queue names used for a test or a tenant would pile up, or be spoilt for ever", adminDrop},
	{"DropQueue refuses while there are messages, whatever their state", "dropping would lose messages", adminDropMessages},
	{"DropQueue refuses while there are live workers, and takes stopped ones along", "a running worker would go on for a queue that is gone", adminDropWorkers},
	{"DropQueue does not slip in before an enqueue that is under way commits", "the message would be stored for a queue that is gone, and never be delivered", adminDropRace},
	{"Workers lists each worker with its queue, state and what it holds", "an operator could not see who holds the messages that are stuck", adminWorkers},
	{"administration in a transaction that is rolled back leaves no trace", "half of an operator's script would stand after the other half failed", adminRollback},
	{"administration in a transaction that commits is done", "what an operator's script did would be lost", adminCommit},
}

// kill moves leased messages to the dead letters.
func kill[T any](t *testing.T, q *pgqrs.Queue[T], ms ...*pgqrs.Message[T]) {
	t.Helper()
	must(t, q.Fail(t.Context(), pgqrs.Permanent(errors.New("killed")), ms...))
}

// deadLetter enqueues a message and makes it a dead letter at once.
func deadLetter(t *testing.T, q *pgqrs.Queue[string], opts ...pgqrs.Option) int64 {
	t.Helper()
	id := enqueue(t, q, "dead", append([]pgqrs.Option{pgqrs.Priority(2)}, opts...)...)
	ms := dequeue(t, q, 1)
	if len(ms) != 1 || ms[0].ID != id {
		t.Fatalf("dequeued %v; want message %d", messageIDs(ms), id)
	}
	kill(t, q, ms...)
	return id
}

func messageIDs[T any](ms []*pgqrs.Message[T]) []int64 {
	ids := make([]int64, len(ms))
	for i, m := range ms {
		ids[i] = m.ID
	}
	return ids
}

func infoIDs(ms []pgqrs.MessageInfo) []int64 {
	ids := make([]int64, len(ms))
	for i, m := range ms {
		ids[i] = m.ID
	}
	return ids
}

// oneOfEach puts one message of each state into a new queue.
func (e *env) oneOfEach(t *testing.T, queue string) (q *pgqrs.Queue[string], ids map[pgqrs.MessageState]int64, held *pgqrs.Message[string]) {
	t.Helper()
	q = pgqrs.NewQueue[string](e.store, queue)
	ids = map[pgqrs.MessageState]int64{pgqrs.Dead: deadLetter(t, q)}
	ids[pgqrs.Archived] = enqueue(t, q, "archived")
	must(t, q.Ack(t.Context(), dequeueOne(t, q)))
	ids[pgqrs.Leased] = enqueue(t, q, "leased")
	held = dequeueOne(t, q)
	ids[pgqrs.Scheduled] = enqueue(t, q, "scheduled", pgqrs.Delay(time.Hour))
	ids[pgqrs.Ready] = enqueue(t, q, "ready")
	return q, ids, held
}

var allStates = []pgqrs.MessageState{pgqrs.Ready, pgqrs.Scheduled, pgqrs.Leased, pgqrs.Archived, pgqrs.Dead}

// counts returns the numbers of a queue's messages in the order of allStates.
func counts(q pgqrs.QueueInfo) [5]int64 {
	return [5]int64{q.Ready, q.Scheduled, q.Leased, q.Archived, q.Dead}
}

func (e *env) wantCounts(t *testing.T, queue string, want ...int64) {
	t.Helper()
	equal(t, fmt.Sprintf("ready, scheduled, leased, archived and dead messages of %q", queue), counts(e.stats(t, queue)), [5]int64(want))
}

func adminQueues(t *testing.T, e *env) {
	names := func(list []pgqrs.QueueInfo) []string {
		var names []string
		for _, q := range list {
			names = append(names, q.Name)
		}
		return names
	}
	ctx := t.Context()
	equalSlices(t, "queues of a new database", names(value(e.store.Queues(ctx))(t)), nil)
	for _, name := range []string{"pears", "apples", "plums"} {
		enqueue(t, pgqrs.NewQueue[int](e.store, name), 1)
	}
	equalSlices(t, "all queues", names(value(e.store.Queues(ctx))(t)), []string{"apples", "pears", "plums"})
	some := value(e.store.Queues(ctx, "plums", "nuts", "apples"))(t)
	equalSlices(t, "named queues", names(some), []string{"apples", "plums"})
	equalSlices(t, "an unknown queue", names(value(e.store.Queues(ctx, "nuts"))(t)), nil)
	if some[0].ID == 0 || some[0].CreatedAt.IsZero() || !some[0].PausedAt.IsZero() {
		t.Fatalf("queue is %+v; want an id, the time it was made, and no pause", some[0])
	}
}

func adminCounts(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "parcels")
	for i := range 4 {
		enqueue(t, q, i)
	}
	enqueue(t, q, 4, pgqrs.Delay(time.Hour))
	e.wantCounts(t, "parcels", 4, 1, 0, 0, 0)
	ms := dequeue(t, q, 4)
	e.wantCounts(t, "parcels", 0, 1, 4, 0, 0)
	must(t, q.Ack(t.Context(), ms[0]))
	e.wantCounts(t, "parcels", 0, 1, 3, 1, 0)
	kill(t, q, ms[1])
	e.wantCounts(t, "parcels", 0, 1, 2, 1, 1)
	must(t, q.Release(t.Context(), 0, ms[2]))
	e.wantCounts(t, "parcels", 1, 1, 1, 1, 1)
	pgqrstest.Advance(t, e.store, 30*time.Minute) // the last lease ends
	e.wantCounts(t, "parcels", 2, 1, 0, 1, 1)
	pgqrstest.Advance(t, e.store, 31*time.Minute) // the delay ends
	e.wantCounts(t, "parcels", 3, 0, 0, 1, 1)
}

func adminOldest(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "parcels")
	enqueue(t, q, 1, pgqrs.Delay(5*time.Hour))
	equal(t, "age with nothing ready", e.stats(t, "parcels").OldestReady, 0)
	equal(t, "age with nothing ready, by Depths", e.depth(t, "parcels").OldestReady, 0)
	enqueue(t, q, 2)
	pgqrstest.Advance(t, e.store, 2*time.Hour)
	enqueue(t, q, 3)
	enqueue(t, q, 4, pgqrs.Priority(2))
	for _, age := range []time.Duration{e.stats(t, "parcels").OldestReady, e.depth(t, "parcels").OldestReady} {
		if age < 119*time.Minute || age > 4*time.Hour {
			t.Fatalf("the oldest message has been ready for %v; want the two hours that passed", age)
		}
	}
}

func adminPause(t *testing.T, e *env) {
	ctx := t.Context()
	wantError(t, e.store.PauseQueue(ctx, "parcels"), pgqrs.ErrNotFound)
	wantError(t, e.store.ResumeQueue(ctx, "parcels"), pgqrs.ErrNotFound)
	q := pgqrs.NewQueue[string](e.store, "parcels")
	enqueue(t, q, "in hand")
	held := dequeueOne(t, q)
	must(t, e.store.PauseQueue(ctx, "parcels"))
	paused := e.stats(t, "parcels").PausedAt
	if paused.IsZero() {
		t.Fatal("the queue is not shown as paused")
	}
	must(t, q.Ack(ctx, held))
	handled := make(chan string, 1)
	start(t, &pgqrs.Worker{Handlers: []pgqrs.Handler{q.Handle(func(_ context.Context, m *pgqrs.Message[string]) error {
		handled <- m.Payload
		return nil
	})}, PollInterval: time.Millisecond})
	id := enqueue(t, q, "waiting")
	other := pgqrs.NewQueue[string](e.newStore(t, pgqrs.Config{}), "parcels")
	for range 5 {
		equal(t, "messages dequeued", len(dequeue(t, q, 1)), 0)
		equal(t, "messages dequeued by another process", len(dequeue(t, other, 1)), 0)
	}
	must(t, e.store.PauseQueue(ctx, "parcels"))
	if again := e.stats(t, "parcels").PausedAt; again.After(paused.Add(time.Millisecond)) {
		t.Fatalf("pausing again moved the time of the pause from %v to %v", paused, again)
	}
	equal(t, "claim number while paused", e.info(t, id).Claim, 0)
	must(t, e.store.ResumeQueue(ctx, "parcels"))
	equal(t, "time of a pause", e.stats(t, "parcels").PausedAt, time.Time{})
	equal(t, "handled", <-handled, "waiting")
}

func adminDrop(t *testing.T, e *env) {
	ctx := t.Context()
	wantError(t, e.store.DropQueue(ctx, "parcels"), pgqrs.ErrNotFound)
	q := pgqrs.NewQueue[string](e.store, "parcels")
	value(e.store.Delete(ctx, enqueue(t, q, "x")))(t)
	enqueue(t, pgqrs.NewQueue[string](e.store, "letters"), "stays")
	must(t, e.store.DropQueue(ctx, "parcels"))
	list := value(e.store.Queues(ctx))(t)
	equal(t, "queues left", len(list), 1)
	equal(t, "the one left", list[0].Name, "letters")
	wantError(t, e.store.DropQueue(ctx, "parcels"), pgqrs.ErrNotFound)
	enqueue(t, q, "made anew")
	equal(t, "payload", dequeueOne(t, q).Payload, "made anew")
}

func adminDropMessages(t *testing.T, e *env) {
	_, ids, _ := e.oneOfEach(t, "parcels")
	must(t, e.stopAll(t, "parcels"))
	for _, state := range allStates {
		err := e.store.DropQueue(t.Context(), "parcels")
		wantError(t, err, pgqrs.ErrState)
		if !strings.Contains(err.Error(), "Purge") || !strings.Contains(err.Error(), `"parcels"`) {
			t.Fatalf("error is %v; want it to name the queue and Purge", err)
		}
		value(e.store.Delete(t.Context(), ids[state]))(t)
	}
	must(t, e.store.DropQueue(t.Context(), "parcels"))
}

// stopAll stops every worker of a queue.
func (e *env) stopAll(t *testing.T, queue string) error {
	t.Helper()
	var errs []error
	for _, w := range value(e.store.Workers(t.Context()))(t) {
		if w.Queue == queue {
			errs = append(errs, e.store.StopWorker(t.Context(), w.ID))
		}
	}
	return errors.Join(errs...)
}

func adminDropWorkers(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "parcels")
	enqueue(t, q, "x")
	must(t, q.Delete(t.Context(), dequeueOne(t, q)))
	err := e.store.DropQueue(t.Context(), "parcels")
	wantError(t, err, pgqrs.ErrState)
	if !strings.Contains(err.Error(), "worker") {
		t.Fatalf("error is %v; want it to name the workers", err)
	}
	must(t, e.stopAll(t, "parcels"))
	must(t, e.store.DropQueue(t.Context(), "parcels"))
	equal(t, "workers left", len(value(e.store.Workers(t.Context()))(t)), 0)
	enqueue(t, q, "after")
	equal(t, "payload", dequeueOne(t, q).Payload, "after")
	pgqrstest.Advance(t, e.store, time.Hour) // the worker of this Store has gone silent, and its message's lease has ended
	value(e.store.Purge(t.Context(), "parcels", pgqrs.Ready))(t)
	must(t, e.store.DropQueue(t.Context(), "parcels"))
}

func adminDropRace(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "parcels")
	value(e.store.Delete(t.Context(), enqueue(t, q, "x")))(t)
	tx := value(e.db.BeginTx(t.Context(), nil))(t)
	defer tx.Rollback()
	id := enqueue(t, q.WithTx(tx), "under way")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := e.store.DropQueue(ctx, "parcels"); err == nil {
		t.Fatal("the queue was dropped under an enqueue that had not committed")
	}
	must(t, tx.Commit())
	wantError(t, e.store.DropQueue(t.Context(), "parcels"), pgqrs.ErrState)
	equal(t, "message", dequeueOne(t, q).ID, id)
}

func adminWorkers(t *testing.T, e *env) {
	equal(t, "workers of a new database", len(value(e.store.Workers(t.Context()))(t)), 0)
	q := pgqrs.NewQueue[int](e.store, "parcels")
	value(q.EnqueueBatch(t.Context(), make([]int, 5)))(t)
	other := e.newStore(t, pgqrs.Config{})
	ms := dequeue(t, q, 3)
	dequeue(t, pgqrs.NewQueue[int](other, "parcels"), 1)
	must(t, q.Ack(t.Context(), ms[0]))
	list := value(e.store.Workers(t.Context()))(t)
	equal(t, "workers", len(list), 2)
	slices.SortFunc(list, func(a, b pgqrs.WorkerInfo) int { return int(b.Leased - a.Leased) }) // they may have started in the same millisecond
	for i, held := range []int64{2, 1} {
		w := list[i]
		equal(t, "queue", w.Queue, "parcels")
		equal(t, "status", w.State, "ready")
		equal(t, "messages held", w.Leased, held)
		if w.StartedAt.IsZero() || w.HeartbeatAt.IsZero() || !w.ShutdownAt.IsZero() || !strings.HasSuffix(w.Name, "/parcels") {
			t.Errorf("worker is %+v; want a start, a heartbeat, no end, and a name that ends in /parcels", w)
		}
	}
	equal(t, "owner of a message", ms[1].WorkerID, list[0].ID)
	must(t, other.Close())
	stopped := e.worker(t, list[1].Name)
	equal(t, "status after Close", stopped.State, "stopped")
	if stopped.ShutdownAt.IsZero() {
		t.Error("it is not known when the worker stopped")
	}
}

// adminScript makes each administrative call once on a database that adminScene set up.
func adminScript(t *testing.T, e *env, s *pgqrs.Store, ids map[pgqrs.MessageState]int64) {
	t.Helper()
	ctx := t.Context()
	equal(t, "messages deleted", value(s.Delete(ctx, ids[pgqrs.Archived]))(t), 1)
	equal(t, "messages redriven", value(s.Redrive(ctx, ids[pgqrs.Dead]))(t), 1)
	equal(t, "messages purged", value(s.Purge(ctx, "parcels", pgqrs.Scheduled))(t), 1)
	equal(t, "all redriven", value(s.RedriveAll(ctx, "letters"))(t), 1)
	must(t, s.PauseQueue(ctx, "parcels"))
	must(t, s.DropQueue(ctx, "empty"))
	workers := value(s.Workers(ctx))(t)
	must(t, s.SuspendWorker(ctx, workers[0].ID))
	equal(t, "ready messages as the transaction sees them", value(s.Queues(ctx, "parcels"))(t)[0].Ready, 2)
}

func adminScene(t *testing.T, e *env) map[pgqrs.MessageState]int64 {
	t.Helper()
	_, ids, _ := e.oneOfEach(t, "parcels")
	deadLetter(t, pgqrs.NewQueue[string](e.store, "letters"))
	value(e.store.Delete(t.Context(), enqueue(t, pgqrs.NewQueue[string](e.store, "empty"), "x")))(t)
	return ids
}

// inTransaction runs the script in a transaction and leaves it open.
func inTransaction(t *testing.T, e *env, ids map[pgqrs.MessageState]int64) *sql.Tx {
	t.Helper()
	tx := value(e.db.BeginTx(t.Context(), nil))(t)
	t.Cleanup(func() { tx.Rollback() })
	adminScript(t, e, e.store.WithTx(tx), ids)
	return tx
}

func adminRollback(t *testing.T, e *env) {
	must(t, inTransaction(t, e, adminScene(t, e)).Rollback())
	e.wantCounts(t, "parcels", 1, 1, 1, 1, 1)
	e.wantCounts(t, "letters", 0, 0, 0, 0, 1)
	e.wantCounts(t, "empty", 0, 0, 0, 0, 0)
	equal(t, "time of a pause", e.stats(t, "parcels").PausedAt, time.Time{})
	equal(t, "status of the worker", value(e.store.Workers(t.Context()))(t)[0].State, "ready")
}

func adminCommit(t *testing.T, e *env) {
	must(t, inTransaction(t, e, adminScene(t, e)).Commit())
	e.wantCounts(t, "parcels", 2, 0, 1, 0, 0)
	e.wantCounts(t, "letters", 1, 0, 0, 0, 0)
	equal(t, "dropped queues left", len(value(e.store.Queues(t.Context(), "empty"))(t)), 0)
	if e.stats(t, "parcels").PausedAt.IsZero() {
		t.Error("the queue is not paused")
	}
	equal(t, "status of the worker", value(e.store.Workers(t.Context()))(t)[0].State, "suspended")
}
