package bench

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// A Report has all results of a run. The flag -json writes it.
type Report struct {
	Machine Machine
	Config  string
	Started time.Time
	Took    time.Duration
	Engines []EngineReport
}

// An EngineReport has the results on one engine.
type EngineReport struct {
	Name, Title string
	Settings    []string // as the database reports them
	Workloads   []WorkloadReport
}

// A WorkloadReport has the results of one workload.
type WorkloadReport struct {
	Name, Title string
	Notes       []string
	Contestants []ContestantReport
	Rounds      []map[string]measure.Sample // by contestant
	Verdicts    []VerdictReport
	Errors      []ContestantError
	Statements  map[string]float64 `json:",omitempty"` // sent by the library for each thing done, by tag
	Shares      map[string]float64 `json:",omitempty"` // of this process's time in the library's rounds, by part
}

// A ContestantReport names a contestant and its settings.
type ContestantReport struct{ Name, How string }

// A ContestantError is a failed round. The contestant skips the rest.
type ContestantError struct {
	Contestant string
	Round      int
	Error      string
}

// A VerdictReport is a target, and the spread of its value over the rounds.
type VerdictReport struct {
	Asked  string
	Word   string // met, NOT MET, no target or not measured
	Spread spread
	Rounds int
}

func (w *WorkloadReport) failed(contestant string) bool {
	return slices.ContainsFunc(w.Errors, func(e ContestantError) bool { return e.Contestant == contestant })
}

// spread returns the spread of a contestant's figure. The result ok is false if the contestant has
// no such figure.
func (w *WorkloadReport) spread(contestant, figure string) (s spread, ok bool) {
	var values []float64
	for _, round := range w.Rounds {
		if v, ok := round[contestant][figure]; ok {
			values = append(values, v)
		}
	}
	return spreadOf(values), len(values) > 0
}

// figures returns the figures that any contestant has, the most important first.
func (w *WorkloadReport) figures() []string {
	seen := map[string]bool{}
	for _, round := range w.Rounds {
		for _, sample := range round {
			for figure := range sample {
				seen[figure] = true
			}
		}
	}
	for _, figure := range []string{measure.Done, measure.Seconds, measure.All} {
		delete(seen, figure)
	}
	order := []string{measure.Rate, "claim", "drain", measure.P50, measure.P99, measure.CPU, measure.ServerCPU, measure.Allocs, "statements", measure.PeakMiB, "kept", "recovery"}
	rank := func(figure string) int {
		if i := slices.Index(order, figure); i >= 0 {
			return i
		}
		return len(order)
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
}

// Failed reports whether a contestant failed anywhere.
func (r *Report) Failed() bool {
	for _, e := range r.Engines {
		for _, w := range e.Workloads {
			if len(w.Errors) > 0 {
				return true
			}
		}
	}
	return false
}

// describe returns how long everything was measured.
func (c Config) describe() string {
	return fmt.Sprintf("%d rounds, %v a contestant and round, drains stopped after %v, %d samples of a latency a round, scale %g", c.Rounds, c.Time, c.Limit, c.Samples, c.Scale)
}

// countStatements runs a workload once more with the library, and counts the statements below the
// pool.
func (c Config) countStatements(ctx context.Context, e *engine, w workload, r *WorkloadReport) {
	counts := newStatements()
	c.Profiles = ""
	list, err := c.workloads(e.counting(counts), nil)
	if err != nil {
		return
	}
	i := slices.IndexFunc(list, func(other workload) bool { return other.name == w.name })
	k := slices.IndexFunc(list[i].contestants, func(x contestant) bool { return x.name == ours })
	if k < 0 {
		return
	}
	sample, err := c.turn(ctx, e, workload{name: w.name, spec: w.spec}, list[i].contestants[k], map[string]*measure.Session{})
	if err != nil {
		r.Errors = append(r.Errors, ContestantError{ours, len(r.Rounds), "counting statements: " + err.Error()})
		return
	}
	n := cmp.Or(sample[measure.All], sample[measure.Done])
	_, tags := counts.take()
	if n == 0 || len(tags) == 0 {
		return
	}
	r.Statements = map[string]float64{}
	for tag, count := range tags {
		if perThing := float64(count) / n; strings.Contains(tag, ".") && perThing >= 0.0001 {
			r.Statements[tag] = perThing
		}
	}
}

// number formats a figure with as few digits as are meaningful.
func number(v float64) string {
	switch {
	case v >= 99_950:
		return strconv.FormatFloat(v/1000, 'f', 0, 64) + "k"
	case v >= 9_995:
		return strconv.FormatFloat(v/1000, 'f', 1, 64) + "k"
	case v >= 999.5:
		return strconv.FormatFloat(v/1000, 'f', 2, 64) + "k"
	case v >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v == 0:
		return "0"
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// thousands writes a whole number with commas.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// String returns the median, the minimum and the maximum.
func (s spread) String() string {
	if s.Min == s.Max {
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s to %s)", number(s.Median), number(s.Min), number(s.Max))
}
