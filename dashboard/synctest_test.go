//go:build go1.25

package dashboard

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Anybody can cause refusals. The log has the first of each reason at once, and then one a second.
func TestRefusedActionsDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book bytes.Buffer
		actors := 0
		h := Handler(nil, Options{Actions: true, Logger: slog.New(slog.NewTextHandler(&book, nil)), Actor: func(*http.Request) string { actors++; return "ada" }})
		flood := func(n int) {
			for i := range n {
				submit(h, url.Values{"do": {fmt.Sprint("explode", i)}})
				submit(h, url.Values{"do": {"delete"}, "id": {fmt.Sprint("x", i)}})
				submit(h, url.Values{"do": {"pause"}}, "Sec-Fetch-Site", "cross-site", "Origin", fmt.Sprintf("https://evil%d.example", i))
			}
		}
		for round, want := range []string{"unlogged=0", "unlogged=99", "unlogged=99"} {
			book.Reset()
			flood(100)
			if got := book.String(); strings.Count(got, "action refused") != 3 || strings.Count(got, want+"\n") != 3 || actors != 3*(round+1) {
				t.Errorf("round %d: %d calls of Actor; want 3 lines with %s:\n%s", round, actors, want, got)
			}
			for _, text := range []string{"action=explode0", "is not an id", "origin=https://evil0.example"} {
				if !strings.Contains(book.String(), text) {
					t.Errorf("round %d: the log lacks %q:\n%s", round, text, &book)
				}
			}
			time.Sleep(time.Second)
		}
	})
}
