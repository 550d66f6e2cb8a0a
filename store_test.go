package pgqrs_test

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
)

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

// A beginner is a pool of another library, such as GORM's with prepared statements. Its type has
// the methods of a Tx, but it begins transactions of its own.
type beginner struct{ pgqrs.Tx }

func (beginner) BeginTx(context.Context, *sql.TxOptions) (pgqrs.Tx, error) { return nil, nil }

// A nester is a transaction that can begin nested transactions, like bun's.
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

func TestCancelledContextSendsNothing(t *testing.T) {
	s, _ := newMock(t, pgqrs.SQLite)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for call, err := range everyCall(ctx, s) {
		if strings.HasSuffix(call, "Worker.Run") && err == nil {
			continue // this is how a worker is stopped
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want it to match context.Canceled", call, err)
		}
	}
}
