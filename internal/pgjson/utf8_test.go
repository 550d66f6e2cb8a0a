package pgjson

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
)

type rawString struct{ text string }

func (r rawString) MarshalJSON() ([]byte, error) { return []byte(`"` + r.text + `"`), nil }

type textual struct{ text string }

func (t textual) MarshalText() ([]byte, error) { return []byte(t.text), nil }

type onPointer struct{ text string }

func (p *onPointer) MarshalText() ([]byte, error) { return []byte(p.text), nil }

type level uint8

func (l level) MarshalText() ([]byte, error) { return []byte{byte(l)}, nil }

type hidden struct{ Text string }

type fields struct {
	hidden
	Named   string `json:"name,omitempty"`
	Skipped string `json:"-"`
	private string
	Any     any
	Pointer *string
	Self    *fields
}

// Each case is a value that holds a text, made for a valid text and for an invalid one.
var holders = map[string]func(text string) any{
	"string":                 func(s string) any { return s },
	"named string":           func(s string) any { type name string; return name(s) },
	"pointer":                func(s string) any { return &s },
	"slice":                  func(s string) any { return []string{"a", s} },
	"array":                  func(s string) any { return [2]any{1, s} },
	"map value":              func(s string) any { return map[int]string{1: s} },
	"map key":                func(s string) any { return map[string]int{s: 1} },
	"map key of MarshalText": func(s string) any { return map[textual]int{{s}: 1} },
	"field":                  func(s string) any { return fields{Named: s} },
	"field of interface":     func(s string) any { return fields{Any: []any{s}} },
	"field of pointer":       func(s string) any { return &fields{Pointer: &s} },
	"nested field":           func(s string) any { return fields{Self: &fields{Named: s}} },
	"embedded field":         func(s string) any { return fields{hidden: hidden{s}} },
	"raw JSON":               func(s string) any { return []json.RawMessage{json.RawMessage(`"` + s + `"`)} },
	"MarshalJSON":            func(s string) any { return rawString{s} },
	"MarshalText":            func(s string) any { return []textual{{s}} },
	"MarshalText of pointer": func(s string) any { return []onPointer{{s}} },
}

func TestValidUTF8(t *testing.T) {
	for name, hold := range holders {
		for text, want := range map[string]bool{"ada": true, "\uFFFD": true, "\xff": false, "half \xf0\x9f": false} {
			if got := ValidUTF8(hold(text)); got != want {
				t.Errorf("%s with %q: got %v", name, text, got)
			}
		}
	}
}

func TestValidUTF8_TextThatIsNotWritten(t *testing.T) {
	for name, v := range map[string]any{
		"nil":             nil,
		"nil pointer":     (*onPointer)(nil),
		"bytes":           []byte("\xff"),
		"array of bytes":  [1]byte{0xff},
		"skipped field":   fields{Skipped: "\xff"},
		"private field":   fields{private: "\xff"},
		"number":          7,
		"empty":           []any{nil, map[string]any(nil), struct{}{}},
		"nil raw message": json.RawMessage(nil),
	} {
		if !ValidUTF8(v) {
			t.Errorf("%s: got false", name)
		}
	}
	if ValidUTF8([]level{'a', 0xff}) {
		t.Error("bytes that have a MarshalText are not looked at")
	}
}

// FuzzValidUTF8 compares the answer with the output of encoding/json for the same value.
func FuzzValidUTF8(f *testing.F) {
	for _, s := range []string{"", "ada", "\uFFFD", "\xff", "a\xf0\x9f", "\xed\xa0\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, hold := range holders {
			if name == "raw JSON" || name == "MarshalJSON" {
				continue // not every text is JSON between quotes
			}
			if got := ValidUTF8(hold(s)); got != utf8.ValidString(s) {
				t.Errorf("%s with %q: got %v", name, s, got)
			}
		}
	})
}
