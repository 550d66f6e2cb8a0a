package pgqrstest

import (
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

var enqueueCases = []testcase{
	{"a message comes back as it was enqueued", "this is what a queue is for", func(t *testing.T, e *env) {
		q := pgqrs.NewQueue[string](e.store, "greetings")
		id := enqueue(t, q, "hello <world> & all")
		m := dequeueOne(t, q)
		equal(t, "id", m.ID, id)
		equal(t, "payload", m.Payload, "hello <world> & all")
		equal(t, "attempt", m.Attempt, 1)
		must(t, q.Ack(t.Context(), m))
		equal(t, "state", e.info(t, id).State, pgqrs.Archived)
	}},
}
