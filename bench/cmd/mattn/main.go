// Command mattn runs the queues that are written for github.com/mattn/go-sqlite3. It is a program
// of its own because that driver and github.com/ncruces/go-sqlite3 register the same name. The
// command cmd/bench starts it, and they communicate by the protocol of package measure.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"

	_ "github.com/mattn/go-sqlite3"
)

func main() {
	if err := measure.Serve(context.Background(), os.Stdin, os.Stdout, open); err != nil {
		fmt.Fprintln(os.Stderr, "mattn:", err)
		os.Exit(1)
	}
}

// A peer opens its session for a workload. It calls fresh to create a database.
type peer func(ctx context.Context, workload string, spec measure.Spec, fresh func() (*database, error)) (*measure.Session, error)

var peers = map[string]peer{"backlite": openBacklite, "goqite": openGoqite, "ours": openOurs}

func open(ctx context.Context, r measure.Request) (*measure.Session, []string, error) {
	start, ok := peers[r.Contestant]
	if !ok {
		return nil, nil, fmt.Errorf("no contestant %q", r.Contestant)
	}
	fresh := func() (*database, error) { return newDatabase(ctx, r.Spec) }
	db, err := fresh()
	if err != nil {
		return nil, nil, err
	}
	facts, err := db.facts(ctx)
	if err == nil {
		err = db.drop()
	}
	if err != nil {
		return nil, nil, err
	}
	session, err := start(ctx, r.Workload, r.Spec, fresh)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", r.Contestant, err)
	}
	return session, facts, nil
}

// A database is a file of its own, with one connection. The documentation of both queues asks for
// one connection, or they are fastest with it.
type database struct {
	*sql.DB
	dir string
}

func newDatabase(ctx context.Context, spec measure.Spec) (*database, error) {
	dir, err := os.MkdirTemp(spec.Dir, "mattn-")
	if err != nil {
		return nil, err
	}
	dsn := "file:" + filepath.Join(dir, "queue.db") + "?_journal_mode=WAL&_busy_timeout=10000&_txlock=immediate&_synchronous=" + spec.Synchronous
	db, err := sql.Open("sqlite3", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return &database{db, dir}, db.PingContext(ctx)
}

func (db *database) drop() error {
	if err := db.Close(); err != nil {
		return err
	}
	return os.RemoveAll(db.dir)
}

// facts reads the database's settings.
func (db *database) facts(ctx context.Context) ([]string, error) {
	var facts []string
	for _, q := range []struct{ name, query string }{
		{"SQLite", "SELECT sqlite_version()"},
		{"journal_mode", "PRAGMA journal_mode"},
		{"synchronous", "PRAGMA synchronous"},
	} {
		var value string
		if err := db.QueryRowContext(ctx, q.query).Scan(&value); err != nil {
			return nil, err
		}
		facts = append(facts, q.name+"="+value)
	}
	return facts, nil
}

// count counts rows.
func (db *database) count(ctx context.Context, query string, args ...any) (int, error) {
	var n int
	err := db.QueryRowContext(ctx, query, args...).Scan(&n)
	return n, err
}

// checkpoint empties the log, so that every measurement starts with an empty log.
func (db *database) checkpoint(ctx context.Context) error {
	var busy, log, done int
	return db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done)
}

// enqueuing measures calls that store spec.Items each. The query stored counts the stored rows.
func (db *database) enqueuing(spec measure.Spec, stored string, call func(context.Context) error) *measure.Session {
	total := 0
	round := func(ctx context.Context) (measure.Sample, error) {
		sample, n, err := measure.Loop(ctx, spec.Goroutines, spec.Items, spec.Time, func(ctx context.Context, _ int) error { return call(ctx) })
		if err != nil {
			return nil, err
		}
		total += n * spec.Items
		rows, err := db.count(ctx, stored)
		if err == nil && rows != total {
			err = fmt.Errorf("%d were enqueued and %d stored", total, rows)
		}
		return sample, errors.Join(err, db.checkpoint(ctx))
	}
	return &measure.Session{Round: round, Close: db.drop}
}
