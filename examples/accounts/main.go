// Command accounts books movements on accounts, from three workers that share a SQLite file. The
// movements of one account are booked in order, one at a time. Different accounts are booked side
// by side. A second queue records the bookings in batches. A batch callback reports once, at the
// end.
//
//	go run ./examples/accounts
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
	"sync"
	"time"

	"github.com/pgqrs/pgqrs-go"

	_ "github.com/ncruces/go-sqlite3/driver" // registers "sqlite3", without cgo
)

func main() {
	file := flag.String("db", filepath.Join(os.TempDir(), "pgqrs-accounts.db"), "the database's `file`")
	each := flag.Int("each", 10, "how many movements each account has")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *file, *each); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A movement is the nth of an account.
type movement struct {
	Account string
	N       int
}

var accounts = []string{"ada", "bob", "cid"}

func run(ctx context.Context, out io.Writer, file string, each int) error {
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
	var all []movement
	for n := 1; n <= each; n++ {
		for _, account := range accounts {
			all = append(all, movement{account, n})
		}
	}
	_, err = pgqrs.NewQueue[movement](store, "movements").EnqueueBatch(ctx, all,
		pgqrs.Each(func(i int) []pgqrs.Option { return []pgqrs.Option{pgqrs.Group(all[i].Account)} }),
		pgqrs.Then(pgqrs.NewQueue[string](store, "reports"), "the books of today"))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	b := &bank{out: out, done: stop}
	ended := make(chan error, 3)
	for range 3 {
		own := pgqrs.New(db, pgqrs.SQLite) // a Store of its own, as in another process
		defer own.Close()
		notes := pgqrs.NewQueue[string](own, "notes")
		worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{
			pgqrs.NewQueue[movement](own, "movements").Handle(b.book(notes)),
			pgqrs.NewQueue[string](own, "reports").Handle(b.report),
			notes.HandleBatch(b.note, 100, 50*time.Millisecond),
		}}
		go func() { ended <- worker.Run(ctx) }()
	}
	return errors.Join(<-ended, <-ended, <-ended)
}

// A bank has the handlers of the workers.
type bank struct {
	out  io.Writer
	done func()

	mu     sync.Mutex
	booked map[string]int // the latest movement of each account
	wrong  int            // movements out of order
}

// book returns a handler that books a movement and enqueues a note of it.
func (b *bank) book(notes *pgqrs.Queue[string]) func(context.Context, *pgqrs.Message[movement]) error {
	return func(ctx context.Context, m *pgqrs.Message[movement]) error {
		p := m.Payload
		b.mu.Lock()
		if b.booked == nil {
			b.booked = map[string]int{}
		}
		if p.N < b.booked[p.Account] {
			b.wrong++
		}
		b.booked[p.Account] = p.N
		b.mu.Unlock()
		_, err := notes.Enqueue(ctx, fmt.Sprintf("%s %d", p.Account, p.N))
		return err
	}
}

// note handles a batch of notes.
func (b *bank) note(_ context.Context, ms []*pgqrs.Message[string]) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.out, "noted %d:", len(ms))
	for _, m := range ms {
		fmt.Fprintf(b.out, " %s,", m.Payload)
	}
	fmt.Fprintln(b.out)
	return nil
}

// report is called once, when all movements have been booked or are dead letters.
func (b *bank) report(_ context.Context, m *pgqrs.Message[string]) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.out, "%s: %d booked, %d failed, %d out of order\n", m.Payload, m.Batch.Done, m.Batch.Dead, b.wrong)
	b.done()
	return nil
}
