package pgqrs_test

import (
	"context"
	"errors"
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
				Lease: 5 * time.Minute, Retention: -1, DeadLetter: "graveyard", MaxLeased: 3, Rate: pgqrs.Rate{N: 3, Per: time.Second},
				GroupConcurrency: 4, GroupRate: pgqrs.Rate{N: 6, Per: time.Hour}, SkipFailed: true,
			}),
		},
	})
}

func TestStatementsOfLimitedDequeue(t *testing.T) {
	begin, commit := ownBegin, txCommit
	limited := register.row(3, true)
	lock := query("limit.lock", 3).ids(1)
	claimOf := func(n int) statement { return query("message.claim", 3, 30_000_000, true, n) }
	runOperations(t, []operation{
		{
			name: "Dequeue within a rate", call: dequeuing(2), want: []statement{
				limited, begin, lock, query("limit.room", 1, 10).row(4, 0, true),
				claimOf(4).row(delivery(7, ada, 1)...).row(delivery(8, ada, 1)...), exec("limit.take", 1, 2), commit,
			},
		}, {
			name: "Dequeue with as many leased as may be", call: dequeuing(0), err: pgqrs.ErrRateLimited,
			want: []statement{limited, begin, lock, query("limit.room", 1, 10).row(-1, 0, false), commit},
		}, {
			name: "Dequeue above a rate", want: []statement{limited, begin, lock, query("limit.room", 1, 10).row(0, 1_500_000, true), commit},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				var limit *pgqrs.RateLimitError
				_, err := emails(s).Dequeue(ctx, 10, 30*time.Second)
				if !errors.As(err, &limit) {
					return err
				}
				return differ("wait", limit.Wait, 1500*time.Millisecond)
			},
		}, {
			name: "Dequeue within a limit on leases", call: dequeuing(1),
			want: []statement{limited, begin, lock, query("limit.room", 1, 10).row(1, 0, false), claimOf(1).row(delivery(7, ada, 1)...), commit},
		}, {
			name: "Dequeue from a limited queue that has nothing", call: dequeuing(0),
			want: []statement{limited, begin, lock, query("limit.room", 1, 10).row(10, 0, true), claimOf(10), commit, heartbeat.row(3, "ready", true)},
		}, {
			name: "Dequeue from a queue whose limit was lifted, and then set again",
			want: []statement{
				limited, begin, query("limit.lock", 3), claimOf(10), commit, heartbeat.row(3, "ready", false),
				claimOf(10), heartbeat.row(3, "ready", true),
				begin, lock, query("limit.room", 1, 10).row(10, 0, false), claimOf(10).row(delivery(7, ada, 1)...), commit,
			},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				return errors.Join(dequeuing(0)(ctx, s), dequeuing(0)(ctx, s), dequeuing(1)(ctx, s))
			},
		},
	})
}

func TestStatementsOfDeadLetters(t *testing.T) {
	mortal := func(s *pgqrs.Store) *pgqrs.Queue[email] {
		return pgqrs.NewQueue[email](s, "emails").With(pgqrs.Policy{DeadLetter: "graveyard"})
	}
	errBounced := errors.New("bounced")
	burial := []statement{
		ownBegin, query("message.fail", `[[7,3,9,null,"bounced"]]`).ids(7),
		exec("queue.make", "graveyard"), query("message.dead_letter", "graveyard", `[7]`).ids(8), txCommit,
	}
	fail := func(ms ...*pgqrs.Message[email]) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error { return mortal(s).Fail(ctx, errBounced, ms...) }
	}
	runOperations(t, []operation{
		{name: "Fail of the last attempt", call: fail(held(7, 5)), want: burial},
		{
			name: "Fail of the last attempt after the lease was lost", call: fail(held(7, 5)), err: pgqrs.ErrLeaseLost,
			want: []statement{ownBegin, query("message.fail", `[[7,3,9,null,"bounced"]]`), txCommit},
		}, {
			name: "Fail of the last attempt and of an earlier one", call: func(ctx context.Context, s *pgqrs.Store) error {
				return mortal(s).Fail(ctx, pgqrs.RetryAfter(time.Second, errBounced), held(7, 5), held(6, 1))
			},
			want: append([]statement{query("message.fail", `[[6,3,9,1000000,"bounced"]]`).ids(6)}, burial...),
		}, {
			name: "Dequeue of a payload that does not decode", want: []statement{
				register.ids(3), claim.row(delivery(7, `{"To":1}`, 1)...),
				ownBegin, query("message.fail", deadLetter(7, "pgqrs: invalid payload: payload of message 7 does not decode")).ids(7),
				exec("queue.make", "graveyard"), query("message.dead_letter", "graveyard", `[7]`).ids(8), txCommit,
				claim, heartbeat.row(3, "ready", false),
			},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := mortal(s).Dequeue(ctx, 10, 30*time.Second)
				return err
			},
		},
	})
}
