package dashboard

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

//go:embed assets
var assets embed.FS

// files are served as they are.
var files = map[string]http.Handler{
	"style.css": file("style.css", "text/css; charset=utf-8"),
	"live.js":   file("live.js", "text/javascript; charset=utf-8"),
	"icon.svg":  file("icon.svg", "image/svg+xml"),
}

func file(name, kind string) http.Handler {
	content, err := fs.ReadFile(assets, "assets/"+name)
	if err != nil {
		panic(err) // the file is embedded
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
	})
}

// A view is a page to show.
type view struct {
	Page  string // name of the template and of the menu entry
	Title string
	Said  string // result of an action
	Live  bool   // the page renews itself
	Body  any

	Site    string // Options.Title
	Actions bool
	Query   string // text in the search box
}

var templates = parseTemplates("overview", "queue", "message", "workers", "runs", "run", "schedules", "schedule", "search", "problem")

func parseTemplates(names ...string) map[string]*template.Template {
	base := template.New("").Funcs(template.FuncMap{
		"number": number, "capped": capped, "span": span, "ago": ago, "clock": clock, "stamp": stamp,
		"text": printable, "pretty": pretty, "brief": brief[string], "line": brief[json.RawMessage], "size": size, "word": word, "escape": url.QueryEscape,
	})
	template.Must(base.ParseFS(assets, "assets/layout.html"))
	pages := map[string]*template.Template{}
	for _, name := range names {
		pages[name] = template.Must(template.Must(base.Clone()).ParseFS(assets, "assets/"+name+".html"))
	}
	return pages
}

// show writes a page, or the error that took its place. The text of an error that is not the
// dashboard's own is only logged.
func (d *dashboard) show(w http.ResponseWriter, v *view, err error) {
	if err == nil {
		d.write(w, http.StatusOK, v)
		return
	}
	status, sentence := problem(err)
	detail := ""
	if own := (*pageError)(nil); errors.As(err, &own) {
		detail = own.detail
	}
	if status >= http.StatusInternalServerError {
		id := rand.Text()[:8]
		d.log.Error("dashboard: page", "id", id, "error", brief(err.Error()))
		sentence += " The log has more, under the id " + id + "."
	}
	d.write(w, status, problemView(sentence, detail))
}

// refuse writes a page with a sentence.
func (d *dashboard) refuse(w http.ResponseWriter, status int, sentence string) {
	d.write(w, status, problemView(sentence, ""))
}

func problemView(sentence, detail string) *view {
	return &view{Page: "problem", Title: "Problem", Body: struct{ Sentence, Detail string }{sentence, detail}}
}

func (d *dashboard) write(w http.ResponseWriter, status int, v *view) {
	v.Site, v.Actions = d.options.Title, d.options.Actions
	var page bytes.Buffer
	if err := templates[v.Page].ExecuteTemplate(&page, "layout", v); err != nil {
		d.log.Error("dashboard: template", "page", v.Page, "error", brief(err.Error()))
		http.Error(w, "The page could not be made.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(page.Bytes()) // an error means that the client has gone
}

// field returns a field of a page's query.
func field(r *http.Request, name string) string { return textOf(r.URL.Query(), name) }

// textOf returns a field, without characters that no database accepts as text.
func textOf(fields url.Values, name string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(fields.Get(name), "\ufffd"), "\x00", "\ufffd")
}

// idOf returns the id in a request.
func idOf(r *http.Request) (int64, error) {
	id, err := strconv.ParseInt(field(r, "id"), 10, 64)
	if err != nil {
		return 0, invalid("%q is not an id", brief(field(r, "id")))
	}
	return id, nil
}

var messageStates = []pgqrs.MessageState{pgqrs.Ready, pgqrs.Scheduled, pgqrs.Blocked, pgqrs.Leased, pgqrs.Dead, pgqrs.Archived}

// nameIn returns the name in the form of an action. The dashboard's own forms escape it, as a link
// does, because a name that SQL has written may have control characters.
func nameIn(form url.Values) string {
	name, err := url.QueryUnescape(form.Get("escaped-name"))
	if err != nil || name == "" {
		return textOf(form, "name")
	}
	return textOf(url.Values{"name": {name}}, "name")
}

// word returns the text for the state of a message, a run, a step or a worker. SQL may have written
// any text.
func word(state any) string {
	switch s := fmt.Sprint(state); state {
	case pgqrs.Queued, pgqrs.Running, pgqrs.Paused, pgqrs.Cancelling, pgqrs.Cancelled:
		return strings.ToLower(s)
	case pgqrs.Succeeded:
		return "succeeded"
	case pgqrs.Failed:
		return "failed"
	default:
		return brief(s)
	}
}
