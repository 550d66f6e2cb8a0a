// Package otelpgqrs records metrics and traces of [github.com/pgqrs/pgqrs-go] with OpenTelemetry.
//
//	telemetry, err := otelpgqrs.New(otelpgqrs.Options{})
//	store := telemetry.Config(pgqrs.Config{}).New(db, pgqrs.Postgres)
//	worker := &pgqrs.Worker{
//		Handlers:   handlers,
//		Middleware: []func(pgqrs.WorkFunc) pgqrs.WorkFunc{telemetry.Middleware},
//	}
//	depths, err := telemetry.Depths(store)
//
// # Traces
//
// If the ctx of an enqueue has a span, the message carries the span's context in its headers. The
// headers are those of W3C trace context unless Options.Propagator is set. The span of the handler
// continues this trace.
//
// Each step of a workflow has a span below the span of its delivery. The step's function receives
// it in ctx, so the calls and messages of the function appear below the step. A run that sleeps or
// is retried has one span for each delivery, all in the trace of the caller that started the run.
//
// # Metrics
//
// The names follow the semantic conventions for messaging where these define one:
//
//	messaging.client.sent.messages      counter    messages enqueued
//	messaging.client.consumed.messages  counter    messages claimed
//	messaging.process.duration          histogram  seconds that a handler took
//	pgqrs.message.wait                  histogram  seconds from a message's due time to its claim
//	pgqrs.step.duration                 histogram  seconds that the function of a step took
//	pgqrs.queue.messages                gauge      messages by pgqrs.state
//	pgqrs.queue.oldest                  gauge      seconds the oldest ready message has waited
//
// The durations of failed handlers and steps have the attribute error.type. The gauges need a call
// of Depths. The values of pgqrs.state are ready, scheduled, blocked, leased and dead.
//
// All except pgqrs.step.duration have the attribute messaging.destination.name, the queue.
package otelpgqrs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgqrs/pgqrs-go"
)

const scope = "github.com/pgqrs/pgqrs-go/otelpgqrs"

// Options configure a Telemetry. A zero TracerProvider or MeterProvider means OpenTelemetry's
// global provider.
type Options struct {
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider
	// Propagator writes and reads the headers. Nil means W3C trace context. The global propagator
	// is not used, because it writes nothing unless the application sets it.
	Propagator propagation.TextMapPropagator
}

// Telemetry records metrics and spans of stores and workers. It is safe for concurrent use, and can
// serve any number of stores and workers.
type Telemetry struct {
	propagator propagation.TextMapPropagator
	tracer     trace.Tracer
	meter      metric.Meter

	sent, consumed      metric.Int64Counter
	process, wait, step metric.Float64Histogram
}

// New creates the instruments. It returns an error if the meter provider rejects one.
func New(o Options) (*Telemetry, error) {
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	if o.Propagator == nil {
		o.Propagator = propagation.TraceContext{}
	}
	t := &Telemetry{propagator: o.Propagator, tracer: o.TracerProvider.Tracer(scope), meter: o.MeterProvider.Meter(scope)}
	var errs [5]error
	t.sent, errs[0] = t.meter.Int64Counter("messaging.client.sent.messages", metric.WithUnit("{message}"), metric.WithDescription("messages enqueued"))
	t.consumed, errs[1] = t.meter.Int64Counter("messaging.client.consumed.messages", metric.WithUnit("{message}"), metric.WithDescription("messages claimed"))
	t.process, errs[2] = t.histogram("messaging.process.duration", "how long handlers took")
	t.wait, errs[3] = t.histogram("pgqrs.message.wait", "how long messages were due before they were claimed")
	t.step, errs[4] = t.histogram("pgqrs.step.duration", "how long functions of steps took")
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("otelpgqrs: %w", err)
	}
	return t, nil
}

// boundaries are the buckets of the semantic conventions, extended to an hour.
var boundaries = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}

func (t *Telemetry) histogram(name, what string) (metric.Float64Histogram, error) {
	return t.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(boundaries...))
}

// Config returns c with telemetry added: a Headers function that adds the trace context, and an
// Observer. Functions that c has already are called too, and their headers take precedence.
func (t *Telemetry) Config(c pgqrs.Config) pgqrs.Config {
	own := c.Headers
	c.Headers = func(ctx context.Context) map[string]string {
		carrier := propagation.MapCarrier{}
		t.propagator.Inject(ctx, carrier)
		if own != nil {
			maps.Copy(carrier, own(ctx))
		}
		return carrier
	}
	var before pgqrs.Observer
	if c.Observer != nil {
		before = *c.Observer
	}
	c.Observer = t.observer(before)
	return c
}

// observer returns an Observer that measures, and then calls the functions of before.
func (t *Telemetry) observer(before pgqrs.Observer) *pgqrs.Observer {
	after := before
	after.Enqueued = func(ctx context.Context, queue string, ids []int64) {
		t.sent.Add(ctx, int64(len(ids)), metric.WithAttributes(of(queue)...))
		if before.Enqueued != nil {
			before.Enqueued(ctx, queue, ids)
		}
	}
	after.Claimed = func(ctx context.Context, m *pgqrs.MessageInfo) {
		attributes := metric.WithAttributes(of(m.Queue)...)
		t.consumed.Add(ctx, 1, attributes)
		t.wait.Record(ctx, max(0, time.Since(m.DueAt).Seconds()), attributes)
		if before.Claimed != nil {
			before.Claimed(ctx, m)
		}
	}
	after.Finished = func(ctx context.Context, m *pgqrs.MessageInfo, took time.Duration, err error) {
		t.process.Record(ctx, took.Seconds(), metric.WithAttributes(append(of(m.Queue), failure(err)...)...))
		if before.Finished != nil {
			before.Finished(ctx, m, took, err)
		}
	}
	after.Stepping = func(ctx context.Context, runID int64, step string) context.Context {
		ctx = t.startStep(ctx, runID, step)
		if before.Stepping != nil {
			return cmp.Or(before.Stepping(ctx, runID, step), ctx)
		}
		return ctx
	}
	after.Stepped = func(ctx context.Context, runID int64, step string, took time.Duration, err error) {
		t.step.Record(ctx, took.Seconds(), metric.WithAttributes(failure(err)...))
		endStep(ctx, err)
		if before.Stepped != nil {
			before.Stepped(ctx, runID, step, took, err)
		}
	}
	return &after
}
