package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
	"github.com/urfave/cli/v3"
)

func TestQueues(t *testing.T) {
	onEach(t, func(s *shell) {
		s.enqueue("emails", `{"to": "ada"}`, `{"to": "bob"}`)
		s.kill("emails", "no such address")
		s.enqueue("emails", `{"to": "cyd"}`)
		s.enqueue("reports", `1`)
		s.run("queues", "queues emails", "queues emails -json", "queues nowhere",
			"pause emails reports", "queues emails", "resume emails reports", "pause nowhere",
			"stats -over 0", "stats -over 0 -json",
			"purge emails -state dead", "purge emails -state dead -yes", "purge emails -state no-such-state", "purge emails", "purge nowhere -state dead -yes",
			"drop reports", "purge reports -state ready -yes -json", "drop reports", "drop reports", "queues")
		s.check(s.queue("emails").With(pgqrs.Policy{MaxLeased: 2, Rate: pgqrs.Rate{N: 100, Per: time.Minute}, DeadLetter: "graveyard"}).Configure(s.Context()))
		s.run("queues emails nowhere", "queues -json")
		s.golden("queues")
	})
}

func TestMessages(t *testing.T) {
	onEach(t, func(s *shell) {
		s.run("enqueue emails '{\"to\": \"ada\"}'", "enqueue emails -key welcome -priority 2 -header lang=en '{\"to\": \"bob\"}'",
			"enqueue emails -delay 1h '\"later\"'", "messages emails", "messages list emails -state scheduled", "messages list emails -limit 1",
			"messages show 1 2", "messages show 2 -json", "messages show 99", "messages show x", "messages list nowhere",
			"messages list emails -limit 0", "messages delete 1", "messages delete 1 99 -yes", "messages delete 1 -yes", "messages emails")
		ms, err := s.queue("emails").Dequeue(s.Context(), 1, time.Hour)
		s.check(err)
		s.run("messages list emails -state leased")
		s.check(s.queue("emails").Ack(s.Context(), ms...))
		s.run("messages list emails -state archived", "messages list emails -state archived -json", "messages list emails -state dead")
		s.golden("messages")
	})
}

func TestPagesHaveEachMessageOnce(t *testing.T) {
	onEach(t, func(s *shell) {
		s.enqueue("emails", `1`, `2`, `3`, `4`, `5`)
		page := s.do("", "messages", "list", "emails", "-limit", "3")
		_, cursor, _ := strings.Cut(page.err, "-after '")
		rest := s.do("", "messages", "list", "emails", "-limit", "3", "-after", strings.TrimSuffix(cursor, "'\n"), "-json")
		if got := strings.Count(page.out, "\n") - 1 + strings.Count(rest.out, "\n"); got != 5 || rest.err != "" {
			s.Errorf("two pages have %d messages, want 5:\n%s%s%s", got, page.out, rest.out, rest.err)
		}
		if all := s.do("", "messages", "list", "emails", "-limit", "2", "-all", "-json"); strings.Count(all.out, "\n") != 5 {
			s.Errorf("-all lists:\n%s", all.out)
		}
	})
}

func TestBlockedMessagesSayWhatTheyWaitFor(t *testing.T) {
	onEach(t, func(s *shell) {
		s.run("enqueue movements -group alice 1", "enqueue movements -group alice 2", "enqueue movements -group bob -delay 1h 3", "enqueue movements -group bob 4")
		ms, err := s.queue("movements").Dequeue(s.Context(), 1, time.Hour)
		s.check(err)
		s.run("messages show 2", "messages show 4")
		later := pgqrs.Policy{Backoff: func(int) time.Duration { return time.Hour }}
		s.check(s.queue("movements").With(later).Fail(s.Context(), errors.New("the ledger is closed"), ms...))
		s.run("messages show 2", "messages show 1", "messages list movements -state blocked", "messages show 4 -json", "stats -over 0", "queues")
		_, err = s.queue("letters").EnqueueBatch(s.Context(), []json.RawMessage{json.RawMessage("5"), json.RawMessage("6")}, pgqrs.Then(s.queue("reports"), json.RawMessage(`"all sent"`)))
		s.check(err)
		s.run("messages show 5 6")
		s.golden("blocked")
	})
}

func TestDead(t *testing.T) {
	onEach(t, func(s *shell) {
		s.run("dead", "dead redrive -all nowhere")
		s.enqueue("emails", `{"to": "ada"}`, `{"to": "bob"}`, `{"to": "cyd"}`)
		s.kill("emails", "no such address")
		s.enqueue("reports", `7`)
		s.kill("reports", "disk full")
		s.run("dead", "dead list emails", "dead list emails -json", "dead redrive 1", "dead redrive 1", "dead redrive", "dead redrive 1 -all emails",
			"dead list emails", "dead redrive 2 99", "dead redrive -all emails -json", "dead redrive -all emails", "dead redrive -all reports", "queues")
		s.golden("dead")
	})
}

func TestRedriveOfATakenKey(t *testing.T) {
	onEach(t, func(s *shell) {
		_, err := s.queue("emails").Enqueue(s.Context(), json.RawMessage("1"), pgqrs.Key("k"))
		s.check(err)
		s.kill("emails", "boom")
		_, err = s.queue("emails").Enqueue(s.Context(), json.RawMessage("2"), pgqrs.Key("k"))
		s.check(err)
		if o := s.do("", "dead", "redrive", "1"); o.code != exitState {
			s.Errorf("exit code %d, want %d: %s", o.code, exitState, o.err)
		}
		if o := s.do("", "enqueue", "emails", "3", "-key", "k", "-unique"); o.code != exitState {
			s.Errorf("exit code %d, want %d: %s", o.code, exitState, o.err)
		}
	})
}

func TestWorkers(t *testing.T) {
	onEach(t, func(s *shell) {
		s.run("workers", "workers suspend 1")
		ctx, cancel := context.WithCancel(s.Context())
		defer cancel()
		w := &pgqrs.Worker{Name: "host", Handlers: []pgqrs.Handler{
			s.queue("emails").Handle(func(context.Context, *pgqrs.Message[json.RawMessage]) error { return nil }),
		}}
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		id := s.awaitState("polling")
		s.run("workers", "workers -json", "workers suspend "+id, "workers suspend "+id, "workers resume "+id)
		s.awaitState("polling")
		s.run("workers interrupt host/emails", "workers suspend 99", "workers suspend nobody")
		s.awaitState("suspended")
		s.run("workers list", "workers shutdown "+id, "workers shutdown host/emails -yes")
		select {
		case err := <-ended:
			s.check(err)
		case <-time.After(time.Minute):
			s.Fatal("the worker goes on")
		}
		s.run("workers", "workers -all", "workers resume "+id)
		text := strings.ReplaceAll(s.transcript.String(), strings.Repeat(" ", len(id)-2)+"ID", "ID")
		s.transcript.Reset()
		s.transcript.WriteString(strings.ReplaceAll(text, id, "1"))
		s.golden("workers")
	})
}

// awaitState waits until the only worker is in a state, and returns its id.
func (s *shell) awaitState(want pgqrs.WorkerState) (id string) {
	s.Helper()
	s.until("the worker is "+string(want), func() bool {
		workers, err := s.store.Workers(s.Context())
		s.check(err)
		if len(workers) != 1 || workers[0].State != want {
			return false
		}
		id = strconv.FormatInt(workers[0].ID, 10)
		return true
	})
	return id
}

// until waits for a condition.
func (s *shell) until(what string, met func() bool) {
	s.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-deadline:
			s.Fatalf("after a minute it is not so that %s", what)
		}
	}
}

func TestRuns(t *testing.T) {
	onEach(t, func(s *shell) {
		const approved pgqrs.Signal[string] = "approved"
		broken := true
		checkout := pgqrs.NewWorkflow[string, string](s.store, "checkout")
		handler := checkout.Handle(func(ctx context.Context, run *pgqrs.Run, order string) (string, error) {
			charge, err := pgqrs.Step(ctx, run, "charge", func(context.Context) (string, error) { return "paid " + order, nil })
			if err != nil {
				return "", err
			}
			if _, err := approved.Wait(ctx, run, 0); err != nil {
				return "", err
			}
			return charge, run.Do(ctx, "ship", func(context.Context) error {
				if broken {
					return pgqrs.Permanent(errors.New("no carrier"))
				}
				return nil
			})
		})
		for _, order := range []string{"tea", "milk"} {
			_, err := checkout.Start(s.Context(), order, pgqrs.Key(order))
			s.check(err)
		}
		s.run("runs")
		pgqrstest.Drain(s.T, s.store, []string{"checkout"}, handler)
		s.run("runs list -state running", "runs show 1", "runs signal 1 approved '\"yes\"'", "runs signal 1 approved 'yes'", "runs signal 99 approved",
			"runs pause 2", "runs resume 2", "runs cancel 2", "runs cancel 2 -yes", "runs retry 1")
		pgqrstest.Drain(s.T, s.store, []string{"checkout"}, handler)
		s.run("runs", "runs show 1", "runs list -state error -workflow checkout -json", "runs list -state none", "runs list -limit 1", "runs list -limit 1 -after 2")
		broken = false
		s.run("runs rerun 1 ship", "runs retry 1", "runs rerun 1 no-such-step", "runs resume 1")
		pgqrstest.Drain(s.T, s.store, []string{"checkout"}, handler)
		s.run("runs list -since 1h", "runs show 3", "runs show 3 -json", "runs show 99", "runs signal 3 approved")
		s.golden("runs")
	})
}

func TestRunsShowTheirChildren(t *testing.T) {
	onEach(t, func(s *shell) {
		const arrived pgqrs.Signal[bool] = "arrived"
		parcel := pgqrs.NewWorkflow[string, string](s.store, "parcel")
		order := pgqrs.NewWorkflow[[]string, int](s.store, "order")
		month := pgqrs.NewWorkflow[int, int](s.store, "month")
		handlers := []pgqrs.Handler{
			parcel.Handle(func(ctx context.Context, run *pgqrs.Run, what string) (string, error) {
				if err := run.Do(ctx, "pack", func(context.Context) error { return nil }); err != nil {
					return "", err
				}
				switch what {
				case "glass":
					return "", errors.New("it broke")
				case "piano":
					_, err := arrived.Wait(ctx, run, 0)
					return "carried", err
				}
				return "sent", nil
			}),
			order.Handle(func(ctx context.Context, run *pgqrs.Run, things []string) (int, error) {
				sent, err := parcel.Children(ctx, run, "parcels", things)
				if errors.Is(err, pgqrs.ErrSuspended) {
					return 0, err
				}
				return len(sent), run.Do(ctx, "invoice", func(context.Context) error { return nil })
			}),
			month.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
				return order.Child(ctx, run, "order", make([]string, n))
			}),
		}
		work := func() { pgqrstest.Drain(s.T, s.store, []string{"parcel", "order", "month"}, handlers...) }
		_, err := order.Start(s.Context(), []string{"book", "glass", "piano"})
		s.check(err)
		work()
		s.run("runs show 1", "runs show 1 -json", "runs list -parent 1", "runs list -parent 1 -state error", "runs list -parent 0")
		s.check(arrived.Send(s.Context(), s.store, 4, true))
		work()
		_, err = month.Start(s.Context(), 2)
		s.check(err)
		work()
		s.run("runs show 1", "runs show 5", "runs show 7")
		s.golden("children")
	})
}

func TestATreeOfRunsEnds(t *testing.T) {
	onEach(t, func(s *shell) {
		leaf := pgqrs.NewWorkflow[int, int](s.store, "leaf")
		tree := pgqrs.NewWorkflow[int, int](s.store, "tree")
		_, err := tree.Start(s.Context(), maxFamily)
		s.check(err)
		pgqrstest.Drain(s.T, s.store, []string{"leaf", "tree"},
			leaf.Handle(func(_ context.Context, _ *pgqrs.Run, n int) (int, error) { return n, nil }),
			tree.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
				all, err := leaf.Children(ctx, run, "leaves", make([]int, n))
				return len(all), err
			}))
		o := s.do("", "runs", "show", "1")
		if n := strings.Count(o.out, ", leaf"); n != maxFamily-1 || !strings.Contains(o.out, "└─ … older runs: pgqrs runs list -parent 1") || strings.Contains(o.out, "run 2, leaf") {
			s.Errorf("it shows %d children:\n%s%s", n, o.out, o.err)
		}
		o = s.do("", "runs", "show", "1", "-json")
		if n := strings.Count(o.out, `"workflow":"leaf","message_id"`); n != maxFamily-1 || !strings.Contains(o.out, `"more_runs":true`) {
			s.Errorf("as JSON it shows %d children: %s%s", n, o.out, o.err)
		}
	})
}

func TestSchedules(t *testing.T) {
	onEach(t, func(s *shell) {
		s.run("schedules", "schedules run nightly")
		ctx, cancel := context.WithCancel(s.Context())
		defer cancel()
		checkout := pgqrs.NewWorkflow[string, string](s.store, "checkout")
		w := &pgqrs.Worker{Schedules: []pgqrs.Schedule{
			{Name: "nightly", Rule: pgqrs.Every(24 * 365 * time.Hour), Target: s.queue("reports").Target(json.RawMessage(`{"all":true}`), pgqrs.Priority(1), pgqrs.Key("report"))},
			{Name: "weekly", Rule: pgqrs.Every(7 * 24 * 365 * time.Hour), CatchUp: -1, Target: checkout.Target("tea")},
		}}
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		s.until("both are there", func() bool {
			list, err := s.store.Schedules(s.Context())
			s.check(err)
			return len(list) == 2
		})
		cancel()
		s.check(<-ended)
		s.run("schedules", "schedules list nightly -json", "schedules list weekly -json", "schedules list nightly nowhere", "schedules pause nightly weekly", "schedules pause nowhere", "schedules list nightly",
			"schedules resume weekly", "schedules history nightly", "schedules history nowhere", "schedules run nightly weekly", "schedules run weekly -json", "schedules run nightly",
			"schedules history nightly", "schedules history nightly -limit 1 -json", "schedules history weekly", "schedules list weekly", "schedules history nightly -limit 0",
			"schedules delete weekly", "schedules delete weekly -yes", "schedules delete weekly -yes", "messages list reports")
		s.golden("schedules")
	})
}

func TestSchema(t *testing.T) {
	onEach(t, func(s *shell) {
		verify := s.do("", "verify", "-json")
		var report struct {
			OK bool
			pgqrs.Report
		}
		if err := json.Unmarshal([]byte(verify.out), &report); err != nil || !report.OK || report.Dialect != s.store.Dialect() {
			s.Errorf("verify prints %s, %v", verify.out, err)
		}
		if o := s.do("", "verify"); o.code != exitDone || !strings.Contains(o.out, report.Engine) {
			s.Errorf("verify exits with %d and prints\n%s", o.code, o.out)
		}
		if o := s.do("", "uninstall"); o.code != exitNotConfirmed || !strings.Contains(o.err, "drop the tables of pgqrs in "+place(s.dsn)) {
			s.Errorf("uninstall exits with %d without an answer: %s", o.code, o.err)
		}
		for _, step := range []struct {
			args string
			code int
		}{{"uninstall -yes", exitDone}, {"queues", exitFailed}, {"verify", exitFailed}, {"install", exitDone}, {"install -json", exitDone}, {"verify", exitDone}} {
			if o := s.do("", strings.Fields(step.args)...); o.code != step.code {
				s.Errorf("%s exits with %d, want %d: %s%s", step.args, o.code, step.code, o.out, o.err)
			}
		}
	})
}

func TestVersion(t *testing.T) {
	for want, args := range map[string][]string{
		"pgqrs " + pgqrs.Version + "\n":              {"version"},
		`{"version":"` + pgqrs.Version + `"}` + "\n": {"version", "-json"},
	} {
		if got := help(t, args...); got != want {
			t.Errorf("pgqrs %v prints %q, want %q", args, got, want)
		}
	}
	log, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil || !strings.Contains(string(log), pgqrs.Version+" ") {
		t.Errorf("CHANGELOG.md does not name version %s: %v", pgqrs.Version, err)
	}
}

// A command that is in no golden file has a test of its effect.
var roundTrips = map[string]func(*testing.T){
	"enqueue": TestEnqueue, "work": TestTheExitCodeOfACommandDecides, "top": TestTopLooksAtTheDatabase, "serve": TestServe,
	"install": TestSchema, "uninstall": TestSchema, "verify": TestSchema, "demo": TestDemo, "version": TestVersion,
}

func TestEveryCommandHasAGoldenFileOrARoundTrip(t *testing.T) {
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no golden files", err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	root := (&app{}).root()
	err = root.Walk(func(cmd *cli.Command) error {
		name := strings.Join(path(root, cmd), " ")
		if cmd.Action == nil || name == "" || roundTrips[name] != nil {
			return nil
		}
		if !regexp.MustCompile(`(?m)^\$ pgqrs ` + name + `( |$)`).MatchString(all.String()) {
			t.Errorf("pgqrs %s is in no golden file, and has no test in roundTrips", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDemo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "demo.db")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out strings.Builder
	ended := make(chan int, 1)
	go func() {
		a := &app{in: strings.NewReader(""), out: &out, err: io.Discard}
		ended <- a.run(ctx, []string{"pgqrs", "demo", "-file", file, "-interval", "20ms"})
	}()
	s := newShell(t, "sqlite:"+file)
	s.until("the shop has done something", func() bool {
		queues, err := s.store.Queues(t.Context())
		return err == nil && slices.ContainsFunc(queues, func(q pgqrs.QueueInfo) bool { return q.Archived > 0 })
	})
	interrupt()
	if code := <-ended; code != exitDone || !strings.Contains(out.String(), "pgqrs -dsn sqlite:"+file+" top") {
		t.Errorf("demo exits with %d and prints %s", code, out.String())
	}
	if o := s.do("", "demo", "-interval", "0s"); o.code != exitUsage {
		t.Errorf("without an interval demo exits with %d", o.code)
	}
}

func TestNoDatabase(t *testing.T) {
	t.Setenv("PGQRS_DSN", "")
	for args, code := range map[string]int{
		"queues": exitUsage, "-dsn nonsense queues": exitFailed, "-dsn": exitUsage, "nonsense": exitUsage, "help nonsense": exitUsage, "help": exitDone, "": exitDone,
	} {
		var out, err strings.Builder
		a := &app{in: strings.NewReader(""), out: &out, err: &err}
		if got := a.run(t.Context(), append([]string{"pgqrs"}, strings.Fields(args)...)); got != code || strings.Contains(out.String()+err.String(), "pgqrs: pgqrs:") {
			t.Errorf("pgqrs %s exits with %d, want %d:\n%s%s", args, got, code, out.String(), err.String())
		}
	}
}

func TestTheDSNMayStandInTheEnvironment(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	t.Setenv("PGQRS_DSN", s.dsn)
	var out, err strings.Builder
	a := &app{in: strings.NewReader(""), out: &out, err: &err}
	if code := a.run(t.Context(), []string{"pgqrs", "verify"}); code != exitDone {
		t.Errorf("verify exits with %d: %s", code, err.String())
	}
}

func TestQuestions(t *testing.T) {
	s := newShell(t, "sqlite:"+t.TempDir()+"/queue.db")
	for answer, code := range map[string]int{"": exitNotConfirmed, "\n": exitNotConfirmed, "n\n": exitNotConfirmed, "yes please\n": exitNotConfirmed, "y\n": exitDone, "YES\n": exitDone, "y": exitDone} {
		s.enqueue("emails", "1")
		o := s.with(&app{asks: true}, answer, "purge", "emails", "-state", "ready")
		if o.code != code || !strings.Contains(o.err, `queue "emails"? [y/N]`) {
			t.Errorf("the answer %q leads to exit code %d, want %d: %s", answer, o.code, code, o.err)
		}
	}
}
