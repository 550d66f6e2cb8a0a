package plan_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// groupOperations are the tags that operateGroups must send.
var groupOperations = strings.Fields(`
	group.lock message.group_enqueue group.try_lock group.park group.refund group.promote group.pace group.of group.redrive group.sweep group.prune
	batch.try_lock batch.finish batch.sweep message.list_blocked message.claim message.ack worker.poll queue.depth`)

// The numbers of messages in one group, of other groups of five messages, and of ended messages in
// a batch.
var (
	fewInGroups  = []any{2000, 500, 2000}
	manyInGroups = []any{300_000, 20_000, 100_000}
)

// fillGroups adds the messages after the rows of their groups. The queue has one message in
// progress in each group, and a batch callback. Series of numbers, times and the end of time are
// written as in the dialect.
func fillGroups(d pgqrs.Dialect, n []any) []string {
	headers := `json_build_object('pgqrs-group', 'g' || i)`
	now, ever, series := "now()", "timestamptz '9999-12-31 23:59:59.999+00'", "generate_series(1, %d) AS s (i)"
	if d == pgqrs.SQLite {
		headers = `json_object('pgqrs-group', 'g' || i)`
		now, ever = "strftime('%Y-%m-%d %H:%M:%f', 'now')", "'9999-12-31 23:59:59.999'"
		series = "(WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < %d) SELECT i FROM s) s"
	}
	const into = `INSERT INTO pgqrs_messages (queue_id, payload, vt, parked_vt, archived_at, group_key, batch_id, headers) SELECT q.id, '1', `
	from := ` FROM pgqrs_queues q CROSS JOIN ` + series
	fill := func(columns, series, where string, n any) string {
		return strings.NewReplacer("EVER", ever, "NOW", now, "HEADERS", headers).Replace(into+columns) + fmt.Sprintf(series, n) + " WHERE q.queue_name = 'lines'" + where
	}
	return []string{
		fill("EVER, NOW, NULL, 'bulk', NULL, NULL", from, "", n[0]),
		fill("NOW, NULL, NULL, 'g' || i, NULL, HEADERS", from, " AND NOT EXISTS (SELECT 1 FROM pgqrs_groups g WHERE g.group_key = 'g' || i)", n[1]),
		fill("EVER, NOW, NULL, 'g' || i, NULL, HEADERS", from+" CROSS JOIN (VALUES (1), (2), (3), (4)) four", "", n[1]),
		strings.ReplaceAll("INSERT INTO pgqrs_groups (queue_id, group_key, touched_at) SELECT q.id, 'g' || i, NOW", "NOW", now) + fmt.Sprintf(from, n[1]) +
			" WHERE q.queue_name = 'lines' ON CONFLICT DO NOTHING",
		fill("NOW, NULL, NOW, NULL, (SELECT max(batch_id) FROM pgqrs_messages), NULL", from, "", n[2]),
	}
}

// planGroups watches the statements of groups and batches, on a few messages and then on many. It
// does so in several situations, each of which has a name and a statement that prepares it.
func planGroups(t *testing.T, w *watcher, db *sql.DB, d pgqrs.Dialect, situations [][2]string, say func(when string)) {
	t.Helper()
	exec := func(text string) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), text)
		must(t, err)
	}
	s := pgqrs.Config{NoPrepare: true}.New(db, d)
	q := pgqrs.NewQueue[int](s, "lines")
	must(t, q.Configure(t.Context())) // creates the queue
	fill := func(n []any) {
		for _, text := range fillGroups(d, n) {
			exec(text)
		}
	}
	fill(fewInGroups)
	value(q.EnqueueBatch(t.Context(), []int{1}, pgqrs.Delay(1000*time.Hour), pgqrs.Then(pgqrs.NewQueue[int](s, "reports"), 1)))(t)
	value(q.Enqueue(t.Context(), 1, pgqrs.Group("bulk")))(t)
	operateGroups(t, w, s, q)
	fill(manyInGroups)
	for _, situation := range situations {
		if situation[1] != "" {
			exec(situation[1])
		}
		say(situation[0])
		operateGroups(t, w, s, q)
	}
}

func operateGroups(t *testing.T, w *watcher, s *pgqrs.Store, q *pgqrs.Queue[int]) {
	t.Helper()
	w.reset()
	ctx := t.Context()
	for _, p := range []pgqrs.Policy{{}, {GroupConcurrency: 3, GroupRate: pgqrs.Rate{N: 1000, Per: time.Second}, SkipFailed: true}} {
		q := q.With(p)
		must(t, q.Configure(ctx))
		value(q.Enqueue(ctx, 1, pgqrs.Group("bulk")))(t)
		value(q.EnqueueBatch(ctx, make([]int, 20), pgqrs.Each(func(i int) []pgqrs.Option { return []pgqrs.Option{pgqrs.Group(fmt.Sprint("g", i))} })))(t)
		ms := value(q.Dequeue(ctx, 10, time.Minute))(t)
		if len(ms) != 10 {
			t.Fatalf("dequeued %d messages; want 10", len(ms))
		}
		must(t, q.Ack(ctx, ms[:4]...))
		must(t, q.Fail(ctx, errors.New("x"), ms[4:6]...))
		must(t, q.Fail(ctx, pgqrs.Permanent(errors.New("x")), ms[6:8]...))
		value(s.Delete(ctx, ms[8].ID, ms[9].ID))(t)
		value(s.Redrive(ctx, ms[6].ID, ms[7].ID))(t)
	}
	f := pgqrs.MessageFilter{Queue: "lines", State: pgqrs.Blocked, Limit: 50}
	for range 2 {
		page := value(s.Messages(ctx, f))(t)
		f.After = page[len(page)-1].Cursor
	}
	value(s.Depths(ctx, "lines"))(t)
	// A message of the batch ends, and there is always another.
	batch := value(s.Messages(ctx, pgqrs.MessageFilter{Queue: "reports", State: pgqrs.Blocked}))(t)[0].ID
	id := value(q.Enqueue(ctx, 1))(t)
	_, err := s.DB().ExecContext(ctx, fmt.Sprintf("UPDATE pgqrs_messages SET batch_id = %d WHERE id = %d", batch, id))
	must(t, err)
	value(s.Delete(ctx, id))(t)

	limited, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	h := pgqrs.NewQueue[int](s, "reports").Handle(func(context.Context, *pgqrs.Message[int]) error { return nil })
	idle := pgqrs.NewQueue[int](s, "lines").Handle(func(context.Context, *pgqrs.Message[int]) error { return nil })
	must(t, s.PauseQueue(ctx, "lines"))
	done := make(chan error, 1)
	go func() { done <- (&pgqrs.Worker{Handlers: []pgqrs.Handler{h, idle}}).Run(limited) }()
	left := func() (tags []string) {
		for _, tag := range groupOperations {
			if !w.has(tag) {
				tags = append(tags, tag)
			}
		}
		return tags
	}
	await(limited, func() bool { return len(left()) == 0 })
	stop()
	must(t, <-done)
	must(t, s.ResumeQueue(ctx, "lines"))
	if tags := left(); len(tags) > 0 {
		t.Fatalf("statements that were not sent: %v", tags)
	}
}
