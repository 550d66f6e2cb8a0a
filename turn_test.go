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
