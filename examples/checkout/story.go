package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// tell prints the progress of a run's steps until the run has ended, and lets the people act at the
// right moment.
func (c *checkout) tell(ctx context.Context, store *pgqrs.Store, run *pgqrs.RunHandle[Receipt]) error {
	told := map[string]string{} // by step
	for {
		info, err := run.Info(ctx)
		if err != nil {
			return err
		}
		steps, err := run.Steps(ctx)
		if err != nil {
			return err
		}
		for _, step := range steps {
			line := describe(step)
			if told[step.Name] == line {
				continue
			}
			fmt.Fprintf(c.out, "  %-12s%s\n", step.Name, line)
			if err := c.act(ctx, store, run, step); err != nil {
				return err
			}
			told[step.Name] = line
		}
		if !info.EndedAt.IsZero() {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func describe(s pgqrs.StepInfo) string {
	switch {
	case s.Status == pgqrs.Running:
		return "sleeps"
	case s.Status == pgqrs.Paused:
		return "waits"
	case s.Status == pgqrs.Failed && s.EndedAt.IsZero():
		return fmt.Sprintf("failed %d×, will be tried again: %s", s.Retries, s.Error)
	case s.Status == pgqrs.Failed:
		return "failed: " + s.Error
	}
	return strings.TrimSpace("done " + string(s.Output))
}

// act plays the customer, who may cancel during the cool-off, and the shopkeeper, who answers when
// asked. A signal could also be sent before the run waits for it.
func (c *checkout) act(ctx context.Context, store *pgqrs.Store, run *pgqrs.RunHandle[Receipt], step pgqrs.StepInfo) error {
	switch {
	case c.cancel && step.Name == "cool-off" && step.Status == pgqrs.Running:
		fmt.Fprintln(c.out, "The customer cancels.")
		return run.Cancel(ctx)
	case step.Name == "approved#1" && step.Status == pgqrs.Paused:
		answer := map[bool]string{true: "rejects", false: "approves"}[c.reject]
		fmt.Fprintf(c.out, "The shopkeeper %s.\n", answer)
		return Approved.Send(ctx, store, run.ID(), !c.reject)
	}
	return nil
}

// conclude prints the receipt, or why there is none, and the shop's books.
func (c *checkout) conclude(ctx context.Context, run *pgqrs.RunHandle[Receipt], o Order) error {
	receipt, err := run.Result(ctx)
	var failed *pgqrs.RunError
	switch {
	case err == nil:
		fmt.Fprintf(c.out, "Receipt: %d cents by %s, sent as %v.\n", receipt.Cents, receipt.Payment, receipt.Parcels)
	case errors.Is(err, pgqrs.ErrCancelled), errors.As(err, &failed):
		fmt.Fprintf(c.out, "Not sold: %v.\n", err)
	default:
		return err
	}
	b, err := c.shop.books(ctx, o.Number)
	fmt.Fprintf(c.out, "The shop's books on it: %d cents received, %d refunded, %d items reserved, %d shipped.\n", b.received, b.refunded, b.reserved, b.shipped)
	return err
}
