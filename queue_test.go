package pgqrs_test

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/pgqrs/pgqrs-go"
)

type email struct{ To string }

func emails(s *pgqrs.Store) *pgqrs.Queue[email] {
	return pgqrs.NewQueue[email](s, "emails").With(pgqrs.Policy{Backoff: func(n int) time.Duration { return time.Duration(n) * time.Second }})
}

// held returns a message as a claim returns it.
func held(id int64, attempt int) *pgqrs.Message[email] {
	return &pgqrs.Message[email]{MessageInfo: pgqrs.MessageInfo{ID: id, WorkerID: 3, Claim: 9, Attempt: attempt}}
}

// enqueueing returns a call that enqueues one email.
func enqueueing(opts ...pgqrs.Option) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error {
		id, err := emails(s).Enqueue(ctx, email{"ada"}, opts...)
		return errors.Join(err, differ("id", id, 7))
	}
}

// differ returns an error if two values differ.
func differ[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s is %v, want %v", what, got, want)
	}
	return nil
}

const ada = `{"To":"ada"}`

var instant = time.Date(2026, 1, 2, 3, 4, 5, 600_000, time.FixedZone("", 3600))

func TestStatementsOfEnqueue(t *testing.T) {
	runOperations(t, []operation{
		{
			name: "Enqueue", call: enqueueing(),
			want: []statement{query("message.enqueue", "emails", ada, 0, nil, 0, nil, nil).ids(7)},
		}, {
			name: "Enqueue with all options", call: enqueueing(pgqrs.At(instant), pgqrs.Priority(2), pgqrs.Key("k"), pgqrs.Headers(map[string]string{"a": "<b>"})),
			want: []statement{query("message.enqueue", "emails", ada, 0, instant.UnixMicro(), 2, "k", `{"a":"<b>"}`).ids(7)},
		}, {
			name: "Enqueue with a delay", call: enqueueing(pgqrs.Delay(1500 * time.Millisecond)),
			want: []statement{query("message.enqueue", "emails", ada, 1_500_000, nil, 0, nil, nil).ids(7)},
		}, {
			name: "first Enqueue of a queue", call: enqueueing(),
			want: []statement{
				query("message.enqueue", "emails", ada, 0, nil, 0, nil, nil),
				exec("queue.make", "emails"),
				query("message.enqueue", "emails", ada, 0, nil, 0, nil, nil).ids(7),
			},
		}, {
			name: "Enqueue of a key that is taken", call: enqueueing(pgqrs.Key("k")),
			want: []statement{
				query("message.enqueue", "emails", ada, 0, nil, 0, "k", nil),
				query("message.keyed", "emails", `[["k"]]`).row("k", 7),
			},
		}, {
			name: "Enqueue of a unique key that is taken", call: enqueueing(pgqrs.Unique("k")),
			want: []statement{
				query("message.enqueue", "emails", ada, 0, nil, 0, "k", nil),
				query("message.keyed", "emails", `[["k"]]`).row("k", 7),
			},
			err: pgqrs.ErrDuplicate,
		}, {
			name: "first Enqueue of a queue, with a key", call: enqueueing(pgqrs.Key("k")),
			want: []statement{
				query("message.enqueue", "emails", ada, 0, nil, 0, "k", nil),
				query("message.keyed", "emails", `[["k"]]`),
				exec("queue.make", "emails"),
				query("message.enqueue", "emails", ada, 0, nil, 0, "k", nil).ids(7),
			},
		}, {
			name: "EnqueueBatch", want: []statement{
				query("message.batch_enqueue", "emails", `[{"To":"ada"},{"To":"bob"},{"To":"eve"}]`).
					ids(9, 7, 8),
			},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				ids, err := emails(s).EnqueueBatch(ctx, []email{{"ada"}, {"bob"}, {"eve"}})
				return errors.Join(err, differ("ids", fmt.Sprint(ids), "[7 8 9]"))
			},
		}, {
			name: "EnqueueBatch of one", want: []statement{query("message.enqueue", "emails", ada, 0, nil, 0, nil, nil).ids(7)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := emails(s).EnqueueBatch(ctx, []email{{"ada"}})
				return err
			},
		}, {
			name: "EnqueueBatch with a key that is taken", want: []statement{
				query("message.mixed_enqueue", "emails", `[["{\"To\":\"ada\"}",0,null,1,"k0",null],["{\"To\":\"bob\"}",0,null,1,"k1",null]]`).row(9, "k1"),
				query("message.keyed", "emails", `[["k0"]]`).row("k0", 4),
			},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				each := pgqrs.Each(func(i int) []pgqrs.Option { return []pgqrs.Option{pgqrs.Key(fmt.Sprint("k", i))} })
				ids, err := emails(s).EnqueueBatch(ctx, []email{{"ada"}, {"bob"}}, pgqrs.Priority(1), each)
				return errors.Join(err, differ("ids", fmt.Sprint(ids), "[4 9]"))
			},
		},
	})
}

// dequeuing returns a call that dequeues up to 10 emails for half a minute, and wants a number of
// messages.
func dequeuing(want int) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error {
		ms, err := emails(s).Dequeue(ctx, 10, 30*time.Second)
		return errors.Join(err, differ("messages", len(ms), want))
	}
}

var (
	register  = query("worker.register", "emails", sqlmock.AnyArg(), "ready", 30_000_000)
	claim     = query("message.claim", 3, 30_000_000, true, 10)
	heartbeat = query("worker.heartbeat", `[3]`)
)

// delivery returns a row of a claim: id, payload, priority, attempt, claim number, key, headers,
// last error and three times.
func delivery(id int64, payload string, attempt int) []driver.Value {
	now := instant.UTC()
	return []driver.Value{id, []byte(payload), 0, attempt, 9, nil, nil, nil, now, now, now.Add(time.Minute)}
}

func TestStatementsOfConcurrentDequeue(t *testing.T) {
	begin, commit, busy := exec("begin"), exec("commit"), errors.New("database is locked")
	spread := query("message.spread_claim", 3, 30_000_000, true, 10, sqlmock.AnyArg(), sqlmock.AnyArg())
	s, _ := newMockWith(t, pgqrs.Config{Concurrent: true}, pgqrs.Turso,
		begin, register.ids(3), commit,
		begin, claim.row(delivery(7, ada, 1)...), commit,
		begin, claim.row(delivery(8, ada, 1)...), commit.fails(busy), exec("rollback"),
		begin, spread.row(delivery(9, ada, 1)...), commit,
		begin, spread.row(delivery(10, ada, 1)...), commit)
	for range 3 {
		if err := dequeuing(1)(t.Context(), s); err != nil {
			t.Error(err)
		}
	}
}

func TestStatementsOfDequeue(t *testing.T) {
	runOperations(t, []operation{
		{
			name: "first Dequeue", call: dequeuing(1),
			want: []statement{register.ids(3), claim.row(delivery(7, ada, 1)...)},
		}, {
			name: "first Dequeue of a queue", call: dequeuing(0),
			want: []statement{register, exec("queue.make", "emails"), register.ids(3), claim, heartbeat.row(3, "ready")},
		}, {
			name: "later Dequeue", want: []statement{register.ids(3), claim.row(delivery(7, ada, 1)...), claim.row(delivery(8, ada, 1)...).row(delivery(6, ada, 1)...)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				return errors.Join(dequeuing(1)(ctx, s), dequeuing(2)(ctx, s))
			},
		}, {
			name: "empty Dequeue", call: dequeuing(0),
			want: []statement{register.ids(3), claim, heartbeat.row(3, "ready")},
		}, {
			name: "Dequeue of a suspended worker", call: dequeuing(0), err: pgqrs.ErrState,
			want: []statement{register.ids(3), claim, heartbeat.row(3, "suspended")},
		}, {
			name: "Dequeue of an interrupted worker", call: dequeuing(0), err: pgqrs.ErrState,
			want: []statement{
				register.ids(3), claim, heartbeat.row(3, "interrupted"),
				query("worker.move", 3, "suspended", `["ready","polling","interrupted"]`).ids(3),
			},
		}, {
			name: "Dequeue of a worker that was given up", call: dequeuing(0),
			want: []statement{
				register.ids(3), claim, heartbeat.row(3, "stopped"),
				register.ids(4), query("message.claim", 4, 30_000_000, true, 10), query("worker.heartbeat", `[4]`).row(4, "ready"),
			},
		}, {
			name: "Dequeue of a payload that does not decode", call: dequeuing(0),
			want: []statement{
				register.ids(3), claim.row(delivery(7, `{"To":1}`, 1)...),
				query("message.fail", deadLetter(7, "pgqrs: invalid payload: payload of message 7 does not decode")).ids(7),
				claim, heartbeat.row(3, "ready"),
			},
		}, {
			name: "Dequeue of a run's message", want: []statement{
				register.ids(3), claim.row(append(delivery(7, ada, 1), true)...).row(append(delivery(8, ada, 1), true)...),
				query("run.of_messages", `[7,8]`).row(7, 5),
				query("message.ack", `[[8,3,9]]`).ids(8),
			},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				ms, err := emails(s).Dequeue(ctx, 10, 30*time.Second)
				if err != nil {
					return err
				}
				err = emails(s).Ack(ctx, ms...)
				if !errors.Is(err, pgqrs.ErrState) || !strings.Contains(err.Error(), "message 7 belongs to run 5") {
					return fmt.Errorf("ack: %w", err)
				}
				return nil
			},
		}, {
			name: "Dequeue of a run's message that does not decode", call: dequeuing(0),
			want: []statement{
				register.ids(3), claim.row(append(delivery(7, `{"To":1}`, 1), true)...),
				query("run.of_messages", `[7]`).row(7, 5),
				query("message.release", `[[7,3,9,5000000]]`).ids(7),
				claim, heartbeat.row(3, "ready"),
			},
		}, {
			name: "Dequeue past the last attempt", call: dequeuing(0),
			want: []statement{
				register.ids(3), claim.row(delivery(7, ada, 6)...),
				query("message.fail", deadLetter(7, "attempt 5 ended without an answer")).ids(7),
				claim, heartbeat.row(3, "ready"),
			},
		}, {
			name: "Close", want: []statement{
				register.ids(3), claim.row(delivery(7, ada, 1)...),
				exec("worker.retire", `[[3,0]]`),
			},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				return errors.Join(dequeuing(1)(ctx, s), s.Close(), s.Close())
			},
		}, {
			name: "Close without a Dequeue",
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.Close() },
		},
	})
}

// deadLetter matches the argument of message.fail that makes message id a dead letter. It compares
// the beginning of the error.
func deadLetter(id int64, text string) sqlmock.Argument { return deadLetterArg{id, text} }

type deadLetterArg struct {
	id   int64
	text string
}

func (a deadLetterArg) Match(v driver.Value) bool {
	var list [][]any
	text, ok := v.(string)
	if !ok || json.Unmarshal([]byte(text), &list) != nil || len(list) != 1 || len(list[0]) != 5 {
		return false
	}
	cause, _ := list[0][4].(string)
	return fmt.Sprint(list[0][:4]) == fmt.Sprintf("[%d 3 9 <nil>]", a.id) && strings.HasPrefix(cause, a.text)
}

func TestStatementsOfSettling(t *testing.T) {
	settle := func(settle func(ctx context.Context, q *pgqrs.Queue[email]) error) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error { return settle(ctx, emails(s)) }
	}
	failWith := func(cause error, attempt int) func(context.Context, *pgqrs.Store) error {
		return settle(func(ctx context.Context, q *pgqrs.Queue[email]) error { return q.Fail(ctx, cause, held(7, attempt)) })
	}
	errBounced := errors.New("bounced")
	runOperations(t, []operation{
		{
			name: "Ack", want: []statement{query("message.ack", `[[7,3,9]]`).ids(7)},
			call: settle(func(ctx context.Context, q *pgqrs.Queue[email]) error { return q.Ack(ctx, held(7, 1)) }),
		}, {
			name: "Ack of several", want: []statement{query("message.ack", `[[6,3,9],[7,3,9],[8,3,9]]`).ids(8, 6, 7)},
			call: settle(func(ctx context.Context, q *pgqrs.Queue[email]) error {
				return q.Ack(ctx, held(8, 1), held(6, 1), held(7, 1))
			}),
		}, {
			name: "Ack after the lease was lost", want: []statement{query("message.ack", `[[6,3,9],[7,3,9]]`).ids(6)}, err: pgqrs.ErrLeaseLost,
			call: settle(func(ctx context.Context, q *pgqrs.Queue[email]) error { return q.Ack(ctx, held(6, 1), held(7, 1)) }),
		}, {
			name: "Ack of none",
			call: settle(func(ctx context.Context, q *pgqrs.Queue[email]) error { return q.Ack(ctx) }),
		}, {
			name: "Delete", want: []statement{query("message.delete", `[[7,3,9]]`).ids(7)},
			call: settle(func(ctx context.Context, q *pgqrs.Queue[email]) error { return q.Delete(ctx, held(7, 1)) }),
		}, {
			name: "Delete after the lease was lost", want: []statement{query("message.delete", `[[6,3,9],[7,3,9]]`).ids(6), query("run.exists", 7)}, err: pgqrs.ErrLeaseLost,
			call: settle(func(ctx context.Context, q *pgqrs.Queue[email]) error { return q.Delete(ctx, held(6, 1), held(7, 1)) }),
		}, {
			name: "Delete of a run's message", want: []statement{query("message.delete", `[[7,3,9]]`), query("run.exists", 7).ids(1)}, err: pgqrs.ErrState,
			call: settle(func(ctx context.Context, q *pgqrs.Queue[email]) error { return q.Delete(ctx, held(7, 1)) }),
		}, {
			name: "Release", want: []statement{query("message.release", `[[7,3,9,60000000]]`).ids(7)},
			call: settle(func(ctx context.Context, q *pgqrs.Queue[email]) error { return q.Release(ctx, time.Minute, held(7, 1)) }),
		}, {
			name: "Extend", want: []statement{query("message.extend", 60_000_000, `[[7,3,9]]`).ids(7)},
			call: settle(func(ctx context.Context, q *pgqrs.Queue[email]) error { return q.Extend(ctx, time.Minute, held(7, 1)) }),
		}, {
			name: "Fail", call: failWith(errBounced, 2),
			want: []statement{query("message.fail", `[[7,3,9,2000000,"bounced"]]`).ids(7)},
		}, {
			name: "Fail of the last attempt", call: failWith(errBounced, 5),
			want: []statement{query("message.fail", `[[7,3,9,null,"bounced"]]`).ids(7)},
		}, {
			name: "Fail for good", call: failWith(pgqrs.Permanent(errBounced), 1),
			want: []statement{query("message.fail", `[[7,3,9,null,"bounced"]]`).ids(7)},
		}, {
			name: "Fail with a time", call: failWith(pgqrs.RetryAfter(time.Hour, errBounced), 1),
			want: []statement{query("message.fail", `[[7,3,9,3600000000,"bounced"]]`).ids(7)},
		}, {
			name: "Fail with a snooze", call: failWith(pgqrs.Snooze(time.Hour), 1),
			want: []statement{query("message.release", `[[7,3,9,3600000000]]`).ids(7)},
		}, {
			name: "Fail of messages on different attempts", want: []statement{query("message.fail", `[[7,3,9,1000000,"bounced"],[8,3,9,null,"bounced"]]`).ids(7, 8)},
			call: settle(func(ctx context.Context, q *pgqrs.Queue[email]) error {
				return q.Fail(ctx, errBounced, held(8, 5), held(7, 1))
			}),
		},
	})
}

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

// inGroup returns a message of the group ada as a claim returns it.
func inGroup(id int64) *pgqrs.Message[email] {
	m := held(id, 1)
	m.Queue, m.Group = "emails", "ada"
	return m
}

// lets returns the statements by which a group with a limit of one unblocks message 8.
func lets(lock statement) []statement {
	const group = `[["emails","ada"]]`
	return []statement{lock, query("group.promote", group).ids(8)}
}

var tries = query("group.try_lock", `[["emails","ada"]]`)

func TestStatementsOfGroups(t *testing.T) {
	const group = `[["emails","ada"]]`
	locks := query("group.lock", group)
	one := []driver.Value{false, false, false}
	enqueue := query("message.group_enqueue", "emails", `[["{\"To\":\"ada\"}",0,null,0,null,"{\"pgqrs-group\":\"ada\"}","ada",null]]`)
	settled := func(do statement) []statement {
		return inOne(append([]statement{do}, lets(tries.row("emails", "ada", false, false, false))...)...)
	}
	runOperations(t, []operation{
		{
			name: "Enqueue with a Group", call: enqueueing(pgqrs.Group("ada")),
			want: inOne(locks.row(one...), enqueue.row(7, nil), query("group.promote", group).ids(7)),
		}, {
			name: "the first one of a queue", call: enqueueing(pgqrs.Group("ada")),
			want: append(append(inOne(locks), inOne(exec("queue.make", "emails"))...),
				inOne(locks.row(one...), enqueue.row(7, nil), query("group.promote", group))...),
		}, {
			name: "Ack of a message with a Group", want: settled(query("message.ack", `[[7,3,9]]`).ids(7)),
			call: func(ctx context.Context, s *pgqrs.Store) error { return emails(s).Ack(ctx, inGroup(7)) },
		}, {
			name: "Ack while another has the group", want: inOne(query("message.ack", `[[7,3,9]]`).ids(7), tries),
			call: func(ctx context.Context, s *pgqrs.Store) error {
				// The message is not checked again here.
				return errors.Join(emails(s).Ack(ctx, inGroup(7)), s.Close())
			},
		}, {
			name: "Delete of one", want: settled(query("message.delete", `[[7,3,9]]`).ids(7)),
			call: func(ctx context.Context, s *pgqrs.Store) error { return emails(s).Delete(ctx, inGroup(7)) },
		}, {
			name: "Fail of one", want: settled(query("message.fail", `[[7,3,9,1000000,"x"]]`).ids(7)),
			call: func(ctx context.Context, s *pgqrs.Store) error {
				return emails(s).Fail(ctx, errors.New("x"), inGroup(7))
			},
		}, {
			name: "Release of one at once, which ends nothing", want: []statement{query("message.release", `[[7,3,9,0]]`).ids(7)},
			call: func(ctx context.Context, s *pgqrs.Store) error { return emails(s).Release(ctx, 0, inGroup(7)) },
		}, {
			name: "Release of one for later, in a group of several, with a rate, which passes over it",
			want: inOne(query("message.release", `[[7,3,9,60000000]]`).ids(7), tries.row("emails", "ada", true, true, true), query("group.park", group).ids(9), exec("group.refund", `[9]`),
				query("group.promote", group).ids(8), exec("group.pace", `[8]`), query("group.promote", group)),
			call: func(ctx context.Context, s *pgqrs.Store) error {
				return emails(s).Release(ctx, time.Minute, inGroup(7))
			},
		}, {
			name: "Extend of one", want: []statement{query("message.extend", 60_000_000, `[[7,3,9]]`).ids(7)},
			call: func(ctx context.Context, s *pgqrs.Store) error { return emails(s).Extend(ctx, time.Minute, inGroup(7)) },
		}, {
			name: "Store.Delete of one",
			want: inOne(query("message.lock", `[7]`, "").ids(7), query("group.of", `[7]`).row("emails", "ada", nil), exec("message.remove_steps", `[7]`),
				exec("message.remove_signals", `[7]`), exec("message.remove_runs", `[7]`), exec("message.remove_rows", `[7]`).ids(7),
				tries.row("emails", "ada", false, false, false), query("group.promote", group).ids(8)),
			call: func(ctx context.Context, s *pgqrs.Store) error {
				n, err := s.Delete(ctx, 7)
				return errors.Join(err, differ("deleted", n, 1))
			},
		}, {
			name: "EnqueueBatch with Then",
			want: inOne(query("message.group_enqueue", "reports", `[["7",60000000,null,0,null,null,null,0]]`).row(5, nil),
				query("message.group_enqueue", "emails", `[["{\"To\":\"ada\"}",0,null,0,null,"{\"pgqrs-batch\":\"5\"}",null,5]]`).row(7, nil)),
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := emails(s).EnqueueBatch(ctx, []email{{"ada"}}, pgqrs.Then(pgqrs.NewQueue[int](s, "reports"), 7, pgqrs.Delay(time.Minute)))
				return err
			},
		}, {
			name: "Ack of a message of a batch", want: inOne(query("message.ack", `[[7,3,9]]`).ids(7), query("batch.try_lock", `[5]`).ids(5),
				query("batch.finish", `[5]`).row(5, "reports")),
			call: func(ctx context.Context, s *pgqrs.Store) error {
				m := held(7, 1)
				m.BatchID = 5
				return emails(s).Ack(ctx, m)
			},
		},
	})
}

// Each of these calls is refused before the database is asked. The mock expects nothing.
func TestBadInputIsRefusedBeforeTheDatabaseIsAsked(t *testing.T) {
	lists := func(f pgqrs.MessageFilter) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error { _, err := s.Messages(ctx, f); return err }
	}
	runs := func(w pgqrs.Worker) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			if w.Handlers == nil {
				w.Handlers = []pgqrs.Handler{emails(s).Handle(ignore)}
			}
			return w.Run(ctx)
		}
	}
	handles := func(handler func(*pgqrs.Store) pgqrs.Handler) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			return runs(pgqrs.Worker{Handlers: []pgqrs.Handler{handler(s)}})(ctx, s)
		}
	}
	enqueues := func(queue string, payload any, opts ...pgqrs.Option) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			_, err := pgqrs.NewQueue[any](s, queue).Enqueue(ctx, payload, opts...)
			return err
		}
	}
	dequeues := func(n int, lease time.Duration) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			_, err := emails(s).Dequeue(ctx, n, lease)
			return err
		}
	}
	for _, test := range []struct {
		text  string // text of the error
		match error
		call  func(context.Context, *pgqrs.Store) error
	}{
		{`enqueue on queue "": empty queue name`, nil, enqueues("", 1)},
		{`has more than 255 characters`, nil, enqueues(strings.Repeat("q", 256), 1)},
		{`enqueue on queue "q": invalid payload: json: unsupported type: chan int`, pgqrs.ErrInvalidPayload, enqueues("q", make(chan int))},
		{`enqueue on queue "q": invalid payload: \u0000 in a string`, pgqrs.ErrInvalidPayload, enqueues("q", "\x00")},
		{`enqueue on queue "q": negative delay -1s`, nil, enqueues("q", 1, pgqrs.Delay(-time.Second))},
		{`enqueue on queue "q": Each outside EnqueueBatch and Children`, nil, enqueues("q", 1, pgqrs.Each(func(int) []pgqrs.Option { return nil }))},
		{`enqueue a batch of 0 on queue "emails": no messages to enqueue`, nil, func(ctx context.Context, s *pgqrs.Store) error {
			_, err := emails(s).EnqueueBatch(ctx, nil)
			return err
		}},
		{`enqueue a batch of 2 on queue "raw": item 1: invalid payload`, pgqrs.ErrInvalidPayload, func(ctx context.Context, s *pgqrs.Store) error {
			_, err := pgqrs.NewQueue[json.RawMessage](s, "raw").EnqueueBatch(ctx, []json.RawMessage{[]byte("1"), []byte("{")})
			return err
		}},
		{`dequeue from queue "emails": asked for 0 messages`, nil, dequeues(0, time.Second)},
		{`dequeue from queue "emails": lease 1µs is shorter than 1 ms`, nil, dequeues(1, time.Microsecond)},
		{`extend on queue "emails": lease 0s is shorter than 1 ms`, nil, func(ctx context.Context, s *pgqrs.Store) error { return emails(s).Extend(ctx, 0, held(7, 1)) }},
		{`release on queue "emails": negative delay -1s`, nil, func(ctx context.Context, s *pgqrs.Store) error {
			return emails(s).Release(ctx, -time.Second, held(7, 1))
		}},
		{`fail on queue "emails": nil cause`, nil, func(ctx context.Context, s *pgqrs.Store) error { return emails(s).Fail(ctx, nil, held(7, 1)) }},
		{`ack on queue "emails": nil message`, nil, func(ctx context.Context, s *pgqrs.Store) error { return emails(s).Ack(ctx, nil) }},
		{`Policy.MaxAttempts is -2`, nil, func(ctx context.Context, s *pgqrs.Store) error {
			_, err := emails(s).With(pgqrs.Policy{MaxAttempts: -2}).Enqueue(ctx, email{})
			return err
		}},
		{`list messages: MessageFilter.Queue is empty`, nil, lists(pgqrs.MessageFilter{State: pgqrs.Dead})},
		{`list messages: state "gone"; use Ready`, nil, lists(pgqrs.MessageFilter{Queue: "q", State: "gone"})},
		{`MessageFilter.Limit 1001 is not between 0 and 1000`, nil, lists(pgqrs.MessageFilter{Queue: "q", State: pgqrs.Dead, Limit: 1001})},
		{`MessageFilter.After "x" is not a Cursor`, nil, lists(pgqrs.MessageFilter{Queue: "q", State: pgqrs.Dead, After: "x"})},
		{`MessageFilter has IDs and other fields`, nil, lists(pgqrs.MessageFilter{IDs: []int64{1}, Queue: "q"})},
		{`pgqrs: run: no handlers`, nil, runs(pgqrs.Worker{Handlers: []pgqrs.Handler{}})},
		{`pgqrs: run: Worker.Concurrency is -1`, nil, runs(pgqrs.Worker{Concurrency: -1})},
		{`pgqrs: run: Worker.Lease 1ms is shorter than 100 ms`, nil, runs(pgqrs.Worker{Lease: time.Millisecond})},
		{`pgqrs: run: Worker.PollInterval is -1s`, nil, runs(pgqrs.Worker{PollInterval: -time.Second})},
		{`pgqrs: run: Worker.Grace is -1s`, nil, runs(pgqrs.Worker{Grace: -time.Second})},
		{`pgqrs: run: worker name "\n" has a control character`, nil, runs(pgqrs.Worker{Name: "\n"})},
		{`pgqrs: run: handler 0 is a zero Handler; make it by Queue.Handle`, nil, runs(pgqrs.Worker{Handlers: make([]pgqrs.Handler, 1)})},
		{`pgqrs: run: handler of queue "emails": nil handler function`, nil, handles(func(s *pgqrs.Store) pgqrs.Handler { return emails(s).Handle(nil) })},
		{`pgqrs: run: handler of queue "emails": not supported`, pgqrs.ErrUnsupported, handles(func(*pgqrs.Store) pgqrs.Handler {
			return emails(pgqrs.New(nil, pgqrs.SQLite)).Handle(ignore)
		})},
		{`pgqrs: run: two handlers for queue "emails"`, nil, func(ctx context.Context, s *pgqrs.Store) error {
			return runs(pgqrs.Worker{Handlers: []pgqrs.Handler{emails(s).Handle(ignore), emails(s).Handle(ignore)}})(ctx, s)
		}},
		{`pgqrs: run: not supported: handlers of two Stores in one Worker`, pgqrs.ErrUnsupported, func(ctx context.Context, s *pgqrs.Store) error {
			other := pgqrs.NewQueue[email](pgqrs.New(s.DB(), s.Dialect()), "other")
			return runs(pgqrs.Worker{Handlers: []pgqrs.Handler{emails(s).Handle(ignore), other.Handle(ignore)}})(ctx, s)
		}},
	} {
		t.Run(test.text, func(t *testing.T) {
			s, _ := newMock(t, pgqrs.SQLite)
			wantRefused(t, test.call(t.Context(), s), test.text, test.match)
		})
	}
}

func ignore(context.Context, *pgqrs.Message[email]) error { return nil }

func TestDequeueAndHandleAreNotForTransactions(t *testing.T) {
	s, mock := newMock(t, pgqrs.Postgres)
	mock.ExpectBegin()
	mock.ExpectRollback()
	tx, err := s.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	q := emails(s).WithTx(tx)
	_, dequeue := q.Dequeue(t.Context(), 1, time.Second)
	wantRefused(t, dequeue, "Dequeue in a caller's transaction", pgqrs.ErrUnsupported)
	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{q.Handle(ignore)}}
	wantRefused(t, worker.Run(t.Context()), "Handle in a caller's transaction", pgqrs.ErrUnsupported)
	wantRefused(t, s.WithTx(tx).Install(t.Context()), "Install in a caller's transaction", pgqrs.ErrUnsupported)
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
}
