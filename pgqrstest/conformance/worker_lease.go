package conformance

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var leaseKeepingCases = []testcase{
	{"a handler that takes longer than the lease keeps its message", "long work would be done by several workers at once", leaseKept},
	{"a handler whose message another has taken is told so by its ctx, and its late outcome changes nothing", "two workers would do the same work to the end", leaseTaken},
	{"a handler whose message was taken away is told so by its ctx, and its late error changes nothing", "an operator could not take work away from a worker", leaseCleared},
	{"a worker that takes its own lost message again ends the handler that had it", "a handler would go on for ever, unseen, beside the one that has the message", leaseTakenAgain},
	{"a message that was claimed ahead and lost is not handled", "two workers would do the same work", leaseLostWaiting},
	{"an Extend in a handler is not shortened by the heartbeat", "a handler could not ask for more time than the worker's lease", leaseExtended},
}

var drainCases = []testcase{
	{"what is being handled is finished, what was claimed ahead is given back uncounted, and nothing is claimed", "a deploy would burn attempts and interrupt work", drainGraceful},
	{"after Grace a handler's ctx ends and its message is given back uncounted", "a deploy would hang on a slow handler, or burn its attempt", drainCut},
	{"a handler that never returns is named in Run's error, and its lease is left to expire", "a deploy would hang, or the message be handled by two at once", drainStuck},
	{"nothing is left running afterwards", "every restart of a worker in a process would leak", drainGoroutines},
	{"Run returns nil at once when its ctx was done before it began", "a program that is told to stop while it starts would not", drainBefore},
}

// A pair is the set-up of most of these cases. It has a worker whose handler holds one message, and
// a queue of the same name in another Store.
type pair struct {
	id        int64
	elsewhere *pgqrs.Queue[int]
	gate      chan struct{} // the handler waits for its ctx or for this channel
	causes    chan error    // why the handler's ctx ended
	stop      func() error
}

// newPair starts the worker, with a short lease, and waits until it handles a message.
func newPair(t *testing.T, e *env, result error) pair {
	t.Helper()
	q := pgqrs.NewQueue[int](e.store, "long")
	p := pair{
		elsewhere: pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "long"),
		gate:      make(chan struct{}), causes: make(chan error, 100),
	}
	begun := make(chan struct{}, 100)
	w := fast(q.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
		begun <- struct{}{}
		select {
		case <-ctx.Done():
		case <-p.gate:
		}
		p.causes <- context.Cause(ctx)
		return result
	}))
	w.Concurrency, w.Lease = 1, 2*time.Second
	p.stop = start(t, w)
	p.id = enqueue(t, q, 1)
	receive(t, "the handler has begun", begun)
	return p
}

func leaseKept(t *testing.T, e *env) {
	p := newPair(t, e, nil)
	first := e.info(t, p.id)
	eventually(t, "the lease has been renewed past its first end", func() bool {
		if ms := dequeue(t, p.elsewhere, 1); len(ms) > 0 {
			t.Fatal("another consumer received the message")
		}
		m := e.info(t, p.id)
		return m.LeasedUntil.Sub(first.LeasedUntil) > 2*time.Second
	})
	close(p.gate)
	if cause := receive(t, "the handler returns", p.causes); cause != nil {
		t.Errorf("the handler was cancelled: %v", cause)
	}
	m := e.awaitState(t, p.id, pgqrs.Archived)
	equal(t, "attempts", m.Attempt, 1)
	equal(t, "claims", m.Claim, 1)
}

func leaseTaken(t *testing.T, e *env) {
	p := newPair(t, e, nil)
	m := takeOver(t, e, p.elsewhere, p.id)
	wantError(t, receive(t, "the handler's ctx ends", p.causes), pgqrs.ErrLeaseLost)
	must(t, p.stop())
	now := e.info(t, p.id)
	equal(t, "state", now.State, pgqrs.Leased)
	equal(t, "holder", now.WorkerID, m.WorkerID)
	must(t, p.elsewhere.Ack(t.Context(), m))
	if !e.log.has("lease lost") {
		t.Error("nothing about it in the log")
	}
}

func leaseCleared(t *testing.T, e *env) {
	p := newPair(t, e, pgqrs.Permanent(errBoom))
	e.poke(t, "UPDATE pgqrs_messages SET consumer_worker_id = NULL WHERE id = %d", p.id)
	wantError(t, receive(t, "the handler's ctx ends", p.causes), pgqrs.ErrLeaseLost)
	must(t, p.stop())
	m := e.info(t, p.id)
	equal(t, "last error", m.LastError, "")
	equal(t, "attempts", m.Attempt, 1)
	equal(t, "state", m.State, pgqrs.Scheduled) // until the lease would have ended
}

// An ahead is a worker that handles one message and has claimed more messages ahead.
type ahead struct {
	q       *pgqrs.Queue[int]
	stop    func() error
	gate    chan struct{} // the handler waits for this channel
	ended   chan error    // ctx.Err() when it returns
	current int64         // the message being handled
	waiting []int64       // messages that are claimed ahead
}

type ctxKey struct{}

// newAhead starts the worker on a store. The handlers of the first messages return at once, so that
// the worker learns that claiming ahead pays.
func newAhead(t *testing.T, e *env, store *pgqrs.Store, settings pgqrs.Worker) *ahead {
	t.Helper()
	const more = 5
	a := &ahead{q: pgqrs.NewQueue[int](store, "ahead"), gate: make(chan struct{}), ended: make(chan error, 100)}
	payloads := make([]int, quick+1+more)
	for i := range payloads {
		payloads[i] = i
	}
	ids := value(pgqrs.NewQueue[int](e.store, "ahead").EnqueueBatch(t.Context(), payloads))(t)
	begun := make(chan int, 100)
	h := a.q.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
		if m.Payload < quick {
			return nil
		}
		begun <- m.Payload
		<-a.gate
		a.ended <- ctx.Err()
		return nil
	})
	settings.Handlers, settings.Concurrency, settings.PollInterval = []pgqrs.Handler{h}, 1, 10*time.Millisecond
	a.stop = start(t, &settings)
	equal(t, "the message that is handled slowly", receive(t, "it is handled", begun), quick)
	a.current, a.waiting = ids[quick], ids[quick+1:]
	for _, id := range a.waiting {
		equal(t, "attempts of a message claimed ahead", e.awaitState(t, id, pgqrs.Leased).Attempt, 1)
	}
	return a
}

func leaseLostWaiting(t *testing.T, e *env) {
	a := newAhead(t, e, e.store, pgqrs.Worker{Lease: 2 * time.Second})
	elsewhere := pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "ahead")
	m := takeOver(t, e, elsewhere, a.waiting[0])
	eventually(t, "the worker has noticed", func() bool { return e.log.has(fmt.Sprintf("message=%d", m.ID)) })
	close(a.gate)
	for _, id := range a.waiting[1:] {
		e.awaitState(t, id, pgqrs.Archived)
	}
	must(t, a.stop())
	equal(t, "messages handled slowly", len(a.ended), len(a.waiting))
	must(t, elsewhere.Ack(t.Context(), m))
}

func leaseExtended(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "extended")
	extended, gate := make(chan error, 1), make(chan struct{})
	w := fast(q.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
		extended <- q.Extend(ctx, time.Hour, m)
		<-gate
		return ctx.Err()
	}))
	w.Lease = 2 * time.Second
	start(t, w)
	id := enqueue(t, q, 1)
	must(t, receive(t, "the handler extends its lease", extended))
	e.beats(t, 3)
	m := e.info(t, id)
	if d := m.LeasedUntil.Sub(m.EnqueuedAt); d < time.Hour {
		t.Errorf("the lease ends %v after the message was enqueued; want an hour", d)
	}
	close(gate)
	e.awaitState(t, id, pgqrs.Archived)
}

// stopping calls stop and sends its result.
func stopping(stop func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- stop() }()
	return done
}

func drainGraceful(t *testing.T, e *env) {
	a := newAhead(t, e, e.store, pgqrs.Worker{})
	done := stopping(a.stop)
	for _, id := range a.waiting {
		e.awaitGivenBack(t, id)
	}
	late := enqueue(t, a.q, 100)
	close(a.gate)
	must(t, receive(t, "Run returns", done))
	if err := receive(t, "the handler has returned", a.ended); err != nil {
		t.Errorf("the handler was cancelled within Grace: %v", err)
	}
	equal(t, "state of what was being handled", e.info(t, a.current).State, pgqrs.Archived)
	for _, id := range append(a.waiting, late) {
		m := e.info(t, id)
		equal(t, "state of the others", m.State, pgqrs.Ready)
		equal(t, "attempts of the others", m.Attempt, 0)
	}
	if next := dequeue(t, a.q, 10); len(next) != len(a.waiting)+1 {
		t.Errorf("a consumer receives %d of them at once; want all %d", len(next), len(a.waiting)+1)
	}
}

func drainCut(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "slow").With(atOnce(1))
	begun, ended := make(chan any, 1), make(chan error, 1)
	w := fast(q.Handle(func(ctx context.Context, _ *pgqrs.Message[int]) error {
		begun <- ctx.Value(ctxKey{})
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	}))
	w.Grace = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), ctxKey{}, "of Run"))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	id := enqueue(t, q, 1)
	equal(t, "a value of Run's ctx in the handler's", receive(t, "the handler has begun", begun), any("of Run"))
	cancel()
	wantError(t, receive(t, "the handler's ctx ends", ended), context.Canceled)
	must(t, receive(t, "Run returns", done))
	m := e.info(t, id)
	equal(t, "state", m.State, pgqrs.Ready)
	equal(t, "attempts", m.Attempt, 0)
	equal(t, "last error", m.LastError, "")
}

func drainStuck(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "stuck")
	begun, gate, ended := make(chan struct{}, 2), make(chan struct{}), make(chan struct{})
	w := fast(q.Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
		begun <- struct{}{}
		if m.Payload == 1 {
			<-gate
			defer close(ended)
		}
		return nil
	}))
	w.Grace = time.Millisecond
	stop := start(t, w)
	stuck, fine := enqueue(t, q, 1), enqueue(t, q, 2)
	receive(t, "a handler has begun", begun)
	e.awaitState(t, fine, pgqrs.Archived)
	err := stop()
	wantError(t, err, pgqrs.ErrTimeout)
	wantText(t, "error", err.Error(), fmt.Sprintf("message %d of queue %q", stuck, "stuck"), "1 handlers")
	equal(t, "state", e.info(t, stuck).State, pgqrs.Leased)
	close(gate)
	receive(t, "the handler returns after all", ended)
	eventually(t, "the log says what becomes of the message", func() bool { return e.log.has("delivered again") })
	equal(t, "state afterwards", e.info(t, stuck).State, pgqrs.Leased)
}

func drainGoroutines(t *testing.T, e *env) {
	label := fmt.Sprintf("%p", e)
	running := func() bool {
		var all strings.Builder
		must(t, pprof.Lookup("goroutine").WriteTo(&all, 1))
		return strings.Contains(all.String(), label)
	}
	q := pgqrs.NewQueue[string](e.store, "clean")
	h, got := handling(q)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go pprof.Do(ctx, pprof.Labels("pgqrs-test", label), func(ctx context.Context) { done <- fast(h).Run(ctx) })
	enqueue(t, q, "x")
	receive(t, "a message is handled", got)
	equal(t, "whether goroutines of the worker are seen while it runs", running(), true)
	cancel()
	must(t, receive(t, "Run returns", done))
	eventually(t, "no goroutine of the worker is left", func() bool { return !running() })
}

func drainBefore(t *testing.T, e *env) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q := pgqrs.NewQueue[string](e.store, "early")
	h, got := handling(q)
	id := enqueue(t, q, "x")
	must(t, fast(h).Run(ctx))
	equal(t, "messages handled", len(got), 0)
	equal(t, "state", e.info(t, id).State, pgqrs.Ready)
	for _, w := range value(e.store.Workers(t.Context()))(t) {
		equal(t, "status of a worker's row", w.State, "stopped")
	}
	if ctx.Err() == nil || errors.Is(context.Cause(ctx), pgqrs.ErrTimeout) {
		t.Error("the ctx was changed")
	}
}

func leaseTakenAgain(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "again")
	begun, cause := make(chan struct{}), make(chan error, 1)
	start(t, fast(q.Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
		if m.Claim > 1 {
			return nil
		}
		close(begun)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return ctx.Err()
	})))
	id := enqueue(t, q, 1)
	receive(t, "the handler has begun", begun)
	// As pgqrs 0.15 releases a message, well before the next heartbeat could notice.
	e.poke(t, "UPDATE pgqrs_messages SET consumer_worker_id = NULL, vt = enqueued_at WHERE id = %d", id)
	wantError(t, receive(t, "the first handler's ctx has ended", cause), pgqrs.ErrLeaseLost)
	e.awaitState(t, id, pgqrs.Archived)
}
