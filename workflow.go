package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A RunState is the state of a run or of a step. Its values are the words of the tables.
type RunState string

const (
	// Queued runs have not begun.
	Queued RunState = "QUEUED"
	// Running runs have begun. They may be waiting for a retry, a sleep, a signal or a child.
	Running RunState = "RUNNING"
	// Paused runs continue after RunHandle.Resume.
	Paused RunState = "PAUSED"
	// Cancelling runs were asked to end, and may be cleaning up.
	Cancelling RunState = "CANCELLING"
	// Cancelled runs ended because they were asked to.
	Cancelled RunState = "CANCELLED"
	// Succeeded runs returned a result.
	Succeeded RunState = "SUCCESS"
	// Failed runs returned an error. RunHandle.Retry continues them.
	Failed RunState = "ERROR"
)

// final reports whether a run in that state has ended.
func (s RunState) final() bool { return s == Cancelled || s == Succeeded || s == Failed }

// known reports whether a state is one that a run can have.
func (s RunState) known() bool {
	return slices.Contains([]RunState{Queued, Running, Paused, Cancelling, Cancelled, Succeeded, Failed}, s)
}

// A Workflow is a durable function. Its runs survive crashes and restarts. Each step's result is
// recorded, and when the function runs again, a recorded step returns its result and is not called.
// A Workflow is a name and two types, so that a program can start runs whose code it does not have.
// Use json.RawMessage for types that the program does not know. Handle adds the code.
//
// A run is a message on the queue of the same name, with the payload {"input": In}, which no
// [Queue] of that name can settle. A message that is enqueued there without a run, as pgqrs 0.15
// does, starts a run when the workflow's handler claims it. The input is the message's payload, or
// the input in the payload. A Workflow is safe for concurrent use, and making one does no I/O.
type Workflow[In, Out any] struct {
	store  *Store
	name   string
	policy Policy
}

// NewWorkflow returns the workflow of that name. See [NewQueue] for names.
func NewWorkflow[In, Out any](s *Store, name string) *Workflow[In, Out] {
	return &Workflow[In, Out]{store: s, name: name}
}

// With returns a copy of the workflow with p in place of its whole policy. For a workflow,
// MaxAttempts counts executions that ended without an answer, as when their process was killed.
// Timeout bounds one execution. Retention also applies to the workflow's runs.
func (w *Workflow[In, Out]) With(p Policy) *Workflow[In, Out] {
	return &Workflow[In, Out]{store: w.store, name: w.name, policy: p}
}

// WithTx returns a copy of the workflow whose Start works in the caller's transaction (see
// [Store.WithTx]). Its handles are bound to the pool.
func (w *Workflow[In, Out]) WithTx(tx Tx) *Workflow[In, Out] {
	return &Workflow[In, Out]{store: w.store.WithTx(tx), name: w.name, policy: w.policy}
}

// queue is the queue of the workflow's messages.
func (w *Workflow[In, Out]) queue() *Queue[workflowPayload[In]] {
	return NewQueue[workflowPayload[In]](w.store, w.name).With(w.policy)
}

// workflowPayload is the payload of a run's message.
type workflowPayload[In any] struct {
	Input In `json:"input"`
}

// Start makes a run. The run is visible and can be cancelled before a worker claims it. Start takes
// the options of [Queue.Enqueue], except Each. A Key is taken for as long as the run is kept.
// Starting another run of the same key starts nothing and returns the first run. With Unique the
// error then matches ErrDuplicate.
//
// Start returns an error matching:
//   - ErrInvalidPayload if in cannot be stored.
//   - ErrRateLimited above a rate that Limits sets.
//   - ErrState if ctx belongs to a run outside a step, where each replay would start another run.
//     Use Child there.
func (w *Workflow[In, Out]) Start(ctx context.Context, in In, opts ...Option) (*RunHandle[Out], error) {
	items, err := w.items(ctx, []In{in}, append(slices.Clip(opts), noEach))
	if err == nil {
		err = w.store.rate.spend(time.Now(), 1)
	}
	if err != nil {
		return nil, wrap(ctx, err, "start workflow %q", w.name)
	}
	since := w.store.endedRuns()
	ids, err := w.store.startRuns(ctx, w.name, items, nil)
	if len(ids) == 0 {
		return nil, wrap(ctx, err, "start workflow %q", w.name)
	}
	h := w.RunHandle(ids[0])
	h.fresh, h.since = err == nil && w.store.tx == nil && items[0].key == nil, since
	return h, wrap(ctx, err, "start workflow %q", w.name)
}

// A parent is the step that starts runs.
type parent struct {
	run  int64
	step string
}

// items encodes inputs with their options.
func (w *Workflow[In, Out]) items(ctx context.Context, in []In, opts []Option) ([]enqueueRow, error) {
	q := w.queue()
	if err := q.usable(); err != nil {
		return nil, err
	}
	if err := outsideStep(ctx); err != nil {
		return nil, err
	}
	payloads := make([]any, len(in))
	for i, input := range in {
		payloads[i] = workflowPayload[In]{input}
	}
	items, err := w.store.encodeRows(ctx, payloads, opts)
	if err == nil && slices.ContainsFunc(items, func(it enqueueRow) bool { return it.callback != nil }) {
		err = fmt.Errorf("%w: Then is for messages, not for runs", ErrUnsupported)
	}
	if err == nil {
		err = w.store.cfg.Limits.admit(items, inputOf)
	}
	return items, err
}

// RunHandle returns the handle of a run by its id. It does no I/O. Use Find for keys.
func (w *Workflow[In, Out]) RunHandle(id int64) *RunHandle[Out] {
	return &RunHandle[Out]{store: &Store{core: w.store.core, err: w.store.err}, id: id}
}

// Find returns the handle of the run that was started with a key. It returns
// an error matching ErrNotFound if there is none.
func (w *Workflow[In, Out]) Find(ctx context.Context, key string) (*RunHandle[Out], error) {
	err := w.queue().usable()
	if err == nil {
		err = checkName("key", key)
	}
	if err == nil {
		var first map[any]int64
		if first, err = w.store.conn().pairs(ctx, w.store.dialect.workflow.keyed, w.name, []any{key}); err == nil {
			if id, ok := first[key]; ok {
				return w.RunHandle(id), nil
			}
			err = ErrNotFound
		}
	}
	return nil, wrap(ctx, err, "find the run of workflow %q with the key %q", w.name, key)
}

// Handle returns a handler that runs fn. The run ends with the result of fn, unless the run is
// suspended (see [ErrSuspended]). If fn returns an error, the run is Failed.
//
// fn runs again from its beginning after every suspension and crash. Outside of steps it must do
// the same each time. It should read from the outside world in steps only.
func (w *Workflow[In, Out]) Handle(fn func(context.Context, *Run, In) (Out, error)) Handler {
	h := w.queue().handler(fn == nil)
	h.workflow = true
	h.work = func(ctx context.Context, m *MessageInfo) (err error) {
		if m.delivery != nil {
			defer func() { m.delivery.executed.Store(&err) }()
		}
		return w.store.execute(ctx, w.name, m, func(ctx context.Context, run *Run, raw []byte) (any, error) {
			var in In
			if err := w.store.cfg.decode(raw, &in); err != nil {
				return nil, fmt.Errorf("%w: input of run %d does not decode into %T: %w", ErrInvalidPayload, run.ID(), in, err)
			}
			return fn(ctx, run, in)
		})
	}
	return h
}

// startRuns stores messages and their runs in one transaction and returns the runs' ids.
func (s *Store) startRuns(ctx context.Context, name string, items []enqueueRow, p *parent) (ids []int64, err error) {
	if len(items) == 1 && p == nil && s.startsAtOnce(name, items[0]) {
		if id, err := s.startAtOnce(ctx, name, items[0]); err != nil {
			return nil, err
		} else if id != 0 {
			return []int64{id}, nil
		}
	}
	var duplicate error // not a reason to roll back
	err = s.atomic(ctx, func(c conn) error {
		duplicate = nil
		if s.tx != nil && slices.ContainsFunc(items, func(it enqueueRow) bool { return it.key != nil }) {
			// The first statement would look for the key, but a caller's transaction on SQLite must
			// begin with a write.
			if _, err := c.exec(ctx, s.dialect.workflow.make, name); err != nil {
				return err
			}
		}
		var err error
		if ids, err = c.store.insertRuns(ctx, name, items, p); errors.Is(err, ErrDuplicate) {
			duplicate, err = err, nil
		}
		return err
	})
	if err == nil {
		err = duplicate
	}
	return ids, err
}

// startsAtOnce reports whether one statement can start a run of the item.
func (s *Store) startsAtOnce(name string, it enqueueRow) bool {
	return s.dialect.runsByOneStatement && it.key == nil && !it.inGroup() && (s.tx != nil || !s.notifies(name))
}

// startAtOnce starts a run with one statement. It returns 0 if the workflow has to be made first.
func (s *Store) startAtOnce(ctx context.Context, name string, it enqueueRow) (run int64, err error) {
	var message int64
	err = s.single(ctx, func(c conn) error {
		run = 0
		args := []any{name, it.payload, it.delay, it.dueAt, it.priority, it.headers}
		return c.rowsUntil(ctx, 1, s.dialect.workflow.start, args, func(rows *sql.Rows) error { return rows.Scan(&run, &message) })
	})
	if err != nil || run == 0 {
		return 0, err
	}
	if s.tx == nil {
		s.notifyLater(name)
	}
	return run, s.notifyStored(ctx, name, []int64{message})
}

// insertRuns is startRuns in the store's transaction.
func (s *Store) insertRuns(ctx context.Context, name string, items []enqueueRow, p *parent) ([]int64, error) {
	ids, _, err := s.insertMissingRuns(ctx, name, items, p)
	return ids, err
}

// insertMissingRuns is insertRuns, and returns the indexes of the items whose key a run or a
// message already has.
func (s *Store) insertMissingRuns(ctx context.Context, name string, items []enqueueRow, p *parent) (ids []int64, taken []int, err error) {
	for range maxEnqueueTries {
		ids, taken, err = s.tryInsertRuns(ctx, s.conn(), name, items, p)
		if !errors.Is(err, errKeyRace) {
			return ids, taken, err
		}
	}
	return nil, nil, fmt.Errorf("%w: the key's first run came and went %d times", ErrState, maxEnqueueTries)
}

func (s *Store) tryInsertRuns(ctx context.Context, c conn, name string, items []enqueueRow, p *parent) (ids []int64, taken []int, err error) {
	ids = make([]int64, len(items))
	first, err := s.takenKeys(ctx, c, name, items)
	if err != nil {
		return nil, nil, err
	}
	var left []int // indexes of items to start
	for n, it := range items {
		if id, ok := first[it.key]; ok && it.key != nil {
			ids[n] = id
			taken = append(taken, n)
		} else {
			left = append(left, n)
		}
	}
	if len(left) > 0 {
		adopted, err := s.insertNew(ctx, c, name, items, left, ids, p)
		if err != nil {
			return nil, nil, err
		}
		taken = append(taken, adopted...)
	}
	var duplicates []error
	for n, it := range items {
		if id, ok := first[it.key]; ok && it.key != nil && it.unique {
			duplicates = append(duplicates, fmt.Errorf("%q (item %d) is taken by run %d", it.key, n, id))
		}
	}
	if len(duplicates) > 0 {
		return ids, taken, fmt.Errorf("%w: %w", ErrDuplicate, errors.Join(duplicates...))
	}
	return ids, taken, nil
}

// takenKeys returns the runs that already have the items' keys.
func (s *Store) takenKeys(ctx context.Context, c conn, name string, items []enqueueRow) (map[any]int64, error) {
	var keys []any
	for _, it := range items {
		if it.key != nil {
			keys = append(keys, it.key)
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	return c.pairs(ctx, s.dialect.workflow.keyed, name, keys)
}

// insertNew stores the messages and runs of items[left...] and sets their ids. It returns the
// indexes of items whose key belongs to a message that has no run.
func (s *Store) insertNew(ctx context.Context, c conn, name string, items []enqueueRow, left []int, ids []int64, p *parent) (adopted []int, err error) {
	chosen := make([]enqueueRow, len(left))
	for i, n := range left {
		chosen[i] = items[n]
		chosen[i].unique = false // the run's key decides
	}
	e, err := s.store(ctx, name, chosen)
	if err != nil {
		return nil, err
	}
	rows := make([][]any, len(left))
	for i, message := range e.ids {
		rows[i] = []any{message, chosen[i].key, nil, nil}
		if p != nil {
			rows[i][2], rows[i][3] = p.run, p.step
		}
	}
	runs, err := c.insertRunRows(ctx, name, rows)
	if err != nil {
		return nil, err
	}
	for i, n := range left {
		if ids[n] = runs[e.ids[i]]; ids[n] == 0 {
			return nil, c.startAgain(ctx, e.stored)
		}
	}
	for _, i := range e.existing {
		adopted = append(adopted, left[i])
	}
	return adopted, s.notifyStored(ctx, name, e.stored)
}

// startAgain deletes the messages just stored that got no run, because another transaction took the
// key between two statements.
func (c conn) startAgain(ctx context.Context, messages []int64) error {
	if _, err := c.exec(ctx, c.store.dialect.workflow.adopt, idList(messages)); err != nil {
		return err
	}
	return errKeyRace
}

// errKeyRace is the error of a start whose key another transaction took between two statements.
var errKeyRace = errors.New("pgqrs: start again")

// insertRunRows makes runs, and the definition of the workflow if there is none, and returns the
// runs' ids by message.
func (c conn) insertRunRows(ctx context.Context, name string, rows [][]any) (map[int64]int64, error) {
	list, err := jsonList(rows)
	if err != nil {
		return nil, err
	}
	runs := map[int64]int64{}
	for made := false; ; made = true {
		err := c.rows(ctx, c.store.dialect.workflow.insert, []any{name, list}, func(r *sql.Rows) error {
			var run, message int64
			err := r.Scan(&run, &message)
			runs[message] = run
			return err
		})
		if err != nil || len(runs) > 0 || made {
			return runs, err
		}
		if _, err := c.exec(ctx, c.store.dialect.workflow.make, name); err != nil {
			return nil, err
		}
	}
}

// pairs runs a query with a name and a list of keys, whose rows are key and id.
func (c conn) pairs(ctx context.Context, text, name string, keys []any) (map[any]int64, error) {
	list, err := jsonTexts(keys)
	if err != nil {
		return nil, err
	}
	found := map[any]int64{}
	err = c.rows(ctx, text, []any{name, list}, func(rows *sql.Rows) error {
		var key string
		var id int64
		err := rows.Scan(&key, &id)
		found[key] = id
		return err
	})
	return found, err
}
