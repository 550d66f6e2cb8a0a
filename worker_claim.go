package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// A claimCursor is the position from which the next claim from a queue starts.
//
// PostgreSQL keeps dead rows in an index for as long as a transaction may see them. A claim reads
// past all rows that were worked off in that time, and ever more of them. So after a claim that
// took long and returned all that it asked for, the next claims continue where it ended.
//
// A message can appear before that position: its transaction committed late, or its group unblocked
// it. Rescans from the beginning find such messages. They delay no claim, and take a tenth of the
// time, or half of it after a claim that returned less than it asked for. After a quick rescan,
// claims start from the beginning again.
//
// A worker that starts among tens of millions of dead rows may never see its first claim end in
// time. After such a claim the cursor seeks: claims continue from now, until a rescan, which has
// more time, has found the position.
type claimCursor struct {
	state       cursorState
	position    position
	skippedFrom position      // the position before the first skipped message
	skippedLeft int           // skipped messages that are to be claimed
	rescannedAt time.Time     // the latest rescan, or the claim from the beginning
	rescanTime  time.Duration // that it took
	short       bool          // the latest claim from the position returned less than it asked for
}

// A cursorState says where claims start.
type cursorState int

const (
	atBeginning cursorState = iota // claims start from the beginning
	atPosition                     // claims continue after position
	atSkipped                      // claims take skipped messages first
	seeking                        // claims continue from now, and a rescan has to find the position
)

// A position is a place in the order of a queue's messages. The zero position is the beginning.
type position struct {
	priority int
	due, id  int64 // due in microseconds since 1970
}

const (
	slowClaim   = 20 * time.Millisecond // of up to maxClaim messages, without dead rows
	rescanShare = 9                     // factor of the time of a read past dead rows, until the next one
	maxSkipped  = 100                   // messages that a rescan returns
)

func positionOf(m *MessageInfo) position { return position{m.Priority, m.DueAt.UnixMicro(), m.ID} }

func (p position) isBeginning() bool { return p == position{} }

// isSet reports whether claims do not start from the beginning.
func (c *claimCursor) isSet() bool { return c.state != atBeginning }

// next returns the position from which a claim of up to n messages starts, and how many messages it
// asks for.
func (c *claimCursor) next(n int) (position, int) {
	if c.state == atSkipped {
		return c.skippedFrom, min(n, c.skippedLeft)
	}
	return c.position, n
}

// claimed moves the cursor after a claim.
func (c *claimCursor) claimed(a *claimAnswer, claimsFromPosition bool) {
	full := len(a.ms) == a.asked
	switch {
	case a.from.isBeginning():
		*c = claimCursor{}
		if claimsFromPosition && full && a.took >= slowClaim {
			*c = claimCursor{state: atPosition, position: positionOf(a.ms[a.asked-1].m), rescannedAt: time.Now(), rescanTime: a.took}
		}
	case c.state == atSkipped && a.from == c.skippedFrom:
		c.skippedLeft -= len(a.ms)
		if !full && a.withSuspects {
			// The others are gone. Without suspects the next one may wait for a free slot.
			c.skippedLeft = 0
		}
		if c.skippedLeft == 0 {
			c.state = atPosition
		}
	case a.from == c.position: // the cursor has not moved since that claim began
		c.short = !full
		if len(a.ms) > 0 {
			c.position = positionOf(a.ms[len(a.ms)-1].m)
		}
	}
}

// claimFailed moves the cursor after a claim without an answer.
func (c *claimCursor) claimFailed(a *claimAnswer) {
	if c.state == atSkipped {
		c.state, c.skippedLeft = atPosition, 0
	}
	if a.stuck {
		*c = claimCursor{state: seeking, position: position{leastPriority, time.Now().UnixMicro(), 0}}
	}
}

// rescanDue reports whether it is time for a rescan.
func (c *claimCursor) rescanDue() bool {
	if !c.isSet() || c.state == atSkipped {
		return false
	}
	wait := rescanShare * c.rescanTime
	if c.short {
		wait = c.rescanTime
	}
	return time.Since(c.rescannedAt) >= wait
}

// rescanEnd returns where a rescan ends.
func (c *claimCursor) rescanEnd() position {
	to := c.position
	if c.state == seeking {
		to.priority = leastPriority
	}
	return to
}

// rescanned moves the cursor after a rescan. It reports whether there may be messages to claim.
func (c *claimCursor) rescanned(a *rescanAnswer) bool {
	if !c.isSet() {
		return false
	}
	c.rescannedAt, c.short = time.Now(), false
	if a.err != nil && c.state == seeking {
		*c = claimCursor{} // messages before the position would never be found
		return true
	}
	if a.err != nil {
		c.rescanTime = max(c.rescanTime, a.took) // an unavailable database fails at once
		return false
	}
	c.rescanTime = a.took
	if a.took < slowClaim {
		*c = claimCursor{}
		return true
	}
	if len(a.skipped) == 0 {
		c.state = atPosition
		return false
	}
	first := position{a.to.priority, a.skipped[0].due, a.skipped[0].id - 1}
	if c.state == seeking {
		c.state, c.position = atPosition, first
	} else {
		c.state, c.skippedFrom, c.skippedLeft = atSkipped, first, len(a.skipped)
	}
	return true
}

// stuck reports whether a claim from the beginning or a poll that failed was most likely reading
// past dead rows. It assumes so if the query took long, and the database answered a heartbeat that
// began after it.
func (r *runner) stuck(start time.Time) bool {
	beat := r.lastHeartbeat.Load()
	return r.store.dialect.claimsFromPosition && beat != nil && beat.After(start) && time.Since(start) >= statementTimeout/2
}

// rescan looks for messages that the claims of a queue have skipped. It ends with the drain.
func (r *runner) rescan(a *rescanAnswer) {
	ctx, cancel := context.WithTimeout(r.maintenanceReads, maintenanceTimeout)
	defer cancel()
	start := time.Now()
	a.skipped, a.err = r.store.skippedPositions(ctx, a.queue.worker.Load(), a.to)
	a.took = time.Since(start)
}

// skippedPositions returns the positions of the first claimable messages at or before a position,
// in order.
func (s *Store) skippedPositions(ctx context.Context, worker int64, to position) ([]position, error) {
	var found []position
	args := []any{worker, maxSkipped, to.priority, to.due, to.id}
	err := s.onPool().rows(ctx, s.dialect.lease.skipped, args, func(rows *sql.Rows) error {
		p := position{priority: to.priority}
		err := rows.Scan(&p.due, &p.id)
		found = append(found, p)
		return err
	})
	return found, err
}

// nextClaim is claim from a position on.
func (s *Store) nextClaim(ctx context.Context, queue string, worker int64, n int, lease time.Duration, alone bool, from position) ([]*MessageInfo, error) {
	var ms []*MessageInfo
	err := s.single(ctx, func(c conn) (err error) {
		ms, err = c.claim(ctx, s.dialect.lease.nextClaim, []any{worker, lease.Microseconds(), alone, n, from.priority, from.due, from.id})
		return err
	})
	if err != nil {
		return nil, err
	}
	return sortClaimed(ms, queue, worker), nil
}

// A capacity is how many messages the limits of a queue allow a claim.
type capacity struct {
	limited bool          // there are limits
	n       int           // how many may be leased, without limits as many as were wanted
	wait    time.Duration // until the rate lets the next one begin, 0 means at once
	hasRate bool          // there is a rate
}

// closed reports whether nothing may be leased now.
func (r capacity) closed() bool { return r.limited && r.n == 0 }

// capacityWait is how long to wait for another worker to finish with a message, which does not
// show.
const capacityWait = 250 * time.Millisecond

// claimLimited is claim for a queue that has limits. It claims as many messages as they allow, in
// one transaction with the count, and returns the capacity. One such claim of a queue runs at a
// time.
func (s *Store) claimLimited(ctx context.Context, queue string, worker int64, n int, lease time.Duration, alone bool) ([]*MessageInfo, capacity, error) {
	var ms []*MessageInfo
	var left capacity
	err := s.atomic(ctx, func(c conn) (err error) {
		ms, left = nil, capacity{n: n}
		queues, err := c.ids(ctx, s.dialect.limit.lock, worker)
		if err == nil && len(queues) > 0 {
			left, err = c.capacity(ctx, queues[0], n)
		}
		if err != nil || left.closed() {
			return err
		}
		ms, err = c.claim(ctx, s.dialect.lease.claim, []any{worker, lease.Microseconds(), alone, left.n})
		if err == nil && left.hasRate && len(ms) > 0 {
			_, err = c.exec(ctx, s.dialect.limit.spend, queues[0], len(ms))
		}
		return err
	})
	if sqlerr.Locked(err) { // another transaction has locked the queue's row for long
		return nil, capacity{limited: true}, nil
	}
	if err != nil {
		return nil, left, err
	}
	return sortClaimed(ms, queue, worker), left, nil
}

// capacity returns how many of n messages of a queue may be leased.
func (c conn) capacity(ctx context.Context, queue int64, n int) (capacity, error) {
	left := capacity{limited: true}
	err := c.rows(ctx, c.store.dialect.limit.capacity, []any{queue, n}, func(rows *sql.Rows) error {
		var wait int64
		malformed, err := scanLoosely(rows, "n wait rated", &left.n, &wait, &left.hasRate)
		if malformed != "" {
			left = capacity{limited: true, n: n} // an invalid limit is no limit
			return err
		}
		left.n, left.wait = max(0, left.n), durationOf(wait)
		return err
	})
	return left, err
}

// maxLimitWait bounds how long a throttled queue runner waits before it checks whether the limit
// has changed.
const maxLimitWait = 15 * time.Second

// A throttle is closed while the limits of a queue allow no delivery.
type throttle struct {
	closed          bool
	waitsForHandler bool // the time of its end is unknown, since a message has to end first
	timer           *time.Timer
}

// throttle stops claims of a queue until its limits may allow a delivery again.
func (r *runner) throttle(q *queueRunner, left capacity) {
	q.throttle.waitsForHandler = left.wait == 0
	if q.throttle.waitsForHandler && q.capacityFreed.Swap(false) {
		return // this worker has finished with a message since
	}
	q.throttle.closed = true
	wait := min(left.wait, maxLimitWait)
	if q.throttle.waitsForHandler {
		wait = r.PollInterval
	}
	q.throttle.timer = time.AfterFunc(wait, func() {
		q.throttleEnded.Store(true)
		r.wake()
	})
}

// endThrottle lets a queue runner claim again if the throttle's time is over, or if this worker has
// finished with a message.
func (q *queueRunner) endThrottle() {
	if q.throttle.closed && (q.throttleEnded.Swap(false) || q.throttle.waitsForHandler && q.capacityFreed.Swap(false)) {
		q.throttle.timer.Stop()
		q.throttle.closed, q.mayHaveMessages = false, true
	}
}

// capacityFreed records that this worker has finished with a message of a queue runner.
func (r *runner) capacityFreed(q *queueRunner) {
	if q.limited.Load() {
		q.capacityFreed.Store(true)
		r.wake()
	}
}

// claim claims messages of a queue. It does not end with Run's ctx: a claim that committed without
// an answer would keep its messages until the lease ends.
func (r *runner) claim(a *claimAnswer) {
	q := a.queue
	if q.claimUnknown.Load() {
		if a.err = r.releaseUnknownClaim(q); a.err != nil {
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.handlerBase, statementTimeout)
	defer cancel()
	start := time.Now()
	ms, err := r.claimMessages(ctx, a, start)
	a.elapsed = time.Since(start)
	if err == nil && !q.workflow {
		err = r.store.findRuns(ctx, ms)
	}
	a.err = err
	if err != nil {
		q.claimUnknown.Store(true) // the claim may have committed nevertheless
		a.timedOut = ctx.Err() != nil
		a.refused = ctx.Err() == nil && r.store.dialect.isRefused(err)
		return
	}
	a.ms = r.trackClaimed(q, ms, start.Add(q.lease))
}

// claimMessages runs the claim's statement: with the limits of the queue, from the beginning, or
// from a position.
func (r *runner) claimMessages(ctx context.Context, a *claimAnswer, start time.Time) (ms []*MessageInfo, err error) {
	q := a.queue
	worker := q.worker.Load()
	switch {
	case q.limited.Load():
		a.from = position{}
		ms, a.capacity, err = r.store.claimLimited(ctx, q.queue, worker, a.asked, q.lease, a.withSuspects)
		a.asked = a.capacity.n
		q.limited.Store(err != nil || a.capacity.limited)
	case a.from.isBeginning():
		ms, err = r.store.claim(ctx, q.queue, worker, a.asked, q.lease, a.withSuspects)
		a.took, a.stuck = time.Since(start), err != nil && r.stuck(start)
	default:
		ms, err = r.store.nextClaim(ctx, q.queue, worker, a.asked, q.lease, a.withSuspects, a.from)
	}
	return ms, err
}

// trackClaimed makes deliveries of claimed messages.
func (r *runner) trackClaimed(q *queueRunner, ms []*MessageInfo, until time.Time) []*delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	ds := make([]*delivery, 0, len(ms))
	for _, m := range ms {
		d := &delivery{m: m, queue: q, until: until}
		m.delivery = &d.state
		// The old delivery lost its lease, and this worker claimed the message again. Or its run
		// has ended and was retried before the old delivery was removed.
		if old := r.held[m.ID]; old != nil && !old.state.settled.Load() {
			r.loseLease(old)
		}
		r.held[m.ID] = d
		ds = append(ds, d)
	}
	return ds
}

// releaseUnknownClaim releases the messages of a claim with an unknown outcome. Its timeout grows
// with each failure. A worker with tens of millions of dead rows may need that, but a worker whose
// connection is gone should not wait for that long.
func (r *runner) releaseUnknownClaim(q *queueRunner) error {
	wait := cmp.Or(q.releaseTimeout, statementTimeout)
	ctx, cancel := context.WithTimeout(r.maintenanceReads, wait)
	defer cancel()
	if err := r.releaseOrphans(ctx, q); err != nil {
		if ctx.Err() != nil || !r.store.dialect.isRefused(err) {
			q.releaseTimeout = min(2*wait, maintenanceTimeout)
			return err
		}
		r.repeated.key("strays "+q.queue).Error("pgqrs: the database refuses to take back messages of a claim whose answer was lost; they are ready again when their leases end",
			"queue", q.queue, "err", err)
	}
	q.releaseTimeout = 0
	q.claimUnknown.Store(false)
	return nil
}

// releaseOrphans releases the messages that a lost claim has leased. The attempt does not count.
func (r *runner) releaseOrphans(ctx context.Context, q *queueRunner) error {
	r.mu.Lock()
	var ids []int64
	for id := range r.held {
		ids = append(ids, id)
	}
	r.mu.Unlock()
	return r.store.single(ctx, func(c conn) error {
		n, err := c.exec(ctx, r.store.dialect.lease.orphans, q.worker.Load(), q.incarnation.Load(), idList(ids))
		if n > 0 {
			r.log.Info("pgqrs: gave back messages of a claim whose answer was lost", "queue", q.queue, "messages", n)
		}
		return err
	})
}

// poll finds out which workers have due messages.
func (r *runner) poll(a *pollAnswer) {
	ctx, cancel := context.WithTimeout(r.handlerBase, statementTimeout)
	defer cancel()
	start := time.Now()
	ids, err := r.store.onPool().ids(ctx, r.store.dialect.worker.poll, idList(a.workers))
	a.err = err
	if err != nil {
		a.stuck = r.stuck(start)
		return
	}
	a.due = map[int64]bool{}
	for _, id := range ids {
		a.due[id] = true
	}
}
