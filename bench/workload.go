package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// A workload is one row of the report: a task, its contestants, and the library's targets.
type workload struct {
	name        string
	title       string
	spec        measure.Spec
	rounds      int  // at most, or 0 for as many as configured
	keep        bool // all contestants stay set up from round to round
	contestants []contestant
	targets     []target
	notes       []string
}

// A contestant runs a workload in its own way. The contestant ours is the library.
type contestant struct {
	name string
	how  string // its settings, for the report
	spec func(*measure.Spec)
	open opener
}

const ours = "ours"

// An opener sets a contestant up.
type opener func(context.Context, measure.Spec) (*measure.Session, error)

// rounds returns the opener of a session that sets itself up again for each round.
func rounds(round func(context.Context, measure.Spec) (measure.Sample, error)) opener {
	return func(_ context.Context, spec measure.Spec) (*measure.Session, error) {
		return &measure.Session{
			Round: func(ctx context.Context) (measure.Sample, error) { return round(ctx, spec) },
			Close: func() error { return nil },
		}, nil
	}
}

// A target is the required value of a contestant's figure. It is a number, or a multiple of the
// result of others in the same round.
type target struct {
	figure  string
	of      string   // contestant, or empty for ours
	against []string // contestants, of which the best counts, or none for the number itself
	least   float64  // if both are zero the value is only shown
	most    float64
}

// A verdict is a target and its results by round.
type verdict struct {
	target
	values []float64 // the ratios, or the numbers
}

// word returns whether the target is met, by the median.
func (v verdict) word() string {
	m := spreadOf(v.values).Median
	switch {
	case len(v.values) == 0:
		return "not measured"
	case v.least == 0 && v.most == 0:
		return "no target"
	case v.least > 0 && m >= v.least, v.most > 0 && m <= v.most:
		return "met"
	default:
		return "NOT MET"
	}
}

// String describes the target.
func (t target) String() string {
	s := t.figure
	if t.of != "" {
		s += " of " + t.of
	}
	if len(t.against) > 0 {
		s += " to " + joinOr(t.against)
	}
	switch {
	case t.least > 0:
		return fmt.Sprintf("%s at least %.3g", s, t.least)
	case t.most > 0:
		return fmt.Sprintf("%s at most %.3g", s, t.most)
	}
	return s
}

// judge computes the target's value for each round that has all the figures it needs.
func (t target) judge(rounds []map[string]measure.Sample) verdict {
	v := verdict{target: t}
	who := t.of
	if who == "" {
		who = ours
	}
	for _, round := range rounds {
		value, ok := round[who][t.figure]
		if !ok {
			continue
		}
		if len(t.against) == 0 {
			v.values = append(v.values, value)
			continue
		}
		var others []float64
		for _, name := range t.against {
			if other, ok := round[name][t.figure]; ok && other > 0 {
				others = append(others, other)
			}
		}
		if len(others) == 0 {
			continue
		}
		best := slices.Max(others)
		if t.most > 0 {
			best = slices.Min(others) // a lower value is better
		}
		v.values = append(v.values, value/best)
	}
	return v
}

// A spread is the spread of a value over rounds.
type spread struct{ Min, Median, Max float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{sorted[0], (sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[n-1]}
}

// joinOr joins names with commas and "or".
func joinOr(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
