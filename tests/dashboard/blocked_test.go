package dashboard_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/dashboard"
)

func TestABlockedMessageSaysWhatItWaitsFor(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{})
	hostile := `<script>alert(1)</script>`
	first := enqueue(t, store, "movements", 1, pgqrs.Group(hostile))
	second := enqueue(t, store, "movements", 2, pgqrs.Group(hostile))
	q := pgqrs.NewQueue[int](store, "movements").With(pgqrs.Policy{Backoff: func(int) time.Duration { return time.Hour }})
	page, link := fmt.Sprintf("%smessage?id=%d", address, second), fmt.Sprintf(`<a href="message?id=%d">message %d</a>`, first, first)
	want(t, get(t, page, http.StatusOK), "Waits for", link, "a worker takes it")
	ms, err := q.Dequeue(t.Context(), 1, time.Hour)
	must(t, err)
	want(t, get(t, page, http.StatusOK), link, "its lease ends", `<span class="state leased">`)
	must(t, q.Fail(t.Context(), fmt.Errorf("the ledger %s is closed", hostile), ms...))
	body := get(t, page, http.StatusOK)
	want(t, body, link, "it is due", "the ledger &lt;script&gt;")
	if strings.Contains(body, "<script>alert") {
		t.Error("an error is not escaped")
	}
	want(t, get(t, address+"queue?name=movements&state=blocked", http.StatusOK), "&lt;script&gt;", "waits for others of its group")
	want(t, get(t, address, http.StatusOK), `<a href="queue?name=movements&amp;state=blocked">1</a>`)
	if strings.Contains(get(t, fmt.Sprintf("%smessage?id=%d", address, first), http.StatusOK), "Waits for") {
		t.Error("a message that is not blocked says what it waits for")
	}
}

func TestAMessageThatWaitsForABatchSaysSo(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{})
	_, err := pgqrs.NewQueue[int](store, "letters").EnqueueBatch(t.Context(), []int{1, 2}, pgqrs.Then(pgqrs.NewQueue[int](store, "reports"), 3))
	must(t, err)
	list, err := store.Messages(t.Context(), pgqrs.MessageFilter{Queue: "reports", State: pgqrs.Blocked})
	must(t, err)
	want(t, get(t, fmt.Sprintf("%smessage?id=%d", address, list[0].ID), http.StatusOK), "of the batch", fmt.Sprintf("message?id=%d", list[0].ID+1), fmt.Sprintf("message?id=%d", list[0].ID+2))
}

func TestAQueueSaysThatItsLimitIsReached(t *testing.T) {
	store := openStore(t)
	address := serve(t, store, dashboard.Options{})
	q := pgqrs.NewQueue[int](store, "imports").With(pgqrs.Policy{MaxLeased: 2})
	must(t, q.Configure(t.Context()))
	_, err := q.EnqueueBatch(t.Context(), []int{1, 2, 3})
	must(t, err)
	_, err = q.Dequeue(t.Context(), 1, time.Hour)
	must(t, err)
	const full = "allows no more at a time"
	if strings.Contains(get(t, address+"queue?name=imports", http.StatusOK), full) {
		t.Error("it says so when there is room for one")
	}
	_, err = q.Dequeue(t.Context(), 1, time.Hour)
	must(t, err)
	eventually(t, "it says so", func() bool { return strings.Contains(get(t, address+"queue?name=imports", http.StatusOK), full) })
}

func TestAQueueSaysThatNoWorkerTakesFromIt(t *testing.T) {
	const mark, why = `<span class="state unattended">no worker</span>`, "No live worker takes messages from this queue"
	shown := func(t *testing.T, store *pgqrs.Store, want bool) {
		t.Helper()
		address := serve(t, store, dashboard.Options{}) // its samples are fresh
		for page, text := range map[string]string{address: mark, address + "queue?name=emails": why} {
			if got := strings.Contains(get(t, page, http.StatusOK), text); got != want {
				t.Errorf("%s says that there is no worker: %v, want %v", page, got, want)
			}
		}
	}
	store := openStore(t)
	enqueue(t, store, "emails", 1)
	shown(t, store, true)
	must(t, store.PauseQueue(t.Context(), "emails"))
	shown(t, store, false)
	must(t, store.ResumeQueue(t.Context(), "emails"))
	_, err := pgqrs.NewQueue[int](store, "emails").Dequeue(t.Context(), 1, time.Millisecond)
	must(t, err)
	enqueue(t, store, "emails", 2)
	shown(t, store, false)
}
