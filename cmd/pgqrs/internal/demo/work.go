package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

type (
	mail   struct{ To, Subject string }
	report struct{ Name string }
	event  struct {
		Kind, Partner string
		N             int
	}
	order struct {
		Number, Customer string
		Cents            int
	}
)

// large reports whether an order waits for somebody to approve it.
func (o order) large() bool { return o.Cents > 45_000 }

const approved pgqrs.Signal[bool] = "approved"

func (s *Shop) handlers() []pgqrs.Handler {
	return []pgqrs.Handler{
		s.mails.Handle(sendMail), s.reports.Handle(writeReport), s.events.Handle(tellPartner),
		s.imports.Handle(func(ctx context.Context, m *pgqrs.Message[string]) error { return take(ctx, time.Second) }),
		s.orders.Handle(s.handleOrder), s.parcels.Handle(sendParcel),
	}
}

func sendMail(ctx context.Context, m *pgqrs.Message[mail]) error {
	if err := take(ctx, 200*time.Millisecond); err != nil {
		return err
	}
	if strings.HasSuffix(m.Payload.To, ".invalid") {
		return pgqrs.Permanent(fmt.Errorf("550 5.1.1 <%s>: no such mailbox", m.Payload.To))
	}
	if rand.IntN(20) == 0 {
		return errors.New("421 4.7.0 try again later")
	}
	return nil
}

func writeReport(ctx context.Context, m *pgqrs.Message[report]) error {
	return take(ctx, 4*time.Second)
}

// tellPartner fails for one of the partners, whose messages become dead letters.
func tellPartner(ctx context.Context, m *pgqrs.Message[event]) error {
	if err := take(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	if m.Payload.Partner == "partner-3" {
		return errors.New("POST https://partner-3.example/hook: 503 Service Unavailable")
	}
	return nil
}

// handleOrder is a workflow that reserves, charges, waits for the approval of a large order, and
// sends the parcel.
func (s *Shop) handleOrder(ctx context.Context, run *pgqrs.Run, o order) (string, error) {
	err := run.Do(ctx, "reserve", func(ctx context.Context) error { return take(ctx, 300*time.Millisecond) })
	if err != nil {
		return "", err
	}
	soon := run.With(pgqrs.Policy{Backoff: pgqrs.Exponential(500*time.Millisecond, 2*time.Second)})
	receipt, err := pgqrs.Step(ctx, soon, "charge", func(ctx context.Context) (string, error) { return charge(ctx, o) })
	if err != nil {
		return "", err
	}
	if o.large() {
		if _, err := approved.Wait(ctx, run, 0); err != nil {
			return "", err
		}
	}
	if err := run.Sleep(ctx, "cool-off", time.Second); err != nil {
		return "", err
	}
	label, err := s.parcels.Child(ctx, run, "parcel", o.Customer)
	return receipt + ", " + label, err
}

func charge(ctx context.Context, o order) (string, error) {
	if err := take(ctx, 400*time.Millisecond); err != nil {
		return "", err
	}
	switch {
	case o.Cents%9 == 0:
		return "", pgqrs.Permanent(errors.New("card declined: insufficient funds"))
	case rand.IntN(4) == 0:
		return "", errors.New("the bank does not answer")
	}
	return fmt.Sprintf("receipt %s over %d.%02d", o.Number, o.Cents/100, o.Cents%100), nil
}

func sendParcel(ctx context.Context, run *pgqrs.Run, to string) (string, error) {
	for _, step := range []string{"pick", "pack"} {
		if err := run.Do(ctx, step, func(ctx context.Context) error { return take(ctx, 500*time.Millisecond) }); err != nil {
			return "", err
		}
	}
	return pgqrs.Step(ctx, run, "label", func(context.Context) (string, error) { return fmt.Sprintf("label %d", run.ID()), nil })
}

// take waits for a random time between a fifth of d and d.
func take(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d/5 + rand.N(d*4/5)):
		return nil
	}
}
