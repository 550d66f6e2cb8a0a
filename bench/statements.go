package bench

import (
	"context"
	"database/sql/driver"
	"errors"
	"maps"
	"strings"
	"sync"
)

// A statements counts the statements that are sent to a database, by tag.
type statements struct {
	mu    sync.Mutex
	total int
	tags  map[string]int
}

func newStatements() *statements { return &statements{tags: map[string]int{}} }

// sent counts one statement.
func (s *statements) sent(text string) {
	tag := strings.Fields(text)[0]
	if _, after, ok := strings.Cut(text, "/* pgqrs:"); ok {
		tag, _, _ = strings.Cut(after, " ")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total++
	s.tags[tag]++
}

// take returns the counts by tag, and resets them.
func (s *statements) take() (total int, tags map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	total, tags = s.total, maps.Clone(s.tags)
	s.total = 0
	clear(s.tags)
	return total, tags
}

func (s *statements) connector(d driver.Driver, dsn string) driver.Connector {
	return &countingConnector{d, dsn, s}
}

type countingConnector struct {
	driver driver.Driver
	dsn    string
	counts *statements
}

func (c *countingConnector) Driver() driver.Driver { return c.driver }

func (c *countingConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.driver.Open(c.dsn)
	if err != nil {
		return nil, err
	}
	return &countingConn{conn, c.counts}, nil
}

// errTooOld is for drivers without the interfaces that take a context. All measured drivers have
// them.
var errTooOld = errors.New("the driver takes no context")

// A countingConn passes on every call that connections of lib/pq and ncruces support.
type countingConn struct {
	driver.Conn
	counts *statements
}

func (c *countingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	q, ok := c.Conn.(driver.QueryerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	rows, err := q.QueryContext(ctx, query, args)
	if err != driver.ErrSkip {
		c.counts.sent(query)
	}
	return rows, err
}

func (c *countingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	e, ok := c.Conn.(driver.ExecerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	result, err := e.ExecContext(ctx, query, args)
	if err != driver.ErrSkip {
		c.counts.sent(query)
	}
	return result, err
}

func (c *countingConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	p, ok := c.Conn.(driver.ConnPrepareContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	stmt, err := p.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &countingStmt{stmt, query, c.counts}, nil
}

func (c *countingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	b, ok := c.Conn.(driver.ConnBeginTx)
	if !ok {
		return nil, errTooOld
	}
	c.counts.sent("BEGIN")
	return b.BeginTx(ctx, opts)
}

func (c *countingConn) Ping(ctx context.Context) error {
	if p, ok := c.Conn.(driver.Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

func (c *countingConn) ResetSession(ctx context.Context) error {
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

func (c *countingConn) IsValid() bool {
	v, ok := c.Conn.(driver.Validator)
	return !ok || v.IsValid()
}

func (c *countingConn) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.Conn.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// A countingStmt counts executions of a prepared statement.
type countingStmt struct {
	driver.Stmt
	query  string
	counts *statements
}

func (s *countingStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	s.counts.sent(s.query)
	if q, ok := s.Stmt.(driver.StmtQueryContext); ok {
		return q.QueryContext(ctx, args)
	}
	return nil, errTooOld
}

func (s *countingStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	s.counts.sent(s.query)
	if e, ok := s.Stmt.(driver.StmtExecContext); ok {
		return e.ExecContext(ctx, args)
	}
	return nil, errTooOld
}

func (s *countingStmt) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := s.Stmt.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}
