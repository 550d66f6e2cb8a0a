package pgqrs

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// failures log what fails again and again: at once, after 10 s, after a minute, and then every 10
// minutes, with how often it has failed and since when. From a minute on the level is Error. One
// line says when it is over. An outage would otherwise log each try of each worker.
type failures struct {
	log  *slog.Logger
	some atomic.Bool // there are any

	mu   sync.Mutex
	open map[string]*recurrence // by what fails
}

// A recurrence is something that fails, from the first time on until it is over.
type recurrence struct {
	message      string
	since, until time.Time // when it failed first and last
	times        int
	lines        int // that were logged
	next         time.Time
}

// failureWaits are when the second line comes, the third, and so on, after the first failure.
var failureWaits = []time.Duration{10 * time.Second, time.Minute, 10 * time.Minute}

const (
	failureEvery = 10 * time.Minute // after the last of failureWaits
	failureOver  = 10 * time.Second // without another one, before what failed counts as mended
	loudFailure  = 2                // lines before those of level Error
)

// of returns the logger of one thing that may fail.
func (f *failures) of(key string) failureLog { return failureLog{f, key} }

// A failureLog logs one thing that may fail.
type failureLog struct {
	all *failures
	key string
}

// Warn logs a failure, unless it has just been logged.
func (l failureLog) Warn(message string, args ...any) { l.failed(slog.LevelWarn, message, args) }

// Error is Warn for what is loud from the first time on.
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
func (l failureLog) count(message string) (x recurrence, due bool) {
	f := l.all
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.open == nil {
		f.open = map[string]*recurrence{}
	}
	known := f.open[l.key]
	if known == nil {
		known = &recurrence{since: now, next: now}
		f.open[l.key] = known
		f.some.Store(true)
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

// over notes that the thing works. If it has failed, and has not for a while, that is logged.
func (l failureLog) over() {
	f, key := l.all, l.key
	if !f.some.Load() {
		return
	}
	f.mu.Lock()
	x := f.open[key]
	over := x != nil && time.Since(x.until) >= failureOver
	if over {
		delete(f.open, key)
		f.some.Store(len(f.open) > 0)
	}
	f.mu.Unlock()
	if over {
		f.log.Info("pgqrs: what had failed works again", "what", strings.TrimPrefix(x.message, "pgqrs: "), "times", x.times, "since", x.since)
	}
}
