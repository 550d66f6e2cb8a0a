package conformance

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var keptCases = []testcase{
	{"RerunFrom keeps the input, group, priority and headers of its run, and waits for its turn", "two runs of one account would go on at once", keptByRerun},
	{"Retry keeps the key, group, priority and headers of its run, and waits for its turn", "two runs of one account would go on at once", keptByRetry},
	{"Redrive keeps the payload, key, group, priority, headers and batch of a message", "a message would come back as another one", keptByRedrive},
	{"a dead-letter copy keeps the payload, priority and headers, and leads to the group and the key", "nobody could tell what to repair", keptByCopy},
	{"children have the group, priority and headers that they are given", "a child would overtake another of its account", keptByChildren},
	{"what a schedule makes has the group, priority and headers of its Target, by the clock and by hand", "the first run by hand would be another one", keptBySchedule},
}

// belongings are all options that give a message something.
func belongings() []pgqrs.Option {
	return []pgqrs.Option{pgqrs.Group("ada"), pgqrs.Priority(2), pgqrs.Headers(map[string]string{"tenant": "t1", "lang": "en"})}
}

// wantBelongings fails the test unless a message has everything that belongings gives. Its other
// headers must be the given ones.
func wantBelongings(t *testing.T, m pgqrs.MessageInfo, others ...string) {
	t.Helper()
	equal(t, "group", m.Group, "ada")
	equal(t, "priority", m.Priority, 2)
	headers := maps.Clone(m.Headers)
	for _, name := range others {
		delete(headers, name)
	}
	equal(t, "headers", fmt.Sprint(headers), fmt.Sprint(map[string]string{"tenant": "t1", "lang": "en"}))
}

// messageOf reads the message of a run.
func (e *env) messageOf(t *testing.T, run int64) pgqrs.MessageInfo {
	t.Helper()
	return e.info(t, e.runInfo(t, run).MessageID)
}

// bookings returns a workflow with the step "book". The step fails for good if the input is true.
func bookings(s *pgqrs.Store) (*pgqrs.Workflow[bool, string], pgqrs.Handler) {
	w := pgqrs.NewWorkflow[bool, string](s, "bookings")
	return w, w.Handle(func(ctx context.Context, run *pgqrs.Run, fails bool) (string, error) {
		return "booked", run.Do(ctx, "book", func(context.Context) error {
			if fails {
				return pgqrs.Permanent(errBoom)
			}
			return nil
		})
	})
}

func keptByRerun(t *testing.T, e *env) {
	w, h := bookings(e.store)
	stop := start(t, fast(h))
	first := launch(t, w, true, append(belongings(), pgqrs.Key("k"))...)
	e.awaitRun(t, first.ID(), pgqrs.Failed)
	must(t, stop())
	var again []*pgqrs.RunHandle[string]
	for range 2 {
		again = append(again, value(first.RerunFrom(t.Context(), "book"))(t))
	}
	for i, state := range []pgqrs.MessageState{pgqrs.Ready, pgqrs.Blocked} {
		m := e.messageOf(t, again[i].ID())
		wantBelongings(t, m)
		equal(t, "state", m.State, state)
		info := e.runInfo(t, again[i].ID())
		sameJSON(t, info.Input, `{"input": true}`)
		equal(t, "key and parent", fmt.Sprintf("%q %d %q", info.Key, info.ParentID, info.ParentStep), `"" 0 ""`)
	}
	start(t, fast(h))
	for _, run := range again {
		e.awaitRun(t, run.ID(), pgqrs.Failed)
	}
	plain := launch(t, w, false)
	finished(t, plain)
	m := e.messageOf(t, value(plain.RerunFrom(t.Context(), "book"))(t).ID())
	equal(t, "what a run without anything hands on", fmt.Sprintf("%q %d %d %q", m.Group, m.Priority, len(m.Headers), m.Key), `"" 0 0 ""`)
}

func keptByRetry(t *testing.T, e *env) {
	w, h := bookings(e.store)
	stop := start(t, fast(h))
	first := launch(t, w, true, append(belongings(), pgqrs.Key("k"))...)
	e.awaitRun(t, first.ID(), pgqrs.Failed)
	must(t, stop())
	other := launch(t, w, false, belongings()...)
	equal(t, "state of the next run", e.messageOf(t, other.ID()).State, pgqrs.Ready)
	must(t, first.Retry(t.Context()))
	m := e.messageOf(t, first.ID())
	wantBelongings(t, m)
	equal(t, "state", m.State, pgqrs.Blocked)
	equal(t, "key", m.Key, "k")
	equal(t, "key of the run", e.runInfo(t, first.ID()).Key, "k")
}

func keptByRedrive(t *testing.T, e *env) {
	q, reports := pgqrs.NewQueue[int](e.store, "parcels"), pgqrs.NewQueue[int](e.store, "reports")
	opts := append(belongings(), pgqrs.Then(reports, 1), pgqrs.Each(func(int) []pgqrs.Option { return []pgqrs.Option{pgqrs.Key("k")} }))
	id := value(q.EnqueueBatch(t.Context(), []int{42}, opts...))(t)[0]
	before := dequeueOne(t, q)
	must(t, q.Fail(t.Context(), pgqrs.Permanent(errBoom), before))
	equal(t, "redriven", value(e.store.Redrive(t.Context(), id))(t), 1)
	m := e.info(t, id)
	wantBelongings(t, m)
	sameJSON(t, m.Raw, "42")
	equal(t, "key, state and attempts", fmt.Sprintf("%s %s %d", m.Key, m.State, m.Attempt), "k ready 0")
	equal(t, "batch", m.BatchID, before.BatchID)
	equal(t, "whether it has a batch", m.BatchID != 0, true)
	after := dequeueOne(t, q)
	wantBelongings(t, after.MessageInfo)
	equal(t, "batch of the delivery", after.BatchID, before.BatchID)
}

func keptByCopy(t *testing.T, e *env) {
	q := mortal(e, "parcels")
	id := enqueue(t, q, 42, append(belongings(), pgqrs.Key("k"))...)
	must(t, q.Fail(t.Context(), errBoom, dequeueOne(t, q)))
	m := e.graves(t)[0]
	equal(t, "id in the header", m.Headers["dead-letter-id"], fmt.Sprint(id))
	dead := e.info(t, id)
	wantBelongings(t, dead)
	equal(t, "key of the dead letter", dead.Key, "k")
	equal(t, "group and key of the copy", m.Group+m.Key, "")
	m.Group = dead.Group
	wantBelongings(t, m, "dead-letter-queue", "dead-letter-id", "dead-letter-attempts", "dead-letter-error")
	sameJSON(t, m.Raw, "42")
}

func keptByChildren(t *testing.T, e *env) {
	kids := pgqrs.NewWorkflow[int, int](e.store, "kids") // no worker handles it
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		_, err := kids.Children(ctx, run, "kids", []int{1, 2}, belongings()...)
		return receipt{}, err
	})
	asleep(t, e, h, "kids")
	all := value(e.store.Runs(t.Context(), pgqrs.RunFilter{Parent: h.ID()}))(t)
	equal(t, "children", len(all), 2)
	for i, state := range []pgqrs.MessageState{pgqrs.Blocked, pgqrs.Ready} { // the latest first
		m := e.info(t, all[i].MessageID)
		wantBelongings(t, m)
		equal(t, "state", m.State, state)
		equal(t, "parent's step", all[i].ParentStep, "kids")
	}
}

func keptBySchedule(t *testing.T, e *env) {
	g := newGrid(time.Hour)
	q, w := pgqrs.NewQueue[string](e.store, "q"), pgqrs.NewWorkflow[string, string](e.store, "w")
	all := []pgqrs.Schedule{
		{Name: "messages", Rule: g, Target: q.Target("it", belongings()...)},
		{Name: "runs", Rule: g, Target: w.Target("it", belongings()...)},
	}
	e.register(t, all...)
	for _, s := range all {
		e.setNext(t, s.Name, g.last(0))
	}
	ticking(t, all...)
	for _, s := range all {
		e.awaitNext(t, s.Name, g.last(-1))
		value(e.store.RunSchedule(t.Context(), s.Name))(t)
		made := e.runsOf(t, s.Name)
		equal(t, "runs of "+s.Name, len(made), 2)
		for _, r := range made {
			id := r.MessageID
			if r.RunID != 0 {
				id = e.runInfo(t, r.RunID).MessageID
			}
			m := e.info(t, id)
			equal(t, "schedule", m.Headers[pgqrs.ScheduleHeader], s.Name)
			equal(t, "whether it has its instant", m.Headers[pgqrs.DueHeader] != "", !r.ByHand)
			wantBelongings(t, m, pgqrs.ScheduleHeader, pgqrs.DueHeader)
		}
	}
}
