package demo_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/cmd/pgqrs/internal/demo"

	_ "github.com/ncruces/go-sqlite3/driver"
)

func TestTheShopHasOneOfEachKind(t *testing.T) {
	store, err := pgqrs.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "shop.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- (&demo.Shop{Interval: 20 * time.Millisecond}).Run(ctx, store) }()

	seen := map[string]bool{}
	want := []string{"ready", "scheduled", "blocked", "leased", "archived", "dead", "paused", "worker", "SUCCESS", "ERROR", "RUNNING", "child", "schedule"}
	deadline := time.After(time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for missing(seen, want) != "" {
		select {
		case err := <-ended:
			t.Fatalf("the shop has closed: %v", err)
		case <-deadline:
			t.Fatalf("after a minute there is nothing %s; seen: %v", missing(seen, want), seen)
		case <-tick.C:
			look(t, store, seen)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func missing(seen map[string]bool, want []string) string {
	for _, what := range want {
		if !seen[what] {
			return what
		}
	}
	return ""
}

// look records the state of the store in seen.
func look(t *testing.T, store *pgqrs.Store, seen map[string]bool) {
	t.Helper()
	ctx := t.Context()
	queues, err := store.Queues(ctx)
	if err != nil {
		return // not installed yet
	}
	for _, q := range queues {
		for what, n := range map[string]int64{"ready": q.Ready, "scheduled": q.Scheduled, "blocked": q.Blocked, "leased": q.Leased, "archived": q.Archived, "dead": q.Dead} {
			seen[what] = seen[what] || n > 0
		}
		seen["paused"] = seen["paused"] || !q.PausedAt.IsZero()
	}
	workers, err := store.Workers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	seen["worker"] = len(workers) > 0
	schedules, err := store.Schedules(ctx)
	if err != nil {
		t.Fatal(err)
	}
	seen["schedule"] = len(schedules) > 0
	runs, err := store.Runs(ctx, pgqrs.RunFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range runs {
		seen[string(r.Status)] = true
		seen["child"] = seen["child"] || r.ParentID != 0
	}
}
