package pgqrstest

import (
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/dbtest"
)

// Drain runs the handlers until none of the named queues (a workflow's is named
// like it) has a message that is due, leased or waiting for a retry: backoffs are
// skipped, of messages and of steps, and so are the sleeps of runs. Messages that were
// enqueued with a delay, and runs that wait for a signal, with a timeout or without, are
// left until their time has passed; see Advance.
//
// It fails the test if that takes more than a minute, or as soon as nothing is left but
// messages of queues that no handler and no other Worker takes. The failure names
// the queues, why their messages are left, and some of these with their latest errors.
func Drain(t testing.TB, s *pgqrs.Store, queues []string, handlers ...pgqrs.Handler) {
	t.Helper()
	dbtest.Drain(t, s, dbtest.Patience, queues, handlers...)
}
