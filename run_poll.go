package pgqrs

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	maxPolled  = 500                   // calls of Result that one statement answers
	pollGap    = 50 * time.Microsecond // between two statements, for each other run that is awaited
	maxPollGap = 10 * time.Millisecond // the same, for all of them
)

// A runPoller reads runs for the calls of Result that wait for them. It sends one statement at a time, so that it needs one
// connection for any number of calls. Calls that ask while a statement is under way, or shortly after another one, share
// the next one. Its goroutine lives while there are calls to answer.
type runPoller struct {
	mu      sync.Mutex
	asking  []*runPoll // in no statement yet
	working bool       // the goroutine is there, or a timer that starts it
	latest  time.Time  // when the latest statement began
}

// A runPoll is a call that asks for a run.
type runPoll struct {
	id     int64
	answer chan runAnswer // has room for it
	batch  *runBatch      // nil: it is in no statement yet
}

// A runAnswer is a run, or why it could not be read.
type runAnswer struct {
	info  RunInfo
	err   error
	again bool // the error may pass
}

// A runBatch is the calls that one statement answers.
type runBatch struct {
	polls  []*runPoll
	left   int // calls that still wait
	cancel context.CancelFunc
}

// poll reads a run, together with others if they ask for theirs, and reports whether ctx let it. If the run has not ended,
// some fields of its RunInfo may be missing.
func (r *runPoller) poll(ctx context.Context, s *Store, id int64) (a runAnswer, ok bool) {
	if ctx.Err() != nil {
		return a, false
	}
	p := &runPoll{id: id, answer: make(chan runAnswer, 1)}
	r.add(s, p)
	select {
	case a = <-p.answer:
		return a, true
	case <-ctx.Done():
		r.leave(p)
		return a, false
	}
}

func (r *runPoller) add(s *Store, p *runPoll) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asking = append(r.asking, p)
	if !r.working {
		r.working = true
		go r.work(s)
	}
}

// leave takes a call out. A statement that no call waits for any more is cancelled.
func (r *runPoller) leave(p *runPoll) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.batch == nil {
		r.asking = slices.DeleteFunc(r.asking, func(other *runPoll) bool { return other == p })
		return
	}
	if p.batch.left--; p.batch.left == 0 {
		p.batch.cancel()
	}
}

// work answers calls until there are none, or the next statement has to wait.
func (r *runPoller) work(s *Store) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
		batch := r.next(s, cancel)
		if batch == nil {
			cancel()
			return
		}
		batch.answer(ctx, s)
		cancel()
	}
}

// next takes out the calls that the next statement answers. It returns nil if there are none, or if a timer is to go on with them.
func (r *runPoller) next(s *Store, cancel context.CancelFunc) *runBatch {
	gap := min(maxPollGap, time.Duration(s.othersAwaited())*pollGap)
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.asking), maxPolled)
	if n == 0 {
		r.working, r.asking = false, nil
		return nil
	}
	if wait := gap - time.Since(r.latest); wait > 0 {
		time.AfterFunc(wait, func() { r.work(s) })
		return nil
	}
	r.latest = time.Now()
	batch := &runBatch{polls: r.asking[:n:n], left: n, cancel: cancel}
	r.asking = r.asking[n:]
	for _, p := range batch.polls {
		p.batch = batch
	}
	return batch
}

// answer reads the runs of the calls by one statement.
func (b *runBatch) answer(ctx context.Context, s *Store) {
	ids := make([]int64, len(b.polls))
	for i, p := range b.polls {
		ids[i] = p.id
	}
	slices.Sort(ids)
	found, err := conn{s, nil}.runsByID(ctx, slices.Compact(ids))
	again := err != nil && (ctx.Err() != nil || !s.dialect.refused(err))
	for _, p := range b.polls {
		a := runAnswer{found[p.id], err, again}
		if err == nil && a.info.ID == 0 {
			a.err = fmt.Errorf("%w: run %d", ErrNotFound, p.id)
		}
		p.answer <- a
	}
}

// runsByID reads runs. Of several it reads those that have ended, with what Result needs, and the status of the others.
func (c conn) runsByID(ctx context.Context, ids []int64) (map[int64]RunInfo, error) {
	if len(ids) == 1 {
		info, err := c.run(ctx, ids[0])
		return map[int64]RunInfo{ids[0]: info}, err
	}
	list, err := jsonList(ids)
	if err != nil {
		return nil, err
	}
	found := map[int64]RunInfo{}
	err = c.rows(ctx, c.store.dialect.workflow.polled, []any{list}, func(rows *sql.Rows) error {
		var i RunInfo
		var output, failure []byte
		bad, err := scanLoosely(rows, "id workflow status output error", &i.ID, &i.Workflow, &i.Status, &output, &failure)
		i.Error = runErrorText(failure)
		i.Output, i.OutputSize = output, int64(len(output))
		i.Malformed = i.listed(bad)
		found[i.ID] = i
		return err
	})
	return found, err
}

// pollWait returns how long a call of Result waits after a look, where it would wait for d by itself. Calls that wait at the
// same time look at the same moments, so that they share statements.
func (s *core) pollWait(d time.Duration) time.Duration {
	if s.othersAwaited() == 0 {
		return d
	}
	return d - time.Since(s.runs.began)%d
}

// othersAwaited is how many runs calls of Result wait for, but for one.
func (s *core) othersAwaited() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, len(s.runs.awaited)-1)
}
