//go:build unix

package groups_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/drivertest/postgres"

	_ "github.com/lib/pq"
	_ "github.com/ncruces/go-sqlite3/driver"
)

// childVariable makes this program a child of the test, on the database that it names.
const childVariable = "PGQRS_GROUPS_CHILD"

func TestMain(m *testing.M) {
	if dsn := os.Getenv(childVariable); dsn != "" {
		if err := work(dsn); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	postgres.Main(m)
}

// Each message leaves rows here as it is begun and when it ends. The serial tells in which order.
const (
	makeNotes  = `CREATE TABLE notes (id %s, group_key TEXT NOT NULL, n BIGINT NOT NULL, what TEXT NOT NULL, pid BIGINT NOT NULL)`
	insertNote = `INSERT INTO notes (group_key, n, what, pid) VALUES ($1, $2, $3, $4)`
)

// What the rows say.
const (
	begun  = "begun"
	failed = "failed"
	ended  = "ended"
)

// Messages come back at once, and do not die of being killed often.
var policy = pgqrs.Policy{MaxAttempts: -1, Lease: time.Second, Backoff: func(int) time.Duration { return 0 }}

// work runs two workers until the parent closes the input, or dies.
func work(dsn string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	config := pgqrs.Config{Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))}
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = workOne(ctx, config, dsn)
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

func workOne(ctx context.Context, config pgqrs.Config, dsn string) error {
	store, err := config.Open(ctx, dsn)
	if err != nil {
		return err
	}
	w := &pgqrs.Worker{PollInterval: 20 * time.Millisecond, Handlers: []pgqrs.Handler{
		pgqrs.NewQueue[int](store, "jobs").With(policy).Handle(func(ctx context.Context, m *pgqrs.Message[int]) error { return handle(ctx, store, m) }),
	}}
	return errors.Join(w.Run(ctx), store.Close())
}

// handle fails now and then.
func handle(ctx context.Context, store *pgqrs.Store, m *pgqrs.Message[int]) error {
	note := func(what string) error {
		_, err := store.DB().ExecContext(ctx, insertNote, m.Group, m.Payload, what, os.Getpid())
		return err
	}
	if err := note(begun); err != nil {
		return err
	}
	if rand.N(10) == 0 {
		return errors.Join(note(failed), errors.New("not yet"))
	}
	return note(ended)
}
