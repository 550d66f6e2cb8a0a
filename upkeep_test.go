//go:build go1.25

package pgqrs

import (
	"database/sql/driver"
	"testing"
	"testing/synctest"
	"time"
)

// What the upkeep reads past dead rows takes a tenth of the time of one connection, however many there are.
func TestUpkeepReadsForATenthOfTheTime(t *testing.T) {
	for _, takes := range []time.Duration{0, 20 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f, s := newFake(t, Config{NoPrepare: true}, Postgres, func(c call) ([][]driver.Value, error) {
				if c.tag() == "message.disown" {
					pass(takes)
				}
				return nil, nil
			})
			r := testRunning(t, &Worker{Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
			defer r.nextPoll.stop()
			start, times := time.Now(), 0
			for time.Since(start) < time.Hour {
				r.tidy(t.Context())
				times++
				pass(upkeepInterval)
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
