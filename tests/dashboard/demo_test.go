package dashboard_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/ncruces/go-sqlite3/driver"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/dashboard"
)

// openStore returns a store on a new SQLite file.
func openStore(t *testing.T) *pgqrs.Store {
	t.Helper()
	store, _ := openDB(t)
	return store
}

// openDB returns a store on a new SQLite file, and its database.
func openDB(t *testing.T) (*pgqrs.Store, *sql.DB) {
	t.Helper()
	path := filepath.ToSlash(filepath.Join(t.TempDir(), "demo.db"))
	db, err := sql.Open("sqlite3", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(off)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	store := pgqrs.New(db, pgqrs.SQLite)
	must(t, store.Install(t.Context()))
	return store, db
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls a condition for a minute.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// serve mounts a dashboard under a prefix, and returns its address.
func serve(t *testing.T, store *pgqrs.Store, options dashboard.Options) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/ops/queues/", http.StripPrefix("/ops/queues", dashboard.Handler(store, options)))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL + "/ops/queues/"
}

// enqueue stores a message and returns its id.
func enqueue[T any](t *testing.T, store *pgqrs.Store, queue string, payload T, options ...pgqrs.Option) int64 {
	t.Helper()
	id, err := pgqrs.NewQueue[T](store, queue).Enqueue(t.Context(), payload, options...)
	must(t, err)
	return id
}

// bury stores a message and makes it a dead letter.
func bury[T any](t *testing.T, store *pgqrs.Store, queue string, payload T, cause error, options ...pgqrs.Option) int64 {
	t.Helper()
	q := pgqrs.NewQueue[T](store, queue)
	id, err := q.Enqueue(t.Context(), payload, append(options, pgqrs.Priority(2))...)
	must(t, err)
	ms, err := q.Dequeue(t.Context(), 1, time.Minute)
	must(t, err)
	if len(ms) != 1 || ms[0].ID != id {
		t.Fatalf("dequeued %d messages; want message %d", len(ms), id)
	}
	must(t, q.Fail(t.Context(), pgqrs.Permanent(cause), ms...))
	return id
}

type mail struct {
	To      string `json:"to"`
	Subject string `json:"subject"`
}

// A demo is a store with work in it, and a worker that handles some of it.
type demo struct {
	store    *pgqrs.Store
	mended   chan struct{} // once it is closed, mail to bounce@example.com succeeds
	checkout *pgqrs.Workflow[string, string]
	parcel   *pgqrs.Workflow[string, string]
	packing  atomic.Int64 // how long a parcel takes to pack
}

const approved pgqrs.Signal[bool] = "approved"

// newDemo creates a store whose worker sends mail and runs checkouts until the test ends.
func newDemo(t *testing.T) *demo {
	t.Helper()
	store := openStore(t)
	d := &demo{store: store, mended: make(chan struct{}), checkout: pgqrs.NewWorkflow[string, string](store, "checkout"), parcel: pgqrs.NewWorkflow[string, string](store, "parcel")}
	send := pgqrs.NewQueue[mail](store, "emails").Handle(func(ctx context.Context, m *pgqrs.Message[mail]) error {
		select {
		case <-d.mended:
		default:
			if strings.HasPrefix(m.Payload.To, "bounce") {
				return pgqrs.Permanent(fmt.Errorf("smtp: 550 no such mailbox: %s", m.Payload.To))
			}
		}
		return nil
	})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- (&pgqrs.Worker{Name: "web-1", Handlers: []pgqrs.Handler{send, d.checkout.Handle(d.sell), d.parcel.Handle(d.ship)}}).Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		must(t, <-done)
	})
	return d
}

const declined = "A-1003" // an order that cannot be charged

// sell is a workflow with a sleep, a signal and children.
func (d *demo) sell(ctx context.Context, run *pgqrs.Run, order string) (string, error) {
	if _, err := pgqrs.Step(ctx, run, "reserve", func(context.Context) ([]string, error) { return []string{"gopher", "mug"}, nil }); err != nil {
		return "", err
	}
	payment, err := pgqrs.Step(ctx, run.With(pgqrs.Policy{MaxAttempts: 2, Backoff: pgqrs.Exponential(300*time.Millisecond, time.Second)}), "charge", func(context.Context) (string, error) {
		if order == declined {
			return "", errors.New("card declined: insufficient funds")
		}
		return "pay_8c1f", nil
	})
	if err != nil {
		return "", err
	}
	if err := run.Sleep(ctx, "cool off", 400*time.Millisecond); err != nil {
		return "", err
	}
	if _, err := approved.Wait(ctx, run, 0); err != nil {
		return "", err
	}
	_, err = d.parcel.Children(ctx, run, "ship", []string{"gopher", "mug"})
	return payment, err
}

// ship is the workflow of the children.
func (d *demo) ship(ctx context.Context, run *pgqrs.Run, thing string) (string, error) {
	return pgqrs.Step(ctx, run, "pack", func(ctx context.Context) (string, error) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(d.packing.Load()) * time.Duration(len(thing))):
		}
		return "a box with a " + thing, ctx.Err()
	})
}
