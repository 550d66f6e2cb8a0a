package pgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"
)

// Tx is what [Store.WithTx] takes: a *sql.Tx, or a *sql.Conn on which the
// caller has begun a transaction. A *sql.DB has the methods too, but is refused,
// as is everything else that can begin a transaction.
type Tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

const (
	maxTries     = 25                     // of one operation, when the database asks to try again
	maxRetryWait = 250 * time.Millisecond // between two of them
)

// A conn runs statements: on the pool, or in a transaction.
type conn struct {
	store *Store
	tx    Tx // nil: the pool
}

// rows runs a query and calls scan for every row. The cursor is drained and
// closed when it returns: an open one keeps SQLite's write lock.
//
// scan may not use one []byte for several rows; see jsonColumn.
func (c conn) rows(ctx context.Context, text string, args []any, scan func(*sql.Rows) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err // not every driver looks
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

// rowsUntil runs queries that take the same arguments, until n rows have come.
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

// query sends a query: in the transaction, prepared, or on a connection of its own. If that is
// gone, database/sql has thrown it away, and finds another.
func (d *sqlCall) query(ctx context.Context, text string, args []any) (*sql.Rows, error) {
	c := d.c
	if c.tx != nil {
		return c.tx.QueryContext(ctx, text, args...)
	}
	d.prepared = true
	if stmt := c.store.prepared.get(ctx, c.store.core, text); stmt != nil {
		rows, err := stmt.QueryContext(ctx, args...)
		if !c.store.prepared.gone(err, c.store.core) {
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

// scanRow scans a row that may lack its last columns, up to two, which a mock leaves out
// that was written for an older release.
func scanRow(rows *sql.Rows, into ...any) error {
	into, err := fitting(rows, into)
	return errors.Join(err, rows.Scan(into...))
}

// fitting returns as much of into as rows have columns for.
func fitting(rows *sql.Rows, into []any) ([]any, error) {
	columns, err := rows.Columns()
	if n := len(columns); err == nil && n < len(into) && n >= len(into)-2 {
		into = into[:n]
	}
	return into, err
}

// exec runs a statement that returns no rows and says how many it touched.
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
		if !c.store.prepared.gone(err, c.store.core) {
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

// single runs one statement that writes: by itself on the pool, where it is a
// transaction of its own, or in the caller's transaction. fn runs again when
// the database asks for it, but never in a caller's transaction.
func (s *Store) single(ctx context.Context, fn func(conn) error) error {
	if s.cfg.Concurrent {
		return s.atomic(ctx, fn)
	}
	if s.tx != nil {
		return fn(conn{s, s.tx})
	}
	return s.retry(ctx, func() error { return fn(conn{s, nil}) })
}

// retry runs fn, each time in its turn, until it succeeds, fails for good, or has been tried often
// enough. All that writes on the pool comes by here.
func (s *Store) retry(ctx context.Context, fn func() error) error {
	if err := s.outsideTx(ctx); err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := s.turn.do(ctx, fn)
		if err == nil || !s.dialect.retryable(err) || ctx.Err() != nil {
			return err
		}
		if try == maxTries {
			return fmt.Errorf("tried %d times: %w", try, err)
		}
		wait := min(time.Millisecond<<min(try, 20), maxRetryWait)
		if !pause(ctx, wait/2+rand.N(wait)) {
			return err
		}
	}
}

// pause waits and reports whether ctx let it.
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

// sqlState returns PostgreSQL's error code, which lib/pq and pgx both offer by a method.
func sqlState(err error) (state string) {
	defer func() {
		if recover() != nil {
			state = "" // it is not a driver's
		}
	}()
	var coded interface{ SQLState() string }
	if errors.As(err, &coded) {
		return coded.SQLState()
	}
	return ""
}

// What is wrong where BEGIN CONCURRENT does not work.
var (
	errNoConcurrent = fmt.Errorf("%w: Config.Concurrent: the database has no BEGIN CONCURRENT", ErrUnsupported)
	errNoMVCC       = fmt.Errorf("%w, which puts the database into MVCC mode for Config.Concurrent", ErrNotInstalled)
)

// noConcurrent says what is wrong in an error of BEGIN CONCURRENT, if it knows.
func noConcurrent(err error) error {
	switch {
	case containsAny(err, []string{`near "concurrent": syntax error`}): // SQLite, libSQL
		return fmt.Errorf("%w (%w)", errNoConcurrent, err)
	case containsAny(err, []string{"only supported when mvcc is enabled"}): // Turso in WAL mode
		return fmt.Errorf("%w (%w)", errNoMVCC, err)
	}
	return err
}

// retryable reports whether the same work may succeed if it runs again. What user code returned
// is no reason, nor is a panic.
func (d *dialect) retryable(err error) bool {
	var stale *unpreparedError
	var user *ownError
	switch {
	case errors.As(err, &stale):
		return true
	case errors.As(err, &user), isDriverPanic(err):
		return false
	}
	state := sqlState(err)
	return retryableState(state) || state == "" && containsAny(err, d.busy)
}

// retryableState reports whether PostgreSQL's code asks to try again: serialization_failure, deadlock_detected.
func retryableState(state string) bool { return state == "40001" || state == "40P01" }

// away reports whether an error says that the database cannot be used just
// now, whatever is asked of it: it is unreachable, read-only, or its disk is full.
func (d *dialect) away(err error) bool {
	if isDriverPanic(err) {
		return false
	}
	switch sqlState(err) {
	case "":
		return unreachable(err) || containsAny(err, d.gone)
	case "25006": // read_only_sql_transaction
		return true
	}
	return unreachable(err)
}

// unreachable reports whether an error says that the database or the
// connection to it is gone, or that it takes no more connections.
func unreachable(err error) bool {
	var network *net.OpError
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) {
		return true
	}
	// Connection exceptions, insufficient resources, the server's coming and going, errors of its system, idle_in_transaction_session_timeout.
	state := sqlState(err)
	return slices.ContainsFunc([]string{"08", "53", "57P", "58", "25P03"}, func(class string) bool { return strings.HasPrefix(state, class) })
}

// missing reports whether the error says that a table or column is not there.
func missing(err error) bool {
	switch sqlState(err) {
	case "42P01", "42703", "3F000", "42704": // undefined table, column, schema, type
		return true
	case "":
	default:
		return false
	}
	return containsAny(err, []string{"no such table: pgqrs", "no such column", "has no column named", "no such table: main.pgqrs"})
}

func containsAny(err error, texts []string) bool {
	text := strings.ToLower(err.Error())
	if _, after, quoting := strings.Cut(text, "sqlite failure: "); quoting {
		text = after // go-libsql quotes the statement before it, and what users wrote in theirs
	}
	for _, t := range texts {
		if strings.Contains(text, t) {
			return true
		}
	}
	return false
}
