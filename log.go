package pgqrs

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// failureLogs log a failure that repeats at once, after 10 s, after a minute, and then every 10
// minutes. Each line has the number of failures and the time of the first. From a minute on the
// level is Error. One line reports the end of the failure. Otherwise an outage would log each try
// of each worker.
type failureLogs struct {
	log     *slog.Logger
	failing atomic.Bool // whether anything is failing

	mu   sync.Mutex
	open map[string]*failureCount // by the name of the thing that fails
}

// A failureCount is a thing that fails, from its first failure until it works again.
type failureCount struct {
	message      string
	since, until time.Time // times of the first and the latest failure
	times        int
	lines        int // that were logged
	next         time.Time
}

// failureWaits are the times of the second line, the third, and so on, after the first failure.
var failureWaits = []time.Duration{10 * time.Second, time.Minute, 10 * time.Minute}

const (
	failureEvery = 10 * time.Minute // after the last of failureWaits
	failureOver  = 10 * time.Second // without a failure, before a thing counts as working again
	loudFailure  = 2                // lines before those of level Error
)

// key returns the logger of one thing that may fail.
func (f *failureLogs) key(key string) failureLog { return failureLog{f, key} }

// A failureLog logs one thing that may fail.
type failureLog struct {
	all *failureLogs
	key string
}

// Warn logs a failure, unless it has just been logged.
func (l failureLog) Warn(message string, args ...any) { l.failed(slog.LevelWarn, message, args) }

// Error is Warn for a failure that has the level Error from the first time on.
func (l failureLog) Error(message string, args ...any) { l.failed(slog.LevelError, message, args) }

func (l failureLog) failed(level slog.Level, message string, args []any) {
	x, due := l.count(message)
	if !due {
		return
	}
	if x.lines > loudFailure {
		level = slog.LevelError
	}
	if x.times > 1 {
		args = append(args, "times", x.times, "since", x.since)
	}
	l.all.log.Log(context.Background(), level, message, args...)
}

// count counts a failure and reports whether it is to be logged.
func (l failureLog) count(message string) (x failureCount, due bool) {
	f := l.all
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.open == nil {
		f.open = map[string]*failureCount{}
	}
	known := f.open[l.key]
	if known == nil {
		known = &failureCount{since: now, next: now}
		f.open[l.key] = known
		f.failing.Store(true)
	}
	known.message, known.until = message, now
	known.times++
	if now.Before(known.next) {
		return *known, false
	}
	if known.lines < len(failureWaits) {
		known.next = known.since.Add(failureWaits[known.lines])
	} else {
		known.next = now.Add(failureEvery)
	}
	known.lines++
	return *known, true
}

// over reports that the thing works. If it has failed before, and has not for a while, over logs
// that.
func (l failureLog) over() {
	f, key := l.all, l.key
	if !f.failing.Load() {
		return
	}
	f.mu.Lock()
	x := f.open[key]
	over := x != nil && time.Since(x.until) >= failureOver
	if over {
		delete(f.open, key)
		f.failing.Store(len(f.open) > 0)
	}
	f.mu.Unlock()
	if over {
		f.log.Info("pgqrs: what had failed works again", "what", strings.TrimPrefix(x.message, "pgqrs: "), "times", x.times, "since", x.since)
	}
}

// A limitedLog counts an event that is to be logged, but not too often.
type limitedLog struct {
	mu    sync.Mutex
	last  time.Time
	times int
}

// count adds an event. It returns the number of events since it last returned one, or 0 if that was
// less than every ago.
func (n *limitedLog) count(every time.Duration) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.times++
	if !n.last.IsZero() && time.Since(n.last) < every {
		return 0
	}
	times := n.times
	n.last, n.times = time.Now(), 0
	return times
}
