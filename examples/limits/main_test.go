package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// An output can be written to by several workers.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func TestCallsKeepToTheirLimits(t *testing.T) {
	var out output
	began := time.Now()
	if err := run(t.Context(), &out, filepath.Join(t.TempDir(), "it.db"), 15); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 390*time.Millisecond {
		t.Errorf("15 calls at 10 a second took %v", took)
	}
	text := out.text.String()
	if n := strings.Count(text, "under way"); n != 14 {
		t.Errorf("%d calls were answered, want 14", n)
	}
	if strings.Contains(text, "3 under way") {
		t.Error("three calls were under way at a time")
	}
	for _, want := range []string{`call 13 died of "no such number"`, "calls: 14 done, 1 dead; 3 attempts", `2 leased at a time, 10 per 1s, dead letters to "failed-calls"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the output has no %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
