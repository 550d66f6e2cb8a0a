package pgqrs_test

import (
	"context"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

func TestStatementsOfPolicies(t *testing.T) {
	configuring := func(p pgqrs.Policy) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			return pgqrs.NewQueue[email](s, "emails").With(p).Configure(ctx)
		}
	}
	runOperations(t, []operation{
		{
			name: "Configure", call: configuring(pgqrs.Policy{}), want: []statement{
				exec("queue.make", "emails"),
				exec("queue.configure", `[["emails","{\"max_attempts\":5,\"backoff\":\"1s to 1h\",\"retention\":\"168h\"}",null,null,null,1,null,null,false,null]]`),
			},
		}, {
			name: "Configure with everything", want: []statement{
				exec("queue.make", "emails"),
				exec("queue.configure", `[["emails","{\"max_attempts\":-1,\"backoff\":\"10ms to 1m30s\",\"timeout\":\"20s\",\"concurrency\":2,\"lease\":\"5m\",\"retention\":\"for ever\"}",`+
					`3,333334,3,4,600000000,6,true,"graveyard"]]`),
			},
			call: configuring(pgqrs.Policy{
				MaxAttempts: -1, Backoff: pgqrs.Exponential(10*time.Millisecond, 90*time.Second), Timeout: 20 * time.Second, Concurrency: 2,
				Lease: 5 * time.Minute, Retention: -1, DeadLetter: "graveyard", MaxHeld: 3, Rate: pgqrs.Rate{N: 3, Per: time.Second},
				GroupConcurrency: 4, GroupRate: pgqrs.Rate{N: 6, Per: time.Hour}, SkipFailed: true,
			}),
		},
	})
}
