package pgqrs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// A Policy says how often and how fast work is retried, and how much of it goes on at a time. A
// zero field means its default. Steps use the first three fields (see [Run.With]). The other fields
// are for a queue or workflow.
//
// When a [Worker] starts, it writes the policies of its handlers to the rows of their queues.
// [Queue.Configure] does so by hand. Operators see the policies in these rows. The limits that hold
// in all processes (MaxLeased, Rate and the limits of groups) are read from the rows, whoever wrote
// them last.
type Policy struct {
	// MaxAttempts is how many deliveries a message may have before it goes to the dead letters. -1
	// means no limit. Zero means 5.
	MaxAttempts int
	// Backoff returns how long to wait after the given attempt failed. The first attempt is 1. Nil
	// means Exponential(time.Second, time.Hour).
	Backoff func(attempt int) time.Duration
	// Timeout bounds one attempt of a handler in a Worker. When it passes, the handler's ctx ends
	// with the cause ErrTimeout. Zero means none.
	Timeout time.Duration
	// Concurrency bounds how many messages of the queue one Worker handles at a time. Zero means as
	// many as the Worker does. With HandleBatch it bounds batches, and zero means 1.
	Concurrency int
	// Lease is how long a message of the queue stays with a Worker whose heartbeats have stopped.
	// Zero means Worker.Lease. Less than 100 ms is an error.
	Lease time.Duration
	// Retention is how long a Worker that handles the queue keeps archived messages. A negative
	// value means for ever. Zero means 7 days. Dead letters are kept until they are redriven or
	// purged.
	Retention time.Duration
	// DeadLetter names another queue, which gets a copy of each message that dies in this queue, in
	// the same transaction. The copy has the headers of the message, and dead-letter-queue, -id,
	// -attempts and -error. The dead letter itself stays where it is, for Redrive. If a copy that
	// came from the other queue dies here, it is not copied back. A failed run of a workflow is not
	// copied. Empty means none.
	DeadLetter string

	// MaxLeased bounds how many messages of the queue are leased at a time, in all processes. Zero
	// means no limit.
	MaxLeased int
	// Rate bounds how many deliveries of the queue begin, in all processes. Zero means no limit.
	Rate Rate

	// GroupConcurrency is how many messages of one group are leased at a time,
	// in all processes. Zero means 1, which keeps them in order.
	GroupConcurrency int
	// GroupRate bounds how many deliveries of one group begin, in all
	// processes. Zero means no limit.
	GroupRate Rate
	// SkipFailed unblocks the next message of a group while a failed message waits for its retry.
	// Otherwise a message blocks its group until it is done or dead.
	SkipFailed bool
}

// A Rate allows N deliveries in each Per on average, and at most N at once. It is a bucket of N
// tokens, to which one token returns every Per/N. The zero Rate is no limit. More than 10,000 a
// second is an error.
type Rate struct {
	N   int           `json:"n"`
	Per time.Duration `json:"-"`
}

// String returns the rate in words, such as "100 per 1m".
func (r Rate) String() string {
	if r == (Rate{}) {
		return "no limit"
	}
	return fmt.Sprintf("%d per %s", r.N, shortDuration(r.Per))
}

// interval is the time between two deliveries, in microseconds.
func (r Rate) interval() int64 {
	n := int64(r.N)
	return (r.Per.Microseconds() + n - 1) / n
}

func (r Rate) check(name string) error {
	switch {
	case r == (Rate{}):
	case r.N <= 0 || r.N > math.MaxInt32 || r.Per <= 0:
		return fmt.Errorf("%s is %d per %v", name, r.N, r.Per)
	case r.Per/time.Duration(r.N) < 100*time.Microsecond:
		return fmt.Errorf("%s is %v, which is more than 10000 a second", name, r)
	}
	return nil
}

const (
	defaultMaxAttempts = 5
	defaultRetention   = 7 * 24 * time.Hour
)

var defaultBackoff = Exponential(time.Second, time.Hour)

// Exponential returns a backoff that begins at first and doubles with each attempt up to max. Each
// wait is varied at random by up to a quarter either way, so that messages that failed together are
// not retried together.
func Exponential(first, max time.Duration) func(attempt int) time.Duration {
	return exponential{first, max}.wait
}

// exponential is a named type so that the description of a policy can have its bounds.
type exponential struct{ first, max time.Duration }

// These are attempts that no message has. For them wait returns its bounds.
const firstWait, lastWait = 0, -1

func (e exponential) wait(attempt int) time.Duration {
	switch attempt {
	case firstWait:
		return e.first
	case lastWait:
		return e.max
	}
	d := float64(e.first) * math.Pow(2, float64(attempt-1))
	d = min(d, float64(e.max)) * (0.75 + rand.Float64()/2)
	return time.Duration(d)
}

// exhausted reports whether the given attempt was the last allowed one, or past it.
func (p Policy) exhausted(attempt int) bool {
	limit := cmp.Or(p.MaxAttempts, defaultMaxAttempts)
	return limit > 0 && attempt >= limit
}

// attemptsExceeded reports whether a delivery is past the last allowed attempt. The attempt before
// it then ended without an answer.
func (p Policy) attemptsExceeded(attempt int) bool { return p.exhausted(attempt - 1) }

// retention is how long archived messages are kept. A negative value means for ever.
func (p Policy) retention() time.Duration { return cmp.Or(p.Retention, defaultRetention) }

// limited reports whether claims of the queue are limited. The limits of groups do not count.
func (p Policy) limited() bool { return p.MaxLeased > 0 || p.Rate != Rate{} }

// wait returns how long to wait after an attempt. If Backoff panics it returns the default's wait
// and an error.
func (p Policy) wait(attempt int) (d time.Duration, err error) {
	d = defaultBackoff(attempt)
	if p.Backoff != nil {
		err = foreign.Catch(func() { d = max(0, p.Backoff(attempt)) })
	}
	return d, err
}

// check returns an error if the policy makes no sense.
func (p Policy) check() error {
	switch {
	case p.MaxAttempts < -1:
		return fmt.Errorf("Policy.MaxAttempts is %d; -1 means no limit", p.MaxAttempts)
	case p.Timeout < 0:
		return fmt.Errorf("Policy.Timeout is %v", p.Timeout)
	case p.Concurrency < 0:
		return fmt.Errorf("Policy.Concurrency is %d", p.Concurrency)
	case p.Lease != 0 && p.Lease < minLease:
		return fmt.Errorf("Policy.Lease %v is shorter than 100 ms", p.Lease)
	case p.MaxLeased < 0 || p.MaxLeased > math.MaxInt32:
		return fmt.Errorf("Policy.MaxLeased is %d", p.MaxLeased)
	case p.GroupConcurrency < 0 || p.GroupConcurrency > math.MaxInt32:
		return fmt.Errorf("Policy.GroupConcurrency is %d", p.GroupConcurrency)
	case p.DeadLetter != "":
		if err := checkTitle("Policy.DeadLetter", p.DeadLetter); err != nil {
			return err
		}
	}
	return errors.Join(p.Rate.check("Policy.Rate"), p.GroupRate.check("Policy.GroupRate"))
}

// An outcome is the outcome of a delivery.
type outcome struct {
	kind  outcomeKind
	delay time.Duration // of a release or retry
	err   error         // of a retry or death
}

type outcomeKind int

const (
	acked outcomeKind = iota
	released
	retried
	died
)

func (k outcomeKind) String() string {
	return [...]string{"acked", "released", "retried", "dead"}[k]
}

// outcome returns the outcome of the given attempt by the error that the handler returned.
func (p Policy) outcome(attempt int, err error) outcome {
	var snooze *snoozeError
	var after *retryAfterError
	var suspended *suspension
	var setback *infraError
	switch {
	case err == nil:
		return outcome{kind: acked}
	case errors.As(err, &suspended):
		return outcome{kind: released, delay: suspended.after}
	case errors.As(err, &setback):
		return outcome{kind: released, delay: time.Second}
	case errors.As(err, &snooze):
		return outcome{kind: released, delay: snooze.after}
	case errors.Is(err, ErrPermanent), p.exhausted(attempt):
		return outcome{kind: died, err: err}
	case errors.As(err, &after):
		return outcome{kind: retried, delay: after.after, err: err}
	}
	delay, bad := p.wait(attempt)
	if bad != nil {
		err = fmt.Errorf("%w\n\nPolicy.Backoff: %w", err, bad)
	}
	return outcome{kind: retried, delay: delay, err: err}
}

// PolicyInfo is the [Policy] of a queue, as a Worker or [Queue.Configure] wrote it last, with the
// defaults filled in. It is zero if neither has written it.
type PolicyInfo struct {
	MaxAttempts int           `json:"max_attempts,omitzero"` // -1: no limit
	Backoff     string        `json:"backoff,omitzero"`      // the bounds of Exponential, such as "1s to 1h", or the name of a function
	Timeout     time.Duration `json:"-"`                     // 0: none
	Concurrency int           `json:"concurrency,omitzero"`  // of one Worker, 0: no limit
	Lease       time.Duration `json:"-"`                     // 0: the Worker's
	Retention   time.Duration `json:"-"`                     // negative: for ever
	DeadLetter  string        `json:"dead_letter,omitzero"`  // empty: none

	// These are the limits that hold in all processes, as they are applied.
	MaxLeased        int  `json:"max_leased,omitzero"` // 0: no limit
	Rate             Rate `json:"rate,omitzero"`
	GroupConcurrency int  `json:"group_concurrency,omitzero"`
	GroupRate        Rate `json:"group_rate,omitzero"`
	SkipFailed       bool `json:"skip_failed,omitzero"`
}

// String returns the policy in words. It leaves out limits that are not set, and group limits that
// nobody has changed. It is empty for a policy that nobody has written.
func (p PolicyInfo) String() string {
	var parts []string
	add := func(said bool, format string, args ...any) {
		if said {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(p.MaxAttempts > 0, "%d attempts", p.MaxAttempts)
	add(p.MaxAttempts < 0, "any number of attempts")
	add(p.Backoff != "", "backoff %s", p.Backoff)
	add(p.Timeout > 0, "timeout %s", shortDuration(p.Timeout))
	add(p.Lease > 0, "lease %s", shortDuration(p.Lease))
	add(p.Concurrency > 0, "%d at a time in a worker", p.Concurrency)
	add(p.MaxLeased > 0, "%d leased at a time", p.MaxLeased)
	add(p.Rate != Rate{}, "%v", p.Rate)
	add(p.GroupConcurrency > 1, "%d at a time in a group", p.GroupConcurrency)
	add(p.GroupRate != Rate{}, "%v in a group", p.GroupRate)
	add(p.SkipFailed, "groups skip what failed")
	add(p.DeadLetter != "", "dead letters to %q", p.DeadLetter)
	add(p.Retention > 0, "archived kept for %s", shortDuration(p.Retention))
	add(p.Retention < 0, "archived kept for ever")
	return strings.Join(parts, ", ")
}

// shortDuration returns d as String does, without the zeros at the end.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// A policyRow has the arguments and columns of a queue's policy in the statements: an array of
// policyRecord as text, the limits, and the dead-letter queue. Where it is written, it begins with
// the queue's name.
type policyRow []any

// A policyRecord is the part of a policy that is for operators alone. Durations are texts.
type policyRecord struct {
	MaxAttempts int    `json:"max_attempts"`
	Backoff     string `json:"backoff"`
	Timeout     string `json:"timeout,omitempty"`
	Concurrency int    `json:"concurrency,omitempty"`
	Lease       string `json:"lease,omitempty"`
	Retention   string `json:"retention"`
}

// row returns the policy as policy.configure takes it.
func (p Policy) row(queue string) policyRow {
	record := policyRecord{MaxAttempts: cmp.Or(p.MaxAttempts, defaultMaxAttempts), Backoff: describeBackoff(p.Backoff), Concurrency: p.Concurrency,
		Retention: "for ever"}
	if p.Timeout > 0 {
		record.Timeout = shortDuration(p.Timeout)
	}
	if p.Lease > 0 {
		record.Lease = shortDuration(p.Lease)
	}
	if kept := p.retention(); kept >= 0 {
		record.Retention = shortDuration(kept)
	}
	raw, err := json.Marshal(record)
	if err != nil {
		panic(err) // it holds texts and numbers
	}
	row := policyRow{queue, string(raw), positiveOr(p.MaxLeased)}
	row = append(row, p.Rate.columns()...)
	row = append(row, max(1, p.GroupConcurrency))
	row = append(row, p.GroupRate.columns()...)
	row = append(row, p.SkipFailed)
	if p.DeadLetter == "" {
		return append(row, nil)
	}
	return append(row, p.DeadLetter)
}

// positiveOr returns n, or NULL for zero.
func positiveOr(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

// columns returns a rate's interval and burst, or NULLs.
func (r Rate) columns() []any {
	if r == (Rate{}) {
		return []any{nil, nil}
	}
	return []any{r.interval(), r.N}
}

// describeBackoff returns a description of a backoff, or the name of its function.
func describeBackoff(backoff func(int) time.Duration) string {
	if backoff == nil {
		backoff = defaultBackoff
	}
	code := reflect.ValueOf(backoff).Pointer()
	if code == reflect.ValueOf(defaultBackoff).Pointer() {
		return shortDuration(backoff(firstWait)) + " to " + shortDuration(backoff(lastWait))
	}
	name := runtime.FuncForPC(code).Name()
	return name[strings.LastIndexByte(name, '/')+1:]
}

// decodePolicy reads the policy of a queue from its row.
func decodePolicy(raw []byte) (PolicyInfo, error) {
	var p PolicyInfo
	if len(raw) == 0 {
		return p, nil
	}
	var text, deadLetter *string
	var held, burst, groupBurst *int
	var interval, groupInterval *int64
	var skip int
	row := []any{&text, &held, &interval, &burst, &p.GroupConcurrency, &groupInterval, &groupBurst, &skip, &deadLetter}
	err := json.Unmarshal(raw, &row)
	if err == nil && text != nil {
		err = p.decode(*text)
	}
	if err != nil {
		return p, err
	}
	if text == nil && p.GroupConcurrency == 1 {
		p.GroupConcurrency = 0 // nobody has set it
	}
	p.MaxLeased, p.DeadLetter = valueOf(held), valueOf(deadLetter)
	p.Rate, p.GroupRate = rateOf(interval, burst), rateOf(groupInterval, groupBurst)
	p.SkipFailed = skip != 0
	return p, nil
}

// listedPolicy is decodePolicy for a listing. A policy that does not decode is added to malformed.
func listedPolicy(raw []byte, malformed string) (PolicyInfo, string) {
	p, err := decodePolicy(raw)
	if err != nil {
		malformed = joinMalformed(malformed, malformedColumn("policy", err))
	}
	malformed = cutNames(malformed, "dead_letter", &p.DeadLetter)
	return p, malformed
}

func valueOf[T any](v *T) T {
	if v == nil {
		var zero T
		return zero
	}
	return *v
}

// decode reads a policyRecord.
func (p *PolicyInfo) decode(text string) error {
	var record policyRecord
	if err := json.Unmarshal([]byte(text), &record); err != nil {
		return err
	}
	p.MaxAttempts, p.Backoff, p.Concurrency, p.Retention = record.MaxAttempts, record.Backoff, record.Concurrency, -1
	for _, d := range []struct {
		text string
		into *time.Duration
	}{{record.Timeout, &p.Timeout}, {record.Lease, &p.Lease}, {record.Retention, &p.Retention}} {
		if d.text == "" || d.text == "for ever" {
			continue
		}
		var err error
		if *d.into, err = time.ParseDuration(d.text); err != nil {
			return err
		}
	}
	return nil
}

// rateOf returns the rate of two columns. The interval was rounded up to a microsecond.
func rateOf(interval *int64, burst *int) Rate {
	if interval == nil || burst == nil {
		return Rate{}
	}
	per := time.Duration(min(float64(*interval)*float64(*burst), math.MaxInt64/2000) * 1000)
	for _, unit := range []time.Duration{time.Hour, time.Minute, time.Second, time.Millisecond} {
		if whole := per.Truncate(unit); whole > 0 && per-whole < time.Duration(*burst)*time.Microsecond {
			return Rate{*burst, whole}
		}
	}
	return Rate{*burst, per}
}

// Configure writes the queue's policy to its row, and makes the row if there is none. Operators see
// the policy there, and the limits in it take effect. A Worker does so for its handlers when it
// starts. A process that only enqueues needs Configure only if it alone knows the limits. Configure
// writes nothing if the row has the same policy already.
func (q *Queue[T]) Configure(ctx context.Context) error {
	err := q.usable()
	if err == nil {
		err = q.store.single(ctx, func(c conn) error {
			_, err := c.exec(ctx, c.store.dialect.queue.make, q.name)
			return err
		})
	}
	if err == nil {
		err = q.store.configure(ctx, []policyRow{q.policy.row(q.name)})
	}
	return wrap(ctx, err, "configure queue %q", q.name)
}

// configure writes policies to queues that exist.
func (s *Store) configure(ctx context.Context, rows []policyRow) error {
	if len(rows) == 0 {
		return nil
	}
	list, err := jsonList(rows)
	if err != nil {
		return err
	}
	return s.single(ctx, func(c conn) error {
		_, err := c.exec(ctx, s.dialect.policy.configure, list)
		return err
	})
}
