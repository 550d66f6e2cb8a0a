package otelpgqrs_test

import (
	"context"
	"log"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/otelpgqrs"
)

// One Telemetry serves the stores and workers of a process.
func Example() {
	ctx := context.Background()
	telemetry, err := otelpgqrs.New(otelpgqrs.Options{}) // the global providers
	if err != nil {
		log.Fatal(err)
	}
	store, err := telemetry.Config(pgqrs.Config{}).Open(ctx, "sqlite:app.db")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if _, err := telemetry.Depths(store); err != nil {
		log.Fatal(err)
	}
	emails := pgqrs.NewQueue[string](store, "emails")
	worker := &pgqrs.Worker{
		Handlers: []pgqrs.Handler{emails.Handle(func(ctx context.Context, m *pgqrs.Message[string]) error {
			return nil // ctx has a span in the trace of the caller that enqueued m
		})},
		Middleware: []func(pgqrs.WorkFunc) pgqrs.WorkFunc{telemetry.Middleware},
	}
	if err := worker.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
