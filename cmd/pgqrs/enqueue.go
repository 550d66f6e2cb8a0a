package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/urfave/cli/v3"
)

func (a *app) enqueue() *cli.Command {
	return &cli.Command{
		Name: "enqueue", Category: change, ArgsUsage: "QUEUE [PAYLOAD]", Usage: "put messages into a queue",
		Description: "A queue is made by its first message, and a note says so. The payload is JSON, from the argument, or from standard input if there is none. " +
			"With -file each line of a file is a message: they are stored in batches, and if one is refused, the error names its line and says how many were stored.\n\n" +
			"  pgqrs enqueue emails '{\"to\": \"ada\"}'\n" +
			"  pgqrs enqueue emails -text hello -key welcome:42 -delay 1m\n" +
			"  pgqrs enqueue emails -file messages.jsonl",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "file", Usage: "enqueue each line of the JSON lines in `FILE`; - is standard input"},
			&cli.BoolFlag{Name: "text", Usage: "the payload is text, and becomes a JSON string"},
			&cli.StringFlag{Name: "key", Usage: "store nothing while a message of this `KEY` is unfinished"},
			&cli.BoolFlag{Name: "unique", Usage: "fail if the key is taken (exit code 5)"},
			&cli.StringFlag{Name: "group", Usage: "put it into `GROUP`, whose messages are worked in their order"},
			&cli.DurationFlag{Name: "delay", Usage: "make it ready after `TIME`, such as 90s", Validator: func(d time.Duration) error {
				if d < 0 {
					return errors.New("it is negative")
				}
				return nil
			}},
			&cli.IntFlag{Name: "priority", Usage: "`N` from -1 to 2; higher first", Validator: within(-1, 2)},
			&cli.StringMapFlag{Name: "header", Usage: "add a header `NAME=VALUE`; may be repeated"},
		},
		DisableSliceFlagSeparator: true,
		Action: a.on(1, 2, func(ctx context.Context, c call) error {
			name := c.Args().First()
			before, err := c.store.Depths(ctx, name)
			if err != nil {
				return err
			}
			queue, enqueue := pgqrs.NewQueue[json.RawMessage](c.store, name), c.enqueueOne
			if c.IsSet("file") {
				enqueue = c.enqueueFile
			}
			if err := enqueue(ctx, queue); err != nil || len(before) > 0 {
				return err
			}
			return c.note("There was no queue %q; it has been made.", name)
		}),
	}
}

func (c call) enqueueOne(ctx context.Context, queue *pgqrs.Queue[json.RawMessage]) error {
	payload, err := c.payload()
	if err != nil {
		return err
	}
	opts := c.options()
	if key := c.String("key"); key != "" && c.Bool("unique") {
		opts = append(opts, pgqrs.Unique(key))
	} else if key != "" {
		opts = append(opts, pgqrs.Key(key))
	} else if c.Bool("unique") {
		return misuse(c.Command, "-unique needs -key")
	}
	id, err := queue.Enqueue(ctx, payload, opts...)
	if err != nil {
		return err
	}
	return c.done(map[string]any{"id": id}, "%d", id)
}

// options returns the options that every message gets.
func (c call) options() []pgqrs.Option {
	var opts []pgqrs.Option
	if c.IsSet("group") {
		opts = append(opts, pgqrs.Group(c.String("group")))
	}
	if c.IsSet("delay") {
		opts = append(opts, pgqrs.Delay(c.Duration("delay")))
	}
	if c.IsSet("priority") {
		opts = append(opts, pgqrs.Priority(c.Int("priority")))
	}
	if c.IsSet("header") {
		opts = append(opts, pgqrs.Headers(c.StringMap("header")))
	}
	return opts
}

// payload reads the payload from the argument or from standard input.
func (c call) payload() (json.RawMessage, error) {
	text := c.Args().Get(1)
	if c.Args().Len() < 2 {
		if c.asks {
			if err := c.note("Reading the payload from the terminal; end it with Ctrl-D."); err != nil {
				return nil, err
			}
		}
		input, err := io.ReadAll(c.in)
		if err != nil {
			return nil, fmt.Errorf("read the payload: %w", err)
		}
		text = string(input)
	}
	if c.Bool("text") {
		return json.Marshal(text)
	}
	if !json.Valid([]byte(text)) {
		return nil, misuse(c.Command, "the payload is not JSON; -text takes it as text")
	}
	return json.RawMessage(strings.TrimSpace(text)), nil
}

// enqueueFile enqueues the lines of a file.
func (c call) enqueueFile(ctx context.Context, queue *pgqrs.Queue[json.RawMessage]) error {
	if c.Args().Len() > 1 || c.IsSet("key") || c.Bool("unique") {
		return misuse(c.Command, "-file goes with neither a payload nor a key")
	}
	in, size, err := c.open(c.String("file"))
	if err != nil {
		return err
	}
	defer in.Close()
	l := &loader{queue: queue, opts: c.options(), text: c.Bool("text")}
	if c.progress {
		l.bar = &bar{out: c.err, size: size}
	}
	err = l.load(ctx, in)
	l.bar.clear()
	if err != nil {
		return fmt.Errorf("%w (stored before it: %s)", err, plural(l.stored, "message"))
	}
	return c.done(map[string]any{"enqueued": l.stored}, "%s enqueued.", plural(l.stored, "message"))
}

// open opens a file and returns its size, or 0 if the size is unknown.
func (c call) open(name string) (io.ReadCloser, int64, error) {
	if name == "-" {
		return io.NopCloser(c.in), 0, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		return f, info.Size(), nil
	}
	return f, 0, nil
}
