// Package dashboard serves web pages that show the queues, messages, workers, runs and schedules of
// a [pgqrs.Store]. Operators can act on them if Options.Actions allows it.
//
// The dashboard authenticates nobody by itself. Everybody who reaches it sees every payload, so the
// application has to protect it as docs/DASHBOARD.md shows.
//
//	pages := dashboard.Handler(store, dashboard.Options{})
//	mux.Handle("/queues/", auth(http.StripPrefix("/queues", pages)))
//
// The pages are made on the server and work without JavaScript. With JavaScript, a visible page
// renews itself every two seconds. The Handler starts no goroutine, and writes to the database only
// for actions. For its charts it keeps a few minutes of counts in memory, taken when a page asks
// for them.
package dashboard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// Options configure a dashboard. The zero value shows everything and allows no action.
type Options struct {
	// Actions allows actions: to redrive and delete messages, to pause and resume queues, and to
	// control workers, runs and schedules. Otherwise they are refused with 403 Forbidden.
	Actions bool
	// TrustedOrigins are other origins, such as "https://ops.example.com", whose pages may send
	// actions. The dashboard's own pages always may, and pages of all other origins never.
	TrustedOrigins []string
	// Hosts are the host names and addresses that the dashboard answers for, besides "localhost"
	// and loopback addresses. A request for another host gets 421 Misdirected Request. The port
	// of a request does not matter, and a name here has none. "localhost" alone means this machine
	// alone. Empty means that every host is answered.
	//
	// Set Hosts where a request needs no login, as on a developer's machine. A hostile site can
	// point its own name at that address, and its scripts then read the answers (DNS rebinding).
	// Behind a login Hosts is a second guard, because a browser sends cookies and passwords to
	// the names that they belong to.
	Hosts []string
	// Token, if not empty, is a secret that every request has to prove. Other requests get 401
	// Unauthorized. A browser opens the address of a page with "?token=" and the token. This sets a
	// cookie, which proves the token from then on. Other programs send the token in the header
	// "Authorization: Bearer". A token has 16 characters or more, without spaces. Leave it empty if
	// the application authenticates requests itself.
	Token string
	// Actor returns who sent a request, for the log of actions. Nil leaves the name out. The
	// dashboard calls Actor concurrently, once for each action that it executes, and for each
	// refused action that it logs. It does not call Actor if it refuses the request itself for its
	// host, its token or its body. A panic of Actor is logged and changes nothing else.
	Actor func(*http.Request) string
	// Title is the site's title, at the head of every page. Empty means "pgqrs".
	Title string
	// Logger receives a record of each executed action, of refused actions, and of each error
	// behind a page. It receives one refused action a second for each reason. Texts in a record are
	// cut to one line. Nil disables logging.
	Logger *slog.Logger
}

// timeout limits the database work of one request.
const timeout = 10 * time.Second

type dashboard struct {
	store   *pgqrs.Store
	options Options
	log     *slog.Logger
	origins map[string]bool // of Options.TrustedOrigins
	samples samples
	hosts   map[string]bool // of Options.Hosts
	pass    *pass
	sealer  sealer
	refused refusals
}

// Handler returns a handler that serves the dashboard of a store to everybody who reaches it. The
// application has to protect it with its own authentication, or to set Options.Token. Without
// either, set Options.Hosts, which keeps the scripts of other sites out.
//
// Handler does no I/O. It can be mounted at any path that ends in a slash, with [http.StripPrefix],
// because its links are relative. The handler is safe for concurrent use and needs no Close.
//
// Handler panics if options.Check returns an error.
func Handler(store *pgqrs.Store, options Options) http.Handler {
	if err := options.Check(); err != nil {
		panic("dashboard: " + err.Error())
	}
	d := &dashboard{store: store, options: options, hosts: map[string]bool{}, origins: map[string]bool{}}
	d.options.Title = cmp.Or(options.Title, "pgqrs")
	d.log, d.pass, d.sealer = foreign.NewLogger(options.Logger), newPass(options.Token), newSealer()
	for _, host := range options.Hosts {
		name, _ := hostName(host) // checked by Options.Check
		d.hosts[name] = true
	}
	for _, origin := range options.TrustedOrigins {
		d.origins[origin] = true
	}
	return d
}

// pages are the pages by path.
var pages = map[string]func(*dashboard, context.Context, *http.Request) (*view, error){
	"":        (*dashboard).overview,
	"queue":   (*dashboard).queue,
	"message": (*dashboard).message,
	"workers": (*dashboard).workers,
	"runs":    (*dashboard).runs,
	"run":     (*dashboard).run,
	"search":  (*dashboard).search,

	"schedules": (*dashboard).schedules,
	"schedule":  (*dashboard).schedule,
}

// ServeHTTP serves one page, file or action. All of them are at one level, so that relative links
// between them are valid wherever the dashboard is mounted.
func (d *dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	setHeaders(w.Header())
	if refused := d.admit(w, r); refused != nil {
		d.turnAway(w, r, refused)
		return
	}
	if r.URL.Path == "" && r.Method == http.MethodGet { // mounted without its slash, where relative links would be wrong
		where := url.URL{Path: "./" + path.Base(cmp.Or(original(r), ".")) + "/", RawQuery: r.URL.RawQuery}
		w.Header().Set("Location", where.String())
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	if d.enter(w, r) {
		d.serve(ctx, w, r)
	}
}

// isAction reports whether a request is for the address of all actions.
func isAction(r *http.Request) bool { return strings.TrimPrefix(r.URL.Path, "/") == "action" }

// serve serves a request that was admitted.
func (d *dashboard) serve(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case isAction(r):
		d.act(ctx, w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		d.refuse(w, http.StatusMethodNotAllowed, "This page can only be read.")
	case pages[name] != nil:
		v, err := pages[name](d, ctx, r)
		if err == nil {
			v.Said = d.said(r)
		}
		d.show(w, v, err)
	case name == "payload":
		d.payload(ctx, w, r)
	case files[name] != nil:
		files[name].ServeHTTP(w, r)
	default:
		d.refuse(w, http.StatusNotFound, "There is no such page.")
	}
}

// original returns the escaped path that the client asked for, before StripPrefix.
func original(r *http.Request) string {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		return ""
	}
	return u.EscapedPath()
}

// setHeaders keeps pages out of caches, frames and the reach of windows of other sites. It keeps
// foreign scripts and styles out of pages.
func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// problem returns the status and the sentence with which a page reports an error.
func problem(err error) (status int, sentence string) {
	switch {
	case errors.Is(err, errInput):
		return http.StatusBadRequest, "The address of this page makes no sense."
	case errors.Is(err, pgqrs.ErrNotInstalled):
		return http.StatusServiceUnavailable, "The tables are not there. Install them with \"pgqrs install\", or Store.Install."
	case errors.Is(err, pgqrs.ErrNotFound):
		return http.StatusNotFound, "It is not there. It may have been deleted, or its retention is over."
	case errors.Is(err, pgqrs.ErrDuplicate):
		return http.StatusConflict, "Its key has been taken by another message since. That one must end, or be deleted, first."
	case errors.Is(err, pgqrs.ErrState):
		return http.StatusConflict, "That cannot be done as things stand. They may have changed since the page was made."
	case errors.Is(err, context.Canceled):
		return statusGone, "The request was given up."
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, "The database did not answer in time. Try again, or narrow down what you are looking for."
	}
	return http.StatusInternalServerError, "The database returned an error."
}

// statusGone is logged for a client that has gone and will not read the answer.
const statusGone = 499

// A pageError is an error with the sentence that a page shows for it. The sentence never quotes the
// error of a driver.
type pageError struct {
	error
	detail string
}

func (e *pageError) Unwrap() error { return e.error }

// missing returns an ErrNotFound whose page names the missing thing.
func missing(format string, args ...any) error {
	return &pageError{pgqrs.ErrNotFound, fmt.Sprintf(format, args...)}
}

// invalid returns an errInput whose page names the invalid input.
func invalid(format string, args ...any) error {
	return &pageError{errInput, fmt.Sprintf(format, args...)}
}

// errInput is matched by the errors of requests that no link or form of the dashboard makes.
var errInput = errors.New("invalid request")
