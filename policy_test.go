package pgqrs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func TestExponentialStaysWithinItsBounds(t *testing.T) {
	backoff := Exponential(time.Second, time.Hour)
	for attempt, middle := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 12: 2048 * time.Second,
		13: time.Hour, 100: time.Hour, 5000: time.Hour, math.MaxInt: time.Hour,
	} {
		least, most := time.Duration(math.MaxInt64), time.Duration(0)
		for range 1000 {
			d := backoff(attempt)
			least, most = min(least, d), max(most, d)
		}
		if least < middle*3/4 || most > middle*5/4 {
			t.Errorf("attempt %d waits %v to %v; want a quarter around %v at most", attempt, least, most, middle)
		}
		if most-least < middle/4 {
			t.Errorf("attempt %d waits %v to %v: what failed together comes back together", attempt, least, most)
		}
	}
}

func TestOutcomeFollowsFromTheError(t *testing.T) {
	err := errors.New("bounced")
	after := RetryAfter(time.Minute, err)
	policy := Policy{MaxAttempts: 3, Backoff: func(n int) time.Duration { return time.Duration(n) * time.Second }}
	forever := Policy{MaxAttempts: -1, Backoff: policy.Backoff}
	for _, test := range []struct {
		name    string
		policy  Policy
		attempt int
		err     error
		want    outcome
	}{
		{"no error", policy, 1, nil, outcome{kind: acked}},
		{"no error on the last attempt", policy, 3, nil, outcome{kind: acked}},
		{"an error", policy, 1, err, outcome{retried, time.Second, err}},
		{"an error again", policy, 2, err, outcome{retried, 2 * time.Second, err}},
		{"an error on the last attempt", policy, 3, err, outcome{died, 0, err}},
		{"an error past it", policy, 4, err, outcome{died, 0, err}},
		{"an error without limit", forever, 1_000_000, err, outcome{retried, 1_000_000 * time.Second, err}},
		{"the default limit", Policy{Backoff: policy.Backoff}, 4, err, outcome{retried, 4 * time.Second, err}},
		{"the default limit reached", Policy{Backoff: policy.Backoff}, 5, err, outcome{died, 0, err}},
		{"a backoff below zero", Policy{Backoff: func(int) time.Duration { return -time.Hour }}, 1, err, outcome{retried, 0, err}},
		{"permanent", policy, 1, Permanent(err), outcome{died, 0, err}},
		{"permanent, wrapped", policy, 1, fmt.Errorf("send: %w", Permanent(err)), outcome{died, 0, err}},
		{"permanent without limit", forever, 1, Permanent(err), outcome{died, 0, err}},
		{"permanent wins over a time", policy, 1, RetryAfter(time.Minute, Permanent(err)), outcome{died, 0, err}},
		{"a time", policy, 1, after, outcome{retried, time.Minute, err}},
		{"a time, wrapped", policy, 2, fmt.Errorf("send: %w", after), outcome{retried, time.Minute, err}},
		{"a time on the last attempt", policy, 3, after, outcome{died, 0, err}},
		{"a time below zero", policy, 1, RetryAfter(-time.Minute, err), outcome{retried, 0, err}},
		{"a snooze", policy, 1, Snooze(time.Minute), outcome{released, time.Minute, nil}},
		{"a snooze on the last attempt", policy, 3, Snooze(time.Minute), outcome{released, time.Minute, nil}},
		{"a snooze, wrapped", policy, 1, fmt.Errorf("busy: %w", Snooze(time.Minute)), outcome{released, time.Minute, nil}},
		{"a snooze below zero", policy, 1, Snooze(-time.Minute), outcome{released, 0, nil}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.policy.outcome(test.attempt, test.err)
			if got.kind != test.want.kind || got.delay != test.want.delay || !errors.Is(got.err, test.want.err) {
				t.Errorf("got %v after %v with %v, want %v after %v with %v", got.kind, got.delay, got.err, test.want.kind, test.want.delay, test.want.err)
			}
		})
	}
}

func TestErrorsOfHandlersKeepTheirCause(t *testing.T) {
	cause := errors.New("bounced")
	for name, err := range map[string]error{"Permanent": Permanent(cause), "RetryAfter": RetryAfter(time.Second, cause)} {
		if err.Error() != "bounced" || !errors.Is(err, cause) {
			t.Errorf("%s: %q, and it matches its cause: %v", name, err, errors.Is(err, cause))
		}
		if errors.Is(err, ErrPermanent) != (name == "Permanent") {
			t.Errorf("%s matches ErrPermanent: %v", name, errors.Is(err, ErrPermanent))
		}
	}
	if err := errors.Join(Permanent(nil), RetryAfter(time.Second, nil)); err != nil {
		t.Errorf("a nil error became %v", err)
	}
}

func TestDeliveriesPastTheLastAttempt(t *testing.T) {
	for _, test := range []struct {
		max, attempt int
		want         bool
	}{
		{0, 5, false}, {0, 6, true}, {1, 1, false}, {1, 2, true}, {-1, 1 << 30, false},
	} {
		if got := (Policy{MaxAttempts: test.max}).attemptsExceeded(test.attempt); got != test.want {
			t.Errorf("MaxAttempts %d, attempt %d: %v", test.max, test.attempt, got)
		}
	}
}

func TestRetention(t *testing.T) {
	if got := (Policy{}).retention(); got != 7*24*time.Hour {
		t.Errorf("the default is %v", got)
	}
	if got := (Policy{Retention: -1}).retention(); got >= 0 {
		t.Errorf("for ever is %v", got)
	}
}

func TestPoliciesThatMakeNoSense(t *testing.T) {
	for text, p := range map[string]Policy{
		"Policy.MaxAttempts is -2; -1 means no limit": {MaxAttempts: -2},
		"Policy.Timeout is -1s":                       {Timeout: -time.Second},
		"Policy.Concurrency is -1":                    {Concurrency: -1},
	} {
		if err := p.check(); err == nil || err.Error() != text {
			t.Errorf("got %v, want %s", err, text)
		}
	}
	if err := (Policy{MaxAttempts: -1, Retention: -1}).check(); err != nil {
		t.Error(err)
	}
}

func TestSnoozeIsToldFromAFailure(t *testing.T) {
	if err := fmt.Errorf("later: %w", Snooze(time.Minute)); !errors.Is(err, ErrSnoozed) {
		t.Errorf("%v does not match ErrSnoozed", err)
	}
	for _, err := range []error{errors.New("broken"), RetryAfter(time.Minute, errors.New("busy")), &suspension{}} {
		if errors.Is(err, ErrSnoozed) {
			t.Errorf("%v matches ErrSnoozed", err)
		}
	}
}

func tenMinutes(int) time.Duration { return 10 * time.Minute }

// described returns a policy as operators see it.
func described(t *testing.T, p Policy) PolicyInfo {
	t.Helper()
	raw, err := json.Marshal(p.row("q")[1:])
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("true", "1", "false", "0").Replace(string(raw)) // as databases store it
	info, err := decodePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestPoliciesReadAsTheyAreWritten(t *testing.T) {
	for _, test := range []struct {
		policy Policy
		info   PolicyInfo
		text   string
	}{
		{Policy{}, PolicyInfo{MaxAttempts: 5, Backoff: "1s to 1h", Retention: 7 * 24 * time.Hour, GroupConcurrency: 1},
			"5 attempts, backoff 1s to 1h, archived kept for 168h"},
		{Policy{MaxAttempts: -1, Backoff: tenMinutes, Retention: -time.Hour, SkipFailed: true},
			PolicyInfo{MaxAttempts: -1, Backoff: "pgqrs-go.tenMinutes", Retention: -1, GroupConcurrency: 1, SkipFailed: true},
			"any number of attempts, backoff pgqrs-go.tenMinutes, groups skip what failed, archived kept for ever"},
		{Policy{Timeout: 90 * time.Second, Concurrency: 2, Lease: time.Minute, MaxLeased: 3, Rate: Rate{100, time.Minute},
			GroupConcurrency: 4, GroupRate: Rate{1, time.Hour}, DeadLetter: "graveyard"},
			PolicyInfo{MaxAttempts: 5, Backoff: "1s to 1h", Retention: 7 * 24 * time.Hour, Timeout: 90 * time.Second, Concurrency: 2, Lease: time.Minute,
				MaxLeased: 3, Rate: Rate{100, time.Minute}, GroupConcurrency: 4, GroupRate: Rate{1, time.Hour}, DeadLetter: "graveyard"},
			`5 attempts, backoff 1s to 1h, timeout 1m30s, lease 1m, 2 at a time in a worker, 3 leased at a time, 100 per 1m, 4 at a time in a group, 1 per 1h in a group, dead letters to "graveyard", archived kept for 168h`},
	} {
		info := described(t, test.policy)
		if info != test.info {
			t.Errorf("%+v\nreads %+v\nwant  %+v", test.policy, info, test.info)
		}
		if got := info.String(); got != test.text {
			t.Errorf("got  %s\nwant %s", got, test.text)
		}
	}
}

func TestRatesReadAsTheyAreWritten(t *testing.T) {
	for _, rate := range []Rate{
		{1, time.Second}, {3, time.Second}, {7, time.Minute}, {1000, time.Second}, {9_973, time.Second}, {1, 1500 * time.Millisecond},
		{800_000_000, 24 * time.Hour}, {1, 365 * 24 * time.Hour}, {10, 1200 * time.Microsecond}, {90, 90 * time.Second},
	} {
		if got := described(t, Policy{Rate: rate}).Rate; got != rate {
			t.Errorf("%+v reads %+v", rate, got)
		}
	}
}

func TestNobodysPolicyIsEmpty(t *testing.T) {
	for _, raw := range []string{"", `[null,null,null,null,1,null,null,0,null]`} {
		info, err := decodePolicy([]byte(raw))
		if err != nil || info != (PolicyInfo{}) || info.String() != "" {
			t.Errorf("%q reads %+v, %v", raw, info, err)
		}
	}
	if _, malformed := listedPolicy([]byte(`["{",null,null,null,1,null,null,0,null]`), "name: bad"); malformed != "name: bad; policy: unexpected end of JSON input" {
		t.Errorf("a policy that is no JSON: %s", malformed)
	}
}
