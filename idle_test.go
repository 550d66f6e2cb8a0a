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

// An idleDatabase answers workers as one does that has nothing for them.
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

// runIdle runs a worker of so many queues that have nothing, under a clock of
// its own, and calls check once it has settled in. It ends the worker after.
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

// Twenty queues cost no more than one: the upkeep, once a minute, and a poll that is
// prepared anew come on top of four statements in one second, but not over ten.
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

// routine leaves out the upkeep, and that a statement is prepared anew.
func routine(calls []call) []call {
	return slices.DeleteFunc(calls, func(c call) bool {
		return c.how == "prepare" || c.how == "close" || slices.Contains([]string{"worker.expire", "message.disown", "group.sweep", "batch.sweep", "group.prune", "message.prune", "message.unreachable", "run.expired", "run.stranded", "queue.unattended", "schema.shared", "worker.prune"}, c.tag())
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
