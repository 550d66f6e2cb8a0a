package conformance

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

// A fault is what happens to a statement on its way.
type fault int

const (
	none    fault = iota
	refused       // the database never sees it
	// The database runs the statement, and the answer is lost. In a transaction of the library, the
	// answer to its COMMIT is lost instead.
	muted
	// The database runs the statement, but refuses the COMMIT because of a conflict. Outside a
	// transaction the statement itself is refused.
	refuted
)

// The texts of calls of a *sql.Tx, which are no statements.
const (
	txBegin  = "/* pgqrs:begin */ BEGIN of a *sql.Tx"
	txCommit = "/* pgqrs:commit */ COMMIT of a *sql.Tx"
)

// errLost is the error of a faulty statement. The connection is gone afterwards.
var errLost = fmt.Errorf("connection lost by the test: %w", io.ErrUnexpectedEOF)

// errConflict asks the caller to try again. It has SQLite's words and PostgreSQL's code.
var errConflict = conflictError{}

type conflictError struct{}

func (conflictError) Error() string    { return "database is locked, says the test" }
func (conflictError) SQLState() string { return "40001" }

// A network stands between a Store and its database, and can fail on demand.
type network struct {
	db *sql.DB // the database itself

	mu    sync.Mutex
	fails func(text string) fault
}

// fail sets the faults of statements from now on, by their text. The function f may be called by
// several goroutines at once, and one call may wait for another.
func (n *network) fail(f func(text string) fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fails = f
}

// heal ends all faults.
func (n *network) heal() { n.fail(nil) }

func (n *network) fault(text string) fault {
	n.mu.Lock()
	f := n.fails
	n.mu.Unlock()
	if f == nil {
		return none
	}
	return f(text)
}

// once returns a fault of the first statement with the tag only. The channel is closed when it has
// happened.
func once(tag string, kind fault) (f func(text string) fault, happened <-chan struct{}) {
	done := make(chan struct{})
	var met atomic.Bool
	return func(text string) fault {
		if !mentions(text, tag) || !met.CompareAndSwap(false, true) {
			return none
		}
		close(done)
		return kind
	}, done
}

// mentions reports whether a statement has the tag, or one of several tags separated by |.
func mentions(text, tags string) bool {
	return slices.ContainsFunc(strings.Split(tags, "|"), func(tag string) bool { return strings.Contains(text, tag) })
}

// conflict returns a fault of the first statement with the tag: a conflict. It calls meanwhile,
// unless that is nil, before the statement is tried again.
func conflict(tag string, meanwhile func()) func(text string) fault {
	var met atomic.Bool
	var then sync.Once
	return func(text string) fault {
		found := mentions(text, tag)
		if found && met.CompareAndSwap(false, true) {
			return refuted
		}
		if met.Load() && meanwhile != nil && (found || strings.Contains(text, "pgqrs:begin")) {
			then.Do(meanwhile)
		}
		return none
	}
}

// farStore returns a Store that reaches the case's database over a network.
func (e *env) farStore(t *testing.T) (*pgqrs.Store, *network) {
	t.Helper()
	return e.farStoreWith(t, pgqrs.Config{})
}

func (e *env) farStoreWith(t *testing.T, c pgqrs.Config) (*pgqrs.Store, *network) {
	t.Helper()
	c.NoPrepare = true
	n := &network{db: e.db}
	db := sql.OpenDB(n)
	db.SetMaxOpenConns(8) // of the database's own pool, which may have some 20
	t.Cleanup(func() {
		n.heal()
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	far := &env{db: db, dialect: e.dialect, config: e.config, log: e.log}
	return far.newStore(t, c), n
}

// Connect implements [driver.Connector].
func (n *network) Connect(ctx context.Context) (driver.Conn, error) {
	if n.fault("connect") != none {
		return nil, errLost
	}
	conn, err := n.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &farConn{n: n, conn: conn}, nil
}

// Driver implements [driver.Connector].
func (n *network) Driver() driver.Driver { return n }

// Open implements [driver.Driver].
func (n *network) Open(string) (driver.Conn, error) { return n.Connect(context.Background()) }

// A farConn passes statements on to a connection of the database's own pool.
type farConn struct {
	n    *network
	conn *sql.Conn
	tx   *sql.Tx // the open transaction, if any
	own  bool    // a transaction that the library began is open
	end  fault   // what happens to its COMMIT
	lost bool
}

// run passes a statement to send, unless the network fails it. If the answer is lost, drop discards
// it.
func (c *farConn) run(text string, send func(pgqrs.Tx) error, drop func() error) error {
	if c.lost {
		return errLost
	}
	kind := c.n.fault(text)
	if kind == refused {
		c.lost = true
		return errLost
	}
	kind = c.later(text, kind)
	if kind == refuted {
		return errConflict
	}
	var on pgqrs.Tx = c.conn
	if c.tx != nil {
		on = c.tx
	}
	err := send(on)
	if err != nil || kind == none {
		return err
	}
	c.lost = true
	return errors.Join(errLost, drop())
}

// later follows the library's transactions. A statement in a transaction that is muted or refuted
// passes its fault on to the COMMIT.
func (c *farConn) later(text string, kind fault) fault {
	switch {
	case strings.Contains(text, "pgqrs:begin"):
		c.own, c.end = true, none
	case strings.Contains(text, "pgqrs:commit"):
		if kind == none {
			kind = c.end
		}
		c.own = kind == refuted
	case strings.Contains(text, "pgqrs:rollback"):
		c.own = false
	case c.own && kind != none:
		c.end = kind
		return none
	}
	return kind
}

// QueryContext implements [driver.QueryerContext].
func (c *farConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	var rows *sql.Rows
	err := c.run(text, func(on pgqrs.Tx) (err error) {
		rows, err = on.QueryContext(ctx, text, plain(args)...)
		return err
	}, func() error {
		for rows.Next() { // a driver may run the statement only while its rows are read
			continue
		}
		return errors.Join(rows.Err(), rows.Close())
	})
	if err != nil {
		return nil, err
	}
	return farRows{rows}, nil
}

// ExecContext implements [driver.ExecerContext].
func (c *farConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (result driver.Result, err error) {
	err = c.run(text, func(on pgqrs.Tx) (err error) {
		result, err = on.ExecContext(ctx, text, plain(args)...)
		return err
	}, func() error { return nil })
	if err != nil {
		return nil, err
	}
	return result, nil
}

func plain(args []driver.NamedValue) []any {
	list := make([]any, len(args))
	for i, a := range args {
		list[i] = a.Value
	}
	return list
}

// BeginTx implements [driver.ConnBeginTx].
func (c *farConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if c.later(txBegin, c.n.fault(txBegin)) != none {
		c.lost = true
		return nil, errLost
	}
	tx, err := c.conn.BeginTx(context.WithoutCancel(ctx), &sql.TxOptions{Isolation: sql.IsolationLevel(opts.Isolation), ReadOnly: opts.ReadOnly})
	if err != nil {
		return nil, err
	}
	c.tx = tx
	return c, nil
}

// Commit implements [driver.Tx].
func (c *farConn) Commit() error {
	tx := c.tx
	c.tx = nil
	kind := c.later(txCommit, c.n.fault(txCommit))
	switch kind {
	case none:
		return tx.Commit()
	case refuted:
		return errors.Join(errConflict, tx.Rollback())
	}
	c.lost = true
	if kind == refused {
		return errors.Join(errLost, tx.Rollback())
	}
	return errors.Join(errLost, tx.Commit())
}

// Rollback implements [driver.Tx].
func (c *farConn) Rollback() error {
	tx := c.tx
	c.tx, c.own = nil, false
	return tx.Rollback()
}

// IsValid implements [driver.Validator].
func (c *farConn) IsValid() bool { return !c.lost }

// Close implements [driver.Conn].
func (c *farConn) Close() error {
	if c.tx != nil {
		return errors.Join(c.Rollback(), c.conn.Close())
	}
	if c.own { // as a server does after its client is gone
		_, _ = c.conn.ExecContext(context.Background(), "ROLLBACK")
	}
	return c.conn.Close()
}

// Prepare implements [driver.Conn].
func (c *farConn) Prepare(string) (driver.Stmt, error) {
	return nil, errors.New("no prepared statements over this network")
}

// Begin implements [driver.Conn].
func (c *farConn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// farRows are rows of the database's own pool.
type farRows struct{ *sql.Rows }

// Columns implements [driver.Rows].
func (r farRows) Columns() []string {
	names, _ := r.Rows.Columns() // an error appears in Next
	return names
}

// Next implements [driver.Rows].
func (r farRows) Next(dest []driver.Value) error {
	if !r.Rows.Next() {
		if err := r.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	into := make([]any, len(dest))
	for i := range dest {
		into[i] = (*any)(&dest[i])
	}
	return r.Scan(into...)
}
