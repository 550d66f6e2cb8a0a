package pgqrs

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// ScheduleInfo is the row of a [Schedule]: its definition and its next run.
type ScheduleInfo struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
	// Queue is the target's queue. For a workflow it has the workflow's name.
	Queue    string          `json:"queue"`
	Workflow bool            `json:"workflow,omitempty"`
	Payload  json.RawMessage `json:"payload"` // the payload of the message, for a workflow {"input": In}
	// PayloadSize is the size of the stored payload in bytes. It is the length of Payload unless a
	// listing has cut Payload.
	PayloadSize int64 `json:"payload_size,omitempty"`
	// Cut reports that a listing left out the end of Payload or Rule, or all Headers. See
	// [ListedBytes].
	Cut      bool              `json:"cut,omitempty"`
	Priority int               `json:"priority,omitempty"`
	Key      string            `json:"key,omitempty"`   // if the target has one
	Group    string            `json:"group,omitempty"` // the same
	Headers  map[string]string `json:"headers,omitempty"`
	Rule     string            `json:"rule"` // the text
	Zone     string            `json:"zone"`
	CatchUp  int               `json:"catch_up"` // -1: nothing

	CreatedAt time.Time `json:"created_at,omitzero"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
	PausedAt  time.Time `json:"paused_at,omitzero"` // zero unless paused
	// NextAt is the time of the next run. While the schedule is paused, it is the time at which it
	// would run. The zero time means never again. If the time has passed, no worker has the
	// Schedule.
	NextAt time.Time `json:"next_at,omitzero"`
	// Last is the latest run. It is nil before the first run.
	Last *ScheduleRun `json:"last,omitempty"`
	// Malformed names the columns of the row that do not decode, with the reasons (see
	// [MessageInfo]). Their fields are zero. Workers do not run the schedule until the row is
	// mended or deleted.
	Malformed string `json:"malformed,omitempty"`
}

// ScheduleRun is one run of a [Schedule], for an instant or by hand.
type ScheduleRun struct {
	// DueAt is the instant, and RanAt is the time at which it was enqueued. For a run by hand they
	// are the same.
	DueAt  time.Time `json:"due_at,omitzero"`
	RanAt  time.Time `json:"ran_at,omitzero"`
	ByHand bool      `json:"by_hand,omitempty"`
	// Duplicate reports that nothing was enqueued, because an unfinished message had the key of the
	// target or of the instant, or a run had the key of the instant. MessageID and RunID then are
	// the ids of that message or run.
	Duplicate bool  `json:"duplicate,omitempty"`
	MessageID int64 `json:"message_id,omitempty"`
	RunID     int64 `json:"run_id,omitempty"` // of a workflow's run
	// RunState is set if the target is a workflow, and MessageState otherwise. Both are empty if
	// the run or the message no longer exists.
	RunState     RunState     `json:"run_state,omitempty"`
	MessageState MessageState `json:"message_state,omitempty"`
	// Malformed names the columns of the row that do not decode, with the reasons (see
	// [MessageInfo]). Their fields are zero.
	Malformed string `json:"malformed,omitempty"`
}

// Schedules describes the named schedules, or all, by name. Names that do not exist are left out.
// If no name is given, payloads are cut to [ListedBytes].
func (s *Store) Schedules(ctx context.Context, names ...string) ([]ScheduleInfo, error) {
	if err := s.usable(); err != nil {
		return nil, wrap(ctx, err, "list schedules")
	}
	given, err := listNames("schedule name", names)
	if err != nil {
		return nil, wrap(ctx, err, "list schedules")
	}
	text, args := s.dialect.schedule.list, []any(nil)
	if given != nil {
		text, args = s.dialect.schedule.named, []any{given}
	}
	var list []ScheduleInfo
	err = s.conn().rows(ctx, text, args, func(rows *sql.Rows) error {
		var i ScheduleInfo
		var key sql.NullString
		var payload, headers []byte
		var created, updated, paused, next timestamp
		var last scheduleRunRow
		var size sql.NullInt64
		var headersCut sql.NullBool
		into := append([]any{&i.ID, &i.Name, &i.Queue, &i.Workflow, &payload, &i.Priority, &key, &headers, &i.Rule, &i.Zone, &i.CatchUp,
			&created, &updated, &paused, &next}, last.into()...)
		bad, err := scanRowLoosely(rows, scheduleNames+" "+scheduleRunNames+" payload headers", append(into, &size, &headersCut)...)
		i.PayloadSize = int64(len(payload))
		if size.Valid {
			i.PayloadSize = size.Int64
			payload, i.Cut = cutSized(payload, size.Int64)
			rule, ruleCut := cutText([]byte(i.Rule))
			i.Rule, i.Cut = string(rule), i.Cut || headersCut.Bool || ruleCut
			bad = cutNames(bad, "name queue_name dedup_key zone", &i.Name, &i.Queue, &key.String, &i.Zone)
		}
		i.listed(bad, payload, headers)
		i.Key, i.Group = key.String, i.Headers[groupHeader]
		delete(i.Headers, groupHeader)
		i.CreatedAt, i.UpdatedAt, i.PausedAt, i.NextAt = created.Time, updated.Time, paused.Time, next.Time
		if run := last.run(); !run.DueAt.IsZero() {
			i.Last = &run
		}
		list = append(list, i)
		return err
	})
	if err != nil {
		return nil, wrap(ctx, err, "list schedules")
	}
	return list, nil
}

const (
	scheduleNames    = "id name queue_name starts_runs payload priority dedup_key headers rule zone catch_up created_at updated_at paused_at next_at"
	scheduleRunNames = "due_at ran_at by_hand held message_id run_id state"
)

// listed sets the payload and the headers. It adds their errors and the errors of the rest of the
// row to Malformed.
func (i *ScheduleInfo) listed(malformed string, payload, headers []byte) {
	var badPayload, badHeaders string
	i.Payload, badPayload = listedWhole("payload", payload, i.PayloadSize)
	if len(headers) > 0 {
		if err := json.Unmarshal(headers, &i.Headers); err != nil {
			badHeaders = malformedColumn("headers", err)
		}
	}
	i.Malformed = joinMalformed(malformed, badPayload, badHeaders)
}

// ScheduleRuns lists the latest runs of a schedule, the latest first, up to
// limit of the 1000 that are kept. It returns an error matching ErrNotFound if
// there is no such schedule.
func (s *Store) ScheduleRuns(ctx context.Context, name string, limit int) ([]ScheduleRun, error) {
	list, err := s.scheduleRuns(ctx, name, limit)
	return list, wrap(ctx, err, "list the runs of schedule %q", name)
}

func (s *Store) scheduleRuns(ctx context.Context, name string, limit int) ([]ScheduleRun, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if err := checkFindable("schedule name", name); err != nil {
		return nil, err
	}
	if limit < 1 || limit > adminChunk {
		return nil, fmt.Errorf("limit %d is not between 1 and %d", limit, adminChunk)
	}
	var list []ScheduleRun
	err := s.conn().rows(ctx, s.dialect.schedule.history, []any{name, limit}, func(rows *sql.Rows) error {
		var row scheduleRunRow
		bad, err := scanLoosely(rows, scheduleRunNames, row.into()...)
		run := row.run()
		run.Malformed = bad
		list = append(list, run)
		return err
	})
	if err != nil || len(list) > 0 {
		return list, err
	}
	found, err := s.Schedules(ctx, name)
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	return nil, err
}

// A scheduleRunRow is a run's columns, in the order the dialects select them.
type scheduleRunRow struct {
	due, ran     timestamp
	byHand, held sql.NullBool
	message, id  sql.NullInt64
	state        sql.NullString
}

func (r *scheduleRunRow) into() []any {
	return []any{&r.due, &r.ran, &r.byHand, &r.held, &r.message, &r.id, &r.state}
}

func (r *scheduleRunRow) run() ScheduleRun {
	run := ScheduleRun{DueAt: r.due.Time, RanAt: r.ran.Time, ByHand: r.byHand.Bool, Duplicate: r.held.Bool,
		MessageID: r.message.Int64, RunID: r.id.Int64}
	if r.id.Valid {
		run.RunState = RunState(r.state.String)
	} else {
		run.MessageState = MessageState(r.state.String)
	}
	return run
}

// PauseSchedule stops a schedule, in all processes, until ResumeSchedule. A paused schedule can
// still be run by hand. PauseSchedule returns an error matching ErrNotFound if there is no such
// schedule.
func (s *Store) PauseSchedule(ctx context.Context, name string) error {
	return wrap(ctx, s.pauseSchedule(ctx, name, true), "pause schedule %q", name)
}

// ResumeSchedule ends the pause that PauseSchedule began. Instants during the pause do not run
// late.
func (s *Store) ResumeSchedule(ctx context.Context, name string) error {
	return wrap(ctx, s.pauseSchedule(ctx, name, false), "resume schedule %q", name)
}

func (s *Store) pauseSchedule(ctx context.Context, name string, paused bool) error {
	if err := s.usable(); err != nil {
		return err
	}
	if err := checkFindable("schedule name", name); err != nil {
		return err
	}
	var ids []int64
	err := s.single(ctx, func(c conn) (err error) {
		ids, err = c.ids(ctx, s.dialect.schedule.pause, name, paused)
		return err
	})
	if err == nil && len(ids) == 0 {
		err = ErrNotFound
	}
	return err
}

// DeleteSchedule deletes a schedule with its history. Messages and runs that it has enqueued are
// kept. A Worker that has the schedule in its code makes it again when it starts. DeleteSchedule
// returns an error matching ErrNotFound if there is no such schedule.
func (s *Store) DeleteSchedule(ctx context.Context, name string) error {
	err := s.usable()
	if err == nil {
		err = checkFindable("schedule name", name)
	}
	if err == nil {
		err = s.atomic(ctx, func(c conn) error {
			id, _, err := c.lockSchedule(ctx, name)
			for _, text := range s.dialect.schedule.remove {
				if err == nil {
					_, err = c.exec(ctx, text, id)
				}
			}
			return err
		})
	}
	return wrap(ctx, err, "delete schedule %q", name)
}

// RunSchedule enqueues a schedule's target now, even if the schedule is paused. It needs no code of
// the schedule, and does not change the next run. In a caller's transaction it blocks the schedule
// until the transaction ends. It returns an error matching ErrNotFound if there is no such
// schedule.
func (s *Store) RunSchedule(ctx context.Context, name string) (ScheduleRun, error) {
	var run ScheduleRun
	err := s.usable()
	if err == nil {
		err = checkFindable("schedule name", name)
	}
	if err == nil {
		err = outsideStep(ctx)
	}
	if err == nil {
		err = s.atomic(ctx, func(c conn) (err error) {
			run, err = c.runSchedule(ctx, name)
			return err
		})
	}
	return run, wrap(ctx, err, "run schedule %q", name)
}

func (c conn) runSchedule(ctx context.Context, name string) (ScheduleRun, error) {
	id, target, err := c.lockSchedule(ctx, name)
	if err != nil {
		return ScheduleRun{}, err
	}
	items, err := c.store.scheduled(ctx, name, target, []time.Time{{}})
	if err != nil {
		return ScheduleRun{}, err
	}
	runs, err := c.runTarget(ctx, target, items)
	if err != nil {
		return ScheduleRun{}, err
	}
	runs[0].ByHand = true
	instants, err := c.recordRuns(ctx, id, runs)
	if err != nil {
		return ScheduleRun{}, err
	}
	runs[0].DueAt, runs[0].RanAt = instants[0], instants[0]
	return runs[0], nil
}

// lockSchedule locks a schedule and reads its target.
func (c conn) lockSchedule(ctx context.Context, name string) (id int64, t Target, err error) {
	err = c.rows(ctx, c.store.dialect.schedule.lock, []any{name}, func(rows *sql.Rows) error {
		var key sql.NullString
		var payload, headers []byte
		bad, err := scanLoosely(rows, "id queue_name starts_runs payload priority dedup_key headers", &id, &t.queue, &t.runs, &payload, &t.item.priority, &key, &headers)
		i := ScheduleInfo{}
		i.listed(bad, payload, headers)
		t.headers = i.Headers
		if err == nil && i.Malformed != "" {
			err = malformedError("its row", i.Malformed)
		}
		t.item.payload = string(payload)
		if key.Valid {
			t.item.key = key.String
		}
		if group := t.headers[groupHeader]; group != "" {
			t.item.group = group
		}
		return err
	})
	if err == nil && id == 0 {
		err = ErrNotFound
	}
	return id, t, err
}

// scheduled returns the items that a schedule enqueues for instants. The zero time is a run by
// hand.
func (s *Store) scheduled(ctx context.Context, name string, t Target, instants []time.Time) ([]enqueueRow, error) {
	items := make([]enqueueRow, len(instants))
	for i, at := range instants {
		own, err := s.configHeaders(ctx)
		if err != nil {
			return nil, err
		}
		headers := map[string]string{}
		maps.Copy(headers, own)
		maps.Copy(headers, t.headers)
		headers[ScheduleHeader] = name
		it := t.item
		if !at.IsZero() {
			due := at.UTC().Format(time.RFC3339Nano)
			headers[DueHeader] = due
			if it.key == nil {
				it.key = scheduleKey + name + "@" + due
			}
		}
		if it.headers, err = encodeHeaders(headers); err != nil {
			return nil, err
		}
		items[i] = it
	}
	return items, nil
}

// runTarget enqueues items, or starts runs with them.
func (c conn) runTarget(ctx context.Context, t Target, items []enqueueRow) ([]ScheduleRun, error) {
	runs := make([]ScheduleRun, len(items))
	if t.runs {
		ids, taken, err := c.store.insertMissingRuns(ctx, t.queue, items, nil)
		for i := range ids {
			runs[i].RunID = ids[i]
		}
		for _, i := range taken {
			runs[i].Duplicate = true
		}
		return runs, err
	}
	e, err := c.store.store(ctx, t.queue, items)
	if err != nil {
		return nil, err
	}
	for i, id := range e.ids {
		runs[i].MessageID = id
	}
	for _, i := range e.existing {
		runs[i].Duplicate = true
	}
	return runs, c.store.notifyStored(ctx, t.queue, e.stored)
}

// recordRuns adds runs to a schedule's history and returns the instants that were added. It skips
// the instants that the history already had.
func (c conn) recordRuns(ctx context.Context, id int64, runs []ScheduleRun) ([]time.Time, error) {
	list := make([][]any, len(runs))
	for i, run := range runs {
		list[i] = []any{microseconds(run.DueAt), run.ByHand, run.Duplicate, nil, nil}
		if run.MessageID != 0 {
			list[i][3] = run.MessageID
		}
		if run.RunID != 0 {
			list[i][4] = run.RunID
		}
	}
	arg, err := jsonList(list)
	if err != nil {
		return nil, err
	}
	var added []time.Time
	err = c.rows(ctx, c.store.dialect.schedule.record, []any{id, arg}, func(rows *sql.Rows) error {
		var at timestamp
		err := rows.Scan(&at)
		added = append(added, at.Time)
		return err
	})
	return added, err
}

// microseconds returns an instant as the statements take it, and nil for the zero time.
func microseconds(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}
