// Package pool checks that a test's databases are what the conformance suite
// takes for granted: fresh, apart from each other, and the same on every
// connection of the pool.
package pool

import (
	"context"
	"database/sql"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

// Max is the connection limit of every database the driver tests open.
const Max = 20

// A Setting is a query and the one value it must answer on each connection.
type Setting struct {
	Query string
	Want  string
}

// Check opens two databases and fails the test unless each connection of
// either has the settings, sees the tables of its own database, and sees none
// of the other's.
func Check(t *testing.T, open func(t *testing.T) (*sql.DB, pgqrs.Dialect), settings ...Setting) {
	t.Helper()
	a, _ := open(t)
	b, _ := open(t)
	for _, db := range []*sql.DB{a, b} {
		// The second CREATE fails if both databases are one.
		if _, err := db.ExecContext(t.Context(), "CREATE TABLE fresh (id INTEGER)"); err != nil {
			t.Fatalf("a database is not fresh: %v", err)
		}
		for i, conn := range connections(t, db) {
			checkConn(t, i, conn, settings)
		}
	}
}

// connections returns several connections of db that are open at once.
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
