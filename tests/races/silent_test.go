package races_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/pgqrs/pgqrs-go"
)

// An asking is a Notifier that asks the server, in each transaction with a notification, when it
// would end the transaction.
type asking struct{ answers *[]string }

func (a asking) Notify(ctx context.Context, tx pgqrs.Tx, queue string) error {
	var answer string
	err := tx.QueryRowContext(ctx, "SELECT current_setting('idle_in_transaction_session_timeout')").Scan(&answer)
	*a.answers = append(*a.answers, answer)
	return err
}

func (asking) Listen(ctx context.Context, _ func(string)) error {
	<-ctx.Done()
	return ctx.Err()
}

// A host may lose its network in the middle of a transaction that holds the lock of a queue or a
// group. Without a timeout the server keeps the lock until it gives the host up, after two hours.
func TestATransactionOfTheLibraryEndsWithASilentProcess(t *testing.T) {
	for _, c := range []struct{ set, want, rest string }{{"0", "1min", "0"}, {"5s", "5s", "5s"}, {"10min", "10min", "10min"}} {
		onPostgres(t, "where the session has "+c.set, func(s *scene) {
			s.a.db.SetMaxOpenConns(1)
			_, err := s.a.db.ExecContext(s.Context(), "SET idle_in_transaction_session_timeout = '"+c.set+"'")
			s.must(err)
			var answers []string
			q := pgqrs.NewQueue[int](pgqrs.Config{Notifier: asking{&answers}}.New(s.a.db, pgqrs.Postgres), "jobs")
			s.enqueue(s.b) // creates the queue
			value(q.Enqueue(s.Context(), 1))(s)
			tx := s.begin(s.a)
			value(q.WithTx(tx).Enqueue(s.Context(), 1))(s)
			s.must(tx.Commit())
			if want := []string{c.want, c.rest}; fmt.Sprint(answers) != fmt.Sprint(want) {
				s.Errorf("its own transaction and the caller's have %v; want %v", answers, want)
			}
		})
	}
}
