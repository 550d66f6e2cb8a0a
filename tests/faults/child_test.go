package faults_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

// taskVariable is the environment variable with the task of a child process.
const taskVariable = "PGQRS_TEST_TASK"

// A task is the work of a child, and its database.
type task struct {
	Name    string
	Driver  string
	DSN     string
	Dialect pgqrs.Dialect
	Lock    bool // only take the write lock
	Pace    pace
}

// A child is another process that works on the same database.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Scanner
	said  string // at its end
	ended bool
}

// spawn starts this binary again, and returns once the child has begun its task.
func spawn(t *testing.T, do task) *child {
	t.Helper()
	raw, err := json.Marshal(do)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), taskVariable+"="+string(raw))
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.stdin, c.out = stdin, bufio.NewScanner(stdout)
	c.out.Buffer(nil, 16<<20)
	t.Cleanup(func() { c.end() })
	if c.out.Scan(); c.out.Text() != "begun" {
		t.Fatalf("the process for %q said %q, not that it has begun", do.Name, c.out.Text())
	}
	return c
}

// end stops the child, and returns its last line.
func (c *child) end() string {
	c.t.Helper()
	if c.ended {
		return c.said
	}
	c.ended = true
	c.stdin.Close()
	for c.out.Scan() {
		c.said = c.out.Text()
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("another process: %v", err)
	}
	return c.said
}

// hang calls meanwhile while the child is suspended by a signal.
func (c *child) hang(meanwhile func()) {
	c.t.Helper()
	c.signal(syscall.SIGSTOP)
	defer c.signal(syscall.SIGCONT)
	meanwhile()
}

func (c *child) signal(sig os.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

// perform is the main function of a child. It works until its standard input ends.
func perform(raw string) error {
	var do task
	if err := json.Unmarshal([]byte(raw), &do); err != nil {
		return err
	}
	db, err := sql.Open(do.Driver, do.DSN)
	if err != nil {
		return err
	}
	defer db.Close()
	if do.Lock {
		return lock(db)
	}
	a, err := newApplication(context.Background(), db, do.Dialect, pgqrs.Config{}, do.Name)
	if err != nil {
		return err
	}
	a.pace = do.Pace
	a.start()
	awaitEnd()
	a.producing()
	a.stop()
	return errors.Join(<-a.working, a.close(), json.NewEncoder(os.Stdout).Encode(a.receipts))
}

// lock takes the write lock and keeps it.
func lock(db *sql.DB) error {
	ctx := context.Background()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	awaitEnd()
	_, err = conn.ExecContext(ctx, "ROLLBACK")
	return err
}

func awaitEnd() {
	fmt.Println("begun")
	io.Copy(io.Discard, os.Stdin)
}
