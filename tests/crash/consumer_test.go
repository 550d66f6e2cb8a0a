//go:build unix

package crash_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// work runs a Worker and records each delivery in the ledger.
func (c *child) work(ctx context.Context) error {
	w := &pgqrs.Worker{
		Handlers: []pgqrs.Handler{
			c.queue(plain).Handle(handlePlain),
			c.queue(booked).HandleTx(handleBooked),
			c.workflow().Handle(runOrder),
		},
		Middleware:   []func(pgqrs.WorkFunc) pgqrs.WorkFunc{c.writeDown},
		Concurrency:  6,
		Lease:        lease,
		PollInterval: 50 * time.Millisecond,
		Grace:        10 * time.Second,
	}
	return w.Run(ctx)
}

func (c *child) writeDown(next pgqrs.WorkFunc) pgqrs.WorkFunc {
	return func(ctx context.Context, m *pgqrs.MessageInfo) error {
		c.ledger.write(claimOf(m))
		err := next(ctx, m)
		c.ledger.write(entry{Event: ended, ID: m.ID, Claim: m.Claim, At: time.Now()})
		return err
	}
}

func claimOf(m *pgqrs.MessageInfo) entry {
	return entry{Event: claimed, Queue: m.Queue, ID: m.ID, Worker: m.WorkerID, Claim: m.Claim, Attempt: m.Attempt, Until: m.LeasedUntil}
}

// errSpurious makes the library deliver a message again.
var errSpurious = errors.New("failed for the sake of the test")

func spurious() error {
	if rand.IntN(20) == 0 {
		return errSpurious
	}
	return nil
}

func handlePlain(ctx context.Context, m *pgqrs.Message[task]) error {
	if m.Payload.Slow {
		spend(ctx, lease*3/2)
	} else {
		spend(ctx, time.Duration(rand.IntN(5))*time.Millisecond)
	}
	return spurious()
}

func handleBooked(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[task]) error {
	if _, err := tx.ExecContext(ctx, insertEffect, bookedEffect, m.ID, m.Claim); err != nil {
		return err
	}
	return spurious()
}

// runOrder has a step, and two steps in transactions with a wait between them. Another process may
// take the run over during the wait.
func runOrder(ctx context.Context, run *pgqrs.Run, a amount) (r receipt, err error) {
	run = run.With(policy)
	if r.Price, err = pgqrs.Step(ctx, run, "price", func(context.Context) (int, error) { return a.price(), spurious() }); err != nil {
		return r, err
	}
	r.Reserved, err = pgqrs.StepTx(ctx, run, "reserve", func(ctx context.Context, tx *sql.Tx) (int, error) {
		return a.reserved(), effect(ctx, tx, reserveEffect, run.ID())
	})
	if err != nil {
		return r, err
	}
	if err := run.Sleep(ctx, "cool off", 20*time.Millisecond); err != nil {
		return r, err
	}
	return r, run.DoTx(ctx, "book", func(ctx context.Context, tx *sql.Tx) error { return effect(ctx, tx, bookEffect, run.ID()) })
}

// effect writes an effect, and sometimes fails afterwards, which undoes the effect.
func effect(ctx context.Context, tx *sql.Tx, kind string, run int64) error {
	if _, err := tx.ExecContext(ctx, insertEffect, kind, run, 0); err != nil {
		return err
	}
	return spurious()
}

// consume dequeues messages on four goroutines that share one worker row.
func (c *child) consume(ctx context.Context) error {
	queue := c.queue(byHand)
	var all sync.WaitGroup
	for n := range uint64(4) {
		all.Go(func() {
			random := c.random(n)
			for ctx.Err() == nil {
				ms, err := queue.Dequeue(ctx, 1+random.IntN(5), lease)
				if err != nil {
					complain(ctx, err)
				}
				for _, m := range ms {
					c.ledger.write(claimOf(&m.MessageInfo))
				}
				for _, m := range ms {
					if err := c.settle(ctx, random, queue, m); err != nil && !errors.Is(err, pgqrs.ErrLeaseLost) {
						complain(ctx, err)
					}
				}
				if len(ms) == 0 {
					spend(ctx, 20*time.Millisecond)
				}
			}
		})
	}
	all.Wait()
	return nil
}

// settle makes one of the calls that are possible for a leased message, sometimes too late.
func (c *child) settle(ctx context.Context, random *rand.Rand, queue *pgqrs.Queue[task], m *pgqrs.Message[task]) error {
	switch random.IntN(20) {
	case 0:
		spend(ctx, lease+lease/4)
	case 1, 2:
		spend(ctx, lease/4)
		from := time.Now()
		if err := queue.Extend(ctx, lease, m); err != nil {
			return err
		}
		c.ledger.write(entry{Event: extended, ID: m.ID, Claim: m.Claim, Until: from.Add(lease)})
	}
	c.ledger.write(entry{Event: ended, ID: m.ID, Claim: m.Claim, At: time.Now()})
	switch random.IntN(8) {
	case 0:
		return queue.Release(ctx, 10*time.Millisecond, m)
	case 1:
		return queue.Fail(ctx, errSpurious, m)
	case 2, 3:
		if err := c.ackTx(ctx, queue, m); err != nil {
			return err
		}
	default:
		if err := queue.Ack(ctx, m); err != nil {
			return err
		}
	}
	c.ledger.write(entry{Event: acked, ID: m.ID, Claim: m.Claim})
	return nil
}

// ackTx acks a message in a transaction with an effect.
func (c *child) ackTx(ctx context.Context, queue *pgqrs.Queue[task], m *pgqrs.Message[task]) error {
	tx, err := c.store.DB().BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, insertEffect, ackedEffect, m.ID, m.Claim); err != nil {
		return err
	}
	if err := queue.WithTx(tx).Ack(ctx, m); err != nil {
		return err
	}
	return tx.Commit()
}
