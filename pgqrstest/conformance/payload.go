package conformance

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var payloadCases = []testcase{
	{"every JSON value comes back equal, by Enqueue and by EnqueueBatch", "consumers would work on something else than was asked for", func(t *testing.T, e *env) {
		texts := []string{
			`null`, `true`, `false`, `0`, `-0`, `0.0`, `1.10`, `-1.5e-7`, `1E+2`, `12345678901234567890123456789`, `9007199254740993`, `18446744073709551615`,
			`""`, `"2026-11-22"`, `"2026-11-22T10:00:00Z"`, `"2026-11-22 10:00:00.123"`, `"10:00"`, `"null"`, `"1e5"`, `"[1]"`,
			`{}`, `[]`, `[[],{}]`, `{"a":{"b":[1,{"c":null,"":false}]},"z":0,"aa":"😀"}`, `{"ключ":"значение","2026-11-22":"2026-11-22"}`,
			`"héllo 😀 \ud83d\ude00 \u00e9 \uFFFD"`, `"<b>&amp;</b>"`, `"\u003c\u0026"`, `"\" \\ \/ \b\f\n\r\t \u0001 \u001f \u007f \u2028 \uffff"`, "\"\u2028 \u007f\"",
			` { "spaces" : [ 1 , 2 ] } `,
		}
		q := pgqrs.NewQueue[json.RawMessage](e.store, "raw")
		raws := make([]json.RawMessage, len(texts))
		for i, text := range texts {
			raws[i] = json.RawMessage(text)
			enqueue(t, q, raws[i])
		}
		value(q.EnqueueBatch(t.Context(), raws))(t)
		ms := dequeue(t, q, 2*len(texts)+1)
		equal(t, "number of messages", len(ms), 2*len(texts))
		for i, m := range ms {
			sameJSON(t, m.Payload, texts[i%len(texts)])
			sameJSON(t, m.Raw, texts[i%len(texts)])
			sameJSON(t, e.info(t, m.ID).Raw, texts[i%len(texts)])
		}
	}},
	{"messages that are claimed together keep their own payloads and headers", "a message would be worked on with its neighbour's payload", claimedTogether},
	{"a batch of objects and arrays comes back equal, whatever its depth and size", "the statement for such a batch would change what it stores, or refuse it", func(t *testing.T, e *env) {
		nested := func(n int) string { return strings.Repeat(`{"a":[`, n/2) + strings.Repeat(`]}`, n/2) }
		comesBack(t, e, `{}`, `[]`, `[[],{},null,true,false,"",0]`, `{"":"","a\"b":"null","ключ":"значение 😀"}`, `{"a":"\" \\ \/ \b\f\n\r\t \u0001 \u001f \u007f \u2028 \uffff \ud83d\ude00 \u00e9"}`,
			`[-0,0.0,1.10,-1.5e-7,1E+2,1e400,12345678901234567890123456789]`, `{"2026-11-22":["2026-11-22","10:00"]}`, ` { "spaces" : [ 1 , 2 ] } `, `{"a":"<b>&"}`)
		for _, depth := range []int{100, 102, 300, 998, 1000} {
			comesBack(t, e, `{"n":1}`, nested(depth), `{"n":2}`)
		}
		long := strings.Repeat("x", 1<<20-3<<10)
		var list []string
		for i := range 17 {
			list = append(list, fmt.Sprintf(`{"n":%d,"x":%q}`, i, long))
		}
		comesBack(t, e, list...)
	}},
	{"a struct comes back as it was", "fields would be lost on the way", func(t *testing.T, e *env) {
		type part struct {
			Name  string
			Price *float64
		}
		type order struct {
			ID     uint64
			At     time.Time
			Parts  []part
			Notes  map[string]any
			Blob   []byte
			Absent *part
			Raw    json.RawMessage
		}
		price := 0.1
		want := order{
			ID: math.MaxUint64, At: time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.FixedZone("", 3600)),
			Parts: []part{{"bolt <M8> & nut 😀", &price}, {}}, Notes: map[string]any{"a": "b", "n": 1e21, "l": []any{nil, true}},
			Blob: []byte{0, 255, '<'}, Raw: json.RawMessage(`{"b":1}`),
		}
		q := pgqrs.NewQueue[order](e.store, "orders")
		enqueue(t, q, want)
		got := dequeueOne(t, q).Payload
		if !got.At.Equal(want.At) {
			t.Errorf("time is %v; want %v", got.At, want.At)
		}
		sameJSON(t, got.Raw, string(want.Raw))
		got.At, got.Raw = want.At, want.Raw
		if !reflect.DeepEqual(got, want) {
			t.Errorf("payload is %+v; want %+v", got, want)
		}
	}},
	{"floats come back to the last bit", "sums would be off", func(t *testing.T, e *env) {
		want := []float64{0.1, 1.0 / 3, math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 1e21, 1e-7, 5e-324, 123456789.125, 1 << 53}
		q := pgqrs.NewQueue[[]float64](e.store, "floats")
		enqueue(t, q, want)
		equalSlices(t, "payload", dequeueOne(t, q).Payload, want)
	}},
	{"<, > and & are stored as they are", "an operator or another program would read \\u003c in the table", func(t *testing.T, e *env) {
		q := pgqrs.NewQueue[any](e.store, "html")
		for _, payload := range []any{"<b>&", map[string]string{"<b>&": "x"}, json.RawMessage(`"<b>&"`)} {
			if raw := e.info(t, enqueue(t, q, payload)).Raw; !bytes.Contains(raw, []byte("<b>&")) {
				t.Errorf("stored as %s", raw)
			}
		}
	}},
	{"what PostgreSQL's JSONB cannot hold is refused on every dialect, and nothing is stored", "what works in tests on SQLite would fail on PostgreSQL", invalidPayloads},
	{"text that only looks like what JSONB cannot hold is stored", "honest payloads would be refused", func(t *testing.T, e *env) {
		q := pgqrs.NewQueue[string](e.store, "text")
		for _, text := range []string{`\u0000`, `\ud800`, `\\u0000`, "\uFFFD", "1e200000", `"`, `\`} {
			enqueue(t, q, text)
			m := dequeueOne(t, q)
			equal(t, "payload", m.Payload, text)
			must(t, q.Ack(t.Context(), m))
		}
	}},
	{"numbers are taken or refused alike on every dialect, as far as PostgreSQL's numeric reaches", "a number would be taken on one database and lost on another", func(t *testing.T, e *env) {
		zeros := func(n int) string { return strings.Repeat("0", n) }
		checkNumbers(t, e, true, `1e131071`, `-9.99e131071`, `0.1e131072`, `0.001e131074`, `1E+5`, `1e-16383`, `0.1e-16382`, `-1.25e-16381`,
			"1"+zeros(131071), "0."+zeros(16382)+"1", "0."+zeros(20000)+"1e20001", `0e131072`, `0.0e200000`, `0e-16383`, `1.0e131071`, `1`+zeros(200)+`.5e-200`)
		checkNumbers(t, e, false, `1e131072`, `-1e131072`, `10e131071`, `0.1e131073`, `1e200000`, `1e-200000`, `1e-16384`, `0.1e-16383`, `1.5e-16383`, `-1.25e-16382`,
			"1"+zeros(131072), "0."+zeros(16383)+"1", "0."+zeros(16384), `0e-16384`, `1e99999999999999999999`, `1e-99999999999999999999`, `0e99999999999999999999`, `1e2147483648`)
	}},
	{"a payload that PostgreSQL could store but not give back is refused", "a kilobyte of exponents would grow beyond any limit and block its queue for ever", func(t *testing.T, e *env) {
		q := pgqrs.NewQueue[json.RawMessage](e.store, "bombs")
		list := func(n int) json.RawMessage {
			return json.RawMessage("[" + strings.TrimSuffix(strings.Repeat("1e131071,", n), ",") + "]")
		}
		_, err := q.Enqueue(t.Context(), list(10_000))
		wantError(t, err, pgqrs.ErrInvalidPayload)
		e.wantEmpty(t)
		enqueue(t, q, list(8))
		sameJSON(t, dequeueOne(t, q).Raw, string(list(8)))
	}},
	{"a payload of exactly 1 MiB as JSON is taken and one byte more is refused", "a limit that differs by a byte between enqueue and documentation loses the largest jobs", func(t *testing.T, e *env) {
		q := jobs(e)
		_, err := q.Enqueue(t.Context(), strings.Repeat("x", 1<<20-1))
		wantError(t, err, pgqrs.ErrInvalidPayload)
		wantErrorText(t, err, "1048577 bytes")
		wantErrorText(t, err, "1048576 allowed")
		e.wantEmpty(t)
		largest := strings.Repeat("x", 1<<20-2)
		enqueue(t, q, largest)
		if dequeueOne(t, q).Payload != largest {
			t.Error("it came back changed")
		}
	}},
	{"Limits.MaxPayload sets another limit", "an operator could not keep large payloads out, or let them in", func(t *testing.T, e *env) {
		small := pgqrs.NewQueue[string](e.newStore(t, pgqrs.Config{Limits: pgqrs.Limits{MaxPayload: 5}}), "small")
		_, err := small.Enqueue(t.Context(), "four")
		wantError(t, err, pgqrs.ErrInvalidPayload)
		_, err = small.EnqueueBatch(t.Context(), []string{"abc", "four"})
		wantError(t, err, pgqrs.ErrInvalidPayload)
		e.wantEmpty(t)
		enqueue(t, small, "abc")
		large := pgqrs.NewQueue[string](e.newStore(t, pgqrs.Config{Limits: pgqrs.Limits{MaxPayload: 2 << 20}}), "large")
		enqueue(t, large, strings.Repeat("x", 3<<19))
		negative := e.newStore(t, pgqrs.Config{Limits: pgqrs.Limits{MaxPayload: -1}})
		_, err = pgqrs.NewQueue[string](negative, "negative").Enqueue(t.Context(), "x")
		wantErrorText(t, err, "MaxPayload")
	}},
	{"with StrictPayloads a field that a payload's or an input's type lacks is refused, and one of a signal or a result is not", "a mistyped field would be a zero value in silence, or a deploy fail the runs under way", payloadStrict},
	{"a payload that does not decode into T goes to the dead letters, and its neighbours are delivered", "one message of an old version would block the queue for ever", func(t *testing.T, e *env) {
		q := pgqrs.NewQueue[any](e.store, "numbers")
		bad := enqueue[any](t, q, "2026")
		value(q.EnqueueBatch(t.Context(), []any{1, 2.5, 3}))(t)
		ints := pgqrs.NewQueue[int](e.store, "numbers")
		equalSlices(t, "payloads", payloads(dequeue(t, ints, 10)), []int{1, 3})
		m := e.info(t, bad)
		equal(t, "state", m.State, pgqrs.Dead)
		if !strings.Contains(m.LastError, "does not decode into int") {
			t.Errorf("last error is %q", m.LastError)
		}
		equal(t, "dead letters", e.stats(t, "numbers").Dead, 2)
		alone := enqueue[any](t, q, "alone")
		wantNone(t, ints)
		equal(t, "state", e.info(t, alone).State, pgqrs.Dead)
	}},
}

// comesBack fails the test unless a batch of JSON texts is delivered unchanged.
func comesBack(t *testing.T, e *env, texts ...string) {
	t.Helper()
	q := pgqrs.NewQueue[json.RawMessage](e.store, "raw")
	var raws []json.RawMessage
	for _, text := range texts {
		raws = append(raws, json.RawMessage(text))
	}
	ids := value(q.EnqueueBatch(t.Context(), raws))(t)
	for at := 0; at < len(ids); { // a call returns no more bytes than Dequeue documents
		ms := dequeue(t, q, len(ids)-at+1)
		if len(ms) == 0 {
			t.Fatalf("%d of %d messages came", at, len(ids))
		}
		equalSlices(t, "ids", idsOf(ms), ids[at:min(at+len(ms), len(ids))])
		for i, m := range ms {
			sameJSON(t, m.Payload, texts[at+i])
		}
		must(t, q.Ack(t.Context(), ms...))
		at += len(ms)
	}
}

type marshaler struct{ raw string }

func (m marshaler) MarshalJSON() ([]byte, error) {
	if m.raw == "" {
		return nil, errors.New("marshaler says no")
	}
	return []byte(m.raw), nil
}

func invalidPayloads(t *testing.T, e *env) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	bad := []any{
		"a\x00b", "a\xffb", "a\xed\xa0\x80b", map[string]int{"\x00": 1}, map[string]int{"\xff": 1}, []any{map[string]any{"deep": []string{"\x00"}}},
		make(chan int), func() {}, math.NaN(), math.Inf(1), complex(1, 1), marshaler{}, marshaler{"{"}, marshaler{"\"\xff\""},
	}
	for _, text := range []string{
		`"\u0000"`, `{"\u0000":1}`, `"\ud800"`, `"\ud800x"`, `"\uDC00"`, `"\ud83d\ud83d"`, `"\ud800\n"`, `"\ud800\\udc00"`, `"x\udbff\ue000"`, `{"\udfff":1}`,
		"\"\xff\"", "{\"\xc3\":1}", "\"\xed\xa0\x80\"", `1e200000`, `[-1e200000]`, `{"a":1e-200000}`,
		nested(1001), strings.Repeat(`{"a":[`, 501) + "1" + strings.Repeat(`]}`, 501),
		``, `not json`, `{"a":1} x`, `01`, `NaN`, `'a'`, `{"a":1,}`, `"open`, "\"\n\"",
	} {
		bad = append(bad, json.RawMessage(text), []json.RawMessage{json.RawMessage(text)})
	}
	q := pgqrs.NewQueue[any](e.store, "invalid")
	for _, payload := range bad {
		if _, err := q.Enqueue(t.Context(), payload); !errors.Is(err, pgqrs.ErrInvalidPayload) {
			t.Errorf("%.60q: error is %v", fmt.Sprint(payload), err)
		}
		if _, err := q.EnqueueBatch(t.Context(), []any{"good", payload}); !errors.Is(err, pgqrs.ErrInvalidPayload) {
			t.Errorf("%.60q in a batch: error is %v", fmt.Sprint(payload), err)
		}
	}
	e.wantEmpty(t)
	for _, text := range []string{nested(1000), strings.Repeat(`{"a":[`, 500) + "1" + strings.Repeat(`]}`, 500)} {
		enqueue[any](t, q, json.RawMessage(text))
		m := dequeueOne(t, pgqrs.NewQueue[json.RawMessage](e.store, "invalid"))
		sameJSON(t, m.Payload, text)
		must(t, pgqrs.NewQueue[json.RawMessage](e.store, "invalid").Ack(t.Context(), m))
	}
}

// checkNumbers fails the test unless all the numbers are accepted and delivered, or all are
// refused. On PostgreSQL it also checks that the server would refuse the same numbers.
func checkNumbers(t *testing.T, e *env, take bool, numbers ...string) {
	t.Helper()
	q := pgqrs.NewQueue[json.RawMessage](e.store, "numbers")
	for _, number := range numbers {
		_, err := q.Enqueue(t.Context(), json.RawMessage(number))
		if !take {
			if !errors.Is(err, pgqrs.ErrInvalidPayload) {
				t.Errorf("%.40s: error is %v; want one matching ErrInvalidPayload", number, err)
			}
			var held string
			if e.dialect == pgqrs.Postgres && e.db.QueryRowContext(t.Context(), "SELECT $1::text::jsonb::text", number).Scan(&held) == nil {
				t.Errorf("%.40s is refused, but PostgreSQL holds it as %.40s", number, held)
			}
			continue
		}
		if err != nil {
			t.Errorf("%.40s: %v", number, err)
			continue
		}
		m := dequeueOne(t, q)
		sameJSON(t, m.Raw, number)
		must(t, q.Ack(t.Context(), m))
	}
}

// sameJSON fails the test unless got and want are the same JSON value. Spaces, the order of fields,
// escapes and the notation of numbers do not matter.
func sameJSON(t *testing.T, got []byte, want string) {
	t.Helper()
	if !sameValue(decode(t, got), decode(t, []byte(want))) {
		t.Errorf("got %.100s; want %.100s", got, want)
	}
}

func decode(t *testing.T, raw []byte) any {
	t.Helper()
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%.100q: %v", raw, err)
	}
	return v
}

func sameValue(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && sameNumber(string(a), string(b))
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, sameValue)
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key, v := range a {
			if w, ok := b[key]; !ok || !sameValue(v, w) {
				return false
			}
		}
		return true
	default:
		return a == b
	}
}

func sameNumber(a, b string) bool {
	x, ok1 := new(big.Rat).SetString(a)
	y, ok2 := new(big.Rat).SetString(b)
	return ok1 && ok2 && x.Cmp(y) == 0
}

// claimedTogether claims payloads and headers of falling length, so that each fits into the space
// of the one before it.
func claimedTogether(t *testing.T, e *env) {
	const n = 20
	payload := func(i int) string { return strings.Repeat(string(rune('a'+i)), n-i) }
	var payloads []string
	for i := range n {
		payloads = append(payloads, payload(i))
	}
	q := pgqrs.NewQueue[string](e.store, "together")
	ids := value(q.EnqueueBatch(t.Context(), payloads, pgqrs.Each(func(i int) []pgqrs.Option {
		return []pgqrs.Option{pgqrs.Headers(map[string]string{"name": payload(i)})}
	})))(t)
	listed := value(e.store.Messages(t.Context(), pgqrs.MessageFilter{IDs: ids}))(t)
	for i, m := range dequeue(t, q, n) {
		equal(t, "payload", m.Payload, payload(i))
		equal(t, "raw payload", string(m.Raw), `"`+payload(i)+`"`)
		equal(t, "header", m.Headers["name"], payload(i))
		equal(t, "listed payload", string(listed[i].Raw), `"`+payload(i)+`"`)
		equal(t, "listed header", listed[i].Headers["name"], payload(i))
	}
}
func payloadStrict(t *testing.T, e *env) {
	type mail struct{ To struct{ Name string } }
	type raw = json.RawMessage
	store := e.newStore(t, pgqrs.Config{StrictPayloads: true})
	good, bad := raw(`{"To":{"name":"ada"}}`), raw(`{"To":{"Name":"eve","Nmae":"bob"}}`)
	lax, strict := pgqrs.NewQueue[raw](e.store, "mail"), pgqrs.NewQueue[mail](store, "mail")
	refused := func(id int64) {
		t.Helper()
		m := e.awaitState(t, id, pgqrs.Dead)
		wantText(t, "last error", m.LastError, `unknown field "Nmae"`)
	}
	kept, dead := enqueue(t, lax, good), enqueue(t, lax, bad)
	equalSlices(t, "messages that Dequeue returns", messageIDs(dequeue(t, strict, 2)), []int64{kept})
	refused(dead)

	h, tx := pgqrs.NewQueue[mail](store, "handled"), pgqrs.NewQueue[mail](store, "in a transaction")
	batch := pgqrs.NewQueue[mail](store, "in a batch")
	never := func(context.Context, *pgqrs.Message[mail]) error { return errTest }
	start(t, fast(h.Handle(never),
		tx.HandleTx(func(context.Context, *sql.Tx, *pgqrs.Message[mail]) error { return errTest }),
		batch.HandleBatch(func(context.Context, []*pgqrs.Message[mail]) error { return errTest }, 10, 0)))
	for _, name := range []string{"handled", "in a transaction", "in a batch"} {
		refused(enqueue(t, pgqrs.NewQueue[raw](e.store, name), bad))
	}

	run := func(ctx context.Context, run *pgqrs.Run, in mail) (rest, error) {
		if in.To.Name == "eve" {
			return rest{}, errTest
		}
		r, err := pgqrs.Step(ctx, run, "step", func(context.Context) (rest, error) { return rest{A: 1}, nil })
		if err == nil {
			_, err = pgqrs.Signal[rest]("signal").Wait(ctx, run, 0)
		}
		return r, err
	}
	w := pgqrs.NewWorkflow[mail, rest](store, "mails")
	start(t, fast(w.Handle(run)))
	loose := pgqrs.NewWorkflow[raw, raw](e.store, "mails")
	_, err := value(loose.Start(t.Context(), bad))(t).Result(t.Context())
	wantErrorText(t, err, `unknown field "Nmae"`)
	fine := value(loose.Start(t.Context(), good))(t)
	must(t, pgqrs.Signal[rest]("signal").Send(t.Context(), e.store, fine.ID(), rest{A: 1}))
	equal(t, "result", value(w.RunHandle(fine.ID()).Result(t.Context()))(t).A, 1)
}

// A rest is the rest of a type that has lost its field B.
type rest struct{ A int }

// MarshalJSON still writes the field B, as the version before.
func (r rest) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, `{"A":%d,"B":2}`, r.A), nil }
