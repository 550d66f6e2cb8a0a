package pgqrs

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// A MessageState is the state of a message.
type MessageState string

const (
	// Ready messages can be dequeued now. A message whose lease expired is one of them.
	Ready MessageState = "ready"
	// Scheduled messages become ready by themselves. They were delayed, or wait for a retry.
	Scheduled MessageState = "scheduled"
	// Blocked messages wait for others of their group, or for a batch.
	Blocked MessageState = "blocked"
	// Leased messages are held by a worker.
	Leased MessageState = "leased"
	// Archived messages were acked. They are kept for the queue's retention.
	Archived MessageState = "archived"
	// Dead messages are the dead letters. They failed for good and wait for an operator.
	Dead MessageState = "dead"
)

// MessageInfo is a message without its decoded payload. It is plain data. Which fields are set
// depends on its State.
type MessageInfo struct {
	ID    int64        `json:"id"`
	Queue string       `json:"queue"`
	State MessageState `json:"state"`
	// Raw is the payload as stored. If a listing has cut it, Raw is its beginning and not valid
	// JSON.
	Raw      json.RawMessage   `json:"payload"`
	Priority int               `json:"priority"`
	Key      string            `json:"key,omitempty"`      // of the Key or Unique option
	Group    string            `json:"group,omitempty"`    // of the Group option
	BatchID  int64             `json:"batch_id,omitempty"` // the message that waits for this one (see Then)
	Batch    BatchResult       `json:"batch,omitzero"`     // the counts of the batch that this message waited for
	Headers  map[string]string `json:"headers,omitempty"`

	// Attempt counts deliveries. It is 1 on the first and 0 before it. A delivery that was
	// released, snoozed or interrupted by a stopping Worker does not count.
	Attempt int `json:"attempt"`
	// LastError is the text of the latest failure.
	LastError string `json:"last_error,omitempty"`

	EnqueuedAt time.Time `json:"enqueued_at,omitzero"`
	// DueAt is the time from which the message is ready. A blocked message does not become ready
	// before it.
	DueAt time.Time `json:"due_at,omitzero"`
	// LeasedUntil is the time at which the lease ends, unless it is extended.
	LeasedUntil time.Time `json:"leased_until,omitzero"`
	// EndedAt is the time at which the message was archived or died.
	EndedAt time.Time `json:"ended_at,omitzero"`

	// WorkerID and Claim are the lease: the worker's row, and a number that grows with every claim
	// of this message. Together they fence the calls that are made with this lease.
	WorkerID int64 `json:"worker_id,omitempty"`
	Claim    int64 `json:"claim,omitempty"`

	// PayloadSize is the size of the payload in bytes. It is the length of Raw, unless a listing
	// has cut Raw. On PostgreSQL the size of a payload above 4 MiB is that of its JSONB in a
	// listing, which returns nothing of the payload.
	PayloadSize int64 `json:"payload_size,omitempty"`
	// Cut reports that a listing left something out: the end of Raw or of LastError, or all
	// Headers. See [ListedBytes].
	Cut bool `json:"cut,omitempty"`

	// Cursor is set by a listing of a queue's messages in a state. In MessageFilter.After, with the
	// same Queue and State, it lists the messages after this one. Otherwise it is empty.
	Cursor string `json:"cursor,omitempty"`

	// Malformed names the columns of the message's row that do not decode, with the reasons. It is
	// empty unless something other than this library wrote the row. The fields of those columns are
	// zero, and consumers send the message to the dead letters.
	Malformed string `json:"malformed,omitempty"`

	stored int // bytes of its row that vary: payload, headers, error and key

	delivery *deliveryState // nil outside a Worker
	// run is the run of the message, as far as a plain consumer has found out. See unknownRun.
	run int64
}

// A Message is a message of a Queue[T]. It is plain data, so a unit test can make its own.
type Message[T any] struct {
	MessageInfo
	Payload T `json:"payload"`
}

// newMessage decodes the payload of m. Its error has the effect of a handler's error. A payload
// that does not decode is a permanent error, and a panic of T is not.
func newMessage[T any](c *Config, m *MessageInfo) (*Message[T], error) {
	typed := &Message[T]{MessageInfo: *m}
	if err := m.malformed(); err != nil {
		return nil, err
	}
	var err error
	if bad := foreign.Catch(func() { err = c.decode(m.Raw, &typed.Payload) }); bad != nil {
		return nil, fmt.Errorf("decode the payload of message %d: %w", m.ID, bad)
	}
	if err != nil {
		return nil, Permanent(fmt.Errorf("%w: payload of message %d does not decode into %T: %w", ErrInvalidPayload, m.ID, typed.Payload, err))
	}
	return typed, nil
}

// malformed returns an error if the message's row does not decode.
func (m *MessageInfo) malformed() error {
	if m.Malformed == "" {
		return nil
	}
	return Permanent(malformedError(fmt.Sprintf("message %d", m.ID), m.Malformed))
}

// A messageRow has the columns of a delivery, and of a listing, in the order in which the dialects
// select them.
type messageRow struct {
	id, priority, claim       int64
	raw, headers              jsonColumn
	attempt                   sql.NullInt64
	key, lastError            sql.NullString
	enqueued, due, vt         timestamp
	worker                    sql.NullInt64
	archived, failed          timestamp
	queue, state, sortedUnder string
	size                      sql.NullInt64 // of the payload, in a listing
	headersCut                sql.NullBool
}

// These are the names of deliveryColumns with those that a claim adds, and of infoColumns with the
// cursor.
const (
	deliveryNames = "id payload priority read_ct claim_ct dedup_key headers last_error enqueued_at due_at vt runs"
	infoNames     = "id payload priority read_ct claim_ct dedup_key headers last_error enqueued_at due_at vt queue consumer_worker_id archived_at failed_at state cursor"
)

// scanDelivery scans deliveryColumns into the destinations that delivery returned.
func (r *messageRow) scanDelivery(rows *sql.Rows, into []any) (*MessageInfo, error) {
	malformed, err := scanLoosely(rows, deliveryNames, into...)
	if err != nil {
		return nil, err
	}
	m := &MessageInfo{LeasedUntil: r.vt.Time, Malformed: malformed}
	r.fill(m)
	return m, nil
}

// scanInfo scans infoColumns, the cursor if the row is of a page, and the sizes if it is of a
// listing.
func scanInfo(rows *sql.Rows, paged bool) (*MessageInfo, error) {
	var m MessageInfo
	var r messageRow
	into := append(r.delivery(), &r.queue, &r.worker, &r.archived, &r.failed, &r.state, &r.sortedUnder, &r.size, &r.headersCut)
	malformed, err := scanRowLoosely(rows, infoNames+" payload headers", into...)
	if err != nil {
		return nil, err
	}
	m.Malformed = malformed
	r.fill(&m)
	m.Queue, m.State, m.WorkerID = r.queue, MessageState(r.state), r.worker.Int64
	m.EndedAt = r.archived.Time
	ascending := m.State != Archived && m.State != Dead
	switch m.State {
	case Leased:
		m.LeasedUntil = r.vt.Time
	case Ready, Scheduled, Blocked:
		m.DueAt = r.vt.Time
	}
	if paged {
		m.Cursor = cursorOf(cutCursor(r.sortedUnder, ascending), m.ID)
	}
	if r.size.Valid {
		m.cut(r.size.Int64, r.headersCut.Bool)
		m.Malformed = cutNames(m.Malformed, "dedup_key queue", &m.Key, &m.Queue)
	}
	raw, bad := listedWhole("payload", m.Raw, m.PayloadSize)
	m.Raw, m.Malformed = raw, joinMalformed(m.Malformed, bad)
	return &m, nil
}

// delivery returns the destinations of deliveryColumns. The same messageRow may scan one row after
// another.
func (r *messageRow) delivery() []any {
	return []any{&r.id, &r.raw, &r.priority, &r.attempt, &r.claim, &r.key, &r.headers, &r.lastError, &r.enqueued, &r.due, &r.vt}
}

// maxStoredHeaders bounds the headers of a row, in bytes as the database writes them. Headers of
// maxHeaders have less, with those of the library. Larger ones are not decoded.
const maxStoredHeaders = 256 << 10

// fill sets the fields that come from deliveryColumns. Headers that are not texts by name are
// malformed. So is a claim number that cannot grow any more, since it could not fence the next
// lease.
func (r *messageRow) fill(m *MessageInfo) {
	m.ID, m.Priority, m.Claim = r.id, int(r.priority), r.claim
	m.Raw, m.Attempt, m.Key, m.LastError = json.RawMessage(r.raw), int(r.attempt.Int64), r.key.String, r.lastError.String
	m.PayloadSize = int64(len(r.raw))
	m.stored = len(r.raw) + len(r.headers) + len(r.lastError.String) + len(r.key.String)
	m.EnqueuedAt, m.DueAt = r.enqueued.Time, r.due.Time
	if len(r.headers) > maxStoredHeaders {
		m.Malformed = joinMalformed(m.Malformed, fmt.Sprintf("headers: %d bytes of JSON, %d allowed", len(r.headers), maxStoredHeaders))
	} else if len(r.headers) > 0 {
		if err := json.Unmarshal(r.headers, &m.Headers); err != nil {
			m.Malformed = joinMalformed(m.Malformed, malformedColumn("headers", err))
		}
		m.takeOwnHeaders()
	}
	if r.claim == math.MaxInt64 {
		m.Malformed = joinMalformed(m.Malformed, "claim_ct: it is at its end")
	}
}

// takeOwnHeaders moves the library's own headers to their fields.
func (m *MessageInfo) takeOwnHeaders() {
	if len(m.Headers) == 0 {
		return
	}
	if group, ok := m.Headers[groupHeader]; ok && checkName("group", group) == nil {
		m.Group = group
	}
	for name, into := range map[string]*int64{batchHeader: &m.BatchID, batchDoneHeader: &m.Batch.Done, batchDeadHeader: &m.Batch.Dead} {
		*into, _ = strconv.ParseInt(m.Headers[name], 10, 64) // nobody else writes them
	}
	for _, name := range hiddenHeaders {
		delete(m.Headers, name)
	}
	if len(m.Headers) == 0 {
		m.Headers = nil
	}
}

// A jsonColumn scans JSON, which drivers return as text or bytes, into memory of its own. A plain
// []byte is not safe. Since Go 1.27 a driver may scan into a destination itself, and drivers
// overwrite the bytes of an earlier row that the destination still has. NULL is nil.
type jsonColumn []byte

// Scan implements [sql.Scanner].
func (c *jsonColumn) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*c = nil
	case string:
		*c = []byte(v)
	case []byte:
		*c = bytes.Clone(v)
	default:
		return fmt.Errorf("JSON is a %T", src)
	}
	return nil
}

// A timestamp scans the times that the dialects' statements return: microseconds since 1970, or UTC
// text. Rows of a test's mock may have a time.Time. NULL is the zero time, and so is an infinite
// time, which the statements of PostgreSQL return as NULL.
type timestamp struct{ time.Time }

// Scan implements [sql.Scanner].
func (t *timestamp) Scan(src any) error {
	var space [32]byte
	text := space[:0]
	switch v := src.(type) {
	case nil:
		t.Time = time.Time{}
		return nil
	case int64:
		t.Time = time.UnixMicro(v).UTC()
		return nil
	case time.Time:
		t.Time = v.UTC()
		return nil
	case string:
		text = append(text, v...)
	case []byte:
		text = append(text, v...)
	default:
		return fmt.Errorf("timestamp is a %T", src)
	}
	if isInfinite(text) {
		t.Time = time.Time{}
		return nil
	}
	// Each message has three times, and time.Parse is several times as fast for RFC 3339 as for any
	// other layout.
	if len(text) > 10 && text[10] == ' ' {
		text[10] = 'T'
	}
	if t.UnmarshalText(append(text, 'Z')) != nil {
		return fmt.Errorf("%.40q is no time", text)
	}
	return nil
}

// isInfinite reports whether a text is one of PostgreSQL's two infinite times.
func isInfinite(text []byte) bool {
	return string(bytes.TrimPrefix(text, []byte("-"))) == "infinity"
}

// maxMalformed bounds the text of a Malformed field in bytes. The text quotes values of the row.
const maxMalformed = 500

// scanLoosely scans a row whose columns have the given names, separated by spaces. A column that
// does not decode keeps its zero value, and malformed names the column and the reason. If all
// decode, malformed is empty and the cost is the cost of rows.Scan. The same destination may not
// occur twice.
func scanLoosely(rows *sql.Rows, names string, into ...any) (malformed string, err error) {
	if rows.Scan(into...) == nil {
		return "", nil
	}
	ignored := make([]any, len(into))
	for i := range ignored {
		ignored[i] = new(any)
	}
	if err := rows.Scan(ignored...); err != nil {
		return "", err // no value of the row is wrong
	}
	var reasons []string
	for i, name := range strings.Fields(names)[:len(into)] {
		other := ignored[i]
		ignored[i] = into[i]
		if err := rows.Scan(ignored...); err != nil {
			reflect.ValueOf(into[i]).Elem().SetZero()
			reasons = append(reasons, malformedColumn(name, err))
		}
		ignored[i] = other
	}
	return joinMalformed(reasons...), nil
}

// scanRowLoosely is scanLoosely for a row that may lack its last columns (see scanRow).
func scanRowLoosely(rows *sql.Rows, names string, into ...any) (malformed string, err error) {
	if into, err = matchColumns(rows, into); err != nil {
		return "", err
	}
	return scanLoosely(rows, names, into...)
}

// durationOf converts microseconds to a duration, within the range of a duration.
func durationOf(microseconds int64) time.Duration {
	const most = int64(math.MaxInt64 / time.Microsecond)
	return time.Duration(min(max(microseconds, -most), most)) * time.Microsecond
}

// malformedColumn returns the reason why a column does not decode.
func malformedColumn(name string, err error) string {
	if cause := errors.Unwrap(err); cause != nil && strings.HasPrefix(err.Error(), "sql: Scan error") {
		err = cause // without the column's expression
	}
	return name + ": " + err.Error()
}

// joinMalformed joins reasons within maxMalformed, in valid UTF-8. It leaves out empty ones.
func joinMalformed(reasons ...string) string {
	var all []string
	for _, reason := range reasons {
		if reason != "" {
			all = append(all, reason)
		}
	}
	text := strings.Join(all, "; ")
	if len(text) > maxMalformed {
		cut := maxMalformed
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + "..."
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
