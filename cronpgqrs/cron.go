// Package cronpgqrs parses cron expressions into rules for schedules of
// [github.com/pgqrs/pgqrs-go]. It uses the parser of github.com/robfig/cron/v3:
//
//	berlin, err := time.LoadLocation("Europe/Berlin")
//	worker := &pgqrs.Worker{Schedules: []pgqrs.Schedule{{
//		Name:   "nightly",
//		Rule:   cronpgqrs.MustParse("30 2 * * *"),
//		Zone:   berlin,
//		Target: reports.Target(Report{}),
//	}}}
//
// An expression has five fields: minute, hour, day of the month, month, and day of the week (0 to 6
// or SUN to SAT). An optional field before them gives the seconds. If both days are restricted, the
// rule applies on a day that matches either of them.
//
// @yearly, @monthly, @weekly, @daily and @hourly stand for the usual expressions, and "@every
// 1h30m" for [pgqrs.Every]. An expression may begin with a time zone, as in "TZ=Asia/Tokyo 0 6 * *
// *". This zone then replaces the Schedule's zone.
//
// # Daylight saving time
//
// An expression that names its hours keeps to the clock. An instant in the skipped hour runs at the
// end of that hour. An instant in the repeated hour runs the first time only.
//
// An expression with * or */n for the hours follows the elapsed time. It runs in both passes of the
// repeated hour.
package cronpgqrs

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/pgqrs/pgqrs-go"
)

var parser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// MustParse is like Parse, but panics if the expression is invalid.
func MustParse(text string) pgqrs.Rule {
	rule, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return rule
}

// Parse returns the rule of a cron expression. The rule's String method returns the expression. An
// expression that matches no day, such as one for the 30th of February, is an error.
func Parse(text string) (pgqrs.Rule, error) {
	rule, err := parse(strings.Join(strings.Fields(text), " "))
	if err != nil {
		return nil, fmt.Errorf("cronpgqrs: %q: %w", text, err)
	}
	return rule, nil
}

func parse(text string) (pgqrs.Rule, error) {
	zone, fields, err := cutZone(text)
	if err != nil {
		return nil, err
	}
	if interval, ok := strings.CutPrefix(fields, "@every "); ok {
		return parseEvery(zone, interval)
	}
	parsed, err := parser.Parse(fields)
	if err != nil {
		return nil, err
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("is a %T, for which there is no rule", parsed)
	}
	r := &rule{text: text, zone: zone, flowing: flowing(fields, spec), passing: *spec, wall: *spec}
	r.wall.Location = time.UTC
	if r.wall.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, errors.New("no day meets it")
	}
	return r, nil
}

// cutZone cuts the time zone from the beginning of an expression. The zone is nil if there is none.
func cutZone(text string) (*time.Location, string, error) {
	first, rest, _ := strings.Cut(text, " ")
	kind, name, ok := strings.Cut(first, "=")
	if !ok || kind != "TZ" && kind != "CRON_TZ" {
		return nil, text, nil
	}
	if strings.Contains(rest, "=") {
		return nil, "", errors.New("two time zones")
	}
	if name == "" || name == "Local" {
		return nil, "", fmt.Errorf("time zone %q; name one", name)
	}
	zone, err := time.LoadLocation(name)
	return zone, rest, err
}

func parseEvery(zone *time.Location, interval string) (pgqrs.Rule, error) {
	d, err := time.ParseDuration(interval)
	switch {
	case err != nil:
		return nil, err
	case zone != nil:
		return nil, errors.New("@every has no time zone")
	case d < time.Second:
		return nil, fmt.Errorf("%v is less than a second", d)
	}
	return pgqrs.Every(d), nil
}

// flowing reports whether an expression leaves the hours open.
func flowing(fields string, spec *cron.SpecSchedule) bool {
	const allHours = 1<<24 - 1
	list := strings.Fields(fields)
	switch {
	case spec.Hour&allHours == allHours:
		return true
	case len(list) < 5: // an expression that begins with @
		return false
	}
	return strings.ContainsAny(list[len(list)-4], "*?")
}

// A rule is a parsed cron expression.
type rule struct {
	text    string
	zone    *time.Location    // of the expression, nil if it names none
	flowing bool              // the rule follows elapsed time
	passing cron.SpecSchedule // in the zone of the time given to Next
	wall    cron.SpecSchedule // in wall-clock time, as if it were UTC
}

func (r *rule) String() string { return r.text }

// Next returns the first instant after t. It counts in t's time zone unless the expression names
// one.
func (r *rule) Next(t time.Time) time.Time {
	if r.zone != nil {
		t = t.In(r.zone)
	}
	if r.flowing {
		return r.passing.Next(t)
	}
	wall := onTheWall(t)
	for {
		if wall = r.wall.Next(wall); wall.IsZero() {
			return wall
		}
		if next := instant(wall, t.Location()); next.After(t) {
			return next // not the first pass of a repeated hour if t is in the second
		}
	}
}

// onTheWall returns the wall-clock time at t, as if it were UTC.
func onTheWall(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// instant returns when the clocks of a zone first show the given wall-clock time. If they skip it,
// instant returns when they are put forward.
func instant(wall time.Time, zone *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, zone)
	begin, end := t.ZoneBounds()
	switch shown := onTheWall(t); {
	case shown.After(wall): // t is past the gap
		return begin
	case shown.Before(wall):
		return end
	}
	if begin.IsZero() {
		return t
	}
	_, now := t.Zone()
	_, before := begin.Add(-time.Nanosecond).Zone()
	if first := t.Add(time.Duration(now-before) * time.Second); first.Before(begin) && onTheWall(first).Equal(wall) {
		return first
	}
	return t
}
