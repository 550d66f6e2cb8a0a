package dashboard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/dashboard"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

// get reads a page and checks its status.
func get(t *testing.T, address string, status int) string {
	t.Helper()
	answer, err := http.Get(address)
	must(t, err)
	return read(t, answer, status)
}

func read(t *testing.T, answer *http.Response, status int) string {
	t.Helper()
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(t, err)
	if answer.StatusCode != status {
		t.Fatalf("%s: status %d; want %d\n%s", answer.Request.URL, answer.StatusCode, status, body)
	}
	return string(body)
}

// post sends an action with headers, and does not follow redirects. Without headers it comes from
// the dashboard's own page.
func post(t *testing.T, address string, form url.Values, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"action", strings.NewReader(form.Encode()))
	must(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if len(headers) == 0 {
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := (&http.Client{Transport: http.DefaultTransport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(r)
	must(t, err)
	return answer
}

// want reports the texts that a page lacks.
func want(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			t.Errorf("the page lacks %q:\n%.3000s", text, page)
		}
	}
}

func stateOf(t *testing.T, store *pgqrs.Store, id int64) pgqrs.MessageState {
	t.Helper()
	list, err := store.Messages(t.Context(), pgqrs.MessageFilter{IDs: []int64{id}})
	must(t, err)
	if len(list) == 0 {
		return "gone"
	}
	return list[0].State
}

var everyPage = []string{"", "queue?name=emails", "queue?name=emails&state=dead", "queue?name=emails&state=scheduled", "queue?name=emails&state=leased",
	"queue?name=emails&state=archived", "message?id=1", "workers", "workers?all=1", "runs", "runs?workflow=x&state=ERROR", "schedules", "schedules?only=overdue", "search", "search?q=emails"}

func TestPagesCarryHeadersAndNoInlineStyleOrScript(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{Actions: true})
	enqueue(t, store, "emails", "hello")
	for _, page := range append(everyPage, "style.css", "live.js", "icon.svg", "nowhere") {
		answer, err := http.Get(address + page)
		must(t, err)
		status := http.StatusOK
		if page == "nowhere" {
			status = http.StatusNotFound
		}
		body := read(t, answer, status)
		policy := answer.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") {
			t.Errorf("%q: Content-Security-Policy is %q", page, policy)
		}
		if got := answer.Header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%q: X-Content-Type-Options is %q", page, got)
		}
		if bad := regexp.MustCompile(`(?i)<style|\sstyle=|<script>|\son[a-z]+=|javascript:`).FindString(body); bad != "" && page != "live.js" {
			t.Errorf("%q has %q, which the policy forbids", page, bad)
		}
	}
}

func TestLinksAreRelativeAndLeadToPages(t *testing.T) {
	d := newDemo(t)
	address := serve(t, d.store, dashboard.Options{Actions: true})
	bury(t, d.store, "no worker", mail{To: "bounce@example.com"}, errors.New("no"))
	enqueue(t, d.store, `a/b?c&d="e"<f>`, 1)
	run, err := d.checkout.Start(t.Context(), "A-1")
	must(t, err)
	schedule(t, d.store, yearly(d.store, "each year?&"), yearly(d.store, "unused"))
	_, err = d.store.RunSchedule(t.Context(), "each year?&")
	must(t, err)
	seen := map[string]bool{}
	todo := []string{address, fmt.Sprintf("%srun?id=%d", address, run.ID())}
	link := regexp.MustCompile(`(?:href|src|action)="([^"]*)"`)
	for len(todo) > 0 && len(seen) < 200 {
		page := todo[0]
		todo = todo[1:]
		if seen[page] || strings.HasSuffix(page, ".js") {
			continue
		}
		seen[page] = true
		base, err := url.Parse(page)
		must(t, err)
		for _, found := range link.FindAllStringSubmatch(get(t, page, http.StatusOK), -1) {
			ref := strings.ReplaceAll(found[1], "&amp;", "&")
			if strings.HasPrefix(ref, "/") || strings.Contains(ref, "://") {
				t.Errorf("%s: link %q is not relative", page, ref)
			}
			if next, err := base.Parse(ref); err != nil {
				t.Errorf("%s: link %q: %v", page, ref, err)
			} else if ref != "action" {
				todo = append(todo, next.String())
			}
		}
	}
	for _, page := range []string{"queue?name=no%20worker&state=dead", "queue?name=a%2fb%3fc%26d%3d%22e%22%3cf%3e", "schedules", "schedule?name=each%20year%3f%26"} {
		if !seen[address+page] {
			t.Errorf("no link leads to %s, of %d pages", page, len(seen))
		}
	}
}

func TestAQueueHasItsPageAsSoonAsItIsThere(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{})
	get(t, address, http.StatusOK) // takes a sample
	get(t, address+"queue?name=new", http.StatusNotFound)
	enqueue(t, store, "new", 1)
	if page := get(t, address+"queue?name=new", http.StatusOK); !strings.Contains(page, "message?id=") {
		t.Errorf("the queue's message is not listed:\n%s", page)
	}
}

func TestMountedWithoutItsSlashItRedirects(t *testing.T) {
	h := http.StripPrefix("/ops/queues", dashboard.Handler(openStore(t), dashboard.Options{}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ops/queues", nil))
	if got := w.Header().Get("Location"); w.Code != http.StatusTemporaryRedirect || got != "./queues/" {
		t.Fatalf("status %d, location %q", w.Code, got)
	}
}

func TestHostilePayloadsShowHarmlessly(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{Actions: true})
	script := `</pre><script>alert(1)</script><img src=x onerror=alert(2)>`
	turned := "a\u202egnp.exe \u200b"
	ids := []int64{
		bury(t, store, "emails", script, errors.New(script), pgqrs.Headers(map[string]string{"<b>": script})),
		bury(t, store, "emails", "bell\a escape\x1b[31m "+turned, errors.New("bell\a \x1b[2J"+turned)),
		bury(t, store, "emails", strings.Repeat("x", 1<<20-64), errors.New(strings.Repeat("long ", 40_000))),
		bury(t, store, "emails", "bytes", errors.New("not UTF-8: \xff\xfe\xc3(")),
		enqueue(t, store, script, script, pgqrs.Key(script)),
	}
	pages := []string{"", "queue?name=emails&state=dead", "queue?name=" + url.QueryEscape(script), "search?q=" + url.QueryEscape(script), "search?q=%ff%1b%00", "search?q=" + strings.Repeat("<b>", 200), "queue?name=%ff%1b<script>", "runs?workflow=%ff%00<script>", "queue?name=emails&state=<script>"}
	for _, id := range ids {
		pages = append(pages, fmt.Sprintf("message?id=%d", id))
	}
	workflow, kid := "evil \u202e<script>", "<img src=x>\u200b"
	run, err := pgqrs.NewWorkflow[int, string](store, workflow).Start(t.Context(), 1, pgqrs.Key(turned))
	must(t, err)
	pgqrstest.Drain(t, store, []string{workflow, kid},
		pgqrs.NewWorkflow[int, string](store, workflow).Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
			_, err := pgqrs.Step(ctx, run, script, func(context.Context) (string, error) { return script + turned + strings.Repeat("x", 1<<20-4096), nil })
			if err != nil {
				return "", err
			}
			_, err = pgqrs.NewWorkflow[string, string](store, kid).Children(ctx, run, turned, []string{script, turned})
			return "", err
		}),
		pgqrs.NewWorkflow[string, string](store, kid).Handle(func(_ context.Context, _ *pgqrs.Run, text string) (string, error) {
			return "", errors.New(text + "\x1b[2J")
		}))
	pages = append(pages, "runs", fmt.Sprintf("runs?parent=%d", run.ID()), fmt.Sprintf("run?id=%d", run.ID()), fmt.Sprintf("run?id=%d", run.ID()+1))
	want(t, get(t, fmt.Sprintf("%srun?id=%d", address, run.ID()), http.StatusOK), "&lt;img src=x&gt;\\u200b", "child")
	for _, page := range pages {
		answer, err := http.Get(address + page)
		must(t, err)
		body, err := io.ReadAll(answer.Body)
		must(t, errors.Join(err, answer.Body.Close()))
		if answer.StatusCode >= 500 {
			t.Errorf("%q: status %d", page, answer.StatusCode)
		}
		if !utf8.Valid(body) {
			t.Errorf("%q is not UTF-8", page)
		}
		if i := bytes.IndexFunc(body, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == '\u202e' || r == '\u200b' }); i >= 0 {
			t.Errorf("%q has the character %q", page, body[i:i+3])
		}
		for _, bad := range []string{"<script>", "<img"} {
			if i := bytes.Index(body, []byte(bad)); i >= 0 {
				t.Errorf("%q has %q unescaped: %.200q", page, bad, body[i:])
			}
		}
		if len(body) > 200<<10 {
			t.Errorf("%q has %d bytes", page, len(body))
		}
	}
	want(t, get(t, fmt.Sprintf("%smessage?id=%d", address, ids[1]), http.StatusOK), `\u202e`, `\u001b[2J`)
	want(t, get(t, fmt.Sprintf("%smessage?id=%d", address, ids[2]), http.StatusOK), "Only the first 64 KiB are shown", "1023.9 KiB")
}

// On SQLite a program that writes SQL can store any text as a name or a state. Pages make it
// visible, and their forms name the right thing.
func TestTextsOfSQLAreVisible(t *testing.T) {
	store, db := openDB(t)
	address := serve(t, store, dashboard.Options{Actions: true})
	message := enqueue(t, store, "emails", 1, pgqrs.Key("k"), pgqrs.Group("g"))
	workflow := pgqrs.NewWorkflow[int, int](store, "checkout")
	run, err := workflow.Start(t.Context(), 1, pgqrs.Key("r"))
	must(t, err)
	pgqrstest.Drain(t, store, []string{"checkout"}, workflow.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (int, error) {
		return pgqrs.Step(ctx, run, "charge", func(context.Context) (int, error) { return 1, nil })
	}))
	workerOf(t, store)
	schedule(t, store, yearly(store, "nightly"))
	_, err = store.RunSchedule(t.Context(), "nightly")
	must(t, err)
	const evil = "\x1b[2J\x07\u009b\u202e"
	conn, err := db.Conn(t.Context())
	must(t, err)
	for _, text := range []string{
		"PRAGMA ignore_check_constraints = on",
		"UPDATE pgqrs_queues SET queue_name = queue_name || ?", "UPDATE pgqrs_workflows SET name = name || ?",
		"UPDATE pgqrs_messages SET dedup_key = dedup_key || ?1, group_key = group_key || ?1, last_error = ?1, headers = '{\"a\": 1' || ?1",
		"UPDATE pgqrs_workflow_runs SET status = status || ?1, run_key = run_key || ?1, warning = ?1, error = ?1", "UPDATE pgqrs_workflow_steps SET status = status || ?1, step_name = step_name || ?1, error = ?1",
		"UPDATE pgqrs_workers SET name = name || ?1, status = status || ?1",
		"UPDATE pgqrs_schedules SET name = name || ?1, queue_name = queue_name || ?1, rule = rule || ?1, zone = zone || ?1, dedup_key = ?1, headers = ?1",
	} {
		_, err := conn.ExecContext(t.Context(), text, []any{evil}[:strings.Count(text[:7], "UPDATE")]...)
		must(t, err)
	}
	must(t, conn.Close())
	enqueue(t, store, "plain", 1)
	queue := "queue?name=" + url.QueryEscape("emails"+evil)
	for _, page := range []string{
		"", queue, queue + "&state=dead", fmt.Sprintf("message?id=%d", message), "workers", "workers?all=1", "runs", "runs?workflow=" + url.QueryEscape("checkout"+evil), fmt.Sprintf("run?id=%d", run.ID()),
		"schedules", schedulePage("nightly" + evil), "search?q=" + fmt.Sprint(message), "search?q=" + fmt.Sprint(run.ID()), "search?q=" + url.QueryEscape(evil),
	} {
		body := get(t, address+page, http.StatusOK)
		if i := strings.IndexFunc(body, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q has the character %q: %q", page, body[i:i+3], body[max(0, i-200):i])
		}
		if !strings.Contains(body, `\u001b[2J\u0007\u009b\u202e`) {
			t.Errorf("%q does not show the characters:\n%s", page, body)
		}
	}
	form := regexp.MustCompile(`name="escaped-name" value="([^"]*)"`).FindStringSubmatch(get(t, address+queue, http.StatusOK))
	if form == nil {
		t.Fatal("the page of the queue has no form")
	}
	read(t, post(t, address, url.Values{"do": {"pause"}, "escaped-name": {html.UnescapeString(form[1])}}), http.StatusSeeOther)
	if list, err := store.Depths(t.Context(), "emails"+evil); err != nil || len(list) != 1 || list[0].PausedAt.IsZero() {
		t.Errorf("the queue is not paused: %v, %v", list, err)
	}
}

func TestAPayloadIsDownloadedAsItIsStored(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{})
	payload := strings.Repeat("<script>", 100_000)
	id := enqueue(t, store, "emails", payload)
	answer, err := http.Get(fmt.Sprintf("%spayload?id=%d", address, id))
	must(t, err)
	var got string
	must(t, json.Unmarshal([]byte(read(t, answer, http.StatusOK)), &got))
	if got != payload {
		t.Error("the payload is another")
	}
	if kind, how := answer.Header.Get("Content-Type"), answer.Header.Get("Content-Disposition"); kind != "application/octet-stream" || !strings.HasPrefix(how, "attachment") {
		t.Errorf("type %q, disposition %q: a browser might show it", kind, how)
	}
}

func TestReadOnlyRefusesEveryAction(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{})
	id := bury(t, store, "emails", "x", errors.New("no"))
	for _, do := range []string{"redrive", "delete", "redrive-all", "pause", "no such action"} {
		form := url.Values{"do": {do}, "id": {fmt.Sprint(id)}, "name": {"emails"}}
		want(t, read(t, post(t, address, form, "Sec-Fetch-Site", "same-origin"), http.StatusForbidden), "This dashboard is read-only")
	}
	if got := stateOf(t, store, id); got != pgqrs.Dead {
		t.Errorf("the message is %s", got)
	}
	for _, page := range []string{"", "queue?name=emails", fmt.Sprintf("message?id=%d", id), "workers"} {
		if strings.Contains(get(t, address+page, http.StatusOK), `method="post"`) {
			t.Errorf("%q has a form", page)
		}
	}
}

func TestActionsFromOtherSitesAreRefused(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{Actions: true, TrustedOrigins: []string{"https://ops.example.com"}})
	id := bury(t, store, "emails", "x", errors.New("no"))
	form := url.Values{"do": {"delete"}, "id": {fmt.Sprint(id)}, "name": {"emails"}}
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example.com"}, {"Origin", "null"},
	} {
		want(t, read(t, post(t, address, form, headers...), http.StatusForbidden), "another site")
	}
	answer, err := http.Get(address + "action?" + form.Encode())
	must(t, err)
	want(t, read(t, answer, http.StatusMethodNotAllowed), "sent by the buttons")
	if got := stateOf(t, store, id); got != pgqrs.Dead {
		t.Fatalf("the message is %s", got)
	}
	read(t, post(t, address, form, "Sec-Fetch-Site", "cross-site", "Origin", "https://ops.example.com"), http.StatusSeeOther)
	if got := stateOf(t, store, id); got != "gone" {
		t.Errorf("the message is %s after an action from a trusted origin", got)
	}
}

func TestActionsDoWhatTheySayAndLeadBelowThePrefix(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{Actions: true})
	id := bury(t, store, "emails", "x", errors.New("no"))
	act := func(form url.Values) string {
		t.Helper()
		answer := post(t, address, form, "Sec-Fetch-Site", "same-origin")
		read(t, answer, http.StatusSeeOther)
		where, err := answer.Location()
		must(t, err)
		if !strings.HasPrefix(where.String(), address) {
			t.Fatalf("it leads to %s", where)
		}
		return get(t, where.String(), http.StatusOK)
	}
	want(t, act(url.Values{"do": {"redrive"}, "id": {fmt.Sprint(id)}}), "Redriven", `<span class="state ready">`)
	want(t, act(url.Values{"do": {"redrive"}, "id": {fmt.Sprint(id)}}), "Nothing was done")
	want(t, act(url.Values{"do": {"pause"}, "name": {"emails"}}), "Paused", `<span class="state paused">`)
	want(t, act(url.Values{"do": {"resume"}, "name": {"emails"}}), "Resumed")
	want(t, act(url.Values{"do": {"delete"}, "id": {fmt.Sprint(id)}, "name": {"emails"}}), "Deleted: 1 message")
	if got := stateOf(t, store, id); got != "gone" {
		t.Errorf("the message is %s", got)
	}
	first, second := bury(t, store, "emails", "x", errors.New("no")), bury(t, store, "emails", "y", errors.New("no"))
	want(t, act(url.Values{"do": {"redrive-all"}, "name": {"emails"}}), "Redriven: 2 dead letters")
	if a, b := stateOf(t, store, first), stateOf(t, store, second); a != pgqrs.Ready || b != pgqrs.Ready {
		t.Errorf("the messages are %s and %s", a, b)
	}
	want(t, read(t, post(t, address, url.Values{"do": {"pause"}, "name": {"nobody's"}}), http.StatusNotFound), "not there", "nobody&#39;s")
	want(t, read(t, post(t, address, url.Values{"do": {"redrive-all"}, "name": {"nobody's"}}), http.StatusNotFound), "not there", "nobody&#39;s")
	want(t, read(t, post(t, address, url.Values{"do": {"redrive-all"}}), http.StatusBadRequest), "needs the name of a queue")
	want(t, read(t, post(t, address, url.Values{"do": {"explode"}}), http.StatusBadRequest), "There is no action")
	want(t, read(t, post(t, address, url.Values{"do": {"delete"}, "id": {"1 or 1"}}), http.StatusBadRequest), "not an id")
}

func TestAKeyThatIsTakenIsExplained(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{Actions: true})
	id := bury(t, store, "emails", "x", errors.New("no"), pgqrs.Key("k"))
	enqueue(t, store, "emails", "y", pgqrs.Key("k"))
	want(t, read(t, post(t, address, url.Values{"do": {"redrive"}, "id": {fmt.Sprint(id)}}), http.StatusConflict), "key has been taken")
}

func TestMessagesAreListedPageByPageEachOnce(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{})
	payloads := make([]int, 120)
	ids, err := pgqrs.NewQueue[int](store, "emails").EnqueueBatch(t.Context(), payloads)
	must(t, err)
	seen := map[string]int{}
	pages := 0
	for page := "queue?name=emails"; page != ""; pages++ {
		body := get(t, address+page, http.StatusOK)
		for _, found := range regexp.MustCompile(`href="message\?id=(\d+)"`).FindAllStringSubmatch(body, -1) {
			seen[found[1]]++
		}
		page = ""
		if next := regexp.MustCompile(`rel="next" href="([^"]+)"`).FindStringSubmatch(body); next != nil {
			page = strings.ReplaceAll(next[1], "&amp;", "&")
		}
	}
	if pages != 3 || len(seen) != len(ids) {
		t.Errorf("%d messages on %d pages; want %d on 3", len(seen), pages, len(ids))
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("message %s was listed %d times", id, n)
		}
	}
	want(t, get(t, address+"queue?name=emails&after=yesterday", http.StatusBadRequest), "not a Cursor")
}

func TestSearchFindsByIDByKeyAndByText(t *testing.T) {
	d := newDemo(t)
	address := serve(t, d.store, dashboard.Options{})
	id := enqueue(t, d.store, "invoices", map[string]string{"customer": "Grace Hopper"}, pgqrs.Key("order:4711"), pgqrs.Delay(time.Hour))
	dead := bury(t, d.store, "invoices", 1, errors.New("the printer is on fire"))
	run, err := d.checkout.Start(t.Context(), "the order of Barbara Liskov", pgqrs.Key("run:42"))
	must(t, err)
	message, deadMessage, runPage := fmt.Sprintf(`href="message?id=%d"`, id), fmt.Sprintf(`href="message?id=%d"`, dead), fmt.Sprintf(`href="run?id=%d"`, run.ID())
	for query, link := range map[string]string{
		fmt.Sprint(id): message, "order:4711": message, "grace hopp": message, "PRINTER": deadMessage, "run:42": runPage, "barbara": runPage,
	} {
		want(t, get(t, address+"search?q="+url.QueryEscape(query), http.StatusOK), link)
	}
	want(t, get(t, address+"search?q=nothing+of+the+kind", http.StatusOK), "Nothing was found", "messages and")
}

// A queue that another program has made may have a name that the library refuses.
func TestSearchPassesOverQueuesWithOddNames(t *testing.T) {
	d := newDemo(t)
	address := serve(t, d.store, dashboard.Options{})
	id := enqueue(t, d.store, "invoices", "to ada", pgqrs.Key("k-1"), pgqrs.Delay(time.Hour))
	for _, name := range []string{" lead", "", "a\x01b"} {
		_, err := d.store.DB().ExecContext(t.Context(), "INSERT INTO pgqrs_queues (queue_name) VALUES (?)", name)
		must(t, err)
	}
	for _, query := range []string{"k-1", "to+ada"} {
		want(t, get(t, address+"search?q="+query, http.StatusOK), fmt.Sprintf(`href="message?id=%d"`, id))
	}
}

func TestEmptyPagesSayWhatToDo(t *testing.T) {
	address := serve(t, openStore(t), dashboard.Options{})
	want(t, get(t, address, http.StatusOK), "There are no queues yet", "Enqueue")
	want(t, get(t, address+"workers", http.StatusOK), "No worker lives")
	want(t, get(t, address+"runs", http.StatusOK), "There are no runs yet")
	want(t, get(t, address+"message?id=7", http.StatusNotFound), "It is not there")
	want(t, get(t, address+"message?id=seven", http.StatusBadRequest), "not an id")
	want(t, get(t, address+"queue?name=emails", http.StatusNotFound), "emails")
	answer, err := http.Post(address, "text/plain", nil)
	must(t, err)
	want(t, read(t, answer, http.StatusMethodNotAllowed), "only be read")
}

func TestADatabaseWithoutTablesIsExplained(t *testing.T) {
	store := openStore(t)
	must(t, store.Uninstall(t.Context()))
	address := serve(t, store, dashboard.Options{})
	want(t, get(t, address, http.StatusServiceUnavailable), "pgqrs install")
}

func TestQueuePageShowsThePolicy(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{})
	q := pgqrs.NewQueue[string](store, "emails").With(pgqrs.Policy{MaxLeased: 12, DeadLetter: `<b>`})
	must(t, q.Configure(t.Context()))
	want(t, get(t, address+"queue?name=emails", http.StatusOK), "Policy: 5 attempts", "12 leased at a time", "&lt;b&gt;")
}
