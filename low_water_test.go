//go:build go1.25

package pgqrs

import (
	"database/sql/driver"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// slowly is a database whose claims take as long as is said, by tag, and get so many messages, due a second apart.
type slowly struct {
	takes map[string]time.Duration
	gets  map[string]int
	last  int64
}

func (d *slowly) answer(c call) ([][]driver.Value, error) {
	time.Sleep(d.takes[c.tag()])
	var rows [][]driver.Value
	for range min(d.gets[c.tag()], int(c.args[3].Value.(int64))) {
		d.last++
		due := time.Unix(d.last, 0)
		rows = append(rows, []driver.Value{d.last, []byte("{}"), int64(1), int64(1), int64(1), nil, nil, nil, due, due, due})
	}
	slices.Reverse(rows) // they come in no order
	return rows, nil
}

// A claimed is what a claim got.
type claimed struct {
	n, asked int
	rest     bool
}

// claims has the lane of a Worker claim three messages, several times, and
// returns what was sent.
func claims(t *testing.T, f *fake, s *Store, times int, between time.Duration) (sent []string, got []claimed) {
	t.Helper()
	r := &running{store: s}
	l := &lane{lease: time.Minute}
	for range times {
		a := answer{lane: l, asked: 3, alone: true}
		ms, err := r.claimNext(t.Context(), &a)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, claimed{len(ms), a.asked, a.rest})
		time.Sleep(between)
	}
	for _, c := range f.log() {
		text := c.tag()
		if len(c.args) > 4 {
			text += fmt.Sprint(" after ", c.args[4].Value, " ", c.args[5].Value, " ", c.args[6].Value)
		}
		sent = append(sent, text)
	}
	return sent, got
}

func TestASlowClaimIsGoneOnFrom(t *testing.T) {
	const full = "message.claim"
	after := func(id int) string { return fmt.Sprintf("message.next_claim after 1 %d %d", id*1000000, id) }
	for _, c := range []struct {
		name    string
		dialect Dialect
		db      slowly
		between time.Duration
		sent    []string
		got     []claimed
	}{
		{
			"until its share of the time is over", Postgres,
			slowly{takes: map[string]time.Duration{full: slowClaim}, gets: map[string]int{full: 3, "message.next_claim": 3}}, fullShare * slowClaim / 2,
			[]string{full, after(3), full, after(9), full}, []claimed{{3, 3, false}, {3, 3, false}, {3, 3, false}, {3, 3, false}, {3, 3, false}},
		}, {
			"and from the beginning for what is missing, by the next claim", Postgres,
			slowly{takes: map[string]time.Duration{full: slowClaim}, gets: map[string]int{full: 3, "message.next_claim": 2}}, 0,
			[]string{full, after(3), full, after(8), full}, []claimed{{3, 3, false}, {2, 2, false}, {3, 3, true}, {2, 2, false}, {3, 3, true}},
		}, {
			"and from the beginning at once, if there is nothing", Postgres,
			slowly{takes: map[string]time.Duration{full: slowClaim}, gets: map[string]int{full: 3}}, 0,
			[]string{full, after(3), full, after(6), full}, []claimed{{3, 3, false}, {3, 3, false}, {3, 3, false}},
		}, {
			"not if it was quick", Postgres,
			slowly{takes: map[string]time.Duration{full: slowClaim - 1}, gets: map[string]int{full: 3}}, 0,
			[]string{full, full}, []claimed{{3, 3, false}, {3, 3, false}},
		}, {
			"not if it got less than it asked for", Postgres,
			slowly{takes: map[string]time.Duration{full: slowClaim}, gets: map[string]int{full: 2}}, 0,
			[]string{full, full}, []claimed{{2, 3, false}, {2, 3, false}},
		}, {
			"not on a database that has no such claim", SQLite,
			slowly{takes: map[string]time.Duration{full: slowClaim}, gets: map[string]int{full: 3}}, 0,
			[]string{full, full}, []claimed{{3, 3, false}, {3, 3, false}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, s := newFake(t, Config{}, c.dialect, c.db.answer)
				sent, got := claims(t, f, s, len(c.got), c.between)
				if !slices.Equal(sent, c.sent) || !slices.Equal(got, c.got) {
					t.Errorf("sent %v, got %v\nwant %v, %v", sent, got, c.sent, c.got)
				}
			})
		})
	}
}

// A claim that is not for a free slot and finds nothing may have passed over a
// message that wants one. A claim for the rest says no more than the answer
// before it, in which messages came too: the lane is dry, and goes on claiming
// ahead with a busy slot when there is more.
func TestTheRestOfAnAnswerMayBeNothing(t *testing.T) {
	for _, rest := range []bool{false, true} {
		_, s := newFake(t, Config{}, Postgres, nil)
		r := newRunning(t.Context(), &Worker{Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
		defer r.nextPoll.stop()
		l := r.lanes[0]
		r.claimed(answer{lane: l, asked: 3, rest: rest})
		if l.more == rest || l.needsSlot == rest || (r.hint > 0) != rest {
			t.Errorf("rest %v: more %v, needsSlot %v, looks again in %v", rest, l.more, l.needsSlot, r.hint)
		}
	}
}
