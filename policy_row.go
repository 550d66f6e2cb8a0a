package pgqrs

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strings"
	"time"
)

// PolicyInfo is the [Policy] of a queue, as a Worker or [Queue.Configure] wrote
// it last, with the defaults filled in. Where neither has, it is zero.
type PolicyInfo struct {
	MaxAttempts int           // -1: no limit
	Backoff     string        // the bounds of Exponential, such as "1s to 1h", or the name of a function
	Timeout     time.Duration // 0: none
	Concurrency int           // of one Worker; 0: no limit
	Lease       time.Duration // 0: the Worker's
	Retention   time.Duration // negative: for ever
	DeadLetter  string        // empty: none

	// The limits that hold in all processes, as they are applied.
	MaxHeld          int // 0: no limit
	Rate             Rate
	GroupConcurrency int
	GroupRate        Rate
	SkipFailed       bool
}

// String says the policy in words. What is off, or nobody has changed in a
// group's limits, is left out; of a policy that nobody has written it is empty.
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
	add(p.MaxHeld > 0, "%d leased at a time", p.MaxHeld)
	add(p.Rate != Rate{}, "%v", p.Rate)
	add(p.GroupConcurrency > 1, "%d at a time in a group", p.GroupConcurrency)
	add(p.GroupRate != Rate{}, "%v in a group", p.GroupRate)
	add(p.SkipFailed, "groups skip what failed")
	add(p.DeadLetter != "", "dead letters to %q", p.DeadLetter)
	add(p.Retention > 0, "archived kept for %s", shortDuration(p.Retention))
	add(p.Retention < 0, "archived kept for ever")
	return strings.Join(parts, ", ")
}

// shortDuration is d without the zeros that String ends with.
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

// A policyRow is what the statements take and return of a queue's policy: an
// array of policyRecord as text, the limits, and the dead-letter queue. It
// begins with the queue's name where it is written.
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

// row is the policy as policy.configure takes it.
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
	row := policyRow{queue, string(raw), positive(p.MaxHeld)}
	row = append(row, p.Rate.columns()...)
	row = append(row, max(1, p.GroupConcurrency))
	row = append(row, p.GroupRate.columns()...)
	row = append(row, p.SkipFailed)
	if p.DeadLetter == "" {
		return append(row, nil)
	}
	return append(row, p.DeadLetter)
}

// positive is n, or NULL for zero.
func positive(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

// columns are a rate's interval and burst, or NULLs.
func (r Rate) columns() []any {
	if r == (Rate{}) {
		return []any{nil, nil}
	}
	return []any{r.interval(), r.N}
}

// describeBackoff says what a backoff does, or what it is called.
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
		p.GroupConcurrency = 0 // nobody has said so
	}
	p.MaxHeld, p.DeadLetter = valueOf(held), valueOf(deadLetter)
	p.Rate, p.GroupRate = rateOf(interval, burst), rateOf(groupInterval, groupBurst)
	p.SkipFailed = skip != 0
	return p, nil
}

// valueOf is what v points to, or zero.
// listedPolicy is decodePolicy for a listing: what does not decode is malformed, like what was before.
func listedPolicy(raw []byte, malformed string) (PolicyInfo, string) {
	p, err := decodePolicy(raw)
	if err != nil {
		malformed = joinMalformed(malformed, malformedColumn("policy", err))
	}
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

// rateOf is the rate of two columns. The interval was rounded up to a microsecond.
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

// Configure writes the queue's policy to its row, which it makes if need be: for
// operators to see, and for the limits in it to hold. A Worker does so for its
// handlers when it starts; a process that only enqueues has no need to, unless
// it is the one that knows the limits. It writes nothing if the row says the same.
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
