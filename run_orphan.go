package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Runs and plain consumers. A workflow and a queue of one name share a queue: a message there may belong to a run, and only the
// workflow's handler may settle it. A run whose message ends without it would wait for ever.

// unknownRun stands for the run of a message that was claimed from a workflow's queue: it may have one.
const unknownRun = -1

// findRuns finds out to which runs messages belong that a plain consumer has claimed. It asks only for those of a workflow's queue.
func (s *Store) findRuns(ctx context.Context, ms []*MessageInfo) error {
	asked := map[int64]*MessageInfo{}
	var ids []int64
	for _, m := range ms {
		if m.run == unknownRun {
			m.run = 0
			asked[m.ID] = m
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	list, err := jsonList(ids)
	if err != nil {
		return err
	}
	return conn{s, nil}.rows(ctx, s.dialect.workflow.ofMessages, []any{list}, func(rows *sql.Rows) error {
		var message, run int64
		if err := rows.Scan(&message, &run); err != nil {
			return err
		}
		if m := asked[message]; m != nil {
			m.run = run
		}
		return nil
	})
}

// withoutRuns returns the messages that belong to no run, and an error that names the others.
func withoutRuns[T any](what string, ms []*Message[T]) ([]*Message[T], error) {
	var plain []*Message[T]
	var errs []error
	for _, m := range ms {
		if m.run <= 0 {
			plain = append(plain, m)
			continue
		}
		errs = append(errs, belongsError(what, m.ID, m.run))
	}
	if len(errs) == 0 {
		return ms, nil
	}
	return plain, errors.Join(errs...)
}

func belongsError(what string, message, run int64) error {
	who := "only its workflow's handler settles it"
	if what == "delete" {
		who = "Store.Delete deletes both"
	}
	return fmt.Errorf("%w: message %d belongs to run %d; %s", ErrState, message, run, who)
}

const (
	leaveRunFor         = 5 * time.Second // a run's message that a plain handler has met
	leaveRunLogInterval = time.Minute     // between two log lines about that
)

// leaveRun returns the error by which a plain handler gives back a message that belongs to a run, uncounted; nil if it does not.
func (r *runner) leaveRun(d *delivery) error {
	if d.queue.workflow || d.m.run <= 0 {
		return nil
	}
	if n := d.queue.runsLeft.count(leaveRunLogInterval); n > 0 {
		r.log.Warn("pgqrs: messages belong to runs of a workflow of the queue's name, and its handler here is a plain one; leaving them to others",
			"queue", d.queue.queue, "message", d.m.ID, "run", d.m.run, "messages", n)
	}
	return fmt.Errorf("message %d belongs to run %d: %w", d.m.ID, d.m.run, Snooze(leaveRunFor))
}

// A limitedLog says how often something has happened, but not too often.
type limitedLog struct {
	mu    sync.Mutex
	last  time.Time
	times int
}

// count counts one more, and returns how many there were since it last did, or 0 if that is not so long ago.
func (n *limitedLog) count(every time.Duration) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.times++
	if !n.last.IsZero() && time.Since(n.last) < every {
		return 0
	}
	times := n.times
	n.last, n.times = time.Now(), 0
	return times
}

// strandedAfter is how long a run's message has ended before the run is taken for stranded: pgqrs 0.15 ends the two one after the other.
const strandedAfter = time.Minute

// messageElsewhere says that a run's message is another queue's, because something other than this library wrote so.
const messageElsewhere = "elsewhere"

// unfinishedStates are the states of runs that need a message.
var unfinishedStates = []RunState{Queued, Running, Paused, Cancelling}

// A strandedPage tells where the look for stranded runs goes on.
type strandedPage struct {
	workflow string
	status   RunState
}

// A strandedRun is an unfinished run, and what became of its message.
type strandedRun struct {
	id, message  int64
	messageState string // archived, dead, gone, elsewhere; empty: it is there
	lastError    sql.NullString
}

// rescueRuns looks, a page at a time, for unfinished runs whose messages have ended without them, such as by a plain consumer of
// an older release. It makes an archived message ready again, so that its run goes on, and ends a run whose message is dead or gone.
func (r *runner) rescueRuns(ctx context.Context) {
	for _, q := range r.queues {
		if !q.workflow {
			continue
		}
		for _, status := range unfinishedStates {
			limited, cancel := context.WithTimeout(ctx, statementTimeout)
			err := r.rescuePage(limited, strandedPage{q.queue, status})
			cancel()
			if err != nil {
				r.maintenanceFailed(ctx, "look for runs that have lost their messages", err)
				return
			}
		}
	}
}

func (r *runner) rescuePage(ctx context.Context, page strandedPage) error {
	runs, err := r.store.strandedRuns(ctx, page, r.rescueCursor[page])
	if err != nil {
		return err
	}
	if r.rescueCursor == nil {
		r.rescueCursor = map[strandedPage]int64{}
	}
	r.rescueCursor[page] = 0
	if len(runs) == maintenanceChunk {
		r.rescueCursor[page] = runs[len(runs)-1].id
	}
	for _, run := range runs {
		if run.messageState == "" {
			continue
		}
		goesOn, err := r.store.rescue(ctx, page.workflow, run)
		if err != nil {
			return err
		}
		outcome := "ended"
		if goesOn {
			outcome = "goes on"
		}
		r.log.Warn("pgqrs: a run had lost its message", "workflow", page.workflow, "run", run.id, "message", run.message, "state", run.messageState, "outcome", outcome)
	}
	return nil
}

// strandedRuns returns a page of unfinished runs, by id.
func (s *Store) strandedRuns(ctx context.Context, page strandedPage, after int64) ([]strandedRun, error) {
	var runs []strandedRun
	args := []any{page.workflow, string(page.status), after, strandedAfter.Microseconds(), maintenanceChunk}
	err := conn{s, nil}.rows(ctx, s.dialect.workflow.stranded, args, func(rows *sql.Rows) error {
		var run strandedRun
		_, err := scanLoosely(rows, "id message_id ended last_error", &run.id, &run.message, &run.messageState, &run.lastError) // what does not decode is no message
		runs = append(runs, run)
		return err
	})
	return runs, err
}

// rescue gives a stranded run its message back, or ends it. It reports whether the run goes on.
func (s *Store) rescue(ctx context.Context, workflow string, run strandedRun) (goesOn bool, err error) {
	cause := fmt.Errorf("its message was deleted")
	switch run.messageState {
	case string(Archived):
		done, taken, err := s.redrive(ctx, []int64{run.message})
		if err != nil || len(taken) == 0 {
			return true, errors.Join(err, s.wakeIfReady(ctx, workflow, done))
		}
		cause = fmt.Errorf("its message was archived without it, and another has the message's key since")
	case messageElsewhere:
		cause = malformedError(fmt.Sprintf("run %d", run.id), fmt.Sprintf("message_id: message %d is of another queue", run.message))
	case string(Dead):
		cause = fmt.Errorf("its message is dead: %s", run.lastError.String)
	}
	return false, s.endStranded(ctx, run, cause)
}

// wakeIfReady wakes the workers of a queue if messages have become ready.
func (s *Store) wakeIfReady(ctx context.Context, queue string, ready []int64) error {
	if len(ready) == 0 {
		return nil
	}
	return s.wake(ctx, queue)
}

// errNotStranded rolls back the end of a run whose message has come back meanwhile.
var errNotStranded = errors.New("pgqrs: the run has its message again")

// endStranded ends a run, unless its message has come back.
func (s *Store) endStranded(ctx context.Context, run strandedRun, cause error) error {
	text, err := encodeJSON(errorText(cause))
	if err != nil {
		return err
	}
	list, err := jsonList([]int64{run.message})
	if err != nil {
		return err
	}
	err = s.atomic(ctx, func(c conn) error {
		if _, err := c.endRun(ctx, run.id, Failed, nil, string(text)); err != nil {
			return err
		}
		if run.messageState == messageElsewhere {
			return nil // for good
		}
		there, err := c.ids(ctx, s.dialect.message.lock, list, "")
		if err != nil {
			return err
		}
		ended := there
		if len(there) > 0 {
			if ended, err = c.ids(ctx, s.dialect.message.lock, list, run.messageState); err != nil {
				return err
			}
		}
		if len(ended) < len(there) {
			return errNotStranded
		}
		return nil
	})
	if errors.Is(err, errNotStranded) {
		return nil
	}
	return err
}
