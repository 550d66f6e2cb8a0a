// Package cronpgqrs makes rules for schedules of [github.com/pgqrs/pgqrs-go]
// from cron texts, by the parser of github.com/robfig/cron/v3:
//
//	berlin, err := time.LoadLocation("Europe/Berlin")
//	worker := &pgqrs.Worker{Schedules: []pgqrs.Schedule{{
//		Name: "nightly", Rule: cronpgqrs.MustParse("30 2 * * *"), Zone: berlin, Target: reports.Target(Report{}),
//	}}}
//
// A text has five fields (minute, hour, day of the month, month, day of the
// week: 0 to 6 or SUN to SAT), or six with seconds before them. Where both days
// are given, either will do. @yearly, @monthly, @weekly, @daily and @hourly stand for the
// usual texts, and @every 1h30m for [pgqrs.Every]. A text may begin with its
// time zone, as in "TZ=Asia/Tokyo 0 6 * * *", which then counts, and not the Schedule's.
//
// When clocks are changed, a text that names its hours keeps to them: what
// falls into the hour that is left out runs at its end, and what falls into
// the hour that comes twice runs the first time only. A text with * or */n for its
// hours goes on with the time that passes, in both of the hours too.
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

// MustParse is Parse, but panics if the text is wrong.
func MustParse(text string) pgqrs.Rule {
	rule, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return rule
}

// Parse returns the rule of a cron text. Its String method returns the text.
// A text that no day can meet, such as one for the 30th of February, is an error.
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

// cutZone takes the time zone from a text's beginning; nil if it has none.
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

// flowing reports whether a text leaves the hours open.
func flowing(fields string, spec *cron.SpecSchedule) bool {
	const allHours = 1<<24 - 1
	list := strings.Fields(fields)
	switch {
	case spec.Hour&allHours == allHours:
		return true
	case len(list) < 5: // one that begins with @
		return false
	}
	return strings.ContainsAny(list[len(list)-4], "*?")
}

// A rule is a cron text.
type rule struct {
	text    string
	zone    *time.Location    // of the text; nil if it names none
	flowing bool              // it goes on with the time that passes
	passing cron.SpecSchedule // by the zone of the time that is asked about
	wall    cron.SpecSchedule // by what a clock on the wall shows, as if it were UTC
}

func (r *rule) String() string { return r.text }

// Next returns the first instant after t, which counts in t's time zone unless the text names one.
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
			return next // and not the first of two passes, of which t is in the second
		}
	}
}

// onTheWall is what a clock on the wall shows at t, as if it were UTC.
func onTheWall(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// instant is when a clock on the wall shows that for the first time, or, if it
// leaves it out, when it is put forward.
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
