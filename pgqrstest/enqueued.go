package pgqrstest

import (
	"encoding/json"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

// RequireEnqueued returns the first unfinished message of the queue whose payload match accepts. It
// fails the test if there is no such message. A nil match accepts any payload.
func RequireEnqueued[T any](t testing.TB, s *pgqrs.Store, queue string, match func(T) bool) pgqrs.Message[T] {
	t.Helper()
	for _, state := range []pgqrs.MessageState{pgqrs.Ready, pgqrs.Scheduled, pgqrs.Blocked, pgqrs.Leased} {
		f := pgqrs.MessageFilter{Queue: queue, State: state, Limit: 1000}
		for {
			ms, err := s.Messages(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, info := range ms {
				m := pgqrs.Message[T]{MessageInfo: info}
				if err := json.Unmarshal(info.Raw, &m.Payload); err != nil {
					t.Fatalf("payload of message %d: %v", info.ID, err)
				}
				if match == nil || match(m.Payload) {
					return m
				}
			}
			if len(ms) < f.Limit {
				break
			}
			f.After = ms[len(ms)-1].Cursor
		}
	}
	t.Fatalf("no unfinished message like that in queue %q", queue)
	panic("unreachable")
}
