package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// A lowWater is where the claims of a lane begin.
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
// It belongs to the scheduler.
type lowWater struct {
	place        // zero: it does not stand
	passed place // before the first message that was passed over
	left   int   // messages that were passed over, and are to be claimed
	looked time.Time
	took   time.Duration // by the latest look, or by the claim that was from the beginning
	short  bool          // the latest claim from the place got less than it asked for
	sought bool          // a claim from the beginning did not end: the place is to be before what a look finds
}

// A place in the order of a queue's messages. The zero place is the beginning.
type place struct {
	priority int
	due, id  int64 // due in microseconds since 1970
}

const (
	slowClaim = 20 * time.Millisecond // of up to maxClaim messages, by a database with nothing in its way
	fullShare = 9                     // times as long as a read past dead rows took, until the next one
	maxPassed = 100                   // messages that a look returns
)

func placeOf(m *MessageInfo) place { return place{m.Priority, m.DueAt.UnixMicro(), m.ID} }

func (p place) isBeginning() bool { return p == place{} }

// stands reports whether claims are not from the beginning.
func (w *lowWater) stands() bool { return !w.place.isBeginning() }

// next says where a claim of up to n messages is to go on, and of how many.
func (w *lowWater) next(n int) (place, int) {
	if w.left > 0 {
		return w.passed, min(n, w.left)
	}
	return w.place, n
}

// claimed takes in what a claim got. far is whether the database can go on from a place.
func (w *lowWater) claimed(a answer, far bool) {
	full := len(a.ms) == a.asked
	switch {
	case a.from.isBeginning():
		*w = lowWater{}
		if far && full && a.took >= slowClaim {
			w.place, w.looked, w.took = placeOf(a.ms[a.asked-1].m), time.Now(), a.took
		}
	case w.left > 0 && a.from == w.passed:
		if w.left -= len(a.ms); !full && a.alone {
			w.left = 0 // the others are gone; otherwise the next may be waiting for a free slot
		}
	case a.from == w.place: // it has not been moved since that claim began
		w.short = !full
		if len(a.ms) > 0 {
			w.place = placeOf(a.ms[len(a.ms)-1].m)
		}
	}
}

// failed takes in that a claim had no answer.
func (w *lowWater) failed(a answer) {
	w.left = 0
	if a.stuck {
		*w = lowWater{place: place{leastPriority, time.Now().UnixMicro(), 0}, sought: true}
	}
}

// stuck reports whether a claim from the beginning or a poll that failed was most likely reading past
// dead rows: it took long, and a heartbeat that began after it was answered.
func (r *running) stuck(start time.Time) bool {
	beat := r.lastBeat.Load()
	return r.far() && beat != nil && beat.After(start) && time.Since(start) >= statementTimeout/2
}

// lookDue reports whether it is time for a look from the beginning.
func (w *lowWater) lookDue() bool {
	if !w.stands() || w.left > 0 {
		return false
	}
	wait := fullShare * w.took
	if w.short {
		wait = w.took
	}
	return time.Since(w.looked) >= wait
}

// lookTo says up to where to look.
func (w *lowWater) lookTo() place {
	to := w.place
	if w.sought {
		to.priority = leastPriority
	}
	return to
}

// hasLooked takes in what a look found. It reports whether there may be messages to claim.
func (w *lowWater) hasLooked(a answer) bool {
	if !w.stands() {
		return false
	}
	w.looked, w.short = time.Now(), false
	if a.err != nil && w.sought {
		*w = lowWater{} // nobody knows what is before the place
		return true
	}
	if a.err != nil {
		w.took = max(w.took, a.took) // a database that is away says so at once
		return false
	}
	w.took = a.took
	switch {
	case a.took < slowClaim:
		*w = lowWater{}
		return true
	case len(a.passed) == 0:
		w.sought = false
		return false
	}
	first := place{a.from.priority, a.passed[0].due, a.passed[0].id - 1}
	if w.sought {
		w.place, w.sought = first, false
	} else {
		w.passed, w.left = first, len(a.passed)
	}
	return true
}

// look looks for messages that the claims of a lane have passed over. It ends when the worker is to drain.
func (r *running) look(l *lane, to place) answer {
	ctx, cancel := context.WithTimeout(r.reads, readingTimeout)
	defer cancel()
	a := answer{lane: l, look: true, from: to}
	start := time.Now()
	a.passed, a.err = r.store.passed(ctx, l.worker.Load(), to)
	a.took = time.Since(start)
	if a.err != nil {
		return r.failed(r.reads, a)
	}
	return a
}

// passed returns the first messages that may be claimed and stand at or before a place, in order.
func (s *Store) passed(ctx context.Context, worker int64, to place) ([]place, error) {
	var found []place
	args := []any{worker, maxPassed, to.priority, to.due, to.id}
	err := conn{s, nil}.rows(ctx, s.dialect.lease.passed[0], args, func(rows *sql.Rows) error {
		p := place{priority: to.priority}
		err := rows.Scan(&p.due, &p.id)
		found = append(found, p)
		return err
	})
	return found, err
}

// nextClaim is claim from a place on.
func (s *Store) nextClaim(ctx context.Context, queue string, worker int64, n int, lease time.Duration, alone bool, from place) ([]*MessageInfo, error) {
	var ms []*MessageInfo
	err := s.single(ctx, func(c conn) (err error) {
		ms, err = c.claim(ctx, s.dialect.lease.nextClaim[0], []any{worker, lease.Microseconds(), alone, n, from.priority, from.due, from.id})
		return err
	})
	if err != nil {
		return nil, err
	}
	return arrange(ms, queue, worker), nil
}

// A room is what the limits of a queue leave for a claim.
type room struct {
	limited bool          // there are limits
	n       int           // how many may be leased; not limited: as many as were wanted
	wait    time.Duration // until the rate lets the next one begin; 0: at once
	rated   bool          // there is a rate
}

// closed reports whether nothing may be leased now.
func (r room) closed() bool { return r.limited && r.n == 0 }

// heldWait is how long to wait for somebody to finish with a message, where that does not show.
const heldWait = 250 * time.Millisecond

// claimLimited is claim for a queue that has limits: it claims as many as they
// allow, in one transaction with the count, and says how many that were. One
// such claim of a queue goes on at a time.
func (s *Store) claimLimited(ctx context.Context, queue string, worker int64, n int, lease time.Duration, alone bool) ([]*MessageInfo, room, error) {
	var ms []*MessageInfo
	var left room
	err := s.atomic(ctx, func(c conn) (err error) {
		ms, left = nil, room{n: n}
		queues, err := c.ids(ctx, s.dialect.limit.lock, worker)
		if err == nil && len(queues) > 0 {
			left, err = c.room(ctx, queues[0], n)
		}
		if err != nil || left.closed() {
			return err
		}
		ms, err = c.claim(ctx, s.dialect.lease.claim, []any{worker, lease.Microseconds(), alone, left.n})
		if err == nil && left.rated && len(ms) > 0 {
			_, err = c.exec(ctx, s.dialect.limit.take, queues[0], len(ms))
		}
		return err
	})
	if sqlerr.State(err) == "55P03" { // lock_not_available: a transaction has had the queue's row for long, of the application or of a process that hangs
		return nil, room{limited: true}, nil
	}
	if err != nil {
		return nil, left, err
	}
	return arrange(ms, queue, worker), left, nil
}

// room asks how many of n messages of a queue may be leased.
func (c conn) room(ctx context.Context, queue int64, n int) (room, error) {
	left := room{limited: true}
	err := c.rows(ctx, c.store.dialect.limit.room, []any{queue, n}, func(rows *sql.Rows) error {
		var wait int64
		malformed, err := scanLoosely(rows, "n wait rated", &left.n, &wait, &left.rated)
		if malformed != "" {
			left = room{limited: true, n: n} // what no policy can have is no limit
			return err
		}
		left.n, left.wait = max(0, left.n), durationOf(wait)
		return err
	})
	return left, err
}

// maxLimitWait bounds how long a closed lane waits before it looks whether the
// limit is still what it was.
const maxLimitWait = 15 * time.Second

// A gate is closed while the limits of a lane's queue let nothing begin.
type gate struct {
	closed bool
	held   bool // what is to end is not known: somebody is to finish with a message
	timer  *time.Timer
}

// close has a lane claim nothing until its limits may have room again.
func (r *running) close(l *lane, left room) {
	l.gate.held = left.wait == 0
	if l.gate.held && l.eased.Swap(false) {
		return // this worker has finished with one since
	}
	l.gate.closed = true
	wait := min(left.wait, maxLimitWait)
	if l.gate.held {
		wait = r.PollInterval
	}
	l.gate.timer = time.AfterFunc(wait, func() {
		l.opened.Store(true)
		r.ring()
	})
}

// open lets a lane claim again if its time has come, or this worker has finished with a message.
func (l *lane) open() {
	if l.gate.closed && (l.opened.Swap(false) || l.gate.held && l.eased.Swap(false)) {
		l.gate.timer.Stop()
		l.gate.closed, l.more = false, true
	}
}

// ease notes that this worker has finished with a message of a lane.
func (r *running) ease(l *lane) {
	if l.limited.Load() {
		l.eased.Store(true)
		r.ring()
	}
}

// claim asks for messages of a lane, from a place on. It is not cut short when Run's ctx is
// done: a claim that committed unheard would keep its messages until the lease ends.
func (r *running) claim(l *lane, n int, alone bool, place place) answer {
	a := answer{lane: l, asked: n, alone: alone}
	if l.doubtful.Load() {
		if a.err = r.settle(l); a.err != nil {
			return r.failed(r.reads, a)
		}
	}
	ctx, cancel := context.WithTimeout(r.base, statementTimeout)
	defer cancel()
	var ms []*MessageInfo
	var err error
	start := time.Now()
	switch {
	case l.limited.Load():
		ms, a.room, err = r.store.claimLimited(ctx, l.queue, l.worker.Load(), n, l.lease, alone)
		a.asked = a.room.n
		l.limited.Store(err != nil || a.room.limited)
	case place.isBeginning():
		ms, err = r.store.claim(ctx, l.queue, l.worker.Load(), n, l.lease, alone)
		a.took, a.stuck = time.Since(start), err != nil && r.stuck(start)
	default:
		ms, err = r.store.nextClaim(ctx, l.queue, l.worker.Load(), n, l.lease, alone, place)
		a.from = place
	}
	if err == nil && !l.workflow {
		err = r.store.findRuns(ctx, ms)
	}
	if err != nil {
		// It may have committed all the same.
		l.doubtful.Store(true)
		a.err = err
		return r.failed(r.base, a)
	}
	a.ms = r.take(l, ms, start.Add(l.lease))
	return a
}

// take makes deliveries of messages that were claimed.
func (r *running) take(l *lane, ms []*MessageInfo, until time.Time) []*delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	ds := make([]*delivery, 0, len(ms))
	for _, m := range ms {
		d := &delivery{m: m, lane: l, until: until}
		m.hold = &d.hold
		// An old one lost its lease, and this worker took the message again; or its
		// run has ended and was retried, before the old one was put away.
		if old := r.held[m.ID]; old != nil && !old.hold.settled.Load() {
			r.lose(old)
		}
		r.held[m.ID] = d
		ds = append(ds, d)
	}
	return ds
}

// settle clears up after a claim with an unknown end. It has longer each time that it
// failed: a worker with tens of millions of dead rows behind it may need it, but one whose
// connection is gone should not wait for that long.
func (r *running) settle(l *lane) error {
	wait := cmp.Or(l.settling, statementTimeout)
	ctx, cancel := context.WithTimeout(r.reads, wait)
	defer cancel()
	if err := r.releaseStrays(ctx, l); err != nil {
		if ctx.Err() != nil || !r.store.dialect.refused(err) {
			l.settling = min(2*wait, readingTimeout)
			return err
		}
		r.recurring.of("strays "+l.queue).Error("pgqrs: the database refuses to take back messages of a claim whose answer was lost; they are ready again when their leases end",
			"queue", l.queue, "err", err)
	}
	l.settling = 0
	l.doubtful.Store(false)
	return nil
}

// releaseStrays gives back, uncounted, what a lost claim left in the table.
func (r *running) releaseStrays(ctx context.Context, l *lane) error {
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
		n, err := c.exec(ctx, r.store.dialect.lease.strays, l.worker.Load(), l.since.Load(), list)
		if n > 0 {
			r.log.Info("pgqrs: gave back messages of a claim whose answer was lost", "queue", l.queue, "messages", n)
		}
		return err
	})
}

// poll asks which workers have messages due.
func (r *running) poll(workers []int64) answer {
	ctx, cancel := context.WithTimeout(r.base, statementTimeout)
	defer cancel()
	a := answer{due: map[int64]bool{}}
	list, err := jsonList(workers)
	if err != nil {
		a.err = err
		return r.failed(r.base, a)
	}
	start := time.Now()
	ids, err := conn{r.store, nil}.ids(ctx, r.store.dialect.worker.poll, list)
	if err != nil {
		a.err, a.stuck = err, r.stuck(start)
		return r.failed(r.base, a)
	}
	for _, id := range ids {
		a.due[id] = true
	}
	return a
}

// failed logs why the database gave no answer, unless the question was cut short by the end of ctx.
func (r *running) failed(ctx context.Context, a answer) answer {
	if ctx.Err() != nil {
		return a
	}
	r.log.Warn("pgqrs: could not look for messages; trying again", "err", a.err)
	return a
}
