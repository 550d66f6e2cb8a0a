//go:build unix

package crash_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"
	"github.com/pgqrs/pgqrs-go/tests/internal/reliability"

	"github.com/ncruces/go-sqlite3/vfs"
)

// enoughFailures is the number of power failures in the short form.
const enoughFailures = 5

// With synchronous=FULL a loss of power is like a crash. With NORMAL it may undo the last commits,
// even if they were acknowledged. The rest is consistent: nothing is half done, and all work
// reaches its end.
func TestALossOfPowerUndoesNothingOrTheLastCommits(t *testing.T) {
	each := reliability.Soak(t) / 2
	for _, synchronous := range []string{"full", "normal"} {
		t.Run(synchronous, func(t *testing.T) {
			seed := seedOf(t)
			t.Logf("%s=%d repeats these failures", seedVariable, seed)
			p := &powerCampaign{t: t, random: rand.New(rand.NewPCG(seed, 0)), synchronous: synchronous, dir: t.TempDir(), ledgers: t.TempDir()}
			makeTables(t, p.file())
			failures := 0
			for end := time.Now().Add(each); failures < enoughFailures || p.runs < enoughRuns || time.Now().Before(end); failures++ {
				p.round()
			}
			store := p.finish()
			f := readFacts(t, store)
			injected := "what was not synced is left in parts"
			told := readLedgers(t, p.ledgers)
			if synchronous == "full" {
				f.ledger = told
			} else {
				injected += fmt.Sprintf("; %d of %d acknowledged messages and runs were undone", undone(f, told), acknowledged(told))
			}
			a := f.audit()
			a.print(t)
			reliability.Report(t, reliability.Row{
				Fault: "power lost, SQLite, synchronous=" + strings.ToUpper(synchronous), Injected: injected,
				Runs: failures, Messages: len(f.messages), Lost: len(a.lost), Doubled: len(a.doubled),
			})
		})
	}
}

// A powerCampaign is work on a file whose disk loses its power again and again.
type powerCampaign struct {
	t           *testing.T
	random      *rand.Rand
	synchronous string
	dir         string // of the database after the latest failure
	ledgers     string
	held        sync.RWMutex // held by all ledgers
	rounds      int
	runs        int // acknowledged before the latest failure
}

// file returns the DSN of the database.
func (p *powerCampaign) file() string {
	return "sqlite:" + filepath.Join(p.dir, "q.db") + "?synchronous=" + p.synchronous
}

// round works on the database until the power fails.
func (p *powerCampaign) round() {
	p.t.Helper()
	p.rounds++
	name := fmt.Sprintf("disk%d-%s", p.rounds, filepath.Base(p.dir))
	disk := newDisk()
	vfs.Register(name, disk)
	defer vfs.Unregister(name)
	dsn := fmt.Sprintf("file:%s/q.db?vfs=%s&_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(%s)", p.dir, name, p.synchronous)
	db, err := sql.Open("sqlite3", dsn)
	if err != nil {
		p.t.Fatal(err)
	}
	db.SetMaxOpenConns(pool.Max)
	store := pgqrs.New(db, pgqrs.SQLite)
	if err := store.Install(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	stop := p.work(store, "producer", "worker", "consumer")
	instant := time.NewTimer(time.Duration(200+p.random.IntN(500)) * time.Millisecond)
	<-instant.C
	// While the ledgers are locked, all of their entries come from before the failure. Later
	// entries are removed.
	p.held.Lock()
	told := takeSnapshot(p.t, p.ledgers)
	next := p.t.TempDir()
	err = disk.fail(p.random, next)
	p.held.Unlock()
	stop()
	if err != nil {
		p.t.Fatal(err)
	}
	told.restore(p.t)
	p.runs += countStarted(readLedger(p.t, p.ledger("producer")))
	if err := db.Close(); err != nil {
		p.t.Error(err)
	}
	awaitClosed(p.t, db)
	if err := os.RemoveAll(p.dir); err != nil {
		p.t.Error(err)
	}
	p.dir = next
}

// awaitClosed waits until no connection is open. database/sql closes the connection of a
// transaction whose ctx has ended in another goroutine.
func awaitClosed(t *testing.T, db *sql.DB) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for db.Stats().OpenConnections > 0 {
		select {
		case <-deadline:
			t.Fatalf("%d connections are still open after a minute", db.Stats().OpenConnections)
		case <-tick.C:
		}
	}
}

// ledger returns the path of a role's ledger in this round.
func (p *powerCampaign) ledger(role string) string {
	return filepath.Join(p.ledgers, fmt.Sprintf("%05d-%s", p.rounds, role))
}

// work starts roles in this process. The returned function stops them.
func (p *powerCampaign) work(store *pgqrs.Store, roleNames ...string) (stop func()) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, role := range roleNames {
		path := p.ledger(role)
		name := filepath.Base(path)
		l, err := openLedger(path)
		if err != nil {
			p.t.Fatal(err)
		}
		l.held = &p.held
		c := &child{store: store, ledger: l, assignment: assignment{Name: name, Seed: p.random.Uint64(), Runs: p.runs}}
		all.Go(func() {
			defer l.file.Close()
			if err := roles[role](c, ctx); err != nil {
				p.t.Errorf("%s: %v", name, err)
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// finish opens the database on a working disk, and waits until all work has reached its end.
func (p *powerCampaign) finish() *pgqrs.Store {
	p.t.Helper()
	p.rounds++
	store := open(p.t, p.file())
	p.checkIntegrity(store)
	// With NORMAL, and without a checkpoint, the creation of the tables may be undone too. With
	// FULL it must not.
	if p.synchronous == "normal" {
		if err := store.Install(p.t.Context()); err != nil {
			p.t.Fatal(err)
		}
	}
	stop := p.work(store, "worker", "consumer")
	awaitEnd(p.t, store)
	stop()
	return store
}

func (p *powerCampaign) checkIntegrity(store *pgqrs.Store) {
	p.t.Helper()
	var verdict string
	if err := store.DB().QueryRowContext(p.t.Context(), "PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		p.t.Fatalf("integrity_check: %s, %v", verdict, err)
	}
}

// A snapshot has the lengths of the ledgers at an instant.
type snapshot map[string]int64

func takeSnapshot(t *testing.T, dir string) snapshot {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := snapshot{}
	for _, file := range files {
		info, err := file.Info()
		if err != nil {
			t.Fatal(err)
		}
		s[filepath.Join(dir, file.Name())] = info.Size()
	}
	return s
}

// restore removes what was written after the snapshot.
func (s snapshot) restore(t *testing.T) {
	t.Helper()
	for path, size := range s {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
}

// undone counts the acknowledged messages and runs that are missing.
func undone(f *facts, told []entry) int {
	tokens := map[string]bool{}
	for _, m := range f.messages {
		var payload task
		if json.Unmarshal(m.Raw, &payload) == nil {
			tokens[payload.Token] = true
		}
	}
	for _, r := range f.runs {
		tokens[r.Key] = true
	}
	n := 0
	for _, e := range told {
		if acknowledges(e) && !tokens[e.Token] {
			n++
		}
	}
	return n
}

func acknowledged(told []entry) int {
	n := 0
	for _, e := range told {
		if acknowledges(e) {
			n++
		}
	}
	return n
}

func acknowledges(e entry) bool { return e.Event == enqueued || e.Event == started }
