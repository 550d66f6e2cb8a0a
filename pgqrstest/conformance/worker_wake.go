package conformance

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// handling returns a handler that sends each payload to the channel.
func handling(q *pgqrs.Queue[string]) (pgqrs.Handler, <-chan string) {
	got := make(chan string, 100)
	return q.Handle(func(_ context.Context, m *pgqrs.Message[string]) error {
		got <- m.Payload
		return nil
	}), got
}

// An idler is a worker that has handled a message and will not poll again for an hour.
type idler struct {
	q     *pgqrs.Queue[string]
	got   <-chan string
	net   *network
	store *pgqrs.Store
}

func newIdler(t *testing.T, e *env) *idler {
	t.Helper()
	store, net := e.farStore(t)
	q := pgqrs.NewQueue[string](store, "wake")
	h, got := handling(q)
	enqueue(t, q, "first")
	start(t, &pgqrs.Worker{Handlers: []pgqrs.Handler{h}, PollInterval: never})
	receive(t, "the first message is handled", got)
	return &idler{q: q, got: got, net: net, store: store}
}

// sleep makes the poll after each message fail, so that the next poll is PollInterval away.
func (i *idler) sleep(t *testing.T, e *env) {
	t.Helper()
	const said = "could not look for messages"
	before := strings.Count(e.log.String(), said)
	f, _ := once("pgqrs:worker.poll", refused)
	i.net.fail(f)
	eventually(t, "a poll has failed", func() bool { return strings.Count(e.log.String(), said) > before })
	i.net.heal()
}

func workerWakes(t *testing.T, e *env) {
	i := newIdler(t, e)
	for _, payload := range []string{"one", "two", "three"} {
		i.sleep(t, e)
		enqueue(t, i.q, payload)
		equal(t, "handled", receive(t, "an enqueued message is handled", i.got), payload)
	}
}

func workerWakesTx(t *testing.T, e *env) {
	i := newIdler(t, e)
	i.sleep(t, e)
	tx := value(e.db.BeginTx(t.Context(), nil))(t)
	_, err := i.q.WithTx(tx).Enqueue(t.Context(), "one")
	must(t, errors.Join(err, tx.Commit()))
	equal(t, "handled", receive(t, "the message is handled once the transaction has committed", i.got), "one")
}

func workerWakesTxAsking(t *testing.T, e *env) {
	i := newIdler(t, e)
	asked, answer := make(chan struct{}), make(chan struct{})
	f, _ := once("pgqrs:worker.poll", refused)
	i.net.fail(func(text string) fault {
		kind := f(text)
		if kind != none {
			close(asked)
			<-answer
		}
		return kind
	})
	receive(t, "a poll is under way", asked)
	tx := value(e.db.BeginTx(t.Context(), nil))(t)
	_, err := i.q.WithTx(tx).Enqueue(t.Context(), "one")
	must(t, errors.Join(err, tx.Commit()))
	close(answer)
	equal(t, "handled", receive(t, "the message is handled although the poll failed", i.got), "one")
}

func workerPolls(t *testing.T, e *env) {
	h, got := handling(pgqrs.NewQueue[string](e.store, "shared"))
	start(t, fast(h))
	elsewhere := pgqrs.NewQueue[string](e.newStore(t, pgqrs.Config{}), "shared")
	for _, payload := range []string{"one", "two"} {
		enqueue(t, elsewhere, payload)
		equal(t, "handled", receive(t, "a message of another Store is handled", got), payload)
	}
}

func workerDelayed(t *testing.T, e *env) {
	q := pgqrs.NewQueue[string](e.store, "later")
	h, got := handling(q)
	start(t, fast(h))
	id := enqueue(t, q, "in an hour", pgqrs.Delay(time.Hour))
	enqueue(t, q, "soon", pgqrs.Delay(50*time.Millisecond))
	equal(t, "handled first", receive(t, "a message that has become due is handled", got), "soon")
	equal(t, "messages that wait", e.stats(t, "later").Scheduled, 1)
	e.makeDue(t, id)
	equal(t, "handled next", receive(t, "a message that has become due is handled", got), "in an hour")
}

func workerPaused(t *testing.T, e *env) {
	q, other := pgqrs.NewQueue[string](e.store, "held"), pgqrs.NewQueue[string](e.store, "free")
	h, got := handling(q)
	free, passed := handling(other)
	start(t, fast(h, free))
	enqueue(t, q, "before")
	receive(t, "a message is handled before the pause", got)
	must(t, e.store.PauseQueue(t.Context(), "held"))
	id := enqueue(t, q, "during")
	for range 5 { // the worker has polled
		enqueue(t, other, "x")
		receive(t, "the other queue goes on", passed)
	}
	equal(t, "state while paused", e.info(t, id).State, pgqrs.Ready)
	must(t, e.newStore(t, pgqrs.Config{}).ResumeQueue(t.Context(), "held"))
	equal(t, "handled", receive(t, "a message is handled after the pause", got), "during")
}

func workerResumed(t *testing.T, e *env) {
	i := newIdler(t, e)
	i.sleep(t, e)
	must(t, e.store.PauseQueue(t.Context(), "wake"))
	f, claimed := once("pgqrs:message.claim", none)
	i.net.fail(f)
	enqueue(t, i.q, "during")
	receive(t, "it claims nothing", claimed)
	value(e.store.Workers(t.Context()))(t) // it takes as long as the claim
	must(t, i.store.ResumeQueue(t.Context(), "wake"))
	equal(t, "handled", receive(t, "a message is handled at once after the pause", i.got), "during")
}

// slowClaims slows claims and rescans, as in a database that has to read past many dead rows.
func slowClaims(text string) fault {
	if strings.Contains(text, "pgqrs:message.claim ") || strings.Contains(text, "pgqrs:message.passed ") {
		time.Sleep(30 * time.Millisecond)
	}
	return none
}

func workerSlowClaims(t *testing.T, e *env) {
	const stream, batch = 5000, 500
	store, net := e.farStore(t)
	near := pgqrs.NewQueue[string](e.store, "stream")
	feed := func() { value(near.EnqueueBatch(t.Context(), make([]string, batch)))(t) }
	for range stream / batch {
		feed()
	}
	net.fail(slowClaims)
	var handled, fed atomic.Int64
	var starved atomic.Bool
	others := make(chan string, 10)
	start(t, fast(pgqrs.NewQueue[string](store, "stream").Handle(func(_ context.Context, m *pgqrs.Message[string]) error {
		switch n := handled.Add(1); {
		case m.Payload != "":
			others <- m.Payload
		case n%batch == 0 && !starved.Load():
			fed.Add(batch)
			feed()
		}
		return nil
	})))
	last := enqueue(t, near, "last", pgqrs.Priority(-1))
	for range 3 {
		eventually(t, "the worker goes on", func() bool { return handled.Load() > fed.Load() })
		late := enqueue(t, near, "late", pgqrs.Delay(time.Hour))
		e.poke(t, "UPDATE pgqrs_messages SET vt = '2026-01-01 00:00:00.000' WHERE id = %d", late)
		equal(t, "what comes from the beginning", receive(t, "it is handled", others), "late")
		enqueue(t, near, "urgent", pgqrs.Priority(1))
		equal(t, "what comes from another priority", receive(t, "it is handled", others), "urgent")
	}
	equal(t, "state of what is less urgent", e.info(t, last).State, pgqrs.Ready)
	starved.Store(true)
	equal(t, "what is left", receive(t, "it is handled", others), "last")
	eventually(t, "each is handled", func() bool { return handled.Load() == stream+fed.Load()+7 })
	equal(t, "others that are handled", len(others), 0)
}

func workerSlowOrder(t *testing.T, e *env) {
	store, net := e.farStore(t)
	net.fail(slowClaims)
	near := pgqrs.NewQueue[string](e.store, "stream")
	enqueue(t, near, "first", pgqrs.Priority(-1))
	enqueue(t, near, "urgent")
	value(near.EnqueueBatch(t.Context(), make([]string, 600), pgqrs.Priority(-1)))(t) // more than one claim takes
	var handled tally[string]
	w := fast(pgqrs.NewQueue[string](store, "stream").Handle(func(_ context.Context, m *pgqrs.Message[string]) error {
		handled.add(m.Payload)
		return nil
	}))
	w.Concurrency = 1
	start(t, w)
	eventually(t, "all are handled", func() bool { return handled.len() == 602 })
	equalSlices(t, "what comes first", handled.all()[:3], []string{"urgent", "first", ""})
}
