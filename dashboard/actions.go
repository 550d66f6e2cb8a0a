package dashboard

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A doing acts on a queue or schedule by name, or on a message, worker or run by id. It returns how
// many were changed.
type doing = func(ctx context.Context, s *pgqrs.Store, name string, id int64) (int64, error)

// A target is a kind of thing that actions act on.
type target struct {
	noun  string
	named bool // a form names it by its name, and otherwise by its id
	// find returns the name that the log has for an id.
	find func(ctx context.Context, s *pgqrs.Store, id int64) (string, error)
}

var (
	aQueue    = target{noun: "queue", named: true}
	aSchedule = target{noun: "schedule", named: true}
	aMessage  = target{noun: "message", find: queueOf}
	aRun      = target{noun: "run", find: workflowOf}
	aWorker   = target{noun: "worker", find: workerName}
)

// An action is the action of a form.
type action struct {
	on target
	do doing
	// back returns the page to go on with.
	back func(name string, id int64) string
	// said states the result. The verb %s stands for the count.
	said string
	// undone states why nothing was done. Empty means that the state had changed already.
	undone string
}

var actions = map[string]action{
	"redrive":     {on: aMessage, do: onID((*pgqrs.Store).Redrive), back: pageOf("message"), said: "Redriven: it is ready again, with all its attempts before it."},
	"redrive-all": {on: aQueue, do: redriveAll, back: deadPage, said: "Redriven: %s dead letters."},
	"delete":      {on: aMessage, do: onID((*pgqrs.Store).Delete), back: deadPage, said: "Deleted: %s message."},
	"pause":       {on: aQueue, do: done((*pgqrs.Store).PauseQueue), back: queuePage, said: "Paused: it delivers nothing until it is resumed."},
	"resume":      {on: aQueue, do: done((*pgqrs.Store).ResumeQueue), back: queuePage, said: "Resumed."},

	"suspend-worker": {on: aWorker, do: changed((*pgqrs.Store).SuspendWorker), back: workersPage, said: "Suspended: the worker claims nothing until it is resumed."},
	"resume-worker":  {on: aWorker, do: changed((*pgqrs.Store).ResumeWorker), back: workersPage, said: "Resumed."},
	"stop-worker":    {on: aWorker, do: changed((*pgqrs.Store).StopWorker), back: workersPage, said: "Stopped: the worker finishes what it has begun."},

	"cancel-run": {on: aRun, do: onRun((*runHandle).Cancel), back: pageOf("run"), said: "It is being cancelled."},
	"pause-run":  {on: aRun, do: onRun((*runHandle).Pause), back: pageOf("run"), said: "Paused: it stops before its next step."},
	"resume-run": {on: aRun, do: onRun((*runHandle).Resume), back: pageOf("run"), said: "Resumed."},
	"retry-run":  {on: aRun, do: onRun((*runHandle).Retry), back: pageOf("run"), said: "It goes on from the step that failed."},

	"pause-schedule":  {on: aSchedule, do: done((*pgqrs.Store).PauseSchedule), back: schedulePage, said: "Paused: it runs nothing by the clock until it is resumed."},
	"resume-schedule": {on: aSchedule, do: done((*pgqrs.Store).ResumeSchedule), back: schedulePage, said: "Resumed. What was due meanwhile is not made up for."},
	"run-schedule":    {on: aSchedule, do: runSchedule, back: schedulePage, said: "It has run, by hand.", undone: "It has enqueued nothing: the message of its key is unfinished."},
}

// act executes the action that a form asks for, and redirects the browser to a page.
func (d *dashboard) act(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		d.refuse(w, http.StatusMethodNotAllowed, "Actions are sent by the buttons of this dashboard.")
		return
	}
	asked, refused := d.ask(w, r)
	if refused != nil {
		if unlogged, ok := d.refused.due(refused.reason, time.Now()); ok {
			d.logOf(r).Warn("dashboard: action refused", "action", brief(asked.what), "why", refused.sentence, "origin", brief(r.Header.Get("Origin")), "unlogged", unlogged)
		}
		d.refuse(w, refused.status, refused.sentence)
		return
	}
	log := d.logOf(r)
	a := actions[asked.what]
	name := asked.name
	if !a.on.named { // the form's name may be any
		name, _ = a.on.find(ctx, d.store, asked.id) // the action fails for the same reason
	}
	n, err := a.do(ctx, d.store, name, asked.id)
	if err != nil {
		n = 0
	}
	d.samples.forget()
	log = log.With("action", asked.what, "name", brief(name), "id", asked.id, "done", n, "failed", err != nil)
	if err != nil {
		log.Warn("dashboard: action", "error", brief(err.Error()))
		d.show(w, nil, &pageError{err, asked.String()})
		return
	}
	log.Info("dashboard: action")
	// Not http.Redirect, which would make the address absolute, without the prefix.
	page := a.back(cmp.Or(name, asked.name), asked.id)
	w.Header().Set("Location", page+"done="+d.sealer.seal(strings.TrimPrefix(page, "./"), asked.what, n, time.Now().Add(noticed)))
	w.WriteHeader(http.StatusSeeOther)
}

// logOf returns the log with the sender of a request.
func (d *dashboard) logOf(r *http.Request) *slog.Logger {
	log := d.log.With("remote", brief(r.RemoteAddr))
	if d.options.Actor != nil {
		log = log.With("actor", d.actor(r))
	}
	return log
}

// An ask is the request of a form.
type ask struct {
	what, name string
	id         int64
}

// String returns the ask as an error page shows it.
func (a ask) String() string {
	if a.id == 0 {
		return fmt.Sprintf("%s %q", a.what, brief(a.name))
	}
	return fmt.Sprintf("%s %d", a.what, a.id)
}

// ask reads the form of an action, or returns why it is refused.
func (d *dashboard) ask(w http.ResponseWriter, r *http.Request) (a ask, refused *refusal) {
	if !d.options.Actions {
		return a, refuse(http.StatusForbidden, "This dashboard is read-only: whoever mounted it has not set Options.Actions.")
	}
	if d.crossOrigin(r) {
		return a, refuse(http.StatusForbidden, "This action came from another site's page, and was not done.")
	}
	if r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" && !d.pass.borne(r) {
		return a, refuse(http.StatusForbidden, "Nothing shows which page this action came from. A browser sends an Origin. A program sends the header \"Authorization: Bearer\" with the token.")
	}
	form, refused := readForm(w, r)
	if refused != nil {
		return a, refused
	}
	a.what, a.name = textOf(form, "do"), nameIn(form)
	if _, ok := actions[a.what]; !ok {
		return a, refuse(http.StatusBadRequest, "There is no action %q.", brief(a.what))
	}
	on, id := actions[a.what].on, textOf(form, "id")
	switch {
	case on.named && a.name == "":
		return a, refuse(http.StatusBadRequest, "This action needs the name of a %s, in the field \"name\".", on.noun)
	case !on.named && id == "":
		return a, refuse(http.StatusBadRequest, "This action needs the id of a %s, in the field \"id\".", on.noun)
	}
	if on.named {
		return a, nil
	}
	var err error
	if a.id, err = strconv.ParseInt(id, 10, 64); err != nil || a.id < 1 {
		return a, refuse(http.StatusBadRequest, "%q is not an id.", brief(id))
	}
	return a, nil
}

type runHandle = pgqrs.RunHandle[json.RawMessage]

func onID(f func(*pgqrs.Store, context.Context, ...int64) (int64, error)) doing {
	return func(ctx context.Context, s *pgqrs.Store, _ string, id int64) (int64, error) { return f(s, ctx, id) }
}

// redriveAll returns an error if there is no such queue. The library takes it for an empty one.
func redriveAll(ctx context.Context, s *pgqrs.Store, name string, _ int64) (int64, error) {
	found, err := s.Depths(ctx, name)
	if err != nil {
		return 0, err
	}
	if len(found) == 0 {
		return 0, pgqrs.ErrNotFound
	}
	return s.RedriveAll(ctx, name)
}

func done(f func(*pgqrs.Store, context.Context, string) error) doing {
	return func(ctx context.Context, s *pgqrs.Store, name string, _ int64) (int64, error) {
		return 1, f(s, ctx, name)
	}
}

func changed(f func(*pgqrs.Store, context.Context, int64) error) doing {
	return func(ctx context.Context, s *pgqrs.Store, _ string, id int64) (int64, error) { return 1, f(s, ctx, id) }
}

func onRun(f func(*runHandle, context.Context) error) doing {
	return func(ctx context.Context, s *pgqrs.Store, _ string, id int64) (int64, error) {
		return 1, f(s.RunHandle(id), ctx)
	}
}

// queueOf returns the queue of a message.
func queueOf(ctx context.Context, s *pgqrs.Store, id int64) (string, error) {
	list, err := s.Messages(ctx, pgqrs.MessageFilter{IDs: []int64{id}})
	if err != nil || len(list) == 0 {
		return "", err
	}
	return list[0].Queue, nil
}

// workflowOf returns the workflow of a run.
func workflowOf(ctx context.Context, s *pgqrs.Store, id int64) (string, error) {
	info, err := s.RunHandle(id).Info(ctx)
	return info.Workflow, err
}

// workerName returns the name of a worker.
func workerName(ctx context.Context, s *pgqrs.Store, id int64) (string, error) {
	list, err := s.Workers(ctx)
	i := slices.IndexFunc(list, func(w pgqrs.WorkerInfo) bool { return w.ID == id })
	if i < 0 {
		return "", err
	}
	return list[i].Name, nil
}

// runSchedule returns 0 if it has enqueued nothing.
func runSchedule(ctx context.Context, s *pgqrs.Store, name string, _ int64) (int64, error) {
	run, err := s.RunSchedule(ctx, name)
	if err != nil || run.Duplicate {
		return 0, err
	}
	return 1, nil
}

// The pages that follow an action. An address ends where further fields of the query can be added.

func pageOf(page string) func(string, int64) string {
	return func(_ string, id int64) string { return page + "?id=" + strconv.FormatInt(id, 10) + "&" }
}

func queuePage(name string, _ int64) string { return "queue?name=" + url.QueryEscape(name) + "&" }

func deadPage(name string, _ int64) string {
	if name == "" { // of a message that had gone before
		return "./?"
	}
	return "queue?name=" + url.QueryEscape(name) + "&state=dead&"
}

func schedulePage(name string, _ int64) string { return "schedule?name=" + url.QueryEscape(name) + "&" }

func workersPage(string, int64) string { return "workers?" }
