package races_test

import (
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// daily returns the schedule of these races, on a side. It runs at midnight UTC, unless the text
// names another time.
func daily(of side, text string) pgqrs.Schedule {
	return pgqrs.Schedule{Name: "daily", Rule: pgqrs.Every(24 * time.Hour), Text: text, Target: of.jobs().Target(1)}
}

// tick runs a worker of a side that has the schedule.
func (s *scene) tick(of side, text string) {
	s.Helper()
	s.run(&pgqrs.Worker{Schedules: []pgqrs.Schedule{daily(of, text)}})
}

// overdue creates the schedule, and lets a day pass without a worker.
func (s *scene) overdue() {
	s.Helper()
	stop := s.run(&pgqrs.Worker{Schedules: []pgqrs.Schedule{daily(s.b, "")}})
	s.eventually("the schedule is there", func() bool { return s.count("SELECT count(*) FROM pgqrs_schedules") == 1 })
	stop()
	yesterday := map[pgqrs.Dialect]string{pgqrs.SQLite: "strftime('%Y-%m-%d %H:%M:%f', next_at, '-1 day')", pgqrs.Postgres: "next_at - interval '1 day'"}[s.dialect]
	_, err := s.b.db.ExecContext(s.Context(), "UPDATE pgqrs_schedules SET next_at = "+yesterday)
	s.must(err)
}

// schedule reads the schedule, or returns the zero value.
func (s *scene) schedule() pgqrs.ScheduleInfo {
	s.Helper()
	list := value(s.b.store.Schedules(s.Context()))(s)
	if len(list) == 0 {
		return pgqrs.ScheduleInfo{}
	}
	return list[0]
}

// ran wants n messages, and n runs in the history.
func (s *scene) ran(n int) {
	s.Helper()
	equal(s, "messages", s.count("SELECT count(*) FROM pgqrs_messages"), n)
	equal(s, "runs in the history", s.count("SELECT count(*) FROM pgqrs_schedule_runs"), n)
}

func TestTickAgainstTick(t *testing.T) {
	onBoth(t, "both have seen that it is due, and the other comes first", func(s *scene) {
		s.overdue()
		begun, done := s.a.tap.Before(s, "pgqrs:begin"), s.a.tap.After(s, "pgqrs:commit")
		s.tick(s.a, "")
		begun.Wait(s)
		s.tick(s.b, "")
		s.eventually("the other has run it", func() bool { return s.schedule().Last != nil })
		begun.Go()
		done.Wait(s)
		done.Go()
		s.ran(1)
	})
	onPostgres(t, "the other comes within it", func(s *scene) {
		s.overdue()
		advance, done := s.b.tap.Before(s, "pgqrs:schedule.advance"), s.b.tap.After(s, "pgqrs:commit")
		s.tick(s.b, "")
		advance.Wait(s)
		enqueued := s.a.tap.After(s, "pgqrs:message.enqueue")
		s.tick(s.a, "")
		enqueued.Wait(s)
		advance.Go()
		if s.waitsForLock(s.b, done.Held) {
			s.Fatal("the other waited for it")
		}
		done.Wait(s)
		s.ran(0)
		done.Go()
		enqueued.Go()
		s.eventually("it has run it", func() bool { return s.schedule().Last != nil })
		s.ran(1)
	})
}

// against makes a change on side b after a worker of side a has seen that the schedule is due.
func (s *scene) against(change func()) {
	s.Helper()
	s.overdue()
	begun, done := s.a.tap.Before(s, "pgqrs:begin"), s.a.tap.After(s, "pgqrs:commit")
	s.tick(s.a, "")
	begun.Wait(s)
	change()
	begun.Go()
	done.Wait(s)
	done.Go()
}

func TestTickAgainstChanges(t *testing.T) {
	onBoth(t, "it is paused first", func(s *scene) {
		s.against(func() { s.must(s.b.store.PauseSchedule(s.Context(), "daily")) })
		s.ran(0)
	})
	onBoth(t, "it is deleted first", func(s *scene) {
		s.against(func() { s.must(s.b.store.DeleteSchedule(s.Context(), "daily")) })
		s.ran(0)
		equal(s, "schedules", s.count("SELECT count(*) FROM pgqrs_schedules"), 0)
	})
	onBoth(t, "a version with another rule starts first", func(s *scene) {
		s.against(func() {
			s.tick(s.b, "each day, as before")
			s.eventually("it has written its rule", func() bool { return s.schedule().Rule == "each day, as before" })
		})
		s.ran(0)
	})
	onPostgres(t, "it is deleted within it", func(s *scene) {
		s.overdue()
		recorded := s.a.tap.After(s, "pgqrs:schedule.record")
		s.tick(s.a, "")
		recorded.Wait(s)
		done := async(func() error { return s.b.store.DeleteSchedule(s.Context(), "daily") })
		s.wantWait(s.b, done)
		recorded.Go()
		s.must(receive(s, "DeleteSchedule returns", done))
		equal(s, "messages", s.count("SELECT count(*) FROM pgqrs_messages"), 1)
		equal(s, "runs of a schedule that is gone", s.count("SELECT count(*) FROM pgqrs_schedule_runs"), 0)
	})
	onPostgres(t, "it is paused within it", func(s *scene) {
		s.overdue()
		recorded := s.a.tap.After(s, "pgqrs:schedule.record")
		s.tick(s.a, "")
		recorded.Wait(s)
		done := async(func() error { return s.b.store.PauseSchedule(s.Context(), "daily") })
		s.wantWait(s.b, done)
		recorded.Go()
		s.must(receive(s, "PauseSchedule returns", done))
		s.ran(1)
	})
}

func TestALockedScheduleHoldsUpNoOther(t *testing.T) {
	onPostgres(t, "somebody's open transaction has run it by hand", func(s *scene) {
		s.enqueue(s.b) // creates the queue, for which the other side would wait
		s.overdue()
		beside := daily(s.a, "")
		beside.Name = "beside"
		advance := s.a.tap.Before(s, "pgqrs:schedule.advance")
		s.run(&pgqrs.Worker{Schedules: []pgqrs.Schedule{daily(s.a, ""), beside}})
		advance.Wait(s)
		_, err := s.b.db.ExecContext(s.Context(), "UPDATE pgqrs_schedules SET next_at = next_at - interval '1 day' WHERE name = 'beside'")
		s.must(err)
		tx := s.begin(s.b)
		value(s.b.store.WithTx(tx).RunSchedule(s.Context(), "daily"))(s)
		advance.Go()
		s.eventually("the other runs", func() bool { return s.count("SELECT count(*) FROM pgqrs_schedule_runs") == 1 })
		s.must(tx.Rollback())
		s.eventually("it runs when the lock is gone", func() bool { return s.count("SELECT count(*) FROM pgqrs_schedule_runs") == 2 })
	})
	onPostgres(t, "nor delays it, which would cost instants", func(s *scene) {
		s.enqueue(s.b) // creates the queue
		s.overdue()
		often := pgqrs.Schedule{Name: "often", Rule: pgqrs.Every(time.Second), Target: s.a.jobs().Target(1)}
		advance := s.a.tap.Before(s, "pgqrs:schedule.advance")
		s.run(&pgqrs.Worker{Schedules: []pgqrs.Schedule{daily(s.a, ""), often}})
		advance.Wait(s)
		tx := s.begin(s.b)
		value(s.b.store.WithTx(tx).RunSchedule(s.Context(), "daily"))(s)
		advance.Go()
		s.eventually("the other runs three instants, one after the other", func() bool {
			runs := value(s.b.store.ScheduleRuns(s.Context(), "often", 3))(s)
			return len(runs) == 3 && runs[0].DueAt.Sub(runs[2].DueAt) == 2*time.Second
		})
		s.must(tx.Rollback())
	})
}
