package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/urfave/cli/v3"
)

func (a *app) runs() *cli.Command {
	// each returns a command that calls do for each named run.
	each := func(name, usage, what string, do func(context.Context, *pgqrs.RunHandle[json.RawMessage]) error) *cli.Command {
		return &cli.Command{Name: name, ArgsUsage: "ID...", Usage: usage, Action: a.on(1, -1, func(ctx context.Context, c call) error {
			return c.eachRun(ctx, what, do)
		})}
	}
	type run = *pgqrs.RunHandle[json.RawMessage]
	return &cli.Command{
		Name: "runs", Category: look, Usage: "list, show and control workflow runs",
		Commands: []*cli.Command{
			a.runsList(),
			{
				Name: "show", ArgsUsage: "ID...", Usage: "show runs: input, result, and the tree of their steps and children",
				Description: "A tree has up to 100 runs, with the latest children of each run. Times are counted from the beginning of the run at its top.",
				Action:      a.on(1, -1, func(ctx context.Context, c call) error { return c.showRuns(ctx) }),
			},
			each("pause", "stop runs before their next step, until resume", "paused", func(ctx context.Context, r run) error { return r.Pause(ctx) }),
			each("resume", "take back pause", "resumed", func(ctx context.Context, r run) error { return r.Resume(ctx) }),
			each("retry", "let failed runs go on from their failed step", "retried", func(ctx context.Context, r run) error { return r.Retry(ctx) }),
			{
				Name: "cancel", ArgsUsage: "ID...", Usage: "ask runs, and their children, to clean up and end",
				Action: a.on(1, -1, func(ctx context.Context, c call) error {
					if err := c.confirm("cancel %s", plural(int64(c.Args().Len()), "run")); err != nil {
						return err
					}
					return c.eachRun(ctx, "cancelled", func(ctx context.Context, r run) error { return r.Cancel(ctx) })
				}),
			},
			{
				Name: "rerun", ArgsUsage: "ID STEP", Usage: "start a new run with the same input, from a step on",
				Description: "The steps before it keep their results.",
				Action:      a.on(2, 2, func(ctx context.Context, c call) error { return c.rerun(ctx) }),
			},
			{
				Name: "signal", ArgsUsage: "ID SIGNAL [VALUE]", Usage: "send a signal to a run",
				Description: "The value is JSON, and null if it is left out.",
				Action:      a.on(2, 3, func(ctx context.Context, c call) error { return c.signal(ctx) }),
			},
		},
	}
}

func (a *app) runsList() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list runs, the latest first",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "workflow", Usage: "only runs of `WORKFLOW`"},
			&cli.StringFlag{Name: "state", Usage: "only runs in `STATE`: queued, running, paused, cancelling, cancelled, success or error"},
			&cli.StringFlag{Name: "parent", Usage: "only runs that the steps of run `ID` started"},
			&cli.DurationFlag{Name: "since", Usage: "only runs started within `TIME`, such as 24h"},
		}, pageFlags("ID")...),
		Action: a.on(0, 0, func(ctx context.Context, c call) error { return c.listRuns(ctx) }),
	}
}

func (c call) listRuns(ctx context.Context) error {
	f := pgqrs.RunFilter{Workflow: c.String("workflow"), Status: pgqrs.RunState(strings.ToUpper(c.String("state"))), Limit: c.Int("limit")}
	states := []pgqrs.RunState{"", pgqrs.Queued, pgqrs.Running, pgqrs.Paused, pgqrs.Cancelling, pgqrs.Cancelled, pgqrs.Succeeded, pgqrs.Failed}
	if !slices.Contains(states, f.Status) {
		return misuse(c.Command, "-state %q is not queued, running, paused, cancelling, cancelled, success or error", c.String("state"))
	}
	if c.IsSet("since") {
		f.Since = time.Now().Add(-c.Duration("since"))
	}
	for flag, id := range map[string]*int64{"parent": &f.Parent, "after": &f.Before} {
		if text := c.String(flag); text != "" {
			ids, err := c.ids([]string{text})
			if err != nil {
				return err
			}
			*id = ids[0]
		}
	}
	for first := true; ; first = false {
		page, err := c.store.Runs(ctx, f)
		if err != nil {
			return err
		}
		if first || len(page) > 0 {
			if err := list(c, "runs", page, runColumns); err != nil {
				return err
			}
		}
		if len(page) < f.Limit {
			return nil
		}
		f.Before = page[len(page)-1].ID
		if !c.Bool("all") {
			return c.more(fmt.Sprintf("-after %d", f.Before))
		}
	}
}

var runColumns = []column[pgqrs.RunInfo]{
	{title: "RUN", fn: func(r pgqrs.RunInfo) any { return r.ID }},
	{title: "WORKFLOW", long: true, fn: func(r pgqrs.RunInfo) any { return r.Workflow }},
	{title: "STATE", fn: func(r pgqrs.RunInfo) any { return string(r.Status) }},
	{title: "STARTED", fn: func(r pgqrs.RunInfo) any { return r.StartedAt }},
	{title: "TOOK", spare: true, fn: func(r pgqrs.RunInfo) any { return took(r.StartedAt, r.EndedAt) }},
	{title: "KEY", long: true, rare: true, spare: true, fn: func(r pgqrs.RunInfo) any { return r.Key }},
	{title: "ERROR", long: true, rare: true, fn: func(r pgqrs.RunInfo) any { return r.Error }},
}

// took returns a duration if both of its ends are known.
func took(from, to time.Time) any {
	if from.IsZero() || to.IsZero() {
		return nil
	}
	return to.Sub(from)
}

// run returns the run that the first argument names.
func (c call) run() (*pgqrs.RunHandle[json.RawMessage], error) {
	ids, err := c.ids(c.Args().Slice()[:1])
	if err != nil {
		return nil, err
	}
	return c.store.RunHandle(ids[0]), nil
}

// eachRun calls do for each named run, and reports it.
func (c call) eachRun(ctx context.Context, what string, do func(context.Context, *pgqrs.RunHandle[json.RawMessage]) error) error {
	ids, err := c.ids(c.Args().Slice())
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := do(ctx, c.store.RunHandle(id)); err != nil {
			return err
		}
		if err := c.done(map[string]any{"run": id, "done": what}, "Run %d is %s.", id, what); err != nil {
			return err
		}
	}
	return nil
}

func (c call) rerun(ctx context.Context) error {
	run, err := c.run()
	if err != nil {
		return err
	}
	step := c.Args().Get(1)
	again, err := run.RerunFrom(ctx, step)
	if err != nil {
		return err
	}
	return c.done(map[string]any{"run": again.ID(), "of": run.ID(), "from": step}, "Run %d does run %d again from step %q.", again.ID(), run.ID(), step)
}

func (c call) signal(ctx context.Context) error {
	run, err := c.run()
	if err != nil {
		return err
	}
	name, value := c.Args().Get(1), json.RawMessage("null")
	if c.Args().Len() > 2 {
		value = json.RawMessage(c.Args().Get(2))
	}
	if !json.Valid(value) {
		return misuse(c.Command, "the value is not JSON; a text stands in quotes: '\"yes\"'")
	}
	if err := pgqrs.Signal[json.RawMessage](name).Send(ctx, c.store, run.ID(), value); err != nil {
		return err
	}
	return c.done(map[string]any{"run": run.ID(), "signal": name}, "Signal %q is sent to run %d.", name, run.ID())
}
