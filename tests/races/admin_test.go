package races_test

import (
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

func TestRedriveAgainstPurge(t *testing.T) {
	purge := func(s *scene, want int64) <-chan error {
		return async(func() error {
			n, err := s.a.store.Purge(s.Context(), "jobs", pgqrs.Dead)
			if err == nil && n != want {
				s.Errorf("purged %d messages; want %d", n, want)
			}
			return err
		})
	}
	redrive := func(s *scene, id, want int64) {
		s.Helper()
		equal(s, "messages redriven", value(s.b.store.Redrive(s.Context(), id))(s), want)
	}
	onBoth(t, "the redrive comes first", func(s *scene) {
		id := s.enqueue(s.b)
		s.kill(id)
		begun := s.a.tap.Before(s, "pgqrs:begin") // the message is listed
		done := purge(s, 0)
		begun.Wait(s)
		redrive(s, id, 1)
		begun.Go()
		s.must(receive(s, "Purge returns", done))
		equal(s, "state", s.state(id), pgqrs.Ready)
	})
	onBoth(t, "the purge comes first", func(s *scene) {
		id := s.enqueue(s.b)
		s.kill(id)
		begun := s.b.tap.Before(s, "pgqrs:message.redrive")
		done := async(func() error { redrive(s, id, 0); return nil })
		begun.Wait(s)
		s.must(receive(s, "Purge returns", purge(s, 1)))
		begun.Go()
		s.must(receive(s, "Redrive returns", done))
		equal(s, "state", s.state(id), "gone")
	})
	onPostgres(t, "the redrive comes within the purge", func(s *scene) {
		id := s.enqueue(s.b)
		s.kill(id)
		locked := s.a.tap.After(s, "pgqrs:message.lock")
		purged := purge(s, 1)
		locked.Wait(s)
		done := async(func() error { redrive(s, id, 0); return nil })
		s.wantWait(s.b, done)
		locked.Go()
		s.must(receive(s, "Purge returns", purged))
		s.must(receive(s, "Redrive returns", done))
		equal(s, "state", s.state(id), "gone")
	})
	onPostgres(t, "the purge comes within a redrive in an open transaction", func(s *scene) {
		id := s.enqueue(s.b)
		s.kill(id)
		tx := s.begin(s.b)
		equal(s, "messages redriven", value(s.b.store.WithTx(tx).Redrive(s.Context(), id))(s), 1)
		done := purge(s, 0)
		s.wantWait(s.a, done)
		s.must(tx.Commit())
		s.must(receive(s, "Purge returns", done))
		equal(s, "state", s.state(id), pgqrs.Ready)
	})
}

func TestDropAgainstEnqueue(t *testing.T) {
	// empty creates an empty queue.
	empty := func(s *scene) {
		s.Helper()
		equal(s, "messages deleted", value(s.b.store.Delete(s.Context(), s.enqueue(s.b)))(s), 1)
	}
	enqueued := func(s *scene) <-chan error {
		return async(func() error {
			_, err := s.a.jobs().Enqueue(s.Context(), 1)
			return err
		})
	}
	drop := func(s *scene) error { return s.b.store.DropQueue(s.Context(), "jobs") }
	onBoth(t, "the drop comes first", func(s *scene) {
		empty(s)
		sent := s.a.tap.Before(s, "pgqrs:message.enqueue")
		done := enqueued(s)
		sent.Wait(s)
		s.must(drop(s))
		sent.Go()
		s.must(receive(s, "Enqueue returns", done))
		s.take(s.b)
	})
	onBoth(t, "the enqueue comes first", func(s *scene) {
		empty(s)
		begun := s.b.tap.Before(s, "pgqrs:begin")
		done := async(func() error { return drop(s) })
		begun.Wait(s)
		s.must(receive(s, "Enqueue returns", enqueued(s)))
		begun.Go()
		s.wantError(receive(s, "DropQueue returns", done), pgqrs.ErrState)
		s.take(s.b)
	})
	onPostgres(t, "the enqueue comes within the drop", func(s *scene) {
		empty(s)
		looked := s.b.tap.After(s, "pgqrs:queue.in_use")
		dropped := async(func() error { return drop(s) })
		looked.Wait(s)
		done := enqueued(s)
		s.wantWait(s.a, done)
		looked.Go()
		s.must(receive(s, "DropQueue returns", dropped))
		s.must(receive(s, "Enqueue returns", done))
		s.take(s.b)
	})
	onPostgres(t, "the drop comes within an enqueue in an open transaction", func(s *scene) {
		empty(s)
		tx := s.begin(s.a)
		value(s.a.jobs().WithTx(tx).Enqueue(s.Context(), 1))(s)
		done := async(func() error { return drop(s) })
		s.wantWait(s.b, done)
		s.must(tx.Commit())
		s.wantError(receive(s, "DropQueue returns", done), pgqrs.ErrState)
		s.take(s.b)
	})
}

func TestInstallAgainstInstall(t *testing.T) {
	sound := func(s *scene) {
		s.Helper()
		report := value(s.b.store.Verify(s.Context()))(s)
		if !report.OK() {
			s.Errorf("Verify found %+v", report)
		}
		s.enqueue(s.a)
		s.take(s.b)
	}
	first := func(s *scene) {
		begun := s.a.tap.Before(s, "pgqrs:begin") // the queue was seen to be empty
		done := async(func() error { return s.a.store.Install(s.Context()) })
		begun.Wait(s)
		s.must(s.b.store.Install(s.Context()))
		s.enqueue(s.b)
		begun.Go()
		s.must(receive(s, "Install returns", done))
		equal(s, "messages", s.count("SELECT count(*) FROM pgqrs_messages"), 1)
		s.take(s.a)
		sound(s)
	}
	t.Run("one comes first on SQLite", func(t *testing.T) {
		t.Parallel()
		first(newSQLite(t))
	})
	t.Run("one comes first on PostgreSQL", func(t *testing.T) {
		t.Parallel()
		first(newPostgres(t))
	})
	t.Run("one comes within the other on PostgreSQL", func(t *testing.T) {
		t.Parallel()
		s := newPostgres(t)
		made := s.a.tap.After(s, "CREATE TABLE IF NOT EXISTS pgqrs_queues")
		installed := async(func() error { return s.a.store.Install(s.Context()) })
		made.Wait(s)
		done := async(func() error { return s.b.store.Install(s.Context()) })
		s.wantWait(s.b, done)
		made.Go()
		s.must(receive(s, "the first Install returns", installed))
		s.must(receive(s, "the second Install returns", done))
		sound(s)
	})
}

func TestKeyAgainstKey(t *testing.T) {
	unique := pgqrs.Unique("k")
	type answer struct {
		id  int64
		err error
	}
	enqueued := func(s *scene) <-chan answer {
		done := make(chan answer, 1)
		go func() {
			id, err := s.a.jobs().Enqueue(s.Context(), 1, unique)
			done <- answer{id, err}
		}()
		return done
	}
	taken := func(s *scene, a answer, id int64) {
		s.Helper()
		s.wantError(a.err, pgqrs.ErrDuplicate)
		equal(s, "id", a.id, id)
		equal(s, "messages", s.count("SELECT count(*) FROM pgqrs_messages"), 1)
	}
	onBoth(t, "the other comes first", func(s *scene) {
		sent := s.a.tap.Before(s, "pgqrs:message.enqueue")
		done := enqueued(s)
		sent.Wait(s)
		id := s.enqueue(s.b, unique)
		sent.Go()
		taken(s, receive(s, "Enqueue returns", done), id)
	})
	onBoth(t, "this one comes first", func(s *scene) {
		s.enqueue(s.b) // creates the queue
		stored := s.a.tap.After(s, "pgqrs:message.enqueue")
		done := enqueued(s)
		stored.Wait(s)
		id, err := s.b.jobs().Enqueue(s.Context(), 1, unique)
		s.wantError(err, pgqrs.ErrDuplicate)
		stored.Go()
		a := receive(s, "Enqueue returns", done)
		s.must(a.err)
		equal(s, "id", a.id, id)
	})
	onBoth(t, "the key is free again before its owner is looked for", func(s *scene) {
		id := s.enqueue(s.b, unique)
		looked := s.a.tap.Before(s, "pgqrs:message.keyed")
		done := enqueued(s)
		looked.Wait(s)
		s.must(s.b.jobs().Ack(s.Context(), s.take(s.b)))
		looked.Go()
		a := receive(s, "Enqueue returns", done)
		s.must(a.err)
		if a.id == id {
			s.Error("it returned the id of a message that had ended")
		}
		equal(s, "the message that is due", s.take(s.b).ID, a.id)
	})
	for commit, name := range map[bool]string{true: "commits", false: "is rolled back"} {
		onPostgres(t, "the other is in an open transaction that "+name, func(s *scene) {
			s.enqueue(s.b, pgqrs.Key("another")) // creates the queue
			s.must(s.b.jobs().Delete(s.Context(), s.take(s.b)))
			tx := s.begin(s.b)
			id := value(s.b.jobs().WithTx(tx).Enqueue(s.Context(), 1, unique))(s)
			done := enqueued(s)
			if !s.waitsForLock(s.a, func() bool { return len(done) > 0 }) {
				s.Fatal("it did not wait for the key")
			}
			if commit {
				s.must(tx.Commit())
				taken(s, receive(s, "Enqueue returns", done), id)
				return
			}
			s.must(tx.Rollback())
			a := receive(s, "Enqueue returns", done)
			s.must(a.err)
			equal(s, "the message that is due", s.take(s.b).ID, a.id)
		})
	}
}
