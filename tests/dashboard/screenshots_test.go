package dashboard_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/dashboard"
)

var screenshots = flag.String("screenshots", "", "write pictures of every page into this `directory`")

// TestScreenshots draws the pictures of docs/DASHBOARD.md, from some minutes of a shop's life.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("it draws the pictures of docs/DASHBOARD.md only with -screenshots")
	}
	must(t, os.MkdirAll(*screenshots, 0o755))
	d := newDemo(t)
	b := newBrowser(t, serve(t, d.store, dashboard.Options{Actions: true, Title: "shop queues"}))
	pages := d.live(t, b)
	for name, page := range pages {
		for _, look := range []struct {
			name, scheme  string
			width, height int64
		}{{"light", "light", 1200, 760}, {"dark", "dark", 1200, 760}, {"phone", "light", 390, 844}} {
			b.look(look.scheme)
			b.do(chromedp.EmulateViewport(look.width, look.height))
			b.open(page)
			picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
			must(t, err)
			must(t, os.WriteFile(filepath.Join(*screenshots, name+"-"+look.name+".png"), reduce(t, picture), 0o644))
		}
	}
}

// look selects light or dark colours, as the system would.
func (b *browser) look(scheme string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	must(b.t, err)
}

// live fills the shop's queues while its overview is open, and returns the pages to draw.
func (d *demo) live(t *testing.T, b *browser) map[string]string {
	t.Helper()
	b.open("")
	d.packing.Store(int64(700 * time.Millisecond))
	thumbnails := pgqrs.NewQueue[mail](d.store, "thumbnails")
	slow := thumbnails.Handle(func(ctx context.Context, m *pgqrs.Message[mail]) error {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(1+rand.IntN(3)) * time.Second):
		}
		return ctx.Err()
	})
	d.keep(t, &pgqrs.Worker{Name: "batch-1", Handlers: []pgqrs.Handler{slow}, Concurrency: 4, Grace: time.Second})
	d.clock(t)
	blocked := d.hold(t)
	for i := range 3 {
		enqueue(t, d.store, "reports", mail{To: fmt.Sprintf("team-%d@example.com", i), Subject: "Weekly report"}, pgqrs.Delay(time.Duration(i+2)*time.Hour))
	}
	for i := range 12 {
		enqueue(t, d.store, "invoices", map[string]any{"order": 4700 + i, "total": fmt.Sprintf("%d.90", 20+7*i)}, pgqrs.Key(fmt.Sprintf("order:%d", 4700+i)))
	}
	must(t, d.store.PauseQueue(t.Context(), "invoices"))
	var runs []*pgqrs.RunHandle[string]
	people := []string{"ada", "grace", "barbara", "edsger", "donald"}
	for i := range 80 {
		for range rand.IntN(12) {
			enqueue(t, d.store, "emails", mail{To: people[i%5] + "@example.com", Subject: "Your order has been shipped"})
		}
		for range 4 * ((i / 8) % 2) {
			enqueue(t, d.store, "thumbnails", mail{Subject: fmt.Sprintf("photo-%04d.jpg", i)})
		}
		if i%12 == 3 {
			to := []string{"bounce@example.com", "bounce+sales@example.net", "bounces@example.org"}[i%3]
			enqueue(t, d.store, "emails", mail{To: to, Subject: "Your invoice is ready"}, pgqrs.Key(fmt.Sprintf("invoice:%d", 9000+i)), pgqrs.Headers(map[string]string{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}))
		}
		if i%10 == 5 {
			run, err := d.checkout.Start(t.Context(), fmt.Sprintf("A-%d", 1000+len(runs)), pgqrs.Key(fmt.Sprintf("A-%d", 1000+len(runs))))
			must(t, err)
			runs = append(runs, run)
		}
		if len(runs) > 1 && i%10 == 9 && i < 60 {
			// The run has failed.
			if err := approved.Send(t.Context(), d.store, runs[len(runs)-2].ID(), true); !errors.Is(err, pgqrs.ErrState) {
				must(t, err)
			}
		}
		<-time.After(time.Second)
	}
	must(t, runs[len(runs)-1].Cancel(t.Context()))
	dead, err := d.store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "emails", State: pgqrs.Dead, Limit: 1})
	must(t, err)
	if len(dead) == 0 {
		t.Fatal("there is no dead letter")
	}
	return map[string]string{
		"queues": "", "queue": "queue?name=emails&state=dead", "message": fmt.Sprintf("message?id=%d", dead[0].ID), "workers": "workers", "runs": "runs",
		"run": fmt.Sprintf("run?id=%d", runs[2].ID()), "search": "search?q=invoice", "schedules": "schedules", "schedule": "schedule?name=stock+report",
		"blocked": fmt.Sprintf("message?id=%d", blocked),
	}
}

// keep runs a worker until the test ends.
func (d *demo) keep(t *testing.T, w *pgqrs.Worker) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done // interrupted handlers do not matter
	})
}

// hold creates accounts whose movements wait for a failed movement. It returns the id of a waiting
// one.
func (d *demo) hold(t *testing.T) int64 {
	t.Helper()
	movements := pgqrs.NewQueue[map[string]any](d.store, "movements").With(pgqrs.Policy{MaxAttempts: 8, Backoff: func(int) time.Duration { return 20 * time.Minute }})
	must(t, movements.Configure(t.Context()))
	var last int64
	for i := range 12 {
		account := []string{"DE-2291", "DE-4410", "FR-0012"}[i%3]
		id, err := movements.Enqueue(t.Context(), map[string]any{"account": account, "cents": 1250 + 300*i}, pgqrs.Group(account))
		must(t, err)
		last = id
	}
	d.keep(t, &pgqrs.Worker{Name: "ledger-1", Handlers: []pgqrs.Handler{movements.Handle(func(context.Context, *pgqrs.Message[map[string]any]) error {
		return errors.New("ledger: account is locked by the audit of November")
	})}})
	return last
}

// clock creates schedules, and runs a worker for them until the test ends.
func (d *demo) clock(t *testing.T) {
	t.Helper()
	berlin, err := time.LoadLocation("Europe/Berlin")
	must(t, err)
	reports := func(subject string, options ...pgqrs.Option) pgqrs.Target {
		return pgqrs.NewQueue[mail](d.store, "stock").Target(mail{To: "stock@example.com", Subject: subject}, options...)
	}
	schedules := []pgqrs.Schedule{
		{Name: "stock report", Rule: pgqrs.Every(15 * time.Second), Zone: berlin, Target: reports("Stock report")},
		{Name: "stocktaking", Rule: pgqrs.Every(20 * time.Second), Target: reports("Stocktaking", pgqrs.Key("stocktaking"))},
		{Name: "reconcile payments", Rule: pgqrs.Every(time.Hour), Zone: berlin, Target: d.parcel.Target("receipt")},
		{Name: "newsletter", Rule: pgqrs.Every(7 * 24 * time.Hour), Target: reports("What is new this week")},
		{Name: "purge of old baskets", Rule: pgqrs.Every(12 * time.Hour), Target: reports("Old baskets"), CatchUp: -1},
	}
	d.keep(t, &pgqrs.Worker{Name: "clock-1", Schedules: schedules})
	eventually(t, "the schedules are there", func() bool {
		list, err := d.store.Schedules(t.Context())
		return err == nil && len(list) == len(schedules)
	})
	must(t, d.store.PauseSchedule(t.Context(), "newsletter"))
	for _, name := range []string{"reconcile payments", "purge of old baskets"} {
		_, err := d.store.RunSchedule(t.Context(), name)
		must(t, err)
	}
}

// reduce makes a picture smaller by reducing it to its commonest colours.
func reduce(t *testing.T, raw []byte) []byte {
	t.Helper()
	full, err := png.Decode(bytes.NewReader(raw))
	must(t, err)
	counts := map[color.Color]int{}
	box := full.Bounds()
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			counts[full.At(x, y)]++
		}
	}
	palette := slices.SortedFunc(maps.Keys(counts), func(a, b color.Color) int { return cmp.Compare(counts[b], counts[a]) })
	small := image.NewPaletted(box, palette[:min(len(palette), 256)])
	draw.Draw(small, box, full, box.Min, draw.Src)
	var out bytes.Buffer
	must(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, small))
	return out.Bytes()
}
