package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var malformedCases = []testcase{
	{"a malformed message stops no other, whatever is wrong with it, in a Worker", "one row that anybody may insert would stop its queue for ever", malformedInWorker},
	{"a malformed message stops no other, whatever is wrong with it, in Dequeue", "one row that anybody may insert would stop its queue for ever", malformedInDequeue},
	{"a malformed message is listed, shown and deleted in every state, and so are its neighbours", "nobody could find the row that is wrong, or delete it", malformedListed},
	{"counters at their end do not overflow, whatever is done with the message", "one row would fail the statement that serves all", malformedCounters},
	{"a malformed message that dies is copied to the dead-letter queue", "it would fail the transaction in which it dies, again and again", malformedCopied},
	{"what no claim and no listing reaches is copied to the dead-letter queue, and its group goes on", "nobody would be told of it, and what comes after it would wait", malformedHidden},
	{"a message whose time of the end is none is listed, shown and purged", "it would stay for ever, and in no listing", malformedEnded},
	{"a message that is scheduled for a time is left, however the time is written", "it would die before its time", malformedNot},
	{"a malformed message holds up neither its group nor its batch", "one row would hold up all that comes after it", malformedFollowers},
	{"a malformed message of a run fails the run with the reason", "the run would be tried for ever", malformedRunMessage},
	{"a run whose own rows are malformed fails with the reason, and others go on", "the run would be tried for ever, or stop the listing of all", malformedRuns},
	{"a run of no workflow is malformed, and not one that is not found", "nobody could tell a run that is lost from one that never was", malformedOrphan},
	{"a run whose message is another queue's ends with the reason", "it would stay queued for ever", malformedElsewhere},
	{"a malformed signal fails its Wait with the reason", "the run would wait or be tried for ever", malformedSignal},
	{"a parent goes on when a child's row is malformed", "it would wait for ever, or be tried for ever", malformedChild},
	{"a malformed schedule is logged and listed, and the others go on", "one row would stop every schedule of a Worker", malformedSchedules},
	{"limits that no policy can have are as good as none, and Verify and a worker name the queue", "a queue would stop, and nothing would say why", malformedLimits},
	{"malformed rows of workers, queues and groups stop nobody and are listed", "one row would stop heartbeats, the maintenance and every listing", malformedOthers},
}

// A wrong is a change that foreign SQL makes to a row, as the SET of an UPDATE.
type wrong struct {
	set    string
	reason string // what the error says of it, or empty if the message is delivered like any other
	lite   bool   // only the SQLite family stores it
}

var wrongMessages = []wrong{
	{`headers = '{"a":1}'`, "headers", false},
	{`headers = '{"a":{"b":"c"}}'`, "headers", false},
	{`headers = '[1]'`, "headers", false},
	{`headers = '"x"'`, "headers", false},
	{`headers = '7'`, "headers", false},
	{`headers = 'null'`, "", false},
	{`headers = '{"a":null}'`, "", false},
	{`enqueued_at = 'infinity'`, "", false},
	{`enqueued_at = '-infinity'`, "", false},
	{`enqueued_at = NULL`, "", false},
	{`due_at = '-infinity', consumer_worker_id = 7`, "", false},
	{`vt = '-infinity'`, "", false},
	{`vt = 'infinity'`, "no claim reaches it", false},
	{`vt = NULL`, "no claim reaches it", false},
	{`read_ct = 2147483647`, "ended without an answer", false},
	{`read_ct = -2147483648`, "", false},
	{`read_ct = NULL`, "", false},
	{`claim_ct = 9223372036854775807`, "claim_ct", false},
	{`claim_ct = -9223372036854775807 - 1`, "", false},
	{`consumer_worker_id = -1`, "", false},
	{`batch_id = -1`, "", false},

	{`headers = '{'`, "headers", true},
	{`headers = x'ff00'`, "headers", true},
	{`payload = '{'`, "payload", true},
	{`payload = x'ff00fe'`, "payload", true},
	{`payload = 'NaN'`, "payload", true},
	{`enqueued_at = 'yesterday'`, "enqueued_at", true},
	{`enqueued_at = x'00'`, "enqueued_at", true},
	{`enqueued_at = 12`, "enqueued_at", true},
	{`due_at = 'yesterday'`, "", true}, // the claim overwrites it
	{`vt = '0 o''clock'`, "due_at", true},
	{`vt = ''`, "due_at", true},
	{`vt = 'tomorrow'`, "no claim reaches it", true},
	{`vt = x'00'`, "no claim reaches it", true},
	// The following texts sort like a time in the future.
	{`vt = '2147483647'`, "no claim reaches it", true},
	{`vt = '5e3 garbage'`, "no claim reaches it", true},
	{`vt = '9998-01-01T07:00:00Z'`, "no claim reaches it", true},
	{`vt = '9998-02-31 07:00:00'`, "no claim reaches it", true},
	{`vt = '9998-01-01'`, "no claim reaches it", true},
	{`vt = '9998-31-12 07:00:00'`, "no claim reaches it", true},
	{`priority = 1.5`, "no claim reaches it", true},
	{`priority = -0.5`, "no claim reaches it", true},
	{`read_ct = 'many'`, "", true},
	{`read_ct = x'01'`, "", true},
	{`read_ct = 0.5`, "", true},
	{`read_ct = 1e300`, "ended without an answer", true},
	{`read_ct = 9223372036854775807`, "ended without an answer", true},
	{`claim_ct = 'many'`, "", true},
	{`claim_ct = x'01'`, "", true},
	{`claim_ct = 0.5`, "", true},
	{`claim_ct = 1e300`, "claim_ct", true},
	{`last_error = x'ff'`, "", true},
	{`dedup_key = x'ff'`, "", true},
	{`group_key = x'ff'`, "", true},
	{`batch_id = 'none'`, "", true},
	{`woken = 'perhaps'`, "", true},
	{`consumer_worker_id = 'me'`, "", true},
	{`dequeued_at = x'ff', failed_at = 'never'`, "", true},
}

// wrongsOn returns the changes that the case's database stores and its driver reads. The driver
// ncruces v0.18.4 reads no empty BLOB, and the library reads texts as BLOBs.
func wrongsOn(e *env, all []wrong) []wrong {
	var empty []byte
	readsEmpty := e.dialect == pgqrs.Postgres || e.db.QueryRow("SELECT CAST('' AS BLOB)").Scan(&empty) == nil
	var list []wrong
	for _, w := range all {
		if (!w.lite || e.dialect != pgqrs.Postgres) && (readsEmpty || !strings.HasSuffix(w.set, "= ''")) {
			list = append(list, w)
		}
	}
	return list
}

// plant enqueues an urgent message and makes it wrong, and then enqueues two good messages.
func (e *env) plant(t *testing.T, q *pgqrs.Queue[int], w wrong) (bad int64, good []int64) {
	t.Helper()
	bad = enqueue(t, q, -1, pgqrs.Priority(2))
	good = value(q.EnqueueBatch(t.Context(), []int{1, 2}))(t)
	e.poke(t, "UPDATE pgqrs_messages SET %s WHERE id = %d", w.set, bad)
	return bad, good
}

// judged fails the test unless a wrong message ended as the table says.
func (e *env) judged(t *testing.T, w wrong, id int64) {
	t.Helper()
	m := e.info(t, id)
	want := pgqrs.Archived
	if w.reason != "" {
		want = pgqrs.Dead
	}
	if m.State != want || !strings.Contains(m.LastError, w.reason) {
		t.Errorf("%s: the message is %s with the error %q; want it %s, with %q", w.set, m.State, m.LastError, want, w.reason)
	}
}

func malformedInWorker(t *testing.T, e *env) {
	w := &pgqrs.Worker{PollInterval: 5 * time.Millisecond}
	var bad []int64
	var good []int64
	wrongs := wrongsOn(e, wrongMessages)
	for i, x := range wrongs {
		q := pgqrs.NewQueue[int](e.store, fmt.Sprintf("jobs %d", i))
		id, others := e.plant(t, q, x)
		bad, good = append(bad, id), append(good, others...)
		w.Handlers = append(w.Handlers, q.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil }))
	}
	start(t, w)
	eventually(t, "all messages have ended", func() bool {
		for _, m := range value(e.store.Messages(t.Context(), pgqrs.MessageFilter{IDs: append(append([]int64(nil), bad...), good...)}))(t) {
			if m.State != pgqrs.Archived && m.State != pgqrs.Dead {
				return false
			}
		}
		return true
	})
	for i, x := range wrongs {
		e.judged(t, x, bad[i])
	}
	for _, id := range good {
		equal(t, "state of a good message", e.info(t, id).State, pgqrs.Archived)
	}
}

func malformedInDequeue(t *testing.T, e *env) {
	for i, x := range wrongsOn(e, wrongMessages) {
		q := pgqrs.NewQueue[int](e.store, fmt.Sprintf("jobs %d", i))
		bad, good := e.plant(t, q, x)
		var got []int64
		for range 3 { // a message whose last holder never answered comes alone
			for _, m := range dequeue(t, q, 10) {
				got = append(got, m.ID)
				must(t, q.Ack(t.Context(), m))
			}
		}
		want := good
		if x.reason == "" {
			want = append([]int64{bad}, good...)
		}
		equalSlices(t, x.set+": dequeued", got, want)
		if x.reason != "no claim reaches it" {
			e.judged(t, x, bad)
		}
	}
}

func malformedListed(t *testing.T, e *env) {
	states := map[pgqrs.MessageState]string{
		pgqrs.Ready: `vt = enqueued_at`,
		pgqrs.Dead:  `archived_at = enqueued_at, failed_at = enqueued_at`,
	}
	for state, set := range states {
		for i, x := range wrongsOn(e, wrongMessages) {
			name := fmt.Sprintf("%s %d", state, i)
			q := pgqrs.NewQueue[int](e.store, name)
			bad, good := e.plant(t, q, wrong{set: set})
			if strings.Contains(x.set, "failed_at") || state == pgqrs.Ready && x.reason == "no claim reaches it" {
				continue
			}
			e.poke(t, "UPDATE pgqrs_messages SET %s WHERE id = %d", x.set, bad)
			m := e.info(t, bad)
			equal(t, x.set+": state", m.State, state)
			value(json.Marshal(m))(t)
			listed := pages(t, e, pgqrs.MessageFilter{Queue: name, State: state, Limit: 1})
			equal(t, x.set+": listed", contains(listed, bad), true)
			equal(t, x.set+": messages listed", len(listed), map[pgqrs.MessageState]int{pgqrs.Ready: 3, pgqrs.Dead: 1}[state])
			value(e.store.Queues(t.Context(), name))(t)
			value(e.store.Depths(t.Context(), name))(t)
			value(e.store.Verify(t.Context()))(t)
			equal(t, x.set+": deleted", value(e.store.Delete(t.Context(), bad))(t), 1)
			equal(t, x.set+": purged", value(e.store.Purge(t.Context(), name, pgqrs.Ready))(t), int64(len(good)))
		}
	}
}

// pages reads a listing page by page and returns its ids. It fails the test if the listing does not
// end.
func pages(t *testing.T, e *env, f pgqrs.MessageFilter) (ids []int64) {
	t.Helper()
	for range 10 {
		ms := value(e.store.Messages(t.Context(), f))(t)
		for _, m := range ms {
			ids = append(ids, m.ID)
			f.After = m.Cursor
		}
		if len(ms) == 0 {
			return ids
		}
	}
	t.Fatalf("the listing has no end: %v", ids)
	return nil
}

func contains(ids []int64, id int64) bool {
	for _, other := range ids {
		if other == id {
			return true
		}
	}
	return false
}

func malformedCounters(t *testing.T, e *env) {
	q := jobs(e).With(pgqrs.Policy{MaxAttempts: -1})
	id := enqueue(t, q, "x")
	e.poke(t, "UPDATE pgqrs_messages SET read_ct = 2147483647")
	for range 3 {
		m := dequeueOne(t, q)
		equal(t, "attempt", m.Attempt, 2147483647)
		must(t, q.Fail(t.Context(), errBoom, m))
		e.makeDue(t, id)
	}
	e.poke(t, "UPDATE pgqrs_messages SET read_ct = -2147483647 - 1")
	m := dequeueOne(t, q)
	equal(t, "attempt", m.Attempt, 1)
	e.poke(t, "UPDATE pgqrs_messages SET read_ct = -2147483647 - 1")
	must(t, q.Release(t.Context(), 0, m))
	equal(t, "attempts after a release", e.info(t, id).Attempt, 0)
	e.poke(t, "UPDATE pgqrs_messages SET claim_ct = 9223372036854775806")
	wantNone(t, q)
	equal(t, "state", e.info(t, id).State, pgqrs.Dead)
	equal(t, "messages redriven", value(e.store.Redrive(t.Context(), id))(t), 1)
	wantNone(t, q)
	equal(t, "state after a redrive", e.info(t, id).State, pgqrs.Dead)
}

func malformedCopied(t *testing.T, e *env) {
	q := mortal(e, "parcels")
	var ids []int64
	wrongs := wrongsOn(e, []wrong{
		{`headers = '{"a":1}'`, "headers", false}, {`headers = '[1]'`, "headers", false}, {`headers = '"x"'`, "headers", false},
		{`headers = '{'`, "headers", true}, {`headers = x'ff'`, "headers", true},
	})
	for _, x := range wrongs {
		id, _ := e.plant(t, q, x)
		ids = append(ids, id)
	}
	for range 3 {
		for _, m := range dequeue(t, q, 100) {
			must(t, q.Ack(t.Context(), m))
		}
	}
	for i, x := range wrongs {
		e.judged(t, x, ids[i])
	}
	graves := e.graves(t)
	equal(t, "copies", len(graves), len(wrongs))
	for _, m := range graves {
		equal(t, "origin of a copy", m.Headers["dead-letter-queue"], "parcels")
	}
}

func malformedHidden(t *testing.T, e *env) {
	q := mortal(e, "parcels")
	ids := value(q.EnqueueBatch(t.Context(), []int{1, 2}, pgqrs.Group("a")))(t)
	set := `vt = 'infinity'`
	if e.dialect != pgqrs.Postgres {
		set = `priority = 1.5`
	}
	e.poke(t, "UPDATE pgqrs_messages SET %s WHERE id = %d", set, ids[0])
	start(t, fast(q.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil })))
	e.awaitState(t, ids[1], pgqrs.Archived)
	equal(t, "state of the hidden one", e.info(t, ids[0]).State, pgqrs.Dead)
	graves := e.graves(t)
	equal(t, "copies", len(graves), 1)
	sameJSON(t, graves[0].Raw, "1")
	equal(t, "origin of the copy", graves[0].Headers["dead-letter-id"], fmt.Sprint(ids[0]))
	if !strings.Contains(graves[0].Headers["dead-letter-error"], "no claim reaches it") {
		t.Errorf("the error of the copy is %q", graves[0].Headers["dead-letter-error"])
	}
	equal(t, "messages redriven", value(e.store.Redrive(t.Context(), ids[0]))(t), 1)
	e.awaitState(t, ids[0], pgqrs.Archived)
}

// wrongEnds are end times that are in no listing, or that no retention reaches.
var wrongEnds = []wrong{
	{`archived_at = 'infinity'`, "archived_at", false},
	{`archived_at = enqueued_at, failed_at = 'infinity'`, "failed_at", false},
	{`archived_at = x'00'`, "archived_at", true},
	{`archived_at = 'é'`, "archived_at", true},
	{`archived_at = enqueued_at, failed_at = x'ff00'`, "failed_at", true},
	{`archived_at = x'00', failed_at = x'00'`, "failed_at", true},
}

func malformedEnded(t *testing.T, e *env) {
	w := &pgqrs.Worker{PollInterval: 5 * time.Millisecond}
	wrongs := wrongsOn(e, wrongEnds)
	var bad []int64
	for i := range wrongs {
		q := pgqrs.NewQueue[int](e.store, fmt.Sprintf("jobs %d", i))
		id, _ := e.plant(t, q, wrongs[i])
		bad = append(bad, id)
		w.Handlers = append(w.Handlers, q.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil }))
	}
	start(t, w)
	for i, x := range wrongs {
		eventually(t, x.set+": the message is listed among the dead letters, with the reason", func() bool {
			return strings.Contains(e.info(t, bad[i]).LastError, x.reason) && contains(pages(t, e, pgqrs.MessageFilter{Queue: fmt.Sprintf("jobs %d", i), State: pgqrs.Dead}), bad[i])
		})
		m := value(e.store.Message(t.Context(), bad[i]))(t)
		equal(t, x.set+": what does not decode", m.Malformed, "")
		equal(t, x.set+": purged", value(e.store.Purge(t.Context(), fmt.Sprintf("jobs %d", i), pgqrs.Dead))(t), 1)
	}
}

func malformedNot(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "jobs")
	var ids []int64
	for _, vt := range []string{"9998-01-01 07:00:00", "9998-12-31 23:59:59.9", "9998-12-31 23:59:59.999999", "9996-02-29 23:59:59.9996", "9998-12-31 23:59:59.999"} {
		id := enqueue(t, q, 1)
		e.poke(t, "UPDATE pgqrs_messages SET vt = '%s' WHERE id = %d", vt, id)
		ids = append(ids, id)
	}
	ids = append(ids, enqueue(t, q, 1, pgqrs.Delay(time.Hour)))
	hidden := enqueue(t, q, 1)
	e.poke(t, "UPDATE pgqrs_messages SET vt = NULL WHERE id = %d", hidden)
	start(t, fast(q.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil })))
	e.awaitState(t, hidden, pgqrs.Dead)
	for _, id := range ids {
		equal(t, "state of a scheduled one", e.info(t, id).State, pgqrs.Scheduled)
	}
}

func malformedFollowers(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "jobs")
	then := pgqrs.NewQueue[int](e.store, "then")
	ids := value(q.EnqueueBatch(t.Context(), []int{1, 2, 3}, pgqrs.Group("a"), pgqrs.Then(then, 9)))(t)
	e.poke(t, `UPDATE pgqrs_messages SET claim_ct = 9223372036854775807 WHERE id = %d`, ids[0])
	for want := range 2 {
		m := dequeueOne(t, q)
		equal(t, "payload", m.Payload, want+2)
		must(t, q.Ack(t.Context(), m))
	}
	last := dequeueOne(t, then)
	equal(t, "messages of the batch that died", last.Batch.Dead, 1)
	equal(t, "messages of the batch that were done", last.Batch.Done, 2)

	// The batch callback has headers that are no object.
	ids = value(q.EnqueueBatch(t.Context(), []int{4}, pgqrs.Then(then, 10)))(t)
	e.poke(t, `UPDATE pgqrs_messages SET headers = '[1]' WHERE id = (SELECT batch_id FROM pgqrs_messages WHERE id = %d)`, ids[0])
	must(t, q.Ack(t.Context(), dequeueOne(t, q)))
	equal(t, "payload of what waited", dequeueOne(t, then).Payload, 10)
}

// wrongRuns are changes to a run or to one of its steps.
var wrongRuns = []wrong{
	{`execution_ct = 9223372036854775807`, "", false},
	{`created_at = 'infinity', started_at = '-infinity', paused_at = 'infinity'`, "", false},
	{`error = '[1]', output = '{"a":1}'`, "", false},
	{`status = 'BOGUS'`, "status", true},
	{`status = x'ff'`, "status", true},
	{`execution_ct = 'many'`, "", true},
	{`input = '{', error = 'x'`, "", true},
	{`created_at = 'yesterday', started_at = x'ff'`, "", true},
	{`parent_run_id = 'none'`, "", true},
	{`parent_run_id = 0.5, parent_step = x'ff'`, "", true},
	{`run_key = x'ff', warning = x'ff'`, "", true},
}

var wrongSteps = []wrong{
	{`retry_at = 'infinity'`, "", false},
	{`retry_at = '-infinity', started_at = 'infinity', completed_at = '-infinity'`, "", false},
	{`retry_count = -2147483648`, "", false},
	{`output = '{"a":1}'`, "does not decode", false},
	{`status = 'BOGUS'`, "status", true},
	{`retry_count = 'many'`, "retry_count", true},
	{`retry_count = 1e300`, "retry_count", true},
	{`output = '{'`, "does not decode", true},
	{`output = x'ff'`, "does not decode", true},
	{`retry_at = 'yesterday'`, "", true},
	{`started_at = 'yesterday'`, "started_at", true},
}

// twoParts returns a workflow that records a step, waits for a signal and returns the step's
// result.
func twoParts(s *pgqrs.Store) (*pgqrs.Workflow[int, string], pgqrs.Handler) {
	w := pgqrs.NewWorkflow[int, string](s, "two parts")
	return w, w.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (string, error) {
		v, err := pgqrs.Step(ctx, run, "first", func(context.Context) (string, error) { return fmt.Sprint("step ", n), nil })
		if err == nil {
			_, err = approved.Wait(ctx, run, 0)
		}
		return v, err
	})
}

// ends fails the test unless a run ends as it should with the change in its rows.
func (x wrong) ends(t *testing.T, h *pgqrs.RunHandle[string], want string) {
	t.Helper()
	got, err := h.Result(patience(t))
	if x.reason == "" && (err != nil || got != want) {
		t.Errorf("%s: the run returned %q, %v; want %q", x.set, got, err, want)
	}
	if x.reason != "" && (err == nil || !strings.Contains(err.Error(), x.reason)) {
		t.Errorf("%s: the run returned %q, %v; want an error with %q", x.set, got, err, x.reason)
	}
}

func malformedRunMessage(t *testing.T, e *env) {
	w, h := twoParts(e.store)
	bad, good := launch(t, w, 1), launch(t, w, 2)
	e.poke(t, `UPDATE pgqrs_messages SET headers = '[1]', priority = 2 WHERE id = %d`, e.runInfo(t, bad.ID()).MessageID)
	must(t, approved.Send(t.Context(), e.store, good.ID(), "go"))
	start(t, fast(h))
	wrong{reason: "headers"}.ends(t, bad, "")
	equal(t, "result", finished(t, good), "step 2")
	equal(t, "state of the message", e.info(t, e.runInfo(t, bad.ID()).MessageID).State, pgqrs.Dead)
}

func malformedRuns(t *testing.T, e *env) {
	w, h := twoParts(e.store)
	type planted struct {
		x   wrong
		run *pgqrs.RunHandle[string]
	}
	var all []planted
	for _, x := range wrongsOn(e, wrongRuns) {
		run := launch(t, w, 1)
		e.poke(t, "UPDATE pgqrs_workflow_runs SET %s WHERE id = %d", x.set, run.ID())
		all = append(all, planted{x, run})
	}
	list := func(name string) {
		t.Helper()
		equal(t, "runs listed "+name, len(value(e.store.Runs(t.Context(), pgqrs.RunFilter{}))(t)), len(all))
		for _, p := range all {
			value(json.Marshal(e.runInfo(t, p.run.ID())))(t)
			value(json.Marshal(value(p.run.Steps(t.Context()))(t)))(t)
		}
	}
	list("at first")
	steps := len(all)
	for range wrongsOn(e, wrongSteps) {
		all = append(all, planted{run: launch(t, w, 1)})
	}
	stop := start(t, fast(h))
	for _, p := range all {
		if p.x.reason == "" {
			asleep(t, e, p.run, "approved#1")
		}
	}
	must(t, stop())
	for i, x := range wrongsOn(e, wrongSteps) {
		all[steps+i].x = x
		e.poke(t, "UPDATE pgqrs_workflow_steps SET %s WHERE step_name = 'first' AND run_id = %d", x.set, all[steps+i].run.ID())
	}
	list("with wrong steps")
	for i, p := range all {
		if i >= steps || p.x.reason == "" {
			must(t, approved.Send(t.Context(), e.store, p.run.ID(), "go"))
		}
	}
	start(t, fast(h))
	for _, p := range all {
		p.x.ends(t, p.run, "step 1")
	}
	list("in the end")
}

func malformedOrphan(t *testing.T, e *env) {
	if e.dialect == pgqrs.Postgres {
		return // a foreign key holds it
	}
	w, _ := twoParts(e.store)
	bad, other := launch(t, w, 1), launch(t, w, 1)
	c := value(e.db.Conn(t.Context()))(t)
	for _, text := range []string{"PRAGMA foreign_keys = OFF", fmt.Sprintf("UPDATE pgqrs_workflow_runs SET workflow_id = 999 WHERE id IN (%d, %d)", bad.ID(), other.ID()), "PRAGMA foreign_keys = ON"} {
		value(c.ExecContext(t.Context(), text))(t)
	}
	must(t, c.Close())
	info, err := e.store.RunHandle(bad.ID()).Info(t.Context())
	wantError(t, err, pgqrs.ErrMalformed)
	wantErrorText(t, err, fmt.Sprintf("run %d: workflow_id", bad.ID()))
	equal(t, "id of the run", info.ID, bad.ID())
	var results sync.WaitGroup
	for _, run := range []*pgqrs.RunHandle[json.RawMessage]{e.store.RunHandle(bad.ID()), e.store.RunHandle(other.ID())} {
		results.Add(1)
		go func() {
			defer results.Done()
			if _, err := run.Result(t.Context()); !errors.Is(err, pgqrs.ErrMalformed) {
				t.Errorf("Result returns %v; want it to match ErrMalformed", err)
			}
		}()
	}
	results.Wait()
	_, err = e.store.RunHandle(1 << 40).Info(t.Context())
	wantError(t, err, pgqrs.ErrNotFound)
}

func malformedElsewhere(t *testing.T, e *env) {
	w, h := twoParts(e.store)
	bad, good := launch(t, w, 1), launch(t, w, 2)
	elsewhere := enqueue(t, pgqrs.NewQueue[int](e.store, "elsewhere"), 1)
	e.poke(t, "UPDATE pgqrs_workflow_runs SET message_id = %d WHERE id = %d", elsewhere, bad.ID())
	must(t, approved.Send(t.Context(), e.store, good.ID(), "go"))
	start(t, fast(h))
	wrong{set: "message_id", reason: "another queue"}.ends(t, bad, "")
	equal(t, "result", finished(t, good), "step 2")
	equal(t, "state of the other queue's message", e.info(t, elsewhere).State, pgqrs.Ready)
}

func malformedSignal(t *testing.T, e *env) {
	if e.dialect == pgqrs.Postgres {
		return // its columns hold nothing that does not decode
	}
	w, h := twoParts(e.store)
	for _, set := range []string{`payload = '{'`, `payload = x'ff00'`, `payload = 'NaN'`, `payload = '"a" "b"'`} {
		run := launch(t, w, 1)
		must(t, approved.Send(t.Context(), e.store, run.ID(), "go"))
		e.poke(t, "UPDATE pgqrs_workflow_signals SET %s WHERE run_id = %d", set, run.ID())
		stop := start(t, fast(h))
		wrong{set: set, reason: "malformed"}.ends(t, run, "")
		must(t, stop())
	}
}

func malformedChild(t *testing.T, e *env) {
	if e.dialect == pgqrs.Postgres {
		return // its columns hold nothing that does not decode
	}
	f := newFamily(e.store)
	for _, set := range []string{`status = 'BOGUS'`, `status = 'SUCCESS', output = '{'`, `status = 'ERROR', error = x'ff'`} {
		stop := start(t, fast(f.handlers()[:1]...))
		run := launch(t, f.parents, []int{1})
		asleep(t, e, run, "kids")
		must(t, stop())
		e.poke(t, "UPDATE pgqrs_workflow_runs SET %s WHERE parent_run_id = %d", set, run.ID())
		e.poke(t, "UPDATE pgqrs_messages SET vt = enqueued_at WHERE id = %d", e.runInfo(t, run.ID()).MessageID)
		stop = start(t, fast(f.handlers()...))
		_, err := run.Result(patience(t))
		if err == nil {
			t.Errorf("%s: the parent has succeeded", set)
		}
		must(t, stop())
	}
}

var wrongSchedules = []wrong{
	{`tick_ct = 9223372036854775807`, "", false},
	{`next_at = '-infinity'`, "", false},
	{`created_at = 'infinity', updated_at = '-infinity', resumed_at = '-infinity'`, "", false},
	{`headers = '[1]'`, "headers", false},
	{`tick_ct = 'many'`, "tick_ct", true},
	{`next_at = 'yesterday'`, "next_at", true},
	{`next_at = x'ff'`, "next_at", true},
	{`paused_at = 'yesterday'`, "paused_at", true},
	{`payload = '{'`, "payload", true},
	{`catch_up = 'none'`, "catch_up", true},
}

func malformedSchedules(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "ticks")
	g := newGrid(time.Hour)
	wrongs := wrongsOn(e, wrongSchedules)
	schedules := []pgqrs.Schedule{{Name: "good", Rule: g, Target: q.Target(-1)}}
	for i := range wrongs {
		schedules = append(schedules, pgqrs.Schedule{Name: fmt.Sprint("bad ", i), Rule: g, Target: q.Target(i)})
	}
	stop := ticking(t, schedules...)
	eventually(t, "the schedules are there", func() bool { return len(value(e.store.Schedules(t.Context()))(t)) == len(schedules) })
	must(t, stop())
	value(e.db.ExecContext(t.Context(), "DELETE FROM pgqrs_schedule_runs"))(t)
	for i, x := range wrongs {
		e.poke(t, "UPDATE pgqrs_schedules SET %s WHERE name = 'bad %d'", x.set, i)
	}
	value(e.store.Depths(t.Context()))(t)
	list := value(e.store.Schedules(t.Context()))(t)
	equal(t, "schedules listed", len(list), len(schedules))
	value(json.Marshal(list))(t)
	for i, x := range wrongs {
		if got := e.schedule(t, fmt.Sprint("bad ", i)).Malformed; x.reason != "tick_ct" && !strings.Contains(got, x.reason) {
			t.Errorf("%s: the listing says %q", x.set, got)
		}
	}
	e.poke(t, "UPDATE pgqrs_schedules SET next_at = '2026-01-01 00:00:00' WHERE name = 'good'")
	ticking(t, schedules...)
	eventually(t, "the good schedule has run", func() bool { return len(value(e.store.ScheduleRuns(t.Context(), "good", 10))(t)) > 0 })
	if e.dialect != pgqrs.Postgres {
		eventually(t, "the bad ones are logged", func() bool { return e.log.has("does not decode") })
	}
	e.poke(t, `UPDATE pgqrs_schedule_runs SET ran_at = 'infinity', message_id = -1`)
	value(e.store.ScheduleRuns(t.Context(), "good", 10))(t)
	value(e.store.Schedules(t.Context()))(t)
	for i := range wrongs {
		must(t, e.store.DeleteSchedule(t.Context(), fmt.Sprint("bad ", i)))
	}
}

var wrongOthers = []struct {
	table string
	wrong
}{
	{"pgqrs_workers", wrong{set: `started_at = 'infinity', heartbeat_at = '-infinity', shutdown_at = 'infinity'`}},
	{"pgqrs_workers", wrong{set: `status = 'stopped', heartbeat_at = '-infinity', shutdown_at = '-infinity'`}},
	{"pgqrs_workers", wrong{set: `started_at = 'yesterday', heartbeat_at = 'now', shutdown_at = x'ff'`, lite: true}},
	{"pgqrs_workers", wrong{set: `go_state = x'ff'`, lite: true}},
	{"pgqrs_queues", wrong{set: `created_at = 'infinity', paused_at = '-infinity'`}},
	{"pgqrs_queues", wrong{set: `policy = '[1]'`}},
	{"pgqrs_queues", wrong{set: `policy = '"x"', dead_letter = ''`}},
	{"pgqrs_queues", wrong{set: `max_held = -2147483648, rate_interval = 9223372036854775807, rate_burst = 2147483647`}},
	{"pgqrs_queues", wrong{set: `rate_interval = 0, rate_burst = 0, group_interval = 0, group_burst = 0, group_limit = 0`}},
	{"pgqrs_queues", wrong{set: `group_interval = 9223372036854775807, group_burst = -2147483648, group_limit = 2147483647`}},
	{"pgqrs_queues", wrong{set: `policy = '{', created_at = 'yesterday'`, lite: true}},
	{"pgqrs_queues", wrong{set: `policy = x'ff', dead_letter = x'ff', max_held = x'ff', rate_interval = 'x', rate_burst = 0.5, group_limit = x'ff'`, lite: true}},
	{"pgqrs_groups", wrong{set: `next_at = 'infinity', touched_at = 'infinity'`}},
	{"pgqrs_groups", wrong{set: `next_at = '-infinity', touched_at = '-infinity'`}},
	{"pgqrs_groups", wrong{set: `next_at = 'tomorrow', touched_at = x'ff'`, lite: true}},
	{"pgqrs_groups", wrong{set: `group_key = x'ff'`, lite: true}},
	{"pgqrs_queues", wrong{set: `group_skip = 'perhaps', group_limit = 'x', group_interval = x'ff'`, lite: true}},
}

// wrongLimits are limits that foreign SQL wrote into the row of a queue.
var wrongLimits = []wrong{
	{set: `max_held = 0`},
	{set: `max_held = -3`},
	{set: `rate_interval = -1000000, rate_burst = 5`},
	{set: `rate_interval = 0, rate_burst = 5`},
	{set: `rate_interval = 60000000, rate_burst = 0`},
	{set: `rate_interval = 60000000, rate_burst = -5`},
	{set: `group_limit = 0`},
	{set: `group_limit = -1`},
	{set: `max_held = 'none'`, lite: true},
	{set: `max_held = x'00'`, lite: true},
	{set: `max_held = 0.5`, lite: true},
	{set: `rate_interval = 'often', rate_burst = 1`, lite: true},
	{set: `rate_interval = 60000000, rate_burst = x'ff'`, lite: true},
}

func malformedLimits(t *testing.T, e *env) {
	wrongs := wrongsOn(e, wrongLimits)
	for i, x := range wrongs {
		name := fmt.Sprint("limited ", i)
		q := pgqrs.NewQueue[int](e.store, name)
		enqueue(t, q, 0)
		e.poke(t, "UPDATE pgqrs_queues SET %s WHERE queue_name = '%s'", x.set, name)
		value(q.EnqueueBatch(t.Context(), []int{1, 2}, pgqrs.Group("a")))(t)
		done := 0
		for range 3 {
			ms, err := q.Dequeue(t.Context(), 10, time.Minute)
			if err != nil {
				t.Errorf("%s: dequeue: %v", x.set, err)
			}
			must(t, q.Ack(t.Context(), ms...))
			done += len(ms)
		}
		equal(t, x.set+": messages delivered", done, 3)
	}
	warnings := strings.Join(value(e.store.Verify(t.Context()))(t).Warnings, "\n")
	for i, x := range wrongs {
		if !strings.Contains(warnings, fmt.Sprintf(`queue "limited %d" has limits`, i)) {
			t.Errorf("%s: Verify says nothing of it: %s", x.set, warnings)
		}
	}
	enqueue(t, pgqrs.NewQueue[int](e.store, "other"), 1)
	start(t, fast(pgqrs.NewQueue[int](e.store, "other").Handle(func(context.Context, *pgqrs.Message[int]) error { return nil })))
	eventually(t, "the worker has logged it", func() bool { return e.log.has("limits that no policy can have") })
}

func malformedOthers(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "good")
	for i, x := range wrongOthers {
		if x.lite && e.dialect == pgqrs.Postgres {
			continue
		}
		other := pgqrs.NewQueue[int](e.store, fmt.Sprint("bad ", i))
		policy := pgqrs.Policy{Rate: pgqrs.Rate{N: 1000, Per: time.Second}, GroupRate: pgqrs.Rate{N: 1000, Per: time.Second}}
		must(t, other.With(policy).Configure(t.Context()))
		enqueue(t, other, 1, pgqrs.Group("a"))
		for _, m := range dequeue(t, other, 1) { // the dequeue makes a worker's row
			must(t, other.Ack(t.Context(), m))
		}
		e.poke(t, "UPDATE %s SET %s WHERE %s", x.table, x.set, map[string]string{
			"pgqrs_workers": fmt.Sprintf("queue_id = (SELECT id FROM pgqrs_queues WHERE queue_name = 'bad %d')", i),
			"pgqrs_groups":  fmt.Sprintf("queue_id = (SELECT id FROM pgqrs_queues WHERE queue_name = 'bad %d')", i),
			"pgqrs_queues":  fmt.Sprintf("queue_name = 'bad %d'", i),
		}[x.table])
		value(json.Marshal(value(e.store.Queues(t.Context()))(t)))(t)
		value(json.Marshal(value(e.store.Depths(t.Context()))(t)))(t)
		value(json.Marshal(value(e.store.Workers(t.Context()))(t)))(t)
		enqueue(t, other, 2, pgqrs.Group("a"))
		// The queue's own limits may refuse the dequeue.
		ms, err := other.Dequeue(t.Context(), 1, time.Minute)
		if err != nil && !strings.Contains(err.Error(), "limits") && !strings.Contains(err.Error(), "stopped") {
			t.Errorf("%s: dequeue: %v", x.set, err)
		}
		for _, m := range ms {
			must(t, other.Ack(t.Context(), m))
		}
		enqueue(t, q, 3)
		must(t, q.Ack(t.Context(), dequeueOne(t, q)))
	}
	enqueue(t, q, 4)
	start(t, fast(q.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil })))
	eventually(t, "the good queue is empty", func() bool { return e.stats(t, "good").Archived == e.acked(t) })
	if e.log.has("upkeep failed") || e.log.has("could not heartbeat") {
		t.Errorf("the maintenance or a heartbeat has failed")
	}
}

// acked counts the messages of the queue "good".
func (e *env) acked(t *testing.T) int64 {
	t.Helper()
	q := e.stats(t, "good")
	return q.Ready + q.Scheduled + q.Leased + q.Archived + q.Dead
}
