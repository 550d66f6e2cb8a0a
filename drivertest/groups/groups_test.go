//go:build unix

// Package groups_test has groups of messages worked by eight workers in four
// processes, of which some are killed, and holds what they noted against the
// order in which the messages were enqueued.
package groups_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/drivertest/postgres"
)

const (
	processes = 4
	groups    = 12
	each      = 15 // messages of a group
	kills     = 3
)

func TestEightWorkersInFourProcessesKeepEachGroupsOrder(t *testing.T) {
	for _, engine := range []struct {
		name, serial string
		dsn          func(t *testing.T) string
	}{
		{"PostgreSQL", "BIGSERIAL PRIMARY KEY", func(t *testing.T) string { return postgres.URL(postgres.Schema(t, "postgres")) }},
		{"SQLite", "INTEGER PRIMARY KEY AUTOINCREMENT", func(t *testing.T) string { return "sqlite:" + t.TempDir() + "/q.db" }},
	} {
		t.Run(engine.name, func(t *testing.T) {
			dsn := engine.dsn(t)
			store, err := pgqrs.Open(t.Context(), dsn)
			must(t, err)
			t.Cleanup(func() { must(t, store.Close()) })
			must(t, store.Install(t.Context()))
			_, err = store.DB().ExecContext(t.Context(), fmt.Sprintf(makeNotes, engine.serial))
			must(t, err)
			workers := make([]*process, processes)
			for i := range workers {
				workers[i] = begin(t, dsn)
			}
			killed := map[int]bool{}
			q := pgqrs.NewQueue[int](store, "jobs")
			for n := range each {
				for g := range groups {
					_, err := q.Enqueue(t.Context(), n, pgqrs.Group(fmt.Sprint("g", g)))
					must(t, err)
				}
				if n%(each/kills) == 2 {
					i := n % processes
					await(t, store.DB(), "SELECT count(*) FROM notes", (len(killed)+1)*groups)
					killed[workers[i].kill(t)] = true
					workers[i] = begin(t, dsn)
				}
			}
			await(t, store.DB(), "SELECT count(*) FROM pgqrs_messages WHERE archived_at IS NOT NULL AND failed_at IS NULL", groups*each)
			for _, w := range workers {
				w.dismiss(t)
			}
			audit(t, store.DB(), killed)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await waits until a query that counts says so many, or more.
func await(t *testing.T, db *sql.DB, query string, want int) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var n int
		must(t, db.QueryRowContext(t.Context(), query).Scan(&n))
		if n >= want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%q is %d after two minutes; want %d", query, n, want)
		}
	}
}

// A process is a child of the test.
type process struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer
	exited chan error
}

func begin(t *testing.T, dsn string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0]), exited: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), childVariable+"="+dsn)
	p.cmd.Stderr = &p.stderr
	stdin, err := p.cmd.StdinPipe()
	must(t, err)
	p.stdin = stdin
	must(t, p.cmd.Start())
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// kill kills the process and returns its id.
func (p *process) kill(t *testing.T) int {
	t.Helper()
	must(t, p.cmd.Process.Kill())
	<-p.exited
	return p.cmd.Process.Pid
}

// dismiss lets the process end.
func (p *process) dismiss(t *testing.T) {
	t.Helper()
	must(t, p.stdin.Close())
	select {
	case err := <-p.exited:
		if err != nil {
			t.Errorf("a child: %v\n%s", err, p.stderr.String())
		}
	case <-time.After(time.Minute):
		t.Error("a child did not end within a minute")
	}
}

// A line is where a group stands as its notes are read.
type line struct {
	done int  // messages that have ended
	open bool // whether the next one is being worked
	pid  int  // who works it
}

// audit reads the notes: a message is begun only after the one before it has
// ended, and again only after it failed or who had it was killed.
func audit(t *testing.T, db *sql.DB, killed map[int]bool) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT group_key, n, what, pid FROM notes ORDER BY id")
	must(t, err)
	defer rows.Close()
	lines := map[string]*line{}
	for rows.Next() {
		var group, what string
		var n, pid int
		must(t, rows.Scan(&group, &n, &what, &pid))
		if lines[group] == nil {
			lines[group] = &line{}
		}
		if !lines[group].note(n, what, pid, killed) {
			t.Errorf("message %d of group %s is %s by process %d at %+v", n, group, what, pid, *lines[group])
		}
	}
	must(t, rows.Err())
	for group, l := range lines {
		if l.done != each {
			t.Errorf("%d messages of group %s have ended; want %d", l.done, group, each)
		}
	}
}

// note takes one note and reports whether it is in order.
func (l *line) note(n int, what string, pid int, killed map[int]bool) bool {
	if n == l.done-1 { // it had ended, and who worked it died before that was recorded
		return len(killed) > 0 && (!l.open || killed[l.pid])
	}
	free := !l.open || killed[l.pid]
	switch what {
	case begun:
		l.open, l.pid = true, pid
		return n == l.done && free
	case failed:
		l.open = false
		return n == l.done && pid == l.pid
	default:
		l.open = false
		l.done++
		return n == l.done-1 && pid == l.pid
	}
}
