package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mikestefanello/backlite"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// A backliteTask is a job on backlite. Finished tasks are kept, as in the other queues.
type backliteTask struct{ measure.Job }

func (backliteTask) Config() backlite.QueueConfig {
	return backlite.QueueConfig{
		Name: "bench", MaxAttempts: 5, Backoff: time.Second, Timeout: time.Minute,
		Retention: &backlite.Retention{Duration: 24 * time.Hour},
	}
}

// newBacklite creates a client with a number of workers, and its tables.
func newBacklite(db *database, workers int, fn func(context.Context, backliteTask) error) (*backlite.Client, error) {
	client, err := backlite.NewClient(backlite.ClientConfig{DB: db.DB, NumWorkers: workers, ReleaseAfter: 10 * time.Minute})
	if err != nil {
		return nil, err
	}
	client.Register(backlite.NewQueue(fn))
	return client, client.Install()
}

func openBacklite(ctx context.Context, workload string, spec measure.Spec, fresh func() (*database, error)) (*measure.Session, error) {
	switch workload {
	case "enqueue":
		return backliteEnqueue(ctx, spec, fresh)
	case "drain":
		return &measure.Session{
			Round: func(ctx context.Context) (measure.Sample, error) { return backliteDrain(ctx, spec, fresh) },
			Close: func() error { return nil },
		}, nil
	case "pickup":
		return backlitePickup(ctx, spec, fresh)
	}
	return nil, fmt.Errorf("no workload %q", workload)
}

func backliteEnqueue(_ context.Context, spec measure.Spec, fresh func() (*database, error)) (*measure.Session, error) {
	db, err := fresh()
	if err != nil {
		return nil, err
	}
	client, err := newBacklite(db, 1, func(context.Context, backliteTask) error { return nil })
	if err != nil {
		return nil, err
	}
	tasks := backliteTasks(spec.Items)
	return db.enqueuing(spec, "SELECT count(*) FROM backlite_tasks", func(ctx context.Context) error {
		ids, err := client.Add(tasks...).Ctx(ctx).Save()
		if err == nil && len(ids) != spec.Items {
			err = fmt.Errorf("%d ids for %d tasks", len(ids), spec.Items)
		}
		return err
	}), nil
}

func backliteTasks(n int) []backlite.Task {
	tasks := make([]backlite.Task, n)
	for i, job := range measure.Jobs(n) {
		tasks[i] = backliteTask{job}
	}
	return tasks
}

// backliteDrain counts the tasks that have moved to the table of completed ones.
func backliteDrain(ctx context.Context, spec measure.Spec, fresh func() (*database, error)) (measure.Sample, error) {
	db, err := fresh()
	if err != nil {
		return nil, err
	}
	defer db.drop()
	var handled atomic.Int64
	all := make(chan struct{})
	client, err := newBacklite(db, spec.Goroutines, func(context.Context, backliteTask) error {
		if handled.Add(1) == int64(spec.Backlog) {
			close(all)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for left := spec.Backlog; left > 0; left -= 1000 {
		if _, err := client.Add(backliteTasks(min(left, 1000))...).Ctx(ctx).Save(); err != nil {
			return nil, err
		}
	}
	if err := db.checkpoint(ctx); err != nil {
		return nil, err
	}
	start := time.Now()
	client.Start(ctx)
	deadline := time.After(spec.Limit)
	const completed = "SELECT count(*) FROM backlite_tasks_completed WHERE succeeded"
	var done int
	capped := false
	for done < spec.Backlog && !capped {
		select {
		case <-all: // the outcome is recorded after the handler returns
			time.Sleep(time.Millisecond)
		case <-deadline:
			capped = true
		}
		if done, err = db.count(ctx, completed); err != nil {
			return nil, err
		}
	}
	sample := measure.Throughput(done, time.Since(start))
	if capped {
		sample[measure.Capped] = 1
	}
	stopping, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client.Stop(stopping)
	return sample, nil
}

// backlitePickup measures the time from before a task is added until it is run.
func backlitePickup(ctx context.Context, spec measure.Spec, fresh func() (*database, error)) (*measure.Session, error) {
	db, err := fresh()
	if err != nil {
		return nil, err
	}
	begun := make(chan time.Duration, 1)
	client, err := newBacklite(db, spec.Goroutines, func(_ context.Context, t backliteTask) error {
		begun <- time.Since(time.Unix(0, t.ID))
		return nil
	})
	if err != nil {
		return nil, err
	}
	client.Start(ctx)
	round := func(ctx context.Context) (measure.Sample, error) {
		return measure.Pickup(ctx, spec.Samples, begun, func(ctx context.Context, job measure.Job) error {
			_, err := client.Add(backliteTask{job}).Ctx(ctx).Save()
			return err
		})
	}
	stop := func() error {
		stopping, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		client.Stop(stopping)
		return db.drop()
	}
	return &measure.Session{Round: round, Close: stop}, nil
}
