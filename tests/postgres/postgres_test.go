//go:build unix

package postgres

import (
	"bufio"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/lib/pq"
)

func TestServer(t *testing.T) {
	s := Private(t, "work_mem=5MB")
	db, err := sql.Open("postgres", s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	wantWorkMem(t, db, "5MB")
	if _, err := db.Exec("CREATE TABLE kept (id INTEGER)"); err != nil {
		t.Fatal(err)
	}

	if err := s.Start(); err == nil {
		t.Error("a running server was started again")
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := db.Ping(); err == nil {
		t.Error("a killed server answers")
	}
	if err := s.Start("work_mem=6MB"); err != nil {
		t.Fatal(err)
	}
	wantWorkMem(t, db, "6MB")
	if err := s.Restart("work_mem=7MB"); err != nil {
		t.Fatal(err)
	}
	wantWorkMem(t, db, "7MB")
	if _, err := db.Exec("INSERT INTO kept VALUES (1)"); err != nil {
		t.Errorf("a table is gone after a crash and a restart: %v", err)
	}

	if err := s.Abort(); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("no_such_setting=1"); err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("Start with a bad setting: %v, want the server's own words", err)
	}
}

func TestPause(t *testing.T) {
	s := Private(t)
	db, err := sql.Open("postgres", s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() { answered <- db.Ping() }()
	paused, err := processes(s.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paused {
		if !p.stopped {
			t.Errorf("process %d of a paused server is not stopped", p.pid)
		}
	}
	if len(paused) < 3 {
		t.Errorf("a server with a connection has %d processes", len(paused))
	}
	select {
	case err := <-answered:
		t.Errorf("a paused server answers (%v)", err)
	default:
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("a server that was paused: %v", err)
	}
}

// wantWorkMem uses a new connection, because connections to an ended server are dead.
func wantWorkMem(t *testing.T, db *sql.DB, want string) {
	t.Helper()
	db.SetMaxIdleConns(0)
	var got string
	if err := db.QueryRow("SHOW work_mem").Scan(&got); err != nil || got != want {
		t.Fatalf("work_mem = %q, %v; want %q", got, err, want)
	}
}

// TestJanitor kills a process that has a paused server, and waits until the server's directory is
// gone.
func TestJanitor(t *testing.T) {
	if os.Getenv("PGQRS_TEST_JANITOR") != "" {
		s := Private(t)
		if err := s.Pause(); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("directory " + s.dir + "\n")
		select {}
	}
	if _, err := findInstallation(debianBin); err != nil {
		check(t, err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestJanitor$")
	cmd.Env = append(os.Environ(), "PGQRS_TEST_JANITOR=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		dir, _ = strings.CutPrefix(lines.Text(), "directory ")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if dir == "" {
		t.Fatal("the process started no server")
	}
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s is still there", dir)
		}
	}
}

func TestWithSearchPath(t *testing.T) {
	for dsn, want := range map[string]string{
		"host=/tmp dbname=x":           "host=/tmp dbname=x search_path=s",
		"postgres://u@h/db":            "postgres://u@h/db?search_path=s",
		"postgresql://h/db?a=%2Fb&c=d": "postgresql://h/db?a=%2Fb&c=d&search_path=s",
	} {
		if got := withSearchPath(dsn, "s"); got != want {
			t.Errorf("withSearchPath(%q) = %q, want %q", dsn, got, want)
		}
	}
}

func TestNewestFirst(t *testing.T) {
	got := newestFirst([]string{"/p/9.6/bin", "/p/10/bin", "/p/9.5/bin", "/p/18/bin"})
	want := []string{"/p/18/bin", "/p/10/bin", "/p/9.6/bin", "/p/9.5/bin"}
	if !slices.Equal(got, want) {
		t.Errorf("newestFirst = %q, want %q", got, want)
	}
}

func TestMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := findInstallation(filepath.Join(t.TempDir(), "*", "bin")); !errors.Is(err, ErrNotFound) {
		t.Errorf("findInstallation = %v, want ErrNotFound", err)
	}
}
