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

// Middleware gives each delivery a span, "process QUEUE", in the trace of who
// enqueued the message. It is for [pgqrs.Worker]'s Middleware, where it should be the first.
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
			if !returned { // a panic, which the Worker takes care of
				err = errors.New("the handler panicked")
			}
			end(span, err)
		}()
		err = next(ctx, m)
		returned = true
		return err
	}
}

// spanKey is the key of a step's span in the ctx of its function.
type spanKey struct{}

// startStep gives a step a span, and its function a ctx that has it.
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

// end ends a span, with the error if there was one.
func end(span trace.Span, err error) {
	if attributes := failure(err); attributes != nil {
		span.SetAttributes(attributes...)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// of are the attributes of whatever is about a queue.
func of(queue string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "pgqrs"),
		attribute.String("messaging.destination.name", queue),
	}
}

// failure is the attribute of a failure. A message that is snoozed and a run
// that sleeps or waits have not failed.
func failure(err error) []attribute.KeyValue {
	if err == nil || errors.Is(err, pgqrs.ErrSnoozed) || errors.Is(err, pgqrs.ErrSuspended) {
		return nil
	}
	return []attribute.KeyValue{attribute.String("error.type", kind(err))}
}

// kind names an error by what it matches of pgqrs and context, or by its type:
// few values, as those of an attribute should be.
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
