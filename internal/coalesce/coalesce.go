// Package coalesce lets concurrent calls share a statement, like the group commit of a database.
package coalesce

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// A Group combines concurrent calls. A call that finds no other call in progress runs its statement
// on its own goroutine, under its own ctx, without waiting. Calls that arrive meanwhile wait for
// that statement to end. Then they share one statement, in the order of their arrival.
//
// A call whose ctx ends while it waits does nothing and returns an error. A call that is in a
// shared statement when its ctx ends waits for the outcome, for [LastWord] at most. Then it returns
// an error that says that the outcome is unknown.
//
// The functions of a Group are set before its first call and never change.
type Group[In, Out any] struct {
	// Alone executes one call.
	Alone func(context.Context, In) (Out, error)
	// Together executes several calls by one statement and returns the outcome of each.
	Together func(context.Context, []In) ([]Out, error)
	// Admit returns an error if a call cannot be executed.
	Admit func(context.Context) error
	// Refused reports whether an error of Together is about one call, and not about the database.
	// Each call is then repeated alone.
	Refused func(error) bool
	// Timeout limits the time of a shared statement.
	Timeout time.Duration

	mu      sync.Mutex
	busy    bool
	waiting []*waiting[In, Out]
}

// A waiting is a call that waits. Its first three fields are written before done is closed.
type waiting[In, Out any] struct {
	out   Out
	err   error
	retry bool // whether to execute it alone
	done  chan struct{}
	in    In
}

const (
	MaxTogether = 500         // calls in one statement
	LastWord    = time.Second // how long a call whose ctx has ended waits for its outcome
)

// ErrContended is returned by Together if two calls concern the same row, so that the rows of a
// shared statement would not tell their outcomes apart. Refused must return true for it.
var ErrContended = errors.New("pgqrs: two calls at once about one thing")

// Do executes a call, alone or together with others. The wait ends with ctx. Do is safe for
// concurrent use.
func (g *Group[In, Out]) Do(ctx context.Context, in In) (Out, error) {
	if err := g.Admit(ctx); err != nil {
		var none Out
		return none, err
	}
	g.mu.Lock()
	if !g.busy {
		g.busy = true
		g.mu.Unlock()
		defer g.next()
		return g.Alone(ctx, in)
	}
	w := &waiting[In, Out]{in: in, done: make(chan struct{})}
	g.waiting = append(g.waiting, w)
	g.mu.Unlock()
	if err := g.wait(ctx, w); err != nil {
		var none Out // w may still be written to
		return none, err
	}
	if w.retry {
		return g.Alone(ctx, in)
	}
	return w.out, w.err
}

// wait returns nil when the call is done, or an error if it cannot wait for the outcome.
func (g *Group[In, Out]) wait(ctx context.Context, w *waiting[In, Out]) error {
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	if g.withdraw(w) {
		return fmt.Errorf("%w: nothing was done", ctx.Err())
	}
	timer := time.NewTimer(LastWord)
	defer timer.Stop()
	select {
	case <-w.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("%w: it was sent to the database, which has not said whether it is done", ctx.Err())
	}
}

// withdraw removes a call that is still waiting. It reports whether it was.
func (g *Group[In, Out]) withdraw(w *waiting[In, Out]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, other := range g.waiting {
		if other == w {
			g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// next starts the waiting calls, if there are any.
func (g *Group[In, Out]) next() {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), MaxTogether)
	g.busy = n > 0
	if n > 0 {
		batch := g.waiting[:n:n]
		g.waiting = g.waiting[n:]
		go g.share(batch)
	}
}

// share executes a batch by one statement, within Timeout.
func (g *Group[In, Out]) share(batch []*waiting[In, Out]) {
	ctx, cancel := context.WithTimeout(context.Background(), g.Timeout)
	defer cancel()
	var outs []Out
	err := foreign.ErrGoexit
	defer func() { // waiting calls get an answer however the goroutine ends
		g.next() // the next batch begins while these calls return
		// If a statement was refused because of one call, the other calls must not fail.
		retry := err != nil && len(batch) > 1 && ctx.Err() == nil && g.Refused(err)
		for i, w := range batch {
			w.err, w.retry = err, retry
			if err == nil {
				w.out = outs[i]
			}
			close(w.done)
		}
	}()
	if bad := foreign.Catch(func() { outs, err = g.run(ctx, batch) }); bad != nil {
		err = bad
	}
}

// run executes a batch. A single call costs no more than without a Group.
func (g *Group[In, Out]) run(ctx context.Context, batch []*waiting[In, Out]) ([]Out, error) {
	if len(batch) == 1 {
		out, err := g.Alone(ctx, batch[0].in)
		return []Out{out}, err
	}
	ins := make([]In, len(batch))
	for i, w := range batch {
		ins[i] = w.in
	}
	return g.Together(ctx, ins)
}
