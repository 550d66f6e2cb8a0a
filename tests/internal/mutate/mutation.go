package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// A mutation removes one guard from the library. The format is documented in mutations.txt.
type mutation struct {
	name      string
	guarantee int    // of docs/GUARANTEES.md
	breaks    string // the promise that no longer holds
	edits     []edit
	tests     []target
}

// An edit replaces one text by another. The text must be in its file exactly once.
type edit struct {
	file string
	old  string
	new  string
}

// A target names tests that are expected to fail.
type target struct {
	pkg string // directory
	run string // for go test -run
}

var header = regexp.MustCompile(`^([a-z][a-z-]*) \((\d+)\): (.+)$`)

// parse reads a list of mutations.
func parse(text string) ([]mutation, error) {
	var list []mutation
	for i, line := range strings.Split(text, "\n") {
		if err := parseLine(&list, line); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	seen := map[string]bool{}
	for _, m := range list {
		switch {
		case seen[m.name]:
			return nil, fmt.Errorf("there are two mutations %s", m.name)
		case len(m.edits) == 0 || len(m.tests) == 0:
			return nil, fmt.Errorf("mutation %s has no edit or no test", m.name)
		}
		seen[m.name] = true
		for _, e := range m.edits {
			if e.old == "" {
				return nil, fmt.Errorf("mutation %s does not say what to replace in %s", m.name, e.file)
			}
		}
	}
	return list, nil
}

func parseLine(list *[]mutation, line string) error {
	if line == "" || line[0] == '#' {
		return nil
	}
	if found := header.FindStringSubmatch(line); found != nil {
		guarantee, err := strconv.Atoi(found[2])
		*list = append(*list, mutation{name: found[1], guarantee: guarantee, breaks: found[3]})
		return err
	}
	if len(*list) == 0 {
		return fmt.Errorf("%q stands before the first mutation", line)
	}
	m := &(*list)[len(*list)-1]
	if file, ok := strings.CutPrefix(line, "in "); ok {
		m.edits = append(m.edits, edit{file: file})
		return nil
	}
	if where, ok := strings.CutPrefix(line, "test "); ok {
		test, err := parseTarget(where)
		m.tests = append(m.tests, test)
		return err
	}
	if len(m.edits) == 0 {
		return fmt.Errorf("%q stands before a file", line)
	}
	e := &m.edits[len(m.edits)-1]
	switch text := line[1:]; {
	case line[0] == '-' && e.new == "":
		e.old = join(e.old, text)
	case line[0] == '+' && e.old != "":
		e.new = join(e.new, text)
	default:
		return fmt.Errorf("cannot make out %q", line)
	}
	return nil
}

func join(text, line string) string {
	if text == "" {
		return line
	}
	return text + "\n" + line
}

// parseTarget reads a package and either a pattern for -run, or the feature and the name of a
// conformance case.
func parseTarget(where string) (target, error) {
	pkg, what, ok := strings.Cut(where, " ")
	if !ok {
		return target{}, fmt.Errorf("%q names no test", where)
	}
	feature, name, ok := strings.Cut(what, ": ")
	if !ok {
		return target{pkg, what}, nil
	}
	return target{pkg, "^TestConformance$/" + exactly(feature) + "/" + exactly(name)}, nil
}

// names reports whether the pattern of a target matches the whole name of a test.
func (t target) names(test string) bool {
	patterns, names := strings.Split(t.run, "/"), strings.Split(test, "/")
	if len(patterns) != len(names) {
		return false
	}
	for i, pattern := range patterns {
		if ok, err := regexp.MatchString(pattern, names[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// exactly returns a pattern for a subtest of that name.
func exactly(name string) string {
	return "^" + regexp.QuoteMeta(strings.ReplaceAll(name, " ", "_")) + "$"
}

// apply changes the files below dir, and returns a function that restores them.
func (m mutation) apply(dir string) (restore func() error, err error) {
	before := map[string][]byte{}
	restore = func() error {
		for file, text := range before {
			if err := os.WriteFile(file, text, 0o666); err != nil {
				return err
			}
		}
		return nil
	}
	for _, e := range m.edits {
		file := filepath.Join(dir, e.file)
		text, err := os.ReadFile(file)
		if err != nil {
			return restore, err
		}
		if before[file] == nil {
			before[file] = text
		}
		if n := strings.Count(string(text), e.old); n != 1 {
			return restore, fmt.Errorf("mutation %s: the text to replace stands in %s %d times, want once; bring tests/internal/mutate/mutations.txt up to date:\n%s", m.name, e.file, n, e.old)
		}
		if err := os.WriteFile(file, []byte(strings.Replace(string(text), e.old, e.new, 1)), 0o666); err != nil {
			return restore, err
		}
	}
	return restore, nil
}
