package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

var selectCases = []testcase{
	{"Select takes the oldest of several signals, and leaves the others to later waits", "a rejection that came first would be taken for an approval, or an approval be lost", selectOldest},
	{"a signal of any case wakes a run at its Select", "a run that waits for a yes or a no would hang when the no comes", selectWakes},
	{"when the time of After is over Select takes its case, and leaves a late signal to the next wait", "a run would wait for ever, or a late approval be lost", selectAfter},
	{"a replay of Select returns the same case and value, whatever has come since", "a replayed run would take another turn than the first time", selectReplay},
	{"a Select whose record does not fit its cases is an error, the same on every replay", "a run whose code has changed would take a case that nobody wrote", selectMisfit},
	{"Select refuses cases that cannot be told apart, and its record is no other step's", "a mistake would show a week later", selectRefused},
	{"a run that is cancelled leaves its Select", "a cancelled run would wait on for days", selectCancelled},
	{"an execution that has lost its lease takes no signal for a Select", "the signal would be lost, and the run wait for ever", selectStale},
}

// selecting returns a function that waits for an approval or a rejection, and then for all that is
// left.
func selecting(timeout time.Duration) func(context.Context, *pgqrs.Run, int) (string, error) {
	return func(ctx context.Context, run *pgqrs.Run, n int) (string, error) {
		var got []string
		for i := range n {
			var yes, no string
			cases := []pgqrs.Case{approved.Case(&yes), rejected.Case(&no)}
			if timeout != 0 {
				cases = append(cases, pgqrs.After(2*timeout), pgqrs.After(timeout))
			}
			at, err := run.Select(ctx, fmt.Sprint("answer ", i), cases...)
			if err != nil {
				return "", err
			}
			got = append(got, fmt.Sprint(at, ":", yes, no))
		}
		return strings.Join(got, " "), nil
	}
}

func newSelecting(s *pgqrs.Store) *pgqrs.Workflow[int, string] {
	return pgqrs.NewWorkflow[int, string](s, "answers")
}

func selectOldest(t *testing.T, e *env) {
	w := newSelecting(e.store)
	run := launch(t, w, 3)
	must(t, rejected.Send(t.Context(), e.store, run.ID(), "Ann"))
	must(t, approved.Send(t.Context(), e.store, run.ID(), "Ben"))
	must(t, rejected.Send(t.Context(), e.store, run.ID(), "Cid"))
	start(t, fast(w.Handle(selecting(0))))
	equal(t, "what it took", finished(t, run), "1:Ann 0:Ben 1:Cid")
}

func selectWakes(t *testing.T, e *env) {
	w := newSelecting(e.store)
	start(t, fast(w.Handle(selecting(0))))
	run := launch(t, w, 2)
	asleep(t, e, run, "answer 0")
	must(t, rejected.Send(t.Context(), e.store, run.ID(), "Ann"))
	asleep(t, e, run, "answer 1")
	must(t, approved.Send(t.Context(), e.store, run.ID(), "Ben"))
	equal(t, "what it took", finished(t, run), "1:Ann 0:Ben")
}

func selectAfter(t *testing.T, e *env) {
	w := newSelecting(e.store)
	h := w.Handle(selecting(time.Hour))
	stop := start(t, fast(h))
	run := launch(t, w, 2)
	asleep(t, e, run, "answer 0")
	stillWaits(t, e.step(t, run.ID(), "answer 0"), time.Hour)
	must(t, stop())
	pgqrstest.Advance(t, e.store, time.Hour)
	stop = start(t, fast(h))
	asleep(t, e, run, "answer 1")
	must(t, stop())
	sameJSON(t, e.step(t, run.ID(), "answer 0").Output, `{"case": 3}`)
	must(t, approved.Send(t.Context(), e.store, run.ID(), "Ann"))
	start(t, fast(h))
	equal(t, "what it took", finished(t, run), "3: 0:Ann")
}

func selectReplay(t *testing.T, e *env) {
	w := newSelecting(e.store)
	var calls tally[string]
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		out, err := selecting(time.Hour)(ctx, run, 1)
		if err != nil {
			return "", err
		}
		calls.add(out)
		return out, run.Sleep(ctx, "nap", 20*time.Millisecond)
	})))
	run := launch(t, w, 1)
	asleep(t, e, run, "answer 0")
	must(t, rejected.Send(t.Context(), e.store, run.ID(), "Ann"))
	must(t, approved.Send(t.Context(), e.store, run.ID(), "Ben"))
	equal(t, "result", finished(t, run), "1:Ann")
	equalSlices(t, "what executions took", slices.Compact(calls.all()), []string{"1:Ann"})
	if calls.len() < 2 {
		t.Error("nothing was replayed")
	}
	sameJSON(t, e.step(t, run.ID(), "answer 0").Output, `{"case": 1, "value": "Ann"}`)
}

func selectMisfit(t *testing.T, e *env) {
	w := newSelecting(e.store)
	run := launch(t, w, 1)
	must(t, rejected.Send(t.Context(), e.store, run.ID(), "Ann"))
	var calls tally[string]
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (string, error) {
		cases := []pgqrs.Case{approved.Case(nil), rejected.Case(nil)}
		if calls.len() > 0 {
			cases = cases[:1]
		}
		_, err := run.Select(ctx, "answer", cases...)
		calls.add(fmt.Sprint(errors.Is(err, pgqrs.ErrState)))
		if calls.len() == 1 {
			return "", run.Sleep(ctx, "nap", 20*time.Millisecond)
		}
		var number int
		_, err = run.Select(ctx, "number", pgqrs.Signal[int]("approved").Case(&number))
		calls.add(fmt.Sprint(errors.Is(err, pgqrs.ErrInvalidPayload)))
		return "", nil
	})))
	must(t, approved.Send(t.Context(), e.store, run.ID(), "no number"))
	finished(t, run)
	equalSlices(t, "errors", calls.all(), []string{"false", "true", "true"})
}

func selectRefused(t *testing.T, e *env) {
	w := newSelecting(e.store)
	start(t, fast(w.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (string, error) {
		if n == 1 {
			must(t, run.Do(ctx, "step", func(context.Context) error { return nil }))
			_, err := run.Select(ctx, "step", pgqrs.After(0))
			return "", err
		}
		_, none := run.Select(ctx, "none")
		_, twice := run.Select(ctx, "twice", approved.Case(nil), approved.Case(nil))
		_, unnamed := run.Select(ctx, "unnamed", pgqrs.Case{})
		return fmt.Sprint(none, "; ", twice, "; ", unnamed), nil
	})))
	_, err := launch(t, w, 1).Result(patience(t))
	wantErrorText(t, err, "step")
	texts := finished(t, launch(t, w, 2))
	for _, want := range []string{"there are no cases", `case 1: the signal "approved" is in another case too`, "case 0: empty signal name"} {
		if !strings.Contains(texts, want) {
			t.Errorf("the errors are %s; want %s among them", texts, want)
		}
	}
}

func selectCancelled(t *testing.T, e *env) {
	w := newSelecting(e.store)
	start(t, fast(w.Handle(selecting(time.Hour))))
	run := launch(t, w, 1)
	asleep(t, e, run, "answer 0")
	must(t, run.Cancel(t.Context()))
	e.awaitRun(t, run.ID(), pgqrs.Cancelled)
}

func selectStale(t *testing.T, e *env) {
	h := stale(t, e, true, func(ctx context.Context, s *pgqrs.Store, run *pgqrs.Run) (string, error) {
		if err := approved.Send(context.WithoutCancel(t.Context()), s, run.ID(), "yes"); err != nil {
			return "", err
		}
		var by string
		_, err := run.Select(ctx, "answer", rejected.Case(nil), approved.Case(&by))
		return by, err
	})
	equal(t, "result", finished(t, h), "yes")
}
