package faults_test

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// An application works on a database that fails. It enqueues orders, which a Worker books in a
// transaction with their ack. It enqueues mails, which are handled without a transaction. It starts
// runs, which book twice. Every tenth order and mail is bad, so it must become a dead letter and
// leave no booking.
//
// A booking is a row in a table without constraints, so that a second booking is visible.
type application struct {
	name          string // of its runs' keys
	log           *journal
	store         *pgqrs.Store // of the producers
	orders, mails *pgqrs.Queue[item]
	runs          *pgqrs.Workflow[item, int]

	back *pgqrs.Store // of the Worker, which notices messages only by polling the database

	pace pace

	producing, stop func() // stop the producers, and the Worker
	working         chan error

	handled atomic.Int64 // messages, to watch the progress
	sent    atomic.Int64 // items

	mu sync.Mutex
	receipts
	failures []error // of the producers
}

// A receipts has the acknowledgements that the producers received.
type receipts struct {
	Bad     map[int64]bool // messages whose ids were returned, and whether they are bad
	Started []int64        // runs whose ids were returned
}

// A pace is the speed of an application. The zero value works as fast as possible, with leases of
// the default length.
type pace struct {
	Sends  time.Duration // between two calls of a producer, or 0 for 5 ms
	Lease  time.Duration
	Orders time.Duration // of work on each, after its booking
}

// An item is the payload of messages and the input of runs.
type item struct {
	N   int64
	Bad bool
}

const (
	callTimeout = 2 * time.Second // of a producer's call
	producers   = 3
)

// newApplication installs the tables and returns an application.
func newApplication(ctx context.Context, db *sql.DB, d pgqrs.Dialect, c pgqrs.Config, name string) (*application, error) {
	a := &application{name: name, log: &journal{}, receipts: receipts{Bad: map[int64]bool{}}, working: make(chan error, 1)}
	c.Logger = slog.New(slog.NewTextHandler(a.log, nil))
	a.store, a.back = c.New(db, d), c.New(db, d)
	a.orders = pgqrs.NewQueue[item](a.store, "orders")
	a.mails = pgqrs.NewQueue[item](a.store, "mails")
	a.runs = pgqrs.NewWorkflow[item, int](a.store, "runs")
	if err := a.store.Install(ctx); err != nil {
		return nil, err
	}
	_, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS bookings (kind TEXT NOT NULL, id BIGINT NOT NULL)")
	return a, err
}

// start starts the Worker and the producers.
func (a *application) start() {
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	worker := &pgqrs.Worker{Lease: a.pace.Lease, PollInterval: 50 * time.Millisecond, Handlers: []pgqrs.Handler{
		pgqrs.NewQueue[item](a.back, "orders").HandleTx(a.bookOrder),
		pgqrs.NewQueue[item](a.back, "mails").Handle(a.sendMail),
		pgqrs.NewWorkflow[item, int](a.back, "runs").Handle(a.run),
	}}
	go func() { a.working <- worker.Run(ctx) }()
	a.produce()
}

// close closes the Stores.
func (a *application) close() error { return errors.Join(a.store.Close(), a.back.Close()) }

func (a *application) produce() {
	ctx, stop := context.WithCancel(context.Background())
	var producing sync.WaitGroup
	a.producing = func() { stop(); producing.Wait() }
	for range producers {
		producing.Go(func() {
			tick := time.NewTicker(cmp.Or(a.pace.Sends, 5*time.Millisecond))
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					a.send(a.sent.Add(1))
				}
			}
		})
	}
}

// send makes one call of a producer. The end of the producer does not cancel the call, because a
// cancelled call would not show whether it hangs.
func (a *application) send(n int64) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	var ids []int64
	var run int64
	var err error
	it := item{n, n%10 == 0}
	switch n % 8 {
	case 0:
		var h *pgqrs.RunHandle[int]
		if h, err = a.runs.Start(ctx, item{N: n}, pgqrs.Key(fmt.Sprintf("%s %d", a.name, n))); err == nil {
			run = h.ID()
		}
	case 1, 2, 3:
		ids, err = one(a.mails.Enqueue(ctx, it))
	case 4:
		ids, err = a.orders.EnqueueBatch(ctx, []item{it, it, it})
	default:
		ids, err = one(a.orders.Enqueue(ctx, it))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.failures = append(a.failures, err)
		return
	}
	for _, id := range ids {
		a.Bad[id] = it.Bad
	}
	if run != 0 {
		a.Started = append(a.Started, run)
	}
}

func one(id int64, err error) ([]int64, error) { return []int64{id}, err }

var errBad = pgqrs.Permanent(errors.New("a bad item"))

func (a *application) bookOrder(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[item]) error {
	defer a.handled.Add(1)
	if err := book(ctx, tx, "order", m.ID); err != nil {
		return err
	}
	if m.Payload.Bad {
		return errBad
	}
	work := time.NewTimer(a.pace.Orders)
	defer work.Stop()
	select {
	case <-work.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *application) sendMail(ctx context.Context, m *pgqrs.Message[item]) error {
	defer a.handled.Add(1)
	if m.Payload.Bad {
		return errBad
	}
	return nil
}

func (a *application) run(ctx context.Context, run *pgqrs.Run, it item) (int, error) {
	defer a.handled.Add(1)
	err := run.DoTx(ctx, "reserve", func(ctx context.Context, tx *sql.Tx) error { return book(ctx, tx, "reserve", run.ID()) })
	if err != nil {
		return 0, err
	}
	price, err := pgqrs.Step(ctx, run, "price", func(context.Context) (int, error) { return int(it.N), nil })
	if err != nil {
		return 0, err
	}
	if err := run.Sleep(ctx, "a moment", 20*time.Millisecond); err != nil {
		return 0, err
	}
	return pgqrs.StepTx(ctx, run, "charge", func(ctx context.Context, tx *sql.Tx) (int, error) {
		return price, book(ctx, tx, "charge", run.ID())
	})
}

func book(ctx context.Context, tx *sql.Tx, kind string, id int64) error {
	_, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO bookings (kind, id) VALUES ('%s', %d)", kind, id))
	return err
}
