package pgqrs_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// inGroup is a message of the group ada as a claim would have returned it.
func inGroup(id int64) *pgqrs.Message[email] {
	m := held(id, 1)
	m.Queue, m.Group = "emails", "ada"
	return m
}

// lets are the statements by which a group of one at a time lets the message 8 go.
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
				return errors.Join(emails(s).Ack(ctx, inGroup(7)), s.Close()) // it is not looked at again here
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
