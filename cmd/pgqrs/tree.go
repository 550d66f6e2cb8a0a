package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// maxFamily is the maximum number of runs in a tree: a run and its descendants.
const maxFamily = 100

// A tree is a run with its steps, and the runs that the steps started.
type tree struct {
	pgqrs.RunInfo
	branches []branch
	cut      bool // whether older children than these were left out
}

// A branch is a step.
type branch struct {
	pgqrs.StepInfo
	runs []*tree
}

// tree reads a run and its descendants, up to room further runs.
func (c call) tree(ctx context.Context, run pgqrs.RunInfo, room *int) (*tree, error) {
	t := &tree{RunInfo: run}
	steps, err := c.store.RunHandle(run.ID).Steps(ctx)
	if err != nil {
		return nil, err
	}
	children, err := c.store.Runs(ctx, pgqrs.RunFilter{Parent: run.ID, Limit: *room + 1})
	if err != nil {
		return nil, err
	}
	if len(children) > *room {
		children, t.cut = children[:*room], true
	}
	*room -= len(children)
	slices.Reverse(children) // the oldest first
	under := map[string][]*tree{}
	for _, child := range children {
		sub, err := c.tree(ctx, child, room)
		if err != nil {
			return nil, err
		}
		under[child.ParentStep] = append(under[child.ParentStep], sub)
	}
	for _, s := range steps {
		t.branches = append(t.branches, branch{s, under[s.Name]})
	}
	return t, nil
}

// A leaf is a line below a run: a step or a run.
type leaf struct {
	name           string // after the drawn branch
	status         pgqrs.RunState
	started, ended time.Time
	retries        any // of a step
	result         string
}

// leaves returns the lines below a run. The trunk is drawn before each line.
func (t *tree) leaves(trunk string) []leaf {
	var list []leaf
	for i, b := range t.branches {
		twig, below := fork(trunk, i == len(t.branches)-1 && !t.cut)
		step := leaf{twig + b.Name, b.Status, b.StartedAt, b.EndedAt, b.Retries, result(b.StepInfo)}
		if len(b.runs) > 0 {
			step.result = "" // it repeats the results of the runs
		}
		list = append(list, step)
		for j, run := range b.runs {
			twig, further := fork(below, j == len(b.runs)-1)
			list = append(list, leaf{fmt.Sprintf("%srun %d, %s", twig, run.ID, run.Workflow), run.Status, run.StartedAt, run.EndedAt, nil, cmp.Or(run.Error, listed(run.Output, run.OutputSize))})
			list = append(list, run.leaves(further)...)
		}
	}
	if t.cut {
		twig, _ := fork(trunk, true)
		list = append(list, leaf{name: fmt.Sprintf("%s%s older runs: pgqrs runs list -parent %d", twig, ellipsis, t.ID)})
	}
	return list
}

// fork returns the text before a line below a trunk, and the text before the lines below that line.
func fork(trunk string, last bool) (twig, below string) {
	if last {
		return trunk + "└─ ", trunk + "   "
	}
	return trunk + "├─ ", trunk + "│  "
}

// write writes the lines below a run. Times are counted from the run's beginning.
func (t *tree) write(c call) error {
	leaves := t.leaves("")
	if len(leaves) == 0 {
		return nil
	}
	fmt.Fprintln(c.out)
	return writeTable(c.out, c.width, leaves, []column[leaf]{
		{title: "STEP", long: true, fn: func(l leaf) any { return l.name }},
		{title: "STATE", fn: func(l leaf) any { return string(l.status) }},
		{title: "AT", fn: func(l leaf) any { return after(t.RunInfo, l.started) }},
		{title: "TOOK", fn: func(l leaf) any { return took(l.started, l.ended) }},
		{title: "RETRIES", fn: func(l leaf) any { return l.retries }},
		{title: "RESULT", long: true, fn: func(l leaf) any { return l.result }},
	})
}

// MarshalJSON writes the run with its steps.
func (t *tree) MarshalJSON() ([]byte, error) {
	return joinJSON(t.RunInfo, struct {
		Steps []branch `json:"steps,omitempty"`
		// MoreRuns is true if there are older runs than those of the steps.
		MoreRuns bool `json:"more_runs,omitempty"`
	}{t.branches, t.cut})
}
