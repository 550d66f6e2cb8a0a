package pgqrs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A coalescer lets calls that come at the same time share a statement, as a
// database's group commit does. A call that finds no other under way runs its
// own, on its own goroutine, under its own ctx, without waiting for company.
// Those that come meanwhile wait for it to end, and are then done together.
// What waits is done in the order in which it came.
//
// A ctx that ends takes back a call that still waits. One that is being done
// together with others is not undone: the caller hears how it ended, or, if
// that takes longer than lastWord, that nobody knows.
type coalescer[In, Out any] struct {
	// alone does one call.
	alone func(context.Context, In) (Out, error)
	// together does several by one statement and returns what came of each.
	together func(context.Context, []In) ([]Out, error)
	// admit says why a call cannot be done, before it is.
	admit func(context.Context) error
	// refused reports whether an error of together is that of one call, and not of the database.
	refused func(error) bool

	mu      sync.Mutex
	busy    bool
	waiting []*waiting[In, Out]
}

// A waiting call. The first three are written before done is closed.
type waiting[In, Out any] struct {
	out   Out
	err   error
	retry bool // whether it is to be done alone
	done  chan struct{}
	in    In
}

const (
	maxTogether = 500         // calls in one statement
	lastWord    = time.Second // how long a caller whose ctx has ended waits to hear whether its work was done
)

// errContended sends calls of which two are about one thing each its own way:
// the answer of a shared statement would not tell them apart.
var errContended = errors.New("pgqrs: two calls at once about one thing")

// do does a call, alone or together with others.
func (c *coalescer[In, Out]) do(ctx context.Context, in In) (Out, error) {
	if err := c.admit(ctx); err != nil {
		var none Out
		return none, err
	}
	c.mu.Lock()
	if !c.busy {
		c.busy = true
		c.mu.Unlock()
		defer c.next()
		return c.alone(ctx, in)
	}
	w := &waiting[In, Out]{in: in, done: make(chan struct{})}
	c.waiting = append(c.waiting, w)
	c.mu.Unlock()
	if err := c.wait(ctx, w); err != nil {
		var none Out // w may be written yet
		return none, err
	}
	if w.retry {
		return c.alone(ctx, in)
	}
	return w.out, w.err
}

// wait returns when the call is done, or why that will not be heard.
func (c *coalescer[In, Out]) wait(ctx context.Context, w *waiting[In, Out]) error {
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	if c.withdraw(w) {
		return fmt.Errorf("%w: nothing was done", ctx.Err())
	}
	timer := time.NewTimer(lastWord)
	defer timer.Stop()
	select {
	case <-w.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("%w: it was sent to the database, which has not said whether it is done", ctx.Err())
	}
}

// withdraw takes back a call that still waits.
func (c *coalescer[In, Out]) withdraw(w *waiting[In, Out]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, other := range c.waiting {
		if other == w {
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// next has what waits done, if anything does.
func (c *coalescer[In, Out]) next() {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.waiting), maxTogether)
	c.busy = n > 0
	if n > 0 {
		batch := c.waiting[:n:n]
		c.waiting = c.waiting[n:]
		go c.share(batch)
	}
}

// share does a batch by one statement. It ends with the statement, within statementTimeout.
func (c *coalescer[In, Out]) share(batch []*waiting[In, Out]) {
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	var outs []Out
	err := errForeignGoexit
	defer func() { // whatever ends the goroutine: those who wait hear of it
		c.next() // begins while these hear how theirs ended
		// A statement that was refused for what one caller sent must not fail the others.
		retry := err != nil && len(batch) > 1 && ctx.Err() == nil && c.refused(err)
		for i, w := range batch {
			w.err, w.retry = err, retry
			if err == nil {
				w.out = outs[i]
			}
			close(w.done)
		}
	}()
	if bad := caught(func() { outs, err = c.run(ctx, batch) }); bad != nil {
		err = bad
	}
}

// run does a batch; a call that found no company costs no more than alone.
func (c *coalescer[In, Out]) run(ctx context.Context, batch []*waiting[In, Out]) ([]Out, error) {
	if len(batch) == 1 {
		out, err := c.alone(ctx, batch[0].in)
		return []Out{out}, err
	}
	ins := make([]In, len(batch))
	for i, w := range batch {
		ins[i] = w.in
	}
	return c.together(ctx, ins)
}
