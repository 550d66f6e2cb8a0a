package measure

import (
	"context"
	"runtime"
	"syscall"
	"time"
)

// A Meter says what else to measure while the clock runs. Nil fields measure nothing.
type Meter struct {
	Profile string               // file to which a CPU profile of this process is added
	Server  func() time.Duration // processor time of the database server
}

type meterKey struct{}

// WithMeter returns a context for which Loop and Timed use a meter.
func WithMeter(ctx context.Context, m Meter) context.Context {
	return context.WithValue(ctx, meterKey{}, m)
}

// A clock measures time and the process's resources.
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

// stop returns the sample for n things done since the start.
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

// processTime returns the processor time of this process.
func processTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
