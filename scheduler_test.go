//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A dawdler is a database that has nothing, and takes a second to say so to a statement.
type dawdler struct {
	idleDatabase
	over string // the statement
}

func (d *dawdler) answer(c call) ([][]driver.Value, error) {
	if c.tag() == d.over {
		pass(time.Second)
	}
	return d.idleDatabase.answer(c)
}

// What is enqueued in this process while the database thinks about a Worker's
// question is claimed as soon as can be, and not by a poll later.
func TestNewsDuringAQuestion(t *testing.T) {
	for _, test := range []struct {
		over   string
		polls  time.Duration
		claims []time.Duration // from when the Worker began
	}{
		{"message.claim", time.Minute, []time.Duration{0, time.Second}},                     // the first may have been too early for it
		{"worker.poll", 300 * time.Millisecond, []time.Duration{0, 500 * time.Millisecond}}, // a poll does not hold it up
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
