//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Of another version's schedule, which has no next instant, there is nothing to see: it is looked at once a minute.
func TestStandingAsideOnAnEndedScheduleIsNoReasonToHurryOrToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := new(idleDatabase)
		f, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) {
			if c.tag() == "schedule.find" {
				pass(10 * time.Millisecond)
				return row("s", time.Now(), int64(1), "another", "UTC", int64(1), nil, nil, nil), nil
			}
			return idle.answer(c)
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		w := &Worker{Schedules: []Schedule{{Name: "s", Rule: Every(time.Hour), Target: NewQueue[int](s, "q").Target(1)}}}
		go func() { done <- w.Run(ctx) }()
		pass(time.Minute / 2)
		f.log()
		pass(10 * time.Minute)
		looks := 0
		for _, c := range f.log() {
			if c.tag() == "schedule.find" {
				looks++
			}
		}
		if looks < 9 || looks > 11 {
			t.Errorf("it has looked %d times in ten minutes", looks)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.DB().Close(); err != nil {
			t.Error(err)
		}
	})
}

// A clockwork answers workers as a database with schedules does. An enqueue to a queue that is stuck waits until its ctx ends.
type clockwork struct {
	idleDatabase
	mu            sync.Mutex
	next          map[string]time.Time
	stuck         map[string]bool
	ran           map[string]int
	waiting, most int // enqueues that wait, now and at most
}

func (d *clockwork) answer(c call) ([][]driver.Value, error) {
	switch c.tag() {
	case "schedule.find":
		var rows [][]driver.Value
		var names [][]string
		if err := json.Unmarshal([]byte(c.args[0].Value.(string)), &names); err != nil {
			return nil, err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, name := range names {
			n, err := strconv.ParseInt(name[0][1:], 10, 64)
			if err != nil {
				return nil, err
			}
			rows = append(rows, []driver.Value{name[0], time.Now(), n, "every 1s", "UTC", int64(1), d.next[name[0]], nil, nil})
		}
		return rows, nil
	case "schedule.advance":
		d.mu.Lock()
		defer d.mu.Unlock()
		d.next[fmt.Sprint("s", c.args[0].Value)] = time.UnixMicro(c.args[2].Value.(int64))
		return row(int64(1)), nil
	case "message.enqueue":
		queue := c.args[0].Value.(string)
		d.mu.Lock()
		stuck := d.stuck[queue]
		d.mu.Unlock()
		if stuck {
			d.wait(1)
			<-c.ctx.Done()
			d.wait(-1)
			return nil, c.ctx.Err()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ran[queue]++
		return row(int64(1)), nil
	case "schedule.record":
		return row(time.Now()), nil
	}
	return d.idleDatabase.answer(c)
}

func (d *clockwork) wait(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting += n
	d.most = max(d.most, d.waiting)
}

// tried returns how many enqueues have waited at a time since it was last called.
func (d *clockwork) tried() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.most
	d.most = d.waiting
	return n
}

// runs returns how often the schedule of a queue has run since it was last called.
func (d *clockwork) runs(queue string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.ran[queue]
	d.ran[queue] = 0
	return n
}

// runClockwork runs a worker of so many schedules of each second, s1 on the queue s1 and so on, of which some are stuck.
func runClockwork(t *testing.T, schedules, stuck int, check func(t *testing.T, d *clockwork)) {
	synctest.Test(t, func(t *testing.T) {
		d := &clockwork{next: map[string]time.Time{}, stuck: map[string]bool{}, ran: map[string]int{}}
		_, s := newFake(t, Config{NoPrepare: true}, Postgres, d.answer)
		s.DB().SetMaxIdleConns(-1) // a sql.Result locks its connection, which may wait for the bubble's clock by then
		w := &Worker{}
		for n := range schedules {
			name := fmt.Sprint("s", n+1)
			d.next[name] = time.Now()
			d.stuck[name] = n < stuck
			w.Schedules = append(w.Schedules, Schedule{Name: name, Rule: Every(time.Second), Target: NewQueue[int](s, name).Target(1)})
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		check(t, d)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.DB().Close(); err != nil {
			t.Error(err)
		}
	})
}

// Schedules that a stranger's lock holds up do not delay the others of their worker, and are tried again a few at a time.
func TestASchedulesWaitIsNotThatOfOthers(t *testing.T) {
	for _, stuck := range []int{1, maxRunningSchedules + 4} {
		runClockwork(t, stuck+3, stuck, func(t *testing.T, d *clockwork) {
			pass(statementTimeout + time.Duration(stuck)*slowSchedule + time.Second) // until it has come out which take long
			others := []string{fmt.Sprint("s", stuck+1), fmt.Sprint("s", stuck+3)}
			for _, name := range others {
				d.runs(name)
			}
			d.tried()
			pass(time.Minute)
			for _, name := range others {
				if n := d.runs(name); n < 58 || n > 61 {
					t.Errorf("beside %d schedules that are stuck, %s ran %d times in a minute", stuck, name, n)
				}
			}
			if n := d.tried(); n == 0 || n > maxRunningSchedules {
				t.Errorf("%d of %d schedules that are stuck were tried at a time", n, stuck)
			}
		})
	}
}

// A statement of a schedule that nobody answers is given up, and the schedule tried again.
func TestAScheduleThatIsStuckIsTriedAgain(t *testing.T) {
	runClockwork(t, 1, 1, func(t *testing.T, d *clockwork) {
		pass(time.Second)
		d.mu.Lock()
		d.stuck["s1"] = false
		d.mu.Unlock()
		pass(statementTimeout + 2*failedCheckWait)
		d.runs("s1")
		pass(10 * time.Second)
		if n := d.runs("s1"); n < 9 {
			t.Errorf("it ran %d times in ten seconds", n)
		}
	})
}

// What has passed is cut short without a look at each instant, however long ago the first one was.
func TestInstantsThatArePast(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	const fine = 1500500 * time.Microsecond
	for _, c := range []struct {
		name    string
		every   time.Duration
		catchUp int
		first   time.Time
		want    int
	}{
		{"the latest one", time.Hour, 0, now.AddDate(-1, 0, 0), 1},
		{"as many as are to be made up for", time.Hour, 3, now.AddDate(-1, 0, 0), 3},
		{"fewer than that", time.Hour, 1000, now.Add(-5 * time.Hour), 6},
		{"of years in three centuries, more than a Duration holds", 365 * 24 * time.Hour, 1000, Every(365 * 24 * time.Hour).Next(now.AddDate(-3, 0, 0)), 3},
		{"those that are no whole milliseconds", fine, 3, Every(2 * fine).Next(now.AddDate(-1, 0, 0)), 3},
		{"and one more", fine, 4, Every(2 * fine).Next(now.AddDate(-1, 0, 0)), 4},
		{"one that is missed is none", 24 * time.Hour, -1, now.AddDate(-1, 0, 0).Truncate(24 * time.Hour), 0},
	} {
		s := Schedule{Rule: Every(c.every), CatchUp: c.catchUp}
		due, next, err := s.due(t.Context(), c.first, now)
		if err != nil || len(due) != c.want {
			t.Errorf("%s: %d instants and the error %v; want %d", c.name, len(due), err, c.want)
		}
		for i, at := range append(due, next) {
			if at.Truncate(time.Millisecond) != at || i == len(due) && !at.After(now) || i < len(due) && at.After(now) {
				t.Errorf("%s: the instant %d is %v", c.name, i, at)
			}
		}
	}
}
