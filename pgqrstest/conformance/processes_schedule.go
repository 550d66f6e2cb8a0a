package conformance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

func playInstants(ctx context.Context, a *actor) error {
	return a.work(ctx, &pgqrs.Worker{Schedules: []pgqrs.Schedule{
		{Name: "beat", Rule: pgqrs.Every(time.Second), CatchUp: 1000, Target: pgqrs.NewQueue[int](a.store, "beats").Target(1)},
	}})
}

// testInstants keeps two processes running, and kills the older one again and again.
func testInstants(t *testing.T, s *stage) {
	older, newer := s.begin(t), s.begin(t)
	for kills := range s.Scale {
		s.awaitInstants(t, 2*(kills+1))
		older.kill(t)
		older, newer = newer, s.begin(t)
	}
	s.awaitInstants(t, 2*s.Scale+2)
	dismiss(t, older, newer)
	runs := s.instants(t)
	for i, r := range runs[:len(runs)-1] {
		equal(t, "time between two instants", r.DueAt.Sub(runs[i+1].DueAt), time.Second)
	}
	messages := value(s.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "beats", State: pgqrs.Ready, Limit: 1000}))(t)
	seen := map[string]bool{}
	for _, m := range messages {
		due := m.Headers[pgqrs.DueHeader]
		if seen[due] {
			t.Errorf("the instant %s was enqueued twice", due)
		}
		seen[due] = true
	}
	equal(t, "number of messages", len(messages), len(runs))
}

// awaitInstants waits until n instants have been run.
func (s *stage) awaitInstants(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d instants were run", n), func() bool { return len(s.instants(t)) >= n })
}

// instants lists the schedule's runs, the latest first. The list is empty before a process has made
// the schedule.
func (s *stage) instants(t *testing.T) []pgqrs.ScheduleRun {
	t.Helper()
	if len(value(s.store.Schedules(t.Context(), "beat"))(t)) == 0 {
		return nil
	}
	return value(s.store.ScheduleRuns(t.Context(), "beat", 1000))(t)
}
