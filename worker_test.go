package pgqrs

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"
)

func doNothing(context.Context, *Message[int]) error { return nil }

func TestWorkerDefaults(t *testing.T) {
	_, s := newFake(t, Config{}, SQLite, nil)
	w := Worker{Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}}
	got, err := w.settings()
	if err != nil {
		t.Fatal(err)
	}
	if got.Concurrency != 16 || got.Lease != 30*time.Second || got.PollInterval != 250*time.Millisecond || got.Grace != 30*time.Second {
		t.Errorf("the defaults are %+v", got)
	}
	if w.Name != "" || w.Concurrency != 0 {
		t.Errorf("the caller's Worker became %+v", w)
	}
	again, err := w.settings()
	if err != nil || again.Name == got.Name || checkName("worker name", got.Name) != nil {
		t.Errorf("two nameless workers are named %q and %q, %v", got.Name, again.Name, err)
	}
}

func TestWorkerKeepsItsSettings(t *testing.T) {
	_, s := newFake(t, Config{}, SQLite, nil)
	w := Worker{
		Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)},
		Name:     "w", Concurrency: 3, Lease: 100 * time.Millisecond, PollInterval: time.Minute, Grace: time.Nanosecond,
	}
	got, err := w.settings()
	if err != nil || got.Name != "w" || got.Concurrency != 3 || got.Lease != w.Lease || got.PollInterval != w.PollInterval || got.Grace != w.Grace {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestWorkerNamesTheHandlerThatCannotWork(t *testing.T) {
	_, s := newFake(t, Config{}, SQLite, nil)
	good := NewQueue[int](s, "good").Handle(doNothing)
	for text, handlers := range map[string][]Handler{
		"handler 1 is a zero Handler":                 {good, {}},
		`two handlers for queue "good"`:               {good, good},
		`handler of queue "": empty queue name`:       {good, NewQueue[int](s, "").Handle(doNothing)},
		`handler of queue "q": Policy.Timeout is -1s`: {good, NewQueue[int](s, "q").With(Policy{Timeout: -time.Second}).Handle(doNothing)},
		`handler of queue "q": nil handler function`:  {good, NewQueue[int](s, "q").HandleTx(nil)},
	} {
		_, err := (&Worker{Handlers: handlers}).settings()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %s", err, text)
		}
	}
}

func TestMiddlewareWrapsInOrder(t *testing.T) {
	_, s := newFake(t, Config{}, SQLite, nil)
	var order []string
	note := func(name string) func(WorkFunc) WorkFunc {
		return func(next WorkFunc) WorkFunc {
			return func(ctx context.Context, m *MessageInfo) error {
				order = append(order, name)
				return next(ctx, m)
			}
		}
	}
	handle := func(context.Context, *Message[int]) error {
		order = append(order, "handler")
		return nil
	}
	r := newTestLoop(t, &Worker{
		Handlers:   []Handler{NewQueue[int](s, "q").Handle(handle)},
		Middleware: []func(WorkFunc) WorkFunc{note("first"), note("second")},
	})
	if err := r.queues[0].work(t.Context(), &MessageInfo{Raw: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, " "); got != "first second handler" {
		t.Errorf("they ran in the order %s", got)
	}
}

// Claiming ahead is limited by time, by number and by size.
func TestWhatIsClaimedAhead(t *testing.T) {
	_, s := newFake(t, Config{}, SQLite, nil)
	w, err := (&Worker{Concurrency: 10, Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}}).settings()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name         string
		average      time.Duration // of the handler
		size, inHand int
		want         int
	}{
		{"nothing is known yet", 0, 0, 0, 10},
		{"slow handlers", time.Second, 100, 0, 10},
		{"50 ms of work", 5 * time.Millisecond, 100, 0, 110},
		{"fast handlers", time.Nanosecond, 100, 0, maxClaim},
		{"fast handlers, half in hand", time.Nanosecond, 100, maxPrefetch / 2, maxClaim},
		{"fast handlers, more than half in hand", time.Nanosecond, 100, maxPrefetch/2 + 1, 0},
		{"fast handlers of large payloads", time.Nanosecond, 1 << 20, 0, 18},
		{"fast handlers of huge payloads", time.Nanosecond, 16 << 20, 0, 10},
	} {
		r := newTestLoop(t, w)
		q := r.queues[0]
		q.averageTime, q.averageSize, q.waiting = test.average, test.size, make([]*delivery, test.inHand)
		if n, _ := r.claimSize(q); n != test.want {
			t.Errorf("%s: %d are claimed, want %d", test.name, n, test.want)
		}
	}
}

// One goroutine handles one message after another. If a handler ends the goroutine, it is replaced.
func TestHandsAreUsedAgain(t *testing.T) {
	_, s := newFake(t, Config{}, SQLite, nil)
	r := newTestLoop(t, &Worker{Concurrency: 2, Lease: time.Minute, Handlers: []Handler{NewQueue[int](s, "q").Handle(
		func(_ context.Context, m *Message[int]) error {
			if m.ID == 2 {
				runtime.Goexit()
			}
			return nil
		})}})
	for id := range int64(4) {
		d := &delivery{m: &MessageInfo{ID: id, Raw: []byte("1")}, queue: r.queues[0]}
		d.m.delivery = &d.state
		if !r.startHandler(d) {
			t.Fatal("the lease is lost")
		}
		r.countHandlers(d.queue, 1)
		select {
		case d := <-r.finished:
			r.handlerReturned(d)
		case <-time.After(10 * time.Second):
			t.Fatalf("nobody handles message %d", id)
		}
	}
	if r.executors != 1 || r.handling != 0 {
		t.Errorf("%d goroutines handled messages one at a time, and %d are busy", r.executors, r.handling)
	}
	close(r.begun)
}

// If a worker claims a message that it already holds, the first lease is lost. The exception is a
// message that the handler had settled: its run was retried before the delivery ended.
func TestAMessageThatIsClaimedAgain(t *testing.T) {
	for _, settled := range []bool{false, true} {
		var log strings.Builder
		_, s := newFake(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, SQLite, nil)
		r := newTestLoop(t, &Worker{Concurrency: 1, Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
		old := r.trackClaimed(r.queues[0], []*MessageInfo{{ID: 7}}, time.Now())[0]
		old.m.delivery.settled.Store(settled)
		again := r.trackClaimed(r.queues[0], []*MessageInfo{{ID: 7}}, time.Now())[0]
		if r.held[7] != again || old.lost == settled || strings.Contains(log.String(), "lease lost") == settled {
			t.Errorf("settled %v: the old delivery is lost: %v, the new one held: %v, logged %q", settled, old.lost, r.held[7] == again, log.String())
		}
	}
}
