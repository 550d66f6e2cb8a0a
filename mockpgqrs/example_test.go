package mockpgqrs_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/mockpgqrs"
)

// A Purchase is an order of the shop in these examples.
type Purchase struct{ Item string }

const Paid pgqrs.Signal[bool] = "paid"

var ctx = context.Background()

// newShop returns a mock, and the queue and the workflow of a shop on it.
func newShop(d pgqrs.Dialect) (sqlmock.Sqlmock, *sql.DB, *pgqrs.Queue[Purchase], *pgqrs.Workflow[Purchase, string]) {
	db, mock, err := sqlmock.New()
	if err != nil {
		panic(err)
	}
	store := pgqrs.New(db, d)
	return mock, db, pgqrs.NewQueue[Purchase](store, "packing"), pgqrs.NewWorkflow[Purchase, string](store, "orders")
}

// An application stores an order and enqueues its packing in one transaction.
func Example() {
	mock, db, packing, _ := newShop(pgqrs.Postgres)
	place := func(order Purchase) error { // the code that is tested
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (item) VALUES ($1)", order.Item); err != nil {
			return err
		}
		if _, err := packing.WithTx(tx).Enqueue(ctx, order, pgqrs.Group(order.Item)); err != nil {
			return err
		}
		return tx.Commit()
	}

	mock.ExpectBegin()
	mock.ExpectExec("INSERT INTO orders").WithArgs("teapot").WillReturnResult(sqlmock.NewResult(1, 1))
	mockpgqrs.ExpectEnqueueGroup(mockpgqrs.WithTx(mock), pgqrs.Postgres, 7)
	mock.ExpectCommit()
	fmt.Println(place(Purchase{"teapot"}), mock.ExpectationsWereMet())
	// Output: <nil> <nil>
}

func ExampleWithTx() {
	mock, db, _, orders := newShop(pgqrs.SQLite)
	mock.ExpectBegin()
	mockpgqrs.ExpectStartKey(mockpgqrs.WithTx(mock), pgqrs.SQLite, 5)
	mock.ExpectCommit()

	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		panic(err)
	}
	_, err = orders.WithTx(tx).Start(ctx, Purchase{"teapot"}, pgqrs.Key("order 1"))
	fmt.Println(err, tx.Commit(), mock.ExpectationsWereMet())
	// Output: <nil> <nil> <nil>
}

func ExampleExpectEnqueue() {
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectEnqueue(mock, pgqrs.Postgres, 7).
		WithArgs("packing", `{"Item":"teapot"}`, 0, nil, 0, nil, nil)

	fmt.Println(packing.Enqueue(ctx, Purchase{"teapot"}))
	// Output: 7 <nil>
}

func ExampleExpectEnqueue_error() {
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectEnqueue(mock, pgqrs.Postgres, 7).WillReturnError(errors.New("disk full"))

	_, err := packing.Enqueue(ctx, Purchase{"teapot"})
	fmt.Println(err)
	// Output: pgqrs: enqueue on queue "packing": disk full
}

func ExampleExpectEnqueueDuplicate() {
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectEnqueueDuplicate(mock, pgqrs.Postgres, "order 1", 7)

	id, err := packing.Enqueue(ctx, Purchase{"teapot"}, pgqrs.Unique("order 1"))
	fmt.Println(id, errors.Is(err, pgqrs.ErrDuplicate))
	// Output: 7 true
}

func ExampleExpectEnqueueGroup() {
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectEnqueueGroup(mock, pgqrs.Postgres, 7)

	fmt.Println(packing.Enqueue(ctx, Purchase{"teapot"}, pgqrs.Group("ada")))
	// Output: 7 <nil>
}

func ExampleExpectEnqueueBatch() {
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectEnqueueBatch(mock, pgqrs.Postgres, 7, 8)

	fmt.Println(packing.EnqueueBatch(ctx, []Purchase{{"teapot"}, {"cup"}}))
	// Output: [7 8] <nil>
}

func ExampleExpectEnqueueBatchOptions() {
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectEnqueueBatchOptions(mock, pgqrs.Postgres, nil, 7, 8)

	fmt.Println(packing.EnqueueBatch(ctx, []Purchase{{"teapot"}, {"cup"}}, pgqrs.Delay(time.Hour)))
	// Output: [7 8] <nil>
}

func ExampleExpectDequeue() {
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectFirstDequeue(mock, pgqrs.Postgres, mockpgqrs.Message(7, Purchase{"teapot"}))
	mockpgqrs.ExpectAck(mock, pgqrs.Postgres, 7)
	mockpgqrs.ExpectDequeue(mock, pgqrs.Postgres) // returns no messages

	for {
		ms, err := packing.Dequeue(ctx, 1, time.Minute)
		if err != nil || len(ms) == 0 {
			fmt.Println(len(ms), err)
			return
		}
		fmt.Println(ms[0].Payload.Item, packing.Ack(ctx, ms...))
	}
	// Output:
	// teapot <nil>
	// 0 <nil>
}

func ExampleExpectFirstDequeue() {
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectFirstDequeue(mock, pgqrs.Postgres, mockpgqrs.Message(7, Purchase{"teapot"}))

	ms, err := packing.Dequeue(ctx, 1, time.Minute)
	fmt.Println(ms[0].ID, ms[0].Payload.Item, err)
	// Output: 7 teapot <nil>
}

func ExampleMessage() {
	m := mockpgqrs.Message(7, Purchase{"teapot"})
	m.Attempt, m.LastError = 2, "no room"
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectFirstDequeue(mock, pgqrs.Postgres, m)

	ms, err := packing.Dequeue(ctx, 1, time.Minute)
	fmt.Println(ms[0].Attempt, ms[0].LastError, err)
	// Output: 2 no room <nil>
}

func ExampleExpectAck() {
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectAck(mock, pgqrs.Postgres, 7)
	mockpgqrs.ExpectAck(mock, pgqrs.Postgres) // the lease is lost

	m := &pgqrs.Message[Purchase]{MessageInfo: mockpgqrs.Message(7, Purchase{"teapot"})}
	fmt.Println(packing.Ack(ctx, m))
	fmt.Println(errors.Is(packing.Ack(ctx, m), pgqrs.ErrLeaseLost))
	// Output:
	// <nil>
	// true
}

func ExampleExpectFail() {
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectFail(mock, pgqrs.Postgres, 7)

	m := &pgqrs.Message[Purchase]{MessageInfo: mockpgqrs.Message(7, Purchase{"teapot"})}
	fmt.Println(packing.Fail(ctx, errors.New("no room"), m))
	// Output: <nil>
}

func ExampleExpectRelease() {
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectRelease(mock, pgqrs.Postgres, 7)

	m := &pgqrs.Message[Purchase]{MessageInfo: mockpgqrs.Message(7, Purchase{"teapot"})}
	fmt.Println(packing.Release(ctx, time.Hour, m))
	// Output: <nil>
}

func ExampleExpectExtend() {
	mock, _, packing, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectExtend(mock, pgqrs.Postgres, 7)

	m := &pgqrs.Message[Purchase]{MessageInfo: mockpgqrs.Message(7, Purchase{"teapot"})}
	fmt.Println(packing.Extend(ctx, time.Hour, m))
	// Output: <nil>
}

func ExampleExpectStart() {
	mock, _, _, orders := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectStart(mock, pgqrs.Postgres, 5)

	run, err := orders.Start(ctx, Purchase{"teapot"})
	fmt.Println(run.ID(), err)
	// Output: 5 <nil>
}

func ExampleExpectStartKey() {
	mock, _, _, orders := newShop(pgqrs.SQLite)
	mockpgqrs.ExpectStartKey(mock, pgqrs.SQLite, 5)

	run, err := orders.Start(ctx, Purchase{"teapot"}, pgqrs.Key("order 1"))
	fmt.Println(run.ID(), err)
	// Output: 5 <nil>
}

func ExampleExpectStartDuplicate() {
	mock, _, _, orders := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectStartDuplicate(mock, pgqrs.Postgres, "order 1", 5)

	run, err := orders.Start(ctx, Purchase{"teapot"}, pgqrs.Key("order 1"))
	fmt.Println(run.ID(), err)
	// Output: 5 <nil>
}

func ExampleExpectStartGroup() {
	mock, _, _, orders := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectStartGroup(mock, pgqrs.Postgres, 5)

	run, err := orders.Start(ctx, Purchase{"teapot"}, pgqrs.Group("ada"))
	fmt.Println(run.ID(), err)
	// Output: 5 <nil>
}

func ExampleExpectSend() {
	mock, db, _, _ := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectSend(mock, pgqrs.Postgres, 5, "paid", "true")

	fmt.Println(Paid.Send(ctx, pgqrs.New(db, pgqrs.Postgres), 5, true))
	// Output: <nil>
}

func ExampleExpectCancel() {
	mock, _, _, orders := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectCancel(mock, pgqrs.Postgres, 5)

	fmt.Println(orders.RunHandle(5).Cancel(ctx))
	// Output: <nil>
}

func ExampleExpectRun() {
	mock, _, _, orders := newShop(pgqrs.Postgres)
	mockpgqrs.ExpectRun(mock, pgqrs.Postgres, pgqrs.RunInfo{ID: 5, Workflow: "orders", Status: pgqrs.Succeeded, Output: []byte(`"packed"`)})

	fmt.Println(orders.RunHandle(5).Result(ctx))
	// Output: packed <nil>
}

func ExampleExpectInstall() {
	mock, db, _, _ := newShop(pgqrs.SQLite)
	mockpgqrs.ExpectInstall(mock, pgqrs.SQLite)

	fmt.Println(pgqrs.New(db, pgqrs.SQLite).Install(ctx))
	// Output: <nil>
}
