package measure

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	var ds []time.Duration
	for i := range 100 {
		ds = append(ds, time.Duration(i+1))
	}
	for _, c := range []struct {
		ds   []time.Duration
		p    float64
		want time.Duration
	}{{nil, 0.5, 0}, {ds[:1], 0.99, 1}, {ds, 0.50, 50}, {ds, 0.99, 99}, {ds[:10], 0.99, 10}, {ds[:3], 0.5, 2}} {
		if got := percentile(c.ds, c.p); got != c.want {
			t.Errorf("percentile of %d at %v = %d, want %d", len(c.ds), c.p, got, c.want)
		}
	}
}

func TestLoopCountsEveryCall(t *testing.T) {
	var n atomic.Int64
	sample, calls, err := Loop(t.Context(), 3, 10, 5*time.Millisecond, func(context.Context, int) error {
		n.Add(1)
		return nil
	})
	if err != nil || int64(calls) != n.Load() {
		t.Fatalf("Loop says %d calls, %v; there were %d", calls, err, n.Load())
	}
	if sample[All] != float64(10*calls) || sample[Done] >= sample[All] || sample[Done] < 30 {
		t.Errorf("of %d calls with 10 items: %v", calls, sample)
	}
}

func TestLoopEndsWithAnError(t *testing.T) {
	bad := errors.New("bad")
	_, _, err := Loop(t.Context(), 2, 1, time.Hour, func(_ context.Context, g int) error { return bad })
	if !errors.Is(err, bad) {
		t.Errorf("Loop = %v, want %v", err, bad)
	}
}

func TestServe(t *testing.T) {
	request, err := json.Marshal(Request{Contestant: "x", Workload: "drain", Spec: Spec{Goroutines: 8}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	rounds, closed := 0, false
	open := func(_ context.Context, r Request) (*Session, []string, error) {
		if r.Contestant != "x" || r.Workload != "drain" || r.Spec.Goroutines != 8 {
			t.Errorf("request %+v", r)
		}
		return &Session{
			Round: func(context.Context) (Sample, error) {
				if rounds++; rounds == 2 {
					return nil, errors.New("lost one")
				}
				return Sample{Rate: 7}, nil
			},
			Close: func() error { closed = true; return nil },
		}, []string{"a=b"}, nil
	}
	if err := Serve(t.Context(), strings.NewReader(string(request)+"\n\"round\"\n\"round\"\n"), &out, open); err != nil {
		t.Fatal(err)
	}
	want := `{"Facts":["a=b"]}` + "\n" + `{"Sample":{"rate":7}}` + "\n" + `{"Error":"lost one"}` + "\n"
	if out.String() != want || !closed {
		t.Errorf("answered %s, want %s; closed: %v", &out, want, closed)
	}
}

func TestSharesAddUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cpu.pprof")
	ctx := WithMeter(t.Context(), Meter{Profile: file})
	var spent []time.Duration // of the profile, after each round
	for range 2 {
		_, err := Timed(ctx, func() (int, error) {
			for until := time.Now().Add(200 * time.Millisecond); time.Now().Before(until); {
				if _, err := json.Marshal(NewJob(1)); err != nil {
					return 0, err
				}
			}
			return 1, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		p, err := readProfile(file)
		if err != nil {
			t.Fatal(err)
		}
		spent = append(spent, time.Duration(p.DurationNanos))
	}
	if spent[1] < spent[0]+200*time.Millisecond {
		t.Errorf("the profile is of %v after one round, and of %v after two", spent[0], spent[1])
	}
	shares, err := Shares(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, share := range shares {
		sum += share
	}
	if sum < 0.999 || sum > 1.001 || shares["JSON"] == 0 {
		t.Errorf("shares of a loop that marshals: %v, in all %v", shares, sum)
	}
}
