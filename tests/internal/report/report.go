package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// An event is a line of go test -json, as documented by go doc test2json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// A report reads events and prints its lines as it goes.
type report struct {
	w        io.Writer
	failed   bool
	packages map[string]*pkg
}

// A pkg is one package's test binary.
type pkg struct {
	// output is the output of the tests that have not passed, by name, where "" is the package
	// itself.
	output map[string]string
	cases  map[string]*result // of the conformance suite, by name
}

// A result counts the outcomes of a case over all of its runs.
type result struct {
	passed, failed, skipped int
	why                     string // the output of a skipped case
}

func newReport(w io.Writer) *report {
	return &report{w: w, packages: map[string]*pkg{}}
}

func (r *report) read(in io.Reader) error {
	for dec := json.NewDecoder(in); ; {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		r.event(e)
	}
}

func (r *report) event(e event) {
	if strings.HasPrefix(e.Action, "build-") {
		r.failed = r.failed || e.Action == "build-fail"
		fmt.Fprint(r.w, e.Output)
		return
	}
	p := r.packages[e.Package]
	if p == nil {
		p = &pkg{output: map[string]string{}, cases: map[string]*result{}}
		r.packages[e.Package] = p
	}
	switch e.Action {
	case "output":
		p.output[e.Test] += e.Output
	case "pass", "fail", "skip":
		r.end(p, e)
	}
}

// end handles the end of a test or of a package.
func (r *report) end(p *pkg, e event) {
	if e.Action == "fail" {
		r.failed = true
	}
	if suite, _, _ := strings.Cut(e.Test, "/"); suite == "TestConformance" || suite == "TestProcesses" {
		p.count(e)
	}
	switch {
	case e.Test == "" && e.Action == "fail":
		r.printAll(p)
	case e.Test == "" && e.Action == "pass":
		fmt.Fprint(r.w, lastLine(p.output[""]))
	case e.Action == "pass":
		fmt.Fprint(r.w, proved(p.output[e.Test]))
	case e.Action == "fail":
		fmt.Fprint(r.w, unmarked(p.output[e.Test]))
	}
	delete(p.output, e.Test)
}

// printAll prints the remaining output of a failed package: its own, and that of tests that never
// ended. One of them may contain a panic.
func (r *report) printAll(p *pkg) {
	for _, test := range slices.Sorted(maps.Keys(p.output)) {
		if test != "" {
			fmt.Fprint(r.w, unmarked(p.output[test]))
		}
	}
	fmt.Fprint(r.w, p.output[""])
}

// count adds a finished conformance case.
func (p *pkg) count(e event) {
	c := p.cases[e.Test]
	if c == nil {
		c = &result{}
		p.cases[e.Test] = c
	}
	switch e.Action {
	case "pass":
		c.passed++
	case "fail":
		c.failed++
	case "skip":
		c.skipped++
		c.why = message(p.output[e.Test])
	}
}

// summary prints how many conformance cases passed in each package.
func (r *report) summary() {
	for _, name := range slices.Sorted(maps.Keys(r.packages)) {
		p := r.packages[name]
		if len(p.cases) == 0 {
			continue
		}
		sum := p.sum()
		fmt.Fprintf(r.w, "pgqrs conformance: %-8s %4d passed, %d failed, %d skipped\n", path.Base(name), sum.passed, sum.failed, sum.skipped)
		if sum.why != "" {
			fmt.Fprintf(r.w, "\tskipped: %s\n", sum.why)
		}
	}
}

// sum adds up the cases. It leaves out the groups that only contain other cases.
func (p *pkg) sum() (sum result) {
	names := slices.Sorted(maps.Keys(p.cases))
	for _, name := range names {
		isGroup := func(other string) bool { return strings.HasPrefix(other, name+"/") }
		if slices.ContainsFunc(names, isGroup) {
			continue
		}
		c := p.cases[name]
		sum.passed += c.passed
		sum.failed += c.failed
		sum.skipped += c.skipped
		if sum.why == "" {
			sum.why = c.why
		}
	}
	return sum
}

// unmarked returns output without the lines that name the running test.
func unmarked(output string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		if !strings.HasPrefix(line, "=== ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// proved returns the lines of a passed test that begin with "proved".
func proved(output string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		if _, logged, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok := strings.Cut(logged, ": "); ok && strings.HasPrefix(text, "proved") {
				b.WriteString(text)
			}
		}
	}
	return b.String()
}

// message returns what a skipped test logged, on one line.
func message(output string) string {
	logged, _, _ := strings.Cut(unmarked(output), "--- SKIP")
	return strings.Join(strings.Fields(logged), " ")
}

// lastLine returns the line with which go test ends a package.
func lastLine(output string) string {
	lines := slices.Collect(strings.Lines(output))
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}
