package pgqrs_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// insertAll writes rows by one statement, and says which were refused.
func insertAll(context.Context, []Email) (refused map[int]error, err error) { return nil, nil }

// A handler of batches takes up to 500 messages at once, or what there is
// after 200 ms. Each has an outcome of its own.
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
			return err // all are tried again, one by one
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

// A BatchError matches what its messages failed with.
func ExampleBatchError() {
	err := error(pgqrs.BatchError{7: errors.New("no such address"), 9: pgqrs.Permanent(errors.New("blocked")), 8: nil})
	fmt.Println(err, errors.Is(err, pgqrs.ErrPermanent))
	// Output: pgqrs: 2 messages of a batch failed: message 7: no such address; message 9: blocked true
}
