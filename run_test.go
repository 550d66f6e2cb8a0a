package pgqrs

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

	"github.com/pgqrs/pgqrs-go/internal/coalesce"
	"github.com/pgqrs/pgqrs-go/internal/testkit"
)

// newTestRun returns a run without a database that has the given results.
func newTestRun(given map[string]any) *Run { return testkit.NewRun(given).(*Run) }

// sameText fails the test unless an error says exactly this.
func sameText(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got %q, want %q", fmt.Sprint(err), want)
	}
}

func TestFailuresAreEncodedInTheWordsOfPgqrs015(t *testing.T) {
	half := 0.5
	for want, f := range map[string]stepFailure{
		`{"is_transient":true,"code":"INTERNAL","message":"<no> \"x\"","retry_after":0.5}`: {Transient: true, Code: codeInternal, Message: `<no> "x"`, RetryAfter: &half},
		`{"is_transient":false,"code":"NON_RETRYABLE","message":""}`:                       {Code: codePermanent},
	} {
		if got := f.encode(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for want, err := range map[string]error{
		codeInternal: errBroken, codePermanent: fmt.Errorf("pay: %w", Permanent(errBroken)), codeTimeout: fmt.Errorf("%w after 1s", ErrTimeout),
	} {
		if got := failureCode(err); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
}

func TestRecordedStepsReturnTheirOutputOrTheirError(t *testing.T) {
	run := newTestRun(nil)
	out, err := run.recorded("pay", &stepRecord{status: Succeeded, output: []byte(`"paid"`)})
	if string(out) != `"paid"` || err != nil {
		t.Errorf("got %s, %v", out, err)
	}
	for _, test := range []struct {
		name, failure, text string
		match               error
	}{
		{"an error", `{"code":"INTERNAL","message":"bounced"}`, "bounced", nil},
		{"a permanent one", `{"code":"NON_RETRYABLE","message":"bounced"}`, "bounced", ErrPermanent},
		{"a timeout", `{"code":"TIMEOUT","message":"late"}`, "late", ErrTimeout},
		{"one of this package", `{"code":"INTERNAL","message":"pgqrs: invalid payload: 1"}`, "invalid payload: 1", nil},
		{"a bare string", `"it said \"no\""`, `it said "no"`, nil},
		{"a code of somebody else's", `{"code":"HTTP","message":"404"}`, "404", nil},
		{"something else", `[1]`, "[1]", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := run.recorded("pay", &stepRecord{status: Failed, failure: []byte(test.failure)})
			sameText(t, err, `pgqrs: step "pay" of run 1 of workflow "test": `+test.text)
			for _, sentinel := range []error{ErrPermanent, ErrTimeout, ErrCancelled, ErrSuspended, ErrLeaseLost} {
				if errors.Is(err, sentinel) != (sentinel == test.match) {
					t.Errorf("it matches %q: %v", sentinel, errors.Is(err, sentinel))
				}
			}
			var failed *RunError
			if !errors.As(fmt.Errorf("checkout: %w", err), &failed) || failed.RunID != 1 || failed.Step != "pay" || failed.Workflow != "test" {
				t.Errorf("errors.As found %+v", failed)
			}
		})
	}
	if run.inCleanUp() {
		t.Error("a failure made the run clean up")
	}
	_, err = run.recorded("pay", &stepRecord{status: Failed, failure: []byte(`{"code":"CANCELLED","message":"pgqrs: run is cancelled"}`)})
	if err != ErrCancelled || !run.inCleanUp() {
		t.Errorf("a recorded cancellation is %v, and the run cleans up: %v", err, run.inCleanUp())
	}
}

func TestRunErrorsNameTheRunAndHaveOnePrefix(t *testing.T) {
	sameText(t, &RunError{"shop", 7, "", errors.New("bounced")}, `pgqrs: run 7 of workflow "shop": bounced`)
	sameText(t, &RunError{"shop", 7, "pay", ErrCancelled}, `pgqrs: step "pay" of run 7 of workflow "shop": run is cancelled`)
	sameText(t, &suspension{}, "pgqrs: run is suspended")
	sameText(t, &suspension{cause: lostError([]int64{7})}, "pgqrs: run is suspended: lease lost: of messages [7]")
	if err := error(&RunError{"shop", 7, "", ErrCancelled}); !errors.Is(err, ErrCancelled) || errors.Is(err, ErrTimeout) {
		t.Error("a RunError does not match what it holds, or more")
	}
	if err := error(&suspension{cause: ErrLeaseLost}); !errors.Is(fmt.Errorf("pay: %w", err), ErrSuspended) || errors.Is(err, ErrCancelled) {
		t.Error("a suspension does not match ErrSuspended, or more")
	}
}

func TestRunErrorTextReadsWhatAnyVersionWrote(t *testing.T) {
	for raw, want := range map[string]string{
		`"bounced"`: "bounced", `"say \"no\""`: `say "no"`, `{"message":"bounced","code":"X"}`: "bounced", `{"code":"X"}`: `{"code":"X"}`,
		``: "", `null`: "", `oops`: "oops", `17`: "17",
	} {
		if got := runErrorText([]byte(raw)); got != want {
			t.Errorf("%s reads as %q, want %q", raw, got, want)
		}
	}
}

func TestInputOfReadsWhatAnyVersionWrote(t *testing.T) {
	for raw, want := range map[string]string{
		`{"input":{"a":1}}`: `{"a":1}`, `{"input":null}`: `null`, `{"input":1,"run":2}`: `1`,
		`{"a":1}`: `{"a":1}`, `[1]`: `[1]`, `"input"`: `"input"`, `{`: `{`,
	} {
		if got := inputOf([]byte(raw)); string(got) != want {
			t.Errorf("%s has the input %s, want %s", raw, got, want)
		}
	}
}

func TestSuspensionIsARelease(t *testing.T) {
	last := Policy{MaxAttempts: 1}
	for name, err := range map[string]error{
		"on the last attempt":      &suspension{after: time.Minute},
		"wrapped by middleware":    fmt.Errorf("traced: %w", &suspension{after: time.Minute}),
		"with a permanent cause":   &suspension{after: time.Minute, cause: Permanent(errBroken)},
		"joined with other errors": errors.Join(Permanent(errBroken), &suspension{after: time.Minute}),
	} {
		if got := last.outcome(5, err); got.kind != released || got.delay != time.Minute {
			t.Errorf("%s: %v after %v, want released after 1m", name, got.kind, got.delay)
		}
	}
}

func TestVersionWithoutADatabase(t *testing.T) {
	if v, err := newTestRun(nil).Version(t.Context(), "fraud", 2); v != 2 || err != nil {
		t.Errorf("a new run follows %d, %v", v, err)
	}
	if v, err := newTestRun(map[string]any{"version:fraud": 1}).Version(t.Context(), "fraud", 2); v != 1 || err != nil {
		t.Errorf("a run that took version 1 follows %d, %v", v, err)
	}
	passed := newTestRun(nil)
	passed.records["book"], passed.stepNames = &stepRecord{name: "book", status: Succeeded}, []string{"book"}
	if v, err := passed.Version(t.Context(), "fraud", 2); v != 0 || err != nil {
		t.Errorf("a run that has passed it follows %d, %v", v, err)
	}
	if _, err := passed.step(t.Context(), "book", nil); err != nil {
		t.Fatal(err)
	}
	if v, err := passed.Version(t.Context(), "taxes", 1); v != 1 || err != nil {
		t.Errorf("a run that comes to a change after its last record follows %d, %v", v, err)
	}
	if _, err := passed.Version(t.Context(), "taxes", 1); !errors.Is(err, ErrStepReused) {
		t.Errorf("asked twice for a change it returns %v", err)
	}
}

// A call of a run in one of its own steps fails the step, even if the step's function ignores the
// error.
func TestRun_NestedCalls(t *testing.T) {
	ctx := t.Context()
	for name, inner := range map[string]func(context.Context, *Run) error{
		`"inner"`:           func(ctx context.Context, run *Run) error { return run.Do(ctx, "inner", nothingAtAll) },
		`"nap"`:             func(ctx context.Context, run *Run) error { return run.Sleep(ctx, "nap", time.Hour) },
		`the Wait for "go"`: func(ctx context.Context, run *Run) error { _, err := Signal[int]("go").Wait(ctx, run, 0); return err },
		`"version:fraud"`:   func(ctx context.Context, run *Run) error { _, err := run.Version(ctx, "fraud", 1); return err },
	} {
		for _, ignores := range []bool{false, true} {
			run := newTestRun(nil)
			run.stepNames = []string{"later"} // makes a Version lie in the past
			err := run.Do(ctx, "outer", func(ctx context.Context) error {
				err := inner(ctx, run)
				if !errors.Is(err, ErrState) || !errors.Is(err, ErrPermanent) {
					t.Errorf("%s returns %v", name, err)
				}
				if ignores {
					return nil
				}
				return err
			})
			sameText(t, err, `pgqrs: step "outer" of run 1 of workflow "test": not possible in this state: `+name+` is called in the function of step "outer" of run 1`)
			if again := inner(ctx, run); errors.Is(again, ErrState) {
				t.Errorf("%s outside of the step returns %v", name, again)
			}
			other := newTestRun(nil)
			if err := other.Do(InStep(ctx), "of another run", nothingAtAll); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestRunWithoutADatabase(t *testing.T) {
	ctx := t.Context()
	run := newTestRun(map[string]any{"charge": "ch_1", "approved#1": true, "answer": Selected{Case: 1, Value: "Ann"}, "ship": errBroken, "late#1": ErrTimeout, "stop": Permanent(errBroken), "gone": func() {}})
	charge, err := Step(ctx, run, "charge", func(context.Context) (string, error) { panic("called") })
	if charge != "ch_1" || err != nil {
		t.Error(charge, err)
	}
	if ok, err := Signal[bool]("approved").Wait(ctx, run, 0); !ok || err != nil {
		t.Error(ok, err)
	}
	if _, err := Signal[bool]("late").Wait(ctx, run, 0); !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
	by := ""
	if at, err := run.Select(ctx, "answer", After(time.Hour), Signal[string]("answered").Case(&by)); at != 1 || by != "Ann" || err != nil {
		t.Error(at, by, err)
	}
	sameText(t, run.Do(ctx, "ship", nil), `pgqrs: step "ship" of run 1 of workflow "test": disk on fire`)
	if err := run.Do(ctx, "stop", nil); !errors.Is(err, ErrPermanent) {
		t.Error(err)
	}
	if n, err := Step(ctx, run, "count", func(context.Context) (int, error) { return 3, nil }); n != 3 || err != nil {
		t.Error(n, err)
	}
	if err := run.Sleep(ctx, "nap", time.Hour); err != nil {
		t.Error(err)
	}
	if err := run.Do(ctx, "gone", nil); err == nil {
		t.Error("a given value that is no JSON was taken")
	}
	if _, err := Signal[bool]("other").Wait(ctx, run, 0); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if err := run.DoTx(ctx, "tx", func(context.Context, *sql.Tx) error { return nil }); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if got := testkit.Ran(run); !slices.Equal(got, []string{"count"}) {
		t.Errorf("%q ran, want count alone", got)
	}
}

func TestClosedRunStartsNothingAndEndsALoop(t *testing.T) {
	_, s := newFake(t, Config{}, SQLite, nil)
	e := s.newExecution("test", &MessageInfo{ID: 7})
	e.lease = t.Context()
	run := &Run{execution: e}
	first := run.suspend(time.Minute, nil)
	if err := run.suspend(time.Second, errBroken); err != first || e.suspension.after != time.Second {
		t.Errorf("a second reason gives %v after %v, want the first, and the shorter time", err, e.suspension.after)
	}
	ended := make(chan int)
	go func() {
		n := 0
		defer func() { ended <- n }()
		for ; n < 5000; n++ {
			if err := run.Do(t.Context(), fmt.Sprint("step ", n), func(context.Context) error { panic("called") }); !errors.Is(err, ErrSuspended) {
				t.Error(err)
				return
			}
		}
	}()
	if n := <-ended; n != maxCallsAfterSuspension {
		t.Errorf("a function that ignores its suspension ended after %d calls, want %d", n, maxCallsAfterSuspension)
	}
}

func TestEndOfAnExecution(t *testing.T) {
	timedOut, cancel := context.WithTimeoutCause(t.Context(), 0, ErrTimeout)
	defer cancel()
	lost, lose := context.WithCancelCause(t.Context())
	lose(ErrLeaseLost)
	f, s := newFake(t, Config{}, SQLite, func(call) ([][]driver.Value, error) { return nil, errBroken })
	for name, test := range map[string]struct {
		lease     context.Context
		suspended bool
		err       error
		want      error
		asks      bool // whether it asks the database to end the run
	}{
		"a suspension wins over the function's error": {t.Context(), true, errBroken, ErrSuspended, false},
		"a swallowed suspension is one all the same":  {t.Context(), true, nil, ErrSuspended, false},
		"a timeout of all of it counts":               {timedOut, true, nil, ErrTimeout, false},
		"an error after the timeout is the timeout":   {timedOut, false, errBroken, ErrTimeout, false},
		"an error after a lost lease is none":         {lost, false, errBroken, ErrSuspended, false},
		"a database that fails at the end":            {t.Context(), false, nil, ErrSuspended, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := s.newExecution("test", &MessageInfo{ID: 7})
			e.lease = test.lease
			if test.suspended {
				e.suspend(time.Minute, nil)
			}
			if err := e.end(test.lease, nil, test.err); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if asked := len(f.log()) > 0; asked != test.asks {
				t.Errorf("the database was asked: %v", asked)
			}
		})
	}
}

// A worker asks for cancelled runs with its heartbeat, but only while it executes runs.
func TestHeartbeatLooksForCancelledRuns(t *testing.T) {
	f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) { return row(int64(7)), nil })
	noRun := func(context.Context, *Run, int) (int, error) { return 0, nil }
	r := newTestLoop(t, &Worker{Lease: time.Minute, Handlers: []Handler{
		NewQueue[int](s, "q").Handle(doNothing), NewWorkflow[int, int](s, "w").Handle(noRun),
	}})
	hold7 := func(lane int) *delivery {
		d := &delivery{m: &MessageInfo{ID: 7, WorkerID: 3, Claim: 9, delivery: new(deliveryState)}, queue: r.queues[lane], cancel: func(error) {}}
		r.held[7] = d
		return d
	}
	hold7(0)
	r.renew(t.Context())
	r.interrupt(t.Context())
	f.wantLog(t, "query message.renew")

	d := hold7(1)
	run, interrupt := context.WithCancelCause(t.Context())
	d.m.delivery.interrupt.Store(&interrupt)
	r.interrupt(t.Context())
	calls := f.log()
	if len(calls) != 1 || calls[0].String() != "query run.interrupted" || calls[0].args[0].Value != "[7]" {
		t.Errorf("the database was asked %v", calls)
	}
	if !errors.Is(context.Cause(run), ErrCancelled) {
		t.Errorf("the cause of the run's ctx is %v", context.Cause(run))
	}
}

// Every call of a run that is refused for its arguments returns one error, and closes nothing.
func TestBadInputOfARunsCalls(t *testing.T) {
	long := strings.Repeat("s", 256)
	ctx := t.Context()
	run := newTestRun(nil)
	wait := func(name Signal[int]) error { _, err := name.Wait(ctx, run, 0); return err }
	version := func(change string, v int) error { _, err := run.Version(ctx, change, v); return err }
	stepTx := func(name string) error { return run.DoTx(ctx, name, nil) }
	_, s := newFake(t, Config{}, SQLite, nil)
	child := func(name string) error {
		_, err := NewWorkflow[int, int](s, "mail").Child(ctx, run, name, 1)
		return err
	}
	bad := run.With(Policy{MaxAttempts: -2})
	unmarshallable := func() error {
		_, err := Step(ctx, run, "chan", func(context.Context) (chan int, error) { return make(chan int), nil })
		return err
	}
	for text, err := range map[string]error{
		"pgqrs: run 1: empty step name":                                                                     run.Do(ctx, "", nothingAtAll),
		`pgqrs: run 1: step name "\n" has a control character`:                                              run.Sleep(ctx, "\n", 1),
		`pgqrs: run 1: step name "\xff" is not valid UTF-8`:                                                 stepTx("\xff"),
		`pgqrs: run 1: step name "ssssssssssssssssssss"... has more than 255 characters`:                    child(long),
		"pgqrs: run 1: empty signal name":                                                                   wait(""),
		`pgqrs: run 1: signal name "\t" has a control character`:                                            wait("\t"),
		`pgqrs: version 0 of change "fraud" is less than 1`:                                                 version("fraud", 0),
		`pgqrs: step "x" of run 1: Policy.MaxAttempts is -2; -1 means no limit`:                             bad.Do(ctx, "x", nothingAtAll),
		`pgqrs: step "chan" of run 1 of workflow "test": invalid payload: json: unsupported type: chan int`: unmarshallable(),
	} {
		sameText(t, err, text)
	}
	for _, want := range []bool{false, true} {
		if err := run.Do(ctx, "once", nothingAtAll); errors.Is(err, ErrStepReused) != want {
			t.Errorf("asked twice: %v, and it returns %v", want, err)
		}
	}
	if err := run.Do(ctx, "nil", nil); err == nil || !strings.HasPrefix(err.Error(), `pgqrs: step "nil" of run 1 of workflow "test": panic: `) {
		t.Errorf("a nil function gives %v", err)
	}
	if run.suspension != nil {
		t.Error("the run is closed")
	}
}

func nothingAtAll(context.Context) error { return nil }

// answerRun answers as a database with one run that has no records yet.
func answerRun(c call) ([][]driver.Value, error) {
	switch c.tag() {
	case "step.open", "step.close", "step.save":
		return row("RUNNING"), nil
	}
	return row(int64(1)), nil
}

// A heartbeat that is blocked by the transaction of one of the run's steps does not mean a lost
// lease.
func TestStepTx_TellsTheHeartbeat(t *testing.T) {
	_, s := newFake(t, Config{}, SQLite, answerRun)
	s.writer = nil // the fake is no single writer
	e := s.newExecution("test", &MessageInfo{ID: 7, delivery: new(deliveryState)})
	e.lease = t.Context()
	run := &Run{execution: e}
	begun, gate := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- run.DoTx(t.Context(), "first", func(context.Context, *sql.Tx) error { begun <- struct{}{}; <-gate; return nil })
	}()
	<-begun
	err := run.DoTx(t.Context(), "second", func(context.Context, *sql.Tx) error {
		close(gate)
		err := <-first
		if !e.message.delivery.inTransaction.Load() {
			t.Error("the heartbeat does not know of the second transaction, now that the first has ended")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if e.message.delivery.inTransaction.Load() {
		t.Error("the heartbeat knows of a transaction that has ended")
	}
}

// A step does not begin if the lease is lost, the worker drains, or the run is paused.
func TestRun_StepsThatDoNotBegin(t *testing.T) {
	lost, lose := context.WithCancelCause(t.Context())
	lose(ErrLeaseLost)
	f, s := newFake(t, Config{}, SQLite, answerRun)
	for name, test := range map[string]struct {
		lease    context.Context
		draining bool
		paused   bool
	}{
		"without its lease":       {lost, false, false},
		"while its worker drains": {t.Context(), true, false},
		"while its run is paused": {t.Context(), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := s.newExecution("test", &MessageInfo{ID: 7, delivery: new(deliveryState)})
			e.lease, e.paused = test.lease, test.paused
			e.message.delivery.draining.Store(test.draining)
			err := (&Run{execution: e}).Do(t.Context(), "pay", func(context.Context) error { t.Error("it was called"); return nil })
			if !errors.Is(err, ErrSuspended) {
				t.Errorf("it returns %v", err)
			}
			f.wantLog(t)
		})
	}
}

// Steps of several callers share a statement only if no step occurs twice.
func TestSaveSteps_OfOneStepTwice(t *testing.T) {
	f, s := newFake(t, Config{}, SQLite, answerRun)
	m := &MessageInfo{ID: 7}
	twice := []stepWrite{{runID: 1, message: m, name: "pay"}, {runID: 1, message: m, name: "book"}, {runID: 1, message: m, name: "pay"}}
	if _, err := s.saveSteps(t.Context(), twice); !errors.Is(err, coalesce.ErrContended) {
		t.Errorf("got %v, want %v", err, coalesce.ErrContended)
	}
	f.wantLog(t)
}

// A step that Retry has cleared has no record, but the run knows that it has passed it.
func TestLoad_ClearedSteps(t *testing.T) {
	now := time.Now().UTC()
	_, s := newFake(t, Config{}, SQLite, func(call) ([][]driver.Value, error) {
		return [][]driver.Value{
			{"charge", "SUCCESS", []byte("1"), nil, int64(0), nil, now, now, false},
			{"book", "QUEUED", nil, nil, int64(0), nil, now, nil, true},
			{"undo", "SUCCESS", nil, nil, int64(0), nil, now, now, false},
		}, nil
	})
	e := s.newExecution("test", &MessageInfo{ID: 7})
	if err := e.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e.records["charge"] == nil || e.records["book"] != nil || e.records["undo"] == nil {
		t.Errorf("the records are %v", e.records)
	}
	if e.records["charge"].optional || !e.records["undo"].optional {
		t.Error("what came after a step that is taken anew need not come again, and nothing else")
	}
	if !slices.Equal(e.stepNames, []string{"charge", "book", "undo"}) {
		t.Errorf("the rows are %v", e.stepNames)
	}
}

func TestStepInTheTransactionOfAnotherRun(t *testing.T) {
	_, s := newFake(t, Config{}, SQLite, answerRun)
	e := s.newExecution("test", &MessageInfo{ID: 7, delivery: new(deliveryState)})
	e.lease = t.Context()
	if err := e.suspendOnInfraError(errInTx); !errors.Is(err, ErrState) || errors.Is(err, ErrSuspended) {
		t.Errorf("got %v; want an error that matches ErrState, and a run that goes on", err)
	}
}

// A new step takes the same time however many steps are recorded before it.
func BenchmarkStepAfterHistory(b *testing.B) {
	for _, n := range []int{0, 1000, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := newExecution(&fakeBackend{}, "test", &MessageInfo{ID: 1})
			e.lease = context.Background()
			for i := range n {
				name := fmt.Sprint("recorded ", i)
				e.records[name] = &stepRecord{name: name, status: Succeeded}
				e.unaskedRecords++
				if _, err := e.lookUpStep(context.Background(), name); err != nil {
					b.Fatal(err)
				}
			}
			run := &Run{execution: e}
			for i := 0; b.Loop(); i++ {
				if err := run.Do(context.Background(), fmt.Sprint("new ", i), func(context.Context) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
