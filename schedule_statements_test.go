package pgqrs_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// nightly is the row of a schedule of these tests, with its latest run.
var nightly = []driver.Value{3, "nightly", "emails", false, `{"To":"ada"}`, 1, nil, `{"a":"b"}`, "every 24h", "UTC", 1, instant, instant, nil, instant}

// withRun adds a run to a schedule's row.
func withRun(row []driver.Value, run ...driver.Value) []driver.Value {
	return append(slices.Clip(row), run...)
}

func TestStatementsOfSchedules(t *testing.T) {
	took := query("schedule.take", "nightly").row(3, "emails", false, `{"To":"ada"}`, 1, nil, `{"a":"b"}`)
	header := `{"a":"b","pgqrs-schedule":"nightly"}`
	runOperations(t, []operation{
		{
			name: "Schedules", want: []statement{query("schedule.list").row(withRun(nightly, instant, instant, false, false, 7, nil, "archived")...)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.Schedules(ctx)
				return errors.Join(err, differ("schedules", len(list), 1), differ("latest run", *list[0].Last,
					pgqrs.ScheduleRun{DueAt: instant.UTC(), RanAt: instant.UTC(), MessageID: 7, MessageState: pgqrs.Archived}), differ("next", list[0].NextAt, instant.UTC()))
			},
		}, {
			name: "Schedules by name, of which one never ran", want: []statement{query("schedule.named_list", `[["nightly"]]`).row(withRun(nightly, nil, nil, nil, nil, nil, nil, nil)...)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.Schedules(ctx, "nightly")
				return errors.Join(err, differ("schedules", len(list), 1), differ("latest run", list[0].Last, (*pgqrs.ScheduleRun)(nil)))
			},
		}, {
			name: "ScheduleRuns", want: []statement{query("schedule.history", "nightly", 10).row(instant, instant, true, false, 7, 5, "SUCCESS")},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.ScheduleRuns(ctx, "nightly", 10)
				return errors.Join(err, differ("runs", len(list), 1), differ("run", list[0],
					pgqrs.ScheduleRun{DueAt: instant.UTC(), RanAt: instant.UTC(), ByHand: true, MessageID: 7, RunID: 5, RunState: pgqrs.Succeeded}))
			},
		}, {
			name: "ScheduleRuns of none", want: []statement{query("schedule.history", "none", 10), query("schedule.named_list", `[["none"]]`)}, err: pgqrs.ErrNotFound,
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := s.ScheduleRuns(ctx, "none", 10)
				return err
			},
		}, {
			name: "PauseSchedule", want: []statement{query("schedule.pause", "nightly", true).ids(3)},
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.PauseSchedule(ctx, "nightly") },
		}, {
			name: "ResumeSchedule", want: []statement{query("schedule.pause", "nightly", false).ids(3)},
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.ResumeSchedule(ctx, "nightly") },
		}, {
			name: "ResumeSchedule of none", want: []statement{query("schedule.pause", "none", false)}, err: pgqrs.ErrNotFound,
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.ResumeSchedule(ctx, "none") },
		}, {
			name: "DeleteSchedule", want: inOne(took, exec("schedule.remove_runs", 3), exec("schedule.remove_row", 3)),
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.DeleteSchedule(ctx, "nightly") },
		}, {
			name: "DeleteSchedule of none", want: inVain(query("schedule.take", "none")), err: pgqrs.ErrNotFound,
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.DeleteSchedule(ctx, "none") },
		}, {
			name: "RunSchedule", want: inOne(took, query("message.enqueue", "emails", `{"To":"ada"}`, 0, nil, 1, nil, header).ids(7),
				query("schedule.record", 3, `[[null,true,false,7,null]]`).row(instant)),
			call: func(ctx context.Context, s *pgqrs.Store) error {
				run, err := s.RunSchedule(ctx, "nightly")
				return errors.Join(err, differ("run", run, pgqrs.ScheduleRun{DueAt: instant.UTC(), RanAt: instant.UTC(), ByHand: true, MessageID: 7}))
			},
		}, {
			name: "RunSchedule of a workflow", want: inOne(query("schedule.take", "nightly").row(3, "welcome", true, adaInput, 0, nil, nil),
				query("message.enqueue", "welcome", adaInput, 0, nil, 0, nil, `{"pgqrs-schedule":"nightly"}`).ids(7), makesRun.row(5, 7),
				query("schedule.record", 3, `[[null,true,false,null,5]]`).row(instant)),
			call: func(ctx context.Context, s *pgqrs.Store) error {
				run, err := s.RunSchedule(ctx, "nightly")
				return errors.Join(err, differ("run", run.RunID, 5))
			},
		}, {
			name: "RunSchedule of none", want: inVain(query("schedule.take", "none")), err: pgqrs.ErrNotFound,
			call: func(ctx context.Context, s *pgqrs.Store) error { _, err := s.RunSchedule(ctx, "none"); return err },
		},
	})
}

func TestStatementsOfAWorkerWithASchedule(t *testing.T) {
	day := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		row  []driver.Value // of schedule.find, the second time
		then []statement
	}{
		"nothing is due":            {[]driver.Value{"nightly", day.Add(time.Hour), 3, "every 24h", "UTC", 4, day.AddDate(0, 0, 1), nil, nil}, nil},
		"it is deleted":             {[]driver.Value{"nightly", day.Add(time.Hour), nil, nil, nil, 0, nil, nil, nil}, nil},
		"it has another rule":       {[]driver.Value{"nightly", day.Add(time.Hour), 3, "every 12h", "UTC", 4, day.Add(12 * time.Hour), nil, nil}, nil},
		"another rule does not run": {[]driver.Value{"nightly", day.Add(time.Hour), 3, "every 12h", "UTC", 4, day, nil, nil}, []statement{putting(day)}},
		"one is due": {[]driver.Value{"nightly", day.Add(time.Second), 3, "every 24h", "UTC", 4, day, nil, nil}, inOne(
			query("schedule.advance", 3, 4, day.AddDate(0, 0, 1).UnixMicro()).ids(3),
			query("message.enqueue", "emails", `{"To":"ada"}`, 0, nil, 0, "pgqrs-schedule:nightly@2026-01-02T00:00:00Z", `{"pgqrs-due":"2026-01-02T00:00:00Z","pgqrs-schedule":"nightly"}`).ids(7),
			query("schedule.record", 3, `[[1767312000000000,false,false,7,null]]`).row(day))},
		"another worker was first": {[]driver.Value{"nightly", day.Add(time.Second), 3, "every 24h", "UTC", 4, day, nil, nil}, inOne(
			query("schedule.advance", 3, 4, day.AddDate(0, 0, 1).UnixMicro()))},
		"it is paused": {[]driver.Value{"nightly", day.Add(time.Second), 3, "every 24h", "UTC", 4, day, day, nil}, inOne(
			query("schedule.advance", 3, 4, day.AddDate(0, 0, 1).UnixMicro()).ids(3))},
		"the instant was run before the clock went back": {[]driver.Value{"nightly", day.Add(time.Second), 3, "every 24h", "UTC", 4, day, nil, nil}, append(inVain(
			query("schedule.advance", 3, 4, day.AddDate(0, 0, 1).UnixMicro()).ids(3),
			query("message.enqueue", "emails", `{"To":"ada"}`, 0, nil, 0, "pgqrs-schedule:nightly@2026-01-02T00:00:00Z", `{"pgqrs-due":"2026-01-02T00:00:00Z","pgqrs-schedule":"nightly"}`).ids(7),
			query("schedule.record", 3, `[[1767312000000000,false,false,7,null]]`)),
			inOne(query("schedule.advance", 3, 4, day.AddDate(0, 0, 1).UnixMicro()).ids(3))...)},
		"the clock went back": {[]driver.Value{"nightly", day.Add(time.Hour), 3, "every 24h", "UTC", 4, day.AddDate(0, 0, 5), nil, nil}, inOne(
			query("schedule.advance", 3, 4, day.AddDate(0, 0, 1).UnixMicro()).ids(3))},
	} {
		t.Run(name, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d pgqrs.Dialect) {
				want := append([]statement{
					query("schedule.find", `[["nightly"]]`).row("nightly", day.Add(time.Second), nil, nil, nil, 0, nil, nil, nil),
					putting(day.AddDate(0, 0, 1)),
					query("schedule.find", `[["nightly"]]`).row(c.row...),
				}, c.then...)
				s, _ := newMock(t, d, want...)
				schedule := pgqrs.Schedule{Name: "nightly", Rule: pgqrs.Every(24 * time.Hour), Target: emails(s).Target(email{"ada"})}
				if err := (&pgqrs.Worker{Schedules: []pgqrs.Schedule{schedule}}).Tick(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// putting is the statement that writes the schedule nightly.
func putting(next time.Time) statement {
	return query("schedule.put", "nightly", "emails", false, `{"To":"ada"}`, 0, nil, nil, "every 24h", "UTC", 1, next.UnixMicro()).ids(3)
}
