package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	_ "github.com/dbos-inc/dbos-transact-golang/dbos/driver/sqlite"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

const dbosSQLiteConns = 8 // the default of DBOS

// dbosWorkflow runs ten steps that do nothing.
func dbosWorkflow(ctx dbos.Context, in measure.Job) (int64, error) {
	var last int64
	for _, name := range stepNames {
		var err error
		last, err = dbos.RunAsStep(ctx, func(context.Context) (int64, error) { return in.ID, nil }, dbos.WithStepName(name))
		if err != nil {
			return 0, err
		}
	}
	return last, nil
}

// dbosRuns starts runs and waits for their results. DBOS runs a workflow in the process that starts
// it, without a queue between. On PostgreSQL it makes its own pool.
func dbosRuns(e *engine) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		if !e.postgres() {
			e = e.modernc("&_txlock=immediate") // as DBOS opens a file itself, with the given PRAGMA synchronous
		}
		db, err := e.fresh(ctx, dbosSQLiteConns)
		if err != nil {
			return nil, err
		}
		config := dbos.Config{AppName: "bench", Logger: slog.New(slog.DiscardHandler), SQLiteSystemDB: db.DB}
		if e.postgres() {
			config.DatabaseURL, config.DatabaseSchema, config.SQLiteSystemDB = db.dsn, db.schema, nil
		}
		app, err := dbos.NewContext(ctx, config)
		if err != nil {
			return nil, err
		}
		dbos.RegisterWorkflow(app, dbosWorkflow)
		if err := dbos.Launch(app); err != nil {
			return nil, err
		}
		stop := func() error {
			return errors.Join(dbos.Shutdown(app, 10*time.Second), db.drop())
		}
		run := func(context.Context, int) error {
			handle, err := dbos.RunWorkflow(app, dbosWorkflow, measure.NewJob(7))
			if err != nil {
				return err
			}
			out, err := handle.GetResult()
			if err == nil && out != 7 {
				err = fmt.Errorf("result %d", out)
			}
			return err
		}
		total := 0
		round := func(ctx context.Context) (measure.Sample, error) {
			sample, n, err := loopWithHistory(ctx, db, spec, run)
			if err != nil {
				return nil, err
			}
			total += n
			return sample, db.expect(ctx, map[string]int{
				"SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'": total,
				"SELECT count(*) FROM operation_outputs":                        10 * total,
			})
		}
		return &measure.Session{Round: round, Close: stop}, nil
	}
}

// expect returns an error unless each query returns its number.
func (d *database) expect(ctx context.Context, want map[string]int) error {
	for query, n := range want {
		got, err := d.count(ctx, query)
		if err != nil {
			return err
		}
		if got != n {
			return fmt.Errorf("%s: %d, want %d", query, got, n)
		}
	}
	return nil
}
