package main

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

// TestMain makes the test binary run as the program too, so that the program can kill itself.
func TestMain(m *testing.M) {
	if os.Getenv("ARCHIVE_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestArchivesADirectoryAndDoesNothingMoreInASecondRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	out := f.run(t)
	for _, step := range steps {
		want(t, out, fmt.Sprintf("  %-15s ran\n", step))
	}
	want(t, out, "Every body ran once. Rows for this run in the table of archives: 1.")
	f.checkArchive(t, 1)
	f.checkBodies(t, 1, steps)

	out = f.run(t)
	want(t, out, "Run 1", "It is SUCCESS", "3 files", "Every body ran once. Rows for this run in the table of archives: 1.")
	f.checkBodies(t, 1, steps)
}

func TestCarriesOnAfterAKillWithoutDoingARecordedStepAgain(t *testing.T) {
	t.Parallel()
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			out := f.crash(t, step)
			want(t, out, fmt.Sprintf("  %-15s ran\n", step), "Crash!")
			f.checkBodies(t, 1, steps[:i+1])

			out = f.run(t)
			want(t, out, "Run 1", "It is RUNNING")
			for n, name := range steps {
				how := "ran"
				if n <= i {
					how = "replayed from its record"
				}
				want(t, out, fmt.Sprintf("  %-15s %s\n", name, how))
			}
			want(t, out, "Every body ran once. Rows for this run in the table of archives: 1.")
			f.checkArchive(t, 1)
			f.checkBodies(t, 1, steps)
		})
	}
}

func TestGoesOnFromTheStepThatFailed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.crash(t, "create_archive")
	path := filepath.Join(f.state, "run-1.zip")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, "damaged")
	var failed *pgqrs.RunError
	if _, err := f.try(t); !errors.As(err, &failed) || !strings.Contains(err.Error(), "damaged") {
		t.Fatalf("got error %v, want that the archive is damaged", err)
	}
	write(t, path, string(whole))
	want(t, f.run(t), "It is ERROR", "create_archive  replayed", "verify_archive  ran")
	f.checkArchive(t, 1)
	f.checkBodies(t, 1, []string{"list_files", "create_archive", "verify_archive", "verify_archive", "record_archive"})
}

func TestTwoDirectoriesHaveARunEach(t *testing.T) {
	t.Parallel()
	f, other := newFixture(t), newFixture(t)
	other.state = f.state
	f.run(t)
	want(t, other.run(t), "Run 2", "Every body ran once")
	f.checkArchive(t, 1)
	other.checkArchive(t, 2)
	f.checkBodies(t, 1, steps)
	f.checkBodies(t, 2, steps)
}

func TestCreatingAnArchiveTwiceIsAsGoodAsOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	path := filepath.Join(t.TempDir(), "x.zip")
	files := append(slices.Collect(maps.Keys(f.files)), "deleted-since")
	slices.Sort(files)
	first, err := create(path, f.directory, files)
	if err != nil {
		t.Fatal(err)
	}
	second, err := create(path, f.directory, files)
	if err != nil || second != first || first.Files != len(f.files) {
		t.Errorf("got %+v, %v, want %+v with %d files", second, err, first, len(f.files))
	}
	if err := verify(first); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(path + "?*"); len(left) > 0 {
		t.Errorf("%q were left behind", left)
	}
}

func TestADirectoryThatIsNotThereStartsNoRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.directory = filepath.Join(f.directory, "not-there")
	if _, err := f.try(t); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v, want one of a missing directory", err)
	}
}

// A fixture is a directory of files, with git's and the example's own state in it.
type fixture struct {
	directory, state string
	files            map[string]string // to be archived
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	directory := t.TempDir()
	f := &fixture{directory: directory, state: filepath.Join(directory, "state"),
		files: map[string]string{"a.txt": "a\n", "empty": "", filepath.Join("below", "b.txt"): strings.Repeat("b\n", 10_000)}}
	for name, content := range f.files {
		write(t, filepath.Join(directory, name), content)
	}
	write(t, filepath.Join(directory, ".git", "config"), "not to be archived")
	return f
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, []byte(content), 0o666)); err != nil {
		t.Fatal(err)
	}
}

// try runs the program in this process, and returns its output.
func (f *fixture) try(t *testing.T) (string, error) {
	t.Helper()
	var out strings.Builder
	err := (&archiver{state: f.state, out: &out}).run(t.Context(), f.directory)
	return out.String(), err
}

func (f *fixture) run(t *testing.T) string {
	t.Helper()
	out, err := f.try(t)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// crash runs the program in a process that kills itself after a step.
func (f *fixture) crash(t *testing.T, step string) string {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-state", f.state, "-crash-after", step, f.directory)
	child.Env = append(os.Environ(), "ARCHIVE_MAIN=1")
	out, err := child.CombinedOutput()
	if err == nil || child.ProcessState.Exited() {
		t.Fatalf("the program was not killed but ended: %v\n%s", err, out)
	}
	return string(out)
}

// checkArchive checks that the archive contains every file once, and nothing else.
func (f *fixture) checkArchive(t *testing.T, run int) {
	t.Helper()
	z, err := zip.OpenReader(filepath.Join(f.state, fmt.Sprintf("run-%d.zip", run)))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	got := map[string]string{}
	for _, entry := range z.File {
		r, err := entry.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Errorf("%s: %v", entry.Name, err)
		}
		got[filepath.FromSlash(entry.Name)] = string(content)
	}
	if !maps.Equal(got, f.files) || len(z.File) != len(f.files) {
		t.Errorf("the archive has %q, want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(f.files)))
	}
}

// checkBodies checks which bodies of a run are in the log, in order.
func (f *fixture) checkBodies(t *testing.T, run int, want []string) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(f.state, "bodies.log"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(log)) {
		if rest, ok := strings.CutPrefix(line, fmt.Sprintf("run %d, ", run)); ok {
			step, _, _ := strings.Cut(rest, ":")
			got = append(got, step)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the bodies %q ran, want %q", got, want)
	}
}

// want checks that the output contains all texts.
func want(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("the output has no %q:\n%s", text, out)
		}
	}
}
