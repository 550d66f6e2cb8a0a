package dashboard_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/dashboard"
)

// A browser is a tab of a headless Chromium.
type browser struct {
	t       *testing.T
	ctx     context.Context
	address string

	mu   sync.Mutex
	said []string
}

// newBrowser starts a Chromium, and opens a tab. The test is skipped if there is no Chromium,
// except in CI.
func newBrowser(t *testing.T, address string) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	switch {
	case path == "" && os.Getenv("CI") != "":
		t.Fatal("there is no Chromium; install the package chromium")
	case path == "":
		t.Skip("there is no Chromium to drive; install the package chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(2*time.Minute))
	for _, flag := range []string{"no-sandbox", "disable-gpu", "disable-quic", "disable-component-update", "hide-scrollbars"} {
		options = append(options, chromedp.Flag(flag, true))
	}
	options = append(options, chromedp.Flag("host-resolver-rules", "MAP *.example 127.0.0.1")) // as a hostile name server would
	allocator, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(allocator)
	t.Cleanup(closeTab)
	b := &browser{t: t, ctx: ctx, address: address}
	must(t, chromedp.Listen(ctx, b.listen))
	b.do(chromedp.EmulateViewport(1200, 800))
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Minute)
	defer cancel()
	must(b.t, chromedp.Do(ctx, steps...))
}

// listen records the browser's complaints about policies, scripts and addresses that fail.
func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError {
			b.said = append(b.said, e.Entry.Text+" "+e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		b.said = append(b.said, e.ExceptionDetails.Text)
	}
}

func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.said)
}

func (b *browser) open(page string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.address+page), chromedp.WaitReady("main"))
}

// click clicks the element of a selector.
func (b *browser) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(selector))
}

// shows waits until the main part of the page contains a text.
func (b *browser) shows(text string) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("the page shows %q", text), func() bool {
		main, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.querySelector("main")?.innerText ?? ""`))
		return err == nil && strings.Contains(main, text)
	})
}

func TestADashboardInABrowser(t *testing.T) {
	d := newDemo(t)
	b := newBrowser(t, serve(t, d.store, dashboard.Options{Actions: true}))

	t.Log("a queue fills while its page is open")
	b.open("")
	b.shows("emails")
	enqueue(t, d.store, "invoices", 1)
	b.shows("invoices") // without a reload, because the page renews itself
	b.open("queue?name=invoices")
	for range 4 {
		enqueue(t, d.store, "invoices", mail{To: "ada@example.com"})
	}
	b.shows("ready 5")

	t.Log("a dead letter is opened and redriven")
	id := enqueue(t, d.store, "emails", mail{To: "bounce@example.com", Subject: "Your invoice"})
	eventually(t, "the message dies", func() bool { return stateOf(t, d.store, id) == pgqrs.Dead })
	b.open("")
	b.click(`a[href="queue?name=emails&state=dead"]`)
	b.shows("550 no such mailbox")
	b.click(fmt.Sprintf(`a[href="message?id=%d"]`, id))
	b.shows("Your invoice")
	close(d.mended)
	b.click(`button[value="redrive"]`)
	b.shows("Redriven")
	b.shows("archived") // the worker has handled it, and the page shows that by itself
	if got := stateOf(t, d.store, id); got != pgqrs.Archived {
		t.Errorf("the message is %s", got)
	}

	t.Log("a message is deleted, once that is confirmed")
	doomed := enqueue(t, d.store, "invoices", "doomed", pgqrs.Delay(time.Hour))
	b.open(fmt.Sprintf("message?id=%d", doomed))
	b.click(".confirm summary")
	b.do(chromedp.WaitVisible(`button[value="delete"]`))
	b.click(`button[value="delete"]`)
	b.shows("Deleted: 1 message")
	if got := stateOf(t, d.store, doomed); got != "gone" {
		t.Errorf("the message is %s", got)
	}

	t.Log("a run's timeline grows to its end")
	run, err := d.checkout.Start(t.Context(), "A-1001")
	must(t, err)
	b.open("runs")
	b.click(fmt.Sprintf(`a[href="run?id=%d"]`, run.ID()))
	b.shows("cool off")
	b.shows("waiting")
	must(t, approved.Send(t.Context(), d.store, run.ID(), true))
	b.shows("ship")
	b.shows("succeeded")
	width, err := chromedp.Run(b.ctx, chromedp.Evaluate[float64](`document.querySelector("rect.bar.succeeded").getBoundingClientRect().width`))
	must(t, err)
	if width < 1 {
		t.Errorf("the bar of a step is %v wide", width)
	}
	b.click(`.timeline .child a`)
	b.shows("child of run")
	b.shows("a box with a ")

	t.Log("a schedule is paused, and run by hand")
	schedule(t, d.store, yearly(d.store, "nightly"))
	b.open("")
	b.click(`a[href="schedules"]`)
	b.click(`a[href="schedule?name=nightly"]`)
	b.shows("It has not run yet")
	b.click(`button[value="pause-schedule"]`)
	b.shows("Paused: it runs nothing by the clock")
	b.click(".confirm summary")
	b.do(chromedp.WaitVisible(`button[value="run-schedule"]`))
	b.click(`button[value="run-schedule"]`)
	b.shows("It has run, by hand")
	list, err := d.store.Schedules(t.Context(), "nightly")
	must(t, err)
	if list[0].PausedAt.IsZero() || list[0].Last == nil || !list[0].Last.ByHand {
		t.Errorf("the schedule is %+v", list[0])
	}
	if list := b.complaints(); len(list) > 0 {
		t.Errorf("the browser complains: %q", list)
	}
}
