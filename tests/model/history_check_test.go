package model_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// An event is an operation on one message, with its result.
type event struct {
	client    int
	kind      string // claim, ack, extend or release
	message   int64
	claim     int64 // of the lease that the operation got or used
	done      bool  // false if the lease was lost
	attempt   int   // of a claim
	call, ret int64 // nanoseconds since the history began

	// By the database's clock.
	due, until time.Time     // of a claim: when the message was due, and when the lease ends
	term       time.Duration // of a claim or extension
	before     time.Time     // a time before an extension was called
}

func (e event) String() string {
	return fmt.Sprintf("%s of message %d by claim %d (attempt %d): %v", e.kind, e.message, e.claim, e.attempt, e.done)
}

// A holding is the state of a message after a claim.
type holding struct {
	claims      int64
	attempts    int
	held, acked bool
}

// step reports whether an operation can have returned its result in this state, and returns the
// next state.
func (h holding) step(e event) (bool, holding) {
	holds := h.held && h.claims == e.claim
	next := h
	switch e.kind {
	case "claim":
		next.claims, next.attempts, next.held = h.claims+1, h.attempts+1, true
		return !h.acked && e.claim == next.claims && e.attempt == next.attempts, next
	case "ack":
		next.acked = h.acked || holds
		return e.done == holds, next
	case "extend":
		return e.done == (holds && !h.acked), next
	default: // the operation is a release
		if e.done {
			next.held, next.attempts = false, h.attempts-1
		}
		return e.done == (holds && !h.acked), next
	}
}

// linearizable is the model of a message. A history of one message must agree with it, in some
// order that its calls allow.
var linearizable = porcupine.Model{
	Init: func() any { return holding{} },
	Step: func(state, input, _ any) (bool, any) {
		ok, next := state.(holding).step(input.(event))
		return ok, next
	},
}

// check returns the errors in a history.
func check(history []event) []error {
	var errs []error
	byMessage := map[int64][]event{}
	for _, e := range history {
		byMessage[e.message] = append(byMessage[e.message], e)
	}
	for id, events := range byMessage {
		var ops []porcupine.Operation
		for _, e := range events {
			ops = append(ops, porcupine.Operation{ClientId: e.client, Input: e, Call: e.call, Return: e.ret})
		}
		if !porcupine.CheckOperations(linearizable, ops) {
			errs = append(errs, fmt.Errorf("message %d: no order of the calls explains their results: %v", id, events))
		}
		errs = append(errs, overlaps(events)...)
		if acks := acked(events); len(acks) > 1 {
			errs = append(errs, fmt.Errorf("message %d was acked by the claims %v", id, acks))
		}
	}
	return errs
}

// overlaps finds claims of a message that began while the lease before was alive, by the database's
// clock.
func overlaps(events []event) []error {
	var claims []event
	ends := map[int64]time.Time{} // of leases, at or before their real end
	released := map[int64]bool{}
	later := func(claim int64, t time.Time) {
		if t.After(ends[claim]) {
			ends[claim] = t
		}
	}
	for _, e := range events {
		switch {
		case e.kind == "claim":
			claims = append(claims, e)
			later(e.claim, e.until)
		case e.kind == "extend" && e.done:
			later(e.claim, e.before.Add(e.term))
		case e.kind == "release" && e.done:
			released[e.claim] = true
		}
	}
	slices.SortFunc(claims, func(a, b event) int { return cmp.Compare(a.claim, b.claim) })
	var errs []error
	for i, e := range claims {
		began := e.until.Add(-e.term)
		if e.due.After(began) {
			errs = append(errs, fmt.Errorf("%v: at %v, but it was to be had at %v", e, began, e.due))
		}
		if i == 0 || released[claims[i-1].claim] {
			continue
		}
		if end := ends[claims[i-1].claim]; end.After(began) {
			errs = append(errs, fmt.Errorf("%v: at %v, but the lease before ended at %v", e, began, end))
		}
	}
	return errs
}

// acked lists the claims by which a message was acked.
func acked(events []event) []int64 {
	var claims []int64
	for _, e := range events {
		if e.kind == "ack" && e.done && !slices.Contains(claims, e.claim) {
			claims = append(claims, e.claim)
		}
	}
	return claims
}

// Each history except the first breaks one promise.
func TestTheCheckOfAHistoryFindsWhatIsWrong(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	const term = 10 * time.Millisecond
	claim := func(n int64, attempt, from, due int) event {
		return event{kind: "claim", message: 1, claim: n, attempt: attempt, done: true, due: at(due), until: at(from).Add(term), term: term}
	}
	call := func(kind string, n int64, done bool) event {
		return event{kind: kind, message: 1, claim: n, done: done, before: at(0), term: term}
	}
	extended := call("extend", 1, true)
	extended.before = at(5)
	for name, history := range map[string][]event{
		"":                                    {claim(1, 1, 0, 0), extended, claim(2, 2, 15, 15), call("ack", 1, false), call("ack", 2, true), call("ack", 2, true), call("extend", 2, false)},
		"a claim skips a number":              {claim(1, 1, 0, 0), claim(3, 2, 10, 10)},
		"an attempt is not counted":           {claim(1, 1, 0, 0), claim(2, 1, 10, 10)},
		"a release is counted":                {claim(1, 1, 0, 0), call("release", 1, true), claim(2, 2, 5, 5)},
		"two claims ack":                      {claim(1, 1, 0, 0), claim(2, 2, 10, 10), call("ack", 1, true), call("ack", 2, true)},
		"an earlier claim extends":            {claim(1, 1, 0, 0), claim(2, 2, 10, 10), call("extend", 1, true)},
		"a released lease releases":           {claim(1, 1, 0, 0), call("release", 1, true), call("release", 1, true)},
		"a holder is told it has lost":        {claim(1, 1, 0, 0), call("ack", 1, false)},
		"an acked message is claimed":         {claim(1, 1, 0, 0), call("ack", 1, true), claim(2, 2, 10, 10)},
		"a claim before the message is due":   {claim(1, 1, 0, 5)},
		"a claim during the lease before":     {claim(1, 1, 0, 0), claim(2, 2, 9, 9)},
		"a claim during an extension of that": {claim(1, 1, 0, 0), extended, claim(2, 2, 14, 14)},
	} {
		for i := range history {
			history[i].call, history[i].ret = int64(2*i), int64(2*i+1)
		}
		if errs := check(history); (len(errs) > 0) != (name != "") {
			t.Errorf("%q: found %v", name, errs)
		}
	}
}
