package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// WorkerInfo is the row of a worker.
type WorkerInfo struct {
	ID    int64 // a random number, which is never used again
	Name  string
	Queue string // empty for the administrators of pgqrs 0.15
	// Status is ready (Dequeue by hand), polling, suspended, interrupted or stopped.
	Status      string
	StartedAt   time.Time
	HeartbeatAt time.Time
	ShutdownAt  time.Time // zero unless stopped
	Held        int64     // messages leased to it
	// Malformed says which columns of the row do not decode, and why; see [MessageInfo]. Their fields are zero.
	Malformed string
}

// Workers lists the rows of all workers, by when they started.
func (s *Store) Workers(ctx context.Context) ([]WorkerInfo, error) {
	if err := s.usable(); err != nil {
		return nil, wrap(ctx, err, "list workers")
	}
	var list []WorkerInfo
	err := conn{s, s.tx}.rows(ctx, s.dialect.worker.list, nil, func(rows *sql.Rows) error {
		var w WorkerInfo
		var queue sql.NullString
		var started, beat, shut timestamp
		var err error
		w.Malformed, err = scanLoosely(rows, "id name queue status started_at heartbeat_at shutdown_at held",
			&w.ID, &w.Name, &queue, &w.Status, &started, &beat, &shut, &w.Held)
		w.Queue, w.StartedAt, w.HeartbeatAt, w.ShutdownAt = queue.String, started.Time, beat.Time, shut.Time
		list = append(list, w)
		return err
	})
	if err != nil {
		return nil, wrap(ctx, err, "list workers")
	}
	return list, nil
}

// workerMoves are the statuses that each may be reached from, as in pgqrs
// 0.15, but for stopped, which it reaches from suspended alone.
var workerMoves = map[string][]string{
	"suspended":   {"ready", "polling", "interrupted"},
	"ready":       {"suspended"},
	"polling":     {"ready", "suspended"},
	"interrupted": {"polling"},
	"stopped":     {"ready", "polling", "suspended", "interrupted"},
}

// SuspendWorker makes a worker claim no more until ResumeWorker. A running
// Worker notices with its next heartbeat, gives back what it has not begun,
// finishes the rest, and goes on living; its claims stop at once. It returns an
// error matching ErrNotFound if there is no such row, and ErrState if it is
// suspended or stopped already.
func (s *Store) SuspendWorker(ctx context.Context, id int64) error {
	_, err := s.changeWorker(ctx, id, "suspended")
	return wrap(ctx, err, "suspend worker %d", id)
}

// ResumeWorker takes back SuspendWorker. It returns errors as that does.
func (s *Store) ResumeWorker(ctx context.Context, id int64) error {
	_, err := s.changeWorker(ctx, id, "ready")
	return wrap(ctx, err, "resume worker %d", id)
}

// InterruptWorker asks a running Worker (status polling) to suspend itself,
// which it does with its next heartbeat; its claims stop at once. It returns
// errors as SuspendWorker does.
func (s *Store) InterruptWorker(ctx context.Context, id int64) error {
	_, err := s.changeWorker(ctx, id, "interrupted")
	return wrap(ctx, err, "interrupt worker %d", id)
}

// StopWorker makes a worker stop for good: it claims no more, gives back what
// it has not begun, and finishes the rest. A Worker all of whose rows were
// stopped returns from Run. It returns errors as SuspendWorker does.
func (s *Store) StopWorker(ctx context.Context, id int64) error {
	_, err := s.changeWorker(ctx, id, "stopped")
	return wrap(ctx, err, "stop worker %d", id)
}

// have notes the row of a lane.
func (l *lane) have(row registration) {
	l.worker.Store(row.id)
	l.since.Store(row.incarnation)
}

// row is that of a lane.
func (l *lane) row() registration { return registration{l.worker.Load(), l.since.Load()} }

// taken is the word for a lane whose row another worker has taken over: it claims nothing until it has a row again.
const taken = "taken over"

// readRow takes in what a heartbeat says of a lane's row, and returns the word for its status. A row that is gone, or that
// was given up for dead while this process was held up, is made anew, and so is one that another worker has
// taken over, as soon as the name is free.
func (r *running) readRow(ctx context.Context, l *lane, states map[int64]workerState) (word string, limited bool, err error) {
	row := l.row()
	state, there := states[row.id]
	anothers := row.id == 0 || there && !state.of(row)
	if there && !anothers && state.status != "silent" {
		if word, err = r.follow(ctx, row.id, state.status); err == nil && l.unwritten {
			err = r.rewritePolicy(ctx, l)
		}
		return word, state.limited || l.unwritten, err
	}
	l.unwritten = l.unwritten || row.id != 0 && !there // the queue's row may be another too
	err = r.reregister(ctx, l)
	if errors.Is(err, ErrState) { // its name is in use
		if row.id != 0 {
			r.log.Warn("pgqrs: another worker of the same name has taken over the worker's row; claiming nothing until the name is free", "queue", l.queue, "id", row.id)
		}
		l.have(registration{})
		return taken, l.limited.Load(), nil
	}
	return "polling", l.limited.Load(), err
}

// follow does to a row what its status asks for, and returns the status then.
func (r *running) follow(ctx context.Context, id int64, status string) (string, error) {
	next := map[string]string{"interrupted": "suspended", "ready": "polling"}[status] // as asked to, or because it was resumed
	if next == "" {
		return status, nil
	}
	_, err := r.store.moveWorker(ctx, id, next)
	return next, err
}

func (r *running) reregister(ctx context.Context, l *lane) error {
	row, limited, err := r.store.register(ctx, l.queue, r.rowName(l), "polling")
	if err != nil {
		return err
	}
	l.have(row)
	l.limited.Store(limited || l.unwritten && l.policy.limited())
	r.log.Warn("pgqrs: worker row was given up, deleted or another's; made it anew", "queue", l.queue, "id", row.id)
	if l.unwritten {
		return r.rewritePolicy(ctx, l)
	}
	return nil
}

// rewritePolicy writes a queue's policy again, which may have gone with the worker's row: the tables were made anew, or restored.
func (r *running) rewritePolicy(ctx context.Context, l *lane) error {
	err := r.store.configure(ctx, []policyRow{l.policy.row(l.queue)})
	l.unwritten = err != nil
	return err
}

// changeWorker is moveWorker with an error that says why it could not be done.
func (s *Store) changeWorker(ctx context.Context, id int64, status string) (bool, error) {
	if err := s.usable(); err != nil {
		return false, err
	}
	moved, err := s.moveWorker(ctx, id, status)
	if err != nil || moved {
		return moved, err
	}
	word, found := "", false
	err = conn{s, s.tx}.rows(ctx, s.dialect.worker.status, []any{id}, func(rows *sql.Rows) error {
		found = true
		return rows.Scan(&word)
	})
	switch {
	case err != nil:
		return false, err
	case !found:
		return false, ErrNotFound
	}
	return false, fmt.Errorf("%w: it is %s, and would have to be %s", ErrState, word, strings.Join(workerMoves[status], " or "))
}

// moveWorker changes a worker's status if its present one allows that.
func (s *Store) moveWorker(ctx context.Context, id int64, status string) (bool, error) {
	from, err := jsonList(workerMoves[status])
	if err != nil {
		return false, err
	}
	var ids []int64
	err = s.single(ctx, func(c conn) (err error) {
		ids, err = c.ids(ctx, s.dialect.worker.move, id, status, from)
		return err
	})
	return len(ids) > 0, err
}
