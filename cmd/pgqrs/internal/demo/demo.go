// Package demo runs a small shop that fills a database with activity to look at:
//
//   - Queues fill and drain.
//   - Some mails cannot be delivered.
//   - A provider is down now and then.
//   - Partners receive events in order.
//   - Schedules write reports.
//   - Orders are workflow runs that succeed, wait, retry and fail.
package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"golang.org/x/sync/errgroup"
)

// A Shop sends mails, writes reports, sends events to partners and handles orders.
type Shop struct {
	// Interval is the time between two events of the shop. Zero means 250 ms.
	Interval time.Duration
	// Seed makes the same things happen each time, except for their timing.
	Seed uint64

	mails   *pgqrs.Queue[mail]
	reports *pgqrs.Queue[report]
	events  *pgqrs.Queue[event]
	imports *pgqrs.Queue[string]
	orders  *pgqrs.Workflow[order, string]
	parcels *pgqrs.Workflow[string, string]
}

// Run installs the tables and keeps the shop going until ctx is done.
func (s *Shop) Run(ctx context.Context, store *pgqrs.Store) error {
	if err := store.Install(ctx); err != nil {
		return err
	}
	s.open(store)
	if err := s.stock(ctx, store); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for i := range 2 {
		w := &pgqrs.Worker{Name: fmt.Sprintf("shop-%d", i+1), Handlers: s.handlers(), Schedules: s.schedules(), Concurrency: 4, Grace: time.Second}
		g.Go(func() error { return w.Run(ctx) })
	}
	g.Go(func() error { return s.produce(ctx, store) })
	return g.Wait()
}

func (s *Shop) open(store *pgqrs.Store) {
	soon := pgqrs.Exponential(500*time.Millisecond, 4*time.Second)
	s.mails = pgqrs.NewQueue[mail](store, "mails").With(pgqrs.Policy{Backoff: soon})
	s.reports = pgqrs.NewQueue[report](store, "reports").With(pgqrs.Policy{Concurrency: 1})
	s.events = pgqrs.NewQueue[event](store, "partner-events").With(pgqrs.Policy{MaxAttempts: 3, Backoff: soon})
	s.imports = pgqrs.NewQueue[string](store, "imports")
	s.orders = pgqrs.NewWorkflow[order, string](store, "order")
	s.parcels = pgqrs.NewWorkflow[string, string](store, "parcel")
}

// schedules returns the shop's schedules. An instant of one of them is a duplicate while the report
// before it is unfinished.
func (s *Shop) schedules() []pgqrs.Schedule {
	return []pgqrs.Schedule{
		{Name: "stocktaking", Rule: pgqrs.Every(10 * time.Second), Target: s.reports.Target(report{Name: "stock"}, pgqrs.Key("stock"))},
		{Name: "newsletter", Rule: pgqrs.Every(7 * 24 * time.Hour), Target: s.mails.Target(mail{To: "all@example.com", Subject: "What is new this week"}, pgqrs.Priority(-1))},
	}
}

// stock gives the shop a past: a backlog, a paused queue, and payloads that are hard to display.
func (s *Shop) stock(ctx context.Context, store *pgqrs.Store) error {
	var newsletter []mail
	for i := range 120 {
		newsletter = append(newsletter, mail{To: customer(i), Subject: "What is new this week"})
	}
	if _, err := s.mails.EnqueueBatch(ctx, newsletter, pgqrs.Priority(-1)); err != nil {
		return err
	}
	if _, err := s.imports.EnqueueBatch(ctx, []string{
		"catalogue.csv", "<script>alert('from a payload')</script>", "\x1b[31mred\x1b[0m and \u202ebackwards", "价格表.csv",
	}); err != nil {
		return err
	}
	return store.PauseQueue(ctx, "imports")
}

// produce calls happen every Interval.
func (s *Shop) produce(ctx context.Context, store *pgqrs.Store) error {
	chance := rand.New(rand.NewPCG(s.Seed, 0))
	interval := s.Interval
	if interval == 0 {
		interval = 250 * time.Millisecond
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := s.happen(ctx, store, n, chance); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// happen makes the nth thing happen.
func (s *Shop) happen(ctx context.Context, store *pgqrs.Store, n int, chance *rand.Rand) error {
	who := customer(chance.IntN(500))
	if n%15 == 0 {
		who = "nobody@example.invalid"
	}
	if _, err := s.mails.Enqueue(ctx, mail{To: who, Subject: "Your order"}, pgqrs.Headers(map[string]string{"trace": fmt.Sprintf("%016x", chance.Uint64())})); err != nil {
		return err
	}
	if n%2 == 0 {
		partner := fmt.Sprintf("partner-%d", chance.IntN(8)) // gets its events in order
		if _, err := s.events.Enqueue(ctx, event{Kind: "stock", Partner: partner, N: n}, pgqrs.Group(partner)); err != nil {
			return err
		}
	}
	if n%4 == 1 {
		o := order{Number: fmt.Sprintf("2026-%05d", n), Customer: who, Cents: 500 + chance.IntN(60_000)}
		run, err := s.orders.Start(ctx, o, pgqrs.Key(o.Number))
		if err != nil {
			return err
		}
		if o.large() && chance.IntN(3) > 0 {
			return approved.Send(ctx, store, run.ID(), true)
		}
	}
	if n%6 == 0 {
		if _, err := s.reports.Enqueue(ctx, report{Name: fmt.Sprintf("sales-%d", n)}); err != nil {
			return err
		}
	}
	if n%10 == 0 {
		_, err := s.mails.Enqueue(ctx, mail{To: who, Subject: "How did you like it?"}, pgqrs.Delay(time.Hour), pgqrs.Key("survey:"+who))
		return err
	}
	return nil
}

func customer(n int) string {
	names := []string{"ada", "bob", "cyd", "dan", "eve", "finn", "gus", "hal"}
	return fmt.Sprintf("%s.%d@example.com", names[n%len(names)], n)
}
