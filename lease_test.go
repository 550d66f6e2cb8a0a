//go:build go1.25

package pgqrs

import (
	"database/sql/driver"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pgqrs/pgqrs-go/internal/coalesce"
)

// An Ack that is long, or may wait for a foreign transaction, does not share a statement with other
// callers.
func TestAckThatMayWaitHoldsUpNoOther(t *testing.T) {
	many := make([]*Message[int], coalesce.MaxTogether+1)
	for i := range many {
		many[i] = &Message[int]{MessageInfo: MessageInfo{ID: int64(100 + i), WorkerID: 3, Claim: 9}}
	}
	grouped, batched := &Message[int]{MessageInfo: MessageInfo{ID: 7, WorkerID: 3, Claim: 9, Group: "g"}}, &Message[int]{MessageInfo: MessageInfo{ID: 7, WorkerID: 3, Claim: 9, BatchID: 5}}
	for name, test := range map[string]struct {
		slow  []*Message[int]
		waits func(c call) bool
	}{
		"of a group": {[]*Message[int]{grouped}, func(c call) bool { return c.tag() == "group.try_lock" }},
		"of a batch": {[]*Message[int]{batched}, func(c call) bool { return c.tag() == "batch.try_lock" }},
		"of many": {many, func(c call) bool {
			return c.tag() == "message.ack" && strings.HasPrefix(c.args[0].Value.(string), "[[100,")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				_, s := newFake(t, Config{NoPrepare: true}, Postgres, func(c call) ([][]driver.Value, error) {
					if test.waits(c) {
						<-gate
						return nil, nil
					}
					if c.tag() == "message.ack" && !strings.HasPrefix(c.args[0].Value.(string), "[[7,") {
						return row(int64(8)), nil
					}
					return row(int64(7)), nil
				})
				q := NewQueue[int](s, "q")
				slow, quick := make(chan error, 1), make(chan error, 1)
				go func() { slow <- q.Ack(t.Context(), test.slow...) }()
				synctest.Wait()
				go func() {
					quick <- q.Ack(t.Context(), &Message[int]{MessageInfo: MessageInfo{ID: 8, WorkerID: 3, Claim: 9}})
				}()
				synctest.Wait()
				select {
				case err := <-quick:
					if err != nil {
						t.Error(err)
					}
				default:
					t.Error("another caller's ack waits for it")
				}
				close(gate)
				if err := <-slow; err != nil && !errors.Is(err, ErrLeaseLost) {
					t.Error(err)
				}
				if err := s.DB().Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Knowledge about a row does not apply to the row that has taken its place.
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
