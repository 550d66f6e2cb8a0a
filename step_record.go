package pgqrs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A stepRecord is a row of the steps.
type stepRecord struct {
	name     string
	status   State
	output   []byte
	failure  []byte
	retries  int
	wait     sql.NullInt64 // microseconds from when it was read
	started  timestamp
	ended    timestamp
	retried  bool // RunHandle.Retry had it taken anew
	optional bool // it need not be asked for again, since a step before it was taken anew

	malformed string // what does not decode
}

func (s *stepRecord) final() bool {
	return s.status == Succeeded || s.status == Failed && !s.wait.Valid
}

func scanStep(rows *sql.Rows, more ...any) (*stepRecord, error) {
	var s stepRecord
	scan := scanLoosely
	if len(more) > 0 {
		scan = scanRowLoosely
	}
	into := append([]any{&s.name, &s.status, &s.output, &s.failure, &s.retries, &s.wait, &s.started, &s.ended, &s.retried}, more...)
	bad, err := scan(rows, "step_name status output error retry_count retry_at started_at completed_at last_retry_at output", into...)
	if !s.status.ofRun() {
		bad = joinMalformed(bad, fmt.Sprintf("status: %q is not one of a step", string(s.status)))
	}
	s.malformed = bad
	return &s, err
}

// info describes the step as a [RunHandle] returns it.
func (s *stepRecord) info() StepInfo {
	info := StepInfo{Name: s.name, Status: s.status, Retries: s.retries, StartedAt: s.started.Time, EndedAt: s.ended.Time, Malformed: s.malformed}
	if s.status == Succeeded {
		info.Output = s.output // of a step that waits for children it is their ids
		info.OutputSize = int64(len(s.output))
	}
	if s.failure != nil {
		info.Error = runErrorText(s.failure)
	}
	if s.wait.Valid && !s.final() {
		info.RetryIn = max(0, durationOf(s.wait.Int64))
	}
	return info
}

// A step is what save writes.
type step struct {
	status  State
	output  any // JSON as string, or nil
	failure any
	retries int
	delay   any // microseconds, or nil
	took    time.Duration
}

// A saving is a step that is to be recorded, fenced by the lease on its run's message.
type saving struct {
	run  int64
	m    *MessageInfo
	name string
	step
}

// args is a saving as step.save takes it.
func (x saving) args() []any {
	return []any{x.run, x.name, x.m.ID, x.m.WorkerID, x.m.Claim, string(x.status), x.output, x.failure, x.retries, x.delay, x.took.Microseconds()}
}

// shareable reports whether a step may be recorded together with others.
func (x saving) shareable() bool {
	output, _ := x.output.(string)
	failure, _ := x.failure.(string)
	return len(output)+len(failure) <= maxShared
}

// save records a step. It returns nil if it was recorded; the record that was
// there before, if the step had ended; and a suspension if the lease is lost.
func (e *execution) save(ctx context.Context, name string, st step) (*stepRecord, error) {
	if e.store == nil {
		return nil, nil
	}
	x := saving{e.id, e.m, name, st}
	record := e.store.saveStep
	if x.shareable() {
		record = e.store.saves.do
	}
	status, err := record(e.ofLease(ctx), x)
	if plain, ok := st.inASCII(); ok && untranslatable(err) {
		x.step = plain
		status, err = record(e.ofLease(ctx), x)
	}
	if err != nil {
		return nil, e.setback(err)
	}
	if status == "" {
		return e.adopt(e.ofLease(ctx), name)
	}
	e.note(status)
	return nil, nil
}

// saveStep writes a step and returns the run's status; "" if it wrote nothing.
func (s *Store) saveStep(ctx context.Context, x saving) (status State, err error) {
	err = s.single(ctx, func(c conn) (err error) {
		status, err = c.saveStep(ctx, x)
		return err
	})
	return status, err
}

func (c conn) saveStep(ctx context.Context, x saving) (status State, err error) {
	err = c.rowsUntil(ctx, 1, c.store.dialect.step.save, x.args(), func(rows *sql.Rows) error { return rows.Scan(&status) })
	return status, err
}

// saveSteps is saveStep for several at once.
func (s *Store) saveSteps(ctx context.Context, list []saving) ([]State, error) {
	type key struct {
		run  int64
		name string
	}
	index := make(map[key]int, len(list))
	args := make([][]any, len(list))
	for i, x := range list {
		index[key{x.run, x.name}] = i
		args[i] = x.args()
	}
	if len(index) < len(list) {
		return nil, errContended
	}
	arg, err := jsonList(args)
	if err != nil {
		return nil, err
	}
	states := make([]State, len(list))
	err = s.single(ctx, func(c conn) error {
		clear(states)
		return c.rowsUntil(ctx, len(list), s.dialect.step.saveBatch, []any{arg}, func(rows *sql.Rows) error {
			var k key
			var status State
			err := rows.Scan(&k.run, &k.name, &status)
			states[index[k]] = status
			return err
		})
	})
	return states, err
}

// note takes in how the run stands, as a statement on one of its steps said.
func (e *execution) note(status State) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cancelling = e.cancelling || status == Cancelling
	e.paused = status == Paused
}

// put saves a step and returns what then comes to; or, if the step had ended
// already, what is recorded.
func (e *execution) put(ctx context.Context, name string, st step, then func() ([]byte, error)) ([]byte, error) {
	first, err := e.save(ctx, name, st)
	switch {
	case err != nil:
		return nil, err
	case first != nil:
		return e.recorded(name, first)
	}
	return then()
}

// adopted returns what is recorded of a step that somebody else ended first.
func (e *execution) adopted(ctx context.Context, name string) ([]byte, error) {
	first, err := e.adopt(e.ofLease(ctx), name)
	if err != nil {
		return nil, err
	}
	return e.recorded(name, first)
}

// setback closes the execution because of the database. What its encoding lacks is no setback, nor is
// a step in the transaction of another.
func (e *execution) setback(err error) error {
	switch {
	case untranslatable(err):
		return invalid(err)
	case errors.Is(err, errInTx):
		return wrap(e.lease, err, "run %d", e.id)
	}
	return e.suspend(time.Second, setbackOf(e.lease, err))
}

// adopt returns the record of a step that somebody else ended first.
func (e *execution) adopt(ctx context.Context, name string) (*stepRecord, error) {
	var rec *stepRecord
	err := conn{e.store, nil}.rows(ctx, e.store.dialect.step.get, []any{e.id, name}, func(rows *sql.Rows) (err error) {
		rec, err = scanStep(rows)
		return err
	})
	switch {
	case err != nil:
		return nil, e.setback(err)
	case rec != nil && rec.malformed != "":
		return nil, e.malformedStep(rec)
	case rec == nil || !rec.final():
		return nil, e.suspend(0, lostError([]int64{e.m.ID}))
	}
	return rec, nil
}

// malformedStep is the error of a run with a step whose row does not decode. Nothing mends that but
// a change of the row, so the run fails.
func (e *execution) malformedStep(s *stepRecord) error {
	return Permanent(malformedError(fmt.Sprintf("step %q of run %d", s.name, e.id), s.malformed))
}

// failure is the error of a step as it is recorded, in the words of pgqrs 0.15.
type failure struct {
	Transient  bool     `json:"is_transient"`
	Code       string   `json:"code"`
	Message    string   `json:"message"`
	RetryAfter *float64 `json:"retry_after,omitempty"` // seconds
}

const (
	codeInternal  = "INTERNAL"
	codePermanent = "NON_RETRYABLE"
	codeTimeout   = "TIMEOUT"
	codeCancelled = "CANCELLED"
)

// inASCII is a step for a database that cannot hold the text of its error.
func (s step) inASCII() (plain step, ok bool) {
	text, _ := s.failure.(string)
	if isASCII(text) {
		return s, false
	}
	var f failure
	if json.Unmarshal([]byte(text), &f) != nil {
		return s, false
	}
	f.Message = asciiText(f.Message)
	s.failure = f.encode()
	return s, true
}

func (f failure) encode() any {
	raw, err := marshal(f)
	if err != nil {
		panic(err) // strings and numbers marshal
	}
	return string(raw)
}

// recorded returns what a step that ended returns: its output, or its error.
func (e *execution) recorded(name string, rec *stepRecord) ([]byte, error) {
	if rec.status == Succeeded {
		return rec.output, nil
	}
	return nil, e.failed(name, decodeFailure(rec.failure))
}

// decodeFailure is the reverse of failure.encode. A record that has no message is a message itself.
func decodeFailure(raw []byte) failure {
	var f struct {
		failure
		Message *string `json:"message"`
	}
	if err := json.Unmarshal(raw, &f); err != nil || f.Message == nil {
		f.failure.Message = runErrorText(raw)
		return f.failure
	}
	f.failure.Message = *f.Message
	return f.failure
}

// failed is a recorded failure as an error.
func (e *execution) failed(name string, f failure) error {
	switch f.Code {
	case codeCancelled:
		e.mu.Lock()
		e.cleaning = true
		e.mu.Unlock()
		return ErrCancelled
	case codeTimeout:
		return &RunError{e.workflow, e.id, name, &recordedError{f.Message, ErrTimeout}}
	case codePermanent:
		return &RunError{e.workflow, e.id, name, &recordedError{f.Message, ErrPermanent}}
	}
	return &RunError{e.workflow, e.id, name, &recordedError{f.Message, nil}}
}

// listed makes JSON of the output, unless it is cut.
func (i *StepInfo) listed() {
	output, bad := listedWhole("output", i.Output, i.OutputSize)
	i.Output, i.Malformed = output, joinMalformed(i.Malformed, bad)
}
