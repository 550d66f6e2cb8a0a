package main

import (
	"context"
	"fmt"

	"github.com/pgqrs/pgqrs-go"
	"github.com/urfave/cli/v3"
)

func (a *app) dead() *cli.Command {
	return &cli.Command{
		Name: "dead", Category: look, Usage: "list dead letters and run them again",
		Commands: []*cli.Command{
			{
				Name: "list", ArgsUsage: "[QUEUE]", Usage: "list the dead letters of a queue or of all queues, the latest first",
				Flags: pageFlags("CURSOR"),
				Action: a.on(0, 1, func(ctx context.Context, c call) error {
					if c.Args().Present() {
						return c.listMessages(ctx, c.Args().First(), pgqrs.Dead)
					}
					return c.listAllDead(ctx)
				}),
			},
			{
				Name: "redrive", ArgsUsage: "ID... | -all QUEUE", Usage: "make dead letters ready again",
				Description: "They get all their attempts again. A message whose key has been taken since is left, and the exit code is 5. " +
					"Archived messages can be run again by their ids too.",
				Flags: []cli.Flag{&cli.StringFlag{Name: "all", Usage: "redrive all dead letters of `QUEUE`"}},
				Action: a.on(0, -1, func(ctx context.Context, c call) error {
					return c.redrive(ctx)
				}),
			},
		},
	}
}

func (c call) redrive(ctx context.Context) error {
	queue := c.String("all")
	if (queue == "") == !c.Args().Present() {
		return misuse(c.Command, "it needs ids, or -all QUEUE")
	}
	if queue == "" {
		ids, err := c.ids(c.Args().Slice())
		if err != nil {
			return err
		}
		n, err := c.store.Redrive(ctx, ids...)
		return c.counted(n, err, "redriven")
	}
	if err := c.exists(ctx, queue); err != nil {
		return err
	}
	n, err := c.store.RedriveAll(ctx, queue)
	if n == 0 && err == nil {
		return c.done(map[string]any{"redriven": n}, "Queue %q has no dead letters.", queue)
	}
	return c.counted(n, err, "redriven")
}

// listAllDead lists the dead letters of every queue that has some.
func (c call) listAllDead(ctx context.Context) error {
	if c.String("after") != "" {
		return misuse(c.Command, "-after needs a queue")
	}
	queues, err := c.store.Depths(ctx)
	if err != nil {
		return err
	}
	none := true
	for _, q := range queues {
		if q.Dead == 0 {
			continue
		}
		if !c.Bool("json") {
			if !none {
				fmt.Fprintln(c.out)
			}
			fmt.Fprintf(c.out, "%s: %v\n", clean(q.Name), bounded(q.Dead))
		}
		none = false
		if err := c.listMessages(ctx, q.Name, pgqrs.Dead); err != nil {
			return err
		}
	}
	if none {
		return c.note("no dead letters")
	}
	return nil
}
