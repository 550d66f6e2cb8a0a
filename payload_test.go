package pgqrs

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgqrs/pgqrs-go/internal/pgjson"
)

// rawPayloads has one or two texts for each check of internal/pgjson, whose own tests have more.
var rawPayloads = []struct {
	json string
	ok   bool
}{
	{`null`, true}, {`-0.0`, true}, {`{"a":[1,2.5e3,{"b":"<&>"}]}`, true}, {`"` + "\uFFFD" + `"`, true}, {`"\uFFFD \ufffd"`, true}, {`"\ud83d\ude00"`, true}, {`1E+131071`, true},
	{strings.Repeat("[", 1000) + strings.Repeat("]", 1000), true},

	{`{"a\u0000":1}`, false}, {`"\ud83d"`, false}, {`"\ude00"`, false}, {"\"\xff\"", false}, {`1e131072`, false}, {`1e-16384`, false},
	{`[` + strings.Repeat(`1e131071,`, 8) + `1e131071]`, false}, // a megabyte once PostgreSQL has written it out
	{strings.Repeat("[", 1001) + strings.Repeat("]", 1001), false},
}

func TestPayloadsThatNotEveryDialectCanHoldAreRefused(t *testing.T) {
	for _, p := range rawPayloads {
		text, err := Limits{}.encode(json.RawMessage(p.json))
		if ok := err == nil; ok != p.ok {
			t.Errorf("%.40q: %v, want accepted to be %v", p.json, err, p.ok)
		}
		if err != nil && !errors.Is(err, ErrInvalidPayload) {
			t.Errorf("%.40q: %v does not match ErrInvalidPayload", p.json, err)
		}
		if err == nil && text != p.json {
			t.Errorf("%.40q became %.40q", p.json, text)
		}
	}
}

func TestGoValuesThatNotEveryDialectCanHoldAreRefused(t *testing.T) {
	for name, v := range map[string]any{
		"a NUL in a string":                    "a\x00b",
		"invalid UTF-8 in a string":            "a\xffb",
		"invalid UTF-8 in a key":               map[string]int{"\xff": 1},
		"invalid UTF-8 in a struct":            struct{ A []string }{[]string{"\uFFFD", "\xff"}},
		"invalid UTF-8 in a field of raw JSON": struct{ A json.RawMessage }{json.RawMessage("\"\xff\"")},
		"a channel":                            make(chan int),
		"a function":                           func() {},
		"half a JSON text":                     json.RawMessage(`{"a":`),
		"two JSON texts":                       json.RawMessage(`1 2`),
		"no JSON text":                         json.RawMessage(``),
		"invalid UTF-8 in raw JSON":            json.RawMessage("\"\xff\""),
		"a number that is no number":           json.Number("1e"),
		"a huge number":                        json.Number("1e200000"),
		"a value in a struct":                  struct{ A []string }{[]string{"ok", "\x00"}},
	} {
		if text, err := (Limits{}).encode(v); !errors.Is(err, ErrInvalidPayload) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

func TestPayloadsKeepTheirCharacters(t *testing.T) {
	text, err := Limits{}.encode(map[string]string{"html": "<a href='x?y&z'>"})
	if want := `{"html":"<a href='x?y&z'>"}`; err != nil || text != want {
		t.Errorf("got %q, %v; want %q", text, err, want)
	}
}

func TestPayloadsHaveALimit(t *testing.T) {
	text := func(n int) string { return strings.Repeat("a", n-2) } // of n bytes as JSON
	for _, test := range []struct {
		limit Limits
		bytes int
		ok    bool
	}{
		{Limits{}, 1 << 20, true},
		{Limits{}, 1<<20 + 1, false},
		{Limits{MaxPayload: 100}, 100, true},
		{Limits{MaxPayload: 100}, 101, false},
		{Limits{MaxPayload: 4 << 20}, 2 << 20, true},
	} {
		_, err := test.limit.encode(text(test.bytes))
		if ok := err == nil; ok != test.ok || err != nil && !errors.Is(err, ErrInvalidPayload) {
			t.Errorf("%+v with %d bytes: %v", test.limit, test.bytes, err)
		}
	}
	if (Limits{MaxPayload: -1}).check() == nil {
		t.Error("a negative limit is accepted")
	}
}

func TestHeadersAreCheckedLikePayloads(t *testing.T) {
	for name, test := range map[string]struct {
		headers map[string]string
		want    any
		ok      bool
	}{
		"none":          {nil, nil, true},
		"empty":         {map[string]string{}, nil, true},
		"some":          {map[string]string{"b": "<2>", "a": "1"}, `{"a":"1","b":"<2>"}`, true},
		"a NUL":         {map[string]string{"a": "\x00"}, nil, false},
		"invalid UTF-8": {map[string]string{"\xff": ""}, nil, false},
		"64 KiB":        {map[string]string{"a": strings.Repeat("a", 64<<10-len(`{"a":""}`))}, nil, true},
		"more":          {map[string]string{"a": strings.Repeat("a", 64<<10-len(`{"a":""}`)+1)}, nil, false},
	} {
		got, err := encodeHeaders(test.headers)
		if ok := err == nil; ok != test.ok || !ok && !errors.Is(err, ErrInvalidPayload) {
			t.Errorf("%s: %v", name, err)
		}
		if name != "64 KiB" && got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// decoded returns a JSON text as Go values, with its numbers as they are written.
func decoded(t *testing.T, raw []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%.100q: %v", raw, err)
	}
	return v
}

func FuzzEncodeRawJSON(f *testing.F) {
	for _, p := range rawPayloads {
		f.Add([]byte(p.json))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		text, err := Limits{}.encode(json.RawMessage(raw))
		if !json.Valid(raw) {
			if err == nil {
				t.Fatalf("%q is not JSON", raw)
			}
			return
		}
		if ok := pgjson.Check(raw) == nil && len(raw) <= 1<<20; ok != (err == nil) {
			t.Fatalf("%q: %v; want accepted to be %v", raw, err, ok)
		}
		if err == nil && !reflect.DeepEqual(decoded(t, []byte(text)), decoded(t, raw)) {
			t.Fatalf("%q became %q", raw, text)
		}
	})
}

func FuzzEncodeString(f *testing.F) {
	for _, s := range []string{"", "ada", "\x00", "\xff", "\uFFFD", "\\u0000", "<&>\u2028", "\x7f\x1f\"", "😀"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := Limits{}.encode(s)
		if ok := utf8.ValidString(s) && !strings.Contains(s, "\x00"); ok != (err == nil) {
			t.Fatalf("%q: %v", s, err)
		}
		var back string
		if err == nil && (json.Unmarshal([]byte(text), &back) != nil || back != s) {
			t.Fatalf("%q became %q, and that %q", s, text, back)
		}
	})
}

func FuzzHeaders(f *testing.F) {
	for _, s := range []string{"", "trace", "\x00", "\xff", "\uFFFD", "\\u0000", "<&>\u2028", "\x1f\"", "😀", strings.Repeat("x", 64<<10)} {
		f.Add(s, "value")
		f.Add("name", s)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		headers := map[string]string{name: value, "other": name}
		stored, err := encodeHeaders(headers)
		if err != nil {
			bad := !utf8.ValidString(name) || !utf8.ValidString(value) || strings.Contains(name+value, "\x00")
			if !errors.Is(err, ErrInvalidPayload) || !bad && len(name+value) < 5<<10 {
				t.Fatalf("%q: %v", headers, err)
			}
			return
		}
		row := messageRow{headers: []byte(stored.(string))}
		var m MessageInfo
		if row.fill(&m); m.Malformed != "" || !maps.Equal(m.Headers, headers) {
			t.Fatalf("%q came back as %q, %s", headers, m.Headers, m.Malformed)
		}
	})
}

func TestNamesAndKeys(t *testing.T) {
	for _, good := range []string{"a", "emails", "with space", "ä", "😀", "a/b.c-d_e", `"quoted"`, strings.Repeat("ä", 255)} {
		if err := checkName("queue name", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, text := range map[string]string{
		"":                       "empty queue name",
		"\xff":                   `queue name "\xff" is not valid UTF-8`,
		"a\nb":                   `queue name "a\nb" has a control character`,
		"a\x00":                  `queue name "a\x00" has a control character`,
		"\x7f":                   `queue name "\x7f" has a control character`,
		strings.Repeat("b", 256): `queue name "bbbbbbbbbbbbbbbbbbbb"... has more than 255 characters`,
	} {
		if err := checkName("queue name", bad); err == nil || err.Error() != text {
			t.Errorf("%.30q: got %v, want %s", bad, err, text)
		}
	}
}

func TestTitlesHaveNoSpaceAtTheirEnds(t *testing.T) {
	for _, good := range []string{"a", "with space", "a\u00a0b"} {
		if err := checkTitle("queue name", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{" a", "a ", " ", "\u00a0a", "a\u2003", "a\u0085"} {
		if err := checkTitle("queue name", bad); err == nil || !strings.Contains(err.Error(), "begins or ends with a space") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := checkTitle("queue name", ""); err == nil || err.Error() != "empty queue name" {
		t.Errorf("none: %v", err)
	}
}

func TestErrorsAreStoredAsBoundedText(t *testing.T) {
	for in, want := range map[string]string{
		"bounced":                  "bounced",
		"a\x00b":                   "a\uFFFDb",
		"a\xff\xfeb":               "a\uFFFDb",
		"":                         "",
		strings.Repeat("x", 8<<10): strings.Repeat("x", 8<<10),
		strings.Repeat("x", 9000):  strings.Repeat("x", 8<<10) + "...",
		// A character is not cut in half.
		strings.Repeat("x", 8191) + "ä": strings.Repeat("x", 8191) + "...",
	} {
		if got := errorText(errors.New(in)); got != want {
			t.Errorf("%.40q (%d bytes) became %.40q (%d bytes), want %d bytes", in, len(in), got, len(got), len(want))
		}
	}
}

func TestBucketAddsUpFractions(t *testing.T) {
	b := newBucket(Limits{MaxPerSecond: 10, Burst: 2})
	now := time.Unix(1000, 0)
	take := func(after time.Duration, n int, want time.Duration) {
		t.Helper()
		now = now.Add(after)
		err := b.spend(now, n)
		var limited *RateLimitError
		switch {
		case err == nil && want == 0:
		case !errors.As(err, &limited) || limited.Wait.Round(time.Microsecond) != want:
			t.Errorf("%d after %v: %v; want a wait of %v", n, after, err, want)
		}
	}
	take(0, 1, 0)
	take(0, 1, 0)
	take(0, 1, 100*time.Millisecond) // it starts full, with two
	for i := range 9 {
		take(10*time.Millisecond, 1, time.Duration(90-10*i)*time.Millisecond)
	}
	take(10*time.Millisecond, 1, 0) // ten times a tenth
	take(time.Hour, 2, 0)           // no more than two are available together
	take(0, 1, 100*time.Millisecond)
	take(time.Hour, 7, 0)                     // it is full, so seven pass
	take(0, 1, 600*time.Millisecond)          // five of them are owed
	take(600*time.Millisecond, 1, 0)          // and the debt is paid off
	take(-time.Hour, 1, 100*time.Millisecond) // a clock that goes back removes nothing
}

func TestRateWithoutBurstAllowsASecond(t *testing.T) {
	for rate, want := range map[float64]float64{0.5: 1, 1: 1, 2.5: 3, 1000: 1000} {
		if b := newBucket(Limits{MaxPerSecond: rate}); b.burst != want || b.left != want {
			t.Errorf("a rate of %v has a burst of %v with %v left; want %v", rate, b.burst, b.left, want)
		}
	}
	if newBucket(Limits{}) != nil {
		t.Error("no rate has a bucket")
	}
}

func TestLimitsThatMakeNoSense(t *testing.T) {
	for text, l := range map[string]Limits{
		"MaxPayload is -1": {MaxPayload: -1}, "MaxPayload is 33554433; at most 33554432 are possible": {MaxPayload: 32<<20 + 1}, "MaxString is -1": {MaxString: -1}, "MaxDepth is -2": {MaxDepth: -2},
		"MaxPerSecond is -1": {MaxPerSecond: -1}, "MaxPerSecond is NaN": {MaxPerSecond: math.NaN()}, "MaxPerSecond is +Inf": {MaxPerSecond: math.Inf(1)},
		"Burst is -1": {Burst: -1, MaxPerSecond: 1}, "Burst is 5 without a MaxPerSecond": {Burst: 5},
	} {
		if err := l.check(); err == nil || !strings.Contains(err.Error(), "Limits."+text) {
			t.Errorf("%+v: %v; want %q", l, err, text)
		}
	}
	if err := (Limits{MaxString: 1, MaxDepth: 1, MaxPerSecond: 1e-9, Burst: 1}).check(); err != nil {
		t.Error(err)
	}
}

func TestRateLimitErrorIsARetryAfter(t *testing.T) {
	err := error(&operationError{"enqueue", &RateLimitError{3 * time.Second}})
	if o := (Policy{}).outcome(1, err); o.kind != retried || o.delay != 3*time.Second {
		t.Errorf("the outcome is %v after %v; want another try after 3 s", o.kind, o.delay)
	}
	if o := (Policy{}).outcome(5, err); o.kind != died {
		t.Errorf("the outcome of the last attempt is %v", o.kind)
	}
	if text := err.Error(); text != "pgqrs: enqueue: rate limit: try again in 3s" {
		t.Error(text)
	}
}

func TestRecordOfGoValues(t *testing.T) {
	for want, v := range map[string]any{
		`{"B": 0, "To": "<a>"}`: struct {
			To string
			B  float64
		}{"<a>", math.Copysign(0, -1)},
		`100`:                     json.Number("1e2"),
		`{"a": 1, "b": 2}`:        json.RawMessage(`{"b":2,"a":1}`),
		`"\\u0041 is an A"`:       `\u0041 is an A`,
		`10000000000000000000000`: 1e22,
	} {
		got, err := Limits{}.record(v)
		if err != nil || got != want {
			t.Errorf("%#v is recorded as %s, %v; want %s", v, got, err, want)
		}
	}
	if _, err := (Limits{}).record("\x00"); err == nil {
		t.Error("a zero byte is recorded")
	}
}
