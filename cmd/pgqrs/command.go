package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// The exit codes of a message's command that mean more than a failure, with their names in
// sysexits.h.
const (
	codeDataErr  = 65
	codeTempFail = 75
)

const (
	notNow = time.Minute // until a message that its command put off is due again
	// maxComplaint is how many bytes of standard error are recorded as the message's error.
	maxComplaint = 4 << 10
	lastWords    = 5 * time.Second // between asking a command to end and killing it
)

// A command is the program that runs for each message.
type command struct {
	args           []string
	env            []string // the environment for every message
	envelope       bool     // whether standard input is the whole message
	stdout, stderr io.Writer
}

// An envelope is a message in the form in which a command reads the whole message.
type envelope struct {
	ID       int64             `json:"id"`
	Queue    string            `json:"queue"`
	Attempt  int               `json:"attempt"`
	Priority int               `json:"priority"`
	Key      string            `json:"key"`
	Headers  map[string]string `json:"headers"`
	Payload  json.RawMessage   `json:"payload"`
}

// run runs the command for a message. The returned error decides the outcome of the message.
func (c command) run(ctx context.Context, m *pgqrs.Message[json.RawMessage]) error {
	env, input, err := c.given(m)
	if err != nil {
		return err
	}
	args := c.args
	if len(args) == 1 {
		args = []string{"/bin/sh", "-c", args[0]}
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	complaint := &tail{most: maxComplaint}
	cmd.Env, cmd.Stdin = env, bytes.NewReader(input)
	cmd.Stdout, cmd.Stderr = c.stdout, io.MultiWriter(complaint, c.stderr)
	cmd.WaitDelay = lastWords
	endGroup := inGroup(cmd)
	err = cmd.Run()
	endGroup()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it succeeded, but a process that it left in the background holds its output open
	}
	return verdict(ctx, tooLong(err), complaint.String())
}

// given returns the environment and the standard input of the command for a message.
func (c command) given(m *pgqrs.Message[json.RawMessage]) (env []string, input []byte, err error) {
	if c.envelope {
		input, err = json.Marshal(envelope{m.ID, m.Queue, m.Attempt, m.Priority, m.Key, m.Headers, m.Payload})
		return c.env, input, err
	}
	headers, err := json.Marshal(m.Headers)
	if err != nil {
		return nil, nil, err
	}
	env = append(slices.Clone(c.env),
		"PGQRS_ID="+strconv.FormatInt(m.ID, 10), "PGQRS_QUEUE="+m.Queue, "PGQRS_ATTEMPT="+strconv.Itoa(m.Attempt),
		"PGQRS_PRIORITY="+strconv.Itoa(m.Priority), "PGQRS_KEY="+m.Key, "PGQRS_HEADERS="+string(headers))
	return env, m.Payload, nil
}

// tooLong adds advice if the system refuses an environment for its length.
func tooLong(err error) error {
	if errors.Is(err, syscall.E2BIG) {
		return fmt.Errorf("the message's key and headers are too long for the environment; work -envelope has the command read them from standard input (%w)", err)
	}
	return err
}

// verdict returns the outcome of the message for the end of its command.
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

// A tail keeps the end of the bytes written to it.
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

// String returns the tail as valid text, which databases require.
func (t *tail) String() string {
	return strings.ReplaceAll(strings.ToValidUTF8(string(t.text), "\uFFFD"), "\x00", "\uFFFD")
}

// A sharedWriter is a writer for several goroutines at once.
type sharedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *sharedWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}
