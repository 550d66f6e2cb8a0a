package pgqrs_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// An Order is what the workflow of these examples checks out, and a Receipt what comes of it.
type (
	Order struct {
		ID    string
		Cents int
		Items []string
	}
	Receipt struct{ Charge string }
)

func charge(context.Context, Order) (string, error)       { return "ch_1", nil }
func refund(context.Context, string) error                { return nil }
func bookOrder(context.Context, *sql.Tx, Order) error     { return nil }
func pack(context.Context, string) (string, error)        { return "box", nil }
func looksLikeFraud(context.Context, Order) (bool, error) { return false, nil }

// A workflow is a name and two types. A program that starts runs needs no more.
var checkout = pgqrs.NewWorkflow[Order, Receipt](pgqrs.New(db, pgqrs.Postgres), "checkout")

// Approved is sent by the back office.
const Approved pgqrs.Signal[bool] = "approved"

// runCheckout is the code of checkout. Crashes, deploys and long waits do not
// end it: it runs again from its beginning, with the results that are recorded.
func runCheckout(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
	paid, err := pgqrs.Step(ctx, run, "charge", func(ctx context.Context) (string, error) { return charge(ctx, o) })
	if err != nil {
		return Receipt{}, err
	}
	ok, err := Approved.Wait(ctx, run, 24*time.Hour) // until somebody sends it
	if err != nil {
		return Receipt{}, err
	}
	if !ok {
		return Receipt{}, run.Do(ctx, "refund", func(ctx context.Context) error { return refund(ctx, paid) })
	}
	err = run.DoTx(ctx, "book", func(ctx context.Context, tx *sql.Tx) error { return bookOrder(ctx, tx, o) }) // once
	return Receipt{Charge: paid}, err
}

// Start a run with the order, in one transaction, and wait for what comes of it.
func ExampleWorkflow() {
	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{checkout.Handle(runCheckout)}}
	go worker.Run(ctx) // in this process or in another

	order := Order{ID: "o-42", Cents: 1999}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		panic(err)
	}
	defer tx.Rollback()
	run, err := checkout.WithTx(tx).Start(ctx, order, pgqrs.Key(order.ID)) // once for an order
	if err != nil {
		panic(err)
	}
	if err := tx.Commit(); err != nil {
		panic(err)
	}

	receipt, err := run.Result(ctx)
	var failed *pgqrs.RunError
	switch {
	case errors.As(err, &failed):
		fmt.Println("run", failed.RunID, "failed:", failed.Err)
	case errors.Is(err, pgqrs.ErrCancelled):
		fmt.Println("it was cancelled")
	case err == nil:
		fmt.Println("paid by", receipt.Charge)
	}
}

// A signal may be sent before the run waits for it, and from any program that
// has the run's id.
func ExampleSignal() {
	store := pgqrs.New(db, pgqrs.Postgres)
	run, err := checkout.Find(ctx, "o-42") // by its key
	if err != nil {
		panic(err)
	}
	if err := Approved.Send(ctx, store, run.ID(), true); errors.Is(err, pgqrs.ErrState) {
		fmt.Println("the run has ended")
	}
}

// What was done is undone when the run fails or is cancelled. ErrSuspended is
// neither: the run goes on later, and nothing is to be undone.
func ExampleRun_compensation() {
	_ = checkout.Handle(func(ctx context.Context, run *pgqrs.Run, o Order) (receipt Receipt, err error) {
		receipt.Charge, err = pgqrs.Step(ctx, run, "charge", func(ctx context.Context) (string, error) { return charge(ctx, o) })
		if err != nil {
			return receipt, err
		}
		defer func() {
			if err != nil && !errors.Is(err, pgqrs.ErrSuspended) {
				undone := run.Do(ctx, "refund", func(ctx context.Context) error { return refund(ctx, receipt.Charge) })
				err = errors.Join(err, undone)
			}
		}()
		return receipt, run.DoTx(ctx, "book", func(ctx context.Context, tx *sql.Tx) error { return bookOrder(ctx, tx, o) })
	})
}

// A child is started once, whatever happens, and its parent holds no worker
// while it runs. Children starts many and waits for all.
func ExampleWorkflow_Children() {
	store := pgqrs.New(db, pgqrs.Postgres)
	packing := pgqrs.NewWorkflow[string, string](store, "packing")
	_ = checkout.Handle(func(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
		boxes, err := packing.Children(ctx, run, "pack", o.Items)
		if err != nil {
			return Receipt{}, err // the joined errors of those that failed
		}
		label, err := packing.Child(ctx, run, "label", fmt.Sprint(len(boxes), " boxes"), pgqrs.Priority(1))
		return Receipt{Charge: label}, err
	})
}

// In a loop the name of a step says what it is about, not how often the loop
// has turned: the items may come in another order after a restart.
func ExampleRun_Do_loop() {
	_ = checkout.Handle(func(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
		for _, item := range o.Items {
			err := run.Do(ctx, "pack:"+item, func(ctx context.Context) error {
				_, err := pack(ctx, item)
				return err
			})
			if err != nil {
				return Receipt{}, err
			}
		}
		return Receipt{}, run.Sleep(ctx, "cool-off", 14*24*time.Hour) // across restarts, without a worker
	})
}

// Version lets runs that are under way keep to the code that they began with.
func ExampleRun_Version() {
	_ = checkout.Handle(func(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
		version, err := run.Version(ctx, "fraud-check", 1)
		if err != nil {
			return Receipt{}, err
		}
		if version >= 1 { // runs from before the change get 0
			fraud, err := pgqrs.Step(ctx, run, "fraud", func(ctx context.Context) (bool, error) { return looksLikeFraud(ctx, o) })
			if err != nil || fraud {
				return Receipt{}, errors.Join(err, errors.New("order is refused"))
			}
		}
		return runCheckout(ctx, run, o)
	})
}

// Steps that call somebody who is often down get a policy of their own. The
// run holds no worker between their attempts.
func ExampleRun_With() {
	_ = checkout.Handle(func(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
		patient := run.With(pgqrs.Policy{MaxAttempts: 20, Backoff: pgqrs.Exponential(time.Second, time.Hour), Timeout: time.Minute})
		paid, err := pgqrs.Step(ctx, patient, "charge", func(ctx context.Context) (string, error) {
			id, err := charge(ctx, o)
			if errors.Is(err, errCardDeclined) {
				return "", pgqrs.Permanent(err) // trying again is no use
			}
			return id, err
		})
		return Receipt{Charge: paid}, err
	})
}

var errCardDeclined = errors.New("card is declined")

// Find out which runs failed and where, and let them go on from there.
func ExampleRunHandle_Retry() {
	store := pgqrs.New(db, pgqrs.Postgres)
	failed, err := store.Runs(ctx, pgqrs.RunFilter{Workflow: "checkout", State: pgqrs.Failed})
	if err != nil {
		panic(err)
	}
	for _, info := range failed {
		run := store.RunHandle(info.ID)
		steps, err := run.Steps(ctx)
		if err != nil {
			panic(err)
		}
		fmt.Println("run", info.ID, "failed after", len(steps), "steps:", info.Error)
		if err := run.Retry(ctx); err != nil {
			panic(err)
		}
	}
}
