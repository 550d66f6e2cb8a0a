//go:build unix

package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Pause stops all processes of the server until Resume. The server keeps its connections, accepts
// new ones and answers nothing. Pause needs the /proc of Linux.
func (s *Server) Pause() error {
	// The main process is the first, so that it starts no more processes.
	if err := syscall.Kill(s.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("pause postgres: %w", err)
	}
	// The second list has the processes that started while the first was read.
	for quiet := 0; quiet < 2; {
		all, err := processes(s.cmd.Process.Pid)
		if err != nil {
			return errors.Join(err, s.Resume())
		}
		running := 0
		for _, p := range all {
			if p.stopped {
				continue
			}
			running++
			if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
				return errors.Join(fmt.Errorf("pause postgres: %w", err), s.Resume())
			}
		}
		quiet++
		if running > 0 {
			quiet = 0
		}
	}
	return nil
}

// Resume continues a paused server.
func (s *Server) Resume() error {
	all, err := processes(s.cmd.Process.Pid)
	for _, p := range all {
		if e := syscall.Kill(p.pid, syscall.SIGCONT); !errors.Is(e, syscall.ESRCH) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("resume postgres: %w", err)
	}
	return nil
}

// A process is a process of the server.
type process struct {
	pid     int
	stopped bool // or ended
}

// processes lists a process and its children. It needs the /proc of Linux.
func processes(parent int) ([]process, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err == nil && len(stats) == 0 {
		err = errors.New("there is no /proc to find the server's processes in")
	}
	var all []process
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil {
			return nil, err
		}
		// pid (name) state ppid .... The name may contain any character.
		fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
		if len(fields) < 2 || pid != parent && string(fields[1]) != strconv.Itoa(parent) {
			continue
		}
		all = append(all, process{pid, bytes.ContainsAny(fields[0], "TZX")})
	}
	return all, err
}
