//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A dawdler is an empty database that takes a second to answer one statement.
type dawdler struct {
	idleDatabase
	over string // the slow statement
}

func (d *dawdler) answer(c call) ([][]driver.Value, error) {
	if c.tag() == d.over {
		pass(time.Second)
	}
	return d.idleDatabase.answer(c)
}

// A message may be enqueued in this process while the database is answering a Worker. It is claimed
// as soon as possible, not only after the next poll.
func TestNewsDuringAQuestion(t *testing.T) {
	for _, test := range []struct {
		over   string
		polls  time.Duration
		claims []time.Duration // since the start of the Worker
	}{
		// The first claim may have been too early for it.
		{"message.claim", time.Minute, []time.Duration{0, time.Second}},
		{"worker.poll", 300 * time.Millisecond, []time.Duration{0, 500 * time.Millisecond}}, // a poll does not delay it
	} {
		t.Run(test.over, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, s := newFake(t, Config{NoPrepare: true}, Postgres, (&dawdler{over: test.over}).answer)
				q := NewQueue[int](s, "q")
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				start := time.Now()
				go func() {
					done <- (&Worker{PollInterval: test.polls, Handlers: []Handler{q.Handle(doNothing)}}).Run(ctx)
				}()
				pass(500 * time.Millisecond)
				if _, err := q.Enqueue(ctx, 1); err != nil {
					t.Fatal(err)
				}
				pass(5 * time.Second)
				var claims []time.Duration
				for _, c := range f.log() {
					if c.tag() == "message.claim" {
						claims = append(claims, c.at.Sub(start))
					}
				}
				if !slices.Equal(claims, test.claims) {
					t.Errorf("claims after %v, want after %v", claims, test.claims)
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

// An idleDatabase answers workers like an empty database.
type idleDatabase struct{ workers atomic.Int64 }

func (d *idleDatabase) answer(c call) ([][]driver.Value, error) {
	if c.how == "prepare" || c.how == "close" {
		return nil, nil
	}
	switch c.tag() {
	case "worker.register":
		return row(d.workers.Add(1)), nil
	case "message.enqueue", "worker.move":
		return row(int64(1)), nil
	case "worker.heartbeat":
		var ids []int64
		if err := json.Unmarshal([]byte(c.args[0].Value.(string)), &ids); err != nil {
			return nil, err
		}
		var rows [][]driver.Value
		for _, id := range ids {
			rows = append(rows, []driver.Value{id, "polling"})
		}
		return rows, nil
	}
	return nil, nil
}

// runIdle runs a worker with a number of empty queues, under a fake clock. It calls check once the
// worker is idle, and then ends the worker.
func runIdle(t *testing.T, queues int, check func(t *testing.T, f *fake, s *Store)) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{}, SQLite, new(idleDatabase).answer)
		w := &Worker{}
		for i := range queues {
			w.Handlers = append(w.Handlers, NewQueue[int](s, fmt.Sprint("q", i)).Handle(doNothing))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		f.log()
		check(t, f, s)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.DB().Close(); err != nil {
			t.Error(err)
		}
	})
}

// pass lets time pass on the bubble's clock.
func pass(d time.Duration) { time.Sleep(d) }

// polls returns the times of the polls among calls.
func polls(calls []call) []time.Time {
	var times []time.Time
	for _, c := range calls {
		if c.tag() == "worker.poll" && (c.how == "query" || c.how == "run") {
			times = append(times, c.at)
		}
	}
	return times
}

func TestIdleWorkerPollsLessOften(t *testing.T) {
	runIdle(t, 1, func(t *testing.T, f *fake, _ *Store) {
		pass(20 * time.Second)
		if n := len(polls(f.log())); n < 60 || n > 110 {
			t.Errorf("%d polls in the first 20 s; four a second were asked for", n)
		}
		pass(30 * time.Second)
		f.log()
		pass(100 * time.Second)
		times := polls(f.log())
		if n := len(times); n < 80 || n > 130 {
			t.Errorf("%d polls in 100 s; once it is idle it should be one a second", n)
		}
		for i := range times[1:] {
			if gap := times[i+1].Sub(times[i]); gap < 750*time.Millisecond || gap > 1250*time.Millisecond {
				t.Errorf("%v between two polls", gap)
			}
		}
	})
}

// Twenty queues cost no more than one. Maintenance, once a minute, and a poll that is prepared
// again add to four statements in one second, but not over ten seconds.
func TestIdleWorkerOfManyQueuesAsksLittle(t *testing.T) {
	runIdle(t, 20, func(t *testing.T, f *fake, _ *Store) {
		pass(40 * time.Second)
		f.log()
		for range 12 {
			all := 0
			for range 10 {
				pass(time.Second)
				calls := f.log()
				all += len(calls)
				if n := len(routine(calls)); n > 4 {
					t.Errorf("%d statements in a second of idling: %v", n, calls)
				}
			}
			if all > 40 {
				t.Errorf("%d statements in ten seconds of idling", all)
			}
		}
	})
}

// routine leaves out maintenance, and the preparing of statements.
func routine(calls []call) []call {
	return slices.DeleteFunc(calls, func(c call) bool {
		return c.how == "prepare" || c.how == "close" || slices.Contains([]string{"worker.expire", "message.disown", "group.sweep", "batch.sweep", "group.prune", "message.prune", "message.unreachable", "message.bury", "run.expired", "run.stranded", "queue.unattended", "queue.misfit", "schema.shared", "worker.prune"}, c.tag())
	})
}

func TestEnqueueWakesTheWorkersOfItsProcess(t *testing.T) {
	runIdle(t, 3, func(t *testing.T, f *fake, s *Store) {
		pass(time.Minute + 7*time.Millisecond)
		f.log()
		before := time.Now()
		enqueueTimes(t, NewQueue[int](s, "q1"), 1)
		synctest.Wait()
		if now := time.Now(); now != before {
			t.Fatalf("%v passed", now.Sub(before))
		}
		f.wantLog(t, "query message.enqueue", "query message.claim")
	})
}

func TestEnqueueInATransactionWakesThemSoon(t *testing.T) {
	runIdle(t, 1, func(t *testing.T, f *fake, s *Store) {
		pass(time.Minute)
		tx, err := s.DB().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		enqueueTimes(t, NewQueue[int](s, "q0").WithTx(tx), 1)
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		f.log()
		pass(100 * time.Millisecond)
		if n := len(polls(f.log())); n < 2 {
			t.Errorf("%d polls in the 100 ms after a commit", n)
		}
	})
}

func TestWorkerMarksItsRowsStopped(t *testing.T) {
	var f *fake
	runIdle(t, 2, func(t *testing.T, running *fake, _ *Store) {
		pass(time.Second)
		running.log()
		f = running
	})
	var stopped int
	for _, c := range f.log() {
		if c.tag() == "worker.retire" {
			var rows [][2]int64
			if err := json.Unmarshal([]byte(c.args[0].Value.(string)), &rows); err != nil {
				t.Fatal(err)
			}
			stopped += len(rows)
		}
	}
	if stopped != 2 {
		t.Errorf("%d of 2 worker rows were marked stopped", stopped)
	}
}

func TestBusyDatabaseIsNotAskedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{NoPrepare: true}, SQLite, func(call) ([][]driver.Value, error) { return nil, busyErrors[0] })
		start := time.Now()
		_, err := NewQueue[int](s, "q").Enqueue(t.Context(), 1)
		if err == nil || !strings.Contains(err.Error(), "database is locked") {
			t.Errorf("got %v", err)
		}
		if n := len(f.log()); n != 25 {
			t.Errorf("it was asked %d times, want 25", n)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		if err := s.DB().Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestCancelEndsTheWaitForABusyDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newFake(t, Config{}, SQLite, func(call) ([][]driver.Value, error) { return nil, busyErrors[0] })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := NewQueue[int](s, "q").Enqueue(ctx, 1)
		if !strings.Contains(fmt.Sprint(err), context.DeadlineExceeded.Error()) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if err := s.DB().Close(); err != nil {
			t.Error(err)
		}
	})
}

// A databaseOfOneRun answers workers like a database with one run, which is due once.
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

// workOneRun has a Worker execute a run under a fake clock. It calls check with the statements that
// the Worker sent for the run, and then ends the Worker.
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

// While a run sleeps, a worker sends the same statements as without a run.
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

// Result learns the end of a run that was just started in this process without a query. For any
// other run it queries the database, at first and at the end.
func TestResultDoesNotAskForRunOfThisProcess(t *testing.T) {
	for name, test := range map[string]struct {
		handle func(context.Context, *Workflow[int, int]) (*RunHandle[int], error)
		asks   int
	}{
		"just started": {func(ctx context.Context, w *Workflow[int, int]) (*RunHandle[int], error) { return w.Start(ctx, 1) }, 0},
		"of any time":  {func(_ context.Context, w *Workflow[int, int]) (*RunHandle[int], error) { return w.RunHandle(5), nil }, 2},
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
			c.notifyAwaiting(RunInfo{ID: id, Status: Failed})
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
		{100, 100, false}, // it ended earlier
		{100, 99, true},
		{37, 36, true},
		{101, 36, false},
		{101, 35, true}, // results of this many runs are not kept
	} {
		if got := missed(test.id, test.since); got != test.want {
			t.Errorf("run %d, started when %d had ended of 100: missed is %v", test.id, test.since, got)
		}
	}
}

// While a run cleans up, its cancellation does not end the ctx of its steps. Everything else does.
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
				run.cleanUp = true
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
