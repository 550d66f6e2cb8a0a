//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
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
