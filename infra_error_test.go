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

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// A sqliteError is like the error of a SQLite driver, which has a type of its own.
type sqliteError struct{ text string }

func (e *sqliteError) Error() string { return e.text }

// Only the errors that the transaction itself returned are the database's.
func TestWhoIsToBlameForAnErrorOfUserCode(t *testing.T) {
	lost := fmt.Errorf("book: %w", driver.ErrBadConn)
	libsql := func(text string) error {
		return errors.New("failed to execute query X\nerror code = 1: Error executing statement: SQLite failure: `" + text + "`")
	}
	none := &sqliteError{"no such column: pgqrs_ask"}
	for _, test := range []struct {
		name     string
		dialect  Dialect
		config   Config
		err      error // of user code
		ask      error // the state of the transaction
		gone     bool  // an engine has ended the transaction
		asked    bool  // whether the transaction is asked
		database bool  // whether it is an error of the database
	}{
		{"an error like any other", Postgres, Config{}, errBroken, nil, false, false, false},
		{"a short file", Postgres, Config{}, io.ErrUnexpectedEOF, nil, false, true, false},
		{"a service", Postgres, Config{}, &net.OpError{Op: "dial", Err: errBroken}, nil, false, true, false},
		{"another database", Postgres, Config{}, lost, nil, false, true, false},
		{"a lost connection", Postgres, Config{}, lost, driver.ErrBadConn, false, true, true},
		{"a server that goes", Postgres, Config{}, coded{"57P01"}, io.ErrUnexpectedEOF, false, true, true},
		{"a deadlock", Postgres, Config{}, fmt.Errorf("book: %w", coded{"40P01"}), coded{"25P02"}, false, true, true},
		{"a conflict in a savepoint", Postgres, Config{}, coded{"40001"}, nil, false, true, true},
		{"a full disk", Postgres, Config{}, coded{"53100"}, coded{"25P02"}, false, true, true},
		{"a full disk of another server", Postgres, Config{}, coded{"53100"}, nil, false, true, false},
		{"a short file beside a failed statement", Postgres, Config{}, io.ErrUnexpectedEOF, coded{"25P02"}, false, true, false},
		{"a broken constraint", Postgres, Config{}, coded{"23505"}, coded{"25P02"}, false, false, false},
		{"SQLite's text on PostgreSQL", Postgres, Config{}, errors.New("database is locked"), nil, false, false, false},
		{"a transaction that user code ended", Postgres, Config{}, lost, sql.ErrTxDone, false, true, false},

		{"SQLite's own", SQLite, Config{}, fmt.Errorf("book: %w", &sqliteError{"database is locked"}), none, false, true, true},
		{"SQLite's disk", SQLite, Config{}, errors.Join(errBroken, &sqliteError{"database or disk is full (13)"}), none, false, true, true},
		{"a text", SQLite, Config{}, errors.New("database is locked"), none, false, true, false},
		{"a text on a driver with plain errors", SQLite, Config{}, errors.New("database is locked"), libsql("no such column: pgqrs_ask"), false, true, false},
		{"libSQL's own", SQLite, Config{}, libsql("database is locked"), libsql("no such column: pgqrs_ask"), false, true, true},
		{"an error about another's", SQLite, Config{}, &sqliteError{"constraint failed"}, none, false, false, false},
		{"a short file on SQLite", SQLite, Config{}, io.ErrUnexpectedEOF, none, false, true, false},
		{"a lost connection to libSQL", Turso, Config{}, io.ErrUnexpectedEOF, driver.ErrBadConn, false, true, true},
		{"a transaction that the engine ended", Turso, Config{Concurrent: true}, errors.New("Write-write conflict"), nil, true, false, true},
		{"a text in MVCC mode", Turso, Config{Concurrent: true}, errors.New("Write-write conflict"), none, false, true, false},
		{"an error that panics", SQLite, Config{}, &panicking{}, none, false, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, s := newFake(t, test.config, test.dialect, func(c call) ([][]driver.Value, error) {
				switch c.tag() {
				case "ask":
					return nil, test.ask
				case "release":
					if test.gone {
						return nil, errors.New("no such savepoint: pgqrs")
					}
				}
				return row(int64(7)), nil
			})
			u, err := s.beginUser(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer u.end()
			err = s.blame(t.Context(), u, test.err)
			if isUserError(err) == test.database {
				t.Errorf("whether it is the database's: %v", !test.database)
			}
			asked := 0
			for _, c := range f.log() {
				if c.tag() == "ask" {
					asked++
				}
			}
			if asked > 0 != test.asked {
				t.Errorf("the transaction was asked %d times", asked)
			}
		})
	}
}

// A panicking error panics in its methods.
type panicking struct{}

func (*panicking) Error() string { panic("Error") }

func (*panicking) Unwrap() []error { panic("Unwrap") }

// An error of user code is not retried at once, even if it looks like an error of the database.
func TestHandleTxIsNotTriedAgainForUserCode(t *testing.T) {
	for _, test := range []struct {
		err   error
		ask   error
		calls int
	}{
		{errors.New("database is locked"), &sqliteError{"no such column: pgqrs_ask"}, 1},
		{&sqliteError{"database is locked"}, &sqliteError{"no such column: pgqrs_ask"}, maxTries},
	} {
		calls := 0
		_, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
			if c.tag() == "ask" {
				return nil, test.ask
			}
			return row(int64(7)), nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		err := NewQueue[int](s, "q").HandleTx(func(context.Context, *sql.Tx, *Message[int]) error {
			if calls++; calls == 3 {
				cancel() // it would continue for 5 s
			}
			return test.err
		}).work(ctx, &MessageInfo{ID: 7, WorkerID: 3, Claim: 1, Attempt: 1, Raw: []byte(`5`), delivery: new(deliveryState)})
		if want := min(test.calls, 3); calls != want || !strings.Contains(err.Error(), "database is locked") {
			t.Errorf("%T: %d calls, want %d; %v", test.err, calls, want, err)
		}
		cancel()
	}
}

// An attempt that ends by an infrastructure error does not count, unless such errors go on for too
// long.
func TestSetbacksThatGoOnCount(t *testing.T) {
	_, s := newFake(t, Config{}, SQLite, nil)
	r := newTestLoop(t, &Worker{Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
	causes := map[string]error{
		"HandleTx": &infraError{errBroken},
		"a run":    &suspension{after: time.Second, cause: &infraError{errBroken}},
	}
	id := int64(0)
	for name, err := range causes {
		id++
		d := &delivery{m: &MessageInfo{ID: id, Attempt: 1}, queue: r.queues[0]}
		d.m.delivery = &d.state
		var total time.Duration
		for n := range maxInfraErrors {
			o := r.outcomeOf(d, foreign.Safe(err))
			if o.kind != released || o.delay < time.Second || o.delay > maxInfraErrorWait || n == 0 && o.delay != time.Second {
				t.Fatalf("%s: setback %d is %v after %v", name, n+1, o.kind, o.delay)
			}
			total += o.delay
		}
		if total < 10*time.Minute || total > 15*time.Minute {
			t.Errorf("%s: they come to an end after %v", name, total)
		}
		for range 2 {
			if o := r.outcomeOf(d, foreign.Safe(err)); o.kind != retried || !errors.Is(o.err, errBroken) || !strings.Contains(o.err.Error(), "times") {
				t.Errorf("%s: then it is %v, %v", name, o.kind, o.err)
			}
		}
		if o := r.outcomeOf(d, errBroken); o.kind != retried {
			t.Errorf("%s: a failure is %v", name, o.kind)
		}
		if o := r.outcomeOf(d, foreign.Safe(err)); o.kind != released {
			t.Errorf("%s: after a failure of its own it is %v", name, o.kind)
		}
		r.complete(t.Context(), d, nil)
		if len(r.infraErrors) != 0 {
			t.Errorf("%s: %d messages are remembered", name, len(r.infraErrors))
		}
	}
	if o := r.outcomeOf(&delivery{m: &MessageInfo{ID: 9, Attempt: 1}, queue: r.queues[0]}, &suspension{after: time.Hour}); o.kind != released || o.delay != time.Hour {
		t.Errorf("a run that sleeps is %v, %v", o.kind, o.delay)
	}
	old := infraErrorCounts{}
	for n := range int64(manyInfraErrors) {
		old[n] = infraErrorCount{3, time.Now().Add(-2 * infraErrorsKept)}
	}
	if n, _ := old.add(5); n != 1 || len(old) != 1 {
		t.Errorf("%d, and %d are remembered", n, len(old))
	}
}

func TestWhatTheWorkItselfSpoilsIsNotTheDatabases(t *testing.T) {
	for state, want := range map[string]bool{
		"25P02": true, "23503": true, "22P05": true, "42501": true, "P0001": true, "54000": true,
		"57P01": false, "08006": false, "40001": false, "57014": false, "55P03": false, "42P05": false, "26000": false, "XX000": false,
	} {
		if sqlerr.Aborted(coded{state}) != want {
			t.Errorf("%s: spoiled is %v", state, !want)
		}
	}
}

// Otherwise it would share a statement with other callers, under a ctx without the transaction.
func TestWriteInATransactionOfUserCodeDoesNotWaitForOthers(t *testing.T) {
	gate, under := make(chan struct{}), make(chan struct{})
	_, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.tag() == "message.enqueue" {
			close(under)
			<-gate
		}
		return row(int64(1)), nil
	})
	done := make(chan error, 1)
	go func() { done <- enqueueOnce(t.Context(), s) }()
	<-under
	err := s.inTxOnce(t.Context(), func(ctx context.Context, _ *userTx) error {
		return within(t, "an enqueue", func() error { return enqueueOnce(ctx, s) })
	})
	if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "use WithTx") {
		t.Errorf("got %v", err)
	}
	close(gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
