package main

import (
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/pgqrs/pgqrs-go"
)

// fits fails the test unless a table of one row fits on a terminal of 80 columns.
func fits[T any](t *testing.T, what string, row T, columns []column[T]) {
	t.Helper()
	var b strings.Builder
	if err := writeTable(&b, 80, []T{row}, columns); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := ansi.StringWidth(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("the table of %s is %d wide:\n%s", what, n, b.String())
		}
	}
}

// Every table fits on a terminal of 80 columns, even with large numbers and long names.
func TestTablesFitIn80Columns(t *testing.T) {
	long, now, many := strings.Repeat("long name ", 20), time.Now(), int64(99_999)
	depth := pgqrs.QueueDepth{Name: long, PausedAt: now, Ready: many, Scheduled: many, Blocked: many, Leased: many, Dead: many, ArchivedLastMinute: many, OldestReady: 99 * time.Hour, Workers: 99}
	alone := depth
	alone.PausedAt, alone.Workers = time.Time{}, 0
	fits(t, "stats of a queue without workers", pace{QueueDepth: alone, growth: -9999, known: true}, paceColumns)
	fits(t, "stats", pace{QueueDepth: depth, growth: -9999, known: true}, paceColumns)
	fits(t, "queues", pgqrs.QueueInfo{Name: long, PausedAt: now, Ready: many, Scheduled: many, Blocked: many, Leased: many, Dead: many, Archived: 99_999_999, OldestReady: 99 * time.Hour}, queueColumns)
	for _, state := range []pgqrs.MessageState{pgqrs.Ready, pgqrs.Blocked, pgqrs.Leased, pgqrs.Archived, pgqrs.Dead} {
		fits(t, string(state)+" messages", pgqrs.MessageInfo{ID: 999_999_999, Key: long, Group: long, LastError: long, Raw: []byte(long), Attempt: 99,
			DueAt: now, LeasedUntil: now, EndedAt: now, WorkerID: 1 << 48}, messageColumns(state))
	}
	fits(t, "workers", pgqrs.WorkerInfo{ID: 1 << 48, Name: long, Queue: long, State: "interrupted", Leased: 9999, StartedAt: now, HeartbeatAt: now}, workerColumns)
	fits(t, "runs", pgqrs.RunInfo{ID: 999_999_999, Workflow: long, Status: pgqrs.Cancelling, StartedAt: now, EndedAt: now.Add(99 * time.Hour), Key: long, Error: long}, runColumns)
	run := pgqrs.ScheduleRun{DueAt: now, RanAt: now, ByHand: true, MessageID: 999_999_999, RunID: 999_999_999, RunState: pgqrs.Cancelling}
	fits(t, "schedules", pgqrs.ScheduleInfo{Name: long, Rule: long, Zone: "Europe/Berlin", Queue: long, NextAt: now, PausedAt: now, Last: &run}, scheduleColumns)
	fits(t, "runs of a schedule", run, scheduleRunColumns)
}

func TestACutPayloadSaysHowLargeItIs(t *testing.T) {
	stored := []byte(`"` + strings.Repeat("a", 100))
	if got, want := listed(stored, 1<<20), stored[:40]; got != string(want)+"… cut, 1.0 MiB in all; the whole by id" {
		t.Errorf("got %q", got)
	}
	if got := listed([]byte(`{"a": 1}`), 8); got != `{"a":1}` {
		t.Errorf("of a whole one, got %q", got)
	}
}
