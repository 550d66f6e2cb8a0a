//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A messenger is a Notifier under the control of a test.
type messenger struct {
	mu      sync.Mutex
	fails   error  // of Notify and Listen
	before  func() // called before Notify, or nil
	listens []time.Time
	heard   func(queue string)
}

func (m *messenger) Notify(ctx context.Context, tx Tx, queue string) error {
	if m.before != nil {
		m.before()
	}
	if _, err := tx.ExecContext(ctx, "/* pgqrs:notify */ "+queue); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fails
}

func (m *messenger) Listen(ctx context.Context, wake func(queue string)) error {
	m.mu.Lock()
	m.listens = append(m.listens, time.Now())
	m.heard = wake
	err := m.fails
	m.mu.Unlock()
	if err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// withMessenger runs fn under a fake clock.
func withMessenger(t *testing.T, answer func(call) ([][]driver.Value, error), fn func(t *testing.T, f *fake, s *Store, m *messenger)) {
	synctest.Test(t, func(t *testing.T) {
		m := &messenger{}
		f, s := newFake(t, Config{NoPrepare: true, Notifier: m, Logger: slog.New(slog.NewTextHandler(watchText{t}, nil))}, Postgres, answer)
		fn(t, f, s, m)
		if err := errors.Join(s.Close(), s.DB().Close()); err != nil {
			t.Error(err)
		}
	})
}

// A watchText is a log that shows where a test fails.
type watchText struct{ t *testing.T }

func (w watchText) Write(line []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(line)))
	return len(line), nil
}

var toldInTx = []string{"begin Read Committed", "exec open", "query message.enqueue", "exec notify", "commit"}

func TestEnqueueNotifiesInItsTransactionAndNotTooOften(t *testing.T) {
	withMessenger(t, nil, func(t *testing.T, f *fake, s *Store, _ *messenger) {
		q := NewQueue[int](s, "q")
		enqueueTimes(t, q, 1)
		f.wantLog(t, toldInTx...)
		enqueueTimes(t, q, 3)
		f.wantLog(t, "query message.enqueue", "query message.enqueue", "query message.enqueue")
		enqueueTimes(t, NewQueue[int](s, "other"), 1)
		f.wantLog(t, toldInTx...)
		pass(notifyEvery)
		synctest.Wait()
		f.wantLog(t, "begin Read Committed", "exec open", "exec notify", "commit")
		pass(10 * notifyEvery)
		f.wantLog(t)
		enqueueTimes(t, q, 1)
		f.wantLog(t, toldInTx...)
	})
}

func TestNothingIsNotifiedWhereNothingIsStored(t *testing.T) {
	taken := func(c call) ([][]driver.Value, error) {
		if c.tag() == "message.keyed" {
			return row("k", int64(7)), nil
		}
		return nil, nil
	}
	withMessenger(t, taken, func(t *testing.T, f *fake, s *Store, _ *messenger) {
		if _, err := NewQueue[int](s, "q").Enqueue(t.Context(), 1, Key("k")); err != nil {
			t.Fatal(err)
		}
		for _, c := range f.log() {
			if c.tag() == "notify" {
				t.Error("it notified of a message that is not new")
			}
		}
	})
}

func TestEnqueueIsStoredThoughNotifyFails(t *testing.T) {
	withMessenger(t, nil, func(t *testing.T, f *fake, s *Store, m *messenger) {
		q := NewQueue[int](s, "q")
		m.fails = errBroken
		enqueueTimes(t, q, 1)
		f.wantLog(t, "begin Read Committed", "exec open", "query message.enqueue", "exec notify", "rollback", "begin Read Committed", "exec open", "query message.enqueue", "commit")
		m.fails = nil
		pass(notifyMuted / 2)
		enqueueTimes(t, q, 2)
		f.wantLog(t, "query message.enqueue", "query message.enqueue")
		pass(notifyMuted)
		enqueueTimes(t, q, 1)
		f.wantLog(t, toldInTx...)
	})
}

// If the Notifier fails, the second try of a batch stores the whole batch without it.
func TestABatchIsStoredWholeThoughNotifyFails(t *testing.T) {
	ids := func(c call) ([][]driver.Value, error) {
		if c.tag() == "message.batch_enqueue" {
			return [][]driver.Value{{int64(1)}, {int64(2)}}, nil
		}
		return nil, nil
	}
	withMessenger(t, ids, func(t *testing.T, f *fake, s *Store, m *messenger) {
		m.fails = errBroken
		got, err := NewQueue[[]int](s, "q").EnqueueBatch(t.Context(), [][]int{{1}, {2}})
		if err != nil || !slices.Equal(got, []int64{1, 2}) {
			t.Errorf("the ids are %v, the error is %v", got, err)
		}
		var lists []any
		for _, c := range f.log() {
			if c.tag() == "message.batch_enqueue" {
				lists = append(lists, c.args[1].Value)
			}
		}
		if want := []any{"[[1],[2]]", "[[1],[2]]"}; !slices.Equal(lists, want) {
			t.Errorf("the tries stored %q, want %q", lists, want)
		}
	})
}

func TestACallThatIsGivenUpWhileItNotifiesDoesNotSilenceTheOthers(t *testing.T) {
	withMessenger(t, nil, func(t *testing.T, f *fake, s *Store, m *messenger) {
		ctx, cancel := context.WithCancel(t.Context())
		m.before = cancel
		q := NewQueue[int](s, "q")
		if _, err := q.Enqueue(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
		m.before = nil
		pass(notifyEvery)
		f.log()
		enqueueTimes(t, q, 1)
		f.wantLog(t, toldInTx...)
	})
}

// PostgreSQL reports only at the COMMIT that its queue of notifications is full.
func TestEnqueueIsStoredThoughNoNotificationFits(t *testing.T) {
	full := func(c call) ([][]driver.Value, error) { return row(int64(1)), nil }
	withMessenger(t, func(c call) ([][]driver.Value, error) { return full(c) }, func(t *testing.T, f *fake, s *Store, _ *messenger) {
		notified := false
		full = func(c call) ([][]driver.Value, error) {
			if c.how == "begin" {
				notified = false
			}
			notified = notified || c.tag() == "notify"
			if c.how == "commit" && notified {
				return nil, coded{"54000"}
			}
			return row(int64(1)), nil
		}
		enqueueTimes(t, NewQueue[int](s, "q"), 2)
		f.wantLog(t, append(toldInTx, "exec rollback", "begin Read Committed", "exec open", "query message.enqueue", "commit", "query message.enqueue")...)
	})
}

func TestNotifyInTheCallersTransactionIsOnceForAQueueAndItsErrorIsTheEnqueues(t *testing.T) {
	withMessenger(t, nil, func(t *testing.T, f *fake, s *Store, m *messenger) {
		// Transactions do not share notifications, because the first transaction may be rolled
		// back.
		for range 2 {
			tx, err := s.DB().BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			f.log()
			q := NewQueue[int](s, "q").WithTx(tx)
			enqueueTimes(t, q, 2)
			f.wantLog(t, "query message.enqueue", "exec notify", "query message.enqueue")
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
		}
		tx, err := s.DB().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		m.fails = errBroken
		if _, err := NewQueue[int](s, "q").WithTx(tx).Enqueue(t.Context(), 1); !errors.Is(err, errBroken) {
			t.Errorf("the error is %v, and the transaction is lost on PostgreSQL", err)
		}
	})
}

func TestWorkerClaimsWhatItHearsOf(t *testing.T) {
	withWorker(t, func(t *testing.T, f *fake, m *messenger) {
		pass(time.Minute + 7*time.Millisecond)
		f.log()
		m.heard("stranger")
		synctest.Wait()
		f.wantLog(t)
		m.heard("q")
		synctest.Wait()
		f.wantLog(t, "query message.claim")
		m.heard("")
		synctest.Wait()
		f.wantLog(t, "query message.claim", "query message.claim")
	})
}

func TestWorkerPollsAndListensAgainWhenItCannotHear(t *testing.T) {
	m := &messenger{fails: errBroken}
	workWith(t, m, func(t *testing.T, f *fake) {
		pass(10 * time.Minute)
		m.mu.Lock()
		listens := m.listens
		m.mu.Unlock()
		if len(listens) < 30 || len(listens) > 100 {
			t.Errorf("Listen was called %d times in ten minutes", len(listens))
		}
		if gap := listens[1].Sub(listens[0]); gap > 2*minListenWait {
			t.Errorf("after its first failure it was called again only after %v", gap)
		}
		if n := len(polls(f.log())); n < 500 {
			t.Errorf("%d polls in ten minutes", n)
		}
	})
}

func withWorker(t *testing.T, fn func(t *testing.T, f *fake, m *messenger)) {
	m := &messenger{}
	workWith(t, m, func(t *testing.T, f *fake) { fn(t, f, m) })
}

// workWith runs a worker of the empty queues q and r under a fake clock.
func workWith(t *testing.T, m *messenger, fn func(t *testing.T, f *fake)) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{NoPrepare: true, Notifier: m}, Postgres, new(idleDatabase).answer)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		w := &Worker{Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing), NewQueue[int](s, "r").Handle(doNothing)}}
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		fn(t, f)
		cancel()
		if err := errors.Join(<-done, s.DB().Close()); err != nil {
			t.Error(err)
		}
	})
}
