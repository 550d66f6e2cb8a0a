package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgqrs/pgqrs-go"
)

var memoryCases = []testcase{
	{"a listing of messages cuts payloads and errors and says so, and Message returns the whole", "one look at a queue of large messages would end the process", memoryListed},
	{"headers that are larger than any that were enqueued are left out of a listing, and said to be", "one row of foreign SQL would fill the memory of whoever looks at its queue", memoryHeaders},
	{"Ahead finds what a blocked message waits for, in its group and in its batch", "to ask what holds up a message would read the payloads of its queue", memoryAhead},
	{"listings of runs and steps cut inputs, outputs and errors and say so, and Info and Step return the whole", "one look at a workflow would end the process", memoryRuns},
	{"a listing of schedules cuts payloads and says so, and by name a schedule is whole", "one look at the schedules would end the process", memorySchedules},
	{"a listing cuts names, keys, rules, warnings and policies and says so", "one look at rows of foreign SQL would end the process", memoryNames},
	{"a claim ends with the message by which its payloads have 8 MiB", "a batch of large messages would end the process that asked for it", memoryClaimed},
	{"a claim counts headers, errors and keys as it counts payloads", "rows of foreign SQL would end the process that asked for a batch", memoryClaimedColumns},
	{"a claim that begins aside after a collision ends at 8 MiB too", "a batch of large messages would end the process that asked for it", memoryClaimedAside},
	{"a worker of large messages gets all of them, in order", "large messages would wait for a poll, or for ever", memoryWorked},
	{"a replay reads the large outputs of steps one by one, when the run asks for them", "a run of many large steps would end the process that executes it", memoryReplayed},
	{"what RerunFrom, Retry and Redrive take over is whole", "a run that is repeated would lose half of its input", memoryKept},
}

const mebibyte = 1 << 20

// large returns a text of two-byte characters. As JSON it has a few bytes more than n.
func large(n int) string { return strings.Repeat("é", n/2) }

func memoryListed(t *testing.T, e *env) {
	q, text := jobs(e), large(mebibyte-1000)
	size := int64(len(text) + 2)
	cut := func(what string, m pgqrs.MessageInfo) {
		t.Helper()
		equal(t, "size of the payload of the one "+what, m.PayloadSize, size)
		equal(t, "whether it is cut", m.Cut, true)
		if n := len(m.Raw); n > pgqrs.ListedBytes || n < pgqrs.ListedBytes-3 || !utf8.Valid(m.Raw) || !strings.HasPrefix(`"`+text, string(m.Raw)) {
			t.Errorf("the payload of the one %s has %d bytes; want the first %d, and whole characters", what, n, pgqrs.ListedBytes)
		}
	}
	ids := map[pgqrs.MessageState]int64{}
	for _, state := range []pgqrs.MessageState{pgqrs.Dead, pgqrs.Archived, pgqrs.Leased} {
		ids[state] = enqueue(t, q, text, pgqrs.Headers(map[string]string{"a": large(60_000)}))
		switch m := dequeueOne(t, q); state {
		case pgqrs.Dead:
			must(t, q.Fail(t.Context(), pgqrs.Permanent(errBoom), m))
			e.poke(t, "UPDATE pgqrs_messages SET last_error = '%s' WHERE id = %d", text, m.ID)
		case pgqrs.Archived:
			must(t, q.Ack(t.Context(), m))
		}
	}
	ids[pgqrs.Scheduled] = enqueue(t, q, text, pgqrs.Delay(time.Hour), pgqrs.Key("k"))
	ids[pgqrs.Ready] = enqueue(t, q, text, pgqrs.Group("a"))
	ids[pgqrs.Blocked] = enqueue(t, q, text, pgqrs.Group("a"))
	for state, id := range ids {
		list := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "jobs", State: state}))(t)
		equal(t, string(state)+" messages", len(list), 1)
		cut("listed as "+string(state), list[0])
		cut("listed by id", value(e.store.Messages(t.Context(), pgqrs.MessageFilter{IDs: []int64{id}}))(t)[0])
		if state == pgqrs.Dead || state == pgqrs.Archived || state == pgqrs.Leased {
			equal(t, "size of its header", len(list[0].Headers["a"]), 60_000)
		}
		m := value(e.store.Message(t.Context(), id))(t)
		equal(t, "whether the whole one is cut", m.Cut, false)
		equal(t, "whether it is whole", string(m.Raw) == `"`+text+`"` && m.PayloadSize == size && m.State == state, true)
		if state == pgqrs.Dead {
			equal(t, "size of its error", len(m.LastError), len(text))
			if n := len(list[0].LastError); n > pgqrs.ListedBytes || n < pgqrs.ListedBytes-3 {
				t.Errorf("a listed error has %d bytes; want %d", n, pgqrs.ListedBytes)
			}
		}
	}
	cut("listed by key", value(e.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "jobs", Key: "k"}))(t)[0])
	small := e.info(t, enqueue(t, q, large(pgqrs.ListedBytes-2)))
	equal(t, "whether one of as many bytes is cut", small.Cut, false)
	equal(t, "its size", small.PayloadSize, int64(pgqrs.ListedBytes))
	_, err := e.store.Message(t.Context(), 1<<40)
	wantError(t, err, pgqrs.ErrNotFound)
}

func memoryHeaders(t *testing.T, e *env) {
	q := jobs(e)
	id := enqueue(t, q, "x")
	e.poke(t, `UPDATE pgqrs_messages SET headers = '{"a": "%s"}' WHERE id = %d`, large(200_000), id)
	m := e.info(t, id)
	equal(t, "headers listed", len(m.Headers), 0)
	equal(t, "whether it is cut", m.Cut, true)
	equal(t, "payload listed", string(m.Raw), `"x"`)
	m = value(e.store.Message(t.Context(), id))(t)
	equal(t, "size of the whole one's header", len(m.Headers["a"]), 200_000)
}

func memoryAhead(t *testing.T, e *env) {
	q := jobs(e)
	ahead := func(id int64, limit int) []int64 { return infoIDs(value(e.store.Ahead(t.Context(), id, limit))(t)) }
	first := enqueue(t, q, large(mebibyte/2), pgqrs.Group("a"))
	other := enqueue(t, q, "x", pgqrs.Group("b"))
	second := enqueue(t, q, "x", pgqrs.Group("a"))
	enqueue(t, q, "x", pgqrs.Group("a"))
	_ = enqueue(t, pgqrs.NewQueue[string](e.store, "elsewhere"), "x", pgqrs.Group("a"))
	equalSlices(t, "ahead of the second of a group", ahead(second, 10), []int64{first})
	equalSlices(t, "ahead of one that is not blocked", ahead(other, 10), nil)
	equalSlices(t, "ahead of none", ahead(1<<40, 10), nil)

	reports := pgqrs.NewQueue[string](e.store, "reports")
	member := pgqrs.NewQueue[string](e.store, "members")
	ids := value(member.EnqueueBatch(t.Context(), []string{"leased", "done", "ready", "scheduled"}, pgqrs.Then(reports, "report")))(t)
	e.poke(t, "UPDATE pgqrs_messages SET vt = '%s' WHERE id = %d", e.timeText(time.Now().Add(time.Hour)), ids[3])
	ms := value(member.Dequeue(t.Context(), 2, time.Minute))(t)
	must(t, member.Ack(t.Context(), ms[1]))
	last := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "reports", State: pgqrs.Blocked}))(t)[0]
	equalSlices(t, "ahead of one that waits for a batch", ahead(last.ID, 10), []int64{ids[0], ids[3], ids[2]})
	equalSlices(t, "the first of them", ahead(last.ID, 1), ids[:1])
	for _, limit := range []int{-1, 0, 1001} {
		_, err := e.store.Ahead(t.Context(), last.ID, limit)
		wantErrorText(t, err, "is not between 1 and 1000")
	}
}

func memoryRuns(t *testing.T, e *env) {
	text := large(mebibyte / 2)
	w := pgqrs.NewWorkflow[string, string](e.store, "flow")
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, in string) (string, error) {
		out, err := pgqrs.Step(ctx, run, "large", func(context.Context) (string, error) { return in, nil })
		if err != nil {
			return "", err
		}
		_, err = pgqrs.Step(ctx, run, "fails", func(context.Context) (string, error) {
			return "", pgqrs.Permanent(errors.New(large(3 * pgqrs.ListedBytes)))
		})
		if err == nil || errors.Is(err, pgqrs.ErrSuspended) {
			return "", fmt.Errorf("the step that fails returned %w", err)
		}
		return out, nil
	})))
	run := value(w.Start(t.Context(), text))(t)
	equal(t, "result", finished(t, run) == text, true)
	e.poke(t, `UPDATE pgqrs_workflow_runs SET error = '"%s"'`, strings.Repeat(`\n`, pgqrs.ListedBytes))
	for what, filter := range map[string]pgqrs.RunFilter{"all": {}, "by status": {Status: pgqrs.Succeeded}, "by workflow": {Workflow: "flow"}} {
		listed := value(e.store.Runs(t.Context(), filter))(t)[0]
		equal(t, "whether it is cut, of "+what, listed.Cut, true)
		equal(t, "size of the input", listed.InputSize, int64(len(value(run.Info(t.Context()))(t).Input)))
		equal(t, "size of the output", listed.OutputSize, int64(len(text)+2))
		equal(t, "listed error", strings.Trim(listed.Error, "\n"), "")
		for field, n := range map[string]int{"input": len(listed.Input), "output": len(listed.Output), "error": 2 * len(listed.Error)} {
			if n > pgqrs.ListedBytes || n < pgqrs.ListedBytes-3 {
				t.Errorf("the %s of a listed run has %d bytes; want %d", field, n, pgqrs.ListedBytes)
			}
		}
	}
	whole := value(run.Info(t.Context()))(t)
	equal(t, "whether the whole one is cut", whole.Cut, false)
	equal(t, "whether its output is whole", string(whole.Output) == `"`+text+`"`, true)
	memorySteps(t, e, e.store.RunHandle(run.ID()), text)
}

func memorySteps(t *testing.T, e *env, run *pgqrs.RunHandle[json.RawMessage], text string) {
	e.poke(t, `UPDATE pgqrs_workflow_steps SET error = '"%s"' WHERE step_name = 'fails'`, large(3*pgqrs.ListedBytes))
	for _, step := range value(run.Steps(t.Context()))(t) {
		equal(t, fmt.Sprintf("whether the step %q is cut", step.Name), step.Cut, true)
		if n := len(step.Output) + len(step.Error); n > pgqrs.ListedBytes || n < pgqrs.ListedBytes-3 {
			t.Errorf("the listed step %q has %d bytes; want %d", step.Name, n, pgqrs.ListedBytes)
		}
		whole := value(run.Step(t.Context(), step.Name))(t)
		equal(t, "whether the whole one is cut", whole.Cut, false)
		equal(t, "its status", whole.Status, step.Status)
		if step.Name == "large" {
			equal(t, "size of the output", step.OutputSize, int64(len(text)+2))
			equal(t, "whether it is whole", string(whole.Output) == `"`+text+`"`, true)
		} else {
			equal(t, "whether its error is whole", whole.Error == large(3*pgqrs.ListedBytes), true)
		}
	}
	_, err := run.Step(t.Context(), "no such")
	wantError(t, err, pgqrs.ErrNotFound)
}

func memorySchedules(t *testing.T, e *env) {
	q, text := jobs(e), large(mebibyte/2)
	e.register(t, pgqrs.Schedule{Name: "s", Rule: newGrid(time.Hour), Target: q.Target(text)})
	listed := value(e.store.Schedules(t.Context()))(t)[0]
	equal(t, "whether it is cut", listed.Cut, true)
	equal(t, "size of the payload", listed.PayloadSize, int64(len(text)+2))
	if n := len(listed.Payload); n > pgqrs.ListedBytes || n < pgqrs.ListedBytes-3 {
		t.Errorf("the payload of a listed schedule has %d bytes; want %d", n, pgqrs.ListedBytes)
	}
	whole := e.schedule(t, "s")
	equal(t, "whether the whole one is cut", whole.Cut, false)
	equal(t, "whether its payload is whole", string(whole.Payload) == `"`+text+`"` && whole.PayloadSize == listed.PayloadSize, true)
}

// oversized are the columns whose texts a listing cuts. The row must say which text is cut, or only
// that it is cut if says is empty.
var oversized = []struct{ table, column, says string }{
	{"pgqrs_messages", "dedup_key", "dedup_key"},
	{"pgqrs_messages", "last_error", ""},
	{"pgqrs_queues", "policy", "policy"},
	{"pgqrs_queues", "dead_letter", "dead_letter"},
	{"pgqrs_workers", "name", "name"},
	{"pgqrs_schedules", "queue_name", "queue_name"},
	{"pgqrs_schedules", "dedup_key", "dedup_key"},
	{"pgqrs_schedules", "rule", ""},
	{"pgqrs_schedules", "zone", "zone"},
	{"pgqrs_schedules", "name", "name"},
	{"pgqrs_workflow_steps", "step_name", "step_name"},
	{"pgqrs_workflow_runs", "run_key", "run_key"},
	{"pgqrs_workflow_runs", "parent_step", "parent_step"},
	{"pgqrs_workflow_runs", "warning", ""},
	{"pgqrs_workflows", "name", "workflow"},
	{"pgqrs_queues", "queue_name", "name"},
}

func memoryNames(t *testing.T, e *env) {
	q := jobs(e)
	enqueue(t, q, "x")
	value(q.Dequeue(t.Context(), 1, time.Minute))(t) // the dequeue makes a worker's row
	w, h := twoParts(e.store)
	run := launch(t, w, 1)
	stop := start(t, fast(h))
	eventually(t, "the first step is recorded", func() bool { return len(value(run.Steps(t.Context()))(t)) > 1 })
	must(t, stop())
	e.register(t, pgqrs.Schedule{Name: "s", Rule: newGrid(time.Hour), Target: q.Target("x")})
	for _, x := range oversized {
		if e.dialect == pgqrs.Postgres && (x.column == "step_name" || x.table == "pgqrs_workflows") {
			continue // a VARCHAR(255)
		}
		text := strings.Repeat("x", 100_000) // PostgreSQL compresses it, so that an index takes it
		if x.column == "policy" {
			text = `{"max_attempts": 1, "retention": "for ever", "backoff": "` + text + `"}`
		}
		where := "1 = 1"
		if x.column == "step_name" {
			where = "step_name = 'first'"
		} else if x.column == "queue_name" || x.column == "dead_letter" || x.column == "policy" {
			where = "queue_name = 'jobs'"
		} else if x.table == "pgqrs_workers" {
			where = "id = (SELECT min(id) FROM pgqrs_workers)"
		}
		e.poke(t, "UPDATE %s SET %s = '%s' WHERE %s", x.table, x.column, text, where)
		told := false
		for what, list := range e.listings(t, run.ID()) {
			text := string(value(json.Marshal(list))(t))
			if len(text) > 8*pgqrs.ListedBytes {
				t.Errorf("with a large %s in %s the listing of %s has %d bytes", x.column, x.table, what, len(text))
			}
			told = told || regexp.MustCompile(`"malformed":"[^"]*\b`+x.says+":").MatchString(text) || x.says == "" && strings.Contains(text, `"cut":true`)
		}
		if !told {
			t.Errorf("no listing says that %s of %s is cut", x.column, x.table)
		}
		if x.says == "" || x.column == "policy" || x.column == "dead_letter" || x.column == "zone" {
			e.poke(t, "UPDATE %s SET %s = %s WHERE %s", x.table, x.column, map[bool]string{true: "''", false: "NULL"}[x.column == "rule" || x.column == "zone"], where)
		}
	}
}

// listings returns the result of every listing, by its name.
func (e *env) listings(t *testing.T, run int64) map[string]any {
	t.Helper()
	var ids []int64
	for id := range int64(10) {
		ids = append(ids, id)
	}
	return map[string]any{
		"messages":         value(e.store.Messages(t.Context(), pgqrs.MessageFilter{IDs: ids}))(t),
		"queues":           value(e.store.Queues(t.Context()))(t),
		"depths":           value(e.store.Depths(t.Context()))(t),
		"workers":          value(e.store.Workers(t.Context()))(t),
		"schedules":        value(e.store.Schedules(t.Context()))(t),
		"runs":             value(e.store.Runs(t.Context(), pgqrs.RunFilter{}))(t),
		"runs of a status": value(e.store.Runs(t.Context(), pgqrs.RunFilter{Status: pgqrs.Running}))(t),
		"steps":            value(e.store.RunHandle(run).Steps(t.Context()))(t),
		"warnings":         value(e.store.Verify(t.Context()))(t),
	}
}

func memoryKept(t *testing.T, e *env) {
	text := large(mebibyte / 2)
	w := pgqrs.NewWorkflow[string, string](e.store, "flow")
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, in string) (string, error) {
		return pgqrs.Step(ctx, run, "length", func(context.Context) (string, error) { return fmt.Sprint(len(in)), nil })
	})))
	run := value(w.Start(t.Context(), text, pgqrs.Priority(1)))(t)
	equal(t, "length", finished(t, run), fmt.Sprint(len(text)))
	again := value(run.RerunFrom(t.Context(), "length"))(t)
	equal(t, "priority of the repeated run", e.info(t, e.runInfo(t, again.ID()).MessageID).Priority, 1)
	equal(t, "length of the input of the repeated run", finished(t, again), fmt.Sprint(len(text)))

	q := pgqrs.NewQueue[string](e.store, "redriven")
	enqueue(t, q, text, pgqrs.Group("a"))
	must(t, q.Fail(t.Context(), pgqrs.Permanent(errBoom), dequeueOne(t, q)))
	equal(t, "messages redriven", value(e.store.RedriveAll(t.Context(), "redriven"))(t), 1)
	m := dequeueOne(t, q)
	equal(t, "whether the payload is whole", m.Payload == text && m.PayloadSize == int64(len(m.Raw)), true)
	must(t, q.Ack(t.Context(), m))
	equal(t, "messages purged", value(e.store.Purge(t.Context(), "redriven", pgqrs.Archived))(t), 1)
}

// enqueueLarge enqueues messages of a mebibyte each, less a few bytes.
func enqueueLarge(t *testing.T, q *pgqrs.Queue[string], n int) (ids []int64) {
	t.Helper()
	text := strings.Repeat("x", mebibyte-2)
	for range n {
		ids = append(ids, enqueue(t, q, text))
	}
	return ids
}

func memoryClaimed(t *testing.T, e *env) {
	q := jobs(e)
	ids := enqueueLarge(t, q, 10)
	first := enqueue(t, q, "small", pgqrs.Priority(2))
	dequeue := func(want ...int64) {
		t.Helper()
		var got []int64
		for _, m := range value(q.Dequeue(t.Context(), 100, time.Minute))(t) {
			got = append(got, m.ID)
		}
		equalSlices(t, "messages dequeued", got, want)
	}
	dequeue(append([]int64{first}, ids[:8]...)...)
	dequeue(ids[8:]...)
	var small []int64
	for range 40 {
		small = append(small, enqueue(t, q, "small"))
	}
	dequeue(small[:32]...) // as many as Dequeue reads after large messages
	dequeue(small[32:]...)
}

// A claim takes columnClaimed messages if each has columnBytes in a column.
const (
	columnBytes   = 200_000
	columnClaimed = 8*mebibyte/columnBytes + 1
)

// fillColumn writes columnBytes into a column of n new messages of a queue, by SQL alone.
func (e *env) fillColumn(t *testing.T, q *pgqrs.Queue[string], n int, column string) (ids []int64) {
	t.Helper()
	ids = value(q.EnqueueBatch(t.Context(), make([]string, n)))(t)
	text := fmt.Sprintf(map[string]string{
		"headers":    `'{"a": "%s"}'`,
		"last_error": `'%s'`,
		"dedup_key":  `'%s' || id`,
	}[column], strings.Repeat("x", columnBytes))
	e.poke(t, "UPDATE pgqrs_messages SET %s = %s WHERE id >= %d", column, text, ids[0])
	return ids
}

func memoryClaimedColumns(t *testing.T, e *env) {
	for _, column := range []string{"headers", "last_error", "dedup_key"} {
		q := pgqrs.NewQueue[string](e.store, column)
		ids := e.fillColumn(t, q, columnClaimed+5, column)
		equalSlices(t, "messages dequeued with much in "+column, idsOf(keep(t, q, 100)), ids[:columnClaimed])
		equalSlices(t, "what is left with much in "+column, idsOf(keep(t, q, 100)), ids[columnClaimed:])
	}
}

func memoryClaimedAside(t *testing.T, e *env) {
	q := collidingJobs(t, e)
	const n = columnClaimed + 20
	for _, column := range []string{"headers", "last_error"} {
		ids := e.fillColumn(t, q, n+20, column)
		got := idsOf(keep(t, q, n))
		at := slices.Index(ids, got[0])
		if at < 0 {
			t.Fatalf("a claim returns message %d, which is none of %v", got[0], ids)
		}
		equalSlices(t, "messages dequeued aside with much in "+column, got, ids[at:at+columnClaimed])
		value(e.store.Delete(t.Context(), ids...))(t)
	}
}

func memoryWorked(t *testing.T, e *env) {
	q := jobs(e)
	ids := enqueueLarge(t, q, 30)
	got := make(chan int64, len(ids))
	worker := fast(q.Handle(func(_ context.Context, m *pgqrs.Message[string]) error {
		got <- m.ID
		return nil
	}))
	worker.Concurrency = 1
	start(t, worker)
	for _, id := range ids {
		select {
		case next := <-got:
			equal(t, "next message", next, id)
		case <-time.After(tooLong):
			t.Fatalf("message %d is not delivered", id)
		}
	}
}

// memoryReplayed executes a run twice, and looks at the statements of the second execution.
func memoryReplayed(t *testing.T, e *env) {
	store, net := e.farStore(t)
	outputs := map[string]string{"large": large(100 << 10), "small": "s", "larger": large(mebibyte / 2)}
	var called tally[string]
	var replay *counter
	w := fast(play(store, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		if execution == 2 {
			replay = net.watch()
		}
		for _, name := range []string{"large", "small", "larger"} {
			out, err := pgqrs.Step(ctx, run, name, func(context.Context) (string, error) {
				called.add(name)
				return outputs[name], nil
			})
			if err != nil {
				return receipt{}, err
			}
			if out != outputs[name] {
				t.Errorf("execution %d has %d bytes of step %q", execution, len(out), name)
			}
		}
		if execution == 1 {
			e.loseRun(t, run.ID())
		} else if n := replay.count("step.get"); n != 2 {
			t.Errorf("the replay reads %d outputs by themselves, want 2", n)
		}
		return receipt{}, nil
	}))
	w.Concurrency = 1
	start(t, w)
	e.awaitRun(t, e.run(t).ID(), pgqrs.Succeeded)
	net.heal()
	equalSlices(t, "steps whose function was called", called.all(), []string{"large", "small", "larger"})
}
