package faults_test

import (
	"database/sql"
	"fmt"

	"github.com/pgqrs/pgqrs-go/tests/internal/reliability"
)

// A found is the end of a message or run in the tables.
type found struct {
	dead     bool
	attempts int
	bookings map[string]int // by kind
}

// audit compares the acknowledgements that the application received with the tables, and reports
// the result.
func (w *workload) audit(db *sql.DB, fault, injected string, runs int) {
	w.t.Helper()
	messages := w.messages(db)
	ended := w.endedRuns(db)
	row := reliability.Row{Fault: fault, Injected: injected, Runs: runs}
	miss := func(count *int, format string, args ...any) {
		*count++
		if *count < 10 {
			w.t.Errorf(format, args...)
		}
	}
	for id, bad := range w.Bad {
		m, ok := messages[id]
		switch {
		case !ok:
			miss(&row.Lost, "message %d: its id was returned, and it is gone", id)
		case m.dead != bad:
			miss(&row.Lost, "message %d ended dead: %v, want %v, after %d attempts", id, m.dead, bad, m.attempts)
		}
	}
	for _, id := range w.Started {
		if _, ok := ended[id]; !ok {
			miss(&row.Lost, "run %d: its id was returned, and it is gone", id)
		}
	}
	burned := 0
	for id, m := range messages {
		row.Messages++
		if m.attempts > 1 && !w.leasesEnd {
			miss(&burned, "message %d took %d attempts: the fault has burned some", id, m.attempts)
		}
		switch n := m.bookings["order"]; {
		case n > 1 || n == 1 && m.dead:
			miss(&row.Doubled, "order %d was booked %d times; it is dead: %v", id, n, m.dead)
		case n == 0 && m.bookings != nil && !m.dead:
			miss(&row.Lost, "order %d is done, and was not booked", id)
		}
	}
	for id, r := range ended {
		if r.dead {
			miss(&row.Lost, "run %d did not succeed", id)
		}
		for _, kind := range []string{"reserve", "charge"} {
			switch n := r.bookings[kind]; {
			case n > 1:
				miss(&row.Doubled, "run %d: %s was booked %d times", id, kind, n)
			case n == 0:
				miss(&row.Lost, "run %d: %s is done, and was not booked", id, kind)
			}
		}
	}
	w.t.Logf("%d messages, %d of them runs; %d calls failed, such as: %v", row.Messages, len(ended), len(w.failures), w.sample())
	if len(w.Bad) == 0 || len(w.Started) == 0 {
		w.t.Errorf("%d messages and %d runs prove nothing", len(w.Bad), len(w.Started))
	}
	reliability.Report(w.t, row)
}

func (w *workload) sample() error {
	if len(w.failures) == 0 {
		return nil
	}
	return w.failures[len(w.failures)/2]
}

// messages reads all messages. Orders have an empty set of bookings.
func (w *workload) messages(db *sql.DB) map[int64]*found {
	w.t.Helper()
	all := map[int64]*found{}
	var id int64
	var f found
	var queue string
	w.read(db, "SELECT m.id, q.queue_name, m.failed_at IS NOT NULL, m.read_ct FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = m.queue_id",
		[]any{&id, &queue, &f.dead, &f.attempts}, func() {
			if f.bookings = nil; queue == "orders" {
				f.bookings = map[string]int{}
			}
			kept := f
			all[id] = &kept
		})
	w.bookings(db, "order", all)
	return all
}

// endedRuns reads all runs. A run that did not succeed counts as dead.
func (w *workload) endedRuns(db *sql.DB) map[int64]*found {
	w.t.Helper()
	all := map[int64]*found{}
	var id int64
	var failed bool
	w.read(db, "SELECT id, status <> 'SUCCESS' FROM pgqrs_workflow_runs", []any{&id, &failed}, func() {
		all[id] = &found{dead: failed, bookings: map[string]int{}}
	})
	for _, kind := range []string{"reserve", "charge"} {
		w.bookings(db, kind, all)
	}
	return all
}

// bookings reads the bookings of a kind, and adds them to their messages or runs.
func (w *workload) bookings(db *sql.DB, kind string, all map[int64]*found) {
	w.t.Helper()
	var id int64
	var n int
	w.read(db, fmt.Sprintf("SELECT id, count(*) FROM bookings WHERE kind = '%s' GROUP BY id", kind), []any{&id, &n}, func() {
		if f := all[id]; f == nil || f.bookings == nil {
			w.t.Errorf("%s of %d was booked %d times, and there is no such thing", kind, id, n)
		} else {
			f.bookings[kind] = n
		}
	})
}

func (w *workload) read(db *sql.DB, query string, into []any, row func()) {
	w.t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			w.t.Fatal(err)
		}
		row()
	}
	if err := rows.Err(); err != nil {
		w.t.Fatal(err)
	}
}
