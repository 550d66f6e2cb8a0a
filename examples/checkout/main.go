// Checkout sells things in a durable workflow. The workflow reserves the items, charges the
// customer, lets the order cool off, waits for the shopkeeper's approval and ships each item. If
// anything goes wrong, it undoes what it has done.
//
//	go run ./examples/checkout
//	go run ./examples/checkout -reject
//	go run ./examples/checkout -cancel
//
// Interrupt it, or kill -9 it, and continue with -order and the printed number.
//
// This file has the workflow. The file shop.go has the shop and its payment provider, which know
// nothing of workflows. The file story.go has the people who act on the run, and prints the
// progress.
package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

func main() {
	c := &checkout{out: os.Stdout}
	database := flag.String("db", filepath.Join(os.TempDir(), "pgqrs-checkout.db"), "keep the shop and its workflows in this SQLite `file`")
	order := flag.String("order", rand.Text()[:6], "the `number` of the order")
	flag.DurationVar(&c.coolOff, "cool-off", 2*time.Second, "how much `time` lies between payment and approval")
	flag.BoolVar(&c.reject, "reject", false, "have the shopkeeper reject the order")
	flag.BoolVar(&c.cancel, "cancel", false, "have the customer cancel the order while it cools off")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop)
	if err := c.run(ctx, *database, Order{*order, []string{"gopher", "mug"}}); err != nil {
		fmt.Fprintln(os.Stderr, "checkout:", err)
		os.Exit(1)
	}
}

// An Order is the input of the workflow, and a Receipt is its result.
type Order struct {
	Number string   `json:"number"`
	Items  []string `json:"items"` // at most one of each item
}

type Receipt struct {
	Payment string   `json:"payment"`
	Cents   int      `json:"cents"`
	Parcels []string `json:"parcels"`
}

// A Parcel is the input of the workflow that ships one item.
type Parcel struct {
	Order string `json:"order"`
	Item  string `json:"item"`
}

// Approved tells a run whether the shopkeeper approves the order.
const Approved pgqrs.Signal[bool] = "approved"

type checkout struct {
	coolOff        time.Duration
	reject, cancel bool
	out            io.Writer
	shop           *shop
	ship           *pgqrs.Workflow[Parcel, string]
}

// sell is the workflow's function.
func (c *checkout) sell(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
	// The shop's tables are in the same database, so StepTx makes the
	// reservation and the step's record in one transaction.
	cents, err := pgqrs.StepTx(ctx, run, "reserve", func(ctx context.Context, tx *sql.Tx) (int, error) {
		return c.shop.reserve(ctx, tx, o)
	})
	if err != nil {
		return Receipt{}, err // nothing was reserved
	}
	receipt, err := c.complete(ctx, run, o, cents)
	// After ErrSuspended the run continues later, from its beginning. Every other error is final,
	// and the same on each replay.
	if err != nil && !errors.Is(err, pgqrs.ErrSuspended) {
		err = errors.Join(err, c.takeBack(ctx, run, o))
	}
	return receipt, err
}

// complete does the steps after the reservation.
func (c *checkout) complete(ctx context.Context, run *pgqrs.Run, o Order, cents int) (Receipt, error) {
	// The payment provider fails twice. Between the attempts the run occupies no worker.
	patient := run.With(pgqrs.Policy{MaxAttempts: 5, Backoff: pgqrs.Exponential(200*time.Millisecond, time.Second)})
	payment, err := pgqrs.Step(ctx, patient, "charge", func(ctx context.Context) (string, error) {
		return c.shop.charge(ctx, o.Number, cents)
	})
	if err != nil {
		return Receipt{}, err
	}
	// The run occupies no worker here either, even for days and across restarts.
	if err := run.Sleep(ctx, "cool-off", c.coolOff); err != nil {
		return Receipt{}, err
	}
	approved, err := Approved.Wait(ctx, run, time.Hour)
	if err != nil {
		return Receipt{}, err // ErrTimeout if nobody answered in time
	}
	if !approved {
		return Receipt{}, errors.New("the shopkeeper rejected the order")
	}
	parcels := make([]Parcel, len(o.Items))
	for i, item := range o.Items {
		parcels[i] = Parcel{o.Number, item}
	}
	numbers, err := c.ship.Children(ctx, run, "ship", parcels) // each is a run of its own
	return Receipt{payment, cents, numbers}, err
}

// takeBack compensates. Its steps run in a cancelled run too. It does not depend on how far the
// order came, because a charge that failed may have been made nevertheless.
func (c *checkout) takeBack(ctx context.Context, run *pgqrs.Run, o Order) error {
	cents, err := pgqrs.StepTx(ctx, run, "release", func(ctx context.Context, tx *sql.Tx) (int, error) {
		return c.shop.release(ctx, tx, o.Number)
	})
	if err != nil {
		return err
	}
	return run.Do(ctx, "refund", func(ctx context.Context) error { return c.shop.refund(ctx, o.Number, cents) })
}

// shipItem is the function of the child workflow.
func (c *checkout) shipItem(ctx context.Context, run *pgqrs.Run, p Parcel) (string, error) {
	return pgqrs.StepTx(ctx, run, "hand-over", func(ctx context.Context, tx *sql.Tx) (string, error) {
		return c.shop.handOver(ctx, tx, p, fmt.Sprintf("parcel-%d", run.ID()))
	})
}

// run starts the workflow for an order, works, and prints the story.
func (c *checkout) run(ctx context.Context, database string, o Order) (err error) {
	if c.shop, err = openShop(ctx, database); err != nil {
		return fmt.Errorf("open %s: %w", database, err)
	}
	defer c.shop.db.Close()
	store := pgqrs.New(c.shop.db, pgqrs.SQLite)
	defer store.Close()
	if err := store.Install(ctx); err != nil {
		return err
	}
	sales := pgqrs.NewWorkflow[Order, Receipt](store, "checkout")
	c.ship = pgqrs.NewWorkflow[Parcel, string](store, "ship")
	// An order that is placed twice is sold once.
	run, err := sales.Start(ctx, o, pgqrs.Key(o.Number))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "Order %s is run %d.\n", o.Number, run.ID())

	working, cancel := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() {
		defer cancel()
		worker := &pgqrs.Worker{
			Handlers: []pgqrs.Handler{sales.Handle(c.sell), c.ship.Handle(c.shipItem)},
			Lease:    2 * time.Second, // after a kill -9 the order continues when this time is over
		}
		stopped <- worker.Run(working)
	}()
	err = c.tell(working, store, run)
	cancel()
	if err := errors.Join(err, <-stopped); err != nil {
		return err
	}
	return c.conclude(ctx, run, o)
}
