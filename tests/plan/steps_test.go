//go:build unix

package plan_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

// fenced are the statements of a single run.
const fenced = "run.start step.open step.close step.save step.batch_save run.end"

// fillHeld leases many more messages to the worker of a message. Their leases end before the
// message's lease.
const fillHeld = `
	INSERT INTO pgqrs_messages (queue_id, payload, vt, consumer_worker_id, claim_ct)
	SELECT m.queue_id, m.payload, now() + interval '10 min', m.consumer_worker_id, 1
	FROM pgqrs_messages m CROSS JOIN generate_series(1, 20000) AS i
	WHERE m.consumer_worker_id IS NOT NULL`

// abreast is how many steps a run executes at once, so that some are recorded by one statement.
const abreast = 4

func stepsAbreast(ctx context.Context, run *pgqrs.Run, moment string) error {
	var all sync.WaitGroup
	errs := make([]error, abreast)
	for i := range abreast {
		all.Go(func() {
			errs[i] = run.Do(ctx, fmt.Sprint("pack ", i, " ", moment), func(context.Context) error { return nil })
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// The statements of a run are fenced by the lease on its message. They must find the message by its
// id. A worker may hold many messages, and after a vacuum while the queue is idle the planner takes
// the workers' index for empty.
func TestStepsReadNoOtherMessagesOnPostgres(t *testing.T) {
	t.Run("a new database", func(t *testing.T) { readsNoOtherMessages(t) })
	t.Run("after a vacuum", func(t *testing.T) {
		readsNoOtherMessages(t, `INSERT INTO pgqrs_messages (queue_id, payload, archived_at) SELECT id, '1', now() FROM pgqrs_queues CROSS JOIN generate_series(1, 20000)`, "VACUUM ANALYZE")
	})
}

func readsNoOtherMessages(t *testing.T, before ...string) {
	c, err := pq.NewConnector(postgres.Schema(t, "postgres"))
	must(t, err)
	p := &postgresPlans{t: t, check: func(tag, kind, raw string) error {
		var explained []struct{ Plan node }
		if err := json.Unmarshal([]byte(raw), &explained); err != nil {
			return err
		}
		plan := explained[0].Plan
		limit := int64(60)
		if tag == "step.batch_save" {
			limit *= abreast
		}
		_, rows := plan.most("pgqrs_messages")
		if pages := plan.Hit + plan.Read; strings.Contains(fenced, tag) && (pages > limit || rows > abreast) {
			t.Errorf("%s, %s, reads %d messages and %d pages\n%s", tag, kind, rows, pages, raw)
		}
		return nil
	}}
	w := &watcher{Connector: c, look: p.look}
	w.reset()
	db := watchedDB(t, w)
	exec := func(text string) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), text)
		must(t, err)
	}
	s := pgqrs.Config{NoPrepare: true}.New(db, pgqrs.Postgres)
	must(t, s.Install(t.Context()))
	exec(`ALTER TABLE pgqrs_messages SET (autovacuum_enabled = off)`)
	exec(`INSERT INTO pgqrs_queues (queue_name) VALUES ('done')`)
	for _, text := range before {
		exec(text)
	}
	exec(`SET plan_cache_mode = force_generic_plan`)

	flow := pgqrs.NewWorkflow[int, int](s, "orders")
	work := flow.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (int, error) {
		var last int
		for _, moment := range []string{"before", "after"} { // plans are made in the first moment
			if err := run.DoTx(ctx, "reserve "+moment, func(context.Context, *sql.Tx) error { return nil }); err != nil {
				return 0, err
			}
			var err error
			if last, err = pgqrs.Step(ctx, run, "charge "+moment, func(context.Context) (int, error) { return 7, nil }); err != nil {
				return 0, err
			}
			if err := stepsAbreast(ctx, run, moment); err != nil {
				return 0, err
			}
			if moment == "before" {
				exec(fillHeld)
			}
		}
		return last, nil
	})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- (&pgqrs.Worker{Handlers: []pgqrs.Handler{work}, Lease: time.Hour}).Run(ctx) }()
	value(value(flow.Start(ctx, 1))(t).Result(ctx))(t)
	stop()
	must(t, <-done)
	for _, tag := range strings.Fields(fenced) {
		if !w.has(tag) {
			t.Errorf("%s was not sent", tag)
		}
	}
}
