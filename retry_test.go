//go:build go1.25

package pgqrs

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestConflictsAreGivenUpAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{Concurrent: true}, Turso, failing("commit", slices.Repeat([]error{errors.New("Write-write conflict")}, 100)...))
		begun := time.Now()
		_, err := NewQueue[int](s, "q").Enqueue(t.Context(), 1)
		if want := "pgqrs: enqueue on queue \"q\": tried 25 times: Write-write conflict"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if n := count(f.log(), "query"); n != 25 {
			t.Errorf("it was tried %d times, want 25", n)
		}
		if took := time.Since(begun); took < 2*time.Second || took > 8*time.Second {
			t.Errorf("it took %v, want some 5 s", took)
		}
	})
}
