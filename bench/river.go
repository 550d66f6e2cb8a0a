package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	_ "modernc.org/sqlite" // the driver that riversqlite is tested with

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// A riverArgs is a job on River.
type riverArgs struct{ measure.Job }

func (riverArgs) Kind() string { return "bench" }

// A riverWorker calls fn.
type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	fn func(riverArgs)
}

func (w *riverWorker) Work(_ context.Context, job *river.Job[riverArgs]) error {
	w.fn(job.Args)
	return nil
}

// A riverSettings has the settings that River's speed depends on. Zero means River's defaults.
type riverSettings struct {
	workers        int
	cooldown, poll time.Duration
}

// riverFast returns the settings of River's own benchmark command for a drain. FetchCooldown cannot
// be less than a millisecond.
func riverFast(workers int) riverSettings {
	if workers < 64 {
		return riverSettings{workers, time.Millisecond, 20 * time.Millisecond}
	}
	return riverSettings{workers, 2 * time.Millisecond, 20 * time.Millisecond}
}

func (s riverSettings) String() string {
	if s.cooldown == 0 {
		return fmt.Sprintf("MaxWorkers %d, FetchCooldown and FetchPollInterval at their defaults", s.workers)
	}
	return fmt.Sprintf("MaxWorkers %d, FetchCooldown %v, FetchPollInterval %v", s.workers, s.cooldown, s.poll)
}

// A riverOn is River on a database of its own. TTx is the transaction type of its driver.
type riverOn[TTx any] struct {
	db     *database // of the measured engine, to read the tables
	driver riverdriver.Driver[TTx]
	close  func() error
}

// riverPostgres opens River on pgx, in a new schema.
func riverPostgres(ctx context.Context, e *engine) (*riverOn[pgx.Tx], error) {
	db, err := e.fresh(ctx, 1)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(db.dsn)
	if err != nil {
		return nil, err
	}
	config.MaxConns = postgresConns
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	r := &riverOn[pgx.Tx]{db: db, driver: riverpgxv5.New(pool), close: func() error {
		pool.Close()
		return db.drop()
	}}
	return r, r.migrate(ctx)
}

// riverSQLite opens River on modernc's driver, with one connection as its documentation advises.
func riverSQLite(ctx context.Context, e *engine) (*riverOn[*sql.Tx], error) {
	db, err := e.modernc("").fresh(ctx, 1)
	if err != nil {
		return nil, err
	}
	r := &riverOn[*sql.Tx]{db: db, driver: riversqlite.New(db.DB), close: db.drop}
	return r, r.migrate(ctx)
}

func (r *riverOn[TTx]) migrate(ctx context.Context) error {
	migrator, err := rivermigrate.New(r.driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

// client returns a client that works jobs. With zero settings it only inserts jobs.
func (r *riverOn[TTx]) client(s riverSettings, fn func(riverArgs)) (*river.Client[TTx], error) {
	config := &river.Config{Logger: slog.New(slog.DiscardHandler)}
	if s.workers > 0 {
		config.Workers = river.NewWorkers()
		river.AddWorker(config.Workers, &riverWorker{fn: fn})
		config.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: s.workers}}
		config.FetchCooldown, config.FetchPollInterval = s.cooldown, s.poll
	}
	return river.NewClient(r.driver, config)
}

// check returns an error unless want jobs are in the state. An empty state stands for any.
func (r *riverOn[TTx]) check(ctx context.Context, state string, want int) error {
	query := "SELECT count(*) FROM river_job"
	if state != "" {
		query += " WHERE state = '" + state + "'"
	}
	n, err := r.db.count(ctx, query)
	if err == nil && n < want {
		err = fmt.Errorf("%d jobs were counted, and %d are there in state %q", want, n, state)
	}
	return err
}

// fill stores a backlog.
func (r *riverOn[TTx]) fill(ctx context.Context, client *river.Client[TTx], n int) error {
	for left := n; left > 0; left -= 1000 {
		if _, err := client.InsertManyFast(ctx, riverBatch(min(left, 1000))); err != nil {
			return err
		}
	}
	return r.db.settle(ctx)
}

func riverBatch(n int) []river.InsertManyParams {
	params := make([]river.InsertManyParams, n)
	for i, job := range measure.Jobs(n) {
		params[i].Args = riverArgs{job}
	}
	return params
}

// riverEnqueue inserts one job with each call, or many by InsertManyFast.
func riverEnqueue[TTx any](e *engine, open func(context.Context, *engine) (*riverOn[TTx], error)) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		r, err := open(ctx, e)
		if err != nil {
			return nil, err
		}
		client, err := r.client(riverSettings{}, nil)
		if err != nil {
			return nil, err
		}
		batch := riverBatch(spec.Items)
		insert := func(ctx context.Context, _ int) error {
			if spec.Items == 1 {
				_, err := client.Insert(ctx, batch[0].Args, nil)
				return err
			}
			_, err := client.InsertManyFast(ctx, batch)
			return err
		}
		total := 0
		round := func(ctx context.Context) (measure.Sample, error) {
			if err := r.db.settle(ctx); err != nil {
				return nil, err
			}
			sample, n, err := measure.Loop(ctx, spec.Goroutines, spec.Items, spec.Time, insert)
			if err != nil {
				return nil, err
			}
			total += n * spec.Items
			return sample, r.check(ctx, "", total)
		}
		return &measure.Session{Round: round, Close: r.close}, nil
	}
}

// riverDrain counts completion events, which River sends after it has written the completions.
func riverDrain[TTx any](e *engine, open func(context.Context, *engine) (*riverOn[TTx], error), s riverSettings) opener {
	return rounds(func(ctx context.Context, spec measure.Spec) (measure.Sample, error) {
		r, err := open(ctx, e)
		if err != nil {
			return nil, err
		}
		defer r.close()
		client, err := r.client(s, func(riverArgs) {})
		if err != nil {
			return nil, err
		}
		filling, err := r.client(riverSettings{}, nil) // a client with queues cannot insert fast before it is started
		if err != nil {
			return nil, err
		}
		if err := r.fill(ctx, filling, spec.Backlog); err != nil {
			return nil, err
		}
		events, unsubscribe := client.SubscribeConfig(&river.SubscribeConfig{
			ChanSize: spec.Backlog, Kinds: []river.EventKind{river.EventKindJobCompleted},
		})
		defer unsubscribe()
		sample, err := measure.Timed(ctx, func() (int, error) {
			if err := client.Start(ctx); err != nil {
				return 0, err
			}
			done := 0
			for limit := time.After(spec.Limit); done < spec.Backlog; done++ {
				select {
				case <-events:
				case <-limit:
					return done, nil
				}
			}
			return done, nil
		})
		if err != nil {
			return nil, err
		}
		stopping, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := client.Stop(stopping); err != nil {
			return nil, fmt.Errorf("stop River: %w", err)
		}
		if int(sample[measure.Done]) < spec.Backlog {
			sample[measure.Capped] = 1
		}
		return sample, r.check(ctx, "completed", int(sample[measure.Done]))
	})
}

// riverPickup measures the time from before a job is inserted until it is worked.
func riverPickup[TTx any](e *engine, open func(context.Context, *engine) (*riverOn[TTx], error), s riverSettings) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		r, err := open(ctx, e)
		if err != nil {
			return nil, err
		}
		begun := make(chan time.Duration, 1)
		client, err := r.client(s, func(a riverArgs) { begun <- time.Since(time.Unix(0, a.ID)) })
		if err != nil {
			return nil, err
		}
		if err := client.Start(ctx); err != nil {
			return nil, err
		}
		round := func(ctx context.Context) (measure.Sample, error) {
			return measure.Pickup(ctx, spec.Samples, begun, func(ctx context.Context, job measure.Job) error {
				_, err := client.Insert(ctx, riverArgs{job}, nil)
				return err
			})
		}
		stop := func() error {
			stopping, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return errors.Join(client.Stop(stopping), r.close())
		}
		return &measure.Session{Round: round, Close: stop}, nil
	}
}
