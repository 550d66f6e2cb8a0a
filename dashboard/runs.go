package dashboard

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var runStates = []pgqrs.RunState{pgqrs.Queued, pgqrs.Running, pgqrs.Paused, pgqrs.Cancelling, pgqrs.Cancelled, pgqrs.Succeeded, pgqrs.Failed}

// A runRow is a run in a list.
type runRow struct {
	pgqrs.RunInfo
	Took time.Duration // since its creation, until its end or until now
}

// runs lists runs, the latest first, a page at a time.
func (d *dashboard) runs(ctx context.Context, r *http.Request) (*view, error) {
	f := pgqrs.RunFilter{Workflow: field(r, "workflow"), Status: pgqrs.RunState(field(r, "state")), Limit: pageSize + 1}
	if f.Status != "" && !slices.Contains(runStates, f.Status) {
		return nil, invalid("there is no state %q", brief(string(f.Status)))
	}
	if before := field(r, "before"); before != "" {
		id, err := strconv.ParseInt(before, 10, 64)
		if err != nil {
			return nil, invalid("%q is not a run", brief(before))
		}
		f.Before = id
	}
	if parent := field(r, "parent"); parent != "" {
		id, err := strconv.ParseInt(parent, 10, 64)
		if err != nil || id < 1 {
			return nil, invalid("%q is not a run", brief(parent))
		}
		f.Parent = id
	}
	list, err := d.store.Runs(ctx, f)
	if err != nil {
		return nil, err
	}
	body := struct {
		Filter pgqrs.RunFilter
		States []pgqrs.RunState
		Runs   []runRow
		Next   int64 // the run that the next page begins before, if there is one
	}{Filter: f, States: runStates}
	if len(list) > pageSize {
		list = list[:pageSize]
		body.Next = list[pageSize-1].ID
	}
	for _, info := range list {
		body.Runs = append(body.Runs, runRow{info, endOf(info).Sub(info.CreatedAt)})
	}
	return &view{Page: "runs", Title: "Runs", Live: true, Body: body}, nil
}

// endOf returns when a run ended, or now.
func endOf(info pgqrs.RunInfo) time.Time {
	if info.EndedAt.IsZero() {
		return time.Now()
	}
	return info.EndedAt
}

// A mark is a row of a run's timeline.
type mark struct {
	pgqrs.StepInfo
	Word, Class string
	Bar         bar
	Took        time.Duration
	Inherited   bool // recorded by the run that this one was rerun from
	Children    []childMark
}

// A childMark is a run that a step started, on the timeline of its parent.
type childMark struct {
	runRow
	Bar bar
}

// run shows a run and its steps.
func (d *dashboard) run(ctx context.Context, r *http.Request) (*view, error) {
	id, err := idOf(r)
	if err != nil {
		return nil, err
	}
	handle := d.store.RunHandle(id)
	info, err := handle.Info(ctx)
	if err != nil {
		return nil, err
	}
	steps, err := handle.Steps(ctx)
	if err != nil {
		return nil, err
	}
	children, err := d.store.Runs(ctx, pgqrs.RunFilter{Parent: id, Limit: pageSize + 1})
	if err != nil {
		return nil, err
	}
	end := endOf(info)
	body := struct {
		pgqrs.RunInfo
		Took, Queued time.Duration
		QueuedBar    bar
		Marks        []mark
		Ended        bool
		More         bool // there are older children than the ones shown
		Hidden       int  // steps before the ones shown
	}{RunInfo: info, Took: end.Sub(info.CreatedAt), Ended: !info.EndedAt.IsZero(), More: len(children) > pageSize, Hidden: max(0, len(steps)-maxSteps)}
	body.Marks = timeline(info, steps, end)[body.Hidden:]
	addChildren(body.Marks, children[:min(len(children), pageSize)], info, end)
	began := info.StartedAt
	if began.IsZero() {
		began = end
	}
	body.Queued, body.QueuedBar = began.Sub(info.CreatedAt), between(info.CreatedAt, began, info.CreatedAt, end)
	return &view{Page: "run", Title: "Run " + strconv.FormatInt(id, 10), Live: info.EndedAt.IsZero(), Body: body}, nil
}

// maxSteps is how many steps of a run the page shows. It shows the latest.
const maxSteps = 1000

// timeline places steps on a line from the run's creation to its end. If a step's record has no
// beginning of its own, the step counts from the end of the record before it.
func timeline(info pgqrs.RunInfo, steps []pgqrs.StepInfo, end time.Time) []mark {
	first := info.StartedAt
	if first.IsZero() {
		first = info.CreatedAt
	}
	var list []mark
	var ended []time.Time // ends of the steps so far, in order
	for _, s := range steps {
		m := mark{StepInfo: s, Inherited: !s.EndedAt.IsZero() && s.EndedAt.Before(info.CreatedAt)}
		m.Word, m.Class = stepWord(s)
		from, to := s.StartedAt, s.EndedAt
		if to.IsZero() {
			to = end
		}
		if atOnce := !s.EndedAt.IsZero() && !from.Before(s.EndedAt); !m.Inherited && atOnce {
			from = first
			after, _ := slices.BinarySearchFunc(ended, s.StartedAt, func(t, started time.Time) int { return cmp.Or(t.Compare(started), -1) })
			if after > 0 && ended[after-1].After(from) {
				from = ended[after-1]
			}
		}
		if at, _ := slices.BinarySearchFunc(ended, s.EndedAt, time.Time.Compare); !s.EndedAt.IsZero() {
			ended = slices.Insert(ended, at, s.EndedAt)
		}
		m.Bar, m.Took = between(from, to, info.CreatedAt, end), max(0, to.Sub(from))
		list = append(list, m)
	}
	slices.SortStableFunc(list, func(a, b mark) int { return cmp.Compare(a.Bar.X, b.Bar.X) })
	return list
}

// addChildren adds the runs that steps started to the marks of these steps, the oldest first.
func addChildren(marks []mark, children []pgqrs.RunInfo, info pgqrs.RunInfo, end time.Time) {
	for _, child := range slices.Backward(children) {
		i := slices.IndexFunc(marks, func(m mark) bool { return m.Name == child.ParentStep })
		if i < 0 {
			continue // the step was not there yet when the steps were read
		}
		ended := endOf(child)
		marks[i].Children = append(marks[i].Children, childMark{runRow{child, ended.Sub(child.CreatedAt)}, between(child.CreatedAt, ended, info.CreatedAt, end)})
	}
}

// stepWord returns a step's state, and the class of its colour.
func stepWord(s pgqrs.StepInfo) (word, class string) {
	switch {
	case s.Status == pgqrs.Succeeded:
		return "done", "succeeded"
	case s.Status == pgqrs.Failed && !s.EndedAt.IsZero():
		return "failed", "failed"
	case s.Status == pgqrs.Failed, s.Status == pgqrs.Queued:
		return "to be retried", "scheduled"
	case s.Status == pgqrs.Paused:
		return "waiting", "scheduled"
	case s.RetryIn > 0:
		return "sleeping", "scheduled"
	}
	return "running", "running"
}
