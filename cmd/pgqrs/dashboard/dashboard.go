// Package dashboard shows the queues, messages, workers, runs and schedules
// of a [pgqrs.Store] in a browser, and lets an operator act on them.
//
//	mux.Handle("/queues/", auth(http.StripPrefix("/queues", dashboard.Handler(store, dashboard.Options{}))))
//
// The pages are made on the server and work without JavaScript; with it they
// renew themselves every two seconds while somebody looks. The Handler has no
// goroutine and writes nothing but what its actions do. It keeps a few minutes of
// counts in memory for its charts, which it takes when a page asks for them.
//
// It knows no users: who reaches it sees every payload. Put the application's
// own authentication in front, as docs/DASHBOARD.md shows.
package dashboard

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
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
	// Title stands at the head of every page. Empty means "pgqrs".
	Title string
	// Logger is told of actions, and of errors behind a page. Nil means silence.
	Logger *slog.Logger
}

// timeout bounds what one request asks of the database.
const timeout = 10 * time.Second

type dashboard struct {
	store   *pgqrs.Store
	options Options
	log     *slog.Logger
	cross   *http.CrossOriginProtection
	samples samples
}

// Handler returns a handler that serves the dashboard of a store. It does no
// I/O. Mount it at any path that ends in a slash, with [http.StripPrefix]; its
// links are relative. It is safe for concurrent use, and ends with the last reference to it.
//
// It panics if a trusted origin is not of the form "scheme://host" or "scheme://host:port".
func Handler(store *pgqrs.Store, options Options) http.Handler {
	d := &dashboard{store: store, options: options, cross: http.NewCrossOriginProtection()}
	d.options.Title = cmp.Or(options.Title, "pgqrs")
	d.log = cmp.Or(options.Logger, slog.New(slog.DiscardHandler))
	for _, origin := range options.TrustedOrigins {
		if err := d.cross.AddTrustedOrigin(origin); err != nil {
			panic("dashboard: " + err.Error())
		}
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
	name := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case name == "action":
		d.act(ctx, w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		d.refuse(w, http.StatusMethodNotAllowed, "This page can only be read.")
	case r.URL.Path == "": // mounted without its slash, from where relative links would lead astray
		w.Header().Set("Location", "./"+path.Base(cmp.Or(original(r), "."))+"/")
		w.WriteHeader(http.StatusTemporaryRedirect)
	case pages[name] != nil:
		v, err := pages[name](d, ctx, r)
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

// setHeaders keeps pages out of caches and frames, and scripts and styles that
// are not the dashboard's own out of pages.
func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
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
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, "The database did not answer in time. Try again, or narrow down what you are looking for."
	}
	return http.StatusInternalServerError, "The database returned an error."
}

// errInput is matched by the errors of requests that no link or form here makes.
var errInput = errors.New("invalid request")
