package conformance

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// logs keeps what a Store logs, so that a failing case can show it and a case can look into it.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// has reports whether a text was logged.
func (l *logs) has(text string) bool { return strings.Contains(l.String(), text) }

// logger returns a logger that writes to l, which is shown if the test fails.
func (l *logs) logger(t *testing.T) *slog.Logger {
	t.Cleanup(func() {
		if t.Failed() && l.String() != "" {
			t.Logf("logged:\n%s", l)
		}
	})
	return slog.New(slog.NewTextHandler(l, nil))
}
