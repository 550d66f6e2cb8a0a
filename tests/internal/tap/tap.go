// Package tap puts itself between database/sql and a driver. It counts what is
// opened and closed, and stops statements on their way, so that a test can have
// something else happen first.
package tap

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Tap is the driver of a database that Open opened.
type Tap struct {
	connector driver.Connector

	mu    sync.Mutex
	open  counts
	stops []*Stop
}

// counts are of what is open.
type counts struct {
	conns, stmts, rows, txs int
}

func (c counts) String() string {
	return fmt.Sprintf("%d connections, %d statements, %d rows, %d transactions", c.conns, c.stmts, c.rows, c.txs)
}

// Open is sql.Open, with a tap. The caller closes the database.
func Open(t testing.TB, name, dsn string) *sql.DB {
	t.Helper()
	plain, err := sql.Open(name, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	p := &Tap{connector: &opener{plain.Driver(), dsn}}
	if d, ok := plain.Driver().(driver.DriverContext); ok {
		if p.connector, err = d.OpenConnector(dsn); err != nil {
			t.Fatal(err)
		}
	}
	return sql.OpenDB(p)
}

// Of returns the tap of a database that Open opened.
func Of(db *sql.DB) *Tap { return db.Driver().(*Tap) }

// An opener is a Connector for a driver that has none.
type opener struct {
	driver driver.Driver
	dsn    string
}

func (o *opener) Connect(context.Context) (driver.Conn, error) { return o.driver.Open(o.dsn) }
func (o *opener) Driver() driver.Driver                        { return o.driver }

// Connect implements [driver.Connector].
func (p *Tap) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := p.connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	p.count(func(c *counts) { c.conns++ })
	return &conn{Conn: inner, tap: p}, nil
}

// Driver implements [driver.Connector].
func (p *Tap) Driver() driver.Driver { return p }

// Open implements [driver.Driver].
func (p *Tap) Open(string) (driver.Conn, error) { return p.Connect(context.Background()) }

func (p *Tap) count(change func(*counts)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.open)
}

func (p *Tap) counted() counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// A Stop is where a statement is held.
type Stop struct {
	tag     string
	after   bool
	reached chan struct{} // closed when the statement is there
	gone    chan struct{} // closed when it may go on
	once    sync.Once
}

// Before holds the next statement whose text contains the tag before the
// database sees it. A statement whose ctx ends goes on.
func (p *Tap) Before(t testing.TB, tag string) *Stop { return p.stop(t, tag, false) }

// After holds the next statement whose text contains the tag when it is done,
// and its rows are read, but before the caller is told.
func (p *Tap) After(t testing.TB, tag string) *Stop { return p.stop(t, tag, true) }

func (p *Tap) stop(t testing.TB, tag string, after bool) *Stop {
	s := &Stop{tag: tag, after: after, reached: make(chan struct{}), gone: make(chan struct{})}
	p.mu.Lock()
	p.stops = append(p.stops, s)
	p.mu.Unlock()
	t.Cleanup(s.Go)
	return s
}

// Wait returns when the statement is held. It fails the test if none comes within a minute.
func (s *Stop) Wait(t testing.TB) {
	t.Helper()
	select {
	case <-s.reached:
	case <-time.After(time.Minute):
		t.Fatalf("no statement %s within a minute", s.tag)
	}
}

// Held reports whether the statement is held, or was.
func (s *Stop) Held() bool {
	select {
	case <-s.reached:
		return true
	default:
		return false
	}
}

// Go lets the statement go on, and those that come.
func (s *Stop) Go() { s.once.Do(func() { close(s.gone) }) }

// pass is where a statement goes by, before it is sent and after it is done.
func (p *Tap) pass(ctx context.Context, text string, after bool) {
	p.mu.Lock()
	var held *Stop
	for i, s := range p.stops {
		if s.after == after && strings.Contains(text, s.tag) {
			held = s
			p.stops = append(p.stops[:i:i], p.stops[i+1:]...)
			break
		}
	}
	p.mu.Unlock()
	if held == nil {
		return
	}
	close(held.reached)
	select {
	case <-held.gone:
	case <-ctx.Done():
	}
}
