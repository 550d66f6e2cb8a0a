//go:build go1.25

package pgqrs

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// newRecording returns a Worker that has handled messages 1 to n, and its log.
func newRecording(t *testing.T, n int, answer func(call) ([][]driver.Value, error)) (*fake, *dispatchLoop, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	f, s := newFake(t, Config{NoPrepare: true, Logger: slog.New(slog.NewTextHandler(&log, nil))}, Postgres, answer)
	r := newTestLoop(t, &Worker{Lease: time.Minute, Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
	for id := range int64(n) {
		d := r.trackClaimed(r.queues[0], []*MessageInfo{{ID: id + 1, WorkerID: 7, Claim: 1, Attempt: 1}}, time.Now())[0]
		r.enqueueCompletion(d, outcome{kind: retried, err: fmt.Errorf("error %d é", id+1)})
	}
	return f, r, &log
}

// leasesIn returns the ids of a statement's leases, and their texts.
func leasesIn(t *testing.T, c call) (ids []int64, texts []string) {
	t.Helper()
	var list [][]any
	if err := json.Unmarshal([]byte(c.args[len(c.args)-1].Value.(string)), &list); err != nil {
		t.Error(err)
	}
	for _, lease := range list {
		ids = append(ids, int64(lease[0].(float64)))
		texts = append(texts, lease[len(lease)-1].(string))
	}
	return ids, texts
}

// allBut executes every statement, but refuses one message with the given error.
func allBut(t *testing.T, id int64, refusal func(text string) error) func(call) ([][]driver.Value, error) {
	return func(c call) (rows [][]driver.Value, err error) {
		if c.tag() != "message.fail" {
			return row(int64(1)), nil
		}
		ids, texts := leasesIn(t, c)
		for i, other := range ids {
			if other == id {
				if err := refusal(texts[i]); err != nil {
					return nil, err
				}
			}
			rows = append(rows, row(other)...)
		}
		return rows, nil
	}
}

func TestRefusedBatchIsWrittenInHalves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = maxCompletions
		refuses := true
		f, r, log := newRecording(t, n, allBut(t, 600, func(string) error {
			if refuses {
				return coded{"23514"}
			}
			return nil
		}))
		if err := r.completer.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(r.held) != 1 || r.held[600] == nil {
			t.Errorf("%d messages are held", len(r.held))
		}
		if sent := len(f.log()); sent > 22 {
			t.Errorf("it took %d statements", sent)
		}
		if pendingCompletions(r) != 1 {
			t.Errorf("%d outcomes are left", pendingCompletions(r))
		}
		if err := r.completer.flush(t.Context()); err != nil || len(f.log()) != 0 {
			t.Errorf("it is tried again at once: %v", err)
		}
		pass(firstRefusalWait)
		refuses = false
		if err := r.completer.flush(t.Context()); err != nil || len(r.held) != 0 || pendingCompletions(r) != 0 {
			t.Errorf("then: %v, %d messages are held", err, len(r.held))
		}
		if text := log.String(); !strings.Contains(text, "the database refuses an outcome; trying again") || strings.Contains(text, "ASCII") {
			t.Errorf("logged %s", text)
		}
	})
}

func TestMessageOfARefusedOutcomeIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, r, log := newRecording(t, 3, allBut(t, 2, func(string) error { return coded{"P0001"} }))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.completer.run(ctx) }()
		begun := time.Now()
		for len(r.heldIDs()) > 0 && time.Since(begun) < time.Minute {
			pass(100 * time.Millisecond)
		}
		if took := time.Since(begun); took < 5*time.Second || took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		f.log()
		pass(time.Minute)
		f.wantLog(t)
		cancel()
		<-done
		if !strings.Contains(log.String(), "level=ERROR msg=\"pgqrs: the database refuses an outcome; its message is delivered again when its lease ends\"") {
			t.Errorf("logged %s", log)
		}
	})
}

// heldIDs returns the ids of the messages that the runner holds.
func (r *runner) heldIDs() (ids []int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.held {
		ids = append(ids, id)
	}
	return ids
}

func TestTextThatIsRefusedIsWrittenInASCII(t *testing.T) {
	written := map[int64]string{}
	f, r, log := newRecording(t, 4, nil)
	f.answer = func(c call) (rows [][]driver.Value, err error) {
		ids, texts := leasesIn(t, c)
		for i, id := range ids {
			if id == 3 && strings.Contains(texts[i], "é") {
				return nil, coded{"22P05"}
			}
			written[id] = texts[i]
			rows = append(rows, row(id)...)
		}
		return rows, nil
	}
	if err := r.completer.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.held) != 0 || written[2] != "error 2 é" || written[3] != `error 3 \u00e9` || written[4] != "error 4 é" {
		t.Errorf("written %q, and %d are held", written, len(r.held))
	}
	if !strings.Contains(log.String(), "was written in ASCII") {
		t.Errorf("logged %s", log)
	}
}

// If the database is unreachable or slow, it is not asked for each outcome separately.
func TestBatchIsNotSplitForTrouble(t *testing.T) {
	for name, err := range map[string]error{
		"away": driver.ErrBadConn, "a deadlock": coded{"40P01"}, "a standby": coded{"25006"}, "no tables": coded{"42P01"}, "a timeout": context.DeadlineExceeded,
	} {
		synctest.Test(t, func(t *testing.T) {
			f, r, log := newRecording(t, 10, func(c call) ([][]driver.Value, error) {
				if name == "a timeout" {
					pass(2 * statementTimeout)
				}
				return nil, err
			})
			if r.completer.flush(t.Context()) == nil {
				t.Errorf("%s: no error", name)
			}
			if ids, _ := leasesIn(t, f.log()[0]); len(ids) != 10 || len(f.log()) != 0 || pendingCompletions(r) != 10 || len(r.held) != 10 {
				t.Errorf("%s: %d outcomes, %d left", name, len(ids), pendingCompletions(r))
			}
			if !strings.Contains(log.String(), "could not record outcomes; trying again") {
				t.Errorf("%s: logged %s", name, log)
			}
		})
	}
}

// If the completer's goroutine ends, no outcome is lost.
func TestOutcomesOutlastTheEndOfTheRecorder(t *testing.T) {
	f, r, _ := newRecording(t, 3, nil)
	f.answer = func(call) ([][]driver.Value, error) { runtime.Goexit(); return nil, nil }
	if err := foreign.Isolate(func() { _ = r.completer.flush(t.Context()) }); err == nil {
		t.Fatal("it did not end")
	}
	if pendingCompletions(r) != 3 || len(r.completer.work) != 1 {
		t.Errorf("%d outcomes are left", pendingCompletions(r))
	}
}

// After a claim without an answer the orphans are released, except those that the database refuses.
func TestStraysThatAreRefusedHoldUpNoClaim(t *testing.T) {
	for state, want := range map[string]bool{"P0001": false, "57P01": true} {
		_, r, log := newRecording(t, 0, failing("message.strays", coded{state}, coded{state}))
		q := r.queues[0]
		q.claimUnknown.Store(true)
		if err := r.releaseUnknownClaim(q); err != nil != want || q.claimUnknown.Load() != want {
			t.Errorf("%s: %v, and the lane is doubtful: %v", state, err, q.claimUnknown.Load())
		}
		if strings.Contains(log.String(), "refuses to take back") == want {
			t.Errorf("%s: logged %s", state, log)
		}
	}
}

// A restored backup may give a new message the id of a message that is still being handled, and the
// same lease.
func TestOutcomeOfASupersededDeliveryIsNotWritten(t *testing.T) {
	f, s := newFake(t, Config{NoPrepare: true}, SQLite, func(c call) ([][]driver.Value, error) { return row(int64(7)), nil })
	r := newTestLoop(t, &Worker{Concurrency: 2, Lease: time.Minute, Handlers: []Handler{NewQueue[int](s, "q").Handle(doNothing)}})
	q := r.queues[0]
	lease := func() *MessageInfo { return &MessageInfo{ID: 7, WorkerID: 3, Claim: 1} }
	before := r.trackClaimed(q, []*MessageInfo{lease()}, time.Now())[0]
	after := r.trackClaimed(q, []*MessageInfo{lease()}, time.Now())[0]
	r.enqueueCompletion(before, outcome{kind: acked})
	if err := r.completer.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantLog(t)
	r.enqueueCompletion(after, outcome{kind: acked})
	if err := r.completer.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantLog(t, "query message.ack")
}

// pendingCompletions counts the outcomes that are not written.
func pendingCompletions(r *dispatchLoop) int {
	r.completer.mu.Lock()
	defer r.completer.mu.Unlock()
	return len(r.completer.queue) + len(r.completer.refused)
}

// A queue whose outcomes the database refuses is not claimed from, and other queues are.
func TestRefusedOutcomesHoldUpTheirOwnQueueAlone(t *testing.T) {
	_, s := newFake(t, Config{}, Postgres, nil)
	l := newTestLoop(t, &Worker{Concurrency: 10, Handlers: []Handler{NewQueue[int](s, "bad").Handle(doNothing), NewQueue[int](s, "good").Handle(doNothing)}})
	bad, good := l.queues[0], l.queues[1]
	for i := range maxRefusedOfQueue + 1 {
		x := completion{d: &delivery{m: &MessageInfo{ID: int64(i)}, queue: bad}}
		if err := l.completer.retryRefused(t.Context(), x, errBroken); err != nil {
			t.Fatal(err)
		}
	}
	claims := func() (n, m int) {
		n, _ = l.claimSize(bad)
		m, _ = l.claimSize(good)
		return n, m
	}
	if n, m := claims(); n != 0 || m != 10 {
		t.Errorf("%d messages are claimed from the queue, and %d from another one, want 0 and 10", n, m)
	}
	l.completer.ending = true // they are due
	l.completer.takeRefused()
	if n, m := claims(); n != 10 || m != 10 {
		t.Errorf("later %d messages are claimed from the queue, and %d from another one, want 10 and 10", n, m)
	}
}
