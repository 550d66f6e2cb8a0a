package dashboard_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/dashboard"
)

// A rule describes itself by its text. It runs once, at a given time.
type rule struct {
	text string
	at   time.Time
}

func (r rule) String() string { return r.text }

func (r rule) Next(t time.Time) time.Time {
	if t.Before(r.at) {
		return r.at
	}
	return time.Time{}
}

// schedule runs a worker that writes the rows of schedules, and stops it.
func schedule(t *testing.T, store *pgqrs.Store, schedules ...pgqrs.Schedule) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&pgqrs.Worker{Name: "clock", Schedules: schedules}).Run(ctx) }()
	names := make([]string, len(schedules))
	for i, s := range schedules {
		names[i] = s.Name
	}
	eventually(t, "the schedules are there", func() bool {
		list, err := store.Schedules(t.Context(), names...)
		return err == nil && len(list) == len(names)
	})
	stop()
	must(t, <-done)
}

// yearly returns a schedule of the "reports" queue that is due in a year.
func yearly(store *pgqrs.Store, name string, options ...pgqrs.Option) pgqrs.Schedule {
	return pgqrs.Schedule{Name: name, Rule: rule{"once in a year", time.Now().Add(365 * 24 * time.Hour)}, Target: pgqrs.NewQueue[mail](store, "reports").Target(mail{To: "ada@example.com"}, options...)}
}

func schedulePage(name string) string { return "schedule?name=" + url.QueryEscape(name) }

func TestSchedulesShowWhatTheyAreAndWhatBecameOfThem(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{Actions: true})
	want(t, get(t, address+"schedules", http.StatusOK), "There are no schedules yet")
	get(t, address+"schedule?name=nightly", http.StatusNotFound)
	get(t, address+"schedule", http.StatusNotFound)
	get(t, address+"schedules?only=x", http.StatusBadRequest)

	place, err := time.LoadLocation("Europe/Berlin")
	must(t, err)
	nightly := yearly(store, "nightly", pgqrs.Priority(1), pgqrs.Group("books"), pgqrs.Headers(map[string]string{"trace": "abc"}))
	nightly.Zone, nightly.CatchUp = place, 3
	ended := yearly(store, "ended")
	ended.Rule = rule{"in the past", time.Time{}}
	workflow := pgqrs.NewWorkflow[string, string](store, "close-books")
	schedule(t, store, nightly, ended, yearly(store, "digest", pgqrs.Key("digest")), yearly(store, "held", pgqrs.Key("digest")),
		pgqrs.Schedule{Name: "close", Rule: pgqrs.Every(time.Hour), Target: workflow.Target("May")})

	page := get(t, address+"schedules", http.StatusOK)
	want(t, page, `href="schedule?name=nightly"`, "once in a year", "Europe/Berlin", `<span class="state active">`, `<span class="state ended">`, "never", `href="runs?workflow=close-books"`, "every 1h", "in 364 d")
	page = get(t, address+"schedule?name=nightly", http.StatusOK)
	want(t, page, "has not run yet", "the latest 3 instants", "books", "trace", "abc", "ada@example.com", " CE")

	act := func(do, name string) string {
		t.Helper()
		answer := post(t, address, url.Values{"do": {do}, "name": {name}}, "Sec-Fetch-Site", "same-origin")
		read(t, answer, http.StatusSeeOther)
		where, err := answer.Location()
		must(t, err)
		return get(t, where.String(), http.StatusOK)
	}
	want(t, act("pause-schedule", "nightly"), "Paused", `<span class="state paused">`, "Next, if resumed", `value="resume-schedule"`)
	want(t, get(t, address+"schedules?only=overdue", http.StatusOK), "No schedule is overdue")
	want(t, get(t, address+"schedules?only=paused", http.StatusOK), "nightly", "<b>1</b>")
	want(t, act("resume-schedule", "nightly"), "Resumed", `<span class="state active">`, `value="pause-schedule"`)
	want(t, act("run-schedule", "close"), "It has run", "hand", `href="run?id=`, "queued")
	want(t, act("run-schedule", "digest"), "It has run", `<span class="state ready">`)
	want(t, act("run-schedule", "held"), "enqueued nothing", `<span class="state duplicate">`)
	list, err := store.Schedules(t.Context(), "digest")
	must(t, err)
	id := list[0].Last.MessageID
	want(t, get(t, address+"schedules", http.StatusOK), fmt.Sprintf(`href="message?id=%d"`, id))
	_, err = store.Delete(t.Context(), id)
	must(t, err)
	page = get(t, address+"schedule?name=digest", http.StatusOK)
	want(t, page, `<span class="state gone">`)
	if strings.Contains(page, "message?id=") {
		t.Error("a link leads to a message that is gone")
	}
	want(t, read(t, post(t, address, url.Values{"do": {"run-schedule"}, "name": {"nobody's"}}), http.StatusNotFound), "nobody&#39;s")
}

func TestReadOnlyHasNoActionsOnSchedules(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{})
	schedule(t, store, yearly(store, "nightly"))
	for _, do := range []string{"pause-schedule", "run-schedule"} {
		read(t, post(t, address, url.Values{"do": {do}, "name": {"nightly"}}, "Sec-Fetch-Site", "same-origin"), http.StatusForbidden)
	}
	list, err := store.Schedules(t.Context())
	must(t, err)
	if !list[0].PausedAt.IsZero() || list[0].Last != nil {
		t.Errorf("the schedule is changed: %+v", list[0])
	}
	for _, page := range []string{"schedules", "schedule?name=nightly"} {
		if strings.Contains(get(t, address+page, http.StatusOK), `method="post"`) {
			t.Errorf("%q has a form", page)
		}
	}
}

func TestSchedulesAreListedPageByPageEachOnce(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{})
	var all []pgqrs.Schedule
	for i := range 120 {
		all = append(all, yearly(store, fmt.Sprintf("tenant %d & co", i)))
	}
	schedule(t, store, all...)
	seen, pages := map[string]int{}, 0
	for page := "schedules"; page != ""; pages++ {
		body := get(t, address+page, http.StatusOK)
		want(t, body, "<b>120</b>")
		for _, found := range regexp.MustCompile(`href="(schedule\?name=[^"]+)"`).FindAllStringSubmatch(body, -1) {
			seen[found[1]]++
		}
		page = ""
		if next := regexp.MustCompile(`rel="next" href="([^"]+)"`).FindStringSubmatch(body); next != nil {
			page = strings.ReplaceAll(next[1], "&amp;", "&")
		}
	}
	if pages != 3 || len(seen) != len(all) {
		t.Errorf("%d schedules on %d pages; want %d on 3", len(seen), pages, len(all))
	}
	for link, n := range seen {
		if n != 1 {
			t.Errorf("%s was listed %d times", link, n)
		}
	}
	want(t, get(t, address+"schedules?after=z", http.StatusOK), "No further schedules", "First page")
}

func TestHostileSchedulesShowHarmlessly(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{})
	script, turned := `"><script>alert(1)</script>`, "a\u202egnp.exe \u200b"
	evil := yearly(store, script+turned, pgqrs.Key(script+turned), pgqrs.Group(script), pgqrs.Headers(map[string]string{"<b>": script + turned}))
	evil.Text = script + turned
	evil.Target = pgqrs.NewQueue[string](store, script+turned).Target(script+turned+"\x1b[31m", pgqrs.Key(script+turned), pgqrs.Group(script), pgqrs.Headers(map[string]string{"<b>": script + turned}))
	schedule(t, store, evil)
	_, err := store.RunSchedule(t.Context(), evil.Name)
	must(t, err)
	for _, page := range []string{"schedules", schedulePage(evil.Name), "schedules?only=" + url.QueryEscape(script), "schedules?after=%ff%00<script>", "schedule?name=%ff%00<script>"} {
		answer, err := http.Get(address + page)
		must(t, err)
		body := read(t, answer, answer.StatusCode)
		if answer.StatusCode >= 500 {
			t.Errorf("%q: status %d", page, answer.StatusCode)
		}
		if i := strings.IndexFunc(body, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == '\u202e' || r == '\u200b' }); i >= 0 {
			t.Errorf("%q has a character it should not: %q", page, body[max(0, i-20):i+3])
		}
		if i := strings.Index(body, "<script>"); i >= 0 {
			t.Errorf("%q has a script: %.200q", page, body[i:])
		}
	}
	want(t, get(t, address+schedulePage(evil.Name), http.StatusOK), `\u202e`, `\u001b[31m`, "&lt;script&gt;")
	acting := serve(t, store, dashboard.Options{Actions: true})
	if body := get(t, acting+schedulePage(evil.Name), http.StatusOK); strings.Contains(body, "<script>") {
		t.Error("with actions it has a script")
	}
	read(t, post(t, acting, url.Values{"do": {"pause-schedule"}, "name": {evil.Name}}), http.StatusSeeOther)
	list, err := store.Schedules(t.Context(), evil.Name)
	must(t, err)
	if list[0].PausedAt.IsZero() {
		t.Error("the schedule is not paused")
	}
}
