package model_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/reliability"
)

const (
	historyClients  = 6
	historyStores   = 3  // so that two clients share a worker row
	historyMessages = 20 // in a round
	historyLease    = 20 * time.Millisecond
)

// TestHistory runs several consumers that claim, ack, extend and release the same few messages.
// Leases are so short that many expire. The consumers also use deliveries of others whose leases
// were lost long ago. The test checks the history.
func TestHistory(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			row := reliability.Row{
				Fault:    "consumers that contend, forget and come late, " + e.name,
				Injected: fmt.Sprintf("%d consumers, leases of %v, claims of earlier deliveries; histories checked for linearizability", historyClients, historyLease),
			}
			s := e.open(t)
			end := time.Now().Add(reliability.Soak(t))
			for row.Runs < 3 || time.Now().Before(end) {
				r := newRound(t, e, s)
				r.run(t)
				for _, err := range check(r.history) {
					t.Error(err)
				}
				lost, doubled := r.outcome(t)
				row.Runs++
				row.Messages += historyMessages
				row.Lost += lost
				row.Doubled += doubled
				if t.Failed() {
					break
				}
			}
			reliability.Report(t, row)
		})
	}
}

// A round is a history of some messages, from their first claim to their ack.
type round struct {
	engine engine
	store  *pgqrs.Store
	queues []*pgqrs.Queue[int] // on a Store each
	ids    []int64
	began  time.Time

	mu      sync.Mutex
	history []event
	hands   []*pgqrs.Message[int] // all deliveries
	left    int                   // messages without an ack
}

func newRound(t *testing.T, e engine, s *pgqrs.Store) *round {
	r := &round{engine: e, store: s, began: time.Now(), left: historyMessages}
	name := fmt.Sprint("history", r.began.UnixNano())
	for range historyStores {
		other := pgqrs.New(s.DB(), s.Dialect())
		t.Cleanup(func() {
			if err := other.Close(); err != nil {
				t.Error(err)
			}
		})
		r.queues = append(r.queues, pgqrs.NewQueue[int](other, name).With(pgqrs.Policy{MaxAttempts: -1}))
	}
	var err error
	if r.ids, err = r.queues[0].EnqueueBatch(t.Context(), make([]int, historyMessages)); err != nil {
		t.Fatal(err)
	}
	return r
}

// run lets the clients work until every message is acked.
func (r *round) run(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var clients sync.WaitGroup
	for i := range historyClients {
		clients.Go(func() {
			for r.more() {
				if err := r.act(ctx, i); err != nil {
					t.Error(err)
					cancel()
					return
				}
			}
		})
	}
	clients.Wait()
}

func (r *round) more() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left > 0
}

// act does one operation of a client: a claim, or something with a delivery of this or another
// client.
func (r *round) act(ctx context.Context, client int) error {
	q := r.queues[client%historyStores]
	m := r.delivery()
	if m == nil || rand.N(3) == 0 {
		return r.claim(ctx, client, q)
	}
	e := event{client: client, kind: []string{"ack", "extend", "release", "release"}[rand.N(4)], message: m.ID, claim: m.Claim, term: historyLease}
	var err error
	if e.kind == "extend" {
		if e.before, err = r.engine.now(ctx, r.store.DB()); err != nil {
			return err
		}
	}
	e.call = int64(time.Since(r.began))
	switch e.kind {
	case "ack":
		err = q.Ack(ctx, m)
	case "extend":
		err = q.Extend(ctx, historyLease, m)
	default:
		err = q.Release(ctx, 0, m)
	}
	e.ret = int64(time.Since(r.began))
	if err != nil && !errors.Is(err, pgqrs.ErrLeaseLost) {
		return err
	}
	e.done = err == nil
	r.note(e)
	return nil
}

// delivery returns one of the latest deliveries, or nil.
func (r *round) delivery() *pgqrs.Message[int] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.hands) == 0 {
		return nil
	}
	recent := r.hands[max(0, len(r.hands)-2*historyClients):]
	return recent[rand.N(len(recent))]
}

func (r *round) claim(ctx context.Context, client int, q *pgqrs.Queue[int]) error {
	e := event{client: client, kind: "claim", done: true, term: historyLease, call: int64(time.Since(r.began))}
	ms, err := q.Dequeue(ctx, 1+rand.N(3), historyLease)
	e.ret = int64(time.Since(r.began))
	for _, m := range ms {
		e.message, e.claim, e.attempt, e.due, e.until = m.ID, m.Claim, m.Attempt, m.DueAt, m.LeasedUntil
		r.note(e)
		r.mu.Lock()
		r.hands = append(r.hands, m)
		r.mu.Unlock()
	}
	return err
}

func (r *round) note(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.kind == "ack" && e.done {
		first := true
		for _, o := range r.history {
			first = first && (o.kind != "ack" || !o.done || o.message != e.message)
		}
		if first {
			r.left--
		}
	}
	r.history = append(r.history, e)
}

// outcome counts messages that were not archived, and messages that were acked by two claims.
func (r *round) outcome(t *testing.T) (lost, doubled int) {
	ms, err := r.store.Messages(t.Context(), pgqrs.MessageFilter{IDs: r.ids})
	if err != nil {
		t.Fatal(err)
	}
	lost = len(r.ids) - len(ms)
	for _, m := range ms {
		var events []event
		for _, e := range r.history {
			if e.message == m.ID {
				events = append(events, e)
			}
		}
		if m.State != pgqrs.Archived {
			lost++
		}
		if len(acked(events)) > 1 {
			doubled++
		}
	}
	if _, err := r.store.Delete(t.Context(), r.ids...); err != nil {
		t.Fatal(err)
	}
	return lost, doubled
}
