package conformance

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var errTest = errors.New("printer on fire")

var settleCases = []testcase{
	{"an acked message is archived and not delivered again", "work would be done twice", func(t *testing.T, e *env) {
		q := jobs(e)
		id := enqueue(t, q, "x")
		must(t, q.Ack(t.Context(), dequeueOne(t, q)))
		pgqrstest.Advance(t, e.store, time.Hour)
		wantNone(t, q)
		m := e.info(t, id)
		equal(t, "state", m.State, pgqrs.Archived)
		equal(t, "has an end", m.EndedAt.IsZero(), false)
	}},
	{"Ack again is no error", "a caller that repeats an Ack whose answer it missed would think the lease lost", func(t *testing.T, e *env) {
		q := jobs(e)
		id := enqueue(t, q, "x")
		m := dequeueOne(t, q)
		must(t, q.Ack(t.Context(), m))
		ended := e.info(t, id).EndedAt
		pgqrstest.Advance(t, e.store, time.Minute)
		must(t, q.Ack(t.Context(), m))
		must(t, q.Ack(t.Context(), m, m))
		equal(t, "time it was archived, a minute back", e.info(t, id).EndedAt.Equal(ended.Add(-time.Minute)), true)
	}},
	{"a settled message cannot be given back, extended or settled otherwise", "finished work would come to life again", func(t *testing.T, e *env) {
		q := jobs(e)
		for _, first := range []string{"ack", "bury", "release", "fail", "snooze", "delete"} {
			for second, settle := range settlements(t, q) {
				if first == "ack" && second == "ack" {
					continue
				}
				enqueue(t, q, first)
				m := dequeueOne(t, q)
				must(t, settlements(t, q)[first](m))
				before := e.view(t, m.ID)
				if err := settle(m); !errors.Is(err, pgqrs.ErrLeaseLost) {
					t.Errorf("%s after %s: error is %v", second, first, err)
				}
				equal(t, "message after "+first+" and "+second, e.view(t, m.ID), before)
				value(e.store.Delete(t.Context(), m.ID))(t)
			}
		}
	}},
	{"a deleted message leaves nothing", "data that had to go would stay", func(t *testing.T, e *env) {
		q := jobs(e)
		id := enqueue(t, q, "x")
		must(t, q.Delete(t.Context(), dequeueOne(t, q)))
		equal(t, "message", e.view(t, id), "none")
	}},
	{"a call on several messages does all it can and names the lost ones", "one lost lease would fail its neighbours, or pass unseen", func(t *testing.T, e *env) {
		q, thief := jobs(e), another(t, e)
		for what, settle := range settlements(t, q) {
			stolen := enqueue(t, q, "stolen")
			batch := dequeue(t, q, 1)
			pgqrstest.Advance(t, e.store, 31*time.Second)
			dequeueOne(t, thief)
			value(q.EnqueueBatch(t.Context(), []string{"a", "b"}))(t)
			fresh := dequeue(t, q, 10)
			before := map[int64]string{fresh[0].ID: e.view(t, fresh[0].ID), fresh[1].ID: e.view(t, fresh[1].ID)}
			err := settle(fresh[0], batch[0], fresh[1])
			wantError(t, err, pgqrs.ErrLeaseLost)
			wantErrorText(t, err, fmt.Sprintf("messages [%d]", stolen))
			equal(t, "state of the lost one after "+what, e.info(t, stolen).State, pgqrs.Leased)
			for id, view := range before {
				if e.view(t, id) == view {
					t.Errorf("%s left message %d as it was", what, id)
				}
			}
			value(e.store.Delete(t.Context(), stolen, fresh[0].ID, fresh[1].ID))(t)
		}
	}},
	{"no messages is no error, and a nil one is", "a caller would have to check what it found, or crash", func(t *testing.T, e *env) {
		q := jobs(e)
		for _, settle := range settlements(t, q) {
			must(t, settle())
			wantErrorText(t, settle(nil), "nil message")
		}
	}},
	{"a message that was never leased cannot be settled", "a listed message could be acked under its holder", func(t *testing.T, e *env) {
		q := jobs(e)
		id := enqueue(t, q, "x")
		for what, settle := range settlements(t, q) {
			if err := settle(&pgqrs.Message[string]{MessageInfo: e.info(t, id)}); !errors.Is(err, pgqrs.ErrLeaseLost) {
				t.Errorf("%s: error is %v", what, err)
			}
		}
		equal(t, "state", e.info(t, id).State, pgqrs.Ready)
	}},
	{"a released message comes back, now or after a delay, and the attempt does not count", "a shutdown would burn attempts until good work is dead", func(t *testing.T, e *env) {
		q := jobs(e).With(pgqrs.Policy{MaxAttempts: 1})
		id := enqueue(t, q, "x")
		for range 3 {
			m := dequeueOne(t, q)
			equal(t, "attempt", m.Attempt, 1)
			must(t, q.Release(t.Context(), 0, m))
			equal(t, "state", e.info(t, id).State, pgqrs.Ready)
		}
		must(t, q.Release(t.Context(), time.Minute, dequeueOne(t, q)))
		equal(t, "state", e.info(t, id).State, pgqrs.Scheduled)
		pgqrstest.Advance(t, e.store, 50*time.Second)
		wantNone(t, q)
		pgqrstest.Advance(t, e.store, 10*time.Second)
		m := dequeueOne(t, q)
		equal(t, "attempt", m.Attempt, 1)
		wantErrorText(t, q.Release(t.Context(), -1, m), "negative delay")
	}},
	{"a failed message comes back after the policy's backoff for its attempt, with the error", "a broken service would be hammered, and nobody could say what is wrong", func(t *testing.T, e *env) {
		var asked []int
		q := jobs(e).With(pgqrs.Policy{Backoff: func(attempt int) time.Duration {
			asked = append(asked, attempt)
			return time.Duration(attempt) * time.Minute
		}})
		enqueue(t, q, "x")
		for attempt := 1; attempt <= 3; attempt++ {
			m := dequeueOne(t, q)
			equal(t, "attempt", m.Attempt, attempt)
			must(t, q.Fail(t.Context(), fmt.Errorf("try %d: %w", attempt, errTest), m))
			info := e.info(t, m.ID)
			equal(t, "state", info.State, pgqrs.Scheduled)
			equal(t, "last error", info.LastError, fmt.Sprintf("try %d: printer on fire", attempt))
			pgqrstest.Advance(t, e.store, time.Duration(attempt)*time.Minute-20*time.Second)
			wantNone(t, q)
			pgqrstest.Advance(t, e.store, 20*time.Second)
		}
		equal(t, "last error on the next delivery", dequeueOne(t, q).LastError, "try 3: printer on fire")
		equalSlices(t, "attempts that the backoff was asked for", asked, []int{1, 2, 3})
	}},
	{"RetryAfter sets the wait in place of the backoff, and the attempt counts", "a service that says when to come back would be ignored", func(t *testing.T, e *env) {
		q := jobs(e).With(pgqrs.Policy{MaxAttempts: 2, Backoff: func(int) time.Duration { return 0 }})
		id := enqueue(t, q, "x")
		wrapped := fmt.Errorf("called: %w", pgqrs.RetryAfter(time.Hour, errTest))
		must(t, q.Fail(t.Context(), wrapped, dequeueOne(t, q)))
		equal(t, "last error", e.info(t, id).LastError, "called: printer on fire")
		pgqrstest.Advance(t, e.store, 59*time.Minute)
		wantNone(t, q)
		pgqrstest.Advance(t, e.store, time.Minute)
		m := dequeueOne(t, q)
		equal(t, "attempt", m.Attempt, 2)
		must(t, q.Fail(t.Context(), wrapped, m))
		equal(t, "state after the last attempt", e.info(t, id).State, pgqrs.Dead)
	}},
	{"Permanent sends a message to the dead letters at once", "hopeless work would be tried for hours", func(t *testing.T, e *env) {
		q := jobs(e)
		id := enqueue(t, q, "x")
		must(t, q.Fail(t.Context(), fmt.Errorf("order: %w", pgqrs.Permanent(errTest)), dequeueOne(t, q)))
		m := e.info(t, id)
		equal(t, "state", m.State, pgqrs.Dead)
		equal(t, "last error", m.LastError, "order: printer on fire")
		equal(t, "attempt", m.Attempt, 1)
		pgqrstest.Advance(t, e.store, time.Hour)
		wantNone(t, q)
	}},
	{"Snooze comes back later and counts neither as an attempt nor as a failure", "waiting for something would use up the attempts", func(t *testing.T, e *env) {
		q := jobs(e).With(pgqrs.Policy{MaxAttempts: 1})
		id := enqueue(t, q, "x")
		for range 3 {
			must(t, q.Fail(t.Context(), pgqrs.Snooze(time.Minute), dequeueOne(t, q)))
			equal(t, "last error", e.info(t, id).LastError, "")
			pgqrstest.Advance(t, e.store, 30*time.Second)
			wantNone(t, q)
			pgqrstest.Advance(t, e.store, 30*time.Second)
		}
		equal(t, "attempt", dequeueOne(t, q).Attempt, 1)
	}},
	{"the last attempt's failure makes a dead letter, -1 means no last attempt, and the default is 5", "messages would be dropped early, or never given up", func(t *testing.T, e *env) {
		for limit, fails := range map[int]int{1: 1, 3: 3, 0: 5, -1: 12} {
			q := jobs(e).With(pgqrs.Policy{MaxAttempts: limit, Backoff: func(int) time.Duration { return 0 }})
			id := enqueue(t, q, "x")
			for i := 1; i <= fails; i++ {
				equal(t, "state", e.info(t, id).State, pgqrs.Ready)
				must(t, q.Fail(t.Context(), errTest, dequeueOne(t, q)))
			}
			want := pgqrs.Dead
			if limit == -1 {
				want = pgqrs.Ready
			}
			m := e.info(t, id)
			equal(t, fmt.Sprintf("state with MaxAttempts %d", limit), m.State, want)
			equal(t, "attempts", m.Attempt, fails)
			equal(t, "has an end", m.EndedAt.IsZero(), want != pgqrs.Dead)
			value(e.store.Delete(t.Context(), id))(t)
		}
	}},
	{"an error's text is recorded whatever is in it", "the failure of a failure would hide what is wrong", func(t *testing.T, e *env) {
		q := jobs(e)
		for text, want := range map[string]string{
			"nul \x00, invalid \xff, surrogate \xed\xa0\x80": "nul \uFFFD, invalid \uFFFD, surrogate \uFFFD",
			"2026-11-22":                    "2026-11-22",
			"😀 'quoted' \"\\ <&> \t\n \x01": "😀 'quoted' \"\\ <&> \t\n \x01",
			"":                              "",
			strings.Repeat("ü", 5000):       strings.Repeat("ü", 4096) + "...",
		} {
			for _, cause := range []error{pgqrs.RetryAfter(0, errors.New(text)), pgqrs.Permanent(errors.New(text))} {
				id := enqueue(t, q, "x")
				must(t, q.Fail(t.Context(), cause, dequeueOne(t, q)))
				equal(t, "last error", e.info(t, id).LastError, want)
				value(e.store.Delete(t.Context(), id))(t)
			}
		}
		wantErrorText(t, q.Fail(t.Context(), nil), "nil cause")
	}},
}
