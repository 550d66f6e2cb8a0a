//go:build unix

// Package crash_test kills processes, and cuts the power.
//
// Children of the test produce, work and consume on one database. They are killed with SIGKILL at
// random instants, one at a time or all at once, again and again. Each child appends the
// acknowledgements it receives to a ledger, a file outside the database. In the end the ledgers are
// compared with the database.
//
// A file system for SQLite that knows which data was synced simulates a loss of power. The same
// roles work on it, in the process of the test.
//
// To repeat a failed test as far as the clock allows, set PGQRS_CRASH_SEED. PGQRS_SOAK=10m makes
// the test run for ten minutes.
package crash_test

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/reliability"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

// The short form continues for a number of kills on each engine, and until a number of runs were
// acknowledged.
const (
	enoughKills = 20
	enoughRuns  = 50
)

var engines = []struct {
	name string
	dsn  func(t *testing.T) string
}{
	{"SQLite, synchronous=NORMAL", func(t *testing.T) string { return "sqlite:" + t.TempDir() + "/q.db?synchronous=normal" }},
	{"SQLite, synchronous=FULL", func(t *testing.T) string { return "sqlite:" + t.TempDir() + "/q.db?synchronous=full" }},
	{"PostgreSQL", func(t *testing.T) string { return postgres.URL(postgres.Schema(t, "postgres")) }},
}

func TestKilledProcessesLoseAndDoubleNothing(t *testing.T) {
	each := reliability.Soak(t) / time.Duration(len(engines))
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			seed := seedOf(t)
			t.Logf("%s=%d repeats these kills", seedVariable, seed)
			dsn := engine.dsn(t)
			makeTables(t, dsn)
			c := newCampaign(t, dsn, seed)
			for end := time.Now().Add(each); c.kills < enoughKills || c.runs < enoughRuns || time.Now().Before(end); {
				c.strike()
			}
			c.dismiss("producer")
			store := open(t, dsn)
			if !awaitEnd(t, store) {
				for _, p := range c.children {
					t.Logf("%s says\n%s", p.Name, &p.stderr)
				}
			}
			c.dismiss("worker")
			c.dismiss("consumer")
			report(t, engine.name, c, store)
		})
	}
}

const seedVariable = "PGQRS_CRASH_SEED"

func seedOf(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv(seedVariable)
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", seedVariable, err)
	}
	return seed
}

func open(t *testing.T, dsn string) *pgqrs.Store {
	t.Helper()
	store, err := pgqrs.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// makeTables creates the children's own tables, and closes the database. The children create the
// library's tables. If all processes that had a file open were killed, the next one to open it must
// recover it.
func makeTables(t *testing.T, dsn string) {
	t.Helper()
	store, err := pgqrs.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{makeEffects, makeOrders} {
		if _, err := store.DB().ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// awaitEnd waits until no work is left, as long as there is progress.
func awaitEnd(t *testing.T, store *pgqrs.Store) bool {
	t.Helper()
	ctx := context.Background()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	least, since := int64(-1), time.Now()
	for {
		left, err := unfinished(ctx, store)
		switch {
		case err != nil:
			t.Logf("count what is left: %v", err)
		case left == 0:
			return true
		case least < 0 || left < least:
			least, since = left, time.Now()
		}
		if time.Since(since) > patience {
			t.Errorf("%d messages have not reached their end, and there was no progress in %v", least, patience)
			return false
		}
		<-tick.C
	}
}

func report(t *testing.T, engine string, c *campaign, store *pgqrs.Store) {
	t.Helper()
	f := readFacts(t, store)
	f.ledger = readLedgers(t, c.ledgers)
	a := f.audit()
	a.print(t)
	for _, what := range f.missing() {
		t.Errorf("the test proves less than it should: there was no %s", what)
	}
	reliability.Report(t, reliability.Row{
		Fault:    "process killed, " + engine,
		Injected: "SIGKILL at random instants to one of 4 processes, or to all",
		Runs:     c.kills, Messages: len(f.messages), Lost: len(a.lost), Doubled: len(a.doubled),
	})
}
