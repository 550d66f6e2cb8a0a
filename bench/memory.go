package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// memory drains many messages in a process that does nothing else.
func memory(e *engine) opener {
	return rounds(func(ctx context.Context, spec measure.Spec) (measure.Sample, error) {
		l, err := e.openLibrary(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := l.queue.Enqueue(ctx, measure.NewJob(1)); err != nil { // creates the queue
			return nil, err
		}
		if err := l.stuff(ctx, ready, spec.Backlog-1); err != nil {
			return nil, err
		}
		var sample measure.Sample
		if err := runChild(ctx, childOrder{Job: "drain", Engine: e.name, DSN: l.dsn, Messages: spec.Backlog}, &sample); err != nil {
			return nil, err
		}
		done, err := l.archived(ctx)
		if err == nil && done != spec.Backlog {
			err = fmt.Errorf("%d of %d messages are archived", done, spec.Backlog)
		}
		return sample, errors.Join(err, l.close())
	})
}
