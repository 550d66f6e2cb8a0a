package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

// payloads returns the payloads of the ready messages, in order.
func (s *shell) payloads(queue string) string {
	s.Helper()
	found, err := s.store.Messages(s.Context(), pgqrs.MessageFilter{Queue: queue, State: pgqrs.Ready, Limit: 1000})
	s.check(err)
	var list []string
	for _, m := range found {
		list = append(list, compacted(m.Raw))
	}
	return strings.Join(list, " ")
}

func TestEnqueue(t *testing.T) {
	onEach(t, func(s *shell) {
		for _, test := range []struct {
			stdin string
			args  []string
			code  int
			out   string
		}{
			{"", []string{`{"a": [1]}`}, exitDone, "1\n"},
			{`{"b": 2}` + "\n", nil, exitDone, "2\n"},
			{"two\nlines\n", []string{"-text"}, exitDone, "3\n"},
			{"", []string{"-text", `"`, "-json"}, exitDone, "{\"id\":4}\n"},
			{"", []string{"no JSON"}, exitUsage, ""},
			{"", nil, exitUsage, ""},
			{"", []string{"1", "-unique"}, exitUsage, ""},
			{"", []string{"1", "-priority", "3"}, exitUsage, ""},
			{"", []string{"1", "-file", "-"}, exitUsage, ""},
			{"", []string{"1", "2"}, exitUsage, ""},
			{"", []string{"-file", "no-such-file"}, exitFailed, ""},
		} {
			o := s.do(test.stdin, append([]string{"enqueue", "jobs"}, test.args...)...)
			if o.code != test.code || o.out != test.out {
				s.Errorf("enqueue %q exits with %d, want %d, and prints %q, want %q: %s", test.args, o.code, test.code, o.out, test.out, o.err)
			}
		}
		if got, want := s.payloads("jobs"), `{"a":[1]} {"b":2} "two\nlines\n" "\""`; got != want {
			s.Errorf("the queue has %s, want %s", got, want)
		}
	})
}

func TestEnqueueAFile(t *testing.T) {
	onEach(t, func(s *shell) {
		var lines, want []string
		for i := range 2*batchMessages + 10 {
			lines = append(lines, strconv.Itoa(i))
			want = append(want, strconv.Itoa(i))
		}
		lines[3] += "\r"
		lines = append(lines, "", "  ")
		file := filepath.Join(s.TempDir(), "messages.jsonl")
		s.check(os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600))
		o := s.with(&app{progress: true}, "", "enqueue", "jobs", "-file", file)
		if o.code != exitDone || o.out != "1010 messages enqueued.\n" || !strings.Contains(o.err, "[####") ||
			!strings.HasSuffix(o.err, "\r\x1b[KThere was no queue \"jobs\"; it has been made.\n") {
			s.Errorf("exit code %d, %q, %q", o.code, o.out, o.err)
		}
		if got := s.payloads("jobs"); got != strings.Join(want[:1000], " ") {
			s.Errorf("the queue has %.200s", got)
		}
	})
}

func TestEnqueueAFileWithABadLine(t *testing.T) {
	onEach(t, func(s *shell) {
		o := s.do("1\n2\n{\n4\n", "enqueue", "jobs", "-file", "-")
		if o.code != exitFailed || !strings.Contains(o.err, "line 3: ") || !strings.Contains(o.err, "stored before it: 2 messages") {
			s.Errorf("exit code %d: %s", o.code, o.err)
		}
		if got := s.payloads("jobs"); got != "1 2" {
			s.Errorf("the queue has %s, want what stands before the bad line", got)
		}
		if o := s.do("x y\n{\n", "enqueue", "lines", "-file", "-", "-text", "-json"); o.code != exitDone || o.out != "{\"enqueued\":2}\n" || s.payloads("lines") != `"x y" "{"` {
			s.Errorf("exit code %d, %q: %s", o.code, o.out, o.err)
		}
	})
}

func TestAFileThatWasListedCanBeEnqueuedAgain(t *testing.T) {
	s := newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))
	s.enqueue("jobs", `{"a":1}`, `"x"`)
	if o := s.do(s.do("", "messages", "list", "jobs", "-json").out, "enqueue", "again", "-file", "-"); o.code != exitDone {
		t.Fatal(o.err)
	}
	if got := s.payloads("again"); !strings.Contains(got, `"payload":{"a":1}`) {
		t.Errorf("the queue has %s", got)
	}
}

func TestProgressBar(t *testing.T) {
	if got := (&bar{size: 200}).text(50, 3); got != "[##########------------------------------]  25%  3 messages" {
		t.Errorf("the bar is %s", got)
	}
	if got := (&bar{}).text(50, 1); got != "1 message" {
		t.Errorf("the bar of an input without an end is %s", got)
	}
}
