//go:build go1.25

package coalesce

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errBusy = errors.New("database is locked")

// A counter is the work of a Group under test: it doubles numbers.
type counter struct {
	Group[int, int]
	gate chan struct{} // if closed, nothing waits

	mu     sync.Mutex
	single []int
	shared [][]int
	fails  error // of shared calls
}

func newCounter() *counter {
	c := &counter{gate: make(chan struct{})}
	c.Refused = func(err error) bool { return !errors.Is(err, driver.ErrBadConn) && !errors.Is(err, errBusy) }
	c.Timeout = 10 * time.Second
	c.Admit = func(context.Context) error { return nil }
	c.Alone = func(_ context.Context, n int) (int, error) {
		c.mu.Lock()
		c.single = append(c.single, n)
		c.mu.Unlock()
		<-c.gate
		if n < 0 {
			return 0, fmt.Errorf("bad number %d", n)
		}
		return 2 * n, nil
	}
	c.Together = func(_ context.Context, list []int) ([]int, error) {
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

// A reply is the result of a call of Do.
type reply struct {
	n   int
	err error
}

// call executes n in a goroutine and returns once that waits for something.
func (c *counter) call(ctx context.Context, n int) <-chan reply {
	done := make(chan reply, 1)
	go func() {
		out, err := c.Do(ctx, n)
		done <- reply{out, err}
	}()
	synctest.Wait()
	return done
}

func TestALoneCallIsDoneByItself(t *testing.T) {
	c := newCounter()
	close(c.gate)
	type key struct{}
	alone := c.Alone
	c.Alone = func(ctx context.Context, n int) (int, error) {
		if ctx.Value(key{}) != "mine" {
			t.Error("it is not done under the caller's ctx")
		}
		return alone(ctx, n)
	}
	for n := range 3 {
		if got, err := c.Do(context.WithValue(t.Context(), key{}, "mine"), n); got != 2*n || err != nil {
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
		for n := range MaxTogether + 3 {
			calls = append(calls, c.call(t.Context(), n))
		}
		close(c.gate)
		for _, call := range calls {
			<-call
		}
		if len(c.shared) != 2 || len(c.shared[0]) != MaxTogether || len(c.shared[1]) != 2 {
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
		answers bool // within LastWord
	}{{"heard", true}, {"not heard", false}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCounter()
				ctx, cancel := context.WithCancel(t.Context())
				first := k.call(t.Context(), 1)
				second := k.call(ctx, 2)
				k.gate <- struct{}{} // ends the first call, which is alone
				<-first
				synctest.Wait() // the second call is in progress
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
				if !errors.Is(r.err, context.Canceled) || !strings.Contains(r.err.Error(), "has not said") || time.Since(from) != LastWord {
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
	for _, lost := range []error{driver.ErrBadConn, errBusy} {
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
