package pgqrs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Rule says at which instants a [Schedule] runs. Next returns the first one
// after t, or the zero time if there is none. t is in the Schedule's Zone.
// Next is called again for what it was asked before, and by other processes,
// and must answer the same. After a long outage it is also called for times between instants. Schedules of github.com/robfig/cron/v3 are Rules;
// package cronpgqrs makes Rules of cron texts.
type Rule interface {
	Next(t time.Time) time.Time
}

// Every is the Rule of the multiples of d, a second at least, since the
// beginning of the year 1 in UTC: every hour is on the hour, every 24 hours at
// midnight UTC, every 7 times that on Mondays. So all processes agree, and a
// restart moves nothing. A calendar's days and a zone's clock are for cron texts.
func Every(d time.Duration) Rule { return every(d) }

type every time.Duration

func (d every) Next(t time.Time) time.Time {
	return t.Truncate(time.Duration(d)).Add(time.Duration(d))
}

// String leaves out what is nothing: every 1h30m.
func (d every) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return "every " + text
}

// A Schedule enqueues a message or starts a run again and again, as a [Rule]
// says. It is given to a [Worker], and any number of them may have the same:
// each instant is enqueued once, by whichever comes first, in one transaction
// with the advance to the next. There is no leader.
//
// It has a row in the database, by its Name, which each Worker that starts with
// the Schedule brings up to date. If the Rule's text or the Zone is another
// then, what is to come is computed anew from that moment. Of Workers with
// different rules for one name, as during a deployment, only those that have
// the text in the row run the Schedule, which are those that started last; the
// others stand aside, but take over when an instant has been overdue for a minute.
//
// The message carries [ScheduleHeader] and [DueHeader] and, unless its Target
// has one, a key of both, as "pgqrs-schedule:nightly@2026-11-22T03:00:00Z". Callers cannot use such a
// key. If a row that was written by SQL has the key, the instant is not enqueued: the Worker logs a
// warning, and ScheduleRun.Held says so.
type Schedule struct {
	// Name tells schedules apart: up to 200 characters.
	Name string
	// Rule says when. Instants between two milliseconds are moved to the later one.
	Rule Rule
	// Text is the Rule for operators to read, and by which a change of it is
	// noticed. Empty means what the Rule's String method returns; without
	// one an empty Text is an error.
	Text string
	// Zone is the time zone in which the Rule is asked. Nil means UTC;
	// time.Local, which is another on each host, is an error.
	Zone *time.Location
	// CatchUp is how many instants that have passed are made up for: the latest
	// ones, the oldest of them first. Zero means 1; the most is 1000; -1 means that
	// what is missed, because a later one is due too or it is more than a minute
	// late, is not run at all. What fell into a pause is never made up for.
	CatchUp int
	// Target is what to enqueue. Queue.Target and Workflow.Target make it.
	Target Target
}

// Headers of a message that a Schedule enqueued.
const (
	// ScheduleHeader has the Schedule's name.
	ScheduleHeader = "pgqrs-schedule"
	// DueHeader has the instant that it is for, as time.RFC3339Nano in UTC. It is missing if the Schedule was run by hand.
	DueHeader = "pgqrs-due"
)

// scheduleKey begins the key of an instant, which no caller can set.
const scheduleKey = reservedPrefix + "schedule:"

// A Target is what a [Schedule] enqueues. Queue.Target and Workflow.Target make it.
type Target struct {
	store   *Store
	queue   string
	runs    bool // it starts runs of the workflow of that name
	item    item // without what Config.Headers adds
	headers map[string]string
	err     error // why it cannot be enqueued
}

// Target returns what a [Schedule] is to enqueue: a message with the payload, by the
// options of [Queue.Enqueue], but for Delay and At. With a Key nothing is
// enqueued while the message of an earlier instant is unfinished.
func (q *Queue[T]) Target(payload T, opts ...Option) Target {
	t := Target{store: q.store, queue: q.name, err: q.usable()}
	t.fill(payload, opts, func(raw []byte) []byte { return raw })
	return t
}

// Target returns what a [Schedule] is to start: a run with the input, by the options
// of [Workflow.Start], but for Delay, At, Key and Unique. Its key is that of the instant.
func (w *Workflow[In, Out]) Target(in In, opts ...Option) Target {
	t := Target{store: w.store, queue: w.name, runs: true, err: w.queue().usable()}
	t.fill(workflowPayload[In]{in}, opts, inputOf)
	if t.err == nil && t.item.key != nil {
		t.err = fmt.Errorf("%w: a Key for a schedule's runs, of which it would let the first one start alone", ErrUnsupported)
	}
	return t
}

// fill encodes what is to be enqueued.
func (t *Target) fill(payload any, opts []Option, content func([]byte) []byte) {
	if t.err == nil && t.store.tx != nil {
		t.err = t.store.pooled("Target")
	}
	var o options
	if t.err == nil {
		t.err = o.apply(append(slices.Clip(opts), noEach))
	}
	if t.err == nil && (o.at != nil || o.delay != 0) {
		t.err = errors.New("Delay or At; its schedule's rule says when")
	}
	if t.err == nil && o.then != nil {
		t.err = fmt.Errorf("%w: Then for what a schedule enqueues, which is no batch", ErrUnsupported)
	}
	if t.err == nil {
		t.headers = o.headers
		if o.group != "" {
			t.headers = withHeader(t.headers, groupHeader, o.group)
		}
		t.item, t.err = t.store.item(payload, &o)
		t.item.unique = false
	}
	if t.err == nil {
		t.err = t.store.cfg.Limits.admit([]item{t.item}, content)
	}
	if t.err != nil {
		t.err = &operationError{fmt.Sprintf("target on queue %q", t.queue), t.err}
	}
}

const (
	maxScheduleName = 200
	maxCatchUp      = 1000
	maxWalk         = 2000        // instants that are found one after the other
	missedAfter     = time.Minute // an instant is late
)

// check reports why the schedule cannot be run, if so.
func (s *Schedule) check() error {
	err := checkTitle("schedule name", s.Name)
	if err == nil && len([]rune(s.Name)) > maxScheduleName {
		err = fmt.Errorf("schedule name %.20q... has more than %d characters", s.Name, maxScheduleName)
	}
	if err != nil {
		return err
	}
	e, isEvery := s.Rule.(every)
	switch {
	case s.Rule == nil:
		err = errors.New("no Rule")
	case isEvery && time.Duration(e) < time.Second:
		err = fmt.Errorf("rule Every(%v) is less than a second", time.Duration(e))
	case s.text() == "":
		err = fmt.Errorf("no Text, and %T has no String method", s.Rule)
	case s.Zone == time.Local:
		err = errors.New("its Zone is time.Local, which is another on each host; use time.LoadLocation")
	case s.CatchUp < -1 || s.CatchUp > maxCatchUp:
		err = fmt.Errorf("CatchUp %d is not between -1 and %d", s.CatchUp, maxCatchUp)
	case s.Target.store == nil:
		err = errors.New("no Target; make it by Queue.Target or Workflow.Target")
	default:
		err = s.Target.err
	}
	if err != nil {
		return &operationError{fmt.Sprintf("schedule %q", s.Name), err}
	}
	return nil
}

// text is the rule for operators.
func (s *Schedule) text() string {
	text := s.Text
	if named, ok := s.Rule.(fmt.Stringer); ok && text == "" {
		_ = caught(func() { text = named.String() }) // then it has no text, which check refuses
	}
	return text
}

func (s *Schedule) zone() *time.Location {
	if s.Zone == nil {
		return time.UTC
	}
	return s.Zone
}

// after returns the first instant after t, in UTC, or the zero time if there is none.
func (s *Schedule) after(t time.Time) (next time.Time, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicError(v)
		}
	}()
	next = s.Rule.Next(t.In(s.zone()))
	if next.IsZero() || next.UTC().Year() > 9999 {
		return time.Time{}, nil
	}
	if !next.After(t) {
		return time.Time{}, fmt.Errorf("the rule's Next(%v) is %v, which is not after it", t.In(s.zone()), next)
	}
	// As the tables keep it.
	if whole := next.Truncate(time.Millisecond); whole.Before(next) {
		next = whole.Add(time.Millisecond)
	}
	return next.UTC(), nil
}

// due returns which of the instants from first on that have come by now are to
// be run, and the first one after now, or the zero time if there is none.
func (s *Schedule) due(ctx context.Context, first, now time.Time) (due []time.Time, next time.Time, err error) {
	if first.IsZero() || first.After(now) {
		return nil, first, nil
	}
	most := max(1, s.CatchUp)
	if due, err = s.latest(ctx, first, now, most); err != nil {
		return nil, time.Time{}, err
	}
	if len(due) < most {
		due = slices.Insert(due, 0, first)
	}
	last := due[len(due)-1]
	if next, err = s.after(last); err != nil {
		return nil, time.Time{}, err
	}
	if s.CatchUp < 0 && now.Sub(last) > missedAfter {
		due = nil
	}
	return due, next, nil
}

// latest returns the last n instants after from, up to to. If those are too many for a walk, it searches
// windows of time: the first one ends at to, and each ends where the one before begins and is twice as long.
func (s *Schedule) latest(ctx context.Context, from, to time.Time, n int) ([]time.Time, error) {
	list, whole, err := s.walk(ctx, from, to)
	if err != nil {
		return nil, err
	}
	if whole {
		return list[max(0, len(list)-n):], nil
	}
	step := list[len(list)-1].Sub(list[len(list)-2])
	half := to.Sub(from) / 2 // the longest window, so that its own search is a shorter one
	list = nil
	for span := time.Duration(n) * min(step, half/time.Duration(n)); len(list) < n && to.After(from); span = min(2*span, half) {
		start := windowStart(from, to.Add(-span), step)
		before, err := s.latest(ctx, start, to, n-len(list))
		if err != nil {
			return nil, err
		}
		list = append(before, list...)
		to = start
	}
	return list, nil
}

// windowStart moves the start of a window to a whole number of steps after from, and no further back than from. So a rule
// that counts from its argument, as robfig's @every does, is asked at its own instants.
func windowStart(from, start time.Time, step time.Duration) time.Time {
	since := start.Sub(from)
	if since <= 0 {
		return from
	}
	if since < step {
		return start
	}
	return start.Add(-(since % step))
}

// walk returns the instants after from, up to to, from the first one on, and whether those are all.
func (s *Schedule) walk(ctx context.Context, from, to time.Time) (list []time.Time, whole bool, err error) {
	for at := from; len(list) < maxWalk; list = append(list, at) {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		if at, err = s.after(at); err != nil {
			return nil, false, err
		}
		if at.IsZero() || at.After(to) {
			return list, true, nil
		}
	}
	return list, false, nil
}
