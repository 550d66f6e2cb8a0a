package otelpgqrs

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/pgqrs/pgqrs-go"
)

// Depths reports the depths of the named queues, or of all queues, whenever metrics are collected.
// Each collection executes one statement, which counts up to [pgqrs.DepthLimit]. If the statement
// fails, the collection reports the error. One process of those that share a database is enough.
//
// Keep the store open until Unregister has been called on the returned registration.
func (t *Telemetry) Depths(store *pgqrs.Store, queues ...string) (metric.Registration, error) {
	messages, err := t.meter.Int64ObservableGauge("pgqrs.queue.messages", metric.WithUnit("{message}"), metric.WithDescription("messages by state"))
	if err != nil {
		return nil, fmt.Errorf("otelpgqrs: %w", err)
	}
	oldest, err := t.meter.Float64ObservableGauge("pgqrs.queue.oldest", metric.WithUnit("s"), metric.WithDescription("how long the oldest ready message has waited"))
	if err != nil {
		return nil, fmt.Errorf("otelpgqrs: %w", err)
	}
	observe := func(ctx context.Context, o metric.Observer) error {
		depths, err := store.Depths(ctx, queues...)
		for _, d := range depths {
			for state, n := range map[pgqrs.MessageState]int64{pgqrs.Ready: d.Ready, pgqrs.Scheduled: d.Scheduled, pgqrs.Blocked: d.Blocked, pgqrs.Leased: d.Leased, pgqrs.Dead: d.Dead} {
				o.ObserveInt64(messages, n, metric.WithAttributes(append(of(d.Name), attribute.String("pgqrs.state", string(state)))...))
			}
			o.ObserveFloat64(oldest, d.OldestReady.Seconds(), metric.WithAttributes(of(d.Name)...))
		}
		return err
	}
	registration, err := t.meter.RegisterCallback(observe, messages, oldest)
	if err != nil {
		return nil, fmt.Errorf("otelpgqrs: %w", err)
	}
	return registration, nil
}
