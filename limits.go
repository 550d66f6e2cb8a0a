package pgqrs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

// Limits bounds what may be enqueued. A zero field means its default, and for
// all but MaxPayload that is no limit.
//
// But for MaxPayload, which holds for all JSON that is stored, they are about
// the payloads of Enqueue and EnqueueBatch and the inputs of Start, Child and
// Children: the same ones, by the same measures, as of pgqrs 0.15, so that
// processes that share tables can have one policy. (Its defaults are strings of
// 1024 bytes, a depth of 5, the keys __proto__ and constructor forbidden, and a
// rate of 1000 with a burst of 50.)
type Limits struct {
	// MaxPayload is the size of a payload as JSON, in bytes. Zero means 1 MiB.
	MaxPayload int
	// MaxString is the length of a string in a payload, or of a key, in bytes.
	MaxString int
	// MaxDepth is how deep values may be nested: 1 is {"a": 1}, 2 is {"a": [1]}.
	MaxDepth int
	// ForbiddenKeys may not be keys of an object at any depth.
	ForbiddenKeys []string
	// RequiredKeys must be keys of a payload that is an object.
	RequiredKeys []string

	// Rate is how many messages a Store, with all its copies, may enqueue a
	// second, and runs start: by Enqueue, EnqueueBatch and Start, but not by the
	// code of a run. Above it they return a *RateLimitError. What is refused
	// for another reason, or is enqueued by other Stores and processes, does not count.
	Rate float64
	// Burst is how many may be enqueued at once after a pause. A larger batch
	// passes when as many as that would, and is paid off by a longer wait
	// after it. Zero means those of one second, at least 1.
	Burst int
}

// ErrRateLimited matches every [RateLimitError].
var ErrRateLimited = errors.New("pgqrs: rate limit")

// A RateLimitError is returned, with nothing stored, by a call that is above
// [Limits].Rate, and, with nothing leased, by a Dequeue from a queue whose
// policy allows no delivery now. A handler, or a step, that returns it is tried again after Wait.
type RateLimitError struct {
	// Wait is when the same call would pass, if nothing else does meanwhile;
	// while as many messages are leased as may be, when to ask again.
	Wait time.Duration
}

// Error says how long to wait.
func (e *RateLimitError) Error() string {
	return fmt.Sprintf("%v: try again in %v", ErrRateLimited, e.Wait)
}

// Is reports whether target is ErrRateLimited.
func (e *RateLimitError) Is(target error) bool { return target == ErrRateLimited }

// As lets a handler's outcome be what RetryAfter says.
func (e *RateLimitError) As(target any) bool {
	after, ok := target.(**retryAfterError)
	if ok {
		*after = &retryAfterError{e.Wait, e}
	}
	return ok
}

func (l Limits) check() error {
	for _, limit := range []struct {
		name  string
		value float64
	}{
		{"MaxPayload", float64(l.MaxPayload)}, {"MaxString", float64(l.MaxString)}, {"MaxDepth", float64(l.MaxDepth)}, {"Rate", l.Rate}, {"Burst", float64(l.Burst)},
	} {
		if !(limit.value >= 0) || math.IsInf(limit.value, 0) {
			return fmt.Errorf("pgqrs: Limits.%s is %v", limit.name, limit.value)
		}
	}
	if l.Burst > 0 && l.Rate == 0 {
		return fmt.Errorf("pgqrs: Limits.Burst is %d without a Rate", l.Burst)
	}
	return nil
}

// admit checks what is in items against the limits that are about what is enqueued.
func (l Limits) admit(items []item, content func([]byte) []byte) error {
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

// A bucket holds what may be enqueued now. It is safe for concurrent use.
type bucket struct {
	rate, burst float64

	mu   sync.Mutex
	left float64 // less than nothing after a batch above burst
	at   time.Time
}

// newBucket returns a full one, or nil if there is no rate.
func newBucket(l Limits) *bucket {
	if l.Rate == 0 {
		return nil
	}
	burst := float64(l.Burst)
	if burst == 0 {
		burst = max(1, math.Ceil(l.Rate))
	}
	return &bucket{rate: l.Rate, burst: burst, left: burst}
}

// take takes n out, or says how long that would have to wait. There must be as
// many in it, or, for a batch that it could never hold, be full.
func (b *bucket) take(now time.Time, n int) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if since := now.Sub(b.at); since > 0 { // calls may come here in another order
		b.left = min(b.burst, b.left+b.rate*since.Seconds())
		b.at = now
	}
	if lacking := min(float64(n), b.burst) - b.left; lacking > 1e-9 { // but for rounding
		wait := math.Ceil(lacking / b.rate * float64(time.Second))
		return &RateLimitError{time.Duration(min(wait, math.MaxInt64/2))}
	}
	b.left -= float64(n)
	return nil
}
