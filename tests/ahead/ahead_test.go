package ahead_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/internal/ahead"

	_ "github.com/ncruces/go-sqlite3/driver"
)

func openStore(t *testing.T) *pgqrs.Store {
	t.Helper()
	store, err := pgqrs.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "ahead.db"))
	must(t, err)
	t.Cleanup(func() { store.Close() })
	must(t, store.Install(t.Context()))
	return store
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// of returns what a message waits for: ids with their states, and whether there may be more.
func of(t *testing.T, store *pgqrs.Store, id int64) string {
	t.Helper()
	list, err := store.Messages(t.Context(), pgqrs.MessageFilter{IDs: []int64{id}})
	must(t, err)
	w, err := ahead.Of(t.Context(), store, list[0])
	must(t, err)
	text := ""
	for _, m := range w.Messages {
		text += fmt.Sprintf("%d %s, ", m.ID, m.State)
	}
	if w.Cut {
		text += "…"
	}
	return text
}

func TestAMessageOfAGroupWaitsForItsHead(t *testing.T) {
	store := openStore(t)
	q := pgqrs.NewQueue[int](store, "movements")
	add := func(options ...pgqrs.Option) int64 {
		t.Helper()
		id, err := q.Enqueue(t.Context(), 1, options...)
		must(t, err)
		return id
	}
	first, second := add(pgqrs.Group("a")), add(pgqrs.Group("a"))
	add(pgqrs.Group("b"))
	third := add(pgqrs.Group("a"))
	late := add(pgqrs.Group("c"), pgqrs.Delay(time.Hour))
	behind := add(pgqrs.Group("c"))
	for id, want := range map[int64]string{
		first: "", second: fmt.Sprintf("%d ready, ", first), third: fmt.Sprintf("%d ready, ", first), behind: fmt.Sprintf("%d scheduled, ", late),
	} {
		if got := of(t, store, id); got != want {
			t.Errorf("message %d waits for %q; want %q", id, got, want)
		}
	}
	ms, err := q.Dequeue(t.Context(), 1, time.Hour)
	must(t, err)
	if got, want := of(t, store, third), fmt.Sprintf("%d leased, ", first); got != want {
		t.Errorf("it waits for %q; want %q", got, want)
	}
	must(t, q.Ack(t.Context(), ms...))
	if got, want := of(t, store, third), fmt.Sprintf("%d ready, ", second); got != want {
		t.Errorf("it waits for %q; want %q", got, want)
	}
}

func TestTheHeadOfAGroupIsFoundBehindOthers(t *testing.T) {
	store := openStore(t)
	q := pgqrs.NewQueue[int](store, "movements")
	_, err := q.EnqueueBatch(t.Context(), make([]int, 600))
	must(t, err)
	head, err := q.Enqueue(t.Context(), 1, pgqrs.Group("a"))
	must(t, err)
	id, err := q.Enqueue(t.Context(), 2, pgqrs.Group("a"))
	must(t, err)
	if got, want := of(t, store, id), fmt.Sprintf("%d ready, ", head); got != want {
		t.Errorf("it waits for %q; want %q", got, want)
	}
}

func TestAMessageThatWaitsForABatchWaitsForWhatHasNotEnded(t *testing.T) {
	store := openStore(t)
	letters, reports := pgqrs.NewQueue[int](store, "letters"), pgqrs.NewQueue[string](store, "reports")
	ids, err := letters.EnqueueBatch(t.Context(), []int{1, 2, 3}, pgqrs.Then(reports, "all sent"))
	must(t, err)
	_, err = letters.Enqueue(t.Context(), 4) // of no batch
	must(t, err)
	waiting, err := store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "reports", State: pgqrs.Blocked})
	must(t, err)
	id := waiting[0].ID
	if got, want := of(t, store, id), fmt.Sprintf("%d ready, %d ready, %d ready, ", ids[0], ids[1], ids[2]); got != want {
		t.Errorf("it waits for %q; want %q", got, want)
	}
	ms, err := letters.Dequeue(t.Context(), 2, time.Hour)
	must(t, err)
	must(t, letters.Ack(t.Context(), ms[0]))
	if got, want := of(t, store, id), fmt.Sprintf("%d leased, %d ready, ", ids[1], ids[2]); got != want {
		t.Errorf("it waits for %q; want %q", got, want)
	}
	_, err = letters.EnqueueBatch(t.Context(), make([]int, 30), pgqrs.Then(reports, "thirty"))
	must(t, err)
	waiting, err = store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "reports", State: pgqrs.Blocked})
	must(t, err)
	w, err := ahead.Of(t.Context(), store, waiting[1])
	must(t, err)
	if len(w.Messages) != ahead.Most || !w.Cut {
		t.Errorf("it waits for %d messages, cut %v", len(w.Messages), w.Cut)
	}
}
