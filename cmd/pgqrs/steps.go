package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// showRuns shows the named runs with their steps and children.
func (c call) showRuns(ctx context.Context) error {
	ids, err := c.ids(c.Args().Slice())
	if err != nil {
		return err
	}
	for i, id := range ids {
		if i > 0 && !c.Bool("json") {
			fmt.Fprintln(c.out)
		}
		if err := c.showRun(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (c call) showRun(ctx context.Context, id int64) error {
	run, err := c.store.RunHandle(id).Info(ctx)
	if err != nil {
		return err
	}
	room := maxFamily - 1
	t, err := c.tree(ctx, run, &room)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return writeJSON(c.out, t)
	}
	if err := writeFields(c.out, runFields(run)...); err != nil {
		return err
	}
	return t.write(c)
}

func runFields(r pgqrs.RunInfo) []field {
	fields := []field{
		{"run", r.ID}, {"workflow", r.Workflow}, {"state", string(r.Status)}, {"message", r.MessageID}, {"key", r.Key},
		{"created", r.CreatedAt}, {"started", r.StartedAt}, {"paused", r.PausedAt}, {"ended", r.EndedAt}, {"took", took(r.StartedAt, r.EndedAt)},
		{"goes on", r.DueAt},
	}
	if r.ParentID != 0 {
		fields = append(fields, field{"parent", fmt.Sprintf("run %d, step %s", r.ParentID, r.ParentStep)})
	}
	return append(fields, field{"warning", r.Warning}, field{"error", r.Error}, field{"input", indented(r.Input)}, field{"output", indented(r.Output)})
}

// after returns when a step or a child began, counted from the beginning of its run.
func after(run pgqrs.RunInfo, at time.Time) any {
	begin := run.StartedAt
	if begin.IsZero() {
		begin = run.CreatedAt
	}
	switch {
	case at.IsZero():
		return nil
	case at.Before(begin):
		return "before" // its result comes from the run that was rerun
	}
	return at.Sub(begin)
}

// result returns the most useful fact about a step: when it is retried, its error or its result.
func result(s pgqrs.StepInfo) string {
	var parts []string
	if s.RetryIn > 0 {
		parts = append(parts, "goes on in "+span(s.RetryIn))
	}
	if s.Error != "" {
		parts = append(parts, s.Error)
	}
	if len(s.Output) > 0 {
		parts = append(parts, listed(s.Output, s.OutputSize))
	}
	return strings.Join(parts, "; ")
}

// MarshalJSON writes the step with the runs that it started.
func (b branch) MarshalJSON() ([]byte, error) {
	more := struct {
		Took *float64 `json:"took_seconds,omitempty"`
		Runs []*tree  `json:"runs,omitempty"`
	}{Runs: b.runs}
	if d, ok := took(b.StartedAt, b.EndedAt).(time.Duration); ok {
		seconds := d.Seconds()
		more.Took = &seconds
	}
	return joinJSON(b.StepInfo, more)
}
