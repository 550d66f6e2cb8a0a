package pgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// Tx is the argument of [Store.WithTx]: a *sql.Tx, or a *sql.Conn on which the caller has begun a
// transaction. WithTx refuses a *sql.DB, which has the methods too, and everything else that can
// begin a transaction.
type Tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

const (
	maxTries       = 25                     // of one operation, if the database asks to try again
	firstRetryWait = 2 * time.Millisecond   // between two tries
	maxRetryWait   = 250 * time.Millisecond // the same
)

// A conn runs statements: on the pool, or in a transaction.
type conn struct {
	store *Store
	tx    Tx // nil means the pool
}

// conn returns the conn of a Store: its transaction, if it has one, or the pool.
func (s *Store) conn() conn { return conn{s, s.tx} }

// onPool returns a conn on the pool, for statements outside the Store's transaction.
func (s *Store) onPool() conn { return conn{s, nil} }

// rows runs a query and calls scan for every row. The cursor is drained and closed when rows
// returns. An open cursor would keep SQLite's write lock.
//
// scan may not use one []byte for several rows (see jsonColumn).
func (c conn) rows(ctx context.Context, text string, args []any, scan func(*sql.Rows) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err // not every driver checks ctx
	}
	call := sqlCall{c: c}
	defer call.end(&err)
	err = call.read(ctx, c.store.render(text), args, scan)
	call.returned = true
	return err
}

// read runs a query and calls scan for every row.
func (d *sqlCall) read(ctx context.Context, text string, args []any, scan func(*sql.Rows) error) error {
	rows, err := d.query(ctx, text, args)
	if err != nil {
		return err
	}
	d.rows = rows
	for rows.Next() {
		d.scanning = true
		err := scan(rows)
		d.scanning = false
		if err != nil {
			return err
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// rowsUntil runs queries that take the same arguments, until n rows have been scanned.
func (c conn) rowsUntil(ctx context.Context, n int, texts []string, args []any, scan func(*sql.Rows) error) error {
	for _, text := range texts {
		err := c.rows(ctx, text, args, func(rows *sql.Rows) error {
			n--
			return scan(rows)
		})
		if err != nil || n <= 0 {
			return err
		}
	}
	return nil
}

// query sends a query: in the transaction, prepared, or on a connection of its own. If that
// connection is gone, database/sql has discarded it, and query uses another.
func (d *sqlCall) query(ctx context.Context, text string, args []any) (*sql.Rows, error) {
	c := d.c
	if c.tx != nil {
		return c.tx.QueryContext(ctx, text, args...)
	}
	d.prepared = true
	if stmt := c.store.prepared.get(ctx, c.store.core, text); stmt != nil {
		rows, err := stmt.QueryContext(ctx, args...)
		if !c.store.prepared.unprepared(err, c.store.core) {
			return rows, err
		}
	}
	var err error
	if d.pinned, err = c.store.session(ctx); err != nil {
		return nil, err
	}
	rows, err := d.pinned.QueryContext(ctx, text, args...)
	if !errors.Is(err, driver.ErrBadConn) {
		return rows, err
	}
	return c.store.db.QueryContext(ctx, text, args...)
}

// scanRow scans a row that may lack its last columns, up to two. A mock that was written for an
// older release leaves them out.
func scanRow(rows *sql.Rows, into ...any) error {
	into, err := matchColumns(rows, into)
	return errors.Join(err, rows.Scan(into...))
}

// matchColumns returns the part of into for which the rows have columns.
func matchColumns(rows *sql.Rows, into []any) ([]any, error) {
	columns, err := rows.Columns()
	if n := len(columns); err == nil && n < len(into) && n >= len(into)-2 {
		into = into[:n]
	}
	return into, err
}

// exec runs a statement that returns no rows, and returns the number of rows that it changed.
func (c conn) exec(ctx context.Context, text string, args ...any) (n int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	call := sqlCall{c: c, exec: true}
	defer call.end(&err)
	result, err := call.execute(ctx, c.store.render(text), args)
	if err == nil {
		n, err = result.RowsAffected()
	}
	call.returned = true
	return n, err
}

// execute is query for a statement without rows.
func (d *sqlCall) execute(ctx context.Context, text string, args []any) (sql.Result, error) {
	c := d.c
	if c.tx != nil {
		return c.tx.ExecContext(ctx, text, args...)
	}
	d.prepared = true
	if stmt := c.store.prepared.get(ctx, c.store.core, text); stmt != nil {
		result, err := stmt.ExecContext(ctx, args...)
		if !c.store.prepared.unprepared(err, c.store.core) {
			return result, err
		}
	}
	var err error
	if d.pinned, err = c.store.session(ctx); err != nil {
		return nil, err
	}
	d.prepared = false
	result, err := d.pinned.ExecContext(ctx, text, args...)
	if !errors.Is(err, driver.ErrBadConn) {
		return result, err
	}
	return c.store.db.ExecContext(ctx, text, args...)
}

// ids runs a query whose rows are one id each.
func (c conn) ids(ctx context.Context, text string, args ...any) ([]int64, error) {
	var ids []int64
	var id int64
	row := []any{&id} // one for all rows
	err := c.rows(ctx, text, args, func(rows *sql.Rows) error {
		id = 0
		if err := rows.Scan(row...); err != nil {
			return err
		}
		ids = append(ids, id)
		return nil
	})
	return ids, err
}

// single runs one statement that writes. On the pool the statement is a transaction of its own.
// Otherwise it runs in the caller's transaction. fn runs again if the database asks for that, but
// never in a caller's transaction.
func (s *Store) single(ctx context.Context, fn func(conn) error) error {
	if s.cfg.Concurrent {
		return s.atomic(ctx, fn)
	}
	if s.tx != nil {
		return fn(s.conn())
	}
	return s.retry(ctx, func() error { return fn(s.onPool()) })
}

// retry runs fn, each time with the writer slot, until it succeeds, fails for good, or has been
// tried maxTries times. Every write on the pool goes through retry.
func (s *Store) retry(ctx context.Context, fn func() error) error {
	if err := s.outsideTx(ctx); err != nil {
		return err
	}
	wait := backoff{first: firstRetryWait, max: maxRetryWait, jitter: true}
	for try := 1; ; try++ {
		err := s.writer.do(ctx, fn)
		if err == nil || !s.dialect.retryable(err) || ctx.Err() != nil {
			return err
		}
		if try == maxTries {
			return fmt.Errorf("tried %d times: %w", try, err)
		}
		if !wait.pause(ctx) {
			return err
		}
	}
}

// A backoff waits twice as long each time, from first to max.
type backoff struct {
	first, max time.Duration
	jitter     bool          // whether each wait is between half and one and a half times as long
	next       time.Duration // 0 means first
}

// pause waits, and reports whether ctx is not done.
func (b *backoff) pause(ctx context.Context) bool {
	wait := max(b.next, b.first)
	b.next = min(2*wait, b.max)
	if b.jitter {
		wait = wait/2 + rand.N(wait)
	}
	return pause(ctx, wait)
}

// reset makes the next wait the first again.
func (b *backoff) reset() { b.next = 0 }

// pause waits, and reports whether ctx is not done.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// These are the errors of a database on which BEGIN CONCURRENT does not work.
var (
	errNoConcurrent = fmt.Errorf("%w: Config.Concurrent: the database has no BEGIN CONCURRENT", ErrUnsupported)
	errNoMVCC       = fmt.Errorf("%w, which puts the database into MVCC mode for Config.Concurrent", ErrNotInstalled)
)

// noConcurrent explains an error of BEGIN CONCURRENT, if it can.
func noConcurrent(err error) error {
	switch {
	case sqlerr.NoConcurrent(err):
		return fmt.Errorf("%w (%w)", errNoConcurrent, err)
	case sqlerr.NoMVCC(err):
		return fmt.Errorf("%w (%w)", errNoMVCC, err)
	}
	return err
}

// retryable reports whether the same work may succeed if it runs again. It never reports so for an
// error that user code returned, or for a panic.
func (d *dialect) retryable(err error) bool {
	var stale *unpreparedError
	var user *userError
	switch {
	case errors.As(err, &stale):
		return true
	case errors.As(err, &user), isDriverPanic(err):
		return false
	}
	state := sqlerr.State(err)
	return sqlerr.Retryable(state) || state == "" && sqlerr.Contains(err, d.errors.busy)
}

// isUnavailable reports whether the database cannot be used at present, for any statement. It is
// unreachable or read-only, or its disk is full.
func (d *dialect) isUnavailable(err error) bool {
	if isDriverPanic(err) {
		return false
	}
	if sqlerr.State(err) == "" && sqlerr.Contains(err, d.errors.unavailable) {
		return true
	}
	return sqlerr.ReadOnly(err) || sqlerr.Unreachable(err)
}

const rollbackTimeout = 5 * time.Second

// A transaction is a transaction that the library has begun.
type transaction interface {
	Tx
	Commit(context.Context) error
	Rollback(context.Context) error
	// onSession returns the connection of the transaction.
	onSession() *session
}

// atomic runs several statements in one transaction: the caller's, or one of its own. The whole fn
// runs again if the database asks for that, but never in a caller's transaction. So only the last
// run of fn may have effects outside the transaction. The Store of its conn is bound to the
// transaction.
func (s *Store) atomic(ctx context.Context, fn func(conn) error) error {
	if s.cfg.Concurrent {
		return s.transact(ctx, s.beginBy(s.dialect.transaction.concurrent), fn)
	}
	return s.transact(ctx, s.begin, fn)
}

// exclusive is atomic for transactions that change the schema, which BEGIN CONCURRENT does not
// allow, or that rely on rows not being there. On a database with a single writer it keeps the
// other writers out.
func (s *Store) exclusive(ctx context.Context, fn func(conn) error) error {
	return s.transact(ctx, s.beginBy(s.dialect.transaction.begin), fn)
}

// transact runs fn in the caller's transaction, or in one of its own, whose after-commit hooks it
// calls once that has committed.
func (s *Store) transact(ctx context.Context, begin func(context.Context, *session) (transaction, error), fn func(conn) error) error {
	if s.tx != nil {
		return fn(s.conn())
	}
	var news []func()
	try := func() error {
		return s.retry(ctx, func() error {
			news = nil
			return s.transactOnce(ctx, begin, &news, fn)
		})
	}
	err := try()
	if s.muteNotifier(err) {
		err = try() // now without notifying other processes
	}
	if err != nil {
		return err
	}
	for _, tell := range news {
		tell()
	}
	s.prepared.prepareWanted(ctx, s.core)
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
	err = fn(conn{&Store{core: s.core, tx: tx, afterCommit: news, notified: new(sync.Map)}, tx})
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		// After this point a cancelled ctx would only hide whether the transaction committed.
		err = tx.Commit(context.WithoutCancel(ctx))
	}
	done = true
	if err != nil {
		return errors.Join(err, rollback(ctx, tx))
	}
	return nil
}

// rollback ends a transaction that failed. The engine may have ended it already. On any other error
// the connection is discarded, since some drivers would give it to the next user in
// mid-transaction.
func rollback(ctx context.Context, tx transaction) error {
	own := tx.onSession()
	if own.panic != nil {
		return nil // it ends with its connection
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	err := tx.Rollback(ctx)
	if err == nil || strings.Contains(err.Error(), "no transaction is active") {
		return nil
	}
	_ = own.catchPanic(true, func() error { return own.Raw(func(any) error { return driver.ErrBadConn }) })
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return nil // the connection is gone, and the transaction with it
	}
	return fmt.Errorf("rollback: %w", err)
}

// begin opens a transaction of database/sql, in which prepared statements can be used.
func (s *Store) begin(ctx context.Context, own *session) (transaction, error) {
	// ctx bounds BEGIN only. Otherwise database/sql would discard the connection when ctx ends.
	limited, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, cancel)()
	tx, err := own.begin(limited, s.dialect.transaction.isolation)
	if err != nil {
		cancel()
		return nil, err
	}
	pool := &poolTx{Tx: tx, store: s.core, textTx: textTx{own}, cancel: cancel}
	if _, err := (conn{s, pool}).exec(ctx, s.dialect.transaction.open); err != nil {
		return nil, errors.Join(err, rollback(ctx, pool))
	}
	return pool, nil
}

// begin opens a transaction of database/sql on the connection.
func (o *session) begin(ctx context.Context, isolation sql.IsolationLevel) (tx *sql.Tx, err error) {
	err = o.catchPanic(true, func() (err error) {
		tx, err = o.BeginTx(ctx, &sql.TxOptions{Isolation: isolation})
		return err
	})
	if sqlerr.Unsupported(err) {
		err = &standbyError{err}
	}
	o.inTx = err == nil
	return tx, err
}

// A standbyError is the error of a standby that is asked for a transaction that writes. pgx asks
// for one, and lib/pq does not. The text of the error is in the server's language, so only its code
// identifies it.
type standbyError struct{ err error }

func (e *standbyError) Error() string { return e.err.Error() }

func (e *standbyError) Unwrap() error { return e.err }

// SQLState returns read_only_sql_transaction, the code that a standby returns for a statement that
// writes.
func (e *standbyError) SQLState() string { return sqlerr.StateReadOnly }

// endTx ends the transaction of database/sql on the connection by calling how.
func (o *session) endTx(how func() error) error {
	err := o.catchPanic(true, how)
	o.inTx = false
	return err
}

// A poolTx runs its statements prepared, if the pool often runs them.
type poolTx struct {
	*sql.Tx
	textTx // on the same connection
	store  *core
	cancel context.CancelFunc
}

func (t *poolTx) onSession() *session { return t.own }

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
	if stmt := t.store.prepared.getForTx(text); stmt != nil {
		rows, err := t.StmtContext(ctx, stmt).QueryContext(ctx, args...)
		return rows, t.checked(err)
	}
	return t.Tx.QueryContext(ctx, text, args...)
}

// ExecContext implements [Tx].
func (t *poolTx) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	if stmt := t.store.prepared.getForTx(text); stmt != nil {
		result, err := t.StmtContext(ctx, stmt).ExecContext(ctx, args...)
		return result, t.checked(err)
	}
	return t.Tx.ExecContext(ctx, text, args...)
}

// checked records that prepared statements do not persist, and asks to try again without them.
func (t *poolTx) checked(err error) error {
	if t.store.prepared.unprepared(err, t.store) {
		return &unpreparedError{err}
	}
	return err
}

// Commit implements [transaction]. database/sql takes no ctx for it.
func (t *poolTx) Commit(context.Context) error {
	err := t.own.endTx(t.Tx.Commit)
	t.stop()
	return err
}

// stop ends the goroutine of database/sql for the transaction, unless it would call a driver that
// has panicked.
func (t *poolTx) stop() {
	if t.own.panic == nil {
		t.cancel()
	}
}

// Rollback implements [transaction].
func (t *poolTx) Rollback(ctx context.Context) error {
	defer context.AfterFunc(ctx, t.cancel)() // not every driver gives up by itself
	err := t.own.endTx(t.Tx.Rollback)
	t.stop()
	if errors.Is(err, sql.ErrTxDone) {
		// For database/sql a failed COMMIT has ended the transaction, but not for every engine.
		return t.textTx.Rollback(ctx)
	}
	return err
}

// An unpreparedError is the error of a prepared statement that the server does not know.
type unpreparedError struct{ err error }

func (e *unpreparedError) Error() string { return e.err.Error() }

func (e *unpreparedError) Unwrap() error { return e.err }

// beginBy begins a transaction by a text, because BeginTx cannot express IMMEDIATE or CONCURRENT.
func (s *Store) beginBy(text string) func(context.Context, *session) (transaction, error) {
	return func(ctx context.Context, own *session) (transaction, error) {
		tx := textTx{own}
		if err := tx.exec(ctx, text); err != nil {
			if s.cfg.Concurrent {
				err = noConcurrent(err)
			}
			// A driver that gave up waiting may have begun nevertheless.
			return nil, errors.Join(err, rollback(ctx, tx))
		}
		return tx, nil
	}
}

// A textTx is a transaction that was begun by a text.
type textTx struct{ own *session }

func (t textTx) onSession() *session { return t.own }

func (t textTx) exec(ctx context.Context, text string) error {
	return t.own.catchPanic(false, func() error {
		_, err := t.own.ExecContext(ctx, text)
		return err
	})
}

// Commit implements [transaction].
func (t textTx) Commit(ctx context.Context) error {
	return t.exec(ctx, t.own.store.dialect.transaction.commit)
}

// Rollback implements [transaction].
func (t textTx) Rollback(ctx context.Context) error {
	return t.exec(ctx, t.own.store.dialect.transaction.rollback)
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

// A writerSlot admits one write of a Store at a time, in the order in which they come, for a
// database with a single writer. Without it a write that finds the database busy sleeps and tries
// again, and may find it busy each time. A nil writerSlot admits every write at once.
//
// It is not a lock, and correctness does not depend on it. A write that has waited for
// writerSlotWait goes on without it. The write before may be waiting for another process, or may be
// a StepTx whose function also writes by another Store.
type writerSlot chan struct{}

const writerSlotWait = time.Second

// do calls fn once it has the slot or has waited for writerSlotWait. If ctx ends first, do returns
// the error of ctx.
func (t writerSlot) do(ctx context.Context, fn func() error) error {
	if t == nil {
		return fn()
	}
	select {
	case t <- struct{}{}:
		defer t.end()
		return fn()
	default:
	}
	timer := time.NewTimer(writerSlotWait)
	defer timer.Stop()
	select {
	case t <- struct{}{}:
		defer t.end()
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return fn()
}

func (t writerSlot) end() { <-t }
