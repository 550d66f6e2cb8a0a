package pgqrs

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// RunInfo describes a run.
type RunInfo struct {
	ID        int64
	Workflow  string
	MessageID int64
	Status    State
	Key       string
	Input     json.RawMessage // the payload of its message: {"input": ...}
	Output    json.RawMessage
	Error     string
	// ParentID and ParentStep say which run's step started it; zero if none did.
	ParentID   int64
	ParentStep string
	// Warning says that the code has changed under the run in a way that its records do not fit,
	// or that its function did not wait for steps of its goroutines.
	Warning string
	// Attempts counts executions that have not answered yet.
	Attempts int
	// InputSize and OutputSize are sizes in bytes, those of Input and Output unless a listing has cut them.
	InputSize, OutputSize int64
	// Cut says that a listing left out the end of Input, Output or Error; see [ListedBytes].
	Cut bool

	CreatedAt time.Time
	StartedAt time.Time
	PausedAt  time.Time
	EndedAt   time.Time
	// DueAt is when it goes on, if it waits; while a worker holds it, when the lease ends.
	DueAt time.Time
	// Malformed says which columns of the row do not decode, and why; see [MessageInfo]. Their fields are zero.
	Malformed string

	spoiled bool // the output does not decode
}

// RunFilter says which runs to list. A zero field lists all.
type RunFilter struct {
	Workflow string
	Status   State
	// Parent is the id of a run whose children to list: the runs that its steps started.
	Parent int64
	// Since and Until bound when they were started: since <= CreatedAt < until.
	Since, Until time.Time
	// Before is the id of the last run of the page before.
	Before int64
	// Limit is the size of a page. Zero means 100; the most is 1000.
	Limit int
}

// StepInfo describes a step of a run.
type StepInfo struct {
	Name string
	// Status is SUCCESS or ERROR, with RetryIn while a retry is to come; RUNNING
	// while it sleeps, PAUSED while it waits for a signal or children, QUEUED from
	// a Retry until it is recorded anew. Steps of pgqrs 0.15 are RUNNING from their beginning.
	Status  State
	Output  json.RawMessage
	Error   string
	Retries int
	// OutputSize is the size in bytes, that of Output unless a listing has cut it.
	OutputSize int64
	// Cut says that a listing left out the end of Output or Error; see [ListedBytes].
	Cut bool
	// RetryIn is how long it has yet to wait, when it was read; zero if it does
	// not, or is due. A step that has ended for good has an EndedAt.
	RetryIn   time.Duration
	StartedAt time.Time // when the function was called for the first attempt that was recorded
	EndedAt   time.Time
	// Malformed says which columns of the row do not decode, and why; see [MessageInfo]. Their fields are zero.
	Malformed string
}

// Runs lists runs, the latest first. Inputs, outputs and errors are cut to [ListedBytes];
// [RunHandle.Info] of [Store.Run] returns a whole run.
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
		if !f.Status.ofRun() {
			return nil, fmt.Errorf("status %q is not one of a run", string(f.Status))
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
	err := conn{s, s.tx}.rows(ctx, text, append(args, f.Limit), func(rows *sql.Rows) error {
		info, err := scanRun(rows)
		list = append(list, info)
		return err
	})
	return list, err
}

const runNames = "id workflow message_id status input output error run_key parent_run_id parent_step warning created_at started_at paused_at completed_at vt read_ct"

// listed makes JSON of the input and the output, unless they are cut, and returns what is wrong with the row besides what was before.
func (i *RunInfo) listed(malformed string) string {
	var badInput, badOutput, badStatus string
	i.Input, badInput = listedWhole("input", i.Input, i.InputSize)
	i.Output, badOutput = listedWhole("output", i.Output, i.OutputSize)
	i.spoiled = badOutput != ""
	if !i.Status.ofRun() {
		badStatus = fmt.Sprintf("status: %q is not one of a run", string(i.Status))
	}
	return joinMalformed(malformed, badStatus, badInput, badOutput)
}

// ofRun reports whether a status is one that a run can have.
func (s State) ofRun() bool {
	return slices.Contains([]State{Queued, Running, Paused, Cancelling, Cancelled, Succeeded, Failed}, s)
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
		i.cut(inputSize.Int64, outputSize.Int64, failure)
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

// runErrorText is a run's recorded error: a JSON string, or an object of pgqrs 0.15 with a message.
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
	return info, err
}
