package conformance

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var faultCases = []testcase{
	{"a worker survives a database that is away for a while, and nothing is lost or counted", "a database's restart would end every worker, or bury work in the dead letters", faultAway},
	{"messages of a claim whose answer was lost are given back uncounted, at once", "a network error would hide messages for a lease, and burn an attempt", faultClaim},
	{"what a handler has in hand stays its own when the answer of a later claim is lost", "a network error would have a message handled by two at once", faultClaimHeld},
	{"messages of a claim whose answer was lost are given back when the worker ends", "a deploy in an outage would burn an attempt", faultClaimDrain},
	{"an ack whose answer was lost is not taken for lost work", "work would be done twice, or an operator be alarmed for nothing", faultAck},
	{"a failure whose answer was lost is recorded once", "one failure would count as two attempts", faultFail},
	{"HandleTx whose commit's answer was lost has its effect once", "an effect would happen twice", faultCommit},
	{"a database that fails under HandleTx is no failure of its function: no attempt is burned", "a database's restart would bury work in the dead letters", faultTx},
	{"an error of HandleTx's function that only looks like the database's is its own failure", "a handler that reads a broken file would be tried again every second for ever", faultLooksTx},
	{"an error of StepTx's function that only looks like the database's is its own failure", "a run would stay RUNNING for ever", faultLooksStep},
	{"an outcome that the database refuses holds up no other, and its message is let go", "one row in the way would block the outcomes of a whole worker", faultRefused},
	{"a lease that the database refuses to renew takes no other along", "one row in the way would have everything handled twice", faultRenewal},
	{"a deadlock in HandleTx's function runs it again, and burns no attempt", "users would have to write the loop themselves", faultDeadlock},
	{"a message claimed ahead whose lease could not be renewed costs no attempt", "an outage would burn attempts of messages that nobody has touched", faultWaiting},
	{"a worker that was stopped during an outage stays stopped", "a stop order would be ignored", faultStop},
	{"a worker that starts while the database is away begins when that is back", "a deploy during an outage would leave no workers", faultStart},
	{"a worker whose first answer is lost begins all the same", "a worker would be kept out by its own row", faultStartMuted},
	{"Run on a database without the schema returns ErrNotInstalled", "a worker would wait without end for tables that nobody makes", faultNoSchema},
}

// everything is the fault of an unreachable database.
func everything(string) fault { return refused }

func faultAway(t *testing.T, e *env) {
	store, net := e.farStore(t)
	q := pgqrs.NewQueue[int](store, "away").With(atOnce(1))
	begun, gate := make(chan int, 100), make(chan struct{})
	start(t, fast(q.Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
		begun <- m.Attempt
		if m.Payload == 1 {
			<-gate
		}
		return nil
	})))
	near := pgqrs.NewQueue[int](e.store, "away")
	first := enqueue(t, near, 1)
	receive(t, "a message is handled", begun)
	net.fail(everything)
	second := enqueue(t, near, 2)
	close(gate)
	eventually(t, "the worker has noticed", func() bool {
		return e.log.has("could not record outcomes; trying again") && e.log.has("could not look for messages; trying again")
	})
	equal(t, "state of what was being handled", e.info(t, first).State, pgqrs.Leased)
	net.heal()
	for _, id := range []int64{first, second} {
		equal(t, "attempts", e.awaitState(t, id, pgqrs.Archived).Attempt, 1)
	}
	equal(t, "attempt", receive(t, "the second message is handled", begun), 1)
	equal(t, "times messages were handled besides", len(begun), 0)
}

func faultClaim(t *testing.T, e *env) {
	store, net := e.farStore(t)
	var handled tally[string]
	q := pgqrs.NewQueue[int](store, "strays").With(atOnce(1))
	near := pgqrs.NewQueue[int](e.store, "strays")
	ids := value(near.EnqueueBatch(t.Context(), []int{1, 2, 3}))(t)
	f, happened := once("pgqrs:message.claim", muted)
	net.fail(f)
	w := fast(q.Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
		handled.add(fmt.Sprint(m.ID, " ", m.Attempt))
		return nil
	}))
	w.Concurrency, w.Lease = 3, time.Hour // no lease ends by itself
	start(t, w)
	receive(t, "the claim's answer is lost", happened)
	var want []string
	for _, id := range ids {
		equal(t, "attempts", e.awaitState(t, id, pgqrs.Archived).Attempt, 1)
		want = append(want, fmt.Sprint(id, " ", 1))
	}
	equal(t, "messages handled", handled.len(), len(want))
}

func faultClaimHeld(t *testing.T, e *env) {
	store, net := e.farStore(t)
	q := pgqrs.NewQueue[int](store, "held").With(pgqrs.Policy{Concurrency: 2})
	begun, gate := make(chan int, 10), make(chan struct{})
	w := fast(q.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
		begun <- m.Payload
		if m.Payload == 1 {
			<-gate
		}
		return ctx.Err()
	}))
	w.Lease = time.Hour
	start(t, w)
	near := pgqrs.NewQueue[int](e.store, "held")
	first := enqueue(t, near, 1)
	equal(t, "what is in hand", receive(t, "a message is handled", begun), 1)
	f, happened := once("pgqrs:message.claim", muted)
	net.fail(f)
	second := enqueue(t, near, 2)
	receive(t, "the claim's answer is lost", happened)
	equal(t, "attempts of the other", e.awaitState(t, second, pgqrs.Archived).Attempt, 1)
	equal(t, "state of what is in hand", e.info(t, first).State, pgqrs.Leased)
	close(gate)
	m := e.awaitState(t, first, pgqrs.Archived)
	equal(t, "attempts", m.Attempt, 1)
	equal(t, "claims", m.Claim, 1)
	equal(t, "messages handled besides", len(begun), 1)
}

func faultClaimDrain(t *testing.T, e *env) {
	store, net := e.farStore(t)
	q := pgqrs.NewQueue[string](store, "strays")
	id := enqueue(t, pgqrs.NewQueue[string](e.store, "strays"), "x")
	h, got := handling(q)
	claim, happened := once("pgqrs:message.claim", muted)
	net.fail(func(text string) fault {
		if strings.Contains(text, "pgqrs:worker.poll") {
			return refused // otherwise the worker would notice by itself
		}
		return claim(text)
	})
	stop := start(t, &pgqrs.Worker{Handlers: []pgqrs.Handler{h}, PollInterval: never})
	receive(t, "the claim's answer is lost", happened)
	must(t, stop())
	m := e.info(t, id)
	equal(t, "times it was handled", len(got), 0)
	equal(t, "state", m.State, pgqrs.Ready)
	equal(t, "attempts", m.Attempt, 0)
}

// quiet fails the test if the log mentions lost leases.
func (e *env) quiet(t *testing.T) {
	t.Helper()
	for _, text := range []string{"lease lost", "lease was lost before"} {
		if e.log.has(text) {
			t.Errorf("the log says %q", text)
		}
	}
}

func faultAck(t *testing.T, e *env) {
	store, net := e.farStore(t)
	q := pgqrs.NewQueue[string](store, "acked")
	h, got := handling(q)
	f, happened := once("pgqrs:message.ack", muted)
	net.fail(f)
	stop := start(t, fast(h))
	id := enqueue(t, q, "x")
	receive(t, "the ack's answer is lost", happened)
	next := enqueue(t, q, "y")
	e.awaitState(t, next, pgqrs.Archived)
	must(t, stop())
	m := e.info(t, id)
	equal(t, "state", m.State, pgqrs.Archived)
	equal(t, "attempts", m.Attempt, 1)
	equal(t, "messages handled", len(got), 2)
	e.quiet(t)
}

func faultFail(t *testing.T, e *env) {
	store, net := e.farStore(t)
	q := pgqrs.NewQueue[int](store, "failed").With(pgqrs.Policy{Backoff: func(int) time.Duration { return time.Hour }})
	f, happened := once("pgqrs:message.fail", muted)
	net.fail(f)
	stop := start(t, fast(q.Handle(func(context.Context, *pgqrs.Message[int]) error { return errBoom })))
	id := enqueue(t, q, 1)
	receive(t, "the answer is lost", happened)
	must(t, stop())
	m := e.info(t, id)
	equal(t, "state", m.State, pgqrs.Scheduled)
	equal(t, "attempts", m.Attempt, 1)
	equal(t, "last error", m.LastError, "boom")
	wantDelay(t, m, time.Hour)
	if e.log.has("level=WARN msg=\"pgqrs: lease was lost") {
		t.Error("the log warns of a lost lease")
	}
}

func faultCommit(t *testing.T, e *env) {
	count := e.effects(t)
	store, net := e.farStore(t)
	q := pgqrs.NewQueue[int](store, "orders").With(atOnce(3))
	f, happened := once(txCommit, muted)
	net.fail(f)
	stop := start(t, fast(q.HandleTx(func(ctx context.Context, tx *sql.Tx, _ *pgqrs.Message[int]) error {
		_, err := tx.ExecContext(ctx, effect)
		return err
	})))
	id := enqueue(t, q, 1)
	receive(t, "the commit's answer is lost", happened)
	next := enqueue(t, q, 2)
	e.awaitState(t, next, pgqrs.Archived)
	must(t, stop())
	m := e.info(t, id)
	equal(t, "state", m.State, pgqrs.Archived)
	equal(t, "attempts", m.Attempt, 1)
	equal(t, "last error", m.LastError, "")
	equal(t, "effects", count(), 2)
}

func faultTx(t *testing.T, e *env) {
	count := e.effects(t)
	store, far := e.farStore(t)
	q := pgqrs.NewQueue[string](store, "orders").With(atOnce(1))
	start(t, fast(q.HandleTx(func(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[string]) error {
		_, err := tx.ExecContext(ctx, effect)
		return err
	})))
	for i, where := range []string{"pgqrs:message.check", "pgqrs:message.ack", txCommit, effect} {
		f, happened := once(where, refused)
		far.fail(f)
		id := enqueue(t, q, where)
		m := e.awaitState(t, id, pgqrs.Archived)
		equal(t, "attempts of what failed in "+where, m.Attempt, 1)
		equal(t, "effects of what failed in "+where, count(), i+1)
		receive(t, where+" has failed", happened)
	}
	wantText(t, "log", e.log.String(), "message is put off because of the database")
}

// refuse makes the database refuse updates that set a column of messages with a payload. It does so
// until the returned function is called.
func (e *env) refuse(t *testing.T, column, payload string) (allow func()) {
	t.Helper()
	texts := []string{fmt.Sprintf("CREATE TRIGGER refuse BEFORE UPDATE ON pgqrs_messages WHEN NEW.%[1]s IS NOT OLD.%[1]s AND OLD.payload = '%[2]s' BEGIN SELECT RAISE(ABORT, 'not this one'); END", column, payload)}
	drop := "DROP TRIGGER refuse"
	if e.dialect == pgqrs.Postgres {
		texts = []string{
			"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$not this one$$; END'",
			fmt.Sprintf("CREATE TRIGGER refuse BEFORE UPDATE ON pgqrs_messages FOR EACH ROW WHEN (NEW.%[1]s IS DISTINCT FROM OLD.%[1]s AND OLD.payload = '%[2]s') EXECUTE FUNCTION refuse()", column, payload),
		}
		drop = "DROP TRIGGER refuse ON pgqrs_messages"
	}
	for _, text := range texts {
		if _, err := e.db.ExecContext(t.Context(), text); err != nil {
			if e.dialect == pgqrs.Turso {
				t.Skipf("the engine has no triggers: %v", err)
			}
			t.Fatal(err)
		}
	}
	return func() { e.poke(t, "%s", drop) }
}

func faultRefused(t *testing.T, e *env) {
	var handled tally[int]
	q := pgqrs.NewQueue[int](e.store, "jobs").With(pgqrs.Policy{MaxAttempts: -1, Lease: 5 * time.Second})
	ids := value(q.EnqueueBatch(t.Context(), []int{1, 2, 13, 4, 5}))(t)
	allow := e.refuse(t, "archived_at", "13")
	stop := start(t, fast(q.Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
		handled.add(m.Payload)
		return nil
	})))
	for i, id := range ids {
		if i != 2 {
			equal(t, "attempts", e.awaitState(t, id, pgqrs.Archived).Attempt, 1)
		}
	}
	equal(t, "attempts of the one that is refused", e.info(t, ids[2]).Attempt, 1)
	for range 3 {
		e.awaitState(t, enqueue(t, q, 6), pgqrs.Archived)
	}
	eventually(t, "its message is delivered again", func() bool { return e.info(t, ids[2]).Attempt > 1 })
	wantText(t, "log", e.log.String(), "the database refuses an outcome; trying again", "the database refuses an outcome; its message is delivered again when its lease ends", "not this one")
	allow()
	e.awaitState(t, ids[2], pgqrs.Archived)
	must(t, stop())
	if e.log.has("could not record outcomes") {
		t.Error("the log says that outcomes could not be recorded")
	}
}

func faultRenewal(t *testing.T, e *env) {
	var attempts tally[int]
	q := pgqrs.NewQueue[int](e.store, "jobs").With(pgqrs.Policy{MaxAttempts: -1, Lease: 3 * time.Second})
	ids := value(q.EnqueueBatch(t.Context(), []int{1, 2, 13, 4, 5}))(t)
	gate := make(chan struct{})
	start(t, fast(q.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
		attempts.add(m.Payload)
		select {
		case <-gate:
		case <-ctx.Done():
		}
		return context.Cause(ctx)
	})))
	eventually(t, "all are being handled", func() bool { return attempts.len() == len(ids) })
	e.refuse(t, "vt", "13")
	eventually(t, "the lease that cannot be renewed is lost", func() bool { return e.log.has("lease lost") })
	first := e.info(t, ids[0]).LeasedUntil
	eventually(t, "the others are renewed for a lease more", func() bool { return e.info(t, ids[0]).LeasedUntil.Sub(first) > 3*time.Second })
	close(gate)
	for i, id := range ids {
		if i != 2 {
			equal(t, "attempts", e.awaitState(t, id, pgqrs.Archived).Attempt, 1)
		}
	}
	equal(t, "leases lost", strings.Count(e.log.String(), "lease lost"), 1)
}

func faultDeadlock(t *testing.T, e *env) {
	if e.dialect != pgqrs.Postgres {
		t.Skip("the SQLite family has one lock")
	}
	e.poke(t, "CREATE TABLE accounts (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
	e.poke(t, "INSERT INTO accounts VALUES (1, 0), (2, 0)")
	add := func(ctx context.Context, tx *sql.Tx, id int) error {
		_, err := tx.ExecContext(ctx, fmt.Sprintf("UPDATE accounts SET n = n + 1 WHERE id = %d", id))
		return err
	}
	var calls tally[int]
	first, crossed := make(chan struct{}), make(chan struct{})
	q := pgqrs.NewQueue[int](e.store, "orders").With(atOnce(1))
	start(t, fast(q.HandleTx(func(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[int]) error {
		// This transaction finds the deadlock, and fails.
		if _, err := tx.ExecContext(ctx, "SET LOCAL deadlock_timeout = '10ms'"); err != nil {
			return err
		}
		if err := add(ctx, tx, 1); err != nil {
			return err
		}
		if calls.add(m.Attempt); calls.len() == 1 {
			close(first)
			<-crossed
		}
		if err := add(ctx, tx, 2); err != nil {
			return fmt.Errorf("book: %w", err)
		}
		return nil
	})))
	id := enqueue(t, q, 1)
	receiveClosed(t, "the handler has locked a row", first)
	tx := value(e.db.BeginTx(t.Context(), nil))(t)
	defer tx.Rollback()
	must(t, add(t.Context(), tx, 2))
	locked := make(chan error, 1)
	go func() { locked <- add(t.Context(), tx, 1) }()
	eventually(t, "the other transaction waits", func() bool {
		var n int
		must(t, e.db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE accounts%' AND datname = current_database()").Scan(&n))
		return n > 0
	})
	close(crossed)
	must(t, receive(t, "the other transaction goes on", locked))
	must(t, tx.Commit())
	m := e.awaitState(t, id, pgqrs.Archived)
	equal(t, "attempts", m.Attempt, 1)
	equal(t, "last error", m.LastError, "")
	equalSlices(t, "attempts of the calls", calls.all(), []int{1, 1})
	var sum int
	must(t, e.db.QueryRowContext(t.Context(), "SELECT sum(n) FROM accounts").Scan(&sum))
	equal(t, "what was booked", sum, 4)
}

// lookalikes are errors of user code that look like errors of a database.
var lookalikes = map[string]error{
	"a short file":       fmt.Errorf("read the invoice: %w", io.ErrUnexpectedEOF),
	"an empty file":      io.EOF,
	"a service":          &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")},
	"another database":   fmt.Errorf("report: %w", driver.ErrBadConn),
	"another connection": sql.ErrConnDone,
	"a text":             errors.New("database is locked"),
	"a longer text":      fmt.Errorf("the archive says: %w", errors.New("database or disk is full")),
	"a snapshot":         errors.New("snapshot is stale"),
}

func faultLooksTx(t *testing.T, e *env) {
	count := e.effects(t)
	var calls tally[string]
	q := pgqrs.NewQueue[string](e.store, "orders").With(atOnce(2))
	start(t, fast(q.HandleTx(func(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[string]) error {
		calls.add(m.Payload)
		return errors.Join(book(ctx, tx), lookalikes[m.Payload])
	})))
	for what, err := range lookalikes {
		m := e.awaitState(t, enqueue(t, q, what), pgqrs.Dead)
		equal(t, "attempts with "+what, m.Attempt, 2)
		wantText(t, "last error", m.LastError, err.Error())
	}
	equal(t, "calls", calls.len(), 2*len(lookalikes))
	equal(t, "effects", count(), 0)
}

func faultLooksStep(t *testing.T, e *env) {
	count := e.effects(t)
	var calls tally[string]
	w := pgqrs.NewWorkflow[string, int](e.store, "orders")
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, what string) (int, error) {
		return 0, run.With(atOnce(2)).DoTx(ctx, "book", func(ctx context.Context, tx *sql.Tx) error {
			calls.add(what)
			return errors.Join(book(ctx, tx), lookalikes[what])
		})
	})))
	for what, err := range lookalikes {
		h := value(w.Start(t.Context(), what))(t)
		wantText(t, "error", e.awaitRun(t, h.ID(), pgqrs.Failed).Error, err.Error())
		equal(t, "retries with "+what, e.step(t, h.ID(), "book").Retries, 2)
	}
	equal(t, "calls", calls.len(), 2*len(lookalikes))
	equal(t, "effects", count(), 0)
}

func faultWaiting(t *testing.T, e *env) {
	store, net := e.farStore(t)
	a := newAhead(t, e, store, pgqrs.Worker{Lease: time.Second})
	net.fail(func(text string) fault {
		for _, tag := range []string{"renew", "claim", "strays"} {
			if strings.Contains(text, "pgqrs:message."+tag) {
				return refused
			}
		}
		return none
	})
	eventually(t, "the worker has given its leases up", func() bool { return strings.Count(e.log.String(), "pgqrs: lease lost") > len(a.waiting) })
	close(a.gate)
	for _, id := range a.waiting {
		eventually(t, "a message claimed ahead is given back uncounted", func() bool { return e.info(t, id).Attempt == 0 })
	}
	net.heal()
	for _, id := range a.waiting {
		equal(t, "attempts", e.awaitState(t, id, pgqrs.Archived).Attempt, 1)
	}
}

func faultStop(t *testing.T, e *env) {
	store, net := e.farStore(t)
	h, _ := handling(pgqrs.NewQueue[string](store, "a"))
	w := fast(h)
	w.Name, w.Lease = "w", 600*time.Millisecond
	ended := startOnly(t, w)
	row := e.awaitStatus(t, "w/a", "polling")
	away := make(chan struct{}, 1000)
	net.fail(func(text string) fault {
		if !strings.Contains(text, "pgqrs:worker.heartbeat") {
			return none
		}
		select {
		case away <- struct{}{}:
		default:
		}
		return refused
	})
	for range 5 {
		receive(t, "a heartbeat fails", away)
	}
	must(t, e.store.StopWorker(t.Context(), row.ID))
	net.heal()
	must(t, receive(t, "Run returns by itself", ended))
	equal(t, "status", e.worker(t, "w/a").State, "stopped")
}

func faultStart(t *testing.T, e *env) {
	store, net := e.farStore(t)
	h, got := handling(pgqrs.NewQueue[string](store, "start"))
	enqueue(t, pgqrs.NewQueue[string](e.store, "start"), "x")
	net.fail(everything)
	start(t, fast(h))
	eventually(t, "the worker has tried twice", func() bool {
		return strings.Count(e.log.String(), "could not start; trying again") >= 2
	})
	net.heal()
	equal(t, "payload", receive(t, "the message is handled", got), "x")
}

func faultStartMuted(t *testing.T, e *env) {
	store, net := e.farStore(t)
	h, got := handling(pgqrs.NewQueue[string](store, "start"))
	enqueue(t, pgqrs.NewQueue[string](e.store, "start"), "x")
	f, happened := once("pgqrs:worker.register", muted)
	net.fail(f)
	w := fast(h)
	w.Name = "one"
	start(t, w)
	receive(t, "the answer is lost", happened)
	eventually(t, "the worker meets its own row", func() bool { return e.log.has("waiting for a worker of the same name to be given up") })
	e.poke(t, "UPDATE pgqrs_workers SET heartbeat_at = '2020-01-01 00:00:00' WHERE name = 'one/start'")
	equal(t, "payload", receive(t, "the message is handled", got), "x")
}

func faultNoSchema(t *testing.T, e *env) {
	db, dialect := e.open(t)
	empty := &env{db: db, dialect: dialect, config: e.config, log: e.log}
	h, _ := handling(pgqrs.NewQueue[string](empty.newStore(t, pgqrs.Config{}), "a"))
	err := receive(t, "Run returns", startOnly(t, fast(h)))
	wantError(t, err, pgqrs.ErrNotInstalled)
	wantText(t, "error", err.Error(), "Install")
	if errors.Is(err, pgqrs.ErrState) {
		t.Error("it matches ErrState too")
	}
}
