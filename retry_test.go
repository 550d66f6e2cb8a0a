//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

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
