package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// QueueInfo describes a queue and counts its messages.
type QueueInfo struct {
	ID        int64     `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at,omitzero"` // when its row was made
	PausedAt  time.Time `json:"paused_at,omitzero"`  // zero unless paused

	// Ready, Scheduled, Leased, Archived and Dead count the queue's messages by state, without a
	// limit.
	Ready     int64 `json:"ready"`
	Scheduled int64 `json:"scheduled"`
	Leased    int64 `json:"leased"`
	Archived  int64 `json:"archived"`
	Dead      int64 `json:"dead"`
	// Blocked counts the messages that wait for others of their group or batch, up to DepthLimit.
	Blocked int64 `json:"blocked"`
	// OldestReady is how long the oldest ready message has been ready, and zero if none is ready.
	// In JSON it is "oldest_ready_seconds".
	OldestReady time.Duration `json:"-"`
	// Policy is the policy that the code of the queue's handler has written.
	Policy PolicyInfo `json:"policy,omitzero"`
	// Malformed names the columns of the row that do not decode, with the reasons (see
	// [MessageInfo]). Their fields are zero.
	Malformed string `json:"malformed,omitempty"`
}

// MessageFilter selects the messages of a listing.
type MessageFilter struct {
	// IDs lists messages by id, in the order of IDs, whatever their queue and state. If IDs is set,
	// the other fields must be empty.
	IDs []int64
	// Key lists the unfinished message of that key in Queue, if there is one. If Key is set, the
	// fields below Queue must be empty.
	Key string
	// Queue and State select the messages otherwise. Both are required.
	Queue string
	State MessageState
	// After is the Cursor of the last message of the previous page. Empty means the first page.
	After string
	// Limit is the size of a page, at most 1000. Zero means 100.
	Limit int
}

const adminChunk = 1000 // messages in one transaction or page

// Queues describes the named queues, or all, by name. Names that do not exist are left out. Queues
// counts every row of a queue, and reads archived messages from an index alone. See Depths for
// bounded counts.
func (s *Store) Queues(ctx context.Context, names ...string) ([]QueueInfo, error) {
	if err := s.usable(); err != nil {
		return nil, wrap(ctx, err, "list queues")
	}
	var list []QueueInfo
	err := s.eachQueue(ctx, s.dialect.queue.stats, names, func(rows *sql.Rows) error {
		var q QueueInfo
		var created, paused timestamp
		var oldest int64
		var policy []byte
		bad, err := scanRowLoosely(rows, "id name created_at paused_at ready scheduled leased archived dead oldest policy blocked",
			&q.ID, &q.Name, &created, &paused, &q.Ready, &q.Scheduled, &q.Leased, &q.Archived, &q.Dead, &oldest, &policy, &q.Blocked)
		q.CreatedAt, q.PausedAt, q.OldestReady = created.Time, paused.Time, durationOf(oldest)
		q.Policy, q.Malformed = listedPolicy(policy, cutNames(bad, "name", &q.Name))
		list = append(list, q)
		return err
	})
	if err != nil {
		return nil, wrap(ctx, err, "list queues")
	}
	return list, nil
}

// eachQueue runs a query that takes the names of queues. No names mean all queues.
func (s *Store) eachQueue(ctx context.Context, text string, names []string, scan func(*sql.Rows) error) error {
	list, err := listNames("queue name", names)
	if err != nil {
		return err
	}
	return s.conn().rows(ctx, text, []any{list}, scan)
}

// listNames returns the argument of statements that take names: a list, or nil for no names.
func listNames(what string, names []string) (any, error) {
	for _, name := range names {
		if err := checkFindable(what, name); err != nil {
			return nil, err
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	return jsonTexts(names)
}

// PauseQueue stops deliveries from a queue, in all processes, until ResumeQueue. Leased messages
// stay leased, and messages can still be enqueued. It returns an error matching ErrNotFound if
// there is no such queue.
func (s *Store) PauseQueue(ctx context.Context, name string) error {
	return wrap(ctx, s.pauseQueue(ctx, name, true), "pause queue %q", name)
}

// ResumeQueue ends the pause that PauseQueue began.
func (s *Store) ResumeQueue(ctx context.Context, name string) error {
	return wrap(ctx, s.pauseQueue(ctx, name, false), "resume queue %q", name)
}

func (s *Store) pauseQueue(ctx context.Context, name string, paused bool) error {
	if err := s.usable(); err != nil {
		return err
	}
	if err := checkFindable("queue name", name); err != nil {
		return err
	}
	var ids []int64
	err := s.single(ctx, func(c conn) (err error) {
		ids, err = c.ids(ctx, s.dialect.queue.pause, name, paused)
		return err
	})
	if err == nil && len(ids) == 0 {
		err = ErrNotFound
	}
	if err == nil && !paused {
		err = s.wake(ctx, name)
	}
	return err
}

// DropQueue deletes an empty queue and the rows of its workers. It returns an error matching
// ErrNotFound if there is no such queue. It returns an error matching ErrState if the queue still
// has messages in any state or live workers. Purge the messages and stop the workers first. A
// concurrent enqueue either keeps the queue from being dropped or makes the queue again.
//
// On PostgreSQL DropQueue locks the table of messages for a moment. While another transaction that
// has enqueued is open, DropQueue tries again for up to 15 s, or until ctx ends. Then it returns an
// error matching ErrState. In a caller's transaction it tries once, for 250 ms.
func (s *Store) DropQueue(ctx context.Context, name string) error {
	err := s.usable()
	if err == nil {
		err = checkFindable("queue name", name)
	}
	if err == nil {
		err = s.dropQueue(ctx, name)
	}
	return wrap(ctx, err, "drop queue %q", name)
}

const (
	dropTime = 15 * time.Second // in which DropQueue tries to lock
	dropWait = 500 * time.Millisecond
)

// dropQueue drops a queue. If other transactions keep it from locking messages, it lets enqueuers
// continue and tries again.
func (s *Store) dropQueue(ctx context.Context, name string) error {
	start := time.Now()
	for {
		err := s.exclusive(ctx, func(c conn) error { return c.dropQueue(ctx, name) })
		if !sqlerr.Locked(err) {
			return err
		}
		if s.tx != nil || time.Since(start) >= dropTime || !pause(ctx, dropWait) {
			return fmt.Errorf("%w: a transaction that has enqueued messages is still open: %w", ErrState, err)
		}
	}
}

func (c conn) dropQueue(ctx context.Context, name string) error {
	texts := c.store.dialect.queue
	for _, text := range texts.freeze {
		if _, err := c.exec(ctx, text); err != nil {
			return err
		}
	}
	var id, messages, workers int64
	found := false
	err := c.rows(ctx, texts.inUse, []any{name, heartbeatTimeout.Microseconds()}, func(rows *sql.Rows) error {
		found = true
		return rows.Scan(&id, &messages, &workers)
	})
	switch {
	case err != nil:
		return err
	case !found:
		return ErrNotFound
	case workers > 0:
		return fmt.Errorf("%w: %d live workers; stop them first", ErrState, workers)
	case messages > 0:
		return fmt.Errorf("%w: it has messages; Purge them first", ErrState)
	}
	for _, text := range texts.drop {
		if _, err := c.exec(ctx, text, id); err != nil {
			return err
		}
	}
	return nil
}

// Messages lists messages. Ready, scheduled and leased messages are sorted by the time at which
// they are due or their lease ends, whatever their priority. Archived and dead messages are sorted
// by the time at which they ended, the latest first. Pages follow a cursor. A message that moves
// between two calls may be missed or listed twice. A message that stays is listed once.
//
// Payloads and errors are cut to [ListedBytes], which [MessageInfo].Cut reports. [Store.Message]
// returns a whole message.
func (s *Store) Messages(ctx context.Context, f MessageFilter) ([]MessageInfo, error) {
	ms, err := s.messages(ctx, f)
	if err != nil {
		return nil, wrap(ctx, err, "list messages")
	}
	return ms, nil
}

func (s *Store) messages(ctx context.Context, f MessageFilter) ([]MessageInfo, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if f.Key != "" {
		var err error
		if f, err = s.keyed(ctx, f); err != nil || len(f.IDs) == 0 {
			return nil, err
		}
	}
	text, args, err := s.listing(f, true)
	if err != nil {
		return nil, err
	}
	var ms []MessageInfo
	err = s.eachInfo(ctx, text, args, len(f.IDs) == 0, func(m *MessageInfo) { ms = append(ms, *m) })
	return ms, err
}

// eachInfo runs a query that returns messages, of a page with their cursors, and calls fn with each
// of them.
func (s *Store) eachInfo(ctx context.Context, text string, args []any, paged bool, fn func(*MessageInfo)) error {
	return s.conn().rows(ctx, text, args, func(rows *sql.Rows) error {
		m, err := scanInfo(rows, paged)
		if err == nil {
			fn(m)
		}
		return err
	})
}

// Message returns a message with its whole payload, whatever its queue and state. It returns an
// error matching ErrNotFound if there is no message of that id.
func (s *Store) Message(ctx context.Context, id int64) (MessageInfo, error) {
	m, err := s.message(ctx, id)
	return m, wrap(ctx, err, "look at message %d", id)
}

func (s *Store) message(ctx context.Context, id int64) (m MessageInfo, err error) {
	if err := s.usable(); err != nil {
		return m, err
	}
	err = s.eachInfo(ctx, s.dialect.message.whole, []any{id}, false, func(found *MessageInfo) { m = *found })
	if err == nil && m.ID == 0 {
		err = ErrNotFound
	}
	return m, err
}

// Ahead lists the messages that a blocked message waits for, up to limit of 1 to 1000. They are the
// messages of its group that are not blocked, or the messages of its batch that have not ended. The
// leased messages come first, then the scheduled, the ready and the blocked. Ahead examines no more
// than 1000 messages. It reads the payloads of the returned messages only, cut as [Store.Messages]
// does. It returns nothing for a message that is not blocked.
func (s *Store) Ahead(ctx context.Context, id int64, limit int) ([]MessageInfo, error) {
	ms, err := s.ahead(ctx, id, limit)
	return ms, wrap(ctx, err, "list what message %d waits for", id)
}

func (s *Store) ahead(ctx context.Context, id int64, limit int) ([]MessageInfo, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if limit < 1 || limit > adminChunk {
		return nil, fmt.Errorf("limit %d is not between 1 and %d", limit, adminChunk)
	}
	ids, err := s.conn().ids(ctx, s.dialect.message.ahead, id, limit)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	ms, err := s.messages(ctx, MessageFilter{IDs: ids})
	slices.SortFunc(ms, func(a, b MessageInfo) int { return cmp.Compare(slices.Index(ids, a.ID), slices.Index(ids, b.ID)) })
	return ms, err
}

// keyed returns a filter for the id of the unfinished message of f's key. If there is no such
// message, the filter has no id.
func (s *Store) keyed(ctx context.Context, f MessageFilter) (MessageFilter, error) {
	if f.Queue == "" || len(f.IDs) > 0 || f.State != "" || f.After != "" || f.Limit != 0 {
		return f, errors.New("MessageFilter with a Key has no Queue, or other fields")
	}
	if err := errors.Join(checkFindable("queue name", f.Queue), checkFindable("key", f.Key)); err != nil {
		return f, err
	}
	found, err := s.conn().pairs(ctx, s.dialect.message.keyed, f.Queue, []any{f.Key})
	f = MessageFilter{}
	for _, id := range found {
		f.IDs = append(f.IDs, id)
	}
	return f, err
}

// listing returns the statement for a filter.
func (s *Store) listing(f MessageFilter, payloads bool) (string, []any, error) {
	if len(f.IDs) > 0 {
		if f.Queue != "" || f.State != "" || f.After != "" || f.Limit != 0 {
			return "", nil, errors.New("MessageFilter has IDs and other fields")
		}
		return s.dialect.message.get, []any{idList(f.IDs)}, nil
	}
	text, ok := s.dialect.message.list[f.State]
	switch {
	case f.Queue == "":
		return "", nil, errors.New("MessageFilter.Queue is empty")
	case !ok:
		return "", nil, unknownState(f.State)
	case f.Limit < 0 || f.Limit > adminChunk:
		return "", nil, fmt.Errorf("MessageFilter.Limit %d is not between 0 and %d", f.Limit, adminChunk)
	case f.Limit == 0:
		f.Limit = 100
	}
	if err := checkFindable("queue name", f.Queue); err != nil {
		return "", nil, err
	}
	var at any
	var id int64
	if f.After != "" {
		sorted, n, ok := parseCursor(f.After)
		if !ok {
			return "", nil, fmt.Errorf("MessageFilter.After %q is not a Cursor", f.After)
		}
		at, id = sorted, n
	}
	return text, []any{f.Queue, at, id, payloads, f.Limit}, nil
}

// cursorOf returns the cursor of a message in a listing that is sorted by a time. The column of a
// malformed row may hold anything, which cursorOf encodes.
func cursorOf(sorted string, id int64) string {
	if !isCursorTime(sorted) {
		sorted = encodedCursor + base64.RawURLEncoding.EncodeToString([]byte(sorted))
	}
	return fmt.Sprintf("%s/%d", sorted, id)
}

const encodedCursor = "~" // the beginning of an encoded time

// parseCursor is the reverse of cursorOf.
func parseCursor(cursor string) (sorted string, id int64, ok bool) {
	sorted, number, ok := strings.Cut(cursor, "/")
	id, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil {
		return "", 0, false
	}
	if encoded, found := strings.CutPrefix(sorted, encodedCursor); found {
		raw, err := base64.RawURLEncoding.DecodeString(encoded)
		return string(raw), id, err == nil
	}
	return sorted, id, isCursorTime(sorted)
}

func isCursorTime(text string) bool {
	_, err := time.Parse("2006-01-02 15:04:05", strings.TrimSuffix(text, "Z"))
	return err == nil
}

func unknownState(state MessageState) error {
	return fmt.Errorf("state %q; use Ready, Scheduled, Blocked, Leased, Archived or Dead", string(state))
}

// Delete deletes messages in whatever state, with the runs that belong to them, and returns how
// many there were. A worker that holds one finds its lease lost. A parent that waits for a deleted
// run continues, with an error matching ErrNotFound for that child. No ids delete nothing.
func (s *Store) Delete(ctx context.Context, ids ...int64) (int64, error) {
	err := s.usable()
	var n int64
	for chunk := range slices.Chunk(ids, adminChunk) {
		if err == nil {
			var more int64
			more, err = s.remove(ctx, chunk, "", nil)
			n += more
		}
	}
	return n, wrap(ctx, err, "delete messages")
}

// Purge deletes all messages of a queue that are in a state, a thousand a transaction, and returns
// how many. Messages that become unblocked because of it are kept. Archived and dead messages are
// kept while their outcome has yet to be read. These are the messages of runs whose parent has not
// ended, and the messages of a batch that another message waits for (see [Then]). See Delete.
func (s *Store) Purge(ctx context.Context, queue string, state MessageState) (int64, error) {
	var n int64
	next := dependents{}
	err := s.eachPage(ctx, queue, state, func(ids []int64) error {
		more, err := s.remove(ctx, ids, state, next)
		n += more
		return err
	})
	if len(next) > 0 && (err == nil || s.tx == nil) {
		err = errors.Join(err, s.advanceAll(ctx, next)) // the deletions stay
	}
	return n, wrap(ctx, err, "purge %s messages of queue %q", state, queue)
}

// advanceAll unblocks dependents, even if ctx is done.
func (s *Store) advanceAll(ctx context.Context, f dependents) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
	defer cancel()
	return s.atomic(ctx, func(c conn) error { return c.unblock(ctx, f) })
}

// eachPage calls fn with the ids of messages in a state, a page at a time.
func (s *Store) eachPage(ctx context.Context, queue string, state MessageState, fn func([]int64) error) error {
	f := MessageFilter{Queue: queue, State: state, Limit: adminChunk}
	if err := s.usable(); err != nil {
		return err
	}
	for {
		text, args, err := s.listing(f, false)
		if err != nil {
			return err
		}
		var ids []int64
		var last string
		err = s.eachInfo(ctx, text, args, true, func(m *MessageInfo) { ids, last = append(ids, m.ID), m.Cursor })
		if err != nil || len(ids) == 0 {
			return err
		}
		if err := fn(ids); err != nil {
			return err
		}
		if last == f.After {
			return nil // the time of a malformed row, which cannot be a position
		}
		f.After = last
	}
}

// remove deletes the messages that are in a state, or all for "". It unblocks their dependents, or
// adds them to later if that is not nil.
func (s *Store) remove(ctx context.Context, ids []int64, state MessageState, later dependents) (n int64, err error) {
	err = s.atomic(ctx, func(c conn) error {
		n = 0
		there, err := c.ids(ctx, s.dialect.message.lock, idList(ids), string(state))
		if err != nil || len(there) == 0 {
			return err
		}
		locked := idList(there)
		var next dependents
		var parents []int64
		if state != Archived && state != Dead { // they block no dependents
			if next, parents, err = c.dependentsByID(ctx, locked); err != nil {
				return err
			}
		}
		for _, text := range s.dialect.message.remove {
			if n, err = c.exec(ctx, text, locked); err != nil {
				return err
			}
		}
		if err := c.wakeRuns(ctx, parents); err != nil { // which may have waited for these alone
			return err
		}
		if later == nil {
			return c.unblock(ctx, next)
		}
		maps.Copy(later, next)
		return nil
	})
	return n, err
}

// DepthLimit is the largest number that Depths counts to.
const DepthLimit = 100_000

const depthLimit = "100000" // as it stands in the statements

// QueueDepth counts the messages of a queue. A count of DepthLimit means as many or more.
type QueueDepth struct {
	Name     string    `json:"name"`
	PausedAt time.Time `json:"paused_at,omitzero"` // zero unless paused

	// Ready, Scheduled, Leased and Dead are the numbers of messages by state. Scheduled and leased
	// messages are counted together. If together they reach DepthLimit, Scheduled is DepthLimit.
	Ready     int64 `json:"ready"`
	Scheduled int64 `json:"scheduled"`
	Leased    int64 `json:"leased"`
	Dead      int64 `json:"dead"`
	// Blocked counts the messages that wait for others of their group or batch.
	Blocked int64 `json:"blocked"`
	// ArchivedLastMinute and DiedLastMinute are the messages that were archived or died in the last
	// minute and have not been deleted or redriven since.
	ArchivedLastMinute int64 `json:"archived_last_minute"`
	DiedLastMinute     int64 `json:"died_last_minute"`
	// OldestReady is how long the oldest ready message has been ready, and zero if none is ready.
	// In JSON it is "oldest_ready_seconds".
	OldestReady time.Duration `json:"-"`
	// Policy is the policy that the code of the queue's handler has written.
	Policy PolicyInfo `json:"policy,omitzero"`
	// Workers is the number of live workers of the queue, without suspended ones. A worker of
	// Dequeue is live for half a minute after a call.
	Workers int64 `json:"workers"`
	// Malformed names the columns of the row that do not decode, with the reasons (see
	// [MessageInfo]). Their fields are zero.
	Malformed string `json:"malformed,omitempty"`
}

// Depths describes the named queues, or all, by name. Names that do not exist are left out. Unlike
// Queues it counts no archived message older than a minute, and of each kind no more than
// DepthLimit. So it can be called every few seconds for queues of any size.
func (s *Store) Depths(ctx context.Context, names ...string) ([]QueueDepth, error) {
	list, err := s.depths(ctx, names)
	return list, wrap(ctx, err, "look at queues")
}

func (s *Store) depths(ctx context.Context, names []string) ([]QueueDepth, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	var list []QueueDepth
	err := s.eachQueue(ctx, s.dialect.queue.depth, names, func(rows *sql.Rows) error {
		var q QueueDepth
		var paused timestamp
		var waiting, oldest int64
		var policy []byte
		bad, err := scanRowLoosely(rows, "name paused_at ready waiting leased dead archived died oldest policy blocked workers",
			&q.Name, &paused, &q.Ready, &waiting, &q.Leased, &q.Dead, &q.ArchivedLastMinute, &q.DiedLastMinute, &oldest, &policy, &q.Blocked, &q.Workers)
		q.Policy, q.Malformed = listedPolicy(policy, cutNames(bad, "name", &q.Name))
		q.PausedAt, q.OldestReady = paused.Time, durationOf(oldest)
		q.Leased = min(q.Leased, DepthLimit)
		q.Scheduled = waiting
		if waiting < DepthLimit {
			q.Scheduled = max(0, waiting-q.Leased)
		}
		list = append(list, q)
		return err
	})
	return list, err
}

// Redrive makes dead or archived messages ready again, with all attempts available again, and
// returns how many. A message whose key has been taken since is not redriven, and is named in an
// error matching ErrDuplicate. Redrive ignores ids of messages that are neither dead nor archived.
// No ids redrive nothing.
func (s *Store) Redrive(ctx context.Context, ids ...int64) (int64, error) {
	err := s.usable()
	var done, taken []int64
	for chunk := range slices.Chunk(ids, adminChunk) {
		if err == nil {
			var more, left []int64
			more, left, err = s.redrive(ctx, chunk)
			done, taken = append(done, more...), append(taken, left...)
		}
	}
	if err == nil {
		err = keyTakenError(taken)
	}
	return int64(len(done)), wrap(ctx, err, "redrive messages")
}

// RedriveAll redrives all dead letters of a queue. See Redrive.
func (s *Store) RedriveAll(ctx context.Context, queue string) (int64, error) {
	var n int64
	var taken []int64
	err := s.eachPage(ctx, queue, Dead, func(ids []int64) error {
		done, left, err := s.redrive(ctx, ids)
		n += int64(len(done))
		taken = append(taken, left...)
		return err
	})
	if err == nil {
		err = keyTakenError(taken)
	}
	return n, wrap(ctx, err, "redrive the dead letters of queue %q", queue)
}

func keyTakenError(ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	return fmt.Errorf("%w: left as they are: messages %v", ErrDuplicate, ids)
}

// redriving calls fn, which redrives. It calls fn again if a transaction that fn did not see took a
// key meanwhile. A caller's transaction cannot go on after that.
func (s *Store) redriving(fn func() error) error {
	for try := 1; ; try++ {
		err := fn()
		switch {
		case !sqlerr.Duplicate(err):
			return err
		case s.tx != nil || try == maxEnqueueTries:
			return fmt.Errorf("%w (%w)", ErrDuplicate, err)
		}
	}
}

// redrive returns the messages that it redrove, and the messages that it did not redrive because of
// their keys.
func (s *Store) redrive(ctx context.Context, ids []int64) (done, taken []int64, err error) {
	err = s.redriving(func() error {
		return s.single(ctx, func(c conn) (err error) {
			done, err = c.ids(ctx, s.dialect.message.redrive, idList(ids))
			return err
		})
	})
	if err != nil || len(done) == len(ids) {
		return done, nil, err
	}
	left, err := s.messages(ctx, MessageFilter{IDs: ids})
	if err != nil {
		return done, nil, err
	}
	more, err := s.redriveGrouped(ctx, left)
	done = append(done, more...)
	for _, m := range left {
		if (m.State == Dead || m.State == Archived) && !slices.Contains(done, m.ID) {
			taken = append(taken, m.ID)
		}
	}
	return done, taken, err
}

// redriveGrouped is redrive for the messages that are in groups.
func (s *Store) redriveGrouped(ctx context.Context, ms []MessageInfo) (done []int64, err error) {
	names := map[groupID]bool{}
	var ids []int64
	for _, m := range ms {
		if m.Group != "" && (m.State == Dead || m.State == Archived) {
			names[groupID{m.Queue, m.Group}] = true
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	groups := groupNames(names)
	err = s.redriving(func() error {
		return s.atomic(ctx, func(c conn) error {
			p, _, err := c.lockGroups(ctx, groups) // before the statements below, as an enqueue does
			if err != nil {
				return err
			}
			if done, err = c.ids(ctx, s.dialect.group.redrive, idList(ids)); err != nil {
				return err
			}
			return c.promote(ctx, groups, p)
		})
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// WorkerInfo is the row of a worker.
type WorkerInfo struct {
	ID          int64       `json:"id"` // a random number, which is never used again
	Name        string      `json:"name"`
	Queue       string      `json:"queue,omitempty"` // empty for the administrators of pgqrs 0.15
	State       WorkerState `json:"state"`
	StartedAt   time.Time   `json:"started_at,omitzero"`
	HeartbeatAt time.Time   `json:"heartbeat_at,omitzero"`
	ShutdownAt  time.Time   `json:"shutdown_at,omitzero"` // zero unless stopped
	Leased      int64       `json:"leased"`               // messages leased to it
	// Malformed names the columns of the row that do not decode, with the reasons (see
	// [MessageInfo]). Their fields are zero.
	Malformed string `json:"malformed,omitempty"`
}

// Workers lists the rows of all workers, in the order in which they started.
func (s *Store) Workers(ctx context.Context) ([]WorkerInfo, error) {
	if err := s.usable(); err != nil {
		return nil, wrap(ctx, err, "list workers")
	}
	var list []WorkerInfo
	err := s.conn().rows(ctx, s.dialect.worker.list, nil, func(rows *sql.Rows) error {
		var w WorkerInfo
		var queue sql.NullString
		var started, beat, shut timestamp
		var err error
		w.Malformed, err = scanLoosely(rows, "id name queue status started_at heartbeat_at shutdown_at held",
			&w.ID, &w.Name, &queue, &w.State, &started, &beat, &shut, &w.Leased)
		w.Malformed = cutNames(w.Malformed, "name queue", &w.Name, &queue.String)
		w.Queue, w.StartedAt, w.HeartbeatAt, w.ShutdownAt = queue.String, started.Time, beat.Time, shut.Time
		list = append(list, w)
		return err
	})
	if err != nil {
		return nil, wrap(ctx, err, "list workers")
	}
	return list, nil
}

// A WorkerState is the state of a worker. Its values are the words of the tables.
type WorkerState string

const (
	// WorkerReady rows take messages by Dequeue, or belong to a Worker that continues after
	// ResumeWorker.
	WorkerReady WorkerState = "ready"
	// WorkerPolling rows belong to a Worker that claims messages.
	WorkerPolling WorkerState = "polling"
	// WorkerSuspended rows claim nothing until ResumeWorker.
	WorkerSuspended WorkerState = "suspended"
	// WorkerInterrupted rows were asked to suspend themselves, and claim nothing.
	WorkerInterrupted WorkerState = "interrupted"
	// WorkerStopped rows belong to workers that have ended, or are to end.
	WorkerStopped WorkerState = "stopped"
)

// workerMoves are the states from which each state may be reached, as in pgqrs 0.15. The exception
// is stopped, which pgqrs 0.15 reaches from suspended alone.
var workerMoves = map[WorkerState][]WorkerState{
	WorkerSuspended:   {WorkerReady, WorkerPolling, WorkerInterrupted},
	WorkerReady:       {WorkerSuspended},
	WorkerPolling:     {WorkerReady, WorkerSuspended},
	WorkerInterrupted: {WorkerPolling},
	WorkerStopped:     {WorkerReady, WorkerPolling, WorkerSuspended, WorkerInterrupted},
}

// SuspendWorker makes a worker claim no more until ResumeWorker. The id is the ID of a WorkerInfo
// (see [Store.Workers]). A row is one worker on one queue, so a Worker of three queues has three
// rows.
//
// The database refuses the row's claims from now on. A running Worker notices the suspension with
// its next heartbeat, at most about 2 s later. It then releases the messages of the queue that it
// has not begun, which counts no attempt, and finishes the others. It keeps running.
//
// SuspendWorker returns an error matching ErrNotFound if there is no such row, and ErrState if the
// worker is already suspended or stopped.
func (s *Store) SuspendWorker(ctx context.Context, id int64) error {
	_, err := s.changeWorker(ctx, id, WorkerSuspended)
	return wrap(ctx, err, "suspend worker %d", id)
}

// ResumeWorker ends the suspension that SuspendWorker began. It returns errors as SuspendWorker
// does.
func (s *Store) ResumeWorker(ctx context.Context, id int64) error {
	_, err := s.changeWorker(ctx, id, WorkerReady)
	return wrap(ctx, err, "resume worker %d", id)
}

// InterruptWorker asks a running Worker (in state WorkerPolling) to suspend itself. Its claims stop
// at once, and the Worker suspends itself with its next heartbeat. It returns errors as
// SuspendWorker does.
func (s *Store) InterruptWorker(ctx context.Context, id int64) error {
	_, err := s.changeWorker(ctx, id, WorkerInterrupted)
	return wrap(ctx, err, "interrupt worker %d", id)
}

// StopWorker stops a worker's work on the queue of its row for good. The worker claims no more from
// the queue, releases the messages that it has not begun, which counts no attempt, and finishes the
// others. A Worker whose rows were all stopped returns from Run.
// StopWorker returns errors as SuspendWorker does.
func (s *Store) StopWorker(ctx context.Context, id int64) error {
	_, err := s.changeWorker(ctx, id, WorkerStopped)
	return wrap(ctx, err, "stop worker %d", id)
}

// setRow stores the row of a queue runner.
func (q *queueRunner) setRow(row registration) {
	q.worker.Store(row.id)
	q.incarnation.Store(row.incarnation)
}

// row returns the row of a queue runner.
func (q *queueRunner) row() registration { return registration{q.worker.Load(), q.incarnation.Load()} }

// rowTaken is the state of a queue runner whose row another worker has taken over. It claims
// nothing until it has a row again.
const rowTaken = "taken over"

// readRow reads a heartbeat's answer about a queue runner's row, and returns the word for its
// status. It makes a new row if the row is gone, or was given up for dead while this process was
// delayed. If another worker has taken the row over, it makes a new one as soon as the name is
// free.
func (r *runner) readRow(ctx context.Context, q *queueRunner, states map[int64]workerState) (word WorkerState, limited bool, err error) {
	row := q.row()
	state, there := states[row.id]
	anothers := row.id == 0 || there && !state.isOf(row)
	if there && !anothers && state.status != "silent" {
		if word, err = r.applyWorkerRow(ctx, row.id, state.status); err == nil && q.policyUnwritten {
			err = r.rewritePolicy(ctx, q)
		}
		return word, state.limited || q.policyUnwritten, err
	}
	// The queue's row may be a new one, too.
	q.policyUnwritten = q.policyUnwritten || row.id != 0 && !there
	err = r.reregister(ctx, q)
	if errors.Is(err, ErrState) { // its name is in use
		if row.id != 0 {
			r.log.Warn("pgqrs: another worker of the same name has taken over the worker's row; claiming nothing until the name is free", "queue", q.queue, "id", row.id)
		}
		q.setRow(registration{})
		return rowTaken, q.limited.Load(), nil
	}
	return WorkerPolling, q.limited.Load(), err
}

// applyWorkerRow applies a row's status, and returns the status after that.
func (r *runner) applyWorkerRow(ctx context.Context, id int64, status WorkerState) (WorkerState, error) {
	// An interrupted worker suspends itself, and a resumed one polls again.
	next := map[WorkerState]WorkerState{WorkerInterrupted: WorkerSuspended, WorkerReady: WorkerPolling}[status]
	if next == "" {
		return status, nil
	}
	_, err := r.store.moveWorker(ctx, id, next)
	return next, err
}

func (r *runner) reregister(ctx context.Context, q *queueRunner) error {
	row, limited, err := r.store.register(ctx, q.queue, r.rowName(q), WorkerPolling)
	if err != nil {
		return err
	}
	q.setRow(row)
	q.limited.Store(limited || q.policyUnwritten && q.policy.limited())
	r.log.Warn("pgqrs: worker row was given up, deleted or another's; made it anew", "queue", q.queue, "id", row.id)
	if q.policyUnwritten {
		return r.rewritePolicy(ctx, q)
	}
	return nil
}

// rewritePolicy writes a queue's policy again. It may have gone with the worker's row, if the
// tables were made again or restored.
func (r *runner) rewritePolicy(ctx context.Context, q *queueRunner) error {
	err := r.store.configure(ctx, []policyRow{q.policy.row(q.queue)})
	q.policyUnwritten = err != nil
	return err
}

// changeWorker is moveWorker, and returns an error with the reason if the status did not change.
func (s *Store) changeWorker(ctx context.Context, id int64, status WorkerState) (bool, error) {
	if err := s.usable(); err != nil {
		return false, err
	}
	moved, err := s.moveWorker(ctx, id, status)
	if err != nil || moved {
		return moved, err
	}
	word, found := "", false
	err = s.conn().rows(ctx, s.dialect.worker.status, []any{id}, func(rows *sql.Rows) error {
		found = true
		return rows.Scan(&word)
	})
	switch {
	case err != nil:
		return false, err
	case !found:
		return false, ErrNotFound
	}
	return false, fmt.Errorf("%w: it is %s, and would have to be %s", ErrState, word, oneOf(workerMoves[status]))
}

// oneOf lists states for an error.
func oneOf(states []WorkerState) string {
	words := make([]string, len(states))
	for i, state := range states {
		words[i] = string(state)
	}
	return strings.Join(words, " or ")
}

// moveWorker changes a worker's status if the present one allows that.
func (s *Store) moveWorker(ctx context.Context, id int64, status WorkerState) (bool, error) {
	from, err := jsonList(workerMoves[status])
	if err != nil {
		return false, err
	}
	var ids []int64
	err = s.single(ctx, func(c conn) (err error) {
		ids, err = c.ids(ctx, s.dialect.worker.move, id, string(status), from)
		return err
	})
	return len(ids) > 0, err
}

// ListedBytes is the size in bytes up to which a listing returns a text that an application has
// written:
//   - the payload of a message or schedule
//   - the input or output of a run
//   - the output of a step
//   - every error, warning and rule
//
// A longer text is cut, and Cut of the row reports that.
//
// Headers are complete, or missing if they have more than 128 KiB. A name or a key of more than 1
// KiB is cut, and Malformed reports that. Only foreign SQL writes such headers, names and keys. So
// a page of 1000 messages holds at most some 160 MiB, whatever is stored.
//
// Complete rows come from [Store.Message], [RunHandle.Info], [RunHandle.Step] and, by name,
// [Store.Schedules].
const ListedBytes = 16 << 10

// cutText returns the beginning of a text that has more than ListedBytes, and whether it is cut.
func cutText(text []byte) ([]byte, bool) {
	if len(text) <= ListedBytes {
		return text, false
	}
	return cutSized(text, int64(len(text)))
}

// cutSized is cutText for a text of which the database returned the beginning and the size.
func cutSized(text []byte, size int64) ([]byte, bool) {
	text = text[:min(len(text), ListedBytes)]
	if int64(len(text)) >= size {
		return text, false
	}
	return wholeCharacters(text), true
}

// maxListedName is the size in bytes up to which a listing returns a name or a key.
const maxListedName = 1 << 10

// cutNames cuts names and keys of a listed row to maxListedName. The columns have the given names,
// separated by spaces. It returns malformed with the errors that it finds.
func cutNames(malformed, names string, texts ...*string) string {
	for i, name := range strings.Fields(names)[:len(texts)] {
		text := texts[i]
		if len(*text) <= maxListedName {
			continue
		}
		*text = string(wholeCharacters([]byte((*text)[:maxListedName])))
		malformed = joinMalformed(malformed, name+": it is longer than any that a program of this library writes")
	}
	return malformed
}

// cutCursor returns the text of a time for a cursor. It cuts a text that is too long for a time.
// The next page begins after all texts that begin like it.
func cutCursor(sorted string, ascending bool) string {
	if len(sorted) <= maxListedName {
		return sorted
	}
	sorted = string(wholeCharacters([]byte(sorted[:maxListedName])))
	if ascending {
		sorted += string(unicode.MaxRune)
	}
	return sorted
}

// wholeCharacters returns a text without an incomplete last character.
func wholeCharacters(text []byte) []byte {
	for at := len(text) - 1; at >= max(0, len(text)-utf8.UTFMax); at-- {
		if !utf8.RuneStart(text[at]) {
			continue
		}
		if !utf8.FullRune(text[at:]) {
			return text[:at]
		}
		break
	}
	return text
}

// cut cuts a listed message by its size in the table.
func (m *MessageInfo) cut(size int64, headers bool) {
	var payload, failure bool
	var text []byte
	m.PayloadSize = size
	m.Raw, payload = cutSized(m.Raw, size)
	if text, failure = cutText([]byte(m.LastError)); failure {
		m.LastError = string(text)
	}
	m.Cut = payload || failure || headers
}

// cut cuts a listed run by its sizes in the table.
func (i *RunInfo) cut(input, output int64, recorded []byte, warning *string) {
	var in, out, failure, warned bool
	if text, cut := cutText([]byte(*warning)); cut {
		*warning, warned = string(text), true
	}
	i.InputSize, i.OutputSize = input, output
	i.Input, in = cutSized(i.Input, input)
	i.Output, out = cutSized(i.Output, output)
	i.Error, failure = listedErrorText(recorded)
	i.Cut = in || out || failure || warned
}

// listedErrorText returns the text of a recorded error that may be longer than a listing returns,
// and whether it is cut.
func listedErrorText(raw []byte) (string, bool) {
	raw, cut := cutText(raw)
	if !cut || len(raw) == 0 || raw[0] != '"' {
		return runErrorText(raw), cut
	}
	for n := len(raw); n > len(raw)-len(`\u0000\u0000`); n-- { // an escape may have been cut
		var text string
		if json.Unmarshal(append(raw[:n:n], '"'), &text) == nil {
			return text, true
		}
	}
	return string(raw), true
}

// listedJSON returns a column of JSON as a listing shows it, and an error text for it. A text that
// is not JSON is shown as a JSON string, so that encoding the listing does not fail.
func listedJSON(name string, raw []byte) (json.RawMessage, string) {
	if raw == nil || json.Valid(raw) {
		return raw, ""
	}
	quoted, err := json.Marshal(string(raw))
	if err != nil {
		panic(err) // a string marshals
	}
	return quoted, name + ": it is no JSON"
}

// listedWhole is listedJSON for a text of the given size, whose end a listing may have cut off.
func listedWhole(name string, raw []byte, size int64) (json.RawMessage, string) {
	if int64(len(raw)) < size {
		return raw, ""
	}
	return listedJSON(name, raw)
}
