//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

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
	if o := s.do("", "workers", "shutdown", s.awaitState("polling"), "-yes"); o.code != exitDone {
		t.Fatal(o.err)
	}
	if o := <-ended; o.code != exitDone {
		t.Errorf("work exits with %d: %s", o.code, o.err)
	}
}

// onFile returns a shell on a SQLite file.
func onFile(t *testing.T) *shell {
	t.Helper()
	return newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))
}

func TestACommandDoesNotHaveTheDatabase(t *testing.T) {
	s := onFile(t)
	for _, name := range []string{"PGQRS_DSN", "PGQRS_TOKEN", "PGQRS_KEY", "PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE", "PGSSLKEY", "pgpassword"} {
		t.Setenv(name, "hunter2 of "+name)
	}
	t.Setenv("DATABASE_URL", s.dsn)
	t.Setenv("HARMLESS", "kept")
	for _, flag := range []string{"-drain", "-envelope"} {
		s.enqueue("jobs", `1`)
		if o := s.do("", "work", "-drain", flag, "jobs", "env"); o.code != exitDone || strings.Contains(o.out, "hunter2") || strings.Contains(o.out, s.dsn) || !strings.Contains(o.out, "HARMLESS=kept") {
			t.Errorf("with %s the command has\n%s%s", flag, o.out, o.err)
		}
	}
	s.enqueue("jobs", `1`)
	o := s.do("", "work", "-drain", "-pass-dsn", "jobs", "env")
	if !strings.Contains(o.out, "PGQRS_DSN="+s.dsn+"\n") || !strings.Contains(o.out, "PGPASSWORD=hunter2 of PGPASSWORD\n") || !strings.Contains(o.out, "DATABASE_URL="+s.dsn+"\n") {
		t.Errorf("with -pass-dsn the command has\n%s%s", o.out, o.err)
	}
}

func TestACommandHasNoVariableWithTheDSN(t *testing.T) {
	const long = "postgres://ada:hunter2%2Fhunter2@db.example/shop"
	const short = "postgres://ada:hunter2@db.example/shop"
	const name = "postgres://postgres:postgres@db.example/shop"
	const key = "turso:/srv/q.db?encryption_cipher=aes256gcm&encryption_key=00112233445566"
	for _, c := range []struct {
		dsn, entry string
		kept       bool
	}{
		{long, "DATABASE_URL=" + long, false},
		{long, "A=see " + long + ".", false},
		{long, "A=postgresql://ada:hunter2%2fhunter2@elsewhere/", false},
		{long, "A=host=elsewhere password=hunter2/hunter2", false},
		{long, "DATABASE_PASSWORD=hunter2/hunter2", false},
		{long, `A={"secret":"hunter2/hunter2"}`, false},
		{long, "A=hunter2%2Fhunter2", false},
		{long, "A=postgres://ada@db.example/shop", true},
		{long, "A=hunter2", true},
		{short, "DATABASE_PASSWORD=hunter2", false},
		{short, "A=postgresql://bob:hunter2@elsewhere/", false},
		{short, "A=host=elsewhere password=hunter2 user=bob", false},
		{short, "CDPATH=/home/hunter2/bin", true},
		{name, "CDPATH=/usr/lib/postgres/bin", true},
		{name, "A=postgres", false},
		{"postgres://ada@db.example/shop?password=hunter2-hunter2", "A=hunter2-hunter2!", false},
		{key, "TURSO_KEY=00112233445566", false},
		{key, "A=/srv/q.db", true},
		{"sqlite:q.db", "DATABASE_URL=sqlite:q.db", false},
		{"sqlite:q.db", "A=q.db", true},
		{"sqlite:q.db", "A=", true},
		{"postgres://ada:@db.example/shop", "A=", true},
		{long, "PATH=/opt/hunter2/hunter2/bin", true},
		{long, "Path=/opt/hunter2/hunter2/bin", true},
		{long, "HOME=/home/hunter2/hunter2", true},
		{short, "HOME=hunter2", true},
		{long, "CDPATH=/opt/hunter2/hunter2", false},
	} {
		if got, _ := withoutSecrets([]string{c.entry}, c.dsn); len(got) == 1 != c.kept {
			t.Errorf("with the DSN %s the command has %q of %q", c.dsn, got, c.entry)
		}
	}
}

// A command without PATH finds no program. It keeps PATH, and the worker warns once.
func TestACommandKeepsItsPathAndTheWorkerWarns(t *testing.T) {
	s := onFile(t)
	s.enqueue("q", `1`, `2`)
	const password = "hunter2-hunter2"
	t.Setenv("PGPASSWORD", password)
	t.Setenv("COPY", password)
	t.Setenv("HOME", t.TempDir())
	path := os.Getenv("PATH") + string(os.PathListSeparator) + "/opt/" + password
	t.Setenv("PATH", path)
	o := s.do("", "work", "-drain", "q", `echo "$PATH,$HOME,$COPY,$PGPASSWORD"`)
	if want := path + "," + os.Getenv("HOME") + ",,\n"; o.code != exitDone || o.out != want+want {
		t.Errorf("exit code %d; the commands print %q, want %q twice", o.code, o.out, want)
	}
	if strings.Count(o.err, "PATH contains") != 1 || strings.Contains(o.err, "HOME") || strings.Contains(o.err, password) {
		t.Errorf("it says: %s", o.err)
	}
}

func TestCopiesOfPGPASSWORDAreSecret(t *testing.T) {
	got, _ := withoutSecrets([]string{
		"PGPASSWORD=hunter2/hunter2", "DATABASE_URL=postgres://ada:hunter2%2Fhunter2@db.example/shop", "DB_PASSWORD=hunter2/hunter2", "HOME=/home/ada",
	}, "postgres://ada@db.example/shop")
	if !slices.Equal(got, []string{"HOME=/home/ada"}) {
		t.Errorf("the command has %q", got)
	}
}

func TestTheExampleOfWorkIsSafeWithAnyPayload(t *testing.T) {
	s := onFile(t)
	t.Chdir(t.TempDir())
	self, err := os.Executable()
	s.check(err)
	s.check(os.WriteFile("jq", []byte("#!/bin/sh\nAS_JQ=1 exec '"+self+"' \"$@\"\n"), 0o700))
	s.check(os.WriteFile("send", []byte("#!/bin/sh\nprintf '<%s>' \"$@\"\necho\n"), 0o700))
	t.Setenv("PATH", ".:"+os.Getenv("PATH"))
	var want strings.Builder
	for _, to := range []string{"a@b.example", "--help", "-o x", "two words", "a\nb", "a\n--all", `"; touch broken; "`, "'; touch broken; '", "$(touch broken)", "`touch broken`", "*"} {
		payload, err := json.Marshal(map[string]string{"to": to})
		s.check(err)
		s.enqueue("emails", string(payload))
		fmt.Fprintf(&want, "<--><%s>\n", to)
	}
	example := strings.TrimSuffix(strings.SplitN(workExample, "'", 2)[1], "'")
	o := s.do("", "work", "-drain", "emails", example)
	if _, err := os.Stat("broken"); o.code != exitDone || o.out != want.String() || err == nil {
		t.Errorf("exit code %d, send was called with\n%swant\n%s%s", o.code, o.out, want.String(), o.err)
	}
}

func TestWhatACommandLeavesInTheBackgroundIsNoFailure(t *testing.T) {
	t.Parallel()
	s := onFile(t)
	hold := filepath.Join(t.TempDir(), "hold")
	s.check(os.WriteFile(hold, nil, 0o600))
	s.enqueue("jobs", `0`, `65`)
	o := s.do("", "work", "-drain", "-concurrency", "2", "jobs", "(while [ -e "+hold+" ]; do sleep 0.1; done) & read code; exit $code")
	if m := s.message(1); o.code != exitDone || m.State != pgqrs.Archived {
		t.Errorf("exit code %d, and the message is %s: %s", o.code, m.State, m.LastError)
	}
	if m := s.message(2); m.State != pgqrs.Dead || !strings.Contains(m.LastError, "exit status 65") {
		t.Errorf("the message whose command fails is %s: %s", m.State, m.LastError)
	}
}

func TestWhatACommandHasStartedEndsWithIt(t *testing.T) {
	t.Parallel()
	endsWithItsCommand(t, func(held string) string {
		return "(trap '' TERM; while :; do sleep 0.01; done) >" + held + " 2>/dev/null & wait"
	})
}

// endsWithItsCommand runs a command that exceeds its timeout. It fails the test if a process that
// holds a file open outlives the command.
func endsWithItsCommand(t *testing.T, text func(held string) string) {
	t.Helper()
	s := onFile(t)
	s.enqueue("jobs", `1`)
	held := filepath.Join(t.TempDir(), "held")
	s.check(syscall.Mkfifo(held, 0o600))
	ended := make(chan error, 1)
	go func() {
		f, err := os.Open(held)
		if err == nil {
			_, err = io.Copy(io.Discard, f)
		}
		ended <- err
	}()
	s.do("", "work", "-drain", "-timeout", "1s", "-attempts", "1", "jobs", text(held))
	if m := s.message(1); m.State != pgqrs.Dead || !strings.Contains(m.LastError, "timeout") {
		t.Errorf("the message is %s: %s", m.State, m.LastError)
	}
	select {
	case err := <-ended:
		s.check(err)
	case <-time.After(time.Minute):
		t.Error("a child that ignores SIGTERM lives on")
	}
}

func TestAnEnvironmentThatIsTooLongIsTheMessagesError(t *testing.T) {
	m := &pgqrs.Message[json.RawMessage]{Payload: json.RawMessage(`{"a":1}`)}
	m.ID, m.Queue, m.Key = 7, "jobs", "k"
	m.Headers = map[string]string{"h": strings.Repeat("x", 4<<20)}
	var out, complaints strings.Builder
	c := command{args: []string{"cat; env | grep -c ^PGQRS_"}, env: os.Environ(), stdout: &out, stderr: &complaints}
	c.env = slices.DeleteFunc(c.env, func(entry string) bool { return strings.HasPrefix(entry, "PGQRS_") })
	if err := c.run(t.Context(), m); err == nil || !strings.Contains(err.Error(), "work -envelope has the command read them from standard input") {
		t.Errorf("the error is %v", err)
	}
	c.envelope, c.args = true, []string{"cat; ! env | grep ^PGQRS_"}
	if err := c.run(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	var got envelope
	err := json.Unmarshal([]byte(out.String()), &got)
	if err != nil || got.ID != 7 || got.Queue != "jobs" || got.Key != "k" || got.Headers["h"] != m.Headers["h"] || string(got.Payload) != `{"a":1}` {
		t.Errorf("standard input begins %.100q, %v", out.String(), err)
	}
}

// Flags and files may name a database. A DSN with a password must not be on a command line.
func TestThePasswordOfADSN(t *testing.T) {
	s := onFile(t)
	file := filepath.Join(t.TempDir(), "dsn")
	s.check(os.WriteFile(file, []byte(s.dsn+"\n"), 0o600))
	t.Setenv("PGQRS_DSN", "")
	const refused = "postgres://ada:hunter2@127.0.0.1:1/db?connect_timeout=1"
	for _, c := range []struct {
		args  []string
		env   string
		code  int
		warns bool
	}{
		{[]string{"-dsn-file", file}, "", exitDone, false},
		{[]string{"-dsn-file", file}, refused, exitDone, false},
		{[]string{"-dsn-file", file + "x"}, s.dsn, exitFailed, false},
		{[]string{"-dsn-file", os.DevNull}, s.dsn, exitFailed, false},
		{[]string{"-dsn-file", file, "-dsn", s.dsn}, "", exitUsage, false},
		{[]string{"-dsn", ""}, s.dsn, exitUsage, false},
		{[]string{"-dsn", s.dsn}, "", exitDone, false},
		{[]string{"-dsn", refused}, s.dsn, exitFailed, true},
		{[]string{"-dsn", "postgres://ada@127.0.0.1:1/db?connect_timeout=1&password=hunter2"}, "", exitFailed, true},
		{[]string{"-dsn", "postgres://ada@127.0.0.1:1/db?connect_timeout=1"}, "", exitFailed, false},
		{[]string{"-dsn", "sqlite:" + file + "?encryption_key=hunter2"}, "", exitFailed, true},
		{[]string{"-dsn", "sqlite:" + file + "?encryptionkey=hunter2"}, "", exitFailed, true},
		{[]string{"-dsn", "sqlite:" + file + ";key=hunter2"}, "", exitFailed, true},
		{[]string{"-dsn", "postgres://ada@127.0.0.1:1/db?connect_timeout=1&passfile=/none"}, "", exitFailed, false},
		{nil, refused, exitFailed, false},
		{nil, s.dsn, exitDone, false},
		{nil, "", exitUsage, false},
	} {
		t.Setenv("PGQRS_DSN", c.env)
		var out, complaints strings.Builder
		a := &app{in: strings.NewReader(""), out: &out, err: &complaints}
		code := a.run(t.Context(), append(append([]string{"pgqrs"}, c.args...), "queues"))
		if code != c.code || strings.Contains(complaints.String(), "-dsn has a password") != c.warns || strings.Contains(complaints.String(), "hunter2") {
			t.Errorf("%q with PGQRS_DSN=%q exits with %d, want %d:\n%s", c.args, c.env, code, c.code, complaints.String())
		}
	}
}

func TestADSNFileThatOthersCanRead(t *testing.T) {
	s := onFile(t)
	t.Setenv("PGQRS_DSN", "")
	file := filepath.Join(t.TempDir(), "dsn")
	s.check(os.WriteFile(file, []byte(s.dsn), 0o600))
	for mode, warns := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true, 0o644: true} {
		s.check(os.Chmod(file, mode))
		var out, complaints strings.Builder
		a := &app{in: strings.NewReader(""), out: &out, err: &complaints}
		code := a.run(t.Context(), []string{"pgqrs", "-dsn-file", file, "queues"})
		if got := strings.Contains(complaints.String(), "other users can read the -dsn-file"); code != exitDone || got != warns {
			t.Errorf("with mode %o it exits with %d:\n%s", mode, code, complaints.String())
		}
	}
}
