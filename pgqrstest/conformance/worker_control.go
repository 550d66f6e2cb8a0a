package conformance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var controlCases = []testcase{
	{"a worker has a live row for each of its queues, which ends as stopped", "an operator could not see who works", controlRows},
	{"a suspended queue of a worker finishes what is in flight and claims no more, until it is resumed", "an operator could not stop one kind of work in one process", controlSuspend},
	{"an interrupted worker suspends itself", "a process of pgqrs 0.15 could not interrupt a worker", controlInterrupt},
	{"a resumed worker can be interrupted again", "remote control would work only once", controlAgain},
	{"a stopped queue of a worker ends for good, and Run returns nil when all have", "a worker could not be ended from outside", controlStop},
	{"a suspended worker gives back what it had claimed ahead", "messages would be stuck with a worker that does not work", controlAhead},
	{"illegal transitions say what the status is and what it would have to be", "an operator would not know why nothing happens", controlIllegal},
	{"control of a worker that is not there is ErrNotFound", "a typing error would look like success", controlUnknown},
	{"a name in use is waited for, and taken over once it is free", "two processes would share one row", controlName},
	{"a worker that could not start leaves no live row", "its name would be blocked, and an operator would see a worker that is not there", controlNotStarted},
	{"a worker whose row was deleted makes another and goes on", "a tidy operator would stop all work", controlDeleted},
	{"a worker that was given up for dead while it was held up goes on", "a laptop that slept, or a paused container, would never work again", controlGivenUp},
}

// worker returns the worker row with a name.
func (e *env) worker(t *testing.T, name string) pgqrs.WorkerInfo {
	t.Helper()
	for _, w := range value(e.store.Workers(t.Context()))(t) {
		if w.Name == name {
			return w
		}
	}
	return pgqrs.WorkerInfo{}
}

// awaitStatus waits until a worker's row has a status, and returns the row.
func (e *env) awaitStatus(t *testing.T, name string, status pgqrs.WorkerState) pgqrs.WorkerInfo {
	t.Helper()
	eventually(t, fmt.Sprintf("worker %s is %s", name, status), func() bool { return e.worker(t, name).State == status })
	return e.worker(t, name)
}

// named returns a worker called w with a heartbeat each second.
func named(handlers ...pgqrs.Handler) *pgqrs.Worker {
	w := fast(handlers...)
	w.Name, w.Lease = "w", 6*time.Second
	return w
}

func controlRows(t *testing.T, e *env) {
	a, _ := handling(pgqrs.NewQueue[string](e.store, "a"))
	b, _ := handling(pgqrs.NewQueue[string](e.store, "b"))
	stop := start(t, named(a, b))
	for _, queue := range []string{"a", "b"} {
		w := e.awaitStatus(t, "w/"+queue, "polling")
		equal(t, "queue", w.Queue, queue)
		equal(t, "whether it has shut down", w.ShutdownAt.IsZero(), true)
	}
	e.beats(t, 2)
	must(t, stop())
	for _, queue := range []string{"a", "b"} {
		w := e.worker(t, "w/"+queue)
		equal(t, "status at the end", w.State, "stopped")
		equal(t, "whether it has shut down", w.ShutdownAt.IsZero(), false)
	}
}

// A controlled worker has two queues. Messages of queue a wait at a gate.
type controlled struct {
	a, b  *pgqrs.Queue[string]
	begun chan int64
	gate  chan struct{}
	freed <-chan string    // of queue b
	ended <-chan error     // what Run returned
	row   pgqrs.WorkerInfo // of the worker on queue a
	admin *pgqrs.Store     // of another process
}

// startOnly runs a worker until the test ends. It sends the result of Run if Run returns before
// that.
func startOnly(t *testing.T, w *pgqrs.Worker) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended, gone := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(gone)
		ended <- w.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-gone
	})
	return ended
}

func newControlled(t *testing.T, e *env) *controlled {
	t.Helper()
	c := &controlled{
		a: pgqrs.NewQueue[string](e.store, "a"), b: pgqrs.NewQueue[string](e.store, "b"),
		begun: make(chan int64, 100), gate: make(chan struct{}), admin: e.newStore(t, pgqrs.Config{}),
	}
	ha := c.a.Handle(func(_ context.Context, m *pgqrs.Message[string]) error {
		c.begun <- m.ID
		<-c.gate
		return nil
	})
	hb, freed := handling(c.b)
	c.freed = freed
	c.ended = startOnly(t, named(ha, hb))
	c.row = e.awaitStatus(t, "w/a", "polling")
	return c
}

// goesOn fails the test unless queue b is handled.
func (c *controlled) goesOn(t *testing.T) {
	t.Helper()
	enqueue(t, c.b, "x")
	receive(t, "the other queue goes on", c.freed)
}

// held fails the test unless no message of queue a is taken.
func (c *controlled) held(t *testing.T, e *env) (id int64) {
	t.Helper()
	id = enqueue(t, c.a, "held")
	for range 3 {
		c.goesOn(t)
	}
	e.beats(t, 2)
	m := e.info(t, id)
	equal(t, "state of a message of the queue that is held", m.State, pgqrs.Ready)
	equal(t, "its attempts", m.Attempt, 0)
	return id
}

func controlSuspend(t *testing.T, e *env) {
	c := newControlled(t, e)
	first := enqueue(t, c.a, "in flight")
	receive(t, "the handler has begun", c.begun)
	must(t, c.admin.SuspendWorker(t.Context(), c.row.ID))
	second := c.held(t, e)
	equal(t, "state of what is in flight", e.info(t, first).State, pgqrs.Leased)
	close(c.gate)
	equal(t, "attempts of what was in flight", e.awaitState(t, first, pgqrs.Archived).Attempt, 1)
	equal(t, "status", e.worker(t, "w/a").State, "suspended")
	equal(t, "state of the next", e.info(t, second).State, pgqrs.Ready)
	must(t, c.admin.ResumeWorker(t.Context(), c.row.ID))
	e.awaitState(t, second, pgqrs.Archived)
}

func controlInterrupt(t *testing.T, e *env) {
	c := newControlled(t, e)
	close(c.gate)
	must(t, c.admin.InterruptWorker(t.Context(), c.row.ID))
	e.awaitStatus(t, "w/a", "suspended")
	c.held(t, e)
}

func controlAgain(t *testing.T, e *env) {
	c := newControlled(t, e)
	close(c.gate)
	for range 2 {
		e.awaitStatus(t, "w/a", "polling")
		must(t, c.admin.InterruptWorker(t.Context(), c.row.ID))
		e.awaitStatus(t, "w/a", "suspended")
		must(t, c.admin.ResumeWorker(t.Context(), c.row.ID))
	}
}

func controlStop(t *testing.T, e *env) {
	c := newControlled(t, e)
	first := enqueue(t, c.a, "in flight")
	receive(t, "the handler has begun", c.begun)
	must(t, c.admin.StopWorker(t.Context(), c.row.ID))
	second := c.held(t, e)
	close(c.gate)
	e.awaitState(t, first, pgqrs.Archived)
	equal(t, "state of the next", e.info(t, second).State, pgqrs.Ready)
	equal(t, "status", e.worker(t, "w/a").State, "stopped")
	must(t, c.admin.StopWorker(t.Context(), e.worker(t, "w/b").ID))
	must(t, receive(t, "Run returns by itself", c.ended))
}

func controlAhead(t *testing.T, e *env) {
	a := newAhead(t, e, e.store, pgqrs.Worker{Name: "w", Lease: 6 * time.Second})
	must(t, e.newStore(t, pgqrs.Config{}).SuspendWorker(t.Context(), e.worker(t, "w/ahead").ID))
	for _, id := range a.waiting {
		e.awaitGivenBack(t, id)
	}
	equal(t, "state of what is being handled", e.info(t, a.current).State, pgqrs.Leased)
	close(a.gate)
	e.awaitState(t, a.current, pgqrs.Archived)
	equal(t, "messages handled slowly", len(a.ended), 1)
}

func controlIllegal(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "hand")
	dequeue(t, q, 1) // the dequeue makes a row
	id := value(e.store.Workers(t.Context()))(t)[0].ID
	steps := []struct {
		move    func(context.Context, int64) error
		illegal []string // what the error says, or none if it is legal
	}{
		{e.store.InterruptWorker, []string{"it is ready", "polling"}},
		{e.store.ResumeWorker, []string{"it is ready", "suspended"}},
		{e.store.SuspendWorker, nil},
		{e.store.SuspendWorker, []string{"it is suspended", "ready or polling or interrupted"}},
		{e.store.InterruptWorker, []string{"it is suspended", "polling"}},
		{e.store.ResumeWorker, nil},
		{e.store.StopWorker, nil},
		{e.store.StopWorker, []string{"it is stopped", "ready or polling or suspended or interrupted"}},
		{e.store.SuspendWorker, []string{"it is stopped"}},
		{e.store.ResumeWorker, []string{"it is stopped", "suspended"}},
		{e.store.InterruptWorker, []string{"it is stopped", "polling"}},
	}
	for i, s := range steps {
		err := s.move(t.Context(), id)
		if s.illegal == nil {
			must(t, err)
			continue
		}
		wantError(t, err, pgqrs.ErrState)
		wantText(t, fmt.Sprintf("error of step %d", i), err.Error(), append(s.illegal, fmt.Sprintf("worker %d", id))...)
	}
}

func controlUnknown(t *testing.T, e *env) {
	for _, move := range []func(context.Context, int64) error{
		e.store.SuspendWorker, e.store.ResumeWorker, e.store.InterruptWorker, e.store.StopWorker,
	} {
		err := move(t.Context(), 987654)
		wantError(t, err, pgqrs.ErrNotFound)
		wantText(t, "error", err.Error(), "worker 987654")
	}
}

func controlName(t *testing.T, e *env) {
	first, got := handling(pgqrs.NewQueue[string](e.store, "a"))
	stop := start(t, named(first))
	row := e.awaitStatus(t, "w/a", "polling")
	elsewhere := pgqrs.NewQueue[string](e.newStore(t, pgqrs.Config{}), "a")
	second, gotSecond := handling(elsewhere)
	start(t, named(second))
	eventually(t, "the second one waits", func() bool { return e.log.has("waiting for a worker of the same name") })
	enqueue(t, elsewhere, "x")
	receive(t, "the first one works on", got)
	must(t, stop())
	e.awaitStatus(t, "w/a", "polling")
	enqueue(t, elsewhere, "y")
	equal(t, "handled by the second one", receive(t, "the second one works", gotSecond), "y")
	equal(t, "row", e.worker(t, "w/a").ID, row.ID)
}

func controlNotStarted(t *testing.T, e *env) {
	a, _ := handling(pgqrs.NewQueue[string](e.store, "a"))
	b, _ := handling(pgqrs.NewQueue[string](e.store, "b"))
	start(t, named(b))
	e.awaitStatus(t, "w/b", "polling")
	stop := start(t, named(a, b))
	eventually(t, "the second one waits", func() bool { return e.log.has("waiting for a worker of the same name") })
	must(t, stop())
	equal(t, "status of the row that it had made", e.worker(t, "w/a").State, "stopped")
	equal(t, "status of the first one's row", e.worker(t, "w/b").State, "polling")
}

func controlGivenUp(t *testing.T, e *env) {
	c := newControlled(t, e)
	first := enqueue(t, c.a, "in flight")
	receive(t, "the handler has begun", c.begun)
	// As another worker's maintenance leaves the row of a worker whose heartbeat timeout has
	// passed.
	e.poke(t, "UPDATE pgqrs_workers SET status = 'stopped', shutdown_at = heartbeat_at WHERE id = %d", c.row.ID)
	e.awaitStatus(t, "w/a", "polling")
	close(c.gate)
	equal(t, "attempts", e.awaitState(t, first, pgqrs.Archived).Attempt, 1)
	e.awaitState(t, enqueue(t, c.a, "next"), pgqrs.Archived)
}

func controlDeleted(t *testing.T, e *env) {
	c := newControlled(t, e)
	first := enqueue(t, c.a, "in flight")
	receive(t, "the handler has begun", c.begun)
	e.poke(t, "DELETE FROM pgqrs_workers WHERE id = %d", c.row.ID)
	row := e.awaitStatus(t, "w/a", "polling")
	if row.ID == c.row.ID {
		t.Errorf("the new row has the old one's id %d", row.ID)
	}
	close(c.gate)
	equal(t, "attempts", e.awaitState(t, first, pgqrs.Archived).Attempt, 1)
	e.awaitState(t, enqueue(t, c.a, "next"), pgqrs.Archived)
}
