package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// heartbeatLoop renews leases and heartbeats until ctx is done.
func (r *runner) heartbeatLoop(ctx context.Context) {
	shortest := r.Lease
	for _, q := range r.queues {
		shortest = min(shortest, q.lease)
	}
	tick := time.NewTicker(min(shortest/6, maxHeartbeat))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.renew(ctx)
		r.interrupt(ctx)
		r.heartbeat(ctx)
	}
}

// renew extends the leases of all deliveries, with one statement for each length of lease, and ends
// the handlers whose leases are lost.
func (r *runner) renew(ctx context.Context) {
	held := map[time.Duration]map[int64]*delivery{} // by lease and id
	r.mu.Lock()
	for id, d := range r.held {
		if !d.lost {
			if held[d.queue.lease] == nil {
				held[d.queue.lease] = map[int64]*delivery{}
			}
			held[d.queue.lease][id] = d
		}
	}
	r.mu.Unlock()
	for lease, asked := range held {
		r.renewFor(ctx, lease, asked)
	}
}

// renewFor extends leases to the given time from now.
func (r *runner) renewFor(ctx context.Context, lease time.Duration, asked map[int64]*delivery) {
	from := time.Now()
	var leases leaseTuples
	for _, d := range asked {
		leases.add(d.m)
	}
	limited, cancel := context.WithTimeout(ctx, min(statementTimeout, lease/2))
	defer cancel()
	var ids []int64
	err := r.store.single(limited, func(c conn) (err error) {
		ids, err = c.execLeases(limited, r.store.dialect.lease.renew, leases, lease.Microseconds())
		return err
	})
	if err != nil && len(asked) > 1 && limited.Err() == nil && r.store.dialect.isRefused(err) {
		for _, half := range halves(asked) { // the database refuses one of them
			r.renewFor(ctx, lease, half)
		}
		return
	}
	if err != nil && ctx.Err() == nil {
		r.log.Warn("pgqrs: could not renew leases; trying again", "messages", len(asked), "err", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		for _, id := range ids {
			if d := asked[id]; d != nil {
				d.until = from.Add(lease)
				delete(asked, id)
			}
		}
	}
	for id, d := range asked {
		if r.held[id] != d || d.finished || d.m.delivery.settled.Load() || d.m.delivery.settling.Load() > 0 {
			continue
		}
		// If the database does not answer, a lease counts as lost once it would have ended. But on
		// SQLite a handler's own transaction keeps the renewal out, and ends with the fence anyway.
		if err != nil && (time.Now().Before(d.until) || d.m.delivery.inTransaction.Load()) {
			continue
		}
		r.loseLease(d)
	}
}

// halves splits deliveries in two.
func halves(all map[int64]*delivery) [2]map[int64]*delivery {
	parts := [2]map[int64]*delivery{{}, {}}
	for id, d := range all {
		part := parts[0]
		if len(part) >= (len(all)+1)/2 {
			part = parts[1]
		}
		part[id] = d
	}
	return parts
}

// interrupt ends the ctx of runs that are being cancelled.
func (r *runner) interrupt(ctx context.Context) {
	asked := map[int64]*delivery{}
	r.mu.Lock()
	for id, d := range r.held {
		if d.queue.workflow && d.cancel != nil && !d.finished {
			asked[id] = d
		}
	}
	r.mu.Unlock()
	if len(asked) == 0 {
		return
	}
	limited, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	runs := idList(slices.Collect(maps.Keys(asked)))
	ids, err := r.store.onPool().ids(limited, r.store.dialect.workflow.interrupted, runs)
	for _, id := range ids {
		if end := asked[id].m.delivery.interrupt.Load(); end != nil {
			(*end)(ErrCancelled)
		}
	}
	if err != nil && ctx.Err() == nil {
		r.log.Warn("pgqrs: could not look for cancelled runs; trying again", "err", err)
	}
}

// heartbeat sends heartbeats for the worker rows and passes their states on (see readRow).
func (r *runner) heartbeat(parent context.Context) {
	ctx, cancel := context.WithTimeout(parent, statementTimeout)
	defer cancel()
	var ids []int64
	for _, q := range r.queues {
		if id := q.worker.Load(); id != 0 {
			ids = append(ids, id)
		}
	}
	start := time.Now()
	states, err := r.store.heartbeat(ctx, ids)
	if err != nil {
		if parent.Err() == nil {
			r.log.Warn("pgqrs: could not heartbeat; trying again", "err", err)
		}
		return
	}
	r.lastHeartbeat.Store(&start)
	told := map[*queueRunner]WorkerState{}
	for _, q := range r.queues {
		word, limited, err := r.readRow(ctx, q, states)
		if err != nil {
			r.log.Warn("pgqrs: could not change the worker's row; trying again", "queue", q.queue, "err", err)
			return
		}
		told[q] = word
		if q.limited.Swap(limited) && !limited {
			q.throttleEnded.Store(true) // there is nothing left to wait for
			r.wake()
		}
	}
	select {
	case <-r.workerStatuses: // a state that the dispatch loop has not read is out of date
	default:
	}
	r.workerStatuses <- told
	r.wake()
}

const (
	maintenanceInterval = 15 * time.Second
	clearOwnerAfter     = 10 * time.Second // after the end of a lease
	pruneInterval       = time.Minute
	pruneWorkers        = 24 * time.Hour
	maintenanceChunk    = 1000 // rows
)

// A maintenanceState is the state that maintenance keeps from round to round. Only maintenance uses
// it.
type maintenanceState struct {
	sweepCursor     sweepCursor
	rescueCursor    map[strandedPage]int64 // the latest run of each page
	nextOwnerClear  time.Time
	nextUnreachable time.Time
}

// maintenanceLoop does maintenance until ctx is done.
func (r *runner) maintenanceLoop(ctx context.Context) {
	var pruned time.Time
	r.reportMisfits(ctx)
	r.reportDatabase(ctx)
	for {
		r.expireWorkersAndLeases(ctx)
		if time.Since(pruned) > pruneInterval {
			pruned = time.Now()
			r.prune(ctx)
		}
		if !pause(ctx, time.Duration(float64(maintenanceInterval)*(0.75+rand.Float64()/2))) {
			return
		}
	}
}

// expireWorkersAndLeases marks workers without heartbeats stopped, clears the owners of expired
// leases, and unblocks messages that are blocked without a reason.
func (r *runner) expireWorkersAndLeases(ctx context.Context) {
	d := r.store.dialect
	r.chunks(ctx, "mark silent workers stopped", d.worker.expire, heartbeatTimeout.Microseconds())
	if start := time.Now(); start.After(r.nextOwnerClear) {
		r.chunks(ctx, "clear the owners of expired leases", d.message.clearExpiredOwner, clearOwnerAfter.Microseconds(), maintenanceChunk)
		// The statement reads past dead rows, as a rescan does.
		r.nextOwnerClear = time.Now().Add(rescanShare * time.Since(start))
	}
	r.sweep(ctx)
}

// prune deletes archived messages past their retention and rows of workers that have been gone for
// long.
func (r *runner) prune(ctx context.Context) {
	var retentions [][2]any // of queues, by name
	for _, q := range r.queues {
		if retention := q.policy.retention(); retention >= 0 {
			retentions = append(retentions, [2]any{q.queue, retention.Microseconds()})
		}
	}
	list, err := jsonList(retentions)
	if err != nil {
		r.maintenanceFailed(ctx, "prune archived messages", err)
		return
	}
	d := r.store.dialect
	r.chunks(ctx, "prune archived messages", d.message.prune, list, maintenanceChunk)
	r.reportUnreachable(ctx)
	r.chunks(ctx, "prune groups", d.group.prune, pruneGroups.Microseconds(), maintenanceChunk)
	r.pruneRuns(ctx, list)
	r.rescueRuns(ctx)
	r.reportUnattended(ctx)
	r.scheduler.pruneHistory(ctx)
	r.maintainInterop(ctx)
}

// pruneRuns deletes runs past their retention, with their messages.
func (r *runner) pruneRuns(ctx context.Context, retentions string) {
	if !slices.ContainsFunc(r.queues, func(q *queueRunner) bool { return q.workflow }) {
		return
	}
	for ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, statementTimeout)
		found, deleted, err := r.prunePage(limited, retentions)
		cancel()
		if err != nil {
			r.maintenanceFailed(ctx, "prune runs", err)
			return
		}
		if found < maintenanceChunk || deleted == 0 {
			return
		}
	}
}

// prunePage deletes a page of runs past their retention. It returns how many it found, and how many
// it deleted.
func (r *runner) prunePage(ctx context.Context, retentions string) (found int, deleted int64, err error) {
	ids, err := r.store.onPool().ids(ctx, r.store.dialect.workflow.expired, retentions, maintenanceChunk)
	if err != nil || len(ids) == 0 {
		return 0, 0, err
	}
	deleted, err = r.store.remove(ctx, ids, Archived, nil)
	return len(ids), deleted, err
}

// reportUnreachable makes dead letters of messages that no claim and no retention reaches, and logs
// that.
func (r *runner) reportUnreachable(ctx context.Context) {
	start := time.Now()
	if !start.After(r.nextUnreachable) {
		return
	}
	var n int
	for {
		found, buried, err := r.failUnreachable(ctx)
		n += buried
		if err != nil {
			r.maintenanceFailed(ctx, "look for messages that no claim reaches", err)
		}
		if err != nil || buried == 0 || found < maintenanceChunk {
			break
		}
	}
	// On Turso the statement reads the times of all scheduled messages.
	r.nextUnreachable = time.Now().Add(rescanShare * time.Since(start))
	if n > 0 {
		r.log.Warn("pgqrs: messages were malformed, so that no claim would ever have reached them; they are dead letters now", "messages", n)
	}
}

// failUnreachable makes dead letters of up to maintenanceChunk messages. It returns how many it
// found, and how many died.
func (r *runner) failUnreachable(ctx context.Context) (found, buried int, err error) {
	limited, cancel := context.WithTimeout(ctx, maintenanceTimeout)
	defer cancel()
	heirs := map[string]string{}
	var queues [][1]string
	for _, q := range r.queues {
		heirs[q.queue] = q.policy.DeadLetter
		queues = append(queues, [1]string{q.queue})
	}
	list, err := jsonList(queues)
	if err != nil {
		return 0, 0, err
	}
	hidden := map[string][]int64{} // by queue
	err = r.store.onPool().rows(limited, r.store.dialect.message.unreachable, []any{list, maintenanceChunk}, func(rows *sql.Rows) error {
		var id int64
		var queue string
		err := rows.Scan(&id, &queue)
		hidden[queue] = append(hidden[queue], id)
		found++
		return err
	})
	for queue, ids := range hidden {
		if err == nil {
			var died []int64
			died, err = r.store.failUnreachable(limited, ids, heirs[queue])
			buried += len(died)
		}
	}
	return found, buried, err
}

// chunks runs a statement until it finds nothing more to do. Each run is a short transaction of its
// own. It returns the number of rows.
func (r *runner) chunks(ctx context.Context, what, text string, args ...any) (all int64) {
	for {
		var n int64
		limited, cancel := context.WithTimeout(ctx, maintenanceTimeout)
		err := r.store.single(limited, func(c conn) (err error) {
			n, err = c.exec(limited, text, args...)
			return err
		})
		cancel()
		if err != nil {
			r.maintenanceFailed(ctx, what, err)
			return all
		}
		if all += n; n < maintenanceChunk || ctx.Err() != nil {
			return all
		}
	}
}

func (r *runner) maintenanceFailed(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		r.log.Warn("pgqrs: upkeep failed; trying again later", "what", what, "err", err)
	}
}

// maintainInterop does the work that only a shared database needs, and deletes rows of workers that
// have been gone for long.
func (r *runner) maintainInterop(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	shared, indexed, err := r.store.onPool().usesInterop(limited)
	if err == nil && shared {
		err = r.wakeInteropParents(limited)
	}
	if err != nil {
		r.maintenanceFailed(ctx, "look after what is shared with pgqrs 0.15", err)
		return
	}
	text := r.store.dialect.worker.prune
	if shared {
		text = r.store.dialect.worker.pruneInterop
	}
	if shared && !indexed {
		r.log.Info("pgqrs: pgqrs 0.15 has joined; rows of stopped workers are kept until Install is called again")
		return
	}
	r.chunks(ctx, "prune worker rows", text, pruneWorkers.Microseconds(), maintenanceChunk)
}

// wakeInteropParents wakes runs whose children pgqrs 0.15 has ended, which does not know parents.
func (r *runner) wakeInteropParents(ctx context.Context) error {
	var queues []string
	for _, q := range r.queues {
		if q.workflow {
			queues = append(queues, q.queue)
		}
	}
	if len(queues) == 0 {
		return nil
	}
	list, err := jsonList(queues)
	if err != nil {
		return err
	}
	return r.store.atomic(ctx, func(c conn) error { return c.wakeRunsBy(ctx, r.store.dialect.workflow.joinShared, list) })
}

// reportDatabase logs the findings of Verify.
func (r *runner) reportDatabase(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, maintenanceTimeout)
	defer cancel()
	var report Report
	if err := r.store.onPool().verify(limited, &report); err != nil {
		r.maintenanceFailed(ctx, "look at the database's settings", err)
		return
	}
	for _, warning := range report.Warnings {
		r.log.Warn("pgqrs: the database is not set up as it should be", "engine", report.Engine, "warning", warning)
	}
	if len(report.Denied) > 0 {
		r.log.Warn("pgqrs: this user lacks rights that a worker needs", "denied", strings.Join(report.Denied, ", "))
	}
	if len(report.Missing) > 0 {
		r.log.Warn("pgqrs: the schema is not complete; call Install", "missing", strings.Join(report.Missing, ", "))
	}
}

// reportMisfits logs which queues have limits that no policy can have. The queues of this Worker
// already have the limits of their policies.
func (r *runner) reportMisfits(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, maintenanceTimeout)
	defer cancel()
	names, err := r.store.onPool().misfits(limited)
	if err != nil {
		r.maintenanceFailed(ctx, "look for limits that no policy can have", err)
	}
	for _, name := range names {
		r.log.Warn("pgqrs: a queue has limits that no policy can have; it is served as if it had none", "queue", name)
	}
}

// reportUnattended logs which queues have no live worker. It allows for a worker that is just being
// restarted.
func (r *runner) reportUnattended(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, maintenanceTimeout)
	defer cancel()
	list, err := r.store.onPool().unattended(limited, heartbeatTimeout)
	if err != nil {
		r.maintenanceFailed(ctx, "look for queues without workers", err)
		return
	}
	for _, q := range list {
		r.log.Warn("pgqrs: a queue has ready messages, and no live worker takes them", "queue", q.name, "oldest", q.oldest.Round(time.Second))
	}
}

// strandedAfter is how long ago a run's message must have ended for the run to be stranded. pgqrs
// 0.15 ends the message and the run one after the other.
const strandedAfter = time.Minute

// messageElsewhere is the state of a run's message that is in another queue, because something
// other than this library wrote it there.
const messageElsewhere = "elsewhere"

// unfinishedStates are the states of runs that need a message.
var unfinishedStates = []RunState{Queued, Running, Paused, Cancelling}

// A strandedPage is the position in the search for stranded runs.
type strandedPage struct {
	workflow string
	status   RunState
}

// A strandedRun is an unfinished run with the state of its message.
type strandedRun struct {
	id, message  int64
	messageState string // archived, dead, gone or elsewhere, empty if the message is there
	lastError    sql.NullString
}

// rescueRuns looks, a page at a time, for unfinished runs whose messages have ended without them,
// such as by a plain consumer of an older release. It makes an archived message ready again, so
// that its run continues. It ends a run whose message is dead or gone.
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
	err := s.onPool().rows(ctx, s.dialect.workflow.stranded, args, func(rows *sql.Rows) error {
		var run strandedRun
		// A malformed row has no message.
		_, err := scanLoosely(rows, "id message_id ended last_error", &run.id, &run.message, &run.messageState, &run.lastError)
		runs = append(runs, run)
		return err
	})
	return runs, err
}

// rescue makes a stranded run's message ready again, or ends the run. It reports whether the run
// continues.
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
			return nil // it has ended for good
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
