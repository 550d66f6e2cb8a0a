package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// TestMain makes the test binary run as the program too, so that a test can kill the program.
func TestMain(m *testing.M) {
	if os.Getenv("QUICKSTART_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestCountsEveryFileOnceAndNothingMoreInASecondRun(t *testing.T) {
	f := newFixture(t, 20)
	out := &output{}
	f.run(t, t.Context(), out, 0)
	f.checkAll(t)
	out.want(t, "Enqueued 20 files", "Attempt 2: "+f.path("000.txt")+": simulated failure", "19 archived", "1 dead", "Dead letter 20, attempt 5", "Everything is done")

	again := &output{}
	f.run(t, t.Context(), again, 0)
	f.checkAll(t)
	again.want(t, "An earlier run has enqueued them", "Everything is done. To start over, delete "+f.database)
}

func TestCarriesOnAfterCtrlC(t *testing.T) {
	f := newFixture(t, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &output{watchFor: f.secondFailure(), found: cancel}
	f.run(t, ctx, out, 10*time.Millisecond)
	f.checkMidway(t)
	out.want(t, "Stopping", "files to go. Run it again")
	if n := f.queue(t).Leased; n != 0 {
		t.Errorf("%d messages are still leased after a drain", n)
	}

	f.run(t, t.Context(), &output{}, 0)
	f.checkAll(t)
}

func TestCarriesOnAfterKill(t *testing.T) {
	f := newFixture(t, 100)
	child := exec.CommandContext(t.Context(), os.Args[0], "-db", f.database, "-slow", "10ms", f.directory)
	child.Env = append(os.Environ(), "QUICKSTART_MAIN=1")
	out := &output{watchFor: f.secondFailure(), found: func() {
		if err := child.Process.Kill(); err != nil {
			t.Errorf("kill: %v", err)
		}
	}}
	child.Stdout, child.Stderr = out, out
	if err := child.Run(); err == nil {
		t.Fatalf("the program was not killed but ended:\n%s", out)
	}
	f.checkMidway(t)

	f.run(t, t.Context(), &output{}, 0)
	f.checkAll(t)
}

func TestTwoAtOnceShareTheWork(t *testing.T) {
	f := newFixture(t, 100)
	// The file is created beforehand, because SQLite may fail one of two processes that turn on WAL
	// at once.
	f.open(t)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { f.run(t, t.Context(), &output{}, time.Millisecond) })
	}
	both.Wait()
	f.checkAll(t)
}

func TestTwoDirectoriesShareADatabase(t *testing.T) {
	f, other := newFixture(t, 5), newFixture(t, 5)
	f.run(t, t.Context(), &output{}, 0)
	f.checkAll(t)
	other.database = f.database
	out := &output{}
	other.run(t, t.Context(), out, 0)
	out.want(t, "Enqueued 5 files", "8 archived", "2 dead", "Counted: 8 files")
}

func TestTheResultIsNotStoredOnceTheLeaseIsLost(t *testing.T) {
	f := newFixture(t, 2)
	store := f.store(t)
	c := &counter{db: store.DB(), store: store, files: pgqrs.NewQueue[File](store, "files"), screen: &screen{out: &output{}}}
	if err := store.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.files.Enqueue(t.Context(), File{Path: f.path("000.txt")}); err != nil {
		t.Fatal(err)
	}
	ms, err := c.files.Dequeue(t.Context(), 1, time.Minute)
	if err != nil || len(ms) != 1 {
		t.Fatalf("dequeued %v, %v", ms, err)
	}
	if err := c.files.Release(t.Context(), 0, ms...); err != nil {
		t.Fatal(err)
	}
	if err := c.count(t.Context(), ms[0]); !errors.Is(err, pgqrs.ErrLeaseLost) {
		t.Errorf("got error %v, want ErrLeaseLost", err)
	}
	if got := f.counted(t); len(got) != 0 {
		t.Errorf("got %v, want nothing counted", got)
	}
}

func TestAFileThatHasGoneIsADeadLetterAtOnce(t *testing.T) {
	c := &counter{}
	err := c.count(t.Context(), &pgqrs.Message[File]{MessageInfo: pgqrs.MessageInfo{Attempt: 1}, Payload: File{Path: filepath.Join(t.TempDir(), "gone")}})
	if !errors.Is(err, pgqrs.ErrPermanent) {
		t.Errorf("got error %v, want a permanent one", err)
	}
}

func TestSaysWhatIsWrong(t *testing.T) {
	f := newFixture(t, 1)
	for name, test := range map[string]struct{ database, directory, want string }{
		"a directory without files":      {filepath.Join(t.TempDir(), "new.db"), t.TempDir(), "no files"},
		"a directory that is not there":  {filepath.Join(t.TempDir(), "new.db"), "not-there", "not-there"},
		"a database that cannot be made": {f.path(filepath.Join("not-there", "x.db")), f.directory, "x.db"},
	} {
		t.Run(name, func(t *testing.T) {
			err := (&counter{database: test.database, directory: test.directory, screen: &screen{out: &output{}}}).run(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestProgressStaysBelowTheLinesOnATerminal(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, terminal: true}
	s.printf("start\n")
	s.progress("1 done")
	s.printf("news\n")
	s.progress("2 done")
	s.endProgress()
	s.printf("end\n")
	want := "start\n" + eraseLine + "1 done" + eraseLine + "news\n1 done" + eraseLine + "2 done\nend\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

// A fixture is a directory of files with known contents, and a database in it that must not be
// counted.
type fixture struct {
	directory, database string
	want                map[string]digest // of the files that must be counted
}

func newFixture(t *testing.T, files int) *fixture {
	dir := t.TempDir()
	f := &fixture{directory: dir, database: filepath.Join(dir, "quickstart.db"), want: map[string]digest{}}
	f.write(t, filepath.Join(".git", "config"), "not to be counted\n")
	for i := range files {
		name := fmt.Sprintf("%03d.txt", i)
		if i%3 == 1 {
			name = filepath.Join(fmt.Sprintf("%03d", i), "below.txt")
		}
		content := strings.Repeat("a line\n", i*i) + "an end without a newline"
		f.write(t, name, content)
		if i < files-1 { // the last file becomes a dead letter
			f.want[f.path(name)] = digest{fmt.Sprintf("%x", sha256.Sum256([]byte(content))), int64(i * i), int64(len(content))}
		}
	}
	return f
}

func (f *fixture) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.path(name)), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.path(name), []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) path(name string) string { return filepath.Join(f.directory, name) }

// secondFailure is the line that is printed while the flaky file has a third attempt before it. So
// some work is left, and other files have been counted.
func (f *fixture) secondFailure() string { return "Attempt 2: " + f.path("000.txt") }

// run runs the program in this process, for a minute at most.
func (f *fixture) run(t *testing.T, ctx context.Context, out *output, slow time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := (&counter{database: f.database, directory: f.directory, slow: slow, screen: &screen{out: out}}).run(ctx); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// checkMidway checks that some files have been counted, and none twice.
func (f *fixture) checkMidway(t *testing.T) {
	t.Helper()
	got := f.counted(t)
	if len(got) == 0 || len(got) >= len(f.want) {
		t.Errorf("%d of %d files were counted, so it was not interrupted midway", len(got), len(f.want))
	}
	if q := f.queue(t); int(q.Archived) != len(got) {
		t.Errorf("%d files were counted, but %d messages acked", len(got), q.Archived)
	}
}

// checkAll checks the end: each file is counted once with the right result, the flaky file on its
// third attempt, and the broken file is a dead letter.
func (f *fixture) checkAll(t *testing.T) {
	t.Helper()
	got := f.counted(t)
	for path, want := range f.want {
		if got[path].digest != want {
			t.Errorf("%s: got %+v, want %+v", path, got[path].digest, want)
		}
	}
	if len(got) != len(f.want) {
		t.Errorf("%d files were counted, want %d", len(got), len(f.want))
	}
	if n := got[f.path("000.txt")].attempt; n != 3 {
		t.Errorf("the file that fails twice was counted on attempt %d, want 3", n)
	}
	q := f.queue(t)
	if int(q.Archived) != len(f.want) || q.Dead != 1 || unfinished(q) != 0 {
		t.Errorf("queue is %+v, want %d archived, 1 dead, none left", q, len(f.want))
	}
	f.checkDead(t)
}

func (f *fixture) checkDead(t *testing.T) {
	t.Helper()
	dead, err := f.store(t).Messages(t.Context(), pgqrs.MessageFilter{Queue: "files", State: pgqrs.Dead})
	if err != nil || len(dead) != 1 {
		t.Fatalf("dead letters are %+v, %v, want one", dead, err)
	}
	var file File
	if err := json.Unmarshal(dead[0].Raw, &file); err != nil {
		t.Fatal(err)
	}
	_, counted := f.want[file.Path]
	if counted || dead[0].Attempt != maxAttempts || dead[0].LastError != file.Path+": simulated failure" {
		t.Errorf("the dead letter is %+v", dead[0])
	}
}

type result struct {
	digest
	attempt int
}

// counted returns the stored results, by path.
func (f *fixture) counted(t *testing.T) map[string]result {
	t.Helper()
	rows, err := f.open(t).QueryContext(t.Context(), "SELECT path, sha256, lines, bytes, attempt FROM counted")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	results := map[string]result{}
	for rows.Next() {
		var path string
		var r result
		if err := rows.Scan(&path, &r.sha256, &r.lines, &r.bytes, &r.attempt); err != nil {
			t.Fatal(err)
		}
		if _, ok := results[path]; ok {
			t.Errorf("%s was counted twice", path)
		}
		results[path] = r
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return results
}

func (f *fixture) queue(t *testing.T) pgqrs.QueueInfo {
	t.Helper()
	queues, err := f.store(t).Queues(t.Context(), "files")
	if err != nil || len(queues) != 1 {
		t.Fatalf("queues are %+v, %v, want one", queues, err)
	}
	return queues[0]
}

func (f *fixture) store(t *testing.T) *pgqrs.Store { return pgqrs.New(f.open(t), pgqrs.SQLite) }

func (f *fixture) open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := open(t.Context(), f.database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// An output keeps what the program writes. It calls found once, when watchFor has been written.
type output struct {
	watchFor string
	found    func()

	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if o.found != nil && strings.Contains(o.text.String(), o.watchFor) {
		o.found()
		o.found = nil
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// want checks that the output contains all texts.
func (o *output) want(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(o.String(), text) {
			t.Errorf("the output has no %q:\n%s", text, o)
		}
	}
}
