package pgqrs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/pgqrs/pgqrs-go/internal/pgjson"
)

// ErrInvalidPayload is returned, before anything is stored, for a payload that
// does not marshal to JSON, is not what [Limits] allows, or that not every
// dialect can store and give back; and for headers and keys alike. It is also
// why a message whose payload does not decode dies.
var ErrInvalidPayload = errors.New("pgqrs: invalid payload")

const (
	defaultMaxPayload = 1 << 20
	maxHeaders        = 64 << 10 // bytes, as JSON
	maxName           = 255      // characters in the name of a queue or worker, or in a key
	maxDepth          = 1000     // of nesting: SQLite's limit is the lowest

	// What PostgreSQL's numeric, and so its JSONB, can hold.
	maxIntegerDigits  = 131072
	maxFractionDigits = 16383
	maxExponent       = 1_000_000_000

	// PostgreSQL gives numbers back without exponents. Many short ones could
	// make a payload that can be stored but is too large to be read.
	maxWrittenOut = 1 << 20 // bytes more
)

// encode marshals a payload and checks that every dialect can hold it.
func (l Limits) encode(v any) (string, error) {
	text, _, err := l.encodeNested(v)
	return text, err
}

// encodeNested is encode, and says how deep the payload is nested.
func (l Limits) encodeNested(v any) (text string, depth int, err error) {
	err = encoded(v, func(raw []byte) error {
		limit := l.MaxPayload
		if limit == 0 {
			limit = defaultMaxPayload
		}
		if len(raw) > limit {
			return fmt.Errorf("%d bytes of JSON, %d allowed", len(raw), limit)
		}
		depth, err = checkNested(raw)
		text = string(raw)
		return err
	})
	if err != nil {
		return "", 0, fmt.Errorf("%w: %w", ErrInvalidPayload, err)
	}
	return text, depth, nil
}

// An encoder is a json.Encoder and where it writes to.
type encoder struct {
	buf  bytes.Buffer
	json *json.Encoder
}

var encoders = sync.Pool{New: func() any {
	e := new(encoder)
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false)
	return e
}}

// maxKept is the size in bytes up to which the buffer of an encoder is kept for the next.
const maxKept = 64 << 10

// encoded calls use with v as JSON, which is not use's to keep. It is json.Marshal's but for <, > and &, which are
// left as they are, and for invalid UTF-8, which is refused rather than replaced.
func encoded(v any, use func(raw []byte) error) error {
	e := encoders.Get().(*encoder)
	var err error
	if bad := caught(func() { err = e.json.Encode(v) }); bad != nil {
		return bad
	}
	if err != nil {
		return foreign(err) // and what an encoder does after an error is not said
	}
	raw := bytes.TrimSuffix(e.buf.Bytes(), []byte("\n"))
	if mayBeReplaced(raw) {
		err = checkUTF8(v)
	}
	if err == nil {
		err = use(raw)
	}
	if e.buf.Cap() <= maxKept {
		e.buf.Reset()
		encoders.Put(e)
	}
	return err
}

// mayBeReplaced reports whether JSON has U+FFFD, by which encoding/json replaces invalid UTF-8.
func mayBeReplaced(raw []byte) bool {
	return bytes.Contains(raw, []byte("\uFFFD")) || bytes.Contains(raw, []byte(`\ufffd`))
}

// checkUTF8 reports invalid UTF-8 in the strings of v. It calls methods of v, which may panic.
func checkUTF8(v any) error {
	valid := false
	if err := caught(func() { valid = pgjson.ValidUTF8(v) }); err != nil {
		return err
	}
	if !valid {
		return errors.New("invalid UTF-8 in a string")
	}
	return nil
}

// marshal returns v as JSON.
func marshal(v any) (raw []byte, err error) {
	err = encoded(v, func(shared []byte) error {
		raw = bytes.Clone(shared)
		return nil
	})
	return raw, err
}

// checkJSON reports what in a valid JSON text some dialect could not hold:
// PostgreSQL's JSONB has no U+0000, no lone surrogates and no huge numbers.
func checkJSON(raw []byte) error {
	_, err := checkNested(raw)
	return err
}

// checkNested is checkJSON, and says how deep the text is nested.
func checkNested(raw []byte) (deepest int, err error) {
	if !utf8.Valid(raw) {
		return 0, errors.New("invalid UTF-8")
	}
	depth, writtenOut := 0, 0
	for i := 0; i < len(raw); {
		n, longer := 1, 0
		switch c := raw[i]; {
		case c == '"':
			n, err = checkString(raw[i:])
		case c == '-' || '0' <= c && c <= '9':
			n, longer, err = checkNumberIn(raw[i:])
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
		writtenOut += longer
		switch {
		case err != nil:
			return 0, err
		case writtenOut > maxWrittenOut:
			return 0, fmt.Errorf("numbers written out without exponents are more than %d bytes longer", maxWrittenOut)
		case depth > maxDepth:
			return 0, fmt.Errorf("nested deeper than %d", maxDepth)
		}
		i += n
	}
	return deepest, nil
}

// checkNumberIn checks the number that raw begins with and returns its length, and how much longer it is written out.
func checkNumberIn(raw []byte) (n, longer int, err error) {
	exponent := false
	for n < len(raw) && isNumeric(raw[n]) {
		exponent = exponent || raw[n]|0x20 == 'e'
		n++
	}
	if !exponent && n <= maxFractionDigits {
		return n, 0, nil // any is in range
	}
	longer, err = checkNumber(string(raw[:n]))
	return n, longer, err
}

func isNumeric(c byte) bool {
	return '0' <= c && c <= '9' || c == '.' || c == '-' || c == '+' || c|0x20 == 'e'
}

// checkString checks the string literal that raw begins with and returns its length.
func checkString(raw []byte) (int, error) {
	for i := 1; ; {
		switch {
		case raw[i] == '"':
			return i + 1, nil
		case raw[i] != '\\':
			i++
		case raw[i+1] != 'u':
			i += 2
		default:
			switch r := escaped(raw[i:]); {
			case r == 0:
				return 0, errors.New(`\u0000 in a string`)
			case 0xD800 <= r && r < 0xDC00:
				if low := escaped(raw[i+6:]); low < 0xDC00 || low > 0xDFFF {
					return 0, errors.New("lone surrogate in a string")
				}
				i += 12
			case 0xDC00 <= r && r < 0xE000:
				return 0, errors.New("lone surrogate in a string")
			default:
				i += 6
			}
		}
	}
}

// escaped returns the code unit of the \u escape that raw begins with, or -1.
func escaped(raw []byte) int {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(raw[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int(n)
}

// checkNumber reports whether PostgreSQL's numeric can hold a number, and
// returns how many characters longer it is there, written out without an exponent.
func checkNumber(literal string) (longer int, err error) {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(literal, "-")), "e")
	exp := 0
	if exponent != "" {
		exp, err = strconv.Atoi(exponent)
	}
	integer, fraction, _ := strings.Cut(mantissa, ".")
	whole := 0 // digits before the point
	if significant := strings.TrimLeft(integer+fraction, "0"); significant != "" {
		whole = len(significant) - len(fraction) + exp
	}
	scale := max(0, len(fraction)-exp) // digits after it
	if err != nil || max(exp, -exp) > maxExponent || whole > maxIntegerDigits || scale > maxFractionDigits {
		return 0, fmt.Errorf("number %.40s is out of range", literal)
	}
	return max(0, max(1, whole)+scale-len(literal)), nil
}

// encodeHeaders returns headers as JSON, or nil for none.
func encodeHeaders(h map[string]string) (any, error) {
	if len(h) == 0 {
		return nil, nil
	}
	raw, err := marshal(h)
	if err == nil {
		err = checkJSON(raw)
	}
	if err == nil && len(raw) > maxHeaders {
		err = fmt.Errorf("%d bytes of JSON, %d allowed", len(raw), maxHeaders)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: headers: %w", ErrInvalidPayload, err)
	}
	return string(raw), nil
}

// decode decodes a payload, or a workflow's input.
func (c *Config) decode(raw []byte, into any) error {
	if !c.StrictPayloads {
		return json.Unmarshal(raw, into)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// checkName reports what is wrong with a name or a key.
func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("empty %s", what)
	case !utf8.ValidString(name):
		return fmt.Errorf("%s %q is not valid UTF-8", what, name)
	case utf8.RuneCountInString(name) > maxName:
		return fmt.Errorf("%s %.20q... has more than %d characters", what, name, maxName)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%s %q has a control character", what, name)
	}
	return nil
}

// checkTitle reports what is wrong with the name of a queue, workflow, worker or schedule: whoever reads or types it does not see a space
// at its ends.
func checkTitle(what, name string) error {
	if err := checkName(what, name); err != nil {
		return err
	}
	if strings.TrimSpace(name) != name {
		return fmt.Errorf("%s %q begins or ends with a space", what, name)
	}
	return nil
}

// checkFindable reports why there can be nothing of a name, so that no dialect
// has to be asked: PostgreSQL takes neither of these, and would end a caller's transaction.
func checkFindable(what, name string) error {
	switch {
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: %s %q is not valid UTF-8", ErrNotFound, what, name)
	case strings.Contains(name, "\x00"):
		return fmt.Errorf("%w: %s %q has a zero byte", ErrNotFound, what, name)
	}
	return nil
}

// errorText is an error as last_error holds it: valid UTF-8 without NUL, of bounded length.
func errorText(err error) string {
	text := strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "\uFFFD"), "\x00", "\uFFFD")
	const limit = 8 << 10
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}

// untranslatable reports whether PostgreSQL says that the database's encoding lacks a character.
func untranslatable(err error) bool {
	switch sqlState(err) {
	case "22P05", "22021", // untranslatable_character, character_not_in_repertoire
		"0A000": // feature_not_supported: an escape in JSON, without an encoding
		return true
	}
	return false
}

// invalid is the error of what the database's encoding lacks.
func invalid(err error) error {
	return fmt.Errorf("%w: the database's encoding lacks a character (%w)", ErrInvalidPayload, err)
}

// An asciiError is an error for a database that cannot hold its text.
type asciiError struct{ err error }

func (e *asciiError) Error() string { return asciiText(errorText(e.err)) }
func (e *asciiError) Unwrap() error { return e.err }

// inASCII returns an error whose text every encoding has, or nil if that of err is such a text.
func inASCII(err error) error {
	if err == nil || isASCII(errorText(err)) {
		return nil
	}
	return &asciiError{err}
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}

// asciiText writes what is not ASCII as escapes, as Go does.
func asciiText(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r < utf8.RuneSelf:
			b.WriteRune(r)
		case r <= 0xFFFF:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}

// jsonList is a list as statements take it: one JSON argument, bound as a string.
func jsonList[T any](list []T) (string, error) {
	if len(list) == 0 {
		return "[]", nil
	}
	var text string
	err := encoded(list, func(raw []byte) error {
		text = string(raw)
		return nil
	})
	return text, err
}

// jsonTexts is a list of texts as statements take it: jsonList, each text in
// an array of its own. As an element Turso's json_each leaves its escapes in.
func jsonTexts[T any](texts []T) (string, error) {
	list := make([][]T, len(texts))
	for i := range texts {
		list[i] = texts[i : i+1]
	}
	return jsonList(list)
}
