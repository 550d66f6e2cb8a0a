package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/cmd/pgqrs/internal/demo"
	"github.com/urfave/cli/v3"
)

func (a *app) demo() *cli.Command {
	return &cli.Command{
		Name: "demo", Category: setUp, Usage: "a small shop at work on a temporary SQLite file, to look at",
		Description: "It enqueues and handles messages until it is interrupted. Some messages fail and become dead letters, and some are workflow runs. The file is removed at the end. " +
			"It leaves the database of -dsn alone.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "file", Usage: "use `FILE`, and keep it"},
			&cli.DurationFlag{Name: "for", Usage: "end after `TIME`, such as 1m"},
			&cli.DurationFlag{Name: "interval", Value: 250 * time.Millisecond, Usage: "make something happen every `TIME`"},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := checkArguments(cmd, 0, 0); err != nil {
				return err
			}
			if cmd.Duration("interval") <= 0 {
				return misuse(cmd, "-interval must be more than 0")
			}
			return a.runDemo(ctx, cmd)
		},
	}
}

func (a *app) runDemo(ctx context.Context, cmd *cli.Command) (err error) {
	file := cmd.String("file")
	if file == "" {
		dir, err := os.MkdirTemp("", "pgqrs-demo-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		file = filepath.Join(dir, "demo.db")
	}
	if d := cmd.Duration("for"); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	dsn := "sqlite:" + file
	store, err := pgqrs.Open(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	fmt.Fprintf(a.out, "The shop is open. Look at it from another terminal:\n\n  pgqrs -dsn %s top\n\nCtrl-C closes it.\n", dsn)
	shop := demo.Shop{Interval: cmd.Duration("interval"), Seed: uint64(time.Now().UnixNano())}
	if err := shop.Run(ctx, store); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
