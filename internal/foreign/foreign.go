// Package foreign calls code that is not the library's: handlers, middleware, observers, loggers,
// drivers and the methods of errors. Such code may panic, or end its goroutine by runtime.Goexit.
// The package keeps both from the library's goroutines.
package foreign

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
)

// ErrGoexit is the error of code that ends its goroutine.
var ErrGoexit = errors.New("it called runtime.Goexit")

// Catch calls fn and makes its panic an error.
func Catch(fn func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = NewPanic(v)
		}
	}()
	fn()
	return nil
}

// Isolate is Catch for code whose runtime.Goexit must not end the caller's goroutine: it runs
// in a goroutine of its own, for which Isolate waits.
func Isolate(fn func()) error {
	done := make(chan error, 1)
	go func() {
		err := ErrGoexit
		defer func() { done <- err }()
		err = Catch(fn)
	}()
	return <-done
}

// A Panic is a panic as an error, with its stack.
type Panic struct{ err error }

func (e *Panic) Error() string { return e.err.Error() }

func (e *Panic) Unwrap() error { return e.err }

// NewPanic is a panic as an error. If the value was an error, it matches that. It is called
// while the panic is being recovered, when the stack still shows where that came from. The value's
// text is taken elsewhere, or one that ends its goroutine would end the recovery.
func NewPanic(v any) error {
	stack := debug.Stack()
	var text string
	err, isError := v.(error)
	bad := Isolate(func() {
		if isError {
			err = Safe(err)
			return
		}
		text = fmt.Sprint(v)
	})
	switch {
	case bad != nil:
		return &Panic{fmt.Errorf("panic: a %T whose text cannot be had: %w\n\n%s", v, bad, stack)}
	case isError:
		return &Panic{fmt.Errorf("panic: %w\n\n%s", err, stack)}
	}
	return &Panic{fmt.Errorf("panic: %s\n\n%s", text, stack)}
}

// OnStack reports whether a function whose name begins so is on the stack, below the one that
// recovers.
func OnStack(prefix string) bool {
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

// A safeError is an error of code that is not the library's. Its text was taken once, under
// recover, and what it matches is asked under recover: the methods of such an error may panic, as
// those of a nil pointer do. It has no Unwrap, by which they would be called without that.
type safeError struct {
	err  error
	text string
}

// Safe makes an error of foreign code safe to be asked, wrapped and logged. Nil stays nil.
func Safe(err error) error {
	switch err.(type) {
	case nil:
		return nil
	case *safeError, *safeValuer:
		return err
	}
	safe := safeError{err, textOf(err)}
	if v, ok := err.(slog.LogValuer); ok {
		return &safeValuer{safe, v}
	}
	return &safe
}

// textOf is the text of an error, or says why that cannot be had.
func textOf(err error) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprintf("a %T whose Error method panicked: %v", err, v)
		}
	}()
	return err.Error()
}

func (e *safeError) Error() string { return e.text }

// Is reports whether the error matches target. [errors.Is] asks it.
func (e *safeError) Is(target error) (is bool) {
	defer func() { is = recover() == nil && is }()
	return errors.Is(e.err, target)
}

// As finds the first error that fits target. [errors.As] asks it.
func (e *safeError) As(target any) (is bool) {
	defer func() { is = recover() == nil && is }()
	return errors.As(e.err, target)
}

// A safeValuer is a safeError that says itself how it is to be logged. slog recovers its panics.
type safeValuer struct {
	safeError
	value slog.LogValuer
}

// LogValue implements [slog.LogValuer].
func (e *safeValuer) LogValue() slog.Value { return e.value.LogValue() }

// Walk calls fn with an error and all that it wraps, and with none of those whose methods panic.
func Walk(err error, fn func(error)) {
	_ = Catch(func() {
		for _, inner := range unwrapped(err) {
			defer Walk(inner, fn)
		}
		fn(err)
	})
}

// unwrapped is what an error wraps.
func unwrapped(err error) []error {
	switch e := err.(type) {
	case *safeError:
		return []error{e.err}
	case *safeValuer:
		return []error{e.err}
	case interface{ Unwrap() []error }:
		return e.Unwrap()
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return []error{inner}
		}
	}
	return nil
}

// Innermost is the error that err wraps.
func Innermost(err error) error {
	last := err
	Walk(err, func(err error) { last = err })
	return last
}

var plain = reflect.TypeOf(errors.New(""))

// Plain reports whether an error is a text and nothing else.
func Plain(err error) bool { return reflect.TypeOf(err) == plain }
