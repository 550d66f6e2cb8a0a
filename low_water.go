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
	short    bool      // the latest claim went on from here, and got fewer than it asked for
}

const (
	slowClaim = 20 * time.Millisecond // of up to maxClaim messages, by a database with nothing in its way
	fullShare = 9
)

// claimNext claims what an answer is to be to. If it goes on from the lane's
// place and finds too little, the answer is all that it finds: to hold that back
// until a slow claim from the beginning has found the rest would have the
// handlers wait. The lane's next claim, which is for that rest, says so in its answer.
func (r *running) claimNext(ctx context.Context, a *answer) ([]*MessageInfo, error) {
	l := a.lane
	if time.Now().Before(l.low.until) {
		ms, err := r.store.nextClaim(ctx, l.queue, l.worker.Load(), a.asked, l.lease, a.alone, l.low)
		l.low.move(ms, a.asked)
		if err != nil || len(ms) > 0 {
			l.low.short = len(ms) < a.asked
			a.asked = len(ms)
			return ms, err
		}
	}
	from := time.Now()
	ms, err := r.store.claim(ctx, l.queue, l.worker.Load(), a.asked, l.lease, a.alone)
	if err != nil {
		return nil, err
	}
	if took := time.Since(from); took >= slowClaim && len(r.store.dialect.lease.nextClaim) > 0 {
		l.low.until = time.Now().Add(fullShare * took)
		l.low.move(ms, a.asked)
	}
	a.rest, l.low.short = l.low.short, false
	return ms, nil
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
