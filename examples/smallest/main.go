// Smallest is the program at the beginning of the README: it enqueues a message and handles it.
//
//	go run ./examples/smallest
//
// It runs until Ctrl-C.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	_ "github.com/ncruces/go-sqlite3/driver"
	"github.com/pgqrs/pgqrs-go"
)

type Email struct{ To string }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	store, err := pgqrs.Open(ctx, "sqlite:queue.db")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if err := store.Install(ctx); err != nil { // makes the tables
		log.Fatal(err)
	}
	emails := pgqrs.NewQueue[Email](store, "emails")
	if _, err := emails.Enqueue(ctx, Email{To: "ada@example.com"}); err != nil {
		log.Fatal(err)
	}
	send := func(ctx context.Context, m *pgqrs.Message[Email]) error {
		fmt.Println("sending to", m.Payload.To)
		return nil // acks the message
	}
	w := &pgqrs.Worker{Handlers: []pgqrs.Handler{emails.Handle(send)}}
	if err := w.Run(ctx); err != nil { // until Ctrl-C
		log.Fatal(err)
	}
}
