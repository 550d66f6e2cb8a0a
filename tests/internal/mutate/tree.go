package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A tree is a copy of the repository to try mutations in.
type tree struct {
	dir string // of the copy
	tmp string // for files that tests leave behind when they are killed
	env []string
}

// trees are several copies, to try several mutations at once: tests wait more than they compute.
type trees []*tree

// newTrees makes n copies. If one fails, it returns the finished copies with the error.
func newTrees(ctx context.Context, n int) (ts trees, err error) {
	for range n {
		t, err := newTree(ctx)
		if err != nil {
			return ts, err
		}
		ts = append(ts, t)
	}
	return ts, nil
}

func (ts trees) setenv(setting string) {
	for _, t := range ts {
		t.env = append(t.env, setting)
	}
}

func (ts trees) remove() error {
	var errs []error
	for _, t := range ts {
		errs = append(errs, t.remove())
	}
	return errors.Join(errs...)
}

// impatient shortens the time that tests wait for something that a mutation prevents.
var impatient = mutation{name: "impatient", edits: []edit{
	{"internal/dbtest/retry.go", "const Patience = time.Minute", "const Patience = 15 * time.Second"},
	{"tests/races/scene_test.go", "const tooLong = time.Minute", "const tooLong = 15 * time.Second"},
}}

// newTree copies the files that git tracks or would track, in their current state.
func newTree(ctx context.Context) (*tree, error) {
	top, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	root := strings.TrimSpace(string(top))
	list := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	files, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list the files of %s: %w", root, err)
	}
	base, err := os.MkdirTemp("", "pgqrs-mutate-")
	if err != nil {
		return nil, err
	}
	t := &tree{dir: filepath.Join(base, "tree"), tmp: filepath.Join(base, "tmp")}
	t.env = append(os.Environ(), "TMPDIR="+t.tmp)
	if err := os.Mkdir(t.tmp, 0o777); err != nil {
		return nil, err
	}
	for _, file := range strings.Split(strings.TrimRight(string(files), "\x00"), "\x00") {
		if err := copyFile(filepath.Join(root, file), filepath.Join(t.dir, file)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, t.remove())
		}
	}
	if _, err := impatient.apply(t.dir); err != nil {
		return nil, errors.Join(err, t.remove())
	}
	return t, nil
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o666)
}

func (t *tree) remove() error { return os.RemoveAll(filepath.Dir(t.dir)) }

// sound runs the tests of all mutations on the unchanged library. A test that fails anyway would
// prove nothing.
func (t *tree) sound(ctx context.Context, list []mutation) error {
	targets := map[string][]target{}
	for _, m := range list {
		for _, test := range m.tests {
			targets[test.pkg] = append(targets[test.pkg], test)
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(targets)) {
		var runs []string
		for _, test := range targets[pkg] {
			runs = append(runs, test.run)
		}
		slices.Sort(runs)
		start := time.Now()
		failed, passed, err := t.test(ctx, target{pkg, strings.Join(slices.Compact(runs), "|")})
		switch {
		case err != nil:
			return err
		case failed != "":
			return fmt.Errorf("%s fails without any mutation", failed)
		}
		for _, test := range targets[pkg] {
			if !slices.ContainsFunc(passed, test.names) {
				return fmt.Errorf("no test of %s passed for -run '%s': was it skipped, or does it have another name now?", pkg, test.run)
			}
		}
		fmt.Printf("%s passes without a mutation, in %.0f s\n", pkg, time.Since(start).Seconds())
	}
	return nil
}

// test runs tests until one fails. It returns the name of that test, or "" and the tests that
// passed.
func (t *tree) test(ctx context.Context, what target) (failed string, passed []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout=3m",
		"-vet=off", "-gcflags=github.com/pgqrs/...=-N -l", "-ldflags=-s -w", // to compile in less time
		"-run="+what.run, "./"+what.pkg)
	cmd.Dir, cmd.Env = t.dir, t.env
	// The tests are children of go test, and all of them must end together.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	failed, passed, err = firstFailure(out)
	if err != nil || failed != "" {
		cancel() // the other tests need not end
	}
	ended := cmd.Wait()
	switch {
	case err != nil:
	case failed != "":
		failed = what.pkg + " " + failed
	case ended != nil:
		err = fmt.Errorf("go test ./%s: %w\n%s", what.pkg, ended, stderr.String())
	}
	return failed, passed, err
}

// firstFailure reads the output of go test -json up to the first test that fails. It also returns
// the tests that passed before.
func firstFailure(out io.Reader) (failed string, passed []string, err error) {
	var build strings.Builder
	for dec := json.NewDecoder(out); ; {
		var e struct{ Action, Test, Output string }
		err := dec.Decode(&e)
		switch {
		case errors.Is(err, io.EOF):
			return "", passed, nil
		case err != nil:
			return "", passed, err
		case e.Action == "build-output":
			build.WriteString(e.Output)
		case e.Action == "build-fail":
			return "", passed, fmt.Errorf("does not compile:\n%s", build.String())
		case e.Action == "fail" && e.Test != "":
			return e.Test, passed, nil
		case e.Action == "fail":
			return "the package", passed, nil
		case e.Action == "pass" && e.Test != "":
			passed = append(passed, e.Test)
		}
	}
}
