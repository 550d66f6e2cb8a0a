package faults_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// A workload is an application in this process, for a test.
type workload struct {
	*application
	t *testing.T

	leasesEnd bool // the fault lasts longer than leases, so attempts are used up
}

// work starts an application on the pool.
func work(t *testing.T, db *sql.DB, d pgqrs.Dialect, c pgqrs.Config) *workload {
	t.Helper()
	return workAt(t, pace{}, db, d, c)
}

// workAt is like work, at a pace.
func workAt(t *testing.T, p pace, db *sql.DB, d pgqrs.Dialect, c pgqrs.Config) *workload {
	t.Helper()
	a, err := newApplication(t.Context(), db, d, c, "first")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last of the log:\n%s", a.log)
		}
	})
	a.pace = p
	a.start()
	t.Cleanup(a.stop)
	t.Cleanup(a.producing)
	w := &workload{application: a, t: t}
	w.progress(1) // if a Worker cannot even begin, it returns an error
	return w
}

// progress returns once n more messages have been handled. Then the fault is over, or does not stop
// the work.
func (w *workload) progress(n int64) {
	w.t.Helper()
	until := w.handled.Load() + n
	eventually(w.t, fmt.Sprintf("%d more messages handled", n), func() (bool, error) {
		return w.handled.Load() >= until, w.stillRuns()
	})
}

// stillRuns returns an error if the Worker has ended, and ends the test.
func (w *workload) stillRuns() error {
	select {
	case err := <-w.working:
		w.t.Fatalf("the Worker ended: %v", err)
	default:
	}
	return nil
}

// refusals returns once n more calls of the producers have failed.
func (w *workload) refusals(n int) {
	w.t.Helper()
	w.mu.Lock()
	until := len(w.failures) + n
	w.mu.Unlock()
	eventually(w.t, fmt.Sprintf("%d more calls refused", n), func() (bool, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.failures) >= until, nil
	})
}

// allReturn makes calls to a database that does not answer. Each must return when its ctx ends,
// with an error that says so.
func (w *workload) allReturn() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	calls := map[string]func() error{
		"enqueue":       func() error { _, err := w.mails.Enqueue(ctx, item{}); return err },
		"enqueue a key": func() error { _, err := w.mails.Enqueue(ctx, item{}, pgqrs.Key("hangs")); return err },
		"enqueue many":  func() error { _, err := w.mails.EnqueueBatch(ctx, make([]item, 3)); return err },
		"dequeue": func() error {
			_, err := pgqrs.NewQueue[item](w.store, "by hand").Dequeue(ctx, 1, time.Minute)
			return err
		},
		"start":  func() error { _, err := w.runs.Start(ctx, item{}); return err },
		"queues": func() error { _, err := w.store.Queues(ctx); return err },
		"pause":  func() error { return w.store.PauseQueue(ctx, "by hand") },
		"runs":   func() error { _, err := w.store.Runs(ctx, pgqrs.RunFilter{}); return err },
	}
	type answer struct {
		call string
		err  error
	}
	answers := make(chan answer, len(calls))
	for name, call := range calls {
		go func() { answers <- answer{name, call()} }()
	}
	late := time.After(patience)
	for range len(calls) {
		select {
		case a := <-answers:
			if delete(calls, a.call); !errors.Is(a.err, context.DeadlineExceeded) {
				w.t.Errorf("%s, of a database that does not answer: %v", a.call, a.err)
			}
		case <-late:
			w.t.Errorf("calls that have not returned %v after their ctx ended: %q", patience, slices.Collect(maps.Keys(calls)))
			return
		}
	}
}

// join ends a child, and adds the acknowledgements of its producers.
func (w *workload) join(c *child) {
	w.t.Helper()
	var told receipts
	if err := json.Unmarshal([]byte(c.end()), &told); err != nil {
		w.t.Fatalf("a child's last words: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.Copy(w.Bad, told.Bad)
	w.Started = append(w.Started, told.Started...)
}

// finish stops the producers, waits until all work is done on the recovered database, stops the
// Worker, and audits. The errors must say what was being done. If words are given, they must
// contain one of them.
func (w *workload) finish(db *sql.DB, fault string, injected string, runs int, words ...string) {
	w.t.Helper()
	w.producing()
	eventually(w.t, "all messages in the archive", func() (bool, error) {
		left := -1
		err := db.QueryRow("SELECT count(*) FROM pgqrs_messages WHERE archived_at IS NULL").Scan(&left)
		return left == 0, errors.Join(err, fmt.Errorf("%d left", left), w.stillRuns())
	})
	w.stop()
	select {
	case err := <-w.working:
		if err != nil {
			w.t.Errorf("Worker.Run: %v", err)
		}
	case <-time.After(patience):
		w.t.Fatalf("the Worker does not end")
	}
	if err := w.close(); err != nil {
		w.t.Errorf("close the Stores: %v", err)
	}
	w.checkErrors(words)
	w.audit(db, fault, injected, runs)
}

func (w *workload) checkErrors(words []string) {
	w.t.Helper()
	for _, err := range w.failures {
		text := err.Error()
		rest, named := text, false
		for _, op := range []string{`pgqrs: enqueue on queue "orders": `, `pgqrs: enqueue on queue "mails": `, `pgqrs: enqueue a batch of 3 on queue "orders": `, `pgqrs: start workflow "runs": `} {
			if after, ok := strings.CutPrefix(text, op); ok {
				rest, named = after, true
			}
		}
		if !named || rest == "" || strings.Contains(rest, "pgqrs: ") {
			w.t.Errorf("an error does not say, once, what was being done, and what came of it: %q", text)
		}
		if len(words) > 0 && !containsAny(rest, words) {
			w.t.Errorf("an error says none of %q: %q", words, text)
		}
	}
}

func containsAny(text string, words []string) bool {
	for _, word := range words {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

// A journal keeps the end of a log.
type journal struct {
	mu   sync.Mutex
	text []byte
	told map[string]bool // messages of the log, with their reasons
}

var messageField = regexp.MustCompile(`(?:msg|why)="([^"]*)"`)

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text = append(j.text, p...)
	for _, m := range messageField.FindAllSubmatch(p, -1) {
		if j.told == nil {
			j.told = map[string]bool{}
		}
		j.told[string(m[1])] = true
	}
	if n := len(j.text) - 32<<10; n > 0 {
		j.text = j.text[n:]
	}
	return len(p), nil
}

// has reports whether a message or its reason has ever contained a text.
func (j *journal) has(text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for message := range j.told {
		if strings.Contains(message, text) {
			return true
		}
	}
	return false
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(bytes.ToValidUTF8(j.text, nil))
}
