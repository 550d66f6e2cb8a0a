package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// A Rule determines the instants at which a [Schedule] runs. Next returns the first instant after
// t, or the zero time if there is none. t is in the Schedule's Zone. Next may be called again with
// the same t, and by other processes, and must return the same. After a long outage it is also
// called with times between instants. Schedules of github.com/robfig/cron/v3 are Rules. Package
// cronpgqrs makes Rules of cron texts.
type Rule interface {
	Next(t time.Time) time.Time
}

// Every returns the Rule of the multiples of d since the beginning of the year 1 in UTC. d is at
// least a second. Every hour is on the hour, every 24 hours at midnight UTC, and every 7 times 24
// hours at midnight UTC on Mondays. So all processes agree, and a restart does not move the
// instants. Use cron texts for the days of a calendar and the clock of a time zone.
func Every(d time.Duration) Rule { return everyRule(d) }

type everyRule time.Duration

func (d everyRule) Next(t time.Time) time.Time {
	return t.Truncate(time.Duration(d)).Add(time.Duration(d))
}

// String leaves out zero units, as in every 1h30m.
func (d everyRule) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return "every " + text
}

// A Schedule enqueues a message or starts a run again and again, as a [Rule] says. It is given to a
// [Worker], and any number of Workers may have the same Schedule. Each instant is enqueued once, by
// the first Worker that comes to it, in one transaction with the advance to the next instant. There
// is no leader.
//
// A Schedule has a row in the database, by its Name. Each Worker that starts with the Schedule
// updates the row. If the Rule's text or the Zone has changed, the next instant is computed again
// from that moment. During a deployment Workers may have different rules for one name. The Workers
// that started last then have the rule of the row, and only they run the Schedule. The others defer
// to the newer rule. If an instant is overdue for a minute, they write their own rule to the row
// and run the Schedule.
//
// The message has the headers [ScheduleHeader] and [DueHeader]. Unless its Target has a key, it
// gets a key of both, such as "pgqrs-schedule:nightly@2026-11-22T03:00:00Z". Callers cannot use
// such a key. If a row that was written by SQL has the key, the instant is not enqueued. The Worker
// logs a warning, and ScheduleRun.Duplicate is set.
type Schedule struct {
	// Name identifies the schedule. It has up to 200 characters.
	Name string
	// Rule determines the instants. An instant between two milliseconds is moved to the later one.
	Rule Rule
	// Text is the Rule as operators see it. It also identifies the Rule, so that two Rules with one
	// Text count as the same. Empty means the result of the Rule's String method. If the Rule has
	// no String method, an empty Text is an error of Worker.Run.
	Text string
	// Zone is the time zone of the times that the Rule is called with. Nil means UTC. time.Local is
	// an error, since it differs between hosts.
	Zone *time.Location
	// CatchUp is how many missed instants run late: the latest ones, from the oldest of them to the
	// newest. Zero means 1, and the maximum is 1000. With -1 an instant does not run at all if a
	// later one is due too or if it is more than a minute late. Instants during a pause never run
	// late.
	CatchUp int
	// Target is the message or run to enqueue. Queue.Target and Workflow.Target make it.
	Target Target
}

// These are the headers of a message that a Schedule enqueued.
const (
	// ScheduleHeader has the Schedule's name.
	ScheduleHeader = "pgqrs-schedule"
	// DueHeader has the message's instant as time.RFC3339Nano in UTC. It is missing if the Schedule
	// was run by hand.
	DueHeader = "pgqrs-due"
)

// scheduleKey begins the key of an instant, which no caller can set.
const scheduleKey = reservedPrefix + "schedule:"

// A Target is the message or run that a [Schedule] enqueues. Queue.Target and Workflow.Target make
// it.
type Target struct {
	store   *Store
	queue   string
	runs    bool       // whether it starts runs of the workflow of that name
	item    enqueueRow // without what Config.Headers adds
	headers map[string]string
	err     error // why it cannot be enqueued
}

// Target returns a target for a [Schedule] that enqueues a message with the payload. It takes the
// options of [Queue.Enqueue], except Delay and At. With a Key nothing is enqueued while the message
// of an earlier instant is unfinished.
func (q *Queue[T]) Target(payload T, opts ...Option) Target {
	t := Target{store: q.store, queue: q.name, err: q.usable()}
	t.fill(payload, opts, func(raw []byte) []byte { return raw })
	return t
}

// Target returns a target for a [Schedule] that starts a run with the input. It takes the options
// of [Workflow.Start], except Delay, At, Key and Unique. The key of the run is the key of the
// instant.
func (w *Workflow[In, Out]) Target(in In, opts ...Option) Target {
	t := Target{store: w.store, queue: w.name, runs: true, err: w.queue().usable()}
	t.fill(workflowPayload[In]{in}, opts, inputOf)
	if t.err == nil && t.item.key != nil {
		t.err = fmt.Errorf("%w: a Key for a schedule's runs, of which it would let the first one start alone", ErrUnsupported)
	}
	return t
}

// fill encodes the message to enqueue.
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
	if t.err == nil && o.callback != nil {
		t.err = fmt.Errorf("%w: Then for what a schedule enqueues, which is no batch", ErrUnsupported)
	}
	if t.err == nil {
		t.headers = o.headers
		if o.group != "" {
			t.headers = withHeader(t.headers, groupHeader, o.group)
		}
		t.item, t.err = t.store.encodeRow(payload, &o)
		t.item.unique = false
	}
	if t.err == nil {
		t.err = t.store.cfg.Limits.admit([]enqueueRow{t.item}, content)
	}
	if t.err != nil {
		t.err = &operationError{fmt.Sprintf("target on queue %q", t.queue), t.err}
	}
}

const (
	maxScheduleName   = 200
	maxCatchUp        = 1000
	maxWalkedInstants = 2000        // instants that are computed one after the other
	missedAfter       = time.Minute // from then on an instant is late
)

// check returns an error if the schedule cannot be run.
func (s *Schedule) check() error {
	err := checkTitle("schedule name", s.Name)
	if err == nil && len([]rune(s.Name)) > maxScheduleName {
		err = fmt.Errorf("schedule name %.20q... has more than %d characters", s.Name, maxScheduleName)
	}
	if err != nil {
		return err
	}
	e, isEvery := s.Rule.(everyRule)
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

// text is the rule as operators see it.
func (s *Schedule) text() string {
	text := s.Text
	if named, ok := s.Rule.(fmt.Stringer); ok && text == "" {
		_ = foreign.Catch(func() { text = named.String() }) // then it has no text, which check refuses
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
			err = foreign.NewPanic(v)
		}
	}()
	next = s.Rule.Next(t.In(s.zone()))
	if next.IsZero() || next.UTC().Year() > 9999 {
		return time.Time{}, nil
	}
	if !next.After(t) {
		return time.Time{}, fmt.Errorf("the rule's Next(%v) is %v, which is not after it", t.In(s.zone()), next)
	}
	// The tables keep milliseconds.
	if whole := next.Truncate(time.Millisecond); whole.Before(next) {
		next = whole.Add(time.Millisecond)
	}
	return next.UTC(), nil
}

// due returns the instants from first to now that are to be run, and the first instant after now,
// or the zero time if there is none.
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

// latest returns the last n instants after from and up to to. If there are too many for a walk, it
// searches windows of time. The first window ends at to. Each further window ends where the one
// before begins, and is twice as long.
func (s *Schedule) latest(ctx context.Context, from, to time.Time, n int) ([]time.Time, error) {
	list, whole, err := s.walk(ctx, from, to)
	if err != nil {
		return nil, err
	}
	if whole {
		return list[max(0, len(list)-n):], nil
	}
	step := list[len(list)-1].Sub(list[len(list)-2])
	// half is the longest window, so that searching it is shorter than searching the whole.
	half := to.Sub(from) / 2
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

// windowStart moves the start of a window back to a whole number of steps after from, but not
// before from. So a rule that counts from its argument, as robfig's @every does, is called with its
// own instants.
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

// walk returns the instants after from and up to to, beginning with the first one, and whether the
// list is complete.
func (s *Schedule) walk(ctx context.Context, from, to time.Time) (list []time.Time, whole bool, err error) {
	for at := from; len(list) < maxWalkedInstants; list = append(list, at) {
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

// A scheduler runs the schedules of a Worker. With one statement for all of them it asks the
// database for the time until the next instant. It asks at least once a minute, because the
// database's clock may jump. A schedule that takes long continues in a goroutine of its own, and
// the others do not wait for it.
type scheduler struct {
	r         *runner
	schedules []*scheduleState
	running   int              // number of schedules in progress
	done      chan scheduleEnd // has room for one of each
}

// A scheduleState is the scheduler's state of one schedule of a Worker. While the schedule is in
// progress, the first two fields belong to its goroutine. The other fields belong to the scheduler.
type scheduleState struct {
	*Schedule
	lastLog      string    // the latest log line about the schedule
	rowUnwritten bool      // its definition is not in its row yet
	nextCheck    time.Time // time of its next check
	running      bool      // whether it is in progress
	slow         bool      // whether its latest run took longer than slowSchedule
}

// A scheduleEnd reports that a schedule is no longer in progress.
type scheduleEnd struct {
	state     *scheduleState
	nextCheck time.Time // time of its next check
}

const (
	maxCheckWait    = time.Minute            // between two checks
	minCheckWait    = 500 * time.Millisecond // the same
	failedCheckWait = 2 * time.Second        // after a failed check
	// takeOverAfter is how long an instant is overdue before a Worker with an older rule runs it.
	takeOverAfter = time.Minute
	keptRuns      = 1000 // in a schedule's history
	// checkDelay follows an instant, so that the wait does not end just before the instant.
	checkDelay = 5 * time.Millisecond
	// slowSchedule is the longest wait for one schedule before the next one begins.
	slowSchedule = 100 * time.Millisecond
	// writeRowWait is the longest wait for the row of one schedule, before its Worker begins.
	writeRowWait = time.Second
	// maxRunningSchedules is how many schedules are in progress when no schedule begins whose
	// latest run took long.
	maxRunningSchedules = 16
)

// A scheduleRow has the columns of a schedule's row that decide when it runs.
type scheduleRow struct {
	now             time.Time
	id              int64 // 0 if there is no row
	rule, zone      string
	changes         int64
	next            time.Time // zero means never
	paused, resumed time.Time
	malformed       string // columns that do not decode, and why
}

func newScheduler(r *runner) *scheduler {
	k := &scheduler{r: r, done: make(chan scheduleEnd, len(r.Schedules))}
	for _, s := range r.Schedules {
		k.schedules = append(k.schedules, &scheduleState{Schedule: &s})
	}
	return k
}

// register updates the rows of the schedules. If another transaction has locked a row, register
// leaves that row and the rows after it for later, since the Worker must begin.
func (k *scheduler) register(ctx context.Context) error {
	if len(k.schedules) == 0 {
		return nil
	}
	rows, err := k.readRows(ctx, k.schedules)
	if err != nil {
		return err
	}
	locked := false
	for _, s := range k.schedules {
		next, err := s.after(rows[s.Name].now)
		if err == nil && !locked {
			locked, err = k.tryWriteRow(ctx, s.Schedule, next)
		}
		if err != nil {
			return wrap(ctx, err, "schedule %q", s.Name)
		}
		s.rowUnwritten = locked
	}
	return nil
}

// tryWriteRow is writeRow with a wait of at most writeRowWait. It reports whether that was too
// short.
func (k *scheduler) tryWriteRow(parent context.Context, s *Schedule, next time.Time) (late bool, err error) {
	ctx, cancel := context.WithTimeout(parent, writeRowWait)
	defer cancel()
	err = k.writeRow(ctx, s, next)
	if err != nil && ctx.Err() != nil && parent.Err() == nil {
		k.logFailed(parent, "write the row of schedule "+s.Name, err)
		return true, nil
	}
	return false, err
}

// readRows reads the rows of schedules, by name.
func (k *scheduler) readRows(ctx context.Context, schedules []*scheduleState) (map[string]scheduleRow, error) {
	var names []string
	for _, s := range schedules {
		names = append(names, s.Name)
	}
	list, err := jsonTexts(names)
	if err != nil {
		return nil, err
	}
	found := map[string]scheduleRow{}
	err = k.r.store.onPool().rows(ctx, k.r.store.dialect.schedule.find, []any{list}, func(rows *sql.Rows) error {
		var name string
		var id sql.NullInt64
		var row scheduleRow
		var rule, zone sql.NullString
		var now, next, paused, resumed timestamp
		var err error
		row.malformed, err = scanLoosely(rows, "name now id rule zone tick_ct next_at paused_at resumed_at",
			&name, &now, &id, &rule, &zone, &row.changes, &next, &paused, &resumed)
		row.now, row.id, row.rule, row.zone = now.Time, id.Int64, rule.String, zone.String
		row.next, row.paused, row.resumed = next.Time, paused.Time, resumed.Time
		found[name] = row
		return err
	})
	return found, err
}

// writeRow writes a schedule's definition to its row.
func (k *scheduler) writeRow(ctx context.Context, s *Schedule, next time.Time) error {
	t := s.Target
	headers, err := encodeHeaders(t.headers)
	if err != nil {
		return err
	}
	catchUp := s.CatchUp
	if catchUp == 0 {
		catchUp = 1
	}
	return k.r.store.single(ctx, func(c conn) error {
		_, err := c.ids(ctx, c.store.dialect.schedule.put, s.Name, t.queue, t.runs, t.item.payload, t.item.priority, t.item.key, headers,
			s.text(), s.zone().String(), catchUp, microseconds(next))
		return err
	})
}

// loop runs the schedules until ctx is done.
func (k *scheduler) loop(ctx context.Context) {
	for len(k.schedules) > 0 && ctx.Err() == nil {
		k.runDue(ctx)
		k.wait(ctx)
	}
	k.waitForRunning()
}

// runDue starts the due schedules that are not in progress.
func (k *scheduler) runDue(ctx context.Context) {
	began := time.Now()
	slow := k.idle(true)
	slices.SortFunc(slow, func(a, b *scheduleState) int { return a.nextCheck.Compare(b.nextCheck) })
	idle := append(k.idle(false), slow...)
	if len(idle) == 0 {
		return
	}
	rows, err := k.readRowsWithin(ctx, idle)
	if err != nil {
		k.logFailed(ctx, "look for schedules", err)
		for _, s := range idle {
			s.nextCheck = time.Now().Add(failedCheckWait)
		}
		return
	}
	for _, s := range idle {
		if !s.slow || k.running < maxRunningSchedules {
			k.startSchedule(ctx, s, rows[s.Name], began)
		}
	}
}

// idle returns the schedules that are not in progress: those whose latest run took long, or the
// others.
func (k *scheduler) idle(slow bool) (list []*scheduleState) {
	for _, s := range k.schedules {
		if !s.running && s.slow == slow {
			list = append(list, s)
		}
	}
	return list
}

func (k *scheduler) readRowsWithin(ctx context.Context, schedules []*scheduleState) (map[string]scheduleRow, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return k.readRows(ctx, schedules)
}

// startSchedule runs the due instants of a schedule, by a row that was read at the time asked. It
// returns when the instants are done, or after slowSchedule. Another transaction may have locked
// the queue or the key, and the rule may be slow.
func (k *scheduler) startSchedule(ctx context.Context, s *scheduleState, row scheduleRow, asked time.Time) {
	s.running, s.slow = true, false
	k.running++
	go func() { k.done <- scheduleEnd{s, k.checkSchedule(ctx, s, row, asked)} }()
	timer := time.NewTimer(slowSchedule)
	defer timer.Stop()
	for s.running && !s.slow {
		select {
		case d := <-k.done:
			k.endSchedule(d)
		case <-timer.C:
			s.slow = true
		}
	}
}

// checkSchedule is runSchedule in the schedule's goroutine. It returns the time of the schedule's
// next check.
func (k *scheduler) checkSchedule(ctx context.Context, s *scheduleState, row scheduleRow, asked time.Time) time.Time {
	next, err := k.runSchedule(ctx, s, row)
	if err != nil {
		k.logFailed(ctx, "run schedule "+s.Name, err)
		return time.Now().Add(failedCheckWait)
	}
	wait := maxCheckWait
	if !next.IsZero() {
		wait = min(wait, next.Sub(row.now)+checkDelay)
	}
	return asked.Add(wait)
}

// endSchedule records that a schedule is no longer in progress.
func (k *scheduler) endSchedule(d scheduleEnd) {
	d.state.running, d.state.nextCheck = false, d.nextCheck
	k.running--
}

// waitForRunning waits until no schedule is in progress.
func (k *scheduler) waitForRunning() {
	for k.running > 0 {
		k.endSchedule(<-k.done)
	}
}

// wait returns when the next check is due, or ctx is done.
func (k *scheduler) wait(ctx context.Context) {
	for soonest := time.Now().Add(minCheckWait); ctx.Err() == nil; {
		timer := time.NewTimer(max(time.Until(soonest), time.Until(k.nextCheck())))
		select {
		case <-timer.C:
			return
		case d := <-k.done:
			k.endSchedule(d)
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// nextCheck returns the time of the next check of a schedule that is not in progress.
func (k *scheduler) nextCheck() time.Time {
	next := time.Now().Add(maxCheckWait)
	for _, s := range k.schedules {
		if !s.running && s.nextCheck.Before(next) {
			next = s.nextCheck
		}
	}
	return next
}

func (k *scheduler) logFailed(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		k.r.log.Warn("pgqrs: schedules have to wait for the database; trying again", "what", what, "err", err)
	}
}

// runSchedule runs the due instants of a schedule, and returns the time of its next check. The zero
// time means the latest allowed time.
func (k *scheduler) runSchedule(ctx context.Context, s *scheduleState, row scheduleRow) (time.Time, error) {
	if row.id == 0 && !s.rowUnwritten {
		if s.notLogged("deleted") {
			k.r.log.Warn("pgqrs: schedule was deleted; it is made anew when a worker starts", "schedule", s.Name)
		}
		return time.Time{}, nil
	}
	if s.rowUnwritten {
		return k.writeLateRow(ctx, s, row)
	}
	if row.malformed != "" {
		if s.notLogged("malformed") {
			k.r.log.Warn("pgqrs: the row of a schedule does not decode, and the schedule is not run until that is mended, or deleted and made anew by a worker that starts",
				"schedule", s.Name, "malformed", row.malformed)
		}
		return time.Time{}, nil
	}
	if row.rule != s.text() || row.zone != s.zone().String() {
		return k.deferToNewerRule(ctx, s, row)
	}
	s.lastLog = ""
	if row.next.IsZero() || row.next.After(row.now) {
		first, err := s.after(row.now)
		if err != nil || first.IsZero() || !row.next.IsZero() && !first.Before(row.next) {
			return row.next, err
		}
		return k.runInstants(ctx, s.Schedule, row, nil, first) // the clock was set back
	}
	due, next, err := s.due(ctx, row.next, row.now)
	if err != nil {
		return time.Time{}, err
	}
	due = slices.DeleteFunc(due, func(at time.Time) bool { return !row.paused.IsZero() || at.Before(row.resumed) })
	return k.runInstants(ctx, s.Schedule, row, due, next)
}

// writeLateRow writes the definition of a schedule to its row, which was locked when the Worker
// began.
func (k *scheduler) writeLateRow(ctx context.Context, s *scheduleState, row scheduleRow) (time.Time, error) {
	next, err := s.after(row.now)
	if err != nil {
		return time.Time{}, err
	}
	err = k.writeRowWithin(ctx, s.Schedule, next)
	s.rowUnwritten = err != nil
	return row.now, err
}

func (k *scheduler) writeRowWithin(ctx context.Context, s *Schedule, next time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return k.writeRow(ctx, s, next)
}

// deferToNewerRule leaves a schedule to the Workers that have the rule of its row, unless they do
// not run it.
func (k *scheduler) deferToNewerRule(ctx context.Context, s *scheduleState, row scheduleRow) (time.Time, error) {
	if overdue := row.next.Add(takeOverAfter); row.next.IsZero() || overdue.After(row.now) {
		if s.notLogged("another rule") {
			k.r.log.Warn("pgqrs: a worker that started later has another rule for the schedule, which stands", "schedule", s.Name)
		}
		if row.next.IsZero() {
			return row.next, nil
		}
		return overdue, nil
	}
	k.r.log.Warn("pgqrs: nobody runs the schedule by the rule that a worker which started later had; taking over", "schedule", s.Name)
	return row.now, k.writeRowWithin(ctx, s.Schedule, row.next)
}

// notLogged reports whether a text about a schedule has not been logged yet.
func (s *scheduleState) notLogged(what string) bool {
	old := s.lastLog
	s.lastLog = what
	return old != what
}

// A repeatedInstants is the error of a transaction with instants that the history already has.
type repeatedInstants struct{ rest []time.Time }

func (*repeatedInstants) Error() string { return "pgqrs: some instants have been run before" }

// runInstants runs the due instants and advances the schedule to the next one, in one transaction.
// It returns the time of the next check, which is the next instant. If another worker has run the
// instants or is running them, the next check is due at once.
func (k *scheduler) runInstants(ctx context.Context, s *Schedule, row scheduleRow, due []time.Time, next time.Time) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	for {
		mine := false
		var runs []ScheduleRun
		err := k.r.store.atomic(ctx, func(c conn) (err error) {
			mine, runs, err = c.runTick(ctx, s, row, due, next)
			return err
		})
		if err == nil {
			k.logDuplicates(s, runs)
		}
		var again *repeatedInstants
		if errors.As(err, &again) {
			due = again.rest
			continue
		}
		if !mine {
			next = row.now
		}
		return next, err
	}
}

// logDuplicates logs the instants that were not enqueued because of a key. A Target's own key is
// meant to do that. Only a row that was written by SQL can have the key of an instant.
func (k *scheduler) logDuplicates(s *Schedule, runs []ScheduleRun) {
	for _, run := range runs {
		if !run.Duplicate {
			continue
		}
		log := k.r.log.Warn
		if s.Target.item.key != nil {
			log = k.r.log.Info
		}
		log("pgqrs: an instant of a schedule is held: its key is taken", "schedule", s.Name, "instant", run.DueAt, "message", run.MessageID, "run", run.RunID)
	}
}

// runTick is the transaction of runInstants. It reports whether it advanced the schedule.
func (c conn) runTick(ctx context.Context, s *Schedule, row scheduleRow, due []time.Time, next time.Time) (mine bool, runs []ScheduleRun, err error) {
	ids, err := c.ids(ctx, c.store.dialect.schedule.advance, row.id, row.changes, microseconds(next))
	if err != nil || len(ids) == 0 || len(due) == 0 {
		return len(ids) > 0, nil, err
	}
	runs, err = c.runInstants(ctx, s, row.id, due)
	return true, runs, err
}

// runInstants enqueues for instants, and adds them to the history.
func (c conn) runInstants(ctx context.Context, s *Schedule, id int64, due []time.Time) ([]ScheduleRun, error) {
	items, err := c.store.scheduled(ctx, s.Name, s.Target, due)
	if err != nil {
		return nil, err
	}
	runs, err := c.runTarget(ctx, s.Target, items)
	if err != nil {
		return nil, err
	}
	for i, at := range due {
		runs[i].DueAt = at
	}
	added, err := c.recordRuns(ctx, id, runs)
	if err == nil && len(added) < len(due) {
		slices.SortFunc(added, time.Time.Compare)
		return nil, &repeatedInstants{added}
	}
	return runs, err
}

// pruneHistory deletes the old rows of the schedules' histories.
func (k *scheduler) pruneHistory(ctx context.Context) {
	if len(k.schedules) == 0 {
		return
	}
	var names []string
	for _, s := range k.schedules {
		names = append(names, s.Name)
	}
	list, err := jsonTexts(names)
	if err != nil {
		k.r.maintenanceFailed(ctx, "prune the history of schedules", err)
		return
	}
	k.r.chunks(ctx, "prune the history of schedules", k.r.store.dialect.schedule.prune, list, keptRuns, maintenanceChunk)
}
