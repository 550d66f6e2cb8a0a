//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestAWorkerThatWaitsForARateGoesOnOnceTheLimitIsLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lifted atomic.Bool
		idle := new(idleDatabase)
		f, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) {
			switch c.tag() {
			case "worker.register":
				return row(int64(1), true), nil
			case "worker.heartbeat":
				return row(int64(1), "polling", !lifted.Load()), nil
			case "limit.lock":
				return row(int64(1)), nil
			case "limit.room":
				return row(int64(0), time.Hour.Microseconds(), true), nil
			}
			return idle.answer(c)
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		w := &Worker{Handlers: []Handler{NewQueue[int](s, "q").With(Policy{Rate: Rate{1, time.Hour}}).Handle(doNothing)}}
		go func() { done <- w.Run(ctx) }()
		pass(maxLimitWait + maxHeartbeat + time.Second) // it has looked a second time, a little while ago
		f.log()
		lifted.Store(true)
		pass(2 * maxHeartbeat)
		claimed := false
		for _, c := range f.log() {
			claimed = claimed || c.tag() == "message.claim"
		}
		if !claimed {
			t.Error("it has claimed nothing since")
		}
		cancel()
		if err := errors.Join(<-done, s.DB().Close()); err != nil {
			t.Error(err)
		}
	})
}

// A claim that failed says nothing about the limits of its queue, so the next claim asks for them again.
func TestWorkerClaim_StaysLimitedAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := new(idleDatabase)
		f, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) {
			switch c.tag() {
			case "worker.register":
				return row(int64(1), true), nil
			case "worker.heartbeat":
				return row(int64(1), "polling", true), nil
			case "limit.lock":
				return nil, coded{"57P01"}
			}
			return idle.answer(c)
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		w := &Worker{Handlers: []Handler{NewQueue[int](s, "q").With(Policy{MaxHeld: 1}).Handle(doNothing)}}
		go func() { done <- w.Run(ctx) }()
		pass(time.Minute)
		asked := 0
		for _, c := range f.log() {
			switch c.tag() {
			case "limit.lock":
				asked++
			case "message.claim":
				t.Error("a claim goes past the limits")
			}
		}
		if asked < 3 {
			t.Errorf("the limits were asked for %d times; want 3 or more", asked)
		}
		cancel()
		if err := errors.Join(<-done, s.DB().Close()); err != nil {
			t.Error(err)
		}
	})
}
