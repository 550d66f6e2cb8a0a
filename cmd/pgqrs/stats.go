package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v3"
)

func (a *app) stats() *cli.Command {
	return &cli.Command{
		Name: "stats", Category: look, Usage: "depth, rates and workers of each queue, and of all",
		Description: "The rates are messages a second between two looks at the database. What was deleted in between is missing from them.",
		Flags:       []cli.Flag{&cli.DurationFlag{Name: "over", Value: 2 * time.Second, Usage: "measure rates over `TIME`; 0 measures none"}},
		Action:      a.on(0, 0, func(ctx context.Context, c call) error { return c.stats(ctx) }),
	}
}

func (c call) stats(ctx context.Context) error {
	before, err := takeSnapshot(ctx, c.store)
	if err != nil {
		return err
	}
	now := before
	if over := c.Duration("over"); over > 0 {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(over):
		}
		if now, err = takeSnapshot(ctx, c.store); err != nil {
			return err
		}
	}
	paces := now.paces(before)
	if len(paces) > 1 && !c.Bool("json") {
		paces = append(paces, sum(paces))
	}
	return list(c, "queues", paces, paceColumns, viewPace)
}

var paceColumns = []column[pace]{
	{title: "QUEUE", long: true, fn: func(p pace) any { return p.Name }},
	{title: "READY", fn: func(p pace) any { return p.Ready }},
	{title: "OLDEST", fn: func(p pace) any { return oldest(p.QueueInfo) }},
	{title: "SCHEDULED", fn: func(p pace) any { return p.Scheduled }},
	{title: "LEASED", fn: func(p pace) any { return p.Leased }},
	{title: "DEAD", fn: func(p pace) any { return p.Dead }},
	{title: "IN/S", fn: func(p pace) any { return p.in }},
	{title: "DONE/S", fn: func(p pace) any { return p.done }},
	{title: "DIED/S", fn: func(p pace) any { return p.died }},
	{title: "WORKERS", fn: func(p pace) any { return p.workers }},
	{title: "", fn: func(p pace) any {
		if p.PausedAt.IsZero() {
			return nil
		}
		return "paused"
	}},
}

// A paceView is a queue with its rates as JSON.
type paceView struct {
	queueView
	Workers int64   `json:"workers"`
	In      float64 `json:"in_per_second"`
	Done    float64 `json:"done_per_second"`
	Died    float64 `json:"died_per_second"`
}

func viewPace(p pace) paceView {
	return paceView{viewQueue(p.QueueInfo), p.workers, p.in, p.done, p.died}
}
