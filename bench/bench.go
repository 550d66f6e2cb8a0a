// Package bench compares the library with hand-written SQL on the same tables and with other
// queues. The contestants take turns within one run. The report says which targets are met. See
// README.md.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// Config says what to measure and for how long.
type Config struct {
	Engines  []string       // of "pg" and "sqlite"
	Workload *regexp.Regexp // matches the names of the workloads to run
	Rounds   int
	Time     time.Duration // of one contestant in one round, if the time ends the round
	Limit    time.Duration // of a drain
	Hold     time.Duration // of the snapshot
	Samples  int           // of a latency, in one round
	Scale    float64       // of the numbers of messages, where 1 is the scale of the targets
	Postgres string        // DSN of a server to use, or empty to start one
	Dir      string        // where databases are made
	Profiles string        // directory for CPU profiles of the library's rounds, or empty for none
	Count    bool          // run the library once more, counting its statements
	Log      io.Writer     // progress
}

// Run measures, and returns the results. An error of a contestant is part of the report. Run
// returns an error only if nothing can be measured.
func Run(ctx context.Context, c Config) (*Report, error) {
	if c.Profiles != "" {
		if err := os.MkdirAll(c.Profiles, 0o777); err != nil {
			return nil, err
		}
	}
	report := &Report{Machine: machineOf(c.Dir), Config: c.describe(), Started: time.Now()}
	for _, name := range c.Engines {
		results, err := c.runEngine(ctx, name)
		report.Engines = append(report.Engines, results)
		if err != nil {
			return report, fmt.Errorf("%s: %w", name, err)
		}
	}
	report.Took = time.Since(report.Started)
	report.Machine.LoadAfter = loadAverage()
	return report, nil
}

// Workloads returns the names and titles of an engine's workloads.
func (c Config) Workloads(engine string) ([]string, error) {
	list, err := c.workloads(engineNamed(engine), nil)
	var lines []string
	for _, w := range list {
		lines = append(lines, w.name+"\t"+w.title)
	}
	return lines, err
}

func (c Config) workloads(e *engine, m *mattn) ([]workload, error) {
	switch {
	case e == nil:
		return nil, errors.New(`engines are "pg" and "sqlite"`)
	case e.postgres():
		return postgresWorkloads(e, c), nil
	}
	return sqliteWorkloads(e, c, m), nil
}

// runEngine measures one engine.
func (c Config) runEngine(ctx context.Context, name string) (results EngineReport, err error) {
	e := engineNamed(name)
	if e == nil {
		return results, errors.New(`engines are "pg" and "sqlite"`)
	}
	results.Name, results.Title = e.name, e.title
	var m *mattn
	if e.postgres() {
		stop, stopErr := e.findServer(c)
		if stopErr != nil {
			return results, stopErr
		}
		defer func() { err = errors.Join(err, stop()) }()
	} else {
		if e.base, err = os.MkdirTemp(c.Dir, "bench-"); err != nil {
			return results, err
		}
		defer os.RemoveAll(e.base)
		m = buildMattn(ctx, e.base)
	}
	if results.Settings, err = e.verify(ctx); err != nil {
		return results, err
	}
	list, err := c.workloads(e, m)
	if err != nil {
		return results, err
	}
	for _, w := range list {
		if !c.Workload.MatchString(w.name) {
			continue
		}
		result := c.runWorkload(ctx, e, w)
		results.Workloads = append(results.Workloads, result)
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
	}
	if m != nil {
		for synchronous, facts := range m.facts {
			results.Settings = append(results.Settings, "mattn, "+synchronous+": "+strings.Join(facts, ", "))
		}
		slices.Sort(results.Settings)
	}
	return results, nil
}

// findServer gives the engine a server: the configured one, or its own.
func (e *engine) findServer(c Config) (stop func() error, err error) {
	if c.Postgres != "" {
		e.base = c.Postgres
		return func() error { return nil }, nil
	}
	s, err := startServer(c.Dir)
	if err != nil {
		return nil, err
	}
	e.base, e.server = s.dsn(), s
	return s.stop, nil
}

// runWorkload runs a workload with each contestant in turn, for some rounds. The order rotates from
// round to round.
func (c Config) runWorkload(ctx context.Context, e *engine, w workload) WorkloadReport {
	r := WorkloadReport{Name: w.name, Title: w.title, Notes: w.notes, Rounds: []map[string]measure.Sample{}}
	for _, x := range w.contestants {
		r.Contestants = append(r.Contestants, ContestantReport{Name: x.name, How: x.how})
	}
	n := c.Rounds
	if w.rounds > 0 {
		n = min(n, w.rounds)
	}
	c.logf("%s %s: %s", e.name, w.name, w.title)
	if err := c.dropProfile(e, w); err != nil {
		r.Errors = append(r.Errors, ContestantError{ours, 0, err.Error()})
	}
	sessions := map[string]*measure.Session{}
	for i := range n {
		round := map[string]measure.Sample{}
		for k := range w.contestants {
			x := w.contestants[(i+k)%len(w.contestants)]
			if r.failed(x.name) || ctx.Err() != nil {
				continue
			}
			sample, err := c.turn(ctx, e, w, x, sessions)
			if err != nil {
				r.Errors = append(r.Errors, ContestantError{x.name, i, err.Error()})
				c.logf("    %-12s FAILED: %v", x.name, err)
				continue
			}
			round[x.name] = sample
			c.logf("    %-12s %s", x.name, sample.Line())
		}
		r.Rounds = append(r.Rounds, round)
	}
	for name, session := range sessions {
		if err := session.Close(); err != nil {
			r.Errors = append(r.Errors, ContestantError{name, n, err.Error()})
		}
	}
	for _, t := range w.targets {
		v := t.judge(r.Rounds)
		r.Verdicts = append(r.Verdicts, VerdictReport{Asked: t.String(), Word: v.word(), Spread: spreadOf(v.values), Rounds: len(v.values)})
	}
	c.addShares(e, w, &r)
	if c.Count {
		c.countStatements(ctx, e, w, &r)
	}
	return r
}

// turn runs one contestant's part of a round. No other contestant is set up meanwhile, unless the
// workload keeps them.
func (c Config) turn(ctx context.Context, e *engine, w workload, x contestant, sessions map[string]*measure.Session) (sample measure.Sample, err error) {
	session := sessions[x.name]
	if session == nil {
		spec := w.spec
		if x.spec != nil {
			x.spec(&spec)
		}
		if session, err = x.open(ctx, spec); err != nil {
			return nil, err
		}
		if w.keep {
			sessions[x.name] = session
		} else {
			defer func() { err = errors.Join(err, session.Close()) }()
		}
	}
	var meter measure.Meter
	if e.server != nil {
		meter.Server = e.serverTime
	}
	if x.name == ours {
		meter.Profile = c.profile(e, w)
	}
	return session.Round(measure.WithMeter(ctx, meter))
}

// profile returns the file for the CPU profile of the library's rounds. The latest run replaces it.
func (c Config) profile(e *engine, w workload) string {
	if c.Profiles == "" {
		return ""
	}
	return filepath.Join(c.Profiles, e.name+"-"+strings.ReplaceAll(w.name, "/", "-")+".pprof")
}

// dropProfile removes the profile of an earlier run.
func (c Config) dropProfile(e *engine, w workload) error {
	if err := os.Remove(c.profile(e, w)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// addShares adds the shares of the profile to the report, if there is a profile.
func (c Config) addShares(e *engine, w workload, r *WorkloadReport) {
	file := c.profile(e, w)
	if _, err := os.Stat(file); file == "" || err != nil {
		return // the child processes are not profiled
	}
	shares, err := measure.Shares(file)
	if err != nil {
		r.Errors = append(r.Errors, ContestantError{ours, 0, err.Error()})
	}
	r.Shares = shares
}

func (c Config) logf(format string, args ...any) {
	if c.Log != nil {
		fmt.Fprintf(c.Log, format+"\n", args...)
	}
}
