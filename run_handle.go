package pgqrs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// A RunHandle is a run from the outside: to wait for it, to read it, or to change its course. It is
// safe for concurrent use, and is always bound to the pool.
type RunHandle[Out any] struct {
	store *Store
	id    int64
	fresh bool  // whether this Store started it,
	since int64 // and how many runs had ended in this process then
}

// RunHandle returns the handle of a run of any workflow. It does no I/O.
func (s *Store) RunHandle(id int64) *RunHandle[json.RawMessage] {
	return &RunHandle[json.RawMessage]{store: &Store{core: s.core, err: s.err}, id: id}
}

// ID returns the run's id.
func (h *RunHandle[Out]) ID() int64 { return h.id }

// Info returns the run in its present state. It returns an error matching ErrNotFound if the run
// does not exist. If the run has no workflow, it returns the run and an error matching
// ErrMalformed.
func (h *RunHandle[Out]) Info(ctx context.Context) (RunInfo, error) {
	info, err := h.info(ctx)
	return info, wrap(ctx, err, "look at run %d", h.id)
}

func (h *RunHandle[Out]) info(ctx context.Context) (RunInfo, error) {
	if err := h.store.usable(); err != nil {
		return RunInfo{}, err
	}
	return h.store.onPool().run(ctx, h.id)
}

// Steps returns the recorded steps of the run, in the order of their first record. Outputs and
// errors are cut to [ListedBytes]. [RunHandle.Step] returns a whole step.
func (h *RunHandle[Out]) Steps(ctx context.Context) ([]StepInfo, error) {
	if _, err := h.info(ctx); err != nil {
		return nil, wrap(ctx, err, "list the steps of run %d", h.id)
	}
	var list []StepInfo
	err := h.store.onPool().rows(ctx, h.store.dialect.step.list, []any{h.id}, func(rows *sql.Rows) error {
		var size sql.NullInt64
		s, err := scanStep(rows, &size)
		var failure bool
		info := s.info()
		if s.failure != nil {
			info.Error, failure = listedErrorText(s.failure)
		}
		if size.Valid && info.Output != nil {
			info.OutputSize = size.Int64
			info.Output, info.Cut = cutSized(info.Output, size.Int64)
		}
		info.listed()
		info.Cut = info.Cut || failure
		info.Malformed = cutNames(info.Malformed, "step_name status", &info.Name, (*string)(&info.Status))
		list = append(list, info)
		return err
	})
	return list, wrap(ctx, err, "list the steps of run %d", h.id)
}

// Step returns a recorded step of the run with its whole output. It returns an error matching
// ErrNotFound if the run has no record of a step of that name.
func (h *RunHandle[Out]) Step(ctx context.Context, name string) (StepInfo, error) {
	var info StepInfo
	err := h.store.usable()
	if err == nil {
		err = checkFindable("step", name)
	}
	found := false
	if err == nil {
		err = h.store.onPool().rows(ctx, h.store.dialect.step.get, []any{h.id, name}, func(rows *sql.Rows) error {
			s, err := scanStep(rows)
			info, found = s.info(), true
			info.listed()
			return err
		})
	}
	if err == nil && !found {
		err = ErrNotFound
	}
	return info, wrap(ctx, err, "look at step %q of run %d", name, h.id)
}

// Result waits until the run has ended and returns its result. The error is:
//   - a *RunError if the run failed.
//   - one matching ErrCancelled if it was cancelled.
//   - one matching ErrInvalidPayload if the result does not decode into Out.
//   - one matching ErrMalformed if its row does not decode.
//   - one matching ErrNotFound if there is no such run.
//   - one matching ErrState in a run outside a step, and in a step of the same run.
//
// Result returns at once when a run ends in this process. It polls for other runs, after 10 ms
// first and then less and less often, up to every second. All calls of a Store share a connection
// for that. If the database is away, Result polls until ctx is done.
func (h *RunHandle[Out]) Result(ctx context.Context) (Out, error) {
	var out Out
	if err := h.waitable(ctx); err != nil {
		return out, wrap(ctx, err, "wait for run %d", h.id)
	}
	info, err := h.awaitEnd(ctx)
	switch {
	case err != nil:
	case info.Status == Cancelled:
		err = ErrCancelled
	case info.Status == Succeeded && info.badOutput:
		err = malformedError("its row", info.Malformed)
	case info.Status == Failed:
		return out, &RunError{info.Workflow, info.ID, "", &recordedError{info.Error, nil}}
	case info.Output != nil:
		err = decodeResult(info.Output, &out)
	}
	return out, wrap(ctx, err, "wait for run %d", h.id)
}

// decodeResult decodes a run's result into out. A panic becomes an error of Result.
func decodeResult(raw []byte, out any) error {
	var err error
	if bad := foreign.Catch(func() { err = foreign.Safe(json.Unmarshal(raw, out)) }); bad != nil {
		err = bad
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: it does not decode into %s: %w", ErrInvalidPayload, reflect.TypeOf(out).Elem(), err)
}

// waitable returns an error if the run cannot be waited for with ctx. The wait would be repeated
// with every replay, or the run would wait for itself.
func (h *RunHandle[Out]) waitable(ctx context.Context) error {
	if err := outsideStep(ctx); err != nil {
		return err
	}
	scope := stepScopeOf(ctx)
	if scope == nil || !scope.run.backend.isOf(h.store) || scope.run.id != h.id {
		return nil
	}
	return Permanent(fmt.Errorf("%w: the run's own step %q would wait for itself", ErrState, scope.name))
}

// awaitEnd waits until the run has ended. While this process executes the run, awaitEnd is
// notified, and polls once a second only, in case the lease is lost. It skips the first poll if it
// cannot have missed the end. A poll that fails while the database is away is repeated.
func (h *RunHandle[Out]) awaitEnd(ctx context.Context) (RunInfo, error) {
	told, missed, stop := h.store.awaitRun(h.id, h.since)
	defer stop()
	const first, rare = 10 * time.Millisecond, time.Second
	var failed error // the latest poll
	for wait, pause, look := first, first, !h.fresh || missed; ; {
		if err := h.store.usable(); err != nil {
			return RunInfo{}, err
		}
		if look {
			answer, ok := h.store.runPoller.poll(ctx, h.store, h.id)
			if !ok {
				return RunInfo{}, awaitError(ctx, failed)
			}
			if failed = answer.err; failed != nil && !answer.temporary || answer.info.Status.final() {
				return answer.info, failed
			}
			pause = h.store.pollWait(wait)
		}
		timer := time.NewTimer(pause)
		select {
		case news := <-told:
			if h.fresh && news.Status == Succeeded { // a success is final, a failure is not
				timer.Stop()
				return news, nil
			}
			wait, look = first, news.Status != Running
			if !look {
				wait, pause = rare, rare
			}
		case <-timer.C:
			wait, look = min(2*wait, rare), true
		case <-ctx.Done():
			timer.Stop()
			return RunInfo{}, awaitError(ctx, failed)
		}
		timer.Stop()
	}
}

// awaitError returns the error of a ctx that has ended. It adds the error of the latest poll if the
// database did not answer that.
func awaitError(ctx context.Context, failed error) error {
	if failed == nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w; the latest look failed: %w", ctx.Err(), failed)
}

// A localRuns has the runs that end in this process, for the calls that wait for them here.
type localRuns struct {
	awaited map[int64]map[chan RunInfo]struct{} // calls of Result, by run
	began   time.Time                           // when the first of the calls came
	endings int64                               // number of runs that have ended
	last    [64]int64                           // the latest of them, the nth at n modulo len(last)
}

// mayHaveMissed reports whether a run may have ended since the given number of runs had. The caller
// holds core.mu.
func (r *localRuns) mayHaveMissed(id, since int64) bool {
	n := r.endings - since
	if n > int64(len(r.last)) {
		return true
	}
	for i := range n {
		if r.last[(since+i)%int64(len(r.last))] == id {
			return true
		}
	}
	return false
}

// awaitRun returns a channel that receives news of a run in this process. Running means that an
// execution has begun, and a final status that the run has ended. No status means that an execution
// has ended without the run. The result missed reports whether the run may have ended here since
// the given number of runs had.
func (s *core) awaitRun(id, since int64) (told <-chan RunInfo, missed bool, stop func()) {
	c := make(chan RunInfo, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.localRuns.awaited == nil {
		s.localRuns.awaited, s.localRuns.began = map[int64]map[chan RunInfo]struct{}{}, time.Now()
	}
	if s.localRuns.awaited[id] == nil {
		s.localRuns.awaited[id] = map[chan RunInfo]struct{}{}
	}
	s.localRuns.awaited[id][c] = struct{}{}
	return c, s.localRuns.mayHaveMissed(id, since), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.localRuns.awaited[id], c)
		if len(s.localRuns.awaited[id]) == 0 {
			delete(s.localRuns.awaited, id)
		}
	}
}

// endedRuns is the number of runs that have ended in this process.
func (s *core) endedRuns() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.localRuns.endings
}

// notifyAwaiting sends news of a run to the calls that wait for it in this process, and replaces
// news that they have not read yet.
func (s *core) notifyAwaiting(news RunInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if news.Status.final() {
		s.localRuns.last[s.localRuns.endings%int64(len(s.localRuns.last))] = news.ID
		s.localRuns.endings++
	}
	for c := range s.localRuns.awaited[news.ID] {
		select {
		case <-c:
		default:
		}
		c <- news
	}
}

// Cancel asks the run, and the children it has started, to end. It does not wait for their end. A
// run that sleeps or waits is woken. The next step without a recorded result returns ErrCancelled,
// and the ctx of a running step ends with that cause at the worker's next heartbeat. The run may
// clean up by further steps, and then it is Cancelled, whatever its function returns.
//
// A run without any recorded step ends without another call of its function. If no worker holds it,
// it has ended when Cancel returns, even if it is blocked in its group.
//
// Cancelling again is not an error. Cancel returns errors matching ErrNotFound, and ErrState if the
// run has ended otherwise.
func (h *RunHandle[Out]) Cancel(ctx context.Context) error {
	return h.change(ctx, "cancel", func(c conn) error { return c.cancelRun(ctx, h.id) })
}

func (c conn) cancelRun(ctx context.Context, id int64) error {
	started, all, err := c.cancelRuns(ctx, []int64{id}, nil)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return c.checkState(ctx, id, Cancelling, Cancelled)
	}
	return c.cancelChildren(ctx, started...)
}

// cancelRuns asks runs to end, and ends the runs that no worker has begun. It wakes the others, and
// the parents of the ended runs, except for the parents in awake. It returns the runs that were not
// being cancelled yet, and the started ones among them.
func (c conn) cancelRuns(ctx context.Context, ids, awake []int64) (started, all []int64, err error) {
	all, err = c.ids(ctx, c.store.dialect.workflow.cancel, idList(ids))
	if err != nil || len(all) == 0 {
		return nil, nil, err
	}
	ended, err := c.endUnstarted(ctx, all, awake)
	if err != nil {
		return nil, nil, err
	}
	started = slices.DeleteFunc(slices.Clone(all), func(id int64) bool { return ended[id] })
	return started, all, c.wakeRuns(ctx, started)
}

// wakeRuns makes the messages of unfinished runs due.
func (c conn) wakeRuns(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	return c.wakeRunsBy(ctx, c.store.dialect.workflow.wake, idList(ids))
}

// endUnstarted ends cancelled runs that have no steps and that no worker holds, and returns them.
// The runs need not wait until their messages are ready, as there is nothing to clean up.
func (c conn) endUnstarted(ctx context.Context, ids, awake []int64) (map[int64]bool, error) {
	ended, next := map[int64]bool{}, dependents{}
	err := c.rows(ctx, c.store.dialect.workflow.unstartedArchive, []any{idList(ids)}, func(rows *sql.Rows) error {
		var id int64
		var queue string
		var group sql.NullString
		var batch sql.NullInt64
		// A malformed row has no dependents.
		_, err := scanLoosely(rows, "id queue group_key batch_id", &id, &queue, &group, &batch)
		ended[id] = true
		next.add(queue, group.String, batch.Int64)
		return err
	})
	if err != nil || len(ended) == 0 {
		return nil, err
	}
	parents, err := c.endCancelled(ctx, slices.Sorted(maps.Keys(ended)))
	if err != nil {
		return nil, err
	}
	for _, id := range awake {
		delete(parents, id)
	}
	if err := c.wakeRuns(ctx, slices.Sorted(maps.Keys(parents))); err != nil {
		return nil, err
	}
	return ended, c.unblock(ctx, next)
}

// endCancelled ends runs as CANCELLED and returns their parents.
func (c conn) endCancelled(ctx context.Context, ids []int64) (parents map[int64]bool, err error) {
	parents = map[int64]bool{}
	err = c.rows(ctx, c.store.dialect.workflow.unstartedEnd, []any{idList(ids)}, func(rows *sql.Rows) error {
		var id int64
		var parent sql.NullInt64
		_, err := scanLoosely(rows, "id parent_run_id", &id, &parent) // a malformed row has no parent
		if parent.Valid {
			parents[parent.Int64] = true
		}
		c.store.onCommit(func() { c.store.notifyAwaiting(RunInfo{ID: id, Status: Cancelled}) })
		return err
	})
	return parents, err
}

// cancelChildren asks the descendants of cancelled runs to end.
func (c conn) cancelChildren(ctx context.Context, parents ...int64) error {
	for len(parents) > 0 {
		children, err := c.ids(ctx, c.store.dialect.workflow.children, idList(parents))
		if err != nil || len(children) == 0 {
			return err
		}
		if parents, _, err = c.cancelRuns(ctx, children, parents); err != nil {
			return err
		}
	}
	return nil
}

// checkState returns the reason why a run could not be changed. It returns nil if the run already
// has a wanted state.
func (c conn) checkState(ctx context.Context, id int64, wanted ...RunState) error {
	info, err := c.run(ctx, id)
	if err != nil || slices.Contains(wanted, info.Status) {
		return err
	}
	return fmt.Errorf("%w: it is %s", ErrState, info.Status)
}

// Pause stops the run before its next step without a recorded result, until Resume. Pausing again
// is not an error. It returns errors matching ErrNotFound, and ErrState if the run has ended or is
// being cancelled.
func (h *RunHandle[Out]) Pause(ctx context.Context) error {
	return h.change(ctx, "pause", func(c conn) error {
		ids, err := c.ids(ctx, h.store.dialect.workflow.pause, h.id)
		if err == nil && len(ids) == 0 {
			err = c.checkState(ctx, h.id, Paused)
		}
		return err
	})
}

// Resume lets a paused run continue. It returns errors matching ErrNotFound, and ErrState if the
// run is not paused.
func (h *RunHandle[Out]) Resume(ctx context.Context) error {
	return h.change(ctx, "resume", func(c conn) error {
		ids, err := c.ids(ctx, h.store.dialect.workflow.resume, h.id)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			return c.checkState(ctx, h.id)
		}
		return c.wakeRun(ctx, h.id)
	})
}

// Retry continues a failed run from its failed step, with all attempts for that step. Steps that
// succeeded keep their results. Every step that failed runs again, even if the function went on
// after its error, and so does a wait that timed out. Children that the run has started are not
// started again. The steps recorded after such a step need not occur again, and the run gets no
// warning about that.
//
// Consider two kinds of steps that succeeded. A compensation that ran before the run failed is not
// undone. The outcome of children, a failure too, is the result of the step that waited for them.
// Use RerunFrom to run such steps again.
//
// Retry returns errors matching ErrNotFound, also if the run's message was deleted, and ErrState if
// the run has not failed.
func (h *RunHandle[Out]) Retry(ctx context.Context) error {
	return h.change(ctx, "retry", func(c conn) error {
		retry := h.store.dialect.workflow.retry
		if _, err := c.exec(ctx, retry[0], h.id); err != nil {
			return err
		}
		messages, err := c.ids(ctx, retry[1], h.id)
		if err != nil {
			return err
		}
		if len(messages) == 0 {
			return c.checkState(ctx, h.id)
		}
		done, taken, err := c.store.redrive(ctx, messages)
		if err == nil && len(done) == 0 && len(taken) == 0 {
			err = fmt.Errorf("%w: message %d", ErrNotFound, messages[0])
		}
		if err == nil {
			err = keyTakenError(taken)
		}
		if err != nil {
			return err
		}
		return c.wakeRun(ctx, h.id)
	})
}

// RerunFrom starts a new run with the same input, group, priority and headers. The new run has the
// results of the steps that were recorded before the named one, and runs the other steps itself. It
// has neither key nor parent. RerunFrom returns an error matching ErrNotFound if there is no such
// run, or no such step in it.
func (h *RunHandle[Out]) RerunFrom(ctx context.Context, step string) (*RunHandle[Out], error) {
	var id int64
	err := h.change(ctx, "rerun", func(c conn) error {
		if err := checkFindable("step name", step); err != nil {
			return err
		}
		info, err := c.run(ctx, h.id)
		if err != nil {
			return err
		}
		found := false
		err = c.rows(ctx, h.store.dialect.step.get, []any{h.id, step}, func(rows *sql.Rows) error {
			found = true
			return nil
		})
		if err == nil && !found {
			err = fmt.Errorf("%w: step %q", ErrNotFound, step)
		}
		if err != nil {
			return err
		}
		again, err := c.rowLike(ctx, info)
		if err != nil {
			return err
		}
		ids, err := c.store.insertRuns(ctx, info.Workflow, []enqueueRow{again}, nil)
		if err != nil {
			return err
		}
		id = ids[0]
		if _, err := c.exec(ctx, h.store.dialect.workflow.copySteps[0], id, h.id, step); err != nil {
			return err
		}
		_, err = c.exec(ctx, h.store.dialect.workflow.copySteps[1], id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &RunHandle[Out]{store: h.store, id: id}, nil
}

// rowLike returns an item to enqueue with the payload, the group, the priority and the headers of a
// run's message. It leaves out the key, which belongs to that run.
func (c conn) rowLike(ctx context.Context, info RunInfo) (enqueueRow, error) {
	it := enqueueRow{payload: string(info.Input)}
	if info.Malformed != "" {
		return it, malformedError("its row", info.Malformed)
	}
	m, err := c.store.message(ctx, info.MessageID)
	if errors.Is(err, ErrNotFound) {
		return it, nil
	}
	if err != nil {
		return it, err
	}
	headers := m.Headers
	if m.Group != "" {
		it.group = m.Group
		headers = withHeader(headers, groupHeader, m.Group)
	}
	it.priority = m.Priority
	it.headers, err = encodeHeaders(headers)
	return it, err
}

// change runs fn in a transaction.
func (h *RunHandle[Out]) change(ctx context.Context, what string, fn func(conn) error) error {
	err := h.store.usable()
	if err == nil {
		err = outsideStep(ctx)
	}
	if err == nil {
		err = h.store.atomic(ctx, fn)
	}
	return wrap(ctx, err, "%s run %d", what, h.id)
}

// RunInfo describes a run.
type RunInfo struct {
	ID        int64           `json:"id"`
	Workflow  string          `json:"workflow"`
	MessageID int64           `json:"message_id"`
	Status    RunState        `json:"state"`
	Key       string          `json:"key,omitempty"`
	Input     json.RawMessage `json:"input,omitempty"` // the payload of its message: {"input": ...}
	Output    json.RawMessage `json:"output,omitempty"`
	Error     string          `json:"error,omitempty"`
	// ParentID and ParentStep are the run and the step that started it, or zero.
	ParentID   int64  `json:"parent_id,omitempty"`
	ParentStep string `json:"parent_step,omitempty"`
	// Warning reports that the code has changed in a way that the run's records do not fit, or that
	// the run's function did not wait for steps of its goroutines.
	Warning string `json:"warning,omitempty"`
	// Attempts counts executions that have not ended with an answer yet.
	Attempts int `json:"attempts"`
	// InputSize and OutputSize are the sizes of the stored texts in bytes. They are the lengths of
	// Input and Output unless a listing has cut these.
	InputSize  int64 `json:"input_size,omitempty"`
	OutputSize int64 `json:"output_size,omitempty"`
	// Cut reports that a listing left out the end of Input, Output, Error or Warning. See
	// [ListedBytes].
	Cut bool `json:"cut,omitempty"`

	CreatedAt time.Time `json:"created_at,omitzero"`
	StartedAt time.Time `json:"started_at,omitzero"`
	PausedAt  time.Time `json:"paused_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	// DueAt is the time at which a waiting run continues. While a worker holds the run, it is the
	// time at which the lease ends.
	DueAt time.Time `json:"due_at,omitzero"`
	// Malformed names the columns of the row that do not decode, with the reasons (see
	// [MessageInfo]). Their fields are zero.
	Malformed string `json:"malformed,omitempty"`

	badOutput bool // the output does not decode
}

// RunFilter selects the runs of a listing. A zero field selects all.
type RunFilter struct {
	Workflow string
	Status   RunState
	// Parent is the id of a run. It selects the children that the run's steps started.
	Parent int64
	// Since and Until bound the time of the start: since <= CreatedAt < until.
	Since, Until time.Time
	// Before is the id of the last run of the previous page.
	Before int64
	// Limit is the size of a page, at most 1000. Zero means 100.
	Limit int
}

// StepInfo describes a step of a run.
type StepInfo struct {
	Name string `json:"name"`
	// Status is Succeeded or Failed. It is Failed with RetryIn while a retry is to come. It is
	// Running while the step sleeps, Paused while it waits for a signal or children, and Queued
	// from a Retry until it is recorded again. Steps of pgqrs 0.15 are Running from their
	// beginning.
	Status  RunState        `json:"state"`
	Output  json.RawMessage `json:"output,omitempty"`
	Error   string          `json:"error,omitempty"`
	Retries int             `json:"retries"`
	// OutputSize is the size of the stored output in bytes. It is the length of Output unless a
	// listing has cut Output.
	OutputSize int64 `json:"output_size,omitempty"`
	// Cut reports that a listing left out the end of Output or Error. See [ListedBytes].
	Cut bool `json:"cut,omitempty"`
	// RetryIn is how long the step still had to wait when it was read. It is zero if the step does
	// not wait, or is due.
	RetryIn time.Duration `json:"-"`
	// StartedAt is the time at which the function was called for the first recorded attempt.
	StartedAt time.Time `json:"started_at,omitzero"`
	// EndedAt is the time at which the step ended for good, by the database's clock. It is zero
	// while the step runs, waits, or is to be tried again.
	EndedAt time.Time `json:"ended_at,omitzero"`
	// Malformed names the columns of the row that do not decode, with the reasons (see
	// [MessageInfo]). Their fields are zero.
	Malformed string `json:"malformed,omitempty"`
}

// Runs lists runs, the latest first. Inputs, outputs and errors are cut to [ListedBytes]. To read a
// whole run, use [RunHandle.Info] on the handle of [Store.RunHandle].
func (s *Store) Runs(ctx context.Context, f RunFilter) ([]RunInfo, error) {
	list, err := s.runs(ctx, f)
	return list, wrap(ctx, err, "list runs")
}

func (s *Store) runs(ctx context.Context, f RunFilter) ([]RunInfo, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if f.Limit < 0 || f.Limit > adminChunk {
		return nil, fmt.Errorf("RunFilter.Limit %d is not between 0 and %d", f.Limit, adminChunk)
	}
	if err := checkFindable("workflow name", f.Workflow); err != nil {
		return nil, err
	}
	if f.Limit == 0 {
		f.Limit = 100
	}
	if f.Before == 0 {
		f.Before = 1<<63 - 1
	}
	args := []any{nil, nil, nil, nil, f.Before}
	if f.Workflow != "" {
		args[0] = f.Workflow
	}
	if f.Status != "" {
		if !f.Status.known() {
			return nil, fmt.Errorf("state %q is not one of a run", string(f.Status))
		}
		args[1] = string(f.Status)
	}
	if !f.Since.IsZero() {
		args[2] = f.Since.UnixMicro()
	}
	if !f.Until.IsZero() {
		args[3] = f.Until.UnixMicro()
	}
	text := s.dialect.workflow.list
	switch {
	case f.Parent != 0:
		text, args = s.dialect.workflow.childList, append(args, f.Parent)
	case f.Status != "":
		text = s.dialect.workflow.statusList
	}
	var list []RunInfo
	err := s.conn().rows(ctx, text, append(args, f.Limit), func(rows *sql.Rows) error {
		info, err := scanRun(rows)
		list = append(list, info)
		return err
	})
	return list, err
}

const runNames = "id workflow message_id status input output error run_key parent_run_id parent_step warning created_at started_at paused_at completed_at vt read_ct"

// listed turns the input and the output into JSON, unless they are cut. It returns malformed with
// the errors that it finds.
func (i *RunInfo) listed(malformed string) string {
	var badInput, badOutput, badStatus string
	i.Input, badInput = listedWhole("input", i.Input, i.InputSize)
	i.Output, badOutput = listedWhole("output", i.Output, i.OutputSize)
	i.badOutput = badOutput != ""
	if !i.Status.known() {
		badStatus = fmt.Sprintf("status: %q is not one of a run", string(i.Status))
	}
	return joinMalformed(malformed, badStatus, badInput, badOutput)
}

func scanRun(rows *sql.Rows) (RunInfo, error) {
	var i RunInfo
	var failure []byte
	var key, step, warning sql.NullString
	var parent sql.NullInt64
	var created, started, paused, ended, due timestamp
	var input, output []byte
	var inputSize, outputSize sql.NullInt64
	bad, err := scanRowLoosely(rows, runNames+" input output", &i.ID, &i.Workflow, &i.MessageID, &i.Status, &input, &output, &failure, &key, &parent, &step, &warning,
		&created, &started, &paused, &ended, &due, &i.Attempts, &inputSize, &outputSize)
	i.Input, i.Output, i.InputSize, i.OutputSize = input, output, int64(len(input)), int64(len(output))
	if outputSize.Valid {
		i.cut(inputSize.Int64, outputSize.Int64, failure, &warning.String)
		bad = cutNames(bad, "workflow status run_key parent_step", &i.Workflow, (*string)(&i.Status), &key.String, &step.String)
	} else {
		i.Error = runErrorText(failure)
	}
	i.Malformed = i.listed(bad)
	i.Key, i.ParentID, i.ParentStep, i.Warning = key.String, parent.Int64, step.String, warning.String
	i.CreatedAt, i.StartedAt, i.PausedAt, i.EndedAt = created.Time, started.Time, paused.Time, ended.Time
	if !i.Status.final() {
		i.DueAt = due.Time
	}
	return i, err
}

// runErrorText is the text of a run's recorded error: a JSON string, or an object of pgqrs 0.15
// with a message.
func runErrorText(raw []byte) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var object struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &object) == nil && object.Message != "" {
		return object.Message
	}
	return string(raw)
}

// run reads a run.
func (c conn) run(ctx context.Context, id int64) (RunInfo, error) {
	var info RunInfo
	err := c.rows(ctx, c.store.dialect.workflow.get, []any{id}, func(rows *sql.Rows) (err error) {
		info, err = scanRun(rows)
		return err
	})
	if err == nil && info.ID == 0 {
		err = fmt.Errorf("%w: run %d", ErrNotFound, id)
	}
	if err == nil {
		err = info.checkWorkflow()
	}
	return info, err
}

// checkWorkflow returns an error for a run without a workflow, whose row something other than this
// library wrote.
func (i *RunInfo) checkWorkflow() error {
	if i.Workflow != "" {
		return nil
	}
	return malformedError(fmt.Sprintf("run %d", i.ID), "workflow_id: there is no such workflow")
}

const (
	maxPolled  = 500                   // calls of Result that a single statement answers
	pollGap    = 50 * time.Microsecond // between two statements, for each other awaited run
	maxPollGap = 10 * time.Millisecond // upper bound of the sum of these gaps
)

// A runPoller reads runs for the calls of Result that wait for them. It sends one statement at a
// time, so that it needs one connection for any number of calls. Calls that ask while a statement
// is executing, or shortly after one, share the next statement. The goroutine lives while there are
// calls to answer.
type runPoller struct {
	mu      sync.Mutex
	asking  []*runPoll // in no statement yet
	working bool       // whether the goroutine, or a timer that starts it, exists
	latest  time.Time  // when the latest statement began
}

// A runPoll is a call that asks for a run.
type runPoll struct {
	id     int64
	answer chan runAnswer // has room for it
	batch  *runBatch      // nil while it is in no statement
}

// A runAnswer is a run, or the error of reading it.
type runAnswer struct {
	info      RunInfo
	err       error
	temporary bool // the error may pass
}

// A runBatch has the calls that a single statement answers.
type runBatch struct {
	polls   []*runPoll
	waiting int // calls that still wait
	cancel  context.CancelFunc
}

// poll reads a run, in one statement with the runs of other calls. It reports whether it got an
// answer before ctx ended. If the run has not ended, some fields of its RunInfo may be missing.
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

// leave removes a call. A statement that no call waits for any more is cancelled.
func (r *runPoller) leave(p *runPoll) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.batch == nil {
		r.asking = slices.DeleteFunc(r.asking, func(other *runPoll) bool { return other == p })
		return
	}
	if p.batch.waiting--; p.batch.waiting == 0 {
		p.batch.cancel()
	}
}

// work answers calls until there are none, or until the next statement has to wait.
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

// next removes and returns the calls of the next statement. It returns nil if there are none, or if
// a timer will continue with them.
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
	batch := &runBatch{polls: r.asking[:n:n], waiting: n, cancel: cancel}
	r.asking = r.asking[n:]
	for _, p := range batch.polls {
		p.batch = batch
	}
	return batch
}

// answer reads the runs of the calls with one statement.
func (b *runBatch) answer(ctx context.Context, s *Store) {
	ids := make([]int64, len(b.polls))
	for i, p := range b.polls {
		ids[i] = p.id
	}
	slices.Sort(ids)
	found, err := s.onPool().runsByID(ctx, slices.Compact(ids))
	again := err != nil && (ctx.Err() != nil || !s.dialect.isRefused(err))
	for _, p := range b.polls {
		a := runAnswer{found[p.id], err, again}
		if err == nil && a.info.ID == 0 {
			a.err = fmt.Errorf("%w: run %d", ErrNotFound, p.id)
		} else if err == nil {
			a.err = a.info.checkWorkflow()
		}
		p.answer <- a
	}
}

// runsByID reads runs. If there are several, it reads the columns that Result needs of the ended
// runs, and the status of the others.
func (c conn) runsByID(ctx context.Context, ids []int64) (map[int64]RunInfo, error) {
	if len(ids) == 1 {
		info, err := c.run(ctx, ids[0])
		return map[int64]RunInfo{ids[0]: info}, err
	}
	found := map[int64]RunInfo{}
	err := c.rows(ctx, c.store.dialect.workflow.polled, []any{idList(ids)}, func(rows *sql.Rows) error {
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

// pollWait returns how long a call of Result waits after a poll, if it would wait for d by itself.
// Calls that wait at the same time poll at the same moments, so that they share statements.
func (s *core) pollWait(d time.Duration) time.Duration {
	if s.othersAwaited() == 0 {
		return d
	}
	return d - time.Since(s.localRuns.began)%d
}

// othersAwaited is the number of runs that calls of Result wait for, minus one.
func (s *core) othersAwaited() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, len(s.localRuns.awaited)-1)
}
