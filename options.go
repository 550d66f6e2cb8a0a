package pgqrs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// An Option says how a message is enqueued.
type Option func(*options)

type options struct {
	delay    time.Duration
	at       *time.Time
	priority int
	key      string
	unique   bool
	keyed    bool // Key or Unique was given
	headers  map[string]string
	each     func(i int) []Option
	err      error
}

// Delay makes the message ready d after now by the database's clock. A
// negative delay is an error. It does not go with At.
func Delay(d time.Duration) Option {
	return func(o *options) {
		if d < 0 {
			o.fail(fmt.Errorf("negative delay %v", d))
		}
		o.delay = d
	}
}

// At makes the message ready at t by the database's clock. A time that has
// passed, the zero time too, means now. It does not go with Delay.
func At(t time.Time) Option {
	return func(o *options) {
		if t.UTC().Year() > 9999 {
			o.fail(fmt.Errorf("time %v is past the year 9999", t))
		}
		o.at = &t
	}
}

// Priority puts the message before those of a lower priority: -1, 0 (the
// default), 1 or 2. Any other is an error.
func Priority(p int) Option {
	return func(o *options) {
		if p < -1 || p > 2 {
			o.fail(fmt.Errorf("priority %d is not between -1 and 2", p))
		}
		o.priority = p
	}
}

// Headers adds headers, up to 64 KiB as JSON. They reach the consumer in MessageInfo.Headers.
func Headers(h map[string]string) Option {
	return func(o *options) {
		merged := maps.Clone(o.headers)
		if merged == nil {
			merged = map[string]string{}
		}
		maps.Copy(merged, h)
		o.headers = merged
	}
}

// Key makes enqueueing idempotent: while a message of the same key is
// unfinished in the queue, nothing is stored, and its id is returned without
// an error. Acked, deleted and dead messages free their key. If another
// transaction is storing the same key, the call waits for it to end.
func Key(k string) Option { return key(k, false) }

// Unique is Key, but for the error: the id of the first message comes with one
// that matches ErrDuplicate.
func Unique(k string) Option { return key(k, true) }

func key(k string, unique bool) Option {
	return func(o *options) {
		if err := checkName("key", k); err != nil {
			o.fail(err)
		}
		o.key, o.unique, o.keyed = k, unique, true
	}
}

// Each gives every message of EnqueueBatch options of its own, by its index in
// the batch. They come on top of the batch's. It is an error elsewhere.
func Each(opts func(i int) []Option) Option {
	return func(o *options) { o.each = opts }
}

// noEach is an option that refuses Each where there is no batch.
func noEach(o *options) {
	if o.each != nil {
		o.fail(errors.New("Each outside EnqueueBatch"))
	}
}

func (o *options) fail(err error) {
	if o.err == nil {
		o.err = err
	}
}

// apply adds opts and reports the first that makes no sense.
func (o *options) apply(opts []Option) error {
	for _, opt := range opts {
		opt(o)
	}
	if o.at != nil && o.delay != 0 {
		o.fail(errors.New("both Delay and At"))
	}
	return o.err
}

// An item is a message that is being enqueued, as the statements take it.
type item struct {
	payload  string
	delay    int64 // microseconds
	at       any   // microseconds since 1970, or nil
	priority int
	key      any // string or nil
	headers  any // JSON as string or nil
	unique   bool
}

// items encodes payloads with their options.
func (s *Store) items(ctx context.Context, payloads []any, opts []Option) ([]item, error) {
	var shared options
	if s.cfg.Headers != nil {
		shared.headers = s.cfg.Headers(ctx)
	}
	if err := shared.apply(opts); err != nil {
		return nil, err
	}
	items := make([]item, len(payloads))
	for i, payload := range payloads {
		own := shared
		if shared.each != nil {
			own.each = nil
			if err := own.apply(append(slices.Clip(shared.each(i)), noEach)); err != nil {
				return nil, &operationError{fmt.Sprintf("item %d", i), err}
			}
		}
		var err error
		if items[i], err = s.item(payload, own); err != nil {
			if len(payloads) > 1 {
				err = &operationError{fmt.Sprintf("item %d", i), err}
			}
			return nil, err
		}
	}
	return items, nil
}

func (s *Store) item(payload any, o options) (item, error) {
	it := item{delay: o.delay.Microseconds(), priority: o.priority, unique: o.unique}
	if o.at != nil {
		it.at = max(0, o.at.UnixMicro())
	}
	if o.keyed {
		it.key = o.key
	}
	var err error
	if it.payload, err = s.cfg.Limits.encode(payload); err != nil {
		return it, err
	}
	it.headers, err = encodeHeaders(o.headers)
	return it, err
}
