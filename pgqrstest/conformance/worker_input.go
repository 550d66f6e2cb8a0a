package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var workerInputCases = []testcase{
	{"a worker that makes no sense does not start, and says why", "a mistake would show as work that is not done", inputWorker},
}

func inputWorker(t *testing.T, e *env) {
	q := pgqrs.NewQueue[int](e.store, "jobs")
	work := func(context.Context, *pgqrs.Message[int]) error { return nil }
	good := q.Handle(work)
	other := pgqrs.NewQueue[int](e.newStore(t, pgqrs.Config{}), "others").Handle(work)
	conn := value(e.db.Conn(t.Context()))(t)
	defer conn.Close()
	closed := e.newStore(t, pgqrs.Config{})
	must(t, closed.Close())
	list := func(hs ...pgqrs.Handler) []pgqrs.Handler { return hs }
	for _, c := range []struct {
		w     pgqrs.Worker
		says  []string
		match error
	}{
		{pgqrs.Worker{}, []string{"no handlers"}, nil},
		{pgqrs.Worker{Handlers: list(good, pgqrs.Handler{})}, []string{"handler 1", "zero Handler"}, nil},
		{pgqrs.Worker{Handlers: list(q.Handle(nil))}, []string{`queue "jobs"`, "nil handler function"}, nil},
		{pgqrs.Worker{Handlers: list(q.HandleTx(nil))}, []string{`queue "jobs"`, "nil handler function"}, nil},
		{pgqrs.Worker{Handlers: list(good, q.Handle(work))}, []string{`two handlers for queue "jobs"`}, nil},
		{pgqrs.Worker{Handlers: list(good, other)}, []string{"two Stores"}, pgqrs.ErrUnsupported},
		{pgqrs.Worker{Handlers: list(q.WithTx(conn).Handle(work))}, []string{`queue "jobs"`, "transaction"}, pgqrs.ErrUnsupported},
		{pgqrs.Worker{Handlers: list(q.WithTx(conn).HandleTx(func(context.Context, *sql.Tx, *pgqrs.Message[int]) error { return nil }))},
			[]string{`queue "jobs"`, "transaction"}, pgqrs.ErrUnsupported},
		{pgqrs.Worker{Handlers: list(pgqrs.NewQueue[int](e.store, "").Handle(work))}, []string{"queue name"}, nil},
		{pgqrs.Worker{Handlers: list(q.With(pgqrs.Policy{Concurrency: -1}).Handle(work))}, []string{`queue "jobs"`, "Policy.Concurrency is -1"}, nil},
		{pgqrs.Worker{Handlers: list(q.With(pgqrs.Policy{Timeout: -1}).Handle(work))}, []string{`queue "jobs"`, "Policy.Timeout"}, nil},
		{pgqrs.Worker{Handlers: list(q.With(pgqrs.Policy{MaxAttempts: -2}).Handle(work))}, []string{`queue "jobs"`, "Policy.MaxAttempts is -2"}, nil},
		{pgqrs.Worker{Handlers: list(good), Concurrency: -1}, []string{"Concurrency is -1"}, nil},
		{pgqrs.Worker{Handlers: list(good), Lease: time.Millisecond}, []string{"Lease 1ms"}, nil},
		{pgqrs.Worker{Handlers: list(good), PollInterval: -time.Second}, []string{"PollInterval is -1s"}, nil},
		{pgqrs.Worker{Handlers: list(good), Grace: -time.Second}, []string{"Grace is -1s"}, nil},
		{pgqrs.Worker{Handlers: list(good), Name: "a\nb"}, []string{"worker name"}, nil},
		{pgqrs.Worker{Handlers: list(good), Name: strings.Repeat("x", 256)}, []string{"worker name"}, nil},
		{pgqrs.Worker{Handlers: list(pgqrs.NewQueue[int](closed, "jobs").Handle(work))}, []string{"closed"}, pgqrs.ErrState},
	} {
		err := receive(t, fmt.Sprintf("Run returns; it should say %q", c.says), startOnly(t, &c.w))
		if err == nil {
			t.Errorf("no error; want one that says %q", c.says)
			continue
		}
		wantText(t, "error", err.Error(), append(c.says, "pgqrs: run: ")...)
		if c.match != nil && !errors.Is(err, c.match) {
			t.Errorf("error %q does not match %q", err, c.match)
		}
	}
	equal(t, "worker rows", len(value(e.store.Workers(t.Context()))(t)), 0)
}
