package pgqrstest

import (
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/dbtest"
)

// Drain runs the handlers until the named queues have no message that is due, leased or waiting for
// a retry. The queue of a workflow has the workflow's name.
//
// Drain skips the backoffs of messages and steps, and the sleeps of runs. It does not wait for
// messages that were enqueued with a delay, nor for runs that wait for a signal, with a timeout or
// without. Call [Advance] to make their time pass.
//
// Drain fails the test if the work takes more than a minute. It also fails if all messages that are
// left are in queues that no handler and no other Worker handles. The failure names the queues, why
// their messages are left, and some of the messages with their latest errors.
func Drain(t testing.TB, s *pgqrs.Store, queues []string, handlers ...pgqrs.Handler) {
	t.Helper()
	dbtest.Drain(t, s, dbtest.Patience, queues, handlers...)
}
