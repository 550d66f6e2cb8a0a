//go:build unix

// Package schedules_test runs one schedule in several processes, some of which are killed.
package schedules_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/drivertest/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/drivertest/postgres"

	_ "github.com/lib/pq"
	_ "github.com/ncruces/go-sqlite3/driver"
)

// childVariable makes the test binary a process with the schedule: driver and DSN.
const childVariable = "PGQRS_TEST_SCHEDULE"

var dialects = map[string]pgqrs.Dialect{"postgres": pgqrs.Postgres, "sqlite3": pgqrs.SQLite}

func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		if err := beChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	postgres.Main(m)
}

// beChild runs the schedule until its standard input ends, which is when its
// parent dismisses it or has died.
func beChild(text string) error {
	driver, dsn, _ := strings.Cut(text, " ")
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	store := pgqrs.New(db, dialects[driver])
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer stop()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	w := &pgqrs.Worker{Schedules: []pgqrs.Schedule{
		{Name: "beat", Rule: pgqrs.Every(time.Second), CatchUp: 1000, Target: pgqrs.NewQueue[int](store, "beats").Target(1)},
	}}
	return w.Run(ctx)
}

// A child is a process with the schedule.
type child struct {
	*exec.Cmd
	stdin io.Closer
}

func spawn(t *testing.T, driver, dsn string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+driver+" "+dsn)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd, stdin}
	t.Cleanup(c.kill)
	return c
}

// kill ends the process by SIGKILL, unless it has ended.
func (c *child) kill() {
	if c.ProcessState == nil {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

// dismiss has the process end by itself.
func (c *child) dismiss(t *testing.T) {
	t.Helper()
	if err := c.stdin.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("a process ended with %v", err)
	}
}

func TestEachInstantIsEnqueuedOnceByProcessesThatAreKilled(t *testing.T) {
	for _, driver := range []string{"sqlite3", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			dsn := ""
			if driver == "postgres" {
				dsn = postgres.Schema(t, driver)
			} else {
				dsn = sqlite.URI(t, "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)")
			}
			db, err := sql.Open(driver, dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			store := pgqrs.New(db, dialects[driver])
			defer store.Close()
			if err := store.Install(t.Context()); err != nil {
				t.Fatal(err)
			}
			campaign(t, store, func() *child { return spawn(t, driver, dsn) })
			audit(t, store)
		})
	}
}

// campaign keeps two processes, and kills the older one again and again.
func campaign(t *testing.T, store *pgqrs.Store, spawn func() *child) {
	older, newer := spawn(), spawn()
	for kills := range 4 {
		await(t, store, 2*(kills+1))
		older.kill()
		older, newer = newer, spawn()
	}
	await(t, store, 10)
	older.dismiss(t)
	newer.dismiss(t)
}

// await waits until so many instants have been run.
func await(t *testing.T, store *pgqrs.Store, n int) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(history(t, store)) < n {
		select {
		case <-deadline:
			t.Fatalf("%d instants were run within a minute; want %d", len(history(t, store)), n)
		case <-tick.C:
		}
	}
}

// history lists the schedule's runs; none before a process has made it.
func history(t *testing.T, store *pgqrs.Store) []pgqrs.ScheduleRun {
	t.Helper()
	list, err := store.Schedules(t.Context(), "beat")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		return nil
	}
	runs, err := store.ScheduleRuns(t.Context(), "beat", 1000)
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

// audit wants each second once, in the history and in the queue.
func audit(t *testing.T, store *pgqrs.Store) {
	t.Helper()
	runs := history(t, store)
	for i, r := range runs[:len(runs)-1] {
		if gap := r.DueAt.Sub(runs[i+1].DueAt); gap != time.Second {
			t.Errorf("from %v to %v are %v; want a second", runs[i+1].DueAt, r.DueAt, gap)
		}
	}
	messages, err := store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "beats", State: pgqrs.Ready, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range messages {
		due := m.Headers[pgqrs.DueHeader]
		if seen[due] {
			t.Errorf("the instant %s was enqueued twice", due)
		}
		seen[due] = true
	}
	if len(messages) != len(runs) {
		t.Errorf("there are %d messages and %d runs in the history", len(messages), len(runs))
	}
}
