package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// repositoryRoot returns the nearest directory with a .git, from the current directory upwards.
// Without one it returns the current directory.
func repositoryRoot() string {
	for dir := "."; ; dir = filepath.Join(dir, "..") {
		if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
			return dir
		}
		if abs, err := filepath.Abs(dir); err != nil || abs == filepath.Dir(abs) {
			return "."
		}
	}
}

// list returns the regular files below a directory, sorted by path. It leaves out git's files and
// the example's own database.
func list(directory, database string) ([]File, error) {
	database, err := filepath.Abs(database)
	if err != nil {
		return nil, err
	}
	var files []File
	err = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".git":
			return filepath.SkipDir
		// The database has the files -wal and -shm too.
		case !entry.Type().IsRegular() || strings.HasPrefix(path, database):
			return nil
		}
		files = append(files, File{Path: path})
		return nil
	})
	if err == nil && len(files) == 0 {
		err = errors.New("there are no files below " + directory)
	}
	return files, err
}

// A digest describes the content of a file.
type digest struct {
	sha256       string
	lines, bytes int64
}

// readFile reads a file of any size.
func readFile(path string) (digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return digest{}, err
	}
	defer f.Close()
	var lines lineCounter
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(hash, &lines), f)
	return digest{fmt.Sprintf("%x", hash.Sum(nil)), int64(lines), n}, err
}

// A lineCounter counts the newlines that are written to it.
type lineCounter int64

func (c *lineCounter) Write(p []byte) (int, error) {
	*c += lineCounter(bytes.Count(p, []byte("\n")))
	return len(p), nil
}

// A screen writes lines, and the progress below them. On a terminal the progress is a line that is
// overwritten. Otherwise it is a line now and then.
type screen struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	line     string    // on a terminal: the progress below the lines
	written  time.Time // otherwise: when the progress was last written
}

func newScreen(out *os.File) *screen {
	info, err := out.Stat()
	return &screen{out: out, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

const eraseLine = "\r\x1b[K"

// printf writes lines.
func (s *screen) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if s.line != "" {
		text = eraseLine + text + s.line
	}
	fmt.Fprint(s.out, text)
}

// progress writes the progress.
func (s *screen) progress(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	if s.terminal {
		s.line = line
		fmt.Fprint(s.out, eraseLine+line)
	} else if time.Since(s.written) > 2*time.Second {
		s.written = time.Now()
		fmt.Fprintln(s.out, line)
	}
}

// endProgress keeps the progress line on the screen.
func (s *screen) endProgress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line != "" {
		s.line = ""
		fmt.Fprintln(s.out)
	}
}

// finished writes which attempts failed. The worker calls it after each attempt.
func (s *screen) finished(_ context.Context, m *pgqrs.MessageInfo, _ time.Duration, err error) {
	if err != nil {
		s.printf("Attempt %d: %v\n", m.Attempt, err)
	}
}
