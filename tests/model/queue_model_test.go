package model_test

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A queueModel is the documented behaviour of queues, in memory. Its time is the database's time at
// the latest comparison.
type queueModel struct {
	now      time.Time
	queues   map[string]*modelQueue // queues that exist
	messages map[int64]*modelMessage
}

type modelQueue struct{ paused bool }

type modelMessage struct {
	id       int64
	queue    string
	payload  string // as JSON
	poison   bool   // whether it does not decode
	priority int
	key      string
	headers  map[string]string

	ended     pgqrs.MessageState // Archived or Dead, or empty if it is unfinished
	holder    lease              // the last claim, unless the message was released
	claims    int64
	attempts  int
	lastError string

	at    time.Time // when it is due, its lease ends, or it ended
	about bool      // set by the latest operation, so the database's time may be a little later
}

// A lease is a claim of a message. The zero lease belongs to nobody.
type lease struct{ worker, claim int64 }

func newQueueModel(now time.Time) *queueModel {
	return &queueModel{now: now, queues: map[string]*modelQueue{}, messages: map[int64]*modelMessage{}}
}

// clone returns a copy, for the case that a transaction is rolled back.
func (m *queueModel) clone() *queueModel {
	c := newQueueModel(m.now)
	for name, q := range m.queues {
		c.queues[name] = &modelQueue{q.paused}
	}
	for id, msg := range m.messages {
		copied := *msg
		c.messages[id] = &copied
	}
	return c
}

// in sets the time of a message to d from now.
func (m *queueModel) in(msg *modelMessage, d time.Duration) { msg.at, msg.about = m.now.Add(d), true }

func (m *queueModel) makeQueue(name string) {
	if m.queues[name] == nil {
		m.queues[name] = &modelQueue{}
	}
}

func (m *queueModel) state(msg *modelMessage) pgqrs.MessageState {
	switch {
	case msg.ended != "":
		return msg.ended
	case !msg.at.After(m.now):
		return pgqrs.Ready
	case msg.holder != lease{}:
		return pgqrs.Leased
	default:
		return pgqrs.Scheduled
	}
}

// list returns the messages in a state, in the order of their listing.
func (m *queueModel) list(queue string, state pgqrs.MessageState) []*modelMessage {
	var list []*modelMessage
	for _, msg := range m.messages {
		if msg.queue == queue && m.state(msg) == state {
			list = append(list, msg)
		}
	}
	slices.SortFunc(list, func(a, b *modelMessage) int {
		order := cmp.Or(a.at.Compare(b.at), cmp.Compare(a.id, b.id))
		if a.ended != "" {
			return -order
		}
		return order
	})
	return list
}

// keyed finds the unfinished message of a key, or nil.
func (m *queueModel) keyed(queue, key string) *modelMessage {
	for _, msg := range m.messages {
		if key != "" && msg.queue == queue && msg.key == key && msg.ended == "" {
			return msg
		}
	}
	return nil
}

// claim leases up to n due messages for a worker, by priority, time and id. A message whose last
// lease expired is leased alone.
func (m *queueModel) claim(queue string, worker int64, n int, term time.Duration) []*modelMessage {
	if m.queues[queue].paused {
		return nil
	}
	due := m.list(queue, pgqrs.Ready)
	slices.SortStableFunc(due, func(a, b *modelMessage) int { return cmp.Compare(b.priority, a.priority) })
	due = due[:min(n, len(due))]
	if crashed := slices.IndexFunc(due, func(msg *modelMessage) bool { return msg.holder != lease{} }); crashed >= 0 {
		due = due[:max(1, crashed)]
	}
	for _, msg := range due {
		msg.attempts++
		msg.claims++
		msg.holder = lease{worker, msg.claims}
		m.in(msg, term)
	}
	return due
}

// dequeue claims until a message can be delivered. Messages that cannot be delivered become dead
// letters.
func (m *queueModel) dequeue(queue string, worker int64, n int, term time.Duration, maxAttempts int) []*modelMessage {
	for {
		claimed := m.claim(queue, worker, n, term)
		var out []*modelMessage
		for _, msg := range claimed {
			switch {
			case maxAttempts > 0 && msg.attempts > maxAttempts:
				m.die(msg, "ended without an answer")
			case msg.poison:
				m.die(msg, "does not decode")
			default:
				out = append(out, msg)
			}
		}
		if len(out) > 0 || len(claimed) == 0 {
			return out
		}
	}
}

func (m *queueModel) end(msg *modelMessage, state pgqrs.MessageState) {
	msg.ended = state
	m.in(msg, 0)
}

func (m *queueModel) die(msg *modelMessage, text string) {
	msg.lastError = text
	m.end(msg, pgqrs.Dead)
}

// held returns the message of a lease if nobody else has claimed it, whether or not the lease has
// expired.
func (m *queueModel) held(id int64, by lease) *modelMessage {
	if msg := m.messages[id]; msg != nil && msg.holder == by && msg.ended == "" {
		return msg
	}
	return nil
}

// ack reports whether the lease holds the message, or held it when it was acked.
func (m *queueModel) ack(id int64, by lease) bool {
	if msg := m.held(id, by); msg != nil {
		m.end(msg, pgqrs.Archived)
		return true
	}
	msg := m.messages[id]
	return msg != nil && msg.holder == by && msg.ended == pgqrs.Archived
}

// release makes a message ready after a delay, without counting the attempt.
func (m *queueModel) release(id int64, by lease, delay time.Duration) bool {
	msg := m.held(id, by)
	if msg != nil {
		msg.attempts--
		msg.holder = lease{}
		m.in(msg, delay)
	}
	return msg != nil
}

// retry makes a message ready after a delay, with an error.
func (m *queueModel) retry(id int64, by lease, delay time.Duration, text string) bool {
	msg := m.held(id, by)
	if msg != nil {
		msg.lastError, msg.holder = text, lease{}
		m.in(msg, delay)
	}
	return msg != nil
}

func (m *queueModel) bury(id int64, by lease, text string) bool {
	msg := m.held(id, by)
	if msg != nil {
		m.die(msg, text)
	}
	return msg != nil
}

func (m *queueModel) extend(id int64, by lease, term time.Duration) bool {
	msg := m.held(id, by)
	if msg != nil {
		m.in(msg, term)
	}
	return msg != nil
}

func (m *queueModel) delete(id int64, by lease) bool {
	msg := m.held(id, by)
	if msg != nil {
		delete(m.messages, id)
	}
	return msg != nil
}

// redrive makes ended messages new. It returns the redriven ones and those that it left because of
// their key. If several have the same key, it redrives the first.
func (m *queueModel) redrive(ids []int64) (done, left []int64) {
	var fresh []*modelMessage
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		msg := m.messages[id]
		switch {
		case msg == nil || msg.ended == "":
		case m.keyed(msg.queue, msg.key) != nil || slices.ContainsFunc(fresh, func(o *modelMessage) bool {
			return msg.key != "" && o.key == msg.key && o.queue == msg.queue
		}):
			left = append(left, id)
		default:
			fresh, done = append(fresh, msg), append(done, id)
		}
	}
	for _, msg := range fresh {
		msg.ended, msg.attempts, msg.holder = "", 0, lease{}
		m.in(msg, 0)
	}
	return done, left
}

// remove deletes messages and returns how many there were.
func (m *queueModel) remove(ids []int64) int64 {
	before := len(m.messages)
	maps.DeleteFunc(m.messages, func(id int64, _ *modelMessage) bool { return slices.Contains(ids, id) })
	return int64(before - len(m.messages))
}

// advance lets time pass for all messages.
func (m *queueModel) advance(d time.Duration) {
	for _, msg := range m.messages {
		msg.at, msg.about = msg.at.Add(-d), true
	}
}
