package measure

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"
)

// Loop calls fn in a loop on a number of goroutines. It warms up for a tenth of the time before the
// clock starts. The argument of fn is the number of its goroutine. Each call counts as the given
// number of items. Loop returns the sample, and the number of calls including those of the warm-up.
//
// An error of fn ends the loop.
func Loop(ctx context.Context, goroutines, items int, d time.Duration, fn func(ctx context.Context, g int) error) (Sample, int, error) {
	warm, err := calls(ctx, goroutines, d/10, fn)
	if err != nil {
		return nil, 0, err
	}
	clock, err := startClock(ctx)
	if err != nil {
		return nil, 0, err
	}
	timed, err := calls(ctx, goroutines, d, fn)
	sample, stopErr := clock.stop(len(timed) * items)
	if err := errors.Join(err, stopErr); err != nil {
		return nil, 0, err
	}
	for name, value := range Latencies(timed) {
		if name != Done {
			sample[name] = value
		}
	}
	sample[All] = float64((len(warm) + len(timed)) * items)
	return sample, len(warm) + len(timed), nil
}

// calls makes calls until the time is up, at least one on each goroutine. It returns how long each
// call took.
func calls(ctx context.Context, goroutines int, d time.Duration, fn func(ctx context.Context, g int) error) ([]time.Duration, error) {
	var wg sync.WaitGroup
	took := make([][]time.Duration, goroutines)
	errs := make([]error, goroutines)
	until := time.Now().Add(d)
	for g := range goroutines {
		wg.Go(func() {
			for start := time.Now(); ; {
				if errs[g] = fn(ctx, g); errs[g] != nil {
					return
				}
				end := time.Now()
				took[g] = append(took[g], end.Sub(start))
				if !end.Before(until) {
					return
				}
				start = end
			}
		})
	}
	wg.Wait()
	var all []time.Duration
	for g := range goroutines {
		if errs[g] != nil {
			return nil, errs[g]
		}
		all = append(all, took[g]...)
	}
	return all, nil
}

// Timed runs fn once and measures it. The sample counts the number that fn returns.
func Timed(ctx context.Context, fn func() (int, error)) (Sample, error) {
	runtime.GC()
	clock, err := startClock(ctx)
	if err != nil {
		return nil, err
	}
	n, err := fn()
	sample, stopErr := clock.stop(n)
	return sample, errors.Join(err, stopErr)
}
