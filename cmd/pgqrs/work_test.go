//go:build unix

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

// message returns a message, which must exist.
func (s *shell) message(id int64) pgqrs.MessageInfo {
	s.Helper()
	found, err := s.store.Messages(s.Context(), pgqrs.MessageFilter{IDs: []int64{id}})
	s.check(err)
	if len(found) != 1 {
		s.Fatalf("there is no message %d", id)
	}
	return found[0]
}

func TestTheExitCodeOfACommandDecides(t *testing.T) {
	onEach(t, func(s *shell) {
		s.enqueue("jobs", `"0"`, `"65"`, `"75"`, `"1"`, `"kill"`)
		o := s.do("", "work", "-drain", "jobs", `read code; eval code=$code; echo "$PGQRS_ID $code"; printf 'no\000\377 luck\n' >&2; [ $code = kill ] && kill -9 $$; exit $code`)
		if o.code != exitDone || strings.Count(o.out, "\n") != 5 || !strings.Contains(o.out, "4 1\n") {
			s.Fatalf("exit code %d\n%s%s", o.code, o.out, o.err)
		}
		for id, want := range map[int64]pgqrs.MessageInfo{
			1: {State: pgqrs.Archived, Attempt: 1},
			2: {State: pgqrs.Dead, Attempt: 1, LastError: "exit status 65: no\uFFFD\uFFFD luck"},
			3: {State: pgqrs.Scheduled, Attempt: 0},
			4: {State: pgqrs.Scheduled, Attempt: 1, LastError: "exit status 1: no\uFFFD\uFFFD luck"},
			5: {State: pgqrs.Scheduled, Attempt: 1, LastError: "signal: killed: no\uFFFD\uFFFD luck"},
		} {
			if m := s.message(id); m.State != want.State || m.Attempt != want.Attempt || m.LastError != want.LastError {
				s.Errorf("message %d is %s after %d attempts: %q; want %s, %d, %q", id, m.State, m.Attempt, m.LastError, want.State, want.Attempt, want.LastError)
			}
		}
	})
}

func TestACommandHasItsMessage(t *testing.T) {
	onEach(t, func(s *shell) {
		s.do("", "enqueue", "jobs", `{"a": 1}`, "-key", "k", "-header", "h=v", "-priority", "2")
		o := s.do("", "work", "-drain", "-name", "w", "jobs", "sh", "-c", `cat; echo "$0 $1"; env | grep ^PGQRS_ | grep -v DSN | sort`, "zero", "-one")
		want := `{"a":1}zero -one
PGQRS_ATTEMPT=1
PGQRS_HEADERS={"h":"v"}
PGQRS_ID=1
PGQRS_KEY=k
PGQRS_PRIORITY=2
PGQRS_QUEUE=jobs
`
		if got := strings.Replace(o.out, `"a": 1`, `"a":1`, 1); got != want || o.code != exitDone {
			s.Errorf("exit code %d, the command prints\n%s%s", o.code, o.out, o.err)
		}
	})
}

func TestACommandNeedNotReadItsMessage(t *testing.T) {
	s := newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))
	s.enqueue("jobs", `"`+strings.Repeat("x", 1<<20-2)+`"`)
	if o := s.do("", "work", "-drain", "jobs", "true"); o.code != exitDone || s.message(1).State != pgqrs.Archived {
		t.Errorf("exit code %d, and the message is %s: %s", o.code, s.message(1).State, s.message(1).LastError)
	}
}

func TestACommandIsEndedAfterItsTimeout(t *testing.T) {
	s := newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))
	s.enqueue("jobs", `1`)
	told := filepath.Join(t.TempDir(), "told")
	child := "(trap 'touch " + told + "; exit' TERM; while :; do sleep 0.01; done) & wait"
	o := s.do("", "work", "-drain", "-timeout", "1s", "-attempts", "1", "jobs", child)
	if m := s.message(1); m.State != pgqrs.Dead || !strings.Contains(m.LastError, "timeout") {
		t.Errorf("the message is %s: %s\n%s", m.State, m.LastError, o.err)
	}
	s.until("what the command had started was told to end too", func() bool { _, err := os.Stat(told); return err == nil })
}

func TestAnInterruptLetsCommandsFinish(t *testing.T) {
	s := newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))
	s.enqueue("jobs", `1`)
	begun, goOn := filepath.Join(t.TempDir(), "begun"), filepath.Join(t.TempDir(), "go-on")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan int, 1)
	go func() {
		a := &app{in: strings.NewReader(""), out: new(strings.Builder), err: new(strings.Builder)}
		ended <- a.run(ctx, []string{"pgqrs", "-dsn", s.dsn, "work", "jobs", "touch " + begun + "; while ! [ -e " + goOn + " ]; do sleep 0.01; done"})
	}()
	s.until("the command runs", func() bool { _, err := os.Stat(begun); return err == nil })
	interrupt()
	s.check(os.WriteFile(goOn, nil, 0o600))
	if code := <-ended; code != exitDone || s.message(1).State != pgqrs.Archived {
		t.Errorf("exit code %d, and the message is %s", code, s.message(1).State)
	}
}

func TestWorkEndsWhenItsWorkerIsStopped(t *testing.T) {
	s := newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))
	ended := make(chan outcome, 1)
	go func() { ended <- s.do("", "work", "jobs", "true") }()
	if o := s.do("", "workers", "shutdown", s.status("polling"), "-yes"); o.code != exitDone {
		t.Fatal(o.err)
	}
	if o := <-ended; o.code != exitDone {
		t.Errorf("work exits with %d: %s", o.code, o.err)
	}
}
