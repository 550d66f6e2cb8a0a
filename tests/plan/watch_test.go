// Package plan_test fills a queue with 1.4 million messages. It checks that every statement of the
// library reads about as many messages as it is asked for, whatever the planner knows about the
// tables.
//
// It runs the library's own calls through a driver that examines each statement, with its
// arguments, just before the database gets it.
package plan_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

// A watcher is a driver.Connector that passes every statement to look before it runs. look has the
// connection for itself, and leaves it unchanged.
type watcher struct {
	driver.Connector
	look func(ctx context.Context, c driver.Conn, tag, text string, args []driver.NamedValue) error
	also []string // more tags, which only this database is sent

	mu   sync.Mutex
	fail string          // the tag of a statement that fails, once
	sent map[string]bool // tags since reset
}

// reset forgets what was sent.
func (w *watcher) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = map[string]bool{}
}

// missing returns which of the operations, and of the watcher's own, were not sent since reset.
func (w *watcher) missing() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(append(slices.Clone(operations), w.also...), func(tag string) bool { return w.sent[tag] })
}

// has reports whether a tag was sent since reset.
func (w *watcher) has(tag string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent[tag]
}

// watchedDB returns a pool of one connection. So the next statement finds what look leaves in the
// session, for example prepared statements.
func watchedDB(t *testing.T, w *watcher) *sql.DB {
	t.Helper()
	db := sql.OpenDB(w)
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	return db
}

// failNext makes the next statement of a tag fail.
func (w *watcher) failNext(tag string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail = tag
}

// Connect implements driver.Connector.
func (w *watcher) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := w.Connector.Connect(ctx)
	return &watchedConn{inner, w}, err
}

type watchedConn struct {
	driver.Conn
	w *watcher
}

// unplanned matches the tags of statements that read no messages, or that have no plan.
var unplanned = regexp.MustCompile(`^(schema\.|begin|commit|rollback|queue\.freeze)`)

var tagged = regexp.MustCompile(`^/\* pgqrs:([a-z_.]+) \*/`)

func (c *watchedConn) seen(ctx context.Context, text string, args []driver.NamedValue) error {
	found := tagged.FindStringSubmatch(text)
	if found == nil || unplanned.MatchString(found[1]) {
		return nil
	}
	c.w.mu.Lock()
	failing := c.w.fail == found[1]
	if failing {
		c.w.fail = ""
	}
	c.w.mu.Unlock()
	if failing {
		return errors.New("failed by the test")
	}
	if err := c.w.look(ctx, c.Conn, found[1], text, args); err != nil {
		return fmt.Errorf("look at the plan of %s: %w", found[1], err)
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.sent[found[1]] = true
	return nil
}

// QueryContext implements driver.QueryerContext.
func (c *watchedConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.seen(ctx, text, args); err != nil {
		return nil, err
	}
	if q, ok := c.Conn.(driver.QueryerContext); ok {
		return q.QueryContext(ctx, text, args)
	}
	return nil, driver.ErrSkip // the text is then prepared, and not passed again
}

// ExecContext implements driver.ExecerContext.
func (c *watchedConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.seen(ctx, text, args); err != nil {
		return nil, err
	}
	if e, ok := c.Conn.(driver.ExecerContext); ok {
		return e.ExecContext(ctx, text, args)
	}
	return nil, driver.ErrSkip
}

// PrepareContext implements driver.ConnPrepareContext.
func (c *watchedConn) PrepareContext(ctx context.Context, text string) (driver.Stmt, error) {
	return c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, text)
}

// BeginTx implements driver.ConnBeginTx.
func (c *watchedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

// CheckNamedValue implements driver.NamedValueChecker.
func (c *watchedConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// value returns v, and fails the test on an error.
func value[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// reads has the number of messages that a statement may read, in addition to twice the number that
// it is asked for, which is at most 100 here. Statements that are not listed may read no more.
var reads = map[string]int64{
	"queue.stats":            all,           // counts them
	"queue.depth":            deep,          // counts some of each state
	"message.list_leased":    leased + 1000, // sorts the leased messages
	"message.list_scheduled": leased + 1000, // skips the leased messages
	"message.disown":         leased + 1000, // searches the leased messages for expired leases
	"worker.list":            leased + 1000, // counts the messages of each worker
	"message.prune":          1000,          // deletes that many
	"limit.room":             leased + 1000, // counts the leased messages
	"group.sweep":            10_000,        // reads two messages of each of 1,000 groups
}

const (
	asked  = 100
	leased = 10_000
	all    = 2_000_000
	deep   = 5*pgqrs.DepthLimit + leased
)

// operations are the tags that operate must send. Otherwise this test would test nothing.
var operations = strings.Fields(`
	queue.make queue.configure queue.pause queue.stats queue.depth queue.unattended queue.in_use queue.drop_row
	limit.lock limit.room limit.take message.dead_letter
	message.enqueue message.batch_enqueue message.mixed_enqueue message.keyed message.get
	message.list_ready message.list_scheduled message.list_leased message.list_archived message.list_dead
	message.lock message.remove_rows message.redrive message.prune message.disown
	message.claim message.check message.ack message.delete message.release message.fail message.extend message.renew message.strays
	worker.register worker.heartbeat worker.poll worker.move worker.status worker.list worker.expire worker.prune`)
