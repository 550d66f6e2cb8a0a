package tap

import (
	"context"
	"database/sql"
	"fmt"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// WantNoLeak fails the test if anything is left open when it ends. Before db is closed, it checks
// for rows, transactions and prepared statements. Then it closes db, and checks for connections and
// goroutines. It counts the goroutines that the test's goroutine starts after this call, and the
// goroutines that these start.
//
// Call WantNoLeak as soon as db is open. Clean-ups that the test registers later run before the
// check.
func WantNoLeak(t testing.TB, db *sql.DB) {
	t.Helper()
	p := Of(db)
	label := fmt.Sprintf("%p of %s", p, t.Name())
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("tap", label)))
	t.Cleanup(func() {
		wait(t, "open at the end, besides connections", func() string {
			open := p.counted()
			if open.conns = 0; open != (counts{}) {
				return open.String()
			}
			return ""
		})
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
		wait(t, "open after the end", func() string {
			if open := p.counted(); open != (counts{}) {
				return open.String()
			}
			return ""
		})
		pprof.SetGoroutineLabels(context.Background())
		wait(t, "goroutines left", func() string { return goroutines(t, label) })
	})
}

// goroutines returns the stacks of the goroutines with a label.
func goroutines(t testing.TB, label string) string {
	var all strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(all.String(), label) {
		return ""
	}
	var found []string
	for _, stack := range strings.Split(all.String(), "\n\n") {
		if strings.Contains(stack, label) {
			found = append(found, stack)
		}
	}
	return strings.Join(found, "\n\n")
}

// wait fails the test if something is still left after a minute.
func wait(t testing.TB, what string, left func() string) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		found := left()
		if found == "" {
			return
		}
		select {
		case <-deadline:
			t.Errorf("%s: %s", what, found)
			return
		case <-tick.C:
		}
	}
}
