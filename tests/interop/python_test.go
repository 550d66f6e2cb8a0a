//go:build unix

package interop_test

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

//go:embed child.py
var childScript string

// patience is how long anything on the Python side may take.
const patience = time.Minute

// A python is a Python process with pgqrs 0.15.3, which executes code for one test.
type python struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *bufio.Reader
	stderr  *tail
}

// startPython starts a process in the given environment. It ends with the test.
func startPython(t *testing.T, env string) *python {
	t.Helper()
	p := &python{cmd: exec.Command(pythonOf(env), "-u", "-c", childScript), stderr: &tail{}}
	p.cmd.Stderr = p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.answers = bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("Python wrote:\n%s", p.stderr)
		}
	})
	return p
}

// kill ends the process as a crash would.
func (p *python) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
}

// An args has the arguments of Python code, by name.
type args map[string]any

// An answer is the child's response to a request.
type answer struct {
	Value       json.RawMessage
	Class, Text string
}

// ask runs Python code and returns its answer.
func (p *python) ask(t *testing.T, code string, a args) answer {
	t.Helper()
	if a == nil {
		a = args{}
	}
	request, err := json.Marshal(map[string]any{"code": unindent(code), "args": a})
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	var line []byte
	if _, err = p.stdin.Write(append(request, '\n')); err == nil {
		line, err = p.answers.ReadBytes('\n')
	}
	if err != nil {
		t.Fatalf("no answer from Python (%v) to:\n%s\n%s", err, code, p.stderr)
	}
	var got answer
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatalf("Python answers %s: %v", line, err)
	}
	return got
}

// do executes Python code that must succeed, and decodes its result.
func do[T any](t *testing.T, p *python, code string, a args) T {
	t.Helper()
	got := p.ask(t, code, a)
	if got.Class != "" {
		t.Fatalf("Python raises %s: %s\nin:\n%s", got.Class, got.Text, code)
	}
	var v T
	if err := json.Unmarshal(got.Value, &v); err != nil {
		t.Fatalf("Python returns %s: %v", got.Value, err)
	}
	return v
}

// run executes Python code that must succeed.
func (p *python) run(t *testing.T, code string, a args) {
	t.Helper()
	do[any](t, p, code, a)
}

// fails executes Python code that must raise an exception of a class, whose text contains the given
// text.
func (p *python) fails(t *testing.T, code string, a args, class, text string) {
	t.Helper()
	got := p.ask(t, code, a)
	if got.Class != class || !strings.Contains(got.Text, text) {
		t.Fatalf("Python raises %q: %q, and returns %s; want %s with %q\nin:\n%s", got.Class, got.Text, got.Value, class, text, code)
	}
}

// eventually repeats Python code until it returns true.
func (p *python) eventually(t *testing.T, what, code string, a args) {
	t.Helper()
	eventually(t, what, func() bool { return do[bool](t, p, code, a) })
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// unindent removes the indentation of the first line from all lines.
func unindent(code string) string {
	code = strings.Trim(code, "\n")
	indent := code[:len(code)-len(strings.TrimLeft(code, "\t "))]
	lines := strings.Split(code, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, indent)
	}
	return strings.Join(lines, "\n")
}

// A tail keeps the end of a process's output.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *tail) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(b)
	if over := w.text.Len() - 16<<10; over > 0 {
		w.text.Next(over)
	}
	return len(b), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

var _ fmt.Stringer = (*tail)(nil)
