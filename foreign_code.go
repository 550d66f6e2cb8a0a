package pgqrs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Code that is not the library's runs in its goroutines: handlers, middleware, Observers,
// Notifiers, loggers, backoffs, rules, and the methods of errors. What it does may panic, or end
// its goroutine by runtime.Goexit. This file keeps that from the library.

// errGoexit is what becomes of a handler that ends its goroutine.
var errGoexit = errors.New("pgqrs: handler called runtime.Goexit")

// errForeignGoexit is that of other code which ends its goroutine.
var errForeignGoexit = errors.New("it called runtime.Goexit")

// caught calls fn and makes its panic an error.
func caught(fn func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicError(v)
		}
	}()
	fn()
	return nil
}

// contained is caught for code whose runtime.Goexit must not end the caller's goroutine: it runs
// in a goroutine of its own, for which contained waits.
func contained(fn func()) error {
	done := make(chan error, 1)
	go func() {
		err := errForeignGoexit
		defer func() { done <- err }()
		err = caught(fn)
	}()
	return <-done
}

// A panicked is a panic as an error, with its stack.
type panicked struct{ err error }

func (e *panicked) Error() string { return e.err.Error() }

func (e *panicked) Unwrap() error { return e.err }

// panicError is a panic as an error. If the value was an error, it matches that. It is called
// while the panic is being recovered, when the stack still shows where that came from. The value's
// text is taken elsewhere, or one that ends its goroutine would end the recovery.
func panicError(v any) error {
	stack := debug.Stack()
	var text string
	err, isError := v.(error)
	bad := contained(func() {
		if isError {
			err = foreign(err)
			return
		}
		text = fmt.Sprint(v)
	})
	switch {
	case bad != nil:
		return &panicked{fmt.Errorf("panic: a %T whose text cannot be had: %w\n\n%s", v, bad, stack)}
	case isError:
		return &panicked{fmt.Errorf("panic: %w\n\n%s", err, stack)}
	}
	return &panicked{fmt.Errorf("panic: %s\n\n%s", text, stack)}
}

// panickedIn reports whether a function whose name begins so is on the stack, below the one that recovers.
func panickedIn(prefix string) bool {
	var callers [64]uintptr
	for skip := 2; ; skip += len(callers) {
		n := runtime.Callers(skip, callers[:])
		frames := runtime.CallersFrames(callers[:n])
		for more := n > 0; more; {
			var frame runtime.Frame
			if frame, more = frames.Next(); strings.HasPrefix(frame.Function, prefix) {
				return true
			}
		}
		if n < len(callers) {
			return false
		}
	}
}

// A foreignError is an error of code that is not the library's. Its text was taken once, under
// recover, and what it matches is asked under recover: the methods of such an error may panic, as
// those of a nil pointer do. It has no Unwrap, by which they would be called without that.
type foreignError struct {
	err  error
	text string
}

// foreign makes an error safe to be asked, wrapped and logged. Nil stays nil.
func foreign(err error) error {
	switch err.(type) {
	case nil:
		return nil
	case *foreignError, *foreignValuer:
		return err
	}
	safe := foreignError{err, foreignText(err)}
	if v, ok := err.(slog.LogValuer); ok {
		return &foreignValuer{safe, v}
	}
	return &safe
}

// foreignText is the text of an error, or says why that cannot be had.
func foreignText(err error) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprintf("a %T whose Error method panicked: %v", err, v)
		}
	}()
	return err.Error()
}

func (e *foreignError) Error() string { return e.text }

// Is reports whether the error matches target. [errors.Is] asks it.
func (e *foreignError) Is(target error) (is bool) {
	defer func() { is = recover() == nil && is }()
	return errors.Is(e.err, target)
}

// As finds the first error that fits target. [errors.As] asks it.
func (e *foreignError) As(target any) (is bool) {
	defer func() { is = recover() == nil && is }()
	return errors.As(e.err, target)
}

// A foreignValuer is a foreignError that says itself how it is to be logged. slog recovers its panics.
type foreignValuer struct {
	foreignError
	value slog.LogValuer
}

// LogValue implements [slog.LogValuer].
func (e *foreignValuer) LogValue() slog.Value { return e.value.LogValue() }

// safely returns the Observer with functions whose panics are logged, and change nothing.
func (o *Observer) safely(failures *failures) *Observer {
	if o == nil {
		return nil
	}
	call := func(name string) func(func()) {
		failure := failures.of("Observer." + name)
		return func(fn func()) {
			if err := caught(fn); err != nil {
				failure.Error("pgqrs: a function of the Observer panicked", "function", name, "err", err)
				return
			}
			failure.over()
		}
	}
	safe := *o
	if fn := o.Enqueued; fn != nil {
		call := call("Enqueued")
		safe.Enqueued = func(ctx context.Context, queue string, ids []int64) { call(func() { fn(ctx, queue, ids) }) }
	}
	if fn := o.Claimed; fn != nil {
		call := call("Claimed")
		safe.Claimed = func(ctx context.Context, m *MessageInfo) { call(func() { fn(ctx, m) }) }
	}
	if fn := o.Finished; fn != nil {
		call := call("Finished")
		safe.Finished = func(ctx context.Context, m *MessageInfo, took time.Duration, err error) {
			call(func() { fn(ctx, m, took, err) })
		}
	}
	if fn := o.Stepping; fn != nil {
		call := call("Stepping")
		safe.Stepping = func(ctx context.Context, runID int64, step string) (changed context.Context) {
			call(func() { changed = fn(ctx, runID, step) })
			return changed
		}
	}
	if fn := o.Stepped; fn != nil {
		call := call("Stepped")
		safe.Stepped = func(ctx context.Context, runID int64, step string, took time.Duration, err error) {
			call(func() { fn(ctx, runID, step, took, err) })
		}
	}
	return &safe
}
