package measure

import (
	"context"
	"runtime"
	"syscall"
	"time"
)

// A Meter is what else is to be watched while the clock runs. Nil fields watch nothing.
type Meter struct {
	Profile string               // file that a CPU profile of this process is added to
	Server  func() time.Duration // the time that the database server has had of the processors
}

type meterKey struct{}

// WithMeter has Loop and Timed use a meter.
func WithMeter(ctx context.Context, m Meter) context.Context {
	return context.WithValue(ctx, meterKey{}, m)
}

// A clock measures what the process spends.
type clock struct {
	meter       Meter
	stopProfile func() error
	memory      runtime.MemStats
	cpu, server time.Duration
	start       time.Time
}

func startClock(ctx context.Context) (*clock, error) {
	c := &clock{stopProfile: func() error { return nil }}
	c.meter, _ = ctx.Value(meterKey{}).(Meter)
	if c.meter.Profile != "" {
		var err error
		if c.stopProfile, err = startProfile(c.meter.Profile); err != nil {
			return nil, err
		}
	}
	if c.meter.Server != nil {
		c.server = c.meter.Server()
	}
	runtime.ReadMemStats(&c.memory)
	c.cpu = processTime()
	c.start = time.Now()
	return c, nil
}

// stop returns the sample of n things done since.
func (c *clock) stop(n int) (Sample, error) {
	sample := Throughput(n, time.Since(c.start))
	cpu := processTime() - c.cpu
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	if n > 0 {
		sample[Allocs] = float64(memory.Mallocs-c.memory.Mallocs) / float64(n)
		sample[CPU] = float64(cpu.Microseconds()) / float64(n)
		if c.meter.Server != nil {
			sample[ServerCPU] = float64((c.meter.Server() - c.server).Microseconds()) / float64(n)
		}
	}
	return sample, c.stopProfile()
}

// processTime is what this process has had of the processors.
func processTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
