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
//		"answer":   pgqrs.Selected{Case: 1, Value: "Ann"}, // of Select
//		"parcels":  []any{7, errors.New("lost")}, // of Children; of Child it is the result itself
//	})
//	receipt, err := runCheckout(t.Context(), run, order)
//
// The map gives results by the name of the step, signal or child. The run returns them as on a
// replay. A value is encoded to JSON and back. An error is a recorded failure: the call returns a
// *[pgqrs.RunError], which matches ErrTimeout or ErrPermanent if the given error does. Two errors
// are special:
//
//   - ErrCancelled is returned as from the first step of a cancelled run.
//   - ErrSuspended ends the execution at this call.
//
// The name of a signal gives the result of the first Wait for it. The name "approved#2" gives the
// result of the second Wait.
//
// A step without a given result calls its function once, and a failure of the function is final.
// Sleep returns at once. StepTx, DoTx, Wait, Select and Child return an error matching
// ErrUnsupported if they have no given result.
func NewRun(t testing.TB, given map[string]any) *pgqrs.Run {
	t.Helper()
	for name, v := range given {
		if _, err := json.Marshal(v); err != nil {
			t.Fatalf("the value given for %q is no JSON: %v", name, err)
		}
	}
	return testkit.NewRun(given).(*pgqrs.Run)
}

// Ran returns the names of the steps whose function was called, in the order of the calls. The run
// must come from NewRun.
func Ran(run *pgqrs.Run) []string { return testkit.Ran(run) }
