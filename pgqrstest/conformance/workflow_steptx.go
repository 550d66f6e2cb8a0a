package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var workflowStepTxCases = []testcase{
	{"StepTx commits its effect and its record together, and a replay repeats neither", "an order would be booked twice, or its record be of nothing", stepTxTogether},
	{"StepTx rolls its effect back on an error or panic, to which the policy applies", "a failed attempt would leave half its effects behind", stepTxError},
	{"StepTx rolls its effect back when its lease is lost under way", "an effect would happen twice", stepTxLost},
	{"StepTx does not call its function when its lease was lost before", "an effect would happen twice", stepTxLostBefore},
	{"StepTx has its effect once when the answer of its commit is lost, or the commit itself", "a network error would book an order twice, or refund it", stepTxCommit},
	{"of two executions of a run at once one has the effect of StepTx, and the other adopts its record", "an effect would happen twice", stepTxTwice},
	{"of two executions within StepTx at once one has the effect, and the other is rolled back", "an effect would happen twice", stepTxInside},
	{"StepTx whose function ends the transaction, or breaks it, is a failure of the step", "it would be repeated every second for ever, effect and all", stepTxSpoiled},
}

// book makes an effect in the database.
func book(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, effect)
	return err
}

// booking returns the function of a StepTx that makes an effect and returns n.
func booking(n int) func(context.Context, *sql.Tx) (int, error) {
	return func(ctx context.Context, tx *sql.Tx) (int, error) { return n, book(ctx, tx) }
}

func stepTxTogether(t *testing.T, e *env) {
	count := e.effects(t)
	var got tally[string]
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		n, err := pgqrs.StepTx(ctx, run, "book", booking(execution))
		p, err2 := pgqrs.StepTx(ctx, run, "nothing", func(ctx context.Context, tx *sql.Tx) (*int, error) { return nil, book(ctx, tx) })
		err3 := run.DoTx(ctx, "do", book)
		if err := errors.Join(err, err2, err3); err != nil {
			return receipt{}, err
		}
		got.add(fmt.Sprint(n, p))
		if execution == 1 {
			e.loseRun(t, run.ID())
		}
		return receipt{"tea", n}, run.Do(ctx, "end", func(context.Context) error { return nil })
	})
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"tea", 1})
	equalSlices(t, "values", got.all(), []string{"1 <nil>", "1 <nil>"})
	equal(t, "effects", count(), 3)
	for _, name := range []string{"book", "nothing", "do"} {
		s := e.step(t, h.ID(), name)
		equal(t, "status", s.Status, pgqrs.Succeeded)
		equal(t, "whether it has an end", s.EndedAt.IsZero(), false)
	}
}

func stepTxError(t *testing.T, e *env) {
	count := e.effects(t)
	var attempts tally[string]
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		err := run.With(atOnce(3)).DoTx(ctx, "flaky", func(ctx context.Context, tx *sql.Tx) error {
			attempts.add("flaky")
			if err := book(ctx, tx); err != nil {
				return err
			}
			switch attempts.len() {
			case 1:
				return errBoom
			case 2:
				panic(errBoom)
			}
			return nil
		})
		if err != nil {
			return receipt{}, err
		}
		return receipt{}, run.With(atOnce(3)).DoTx(ctx, "permanent", func(ctx context.Context, tx *sql.Tx) error {
			attempts.add("permanent")
			return errors.Join(book(ctx, tx), pgqrs.Permanent(errBoom))
		})
	})
	r := e.awaitRun(t, h.ID(), pgqrs.Failed)
	equalSlices(t, "attempts", attempts.all(), []string{"flaky", "flaky", "flaky", "permanent"})
	equal(t, "effects", count(), 1)
	equal(t, "retries", e.step(t, h.ID(), "flaky").Retries, 2)
	wantText(t, "error", r.Error, `step "permanent"`, "boom")
}

func stepTxLost(t *testing.T, e *env) {
	count := e.effects(t)
	var attempts tally[int]
	first := make(chan error, 1)
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		err := run.DoTx(ctx, "book", func(ctx context.Context, tx *sql.Tx) error {
			attempts.add(execution)
			if execution == 1 {
				// On SQLite nobody else could take it now, because the transaction holds the write
				// lock.
				_, err := tx.ExecContext(ctx, fmt.Sprintf("UPDATE pgqrs_messages SET claim_ct = claim_ct + 1 WHERE id = (SELECT message_id FROM pgqrs_workflow_runs WHERE id = %d)", run.ID()))
				if err != nil {
					return err
				}
			}
			return book(ctx, tx)
		})
		if execution == 1 {
			first <- err
		}
		return receipt{}, err
	})
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	wantError(t, <-first, pgqrs.ErrSuspended)
	equalSlices(t, "executions that called it", attempts.all(), []int{1, 2})
	equal(t, "effects", count(), 1)
}

func stepTxLostBefore(t *testing.T, e *env) {
	count := e.effects(t)
	var attempts tally[int]
	h := e.act(t, func(ctx context.Context, run *pgqrs.Run, execution int) (receipt, error) {
		if execution == 1 {
			e.loseRun(t, run.ID())
		}
		return receipt{}, run.DoTx(ctx, "book", func(ctx context.Context, tx *sql.Tx) error {
			attempts.add(execution)
			return book(ctx, tx)
		})
	})
	e.awaitRun(t, h.ID(), pgqrs.Succeeded)
	equalSlices(t, "executions that called it", attempts.all(), []int{2})
	equal(t, "effects", count(), 1)
}

func stepTxCommit(t *testing.T, e *env) {
	count := e.effects(t)
	booked := 0
	for kind, times := range map[fault]int{muted: 1, refused: 2} {
		store, net := e.farStore(t)
		var calls, refunds tally[string]
		h := e.run(t)
		f, happened := once(txCommit, kind)
		net.fail(f)
		stop := start(t, fast(play(store, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
			err := run.With(atOnce(1)).DoTx(ctx, "book", func(ctx context.Context, tx *sql.Tx) error {
				calls.add("book")
				return book(ctx, tx)
			})
			if err != nil && !errors.Is(err, pgqrs.ErrSuspended) {
				refunds.add(err.Error())
			}
			return receipt{}, err
		})))
		receive(t, "the commit goes wrong", happened)
		value(h.Result(t.Context()))(t)
		must(t, stop())
		booked++
		equal(t, "calls", calls.len(), times)
		equal(t, "effects", count(), booked)
		equalSlices(t, "refunds", refunds.all(), nil)
	}
}

// twice runs a run of the script in two workers at once. The second worker begins when the first
// sends its id.
func (e *env) twice(t *testing.T, lose <-chan int64, first, second script) (h *pgqrs.RunHandle[receipt], stop func() error) {
	t.Helper()
	w := fast(play(e.store, first))
	w.Concurrency = 1 // it does not claim the run again
	h = e.run(t)
	stop = start(t, w)
	equal(t, "run", receive(t, "the first execution is under way", lose), h.ID())
	e.loseRun(t, h.ID())
	start(t, fast(play(e.newStore(t, pgqrs.Config{}), second)))
	return h, stop
}

func stepTxTwice(t *testing.T, e *env) {
	count := e.effects(t)
	lose, gate, got := make(chan int64, 1), make(chan struct{}), make(chan string, 1)
	h, stop := e.twice(t, lose, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		lose <- run.ID()
		<-gate
		n, err := pgqrs.StepTx(ctx, run, "book", booking(1))
		got <- fmt.Sprint(n, err)
		return receipt{"first", n}, err
	}, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		n, err := pgqrs.StepTx(ctx, run, "book", booking(2))
		return receipt{"second", n}, err
	})
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"second", 2})
	close(gate)
	equal(t, "what the loser's step returns", receive(t, "the loser goes on", got), "2 <nil>")
	must(t, stop())
	equal(t, "effects", count(), 1)
	equal(t, "result in the end", value(h.Result(t.Context()))(t), receipt{"second", 2})
}

func stepTxInside(t *testing.T, e *env) {
	if e.dialect != pgqrs.Postgres {
		t.Skip("the first transaction holds the write lock, so that no other worker can take the run")
	}
	count := e.effects(t)
	lose, gate, got, first := make(chan int64, 1), make(chan struct{}), make(chan error, 1), make(chan int, 1)
	h, stop := e.twice(t, lose, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		n, err := pgqrs.StepTx(ctx, run, "book", func(ctx context.Context, tx *sql.Tx) (int, error) {
			var pid int
			if err := tx.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
				return 0, err
			}
			first <- pid
			lose <- run.ID()
			<-gate
			return 1, book(context.WithoutCancel(ctx), tx)
		})
		if err == nil && n == 2 {
			// This is just as good: the other execution was quick, and its record is used.
			err = pgqrs.ErrSuspended
		}
		got <- err
		return receipt{"first", 1}, err
	}, func(ctx context.Context, run *pgqrs.Run, _ int) (receipt, error) {
		n, err := pgqrs.StepTx(ctx, run, "book", booking(2))
		return receipt{"second", n}, err
	})
	pid := receive(t, "the first is within its step", first)
	eventually(t, "the second waits for the first", func() bool {
		var n int
		must(t, e.db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE $1::int = ANY (pg_blocking_pids(pid))", pid).Scan(&n))
		return n > 0
	})
	close(gate)
	wantError(t, receive(t, "the loser's step returns", got), pgqrs.ErrSuspended)
	equal(t, "result", value(h.Result(t.Context()))(t), receipt{"second", 2})
	must(t, stop())
	equal(t, "effects", count(), 1)
}

func stepTxSpoiled(t *testing.T, e *env) {
	e.poke(t, "CREATE TABLE parents (id INTEGER PRIMARY KEY)")
	e.poke(t, "CREATE TABLE offspring (parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)")
	spoil := map[string]func(context.Context, *sql.Tx) error{
		"committed":   func(_ context.Context, tx *sql.Tx) error { return tx.Commit() },
		"rolled back": func(_ context.Context, tx *sql.Tx) error { return tx.Rollback() },
	}
	// The SQLite family checks foreign keys only if a PRAGMA says so, and continues after errors.
	if e.dialect == pgqrs.Postgres {
		spoil["swallowed"] = func(ctx context.Context, tx *sql.Tx) error {
			_, _ = tx.ExecContext(ctx, "SELECT * FROM nowhere")
			return nil
		}
		spoil["orphan"] = func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO offspring VALUES (1)")
			return err
		}
	}
	for what, fn := range spoil {
		var attempts tally[string]
		w := pgqrs.NewWorkflow[int, int](e.store, what)
		stop := start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (int, error) {
			return 0, run.With(pgqrs.Policy{MaxAttempts: 2, Backoff: func(int) time.Duration { return 0 }}).DoTx(ctx, "spoiled", func(ctx context.Context, tx *sql.Tx) error {
				attempts.add(what)
				return fn(ctx, tx)
			})
		})))
		h := value(w.Start(t.Context(), 1))(t)
		r := e.awaitRun(t, h.ID(), pgqrs.Failed)
		wantText(t, "error", r.Error, `step "spoiled"`)
		equal(t, "more attempts than two of "+what, attempts.len() > 2, false)
		must(t, stop())
	}
}
