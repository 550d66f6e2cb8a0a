package races_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/tap"
)

func orders(of side) *pgqrs.Workflow[int, string] {
	return pgqrs.NewWorkflow[int, string](of.store, "orders")
}

// An ending is a run whose end a worker of side a is about to write.
type ending struct {
	*pgqrs.RunHandle[string] // of side b
	s                        *scene
	gate                     chan struct{} // its function waits for this
}

func (s *scene) ending() *ending {
	s.Helper()
	e := &ending{s: s, gate: make(chan struct{})}
	begun := make(chan struct{}, 1)
	s.work(orders(s.a).Handle(func(context.Context, *pgqrs.Run, int) (string, error) {
		begun <- struct{}{}
		<-e.gate
		return "done", nil
	}))
	e.RunHandle = value(orders(s.b).Start(s.Context(), 1))(s)
	receive(s, "the function has begun", begun)
	return e
}

// end lets the function return, and waits until the statement that ends the run is held.
func (e *ending) end(at *tap.Stop) {
	e.s.Helper()
	close(e.gate)
	at.Wait(e.s)
}

// endTag returns the tag of a statement that ends a run. On PostgreSQL there is one statement.
// Otherwise it is the given statement of a transaction.
func (s *scene) endTag(otherwise string) string {
	if s.dialect == pgqrs.Postgres {
		return "pgqrs:run.end"
	}
	return otherwise
}

// inParts makes a transaction of several statements end the run, on PostgreSQL too. It does so by
// making the run look like a child.
func (e *ending) inParts() {
	e.s.Helper()
	_, err := e.s.b.db.ExecContext(e.s.Context(), "UPDATE pgqrs_workflow_runs SET parent_run_id = 1000000, parent_step = 'gone'")
	e.s.must(err)
}

// want waits for the run's end and checks it.
func (e *ending) want(status pgqrs.RunState) {
	e.s.Helper()
	var info pgqrs.RunInfo
	e.s.eventually("the run has ended", func() bool {
		info = value(e.Info(e.s.Context()))(e.s)
		return !info.EndedAt.IsZero()
	})
	equal(e.s, "status", info.Status, status)
	equal(e.s, "whether it has a result", info.Output != nil, status == pgqrs.Succeeded)
	e.s.eventually("its message is archived", func() bool { return e.s.state(info.MessageID) == pgqrs.Archived })
}

// A change is a call that races with the end of a run.
type change struct {
	do    func(*ending) error
	first string         // of its statements
	ends  pgqrs.RunState // end of the run if the change comes first
	check func(s *scene, done bool)
}

// againstEnd runs a change before, during and after the end of a run. It also runs the end during
// and after the change.
func againstEnd(t *testing.T, c change) {
	run := func(s *scene, do func(*ending) error) {
		e := s.ending()
		err := do(e)
		status := c.ends
		if err != nil {
			s.wantError(err, pgqrs.ErrState)
			status = pgqrs.Succeeded
		}
		e.want(status)
		if c.check != nil {
			c.check(s, err == nil)
		}
	}
	onBoth(t, "the change comes first", func(s *scene) {
		run(s, func(e *ending) error {
			finish := s.a.tap.Before(s, s.endTag("pgqrs:begin"))
			e.end(finish)
			s.must(c.do(e))
			finish.Go()
			return nil
		})
	})
	onBoth(t, "the end comes first", func(s *scene) {
		run(s, func(e *ending) error {
			finish := s.a.tap.After(s, s.endTag("pgqrs:commit"))
			e.end(finish)
			err := c.do(e)
			finish.Go()
			s.wantError(err, pgqrs.ErrState)
			return err
		})
	})
	for _, tag := range []string{"pgqrs:run.finish", "pgqrs:message.ack"} {
		onPostgres(t, "the change comes after "+tag+" of the end", func(s *scene) {
			run(s, func(e *ending) error {
				e.inParts()
				finish := s.a.tap.After(s, tag)
				e.end(finish)
				done := async(func() error { return c.do(e) })
				if c.first == "pgqrs:run.wake" && tag == "pgqrs:run.finish" {
					// The change needs only the message, which the end has not reached yet.
					s.must(receive(s, "the change is done", done))
					finish.Go()
					return nil
				}
				s.wantWait(s.b, done)
				finish.Go()
				err := receive(s, "the change is done", done)
				s.wantError(err, pgqrs.ErrState)
				return err
			})
		})
	}
	onPostgres(t, "the end comes after "+c.first+" of the change", func(s *scene) {
		run(s, func(e *ending) error {
			begun := s.b.tap.After(s, c.first)
			done := async(func() error { return c.do(e) })
			begun.Wait(s)
			ended := s.a.tap.After(s, "pgqrs:commit")
			close(e.gate)
			if !s.waitsForLock(s.a, ended.Held) {
				s.Fatal("the end did not wait for the change")
			}
			ended.Go()
			begun.Go()
			s.must(receive(s, "the change is done", done))
			return nil
		})
	})
}

func TestCancelAgainstEnd(t *testing.T) {
	againstEnd(t, change{
		do:    func(e *ending) error { return e.Cancel(e.s.Context()) },
		first: "pgqrs:run.cancel",
		ends:  pgqrs.Cancelled,
	})
}

// unstarted starts a run that no worker has seen. It returns the run and the handler of its
// workflow.
func (s *scene) unstarted() (*ending, pgqrs.Handler) {
	s.Helper()
	e := &ending{RunHandle: value(orders(s.b).Start(s.Context(), 1))(s), s: s}
	return e, orders(s.a).Handle(func(context.Context, *pgqrs.Run, int) (string, error) {
		s.Error("the function of a cancelled run was called")
		return "done", nil
	})
}

// A run without a step ends by Cancel at once, or else when its worker begins it.
func TestCancelAgainstBegin(t *testing.T) {
	status := func(e *ending) pgqrs.RunState { return value(e.Info(e.s.Context()))(e.s).Status }
	onBoth(t, "the cancel comes first", func(s *scene) {
		e, h := s.unstarted()
		claim := s.a.tap.Before(s, "pgqrs:message.claim")
		s.work(h)
		claim.Wait(s)
		s.must(e.Cancel(s.Context()))
		equal(s, "status", status(e), pgqrs.Cancelled)
		claim.Go()
		e.want(pgqrs.Cancelled)
	})
	onBoth(t, "the claim comes first", func(s *scene) {
		e, h := s.unstarted()
		begin := s.a.tap.Before(s, "pgqrs:run.begin")
		s.work(h)
		begin.Wait(s)
		s.must(e.Cancel(s.Context()))
		equal(s, "status", status(e), pgqrs.Cancelling)
		begin.Go()
		e.want(pgqrs.Cancelled)
	})
	onPostgres(t, "the claim comes within the cancel, and the run begins after it", func(s *scene) {
		e, h := s.unstarted()
		begun := s.b.tap.After(s, "pgqrs:run.cancel")
		done := async(func() error { return e.Cancel(s.Context()) })
		begun.Wait(s)
		s.work(h)
		s.eventually("the beginning waits for the cancel", func() bool { return s.inWait(s.a) })
		begun.Go()
		s.must(receive(s, "the cancel is done", done))
		e.want(pgqrs.Cancelled)
	})
	onPostgres(t, "the claim passes over a message that the cancel has", func(s *scene) {
		e, h := s.unstarted()
		begun := s.b.tap.After(s, "pgqrs:run.unstarted_archive")
		done := async(func() error { return e.Cancel(s.Context()) })
		begun.Wait(s)
		claim := s.a.tap.After(s, "pgqrs:message.claim")
		s.work(h)
		claim.Wait(s)
		claim.Go()
		begun.Go()
		s.must(receive(s, "the cancel is done", done))
		equal(s, "status", status(e), pgqrs.Cancelled)
		e.want(pgqrs.Cancelled)
	})
}

func TestPauseAgainstEnd(t *testing.T) {
	againstEnd(t, change{
		do:    func(e *ending) error { return e.Pause(e.s.Context()) },
		first: "pgqrs:run.pause",
		ends:  pgqrs.Succeeded, // it has nothing left that could be paused
	})
}

const news pgqrs.Signal[string] = "news"

func TestSignalAgainstEnd(t *testing.T) {
	againstEnd(t, change{
		do:    func(e *ending) error { return news.Send(e.s.Context(), e.s.b.store, e.ID(), "late") },
		first: "pgqrs:run.wake",
		ends:  pgqrs.Succeeded,
		check: func(s *scene, done bool) {
			want := 0
			if done {
				want = 1
			}
			equal(s, "signals stored", s.count("SELECT count(*) FROM pgqrs_workflow_signals"), want)
		},
	})
}

// waiting starts a run that waits for news for a moment, and then without a limit.
func (s *scene) waiting(first time.Duration) *pgqrs.RunHandle[string] {
	s.Helper()
	s.work(orders(s.a).Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		v, err := news.Wait(ctx, run, first)
		if errors.Is(err, pgqrs.ErrTimeout) {
			v, err = news.Wait(ctx, run, 0)
			return v + ", late", err
		}
		return v, err
	}))
	return value(orders(s.b).Start(s.Context(), 1))(s)
}

func TestSignalAgainstWait(t *testing.T) {
	result := func(s *scene, run *pgqrs.RunHandle[string], want string) {
		s.Helper()
		equal(s, "result", value(run.Result(s.Context()))(s), want)
	}
	onBoth(t, "the signal comes as the run, which has found none, is being put to sleep", func(s *scene) {
		sleep := s.a.tap.Before(s, "pgqrs:message.release")
		run := s.waiting(0)
		sleep.Wait(s)
		s.must(news.Send(s.Context(), s.b.store, run.ID(), "sent"))
		sleep.Go()
		result(s, run, "sent")
	})
	onBoth(t, "the signal comes as the run sleeps", func(s *scene) {
		sleep := s.a.tap.After(s, "pgqrs:message.release")
		run := s.waiting(0)
		sleep.Wait(s)
		s.must(news.Send(s.Context(), s.b.store, run.ID(), "sent"))
		sleep.Go()
		result(s, run, "sent")
	})
	onBoth(t, "the signal comes as the end of the time is being recorded", func(s *scene) {
		asleep := s.a.tap.After(s, "pgqrs:step.save")
		run := s.waiting(time.Millisecond)
		asleep.Wait(s)
		timeout := s.a.tap.Before(s, "pgqrs:step.save")
		asleep.Go()
		timeout.Wait(s)
		s.must(news.Send(s.Context(), s.b.store, run.ID(), "sent"))
		timeout.Go()
		result(s, run, "sent, late")
	})
	onBoth(t, "the signal comes when the time is up, before the run looks", func(s *scene) {
		asleep := s.a.tap.After(s, "pgqrs:step.save")
		run := s.waiting(time.Millisecond)
		asleep.Wait(s)
		look := s.a.tap.Before(s, "pgqrs:begin")
		asleep.Go()
		look.Wait(s)
		s.must(news.Send(s.Context(), s.b.store, run.ID(), "sent"))
		look.Go()
		result(s, run, "sent")
	})
}

// A sibling is a parent that waits for two children. No worker handles one of them, and side a is
// about to end the other.
type sibling struct {
	*pgqrs.RunHandle[string] // the parent, of side b
	idle                     pgqrs.RunInfo
	gate                     chan struct{}
}

func (s *scene) sibling() *sibling {
	s.Helper()
	b := &sibling{gate: make(chan struct{})}
	idle := pgqrs.NewWorkflow[int, string](s.b.store, "idle")
	busy := pgqrs.NewWorkflow[int, string](s.a.store, "busy")
	begun := make(chan struct{}, 1)
	s.work(busy.Handle(func(context.Context, *pgqrs.Run, int) (string, error) {
		begun <- struct{}{}
		<-b.gate
		return "done", nil
	}))
	parents := pgqrs.NewWorkflow[int, string](s.b.store, "parents")
	s.work(parents.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		// The parent waits for both at once, as if one step had started them.
		_, err := idle.Child(ctx, run, "kids", 1)
		if errors.Is(err, pgqrs.ErrSuspended) {
			return "", err
		}
		return "over", err
	}))
	b.RunHandle = value(parents.Start(s.Context(), 1))(s)
	s.eventually("the parent waits", func() bool {
		kids := value(s.b.store.Runs(s.Context(), pgqrs.RunFilter{Parent: b.ID()}))(s)
		if len(kids) == 1 {
			b.idle = kids[0]
		}
		return len(kids) == 1 && s.state(value(b.Info(s.Context()))(s).MessageID) == pgqrs.Scheduled
	})
	other := value(busy.Start(s.Context(), 1))(s)
	receive(s, "the other child has begun", begun)
	_, err := s.b.db.ExecContext(s.Context(), fmt.Sprintf("UPDATE pgqrs_workflow_runs SET parent_run_id = %d, parent_step = 'kids' WHERE id = %d", b.ID(), other.ID()))
	s.must(err)
	return b
}

func (b *sibling) remove(s *scene) <-chan error {
	return async(func() error { _, err := s.b.store.Delete(s.Context(), b.idle.MessageID); return err })
}

// want waits for the end of the parent, which fails because its child was deleted.
func (b *sibling) want(s *scene) {
	s.Helper()
	s.eventually("the parent has ended", func() bool { return value(b.Info(s.Context()))(s).Status == pgqrs.Failed })
	if info := value(b.Info(s.Context()))(s); !strings.Contains(info.Error, "it was deleted") {
		s.Errorf("its error is %q", info.Error)
	}
}

func TestDeletionOfAChildAgainstTheEndOfAnother(t *testing.T) {
	onPostgres(t, "the deletion comes when the other has looked", func(s *scene) {
		b := s.sibling()
		looked := s.a.tap.After(s, "pgqrs:run.join_parent")
		close(b.gate)
		looked.Wait(s)
		done := b.remove(s)
		s.wantWait(s.b, done)
		looked.Go()
		s.must(receive(s, "the deletion is done", done))
		b.want(s)
	})
	onPostgres(t, "the other looks before the deletion has committed", func(s *scene) {
		b := s.sibling()
		removed := s.b.tap.After(s, "pgqrs:message.remove_rows")
		done := b.remove(s)
		removed.Wait(s)
		ended := s.a.tap.After(s, "pgqrs:commit")
		close(b.gate)
		ended.Wait(s)
		ended.Go()
		removed.Go()
		s.must(receive(s, "the deletion is done", done))
		b.want(s)
	})
}
