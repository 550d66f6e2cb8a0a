package main

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/pgqrs/pgqrs-go"

	_ "github.com/ncruces/go-sqlite3/driver" // registers "sqlite3", without cgo
)

// list returns the regular files below a directory, by their paths in it, without git's and the
// example's own.
func list(directory, state string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || path == state):
			return filepath.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		name, err := filepath.Rel(directory, path)
		files = append(files, name)
		return err
	})
	return files, err
}

// create puts the files into a zip. It writes a temporary file and renames it, so nobody sees half
// an archive, and a second call does no harm.
func create(path, directory string, files []string) (Archive, error) {
	archive := Archive{Path: path}
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return archive, err
	}
	defer f.Close()
	hash := sha256.New()
	z := zip.NewWriter(io.MultiWriter(f, hash))
	for _, name := range files {
		err := add(z, directory, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since the listing
		}
		if err != nil {
			return archive, err
		}
		archive.Files++
	}
	if err := errors.Join(z.Close(), f.Sync(), f.Close()); err != nil {
		return archive, err
	}
	archive.SHA256 = fmt.Sprintf("%x", hash.Sum(nil))
	return archive, os.Rename(f.Name(), path)
}

func add(z *zip.Writer, directory, name string) error {
	from, err := os.Open(filepath.Join(directory, name))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := z.Create(filepath.ToSlash(name))
	if err == nil {
		_, err = io.Copy(to, from)
	}
	return err
}

// verify reads the archive again and compares its checksum.
func verify(archive Archive) error {
	f, err := os.Open(archive.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return err
	}
	if sum := fmt.Sprintf("%x", hash.Sum(nil)); sum != archive.SHA256 {
		return pgqrs.Permanent(fmt.Errorf("%s is damaged: its SHA-256 is %s, not %s", archive.Path, sum, archive.SHA256))
	}
	return nil
}

// A witness records which step bodies ran in one execution of a run.
type witness struct {
	*archiver
	run int64
	ran string // the last one
}

// body records in a log outside the workflow that a step's body runs.
func (w *witness) body(step string) {
	w.ran = step
	f, err := os.OpenFile(filepath.Join(w.state, "bodies.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err == nil {
		_, err = fmt.Fprintf(f, "run %d, %s: process %d\n", w.run, step, os.Getpid())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		panic(err) // a panic fails the step like an error
	}
}

// recorded prints how a step got its result.
func (w *witness) recorded(step string) {
	if w.ran != step {
		fmt.Fprintf(w.out, "  %-15s replayed from its record\n", step)
		return
	}
	fmt.Fprintf(w.out, "  %-15s ran\n", step)
	if step == w.crashAfter {
		fmt.Fprintln(w.out, "Crash! Now run it again without -crash-after.")
		self, _ := os.FindProcess(os.Getpid()) // never fails for the own process
		self.Kill()
		select {}
	}
}

// processes returns the processes in which the body of a step ran.
func (a *archiver) processes(run int64, step string) (ids []string, err error) {
	log, err := os.ReadFile(filepath.Join(a.state, "bodies.log"))
	for line := range strings.Lines(string(log)) {
		if id, ok := strings.CutPrefix(line, fmt.Sprintf("run %d, %s: process ", run, step)); ok {
			ids = append(ids, strings.TrimSpace(id))
		}
	}
	return ids, err
}

// open opens a database in which writers wait for each other instead of failing. It also creates
// the example's own table.
func open(ctx context.Context, directory string) (*sql.DB, error) {
	if err := os.MkdirAll(directory, 0o777); err != nil {
		return nil, err
	}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(filepath.Join(directory, "archive.db")),
		RawQuery: "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)"}
	db, err := sql.Open("sqlite3", dsn.String())
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS archives (run INTEGER, path TEXT, files INTEGER, sha256 TEXT)"); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}
