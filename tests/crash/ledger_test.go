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

// An event is what a line of a ledger says.
type event string

const (
	enqueued event = "enqueued" // Enqueue returned the id, or the transaction around it committed
	started  event = "started"  // Start returned the run's id
	claimed  event = "claimed"  // a delivery is in hand
	extended event = "extended" // Extend succeeded
	ended    event = "ended"    // the handler is about to return, or the consumer to settle
	acked    event = "acked"    // Ack succeeded
)

// An entry is one line. Which fields are set depends on the event.
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
	Until   time.Time `json:"until,omitzero"` // the lease lasts at least this long, unless it is settled
}

// A ledger is a file of one process, outside of the database. What is written
// outlives the process, whenever that is killed.
type ledger struct {
	file *os.File
	held *sync.RWMutex // keeps entries out while it is locked
}

func openLedger(path string) (ledger, error) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	return ledger{file, new(sync.RWMutex)}, err
}

// write appends entries by one call of the operating system. A process that
// cannot write its ledger ends, since its test would be worthless.
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

// readLedgers returns the entries of all processes, each named by its file.
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

// readLedger returns the entries of one process, which may have been killed
// before it made any.
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

// parseLedger passes over a last line that was cut short by the kill.
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
