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
	// A sample is fresh for a second or for ten times as long as it took to take, whichever is
	// more, up to the limit of freshest.
	fresh      = time.Second
	freshest   = 10 * time.Second
	spacing    = 2 * time.Second  // between two samples that are kept
	kept       = 10 * time.Minute // of samples
	keptPoints = 50_000           // a point is one queue in one sample
)

// samples are the queue depths of the last minutes. A sample is taken only if a page asks for one
// and the last sample is not fresh. So the database is asked once a second at most, however many
// pages are open, and not at all if none is.
type samples struct {
	mu     sync.Mutex
	last   sample
	took   time.Duration // to take the last sample
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

// due reports whether the last sample is not fresh. A costly sample stays fresh for longer, so that
// the dashboard never keeps a database busy by counting deep queues.
func (s *samples) due(now time.Time) bool {
	return s.last.at.IsZero() || now.Sub(s.last.at) >= min(max(fresh, 10*s.took), freshest)
}

// forget makes the next page ask again, because an action has changed something.
func (s *samples) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = sample{}
}

// keep adds a sample to the ring, and drops old samples and those over keptPoints.
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

// inflow returns how many messages were enqueued in the last minute. It is the growth of the queue
// plus the messages that were archived or dead-lettered. It is known if there is a sample from
// about a minute ago and no count has reached its limit.
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

// waiting returns how many messages are unfinished.
func waiting(q pgqrs.QueueDepth) int64 { return q.Ready + q.Scheduled + q.Blocked + q.Leased }
