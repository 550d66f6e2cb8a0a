package dsn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// A connector makes the connections of a pool that Open made. It keeps its secrets inside
// functions, so that printing a connector shows none.
type connector struct {
	driver  driver.Driver
	connect func(context.Context) (driver.Conn, error)
	close   func() error
	anchor  driver.Conn // keeps a database in memory alive, nil for other databases
}

// open creates the pool.
func (p plan) open(ctx context.Context, f found, hide Secrets) (*sql.DB, error) {
	if err := p.inspect(ctx, f); err != nil {
		return nil, hide.cut(err)
	}
	base, err := newConnector(f.driver, p.dsn)
	if err != nil {
		return nil, hide.cut(err)
	}
	settings := append(p.unlock[:len(p.unlock):len(p.unlock)], p.setup...)
	c := &connector{driver: f.driver, close: func() error { return closeConnector(base) }}
	c.connect = func(ctx context.Context) (driver.Conn, error) {
		defer hide.panics()
		conn, err := connect(ctx, base, settings)
		return conn, hide.cut(err)
	}
	if p.memory {
		if c.anchor, err = c.connect(ctx); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return sql.OpenDB(c), nil
}

// Connect implements [driver.Connector].
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) { return c.connect(ctx) }

// Driver implements [driver.Connector].
func (c *connector) Driver() driver.Driver { return c.driver }

// Close implements [io.Closer]. [sql.DB.Close] calls it last.
func (c *connector) Close() error {
	var err error
	if c.anchor != nil {
		err = c.anchor.Close()
	}
	return errors.Join(err, c.close())
}

// inspect reads the first page of an existing file with the key, from the file alone. A connection
// with a wrong key or without a key would take the write-ahead log for damaged. When it closes, it
// would remove the log or copy it wrongly, and lose the commits that are only in the log.
func (p plan) inspect(ctx context.Context, f found) error {
	if p.look == "" {
		return nil
	}
	if info, err := os.Stat(p.path); err != nil || info.Size() == 0 {
		// Without a file there is nothing to lose. If the file cannot be read, the driver reports
		// why.
		return nil
	}
	base, err := newConnector(f.driver, p.look)
	if err != nil {
		return err
	}
	defer closeConnector(base)
	settings := append(p.unlock[:len(p.unlock):len(p.unlock)], setting{name: "schema_version"})
	for try := 1; ; try++ {
		conn, err := connect(ctx, base, settings)
		if err == nil {
			return conn.Close()
		}
		// The file was read without a lock, while somebody may have been writing to it.
		if try == 5 || !wait(ctx, 20*time.Millisecond) {
			return err
		}
	}
}

// wait waits for d. It reports whether ctx lasted that long.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// newConnector returns the driver's connector for a DSN.
func newConnector(d driver.Driver, dsn string) (driver.Connector, error) {
	if with, ok := d.(driver.DriverContext); ok {
		return with.OpenConnector(dsn)
	}
	return &plainConnector{d, dsn}, nil
}

func closeConnector(c driver.Connector) error {
	if closer, ok := c.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// A plainConnector is for a driver whose Open takes no context. If the context ends, Open continues
// on its own.
type plainConnector struct {
	driver driver.Driver
	dsn    string
}

func (c *plainConnector) Driver() driver.Driver { return c.driver }

func (c *plainConnector) Connect(ctx context.Context) (driver.Conn, error) {
	type result struct {
		conn  driver.Conn
		err   error
		panic any
	}
	done := make(chan result)
	go func() {
		var conn driver.Conn
		var err error
		v := foreign.Catch(func() { conn, err = c.driver.Open(c.dsn) })
		select {
		case done <- result{conn, err, v}:
		case <-ctx.Done():
			if err == nil && conn != nil {
				_ = conn.Close() // the caller has gone
			}
		}
	}()
	select {
	case r := <-done:
		if r.panic != nil {
			panic(r.panic) // as if the caller had called the driver
		}
		return r.conn, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// connect makes a connection and applies the settings.
func connect(ctx context.Context, c driver.Connector, settings []setting) (driver.Conn, error) {
	conn, err := c.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range settings {
		if err := s.apply(ctx, conn); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}

// apply runs the PRAGMA as a query to its end. Some drivers refuse to Exec a PRAGMA that returns
// rows, and others do nothing until the first row is read.
func (s setting) apply(ctx context.Context, conn driver.Conn) error {
	text := "PRAGMA " + s.name
	if s.value != "" {
		text += " = " + s.value
	}
	answer, err := ask(ctx, conn, text)
	if err != nil {
		return fmt.Errorf("PRAGMA %s: %w", s.name, err)
	}
	if s.want != "" && answer != s.want {
		return unsupported("PRAGMA %s answers %q; it should be %q", s.name, answer, s.want)
	}
	return nil
}

// ask returns the first column of the last row of a query.
func ask(ctx context.Context, conn driver.Conn, text string) (answer string, err error) {
	stmt, err := conn.Prepare(text)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, stmt.Close()) }()
	with, ok := stmt.(driver.StmtQueryContext)
	if !ok {
		return "", unsupported("the driver's statements know no context")
	}
	rows, err := with.QueryContext(ctx, nil)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	for {
		err := rows.Next(row)
		switch {
		case err == io.EOF:
			return answer, nil
		case err != nil:
			return "", err
		case len(row) > 0:
			answer = textOf(row[0])
		}
	}
}

func textOf(value driver.Value) string {
	if text, ok := value.([]byte); ok {
		return string(text)
	}
	return fmt.Sprint(value)
}
