package foreign

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
)

// A pointed is an error whose methods need a non-nil pointer.
type pointed struct{ text string }

func (p *pointed) Error() string { return p.text }

func TestCatch_Panic(t *testing.T) {
	err := Catch(func() { panic(io.EOF) })
	var p *Panic
	if !errors.As(err, &p) || !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "foreign_test.go") {
		t.Errorf("error is %v; want a *Panic that matches io.EOF and has the stack", err)
	}
	if err := Catch(func() {}); err != nil {
		t.Errorf("error is %v without a panic", err)
	}
}

func TestIsolate_Goexit(t *testing.T) {
	if err := Isolate(runtime.Goexit); err != ErrGoexit {
		t.Errorf("error is %v, want ErrGoexit", err)
	}
}

func TestSafe_NilPointer(t *testing.T) {
	err := Safe((*pointed)(nil))
	if text := err.Error(); !strings.Contains(text, "a *foreign.pointed whose Error method panicked") {
		t.Errorf("text is %q", text)
	}
	if errors.Is(err, io.EOF) || Safe(nil) != nil || Safe(err) != err {
		t.Error("Safe changed what an error matches, or one that is safe")
	}
}
