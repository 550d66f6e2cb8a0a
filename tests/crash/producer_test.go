//go:build unix

package crash_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// maxBacklog is how many messages may wait before the producers pause.
const maxBacklog = 300

// produce enqueues on three goroutines, so that calls share statements. It starts runs on another
// goroutine.
func (c *child) produce(ctx context.Context) error {
	var tokens atomic.Int64
	token := func() string { return fmt.Sprintf("%s-%d", c.Name, tokens.Add(1)) }
	var full atomic.Bool
	rest := func(d time.Duration) {
		spend(ctx, d)
		for ctx.Err() == nil && full.Load() {
			spend(ctx, 10*time.Millisecond)
		}
	}
	var all sync.WaitGroup
	all.Go(func() { c.watchBacklog(ctx, &full) })
	for n := range uint64(3) {
		all.Go(func() {
			random := c.random(n)
			for ctx.Err() == nil {
				if err := c.enqueue(ctx, random, token); err != nil {
					complain(ctx, err)
				}
				rest(time.Duration(random.IntN(10)) * time.Millisecond)
			}
		})
	}
	all.Go(func() {
		for n := c.Runs; ctx.Err() == nil; {
			// The process before this one may have died before it recorded a run's id. Such a run
			// is started again with the same key.
			run, err := c.workflow().Start(ctx, amount{N: n}, pgqrs.Key(keyOf(n)))
			if err != nil {
				complain(ctx, err)
				continue
			}
			c.ledger.write(entry{Event: started, Token: keyOf(n), ID: run.ID()})
			n++
			rest(10 * time.Millisecond)
		}
	})
	all.Wait()
	return nil
}

// enqueue stores one message, or several at once, or one together with a row of the application. It
// records the ids in the ledger once it knows them.
func (c *child) enqueue(ctx context.Context, random *rand.Rand, token func() string) error {
	name := []string{plain, booked, byHand}[random.IntN(3)]
	tasks := make([]task, 1+max(0, random.IntN(8)-3))
	for i := range tasks {
		tasks[i] = task{Token: token(), Slow: name == plain && random.IntN(50) == 0}
	}
	queue := c.queue(name)
	var ids []int64
	var err error
	switch {
	case random.IntN(4) == 0:
		ids, err = c.enqueueOrder(ctx, queue, tasks, random.IntN(8) == 0)
	case len(tasks) == 1:
		ids = make([]int64, 1)
		ids[0], err = queue.Enqueue(ctx, tasks[0])
	default:
		ids, err = queue.EnqueueBatch(ctx, tasks)
	}
	if err != nil {
		return err
	}
	entries := make([]entry, len(ids))
	for i, id := range ids {
		entries[i] = entry{Event: enqueued, Queue: name, Token: tasks[i].Token, ID: id}
	}
	c.ledger.write(entries...)
	return nil
}

// enqueueOrder enqueues in a transaction, and commits it or rolls it back.
func (c *child) enqueueOrder(ctx context.Context, queue *pgqrs.Queue[task], tasks []task, giveUp bool) ([]int64, error) {
	tx, err := c.store.DB().BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	for i := range tasks {
		tasks[i].Ordered = true
		if _, err := tx.ExecContext(ctx, insertOrder, tasks[i].Token); err != nil {
			return nil, err
		}
	}
	ids, err := queue.WithTx(tx).EnqueueBatch(ctx, tasks)
	if err != nil || giveUp {
		return nil, err
	}
	return ids, tx.Commit()
}

// keyOf returns the key of a run.
func keyOf(n int) string { return fmt.Sprintf("run-%d", n) }

// watchBacklog records whether too much work is left.
func (c *child) watchBacklog(ctx context.Context, full *atomic.Bool) {
	for ctx.Err() == nil {
		left, err := unfinished(ctx, c.store)
		if err != nil {
			complain(ctx, err)
			continue
		}
		full.Store(left > maxBacklog)
		spend(ctx, 100*time.Millisecond)
	}
}

// unfinished counts the messages that have not ended.
func unfinished(ctx context.Context, store *pgqrs.Store) (int64, error) {
	queues, err := store.Queues(ctx)
	var left int64
	for _, q := range queues {
		left += q.Ready + q.Scheduled + q.Leased
	}
	return left, err
}
