package main

import (
	"math"
	"path/filepath"
	"strings"
	"testing"
)

func TestADatabaseIsNamedWithoutItsSecrets(t *testing.T) {
	for dsn, want := range map[string]string{
		"postgres://ada:secret@db.example.com:5432/shop?password=secret": "postgres db.example.com:5432/shop",
		"sqlite:queue.db?key=secret":                                     "sqlite queue.db",
		"sqlite:queue.db;key=secret":                                     "sqlite queue.db;key=[redacted]",
		"turso:file.db":                                                  "turso file.db",
		"sqlite:/var/lib/queue.db":                                       "sqlite /var/lib/queue.db",
		"%":                                                              "the database",
	} {
		if got := place(dsn); got != want {
			t.Errorf("%s is named %q; want %q", dsn, got, want)
		}
	}
}

// Arguments that make no sense are wrong usage, and the error says what would be right.
func TestMistakesAreWrongUsage(t *testing.T) {
	s := newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))
	for line, says := range map[string]string{
		"enqueue emails -priority 7 1":       "7 is not between -1 and 2",
		"enqueue emails -delay -5s 1":        "it is negative",
		"messages list emails -limit 0":      "0 is not between 1 and 1000",
		"schedules history nightly -limit 0": "0 is not between 1 and 1000",
		"runs list -state done":              "queued, running",
		"mesages":                            `is it "messages"?`,
	} {
		if o := s.do("", strings.Fields(line)...); o.code != exitUsage || !strings.Contains(o.err, says) || !strings.Contains(o.err, "-help.") {
			t.Errorf("%s: exit code %d, and it says: %s", line, o.code, o.err)
		}
	}
}

// The least duration has no negative. A time that is 292 years away produces it.
func TestASpanMayBeTheLeastDuration(t *testing.T) {
	if got := span(math.MinInt64); got != "-106751d23h" {
		t.Errorf("it is %q", got)
	}
}

// An error about a misplaced DSN quotes it without its password.
func TestAMisplacedDSNShowsNoPassword(t *testing.T) {
	s := newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))
	for _, dsn := range []string{"postgres://ada:secret@db.example.com/shop", "postgres://ada:sec/r@et@db.example.com/shop", "host=db password='secret it is'", "password=secret",
		"postgres://ada:sec ret@db.example.com/shop", "postgres://ada:secret", "postgres:ada:secret@db.example.com/shop", "postgres:/ada:secret@db.example.com/shop", "ada:secret@db.example.com/shop",
		"postgres://ada:%73ecret@db.example.com/shop", "postgres://ada:\"sec\"ret@db.example.com/shop", "libsql://db.example.com?authToken=secret", "dbname=shop pwd=secret", "-password=secret", "--encryption_key=secret",
		"sqlite:queue.db?encryptionkey=secret", "sqlite:queue.db?key=secret", "sqlite:queue.db;key=secret", "sqlite:queue.db;encryption_key=secret", "turso:queue.db?encryption_hexkey=secret",
	} {
		for _, args := range [][]string{{"stats", dsn, "x"}, {dsn, "stats"}, {"queues", dsn}, {"-dsn-file", dsn, "stats"}} {
			o := s.do("", args...)
			if o.code == exitDone || strings.Contains(o.err+o.out, "sec") {
				t.Errorf("%q: exit code %d, and it says: %s%s", args, o.code, o.out, o.err)
			}
		}
	}
}

// Notes and questions quote names too. The flag -key has no secret.
func TestNotesAndQuestionsShowNoPassword(t *testing.T) {
	s := newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))
	const misplaced = "postgres://ada:secret@db.example.com/shop"
	for _, args := range [][]string{{"enqueue", misplaced, "1"}, {"purge", "-state", "ready", misplaced}} {
		if o := s.do("", args...); !strings.Contains(o.err, "ada:") || strings.Contains(o.err, "secret") {
			t.Errorf("%q: it says: %s", args, o.err)
		}
	}
	if found := secretsOfArguments([]string{strings.Repeat("key=value ", 10_000)}, nil); len(found) > 0 {
		t.Errorf("a payload has %d secrets", len(found))
	}
	// A secret may also be the name of a queue.
	if o := s.do("", "enqueue", "hunter2", "-header", "token=hunter2", "1"); !strings.Contains(o.err, `no queue "hunter2"`) {
		t.Errorf("exit code %d, and it says: %s", o.code, o.err)
	}
	for _, args := range [][]string{{"-key=welcome:42"}, {"-key", "welcome:42"}} {
		s.do("", append([]string{"enqueue", "emails", "-unique", "1"}, args...)...)
		if o := s.do("", append([]string{"enqueue", "emails", "-unique", "1"}, args...)...); o.code != exitState || !strings.Contains(o.err, "welcome:42") {
			t.Errorf("%q: exit code %d, and it says: %s", args, o.code, o.err)
		}
	}
}

func TestWithoutTablesTheCommandSaysWhatMakesThem(t *testing.T) {
	s := newShell(t, "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))
	s.check(s.store.Uninstall(t.Context()))
	if o := s.do("", "verify"); o.code != exitFailed || !strings.Contains(o.out, "table pgqrs_queues\n") || strings.Contains(o.out, "of table pgqrs_queues") {
		t.Errorf("exit code %d; of a table that is missing it should not say which columns are:\n%s", o.code, o.out)
	}
	if o := s.do("", "queues"); o.code != exitFailed || !strings.Contains(o.err, "pgqrs install makes the tables") {
		t.Errorf("exit code %d, and it says: %s", o.code, o.err)
	}
}
