package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// leavers returns the processes that have left a process group, for example by setsid. It returns
// the known ones, and the descendants of the group and of the known ones. It finds descendants by
// their parents, so it misses a process whose parent had already ended.
func leavers(group int, known []*os.Process) []*os.Process {
	all := processes()
	var family []int
	for _, s := range all {
		if s.group == group {
			family = append(family, s.id)
		}
	}
	for _, p := range known {
		if anyLives([]*os.Process{p}) {
			family = append(family, p.Pid)
		}
	}
	for i := 0; i < len(family); i++ {
		for _, s := range all {
			if s.parent != family[i] || slices.Contains(family, s.id) {
				continue
			}
			family = append(family, s.id)
			if p := s.open(); p != nil {
				known = append(known, p)
			}
		}
	}
	return known
}

// A process is an entry of /proc.
type process struct {
	id, parent, group int
	state             string
}

// processes returns all processes that this process may see.
func processes() []process {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is valid
	var all []process
	for _, dir := range dirs {
		id, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if s, ok := processOf(id); ok {
			all = append(all, s)
		}
	}
	return all
}

// processOf returns a process if it exists. The process's name is in parentheses, and may contain
// parentheses.
func processOf(id int) (process, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	end := bytes.LastIndexByte(text, ')')
	if err != nil || end < 0 {
		return process{}, false
	}
	s := process{id: id}
	_, err = fmt.Sscan(string(text[end+1:]), &s.state, &s.parent, &s.group)
	return s, err == nil
}

// open returns a handle of the process. The handle never refers to another process that gets the
// same number. It is nil if the process has ended.
func (s process) open() *os.Process {
	p, err := os.FindProcess(s.id)
	if err != nil {
		return nil
	}
	if now, ok := processOf(s.id); !ok || now.parent != s.parent {
		return nil
	}
	return p
}

// anyLives reports whether any of the processes has not ended. A zombie counts as ended.
func anyLives(processes []*os.Process) bool {
	return slices.ContainsFunc(processes, func(p *os.Process) bool {
		s, ok := processOf(p.Pid)
		return ok && s.state != "Z" && p.Signal(syscall.Signal(0)) == nil
	})
}
