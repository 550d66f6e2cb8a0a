// Package otelpgqrs measures and traces queues and workflows of
// [github.com/pgqrs/pgqrs-go] by OpenTelemetry.
//
//	telemetry, err := otelpgqrs.New(otelpgqrs.Options{})
//	store := telemetry.Config(pgqrs.Config{}).New(db, pgqrs.Postgres)
//	worker := &pgqrs.Worker{Handlers: handlers, Middleware: []func(pgqrs.WorkFunc) pgqrs.WorkFunc{telemetry.Middleware}}
//	depths, err := telemetry.Depths(store)
//
// Whoever enqueues with a span in ctx sends its context along in the message's
// headers (W3C traceparent, unless Options.Propagator says otherwise). The
// span of the handler continues that trace, and a step of a workflow has a
// span below that of the delivery which took it, in the ctx that its function
// gets: what that calls and enqueues is below the step. A run that sleeps or is tried again
// has a span for each delivery, all in the trace of who started it.
//
// Instruments, by the semantic conventions for messaging where they have one:
//
//	messaging.client.sent.messages      counter    messages enqueued
//	messaging.client.consumed.messages  counter    messages claimed
//	messaging.process.duration          histogram  seconds a handler took, with error.type if it failed
//	pgqrs.message.wait                  histogram  seconds from when a message was due until it was claimed
//	pgqrs.step.duration                 histogram  seconds the function of a step took, with error.type if it failed
//	pgqrs.queue.messages                gauge      messages by pgqrs.state: ready, scheduled, leased, dead; see Depths
//	pgqrs.queue.oldest                  gauge      seconds that the oldest ready message has waited; see Depths
//
// All but pgqrs.step.duration have messaging.destination.name, the queue.
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

// Options say where telemetry goes. A zero field means OpenTelemetry's global one.
type Options struct {
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider
	// Propagator writes and reads the headers. Zero means W3C trace context,
	// whatever the global one is: a global one that is not set writes nothing.
	Propagator propagation.TextMapPropagator
}

// Telemetry turns what happens in stores and workers into metrics and spans.
// It is safe for concurrent use, and may serve any number of them.
type Telemetry struct {
	propagator propagation.TextMapPropagator
	tracer     trace.Tracer
	meter      metric.Meter

	sent, consumed      metric.Int64Counter
	process, wait, step metric.Float64Histogram
}

// New makes the instruments. Its error is that of a meter provider which refuses one.
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

// boundaries are those of the semantic conventions, and up to an hour.
var boundaries = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}

func (t *Telemetry) histogram(name, what string) (metric.Float64Histogram, error) {
	return t.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(boundaries...))
}

// Config returns c with telemetry added: headers for what is enqueued, and an
// observer. What c has of these is called too, and its headers win.
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

// observer returns one that measures, and calls what was there before.
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
