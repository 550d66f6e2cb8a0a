package pgqrs_test

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/pgqrs/pgqrs-go"
)

const approved pgqrs.Signal[bool] = "approved"

// welcome is the workflow of these tests. Its runs have the id 5, and the message 7 with the lease of held.
func welcome(s *pgqrs.Store) *pgqrs.Workflow[email, string] {
	return pgqrs.NewWorkflow[email, string](s, "welcome")
}

const adaInput = `{"input":{"To":"ada"}}`

// starting returns a call that starts a run and wants its handle.
func starting(opts ...pgqrs.Option) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error {
		run, err := welcome(s).Start(ctx, email{"ada"}, opts...)
		if run == nil {
			return errors.Join(err, errors.New("no handle"))
		}
		return errors.Join(err, differ("run", run.ID(), 5))
	}
}

// storing is the statement that stores a run's message.
func storing(key driver.Value) statement {
	return query("message.enqueue", "welcome", adaInput, 0, nil, 0, key, nil)
}

// startsAtOnce is the statement that starts a run without a key, on PostgreSQL.
func startsAtOnce(delay, priority int) statement {
	return query("run.start", "welcome", adaInput, delay, nil, priority, nil)
}

// starts is how the run is started, by one statement or in a transaction.
func starts() []statement {
	return slices.Concat(onPostgres(startsAtOnce(0, 0).row(5, 7)), onSQLite(inOne(storing(nil).ids(7), makesRun.row(5, 7))...))
}

// inOne puts statements between those of the library's own transaction.
func inOne(all ...statement) []statement {
	return append(append([]statement{ownBegin}, all...), txCommit)
}

// inVain is inOne that is rolled back.
func inVain(all ...statement) []statement {
	return append(append([]statement{ownBegin}, all...), txRollback)
}

var (
	makesRun = query("run.insert", "welcome", `[[7,null,null,null]]`)
	asksKey  = query("run.keyed", "welcome", `[["k"]]`)
	makesKey = query("run.insert", "welcome", `[[7,"k",null,null]]`)
)

func TestStatementsOfStart(t *testing.T) {
	runOperations(t, []operation{
		{
			name: "Start", call: starting(),
			want: starts(),
		},
		{
			name: "first Start of a workflow", call: starting(),
			want: append(onPostgres(startsAtOnce(0, 0)), inOne(storing(nil), exec("queue.make", "welcome"), storing(nil).ids(7), makesRun, exec("workflow.make", "welcome"), makesRun.row(5, 7))...),
		}, {
			name: "Start with a delay", call: starting(pgqrs.Delay(time.Second), pgqrs.Priority(1)),
			want: slices.Concat(onPostgres(startsAtOnce(1_000_000, 1).row(5, 7)),
				onSQLite(inOne(query("message.enqueue", "welcome", adaInput, 1_000_000, nil, 1, nil, nil).ids(7), makesRun.row(5, 7))...)),
		},
		{name: "Start with a key", call: starting(pgqrs.Key("k")), want: inOne(asksKey, storing("k").ids(7), makesKey.row(5, 7))},
		{name: "Start with a key that is taken", call: starting(pgqrs.Key("k")), want: inOne(asksKey.row("k", 5))},
		{
			name: "Start with a unique key that is taken", call: starting(pgqrs.Unique("k")), err: pgqrs.ErrDuplicate,
			want: inOne(asksKey.row("k", 5)),
		}, {
			name: "Start with a key that is taken between two statements", call: starting(pgqrs.Key("k")),
			want: inOne(asksKey, storing("k").ids(7), makesKey, exec("workflow.make", "welcome"), makesKey,
				exec("run.take_back", `[7]`), asksKey.row("k", 5)),
		}, {
			name: "Start that fails", call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := welcome(s).Start(ctx, email{"ada"})
				return err
			},
			want: slices.Concat(onPostgres(startsAtOnce(0, 0).fails(errDisk)), onSQLite(inVain(storing(nil).ids(7), makesRun.fails(errDisk))...)), err: errDisk,
		}, {
			name: "Start in the caller's transaction", want: slices.Concat([]statement{txBegin},
				onPostgres(startsAtOnce(0, 0).row(5, 7)), onSQLite(storing(nil).ids(7), makesRun.row(5, 7)), []statement{txCommit}),
			call: inTransaction(func(ctx context.Context, s *pgqrs.Store, tx pgqrs.Tx) error {
				run, err := welcome(s).WithTx(tx).Start(ctx, email{"ada"})
				return errors.Join(err, differ("run", run.ID(), 5))
			}),
		}, {
			name: "Start with a key in the caller's transaction, which begins with a write",
			want: []statement{txBegin, exec("workflow.make", "welcome"), asksKey, storing("k").ids(7), makesKey.row(5, 7), txCommit},
			call: inTransaction(func(ctx context.Context, s *pgqrs.Store, tx pgqrs.Tx) error {
				_, err := welcome(s).WithTx(tx).Start(ctx, email{"ada"}, pgqrs.Key("k"))
				return err
			}),
		}, {
			name: "Send in the caller's transaction", want: []statement{txBegin, wakes(5).row(5, "welcome"), exec("signal.insert", 5, "approved", "true"), txCommit},
			call: inTransaction(func(ctx context.Context, s *pgqrs.Store, tx pgqrs.Tx) error {
				return approved.Send(ctx, s.WithTx(tx), 5, true)
			}),
		}, {
			name: "a handle of a Start in a transaction is bound to the pool",
			want: slices.Concat([]statement{txBegin}, onPostgres(startsAtOnce(0, 0).row(5, 7)), onSQLite(storing(nil).ids(7), makesRun.row(5, 7)),
				[]statement{txCommit, looked("SUCCESS", `"hi"`, nil)}),
			call: func(ctx context.Context, s *pgqrs.Store) error {
				var run *pgqrs.RunHandle[string]
				err := inTransaction(func(ctx context.Context, s *pgqrs.Store, tx pgqrs.Tx) (err error) {
					run, err = welcome(s).WithTx(tx).Start(ctx, email{"ada"})
					return err
				})(ctx, s)
				if err != nil {
					return err
				}
				out, err := run.Result(ctx)
				return errors.Join(err, differ("result", out, "hi"))
			},
		},
	})
}

var errDisk = errors.New("disk on fire")

// inTransaction returns a call that does something in a transaction of the caller's, and commits it.
func inTransaction(do func(context.Context, *pgqrs.Store, pgqrs.Tx) error) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error {
		tx, err := s.DB().BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		return errors.Join(do(ctx, s, tx), tx.Commit())
	}
}

func wakes(run int64) statement { return query("run.wake", fmt.Sprintf("[%d]", run)) }

// looked is a look at run 5, which is so.
func looked(status string, output, failure driver.Value) statement {
	return query("run.get", 5).row(runRow(5, status, output, failure)...)
}

// runRow is a row of the runs: id, workflow, message, status, input, output, error, key, parent, its step, warning, five times and attempts.
func runRow(id int64, status string, output, failure driver.Value) []driver.Value {
	now := instant.UTC()
	return []driver.Value{id, "welcome", 7, status, []byte(adaInput), output, failure, nil, nil, nil, nil, now, now, nil, nil, now, 1}
}

// stepRow is a row of the steps: name, status, output, error, retries, wait and two times.
func stepRow(name, status string, output, failure, wait driver.Value) []driver.Value {
	return []driver.Value{name, status, output, failure, 0, wait, instant.UTC(), nil, false}
}

// handling returns a call on the handle of run 5.
func handling(call func(context.Context, *pgqrs.RunHandle[string]) error) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error { return call(ctx, welcome(s).RunHandle(5)) }
}

func TestStatementsOfHandles(t *testing.T) {
	result := handling(func(ctx context.Context, run *pgqrs.RunHandle[string]) error {
		out, err := run.Result(ctx)
		return errors.Join(err, differ("result", out, map[bool]string{true: "hi"}[err == nil]))
	})
	steps := query("step.list", 5).row(stepRow("pay", "SUCCESS", `"paid"`, nil, nil)...).
		row(stepRow("book", "ERROR", nil, `{"is_transient":true,"code":"INTERNAL","message":"no room"}`, 2_000_000)...)
	runOperations(t, []operation{
		{name: "Result", call: result, want: []statement{looked("SUCCESS", `"hi"`, nil)}},
		{name: "Result of a run that has not ended", call: result, want: []statement{looked("RUNNING", nil, nil), looked("SUCCESS", `"hi"`, nil)}},
		{name: "Result of a cancelled run", call: result, want: []statement{looked("CANCELLED", nil, nil)}, err: pgqrs.ErrCancelled},
		{name: "Result that does not decode", call: result, want: []statement{looked("SUCCESS", `7`, nil)}, err: pgqrs.ErrInvalidPayload},
		{name: "Result of no run", call: result, want: []statement{query("run.get", 5)}, err: pgqrs.ErrNotFound},
		{
			name: "Result of a failed run", want: []statement{looked("ERROR", nil, `"bounced"`)},
			call: handling(func(ctx context.Context, run *pgqrs.RunHandle[string]) error {
				_, err := run.Result(ctx)
				var failed *pgqrs.RunError
				if !errors.As(err, &failed) {
					return fmt.Errorf("got %v, want a *RunError", err)
				}
				return differ("error", err.Error(), `pgqrs: run 5 of workflow "welcome": bounced`)
			}),
		}, {
			name: "Info", want: []statement{looked("RUNNING", nil, nil)},
			call: handling(func(ctx context.Context, run *pgqrs.RunHandle[string]) error {
				info, err := run.Info(ctx)
				return errors.Join(err, differ("status", info.State, pgqrs.Running), differ("input", string(info.Input), adaInput),
					differ("due", info.DueAt.Equal(instant), true), differ("attempts", info.Attempts, 1))
			}),
		}, {
			name: "Step", want: []statement{query("step.get", 5, "pay").row(stepRow("pay", "SUCCESS", `"paid"`, nil, nil)...)},
			call: handling(func(ctx context.Context, run *pgqrs.RunHandle[string]) error {
				step, err := run.Step(ctx, "pay")
				return errors.Join(err, differ("output", string(step.Output), `"paid"`))
			}),
		}, {
			name: "Step that is not there", want: []statement{query("step.get", 5, "pay")}, err: pgqrs.ErrNotFound,
			call: handling(func(ctx context.Context, run *pgqrs.RunHandle[string]) error {
				_, err := run.Step(ctx, "pay")
				return err
			}),
		}, {
			name: "Steps", want: []statement{looked("RUNNING", nil, nil), steps},
			call: handling(func(ctx context.Context, run *pgqrs.RunHandle[string]) error {
				list, err := run.Steps(ctx)
				if len(list) != 2 {
					return fmt.Errorf("got %v, %w", list, err)
				}
				return errors.Join(err, differ("output", string(list[0].Output), `"paid"`), differ("error", list[1].Error, "no room"),
					differ("wait", list[1].RetryIn, 2*time.Second))
			}),
		}, {
			name: "Find", want: []statement{asksKey.row("k", 5)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				run, err := welcome(s).Find(ctx, "k")
				return errors.Join(err, differ("found", run != nil && run.ID() == 5, true))
			},
		}, {
			name: "Find of no run", want: []statement{asksKey}, err: pgqrs.ErrNotFound,
			call: func(ctx context.Context, s *pgqrs.Store) error { _, err := welcome(s).Find(ctx, "k"); return err },
		}, {
			name: "Runs of a Status", want: []statement{query("run.status_list", "welcome", "ERROR", instant.UnixMicro(), nil, 9, 20).row(runRow(5, "ERROR", nil, `"bounced"`)...)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.Runs(ctx, pgqrs.RunFilter{Workflow: "welcome", State: pgqrs.Failed, Since: instant, Before: 9, Limit: 20})
				if len(list) != 1 {
					return fmt.Errorf("got %v, %w", list, err)
				}
				return errors.Join(err, differ("error", list[0].Error, "bounced"), differ("due", list[0].DueAt.IsZero(), true))
			},
		}, {
			name: "Runs of a Parent", want: []statement{query("run.child_list", nil, "QUEUED", nil, nil, int64(math.MaxInt64), 5, 100)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := s.Runs(ctx, pgqrs.RunFilter{Parent: 5, State: pgqrs.Queued})
				return err
			},
		}, {
			name: "Runs of a Workflow", want: []statement{query("run.list", "welcome", nil, nil, instant.UnixMicro(), int64(math.MaxInt64), 20)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := s.Runs(ctx, pgqrs.RunFilter{Workflow: "welcome", Until: instant, Limit: 20})
				return err
			},
		}, {
			name: "all Runs", want: []statement{query("run.list", nil, nil, nil, nil, int64(math.MaxInt64), 100)},
			call: func(ctx context.Context, s *pgqrs.Store) error { _, err := s.Runs(ctx, pgqrs.RunFilter{}); return err },
		},
	})
}

func TestStatementsOfSteering(t *testing.T) {
	cancel := handling(func(ctx context.Context, run *pgqrs.RunHandle[string]) error { return run.Cancel(ctx) })
	pause := handling(func(ctx context.Context, run *pgqrs.RunHandle[string]) error { return run.Pause(ctx) })
	resume := handling(func(ctx context.Context, run *pgqrs.RunHandle[string]) error { return run.Resume(ctx) })
	retry := handling(func(ctx context.Context, run *pgqrs.RunHandle[string]) error { return run.Retry(ctx) })
	rerun := handling(func(ctx context.Context, run *pgqrs.RunHandle[string]) error {
		other, err := run.RerunFrom(ctx, "book")
		return errors.Join(err, differ("made", other != nil && other.ID() == 6, err == nil))
	})
	send := func(ctx context.Context, s *pgqrs.Store) error { return approved.Send(ctx, s, 5, true) }
	redrives := query("message.redrive", `[7]`)
	runOperations(t, []operation{
		{
			name: "Cancel", call: cancel,
			want: inOne(query("run.cancel", `[5]`).ids(5), query("run.unstarted_archive", `[5]`), wakes(5).row(5, "welcome"), query("run.children", `[5]`)),
		}, {
			name: "Cancel of a run with a child", call: cancel,
			want: inOne(query("run.cancel", `[5]`).ids(5), query("run.unstarted_archive", `[5]`), wakes(5).row(5, "welcome"), query("run.children", `[5]`).ids(6),
				query("run.cancel", `[6]`).ids(6), query("run.unstarted_archive", `[6]`), wakes(6).row(6, "mail"), query("run.children", `[6]`)),
		}, {
			name: "Cancel of a run with a child that has not begun", call: cancel,
			want: inOne(query("run.cancel", `[5]`).ids(5), query("run.unstarted_archive", `[5]`), wakes(5).row(5, "welcome"), query("run.children", `[5]`).ids(6),
				query("run.cancel", `[6]`).ids(6), query("run.unstarted_archive", `[6]`).row(6, "mail", nil, nil), query("run.unstarted_end", `[6]`).row(6, 5)),
		}, {
			name: "Cancel of a run that has not begun", call: cancel,
			want: inOne(query("run.cancel", `[5]`).ids(5), query("run.unstarted_archive", `[5]`).row(5, "welcome", nil, nil), query("run.unstarted_end", `[5]`).row(5, nil)),
		}, {
			name: "Cancel of a child that has not begun", call: cancel,
			want: inOne(query("run.cancel", `[5]`).ids(5), query("run.unstarted_archive", `[5]`).row(5, "welcome", nil, nil), query("run.unstarted_end", `[5]`).row(5, 4),
				wakes(4).row(4, "shop")),
		}, {
			name: "Cancel of a run in a group that has not begun", call: cancel,
			want: inOne(query("run.cancel", `[5]`).ids(5), query("run.unstarted_archive", `[5]`).row(5, "welcome", "ada", nil), query("run.unstarted_end", `[5]`).row(5, nil),
				query("group.try_lock", `[["welcome","ada"]]`).row("welcome", "ada", false, false, false), query("group.promote", `[["welcome","ada"]]`)),
		},
		{name: "Cancel again", call: cancel, want: inOne(query("run.cancel", `[5]`), looked("CANCELLING", nil, nil))},
		{name: "Cancel of a run that is cancelled", call: cancel, want: inOne(query("run.cancel", `[5]`), looked("CANCELLED", nil, nil))},
		{name: "Cancel of a run that has ended", call: cancel, want: inVain(query("run.cancel", `[5]`), looked("SUCCESS", nil, nil)), err: pgqrs.ErrState},
		{name: "Cancel of no run", call: cancel, want: inVain(query("run.cancel", `[5]`), query("run.get", 5)), err: pgqrs.ErrNotFound},
		{name: "Pause", call: pause, want: inOne(query("run.pause", 5).ids(5))},
		{name: "Pause again", call: pause, want: inOne(query("run.pause", 5), looked("PAUSED", nil, nil))},
		{name: "Pause of a run that has ended", call: pause, want: inVain(query("run.pause", 5), looked("ERROR", nil, nil)), err: pgqrs.ErrState},
		{name: "Resume", call: resume, want: inOne(query("run.resume", 5).ids(5), wakes(5).row(5, "welcome"))},
		{name: "Resume of a run that is not paused", call: resume, want: inVain(query("run.resume", 5), looked("RUNNING", nil, nil)), err: pgqrs.ErrState},
		{
			name: "Retry", call: retry,
			want: inOne(exec("run.clear_failed", 5), query("run.retry", 5).ids(7), redrives.ids(7), wakes(5).row(5, "welcome")),
		}, {
			name: "Retry of a run that has not failed", call: retry, err: pgqrs.ErrState,
			want: inVain(exec("run.clear_failed", 5), query("run.retry", 5), looked("RUNNING", nil, nil)),
		}, {
			name: "Retry of a run whose message is gone", call: retry, err: pgqrs.ErrNotFound,
			want: inVain(exec("run.clear_failed", 5), query("run.retry", 5).ids(7), redrives, query("message.get", `[7]`)),
		}, {
			name: "Retry of a run whose key is taken", call: retry, err: pgqrs.ErrDuplicate,
			want: inVain(exec("run.clear_failed", 5), query("run.retry", 5).ids(7), redrives, query("message.get", `[7]`).row(listed(7, "dead")...)),
		}, {
			name: "RerunFrom", call: rerun,
			want: inOne(looked("ERROR", nil, `"no room"`), query("step.get", 5, "book").row(stepRow("book", "ERROR", nil, `"no room"`, nil)...), query("message.whole", 7),
				storing(nil).ids(8), query("run.insert", "welcome", `[[8,null,null,null]]`).row(6, 8),
				exec("run.copy_steps", 6, 5, "book"), exec("run.mark_copied", 6)),
		}, {
			name: "RerunFrom a step that is not there", call: rerun, err: pgqrs.ErrNotFound,
			want: inVain(looked("ERROR", nil, nil), query("step.get", 5, "book")),
		},
		{name: "Send", call: send, want: inOne(wakes(5).row(5, "welcome"), exec("signal.insert", 5, "approved", "true"))},
		{name: "Send to a run that has ended", call: send, want: inVain(wakes(5), looked("SUCCESS", nil, nil)), err: pgqrs.ErrState},
		{name: "Send to no run", call: send, want: inVain(wakes(5), query("run.get", 5)), err: pgqrs.ErrNotFound},
	})
}

// A program that has no code for a workflow passes its input and result through as they are.
func TestUntypedWorkflowSendsTheSame(t *testing.T) {
	runOperations(t, []operation{{
		name: "Start by json.RawMessage", want: starts(),
		call: func(ctx context.Context, s *pgqrs.Store) error {
			_, err := pgqrs.NewWorkflow[json.RawMessage, json.RawMessage](s, "welcome").Start(ctx, json.RawMessage(`{"To":"ada"}`))
			return err
		},
	}, {
		name: "Result by json.RawMessage", want: []statement{looked("SUCCESS", `{"a":1}`, nil)},
		call: func(ctx context.Context, s *pgqrs.Store) error {
			out, err := s.RunHandle(5).Result(ctx)
			return errors.Join(err, differ("result", string(out), `{"a":1}`))
		},
	}})
}

// The example of the page docs/STATEMENTS.md.
func TestUsersMockOfStartIsOneLine(t *testing.T) {
	db, mock, err := sqlmock.New()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	mock.ExpectQuery("pgqrs:run.start").WillReturnRows(sqlmock.NewRows([]string{"run", "message"}).AddRow(5, 7))
	if _, err := welcome(pgqrs.New(db, pgqrs.Postgres)).Start(t.Context(), email{"ada"}); err != nil {
		t.Error(err)
	}
	if err := mock.ExpectationsWereMet(); err != nil {
		t.Error(err)
	}
}
