package pgqrs_test

import (
	"context"
	"fmt"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A Worker is given schedules as it is given handlers. Any number of processes
// may run the same: each instant is enqueued once.
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
			// A cron text instead: Rule: cronpgqrs.MustParse("30 2 * * *"), Zone: berlin
		},
	}
	if err := worker.Run(ctx); err != nil {
		panic(err)
	}
}

// A schedule can start runs of a workflow, and make up for more than the
// latest of the instants that passed while no worker ran.
func ExampleWorkflow_Target() {
	_ = &pgqrs.Worker{
		Handlers: []pgqrs.Handler{checkout.Handle(runCheckout)},
		Schedules: []pgqrs.Schedule{
			{Name: "standing order", Rule: pgqrs.Every(7 * 24 * time.Hour), CatchUp: 4, Target: checkout.Target(Order{ID: "o-42", Cents: 1999})},
		},
	}
}

// An operator looks at schedules, holds one back and runs another again, without their code.
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
