package pgqrs_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/pgqrs/pgqrs-go"
)

// listed returns a row of a listing: a delivery, then queue, worker, two ends, state and the sort
// key.
func listed(id int64, state string) []driver.Value {
	ended := driver.Value(instant.UTC())
	if state == "ready" || state == "scheduled" || state == "leased" {
		ended = nil
	}
	return append(delivery(id, ada, 1), "emails", nil, ended, nil, state, "2026-01-02 02:04:05.0006Z")
}

const cursorTime = "2026-01-02 02:04:05.0006Z"

func TestStatementsOfAdministration(t *testing.T) {
	purged := []statement{
		ownBegin, query("message.lock", `[7,8]`, "archived").ids(7, 8),
		exec("message.remove_steps", `[7,8]`), exec("message.remove_signals", `[7,8]`), exec("message.remove_runs", `[7,8]`), exec("message.remove_rows", `[7,8]`).ids(7, 8), txCommit,
	}
	operations := []operation{
		{
			name: "Queues", want: []statement{query("queue.stats", nil).row(1, "emails", instant, nil, 1, 2, 3, 4, 5, 6, nil, 7)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.Queues(ctx)
				return errors.Join(err, differ("queues", len(list), 1))
			},
		}, {
			name: "Queues by name", want: []statement{query("queue.stats", `[["emails"],["a \"b\""]]`)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := s.Queues(ctx, "emails", `a "b"`)
				return err
			},
		}, {
			name: "Depths", want: []statement{query("queue.depth", nil).row("emails", instant, 1, 4, 3, 2, 5, 0, 2_000_000, nil, 7)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.Depths(ctx)
				want := pgqrs.QueueDepth{Name: "emails", PausedAt: instant.UTC(), Ready: 1, Scheduled: 1, Leased: 3, Dead: 2, Blocked: 7, ArchivedLastMinute: 5, OldestReady: 2 * time.Second}
				return errors.Join(err, differ("queues", len(list), 1), differ("depth", list[0], want))
			},
		}, {
			name: "Depths of a queue whose scheduled and leased messages reach the limit",
			want: []statement{query("queue.depth", `[["emails"]]`).row("emails", nil, 0, 100_000, 100_005, 0, 0, 0, 0, nil, 0)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.Depths(ctx, "emails")
				return errors.Join(err, differ("queues", len(list), 1), differ("depth", list[0], pgqrs.QueueDepth{Name: "emails", Scheduled: pgqrs.DepthLimit, Leased: pgqrs.DepthLimit}))
			},
		}, {
			name: "PauseQueue", want: []statement{query("queue.pause", "emails", true).ids(1)},
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.PauseQueue(ctx, "emails") },
		}, {
			name: "PauseQueue of none", want: []statement{query("queue.pause", "emails", true)}, err: pgqrs.ErrNotFound,
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.PauseQueue(ctx, "emails") },
		}, {
			name: "ResumeQueue", want: []statement{query("queue.pause", "emails", false).ids(1)},
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.ResumeQueue(ctx, "emails") },
		}, {
			name: "DropQueue", want: []statement{
				exec("begin"), exec("queue.freeze"), query("queue.in_use", "emails", 30_000_000).row(1, 0, 0),
				exec("queue.drop_workers", 1), exec("queue.drop_workflow", 1), exec("queue.drop_row", 1), exec("commit"),
			},
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.DropQueue(ctx, "emails") },
		}, {
			name: "DropQueue of none", err: pgqrs.ErrNotFound,
			want: []statement{exec("begin"), exec("queue.freeze"), query("queue.in_use", "emails", 30_000_000), exec("rollback")},
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.DropQueue(ctx, "emails") },
		}, {
			name: "DropQueue of one in use", err: pgqrs.ErrState,
			want: []statement{exec("begin"), exec("queue.freeze"), query("queue.in_use", "emails", 30_000_000).row(1, 1, 0), exec("rollback")},
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.DropQueue(ctx, "emails") },
		}, {
			name: "Messages by id", want: []statement{query("message.get", `[7,8]`)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := s.Messages(ctx, pgqrs.MessageFilter{IDs: []int64{7, 8}})
				return err
			},
		}, {
			name: "Message", want: []statement{query("message.whole", 7).row(listed(7, "dead")...)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				m, err := s.Message(ctx, 7)
				return errors.Join(err, differ("state", m.State, pgqrs.Dead), differ("size", m.PayloadSize, int64(len(m.Raw))))
			},
		}, {
			name: "Message of no id", want: []statement{query("message.whole", 7)}, err: pgqrs.ErrNotFound,
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := s.Message(ctx, 7)
				return err
			},
		}, {
			name: "Messages that are cut", want: []statement{query("message.get", `[7]`).row(append(listed(7, "dead"), 1<<20, false)...)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.Messages(ctx, pgqrs.MessageFilter{IDs: []int64{7}})
				return errors.Join(err, differ("size", list[0].PayloadSize, int64(1<<20)), differ("cut", list[0].Cut, true))
			},
		}, {
			name: "Ahead", want: []statement{query("message.ahead", 9, 10).ids(8, 7), query("message.get", `[8,7]`).row(listed(7, "ready")...).row(listed(8, "leased")...)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.Ahead(ctx, 9, 10)
				return errors.Join(err, differ("first", list[0].ID, int64(8)), differ("second", list[1].ID, int64(7)))
			},
		}, {
			name: "Ahead of none", want: []statement{query("message.ahead", 9, 10)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := s.Ahead(ctx, 9, 10)
				return err
			},
		}, {
			name: "Messages by key", want: []statement{query("message.keyed", "emails", `[["k"]]`).row("k", 7), query("message.get", `[7]`)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := s.Messages(ctx, pgqrs.MessageFilter{Queue: "emails", Key: "k"})
				return err
			},
		}, {
			name: "Messages by a key that none has", want: []statement{query("message.keyed", "emails", `[["k"]]`)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := s.Messages(ctx, pgqrs.MessageFilter{Queue: "emails", Key: "k"})
				return err
			},
		}, {
			name: "Messages after a cursor", want: []statement{query("message.list_dead", "emails", cursorTime, 7, true, 20)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				_, err := s.Messages(ctx, pgqrs.MessageFilter{Queue: "emails", State: pgqrs.Dead, After: cursorTime + "/7", Limit: 20})
				return err
			},
		}, {
			name: "Store.Delete", want: []statement{
				ownBegin, query("message.lock", `[7,8]`, "").ids(8), query("group.of", `[8]`),
				exec("message.remove_steps", `[8]`), exec("message.remove_signals", `[8]`), exec("message.remove_runs", `[8]`), exec("message.remove_rows", `[8]`).ids(8), txCommit,
			},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				n, err := s.Delete(ctx, 7, 8)
				return errors.Join(err, differ("deleted", n, 1))
			},
		}, {
			name: "Store.Delete of a child", want: []statement{
				ownBegin, query("message.lock", `[7]`, "").ids(7), query("group.of", `[7]`).row("emails", nil, nil, 4),
				exec("message.remove_steps", `[7]`), exec("message.remove_signals", `[7]`), exec("message.remove_runs", `[7]`), exec("message.remove_rows", `[7]`).ids(7),
				query("run.wake", `[4]`).row(4, "shop"), txCommit,
			},
			call: func(ctx context.Context, s *pgqrs.Store) error { _, err := s.Delete(ctx, 7); return err },
		}, {
			name: "Store.Delete of ids that are not there", want: []statement{ownBegin, query("message.lock", `[7]`, ""), txCommit},
			call: func(ctx context.Context, s *pgqrs.Store) error { _, err := s.Delete(ctx, 7); return err },
		}, {
			name: "Store.Delete of no ids",
			call: func(ctx context.Context, s *pgqrs.Store) error { _, err := s.Delete(ctx); return err },
		}, {
			name: "Purge", want: append(append([]statement{
				query("message.list_archived", "emails", nil, 0, false, 1000).row(listed(7, "archived")...).row(listed(8, "archived")...),
			}, purged...), query("message.list_archived", "emails", cursorTime, 8, false, 1000)),
			call: func(ctx context.Context, s *pgqrs.Store) error {
				n, err := s.Purge(ctx, "emails", pgqrs.Archived)
				return errors.Join(err, differ("purged", n, 2))
			},
		}, {
			name: "Redrive", want: []statement{query("message.redrive", `[7,8]`).ids(7, 8)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				n, err := s.Redrive(ctx, 7, 8)
				return errors.Join(err, differ("redriven", n, 2))
			},
		}, {
			name: "Redrive of a message whose key is taken", err: pgqrs.ErrDuplicate,
			want: []statement{query("message.redrive", `[7,8]`).ids(8), query("message.get", `[7,8]`).row(listed(7, "dead")...).row(listed(8, "ready")...)},
			call: func(ctx context.Context, s *pgqrs.Store) error { _, err := s.Redrive(ctx, 7, 8); return err },
		}, {
			name: "Redrive of no ids",
			call: func(ctx context.Context, s *pgqrs.Store) error { _, err := s.Redrive(ctx); return err },
		}, {
			name: "RedriveAll", want: []statement{
				query("message.list_dead", "emails", nil, 0, false, 1000).row(listed(7, "dead")...),
				query("message.redrive", `[7]`).ids(7),
				query("message.list_dead", "emails", cursorTime, 7, false, 1000),
			},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				n, err := s.RedriveAll(ctx, "emails")
				return errors.Join(err, differ("redriven", n, 1))
			},
		}, {
			name: "Workers", want: []statement{query("worker.list").row(3, "host/emails", "emails", "polling", instant, instant, nil, 2)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.Workers(ctx)
				return errors.Join(err, differ("workers", len(list), 1))
			},
		}, {
			name: "a worker that is not there", err: pgqrs.ErrNotFound,
			want: []statement{query("worker.move", 3, "suspended", `["ready","polling","interrupted"]`), query("worker.status", 3)},
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.SuspendWorker(ctx, 3) },
		}, {
			name: "a worker in another state", err: pgqrs.ErrState,
			want: []statement{query("worker.move", 3, "ready", `["suspended"]`), query("worker.status", 3).row("polling")},
			call: func(ctx context.Context, s *pgqrs.Store) error { return s.ResumeWorker(ctx, 3) },
		},
	}
	for state, tag := range map[pgqrs.MessageState]string{
		pgqrs.Ready: "message.list_ready", pgqrs.Scheduled: "message.list_scheduled", pgqrs.Leased: "message.list_leased",
		pgqrs.Archived: "message.list_archived", pgqrs.Dead: "message.list_dead",
	} {
		operations = append(operations, operation{
			name: "Messages that are " + string(state), want: []statement{query(tag, "emails", nil, 0, true, 100).row(listed(7, string(state))...)},
			call: func(ctx context.Context, s *pgqrs.Store) error {
				list, err := s.Messages(ctx, pgqrs.MessageFilter{Queue: "emails", State: state})
				return errors.Join(err, differ("messages", len(list), 1))
			},
		})
	}
	for name, move := range map[string]struct {
		call         func(*pgqrs.Store, context.Context, int64) error
		status, from string
	}{
		"SuspendWorker":   {(*pgqrs.Store).SuspendWorker, "suspended", `["ready","polling","interrupted"]`},
		"ResumeWorker":    {(*pgqrs.Store).ResumeWorker, "ready", `["suspended"]`},
		"InterruptWorker": {(*pgqrs.Store).InterruptWorker, "interrupted", `["polling"]`},
		"StopWorker":      {(*pgqrs.Store).StopWorker, "stopped", `["ready","polling","suspended","interrupted"]`},
	} {
		operations = append(operations, operation{
			name: name, want: []statement{query("worker.move", 3, move.status, move.from).ids(3)},
			call: func(ctx context.Context, s *pgqrs.Store) error { return move.call(s, ctx, 3) },
		})
	}
	runOperations(t, operations)
}

// applied returns what the migrations have recorded once all have run.
func applied(t *testing.T, d pgqrs.Dialect) statement {
	t.Helper()
	files, err := fs.Glob(d.Migrations(), "*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	s := query("schema.versions")
	for _, name := range files {
		version, err := strconv.Atoi(name[:4])
		if err != nil {
			t.Fatal(err)
		}
		s = s.row(version, strings.TrimSuffix(name[5:], ".up.sql"), 1)
	}
	return s
}

// engine returns the statements by which a Store identifies its database.
func engine() []statement {
	list := append([]statement{query("schema.engine").row("Engine 1")}, onSQLite(query("schema.turso").fails(errors.New("no such function: turso_version")))...)
	return append(list, query("schema.encoding").row("UTF8"))
}

// asked returns the first statements of Verify, with the answers of a well-kept database. The map
// others overrides answers.
func asked(d pgqrs.Dialect, others map[string]string) []statement {
	settings := map[pgqrs.Dialect][][2]string{
		pgqrs.Postgres: {{"fsync", "on"}, {"read_only", "off"}, {"synchronous_commit", "on"}},
		pgqrs.SQLite:   {{"busy_timeout", "5000"}, {"journal_mode", "wal"}, {"read_only", "0"}, {"synchronous", "1"}},
	}
	list := engine()
	for _, setting := range settings[d] {
		answer := setting[1]
		if other, ok := others[setting[0]]; ok {
			answer = other
		}
		list = append(list, query("schema."+setting[0]).row(answer))
	}
	if d == pgqrs.Postgres {
		list = append(list, query("schema.rights"))
	}
	return list
}

// installed returns the result of schema.objects once all migrations have run. Verify misses the
// same objects in an empty database.
func installed(t *testing.T, d pgqrs.Dialect) statement {
	t.Helper()
	s, _ := newMock(t, d, append(asked(d, nil), query("schema.objects"))...)
	report, err := s.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := query("schema.objects")
	for _, missing := range report.Missing {
		words := strings.Fields(missing) // "table T", "column C of table T", "index I of table T"
		if len(words) == 2 {
			found = found.row("table", words[1], "")
		} else {
			found = found.row(words[0], words[4], words[1])
		}
	}
	return found
}

func TestStatementsOfTheSchema(t *testing.T) {
	bothDialects(t, func(t *testing.T, d pgqrs.Dialect) {
		t.Run("Install with nothing to do only reads", func(t *testing.T) {
			s, _ := newMock(t, d, append(engine(), applied(t, d), installed(t, d), query("schema.shared"))...)
			if err := s.Install(t.Context()); err != nil {
				t.Error(err)
			}
		})
		t.Run("Install where pgqrs 0.15 has joined", func(t *testing.T) {
			want := append(engine(), applied(t, d), installed(t, d), query("schema.shared").row(false), exec("begin"), query("schema.lock"), installed(t, d), applied(t, d), query("schema.shared").row(false))
			for _, what := range map[pgqrs.Dialect][]string{pgqrs.Postgres: {"runs", "consumers"}, pgqrs.SQLite: {"runs", "producers", "consumers"}}[d] {
				want = append(want, exec("schema.share_"+what))
			}
			s, _ := newMock(t, d, append(want, exec("commit"))...)
			if err := s.Install(t.Context()); err != nil {
				t.Error(err)
			}
			s, _ = newMock(t, d, append(engine(), applied(t, d), installed(t, d), query("schema.shared").row(true))...)
			if err := s.Install(t.Context()); err != nil {
				t.Errorf("the second time: %v", err)
			}
		})
		t.Run("Install on a schema that is too new", func(t *testing.T) {
			s, _ := newMock(t, d, append(engine(), applied(t, d).row(9000, "future", 9000))...)
			if err := s.Install(t.Context()); !errors.Is(err, pgqrs.ErrUnsupported) {
				t.Error(err)
			}
		})
		t.Run("Verify of an empty database", func(t *testing.T) {
			s, _ := newMock(t, d, append(asked(d, nil), query("schema.objects"))...)
			report, err := s.Verify(t.Context())
			if err != nil || report.OK() || report.Engine != "Engine 1" || len(report.Missing) < 40 {
				t.Error(report, err)
			}
		})
		t.Run("Verify", func(t *testing.T) {
			s, _ := newMock(t, d, append(asked(d, nil), installed(t, d), applied(t, d).row(9000, "future", 1), query("queue.unattended", 30_000_000, 0, 20), query("queue.misfit", 20))...)
			report, err := s.Verify(t.Context())
			if err != nil || !report.OK() || report.SchemaVersion != 9000 || strings.Join(report.Newer, ",") != "9000 (future)" || len(report.Warnings) != 0 {
				t.Error(report, err)
			}
		})
		t.Run("Verify warns of settings", func(t *testing.T) {
			bad := map[string]string{"fsync": "off", "synchronous_commit": "off", "busy_timeout": "0", "journal_mode": "delete", "synchronous": "0", "read_only": map[pgqrs.Dialect]string{pgqrs.Postgres: "on", pgqrs.SQLite: "1"}[d]}
			s, _ := newMock(t, d, append(asked(d, bad), query("schema.objects"))...)
			s.DB().SetMaxOpenConns(1)
			report, err := s.Verify(t.Context())
			warnings := strings.Join(report.Warnings, "\n")
			if err != nil {
				t.Fatal(err)
			}
			want := map[pgqrs.Dialect][]string{
				pgqrs.Postgres: {"fsync is off: ", "read_only is on: ", "synchronous_commit is off: ", "SetMaxOpenConns(1)"},
				pgqrs.SQLite:   {"busy_timeout is 0: ", "journal_mode is delete: ", "read_only is 1: ", "synchronous is 0: ", "SetMaxOpenConns(1)"},
			}
			if len(report.Warnings) != len(want[d]) {
				t.Errorf("warnings:\n%s", warnings)
			}
			for _, w := range want[d] {
				if !strings.Contains(warnings, w) {
					t.Errorf("no warning has %q:\n%s", w, warnings)
				}
			}
		})
		t.Run("Uninstall", func(t *testing.T) {
			want := []statement{exec("begin"), query("schema.lock"), query("schema.objects")}
			drops := map[pgqrs.Dialect][]string{
				pgqrs.Postgres: {"tables", "function", "types"},
				pgqrs.SQLite:   {"groups", "schedule_runs", "schedules", "signals", "steps", "runs", "workflows", "messages", "workers", "queues", "migrations"},
			}
			for _, what := range drops[d] {
				want = append(want, exec("schema.drop_"+what))
			}
			s, _ := newMock(t, d, append(want, exec("commit"))...)
			if err := s.Uninstall(t.Context()); err != nil {
				t.Error(err)
			}
		})
		t.Run("Uninstall of what pgqrs 0.15 made", func(t *testing.T) {
			s, _ := newMock(t, d, exec("begin"), query("schema.lock"),
				query("schema.objects").row("table", "_sqlx_migrations", ""), exec("rollback"))
			if err := s.Uninstall(t.Context()); !errors.Is(err, pgqrs.ErrState) {
				t.Error(err)
			}
		})
	})
}

func TestStatementsOfConcurrentInstall(t *testing.T) {
	inWAL := errors.New("Concurrent transaction mode is only supported when MVCC is enabled")
	stock := errors.New(`near "CONCURRENT": syntax error`)
	reads := []statement{applied(t, pgqrs.SQLite), installed(t, pgqrs.SQLite), query("schema.shared")}
	for _, c := range []struct {
		name string
		want error
		sent []statement
	}{
		{"MVCC is on already", nil, append([]statement{exec("begin"), exec("commit")}, reads...)},
		{"MVCC is turned on", nil, append([]statement{
			exec("begin").fails(inWAL), exec("rollback"), query("schema.mvcc"), exec("begin"), exec("commit")}, reads...)},
		{"an engine that cannot", pgqrs.ErrNotInstalled, []statement{
			exec("begin").fails(inWAL), exec("rollback"), query("schema.mvcc"), exec("begin").fails(inWAL), exec("rollback")}},
		{"an engine without it", pgqrs.ErrUnsupported, []statement{exec("begin").fails(stock), exec("rollback")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := newMockWith(t, pgqrs.Config{Concurrent: true}, pgqrs.Turso, append([]statement{query("schema.engine").row("SQLite 3.50.4"), query("schema.turso").row("Turso 0.7.2"), query("schema.encoding")}, c.sent...)...)
			if err := s.Install(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("Install: %v; want %v", err, c.want)
			}
		})
	}
}

func TestMissingTablesNameInstall(t *testing.T) {
	missing := errors.New("SQL logic error: no such table: pgqrs_queues (1)")
	s, _ := newMock(t, pgqrs.SQLite, query("message.enqueue", "emails", ada, 0, nil, 0, nil, nil).fails(missing))
	_, err := emails(s).Enqueue(t.Context(), email{"ada"})
	if !errors.Is(err, pgqrs.ErrNotInstalled) || !strings.Contains(err.Error(), "Store.Install") {
		t.Error(err)
	}
}

// In the caller's transaction, an operation of several statements sends no BEGIN and no COMMIT.
func TestStatementsInTheCallersTransaction(t *testing.T) {
	bothDialects(t, func(t *testing.T, d pgqrs.Dialect) {
		s, mock := newMock(t, d)
		mock.ExpectBegin()
		for _, want := range []statement{
			query("message.enqueue", "emails", ada, 0, nil, 0, nil, nil).ids(7),
			query("message.ack", `[[7,3,9]]`).ids(7),
			query("message.lock", `[7]`, "").ids(7), query("group.of", `[7]`),
			exec("message.remove_steps", `[7]`), exec("message.remove_signals", `[7]`), exec("message.remove_runs", `[7]`), exec("message.remove_rows", `[7]`).ids(7),
		} {
			want.expect(mock)
		}
		mock.ExpectCommit()

		tx, err := s.DB().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		q := emails(s).WithTx(tx)
		if id, err := q.Enqueue(t.Context(), email{"ada"}); err != nil || id != 7 {
			t.Error(id, err)
		}
		if err := q.Ack(t.Context(), held(7, 1)); err != nil {
			t.Error(err)
		}
		if n, err := s.WithTx(tx).Delete(t.Context(), 7); err != nil || n != 1 {
			t.Error(n, err)
		}
		if err := tx.Commit(); err != nil {
			t.Error(err)
		}
	})
}

func TestSchemaStandsInTheStatements(t *testing.T) {
	db, mock, err := sqlmock.New()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	mock.ExpectQuery("pgqrs:message.enqueue.*" + regexp.QuoteMeta(`"app".pgqrs_queues`)).WillReturnRows(sqlmock.NewRows([]string{"id"}).AddRow(7))
	s := pgqrs.Config{Schema: "app"}.New(db, pgqrs.Postgres)
	if _, err := emails(s).Enqueue(t.Context(), email{"ada"}); err != nil {
		t.Error(err)
	}
}
