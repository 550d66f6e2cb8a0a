package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// oursConns is the size of the library's pool, which is the same on the other driver.
const oursConns = 4

// openOurs opens the library on the driver of the queues that it is compared with.
func openOurs(ctx context.Context, workload string, spec measure.Spec, fresh func() (*database, error)) (*measure.Session, error) {
	switch workload {
	case "enqueue":
		return oursEnqueue(ctx, spec, fresh)
	case "drain":
		return &measure.Session{
			Round: func(ctx context.Context) (measure.Sample, error) { return oursDrain(ctx, spec, fresh) },
			Close: func() error { return nil },
		}, nil
	}
	return nil, fmt.Errorf("no workload %q", workload)
}

// newOurs installs the library in a fresh database.
func newOurs(ctx context.Context, fresh func() (*database, error)) (*database, *pgqrs.Queue[measure.Job], error) {
	db, err := fresh()
	if err != nil {
		return nil, nil, err
	}
	db.SetMaxOpenConns(oursConns)
	store := pgqrs.New(db.DB, pgqrs.SQLite)
	return db, pgqrs.NewQueue[measure.Job](store, "bench"), store.Install(ctx)
}

func oursEnqueue(ctx context.Context, spec measure.Spec, fresh func() (*database, error)) (*measure.Session, error) {
	db, queue, err := newOurs(ctx, fresh)
	if err != nil {
		return nil, err
	}
	jobs := measure.Jobs(spec.Items)
	return db.enqueuing(spec, "SELECT count(*) FROM pgqrs_messages", func(ctx context.Context) error {
		if len(jobs) == 1 {
			_, err := queue.Enqueue(ctx, jobs[0])
			return err
		}
		_, err := queue.EnqueueBatch(ctx, jobs)
		return err
	}), nil
}

// oursDrain counts the messages that are archived.
func oursDrain(ctx context.Context, spec measure.Spec, fresh func() (*database, error)) (measure.Sample, error) {
	db, queue, err := newOurs(ctx, fresh)
	if err != nil {
		return nil, err
	}
	defer db.drop()
	for left := spec.Backlog; left > 0; left -= 1000 {
		if _, err := queue.EnqueueBatch(ctx, measure.Jobs(min(left, 1000))); err != nil {
			return nil, err
		}
	}
	if err := db.checkpoint(ctx); err != nil {
		return nil, err
	}
	running, stop := context.WithTimeout(ctx, spec.Limit)
	defer stop()
	var handled atomic.Int64
	w := &pgqrs.Worker{Concurrency: spec.Goroutines, Handlers: []pgqrs.Handler{
		queue.Handle(func(context.Context, *pgqrs.Message[measure.Job]) error {
			if handled.Add(1) == int64(spec.Backlog) {
				stop()
			}
			return nil
		}),
	}}
	sample, err := measure.Timed(ctx, func() (int, error) {
		err := w.Run(running)
		return int(handled.Load()), err
	})
	if err != nil {
		return nil, err
	}
	done, err := db.count(ctx, "SELECT count(*) FROM pgqrs_messages WHERE archived_at IS NOT NULL")
	if err == nil && done != int(handled.Load()) {
		err = fmt.Errorf("%d messages were handled and %d archived", handled.Load(), done)
	}
	if done < spec.Backlog {
		sample[measure.Capped] = 1
	}
	return sample, err
}
