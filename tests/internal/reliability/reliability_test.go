package reliability

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A verdict is a test that records its failure.
type verdict struct {
	testing.TB
	failed bool
}

func (v *verdict) Helper()               {}
func (v *verdict) Logf(string, ...any)   {}
func (v *verdict) Errorf(string, ...any) { v.failed = true }

func TestLossDoublingAndNothingAtAllFailTheTest(t *testing.T) {
	t.Setenv(reportVariable, "")
	for _, row := range []struct {
		Row
		fails bool
	}{
		{Row{Runs: 1, Messages: 5}, false},
		{Row{Runs: 1, Messages: 5, Lost: 1}, true},
		{Row{Runs: 1, Messages: 5, Doubled: 1}, true},
		{Row{Messages: 5}, true},
		{Row{Runs: 1}, true},
	} {
		v := &verdict{TB: t}
		Report(v, row.Row)
		if v.failed != row.fails {
			t.Errorf("%+v: failed %v, want %v", row.Row, v.failed, row.fails)
		}
	}
}

func TestRowsAreAppendedAsLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report")
	t.Setenv(reportVariable, path)
	Report(t, Row{Fault: "a", Injected: "b", Runs: 1, Messages: 2})
	Report(&verdict{TB: t}, Row{Fault: "c", Runs: 1, Messages: 2, Lost: 3, Doubled: 4})
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"fault":"a","injected":"b","runs":1,"messages":2,"lost":0,"doubled":0}
{"fault":"c","injected":"","runs":1,"messages":2,"lost":3,"doubled":4}
`
	if string(got) != want {
		t.Errorf("the file is\n%s\nwant\n%s", got, want)
	}
}

func TestSoakIsADuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "90s": 90 * time.Second} {
		t.Setenv(soakVariable, text)
		if got := Soak(t); got != want {
			t.Errorf("%s=%q: %v, want %v", soakVariable, text, got, want)
		}
	}
}
