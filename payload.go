package pgqrs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
	"github.com/pgqrs/pgqrs-go/internal/pgjson"
)

const (
	defaultMaxPayload = 1 << 20
	mostMaxPayload    = 32 << 20 // drivers of SQLite may have too little memory for more
	maxHeaders        = 64 << 10 // bytes, as JSON
	maxName           = 255      // characters in the name of a queue or worker, or in a key
)

// encode marshals a payload and checks that every dialect can hold it.
func (l Limits) encode(v any) (string, error) {
	text, _, err := l.encodeNested(v)
	return text, err
}

// encodeNested is encode, and also returns how deep the payload is nested.
func (l Limits) encodeNested(v any) (text string, depth int, err error) {
	err = encodeBuffered(v, func(raw []byte) error {
		limit := l.MaxPayload
		if limit == 0 {
			limit = defaultMaxPayload
		}
		if len(raw) > limit {
			return fmt.Errorf("%d bytes of JSON, %d allowed", len(raw), limit)
		}
		depth, err = pgjson.Depth(raw)
		text = string(raw)
		return err
	})
	if err != nil {
		return "", 0, fmt.Errorf("%w: %w", ErrInvalidPayload, err)
	}
	return text, depth, nil
}

// An encoder is a json.Encoder with the buffer that it writes to.
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

// maxKept is the size in bytes up to which the buffer of an encoder is kept for reuse.
const maxKept = 64 << 10

// encodeBuffered calls use with v as JSON, which use must not keep. It encodes like json.Marshal,
// except that it does not escape <, > and &, and that it refuses invalid UTF-8 rather than
// replacing it.
func encodeBuffered(v any, use func(raw []byte) error) error {
	e := encoders.Get().(*encoder)
	var err error
	if bad := foreign.Catch(func() { err = e.json.Encode(v) }); bad != nil {
		return bad
	}
	if err != nil {
		return foreign.Safe(err) // the state of an encoder after an error is not defined
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

// mayBeReplaced reports whether JSON contains U+FFFD, with which encoding/json replaces invalid
// UTF-8.
func mayBeReplaced(raw []byte) bool {
	return bytes.Contains(raw, []byte("\uFFFD")) || bytes.Contains(raw, []byte(`\ufffd`))
}

// checkUTF8 reports invalid UTF-8 in the strings of v. It calls methods of v, which may panic.
func checkUTF8(v any) error {
	valid := false
	if err := foreign.Catch(func() { valid = pgjson.ValidUTF8(v) }); err != nil {
		return err
	}
	if !valid {
		return errors.New("invalid UTF-8 in a string")
	}
	return nil
}

// encodeJSON returns v as JSON.
func encodeJSON(v any) (raw []byte, err error) {
	err = encodeBuffered(v, func(shared []byte) error {
		raw = bytes.Clone(shared)
		return nil
	})
	return raw, err
}

// encodeHeaders returns headers as JSON, or nil for none.
func encodeHeaders(h map[string]string) (any, error) {
	if len(h) == 0 {
		return nil, nil
	}
	raw, err := encodeJSON(h)
	if err == nil {
		err = pgjson.Check(raw)
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

// checkName returns an error if a name or a key is not valid.
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

// checkTitle returns an error if the name of a queue, workflow, worker or schedule is not valid. A
// space at an end of a name is an error, since a reader does not see it.
func checkTitle(what, name string) error {
	if err := checkName(what, name); err != nil {
		return err
	}
	if strings.TrimSpace(name) != name {
		return fmt.Errorf("%s %q begins or ends with a space", what, name)
	}
	return nil
}

// checkFindable returns an error if nothing can have a name, so that no dialect has to be asked.
// PostgreSQL refuses such a name and would abort a caller's transaction.
func checkFindable(what, name string) error {
	switch {
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: %s %q is not valid UTF-8", ErrNotFound, what, name)
	case strings.Contains(name, "\x00"):
		return fmt.Errorf("%w: %s %q has a zero byte", ErrNotFound, what, name)
	}
	return nil
}

// errorText is the text of an error as last_error holds it: valid UTF-8 without NUL, of bounded
// length.
func errorText(err error) string {
	text := strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "\uFFFD"), "\x00", "\uFFFD")
	const limit = 8 << 10
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}

// invalidTextError is the error of a text that the database's encoding cannot represent.
func invalidTextError(err error) error {
	return fmt.Errorf("%w: the database's encoding lacks a character (%w)", ErrInvalidPayload, err)
}

// An asciiError is an error for a database that cannot hold its text.
type asciiError struct{ err error }

func (e *asciiError) Error() string { return asciiText(errorText(e.err)) }

func (e *asciiError) Unwrap() error { return e.err }

// inASCII returns an error whose text every encoding can represent. It returns nil if the text of
// err is ASCII already.
func inASCII(err error) error {
	if err == nil || isASCII(errorText(err)) {
		return nil
	}
	return &asciiError{err}
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}

// asciiText replaces characters outside ASCII by escapes, as Go does.
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

// jsonList encodes a list as statements take it: one JSON argument, bound as a string.
func jsonList[T any](list []T) (string, error) {
	if len(list) == 0 {
		return "[]", nil
	}
	var text string
	err := encodeBuffered(list, func(raw []byte) error {
		text = string(raw)
		return nil
	})
	return text, err
}

// idList is jsonList for ids. It has no error.
func idList(ids []int64) string {
	text := []byte{'['}
	for i, id := range ids {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, id, 10)
	}
	return string(append(text, ']'))
}

// jsonTexts encodes a list of texts as statements take it, like jsonList, with each text in an
// array of its own. Turso's json_each leaves the escapes in a text that is an element itself.
func jsonTexts[T any](texts []T) (string, error) {
	list := make([][]T, len(texts))
	for i := range texts {
		list[i] = texts[i : i+1]
	}
	return jsonList(list)
}

// Limits bounds the messages that may be enqueued. A zero field means its default, which is no
// limit except for MaxPayload.
//
// MaxPayload holds for all JSON that is stored. The other fields hold for the payloads of Enqueue
// and EnqueueBatch and for the inputs of Start, Child and Children. They are the limits of pgqrs
// 0.15, measured in the same way, so that processes that share tables can have one policy. The
// defaults of pgqrs 0.15 are strings of 1024 bytes, a depth of 5, the forbidden keys __proto__ and
// constructor, and a rate of 1000 with a burst of 50.
type Limits struct {
	// MaxPayload is the maximum size of a payload as JSON, in bytes. Zero means 1 MiB, and 32 MiB
	// is the most.
	MaxPayload int
	// MaxString is the maximum length of a string in a payload, or of a key, in bytes.
	MaxString int
	// MaxDepth is how deep values may be nested: 1 is {"a": 1}, 2 is {"a": [1]}.
	MaxDepth int
	// ForbiddenKeys may not be keys of an object at any depth.
	ForbiddenKeys []string
	// RequiredKeys must be keys of a payload that is an object.
	RequiredKeys []string

	// MaxPerSecond is how many messages and runs a Store, with all its copies, may enqueue a
	// second, by Enqueue, EnqueueBatch and Start. Above it these calls return a *RateLimitError.
	// The code of a run is not limited. Messages that are refused for another reason, or are
	// enqueued by other Stores and processes, do not count.
	MaxPerSecond float64
	// Burst is how many messages may be enqueued at once after a pause. A batch above Burst passes
	// when Burst messages would pass, and makes the calls after it wait longer. Zero means the
	// messages of one second, and at least 1.
	Burst int
}

func (l Limits) check() error {
	for _, limit := range []struct {
		name  string
		value float64
	}{
		{"MaxPayload", float64(l.MaxPayload)}, {"MaxString", float64(l.MaxString)}, {"MaxDepth", float64(l.MaxDepth)}, {"MaxPerSecond", l.MaxPerSecond}, {"Burst", float64(l.Burst)},
	} {
		if !(limit.value >= 0) || math.IsInf(limit.value, 0) {
			return fmt.Errorf("pgqrs: Limits.%s is %v", limit.name, limit.value)
		}
	}
	if l.MaxPayload > mostMaxPayload {
		return fmt.Errorf("pgqrs: Limits.MaxPayload is %d; at most %d are possible", l.MaxPayload, mostMaxPayload)
	}
	if l.Burst > 0 && l.MaxPerSecond == 0 {
		return fmt.Errorf("pgqrs: Limits.Burst is %d without a MaxPerSecond", l.Burst)
	}
	return nil
}

// admit checks the content of items against the limits. The rate is not checked here.
func (l Limits) admit(items []enqueueRow, content func([]byte) []byte) error {
	if l.MaxString == 0 && l.MaxDepth == 0 && len(l.ForbiddenKeys)+len(l.RequiredKeys) == 0 {
		return nil
	}
	for i, it := range items {
		if err := l.checkContent(content([]byte(it.payload))); err != nil {
			err = fmt.Errorf("%w: %w", ErrInvalidPayload, err)
			if len(items) > 1 {
				err = &operationError{fmt.Sprintf("item %d", i), err}
			}
			return err
		}
	}
	return nil
}

// checkContent checks a valid JSON text.
func (l Limits) checkContent(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return err
	}
	if object, ok := v.(map[string]any); ok {
		for _, key := range l.RequiredKeys {
			if _, ok := object[key]; !ok {
				return fmt.Errorf("key %q is required", key)
			}
		}
	}
	return l.checkValue(v, 0)
}

func (l Limits) checkValue(v any, depth int) error {
	if l.MaxDepth > 0 && depth > l.MaxDepth {
		return fmt.Errorf("nested deeper than %d", l.MaxDepth)
	}
	switch v := v.(type) {
	case string:
		return l.checkLength("string", v)
	case []any:
		for _, item := range v {
			if err := l.checkValue(item, depth+1); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if slices.Contains(l.ForbiddenKeys, key) {
				return fmt.Errorf("key %q is forbidden", key)
			}
			if err := l.checkLength("key", key); err != nil {
				return err
			}
			if err := l.checkValue(v[key], depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l Limits) checkLength(what, text string) error {
	if l.MaxString > 0 && len(text) > l.MaxString {
		return fmt.Errorf("%s %.20q... has %d bytes, %d allowed", what, text, len(text), l.MaxString)
	}
	return nil
}

// A bucket has the tokens for messages that may be enqueued now. It is safe for concurrent use.
type bucket struct {
	rate, burst float64

	mu   sync.Mutex
	left float64 // negative after a batch above burst
	at   time.Time
}

// newBucket returns a full bucket, or nil if there is no rate.
func newBucket(l Limits) *bucket {
	if l.MaxPerSecond == 0 {
		return nil
	}
	burst := float64(l.Burst)
	if burst == 0 {
		burst = max(1, math.Ceil(l.MaxPerSecond))
	}
	return &bucket{rate: l.MaxPerSecond, burst: burst, left: burst}
}

// spend takes n tokens, or returns an error with the time to wait for them. There must be n tokens
// in the bucket. For a batch above burst the bucket must be full.
func (b *bucket) spend(now time.Time, n int) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if since := now.Sub(b.at); since > 0 { // calls may come here in another order
		b.left = min(b.burst, b.left+b.rate*since.Seconds())
		b.at = now
	}
	if lacking := min(float64(n), b.burst) - b.left; lacking > 1e-9 { // allow for rounding
		wait := math.Ceil(lacking / b.rate * float64(time.Second))
		return &RateLimitError{time.Duration(min(wait, math.MaxInt64/2))}
	}
	b.left -= float64(n)
	return nil
}

// record marshals v as steps and runs record it. The result has the form in which every database
// returns it, so that the first value equals the value of each replay.
func (l Limits) record(v any) (string, error) {
	text, err := l.encode(v)
	if err != nil {
		return "", err
	}
	return pgjson.Canonical(text), nil
}
