package pgqrs

import "context"

// Work handles a message as a Worker would that has claimed it.
func (h Handler) Work(ctx context.Context, m *MessageInfo) error {
	m.delivery = new(deliveryState)
	return h.work(ctx, m)
}

// Bury ends a run whose message has used up its attempts, as a Worker would.
func (s *Store) Bury(ctx context.Context, m *MessageInfo, cause error) error {
	return s.failRun(ctx, m, cause, "")
}

// InRun returns the ctx that a run's function gets.
func InRun(ctx context.Context) context.Context {
	return context.WithValue(ctx, runKey{}, newExecution(nil, "test", nil))
}

// InStep returns the ctx that a step's function gets.
func InStep(ctx context.Context) context.Context {
	return context.WithValue(InRun(ctx), stepKey{}, &stepScope{run: newExecution(nil, "test", nil), name: "outer"})
}

// Tick makes the rows of the schedules and runs what is due, as a Worker does when it starts.
func (w *Worker) Tick(ctx context.Context) error {
	settings, err := w.settings()
	if err != nil {
		return err
	}
	r, err := newRunner(ctx, settings)
	if err != nil {
		return err
	}
	k := r.scheduler
	if err := k.register(ctx); err != nil {
		return err
	}
	k.runDue(ctx)
	k.waitForRunning()
	return nil
}
