package dashboard_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/dashboard"
)

const token = "a-token-of-32-characters-for-tests"

// answer serves a request without a network.
func answer(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// posted returns a request for an action as a browser sends it from the dashboard's own page.
func posted(form url.Values, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/action", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// A logbook keeps log records. It is safe for concurrent use.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func TestOtherHostsAreMisdirected(t *testing.T) {
	store := openStore(t)
	id := bury(t, store, "emails", "secret payload", errors.New("no"))
	h := dashboard.Handler(store, dashboard.Options{Actions: true, Hosts: []string{"Ops.Example.com", "2001:db8::1", "192.0.2.7"}})
	for host, status := range map[string]int{
		"localhost": 200, "localhost:8181": 200, "LOCALHOST:8181": 200, "localhost.": 200, "localhost.:80": 200,
		"127.0.0.1": 200, "127.0.0.1:8181": 200, "127.8.9.10": 200, "[::1]": 200, "[::1]:8181": 200, "[::ffff:127.0.0.1]:1": 200,
		"ops.example.com": 200, "OPS.EXAMPLE.COM.:443": 200, "[2001:db8:0::1]:80": 200, "192.0.2.7:80": 200,
		"": 421, "attacker.example": 421, "attacker.example:8181": 421, "localhost.attacker.example": 421, "attacker.localhost": 421,
		"127.0.0.1.attacker.example": 421, "127.0.0.1:8181:80": 421, "localhost:80@attacker.example": 421, "localhost:x": 421, "localhost..": 421,
		"[::1%25eth0]": 421, "[::1%eth0]:80": 421, "[::1": 421, "::1": 421, "[127.0.0.1]": 421, "[localhost]": 421, "127.1": 421, "2130706433": 421,
		"0.0.0.0": 421, "[::]": 421, ".": 421, ":8181": 421, "localho\u017ft": 421, "localhost ": 421, "192.0.2.8": 421, "sub.ops.example.com": 421,
	} {
		for _, path := range []string{"/", fmt.Sprintf("/payload?id=%d", id), "/style.css"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host = host
			r.Header.Set("X-Forwarded-Host", "localhost")
			r.Header.Set("Forwarded", "host=localhost")
			if w := answer(h, r); w.Code != status {
				t.Errorf("%s of host %q: status %d, want %d", path, host, w.Code, status)
			} else if status != 200 && strings.Contains(w.Body.String(), "secret") {
				t.Errorf("%s of host %q shows a payload", path, host)
			}
		}
	}
	r := posted(url.Values{"do": {"delete"}, "id": {fmt.Sprint(id)}}, "Origin", "http://attacker.example:8181")
	r.Host = "attacker.example:8181"
	if w := answer(h, r); w.Code != http.StatusMisdirectedRequest {
		t.Errorf("an action of another host: status %d", w.Code)
	}
	if got := stateOf(t, store, id); got != pgqrs.Dead {
		t.Errorf("the message is %s", got)
	}
}

// Clients of net/http do not send such requests. The server and the handler refuse them together.
func TestOddRequestsAreRefused(t *testing.T) {
	store := openStore(t)
	enqueue(t, store, "secret-queue", 1)
	server := httptest.NewServer(dashboard.Handler(store, dashboard.Options{Actions: true, Hosts: []string{"localhost"}}))
	t.Cleanup(server.Close)
	for request, want := range map[string]string{
		"GET / HTTP/1.0\r\n\r\n":                                                               "421",
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n":                                            "200",
		"GET http://attacker.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n":                     "421",
		"GET / HTTP/1.1\r\nHost: localhost\r\nHost: attacker.example\r\n\r\n":                  "400",
		"GET / HTTP/1.1\r\nHost: local\x00host\r\n\r\n":                                        "400",
		"TRACE / HTTP/1.1\r\nHost: localhost\r\nX-Secret: echo\r\n\r\n":                        "405",
		"OPTIONS / HTTP/1.1\r\nHost: localhost\r\n\r\n":                                        "405",
		"OPTIONS /action HTTP/1.1\r\nHost: localhost\r\n\r\n":                                  "405",
		"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n":                             "405",
		"HEAD /action?do=pause&name=secret-queue HTTP/1.1\r\nHost: localhost\r\n\r\n":          "405",
		"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n":                      "405",
		"GET /" + "?q=" + strings.Repeat("x", 20<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n": "414",
		"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n":                            "404",
		"GET /%0d%0aSet-Cookie:x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n":                        "404",
	} {
		got := raw(t, server.Listener.Addr().String(), request)
		if !strings.HasPrefix(got, "HTTP/1.1 "+want) && !strings.HasPrefix(got, "HTTP/1.0 "+want) {
			t.Errorf("%.100q is answered by %.200q, want %s", request, got, want)
		}
		if strings.Contains(got, "echo") || strings.Contains(got, "\nSet-Cookie") || want != "200" && strings.Contains(got, "secret-queue") {
			t.Errorf("%.100q is answered by %q", request, got)
		}
	}
	if list, err := store.Depths(t.Context(), "secret-queue"); err != nil || !list[0].PausedAt.IsZero() {
		t.Errorf("the queue is paused, or %v", err)
	}
}

// raw sends bytes and returns the answer.
func raw(t *testing.T, address, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = io.WriteString(conn, request)
	must(t, err)
	method, _, _ := strings.Cut(request, " ")
	got, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	must(t, err)
	defer got.Body.Close()
	text, err := httputil.DumpResponse(got, true)
	must(t, err)
	return string(text)
}

// A flood is an endless body that counts the bytes read of it.
type flood struct {
	left, read int64
	begin      string
}

func (f *flood) Read(p []byte) (int, error) {
	if f.read == f.left {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), f.left-f.read))
	for i := range p[:n] {
		p[i] = 'x'
	}
	if f.read == 0 {
		copy(p, f.begin)
	}
	f.read += int64(n)
	return n, nil
}

const formBegin = "--b\r\nContent-Disposition: form-data; name=\"do\"; filename=\"f\"\r\n\r\n"

// Bodies are refused before they are read into memory or spooled into files.
func TestGreatBodiesAreNotRead(t *testing.T) {
	store := openStore(t)
	spool := t.TempDir()
	t.Setenv("TMPDIR", spool)
	const size = 31 << 20
	for _, actions := range []bool{false, true} {
		h := dashboard.Handler(store, dashboard.Options{Actions: actions})
		for _, c := range []struct {
			method, path, kind string
			length             int64
			most               int64 // bytes that are read
		}{
			{"POST", "/action", "multipart/form-data; boundary=b", size, 0},
			{"POST", "/action", "multipart/form-data; boundary=b", -1, 0},
			{"POST", "/action", "application/x-www-form-urlencoded", size, 0},
			{"POST", "/action", "application/x-www-form-urlencoded", -1, 128 << 10},
			{"POST", "/action", "text/plain", 3, 0},
			{"POST", "/action", "", size, 0},
			{"POST", "/", "multipart/form-data; boundary=b", size, 0},
			{"GET", "/", "multipart/form-data; boundary=b", size, 0},
			{"GET", "/search?q=x", "multipart/form-data; boundary=b", -1, 0},
			{"GET", "/queue", "application/x-www-form-urlencoded", size, 0},
			{"GET", "/style.css", "text/plain", -1, 0},
			{"HEAD", "/message?id=1", "multipart/form-data; boundary=b", size, 0},
			{"GET", "/action", "multipart/form-data; boundary=b", size, 0},
			{"PUT", "/", "text/plain", size, 0},
		} {
			body := &flood{left: size, begin: formBegin}
			r := httptest.NewRequest(c.method, c.path, body)
			r.ContentLength = c.length
			r.Header.Set("Content-Type", c.kind)
			r.Header.Set("Sec-Fetch-Site", "same-origin")
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			w := answer(h, r)
			runtime.ReadMemStats(&after)
			if w.Code < 400 || w.Code >= 500 {
				t.Errorf("%s %s of %s: status %d", c.method, c.path, c.kind, w.Code)
			}
			if body.read > c.most {
				t.Errorf("%s %s of %s: %d bytes were read", c.method, c.path, c.kind, body.read)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
				t.Errorf("%s %s of %s: %d bytes were allocated", c.method, c.path, c.kind, n)
			}
		}
	}
	files, err := os.ReadDir(spool)
	must(t, err)
	if len(files) > 0 {
		t.Errorf("bodies were spooled into %v", files)
	}
}

func TestPagesReadTheQueryAndActionsTheForm(t *testing.T) {
	store := openStore(t)
	enqueue(t, store, "emails", 1)
	enqueue(t, store, "other", 1)
	h := dashboard.Handler(store, dashboard.Options{Actions: true})
	// The body names another queue than the query.
	r := httptest.NewRequest(http.MethodGet, "/queue?name=emails", strings.NewReader("name=other"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if w := answer(h, r); w.Code != http.StatusBadRequest {
		t.Errorf("a GET with a body: status %d", w.Code)
	}
	// The query of an action differs from its form.
	r = posted(url.Values{"name": {"emails"}})
	r.URL.RawQuery = "do=pause&name=emails"
	if w := answer(h, r); w.Code != http.StatusBadRequest {
		t.Errorf("an action by the query: status %d", w.Code)
	}
	r = posted(url.Values{"do": {"pause"}, "name": {"emails"}})
	r.URL.RawQuery = "do=resume&name=other"
	if w := answer(h, r); w.Code != http.StatusSeeOther {
		t.Errorf("an action by its form: status %d", w.Code)
	}
	for name, paused := range map[string]bool{"emails": true, "other": false} {
		list, err := store.Depths(t.Context(), name)
		must(t, err)
		if list[0].PausedAt.IsZero() == paused {
			t.Errorf("queue %s: paused at %v", name, list[0].PausedAt)
		}
	}
}

// A client that sends the form of an action byte by byte is disconnected.
func TestASlowBodyIsGivenUp(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds")
	}
	t.Parallel()
	server := httptest.NewServer(dashboard.Handler(openStore(t), dashboard.Options{Actions: true}))
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /action HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\ndo=")
	must(t, err)
	must(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	text, err := io.ReadAll(conn)
	must(t, err)
	if !strings.HasPrefix(string(text), "HTTP/1.1 408") {
		t.Errorf("a slow body is answered by %.200q", text)
	}
}

func TestAnActionWithoutOriginNeedsProof(t *testing.T) {
	store := openStore(t)
	enqueue(t, store, "emails", 1)
	form := url.Values{"do": {"pause"}, "name": {"emails"}}
	open := dashboard.Handler(store, dashboard.Options{Actions: true, TrustedOrigins: []string{"https://ops.example"}})
	closed := dashboard.Handler(store, dashboard.Options{Actions: true, Token: token})
	cookie := answer(closed, httptest.NewRequest(http.MethodGet, "/?token="+token, nil)).Result().Cookies()
	if len(cookie) != 1 {
		t.Fatalf("the token's address sets the cookies %v", cookie)
	}
	for _, c := range []struct {
		what    string
		h       http.Handler
		headers []string
		cookie  bool
		status  int
	}{
		{"nothing", open, []string{"Sec-Fetch-Site", ""}, false, 403},
		{"a bearer token where none is asked", open, []string{"Sec-Fetch-Site", "", "Authorization", "Bearer "}, false, 403},
		{"its own origin", open, []string{"Sec-Fetch-Site", "", "Origin", "http://example.com"}, false, 303},
		{"another origin", open, []string{"Sec-Fetch-Site", "", "Origin", "http://evil.example"}, false, 403},
		{"a trusted origin", open, []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://ops.example"}, false, 303},
		{"a trusted origin of an old browser", open, []string{"Sec-Fetch-Site", "", "Origin", "https://ops.example"}, false, 303},
		{"a trusted host with another scheme", open, []string{"Sec-Fetch-Site", "cross-site", "Origin", "http://ops.example"}, false, 403},
		{"an origin that hides itself", open, []string{"Sec-Fetch-Site", "", "Origin", "null"}, false, 403},
		{"its own origin as another site's", open, []string{"Sec-Fetch-Site", "same-site", "Origin", "http://example.com"}, false, 403},
		{"no token", closed, nil, false, 401},
		{"a cookie alone", closed, []string{"Sec-Fetch-Site", ""}, true, 403},
		{"a cookie and its own page", closed, nil, true, 303},
		{"a cookie and another site", closed, []string{"Sec-Fetch-Site", "cross-site"}, true, 403},
		{"a bearer token", closed, []string{"Sec-Fetch-Site", "", "Authorization", "Bearer " + token}, false, 303},
		{"a bearer token in lower case", closed, []string{"Sec-Fetch-Site", "", "Authorization", "bearer " + token}, false, 303},
		{"a bearer token from another site", closed, []string{"Sec-Fetch-Site", "cross-site", "Authorization", "Bearer " + token}, false, 403},
		{"a wrong bearer token", closed, []string{"Sec-Fetch-Site", "", "Authorization", "Bearer " + token + "x"}, false, 401},
		{"an empty bearer token", closed, []string{"Authorization", "Bearer "}, false, 401},
		{"the token of the query", closed, []string{"Sec-Fetch-Site", ""}, false, 401},
	} {
		must(t, store.ResumeQueue(t.Context(), "emails"))
		r := posted(form, c.headers...)
		r.URL.RawQuery = "token=" + token
		for name, values := range r.Header {
			if values[0] == "" {
				r.Header.Del(name)
			}
		}
		if c.cookie {
			r.AddCookie(cookie[0])
		}
		if w := answer(c.h, r); w.Code != c.status {
			t.Errorf("%s: status %d, want %d: %.200s", c.what, w.Code, c.status, w.Body)
		}
		list, err := store.Depths(t.Context(), "emails")
		must(t, err)
		if done := !list[0].PausedAt.IsZero(); done != (c.status == 303) {
			t.Errorf("%s: the queue is paused: %v", c.what, done)
		}
	}
}

func TestATokenIsAskedForEverywhere(t *testing.T) {
	store := openStore(t)
	id := enqueue(t, store, "secret-queue", "secret")
	h := dashboard.Handler(store, dashboard.Options{Token: token, Title: "secret title"})
	pages := []string{fmt.Sprintf("payload?id=%d", id), "nowhere", "action", "style.css", "?token=", "?token=" + token[1:], "?token=wrong&token=" + token, "?TOKEN=" + token}
	for _, page := range append(pages, everyPage...) {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
			r := httptest.NewRequest(method, "/"+page, nil)
			r.AddCookie(&http.Cookie{Name: "pgqrs", Value: token})
			w := answer(h, r)
			if w.Code != http.StatusUnauthorized || strings.Contains(w.Body.String(), "secret") || len(w.Result().Cookies()) > 0 {
				t.Errorf("%s %q: status %d, cookies %v\n%.300s", method, page, w.Code, w.Result().Cookies(), w.Body)
			}
		}
	}
	want(t, answer(h, httptest.NewRequest(http.MethodGet, "/", nil)).Body.String(), "token")
}

func TestTheAddressWithTheTokenSetsACookieAndLosesIt(t *testing.T) {
	store := openStore(t)
	enqueue(t, store, "emails", 1)
	mux := http.NewServeMux()
	mux.Handle("/ops/queues/", http.StripPrefix("/ops/queues", dashboard.Handler(store, dashboard.Options{Token: token})))
	mux.Handle("/ops/queues", http.StripPrefix("/ops/queues", dashboard.Handler(store, dashboard.Options{Token: token})))
	var seen []string // cookies that reach the rest of the application
	mux.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) { seen = append(seen, r.Header.Get("Cookie")) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	for from, to := range map[string]string{
		"/ops/queues/?token=" + token:                                  "/ops/queues/",
		"/ops/queues?token=" + token:                                   "/ops/queues/",
		"/ops/queues/queue?name=emails&token=" + token:                 "/ops/queues/queue?name=emails",
		"/ops/queues/queue?token=" + token + "&name=emails&state=dead": "/ops/queues/queue?name=emails&state=dead",
	} {
		jar, err := cookiejar.New(nil)
		must(t, err)
		client := &http.Client{Jar: jar}
		got, err := client.Get(server.URL + from)
		must(t, err)
		body := read(t, got, http.StatusOK)
		if at := got.Request.URL.RequestURI(); at != to {
			t.Errorf("%s leads to %s, want %s", from, at, to)
		}
		if strings.Contains(body, token) {
			t.Errorf("%s shows the token", from)
		}
		again, err := client.Get(server.URL + "/ops/queues/workers")
		must(t, err)
		read(t, again, http.StatusOK)
		other, err := client.Get(server.URL + "/other")
		must(t, err)
		read(t, other, http.StatusOK)
	}
	if strings.Join(seen, "") != "" {
		t.Errorf("the rest of the application gets the cookies %q", seen)
	}
	w := answer(dashboard.Handler(store, dashboard.Options{Token: token}), httptest.NewRequest(http.MethodGet, "//evil.example/?token="+token, nil))
	if got := w.Header().Get("Location"); got != "./" {
		t.Errorf("the address of another site leads to %q", got)
	}
	cookie := w.Result().Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || strings.Contains(cookie.Value, token) || cookie.Domain != "" || cookie.Path != "" {
		t.Errorf("the cookie is %s", cookie)
	}
	secure := httptest.NewRequest(http.MethodGet, "https://localhost/?token="+token, nil)
	if w := answer(dashboard.Handler(store, dashboard.Options{Token: token}), secure); !w.Result().Cookies()[0].Secure {
		t.Error("the cookie of a TLS connection is not Secure")
	}
	other := httptest.NewRequest(http.MethodGet, "/", nil)
	other.AddCookie(cookie)
	if w := answer(dashboard.Handler(store, dashboard.Options{Token: token + "2"}), other); w.Code != http.StatusUnauthorized {
		t.Errorf("the cookie of another token is answered with %d", w.Code)
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, options := range []dashboard.Options{
		{Token: "short"}, {Token: "sixteen characters with spaces"}, {Token: "control-\n-character"},
		{Hosts: []string{""}}, {Hosts: []string{"https://ops.example.com"}}, {Hosts: []string{"ops.example.com:443"}}, {Hosts: []string{"*"}}, {Hosts: []string{"a b"}}, {Hosts: []string{"fe80::1%eth0"}},
		{TrustedOrigins: []string{"ops.example.com"}},
	} {
		if options.Check() == nil {
			t.Errorf("%+v passes the check", options)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a Handler is made of %+v", options)
				}
			}()
			dashboard.Handler(nil, options)
		}()
	}
	must(t, dashboard.Options{Token: token, Hosts: []string{"a", "[::1]", "::1", "1.2.3.4", "b.example."}, TrustedOrigins: []string{"https://a"}}.Check())
}

// Another site cannot make the database work by pictures and scripts and measure the time.
func TestPagesAreNoPartsOfOtherSites(t *testing.T) {
	h := dashboard.Handler(openStore(t), dashboard.Options{})
	for _, c := range []struct {
		site, mode, dest string
		status           int
	}{
		{"cross-site", "no-cors", "image", 403}, {"same-site", "no-cors", "script", 403}, {"cross-site", "cors", "empty", 403}, {"cross-site", "navigate", "iframe", 403},
		{"cross-site", "navigate", "document", 200}, {"same-site", "navigate", "document", 200}, {"same-origin", "cors", "empty", 200}, {"none", "navigate", "document", 200}, {"", "", "", 200},
	} {
		r := httptest.NewRequest(http.MethodGet, "/search?q=x", nil)
		for name, value := range map[string]string{"Site": c.site, "Mode": c.mode, "Dest": c.dest} {
			if value != "" {
				r.Header.Set("Sec-Fetch-"+name, value)
			}
		}
		if w := answer(h, r); w.Code != c.status {
			t.Errorf("%+v: status %d", c, w.Code)
		}
	}
}

func TestANoticeCannotBeForged(t *testing.T) {
	store := openStore(t)
	first, second := bury(t, store, "emails", "x", errors.New("no")), bury(t, store, "emails", "y", errors.New("no"))
	h := dashboard.Handler(store, dashboard.Options{Actions: true})
	shows := func(h http.Handler, page string) bool {
		t.Helper()
		w := answer(h, httptest.NewRequest(http.MethodGet, "/"+page, nil))
		if w.Code != http.StatusOK {
			t.Fatalf("%s: status %d", page, w.Code)
		}
		return strings.Contains(w.Body.String(), `class="said"`)
	}
	real := answer(h, posted(url.Values{"do": {"redrive"}, "id": {fmt.Sprint(first)}})).Header().Get("Location")
	if !shows(h, real) {
		t.Errorf("%s shows no notice", real)
	}
	page, seal, _ := strings.Cut(real, "done=")
	parts := strings.Split(seal, ".")
	for _, forged := range []string{
		"?done=redrive&n=1", "message?id=" + fmt.Sprint(second) + "&done=redrive&n=1", "?done=redrive-all&n=1000000",
		fmt.Sprintf("message?id=%d&done=%s", second, seal), "queue?name=emails&done=" + seal, "?done=" + seal,
		page + "done=delete." + strings.Join(parts[1:], "."), page + "done=" + parts[0] + ".5." + strings.Join(parts[2:], "."),
		page + "done=" + strings.TrimSuffix(seal, seal[len(seal)-1:]), page + "done=", page + "done=...", page + "x=1&done=" + seal,
	} {
		if shows(h, forged) {
			t.Errorf("%s shows a notice", forged)
		}
	}
	if shows(dashboard.Handler(store, dashboard.Options{Actions: true}), real) {
		t.Error("another Handler shows the notice")
	}
}

func TestTheLogNamesWhoDidWhat(t *testing.T) {
	store := openStore(t)
	enqueue(t, store, "emails", 1)
	evil := "eve\nlevel=ERROR msg=forged\r\x1b[2J\u202e" + strings.Repeat("x", 5000)
	var book logbook
	h := dashboard.Handler(store, dashboard.Options{Actions: true, Logger: book.logger(), Actor: func(r *http.Request) string {
		switch who := r.Header.Get("X-User"); who {
		case "panic":
			panic("no such user\nlevel=ERROR")
		case "goexit":
			runtime.Goexit()
			return ""
		default:
			return who
		}
	}})
	readOnly := dashboard.Handler(store, dashboard.Options{Logger: book.logger(), Actor: func(*http.Request) string { return "bob" }})
	for _, c := range []struct {
		h      http.Handler
		form   url.Values
		header []string
		status int
		log    []string
	}{
		{h, url.Values{"do": {"pause"}, "name": {"emails"}}, []string{"X-User", "alice"}, 303, []string{"actor=alice", "remote=192.0.2.1:1234", "action=pause", "name=emails", "failed=false", "done=1"}},
		{h, url.Values{"do": {"pause"}, "name": {"none\n" + evil}}, []string{"X-User", "alice"}, 404, []string{"actor=alice", "action=pause", "failed=true", "level=WARN", "done=0"}},
		{h, url.Values{"do": {"explode" + evil}, "name": {"emails"}}, []string{"X-User", "alice"}, 400, []string{"refused", "actor=alice", "action=\"explodeeve", "remote=192.0.2.1:1234"}},
		{h, url.Values{"do": {"pause"}, "name": {"emails"}}, []string{"X-User", evil}, 303, []string{"actor=\"eve", "failed=false"}},
		{h, url.Values{"do": {"pause"}, "name": {"emails"}}, []string{"X-User", "panic"}, 303, []string{"Actor", "panic", "action=pause"}},
		{h, url.Values{"do": {"pause"}, "name": {"emails"}}, []string{"X-User", "goexit"}, 303, []string{"Actor", "Goexit", "action=pause"}},
		{h, url.Values{"do": {"pause"}, "name": {"emails"}}, []string{"X-User", "alice", "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example" + strings.Repeat("x", 5000)}, 403, []string{"refused", "actor=alice", "origin=https://evil.example"}},
		{readOnly, url.Values{"do": {"pause"}, "name": {"emails"}}, nil, 403, []string{"refused", "actor=bob", "read-only"}},
	} {
		book.text.Reset()
		if w := answer(c.h, posted(c.form, c.header...)); w.Code != c.status {
			t.Errorf("%.100v: status %d, want %d", c.form, w.Code, c.status)
		}
		got := book.String()
		for _, text := range c.log {
			if !strings.Contains(got, text) {
				t.Errorf("%.100v: the log lacks %q: %.1000s", c.form, text, got)
			}
		}
		for _, line := range strings.Split(strings.TrimSuffix(got, "\n"), "\n") {
			if len(line) > 1200 || strings.ContainsAny(line, "\x1b\r\u202e") || !strings.HasPrefix(line, "time=") {
				t.Errorf("%.100v: the log has the line %.1500q", c.form, line)
			}
		}
	}
}

// The form of an action on an id may claim any name. The log has the name of the database.
func TestTheLogNamesWhatTheDatabaseNames(t *testing.T) {
	store := openStore(t)
	id := bury(t, store, "emails", "x", errors.New("no"))
	run, err := pgqrs.NewWorkflow[int, int](store, "checkout").Start(t.Context(), 1)
	must(t, err)
	worker := workerOf(t, store)
	var book logbook
	h := dashboard.Handler(store, dashboard.Options{Actions: true, Logger: book.logger()})
	for _, c := range []struct {
		do   string
		id   int64
		page string // that follows
		log  string
	}{
		{"redrive", id, fmt.Sprintf("message?id=%d&", id), "name=emails"},
		{"cancel-run", run.ID(), fmt.Sprintf("run?id=%d&", run.ID()), "name=checkout"},
		{"suspend-worker", worker.ID, "workers?", "name=" + worker.Name},
		{"delete", id, "queue?name=emails&state=dead&", "name=emails"},
		{"delete", id, "queue?name=forged&state=dead&", `name=""`},
	} {
		book.text.Reset()
		w := answer(h, posted(url.Values{"do": {c.do}, "id": {fmt.Sprint(c.id)}, "name": {"forged"}}))
		if got := book.String(); w.Code != http.StatusSeeOther || !strings.Contains(got, c.log) || strings.Contains(got, "forged") {
			t.Errorf("%s: status %d, the log has: %s", c.do, w.Code, got)
		}
		if got := w.Header().Get("Location"); !strings.HasPrefix(got, c.page) {
			t.Errorf("%s leads to %s, want %s", c.do, got, c.page)
		}
	}
	w := answer(h, posted(url.Values{"do": {"delete"}, "id": {fmt.Sprint(id)}}))
	where := w.Header().Get("Location")
	if !strings.HasPrefix(where, "./?done=") {
		t.Fatalf("without a queue it leads to %s", where)
	}
	want(t, answer(h, httptest.NewRequest(http.MethodGet, "/"+strings.TrimPrefix(where, "./"), nil)).Body.String(), "Nothing was done")
}

// workerOf returns a worker of a queue, which has no process.
func workerOf(t *testing.T, store *pgqrs.Store) pgqrs.WorkerInfo {
	t.Helper()
	_, err := store.DB().ExecContext(t.Context(), "INSERT INTO pgqrs_workers (name, queue_id, status) SELECT 'web-7', id, 'ready' FROM pgqrs_queues LIMIT 1")
	must(t, err)
	list, err := store.Workers(t.Context())
	must(t, err)
	return list[len(list)-1]
}

// A brokenLog is a handler of an application that fails in every way.
type brokenLog struct{}

func (brokenLog) Enabled(context.Context, slog.Level) bool  { return true }
func (brokenLog) Handle(context.Context, slog.Record) error { panic("the log is full") }
func (brokenLog) WithAttrs([]slog.Attr) slog.Handler        { panic("the log is full") }
func (brokenLog) WithGroup(string) slog.Handler             { panic("the log is full") }

func TestALoggerThatPanicsChangesNothing(t *testing.T) {
	store := openStore(t)
	enqueue(t, store, "emails", 1)
	h := dashboard.Handler(store, dashboard.Options{Actions: true, Logger: slog.New(brokenLog{})})
	if w := answer(h, posted(url.Values{"do": {"pause"}, "name": {"emails"}})); w.Code != http.StatusSeeOther {
		t.Errorf("status %d", w.Code)
	}
}

// The error of a driver may name hosts, users and columns, so it belongs into the log only.
func TestErrorPagesShowNoTextOfTheDriver(t *testing.T) {
	store, db := openDB(t)
	id := enqueue(t, store, "emails", 1)
	var book logbook
	h := dashboard.Handler(store, dashboard.Options{Actions: true, Logger: book.logger()})
	answer(h, httptest.NewRequest(http.MethodGet, "/", nil)) // takes a sample
	must(t, db.Close())
	for _, page := range []string{"queue?name=emails", "queue?name=emails&after=2026-01-02+03:04:05/1", fmt.Sprintf("message?id=%d", id), fmt.Sprintf("payload?id=%d", id), "runs", "run?id=1", "schedules", "schedule?name=x", "workers", "search?q=x"} {
		w := answer(h, httptest.NewRequest(http.MethodGet, "/"+page, nil))
		noDriver(t, page, w)
	}
	noDriver(t, "an action", answer(h, posted(url.Values{"do": {"redrive"}, "id": {fmt.Sprint(id)}})))
	want(t, book.String(), "database is closed", "id=")
}

func noDriver(t *testing.T, what string, w *httptest.ResponseRecorder) {
	t.Helper()
	body := w.Body.String()
	if w.Code < 500 || !strings.Contains(body, "log") {
		t.Errorf("%s: status %d\n%.500s", what, w.Code, body)
	}
	for _, word := range []string{"closed", "sql:", "pgqrs:"} {
		if strings.Contains(body, word) {
			t.Errorf("%s shows what the driver says: %.900s", what, body)
		}
	}
}

func TestEveryAnswerIsolatesItself(t *testing.T) {
	h := dashboard.Handler(openStore(t), dashboard.Options{Token: token, Hosts: []string{"localhost"}})
	for _, r := range []*http.Request{
		httptest.NewRequest(http.MethodGet, "http://localhost/", nil), httptest.NewRequest(http.MethodGet, "http://evil.example/", nil),
		httptest.NewRequest(http.MethodGet, "http://localhost/?token="+token, nil), httptest.NewRequest(http.MethodDelete, "http://localhost/", nil),
	} {
		w := answer(h, r)
		for name, value := range map[string]string{
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY",
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "same-origin",
		} {
			if got := w.Header().Get(name); got != value {
				t.Errorf("%s %s: %s is %q", r.Method, r.URL, name, got)
			}
		}
		if !strings.HasPrefix(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s %s has no policy", r.Method, r.URL)
		}
	}
}

// Middleware of an application may have read the form already, to check a token of its own.
func TestAFormThatTheApplicationHasReadIsDone(t *testing.T) {
	store := openStore(t)
	enqueue(t, store, "emails", 1)
	h := dashboard.Handler(store, dashboard.Options{Actions: true})
	r := posted(url.Values{"do": {"pause"}, "name": {"emails"}})
	if got := r.FormValue("csrf"); got != "" {
		t.Fatal(got)
	}
	if w := answer(h, r); w.Code != http.StatusSeeOther {
		t.Errorf("status %d", w.Code)
	}
	list, err := store.Depths(t.Context(), "emails")
	must(t, err)
	if list[0].PausedAt.IsZero() {
		t.Error("the queue is not paused")
	}
}
