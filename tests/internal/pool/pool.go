// Package pool checks the conditions that the conformance suite has for a test's databases. A
// database is new and separate from others, and every connection of its pool has the same settings.
package pool

import (
	"context"
	"database/sql"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

// Max is the connection limit of every database the driver tests open.
const Max = 20

// A Setting is a query and the value that it must return on each connection.
type Setting struct {
	Query string
	Want  string
}

// Check opens two databases and checks each connection of both. It must have the settings, see the
// tables of its own database, and see no table of the other database.
func Check(t *testing.T, open func(t *testing.T) (*sql.DB, pgqrs.Dialect), settings ...Setting) {
	t.Helper()
	a, _ := open(t)
	b, _ := open(t)
	for _, db := range []*sql.DB{a, b} {
		// The second CREATE fails if both are the same database.
		if _, err := db.ExecContext(t.Context(), "CREATE TABLE fresh (id INTEGER)"); err != nil {
			t.Fatalf("a database is not fresh: %v", err)
		}
		for i, conn := range connections(t, db) {
			checkConn(t, i, conn, settings)
		}
	}
}

// connections opens several connections of db at the same time.
func connections(t *testing.T, db *sql.DB) []*sql.Conn {
	t.Helper()
	conns := make([]*sql.Conn, 5)
	for i := range conns {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns[i] = conn
	}
	return conns
}

func checkConn(t *testing.T, i int, conn *sql.Conn, settings []Setting) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	var rows int
	if err := conn.QueryRowContext(ctx, "SELECT count(*) FROM fresh").Scan(&rows); err != nil || rows != 0 {
		t.Errorf("connection %d: table of its own database: %d rows, %v", i, rows, err)
	}
	for _, s := range settings {
		var got string
		if err := conn.QueryRowContext(ctx, s.Query).Scan(&got); err != nil || got != s.Want {
			t.Errorf("connection %d: %s = %q, %v; want %q", i, s.Query, got, err, s.Want)
		}
	}
}
