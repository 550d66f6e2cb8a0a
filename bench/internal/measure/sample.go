// Package measure measures contestants: the library, hand-written SQL and other queues. It depends
// on none of them. So a contestant whose driver cannot be linked with another driver can run in a
// process of its own.
package measure

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The figures of a sample.
const (
	Rate      = "rate"     // things done a second
	P50       = "p50"      // milliseconds
	P99       = "p99"      // milliseconds
	Allocs    = "allocs"   // of the process, for each thing done
	CPU       = "cpu"      // microseconds of processor time, for each thing done
	ServerCPU = "server"   // the same for the database server, if it is another process
	Done      = "done"     // things done while the clock ran
	All       = "all"      // things done, including those before the clock ran
	Seconds   = "seconds"  // while the clock ran
	Capped    = "capped"   // 1 if the clock was stopped before everything was done
	Warnings  = "warnings" // the library's log lines of level WARN and above
	PeakMiB   = "peak"     // memory, in MiB
)

// A Sample is the result of one round of one contestant: figures by name.
type Sample map[string]float64

// A Session is a contestant that is set up for one workload.
type Session struct {
	// Round runs the workload once and measures it. It returns an error if the work is incomplete,
	// for example if rows are missing or ids were not returned.
	Round func(ctx context.Context) (Sample, error)
	// Close takes the contestant down.
	Close func() error
}

// A Spec is the task of a contestant.
type Spec struct {
	Goroutines  int           // callers, or concurrent handlers
	Time        time.Duration // of one round, if the time ends the round
	Limit       time.Duration // after which a drain is stopped. Its rate counts the messages until then.
	Items       int           // messages of one call
	Backlog     int           // messages to drain
	Samples     int           // of a latency
	Dir         string        // for files
	Synchronous string        // SQLite's PRAGMA
}

// milliseconds converts a duration to milliseconds, the unit of latencies.
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// percentile returns the smallest of sorted durations that a share p of them does not exceed.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	n := int(p*float64(len(sorted))+0.999999) - 1
	return sorted[max(0, min(n, len(sorted)-1))]
}

// Latencies returns the sample of a list of durations.
func Latencies(ds []time.Duration) Sample {
	slices.Sort(ds)
	return Sample{P50: milliseconds(percentile(ds, 0.50)), P99: milliseconds(percentile(ds, 0.99)), Done: float64(len(ds))}
}

// Throughput returns the sample of n things done in a time.
func Throughput(n int, took time.Duration) Sample {
	return Sample{Rate: float64(n) / took.Seconds(), Done: float64(n), Seconds: took.Seconds()}
}

// Line formats the sample on one line, for a log.
func (s Sample) Line() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		parts = append(parts, fmt.Sprintf("%s %.4g", name, s[name]))
	}
	return strings.Join(parts, ", ")
}
