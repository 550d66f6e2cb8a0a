package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

const (
	snapshotWindow   = 5 * time.Second  // for which a rate is measured
	snapshotBefore   = 20 * time.Second // before the snapshot is taken
	snapshotRecovery = 5 * time.Minute  // at most, after the snapshot is released
	snapshotBacklog  = 5000             // messages kept waiting
	recovered        = 0.9              // of the rate before
)

// underSnapshot drains a queue that is filled as fast as it is drained. Another session holds a
// snapshot, so that dead rows cannot be removed.
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
		// A slot for each message that may be enqueued.
		room := make(chan struct{}, 2*snapshotBacklog)
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

// watchSnapshot measures rates before a snapshot, while it is held, and after it.
func (l *library) watchSnapshot(ctx context.Context, handled *atomic.Int64, hold time.Duration) (measure.Sample, error) {
	free, err := ratesOf(ctx, handled, snapshotWindow+snapshotBefore, nil)
	if err != nil {
		return nil, err
	}
	before := spreadOf(free[1:]).Median // the first is a warm-up
	other, err := l.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer other.Rollback()
	if _, err := other.ExecContext(ctx, "SELECT count(*) FROM pgqrs_queues"); err != nil { // takes the snapshot
		return nil, err
	}
	held, err := ratesOf(ctx, handled, hold, nil)
	if err != nil {
		return nil, err
	}
	dead, err := l.count(ctx, "SELECT n_dead_tup FROM pg_stat_user_tables WHERE schemaname = current_schema AND relname = 'pgqrs_messages'")
	if err == nil {
		err = other.Rollback()
	}
	if err != nil {
		return nil, err
	}
	after, err := ratesOf(ctx, handled, snapshotRecovery, func(rate float64) bool { return rate >= recovered*before })
	if err != nil {
		return nil, err
	}
	sample := snapshotSample(before, held, after)
	sample["dead"] = float64(dead)
	return sample, nil
}

// ratesOf returns the rate of each window, for a time or until one rate is enough.
func ratesOf(ctx context.Context, handled *atomic.Int64, long time.Duration, enough func(float64) bool) ([]float64, error) {
	var rates []float64
	for until := time.Now().Add(long); time.Now().Before(until); {
		from, start := handled.Load(), time.Now()
		if err := measure.Wait(ctx, snapshotWindow); err != nil {
			return nil, err
		}
		rate := float64(handled.Load()-from) / time.Since(start).Seconds()
		rates = append(rates, rate)
		if enough != nil && enough(rate) {
			break
		}
	}
	return rates, nil
}

// snapshotSample returns the sample of the rates. It has a figure for each minute in which the
// snapshot was held. A recovery that was not seen counts as ten times the time that was waited for
// it.
func snapshotSample(before float64, held, after []float64) measure.Sample {
	end := spreadOf(held[len(held)*3/4:]).Median
	recovery := float64(len(after)-1) * snapshotWindow.Seconds()
	if after[len(after)-1] < recovered*before {
		recovery = snapshotRecovery.Seconds() * 10
	}
	sample := measure.Sample{"before": before, "end": end, "kept": end / before, "recovery": recovery}
	for i, rate := range after {
		sample[fmt.Sprintf("after %03d s", i*int(snapshotWindow.Seconds()))] = rate
	}
	minute := 1
	for rates := range slices.Chunk(held, int(time.Minute/snapshotWindow)) {
		sum := 0.0
		for _, rate := range rates {
			sum += rate
		}
		sample[fmt.Sprintf("minute %02d", minute)] = sum / float64(len(rates))
		sample[fmt.Sprintf("minute %02d, least", minute)] = slices.Min(rates)
		minute++
	}
	return sample
}
