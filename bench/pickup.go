package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// pickup measures the time from before a message is enqueued until its handler is called, in a
// process that does both.
func pickup(e *engine) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		l, err := e.openLibrary(ctx)
		if err != nil {
			return nil, err
		}
		begun := make(chan time.Duration, 1)
		stop := l.background(ctx, l.pickupWorker(begun))
		round := func(ctx context.Context) (measure.Sample, error) {
			return measure.Pickup(ctx, spec.Samples, begun, func(ctx context.Context, job measure.Job) error {
				_, err := l.queue.Enqueue(ctx, job)
				return err
			})
		}
		return &measure.Session{Round: round, Close: func() error { return errors.Join(stop(), l.close()) }}, nil
	}
}

// pickupWorker returns a Worker that sends the age of each message when its handler is called.
func (l *library) pickupWorker(begun chan<- time.Duration) *pgqrs.Worker {
	return &pgqrs.Worker{Handlers: []pgqrs.Handler{l.queue.Handle(func(_ context.Context, m *pgqrs.Message[measure.Job]) error {
		begun <- time.Since(time.Unix(0, m.Payload.ID))
		return nil
	})}}
}

// pickupOther is like pickup, with another process that enqueues. This process can notice the
// messages only in the database. They come at random times, far enough apart for the Worker to
// return to its regular polls.
func pickupOther(e *engine) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		l, err := e.openLibrary(ctx)
		if err != nil {
			return nil, err
		}
		begun := make(chan time.Duration, spec.Samples)
		stop := l.background(ctx, l.pickupWorker(begun))
		round := func(ctx context.Context) (measure.Sample, error) {
			var said string
			if err := runChild(ctx, childOrder{Job: "enqueue", Engine: e.name, DSN: l.dsn, Messages: spec.Samples}, &said); err != nil {
				return nil, err
			}
			var took []time.Duration
			for range spec.Samples {
				select {
				case d := <-begun:
					took = append(took, d)
				case <-time.After(time.Minute):
					return nil, fmt.Errorf("%d of %d messages were picked up", len(took), spec.Samples)
				}
			}
			return measure.Latencies(took), nil
		}
		return &measure.Session{Round: round, Close: func() error { return errors.Join(stop(), l.close()) }}, nil
	}
}

// rawPickup inserts a row on one connection. It claims the row on another connection as soon as the
// insert has returned.
func rawPickup(e *engine) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		r, err := e.openRaw(ctx, 2)
		if err != nil {
			return nil, err
		}
		insert, err := r.PrepareContext(ctx, e.raw.insert)
		if err != nil {
			return nil, err
		}
		claim, err := r.PrepareContext(ctx, e.raw.claim)
		if err != nil {
			return nil, err
		}
		begun := make(chan time.Duration, 1)
		inserted := make(chan int64)
		failed := make(chan error, 1)
		go func() {
			for sent := range inserted {
				ids, err := claimed(claim.QueryContext(ctx, r.queue, 1))
				took := time.Since(time.Unix(0, sent))
				if err == nil && len(ids) != 1 {
					err = fmt.Errorf("claimed %d rows of one", len(ids))
				}
				if err != nil {
					failed <- err
					return
				}
				begun <- took
			}
		}()
		round := func(ctx context.Context) (measure.Sample, error) {
			return measure.Pickup(ctx, spec.Samples, begun, func(ctx context.Context, job measure.Job) error {
				var id int64
				if err := insert.QueryRowContext(ctx, r.queue, job.Text()).Scan(&id); err != nil {
					return err
				}
				select {
				case inserted <- job.ID:
					return nil
				case err := <-failed:
					return err
				}
			})
		}
		stop := func() error {
			close(inserted)
			return r.drop()
		}
		return &measure.Session{Round: round, Close: stop}, nil
	}
}
