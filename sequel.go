package pgqrs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Then makes the messages of an EnqueueBatch a batch that another message waits
// for: payload, on q, is enqueued with them, [Blocked], and let go once each of them
// has been acked or deleted or has died. It is let go once, and tells by [MessageInfo].Batch what became of
// them. Redriving one of the dead lets it wait for that one too, unless it has gone.
//
// q may be another queue of the same Store. The options are those of that
// message: Delay, At, Priority and Headers; a delay counts from now. Messages whose Key is
// taken are not of the batch. A WithTx of q counts for nothing: the transaction is that of the batch.
func Then[T any](q *Queue[T], payload T, opts ...Option) Option {
	return func(o *options) {
		if o.then != nil {
			o.fail(errors.New("two Thens"))
		}
		o.then = &sequel{queue: q.name, core: q.store.core, usable: q.usable, payload: payload, opts: opts}
	}
}

// A sequel is a message that is to wait for a batch.
type sequel struct {
	queue   string
	core    *core
	usable  func() error
	payload any
	opts    []Option
}

// batchHeader tells a consumer a message's batch. Users do not get to see it, nor those that tell what became of a batch.
const (
	batchHeader     = "pgqrs-batch"
	batchDoneHeader = "pgqrs-batch-done"
	batchDeadHeader = "pgqrs-batch-dead"
)

// ownHeaders are those that users do not get to see.
var ownHeaders = []string{groupHeader, batchHeader, batchDoneHeader, batchDeadHeader}

// A BatchResult says what became of the messages of a batch. Those that were
// deleted are in neither count.
type BatchResult struct{ Done, Dead int64 }

// item is the sequel as it is enqueued.
func (q *sequel) item(ctx context.Context, s *Store) (item, error) {
	items, err := s.items(ctx, []any{q.payload}, append(slices.Clip(q.opts), noEach, alone))
	if err != nil {
		return item{}, &operationError{fmt.Sprintf("Then on queue %q", q.queue), err}
	}
	items[0].batch = 0 // it waits for one
	return items[0], s.cfg.Limits.admit(items, func(raw []byte) []byte { return raw })
}

// alone is an option that refuses what a message cannot have that waits for a batch.
func alone(o *options) {
	if o.keyed || o.group != "" || o.then != nil {
		o.fail(errors.New("a message that waits for a batch has no Key, Unique, Group or Then"))
	}
}

// enqueueBatch stores items and what waits for them, and returns the ids of the items.
func (s *Store) enqueueBatch(ctx context.Context, queue string, items []item, then *sequel) ([]int64, error) {
	if then.core != s.core {
		return nil, fmt.Errorf("%w: Then names a queue of another Store", ErrUnsupported)
	}
	if err := then.usable(); err != nil {
		return nil, err
	}
	last, err := then.item(ctx, s)
	if err != nil {
		return nil, err
	}
	var e *enqueuing
	err = s.atomic(ctx, func(c conn) error {
		waiting, err := c.store.store(ctx, then.queue, []item{last})
		if err != nil {
			return err
		}
		id := waiting.ids[0]
		members := slices.Clone(items)
		for i := range members {
			members[i].batch = id
			if members[i].headers, err = batchHeaders(members[i].headers, id); err != nil {
				return err
			}
		}
		if e, err = c.store.store(ctx, queue, members); err != nil {
			return err
		}
		if err := c.store.announce(ctx, then.queue, waiting.ids); err != nil {
			return err
		}
		if len(e.stored) > 0 {
			return c.store.announce(ctx, queue, e.stored)
		}
		return c.advance(ctx, followers{follower{batch: id}: true}) // all keys were taken
	})
	if err != nil {
		return nil, err
	}
	return e.ids, e.duplicates()
}

// batchHeaders adds the batch to headers as they are stored.
func batchHeaders(headers any, batch int64) (any, error) {
	more := map[string]string{}
	if text, ok := headers.(string); ok {
		if err := json.Unmarshal([]byte(text), &more); err != nil {
			return nil, err
		}
	}
	more[batchHeader] = fmt.Sprint(batch)
	return encodeHeaders(more)
}

// tryBatches lets go those of the messages that wait for nothing any more and nobody else has locked, and returns which it locked.
func (c conn) tryBatches(ctx context.Context, ids []int64) (locked []int64, err error) {
	list, err := jsonList(ids)
	if err != nil {
		return nil, err
	}
	locked, err = c.ids(ctx, c.store.dialect.batch.tryLock, list)
	if err != nil || len(locked) == 0 {
		return nil, err
	}
	if list, err = jsonList(locked); err != nil {
		return nil, err
	}
	queues := map[string]bool{}
	err = c.rows(ctx, c.store.dialect.batch.finish, []any{list}, func(rows *sql.Rows) error {
		var id int64
		var queue string
		_, err := scanLoosely(rows, "id queue", &id, &queue) // a malformed row may be in no queue
		queues[queue] = true
		return err
	})
	if err == nil {
		err = c.store.wakeAll(ctx, queues)
	}
	return locked, err
}
