// Package faults_test makes databases fail under an application at work. Afterwards it counts lost
// and repeated work, of which there must be none.
//
// In the short form each fault is injected a few times. In the long form, which package reliability
// documents, the faults of a database share the time.
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

const patience = time.Minute // for anything that has to happen

// A fault is a way in which a database fails.
type fault struct {
	name string
	test func(t *testing.T, share time.Duration)
}

// inject injects faults one after the other. In the long form they share its time.
func inject(t *testing.T, faults []fault) {
	t.Helper()
	share := reliability.Soak(t) / time.Duration(len(faults))
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) { f.test(t, share) })
	}
}

// rounds counts the injections of a fault: n, or as many as fit into the time.
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

// eventually fails the test unless a condition becomes true without help.
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
