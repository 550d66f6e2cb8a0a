// Package faults_test lets databases fail under an application at work, and
// afterwards counts what was lost and what was done twice: nothing may be.
//
// In the short form each fault is injected a few times. In the long form, of
// which package reliability tells, the faults of a database share the time.
package faults_test

import (
	"fmt"
	"iter"
	"os"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go/tests/internal/reliability"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

func TestMain(m *testing.M) {
	if task := os.Getenv(taskVariable); task != "" {
		if err := perform(task); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	postgres.Main(m)
}

const patience = time.Minute // for whatever has to happen

// A fault is a way in which a database fails.
type fault struct {
	name string
	test func(t *testing.T, share time.Duration)
}

// inject injects faults one after the other. The long form shares its time among them.
func inject(t *testing.T, faults []fault) {
	t.Helper()
	share := reliability.Soak(t) / time.Duration(len(faults))
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) { f.test(t, share) })
	}
}

// rounds counts injections of a fault: n of them, or as many as there is time for.
func rounds(n int, share time.Duration) iter.Seq[int] {
	end := time.Now().Add(share)
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
