package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

const queueName = "bench"

// A library is the library on a database of its own.
type library struct {
	*database
	store *pgqrs.Store
	queue *pgqrs.Queue[measure.Job]
	log   *logbook
}

func (e *engine) openLibrary(ctx context.Context) (*library, error) {
	db, err := e.installed(ctx, e.conns())
	if err != nil {
		return nil, err
	}
	return db.library(), nil
}

func (d *database) library() *library {
	l := &library{database: d, log: newLogbook()}
	l.store = d.store(l.log)
	l.queue = pgqrs.NewQueue[measure.Job](l.store, queueName)
	return l
}

// close closes the store and drops the database. It returns an error if the library logged a
// warning.
func (l *library) close() error {
	return errors.Join(l.log.err(), l.store.Close(), l.drop())
}

// fill stores a backlog by EnqueueBatch.
func (l *library) fill(ctx context.Context, n int) error {
	jobs := measure.Jobs(1000)
	for left := n; left > 0; left -= len(jobs) {
		batch := jobs[:min(left, len(jobs))]
		ids, err := l.queue.EnqueueBatch(ctx, batch)
		if err == nil && len(ids) != len(batch) {
			err = fmt.Errorf("%d ids for %d messages", len(ids), len(batch))
		}
		if err != nil {
			return err
		}
	}
	return l.settle(ctx)
}

// enqueue stores one message with each call.
func enqueue(e *engine) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		l, err := e.openLibrary(ctx)
		if err != nil {
			return nil, err
		}
		job := measure.NewJob(1e15)
		session := l.enqueuing(spec, func(ctx context.Context, _ int) error {
			id, err := l.queue.Enqueue(ctx, job)
			if err == nil && id == 0 {
				err = errors.New("no id")
			}
			return err
		})
		session.Close = l.close
		return session, nil
	}
}

// enqueueBatch stores many messages with each call.
func enqueueBatch(e *engine) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		l, err := e.openLibrary(ctx)
		if err != nil {
			return nil, err
		}
		jobs := measure.Jobs(spec.Items)
		session := l.enqueuing(spec, func(ctx context.Context, _ int) error {
			ids, err := l.queue.EnqueueBatch(ctx, jobs)
			if err == nil && len(ids) != len(jobs) {
				err = fmt.Errorf("%d ids for %d messages", len(ids), len(jobs))
			}
			return err
		})
		session.Close = l.close
		return session, nil
	}
}

// drain handles a backlog with a Worker.
func drain(e *engine) opener {
	return rounds(func(ctx context.Context, spec measure.Spec) (measure.Sample, error) {
		l, err := e.openLibrary(ctx)
		if err != nil {
			return nil, err
		}
		if err := l.fill(ctx, spec.Backlog); err != nil {
			return nil, errors.Join(err, l.close())
		}
		sample, err := l.work(ctx, spec, spec.Backlog)
		if err == nil {
			err = l.check(ctx, sample, spec.Backlog)
		}
		return sample, errors.Join(err, l.close())
	})
}

// work runs a Worker until it has handled n messages or the time is up. The clock stops when Run
// returns, which is after all outcomes are recorded.
func (l *library) work(ctx context.Context, spec measure.Spec, n int) (measure.Sample, error) {
	var handled atomic.Int64
	running, stop := context.WithTimeout(ctx, spec.Limit)
	defer stop()
	w := &pgqrs.Worker{
		Concurrency: spec.Goroutines,
		Handlers: []pgqrs.Handler{l.queue.Handle(func(context.Context, *pgqrs.Message[measure.Job]) error {
			if handled.Add(1) == int64(n) {
				stop()
			}
			return nil
		})},
	}
	return measure.Timed(ctx, func() (int, error) {
		err := w.Run(running)
		return int(handled.Load()), err
	})
}

// background runs a Worker until stop is called, which waits for it.
func (l *library) background(ctx context.Context, w *pgqrs.Worker) (stop func() error) {
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(running) }()
	return func() error {
		cancel()
		return <-ended
	}
}
