package dashboard

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/ahead"
)

type header struct{ Name, Value string }

// message shows one message.
func (d *dashboard) message(ctx context.Context, r *http.Request) (*view, error) {
	m, err := d.find(ctx, r)
	if err != nil {
		return nil, err
	}
	wait, err := ahead.Of(ctx, d.store, m)
	if err != nil {
		return nil, err
	}
	body := struct {
		pgqrs.MessageInfo
		Wait          ahead.Wait
		HeaderList    []header
		Cut           bool // the payload is longer than the part that is shown
		Redrivable    bool
		PayloadLength int64
	}{MessageInfo: m, Wait: wait, HeaderList: headerList(m.Headers), Cut: len(m.Raw) > shownText, PayloadLength: m.PayloadSize,
		Redrivable: m.State == pgqrs.Dead || m.State == pgqrs.Archived}
	return &view{Page: "message", Title: "Message " + strconv.FormatInt(m.ID, 10), Live: true, Body: body}, nil
}

func headerList(headers map[string]string) []header {
	var list []header
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		list = append(list, header{name, headers[name]})
	}
	return list
}

// find reads the message that a request names.
func (d *dashboard) find(ctx context.Context, r *http.Request) (pgqrs.MessageInfo, error) {
	id, err := idOf(r)
	if err != nil {
		return pgqrs.MessageInfo{}, err
	}
	return d.store.Message(ctx, id)
}

// payload serves a message's payload as a file, byte by byte as it is stored.
func (d *dashboard) payload(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	m, err := d.find(ctx, r)
	if err != nil {
		d.show(w, nil, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="message-%d.json"`, m.ID))
	h.Set("Content-Length", strconv.Itoa(len(m.Raw)))
	if r.Method == http.MethodGet {
		w.Write(m.Raw) // an error means that the client has gone
	}
}
