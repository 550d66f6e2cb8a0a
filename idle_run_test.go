//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A databaseOfOneRun answers workers as one does that has one run, which is due once.
type databaseOfOneRun struct {
	idleDatabase
	claimed atomic.Bool
	ended   atomic.Bool
}

func (d *databaseOfOneRun) answer(c call) ([][]driver.Value, error) {
	now := time.Now().UTC()
	switch c.tag() {
	case "message.claim":
		if !d.claimed.Swap(true) {
			return row(int64(7), []byte(`{"input":1}`), int64(0), int64(1), int64(9), nil, nil, nil, now, now, now.Add(time.Minute)), nil
		}
	case "run.begin":
		return row(int64(5), "RUNNING", true), nil
	case "step.save":
		return row("RUNNING"), nil
	case "run.finish":
		d.ended.Store(true)
		return row("SUCCESS", nil), nil
	case "message.enqueue":
		return row(int64(7)), nil
	case "run.insert":
		return row(int64(5), int64(7)), nil
	case "run.get":
		status, output := "RUNNING", any(nil)
		if d.ended.Load() {
			status, output = "SUCCESS", []byte("10")
		}
		return row(int64(5), "w", int64(7), status, []byte("1"), output, nil, nil, nil, nil, nil, now, nil, nil, nil, now, int64(1)), nil
	case "message.release", "message.ack":
		return row(int64(7)), nil
	}
	return d.idleDatabase.answer(c)
}

// workOneRun has a Worker execute a run under a clock of its own, and calls
// check with the statements that it sent in the run's name. It ends the worker after.
func workOneRun(t *testing.T, fn func(context.Context, *Run, int) (int, error), check func(t *testing.T, f *fake, sent []string)) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{NoPrepare: true}, SQLite, new(databaseOfOneRun).answer)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- (&Worker{Handlers: []Handler{NewWorkflow[int, int](s, "w").Handle(fn)}}).Run(ctx) }()
		pass(10 * time.Second)
		var sent []string
		for _, c := range routine(f.log()) {
			group, _, _ := strings.Cut(c.tag(), ".")
			if group != "worker" && group != "schema" && !slices.Contains([]string{"queue.configure", "open", "message.claim"}, c.tag()) && c.how != "begin" && c.how != "commit" {
				sent = append(sent, c.tag())
			}
		}
		check(t, f, sent)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.DB().Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWorkerSpendsThirteenStatementsOnTenSteps(t *testing.T) {
	tenSteps := func(ctx context.Context, run *Run, _ int) (int, error) {
		for i := range 10 {
			if err := run.Do(ctx, fmt.Sprint("step ", i), nothingAtAll); err != nil {
				return 0, err
			}
		}
		return 10, nil
	}
	workOneRun(t, tenSteps, func(t *testing.T, _ *fake, sent []string) {
		want := "run.begin " + strings.Repeat("step.save ", 10) + "run.finish message.ack"
		if got := strings.Join(sent, " "); got != want {
			t.Errorf("after the claim the worker sent %d statements, want 13: %s", len(sent), got)
		}
	})
}

// While a run sleeps, a worker sends what it sends when there is none.
func TestSleepingRunCostsNoStatement(t *testing.T) {
	nap := func(ctx context.Context, run *Run, _ int) (int, error) { return 0, run.Sleep(ctx, "nap", 24*time.Hour) }
	workOneRun(t, nap, func(t *testing.T, f *fake, sent []string) {
		if got := strings.Join(sent, " "); got != "run.begin step.save message.release" {
			t.Errorf("going to sleep took %s", got)
		}
		pass(time.Hour)
		for _, c := range routine(f.log()) {
			if tag := c.tag(); tag != "worker.poll" && tag != "worker.heartbeat" {
				t.Errorf("while the run slept the worker sent %s", c)
			}
		}
	})
}

// Who waits for a run that was just started here is told what came of it. Who waits for any other asks, at first and in the end.
func TestResultDoesNotAskForRunOfThisProcess(t *testing.T) {
	for name, test := range map[string]struct {
		handle func(context.Context, *Workflow[int, int]) (*RunHandle[int], error)
		asks   int
	}{
		"just started": {func(ctx context.Context, w *Workflow[int, int]) (*RunHandle[int], error) { return w.Start(ctx, 1) }, 0},
		"of any time":  {func(_ context.Context, w *Workflow[int, int]) (*RunHandle[int], error) { return w.Run(5), nil }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, s := newFake(t, Config{NoPrepare: true}, SQLite, new(databaseOfOneRun).answer)
				w := NewWorkflow[int, int](s, "w")
				h, err := test.handle(t.Context(), w)
				if err != nil {
					t.Fatal(err)
				}
				results := make(chan error)
				go func() {
					out, err := h.Result(t.Context())
					if err == nil && out != 10 {
						err = fmt.Errorf("result %d", out)
					}
					results <- err
				}()
				synctest.Wait()
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				slow := w.Handle(func(context.Context, *Run, int) (int, error) { pass(900 * time.Millisecond); return 10, nil })
				go func() { done <- (&Worker{Handlers: []Handler{slow}}).Run(ctx) }()
				if err := <-results; err != nil {
					t.Error(err)
				}
				asks := 0
				for _, c := range f.log() {
					if c.tag() == "run.get" {
						asks++
					}
				}
				if asks != test.asks {
					t.Errorf("it asked %d times, want %d", asks, test.asks)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if err := s.DB().Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestWhoWaitsForARunKnowsWhetherItMayHaveMissedTheEnd(t *testing.T) {
	var c core
	end := func(from, to int64) {
		for id := from; id <= to; id++ {
			c.tellAwaiting(RunInfo{ID: id, Status: Failed})
		}
	}
	missed := func(id, since int64) bool {
		_, missed, stop := c.awaitRun(id, since)
		defer stop()
		return missed
	}
	end(1, 100)
	for _, test := range []struct {
		id, since int64
		want      bool
	}{
		{100, 100, false}, // it ended before
		{100, 99, true},
		{37, 36, true},
		{101, 36, false},
		{101, 35, true}, // nobody remembers so many
	} {
		if got := missed(test.id, test.since); got != test.want {
			t.Errorf("run %d, started when %d had ended of 100: missed is %v", test.id, test.since, got)
		}
	}
}

// While a run cleans up, its cancellation ends the ctx of no step. Everything else does.
func TestRun_CtxOfCleaningUp(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(cancel, lose context.CancelCauseFunc)
		want error
	}{
		"cancelled with the run": {func(cancel, _ context.CancelCauseFunc) { cancel(ErrCancelled) }, nil},
		"ended by its caller":    {func(cancel, _ context.CancelCauseFunc) { cancel(errBroken) }, errBroken},
		"without its lease":      {func(_, lose context.CancelCauseFunc) { lose(ErrLeaseLost) }, ErrLeaseLost},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				run := newTestRun(nil)
				run.cleaning = true
				lease, lose := context.WithCancelCause(t.Context())
				run.lease = lease
				ctx, cancel := context.WithCancelCause(t.Context())
				err := run.Do(ctx, "refund", func(ctx context.Context) error {
					test.end(cancel, lose)
					synctest.Wait()
					if got := context.Cause(ctx); got != test.want {
						t.Errorf("the cause of the step's ctx is %v, want %v", got, test.want)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				cancel(nil)
				lose(nil)
			})
		})
	}
}
