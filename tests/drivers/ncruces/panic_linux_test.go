package ncruces_test

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	sqlite3 "github.com/ncruces/go-sqlite3/driver"
	"github.com/pgqrs/pgqrs-go"
)

// A mine is a driver that panics in the Next of a statement after SQLite has run the statement.
type mine struct {
	sqldriver.Connector
	tag      string
	armed    atomic.Bool
	stubborn bool // Close of these rows panics too
}

func (m *mine) Connect(ctx context.Context) (sqldriver.Conn, error) {
	c, err := m.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return minedConn{c.(conn), m}, nil
}

// A conn has the methods that database/sql looks for on the driver's connections.
type conn interface {
	sqldriver.Conn
	sqldriver.ConnBeginTx
	sqldriver.ConnPrepareContext
	sqldriver.ExecerContext
	sqldriver.NamedValueChecker
}

type minedConn struct {
	conn
	mine *mine
}

func (c minedConn) PrepareContext(ctx context.Context, text string) (sqldriver.Stmt, error) {
	s, err := c.conn.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	return minedStmt{s.(stmt), c.mine, text}, nil
}

type stmt interface {
	sqldriver.Stmt
	sqldriver.StmtExecContext
	sqldriver.StmtQueryContext
	sqldriver.NamedValueChecker
}

type minedStmt struct {
	stmt
	mine *mine
	text string
}

func (s minedStmt) QueryContext(ctx context.Context, args []sqldriver.NamedValue) (sqldriver.Rows, error) {
	rows, err := s.stmt.QueryContext(ctx, args)
	return &minedRows{rows, s, false}, err
}

type minedRows struct {
	sqldriver.Rows
	of     minedStmt
	broken bool
}

func (r *minedRows) Next(into []sqldriver.Value) error {
	err := r.Rows.Next(into)
	if strings.Contains(r.of.text, r.of.mine.tag) && r.of.mine.armed.CompareAndSwap(true, false) {
		r.broken = true
		panic("mine")
	}
	return err
}

func (r *minedRows) Close() error {
	if r.broken && r.of.mine.stubborn {
		panic("mine at close")
	}
	return r.Rows.Close()
}

// A connection whose driver panicked in the middle of a statement keeps no lock. It keeps no files
// open either, unless the driver panics again when database/sql closes the statement.
func TestPanicsLeaveNoLocks(t *testing.T) {
	for _, c := range []struct {
		tag  string
		call func(context.Context, *pgqrs.Store) error
	}{
		{"message.enqueue", func(ctx context.Context, s *pgqrs.Store) error {
			_, err := pgqrs.NewQueue[int](s, "q").Enqueue(ctx, 1)
			return err
		}},
		{"message.group_enqueue", func(ctx context.Context, s *pgqrs.Store) error {
			_, err := pgqrs.NewQueue[int](s, "q").Enqueue(ctx, 1, pgqrs.Group("g"))
			return err
		}},
		{"queue.stats", func(ctx context.Context, s *pgqrs.Store) error {
			_, err := s.Queues(ctx)
			return err
		}},
	} {
		for _, stubborn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s stubborn %v", c.tag, stubborn), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "mined.db")
				connector, err := new(sqlite3.SQLite).OpenConnector("file:" + path + "?_pragma=busy_timeout(0)&_pragma=journal_mode(wal)")
				must(t, err)
				m := &mine{Connector: connector, tag: c.tag, stubborn: stubborn}
				db := sql.OpenDB(m)
				s := pgqrs.New(db, pgqrs.SQLite)
				must(t, s.Install(t.Context()))
				must(t, pgqrs.NewQueue[int](s, "q").Configure(t.Context()))
				for range 3 {
					m.armed.Store(true)
					if err := c.call(t.Context(), s); err == nil || !strings.Contains(err.Error(), "the database driver panicked: mine") {
						t.Errorf("the call returns %v", err)
					}
					_, err := pgqrs.NewQueue[int](s, "other").Enqueue(t.Context(), 1)
					must(t, err)
				}
				list, err := s.Depths(t.Context(), "other")
				must(t, err)
				if len(list) != 1 || list[0].Ready != 3 {
					t.Errorf("the other queue is %+v; want 3 ready messages", list)
				}
				must(t, db.Close())
				if open := opened(t, path); !stubborn && len(open) > 0 {
					t.Errorf("these are open after Close: %v", open)
				}
			})
		}
	}
}
