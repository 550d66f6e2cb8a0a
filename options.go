package pgqrs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// An Option says how a message is enqueued. Each call takes some of the options and returns an
// error for the others. A line of the table is a call, or an option that takes options itself:
//
//	                 Delay, At  Priority, Headers  Group  Key, Unique  Each  Then
//	Queue.Enqueue        x              x            x         x         -     x
//	EnqueueBatch         x              x            x         x         x     x
//	Each                 x              x            x         x         -     -
//	Then                 x              x            -         -         -     -
//	Queue.Target         -              x            x         x         -     -
//	Workflow.Start       x              x            x         x         -     -
//	Workflow.Target      -              x            x         -         -     -
//	Child                x              x            x         -         -     -
//	Children             x              x            x         -         x     -
type Option func(*options)

type options struct {
	delay    time.Duration
	at       *time.Time
	priority int
	key      string
	unique   bool
	keyed    bool // Key or Unique was given
	headers  map[string]string
	group    string
	callback *batchCallback
	forEach  func(i int) []Option
	err      error
}

// noOptions are the options of a message that is enqueued without any.
var noOptions options

// Delay makes the message ready d after now by the database's clock. A negative delay is an error.
// It cannot be combined with At.
func Delay(d time.Duration) Option {
	return func(o *options) {
		if d < 0 {
			o.addError(fmt.Errorf("negative delay %v", d))
		}
		o.delay = d
	}
}

// At makes the message ready at t by the database's clock. A time that has passed, or the zero
// time, means now. A time after the second 9999-12-31 23:59:59 UTC is an error. It cannot be
// combined with Delay.
func At(t time.Time) Option {
	return func(o *options) {
		if t.After(latestTime) {
			o.addError(fmt.Errorf("time %v is after %v", t, latestTime))
		}
		o.at = &t
	}
}

// latestTime is the latest time at which a message can be ready. The time of blocked messages is a
// moment after it.
var latestTime = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)

const leastPriority, mostPriority = -1, 2

// Priority puts the message before messages of a lower priority. It is -1, 0 (the default), 1 or 2.
// Any other is an error.
func Priority(p int) Option {
	return func(o *options) {
		if p < leastPriority || p > mostPriority {
			o.addError(fmt.Errorf("priority %d is not between -1 and 2", p))
		}
		o.priority = p
	}
}

// Headers adds headers, up to 64 KiB as JSON. They reach the consumer in MessageInfo.Headers. Names
// that begin with "pgqrs-" or "dead-letter-" are reserved for the library. Such a name is an error
// that matches ErrInvalidPayload.
func Headers(h map[string]string) Option {
	return func(o *options) {
		if err := checkHeaders(h); err != nil {
			o.addError(err)
		}
		for name, value := range h {
			o.headers = withHeader(o.headers, name, value)
		}
	}
}

// reservedPrefix begins the keys and headers that the library alone writes. It separates them from
// the callers' own. A caller's key could otherwise hold an instant of a schedule, and a caller's
// header could put a message into a batch or a group.
const reservedPrefix = "pgqrs-"

// deadLetterPrefix begins the headers of a dead-letter queue's copies. One of the headers decides
// whether a message that dies is copied.
const deadLetterPrefix = "dead-letter-"

// checkReserved returns an error if a name or key is reserved for the library.
func checkReserved(what, name string, prefixes ...string) error {
	for _, prefix := range prefixes {
		if strings.HasPrefix(name, prefix) {
			return fmt.Errorf("%w: %s %.40q begins with %q, which is reserved for the library", ErrInvalidPayload, what, name, prefix)
		}
	}
	return nil
}

// checkHeaders returns an error if a caller cannot set a header.
func checkHeaders(h map[string]string) error {
	for name := range h {
		if err := checkReserved("header", name, reservedPrefix, deadLetterPrefix); err != nil {
			return err
		}
	}
	return nil
}

// withHeader returns h with one more header.
func withHeader(h map[string]string, name, value string) map[string]string {
	more := maps.Clone(h)
	if more == nil {
		more = map[string]string{}
	}
	more[name] = value
	return more
}

// Key makes enqueueing idempotent. While a message of the same key is unfinished in the queue,
// nothing is stored, and the call returns that message's id without an error. Acked, deleted and
// dead messages free their key. If another transaction is storing the same key, the call waits for
// the transaction to end.
//
// A key has 1 to 255 characters. A key that begins with "pgqrs-" is reserved for the library, and
// is an error that matches ErrInvalidPayload.
func Key(k string) Option { return optionKey(k, false) }

// Unique is like Key, but a taken key is an error. The call returns the existing message's id and
// an error matching ErrDuplicate.
func Unique(k string) Option { return optionKey(k, true) }

func optionKey(k string, unique bool) Option {
	return func(o *options) {
		if err := errors.Join(checkName("key", k), checkReserved("key", k, reservedPrefix)); err != nil {
			o.addError(err)
		}
		o.key, o.unique, o.keyed = k, unique, true
	}
}

// Each gives every message of an EnqueueBatch, and every run of Children, options of its own by its
// index, in addition to the options of the call. In other calls Each is an error.
func Each(opts func(i int) []Option) Option {
	return func(o *options) { o.forEach = opts }
}

// noEach is an option that refuses Each where there is no batch.
func noEach(o *options) {
	if o.forEach != nil {
		o.addError(errors.New("Each outside EnqueueBatch and Children"))
	}
}

func (o *options) addError(err error) {
	if o.err == nil {
		o.err = err
	}
}

// apply applies opts and returns the first error.
func (o *options) apply(opts []Option) error {
	for _, opt := range opts {
		opt(o)
	}
	if o.at != nil && o.delay != 0 {
		o.addError(errors.New("both Delay and At"))
	}
	return o.err
}

// forItem returns the options of one message of a batch, with those that Each adds.
func (o *options) forItem(i int) (*options, error) {
	own := *o
	own.forEach = nil
	if err := own.apply(append(slices.Clip(o.forEach(i)), noEach)); err != nil {
		return nil, err
	}
	if own.callback != o.callback {
		return nil, errors.New("Then is for all of a batch")
	}
	return &own, nil
}

// hasKey reports whether one of n messages would have a key.
func hasKey(opts []Option, n int) bool {
	var shared options
	for _, opt := range opts {
		opt(&shared)
	}
	found := shared.keyed
	for i := 0; shared.forEach != nil && i < n; i++ {
		var own options
		for _, opt := range shared.forEach(i) {
			opt(&own)
		}
		found = found || own.keyed
	}
	return found
}
