package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var scheduleCases = []testcase{
	{"an instant that has come is enqueued with its payload, options, key and headers", "a nightly job would not run, or not know for which night", scheduleRuns},
	{"a schedule of a workflow starts a run for each instant, which is found by its key", "a nightly workflow would not start, or not be found", scheduleStarts},
	{"of several workers with one schedule one enqueues each instant", "a report would be sent once for each process", scheduleOnce},
	{"a restart moves nothing, and an instant that passed meanwhile is run once", "a deploy at three would cost the nightly job, or repeat it", scheduleRestart},
	{"of the instants that were missed as many as CatchUp are run, the latest, from old to new", "an outage would be followed by a flood, or by nothing", scheduleMissed},
	{"of more instants than a worker can walk through the latest are run, however long ago the first was", "an outage of three days would end in reports of two days ago", scheduleLongMissed},
	{"a target with a key enqueues nothing while the message before is unfinished", "slow jobs would pile up", scheduleHeld},
	{"what fell into a pause is not made up for, whether or not a worker saw it", "a schedule that was stopped on purpose would run all the same", schedulePaused},
	{"RunSchedule enqueues at once what a schedule would, paused or not, and does not disturb it", "an operator could not run a job again without its code", scheduleByHand},
	{"a target in a group is enqueued into it, by the clock and by hand", "the order within the group would be broken", scheduleGroup},
	{"RunSchedule in the caller's transaction runs if and only if that commits", "a job would run for a change that never was", scheduleByHandTx},
	{"a rule with another text is followed from the start of its worker on", "a changed rule would never take effect, or make up for instants that it never had", scheduleChanged},
	{"a worker that starts writes each change of a schedule to its row, and nothing if there is none", "an operator would see, and run by hand, what is no longer in the code", scheduleRewritten},
	{"the worker that started last decides on the rule, and the others take over if it does not run it", "two versions would fight during a deployment, or none would run the schedule", scheduleVersions},
	{"a clock that goes back stops no schedule, and runs no instant again", "a schedule would be silent until the wrong time has come, or repeat itself", scheduleClockBack},
	{"an instant is enqueued and recorded together or not at all, and tried again", "a lost connection would cost a night, or run it twice", scheduleAtomic},
	{"a deleted schedule runs no more until a worker with it starts", "an operator could not get rid of one", scheduleDeleted},
	{"the rule is asked in the schedule's zone, and by the database's clock", "jobs would run at the wrong hour", scheduleZone},
	{"a rule that panics or goes backwards does not keep the others from running", "one bad rule would end the process or stop all schedules", scheduleBadRule},
	{"a schedule that waits, for its rule or for somebody's transaction, does not delay the others", "one locked key would cost all other schedules their instants", scheduleWaits},
	{"the kit's Advance brings schedules closer to their next instant", "users could not test what their schedules do", scheduleAdvance},
	{"the history says what became of each run, the latest first, and is pruned", "nobody could tell whether last night's job was done", scheduleHistory},
	{"what cannot be a schedule is refused when the worker starts, with what is wrong", "a mistake would show at three in the morning", scheduleRefused},
	{"calls about a schedule that does not exist return ErrNotFound", "a typo would look like success", scheduleNone},
}

// A grid is a rule whose instants lie half a step from the time at which the grid was made. So no
// instant comes while a case runs.
type grid struct {
	base time.Time
	step time.Duration
}

func newGrid(step time.Duration) grid {
	return grid{time.Now().Truncate(time.Second).Add(-step / 2).UTC(), step}
}

func (g grid) Next(t time.Time) time.Time {
	return g.base.Add((t.Sub(g.base)/g.step + 1) * g.step)
}

func (g grid) String() string { return "each " + g.step.String() }

// last returns the nth latest instant, where 0 is the latest.
func (g grid) last(n int) time.Time { return g.base.Add(-time.Duration(n) * g.step) }

// ticking runs a worker that only has schedules.
func ticking(t *testing.T, schedules ...pgqrs.Schedule) (stop func() error) {
	t.Helper()
	return start(t, &pgqrs.Worker{Schedules: schedules})
}

// schedule reads the schedule with a name.
func (e *env) schedule(t *testing.T, name string) pgqrs.ScheduleInfo {
	t.Helper()
	list := value(e.store.Schedules(t.Context(), name))(t)
	if len(list) != 1 {
		t.Fatalf("there are %d schedules named %q; want 1", len(list), name)
	}
	return list[0]
}

// runsOf reads a schedule's history, the oldest first.
func (e *env) runsOf(t *testing.T, name string) []pgqrs.ScheduleRun {
	t.Helper()
	runs, err := e.store.ScheduleRuns(t.Context(), name, 1000)
	if !errors.Is(err, pgqrs.ErrNotFound) { // a worker may be about to make it
		must(t, err)
	}
	slices.Reverse(runs)
	return runs
}

// awaitNext waits until a schedule's next instant is the given one.
func (e *env) awaitNext(t *testing.T, name string, next time.Time) {
	t.Helper()
	eventually(t, fmt.Sprintf("schedule %q is advanced to %v", name, next), func() bool {
		list := value(e.store.Schedules(t.Context(), name))(t)
		return len(list) > 0 && list[0].NextAt.Equal(next)
	})
}

// setNext sets a schedule's next instant, as if time had passed or the clock had jumped.
func (e *env) setNext(t *testing.T, name string, at time.Time) {
	t.Helper()
	e.poke(t, "UPDATE pgqrs_schedules SET next_at = '%s', tick_ct = tick_ct + 1 WHERE name = '%s'", e.timeText(at), name)
}

// timeText returns a time as an SQL literal.
func (e *env) timeText(at time.Time) string {
	zone := map[pgqrs.Dialect]string{pgqrs.Postgres: "+00"}[e.dialect]
	return at.UTC().Format("2006-01-02 15:04:05.000") + zone
}

// register makes the rows of schedules, and leaves no worker running. It adds one more schedule,
// whose row shows that the worker has made the others.
func (e *env) register(t *testing.T, schedules ...pgqrs.Schedule) {
	t.Helper()
	beacon := schedules[0]
	beacon.Name = "a beacon"
	stop := ticking(t, append(schedules, beacon)...)
	eventually(t, "the schedules are there", func() bool { return len(value(e.store.Schedules(t.Context(), beacon.Name))(t)) > 0 })
	must(t, stop())
	must(t, e.store.DeleteSchedule(t.Context(), beacon.Name))
}

// instants returns the times at which runs were due.
func instants(runs []pgqrs.ScheduleRun) (list []string) {
	for _, r := range runs {
		list = append(list, r.DueAt.UTC().Format(time.RFC3339Nano))
	}
	return list
}

func texts(times ...time.Time) (list []string) {
	for _, at := range times {
		list = append(list, at.UTC().Format(time.RFC3339Nano))
	}
	return list
}

func scheduleRuns(t *testing.T, e *env) {
	q, g := pgqrs.NewQueue[string](e.store, "reports"), newGrid(time.Hour)
	s := pgqrs.Schedule{Name: "nightly", Rule: g, Target: q.Target("all of it", pgqrs.Priority(1), pgqrs.Headers(map[string]string{"team": "a"}))}
	e.register(t, s)
	info := e.schedule(t, "nightly")
	equal(t, "next instant", info.NextAt, g.last(-1))
	equal(t, "rule", info.Rule+" "+info.Zone, "each 1h0m0s UTC")
	equal(t, "whether it has run", info.Last == nil, true)
	e.setNext(t, "nightly", g.last(0))
	ticking(t, s)
	e.awaitNext(t, "nightly", g.last(-1))
	m := dequeueOne(t, q)
	due := texts(g.last(0))[0]
	equal(t, "payload", m.Payload, "all of it")
	equal(t, "priority", m.Priority, 1)
	equal(t, "key", m.Key, "pgqrs-schedule:nightly@"+due)
	equal(t, "headers", fmt.Sprint(m.Headers), fmt.Sprint(map[string]string{"team": "a", pgqrs.ScheduleHeader: "nightly", pgqrs.DueHeader: due}))
	last := e.schedule(t, "nightly").Last
	equal(t, "message of the latest run", last.MessageID, m.ID)
	equal(t, "its instant", last.DueAt, g.last(0))
	equal(t, "its state", last.MessageState, pgqrs.Leased)
	equal(t, "whether it was by hand", last.ByHand, false)
}

func scheduleStarts(t *testing.T, e *env) {
	w, g := pgqrs.NewWorkflow[string, string](e.store, "books"), newGrid(time.Hour)
	s := pgqrs.Schedule{Name: "close", Rule: g, CatchUp: 2, Target: w.Target("May")}
	e.register(t, s)
	e.setNext(t, "close", g.last(1))
	worker := fast(w.Handle(func(_ context.Context, _ *pgqrs.Run, in string) (string, error) { return in + " is closed", nil }))
	worker.Schedules = []pgqrs.Schedule{s}
	start(t, worker)
	e.awaitNext(t, "close", g.last(-1))
	runs := e.runsOf(t, "close")
	equalSlices(t, "instants", instants(runs), texts(g.last(1), g.last(0)))
	for _, r := range runs {
		run := value(w.Find(t.Context(), "pgqrs-schedule:close@"+instants([]pgqrs.ScheduleRun{r})[0]))(t)
		equal(t, "run", r.RunID, run.ID())
		equal(t, "result", finished(t, run), "May is closed")
		equal(t, "message", r.MessageID, e.runInfo(t, run.ID()).MessageID)
	}
	equal(t, "state", e.runsOf(t, "close")[0].RunState, pgqrs.Succeeded)
	equal(t, "whether it starts runs", e.schedule(t, "close").Workflow, true)
}

func scheduleOnce(t *testing.T, e *env) {
	for range 4 {
		own := pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "often")
		ticking(t, pgqrs.Schedule{Name: "often", Rule: pgqrs.Every(time.Second), Target: own.Target(1)})
	}
	var runs []pgqrs.ScheduleRun
	eventually(t, "four instants have come", func() bool {
		runs = e.runsOf(t, "often")
		return len(runs) >= 4
	})
	seen := map[string]bool{}
	for _, at := range instants(runs) {
		if seen[at] || !strings.HasSuffix(at, "Z") || strings.Contains(at, ".") {
			t.Errorf("the instant %s is recorded again, or is no whole second", at)
		}
		seen[at] = true
	}
	must(t, e.store.PauseSchedule(t.Context(), "often"))
	runs = e.runsOf(t, "often")
	equal(t, "messages", e.stats(t, "often").Ready, int64(len(runs)))
}

func scheduleRestart(t *testing.T, e *env) {
	q, g := pgqrs.NewQueue[int](e.store, "q"), newGrid(time.Hour)
	s := pgqrs.Schedule{Name: "s", Rule: g, Target: q.Target(1)}
	for range 3 {
		e.register(t, s)
		equal(t, "next instant", e.schedule(t, "s").NextAt, g.last(-1))
	}
	e.setNext(t, "s", g.last(0)) // half an hour late
	for range 2 {
		stop := ticking(t, s)
		e.awaitNext(t, "s", g.last(-1))
		must(t, stop())
	}
	equalSlices(t, "instants", instants(e.runsOf(t, "s")), texts(g.last(0)))
	equal(t, "messages", e.stats(t, "q").Ready, 1)
}

func scheduleMissed(t *testing.T, e *env) {
	g := newGrid(time.Hour)
	for _, c := range []struct{ catchUp, runs int }{{0, 1}, {1, 1}, {3, 3}, {1000, 6}, {-1, 0}} {
		name := fmt.Sprint("catch up ", c.catchUp)
		s := pgqrs.Schedule{Name: name, Rule: g, CatchUp: c.catchUp, Target: pgqrs.NewQueue[int](e.store, name).Target(1)}
		e.register(t, s)
		e.setNext(t, name, g.last(5))
		stop := ticking(t, s)
		e.awaitNext(t, name, g.last(-1))
		must(t, stop())
		var want []time.Time
		for n := c.runs - 1; n >= 0; n-- {
			want = append(want, g.last(n))
		}
		runs := e.runsOf(t, name)
		equalSlices(t, name, instants(runs), texts(want...))
		if !slices.IsSortedFunc(runs, func(a, b pgqrs.ScheduleRun) int { return int(a.MessageID - b.MessageID) }) {
			t.Errorf("%s: the messages are not in the order of their instants", name)
		}
	}
	q := pgqrs.NewQueue[int](e.store, "by the second")
	s := pgqrs.Schedule{Name: "by the second", Rule: pgqrs.Every(time.Second), CatchUp: -1, Target: q.Target(1)}
	e.register(t, s)
	e.setNext(t, s.Name, time.Now().Truncate(time.Second).AddDate(-1, 0, 0))
	ticking(t, s)
	eventually(t, "of a year's seconds the latest is run, which is not late", func() bool { return len(e.runsOf(t, s.Name)) > 0 })
	if late := e.runsOf(t, s.Name)[0]; late.RanAt.Sub(late.DueAt) > time.Minute {
		t.Errorf("the instant %v was run %v late", late.DueAt, late.RanAt.Sub(late.DueAt))
	}
}

// A flood is a rule with an instant each second up to the latest instant of a grid, and then the
// grid's instants.
type flood struct{ grid }

func (f flood) Next(t time.Time) time.Time {
	if before := f.base.Sub(t); before > 0 {
		return f.base.Add(-(before - 1).Truncate(time.Second))
	}
	return f.grid.Next(t)
}

func scheduleLongMissed(t *testing.T, e *env) {
	rule := flood{newGrid(time.Hour)}
	latest := func(n int) (list []time.Time) {
		for n--; n >= 0; n-- {
			list = append(list, rule.base.Add(-time.Duration(n)*time.Second))
		}
		return list
	}
	for _, c := range []struct{ catchUp, days, runs int }{{0, 3, 1}, {3, 400, 3}, {1000, 3, 1000}, {-1, 3, 0}} {
		name := fmt.Sprintf("catch up %d of %d days", c.catchUp, c.days)
		s := pgqrs.Schedule{Name: name, Rule: rule, CatchUp: c.catchUp, Target: pgqrs.NewQueue[int](e.store, name).Target(1)}
		e.register(t, s)
		e.setNext(t, name, rule.base.AddDate(0, 0, -c.days))
		stop := ticking(t, s)
		e.awaitNext(t, name, rule.last(-1))
		must(t, stop())
		equalSlices(t, name, instants(e.runsOf(t, name)), texts(latest(c.runs)...))
	}
}

func scheduleHeld(t *testing.T, e *env) {
	q, g := pgqrs.NewQueue[int](e.store, "slow"), newGrid(time.Hour)
	s := pgqrs.Schedule{Name: "slow", Rule: g, CatchUp: 3, Target: q.Target(1, pgqrs.Key("one at a time"))}
	e.register(t, s)
	e.setNext(t, "slow", g.last(2))
	stop := ticking(t, s)
	e.awaitNext(t, "slow", g.last(-1))
	must(t, stop())
	runs := e.runsOf(t, "slow")
	equal(t, "runs", len(runs), 3)
	m := dequeueOne(t, q)
	for i, r := range runs {
		equal(t, "whether it was held", r.Duplicate, i > 0)
		equal(t, "message", r.MessageID, m.ID)
	}
	must(t, q.Ack(t.Context(), m))
	run := value(e.store.RunSchedule(t.Context(), "slow"))(t)
	equal(t, "whether it is held when that is done", run.Duplicate, false)
}

func scheduleChanged(t *testing.T, e *env) {
	q, hourly, daily := pgqrs.NewQueue[string](e.store, "q"), newGrid(time.Hour), newGrid(24*time.Hour)
	e.register(t, pgqrs.Schedule{Name: "s", Rule: daily, Target: q.Target("old")})
	e.setNext(t, "s", daily.last(3))
	stop := ticking(t, pgqrs.Schedule{Name: "s", Rule: hourly, Target: q.Target("new")})
	e.awaitNext(t, "s", hourly.last(-1))
	equal(t, "rule", e.schedule(t, "s").Rule, "each 1h0m0s")
	must(t, stop())
	equal(t, "runs", len(e.runsOf(t, "s")), 0)
	run := value(e.store.RunSchedule(t.Context(), "s"))(t)
	equal(t, "payload", string(e.info(t, run.MessageID).Raw), `"new"`)
	e.setNext(t, "s", hourly.last(0))
	e.register(t, pgqrs.Schedule{Name: "s", Rule: hourly, Zone: time.FixedZone("Here", 3600), Target: q.Target("new")})
	equal(t, "next instant by another zone", e.schedule(t, "s").NextAt, hourly.last(-1))
	equal(t, "runs of what the other zone had", len(e.runsOf(t, "s")), 1) // the run by hand
	equal(t, "zone", e.schedule(t, "s").Zone, "Here")
}

func scheduleRewritten(t *testing.T, e *env) {
	g := newGrid(time.Hour)
	raw := func(text string) json.RawMessage { return json.RawMessage(text) }
	q, other := pgqrs.NewQueue[json.RawMessage](e.store, "q"), pgqrs.NewQueue[json.RawMessage](e.store, "other")
	flow := pgqrs.NewWorkflow[string, string](e.store, "q")
	input := raw(`{"input":"x"}`)
	base := pgqrs.Schedule{Name: "s", Rule: g, Target: q.Target(input)}
	seen := func() string {
		i := e.schedule(t, "s")
		return fmt.Sprintf("%s %v %s %d %q %v %d %s", i.Queue, i.Workflow, strings.ReplaceAll(string(i.Payload), " ", ""), i.Priority, i.Key, i.Headers, i.CatchUp, i.Zone)
	}
	for _, c := range []struct {
		what   string
		change func(s *pgqrs.Schedule)
		want   string
	}{
		{"nothing", func(*pgqrs.Schedule) {}, `q false {"input":"x"} 0 "" map[] 1 UTC`},
		{"the queue", func(s *pgqrs.Schedule) { s.Target = other.Target(input) }, `other false {"input":"x"} 0 "" map[] 1 UTC`},
		{"that it starts runs", func(s *pgqrs.Schedule) { s.Target = flow.Target("x") }, `q true {"input":"x"} 0 "" map[] 1 UTC`},
		{"the payload", func(s *pgqrs.Schedule) { s.Target = q.Target(raw("7")) }, `q false 7 0 "" map[] 1 UTC`},
		{"the priority", func(s *pgqrs.Schedule) { s.Target = q.Target(input, pgqrs.Priority(1)) }, `q false {"input":"x"} 1 "" map[] 1 UTC`},
		{"the key", func(s *pgqrs.Schedule) { s.Target = q.Target(input, pgqrs.Key("k")) }, `q false {"input":"x"} 0 "k" map[] 1 UTC`},
		{"the headers", func(s *pgqrs.Schedule) { s.Target = q.Target(input, pgqrs.Headers(map[string]string{"a": "b"})) }, `q false {"input":"x"} 0 "" map[a:b] 1 UTC`},
		{"CatchUp", func(s *pgqrs.Schedule) { s.CatchUp = 3 }, `q false {"input":"x"} 0 "" map[] 3 UTC`},
	} {
		e.register(t, base)
		e.poke(t, "UPDATE pgqrs_schedules SET updated_at = created_at")
		changed := base
		c.change(&changed)
		e.register(t, changed)
		equal(t, "the row after a change of "+c.what, seen(), c.want)
		if i := e.schedule(t, "s"); i.UpdatedAt.Equal(i.CreatedAt) != (c.what == "nothing") {
			t.Errorf("after a change of %s it was updated at %v; it was created at %v", c.what, i.UpdatedAt, i.CreatedAt)
		}
	}
}

func scheduleVersions(t *testing.T, e *env) {
	q, hourly, daily := pgqrs.NewQueue[string](e.store, "q"), newGrid(time.Hour), newGrid(24*time.Hour)
	older := pgqrs.Schedule{Name: "s", Rule: daily, Target: q.Target("old")}
	newer := pgqrs.Schedule{Name: "s", Rule: hourly, Target: q.Target("new")}
	// The worker looks each second because of this schedule.
	beside := pgqrs.Schedule{Name: "beside", Rule: pgqrs.Every(time.Second), Target: q.Target("beside")}
	ticking(t, older, beside)
	e.awaitNext(t, "s", daily.last(-1))
	stop := ticking(t, newer)
	e.awaitNext(t, "s", hourly.last(-1))
	eventually(t, "the older one stands aside", func() bool { return e.log.has("another rule for the schedule, which stands") })
	must(t, stop())
	just := time.Now().Add(-30 * time.Second).Truncate(time.Second)
	e.setNext(t, "s", just)
	looks := len(e.runsOf(t, "beside"))
	eventually(t, "the older one has looked", func() bool { return len(e.runsOf(t, "beside")) > looks+1 })
	equal(t, "rule of one that is not overdue for long", e.schedule(t, "s").Rule, "each 1h0m0s")
	e.setNext(t, "s", hourly.last(0))
	e.awaitNext(t, "s", daily.last(-1))
	equalSlices(t, "instants", instants(e.runsOf(t, "s")), texts(hourly.last(0)))
	equal(t, "rule of the one that took over", e.schedule(t, "s").Rule, "each 24h0m0s")
}

func scheduleClockBack(t *testing.T, e *env) {
	q, g := pgqrs.NewQueue[int](e.store, "q"), newGrid(time.Hour)
	s := pgqrs.Schedule{Name: "s", Rule: g, Target: q.Target(1)}
	e.register(t, s)
	// As if the clock had been a day ahead, and tomorrow's instant had been run then.
	e.setNext(t, "s", g.last(-25))
	e.poke(t, "INSERT INTO pgqrs_schedule_runs (schedule_id, due_at) SELECT id, '%s' FROM pgqrs_schedules", e.timeText(g.last(0)))
	stop := ticking(t, s)
	e.awaitNext(t, "s", g.last(-1))
	must(t, stop())
	// The instant is due again, together with a new one.
	e.setNext(t, "s", g.last(1))
	s.CatchUp = 2
	ticking(t, s)
	e.awaitNext(t, "s", g.last(-1))
	equal(t, "messages", e.stats(t, "q").Ready, 1)
	equal(t, "key", dequeueOne(t, q).Key, instantKey("s", g.last(1)))
	equalSlices(t, "instants", instants(e.runsOf(t, "s")), texts(g.last(1), g.last(0)))
}

func scheduleAtomic(t *testing.T, e *env) {
	g := newGrid(time.Hour)
	for _, c := range []struct {
		tag  string
		kind fault
	}{{"pgqrs:schedule.advance", refused}, {"pgqrs:schedule.record", refused}, {"pgqrs:schedule.record", muted}, {"pgqrs:schedule.record", refuted}} {
		store, net := e.farStore(t)
		name := fmt.Sprint(c.tag[len("pgqrs:schedule."):], c.kind)
		s := pgqrs.Schedule{Name: name, Rule: g, Target: pgqrs.NewQueue[int](store, name).Target(1)}
		e.register(t, s)
		e.setNext(t, name, g.last(0))
		fails, happened := once(c.tag, c.kind)
		net.fail(fails)
		stop := ticking(t, s)
		receiveClosed(t, "the fault", happened)
		e.awaitNext(t, name, g.last(-1))
		must(t, stop())
		equalSlices(t, name, instants(e.runsOf(t, name)), texts(g.last(0)))
		equal(t, "messages", e.stats(t, name).Ready, 1)
	}
}

// receiveClosed waits until a channel is closed.
func receiveClosed(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(tooLong):
		t.Fatalf("not within %v: %s", tooLong, what)
	}
}

// A watched is a rule that reports in which zone and for which time it was asked.
type watched struct {
	grid
	asked *tally[time.Time]
}

func (w watched) Next(t time.Time) time.Time {
	w.asked.add(t)
	return w.grid.Next(t)
}

func scheduleZone(t *testing.T, e *env) {
	rule := watched{newGrid(time.Hour), &tally[time.Time]{}}
	zone := time.FixedZone("Here", 2*3600)
	s := pgqrs.Schedule{Name: "s", Rule: rule, Zone: zone, Target: pgqrs.NewQueue[int](e.store, "q").Target(1)}
	e.register(t, s)
	for _, at := range rule.asked.all() {
		equal(t, "zone", at.Location().String(), "Here")
		equal(t, "the clock's time is the database's, to a millisecond", at.Truncate(time.Microsecond).Equal(at), true)
	}
	equal(t, "whether the rule was asked", rule.asked.len() > 0, true)
}

// A brittle is a rule that works only the first time.
type brittle struct {
	grid
	then func(t time.Time) time.Time
}

func (b brittle) Next(t time.Time) time.Time {
	if t.Equal(b.last(0)) {
		return b.then(t)
	}
	return b.grid.Next(t)
}

func scheduleBadRule(t *testing.T, e *env) {
	g := newGrid(time.Hour)
	q := pgqrs.NewQueue[int](e.store, "q")
	bad := map[string]func(time.Time) time.Time{
		"panics":    func(time.Time) time.Time { panic("no more") },
		"stays":     func(t time.Time) time.Time { return t },
		"backwards": func(t time.Time) time.Time { return t.Add(-time.Second) },
	}
	var all []pgqrs.Schedule
	for name, then := range bad {
		all = append(all, pgqrs.Schedule{Name: name, Rule: brittle{g, then}, Target: q.Target(1)})
	}
	all = append(all, pgqrs.Schedule{Name: "z good", Rule: g, Target: q.Target(2)})
	e.register(t, all...)
	for _, s := range all {
		e.setNext(t, s.Name, g.last(0))
	}
	ticking(t, all...)
	e.awaitNext(t, "z good", g.last(-1))
	for name := range bad {
		eventually(t, "the log names "+name, func() bool { return e.log.has("run schedule " + name) })
		equal(t, "runs of "+name, len(e.runsOf(t, name)), 0)
	}
}

// A heldRule returns what comes after its latest instant only once held is done.
type heldRule struct {
	grid
	held context.Context
}

func (r heldRule) Next(t time.Time) time.Time {
	if t.Equal(r.last(0)) {
		<-r.held.Done()
	}
	return r.grid.Next(t)
}

func scheduleWaits(t *testing.T, e *env) {
	q, g := pgqrs.NewQueue[int](e.store, "q"), newGrid(time.Hour)
	held, letGo := context.WithCancel(t.Context())
	defer letGo()
	var waiting []pgqrs.Schedule
	for _, name := range []string{"a", "b", "c"} {
		waiting = append(waiting, pgqrs.Schedule{Name: name, Rule: g, Target: q.Target(1, pgqrs.Key(name))})
	}
	waiting[0].Rule = heldRule{g, held}
	all := append(slices.Clone(waiting), pgqrs.Schedule{Name: "others", Rule: pgqrs.Every(time.Second), Target: pgqrs.NewQueue[int](e.store, "others").Target(1)})
	e.register(t, all...)
	for _, s := range waiting {
		e.setNext(t, s.Name, g.last(0))
	}
	release := e.holdSchedules(t, q, "b", "c")
	ticking(t, all...)
	var runs []pgqrs.ScheduleRun
	eventually(t, "five instants have come", func() bool {
		runs = e.runsOf(t, "others")
		return len(runs) >= 5
	})
	for i := 1; i < len(runs); i++ {
		if gap := runs[i].DueAt.Sub(runs[i-1].DueAt); gap > 5*time.Second {
			t.Errorf("%v lie between two instants of each second", gap)
		}
	}
	equal(t, "runs of the one with the slow rule", len(e.runsOf(t, "a")), 0)
	release()
	letGo()
	for _, s := range waiting {
		e.awaitNext(t, s.Name, g.last(-1))
	}
}

// holdSchedules opens a transaction that holds the key of one schedule's message and the row of
// another schedule. It needs a database whose writers do not wait for each other.
func (e *env) holdSchedules(t *testing.T, q *pgqrs.Queue[int], key, row string) (release func()) {
	t.Helper()
	if e.dialect != pgqrs.Postgres {
		return func() {}
	}
	tx := value(e.db.BeginTx(t.Context(), nil))(t)
	value(q.WithTx(tx).Enqueue(t.Context(), 2, pgqrs.Key(key)))(t)
	value(e.store.WithTx(tx).RunSchedule(t.Context(), row))(t)
	return func() { must(t, tx.Rollback()) }
}

func scheduleGroup(t *testing.T, e *env) {
	q, g := pgqrs.NewQueue[string](e.store, "q"), newGrid(time.Hour)
	s := pgqrs.Schedule{Name: "s", Rule: g, Target: q.Target("it", pgqrs.Group("ada"))}
	e.register(t, s)
	e.setNext(t, "s", g.last(0))
	ticking(t, s)
	e.awaitNext(t, "s", g.last(-1))
	run := value(e.store.RunSchedule(t.Context(), "s"))(t)
	first := dequeueOne(t, q)
	equal(t, "group", first.Group, "ada")
	equal(t, "group of the schedule", e.schedule(t, "s").Group, "ada")
	equal(t, "state of the one by hand", e.runsOf(t, "s")[1].MessageState, pgqrs.Blocked)
	must(t, q.Ack(t.Context(), first))
	equal(t, "message", dequeueOne(t, q).ID, run.MessageID)
}
