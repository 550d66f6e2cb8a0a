//go:build unix

// Package volume_test sends many messages of many queues through one process, and measures its
// memory. The memory must not grow with the number of messages that were handled.
//
// If PGQRS_SOAK is set to any value, the test handles a million messages on SQLite, and 200,000 on
// PostgreSQL.
package volume_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/reliability"
	"github.com/pgqrs/pgqrs-go/tests/postgres"

	_ "github.com/lib/pq"
	_ "github.com/ncruces/go-sqlite3/driver"
)

const (
	few      = 20_000 // messages
	queues   = 100
	batch    = 100         // messages in one EnqueueBatch
	window   = 50          // batches that are not handled yet
	weight   = 1000        // bytes of a payload
	growth   = 8 << 20     // of the live heap, at most. Connections and their statements take 3.
	patience = time.Minute // for the next message to be handled
)

func TestMain(m *testing.M) { postgres.Main(m) }

func TestMemoryStaysFlatOnSQLite(t *testing.T) {
	flat(t, "SQLite", "sqlite:"+t.TempDir()+"/q.db", 1_000_000)
}

func TestMemoryStaysFlatOnPostgreSQL(t *testing.T) {
	flat(t, "PostgreSQL", postgres.URL(postgres.Schema(t, "postgres")), 200_000)
}

// A parcel is a payload of some size, so that messages kept in memory are noticed.
type parcel struct {
	Number  int
	Content string
}

// A load is a set of messages in progress, numbered from 0.
type load struct {
	store   *pgqrs.Store
	queues  []*pgqrs.Queue[parcel]
	total   int
	times   []atomic.Int32 // that each message was handled
	handled atomic.Int64
	room    chan struct{} // a batch takes a slot, and returns it once as many messages were handled
}

// flat handles a few messages, or many in the long form.
func flat(t *testing.T, engine, dsn string, many int) {
	t.Helper()
	total := few
	if reliability.Soak(t) > 0 {
		total = many
	}
	store, err := pgqrs.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := &load{store: store, total: total, times: make([]atomic.Int32, total), room: make(chan struct{}, window)}
	for i := range queues {
		queue := pgqrs.NewQueue[parcel](store, fmt.Sprintf("queue %d", i))
		l.queues = append(l.queues, queue.With(pgqrs.Policy{Retention: time.Minute}))
	}
	first, last := l.run(t)
	if last > first+growth {
		t.Errorf("the live heap grew from %s after a tenth of the messages to %s after all", mebibytes(first), mebibytes(last))
	}
	row := reliability.Row{
		Fault:    fmt.Sprintf("%d messages on %d queues through one process, %s", total, queues, engine),
		Injected: fmt.Sprintf("none: live heap %s after a tenth of them, %s after all", mebibytes(first), mebibytes(last)),
		Runs:     1, Messages: total,
	}
	for i := range l.times {
		switch n := l.times[i].Load(); {
		case n == 0:
			row.Lost++
		case n > 1:
			row.Doubled++
		}
	}
	reliability.Report(t, row)
}

// run handles all messages. It returns the live heap after a tenth of them, and after all.
func (l *load) run(t *testing.T) (first, last uint64) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	worker := &pgqrs.Worker{Concurrency: 32, Lease: time.Minute}
	for _, queue := range l.queues {
		worker.Handlers = append(worker.Handlers, queue.Handle(l.handle))
	}
	all.Go(func() {
		if err := worker.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	all.Go(func() { l.enqueue(ctx, t) })
	for tenth := 1; tenth <= 10; tenth++ {
		if !l.await(t, int64(l.total*tenth/10)) {
			return first, last
		}
		last = liveHeap()
		t.Logf("%d messages: live heap %s", l.handled.Load(), mebibytes(last))
		if tenth == 1 {
			first = last
		}
	}
	return first, last
}

func (l *load) enqueue(ctx context.Context, t *testing.T) {
	for n := 0; n < l.total; n += batch {
		select {
		case l.room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		payloads := make([]parcel, batch)
		for i := range payloads {
			payloads[i] = parcel{n + i, strings.Repeat("x", weight)}
		}
		if _, err := l.queues[n/batch%queues].EnqueueBatch(ctx, payloads); err != nil {
			t.Error(err)
			return
		}
	}
}

func (l *load) handle(_ context.Context, m *pgqrs.Message[parcel]) error {
	l.times[m.Payload.Number].Add(1)
	if l.handled.Add(1)%batch == 0 {
		<-l.room
	}
	return nil
}

// await waits until n messages were handled, as long as there is progress.
func (l *load) await(t *testing.T, n int64) bool {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	latest, since := l.handled.Load(), time.Now()
	for latest < n {
		<-tick.C
		if now := l.handled.Load(); now > latest {
			latest, since = now, time.Now()
		}
		if time.Since(since) > patience {
			t.Errorf("%d of %d messages were handled, and none in %v", latest, l.total, patience)
			return false
		}
	}
	return true
}

// liveHeap returns the size of the heap after a garbage collection.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // collects what finalizers and pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
