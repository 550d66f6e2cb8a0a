// Package dbtest has the parts that package pgqrstest and its conformance suite share: Drain with a
// limit, and retries for a busy database.
package dbtest

import (
	"testing"
	"time"
)

// Patience is how long tests wait for anything. It is long because a slow machine may run many
// tests at once.
const Patience = time.Minute

// Retry executes a statement of the test itself, and tries again while the database is busy.
func Retry(t testing.TB, fn func() error) {
	t.Helper()
	var err error
	deadline := time.Now().Add(Patience)
	for time.Now().Before(deadline) {
		if err = fn(); err == nil {
			return
		}
	}
	t.Fatal(err)
}
