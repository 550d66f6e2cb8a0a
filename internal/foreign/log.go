package foreign

import (
	"context"
	"errors"
	"log/slog"
)

// NewLogger makes an application's logger safe to use. If l is nil, the result discards everything.
func NewLogger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(logHandler{l.Handler()})
}

// A logHandler wraps the application's [slog.Handler]. A record is lost if the handler fails on it.
type logHandler struct{ slog.Handler }

// Enabled implements [slog.Handler].
func (h logHandler) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	if Catch(func() { enabled = h.Handler.Enabled(ctx, level) }) != nil {
		return false
	}
	return enabled
}

// Handle implements [slog.Handler].
func (h logHandler) Handle(ctx context.Context, record slog.Record) error {
	var err error
	return errors.Join(Isolate(func() { err = h.Handler.Handle(ctx, record) }), err)
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
	if Catch(func() { next = change() }) != nil {
		return h
	}
	return logHandler{next}
}
