package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/urfave/cli/v3"
)

const (
	look   = "Look"
	change = "Change"
)

func (a *app) queues() *cli.Command {
	return &cli.Command{
		Name: "queues", Category: look, ArgsUsage: "[QUEUE...]", Usage: "what is in each queue",
		Description: "It counts every message, including archived ones. With millions of messages stats is faster. For queues that are named it also prints the policy.",
		Flags:       nameFlags("QUEUE"),
		Action: a.on(0, -1, func(ctx context.Context, c call) error {
			queues, err := c.store.Queues(ctx, c.Args().Slice()...)
			if err != nil {
				return err
			}
			return c.listQueues(queues)
		}),
	}
}

func (c call) listQueues(queues []pgqrs.QueueInfo) error {
	found := namesOf(queues, func(q pgqrs.QueueInfo) string { return q.Name })
	page, next, err := c.pageOf("queue", found)
	if err != nil {
		return err
	}
	queues = queues[page.from:page.to]
	if len(found) > 0 || !c.Args().Present() {
		if err := list(c, "queues", queues, queueColumns); err != nil {
			return err
		}
	}
	if c.Args().Present() && !c.Bool("json") {
		c.policies(queues)
	}
	return errors.Join(c.moreNames(next), missing("queue", c.Args().Slice(), found))
}

var queueColumns = []column[pgqrs.QueueInfo]{
	{title: "QUEUE", long: true, fn: func(q pgqrs.QueueInfo) any { return q.Name }},
	{title: "", rare: true, fn: func(q pgqrs.QueueInfo) any { return pausedWord(q.PausedAt) }},
	{title: "READY", fn: func(q pgqrs.QueueInfo) any { return q.Ready }},
	{title: "OLDEST", fn: func(q pgqrs.QueueInfo) any { return oldest(q.Ready, q.OldestReady) }},
	{title: "SCHEDULED", fn: func(q pgqrs.QueueInfo) any { return q.Scheduled }},
	{title: "BLOCKED", fn: func(q pgqrs.QueueInfo) any { return q.Blocked }},
	{title: "LEASED", fn: func(q pgqrs.QueueInfo) any { return q.Leased }},
	{title: "DEAD", fn: func(q pgqrs.QueueInfo) any { return q.Dead }},
	{title: "ARCHIVED", fn: func(q pgqrs.QueueInfo) any { return q.Archived }},
}

// pausedWord returns the word for a paused object.
func pausedWord(since time.Time) any {
	if since.IsZero() {
		return nil
	}
	return "paused"
}

// policies prints since when queues are paused, and their policies.
func (c call) policies(queues []pgqrs.QueueInfo) {
	for _, q := range queues {
		if !q.PausedAt.IsZero() {
			fmt.Fprintf(c.out, "%s: paused since %s\n", clean(q.Name), moment(q.PausedAt))
		}
		if policy := q.Policy.String(); policy != "" {
			fmt.Fprintf(c.out, "%s: %s\n", clean(q.Name), clean(policy))
		}
	}
}

// missing returns an error for the first of names that is not in found.
func missing(what string, names, found []string) error {
	for _, name := range names {
		if !slices.Contains(found, name) {
			return notFound("%s %q", what, name)
		}
	}
	return nil
}

// oldest returns how long the oldest ready message has waited, if there is one.
func oldest(ready int64, age time.Duration) any {
	if ready == 0 {
		return nil
	}
	return age
}

// exists returns an error unless the queue exists. Most calls of the library treat a missing queue
// as an empty one.
func (c call) exists(ctx context.Context, name string) error {
	_, err := c.depth(ctx, name)
	return err
}

// depth returns the depth of a queue, or an error if the queue does not exist.
func (c call) depth(ctx context.Context, name string) (pgqrs.QueueDepth, error) {
	queues, err := c.store.Depths(ctx, name)
	if err == nil && len(queues) == 0 {
		err = notFound("queue %q", name)
	}
	if err != nil {
		return pgqrs.QueueDepth{}, err
	}
	return queues[0], nil
}

func (a *app) pause() *cli.Command {
	return &cli.Command{
		Name: "pause", Category: change, ArgsUsage: "QUEUE...", Usage: "stop deliveries from queues, in all processes",
		Description: "Leased messages stay leased. Messages can be enqueued meanwhile.",
		Action: a.on(1, -1, func(ctx context.Context, c call) error {
			return c.eachQueue(func(name string) error { return c.store.PauseQueue(ctx, name) }, "paused")
		}),
	}
}

func (a *app) resume() *cli.Command {
	return &cli.Command{
		Name: "resume", Category: change, ArgsUsage: "QUEUE...", Usage: "take back pause",
		Action: a.on(1, -1, func(ctx context.Context, c call) error {
			return c.eachQueue(func(name string) error { return c.store.ResumeQueue(ctx, name) }, "resumed")
		}),
	}
}

func (a *app) drop() *cli.Command {
	return &cli.Command{
		Name: "drop", Category: change, ArgsUsage: "QUEUE...", Usage: "delete queues that are empty",
		Action: a.on(1, -1, func(ctx context.Context, c call) error {
			return c.eachQueue(func(name string) error { return c.store.DropQueue(ctx, name) }, "dropped")
		}),
	}
}

// eachQueue calls do for each named queue, and reports it.
func (c call) eachQueue(do func(name string) error, what string) error {
	for _, name := range c.Args().Slice() {
		if err := do(name); err != nil {
			return err
		}
		if err := c.done(map[string]any{"queue": name, "done": what}, "Queue %q is %s.", name, what); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) purge() *cli.Command {
	return &cli.Command{
		Name: "purge", Category: change, ArgsUsage: "QUEUE", Usage: "delete all messages of a queue that are in a state",
		Description: "The runs of these messages are deleted too. Archived and dead messages stay as long as a parent run or a batch still has to read their outcome.",
		Flags:       []cli.Flag{stateFlag("")},
		Action: a.on(1, 1, func(ctx context.Context, c call) error {
			state, err := c.state()
			if err != nil {
				return err
			}
			name := c.Args().First()
			queues, err := c.store.Queues(ctx, name)
			switch {
			case err != nil:
				return err
			case len(queues) == 0:
				return notFound("queue %q", name)
			}
			if err := c.confirm("delete %s of queue %q", plural(inState(queues[0], state), string(state)+" message"), name); err != nil {
				return err
			}
			n, err := c.store.Purge(ctx, name, state)
			if err != nil {
				return err
			}
			return c.done(map[string]any{"queue": name, "state": state, "deleted": n}, "%s deleted.", plural(n, "message"))
		}),
	}
}

func inState(q pgqrs.QueueInfo, state pgqrs.MessageState) int64 {
	return map[pgqrs.MessageState]int64{
		pgqrs.Ready: q.Ready, pgqrs.Scheduled: q.Scheduled, pgqrs.Blocked: q.Blocked, pgqrs.Leased: q.Leased, pgqrs.Archived: q.Archived, pgqrs.Dead: q.Dead,
	}[state]
}
