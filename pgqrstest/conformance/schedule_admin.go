package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

func schedulePaused(t *testing.T, e *env) {
	q, g := pgqrs.NewQueue[int](e.store, "q"), newGrid(time.Hour)
	s := pgqrs.Schedule{Name: "s", Rule: g, Target: q.Target(1)}
	e.register(t, s)
	must(t, e.store.PauseSchedule(t.Context(), "s"))
	e.poke(t, "UPDATE pgqrs_schedules SET paused_at = '%s'", e.timeText(g.last(2)))
	must(t, e.store.PauseSchedule(t.Context(), "s"))
	equal(t, "since when it is paused, which is not again", e.schedule(t, "s").PausedAt, g.last(2))
	e.setNext(t, "s", g.last(0))
	stop := ticking(t, s)
	e.awaitNext(t, "s", g.last(-1)) // a worker saw it
	must(t, stop())
	e.setNext(t, "s", g.last(0))
	must(t, e.store.ResumeSchedule(t.Context(), "s"))
	stop = ticking(t, s)
	e.awaitNext(t, "s", g.last(-1)) // no worker saw it before it was resumed
	must(t, stop())
	equal(t, "runs", len(e.runsOf(t, "s")), 0)
	e.poke(t, "UPDATE pgqrs_schedules SET resumed_at = '%s'", e.timeText(g.last(1)))
	e.setNext(t, "s", g.last(0))
	ticking(t, s)
	eventually(t, "what is due after that is run", func() bool { return len(e.runsOf(t, "s")) == 1 })
	equal(t, "whether it is paused", e.schedule(t, "s").PausedAt.IsZero(), true)

	s.Name = "never paused"
	e.register(t, s)
	e.setNext(t, s.Name, g.last(0))
	must(t, e.store.ResumeSchedule(t.Context(), s.Name))
	ticking(t, s)
	eventually(t, "what is due is run, though somebody has resumed what was not paused", func() bool { return len(e.runsOf(t, s.Name)) == 1 })
}

func scheduleByHand(t *testing.T, e *env) {
	q, g := pgqrs.NewQueue[string](e.store, "q"), newGrid(time.Hour)
	w := pgqrs.NewWorkflow[string, string](e.store, "w")
	s := pgqrs.Schedule{Name: "s", Rule: g, Target: q.Target("it", pgqrs.Priority(2), pgqrs.Headers(map[string]string{"a": "b"}))}
	e.register(t, s)
	e.register(t, pgqrs.Schedule{Name: "w", Rule: g, Target: w.Target("in")})
	must(t, e.store.PauseSchedule(t.Context(), "s"))
	before := e.schedule(t, "s")
	other := e.newStore(t, pgqrs.Config{}) // it has no code for the schedule
	for n := range 2 {
		run := value(other.RunSchedule(t.Context(), "s"))(t)
		m := dequeueOne(t, q)
		equal(t, "message", run.MessageID, m.ID)
		equal(t, "payload", m.Payload, "it")
		equal(t, "priority", m.Priority, 2)
		equal(t, "headers", fmt.Sprint(m.Headers), fmt.Sprint(map[string]string{"a": "b", pgqrs.ScheduleHeader: "s"}))
		equal(t, "runs", len(e.runsOf(t, "s")), n+1)
	}
	after := e.schedule(t, "s")
	equal(t, "next instant", after.NextAt, before.NextAt)
	equal(t, "paused since", after.PausedAt, before.PausedAt)
	equal(t, "whether the last was by hand", after.Last.ByHand, true)
	run := value(other.RunSchedule(t.Context(), "w"))(t)
	start(t, fast(w.Handle(func(_ context.Context, _ *pgqrs.Run, in string) (string, error) { return in + " and out", nil })))
	equal(t, "result", finished(t, w.RunHandle(run.RunID)), "in and out")
}

func scheduleByHandTx(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "q")
	e.register(t, pgqrs.Schedule{Name: "s", Rule: pgqrs.Every(time.Hour), Target: q.Target("it")})
	for _, commit := range []bool{false, true} {
		tx := value(e.db.BeginTx(t.Context(), nil))(t)
		run := value(e.store.WithTx(tx).RunSchedule(t.Context(), "s"))(t)
		if !commit {
			must(t, tx.Rollback())
			equal(t, "runs", len(e.runsOf(t, "s")), 0)
			continue
		}
		must(t, tx.Commit())
		equal(t, "message", dequeueOne(t, q).ID, run.MessageID)
		equal(t, "runs", len(e.runsOf(t, "s")), 1)
	}
}

func scheduleDeleted(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "q")
	s := pgqrs.Schedule{Name: "s", Rule: pgqrs.Every(time.Second), Target: q.Target(1)}
	beside := pgqrs.Schedule{Name: "beside", Rule: pgqrs.Every(time.Second), Target: q.Target(2)}
	ticking(t, s, beside)
	eventually(t, "it has run", func() bool { return len(e.runsOf(t, "s")) > 0 })
	must(t, e.store.DeleteSchedule(t.Context(), "s"))
	looks := len(e.runsOf(t, "beside"))
	eventually(t, "the worker has looked", func() bool { return len(e.runsOf(t, "beside")) > looks+1 })
	equal(t, "schedules", len(value(e.store.Schedules(t.Context()))(t)), 1)
	e.register(t, s)
	equal(t, "runs of the one that is made anew", e.schedule(t, "s").Last == nil || e.schedule(t, "s").Last.RanAt.After(e.schedule(t, "s").CreatedAt), true)
}

func scheduleHistory(t *testing.T, e *env) {
	q, g := pgqrs.NewQueue[string](e.store, "q"), newGrid(time.Hour)
	s := pgqrs.Schedule{Name: "s", Rule: g, CatchUp: 4, Target: q.Target("it")}
	e.register(t, s)
	e.setNext(t, "s", g.last(3))
	stop := ticking(t, s)
	e.awaitNext(t, "s", g.last(-1))
	must(t, stop())
	ms := dequeue(t, q, 10)
	equal(t, "messages", len(ms), 4)
	must(t, q.Ack(t.Context(), ms[0]))
	must(t, q.Fail(t.Context(), pgqrs.Permanent(errors.New("no")), ms[1]))
	equal(t, "deleted", value(e.store.Delete(t.Context(), ms[2].ID))(t), 1)
	var states []pgqrs.MessageState
	for _, r := range value(e.store.ScheduleRuns(t.Context(), "s", 100))(t) {
		states = append(states, r.MessageState)
	}
	equalSlices(t, "states", states, []pgqrs.MessageState{pgqrs.Leased, "", pgqrs.Dead, pgqrs.Archived})
	equal(t, "runs on a page of two", len(value(e.store.ScheduleRuns(t.Context(), "s", 2))(t)), 2)
	rows := make([]string, 1100)
	for i := range rows {
		rows[i] = fmt.Sprintf("(%d, '%s')", e.schedule(t, "s").ID, e.timeText(g.last(10+i)))
	}
	e.poke(t, "INSERT INTO pgqrs_schedule_runs (schedule_id, due_at) VALUES %s", strings.Join(rows, ", "))
	beside := pgqrs.Schedule{Name: "beside", Rule: g, Target: q.Target("it")}
	e.register(t, beside)
	e.poke(t, "INSERT INTO pgqrs_schedule_runs (schedule_id, due_at) VALUES (%d, '%s')", e.schedule(t, "beside").ID, e.timeText(g.last(9000)))
	ticking(t, s, beside)
	count := func(name string) (n int) {
		must(t, e.db.QueryRowContext(t.Context(), fmt.Sprintf("SELECT count(*) FROM pgqrs_schedule_runs WHERE schedule_id = %d", e.schedule(t, name).ID)).Scan(&n))
		return n
	}
	eventually(t, "the history is pruned", func() bool { return count("s") == 1000 })
	equal(t, "runs of another schedule, which are older", count("beside"), 1)
	runs := value(e.store.ScheduleRuns(t.Context(), "s", 1000))(t)
	equal(t, "the oldest that is kept", runs[999].DueAt, g.last(10+995))
}

func scheduleRefused(t *testing.T, e *env) {
	q, w := pgqrs.NewQueue[any](e.store, "q"), pgqrs.NewWorkflow[any, any](e.store, "w")
	good := pgqrs.Schedule{Name: "s", Rule: pgqrs.Every(time.Hour), Target: q.Target(1)}
	for what, c := range map[string]struct {
		change func(s *pgqrs.Schedule)
		says   string
	}{
		"no name":             {func(s *pgqrs.Schedule) { s.Name = "" }, "empty schedule name"},
		"a long name":         {func(s *pgqrs.Schedule) { s.Name = strings.Repeat("n", 201) }, "more than 200 characters"},
		"no rule":             {func(s *pgqrs.Schedule) { s.Rule = nil }, "no Rule"},
		"a rule too often":    {func(s *pgqrs.Schedule) { s.Rule = pgqrs.Every(time.Millisecond) }, "less than a second"},
		"a negative rule":     {func(s *pgqrs.Schedule) { s.Rule = pgqrs.Every(-time.Hour) }, "less than a second"},
		"a rule with no text": {func(s *pgqrs.Schedule) { s.Rule = struct{ pgqrs.Rule }{pgqrs.Every(time.Hour)} }, "no Text"},
		"the host's zone":     {func(s *pgqrs.Schedule) { s.Zone = time.Local }, "time.Local"},
		"too much catch-up":   {func(s *pgqrs.Schedule) { s.CatchUp = 1001 }, "CatchUp 1001"},
		"no target":           {func(s *pgqrs.Schedule) { s.Target = pgqrs.Target{} }, "no Target"},
		"a bad payload":       {func(s *pgqrs.Schedule) { s.Target = q.Target(make(chan int)) }, "payload"},
		"a delay":             {func(s *pgqrs.Schedule) { s.Target = q.Target(1, pgqrs.Delay(time.Second)) }, "Delay or At"},
		"an instant":          {func(s *pgqrs.Schedule) { s.Target = w.Target(1, pgqrs.At(time.Now())) }, "Delay or At"},
		"a key for runs":      {func(s *pgqrs.Schedule) { s.Target = w.Target(1, pgqrs.Key("k")) }, "Key"},
		"a bad queue name":    {func(s *pgqrs.Schedule) { s.Target = pgqrs.NewQueue[int](e.store, "").Target(1) }, "queue name"},
		"another store":       {func(s *pgqrs.Schedule) { s.Target = pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "q").Target(1) }, "two Stores"},
	} {
		s := good
		c.change(&s)
		h := q.Handle(func(context.Context, *pgqrs.Message[any]) error { return nil })
		err := (&pgqrs.Worker{Handlers: []pgqrs.Handler{h}, Schedules: []pgqrs.Schedule{s}}).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got the error %v; want one that says %q", what, err, c.says)
		}
	}
	err := (&pgqrs.Worker{Schedules: []pgqrs.Schedule{good, good}}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "two schedules") {
		t.Errorf("the same name twice: got the error %v", err)
	}
	equal(t, "schedules", len(value(e.store.Schedules(t.Context()))(t)), 0)
}

func scheduleNone(t *testing.T, e *env) {
	for _, name := range []string{"none", "\xff", "a\x00b"} {
		_, err := e.store.RunSchedule(t.Context(), name)
		wantError(t, err, pgqrs.ErrNotFound)
		_, err = e.store.ScheduleRuns(t.Context(), name, 10)
		wantError(t, err, pgqrs.ErrNotFound)
		wantError(t, e.store.PauseSchedule(t.Context(), name), pgqrs.ErrNotFound)
		wantError(t, e.store.ResumeSchedule(t.Context(), name), pgqrs.ErrNotFound)
		wantError(t, e.store.DeleteSchedule(t.Context(), name), pgqrs.ErrNotFound)
	}
	equal(t, "schedules", len(value(e.store.Schedules(t.Context(), "none"))(t)), 0)
}

func scheduleAdvance(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "q")
	s := pgqrs.Schedule{Name: "s", Rule: pgqrs.Every(24 * time.Hour), Target: q.Target("it")}
	e.register(t, s)
	pgqrstest.Advance(t, e.store, 24*time.Hour)
	ticking(t, s)
	eventually(t, "it has run", func() bool { return len(e.runsOf(t, "s")) == 1 })
	equal(t, "payload", dequeueOne(t, q).Payload, "it")
}
