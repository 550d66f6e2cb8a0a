//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A busyOne is a database whose statements take a while, and which counts how many are under way.
type busyOne struct {
	takes time.Duration

	mu   sync.Mutex
	now  int
	most int
}

func (b *busyOne) answer(call) ([][]driver.Value, error) {
	b.mu.Lock()
	b.now++
	b.most = max(b.most, b.now)
	b.mu.Unlock()
	time.Sleep(b.takes)
	b.mu.Lock()
	b.now--
	b.mu.Unlock()
	return row(int64(1)), nil
}

// enqueueAtOnce enqueues to eight queues, which do not share statements, and returns how many were done at a time.
func enqueueAtOnce(t *testing.T, d Dialect, takes time.Duration) int {
	b := &busyOne{takes: takes}
	_, store := newFake(t, Config{}, d, b.answer)
	var all sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		all.Go(func() {
			if _, err := NewQueue[int](store, name).Enqueue(t.Context(), 1); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	return b.most
}

func TestWritesQueueForADatabaseThatDoesOneAtATime(t *testing.T) {
	for d, want := range map[Dialect]int{SQLite: 1, Turso: 1, Postgres: 8} {
		synctest.Test(t, func(t *testing.T) {
			if most := enqueueAtOnce(t, d, 10*time.Millisecond); most != want {
				t.Errorf("%s: %d writes at a time, want %d", d, most, want)
			}
		})
	}
}

func TestAWriteThatHangsHoldsNobodyUpForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if most := enqueueAtOnce(t, SQLite, time.Minute); most != 8 {
			t.Errorf("%d writes at a time, want 8", most)
		}
		if took, want := time.Since(began), time.Minute+turnPatience; took != want {
			t.Errorf("it took %v, want %v", took, want)
		}
	})
}

func TestTurnsComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := make(turn, 1)
		var order []int
		var all sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 5 {
			all.Go(func() {
				mine := t.Context()
				if i == 3 {
					mine = ctx
				}
				err := line.do(mine, func() error {
					time.Sleep(100 * time.Millisecond)
					order = append(order, i)
					return nil
				})
				if (i == 3) != errors.Is(err, context.Canceled) {
					t.Errorf("call %d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		cancel() // the fourth no longer wants to
		all.Wait()
		if want := []int{0, 1, 2, 4}; !slices.Equal(order, want) {
			t.Errorf("they came in order %v, want %v", order, want)
		}
	})
}

func TestConflictsAreGivenUpAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{Concurrent: true}, Turso, failing("commit", slices.Repeat([]error{errors.New("Write-write conflict")}, 100)...))
		begun := time.Now()
		_, err := NewQueue[int](s, "q").Enqueue(t.Context(), 1)
		if want := "pgqrs: enqueue on queue \"q\": tried 25 times: Write-write conflict"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if n := count(f.log(), "query"); n != 25 {
			t.Errorf("it was tried %d times, want 25", n)
		}
		if took := time.Since(begun); took < 2*time.Second || took > 8*time.Second {
			t.Errorf("it took %v, want some 5 s", took)
		}
	})
}

// Claims of one worker under Config.Concurrent could only collide with each other.
func TestClaimsOfAConsumerTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		f, s := newFake(t, Config{Concurrent: true}, Turso, func(c call) ([][]driver.Value, error) {
			if c.tag() == "message.claim" {
				<-gate
				return nil, errBroken
			}
			return row(int64(1)), nil
		})
		c := &consumer{queue: "q", turn: make(chan struct{}, 1), row: registration{id: 1}, asOf: time.Now()}
		ended := make(chan error, 3)
		claim := func(ctx context.Context) {
			_, err := c.claim(ctx, s, 1, time.Minute)
			ended <- err
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go claim(t.Context())
		synctest.Wait()
		go claim(t.Context())
		go claim(short)
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the one that waited too long: %v", err)
		}
		if n := count(f.log(), "query"); n != 1 {
			t.Errorf("%d claims are under way, want 1", n)
		}
		close(gate)
		for range 2 {
			if err := <-ended; !errors.Is(err, errBroken) {
				t.Error(err)
			}
		}
		if n := count(f.log(), "query"); n != 1 {
			t.Errorf("%d claims followed, want 1", n)
		}
	})
}
