package bench

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// A mattn is the program with the queues on mattn's driver. See cmd/mattn.
type mattn struct {
	path  string
	err   error // why it could not be built
	facts map[string][]string
}

// buildMattn builds the program. It needs the go command and a C compiler.
func buildMattn(ctx context.Context, dir string) *mattn {
	m := &mattn{path: filepath.Join(dir, "mattn"), facts: map[string][]string{}}
	out, err := exec.CommandContext(ctx, "go", "build", "-o", m.path, "github.com/pgqrs/pgqrs-go/bench/cmd/mattn").CombinedOutput()
	if err != nil {
		m.err = fmt.Errorf("build cmd/mattn (run it from the directory bench): %w: %s", err, out)
	}
	return m
}

// contestant returns the opener of one of its queues.
func (m *mattn) contestant(e *engine, name, workload string) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		if m.err != nil {
			return nil, m.err
		}
		spec.Dir, spec.Synchronous = e.base, e.synchronous
		session, facts, err := measure.Remote(exec.CommandContext(ctx, m.path), measure.Request{Contestant: name, Workload: workload, Spec: spec})
		m.facts[e.synchronous] = facts
		return session, err
	}
}
