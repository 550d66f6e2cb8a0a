package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/urfave/cli/v3"
)

// workExample is a command that is safe for any payload: options and newlines have no special
// meaning in it.
const workExample = `  pgqrs work emails 'to=$(jq -er .to) && ./send -- "$to"'`

func (a *app) work() *cli.Command {
	two := 2
	return &cli.Command{
		Name: "work", Category: change, ArgsUsage: "QUEUE COMMAND", Usage: "run a shell command for each message of a queue",
		Description: "The payload is the command's standard input, and its exit code decides. 0 acks the message. 65 sends it to the dead letters. " +
			"75 means not now: it comes back in a minute, and the attempt does not count. After any other code, or a signal, it is tried again after a backoff, " +
			"and in the end goes to the dead letters. The end of what the command writes to standard error is kept as the message's error.\n\n" +
			workExample + "\n\n" +
			"Payloads, keys and headers may hold any text that somebody enqueued. So quote their values, and put -- before them.\n\n" +
			"PGQRS_ID, PGQRS_QUEUE, PGQRS_ATTEMPT, PGQRS_PRIORITY, PGQRS_KEY and PGQRS_HEADERS (JSON) are in its environment. " +
			"Unless -pass-dsn is given, these are not: other PGQRS_ variables, PostgreSQL's PGPASSWORD, PGPASSFILE, PGSERVICEFILE, PGSSLKEY and PGSSLPASSWORD, " +
			"and any variable that contains the DSN or its password, except PATH and HOME, of which it warns. " +
			"A password that has less than 8 characters, or is also a name in the DSN, counts only if it is a whole value or the password in another DSN. " +
			"More arguments are passed to the command as they are, without a shell. Flags come before COMMAND.\n\n" +
			"It runs until it is interrupted. Running commands then have 30 s to finish. To end a command, SIGTERM is sent to it and all processes that it started, and SIGKILL 5 s later. " +
			"On Linux this includes a process in a session of its own, unless the process's parent has ended before. Elsewhere it is the command's process group, and on Windows the command alone.",
		StopOnNthArg: &two,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "concurrency", Value: 1, Usage: "run `N` commands at a time"},
			&cli.DurationFlag{Name: "timeout", Usage: "end a command after `TIME`, which fails its attempt"},
			&cli.IntFlag{Name: "attempts", Value: 5, Usage: "give a message `N` attempts, or no limit if -1"},
			&cli.DurationFlag{Name: "lease", Value: 30 * time.Second, Usage: "let others take a message `TIME` after the last sign of this process"},
			&cli.StringFlag{Name: "name", Usage: "the worker's `NAME`, instead of one made of host and process"},
			&cli.BoolFlag{Name: "envelope", Usage: "write the whole message to standard input, as JSON with a payload in it, and nothing of it into the environment"},
			&cli.BoolFlag{Name: "pass-dsn", Usage: "pass PGQRS_DSN and the whole environment to commands"},
			&cli.BoolFlag{Name: "drain", Usage: "end once no message is ready or leased"},
		},
		Action: a.on(2, -1, func(ctx context.Context, c call) error { return c.work(ctx) }),
	}
}

func (c call) work(ctx context.Context) error {
	queue := pgqrs.NewQueue[json.RawMessage](c.store, c.Args().First()).With(pgqrs.Policy{
		MaxAttempts: c.Int("attempts"), Timeout: c.Duration("timeout"),
	})
	env, err := c.environment()
	if err != nil {
		return err
	}
	command := command{
		args: c.Args().Tail(), env: env, envelope: c.Bool("envelope"),
		stdout: &sharedWriter{w: c.out}, stderr: c.err,
	}
	worker := &pgqrs.Worker{
		Name: c.String("name"), Concurrency: c.Int("concurrency"), Lease: c.Duration("lease"),
		Handlers: []pgqrs.Handler{queue.Handle(func(ctx context.Context, m *pgqrs.Message[json.RawMessage]) error {
			return command.run(ctx, m)
		})},
	}
	if !c.Bool("drain") {
		return worker.Run(ctx)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	err = c.untilDrained(ctx, c.Args().First(), ended)
	stop()
	return errors.Join(err, <-ended)
}

// environment returns the environment of every command. It warns of a variable that reveals the
// password and is kept nevertheless.
func (c call) environment() ([]string, error) {
	if c.Bool("pass-dsn") {
		return append(os.Environ(), "PGQRS_DSN="+c.dsn), nil
	}
	env, revealing := withoutSecrets(os.Environ(), c.dsn)
	for _, name := range revealing {
		if err := c.note("%s contains the DSN or its password, and commands get it nevertheless. Choose another password.", name); err != nil {
			return nil, err
		}
	}
	return env, nil
}

// untilDrained returns when a queue has no ready or leased message, or when the worker has ended.
func (c call) untilDrained(ctx context.Context, name string, ended chan error) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		queues, err := c.store.Depths(ctx, name)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if len(queues) == 0 || queues[0].Ready+queues[0].Leased == 0 {
			return nil
		}
		select {
		case err := <-ended:
			ended <- err
			return nil
		case <-tick.C:
		}
	}
}
