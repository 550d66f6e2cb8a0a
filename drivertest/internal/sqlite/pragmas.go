package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
)

// WithPragmas returns a connector that runs PRAGMAs on each connection that c
// makes, for drivers whose DSN cannot say them.
func WithPragmas(c driver.Connector, pragmas ...string) driver.Connector {
	return connector{c, pragmas}
}

type connector struct {
	driver.Connector
	pragmas []string
}

// Connect implements [driver.Connector].
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, pragma := range c.pragmas {
		if err := query(ctx, conn, "PRAGMA "+pragma); err != nil {
			return nil, errors.Join(fmt.Errorf("PRAGMA %s: %w", pragma, err), conn.Close())
		}
	}
	return conn, nil
}

// Close implements [io.Closer] for [sql.DB.Close]; without it go-libsql's
// native database handle would stay open.
func (c connector) Close() error {
	if closer, ok := c.Connector.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// query runs one statement to its end. It is a query even if no row is wanted:
// go-libsql's Exec refuses statements that return any.
func query(ctx context.Context, conn driver.Conn, text string) error {
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, text, nil)
	if err != nil {
		return err
	}
	row := make([]driver.Value, len(rows.Columns()))
	for err == nil {
		err = rows.Next(row)
	}
	if err == io.EOF {
		err = nil
	}
	return errors.Join(err, rows.Close())
}
