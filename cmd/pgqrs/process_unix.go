//go:build unix

package main

import (
	"os"
	"os/exec"
	"syscall"
	"time"
)

// inGroup gives a command a process group of its own, which interrupts of the terminal do not
// reach. If the command is cancelled, it and all processes that it started are asked to end. The
// caller must call end when the command has ended. Once lastWords have passed, end kills the
// processes that are left.
func inGroup(cmd *exec.Cmd) (end func()) {
	var asked time.Time
	var left []*os.Process // processes that left the group
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		asked = time.Now()
		left = leavers(cmd.Process.Pid, nil)
		send(left, syscall.SIGTERM)
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
	}
	return func() {
		for !asked.IsZero() && (syscall.Kill(-cmd.Process.Pid, 0) == nil || anyLives(left)) {
			if time.Since(asked) > lastWords {
				send(leavers(cmd.Process.Pid, left), syscall.SIGKILL)
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it has just ended by itself
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// send sends a signal to processes. It ignores processes that have ended.
func send(processes []*os.Process, s os.Signal) {
	for _, p := range processes {
		_ = p.Signal(s)
	}
}
