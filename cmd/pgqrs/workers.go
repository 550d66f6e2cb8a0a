package main

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/urfave/cli/v3"
)

func (a *app) workers() *cli.Command {
	return &cli.Command{
		Name: "workers", Category: look, Usage: "list and control workers",
		Description: "A worker has a row for each of its queues. A change to a row affects the worker in that queue. A row is named by its id or its name.",
		Commands: []*cli.Command{
			{
				Name: "list", Usage: "list workers, with the number of messages they hold",
				Flags:  []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "also list stopped workers"}},
				Action: a.on(0, 0, func(ctx context.Context, c call) error { return c.listWorkers(ctx) }),
			},
			{
				Name: "suspend", ArgsUsage: "ID|WORKER...", Usage: "make workers claim no more, until resume",
				Action: a.on(1, -1, func(ctx context.Context, c call) error {
					return c.eachWorker(ctx, c.store.SuspendWorker, "suspended")
				}),
			},
			{
				Name: "resume", ArgsUsage: "ID|WORKER...", Usage: "end a suspension or an interrupt",
				Action: a.on(1, -1, func(ctx context.Context, c call) error {
					return c.eachWorker(ctx, c.store.ResumeWorker, "resumed")
				}),
			},
			{
				Name: "interrupt", ArgsUsage: "ID|WORKER...", Usage: "ask workers to suspend themselves with their next heartbeat",
				Action: a.on(1, -1, func(ctx context.Context, c call) error {
					return c.eachWorker(ctx, c.store.InterruptWorker, "interrupted")
				}),
			},
			{
				Name: "shutdown", ArgsUsage: "ID|WORKER...", Usage: "make workers stop for good, after what they have begun",
				Action: a.on(1, -1, func(ctx context.Context, c call) error {
					if err := c.confirm("stop %s for good", plural(int64(c.Args().Len()), "worker")); err != nil {
						return err
					}
					return c.eachWorker(ctx, c.store.StopWorker, "stopped")
				}),
			},
		},
	}
}

func (c call) listWorkers(ctx context.Context) error {
	all, err := c.store.Workers(ctx)
	if err != nil {
		return err
	}
	var workers []pgqrs.WorkerInfo
	for _, w := range all {
		if c.Bool("all") || w.State != pgqrs.WorkerStopped {
			workers = append(workers, w)
		}
	}
	return list(c, "workers", workers, workerColumns)
}

var workerColumns = []column[pgqrs.WorkerInfo]{
	{title: "ID", fn: func(w pgqrs.WorkerInfo) any { return w.ID }},
	{title: "WORKER", long: true, fn: func(w pgqrs.WorkerInfo) any { return w.Name }},
	{title: "QUEUE", long: true, fn: func(w pgqrs.WorkerInfo) any { return w.Queue }},
	{title: "STATE", fn: func(w pgqrs.WorkerInfo) any { return string(w.State) }},
	{title: "LEASED", fn: func(w pgqrs.WorkerInfo) any { return w.Leased }},
	{title: "STARTED", spare: true, fn: func(w pgqrs.WorkerInfo) any { return w.StartedAt }},
	{title: "HEARTBEAT", fn: func(w pgqrs.WorkerInfo) any { return ago(w.HeartbeatAt) }},
}

// ago returns how long ago a time was.
func ago(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return span(max(0, time.Since(t))) + " ago"
}

// eachWorker calls do for each named worker, and reports it.
func (c call) eachWorker(ctx context.Context, do func(context.Context, int64) error, what string) error {
	ids, err := c.workerIDs(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := do(ctx, id); err != nil {
			return err
		}
		if err := c.done(map[string]any{"worker": id, "done": what}, "Worker %d is %s.", id, what); err != nil {
			return err
		}
	}
	return nil
}

// workerIDs returns the ids of the workers that the arguments name by id or by name.
func (c call) workerIDs(ctx context.Context) ([]int64, error) {
	args := c.Args().Slice()
	if ids, err := c.ids(args); err == nil {
		return ids, nil
	}
	all, err := c.store.Workers(ctx)
	if err != nil {
		return nil, err
	}
	var ids []int64
	for _, arg := range args {
		i := slices.IndexFunc(all, func(w pgqrs.WorkerInfo) bool { return w.Name == arg || strconv.FormatInt(w.ID, 10) == arg })
		if i < 0 {
			return nil, notFound("worker %q", arg)
		}
		ids = append(ids, all[i].ID)
	}
	return ids, nil
}
