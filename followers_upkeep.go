package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	firstRevisit = 50 * time.Millisecond
	maxRevisit   = time.Second // between two looks at a group
	maxRevisits  = 20          // then it is left to the sweep
	sweepPage    = 1000        // groups
	sweepPages   = 10          // in one round of the upkeep
	pruneGroups  = time.Hour   // since a group was last used
)

// revisits are followers of what ended while another transaction had them
// locked, such as one that was enqueueing to a group. Each is looked at again, ever less
// often, until it has been. What a process leaves undone the sweep of any Worker finds.
type revisits struct {
	mu     sync.Mutex
	due    map[follower]revisit
	timer  *time.Timer // nil: there are none
	at     time.Time   // when it goes off; the past while they are being looked at
	closed bool
}

// A revisit is when to look at a follower again.
type revisit struct {
	at    time.Time
	tries int  // that were in vain
	open  bool // what ended did so in a caller's transaction, whose end shows nowhere
}

// revisit has followers looked at again soon.
func (s *core) revisit(f followers, open bool) {
	r := &s.revisits
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.due == nil {
		r.due = map[follower]revisit{}
	}
	first := time.Now().Add(firstRevisit)
	for x := range f {
		r.due[x] = revisit{at: first, open: open || r.due[x].open}
	}
	if r.timer == nil || r.at.After(first) {
		s.revisitAt(first)
	}
}

// revisitAt sets the timer. The caller holds the lock.
func (s *core) revisitAt(at time.Time) {
	r := &s.revisits
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	if !r.closed {
		r.timer, r.at = time.AfterFunc(time.Until(at), s.revisitNow), at
	}
}

func (s *core) revisitNow() {
	r := &s.revisits
	tried := r.take()
	f := followers{}
	for x := range tried {
		f[x] = true
	}
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	missed, err := (&Store{core: s}).visit(ctx, f)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && !r.closed {
		s.log.Warn("pgqrs: could not let go what waits for messages that have ended; trying again", "err", err)
	}
	for x, v := range tried {
		v.tries++
		v.at = time.Now().Add(min(firstRevisit<<v.tries, maxRevisit))
		if _, anew := r.due[x]; !anew && (missed[x] || v.open) && v.tries < maxRevisits {
			r.due[x] = v
		}
	}
	r.timer = nil
	if len(r.due) > 0 {
		s.revisitAt(slices.MinFunc(slices.Collect(maps.Values(r.due)), func(a, b revisit) int { return a.at.Compare(b.at) }).at)
	}
}

// take takes out those that are due.
func (r *revisits) take() map[follower]revisit {
	r.mu.Lock()
	defer r.mu.Unlock()
	due := map[follower]revisit{}
	for x, v := range r.due {
		if !v.at.After(time.Now()) {
			due[x] = v
			delete(r.due, x)
		}
	}
	return due
}

// visit lets go what may follow, and returns what it could not look at.
func (s *Store) visit(ctx context.Context, f followers) (missed followers, err error) {
	err = s.atomic(ctx, func(c conn) (err error) {
		missed, err = c.follow(ctx, f)
		return err
	})
	if err != nil {
		return f, err
	}
	return missed, nil
}

// stop ends the visits.
func (r *revisits) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

// A sweepCursor is how far a sweep has come.
type sweepCursor struct {
	queue int64
	group string
}

// sweep looks for what is blocked though nothing is in its way: a process ended
// at the wrong time, or pgqrs 0.15 ended a message.
func (r *running) sweep(ctx context.Context) {
	queues := make([]string, len(r.lanes))
	for i, l := range r.lanes {
		queues[i] = l.queue
	}
	list, err := jsonTexts(queues)
	if err == nil {
		err = errors.Join(r.sweepGroups(ctx, list), r.sweepBatches(ctx, list))
	}
	if err != nil {
		r.upkeepFailed(ctx, "look for messages that are held up", err)
	}
}

// sweepGroups looks at so many pages of groups, from where it left off.
func (r *running) sweepGroups(ctx context.Context, queues string) error {
	for range sweepPages {
		n, err := r.sweepPage(ctx, queues)
		if err != nil {
			return err
		}
		if n < sweepPage {
			r.swept = sweepCursor{}
			return nil
		}
	}
	return nil
}

// sweepPage looks at a page of groups and returns how many those were.
func (r *running) sweepPage(parent context.Context, queues string) (n int, err error) {
	ctx, cancel := context.WithTimeout(parent, statementTimeout)
	defer cancel()
	stuck := followers{}
	last := r.swept
	args := []any{queues, last.queue, last.group, sweepPage}
	err = conn{r.store, nil}.rows(ctx, r.store.dialect.group.sweep, args, func(rows *sql.Rows) error {
		n++
		var g groupName
		var room bool
		err := rows.Scan(&last.queue, &g.queue, &g.key, &room)
		last.group = g.key
		if room {
			stuck.after(g.queue, g.key, 0)
		}
		return err
	})
	if err != nil {
		return n, err
	}
	r.swept = last
	if len(stuck) > 0 {
		_, err = r.store.visit(ctx, stuck)
	}
	return n, err
}

// sweepBatches looks for messages that wait for batches which are done.
func (r *running) sweepBatches(parent context.Context, queues string) error {
	ctx, cancel := context.WithTimeout(parent, statementTimeout)
	defer cancel()
	ids, err := conn{r.store, nil}.ids(ctx, r.store.dialect.batch.sweep, queues, sweepPage)
	if err != nil || len(ids) == 0 {
		return err
	}
	done := followers{}
	for _, id := range ids {
		done.after("", "", id)
	}
	_, err = r.store.visit(ctx, done)
	return err
}
