package main

import (
	"cmp"
	"io"
	"slices"

	"github.com/pgqrs/pgqrs-go"
)

// A detail is the detailed state of one queue.
type detail struct {
	queue    string
	panel    int
	messages []pgqrs.MessageInfo
	runs     []pgqrs.RunInfo
	err      error
}

// A panel is a view of a queue.
type panel struct {
	title string
	state pgqrs.MessageState // lists messages of this state, if it is set
}

const (
	workersPanel = 1
	runsPanel    = 2
)

var panels = []panel{
	{"dead letters", pgqrs.Dead}, workersPanel: {title: "workers"}, runsPanel: {title: "runs"},
	{"leased messages", pgqrs.Leased}, {"ready messages", pgqrs.Ready}, {"scheduled messages", pgqrs.Scheduled}, {"blocked messages", pgqrs.Blocked},
}

const detailRows = 20

// closer returns a function that reads the detail of the selected queue.
func (s *screen) closer() func() detail {
	ctx, store, d := s.ctx, s.store, detail{queue: s.selected, panel: s.panel}
	return func() detail {
		switch state := panels[d.panel].state; {
		case d.queue == "":
		case state != "":
			d.messages, d.err = store.Messages(ctx, pgqrs.MessageFilter{Queue: d.queue, State: state, Limit: detailRows})
		case d.panel == runsPanel:
			d.runs, d.err = store.Runs(ctx, pgqrs.RunFilter{Workflow: d.queue, Limit: detailRows})
		}
		return d
	}
}

// writeDetail writes the table of the panel.
func (s *screen) writeDetail(w io.Writer, width int) error {
	switch state := panels[s.panel].state; {
	case s.detail.queue != s.selected || s.detail.panel != s.panel:
		return nil // not read yet
	case state != "":
		return writeTable(w, width, s.detail.messages, messageColumns(state))
	case s.panel == runsPanel:
		return writeTable(w, width, s.detail.runs, runColumns)
	}
	var mine []pgqrs.WorkerInfo
	for _, worker := range s.last.workers {
		if worker.Queue == s.selected {
			mine = append(mine, worker)
		}
	}
	return writeTable(w, width, mine, workerColumns)
}

// An order is a way to sort queues.
type order struct {
	title   string
	compare func(a, b pace) int
}

// orders are descending, except the order by name.
var orders = []order{
	{"name", func(a, b pace) int { return cmp.Compare(a.Name, b.Name) }},
	{"ready", func(a, b pace) int { return cmp.Compare(b.Ready, a.Ready) }},
	{"oldest", func(a, b pace) int { return cmp.Compare(b.OldestReady, a.OldestReady) }},
	{"leased", func(a, b pace) int { return cmp.Compare(b.Leased, a.Leased) }},
	{"dead", func(a, b pace) int { return cmp.Compare(b.Dead, a.Dead) }},
	{"growth", func(a, b pace) int { return cmp.Compare(b.growth, a.growth) }},
	{"done/min", func(a, b pace) int { return cmp.Compare(b.ArchivedLastMinute, a.ArchivedLastMinute) }},
}

func (s *screen) sort() {
	slices.SortStableFunc(s.paces, func(a, b pace) int {
		c := orders[s.order].compare(a, b)
		if s.backward {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(a.Name, b.Name))
	})
}

// index returns the place of the selected queue, or 0 if the queue is gone.
func (s *screen) index() int {
	return max(0, slices.IndexFunc(s.paces, func(p pace) bool { return p.Name == s.selected }))
}
