// Package faults_test lets databases fail under an application at work, and
// afterwards counts what was lost and what was done twice: nothing may be.
//
// Each fault is injected a few times, which is over in seconds. Where
// PGQRS_SOAK holds a duration, such as 10m, each goes on for that long.
package faults_test

import (
	"iter"
	"os"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go/drivertest/internal/postgres"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(neighbourFile); path != "" {
		os.Exit(neighbour(path))
	}
	postgres.Main(m)
}

const patience = time.Minute // for whatever has to happen

// rounds counts the injections of a fault: n of them, or as many as PGQRS_SOAK has time for.
func rounds(t *testing.T, n int) iter.Seq[int] {
	t.Helper()
	var soak time.Duration
	if text := os.Getenv("PGQRS_SOAK"); text != "" {
		var err error
		if soak, err = time.ParseDuration(text); err != nil {
			t.Fatalf("PGQRS_SOAK: %v", err)
		}
	}
	end := time.Now().Add(soak)
	return func(yield func(int) bool) {
		for i := 1; i <= n || time.Now().Before(end); i++ {
			if !yield(i) {
				return
			}
		}
	}
}

// eventually fails the test unless a condition comes true. It must come true by itself.
func eventually(t *testing.T, what string, ok func() (bool, error)) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %v still not: %s (%v)", patience, what, err)
		}
	}
}
