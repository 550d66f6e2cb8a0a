package dashboard

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// silence is the time without a heartbeat after which the page shows a worker as silent.
const silence = 30 * time.Second

const maxWorkers = 500 // rows on the page

// A workerRow is a worker on its page.
type workerRow struct {
	pgqrs.WorkerInfo
	Word   string // its state, or "silent" if its heartbeat is overdue
	Silent bool
}

// workers shows the live workers, or all.
func (d *dashboard) workers(ctx context.Context, r *http.Request) (*view, error) {
	list, err := d.store.Workers(ctx)
	if err != nil {
		return nil, err
	}
	all := field(r, "all") != ""
	body := struct {
		Workers       []workerRow
		All           bool
		Stopped, Left int
	}{All: all}
	for _, w := range list {
		if w.State == pgqrs.WorkerStopped {
			body.Stopped++
			if !all && w.Leased == 0 {
				continue
			}
		}
		row := workerRow{WorkerInfo: w, Word: word(w.State)}
		// A consumer that calls Dequeue itself sends a heartbeat only with its calls.
		if row.Silent = w.State != pgqrs.WorkerStopped && w.State != pgqrs.WorkerReady && time.Since(w.HeartbeatAt) > silence; row.Silent {
			row.Word = "silent"
		}
		body.Workers = append(body.Workers, row)
	}
	slices.SortStableFunc(body.Workers, func(a, b workerRow) int {
		if order := last(a.State == pgqrs.WorkerStopped) - last(b.State == pgqrs.WorkerStopped); order != 0 {
			return order
		}
		return strings.Compare(a.Name, b.Name)
	})
	if n := len(body.Workers); n > maxWorkers {
		body.Workers, body.Left = body.Workers[:maxWorkers], n-maxWorkers
	}
	return &view{Page: "workers", Title: "Workers", Live: true, Body: body}, nil
}

// last sorts stopped workers behind the others.
func last(stopped bool) int {
	if stopped {
		return 1
	}
	return 0
}
