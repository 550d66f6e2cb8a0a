package faults_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/pool"

	_ "github.com/ncruces/go-sqlite3/driver"
)

// fileDSN has the settings that docs/BACKENDS.md requires.
func fileDSN(path string) string {
	return "file:" + filepath.ToSlash(path) + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_pragma=foreign_keys(on)"
}

func openFile(t *testing.T, path string) *sql.DB {
	t.Helper()
	db := open(t, "sqlite3", fileDSN(path))
	db.SetMaxOpenConns(pool.Max)
	db.SetMaxIdleConns(pool.Max)      // connections keep their settings
	if err := db.Ping(); err != nil { // on one connection, to turn on WAL
		t.Fatal(err)
	}
	return db
}

func TestSQLite(t *testing.T) {
	inject(t, []fault{
		{"another process keeps the write lock", testLocked},
		{"the disk is full, as the pages are counted", testMaxPages},
		{"the disk is full", testFullFile},
		{"the file is read-only", testReadOnlyFile},
		{"eight processes share the file", testShared},
	})
}

// workOnFile starts an application on a file of its own.
func workOnFile(t *testing.T) (w *workload, db *sql.DB, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "queue.db")
	db = openFile(t, path)
	return work(t, db, pgqrs.SQLite, pgqrs.Config{}), db, path
}

// testLocked makes a process hold the write lock, for longer than the busy timeout and the ctx of
// calls.
func testLocked(t *testing.T, share time.Duration) {
	w, db, path := workOnFile(t)
	runs := 0
	for runs = range rounds(1, share) {
		w.progress(50)
		locker := spawn(t, task{Driver: "sqlite3", DSN: fileDSN(path), Lock: true})
		w.refusals(3 * producers)
		locker.end()
		w.progress(50)
	}
	w.finish(db, "SQLite: another process keeps the write lock", "BEGIN IMMEDIATE for seconds", runs, "database is locked", "deadline exceeded", "interrupted")
}

func testMaxPages(t *testing.T, share time.Duration) {
	w, db, _ := workOnFile(t)
	runs := 0
	for runs = range rounds(2, min(share, time.Minute)) {
		w.progress(50)
		everywhere(t, db, "PRAGMA max_page_count = 1") // SQLite uses the size of the file if it is larger
		w.refusals(20)
		everywhere(t, db, "PRAGMA max_page_count = 1000000")
		w.progress(50)
	}
	w.finish(db, "SQLite: the disk is full", "PRAGMA max_page_count", runs, "database or disk is full")
}

// everywhere runs a statement on every connection of the pool.
func everywhere(t *testing.T, db *sql.DB, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range pool.Max {
		conn, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() // not before all connections are open
		if _, err := conn.ExecContext(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
}

func testFullFile(t *testing.T, share time.Duration) {
	dir := t.TempDir()
	mountSmall(t, dir, "64m")
	db := openFile(t, filepath.Join(dir, "queue.db"))
	t.Cleanup(func() { db.Close() }) // before the disk is removed
	w := work(t, db, pgqrs.SQLite, pgqrs.Config{})
	runs := 0
	for runs = range rounds(2, min(share, time.Minute)) {
		w.progress(50)
		filler := fill(t, dir)
		w.refusals(20)
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		w.progress(50)
	}
	w.finish(db, "SQLite: the disk is full", "a small tmpfs", runs, "database or disk is full", "disk I/O error")
}

func testReadOnlyFile(t *testing.T, share time.Duration) {
	w, db, _ := workOnFile(t)
	runs := 0
	for runs = range rounds(2, share) {
		w.progress(50)
		everywhere(t, db, "PRAGMA query_only = true")
		w.refusals(20)
		everywhere(t, db, "PRAGMA query_only = false")
		w.progress(50)
	}
	w.finish(db, "SQLite: the file is read-only", "PRAGMA query_only", runs, "readonly database")
}

// testShared adds seven more processes that work on the file.
func testShared(t *testing.T, share time.Duration) {
	w, db, path := workOnFile(t)
	w.progress(1)
	children := make([]*child, 7)
	for i := range children {
		children[i] = spawn(t, task{Name: fmt.Sprint("neighbour ", i), Driver: "sqlite3", DSN: fileDSN(path), Dialect: pgqrs.SQLite, Pace: pace{Sends: 50 * time.Millisecond}})
	}
	for range rounds(4, share) {
		w.progress(50)
	}
	for _, c := range children {
		w.join(c)
	}
	w.finish(db, "SQLite: eight processes on one file", "workers and a producer in each", 8)
}
