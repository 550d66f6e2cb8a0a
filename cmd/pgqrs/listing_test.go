package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// object returns the single line of JSON that a command prints.
func (s *shell) object(args ...string) map[string]any {
	s.Helper()
	o := s.do("", append(args, "-json")...)
	var object map[string]any
	if err := json.Unmarshal([]byte(o.out), &object); err != nil || o.code != exitDone {
		s.Fatalf("%q: exit code %d, %v: %.200s%s", args, o.code, err, o.out, o.err)
	}
	return object
}

// A listing cuts large texts and marks them as cut. An object that is named is printed whole.
func TestJSONSaysWhatItCuts(t *testing.T) {
	onEach(t, func(s *shell) {
		large := strings.Repeat("x", 4*pgqrs.ListedBytes)
		payload, err := json.Marshal(large)
		s.check(err)
		s.enqueue("letters", string(payload))
		copying := pgqrs.NewWorkflow[string, string](s.store, "copying")
		worker := &pgqrs.Worker{
			Handlers: []pgqrs.Handler{copying.Handle(func(ctx context.Context, r *pgqrs.Run, in string) (string, error) {
				return pgqrs.Step(ctx, r, "copy", func(context.Context) (string, error) { return in, nil })
			})},
			Schedules: []pgqrs.Schedule{
				{Name: "daily", Rule: pgqrs.Every(24 * 365 * time.Hour), Target: s.queue("letters").Target(payload, pgqrs.Group("g"))},
				{Name: "other", Rule: pgqrs.Every(24 * 365 * time.Hour), Target: s.queue("letters").Target(json.RawMessage("1"))},
			},
		}
		run, err := copying.Start(s.Context(), large)
		s.check(err)
		ctx, stop := context.WithCancel(s.Context())
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- worker.Run(ctx) }()
		_, err = run.Result(s.Context())
		s.check(err)
		s.until("the schedules are there", func() bool {
			list, err := s.store.Schedules(s.Context())
			s.check(err)
			return len(list) == 2
		})
		stop()
		s.check(<-ended)
		id := fmt.Sprint(run.ID())
		for _, c := range []struct {
			fields      string
			list, whole []string
		}{
			{"payload", []string{"messages", "list", "letters"}, []string{"messages", "show", "1"}},
			{"payload", []string{"schedules", "list", "-limit", "1"}, []string{"schedules", "list", "daily"}},
			{"input output", []string{"runs", "list"}, []string{"runs", "show", id}},
		} {
			listed, whole := s.object(c.list...), s.object(c.whole...)
			if listed["cut"] != true || whole["cut"] != nil {
				s.Errorf("%q has cut: %v, and %q has %v", c.list, listed["cut"], c.whole, whole["cut"])
			}
			for field := range strings.FieldsSeq(c.fields) {
				text, _ := json.Marshal(whole[field])
				cut, _ := listed[field].(string)
				size, _ := listed[field+"_size"].(float64)
				if len(text) < len(large) || len(cut) < 1000 || len(cut) > pgqrs.ListedBytes || int(size) < len(large) || whole[field+"_size"] != nil {
					s.Errorf("%q has %d bytes of the %s, of %v; %q has %d, of %v", c.list, len(cut), field, size, c.whole, len(text), whole[field+"_size"])
				}
			}
		}
		steps, _ := s.object("runs", "show", id)["steps"].([]any)
		if len(steps) != 1 || steps[0].(map[string]any)["cut"] != true || steps[0].(map[string]any)["output_size"].(float64) < float64(len(large)) {
			s.Errorf("the steps are %.200v", steps)
		}
		if got := s.object("schedules", "list", "daily")["group"]; got != "g" {
			s.Errorf("the group of the schedule is %v", got)
		}
	})
}

func TestQueuesAndSchedulesComeInPages(t *testing.T) {
	s := newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))
	var schedules []pgqrs.Schedule
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		s.enqueue(name, `1`)
		schedules = append(schedules, pgqrs.Schedule{Name: name, Rule: pgqrs.Every(24 * 365 * time.Hour), Target: s.queue(name).Target(json.RawMessage("1"))})
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- (&pgqrs.Worker{Schedules: schedules}).Run(ctx) }()
	s.until("the schedules are there", func() bool {
		list, err := s.store.Schedules(s.Context())
		s.check(err)
		return len(list) == len(schedules)
	})
	stop()
	s.check(<-ended)
	for _, what := range []string{"queues", "schedules list", "stats -over 0"} {
		for flags, want := range map[string]string{
			"": "abcde", "-limit 2": "ab", "-limit 2 -after b": "cd", "-limit 2 -after d": "e", "-after e": "", "-limit 2 -all": "abcde", "-limit 2 -all -after a": "bcde",
			"d b": "bd", "a b c -limit 2": "ab",
		} {
			if strings.HasPrefix(what, "stats") && flags != "" && flags[0] != '-' {
				continue // it takes no names
			}
			args := strings.Fields(what + " " + flags)
			var got strings.Builder
			for line := range strings.Lines(s.do("", append(args, "-json")...).out) {
				var named struct{ Name string }
				s.check(json.Unmarshal([]byte(line), &named))
				got.WriteString(named.Name)
			}
			more := strings.Contains(s.do("", args...).err, "There may be more: -after '"+want[max(0, len(want)-1):]+"'")
			if got.String() != want || more != (len(want) == 2 && flags != "d b") {
				t.Errorf("pgqrs %s %s lists %s, want %s; that there are more is %v", what, flags, got.String(), want, more)
			}
		}
		if o := s.do("", strings.Fields(what+" -after nowhere")...); o.code != exitNotFound {
			t.Errorf("pgqrs %s -after nowhere exits with %d: %s", what, o.code, o.err)
		}
	}
	if o := s.do("", "stats", "-over", "0", "-limit", "2"); !regexp.MustCompile(`(?m)^TOTAL +5 `).MatchString(o.out) {
		t.Errorf("the total of a page is not that of all queues:\n%s", o.out)
	}
}

func TestTheFlagOfTheNextPageIsOneWord(t *testing.T) {
	s := newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))
	s.enqueue("a'; touch broken; '", `1`)
	s.enqueue("b", `1`)
	if o := s.do("", "queues", "-limit", "1"); !strings.Contains(o.err, `-after 'a'\''; touch broken; '\'''`) {
		t.Errorf("it says: %s", o.err)
	}
}
