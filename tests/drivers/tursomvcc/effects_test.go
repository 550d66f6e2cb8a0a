package tursomvcc_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/pgqrstest"
)

// In MVCC mode the engine ends a transaction at its first conflict, and later statements commit by
// themselves. User code that returns the error loses nothing. User code that swallows the error
// must be detected.

// A ledger has one account, which the open transaction of a rival has written.
type ledger struct {
	db    *sql.DB
	rival *sql.Conn
	calls int
}

func newLedger(t *testing.T) (*ledger, *pgqrs.Store) {
	t.Helper()
	db, dialect := open(t)
	store := pgqrs.Config{Concurrent: true}.New(db, dialect)
	must(t, store.Install(t.Context()))
	l := &ledger{db: db}
	for _, text := range []string{"CREATE TABLE account (balance INTEGER)", "INSERT INTO account VALUES (0)", "CREATE TABLE entry (text TEXT)"} {
		_, err := db.ExecContext(t.Context(), text)
		must(t, err)
	}
	var err error
	l.rival, err = db.Conn(t.Context())
	must(t, err)
	t.Cleanup(func() { l.rival.Close() })
	for _, text := range []string{"BEGIN CONCURRENT", "UPDATE account SET balance = balance"} {
		_, err := l.rival.ExecContext(t.Context(), text)
		must(t, err)
	}
	return l, store
}

// book writes two entries and the account between them. The first time it conflicts with the rival,
// which then rolls back.
func (l *ledger) book(ctx context.Context, tx *sql.Tx, swallow bool) error {
	l.calls++
	if _, err := tx.ExecContext(ctx, "INSERT INTO entry VALUES ('before')"); err != nil {
		return err
	}
	_, conflict := tx.ExecContext(ctx, "UPDATE account SET balance = balance + 1")
	if l.calls == 1 {
		if conflict == nil || !strings.Contains(conflict.Error(), "Write-write conflict") {
			return pgqrs.Permanent(errors.New("there was no conflict"))
		}
		if _, err := l.rival.ExecContext(ctx, "ROLLBACK"); err != nil {
			return err
		}
	}
	if conflict != nil && !swallow {
		return conflict
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO entry VALUES ('after')")
	return err
}

// wantBooked checks the database: the entries, how often the account was written, and how often
// book was called.
func (l *ledger) wantBooked(t *testing.T, entries []string, balance, calls int) {
	t.Helper()
	var got []string
	rows, err := l.db.QueryContext(t.Context(), "SELECT text FROM entry ORDER BY rowid")
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var text string
		must(t, rows.Scan(&text))
		got = append(got, text)
	}
	must(t, rows.Err())
	var sum int
	must(t, l.db.QueryRowContext(t.Context(), "SELECT balance FROM account").Scan(&sum))
	if !slices.Equal(got, entries) || sum != balance || l.calls != calls {
		t.Errorf("entries %q, balance %d, %d calls; want %q, %d, %d", got, sum, l.calls, entries, balance, calls)
	}
}

const ended = "the database ended the transaction at a conflict, and the function did not return that error"

func TestStepTxThatReturnsItsFirstErrorHasItsEffectOnce(t *testing.T) {
	l, store := newLedger(t)
	steps, err := l.step(t, store, false)
	must(t, err)
	l.wantBooked(t, []string{"before", "after"}, 1, 2)
	if len(steps) != 1 || steps[0].Status != pgqrs.Succeeded || steps[0].Retries != 0 {
		t.Errorf("steps %+v; want one that succeeded, without a retry", steps)
	}
}

func TestStepTxThatSwallowsAConflictFails(t *testing.T) {
	l, store := newLedger(t)
	steps, err := l.step(t, store, true)
	if err == nil || !strings.Contains(err.Error(), ended) {
		t.Errorf("the run's error is %v; want %q", err, ended)
	}
	l.wantBooked(t, []string{"after"}, 0, 1)
	if len(steps) != 1 || steps[0].Status != pgqrs.Failed {
		t.Errorf("steps %+v; want one that failed", steps)
	}
}

// step runs book in a step. It returns the recorded steps and the run's error.
func (l *ledger) step(t *testing.T, store *pgqrs.Store, swallow bool) ([]pgqrs.StepInfo, error) {
	t.Helper()
	w := pgqrs.NewWorkflow[int, int](store, "booking")
	run, err := w.Start(t.Context(), 1)
	must(t, err)
	pgqrstest.Drain(t, store, []string{"booking"}, w.Handle(func(ctx context.Context, run *pgqrs.Run, _ int) (int, error) {
		return 0, run.DoTx(ctx, "book", func(ctx context.Context, tx *sql.Tx) error { return l.book(ctx, tx, swallow) })
	}))
	steps, err := run.Steps(t.Context())
	must(t, err)
	_, err = run.Result(t.Context())
	return steps, err
}

func TestHandleTxThatReturnsItsFirstErrorHasItsEffectOnce(t *testing.T) {
	l, store := newLedger(t)
	m := l.handle(t, store, false)
	l.wantBooked(t, []string{"before", "after"}, 1, 2)
	if m.State != pgqrs.Archived || m.Attempt != 1 {
		t.Errorf("the message is %s after %d attempts; want archived after 1", m.State, m.Attempt)
	}
}

func TestHandleTxThatSwallowsAConflictFails(t *testing.T) {
	l, store := newLedger(t)
	m := l.handle(t, store, true)
	l.wantBooked(t, []string{"after"}, 0, 1)
	if m.State != pgqrs.Dead || !strings.Contains(m.LastError, ended) {
		t.Errorf("the message is %s with the error %q; want a dead letter with %q", m.State, m.LastError, ended)
	}
}

// handle runs book in a handler, and returns the message.
func (l *ledger) handle(t *testing.T, store *pgqrs.Store, swallow bool) pgqrs.MessageInfo {
	t.Helper()
	q := pgqrs.NewQueue[int](store, "bookings")
	id, err := q.Enqueue(t.Context(), 1)
	must(t, err)
	pgqrstest.Drain(t, store, []string{"bookings"}, q.HandleTx(func(ctx context.Context, tx *sql.Tx, _ *pgqrs.Message[int]) error {
		return l.book(ctx, tx, swallow)
	}))
	ms, err := store.Messages(t.Context(), pgqrs.MessageFilter{IDs: []int64{id}})
	must(t, err)
	return ms[0]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
