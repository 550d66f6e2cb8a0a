package main

import (
	"errors"
	"fmt"

	"github.com/pgqrs/pgqrs-go"
	"github.com/urfave/cli/v3"
)

// The exit codes. The documentation of the command promises them.
const (
	exitDone = iota
	exitFailed
	exitUsage
	exitNotFound
	exitNotConfirmed
	exitState
)

var errNotConfirmed = errors.New("not confirmed")

// A usageError is the error of a command line that makes no sense.
type usageError struct {
	command string // the command whose help says more
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func misuse(cmd *cli.Command, format string, args ...any) error {
	return &usageError{cmd.FullName(), fmt.Errorf(format, args...)}
}

// notFound returns an error for a missing object of a command.
func notFound(format string, args ...any) error {
	return fmt.Errorf("%w: %s", pgqrs.ErrNotFound, fmt.Sprintf(format, args...))
}

// exitCode returns the code for an error of a command.
func exitCode(err error) int {
	var usage *usageError
	var library cli.ExitCoder // of package cli, which returns it only for unknown commands
	switch {
	case errors.As(err, &usage), errors.As(err, &library):
		return exitUsage
	case errors.Is(err, errNotConfirmed):
		return exitNotConfirmed
	case errors.Is(err, pgqrs.ErrNotFound):
		return exitNotFound
	case errors.Is(err, pgqrs.ErrState), errors.Is(err, pgqrs.ErrDuplicate):
		return exitState
	}
	return exitFailed
}
