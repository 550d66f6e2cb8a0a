package pgqrs_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/pgqrs/pgqrs-go"
)

// A runFunc is the code of the workflow welcome.
type runFunc func(ctx context.Context, run *pgqrs.Run, in email) (string, error)

// claimed is the message of a run, as a worker holds it.
func claimed() *pgqrs.MessageInfo {
	m := held(7, 1).MessageInfo
	m.Raw = []byte(adaInput)
	return &m
}

// executing returns a call that executes run 5 once.
func executing(fn runFunc) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error { return welcome(s).Handle(fn).Work(ctx, claimed()) }
}

// begins is how each execution begins: the run's status, and whether it is its first one.
func begins(status string, fresh bool) statement {
	return query("run.begin", 7, 3, 9).row(5, status, fresh)
}

// loads is how the steps are read, by all but the first execution.
func loads(rows ...[]driver.Value) statement {
	s := query("step.load", 5)
	for _, r := range rows {
		s = s.row(r...)
	}
	return s
}

// saves is the statement that records a step, while the run is RUNNING.
func saves(name, status string, output, failure driver.Value, retries int, delay driver.Value) statement {
	return query("step.save", 5, name, 7, 3, 9, status, output, failure, retries, delay, sqlmock.AnyArg()).row("RUNNING")
}

// succeeds is saves of a step without a result.
func succeeds(name string) statement { return saves(name, "SUCCESS", nil, nil, 0, nil) }

// ends is how the run ends and its message is acked: by one statement or in a transaction.
func ends(status string, output, failure driver.Value) []statement {
	return slices.Concat(
		onPostgres(endsAtOnce(status, output, failure).row(status)),
		onSQLite(inOne(query("run.finish", 5, status, output, failure).row(status, nil), query("message.ack", `[[7,3,9]]`).ids(7))...))
}

// endsAtOnce is the statement that ends the run, unless there is more to it.
func endsAtOnce(status string, output, failure driver.Value) statement {
	return query("run.end", 5, 7, 3, 9, status, output, failure)
}

// endsInParts is how a run ends that there is more to.
func endsInParts(status string, output, failure driver.Value, how []statement) []statement {
	return append(onPostgres(endsAtOnce(status, output, failure)), how...)
}

// does are statements in a row.
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

// failing is a run of one step that fails.
func failing(cause error, p pgqrs.Policy) runFunc {
	return func(ctx context.Context, run *pgqrs.Run, _ email) (string, error) {
		return "", run.With(p).Do(ctx, "pay", func(context.Context) error { return cause })
	}
}

// never is a run whose function must not be called.
func never(context.Context, *pgqrs.Run, email) (string, error) {
	panic("the function was called")
}

// unpaid is what a replay must not call.
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

// storeKey carries the Store to a run's function, which has it from a variable in programs.
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
