package tursomvcc_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/turso"
)

// A counter counts the library's own transactions, except heartbeats, which come by the clock.
type counter struct {
	mu                          sync.Mutex
	open, most                  int // at the same time
	committed, beats, conflicts int
}

func (c *counter) count(text string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case strings.Contains(text, "BEGIN CONCURRENT") && err == nil:
		c.open++
		c.most = max(c.most, c.open)
	case strings.Contains(text, "pgqrs:commit") && err == nil:
		c.open--
		c.committed++
	case strings.Contains(text, "pgqrs:rollback"):
		c.open--
	case strings.Contains(text, "pgqrs:worker.heartbeat") && err == nil:
		c.beats++
	case err != nil:
		c.conflicts++
	}
}

// Writers on different queues must not conflict in the engine, neither in an index nor in the ids
// that AUTOINCREMENT assigns.
func TestWritersOnDisjointQueuesDoNotConflict(t *testing.T) {
	const writers, messages, batch = 8, 250, 50
	c := &counter{}
	db := turso.OpenTraced(t, c.count)
	config := pgqrs.Config{Concurrent: true}
	must(t, config.New(db, pgqrs.Turso).Install(t.Context()))
	queues := make([]*pgqrs.Queue[int], writers)
	// Each has a Store of its own, so that they share no statements. The queues and workers exist
	// beforehand.
	for i := range queues {
		queues[i] = pgqrs.NewQueue[int](config.New(db, pgqrs.Turso), fmt.Sprint("queue ", i))
		must(t, work(t, queues[i], 1))
	}
	c.committed, c.beats, c.conflicts = 0, 0, 0
	var all sync.WaitGroup
	for _, q := range queues {
		all.Go(func() {
			for range messages / batch {
				if err := work(t, q, batch); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d transactions committed, up to %d open at the same time, %d conflicts", c.committed, c.most, c.conflicts)
	c.committed -= c.beats
	if want := writers * (messages + 2*messages/batch); c.committed != want || c.most < 2 || c.conflicts > want/100 {
		t.Errorf("want %d, at least 2, and at most %d", want, want/100)
	}
}

// work enqueues n messages one by one, dequeues them and acks them.
func work(t *testing.T, q *pgqrs.Queue[int], n int) error {
	for i := range n {
		if _, err := q.Enqueue(t.Context(), i); err != nil {
			return err
		}
	}
	ms, err := q.Dequeue(t.Context(), n, time.Minute)
	if err == nil && len(ms) != n {
		err = fmt.Errorf("dequeued %d messages; want %d", len(ms), n)
	}
	if err != nil {
		return err
	}
	return q.Ack(t.Context(), ms...)
}
