package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

// list reads a listing page by page.
func (e *env) list(t *testing.T, f pgqrs.MessageFilter) (all []pgqrs.MessageInfo, pages int) {
	t.Helper()
	for {
		ms := value(e.store.Messages(t.Context(), f))(t)
		if len(ms) == 0 {
			return all, pages
		}
		pages++
		all = append(all, ms...)
		f.After = ms[len(ms)-1].Cursor
		if len(all) > 10000 {
			t.Fatal("the listing does not end")
		}
	}
}

// wantPages checks a listing of five messages in pages of two.
func (e *env) wantPages(t *testing.T, queue string, state pgqrs.MessageState, want []int64) {
	t.Helper()
	ms, pages := e.list(t, pgqrs.MessageFilter{Queue: queue, State: state, Limit: 2})
	equalSlices(t, fmt.Sprintf("%s messages", state), infoIDs(ms), want)
	equal(t, "number of pages", pages, 3)
	for _, m := range ms {
		equal(t, "listed state", m.State, state)
	}
}

func adminLivePages(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "parcels")
	var ids []int64
	for i := range 5 { // due in the reverse order, whatever the priority
		ids = append(ids, enqueue(t, q, i, pgqrs.Delay(time.Duration(50-10*i)*time.Minute), pgqrs.Priority(i%4-1)))
	}
	slices.Reverse(ids)
	e.wantPages(t, "parcels", pgqrs.Scheduled, ids)
	pgqrstest.Advance(t, e.store, 2*time.Hour)
	e.wantPages(t, "parcels", pgqrs.Ready, ids)

	var held []int64
	for i := range 5 {
		ms := value(q.Dequeue(t.Context(), 1, time.Duration(50-10*i)*time.Minute))(t)
		equal(t, "messages dequeued", len(ms), 1)
		held = append(held, ms[0].ID)
	}
	slices.Reverse(held)
	e.wantPages(t, "parcels", pgqrs.Leased, held)
}

func adminEndedPages(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "parcels")
	value(q.EnqueueBatch(t.Context(), make([]int, 10)))(t)
	ms := dequeue(t, q, 10)
	var archived, dead []int64
	for _, i := range []int{2, 0, 4, 1, 3} {
		must(t, q.Ack(t.Context(), ms[i]))
		kill(t, q, ms[5+i])
		archived = append(archived, ms[i].ID)
		dead = append(dead, ms[5+i].ID)
		pgqrstest.Advance(t, e.store, time.Second)
	}
	slices.Reverse(archived)
	slices.Reverse(dead)
	e.wantPages(t, "parcels", pgqrs.Archived, archived)
	e.wantPages(t, "parcels", pgqrs.Dead, dead)
}

func adminTies(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "parcels")
	ids := value(q.EnqueueBatch(t.Context(), make([]int, 5)))(t)
	e.wantPages(t, "parcels", pgqrs.Ready, ids)
	ms := dequeue(t, q, 5)
	e.wantPages(t, "parcels", pgqrs.Leased, ids)
	kill(t, q, ms...)
	slices.Reverse(ids)
	e.wantPages(t, "parcels", pgqrs.Dead, ids)
}

func adminByID(t *testing.T, e *env) {
	_, first, _ := e.oneOfEach(t, "first")
	_, second, _ := e.oneOfEach(t, "second")
	f := pgqrs.MessageFilter{IDs: []int64{1 << 60, second[pgqrs.Ready], first[pgqrs.Dead], -1}}
	equalSlices(t, "listed", infoIDs(value(e.store.Messages(t.Context(), f))(t)), []int64{first[pgqrs.Dead], second[pgqrs.Ready]})
	for _, state := range allStates {
		m := e.info(t, first[state])
		equal(t, "state", m.State, state)
		equal(t, "queue", m.Queue, "first")
		equal(t, "has an owner", m.WorkerID != 0, state == pgqrs.Leased || state == pgqrs.Archived || state == pgqrs.Dead)
		equal(t, "has a lease", !m.LeasedUntil.IsZero(), state == pgqrs.Leased)
		equal(t, "has ended", !m.EndedAt.IsZero(), state == pgqrs.Archived || state == pgqrs.Dead)
		equal(t, "has a due time", !m.DueAt.IsZero(), state == pgqrs.Ready || state == pgqrs.Scheduled || state == pgqrs.Leased)
	}
}

func adminByKey(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "parcels")
	dead := deadLetter(t, q, pgqrs.Key("2026-11-22"))
	f := pgqrs.MessageFilter{Queue: "parcels", Key: "2026-11-22"}
	equal(t, "messages of a key that is free again", len(value(e.store.Messages(t.Context(), f))(t)), 0)
	id := enqueue(t, q, "live", pgqrs.Key("2026-11-22"), pgqrs.Delay(time.Hour))
	enqueue(t, pgqrs.NewQueue[string](e.store, "letters"), "other", pgqrs.Key("2026-11-22"))
	equalSlices(t, "messages of the key", infoIDs(value(e.store.Messages(t.Context(), f))(t)), []int64{id})
	equal(t, "state of the first", e.info(t, dead).State, pgqrs.Dead)
}

func adminBadFilters(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "parcels")
	enqueue(t, q, 1)
	for _, c := range []struct {
		filter pgqrs.MessageFilter
		want   string
	}{
		{pgqrs.MessageFilter{}, "Queue"},
		{pgqrs.MessageFilter{State: pgqrs.Ready}, "Queue"},
		{pgqrs.MessageFilter{Queue: "parcels"}, `state ""`},
		{pgqrs.MessageFilter{Queue: "parcels", State: "redy"}, `state "redy"`},
		{pgqrs.MessageFilter{Queue: "parcels", State: pgqrs.Ready, Limit: -1}, "Limit -1"},
		{pgqrs.MessageFilter{Queue: "parcels", State: pgqrs.Ready, Limit: 1001}, "Limit 1001"},
		{pgqrs.MessageFilter{Queue: "parcels", State: pgqrs.Ready, After: "yesterday"}, `After "yesterday"`},
		{pgqrs.MessageFilter{Queue: "parcels", State: pgqrs.Ready, After: "2026-11-22 10:00:00/x"}, "After"},
		{pgqrs.MessageFilter{Queue: "parcels", State: pgqrs.Ready, After: "noon/7"}, "After"},
		{pgqrs.MessageFilter{IDs: []int64{1}, Queue: "parcels"}, "IDs"},
		{pgqrs.MessageFilter{IDs: []int64{1}, State: pgqrs.Ready}, "IDs"},
		{pgqrs.MessageFilter{Key: "k"}, "Key"},
		{pgqrs.MessageFilter{Key: "k", Queue: "parcels", State: pgqrs.Ready}, "Key"},
		{pgqrs.MessageFilter{Key: "k", Queue: "parcels", IDs: []int64{1}}, "Key"},
	} {
		ms, err := e.store.Messages(t.Context(), c.filter)
		if err == nil || len(ms) > 0 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("filter %+v: %d messages, error %v; want an error with %q", c.filter, len(ms), err, c.want)
		}
	}
	if _, err := e.store.Purge(t.Context(), "parcels", "redy"); err == nil || !strings.Contains(err.Error(), `"redy"`) {
		t.Errorf("Purge of an unknown state: %v; want an error that names it", err)
	}
	none := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "unknown", State: pgqrs.Ready}))(t)
	equal(t, "messages of an unknown queue", len(none), 0)
}

func adminUndecodable(t *testing.T, e *env) {
	id := enqueue(t, pgqrs.NewQueue[string](e.store, "mixed"), "no number")
	equal(t, "messages dequeued", len(dequeue(t, pgqrs.NewQueue[int](e.store, "mixed"), 1)), 0)
	list := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "mixed", State: pgqrs.Dead}))(t)
	equalSlices(t, "dead letters", infoIDs(list), []int64{id})
	equal(t, "payload", string(list[0].Raw), `"no number"`)
	if !strings.Contains(list[0].LastError, "decode") {
		t.Fatalf("the last error is %q; want one that says that the payload does not decode", list[0].LastError)
	}
	equal(t, "messages redriven", value(e.store.Redrive(t.Context(), id))(t), 1)
	equal(t, "state", e.info(t, id).State, pgqrs.Ready)
	equal(t, "messages deleted", value(e.store.Delete(t.Context(), id))(t), 1)
}

func adminDeadLetter(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "parcels").With(pgqrs.Policy{MaxAttempts: 2, Backoff: func(int) time.Duration { return 0 }})
	id := enqueue(t, q, "fragile")
	must(t, q.Fail(t.Context(), errors.New("dropped it"), dequeueOne(t, q)))
	m := e.info(t, id)
	equal(t, "state after the first failure", m.State, pgqrs.Ready)
	equal(t, "last error after the first failure", m.LastError, "dropped it")
	must(t, q.Fail(t.Context(), errors.New("lost it"), dequeueOne(t, q)))
	m = e.info(t, id)
	equal(t, "state", m.State, pgqrs.Dead)
	equal(t, "attempts", m.Attempt, 2)
	equal(t, "last error", m.LastError, "lost it")
	if m.EndedAt.IsZero() {
		t.Fatal("it is not known when the message died")
	}
}

func adminRedriveDead(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "parcels").With(pgqrs.Policy{MaxAttempts: 1})
	id := enqueue(t, q, "fragile")
	first := dequeueOne(t, q)
	must(t, q.Fail(t.Context(), errors.New("dropped it"), first))
	equal(t, "messages redriven", value(e.store.Redrive(t.Context(), id))(t), 1)
	m := e.info(t, id)
	equal(t, "state", m.State, pgqrs.Ready)
	equal(t, "attempts", m.Attempt, 0)
	equal(t, "owner", m.WorkerID, 0)
	second := dequeueOne(t, q)
	equal(t, "attempt", second.Attempt, 1)
	if second.Claim <= first.Claim {
		t.Fatalf("claim number %d after %d; it must grow", second.Claim, first.Claim)
	}
	wantError(t, q.Ack(t.Context(), first), pgqrs.ErrLeaseLost)
	must(t, q.Ack(t.Context(), second))
}

func adminRedriveArchived(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "parcels")
	id := enqueue(t, q, "sent")
	first := dequeueOne(t, q)
	must(t, q.Ack(t.Context(), first))
	equal(t, "messages redriven", value(e.store.Redrive(t.Context(), id))(t), 1)
	wantError(t, q.Ack(t.Context(), first), pgqrs.ErrLeaseLost)
	m := dequeueOne(t, q)
	equal(t, "id", m.ID, id)
	equal(t, "payload", m.Payload, "sent")
	equal(t, "attempt", m.Attempt, 1)
}

func adminRedriveNothing(t *testing.T, e *env) {
	_, ids, _ := e.oneOfEach(t, "parcels")
	ctx := t.Context()
	equal(t, "redriven without ids", value(e.store.Redrive(ctx))(t), 0)
	equal(t, "redriven of live and unknown ids", value(e.store.Redrive(ctx, ids[pgqrs.Ready], ids[pgqrs.Scheduled], ids[pgqrs.Leased], 1<<60, -1))(t), 0)
	equal(t, "redriven in an unknown queue", value(e.store.RedriveAll(ctx, "unknown"))(t), 0)
	e.wantCounts(t, "parcels", 1, 1, 1, 1, 1)
}

func adminRedriveTaken(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "parcels")
	taken := deadLetter(t, q, pgqrs.Key("k"))
	free := deadLetter(t, q, pgqrs.Key("free"))
	enqueue(t, q, "the new owner", pgqrs.Key("k"))
	n, err := e.store.Redrive(t.Context(), taken, free)
	wantError(t, err, pgqrs.ErrDuplicate)
	if !strings.Contains(err.Error(), fmt.Sprintf("[%d]", taken)) {
		t.Errorf("error is %v; want it to name message %d alone", err, taken)
	}
	equal(t, "messages redriven", n, 1)
	equal(t, "state of the one whose key is taken", e.info(t, taken).State, pgqrs.Dead)
	equal(t, "state of the other", e.info(t, free).State, pgqrs.Ready)
}

func adminRedriveTwins(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "parcels")
	first := deadLetter(t, q, pgqrs.Key("k"))
	second := deadLetter(t, q, pgqrs.Key("k"))
	n, err := e.store.Redrive(t.Context(), second, first)
	wantError(t, err, pgqrs.ErrDuplicate)
	equal(t, "messages redriven", n, 1)
	equal(t, "state of the first", e.info(t, first).State, pgqrs.Ready)
	equal(t, "state of the second", e.info(t, second).State, pgqrs.Dead)
}

// deadLetters makes n dead letters in a queue that has nothing ready.
func deadLetters(t *testing.T, q *pgqrs.Queue[int], n int) {
	t.Helper()
	value(q.EnqueueBatch(t.Context(), make([]int, n)))(t)
	ms := dequeue(t, q, n)
	equal(t, "messages dequeued", len(ms), n)
	kill(t, q, ms...)
}

func adminRedriveAll(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "parcels")
	deadLetters(t, q, 1201)
	deadLetters(t, pgqrs.NewQueue[int](e.store, "letters"), 1)
	words := pgqrs.NewQueue[string](e.store, "parcels")
	taken := deadLetter(t, words, pgqrs.Key("k"))
	enqueue(t, words, "the new owner", pgqrs.Key("k"))
	n, err := e.store.RedriveAll(t.Context(), "parcels")
	wantError(t, err, pgqrs.ErrDuplicate)
	if !strings.Contains(err.Error(), fmt.Sprintf("[%d]", taken)) {
		t.Errorf("error is %v; want it to name message %d alone", err, taken)
	}
	equal(t, "messages redriven", n, 1201)
	e.wantCounts(t, "parcels", 1202, 0, 0, 0, 1)
	e.wantCounts(t, "letters", 0, 0, 0, 0, 1)
}

func adminPurge(t *testing.T, e *env) {
	e.oneOfEach(t, "other")
	for i, state := range allStates {
		name := "parcels of the state " + string(state)
		e.oneOfEach(t, name)
		equal(t, fmt.Sprintf("%s messages purged", state), value(e.store.Purge(t.Context(), name, state))(t), 1)
		want := [5]int64{1, 1, 1, 1, 1}
		want[i] = 0
		e.wantCounts(t, name, want[:]...)
		equal(t, "purged again", value(e.store.Purge(t.Context(), name, state))(t), 0)
	}
	e.wantCounts(t, "other", 1, 1, 1, 1, 1)
	equal(t, "purged of an unknown queue", value(e.store.Purge(t.Context(), "unknown", pgqrs.Ready))(t), 0)
}

func adminPurgeMany(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "parcels")
	value(q.EnqueueBatch(t.Context(), make([]int, 2101), pgqrs.Each(func(i int) []pgqrs.Option {
		return []pgqrs.Option{pgqrs.Priority(i%4 - 1)}
	})))(t)
	equal(t, "messages purged", value(e.store.Purge(t.Context(), "parcels", pgqrs.Ready))(t), 2101)
	e.wantCounts(t, "parcels", 0, 0, 0, 0, 0)
}

func adminPurgeLeased(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "parcels")
	id := enqueue(t, q, "deleted")
	deleted := dequeueOne(t, q)
	equal(t, "messages deleted", value(e.store.Delete(t.Context(), id))(t), 1)
	wantError(t, q.Ack(t.Context(), deleted), pgqrs.ErrLeaseLost)
	enqueue(t, q, "purged")
	purged := dequeueOne(t, q)
	equal(t, "messages purged", value(e.store.Purge(t.Context(), "parcels", pgqrs.Leased))(t), 1)
	wantError(t, q.Ack(t.Context(), purged), pgqrs.ErrLeaseLost)
	wantError(t, q.Release(t.Context(), 0, purged), pgqrs.ErrLeaseLost)
	e.wantCounts(t, "parcels", 0, 0, 0, 0, 0)
}

func adminDelete(t *testing.T, e *env) {
	_, ids, _ := e.oneOfEach(t, "parcels")
	equal(t, "deleted without ids", value(e.store.Delete(t.Context()))(t), 0)
	equal(t, "deleted of unknown ids", value(e.store.Delete(t.Context(), 1<<60, -1))(t), 0)
	e.wantCounts(t, "parcels", 1, 1, 1, 1, 1)
	for i, state := range allStates {
		equal(t, "messages deleted", value(e.store.Delete(t.Context(), ids[state], 1<<60))(t), 1)
		var want [5]int64
		for j := i + 1; j < len(want); j++ {
			want[j] = 1
		}
		e.wantCounts(t, "parcels", want[:]...)
	}
	many := value(pgqrs.NewQueue[int](e.store, "parcels").EnqueueBatch(t.Context(), make([]int, 1500)))(t)
	equal(t, "messages deleted", value(e.store.Delete(t.Context(), many...))(t), 1500)
}
