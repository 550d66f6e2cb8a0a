package races_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/tap"
)

func TestAckAgainstReclaim(t *testing.T) {
	onBoth(t, "the claim comes first", func(s *scene) {
		id := s.enqueue(s.a)
		late := s.take(s.a)
		ack := s.a.tap.Before(s, "pgqrs:message.ack")
		done := async(func() error { return s.a.jobs().Ack(s.Context(), late) })
		ack.Wait(s)
		s.expire(id, 1)
		m := s.take(s.b)
		ack.Go()
		s.wantError(receive(s, "Ack returns", done), pgqrs.ErrLeaseLost)
		equal(s, "state", s.state(id), pgqrs.Leased)
		s.must(s.b.jobs().Ack(s.Context(), m))
	})
	onBoth(t, "the ack comes first", func(s *scene) {
		id := s.enqueue(s.a)
		m := s.take(s.a)
		s.expire(id, 1)
		claim := s.claimInVain()
		s.must(s.a.jobs().Ack(s.Context(), m))
		claim()
		equal(s, "state", s.state(id), pgqrs.Archived)
	})
	onPostgres(t, "the ack is in an open transaction", func(s *scene) {
		id := s.enqueue(s.a)
		m := s.take(s.a)
		s.expire(id, 1)
		tx := s.begin(s.a)
		s.must(s.a.jobs().WithTx(tx).Ack(s.Context(), m))
		claim := s.b.tap.After(s, "pgqrs:message.claim")
		done := async(func() error {
			ms, err := s.b.jobs().Dequeue(s.Context(), 10, time.Hour)
			if len(ms) > 0 {
				s.Errorf("claimed %d messages", len(ms))
			}
			return err
		})
		if s.waitsForLock(s.b, claim.Held) {
			s.Fatal("the claim waited for the row")
		}
		s.must(tx.Commit())
		claim.Go()
		s.must(receive(s, "Dequeue returns", done))
		equal(s, "state", s.state(id), pgqrs.Archived)
	})
}

// A held is a worker of side a whose handlers hold messages.
type held struct {
	ids    []int64
	gate   chan struct{} // the handlers wait for their ctx or for this channel
	causes chan error    // why their ctx ended
}

func (s *scene) hold(n int) *held {
	s.Helper()
	h := &held{gate: make(chan struct{}), causes: make(chan error, n)}
	begun := make(chan struct{}, n)
	full := pgqrs.Policy{Concurrency: n} // so that the worker does not claim them again itself
	s.work(s.a.jobs().With(full).Handle(func(ctx context.Context, _ *pgqrs.Message[int]) error {
		begun <- struct{}{}
		select {
		case <-ctx.Done():
		case <-h.gate:
		}
		h.causes <- context.Cause(ctx)
		return nil
	}))
	for range n {
		h.ids = append(h.ids, s.enqueue(s.a))
		receive(s, "the handler has begun", begun)
	}
	return h
}

func TestReclaimAgainstHeartbeat(t *testing.T) {
	onBoth(t, "the claim comes first", func(s *scene) {
		h := s.hold(1)
		renewal := s.a.tap.Before(s, "pgqrs:message.renew")
		renewal.Wait(s)
		s.expire(h.ids[0], 1)
		m := s.take(s.b)
		renewal.Go()
		s.wantError(receive(s, "the handler's ctx ends", h.causes), pgqrs.ErrLeaseLost)
		now := s.message(m.ID)
		equal(s, "end of the lease", now.LeasedUntil, m.LeasedUntil)
		equal(s, "holder", now.WorkerID, m.WorkerID)
		s.must(s.b.jobs().Ack(s.Context(), m))
	})
	onBoth(t, "the heartbeat comes first", func(s *scene) {
		h := s.hold(1)
		renewal := s.a.tap.Before(s, "pgqrs:message.renew")
		renewal.Wait(s)
		s.expire(h.ids[0], 1)
		claim := s.claimInVain()
		renewal.Go()
		s.eventually("the lease is renewed", func() bool { return s.state(h.ids[0]) == pgqrs.Leased })
		claim()
		close(h.gate)
		s.must(receive(s, "the handler returns with a live ctx", h.causes))
		s.eventually("it is acked", func() bool { return s.state(h.ids[0]) == pgqrs.Archived })
	})
	onPostgres(t, "somebody's open transaction has a message of the worker's", func(s *scene) {
		h := s.hold(2)
		before := s.message(h.ids[1]).LeasedUntil
		tx := s.begin(s.b)
		_, err := tx.ExecContext(s.Context(), "SELECT 1 FROM pgqrs_messages WHERE id = $1 FOR UPDATE", h.ids[0])
		s.must(err)
		renewal := s.a.tap.After(s, "pgqrs:message.renew")
		if s.waitsForLock(s.a, renewal.Held) {
			s.Fatal("the heartbeat waited for the row")
		}
		renewal.Go()
		s.must(tx.Rollback())
		next := s.a.tap.Before(s, "pgqrs:message.renew")
		next.Wait(s) // the worker has processed the answer to the first claim
		next.Go()
		s.eventually("the lease of the other message is renewed", func() bool { return s.message(h.ids[1]).LeasedUntil.After(before) })
		close(h.gate)
		for range h.ids {
			s.must(receive(s, "the handler returns with a live ctx", h.causes))
		}
	})
}

func TestUpkeepAgainstOthers(t *testing.T) {
	handled := func(s *scene, of side, p pgqrs.Policy) pgqrs.Handler {
		return of.jobs().With(p).Handle(func(context.Context, *pgqrs.Message[int]) error { return nil })
	}
	onBoth(t, "an owner is to be cleared, and a claim comes first", func(s *scene) {
		id := s.enqueue(s.a)
		s.take(s.a)
		s.expire(id, 60)
		maintenance, done := s.a.tap.Before(s, "pgqrs:message.disown"), s.a.tap.After(s, "pgqrs:message.disown")
		s.work(pgqrs.NewQueue[int](s.a.store, "other").Handle(func(context.Context, *pgqrs.Message[int]) error { return nil }))
		maintenance.Wait(s)
		m := s.take(s.b)
		maintenance.Go()
		done.Wait(s)
		done.Go()
		equal(s, "owner", s.message(id).WorkerID, m.WorkerID)
		s.must(s.b.jobs().Ack(s.Context(), m))
	})
	onBoth(t, "two workers prune at once", func(s *scene) {
		for range 3 {
			s.enqueue(s.a)
		}
		s.must(s.a.jobs().Ack(s.Context(), s.dequeue(s.a)...))
		s.kill(s.enqueue(s.a))
		policy := pgqrs.Policy{Retention: time.Nanosecond}
		first, done := s.a.tap.Before(s, "pgqrs:message.prune"), s.a.tap.After(s, "pgqrs:message.prune")
		s.work(handled(s, s.a, policy))
		first.Wait(s)
		s.work(handled(s, s.b, policy))
		archived := func() int { return s.count("SELECT count(*) FROM pgqrs_messages WHERE failed_at IS NULL") }
		s.eventually("the second has pruned", func() bool { return archived() == 0 })
		first.Go()
		done.Wait(s)
		done.Go()
		equal(s, "dead letters", s.count("SELECT count(*) FROM pgqrs_messages"), 1)
	})
	onPostgres(t, "an old message is being redriven", func(s *scene) {
		id := s.enqueue(s.b)
		s.must(s.b.jobs().Ack(s.Context(), s.take(s.b)))
		tx := s.begin(s.b)
		equal(s, "messages redriven", value(s.b.store.WithTx(tx).Redrive(s.Context(), id))(s), 1)
		done := s.a.tap.After(s, "pgqrs:message.prune")
		s.must(s.b.store.PauseQueue(s.Context(), "jobs"))
		s.work(handled(s, s.a, pgqrs.Policy{Retention: time.Nanosecond}))
		if s.waitsForLock(s.a, done.Held) {
			s.Fatal("maintenance waited for the row")
		}
		done.Go()
		s.must(tx.Commit())
		equal(s, "state", s.state(id), pgqrs.Ready)
	})
}

// A renewal may find that a message has left its lease before the handler that settled it has
// returned.
func TestRenewalAgainstSettlement(t *testing.T) {
	onBoth(t, "the ctx of a handler that acked its message goes on", func(s *scene) {
		acked := s.a.tap.After(s, "pgqrs:message.ack")
		ended := make(chan error, 1)
		s.work(s.a.jobs().Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
			ended <- errors.Join(s.a.jobs().Ack(ctx, m), context.Cause(ctx))
			return nil
		}))
		s.enqueue(s.b)
		s.passesRenewal(acked)
		s.must(receive(s, "the handler has acked", ended))
	})
	onBoth(t, "a run that has ended logs no lost lease", func(s *scene) {
		e := s.ending()
		committed := s.a.tap.After(s, s.endTag("pgqrs:commit"))
		e.end(committed)
		s.passesRenewal(committed)
		e.want(pgqrs.Succeeded)
		if log := s.a.log.String(); strings.Contains(log, "lease lost") {
			s.Errorf("the worker logged: %s", log)
		}
	})
}

// passesRenewal holds a statement until a renewal and its consequences are over.
func (s *scene) passesRenewal(at *tap.Stop) {
	s.Helper()
	at.Wait(s)
	renewed := s.a.tap.After(s, "pgqrs:message.renew")
	renewed.Wait(s)
	reported := s.a.tap.Before(s, "pgqrs:worker.heartbeat")
	renewed.Go()
	reported.Wait(s)
	at.Go()
	reported.Go()
}

// A lease ends no sooner than the latest Extend returned, even if an earlier Extend had to wait.
func TestExtendAgainstExtend(t *testing.T) {
	onPostgres(t, "one waits for the other", func(s *scene) {
		id := s.enqueue(s.a)
		m := s.take(s.a)
		tx := s.begin(s.a)
		s.must(s.a.jobs().WithTx(tx).Extend(s.Context(), time.Hour, m))
		done := async(func() error { return s.b.jobs().Extend(s.Context(), time.Hour, m) })
		s.wantWait(s.b, done)
		s.must(s.a.jobs().WithTx(tx).Extend(s.Context(), time.Hour, m))
		var until time.Time
		s.must(tx.QueryRowContext(s.Context(), "SELECT vt FROM pgqrs_messages WHERE id = $1", id).Scan(&until))
		s.must(tx.Commit())
		s.must(receive(s, "the other Extend returns", done))
		if got := s.message(id).LeasedUntil; got.Before(until) {
			s.Errorf("the lease ends at %v; it was extended to %v", got, until)
		}
	})
}
