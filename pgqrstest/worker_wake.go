package pgqrstest

import (
	"context"
	"errors"
	"strings"
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
	q   *pgqrs.Queue[string]
	got <-chan string
	net *network
}

func newIdler(t *testing.T, e *env) *idler {
	t.Helper()
	store, net := e.farStore(t)
	q := pgqrs.NewQueue[string](store, "wake")
	h, got := handling(q)
	enqueue(t, q, "first")
	start(t, &pgqrs.Worker{Handlers: []pgqrs.Handler{h}, PollInterval: never})
	receive(t, "the first message is handled", got)
	return &idler{q: q, got: got, net: net}
}

// sleep makes the poll fail that follows each message: the next one is PollInterval away.
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
	for range 5 { // the worker has been round
		enqueue(t, other, "x")
		receive(t, "the other queue goes on", passed)
	}
	equal(t, "state while paused", e.info(t, id).State, pgqrs.Ready)
	must(t, e.newStore(t, pgqrs.Config{}).ResumeQueue(t.Context(), "held"))
	equal(t, "handled", receive(t, "a message is handled after the pause", got), "during")
}
