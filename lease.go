package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// A settlement is a delivery and what becomes of it.
type settlement struct {
	m *MessageInfo
	outcome
}

// lease is the lease tuple of a message, for a list, with what else the statement takes.
func (m *MessageInfo) lease(more ...any) []any {
	return append([]any{m.ID, m.WorkerID, m.Claim}, more...)
}

// lease runs a statement whose last argument is a list of lease tuples and
// returns the ids it did.
func (c conn) lease(ctx context.Context, text string, leases []any, before ...any) ([]int64, error) {
	list, err := jsonList(leases)
	if err != nil {
		return nil, err
	}
	return c.ids(ctx, text, append(before, list)...)
}

// settle writes outcomes, by one statement a kind, and returns the ids of
// those that were done; the leases of the others are lost. Rows are taken in
// order of id, so that two calls cannot wait for each other.
func (s *Store) settle(ctx context.Context, list []settlement) ([]int64, error) {
	slices.SortFunc(list, func(a, b settlement) int { return cmp.Compare(a.m.ID, b.m.ID) })
	var acks, releases, fails []any
	for _, x := range list {
		switch x.kind {
		case acked:
			acks = append(acks, x.m.lease())
		case released:
			releases = append(releases, x.m.lease(x.delay.Microseconds()))
		case retried:
			fails = append(fails, x.m.lease(x.delay.Microseconds(), errorText(x.err)))
		case died:
			fails = append(fails, x.m.lease(nil, errorText(x.err)))
		}
	}
	var done []int64
	for _, batch := range []struct {
		text   string
		leases []any
	}{{s.dialect.lease.ack, acks}, {s.dialect.lease.release, releases}, {s.dialect.lease.fail, fails}} {
		if len(batch.leases) == 0 {
			continue
		}
		var ids []int64
		err := s.single(ctx, func(c conn) (err error) {
			ids, err = c.lease(ctx, batch.text, batch.leases)
			return err
		})
		if err != nil {
			return done, err
		}
		done = append(done, ids...)
	}
	return done, nil
}

// settleShared is settle for a caller that is one of many.
func (s *Store) settleShared(ctx context.Context, list []settlement) ([]int64, error) {
	share := s.tx == nil && len(list) <= maxTogether
	for _, x := range list {
		share = share && x.kind == acked
	}
	if share {
		return s.acks.do(ctx, list)
	}
	return s.settle(ctx, list)
}

// settleTogether settles what several callers hold and returns for each the ids that were done.
func (s *Store) settleTogether(ctx context.Context, calls [][]settlement) ([][]int64, error) {
	var all []settlement
	owner := map[int64]int{}
	for i, list := range calls {
		for _, x := range list {
			if other, taken := owner[x.m.ID]; taken && other != i {
				return nil, errContended
			}
			owner[x.m.ID] = i
		}
		all = append(all, list...)
	}
	ids, err := s.settle(ctx, all)
	if err != nil {
		return nil, err
	}
	done := make([][]int64, len(calls))
	for _, id := range ids {
		done[owner[id]] = append(done[owner[id]], id)
	}
	return done, nil
}

// claim leases up to n messages for a worker and sorts them for delivery. With
// alone false it leaves a message whose last holder never answered.
func (s *Store) claim(ctx context.Context, queue string, worker int64, n int, lease time.Duration, alone bool) ([]*MessageInfo, error) {
	var ms []*MessageInfo
	collided := false
	err := s.single(ctx, func(c conn) error {
		ms = nil
		if collided {
			s.collisions.Store(queue, time.Now())
		}
		collided = true // if this is not the last time
		text, args := s.claiming(queue, n)
		return c.rows(ctx, text, append([]any{worker, lease.Microseconds(), alone, n}, args...), func(rows *sql.Rows) error {
			m, err := scanDelivery(rows)
			if err != nil {
				return err
			}
			ms = append(ms, m)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	for _, m := range ms {
		m.Queue, m.State, m.WorkerID = queue, Leased, worker
	}
	slices.SortFunc(ms, func(a, b *MessageInfo) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.DueAt.Compare(b.DueAt), cmp.Compare(a.ID, b.ID))
	})
	return ms, nil
}

const (
	spreadFor  = 10 * time.Second // since the latest collision
	spreadOver = 16               // how many claims find room side by side
	maxSpread  = 200              // messages that one of them is taken to want
)

// claiming returns the statement for a claim, with what it takes at the end.
// Under Config.Concurrent the workers of a queue would all claim the same
// messages, and all but one in vain. So once that has happened, each claim
// begins in one of several places.
func (s *Store) claiming(queue string, n int) (string, []any) {
	latest, ok := s.collisions.Load(queue)
	if !s.cfg.Concurrent || !ok || time.Since(latest.(time.Time)) > spreadFor {
		return s.dialect.lease.claim, nil
	}
	skip := min(n, maxSpread) * rand.N(spreadOver)
	return s.dialect.spread, []any{skip, n + skip}
}

func (s *Store) observeClaim(ctx context.Context, m *MessageInfo) {
	if o := s.cfg.Observer; o != nil && o.Claimed != nil {
		o.Claimed(ctx, m)
	}
}

// silence is how long a worker may go without a heartbeat before its row is
// marked stopped and its name may be taken. Leases do not depend on it.
const silence = 30 * time.Second

// register makes a worker's row, and the queue's if need be.
func (s *Store) register(ctx context.Context, queue, name, status string) (int64, error) {
	for range 2 {
		var ids []int64
		err := s.single(ctx, func(c conn) (err error) {
			ids, err = c.ids(ctx, s.dialect.worker.register, queue, name, status, silence.Microseconds())
			return err
		})
		if err != nil {
			return 0, err
		}
		if len(ids) > 0 {
			return ids[0], nil
		}
		err = s.single(ctx, func(c conn) error {
			_, err := c.exec(ctx, s.dialect.queue.make, queue)
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%w: a live worker has the name %q", ErrState, name)
}

// heartbeat says that workers live and returns the status of each that still has a row.
func (s *Store) heartbeat(ctx context.Context, workers []int64) (map[int64]string, error) {
	list, err := jsonList(workers)
	if err != nil {
		return nil, err
	}
	var status map[int64]string
	err = s.single(ctx, func(c conn) error {
		status = map[int64]string{}
		return c.rows(ctx, s.dialect.worker.heartbeat, []any{list}, func(rows *sql.Rows) error {
			var id int64
			var word string
			err := rows.Scan(&id, &word)
			status[id] = word
			return err
		})
	})
	return status, err
}

// A consumer is the worker row behind one queue's Dequeue calls.
type consumer struct {
	queue string
	turn  chan struct{} // holds one: a claim under Config.Concurrent, where those of one worker could only collide

	mu sync.Mutex
	id int64 // 0: not registered
}

// consumer returns the one of a queue.
func (s *Store) consumer(queue string) (*consumer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("%w: the Store is closed", ErrState)
	}
	c := s.consumers[queue]
	if c == nil {
		c = &consumer{queue: queue, turn: make(chan struct{}, 1)}
		s.consumers[queue] = c
	}
	return c, nil
}

// worker returns the row's id, which it makes if there is none.
func (c *consumer) worker(ctx context.Context, s *Store) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id != 0 {
		return c.id, nil
	}
	id, err := s.register(ctx, c.queue, uniqueName()+"/"+c.queue, "ready")
	c.id = id
	return id, err
}

// claim leases messages. When none came it finds out whether the row is to
// blame: it may have been suspended, or been taken for dead while idle.
func (c *consumer) claim(ctx context.Context, s *Store, n int, lease time.Duration) ([]*MessageInfo, error) {
	for {
		id, err := c.worker(ctx, s)
		if err != nil {
			return nil, err
		}
		ms, err := c.claimAs(ctx, s, id, n, lease)
		if err != nil || len(ms) > 0 {
			return ms, err
		}
		status, err := s.heartbeat(ctx, []int64{id})
		if err != nil {
			return nil, err
		}
		switch word := status[id]; word {
		case "ready", "polling":
			return nil, nil
		case "interrupted":
			if _, err := s.moveWorker(ctx, id, "suspended"); err != nil {
				return nil, err
			}
			fallthrough
		case "suspended":
			return nil, fmt.Errorf("%w: worker %d was %s; ResumeWorker lets it go on", ErrState, id, word)
		}
		c.forget(id)
	}
}

func (c *consumer) claimAs(ctx context.Context, s *Store, id int64, n int, lease time.Duration) ([]*MessageInfo, error) {
	if s.cfg.Concurrent {
		select {
		case c.turn <- struct{}{}:
			defer func() { <-c.turn }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.claim(ctx, c.queue, id, n, lease, true)
}

// forget drops a row that is stopped or gone, so that the next call makes another.
func (c *consumer) forget(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == id {
		c.id = 0
	}
}

// stop marks the row stopped.
func (c *consumer) stop(ctx context.Context, s *Store) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == 0 {
		return nil
	}
	_, err := s.moveWorker(ctx, c.id, "stopped")
	return err
}
