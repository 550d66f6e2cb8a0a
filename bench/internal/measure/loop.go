package measure

import (
	"context"
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
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	timed, err := calls(ctx, goroutines, d, fn)
	took := time.Since(start)
	if err != nil {
		return nil, 0, err
	}
	runtime.ReadMemStats(&after)
	sample := Throughput(len(timed)*items, took)
	for name, value := range Latencies(timed) {
		if name != Done {
			sample[name] = value
		}
	}
	sample[Allocs] = float64(after.Mallocs-before.Mallocs) / float64(len(timed)*items)
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
func Timed(fn func() (int, error)) (Sample, error) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	n, err := fn()
	took := time.Since(start)
	if err != nil {
		return nil, err
	}
	runtime.ReadMemStats(&after)
	sample := Throughput(n, took)
	sample[Allocs] = float64(after.Mallocs-before.Mallocs) / float64(max(1, n))
	return sample, nil
}
