package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// QueueInfo says what is in a queue.
type QueueInfo struct {
	ID        int64
	Name      string
	CreatedAt time.Time
	PausedAt  time.Time // zero unless paused

	// Messages by state.
	Ready, Scheduled, Leased, Archived, Dead int64
	// Blocked messages wait for others of their groups. They are counted up to DepthLimit.
	Blocked int64
	// OldestReady is how long the message that has waited longest has been ready.
	OldestReady time.Duration
	// Policy is what the code that handles the queue has written.
	Policy PolicyInfo
	// Malformed says which columns of the row do not decode, and why; see [MessageInfo]. Their fields are zero.
	Malformed string
}

// MessageFilter says which messages to list.
type MessageFilter struct {
	// IDs lists messages by id, in its order, whatever their queue and state.
	// If it is not empty, the other fields must be.
	IDs []int64
	// Key lists the unfinished message of that key in Queue, if there is one.
	// If it is not empty, the fields below Queue must be.
	Key string
	// Queue and State say which messages to list otherwise. Both are required.
	Queue string
	State State
	// After is the Cursor of the last message of the page before. Empty means the first page.
	After string
	// Limit is the size of a page. Zero means 100; the most is 1000.
	Limit int
}

const adminChunk = 1000 // messages in one transaction or page

// Queues describes the named queues, or all, by name. Names that do not exist are left out.
// It counts every row of a queue, the archived ones by an index alone; see Depths.
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
		q.Policy, q.Malformed = listedPolicy(policy, bad)
		list = append(list, q)
		return err
	})
	if err != nil {
		return nil, wrap(ctx, err, "list queues")
	}
	return list, nil
}

// eachQueue runs a query that takes the names of queues, none for all.
func (s *Store) eachQueue(ctx context.Context, text string, names []string, scan func(*sql.Rows) error) error {
	list, err := listNames("queue name", names)
	if err != nil {
		return err
	}
	return conn{s, s.tx}.rows(ctx, text, []any{list}, scan)
}

// listNames is the argument of statements that take names: a list, or nil for none.
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

// PauseQueue stops deliveries from a queue, in all processes, until
// ResumeQueue; what is leased stays so. Messages can be enqueued meanwhile. It
// returns an error matching ErrNotFound if there is no such queue.
func (s *Store) PauseQueue(ctx context.Context, name string) error {
	return wrap(ctx, s.pauseQueue(ctx, name, true), "pause queue %q", name)
}

// ResumeQueue takes back PauseQueue.
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

// DropQueue deletes an empty queue and the rows of its workers. It returns an
// error matching ErrNotFound if there is no such queue, and ErrState if it
// still has messages in any state (Purge them first) or live workers (stop
// them first). An enqueue that is under way either is seen or makes the queue anew.
func (s *Store) DropQueue(ctx context.Context, name string) error {
	err := s.usable()
	if err == nil {
		err = checkFindable("queue name", name)
	}
	if err == nil {
		err = s.alone(ctx, func(c conn) error { return c.dropQueue(ctx, name) })
	}
	return wrap(ctx, err, "drop queue %q", name)
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
	err := c.rows(ctx, texts.inUse, []any{name, silence.Microseconds()}, func(rows *sql.Rows) error {
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

// Messages lists messages. Ready, scheduled and leased ones come by when they
// are due or their lease ends, whatever their priority; archived and dead ones
// by when they ended, the latest first. Pages follow a cursor: what moves
// between two calls may be missed or seen twice, what stays is seen once.
//
// Payloads and errors are cut to [ListedBytes], and [MessageInfo].Cut says so. [Store.Message] returns a whole message.
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
	text, args, err := s.listing(f)
	if err != nil {
		return nil, err
	}
	var ms []MessageInfo
	err = s.eachInfo(ctx, text, args, len(f.IDs) == 0, func(m *MessageInfo) { ms = append(ms, *m) })
	return ms, err
}

// eachInfo runs a query that returns messages, of a page with their cursors, and calls fn with each.
func (s *Store) eachInfo(ctx context.Context, text string, args []any, paged bool, fn func(*MessageInfo)) error {
	return conn{s, s.tx}.rows(ctx, text, args, func(rows *sql.Rows) error {
		m, err := scanInfo(rows, paged)
		if err == nil {
			fn(m)
		}
		return err
	})
}

// Message returns a message with its whole payload, whatever its queue and state. It returns an
// error matching ErrNotFound if there is none of that id.
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

// Ahead lists what a blocked message waits for, up to limit of 1 to 1000: the messages of its group that are not
// blocked, or those of its batch that have not ended. The leased ones come first, then the
// scheduled, the ready and the blocked. It looks at no more than 1000, and reads the payloads
// of those alone that it returns, cut as [Store.Messages] does. A message that is not blocked waits for none.
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
	ids, err := conn{s, s.tx}.ids(ctx, s.dialect.message.ahead, id, limit)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	ms, err := s.messages(ctx, MessageFilter{IDs: ids})
	slices.SortFunc(ms, func(a, b MessageInfo) int { return cmp.Compare(slices.Index(ids, a.ID), slices.Index(ids, b.ID)) })
	return ms, err
}

// keyed returns a filter for the id of the unfinished message of f's key; without an id if there is none.
func (s *Store) keyed(ctx context.Context, f MessageFilter) (MessageFilter, error) {
	if f.Queue == "" || len(f.IDs) > 0 || f.State != "" || f.After != "" || f.Limit != 0 {
		return f, errors.New("MessageFilter with a Key has no Queue, or other fields")
	}
	if err := errors.Join(checkFindable("queue name", f.Queue), checkFindable("key", f.Key)); err != nil {
		return f, err
	}
	found, err := conn{s, s.tx}.pairs(ctx, s.dialect.message.keyed, f.Queue, []any{f.Key})
	f = MessageFilter{}
	for _, id := range found {
		f.IDs = append(f.IDs, id)
	}
	return f, err
}

// listing returns the statement that a filter asks for.
func (s *Store) listing(f MessageFilter) (string, []any, error) {
	if len(f.IDs) > 0 {
		if f.Queue != "" || f.State != "" || f.After != "" || f.Limit != 0 {
			return "", nil, errors.New("MessageFilter has IDs and other fields")
		}
		list, err := jsonList(f.IDs)
		return s.dialect.message.get, []any{list}, err
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
	return text, []any{f.Queue, at, id, f.Limit}, nil
}

// cursorOf is the cursor of a message in a listing that is sorted under a time. The column of a
// malformed row may hold anything, which is encoded.
func cursorOf(sorted string, id int64) string {
	if !isCursorTime(sorted) {
		sorted = encodedCursor + base64.RawURLEncoding.EncodeToString([]byte(sorted))
	}
	return fmt.Sprintf("%s/%d", sorted, id)
}

const encodedCursor = "~" // what an encoded time begins with

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

func unknownState(state State) error {
	return fmt.Errorf("state %q; use Ready, Scheduled, Blocked, Leased, Archived or Dead", string(state))
}

// Delete deletes messages in whatever state, with the runs that hang on them,
// and returns how many there were. A worker that holds one finds its lease
// lost. A parent that waits for a run goes on, with an error that matches ErrNotFound for
// it. No ids delete nothing.
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

// Purge deletes all messages of a queue that are in a state, a thousand a
// transaction, and returns how many. What that lets go stays. Archived and dead messages stay
// while somebody has yet to read what became of them: those of runs whose parent has not
// ended, and those of a batch that is waited for (see [Then]). See Delete.
func (s *Store) Purge(ctx context.Context, queue string, state State) (int64, error) {
	var n int64
	next := followers{}
	err := s.eachPage(ctx, queue, state, func(ids []int64) error {
		more, err := s.remove(ctx, ids, state, next)
		n += more
		return err
	})
	if len(next) > 0 && (err == nil || s.tx == nil) {
		err = errors.Join(err, s.advanceAll(ctx, next)) // what has been deleted stays so
	}
	return n, wrap(ctx, err, "purge %s messages of queue %q", state, queue)
}

// advanceAll lets go what may follow, even if ctx is done.
func (s *Store) advanceAll(ctx context.Context, f followers) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
	defer cancel()
	return s.atomic(ctx, func(c conn) error { return c.advance(ctx, f) })
}

// eachPage calls fn with the ids of messages in a state, a page at a time.
func (s *Store) eachPage(ctx context.Context, queue string, state State, fn func([]int64) error) error {
	f := MessageFilter{Queue: queue, State: state, Limit: adminChunk}
	if err := s.usable(); err != nil {
		return err
	}
	for {
		text, args, err := s.listing(f)
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
			return nil // that of a malformed row, which stands nowhere
		}
		f.After = last
	}
}

// remove deletes those of the messages that are in a state, or all for "", and lets go
// what follows them, or notes it in later if that is not nil.
func (s *Store) remove(ctx context.Context, ids []int64, state State, later followers) (n int64, err error) {
	list, err := jsonList(ids)
	if err != nil {
		return 0, err
	}
	err = s.atomic(ctx, func(c conn) error {
		n = 0
		there, err := c.ids(ctx, s.dialect.message.lock, list, string(state))
		if err != nil || len(there) == 0 {
			return err
		}
		locked, err := jsonList(there)
		if err != nil {
			return err
		}
		var next followers
		var parents []int64
		if state != Archived && state != Dead { // those hold up nobody
			if next, parents, err = c.followersHaving(ctx, locked); err != nil {
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
			return c.advance(ctx, next)
		}
		maps.Copy(later, next)
		return nil
	})
	return n, err
}
