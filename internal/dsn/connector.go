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

// A connector makes the connections of a pool that Open made. It holds what it
// connects with in functions, so that nothing that prints it shows a secret.
type connector struct {
	driver  driver.Driver
	connect func(context.Context) (driver.Conn, error)
	close   func() error
	anchor  driver.Conn // keeps a database in memory from going; nil for others
}

// open makes the pool.
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

// Close implements [io.Closer]; [sql.DB.Close] calls it last.
func (c *connector) Close() error {
	var err error
	if c.anchor != nil {
		err = c.anchor.Close()
	}
	return errors.Join(err, c.close())
}

// inspect reads the first page of a file that is there, with the key, from the
// file alone. A connection with a wrong key, or with none, would take the log
// beside it for damaged, and remove it, or copy it over wrongly, when it
// closes: with every commit that is in nothing else.
func (p plan) inspect(ctx context.Context, f found) error {
	if p.look == "" {
		return nil
	}
	if info, err := os.Stat(p.path); err != nil || info.Size() == 0 {
		return nil // there is nothing to lose; if it cannot be reached, the driver will say why
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
		// It was read without a lock; somebody may just have been writing it.
		if try == 5 || !wait(ctx, 20*time.Millisecond) {
			return err
		}
	}
}

// wait waits and reports whether ctx let it.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// newConnector returns what the driver connects with.
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

// A plainConnector is for a driver whose Open knows no context: when that
// ends, Open is left to itself.
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
				_ = conn.Close() // nobody is left to tell
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

// connect makes a connection with the settings.
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

// apply runs the PRAGMA as a query to its end: some drivers refuse to Exec one
// that returns rows, and others run nothing until the first row is asked for.
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
