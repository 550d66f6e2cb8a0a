package pgqrs

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"math/big"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// storable says by other means than checkJSON whether every dialect can hold a
// valid JSON text: regular expressions for strings, big numbers for numbers.
func storable(raw []byte) bool {
	return utf8.Valid(raw) && storableStrings(raw) && storableNumbers(raw) && nesting(raw) <= 1000
}

var (
	stringLiteral = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	escapedSlash  = regexp.MustCompile(`\\\\`)
	pair          = regexp.MustCompile(`\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}`)
	unstorable    = regexp.MustCompile(`\\u0000|\\u[dD][89a-fA-F][0-9a-fA-F]{2}`)
	numberLiteral = regexp.MustCompile(`-?([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?`)
)

func storableStrings(raw []byte) bool {
	for _, s := range stringLiteral.FindAll(raw, -1) {
		s = escapedSlash.ReplaceAll(s, []byte("_"))
		if unstorable.Match(pair.ReplaceAll(s, []byte("_"))) {
			return false
		}
	}
	return true
}

// storableNumbers writes every number out without an exponent, as PostgreSQL does.
func storableNumbers(raw []byte) bool {
	longer := 0
	for _, n := range numberLiteral.FindAllSubmatch(stringLiteral.ReplaceAll(raw, nil), -1) {
		before, after, ok := writtenOut(string(n[1]), string(n[2]), string(n[3]))
		if !ok || before > 131072 || after > 16383 {
			return false
		}
		longer += max(0, max(1, before)+after-len(n[0]))
	}
	return longer <= 1<<20
}

// writtenOut returns how many digits a number has before its point and after.
func writtenOut(integer, fraction, exponent string) (before, after int, ok bool) {
	shift, _ := new(big.Int).SetString("0"+strings.TrimLeft(exponent, "+-"), 10)
	if strings.HasPrefix(exponent, "-") {
		shift.Neg(shift)
	}
	digits := integer + fraction
	zero := strings.Trim(digits, "0") == ""
	if shift.CmpAbs(big.NewInt(2<<20)) > 0 { // more than any payload could make up for
		return 0, 0, zero && shift.Sign() > 0 && shift.Cmp(big.NewInt(1e9)) <= 0
	}
	point := len(integer) + int(shift.Int64())
	if point < 0 {
		digits, point = strings.Repeat("0", -point)+digits, 0
	}
	if point > len(digits) {
		digits += strings.Repeat("0", point-len(digits))
	}
	return len(strings.TrimLeft(digits[:point], "0")), len(digits) - point, true
}

func nesting(raw []byte) int {
	depth, deepest := 0, 0
	for _, c := range stringLiteral.ReplaceAll(raw, nil) {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		deepest = max(deepest, depth)
	}
	return deepest
}

var payloads = []struct {
	json string
	ok   bool
}{
	{`null`, true}, {`true`, true}, {`""`, true}, {`0`, true}, {`-0.0`, true}, {`[]`, true}, {`{}`, true},
	{`{"a":[1,2.5e3,{"b":"<&>"}]}`, true},
	{`"ä 世界 😀"`, true},
	{`"\ud83d\ude00"`, true},
	{`"\uD83D\uDE00 \u00e4 \n \\ \" \/"`, true},
	{`"\\u0000"`, true}, // a backslash and text
	{`"\\\\u0000"`, true},
	{`"` + "\uFFFD" + `"`, true}, // the character itself
	{`"\uFFFD \ufffd"`, true},    // its escape
	{`"2026-11-22"`, true},
	{`1e131071`, true}, {`1E+131071`, true}, {`1e-16383`, true}, {`12345678901234567890123456789.5`, true},
	{`0.1e131072`, true}, {`0e200000`, true}, {`-0.00e3`, true}, {`12.50e-16381`, true},
	{`[` + strings.Repeat(`1e131071,`, 7) + `1e131071]`, true},
	{strings.Repeat("[", 1000) + strings.Repeat("]", 1000), true},

	{`"\u0000"`, false},
	{`"a\\\u0000"`, false},
	{`{"a\u0000":1}`, false},
	{`"\ud83d"`, false}, {`"\ude00"`, false}, {`"\ud83dx"`, false}, {`"\ud83d\n"`, false},
	{`"\ud83d\ud83d\ude00"`, false}, {`"\ude00\ud83d"`, false}, {`"\ud83d\\ude00"`, false},
	{"\"\xff\"", false}, {"\"\xed\xa0\x80\"", false},
	{`1e131072`, false}, {`10e131071`, false}, {`1e200000`, false}, {`-1e200000`, false},
	{`1e-16384`, false}, {`0.1e-16383`, false}, {`1e99999999999999999999`, false}, {`[{"a":1e-99999999999999999999}]`, false},
	{`12.50e-16382`, false}, {`0e-16384`, false}, {`0e99999999999999999999`, false}, {`0.1e131073`, false},
	{`[` + strings.Repeat(`1e131071,`, 8) + `1e131071]`, false}, // a megabyte once PostgreSQL has written it out
	{strings.Repeat("[", 1001) + strings.Repeat("]", 1001), false},
}

func TestPayloadsThatNotEveryDialectCanHoldAreRefused(t *testing.T) {
	for _, p := range payloads {
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
		if utf8.ValidString(p.json) && !json.Valid([]byte(p.json)) {
			t.Errorf("%.40q is not JSON, so this case says nothing", p.json)
		}
		if storable([]byte(p.json)) != p.ok {
			t.Errorf("%.40q: the rule by other means says %v", p.json, !p.ok)
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

// decoded is a JSON text as Go values, its numbers as they are written.
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
	for _, p := range payloads {
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
		if ok := storable(raw) && len(raw) <= 1<<20; ok != (err == nil) {
			t.Fatalf("%q: %v; the rule by other means says %v", raw, err, ok)
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
		"bounced":                       "bounced",
		"a\x00b":                        "a\uFFFDb",
		"a\xff\xfeb":                    "a\uFFFDb",
		"":                              "",
		strings.Repeat("x", 8<<10):      strings.Repeat("x", 8<<10),
		strings.Repeat("x", 9000):       strings.Repeat("x", 8<<10) + "...",
		strings.Repeat("x", 8191) + "ä": strings.Repeat("x", 8191) + "...", // not half a character
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
	take(0, 1, 100*time.Millisecond) // it began full, with two
	for i := range 9 {
		take(10*time.Millisecond, 1, time.Duration(90-10*i)*time.Millisecond)
	}
	take(10*time.Millisecond, 1, 0) // ten times a tenth
	take(time.Hour, 2, 0)           // no more than two come together
	take(0, 1, 100*time.Millisecond)
	take(time.Hour, 7, 0)                     // it is full, so seven pass
	take(0, 1, 600*time.Millisecond)          // five of them are owed
	take(600*time.Millisecond, 1, 0)          // and paid off
	take(-time.Hour, 1, 100*time.Millisecond) // a clock that goes back takes nothing away that was not there
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
		"MaxPayload is -1": {MaxPayload: -1}, "MaxString is -1": {MaxString: -1}, "MaxDepth is -2": {MaxDepth: -2},
		"Rate is -1": {MaxPerSecond: -1}, "Rate is NaN": {MaxPerSecond: math.NaN()}, "Rate is +Inf": {MaxPerSecond: math.Inf(1)},
		"Burst is -1": {Burst: -1, MaxPerSecond: 1}, "Burst is 5 without a Rate": {Burst: 5},
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

// canonicalForms are texts with what PostgreSQL's JSONB makes of them.
var canonicalForms = map[string]string{
	``:     ``,
	`null`: `null`, `true`: `true`, `false`: `false`, ` true `: `true`,
	`""`: `""`, `"a b"`: `"a b"`, `"\u0041\/"`: `"A/"`, `"\ud83d\ude00"`: `"😀"`, `"é"`: `"é"`, ` "é" `: `"é"`, `"\ud83d"`: "\"\ufffd\"", `"\ud83d\u0041"`: "\"\ufffdA\"", `"\u00e9\u2028"`: "\"é\u2028\"",
	`"\"\\\b\f\n\r\t\u0008\u001f\u007f"`: "\"\\\"\\\\\\b\\f\\n\\r\\t\\b\\u001f\x7f\"",
	`0`:                                  `0`, `-0`: `0`, `-0.0`: `0.0`, `-0.000e2`: `0.0`, `0e1000000000`: `0`, `-0e-3`: `0.000`, `-1`: `-1`, `-1.50`: `-1.50`,
	`1e2`: `100`, `1E+2`: `100`, `1.5e1`: `15`, `1.50e1`: `15.0`, `-1.25e-2`: `-0.0125`, `1e-5`: `0.00001`, `100e-2`: `1.00`, `12e-1`: `1.2`,
	`0.05e1`: `0.5`, `0.05e2`: `5`, `0.05e3`: `50`, `0.001e-1`: `0.0001`, `10e-1`: `1.0`, `120.0e-3`: `0.1200`, `1e00002`: `100`,
	`[]`: `[]`, `{}`: `{}`, ` [ ] `: `[]`, "{\n}": `{}`, `[1,2]`: `[1, 2]`, `[ 1 , [ ] ,{ }]`: `[1, [], {}]`,
	`{"b":1,"a":1e2}`:                                     `{"a": 100, "b": 1}`,
	`{"a":1,"b":2}`:                                       `{"a": 1, "b": 2}`,
	`{"bb":1,"c":2,"aaa":3,"":4}`:                         `{"": 4, "c": 2, "bb": 1, "aaa": 3}`,
	`{"a":1,"a":2,"b":3,"a":4}`:                           `{"a": 4, "b": 3}`,
	`{"a":1,"\u0061":2}`:                                  `{"a": 2}`,
	`{"é":1,"zz":2,"z":3}`:                                `{"z": 3, "zz": 2, "é": 1}`,
	`{"z":{"y":1,"x":[{"w":1,"v":-0}]},"a":"\u003cb\/>"}`: `{"a": "<b/>", "z": {"x": [{"v": 0, "w": 1}], "y": 1}}`,
}

func TestCanonical_Forms(t *testing.T) {
	for text, want := range canonicalForms {
		if got := canonical(text); got != want {
			t.Errorf("%s becomes %s, want %s", text, got, want)
		}
		if again := canonical(want); again != want {
			t.Errorf("%s becomes %s, though it is canonical", want, again)
		}
	}
}

// What PostgreSQL writes out is long, and what it cannot hold stays as it is.
func TestCanonical_HugeNumbers(t *testing.T) {
	for text, want := range map[string]string{
		"1e131071": "1" + strings.Repeat("0", 131071), "-1e-16383": "-0." + strings.Repeat("0", 16382) + "1",
		"1e131072": "1e131072", "1e-16384": "1e-16384", "1e99999999999999999999": "1e99999999999999999999",
	} {
		if got := canonical(text); got != want {
			t.Errorf("%s becomes %.40s...", text, got)
		}
	}
}

func TestCanonical_NestsAsDeepAsPayloads(t *testing.T) {
	text := strings.Repeat(`{"b":1,"a":[`, maxDepth/2) + strings.Repeat("]}", maxDepth/2)
	want := strings.Repeat(`{"a": [`, maxDepth/2) + strings.Repeat(`], "b": 1}`, maxDepth/2)
	if got := canonical(text); got != want {
		t.Errorf("it becomes %.80s...", got)
	}
}

// A scalar that has its form already is recorded as it is.
func TestCanonical_PlainScalarsAreNotCopied(t *testing.T) {
	for _, text := range []string{`"paid"`, `17`, `0.5`, `true`, `false`, `null`} {
		if n := testing.AllocsPerRun(10, func() { canonical(text) }); n > 0 {
			t.Errorf("%s takes %v allocations", text, n)
		}
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

// FuzzCanonical holds the form against encoding/json: the value stays the same, and the form of the form is itself.
func FuzzCanonical(f *testing.F) {
	for text := range canonicalForms {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) || checkJSON(raw) != nil {
			return
		}
		got := canonical(string(raw))
		if !json.Valid([]byte(got)) || checkJSON([]byte(got)) != nil {
			t.Fatalf("%s becomes %s, which is no JSON", raw, got)
		}
		if again := canonical(got); again != got {
			t.Errorf("%s becomes %s, and that %s", raw, got, again)
		}
		if a, b := exact(t, raw), exact(t, []byte(got)); !reflect.DeepEqual(a, b) {
			t.Errorf("%s becomes %s", raw, got)
		}
	})
}

// exact decodes a JSON text, with numbers as fractions of any size.
func exact(t *testing.T, raw []byte) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return withoutExponents(v)
}

// withoutExponents replaces the numbers in a decoded value by digits and a power of ten.
func withoutExponents(v any) any {
	switch v := v.(type) {
	case json.Number:
		mantissa, exponent, _ := strings.Cut(strings.ToLower(v.String()), "e")
		integer, fraction, _ := strings.Cut(strings.TrimPrefix(mantissa, "-"), ".")
		digits := strings.TrimLeft(integer+fraction, "0")
		significant := strings.TrimRight(digits, "0")
		if significant == "" {
			return "0"
		}
		var exp int
		if exponent != "" {
			exp, _ = strconv.Atoi(exponent)
		}
		return []any{strings.HasPrefix(mantissa, "-"), significant, len(digits) - len(significant) - len(fraction) + exp}
	case []any:
		for i := range v {
			v[i] = withoutExponents(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = withoutExponents(v[k])
		}
	}
	return v
}
