package conformance

import (
	"context"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// The limits that the processes share.
var (
	threeHeld  = pgqrs.Policy{MaxLeased: 3}
	fiftyEach  = pgqrs.Rate{N: 10, Per: 200 * time.Millisecond}
	fiftyATime = pgqrs.Policy{Rate: fiftyEach}
)

func playHeld(ctx context.Context, a *actor) error { return a.workLimited(ctx, threeHeld) }

func playRate(ctx context.Context, a *actor) error { return a.workLimited(ctx, fiftyATime) }

// workLimited handles a queue with two workers.
func (a *actor) workLimited(ctx context.Context, p pgqrs.Policy) error {
	handler := pgqrs.NewQueue[int](a.store, "limited").With(p).Handle(func(ctx context.Context, m *pgqrs.Message[int]) error {
		if err := a.note(ctx, "message", m.Payload, begun); err != nil {
			return err
		}
		<-time.After(2 * time.Millisecond) // the work
		return a.note(ctx, "message", m.Payload, ended)
	})
	return a.work(ctx, &pgqrs.Worker{Handlers: []pgqrs.Handler{handler}}, &pgqrs.Worker{Handlers: []pgqrs.Handler{handler}})
}

// limited runs processes that handle messages under a limit, until all messages are done.
func (s *stage) limited(t *testing.T, p pgqrs.Policy) {
	t.Helper()
	q := pgqrs.NewQueue[int](s.store, "limited").With(p)
	must(t, q.Configure(t.Context()))
	list := make([]int, 40*s.Scale)
	for i := range list {
		list[i] = i
	}
	value(q.EnqueueBatch(t.Context(), list))(t)
	children := make([]*process, s.number())
	for i := range children {
		children[i] = s.begin(t)
	}
	s.awaitArchived(t, "limited", len(list))
	dismiss(t, children...)
	seen := map[int]int{}
	for _, x := range s.notes(t) {
		if x.what == ended {
			seen[x.n]++
		}
	}
	for n := range list {
		equal(t, "times that a message was handled", seen[n], 1)
	}
}

// testHeld counts the notes, which are made after the claim and before the ack.
func testHeld(t *testing.T, s *stage) {
	s.limited(t, threeHeld)
	now, most := 0, 0
	for _, x := range s.notes(t) {
		if x.what == ended {
			now--
			continue
		}
		now++
		most = max(most, now)
	}
	if most > threeHeld.MaxLeased || most < 2 {
		t.Errorf("%d messages were held at a time; want %d at most, and more than one", most, threeHeld.MaxLeased)
	}
}

// claimTimes select when deliveries began, by the database's clock, in microseconds.
var claimTimes = map[pgqrs.Dialect]string{
	pgqrs.Postgres: `SELECT (extract(epoch FROM dequeued_at) * 1000000)::bigint FROM pgqrs_messages ORDER BY 1`,
	pgqrs.SQLite:   `SELECT CAST((julianday(dequeued_at) - 2440587.5) * 86400000000 AS INTEGER) FROM pgqrs_messages ORDER BY 1`,
}

func testRate(t *testing.T, s *stage) {
	s.limited(t, fiftyATime)
	text := claimTimes[pgqrs.SQLite]
	if s.store.Dialect() == pgqrs.Postgres {
		text = claimTimes[pgqrs.Postgres]
	}
	rows := value(s.store.DB().QueryContext(t.Context(), text))(t)
	defer rows.Close()
	var at []time.Duration
	for rows.Next() {
		var micros int64
		must(t, rows.Scan(&micros))
		at = append(at, time.Duration(micros)*time.Microsecond)
	}
	must(t, rows.Err())
	for i := range at {
		for j := i; j < len(at); j++ {
			within := at[j] - at[i] + 2*time.Millisecond // the resolution of SQLite's clock
			if n, most := j-i+1, fiftyEach.N+int(within*time.Duration(fiftyEach.N)/fiftyEach.Per); n > most {
				t.Fatalf("%d deliveries began within %v; want %d at most", n, within, most)
			}
		}
	}
}
