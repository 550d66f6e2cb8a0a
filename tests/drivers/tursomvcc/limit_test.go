package tursomvcc_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/tests/internal/tap"
	"github.com/pgqrs/pgqrs-go/tests/internal/turso"
)

// In this engine, transactions conflict if they write the same row. Two claims that lease different
// messages conflict only because limit.lock writes the queue's row. Here they would lease different
// messages: the second claim's message was enqueued after the first claim began, which does not see
// it.
func TestClaimsUnderALimitConflictThoughTheirMessagesDiffer(t *testing.T) {
	for name, p := range map[string]pgqrs.Policy{
		"one leased at a time": {MaxLeased: 1},
		"one an hour":          {Rate: pgqrs.Rate{N: 1, Per: time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			turso.Require(t)
			dsn := filepath.Join(t.TempDir(), "pgqrs.db") + "?_busy_timeout=0"
			a, b := newClaimer(t, dsn), newClaimer(t, dsn)
			must(t, a.queue.With(p).Configure(t.Context()))
			for _, c := range []*claimer{a, b} { // so that only the claim is left to do
				c.claim(t)
				c.want(t, 0, nil)
			}
			enqueue := func(opts ...pgqrs.Option) {
				t.Helper()
				_, err := b.queue.Enqueue(t.Context(), 1, opts...)
				must(t, err)
			}
			enqueue()
			first := a.tap.Before(t, "pgqrs:message.claim")
			a.claim(t)
			first.Wait(t)
			enqueue(pgqrs.Priority(1))
			second := b.tap.Before(t, "pgqrs:limit.lock")
			b.claim(t)
			second.Wait(t)
			again := b.tap.Before(t, "pgqrs:limit.lock")
			second.Go()
			b.awaitConflict(t, again)
			first.Go()
			a.want(t, 1, nil)
			again.Go()
			b.want(t, 0, pgqrs.ErrRateLimited)
		})
	}
}

// A claimer claims one message, on connections of its own.
type claimer struct {
	queue *pgqrs.Queue[int]
	tap   *tap.Tap
	done  chan answer
}

type answer struct {
	messages int
	err      error
}

func newClaimer(t *testing.T, dsn string) *claimer {
	t.Helper()
	db := sqlite.Use(t, tap.Open(t, "turso", dsn))
	store := pgqrs.Config{Concurrent: true, NoPrepare: true}.New(db, pgqrs.Turso)
	t.Cleanup(func() { must(t, store.Close()) })
	must(t, store.Install(t.Context()))
	return &claimer{pgqrs.NewQueue[int](store, "limited"), tap.Of(db), make(chan answer, 1)}
}

// claim claims in another goroutine.
func (c *claimer) claim(t *testing.T) {
	go func() {
		ms, err := c.queue.Dequeue(t.Context(), 1, time.Hour)
		c.done <- answer{len(ms), err}
	}()
}

// want waits for the result.
func (c *claimer) want(t *testing.T, messages int, target error) {
	t.Helper()
	select {
	case got := <-c.done:
		if got.messages != messages || !errors.Is(got.err, target) {
			t.Fatalf("dequeued %d messages, %v; want %d, %v", got.messages, got.err, messages, target)
		}
	case <-time.After(time.Minute):
		t.Fatal("Dequeue did not return within a minute")
	}
}

// awaitConflict waits until the claim is tried again.
func (c *claimer) awaitConflict(t *testing.T, again *tap.Stop) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !again.Held() {
		select {
		case got := <-c.done:
			t.Fatalf("beside another claim it dequeued %d messages, %v; want a conflict", got.messages, got.err)
		case <-deadline:
			t.Fatal("the claim neither ended nor began again within a minute")
		case <-tick.C:
		}
	}
}
