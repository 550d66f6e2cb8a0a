package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var reservedCases = []testcase{
	{"a key or header of the library's own is refused by every call that takes one", "whoever may enqueue could silence a schedule, or put a message into somebody's batch", reservedRefused},
	{"a key of the library's own can be looked up", "nobody could find what a schedule has enqueued", reservedFound},
	{"an instant whose key a row of foreign SQL has is held, which is logged and shown", "a night without its job would look like any other", reservedHeld},
	{"an instant that an older version enqueued under its key is not run again", "an upgrade would send a report twice", reservedOlder},
}

// oldKey is the key of an instant as versions before the reserved prefix wrote it.
func oldKey(name string, at time.Time) string { return name + "@" + texts(at)[0] }

func instantKey(name string, at time.Time) string { return "pgqrs-schedule:" + oldKey(name, at) }

func reservedRefused(t *testing.T, e *env) {
	g := newGrid(time.Hour)
	key := instantKey("nightly", g.last(-1))
	refused := []pgqrs.Option{pgqrs.Key(key), pgqrs.Unique(key), pgqrs.Key("pgqrs-")}
	for _, name := range []string{pgqrs.ScheduleHeader, pgqrs.DueHeader, "pgqrs-batch", "pgqrs-group", "pgqrs-anything", "dead-letter-queue", "dead-letter-id"} {
		refused = append(refused, pgqrs.Headers(map[string]string{"team": "a", name: "1"}))
	}
	for i, option := range refused {
		for what, err := range reservedCalls(t, e.store, option) {
			wantError(t, err, pgqrs.ErrInvalidPayload)
			wantText(t, fmt.Sprintf("error of option %d in %s", i, what), err.Error(), "which is reserved for the library")
		}
	}
	for _, name := range []string{"pgqrs-batch", "pgqrs-group", pgqrs.DueHeader, "dead-letter-queue"} {
		s := e.newStore(t, pgqrs.Config{Headers: func(context.Context) map[string]string { return map[string]string{name: "1"} }})
		for what, err := range reservedCalls(t, s, pgqrs.Priority(1)) {
			if what != "a schedule" { // a schedule sets such keys itself
				wantError(t, err, pgqrs.ErrInvalidPayload)
				wantText(t, "error of "+what, err.Error(), "Config.Headers", name)
			}
		}
	}
	equal(t, "messages", len(value(e.store.Queues(t.Context()))(t)), 0)
	_ = enqueue(t, jobs(e), "x", pgqrs.Key("a pgqrs-key"), pgqrs.Headers(map[string]string{"x-pgqrs-": "1"}))
}

// reservedCalls makes every call that takes options with the given option, and returns the errors.
func reservedCalls(t *testing.T, s *pgqrs.Store, option pgqrs.Option) map[string]error {
	t.Helper()
	q, w := pgqrs.NewQueue[int](s, "jobs"), pgqrs.NewWorkflow[int, int](s, "flow")
	errs := map[string]error{}
	_, errs["Enqueue"] = q.Enqueue(t.Context(), 1, option)
	_, errs["EnqueueBatch"] = q.EnqueueBatch(t.Context(), []int{1, 2}, pgqrs.Each(func(int) []pgqrs.Option { return []pgqrs.Option{option} }))
	_, errs["Then"] = q.EnqueueBatch(t.Context(), []int{1}, pgqrs.Then(q, 2, option))
	_, errs["Start"] = w.Start(t.Context(), 1, option)
	schedule := pgqrs.Schedule{Name: "s", Rule: pgqrs.Every(time.Hour), Target: q.Target(1, option)}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs["a schedule"] = (&pgqrs.Worker{Schedules: []pgqrs.Schedule{schedule}}).Run(ctx)
	return errs
}

func reservedFound(t *testing.T, e *env) {
	q, g := pgqrs.NewQueue[int](e.store, "q"), newGrid(time.Hour)
	s := pgqrs.Schedule{Name: "s", Rule: g, Target: q.Target(1)}
	e.register(t, s)
	e.setNext(t, "s", g.last(0))
	ticking(t, s)
	e.awaitNext(t, "s", g.last(-1))
	found := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "q", Key: instantKey("s", g.last(0))}))(t)
	equal(t, "messages of the key", len(found), 1)
}

func reservedHeld(t *testing.T, e *env) {
	q, w, g := pgqrs.NewQueue[int](e.store, "q"), pgqrs.NewWorkflow[int, int](e.store, "flow"), newGrid(time.Hour)
	schedules := []pgqrs.Schedule{{Name: "plain", Rule: g, Target: q.Target(1)}, {Name: "run", Rule: g, Target: w.Target(1)}}
	e.register(t, schedules...)
	taken := enqueue(t, q, 7, pgqrs.Key("p"), pgqrs.Delay(time.Hour))
	e.poke(t, "UPDATE pgqrs_messages SET dedup_key = '%s' WHERE id = %d", instantKey("plain", g.last(0)), taken)
	run := value(w.Start(t.Context(), 7, pgqrs.Key("r")))(t)
	e.poke(t, "UPDATE pgqrs_workflow_runs SET run_key = '%s' WHERE id = %d", instantKey("run", g.last(0)), run.ID())
	for _, s := range schedules {
		e.setNext(t, s.Name, g.last(0))
	}
	ticking(t, schedules...)
	for _, s := range schedules {
		e.awaitNext(t, s.Name, g.last(-1))
		equal(t, "whether its latest run was held", e.schedule(t, s.Name).Last.Duplicate, true)
		equal(t, "the same in its history", e.runsOf(t, s.Name)[0].Duplicate, true)
		eventually(t, "a warning names the schedule", func() bool {
			for line := range strings.Lines(e.log.String()) {
				if strings.Contains(line, "level=WARN") && strings.Contains(line, "instant of a schedule is held") && strings.Contains(line, "schedule="+s.Name) {
					return true
				}
			}
			return false
		})
	}
	equal(t, "message of the one", e.runsOf(t, "plain")[0].MessageID, taken)
	equal(t, "run of the other", e.runsOf(t, "run")[0].RunID, run.ID())
}

func reservedOlder(t *testing.T, e *env) {
	q, w, g := pgqrs.NewQueue[int](e.store, "q"), pgqrs.NewWorkflow[int, int](e.store, "flow"), newGrid(time.Hour)
	schedules := []pgqrs.Schedule{{Name: "plain", Rule: g, CatchUp: 2, Target: q.Target(1)}, {Name: "run", Rule: g, CatchUp: 2, Target: w.Target(1)}}
	e.register(t, schedules...)
	tick := func(from time.Time) {
		for _, s := range schedules {
			e.setNext(t, s.Name, from)
		}
		stop := ticking(t, schedules...)
		for _, s := range schedules {
			e.awaitNext(t, s.Name, g.last(-1))
		}
		must(t, stop())
	}
	tick(g.last(0))
	// As if an older version had run them, before the clock went back.
	e.poke(t, "UPDATE pgqrs_messages SET dedup_key = '%s' WHERE dedup_key = '%s'", oldKey("plain", g.last(0)), instantKey("plain", g.last(0)))
	e.poke(t, "UPDATE pgqrs_messages SET dedup_key = '%s' WHERE dedup_key = '%s'", oldKey("run", g.last(0)), instantKey("run", g.last(0)))
	e.poke(t, "UPDATE pgqrs_workflow_runs SET run_key = '%s'", oldKey("run", g.last(0)))
	tick(g.last(1))
	for _, s := range schedules {
		got := instants(e.runsOf(t, s.Name))
		slices.Sort(got)
		equalSlices(t, "instants of "+s.Name, got, texts(g.last(1), g.last(0)))
		equal(t, "messages of "+s.Name, e.stats(t, e.schedule(t, s.Name).Queue).Ready, 2)
	}
	value(w.Find(t.Context(), oldKey("run", g.last(0))))(t)
}
