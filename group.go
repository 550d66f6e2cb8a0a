package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
)

// Group puts the message into a group of its queue. The key has 1 to 255 characters, such as the
// number of an account. The messages of a group are handled one at a time, in the order in which
// they were enqueued, which is the order of their transactions' commits. The others are [Blocked]
// meanwhile, and cost consumers nothing. Groups do not wait for each other.
// Policy.GroupConcurrency, GroupRate and SkipFailed change this.
//
// A message that fails blocks its group until it succeeds, is deleted or dies. So does a message
// with a delay. Priority orders groups, not the messages within a group. The policy in the queue's
// row applies, which [Queue.Configure] or a Worker writes.
//
// An enqueue to a group waits for other transactions that are enqueueing to the group. The
// application should keep such transactions short. If a transaction enqueues to several groups, it
// should use the same order everywhere.
func Group(key string) Option {
	return func(o *options) {
		if err := checkName("group", key); err != nil {
			o.addError(err)
		}
		o.group = key
	}
}

// groupHeader has the group of a message for its consumer, since the claim returns no column for
// it. Users do not see it.
const groupHeader = "pgqrs-group"

// A groupID is a group of a queue.
type groupID struct{ queue, key string }

func compareGroups(a, b groupID) int {
	return cmp.Or(cmp.Compare(a.queue, b.queue), cmp.Compare(a.key, b.key))
}

// groupNames returns groups, each once and in the order in which every transaction locks them.
func groupNames(names map[groupID]bool) []groupID {
	return slices.SortedFunc(maps.Keys(names), compareGroups)
}

// groupList encodes groups as the statements take them.
func groupList(groups []groupID) (string, error) {
	list := make([][2]string, len(groups))
	for i, g := range groups {
		list[i] = [2]string{g.queue, g.key}
	}
	return jsonList(list)
}

// groupPolicies has the policies that at least one of several groups has.
type groupPolicies struct{ concurrent, rated, skips bool }

// lockGroups locks groups, after waiting for other transactions, and reports whether all their
// queues exist.
func (c conn) lockGroups(ctx context.Context, groups []groupID) (p groupPolicies, all bool, err error) {
	list, err := groupList(groups)
	if err != nil {
		return p, false, err
	}
	n := 0
	err = c.rows(ctx, c.store.dialect.group.lock, []any{list}, func(rows *sql.Rows) error {
		n++
		return p.add(rows, "many paced skips")
	})
	return p, n == len(groups), err
}

// add scans the policies of one more group, after the other columns of the row. If they do not
// decode, it assumes that the group has all policies.
func (p *groupPolicies) add(rows *sql.Rows, names string, before ...any) error {
	var more groupPolicies
	malformed, err := scanLoosely(rows, names, append(before, &more.concurrent, &more.rated, &more.skips)...)
	if malformed != "" {
		more = groupPolicies{true, true, true}
	}
	p.concurrent, p.rated, p.skips = p.concurrent || more.concurrent, p.rated || more.rated, p.skips || more.skips
	return err
}

// tryGroups unblocks messages, as far as the policy allows, in the groups that no other transaction
// has locked. It returns these groups.
func (c conn) tryGroups(ctx context.Context, groups []groupID) (locked map[groupID]bool, err error) {
	list, err := groupList(groups)
	if err != nil {
		return nil, err
	}
	var p groupPolicies
	locked = map[groupID]bool{}
	err = c.rows(ctx, c.store.dialect.group.tryLock, []any{list}, func(rows *sql.Rows) error {
		var g groupID
		err := p.add(rows, "queue group many paced skips", &g.queue, &g.key)
		locked[g] = true
		return err
	})
	if err != nil || len(locked) == 0 {
		return nil, err
	}
	return locked, c.promote(ctx, groupNames(locked), p)
}

// promote unblocks messages, as far as the policy allows, in groups that the transaction has
// locked, and wakes the workers of their queues.
func (c conn) promote(ctx context.Context, groups []groupID, p groupPolicies) error {
	list, err := groupList(groups)
	if err != nil {
		return err
	}
	texts := c.store.dialect.group
	if p.skips {
		ids, err := c.ids(ctx, texts.park, list)
		if err == nil && p.rated && len(ids) > 0 {
			err = c.pace(ctx, texts.refund, ids)
		}
		if err != nil {
			return err
		}
	}
	woken := false
	for more := true; more; more = p.concurrent {
		ids, err := c.ids(ctx, texts.promote, list)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			break
		}
		woken = true
		if p.rated {
			if err := c.pace(ctx, texts.pace, ids); err != nil {
				return err
			}
		}
	}
	if !woken {
		return nil
	}
	queues := map[string]bool{}
	for _, g := range groups {
		queues[g.queue] = true
	}
	return c.store.wakeAll(ctx, queues)
}

// pace runs a statement that counts messages for the rates of their groups.
func (c conn) pace(ctx context.Context, text string, ids []int64) error {
	_, err := c.exec(ctx, text, idList(ids))
	return err
}

// wakeAll wakes the workers of the queues.
func (s *Store) wakeAll(ctx context.Context, queues map[string]bool) error {
	for queue := range queues {
		if err := s.wake(ctx, queue); err != nil {
			return err
		}
	}
	return nil
}

// insertGrouped is insert for items of which some are in groups or in a batch. It runs in a
// transaction.
func (e *enqueueOp) insertGrouped(ctx context.Context, c conn) error {
	names := map[groupID]bool{}
	list := make([][]any, len(e.left))
	for i, n := range e.left {
		it := e.items[n]
		list[i] = []any{it.payload, it.delay, it.dueAt, it.priority, it.key, it.headers, it.group, it.batch}
		if it.group != nil {
			names[groupID{e.queue, it.group.(string)}] = true
		}
	}
	arg, err := jsonList(list)
	if err != nil {
		return err
	}
	groups := groupNames(names)
	var p groupPolicies
	if len(groups) > 0 {
		var there bool
		if p, there, err = c.lockGroups(ctx, groups); err != nil || !there {
			return err
		}
	}
	if err := e.insertList(ctx, c, c.store.dialect.group.enqueue, arg); err != nil || len(groups) == 0 {
		return err
	}
	return c.promote(ctx, groups, p)
}

// A dependent may be unblocked once a message has ended: the group of the message, or the message
// that waits for its batch.
type dependent struct {
	groupID       // zero for a batch
	batch   int64 // id of the message that waits for a batch, 0 for a group
}

type dependents map[dependent]bool

// add adds the dependents of a message. It ignores a malformed group, which no statement can name.
func (f dependents) add(queue, group string, batch int64) {
	if group != "" && utf8.ValidString(group) {
		f[dependent{groupID: groupID{queue, group}}] = true
	}
	if batch != 0 {
		f[dependent{batch: batch}] = true
	}
}

// split returns the groups and the batches, each in the order in which they are locked.
func (f dependents) split() (groups []groupID, batches []int64) {
	for x := range f {
		if x.batch != 0 {
			batches = append(batches, x.batch)
		} else {
			groups = append(groups, x.groupID)
		}
	}
	slices.SortFunc(groups, compareGroups)
	slices.Sort(batches)
	return groups, batches
}

// dependentsOf returns the dependents of messages whose settlement ends or delays them.
func dependentsOf(list []settlement) dependents {
	f := dependents{}
	for _, x := range list {
		switch {
		case x.kind == acked || x.kind == died:
			f.add(x.m.Queue, x.m.Group, x.m.BatchID)
		case x.kind == retried || x.delay > 0:
			f.add(x.m.Queue, x.m.Group, 0)
		}
	}
	return f
}

// dependentsByID returns the dependents of messages by id, and the parents that may wait for their
// runs.
func (c conn) dependentsByID(ctx context.Context, ids string) (f dependents, parents []int64, err error) {
	f = dependents{}
	found := map[int64]bool{}
	err = c.rows(ctx, c.store.dialect.group.dependents, []any{ids}, func(rows *sql.Rows) error {
		var queue string
		var group sql.NullString
		var batch, parent sql.NullInt64
		// A malformed row has no dependents.
		_, err := scanRowLoosely(rows, "queue group_key batch_id parent", &queue, &group, &batch, &parent)
		f.add(queue, group.String, batch.Int64)
		if parent.Valid {
			found[parent.Int64] = true
		}
		return err
	})
	return f, slices.Sorted(maps.Keys(found)), err
}

// unblock unblocks dependents after a message has ended. It does not wait for locks. It tries
// dependents that another transaction has locked again a little later.
func (c conn) unblock(ctx context.Context, f dependents) error {
	if len(f) == 0 {
		return nil
	}
	missed, err := c.tryUnblock(ctx, f)
	if err == nil && len(missed) > 0 {
		c.store.onCommit(func() { c.store.retryUnblock(missed, c.store.tx != nil && c.store.afterCommit == nil) })
	}
	return err
}

// tryUnblock unblocks the dependents that no other transaction has locked, and returns the rest.
func (c conn) tryUnblock(ctx context.Context, f dependents) (missed dependents, err error) {
	groups, batches := f.split()
	missed = maps.Clone(f)
	if len(groups) > 0 {
		locked, err := c.tryGroups(ctx, groups)
		if err != nil {
			return nil, err
		}
		for g := range locked {
			delete(missed, dependent{groupID: g})
		}
	}
	if len(batches) > 0 {
		locked, err := c.tryBatches(ctx, batches)
		if err != nil {
			return nil, err
		}
		for _, id := range locked {
			delete(missed, dependent{batch: id})
		}
	}
	return missed, nil
}

const (
	firstUnblockWait  = 50 * time.Millisecond
	maxUnblockWait    = time.Second // between two tries for a dependent
	maxUnblockRetries = 20          // after these the sweep has to find it
	maxUnblockDue     = 10_000      // dependents that retries are kept for
	sweepPage         = 1000        // groups
	sweepPages        = 10          // in one round of maintenance
	pruneGroups       = time.Hour   // since the latest use of a group
)

// unblockRetries are dependents that another transaction had locked when a message ended, such as a
// transaction that was enqueueing to a group. Each is tried again, at growing intervals, until that
// succeeds. If the process ends before that, the sweep of any Worker finds them.
type unblockRetries struct {
	mu     sync.Mutex
	due    map[dependent]unblockRetry
	timer  *time.Timer // nil if there are none
	at     time.Time   // when it fires, in the past during the retries
	closed bool
}

// An unblockRetry is the next try for a dependent.
type unblockRetry struct {
	at       time.Time
	attempts int // that failed
	// callerTx is whether the message ended in a caller's transaction, whose end cannot be
	// observed.
	callerTx bool
}

// retryUnblock schedules a first retry for dependents.
func (s *core) retryUnblock(f dependents, open bool) {
	r := &s.unblockRetries
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.due == nil {
		r.due = map[dependent]unblockRetry{}
	}
	first := time.Now().Add(firstUnblockWait)
	for x := range f {
		if len(r.due) >= maxUnblockDue {
			break // the sweep finds the others
		}
		r.due[x] = unblockRetry{at: first, callerTx: open || r.due[x].callerTx}
	}
	if r.timer == nil || r.at.After(first) {
		s.setUnblockTimer(first)
	}
}

// setUnblockTimer sets the timer. The caller holds the lock.
func (s *core) setUnblockTimer(at time.Time) {
	r := &s.unblockRetries
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	if !r.closed {
		r.timer, r.at = time.AfterFunc(time.Until(at), s.runUnblockRetries), at
	}
}

func (s *core) runUnblockRetries() {
	r := &s.unblockRetries
	tried := r.takeDue()
	f := dependents{}
	for x := range tried {
		f[x] = true
	}
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	missed, err := (&Store{core: s}).unblockNow(ctx, f)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && !r.closed {
		s.log.Warn("pgqrs: could not let go what waits for messages that have ended; trying again", "err", err)
	}
	for x, v := range tried {
		v.attempts++
		v.at = time.Now().Add(min(firstUnblockWait<<v.attempts, maxUnblockWait))
		if _, anew := r.due[x]; !anew && (missed[x] || v.callerTx) && v.attempts < maxUnblockRetries {
			r.due[x] = v
		}
	}
	r.timer = nil
	if len(r.due) > 0 {
		s.setUnblockTimer(slices.MinFunc(slices.Collect(maps.Values(r.due)), func(a, b unblockRetry) int { return a.at.Compare(b.at) }).at)
	}
}

// takeDue removes and returns the retries that are due.
func (r *unblockRetries) takeDue() map[dependent]unblockRetry {
	r.mu.Lock()
	defer r.mu.Unlock()
	due := map[dependent]unblockRetry{}
	for x, v := range r.due {
		if !v.at.After(time.Now()) {
			due[x] = v
			delete(r.due, x)
		}
	}
	return due
}

// unblockNow unblocks dependents, and returns those that were locked.
func (s *Store) unblockNow(ctx context.Context, f dependents) (missed dependents, err error) {
	err = s.atomic(ctx, func(c conn) (err error) {
		missed, err = c.tryUnblock(ctx, f)
		return err
	})
	if err != nil {
		return f, err
	}
	return missed, nil
}

// stop ends the retries.
func (r *unblockRetries) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

// A sweepCursor is the position of a sweep.
type sweepCursor struct {
	queue int64
	group string
}

// sweep unblocks messages that are blocked without a reason, because a process ended at the wrong
// time, or pgqrs 0.15 ended a message.
func (r *runner) sweep(ctx context.Context) {
	queues := make([]string, len(r.queues))
	for i, q := range r.queues {
		queues[i] = q.queue
	}
	list, err := jsonTexts(queues)
	if err == nil {
		err = errors.Join(r.sweepGroups(ctx, list), r.sweepBatches(ctx, list))
	}
	if err != nil {
		r.maintenanceFailed(ctx, "look for messages that are held up", err)
	}
}

// sweepGroups sweeps several pages of groups, from the position of the latest sweep.
func (r *runner) sweepGroups(ctx context.Context, queues string) error {
	for range sweepPages {
		n, err := r.sweepPage(ctx, queues)
		if err != nil {
			return err
		}
		if n < sweepPage {
			r.sweepCursor = sweepCursor{}
			return nil
		}
	}
	return nil
}

// sweepPage sweeps a page of groups and returns how many there were.
func (r *runner) sweepPage(parent context.Context, queues string) (n int, err error) {
	ctx, cancel := context.WithTimeout(parent, statementTimeout)
	defer cancel()
	stuck := dependents{}
	last := r.sweepCursor
	args := []any{queues, last.queue, last.group, sweepPage}
	err = r.store.onPool().rows(ctx, r.store.dialect.group.sweep, args, func(rows *sql.Rows) error {
		n++
		var g groupID
		var room bool
		err := rows.Scan(&last.queue, &g.queue, &g.key, &room)
		last.group = g.key
		if room {
			stuck.add(g.queue, g.key, 0)
		}
		return err
	})
	if err != nil {
		return n, err
	}
	r.sweepCursor = last
	if len(stuck) > 0 {
		_, err = r.store.unblockNow(ctx, stuck)
	}
	return n, err
}

// sweepBatches unblocks messages whose batches are done.
func (r *runner) sweepBatches(parent context.Context, queues string) error {
	ctx, cancel := context.WithTimeout(parent, statementTimeout)
	defer cancel()
	ids, err := r.store.onPool().ids(ctx, r.store.dialect.batch.sweep, queues, sweepPage)
	if err != nil || len(ids) == 0 {
		return err
	}
	done := dependents{}
	for _, id := range ids {
		done.add("", "", id)
	}
	_, err = r.store.unblockNow(ctx, done)
	return err
}
