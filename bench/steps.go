package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

var stepNames = []string{"reserve", "charge", "pack", "label", "weigh", "hand over", "notify", "invoice", "file", "close"}

// runs starts runs of ten steps that do nothing, and waits for their results.
func runs(e *engine) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		l, err := e.openLibrary(ctx)
		if err != nil {
			return nil, err
		}
		flow := pgqrs.NewWorkflow[measure.Job, int64](l.store, "bench_flow")
		stop := l.background(ctx, &pgqrs.Worker{Concurrency: spec.Goroutines, Handlers: []pgqrs.Handler{flow.Handle(tenSteps)}})
		total := 0
		round := func(ctx context.Context) (measure.Sample, error) {
			sample, n, err := loopWithHistory(ctx, l.database, spec, func(ctx context.Context, _ int) error {
				run, err := flow.Start(ctx, measure.NewJob(7))
				if err != nil {
					return err
				}
				out, err := run.Result(ctx)
				if err == nil && out != 7 {
					err = fmt.Errorf("result %d", out)
				}
				return err
			})
			if err != nil {
				return nil, err
			}
			total += n
			return sample, l.expectRuns(ctx, total)
		}
		return &measure.Session{Round: round, Close: func() error { return errors.Join(stop(), l.close()) }}, nil
	}
}

// loopWithHistory is like measure.Loop, on a database that has executed runs before and has been
// settled. PostgreSQL plans statements and the checks of foreign keys for the tables as they are at
// the time. It keeps the plans until the tables are analyzed. Plans for empty tables read whole
// tables, so a contestant that happens to get fewer of them would be faster.
func loopWithHistory(ctx context.Context, d *database, spec measure.Spec, fn func(ctx context.Context, g int) error) (measure.Sample, int, error) {
	_, before, err := measure.Loop(ctx, spec.Goroutines, 1, spec.Time, fn)
	if err != nil {
		return nil, 0, err
	}
	if err := d.settle(ctx); err != nil {
		return nil, 0, err
	}
	sample, n, err := measure.Loop(ctx, spec.Goroutines, 1, spec.Time, fn)
	if err != nil {
		return nil, 0, err
	}
	sample[measure.All] += float64(before) // -statements divides by it
	return sample, before + n, nil
}

func tenSteps(ctx context.Context, run *pgqrs.Run, in measure.Job) (int64, error) {
	var last int64
	for _, name := range stepNames {
		var err error
		last, err = pgqrs.Step(ctx, run, name, func(context.Context) (int64, error) { return in.ID, nil })
		if err != nil {
			return 0, err
		}
	}
	return last, nil
}

// expectRuns returns an error unless n runs have succeeded, with all their steps.
func (d *database) expectRuns(ctx context.Context, n int) error {
	return d.expect(ctx, map[string]int{
		"SELECT count(*) FROM pgqrs_workflow_runs WHERE status = 'SUCCESS'":  n,
		"SELECT count(*) FROM pgqrs_workflow_steps WHERE status = 'SUCCESS'": 10 * n,
	})
}

// rawRuns writes the minimum for a run of ten steps: twelve statements, each in a transaction of
// its own.
func rawRuns(e *engine, conns int) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		r, err := e.openRaw(ctx, conns)
		if err != nil {
			return nil, err
		}
		var workflow int64
		if err := r.QueryRowContext(ctx, e.raw.workflow, "raw", r.queue).Scan(&workflow); err != nil {
			return nil, err
		}
		start, err1 := r.PrepareContext(ctx, e.raw.startRun)
		save, err2 := r.PrepareContext(ctx, e.raw.saveStep)
		finish, err3 := r.PrepareContext(ctx, e.raw.finishRun)
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, err
		}
		var numbers atomic.Int64
		total := 0
		round := func(ctx context.Context) (measure.Sample, error) {
			sample, n, err := loopWithHistory(ctx, r.database, spec, func(ctx context.Context, _ int) error {
				return rawRun(ctx, workflow, numbers.Add(1), start, save, finish)
			})
			if err != nil {
				return nil, err
			}
			total += n
			return sample, r.expectRuns(ctx, total)
		}
		return &measure.Session{Round: round, Close: r.drop}, nil
	}
}

func rawRun(ctx context.Context, workflow, number int64, start, save, finish *sql.Stmt) error {
	var run int64
	if err := start.QueryRowContext(ctx, workflow, number).Scan(&run); err != nil {
		return err
	}
	for _, name := range stepNames {
		if _, err := save.ExecContext(ctx, run, name, "7"); err != nil {
			return err
		}
	}
	_, err := finish.ExecContext(ctx, "7", run)
	return err
}
