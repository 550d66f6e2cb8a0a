package tap

import (
	"context"
	"database/sql/driver"
	"errors"
	"strings"
)

// A conn is a connection of the driver.
type conn struct {
	driver.Conn
	tap *Tap
	own bool // a transaction that the library began by SQL text is open
}

var errOld = errors.New("tap: the driver does not take a ctx")

// PrepareContext implements [driver.ConnPrepareContext].
func (c *conn) PrepareContext(ctx context.Context, text string) (driver.Stmt, error) {
	inner, ok := c.Conn.(driver.ConnPrepareContext)
	if !ok {
		return nil, errOld
	}
	s, err := inner.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	c.tap.count(func(n *counts) { n.stmts++ })
	return &stmt{Stmt: s, conn: c, text: text}, nil
}

// ExecContext implements [driver.ExecerContext].
func (c *conn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	inner, ok := c.Conn.(driver.ExecerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	return c.exec(ctx, text, func() (driver.Result, error) { return inner.ExecContext(ctx, text, args) })
}

func (c *conn) exec(ctx context.Context, text string, send func() (driver.Result, error)) (driver.Result, error) {
	c.tap.pass(ctx, text, false)
	result, err := send()
	if errors.Is(err, driver.ErrSkip) {
		return nil, err // the statement comes again, prepared
	}
	c.follow(text, err)
	c.tap.pass(ctx, text, true)
	return result, err
}

// follow counts the library's own transactions.
func (c *conn) follow(text string, err error) {
	switch {
	case strings.Contains(text, "/* pgqrs:begin */") && err == nil && !c.own:
		c.own = true
		c.tap.count(func(n *counts) { n.txs++ })
	case strings.Contains(text, "/* pgqrs:commit */") && err == nil, strings.Contains(text, "/* pgqrs:rollback */"):
		c.ended()
	}
}

func (c *conn) ended() {
	if c.own {
		c.own = false
		c.tap.count(func(n *counts) { n.txs-- })
	}
}

// QueryContext implements [driver.QueryerContext].
func (c *conn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	inner, ok := c.Conn.(driver.QueryerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	return c.query(ctx, text, func() (driver.Rows, error) { return inner.QueryContext(ctx, text, args) })
}

func (c *conn) query(ctx context.Context, text string, send func() (driver.Rows, error)) (driver.Rows, error) {
	c.tap.pass(ctx, text, false)
	r, err := send()
	if err != nil {
		return nil, err
	}
	c.tap.count(func(n *counts) { n.rows++ })
	return scanned(&rows{Rows: r, tap: c.tap, ctx: ctx, text: text}), nil
}

// BeginTx implements [driver.ConnBeginTx].
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	inner, ok := c.Conn.(driver.ConnBeginTx)
	if !ok {
		return nil, errOld
	}
	c.tap.pass(ctx, txBegin, false)
	t, err := inner.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	c.tap.count(func(n *counts) { n.txs++ })
	c.tap.pass(ctx, txBegin, true)
	return &tx{Tx: t, tap: c.tap, ctx: ctx}, nil
}

// Ping implements [driver.Pinger].
func (c *conn) Ping(ctx context.Context) error {
	if inner, ok := c.Conn.(driver.Pinger); ok {
		return inner.Ping(ctx)
	}
	return nil
}

// ResetSession implements [driver.SessionResetter].
func (c *conn) ResetSession(ctx context.Context) error {
	if inner, ok := c.Conn.(driver.SessionResetter); ok {
		return inner.ResetSession(ctx)
	}
	return nil
}

// IsValid implements [driver.Validator].
func (c *conn) IsValid() bool {
	inner, ok := c.Conn.(driver.Validator)
	return !ok || inner.IsValid()
}

// CheckNamedValue implements [driver.NamedValueChecker].
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if inner, ok := c.Conn.(driver.NamedValueChecker); ok {
		return inner.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// Close implements [driver.Conn].
func (c *conn) Close() error {
	c.ended()
	c.tap.count(func(n *counts) { n.conns-- })
	return c.Conn.Close()
}

// A stmt is a prepared statement.
type stmt struct {
	driver.Stmt
	conn *conn
	text string
}

// ExecContext implements [driver.StmtExecContext].
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	inner, ok := s.Stmt.(driver.StmtExecContext)
	if !ok {
		return nil, errOld
	}
	return s.conn.exec(ctx, s.text, func() (driver.Result, error) { return inner.ExecContext(ctx, args) })
}

// QueryContext implements [driver.StmtQueryContext].
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	inner, ok := s.Stmt.(driver.StmtQueryContext)
	if !ok {
		return nil, errOld
	}
	return s.conn.query(ctx, s.text, func() (driver.Rows, error) { return inner.QueryContext(ctx, args) })
}

// CheckNamedValue implements [driver.NamedValueChecker].
func (s *stmt) CheckNamedValue(v *driver.NamedValue) error {
	if inner, ok := s.Stmt.(driver.NamedValueChecker); ok {
		return inner.CheckNamedValue(v)
	}
	return s.conn.CheckNamedValue(v)
}

// Close implements [driver.Stmt].
func (s *stmt) Close() error {
	s.conn.tap.count(func(n *counts) { n.stmts-- })
	return s.Stmt.Close()
}

// A rows is an open cursor.
type rows struct {
	driver.Rows
	tap  *Tap
	ctx  context.Context
	text string
}

// Close implements [driver.Rows]. A statement ends only when its rows are closed.
func (r *rows) Close() error {
	err := r.Rows.Close()
	r.tap.count(func(n *counts) { n.rows-- })
	r.tap.pass(r.ctx, r.text, true)
	return err
}

// A tx is a transaction that database/sql began.
type tx struct {
	driver.Tx
	tap *Tap
	ctx context.Context
}

// The texts of calls of a *sql.Tx, which are no statements.
const (
	txBegin  = "/* pgqrs:begin */"
	txCommit = "/* pgqrs:commit */"
)

// Commit implements [driver.Tx].
func (x *tx) Commit() error {
	x.tap.pass(x.ctx, txCommit, false)
	err := x.Tx.Commit()
	x.tap.count(func(n *counts) { n.txs-- })
	x.tap.pass(x.ctx, txCommit, true)
	return err
}

// Rollback implements [driver.Tx].
func (x *tx) Rollback() error {
	defer x.tap.count(func(n *counts) { n.txs-- })
	return x.Tx.Rollback()
}
