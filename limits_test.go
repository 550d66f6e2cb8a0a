package pgqrs

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestBucketAddsUpFractions(t *testing.T) {
	b := newBucket(Limits{Rate: 10, Burst: 2})
	now := time.Unix(1000, 0)
	take := func(after time.Duration, n int, want time.Duration) {
		t.Helper()
		now = now.Add(after)
		err := b.take(now, n)
		var limited *RateLimitError
		switch {
		case err == nil && want == 0:
		case !errors.As(err, &limited) || limited.Wait.Round(time.Microsecond) != want:
			t.Errorf("%d after %v: %v; want a wait of %v", n, after, err, want)
		}
	}
	take(0, 1, 0)
	take(0, 1, 0)
	take(0, 1, 100*time.Millisecond) // it began full, with two
	for i := range 9 {
		take(10*time.Millisecond, 1, time.Duration(90-10*i)*time.Millisecond)
	}
	take(10*time.Millisecond, 1, 0) // ten times a tenth
	take(time.Hour, 2, 0)           // no more than two come together
	take(0, 1, 100*time.Millisecond)
	take(time.Hour, 7, 0)                     // it is full, so seven pass
	take(0, 1, 600*time.Millisecond)          // five of them are owed
	take(600*time.Millisecond, 1, 0)          // and paid off
	take(-time.Hour, 1, 100*time.Millisecond) // a clock that goes back takes nothing away that was not there
}

func TestRateWithoutBurstAllowsASecond(t *testing.T) {
	for rate, want := range map[float64]float64{0.5: 1, 1: 1, 2.5: 3, 1000: 1000} {
		if b := newBucket(Limits{Rate: rate}); b.burst != want || b.left != want {
			t.Errorf("a rate of %v has a burst of %v with %v left; want %v", rate, b.burst, b.left, want)
		}
	}
	if newBucket(Limits{}) != nil {
		t.Error("no rate has a bucket")
	}
}

func TestLimitsThatMakeNoSense(t *testing.T) {
	for text, l := range map[string]Limits{
		"MaxPayload is -1": {MaxPayload: -1}, "MaxString is -1": {MaxString: -1}, "MaxDepth is -2": {MaxDepth: -2},
		"Rate is -1": {Rate: -1}, "Rate is NaN": {Rate: math.NaN()}, "Rate is +Inf": {Rate: math.Inf(1)},
		"Burst is -1": {Burst: -1, Rate: 1}, "Burst is 5 without a Rate": {Burst: 5},
	} {
		if err := l.check(); err == nil || !strings.Contains(err.Error(), "Limits."+text) {
			t.Errorf("%+v: %v; want %q", l, err, text)
		}
	}
	if err := (Limits{MaxString: 1, MaxDepth: 1, Rate: 1e-9, Burst: 1}).check(); err != nil {
		t.Error(err)
	}
}

func TestRateLimitErrorIsARetryAfter(t *testing.T) {
	err := error(&operationError{"enqueue", &RateLimitError{3 * time.Second}})
	if o := (Policy{}).outcome(1, err); o.kind != retried || o.delay != 3*time.Second {
		t.Errorf("the outcome is %v after %v; want another try after 3 s", o.kind, o.delay)
	}
	if o := (Policy{}).outcome(5, err); o.kind != died {
		t.Errorf("the outcome of the last attempt is %v", o.kind)
	}
	if text := err.Error(); text != "pgqrs: enqueue: rate limit: try again in 3s" {
		t.Error(text)
	}
}
