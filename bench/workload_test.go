package bench

import (
	"slices"
	"testing"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

func rates(values map[string]float64) map[string]measure.Sample {
	round := map[string]measure.Sample{}
	for name, v := range values {
		round[name] = measure.Sample{measure.Rate: v}
	}
	return round
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	rounds := []map[string]measure.Sample{
		rates(map[string]float64{ours: 100, "raw": 50}),
		rates(map[string]float64{ours: 10, "raw": 10}),
		rates(map[string]float64{ours: 30, "raw": 10}),
		rates(map[string]float64{ours: 1000}), // raw failed
	}
	v := atLeast(measure.Rate, 2, "raw").judge(rounds)
	if want := []float64{2, 1, 3}; !slices.Equal(v.values, want) {
		t.Errorf("ratios %v, want %v", v.values, want)
	}
	if got := v.word(); got != "met" {
		t.Errorf("median 2 of at least 2: %s", got)
	}
	if got := atLeast(measure.Rate, 2.5, "raw").judge(rounds).word(); got != "NOT MET" {
		t.Errorf("median 2 of at least 2.5: %s", got)
	}
}

func TestTheBestPeerCounts(t *testing.T) {
	rounds := []map[string]measure.Sample{rates(map[string]float64{ours: 100, "a": 20, "b": 50})}
	if v := atLeast(measure.Rate, 1, "a", "b", "absent").judge(rounds); !slices.Equal(v.values, []float64{2}) {
		t.Errorf("a rate to the best of a and b: %v, want 2", v.values)
	}
	if v := atMost(measure.Rate, 1, "a", "b").judge(rounds); !slices.Equal(v.values, []float64{5}) {
		t.Errorf("a latency to the best of a and b: %v, want 5", v.values)
	}
}

func TestWords(t *testing.T) {
	rounds := []map[string]measure.Sample{rates(map[string]float64{ours: 100, "raw": 50})}
	for _, c := range []struct {
		target target
		word   string
		text   string
	}{
		{atMost(measure.Rate, 100), "met", "rate at most 100"},
		{atMost(measure.Rate, 99), "NOT MET", "rate at most 99"},
		{atMost(measure.P50, 1), "not measured", "p50 at most 1"},
		{compared(measure.Rate, "raw"), "no target", "rate to raw"},
		{target{figure: measure.Rate, of: "raw", against: []string{ours, "x", "y"}, least: 0.5}, "met", "rate of raw to ours, x or y at least 0.5"},
	} {
		v := c.target.judge(rounds)
		if v.word() != c.word || c.target.String() != c.text {
			t.Errorf("%q is %q, want %q: %q", c.target.String(), v.word(), c.text, c.word)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{4, 1, 3}, spread{1, 3, 4}},
		{[]float64{4, 1, 3, 2}, spread{1, 2.5, 4}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("spreadOf(%v) = %v, want %v", c.values, got, c.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.034: "0.03", 9.994: "9.99", 12.34: "12.3", 123.4: "123", 1234: "1.23k", 12345: "12.3k", 123456: "123k"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
	for n, want := range map[int]string{1: "1", 999: "999", 1000: "1,000", 50_000: "50,000", 1_000_000: "1,000,000"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestProcessTicks(t *testing.T) {
	for line, want := range map[string]int{
		"42 (postgres) S 1 42 42 0 -1 0 0 0 0 0 7 5 300 20 0 0":        332,
		"43 (postgres: a) b) S 42 42 42 0 -1 0 0 0 0 0 7 5 300 20 0 0": 12,
		"44 (other) S 43 42 42 0 -1 0 0 0 0 0 7 5 300 20 0 0":          0,
		"45 (gone": 0,
	} {
		if got := processTicks(line, 42); got != want {
			t.Errorf("processTicks(%q) = %d, want %d", line, got, want)
		}
	}
}

func TestWithParameter(t *testing.T) {
	for dsn, want := range map[string]string{
		"host=/tmp dbname=x":       "host=/tmp dbname=x a=b",
		"postgres://h/db":          "postgres://h/db?a=b",
		"postgresql://h/db?c=%2Fd": "postgresql://h/db?c=%2Fd&a=b",
	} {
		if got := withParameter(dsn, "a", "b"); got != want {
			t.Errorf("withParameter(%q) = %q, want %q", dsn, got, want)
		}
	}
}

func TestWhatAHeldSnapshotCost(t *testing.T) {
	held := slices.Repeat([]float64{90, 110}, 8) // 80 s
	held[3], held[14], held[15] = 50, 80, 80
	for _, c := range []struct {
		after    []float64
		recovery float64
	}{{[]float64{95}, 0}, {[]float64{10, 20, 90}, 10}, {[]float64{10, 89}, 3000}} {
		got := snapshotSample(100, held, c.after)
		want := map[string]float64{
			"before": 100, "end": 85, "kept": 0.85, "recovery": c.recovery, "after 000 s": c.after[0],
			"minute 01": 95, "minute 01, least": 50, "minute 02": 90, "minute 02, least": 80,
		}
		for name, v := range want {
			if got[name] != v {
				t.Errorf("%s is %v, want %v", name, got[name], v)
			}
		}
	}
}
