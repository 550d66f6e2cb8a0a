//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Maintenance that reads past dead rows takes a tenth of one connection's time, however many there
// are.
func TestUpkeepReadsForATenthOfTheTime(t *testing.T) {
	for _, takes := range []time.Duration{0, 20 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f, s := newFake(t, Config{NoPrepare: true}, Postgres, func(c call) ([][]driver.Value, error) {
				if c.tag() == "message.disown" {
					pass(takes)
				}
				return nil, nil
			})
			r := newTestLoop(t, &Worker{Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
			defer r.nextPoll.stop()
			start, times := time.Now(), 0
			for time.Since(start) < time.Hour {
				r.expireWorkersAndLeases(t.Context())
				times++
				pass(maintenanceInterval)
			}
			disowned := 0
			for _, c := range f.log() {
				if c.tag() == "message.disown" {
					disowned++
				}
			}
			if takes == 0 && disowned < times || takes > 0 && (disowned < 15 || disowned > 18) {
				t.Errorf("at %v each: %d times within an hour, of %d", takes, disowned, times)
			}
		})
	}
}

// On SQLite the transaction of a HandleTx blocks the heartbeat while it lasts.
func TestRenew_LeavesAHandlerInItsTransaction(t *testing.T) {
	_, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.tag() == "message.renew" {
			return nil, coded{"57P01"}
		}
		return nil, nil
	})
	r := newTestLoop(t, &Worker{Lease: time.Second, Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
	d := r.trackClaimed(r.queues[0], []*MessageInfo{{ID: 7, WorkerID: 3, Claim: 1}}, time.Now().Add(-time.Minute))[0]
	d.m.delivery.inTransaction.Store(true)
	r.renew(t.Context())
	if d.lost {
		t.Error("the lease is taken for lost within the handler's transaction")
	}
	d.m.delivery.inTransaction.Store(false)
	r.renew(t.Context())
	if !d.lost {
		t.Error("the lease that has ended is not taken for lost")
	}
}

func TestHandleTx_KeepsTheHeartbeatInformed(t *testing.T) {
	_, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) { return row(int64(7)), nil })
	m := &MessageInfo{ID: 7, WorkerID: 3, Claim: 1, Raw: []byte("1"), delivery: new(deliveryState)}
	h := NewQueue[int](s, "q").HandleTx(func(context.Context, *sql.Tx, *Message[int]) error {
		if !m.delivery.inTransaction.Load() {
			t.Error("the heartbeat does not know of the transaction")
		}
		return nil
	})
	if err := h.work(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if m.delivery.inTransaction.Load() {
		t.Error("the heartbeat knows of a transaction that has ended")
	}
}

// A run is not ended if its message has come back since the search for stranded runs.
func TestRunWhoseMessageHasComeBackIsNotEnded(t *testing.T) {
	for name, test := range map[string]struct {
		ended       string
		there, inIt bool // the message exists, in the state that was seen
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

// The search for stranded runs continues after a full page, and starts again after the last page.
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

// A run ends if its message cannot be made ready again because its key is taken.
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

// Runs that cannot be deleted, because a batch waits for them, are found again and again.
func TestPruningOfRunsEndsWhereNothingCanBeDeleted(t *testing.T) {
	looks := 0
	_, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.tag() != "run.expired" {
			return nil, nil
		}
		if looks++; looks > 5 {
			t.Error("it does not end")
			return nil, nil
		}
		page := make([][]driver.Value, maintenanceChunk)
		for i := range page {
			page[i] = []driver.Value{int64(i + 1)}
		}
		return page, nil
	})
	w := NewWorkflow[int, int](s, "w")
	r := newTestLoop(t, &Worker{Lease: time.Minute, Handlers: []Handler{w.Handle(func(context.Context, *Run, int) (int, error) { return 0, nil })}})
	r.pruneRuns(t.Context(), "[]")
	if looks != 1 {
		t.Errorf("%d looks", looks)
	}
}
