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
)

// A counter is the work of a coalescer that a test watches: it doubles numbers.
type counter struct {
	coalescer[int, int]
	gate chan struct{} // closed: nothing waits

	mu     sync.Mutex
	single []int
	shared [][]int
	fails  error // of shared work
}

func newCounter() *counter {
	c := &counter{gate: make(chan struct{})}
	c.refused = sqlite.refused
	c.admit = func(context.Context) error { return nil }
	c.alone = func(_ context.Context, n int) (int, error) {
		c.mu.Lock()
		c.single = append(c.single, n)
		c.mu.Unlock()
		<-c.gate
		if n < 0 {
			return 0, fmt.Errorf("bad number %d", n)
		}
		return 2 * n, nil
	}
	c.together = func(_ context.Context, list []int) ([]int, error) {
		c.mu.Lock()
		c.shared = append(c.shared, list)
		fails := c.fails
		c.mu.Unlock()
		<-c.gate
		if fails != nil {
			return nil, fails
		}
		out := make([]int, len(list))
		for i, n := range list {
			out[i] = 2 * n
		}
		return out, nil
	}
	return c
}

// A reply is what a call of do returned.
type reply struct {
	n   int
	err error
}

// call does n in a goroutine and returns once it waits for something.
func (c *counter) call(ctx context.Context, n int) <-chan reply {
	done := make(chan reply, 1)
	go func() {
		out, err := c.do(ctx, n)
		done <- reply{out, err}
	}()
	synctest.Wait()
	return done
}

func TestALoneCallIsDoneByItself(t *testing.T) {
	c := newCounter()
	close(c.gate)
	type key struct{}
	alone := c.alone
	c.alone = func(ctx context.Context, n int) (int, error) {
		if ctx.Value(key{}) != "mine" {
			t.Error("it is not done under the caller's ctx")
		}
		return alone(ctx, n)
	}
	for n := range 3 {
		if got, err := c.do(context.WithValue(t.Context(), key{}, "mine"), n); got != 2*n || err != nil {
			t.Error(n, got, err)
		}
	}
	if len(c.shared) > 0 || c.busy {
		t.Errorf("shared %v, busy %v", c.shared, c.busy)
	}
}

func TestCallsThatComeMeanwhileShareInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounter()
		var calls []<-chan reply
		for n := range 6 {
			calls = append(calls, c.call(t.Context(), n))
		}
		close(c.gate)
		for n, call := range calls {
			if r := <-call; r.n != 2*n || r.err != nil {
				t.Errorf("call %d returned %+v", n, r)
			}
		}
		if !slices.Equal(c.single, []int{0}) || len(c.shared) != 1 || !slices.Equal(c.shared[0], []int{1, 2, 3, 4, 5}) {
			t.Errorf("alone %v, together %v", c.single, c.shared)
		}
		synctest.Wait()
		if c.busy || len(c.waiting) > 0 {
			t.Error("it is not ready for a lone call")
		}
	})
}

func TestACrowdIsSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounter()
		var calls []<-chan reply
		for n := range maxTogether + 3 {
			calls = append(calls, c.call(t.Context(), n))
		}
		close(c.gate)
		for _, call := range calls {
			<-call
		}
		if len(c.shared) != 2 || len(c.shared[0]) != maxTogether || len(c.shared[1]) != 2 {
			t.Errorf("%d shared statements", len(c.shared))
		}
	})
}

func TestACtxThatEndsTakesBackACallThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounter()
		first := c.call(t.Context(), 1)
		ctx, cancel := context.WithCancel(t.Context())
		second := c.call(ctx, 2)
		third := c.call(t.Context(), 3)
		cancel()
		if r := <-second; !errors.Is(r.err, context.Canceled) || !strings.Contains(r.err.Error(), "nothing was done") {
			t.Errorf("the second returned %+v", r)
		}
		close(c.gate)
		<-first
		if r := <-third; r.n != 6 || r.err != nil {
			t.Errorf("the third returned %+v", r)
		}
		if !slices.Equal(c.single, []int{1, 3}) || len(c.shared) != 0 {
			t.Errorf("alone %v, together %v", c.single, c.shared)
		}
	})
}

func TestACtxThatEndsDoesNotHideWhatIsBeingDone(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers bool // within lastWord
	}{{"heard", true}, {"not heard", false}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCounter()
				ctx, cancel := context.WithCancel(t.Context())
				first := k.call(t.Context(), 1)
				second := k.call(ctx, 2)
				k.gate <- struct{}{} // ends the first alone
				<-first
				synctest.Wait() // the second is being done
				cancel()
				synctest.Wait()
				if c.answers {
					close(k.gate)
					if r := <-second; r.n != 4 || r.err != nil {
						t.Errorf("returned %+v", r)
					}
					return
				}
				from := time.Now()
				r := <-second
				if !errors.Is(r.err, context.Canceled) || !strings.Contains(r.err.Error(), "has not said") || time.Since(from) != lastWord {
					t.Errorf("returned %+v after %v", r, time.Since(from))
				}
				close(k.gate)
			})
		})
	}
}

func TestARefusedStatementFailsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounter()
		c.fails = errors.New("numeric field overflow")
		var calls []<-chan reply
		for _, n := range []int{1, 2, -3, 4} {
			calls = append(calls, c.call(t.Context(), n))
		}
		close(c.gate)
		for i, want := range []string{"<nil>", "<nil>", "bad number -3", "<nil>"} {
			if r := <-calls[i]; fmt.Sprint(r.err) != want {
				t.Errorf("call %d returned %+v; want %s", i, r, want)
			}
		}
		slices.Sort(c.single)
		if !slices.Equal(c.single, []int{-3, 1, 2, 4}) {
			t.Errorf("alone %v", c.single)
		}
	})
}

func TestAStatementThatMayHaveBeenDoneIsNotRepeated(t *testing.T) {
	for _, lost := range []error{driver.ErrBadConn, errors.New("database is locked")} {
		synctest.Test(t, func(t *testing.T) {
			c := newCounter()
			c.fails = lost
			var calls []<-chan reply
			for n := range 3 {
				calls = append(calls, c.call(t.Context(), n))
			}
			close(c.gate)
			<-calls[0]
			for _, call := range calls[1:] {
				if r := <-call; !errors.Is(r.err, lost) {
					t.Errorf("returned %+v", r)
				}
			}
			if !slices.Equal(c.single, []int{0}) {
				t.Errorf("alone %v; want the first call only", c.single)
			}
		})
	}
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
	list := []saving{{1, m, "a", step{}}, {2, m, "a", step{}}, {1, m, "b", step{}}} // the third is lost
	states, err := s.saveSteps(t.Context(), list)
	if err != nil || !slices.Equal(states, []State{Running, Paused, ""}) {
		t.Errorf("states %q, %v", states, err)
	}
	if _, err := s.saveSteps(t.Context(), append(list, list[0])); !errors.Is(err, errContended) {
		t.Errorf("one step twice: %v", err)
	}
	if got := fmt.Sprint(f.calls); got != "[query step.batch_save]" {
		t.Errorf("sent %s", got)
	}
}
