// Package limits_test has several processes work on one queue under the limits
// of its policy, and looks at what they all did together.
package limits_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	_ "github.com/lib/pq"
	_ "github.com/ncruces/go-sqlite3/driver"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/drivertest/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/drivertest/postgres"
)

// childVariable holds the order of a process that is a child.
const childVariable = "PGQRS_LIMITS_CHILD"

const (
	processes = 4
	workers   = 2 // in each, with a Store of its own: eight claimers
	messages  = 120
)

const pragmas = "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)"

// An order says what a child works on.
type order struct {
	Driver, DSN string
	Dialect     pgqrs.Dialect
	Policy      limits
}

// limits are those of a Policy.
type limits struct {
	MaxHeld int
	Rate    pgqrs.Rate
}

func (l limits) policy() pgqrs.Policy { return pgqrs.Policy{MaxHeld: l.MaxHeld, Rate: l.Rate} }

// A span is how long a handler had a message: it begins after the claim and ends before the ack.
type span struct {
	Message      int
	Began, Ended int64 // by the machine's clock, in nanoseconds
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		if err := beChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	postgres.Main(m)
}

// beChild works until its standard input ends, and writes a line for each message.
func beChild(text string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	var mu sync.Mutex
	lines := json.NewEncoder(os.Stdout)
	work := func(_ context.Context, m *pgqrs.Message[int]) error {
		s := span{Message: m.Payload, Began: time.Now().UnixNano()}
		<-time.After(2 * time.Millisecond) // the work
		s.Ended = time.Now().UnixNano()
		mu.Lock()
		defer mu.Unlock()
		return lines.Encode(s)
	}
	var all sync.WaitGroup
	errs := make([]error, workers)
	for n := range workers {
		db, err := sql.Open(o.Driver, o.DSN)
		if err != nil {
			return err
		}
		defer db.Close()
		q := pgqrs.NewQueue[int](pgqrs.New(db, o.Dialect), "limited").With(o.Policy.policy())
		w := &pgqrs.Worker{Handlers: []pgqrs.Handler{q.Handle(work)}, PollInterval: 20 * time.Millisecond}
		all.Add(1)
		go func() {
			defer all.Done()
			errs[n] = w.Run(ctx)
		}()
	}
	all.Wait()
	return errors.Join(errs...)
}

// onBoth runs a case on PostgreSQL and on SQLite.
func onBoth(t *testing.T, l limits, check func(t *testing.T, db *sql.DB, d pgqrs.Dialect, spans []span)) {
	for name, o := range map[string]func(t *testing.T) order{
		"PostgreSQL": func(t *testing.T) order { return order{"postgres", postgres.Schema(t, "postgres"), pgqrs.Postgres, l} },
		"SQLite": func(t *testing.T) order {
			return order{"sqlite3", sqlite.URI(t, pragmas), pgqrs.SQLite, l}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := o(t)
			db, err := sql.Open(o.Driver, o.DSN)
			must(t, err)
			defer db.Close()
			check(t, db, o.Dialect, run(t, db, o))
		})
	}
}

// run has the children work everything, and returns what they did.
func run(t *testing.T, db *sql.DB, o order) []span {
	t.Helper()
	store := pgqrs.New(db, o.Dialect)
	must(t, store.Install(t.Context()))
	q := pgqrs.NewQueue[int](store, "limited").With(o.Policy.policy())
	must(t, q.Configure(t.Context()))
	list := make([]int, messages)
	for i := range list {
		list[i] = i
	}
	_, err := q.EnqueueBatch(t.Context(), list)
	must(t, err)
	text, err := json.Marshal(o)
	must(t, err)
	var children []*child
	for range processes {
		children = append(children, startChild(t, string(text)))
	}
	deadline := time.Now().Add(2 * time.Minute)
	for archived := int64(0); archived < messages; {
		infos, err := store.Queues(t.Context(), "limited")
		must(t, err)
		archived = infos[0].Archived
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d messages are done after two minutes", archived, messages)
		}
		<-time.After(20 * time.Millisecond)
	}
	var spans []span
	for _, c := range children {
		spans = append(spans, c.end(t)...)
	}
	slices.SortFunc(spans, func(a, b span) int { return a.Message - b.Message })
	for i, s := range spans {
		if s.Message != i {
			t.Fatalf("of %d messages the %dth is %d: one was handled twice, or never", len(spans), i, s.Message)
		}
	}
	return spans
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	spans chan []span
}

func startChild(t *testing.T, text string) *child {
	t.Helper()
	c := &child{cmd: exec.CommandContext(t.Context(), os.Args[0]), spans: make(chan []span, 1)}
	c.cmd.Env = append(os.Environ(), childVariable+"="+text)
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe()
	must(t, err)
	c.stdin = stdin
	stdout, err := c.cmd.StdoutPipe()
	must(t, err)
	must(t, c.cmd.Start())
	go func() {
		var spans []span
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var s span
			if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
				s.Message = -1
			}
			spans = append(spans, s)
		}
		c.spans <- spans
	}()
	return c
}

// end dismisses the child and returns what it did.
func (c *child) end(t *testing.T) []span {
	t.Helper()
	must(t, c.stdin.Close())
	spans := <-c.spans
	must(t, c.cmd.Wait())
	return spans
}

func TestProcessesNeverHoldMoreThanMaxHeld(t *testing.T) {
	const held = 3
	onBoth(t, limits{MaxHeld: held}, func(t *testing.T, _ *sql.DB, _ pgqrs.Dialect, spans []span) {
		type edge struct {
			at    int64
			delta int
		}
		var edges []edge
		for _, s := range spans {
			edges = append(edges, edge{s.Began, 1}, edge{s.Ended, -1})
		}
		slices.SortFunc(edges, func(a, b edge) int {
			if a.at != b.at {
				return int(a.at - b.at)
			}
			return a.delta - b.delta
		})
		now, most := 0, 0
		for _, e := range edges {
			now += e.delta
			most = max(most, now)
		}
		if most > held || most < 2 {
			t.Errorf("%d messages were held at a time; want %d at most, and more than one", most, held)
		}
	})
}

func TestProcessesTogetherKeepToTheRate(t *testing.T) {
	rate := pgqrs.Rate{N: 10, Per: 200 * time.Millisecond}
	const interval = 20 * time.Millisecond
	claims := map[pgqrs.Dialect]string{
		pgqrs.Postgres: `SELECT (extract(epoch FROM dequeued_at) * 1000000)::bigint FROM pgqrs_messages ORDER BY 1`,
		pgqrs.SQLite:   `SELECT CAST((julianday(dequeued_at) - 2440587.5) * 86400000000 AS INTEGER) FROM pgqrs_messages ORDER BY 1`,
	}
	onBoth(t, limits{Rate: rate}, func(t *testing.T, db *sql.DB, d pgqrs.Dialect, _ []span) {
		rows, err := db.QueryContext(t.Context(), claims[d])
		must(t, err)
		defer rows.Close()
		var at []time.Duration
		for rows.Next() {
			var micros int64
			must(t, rows.Scan(&micros))
			at = append(at, time.Duration(micros)*time.Microsecond)
		}
		must(t, rows.Err())
		for i := range at {
			for j := i; j < len(at); j++ {
				within := at[j] - at[i] + 2*time.Millisecond // as far as SQLite's clock reads
				if n, most := j-i+1, rate.N+int(within/interval); n > most {
					t.Fatalf("%d deliveries began within %v; want %d at most", n, within, most)
				}
			}
		}
	})
}

// BenchmarkClaim times claims of ten messages without a limit and with each, in
// turns, so that what else the machine does tells on all. It reports medians.
func BenchmarkClaim(b *testing.B) {
	for name, open := range map[string]func() (driver, dsn string, d pgqrs.Dialect){
		"postgres": func() (string, string, pgqrs.Dialect) {
			return "postgres", postgres.Schema(b, "postgres"), pgqrs.Postgres
		},
		"sqlite": func() (string, string, pgqrs.Dialect) { return "sqlite3", sqlite.URI(b, pragmas), pgqrs.SQLite },
	} {
		b.Run(name, func(b *testing.B) {
			driver, dsn, d := open()
			db, err := sql.Open(driver, dsn)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			store := pgqrs.New(db, d)
			defer store.Close()
			if err := store.Install(b.Context()); err != nil {
				b.Fatal(err)
			}
			timeClaims(b, store)
		})
	}
}

func timeClaims(b *testing.B, store *pgqrs.Store) {
	far := pgqrs.Rate{N: 1_000_000_000, Per: 1000 * time.Hour}
	names := []string{"off", "held", "rate", "both"}
	queues := map[string]*pgqrs.Queue[int]{}
	for name, l := range map[string]limits{"off": {}, "held": {MaxHeld: 1_000_000}, "rate": {Rate: far}, "both": {1_000_000, far}} {
		queues[name] = pgqrs.NewQueue[int](store, name).With(l.policy())
		if err := queues[name].Configure(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	took := map[string][]time.Duration{}
	for b.Loop() {
		for _, name := range names {
			d, err := timeClaim(b.Context(), queues[name])
			if err != nil {
				b.Fatal(err)
			}
			took[name] = append(took[name], d)
		}
	}
	for _, name := range names {
		slices.Sort(took[name])
		b.ReportMetric(float64(took[name][len(took[name])/2].Microseconds()), name+"-µs")
	}
}

// timeClaim says how long a claim of ten messages takes.
func timeClaim(ctx context.Context, q *pgqrs.Queue[int]) (time.Duration, error) {
	if _, err := q.EnqueueBatch(ctx, make([]int, 10)); err != nil {
		return 0, err
	}
	began := time.Now()
	ms, err := q.Dequeue(ctx, 10, time.Minute)
	took := time.Since(began)
	if err == nil && len(ms) != 10 {
		err = fmt.Errorf("dequeued %d messages", len(ms))
	}
	return took, errors.Join(err, q.Ack(ctx, ms...))
}
