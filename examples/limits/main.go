// Command limits calls a service that allows two calls at a time and ten a second. Three workers
// make the calls. They share nothing except a SQLite file. One kind of call fails for good, and a
// copy of its message goes to a dead-letter queue. Start the command several times at once: the
// limits apply to all processes together.
//
//	go run ./examples/limits
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
	"sync/atomic"
	"time"

	"github.com/pgqrs/pgqrs-go"

	_ "github.com/ncruces/go-sqlite3/driver" // registers "sqlite3", without cgo
)

func main() {
	file := flag.String("db", filepath.Join(os.TempDir(), "pgqrs-limits.db"), "the database's `file`")
	calls := flag.Int("calls", 30, "how many calls to make")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *file, *calls); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// policy is the policy of the calls in every process that handles them.
var policy = pgqrs.Policy{
	MaxLeased:   2,                                   // at a time, in all processes
	Rate:        pgqrs.Rate{N: 10, Per: time.Second}, // ten at once, and then one each 100 ms
	MaxAttempts: 3,                                   // then the message becomes a dead letter,
	Backoff:     pgqrs.Exponential(time.Second, time.Minute),
	DeadLetter:  "failed-calls", // and a copy goes here
}

func run(ctx context.Context, out io.Writer, file string, calls int) error {
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
	if _, err := pgqrs.NewQueue[int](store, "calls").EnqueueBatch(ctx, numbers(calls)); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s := &service{out: out, began: time.Now(), done: stop}
	s.left.Store(int64(calls))
	ended := make(chan error, 3)
	for range 3 {
		own := pgqrs.New(db, pgqrs.SQLite) // a Store of its own, as in another process
		defer own.Close()
		worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{
			pgqrs.NewQueue[int](own, "calls").With(policy).Handle(s.call),
			pgqrs.NewQueue[int](own, "failed-calls").Handle(s.mourn),
		}}
		go func() { ended <- worker.Run(ctx) }()
	}
	if err := errors.Join(<-ended, <-ended, <-ended); err != nil {
		return err
	}
	return report(context.WithoutCancel(ctx), out, store)
}

// numbers returns the numbers from 1 to n.
func numbers(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i + 1
	}
	return list
}

// A service is the callee.
type service struct {
	out       io.Writer
	began     time.Time
	now, most atomic.Int64 // calls in progress
	left      atomic.Int64 // messages that have not ended
	done      func()
}

// call takes some time. It refuses number 13.
func (s *service) call(ctx context.Context, m *pgqrs.Message[int]) error {
	now := s.now.Add(1)
	defer s.now.Add(-1)
	for old := s.most.Load(); now > old && !s.most.CompareAndSwap(old, now); old = s.most.Load() {
	}
	select {
	case <-time.After(30 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	if m.Payload == 13 {
		return pgqrs.Permanent(errors.New("no such number"))
	}
	fmt.Fprintf(s.out, "%6v  call %d, %d under way\n", time.Since(s.began).Round(time.Millisecond), m.Payload, now)
	s.end()
	return nil
}

// mourn receives a copy of each dead letter.
func (s *service) mourn(_ context.Context, m *pgqrs.Message[int]) error {
	fmt.Fprintf(s.out, "%6v  call %d died of %q\n", time.Since(s.began).Round(time.Millisecond), m.Payload, m.Headers["dead-letter-error"])
	s.end()
	return nil
}

func (s *service) end() {
	if s.left.Add(-1) == 0 {
		s.done()
	}
}

// report prints the policies, as `pgqrs queues` does.
func report(ctx context.Context, out io.Writer, store *pgqrs.Store) error {
	queues, err := store.Queues(ctx, "calls", "failed-calls")
	for _, q := range queues {
		fmt.Fprintf(out, "%s: %d done, %d dead; %v\n", q.Name, q.Archived, q.Dead, q.Policy)
	}
	return err
}
