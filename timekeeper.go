package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"
)

// A timekeeper runs the schedules of a Worker. It asks the database, in one
// statement for all of them, when the next instant has come, and else once a
// minute, because the database's clock may jump.
type timekeeper struct {
	r         *running
	schedules []*Schedule
	told      map[string]string // what the log has last been told of a schedule
}

const (
	maxLook    = time.Minute            // between two looks
	minLook    = 500 * time.Millisecond // the same
	failedLook = 2 * time.Second        // after one that failed
	takeOver   = time.Minute            // an instant has been overdue under another's rule
	keptRuns   = 1000                   // in a schedule's history
	lateLook   = 5 * time.Millisecond   // after an instant, so that the wait does not end just before it
)

// A scheduleRow is what decides when a schedule runs, by the database.
type scheduleRow struct {
	now             time.Time
	id              int64 // 0: there is no row
	rule, zone      string
	changes         int64
	next            time.Time // zero: never
	paused, resumed time.Time
}

func newTimekeeper(r *running) *timekeeper {
	k := &timekeeper{r: r, told: map[string]string{}}
	for _, s := range r.Schedules {
		k.schedules = append(k.schedules, &s)
	}
	return k
}

// register brings the rows of the schedules up to date.
func (k *timekeeper) register(ctx context.Context) error {
	if len(k.schedules) == 0 {
		return nil
	}
	rows, err := k.find(ctx)
	if err != nil {
		return err
	}
	for _, s := range k.schedules {
		next, err := s.after(rows[s.Name].now)
		if err == nil {
			err = k.put(ctx, s, next)
		}
		if err != nil {
			return wrap(ctx, err, "schedule %q", s.Name)
		}
	}
	return nil
}

// find reads the schedules' rows, by name.
func (k *timekeeper) find(ctx context.Context) (map[string]scheduleRow, error) {
	var names []string
	for _, s := range k.schedules {
		names = append(names, s.Name)
	}
	list, err := jsonTexts(names)
	if err != nil {
		return nil, err
	}
	found := map[string]scheduleRow{}
	err = conn{k.r.store, nil}.rows(ctx, k.r.store.dialect.schedule.find, []any{list}, func(rows *sql.Rows) error {
		var name string
		var id sql.NullInt64
		var row scheduleRow
		var rule, zone sql.NullString
		var now, next, paused, resumed timestamp
		err := rows.Scan(&name, &now, &id, &rule, &zone, &row.changes, &next, &paused, &resumed)
		row.now, row.id, row.rule, row.zone = now.Time, id.Int64, rule.String, zone.String
		row.next, row.paused, row.resumed = next.Time, paused.Time, resumed.Time
		found[name] = row
		return err
	})
	return found, err
}

// put writes a schedule's definition to its row.
func (k *timekeeper) put(ctx context.Context, s *Schedule, next time.Time) error {
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

// run keeps the schedules until ctx is done.
func (k *timekeeper) run(ctx context.Context) {
	for len(k.schedules) > 0 && pause(ctx, k.look(ctx)) {
	}
}

// look runs what is due, and returns how long to wait before the next look.
func (k *timekeeper) look(parent context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(parent, statementTimeout)
	defer cancel()
	began := time.Now()
	rows, err := k.find(ctx)
	if err != nil {
		k.failed(parent, "look for schedules", err)
		return failedLook
	}
	wait := maxLook
	for _, s := range k.schedules {
		row := rows[s.Name]
		next, err := k.keepWithin(parent, s, row)
		if err != nil {
			k.failed(parent, "run schedule "+s.Name, err)
			wait = min(wait, failedLook)
		} else if !next.IsZero() {
			wait = min(wait, next.Sub(row.now)+lateLook)
		}
	}
	return max(minLook, wait-time.Since(began))
}

func (k *timekeeper) failed(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		k.r.log.Warn("pgqrs: schedules have to wait for the database; trying again", "what", what, "err", err)
	}
}

// keepWithin is keep in a time of its own: a schedule whose queue or key somebody's
// transaction has locked must not take that of the others.
func (k *timekeeper) keepWithin(ctx context.Context, s *Schedule, row scheduleRow) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return k.keep(ctx, s, row)
}

// keep runs what is due of a schedule, and returns when to look at it again;
// the zero time means no sooner than one must.
func (k *timekeeper) keep(ctx context.Context, s *Schedule, row scheduleRow) (time.Time, error) {
	if row.id == 0 {
		if k.news(s, "deleted") {
			k.r.log.Warn("pgqrs: schedule was deleted; it is made anew when a worker starts", "schedule", s.Name)
		}
		return time.Time{}, nil
	}
	if row.rule != s.text() || row.zone != s.zone().String() {
		return k.standAside(ctx, s, row)
	}
	delete(k.told, s.Name)
	if row.next.IsZero() || row.next.After(row.now) {
		first, err := s.after(row.now)
		if err != nil || first.IsZero() || !row.next.IsZero() && !first.Before(row.next) {
			return row.next, err
		}
		return k.tick(ctx, s, row, nil, first) // the clock was set back
	}
	due, next, err := s.due(ctx, row.next, row.now)
	if err != nil {
		return time.Time{}, err
	}
	due = slices.DeleteFunc(due, func(at time.Time) bool { return !row.paused.IsZero() || at.Before(row.resumed) })
	return k.tick(ctx, s, row, due, next)
}

// standAside leaves a schedule to those who have the rule that its row has,
// unless they do not run it.
func (k *timekeeper) standAside(ctx context.Context, s *Schedule, row scheduleRow) (time.Time, error) {
	if overdue := row.next.Add(takeOver); row.next.IsZero() || overdue.After(row.now) {
		if k.news(s, "another rule") {
			k.r.log.Warn("pgqrs: a worker that started later has another rule for the schedule, which stands", "schedule", s.Name)
		}
		if row.next.IsZero() {
			return row.next, nil
		}
		return overdue, nil
	}
	k.r.log.Warn("pgqrs: nobody runs the schedule by the rule that a worker which started later had; taking over", "schedule", s.Name)
	return row.now, k.put(ctx, s, row.next)
}

// news reports whether something has not been said about a schedule yet.
func (k *timekeeper) news(s *Schedule, what string) bool {
	old := k.told[s.Name]
	k.told[s.Name] = what
	return old != what
}

// A repetition is a tick with instants that the history has already.
type repetition struct{ left []time.Time }

func (*repetition) Error() string { return "pgqrs: some instants have been run before" }

// tick runs the instants that are due and advances the schedule to the next
// one, in one transaction, unless somebody else has done so or is at it: then
// it is to be looked at again at once. Otherwise that is so at the next instant.
func (k *timekeeper) tick(ctx context.Context, s *Schedule, row scheduleRow, due []time.Time, next time.Time) (time.Time, error) {
	for {
		mine := false
		err := k.r.store.atomic(ctx, func(c conn) (err error) {
			mine, err = c.tick(ctx, s, row, due, next)
			return err
		})
		var again *repetition
		if errors.As(err, &again) {
			due = again.left
			continue
		}
		if !mine {
			next = row.now
		}
		return next, err
	}
}

// tick is a tick's transaction. It reports whether it was the one to do it.
func (c conn) tick(ctx context.Context, s *Schedule, row scheduleRow, due []time.Time, next time.Time) (mine bool, err error) {
	ids, err := c.ids(ctx, c.store.dialect.schedule.advance, row.id, row.changes, microseconds(next))
	if err != nil || len(ids) == 0 || len(due) == 0 {
		return len(ids) > 0, err
	}
	return true, c.runInstants(ctx, s, row.id, due)
}

// runInstants enqueues for instants, and notes that in the history.
func (c conn) runInstants(ctx context.Context, s *Schedule, id int64, due []time.Time) error {
	items, err := c.store.scheduled(ctx, s.Name, s.Target, due)
	if err != nil {
		return err
	}
	runs, err := c.runTarget(ctx, s.Target, items)
	if err != nil {
		return err
	}
	for i, at := range due {
		runs[i].DueAt = at
	}
	added, err := c.recordRuns(ctx, id, runs)
	if err == nil && len(added) < len(due) {
		slices.SortFunc(added, time.Time.Compare)
		return &repetition{added}
	}
	return err
}

// prune deletes what is too old in the schedules' histories.
func (k *timekeeper) prune(ctx context.Context) {
	if len(k.schedules) == 0 {
		return
	}
	var names []string
	for _, s := range k.schedules {
		names = append(names, s.Name)
	}
	list, err := jsonTexts(names)
	if err != nil {
		k.r.upkeepFailed(ctx, "prune the history of schedules", err)
		return
	}
	k.r.chunks(ctx, "prune the history of schedules", k.r.store.dialect.schedule.prune, list, keptRuns, upkeepChunk)
}
