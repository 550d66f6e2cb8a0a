package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var groupCases = []testcase{
	{"messages of a group are delivered one at a time, in the order of their enqueue", "the withdrawal would be booked before the deposit", groupOrder},
	{"groups, and messages without one, do not wait for each other", "one account's trouble would stop all the others", groupApart},
	{"a batch may hold messages of many groups and of none, and each keeps its order", "an import would have to be split by account", groupBatch},
	{"a head that fails holds up its group until it succeeds", "what builds on a failed booking would be booked without it", groupHeadFails},
	{"a head that dies lets its group go on", "one bad message would hold up its account for ever", groupHeadDies},
	{"a head that was given back, or whose holder died, comes again first", "a restart of a worker would change the order", groupHeadReturns},
	{"a delayed head holds up its group", "a later message would overtake one that was promised before it", groupDelayed},
	{"deleting the head, by its holder or by an operator, lets its group go on", "the group would wait for a message that is gone", groupDeleted},
	{"purging what is ready leaves what that lets go", "an operator who purges three messages would lose three million", groupPurged},
	{"a purge that is broken off lets go what follows the messages that it has deleted", "groups would stand still for an operator's Ctrl-C", groupPurgeBroken},
	{"a dead letter that is redriven comes before what was enqueued after it", "the second try would work on the state of the day after", groupRedriven},
	{"dead letters of groups whose key is taken, or has been taken by an older one, are left and named", "an operator who redrives a hundred would get an error of the database, and none redriven", groupRedrivenKeyed},
	{"a dead letter of a group that another has redriven meanwhile is left to its holder", "two would work on one message, and the first one's work be lost", groupRedrivenMeanwhile},
	{"a blocked message that ends does not keep its group from going on", "a group would stand still until somebody looks, because of a message that is gone", groupBlockedEnds},
	{"blocked messages are listed, counted and found as such", "an operator would take them for messages scheduled for the year 9999", groupListed},
	{"a message shows its group, and not how that travels", "a handler could not tell whose message it has, or would forward a header that is not its own", groupShown},
	{"a group and a key go together", "idempotent enqueueing would be at odds with order", groupKeyed},
	{"in the caller's transaction a group's messages are there if and only if it commits", "the group would wait for a message that never was, or lose one", groupInTx},
	{"a group that is held up though it has room is found by maintenance", "a process that died at the wrong time would stop a group for ever", groupSwept},
	{"a group that passes over what has failed, and is held up by nothing else, is found by maintenance", "a process that died at the wrong time would stop a group until the retry", groupSkipSwept},
	{"a group is found by maintenance however many groups its queue has", "only the first thousand customers could rely on it", groupSweptFar},
	{"the row of a group that is held up stays, whoever prunes", "a group would be lost to maintenance, and stand still for ever", groupPrunedStuck},
	{"the row of an idle group stays as long as its rate has something to say", "a group of one a day would get two", groupPrunedPaced},
	{"the rows of groups that are long idle are deleted", "the table would grow with every customer there ever was", groupPruned},
}

// grouped enqueues payloads to a group.
func grouped(t *testing.T, q *pgqrs.Queue[string], group string, payloads ...string) []int64 {
	t.Helper()
	return value(q.EnqueueBatch(t.Context(), payloads, pgqrs.Group(group)))(t)
}

// states returns the states of messages by id.
func (e *env) states(t *testing.T, ids ...int64) []pgqrs.MessageState {
	t.Helper()
	list := make([]pgqrs.MessageState, len(ids))
	for i, id := range ids {
		list[i] = e.info(t, id).State
	}
	return list
}

// groupRows counts the rows of groups.
func (e *env) groupRows(t *testing.T, where string) (n int) {
	t.Helper()
	must(t, e.db.QueryRowContext(t.Context(), "SELECT count(*) FROM pgqrs_groups WHERE "+where).Scan(&n))
	return n
}

func groupOrder(t *testing.T, e *env) {
	q := jobs(e)
	grouped(t, q, "a", "1", "2")
	enqueue(t, q, "3", pgqrs.Group("a"), pgqrs.Priority(2))
	grouped(t, q, "a", "4")
	for i := 1; i <= 4; i++ {
		m := dequeueOne(t, q)
		equal(t, "payload", m.Payload, strconv.Itoa(i))
		wantNone(t, q)
		must(t, q.Ack(t.Context(), m))
	}
	wantNone(t, q)
	enqueue(t, q, "5", pgqrs.Group("a"))
	equal(t, "payload", dequeueOne(t, q).Payload, "5")
}

func groupApart(t *testing.T, e *env) {
	q := jobs(e)
	grouped(t, q, "a", "a1", "a2")
	grouped(t, q, "b", "b1", "b2")
	grouped(t, pgqrs.NewQueue[string](e.store, "others"), "a", "another queue's")
	enqueue(t, q, "free")
	equalSlices(t, "payloads", drainBy(t, q, 10), []string{"a1", "b1", "free", "a2", "b2"})
}

func groupBatch(t *testing.T, e *env) {
	q := jobs(e)
	all := []string{"a", "", "b", "a", "b", "a", ""}
	ids := value(q.EnqueueBatch(t.Context(), all, pgqrs.Each(func(i int) []pgqrs.Option {
		if all[i] == "" {
			return nil
		}
		return []pgqrs.Option{pgqrs.Group(all[i])}
	})))(t)
	got := map[string][]int64{}
	for _, want := range []int{4, 2, 1} {
		ms := dequeue(t, q, 10)
		equal(t, "messages at a time", len(ms), want)
		for _, m := range ms {
			equal(t, "group", m.Group, m.Payload)
			got[m.Group] = append(got[m.Group], m.ID)
		}
		must(t, q.Ack(t.Context(), ms...))
	}
	equalSlices(t, "ids of a", got["a"], []int64{ids[0], ids[3], ids[5]})
	equalSlices(t, "ids of b", got["b"], []int64{ids[2], ids[4]})
	equalSlices(t, "ids of none", got[""], []int64{ids[1], ids[6]})
}

func groupHeadFails(t *testing.T, e *env) {
	q := jobs(e).With(pgqrs.Policy{Backoff: func(int) time.Duration { return time.Minute }})
	ids := grouped(t, q, "a", "head", "next")
	must(t, q.Fail(t.Context(), errors.New("not yet"), dequeueOne(t, q)))
	equalSlices(t, "states", e.states(t, ids...), []pgqrs.MessageState{pgqrs.Scheduled, pgqrs.Blocked})
	wantNone(t, q)
	pgqrstest.Advance(t, e.store, 2*time.Minute)
	equalSlices(t, "payloads", drainBy(t, q, 10), []string{"head", "next"})
}

func groupHeadDies(t *testing.T, e *env) {
	q := jobs(e)
	ids := grouped(t, q, "a", "head", "next")
	must(t, q.Fail(t.Context(), pgqrs.Permanent(errors.New("never")), dequeueOne(t, q)))
	equalSlices(t, "states", e.states(t, ids...), []pgqrs.MessageState{pgqrs.Dead, pgqrs.Ready})
	equal(t, "payload", dequeueOne(t, q).Payload, "next")
}

func groupHeadReturns(t *testing.T, e *env) {
	q := jobs(e)
	grouped(t, q, "a", "head", "next")
	must(t, q.Release(t.Context(), 0, dequeueOne(t, q)))
	equal(t, "payload after a release", dequeueOne(t, q).Payload, "head")
	pgqrstest.Advance(t, e.store, time.Minute) // the lease ends
	equalSlices(t, "payloads after the lease's end", drainBy(t, q, 10), []string{"head", "next"})
}

func groupDelayed(t *testing.T, e *env) {
	q := jobs(e)
	head := enqueue(t, q, "head", pgqrs.Group("a"), pgqrs.Delay(time.Hour))
	next := enqueue(t, q, "next", pgqrs.Group("a"), pgqrs.Delay(2*time.Hour))
	equalSlices(t, "states", e.states(t, head, next), []pgqrs.MessageState{pgqrs.Scheduled, pgqrs.Blocked})
	pgqrstest.Advance(t, e.store, 90*time.Minute)
	must(t, q.Ack(t.Context(), dequeueOne(t, q)))
	equalSlices(t, "states", e.states(t, head, next), []pgqrs.MessageState{pgqrs.Archived, pgqrs.Scheduled})
	pgqrstest.Advance(t, e.store, time.Hour)
	equal(t, "payload", dequeueOne(t, q).Payload, "next")
}

func groupDeleted(t *testing.T, e *env) {
	q := jobs(e)
	ids := grouped(t, q, "a", "1", "2", "3", "4", "5")
	must(t, q.Delete(t.Context(), dequeueOne(t, q)))
	equal(t, "state after Queue.Delete", e.info(t, ids[1]).State, pgqrs.Ready)
	equal(t, "deleted", value(e.store.Delete(t.Context(), ids[1], ids[2]))(t), 2)
	equal(t, "state after Store.Delete", e.info(t, ids[3]).State, pgqrs.Ready)
	dequeueOne(t, q)
	equal(t, "purged", value(e.store.Purge(t.Context(), "jobs", pgqrs.Leased))(t), 1)
	equal(t, "payload", dequeueOne(t, q).Payload, "5")
}

func groupPurged(t *testing.T, e *env) {
	q := jobs(e)
	for i := range 3 {
		grouped(t, q, strconv.Itoa(i), "head", "next", "last")
	}
	equal(t, "purged", value(e.store.Purge(t.Context(), "jobs", pgqrs.Ready))(t), 3)
	equalSlices(t, "payloads", payloads(dequeue(t, q, 10)), []string{"next", "next", "next"})
	equal(t, "purged", value(e.store.Purge(t.Context(), "jobs", pgqrs.Blocked))(t), 3)
	equal(t, "blocked", e.stats(t, "jobs").Blocked, 0)
}

func groupPurgeBroken(t *testing.T, e *env) {
	const page = 1000
	store, net := e.farStore(t)
	q := jobs(e)
	for _, payload := range []string{"head", "next"} {
		value(q.EnqueueBatch(t.Context(), slices.Repeat([]string{payload}, page+1), pgqrs.Each(func(i int) []pgqrs.Option {
			return []pgqrs.Option{pgqrs.Group(strconv.Itoa(i))}
		})))(t)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pages := 0
	net.fail(func(text string) fault {
		if strings.Contains(text, "pgqrs:message.lock") {
			if pages++; pages == 2 {
				cancel()
			}
		}
		return none
	})
	n, err := store.Purge(ctx, "jobs", pgqrs.Ready)
	wantError(t, err, context.Canceled)
	equal(t, "purged", n, page)
	s := e.stats(t, "jobs")
	equalSlices(t, "ready, blocked", []int64{s.Ready, s.Blocked}, []int64{page + 1, 1})
}

func groupRedriven(t *testing.T, e *env) {
	q := jobs(e)
	ids := grouped(t, q, "a", "1", "2", "3", "4")
	kill(t, q, dequeueOne(t, q))
	second := dequeueOne(t, q)
	equal(t, "redriven", value(e.store.Redrive(t.Context(), ids[0]))(t), 1)
	equalSlices(t, "states", e.states(t, ids...), []pgqrs.MessageState{pgqrs.Blocked, pgqrs.Leased, pgqrs.Blocked, pgqrs.Blocked})
	kill(t, q, second)
	equal(t, "redriven", value(e.store.RedriveAll(t.Context(), "jobs"))(t), 1)
	equalSlices(t, "payloads", drainBy(t, q, 10), []string{"1", "2", "3", "4"})
	equal(t, "redriven", value(e.store.Redrive(t.Context(), ids[3], ids[2]))(t), 2)
	equalSlices(t, "payloads", drainBy(t, q, 10), []string{"3", "4"})
}

func groupRedrivenKeyed(t *testing.T, e *env) {
	q := jobs(e)
	var ids []int64
	for range 3 {
		ids = append(ids, enqueue(t, q, "x", pgqrs.Group("a"), pgqrs.Key("k")))
		if len(ids) < 3 {
			kill(t, q, dequeueOne(t, q))
		}
	}
	other := enqueue(t, q, "y", pgqrs.Group("b"))
	last := dequeue(t, q, 2)
	kill(t, q, last[1])
	n, err := e.store.Redrive(t.Context(), ids[0], ids[1], other)
	equal(t, "redriven", n, 1)
	wantError(t, err, pgqrs.ErrDuplicate)
	wantErrorText(t, err, fmt.Sprintf("messages [%d %d]", ids[0], ids[1]))
	equal(t, "state of the one without a key", e.info(t, other).State, pgqrs.Ready)
	kill(t, q, last[0])
	n, err = e.store.Redrive(t.Context(), ids[2], ids[1], ids[0])
	equal(t, "redriven of three with one key", n, 1)
	wantError(t, err, pgqrs.ErrDuplicate)
	equalSlices(t, "states", e.states(t, ids...), []pgqrs.MessageState{pgqrs.Ready, pgqrs.Dead, pgqrs.Dead})
}

func groupRedrivenMeanwhile(t *testing.T, e *env) {
	q := jobs(e)
	id := grouped(t, q, "a", "x")[0]
	kill(t, q, dequeueOne(t, q))
	store, net := e.farStore(t)
	var seen atomic.Bool
	var then sync.Once
	net.fail(func(text string) fault {
		if seen.Load() && strings.Contains(text, "pgqrs:begin") {
			then.Do(func() {
				equal(t, "redriven meanwhile", value(e.store.Redrive(t.Context(), id))(t), 1)
				dequeueOne(t, q)
			})
		}
		if strings.Contains(text, "pgqrs:message.get") {
			seen.Store(true)
		}
		return none
	})
	_, err := store.Redrive(t.Context(), id)
	if err != nil {
		wantError(t, err, pgqrs.ErrDuplicate) // it was dead when it was looked at
	}
	m := e.info(t, id)
	equal(t, "state", m.State, pgqrs.Leased)
	equal(t, "attempt", m.Attempt, 1)
}

func groupBlockedEnds(t *testing.T, e *env) {
	q := jobs(e)
	ids := grouped(t, q, "a", "1", "2", "3")
	e.poke(t, "UPDATE pgqrs_messages SET archived_at = enqueued_at WHERE id = %d", ids[1]) // as pgqrs 0.15 would
	must(t, q.Ack(t.Context(), dequeueOne(t, q)))
	equal(t, "payload", dequeueOne(t, q).Payload, "3")
	equal(t, "state of the one that has ended", e.info(t, ids[1]).State, pgqrs.Archived)
}

func groupListed(t *testing.T, e *env) {
	q := jobs(e)
	enqueue(t, q, "scheduled", pgqrs.Delay(time.Hour))
	all := make([]string, 7)
	ids := grouped(t, q, "a", all...)
	late := enqueue(t, q, "late", pgqrs.Group("b"), pgqrs.Priority(2), pgqrs.Delay(time.Hour))
	last := enqueue(t, q, "last", pgqrs.Group("b"), pgqrs.Priority(2), pgqrs.Delay(2*time.Hour))
	s := e.stats(t, "jobs")
	equalSlices(t, "ready, scheduled, blocked", []int64{s.Ready, s.Scheduled, s.Blocked}, []int64{1, 2, 7})
	d := e.depth(t, "jobs")
	equalSlices(t, "ready, scheduled, blocked in Depths", []int64{d.Ready, d.Scheduled, d.Blocked}, []int64{1, 2, 7})
	f := pgqrs.MessageFilter{Queue: "jobs", State: pgqrs.Blocked, Limit: 3}
	var listed []int64
	for {
		ms := value(e.store.Messages(t.Context(), f))(t)
		if len(ms) == 0 {
			break
		}
		listed = append(listed, infoIDs(ms)...)
		f.After = ms[len(ms)-1].Cursor
	}
	equalSlices(t, "blocked, by id", listed, append(ids[1:], last))
	f = pgqrs.MessageFilter{Queue: "jobs", State: pgqrs.Scheduled}
	equal(t, "scheduled ones listed", len(value(e.store.Messages(t.Context(), f))(t)), 2)
	m := e.info(t, last)
	equal(t, "state", m.State, pgqrs.Blocked)
	if between := m.DueAt.Sub(e.info(t, late).DueAt); between < 59*time.Minute || between > 61*time.Minute {
		t.Errorf("it is due %v after the one before it; want an hour", between)
	}
	f = pgqrs.MessageFilter{Queue: "jobs", State: pgqrs.Ready}
	equal(t, "ready ones listed", len(value(e.store.Messages(t.Context(), f))(t)), 1)
}

func groupShown(t *testing.T, e *env) {
	q := jobs(e)
	group := `Ünï "{}", \n 2026-11-22`
	id := enqueue(t, q, "x", pgqrs.Group(group), pgqrs.Headers(map[string]string{"tenant": "7"}))
	plain := enqueue(t, q, "y", pgqrs.Group(group))
	m := dequeueOne(t, q)
	for what, got := range map[string]pgqrs.MessageInfo{"dequeued": m.MessageInfo, "listed": e.info(t, id)} {
		equal(t, "group as "+what, got.Group, group)
		equal(t, "headers as "+what, fmt.Sprint(got.Headers), "map[tenant:7]")
	}
	equal(t, "headers of one without", len(e.info(t, plain).Headers), 0)
	must(t, q.Ack(t.Context(), m))
	equal(t, "group", dequeueOne(t, q).Group, group)
	_, err := q.Enqueue(t.Context(), "x", pgqrs.Headers(map[string]string{"pgqrs-group": "b"}))
	wantErrorText(t, err, "reserved for the library")
	_, err = q.Enqueue(t.Context(), "x", pgqrs.Group(""))
	wantErrorText(t, err, "empty group")
}

func groupKeyed(t *testing.T, e *env) {
	q := jobs(e)
	head := enqueue(t, q, "head", pgqrs.Group("a"), pgqrs.Key("k1"))
	next := enqueue(t, q, "next", pgqrs.Group("a"), pgqrs.Key("k2"))
	equal(t, "id of a taken key", enqueue(t, q, "again", pgqrs.Group("a"), pgqrs.Key("k2")), next)
	_, err := q.Enqueue(t.Context(), "again", pgqrs.Group("b"), pgqrs.Unique("k1"))
	wantError(t, err, pgqrs.ErrDuplicate)
	must(t, q.Ack(t.Context(), dequeueOne(t, q)))
	again := enqueue(t, q, "again", pgqrs.Group("a"), pgqrs.Key("k1"))
	if again == head {
		t.Errorf("the key of an archived message gave its id, %d", head)
	}
	equalSlices(t, "payloads", drainBy(t, q, 10), []string{"next", "again"})
}

func groupInTx(t *testing.T, e *env) {
	eachTx(e, func(tx *callerTx) {
		q := jobs(e)
		ids := grouped(t, q, "a", "head", "next")
		m := dequeueOne(t, q)
		bound := q.WithTx(tx.begin(t))
		last := enqueue(t, bound, "last", pgqrs.Group("a"))
		must(t, bound.Ack(t.Context(), m))
		tx.end(t)
		if tx.commit {
			equalSlices(t, "states", e.states(t, ids[0], ids[1], last), []pgqrs.MessageState{pgqrs.Archived, pgqrs.Ready, pgqrs.Blocked})
			equalSlices(t, "payloads", drainBy(t, q, 10), []string{"next", "last"})
			return
		}
		equalSlices(t, "states", e.states(t, ids...), []pgqrs.MessageState{pgqrs.Leased, pgqrs.Blocked})
		equal(t, "the one enqueued", e.view(t, last), "none")
		must(t, q.Ack(t.Context(), m))
		equalSlices(t, "payloads", drainBy(t, q, 10), []string{"next"})
	})
}

func groupSwept(t *testing.T, e *env) {
	q := jobs(e)
	for i := range 5 {
		grouped(t, q, strconv.Itoa(i), "head", "next")
	}
	e.poke(t, "UPDATE pgqrs_messages SET archived_at = enqueued_at WHERE group_key IN ('1', '3') AND parked_vt IS NULL") // as pgqrs 0.15 would
	h, done := handling(q)
	start(t, fast(h))
	for range 8 {
		receive(t, "a message of each group", done)
	}
}

func groupSkipSwept(t *testing.T, e *env) {
	q := skipping(t, e)
	ids := grouped(t, q, "a", "1", "2")
	must(t, q.Fail(t.Context(), errors.New("later"), dequeueOne(t, q)))
	// As if the process had died before it unblocked the second message.
	e.poke(t, "UPDATE pgqrs_messages SET vt = parked_vt, parked_vt = NULL WHERE id = %d", ids[0])
	e.poke(t, "UPDATE pgqrs_messages SET parked_vt = vt, vt = '%s' WHERE id = %d", e.timeText(time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)), ids[1])
	equalSlices(t, "states", e.states(t, ids...), []pgqrs.MessageState{pgqrs.Scheduled, pgqrs.Blocked})
	h, done := handling(q)
	start(t, fast(h))
	equal(t, "payload", receive(t, "the second one", done), "2")
}

func groupSweptFar(t *testing.T, e *env) {
	q := jobs(e)
	value(q.EnqueueBatch(t.Context(), make([]string, 1050), pgqrs.Each(func(i int) []pgqrs.Option {
		return []pgqrs.Option{pgqrs.Group(fmt.Sprintf("%04d", i))}
	})))(t)
	ids := grouped(t, q, "z", "head", "next")
	e.poke(t, "UPDATE pgqrs_messages SET archived_at = enqueued_at WHERE id < %d", ids[1])
	h, done := handling(q)
	start(t, fast(h))
	equal(t, "payload", receive(t, "the message of the last group", done), "next")
}

func groupPrunedStuck(t *testing.T, e *env) {
	q := jobs(e)
	ids := grouped(t, q, "stuck", "head", "next")
	grouped(t, pgqrs.NewQueue[string](e.store, "another"), "idle", "x")
	drainBy(t, pgqrs.NewQueue[string](e.store, "another"), 1)
	e.poke(t, "UPDATE pgqrs_messages SET archived_at = enqueued_at WHERE id = %d", ids[0])
	pgqrstest.Advance(t, e.store, 2*time.Hour)
	e.maintenance(t, pgqrs.Policy{}) // of a worker that does not handle the queue
	eventually(t, "the idle group's row is gone", func() bool { return e.groupRows(t, "group_key = 'idle'") == 0 })
	h, done := handling(q)
	start(t, fast(h))
	equal(t, "payload", receive(t, "the message that was held up", done), "next")
}

func groupPrunedPaced(t *testing.T, e *env) {
	q := paced(t, e, pgqrs.Policy{GroupRate: pgqrs.Rate{N: 1, Per: 24 * time.Hour}})
	grouped(t, q, "a", "today's")
	grouped(t, pgqrs.NewQueue[string](e.store, "another"), "idle", "x")
	equalSlices(t, "payloads", drainBy(t, q, 10), []string{"today's"})
	drainBy(t, pgqrs.NewQueue[string](e.store, "another"), 1)
	pgqrstest.Advance(t, e.store, 2*time.Hour)
	e.maintenance(t, pgqrs.Policy{})
	eventually(t, "the idle group's row is gone", func() bool { return e.groupRows(t, "group_key = 'idle'") == 0 })
	grouped(t, q, "a", "tomorrow's")
	wantNone(t, q)
	pgqrstest.Advance(t, e.store, 23*time.Hour)
	equalSlices(t, "payloads a day later", drainBy(t, q, 10), []string{"tomorrow's"})
}

func groupPruned(t *testing.T, e *env) {
	q := jobs(e)
	grouped(t, q, "idle", "x")
	drainBy(t, q, 1)
	grouped(t, q, "waiting", "head", "next")
	pgqrstest.Advance(t, e.store, 2*time.Hour)
	grouped(t, q, "fresh", "x")
	equal(t, "acked", len(drainBy(t, q, 1)), 3)
	grouped(t, q, "waiting", "y")
	e.poke(t, "UPDATE pgqrs_groups SET touched_at = (SELECT min(enqueued_at) FROM pgqrs_messages) WHERE group_key = 'waiting'")
	e.maintenance(t, pgqrs.Policy{})
	eventually(t, "the idle group's row is gone", func() bool { return e.groupRows(t, "true") == 2 })
	equal(t, "rows of the others", e.groupRows(t, "group_key IN ('waiting', 'fresh')"), 2)
}
