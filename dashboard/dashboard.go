// Package dashboard shows the queues, messages, workers, runs and schedules
// of a [pgqrs.Store] in a browser, and lets an operator act on them.
//
// The dashboard authenticates nobody by itself. Everybody who reaches it sees every payload, so
// the application has to protect it as docs/DASHBOARD.md shows.
//
//	mux.Handle("/queues/", auth(http.StripPrefix("/queues", dashboard.Handler(store, dashboard.Options{}))))
//
// The pages are made on the server and work without JavaScript; with it they
// renew themselves every two seconds while somebody looks. The Handler has no
// goroutine and writes nothing but what its actions do. It keeps a few minutes of
// counts in memory for its charts, which it takes when a page asks for them.
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

// Options say what a dashboard may do. The zero value shows everything and changes nothing.
type Options struct {
	// Actions allows to redrive and delete messages, to pause and resume queues, and to
	// change the course of workers, runs and schedules. Otherwise they are refused with 403.
	Actions bool
	// TrustedOrigins are other origins, such as "https://ops.example.com", whose
	// pages may send actions. A browser may send them from the dashboard's own
	// pages in any case, from all others never.
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
	// Token, if not empty, is what every request has to prove that it knows. Others get 401
	// Unauthorized. The address of a page with "?token=" and the token sets a cookie, by which
	// a browser proves it from then on. Another program sends the header "Authorization: Bearer"
	// with the token. A token has 16 characters or more, without spaces. Leave it empty where
	// the application authenticates requests itself.
	Token string
	// Actor names who sends a request, for the log of actions. Nil leaves the name out. The
	// dashboard calls Actor concurrently, once for each action that it does or refuses. It does
	// not call Actor if it refuses the request itself for its host, its token or its body. A panic
	// of Actor is logged and changes nothing else.
	Actor func(*http.Request) string
	// Title stands at the head of every page. Empty means "pgqrs".
	Title string
	// Logger receives a record of each action, done or refused, and of each error behind a
	// page. Texts in a record are cut to a line. Nil means silence.
	Logger *slog.Logger
}

// timeout bounds what one request asks of the database.
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
// application has to protect it with its own authentication, or to set Options.Token.
// Where there is neither, Options.Hosts keeps the scripts of other sites out.
//
// Handler does no I/O. Mount it at any path that ends in a slash, with [http.StripPrefix]; its
// links are relative. It is safe for concurrent use, and ends with the last reference to it.
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
		name, _ := hostName(host) // it has been checked
		d.hosts[name] = true
	}
	for _, origin := range options.TrustedOrigins {
		d.origins[origin] = true
	}
	return d
}

// pages are what there is to see, by path.
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

// ServeHTTP serves one page, file or action. All of them lie at one level, so
// that relative links between them hold wherever the dashboard is mounted.
func (d *dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	setHeaders(w.Header())
	if refused := d.admit(w, r); refused != nil {
		d.turnAway(w, r, refused)
		return
	}
	if r.URL.Path == "" && r.Method == http.MethodGet { // mounted without its slash, from where relative links would lead astray
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

// serve serves a request that is let in.
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

// original is the escaped path that the client asked for, before StripPrefix.
func original(r *http.Request) string {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		return ""
	}
	return u.EscapedPath()
}

// setHeaders keeps pages out of caches, frames and the reach of windows of other sites, and scripts
// and styles that are not the dashboard's own out of pages.
func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// problem says what an error means for who looks at the page.
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

// statusGone is for the client that has gone and will not read it.
const statusGone = 499

// A pageError is an error with what the page says about it, which never is what a driver says.
type pageError struct {
	error
	detail string
}

func (e *pageError) Unwrap() error { return e.error }

// missing is an ErrNotFound that says on its page what is not there.
func missing(format string, args ...any) error {
	return &pageError{pgqrs.ErrNotFound, fmt.Sprintf(format, args...)}
}

// invalid is an errInput that says on its page what makes no sense.
func invalid(format string, args ...any) error {
	return &pageError{errInput, fmt.Sprintf(format, args...)}
}

// errInput is matched by the errors of requests that no link or form here makes.
var errInput = errors.New("invalid request")
