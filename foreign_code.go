package pgqrs

import (
	"context"
	"errors"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// errGoexit is what becomes of a handler that ends its goroutine.
var errGoexit = errors.New("pgqrs: handler called runtime.Goexit")

// safely returns the Observer with functions whose panics are logged, and change nothing.
func (o *Observer) safely(failures *failureLogs) *Observer {
	if o == nil {
		return nil
	}
	call := func(name string) func(func()) {
		failure := failures.key("Observer." + name)
		return func(fn func()) {
			if err := foreign.Catch(fn); err != nil {
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
