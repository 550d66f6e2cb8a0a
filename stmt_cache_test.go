package pgqrs

import (
	"context"
	"database/sql/driver"
	"slices"
	"testing"
	"time"
)

// sessions answers the queries for the server's session with the given ids, one after the other,
// and everything else with id 1. Once the ids are used up, the queries for the session return err.
func sessions(err error, ids ...string) func(call) ([][]driver.Value, error) {
	return func(c call) ([][]driver.Value, error) {
		if c.tag() != "session.id" {
			return row(int64(1)), nil
		}
		if len(ids) == 0 {
			return nil, err
		}
		id := ids[0]
		ids = ids[1:]
		return row(id), nil
	}
}

func TestStatementsArePreparedOnlyOnceTheyAreHot(t *testing.T) {
	ids := []string{"1"}
	var want []string
	for range poolerProbes {
		ids = append(ids, "2", "1", "1", "1")
		want = append(want, "begin Default", "query session.id", "query session.id", "rollback", "query session.id", "query session.id")
	}
	f, s := newFake(t, Config{}, Postgres, sessions(nil, ids...))
	q := NewQueue[int](s, "q")
	enqueueTimes(t, q, prepareAfter)
	if calls := f.log(); count(calls, "query") != prepareAfter || len(calls) != prepareAfter {
		t.Errorf("the first %d uses made %d queries among %d calls; a user's unit test would have to expect a Prepare", prepareAfter, count(calls, "query"), len(calls))
	}
	enqueueTimes(t, q, 2)
	f.wantLog(t, slices.Concat([]string{"query session.id"}, want, []string{"prepare message.enqueue", "run message.enqueue", "run message.enqueue"})...)
	if _, err := s.Queues(t.Context()); err == nil {
		t.Error("Queues took a row of one column") // it is another text, and not prepared yet
	}
	f.wantLog(t, "query queue.stats")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	f.wantLog(t, "close message.enqueue")
}

// A plan may have been made when the tables were empty, so statements are prepared again.
func TestStatementsThatAreUsedOftenArePreparedAnew(t *testing.T) {
	var texts []string
	f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.how == "prepare" {
			texts = append(texts, c.text)
		}
		return row(int64(1)), nil
	})
	enqueueTimes(t, NewQueue[int](s, "q"), 1000)
	const runs = prepareAfter + 1 // and then after four times as many runs, three times
	calls := f.log()
	var at []int
	used := 0
	for _, c := range calls {
		switch c.how {
		case "query", "run":
			used++
		case "prepare":
			at = append(at, used+1)
		}
	}
	if want := []int{runs, reprepareAfter*runs + 1, reprepareAfter*(reprepareAfter*runs+1) + 1, reprepareAfter*(reprepareAfter*(reprepareAfter*runs+1)+1) + 1}; !slices.Equal(at, want) {
		t.Errorf("prepared at the uses %v, want %v", at, want)
	}
	if n := count(calls, "close"); n != 2 {
		t.Errorf("closed %d statements; all but the last two are to be", n)
	}
	slices.Sort(texts)
	if n := len(slices.Compact(texts)); n != len(at) {
		t.Errorf("%d different texts; pgx does not prepare one again", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n := count(f.log(), "close"); n != 2 {
		t.Errorf("closed %d statements with the Store", n)
	}
}

// A statement that cannot be prepared again continues to use the old one.
func TestStatementThatCannotBePreparedAnewIsKept(t *testing.T) {
	prepares := 0
	f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.how == "prepare" {
			if prepares++; prepares == 2 {
				return nil, errBroken
			}
		}
		return row(int64(1)), nil
	})
	enqueueTimes(t, NewQueue[int](s, "q"), 60)
	calls := f.log()
	if unprepared, n := count(calls, "query"), count(calls, "prepare"); unprepared != prepareAfter || n != 3 {
		t.Errorf("%d uses were not of a prepared statement, want %d; %d prepares, want 3", unprepared, prepareAfter, n)
	}
}

func TestNoPrepareNeverPrepares(t *testing.T) {
	f, s := newFake(t, Config{NoPrepare: true}, Postgres, nil)
	enqueueTimes(t, NewQueue[int](s, "q"), 150)
	if calls := f.log(); count(calls, "query") != 150 || len(calls) != 150 {
		t.Errorf("150 uses made %d queries among %d calls", count(calls, "query"), len(calls))
	}
}

func TestNothingIsPreparedInTheCallersTransaction(t *testing.T) {
	f, s := newFake(t, Config{}, Postgres, nil)
	tx, err := s.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	enqueueTimes(t, NewQueue[int](s, "q").WithTx(tx), 150)
	if n := count(f.log(), "prepare"); n != 0 {
		t.Errorf("%d prepares", n)
	}
}

func TestPoolerWithoutPreparedStatementsIsFoundOut(t *testing.T) {
	for _, state := range []string{"26000", "42P05"} {
		t.Run(state, func(t *testing.T) {
			f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
				if c.how == "run" {
					return nil, coded{state}
				}
				return row(int64(1)), nil
			})
			q := NewQueue[int](s, "q")
			enqueueTimes(t, q, prepareAfter)
			f.log()
			enqueueTimes(t, q, 2)
			f.wantLog(t, "prepare message.enqueue", "run message.enqueue", "close message.enqueue", "query message.enqueue", "query message.enqueue")
			enqueueTimes(t, q, 150)
			if n := count(f.log(), "prepare"); n != 0 {
				t.Errorf("%d prepares after the pooler was found out", n)
			}
		})
	}
}

func TestPrepareThatFailsDoesNotFailTheCall(t *testing.T) {
	f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.how == "prepare" {
			return nil, errBroken
		}
		return row(int64(1)), nil
	})
	q := NewQueue[int](s, "q")
	enqueueTimes(t, q, prepareAfter)
	f.log()
	enqueueTimes(t, q, 1)
	f.wantLog(t, "prepare message.enqueue", "query message.enqueue")
}

// lib/pq names its statements 1, 2, 3. Behind a pooler another connection may have left a different
// statement of the same name.
func TestNothingIsPreparedBehindAPooler(t *testing.T) {
	for name, ids := range map[string][]string{
		"a transaction takes the session":                {"1", "1"},
		"a transaction leaves another session":           {"1", "2", "3"},
		"the third time a transaction takes the session": {"1", "2", "1", "1", "1", "2", "1", "1", "1", "1"},
		"what it got back last it hands out first":       {"1", "2", "1", "2"},
		"what it got back first it hands out first":      {"1", "2", "1", "1", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := newFake(t, Config{}, Postgres, sessions(errBroken, ids...))
			enqueueTimes(t, NewQueue[int](s, "q"), 300)
			calls := f.log()
			if n := count(calls, "prepare"); n != 0 {
				t.Errorf("%d prepares", n)
			}
			if n := len(slices.DeleteFunc(calls, func(c call) bool { return c.tag() != "session.id" })); n != len(ids) {
				t.Errorf("the sessions were asked for %d times, want %d", n, len(ids))
			}
		})
	}
}

func TestLookForAPoolerThatFailsIsNotMadeAgainSoon(t *testing.T) {
	f, s := newFake(t, Config{}, Postgres, sessions(errBroken, "1", "2"))
	enqueueTimes(t, NewQueue[int](s, "q"), 300)
	calls := f.log()
	if n := count(calls, "prepare"); n != 0 {
		t.Errorf("%d prepares", n)
	}
	if n := count(calls, "begin"); n != 1 {
		t.Errorf("%d looks", n)
	}
}

func TestLookForAPoolerThatItsCallerCutShortIsMadeByTheNext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	f, s := newFake(t, Config{}, Postgres, func(c call) ([][]driver.Value, error) {
		if c.tag() == "session.id" {
			looks++
			cancel()
			return nil, context.Canceled
		}
		return row(int64(1)), nil
	})
	q := NewQueue[int](s, "q")
	enqueueTimes(t, q, prepareAfter)
	if _, err := q.Enqueue(ctx, 1); err == nil {
		t.Error("a call whose ctx has ended did not say so")
	}
	f.log()
	enqueueTimes(t, q, 2)
	f.wantLog(t, "query session.id", "query message.enqueue", "query message.enqueue")
	if looks != 2 {
		t.Errorf("looked %d times; want once for the call that was cut short, and once for the next", looks)
	}
}

// A pool with one connection has none left to check for a pooler.
func TestPoolOfOneConnectionGoesOnWithoutPreparing(t *testing.T) {
	f, s := newFake(t, Config{}, Postgres, nil)
	s.DB().SetMaxOpenConns(1)
	enqueueTimes(t, NewQueue[int](s, "q"), 300)
	if calls := f.log(); len(calls) != 300 {
		t.Errorf("%d calls, want 300 queries", len(calls))
	}
}

// While one call prepares a statement on a database that does not answer, other calls continue.
func TestCallsDoNotWaitForAnothersPrepare(t *testing.T) {
	preparing, answer := make(chan struct{}), make(chan struct{})
	f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.how == "prepare" {
			close(preparing)
			<-answer
		}
		return row(int64(1)), nil
	})
	enqueueTimes(t, NewQueue[int](s, "q"), prepareAfter)
	ended := make(chan error, 1)
	go func() {
		_, err := NewQueue[int](s, "q").Enqueue(context.Background(), 1)
		ended <- err
	}()
	<-preparing
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := NewQueue[int](s, "q").Enqueue(ctx, 1, Key("shares no statement")); err != nil {
		t.Error(err)
	}
	close(answer)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := count(f.log(), "prepare"); n != 1 {
		t.Errorf("%d prepares", n)
	}
}

// endTimes deletes a message n times, each time in a transaction of the library's own.
func endTimes(t *testing.T, s *Store, n int) {
	t.Helper()
	for range n {
		if _, err := s.remove(t.Context(), []int64{1}, Archived, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// A transaction holds a connection, which may be the only one. Statements that it wanted prepared
// are prepared after it.
func TestTransactionsRunWhatIsPrepared(t *testing.T) {
	f, s := newFake(t, Config{}, SQLite, nil)
	s.DB().SetMaxOpenConns(1)
	endTimes(t, s, prepareAfter)
	if n := count(f.log(), "prepare"); n != 0 {
		t.Errorf("%d prepares while the statements were cold", n)
	}
	endTimes(t, s, 2)
	texts := []string{"open", "message.lock", "message.remove_steps", "message.remove_signals", "message.remove_runs", "message.remove_rows"}
	as := func(hows ...string) (list []string) {
		for i, text := range texts {
			list = append(list, hows[min(i, len(hows)-1)]+" "+text)
		}
		return list
	}
	cold := as("exec", "query", "exec")
	want := slices.Concat([]string{"begin Default"}, cold, []string{"commit"}, as("prepare"), []string{"begin Default"}, as("run"), []string{"commit"})
	f.wantLog(t, want...)
}

func TestTransactionBehindAPoolerBeginsAgainWithoutPreparedStatements(t *testing.T) {
	f, s := newFake(t, Config{}, SQLite, func(c call) ([][]driver.Value, error) {
		if c.how == "run" {
			return nil, coded{"26000"}
		}
		return row(int64(1)), nil
	})
	endTimes(t, s, prepareAfter+1)
	f.log()
	endTimes(t, s, 1)
	calls := f.log()
	if n := count(calls, "run"); n != 1 {
		t.Errorf("%d prepared statements were run, want the first alone", n)
	}
	if begun, ended := count(calls, "begin"), count(calls, "commit"); begun != 2 || ended != 1 {
		t.Errorf("%d transactions began and %d were committed, want 2 and 1", begun, ended)
	}
}

func TestCloseClosesPreparedStatements(t *testing.T) {
	f, s := newFake(t, Config{}, SQLite, nil)
	enqueueTimes(t, NewQueue[int](s, "q"), prepareAfter+2)
	f.log()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	f.wantLog(t, "close message.enqueue")
}
