package races_test

import (
	"errors"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var inGroup = pgqrs.Group("a")

// wantStates fails the test unless messages are in these states.
func (s *scene) wantStates(ids []int64, want ...pgqrs.MessageState) {
	s.Helper()
	for i, id := range ids {
		if got := s.state(id); got != want[i] {
			s.Fatalf("message %d of the group is %s; want %s", i, got, want[i])
		}
	}
}

// line enqueues n messages of a group.
func (s *scene) line(n int) (ids []int64) {
	s.Helper()
	for range n {
		ids = append(ids, s.enqueue(s.b, inGroup))
	}
	return ids
}

// configure writes the policy of the queue.
func (s *scene) configure(p pgqrs.Policy) {
	s.Helper()
	s.must(s.b.jobs().With(p).Configure(s.Context()))
}

func (s *scene) settling(of side, m *pgqrs.Message[int]) <-chan error {
	return async(func() error { return of.jobs().Ack(s.Context(), m) })
}

func TestEnqueueAgainstEnqueueOfAGroup(t *testing.T) {
	onPostgres(t, "the second waits for the first, and comes after it", func(s *scene) {
		s.enqueue(s.b) // creates the queue
		s.must(s.b.jobs().Ack(s.Context(), s.take(s.b)))
		locked := s.a.tap.After(s, "pgqrs:group.lock")
		ids := make([]int64, 2)
		first := async(func() (err error) { ids[0], err = s.a.jobs().Enqueue(s.Context(), 1, inGroup); return err })
		locked.Wait(s)
		second := async(func() (err error) { ids[1], err = s.b.jobs().Enqueue(s.Context(), 1, inGroup); return err })
		s.wantWait(s.b, second)
		locked.Go()
		s.must(receive(s, "the first returns", first))
		s.must(receive(s, "the second returns", second))
		if ids[0] > ids[1] {
			s.Errorf("the first has the id %d, the second %d", ids[0], ids[1])
		}
		s.wantStates(ids, pgqrs.Ready, pgqrs.Blocked)
	})
	for end, want := range map[string][]pgqrs.MessageState{"commits": {pgqrs.Ready, pgqrs.Blocked}, "is rolled back": {"gone", pgqrs.Ready}} {
		onPostgres(t, "the first is in a caller's transaction that "+end, func(s *scene) {
			tx := s.begin(s.a)
			ids := []int64{value(s.a.jobs().WithTx(tx).Enqueue(s.Context(), 1, inGroup))(s), 0}
			second := async(func() (err error) { ids[1], err = s.b.jobs().Enqueue(s.Context(), 1, inGroup); return err })
			s.wantWait(s.b, second)
			if end == "commits" {
				s.must(tx.Commit())
			} else {
				s.must(tx.Rollback())
			}
			s.must(receive(s, "the second returns", second))
			s.wantStates(ids, want...)
		})
	}
}

func TestAckAgainstEnqueueOfAGroup(t *testing.T) {
	onPostgres(t, "the enqueue comes between the ack and what it lets go", func(s *scene) {
		ids := s.line(1)
		m := s.take(s.a)
		acked := s.a.tap.After(s, "pgqrs:message.ack")
		done := s.settling(s.a, m)
		acked.Wait(s)
		ids = append(ids, s.enqueue(s.b, inGroup))
		s.wantStates(ids, pgqrs.Leased, pgqrs.Blocked)
		acked.Go()
		s.must(receive(s, "Ack returns", done))
		s.wantStates(ids, pgqrs.Archived, pgqrs.Ready)
	})
	onPostgres(t, "the enqueue waits for what the ack lets go, and sees it", func(s *scene) {
		ids := s.line(2)
		m := s.take(s.a)
		promoted := s.a.tap.After(s, "pgqrs:group.promote")
		done := s.settling(s.a, m)
		promoted.Wait(s)
		var third int64
		enqueued := async(func() (err error) { third, err = s.b.jobs().Enqueue(s.Context(), 1, inGroup); return err })
		s.wantWait(s.b, enqueued)
		promoted.Go()
		s.must(receive(s, "Ack returns", done))
		s.must(receive(s, "Enqueue returns", enqueued))
		s.wantStates(append(ids, third), pgqrs.Archived, pgqrs.Ready, pgqrs.Blocked)
	})
	for _, end := range []string{"commits", "is rolled back"} {
		onPostgres(t, "the ack does not wait for a caller's enqueue, and the group goes on when that "+end, func(s *scene) {
			ids := s.line(2)
			m := s.take(s.a)
			tx := s.begin(s.b)
			value(s.b.jobs().WithTx(tx).Enqueue(s.Context(), 1, inGroup))(s)
			done := s.settling(s.a, m)
			if s.waitsForLock(s.a, func() bool { return len(done) > 0 }) {
				s.Fatal("the ack waited for the group")
			}
			s.must(receive(s, "Ack returns", done))
			s.wantStates(ids, pgqrs.Archived, pgqrs.Blocked)
			if end == "commits" {
				s.must(tx.Commit())
			} else {
				s.must(tx.Rollback())
			}
			s.eventually("the next message is ready", func() bool { return s.state(ids[1]) == pgqrs.Ready })
			equal(s, "messages ready", s.count("SELECT count(*) FROM pgqrs_messages WHERE archived_at IS NULL AND parked_vt IS NULL"), 1)
		})
	}
	onPostgres(t, "the ack is in a caller's transaction that ends long after the enqueue's, and the group goes on when it commits", func(s *scene) {
		ids := s.line(2)
		m := s.take(s.a)
		enqueuing := s.begin(s.b)
		value(s.b.jobs().WithTx(enqueuing).Enqueue(s.Context(), 1, inGroup))(s)
		acking := s.begin(s.a)
		s.must(s.a.jobs().WithTx(acking).Ack(s.Context(), m))
		look, looked := s.a.tap.Before(s, "pgqrs:group.try_lock"), s.a.tap.After(s, "pgqrs:commit")
		look.Wait(s)
		s.must(enqueuing.Commit())
		look.Go()
		looked.Wait(s) // the check finds nothing
		looked.Go()
		s.must(acking.Commit())
		s.eventually("the next message is ready", func() bool { return s.state(ids[1]) == pgqrs.Ready })
	})
	onBoth(t, "the ack is sent after the enqueue", func(s *scene) {
		ids := s.line(1)
		m := s.take(s.a)
		begun := s.a.tap.Before(s, "pgqrs:begin")
		done := s.settling(s.a, m)
		begun.Wait(s)
		ids = append(ids, s.enqueue(s.b, inGroup))
		s.wantStates(ids, pgqrs.Leased, pgqrs.Blocked)
		begun.Go()
		s.must(receive(s, "Ack returns", done))
		s.wantStates(ids, pgqrs.Archived, pgqrs.Ready)
	})
}

func TestGroupHeadDying(t *testing.T) {
	onPostgres(t, "the next message cannot be claimed before the death is committed", func(s *scene) {
		ids := s.line(2)
		m := s.take(s.a)
		promoted := s.a.tap.After(s, "pgqrs:group.promote")
		done := async(func() error { return s.a.jobs().Fail(s.Context(), pgqrs.Permanent(errors.New("never")), m) })
		promoted.Wait(s)
		equal(s, "messages to be had", len(s.dequeue(s.b)), 0)
		promoted.Go()
		s.must(receive(s, "Fail returns", done))
		s.wantStates(ids, pgqrs.Dead, pgqrs.Ready)
	})
	onBoth(t, "its holder has lost it to another, who alone ends it", func(s *scene) {
		ids := s.line(2)
		late := s.take(s.a)
		s.expire(ids[0], 1)
		m := s.take(s.b)
		s.wantError(s.a.jobs().Fail(s.Context(), pgqrs.Permanent(errors.New("never")), late), pgqrs.ErrLeaseLost)
		s.wantStates(ids, pgqrs.Leased, pgqrs.Blocked)
		s.must(s.b.jobs().Fail(s.Context(), pgqrs.Permanent(errors.New("never")), m))
		s.wantStates(ids, pgqrs.Dead, pgqrs.Ready)
	})
	onPostgres(t, "it is redriven while the next one ends", func(s *scene) {
		ids := s.line(3)
		s.kill(ids[0])
		m := s.take(s.b)
		locked := s.a.tap.After(s, "pgqrs:group.lock")
		redriven := async(func() error { _, err := s.a.store.Redrive(s.Context(), ids[0]); return err })
		locked.Wait(s)
		s.must(s.b.jobs().Ack(s.Context(), m)) // it does not wait
		locked.Go()
		s.must(receive(s, "Redrive returns", redriven))
		s.wantStates(ids, pgqrs.Ready, pgqrs.Archived, pgqrs.Blocked)
	})
}

func TestAcksOfAGroupOfTwo(t *testing.T) {
	onPostgres(t, "two acks at once let two messages go, and never three", func(s *scene) {
		s.configure(pgqrs.Policy{GroupConcurrency: 2})
		ids := s.line(5)
		ms := s.dequeue(s.a)
		equal(s, "messages leased", len(ms), 2)
		locked := s.a.tap.After(s, "pgqrs:group.try_lock")
		first := s.settling(s.a, ms[0])
		locked.Wait(s)
		second := s.settling(s.b, ms[1])
		if s.waitsForLock(s.b, func() bool { return len(second) > 0 }) {
			s.Fatal("the second ack waited for the group")
		}
		s.must(receive(s, "the second Ack returns", second))
		locked.Go()
		s.must(receive(s, "the first Ack returns", first))
		s.eventually("both places are taken", func() bool { return s.state(ids[3]) == pgqrs.Ready })
		s.wantStates(ids, pgqrs.Archived, pgqrs.Archived, pgqrs.Ready, pgqrs.Ready, pgqrs.Blocked)
	})
}

func TestDeleteOfABlockedMessage(t *testing.T) {
	onPostgres(t, "an ack that would let it go waits, and the one after it goes", func(s *scene) {
		ids := s.line(3)
		m := s.take(s.b)
		removed := s.a.tap.After(s, "pgqrs:message.remove_rows")
		deleted := async(func() error { _, err := s.a.store.Delete(s.Context(), ids[1]); return err })
		removed.Wait(s)
		acked := s.settling(s.b, m)
		s.wantWait(s.b, acked)
		removed.Go()
		s.must(receive(s, "Delete returns", deleted))
		s.must(receive(s, "Ack returns", acked))
		s.eventually("the last one is ready", func() bool { return s.state(ids[2]) == pgqrs.Ready })
		s.wantStates(ids, pgqrs.Archived, "gone", pgqrs.Ready)
	})
}

func TestClaimOfARetryAgainstAnEnqueue(t *testing.T) {
	skip := pgqrs.Policy{SkipFailed: true, Backoff: func(int) time.Duration { return time.Hour }}
	onPostgres(t, "the retry is claimed while the enqueue is about to pass over it", func(s *scene) {
		s.configure(skip)
		ids := s.line(1)
		s.must(s.b.jobs().With(skip).Fail(s.Context(), errors.New("later"), s.take(s.b)))
		claim := s.begin(s.b)
		_, err := claim.Exec(`UPDATE pgqrs_messages SET consumer_worker_id = (SELECT id FROM pgqrs_workers LIMIT 1), claim_ct = claim_ct + 1, vt = clock_timestamp() + interval '1 hour' WHERE id = $1`, ids[0])
		s.must(err) // as a claim does once it is due
		var second int64
		done := async(func() (err error) { second, err = s.a.jobs().Enqueue(s.Context(), 1, inGroup); return err })
		s.wantWait(s.a, done)
		s.must(claim.Commit())
		s.must(receive(s, "Enqueue returns", done))
		s.wantStates([]int64{ids[0], second}, pgqrs.Leased, pgqrs.Blocked)
	})
}

func TestEndOfABatch(t *testing.T) {
	type batch struct {
		ms      []*pgqrs.Message[int]
		reports *pgqrs.Queue[int]
	}
	of := func(s *scene) batch {
		s.Helper()
		b := batch{reports: pgqrs.NewQueue[int](s.b.store, "reports")}
		value(s.b.jobs().EnqueueBatch(s.Context(), []int{1, 2}, pgqrs.Then(b.reports, 1)))(s)
		b.ms = s.dequeue(s.a)
		equal(s, "messages leased", len(b.ms), 2)
		return b
	}
	told := func(s *scene, b batch) {
		s.Helper()
		var ms []*pgqrs.Message[int]
		s.eventually("the message that waits has come", func() bool {
			ms = append(ms, value(b.reports.Dequeue(s.Context(), 10, time.Hour))(s)...)
			return len(ms) > 0
		})
		equal(s, "messages that came", len(ms), 1)
		equal(s, "what it tells", ms[0].Batch, pgqrs.BatchResult{Done: 2})
	}
	onPostgres(t, "the last two end at once, and the first of them has the lock", func(s *scene) {
		b := of(s)
		finished := s.a.tap.After(s, "pgqrs:batch.finish")
		first := s.settling(s.a, b.ms[0])
		finished.Wait(s)
		second := s.settling(s.b, b.ms[1])
		if s.waitsForLock(s.b, func() bool { return len(second) > 0 }) {
			s.Fatal("the second ack waited for the first")
		}
		s.must(receive(s, "the second Ack returns", second))
		finished.Go()
		s.must(receive(s, "the first Ack returns", first))
		told(s, b)
	})
	onPostgres(t, "the last but one ends between the last one's ack and its look at the batch", func(s *scene) {
		b := of(s)
		acked := s.a.tap.After(s, "pgqrs:message.ack")
		first := s.settling(s.a, b.ms[0])
		acked.Wait(s)
		s.must(s.b.jobs().Ack(s.Context(), b.ms[1]))
		equal(s, "messages to be had", len(value(b.reports.Dequeue(s.Context(), 10, time.Hour))(s)), 0)
		acked.Go()
		s.must(receive(s, "the first Ack returns", first))
		told(s, b)
	})
	onPostgres(t, "the last one ends in a transaction that is rolled back", func(s *scene) {
		b := of(s)
		s.must(s.a.jobs().Ack(s.Context(), b.ms[0]))
		tx := s.begin(s.a)
		s.must(s.a.jobs().WithTx(tx).Ack(s.Context(), b.ms[1]))
		s.must(tx.Rollback())
		equal(s, "messages to be had", len(value(b.reports.Dequeue(s.Context(), 10, time.Hour))(s)), 0)
		s.must(s.a.jobs().Ack(s.Context(), b.ms[1]))
		told(s, b)
	})
}
