package dashboard

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// keepEach keeps samples of a number of queues, a number of times.
func keepEach(s *samples, queues int, every time.Duration, times int) {
	for i := range times {
		one := sample{at: noon.Add(time.Duration(i) * every)}
		for q := range queues {
			one.queues = append(one.queues, pgqrs.QueueDepth{Name: fmt.Sprintf("q%06d", q), Ready: int64(i)})
		}
		s.keep(one)
	}
}

func TestSamplesAreBoundedByTime(t *testing.T) {
	var s samples
	keepEach(&s, 1, spacing, 2000)
	if n, most := len(s.ring), int(kept/spacing)+1; n != most || s.points != n {
		t.Errorf("%d samples, %d points; want %d of both", n, s.points, most)
	}
	if age := s.ring[len(s.ring)-1].at.Sub(s.ring[0].at); age != kept {
		t.Errorf("the ring spans %v", age)
	}
}

func TestSamplesAreBoundedByTheNumberOfQueues(t *testing.T) {
	var s samples
	keepEach(&s, 20_000, spacing, 10)
	if s.points > keptPoints || len(s.ring) != 2 {
		t.Errorf("%d points in %d samples", s.points, len(s.ring))
	}
}

func TestSamplesAreNotKeptMoreOftenThanTheyAreSpaced(t *testing.T) {
	var s samples
	keepEach(&s, 1, spacing/4, 9)
	if len(s.ring) != 3 {
		t.Errorf("%d samples in four intervals; want 3", len(s.ring))
	}
}

func TestACostlySampleServesForLonger(t *testing.T) {
	for took, serves := range map[time.Duration]time.Duration{time.Millisecond: time.Second, 500 * time.Millisecond: 5 * time.Second, time.Minute: 10 * time.Second} {
		s := samples{last: sample{at: noon}, took: took}
		if s.due(noon.Add(serves-1)) || !s.due(noon.Add(serves)) {
			t.Errorf("a sample that took %v does not serve for %v", took, serves)
		}
	}
	if first := new(samples); !first.due(noon) {
		t.Error("the first is not due")
	}
}

func TestInflowIsWhatCameInAMinute(t *testing.T) {
	at := func(seconds int, q pgqrs.QueueDepth) sample {
		q.Name = "emails"
		return sample{noon.Add(time.Duration(seconds) * time.Second), []pgqrs.QueueDepth{q}}
	}
	now := at(60, pgqrs.QueueDepth{Ready: 5, Scheduled: 2, Leased: 3, ArchivedLastMinute: 40, DiedLastMinute: 1})
	for _, c := range []struct {
		name  string
		ring  []sample
		want  int64
		known bool
	}{
		{"nothing is known of the minute before", nil, 0, false},
		{"the last sample is too young", []sample{at(30, pgqrs.QueueDepth{})}, 0, false},
		{"and too old", []sample{at(-30, pgqrs.QueueDepth{})}, 0, false},
		{"it has grown by 4 and done 41", []sample{at(0, pgqrs.QueueDepth{Ready: 6}), at(30, pgqrs.QueueDepth{Ready: 100})}, 45, true},
		{"messages were deleted", []sample{at(0, pgqrs.QueueDepth{Ready: 1000})}, 0, true},
		{"too many to count", []sample{at(0, pgqrs.QueueDepth{Ready: pgqrs.DepthLimit})}, 0, false},
	} {
		if got, known := inflow(now, c.ring, "emails"); got != c.want || known != c.known {
			t.Errorf("%s: %d, %v; want %d, %v", c.name, got, known, c.want, c.known)
		}
	}
}
