package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/coalesce"
	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// A settlement is a delivery with its outcome.
type settlement struct {
	m *MessageInfo
	outcome
	deadLetter string // the queue that gets a copy if the message dies, or empty
}

// A leaseTuples is a list of lease tuples that is being written. It is written as text, since there
// is one tuple for each message, and an encoder would allocate a value for each number.
type leaseTuples struct {
	text []byte // without the last bracket
	err  error
}

// add adds the lease tuple of a message, with the other values that the statement takes.
func (l *leaseTuples) add(m *MessageInfo, more ...any) {
	if l.empty() {
		l.text = append(l.text, '[')
	} else {
		l.text = append(l.text, ',')
	}
	l.text = strconv.AppendInt(append(l.text, '['), m.ID, 10)
	l.text = strconv.AppendInt(append(l.text, ','), m.WorkerID, 10)
	l.text = strconv.AppendInt(append(l.text, ','), m.Claim, 10)
	for _, x := range more {
		raw, err := encodeJSON(x)
		l.err = errors.Join(l.err, err)
		l.text = append(append(l.text, ','), raw...)
	}
	l.text = append(l.text, ']')
}

func (l *leaseTuples) empty() bool { return len(l.text) == 0 }

// execLeases runs a statement whose last argument is a list of lease tuples, and returns the ids
// that it changed.
func (c conn) execLeases(ctx context.Context, text string, leases leaseTuples, before ...any) ([]int64, error) {
	if leases.err != nil {
		return nil, leases.err
	}
	list := "[]"
	if !leases.empty() {
		list = string(append(leases.text, ']'))
	}
	return c.ids(ctx, text, append(before, list)...)
}

// settle writes outcomes and returns the ids that it settled. The leases of the others are lost. If
// the database's encoding cannot represent a text, settle writes the text in ASCII, except in a
// caller's transaction, which has failed then.
func (s *Store) settle(ctx context.Context, list []settlement) ([]int64, error) {
	done, err := s.settleAsIs(ctx, list)
	if !sqlerr.Untranslatable(err) || s.tx != nil {
		return done, err
	}
	var left []settlement
	for _, x := range list {
		if plain := inASCII(x.err); plain != nil {
			x.err = plain
		}
		if !slices.Contains(done, x.m.ID) {
			left = append(left, x)
		}
	}
	more, err := s.settleAsIs(ctx, left)
	return append(done, more...), err
}

// settleAsIs is settle with the texts unchanged. It sends one statement for each kind of outcome.
// Rows are locked in order of id, so that two calls cannot deadlock. If messages are in groups or
// batches, it is one transaction, which also unblocks the dependents.
func (s *Store) settleAsIs(ctx context.Context, list []settlement) ([]int64, error) {
	slices.SortFunc(list, func(a, b settlement) int { return cmp.Compare(a.m.ID, b.m.ID) })
	next := dependentsOf(list)
	if len(next) == 0 {
		return s.writeOutcomes(ctx, list)
	}
	var done []int64
	err := s.atomic(ctx, func(c conn) (err error) {
		if done, err = c.store.writeOutcomes(ctx, list); err != nil {
			return err
		}
		return c.unblock(ctx, next)
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// writeOutcomes sends the statements of settle.
func (s *Store) writeOutcomes(ctx context.Context, list []settlement) ([]int64, error) {
	var acks, releases, fails leaseTuples
	var dead []settlement
	for _, x := range list {
		switch x.kind {
		case acked:
			acks.add(x.m)
		case released:
			releases.add(x.m, x.delay.Microseconds())
		case retried:
			fails.add(x.m, x.delay.Microseconds(), errorText(x.err))
		case died:
			if x.deadLetter != "" {
				dead = append(dead, x)
				continue
			}
			fails.add(x.m, nil, errorText(x.err))
		}
	}
	var done []int64
	for _, batch := range []struct {
		text   string
		leases leaseTuples
	}{{s.dialect.lease.ack, acks}, {s.dialect.lease.release, releases}, {s.dialect.lease.fail, fails}} {
		if batch.leases.empty() {
			continue
		}
		var ids []int64
		err := s.single(ctx, func(c conn) (err error) {
			ids, err = c.execLeases(ctx, batch.text, batch.leases)
			return err
		})
		if err != nil {
			return done, err
		}
		done = append(done, ids...)
	}
	if len(dead) == 0 {
		return done, nil
	}
	ids, err := s.deadLetterWithCopies(ctx, dead)
	return append(done, ids...), err
}

// settleShared is settle for one of many callers, which share statements.
func (s *Store) settleShared(ctx context.Context, list []settlement) ([]int64, error) {
	share := s.tx == nil && len(list) <= coalesce.MaxTogether
	for _, x := range list {
		share = share && x.kind == acked && x.m.Group == "" && x.m.BatchID == 0
	}
	if share {
		return s.acks.Do(ctx, list)
	}
	return s.settle(ctx, list)
}

// settleTogether settles the messages of several callers and returns the settled ids of each.
func (s *Store) settleTogether(ctx context.Context, calls [][]settlement) ([][]int64, error) {
	var all []settlement
	owner := map[int64]int{}
	for i, list := range calls {
		for _, x := range list {
			if other, taken := owner[x.m.ID]; taken && other != i {
				return nil, coalesce.ErrContended
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

// claim leases up to n messages for a worker and sorts them for delivery. If alone is false, it
// leaves out suspects.
func (s *Store) claim(ctx context.Context, queue string, worker int64, n int, lease time.Duration, alone bool) ([]*MessageInfo, error) {
	var ms []*MessageInfo
	collided := false
	err := s.single(ctx, func(c conn) (err error) {
		if collided {
			s.collisions.Store(queue, time.Now())
		}
		collided = true // unless this is the last time
		text, args := s.claimStatement(queue, n)
		ms, err = c.claim(ctx, text, append([]any{worker, lease.Microseconds(), alone, n}, args...))
		return err
	})
	if err != nil {
		return nil, err
	}
	return sortClaimed(ms, queue, worker), nil
}

// claim runs the statement of a claim.
func (c conn) claim(ctx context.Context, text string, args []any) ([]*MessageInfo, error) {
	var ms []*MessageInfo
	var r messageRow
	var runs sql.NullBool
	into := append(r.delivery(), &runs)
	err := c.rows(ctx, text, args, func(rows *sql.Rows) (err error) {
		if len(ms) == 0 {
			if into, err = matchColumns(rows, into); err != nil {
				return err
			}
		}
		m, err := r.scanDelivery(rows, into)
		if err != nil {
			return err
		}
		if runs.Bool {
			m.run = unknownRun
		}
		ms = append(ms, m)
		return nil
	})
	return ms, err
}

// sortClaimed sorts the messages that a worker has claimed for delivery.
func sortClaimed(ms []*MessageInfo, queue string, worker int64) []*MessageInfo {
	for _, m := range ms {
		m.Queue, m.State, m.WorkerID = queue, Leased, worker
	}
	slices.SortFunc(ms, func(a, b *MessageInfo) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.DueAt.Compare(b.DueAt), cmp.Compare(a.ID, b.ID))
	})
	return ms
}

const (
	claimOffsetFor = 10 * time.Second // since the latest collision
	claimOffsets   = 16               // how many claims may run side by side
	maxClaimOffset = 200              // messages that a claim is assumed to want
)

// claimStatement returns the statement of a claim, and its last arguments. Under Config.Concurrent
// the workers of a queue would all claim the same messages, and all except one would fail. So after
// such a collision each claim begins at one of several offsets.
func (s *Store) claimStatement(queue string, n int) (string, []any) {
	latest, ok := s.collisions.Load(queue)
	if !s.cfg.Concurrent || !ok || time.Since(latest.(time.Time)) > claimOffsetFor {
		return s.dialect.lease.claim, nil
	}
	skip := min(n, maxClaimOffset) * rand.N(claimOffsets)
	return s.dialect.claimFromOffset, []any{skip, n + skip}
}

func (s *Store) observeClaim(ctx context.Context, m *MessageInfo) {
	if o := s.cfg.Observer; o != nil && o.Claimed != nil {
		o.Claimed(ctx, m)
	}
}

// heartbeatTimeout is how long a worker may go without a heartbeat before its row is marked stopped
// and its name may be taken. Leases do not depend on it.
const heartbeatTimeout = 30 * time.Second

// A registration is a row of pgqrs_workers that this process has made or taken over.
type registration struct {
	id          int64 // 0 if there is none
	incarnation int64 // distinguishes it from later incarnations of the row, 0 if unknown
}

// register makes a worker's row, and the queue's if it does not exist. It returns the row, and
// whether the queue has a limit.
func (s *Store) register(ctx context.Context, queue, name string, status WorkerState) (row registration, limited bool, err error) {
	for range 2 {
		err = s.single(ctx, func(c conn) error {
			row = registration{}
			return c.rows(ctx, s.dialect.worker.register, []any{queue, name, string(status), heartbeatTimeout.Microseconds()}, func(rows *sql.Rows) error {
				var has sql.NullBool
				err := scanRow(rows, &row.id, &has, &row.incarnation)
				limited = has.Bool
				return err
			})
		})
		if err != nil || row.id != 0 {
			return row, limited, err
		}
		err = s.single(ctx, func(c conn) error {
			_, err := c.exec(ctx, s.dialect.queue.make, queue)
			return err
		})
		if err != nil {
			return registration{}, false, err
		}
	}
	return registration{}, false, fmt.Errorf("%w: a live worker has the name %q", ErrState, name)
}

// A workerState is the state of a worker's row.
type workerState struct {
	status      WorkerState
	limited     bool // its queue has a limit
	incarnation int64
}

// isOf reports whether the row still belongs to a registration.
func (w workerState) isOf(row registration) bool {
	return row.incarnation == 0 || w.incarnation == row.incarnation
}

// retire marks rows stopped, except those that others have taken over.
func (s *Store) retire(ctx context.Context, rows []registration) error {
	if len(rows) == 0 {
		return nil
	}
	pairs := make([][2]int64, len(rows))
	for i, row := range rows {
		pairs[i] = [2]int64{row.id, row.incarnation}
	}
	list, err := jsonList(pairs)
	if err != nil {
		return err
	}
	return s.single(ctx, func(c conn) error {
		_, err := c.exec(ctx, s.dialect.worker.retire, list)
		return err
	})
}

// heartbeat sends a heartbeat for workers and returns the state of each worker that still has a
// row.
func (s *Store) heartbeat(ctx context.Context, workers []int64) (map[int64]workerState, error) {
	var states map[int64]workerState
	err := s.single(ctx, func(c conn) error {
		states = map[int64]workerState{}
		return c.rows(ctx, s.dialect.worker.heartbeat, []any{idList(workers)}, func(rows *sql.Rows) error {
			var id int64
			var state workerState
			var limited sql.NullBool
			_, err := scanRowLoosely(rows, "id status limited incarnation", &id, &state.status, &limited, &state.incarnation)
			state.limited = limited.Bool
			states[id] = state
			return err
		})
	})
	return states, err
}

// deadLetterWithCopies makes dead letters of messages and copies them to the queues that their
// policies name, in one transaction. It returns the ids that it changed.
func (s *Store) deadLetterWithCopies(ctx context.Context, dead []settlement) ([]int64, error) {
	var done []int64
	err := s.atomic(ctx, func(c conn) (err error) {
		var leases leaseTuples
		heirs := map[int64]string{}
		for _, x := range dead {
			leases.add(x.m, nil, errorText(x.err))
			heirs[x.m.ID] = x.deadLetter
		}
		if done, err = c.execLeases(ctx, s.dialect.lease.fail, leases); err != nil {
			return err
		}
		parts := map[string][]int64{}
		for _, id := range done {
			parts[heirs[id]] = append(parts[heirs[id]], id)
		}
		for _, queue := range slices.Sorted(maps.Keys(parts)) {
			if err := c.copyDead(ctx, queue, parts[queue]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// failUnreachable makes dead letters of messages that no claim and no retention reaches. It copies
// them to the queue deadLetter, unless that is empty, and unblocks their dependents. It returns the
// ids that it changed.
func (s *Store) failUnreachable(ctx context.Context, ids []int64, deadLetter string) (done []int64, err error) {
	err = s.atomic(ctx, func(c conn) error {
		if done, err = c.ids(ctx, s.dialect.message.bury, idList(ids)); err != nil || len(done) == 0 {
			return err
		}
		if deadLetter != "" {
			if err := c.copyDead(ctx, deadLetter, done); err != nil {
				return err
			}
		}
		// Parents wait until rescueRuns has ended the runs.
		next, _, err := c.dependentsByID(ctx, idList(done))
		if err != nil {
			return err
		}
		return c.unblock(ctx, next)
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// copyDead copies dead messages to a queue, which it makes if it does not exist.
func (c conn) copyDead(ctx context.Context, queue string, ids []int64) error {
	if _, err := c.exec(ctx, c.store.dialect.queue.make, queue); err != nil {
		return err
	}
	copies, err := c.ids(ctx, c.store.dialect.policy.deadLetter, queue, idList(ids))
	if err != nil {
		return err
	}
	return c.store.notifyStored(ctx, queue, copies)
}

// A consumer is the worker row of one queue's Dequeue calls.
type consumer struct {
	queue string
	// claimSlot holds one value: a claim under Config.Concurrent, where two claims of one worker
	// would only collide.
	claimSlot chan struct{}

	mu          sync.Mutex
	row         registration // zero if it is not registered
	limited     bool         // whether its queue has a limit
	asOf        time.Time    // when limited was read
	averageSize int          // average size of a message in the latest claim, in bytes
}

// consumerHeartbeat is the age of the row's state from which a Dequeue sends a heartbeat first. The
// row needs heartbeats while messages come, and its state may have changed.
const consumerHeartbeat = 10 * time.Second

// consumer returns the consumer of a queue.
func (s *Store) consumer(queue string) (*consumer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("%w: the Store is closed", ErrState)
	}
	c := s.consumers[queue]
	if c == nil {
		c = &consumer{queue: queue, claimSlot: make(chan struct{}, 1)}
		s.consumers[queue] = c
	}
	return c, nil
}

// worker returns the row, and makes it if there is none. It also returns whether the queue has a
// limit, and whether that state is so old that the row should be read again.
func (c *consumer) worker(ctx context.Context, s *Store) (row registration, limited, old bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.row.id == 0 {
		c.row, c.limited, err = s.register(ctx, c.queue, uniqueName()+"/"+c.queue, WorkerReady)
		c.asOf = time.Now()
	}
	return c.row, c.limited, time.Since(c.asOf) > consumerHeartbeat, err
}

// claim leases messages. If there are none it checks the row, which may have been suspended, or
// given up for dead while idle.
func (c *consumer) claim(ctx context.Context, s *Store, n int, lease time.Duration) ([]*MessageInfo, error) {
	for {
		row, limited, old, err := c.worker(ctx, s)
		if err != nil {
			return nil, err
		}
		if old {
			if err := c.heartbeat(ctx, s, row); err != nil {
				return nil, err
			}
			continue
		}
		ms, err := c.claimAs(ctx, s, row.id, c.claimable(n), lease, limited)
		c.noteSizes(ms)
		if err != nil || len(ms) > 0 {
			return ms, err
		}
		if err := c.heartbeat(ctx, s, row); err != nil {
			return nil, err
		}
		if now, _, _, err := c.worker(ctx, s); now == row || err != nil {
			return nil, err // its row is fine, and there are no messages for it
		}
	}
}

// claimable bounds a claim of n messages by the size of the latest messages.
func (c *consumer) claimable(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return claimable(n, c.averageSize)
}

// noteSizes stores the average size of claimed messages.
func (c *consumer) noteSizes(ms []*MessageInfo) {
	if len(ms) == 0 {
		return
	}
	total := 0
	for _, m := range ms {
		total += m.stored
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.averageSize = total / len(ms)
}

// heartbeat sends a heartbeat for the row and stores the state that it returns. It forgets a row
// that is stopped, gone or taken over, so that the next call makes another.
func (c *consumer) heartbeat(ctx context.Context, s *Store, row registration) error {
	states, err := s.heartbeat(ctx, []int64{row.id})
	if err != nil {
		return err
	}
	state := states[row.id]
	if !state.isOf(row) {
		c.forgetRow(row)
		return nil
	}
	switch state.status {
	case WorkerReady, WorkerPolling:
		c.noteLimited(row, state.limited)
		return nil
	case WorkerInterrupted:
		if _, err := s.moveWorker(ctx, row.id, WorkerSuspended); err != nil {
			return err
		}
		fallthrough
	case WorkerSuspended:
		return fmt.Errorf("%w: worker %d was %s; ResumeWorker lets it go on", ErrState, row.id, state.status)
	}
	c.forgetRow(row)
	return nil
}

// noteLimited stores whether the queue has a limit, as the row has just said.
func (c *consumer) noteLimited(row registration, limited bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.row == row {
		c.limited, c.asOf = limited, time.Now()
	}
}

func (c *consumer) claimAs(ctx context.Context, s *Store, id int64, n int, lease time.Duration, limited bool) ([]*MessageInfo, error) {
	if s.cfg.Concurrent {
		select {
		case c.claimSlot <- struct{}{}:
			defer func() { <-c.claimSlot }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var ms []*MessageInfo
	var err error
	if limited {
		var room capacity
		ms, room, err = s.claimLimited(ctx, c.queue, id, n, lease, true)
		if err == nil && room.closed() {
			err = fmt.Errorf("the limits of its policy allow no delivery now: %w", &RateLimitError{Wait: max(room.wait, capacityWait)})
		}
	} else {
		ms, err = s.claim(ctx, c.queue, id, n, lease, true)
	}
	if err == nil {
		err = s.findRuns(ctx, ms)
	}
	return ms, err
}

// forgetRow drops a row that is stopped, gone or taken over, so that the next call makes another.
func (c *consumer) forgetRow(row registration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.row == row {
		c.row = registration{}
	}
}

// registered returns the rows of consumers that have one.
func registered(consumers map[string]*consumer) []registration {
	var rows []registration
	for _, c := range consumers {
		c.mu.Lock()
		if c.row.id != 0 {
			rows = append(rows, c.row)
		}
		c.mu.Unlock()
	}
	return rows
}
