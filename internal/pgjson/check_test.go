package pgjson

import (
	"encoding/json"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// storable reports whether every dialect can hold a valid JSON text. It uses other means than
// Check: regular expressions for strings, and big numbers for numbers.
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

// writtenOut returns how many digits a number has before and after its point.
func writtenOut(integer, fraction, exponent string) (before, after int, ok bool) {
	shift, _ := new(big.Int).SetString("0"+strings.TrimLeft(exponent, "+-"), 10)
	if strings.HasPrefix(exponent, "-") {
		shift.Neg(shift)
	}
	digits := integer + fraction
	zero := strings.Trim(digits, "0") == ""
	if shift.CmpAbs(big.NewInt(2<<20)) > 0 { // more than any payload could compensate for
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

var checkedTexts = []struct {
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

func TestCheck(t *testing.T) {
	for _, p := range checkedTexts {
		depth, err := Depth([]byte(p.json))
		if ok := err == nil; ok != p.ok || (Check([]byte(p.json)) == nil) != p.ok {
			t.Errorf("%.40q: %v, want accepted to be %v", p.json, err, p.ok)
		}
		if want := nesting([]byte(p.json)); err == nil && depth != want {
			t.Errorf("%.40q is nested %d deep, want %d", p.json, depth, want)
		}
		if utf8.ValidString(p.json) && !json.Valid([]byte(p.json)) {
			t.Errorf("%.40q is not JSON, so this case says nothing", p.json)
		}
		if storable([]byte(p.json)) != p.ok {
			t.Errorf("%.40q: the rule by other means says %v", p.json, !p.ok)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, p := range checkedTexts {
		f.Add([]byte(p.json))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			return
		}
		if err := Check(raw); storable(raw) != (err == nil) {
			t.Fatalf("%q: %v; the rule by other means says %v", raw, err, err != nil)
		}
	})
}
