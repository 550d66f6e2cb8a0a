package pgqrs

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// WorkerInfo is the row of a worker.
type WorkerInfo struct {
	ID    int64
	Name  string
	Queue string // empty for the administrators of pgqrs 0.15
	// Status is ready (Dequeue by hand), polling, suspended, interrupted or stopped.
	Status      string
	StartedAt   time.Time
	HeartbeatAt time.Time
	ShutdownAt  time.Time // zero unless stopped
	Held        int64     // messages leased to it
}

// Workers lists the rows of all workers.
func (s *Store) Workers(ctx context.Context) ([]WorkerInfo, error) {
	if err := s.usable(); err != nil {
		return nil, wrap(ctx, err, "list workers")
	}
	var list []WorkerInfo
	err := conn{s, s.tx}.rows(ctx, s.dialect.worker.list, nil, func(rows *sql.Rows) error {
		var w WorkerInfo
		var queue sql.NullString
		var started, beat, shut timestamp
		err := rows.Scan(&w.ID, &w.Name, &queue, &w.Status, &started, &beat, &shut, &w.Held)
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
