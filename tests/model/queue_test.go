package model_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"pgregory.net/rapid"
)

// TestQueue executes random operations of two consumers on two queues. After each operation it
// compares everything that can be read from the queues with the model.
func TestQueue(t *testing.T) {
	eachEngine(t, "any order of operations on queues", func(t *testing.T, e engine, s *pgqrs.Store, rt *rapid.T) int {
		m := newQueueMachine(t, e, s, rt)
		defer m.close()
		m.enqueueBatch(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"":            m.compare,
			"enqueue":     m.enqueue,
			"batch":       m.enqueueBatch,
			"dequeue":     m.dequeue,
			"dequeue too": m.dequeue,
			"ack":         m.ack,
			"release":     m.release,
			"fail":        m.fail,
			"extend":      m.extend,
			"delete":      m.deleteHeld,
			"transaction": m.transaction,
			"operator":    oneOf(m.remove, m.redrive, m.redriveAll, m.purge),
			"surrounding": oneOf(m.pause, m.drop, m.suspend, m.restart),
			"advance":     m.advance,
			"list":        m.list,
		})
		m.list(rt)
		return len(m.ids)
	})
}

// oneOf combines several rare operations into one.
func oneOf(ops ...func(*rapid.T)) func(*rapid.T) {
	return func(rt *rapid.T) { ops[rapid.IntRange(0, len(ops)-1).Draw(rt, "operation")](rt) }
}

// Delays and leases are whole hours, and time moves by whole hours. So the real time of a sequence
// never makes anything due.
var hours = rapid.Map(rapid.IntRange(0, 3), func(n int) time.Duration { return time.Duration(n) * time.Hour })

var policies = map[int]pgqrs.Policy{ // by the index of a queue
	0: {MaxAttempts: 2, Backoff: func(attempt int) time.Duration { return time.Duration(attempt) * time.Hour }},
	1: {MaxAttempts: -1, Backoff: func(int) time.Duration { return 0 }},
}

// A queueMachine executes operations on the library and on the model.
type queueMachine struct {
	t      *testing.T
	engine engine
	db     *sql.DB
	admin  *pgqrs.Store
	tx     *sql.Tx // nil if none is open
	model  *queueModel

	names   []string
	stores  []*pgqrs.Store        // of the consumers
	rows    []*consumerRow        // by consumer and queue
	ids     []int64               // of all messages ever
	hands   []*pgqrs.Message[int] // all deliveries ever
	settled []*pgqrs.Message[int] // the deliveries of the latest settlement
}

// A consumerRow is the worker row behind a store's Dequeue calls on a queue.
type consumerRow struct {
	made      bool
	id        int64 // 0 if it is not known
	suspended bool
	beat      time.Time
}

func newQueueMachine(t *testing.T, e engine, s *pgqrs.Store, rt *rapid.T) *queueMachine {
	m := &queueMachine{t: t, engine: e, db: s.DB(), admin: s}
	// Every sequence has new names, because the queues of earlier sequences may still exist.
	prefix := fmt.Sprint("q", time.Now().UnixNano())
	m.names = []string{prefix + "a", prefix + "b"}
	now, err := e.now(t.Context(), m.db)
	if err != nil {
		rt.Fatal(err)
	}
	m.model = newQueueModel(now)
	for range 2 {
		m.stores = append(m.stores, pgqrs.New(m.db, s.Dialect()))
		m.rows = append(m.rows, &consumerRow{}, &consumerRow{})
	}
	return m
}

func (m *queueMachine) close() {
	for _, s := range m.stores {
		if err := s.Close(); err != nil {
			m.t.Error(err)
		}
	}
	ctx := context.WithoutCancel(m.t.Context())
	if _, err := m.admin.Delete(ctx, m.ids...); err != nil {
		m.t.Error(err)
	}
}

func (m *queueMachine) ctx() context.Context { return m.t.Context() }

// drawQueue returns a queue, in the transaction if one is open, and its index.
func drawQueue[T any](m *queueMachine, rt *rapid.T, s *pgqrs.Store) (*pgqrs.Queue[T], int) {
	i := rapid.IntRange(0, 1).Draw(rt, "queue")
	return boundQueue[T](m, s, i), i
}

func boundQueue[T any](m *queueMachine, s *pgqrs.Store, i int) *pgqrs.Queue[T] {
	q := pgqrs.NewQueue[T](s, m.names[i]).With(policies[i])
	if m.tx != nil {
		return q.WithTx(m.tx)
	}
	return q
}

// A draft is a message to enqueue.
type draft struct {
	payload  any
	delay    time.Duration
	at       bool
	priority int
	key      string
	unique   bool
	headers  map[string]string
}

func drawDraft(rt *rapid.T) draft {
	d := draft{
		delay:    hours.Draw(rt, "delay"),
		at:       rapid.Bool().Draw(rt, "at"),
		priority: rapid.IntRange(-1, 2).Draw(rt, "priority"),
		key:      rapid.SampledFrom([]string{"", "", "k", "ключ'"}).Draw(rt, "key"),
		unique:   rapid.Bool().Draw(rt, "unique"),
	}
	if d.payload = any(rapid.IntRange(0, 1000).Draw(rt, "payload")); d.payload == 7 || rapid.IntRange(0, 15).Draw(rt, "poison") == 0 {
		d.payload = "poison"
	}
	if rapid.Bool().Draw(rt, "headers") {
		d.headers = map[string]string{"a": d.key, "b": `"`}
	}
	return d
}

func (d draft) options(now time.Time) []pgqrs.Option {
	opts := []pgqrs.Option{pgqrs.Priority(d.priority), pgqrs.Headers(d.headers)}
	if d.at {
		opts = append(opts, pgqrs.At(now.Add(d.delay)))
	} else {
		opts = append(opts, pgqrs.Delay(d.delay))
	}
	switch {
	case d.key != "" && d.unique:
		opts = append(opts, pgqrs.Unique(d.key))
	case d.key != "":
		opts = append(opts, pgqrs.Key(d.key))
	}
	return opts
}

func (m *queueMachine) enqueue(rt *rapid.T) {
	q, i := drawQueue[any](m, rt, m.admin)
	d := drawDraft(rt)
	id, err := q.Enqueue(m.ctx(), d.payload, d.options(m.model.now)...)
	m.stored(rt, i, []draft{d}, []int64{id}, err)
}

func (m *queueMachine) enqueueBatch(rt *rapid.T) {
	q, i := drawQueue[any](m, rt, m.admin)
	drafts := rapid.SliceOfN(rapid.Custom(drawDraft), 1, 4).Draw(rt, "batch")
	payloads := make([]any, len(drafts))
	for n, d := range drafts {
		payloads[n] = d.payload
	}
	ids, err := q.EnqueueBatch(m.ctx(), payloads, pgqrs.Each(func(n int) []pgqrs.Option { return drafts[n].options(m.model.now) }))
	if len(ids) != len(drafts) {
		rt.Fatalf("%d ids, %v; want %d", len(ids), err, len(drafts))
	}
	m.stored(rt, i, drafts, ids, err)
}

// stored adds messages to the model, and compares the call's result with the model's.
func (m *queueMachine) stored(rt *rapid.T, queue int, drafts []draft, ids []int64, err error) {
	name := m.names[queue]
	m.model.makeQueue(name)
	duplicate := false
	for n, d := range drafts {
		if first := m.model.keyed(name, d.key); first != nil {
			duplicate = duplicate || d.unique
			if ids[n] != first.id {
				rt.Fatalf("id of item %d is %d; message %d has its key", n, ids[n], first.id)
			}
			continue
		}
		if slices.Contains(m.ids, ids[n]) {
			rt.Fatalf("id %d was given before", ids[n])
		}
		m.ids = append(m.ids, ids[n])
		raw, err := json.Marshal(d.payload)
		if err != nil {
			rt.Fatal(err)
		}
		msg := &modelMessage{id: ids[n], queue: name, payload: string(raw), poison: d.payload == "poison", priority: d.priority, key: d.key, headers: d.headers}
		m.model.in(msg, d.delay)
		m.model.messages[msg.id] = msg
	}
	wantSentinel(rt, "enqueue", err, pgqrs.ErrDuplicate, duplicate)
}

// wantSentinel fails unless err is nil, or matches target if should is true.
func wantSentinel(rt *rapid.T, what string, err, target error, should bool) {
	rt.Helper()
	switch {
	case !should && err != nil:
		rt.Fatalf("%s: %v; want no error", what, err)
	case should && !errors.Is(err, target):
		rt.Fatalf("%s: error is %v; want one matching %q", what, err, target)
	}
}

func (m *queueMachine) dequeue(rt *rapid.T) {
	c := rapid.IntRange(0, 1).Draw(rt, "consumer")
	q, i := drawQueue[int](m, rt, m.stores[c])
	n := rapid.IntRange(1, 4).Draw(rt, "n")
	term := time.Hour + hours.Draw(rt, "lease")
	row := m.rows[2*c+i]
	got, err := q.Dequeue(m.ctx(), n, term)
	m.model.makeQueue(m.names[i])
	if !row.made {
		row.made, row.beat = true, m.model.now
	}
	wantSentinel(rt, "dequeue", err, pgqrs.ErrState, row.suspended)
	if len(got) > 0 && row.id == 0 {
		row.id = got[0].WorkerID
	}
	var want []*modelMessage
	if !row.suspended {
		want = m.model.dequeue(m.names[i], row.id, n, term, policies[i].MaxAttempts)
	}
	if len(want) == 0 {
		row.beat = m.model.now
	}
	var gotIDs, wantIDs []int64
	for _, msg := range got {
		gotIDs = append(gotIDs, msg.ID)
	}
	for _, msg := range want {
		wantIDs = append(wantIDs, msg.id)
	}
	if !slices.Equal(gotIDs, wantIDs) {
		rt.Fatalf("dequeued %v; want %v", gotIDs, wantIDs)
	}
	for n, msg := range got {
		if fmt.Sprint(msg.Payload) != want[n].payload {
			rt.Fatalf("payload of message %d is %d; want %s", msg.ID, msg.Payload, want[n].payload)
		}
		m.same(rt, &msg.MessageInfo, want[n], time.Minute) // the exact time is compared afterwards
	}
	m.hands = append(m.hands, got...)
}

// drawHands draws deliveries from all there ever were, at most one for each message.
func (m *queueMachine) drawHands(rt *rapid.T) []*pgqrs.Message[int] {
	if len(m.hands) == 0 {
		rt.Skip("nothing was ever delivered")
	}
	recent := m.hands[max(0, len(m.hands)-8):]
	if len(m.settled) > 0 && rapid.Bool().Draw(rt, "again") {
		return m.settled
	}
	return rapid.SliceOfNDistinct(rapid.SampledFrom(recent), 1, 3, func(msg *pgqrs.Message[int]) int64 { return msg.ID }).Draw(rt, "deliveries")
}

// settle settles deliveries and compares which were lost.
func (m *queueMachine) settle(rt *rapid.T, what string, real func(*pgqrs.Queue[int], ...*pgqrs.Message[int]) error, model func(msg *pgqrs.Message[int], by lease, p pgqrs.Policy) bool) {
	hands := m.drawHands(rt)
	i := slices.Index(m.names, hands[0].Queue)
	hands = slices.DeleteFunc(hands, func(msg *pgqrs.Message[int]) bool { return msg.Queue != m.names[i] })
	m.settled = hands
	err := real(boundQueue[int](m, m.admin, i), hands...)
	var lost []int64
	for _, msg := range hands {
		if !model(msg, lease{msg.WorkerID, msg.Claim}, policies[i]) {
			lost = append(lost, msg.ID)
		}
	}
	wantSentinel(rt, what, err, pgqrs.ErrLeaseLost, len(lost) > 0)
	if raw, _ := json.Marshal(lost); len(lost) > 0 && !strings.Contains(err.Error(), "of messages "+string(raw)) {
		rt.Fatalf("%s: %v; want messages %s named", what, err, raw)
	}
}

func (m *queueMachine) ack(rt *rapid.T) {
	m.settle(rt, "ack", func(q *pgqrs.Queue[int], ms ...*pgqrs.Message[int]) error { return q.Ack(m.ctx(), ms...) },
		func(msg *pgqrs.Message[int], by lease, _ pgqrs.Policy) bool { return m.model.ack(msg.ID, by) })
}

func (m *queueMachine) release(rt *rapid.T) {
	delay := hours.Draw(rt, "delay")
	m.settle(rt, "release", func(q *pgqrs.Queue[int], ms ...*pgqrs.Message[int]) error { return q.Release(m.ctx(), delay, ms...) },
		func(msg *pgqrs.Message[int], by lease, _ pgqrs.Policy) bool {
			return m.model.release(msg.ID, by, delay)
		})
}

func (m *queueMachine) extend(rt *rapid.T) {
	term := time.Hour + hours.Draw(rt, "lease")
	m.settle(rt, "extend", func(q *pgqrs.Queue[int], ms ...*pgqrs.Message[int]) error { return q.Extend(m.ctx(), term, ms...) },
		func(msg *pgqrs.Message[int], by lease, _ pgqrs.Policy) bool {
			return m.model.extend(msg.ID, by, term)
		})
}

func (m *queueMachine) deleteHeld(rt *rapid.T) {
	m.settle(rt, "delete", func(q *pgqrs.Queue[int], ms ...*pgqrs.Message[int]) error { return q.Delete(m.ctx(), ms...) },
		func(msg *pgqrs.Message[int], by lease, _ pgqrs.Policy) bool { return m.model.delete(msg.ID, by) })
}

func (m *queueMachine) fail(rt *rapid.T) {
	delay := hours.Draw(rt, "delay")
	text := rapid.SampledFrom([]string{"boom", "Ö'\"\n;--", strings.Repeat("x", 300)}).Draw(rt, "error")
	kind := rapid.SampledFrom([]string{"plain", "permanent", "after", "snooze"}).Draw(rt, "kind")
	cause := map[string]error{
		"plain": errors.New(text), "permanent": pgqrs.Permanent(errors.New(text)),
		"after": pgqrs.RetryAfter(delay, errors.New(text)), "snooze": pgqrs.Snooze(delay),
	}[kind]
	m.settle(rt, "fail", func(q *pgqrs.Queue[int], ms ...*pgqrs.Message[int]) error { return q.Fail(m.ctx(), cause, ms...) },
		func(msg *pgqrs.Message[int], by lease, p pgqrs.Policy) bool {
			last := p.MaxAttempts > 0 && msg.Attempt >= p.MaxAttempts
			switch {
			case kind == "snooze":
				return m.model.release(msg.ID, by, delay)
			case kind == "permanent" || last:
				return m.model.bury(msg.ID, by, text)
			case kind == "after":
				return m.model.retry(msg.ID, by, delay, text)
			default:
				return m.model.retry(msg.ID, by, p.Backoff(msg.Attempt), text)
			}
		})
}

// transaction executes a few operations in a caller's transaction, which may be rolled back.
func (m *queueMachine) transaction(rt *rapid.T) {
	before := m.model.clone()
	tx, err := m.db.BeginTx(m.ctx(), nil)
	if err != nil {
		rt.Fatal(err)
	}
	defer tx.Rollback() // if the test fails
	m.tx = tx
	defer func() { m.tx = nil }()
	ids := len(m.ids)
	m.enqueue(rt) // so that the first statement is a write
	for range rapid.IntRange(0, 3).Draw(rt, "more operations") {
		ops := []func(*rapid.T){m.enqueue, m.enqueueBatch}
		if len(m.hands) > 0 {
			ops = append(ops, m.ack, m.release, m.fail, m.extend, m.deleteHeld)
		}
		rapid.SampledFrom(ops).Draw(rt, "operation")(rt)
	}
	if rapid.Bool().Draw(rt, "commit") {
		err = tx.Commit()
	} else {
		err = tx.Rollback()
		m.model = before
		m.ids = m.ids[:ids] // SQLite may use them again
	}
	if err != nil {
		rt.Fatal(err)
	}
}
