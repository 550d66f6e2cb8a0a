package main

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

func TestSellsAnApprovedOrderOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c := f.run(t, &checkout{coolOff: time.Millisecond}, gopherAndMug)
	f.want(t, "The shopkeeper approves.", "Receipt: 2600 cents by charge-A1, sent as [parcel-2 parcel-3].")
	f.checkBooks(t, c, books{received: 2600, shipped: 2})
	f.checkCalls(t, c, 3, 0) // two calls failed, and the step retried them
	f.checkStock(t, c, 999)

	c = f.run(t, &checkout{}, gopherAndMug) // the same order again
	f.want(t, "Order A1 is run 1.", "Receipt: 2600 cents by charge-A1, sent as [parcel-2 parcel-3].")
	f.checkBooks(t, c, books{received: 2600, shipped: 2})
	f.checkCalls(t, c, 0, 0)
	f.checkStock(t, c, 999)
}

func TestTakesARejectedOrderBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c := f.run(t, &checkout{coolOff: time.Millisecond, reject: true}, gopherAndMug)
	f.want(t, "The shopkeeper rejects.", "release     done 2600", "Not sold: pgqrs: run 1 of workflow \"checkout\": the shopkeeper rejected the order.")
	f.checkBooks(t, c, books{received: 2600, refunded: 2600})
	f.checkCalls(t, c, 3, 1)
	f.checkStock(t, c, 1000)
}

func TestTakesACancelledOrderBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	// The cancellation does not wait for the cool-off.
	c := f.run(t, &checkout{coolOff: time.Hour, cancel: true}, gopherAndMug)
	f.want(t, "The customer cancels.", "release     done 2600", "run is cancelled.")
	f.checkBooks(t, c, books{received: 2600, refunded: 2600})
	f.checkCalls(t, c, 3, 1)
	f.checkStock(t, c, 1000)
}

func TestChargesNothingForWhatIsOutOfStock(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c := f.run(t, &checkout{}, Order{"A1", []string{"gopher", "unicorn"}})
	f.want(t, "Not sold", "unicorn is out of stock")
	f.checkBooks(t, c, books{})
	f.checkCalls(t, c, 0, 0)
	f.checkStock(t, c, 1000)
}

func TestRefundsOnlyWhatWasNotShipped(t *testing.T) {
	t.Parallel()
	s := newFixture(t).open(t)
	cents := inTx(t, s, func(ctx context.Context, tx *sql.Tx) (int, error) { return s.reserve(ctx, tx, gopherAndMug) })
	var err error
	for range 3 {
		_, err = s.charge(t.Context(), "A1", cents)
	}
	if err != nil {
		t.Fatal(err)
	}
	handOver := func(ctx context.Context, tx *sql.Tx) (string, error) {
		return s.handOver(ctx, tx, Parcel{"A1", "gopher"}, "parcel-1")
	}
	inTx(t, s, handOver)
	cents = inTx(t, s, func(ctx context.Context, tx *sql.Tx) (int, error) { return s.release(ctx, tx, "A1") })
	for range 2 { // the provider recognizes a refund by its key
		if err := s.refund(t.Context(), "A1", cents); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.books(t.Context(), "A1"); err != nil || got != (books{received: 2600, refunded: 700, shipped: 1}) {
		t.Errorf("books are %+v, %v, want the gopher shipped and the mug's 700 cents refunded", got, err)
	}
	tx := begin(t, s)
	defer tx.Rollback()
	if _, err := handOver(t.Context(), tx); !errors.Is(err, pgqrs.ErrPermanent) {
		t.Errorf("handing over what is not reserved: got error %v, want a permanent one", err)
	}
}

var gopherAndMug = Order{"A1", []string{"gopher", "mug"}}

// A fixture is a database and the output of the last program on it.
type fixture struct {
	database string
	out      string
}

func newFixture(t *testing.T) *fixture {
	return &fixture{database: filepath.Join(t.TempDir(), "checkout.db")}
}

// run runs the program in this process, for a minute at most.
func (f *fixture) run(t *testing.T, c *checkout, o Order) *checkout {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out strings.Builder
	c.out = &out
	err := c.run(ctx, f.database, o)
	if f.out = out.String(); err != nil {
		t.Fatalf("%v\n%s", err, f.out)
	}
	c.shop.db = f.open(t).db // the program has closed its own connection
	return c
}

func (f *fixture) open(t *testing.T) *shop {
	t.Helper()
	s, err := openShop(t.Context(), f.database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.db.Close() })
	return s
}

func begin(t *testing.T, s *shop) *sql.Tx {
	t.Helper()
	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func inTx[T any](t *testing.T, s *shop, fn func(context.Context, *sql.Tx) (T, error)) T {
	t.Helper()
	tx := begin(t, s)
	defer tx.Rollback()
	v, err := fn(t.Context(), tx)
	if err := errors.Join(err, tx.Commit()); err != nil {
		t.Fatal(err)
	}
	return v
}

// want checks that the program printed all texts.
func (f *fixture) want(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(f.out, text) {
			t.Errorf("the output has no %q:\n%s", text, f.out)
		}
	}
}

func (f *fixture) checkBooks(t *testing.T, c *checkout, want books) {
	t.Helper()
	if got, err := c.shop.books(t.Context(), "A1"); err != nil || got != want {
		t.Errorf("the books say %+v, %v, want %+v\n%s", got, err, want, f.out)
	}
}

// checkCalls checks how often the payment provider was called, which is how often the bodies ran.
func (f *fixture) checkCalls(t *testing.T, c *checkout, charges, refunds int) {
	t.Helper()
	if c.shop.calls["charge-A1"] != charges || c.shop.calls["refund-A1"] != refunds {
		t.Errorf("the payment provider was called %v, want %d charges and %d refunds\n%s", c.shop.calls, charges, refunds, f.out)
	}
}

// checkStock checks the stock of each item, and so that reservations and releases were made once.
func (f *fixture) checkStock(t *testing.T, c *checkout, want int) {
	t.Helper()
	rows, err := c.shop.db.QueryContext(t.Context(), "SELECT item, pieces FROM stock")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var item string
		var pieces int
		if err := rows.Scan(&item, &pieces); err != nil {
			t.Fatal(err)
		}
		if pieces != want {
			t.Errorf("%d pieces of %s are in stock, want %d\n%s", pieces, item, want, f.out)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
