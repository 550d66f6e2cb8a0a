//go:build unix

package crash_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// An event is the subject of a line in a ledger.
type event string

const (
	enqueued event = "enqueued" // Enqueue returned the id, or its transaction committed
	started  event = "started"  // Start returned the run's ID
	claimed  event = "claimed"  // a delivery has begun
	extended event = "extended" // Extend succeeded
	ended    event = "ended"    // the handler is about to return, or the consumer to settle
	acked    event = "acked"    // Ack succeeded
)

// An entry is one line. The set fields depend on the event.
type entry struct {
	Event   event     `json:"event"`
	Process string    `json:"process,omitempty"` // filled in by readLedgers
	Queue   string    `json:"queue,omitempty"`
	Token   string    `json:"token,omitempty"` // names a payload, or is the key of a run
	ID      int64     `json:"id"`              // of the message or run
	Worker  int64     `json:"worker,omitempty"`
	Claim   int64     `json:"claim,omitempty"`
	Attempt int       `json:"attempt,omitempty"`
	At      time.Time `json:"at,omitzero"`
	// The lease lasts at least until then, unless the message is settled.
	Until time.Time `json:"until,omitzero"`
}

// A ledger is a file of one process, outside the database. It survives a kill of the process at any
// time.
type ledger struct {
	file *os.File
	held *sync.RWMutex // while it is locked, no entries are written
}

func openLedger(path string) (ledger, error) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	return ledger{file, new(sync.RWMutex)}, err
}

// write appends entries by one system call. A process that cannot write its ledger exits, because
// its test would be meaningless.
func (l ledger) write(entries ...entry) {
	var lines []byte
	for _, e := range entries {
		line, err := json.Marshal(e)
		if err != nil {
			panic(err)
		}
		lines = append(append(lines, line...), '\n')
	}
	l.held.RLock()
	defer l.held.RUnlock()
	if _, err := l.file.Write(lines); err != nil {
		panic(err)
	}
}

// readLedgers returns the entries of all processes. A file has the name of its process.
func readLedgers(t *testing.T, dir string) []entry {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []entry
	for _, path := range paths {
		for _, e := range readLedger(t, path) {
			e.Process = filepath.Base(path)
			all = append(all, e)
		}
	}
	return all
}

// readLedger returns the entries of one process, which may have been killed before it wrote any.
func readLedger(t *testing.T, path string) []entry {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	entries, err := parseLedger(text)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return entries
}

// parseLedger ignores a last line that was cut short by a kill.
func parseLedger(text []byte) ([]entry, error) {
	var entries []entry
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// countStarted counts the runs that were acknowledged.
func countStarted(entries []entry) int {
	n := 0
	for _, e := range entries {
		if e.Event == started {
			n++
		}
	}
	return n
}
