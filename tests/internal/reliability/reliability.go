// Package reliability is shared by the tests of crashes, faults and models. It has the duration of
// a test and the report of its results.
//
// The script soak.sh runs these tests in their long form and makes a table of the report.
package reliability

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"
)

const (
	soakVariable   = "PGQRS_SOAK"
	reportVariable = "PGQRS_SOAK_REPORT"
)

// Soak returns how long the long form of a test runs, with all its subtests. It reads the
// environment variable PGQRS_SOAK, such as "5m". Zero means the short form, which every run of the
// tests includes.
func Soak(t testing.TB) time.Duration {
	t.Helper()
	text := os.Getenv(soakVariable)
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		t.Fatalf("%s=%q is not a duration such as 5m", soakVariable, text)
	}
	return d
}

// A Row has the results for one kind of fault.
type Row struct {
	Fault    string `json:"fault"`    // such as "worker process killed, SQLite"
	Injected string `json:"injected"` // how, such as "SIGKILL at random instants"
	Runs     int    `json:"runs"`     // how often the fault was injected
	Messages int    `json:"messages"` // messages and runs of workflows that the test put through
	Lost     int    `json:"lost"`     // messages and runs that never reached their end
	Doubled  int    `json:"doubled"`  // effects that should happen once and happened again
}

// Report logs the row. If the environment variable PGQRS_SOAK_REPORT names a file, Report appends
// the row to it as a line of JSON. It fails the test if anything was lost or doubled. It also fails
// the test if there were no messages, which would prove nothing.
func Report(t testing.TB, row Row) {
	t.Helper()
	t.Logf("%s (%s): %d runs, %d messages, %d lost, %d doubled effects",
		row.Fault, row.Injected, row.Runs, row.Messages, row.Lost, row.Doubled)
	if row.Lost != 0 || row.Doubled != 0 {
		t.Errorf("%s: %d of %d messages lost, %d effects doubled", row.Fault, row.Lost, row.Messages, row.Doubled)
	}
	if row.Runs == 0 || row.Messages == 0 {
		t.Errorf("%s: %d runs with %d messages prove nothing", row.Fault, row.Runs, row.Messages)
	}
	if path := os.Getenv(reportVariable); path != "" {
		if err := appendLine(path, row); err != nil {
			t.Errorf("report of %s: %v", row.Fault, err)
		}
	}
}

// appendLine writes the line by one call, because several processes with tests share the file.
func appendLine(path string, row Row) (err error) {
	line, err := json.Marshal(row)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%s\n", line)
	if closing := file.Close(); err == nil {
		err = closing
	}
	return err
}
