package fuzz_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A replayer is a worker whose runs return their input as the result of a step, twice.
type replayer struct {
	store *pgqrs.Store
	runs  *pgqrs.Workflow[int, json.RawMessage]

	mu     sync.Mutex
	result json.RawMessage   // of the step
	seen   []json.RawMessage // by each execution
}

func newReplayer(f *testing.F, s *pgqrs.Store) *replayer {
	r := &replayer{store: s, runs: pgqrs.NewWorkflow[int, json.RawMessage](s, "results")}
	once := pgqrs.Policy{MaxAttempts: 1}
	handler := r.runs.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (json.RawMessage, error) {
		v, err := pgqrs.Step(ctx, run.With(once), "step", func(context.Context) (json.RawMessage, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.result, nil
		})
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		r.seen = append(r.seen, slices.Clone(v))
		r.mu.Unlock()
		return v, run.Sleep(ctx, "nap", time.Millisecond)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- (&pgqrs.Worker{Handlers: []pgqrs.Handler{handler}, PollInterval: 2 * time.Millisecond}).Run(ctx)
	}()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	return r
}

// replay runs a step with the result. It returns what all executions of the run see of the step and
// what the run returns, or nil if the result is refused.
func (r *replayer) replay(t *testing.T, result json.RawMessage) json.RawMessage {
	t.Helper()
	r.mu.Lock()
	r.result, r.seen = result, nil
	r.mu.Unlock()
	run, err := r.runs.Start(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	here, err := run.Result(t.Context())
	var failed *pgqrs.RunError
	if errors.As(err, &failed) {
		return nil
	}
	if err != nil {
		t.Fatalf("%s: %v", r.store.Dialect(), err)
	}
	recorded, err := r.runs.RunHandle(run.ID()).Result(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range append(r.seen, here, recorded) {
		if !bytes.Equal(v, r.seen[0]) {
			t.Errorf("%s: %q is %q at first, and then %q", r.store.Dialect(), result, r.seen[0], v)
		}
	}
	if len(r.seen) < 2 || !same(value(t, here), value(t, result)) {
		t.Errorf("%s: %q is %q, after %d executions", r.store.Dialect(), result, here, len(r.seen))
	}
	return here
}

// FuzzResult returns any bytes from a step. On every dialect, each execution of its run gets the
// same bytes, or the bytes are refused.
func FuzzResult(f *testing.F) {
	for _, payload := range payloadSeeds {
		f.Add([]byte(payload))
	}
	for _, text := range []string{`{"b":1,"a":1e2}`, `{"bb":-0.0,"a":{"z":[1.50,1E+2],"y":" \u003c\/\u00e9 "}}`, `{"é":1,"zz":2,"z":3}`, `100e-2`, `0.05e1`} {
		f.Add([]byte(text))
	}
	var all []*replayer
	for _, s := range stores(f) {
		all = append(all, newReplayer(f, s))
	}
	f.Fuzz(func(t *testing.T, result []byte) {
		first := all[0].replay(t, result)
		for _, r := range all[1:] {
			if got := r.replay(t, result); !bytes.Equal(got, first) {
				t.Errorf("%q is %q on %s and %q on %s", result, first, all[0].store.Dialect(), got, r.store.Dialect())
			}
		}
	})
}
