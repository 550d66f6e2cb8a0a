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

// held is a message as a claim would have returned it.
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

// differ is an error if two values are not the same.
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

// dequeuing returns a call that dequeues up to 10 emails for half a minute, and wants so many.
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

// delivery is a row of a claim: id, payload, priority, attempt, claim number, key, headers, last error and three times.
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

// deadLetter matches the argument of message.fail that makes message id a dead letter, by how its error begins.
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
