package pgqrs_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

// Each of these calls is refused before the database is asked: the mock
// expects nothing.
func TestBadInputIsRefusedBeforeTheDatabaseIsAsked(t *testing.T) {
	lists := func(f pgqrs.MessageFilter) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error { _, err := s.Messages(ctx, f); return err }
	}
	runs := func(w pgqrs.Worker) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			if w.Handlers == nil {
				w.Handlers = []pgqrs.Handler{emails(s).Handle(ignore)}
			}
			return w.Run(ctx)
		}
	}
	handles := func(handler func(*pgqrs.Store) pgqrs.Handler) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			return runs(pgqrs.Worker{Handlers: []pgqrs.Handler{handler(s)}})(ctx, s)
		}
	}
	enqueues := func(queue string, payload any, opts ...pgqrs.Option) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			_, err := pgqrs.NewQueue[any](s, queue).Enqueue(ctx, payload, opts...)
			return err
		}
	}
	dequeues := func(n int, lease time.Duration) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			_, err := emails(s).Dequeue(ctx, n, lease)
			return err
		}
	}
	for _, test := range []struct {
		text  string // what the error says
		match error
		call  func(context.Context, *pgqrs.Store) error
	}{
		{`enqueue on queue "": empty queue name`, nil, enqueues("", 1)},
		{`has more than 255 characters`, nil, enqueues(strings.Repeat("q", 256), 1)},
		{`enqueue on queue "q": invalid payload: json: unsupported type: chan int`, pgqrs.ErrInvalidPayload, enqueues("q", make(chan int))},
		{`enqueue on queue "q": invalid payload: \u0000 in a string`, pgqrs.ErrInvalidPayload, enqueues("q", "\x00")},
		{`enqueue on queue "q": negative delay -1s`, nil, enqueues("q", 1, pgqrs.Delay(-time.Second))},
		{`enqueue on queue "q": Each outside EnqueueBatch`, nil, enqueues("q", 1, pgqrs.Each(func(int) []pgqrs.Option { return nil }))},
		{`enqueue a batch of 0 on queue "emails": no messages to enqueue`, nil, func(ctx context.Context, s *pgqrs.Store) error {
			_, err := emails(s).EnqueueBatch(ctx, nil)
			return err
		}},
		{`enqueue a batch of 2 on queue "raw": item 1: invalid payload`, pgqrs.ErrInvalidPayload, func(ctx context.Context, s *pgqrs.Store) error {
			_, err := pgqrs.NewQueue[json.RawMessage](s, "raw").EnqueueBatch(ctx, []json.RawMessage{[]byte("1"), []byte("{")})
			return err
		}},
		{`dequeue from queue "emails": asked for 0 messages`, nil, dequeues(0, time.Second)},
		{`dequeue from queue "emails": lease 1µs is shorter than 1 ms`, nil, dequeues(1, time.Microsecond)},
		{`extend on queue "emails": lease 0s is shorter than 1 ms`, nil, func(ctx context.Context, s *pgqrs.Store) error { return emails(s).Extend(ctx, 0, held(7, 1)) }},
		{`release on queue "emails": negative delay -1s`, nil, func(ctx context.Context, s *pgqrs.Store) error {
			return emails(s).Release(ctx, -time.Second, held(7, 1))
		}},
		{`fail on queue "emails": nil cause`, nil, func(ctx context.Context, s *pgqrs.Store) error { return emails(s).Fail(ctx, nil, held(7, 1)) }},
		{`ack on queue "emails": nil message`, nil, func(ctx context.Context, s *pgqrs.Store) error { return emails(s).Ack(ctx, nil) }},
		{`Policy.MaxAttempts is -2`, nil, func(ctx context.Context, s *pgqrs.Store) error {
			_, err := emails(s).With(pgqrs.Policy{MaxAttempts: -2}).Enqueue(ctx, email{})
			return err
		}},
		{`list messages: MessageFilter.Queue is empty`, nil, lists(pgqrs.MessageFilter{State: pgqrs.Dead})},
		{`list messages: state "gone"; use Ready`, nil, lists(pgqrs.MessageFilter{Queue: "q", State: "gone"})},
		{`MessageFilter.Limit 1001 is not between 0 and 1000`, nil, lists(pgqrs.MessageFilter{Queue: "q", State: pgqrs.Dead, Limit: 1001})},
		{`MessageFilter.After "x" is not a Cursor`, nil, lists(pgqrs.MessageFilter{Queue: "q", State: pgqrs.Dead, After: "x"})},
		{`MessageFilter has IDs and other fields`, nil, lists(pgqrs.MessageFilter{IDs: []int64{1}, Queue: "q"})},
		{`pgqrs: run: no handlers`, nil, runs(pgqrs.Worker{Handlers: []pgqrs.Handler{}})},
		{`pgqrs: run: Worker.Concurrency is -1`, nil, runs(pgqrs.Worker{Concurrency: -1})},
		{`pgqrs: run: Worker.Lease 1ms is shorter than 100 ms`, nil, runs(pgqrs.Worker{Lease: time.Millisecond})},
		{`pgqrs: run: Worker.PollInterval is -1s`, nil, runs(pgqrs.Worker{PollInterval: -time.Second})},
		{`pgqrs: run: Worker.Grace is -1s`, nil, runs(pgqrs.Worker{Grace: -time.Second})},
		{`pgqrs: run: worker name "\n" has a control character`, nil, runs(pgqrs.Worker{Name: "\n"})},
		{`pgqrs: run: handler 0 is a zero Handler; make it by Queue.Handle`, nil, runs(pgqrs.Worker{Handlers: make([]pgqrs.Handler, 1)})},
		{`pgqrs: run: handler of queue "emails": nil handler function`, nil, handles(func(s *pgqrs.Store) pgqrs.Handler { return emails(s).Handle(nil) })},
		{`pgqrs: run: handler of queue "emails": not supported`, pgqrs.ErrUnsupported, handles(func(*pgqrs.Store) pgqrs.Handler {
			return emails(pgqrs.New(nil, pgqrs.SQLite)).Handle(ignore)
		})},
		{`pgqrs: run: two handlers for queue "emails"`, nil, func(ctx context.Context, s *pgqrs.Store) error {
			return runs(pgqrs.Worker{Handlers: []pgqrs.Handler{emails(s).Handle(ignore), emails(s).Handle(ignore)}})(ctx, s)
		}},
		{`pgqrs: run: not supported: handlers of two Stores in one Worker`, pgqrs.ErrUnsupported, func(ctx context.Context, s *pgqrs.Store) error {
			other := pgqrs.NewQueue[email](pgqrs.New(s.DB(), s.Dialect()), "other")
			return runs(pgqrs.Worker{Handlers: []pgqrs.Handler{emails(s).Handle(ignore), other.Handle(ignore)}})(ctx, s)
		}},
	} {
		t.Run(test.text, func(t *testing.T) {
			s, _ := newMock(t, pgqrs.SQLite)
			wantRefused(t, test.call(t.Context(), s), test.text, test.match)
		})
	}
}

func TestBadInputOfWorkflowsIsRefusedBeforeTheDatabaseIsAsked(t *testing.T) {
	starts := func(name string, in any, opts ...pgqrs.Option) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			_, err := pgqrs.NewWorkflow[any, any](s, name).Start(ctx, in, opts...)
			return err
		}
	}
	finds := func(name, key string) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			_, err := pgqrs.NewWorkflow[any, any](s, name).Find(ctx, key)
			return err
		}
	}
	lists := func(f pgqrs.RunFilter) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error { _, err := s.Runs(ctx, f); return err }
	}
	handles := func(w func(*pgqrs.Store) pgqrs.Handler) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error {
			return (&pgqrs.Worker{Handlers: []pgqrs.Handler{w(s)}}).Run(ctx)
		}
	}
	sends := func(signal string, v any) func(context.Context, *pgqrs.Store) error {
		return func(ctx context.Context, s *pgqrs.Store) error { return pgqrs.Signal[any](signal).Send(ctx, s, 5, v) }
	}
	for _, test := range []struct {
		text  string
		match error
		call  func(context.Context, *pgqrs.Store) error
	}{
		{`start workflow "": empty queue name`, nil, starts("", 1)},
		{`start workflow "a\nb": queue name "a\nb" has a control character`, nil, starts("a\nb", 1)},
		{`has more than 255 characters`, nil, starts(strings.Repeat("w", 256), 1)},
		{`start workflow "w": invalid payload: json: unsupported type: chan int`, pgqrs.ErrInvalidPayload, starts("w", make(chan int))},
		{`start workflow "w": invalid payload: \u0000 in a string`, pgqrs.ErrInvalidPayload, starts("w", "\x00")},
		{`start workflow "w": negative delay -1s`, nil, starts("w", 1, pgqrs.Delay(-time.Second))},
		{`start workflow "w": priority 3 is not between -1 and 2`, nil, starts("w", 1, pgqrs.Priority(3))},
		{`start workflow "w": empty key`, nil, starts("w", 1, pgqrs.Key(""))},
		{`start workflow "w": Each outside EnqueueBatch`, nil, starts("w", 1, pgqrs.Each(func(int) []pgqrs.Option { return nil }))},
		{`find the run of workflow "" with the key "k": empty queue name`, nil, finds("", "k")},
		{`find the run of workflow "w" with the key "": empty key`, nil, finds("w", "")},
		{`send signal "" to run 5: empty signal name`, nil, sends("", true)},
		{`send signal "go" to run 5: invalid payload: json: unsupported type: func()`, pgqrs.ErrInvalidPayload, sends("go", func() {})},
		{`list runs: state "gone" is not one of a run`, nil, lists(pgqrs.RunFilter{State: "gone"})},
		{`list runs: state "success" is not one of a run`, nil, lists(pgqrs.RunFilter{State: "success"})},
		{`list runs: RunFilter.Limit 1001 is not between 0 and 1000`, nil, lists(pgqrs.RunFilter{Limit: 1001})},
		{`list runs: RunFilter.Limit -1 is not between 0 and 1000`, nil, lists(pgqrs.RunFilter{Limit: -1})},
		{`pgqrs: run: handler of queue "welcome": nil handler function`, nil, handles(func(s *pgqrs.Store) pgqrs.Handler { return welcome(s).Handle(nil) })},
		{`pgqrs: run: handler of queue "welcome": Policy.Timeout is -1s`, nil, handles(func(s *pgqrs.Store) pgqrs.Handler {
			return welcome(s).With(pgqrs.Policy{Timeout: -time.Second}).Handle(never)
		})},
		{`pgqrs: run: handler of queue "welcome": not supported: WithTx was given a *sql.DB`, pgqrs.ErrUnsupported, handles(func(s *pgqrs.Store) pgqrs.Handler {
			return welcome(s).WithTx(s.DB()).Handle(never)
		})},
		{`pgqrs: run: two handlers for queue "emails"`, nil, func(ctx context.Context, s *pgqrs.Store) error {
			run := func(context.Context, *pgqrs.Run, email) (string, error) { return "", nil }
			other := pgqrs.NewWorkflow[email, string](s, "emails").Handle(run)
			return (&pgqrs.Worker{Handlers: []pgqrs.Handler{emails(s).Handle(ignore), other}}).Run(ctx)
		}},
	} {
		t.Run(test.text, func(t *testing.T) {
			s, _ := newMock(t, pgqrs.SQLite)
			wantRefused(t, test.call(t.Context(), s), test.text, test.match)
		})
	}
}

// In a run, but outside a step, these would be done again with every replay.
// In a step they are done once, and so they are anywhere else.
func TestWhatARunWouldRepeatIsRefusedOutsideSteps(t *testing.T) {
	s, _ := newMock(t, pgqrs.SQLite)
	repeated := map[string]func(context.Context) error{
		"Enqueue":      func(ctx context.Context) error { _, err := emails(s).Enqueue(ctx, email{}); return err },
		"EnqueueBatch": func(ctx context.Context) error { _, err := emails(s).EnqueueBatch(ctx, []email{{}}); return err },
	}
	for name := range workflowCalls(t.Context(), s.WithTx(nil)) {
		switch name {
		case "Find", "Runs", "Info", "Steps": // they only look
		default:
			repeated[name] = func(ctx context.Context) error { return workflowCalls(ctx, s)[name] }
		}
	}
	delete(repeated, "workflow's Worker.Run")
	for name, call := range repeated {
		t.Run(name, func(t *testing.T) {
			wantRefused(t, call(pgqrs.InRun(t.Context())), "in a run, but outside a step", pgqrs.ErrState)
		})
	}
	t.Run("a step may", func(t *testing.T) {
		s, _ := newMock(t, pgqrs.SQLite, inOne(storing(nil).ids(7), makesRun.row(5, 7))...)
		if err := starting()(pgqrs.InStep(t.Context()), s); err != nil {
			t.Error(err)
		}
	})
}

func ignore(context.Context, *pgqrs.Message[email]) error { return nil }

// wantRefused fails the test unless an error says what it should, begins with
// pgqrs: and says that once.
func wantRefused(t *testing.T, err error, text string, match error) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want %s", text)
	}
	if got := err.Error(); !strings.HasPrefix(got, "pgqrs: ") || strings.Count(got, "pgqrs: ") != 1 || !strings.Contains(got, text) {
		t.Errorf("got %q, want one prefix, and %q", got, text)
	}
	if match != nil && !errors.Is(err, match) {
		t.Errorf("%q does not match %q", err, match)
	}
}

func TestStoresThatCannotWorkSayWhyAtEveryCall(t *testing.T) {
	good, _ := newMock(t, pgqrs.SQLite)
	db := good.DB()
	closed := pgqrs.New(db, pgqrs.SQLite)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		store *pgqrs.Store
		text  string
		match error
	}{
		"nil database":                                {pgqrs.New(nil, pgqrs.SQLite), "New was given a nil *sql.DB", pgqrs.ErrUnsupported},
		"unknown dialect":                             {pgqrs.New(db, "oracle"), `unknown dialect "oracle"; use pgqrs.Postgres, pgqrs.SQLite or pgqrs.Turso`, pgqrs.ErrUnsupported},
		"schema on SQLite":                            {pgqrs.Config{Schema: "app"}.New(db, pgqrs.SQLite), `Config.Schema "app": only PostgreSQL has schemas`, pgqrs.ErrUnsupported},
		"schema that is no name":                      {pgqrs.Config{Schema: `a"b`}.New(db, pgqrs.Postgres), "is not a plain identifier", pgqrs.ErrUnsupported},
		"concurrent on PostgreSQL":                    {pgqrs.Config{Concurrent: true}.New(db, pgqrs.Postgres), "postgres has no BEGIN CONCURRENT", pgqrs.ErrUnsupported},
		"negative limit":                              {pgqrs.Config{Limits: pgqrs.Limits{MaxPayload: -1}}.New(db, pgqrs.SQLite), "Limits.MaxPayload is -1", nil},
		"WithTx of nil":                               {good.WithTx(nil), "WithTx was given nil", pgqrs.ErrUnsupported},
		"WithTx of a *sql.DB":                         {good.WithTx(db), "which is no transaction", pgqrs.ErrUnsupported},
		"WithTx of a nil *sql.Tx":                     {good.WithTx((*sql.Tx)(nil)), "nil *sql.Tx", pgqrs.ErrUnsupported},
		"WithTx of a nil *sql.Conn":                   {good.WithTx((*sql.Conn)(nil)), "nil *sql.Conn", pgqrs.ErrUnsupported},
		"WithTx of a wrapped *sql.DB":                 {good.WithTx(&struct{ *sql.DB }{db}), "which is no transaction", pgqrs.ErrUnsupported},
		"WithTx of a pool that begins":                {good.WithTx(beginner{good.DB()}), "pgqrs_test.beginner, which is no transaction", pgqrs.ErrUnsupported},
		"WithTx of a transaction that begins others":  {good.WithTx(nester{}), "give WithTx the *sql.Tx", pgqrs.ErrUnsupported},
		"WithTx of a nil transaction of another type": {good.WithTx((*wrapper)(nil)), "nil *pgqrs_test.wrapper", pgqrs.ErrUnsupported},
		"a Store that has been closed":                {closed, "the Store is closed", pgqrs.ErrState},
	} {
		for call, err := range everyCall(t.Context(), test.store) {
			t.Run(name+"/"+call, func(t *testing.T) { wantRefused(t, err, test.text, test.match) })
		}
	}
}

// A wrapper is a transaction of another library, as *sqlx.Tx is.
type wrapper struct{ *sql.Tx }

// A beginner is a pool of another library, as that of GORM with prepared statements is: Tx has the methods, and what it begins is its own.
type beginner struct{ pgqrs.Tx }

func (beginner) BeginTx(context.Context, *sql.TxOptions) (pgqrs.Tx, error) { return nil, nil }

// A nester is a transaction that can begin others within, as that of bun can.
type nester struct{ *sql.Tx }

func (nester) Begin() (nester, error) { return nester{}, nil }

func TestWithTxTakesTransactionsOfOtherLibraries(t *testing.T) {
	s, mock := newMock(t, pgqrs.SQLite)
	mock.ExpectBegin()
	query("message.enqueue", "emails", ada, 0, nil, 0, nil, nil).ids(7).expect(mock)
	mock.ExpectCommit()
	tx, err := s.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := emails(s).WithTx(&wrapper{tx}).Enqueue(t.Context(), email{"ada"}); err != nil || id != 7 {
		t.Error(id, err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
}

// workflowCalls returns the errors of all calls of workflows, signals and handles.
func workflowCalls(ctx context.Context, s *pgqrs.Store) map[string]error {
	w := welcome(s)
	run := w.RunHandle(5)
	_, start := w.Start(ctx, email{})
	_, find := w.Find(ctx, "k")
	_, runs := s.Runs(ctx, pgqrs.RunFilter{})
	_, result := run.Result(ctx)
	_, untyped := s.RunHandle(5).Result(ctx)
	_, info := run.Info(ctx)
	_, steps := run.Steps(ctx)
	_, rerun := run.RerunFrom(ctx, "pay")
	return map[string]error{
		"Start": start, "Find": find, "Runs": runs, "Result": result, "Result by Store.Run": untyped, "Info": info, "Steps": steps, "RerunFrom": rerun,
		"Cancel": run.Cancel(ctx), "Pause": run.Pause(ctx), "Resume": run.Resume(ctx), "Retry": run.Retry(ctx),
		"Send": approved.Send(ctx, s, 5, true), "workflow's Worker.Run": (&pgqrs.Worker{Handlers: []pgqrs.Handler{w.Handle(never)}}).Run(ctx),
	}
}

// everyCall returns the errors of all public calls that can fail.
func everyCall(ctx context.Context, s *pgqrs.Store) map[string]error {
	q, m := emails(s), held(7, 1)
	_, enqueue := q.Enqueue(ctx, email{})
	_, batch := q.EnqueueBatch(ctx, []email{{}})
	_, dequeue := q.Dequeue(ctx, 1, time.Second)
	_, verify := s.Verify(ctx)
	_, queues := s.Queues(ctx)
	_, messages := s.Messages(ctx, pgqrs.MessageFilter{IDs: []int64{1}})
	_, remove := s.Delete(ctx, 1)
	_, purge := s.Purge(ctx, "emails", pgqrs.Dead)
	_, redrive := s.Redrive(ctx, 1)
	_, redriveAll := s.RedriveAll(ctx, "emails")
	_, workers := s.Workers(ctx)
	calls := map[string]error{
		"Enqueue": enqueue, "EnqueueBatch": batch, "Dequeue": dequeue,
		"Ack": q.Ack(ctx, m), "Delete": q.Delete(ctx, m), "Release": q.Release(ctx, 0, m), "Extend": q.Extend(ctx, time.Second, m),
		"Fail": q.Fail(ctx, errors.New("bounced"), m), "Worker.Run": (&pgqrs.Worker{Handlers: []pgqrs.Handler{q.Handle(ignore)}}).Run(ctx),
		"Install": s.Install(ctx), "Uninstall": s.Uninstall(ctx), "Verify": verify, "Queues": queues,
		"PauseQueue": s.PauseQueue(ctx, "emails"), "ResumeQueue": s.ResumeQueue(ctx, "emails"), "DropQueue": s.DropQueue(ctx, "emails"),
		"Messages": messages, "Store.Delete": remove, "Purge": purge, "Redrive": redrive, "RedriveAll": redriveAll, "Workers": workers,
		"SuspendWorker": s.SuspendWorker(ctx, 1), "ResumeWorker": s.ResumeWorker(ctx, 1), "InterruptWorker": s.InterruptWorker(ctx, 1), "StopWorker": s.StopWorker(ctx, 1),
	}
	maps.Copy(calls, workflowCalls(ctx, s))
	return calls
}

func TestDequeueAndHandleAreNotForTransactions(t *testing.T) {
	s, mock := newMock(t, pgqrs.Postgres)
	mock.ExpectBegin()
	mock.ExpectRollback()
	tx, err := s.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	q := emails(s).WithTx(tx)
	_, dequeue := q.Dequeue(t.Context(), 1, time.Second)
	wantRefused(t, dequeue, "Dequeue in a caller's transaction", pgqrs.ErrUnsupported)
	worker := &pgqrs.Worker{Handlers: []pgqrs.Handler{q.Handle(ignore)}}
	wantRefused(t, worker.Run(t.Context()), "Handle in a caller's transaction", pgqrs.ErrUnsupported)
	wantRefused(t, s.WithTx(tx).Install(t.Context()), "Install in a caller's transaction", pgqrs.ErrUnsupported)
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
}

func TestCancelledContextSendsNothing(t *testing.T) {
	s, _ := newMock(t, pgqrs.SQLite)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for call, err := range everyCall(ctx, s) {
		if strings.HasSuffix(call, "Worker.Run") && err == nil {
			continue // that is how a worker is stopped
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want it to match context.Canceled", call, err)
		}
	}
}
