package pgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

var errBroken = errors.New("disk on fire")

// failing returns each of the errors in turn for statements of one tag, and id 1 otherwise.
func failing(tag string, errs ...error) func(call) ([][]driver.Value, error) {
	var n atomic.Int64
	return func(c call) ([][]driver.Value, error) {
		if c.tag() == tag {
			if i := int(n.Add(1)) - 1; i < len(errs) {
				return nil, errs[i]
			}
		}
		return row(int64(1)), nil
	}
}

var busyErrors = []error{
	errors.New("database is locked"),
	coded{"40001"},
	fmt.Errorf("query: %w", coded{"40P01"}),
}

func TestBusyDatabaseIsAskedAgain(t *testing.T) {
	for _, busy := range busyErrors {
		t.Run(busy.Error(), func(t *testing.T) {
			f, s := newFake(t, Config{}, SQLite, failing("message.enqueue", busy, busy))
			if _, err := NewQueue[int](s, "q").Enqueue(t.Context(), 1); err != nil {
				t.Error(err)
			}
			f.wantLog(t, "query message.enqueue", "query message.enqueue", "query message.enqueue")
		})
	}
}

func TestOtherErrorsAreReturnedAtOnce(t *testing.T) {
	for _, err := range []error{errBroken, coded{"23505"}, coded{"57014"}} {
		f, s := newFake(t, Config{}, Postgres, failing("message.enqueue", err))
		if _, got := NewQueue[int](s, "q").Enqueue(t.Context(), 1); !errors.Is(got, err) {
			t.Errorf("got %v, want %v", got, err)
		}
		f.wantLog(t, "query message.enqueue")
	}
}

func TestNothingIsTriedAgainInTheCallersTransaction(t *testing.T) {
	for _, busy := range busyErrors {
		f, s := newFake(t, Config{}, Postgres, failing("message.enqueue", busy))
		tx, err := s.DB().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewQueue[int](s, "q").WithTx(tx).Enqueue(t.Context(), 1); !errors.Is(err, busy) {
			t.Errorf("got %v, want %v", err, busy)
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
		f.wantLog(t, "begin Default", "query message.enqueue", "rollback")
	}
}

// dropping are the statements of DropQueue before its last one.
var dropping = []string{"exec begin", "exec queue.freeze", "query queue.in_use"}

func dropped(end ...string) []string {
	return append(append(slices.Clone(dropping), "exec queue.drop_workers", "exec queue.drop_workflow", "exec queue.drop_row"), end...)
}

// emptyQueue answers as for a queue without messages, unless an error is due.
func emptyQueue(errs map[string]error) func(call) ([][]driver.Value, error) {
	var failed atomic.Bool
	return func(c call) ([][]driver.Value, error) {
		if err := errs[c.tag()]; err != nil && (c.tag() == "rollback" || failed.CompareAndSwap(false, true)) {
			return nil, err
		}
		return row(int64(4), int64(0), int64(0)), nil
	}
}

func TestTransactionsOfTheLibrary(t *testing.T) {
	tests := []struct {
		name string
		why  string
		errs map[string]error // by tag, for the first try or for every rollback
		want error
		log  []string
		lost int // connections
	}{
		{
			name: "a statement that fails is rolled back, and the connection kept",
			why:  "half of a drop would stay, or every failure would cost a connection",
			errs: map[string]error{"queue.drop_row": errBroken},
			want: errBroken, log: dropped("exec rollback"),
		}, {
			name: "no transaction is active says that the engine has rolled back already",
			why:  "SQLite ends a transaction by itself on some errors; the real one must be reported",
			errs: map[string]error{"queue.in_use": errBroken, "rollback": errors.New("SQL logic error: cannot rollback - no transaction is active (1)")},
			want: errBroken, log: append(slices.Clone(dropping), "exec rollback"),
		}, {
			name: "a rollback that fails costs the connection",
			why:  "ncruces and modernc would hand it to the next user in mid-transaction",
			errs: map[string]error{"queue.in_use": errBroken, "rollback": errors.New("disk I/O error")},
			want: errBroken, log: append(slices.Clone(dropping), "exec rollback"), lost: 1,
		}, {
			name: "a connection that is gone took the transaction with it",
			why:  "a lost connection would be reported twice",
			errs: map[string]error{"queue.in_use": errBroken, "rollback": driver.ErrBadConn},
			want: errBroken, log: append(slices.Clone(dropping), "exec rollback"), lost: 1,
		}, {
			name: "a conflict at commit runs the whole transaction again",
			why:  "on Turso a conflict shows only there",
			errs: map[string]error{"commit": errors.New("step failed: Write-write conflict")},
			log:  slices.Concat(dropped("exec commit", "exec rollback"), dropped("exec commit")),
		}, {
			name: "a deadlock in the middle runs the whole transaction again",
			why:  "PostgreSQL has undone what came before it",
			errs: map[string]error{"queue.drop_workflow": coded{"40P01"}},
			log: slices.Concat(append(slices.Clone(dropping), "exec queue.drop_workers", "exec queue.drop_workflow", "exec rollback"),
				dropped("exec commit")),
		}, {
			name: "a begin that finds the database locked is tried again",
			why:  "one long write of another process would fail every call meanwhile",
			errs: map[string]error{"begin": errors.New("database is locked (5) (SQLITE_BUSY)")},
			log:  slices.Concat([]string{"exec begin", "exec rollback"}, dropped("exec commit")),
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, s := newFake(t, Config{}, SQLite, emptyQueue(test.errs))
			if err := s.DropQueue(t.Context(), "q"); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			f.wantLog(t, test.log...)
			f.wantClosed(t, test.lost)
			if t.Failed() {
				t.Logf("why it matters: %s", test.why)
			}
		})
	}
}

func TestCancelledTransactionIsRolledBackRatherThanCommitted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.tag() == "queue.drop_row" {
			cancel()
		}
		return row(int64(4), int64(0), int64(0)), nil
	})
	if err := s.DropQueue(ctx, "q"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	f.wantLog(t, dropped("exec rollback")...)
	f.wantClosed(t, 0)
}

// A COMMIT that fails has ended the transaction for database/sql, but not for every engine.
func TestTransactionWhoseCommitFailsIsRolledBackOnItsConnection(t *testing.T) {
	failed := false
	f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.how == "commit" && !failed {
			failed = true
			return nil, errors.New("database is locked (5) (SQLITE_BUSY)")
		}
		return row(int64(1)), nil
	})
	endTimes(t, s, 1)
	log := f.log()
	i := slices.IndexFunc(log, func(c call) bool { return c.how == "commit" })
	if begun, ended := count(log, "begin"), count(log, "commit"); begun != 2 || ended != 2 || log[i+1].tag() != "rollback" {
		t.Errorf("%d transactions began, %d ended, and after the first %s came; want 2, 2, rollback", begun, ended, log[i+1].tag())
	}
}

func TestWriteTransactionsBeginAsTheDialectSays(t *testing.T) {
	for _, test := range []struct {
		dialect   Dialect
		config    Config
		want      string
		exclusive string // a lock that allows no other writer
	}{
		{Postgres, Config{}, "/* pgqrs:Read Committed */, /* pgqrs:open */ SELECT", "/* pgqrs:begin */ BEGIN ISOLATION LEVEL READ COMMITTED"},
		{SQLite, Config{}, "/* pgqrs:Default */, /* pgqrs:open */ UPDATE", "/* pgqrs:begin */ BEGIN IMMEDIATE"},
		{Turso, Config{}, "/* pgqrs:Default */, /* pgqrs:open */ UPDATE", "/* pgqrs:begin */ BEGIN IMMEDIATE"},
		{Turso, Config{Concurrent: true}, "/* pgqrs:begin */ BEGIN CONCURRENT", "/* pgqrs:begin */ BEGIN IMMEDIATE"},
	} {
		begins := func(what, want string, answer func(call) ([][]driver.Value, error), do func(*Store) error) {
			f, s := newFake(t, test.config, test.dialect, answer)
			if err := do(s); err != nil {
				t.Errorf("%s: %s: %v", test.dialect, what, err)
			}
			log := f.log()
			if got := log[0].text + ", " + log[1].text; !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s begins with %.200q, want %q", test.dialect, what, got, want)
			}
		}
		grouped := func(c call) ([][]driver.Value, error) {
			if c.tag() == "group.of" {
				return nil, nil
			}
			return row(int64(1)), nil
		}
		begins("Delete", test.want, grouped, func(s *Store) error { _, err := s.Delete(t.Context(), 1); return err })
		begins("DropQueue", test.exclusive, emptyQueue(nil), func(s *Store) error { return s.DropQueue(t.Context(), "q") })
	}
}

// enqueueTimes enqueues n times and fails the test at the first error.
func enqueueTimes(t *testing.T, q *Queue[int], n int) {
	t.Helper()
	for range n {
		if _, err := q.Enqueue(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
}

func count(calls []call, how string) int {
	n := 0
	for _, c := range calls {
		if c.how == how {
			n++
		}
	}
	return n
}

func TestHandleTxAcksInTheHandlersTransaction(t *testing.T) {
	held := &MessageInfo{ID: 7, WorkerID: 3, Claim: 1, Attempt: 1, Raw: []byte(`5`), delivery: new(deliveryState)}
	tests := []struct {
		name string
		why  string
		gone bool  // the lease is gone
		busy error // of the first ack
		fn   func(context.Context, *sql.Tx, *Message[int]) error
		want error
		log  []string
	}{
		{
			name: "its work and the ack commit together", why: "the effect would happen twice",
			log: []string{"begin Read Committed", "query message.check", "exec", "query message.ack", "commit"},
		}, {
			name: "its error rolls back", why: "a failed attempt would leave half its work",
			fn:   func(context.Context, *sql.Tx, *Message[int]) error { return errBroken },
			want: errBroken, log: []string{"begin Read Committed", "query message.check", "rollback"},
		}, {
			name: "a lost lease is found before it runs", why: "two workers would do the same work",
			gone: true, want: ErrLeaseLost, log: []string{"begin Read Committed", "query message.check", "rollback"},
		}, {
			name: "a conflict runs it again", why: "users would have to write the loop themselves",
			busy: coded{"40001"},
			log: []string{"begin Read Committed", "query message.check", "exec", "query message.ack", "rollback",
				"begin Read Committed", "query message.check", "exec", "query message.ack", "commit"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ack := failing("message.ack", test.busy)
			f, s := newFake(t, Config{}, Postgres, func(c call) ([][]driver.Value, error) {
				if c.tag() == "message.check" && test.gone {
					return nil, nil
				}
				if _, err := ack(c); test.busy != nil && err != nil {
					return nil, err
				}
				return row(int64(7)), nil
			})
			if err := handleTx(t, s, held, test.fn); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v\nwhy it matters: %s", err, test.want, test.why)
			}
			f.wantLog(t, test.log...)
		})
	}
}

func TestHandleTxUnderConcurrentFindsOutThatItsTransactionIsGone(t *testing.T) {
	held := &MessageInfo{ID: 7, WorkerID: 3, Claim: 1, Attempt: 1, Raw: []byte(`5`), delivery: new(deliveryState)}
	settled := func(_ context.Context, _ *sql.Tx, m *Message[int]) error {
		m.delivery.settled.Store(true)
		return nil
	}
	begun := []string{"begin Default", "exec savepoint", "query message.check"}
	tests := []struct {
		name string
		gone error // of the release
		fn   func(context.Context, *sql.Tx, *Message[int]) error
		want error
		log  []string
	}{
		{"it is there", nil, nil, nil, []string{"exec", "exec release", "query message.ack", "commit"}},
		{"it is gone", errors.New("no such savepoint: pgqrs"), nil, ErrPermanent, []string{"exec", "exec release", "rollback"}},
		{"it is gone, and the function settled the message", errors.New("no such savepoint: pgqrs"), settled, ErrPermanent, []string{"exec release", "rollback"}},
		{"the release fails otherwise", errBroken, nil, errBroken, []string{"exec", "exec release", "rollback"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, s := newFake(t, Config{Concurrent: true}, Turso, func(c call) ([][]driver.Value, error) {
				if c.tag() == "release" {
					return nil, test.gone
				}
				return row(int64(7)), nil
			})
			if err := handleTx(t, s, held, test.fn); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			f.wantLog(t, append(slices.Clone(begun), test.log...)...)
		})
	}
}

func TestHandleTxWhoseFunctionEndsTheTransactionIsPermanent(t *testing.T) {
	for name, end := range map[string]func(*sql.Tx) error{"committed": (*sql.Tx).Commit, "rolled back": (*sql.Tx).Rollback} {
		_, s := newFake(t, Config{}, Postgres, func(call) ([][]driver.Value, error) { return row(int64(7)), nil })
		err := handleTx(t, s, &MessageInfo{ID: 7, WorkerID: 1, Claim: 1, Raw: []byte("1")}, func(_ context.Context, tx *sql.Tx, _ *Message[int]) error { return end(tx) })
		if !errors.Is(err, ErrPermanent) || !strings.Contains(err.Error(), "ended the transaction") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// handleTx runs fn, or one statement of user code, in a HandleTx handler.
func handleTx(t *testing.T, s *Store, m *MessageInfo, fn func(context.Context, *sql.Tx, *Message[int]) error) error {
	t.Helper()
	if fn == nil {
		fn = func(ctx context.Context, tx *sql.Tx, m *Message[int]) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO ledger VALUES (?)", m.Payload)
			return err
		}
	}
	return NewQueue[int](s, "q").HandleTx(fn).work(t.Context(), m)
}

// A server writes its errors in the language that lc_messages names.
func TestStandbyOfAnotherLanguage(t *testing.T) {
	refusal := coded{"0A000"}
	_, s := newFake(t, Config{}, Postgres, func(c call) ([][]driver.Value, error) {
		if strings.HasPrefix(c.String(), "begin") {
			return nil, refusal
		}
		return nil, nil
	})
	err := s.inTx(t.Context(), func(context.Context, *userTx) error { return nil })
	if !errors.Is(err, refusal) || !s.dialect.isUnavailable(err) {
		t.Errorf("got %v; want an error that says that the database cannot be used just now", err)
	}
}

func TestUntranslatableInAnotherLanguage(t *testing.T) {
	for state, want := range map[string]bool{"22P05": true, "22021": true, "0A000": true, "22003": false} {
		if got := sqlerr.Untranslatable(coded{state}); got != want {
			t.Errorf("%s: %v, want %v", state, got, want)
		}
	}
}
