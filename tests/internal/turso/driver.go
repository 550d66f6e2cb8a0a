// Package turso is a database/sql driver for the Turso engine, for tests.
//
// The engine runs in a Node process, one for the test binary. Every connection of the driver is a
// connection of the engine. The driver registers the name of Turso's Go driver and accepts its data
// source names:
//
//	path[?_busy_timeout=milliseconds][&experimental=a,b]
//		[&encryption_cipher=c&encryption_hexkey=k][&vfs=syscall]
//
// It needs Node and npm, which downloads the engine once and keeps it in the user's cache
// directory. [Require] skips a test if they are missing.
package turso

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func init() { sql.Register("turso", turso{}) }

// turso implements [driver.Driver].
type turso struct{}

func (turso) Open(dsn string) (driver.Conn, error) {
	c, err := NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	return c.Connect(context.Background())
}

// A Connector makes connections to one database.
type Connector struct {
	// Pragmas are executed on each connection.
	Pragmas []string
	// Trace, if set, is called after every statement with its error. It must be safe for concurrent
	// use.
	Trace func(text string, err error)

	path    string
	options options
}

// options are the options of the engine's constructor in JavaScript.
type options struct {
	Timeout      int         `json:"timeout"` // for locks, in milliseconds
	Experimental []string    `json:"experimental,omitempty"`
	Encryption   *encryption `json:"encryption,omitempty"`
}

type encryption struct {
	Cipher string `json:"cipher"`
	Key    string `json:"hexkey"`
}

// NewConnector returns a Connector for a data source name.
func NewConnector(dsn string) (*Connector, error) {
	path, query, _ := strings.Cut(dsn, "?")
	params, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("turso: the parameters of the data source name: %w", err)
	}
	if path != ":memory:" {
		if path, err = filepath.Abs(path); err != nil { // the process works in another directory
			return nil, err
		}
	}
	c := &Connector{path: path, options: options{Timeout: 5000}}
	var e encryption
	for name := range params {
		switch value := params.Get(name); name {
		case "_busy_timeout":
			if c.options.Timeout, err = strconv.Atoi(value); err != nil {
				return nil, fmt.Errorf("turso: _busy_timeout: %w", err)
			}
			c.options.Timeout = max(c.options.Timeout, 0) // -1 means none
		case "experimental":
			c.options.Experimental = strings.Split(value, ",")
		case "encryption_cipher":
			e.Cipher = value
		case "encryption_hexkey":
			e.Key = value
		case "vfs":
			if value != "syscall" {
				return nil, fmt.Errorf("turso: vfs=%s: the engine's Node package has only syscall", value)
			}
		default:
			return nil, fmt.Errorf("turso: unknown parameter %s in the data source name", name)
		}
	}
	if e != (encryption{}) {
		if !slices.Contains(c.options.Experimental, "encryption") {
			return nil, errors.New("turso: encryption needs experimental=encryption")
		}
		c.options.Encryption = &e
	}
	return c, nil
}

// Driver implements [driver.Connector].
func (*Connector) Driver() driver.Driver { return turso{} }

// Connect implements [driver.Connector].
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	child, err := running()
	if err != nil {
		return nil, err
	}
	conn := &conn{child: child, id: child.lastConn.Add(1), trace: c.Trace}
	if _, err := conn.call(ctx, request{Op: "open", Path: c.path, Options: &c.options}); err != nil {
		return nil, err
	}
	for _, pragma := range c.Pragmas {
		if _, err := conn.run(ctx, "PRAGMA "+pragma, nil, true); err != nil {
			return nil, errors.Join(fmt.Errorf("PRAGMA %s: %w", pragma, err), conn.Close())
		}
	}
	return conn, nil
}

// A conn is one connection of the engine. A call returns only when its work has ended: if ctx ends,
// it only ends a wait for a lock.
type conn struct {
	child *child
	id    int64
	trace func(text string, err error)
	open  bool // a transaction
}

var (
	_ driver.ConnBeginTx    = (*conn)(nil)
	_ driver.ExecerContext  = (*conn)(nil)
	_ driver.QueryerContext = (*conn)(nil)
	_ driver.Validator      = (*conn)(nil)
)

func (c *conn) call(ctx context.Context, r request) (response, error) {
	r.Conn = c.id
	answer, err := c.child.call(ctx, r)
	c.open = answer.Tx
	return answer, err
}

// run runs a statement to its end.
func (c *conn) run(ctx context.Context, text string, args []driver.NamedValue, query bool) (answer response, err error) {
	r := request{Op: "run", SQL: text, Query: query, Args: make([]value, len(args))}
	for i, arg := range args {
		if arg.Name != "" {
			return response{}, fmt.Errorf("turso: argument %s: only positional ones are supported", arg.Name)
		}
		r.Args[i] = value{arg.Value}
	}
	answer, err = c.call(ctx, r)
	if c.trace != nil {
		c.trace(text, err)
	}
	return answer, err
}

// ExecContext implements [driver.ExecerContext].
func (c *conn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	answer, err := c.run(ctx, text, args, false)
	return result{answer.Last, answer.Changes}, err
}

// QueryContext implements [driver.QueryerContext].
func (c *conn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	answer, err := c.run(ctx, text, args, true)
	if err != nil {
		return nil, err
	}
	return &rows{answer.Columns, answer.Rows}, nil
}

// BeginTx implements [driver.ConnBeginTx].
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if opts != (driver.TxOptions{}) {
		return nil, errors.New("turso: transactions have no options")
	}
	_, err := c.run(ctx, "BEGIN", nil, false)
	return tx{c}, err
}

// Begin implements [driver.Conn].
func (c *conn) Begin() (driver.Tx, error) { return c.BeginTx(context.Background(), driver.TxOptions{}) }

// IsValid implements [driver.Validator]. A connection that is returned in the middle of a
// transaction is closed, which rolls the transaction back.
func (c *conn) IsValid() bool { return !c.open }

// Close implements [driver.Conn].
func (c *conn) Close() error {
	_, err := c.call(context.Background(), request{Op: "close"})
	return err
}

// Prepare implements [driver.Conn]. As in Turso's own driver, a prepared statement is only its
// text. The process keeps what the engine has compiled, for the next use on the connection.
func (c *conn) Prepare(text string) (driver.Stmt, error) { return stmt{c, text}, nil }

type stmt struct {
	conn *conn
	text string
}

func (stmt) Close() error  { return nil }
func (stmt) NumInput() int { return -1 } // the engine counts them

func (s stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.text, args)
}

func (s stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.text, args)
}

// Exec and Query are for callers without contexts. database/sql uses contexts.
func (stmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }
func (stmt) Query([]driver.Value) (driver.Rows, error)  { return nil, driver.ErrSkip }

type tx struct{ conn *conn }

func (t tx) Commit() error   { return t.end("COMMIT") }
func (t tx) Rollback() error { return t.end("ROLLBACK") }

func (t tx) end(text string) error {
	_, err := t.conn.run(context.Background(), text, nil, false)
	return err
}

type result struct{ last, changes int64 }

func (r result) LastInsertId() (int64, error) { return r.last, nil }
func (r result) RowsAffected() (int64, error) { return r.changes, nil }

// A rows has read all of its rows already.
type rows struct {
	columns []column
	left    [][]value
}

func (r *rows) Columns() []string {
	names := make([]string, len(r.columns))
	for i, c := range r.columns {
		names[i] = c.Name
	}
	return names
}

func (*rows) Close() error { return nil }

func (r *rows) Next(dest []driver.Value) error {
	if len(r.left) == 0 {
		return io.EOF
	}
	for i, v := range r.left[0] {
		dest[i] = v.in(r.columns[i])
	}
	r.left = r.left[1:]
	return nil
}

// in returns the value as Turso's driver does. Text in a column that is declared to hold times
// becomes a time.
func (v value) in(c column) driver.Value {
	text, ok := v.any.(string)
	if !ok {
		return v.any
	}
	switch strings.ToUpper(c.Type) {
	case "TIMESTAMP", "DATETIME", "DATE":
		for _, layout := range []string{"2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", time.RFC3339Nano, time.DateOnly} {
			if t, err := time.ParseInLocation(layout, strings.TrimSuffix(text, "Z"), time.UTC); err == nil {
				return t
			}
		}
	}
	return text
}
