// Package tap stands between database/sql and a driver. It counts what is opened and closed. It can
// hold a statement, so that a test can make something else happen first.
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

// A counts has the numbers of open things.
type counts struct {
	conns, stmts, rows, txs int
}

func (c counts) String() string {
	return fmt.Sprintf("%d connections, %d statements, %d rows, %d transactions", c.conns, c.stmts, c.rows, c.txs)
}

// Open is like sql.Open, with a tap. The caller closes the database.
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

// For a database that Open opened, Of returns its tap.
func Of(db *sql.DB) *Tap { return db.Driver().(*Tap) }

// An opener is a Connector for a driver without one.
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

// A Stop is a point at which a statement is held.
type Stop struct {
	tag     string
	after   bool
	reached chan struct{} // closed when the statement has arrived
	gone    chan struct{} // closed when the statement may continue
	once    sync.Once
}

// Before holds the next statement whose text contains the tag, before the database receives it. A
// statement whose ctx ends continues.
func (p *Tap) Before(t testing.TB, tag string) *Stop { return p.stop(t, tag, false) }

// After holds the next statement whose text contains the tag once the statement has ended and its
// rows have been read, but before the call returns.
func (p *Tap) After(t testing.TB, tag string) *Stop { return p.stop(t, tag, true) }

func (p *Tap) stop(t testing.TB, tag string, after bool) *Stop {
	s := &Stop{tag: tag, after: after, reached: make(chan struct{}), gone: make(chan struct{})}
	p.mu.Lock()
	p.stops = append(p.stops, s)
	p.mu.Unlock()
	t.Cleanup(s.Go)
	return s
}

// Wait waits until the statement is held. It fails the test if none is held within a minute.
func (s *Stop) Wait(t testing.TB) {
	t.Helper()
	select {
	case <-s.reached:
	case <-time.After(time.Minute):
		t.Fatalf("no statement %s within a minute", s.tag)
	}
}

// Held reports whether the statement is held, or has been.
func (s *Stop) Held() bool {
	select {
	case <-s.reached:
		return true
	default:
		return false
	}
}

// Go lets the statement continue, and later statements too.
func (s *Stop) Go() { s.once.Do(func() { close(s.gone) }) }

// pass is called for each statement, before it is sent and after it has ended.
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
