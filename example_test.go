package pgqrs_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

// An Email is what the examples send.
type Email struct{ To, Subject string }

func send(context.Context, Email) error { return nil }

var (
	ctx = context.Background()
	db  *sql.DB // the application's own, opened with any driver
)

// Enqueue a message, and handle it.
func Example() {
	store := pgqrs.New(db, pgqrs.Postgres)
	if err := store.Install(ctx); err != nil {
		panic(err)
	}
	emails := pgqrs.NewQueue[Email](store, "emails")
	if _, err := emails.Enqueue(ctx, Email{To: "ada@example.com"}); err != nil {
		panic(err)
	}

	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{
		emails.Handle(func(ctx context.Context, m *pgqrs.Message[Email]) error {
			return send(ctx, m.Payload)
		}),
	}}
	if err := worker.Run(ctx); err != nil { // until ctx is done
		panic(err)
	}
}

// An empty Config is what New uses.
func ExampleConfig() {
	store := pgqrs.Config{
		Schema:    "jobs",
		NoPrepare: true, // behind a transaction-pooling proxy
		Limits:    pgqrs.Limits{MaxPayload: 64 << 10},
	}.New(db, pgqrs.Postgres)
	fmt.Println(store.Dialect())
	// Output: postgres
}

// A producer that mistypes a field, as {"To": "ada@example.com", "Subjekt": "hi"}, learns of it from the dead letters.
// Without StrictPayloads the handler gets an Email without a Subject.
func ExampleConfig_strictPayloads() {
	store := pgqrs.Config{StrictPayloads: true}.New(db, pgqrs.Postgres)
	emails := pgqrs.NewQueue[Email](store, "emails")
	_ = &pgqrs.Worker{Handlers: []pgqrs.Handler{emails.Handle(func(ctx context.Context, m *pgqrs.Message[Email]) error {
		return send(ctx, m.Payload)
	})}}
}

// An application without a *sql.DB of its own imports a driver, such as
// _ "github.com/ncruces/go-sqlite3/driver", and names the database.
func ExampleOpen() {
	store, err := pgqrs.Open(ctx, "sqlite:queue.db")
	if err != nil {
		panic(err)
	}
	defer store.Close() // and its *sql.DB
	if err := store.Install(ctx); err != nil {
		panic(err)
	}
}

// An encrypted file. With the cipher named, an empty key is an error too.
func ExampleConfig_Open() {
	config := pgqrs.Config{EncryptionKey: os.Getenv("QUEUE_KEY"), Cipher: "adiantum"}
	store, err := config.Open(ctx, "sqlite:queue.db?synchronous=full")
	if err != nil {
		panic(err) // a wrong key, among others
	}
	defer store.Close()
}

func ExampleQueue_Enqueue() {
	emails := pgqrs.NewQueue[Email](pgqrs.New(db, pgqrs.Postgres), "emails")
	id, err := emails.Enqueue(ctx, Email{To: "ada@example.com"},
		pgqrs.Delay(time.Minute),
		pgqrs.Priority(1),
		pgqrs.Headers(map[string]string{"tenant": "42"}),
		pgqrs.Unique("welcome:ada"))
	if errors.Is(err, pgqrs.ErrDuplicate) {
		fmt.Println("already under way as message", id)
	}
}

// A batch is one statement, whatever its size, and all or nothing.
func ExampleQueue_EnqueueBatch() {
	emails := pgqrs.NewQueue[Email](pgqrs.New(db, pgqrs.Postgres), "emails")
	list := []Email{{To: "ada@example.com"}, {To: "bob@example.com"}}
	ids, err := emails.EnqueueBatch(ctx, list,
		pgqrs.Priority(-1),
		pgqrs.Each(func(i int) []pgqrs.Option {
			return []pgqrs.Option{pgqrs.Key("newsletter:" + list[i].To)}
		}))
	fmt.Println(ids, err)
}

// What is enqueued in a transaction is there if and only if it commits.
func ExampleQueue_WithTx() {
	emails := pgqrs.NewQueue[Email](pgqrs.New(db, pgqrs.Postgres), "emails")

	signUp := func(ctx context.Context, address string) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "INSERT INTO users (email) VALUES ($1)", address); err != nil {
			return err
		}
		if _, err := emails.WithTx(tx).Enqueue(ctx, Email{To: address, Subject: "Welcome"}); err != nil {
			return err
		}
		return tx.Commit()
	}
	if err := signUp(ctx, "ada@example.com"); err != nil {
		panic(err)
	}
}

// A program may take messages by hand, without a Worker.
func ExampleQueue_Dequeue() {
	store := pgqrs.New(db, pgqrs.SQLite)
	defer store.Close()
	emails := pgqrs.NewQueue[Email](store, "emails")

	messages, err := emails.Dequeue(ctx, 10, 30*time.Second)
	if err != nil {
		panic(err)
	}
	for _, m := range messages {
		if cause := send(ctx, m.Payload); cause != nil {
			err = emails.Fail(ctx, cause, m) // again later, or a dead letter
		} else {
			err = emails.Ack(ctx, m)
		}
		if errors.Is(err, pgqrs.ErrLeaseLost) {
			fmt.Println("message", m.ID, "took too long; somebody else has it")
		}
	}
}

// A worker serves several queues and stops in order when its context is done.
func ExampleWorker() {
	store := pgqrs.New(db, pgqrs.Postgres)
	emails := pgqrs.NewQueue[Email](store, "emails").With(pgqrs.Policy{
		MaxAttempts: 10,
		Backoff:     pgqrs.Exponential(time.Second, 10*time.Minute),
		Timeout:     time.Minute,
		Concurrency: 4,
	})
	reports := pgqrs.NewQueue[string](store, "reports")

	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	worker := &pgqrs.Worker{
		Concurrency: 32,
		Handlers: []pgqrs.Handler{
			emails.Handle(func(ctx context.Context, m *pgqrs.Message[Email]) error { return send(ctx, m.Payload) }),
			reports.Handle(func(ctx context.Context, m *pgqrs.Message[string]) error { return nil }),
		},
	}
	if err := worker.Run(ctx); err != nil {
		fmt.Println(err)
	}
}

// The error that a handler returns decides what becomes of its message.
func ExampleQueue_Handle() {
	emails := pgqrs.NewQueue[Email](pgqrs.New(db, pgqrs.Postgres), "emails")
	handler := emails.Handle(func(ctx context.Context, m *pgqrs.Message[Email]) error {
		var dns *net.DNSError
		switch err := send(ctx, m.Payload); {
		case errors.As(err, &dns) && dns.IsNotFound:
			return pgqrs.Permanent(err) // a dead letter now
		case errors.As(err, &dns):
			return pgqrs.RetryAfter(time.Hour, err) // at that time, counted
		default:
			return err // nil: done; else again after the policy's backoff
		}
	})
	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{handler}}
	fmt.Println(worker.Run(ctx))
}

// With HandleTx, what the handler writes and the end of its message are one
// transaction.
func ExampleQueue_HandleTx() {
	type Payment struct{ Account, Cents int }
	payments := pgqrs.NewQueue[Payment](pgqrs.New(db, pgqrs.Postgres), "payments")
	handler := payments.HandleTx(func(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[Payment]) error {
		_, err := tx.ExecContext(ctx, "UPDATE accounts SET cents = cents + $1 WHERE id = $2", m.Payload.Cents, m.Payload.Account)
		return err
	})
	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{handler}}
	fmt.Println(worker.Run(ctx))
}

// Find out what died and why, and run it again.
func ExampleStore_Redrive() {
	store := pgqrs.New(db, pgqrs.Postgres)
	dead, err := store.Messages(ctx, pgqrs.MessageFilter{Queue: "emails", State: pgqrs.Dead})
	if err != nil {
		panic(err)
	}
	for _, m := range dead {
		fmt.Printf("message %d died at %v: %s\n", m.ID, m.EndedAt, m.LastError)
		if _, err := store.Redrive(ctx, m.ID); err != nil {
			panic(err)
		}
	}
}

// Exponential grows by two, up to its bound, give or take a quarter.
func ExampleExponential() {
	backoff := pgqrs.Exponential(time.Second, time.Minute)
	d := backoff(3)
	fmt.Println(3*time.Second <= d && d <= 5*time.Second)
	// Output: true
}

// A test of an application on a real database works off what it enqueued.
func Example_integrationTest() {
	_ = func(t *testing.T) {
		store := pgqrs.New(db, pgqrs.SQLite)
		emails := pgqrs.NewQueue[Email](store, "emails")

		// Call the application here. Then look at what it enqueued,
		pgqrstest.RequireEnqueued(t, store, "emails", func(e Email) bool { return e.To == "ada@example.com" })

		// let a day pass,
		pgqrstest.Advance(t, store, 24*time.Hour)

		// and handle everything that is due.
		pgqrstest.Drain(t, store, []string{"emails"}, emails.Handle(func(ctx context.Context, m *pgqrs.Message[Email]) error {
			return send(ctx, m.Payload)
		}))
	}
}
