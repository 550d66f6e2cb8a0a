package pgqrs

import (
	"context"
	"time"
)

// A turn has the writes of a Store queue for a database that does one at a
// time, in the order in which they come. Left to the database, those that find
// it busy sleep and look again, and may find it busy each time. It holds one. A nil
// turn has nobody wait.
//
// It is no lock, and nothing is wrong without it: who has waited for
// turnPatience goes on all the same. The one before may be waiting for another
// process, or be a StepTx whose function writes by another Store besides.
type turn chan struct{}

const turnPatience = time.Second

// do calls fn when it is its turn; or, if ctx ends first, returns ctx's error.
func (t turn) do(ctx context.Context, fn func() error) error {
	if t == nil {
		return fn()
	}
	select {
	case t <- struct{}{}:
		defer t.end()
		return fn()
	default:
	}
	timer := time.NewTimer(turnPatience)
	defer timer.Stop()
	select {
	case t <- struct{}{}:
		defer t.end()
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return fn()
}

func (t turn) end() { <-t }
