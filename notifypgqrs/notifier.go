// Package notifypgqrs wakes workers of [github.com/pgqrs/pgqrs-go] when another process enqueues
// messages. Without it they find such messages at their next poll. It works on PostgreSQL, by
// LISTEN and NOTIFY, and listens with lib/pq.
//
//	notifier := &notifypgqrs.Notifier{DSN: dsn}
//	store := pgqrs.Config{Notifier: notifier}.New(db, pgqrs.Postgres)
//
// Configure the Notifier in the processes that enqueue, which send notifications, and in the
// processes that run a [pgqrs.Worker], which listen. Delivery does not depend on it. If a
// notification is lost, the worker finds the message by polling.
//
// Each running Worker holds one connection for listening, in addition to its Store's connections.
// The listening connection must lead to PostgreSQL itself. It receives nothing behind a pooler in
// transaction mode, such as PgBouncer. Sending uses the Store's own connections, so it works with
// any driver and behind any pooler.
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

// DefaultChannel is the channel of a Notifier whose Channel is empty.
const DefaultChannel = "pgqrs"

// A Notifier is a [pgqrs.Notifier] for PostgreSQL. It does no I/O until it is used. It is safe for
// concurrent use. Its fields must not change once it is in use.
type Notifier struct {
	// DSN is the data source name with which lib/pq connects to listen. It is a URL or key=value
	// pairs, and should have a connect_timeout. A process that only enqueues does not need it.
	DSN string
	// Channel is the name of the PostgreSQL channel. All processes must use the same name. A
	// channel for each schema or application keeps the others from being woken for nothing. Empty
	// means DefaultChannel.
	Channel string
}

var _ pgqrs.Notifier = (*Notifier)(nil)

func (n *Notifier) channel() string {
	if n.Channel == "" {
		return DefaultChannel
	}
	return n.Channel
}

// Notify sends the name of a queue to the listening workers once tx commits. It executes one
// statement.
func (n *Notifier) Notify(ctx context.Context, tx pgqrs.Tx, queue string) error {
	_, err := tx.ExecContext(ctx, "/* pgqrs:notify */ SELECT pg_notify($1, $2)", n.channel(), queue)
	return err
}

const (
	pingEvery = 15 * time.Second // between pings of the connection, and how long an answer may take
	buffered  = 64               // notifications
)

// Listen calls wake with "" once it listens, and then with the queue's name for each notification.
// It returns when ctx is done or the connection is lost. A [pgqrs.Worker] calls Listen again after
// a lost connection.
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

// connect connects, and gives up when ctx is done.
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

// hear passes notifications to wake until the connection is lost or closed.
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
			// Ping runs beside this loop, because the loop has to go on reading for the answer to
			// arrive.
			go func() { answers <- conn.Ping() }()
		}
	}
}

// withoutDSN returns err, or a replacement for an error of net/url, which quotes the DSN.
func withoutDSN(err error) error {
	if quoting := (*url.Error)(nil); errors.As(err, &quoting) {
		return errors.New("the DSN is not a valid URL")
	}
	return err
}

// cause returns why ctx is done, or else err.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return errors.New("the connection was lost")
	}
	return err
}

// drain closes a connection and reads the rest of its notifications, so that no goroutine of lib/pq
// is left running.
func drain(conn *pq.ListenerConn, notices <-chan *pq.Notification) {
	closeConn(conn)
	for range notices {
	}
}

// closeConn closes a connection. It ignores the error of a connection that was lost already.
func closeConn(conn *pq.ListenerConn) { _ = conn.Close() }
