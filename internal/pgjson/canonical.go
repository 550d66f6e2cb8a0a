package pgjson

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Canonical returns a valid JSON text as PostgreSQL's JSONB returns it:
//   - Keys are sorted by length and then by bytes. The last of equal keys stays.
//   - Numbers have no exponent, and zero has no sign.
//   - Strings have only the escapes that they need.
//
// Canonical leaves a number that JSONB cannot hold as it is, and replaces a lone surrogate by
// U+FFFD.
func Canonical(text string) string {
	if isCanonicalScalar(text) {
		return text
	}
	c := canonicalizer{in: text, out: make([]byte, 0, len(text)+len(text)/8)}
	c.value()
	return string(c.out)
}

// isCanonicalScalar reports whether a text is a single value that Canonical leaves as it is.
func isCanonicalScalar(text string) bool {
	if text == "" {
		return true
	}
	switch text[0] {
	case '"':
		return strings.IndexByte(text, '\\') < 0 && strings.HasSuffix(text, `"`)
	case '{', '[', '-', ' ', '\t', '\r', '\n':
		return false
	}
	return !strings.ContainsAny(text, "eE \t\r\n") || text == "true" || text == "false"
}

// A canonicalizer reads one JSON text and writes its canonical form.
type canonicalizer struct {
	in  string
	at  int // position in in
	out []byte
}

// A keyedSpan is a member of an object: its key, and where the member stands in the output.
type keyedSpan struct {
	key      string // without escapes
	from, to int
}

func compareKeys(a, b keyedSpan) int {
	return cmp.Or(cmp.Compare(len(a.key), len(b.key)), cmp.Compare(a.key, b.key))
}

// peek returns the next byte after white space, or 0 at the end.
func (c *canonicalizer) peek() byte {
	for ; c.at < len(c.in); c.at++ {
		if b := c.in[c.at]; b != ' ' && b != '\t' && b != '\r' && b != '\n' {
			return b
		}
	}
	return 0
}

func (c *canonicalizer) value() {
	switch b := c.peek(); {
	case b == '{':
		c.object()
	case b == '[':
		c.array()
	case b == '"':
		c.out = appendString(c.out, c.string())
	case b == '-' || '0' <= b && b <= '9':
		c.number()
	default:
		c.literal()
	}
}

// literal copies true, false or null.
func (c *canonicalizer) literal() {
	from := c.at
	for c.at < len(c.in) && 'a' <= c.in[c.at] && c.in[c.at] <= 'z' {
		c.at++
	}
	c.out = append(c.out, c.in[from:c.at]...)
}

func (c *canonicalizer) number() {
	from := c.at
	for c.at < len(c.in) && isNumeric(c.in[c.at]) {
		c.at++
	}
	c.out = appendNumber(c.out, c.in[from:c.at])
}

// more reports whether a list has another element, and reads the comma or the closing bracket.
func (c *canonicalizer) more() bool {
	next := c.peek()
	c.at++
	if next != ',' {
		return false
	}
	c.out = append(c.out, ", "...)
	return true
}

// empty reports whether a list is empty, and reads its closing bracket if it is.
func (c *canonicalizer) empty(end byte) bool {
	c.at++ // the opening bracket
	if c.peek() != end {
		return false
	}
	c.at++
	return true
}

func (c *canonicalizer) array() {
	c.out = append(c.out, '[')
	if !c.empty(']') {
		c.value()
		for c.more() {
			c.value()
		}
	}
	c.out = append(c.out, ']')
}

func (c *canonicalizer) object() {
	c.out = append(c.out, '{')
	start := len(c.out)
	if !c.empty('}') {
		members := []keyedSpan{c.member()}
		for c.more() {
			members = append(members, c.member())
		}
		c.sort(start, members)
	}
	c.out = append(c.out, '}')
}

func (c *canonicalizer) member() keyedSpan {
	m := keyedSpan{from: len(c.out)}
	c.peek()
	m.key = c.string()
	c.out = append(appendString(c.out, m.key), ": "...)
	c.peek()
	c.at++ // the colon
	c.value()
	m.to = len(c.out)
	return m
}

// sort sorts the members that the output has from start on.
func (c *canonicalizer) sort(start int, members []keyedSpan) {
	ascends := true
	for i := 1; i < len(members) && ascends; i++ {
		ascends = compareKeys(members[i-1], members[i]) < 0
	}
	if ascends {
		return
	}
	slices.SortStableFunc(members, compareKeys)
	written := bytes.Clone(c.out[start:])
	c.out = c.out[:start]
	for i, m := range members {
		if i+1 < len(members) && members[i+1].key == m.key {
			continue
		}
		if len(c.out) > start {
			c.out = append(c.out, ", "...)
		}
		c.out = append(c.out, written[m.from-start:m.to-start]...)
	}
}

// string reads a string literal and returns its text.
func (c *canonicalizer) string() string {
	c.at++ // the quote
	rest := c.in[c.at:]
	end := strings.IndexAny(rest, `"\\`)
	if rest[end] == '"' {
		c.at += end + 1
		return rest[:end]
	}
	text := []byte(rest[:end])
	c.at += end
	for c.in[c.at] != '"' {
		if c.in[c.at] == '\\' {
			text = c.escape(text)
			continue
		}
		text = append(text, c.in[c.at])
		c.at++
	}
	c.at++
	return string(text)
}

// escapes has the character that a letter after a backslash stands for.
var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escape reads an escape and appends its character.
func (c *canonicalizer) escape(text []byte) []byte {
	rest := c.in[c.at:]
	if rest[1] != 'u' {
		c.at += 2
		return append(text, escapes[rest[1]])
	}
	r := rune(escaped([]byte(rest[:6])))
	c.at += 6
	if utf16.IsSurrogate(r) && len(rest) >= 12 {
		if pair := utf16.DecodeRune(r, rune(escaped([]byte(rest[6:12])))); pair != utf8.RuneError {
			c.at += 6
			r = pair
		}
	}
	// pgqrs 0.15 may have written a lone surrogate on SQLite. It becomes U+FFFD as in
	// encoding/json.
	return utf8.AppendRune(text, r)
}

// appendString appends a string literal, with the escapes that JSONB writes.
func appendString(out []byte, text string) []byte {
	out = append(out, '"')
	for i := range len(text) {
		switch b := text[i]; b {
		case '"', '\\':
			out = append(out, '\\', b)
		case '\b':
			out = append(out, `\b`...)
		case '\f':
			out = append(out, `\f`...)
		case '\n':
			out = append(out, `\n`...)
		case '\r':
			out = append(out, `\r`...)
		case '\t':
			out = append(out, `\t`...)
		default:
			if b < ' ' {
				const digits = "0123456789abcdef"
				out = append(out, '\\', 'u', '0', '0', digits[b>>4], digits[b&15])
				continue
			}
			out = append(out, b)
		}
	}
	return append(out, '"')
}

// appendNumber appends a number without an exponent, with as many digits after
// the point as it is written with. A number that PostgreSQL's numeric cannot hold stays as it is.
func appendNumber(out []byte, literal string) []byte {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(literal), "e")
	digits := strings.TrimPrefix(mantissa, "-")
	if strings.Trim(digits, "0.") == "" {
		mantissa = digits // zero has no sign
	}
	if exponent == "" {
		return append(out, mantissa...)
	}
	if _, err := checkNumber(literal); err != nil {
		return append(out, literal...)
	}
	exp, err := strconv.Atoi(exponent)
	if err != nil {
		return append(out, literal...)
	}
	if len(mantissa) > len(digits) {
		out = append(out, '-')
	}
	return appendShifted(out, digits, exp)
}

// appendShifted appends digits with their point moved to the right by exp, or to the left if exp is
// negative.
func appendShifted(out []byte, digits string, exp int) []byte {
	integer, fraction, _ := strings.Cut(digits, ".")
	all := integer + fraction
	scale := max(0, len(fraction)-exp)
	if strings.Trim(all, "0") == "" {
		all, integer, exp = strings.Repeat("0", 1+scale), "0", 0
	}
	point := len(integer) + exp
	if point <= 0 {
		all, point = strings.Repeat("0", 1-point)+all, 1
	}
	if point > len(all) {
		all += strings.Repeat("0", point-len(all))
	}
	whole := strings.TrimLeft(all[:point], "0")
	out = append(out, cmp.Or(whole, "0")...)
	if scale > 0 {
		out = append(append(out, '.'), all[point:]...)
	}
	return out
}
