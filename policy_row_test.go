package pgqrs

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func tenMinutes(int) time.Duration { return 10 * time.Minute }

// described is what operators see of a policy.
func described(t *testing.T, p Policy) PolicyInfo {
	t.Helper()
	raw, err := json.Marshal(p.row("q")[1:])
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("true", "1", "false", "0").Replace(string(raw)) // as the databases have it
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
		{Policy{Timeout: 90 * time.Second, Concurrency: 2, Lease: time.Minute, MaxHeld: 3, Rate: Rate{100, time.Minute},
			GroupConcurrency: 4, GroupRate: Rate{1, time.Hour}, DeadLetter: "graveyard"},
			PolicyInfo{MaxAttempts: 5, Backoff: "1s to 1h", Retention: 7 * 24 * time.Hour, Timeout: 90 * time.Second, Concurrency: 2, Lease: time.Minute,
				MaxHeld: 3, Rate: Rate{100, time.Minute}, GroupConcurrency: 4, GroupRate: Rate{1, time.Hour}, DeadLetter: "graveyard"},
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
