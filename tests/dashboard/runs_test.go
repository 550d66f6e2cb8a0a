package dashboard_test

import (
	"context"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/dashboard"
)

func TestARunShowsItsStepsAsATimeline(t *testing.T) {
	d := newDemo(t)
	address := serve(t, d.store, dashboard.Options{Actions: true})
	run, err := d.checkout.Start(t.Context(), "A-1001")
	must(t, err)
	page := fmt.Sprintf("%srun?id=%d", address, run.ID())
	eventually(t, "the run waits for its signal", func() bool {
		body := get(t, page, http.StatusOK)
		return strings.Contains(body, "cool off") && strings.Contains(body, ">waiting<")
	})
	must(t, approved.Send(t.Context(), d.store, run.ID(), true))
	_, err = run.Result(t.Context())
	must(t, err)
	body := get(t, page, http.StatusOK)
	want(t, body, "reserve", "charge", "approved", "ship", `<rect class="bar succeeded"`, `<span class="state succeeded">succeeded</span>`, "pay_8c1f")
	if strings.Contains(body, "data-live") {
		t.Error("the page of a run that has ended renews itself")
	}
	children, err := d.store.Runs(t.Context(), pgqrs.RunFilter{Parent: run.ID()})
	must(t, err)
	for _, child := range children {
		link := fmt.Sprintf(`<a href="run?id=%d">run %[1]d</a>`, child.ID)
		want(t, body, link+" parcel")
		want(t, get(t, fmt.Sprintf("%sruns?parent=%d", address, run.ID()), http.StatusOK), fmt.Sprintf(`<a href="run?id=%d">%[1]d</a>`, child.ID))
		want(t, get(t, fmt.Sprintf("%srun?id=%d", address, child.ID), http.StatusOK), fmt.Sprintf(`child of <a href="run?id=%d">`, run.ID()), "pack")
	}
	if len(children) != 2 {
		t.Errorf("the run has %d children, want 2", len(children))
	}
}

func TestARunOfManyChildrenShowsTheLatest(t *testing.T) {
	d := newDemo(t)
	many := pgqrs.NewWorkflow[int, int](d.store, "many")
	run, err := many.Start(t.Context(), 51)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- (&pgqrs.Worker{Handlers: []pgqrs.Handler{many.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
			all, err := d.parcel.Children(ctx, run, "boxes", make([]string, n))
			return len(all), err
		})}}).Run(ctx)
	}()
	_, err = run.Result(t.Context())
	must(t, err)
	stop()
	must(t, <-done)
	address := serve(t, d.store, dashboard.Options{})
	children, err := d.store.Runs(t.Context(), pgqrs.RunFilter{Parent: run.ID()})
	must(t, err)
	body := get(t, fmt.Sprintf("%srun?id=%d", address, run.ID()), http.StatusOK)
	all := fmt.Sprintf("runs?parent=%d", run.ID())
	want(t, body, all, fmt.Sprintf(">run %d<", children[0].ID), fmt.Sprintf(">run %d<", children[49].ID))
	if strings.Contains(body, fmt.Sprintf(">run %d<", children[50].ID)) {
		t.Error("the oldest of 51 children is on the page of its parent")
	}
	next := regexp.MustCompile(`rel="next" href="([^"]*)"`).FindStringSubmatch(get(t, address+all, http.StatusOK))
	if next == nil {
		t.Fatal("the list of the children has one page")
	}
	want(t, get(t, address+html.UnescapeString(next[1]), http.StatusOK), fmt.Sprintf(`>%d</a>`, children[50].ID))
	get(t, address+"runs?parent=x", http.StatusBadRequest)
}
