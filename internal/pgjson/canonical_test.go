package pgjson

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// canonicalForms are texts and the form in which PostgreSQL's JSONB returns them.
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
		if got := Canonical(text); got != want {
			t.Errorf("%s becomes %s, want %s", text, got, want)
		}
		if again := Canonical(want); again != want {
			t.Errorf("%s becomes %s, though it is canonical", want, again)
		}
	}
}

// A number that PostgreSQL writes out is long, and a number that it cannot hold stays as it is.
func TestCanonical_HugeNumbers(t *testing.T) {
	for text, want := range map[string]string{
		"1e131071": "1" + strings.Repeat("0", 131071), "-1e-16383": "-0." + strings.Repeat("0", 16382) + "1",
		"1e131072": "1e131072", "1e-16384": "1e-16384", "1e99999999999999999999": "1e99999999999999999999",
	} {
		if got := Canonical(text); got != want {
			t.Errorf("%s becomes %.40s...", text, got)
		}
	}
}

func TestCanonical_NestsAsDeepAsPayloads(t *testing.T) {
	text := strings.Repeat(`{"b":1,"a":[`, maxDepth/2) + strings.Repeat("]}", maxDepth/2)
	want := strings.Repeat(`{"a": [`, maxDepth/2) + strings.Repeat(`], "b": 1}`, maxDepth/2)
	if got := Canonical(text); got != want {
		t.Errorf("it becomes %.80s...", got)
	}
}

// A scalar that has its form already is recorded as it is.
func TestCanonical_PlainScalarsAreNotCopied(t *testing.T) {
	for _, text := range []string{`"paid"`, `17`, `0.5`, `true`, `false`, `null`} {
		if n := testing.AllocsPerRun(10, func() { Canonical(text) }); n > 0 {
			t.Errorf("%s takes %v allocations", text, n)
		}
	}
}

// FuzzCanonical compares the form with encoding/json. The value stays the same, and the form of a
// form is the form itself.
func FuzzCanonical(f *testing.F) {
	for text := range canonicalForms {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) || Check(raw) != nil {
			return
		}
		got := Canonical(string(raw))
		if !json.Valid([]byte(got)) || Check([]byte(got)) != nil {
			t.Fatalf("%s becomes %s, which is no JSON", raw, got)
		}
		if again := Canonical(got); again != got {
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
