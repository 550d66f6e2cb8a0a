package dashboard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
)

// errGoexit is what becomes of a function of the application that ends its goroutine.
var errGoexit = errors.New("it called runtime.Goexit")

// contained calls a function of the application, whose panic or runtime.Goexit becomes an error.
func contained(fn func()) error {
	done := make(chan error, 1)
	go func() {
		err := errGoexit
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v", v)
			}
			done <- err
		}()
		fn()
		err = nil
	}()
	return <-done
}

// actor names who sends a request, by Options.Actor.
func (d *dashboard) actor(r *http.Request) string {
	var name string
	if err := contained(func() { name = d.options.Actor(r) }); err != nil {
		d.log.Error("dashboard: Options.Actor failed", "error", brief(err.Error()))
		return "unknown"
	}
	return brief(name)
}

// A logHandler is the application's. A record that it fails on is lost, and nothing else.
type logHandler struct{ slog.Handler }

func newLogger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(logHandler{l.Handler()})
}

// Enabled implements [slog.Handler].
func (h logHandler) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	err := contained(func() { enabled = h.Handler.Enabled(ctx, level) })
	return err == nil && enabled
}

// Handle implements [slog.Handler].
func (h logHandler) Handle(ctx context.Context, record slog.Record) error {
	var err error
	return errors.Join(contained(func() { err = h.Handler.Handle(ctx, record) }), err)
}

// WithAttrs implements [slog.Handler].
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(func() slog.Handler { return h.Handler.WithAttrs(attrs) })
}

// WithGroup implements [slog.Handler].
func (h logHandler) WithGroup(name string) slog.Handler {
	return h.with(func() slog.Handler { return h.Handler.WithGroup(name) })
}

func (h logHandler) with(change func() slog.Handler) slog.Handler {
	next := h.Handler
	if contained(func() { next = change() }) != nil {
		return h
	}
	return logHandler{next}
}
