//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"
	"testing/synctest"
	"time"
)

// What maintenance reads past dead rows takes a tenth of the time of one connection, however many there are.
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

// On SQLite the transaction of a HandleTx keeps the heartbeat out for as long as it lasts.
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
