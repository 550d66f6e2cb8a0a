package pgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const rollbackTimeout = 5 * time.Second

// A transaction is one of the library's own.
type transaction interface {
	Tx
	Commit(context.Context) error
	Rollback(context.Context) error
	// on returns the connection that it is on.
	on() *session
}

// atomic runs several statements in one transaction: the caller's, or one of
// its own. The whole fn runs again when the database asks for it, but never in
// a caller's transaction: what it leaves outside itself must be that of its
// last run. The Store of its conn is bound to the transaction.
func (s *Store) atomic(ctx context.Context, fn func(conn) error) error {
	if s.cfg.Concurrent {
		return s.transact(ctx, s.beginBy(s.dialect.concurrent), fn)
	}
	return s.transact(ctx, s.begin, fn)
}

// alone is atomic for what changes the schema, which BEGIN CONCURRENT does not
// allow, or relies on what it did not find: nobody writes beside it.
func (s *Store) alone(ctx context.Context, fn func(conn) error) error {
	return s.transact(ctx, s.beginBy(s.dialect.begin), fn)
}

// transact runs fn in the caller's transaction, or in one of its own, whose news it tells once that has committed.
func (s *Store) transact(ctx context.Context, begin func(context.Context, *session) (transaction, error), fn func(conn) error) error {
	if s.tx != nil {
		return fn(conn{s, s.tx})
	}
	var news []func()
	try := func() error {
		return s.retry(ctx, func() error {
			news = nil
			return s.transactOnce(ctx, begin, &news, fn)
		})
	}
	err := try()
	if s.mutes(err) {
		err = try() // without telling other processes
	}
	if err != nil {
		return err
	}
	for _, tell := range news {
		tell()
	}
	s.prepared.catchUp(ctx, s.core)
	return nil
}

func (s *Store) transactOnce(ctx context.Context, begin func(context.Context, *session) (transaction, error), news *[]func(), fn func(conn) error) error {
	var tx transaction
	own, err := s.sessionFor(ctx, func(own *session) (err error) {
		tx, err = begin(ctx, own)
		return err
	})
	if err != nil {
		return err
	}
	defer own.release()
	done := false
	defer func() {
		if !done { // fn panicked
			_ = rollback(ctx, tx)
		}
	}()
	err = fn(conn{&Store{core: s.core, tx: tx, news: news, told: new(sync.Map)}, tx})
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		// Past this point a cancelled ctx could only hide whether it took place.
		err = tx.Commit(context.WithoutCancel(ctx))
	}
	done = true
	if err != nil {
		return errors.Join(err, rollback(ctx, tx))
	}
	return nil
}

// rollback ends a transaction that failed. The engine may have ended it
// already; any other trouble costs the connection, since some drivers would
// hand it to the next user in mid-transaction.
func rollback(ctx context.Context, tx transaction) error {
	own := tx.on()
	if own.panic != nil {
		return nil // it goes with its connection
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	err := tx.Rollback(ctx)
	if err == nil || strings.Contains(err.Error(), "no transaction is active") {
		return nil
	}
	_ = own.guard(true, func() error { return own.Raw(func(any) error { return driver.ErrBadConn }) })
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return nil // the connection is gone, and the transaction with it
	}
	return fmt.Errorf("rollback: %w", err)
}

// begin opens a transaction of database/sql, in which prepared statements can be used.
func (s *Store) begin(ctx context.Context, own *session) (transaction, error) {
	// Only BEGIN itself is to end with ctx: database/sql would throw away the connection of a transaction that does.
	limited, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, cancel)()
	tx, err := own.begin(limited, s.dialect.isolation)
	if err != nil {
		cancel()
		return nil, err
	}
	pool := &poolTx{Tx: tx, store: s.core, textTx: textTx{own}, cancel: cancel}
	if _, err := (conn{s, pool}).exec(ctx, s.dialect.open); err != nil {
		return nil, errors.Join(err, rollback(ctx, pool))
	}
	return pool, nil
}

// begin opens a transaction of database/sql on the connection.
func (o *session) begin(ctx context.Context, isolation sql.IsolationLevel) (tx *sql.Tx, err error) {
	err = o.guard(true, func() (err error) {
		tx, err = o.BeginTx(ctx, &sql.TxOptions{Isolation: isolation})
		return err
	})
	if sqlState(err) == "0A000" { // feature_not_supported
		err = &standbyError{err}
	}
	o.inTx = err == nil
	return tx, err
}

// A standbyError is the error of a standby that is asked for a transaction that writes. pgx asks for one, lib/pq does not.
// The text of such an error is in the server's language, so its code is all that tells.
type standbyError struct{ err error }

func (e *standbyError) Error() string { return e.err.Error() }
func (e *standbyError) Unwrap() error { return e.err }

// SQLState returns read_only_sql_transaction, which a standby answers to a statement that writes.
func (e *standbyError) SQLState() string { return "25006" }

// end ends the transaction of database/sql on the connection, by a call of it.
func (o *session) end(how func() error) error {
	err := o.guard(true, how)
	o.inTx = false
	return err
}

// A poolTx runs texts that the pool runs often as prepared statements.
type poolTx struct {
	*sql.Tx
	textTx // on the same connection
	store  *core
	cancel context.CancelFunc
}

func (t *poolTx) on() *session { return t.own }

// PrepareContext implements [Tx].
func (t *poolTx) PrepareContext(ctx context.Context, text string) (*sql.Stmt, error) {
	return t.Tx.PrepareContext(ctx, text)
}

// QueryRowContext implements [Tx].
func (t *poolTx) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	return t.Tx.QueryRowContext(ctx, text, args...)
}

// QueryContext implements [Tx].
func (t *poolTx) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	if stmt := t.store.prepared.known(text); stmt != nil {
		rows, err := t.StmtContext(ctx, stmt).QueryContext(ctx, args...)
		return rows, t.checked(err)
	}
	return t.Tx.QueryContext(ctx, text, args...)
}

// ExecContext implements [Tx].
func (t *poolTx) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	if stmt := t.store.prepared.known(text); stmt != nil {
		result, err := t.StmtContext(ctx, stmt).ExecContext(ctx, args...)
		return result, t.checked(err)
	}
	return t.Tx.ExecContext(ctx, text, args...)
}

// checked notes that prepared statements do not stay, and asks to try again without.
func (t *poolTx) checked(err error) error {
	if t.store.prepared.gone(err, t.store) {
		return &unpreparedError{err}
	}
	return err
}

// Commit implements [transaction]. Its driver takes no ctx for it.
func (t *poolTx) Commit(context.Context) error {
	err := t.own.end(t.Tx.Commit)
	t.stop()
	return err
}

// stop ends what database/sql does for the transaction, unless it would ask a driver again that has panicked.
func (t *poolTx) stop() {
	if t.own.panic == nil {
		t.cancel()
	}
}

// Rollback implements [transaction].
func (t *poolTx) Rollback(ctx context.Context) error {
	defer context.AfterFunc(ctx, t.cancel)() // not every driver gives up by itself
	err := t.own.end(t.Tx.Rollback)
	t.stop()
	if errors.Is(err, sql.ErrTxDone) {
		return t.textTx.Rollback(ctx) // for database/sql a failed COMMIT has ended it, but not for every engine
	}
	return err
}

// An unpreparedError is that of a prepared statement which the server did not know.
type unpreparedError struct{ err error }

func (e *unpreparedError) Error() string { return e.err.Error() }
func (e *unpreparedError) Unwrap() error { return e.err }

// beginBy begins a transaction by a text, because BeginTx cannot say IMMEDIATE or CONCURRENT.
func (s *Store) beginBy(text string) func(context.Context, *session) (transaction, error) {
	return func(ctx context.Context, own *session) (transaction, error) {
		tx := textTx{own}
		if err := tx.exec(ctx, text); err != nil {
			if s.cfg.Concurrent {
				err = noConcurrent(err)
			}
			// A driver that gave up waiting may have begun all the same.
			return nil, errors.Join(err, rollback(ctx, tx))
		}
		return tx, nil
	}
}

// A textTx is a transaction that was begun by a text.
type textTx struct{ own *session }

func (t textTx) on() *session { return t.own }

func (t textTx) exec(ctx context.Context, text string) error {
	return t.own.guard(false, func() error {
		_, err := t.own.ExecContext(ctx, text)
		return err
	})
}

// Commit implements [transaction].
func (t textTx) Commit(ctx context.Context) error {
	return t.exec(ctx, "/* pgqrs:commit */ COMMIT")
}

// Rollback implements [transaction].
func (t textTx) Rollback(ctx context.Context) error {
	return t.exec(ctx, "/* pgqrs:rollback */ ROLLBACK")
}

// QueryContext implements [Tx].
func (t textTx) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return t.own.QueryContext(ctx, text, args...)
}

// ExecContext implements [Tx].
func (t textTx) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	return t.own.ExecContext(ctx, text, args...)
}

// PrepareContext implements [Tx].
func (t textTx) PrepareContext(ctx context.Context, text string) (*sql.Stmt, error) {
	return t.own.PrepareContext(ctx, text)
}

// QueryRowContext implements [Tx].
func (t textTx) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	return t.own.QueryRowContext(ctx, text, args...)
}
