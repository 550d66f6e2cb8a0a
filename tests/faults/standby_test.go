//go:build unix

package faults_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

// A standby can be read. Its error of a write says that it is a standby or read-only, and Verify
// warns of it.
func TestStandby(t *testing.T) {
	server := postgres.Private(t)
	primary := pgqrs.New(open(t, "postgres", server.DSN()), pgqrs.Postgres)
	if err := primary.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := pgqrs.NewQueue[int](primary, "q").Enqueue(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := primary.DB().Close(); err != nil {
		t.Fatal(err)
	}
	if err := server.Standby(); err != nil {
		t.Fatal(err)
	}
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			s := pgqrs.New(open(t, driver, server.DSN()), pgqrs.Postgres)
			q := pgqrs.NewQueue[int](s, "q")
			handler := q.Handle(func(context.Context, *pgqrs.Message[int]) error { return nil })
			for what, do := range map[string]func() error{
				"Enqueue":              func() error { _, err := q.Enqueue(t.Context(), 1); return err },
				"Enqueue with a Group": func() error { _, err := q.Enqueue(t.Context(), 1, pgqrs.Group("g")); return err },
				"Dequeue":              func() error { _, err := q.Dequeue(t.Context(), 1, time.Minute); return err },
				"Start with a Key": func() error {
					_, err := pgqrs.NewWorkflow[int, int](s, "w").Start(t.Context(), 1, pgqrs.Key("k"))
					return err
				},
				"Delete":    func() error { _, err := s.Delete(t.Context(), 1); return err },
				"Uninstall": func() error { return s.Uninstall(t.Context()) },
				"Run":       func() error { return (&pgqrs.Worker{Handlers: []pgqrs.Handler{handler}}).Run(t.Context()) },
			} {
				err := do()
				if err == nil || errors.Is(err, pgqrs.ErrNotInstalled) ||
					!strings.Contains(err.Error(), "read-only transaction") && !strings.Contains(err.Error(), "during recovery") {
					t.Errorf("%s: %v; want an error that says that it is read-only", what, err)
				}
			}
			queues, err := s.Queues(t.Context())
			if err != nil || len(queues) != 1 || queues[0].Ready != 1 {
				t.Errorf("queues are %+v, %v", queues, err)
			}
			report, err := s.Verify(t.Context())
			if err != nil || !strings.Contains(strings.Join(report.Warnings, "\n"), "read_only is on: ") {
				t.Errorf("warnings are %q, %v", report.Warnings, err)
			}
			if err := s.Install(t.Context()); err != nil {
				t.Errorf("Install with nothing to do: %v", err)
			}
		})
	}
}
