package otel_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/otelpgqrs"

	_ "github.com/ncruces/go-sqlite3/driver"
)

// A probe is a store on a new file, and all of its telemetry.
type probe struct {
	*pgqrs.Store
	telemetry *otelpgqrs.Telemetry
	tracer    *sdktrace.TracerProvider
	spans     *tracetest.SpanRecorder
	metrics   *sdkmetric.ManualReader
}

func newProbe(t *testing.T, c pgqrs.Config) *probe {
	t.Helper()
	p := &probe{spans: tracetest.NewSpanRecorder(), metrics: sdkmetric.NewManualReader()}
	p.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(p.spans))
	var err error
	p.telemetry, err = otelpgqrs.New(otelpgqrs.Options{
		TracerProvider: p.tracer,
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(p.metrics)),
	})
	must(t, err)
	p.Store, err = p.telemetry.Config(c).Open(t.Context(), "sqlite:"+t.TempDir()+"/queue.db")
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	must(t, p.Install(t.Context()))
	return p
}

// work runs handlers until the given number of spans have ended.
func (p *probe) work(t *testing.T, spans int, handlers ...pgqrs.Handler) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		w := &pgqrs.Worker{Handlers: handlers, Middleware: []func(pgqrs.WorkFunc) pgqrs.WorkFunc{p.telemetry.Middleware}}
		done <- w.Run(ctx)
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for len(p.spans.Ended()) < spans && ctx.Err() == nil {
		<-tick.C
	}
	cancel()
	must(t, <-done)
}

func (p *probe) span(t *testing.T, name string) sdktrace.ReadOnlySpan {
	t.Helper()
	all := p.spans.Ended()
	i := slices.IndexFunc(all, func(s sdktrace.ReadOnlySpan) bool { return s.Name() == name })
	if i < 0 {
		t.Fatalf("no span %q among %d", name, len(all))
	}
	return all[i]
}

// sums returns the counts of an instrument by the value of an attribute.
func (p *probe) sums(t *testing.T, name, by string) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	must(t, p.metrics.Collect(t.Context(), &all))
	sums := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, point := range data.DataPoints {
					sums[text(point.Attributes, by)] += point.Value
				}
			case metricdata.Gauge[int64]:
				for _, point := range data.DataPoints {
					sums[text(point.Attributes, by)] += point.Value
				}
			case metricdata.Histogram[float64]:
				for _, point := range data.DataPoints {
					sums[text(point.Attributes, by)] += int64(point.Count)
				}
			}
		}
	}
	return sums
}

func text(set attribute.Set, key string) string {
	value, _ := set.Value(attribute.Key(key))
	return value.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func TestAHandlerIsInTheTraceOfWhoEnqueued(t *testing.T) {
	p := newProbe(t, pgqrs.Config{Headers: func(context.Context) map[string]string { return map[string]string{"tenant": "acme"} }})
	q := pgqrs.NewQueue[string](p.Store, "emails")
	ctx, request := p.tracer.Tracer("test").Start(t.Context(), "request")
	id, err := q.Enqueue(ctx, "ada")
	must(t, err)
	request.End()
	var headers map[string]string
	p.work(t, 2, q.Handle(func(_ context.Context, m *pgqrs.Message[string]) error {
		headers = m.Headers
		return nil
	}))
	span := p.span(t, "process emails")
	equal(t, "the trace", span.SpanContext().TraceID(), request.SpanContext().TraceID())
	equal(t, "the parent", span.Parent().SpanID(), request.SpanContext().SpanID())
	equal(t, "the message", text(attribute.NewSet(span.Attributes()...), "messaging.message.id"), attribute.Int64Value(id).String())
	equal(t, "the header of the application", headers["tenant"], "acme")
	for name, want := range map[string]int64{"messaging.client.sent.messages": 1, "messaging.client.consumed.messages": 1, "messaging.process.duration": 1, "pgqrs.message.wait": 1} {
		equal(t, name, p.sums(t, name, "messaging.destination.name")["emails"], want)
	}
}

func TestFailuresHaveATypeAndPutOffMessagesHaveNone(t *testing.T) {
	p := newProbe(t, pgqrs.Config{})
	var handlers []pgqrs.Handler
	for name, err := range map[string]error{"snoozed": pgqrs.Snooze(time.Hour), "broken": pgqrs.Permanent(errors.New("no such user"))} {
		q := pgqrs.NewQueue[string](p.Store, name)
		_, sent := q.Enqueue(t.Context(), "ada")
		must(t, sent)
		handlers = append(handlers, q.Handle(func(context.Context, *pgqrs.Message[string]) error { return err }))
	}
	p.work(t, 2, handlers...)
	equal(t, "status of what failed", p.span(t, "process broken").Status().Code, codes.Error)
	equal(t, "status of what was put off", p.span(t, "process snoozed").Status().Code, codes.Unset)
	types := p.sums(t, "messaging.process.duration", "error.type")
	equal(t, "failures", types["permanent"], 1)
	equal(t, "deliveries without failure", types[""], 1)
}

func TestAPanicEndsItsSpan(t *testing.T) {
	p := newProbe(t, pgqrs.Config{})
	q := pgqrs.NewQueue[string](p.Store, "emails")
	_, err := q.Enqueue(t.Context(), "ada")
	must(t, err)
	p.work(t, 1, q.Handle(func(context.Context, *pgqrs.Message[string]) error { panic("oh no") }))
	equal(t, "status", p.span(t, "process emails").Status().Code, codes.Error)
}

func TestStepsAreBelowTheDeliveryThatTookThem(t *testing.T) {
	var took time.Duration
	p := newProbe(t, pgqrs.Config{Observer: &pgqrs.Observer{Stepped: func(_ context.Context, _ int64, _ string, d time.Duration, _ error) { took = d }}})
	w := pgqrs.NewWorkflow[string, string](p.Store, "greet")
	mails := pgqrs.NewQueue[string](p.Store, "mails")
	h := w.Handle(func(ctx context.Context, run *pgqrs.Run, name string) (string, error) {
		return pgqrs.Step(ctx, run, "render", func(ctx context.Context) (string, error) {
			_, span := p.tracer.Tracer("test").Start(ctx, "query")
			span.End()
			_, err := mails.Enqueue(ctx, name)
			return "hello " + name, err
		})
	})
	ctx, request := p.tracer.Tracer("test").Start(t.Context(), "request")
	_, err := w.Start(ctx, "ada")
	must(t, err)
	request.End()
	p.work(t, 5, h, mails.Handle(func(context.Context, *pgqrs.Message[string]) error { return nil }))
	delivery, step := p.span(t, "process greet"), p.span(t, "step render")
	equal(t, "the trace of the delivery", delivery.SpanContext().TraceID(), request.SpanContext().TraceID())
	equal(t, "the parent of the step", step.Parent().SpanID(), delivery.SpanContext().SpanID())
	equal(t, "the parent of what the step calls", p.span(t, "query").Parent().SpanID(), step.SpanContext().SpanID())
	equal(t, "the parent of what the step enqueued", p.span(t, "process mails").Parent().SpanID(), step.SpanContext().SpanID())
	if took == 0 || step.EndTime().Sub(step.StartTime()) < took {
		t.Errorf("the span is %v long, and the step took %v", step.EndTime().Sub(step.StartTime()), took)
	}
	equal(t, "pgqrs.step.duration", p.sums(t, "pgqrs.step.duration", "error.type")[""], 1)
}

func TestDepthsAreCollected(t *testing.T) {
	p := newProbe(t, pgqrs.Config{})
	q := pgqrs.NewQueue[string](p.Store, "emails")
	_, err := q.EnqueueBatch(t.Context(), []string{"ada", "bob", "eve"}, pgqrs.Each(func(i int) []pgqrs.Option {
		if i == 0 {
			return []pgqrs.Option{pgqrs.Delay(time.Hour)}
		}
		return nil
	}))
	must(t, err)
	registration, err := p.telemetry.Depths(p.Store)
	must(t, err)
	depths := p.sums(t, "pgqrs.queue.messages", "pgqrs.state")
	equal(t, "ready", depths["ready"], 2)
	equal(t, "scheduled", depths["scheduled"], 1)
	must(t, registration.Unregister())
	equal(t, "gauges after Unregister", len(p.sums(t, "pgqrs.queue.messages", "pgqrs.state")), 0)
}

func TestTheApplicationsOwnObserverIsCalledToo(t *testing.T) {
	var enqueued int
	p := newProbe(t, pgqrs.Config{Observer: &pgqrs.Observer{Enqueued: func(_ context.Context, _ string, ids []int64) { enqueued += len(ids) }}})
	_, err := pgqrs.NewQueue[string](p.Store, "emails").Enqueue(t.Context(), "ada")
	must(t, err)
	equal(t, "enqueued", enqueued, 1)
}
