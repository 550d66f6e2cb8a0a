package pgqrs

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"reflect"
	"regexp"
	"strings"
	"testing"
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
