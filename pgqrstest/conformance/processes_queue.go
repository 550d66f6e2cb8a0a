package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// patient is a policy for messages whose workers are killed often. They are retried at once and
// without limit, and their lease ends after two seconds.
var patient = pgqrs.Policy{MaxAttempts: -1, Lease: 2 * time.Second, Backoff: func(int) time.Duration { return 0 }}

func playPickup(ctx context.Context, a *actor) error {
	jobs := pgqrs.NewQueue[int](a.store, "jobs")
	return a.work(ctx, &pgqrs.Worker{PollInterval: 250 * time.Millisecond, Handlers: []pgqrs.Handler{
		jobs.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error { return a.note(ctx, "job", m.Payload, ended) }),
	}})
}

func testPickup(t *testing.T, s *stage) {
	child := s.begin(t)
	eventually(t, "the worker is there", func() bool { return len(value(s.store.Workers(t.Context()))(t)) == 1 })
	for n := range 3 {
		enqueue(t, pgqrs.NewQueue[int](s.store, "jobs"), n)
		s.awaitArchived(t, "jobs", n+1)
	}
	dismiss(t, child)
	equal(t, "number of notes", len(s.notes(t)), 3)
}

func playHeirs(ctx context.Context, a *actor) error {
	jobs := pgqrs.NewQueue[int](a.store, "jobs").With(patient)
	return a.work(ctx, &pgqrs.Worker{Handlers: []pgqrs.Handler{
		jobs.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
			if err := a.note(ctx, "job", m.Payload, begun); err != nil {
				return err
			}
			if a.Stuck {
				<-ctx.Done()
			}
			return errors.Join(ctx.Err(), a.note(ctx, "job", m.Attempt, ended))
		}),
	}})
}

func testHeirs(t *testing.T, s *stage) {
	id := enqueue(t, pgqrs.NewQueue[int](s.store, "jobs"), 1)
	for range s.Scale {
		before := len(s.notes(t))
		stuck := s.beginStuck(t)
		eventually(t, "the process has the message", func() bool { return len(s.notes(t)) > before })
		stuck.kill(t)
	}
	heir := s.begin(t)
	s.awaitArchived(t, "jobs", 1)
	dismiss(t, heir)
	last := s.notes(t)[len(s.notes(t))-1]
	if last.what != ended || last.n <= s.Scale {
		t.Errorf("message %d ended with %+v; want its attempt to be at least %d", id, last, s.Scale+1)
	}
}

func playRunHeirs(ctx context.Context, a *actor) error {
	w := pgqrs.NewWorkflow[int, string](a.store, "errand").With(patient)
	return a.work(ctx, &pgqrs.Worker{Handlers: []pgqrs.Handler{
		w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
			first, err := pgqrs.Step(ctx, run, "first", func(ctx context.Context) (string, error) { return "one", a.note(ctx, "first", 0, ended) })
			if err != nil {
				return "", err
			}
			second, err := pgqrs.Step(ctx, run, "second", func(ctx context.Context) (string, error) {
				if err := a.note(ctx, "second", 0, begun); err != nil {
					return "", err
				}
				if a.Stuck {
					<-ctx.Done()
				}
				return "two", ctx.Err()
			})
			return first + second, err
		}),
	}})
}

func testRunHeirs(t *testing.T, s *stage) {
	run := value(pgqrs.NewWorkflow[int, string](s.store, "errand").Start(t.Context(), 1))(t)
	stuck := s.beginStuck(t)
	s.awaitNotes(t, begun, 1)
	stuck.kill(t)
	heir := s.begin(t)
	equal(t, "result", finished(t, run), "onetwo")
	dismiss(t, heir)
	firsts := 0
	for _, n := range s.notes(t) {
		if n.subject == "first" {
			firsts++
		}
	}
	equal(t, "how often the recorded step was taken", firsts, 1)
}

func playGroups(ctx context.Context, a *actor) error {
	jobs := pgqrs.NewQueue[int](a.store, "jobs").With(patient)
	handler := jobs.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
		if err := a.note(ctx, m.Group, m.Payload, begun); err != nil {
			return err
		}
		if rand.N(10) == 0 {
			return errors.Join(a.note(ctx, m.Group, m.Payload, failed), errors.New("not yet"))
		}
		return a.note(ctx, m.Group, m.Payload, ended)
	})
	return a.work(ctx, &pgqrs.Worker{Handlers: []pgqrs.Handler{handler}}, &pgqrs.Worker{Handlers: []pgqrs.Handler{handler}})
}

func testGroups(t *testing.T, s *stage) {
	groups, each := 4*s.Scale, 5*s.Scale
	children := make([]*process, s.number())
	for i := range children {
		children[i] = s.begin(t)
	}
	killed := map[int]bool{}
	q := pgqrs.NewQueue[int](s.store, "jobs")
	for n := range each {
		for g := range groups {
			enqueue(t, q, n, pgqrs.Group(fmt.Sprint("g", g)))
		}
		if n%5 == 2 {
			s.awaitNotes(t, begun, (len(killed)+1)*groups)
			i := n % len(children)
			killed[children[i].kill(t)] = true
			children[i] = s.begin(t)
		}
	}
	s.awaitArchived(t, "jobs", groups*each)
	dismiss(t, children...)
	lines := map[string]*line{}
	for _, x := range s.notes(t) {
		l := lines[x.subject]
		if l == nil {
			l = &line{}
			lines[x.subject] = l
		}
		if before := *l; !l.take(x, killed) {
			t.Errorf("%+v came when the group stood at %+v", x, before)
		}
	}
	for group, l := range lines {
		equal(t, "messages of group "+group+" that have ended", l.done, each)
	}
	equal(t, "number of groups", len(lines), groups)
}

// A line is the state of a group while its notes are read.
type line struct {
	done int  // messages that have ended
	open bool // whether the next message is being handled
	pid  int  // the process that handles it
}

// take adds a note and reports whether it is in order. A message may begin only after the message
// before it has ended. It may begin again only after it failed or its process was killed.
func (l *line) take(x note, killed map[int]bool) bool {
	if x.n == l.done-1 { // it had ended, and its process died before that was recorded
		return len(killed) > 0 && (!l.open || killed[l.pid])
	}
	free := !l.open || killed[l.pid]
	switch x.what {
	case begun:
		l.open, l.pid = true, x.pid
		return x.n == l.done && free
	case failed:
		l.open = false
		return x.n == l.done && x.pid == l.pid
	default:
		l.open = false
		l.done++
		return x.n == l.done-1 && x.pid == l.pid
	}
}

// playBatch handles letters, one in seven of which dies, and the report that is their batch
// callback.
func playBatch(ctx context.Context, a *actor) error {
	letters := pgqrs.NewQueue[int](a.store, "letters").With(patient)
	reports := pgqrs.NewQueue[string](a.store, "reports").With(patient)
	return a.work(ctx, &pgqrs.Worker{Concurrency: 2, Handlers: []pgqrs.Handler{
		letters.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
			if err := a.note(ctx, "letter", m.Payload, ended); err != nil {
				return err
			}
			if m.Payload%7 == 0 {
				return pgqrs.Permanent(errors.New("no such address"))
			}
			return nil
		}),
		reports.Handle(func(ctx context.Context, m *pgqrs.Message[string]) error {
			return a.note(ctx, m.Payload, int(m.Batch.Done), ended)
		}),
	}})
}

func testBatch(t *testing.T, s *stage) {
	size := 35 * s.Scale
	list := make([]int, size)
	for i := range list {
		list[i] = i
	}
	children := make([]*process, s.number())
	for i := range children {
		children[i] = s.begin(t)
	}
	reports := pgqrs.NewQueue[string](s.store, "reports")
	value(pgqrs.NewQueue[int](s.store, "letters").EnqueueBatch(t.Context(), list, pgqrs.Then(reports, "report")))(t)
	s.awaitNotes(t, ended, size/5)
	children[0].kill(t)
	children[0] = s.begin(t)
	s.awaitArchived(t, "reports", 1)
	dismiss(t, children...)
	done := value(s.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "reports", State: pgqrs.Archived}))(t)
	equal(t, "number of reports", len(done), 1)
	equal(t, "what the report says", done[0].Batch, pgqrs.BatchResult{Done: int64(size - size/7), Dead: int64(size / 7)})
	seen := map[int]bool{}
	for _, x := range s.notes(t) {
		if x.subject == "letter" {
			seen[x.n] = true
		} else if len(seen) < size || x.n != size-size/7 {
			t.Errorf("the report was delivered with %+v when %d letters of %d had been worked", x, len(seen), size)
		}
	}
}
