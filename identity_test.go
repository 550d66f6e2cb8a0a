package pgqrs

import (
	"database/sql/driver"
	"slices"
	"testing"
	"time"
)

// A Store whose tables are gone begins again as if it had just been made.
func TestUninstallMakesTheStoreForget(t *testing.T) {
	f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.tag() == "worker.register" || c.tag() == "message.enqueue" {
			return row(int64(1)), nil
		}
		if c.tag() == "worker.heartbeat" {
			return row(int64(1), "ready"), nil
		}
		return nil, nil
	})
	q := NewQueue[int](s, "q")
	dequeue := func() {
		t.Helper()
		if _, err := q.Dequeue(t.Context(), 1, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	enqueue := func() {
		t.Helper()
		if _, err := q.Enqueue(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	dequeue()
	for range hotAfter + 2 {
		enqueue()
	}
	f.log()
	enqueue()
	dequeue()
	f.wantLog(t, "run message.enqueue", "query message.claim", "query worker.heartbeat")
	s.collisions.Store("q", time.Now())
	if err := s.Uninstall(t.Context()); err != nil {
		t.Fatal(err)
	}
	if calls := f.log(); !slices.ContainsFunc(calls, func(c call) bool { return c.String() == "close message.enqueue" }) {
		t.Errorf("the prepared statement was not closed: %v", calls)
	}
	if _, found := s.collisions.Load("q"); found {
		t.Error("a collision is remembered")
	}
	enqueue()
	dequeue()
	f.wantLog(t, "query message.enqueue", "query worker.register", "query message.claim", "query worker.heartbeat")
}
