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
	for range prepareAfter + 2 {
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

// A run is not ended whose message has come back since the look for stranded runs.
func TestRunWhoseMessageHasComeBackIsNotEnded(t *testing.T) {
	for name, test := range map[string]struct {
		ended       string
		there, inIt bool // the message, and in the state that was seen
		committed   bool
	}{
		"dead still":    {"dead", true, true, true},
		"redriven":      {"dead", true, false, false},
		"deleted since": {"dead", false, false, true},
		"gone":          {"gone", false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) {
				switch c.tag() {
				case "run.finish":
					return row("ERROR", nil), nil
				case "message.lock":
					if state := c.args[1].Value; state == "" && test.there || state != "" && test.inIt {
						return row(int64(7)), nil
					}
				}
				return nil, nil
			})
			if err := s.endStranded(t.Context(), strandedRun{id: 5, message: 7, messageState: test.ended}, errBroken); err != nil {
				t.Fatal(err)
			}
			calls := f.log()
			if committed := count(calls, "commit") == 1; committed != test.committed || count(calls, "rollback") == 1 == test.committed {
				t.Errorf("it sent %v", calls)
			}
		})
	}
}

func TestNoteTimerCountsWhatItDoesNotSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n limitedLog
		said := func(want int) {
			t.Helper()
			if got := n.count(time.Minute); got != want {
				t.Errorf("it says %d, want %d", got, want)
			}
		}
		said(1)
		said(0)
		time.Sleep(time.Minute - 1)
		said(0)
		time.Sleep(time.Nanosecond)
		said(3)
		said(0)
	})
}

// A restored backup gives a new message the numbers of one that is being handled still, and its lease those of the old one's.
func TestOutcomeOfASupersededDeliveryIsNotWritten(t *testing.T) {
	f, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) { return row(int64(7)), nil })
	r := newTestLoop(t, &Worker{Concurrency: 2, Lease: time.Minute, Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
	q := r.queues[0]
	lease := func() *MessageInfo { return &MessageInfo{ID: 7, WorkerID: 3, Claim: 1} }
	before := r.trackClaimed(q, []*MessageInfo{lease()}, time.Now())[0]
	after := r.trackClaimed(q, []*MessageInfo{lease()}, time.Now())[0]
	r.enqueueCompletion(before, outcome{kind: acked})
	if err := r.completer.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantLog(t)
	r.enqueueCompletion(after, outcome{kind: acked})
	if err := r.completer.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantLog(t, "query message.ack")
}

// What was learnt of a row says nothing of the one that has taken its place.
func TestConsumerForgetsAndKnowsTheRowItWasToldOf(t *testing.T) {
	old, now := registration{1, 1}, registration{2, 1}
	c := &consumer{row: now}
	c.noteLimited(old, true)
	c.forgetRow(old)
	if c.row != now || c.limited || !c.asOf.IsZero() {
		t.Errorf("the consumer is %+v after news of another row", c)
	}
	c.noteLimited(now, true)
	if !c.limited || c.asOf.IsZero() {
		t.Errorf("the consumer is %+v after news of its row", c)
	}
	c.forgetRow(now)
	if c.row != (registration{}) {
		t.Errorf("it has the row %v still", c.row)
	}
}

// The look for stranded runs goes on where a full page ended, and begins anew after the last.
func TestStrandedRunsAreLookedForAPageAtATime(t *testing.T) {
	var after []int64
	left := 2*maintenanceChunk + 1
	_, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.tag() != "run.stranded" || c.args[1].Value != "QUEUED" {
			return nil, nil
		}
		from := c.args[2].Value.(int64)
		after = append(after, from)
		var rows [][]driver.Value
		for id := from + 1; id <= int64(left) && len(rows) < maintenanceChunk; id++ {
			rows = append(rows, []driver.Value{id, id, "", nil})
		}
		return rows, nil
	})
	r := newTestLoop(t, &Worker{Concurrency: 1, Lease: time.Minute, Handlers: []Handler{
		NewWorkflow[int, int](s, "w").Handle(func(context.Context, *Run, int) (int, error) { return 0, nil }), NewQueue[int](s, "q").Handle(doNothing)}})
	for range 4 {
		r.rescueRuns(t.Context())
	}
	if want := []int64{0, maintenanceChunk, 2 * maintenanceChunk, 0}; !slices.Equal(after, want) {
		t.Errorf("pages began after %v, want %v", after, want)
	}
}

// A run whose message cannot be made ready again, because its key is taken, ends.
func TestStrandedRunWhoseKeyIsTakenEnds(t *testing.T) {
	now := time.Now().UTC().Format("2006-01-02 15:04:05.000")
	f, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) {
		switch c.tag() {
		case "message.get":
			return row(int64(7), []byte("{}"), int64(0), int64(1), int64(1), "k", nil, nil, now, nil, now, "w", nil, now, nil, "archived", ""), nil
		case "message.lock":
			return row(int64(7)), nil
		case "run.finish":
			return row("ERROR", nil), nil
		}
		return nil, nil
	})
	goesOn, err := s.rescue(t.Context(), "w", strandedRun{id: 5, message: 7, messageState: "archived"})
	if goesOn || err != nil {
		t.Errorf("goes on: %v, error %v", goesOn, err)
	}
	if calls := f.log(); !slices.ContainsFunc(calls, func(c call) bool { return c.tag() == "run.finish" }) || count(calls, "commit") != 1 {
		t.Errorf("it sent %v", calls)
	}
}
