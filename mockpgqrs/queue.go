package mockpgqrs

import (
	"github.com/DATA-DOG/go-sqlmock"

	"github.com/pgqrs/pgqrs-go"
)

// ExpectEnqueue expects an Enqueue without a Group. The Enqueue returns id.
func ExpectEnqueue(mock sqlmock.Sqlmock, d pgqrs.Dialect, id int64) *sqlmock.ExpectedQuery {
	return query(mock, "message.enqueue", args(7), row{id})
}

// ExpectEnqueueDuplicate expects an Enqueue without a Group whose key is taken by message id. With
// [pgqrs.Key] the Enqueue returns id. With [pgqrs.Unique] it also returns an error matching
// [pgqrs.ErrDuplicate].
func ExpectEnqueueDuplicate(mock sqlmock.Sqlmock, d pgqrs.Dialect, key string, id int64) *sqlmock.ExpectedQuery {
	e := query(mock, "message.enqueue", args(7))
	query(mock, "message.keyed", args(2), row{key, id})
	return e
}

// ExpectEnqueueGroup expects an Enqueue or an EnqueueBatch with one [pgqrs.Group], and without
// keys. The call returns the ids.
func ExpectEnqueueGroup(mock sqlmock.Sqlmock, d pgqrs.Dialect, ids ...int64) (e *sqlmock.ExpectedQuery) {
	atomic(mock, func() { e = enqueueGroup(mock, ids) })
	return e
}

// enqueueGroup expects the statements of ExpectEnqueueGroup in their transaction.
func enqueueGroup(mock sqlmock.Sqlmock, ids []int64) *sqlmock.ExpectedQuery {
	query(mock, "group.lock", args(1), row{false, false, false})
	e := query(mock, "message.group_enqueue", args(2), keyRows(nil, ids)...)
	query(mock, "group.promote", args(1))
	return e
}

// ExpectEnqueueBatch expects an EnqueueBatch without options, of payloads that are JSON objects or
// arrays. The EnqueueBatch returns the ids.
func ExpectEnqueueBatch(mock sqlmock.Sqlmock, d pgqrs.Dialect, ids ...int64) *sqlmock.ExpectedQuery {
	if len(ids) == 1 {
		return ExpectEnqueue(mock, d, ids[0])
	}
	return query(mock, "message.batch_enqueue", args(2), idRows(ids)...)
}

// ExpectEnqueueBatchOptions expects an EnqueueBatch with options other than a Group, or of payloads
// such as numbers and texts. The EnqueueBatch returns the ids. Each message has one of the keys,
// which are not taken, or keys is nil. Headers from Config.Headers are an option too.
func ExpectEnqueueBatchOptions(mock sqlmock.Sqlmock, d pgqrs.Dialect, keys []string, ids ...int64) *sqlmock.ExpectedQuery {
	if len(ids) == 1 {
		return ExpectEnqueue(mock, d, ids[0])
	}
	return query(mock, "message.mixed_enqueue", args(2), keyRows(keys, ids)...)
}

// keyRows returns a row for each id, with its key or NULL.
func keyRows(keys []string, ids []int64) []row {
	rows := make([]row, len(ids))
	for i, id := range ids {
		rows[i] = row{id, nil}
		if keys != nil {
			rows[i][1] = keys[i]
		}
	}
	return rows
}

// Message returns a message for [ExpectDequeue], on its first attempt. The caller may change its
// fields. Message panics if the payload does not marshal.
func Message(id int64, payload any) pgqrs.MessageInfo {
	return pgqrs.MessageInfo{ID: id, Raw: marshal(payload), Attempt: 1, Claim: 1}
}

// ExpectFirstDequeue expects the first Dequeue of a Store from a queue. This Dequeue also makes the
// row of a worker, whose id is 1. Otherwise ExpectFirstDequeue is like [ExpectDequeue].
func ExpectFirstDequeue(mock sqlmock.Sqlmock, d pgqrs.Dialect, messages ...pgqrs.MessageInfo) *sqlmock.ExpectedQuery {
	query(mock, "worker.register", args(4), row{1, false, 1})
	return ExpectDequeue(mock, d, messages...)
}

// ExpectDequeue expects a Dequeue other than the first, from a queue without limits. The Dequeue
// returns the messages. There may be none. They must decode and have attempts left.
//
// The mock returns the ID, Raw, Priority, Attempt, Claim, Key, Headers, LastError, EnqueuedAt,
// DueAt and LeasedUntil of a message. It returns no Group and no BatchID.
func ExpectDequeue(mock sqlmock.Sqlmock, d pgqrs.Dialect, messages ...pgqrs.MessageInfo) *sqlmock.ExpectedQuery {
	rows := make([]row, len(messages))
	for i, m := range messages {
		rows[i] = row{m.ID, []byte(m.Raw), m.Priority, m.Attempt, m.Claim, m.Key, marshal(m.Headers), m.LastError,
			m.EnqueuedAt, m.DueAt, m.LeasedUntil, false}
	}
	e := query(mock, "message.claim", args(4), rows...)
	if len(messages) == 0 {
		query(mock, "worker.heartbeat", args(1), row{1, "ready", false, 1})
	}
	return e
}

// ExpectAck expects an Ack of messages without a Group and a batch. The ids are the messages that
// are archived. The leases of the other messages are lost, so that the Ack returns an error
// matching [pgqrs.ErrLeaseLost].
func ExpectAck(mock sqlmock.Sqlmock, d pgqrs.Dialect, ids ...int64) *sqlmock.ExpectedQuery {
	return query(mock, "message.ack", args(1), idRows(ids)...)
}

// ExpectFail expects a Fail on a queue whose Policy names no DeadLetter. Use [ExpectRelease] for a
// Fail with a [pgqrs.Snooze]. Otherwise ExpectFail is like [ExpectAck].
func ExpectFail(mock sqlmock.Sqlmock, d pgqrs.Dialect, ids ...int64) *sqlmock.ExpectedQuery {
	return query(mock, "message.fail", args(1), idRows(ids)...)
}

// ExpectRelease expects a Release. Otherwise ExpectRelease is like [ExpectAck].
func ExpectRelease(mock sqlmock.Sqlmock, d pgqrs.Dialect, ids ...int64) *sqlmock.ExpectedQuery {
	return query(mock, "message.release", args(1), idRows(ids)...)
}

// ExpectExtend expects an Extend, of messages with or without a Group. Otherwise ExpectExtend is
// like [ExpectAck].
func ExpectExtend(mock sqlmock.Sqlmock, d pgqrs.Dialect, ids ...int64) *sqlmock.ExpectedQuery {
	return query(mock, "message.extend", args(2), idRows(ids)...)
}
