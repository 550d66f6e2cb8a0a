package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/ahead"
	"github.com/urfave/cli/v3"
)

func (a *app) messages() *cli.Command {
	return &cli.Command{
		Name: "messages", Category: look, Usage: "list, show and delete messages",
		Commands: []*cli.Command{
			{
				Name: "list", ArgsUsage: "QUEUE", Usage: "list the messages of a queue that are in a state",
				Description: "Ready and scheduled messages are sorted by due time, leased ones by the end of their lease, and blocked ones by id. Of archived and dead messages the latest come first.",
				Flags:       append([]cli.Flag{stateFlag(pgqrs.Ready)}, pageFlags("CURSOR")...),
				Action: a.on(1, 1, func(ctx context.Context, c call) error {
					state, err := c.state()
					if err != nil {
						return err
					}
					return c.listMessages(ctx, c.Args().First(), state)
				}),
			},
			{
				Name: "show", ArgsUsage: "ID...", Usage: "show messages: payload, error, attempts",
				Action: a.on(1, -1, func(ctx context.Context, c call) error {
					ids, err := c.ids(c.Args().Slice())
					if err != nil {
						return err
					}
					return c.showMessages(ctx, ids)
				}),
			},
			{
				Name: "delete", ArgsUsage: "ID...", Usage: "delete messages, with the runs that hang on them",
				Action: a.on(1, -1, func(ctx context.Context, c call) error {
					ids, err := c.ids(c.Args().Slice())
					if err != nil {
						return err
					}
					if err := c.confirm("delete %s", plural(int64(len(ids)), "message")); err != nil {
						return err
					}
					n, err := c.store.Delete(ctx, ids...)
					return c.counted(n, err, "deleted")
				}),
			},
		},
	}
}

// counted reports how many messages were changed. It returns a not-found error if there were none.
func (c call) counted(n int64, err error, what string) error {
	if err == nil && n == 0 {
		return notFound("no message was %s", what)
	}
	return errors.Join(c.done(map[string]any{what: n}, "%s %s.", plural(n, "message"), what), err)
}

func stateFlag(value pgqrs.MessageState) cli.Flag {
	return &cli.StringFlag{
		Name: "state", Value: string(value),
		Usage: "those in `STATE`, which is ready, scheduled, blocked, leased, archived or dead",
	}
}

// state returns the value of -state.
func (c call) state() (pgqrs.MessageState, error) {
	state := pgqrs.MessageState(strings.ToLower(c.String("state")))
	if state == "" {
		return "", misuse(c.Command, "it needs -state")
	}
	if !slices.Contains([]pgqrs.MessageState{pgqrs.Ready, pgqrs.Scheduled, pgqrs.Blocked, pgqrs.Leased, pgqrs.Archived, pgqrs.Dead}, state) {
		return "", misuse(c.Command, "-state %q is not ready, scheduled, blocked, leased, archived or dead", string(state))
	}
	return state, nil
}

// pageFlags returns the flags of a command that lists one page at a time.
func pageFlags(cursor string) []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "limit", Value: 50, Usage: "list up to `N`, at most 1000", Validator: within(1, 1000)},
		&cli.StringFlag{Name: "after", Usage: "begin after `" + cursor + "`, which the previous page ends with"},
		&cli.BoolFlag{Name: "all", Usage: "list all pages"},
	}
}

// within returns a Validator for flags.
func within(least, most int) func(int) error {
	return func(n int) error {
		if n < least || n > most {
			return fmt.Errorf("%d is not between %d and %d", n, least, most)
		}
		return nil
	}
}

// ids reads ids from arguments.
func (c call) ids(args []string) ([]int64, error) {
	ids := make([]int64, len(args))
	for i, arg := range args {
		id, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || id < 1 {
			return nil, misuse(c.Command, "%q is not an id", arg)
		}
		ids[i] = id
	}
	return ids, nil
}

// listMessages lists a page of messages, or with -all every page.
func (c call) listMessages(ctx context.Context, queue string, state pgqrs.MessageState) error {
	depth, err := c.depth(ctx, queue)
	if err != nil {
		return err
	}
	f := pgqrs.MessageFilter{Queue: queue, State: state, After: c.String("after"), Limit: c.Int("limit")}
	columns := messageColumns(state)
	for {
		page, err := c.store.Messages(ctx, f)
		if err != nil {
			return err
		}
		if len(page) == 0 && f.After == "" && !c.Bool("json") {
			return c.note("no %s messages%s", state, elsewhere(depth, state))
		}
		if f.After == c.String("after") || len(page) > 0 {
			if err := list(c, string(state)+" messages", page, columns); err != nil {
				return err
			}
		}
		if len(page) < f.Limit {
			return nil
		}
		f.After = page[len(page)-1].Cursor
		if !c.Bool("all") {
			return c.more("-after '" + f.After + "'")
		}
	}
}

// elsewhere returns, in brackets, the other states in which a queue has messages.
func elsewhere(q pgqrs.QueueDepth, state pgqrs.MessageState) string {
	var parts []string
	for _, other := range []struct {
		state pgqrs.MessageState
		n     int64
	}{{pgqrs.Ready, q.Ready}, {pgqrs.Scheduled, q.Scheduled}, {pgqrs.Blocked, q.Blocked}, {pgqrs.Leased, q.Leased}, {pgqrs.Dead, q.Dead}} {
		if other.n > 0 && other.state != state {
			parts = append(parts, fmt.Sprintf("%v %s", bounded(other.n), other.state))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// more prints how to get the next page. With -json each line has its cursor.
func (c call) more(flags string) error {
	if c.Bool("json") {
		return nil
	}
	return c.note("There may be more: %s", flags)
}

// messageColumns returns the columns that make sense for a state.
func messageColumns(state pgqrs.MessageState) []column[pgqrs.MessageInfo] {
	type m = pgqrs.MessageInfo
	id := column[m]{title: "ID", fn: func(m m) any { return m.ID }}
	attempt := column[m]{title: "ATTEMPT", spare: true, fn: func(m m) any { return m.Attempt }}
	key := column[m]{title: "KEY", long: true, rare: true, fn: func(m m) any { return m.Key }}
	due := column[m]{title: "DUE", fn: func(m m) any { return m.DueAt }}
	lease := column[m]{title: "LEASED UNTIL", fn: func(m m) any { return m.LeasedUntil }}
	worker := column[m]{title: "WORKER", spare: true, fn: func(m m) any { return m.WorkerID }}
	ended := column[m]{title: "ENDED", fn: func(m m) any { return m.EndedAt }}
	failure := column[m]{title: "ERROR", long: true, rare: true, fn: func(m m) any { return m.LastError }}
	group := column[m]{title: "GROUP", long: true, rare: true, fn: func(m m) any { return m.Group }}
	payload := column[m]{title: "PAYLOAD", long: true, fn: func(m m) any { return listed(m.Raw, m.PayloadSize) }}
	switch state {
	case pgqrs.Leased:
		return []column[m]{id, lease, worker, attempt, key, failure, payload}
	case pgqrs.Blocked:
		return []column[m]{id, due, group, key, payload}
	case pgqrs.Archived:
		return []column[m]{id, ended, attempt, key, payload}
	case pgqrs.Dead:
		return []column[m]{id, ended, attempt, key, failure, payload}
	}
	return []column[m]{id, due, attempt, key, failure, payload}
}

func (c call) showMessages(ctx context.Context, ids []int64) error {
	var missing []int64
	for i, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		m, err := c.store.Message(ctx, id) // one at a time, because each may be large
		if errors.Is(err, pgqrs.ErrNotFound) {
			missing = append(missing, id)
			continue
		}
		if err != nil {
			return err
		}
		wait, err := ahead.Of(ctx, c.store, m)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			err = writeJSON(c.out, shownMessage{m, wait})
		} else {
			if i > len(missing) {
				fmt.Fprintln(c.out)
			}
			err = c.showMessage(m, wait)
		}
		if err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		return notFound("message %d", missing[0])
	}
	return nil
}

func (c call) showMessage(m pgqrs.MessageInfo, wait ahead.Wait) error {
	fields := []field{
		{"message", m.ID}, {"queue", m.Queue}, {"state", string(m.State)}, {"attempts", m.Attempt},
		{"priority", m.Priority}, {"key", m.Key}, {"group", m.Group},
		{"enqueued", m.EnqueuedAt}, {"due", m.DueAt}, {"leased until", m.LeasedUntil}, {"ended", m.EndedAt},
	}
	if m.BatchID != 0 {
		fields = append(fields, field{"batch of", m.BatchID})
	}
	for _, other := range wait.Messages {
		fields = append(fields, field{"waits for", standing(other)})
	}
	switch {
	case wait.Cut:
		fields = append(fields, field{"waits for", "there may be others, which were not looked for further"})
	case m.State == pgqrs.Blocked && len(wait.Messages) == 0:
		fields = append(fields, field{"waits for", "nothing that was found: it goes soon, unless its group has a rate"})
	}
	if m.WorkerID != 0 {
		fields = append(fields, field{"worker", m.WorkerID})
	}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		fields = append(fields, field{"header", name + ": " + m.Headers[name]})
	}
	fields = append(fields, field{"error", m.LastError}, field{"payload", indented(m.Raw)})
	return writeFields(c.out, fields...)
}

// standing describes in a line the state of a message that another message waits for.
func standing(m pgqrs.MessageInfo) string {
	text := fmt.Sprintf("message %d, %s", m.ID, m.State)
	switch {
	case !m.LeasedUntil.IsZero():
		text += fmt.Sprintf(" by worker %d until %s", m.WorkerID, cell(m.LeasedUntil))
	case m.State == pgqrs.Scheduled:
		text += " until " + cell(m.DueAt)
	}
	if m.LastError != "" {
		text += fmt.Sprintf(", attempt %d failed: %s", m.Attempt, m.LastError)
	}
	return text
}

// A shownMessage is a message and the messages that it waits for.
type shownMessage struct {
	pgqrs.MessageInfo
	wait ahead.Wait
}

func (m shownMessage) MarshalJSON() ([]byte, error) {
	var more struct {
		WaitsFor []int64 `json:"waits_for,omitempty"` // ids
	}
	for _, other := range m.wait.Messages {
		more.WaitsFor = append(more.WaitsFor, other.ID)
	}
	return joinJSON(m.MessageInfo, more)
}
