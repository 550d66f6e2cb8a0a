package otelpgqrs

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgqrs/pgqrs-go"
)

// Middleware starts a span "process QUEUE" for each delivery, in the trace of the caller that
// enqueued the message. Put it first in the Middleware of a [pgqrs.Worker].
func (t *Telemetry) Middleware(next pgqrs.WorkFunc) pgqrs.WorkFunc {
	return func(ctx context.Context, m *pgqrs.MessageInfo) (err error) {
		ctx = t.propagator.Extract(ctx, propagation.MapCarrier(m.Headers))
		ctx, span := t.tracer.Start(ctx, "process "+m.Queue, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(append(of(m.Queue),
			attribute.String("messaging.operation.type", "process"),
			attribute.String("messaging.operation.name", "process"),
			attribute.String("messaging.message.id", strconv.FormatInt(m.ID, 10)),
			attribute.Int("pgqrs.attempt", m.Attempt),
		)...))
		returned := false
		defer func() {
			if !returned { // a panic, which the Worker handles
				err = errors.New("the handler panicked")
			}
			end(span, err)
		}()
		err = next(ctx, m)
		returned = true
		return err
	}
}

// spanKey is the context key of a step's span.
type spanKey struct{}

// startStep starts the span of a step, and returns the ctx for the step's function.
func (t *Telemetry) startStep(ctx context.Context, runID int64, step string) context.Context {
	ctx, span := t.tracer.Start(ctx, "step "+step, trace.WithAttributes(
		attribute.Int64("pgqrs.run.id", runID),
		attribute.String("pgqrs.step.name", step),
	))
	return context.WithValue(ctx, spanKey{}, span)
}

// endStep ends the span of a step.
func endStep(ctx context.Context, err error) {
	if span, ok := ctx.Value(spanKey{}).(trace.Span); ok {
		end(span, err)
	}
}

// end ends a span, and records the error if there is one.
func end(span trace.Span, err error) {
	if attributes := failure(err); attributes != nil {
		span.SetAttributes(attributes...)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// of returns the attributes that name a queue.
func of(queue string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "pgqrs"),
		attribute.String("messaging.destination.name", queue),
	}
}

// failure returns the attribute of a failure. A snoozed message, and a run that sleeps or waits,
// have not failed.
func failure(err error) []attribute.KeyValue {
	if err == nil || errors.Is(err, pgqrs.ErrSnoozed) || errors.Is(err, pgqrs.ErrSuspended) {
		return nil
	}
	return []attribute.KeyValue{attribute.String("error.type", kind(err))}
}

// kind names an error by the pgqrs or context error that it matches, or else by its type. An
// attribute should have few values.
func kind(err error) string {
	for _, known := range []struct {
		err  error
		name string
	}{
		{pgqrs.ErrTimeout, "timeout"}, {pgqrs.ErrLeaseLost, "lease_lost"}, {pgqrs.ErrInvalidPayload, "invalid_payload"},
		{pgqrs.ErrPermanent, "permanent"}, {context.DeadlineExceeded, "timeout"}, {context.Canceled, "canceled"},
	} {
		if errors.Is(err, known.err) {
			return known.name
		}
	}
	return fmt.Sprintf("%T", err)
}
