// Archive puts the files below a directory into a zip, in four steps of a durable workflow. The
// workflow survives a crash between any two steps:
//
//	go run ./examples/archive -crash-after create_archive
//	go run ./examples/archive
//
// The second command continues the run of the first. It does not create the archive again, because
// the result of that step is recorded.
//
// This file has the workflow. The file files.go creates archives and keeps a log.
package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

var steps = []string{"list_files", "create_archive", "verify_archive", "record_archive"}

func main() {
	state := flag.String("state", filepath.Join(os.TempDir(), "pgqrs-archive"), "keep the database, the log and the archives in this `directory`")
	crashAfter := flag.String("crash-after", "", fmt.Sprintf("kill this process, by SIGKILL, once this `step` is recorded: one of %q", steps))
	flag.Parse()
	if flag.NArg() > 1 || *crashAfter != "" && !slices.Contains(steps, *crashAfter) {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop)
	a := &archiver{state: *state, crashAfter: *crashAfter, out: os.Stdout}
	if err := a.run(ctx, cmp.Or(flag.Arg(0), ".")); err != nil {
		fmt.Fprintln(os.Stderr, "archive:", err)
		os.Exit(1)
	}
}

type archiver struct {
	state, crashAfter string
	out               io.Writer
}

// An Archive is the result of the workflow.
type Archive struct {
	Path   string `json:"path"`
	Files  int    `json:"files"`
	SHA256 string `json:"sha256"`
}

// archive is the workflow's function. After a crash it runs again from its beginning, and recorded
// steps return their results without running their bodies. It reads and changes the outside world
// only in steps.
func (a *archiver) archive(ctx context.Context, run *pgqrs.Run, directory string) (Archive, error) {
	w := &witness{archiver: a, run: run.ID()}

	files, err := pgqrs.Step(ctx, run, "list_files", func(context.Context) ([]string, error) {
		w.body("list_files")
		return list(directory, a.state)
	})
	if err != nil {
		return Archive{}, err
	}
	w.recorded("list_files")

	// A body runs again if its process dies before the result is recorded, so a second run must do
	// no harm. This body replaces the file that it made before.
	archive, err := pgqrs.Step(ctx, run, "create_archive", func(context.Context) (Archive, error) {
		w.body("create_archive")
		return create(filepath.Join(a.state, fmt.Sprintf("run-%d.zip", run.ID())), directory, files)
	})
	if err != nil {
		return Archive{}, err
	}
	w.recorded("create_archive")

	err = run.Do(ctx, "verify_archive", func(context.Context) error {
		w.body("verify_archive")
		return verify(archive)
	})
	if err != nil {
		return Archive{}, err
	}
	w.recorded("verify_archive")

	// The row and the step's record are committed together, so there is exactly one row.
	err = run.DoTx(ctx, "record_archive", func(ctx context.Context, tx *sql.Tx) error {
		w.body("record_archive")
		_, err := tx.ExecContext(ctx, "INSERT INTO archives VALUES (?, ?, ?, ?)", run.ID(), archive.Path, archive.Files, archive.SHA256)
		return err
	})
	if err != nil {
		return Archive{}, err
	}
	w.recorded("record_archive")
	return archive, nil
}

// After a kill -9 the run stays leased to the dead process until the lease ends. A short lease
// makes the wait short. Steps may take longer, because a worker renews its leases while it lives.
const lease = 2 * time.Second

// run starts a run for the directory, or finds the run that was started before, and works until the
// run has ended.
func (a *archiver) run(ctx context.Context, directory string) (err error) {
	if directory, err = filepath.Abs(directory); err != nil {
		return err
	}
	if _, err := os.Stat(directory); err != nil {
		return err
	}
	if a.state, err = filepath.Abs(a.state); err != nil {
		return err
	}
	db, err := open(ctx, a.state)
	if err != nil {
		return fmt.Errorf("open the database in %s: %w", a.state, err)
	}
	defer db.Close()
	store := pgqrs.New(db, pgqrs.SQLite)
	defer store.Close()
	if err := store.Install(ctx); err != nil {
		return err
	}
	workflow := pgqrs.NewWorkflow[string, Archive](store, "archive")
	run, err := workflow.Start(ctx, directory, pgqrs.Key(directory)) // the key makes it the same run each time
	if err != nil {
		return err
	}
	info, err := run.Info(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "Run %d is to archive %s. It is %s.\n", run.ID(), directory, info.Status)
	switch info.Status {
	case pgqrs.Running:
		fmt.Fprintf(a.out, "If it was killed, it goes on when its lease has ended, in about %v.\n", lease)
	case pgqrs.Failed:
		if err := run.Retry(ctx); err != nil { // continues from the step that failed
			return err
		}
	}

	working, cancel := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() {
		defer cancel()
		stopped <- (&pgqrs.Worker{Handlers: []pgqrs.Handler{workflow.Handle(a.archive)}, Lease: lease}).Run(working)
	}()
	archive, err := run.Result(working)
	cancel()
	if err := errors.Join(err, <-stopped); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%d files are in %s, which has the SHA-256 %s.\n\n", archive.Files, archive.Path, archive.SHA256)
	return a.summarize(ctx, db, run)
}

// summarize prints the recorded steps, and which of their bodies are in the log.
func (a *archiver) summarize(ctx context.Context, db *sql.DB, run *pgqrs.RunHandle[Archive]) error {
	recorded, err := run.Steps(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(a.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "STEP\tSTATUS\tRECORDED AT\tBODY RAN IN PROCESS")
	verdict := "Every body ran once."
	for _, step := range recorded {
		processes, err := a.processes(run.ID(), step.Name)
		if err != nil {
			return err
		}
		if len(processes) != 1 {
			verdict = "A body did not run once."
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%v\n", step.Name, step.Status, step.EndedAt.Local().Format("15:04:05.000"), processes)
	}
	table.Flush()
	var rows int
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM archives WHERE run = ?", run.ID()).Scan(&rows)
	fmt.Fprintf(a.out, "\n%s Rows for this run in the table of archives: %d.\nTo start over, delete %s.\n", verdict, rows, a.state)
	return err
}
