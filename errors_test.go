package pgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// driverTexts are error texts in the form of each driver. The SQLite text takes the place of %s.
var driverTexts = map[string]string{
	"ncruces": "sqlite3: SQL logic error: %s",
	"modernc": "SQL logic error: %s (1)",
	"mattn":   "%s",
	"libsql":  "failed to execute query INSERT INTO t VALUES (?)\nerror code = 1: Error executing statement: SQLite failure: `%s`",
	"prepare": "failed to prepare query SELECT 1\nerror code = 3: Error preparing statement: SQLite failure: `%s`",
	"rows":    "failed to get next row\nerror code = 1: Error fetching next row: SQLite failure: `%s`",
	"turso":   "prepare failed: Parse error: %s",
}

func TestMissingSchemaIsRecognized(t *testing.T) {
	check := func(err error, want bool) {
		t.Helper()
		if sqlerr.Missing(err) != want {
			t.Errorf("%q: missing is %v", err, !want)
		}
	}
	for _, text := range driverTexts {
		for _, x := range []string{"no such table: pgqrs_messages", "no such table: main.pgqrs_queues", "no such column: claim_ct", "table pgqrs_messages has no column named claim_ct"} {
			check(fmt.Errorf(text, x), true)
		}
		for _, x := range []string{"no such table: orders", "UNIQUE constraint failed: t.a", "database is locked"} {
			check(fmt.Errorf(text, x), false)
		}
	}
	check(errors.New("prepare failed: Parse error: Parse error: no such table: pgqrs_messages"), true)
	for state, want := range map[string]bool{
		"42P01": true, "42703": true, "3F000": true,
		"42704": false, "42883": false, "23505": false, "42601": false, "3D000": false, "40001": false,
	} {
		check(coded{state}, want)
		check(fmt.Errorf("prepare: %w", coded{state}), want)
	}
	for text, want := range map[string]bool{
		`type "worker_status" does not exist`:                  true,
		`Typ »pgqrs_workflow_status« existiert nicht`:          true,
		`role "ada" does not exist`:                            false,
		`unrecognized configuration parameter "pgqrs_setting"`: false,
	} {
		check(fmt.Errorf("%s (%w)", text, coded{"42704"}), want)
	}
	check(errors.New("driver: bad connection"), false)
}

func TestDatabaseThatIsAwayIsRecognized(t *testing.T) {
	check := func(err error, want bool) {
		t.Helper()
		if sqlite.isUnavailable(err) != want {
			t.Errorf("%q: away is %v", err, !want)
		}
		if postgres.isUnavailable(err) != (want && (sqlerr.Unreachable(err) || sqlerr.State(err) != "")) {
			t.Errorf("%q: on PostgreSQL away is %v", err, !want)
		}
	}
	for _, err := range []error{driver.ErrBadConn, sql.ErrConnDone, io.ErrUnexpectedEOF, &net.OpError{Op: "read", Err: errors.New("reset")}} {
		check(fmt.Errorf("book: %w", err), true)
	}
	for state, want := range map[string]bool{
		"57P01": true, "57P03": true, "08006": true, "53100": true, "53300": true, "58030": true, "25006": true, "25P03": true,
		"57014": false, "25P02": false, "23505": false, "42601": false, "40001": false, "22P02": false,
	} {
		check(coded{state}, want)
	}
	for _, text := range driverTexts {
		for x, want := range map[string]bool{
			"database or disk is full": true, "disk I/O error": true, "attempt to write a readonly database": true, "unable to open database file": true,
			"UNIQUE constraint failed: t.a": false, "database is locked": false, "no such table: t": false,
		} {
			check(fmt.Errorf(text, x), want)
		}
	}
	check(sql.ErrTxDone, false) // the fault of whoever ended the transaction
}

func TestBusyErrorsAreRecognized(t *testing.T) {
	check := func(err error, want bool) {
		t.Helper()
		if sqlite.retryable(err) != want {
			t.Errorf("%q: retryable is %v", err, !want)
		}
		if postgres.retryable(err) != (want && sqlerr.State(err) != "") {
			t.Errorf("%q: on PostgreSQL retryable is %v", err, !want)
		}
	}
	for _, text := range []string{
		"sqlite3: database is locked",
		"database is locked (5) (SQLITE_BUSY)",
		"database is locked (517)",
		"database is locked",
		"failed to execute query BEGIN IMMEDIATE\nerror code = 2: Error executing statement: SQLite failure: `database is locked`",
		"failed to get next row\nerror code = 1: Error fetching next row: SQLite failure: `database is locked`",
		"step failed: Database snapshot is stale. You must rollback and retry the whole transaction.",
		"step failed: Write-write conflict",
		"step failed: Database schema conflict",
		"database table is locked: pgqrs_messages",
	} {
		check(errors.New(text), true)
		check(fmt.Errorf("wrapped: %w", errors.New(text)), true)
		check(errors.Join(errors.New(text), errors.New("cannot rollback - no transaction is active")), true)
	}
	for _, text := range []string{
		"UNIQUE constraint failed: t.a",
		"sqlite3: constraint failed: UNIQUE constraint failed: t.a",
		"constraint failed: NOT NULL constraint failed: t.b (1299)",
		"step failed: Runtime error: UNIQUE constraint failed: u.(a, b) (19)",
		"attempt to write a readonly database (8)",
		"step failed: Error: Resource is read-only",
		"unable to open database file (14)",
		"sqlite3: interrupted",
		"sql: database is closed",
		"sql: connection is already closed",
		"driver: bad connection",
		"timeout: context deadline exceeded",
		"no such table: pgqrs_messages",
		"cannot start a transaction within a transaction",
		"failed to execute query INSERT INTO notes VALUES ('database is locked')\nerror code = 2: Error executing statement: SQLite failure: `UNIQUE constraint failed: notes.text`",
	} {
		check(errors.New(text), false)
	}
	for state, want := range map[string]bool{
		"40001": true, "40P01": true,
		"23505": false, "55P03": false, "25P02": false, "57014": false, "25006": false, "42P01": false,
	} {
		check(coded{state}, want)
		check(fmt.Errorf("pgx: %w", coded{state}), want)
	}
}

func TestErrorsNameTheOperationOnce(t *testing.T) {
	done, cancel := context.WithCancel(t.Context())
	cancel()
	late, stop := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer stop()
	for _, test := range []struct {
		name  string
		ctx   context.Context
		err   error
		text  string
		match []error
	}{
		{"a sentinel", t.Context(), ErrNotFound, `pgqrs: pause queue "q": not found`, []error{ErrNotFound}},
		{"a driver's error", t.Context(), errBroken, `pgqrs: pause queue "q": disk on fire`, []error{errBroken}},
		{"an error that was wrapped before", t.Context(), wrap(t.Context(), ErrState, "claim"), `pgqrs: pause queue "q": claim: not possible in this state`, []error{ErrState}},
		{"missing tables", t.Context(), coded{"42P01"},
			`pgqrs: pause queue "q": schema is not installed; call Store.Install (server says 42P01)`, []error{ErrNotInstalled, coded{"42P01"}}},
		{"a driver that hides the cancelled ctx", done, errors.New("sqlite3: interrupted"),
			`pgqrs: pause queue "q": context canceled (sqlite3: interrupted)`, []error{context.Canceled}},
		{"a driver that tells of it", done, context.Canceled, `pgqrs: pause queue "q": context canceled`, []error{context.Canceled}},
		{"a driver that hides the deadline", late, coded{"57014"},
			`pgqrs: pause queue "q": context deadline exceeded (server says 57014)`, []error{context.DeadlineExceeded, coded{"57014"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := wrap(test.ctx, test.err, "pause queue %q", "q")
			if err.Error() != test.text {
				t.Errorf("got %q, want %q", err, test.text)
			}
			if strings.Count(err.Error(), "pgqrs: ") != 1 {
				t.Errorf("%q has the prefix more than once", err)
			}
			for _, target := range test.match {
				if !errors.Is(err, target) {
					t.Errorf("%q does not match %q", err, target)
				}
			}
		})
	}
	if err := wrap(done, nil, "pause queue %q", "q"); err != nil {
		t.Errorf("no error became %q", err)
	}
}
