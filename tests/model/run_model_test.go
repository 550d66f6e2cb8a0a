package model_test

import (
	"slices"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A modelRun is what a run of a script is documented to do, in memory. A
// script is a list of steps by their kind:
//
//	ok      returns
//	flaky   fails the first time, and is to be tried again after retryIn
//	bad     fails for good, but not when it is taken again
//	sleep   sleeps for sleepFor
//	wait    waits for a signal, for waitFor at most
type modelRun struct {
	script  []string
	status  pgqrs.RunState
	started bool
	calls   []int    // of the functions of steps
	results []string // of steps; of those that have ended
	has     []bool   // which steps have a result
	taken   []int    // steps in the order in which they were first begun

	waits   bool          // for left, in the step that is next
	left    time.Duration // until it has waited long enough
	signals int           // that nothing has taken
	held    time.Duration // until the lease of a worker that died ends; 0: nobody's
}

const (
	retryIn  = 2 * time.Hour
	sleepFor = 2 * time.Hour
	waitFor  = 3 * time.Hour

	timedOut = "timeout" // result of a wait that no signal came for
)

func newModelRun(script []string) *modelRun {
	return &modelRun{script: script, status: pgqrs.Queued, calls: make([]int, len(script)), results: make([]string, len(script)), has: make([]bool, len(script))}
}

// next is the first step without a result; without one, the number of steps.
func (r *modelRun) next() int {
	if i := slices.Index(r.has, false); i >= 0 {
		return i
	}
	return len(r.script)
}

func (r *modelRun) ended() bool {
	return slices.Contains([]pgqrs.RunState{pgqrs.Cancelled, pgqrs.Succeeded, pgqrs.Failed}, r.status)
}

// execute is what workers do with it until it has to wait.
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

// step takes the next step, and reports whether that ended with a result.
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

// The calls of an operator report whether they could be done.

func (r *modelRun) signal() bool {
	if !r.ended() {
		r.signals++
	}
	return !r.ended()
}

// cancel ends a run at once that has no steps and is in nobody's hands.
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

// retry has all steps that failed taken anew, and so the waits that timed out.
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
