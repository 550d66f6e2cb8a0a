package pgqrs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgqrs/pgqrs-go/internal/coalesce"
	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// maxEnqueueTries bounds how often an enqueue looks again that met neither its queue nor the owner
// of its key. Both may be made and deleted at the same time.
const maxEnqueueTries = 10

// An enqueueRow is a message that is being enqueued, as the statements take it.
type enqueueRow struct {
	payload  string
	delay    int64 // microseconds
	dueAt    any   // microseconds since 1970, or nil
	priority int
	key      any // string or nil
	headers  any // JSON as string or nil
	group    any // string or nil
	batch    any // id of the message that waits for it, 0 if it waits for others itself, or nil
	callback *batchCallback
	unique   bool
	// isFlat is whether the payload is an object or an array that is not nested deeper than
	// maxListDepth.
	isFlat bool
}

// maxListDepth is how deep a payload may be nested to be an element of a list. SQLite takes no JSON
// that is nested 1000 deep, list included, and Turso none from some hundreds on.
const maxListDepth = 100

// isPlain reports whether an item is nothing but a payload that is due at once and that json_each
// returns unchanged from a list.
func (it *enqueueRow) isPlain() bool {
	return it.isFlat && it.delay == 0 && it.dueAt == nil && it.priority == 0 && it.key == nil && it.headers == nil
}

// encodeRows encodes payloads with their options.
func (s *Store) encodeRows(ctx context.Context, payloads []any, opts []Option) ([]enqueueRow, error) {
	shared := &noOptions
	if len(opts) > 0 || s.cfg.Headers != nil {
		var err error
		if shared, err = s.options(ctx, opts); err != nil {
			return nil, err
		}
	}
	items := make([]enqueueRow, len(payloads))
	for i, payload := range payloads {
		own, err := shared, error(nil)
		if shared.forEach != nil {
			own, err = shared.forItem(i)
		}
		if err == nil {
			items[i], err = s.encodeRow(payload, own)
		}
		if err != nil {
			if len(payloads) > 1 || shared.forEach != nil {
				err = &operationError{fmt.Sprintf("item %d", i), err}
			}
			return nil, err
		}
	}
	return items, nil
}

// options returns the options of a call.
func (s *Store) options(ctx context.Context, opts []Option) (*options, error) {
	o := new(options)
	var err error
	if o.headers, err = s.configHeaders(ctx); err != nil {
		return nil, err
	}
	return o, o.apply(opts)
}

// configHeaders returns the headers of Config.Headers.
func (s *Store) configHeaders(ctx context.Context) (headers map[string]string, err error) {
	if s.cfg.Headers == nil {
		return nil, nil
	}
	if err := foreign.Catch(func() { headers = s.cfg.Headers(ctx) }); err != nil {
		return nil, fmt.Errorf("Config.Headers: %w", err)
	}
	if err := checkHeaders(headers); err != nil {
		return nil, fmt.Errorf("Config.Headers: %w", err)
	}
	return headers, nil
}

func (s *Store) encodeRow(payload any, o *options) (enqueueRow, error) {
	it := enqueueRow{delay: o.delay.Microseconds(), priority: o.priority, unique: o.unique, callback: o.callback}
	if o.at != nil {
		it.dueAt = max(0, o.at.UnixMicro())
	}
	if o.keyed {
		it.key = o.key
	}
	var depth int
	var err error
	if it.payload, depth, err = s.cfg.Limits.encodeNested(payload); err != nil {
		return it, err
	}
	it.isFlat = 1 <= depth && depth <= maxListDepth
	headers := o.headers
	if o.group != "" {
		it.group = o.group
		headers = withHeader(headers, groupHeader, o.group)
	}
	it.headers, err = encodeHeaders(headers)
	return it, err
}

// enqueue stores items and returns the ids of all. It makes the queue and looks up taken keys as
// needed, and sends the notifications.
func (s *Store) enqueue(ctx context.Context, queue string, items []enqueueRow) ([]int64, error) {
	if s.tx == nil && len(items) == 1 && items[0].shareable() {
		id, err := s.enqueueGroup(queue).Do(ctx, items[0])
		if err != nil {
			return nil, err
		}
		return []int64{id}, s.notifyStored(ctx, queue, []int64{id})
	}
	e, err := s.store(ctx, queue, items)
	if err != nil {
		return nil, err
	}
	if err := s.notifyStored(ctx, queue, e.stored); err != nil {
		return nil, err
	}
	return e.ids, e.duplicateError()
}

// maxShared is the payload in bytes up to which an enqueue shares a statement.
const maxShared = 16 << 10

// shareable reports whether an item may share a statement with the items of other calls. An item
// with a key may have to wait for another transaction that has the key, and an item of a group for
// one that has the group.
func (it enqueueRow) shareable() bool {
	return it.key == nil && !it.inGroup() && len(it.payload) <= maxShared
}

// inGroup reports whether an item is in a group or a batch.
func (it enqueueRow) inGroup() bool { return it.group != nil || it.batch != nil }

// enqueueGroup returns the coalescer that stores a queue's messages, one or several in a statement.
func (s *core) enqueueGroup(queue string) *coalesce.Group[enqueueRow, int64] {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.enqueuers[queue]
	if c == nil {
		pool := &Store{core: s}
		c = &coalesce.Group[enqueueRow, int64]{
			Admit:   pool.outsideTx,
			Refused: s.dialect.isRefused,
			Timeout: statementTimeout,
			Alone: func(ctx context.Context, it enqueueRow) (int64, error) {
				e, err := pool.store(ctx, queue, []enqueueRow{it})
				if err != nil {
					return 0, err
				}
				return e.ids[0], nil
			},
			Together: func(ctx context.Context, items []enqueueRow) ([]int64, error) {
				e, err := pool.store(ctx, queue, items)
				if err != nil {
					return nil, err
				}
				return e.ids, nil
			},
		}
		s.enqueuers[queue] = c
	}
	return c
}

// store is enqueue without notifications.
func (s *Store) store(ctx context.Context, queue string, items []enqueueRow) (*enqueueOp, error) {
	e := &enqueueOp{store: s, queue: queue, items: items, ids: make([]int64, len(items)), left: make([]int, len(items))}
	for i := range items {
		e.left[i] = i
	}
	for range maxEnqueueTries {
		for _, part := range []func(*enqueueOp, context.Context, conn) error{(*enqueueOp).insert, (*enqueueOp).resolveConflicts} {
			if err := e.commitPart(ctx, part); err != nil {
				return nil, err
			}
			if len(e.left) == 0 {
				return e, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: its row, or the key's first message, came and went %d times", ErrState, maxEnqueueTries)
}

// enqueueOp is an enqueue operation in progress.
type enqueueOp struct {
	store    *Store
	queue    string
	items    []enqueueRow
	ids      []int64 // of items, as they become known
	left     []int   // indexes of items without an id
	stored   []int64
	existing []int // indexes of items whose key was taken
}

// commitPart runs a part on a copy of the operation and keeps the copy if the part committed. After
// a conflict the part begins again from where it was. The copies share ids, in which the entries of
// items that are left mean nothing.
func (e *enqueueOp) commitPart(ctx context.Context, part func(*enqueueOp, context.Context, conn) error) error {
	var next enqueueOp
	run := e.store.single
	notifies := e.store.tx == nil && e.store.notifies(e.queue)
	if notifies || e.inGroup() {
		run = e.store.atomic
	}
	err := run(ctx, func(c conn) error {
		next = *e
		if err := part(&next, ctx, c); err != nil || !notifies || len(next.stored) == 0 {
			return err
		}
		return c.store.notify(ctx, e.queue)
	})
	if err != nil {
		return err
	}
	if e.store.tx == nil && !notifies && len(next.stored) > len(e.stored) {
		e.store.notifyLater(e.queue)
	}
	*e = next
	return nil
}

func (e *enqueueOp) inGroup() bool { return slices.ContainsFunc(e.items, enqueueRow.inGroup) }

// insert stores the items that are left and can be stored.
func (e *enqueueOp) insert(ctx context.Context, c conn) error {
	if e.inGroup() {
		return e.insertGrouped(ctx, c)
	}
	if len(e.items) == 1 {
		it := e.items[0]
		ids, err := c.ids(ctx, c.store.dialect.message.enqueue, e.queue, it.payload, it.delay, it.dueAt, it.priority, it.key, it.headers)
		if err == nil && len(ids) > 0 {
			e.ids, e.stored, e.left = ids, ids, nil
		}
		return err
	}
	if list, ok := e.encodePlainList(); ok {
		ids, err := c.ids(ctx, c.store.dialect.message.enqueueBatch, e.queue, list)
		if err == nil {
			e.assign(ids, nil)
		}
		return err
	}
	list, err := e.encodeList()
	if err != nil {
		return err
	}
	return e.insertList(ctx, c, c.store.dialect.message.enqueueMixed, list)
}

// insertList stores the items that are left by a statement that takes them as a list, and returns
// ids with keys.
func (e *enqueueOp) insertList(ctx context.Context, c conn, text, list string) error {
	plain := make([]int64, 0, len(e.left))
	var keyed map[any]int64
	var id int64
	var key sql.NullString
	row := []any{&id, &key}
	err := c.rows(ctx, text, []any{e.queue, list}, func(rows *sql.Rows) error {
		id, key = 0, sql.NullString{}
		if err := rows.Scan(row...); err != nil {
			return err
		}
		if !key.Valid {
			plain = append(plain, id)
			return nil
		}
		if keyed == nil {
			keyed = map[any]int64{}
		}
		keyed[key.String] = id
		return nil
	})
	if err != nil {
		return err
	}
	e.assign(plain, keyed)
	return nil
}

// maxPlainList is the size in bytes up to which a list is parsed as JSONB. A list of 256 MiB is too
// large for that, and a byte of JSON can be several bytes of JSONB.
const maxPlainList = 16 << 20

// encodePlainList returns the items that are left as a list of payloads. If they need more than
// their payloads, ok is false.
func (e *enqueueOp) encodePlainList() (list string, ok bool) {
	size := 1
	for _, n := range e.left {
		if it := &e.items[n]; !it.isPlain() {
			return "", false
		}
		size += len(e.items[n].payload) + 1
	}
	if size > maxPlainList {
		return "", false
	}
	var b strings.Builder
	b.Grow(size)
	b.WriteByte('[')
	for i, n := range e.left {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(e.items[n].payload)
	}
	b.WriteByte(']')
	return b.String(), true
}

// encodeList returns the items that are left as a list of payloads, each with its options.
func (e *enqueueOp) encodeList() (string, error) {
	list := make([][]any, len(e.left))
	for i, n := range e.left {
		it := &e.items[n]
		list[i] = []any{it.payload, it.delay, it.dueAt, it.priority, it.key, it.headers}
	}
	return jsonList(list)
}

// assign gives stored ids to their items, by key to items with a key and in order to the others.
func (e *enqueueOp) assign(plain []int64, keyed map[any]int64) {
	slices.Sort(plain) // RETURNING has no order
	var left []int
	e.stored = slices.Grow(slices.Clip(e.stored), len(plain)+len(keyed))
	for _, n := range e.left {
		var id int64
		if key := e.items[n].key; key != nil {
			id = keyed[key]
			delete(keyed, key)
		} else if len(plain) > 0 {
			id, plain = plain[0], plain[1:]
		}
		if id == 0 {
			left = append(left, n)
			continue
		}
		e.ids[n] = id
		e.stored = append(e.stored, id)
	}
	e.left = left
}

// resolveConflicts finds the first messages of taken keys, or else makes the queue.
func (e *enqueueOp) resolveConflicts(ctx context.Context, c conn) error {
	var keys []any
	for _, n := range e.left {
		if key := e.items[n].key; key != nil {
			keys = append(keys, key)
		}
	}
	if len(keys) > 0 {
		first, err := c.pairs(ctx, c.store.dialect.message.keyed, e.queue, keys)
		if err != nil {
			return err
		}
		if len(first) > 0 {
			e.useExisting(first)
			return nil
		}
	}
	_, err := c.exec(ctx, c.store.dialect.queue.make, e.queue)
	return err
}

// useExisting takes over the ids of the messages that had the keys first.
func (e *enqueueOp) useExisting(first map[any]int64) {
	var left []int
	e.existing = slices.Clip(e.existing)
	for _, n := range e.left {
		id, ok := first[e.items[n].key]
		if !ok {
			left = append(left, n)
			continue
		}
		e.ids[n] = id
		e.existing = append(e.existing, n)
	}
	e.left = left
}

// notifyStored calls the Observer and the wakers after messages were stored.
func (s *Store) notifyStored(ctx context.Context, queue string, stored []int64) error {
	if len(stored) == 0 {
		return nil
	}
	if err := s.wake(ctx, queue); err != nil {
		return err
	}
	if o := s.cfg.Observer; o != nil && o.Enqueued != nil {
		s.onCommit(func() { o.Enqueued(ctx, queue, stored) })
	}
	return nil
}

// duplicateError returns an error if a Unique item found its key taken.
func (e *enqueueOp) duplicateError() error {
	var duplicates []string
	for _, n := range e.existing {
		if e.items[n].unique {
			duplicates = append(duplicates, fmt.Sprintf("%q (item %d) is taken by message %d", e.items[n].key, n, e.ids[n]))
		}
	}
	if len(duplicates) > 0 {
		return fmt.Errorf("%w: %s", ErrDuplicate, strings.Join(duplicates, ", "))
	}
	return nil
}

// Then makes the messages of an EnqueueBatch a batch that another message waits for. The payload is
// enqueued on q together with the batch, as [Blocked]. It is unblocked, once only, when each
// message of the batch has been acked, deleted or has died. [MessageInfo].Batch has the counts. If
// a dead letter of the batch is redriven, the message waits for it again, unless the message itself
// has already gone.
//
// q may be another queue of the same Store. The options apply to the waiting message: Delay, At,
// Priority and Headers. A delay counts from now. A message whose Key is taken is not part of the
// batch. Then ignores a transaction of q and uses the transaction of the batch.
func Then[T any](q *Queue[T], payload T, opts ...Option) Option {
	return func(o *options) {
		if o.callback != nil {
			o.addError(errors.New("two Thens"))
		}
		o.callback = &batchCallback{queue: q.name, core: q.store.core, usable: q.usable, payload: payload, opts: opts}
	}
}

// A batchCallback is a message that waits for a batch.
type batchCallback struct {
	queue   string
	core    *core
	usable  func() error
	payload any
	opts    []Option
}

// batchHeader has the batch of a message, for its consumer. The other two have the counts of an
// ended batch. Users do not see them.
const (
	batchHeader     = "pgqrs-batch"
	batchDoneHeader = "pgqrs-batch-done"
	batchDeadHeader = "pgqrs-batch-dead"
)

// hiddenHeaders are the headers that users do not see.
var hiddenHeaders = []string{groupHeader, batchHeader, batchDoneHeader, batchDeadHeader}

// A BatchResult has the counts of the acked and the dead messages of a batch. Deleted messages are
// in neither count.
type BatchResult struct {
	Done int64 `json:"done"`
	Dead int64 `json:"dead"`
}

// row returns the batch callback as it is enqueued.
func (q *batchCallback) row(ctx context.Context, s *Store) (enqueueRow, error) {
	items, err := s.encodeRows(ctx, []any{q.payload}, append(slices.Clip(q.opts), noEach, noKeyOrGroup))
	if err != nil {
		return enqueueRow{}, &operationError{fmt.Sprintf("Then on queue %q", q.queue), err}
	}
	items[0].batch = 0 // it waits for a batch
	return items[0], s.cfg.Limits.admit(items, func(raw []byte) []byte { return raw })
}

// noKeyOrGroup is an option that refuses a key and a group, which a message that waits for a batch
// cannot have.
func noKeyOrGroup(o *options) {
	if o.keyed || o.group != "" || o.callback != nil {
		o.addError(errors.New("a message that waits for a batch has no Key, Unique, Group or Then"))
	}
}

// enqueueBatch stores items and their batch callback, and returns the ids of the items.
func (s *Store) enqueueBatch(ctx context.Context, queue string, items []enqueueRow, then *batchCallback) ([]int64, error) {
	if then.core != s.core {
		return nil, fmt.Errorf("%w: Then names a queue of another Store", ErrUnsupported)
	}
	if err := then.usable(); err != nil {
		return nil, err
	}
	last, err := then.row(ctx, s)
	if err != nil {
		return nil, err
	}
	var e *enqueueOp
	err = s.atomic(ctx, func(c conn) error {
		waiting, err := c.store.store(ctx, then.queue, []enqueueRow{last})
		if err != nil {
			return err
		}
		id := waiting.ids[0]
		members := slices.Clone(items)
		for i := range members {
			members[i].batch = id
			if members[i].headers, err = batchHeaders(members[i].headers, id); err != nil {
				return err
			}
		}
		if e, err = c.store.store(ctx, queue, members); err != nil {
			return err
		}
		if err := c.store.notifyStored(ctx, then.queue, waiting.ids); err != nil {
			return err
		}
		if len(e.stored) > 0 {
			return c.store.notifyStored(ctx, queue, e.stored)
		}
		return c.unblock(ctx, dependents{dependent{batch: id}: true}) // all keys were taken
	})
	if err != nil {
		return nil, err
	}
	return e.ids, e.duplicateError()
}

// batchHeaders adds the batch to headers as they are stored.
func batchHeaders(headers any, batch int64) (any, error) {
	more := map[string]string{}
	if text, ok := headers.(string); ok {
		if err := json.Unmarshal([]byte(text), &more); err != nil {
			return nil, err
		}
	}
	more[batchHeader] = fmt.Sprint(batch)
	return encodeHeaders(more)
}

// tryBatches unblocks the given messages that no longer wait for anything, except messages that
// another transaction has locked. It returns the messages that it locked.
func (c conn) tryBatches(ctx context.Context, ids []int64) (locked []int64, err error) {
	locked, err = c.ids(ctx, c.store.dialect.batch.tryLock, idList(ids))
	if err != nil || len(locked) == 0 {
		return nil, err
	}
	queues := map[string]bool{}
	err = c.rows(ctx, c.store.dialect.batch.finish, []any{idList(locked)}, func(rows *sql.Rows) error {
		var id int64
		var queue string
		_, err := scanLoosely(rows, "id queue", &id, &queue) // a malformed row may be in no queue
		queues[queue] = true
		return err
	})
	if err == nil {
		err = c.store.wakeAll(ctx, queues)
	}
	return locked, err
}
