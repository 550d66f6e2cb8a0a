package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

func TestMain(m *testing.M) {
	if was, err := Child(context.Background()); was {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// short returns a configuration that takes seconds and measures no meaningful speed.
func short(t *testing.T, engine, workload string) Config {
	return Config{
		Engines: []string{engine}, Workload: regexp.MustCompile(workload), Rounds: 1, Time: 20 * time.Millisecond, Limit: time.Second,
		Samples: 4, Scale: 0.02, Dir: t.TempDir(), Profiles: t.TempDir(), Count: true,
	}
}

func TestEveryContestantDoesWhatItsRateSays(t *testing.T) {
	for _, c := range []struct{ engine, profile, workload string }{
		{"sqlite", "sqlite-enqueue-1-NORMAL.pprof", `^(enqueue/.*|drain/8|pickup/same|steps/8)/NORMAL$|^pickup/other$|^behind$|^memory$|^reference/50$`},
		{"pg", "pg-enqueue-1.pprof", `^(enqueue/.*|drain/8|drain/64|pickup/.*|behind|steps/8|memory|reference/50)$`},
	} {
		t.Run(c.engine, func(t *testing.T) {
			config := short(t, c.engine, c.workload)
			if err := os.WriteFile(filepath.Join(config.Profiles, c.profile), []byte("of an earlier run, not to be added to"), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.engine == "pg" {
				config.Dir = "/tmp" // the server's user must be able to enter it
				if _, err := serverBinaries(); err != nil && os.Getenv("CI") == "" {
					t.Skip(err)
				}
			}
			report, err := Run(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			checkReport(t, report)
		})
	}
}

func checkReport(t *testing.T, r *Report) {
	t.Helper()
	workloads := r.Engines[0].Workloads
	if len(workloads) < 8 {
		t.Fatalf("only %d workloads ran", len(workloads))
	}
	for _, w := range workloads {
		for _, e := range w.Errors {
			t.Errorf("%s: %s, round %d: %s", w.Name, e.Contestant, e.Round, e.Error)
		}
		for _, v := range w.Verdicts {
			if v.Rounds == 0 {
				t.Errorf("%s: %s was not measured", w.Name, v.Asked)
			}
		}
		for _, c := range w.Contestants {
			if s, _ := w.spread(c.Name, w.mainFigure()); s.Median <= 0 {
				t.Errorf("%s: %s came to %v", w.Name, c.Name, s)
			}
		}
	}
	checkRendering(t, r)
}

// checkRendering checks each form of a report.
func checkRendering(t *testing.T, r *Report) {
	t.Helper()
	var text, markdown, svg bytes.Buffer
	if err := errors.Join(r.Text(&text), r.Markdown(&markdown), r.SVG(&svg)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"synchronous", "enqueue/1", "rate to raw", "statements for each", "processor time"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text does not say %q:\n%s", want, &text)
		}
	}
	if !strings.Contains(markdown.String(), "| Enqueue, 1 goroutine") {
		t.Errorf("the Markdown has no table of targets:\n%s", &markdown)
	}
	for decoder := xml.NewDecoder(&svg); ; {
		if _, err := decoder.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("the plot is not XML: %v", err)
		}
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again Report
	if err := json.Unmarshal(raw, &again); err != nil || len(again.Engines[0].Workloads) != len(r.Engines[0].Workloads) {
		t.Errorf("the JSON does not read back: %v", err)
	}
}

func sqliteEngine(t *testing.T) *engine {
	e := engineNamed("sqlite")
	e.base = t.TempDir()
	return e
}

func TestAContestantThatStoresNothingIsAnError(t *testing.T) {
	e := sqliteEngine(t)
	db, err := e.installed(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	session := db.enqueuing(measure.Spec{Goroutines: 2, Items: 1, Time: time.Millisecond}, func(context.Context, int) error { return nil })
	defer session.Close()
	if _, err := session.Round(t.Context()); err == nil || !strings.Contains(err.Error(), "0 stored") {
		t.Errorf("Round = %v, want an error that says that nothing is stored", err)
	}
}

func TestADrainThatArchivesNothingIsAnError(t *testing.T) {
	l, err := sqliteEngine(t).openLibrary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := l.check(t.Context(), measure.Throughput(5, time.Second), 5); err == nil {
		t.Error("5 messages were taken for done that are not archived")
	}
}

func TestADrainThatRanOutOfTimeSaysSo(t *testing.T) {
	spec := measure.Spec{Goroutines: 1, Backlog: 3000, Limit: time.Millisecond}
	session, err := drain(sqliteEngine(t))(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	sample, err := session.Round(t.Context())
	if err != nil || sample[measure.Capped] != 1 {
		t.Errorf("Round = %v, %v; want a sample that says that it was stopped early", sample, err)
	}
}

func TestWarningsOfTheLibraryAreErrors(t *testing.T) {
	l, err := sqliteEngine(t).openLibrary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	store := l.database.store(l.log)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.ExecContext(ctx, "DROP TABLE pgqrs_messages"); err != nil {
		t.Fatal(err)
	}
	lost := &library{database: l.database, store: store, queue: l.queue, log: l.log}
	if err := lost.pickupWorker(make(chan time.Duration, 1)).Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err == nil {
		t.Error("a worker that found no table closed without an error")
	}
}

func TestAServerThatIsNotDurableIsRefused(t *testing.T) {
	e := sqliteEngine(t)
	db, err := e.withSynchronous("OFF").fresh(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer db.drop()
	if _, err := db.ask(t.Context(), []question{{"synchronous", "PRAGMA synchronous", "1"}}); err == nil {
		t.Error("synchronous=OFF was taken for NORMAL")
	}
}

func TestStatementsAreCountedPreparedOrNot(t *testing.T) {
	counts := newStatements()
	db, err := sqliteEngine(t).counting(counts).fresh(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer db.drop()
	counts.take()
	const text = "/* pgqrs:some.tag */ SELECT 1"
	stmt, err := db.PrepareContext(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	for range 3 {
		var one int
		if err := errors.Join(stmt.QueryRowContext(t.Context()).Scan(&one), db.QueryRowContext(t.Context(), text).Scan(&one)); err != nil {
			t.Fatal(err)
		}
	}
	if total, tags := counts.take(); total != 6 || tags["some.tag"] != 6 {
		t.Errorf("counted %d, by tag %v; want 6", total, tags)
	}
}
