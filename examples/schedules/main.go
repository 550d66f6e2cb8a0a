// Command schedules enqueues messages by the clock: every second, and by a cron expression. Two
// workers run the same schedules on a SQLite file, as two processes would. Each instant is enqueued
// once. Start the command several times at once, or kill it and start it again.
//
//	go run ./examples/schedules
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/cronpgqrs"

	_ "github.com/ncruces/go-sqlite3/driver" // registers "sqlite3", without cgo
)

func main() {
	file := flag.String("db", filepath.Join(os.TempDir(), "pgqrs-schedules.db"), "the database's `file`")
	rounds := flag.Int("rounds", 10, "how many beats to wait for")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *file, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, file string, rounds int) error {
	dsn := "file:" + (&url.URL{Path: file}).EscapedPath() + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)"
	db, err := sql.Open("sqlite3", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	store := pgqrs.New(db, pgqrs.SQLite)
	if err := store.Install(ctx); err != nil {
		return err
	}
	beats := pgqrs.NewQueue[string](store, "beats")
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	heard := 0
	handler := beats.With(pgqrs.Policy{Concurrency: 1}).Handle(func(_ context.Context, m *pgqrs.Message[string]) error {
		heard++
		fmt.Fprintf(out, "%s, for %s\n", m.Payload, m.Headers[pgqrs.DueHeader])
		if heard == rounds {
			stop()
		}
		return nil
	})
	schedules := []pgqrs.Schedule{
		{Name: "beat", Rule: pgqrs.Every(time.Second), Target: beats.Target("beat")},
		{Name: "minute", Rule: cronpgqrs.MustParse("* * * * *"), Target: beats.Target("a new minute")},
	}
	ended := make(chan error, 2)
	for _, w := range []*pgqrs.Worker{
		{Handlers: []pgqrs.Handler{handler}, Schedules: schedules},
		{Schedules: schedules}, // a second worker, as in another process
	} {
		go func() { ended <- w.Run(ctx) }()
	}
	if err := errors.Join(<-ended, <-ended); err != nil {
		return err
	}
	return report(context.WithoutCancel(ctx), out, store)
}

// report prints the schedules, as `pgqrs schedules` does.
func report(ctx context.Context, out io.Writer, store *pgqrs.Store) error {
	list, err := store.Schedules(ctx)
	for _, s := range list {
		fmt.Fprintf(out, "%s (%s): next %s\n", s.Name, s.Rule, s.NextAt.Format(time.TimeOnly))
	}
	return err
}
