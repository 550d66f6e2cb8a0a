//go:build go1.25

package pgqrs

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A farAway is a database with runs that other processes execute. Each statement takes 5 ms.
type farAway struct {
	mu        sync.Mutex
	ended     bool
	hangs     bool  // statements take until their ctx ends
	err       error // that statements return, if not nil
	now, most int   // statements in progress
}

func (d *farAway) answer(c call) ([][]driver.Value, error) {
	took := d.begin(1)
	defer d.begin(-1)
	select {
	case <-time.After(took):
	case <-c.ctx.Done():
		return nil, c.ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	status, output := "RUNNING", any(nil)
	if d.ended {
		status, output = "SUCCESS", []byte("10")
	}
	if c.tag() == "run.get" {
		id, now := c.args[0].Value.(int64), time.Now().UTC()
		return row(id, "w", int64(7), status, []byte("1"), output, nil, nil, nil, nil, nil, now, nil, nil, nil, now, int64(1)), d.err
	}
	var ids []int64
	if err := json.Unmarshal([]byte(c.args[0].Value.(string)), &ids); err != nil {
		return nil, err
	}
	var rows [][]driver.Value
	for _, id := range ids {
		if id > 0 {
			rows = append(rows, []driver.Value{id, "w", status, output, nil})
		}
	}
	return rows, d.err
}

// begin counts statements in progress. It returns how long a statement that begins now takes.
func (d *farAway) begin(n int) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now += n
	d.most = max(d.most, d.now)
	if d.hangs {
		return time.Hour
	}
	return 5 * time.Millisecond
}

func (d *farAway) hang(hangs bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hangs = hangs
}

func (d *farAway) set(ended bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended, d.err = ended, err
}

// await runs check beside n calls of Result, whose errors it receives by a channel. It fails the
// test if anything is still running after they have returned.
func await(t *testing.T, n int, check func(t *testing.T, d *farAway, f *fake, cancel func(), results chan error)) {
	synctest.Test(t, func(t *testing.T) {
		d := new(farAway)
		f, s := newFake(t, Config{NoPrepare: true}, Postgres, d.answer)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		results := make(chan error, n)
		for i := range n {
			go func() {
				time.Sleep(time.Duration(i) * 37 * time.Microsecond)
				out, err := NewWorkflow[int, int](s, "w").RunHandle(int64(i + 1)).Result(ctx)
				if err == nil && out != 10 {
					err = fmt.Errorf("result %d", out)
				}
				results <- err
			}()
		}
		check(t, d, f, cancel, results)
		pass(maxPollGap)
		synctest.Wait()
		if d.now > 0 || s.runPoller.working || len(s.core.localRuns.awaited) > 0 {
			t.Errorf("%d statements are under way, the poller works: %v, %d runs are awaited", d.now, s.runPoller.working, len(s.core.localRuns.awaited))
		}
		if err := s.DB().Close(); err != nil {
			t.Error(err)
		}
	})
}

// Thousands of calls of Result share a connection and a few statements a second. They return within
// a second after the end of their runs.
func TestThousandsOfResultsShareStatements(t *testing.T) {
	const n = 2000
	await(t, n, func(t *testing.T, d *farAway, f *fake, _ func(), results chan error) {
		pass(3 * time.Second)
		if begun := len(f.log()); begun > 200 {
			t.Errorf("%d statements in the first three seconds", begun)
		}
		pass(10 * time.Second)
		if calls := f.log(); len(calls) > 60 {
			t.Errorf("%d statements in ten seconds", len(calls))
		}
		d.set(true, nil)
		pass(1100 * time.Millisecond)
		if len(results) != n {
			t.Errorf("%d calls have returned a second after the end", len(results))
		}
		for range n {
			if err := <-results; err != nil {
				t.Fatal(err)
			}
		}
		if d.most > 1 {
			t.Errorf("%d statements were under way at a time", d.most)
		}
	})
}

// A single call of Result polls at once, then after 10 ms, and then at doubled intervals up to a
// second.
func TestALoneResultLooksOftenAtFirst(t *testing.T) {
	await(t, 1, func(t *testing.T, d *farAway, f *fake, _ func(), results chan error) {
		pass(4 * time.Second)
		d.set(true, nil)
		if err := <-results; err != nil {
			t.Error(err)
		}
		const ms = time.Millisecond
		want := []time.Duration{0, 10 * ms, 20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms, 640 * ms, 1000 * ms, 1000 * ms, 1000 * ms}
		var waits []time.Duration
		calls := f.log()
		for i, c := range calls {
			if i == 0 {
				waits = append(waits, 0)
			} else {
				waits = append(waits, c.at.Sub(calls[i-1].at)-5*ms)
			}
		}
		if !slices.Equal(waits, want) {
			t.Errorf("it waited for %v, want %v", waits, want)
		}
	})
}

// While the database is unreachable, Result keeps asking. If its ctx ends meanwhile, its error says
// so.
func TestResultOutlastsADatabaseThatIsAway(t *testing.T) {
	for _, n := range []int{1, 300} {
		await(t, n, func(t *testing.T, d *farAway, f *fake, _ func(), results chan error) {
			pass(time.Second)
			d.set(false, io.ErrUnexpectedEOF)
			pass(time.Minute)
			if len(results) > 0 {
				t.Errorf("of %d, %d have returned: %v", n, len(results), <-results)
			}
			d.set(true, nil)
			for range n {
				if err := <-results; err != nil {
					t.Fatal(err)
				}
			}
		})
		await(t, n, func(t *testing.T, d *farAway, f *fake, cancel func(), results chan error) {
			d.set(false, io.ErrUnexpectedEOF)
			pass(5 * time.Second)
			cancel()
			for range n {
				if err := <-results; !errors.Is(err, context.Canceled) || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("the error is %v", err)
				}
			}
		})
	}
}

// If a statement of Result gets no answer, it is given up and sent again.
func TestResultOutlastsAStatementThatHangs(t *testing.T) {
	await(t, 1, func(t *testing.T, d *farAway, f *fake, _ func(), results chan error) {
		d.hang(true)
		pass(time.Second)
		d.hang(false)
		d.set(true, nil)
		pass(statementTimeout)
		if len(results) == 0 {
			t.Fatal("it goes on waiting for the statement")
		}
		if err := <-results; err != nil {
			t.Error(err)
		}
	})
}

// A permanent error ends all calls of Result that it concerns.
func TestResultReturnsAnErrorThatStays(t *testing.T) {
	errRefused := errors.New("permission denied")
	await(t, 300, func(t *testing.T, d *farAway, f *fake, _ func(), results chan error) {
		pass(time.Second)
		d.set(false, errRefused)
		pass(1100 * time.Millisecond)
		for range 300 {
			select {
			case err := <-results:
				if !errors.Is(err, errRefused) {
					t.Fatalf("the error is %v", err)
				}
			default:
				t.Fatal("not all calls have returned")
			}
		}
	})
}

// A call of Result whose ctx ends returns at once. It cancels its statement if no other call waits
// for it.
func TestAResultThatIsCancelledLeavesNothingBehind(t *testing.T) {
	for _, n := range []int{1, 300} {
		await(t, n, func(t *testing.T, d *farAway, f *fake, cancel func(), results chan error) {
			d.hang(true)
			pass(2 * time.Millisecond)
			before := time.Now()
			cancel()
			for range n {
				if err := <-results; !errors.Is(err, context.Canceled) {
					t.Fatalf("the error is %v", err)
				}
			}
			if waited := time.Since(before); n == 1 && waited > 0 {
				t.Errorf("it waited for %v", waited)
			}
		})
	}
}

// Runs that are queried together have separate answers.
func TestOfRunsThatAreAskedForTogetherEachHasItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &farAway{ended: true}
		f, s := newFake(t, Config{NoPrepare: true}, SQLite, d.answer)
		results := make(chan string, 9)
		for _, id := range []int64{1, 2, 2, -3, 4} {
			go func() {
				a, _ := s.runPoller.poll(t.Context(), s, id)
				results <- fmt.Sprint(id, a.info.ID, errors.Is(a.err, ErrNotFound), a.temporary)
			}()
			synctest.Wait()
		}
		var got []string
		for range 5 {
			got = append(got, <-results)
		}
		slices.Sort(got)
		want := []string{"-3 0 true false", "1 1 false false", "2 2 false false", "2 2 false false", "4 4 false false"}
		if !slices.Equal(got, want) {
			t.Errorf("the answers are %q, want %q", got, want)
		}
		f.wantLog(t, "query run.get", "query run.polled")
		if err := s.DB().Close(); err != nil {
			t.Error(err)
		}
	})
}
