package races_test

import (
	"errors"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/tap"
)

// Each of eight claimers asks for one message. At most three get one, for each of these reasons.
// Fewer get one if some wait for the others longer than a claim waits for its queue.
const (
	claimers = 8
	room     = 3
)

var roomForThree = map[string]pgqrs.Policy{
	"three leased at a time": {MaxLeased: room},
	"three an hour":          {Rate: pgqrs.Rate{N: room, Per: time.Hour}},
}

// A claimer is a side that claims one message, and is stopped in between.
type claimer struct {
	side
	stop *tap.Stop
	done <-chan error
	got  int // messages, or -1 if the claim has not ended
}

// stopped reports whether the claimer is stopped now.
func (c *claimer) stopped() bool { return c.got < 0 && c.stop != nil && c.stop.Held() }

// crowd makes eight sides claim at once, each to be stopped before a statement. They have claimed
// before, so that only the claim is left to do.
func (s *scene) crowd(p pgqrs.Policy, at string) []*claimer {
	s.Helper()
	s.limit(p)
	list := make([]*claimer, claimers)
	for i := range list {
		list[i] = &claimer{side: s.another(), got: -1}
		equal(s, "messages in an empty queue", len(s.dequeue(list[i].side)), 0)
	}
	value(s.b.jobs().EnqueueBatch(s.Context(), make([]int, 2*claimers)))(s)
	for _, c := range list {
		c.stop = c.tap.Before(s, at)
		c.done = async(func() error {
			ms, err := c.jobs().Dequeue(s.Context(), 1, time.Hour)
			if err == nil && len(ms) != 1 || err != nil && !errors.Is(err, pgqrs.ErrRateLimited) {
				return errors.Join(errors.New("it got neither a message nor ErrRateLimited"), err)
			}
			return err
		})
	}
	return list
}

// finish waits for the result of a claimer. It fails the test if more messages are leased than the
// limits allow.
func (s *scene) finish(c *claimer) {
	s.Helper()
	c.got = 1
	if err := receive(s, "Dequeue returns", c.done); err != nil {
		s.wantError(err, pgqrs.ErrRateLimited)
		c.got = 0
	}
	if n := s.leased(); n > room {
		s.Fatalf("%d messages are leased; want %d at most", n, room)
	}
}

func (s *scene) leased() int {
	s.Helper()
	return s.count("SELECT count(*) FROM pgqrs_messages WHERE archived_at IS NULL AND consumer_worker_id IS NOT NULL")
}

// wantFull wants as many messages to be leased as the claimers got, and the rest of the capacity to
// be left.
func (s *scene) wantFull(list []*claimer) {
	s.Helper()
	got := 0
	for _, c := range list {
		got += c.got
	}
	equal(s, "messages leased", s.leased(), got)
	ms, err := s.b.jobs().Dequeue(s.Context(), claimers, time.Hour)
	if got == room {
		s.wantError(err, pgqrs.ErrRateLimited)
	} else {
		s.must(err)
	}
	equal(s, "messages for which room is left", len(ms), room-got)
}

func TestEightClaimsUnderALimit(t *testing.T) {
	for name, p := range roomForThree {
		// At this point nobody has a lock.
		before := map[pgqrs.Dialect]string{pgqrs.SQLite: "pgqrs:begin", pgqrs.Postgres: "pgqrs:limit.lock"}
		onBoth(t, name+", let go at once", func(s *scene) {
			list := s.crowd(p, before[s.dialect])
			for _, c := range list {
				c.stop.Wait(s)
			}
			for _, c := range list {
				c.stop.Go()
			}
			for _, c := range list {
				s.finish(c)
			}
			s.wantFull(list)
		})
		onBoth(t, name+", let go in turn", func(s *scene) {
			list := s.crowd(p, before[s.dialect])
			for _, c := range list {
				c.stop.Wait(s)
			}
			for i, c := range list {
				c.stop.Go()
				s.finish(c)
				equal(s, "messages leased", s.leased(), min(i+1, room))
			}
			s.wantFull(list)
		})
		// These stops are within the transaction. On SQLite a stopped transaction would keep the
		// others out.
		for _, at := range []string{"pgqrs:limit.room", "pgqrs:message.claim", "pgqrs:commit"} {
			onPostgres(t, name+", each stopped at "+at, func(s *scene) {
				list := s.crowd(p, at)
				for s.passOne(list) {
				}
				s.wantFull(list)
			})
		}
	}
}

// passOne waits until one claimer is stopped and all others have ended or wait for its lock. Then
// it finishes the stopped claimer. If no claimer is stopped there, it finishes those that found no
// capacity. It reports whether there was a claimer.
func (s *scene) passOne(list []*claimer) bool {
	s.Helper()
	left := 0
	var next *claimer
	s.eventually("one is stopped, or done, and the others wait for a lock", func() bool {
		left, next = 0, nil
		waiting, stopped := 0, 0
		for _, c := range list {
			switch {
			case c.got >= 0:
				continue
			case c.stopped():
				next, stopped = c, stopped+1
			case len(c.done) > 0:
				s.finish(c)
				continue
			case s.inWait(c.side):
				waiting++
			}
			left++
		}
		if stopped > 1 {
			s.Fatalf("%d claims are past the lock at the same time", stopped)
		}
		return left == 0 || stopped == 1 && waiting == left-1
	})
	if next != nil {
		next.stop.Go()
		s.finish(next)
	}
	return left > 0
}
