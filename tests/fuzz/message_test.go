// Package fuzz_test sends messages of any content through SQLite and PostgreSQL. Its seeds run with
// the other tests. These commands search for more:
//
//	go test -fuzz FuzzMessage -fuzztime 5m ./fuzz
//	go test -fuzz FuzzBatch -fuzztime 5m ./fuzz
//	go test -fuzz FuzzResult -fuzztime 5m ./fuzz
package fuzz_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/postgres"

	_ "github.com/lib/pq"
	_ "github.com/ncruces/go-sqlite3/driver"
	_ "github.com/ncruces/go-sqlite3/vfs/memdb"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// stores opens a database in memory and, if it is available, PostgreSQL.
func stores(f *testing.F) map[string]*pgqrs.Store {
	lite, err := pgqrs.Open(f.Context(), "sqlite::memory:")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := lite.Close(); err != nil {
			f.Error(err)
		}
	})
	all := map[string]*pgqrs.Store{"sqlite": lite}
	if postgres.Available() {
		all["postgres"] = pgqrs.New(postgres.Open(f, "postgres"), pgqrs.Postgres)
	} else {
		f.Log("without PostgreSQL, which is not installed")
	}
	for name, s := range all {
		if err := s.Install(f.Context()); err != nil {
			f.Fatalf("%s: %v", name, err)
		}
	}
	return all
}

// A trip is a message with everything that a user can put into one.
type trip struct {
	payload json.RawMessage
	text    string // its key, a header's name and value, and its error
}

// A fate is the outcome of a trip.
type fate struct {
	refused bool
	payload any
	headers map[string]string
	key     string
	text    string
}

// FuzzMessage sends any bytes as a payload, and any text as everything else, by Enqueue and by
// EnqueueBatch. The message comes back as the same JSON value and the same text, or is refused. All
// dialects agree on which.
func FuzzMessage(f *testing.F) {
	for _, payload := range payloadSeeds {
		f.Add([]byte(payload), "k")
	}
	for _, text := range textSeeds {
		f.Add([]byte(`"x"`), text)
	}
	all := stores(f)
	f.Fuzz(func(t *testing.T, payload []byte, text string) {
		for _, batch := range []bool{false, true} {
			var first *fate
			for name, s := range all {
				got := trip{payload, text}.send(t, s, batch)
				if first != nil && !got.equal(*first) {
					t.Errorf("batch %v: on %s it is %+v; on another dialect %+v", batch, name, got, *first)
				}
				first = &got
			}
		}
	})
}

// FuzzBatch sends any bytes as one payload of a batch without options, beside an object. The
// payload comes back as the same JSON value, or is refused, on every dialect.
func FuzzBatch(f *testing.F) {
	for _, payload := range payloadSeeds {
		f.Add([]byte(payload))
		f.Add([]byte(`{"a":` + payload + `}`))
	}
	all := stores(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		var first *bool
		for name, s := range all {
			stored := sendBatch(t, s, payload)
			if first != nil && stored != *first {
				t.Errorf("on %s it is stored: %v; on another dialect %v", name, stored, *first)
			}
			first = &stored
		}
	})
}

// sendBatch reports whether a batch with the payload was stored and came back.
func sendBatch(t *testing.T, s *pgqrs.Store, payload []byte) bool {
	t.Helper()
	ctx := t.Context()
	q := pgqrs.NewQueue[json.RawMessage](s, "batches")
	ids, err := q.EnqueueBatch(ctx, []json.RawMessage{[]byte(`{"n":1}`), payload, []byte(`[2]`)})
	if errors.Is(err, pgqrs.ErrInvalidPayload) {
		return false
	}
	if err != nil {
		t.Fatalf("%s: %v; want it stored, or an error matching ErrInvalidPayload", s.Dialect(), err)
	}
	ms, err := q.Dequeue(ctx, 4, time.Minute)
	if err != nil || len(ms) != 3 {
		t.Fatalf("%s: dequeued %d, %v; want the batch", s.Dialect(), len(ms), err)
	}
	for i, want := range []json.RawMessage{[]byte(`{"n":1}`), payload, []byte(`[2]`)} {
		if got := ms[i]; got.ID != ids[i] || !same(value(t, got.Payload), value(t, want)) {
			t.Errorf("%s: message %d is %.200q; want %d, %.200q", s.Dialect(), got.ID, got.Payload, ids[i], want)
		}
	}
	if n, err := s.Delete(context.WithoutCancel(ctx), ids...); n != 3 || err != nil {
		t.Errorf("delete: %d, %v", n, err)
	}
	return true
}

func (x trip) send(t *testing.T, s *pgqrs.Store, batch bool) fate {
	t.Helper()
	ctx := t.Context()
	q := pgqrs.NewQueue[json.RawMessage](s, "q")
	options := []pgqrs.Option{pgqrs.Headers(map[string]string{"text": x.text, x.text: "name"})}
	if x.keyed() {
		options = append(options, pgqrs.Key(x.text))
	}
	ids := make([]int64, 1)
	var err error
	if batch {
		ids, err = q.EnqueueBatch(ctx, []json.RawMessage{x.payload}, options...)
	} else {
		ids[0], err = q.Enqueue(ctx, x.payload, options...)
	}
	if err != nil {
		if !errors.Is(err, pgqrs.ErrInvalidPayload) {
			t.Fatalf("%s: %v; want it stored, or an error matching ErrInvalidPayload", s.Dialect(), err)
		}
		return fate{refused: true}
	}
	defer func() {
		if n, err := s.Delete(context.WithoutCancel(ctx), ids...); n != 1 || err != nil {
			t.Errorf("delete: %d, %v", n, err)
		}
	}()
	ms, err := q.Dequeue(ctx, 2, time.Minute)
	if err != nil || len(ms) != 1 {
		t.Fatalf("%s: dequeued %d, %v; want the message", s.Dialect(), len(ms), err)
	}
	if err := q.Fail(ctx, pgqrs.Permanent(errors.New(x.text)), ms...); err != nil {
		t.Fatalf("%s: %v", s.Dialect(), err)
	}
	whole, err := s.Message(ctx, ids[0])
	if err != nil {
		t.Fatalf("%s: %v; want the message", s.Dialect(), err)
	}
	x.check(t, s, ms[0], whole)
	return fate{payload: value(t, ms[0].Payload), headers: ms[0].Headers, key: ms[0].Key, text: whole.LastError}
}

// keyed reports whether the text may be a key. The rule is at NewQueue.
func (x trip) keyed() bool {
	return x.text != "" && utf8.ValidString(x.text) && utf8.RuneCountInString(x.text) <= 255 &&
		!strings.ContainsFunc(x.text, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// check compares a delivered message with what was sent.
func (x trip) check(t *testing.T, s *pgqrs.Store, m *pgqrs.Message[json.RawMessage], whole pgqrs.MessageInfo) {
	t.Helper()
	sent := value(t, x.payload)
	if !same(value(t, m.Payload), sent) || !same(value(t, whole.Raw), sent) {
		t.Errorf("%s: %q came back as %q, and by its id as %q", s.Dialect(), x.payload, m.Payload, whole.Raw)
	}
	key := x.text
	if !x.keyed() {
		key = ""
	}
	headers := map[string]string{"text": x.text, x.text: "name"}
	for _, info := range []pgqrs.MessageInfo{m.MessageInfo, whole} {
		if info.Key != key || !maps.Equal(info.Headers, headers) {
			t.Errorf("%s: key %q and headers %q; want %q and %q", s.Dialect(), info.Key, info.Headers, key, headers)
		}
	}
	if len(x.text) < 8<<10 && whole.LastError != x.text {
		t.Errorf("%s: error %q; want %q", s.Dialect(), whole.LastError, x.text)
	}
}

func (a fate) equal(b fate) bool {
	return a.refused == b.refused && same(a.payload, b.payload) && maps.Equal(a.headers, b.headers) && a.key == b.key && a.text == b.text
}

// value decodes JSON, with numbers as they are written.
func value(t *testing.T, raw []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q does not decode: %v", raw, err)
	}
	return v
}

// same reports whether two JSON values are equal, with numbers equal to the last digit.
func same(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, same)
	case []any:
		b, ok := b.([]any)
		equal := ok && len(a) == len(b)
		for i := 0; equal && i < len(a); i++ {
			equal = same(a[i], b[i])
		}
		return equal
	case json.Number:
		b, ok := b.(json.Number)
		if !ok || a == b {
			return ok
		}
		x, okX := new(big.Rat).SetString(string(a))
		y, okY := new(big.Rat).SetString(string(b))
		return okX && okY && x.Cmp(y) == 0
	default:
		return a == b
	}
}

var payloadSeeds = []string{
	``, `null`, `true`, ` 1 `, `-0`, `-0.0`, `1e5`, `1E-7`, `12345678901234567890.123456789`, `1e131071`, `1e131072`, `1e-16383`, `1e-16384`, `0e999999999`, `0e9999999999`,
	`""`, `"\u0000"`, `"\u0001"`, `"\ud800"`, `"\ud83d\ude00"`, `"\udc00\ud800"`, `"\ufffd"`, "\"\xff\"", "\"\uFFFD\"", "\"\x00\"", `"2026-11-22"`, `"'; DROP TABLE pgqrs_messages; --"`,
	`{"a":1,"a":2}`, `{"":{"":[]}}`, `{"\u0000":1}`, `{"b":1,"a":2,"aa":3}`, `{"\ud800":1}`, `[[[[[]]]]]`, `[1,]`, `{}x`, `nul`, `"\x"`, `01`, "\ufeff1",
	`"\\u0000"`, `"\\\u0000"`, `"\/\b\f\n\r\t"`, "\"\u2028\u2029\"", `"<&>"`,
}

var textSeeds = []string{
	"", "\x00", "a\x00b", "\xff", "\x01\x1f\x7f", "'; DROP TABLE pgqrs_messages; --", `"`, `\`, `\u0000`, "2026-11-22", "2026-11-22T10:00:00Z", "null", "1e3", "0", " ", "\n", "text",
	"Ünï \U0001F389 \u202e \ufeff \u2028", "%s %d $1 ?1 :name", "\uFFFD", strings.Repeat("x", 256), strings.Repeat("é", 255), strings.Repeat("y", 9000), strings.Repeat("z", 70000),
}
