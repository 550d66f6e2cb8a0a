package dashboard

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

const (
	fresh      = time.Second      // how long a sample serves all pages; ten times as long as it took, if that is more,
	freshest   = 10 * time.Second // up to this
	spacing    = 2 * time.Second  // between two that are kept
	kept       = 10 * time.Minute // of them
	keptPoints = 50_000           // one a queue and sample
)

// samples are the last minutes of queue depths. One is taken when a page asks
// for it and the last is not fresh; so while nobody looks there are none, and
// however many look the database is asked once a second at most.
type samples struct {
	mu     sync.Mutex
	last   sample
	took   time.Duration // to take the last
	ring   []sample      // by time
	points int           // in the ring
}

type sample struct {
	at     time.Time
	queues []pgqrs.QueueDepth // by name
}

// find returns a queue of the sample.
func (s sample) find(name string) (pgqrs.QueueDepth, bool) {
	i, ok := slices.BinarySearchFunc(s.queues, name, func(q pgqrs.QueueDepth, name string) int { return strings.Compare(q.Name, name) })
	if !ok {
		return pgqrs.QueueDepth{}, false
	}
	return s.queues[i], true
}

// take returns a fresh sample and the ones before it, which the caller must not change.
func (s *samples) take(ctx context.Context, store *pgqrs.Store) (sample, []sample, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.due(now) {
		queues, err := store.Depths(ctx)
		if err != nil {
			return sample{}, nil, err
		}
		slices.SortFunc(queues, func(a, b pgqrs.QueueDepth) int { return strings.Compare(a.Name, b.Name) })
		s.last, s.took = sample{now, queues}, time.Since(now)
		s.keep(s.last)
	}
	return s.last, slices.Clone(s.ring), nil
}

// due reports whether the last sample is not fresh. One that was costly stays so
// for longer, so that looking at deep queues is never what keeps a database busy.
func (s *samples) due(now time.Time) bool {
	return s.last.at.IsZero() || now.Sub(s.last.at) >= min(max(fresh, 10*s.took), freshest)
}

// forget makes the next page ask again, because an action has changed something.
func (s *samples) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = sample{}
}

// keep adds a sample to the ring, and drops what is too old or too much.
func (s *samples) keep(new sample) {
	if n := len(s.ring); n > 0 && new.at.Sub(s.ring[n-1].at) < spacing {
		return
	}
	s.ring = append(s.ring, new)
	s.points += len(new.queues)
	drop := 0
	for drop < len(s.ring)-1 && (new.at.Sub(s.ring[drop].at) > kept || s.points > keptPoints) {
		s.points -= len(s.ring[drop].queues)
		drop++
	}
	s.ring = slices.Delete(s.ring, 0, drop)
}

// inflow is how many messages came to a queue in the last minute: by how much
// it has grown, and what left it for the archive or the dead letters. It is
// known once there is a sample of about a minute ago, if nothing was counted
// to its limit.
func inflow(now sample, ring []sample, name string) (int64, bool) {
	q, ok := now.find(name)
	if !ok {
		return 0, false
	}
	for _, old := range slices.Backward(ring) {
		age := now.at.Sub(old.at)
		if age < 55*time.Second {
			continue
		}
		o, ok := old.find(name)
		if age > 65*time.Second || !ok || waiting(q) >= pgqrs.DepthLimit || waiting(o) >= pgqrs.DepthLimit {
			return 0, false
		}
		return max(0, waiting(q)-waiting(o)+q.ArchivedLastMinute+q.DiedLastMinute), true
	}
	return 0, false
}

// waiting is what has yet to be done.
func waiting(q pgqrs.QueueDepth) int64 { return q.Ready + q.Scheduled + q.Blocked + q.Leased }
