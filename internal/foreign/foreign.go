// Package foreign calls code that is not the library's: handlers, middleware, observers, loggers,
// drivers and the methods of errors. Such code may panic, or end its goroutine by runtime.Goexit.
// The package keeps both away from the library's goroutines.
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

// ErrGoexit is the error of code that called runtime.Goexit.
var ErrGoexit = errors.New("it called runtime.Goexit")

// Catch calls fn and returns its panic as an error.
func Catch(fn func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = NewPanic(v)
		}
	}()
	fn()
	return nil
}

// Isolate is like Catch, for code whose runtime.Goexit must not end the caller's goroutine. The
// code runs in a goroutine of its own, for which Isolate waits.
func Isolate(fn func()) error {
	done := make(chan error, 1)
	go func() {
		err := ErrGoexit
		defer func() { done <- err }()
		err = Catch(fn)
	}()
	return <-done
}

// A Panic is an error that holds a panic's value and stack.
type Panic struct{ err error }

func (e *Panic) Error() string { return e.err.Error() }

func (e *Panic) Unwrap() error { return e.err }

// NewPanic returns a panic as an error. If the value was an error, the result matches it. NewPanic
// is called while the panic is being recovered, when the stack still shows its origin. It reads the
// value's text in another goroutine, because a method that ends its goroutine would end the
// recovery.
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

// OnStack reports whether the stack below the recovering function has a function whose name begins
// with prefix.
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

// A safeError wraps an error of foreign code, whose methods may panic, as the methods of a nil
// pointer do. The text is read once, under recover. The errors that it matches are asked under
// recover. A safeError has no Unwrap, because unwrapping would call the methods without recover.
type safeError struct {
	err  error
	text string
}

// Safe wraps an error of foreign code so that it can be compared, wrapped and logged safely. Nil
// stays nil.
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

// textOf returns the text of an error, or a text that says why it cannot be read.
func textOf(err error) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprintf("a %T whose Error method panicked: %v", err, v)
		}
	}()
	return err.Error()
}

func (e *safeError) Error() string { return e.text }

// Is reports whether the error matches target. [errors.Is] calls it.
func (e *safeError) Is(target error) (is bool) {
	defer func() { is = recover() == nil && is }()
	return errors.Is(e.err, target)
}

// As finds the first error that fits target. [errors.As] calls it.
func (e *safeError) As(target any) (is bool) {
	defer func() { is = recover() == nil && is }()
	return errors.As(e.err, target)
}

// A safeValuer is a safeError with a LogValue method of its own. slog recovers its panics.
type safeValuer struct {
	safeError
	value slog.LogValuer
}

// LogValue implements [slog.LogValuer].
func (e *safeValuer) LogValue() slog.Value { return e.value.LogValue() }

// Walk calls fn with an error and all errors that it wraps, except errors whose methods panic.
func Walk(err error, fn func(error)) {
	_ = Catch(func() {
		for _, inner := range unwrapped(err) {
			defer Walk(inner, fn)
		}
		fn(err)
	})
}

// unwrapped returns the errors that an error wraps.
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

// Innermost returns the innermost error that err wraps.
func Innermost(err error) error {
	last := err
	Walk(err, func(err error) { last = err })
	return last
}

var plain = reflect.TypeOf(errors.New(""))

// Plain reports whether an error is nothing but a text.
func Plain(err error) bool { return reflect.TypeOf(err) == plain }
