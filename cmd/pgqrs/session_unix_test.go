//go:build unix

package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// asSession makes this program a process that leaves its command's process group. The process
// ignores SIGTERM, and holds a pipe open as long as it lives and somebody reads the pipe.
func asSession(held string) int {
	signal.Ignore(syscall.SIGTERM)
	if _, err := syscall.Setsid(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	f, err := os.OpenFile(held, os.O_WRONLY, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		if _, err := f.WriteString("."); err != nil {
			return 1
		}
		time.Sleep(10 * time.Millisecond)
	}
}
