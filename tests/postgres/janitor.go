//go:build unix

package postgres

import (
	"fmt"
	"io"
	"os/exec"
)

// A janitor is a process that outlives this process to clean up after it. It waits for the end of
// its standard input, which comes when this process dismisses it or dies, even by a panic or
// SIGKILL. Then it ends the server and removes the directory.
type janitor struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// A paused server has to be resumed before it can end. The script kills processes that do not end
// with the server.
const janitorScript = `cat >/dev/null
kill -CONT "$(head -n 1 "$3/postmaster.pid" 2>/dev/null)" 2>/dev/null
"$1" stop --silent --mode=immediate --pgdata="$3"
rm -rf "$2"`

func hireJanitor(a account, pgCtl, dir, data string) (*janitor, error) {
	cmd := a.command("/", "/bin/sh", "-c", janitorScript, "janitor", pgCtl, dir, data)
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start the process that cleans up: %w", err)
	}
	return &janitor{cmd, stdin}, nil
}

// dismiss makes the janitor clean up now, and waits for it.
func (j *janitor) dismiss() error {
	j.stdin.Close()
	if err := j.cmd.Wait(); err != nil {
		return fmt.Errorf("clean up after postgres: %w", err)
	}
	return nil
}
