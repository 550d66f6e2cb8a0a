package pgqrs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/dsn"
	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// A driver panics in the middle of a call of database/sql. The package then unlocks the connection,
// but may go on to hold a lock of the *sql.Conn or *sql.Tx, and its place in the pool. Close,
// Commit and Rollback would wait for that lock for ever, so none of them is called. The driver's
// own connection is closed instead, or it would keep its locks in the database.

// A driverPanic is a panic of the driver, as the error of the call in which it happened.
type driverPanic struct {
	value string
	held  bool // database/sql holds a lock for ever because of the call
}

func (e *driverPanic) Error() string { return "the database driver panicked: " + e.value }

func isDriverPanic(err error) bool {
	var p *driverPanic
	return errors.As(err, &p)
}

// driverPanicked turns a panic into an error and logs it with its stack.
func (s *core) driverPanicked(v any, held bool) *driverPanic {
	p := &driverPanic{fmt.Sprint(v), held}
	s.failures.key("driver").Error("pgqrs: the database driver panicked; its connection is discarded", "panic", p.value, "stack", string(debug.Stack()))
	return p
}

// catchPanic calls fn, which calls database/sql, and turns a panic into an error.
func (s *core) catchPanic(held bool, fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = s.driverPanicked(v, held)
		}
	}()
	return fn()
}

// A session is a connection of the pool, for one user at a time.
type session struct {
	*sql.Conn
	store *core
	panic *driverPanic // nil if the driver has not panicked on it
	inTx  bool         // a transaction of database/sql is open on it
}

// session takes a connection from the pool.
func (s *core) session(ctx context.Context) (*session, error) {
	own := &session{store: s}
	err := s.catchPanic(true, func() (err error) {
		own.Conn, err = s.db.Conn(ctx)
		return err
	})
	if own.notePanic(err) {
		s.replaceConn()
	}
	if err != nil {
		return nil, dsn.Secrets(nil).Redact(err)
	}
	return own, nil
}

// sessionFor takes a connection and calls begin with it. If the connection turns out to be gone, as
// after a restart of the server, sessionFor tries another, since nothing has been done on it.
func (s *core) sessionFor(ctx context.Context, begin func(*session) error) (*session, error) {
	for range maxTries {
		fresh := s.db.Stats().Idle == 0
		own, err := s.session(ctx)
		if err == nil {
			if err = begin(own); err == nil {
				return own, nil
			}
			own.release()
		}
		if fresh || !errors.Is(err, driver.ErrBadConn) {
			return nil, err
		}
	}
	return nil, driver.ErrBadConn
}

// catchPanic is core.catchPanic for a call on the connection. After a panic a session calls nothing
// more.
func (o *session) catchPanic(held bool, fn func() error) error {
	if o.panic != nil {
		return o.panic
	}
	err := o.store.catchPanic(held, fn)
	o.notePanic(err)
	return err
}

// notePanic stores a panic, and reports whether err is one.
func (o *session) notePanic(err error) bool {
	p, ok := err.(*driverPanic)
	if ok && o.panic == nil {
		o.panic = &driverPanic{p.value, p.held || o.inTx} // an open transaction holds a lock
	}
	return ok
}

// release returns the connection to the pool, or discards it if the driver has panicked.
func (o *session) release() {
	if o.panic == nil {
		_ = o.catchPanic(true, o.Conn.Close)
	}
	if o.panic != nil {
		o.discard()
	}
}

// discard closes the connection, through database/sql if that cannot wait for ever.
func (o *session) discard() {
	held := o.panic.held
	err := o.store.catchPanic(held, func() error {
		return o.Raw(func(conn any) error {
			if !held {
				return driver.ErrBadConn
			}
			if conn, ok := conn.(driver.Conn); ok {
				o.store.unlock(conn)
				return foreign.Catch(func() { _ = conn.Close() })
			}
			return nil
		})
	})
	if _, again := err.(*driverPanic); held || again {
		o.store.replaceConn()
	}
}

// unlock ends the transaction of a connection that is about to be closed. SQLite keeps a closed
// connection, with its transaction, as long as it has prepared statements, and nobody else could
// write. A single statement has a transaction that ROLLBACK does not end without a BEGIN before it.
// In an open transaction BEGIN fails. The library sends a driver nothing else after a panic.
func (s *core) unlock(conn driver.Conn) {
	if !(&Store{core: s}).singleWriter() {
		return
	}
	execer, ok := conn.(driver.ExecerContext)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, text := range []string{"/* pgqrs:begin */ BEGIN", s.dialect.transaction.rollback} {
		_ = foreign.Catch(func() { _, _ = execer.ExecContext(ctx, text, nil) })
	}
}

// replaceConn raises the limit of the pool by one, for a connection that database/sql counts as
// open for ever. Otherwise a small pool would be empty in time.
func (s *core) replaceConn() {
	s.poolSizeMu.Lock()
	most := s.db.Stats().MaxOpenConnections
	if most > 0 {
		s.db.SetMaxOpenConns(most + 1)
	}
	s.poolSizeMu.Unlock()
	if most <= 0 {
		return
	}
	// A waiting caller does not notice the raised limit, but gets the next connection that is
	// returned.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.catchPanic(true, func() error {
		conn, err := s.db.Conn(ctx)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// discardLatest discards the connection that was returned to the pool last, which is the next to be
// taken. It is the connection on which the driver has just panicked, unless another caller has
// taken that in between.
func (s *core) discardLatest() {
	if s.db.Stats().Idle == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if own, err := s.session(ctx); err == nil {
		own.panic = &driverPanic{}
		own.release()
	}
}

// A sqlCall is the call of one statement through database/sql.
type sqlCall struct {
	c conn
	// pinned is the connection of a single statement. It is nil in a transaction or with a prepared
	// statement.
	pinned   *session
	prepared bool      // database/sql chose the connection
	rows     *sql.Rows // nil before the query has returned
	scanning bool
	exec     bool
	returned bool // whether it returned without a panic or the end of its goroutine
}

// end closes the rows and the connection of the call, and turns a panic into its error. It is
// deferred.
func (d *sqlCall) end(err *error) {
	v := recover()
	switch {
	case v != nil:
	case d.returned:
		v = d.close()
	default:
		v = foreign.ErrGoexit
	}
	if v != nil {
		*err = d.panicked(v)
	}
	if d.pinned != nil {
		d.pinned.release()
	}
	if d.c.tx == nil {
		*err = dsn.Secrets(nil).Redact(*err) // it may be one of connecting
	}
}

// close closes the rows and returns what the driver panicked with.
func (d *sqlCall) close() (v any) {
	defer func() { v = recover() }()
	if d.rows != nil {
		_ = d.rows.Close() // d.rows.Err has its error
	}
	return nil
}

// panicked finds out which locks database/sql still holds, and discards the connection.
func (d *sqlCall) panicked(v any) error {
	held := d.holds()
	p := d.c.store.driverPanicked(v, held)
	switch own, ok := d.c.tx.(transaction); {
	case d.pinned != nil:
		d.pinned.notePanic(p)
	case ok:
		own.onSession().notePanic(p)
	case d.c.tx == nil:
		if held {
			d.c.store.replaceConn()
		}
		d.c.store.prepared.stopAfter(p, d.c.store.core)
	}
	return p
}

// holds reports whether database/sql holds a lock for the call for ever. It is called while the
// panic is being recovered.
func (d *sqlCall) holds() bool {
	switch {
	case d.exec:
		return d.prepared // otherwise a deferred call releases it
	case d.rows == nil:
		return true // it holds one since it called the driver
	case d.scanning && foreign.OnStack("database/sql.(*Rows).scanLocked"):
		return true // Scan holds a lock that Close waits for. Before Go 1.24.6 it has none
	case foreign.OnStack("database/sql.(*Rows).close"):
		return true
	}
	// database/sql has released everything. The rows are closed here, because database/sql would
	// close them when ctx ends, in a goroutine of its own, where nothing recovers.
	return d.close() != nil
}
