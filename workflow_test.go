package pgqrs_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/pgqrs/pgqrs-go"
)

const approved pgqrs.Signal[bool] = "approved"

// welcome returns the workflow of these tests. Its runs have id 5, and message 7 with the lease of
// held.
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

// storing returns the statement that stores a run's message.
func storing(key driver.Value) statement {
	return query("message.enqueue", "welcome", adaInput, 0, nil, 0, key, nil)
}

// startsAtOnce returns the statement that starts a run without a key, on PostgreSQL.
func startsAtOnce(delay, priority int) statement {
	return query("run.start", "welcome", adaInput, delay, nil, priority, nil)
}

// starts returns the statements that start the run: one statement, or several in a transaction.
func starts() []statement {
	return slices.Concat(onPostgres(startsAtOnce(0, 0).row(5, 7)), onSQLite(inOne(storing(nil).ids(7), makesRun.row(5, 7))...))
}

// inOne puts statements into a transaction of the library's own.
func inOne(all ...statement) []statement {
	return append(append([]statement{ownBegin}, all...), txCommit)
}

// inVain is like inOne, with a rollback at the end.
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

// inTransaction returns a call that calls do in a transaction of the caller, and commits it.
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

// looked returns the query of run 5, with its answer.
func looked(status string, output, failure driver.Value) statement {
	return query("run.get", 5).row(runRow(5, status, output, failure)...)
}

// runRow returns a row of the runs: id, workflow, message, status, input, output, error, key,
// parent, parent's step, warning, five times and attempts.
func runRow(id int64, status string, output, failure driver.Value) []driver.Value {
	now := instant.UTC()
	return []driver.Value{id, "welcome", 7, status, []byte(adaInput), output, failure, nil, nil, nil, nil, now, now, nil, nil, now, 1}
}

// stepRow returns a row of the steps: name, status, output, error, retries, wait and two times.
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
				return errors.Join(err, differ("status", info.Status, pgqrs.Running), differ("input", string(info.Input), adaInput),
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
				list, err := s.Runs(ctx, pgqrs.RunFilter{Workflow: "welcome", Status: pgqrs.Failed, Since: instant, Before: 9, Limit: 20})
				if len(list) != 1 {
					return fmt.Errorf("got %v, %w", list, err)
				}
				return errors.Join(err, differ("error", list[0].Error, "bounced"), differ("due", list[0].DueAt.IsZero(), true))
			},
		}, {
			name: "Runs of a Parent", want: []statement{query("run.child_list", nil, "QUEUED", nil, nil, int64(math.MaxInt64), 5, 100)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := s.Runs(ctx, pgqrs.RunFilter{Parent: 5, Status: pgqrs.Queued})
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

// A program without the code of a workflow passes its input and result through unchanged.
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

// The test executes the example in docs/STATEMENTS.md.
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

// A runFunc is the function of the workflow welcome.
type runFunc func(ctx context.Context, run *pgqrs.Run, in email) (string, error)

// claimed returns the message of a run as a worker holds it.
func claimed() *pgqrs.MessageInfo {
	m := held(7, 1).MessageInfo
	m.Raw = []byte(adaInput)
	return &m
}

// executing returns a call that executes run 5 once.
func executing(fn runFunc) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error { return welcome(s).Handle(fn).Work(ctx, claimed()) }
}

// begins returns how an execution begins: the run's status, and whether it is the first execution.
func begins(status string, fresh bool) statement {
	return query("run.begin", 7, 3, 9).row(5, status, fresh)
}

// loads returns how every execution except the first reads the steps.
func loads(rows ...[]driver.Value) statement {
	s := query("step.load", 5)
	for _, r := range rows {
		s = s.row(r...)
	}
	return s
}

// saves returns the statement that records a step while the run is RUNNING.
func saves(name, status string, output, failure driver.Value, retries int, delay driver.Value) statement {
	return query("step.save", 5, name, 7, 3, 9, status, output, failure, retries, delay, sqlmock.AnyArg()).row("RUNNING")
}

// succeeds is like saves, for a step without a result.
func succeeds(name string) statement { return saves(name, "SUCCESS", nil, nil, 0, nil) }

// ends returns how a run ends and its message is acked: by one statement, or in a transaction.
func ends(status string, output, failure driver.Value) []statement {
	return slices.Concat(
		onPostgres(endsAtOnce(status, output, failure).row(status)),
		onSQLite(inOne(query("run.finish", 5, status, output, failure).row(status, nil), query("message.ack", `[[7,3,9]]`).ids(7))...))
}

// endsAtOnce returns the statement that ends the run if nothing else has to be written.
func endsAtOnce(status string, output, failure driver.Value) statement {
	return query("run.end", 5, 7, 3, 9, status, output, failure)
}

// endsInParts returns how a run ends if more has to be written.
func endsInParts(status string, output, failure driver.Value, how []statement) []statement {
	return append(onPostgres(endsAtOnce(status, output, failure)), how...)
}

// does joins statements.
func does(first statement, parts ...any) []statement {
	all := []statement{first}
	for _, p := range parts {
		switch p := p.(type) {
		case statement:
			all = append(all, p)
		case []statement:
			all = append(all, p...)
		}
	}
	return all
}

func nothing(context.Context) error { return nil }

// pay is a run of one step.
func pay(ctx context.Context, run *pgqrs.Run, _ email) (string, error) {
	return pgqrs.Step(ctx, run, "pay", func(context.Context) (string, error) { return "paid", nil })
}

// failing returns a run of one step that fails.
func failing(cause error, p pgqrs.Policy) runFunc {
	return func(ctx context.Context, run *pgqrs.Run, _ email) (string, error) {
		return "", run.With(p).Do(ctx, "pay", func(context.Context) error { return cause })
	}
}

// never is a run's function that must not be called.
func never(context.Context, *pgqrs.Run, email) (string, error) {
	panic("the function was called")
}

// unpaid is a step's function that a replay must not call.
func unpaid(ctx context.Context, run *pgqrs.Run, _ email) (string, error) {
	return pgqrs.Step(ctx, run, "pay", func(context.Context) (string, error) { panic("the step was called") })
}

func TestStatementsOfExecution(t *testing.T) {
	runOperations(t, []operation{
		{
			name: "a run of one step", call: executing(pay),
			want: does(begins("RUNNING", true), saves("pay", "SUCCESS", `"paid"`, nil, 0, nil), ends("SUCCESS", `"paid"`, nil)),
		}, {
			name: "a replay", call: executing(unpaid),
			want: does(begins("RUNNING", false), loads(stepRow("pay", "SUCCESS", `"paid"`, nil, nil)), ends("SUCCESS", `"paid"`, nil)),
		}, {
			name: "a run that fails", want: does(begins("RUNNING", true), ends("ERROR", nil, `"no <user>"`)),
			call: executing(func(context.Context, *pgqrs.Run, email) (string, error) { return "", errors.New("no <user>") }),
		}, {
			name: "a child that ends", call: executing(pay),
			want: does(begins("RUNNING", true), saves("pay", "SUCCESS", `"paid"`, nil, 0, nil), endsInParts("SUCCESS", `"paid"`, nil, inOne(
				query("run.finish", 5, "SUCCESS", `"paid"`, nil).row("SUCCESS", 4), exec("run.lock_parent", 5),
				query("run.join_parent", 5).row(4, "shop"), query("message.ack", `[[7,3,9]]`).ids(7)))),
		},
		{name: "a message that outlived its run", call: executing(never), want: does(begins("SUCCESS", false))},
		{name: "a paused run", call: executing(never), want: does(begins("PAUSED", true)), err: pgqrs.ErrSuspended},
		{
			name: "a run that was cancelled before its first step", call: executing(never),
			want: does(begins("CANCELLING", true), endsInParts("SUCCESS", nil, nil,
				inOne(query("run.finish", 5, "SUCCESS", nil, nil).row("CANCELLED", nil), query("run.children", `[5]`), query("message.ack", `[[7,3,9]]`).ids(7)))),
		}, {
			name: "a message of pgqrs 0.15, which has no run", call: executing(pay),
			want: does(query("run.begin", 7, 3, 9), inOne(query("run.exists", 7), makesRun.row(5, 7)), begins("RUNNING", true),
				saves("pay", "SUCCESS", `"paid"`, nil, 0, nil), ends("SUCCESS", `"paid"`, nil)),
		}, {
			name: "a lease that is lost before it begins", call: executing(never), err: pgqrs.ErrSuspended,
			want: does(query("run.begin", 7, 3, 9), inVain(query("run.exists", 7).ids(5))),
		}, {
			name: "a lease that is lost during a step", call: executing(pay), err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), query("step.save", 5, "pay", 7, 3, 9, "SUCCESS", `"paid"`, nil, 0, nil, sqlmock.AnyArg()), query("step.get", 5, "pay")),
		}, {
			name: "a lease that is lost at the end", call: executing(pay), err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), saves("pay", "SUCCESS", `"paid"`, nil, 0, nil),
				endsInParts("SUCCESS", `"paid"`, nil, inVain(query("run.finish", 5, "SUCCESS", `"paid"`, nil).row("SUCCESS", nil), query("message.ack", `[[7,3,9]]`)))),
		}, {
			name: "a step that somebody else ended first", call: executing(pay),
			want: does(begins("RUNNING", true), query("step.save", 5, "pay", 7, 3, 9, "SUCCESS", `"paid"`, nil, 0, nil, sqlmock.AnyArg()),
				query("step.get", 5, "pay").row(stepRow("pay", "SUCCESS", `"first"`, nil, nil)...), ends("SUCCESS", `"first"`, nil)),
		}, {
			name: "a database that is gone", call: executing(pay), err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), query("step.save", 5, "pay", 7, 3, 9, "SUCCESS", `"paid"`, nil, 0, nil, sqlmock.AnyArg()).fails(errDisk)),
		}, {
			name: "a dead letter with a run, of a worker that has lost its lease", err: pgqrs.ErrLeaseLost,
			want: inVain(query("run.exists", 7).ids(5), query("run.finish", 5, "ERROR", nil, `"bounced"`).row("ERROR", nil), query("message.fail", `[[7,3,9,null,"bounced"]]`)),
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.Bury(ctx, claimed(), errors.New("bounced")) },
		}, {
			name: "a run in a group", call: func(ctx context.Context, s *pgqrs.Store) error {
				m := claimed()
				m.Queue, m.Group = "welcome", "ada"
				return welcome(s).Handle(pay).Work(ctx, m)
			},
			want: does(begins("RUNNING", true), saves("pay", "SUCCESS", `"paid"`, nil, 0, nil), inOne(
				query("run.finish", 5, "SUCCESS", `"paid"`, nil).row("SUCCESS", nil), query("message.ack", `[[7,3,9]]`).ids(7),
				query("group.try_lock", `[["welcome","ada"]]`).row("welcome", "ada", false, false, false), query("group.promote", `[["welcome","ada"]]`))),
		}, {
			name: "a dead letter with a run", want: inOne(query("run.exists", 7).ids(5), query("run.finish", 5, "ERROR", nil, `"bounced"`).row("ERROR", nil),
				query("message.fail", `[[7,3,9,null,"bounced"]]`).ids(7)),
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.Bury(ctx, claimed(), errors.New("bounced")) },
		},
	})
}

func TestStatementsOfFailingSteps(t *testing.T) {
	bounced := errors.New("bounced")
	soon := pgqrs.Policy{MaxAttempts: 2, Backoff: func(int) time.Duration { return time.Second }}
	const again = `{"is_transient":true,"code":"INTERNAL","message":"bounced","retry_after":1}`
	const final = `{"is_transient":false,"code":"INTERNAL","message":"bounced"}`
	const why = `"pgqrs: step \"pay\" of run 5 of workflow \"welcome\": bounced"`
	failed := stepRow("pay", "ERROR", nil, again, -1)
	failed[4] = 1
	runOperations(t, []operation{
		{
			name: "a step that fails", call: executing(failing(bounced, soon)), err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), saves("pay", "ERROR", nil, again, 1, 1_000_000)),
		}, {
			name: "a step that waits for its next attempt", call: executing(unpaid), err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", false), loads(stepRow("pay", "ERROR", nil, again, 60_000_000))),
		}, {
			name: "a step that fails for the last time", call: executing(failing(bounced, soon)),
			want: does(begins("RUNNING", false), loads(failed), saves("pay", "ERROR", nil, final, 2, nil), ends("ERROR", nil, why)),
		}, {
			name: "a step that fails for good", call: executing(failing(pgqrs.Permanent(bounced), soon)),
			want: does(begins("RUNNING", true), saves("pay", "ERROR", nil, strings.Replace(final, "INTERNAL", "NON_RETRYABLE", 1), 1, nil), ends("ERROR", nil, why)),
		}, {
			name: "a step that names the time", call: executing(failing(pgqrs.RetryAfter(time.Minute, bounced), soon)), err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), saves("pay", "ERROR", nil, strings.Replace(again, ":1}", ":60}", 1), 1, 60_000_000)),
		}, {
			name: "a step that snoozes", call: executing(failing(pgqrs.Snooze(time.Minute), soon)), err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), saves("pay", "ERROR", nil,
				`{"is_transient":true,"code":"INTERNAL","message":"pgqrs: snoozed for 1m0s","retry_after":60}`, 0, 60_000_000)),
		}, {
			name: "a failure on replay", call: executing(unpaid),
			want: does(begins("RUNNING", false), loads(stepRow("pay", "ERROR", nil, final, nil)), ends("ERROR", nil, why)),
		},
	})
}

func TestStatementsOfWaiting(t *testing.T) {
	nap := executing(func(ctx context.Context, run *pgqrs.Run, _ email) (string, error) {
		return "", run.Sleep(ctx, "nap", time.Minute)
	})
	wait := func(timeout time.Duration) func(context.Context, *pgqrs.Store) error {
		return executing(func(ctx context.Context, run *pgqrs.Run, _ email) (string, error) {
			ok, err := approved.Wait(ctx, run, timeout)
			if errors.Is(err, pgqrs.ErrTimeout) {
				return "late", nil
			}
			return fmt.Sprint(ok), err
		})
	}
	takes := query("signal.take", 5, "approved", "approved#1")
	selects := executing(func(ctx context.Context, run *pgqrs.Run, _ email) (string, error) {
		at, err := run.Select(ctx, "answer", approved.Case(nil), pgqrs.Signal[int]("rejected").Case(nil), pgqrs.After(time.Hour))
		return fmt.Sprint(at), err
	})
	takesFirst := query("signal.first", 5, "answer", `[["approved"],["rejected"]]`)
	const late = `{"is_transient":false,"code":"TIMEOUT","message":"no signal came in time"}`
	runOperations(t, []operation{
		{
			name: "Sleep", call: nap, err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), saves("nap", "RUNNING", nil, nil, 0, 60_000_000)),
		}, {
			name: "Sleep that is not over", call: nap, err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", false), loads(stepRow("nap", "RUNNING", nil, nil, 30_000_000))),
		}, {
			name: "Sleep that is over", call: nap,
			want: does(begins("RUNNING", false), loads(stepRow("nap", "RUNNING", nil, nil, -1)), succeeds("nap"), ends("SUCCESS", `""`, nil)),
		}, {
			name: "Sleep on replay", call: nap,
			want: does(begins("RUNNING", false), loads(stepRow("nap", "SUCCESS", nil, nil, nil)), ends("SUCCESS", `""`, nil)),
		}, {
			name: "Wait for a signal that is there", call: wait(0),
			want: does(begins("RUNNING", true), inOne(takes.row("true"), saves("approved#1", "SUCCESS", "true", nil, 0, nil)), ends("SUCCESS", `"true"`, nil)),
		},
		{
			name: "Wait", call: wait(0), err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), inOne(takes), saves("approved#1", "PAUSED", nil, nil, 0, nil)),
		}, {
			name: "Wait again", call: wait(0), err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", false), loads(stepRow("approved#1", "PAUSED", nil, nil, nil)), inOne(takes)),
		}, {
			name: "Wait with a timeout", call: wait(time.Hour), err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), inOne(takes), saves("approved#1", "PAUSED", nil, nil, 0, int64(3_600_000_000))),
		}, {
			name: "Wait whose time is up", call: wait(time.Hour),
			want: does(begins("RUNNING", false), loads(stepRow("approved#1", "PAUSED", nil, nil, -1)), inOne(takes),
				saves("approved#1", "ERROR", nil, late, 0, nil), ends("SUCCESS", `"late"`, nil)),
		}, {
			name: "Select with a signal that is there", call: selects,
			want: does(begins("RUNNING", true), inOne(takesFirst.row("rejected", "7"), saves("answer", "SUCCESS", `{"case": 1, "value": 7}`, nil, 0, nil)), ends("SUCCESS", `"1"`, nil)),
		}, {
			name: "Select", call: selects, err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), inOne(takesFirst), saves("answer", "PAUSED", nil, nil, 0, int64(3_600_000_000))),
		}, {
			name: "Select whose time is up", call: selects,
			want: does(begins("RUNNING", false), loads(stepRow("answer", "PAUSED", nil, nil, -1)), inOne(takesFirst),
				saves("answer", "SUCCESS", `{"case": 2}`, nil, 0, nil), ends("SUCCESS", `"2"`, nil)),
		}, {
			name: "Wait with a negative timeout only looks", call: wait(-time.Second),
			want: does(begins("RUNNING", true), inOne(takes), saves("approved#1", "ERROR", nil, late, 0, nil), ends("SUCCESS", `"late"`, nil)),
		},
	})
}

func TestStatementsOfChildren(t *testing.T) {
	child := executing(func(ctx context.Context, run *pgqrs.Run, _ email) (string, error) {
		s, _ := ctx.Value(storeKey{}).(*pgqrs.Store)
		return pgqrs.NewWorkflow[int, string](s, "mail").Child(ctx, run, "send", 1)
	})
	withStore := func(ctx context.Context, s *pgqrs.Store) error {
		return child(context.WithValue(ctx, storeKey{}, s), s)
	}
	results := query("run.results", 5, "send")
	const why = `"pgqrs: run 6 of workflow \"mail\": bounced"`
	runOperations(t, []operation{
		{
			name: "Child", call: withStore, err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), inOne(query("message.enqueue", "mail", `{"input":1}`, 0, nil, 0, nil, nil).ids(8),
				query("run.insert", "mail", `[[8,null,5,"send"]]`).row(6, 8), saves("send", "PAUSED", "[6]", nil, 0, nil))),
		}, {
			name: "Child of an execution that has lost its lease", call: withStore, err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), inVain(query("message.enqueue", "mail", `{"input":1}`, 0, nil, 0, nil, nil).ids(8),
				query("run.insert", "mail", `[[8,null,5,"send"]]`).row(6, 8), query("step.save", 5, "send", 7, 3, 9, "PAUSED", "[6]", nil, 0, nil, sqlmock.AnyArg()))),
		}, {
			name: "Child on a database that is gone", call: withStore, err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), inVain(query("message.enqueue", "mail", `{"input":1}`, 0, nil, 0, nil, nil).fails(errDisk))),
		}, {
			name: "Child that has not ended", call: withStore, err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", false), loads(stepRow("send", "PAUSED", "[6]", nil, nil)), results.row(6, "mail", "RUNNING", nil, nil)),
		}, {
			name: "Child that has ended", call: withStore,
			want: does(begins("RUNNING", false), loads(stepRow("send", "PAUSED", "[6]", nil, nil)), results.row(6, "mail", "SUCCESS", `"sent"`, nil),
				saves("send", "SUCCESS", `[{"output": "sent", "run_id": 6, "workflow": "mail"}]`, nil, 0, nil), ends("SUCCESS", `"sent"`, nil)),
		}, {
			name: "Child that was deleted", call: withStore,
			want: does(begins("RUNNING", false), loads(stepRow("send", "PAUSED", "[6]", nil, nil)), results,
				saves("send", "SUCCESS", `[{"error": "pgqrs: not found: it was deleted before its parent had its result", "run_id": 6, "deleted": true, "workflow": "mail"}]`, nil, 0, nil),
				ends("ERROR", nil, `"pgqrs: run 6 of workflow \"mail\": not found: it was deleted before its parent had its result"`)),
		}, {
			name: "Child that a former version started", call: withStore,
			want: does(begins("RUNNING", false), loads(stepRow("send", "PAUSED", nil, nil, nil)), results.row(6, "mail", "SUCCESS", `"sent"`, nil),
				saves("send", "SUCCESS", `[{"output": "sent", "run_id": 6, "workflow": "mail"}]`, nil, 0, nil), ends("SUCCESS", `"sent"`, nil)),
		}, {
			name: "Child that has failed", call: withStore,
			want: does(begins("RUNNING", false), loads(stepRow("send", "PAUSED", nil, nil, nil)), results.row(6, "mail", "ERROR", nil, `"bounced"`),
				saves("send", "SUCCESS", `[{"error": "bounced", "run_id": 6, "workflow": "mail"}]`, nil, 0, nil), ends("ERROR", nil, why)),
		}, {
			name: "Child on replay", call: withStore,
			want: does(begins("RUNNING", false), loads(stepRow("send", "SUCCESS", `[{"workflow":"mail","run_id":6,"output":"sent"}]`, nil, nil)), ends("SUCCESS", `"sent"`, nil)),
		},
	})
}

// storeKey is the context key of the Store for a run's function. Programs use a variable instead.
type storeKey struct{}

func TestStatementsOfStepTx(t *testing.T) {
	book := executing(func(ctx context.Context, run *pgqrs.Run, _ email) (string, error) {
		return pgqrs.StepTx(ctx, run, "book", func(ctx context.Context, tx *sql.Tx) (string, error) {
			_, err := tx.ExecContext(ctx, "/* pgqrs:users.own */ INSERT INTO bookings")
			return "booked", err
		})
	})
	opens := query("step.open", 5, "book", 7, 3, 9)
	closes := query("step.close", 5, "book", 7, 3, 9, `"booked"`)
	own := exec("users.own")
	runOperations(t, []operation{
		{
			name: "StepTx", call: book,
			want: does(begins("RUNNING", true), txBegin, opens.row("RUNNING"), own, closes.row("RUNNING"), txCommit, ends("SUCCESS", `"booked"`, nil)),
		}, {
			name: "StepTx whose function fails", call: book, err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), txBegin, opens.row("RUNNING"), own.fails(errDisk), txRollback,
				query("step.save", 5, "book", 7, 3, 9, "ERROR", nil, sqlmock.AnyArg(), 1, sqlmock.AnyArg(), sqlmock.AnyArg()).row("RUNNING")),
		}, {
			name: "StepTx that somebody else ended first", call: book,
			want: does(begins("RUNNING", true), txBegin, opens, txRollback, query("step.get", 5, "book").row(stepRow("book", "SUCCESS", `"first"`, nil, nil)...), ends("SUCCESS", `"first"`, nil)),
		}, {
			name: "StepTx whose lease is lost meanwhile", call: book, err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), txBegin, opens.row("RUNNING"), own, closes, txRollback, query("step.get", 5, "book")),
		}, {
			name: "StepTx on a database that is gone", call: book, err: pgqrs.ErrSuspended,
			want: does(begins("RUNNING", true), txBegin, opens.fails(errDisk), txRollback),
		}, {
			name: "StepTx on replay", call: book,
			want: does(begins("RUNNING", false), loads(stepRow("book", "SUCCESS", `"booked"`, nil, nil)), ends("SUCCESS", `"booked"`, nil)),
		},
	})
}

func TestStatementsOfACancelledRun(t *testing.T) {
	refund := executing(func(ctx context.Context, run *pgqrs.Run, in email) (string, error) {
		err := run.Do(ctx, "start", nothing)
		if err == nil {
			_, err = pay(ctx, run, in)
		}
		if errors.Is(err, pgqrs.ErrCancelled) {
			return "", errors.Join(err, run.Do(ctx, "undo", nothing))
		}
		return "", err
	})
	cancelled := endsInParts("ERROR", nil, sqlmock.AnyArg(), inOne(query("run.finish", 5, "ERROR", nil, sqlmock.AnyArg()).row("CANCELLED", nil), query("run.children", `[5]`), query("message.ack", `[[7,3,9]]`).ids(7)))
	const refusal = `{"is_transient":false,"code":"CANCELLED","message":"pgqrs: run is cancelled"}`
	runOperations(t, []operation{
		{
			name: "it is told at its next step, and cleans up", call: refund,
			want: does(begins("CANCELLING", false), loads(stepRow("start", "SUCCESS", nil, nil, nil)),
				saves("pay", "ERROR", nil, refusal, 0, nil), succeeds("undo"), cancelled),
		}, {
			name: "its clean-up is replayed", call: refund,
			want: does(begins("CANCELLING", false), loads(stepRow("start", "SUCCESS", nil, nil, nil), stepRow("pay", "ERROR", nil, refusal, nil), stepRow("undo", "SUCCESS", nil, nil, nil)), cancelled),
		}, {
			name: "nothing is recorded if it does not clean up", call: executing(pay),
			want: does(begins("CANCELLING", false), loads(stepRow("start", "SUCCESS", nil, nil, nil)), cancelled),
		},
	})
}

func TestStatementsOfACodeChange(t *testing.T) {
	runOperations(t, []operation{
		{
			name: "a new step before a recorded one", call: executing(pay),
			want: does(begins("RUNNING", false), loads(stepRow("book", "SUCCESS", nil, nil, nil)), saves("pay", "SUCCESS", `"paid"`, nil, 0, nil),
				exec("run.warn", 5, `step "pay" is new, and was asked for before the recorded steps ["book"]: the code has changed under the run, or does not do the same each time`), ends("SUCCESS", `"paid"`, nil)),
		}, {
			name: "a recorded step that is not asked for", call: executing(pay),
			want: does(begins("RUNNING", false), loads(stepRow("pay", "SUCCESS", `"paid"`, nil, nil), stepRow("book", "SUCCESS", nil, nil, nil)),
				exec("run.warn", 5, `the recorded steps ["book"] were not asked for: the code has changed under the run`), ends("SUCCESS", `"paid"`, nil)),
		}, {
			name: "Version of a run that comes to it for the first time", want: does(begins("RUNNING", true), saves("version:fraud", "SUCCESS", `2`, nil, 0, nil), ends("SUCCESS", `"2"`, nil)),
			call: executing(version),
		}, {
			name: "Version of a run that has passed it", call: executing(func(ctx context.Context, run *pgqrs.Run, in email) (string, error) {
				v, err := version(ctx, run, in)
				return v, errors.Join(err, run.Do(ctx, "book", nothing))
			}),
			want: does(begins("RUNNING", false), loads(stepRow("book", "SUCCESS", nil, nil, nil)), ends("SUCCESS", `"0"`, nil)),
		},
	})
}

func version(ctx context.Context, run *pgqrs.Run, _ email) (string, error) {
	v, err := run.Version(ctx, "fraud", 2)
	return fmt.Sprint(v), err
}

func TestTenStepsCostThirteenStatements(t *testing.T) {
	var want []any
	for i := range 10 {
		want = append(want, succeeds(fmt.Sprint("step ", i)))
	}
	all := does(begins("RUNNING", true), append(want, ends("SUCCESS", `""`, nil))...)
	for d, promise := range map[pgqrs.Dialect]int{pgqrs.Postgres: 12, pgqrs.SQLite: 13} {
		sent := slices.DeleteFunc(slices.Clone(all), func(s statement) bool {
			return s.how != "query" && s.how != "exec" || s.on != "" && s.on != d
		})
		if len(sent) != promise {
			t.Errorf("%s: %d statements are expected; the promise is %d", d, len(sent), promise)
		}
	}
	runOperations(t, []operation{{
		name: "a run of ten steps", want: all,
		call: executing(func(ctx context.Context, run *pgqrs.Run, _ email) (string, error) {
			for i := range 10 {
				if err := run.Do(ctx, fmt.Sprint("step ", i), nothing); err != nil {
					return "", err
				}
			}
			return "", nil
		}),
	}})
}

// nightly is a schedule's row for these tests, with its latest run.
var nightly = []driver.Value{3, "nightly", "emails", false, `{"To":"ada"}`, 1, nil, `{"a":"b"}`, "every 24h", "UTC", 1, instant, instant, nil, instant}

// withRun adds a run to a schedule's row.
func withRun(row []driver.Value, run ...driver.Value) []driver.Value {
	return append(slices.Clip(row), run...)
}

func TestStatementsOfSchedules(t *testing.T) {
	took := query("schedule.take", "nightly").row(3, "emails", false, `{"To":"ada"}`, 1, nil, `{"a":"b"}`)
	header := `{"a":"b","pgqrs-schedule":"nightly"}`
	runOperations(t, []operation{
		{
			name: "Schedules", want: []statement{query("schedule.list").row(withRun(nightly, instant, instant, false, false, 7, nil, "archived")...)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.Schedules(ctx)
				return errors.Join(err, differ("schedules", len(list), 1), differ("latest run", *list[0].Last,
					pgqrs.ScheduleRun{DueAt: instant.UTC(), RanAt: instant.UTC(), MessageID: 7, MessageState: pgqrs.Archived}), differ("next", list[0].NextAt, instant.UTC()))
			},
		}, {
			name: "Schedules by name, of which one never ran", want: []statement{query("schedule.named_list", `[["nightly"]]`).row(withRun(nightly, nil, nil, nil, nil, nil, nil, nil)...)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.Schedules(ctx, "nightly")
				return errors.Join(err, differ("schedules", len(list), 1), differ("latest run", list[0].Last, (*pgqrs.ScheduleRun)(nil)))
			},
		}, {
			name: "ScheduleRuns", want: []statement{query("schedule.history", "nightly", 10).row(instant, instant, true, false, 7, 5, "SUCCESS")},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.ScheduleRuns(ctx, "nightly", 10)
				return errors.Join(err, differ("runs", len(list), 1), differ("run", list[0],
					pgqrs.ScheduleRun{DueAt: instant.UTC(), RanAt: instant.UTC(), ByHand: true, MessageID: 7, RunID: 5, RunState: pgqrs.Succeeded}))
			},
		}, {
			name: "ScheduleRuns of none", want: []statement{query("schedule.history", "none", 10), query("schedule.named_list", `[["none"]]`)}, err: pgqrs.ErrNotFound,
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := s.ScheduleRuns(ctx, "none", 10)
				return err
			},
		}, {
			name: "PauseSchedule", want: []statement{query("schedule.pause", "nightly", true).ids(3)},
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.PauseSchedule(ctx, "nightly") },
		}, {
			name: "ResumeSchedule", want: []statement{query("schedule.pause", "nightly", false).ids(3)},
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.ResumeSchedule(ctx, "nightly") },
		}, {
			name: "ResumeSchedule of none", want: []statement{query("schedule.pause", "none", false)}, err: pgqrs.ErrNotFound,
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.ResumeSchedule(ctx, "none") },
		}, {
			name: "DeleteSchedule", want: inOne(took, exec("schedule.remove_runs", 3), exec("schedule.remove_row", 3)),
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.DeleteSchedule(ctx, "nightly") },
		}, {
			name: "DeleteSchedule of none", want: inVain(query("schedule.take", "none")), err: pgqrs.ErrNotFound,
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.DeleteSchedule(ctx, "none") },
		}, {
			name: "RunSchedule", want: inOne(took, query("message.enqueue", "emails", `{"To":"ada"}`, 0, nil, 1, nil, header).ids(7),
				query("schedule.record", 3, `[[null,true,false,7,null]]`).row(instant)),
			call: func(ctx context.Context, s *pgqrs.Store) error {
				run, err := s.RunSchedule(ctx, "nightly")
				return errors.Join(err, differ("run", run, pgqrs.ScheduleRun{DueAt: instant.UTC(), RanAt: instant.UTC(), ByHand: true, MessageID: 7}))
			},
		}, {
			name: "RunSchedule of a workflow", want: inOne(query("schedule.take", "nightly").row(3, "welcome", true, adaInput, 0, nil, nil),
				query("message.enqueue", "welcome", adaInput, 0, nil, 0, nil, `{"pgqrs-schedule":"nightly"}`).ids(7), makesRun.row(5, 7),
				query("schedule.record", 3, `[[null,true,false,null,5]]`).row(instant)),
			call: func(ctx context.Context, s *pgqrs.Store) error {
				run, err := s.RunSchedule(ctx, "nightly")
				return errors.Join(err, differ("run", run.RunID, 5))
			},
		}, {
			name: "RunSchedule of none", want: inVain(query("schedule.take", "none")), err: pgqrs.ErrNotFound,
			call: func(ctx context.Context, s *pgqrs.Store) error { _, err := s.RunSchedule(ctx, "none"); return err },
		},
	})
}

func TestStatementsOfAWorkerWithASchedule(t *testing.T) {
	day := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		row  []driver.Value // the answer of schedule.find, the second time
		then []statement
	}{
		"nothing is due":            {[]driver.Value{"nightly", day.Add(time.Hour), 3, "every 24h", "UTC", 4, day.AddDate(0, 0, 1), nil, nil}, nil},
		"it is deleted":             {[]driver.Value{"nightly", day.Add(time.Hour), nil, nil, nil, 0, nil, nil, nil}, nil},
		"it has another rule":       {[]driver.Value{"nightly", day.Add(time.Hour), 3, "every 12h", "UTC", 4, day.Add(12 * time.Hour), nil, nil}, nil},
		"another rule does not run": {[]driver.Value{"nightly", day.Add(time.Hour), 3, "every 12h", "UTC", 4, day, nil, nil}, []statement{putting(day)}},
		"one is due": {[]driver.Value{"nightly", day.Add(time.Second), 3, "every 24h", "UTC", 4, day, nil, nil}, inOne(
			query("schedule.advance", 3, 4, day.AddDate(0, 0, 1).UnixMicro()).ids(3),
			query("message.enqueue", "emails", `{"To":"ada"}`, 0, nil, 0, "pgqrs-schedule:nightly@2026-01-02T00:00:00Z", `{"pgqrs-due":"2026-01-02T00:00:00Z","pgqrs-schedule":"nightly"}`).ids(7),
			query("schedule.record", 3, `[[1767312000000000,false,false,7,null]]`).row(day))},
		"another worker was first": {[]driver.Value{"nightly", day.Add(time.Second), 3, "every 24h", "UTC", 4, day, nil, nil}, inOne(
			query("schedule.advance", 3, 4, day.AddDate(0, 0, 1).UnixMicro()))},
		"it is paused": {[]driver.Value{"nightly", day.Add(time.Second), 3, "every 24h", "UTC", 4, day, day, nil}, inOne(
			query("schedule.advance", 3, 4, day.AddDate(0, 0, 1).UnixMicro()).ids(3))},
		"the instant was run before the clock went back": {[]driver.Value{"nightly", day.Add(time.Second), 3, "every 24h", "UTC", 4, day, nil, nil}, append(inVain(
			query("schedule.advance", 3, 4, day.AddDate(0, 0, 1).UnixMicro()).ids(3),
			query("message.enqueue", "emails", `{"To":"ada"}`, 0, nil, 0, "pgqrs-schedule:nightly@2026-01-02T00:00:00Z", `{"pgqrs-due":"2026-01-02T00:00:00Z","pgqrs-schedule":"nightly"}`).ids(7),
			query("schedule.record", 3, `[[1767312000000000,false,false,7,null]]`)),
			inOne(query("schedule.advance", 3, 4, day.AddDate(0, 0, 1).UnixMicro()).ids(3))...)},
		"the clock went back": {[]driver.Value{"nightly", day.Add(time.Hour), 3, "every 24h", "UTC", 4, day.AddDate(0, 0, 5), nil, nil}, inOne(
			query("schedule.advance", 3, 4, day.AddDate(0, 0, 1).UnixMicro()).ids(3))},
	} {
		t.Run(name, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d pgqrs.Dialect) {
				want := append([]statement{
					query("schedule.find", `[["nightly"]]`).row("nightly", day.Add(time.Second), nil, nil, nil, 0, nil, nil, nil),
					putting(day.AddDate(0, 0, 1)),
					query("schedule.find", `[["nightly"]]`).row(c.row...),
				}, c.then...)
				s, _ := newMock(t, d, want...)
				schedule := pgqrs.Schedule{Name: "nightly", Rule: pgqrs.Every(24 * time.Hour), Target: emails(s).Target(email{"ada"})}
				if err := (&pgqrs.Worker{Schedules: []pgqrs.Schedule{schedule}}).Tick(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// putting returns the statement that writes the schedule nightly.
func putting(next time.Time) statement {
	return query("schedule.put", "nightly", "emails", false, `{"To":"ada"}`, 0, nil, nil, "every 24h", "UTC", 1, next.UnixMicro()).ids(3)
}

func TestBadInputOfWorkflowsIsRefusedBeforeTheDatabaseIsAsked(t *testing.T) {
	starts := func(name string, in any, opts ...pgqrs.Option) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			_, err := pgqrs.NewWorkflow[any, any](s, name).Start(ctx, in, opts...)
			return err
		}
	}
	finds := func(name, key string) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			_, err := pgqrs.NewWorkflow[any, any](s, name).Find(ctx, key)
			return err
		}
	}
	lists := func(f pgqrs.RunFilter) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error { _, err := s.Runs(ctx, f); return err }
	}
	handles := func(w func(*pgqrs.Store) pgqrs.Handler) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			return (&pgqrs.Worker{Handlers: []pgqrs.Handler{w(s)}}).Run(ctx)
		}
	}
	sends := func(signal string, v any) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error { return pgqrs.Signal[any](signal).Send(ctx, s, 5, v) }
	}
	for _, test := range []struct {
		text  string
		match error
		call  func(context.Context, *pgqrs.Store) error
	}{
		{`start workflow "": empty queue name`, nil, starts("", 1)},
		{`start workflow "a\nb": queue name "a\nb" has a control character`, nil, starts("a\nb", 1)},
		{`has more than 255 characters`, nil, starts(strings.Repeat("w", 256), 1)},
		{`start workflow "w": invalid payload: json: unsupported type: chan int`, pgqrs.ErrInvalidPayload, starts("w", make(chan int))},
		{`start workflow "w": invalid payload: \u0000 in a string`, pgqrs.ErrInvalidPayload, starts("w", "\x00")},
		{`start workflow "w": negative delay -1s`, nil, starts("w", 1, pgqrs.Delay(-time.Second))},
		{`start workflow "w": priority 3 is not between -1 and 2`, nil, starts("w", 1, pgqrs.Priority(3))},
		{`start workflow "w": empty key`, nil, starts("w", 1, pgqrs.Key(""))},
		{`start workflow "w": Each outside EnqueueBatch and Children`, nil, starts("w", 1, pgqrs.Each(func(int) []pgqrs.Option { return nil }))},
		{`find the run of workflow "" with the key "k": empty queue name`, nil, finds("", "k")},
		{`find the run of workflow "w" with the key "": empty key`, nil, finds("w", "")},
		{`send signal "" to run 5: empty signal name`, nil, sends("", true)},
		{`send signal "go" to run 5: invalid payload: json: unsupported type: func()`, pgqrs.ErrInvalidPayload, sends("go", func() {})},
		{`list runs: state "gone" is not one of a run`, nil, lists(pgqrs.RunFilter{Status: "gone"})},
		{`list runs: state "success" is not one of a run`, nil, lists(pgqrs.RunFilter{Status: "success"})},
		{`list runs: RunFilter.Limit 1001 is not between 0 and 1000`, nil, lists(pgqrs.RunFilter{Limit: 1001})},
		{`list runs: RunFilter.Limit -1 is not between 0 and 1000`, nil, lists(pgqrs.RunFilter{Limit: -1})},
		{`pgqrs: run: handler of queue "welcome": nil handler function`, nil, handles(func(s *pgqrs.Store) pgqrs.Handler { return welcome(s).Handle(nil) })},
		{`pgqrs: run: handler of queue "welcome": Policy.Timeout is -1s`, nil, handles(func(s *pgqrs.Store) pgqrs.Handler {
			return welcome(s).With(pgqrs.Policy{Timeout: -time.Second}).Handle(never)
		})},
		{`pgqrs: run: handler of queue "welcome": not supported: WithTx was given a *sql.DB`, pgqrs.ErrUnsupported, handles(func(s *pgqrs.Store) pgqrs.Handler {
			return welcome(s).WithTx(s.DB()).Handle(never)
		})},
		{`pgqrs: run: two handlers for queue "emails"`, nil, func(ctx context.Context, s *pgqrs.Store) error {
			run := func(context.Context, *pgqrs.Run, email) (string, error) { return "", nil }
			other := pgqrs.NewWorkflow[email, string](s, "emails").Handle(run)
			return (&pgqrs.Worker{Handlers: []pgqrs.Handler{emails(s).Handle(ignore), other}}).Run(ctx)
		}},
	} {
		t.Run(test.text, func(t *testing.T) {
			s, _ := newMock(t, pgqrs.SQLite)
			wantRefused(t, test.call(t.Context(), s), test.text, test.match)
		})
	}
}

// In a run but outside a step, these calls would be repeated by every replay. In a step they are
// made once, as they are anywhere else.
func TestWhatARunWouldRepeatIsRefusedOutsideSteps(t *testing.T) {
	s, _ := newMock(t, pgqrs.SQLite)
	repeated := map[string]func(context.Context) error{
		"Enqueue":      func(ctx context.Context) error { _, err := emails(s).Enqueue(ctx, email{}); return err },
		"EnqueueBatch": func(ctx context.Context) error { _, err := emails(s).EnqueueBatch(ctx, []email{{}}); return err },
	}
	for name := range workflowCalls(t.Context(), s.WithTx(nil)) {
		switch name {
		case "Find", "Runs", "Info", "Steps": // these only read
		default:
			repeated[name] = func(ctx context.Context) error { return workflowCalls(ctx, s)[name] }
		}
	}
	delete(repeated, "workflow's Worker.Run")
	for name, call := range repeated {
		t.Run(name, func(t *testing.T) {
			wantRefused(t, call(pgqrs.InRun(t.Context())), "in a run, but outside a step", pgqrs.ErrState)
		})
	}
	t.Run("a step may", func(t *testing.T) {
		s, _ := newMock(t, pgqrs.SQLite, inOne(storing(nil).ids(7), makesRun.row(5, 7))...)
		if err := starting()(pgqrs.InStep(t.Context()), s); err != nil {
			t.Error(err)
		}
	})
}

// workflowCalls returns the errors of all calls of workflows, signals and handles.
func workflowCalls(ctx context.Context, s *pgqrs.Store) map[string]error {
	w := welcome(s)
	run := w.RunHandle(5)
	_, start := w.Start(ctx, email{})
	_, find := w.Find(ctx, "k")
	_, runs := s.Runs(ctx, pgqrs.RunFilter{})
	_, result := run.Result(ctx)
	_, untyped := s.RunHandle(5).Result(ctx)
	_, info := run.Info(ctx)
	_, steps := run.Steps(ctx)
	_, rerun := run.RerunFrom(ctx, "pay")
	return map[string]error{
		"Start": start, "Find": find, "Runs": runs, "Result": result, "Result by Store.RunHandle": untyped, "Info": info, "Steps": steps, "RerunFrom": rerun,
		"Cancel": run.Cancel(ctx), "Pause": run.Pause(ctx), "Resume": run.Resume(ctx), "Retry": run.Retry(ctx),
		"Send": approved.Send(ctx, s, 5, true), "workflow's Worker.Run": (&pgqrs.Worker{Handlers: []pgqrs.Handler{w.Handle(never)}}).Run(ctx),
	}
}
