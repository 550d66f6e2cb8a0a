package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var txCases = []testcase{
	{"an enqueue in the caller's transaction is there if and only if that commits", "there would be an order without its job, or a job without its order", func(t *testing.T, e *env) {
		enqueue(t, jobs(e), "makes the queue")
		eachTx(e, func(tx *callerTx) {
			before := e.stats(t, "jobs").Ready
			q := jobs(e).WithTx(tx.begin(t))
			enqueue(t, q, "one")
			value(q.EnqueueBatch(t.Context(), []string{"two", "three"}))(t)
			key := fmt.Sprint("k", before)
			equal(t, "id of the repetition", enqueue(t, q, "again", pgqrs.Key(key)), enqueue(t, q, "four", pgqrs.Key(key)))
			equal(t, "ready before the end", e.stats(t, "jobs").Ready, before)
			tx.end(t)
			if tx.commit {
				before += 4
			}
			equal(t, "ready after the end", e.stats(t, "jobs").Ready, before)
		})
	}},
	{"the first use of a queue may be in a transaction", "the first order after a deployment would fail", func(t *testing.T, e *env) {
		eachTx(e, func(tx *callerTx) {
			q := jobs(e).WithTx(tx.begin(t))
			enqueue(t, q, "one")
			value(q.EnqueueBatch(t.Context(), []string{"two", "three"}))(t)
			tx.end(t)
			queues := value(e.store.Queues(t.Context()))(t)
			if !tx.commit {
				equal(t, "number of queues", len(queues), 0)
				return
			}
			equal(t, "ready", queues[0].Ready, 3)
			value(e.store.Purge(t.Context(), "jobs", pgqrs.Ready))(t)
			must(t, e.store.DropQueue(t.Context(), "jobs"))
		})
	}},
	{"what a holder does in its transaction happens if and only if that commits", "an effect and its ack would part: work done twice, or lost", func(t *testing.T, e *env) {
		after := map[string]pgqrs.MessageState{
			"ack": pgqrs.Archived, "delete": "none", "release": pgqrs.Ready, "delay": pgqrs.Scheduled,
			"extend": pgqrs.Leased, "fail": pgqrs.Scheduled, "bury": pgqrs.Dead, "snooze": pgqrs.Ready,
		}
		for what, want := range after {
			eachTx(e, func(tx *callerTx) {
				id := enqueue(t, jobs(e), what)
				m := dequeueOne(t, jobs(e))
				before := e.view(t, id)
				must(t, settlements(t, jobs(e).WithTx(tx.begin(t)))[what](m))
				equal(t, "before the end of "+what, e.view(t, id), before)
				tx.end(t)
				if !tx.commit {
					equal(t, "after the rollback of "+what, e.view(t, id), before)
					must(t, jobs(e).Ack(t.Context(), m))
					return
				}
				if got := e.view(t, id); got == before || !strings.HasPrefix(got, string(want)) {
					t.Errorf("after the commit of %s: %s; want it %s", what, got, want)
				}
				value(e.store.Delete(t.Context(), id))(t)
			})
		}
	}},
	{"a lost lease shows in the caller's transaction, which goes on", "the effects of a holder that is too late would be committed", func(t *testing.T, e *env) {
		thief := another(t, e)
		for what := range settlements(t, jobs(e)) {
			eachTx(e, func(tx *callerTx) {
				id := enqueue(t, jobs(e), what)
				stale := dequeueOne(t, jobs(e))
				pgqrstest.Advance(t, e.store, 31*time.Second)
				held := dequeueOne(t, thief)
				before := e.view(t, id)
				bound := tx.begin(t)
				err := settlements(t, jobs(e).WithTx(bound))[what](stale)
				if !errors.Is(err, pgqrs.ErrLeaseLost) {
					t.Errorf("%s: error is %v", what, err)
				}
				next := enqueue(t, pgqrs.NewQueue[string](e.store, "next").WithTx(bound), "x")
				tx.end(t)
				equal(t, "after "+what, e.view(t, id), before)
				equal(t, "the rest of the transaction was done", e.view(t, next) != "none", tx.commit)
				must(t, thief.Ack(t.Context(), held))
			})
		}
	}},
	{"a refused enqueue leaves the caller's transaction usable", "one repeated click or bad payload would cost the whole order", func(t *testing.T, e *env) {
		taken := enqueue(t, jobs(e), "taken", pgqrs.Key("k"))
		eachTx(e, func(tx *callerTx) {
			q := jobs(e).WithTx(tx.begin(t))
			id, err := q.Enqueue(t.Context(), "again", pgqrs.Unique("k"))
			wantError(t, err, pgqrs.ErrDuplicate)
			equal(t, "id", id, taken)
			_, err = q.Enqueue(t.Context(), "a\x00b")
			wantError(t, err, pgqrs.ErrInvalidPayload)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err = q.Enqueue(ctx, "cancelled")
			wantError(t, err, context.Canceled)
			good := enqueue(t, q, "good")
			tx.end(t)
			equal(t, "the good one was stored", e.view(t, good) != "none", tx.commit)
		})
	}},
	{"Dequeue and handlers in a caller's transaction are refused", "a lease that a rollback takes back would be worth nothing", func(t *testing.T, e *env) {
		enqueue(t, jobs(e), "x")
		eachTx(e, func(tx *callerTx) {
			q := jobs(e).WithTx(tx.begin(t))
			_, err := q.Dequeue(t.Context(), 1, time.Minute)
			wantError(t, err, pgqrs.ErrUnsupported)
			for _, h := range []pgqrs.Handler{
				q.Handle(func(context.Context, *pgqrs.Message[string]) error { return nil }),
				q.HandleTx(func(context.Context, *sql.Tx, *pgqrs.Message[string]) error { return nil }),
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				err := (&pgqrs.Worker{Handlers: []pgqrs.Handler{h}}).Run(ctx)
				cancel()
				wantError(t, err, pgqrs.ErrUnsupported)
				wantErrorText(t, err, "jobs")
			}
			tx.end(t)
		})
		equal(t, "ready", e.stats(t, "jobs").Ready, 1)
	}},
	{"a *sql.DB or nil is no transaction, and every call says so", "what looks transactional would not be, and nobody would notice until the first rollback", func(t *testing.T, e *env) {
		var tx *sql.Tx
		var conn *sql.Conn
		for what, bad := range map[string]pgqrs.Tx{"*sql.DB": e.db, "nil": nil, "nil *sql.Tx": tx, "nil *sql.Conn": conn} {
			for call, fn := range everyQueueCall(jobs(e).WithTx(bad), &pgqrs.Message[string]{}) {
				if err := fn(t.Context()); !errors.Is(err, pgqrs.ErrUnsupported) {
					t.Errorf("%s on %s: error is %v; want ErrUnsupported", call, what, err)
				}
			}
			_, err := e.store.WithTx(bad).Queues(t.Context())
			wantError(t, err, pgqrs.ErrUnsupported)
			wantErrorText(t, err, what)
		}
		e.wantEmpty(t)
	}},
	{"a transaction that has ended stores nothing", "a call after the commit would pass for one in it", func(t *testing.T, e *env) {
		tx := value(e.db.BeginTx(t.Context(), nil))(t)
		must(t, tx.Commit())
		_, err := jobs(e).WithTx(tx).Enqueue(t.Context(), "x")
		wantError(t, err, sql.ErrTxDone)
		e.wantEmpty(t)
	}},
	{"a write on the Store itself in a transaction of HandleTx or StepTx is refused at once where it would wait for that", "WithTx forgotten would stop all writes of the database for minutes", txInside},
	{"a write on the Store itself in a transaction of HandleTx or StepTx is done beside it where it need not wait", "a log entry could not outlive the work that it is about", txBeside},
	{"the ctx of a transaction of HandleTx or StepTx is good for any call once that has ended", "a goroutine that the handler started could not enqueue any more", txAfter},
}

// A callerTx is a transaction of the caller, of either kind that WithTx takes.
type callerTx struct {
	e      *env
	pinned bool // on a *sql.Conn
	commit bool // whether it ends by COMMIT
	finish func() error
}

// eachTx calls fn for both kinds of transaction and both ends. fn begins and ends the transaction.
func eachTx(e *env, fn func(tx *callerTx)) {
	for _, pinned := range []bool{false, true} {
		for _, commit := range []bool{false, true} {
			fn(&callerTx{e: e, pinned: pinned, commit: commit})
		}
	}
}

// begin begins the transaction. If the test fails before its end, it is rolled back.
func (c *callerTx) begin(t *testing.T) pgqrs.Tx {
	t.Helper()
	if !c.pinned {
		tx := value(c.e.db.BeginTx(t.Context(), nil))(t)
		t.Cleanup(func() { _ = tx.Rollback() }) // does nothing if it has ended
		c.finish = tx.Rollback
		if c.commit {
			c.finish = tx.Commit
		}
		return tx
	}
	conn := value(c.e.db.Conn(t.Context()))(t)
	t.Cleanup(func() { _ = conn.Close() }) // does nothing if it was closed
	text := "BEGIN IMMEDIATE"
	if c.e.dialect == pgqrs.Postgres {
		text = "BEGIN"
	}
	value(conn.ExecContext(t.Context(), text))(t)
	c.finish = func() error {
		text := "ROLLBACK"
		if c.commit {
			text = "COMMIT"
		}
		_, err := conn.ExecContext(t.Context(), text)
		return errors.Join(err, conn.Close())
	}
	return conn
}

// end ends the transaction by COMMIT or ROLLBACK.
func (c *callerTx) end(t *testing.T) {
	t.Helper()
	must(t, c.finish())
}

// view returns everything about a message as a text for comparison, or "none" if there is no
// message.
func (e *env) view(t *testing.T, id int64) string {
	t.Helper()
	ms := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{IDs: []int64{id}}))(t)
	if len(ms) == 0 {
		return "none"
	}
	return fmt.Sprintf("%s %+v", ms[0].State, ms[0])
}

// within calls fn in a HandleTx handler and in the function of a StepTx, with the name of the kind.
func (e *env) within(t *testing.T, fn func(ctx context.Context, tx *sql.Tx, kind string) error) (id int64, h *pgqrs.RunHandle[int]) {
	t.Helper()
	q, w := pgqrs.NewQueue[int](e.store, "within").With(atOnce(1)), pgqrs.NewWorkflow[int, int](e.store, "steps")
	start(t, fast(q.HandleTx(func(ctx context.Context, tx *sql.Tx, _ *pgqrs.Message[int]) error {
		return fn(ctx, tx, "HandleTx")
	}), w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (int, error) {
		return 1, run.With(atOnce(1)).DoTx(ctx, "step", func(ctx context.Context, tx *sql.Tx) error { return fn(ctx, tx, "StepTx") })
	})))
	id = enqueue(t, q, 1)
	return id, value(w.Start(t.Context(), 1))(t)
}

func txInside(t *testing.T, e *env) {
	if e.dialect == pgqrs.Postgres {
		t.Skip("writes do not wait for each other")
	}
	count := e.effects(t)
	letters := pgqrs.NewQueue[string](e.store, "letters").With(atOnce(1))
	dead := enqueue(t, letters, "dead")
	must(t, letters.Fail(t.Context(), errBoom, dequeueOne(t, letters)))
	enqueue(t, letters, "ready")
	other := pgqrs.NewWorkflow[int, int](e.store, "others")
	run := value(other.Start(t.Context(), 1))(t)
	e.register(t, pgqrs.Schedule{Name: "nightly", Rule: newGrid(time.Hour), Target: letters.Target("x")})
	calls := everyCall(e.store, "letters")
	add := func(name string, fn func(context.Context) error) { calls = append(calls, call{name, true, fn}) }
	add("Redrive of a dead letter", func(ctx context.Context) error { _, err := e.store.Redrive(ctx, dead); return err })
	add("Configure", letters.Configure)
	add("Start", func(ctx context.Context) error { _, err := other.Start(ctx, 1); return err })
	add("Start with a key", func(ctx context.Context) error { _, err := other.Start(ctx, 1, pgqrs.Key("k")); return err })
	add("Send", func(ctx context.Context) error { return pgqrs.Signal[int]("s").Send(ctx, e.store, run.ID(), 1) })
	add("Cancel", run.Cancel)
	add("Pause", run.Pause)
	calls = append(calls, call{"Info", false, func(ctx context.Context) error { _, err := run.Info(ctx); return err }})
	id, h := e.within(t, func(ctx context.Context, tx *sql.Tx, kind string) error {
		begun := time.Now()
		for _, c := range calls {
			switch err := c.run(ctx); {
			case c.writes && (!errors.Is(err, pgqrs.ErrState) || !strings.Contains(fmt.Sprint(err), "use WithTx")):
				t.Errorf("%s in %s: %v", c.name, kind, err)
			case !c.writes && err != nil:
				t.Errorf("%s in %s: %v", c.name, kind, err)
			}
		}
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("it took %v", took)
		}
		_, err := letters.WithTx(tx).Enqueue(ctx, "by WithTx")
		return errors.Join(err, book(ctx, tx))
	})
	equal(t, "attempts", e.awaitState(t, id, pgqrs.Archived).Attempt, 1)
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	equal(t, "effects", count(), 2)
	equal(t, "messages that are ready", e.stats(t, "letters").Ready, 3)
}

func txBeside(t *testing.T, e *env) {
	if e.dialect != pgqrs.Postgres {
		t.Skip("one write waits for the other")
	}
	log := pgqrs.NewQueue[string](e.store, "log")
	enqueue(t, log, "makes the queue")
	id, h := e.within(t, func(ctx context.Context, _ *sql.Tx, kind string) error {
		if _, err := log.Enqueue(ctx, kind); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		return pgqrs.Permanent(errBoom)
	})
	e.awaitState(t, id, pgqrs.Dead)
	e.awaitRun(t, h.ID(), pgqrs.Failed)
	equal(t, "messages that outlived their transaction", e.stats(t, "log").Ready, 3)
}

func txAfter(t *testing.T, e *env) {
	log := pgqrs.NewQueue[string](e.store, "log")
	ended := make(chan context.Context, 2)
	id, h := e.within(t, func(ctx context.Context, _ *sql.Tx, _ string) error {
		ended <- context.WithoutCancel(ctx)
		return nil
	})
	e.awaitState(t, id, pgqrs.Archived)
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	for range 2 {
		value(log.Enqueue(receive(t, "a function has run", ended), "x"))(t)
	}
}
