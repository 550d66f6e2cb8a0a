package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

// hostile are texts that do harm if they are printed unchanged.
var hostile = []string{
	"<script>alert(1)</script>",
	"\x1b[2J\x1b]0;owned\x07\x1b[31mred",
	"bell \a backspace \b\b\b carriage\rreturn\nline\ttab\vdel\x7f",
	"C1: \u009b2J\u0090\u009c",
	"backwards \u202eevil\u202c \u2066isolated",
	"zero\u200bwidth\u200d\ufeffjoined",
	"high" + strings.Repeat("\u0301", 100) + "marks",
	"宽字符" + strings.Repeat("宽", 200),
	"\U0001F469\u200d\U0001F469\u200d\U0001F467",
	strings.Repeat("x", 1<<20-2),
	strings.Repeat("\x1b[31m", 1000),
}

// harmless fails the test unless text is printable UTF-8 in lines of an acceptable width.
func harmless(t *testing.T, what, text string, width int) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s prints bytes that are no text: %.200q", what, text)
	}
	for _, line := range strings.Split(text, "\n") {
		marks := 0
		for _, r := range line {
			if !unicode.IsPrint(r) {
				t.Errorf("%s prints %q in %.200q", what, r, line)
				break
			}
			if marks++; !unicode.Is(unicode.M, r) {
				marks = 0
			} else if marks > maxMarks {
				t.Errorf("%s prints a pile of marks in %.200q", what, line)
				break
			}
		}
		if width > 0 && ansi.StringWidth(line) > width {
			t.Errorf("%s prints a line of %d, want %d at most: %.200q", what, ansi.StringWidth(line), width, line)
		}
	}
}

func TestHostileTextIsHarmless(t *testing.T) {
	onEach(t, func(s *shell) {
		for _, text := range hostile {
			payload, err := json.Marshal(text)
			s.check(err)
			key := text[:min(len(text), 200)]
			if strings.ContainsRune(key, 0) || !utf8.ValidString(key) {
				key = ""
			}
			_, err = s.queue("letters").Enqueue(s.Context(), payload, pgqrs.Key(key), pgqrs.Headers(map[string]string{key: text[:min(len(text), 1000)]}))
			if err != nil {
				_, err = s.queue("letters").Enqueue(s.Context(), payload)
			}
			s.check(err)
		}
		_, err := s.queue("evil \u202eqeueu").Enqueue(s.Context(), json.RawMessage("1"))
		s.check(err)
		for i := range hostile {
			ms, err := s.queue("letters").Dequeue(s.Context(), 1, time.Minute)
			s.check(err)
			s.check(s.queue("letters").Fail(s.Context(), pgqrs.Permanent(errors.New(hostile[i])), ms...))
		}
		s.looksHarmless("letters")
	})
}

// SQLite stores any bytes as text, and so may other programs that share the database.
func TestBytesThatAreNoTextAreHarmless(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	s.enqueue("letters", `1`, `2`, `3`)
	s.kill("letters", "boom")
	for id, bytes := range []string{"\"\xff\xfe \x1b[2J\"", "not JSON \x1b[2J\xc3\x28", "\xed\xa0\x80"} {
		_, err := s.store.DB().ExecContext(t.Context(), `UPDATE pgqrs_messages SET payload = CAST(? AS TEXT), last_error = CAST(? AS TEXT) WHERE id = ?`, []byte(bytes), []byte(bytes), id+1)
		s.check(err)
	}
	s.looksHarmless("letters")
}

// On SQLite a program that writes SQL can store any text as a name or a state.
func TestNamesAndStatesOfSQLAreHarmless(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	s.enqueue("letters", `1`, `2`)
	s.kill("letters", "boom")
	s.enqueue("letters", `3`)
	flow := pgqrs.NewWorkflow[int, int](s.store, "flow")
	_, err := flow.Start(t.Context(), 1, pgqrs.Key("k"))
	s.check(err)
	pgqrstest.Drain(t, s.store, []string{"flow"}, flow.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (int, error) {
		return pgqrs.Step(ctx, run, "step", func(context.Context) (int, error) { return 1, nil })
	}))
	const evil = "\x1b[2J\x07\u009b\u202e"
	conn, err := s.store.DB().Conn(t.Context())
	s.check(err)
	for _, text := range []string{
		"PRAGMA ignore_check_constraints = on",
		"INSERT INTO pgqrs_workers (name, queue_id, status) SELECT 'web-7', id, 'ready' FROM pgqrs_queues WHERE queue_name = 'letters'",
		"INSERT INTO pgqrs_schedules (name, queue_name, payload, rule) VALUES ('daily', 'letters', '1', 'each day')",
		"INSERT INTO pgqrs_schedule_runs (schedule_id, due_at, run_id) SELECT 1, datetime('now'), id FROM pgqrs_workflow_runs",
		"UPDATE pgqrs_queues SET queue_name = queue_name || ?", "UPDATE pgqrs_workflows SET name = name || ?",
		"UPDATE pgqrs_messages SET dedup_key = ?1, group_key = ?1, last_error = ?1, headers = ?1",
		"UPDATE pgqrs_workflow_runs SET status = status || ?1, run_key = run_key || ?1, warning = ?1, error = ?1", "UPDATE pgqrs_workflow_steps SET status = status || ?1, step_name = step_name || ?1, error = ?1",
		"UPDATE pgqrs_workers SET name = name || ?1, status = status || ?1",
		"UPDATE pgqrs_schedules SET name = name || ?1, queue_name = queue_name || ?1, rule = rule || ?1, zone = zone || ?1",
	} {
		_, err := conn.ExecContext(t.Context(), text, []any{evil}[:strings.Count(text[:7], "UPDATE")]...)
		s.check(err)
	}
	s.check(conn.Close())
	for _, args := range []string{
		"queues", "queues -limit 1", "queues letters" + evil, "stats -over 0", "stats -over 0 -limit 1", "dead list", "dead list letters" + evil, "messages list letters" + evil, "messages show 1 3",
		"workers", "workers list -all", "runs", "runs list -workflow flow" + evil, "runs show 1", "schedules", "schedules history daily" + evil,
		"pause letters" + evil, "resume letters" + evil, "schedules pause daily" + evil,
	} {
		s.printsHarmlessly(args)
	}
	for _, args := range []string{"purge -state dead letters" + evil, "queues nowhere" + evil, "drop letters" + evil, "workers suspend nobody" + evil} {
		if o := s.do("", strings.Fields(args)...); o.code == exitDone {
			t.Errorf("%q exits with %d", args, o.code)
		} else {
			harmless(t, args, o.err, 0)
		}
	}
	harmless(t, "verify", s.do("", "verify").out, 0)
	s.topIsHarmless("letters" + evil)
}

func TestHostileRunsAreHarmless(t *testing.T) {
	onEach(t, func(s *shell) {
		evil := pgqrs.NewWorkflow[int, string](s.store, "evil \u202ewolf")
		kid := pgqrs.NewWorkflow[string, string](s.store, "<b>kid \u2066")
		_, err := evil.Start(s.Context(), 1, pgqrs.Key(hostile[5]))
		s.check(err)
		handlers := []pgqrs.Handler{
			evil.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (string, error) {
				for i, text := range hostile {
					_, err := pgqrs.Step(ctx, run, fmt.Sprintf("%d <script> \u202e\u200b", i), func(context.Context) (string, error) { return text, nil })
					if err != nil {
						return "", err
					}
				}
				_, err := kid.Children(ctx, run, "\u202esdik", hostile[:4])
				return "", err
			}),
			kid.Handle(func(ctx context.Context, run *pgqrs.Run, text string) (string, error) {
				return text, run.With(pgqrs.Policy{MaxAttempts: 1}).Do(ctx, "pack \u202e", func(context.Context) error { return errors.New(text) })
			}),
		}
		pgqrstest.Drain(s.T, s.store, []string{"evil \u202ewolf", "<b>kid \u2066"}, handlers...)
		if o := s.do("", "runs", "show", "1"); strings.Count(o.out, "\n") < len(hostile)+8 {
			s.Fatalf("the tree is not there:\n%s%s", o.out, o.err)
		}
		for _, args := range []string{"runs", "runs list -parent 1", "runs show 1", "runs show 2 3"} {
			s.printsHarmlessly(args)
		}
		s.topIsHarmless("evil \u202ewolf")
	})
}

// looksHarmless shows the dead letters of a queue by every command.
func (s *shell) looksHarmless(queue string) {
	s.Helper()
	for _, args := range []string{"queues", "stats -over 0", "dead list", "dead list " + queue, "messages show 1 2 3", "workers"} {
		s.printsHarmlessly(args)
	}
	if o := s.do("", "messages", "show", "1", "no\x1bid"); o.code != exitUsage {
		s.Errorf("a hostile argument leads to exit code %d", o.code)
	} else {
		harmless(s.T, "an error", o.err, 0)
	}
	s.topIsHarmless(queue)
}

// printsHarmlessly runs a command with every form of output.
func (s *shell) printsHarmlessly(args string) {
	s.Helper()
	o := s.do("", strings.Fields(args)...)
	if o.code != exitDone {
		s.Errorf("%s exits with %d: %.200s", args, o.code, o.err)
	}
	if strings.Contains(args, "show") {
		harmless(s.T, args, o.out, 0)
	} else {
		harmless(s.T, args, o.out, maxTable)
		harmless(s.T, args+" on a terminal", s.with(&app{width: 100, height: 24}, "", strings.Fields(args)...).out, 100)
	}
	o = s.do("", append(strings.Fields(args), "-json")...)
	harmless(s.T, args+" -json", o.out, 0)
	for _, line := range strings.Split(strings.TrimSpace(o.out), "\n") {
		if !json.Valid([]byte(line)) {
			s.Errorf("%s -json prints %.200q", args, line)
		}
	}
}

// topIsHarmless shows every panel of a queue in top.
func (s *shell) topIsHarmless(queue string) {
	s.Helper()
	top := &screen{ctx: s.Context(), store: s.store, interval: time.Second, width: 100, height: 40}
	top.Update(top.Init()())
	for top.selected != queue {
		press(top, "down")
	}
	top.Update(top.lookCloser()())
	for range panels {
		for _, line := range top.lines() {
			harmless(s.T, "top", strings.NewReplacer(highlight, "", plain, "").Replace(line), 100)
		}
		press(top, "tab")
	}
}

func TestClip(t *testing.T) {
	for _, test := range []struct {
		text  string
		width int
		want  string
	}{
		{"hello", 5, "hello"}, {"hello", 4, "hel…"}, {"hello", 1, "…"}, {"hello", 0, ""}, {"", 0, ""}, {"hello", -1, "hello"},
		{"宽宽宽", 6, "宽宽宽"}, {"宽宽宽", 5, "宽宽…"}, {"宽宽宽", 4, "宽…"}, {"\x1b[m", 6, `\x1b[m`}, {"\x1b[m", 5, `\x1b…`}, {"\x1b[m", 4, "…"}, {"a\x1b[m", 5, "a…"},
		{"\xff\u202e", -1, `\xff\u202e`}, {"e\u0301\u0301\u0301", -1, "e\u0301\u0301\\u0301"}, {"a\nb\tc", -1, `a\nb\tc`}, {"\uFFFD", -1, `\ufffd`},
	} {
		if got := clip(test.text, test.width); got != test.want {
			t.Errorf("clip(%q, %d) = %q, want %q", test.text, test.width, got, test.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ms", 999 * time.Millisecond: "999ms", 1999 * time.Millisecond: "1.9s", 59 * time.Second: "59s", 61 * time.Second: "1m1s",
		time.Hour - 1: "59m59s", 25 * time.Hour: "1d1h", -time.Second: "-1.0s",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestTablesAlignAndShrink(t *testing.T) {
	type row struct {
		n    int
		name string
	}
	rows := []row{{1, "宽"}, {1000, strings.Repeat("long ", 10)}}
	columns := []column[row]{
		{title: "N", fn: func(r row) any { return r.n }}, {title: "NAME", long: true, fn: func(r row) any { return r.name }}, {title: "X", fn: func(r row) any { return fmt.Sprint(r.n > 1) }},
	}
	var b strings.Builder
	if err := writeTable(&b, 30, rows, columns); err != nil {
		t.Fatal(err)
	}
	want := "   N  NAME               X\n   1  宽                 false\n1000  long long long l…  true\n"
	if b.String() != want {
		t.Errorf("the table is\n%s", b.String())
	}
}
