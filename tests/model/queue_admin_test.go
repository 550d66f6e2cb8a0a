package model_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
	"pgregory.net/rapid"
)

var allStates = []pgqrs.MessageState{pgqrs.Ready, pgqrs.Scheduled, pgqrs.Leased, pgqrs.Archived, pgqrs.Dead}

// drawIDs draws ids of messages, whether they exist or not.
func (m *queueMachine) drawIDs(rt *rapid.T) []int64 {
	if len(m.ids) == 0 {
		rt.Skip("nothing was ever enqueued")
	}
	return rapid.SliceOfN(rapid.SampledFrom(m.ids), 0, 4).Draw(rt, "ids")
}

func wantCount(rt *rapid.T, what string, got int64, err error, want int64) {
	rt.Helper()
	if err != nil || got != want {
		rt.Fatalf("%s: %d, %v; want %d", what, got, err, want)
	}
}

func (m *queueMachine) remove(rt *rapid.T) {
	ids := m.drawIDs(rt)
	n, err := m.admin.Delete(m.ctx(), ids...)
	wantCount(rt, "delete", n, err, m.model.remove(ids))
}

func (m *queueMachine) purge(rt *rapid.T) {
	name := rapid.SampledFrom(m.names).Draw(rt, "queue")
	state := rapid.SampledFrom(allStates).Draw(rt, "state")
	n, err := m.admin.Purge(m.ctx(), name, state)
	var ids []int64
	for _, msg := range m.model.list(name, state) {
		ids = append(ids, msg.id)
	}
	wantCount(rt, "purge", n, err, m.model.remove(ids))
}

func (m *queueMachine) redrive(rt *rapid.T) {
	ids := m.drawIDs(rt)
	n, err := m.admin.Redrive(m.ctx(), ids...)
	m.redriven(rt, ids, n, err)
}

func (m *queueMachine) redriveAll(rt *rapid.T) {
	name := rapid.SampledFrom(m.names).Draw(rt, "queue")
	n, err := m.admin.RedriveAll(m.ctx(), name)
	var ids []int64
	for _, msg := range m.model.list(name, pgqrs.Dead) {
		ids = append(ids, msg.id)
	}
	m.redriven(rt, ids, n, err)
}

func (m *queueMachine) redriven(rt *rapid.T, ids []int64, n int64, err error) {
	done, left := m.model.redrive(ids)
	if n != int64(len(done)) {
		rt.Fatalf("redrove %d, %v; want %v", n, err, done)
	}
	wantSentinel(rt, "redrive", err, pgqrs.ErrDuplicate, len(left) > 0)
	if len(left) > 0 && !strings.Contains(err.Error(), fmt.Sprint("messages ", left)) {
		rt.Fatalf("redrive: %v; want messages %v named", err, left)
	}
}

func (m *queueMachine) pause(rt *rapid.T) {
	name := rapid.SampledFrom(m.names).Draw(rt, "queue")
	paused := rapid.IntRange(0, 2).Draw(rt, "pause") == 0 // a queue that is paused tests little
	call := m.admin.ResumeQueue
	if paused {
		call = m.admin.PauseQueue
	}
	q := m.model.queues[name]
	wantSentinel(rt, "pause or resume", call(m.ctx(), name), pgqrs.ErrNotFound, q == nil)
	if q != nil {
		q.paused = paused
	}
}

func (m *queueMachine) drop(rt *rapid.T) {
	i := rapid.IntRange(0, 1).Draw(rt, "queue")
	rows := []*consumerRow{m.rows[i], m.rows[2+i]}
	used := slices.ContainsFunc(m.ids, func(id int64) bool { return m.model.messages[id] != nil && m.model.messages[id].queue == m.names[i] })
	for _, row := range rows {
		silent := m.model.now.Sub(row.beat)
		if row.made && silent > 20*time.Second && silent < time.Minute {
			rt.Skip("a worker is about to be silent for too long")
		}
		used = used || row.made && silent < time.Minute
	}
	err := m.admin.DropQueue(m.ctx(), m.names[i])
	if m.model.queues[m.names[i]] == nil {
		wantSentinel(rt, "drop", err, pgqrs.ErrNotFound, true)
		return
	}
	wantSentinel(rt, "drop", err, pgqrs.ErrState, used)
	if !used {
		delete(m.model.queues, m.names[i])
		*rows[0], *rows[1] = consumerRow{}, consumerRow{}
	}
}

func (m *queueMachine) suspend(rt *rapid.T) {
	row := m.rows[rapid.IntRange(0, 3).Draw(rt, "row")]
	if row.id == 0 {
		rt.Skip("the worker has no known row")
	}
	call := m.admin.SuspendWorker
	if row.suspended {
		call = m.admin.ResumeWorker
	}
	if err := call(m.ctx(), row.id); err != nil {
		rt.Fatal(err)
	}
	row.suspended = !row.suspended
}

// restart makes a consumer a new process. Its messages stay leased by the old process.
func (m *queueMachine) restart(rt *rapid.T) {
	c := rapid.IntRange(0, 1).Draw(rt, "consumer")
	if err := m.stores[c].Close(); err != nil {
		rt.Fatal(err)
	}
	m.stores[c] = pgqrs.New(m.db, m.admin.Dialect())
	m.rows[2*c], m.rows[2*c+1] = &consumerRow{}, &consumerRow{}
}

// advance brings the ends of delays and leases closer, by moving the times of all rows.
func (m *queueMachine) advance(rt *rapid.T) {
	d := time.Hour + hours.Draw(rt, "time")
	pgqrstest.Advance(m.t, m.admin, d)
	m.model.advance(d)
	for _, row := range m.rows {
		row.beat = row.beat.Add(-d)
	}
}

// compare compares every message that was ever enqueued, and the counts, with the model.
func (m *queueMachine) compare(rt *rapid.T) {
	now, err := m.engine.now(m.ctx(), m.db)
	if err != nil {
		rt.Fatal(err)
	}
	passed := now.Sub(m.model.now)
	m.model.now = now
	var infos []pgqrs.MessageInfo
	if len(m.ids) > 0 {
		if infos, err = m.admin.Messages(m.ctx(), pgqrs.MessageFilter{IDs: m.ids}); err != nil {
			rt.Fatal(err)
		}
	}
	for i := range infos {
		msg := m.model.messages[infos[i].ID]
		if msg == nil {
			rt.Fatalf("message %d is there; it was deleted, or its transaction rolled back", infos[i].ID)
		}
		m.same(rt, &infos[i], msg, passed)
	}
	if len(infos) != len(m.model.messages) {
		rt.Fatalf("there are %d messages; want %d", len(infos), len(m.model.messages))
	}
	m.compareCounts(rt)
}

// rounding is how much SQLite's clock may round a time, because it has milliseconds.
const rounding = 2 * time.Millisecond

// same compares a message with the model's message, and copies the exact times to the model.
func (m *queueMachine) same(rt *rapid.T, got *pgqrs.MessageInfo, want *modelMessage, passed time.Duration) {
	at := map[pgqrs.MessageState]time.Time{pgqrs.Ready: got.DueAt, pgqrs.Scheduled: got.DueAt, pgqrs.Leased: got.LeasedUntil, pgqrs.Archived: got.EndedAt, pgqrs.Dead: got.EndedAt}[got.State]
	early, late := want.at, want.at
	if want.about {
		early, late = early.Add(-rounding), late.Add(passed+rounding)
	}
	switch {
	case at.Before(early) || at.After(late):
		rt.Fatalf("message %d is %s, with the time %v; want one from %v to %v", got.ID, got.State, at, early, late)
	case got.State != m.model.state(want):
		rt.Fatalf("message %d is %s; want %s", got.ID, got.State, m.model.state(want))
	}
	want.at, want.about = at, false
	if want.holder.worker == 0 && want.holder.claim != 0 {
		want.holder.worker = got.WorkerID // of a row that is not known yet
	}
	type facts struct {
		Queue, Key, Payload string
		Priority, Attempt   int
		Claim, Worker       int64
		Headers             map[string]string
	}
	is := facts{got.Queue, got.Key, string(got.Raw), got.Priority, got.Attempt, got.Claim, got.WorkerID, got.Headers}
	should := facts{want.queue, want.key, want.payload, want.priority, want.attempts, want.claims, want.holder.worker, want.headers}
	if !reflect.DeepEqual(is, should) {
		rt.Fatalf("message %d is %+v; want %+v", got.ID, is, should)
	}
	if !strings.Contains(got.LastError, want.lastError) || (got.LastError == "") != (want.lastError == "") {
		rt.Fatalf("last error of message %d is %q; want %q", got.ID, got.LastError, want.lastError)
	}
}

func (m *queueMachine) compareCounts(rt *rapid.T) {
	infos, err := m.admin.Queues(m.ctx(), m.names...)
	if err != nil {
		rt.Fatal(err)
	}
	if len(infos) != len(m.model.queues) {
		rt.Fatalf("there are %d queues; want %d", len(infos), len(m.model.queues))
	}
	for n, name := range slices.Sorted(maps.Keys(m.model.queues)) {
		info := infos[n]
		got := map[pgqrs.MessageState]int64{pgqrs.Ready: info.Ready, pgqrs.Scheduled: info.Scheduled, pgqrs.Leased: info.Leased, pgqrs.Archived: info.Archived, pgqrs.Dead: info.Dead}
		want := map[pgqrs.MessageState]int64{}
		for _, state := range allStates {
			want[state] = int64(len(m.model.list(name, state)))
		}
		if info.Name != name || !maps.Equal(got, want) || !info.PausedAt.IsZero() != m.model.queues[name].paused {
			rt.Fatalf("queue is %+v; want %q, %v, paused: %v", info, name, want, m.model.queues[name].paused)
		}
	}
}

// list pages through every state of the queues.
func (m *queueMachine) list(rt *rapid.T) {
	limit := rapid.IntRange(1, 3).Draw(rt, "page")
	for _, name := range m.names {
		for _, state := range allStates {
			var got, want []int64
			f := pgqrs.MessageFilter{Queue: name, State: state, Limit: limit}
			for page := 0; ; page++ {
				ms, err := m.admin.Messages(m.ctx(), f)
				if err != nil {
					rt.Fatal(err)
				}
				if len(ms) == 0 || page > len(m.ids) {
					break
				}
				for _, msg := range ms {
					got = append(got, msg.ID)
				}
				f.After = ms[len(ms)-1].Cursor
			}
			for _, msg := range m.model.list(name, state) {
				want = append(want, msg.id)
			}
			if !slices.Equal(got, want) {
				rt.Fatalf("%s messages of %q are %v; want %v", state, name, got, want)
			}
		}
	}
}
