package model_test

import (
	"slices"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A modelRun is the documented behaviour of a run of a script, in memory. A script is a list of
// steps by their kind:
//
//	ok      returns
//	flaky   fails the first time, and is retried after retryIn
//	bad     fails for good, but succeeds when it is executed again after a retry of the run
//	sleep   sleeps for sleepFor
//	wait    waits for a signal, for waitFor at most
type modelRun struct {
	script  []string
	status  pgqrs.RunState
	started bool
	calls   []int    // of the functions of steps
	results []string // of the steps that have ended
	has     []bool   // which steps have a result
	taken   []int    // steps in the order in which they first began

	waits   bool          // in the next step, for the time left
	left    time.Duration // until the wait is over
	signals int           // signals that no wait has used
	held    time.Duration // until the lease of a dead worker ends, or 0 without a lease
}

const (
	retryIn  = 2 * time.Hour
	sleepFor = 2 * time.Hour
	waitFor  = 3 * time.Hour

	timedOut = "timeout" // result of a wait without a signal
)

func newModelRun(script []string) *modelRun {
	return &modelRun{script: script, status: pgqrs.Queued, calls: make([]int, len(script)), results: make([]string, len(script)), has: make([]bool, len(script))}
}

// next returns the first step without a result, or the number of steps.
func (r *modelRun) next() int {
	if i := slices.Index(r.has, false); i >= 0 {
		return i
	}
	return len(r.script)
}

func (r *modelRun) ended() bool {
	return slices.Contains([]pgqrs.RunState{pgqrs.Cancelled, pgqrs.Succeeded, pgqrs.Failed}, r.status)
}

// execute does what workers do with the run until it has to wait.
func (r *modelRun) execute() {
	if r.ended() || r.held > 0 {
		return
	}
	switch r.status {
	case pgqrs.Paused:
		return
	case pgqrs.Cancelling:
		r.status = pgqrs.Cancelled
		return
	}
	r.status, r.started = pgqrs.Running, true
	for n := r.next(); n < len(r.script); n = r.next() {
		if !r.step(n, r.script[n]) {
			return
		}
	}
	r.status = pgqrs.Succeeded
}

// step executes the next step, and reports whether it ended with a result.
func (r *modelRun) step(n int, kind string) bool {
	if r.waits && r.left > 0 && !(kind == "wait" && r.signals > 0) {
		return false
	}
	if !slices.Contains(r.taken, n) {
		r.taken = append(r.taken, n)
	}
	waited := r.waits
	r.waits = false
	result := kind
	switch kind {
	case "bad":
		r.calls[n]++
		if r.calls[n] == 1 {
			r.status = pgqrs.Failed
			return false
		}
	case "flaky":
		r.calls[n]++
		if r.calls[n] == 1 {
			return r.wait(retryIn)
		}
	case "sleep":
		if !waited {
			return r.wait(sleepFor)
		}
	case "wait":
		switch {
		case r.signals > 0:
			r.signals--
		case waited:
			result = timedOut
		default:
			return r.wait(waitFor)
		}
	default:
		r.calls[n]++
	}
	r.results[n], r.has[n] = result, true
	return true
}

func (r *modelRun) wait(d time.Duration) bool {
	r.waits, r.left = true, d
	return false
}

func (r *modelRun) advance(d time.Duration) {
	r.left -= d
	r.held = max(0, r.held-d)
}

// The calls of an operator return whether they were possible.

func (r *modelRun) signal() bool {
	if !r.ended() {
		r.signals++
	}
	return !r.ended()
}

// cancel ends a run at once if it has no steps and nobody holds it.
func (r *modelRun) cancel() bool {
	switch {
	case r.ended():
		return r.status == pgqrs.Cancelled
	case len(r.taken) == 0 && r.held == 0 && r.status != pgqrs.Cancelling:
		r.status = pgqrs.Cancelled
	default:
		r.status = pgqrs.Cancelling
	}
	return true
}

func (r *modelRun) pause() bool {
	ok := slices.Contains([]pgqrs.RunState{pgqrs.Queued, pgqrs.Running, pgqrs.Paused}, r.status)
	if ok {
		r.status = pgqrs.Paused
	}
	return ok
}

func (r *modelRun) resume() bool {
	ok := r.status == pgqrs.Paused
	switch {
	case ok && r.started:
		r.status = pgqrs.Running
	case ok:
		r.status = pgqrs.Queued
	}
	return ok
}

// retry clears the failed steps, including waits that timed out.
func (r *modelRun) retry() bool {
	ok := r.status == pgqrs.Failed
	if ok {
		r.status = pgqrs.Running
		for i, result := range r.results {
			r.has[i] = r.has[i] && result != timedOut
		}
	}
	return ok
}
