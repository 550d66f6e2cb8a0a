// Package notifypgqrs has workers of [github.com/pgqrs/pgqrs-go] on PostgreSQL
// hear of new messages from other processes at once, by LISTEN and NOTIFY on
// lib/pq, rather than by their next poll.
//
//	notifier := &notifypgqrs.Notifier{DSN: dsn}
//	store := pgqrs.Config{Notifier: notifier}.New(db, pgqrs.Postgres)
//
// Give it to those that enqueue, which send, and to those that run a
// [pgqrs.Worker], which listen. Nothing depends on it: what it misses is found by polling.
//
// Each Worker that runs holds one connection for it, beside its Store's. That
// one must lead to PostgreSQL itself: behind a pooler that hands transactions to any
// connection, as PgBouncer may, LISTEN hears nothing. To send, the Store's own
// connections do, with any driver and behind any pooler.
package notifypgqrs

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/lib/pq"

	"github.com/pgqrs/pgqrs-go"
)

// DefaultChannel is what a Notifier without a Channel uses.
const DefaultChannel = "pgqrs"

// A Notifier is a [pgqrs.Notifier] on PostgreSQL. It does no I/O until it is
// used, and is safe for concurrent use. The fields must not change then.
type Notifier struct {
	// DSN is how lib/pq connects to listen: a URL or key=value pairs. Give it a
	// connect_timeout. A process that only enqueues needs none.
	DSN string
	// Channel is the name of PostgreSQL's channel. All processes must agree on
	// it. One for each schema or application keeps others from being woken for
	// nothing. Empty means DefaultChannel.
	Channel string
}

var _ pgqrs.Notifier = (*Notifier)(nil)

func (n *Notifier) channel() string {
	if n.Channel == "" {
		return DefaultChannel
	}
	return n.Channel
}

// Notify sends the name of a queue to those who listen, once tx commits. It is one statement.
func (n *Notifier) Notify(ctx context.Context, tx pgqrs.Tx, queue string) error {
	_, err := tx.ExecContext(ctx, "/* pgqrs:notify */ SELECT pg_notify($1, $2)", n.channel(), queue)
	return err
}

const (
	pingEvery = 15 * time.Second // to find out that a connection is dead, and how long an answer may take
	buffered  = 64               // notifications
)

// Listen calls wake with the name of each queue that it hears of, and with ""
// once it listens. It returns when ctx is done or the connection is lost;
// [pgqrs.Worker] calls it again then.
func (n *Notifier) Listen(ctx context.Context, wake func(queue string)) error {
	notices := make(chan *pq.Notification, buffered)
	conn, err := n.connect(ctx, notices)
	if err != nil {
		return fmt.Errorf("connect to listen: %w", withoutDSN(err))
	}
	stop := context.AfterFunc(ctx, func() { closeConn(conn) })
	defer stop()
	defer drain(conn, notices)
	if _, err := conn.Listen(n.channel()); err != nil {
		return fmt.Errorf("listen: %w", cause(ctx, err))
	}
	wake("")
	return n.hear(ctx, conn, notices, wake)
}

// connect connects, but for no longer than ctx lasts.
func (n *Notifier) connect(ctx context.Context, notices chan *pq.Notification) (*pq.ListenerConn, error) {
	type answer struct {
		conn *pq.ListenerConn
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		conn, err := pq.NewListenerConn(n.DSN, notices)
		answers <- answer{conn, err}
	}()
	select {
	case a := <-answers:
		return a.conn, a.err
	case <-ctx.Done():
		go func() {
			if a := <-answers; a.err == nil {
				drain(a.conn, notices)
			}
		}()
		return nil, ctx.Err()
	}
}

// hear passes notifications on until the connection is lost or closed.
func (n *Notifier) hear(ctx context.Context, conn *pq.ListenerConn, notices <-chan *pq.Notification, wake func(queue string)) error {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	answers := make(chan error, 1)
	asked := false
	for {
		select {
		case notice, ok := <-notices:
			if !ok {
				return fmt.Errorf("listen: %w", cause(ctx, conn.Err()))
			}
			wake(notice.Extra)
		case err := <-answers:
			if err != nil {
				return fmt.Errorf("listen: %w", cause(ctx, err))
			}
			asked = false
		case <-tick.C:
			if asked {
				return fmt.Errorf("listen: no answer from the server within %v", pingEvery)
			}
			asked = true
			go func() { answers <- conn.Ping() }() // beside this loop, which must go on reading for the answer to come through
		}
	}
}

// withoutDSN returns err, or an error that takes the place of one of net/url, which quotes the DSN.
func withoutDSN(err error) error {
	if quoting := (*url.Error)(nil); errors.As(err, &quoting) {
		return errors.New("the DSN is not a valid URL")
	}
	return err
}

// cause is why ctx is done, or else err.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return errors.New("the connection was lost")
	}
	return err
}

// drain closes a connection and reads what it has still to say, so that nothing of it is left
// running.
func drain(conn *pq.ListenerConn, notices <-chan *pq.Notification) {
	closeConn(conn)
	for range notices {
	}
}

// closeConn closes a connection. That it was lost already is no news.
func closeConn(conn *pq.ListenerConn) { _ = conn.Close() }
