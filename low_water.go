package pgqrs

import (
	"context"
	"time"
)

// A lowWater is where the claims of a lane begin, while it stands.
//
// A database that keeps dead rows in an index for as long as some transaction
// may see them (PostgreSQL) has a claim read past all that were worked off in
// that time, and ever more. So after a claim that took long, and got all that it asked
// for, the next ones go on where it ended. What comes to stand before that
// place, as a message whose transaction committed late, or one that a group
// lets go, is found by a claim from the beginning: as soon as there is less
// than was asked for, and whenever they have been done without for fullShare
// times what the latest took.
//
// It belongs to the claims of a lane, of which there is one at a time.
type lowWater struct {
	priority int
	due      time.Time
	id       int64
	until    time.Time // zero: it does not stand
}

const (
	slowClaim = 20 * time.Millisecond // of up to maxClaim messages, by a database with nothing in its way
	fullShare = 9
)

// claimNext claims messages of a lane: from its place on, if that stands, and what is missing then from the beginning.
func (r *running) claimNext(ctx context.Context, l *lane, n int, alone bool) ([]*MessageInfo, error) {
	var ms []*MessageInfo
	if time.Now().Before(l.low.until) {
		var err error
		ms, err = r.store.nextClaim(ctx, l.queue, l.worker.Load(), n, l.lease, alone, l.low)
		l.low.move(ms, n)
		if err != nil || len(ms) == n {
			return ms, err
		}
	}
	from, left := time.Now(), n-len(ms)
	first, err := r.store.claim(ctx, l.queue, l.worker.Load(), left, l.lease, alone && len(ms) == 0)
	if err != nil {
		return nil, err // what is in ms is given back then, with what the answer would have been
	}
	if took := time.Since(from); took >= slowClaim && len(r.store.dialect.lease.nextClaim) > 0 {
		l.low.until = time.Now().Add(fullShare * took)
		l.low.move(first, left)
	}
	if len(ms) == 0 {
		return first, nil
	}
	return arrange(append(first, ms...), l.queue, l.worker.Load()), nil
}

// move takes the place to the end of what a claim of n messages got, sorted.
// If those were fewer, it stands no longer.
func (w *lowWater) move(ms []*MessageInfo, n int) {
	if len(ms) < n {
		w.until = time.Time{}
		return
	}
	last := ms[n-1]
	w.priority, w.due, w.id = last.Priority, last.DueAt, last.ID
}

// nextClaim is claim from a place on.
func (s *Store) nextClaim(ctx context.Context, queue string, worker int64, n int, lease time.Duration, alone bool, from lowWater) ([]*MessageInfo, error) {
	var ms []*MessageInfo
	err := s.single(ctx, func(c conn) (err error) {
		ms, err = c.claim(ctx, s.dialect.lease.nextClaim[0], []any{worker, lease.Microseconds(), alone, n, from.priority, from.due.UnixMicro(), from.id})
		return err
	})
	if err != nil {
		return nil, err
	}
	return arrange(ms, queue, worker), nil
}
