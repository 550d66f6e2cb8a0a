package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

func TestEachBeatIsHeardOnce(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out, filepath.Join(t.TempDir(), "it.db"), 3); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(out.String()) {
		if seen[line] {
			t.Errorf("%q was heard twice", line)
		}
		seen[line] = true
	}
	for _, want := range []string{"beat, for 2", "beat (every 1s): next ", "minute (* * * * *): next "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output has no %q:\n%s", want, &out)
		}
	}
}
