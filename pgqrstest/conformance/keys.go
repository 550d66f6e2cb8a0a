package conformance

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var keyCases = []testcase{
	{"a key stores one unfinished message and gives every caller its id", "a client that repeats its request would be charged twice", func(t *testing.T, e *env) {
		q := jobs(e)
		first := enqueue(t, q, "first", pgqrs.Key("order:42"))
		equal(t, "id of the repetition", enqueue(t, q, "second", pgqrs.Key("order:42")), first)
		other := enqueue(t, q, "other", pgqrs.Key("order:43"))
		elsewhere := enqueue(t, pgqrs.NewQueue[string](e.store, "elsewhere"), "x", pgqrs.Key("order:42"))
		if other == first || elsewhere == first {
			t.Error("another key, or another queue, shares the message")
		}
		m := dequeue(t, q, 10)[0]
		equal(t, "payload", m.Payload, "first")
		equal(t, "key", m.Key, "order:42")
		equal(t, "id while it is leased", enqueue(t, q, "third", pgqrs.Key("order:42")), first)
	}},
	{"a key is free again once its message is acked, deleted or dead", "an order could be placed once in a lifetime", func(t *testing.T, e *env) {
		q := jobs(e)
		for what, end := range map[string]func(*pgqrs.Message[string]) error{
			"ack":    func(m *pgqrs.Message[string]) error { return q.Ack(t.Context(), m) },
			"delete": func(m *pgqrs.Message[string]) error { return q.Delete(t.Context(), m) },
			"death": func(m *pgqrs.Message[string]) error {
				return q.Fail(t.Context(), pgqrs.Permanent(errTest), m)
			},
			"Store.Delete": func(m *pgqrs.Message[string]) error { _, err := e.store.Delete(t.Context(), m.ID); return err },
		} {
			first := enqueue(t, q, "x", pgqrs.Key("k"))
			must(t, end(dequeueOne(t, q)))
			if enqueue(t, q, "x", pgqrs.Key("k")) == first {
				t.Errorf("%s did not free the key", what)
			}
			must(t, q.Ack(t.Context(), dequeueOne(t, q)))
		}
	}},
	{"a key belongs to its unfinished message, whatever ended with the same key", "a caller would be given the id of a job that is over", func(t *testing.T, e *env) {
		q := jobs(e)
		first := enqueue(t, q, "x", pgqrs.Key("k"))
		must(t, q.Ack(t.Context(), dequeueOne(t, q)))
		enqueue(t, q, "x", pgqrs.Key("k"))
		must(t, q.Ack(t.Context(), dequeueOne(t, q)))
		value(e.store.Redrive(t.Context(), first))(t)
		equal(t, "id", enqueue(t, q, "x", pgqrs.Key("k")), first)
	}},
	{"a key stays taken while its message waits for another try", "work would run twice whenever it fails once", func(t *testing.T, e *env) {
		q := jobs(e)
		id := enqueue(t, q, "x", pgqrs.Key("k"))
		taken := func(when string) {
			t.Helper()
			equal(t, "id "+when, enqueue(t, q, "x", pgqrs.Key("k")), id)
		}
		must(t, q.Release(t.Context(), 0, dequeueOne(t, q)))
		taken("after a release")
		must(t, q.Fail(t.Context(), pgqrs.RetryAfter(0, errTest), dequeueOne(t, q)))
		taken("after a failure")
		dequeueOne(t, q)
		pgqrstest.Advance(t, e.store, time.Minute)
		taken("after its lease expired")
	}},
	{"Unique reports a taken key with the first message's id", "a caller could not tell a new order from a repeated one", func(t *testing.T, e *env) {
		q := jobs(e)
		first := value(q.Enqueue(t.Context(), "first", pgqrs.Unique("2026-11-22")))(t)
		id, err := q.Enqueue(t.Context(), "second", pgqrs.Unique("2026-11-22"))
		wantError(t, err, pgqrs.ErrDuplicate)
		wantErrorText(t, err, "2026-11-22")
		equal(t, "id", id, first)
		equal(t, "id for a quiet key", enqueue(t, q, "third", pgqrs.Key("2026-11-22")), first)
		equal(t, "key as delivered", dequeueOne(t, q).Key, "2026-11-22")
	}},
	{"a batch passes over taken keys and returns their messages' ids", "one repeated item would fail an import, or be stored twice", func(t *testing.T, e *env) {
		q := jobs(e)
		taken := enqueue(t, q, "taken", pgqrs.Key("k0"))
		ids := value(q.EnqueueBatch(t.Context(), []string{"a", "k0", "k1", "b", "k1 again", "k0 again", "c"}, keysOf(pgqrs.Key, "", "k0", "k1", "", "k1", "k0", "")))(t)
		equal(t, "id of a taken key", ids[1], taken)
		equal(t, "id of a taken key, again", ids[5], taken)
		equal(t, "id of a key that the batch has twice", ids[4], ids[2])
		ms := dequeue(t, q, 10)
		equalSlices(t, "payloads", payloads(ms), []string{"taken", "a", "k1", "b", "c"})
		equalSlices(t, "ids", idsOf(ms), []int64{taken, ids[0], ids[2], ids[3], ids[6]})
	}},
	{"a batch with unique keys names those that were taken and stores the others", "an import could not report its duplicates", func(t *testing.T, e *env) {
		q := jobs(e)
		taken := enqueue(t, q, "taken", pgqrs.Key("2026-11-22"))
		ids, err := q.EnqueueBatch(t.Context(), []string{"a", "k0", "k1", "k1 again"}, keysOf(pgqrs.Unique, "", "2026-11-22", "2026-11-23", "2026-11-23"))
		wantError(t, err, pgqrs.ErrDuplicate)
		wantErrorText(t, err, "item 1")
		wantErrorText(t, err, "item 3")
		if strings.Contains(err.Error(), "item 2") {
			t.Errorf("error is %v; it names one that was stored", err)
		}
		equalSlices(t, "ids", ids, []int64{ids[0], taken, ids[2], ids[2]})
		equalSlices(t, "payloads", payloads(dequeue(t, q, 10)), []string{"taken", "a", "k1"})
	}},
	{"a batch of which every key is taken stores nothing", "a repeated import would fail, or store everything twice", func(t *testing.T, e *env) {
		q := jobs(e)
		batch := func() []int64 {
			return value(q.EnqueueBatch(t.Context(), []string{"a", "b"}, keysOf(pgqrs.Key, "ka", "kb")))(t)
		}
		first := batch()
		equalSlices(t, "ids of the repetition", batch(), first)
		equal(t, "ready messages", e.stats(t, "jobs").Ready, 2)
	}},
	{"of many callers that use a key at once exactly one stores", "two web servers that get the same click would both act on it", func(t *testing.T, e *env) {
		stores := []*pgqrs.Store{e.store, e.newStore(t, pgqrs.Config{})}
		const n = 8
		ids := make([]int64, n)
		var won atomic.Int64
		together(t, n, func(i int) error {
			id, err := pgqrs.NewQueue[int](stores[i%2], "jobs").Enqueue(t.Context(), i, pgqrs.Unique("click"))
			ids[i] = id
			if errors.Is(err, pgqrs.ErrDuplicate) {
				return nil
			}
			won.Add(1)
			return err
		})
		equal(t, "callers told that theirs was stored", won.Load(), 1)
		for _, id := range ids {
			equal(t, "id", id, ids[0])
		}
		equal(t, "ready messages", e.stats(t, "jobs").Ready, 1)
	}},
	{"a key in an open transaction is waited for", "the message would be stored twice, or not at all if the other rolls back", func(t *testing.T, e *env) {
		q := jobs(e)
		enqueue(t, q, "makes the queue")
		for _, commit := range []bool{true, false} {
			key := pgqrs.Key(map[bool]string{true: "committed", false: "rolled back"}[commit])
			tx := value(e.db.BeginTx(t.Context(), nil))(t)
			inside := enqueue(t, q.WithTx(tx), "x", key)
			end := tx.Rollback
			if commit {
				end = tx.Commit
			}
			var outside int64
			together(t, 2, func(i int) (err error) {
				if i == 0 {
					return end()
				}
				outside, err = q.Enqueue(t.Context(), "x", key)
				return err
			})
			if commit {
				equal(t, "id", outside, inside)
			}
		}
		equal(t, "ready messages", e.stats(t, "jobs").Ready, 3)
	}},
}

// keysOf gives each item of a batch its key. An empty key gives none.
func keysOf(option func(string) pgqrs.Option, keys ...string) pgqrs.Option {
	return pgqrs.Each(func(i int) []pgqrs.Option {
		if keys[i] == "" {
			return nil
		}
		return []pgqrs.Option{option(keys[i])}
	})
}
