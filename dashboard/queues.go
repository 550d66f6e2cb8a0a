package dashboard

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/pgqrs/pgqrs-go"
)

// A queueRow is a queue on the overview.
type queueRow struct {
	pgqrs.QueueDepth
	Inflow int64
	Known  bool // whether Inflow is known
	Depth  chart
}

var (
	depthSeries = series{"depth", waiting}
	readySeries = series{"ready", func(q pgqrs.QueueDepth) int64 { return q.Ready }}
	deadSeries  = series{"dead", func(q pgqrs.QueueDepth) int64 { return q.Dead }}
	doneSeries  = series{"done", func(q pgqrs.QueueDepth) int64 { return q.ArchivedLastMinute }}
	diedSeries  = series{"dead", func(q pgqrs.QueueDepth) int64 { return q.DiedLastMinute }}
)

// Unattended reports whether a queue that is not paused has ready messages but no live worker.
func (q queueRow) Unattended() bool { return q.Ready > 0 && q.Workers == 0 && q.PausedAt.IsZero() }

const maxQueues = 100 // rows on a page of the overview

// overview shows the queues whose names contain a text, a page at a time.
func (d *dashboard) overview(ctx context.Context, r *http.Request) (*view, error) {
	now, ring, err := d.samples.take(ctx, d.store)
	if err != nil {
		return nil, err
	}
	page := 1
	if text := field(r, "page"); text != "" {
		if page, err = strconv.Atoi(text); err != nil || page < 1 {
			return nil, invalid("%q is not a page", brief(text))
		}
	}
	body := struct {
		Queues     []queueRow
		Total      pgqrs.QueueDepth // of all queues that match
		Name       string           // the text, or empty
		Count      int              // of queues that match
		Page, Next int              // Next is 0 on the last page
		Pages      bool             // there are more pages, or other queues
	}{Name: field(r, "name")}
	queues, total := matching(now.queues, body.Name)
	body.Total, body.Count = total, len(queues)
	last := max(1, (len(queues)+maxQueues-1)/maxQueues)
	body.Page = min(page, last) // queues may have gone since
	if body.Page < last {
		body.Next = body.Page + 1
	}
	body.Pages = last > 1 || body.Name != ""
	from := (body.Page - 1) * maxQueues
	for _, q := range queues[from:min(from+maxQueues, len(queues))] {
		row := queueRow{QueueDepth: q, Depth: draw("waiting", q.Name, now, ring, depthSeries)}
		row.Inflow, row.Known = inflow(now, ring, q.Name)
		body.Queues = append(body.Queues, row)
	}
	return &view{Page: "overview", Title: "Queues", Live: true, Body: body}, nil
}

// matching returns the queues whose names contain a text, in upper or lower case, and their sum.
func matching(queues []pgqrs.QueueDepth, text string) (list []pgqrs.QueueDepth, total pgqrs.QueueDepth) {
	text = strings.ToLower(text)
	for _, q := range queues {
		if text != "" && !strings.Contains(strings.ToLower(q.Name), text) {
			continue
		}
		list = append(list, q)
		total.Ready += q.Ready
		total.Scheduled += q.Scheduled
		total.Blocked += q.Blocked
		total.Leased += q.Leased
		total.Dead += q.Dead
		total.ArchivedLastMinute += q.ArchivedLastMinute
		total.OldestReady = max(total.OldestReady, q.OldestReady)
	}
	return list, total
}

const pageSize = 50

// A tab is a state of a queue's messages.
type tab struct {
	State   pgqrs.MessageState
	Count   int64
	Counted bool // archived messages are not counted
	Chosen  bool
}

// queue shows a queue and its messages of one state, a page at a time.
func (d *dashboard) queue(ctx context.Context, r *http.Request) (*view, error) {
	name := field(r, "name")
	now, ring, err := d.samples.take(ctx, d.store)
	if err != nil {
		return nil, err
	}
	q, ok := now.find(name)
	if !ok { // the sample may be older than the queue
		found, err := d.store.Depths(ctx, name)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, missing("queue %q", brief(name))
		}
		q = found[0]
	}
	state := pgqrs.MessageState(field(r, "state"))
	if state == "" {
		state = pgqrs.Ready
	}
	if !slices.Contains(messageStates, state) {
		return nil, invalid("there is no state %q", brief(string(state)))
	}
	list, next, err := d.list(ctx, name, state, field(r, "after"))
	if err != nil {
		return nil, err
	}
	row := queueRow{QueueDepth: q}
	row.Inflow, row.Known = inflow(now, ring, name)
	body := struct {
		Queue    queueRow
		Charts   []chart
		Tabs     []tab
		State    pgqrs.MessageState
		Messages []pgqrs.MessageInfo
		Next     string // where the next page begins, if there is one
		Later    bool   // this is not the first page
		Full     bool   // the policy allows no more leases
	}{row, []chart{
		draw("waiting", name, now, ring, depthSeries, readySeries),
		draw("done in a minute", name, now, ring, doneSeries, diedSeries),
		draw("dead letters", name, now, ring, deadSeries),
	}, tabs(q, state), state, list, next, field(r, "after") != "", q.Policy.MaxLeased > 0 && q.Leased >= int64(q.Policy.MaxLeased) && q.Ready > 0}
	return &view{Page: "queue", Title: printable(name), Live: true, Body: body}, nil
}

// list reads a page of messages. It also returns where the next page begins, if there is one.
func (d *dashboard) list(ctx context.Context, queue string, state pgqrs.MessageState, after string) (list []pgqrs.MessageInfo, next string, err error) {
	list, err = d.store.Messages(ctx, pgqrs.MessageFilter{Queue: queue, State: state, After: after, Limit: pageSize + 1})
	if err != nil && after != "" {
		// If the first page can be read, the cursor is at fault.
		if _, first := d.store.Messages(ctx, pgqrs.MessageFilter{Queue: queue, State: state, Limit: 1}); first == nil {
			return nil, "", invalid("%q is not a Cursor", brief(after))
		}
	}
	if len(list) > pageSize {
		list = list[:pageSize]
		next = list[pageSize-1].Cursor
	}
	return list, next, err
}

func tabs(q pgqrs.QueueDepth, chosen pgqrs.MessageState) []tab {
	counts := map[pgqrs.MessageState]int64{pgqrs.Ready: q.Ready, pgqrs.Scheduled: q.Scheduled, pgqrs.Blocked: q.Blocked, pgqrs.Leased: q.Leased, pgqrs.Dead: q.Dead}
	var list []tab
	for _, s := range messageStates {
		n, counted := counts[s]
		list = append(list, tab{s, n, counted, s == chosen})
	}
	return list
}
