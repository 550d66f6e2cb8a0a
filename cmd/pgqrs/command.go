package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// The exit codes of a message's command that say more than that it failed, by the names of sysexits.h.
const (
	codeDataErr  = 65
	codeTempFail = 75
)

const (
	notNow       = time.Minute     // until a message comes back that its command put off
	maxComplaint = 4 << 10         // bytes of standard error that become the message's error
	lastWords    = 5 * time.Second // between asking a command to end and killing it
)

// runCommand runs the command of a message; the error it returns decides what becomes of the message.
func runCommand(ctx context.Context, args []string, m *pgqrs.Message[json.RawMessage], stdout, stderr io.Writer) error {
	if len(args) == 1 {
		args = []string{"/bin/sh", "-c", args[0]}
	}
	headers, err := json.Marshal(m.Headers)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(),
		"PGQRS_ID="+strconv.FormatInt(m.ID, 10), "PGQRS_QUEUE="+m.Queue, "PGQRS_ATTEMPT="+strconv.Itoa(m.Attempt),
		"PGQRS_PRIORITY="+strconv.Itoa(m.Priority), "PGQRS_KEY="+m.Key, "PGQRS_HEADERS="+string(headers))
	complaint := &tail{most: maxComplaint}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(string(m.Payload)), stdout, io.MultiWriter(complaint, stderr)
	cmd.WaitDelay = lastWords
	inGroup(cmd)
	return verdict(ctx, cmd.Run(), complaint.String())
}

// verdict turns the end of a command into the outcome of its message.
func verdict(ctx context.Context, err error, complaint string) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("the command was ended: %w", context.Cause(ctx))
	}
	if complaint = strings.TrimSpace(complaint); complaint != "" {
		err = fmt.Errorf("%w: %s", err, complaint)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		switch exit.ExitCode() {
		case codeDataErr:
			return pgqrs.Permanent(err)
		case codeTempFail:
			return pgqrs.Snooze(notNow)
		}
	}
	return err
}

// A tail keeps the end of what is written to it.
type tail struct {
	most int
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if n := len(t.text) - t.most; n > 0 {
		t.text = t.text[n:]
	}
	return len(p), nil
}

// String returns it as text, which databases insist on.
func (t *tail) String() string {
	return strings.ReplaceAll(strings.ToValidUTF8(string(t.text), "\uFFFD"), "\x00", "\uFFFD")
}

// A sharedWriter is a writer for several commands at a time.
type sharedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *sharedWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}
