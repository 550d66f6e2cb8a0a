//go:build unix

package crash_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/postgres"

	_ "github.com/lib/pq"
	_ "github.com/ncruces/go-sqlite3/driver"
)

// The children's own tables, besides the library's. They have no unique index, so that an effect
// that happens twice is visible.
const (
	makeEffects  = `CREATE TABLE effects (kind TEXT NOT NULL, id BIGINT NOT NULL, claim BIGINT NOT NULL)`
	insertEffect = `INSERT INTO effects (kind, id, claim) VALUES ($1, $2, $3)`
	makeOrders   = `CREATE TABLE orders (token TEXT NOT NULL)`
	insertOrder  = `INSERT INTO orders (token) VALUES ($1)`
)

// The queues and the workflow.
const (
	plain  = "plain"   // a Worker handles its messages
	booked = "booked"  // a Worker handles them with HandleTx
	byHand = "by hand" // consumers settle them by hand
	order  = "order"   // runs with two StepTx
)

// Kinds of effects: of HandleTx, of an ack in a transaction, of the two StepTx.
const (
	bookedEffect  = "booked"
	ackedEffect   = "acked"
	reserveEffect = "reserve"
	bookEffect    = "book"
)

// lease is short, so that messages of a killed process are delivered again soon.
const lease = time.Second

// No message dies of being killed often. Every message must be archived in the end.
var policy = pgqrs.Policy{MaxAttempts: -1, Backoff: pgqrs.Exponential(20*time.Millisecond, 200*time.Millisecond)}

type task struct {
	Token   string
	Ordered bool // enqueued together with a row of orders
	Slow    bool // takes longer than its lease
}

type amount struct{ N int }

type receipt struct{ Price, Reserved int }

// price and reserved are the results of a run's steps.
func (a amount) price() int    { return 3 * a.N }
func (a amount) reserved() int { return a.N + 1 }

// childVariable is the environment variable with the assignment of a child process.
const childVariable = "PGQRS_CRASH_CHILD"

// An assignment is the task of a child.
type assignment struct {
	DSN    string
	Role   string
	Name   string // of this process alone
	Ledger string // path
	Seed   uint64
	Runs   int // runs that were acknowledged to earlier producers
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

// beChild works until its standard input ends, which happens when its parent dismisses it or dies.
func beChild(text string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	c := &child{}
	if err := json.Unmarshal([]byte(text), &c.assignment); err != nil {
		return err
	}
	var err error
	if c.ledger, err = openLedger(c.Ledger); err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if c.store, err = (pgqrs.Config{Logger: logger}).Open(ctx, c.DSN); err != nil {
		return err
	}
	defer c.store.Close()
	if err := c.store.Install(ctx); err != nil {
		return err
	}
	fmt.Println(readyLine)
	work, ok := roles[c.Role]
	if !ok {
		return fmt.Errorf("no such role: %q", c.Role)
	}
	return work(c, ctx)
}

const readyLine = "ready"

var roles = map[string]func(*child, context.Context) error{
	"producer": (*child).produce,
	"worker":   (*child).work,
	"consumer": (*child).consume,
}

// A child is the state of a child process.
type child struct {
	assignment
	store  *pgqrs.Store
	ledger ledger
}

func (c *child) queue(name string) *pgqrs.Queue[task] {
	return pgqrs.NewQueue[task](c.store, name).With(policy)
}

func (c *child) workflow() *pgqrs.Workflow[amount, receipt] {
	return pgqrs.NewWorkflow[amount, receipt](c.store, order).With(policy)
}

// random returns a random source for one goroutine.
func (c *child) random(goroutine uint64) *rand.Rand { return rand.New(rand.NewPCG(c.Seed, goroutine)) }

// spend takes time like real work, unless ctx ends first.
func spend(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// complain notes an error that the child can ignore. Unacknowledged work may be lost, and unsettled
// messages are delivered again.
func complain(ctx context.Context, err error) {
	if ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		spend(ctx, 50*time.Millisecond)
	}
}
