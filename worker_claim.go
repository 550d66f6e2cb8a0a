package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// A claimCursor is where the claims of a queue runner begin.
//
// A database that keeps dead rows in an index for as long as some transaction
// may see them (PostgreSQL) has a claim read past all that were worked off in
// that time, and ever more. So after a claim that took long, and got all that it
// asked for, the next ones go on where it ended. What comes to stand before that
// place, as a message whose transaction committed late, or one that a group lets
// go, is found by looks from the beginning. Those hold up nothing, and take a tenth
// of the time; half of it after a claim that got less than it asked for. When one
// is quick, claims are from the beginning again.
//
// A worker that begins when there are tens of millions of dead rows may never see
// its first claim end in time. After one that did not, claims go on from now,
// until a look, which has more time, has found where to.
//
// It belongs to the dispatch loop.
type claimCursor struct {
	position             // zero: it does not stand
	skipped     position // before the first message that was passed over
	skippedLeft int      // messages that were passed over, and are to be claimed
	rescannedAt time.Time
	rescanTime  time.Duration // by the latest look, or by the claim that was from the beginning
	short       bool          // the latest claim from the place got less than it asked for
	unknown     bool          // a claim from the beginning did not end: the place is to be before what a look finds
}

// A position in the order of a queue's messages. The zero place is the beginning.
type position struct {
	priority int
	due, id  int64 // due in microseconds since 1970
}

const (
	slowClaim   = 20 * time.Millisecond // of up to maxClaim messages, by a database with nothing in its way
	rescanShare = 9                     // times as long as a read past dead rows took, until the next one
	maxSkipped  = 100                   // messages that a look returns
)

func positionOf(m *MessageInfo) position { return position{m.Priority, m.DueAt.UnixMicro(), m.ID} }

func (p position) isBeginning() bool { return p == position{} }

// isSet reports whether claims are not from the beginning.
func (w *claimCursor) isSet() bool { return !w.position.isBeginning() }

// next says where a claim of up to n messages is to go on, and of how many.
func (w *claimCursor) next(n int) (position, int) {
	if w.skippedLeft > 0 {
		return w.skipped, min(n, w.skippedLeft)
	}
	return w.position, n
}

// claimed takes in what a claim got. far is whether the database can go on from a place.
func (w *claimCursor) claimed(a queryAnswer, far bool) {
	full := len(a.ms) == a.asked
	switch {
	case a.from.isBeginning():
		*w = claimCursor{}
		if far && full && a.took >= slowClaim {
			w.position, w.rescannedAt, w.rescanTime = positionOf(a.ms[a.asked-1].m), time.Now(), a.took
		}
	case w.skippedLeft > 0 && a.from == w.skipped:
		if w.skippedLeft -= len(a.ms); !full && a.withSuspects {
			w.skippedLeft = 0 // the others are gone; otherwise the next may be waiting for a free slot
		}
	case a.from == w.position: // it has not been moved since that claim began
		w.short = !full
		if len(a.ms) > 0 {
			w.position = positionOf(a.ms[len(a.ms)-1].m)
		}
	}
}

// failed takes in that a claim had no answer.
func (w *claimCursor) failed(a queryAnswer) {
	w.skippedLeft = 0
	if a.stuck {
		*w = claimCursor{position: position{leastPriority, time.Now().UnixMicro(), 0}, unknown: true}
	}
}

// stuck reports whether a claim from the beginning or a poll that failed was most likely reading past
// dead rows: it took long, and a heartbeat that began after it was answered.
func (r *runner) stuck(start time.Time) bool {
	beat := r.lastHeartbeat.Load()
	return r.claimsFromPosition() && beat != nil && beat.After(start) && time.Since(start) >= statementTimeout/2
}

// rescanDue reports whether it is time for a look from the beginning.
func (w *claimCursor) rescanDue() bool {
	if !w.isSet() || w.skippedLeft > 0 {
		return false
	}
	wait := rescanShare * w.rescanTime
	if w.short {
		wait = w.rescanTime
	}
	return time.Since(w.rescannedAt) >= wait
}

// rescanEnd says up to where to look.
func (w *claimCursor) rescanEnd() position {
	to := w.position
	if w.unknown {
		to.priority = leastPriority
	}
	return to
}

// rescanned takes in what a look found. It reports whether there may be messages to claim.
func (w *claimCursor) rescanned(a queryAnswer) bool {
	if !w.isSet() {
		return false
	}
	w.rescannedAt, w.short = time.Now(), false
	if a.err != nil && w.unknown {
		*w = claimCursor{} // nobody knows what is before the place
		return true
	}
	if a.err != nil {
		w.rescanTime = max(w.rescanTime, a.took) // a database that is away says so at once
		return false
	}
	w.rescanTime = a.took
	switch {
	case a.took < slowClaim:
		*w = claimCursor{}
		return true
	case len(a.skipped) == 0:
		w.unknown = false
		return false
	}
	first := position{a.from.priority, a.skipped[0].due, a.skipped[0].id - 1}
	if w.unknown {
		w.position, w.unknown = first, false
	} else {
		w.skipped, w.skippedLeft = first, len(a.skipped)
	}
	return true
}

// rescan looks for messages that the claims of a queue runner have passed over. It ends when the worker is to drain.
func (r *runner) rescan(q *queueRunner, to position) queryAnswer {
	ctx, cancel := context.WithTimeout(r.maintenanceReads, maintenanceTimeout)
	defer cancel()
	a := queryAnswer{queue: q, rescan: true, from: to}
	start := time.Now()
	a.skipped, a.err = r.store.skippedPositions(ctx, q.worker.Load(), to)
	a.took = time.Since(start)
	if a.err != nil {
		return r.logFailedQuery(r.maintenanceReads, a)
	}
	return a
}

// skippedPositions returns the first messages that may be claimed and stand at or before a place, in order.
func (s *Store) skippedPositions(ctx context.Context, worker int64, to position) ([]position, error) {
	var found []position
	args := []any{worker, maxSkipped, to.priority, to.due, to.id}
	err := conn{s, nil}.rows(ctx, s.dialect.lease.skipped, args, func(rows *sql.Rows) error {
		p := position{priority: to.priority}
		err := rows.Scan(&p.due, &p.id)
		found = append(found, p)
		return err
	})
	return found, err
}

// nextClaim is claim from a place on.
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

// A capacity is what the limits of a queue leave for a claim.
type capacity struct {
	limited bool          // there are limits
	n       int           // how many may be leased; not limited: as many as were wanted
	wait    time.Duration // until the rate lets the next one begin; 0: at once
	hasRate bool          // there is a rate
}

// closed reports whether nothing may be leased now.
func (r capacity) closed() bool { return r.limited && r.n == 0 }

// capacityWait is how long to wait for somebody to finish with a message, where that does not show.
const capacityWait = 250 * time.Millisecond

// claimLimited is claim for a queue that has limits: it claims as many as they
// allow, in one transaction with the count, and says how many that were. One
// such claim of a queue goes on at a time.
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
	if sqlerr.Locked(err) { // another transaction has held the queue's row for long
		return nil, capacity{limited: true}, nil
	}
	if err != nil {
		return nil, left, err
	}
	return sortClaimed(ms, queue, worker), left, nil
}

// capacity asks how many of n messages of a queue may be leased.
func (c conn) capacity(ctx context.Context, queue int64, n int) (capacity, error) {
	left := capacity{limited: true}
	err := c.rows(ctx, c.store.dialect.limit.capacity, []any{queue, n}, func(rows *sql.Rows) error {
		var wait int64
		malformed, err := scanLoosely(rows, "n wait rated", &left.n, &wait, &left.hasRate)
		if malformed != "" {
			left = capacity{limited: true, n: n} // what no policy can have is no limit
			return err
		}
		left.n, left.wait = max(0, left.n), durationOf(wait)
		return err
	})
	return left, err
}

// maxLimitWait bounds how long a closed queue runner waits before it looks whether the
// limit is still what it was.
const maxLimitWait = 15 * time.Second

// A throttle is closed while the limits of a queue runner's queue let nothing begin.
type throttle struct {
	closed          bool
	waitsForHandler bool // what is to end is not known: somebody is to finish with a message
	timer           *time.Timer
}

// throttle has a queue runner claim nothing until its limits may have room again.
func (r *runner) throttle(q *queueRunner, left capacity) {
	q.throttle.waitsForHandler = left.wait == 0
	if q.throttle.waitsForHandler && q.capacityFreed.Swap(false) {
		return // this worker has finished with one since
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

// endThrottle lets a queue runner claim again if its time has come, or this worker has finished with a message.
func (q *queueRunner) endThrottle() {
	if q.throttle.closed && (q.throttleEnded.Swap(false) || q.throttle.waitsForHandler && q.capacityFreed.Swap(false)) {
		q.throttle.timer.Stop()
		q.throttle.closed, q.mayHaveMessages = false, true
	}
}

// capacityFreed notes that this worker has finished with a message of a queue runner.
func (r *runner) capacityFreed(q *queueRunner) {
	if q.limited.Load() {
		q.capacityFreed.Store(true)
		r.wake()
	}
}

// claim asks for messages of a queue runner, from a place on. It is not cut short when Run's ctx is
// done: a claim that committed unheard would keep its messages until the lease ends.
func (r *runner) claim(q *queueRunner, n int, alone bool, place position) queryAnswer {
	a := queryAnswer{queue: q, asked: n, withSuspects: alone}
	if q.claimUnknown.Load() {
		if a.err = r.releaseUnknownClaim(q); a.err != nil {
			return r.logFailedQuery(r.maintenanceReads, a)
		}
	}
	ctx, cancel := context.WithTimeout(r.handlerBase, statementTimeout)
	defer cancel()
	var ms []*MessageInfo
	var err error
	start := time.Now()
	switch {
	case q.limited.Load():
		ms, a.capacity, err = r.store.claimLimited(ctx, q.queue, q.worker.Load(), n, q.lease, alone)
		a.asked = a.capacity.n
		q.limited.Store(err != nil || a.capacity.limited)
	case place.isBeginning():
		ms, err = r.store.claim(ctx, q.queue, q.worker.Load(), n, q.lease, alone)
		a.took, a.stuck = time.Since(start), err != nil && r.stuck(start)
	default:
		ms, err = r.store.nextClaim(ctx, q.queue, q.worker.Load(), n, q.lease, alone, place)
		a.from = place
	}
	if err == nil && !q.workflow {
		err = r.store.findRuns(ctx, ms)
	}
	if err != nil {
		// It may have committed all the same.
		q.claimUnknown.Store(true)
		a.err = err
		return r.logFailedQuery(r.handlerBase, a)
	}
	a.ms = r.trackClaimed(q, ms, start.Add(q.lease))
	return a
}

// trackClaimed makes deliveries of messages that were claimed.
func (r *runner) trackClaimed(q *queueRunner, ms []*MessageInfo, until time.Time) []*delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	ds := make([]*delivery, 0, len(ms))
	for _, m := range ms {
		d := &delivery{m: m, queue: q, until: until}
		m.delivery = &d.state
		// An old one lost its lease, and this worker took the message again; or its
		// run has ended and was retried, before the old one was put away.
		if old := r.held[m.ID]; old != nil && !old.state.settled.Load() {
			r.loseLease(old)
		}
		r.held[m.ID] = d
		ds = append(ds, d)
	}
	return ds
}

// releaseUnknownClaim clears up after a claim with an unknown end. It has longer each time that it
// failed: a worker with tens of millions of dead rows behind it may need it, but one whose
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

// releaseOrphans gives back, uncounted, what a lost claim left in the table.
func (r *runner) releaseOrphans(ctx context.Context, q *queueRunner) error {
	r.mu.Lock()
	var ids []int64
	for id := range r.held {
		ids = append(ids, id)
	}
	r.mu.Unlock()
	list, err := jsonList(ids)
	if err != nil {
		return err
	}
	return r.store.single(ctx, func(c conn) error {
		n, err := c.exec(ctx, r.store.dialect.lease.orphans, q.worker.Load(), q.incarnation.Load(), list)
		if n > 0 {
			r.log.Info("pgqrs: gave back messages of a claim whose answer was lost", "queue", q.queue, "messages", n)
		}
		return err
	})
}

// poll asks which workers have messages due.
func (r *runner) poll(workers []int64) queryAnswer {
	ctx, cancel := context.WithTimeout(r.handlerBase, statementTimeout)
	defer cancel()
	a := queryAnswer{due: map[int64]bool{}}
	list, err := jsonList(workers)
	if err != nil {
		a.err = err
		return r.logFailedQuery(r.handlerBase, a)
	}
	start := time.Now()
	ids, err := conn{r.store, nil}.ids(ctx, r.store.dialect.worker.poll, list)
	if err != nil {
		a.err, a.stuck = err, r.stuck(start)
		return r.logFailedQuery(r.handlerBase, a)
	}
	for _, id := range ids {
		a.due[id] = true
	}
	return a
}

// logFailedQuery logs why the database gave no answer, unless the question was cut short by the end of ctx.
func (r *runner) logFailedQuery(ctx context.Context, a queryAnswer) queryAnswer {
	if ctx.Err() != nil {
		return a
	}
	r.log.Warn("pgqrs: could not look for messages; trying again", "err", a.err)
	return a
}
