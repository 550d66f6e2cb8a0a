package dsn

import (
	"bytes"
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// secret must not be readable in a file. The key is its twin.
const secret = "a payload that nobody should read"

// Encrypted opens encrypted files, with the right key and with wrong keys.
func Encrypted(t *testing.T, d Driver) {
	for cipher, size := range d.Ciphers {
		t.Run("encrypted with "+cipher, func(t *testing.T) {
			key := bytes.Repeat([]byte{0x5a, 0xc3}, size/2)
			config := pgqrs.Config{EncryptionKey: hex.EncodeToString(key), Cipher: cipher}
			if cipher == d.Cipher {
				config.Cipher = "" // it is the default
			}
			e := encrypted{d, config, t.TempDir()}
			e.fill(t)
			t.Run("a wrong key is refused and does no harm", func(t *testing.T) { e.wrong(t, otherKey(config), "the encryption_key or the cipher is wrong") })
			t.Run("a missing key is refused and does no harm", func(t *testing.T) { e.wrong(t, pgqrs.Config{}, "it is encrypted and there is no encryption_key") })
			t.Run("a key for a file that is not encrypted is refused", func(t *testing.T) {
				plain := filepath.Join(t.TempDir(), "plain.db")
				if s := Open(t, pgqrs.Config{}, d.Scheme+":"+plain); s.Install(t.Context()) != nil {
					t.Fatal("install failed")
				}
				e.refused(t, config, plain, "or the file is not encrypted")
			})
		})
	}
}

// otherKey returns a Config whose key differs in the last bit.
func otherKey(c pgqrs.Config) pgqrs.Config {
	c.EncryptionKey = strings.TrimSuffix(c.EncryptionKey, "3") + "2"
	return c
}

// An encrypted is a database with a message, as a crash would leave it: most of it is only in the
// log.
type encrypted struct {
	Driver
	config pgqrs.Config
	dir    string
}

func (e encrypted) dsn(dir string) string { return e.Scheme + ":" + filepath.Join(dir, "q.db") }

// fill creates the database, searches its files for the payload, and copies them while they are in
// use.
func (e encrypted) fill(t *testing.T) {
	live := t.TempDir()
	enqueue(t, Open(t, e.config, e.dsn(live)))
	copyFiles(t, live, e.dir)
	if name := fileWith(t, live, secret); name != "" {
		t.Errorf("the payload can be read in %s", name)
	}
	if name := fileWith(t, live, e.config.EncryptionKey); name != "" {
		t.Errorf("the key can be read in %s", name)
	}
	plain := t.TempDir()
	enqueue(t, Open(t, pgqrs.Config{}, e.dsn(plain)))
	if fileWith(t, plain, secret) == "" {
		t.Error("not even without encryption the payload can be read: the search finds nothing")
	}
}

func enqueue(t *testing.T, s *pgqrs.Store) {
	t.Helper()
	install(t, s)
	if _, err := pgqrs.NewQueue[string](s, "q").Enqueue(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
}

// wrong opens a copy of the files with another Config, and then with the right one.
func (e encrypted) wrong(t *testing.T, c pgqrs.Config, want string) {
	dir := t.TempDir()
	copyFiles(t, e.dir, dir)
	e.refused(t, c, filepath.Join(dir, "q.db"), want)

	s := Open(t, e.config, e.dsn(dir))
	ms, err := pgqrs.NewQueue[string](s, "q").Dequeue(t.Context(), 2, time.Minute)
	if err != nil || len(ms) != 1 || ms[0].Payload != secret {
		t.Errorf("with the right key after that: %v, %v; want the message", ms, err)
	}
}

func (e encrypted) refused(t *testing.T, c pgqrs.Config, path, want string) {
	t.Helper()
	s, err := c.Open(context.Background(), e.Scheme+":"+path)
	if err == nil {
		t.Fatalf("it was opened (%v)", s.Close())
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v; want one that says %q", err, want)
	}
	if c.EncryptionKey != "" && strings.Contains(err.Error(), c.EncryptionKey) {
		t.Errorf("the key shows in %v", err)
	}
}

func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// fileWith returns the name of a file in dir that contains the text.
func fileWith(t *testing.T, dir, text string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) < 2 {
		t.Fatalf("files are %q, %v; want the database and its log", files, err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(text)) {
			return filepath.Base(name)
		}
	}
	return ""
}
