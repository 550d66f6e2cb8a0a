package dashboard

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// overdue is how late an instant may be before the page reports that no worker runs the schedule.
const overdue = time.Minute

// Ways to look at schedules.
var scheduleViews = []string{"all", "paused", "overdue"}

// A scheduleTab is a way to look at schedules.
type scheduleTab struct {
	Name   string
	Count  int
	Chosen bool
}

// A scheduleRow is a schedule with its state.
type scheduleRow struct {
	pgqrs.ScheduleInfo
	Word string   // active, paused, overdue or ended
	Runs []runOut // the latest first
}

// A runOut is a run of a schedule with its outcome.
type runOut struct {
	pgqrs.ScheduleRun
	Word string // duplicate, gone, or the state of the message or run
}

// schedules shows the schedules, a page at a time.
func (d *dashboard) schedules(ctx context.Context, r *http.Request) (*view, error) {
	only, after := field(r, "only"), field(r, "after")
	if only == "" {
		only = scheduleViews[0]
	}
	if !slices.Contains(scheduleViews, only) {
		return nil, invalid("there are no %q schedules", brief(only))
	}
	list, err := d.store.Schedules(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b pgqrs.ScheduleInfo) int { return strings.Compare(a.Name, b.Name) })
	body := struct {
		Schedules []scheduleRow
		Tabs      []scheduleTab
		Only      string
		All       int
		Next      string // the name that the next page begins after, if there is one
		Later     bool   // this is not the first page
	}{Only: only, All: len(list), Later: after != ""}
	counts := map[string]int{"all": len(list)}
	for _, info := range list {
		row := scheduleRow{ScheduleInfo: info, Word: scheduleWord(info, time.Now())}
		counts[row.Word]++
		if info.Name <= after || only != "all" && only != row.Word {
			continue
		}
		if len(body.Schedules) == pageSize {
			body.Next = body.Schedules[pageSize-1].Name
			continue // go on, to count all schedules
		}
		if info.Last != nil {
			row.Runs = runsOut(*info.Last)
		}
		body.Schedules = append(body.Schedules, row)
	}
	for _, name := range scheduleViews {
		body.Tabs = append(body.Tabs, scheduleTab{name, counts[name], name == only})
	}
	return &view{Page: "schedules", Title: "Schedules", Live: true, Body: body}, nil
}

const (
	shownRuns = 50   // runs of a schedule on its page
	keptRuns  = 1000 // the library keeps no more
)

// schedule shows a schedule and its latest runs.
func (d *dashboard) schedule(ctx context.Context, r *http.Request) (*view, error) {
	name, limit := field(r, "name"), shownRuns
	if field(r, "all") != "" {
		limit = keptRuns
	}
	list, err := d.store.Schedules(ctx, name)
	if err == nil && len(list) == 0 {
		err = missing("schedule %q", brief(name))
	}
	if err != nil {
		return nil, err
	}
	runs, err := d.store.ScheduleRuns(ctx, name, limit)
	if err != nil {
		return nil, err
	}
	row := scheduleRow{list[0], scheduleWord(list[0], time.Now()), runsOut(runs...)}
	body := struct {
		scheduleRow
		Local      string // the next instant in the schedule's zone
		HeaderList []header
		Cut        bool // the payload is longer than the part that is shown
		More       bool // there may be older runs than the ones shown
	}{scheduleRow: row, Local: local(row.NextAt, row.Zone), HeaderList: headerList(row.Headers),
		Cut: len(row.Payload) > shownText, More: len(runs) == shownRuns}
	return &view{Page: "schedule", Title: printable(name), Live: limit == shownRuns, Body: body}, nil
}

// scheduleWord returns the state of a schedule.
func scheduleWord(info pgqrs.ScheduleInfo, now time.Time) string {
	switch {
	case !info.PausedAt.IsZero():
		return "paused"
	case info.NextAt.IsZero():
		return "ended"
	case now.Sub(info.NextAt) > overdue:
		return "overdue"
	}
	return "active"
}

func runsOut(runs ...pgqrs.ScheduleRun) []runOut {
	var list []runOut
	for _, run := range runs {
		list = append(list, runOut{run, became(run)})
	}
	return list
}

// became returns the outcome of a run of a schedule.
func became(run pgqrs.ScheduleRun) string {
	switch {
	case run.Duplicate:
		return "duplicate"
	case run.RunState != "":
		return word(run.RunState)
	case run.MessageState != "":
		return word(run.MessageState)
	}
	return "gone"
}

// local returns an instant by the clocks of a zone, if this program knows the zone and it is not
// UTC.
func local(t time.Time, zone string) string {
	place, err := time.LoadLocation(zone)
	if err != nil || t.IsZero() || zone == "" || zone == "UTC" {
		return ""
	}
	return t.In(place).Format("Monday 2006-01-02 15:04:05 MST")
}
