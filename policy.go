package pgqrs

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// A Policy says how often and how fast work is tried again, and how much of it
// goes on at a time. A zero field means its default. Of steps (see [Run.With])
// the first three fields count; the others are of a queue or workflow.
//
// A [Worker] writes the policies of its handlers to the rows of their queues
// when it starts, and [Queue.Configure] does so by hand: operators see them
// there, and the limits that hold in all processes (MaxHeld, Rate and those of
// groups) are read from there, whoever wrote them last.
type Policy struct {
	// MaxAttempts is how many deliveries a message may have before it goes to
	// the dead letters; -1 means no limit. Zero means 5.
	MaxAttempts int
	// Backoff returns how long to wait after the given attempt (1 is the
	// first) failed. Nil means Exponential(time.Second, time.Hour).
	Backoff func(attempt int) time.Duration
	// Timeout bounds one attempt of a handler in a Worker: its ctx ends then,
	// with the cause ErrTimeout. Zero means none.
	Timeout time.Duration
	// Concurrency bounds how many messages of the queue one Worker handles at
	// a time. Zero means as many as the Worker does.
	// HandleBatch counts batches, and takes zero for one.
	Concurrency int
	// Lease is how long a message of the queue stays with a Worker that has
	// gone silent. Zero means Worker.Lease; less than 100 ms is an error.
	Lease time.Duration
	// Retention is how long a Worker that handles the queue keeps archived
	// messages; negative means for ever. Zero means 7 days. Dead letters are
	// kept until they are redriven or purged.
	Retention time.Duration
	// DeadLetter names another queue, which gets a copy of each message that
	// dies in this one, in the same transaction. The copy has the headers of
	// the message, and dead-letter-queue, -id, -attempts and -error; the dead letter itself
	// stays where it is, for Redrive. What dies of the copies that came from the
	// other queue is not copied back. A run of a workflow that fails is no
	// dead letter. Empty means none.
	DeadLetter string

	// MaxHeld bounds how many messages of the queue are leased at a time, in
	// all processes. Zero means no limit.
	MaxHeld int
	// Rate bounds how many deliveries of the queue begin, in all processes.
	// Zero means no limit.
	Rate Rate

	// GroupConcurrency is how many messages of one group are leased at a time,
	// in all processes. Zero means 1, which keeps them in order.
	GroupConcurrency int
	// GroupRate bounds how many deliveries of one group begin, in all
	// processes. Zero means no limit.
	GroupRate Rate
	// SkipFailed lets a group go on past a failed message while that waits for
	// its retry. Otherwise it holds its group up until it is done or dead.
	SkipFailed bool
}

// A Rate is N in each Per, on average, and no more than N at once: a bucket of N
// tokens, of which one comes back every Per/N. The zero Rate is no limit; more
// than 10,000 a second is an error.
type Rate struct {
	N   int
	Per time.Duration
}

// String says the rate in words, such as "100 per 1m".
func (r Rate) String() string {
	if r == (Rate{}) {
		return "no limit"
	}
	return fmt.Sprintf("%d per %s", r.N, shortDuration(r.Per))
}

// interval is what lies between two, in microseconds.
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

// Exponential returns a backoff that begins at first and doubles with each
// attempt up to max, each varied at random by up to a quarter either way, so
// that what failed together does not come back together.
func Exponential(first, max time.Duration) func(attempt int) time.Duration {
	return exponential{first, max}.wait
}

// exponential is a type of its own so that a policy can say what its bounds are.
type exponential struct{ first, max time.Duration }

// Attempts that no message has, for which wait returns its bounds.
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

// exhausted reports whether the given attempt was the last one, or past it.
func (p Policy) exhausted(attempt int) bool {
	limit := cmp.Or(p.MaxAttempts, defaultMaxAttempts)
	return limit > 0 && attempt >= limit
}

// overdrawn reports whether a delivery is past the last attempt: the one
// before it never answered.
func (p Policy) overdrawn(attempt int) bool { return p.exhausted(attempt - 1) }

// retention is how long archived messages are kept; negative: for ever.
func (p Policy) retention() time.Duration { return cmp.Or(p.Retention, defaultRetention) }

// limited reports whether claims of the queue are limited; those of groups are not by this.
func (p Policy) limited() bool { return p.MaxHeld > 0 || p.Rate != Rate{} }

// wait returns how long to wait after an attempt. If Backoff panics it is what the default
// says, with an error that says so.
func (p Policy) wait(attempt int) (d time.Duration, err error) {
	d = defaultBackoff(attempt)
	if p.Backoff != nil {
		err = caught(func() { d = max(0, p.Backoff(attempt)) })
	}
	return d, err
}

// check reports a policy that makes no sense.
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
	case p.MaxHeld < 0 || p.MaxHeld > math.MaxInt32:
		return fmt.Errorf("Policy.MaxHeld is %d", p.MaxHeld)
	case p.GroupConcurrency < 0 || p.GroupConcurrency > math.MaxInt32:
		return fmt.Errorf("Policy.GroupConcurrency is %d", p.GroupConcurrency)
	case p.DeadLetter != "":
		if err := checkTitle("Policy.DeadLetter", p.DeadLetter); err != nil {
			return err
		}
	}
	return errors.Join(p.Rate.check("Policy.Rate"), p.GroupRate.check("Policy.GroupRate"))
}

// ErrPermanent matches errors made by [Permanent].
var ErrPermanent = errors.New("pgqrs: permanent failure")

// ErrTimeout is the cause of a handler's ctx when Policy.Timeout has passed.
var ErrTimeout = errors.New("pgqrs: timeout")

// Permanent says that trying again is no use: a handler that returns it sends
// its message to the dead letters now. The result matches ErrPermanent and
// everything that err matches. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string        { return e.err.Error() }
func (e *permanentError) Unwrap() error        { return e.err }
func (e *permanentError) Is(target error) bool { return target == ErrPermanent }

// RetryAfter says how long to wait before the next attempt, in place of the
// policy's backoff. The attempt counts. The result matches everything that err
// matches. RetryAfter(d, nil) is nil.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{max(0, d), err}
}

type retryAfterError struct {
	after time.Duration
	err   error
}

func (e *retryAfterError) Error() string { return e.err.Error() }
func (e *retryAfterError) Unwrap() error { return e.err }

// ErrSnoozed matches what [Snooze] returns.
var ErrSnoozed = errors.New("pgqrs: snoozed")

// Snooze says: not now, again in d. It is no failure, and the attempt does not
// count. Middleware and an Observer tell it from one by ErrSnoozed, which it matches.
func Snooze(d time.Duration) error { return &snoozeError{max(0, d)} }

type snoozeError struct{ after time.Duration }

func (e *snoozeError) Error() string        { return fmt.Sprintf("pgqrs: snoozed for %v", e.after) }
func (e *snoozeError) Is(target error) bool { return target == ErrSnoozed }

// An outcome is what becomes of a delivery.
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

// outcome decides by the error that a handler returned for the given attempt.
func (p Policy) outcome(attempt int, err error) outcome {
	var snooze *snoozeError
	var after *retryAfterError
	var suspended *suspension
	var setback *setbackError
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
