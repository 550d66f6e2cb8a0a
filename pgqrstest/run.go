package pgqrstest

import (
	"encoding/json"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/testkit"
)

// NewRun returns a run for testing a workflow's function without a database:
//
//	run := pgqrstest.NewRun(t, map[string]any{
//		"charge":   "ch_1",                  // a step's result
//		"ship":     errors.New("no stock"),  // a step that has failed for good
//		"approved": true,                    // the first signal of that name
//		"parcels":  []any{7, errors.New("lost")}, // of Children; of Child it is the result itself
//	})
//	receipt, err := runCheckout(t.Context(), run, order)
//
// What is given under the name of a step, signal or child is returned as it
// would be on a replay: a value goes through JSON, and an error is a recorded
// failure, a *[pgqrs.RunError] that matches ErrTimeout and ErrPermanent if the
// error does. A given ErrCancelled is what the first step of a cancelled run
// returns, and a given ErrSuspended ends this execution.
//
// A signal's name stands for its first Wait, that of "approved#2" for the second. A
// step without a given value runs its function, once: its failure is final. A
// Sleep returns at once. StepTx, DoTx, Wait and Child without a given value
// return an error matching ErrUnsupported.
func NewRun(t testing.TB, given map[string]any) *pgqrs.Run {
	t.Helper()
	for name, v := range given {
		if _, err := json.Marshal(v); err != nil {
			t.Fatalf("the value given for %q is no JSON: %v", name, err)
		}
	}
	return testkit.NewRun(given).(*pgqrs.Run)
}

// Ran returns the names of the steps of a run made by NewRun whose function was
// called, in the order of the calls.
func Ran(run *pgqrs.Run) []string { return testkit.Ran(run) }
