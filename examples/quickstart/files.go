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

// repositoryRoot returns the nearest directory, from the current one upwards,
// that has a .git, or else the current one.
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

// list returns the regular files below a directory in the order of their
// paths, without those of git and of the example's own database.
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
		case !entry.Type().IsRegular() || strings.HasPrefix(path, database): // its -wal and -shm too
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

// A digest is what there is to know about a file.
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

// A screen writes lines and, below them, how far the work is: on a terminal in
// a line that is written over, elsewhere in a line now and then.
type screen struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	line     string    // on a terminal, the progress below the lines
	written  time.Time // elsewhere, when progress was
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

// progress writes how far the work is.
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

// endProgress leaves the progress line as it is.
func (s *screen) endProgress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line != "" {
		s.line = ""
		fmt.Fprintln(s.out)
	}
}

// finished writes which attempts failed. The worker calls it after each.
func (s *screen) finished(_ context.Context, m *pgqrs.MessageInfo, _ time.Duration, err error) {
	if err != nil {
		s.printf("Attempt %d: %v\n", m.Attempt, err)
	}
}
