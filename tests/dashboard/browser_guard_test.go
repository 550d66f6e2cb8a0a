package dashboard_test

import (
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/dashboard"
)

// at returns the address of a server under another host name, with its port.
func at(t *testing.T, name, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	u.Host = name + ":" + u.Port()
	return u.String()
}

// page serves the page of a hostile site.
func page(t *testing.T, body string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>hostile</title><main>"+body+"</main>")
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// ask evaluates a script that returns a text.
func (b *browser) ask(script string) string {
	b.t.Helper()
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
	must(b.t, err)
	return text
}

// visit opens an address of any site.
func (b *browser) visit(address string) {
	b.t.Helper()
	b.do(chromedp.Navigate(address), chromedp.WaitReady("body"))
}

// arrives waits until the body of the page contains a text.
func (b *browser) arrives(text string) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("the page has %q", text), func() bool {
		body, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body?.innerText ?? ""`))
		return err == nil && strings.Contains(body, text)
	})
}

// follow follows the link of a page by a script. Chromium does not acknowledge a click that leads
// to another process.
func (b *browser) follow() {
	b.t.Helper()
	b.ask(`setTimeout(() => document.querySelector("a").click()), ""`)
}

const fetchStatus = `fetch(%q, %s).then(async r => r.status + " " + await r.text(), e => "failed: " + e)`

func TestARebindingNameGetsNothingInABrowser(t *testing.T) {
	store := openStore(t)
	id := bury(t, store, "emails", "secret payload", errors.New("no"))
	open, closed := serve(t, store, dashboard.Options{Actions: true}), serve(t, store, dashboard.Options{Actions: true, Hosts: []string{"ops.example"}})
	payload := fmt.Sprintf("payload?id=%d", id)
	action := fmt.Sprintf(`{method: "POST", body: new URLSearchParams({do: "delete", id: "%d"})}`, id)
	b := newBrowser(t, open)

	b.visit(at(t, "attacker.example", open))
	if got := b.ask(fmt.Sprintf(fetchStatus, payload, "{}")); !strings.Contains(got, "secret payload") {
		t.Fatalf("without Options.Hosts a hostile name gets %q: does the test still attack?", got)
	}
	b.visit(at(t, "attacker.example", closed))
	b.arrives("does not answer for the host")
	if got := b.ask(fmt.Sprintf(fetchStatus, payload, "{}")); !strings.HasPrefix(got, "421") || strings.Contains(got, "secret") {
		t.Errorf("a hostile name gets %q", got)
	}
	if got := b.ask(fmt.Sprintf(fetchStatus, "action", action)); !strings.HasPrefix(got, "421") {
		t.Errorf("an action of a hostile name is answered by %q", got)
	}
	if got := stateOf(t, store, id); got != pgqrs.Dead {
		t.Errorf("the message is %s", got)
	}
	b.visit(at(t, "ops.example", closed))
	b.arrives("emails")
	b.visit(at(t, "localhost", closed))
	b.arrives("emails")
}

func TestOtherSitesDoNothingInABrowser(t *testing.T) {
	store := openStore(t)
	id := bury(t, store, "emails", "x", errors.New("no"))
	address := serve(t, store, dashboard.Options{Actions: true})
	b := newBrowser(t, address)
	form := fmt.Sprintf(`<form method="post" action="%%saction"%%s><input name="do" value="delete"><input name="id" value="%d"><button>Go</button></form>`, id)
	for _, c := range []struct{ from, to, kind, answer string }{
		{"evil.example", "127.0.0.1", "", "another site"},
		{"localhost", "127.0.0.1", "", "another site"},
		{"localhost", "localhost", "", "another site"}, // the same site, but another port
		{"evil.example", "127.0.0.1", ` enctype="multipart/form-data"`, "application/x-www-form-urlencoded"},
		{"evil.example", "127.0.0.1", ` enctype="text/plain"`, "application/x-www-form-urlencoded"},
	} {
		b.visit(at(t, c.from, page(t, fmt.Sprintf(form, at(t, c.to, address), c.kind))))
		b.click("button")
		b.arrives(c.answer)
		if got := stateOf(t, store, id); got != pgqrs.Dead {
			t.Fatalf("%+v: the message is %s", c, got)
		}
	}
	// A picture and a frame make the database search, and the time they take reveals the result.
	b.visit(at(t, "evil.example", page(t, fmt.Sprintf(`<iframe src="%ssearch?q=secret"></iframe>`, html.EscapeString(address)))))
	if got := b.ask(fmt.Sprintf(`fetch(%q, {mode: "no-cors"}).then(r => r.type, e => "failed")`, address+"search?q=secret")); got != "failed" {
		t.Errorf("a script of another site gets a response of the type %s", got)
	}
}

func TestTheTokensAddressOpensTheDashboardInABrowser(t *testing.T) {
	store := openStore(t)
	id := bury(t, store, "emails", "secret payload", errors.New("no"))
	address := serve(t, store, dashboard.Options{Actions: true, Token: token})
	for _, from := range []string{"", "evil.example", "localhost"} {
		b := newBrowser(t, address)
		b.visit(address)
		b.arrives("asks for a token")
		b.visit(address + "?token=" + token + "x")
		b.arrives("asks for a token")
		entry := address + "queue?name=emails&state=dead&token=" + token
		if from == "" {
			b.visit(entry)
		} else {
			b.visit(at(t, from, page(t, fmt.Sprintf(`<a href="%s">Open</a>`, html.EscapeString(entry)))))
			b.follow()
		}
		b.arrives("secret payload")
		if got := b.ask(`location.href + document.cookie + history.length`); strings.Contains(got, token) || strings.Contains(got, "pgqrs-") {
			t.Errorf("a script sees %q", got)
		}
		b.open(fmt.Sprintf("message?id=%d", id))
		b.shows("secret payload")
		enqueue(t, store, "later", 1)
		b.open("")
		b.shows("later")
		enqueue(t, store, "after-"+from, 1)
		b.shows("after-" + from) // the page renews itself with the cookie
		must(t, store.ResumeQueue(t.Context(), "emails"))
		b.open("queue?name=emails")
		b.click(`button[value="pause"]`)
		b.shows("Paused")
		// Another site sends an action with the browser's cookie.
		form := `<form method="post" action="` + address + `action"><input name="do" value="resume"><input name="name" value="emails"><button>Go</button></form>`
		b.visit(at(t, "evil.example", page(t, form)))
		b.click("button")
		b.arrives("asks for a token")
		if list, err := store.Depths(t.Context(), "emails"); err != nil || list[0].PausedAt.IsZero() {
			t.Errorf("the queue is resumed by another site, or %v", err)
		}
	}
}

func TestANoticeIsNotForgedInABrowser(t *testing.T) {
	store := openStore(t)
	id := bury(t, store, "emails", "x", errors.New("no"))
	b := newBrowser(t, serve(t, store, dashboard.Options{Actions: true}))
	notice := func() string { return b.ask(`document.querySelector(".said")?.innerText ?? ""`) }
	b.open(fmt.Sprintf("message?id=%d", id))
	b.click(`button[value="redrive"]`)
	b.shows("Redriven")
	eventually(t, "the address of the page loses the notice", func() bool { return b.ask(`location.search`) == fmt.Sprintf("?id=%d", id) })
	b.visit(b.ask(`location.href`))
	if got := notice(); got != "" {
		t.Errorf("a reload shows %q again", got)
	}
	for _, forged := range []string{"?done=redrive-all&n=1000", fmt.Sprintf("message?id=%d&done=redrive&n=1", id), fmt.Sprintf("message?id=%d&done=redrive.1.9999999999.AAAA", id), "?done=delete.7"} {
		b.visit(at(t, "evil.example", page(t, fmt.Sprintf(`<a href="%s">Open</a>`, html.EscapeString(b.address+forged)))))
		b.follow()
		b.shows("emails")
		if got := notice(); got != "" {
			t.Errorf("%s shows %q", forged, got)
		}
	}
	if list := b.complaints(); len(list) > 0 {
		t.Errorf("the browser complains: %q", list)
	}
}
