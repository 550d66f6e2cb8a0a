//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/coalesce"
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
		if took, want := time.Since(began), time.Minute+writerSlotWait; took != want {
			t.Errorf("it took %v, want %v", took, want)
		}
	})
}

func TestTurnsComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := make(writerSlot, 1)
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
		c := &consumer{queue: "q", claimSlot: make(chan struct{}, 1), row: registration{id: 1}, asOf: time.Now()}
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

// crowd is how many call at once.
const crowd = 10

// together makes a crowd of calls while a fake holds back its answers, and
// returns what was sent.
func together(t *testing.T, answer func(call) [][]driver.Value, one func(ctx context.Context, s *Store, n int) error) string {
	var sent string
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
			<-gate
			return answer(c), nil
		})
		done := make(chan error, crowd)
		for n := range crowd {
			go func() { done <- one(t.Context(), s, n) }()
		}
		synctest.Wait()
		close(gate)
		for range crowd {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		sent = fmt.Sprint(f.calls)
	})
	return sent
}

func TestEnqueuesShareAStatement(t *testing.T) {
	id := int64(0)
	var seen sync.Map
	sent := together(t, func(c call) (rows [][]driver.Value) {
		if c.tag() == "message.enqueue" {
			id++
			return row(id)
		}
		for range crowd - 1 {
			id++
			rows = append(rows, []driver.Value{id, nil})
		}
		return rows
	}, func(ctx context.Context, s *Store, n int) error {
		id, err := NewQueue[int](s, "q").Enqueue(ctx, n)
		if _, twice := seen.LoadOrStore(id, true); twice {
			t.Errorf("two calls returned the id %d", id)
		}
		return err
	})
	if sent != "[query message.enqueue query message.mixed_enqueue]" {
		t.Errorf("sent %s", sent)
	}
}

func TestEnqueuesThatMayHaveToWaitShareNothing(t *testing.T) {
	long := strings.Repeat("x", maxShared)
	for what, one := range map[string]func(ctx context.Context, s *Store, n int) error{
		"a key": func(ctx context.Context, s *Store, n int) error {
			_, err := NewQueue[int](s, "q").Enqueue(ctx, n, Key(fmt.Sprint(n)))
			return err
		},
		"a long payload": func(ctx context.Context, s *Store, n int) error {
			_, err := NewQueue[string](s, "q").Enqueue(ctx, long)
			return err
		},
		"another's queue": func(ctx context.Context, s *Store, n int) error {
			_, err := NewQueue[int](s, fmt.Sprint(n)).Enqueue(ctx, n)
			return err
		},
	} {
		sent := together(t, func(call) [][]driver.Value { return row(int64(1)) }, one)
		if strings.Contains(sent, "batch") {
			t.Errorf("with %s: sent %s", what, sent)
		}
	}
}

func TestAcksShareAStatement(t *testing.T) {
	sent := together(t, func(c call) (rows [][]driver.Value) {
		for n := range int64(crowd) {
			if strings.Contains(c.args[0].Value.(string), fmt.Sprintf("[%d,7,1]", n)) {
				rows = append(rows, row(n)...)
			}
		}
		return rows
	}, func(ctx context.Context, s *Store, n int) error {
		m := &Message[int]{MessageInfo: MessageInfo{ID: int64(n), WorkerID: 7, Claim: 1}}
		return NewQueue[int](s, "q").Ack(ctx, m)
	})
	if sent != "[query message.ack query message.ack]" {
		t.Errorf("sent %s", sent)
	}
}

func TestAcksOfOneMessageShareNothing(t *testing.T) {
	var lost atomic.Int32
	sent := together(t, func(c call) [][]driver.Value {
		if strings.Contains(c.args[0].Value.(string), "[1,7,0]") { // the first holder's
			return nil
		}
		return row(int64(1))
	}, func(ctx context.Context, s *Store, n int) error {
		m := &Message[int]{MessageInfo: MessageInfo{ID: 1, WorkerID: 7, Claim: int64(n % 2)}}
		err := NewQueue[int](s, "q").Ack(ctx, m)
		if errors.Is(err, ErrLeaseLost) {
			lost.Add(1)
			return nil
		}
		return err
	})
	if n := strings.Count(sent, "message.ack"); n != crowd || lost.Load() != crowd/2 {
		t.Errorf("%d statements, %d calls of %d lost their lease", n, lost.Load(), crowd/2)
	}
}

func TestStepsShareAStatement(t *testing.T) {
	f, s := newFake(t, Config{}, SQLite, func(call) ([][]driver.Value, error) {
		return [][]driver.Value{{int64(2), "a", "PAUSED"}, {int64(1), "a", "RUNNING"}}, nil
	})
	m := &MessageInfo{ID: 5, WorkerID: 7, Claim: 1}
	list := []stepWrite{{1, m, "a", stepValues{}}, {2, m, "a", stepValues{}}, {1, m, "b", stepValues{}}} // the third is lost
	states, err := s.saveSteps(t.Context(), list)
	if err != nil || !slices.Equal(states, []RunState{Running, Paused, ""}) {
		t.Errorf("states %q, %v", states, err)
	}
	if _, err := s.saveSteps(t.Context(), append(list, list[0])); !errors.Is(err, coalesce.ErrContended) {
		t.Errorf("one step twice: %v", err)
	}
	if got := fmt.Sprint(f.calls); got != "[query step.batch_save]" {
		t.Errorf("sent %s", got)
	}
}
