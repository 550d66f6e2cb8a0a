package pgqrs

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// A ruleFunc is a function as a Rule.
type ruleFunc func(time.Time) time.Time

func (f ruleFunc) Next(t time.Time) time.Time { return f(t) }

// merged returns a rule with the instants of all rules.
func merged(rules ...Rule) Rule {
	return ruleFunc(func(t time.Time) (next time.Time) {
		for _, r := range rules {
			if at := r.Next(t); next.IsZero() || !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		return next
	})
}

// window returns a rule with the instants of r after from, up to to.
func window(from, to time.Time, r Rule) Rule {
	return ruleFunc(func(t time.Time) time.Time {
		if t.Before(from) {
			t = from
		}
		if at := r.Next(t); !at.After(to) {
			return at
		}
		return time.Time{}
	})
}

// walked returns the instants from first up to now, and the next one. It finds them by walking
// through all instants.
func walked(s *Schedule, first, now time.Time) (past []time.Time, next time.Time) {
	for next = first; !next.IsZero() && !next.After(now); {
		past = append(past, next)
		next, _ = s.after(next)
	}
	return past, next
}

// toRun returns the past instants that CatchUp runs.
func toRun(past []time.Time, now time.Time, catchUp int) []time.Time {
	due := past[max(0, len(past)-max(1, catchUp)):]
	if catchUp < 0 && len(due) > 0 && now.Sub(due[0]) > missedAfter {
		return nil
	}
	return due
}

// The latest instants are the same as those of a walk from the first instant. They are found by few
// calls of the rule, however many instants there are.
func TestTheLatestInstantsAreFoundWithoutAWalk(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 123e6, time.UTC)
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	counting := func(d time.Duration) Rule { return ruleFunc(func(t time.Time) time.Time { return t.Add(d) }) }
	monthly := ruleFunc(func(t time.Time) time.Time {
		return time.Date(t.Year(), t.Month()+1, 1, 2, 30, 0, 0, t.Location())
	})
	for _, c := range []struct {
		name string
		rule Rule
		ago  time.Duration // age of the first instant, if the rule has it
	}{
		{"each second, for a day", Every(time.Second), 24 * time.Hour},
		{"few", Every(time.Hour), 72 * time.Hour},
		{"none but the first", Every(10000 * time.Hour), time.Hour},
		{"between milliseconds", everyRule(1500500 * time.Microsecond), 6 * time.Hour},
		{"twice a millisecond", everyRule(500 * time.Microsecond), 20 * time.Second},
		{"counting from its argument", counting(7 * time.Second), 48 * time.Hour},
		{"counting in odd steps", counting(7*time.Second + 1234567), 48 * time.Hour},
		{"each month, by the clock of a zone", monthly, 280 * 365 * 24 * time.Hour},
		{"many, then one an hour", merged(window(time.Time{}, now.Add(-24*time.Hour), Every(10*time.Second)), Every(time.Hour)), 96 * time.Hour},
		{"many, then nothing until tomorrow", merged(window(time.Time{}, now.Add(-24*time.Hour), Every(10*time.Second)), window(now, now.Add(24*time.Hour), Every(time.Hour))), 96 * time.Hour},
		{"many, then never again", window(time.Time{}, now.Add(-24*time.Hour), Every(10*time.Second)), 96 * time.Hour},
		{"one an hour, then many", merged(Every(time.Hour), window(now.Add(-3*time.Hour), now.Add(time.Hour), Every(time.Second))), 96 * time.Hour},
		{"many at once, long ago", merged(window(now.Add(-90*time.Hour), now.Add(-90*time.Hour).Add(20*time.Second), everyRule(time.Millisecond)), Every(48*time.Hour)), 96 * time.Hour},
		{"many in each hour, and nothing between", ruleFunc(func(t time.Time) time.Time {
			if hour := t.Truncate(time.Hour); t.Sub(hour) >= 3*time.Second {
				return hour.Add(time.Hour)
			}
			return everyRule(time.Millisecond).Next(t)
		}), 12 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := 0
			s := &Schedule{Zone: berlin, Rule: ruleFunc(func(t time.Time) time.Time {
				calls++
				return c.rule.Next(t)
			})}
			first, err := s.after(now.Add(-c.ago))
			if err != nil {
				t.Fatal(err)
			}
			past, wantNext := walked(s, first, now)
			for _, s.CatchUp = range []int{-1, 0, 1, 2, 50, 999, 1000} {
				calls = 0
				due, next, err := s.due(t.Context(), first, now)
				if err != nil {
					t.Fatal(err)
				}
				if want := toRun(past, now, s.CatchUp); !slices.EqualFunc(due, want, time.Time.Equal) {
					t.Errorf("CatchUp %d: %d instants of %d; want %d", s.CatchUp, len(due), len(past), len(want))
				}
				if !next.Equal(wantNext) {
					t.Errorf("CatchUp %d: next is %v; want %v", s.CatchUp, next, wantNext)
				}
				if calls > 30_000 {
					t.Errorf("CatchUp %d: the rule was asked %d times", s.CatchUp, calls)
				}
			}
		})
	}
}

// A search for the latest instants ends with its ctx, because the rule may be slow.
func TestTheSearchForTheLatestInstantsEndsWithItsContext(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	s := &Schedule{Rule: ruleFunc(func(t time.Time) time.Time {
		if calls++; calls == 10 {
			cancel()
		}
		return t.Add(time.Second)
	})}
	if _, _, err := s.due(ctx, now.Add(-time.Hour), now); !errors.Is(err, context.Canceled) || calls != 10 {
		t.Errorf("it ended after %d calls with the error %v", calls, err)
	}
}
