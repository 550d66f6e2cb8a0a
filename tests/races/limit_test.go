package races_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// limit writes the limits of the queue.
func (s *scene) limit(p pgqrs.Policy) {
	s.Helper()
	s.must(s.b.jobs().With(p).Configure(s.Context()))
}

// tryTake claims messages in another goroutine, and returns how many came.
func (s *scene) tryTake(of side) (done <-chan error, n <-chan int) {
	counts := make(chan int, 1)
	return async(func() error {
		ms, err := of.jobs().Dequeue(s.Context(), 10, time.Hour)
		counts <- len(ms)
		return err
	}), counts
}

func TestClaimAgainstClaimUnderALimit(t *testing.T) {
	for name, p := range map[string]pgqrs.Policy{
		"one leased at a time": {MaxLeased: 1},
		"one an hour":          {Rate: pgqrs.Rate{N: 1, Per: time.Hour}},
	} {
		for _, at := range []string{"pgqrs:limit.room", "pgqrs:message.claim"} {
			onPostgres(t, name+", stopped at "+at, func(s *scene) {
				s.limit(p)
				s.enqueue(s.b)
				s.enqueue(s.b)
				first := s.a.tap.Before(s, at)
				done, n := s.tryTake(s.a)
				first.Wait(s)
				late, none := s.tryTake(s.b)
				s.wantWait(s.b, late)
				first.Go()
				s.must(receive(s, "the first Dequeue returns", done))
				equal(s, "messages of the first", <-n, 1)
				s.wantError(receive(s, "the second Dequeue returns", late), pgqrs.ErrRateLimited)
				equal(s, "messages of the second", <-none, 0)
			})
		}
	}
}

func TestAckInATransactionAgainstClaimUnderALimit(t *testing.T) {
	onPostgres(t, "nothing waits, and there is no room before the commit", func(s *scene) {
		s.limit(pgqrs.Policy{MaxLeased: 1})
		s.enqueue(s.b)
		s.enqueue(s.b)
		m := s.take(s.a)
		tx := s.begin(s.a)
		s.must(s.a.jobs().WithTx(tx).Ack(s.Context(), m))
		done, _ := s.tryTake(s.b)
		if s.waitsForLock(s.b, func() bool { return len(done) > 0 }) {
			s.Fatal("the claim waited for the ack")
		}
		s.wantError(receive(s, "Dequeue returns", done), pgqrs.ErrRateLimited)
		s.must(tx.Commit())
		s.take(s.b)
	})
}

func TestExpiryAgainstClaimUnderALimit(t *testing.T) {
	onBoth(t, "what has expired makes room for one, whoever comes first", func(s *scene) {
		s.limit(pgqrs.Policy{MaxLeased: 1})
		id := s.enqueue(s.b)
		m := s.take(s.a)
		s.enqueue(s.b)
		ack := s.a.tap.Before(s, "pgqrs:message.ack")
		late := async(func() error { return s.a.jobs().Ack(s.Context(), m) })
		ack.Wait(s)
		s.expire(id, 1)
		s.take(s.b)
		ms, err := s.b.jobs().Dequeue(s.Context(), 10, time.Hour)
		s.wantError(err, pgqrs.ErrRateLimited)
		equal(s, "messages beside it", len(ms), 0)
		ack.Go()
		if err := receive(s, "Ack returns", late); err != nil && !errors.Is(err, pgqrs.ErrLeaseLost) {
			s.Fatal(err)
		}
	})
}

func TestALockedLimitHoldsUpNoOtherQueue(t *testing.T) {
	onPostgres(t, "somebody's open transaction has paused it", func(s *scene) {
		s.limit(pgqrs.Policy{MaxLeased: 10})
		others, done := pgqrs.NewQueue[int](s.a.store, "others"), make(chan int, 1)
		s.run(&pgqrs.Worker{PollInterval: 10 * time.Millisecond, Handlers: []pgqrs.Handler{
			s.a.jobs().With(pgqrs.Policy{MaxLeased: 10}).Handle(func(context.Context, *pgqrs.Message[int]) error { return nil }),
			others.Handle(func(_ context.Context, m *pgqrs.Message[int]) error { done <- m.Payload; return nil }),
		}})
		value(others.Enqueue(s.Context(), 0))(s)
		receive(s, "a message of the other queue", done)
		tx := s.begin(s.b)
		s.must(s.b.store.WithTx(tx).PauseQueue(s.Context(), "jobs"))
		id := s.enqueue(s.b)
		deadline := time.Now().Add(tooLong)
		for n := range 10 {
			value(others.Enqueue(s.Context(), n))(s)
			receive(s, "another message of the other queue", done)
		}
		if time.Now().After(deadline) {
			s.Errorf("10 messages of the other queue took more than %v", tooLong)
		}
		s.must(tx.Rollback())
		s.eventually("the message of the limited queue is handled", func() bool { return s.state(id) == pgqrs.Archived })
	})
}
