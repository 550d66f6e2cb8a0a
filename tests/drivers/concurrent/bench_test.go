package concurrent_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"

	"github.com/pgqrs/pgqrs-go"
)

var table = flag.Bool("table", false, "measure writers with BEGIN CONCURRENT and with BEGIN IMMEDIATE, and print a table")

// A write is the work that each writer repeats on a queue of its own.
type write struct {
	name string
	once func(ctx context.Context, s *pgqrs.Store, queue string) error
}

var writes = []write{
	{"enqueue", func(ctx context.Context, s *pgqrs.Store, queue string) error {
		_, err := pgqrs.NewQueue[int](s, queue).Enqueue(ctx, 1)
		return err
	}},
	{"enqueue, dequeue, ack", func(ctx context.Context, s *pgqrs.Store, queue string) error {
		q := pgqrs.NewQueue[int](s, queue)
		if _, err := q.Enqueue(ctx, 1); err != nil {
			return err
		}
		ms, err := q.Dequeue(ctx, 1, time.Minute)
		if err == nil && len(ms) != 1 {
			err = fmt.Errorf("dequeued %d messages; want 1", len(ms))
		}
		if err != nil {
			return err
		}
		return q.Ack(ctx, ms...)
	}},
	{"start a run", func(ctx context.Context, s *pgqrs.Store, queue string) error {
		_, err := pgqrs.NewWorkflow[int, int](s, queue).Start(ctx, 1)
		return err
	}},
}

const (
	eachRun = 600 // writes, shared among the writers
	rounds  = 5
)

// TestTable measures how many writes a second one file takes, with and without Config.Concurrent.
// Without it, a write of one statement begins no transaction. The two take turns, each time on a
// new file with the same settings. Each writer has a Store and a queue of its own, as a process
// might.
func TestTable(t *testing.T) {
	if !*table {
		t.Skip("it measures; run it with -args -table")
	}
	fmt.Println("| write | writers | BEGIN IMMEDIATE, writes/s: min, median, max | BEGIN CONCURRENT | conflicts in", eachRun, "writes |")
	fmt.Println("|---|---|---|---|---|")
	for _, w := range writes {
		for _, writers := range []int{1, 2, 4, 8} {
			var speed [2][]float64
			var conflicts []int64
			for range rounds {
				for mode, concurrent := range []bool{false, true} {
					perSecond, rollbacks := measure(t, w, writers, concurrent)
					speed[mode] = append(speed[mode], perSecond)
					if concurrent {
						conflicts = append(conflicts, rollbacks)
					}
				}
			}
			slices.Sort(conflicts)
			fmt.Printf("| %s | %d | %s | %s | %d, %d, %d |\n", w.name, writers, spread(speed[0]), spread(speed[1]),
				conflicts[0], conflicts[rounds/2], conflicts[rounds-1])
		}
	}
}

func spread(list []float64) string {
	slices.Sort(list)
	return fmt.Sprintf("%.0f, %.0f, %.0f", list[0], list[len(list)/2], list[len(list)-1])
}

// measure lets writers do a write eachRun times in all. It returns the writes in a second, and the
// number of transactions that were rolled back.
func measure(t *testing.T, w write, writers int, concurrent bool) (perSecond float64, rollbacks int64) {
	t.Helper()
	var count atomic.Int64
	db, err := driver.Open(uri(t), func(c *sqlite3.Conn) error {
		c.RollbackHook(func() { count.Add(1) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxIdleConns(writers) // making a connection takes longer than a write
	use := func(n int) (*pgqrs.Store, string) {
		return pgqrs.Config{Concurrent: concurrent}.New(db, pgqrs.Turso), fmt.Sprint("queue ", n)
	}
	first, _ := use(0)
	if err := first.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	errs := make([]error, writers)
	begin := make(chan struct{})
	for n := range writers {
		s, queue := use(n)
		// The first write creates the queue, and prepares a connection.
		if err := w.once(t.Context(), s, queue); err != nil {
			t.Fatal(err)
		}
		all.Add(1)
		go func() {
			defer all.Done()
			<-begin
			for i := 0; i < eachRun/writers && errs[n] == nil; i++ {
				errs[n] = w.once(t.Context(), s, queue)
			}
		}()
	}
	count.Store(0)
	start := time.Now()
	close(begin)
	all.Wait()
	took := time.Since(start)
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return eachRun / took.Seconds(), count.Load()
}
