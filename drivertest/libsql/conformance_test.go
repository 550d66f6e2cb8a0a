// Package libsql_test runs the conformance suite on
// github.com/tursodatabase/go-libsql, with a local file.
package libsql_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/drivertest/internal/pool"
	"github.com/pgqrs/pgqrs-go/drivertest/internal/sqlite"
	"github.com/pgqrs/pgqrs-go/pgqrstest"

	_ "github.com/tursodatabase/go-libsql"
)

func TestConformance(t *testing.T) { pgqrstest.Conformance(t, open) }

func TestConnections(t *testing.T) { pool.Check(t, open, sqlite.Settings...) }

func open(t *testing.T) (*sql.DB, pgqrs.Dialect) {
	c, err := newConnector(sqlite.URI(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	return sqlite.Use(t, sql.OpenDB(c)), pgqrs.Turso
}

// A connector sets the PRAGMAs on each connection it makes: go-libsql knows
// no DSN parameters for them.
type connector struct{ driver.Connector }

func newConnector(dsn string) (connector, error) {
	db, err := sql.Open("libsql", ":memory:") // the way to a driver that exports no name
	if err != nil {
		return connector{}, err
	}
	defer db.Close()
	c, err := db.Driver().(driver.DriverContext).OpenConnector(dsn)
	return connector{c}, err
}

// Connect implements [driver.Connector].
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, pragma := range []string{"busy_timeout = 5000", "journal_mode = wal", "synchronous = normal", "foreign_keys = on"} {
		if err := query(ctx, conn, "PRAGMA "+pragma); err != nil {
			return nil, errors.Join(fmt.Errorf("PRAGMA %s: %w", pragma, err), conn.Close())
		}
	}
	return conn, nil
}

// Close implements [io.Closer] for [sql.DB.Close]; without it the native
// database handle would stay open.
func (c connector) Close() error { return c.Connector.(io.Closer).Close() }

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
