package dashboard

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
)

const (
	longestQuery = 16 << 10         // bytes
	longestForm  = 64 << 10         // bytes of the body of an action
	formTime     = 10 * time.Second // for the body to arrive
	shortToken   = 16               // characters of the shortest token
)

// Check returns an error if the options are invalid. Handler would panic with them.
func (o Options) Check() error {
	if o.Token != "" && (len(o.Token) < shortToken || strings.ContainsFunc(o.Token, notToken)) {
		return fmt.Errorf("the token needs %d characters at least, without spaces and control characters", shortToken)
	}
	for _, host := range o.Hosts {
		if _, err := hostName(host); err != nil {
			return err
		}
	}
	for _, origin := range o.TrustedOrigins {
		if err := checkOrigin(origin); err != nil {
			return err
		}
	}
	return nil
}

func notToken(r rune) bool { return r <= ' ' || r > '~' }

// A refusal states why a request is not served.
type refusal struct {
	status   int
	sentence string
	reason   string // the sentence without the request's texts
}

func refuse(status int, reason string, args ...any) *refusal {
	return &refusal{status, fmt.Sprintf(reason, args...), reason}
}

// admit returns why a request is refused before its content is read, or nil.
func (d *dashboard) admit(w http.ResponseWriter, r *http.Request) *refusal {
	if len(d.hosts) > 0 && !d.answersFor(r.Host) {
		return refuse(http.StatusMisdirectedRequest, "This dashboard does not answer for the host of this address. pgqrs serve names more hosts by -host, a program by Options.Hosts.")
	}
	if refused := checkBody(w, r); refused != nil {
		return refused
	}
	if len(r.URL.RawQuery) > longestQuery {
		return refuse(http.StatusRequestURITooLong, "This address is too long.")
	}
	if embedded(r) {
		return refuse(http.StatusForbidden, "The pages of this dashboard are not parts of other sites' pages.")
	}
	return nil
}

// answersFor reports whether the host of a request is one of the dashboard's own.
func (d *dashboard) answersFor(host string) bool {
	name, ok := cutPort(host)
	if !ok {
		return false
	}
	return d.hosts[name] || isLoopback(name)
}

// isLoopback reports whether a name of cutPort is "localhost" or a loopback address.
func isLoopback(name string) bool {
	address, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && address.Zone() == "" && address.IsLoopback()
}

// cutPort returns the name of a Host header as hostName does, without its port.
func cutPort(host string) (name string, ok bool) {
	if end := strings.LastIndexByte(host, ':'); end > strings.LastIndexByte(host, ']') {
		if len(host)-end > len(":65535") || strings.Trim(host[end+1:], "0123456789") != "" {
			return "", false
		}
		host = host[:end]
	}
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return "", false
	}
	name, err := hostName(host)
	return name, err == nil
}

// hostName returns a host name in lower case and without a dot at its end, or an address in its
// shortest form. An IPv6 address may stand in brackets.
func hostName(host string) (string, error) {
	bare, bracketed := host, strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]")
	if bracketed {
		bare = host[1 : len(host)-1]
	}
	address, err := netip.ParseAddr(bare)
	switch {
	case err == nil && address.Zone() == "" && (!bracketed || address.Is6()):
		return address.Unmap().String(), nil
	case err == nil || bracketed:
		return "", fmt.Errorf("%q is not an address that browsers send as a host", brief(host))
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	other := func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._", r)
	}
	if name == "" || strings.HasSuffix(name, ".") || strings.ContainsFunc(host, other) {
		return "", fmt.Errorf("%q is not a host name or an address without a port", brief(host))
	}
	return name, nil
}

// checkBody refuses every body except the form of an action. It limits the size of the form and the
// time to read it.
func checkBody(w http.ResponseWriter, r *http.Request) *refusal {
	if r.ContentLength == 0 {
		return nil
	}
	// The server would read what is left of a refused body.
	w.Header().Set("Connection", "close")
	deadline := time.Now().Add(formTime)
	if err := http.NewResponseController(w).SetReadDeadline(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return refuse(http.StatusBadRequest, "The connection is broken.")
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Method != http.MethodPost || !isAction(r):
		return refuse(http.StatusBadRequest, "This page takes no body.")
	case err != nil || kind != "application/x-www-form-urlencoded":
		return refuse(http.StatusUnsupportedMediaType, "An action is a form of the type application/x-www-form-urlencoded.")
	case r.ContentLength > longestForm:
		return refuse(http.StatusRequestEntityTooLarge, "This form is too long.")
	}
	w.Header().Del("Connection")
	r.Body = http.MaxBytesReader(w, r.Body, longestForm)
	return nil
}

// readForm reads the form of an action. Its fields come from the body alone, which the application
// may have read already.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, *refusal) {
	err := r.ParseForm()
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
		return nil, refuse(http.StatusRequestEntityTooLarge, "This form is too long.")
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, refuse(http.StatusRequestTimeout, "The form did not arrive in time.")
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "This form makes no sense.")
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, refuse(http.StatusBadRequest, "The connection is broken.")
	}
	return r.PostForm, nil
}

// embedded reports whether a browser asks for a part of another site's page, such as a picture or a
// frame. The other site could measure how long a search takes.
func embedded(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return false
	}
	document := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	return !document && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// A pass checks that requests know the token. The nil pass admits all of them.
type pass struct {
	token        [sha256.Size]byte // its hash
	name, cookie string            // name and value of the cookie
}

// newPass derives the cookie from the token. The name of the cookie differs between tokens, because
// dashboards on other ports of the same host share cookies. The value does not reveal the token.
func newPass(token string) *pass {
	if token == "" {
		return nil
	}
	derive := func(what string) string {
		mac := hmac.New(sha256.New, []byte(token))
		mac.Write([]byte("pgqrs dashboard " + what)) // it never fails
		return hex.EncodeToString(mac.Sum(nil))
	}
	return &pass{sha256.Sum256([]byte(token)), "pgqrs-" + derive("name")[:8], derive("cookie")}
}

// is reports whether a text is the token. The time it takes does not depend on where they differ.
func (p *pass) is(text string) bool {
	sum := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(sum[:], p.token[:]) == 1
}

// borne reports whether a request carries the token in its Authorization header. No browser sends
// that by itself.
func (p *pass) borne(r *http.Request) bool {
	if p == nil {
		return false
	}
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.EqualFold(scheme, "Bearer") && p.is(text)
}

// proven reports whether a request proves the token by its header or its cookie.
func (p *pass) proven(r *http.Request) bool {
	if p == nil || p.borne(r) {
		return true
	}
	for _, c := range r.CookiesNamed(p.name) {
		if subtle.ConstantTimeCompare([]byte(c.Value), []byte(p.cookie)) == 1 {
			return true
		}
	}
	return false
}

// enter reports whether a request may go on. Otherwise it answers the request: with the cookie if
// the address has the token, or else with 401.
func (d *dashboard) enter(w http.ResponseWriter, r *http.Request) bool {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	query := r.URL.Query()
	switch {
	case d.pass != nil && read && query.Has("token") && d.pass.is(query.Get("token")):
		query.Del("token")
		d.signIn(w, r, query)
		return false
	case d.pass.proven(r):
		return true
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="pgqrs"`)
	d.turnAway(w, r, refuse(http.StatusUnauthorized, "This dashboard asks for a token. Open the address with ?token= that it was started with, or send the header \"Authorization: Bearer\" with the token."))
	return false
}

// signIn sets the cookie and redirects the browser to the page without the token in its address.
// The cookie has no path of its own, so it goes only to pages beside this one.
func (d *dashboard) signIn(w http.ResponseWriter, r *http.Request, query url.Values) {
	http.SetCookie(w, &http.Cookie{Name: d.pass.name, Value: d.pass.cookie, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: encrypted(r)})
	page := "./"
	if name := strings.TrimPrefix(r.URL.Path, "/"); pages[name] != nil {
		page += name
	}
	if len(query) > 0 {
		page += "?" + query.Encode()
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		w.Header().Set("Location", page)
		w.WriteHeader(http.StatusSeeOther)
	// A browser that follows a link of another site sends a strict cookie only from the next page
	// on.
	default:
		w.Header().Set("Refresh", "0; url="+page)
		d.plain(w, http.StatusOK, "The dashboard opens.")
	}
}

// encrypted reports whether the connection of a browser is encrypted. If TLS ends at a proxy, the
// browser's headers show it: browsers send Sec-Fetch-Site only over TLS and to their own machine.
func encrypted(r *http.Request) bool {
	name, ok := cutPort(r.Host)
	local := !ok || isLoopback(name) || strings.HasSuffix(name, ".localhost")
	return r.TLS != nil || r.Header.Get("Sec-Fetch-Site") != "" && !local
}

// anyRequest is the reason of all refusals of requests whose content has not been read.
const anyRequest = "request"

// turnAway answers a request that is refused, and logs it.
func (d *dashboard) turnAway(w http.ResponseWriter, r *http.Request, why *refusal) {
	if unlogged, ok := d.refused.due(anyRequest, time.Now()); ok {
		d.log.Warn("dashboard: request refused", "status", why.status, "remote", brief(r.RemoteAddr), "host", brief(r.Host),
			"method", brief(r.Method), "path", brief(r.URL.Path), "unlogged", unlogged)
	}
	d.plain(w, why.status, why.sentence)
}

// plain writes a sentence as plain text.
func (d *dashboard) plain(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, sentence+"\n") // an error means that the client has gone
}

// refusals limit the log to one refusal a second for each reason, because anybody can cause
// refusals.
type refusals struct {
	mu      sync.Mutex
	reasons map[string]*refusalCount // constants of this package
}

// A refusalCount counts the refusals for one reason.
type refusalCount struct {
	last     time.Time // of the last record
	unlogged int       // since then
}

// due reports whether a refusal is logged, and how many were left out since the last record of its
// reason.
func (f *refusals) due(reason string, now time.Time) (unlogged int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reasons == nil {
		f.reasons = map[string]*refusalCount{}
	}
	count := f.reasons[reason]
	if count == nil {
		count = &refusalCount{}
		f.reasons[reason] = count
	}
	if now.Sub(count.last) < time.Second {
		count.unlogged++
		return 0, false
	}
	unlogged, count.unlogged, count.last = count.unlogged, 0, now
	return unlogged, true
}
