package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// States of rows in the queue besides the messages that are claimed.
const (
	nothing   = ""
	archived  = "archived"
	scheduled = "scheduled"
	ready     = "ready"
)

// claims is the number of messages that a round of behind claims and acks by hand. After that it
// drains spec.Backlog messages.
const claims = 10_000

// beside measures claims by hand and a drain on a queue with many more rows in another state.
func beside(e *engine, state string, rows int) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		l, err := e.openLibrary(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := l.queue.Enqueue(ctx, measure.NewJob(1)); err != nil { // creates the queue
			return nil, err
		}
		if err := l.claimAll(ctx, 1); err != nil {
			return nil, err
		}
		if state != nothing {
			if err := l.stuff(ctx, state, rows); err != nil {
				return nil, err
			}
		}
		round := func(ctx context.Context) (measure.Sample, error) { return l.besideRound(ctx, spec) }
		return &measure.Session{Round: round, Close: l.close}, nil
	}
}

func (l *library) besideRound(ctx context.Context, spec measure.Spec) (measure.Sample, error) {
	before, err := l.archived(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.fill(ctx, claims+spec.Backlog); err != nil {
		return nil, err
	}
	claim, err := measure.Timed(ctx, func() (int, error) { return claims, l.claimAll(ctx, claims) })
	if err != nil {
		return nil, err
	}
	sample, err := l.work(ctx, spec, spec.Backlog)
	if err != nil {
		return nil, err
	}
	after, err := l.archived(ctx)
	if want := claims + int(sample[measure.Done]); err == nil && after-before != want {
		err = fmt.Errorf("%d messages were counted as done, and %d are archived", want, after-before)
	}
	return measure.Sample{"claim": claim[measure.Rate], "drain": sample[measure.Rate]}, err
}

// claimAll dequeues and acks n messages, a hundred at a time.
func (l *library) claimAll(ctx context.Context, n int) error {
	for left := n; left > 0; {
		ms, err := l.queue.Dequeue(ctx, min(left, 100), 30*time.Second)
		if err != nil {
			return err
		}
		if len(ms) == 0 {
			return fmt.Errorf("the queue is empty with %d of %d messages to come", left, n)
		}
		if err := l.queue.Ack(ctx, ms...); err != nil {
			return err
		}
		left -= len(ms)
	}
	return nil
}

// stuff adds rows in a state to the queue, by SQL. Ready rows became due an hour ago, so that
// messages that are enqueued later come after them.
func (l *library) stuff(ctx context.Context, state string, n int) error {
	texts := stuffSQLite
	if l.engine.postgres() {
		texts = stuffPostgres
	}
	result, err := l.ExecContext(ctx, texts[state], measure.NewJob(1e15).Text(), n)
	if err != nil {
		return fmt.Errorf("make %d %s rows: %w", n, state, err)
	}
	made, err := result.RowsAffected()
	if err == nil && int(made) != n {
		err = fmt.Errorf("made %d of %d %s rows", made, n, state)
	}
	return errors.Join(err, l.settle(ctx))
}

var stuffPostgres = map[string]string{
	archived: `INSERT INTO pgqrs_messages (queue_id, payload, vt, enqueued_at, read_ct, claim_ct, dequeued_at, archived_at, consumer_worker_id)
		SELECT (SELECT id FROM pgqrs_queues), $1::jsonb, now() - interval '1 hour', now() - interval '1 hour', 1, 1, now() - interval '1 hour', now() - interval '1 hour' + n * interval '1 millisecond', 1
		FROM generate_series(1, $2::int) AS n`,
	scheduled: `INSERT INTO pgqrs_messages (queue_id, payload, vt, enqueued_at, read_ct)
		SELECT (SELECT id FROM pgqrs_queues), $1::jsonb, now() + interval '1 day' + n * interval '1 millisecond', now(), 0
		FROM generate_series(1, $2::int) AS n`,
	ready: `INSERT INTO pgqrs_messages (queue_id, payload, vt, enqueued_at, read_ct)
		SELECT (SELECT id FROM pgqrs_queues), $1::jsonb, now() - interval '1 hour' + n * interval '1 millisecond', now(), 0
		FROM generate_series(1, $2::int) AS n`,
}

const stuffNumbers = `WITH RECURSIVE arg (payload, n) AS (VALUES (?, ?)), number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < (SELECT n FROM arg))
	INSERT INTO pgqrs_messages `

var stuffSQLite = map[string]string{
	archived: stuffNumbers + `(queue_id, payload, vt, enqueued_at, read_ct, claim_ct, dequeued_at, archived_at, consumer_worker_id)
		SELECT (SELECT id FROM pgqrs_queues), (SELECT payload FROM arg), h.t, h.t, 1, 1, h.t, strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 hour', (n / 1000.0) || ' seconds'), 1
		FROM number CROSS JOIN (SELECT strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 hour') AS t) h`,
	scheduled: stuffNumbers + `(queue_id, payload, vt, enqueued_at, read_ct)
		SELECT (SELECT id FROM pgqrs_queues), (SELECT payload FROM arg), strftime('%Y-%m-%d %H:%M:%f', 'now', '1 day', (n / 1000.0) || ' seconds'), ` + sqliteNow + `, 0 FROM number`,
	ready: stuffNumbers + `(queue_id, payload, vt, enqueued_at, read_ct)
		SELECT (SELECT id FROM pgqrs_queues), (SELECT payload FROM arg), strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 hour', (n / 1000.0) || ' seconds'), ` + sqliteNow + `, 0 FROM number`,
}
