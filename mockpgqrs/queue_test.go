package mockpgqrs

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/pgqrs/pgqrs-go"
)

const ada = `{"To":"ada"}`

// enqueue returns a call that enqueues an email as message 7, with an error matching want.
func enqueue(want error, opts ...pgqrs.Option) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error {
		id, err := emails(s).Enqueue(ctx, email{"ada"}, opts...)
		return errors.Join(match(err, want), differ("id", id, 7))
	}
}

// enqueueBatch returns a call that enqueues three numbers, or an email for each, as messages 7 to
// 9.
func enqueueBatch[T any](payloads []T, opts ...pgqrs.Option) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error {
		ids, err := pgqrs.NewQueue[T](s, "emails").EnqueueBatch(ctx, payloads, opts...)
		return errors.Join(err, differ("ids", ids, []int64{7, 8, 9}[:len(payloads)]))
	}
}

// keyed gives the messages of a batch keys.
var keyed = pgqrs.Each(func(i int) []pgqrs.Option { return []pgqrs.Option{pgqrs.Key(strconv.Itoa(i))} })

// dequeue returns a call that dequeues messages, and compares them.
func dequeue(want ...pgqrs.MessageInfo) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error {
		ms, err := emails(s).Dequeue(ctx, 10, time.Minute)
		errs := []error{err, differ("number of messages", len(ms), len(want))}
		for i, m := range ms {
			w := want[i]
			w.Queue, w.State, w.WorkerID, w.PayloadSize = "emails", pgqrs.Leased, 1, int64(len(w.Raw))
			errs = append(errs, differ("message", public(m.MessageInfo), public(w)), differ("payload", m.Payload, email{"ada"}))
		}
		return errors.Join(errs...)
	}
}

// public returns the exported fields of a message.
func public(m pgqrs.MessageInfo) string { return string(marshal(m)) }

// The message has a value in each field that a mock returns.
var full = pgqrs.MessageInfo{
	ID: 7, Raw: []byte(ada), Priority: 2, Attempt: 3, Claim: 4, Key: "k", Headers: map[string]string{"a": "b"}, LastError: "bounced",
	EnqueuedAt: noon, DueAt: noon.Add(time.Second), LeasedUntil: noon.Add(time.Minute),
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// settle returns a call on two messages, with an error matching want.
func settle(want error, do func(ctx context.Context, q *pgqrs.Queue[email], ms ...*pgqrs.Message[email]) error) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error {
		m := func(id int64) *pgqrs.Message[email] {
			return &pgqrs.Message[email]{MessageInfo: Message(id, email{"ada"})}
		}
		return match(do(ctx, emails(s), m(7), m(8)), want)
	}
}

func ack(ctx context.Context, q *pgqrs.Queue[email], ms ...*pgqrs.Message[email]) error {
	return q.Ack(ctx, ms...)
}

var errBounced = errors.New("bounced")

var queueOperations = []operation{
	{
		name: "Enqueue", call: enqueue(nil),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectEnqueue(mock, d, 7) },
	}, {
		name: "Enqueue with arguments", call: enqueue(nil, pgqrs.Delay(time.Second), pgqrs.Key("k")),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) {
			ExpectEnqueue(mock, d, 7).WithArgs("emails", ada, 1_000_000, nil, 0, "k", nil)
		},
	}, {
		name: "Enqueue of a key that is taken", call: enqueue(nil, pgqrs.Key("k")),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectEnqueueDuplicate(mock, d, "k", 7) },
	}, {
		name: "Enqueue of a unique key that is taken", call: enqueue(pgqrs.ErrDuplicate, pgqrs.Unique("k")),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectEnqueueDuplicate(mock, d, "k", 7) },
	}, {
		name: "Enqueue with a Group", call: enqueue(nil, pgqrs.Group("a")),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectEnqueueGroup(mock, d, 7) },
	}, {
		name: "EnqueueBatch with a Group", call: enqueueBatch([]int{1, 2, 3}, pgqrs.Group("a")),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectEnqueueGroup(mock, d, 7, 8, 9) },
	}, {
		name: "EnqueueBatch", call: enqueueBatch([]email{{"ada"}, {"bob"}, {"eve"}}),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectEnqueueBatch(mock, d, 7, 8, 9) },
	}, {
		name: "EnqueueBatch of one", call: enqueueBatch([]email{{"ada"}}),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectEnqueueBatch(mock, d, 7) },
	}, {
		name: "EnqueueBatch with an option", call: enqueueBatch([]email{{"ada"}, {"bob"}}, pgqrs.Priority(1)),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectEnqueueBatchOptions(mock, d, nil, 7, 8) },
	}, {
		name: "EnqueueBatch with keys", call: enqueueBatch([]email{{"ada"}, {"bob"}}, keyed),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) {
			ExpectEnqueueBatchOptions(mock, d, []string{"0", "1"}, 7, 8)
		},
	}, {
		name: "EnqueueBatch of one with a key", call: enqueueBatch([]email{{"ada"}}, keyed),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectEnqueueBatchOptions(mock, d, []string{"0"}, 7) },
	}, {
		name: "EnqueueBatch of numbers", call: enqueueBatch([]int{1, 2, 3}),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectEnqueueBatchOptions(mock, d, nil, 7, 8, 9) },
	}, {
		name: "first Dequeue", call: dequeue(full, Message(8, email{"ada"})), noTx: true, once: true,
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) {
			ExpectFirstDequeue(mock, d, Message(8, email{"ada"}), full)
		},
	}, {
		name: "first Dequeue of nothing", call: dequeue(), noTx: true, once: true,
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectFirstDequeue(mock, d) },
	}, {
		name: "later Dequeues, and Acks", noTx: true, once: true,
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) {
			ExpectFirstDequeue(mock, d)
			ExpectDequeue(mock, d)
			ExpectDequeue(mock, d, full)
			ExpectAck(mock, d, 7).WithArgs(`[[7,1,4]]`)
		},
		call: func(ctx context.Context, s *pgqrs.Store) error {
			for range 2 {
				if err := dequeue()(ctx, s); err != nil {
					return err
				}
			}
			ms, err := emails(s).Dequeue(ctx, 10, time.Minute)
			if err != nil {
				return err
			}
			return emails(s).Ack(ctx, ms...)
		},
	}, {
		name: "Ack", call: settle(nil, ack),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectAck(mock, d, 7, 8) },
	}, {
		name: "Ack after a lease was lost", call: settle(pgqrs.ErrLeaseLost, ack),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectAck(mock, d, 7) },
	}, {
		name: "Ack after all leases were lost", call: settle(pgqrs.ErrLeaseLost, ack),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectAck(mock, d) },
	}, {
		name: "Fail", expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectFail(mock, d, 7, 8) },
		call: settle(nil, func(ctx context.Context, q *pgqrs.Queue[email], ms ...*pgqrs.Message[email]) error {
			return q.Fail(ctx, errBounced, ms...)
		}),
	}, {
		name: "Fail for good", expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectFail(mock, d, 7, 8) },
		call: settle(nil, func(ctx context.Context, q *pgqrs.Queue[email], ms ...*pgqrs.Message[email]) error {
			return q.Fail(ctx, pgqrs.Permanent(errBounced), ms...)
		}),
	}, {
		name: "Fail with a Snooze", expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectRelease(mock, d, 7, 8) },
		call: settle(nil, func(ctx context.Context, q *pgqrs.Queue[email], ms ...*pgqrs.Message[email]) error {
			return q.Fail(ctx, pgqrs.Snooze(time.Minute), ms...)
		}),
	}, {
		name: "Release", expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectRelease(mock, d, 7, 8) },
		call: settle(nil, func(ctx context.Context, q *pgqrs.Queue[email], ms ...*pgqrs.Message[email]) error {
			return q.Release(ctx, time.Minute, ms...)
		}),
	}, {
		name: "Extend", expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectExtend(mock, d, 7, 8) },
		call: settle(nil, func(ctx context.Context, q *pgqrs.Queue[email], ms ...*pgqrs.Message[email]) error {
			return q.Extend(ctx, time.Minute, ms...)
		}),
	}, {
		name: "Extend of a message with a Group", expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectExtend(mock, d, 7, 8) },
		call: settle(nil, func(ctx context.Context, q *pgqrs.Queue[email], ms ...*pgqrs.Message[email]) error {
			ms[0].Queue, ms[0].Group = "emails", "a"
			return q.Extend(ctx, time.Minute, ms...)
		}),
	},
}
