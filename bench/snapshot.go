package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

const (
	snapshotWindow   = 5 * time.Second  // rates are taken of
	snapshotBefore   = 20 * time.Second // before the snapshot is taken
	snapshotRecovery = 5 * time.Minute  // at most, after it is let go
	snapshotBacklog  = 5000             // messages kept waiting
	recovered        = 0.9              // of the rate before
)

// underSnapshot drains a queue that is filled as fast as it is worked off, while
// another session holds a snapshot, so that nothing dead can be cleared away.
func underSnapshot(e *engine) opener {
	return rounds(func(ctx context.Context, spec measure.Spec) (measure.Sample, error) {
		l, err := e.openLibrary(ctx)
		if err != nil {
			return nil, err
		}
		if err := l.fill(ctx, snapshotBacklog); err != nil {
			return nil, err
		}
		var handled atomic.Int64
		room := make(chan struct{}, 2*snapshotBacklog) // one for each message that may be enqueued
		stop := l.background(ctx, &pgqrs.Worker{Concurrency: spec.Goroutines, Handlers: []pgqrs.Handler{
			l.queue.Handle(func(context.Context, *pgqrs.Message[measure.Job]) error {
				handled.Add(1)
				room <- struct{}{}
				return nil
			})}})
		feeding, starve := context.WithCancel(ctx)
		fed := make(chan error, 1)
		go func() { fed <- l.feed(feeding, room) }()
		sample, err := l.watchSnapshot(ctx, &handled, spec.Time)
		starve()
		return sample, errors.Join(err, <-fed, stop(), l.close())
	})
}

// feed enqueues a message for each one handled, in batches.
func (l *library) feed(ctx context.Context, room <-chan struct{}) error {
	jobs := measure.Jobs(500)
	for n := 0; ; {
		select {
		case <-room:
			n++
		case <-ctx.Done():
			return nil
		}
		if n < len(jobs) {
			continue
		}
		n = 0
		if _, err := l.queue.EnqueueBatch(context.WithoutCancel(ctx), jobs); err != nil {
			return err
		}
	}
}

// watchSnapshot takes rates before a snapshot, while it is held and after.
func (l *library) watchSnapshot(ctx context.Context, handled *atomic.Int64, hold time.Duration) (measure.Sample, error) {
	window := func() float64 {
		from, start := handled.Load(), time.Now()
		time.Sleep(snapshotWindow)
		return float64(handled.Load()-from) / time.Since(start).Seconds()
	}
	windows := func(d time.Duration) []float64 {
		var rates []float64
		for until := time.Now().Add(d); time.Now().Before(until); {
			rates = append(rates, window())
		}
		return rates
	}
	window() // warm up
	before := spreadOf(windows(snapshotBefore)).Median
	other, err := l.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer other.Rollback()
	if _, err := other.ExecContext(ctx, "SELECT count(*) FROM pgqrs_queues"); err != nil { // takes the snapshot
		return nil, err
	}
	held := windows(hold)
	end := spreadOf(held[len(held)*3/4:]).Median
	dead, err := l.count(ctx, "SELECT n_dead_tup FROM pg_stat_user_tables WHERE schemaname = current_schema AND relname = 'pgqrs_messages'")
	if err == nil {
		err = other.Rollback()
	}
	if err != nil {
		return nil, err
	}
	sample := measure.Sample{"before": before, "end": end, "kept": end / before, "dead": float64(dead), "recovery": snapshotRecovery.Seconds() * 10}
	for start := time.Now(); time.Since(start) < snapshotRecovery; {
		since := time.Since(start).Seconds()
		rate := window()
		sample[fmt.Sprintf("after %03.0f s", since)] = rate
		if rate >= recovered*before {
			sample["recovery"] = since
			break
		}
	}
	for i, rate := range held {
		sample[fmt.Sprintf("held %03.0f s", (time.Duration(i)*snapshotWindow).Seconds())] = rate
	}
	return sample, nil
}
