package mockpgqrs

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/pgqrs/pgqrs-go"
)

func welcome(s *pgqrs.Store) *pgqrs.Workflow[email, string] {
	return pgqrs.NewWorkflow[email, string](s, "welcome")
}

// start returns a call that starts run 5, with an error matching want.
func start(want error, opts ...pgqrs.Option) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error {
		run, err := welcome(s).Start(ctx, email{"ada"}, opts...)
		if run == nil {
			return errors.Join(err, errors.New("no handle"))
		}
		return errors.Join(match(err, want), differ("run", run.ID(), 5))
	}
}

// The run has a value in each field.
var fullRun = pgqrs.RunInfo{
	ID: 5, Workflow: "welcome", MessageID: 7, Status: pgqrs.Running, Key: "k", Input: []byte(`{"input":{"To":"ada"}}`), Output: []byte(`"hi"`), Error: "bounced",
	ParentID: 4, ParentStep: "mail", Warning: "changed", Attempts: 3, InputSize: 22, OutputSize: 4,
	CreatedAt: noon, StartedAt: noon.Add(1 * time.Second), PausedAt: noon.Add(2 * time.Second), EndedAt: noon.Add(3 * time.Second), DueAt: noon.Add(4 * time.Second),
}

// info returns a call that reads run 5, and compares it.
func info(want pgqrs.RunInfo) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error {
		got, err := welcome(s).RunHandle(5).Info(ctx)
		text, jsonErr := json.Marshal(got)
		return errors.Join(err, jsonErr, differ("run", string(text), string(marshal(want))))
	}
}

// result returns a call that waits for the result of run 5, with an error matching err.
func result(want string, err error) func(context.Context, *pgqrs.Store) error {
	return func(ctx context.Context, s *pgqrs.Store) error {
		got, resultErr := welcome(s).RunHandle(5).Result(ctx)
		return errors.Join(match(resultErr, err), differ("result", got, want))
	}
}

var workflowOperations = []operation{
	{
		name: "Start", call: start(nil),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectStart(mock, d, 5) },
	}, {
		name: "Start with arguments", call: start(nil, pgqrs.Priority(1)),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) {
			e := ExpectStart(mock, d, 5)
			if d == pgqrs.Postgres {
				e.WithArgs("welcome", `{"input":{"To":"ada"}}`, 0, nil, 1, nil)
			} else {
				e.WithArgs("welcome", `{"input":{"To":"ada"}}`, 0, nil, 1, nil, nil)
			}
		},
	}, {
		name: "Start with a Key", call: start(nil, pgqrs.Key("k")),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectStartKey(mock, d, 5) },
	}, {
		name: "Start with a Key that is taken", call: start(nil, pgqrs.Key("k")),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectStartDuplicate(mock, d, "k", 5) },
	}, {
		name: "Start with a unique key that is taken", call: start(pgqrs.ErrDuplicate, pgqrs.Unique("k")),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectStartDuplicate(mock, d, "k", 5) },
	}, {
		name: "Start with a Group", call: start(nil, pgqrs.Group("a")),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectStartGroup(mock, d, 5) },
	}, {
		name: "Send",
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) {
			ExpectSend(mock, d, 5, "approved", "true")
		},
		call: func(ctx context.Context, s *pgqrs.Store) error {
			return pgqrs.Signal[bool]("approved").Send(ctx, s, 5, true)
		},
	}, {
		name: "Cancel", call: func(ctx context.Context, s *pgqrs.Store) error { return welcome(s).RunHandle(5).Cancel(ctx) },
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectCancel(mock, d, 5) },
	}, {
		name: "Info", call: info(fullRun),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) { ExpectRun(mock, d, fullRun) },
	}, {
		name: "Info of a run with few values", call: info(pgqrs.RunInfo{ID: 5, Workflow: "welcome", Status: pgqrs.Queued}),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) {
			ExpectRun(mock, d, pgqrs.RunInfo{ID: 5, Workflow: "welcome", Status: pgqrs.Queued})
		},
	}, {
		name: "Result", call: result("hi", nil),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) {
			ExpectRun(mock, d, pgqrs.RunInfo{ID: 5, Workflow: "welcome", Status: pgqrs.Succeeded, Output: []byte(`"hi"`)})
		},
	}, {
		name: "Result of no run", call: result("", pgqrs.ErrNotFound),
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) {
			ExpectRun(mock, d, pgqrs.RunInfo{ID: 5}).WillReturnRows(sqlmock.NewRows(nil))
		},
	}, {
		name: "Start and Result",
		expect: func(mock sqlmock.Sqlmock, d pgqrs.Dialect) {
			ExpectStart(mock, d, 5)
			ExpectRun(mock, d, pgqrs.RunInfo{ID: 5, Workflow: "welcome", Status: pgqrs.Succeeded, Output: []byte(`"hi"`)})
		},
		call: func(ctx context.Context, s *pgqrs.Store) error {
			run, err := welcome(s).Start(ctx, email{"ada"})
			if err != nil {
				return err
			}
			out, err := run.Result(ctx)
			return errors.Join(err, differ("result", out, "hi"))
		},
	},
}
