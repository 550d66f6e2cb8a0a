package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	if os.Getenv("AS_JQ") != "" {
		os.Exit(asJQ())
	}
	if held := os.Getenv("AS_SESSION"); held != "" {
		os.Exit(asSession(held))
	}
	postgres.Main(m)
}

// asJQ makes this program the jq of a test, for the arguments: -er .to.
func asJQ() int {
	var payload struct{ To string }
	if err := json.NewDecoder(os.Stdin).Decode(&payload); err != nil {
		return 2
	}
	fmt.Println(payload.To)
	return 0
}

// A shell runs commands on a database of its own and keeps their output.
type shell struct {
	*testing.T
	dsn        string
	store      *pgqrs.Store
	transcript strings.Builder
}

// onEach runs a test on each database that is built in. The database is installed and empty.
func onEach(t *testing.T, test func(s *shell)) {
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db")))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		test(newShell(t, postgres.URL(postgres.Schema(t, "postgres"))))
	})
}

func newShell(t *testing.T, dsn string) *shell {
	t.Helper()
	store, err := pgqrs.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := store.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &shell{T: t, dsn: dsn, store: store}
}

// An outcome is the result of a command.
type outcome struct {
	out, err string
	code     int
}

// do runs a command without a terminal.
func (s *shell) do(stdin string, args ...string) outcome { return s.with(&app{}, stdin, args...) }

// with runs a command with the settings of an app.
func (s *shell) with(a *app, stdin string, args ...string) outcome {
	s.Helper()
	var out, err strings.Builder
	a.in, a.out, a.err = strings.NewReader(stdin), &out, &err
	code := a.run(s.Context(), append([]string{"pgqrs", "-dsn", s.dsn}, args...))
	return outcome{out.String(), err.String(), code}
}

// run runs commands and writes them into the transcript. Words are separated by spaces. The last
// word may be in quotes.
func (s *shell) run(lines ...string) {
	s.Helper()
	for _, line := range lines {
		words, quoted, found := strings.Cut(line, " '")
		args := strings.Fields(words)
		if found {
			args = append(args, strings.TrimSuffix(quoted, "'"))
		}
		o := s.do("", args...)
		fmt.Fprintf(&s.transcript, "$ pgqrs %s\n%s", line, o.out)
		for _, note := range strings.SplitAfter(o.err, "\n") {
			if note != "" {
				fmt.Fprintf(&s.transcript, "# %s", note)
			}
		}
		if o.code != 0 {
			fmt.Fprintf(&s.transcript, "exit code %d\n", o.code)
		}
		s.transcript.WriteByte('\n')
	}
}

var masks = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?`), "TIME"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(ms|s|m\d+s|h\d+m|d\d+h)\b`), "SPAN"},
	{regexp.MustCompile(`(_seconds":)[0-9.]+`), "${1}N"},
	{regexp.MustCompile(`\b\d{9,15}\b`), "WORKER"},
	{regexp.MustCompile(`(\S)   +`), "$1  "},
}

// golden compares the transcript, without times, with a file that is the same for every database.
func (s *shell) golden(name string) {
	s.Helper()
	got := s.transcript.String()
	for _, m := range masks {
		got = m.pattern.ReplaceAllString(got, m.with)
	}
	isGolden(s.T, name, got)
}

// isGolden compares text with a file.
func isGolden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	gots, wants := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gots), len(wants)) {
		if i >= len(gots) || i >= len(wants) || gots[i] != wants[i] {
			t.Fatalf("line %d differs from %s, which go test -run '%s' -update would write.\nGot:\n%s", i+1, file, t.Name(), got)
		}
	}
}

// check ends the test with an error.
func (s *shell) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *shell) queue(name string) *pgqrs.Queue[json.RawMessage] {
	return pgqrs.NewQueue[json.RawMessage](s.store, name)
}

// enqueue puts messages into a queue.
func (s *shell) enqueue(queue string, payloads ...string) {
	s.Helper()
	for _, p := range payloads {
		_, err := s.queue(queue).Enqueue(s.Context(), json.RawMessage(p))
		s.check(err)
	}
}

// kill makes the ready messages dead letters.
func (s *shell) kill(queue, reason string) {
	s.Helper()
	for {
		ms, err := s.queue(queue).Dequeue(s.Context(), 10, time.Minute)
		s.check(err)
		if len(ms) == 0 {
			return
		}
		s.check(s.queue(queue).Fail(s.Context(), pgqrs.Permanent(errors.New(reason)), ms...))
	}
}
