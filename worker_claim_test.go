//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A slowly is a database whose statements take a set time and return a set number of rows, by tag.
type slowly struct {
	takes map[string]time.Duration
	gets  map[string]int
	last  int64
	away  bool // no heartbeat arrives meanwhile
	beat  func()
}

func (d *slowly) answer(c call) ([][]driver.Value, error) {
	took := d.takes[c.tag()]
	pass(took / 2)
	if took > 0 && !d.away {
		d.beat()
	}
	pass(took - took/2)
	n := d.gets[c.tag()]
	var rows [][]driver.Value
	switch c.tag() {
	case "worker.heartbeat":
		rows = row(int64(1), "polling", false)
	case "message.passed":
		for i := range int64(n) {
			rows = append(rows, []driver.Value{i + 1, i + 1})
		}
	case "message.claim", "message.next_claim":
		for range min(n, int(c.args[3].Value.(int64))) {
			d.last++
			due := time.Unix(d.last, 0)
			rows = append(rows, []driver.Value{d.last, []byte("{}"), int64(1), int64(1), int64(1), nil, nil, nil, due, due, due})
		}
		slices.Reverse(rows) // without an order
	}
	return rows, nil
}

// claims makes a queue runner claim three messages several times, and rescan where that is due. It
// returns what was sent and how many messages came, or -1 for an error.
func claims(t *testing.T, db *slowly, d Dialect, times int, between time.Duration) (sent []string, got []int) {
	t.Helper()
	f, s := newFake(t, Config{NoPrepare: true}, d, db.answer)
	f.strict = true
	r := newTestLoop(t, &Worker{Concurrency: 3, Lease: time.Minute, PollInterval: time.Hour, Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
	defer r.nextPoll.stop()
	db.beat = func() { r.heartbeat(t.Context()) }
	q := r.queues[0]
	q.setRow(registration{id: 1})
	for range times {
		if q.cursor.rescanDue() {
			a := &rescanAnswer{queue: q, to: q.cursor.rescanEnd()}
			r.rescan(a)
			a.apply(r)
		}
		from, n := q.cursor.next(3)
		a := &claimAnswer{queue: q, asked: n, withSuspects: true, from: from}
		r.claim(a)
		a.apply(r)
		if a.err != nil {
			got = append(got, -1)
		} else {
			got = append(got, len(a.ms))
		}
		pass(between)
	}
	for _, c := range f.log() {
		text := c.tag()
		if text == "worker.heartbeat" {
			continue
		}
		if n := len(c.args); n > 4 && c.tag() != "open" {
			text += fmt.Sprint(" ", c.args[n-3].Value, " ", c.args[n-2].Value, " ", c.args[n-1].Value)
		}
		sent = append(sent, text)
	}
	return sent, got
}

func TestASlowClaimIsGoneOnFrom(t *testing.T) {
	const full, next, look, release = "message.claim", "message.next_claim", "message.passed", "message.strays"
	at := func(tag string, id int) string { return fmt.Sprintf("%s 1 %d %d", tag, id*1000000, id) }
	slow := map[string]time.Duration{full: slowClaim, look: slowClaim}
	for _, c := range []struct {
		name    string
		dialect Dialect
		db      slowly
		between time.Duration
		sent    []string
		got     []int
	}{
		{
			"and looked before it for a tenth of the time", Postgres,
			slowly{takes: slow, gets: map[string]int{full: 3, next: 3}}, rescanShare * slowClaim / 2,
			[]string{full, at(next, 3), at(look, 6), at(next, 6), at(next, 9), at(look, 12), at(next, 12)}, []int{3, 3, 3, 3, 3},
		}, {
			"and looked before it for half of the time when it runs dry", Postgres,
			slowly{takes: slow, gets: map[string]int{full: 3, next: 2}}, slowClaim / 2,
			[]string{full, at(next, 3), at(look, 5), at(next, 5), at(next, 7), at(look, 9), at(next, 9)}, []int{3, 2, 2, 2, 2},
		}, {
			"and what was passed over is claimed first", Postgres,
			slowly{takes: slow, gets: map[string]int{full: 3, next: 3, look: 4}}, rescanShare * slowClaim / 3,
			[]string{full, at(next, 3), at(next, 6), at(look, 9), "message.next_claim 1 1 0", "message.next_claim 1 1 0", at(next, 9)}, []int{3, 3, 3, 3, 1, 3},
		}, {
			"and what was passed over may be gone", Postgres,
			slowly{takes: slow, gets: map[string]int{full: 3, look: 4}}, rescanShare * slowClaim,
			[]string{full, at(look, 3), "message.next_claim 1 1 0", at(look, 3), "message.next_claim 1 1 0"}, []int{3, 0, 0},
		}, {
			"until a look is quick", Postgres,
			slowly{takes: map[string]time.Duration{full: slowClaim, look: slowClaim - 1}, gets: map[string]int{full: 3, next: 3}}, rescanShare * slowClaim,
			[]string{full, at(look, 3), full}, []int{3, 3},
		}, {
			"or from what a look finds if it did not end", Postgres,
			slowly{takes: map[string]time.Duration{full: statementTimeout + 1, look: maintenanceTimeout - 1, release: 3 * statementTimeout}, gets: map[string]int{next: 3, look: 4}}, 0,
			[]string{full, look + " -1 946684810000000 0", release, release, release, next + " -1 1 0", at(next, 3)}, []int{-1, -1, -1, 3, 3},
		}, {
			"or from now if a look finds nothing", Postgres,
			slowly{takes: map[string]time.Duration{full: statementTimeout + 1, look: time.Second}, gets: map[string]int{next: 3}}, 0,
			[]string{full, look + " -1 946684810000000 0", release, next + " -1 946684810000000 0", at(next, 3)}, []int{-1, 3, 3},
		}, {
			"or from the beginning all the same if a look is quick", Postgres,
			slowly{takes: map[string]time.Duration{full: statementTimeout + 1}}, 0,
			[]string{full, look + " -1 946684810000000 0", release, full}, []int{-1, -1},
		}, {
			"or from the beginning all the same if a look fails", Postgres,
			slowly{takes: map[string]time.Duration{full: statementTimeout + 1, look: maintenanceTimeout + 1}}, 0,
			[]string{full, look + " -1 946684810000000 0", release, full}, []int{-1, -1},
		}, {
			"not if the database answered nothing at all", Postgres,
			slowly{takes: map[string]time.Duration{full: statementTimeout + 1}, away: true}, 0,
			[]string{full, release, full}, []int{-1, -1},
		}, {
			"not if it did not end on a database that has no such claim", SQLite,
			slowly{takes: map[string]time.Duration{full: statementTimeout + 1}}, 0,
			[]string{full, release, full}, []int{-1, -1},
		}, {
			"not if it was quick", Postgres,
			slowly{takes: map[string]time.Duration{full: slowClaim - 1}, gets: map[string]int{full: 3}}, 0,
			[]string{full, full}, []int{3, 3},
		}, {
			"not if it got less than it asked for", Postgres,
			slowly{takes: slow, gets: map[string]int{full: 2}}, 0,
			[]string{full, full}, []int{2, 2},
		}, {
			"not on a database that has no such claim", SQLite,
			slowly{takes: slow, gets: map[string]int{full: 3}}, 0,
			[]string{full, full}, []int{3, 3},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent, got := claims(t, &c.db, c.dialect, len(c.got), c.between)
				if !slices.Equal(sent, c.sent) || !slices.Equal(got, c.got) {
					t.Errorf("sent %q, got %v\nwant %q, %v", sent, got, c.sent, c.got)
				}
			})
		})
	}
}

// A message whose lease expired is claimed only into a free slot. A skipped message is remembered
// until there is a slot, also by a claim that began before it was found.
func TestWhatWasPassedOverWaitsForASlot(t *testing.T) {
	w := claimCursor{state: atSkipped, position: position{0, 10, 10}, skippedFrom: position{0, 1, 0}, skippedLeft: 2}
	message := &delivery{m: &MessageInfo{DueAt: time.UnixMicro(11), ID: 11}}
	if w.claimed(&claimAnswer{from: w.position, asked: 1, ms: []*delivery{message}}, true); w.skippedLeft != 2 || w.position != (position{0, 11, 11}) {
		t.Errorf("after a claim from the place it is %v, and %d are left", w.position, w.skippedLeft)
	}
	for _, step := range []struct {
		alone bool
		left  int
	}{{false, 2}, {true, 0}} {
		from, n := w.next(5)
		if from != w.skippedFrom || n != 2 {
			t.Errorf("%d are claimed from %v", n, from)
		}
		if w.claimed(&claimAnswer{from: from, asked: n, withSuspects: step.alone}, true); w.skippedLeft != step.left {
			t.Errorf("alone %v: %d are left, want %d", step.alone, w.skippedLeft, step.left)
		}
	}
}

// A message needs a free slot if a poll has seen it and a claim from the beginning did not get it
// for lack of a slot. After any other claim that finds nothing, the worker may claim ahead. The
// next poll shows whether there is a message.
func TestOnlyAMessageThatAPollHasSeenNeedsASlot(t *testing.T) {
	for _, test := range []struct {
		a           claimAnswer
		needs, soon bool // a free slot, a fast poll
	}{
		{claimAnswer{pollSawDue: true}, true, false},
		{claimAnswer{}, false, true},
		{claimAnswer{pollSawDue: true, withSuspects: true}, false, false},
		{claimAnswer{pollSawDue: true, from: position{0, 10, 10}}, false, false},
	} {
		_, s := newFake(t, Config{}, Postgres, nil)
		r := newTestLoop(t, &Worker{Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
		q := r.queues[0]
		q.cursor.position = test.a.from
		if !test.a.from.isBeginning() {
			q.cursor.state = atPosition
		}
		test.a.queue, test.a.asked = q, 3
		r.claimed(&test.a)
		if q.needsSlot != test.needs || q.mayHaveMessages != test.needs {
			t.Errorf("after %+v it needs a slot: %v, more: %v", test.a, q.needsSlot, q.mayHaveMessages)
		}
		if (r.fastPoll > 0) != test.soon {
			t.Errorf("after %+v the next poll is soon: %v", test.a, r.fastPoll > 0)
		}
	}
}

// While all slots are taken, a worker asks only once for a message that a poll has seen and a claim
// did not get.
func TestAMessageThatNeedsASlotIsNotAskedForAgain(t *testing.T) {
	_, s := newFake(t, Config{NoPrepare: true}, Postgres, func(call) ([][]driver.Value, error) { return nil, nil })
	r := newTestLoop(t, &Worker{Concurrency: 1, PollInterval: time.Hour, Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
	defer r.nextPoll.stop()
	q := r.queues[0]
	q.worker.Store(7)
	q.mayHaveMessages, q.averageTime = false, time.Millisecond // the worker claims ahead
	r.countHandlers(q, 1)
	for range 2 {
		r.polling = true
		(&pollAnswer{due: map[int64]bool{7: true}}).apply(r)
		r.startClaim()
		if !r.claiming {
			t.Fatal("it does not claim what a poll has seen")
		}
		(<-r.answers).apply(r)
		if n, _ := r.claimSize(q); n > 0 || !q.needsSlot {
			t.Errorf("it asks for %d more", n)
		}
		r.countHandlers(q, -1)
		if n, alone := r.claimSize(q); n == 0 || !alone {
			t.Fatalf("it asks for %d when a slot is free, alone: %v", n, alone)
		}
		r.startClaim()
		(<-r.answers).apply(r)
		r.countHandlers(q, 1)
		if q.needsSlot || q.mayHaveMessages {
			t.Errorf("when it is gone a slot is needed: %v, more: %v", q.needsSlot, q.mayHaveMessages)
		}
	}
}

func TestALookThatFailsIsNotAQuickOne(t *testing.T) {
	w := claimCursor{state: atPosition, position: position{0, 10, 10}, rescanTime: time.Hour}
	if w.rescanned(&rescanAnswer{err: driver.ErrBadConn, took: time.Microsecond}) || !w.isSet() || w.rescanDue() {
		t.Errorf("after it: %+v", w)
	}
}

// A position that a rescan has set is kept when an earlier claim returns.
func TestALookThatSeeksMovesThePlace(t *testing.T) {
	w := claimCursor{state: seeking, position: position{2, 10, 10}}
	if to := w.rescanEnd(); to != (position{leastPriority, 10, 10}) {
		t.Errorf("it is looked up to %v, not among the least urgent", to)
	}
	asked, found := &claimAnswer{from: w.position, asked: 1}, position{leastPriority, 3, 3}
	if !w.rescanned(&rescanAnswer{to: w.rescanEnd(), skipped: []position{found}, took: slowClaim}) {
		t.Error("nothing is to be claimed after it")
	}
	asked.ms = []*delivery{{m: &MessageInfo{DueAt: time.UnixMicro(11), ID: 11}}}
	w.claimed(asked, true)
	if want := (claimCursor{state: atPosition, position: position{leastPriority, 3, 2}, rescannedAt: w.rescannedAt, rescanTime: slowClaim}); w != want {
		t.Errorf("it is %+v, want %+v", w, want)
	}
}

// A poll that does not end in time reads the same rows as a claim, but only a claim gets past them.
func TestAPollThatDoesNotEndIsFollowedByAClaim(t *testing.T) {
	for _, c := range []struct {
		dialect Dialect
		db      slowly
		more    bool
	}{
		{Postgres, slowly{takes: map[string]time.Duration{"worker.poll": statementTimeout + 1}}, true},
		{Postgres, slowly{takes: map[string]time.Duration{"worker.poll": statementTimeout + 1}, away: true}, false},
		{SQLite, slowly{takes: map[string]time.Duration{"worker.poll": statementTimeout + 1}}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			f, s := newFake(t, Config{NoPrepare: true}, c.dialect, c.db.answer)
			f.strict = true
			r := newTestLoop(t, &Worker{PollInterval: time.Hour, Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
			defer r.nextPoll.stop()
			c.db.beat = func() { r.heartbeat(t.Context()) }
			q := r.queues[0]
			q.mayHaveMessages = false
			a := &pollAnswer{workers: []int64{1}}
			r.poll(a)
			a.apply(r)
			if q.mayHaveMessages != c.more {
				t.Errorf("away: %v, a claim follows: %v, want %v", c.db.away, q.mayHaveMessages, c.more)
			}
		})
	}
}

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
		pass(maxLimitWait + maxHeartbeat + time.Second) // it has polled a second time, a little while ago
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

// A failed claim reveals nothing about the limits of its queue, so the next claim reads them again.
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
		w := &Worker{Handlers: []Handler{NewQueue[int](s, "q").With(Policy{MaxLeased: 1}).Handle(doNothing)}}
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

// A claim that the database refuses does not affect other queues.
func TestWorkerClaim_RefusedDelaysNoOtherQueue(t *testing.T) {
	_, s := newFake(t, Config{NoPrepare: true}, Postgres, func(c call) ([][]driver.Value, error) {
		if c.tag() == "message.claim" {
			return nil, coded{"54000"}
		}
		return nil, nil
	})
	l := newTestLoop(t, &Worker{Concurrency: 1, PollInterval: time.Hour, Handlers: []Handler{
		NewQueue[int](s, "q").Handle(doNothing), NewQueue[int](s, "other").Handle(doNothing)}})
	defer l.nextPoll.stop()
	q := l.queues[0]
	for range 3 {
		a := &claimAnswer{queue: q, asked: 1}
		l.claim(a)
		a.apply(l)
		if !q.throttle.closed || l.failedQueries != 0 || !l.queues[1].claims() {
			t.Fatalf("the queue is closed: %v, failed queries: %d, the other queue is closed: %v", q.throttle.closed, l.failedQueries, !l.queues[1].claims())
		}
		q.throttleEnded.Store(true)
		q.endThrottle()
	}
	if q.refusals != 3 {
		t.Errorf("%d refusals", q.refusals)
	}
}

// After a claim that was slow because its messages are large, claims ask for few messages at first.
func TestClaimsOfLargeMessagesAreBounded(t *testing.T) {
	_, s := newFake(t, Config{}, Postgres, nil)
	l := newTestLoop(t, &Worker{Concurrency: 10, Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
	q := l.queues[0]
	claimed := func(n, size int) (ds []*delivery) {
		for range n {
			ds = append(ds, &delivery{m: &MessageInfo{stored: size}})
		}
		return ds
	}
	for _, step := range []struct {
		name string
		a    claimAnswer
		want int // messages of the next claim
	}{
		{"a quick claim", claimAnswer{ms: claimed(8, 1<<20), elapsed: time.Second}, 10},
		{"a slow claim of small messages", claimAnswer{ms: claimed(8, 10), elapsed: 5 * time.Second}, 10},
		{"a slow claim", claimAnswer{ms: claimed(8, 1<<20), elapsed: 5 * time.Second}, 4},
		{"a slow claim of one", claimAnswer{ms: claimed(1, 1<<20), elapsed: 5 * time.Second}, 1},
		{"a quick one after it", claimAnswer{ms: claimed(1, 10)}, 2},
		{"another", claimAnswer{}, 4},
		{"a claim that the database does not end in time", claimAnswer{timedOut: true, err: context.DeadlineExceeded}, 1},
		{"a claim that fails at once", claimAnswer{err: driver.ErrBadConn}, 1},
	} {
		q.boundClaims(&step.a)
		if n, _ := l.claimSize(q); n != step.want {
			t.Errorf("after %s %d are claimed, want %d", step.name, n, step.want)
		}
	}
	for range 10 {
		q.boundClaims(&claimAnswer{})
	}
	if q.claimBound != 0 {
		t.Errorf("after quick claims the bound is %d", q.claimBound)
	}
}

// A claim that limits leave no room for returns nothing. However long it takes, it is no position.
func TestALimitedClaimIsNoPosition(t *testing.T) {
	var c claimCursor
	c.claimed(&claimAnswer{elapsed: time.Second}, true)
	if c.isSet() {
		t.Errorf("claims start from %+v", c.position)
	}
}
