package conformance

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// Processes is the part of the suite that runs several processes on one database and kills some of
// them. The processes are started from the test binary, so TestMain calls Main before anything
// else:
//
//	var processes = conformance.Processes{New: newDSN, Open: pgqrs.Open}
//
//	func TestMain(m *testing.M) {
//		processes.Main()
//		m.Run()
//	}
//
//	func TestProcesses(t *testing.T) { processes.Run(t) }
type Processes struct {
	// New creates an empty database and returns its DSN, which is passed to Open. New removes the
	// database when the test ends.
	New func(t *testing.T) (dsn string)
	// Open opens a database that New created. It is called in every process. Closing the Store need
	// not close the database.
	Open func(ctx context.Context, dsn string) (*pgqrs.Store, error)
	// Scale multiplies the number of processes, messages and kills. Zero means 1, which takes some
	// seconds.
	Scale int
}

// A joint is a case for several processes.
type joint struct {
	name, why string
	test      func(t *testing.T, s *stage)
	play      func(ctx context.Context, a *actor) error // a process's work until ctx is done
}

// processCases are the cases of several processes. A child finds its part here by name.
var processCases = []joint{
	{"an idle worker takes what another process enqueues, by its polls", "messages would wait for a restart", testPickup, playPickup},
	{"what a killed process held is delivered to another one", "a crash would cost a message", testHeirs, playHeirs},
	{"a run goes on in another process where a killed one left it", "a crash would cost a run, or repeat what it has done", testRunHeirs, playRunHeirs},
	{"workers in several processes, some of them killed, keep each group's order", "an account's movements would be booked in the wrong order", testGroups, playGroups},
	{"workers in several processes hold no more than MaxLeased together", "a service that takes three calls at a time would get more", testHeld, playHeld},
	{"workers in several processes keep to the rate together", "a service would be called more often than it allows", testRate, playRate},
	{"what waits for a batch is let go once, when all processes are done with it, one of them killed", "a report would be sent twice, too soon or never", testBatch, playBatch},
	{"processes that run one schedule, and are killed, enqueue each instant once", "a nightly job would be left out, or done twice", testInstants, playInstants},
}

// childVariable is the environment variable that holds a child's part.
const childVariable = "PGQRSTEST_CHILD"

// A part tells a child its case and its database.
type part struct {
	Case, DSN string
	Scale     int
	Stuck     bool // it is there to be killed at work
}

// Main returns in the process of the test. In a child process it runs the child's part and exits.
func (p Processes) Main() {
	text := os.Getenv(childVariable)
	if text == "" {
		return
	}
	if err := p.play(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// play runs a child's part until its standard input ends, which happens when the test dismisses the
// child or dies.
func (p Processes) play(text string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	var o part
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	store, err := p.Open(context.WithoutCancel(ctx), o.DSN)
	if err != nil {
		return err
	}
	for _, j := range processCases {
		if j.name == o.Case {
			return errors.Join(j.play(ctx, &actor{store, o}), store.Close())
		}
	}
	return fmt.Errorf("there is no case %q", o.Case)
}

// Run runs the cases as subtests of t.
func (p Processes) Run(t *testing.T) {
	for _, j := range processCases {
		t.Run(j.name, func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("why it matters: %s", j.why)
				}
			})
			s := &stage{part: part{Case: j.name, DSN: p.New(t), Scale: cmp.Or(p.Scale, 1)}}
			s.store = value(p.Open(t.Context(), s.DSN))(t)
			t.Cleanup(func() {
				must(t, s.store.Close())
				must(t, s.store.DB().Close())
			})
			must(t, s.store.Install(t.Context()))
			must(t, execute(t.Context(), s.store, makeNotes))
			j.test(t, s)
		})
	}
}

// A stage is the environment of a case.
type stage struct {
	part
	store *pgqrs.Store
}

// number is the number of processes.
func (s *stage) number() int { return 1 + s.Scale }

// An actor is the environment of a child.
type actor struct {
	store *pgqrs.Store
	part
}

// work runs workers until ctx is done. Each worker polls often.
func (a *actor) work(ctx context.Context, workers ...*pgqrs.Worker) error {
	ended := make(chan error, len(workers))
	for _, w := range workers {
		w.PollInterval = cmp.Or(w.PollInterval, 20*time.Millisecond)
		go func() { ended <- w.Run(ctx) }()
	}
	var errs []error
	for range workers {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// Notes record the actions of the processes in their order.
var (
	makeNotes = map[pgqrs.Dialect]string{
		pgqrs.Postgres: `CREATE TABLE notes (id BIGSERIAL PRIMARY KEY, subject TEXT NOT NULL, n BIGINT NOT NULL, what TEXT NOT NULL, pid BIGINT NOT NULL)`,
		pgqrs.SQLite:   `CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, n BIGINT NOT NULL, what TEXT NOT NULL, pid BIGINT NOT NULL)`,
	}
	insertNote = map[pgqrs.Dialect]string{
		pgqrs.Postgres: `INSERT INTO notes (subject, n, what, pid) VALUES ($1, $2, $3, $4)`,
		pgqrs.SQLite:   `INSERT INTO notes (subject, n, what, pid) VALUES (?, ?, ?, ?)`,
	}
)

// execute executes the text for the Store's dialect. Turso uses SQLite's.
func execute(ctx context.Context, s *pgqrs.Store, texts map[pgqrs.Dialect]string, args ...any) error {
	text, ok := texts[s.Dialect()]
	if !ok {
		text = texts[pgqrs.SQLite]
	}
	_, err := s.DB().ExecContext(ctx, text, args...)
	return err
}

// The kinds of notes.
const (
	begun  = "begun"
	failed = "failed"
	ended  = "ended"
)

// A note is a row of the table of notes.
type note struct {
	subject string
	n       int
	what    string
	pid     int
}

// note adds a note.
func (a *actor) note(ctx context.Context, subject string, n int, what string) error {
	return execute(ctx, a.store, insertNote, subject, n, what, os.Getpid())
}

// notes reads all notes.
func (s *stage) notes(t *testing.T) []note {
	t.Helper()
	rows := value(s.store.DB().QueryContext(t.Context(), `SELECT subject, n, what, pid FROM notes ORDER BY id`))(t)
	defer rows.Close()
	var list []note
	for rows.Next() {
		var n note
		must(t, rows.Scan(&n.subject, &n.n, &n.what, &n.pid))
		list = append(list, n)
	}
	must(t, rows.Err())
	return list
}

// awaitNotes waits until there are n notes of a kind.
func (s *stage) awaitNotes(t *testing.T, what string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d notes say %q", n, what), func() bool {
		count := 0
		for _, x := range s.notes(t) {
			if x.what == what {
				count++
			}
		}
		return count >= n
	})
}

// awaitArchived waits until n messages of a queue are archived.
func (s *stage) awaitArchived(t *testing.T, queue string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages of %q are archived", n, queue), func() bool {
		infos := value(s.store.Queues(t.Context(), queue))(t)
		return len(infos) == 1 && infos[0].Archived >= int64(n)
	})
}

// A process is a child process of the test.
type process struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	output bytes.Buffer
	exited chan error
}

// begin starts a child, which is killed if it is still there when the test ends.
func (s *stage) begin(t *testing.T) *process { return begin(t, s.part) }

// beginStuck starts a child that never finishes the work it takes.
func (s *stage) beginStuck(t *testing.T) *process {
	o := s.part
	o.Stuck = true
	return begin(t, o)
}

func begin(t *testing.T, o part) *process {
	t.Helper()
	text := value(json.Marshal(o))(t)
	p := &process{cmd: exec.Command(os.Args[0]), exited: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.stdin = value(p.cmd.StdinPipe())(t)
	must(t, p.cmd.Start())
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// kill kills the child, by SIGKILL where there is one, and returns its process id.
func (p *process) kill(t *testing.T) int {
	t.Helper()
	must(t, p.cmd.Process.Kill())
	<-p.exited
	return p.cmd.Process.Pid
}

// dismiss lets children end by themselves.
func dismiss(t *testing.T, children ...*process) {
	t.Helper()
	for _, p := range children {
		must(t, p.stdin.Close())
	}
	for _, p := range children {
		select {
		case err := <-p.exited:
			if err != nil {
				t.Errorf("a child: %v\n%s", err, p.output.String())
			}
		case <-time.After(tooLong):
			t.Errorf("a child did not end within %v", tooLong)
		}
	}
}
