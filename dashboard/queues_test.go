package dashboard

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// ofQueues returns a dashboard that has just taken a sample of a number of queues.
func ofQueues(n int) *dashboard {
	d := Handler(nil, Options{}).(*dashboard)
	now := sample{at: time.Now()}
	for i := range n {
		now.queues = append(now.queues, pgqrs.QueueDepth{Name: fmt.Sprintf("Queue %05d", i), Ready: 1, Dead: 2})
	}
	d.samples.last, d.samples.took = now, time.Hour // so that it is fresh
	d.samples.keep(now)
	return d
}

func show(t *testing.T, d *dashboard, address string, status int) string {
	t.Helper()
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/"+address, nil))
	if w.Code != status {
		t.Fatalf("%q: status %d, want %d:\n%.500s", address, w.Code, status, w.Body)
	}
	return w.Body.String()
}

// follow returns the names of the queues on a page, and the address of the next page.
func follow(page string) (names []string, next string) {
	for _, found := range regexp.MustCompile(`<a href="queue\?name=[^"]*">(Queue \d+)</a>`).FindAllStringSubmatch(page, -1) {
		names = append(names, found[1])
	}
	if found := regexp.MustCompile(`rel="next" href="\./([^"]*)"`).FindStringSubmatch(page); found != nil {
		next = strings.ReplaceAll(found[1], "&amp;", "&")
	}
	return names, next
}

func TestThePageOfManyQueuesIsBounded(t *testing.T) {
	page := show(t, ofQueues(20_000), "", http.StatusOK)
	if names, next := follow(page); len(page) > 512<<10 || len(names) != maxQueues || next == "" {
		t.Errorf("of 20,000 queues the page has %d, in %d bytes, and the next one is %q", len(names), len(page), next)
	}
	if !strings.Contains(page, "All 20000<") || !strings.Contains(page, ">40,000<") {
		t.Error("the page lacks the sum of all queues")
	}
}

func TestQueuesComeInPagesEachOnce(t *testing.T) {
	for n, want := range map[int]int{0: 1, 1: 1, maxQueues: 1, maxQueues + 1: 2, 5*maxQueues - 1: 5} {
		d, seen, pages := ofQueues(n), map[string]bool{}, 0
		for next, more := "", true; more; more = next != "" {
			var names []string
			names, next = follow(show(t, d, next, http.StatusOK))
			for _, name := range names {
				seen[name] = true
			}
			pages++
		}
		if len(seen) != n || pages != want {
			t.Errorf("%d queues: %d are on %d pages, want %d", n, len(seen), pages, want)
		}
	}
}

func TestQueuesAreFoundByTheirNames(t *testing.T) {
	d := ofQueues(1234)
	for address, want := range map[string]int{
		"?name=queue+00": maxQueues, "?name=E+0001": 10, "?name=01233": 1, "?name=none": 0, "?page=13": 34, "?page=99": 34, "?name=e+0001&page=2": 10, "?name=%1b%ff": 0,
	} {
		page := show(t, d, address, http.StatusOK)
		names, next := follow(page)
		if len(names) != want || !strings.Contains(page, `class="filter"`) {
			t.Errorf("%s: %d queues, want %d, with a field for the name", address, len(names), want)
		}
		if want == maxQueues && !strings.Contains(next, "name=queue") {
			t.Errorf("%s: the next page is %q", address, next)
		}
	}
	for _, address := range []string{"?page=0", "?page=-1", "?page=x", "?page=99999999999999999999"} {
		show(t, d, address, http.StatusBadRequest)
	}
	if strings.Contains(show(t, ofQueues(maxQueues), "", http.StatusOK), `class="filter"`) {
		t.Error("a page that has all queues has a field for the name")
	}
}
