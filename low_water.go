package pgqrs

import (
	"context"
	"database/sql"
	"time"
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
