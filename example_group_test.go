package pgqrs_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

type movement struct {
	Account string
	Cents   int64
}

func ExampleGroup() {
	ctx := context.Background()
	store := pgqrs.New(db, pgqrs.SQLite)
	movements := pgqrs.NewQueue[movement](store, "movements")

	// What is booked on one account is booked in this order, whoever books it.
	for _, m := range []movement{{"ada", 500}, {"bob", 20}, {"ada", -450}} {
		if _, err := movements.Enqueue(ctx, m, pgqrs.Group(m.Account)); err != nil {
			log.Fatal(err)
		}
	}
	book := func(ctx context.Context, m *pgqrs.Message[movement]) error {
		fmt.Println("booking", m.Payload.Cents, "for", m.Group)
		return nil
	}
	w := &pgqrs.Worker{Handlers: []pgqrs.Handler{movements.Handle(book)}}
	if err := w.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

func ExampleGroup_tenants() {
	ctx := context.Background()
	store := pgqrs.New(db, pgqrs.SQLite)

	// Each tenant has at most three of its messages under way and 100 a minute begun,
	// and one that fails does not hold up the others while it waits for its retry.
	imports := pgqrs.NewQueue[string](store, "imports").With(pgqrs.Policy{
		GroupConcurrency: 3, GroupRate: pgqrs.Rate{N: 100, Per: time.Minute}, SkipFailed: true,
	})
	if err := imports.Configure(ctx); err != nil {
		log.Fatal(err)
	}
	if _, err := imports.Enqueue(ctx, "customers.csv", pgqrs.Group("tenant 7")); err != nil {
		log.Fatal(err)
	}
}

func ExampleThen() {
	ctx := context.Background()
	store := pgqrs.New(db, pgqrs.SQLite)
	letters := pgqrs.NewQueue[string](store, "letters")
	reports := pgqrs.NewQueue[string](store, "reports")

	_, err := letters.EnqueueBatch(ctx, []string{"ada", "bob", "cid"}, pgqrs.Then(reports, "letters of May"))
	if err != nil {
		log.Fatal(err)
	}
	report := func(ctx context.Context, m *pgqrs.Message[string]) error {
		fmt.Printf("%s: %d sent, %d failed\n", m.Payload, m.Batch.Done, m.Batch.Dead)
		return nil
	}
	w := &pgqrs.Worker{Handlers: []pgqrs.Handler{reports.Handle(report)}}
	if err := w.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
