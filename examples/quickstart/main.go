// Quickstart hashes every file below a directory and counts its lines. It uses a durable queue in a
// SQLite file, with one message for each file and no server.
//
//	go run ./examples/quickstart [-db file] [-slow time] [directory]
//
// Press Ctrl-C while it works, or kill it, and run it again. It continues where it stopped, and
// counts no file twice. The flag -slow 200ms leaves time for this. A second process that is started
// meanwhile shares the work.
//
// This file has the queue. The file files.go reads files and writes to the screen.
package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pgqrs/pgqrs-go"

	_ "github.com/ncruces/go-sqlite3/driver" // registers "sqlite3", without cgo
)

func main() {
	database := flag.String("db", filepath.Join(os.TempDir(), "pgqrs-quickstart.db"), "keep the queue and the results in this SQLite `file`")
	slow := flag.Duration("slow", 0, "take this much `time` more for each file, so that you can press Ctrl-C")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: quickstart [flags] [directory]\n\nBy default the directory is the repository you are in.")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 1 {
		flag.Usage()
		os.Exit(2)
	}
	// The first Ctrl-C ends ctx, and the work ends in good order. The second one ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	c := &counter{database: *database, directory: cmp.Or(flag.Arg(0), repositoryRoot()), slow: *slow, screen: newScreen(os.Stdout)}
	if err := c.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// A File is the payload of a message. It is stored as JSON.
type File struct {
	Path     string `json:"path"`
	Failures int    `json:"failures,omitempty"` // how many attempts fail, to demonstrate retries
}

// A counter counts the files below a directory.
type counter struct {
	database, directory string
	slow                time.Duration
	screen              *screen

	db    *sql.DB
	store *pgqrs.Store
	files *pgqrs.Queue[File]
}

const maxAttempts = 5 // then a message becomes a dead letter

func (c *counter) run(ctx context.Context) (err error) {
	if c.directory, err = filepath.Abs(c.directory); err != nil {
		return err
	}
	c.screen.printf("Counting the files below %s.\nThe queue and the results are kept in %s.\n", c.directory, c.database)
	if c.db, err = open(ctx, c.database); err != nil {
		return fmt.Errorf("open %s: %w", c.database, err)
	}
	defer c.db.Close()

	// The queue's tables are in the same database as the application's own tables. Install creates
	// them if they are missing, so every start may call it.
	c.store = pgqrs.Config{Observer: &pgqrs.Observer{Finished: c.screen.finished}}.New(c.db, pgqrs.SQLite)
	defer c.store.Close()
	if err := c.store.Install(ctx); err != nil {
		return err
	}
	c.files = pgqrs.NewQueue[File](c.store, "files").With(pgqrs.Policy{
		MaxAttempts: maxAttempts,
		// The backoff is short, because somebody is watching.
		Backoff: pgqrs.Exponential(100*time.Millisecond, time.Second),
	})

	if err := c.enqueueOnce(ctx); err != nil {
		return err
	}
	if err := c.work(ctx); err != nil {
		return err
	}
	return c.summarize(context.WithoutCancel(ctx)) // after Ctrl-C too
}

// open opens a database, and creates the example's own tables. Writers wait for each other instead
// of failing, and readers do not wait for writers. No unique index keeps a path from being counted
// twice, because count does.
func open(ctx context.Context, file string) (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(file),
		RawQuery: "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)"}
	db, err := sql.Open("sqlite3", dsn.String())
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, `
		CREATE TABLE IF NOT EXISTS scanned (directory TEXT PRIMARY KEY);
		CREATE TABLE IF NOT EXISTS counted (path TEXT NOT NULL, sha256 TEXT NOT NULL, lines INTEGER NOT NULL, bytes INTEGER NOT NULL, attempt INTEGER NOT NULL)`); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// enqueueOnce enqueues all files, unless an earlier process did. The messages and a row that
// records this are stored in one transaction. So the next process finds both or neither.
func (c *counter) enqueueOnce(ctx context.Context) error {
	files, err := list(c.directory, c.database)
	if err != nil {
		return err
	}
	flaky, broken := &files[0], &files[len(files)-1]
	broken.Failures, flaky.Failures = maxAttempts, 2

	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	// A transaction on SQLite should begin with a write, like this one. A transaction that has read
	// first cannot wait for other writers.
	result, err := tx.ExecContext(ctx, "INSERT INTO scanned VALUES (?) ON CONFLICT DO NOTHING", c.directory)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		c.screen.printf("An earlier run has enqueued them. Carrying on.\n")
		return nil
	}
	if _, err := c.files.WithTx(tx).EnqueueBatch(ctx, files); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	c.screen.printf("Enqueued %d files. For show, %s will fail twice, and %s each time.\n", len(files), flaky.Path, broken.Path)
	return nil
}

// work runs a worker until all files are done or ctx is done.
func (c *counter) work(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	worker := &pgqrs.Worker{
		Handlers:    []pgqrs.Handler{c.files.Handle(c.count)},
		Concurrency: 4,
		// After a kill -9, files that were in progress are delivered again once their leases have
		// ended. A short lease makes the wait short. Handlers may take longer, because a worker
		// renews its leases while it lives.
		Lease: 2 * time.Second,
		Grace: 5 * time.Second, // for the files in progress after Ctrl-C
	}
	stopped := make(chan error, 1)
	go func() {
		defer cancel()
		stopped <- worker.Run(ctx)
	}()
	err := c.watch(ctx)
	cancel() // Run claims no more, finishes the messages it has, and returns
	err = errors.Join(err, <-stopped)
	c.screen.endProgress()
	return err
}

// count handles the message of one file. A message can be handled more than once, for example after
// a crash. So its result is stored in the transaction that acks the message, and both happen or
// neither. If another worker has the message meanwhile, Ack returns an error, and nothing is
// stored.
//
// For handlers that only execute SQL, Queue.HandleTx does all this. Here it would block other
// writers while a large file is read.
func (c *counter) count(ctx context.Context, m *pgqrs.Message[File]) error {
	select {
	case <-time.After(c.slow):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if m.Attempt <= m.Payload.Failures {
		return fmt.Errorf("%s: simulated failure", m.Payload.Path)
	}
	d, err := readFile(m.Payload.Path)
	if errors.Is(err, os.ErrNotExist) {
		return pgqrs.Permanent(err) // a dead letter at once
	}
	if err != nil {
		return err // retried after Policy.Backoff
	}
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "INSERT INTO counted VALUES (?, ?, ?, ?, ?)",
		m.Payload.Path, d.sha256, d.lines, d.bytes, m.Attempt); err != nil {
		return err
	}
	if err := c.files.WithTx(tx).Ack(ctx, m); err != nil {
		return err
	}
	return tx.Commit()
}

// watch shows the progress until no work is left or ctx is done.
func (c *counter) watch(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		q, err := c.queue(ctx)
		if ctx.Err() != nil {
			c.screen.printf("Stopping when the files in hand are done.\n")
			return nil
		}
		if err != nil {
			return err
		}
		c.screen.progress("%d done, %d ready, %d in hand, %d waiting to be tried again, %d dead", q.Archived, q.Ready, q.Leased, q.Scheduled, q.Dead)
		if unfinished(q) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// queue returns how many messages of the queue are in which state.
func (c *counter) queue(ctx context.Context) (pgqrs.QueueInfo, error) {
	queues, err := c.store.Queues(ctx, "files")
	if err != nil {
		return pgqrs.QueueInfo{}, err
	}
	if len(queues) == 0 {
		return pgqrs.QueueInfo{}, fmt.Errorf("queue %q: %w", "files", pgqrs.ErrNotFound)
	}
	return queues[0], nil
}

func unfinished(q pgqrs.QueueInfo) int64 { return q.Ready + q.Leased + q.Scheduled }

// summarize prints the counts of the queue and the results.
func (c *counter) summarize(ctx context.Context) error {
	q, err := c.queue(ctx)
	if err != nil {
		return err
	}
	c.screen.printf("\nQueue %q: %d archived, %d ready, %d leased, %d scheduled, %d dead\n", q.Name, q.Archived, q.Ready, q.Leased, q.Scheduled, q.Dead)

	dead, err := c.store.Messages(ctx, pgqrs.MessageFilter{Queue: q.Name, State: pgqrs.Dead, Limit: 10})
	if err != nil {
		return err
	}
	for _, m := range dead {
		c.screen.printf("Dead letter %d, attempt %d: %s\n", m.ID, m.Attempt, m.LastError)
	}

	var files, lines, bytes, retried, twice int64
	if err := c.db.QueryRowContext(ctx, `
		SELECT count(*), COALESCE(sum(lines), 0), COALESCE(sum(bytes), 0), count(*) FILTER (WHERE attempt > 1), count(*) - count(DISTINCT path) FROM counted`,
	).Scan(&files, &lines, &bytes, &retried, &twice); err != nil {
		return err
	}
	c.screen.printf("Counted: %d files, %d lines, %d bytes; %d of them not at the first attempt, %d twice\n", files, lines, bytes, retried, twice)

	if n := unfinished(q); n > 0 {
		c.screen.printf("\nThere are %d files to go. Run it again to carry on.\n", n)
	} else {
		c.screen.printf("\nEverything is done. To start over, delete %s.\n", c.database)
	}
	return nil
}
