package conformance

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

// A call is one method of the library with a minimum of arguments.
type call struct {
	name   string
	writes bool
	run    func(ctx context.Context) error
}

// everyCall lists all calls on a Store that need its tables. The queue should hold a ready message
// and a dead letter, so that every writing call writes something.
func everyCall(s *pgqrs.Store, queue string) []call {
	return append(queueCalls(pgqrs.NewQueue[string](s, queue)), storeCalls(s, queue)...)
}

func queueCalls(q *pgqrs.Queue[string]) []call {
	m := &pgqrs.Message[string]{MessageInfo: pgqrs.MessageInfo{ID: 1, WorkerID: 1, Claim: 1}}
	return []call{
		{"Enqueue", true, func(ctx context.Context) error { _, err := q.Enqueue(ctx, "x"); return err }},
		{"Enqueue with a key", true, func(ctx context.Context) error { _, err := q.Enqueue(ctx, "x", pgqrs.Key("k")); return err }},
		{"EnqueueBatch", true, func(ctx context.Context) error { _, err := q.EnqueueBatch(ctx, []string{"x", "y"}); return err }},
		{"Dequeue", true, func(ctx context.Context) error { _, err := q.Dequeue(ctx, 1, longLease); return err }},
		{"Ack", true, func(ctx context.Context) error { return q.Ack(ctx, m) }},
		{"Queue.Delete", true, func(ctx context.Context) error { return q.Delete(ctx, m) }},
		{"Release", true, func(ctx context.Context) error { return q.Release(ctx, 0, m) }},
		{"Extend", true, func(ctx context.Context) error { return q.Extend(ctx, longLease, m) }},
		{"Fail", true, func(ctx context.Context) error { return q.Fail(ctx, errors.New("x"), m) }},
	}
}

func storeCalls(s *pgqrs.Store, queue string) []call {
	list := []call{
		{"Queues", false, func(ctx context.Context) error { _, err := s.Queues(ctx); return err }},
		{"Messages by id", false, func(ctx context.Context) error {
			_, err := s.Messages(ctx, pgqrs.MessageFilter{IDs: []int64{1}})
			return err
		}},
		{"Workers", false, func(ctx context.Context) error { _, err := s.Workers(ctx); return err }},
		{"Redrive", true, func(ctx context.Context) error { _, err := s.Redrive(ctx, 1); return err }},
		{"RedriveAll", true, func(ctx context.Context) error { _, err := s.RedriveAll(ctx, queue); return err }},
		{"Store.Delete", true, func(ctx context.Context) error { _, err := s.Delete(ctx, 1); return err }},
		{"Purge", true, func(ctx context.Context) error { _, err := s.Purge(ctx, queue, pgqrs.Ready); return err }},
		{"PauseQueue", true, func(ctx context.Context) error { return s.PauseQueue(ctx, queue) }},
		{"ResumeQueue", true, func(ctx context.Context) error { return s.ResumeQueue(ctx, queue) }},
		{"DropQueue", true, func(ctx context.Context) error { return s.DropQueue(ctx, queue) }},
		{"SuspendWorker", true, func(ctx context.Context) error { return s.SuspendWorker(ctx, 1) }},
		{"ResumeWorker", true, func(ctx context.Context) error { return s.ResumeWorker(ctx, 1) }},
		{"InterruptWorker", true, func(ctx context.Context) error { return s.InterruptWorker(ctx, 1) }},
		{"StopWorker", true, func(ctx context.Context) error { return s.StopWorker(ctx, 1) }},
		{"Schedules", false, func(ctx context.Context) error { _, err := s.Schedules(ctx); return err }},
		{"PauseSchedule", true, func(ctx context.Context) error { return s.PauseSchedule(ctx, "nightly") }},
		{"ResumeSchedule", true, func(ctx context.Context) error { return s.ResumeSchedule(ctx, "nightly") }},
		{"RunSchedule", true, func(ctx context.Context) error { _, err := s.RunSchedule(ctx, "nightly"); return err }},
		{"DeleteSchedule", true, func(ctx context.Context) error { return s.DeleteSchedule(ctx, "nightly") }},
	}
	for _, state := range allStates {
		list = append(list, call{"Messages that are " + string(state), false, func(ctx context.Context) error {
			_, err := s.Messages(ctx, pgqrs.MessageFilter{Queue: queue, State: state})
			return err
		}})
	}
	return list
}

// installCalls lists the calls that need no tables.
func installCalls(s *pgqrs.Store) []call {
	return []call{
		{"Install", true, s.Install},
		{"Verify", false, func(ctx context.Context) error { _, err := s.Verify(ctx); return err }},
		{"Uninstall", true, s.Uninstall},
	}
}

// runWorker is a call of a Worker's Run.
func runWorker(s *pgqrs.Store, queue string) call {
	h := pgqrs.NewQueue[string](s, queue).Handle(func(context.Context, *pgqrs.Message[string]) error { return nil })
	return runHandler(h)
}

// runHandler is a call of Run on a Worker with one handler. Run is expected to return at once.
func runHandler(h pgqrs.Handler) call {
	return call{"Worker.Run", true, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, tooLong)
		defer cancel()
		return (&pgqrs.Worker{Handlers: []pgqrs.Handler{h}}).Run(ctx)
	}}
}

// wantEach makes the calls. Each must return an error that has one of the texts and that matches
// target, if target is not nil.
func wantEach(t *testing.T, ctx context.Context, calls []call, target error, texts ...string) {
	t.Helper()
	for _, c := range calls {
		err := c.run(ctx)
		has := func(text string) bool { return strings.Contains(strings.ToLower(err.Error()), strings.ToLower(text)) }
		switch {
		case err == nil:
			t.Errorf("%s: no error", c.name)
		case target != nil && !errors.Is(err, target):
			t.Errorf("%s: %v; want an error matching %q", c.name, err, target)
		case !strings.HasPrefix(err.Error(), "pgqrs: ") || !slices.ContainsFunc(texts, has):
			t.Errorf("%s: %q; want an error that begins with pgqrs: and says one of %q", c.name, err, texts)
		}
	}
}
