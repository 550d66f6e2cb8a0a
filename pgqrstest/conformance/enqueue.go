package conformance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var enqueueCases = []testcase{
	{"a message comes back as it was enqueued", "this is what a queue is for", func(t *testing.T, e *env) {
		q := pgqrs.NewQueue[string](e.store, "greetings")
		id := enqueue(t, q, "hello <world> & all")
		m := dequeueOne(t, q)
		equal(t, "id", m.ID, id)
		equal(t, "payload", m.Payload, "hello <world> & all")
		equal(t, "attempt", m.Attempt, 1)
		must(t, q.Ack(t.Context(), m))
		equal(t, "state", e.info(t, id).State, pgqrs.Archived)
	}},
	{"a batch of one is a batch", "a caller that enqueues what it found would fail whenever it found one thing", func(t *testing.T, e *env) {
		q := jobs(e)
		ids := value(q.EnqueueBatch(t.Context(), []string{"only"}))(t)
		m := dequeueOne(t, q)
		equalSlices(t, "ids", ids, []int64{m.ID})
		equal(t, "payload", m.Payload, "only")
	}},
	{"a batch of 5,000 is stored by one call, with ids in the order of its payloads", "an import would break at some size, or match ids to the wrong payloads", func(t *testing.T, e *env) {
		largeBatch(t, e, func(i int) int { return i })
		largeBatch(t, e, func(i int) struct{ N int } { return struct{ N int }{i} })
	}},
	{"an empty batch is an error and makes no queue", "a caller that lost its messages would think they were stored", func(t *testing.T, e *env) {
		ids, err := jobs(e).EnqueueBatch(t.Context(), nil)
		wantErrorText(t, err, "jobs")
		equal(t, "number of ids", len(ids), 0)
		e.wantEmpty(t)
	}},
	{"a batch is stored as a whole or not at all", "after an error a caller could not tell what to send again", func(t *testing.T, e *env) {
		q := pgqrs.NewQueue[any](e.store, "jobs")
		_, err := q.EnqueueBatch(t.Context(), []any{"good", make(chan int), "good"})
		wantError(t, err, pgqrs.ErrInvalidPayload)
		wantErrorText(t, err, "item 1")
		e.wantEmpty(t)
	}},
	{"a delayed message is not delivered before its time", "reminders would come at once", func(t *testing.T, e *env) {
		q := jobs(e)
		id := enqueue(t, q, "later", pgqrs.Delay(time.Hour))
		equal(t, "state", e.info(t, id).State, pgqrs.Scheduled)
		pgqrstest.Advance(t, e.store, 59*time.Minute)
		wantNone(t, q)
		pgqrstest.Advance(t, e.store, time.Minute)
		equal(t, "id", dequeueOne(t, q).ID, id)
	}},
	{"a delay of zero is now", "a computed delay that comes out as zero would fail", func(t *testing.T, e *env) {
		q := jobs(e)
		enqueue(t, q, "now", pgqrs.Delay(0))
		dequeueOne(t, q)
	}},
	{"a time in the future is kept to the millisecond", "an appointment would shift", func(t *testing.T, e *env) {
		q := jobs(e)
		for _, at := range []time.Time{
			time.Now().Add(36 * time.Hour),
			time.Now().Add(36 * time.Hour).In(time.FixedZone("east", 5*60*60+30*60)),
			time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		} {
			info := e.info(t, enqueue(t, q, "then", pgqrs.At(at)))
			equal(t, "state", info.State, pgqrs.Scheduled)
			if info.DueAt.Sub(at).Abs() > time.Millisecond {
				t.Errorf("due at %v; want %v", info.DueAt, at)
			}
		}
		wantNone(t, q)
		pgqrstest.Advance(t, e.store, 37*time.Hour)
		equal(t, "number due", len(dequeue(t, q, 10)), 2)
	}},
	{"a time that has passed is now", "overdue work would be lost, or jump the line", func(t *testing.T, e *env) {
		q := jobs(e)
		first := enqueue(t, q, "first")
		var ids []int64
		for _, at := range []time.Time{time.Now().Add(-time.Hour), {}, time.Unix(0, 0), time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-10000, 1, 1, 0, 0, 0, 0, time.UTC)} {
			ids = append(ids, enqueue(t, q, "overdue", pgqrs.At(at)))
		}
		equalSlices(t, "delivered", idsOf(dequeue(t, q, 10)), append([]int64{first}, ids...))
	}},
	{"an option that makes no sense is an error that names it, and nothing is stored", "a bug would surface as a message that never comes", badOptions},
	{"headers come back as they were given", "trace contexts would break", func(t *testing.T, e *env) {
		q := jobs(e)
		want := map[string]string{"traceparent": "00-ab-cd-01", "date": "2026-11-22", "emoji 😀": "<&>", "empty": ""}
		id := enqueue(t, q, "x", pgqrs.Headers(map[string]string{"traceparent": "overruled"}), pgqrs.Headers(want))
		if got := dequeueOne(t, q).Headers; !maps.Equal(got, want) {
			t.Errorf("headers are %v; want %v", got, want)
		}
		if got := e.info(t, id).Headers; !maps.Equal(got, want) {
			t.Errorf("listed headers are %v; want %v", got, want)
		}
	}},
	{"Config.Headers adds to the option's headers, which win", "a trace could not follow every message, or would overwrite what the caller said", func(t *testing.T, e *env) {
		type tenant struct{}
		s := e.newStore(t, pgqrs.Config{Headers: func(ctx context.Context) map[string]string {
			return map[string]string{"tenant": ctx.Value(tenant{}).(string), "trace": "1"}
		}})
		q := pgqrs.NewQueue[string](s, "jobs")
		ctx := context.WithValue(t.Context(), tenant{}, "acme")
		value(q.EnqueueBatch(ctx, []string{"plain", "own"}, pgqrs.Each(func(i int) []pgqrs.Option {
			return []pgqrs.Option{pgqrs.Headers(map[string]string{"trace": "2", fmt.Sprint("item", i): "own"})}
		})))(t)
		for i, m := range dequeue(t, q, 10) {
			if want := map[string]string{"tenant": "acme", "trace": "2", fmt.Sprint("item", i): "own"}; !maps.Equal(m.Headers, want) {
				t.Errorf("headers of item %d are %v; want %v", i, m.Headers, want)
			}
		}
	}},
	{"headers that not every dialect can hold are refused", "the message would be accepted in tests on SQLite and fail on PostgreSQL", func(t *testing.T, e *env) {
		for what, h := range map[string]map[string]string{
			"NUL":           {"a": "\x00"},
			"NUL in a name": {"\x00": "a"},
			"invalid UTF-8": {"a": "\xff"},
			"over 64 KiB":   {"a": strings.Repeat("x", 64<<10)},
		} {
			if _, err := jobs(e).Enqueue(t.Context(), "x", pgqrs.Headers(h)); !errors.Is(err, pgqrs.ErrInvalidPayload) {
				t.Errorf("%s: error is %v", what, err)
			}
		}
		e.wantEmpty(t)
	}},
	{"Each gives every message of a batch its own options, on top of the batch's", "mixed work would need a call for each message", func(t *testing.T, e *env) {
		q := jobs(e)
		ids := value(q.EnqueueBatch(t.Context(), []string{"a", "b", "c"}, pgqrs.Priority(-1), pgqrs.Each(func(i int) []pgqrs.Option {
			return [][]pgqrs.Option{nil, {pgqrs.Priority(2), pgqrs.Key("kb")}, {pgqrs.Delay(time.Minute)}}[i]
		})))(t)
		var got []string
		for _, id := range ids {
			m := e.info(t, id)
			got = append(got, fmt.Sprint(m.Priority, m.Key, m.State))
		}
		equalSlices(t, "priority, key and state", got, []string{"-1ready", "2kbready", "-1scheduled"})
	}},
	{"Each outside a batch is an error", "an index that means nothing would be used", func(t *testing.T, e *env) {
		each := pgqrs.Each(func(int) []pgqrs.Option { return nil })
		if _, err := jobs(e).Enqueue(t.Context(), "x", each); err == nil {
			t.Error("Enqueue took it")
		}
		nested := pgqrs.Each(func(int) []pgqrs.Option { return []pgqrs.Option{each} })
		if _, err := jobs(e).EnqueueBatch(t.Context(), []string{"x"}, nested); err == nil {
			t.Error("Each took it")
		}
		e.wantEmpty(t)
	}},
	{"many callers may make the same new queue at once", "the first requests after a deployment would fail", func(t *testing.T, e *env) {
		const n = 8
		together(t, n, func(i int) error {
			q := pgqrs.NewQueue[int](e.store, "new")
			var err error
			if i%2 == 0 {
				_, err = q.Enqueue(t.Context(), i)
			} else {
				_, err = q.EnqueueBatch(t.Context(), []int{i, i})
			}
			return err
		})
		equal(t, "number of queues", len(value(e.store.Queues(t.Context()))(t)), 1)
		equal(t, "ready messages", e.stats(t, "new").Ready, n+n/2)
	}},
	{"Observer.Enqueued is told what was stored, and only that", "a counter of enqueued messages would drift", func(t *testing.T, e *env) {
		var told []string
		s := e.newStore(t, pgqrs.Config{Observer: &pgqrs.Observer{Enqueued: func(_ context.Context, queue string, ids []int64) {
			told = append(told, fmt.Sprint(queue, ids))
		}}})
		q := pgqrs.NewQueue[string](s, "jobs")
		a := enqueue(t, q, "a", pgqrs.Key("k"))
		enqueue(t, q, "again", pgqrs.Key("k"))
		bc := value(q.EnqueueBatch(t.Context(), []string{"b", "again", "c"}, pgqrs.Each(func(i int) []pgqrs.Option {
			return [][]pgqrs.Option{nil, {pgqrs.Key("k")}, nil}[i]
		})))(t)
		equalSlices(t, "told", told, []string{fmt.Sprint("jobs", []int64{a}), fmt.Sprint("jobs", []int64{bc[0], bc[2]})})
	}},
}

func badOptions(t *testing.T, e *env) {
	for _, c := range []struct {
		opts []pgqrs.Option
		text string
	}{
		{[]pgqrs.Option{pgqrs.Delay(-time.Nanosecond)}, "negative delay -1ns"},
		{[]pgqrs.Option{pgqrs.At(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))}, "10000"},
		{[]pgqrs.Option{pgqrs.At(time.Date(9999, 12, 31, 23, 30, 0, 0, time.FixedZone("west", -60*60)))}, "9999"},
		{[]pgqrs.Option{pgqrs.Delay(time.Second), pgqrs.At(time.Now())}, "both Delay and At"},
		{[]pgqrs.Option{pgqrs.Priority(3)}, "priority 3"},
		{[]pgqrs.Option{pgqrs.Priority(-2)}, "priority -2"},
		{[]pgqrs.Option{pgqrs.Key("")}, "empty key"},
		{[]pgqrs.Option{pgqrs.Unique("")}, "empty key"},
		{[]pgqrs.Option{pgqrs.Key("a\x00b")}, "control character"},
		{[]pgqrs.Option{pgqrs.Key("a\xffb")}, "UTF-8"},
		{[]pgqrs.Option{pgqrs.Key(strings.Repeat("k", 256))}, "255"},
	} {
		_, err := jobs(e).Enqueue(t.Context(), "x", c.opts...)
		wantErrorText(t, err, c.text)
		_, err = jobs(e).EnqueueBatch(t.Context(), []string{"x", "y"}, pgqrs.Each(func(i int) []pgqrs.Option { return c.opts[:i*len(c.opts)] }))
		wantErrorText(t, err, c.text)
		wantErrorText(t, err, "item 1")
	}
	e.wantEmpty(t)
}

// jobs returns the queue that most cases use.
func jobs(e *env) *pgqrs.Queue[string] { return pgqrs.NewQueue[string](e.store, "jobs") }

// idsOf returns the messages' ids.
func idsOf[T any](ms []*pgqrs.Message[T]) []int64 {
	list := make([]int64, len(ms))
	for i, m := range ms {
		list[i] = m.ID
	}
	return list
}

// wantNone fails the test if the queue has a message to deliver.
func wantNone[T any](t *testing.T, q *pgqrs.Queue[T]) {
	t.Helper()
	if ms := dequeue(t, q, 10); len(ms) > 0 {
		t.Fatalf("dequeued messages %v; want none", idsOf(ms))
	}
}

// wantErrorText fails the test unless there is an error with the text.
func wantErrorText(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("error is %v; want one that says %q", err, text)
	}
}

// wantEmpty fails the test if anything was written. A message that was stored and then removed
// would have left its queue.
func (e *env) wantEmpty(t *testing.T) {
	t.Helper()
	equal(t, "number of queues", len(value(e.store.Queues(t.Context()))(t)), 0)
	equal(t, "number of workers", len(value(e.store.Workers(t.Context()))(t)), 0)
}

// together runs fn n times at once and fails the test if one returns an error.
func together(t *testing.T, n int, fn func(i int) error) {
	t.Helper()
	errs := make([]error, n)
	var ready, done sync.WaitGroup
	ready.Add(n)
	for i := range n {
		done.Add(1)
		go func() {
			defer done.Done()
			ready.Done()
			ready.Wait()
			errs[i] = fn(i)
		}()
	}
	done.Wait()
	must(t, errors.Join(errs...))
}

// largeBatch enqueues 5,000 payloads by one call, and dequeues them.
func largeBatch[T comparable](t *testing.T, e *env, payload func(i int) T) {
	t.Helper()
	q := pgqrs.NewQueue[T](e.store, fmt.Sprintf("import of %T", payload(0)))
	want := make([]T, 5000)
	for i := range want {
		want[i] = payload(i)
	}
	ids := value(q.EnqueueBatch(t.Context(), want))(t)
	equal(t, "number of ids", len(ids), len(want))
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Fatal("ids do not ascend")
	}
	ms := dequeue(t, q, len(want))
	equalSlices(t, "payloads", payloads(ms), want)
	equalSlices(t, "ids as delivered", idsOf(ms), ids)
}
