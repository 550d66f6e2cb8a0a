// Package dbtest has what package pgqrstest and its conformance suite share: Drain with a limit,
// and patience with a busy database.
package dbtest

import (
	"testing"
	"time"
)

// Patience is how long tests wait for anything: a slow machine that runs many of them takes its
// time.
const Patience = time.Minute

// Retry gives a statement of the test's own some patience with a busy database.
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
