package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgqrs/pgqrs-go"
	"github.com/urfave/cli/v3"
)

func (a *app) schedules() *cli.Command {
	return &cli.Command{
		Name: "schedules", Category: look, Usage: "list, pause and run what is enqueued by the clock",
		Commands: []*cli.Command{
			{
				Name: "list", ArgsUsage: "[SCHEDULE...]", Usage: "list schedules, with their next instant and the outcome of the latest run",
				Flags:  nameFlags("SCHEDULE"),
				Action: a.on(0, -1, func(ctx context.Context, c call) error { return c.listSchedules(ctx) }),
			},
			{
				Name: "history", ArgsUsage: "SCHEDULE", Usage: "list the latest runs of a schedule",
				Flags: []cli.Flag{&cli.IntFlag{Name: "limit", Value: 20, Usage: "list up to `N`, at most 1000", Validator: within(1, 1000)}},
				Action: a.on(1, 1, func(ctx context.Context, c call) error {
					runs, err := c.store.ScheduleRuns(ctx, c.Args().First(), c.Int("limit"))
					if err != nil {
						return err
					}
					return list(c, "runs", runs, scheduleRunColumns)
				}),
			},
			{
				Name: "pause", ArgsUsage: "SCHEDULE...", Usage: "stop schedules, in all processes",
				Description: "Instants during the pause are skipped.",
				Action: a.on(1, -1, func(ctx context.Context, c call) error {
					return c.eachSchedule(ctx, c.store.PauseSchedule, "paused")
				}),
			},
			{
				Name: "resume", ArgsUsage: "SCHEDULE...", Usage: "end a pause",
				Action: a.on(1, -1, func(ctx context.Context, c call) error {
					return c.eachSchedule(ctx, c.store.ResumeSchedule, "resumed")
				}),
			},
			{
				Name: "run", ArgsUsage: "SCHEDULE...", Usage: "run schedules now, paused or not",
				Action: a.on(1, -1, func(ctx context.Context, c call) error {
					for _, name := range c.Args().Slice() {
						if err := c.runSchedule(ctx, name); err != nil {
							return err
						}
					}
					return nil
				}),
			},
			{
				Name: "delete", ArgsUsage: "SCHEDULE...", Usage: "delete schedules with their history",
				Description: "Messages and runs that they enqueued stay. A worker with the schedule in its code creates it again when it starts.",
				Action: a.on(1, -1, func(ctx context.Context, c call) error {
					if err := c.confirm("delete %s", plural(int64(c.Args().Len()), "schedule")); err != nil {
						return err
					}
					return c.eachSchedule(ctx, c.store.DeleteSchedule, "deleted")
				}),
			},
		},
	}
}

func (c call) listSchedules(ctx context.Context) error {
	schedules, err := c.store.Schedules(ctx, c.Args().Slice()...)
	if err != nil {
		return err
	}
	found := namesOf(schedules, func(s pgqrs.ScheduleInfo) string { return s.Name })
	page, next, err := c.pageOf("schedule", found)
	if err != nil {
		return err
	}
	if len(schedules) > 0 || !c.Args().Present() {
		if err := list(c, "schedules", schedules[page.from:page.to], scheduleColumns); err != nil {
			return err
		}
	}
	return errors.Join(c.moreNames(next), missing("schedule", c.Args().Slice(), found))
}

// eachSchedule calls do for each named schedule, and reports it.
func (c call) eachSchedule(ctx context.Context, do func(context.Context, string) error, what string) error {
	for _, name := range c.Args().Slice() {
		if err := do(ctx, name); err != nil {
			return err
		}
		if err := c.done(map[string]any{"schedule": name, "done": what}, "Schedule %q is %s.", name, what); err != nil {
			return err
		}
	}
	return nil
}

func (c call) runSchedule(ctx context.Context, name string) error {
	run, err := c.store.RunSchedule(ctx, name)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("enqueued message %d", run.MessageID)
	switch {
	case run.RunID != 0:
		what = fmt.Sprintf("started run %d", run.RunID)
	case run.Duplicate:
		what = fmt.Sprintf("enqueued nothing: message %d of the same key is unfinished", run.MessageID)
	}
	object := map[string]any{"schedule": name, "done": "run", "duplicate": run.Duplicate}
	if run.RunID != 0 {
		object["run"] = run.RunID
	} else {
		object["message"] = run.MessageID
	}
	return c.done(object, "Schedule %q has %s.", name, what)
}

var scheduleColumns = []column[pgqrs.ScheduleInfo]{
	{title: "SCHEDULE", long: true, fn: func(s pgqrs.ScheduleInfo) any { return s.Name }},
	{title: "", rare: true, fn: func(s pgqrs.ScheduleInfo) any { return pausedWord(s.PausedAt) }},
	{title: "RULE", long: true, fn: func(s pgqrs.ScheduleInfo) any { return s.Rule + " " + s.Zone }},
	{title: "NEXT", fn: func(s pgqrs.ScheduleInfo) any { return s.NextAt }},
	{title: "LAST", spare: true, fn: func(s pgqrs.ScheduleInfo) any { return lastOf(s).DueAt }},
	{title: "STATE", fn: func(s pgqrs.ScheduleInfo) any { return became(lastOf(s)) }},
	{title: "QUEUE", long: true, spare: true, fn: func(s pgqrs.ScheduleInfo) any { return s.Queue }},
}

// lastOf returns a schedule's latest run, or a zero run if there is none.
func lastOf(s pgqrs.ScheduleInfo) pgqrs.ScheduleRun {
	if s.Last == nil {
		return pgqrs.ScheduleRun{}
	}
	return *s.Last
}

// became returns the outcome of a run.
func became(r pgqrs.ScheduleRun) any {
	switch {
	case r.DueAt.IsZero():
		return nil
	case r.Duplicate:
		return "duplicate"
	case r.RunState != "":
		return string(r.RunState)
	case r.MessageState != "":
		return string(r.MessageState)
	}
	return "gone"
}

var scheduleRunColumns = []column[pgqrs.ScheduleRun]{
	{title: "DUE", fn: func(r pgqrs.ScheduleRun) any { return r.DueAt }},
	{title: "RAN", spare: true, fn: func(r pgqrs.ScheduleRun) any { return r.RanAt }},
	{title: "BY HAND", fn: func(r pgqrs.ScheduleRun) any { return map[bool]any{true: "yes"}[r.ByHand] }},
	{title: "MESSAGE", fn: func(r pgqrs.ScheduleRun) any { return idOrNone(r.MessageID) }},
	{title: "RUN", fn: func(r pgqrs.ScheduleRun) any { return idOrNone(r.RunID) }},
	{title: "STATE", fn: func(r pgqrs.ScheduleRun) any { return became(r) }},
}

func idOrNone(id int64) any {
	if id == 0 {
		return nil
	}
	return id
}
