package pgqrs_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"os/signal"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

// An Email is the payload of the examples.
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

// A producer may mistype a field, as in {"To": "ada@example.com", "Subjekt": "hi"}. With
// StrictPayloads the message becomes a dead letter, and its error names the field. Without it the
// handler gets an Email without a Subject.
func ExampleConfig_strictPayloads() {
	store := pgqrs.Config{StrictPayloads: true}.New(db, pgqrs.Postgres)
	emails := pgqrs.NewQueue[Email](store, "emails")
	_ = &pgqrs.Worker{Handlers: []pgqrs.Handler{emails.Handle(func(ctx context.Context, m *pgqrs.Message[Email]) error {
		return send(ctx, m.Payload)
	})}}
}

// An application without a *sql.DB of its own imports a driver, such as _
// "github.com/ncruces/go-sqlite3/driver", and passes the DSN of the database.
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

// Open an encrypted file. If the cipher is named, an empty key is an error too.
func ExampleConfig_Open() {
	config := pgqrs.Config{EncryptionKey: os.Getenv("QUEUE_KEY"), Cipher: "adiantum"}
	store, err := config.Open(ctx, "sqlite:queue.db?synchronous=full")
	if err != nil {
		panic(err) // for example a wrong key
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

// A batch is one statement of any size. All of its messages are stored, or none.
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

// A message that is enqueued in a transaction exists if and only if the transaction commits.
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

// A program can also dequeue messages itself, without a Worker.
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

// A worker serves several queues. It stops in good order when its context is done.
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

// The error that a handler returns decides the outcome of its message.
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
			return err // nil is done, other errors retry after the policy's backoff
		}
	})
	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{handler}}
	fmt.Println(worker.Run(ctx))
}

// With HandleTx, the handler's writes and the ack of its message are one transaction.
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

// Look at dead letters and their errors, and make them ready again.
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

// Exponential doubles the backoff up to its bound, plus or minus a quarter.
func ExampleExponential() {
	backoff := pgqrs.Exponential(time.Second, time.Minute)
	d := backoff(3)
	fmt.Println(3*time.Second <= d && d <= 5*time.Second)
	// Output: true
}

// A test of an application on a real database handles the messages that the application enqueued.
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

// insertAll writes rows by one statement, and returns which rows were refused.
func insertAll(context.Context, []Email) (refused map[int]error, err error) { return nil, nil }

// A batch handler takes up to 500 messages at once, or the messages that arrived within 200 ms.
// Each message has an outcome of its own.
func ExampleQueue_HandleBatch() {
	store := pgqrs.New(db, pgqrs.Postgres)
	emails := pgqrs.NewQueue[Email](store, "emails")
	handler := emails.HandleBatch(func(ctx context.Context, ms []*pgqrs.Message[Email]) error {
		rows := make([]Email, len(ms))
		for i, m := range ms {
			rows[i] = m.Payload
		}
		refused, err := insertAll(ctx, rows)
		if err != nil {
			return err // all are retried, one by one
		}
		failed := pgqrs.BatchError{}
		for i, err := range refused {
			failed[ms[i].ID] = pgqrs.Permanent(err)
		}
		return failed // the others are acked
	}, 500, 200*time.Millisecond)
	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{handler}}
	if err := worker.Run(ctx); err != nil {
		panic(err)
	}
}

// A BatchError matches the errors of its messages.
func ExampleBatchError() {
	err := error(pgqrs.BatchError{7: errors.New("no such address"), 9: pgqrs.Permanent(errors.New("blocked")), 8: nil})
	fmt.Println(err, errors.Is(err, pgqrs.ErrPermanent))
	// Output:
	// pgqrs: 2 messages of a batch failed: message 7: no such address; message 9: blocked true
}

type movement struct {
	Account string
	Cents   int64
}

func ExampleGroup() {
	ctx := context.Background()
	store := pgqrs.New(db, pgqrs.SQLite)
	movements := pgqrs.NewQueue[movement](store, "movements")

	// The movements of one account are booked in this order, whichever worker books them.
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

	// Each tenant has at most three messages in progress and 100 a minute started. A failed message
	// does not delay the others while it waits for its retry.
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

// A Worker has schedules as it has handlers. Any number of processes may run the same schedules,
// and each instant is enqueued once.
func ExampleSchedule() {
	store := pgqrs.New(db, pgqrs.Postgres)
	digests := pgqrs.NewQueue[Email](store, "digests")
	worker := &pgqrs.Worker{
		Handlers: []pgqrs.Handler{digests.Handle(func(ctx context.Context, m *pgqrs.Message[Email]) error {
			day, err := time.Parse(time.RFC3339Nano, m.Headers[pgqrs.DueHeader])
			if err != nil {
				day = time.Now() // by hand
			}
			m.Payload.Subject = day.Format("News of 2 January")
			return send(ctx, m.Payload)
		})},
		Schedules: []pgqrs.Schedule{
			{Name: "digest", Rule: pgqrs.Every(24 * time.Hour), Target: digests.Target(Email{To: "ada"})},
			// To use a cron expression: Rule: cronpgqrs.MustParse("30 2 * * *"), Zone: berlin
		},
	}
	if err := worker.Run(ctx); err != nil {
		panic(err)
	}
}

// A schedule can start runs of a workflow. With CatchUp it runs more than the latest of the
// instants that passed while no worker ran.
func ExampleWorkflow_Target() {
	_ = &pgqrs.Worker{
		Handlers: []pgqrs.Handler{checkout.Handle(runCheckout)},
		Schedules: []pgqrs.Schedule{
			{Name: "standing order", Rule: pgqrs.Every(7 * 24 * time.Hour), CatchUp: 4, Target: checkout.Target(Order{ID: "o-42", Cents: 1999})},
		},
	}
}

// An operator lists schedules, pauses one and runs another by hand, without their code.
func ExampleStore_Schedules() {
	store := pgqrs.New(db, pgqrs.Postgres)
	list, err := store.Schedules(ctx)
	if err != nil {
		panic(err)
	}
	for _, s := range list {
		fmt.Println(s.Name, s.Rule, s.Zone, "runs next", s.NextAt)
		if s.Last != nil && s.Last.MessageState == pgqrs.Dead {
			if _, err := store.RunSchedule(ctx, s.Name); err != nil {
				panic(err)
			}
		}
	}
	if err := store.PauseSchedule(ctx, "digest"); err != nil {
		panic(err)
	}
}

// An Order is the input of the example workflow, and a Receipt is its result.
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
func remind(context.Context, Order) error                 { return nil }
func looksLikeFraud(context.Context, Order) (bool, error) { return false, nil }

// A workflow is a name and two types. A program that only starts runs needs nothing else.
var checkout = pgqrs.NewWorkflow[Order, Receipt](pgqrs.New(db, pgqrs.Postgres), "checkout")

// Approved is the signal that the back office sends.
const Approved pgqrs.Signal[bool] = "approved"

// runCheckout is the function of checkout. It survives crashes, deployments and long waits: it runs
// again from its beginning, with the recorded results.
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

// Start a run for the order in one transaction, and wait for its result.
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

// A signal can be sent before the run waits for it, from any program that knows the run's id.
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

// Undo what was done when the run fails or is cancelled. ErrSuspended is neither: the run continues
// later, and nothing must be undone.
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

// A child is started exactly once, and its parent occupies no worker while the child runs. Children
// starts many children and waits for all of them.
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

// In a loop, name each step after its item, not after the number of the iteration. After a restart
// the items may come in another order.
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

// A branch that waits does not stop the others.
func ExampleRun_All() {
	_ = checkout.Handle(func(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
		var receipt Receipt
		err := run.All(ctx,
			func(ctx context.Context) (err error) {
				receipt.Charge, err = pgqrs.Step(ctx, run, "charge", func(ctx context.Context) (string, error) { return charge(ctx, o) })
				return err
			},
			func(ctx context.Context) error {
				if err := run.Sleep(ctx, "remind later", 24*time.Hour); err != nil {
					return err
				}
				return run.Do(ctx, "remind", func(ctx context.Context) error { return remind(ctx, o) })
			},
		)
		return receipt, err
	})
}

// Select waits for the first of several signals, or for a time to pass.
func ExampleRun_Select() {
	const rejected pgqrs.Signal[string] = "rejected"
	_ = checkout.Handle(func(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
		var why string
		at, err := run.Select(ctx, "answer", Approved.Case(nil), rejected.Case(&why), pgqrs.After(24*time.Hour))
		switch {
		case err != nil:
			return Receipt{}, err
		case at == 1:
			return Receipt{}, pgqrs.Permanent(errors.New("rejected: " + why))
		case at == 2:
			return Receipt{}, pgqrs.Permanent(errors.New("nobody has answered"))
		}
		charged, err := pgqrs.Step(ctx, run, "charge", func(ctx context.Context) (string, error) { return charge(ctx, o) })
		return Receipt{Charge: charged}, err
	})
}

// With Version, runs that are in progress keep the code that they began with.
func ExampleRun_Version() {
	_ = checkout.Handle(func(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
		version, err := run.Version(ctx, "fraud-check", 1)
		if err != nil {
			return Receipt{}, err
		}
		if version >= 1 { // runs that began before the change get 0
			fraud, err := pgqrs.Step(ctx, run, "fraud", func(ctx context.Context) (bool, error) { return looksLikeFraud(ctx, o) })
			if err != nil || fraud {
				return Receipt{}, errors.Join(err, errors.New("order is refused"))
			}
		}
		return runCheckout(ctx, run, o)
	})
}

// Steps that call an unreliable service get a policy of their own. The run occupies no worker
// between their attempts.
func ExampleRun_With() {
	_ = checkout.Handle(func(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
		patient := run.With(pgqrs.Policy{MaxAttempts: 20, Backoff: pgqrs.Exponential(time.Second, time.Hour), Timeout: time.Minute})
		paid, err := pgqrs.Step(ctx, patient, "charge", func(ctx context.Context) (string, error) {
			id, err := charge(ctx, o)
			if errors.Is(err, errCardDeclined) {
				return "", pgqrs.Permanent(err) // trying again would not help
			}
			return id, err
		})
		return Receipt{Charge: paid}, err
	})
}

var errCardDeclined = errors.New("card is declined")

// List the runs that failed, find the failed step, and let them continue from that step.
func ExampleRunHandle_Retry() {
	store := pgqrs.New(db, pgqrs.Postgres)
	failed, err := store.Runs(ctx, pgqrs.RunFilter{Workflow: "checkout", Status: pgqrs.Failed})
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

// StepTx records the result of a step in the transaction of its work, so that both happen once.
func ExampleStepTx() {
	handler := checkout.Handle(func(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
		id, err := pgqrs.StepTx(ctx, run, "invoice", func(ctx context.Context, tx *sql.Tx) (int64, error) {
			var id int64
			err := tx.QueryRowContext(ctx, "INSERT INTO invoices (order_id, cents) VALUES ($1, $2) RETURNING id", o.ID, o.Cents).Scan(&id)
			return id, err
		})
		return Receipt{Charge: fmt.Sprint("invoice ", id)}, err
	})
	_ = handler
}

// Sleep holds no worker, and goes on across restarts.
func ExampleRun_Sleep() {
	handler := checkout.Handle(func(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
		if err := run.Sleep(ctx, "cooling-off", 14*24*time.Hour); err != nil {
			return Receipt{}, err // it matches ErrSuspended until the time has passed
		}
		charged, err := pgqrs.Step(ctx, run, "charge", func(ctx context.Context) (string, error) { return charge(ctx, o) })
		return Receipt{Charge: charged}, err
	})
	_ = handler
}

// Wait returns ErrTimeout if no signal arrives in time. ErrSuspended is no answer: return it.
func ExampleSignal_Wait() {
	handler := checkout.Handle(func(ctx context.Context, run *pgqrs.Run, o Order) (Receipt, error) {
		approved, err := Approved.Wait(ctx, run, 24*time.Hour)
		switch {
		case errors.Is(err, pgqrs.ErrTimeout):
			approved = o.Cents < 10_000 // nobody answered
		case err != nil:
			return Receipt{}, err
		}
		if !approved {
			return Receipt{}, pgqrs.Permanent(errors.New("not approved"))
		}
		charged, err := pgqrs.Step(ctx, run, "charge", func(ctx context.Context) (string, error) { return charge(ctx, o) })
		return Receipt{Charge: charged}, err
	})
	_ = handler
}

// MaxLeased and Rate hold in all processes together.
func ExamplePolicy() {
	store := pgqrs.New(db, pgqrs.Postgres)
	emails := pgqrs.NewQueue[Email](store, "emails").With(pgqrs.Policy{
		MaxAttempts: 10,
		Timeout:     30 * time.Second,
		DeadLetter:  "emails-dead",
		MaxLeased:   20,                                   // messages at a time
		Rate:        pgqrs.Rate{N: 100, Per: time.Minute}, // deliveries that begin
	})
	if err := emails.Configure(ctx); err != nil { // a Worker that handles the queue does this too
		panic(err)
	}
}

// A handler decides by its error when a message is tried again, and whether it is.
func ExamplePermanent() {
	store := pgqrs.New(db, pgqrs.Postgres)
	handler := pgqrs.NewQueue[Email](store, "emails").Handle(func(ctx context.Context, m *pgqrs.Message[Email]) error {
		if m.Payload.To == "" {
			return pgqrs.Permanent(errors.New("no recipient")) // dead at once
		}
		return send(ctx, m.Payload) // after an error, again by the policy's Backoff
	})
	_ = handler
}

// RetryAfter replaces the policy's Backoff for one failure.
func ExampleRetryAfter() {
	errBusy := errors.New("the mail server is busy")
	store := pgqrs.New(db, pgqrs.Postgres)
	handler := pgqrs.NewQueue[Email](store, "emails").Handle(func(ctx context.Context, m *pgqrs.Message[Email]) error {
		err := send(ctx, m.Payload)
		if errors.Is(err, errBusy) {
			return pgqrs.RetryAfter(10*time.Minute, err)
		}
		return err
	})
	_ = handler
}

// Snooze puts a message off, and the attempt does not count.
func ExampleSnooze() {
	store := pgqrs.New(db, pgqrs.Postgres)
	handler := pgqrs.NewQueue[Email](store, "emails").Handle(func(ctx context.Context, m *pgqrs.Message[Email]) error {
		if hour := time.Now().Hour(); hour < 8 {
			return pgqrs.Snooze(time.Duration(8-hour) * time.Hour)
		}
		return send(ctx, m.Payload)
	})
	_ = handler
}

// Key returns the message that is there, and Unique an error with its id.
func ExampleUnique() {
	emails := pgqrs.NewQueue[Email](pgqrs.New(db, pgqrs.Postgres), "emails")
	welcome := Email{To: "ada@example.com", Subject: "Welcome"}
	id, err := emails.Enqueue(ctx, welcome, pgqrs.Key("welcome-42"))
	if err != nil {
		panic(err)
	}
	again, err := emails.Enqueue(ctx, welcome, pgqrs.Unique("welcome-42"))
	if errors.Is(err, pgqrs.ErrDuplicate) {
		fmt.Println("the message is there already:", id == again)
	}
}

// Each gives every message of a batch options of its own.
func ExampleEach() {
	emails := pgqrs.NewQueue[Email](pgqrs.New(db, pgqrs.Postgres), "emails")
	users := []string{"ada@example.com", "grace@example.com"}
	var batch []Email
	for _, user := range users {
		batch = append(batch, Email{To: user, Subject: "News"})
	}
	_, err := emails.EnqueueBatch(ctx, batch, pgqrs.Each(func(i int) []pgqrs.Option {
		return []pgqrs.Option{pgqrs.Key("news-12-" + users[i]), pgqrs.Delay(time.Duration(i) * time.Second)}
	}))
	if err != nil {
		panic(err)
	}
}

// Headers go along with a message, and are not part of its payload.
func ExampleHeaders() {
	emails := pgqrs.NewQueue[Email](pgqrs.New(db, pgqrs.Postgres), "emails")
	_, err := emails.Enqueue(ctx, Email{To: "ada@example.com"}, pgqrs.Headers(map[string]string{"tenant": "acme"}))
	if err != nil {
		panic(err)
	}
	handler := emails.Handle(func(ctx context.Context, m *pgqrs.Message[Email]) error {
		log.Print("for tenant ", m.Headers["tenant"])
		return send(ctx, m.Payload)
	})
	_ = handler
}

// An Observer counts what happens. The module otelpgqrs has one for OpenTelemetry.
func ExampleObserver() {
	store := pgqrs.Config{Observer: &pgqrs.Observer{
		Finished: func(ctx context.Context, m *pgqrs.MessageInfo, took time.Duration, err error) {
			log.Printf("queue %s: message %d took %v, attempt %d: %v", m.Queue, m.ID, took, m.Attempt, err)
		},
	}}.New(db, pgqrs.Postgres)
	_ = store
}

// A bell wakes the workers of this process. Workers of others poll. The module notifypgqrs has a
// Notifier for all processes, by LISTEN and NOTIFY.
type bell chan string

func (b bell) Notify(_ context.Context, _ pgqrs.Tx, queue string) error {
	select {
	case b <- queue:
	default: // nobody listens, or not fast enough: workers poll as well
	}
	return nil
}

func (b bell) Listen(ctx context.Context, wake func(queue string)) error {
	wake("") // what was enqueued before
	for {
		select {
		case queue := <-b:
			wake(queue)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A Notifier saves workers the wait for their next poll.
func ExampleNotifier() {
	store := pgqrs.Config{Notifier: make(bell, 100)}.New(db, pgqrs.Postgres)
	_ = store
}

// Middleware wraps every handler of a worker.
func ExampleWorker_middleware() {
	logged := func(next pgqrs.WorkFunc) pgqrs.WorkFunc {
		return func(ctx context.Context, m *pgqrs.MessageInfo) error {
			err := next(ctx, m)
			if err != nil && !errors.Is(err, pgqrs.ErrSnoozed) && !errors.Is(err, pgqrs.ErrSuspended) {
				log.Printf("queue %s: message %d: %v", m.Queue, m.ID, err)
			}
			return err
		}
	}
	worker := &pgqrs.Worker{Middleware: []func(pgqrs.WorkFunc) pgqrs.WorkFunc{logged}}
	_ = worker
}

// Messages lists a page at a time, each from the cursor of the last message before.
func ExampleStore_Messages() {
	store := pgqrs.New(db, pgqrs.Postgres)
	filter := pgqrs.MessageFilter{Queue: "emails", State: pgqrs.Dead, Limit: 50}
	for {
		page, err := store.Messages(ctx, filter)
		if err != nil {
			panic(err)
		}
		if len(page) == 0 {
			break
		}
		for _, m := range page {
			fmt.Println(m.ID, m.Attempt, m.LastError)
		}
		filter.After = page[len(page)-1].Cursor
	}
}

// Verify changes nothing, and says what is wrong with the database or the schema.
func ExampleStore_Verify() {
	report, err := pgqrs.New(db, pgqrs.Postgres).Verify(ctx)
	if err != nil {
		panic(err)
	}
	if !report.OK() {
		log.Fatalf("install the schema first: it lacks %q", report.Missing)
	}
	for _, warning := range report.Warnings {
		log.Print(warning)
	}
}

// Migrations are files for a tool of the application's own, in place of Install.
func ExampleDialect_Migrations() {
	files, err := fs.Glob(pgqrs.SQLite.Migrations(), "*.sql")
	if err != nil {
		panic(err)
	}
	fmt.Println(files[0])
	// Output: 0001_tables.up.sql
}
