package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/urfave/cli/v3"
)

func (a *app) stats() *cli.Command {
	return &cli.Command{
		Name: "stats", Category: look, Usage: "depth, pace and workers of each queue, and of all",
		Description: fmt.Sprintf("WORKERS counts the live workers that take messages. A queue with ready messages and no such worker is marked \"no worker\". GROWTH is the change of the ready, scheduled, blocked and leased messages in a second, measured between two readings. "+
			"DONE/MIN counts the messages that were archived in the last minute and have not been deleted or redriven since. "+
			"The command counts no history, and at most %d messages of each kind. The command queues counts all messages. TOTAL is the sum of all queues, even if some are on other pages.", pgqrs.DepthLimit),
		Flags:  append([]cli.Flag{&cli.DurationFlag{Name: "over", Value: 2 * time.Second, Usage: "measure growth over `TIME`, or not at all if 0"}}, nameFlags("QUEUE")...),
		Action: a.on(0, 0, func(ctx context.Context, c call) error { return c.stats(ctx) }),
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
	all := sum(paces)
	page, next, err := c.pageOf("queue", namesOf(paces, func(p pace) string { return p.Name }))
	if err != nil {
		return err
	}
	paces = paces[page.from:page.to]
	if len(now.queues) > 1 && !c.Bool("json") {
		paces = append(slices.Clip(paces), all)
	}
	return errors.Join(list(c, "queues", paces, paceColumns), c.moreNames(next))
}

var paceColumns = []column[pace]{
	{title: "QUEUE", long: true, fn: func(p pace) any { return p.Name }},
	{title: "", rare: true, fn: func(p pace) any { return obstacle(p) }},
	{title: "READY", fn: func(p pace) any { return bounded(p.Ready) }},
	{title: "OLDEST", fn: func(p pace) any { return oldest(p.Ready, p.OldestReady) }},
	{title: "SCHEDULED", spare: true, fn: func(p pace) any { return bounded(p.Scheduled) }},
	{title: "BLOCKED", rare: true, spare: true, fn: func(p pace) any {
		if p.Blocked == 0 {
			return nil
		}
		return bounded(p.Blocked)
	}},
	{title: "LEASED", fn: func(p pace) any { return bounded(p.Leased) }},
	{title: "DEAD", fn: func(p pace) any { return bounded(p.Dead) }},
	{title: "GROWTH", spare: true, fn: func(p pace) any {
		if !p.known {
			return nil
		}
		return p.growth
	}},
	{title: "DONE/MIN", fn: func(p pace) any { return bounded(p.ArchivedLastMinute) }},
	{title: "WORKERS", fn: func(p pace) any { return p.Workers }},
}

// obstacle returns why nobody handles a queue's ready messages, if there is a reason.
func obstacle(p pace) any {
	if unattended(p.QueueDepth) && p.Name != total {
		return "no worker"
	}
	return pausedWord(p.PausedAt)
}

// unattended reports whether a queue that is not paused has ready messages but no live worker.
func unattended(q pgqrs.QueueDepth) bool { return q.Ready > 0 && q.Workers == 0 && q.PausedAt.IsZero() }

// A bounded is a count of Store.Depths, which ends at DepthLimit.
type bounded int64

func (n bounded) String() string {
	if n >= pgqrs.DepthLimit {
		return strconv.Itoa(pgqrs.DepthLimit) + "+"
	}
	return strconv.FormatInt(int64(n), 10)
}

// MarshalJSON writes the queue's depth with its pace.
func (p pace) MarshalJSON() ([]byte, error) {
	more := struct {
		NoWorker bool     `json:"no_worker,omitzero"`
		Growth   *float64 `json:"growth_per_second"` // null if it is not known
	}{NoWorker: unattended(p.QueueDepth)}
	if p.known {
		more.Growth = &p.growth
	}
	return joinJSON(p.QueueDepth, more)
}
