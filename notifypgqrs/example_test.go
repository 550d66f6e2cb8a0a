package notifypgqrs_test

import (
	"context"
	"database/sql"
	"log"

	_ "github.com/lib/pq"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/notifypgqrs"
)

func Example() {
	const dsn = "postgres://app@db.internal/app?connect_timeout=5"
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store := pgqrs.Config{Notifier: &notifypgqrs.Notifier{DSN: dsn}}.New(db, pgqrs.Postgres)
	defer store.Close()
	emails := pgqrs.NewQueue[string](store, "emails")
	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{emails.Handle(func(ctx context.Context, m *pgqrs.Message[string]) error {
		return nil // called a few milliseconds after another process has enqueued
	})}}
	if err := worker.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
