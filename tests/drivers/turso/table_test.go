package turso_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/turso"

	_ "github.com/ncruces/go-sqlite3/driver"
)

var table = flag.Bool("table", false, "measure Turso against SQLite, and print a table")

// engines are the engines and the DSNs that open a file of each.
var engines = []struct{ name, scheme, options string }{
	{"SQLite, ncruces", "sqlite:", ""},
	{"Turso, WAL", "turso:", ""},
	{"Turso, MVCC", "turso:", "?mvcc=1"},
}

const (
	rounds   = 5
	messages = 1000
	runs     = 50
	steps    = 10
)

// A task runs once on a new file. It returns how many things it did, and how long they took.
type task struct {
	name string
	do   func(ctx context.Context, s *pgqrs.Store) (int, time.Duration, error)
}

func tasks() []task {
	list := []task{{"drain, messages/s", drain}, {"runs of 10 steps, steps/s", work}}
	for _, writers := range []int{8, 4, 2, 1} {
		list = slices.Insert(list, 0, task{fmt.Sprintf("enqueue, %d writers with a queue each, messages/s", writers),
			func(ctx context.Context, s *pgqrs.Store) (int, time.Duration, error) { return enqueue(ctx, s, writers) }})
	}
	return list
}

// TestTable measures each task on each engine in turn, every time on a new file with the settings
// of Open. Turso's figures include the pipe to a Node process that connects the tests with Turso.
func TestTable(t *testing.T) {
	if !*table {
		t.Skip("it measures; run it with -args -table")
	}
	turso.Require(t)
	fmt.Print("| task |")
	for _, e := range engines {
		fmt.Printf(" %s: min, median, max |", e.name)
	}
	fmt.Println("\n|---|---|---|---|")
	for _, task := range tasks() {
		rates := make([][]float64, len(engines))
		for range rounds {
			for i, e := range engines {
				rates[i] = append(rates[i], rate(t, task, e.scheme+filepath.Join(t.TempDir(), "pgqrs.db")+e.options))
			}
		}
		fmt.Printf("| %s |", task.name)
		for _, list := range rates {
			slices.Sort(list)
			fmt.Printf(" %.0f, %.0f, %.0f |", list[0], list[rounds/2], list[rounds-1])
		}
		fmt.Println()
	}
}

// rate returns how many things a second a task does on a new file.
func rate(t *testing.T, task task, dsn string) float64 {
	t.Helper()
	s, err := pgqrs.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	n, took, err := task.do(t.Context(), s)
	if err != nil {
		t.Fatalf("%s on %s: %v", task.name, dsn, err)
	}
	return float64(n) / took.Seconds()
}

// enqueue stores messages one by one. Each writer has a Store of its own, as a process would.
func enqueue(ctx context.Context, s *pgqrs.Store, writers int) (int, time.Duration, error) {
	concurrent := s.DB().QueryRowContext(ctx, "PRAGMA journal_mode")
	var mode string
	if err := concurrent.Scan(&mode); err != nil {
		return 0, 0, err
	}
	var all sync.WaitGroup
	errs := make([]error, writers)
	start := time.Now()
	for n := range writers {
		all.Go(func() {
			own := pgqrs.Config{Concurrent: mode == "mvcc"}.New(s.DB(), s.Dialect())
			q := pgqrs.NewQueue[int](own, fmt.Sprint("queue ", n))
			for i := 0; i < messages/writers && errs[n] == nil; i++ {
				_, errs[n] = q.Enqueue(ctx, i)
			}
			errs[n] = errors.Join(errs[n], own.Close())
		})
	}
	all.Wait()
	return messages, time.Since(start), errors.Join(errs...)
}

// drain runs one Worker that handles a backlog.
func drain(ctx context.Context, s *pgqrs.Store) (int, time.Duration, error) {
	q := pgqrs.NewQueue[int](s, "drain")
	if _, err := q.EnqueueBatch(ctx, make([]int, messages)); err != nil {
		return 0, 0, err
	}
	took, err := workUntil(ctx, q.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil }), func() (bool, error) {
		infos, err := s.Queues(ctx, "drain")
		return err == nil && infos[0].Archived == messages, err
	})
	return messages, took, err
}

// work runs one Worker that executes a workflow of empty steps.
func work(ctx context.Context, s *pgqrs.Store) (int, time.Duration, error) {
	w := pgqrs.NewWorkflow[int, int](s, "steps")
	for n := range runs {
		if _, err := w.Start(ctx, n); err != nil {
			return 0, 0, err
		}
	}
	took, err := workUntil(ctx, w.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
		for i := range steps {
			if err := run.Do(ctx, fmt.Sprint("step ", i), func(context.Context) error { return nil }); err != nil {
				return 0, err
			}
		}
		return n, nil
	}), func() (bool, error) {
		infos, err := s.Queues(ctx, "steps")
		return err == nil && infos[0].Archived == runs, err
	})
	return runs * steps, took, err
}

// workUntil runs a Worker until all work is done, and returns the time it took.
func workUntil(ctx context.Context, h pgqrs.Handler, done func() (bool, error)) (time.Duration, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	start := time.Now()
	go func() { ended <- (&pgqrs.Worker{Handlers: []pgqrs.Handler{h}}).Run(ctx) }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if ok, err := done(); ok || err != nil {
			took := time.Since(start)
			stop()
			return took, errors.Join(err, <-ended)
		}
	}
	panic("unreachable")
}
