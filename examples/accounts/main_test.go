package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

func TestMovementsAreBookedInOrderAndReportedOnce(t *testing.T) {
	var out bytes.Buffer // the bank writes with its lock held
	if err := run(t.Context(), &out, filepath.Join(t.TempDir(), "it.db"), 10); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "the books of today: 30 booked, 0 failed, 0 out of order"); n != 1 {
		t.Errorf("%d reports of 30 movements in order, want 1:\n%s", n, &out)
	}
	if !strings.Contains(out.String(), "noted ") {
		t.Errorf("nothing was noted:\n%s", &out)
	}
}
