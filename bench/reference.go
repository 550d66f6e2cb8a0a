package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// byHand is the published scenario of pgqrs for Rust. Consumers dequeue a batch and archive it,
// over and over, until the backlog is done.
func byHand(e *engine) opener {
	return rounds(func(ctx context.Context, spec measure.Spec) (measure.Sample, error) {
		l, err := e.openLibrary(ctx)
		if err != nil {
			return nil, err
		}
		if err := l.fill(ctx, spec.Backlog); err != nil {
			return nil, err
		}
		var done atomic.Int64
		until := time.Now().Add(spec.Limit)
		sample, err := measure.Timed(ctx, func() (int, error) {
			errs := make([]error, spec.Goroutines)
			var wg sync.WaitGroup
			for i := range errs {
				wg.Go(func() { errs[i] = l.consume(ctx, spec, &done, until) })
			}
			wg.Wait()
			return int(done.Load()), errors.Join(errs...)
		})
		if err == nil {
			err = l.check(ctx, sample, spec.Backlog)
		}
		return sample, errors.Join(err, l.close())
	})
}

// consume dequeues and acks until nothing is left or the time is up.
func (l *library) consume(ctx context.Context, spec measure.Spec, done *atomic.Int64, until time.Time) error {
	for time.Now().Before(until) {
		ms, err := l.queue.Dequeue(ctx, spec.Items, 30*time.Second)
		if err != nil || len(ms) == 0 {
			return err
		}
		if err := l.queue.Ack(ctx, ms...); err != nil {
			return err
		}
		done.Add(int64(len(ms)))
	}
	return nil
}

// publishedRates are the published rates of pgqrs 0.15 for this scenario, by batch and consumers.
// They come from its benchmark of March 2026, with Rust and a release build. Machine and durability
// are not recorded.
var publishedRates = map[string]map[[2]int]float64{
	"pg": {
		{1, 1}: 149.5, {1, 2}: 292.8, {1, 4}: 575.0,
		{10, 1}: 1603, {10, 4}: 5250,
		{50, 1}: 6817, {50, 2}: 12478, {50, 4}: 20176,
	},
	"sqlite": {
		{1, 1}: 261.0, {1, 2}: 258.5, {1, 4}: 247.0,
		{10, 1}: 2709, {10, 4}: 2423,
		{50, 1}: 12630, {50, 2}: 11411, {50, 4}: 11233,
	},
}

// published returns the rates of pgqrs 0.15 as text.
func published(engine string, batch, consumers int) string {
	if rate, ok := publishedRates[engine][[2]int{batch, consumers}]; ok {
		return fmt.Sprintf("pgqrs 0.15 published %.0f/s", rate)
	}
	return "pgqrs 0.15 published no figure"
}
