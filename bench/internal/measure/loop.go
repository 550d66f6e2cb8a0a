package measure

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"
)

// Loop calls fn over and over on some goroutines, first for a tenth of the
// time to warm up, then with the clock running. fn is told its goroutine and
// does one thing, of the given number of items. Loop returns the sample and
// how many calls there were, the warm-up included.
//
// An error of fn ends it.
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

// calls makes calls until the time is up, at least one a goroutine, and returns how long each took.
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

// Timed runs fn with the clock running. The sample counts what fn says it did.
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
