package pgqrs

import (
	"context"
	"database/sql"
	"time"
)

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
	if sqlState(err) == "55P03" { // lock_not_available: a transaction has had the queue's row for long, of the application or of a process that hangs
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
