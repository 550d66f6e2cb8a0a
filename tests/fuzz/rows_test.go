package fuzz_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/internal/reliability"
)

// victims create a row in each table to write into, with %d for a number of its own, and say how to
// find the row again. A hostile program may write anything that a column accepts into any row. The
// only rows left alone are the sound messages, runs, schedules, queues and workers of the test.
var victims = []struct{ table, make, where string }{
	{"pgqrs_messages", `INSERT INTO pgqrs_messages (queue_id, payload, priority, group_key) SELECT id, '1', 2, 'victims' FROM pgqrs_queues WHERE queue_name = 'sound'`, `group_key = 'victims'`},
	{"pgqrs_messages", `UPDATE pgqrs_messages SET group_key = 'victims', priority = 2 WHERE id = (SELECT message_id FROM pgqrs_workflow_runs WHERE run_key = 'victim')`, `group_key = 'victims'`},
	{"pgqrs_workflow_runs", ``, `run_key = 'victim'`},
	{"pgqrs_workflow_steps", `INSERT INTO pgqrs_workflow_steps (run_id, step_name, status) SELECT id, 'first', 'QUEUED' FROM pgqrs_workflow_runs WHERE run_key = 'victim'`, `run_id = (SELECT id FROM pgqrs_workflow_runs WHERE run_key = 'victim')`},
	{"pgqrs_workflow_signals", `INSERT INTO pgqrs_workflow_signals (run_id, name, payload) SELECT id, 'go', '1' FROM pgqrs_workflow_runs WHERE run_key = 'victim'`, `run_id = (SELECT id FROM pgqrs_workflow_runs WHERE run_key = 'victim')`},
	{"pgqrs_queues", `INSERT INTO pgqrs_queues (queue_name) VALUES ('victim %d')`, `queue_name = 'victim %d'`},
	{"pgqrs_workflows", `INSERT INTO pgqrs_workflows (name, queue_id) SELECT 'victim %d', id FROM pgqrs_queues WHERE queue_name = 'sound'`, `name = 'victim %d'`},
	{"pgqrs_workers", `INSERT INTO pgqrs_workers (name, queue_id) SELECT 'victim %d', id FROM pgqrs_queues WHERE queue_name = 'sound'`, `name = 'victim %d'`},
	{"pgqrs_groups", `INSERT INTO pgqrs_groups (queue_id, group_key, touched_at) SELECT id, 'victim %d', created_at FROM pgqrs_queues WHERE queue_name = 'sound'`, `group_key = 'victim %d'`},
	{"pgqrs_schedules", `INSERT INTO pgqrs_schedules (name, queue_name, payload, rule) VALUES ('victim %d', 'sound', '1', 'never')`, `name = 'victim %d'`},
	{"pgqrs_schedule_runs", `INSERT INTO pgqrs_schedule_runs (schedule_id, due_at) SELECT id, created_at FROM pgqrs_schedules WHERE name = 'sound'`, `message_id IS NULL`},
}

var (
	hostileText = []string{`''`, `'x'`, `'"'`, `'{'`, `'null'`, `'infinity'`, `'sound'`, `'a/b'`, `'ä'`}
	hostileJSON = []string{`'null'`, `'[]'`, `'{}'`, `'"x"'`, `'1e400'`, `'{"a":1}'`, `'[{"a":[1]}]'`, `'{"pgqrs-group":7}'`, `'{"pgqrs-batch":"x"}'`, `'{"input":null}'`, `'[1,2,3]'`}
	hostileInt  = []string{`0`, `-1`, `1`, `-2147483648`, `2147483647`, `9223372036854775807`, `-9223372036854775807 - 1`, `-32768`, `2`}
	hostileTime = []string{`'infinity'`, `'-infinity'`, `'epoch'`, `'294276-12-31 23:59:59.999999+00'`, `'4714-11-24 00:00:00+00 BC'`, `'0001-01-01 00:00:00+00'`,
		`'9999-12-31 23:59:59.999+00'`, `'9999-12-31 23:59:59.999999+00'`, `'10000-01-01 00:00:00+00'`, `now()`}
	// hostileLite are values that any column of SQLite accepts.
	hostileLite = slices.Concat(hostileText, hostileJSON, hostileInt, []string{`x''`, `x'ff00'`, `CAST(x'fffe' AS TEXT)`, `0.5`, `1e300`, `-1e300`, `9e999`, `-9e999`,
		`'-infinity'`, `'9999-12-31 23:59:59.999'`, `'9999-12-31 23:59:59.9999'`, `'0000-00-00'`, `'2026-01-01 00:00:00'`, `'2026-01-01T00:00:00Z'`, `'NaN'`, `hex(zeroblob(40000))`})
)

// A rig is a database and the sound rows in it.
type rig struct {
	store   *pgqrs.Store
	columns map[string][][2]string // of each table: name and type
	log     *bytes.Buffer
	mu      sync.Mutex
	n       int
	handled map[int]bool
}

// Write implements [io.Writer] for the log.
func (r *rig) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func newRig(tb testing.TB, s *pgqrs.Store) *rig {
	r := &rig{columns: map[string][][2]string{}, log: &bytes.Buffer{}, handled: map[int]bool{}}
	r.store = pgqrs.Config{Logger: slog.New(slog.NewTextHandler(r, nil))}.New(s.DB(), s.Dialect())
	tb.Cleanup(func() {
		if err := r.store.Close(); err != nil {
			tb.Error(err)
		}
	})
	text := `SELECT name, '' FROM pragma_table_info('%s')`
	if s.Dialect() == pgqrs.Postgres {
		text = `SELECT column_name, udt_name FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = '%s'`
	}
	for _, v := range victims {
		rows, err := s.DB().Query(fmt.Sprintf(text, v.table))
		if err != nil {
			tb.Fatal(err)
		}
		r.columns[v.table] = nil
		for rows.Next() {
			var c [2]string
			if err := rows.Scan(&c[0], &c[1]); err != nil {
				tb.Fatal(err)
			}
			if c[0] != "id" {
				r.columns[v.table] = append(r.columns[v.table], c)
			}
		}
		if err := rows.Close(); err != nil || len(r.columns[v.table]) == 0 {
			tb.Fatalf("%s has %d columns, %v", v.table, len(r.columns[v.table]), err)
		}
	}
	return r
}

// hostile returns a value that a column may accept.
func (r *rig) hostile(random *rand.Rand, kind string) string {
	list := map[string][]string{"": hostileLite, "timestamptz": hostileTime, "jsonb": hostileJSON, "bool": {`true`, `false`},
		"pgqrs_workflow_status": {`'QUEUED'`, `'RUNNING'`, `'PAUSED'`, `'SUCCESS'`, `'ERROR'`, `'CANCELLING'`, `'CANCELLED'`},
		"worker_status":         {`'ready'`, `'polling'`, `'suspended'`, `'interrupted'`, `'stopped'`}}[kind]
	switch {
	case random.IntN(10) == 0:
		return `NULL`
	case strings.HasPrefix(kind, "int"):
		list = hostileInt
	case list == nil:
		list = hostileText
	}
	return list[random.IntN(len(list))]
}

// attack creates a victim and writes into it. It returns what it wrote. It does not matter if the
// database refuses some of it.
func (r *rig) attack(tb testing.TB, random *rand.Rand) (done []string) {
	tb.Helper()
	for range 1 + random.IntN(8) {
		r.n++
		v := victims[random.IntN(len(victims))]
		if v.make != "" {
			r.try(strings.ReplaceAll(v.make, "%d", fmt.Sprint(r.n)))
		}
		var set []string
		columns := r.columns[v.table]
		for _, i := range random.Perm(len(columns))[:1+random.IntN(3)] {
			set = append(set, columns[i][0]+" = "+r.hostile(random, columns[i][1]))
		}
		text := fmt.Sprintf("UPDATE %s SET %s WHERE %s", v.table, strings.Join(set, ", "), strings.ReplaceAll(v.where, "%d", fmt.Sprint(r.n)))
		if r.try(text) {
			done = append(done, text)
		}
	}
	return done
}

// try executes a text, and reports whether the database accepted it.
func (r *rig) try(text string) bool {
	_, err := r.store.DB().Exec(text)
	return err == nil
}

const soundWait = 20 * time.Second

// survive attacks the tables while a worker is running. It fails the test unless all sound work is
// done and every listing returns.
func (r *rig) survive(t *testing.T, seed uint64) (done int) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	q := pgqrs.NewQueue[int](r.store, "sound").With(pgqrs.Policy{MaxAttempts: 2, DeadLetter: "sound dead", Backoff: func(int) time.Duration { return time.Millisecond }})
	runs := pgqrs.NewWorkflow[int, int](r.store, "sound runs")
	ctx := t.Context()
	value := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := runs.Start(ctx, 1, pgqrs.Key("victim"))
	value(err)
	_, err = q.Enqueue(ctx, 0)
	value(err)
	wrote := r.attack(t, random)
	t.Cleanup(func() {
		if t.Failed() {
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Logf("%s, seed %d wrote:\n%s\nlogged:\n%s", r.store.Dialect(), seed, strings.Join(wrote, "\n"), r.log)
		}
	})
	stop := r.work(t, q, runs)
	first := int(seed%1000000)*10 + 1
	_, err = q.EnqueueBatch(ctx, []int{first, first + 1}, pgqrs.Group("g"))
	value(err)
	_, err = q.EnqueueBatch(ctx, []int{first + 2, first + 3, first + 4})
	value(err)
	run, err := runs.Start(ctx, 2)
	value(err)
	wrote = append(wrote, r.attack(t, random)...)
	limited, cancel := context.WithTimeout(ctx, soundWait)
	defer cancel()
	if out, err := run.Result(limited); out != 2 || err != nil {
		t.Errorf("the run returned %d, %v", out, err)
	}
	r.await(t, first)
	r.list(t)
	stop()
	r.clean(t)
	return 6
}

// work runs a worker.
func (r *rig) work(t *testing.T, q *pgqrs.Queue[int], runs *pgqrs.Workflow[int, int]) (stop func()) {
	t.Helper()
	const signal pgqrs.Signal[int] = "go"
	handlers := []pgqrs.Handler{
		q.Handle(func(_ context.Context, m *pgqrs.Message[int]) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.handled[m.Payload] = true
			return nil
		}),
		runs.Handle(func(ctx context.Context, run *pgqrs.Run, n int) (int, error) {
			v, err := pgqrs.Step(ctx, run, "first", func(context.Context) (int, error) { return n, nil })
			if err == nil && n == 1 {
				_, err = signal.Wait(ctx, run, 0)
			}
			return v, err
		}),
	}
	schedules := []pgqrs.Schedule{{Name: "sound", Rule: pgqrs.Every(time.Second), Target: q.Target(0)}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- (&pgqrs.Worker{Handlers: handlers, Schedules: schedules, PollInterval: 2 * time.Millisecond}).Run(ctx)
	}()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, text := range []string{"upkeep failed", "could not heartbeat", "could not look", "could not renew", "have to wait", "could not let go", "panic"} {
			if strings.Contains(r.log.String(), text) {
				t.Errorf("the worker has logged %q", text)
			}
		}
		r.log.Reset()
	}
}

// await waits until the five sound messages from first on are handled.
func (r *rig) await(t *testing.T, first int) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(soundWait); ; <-tick.C {
		r.mu.Lock()
		n := 0
		for i := range 5 {
			if r.handled[first+i] {
				n++
			}
		}
		r.mu.Unlock()
		if n == 5 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%d of 5 sound messages were handled", n)
			return
		}
	}
}

// list calls every listing.
func (r *rig) list(t *testing.T) {
	t.Helper()
	ctx, s := t.Context(), r.store
	answers := func(what string, v any, err error) {
		t.Helper()
		if err == nil {
			_, err = json.Marshal(v)
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, state := range []pgqrs.MessageState{pgqrs.Ready, pgqrs.Scheduled, pgqrs.Blocked, pgqrs.Leased, pgqrs.Archived, pgqrs.Dead} {
		f := pgqrs.MessageFilter{Queue: "sound", State: state, Limit: 50}
		for range 10 {
			ms, err := s.Messages(ctx, f)
			answers("messages "+string(state), ms, err)
			for _, m := range ms {
				f.After = m.Cursor
			}
		}
	}
	ms, err := s.Messages(ctx, pgqrs.MessageFilter{IDs: r.ids(t, "pgqrs_messages")})
	answers("messages by id", ms, err)
	queues, err := s.Queues(ctx)
	answers("queues", queues, err)
	depths, err := s.Depths(ctx)
	answers("depths", depths, err)
	workers, err := s.Workers(ctx)
	answers("workers", workers, err)
	schedules, err := s.Schedules(ctx)
	answers("schedules", schedules, err)
	history, err := s.ScheduleRuns(ctx, "sound", 100)
	answers("history", history, err)
	runs, err := s.Runs(ctx, pgqrs.RunFilter{})
	answers("runs", runs, err)
	for _, id := range r.ids(t, "pgqrs_workflow_runs") {
		info, err := s.RunHandle(id).Info(ctx)
		if strings.Contains(fmt.Sprint(err), "workflow_id: there is no such workflow") {
			continue // and the row is marked so
		}
		answers("run", info, err)
		steps, err := s.RunHandle(id).Steps(ctx)
		answers("steps", steps, err)
	}
}

// ids returns the latest ids of a table.
func (r *rig) ids(t *testing.T, table string) (ids []int64) {
	t.Helper()
	rows, err := r.store.DB().QueryContext(t.Context(), "SELECT id FROM "+table+" ORDER BY id DESC LIMIT 100")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// clean deletes all messages by the library, and the other attacked rows by SQL.
func (r *rig) clean(t *testing.T) {
	t.Helper()
	ids := r.ids(t, "pgqrs_messages")
	if _, err := r.store.Delete(t.Context(), ids...); err != nil {
		t.Errorf("delete: %v", err)
	}
	for _, v := range victims {
		switch v.table {
		case "pgqrs_queues":
			r.try("DELETE FROM pgqrs_queues WHERE queue_name NOT IN ('sound', 'sound runs', 'sound dead')")
		case "pgqrs_workflows":
			r.try("DELETE FROM pgqrs_workflows WHERE name <> 'sound runs'")
		case "pgqrs_schedules":
			r.try("DELETE FROM pgqrs_schedules WHERE name <> 'sound'")
		default:
			r.try("DELETE FROM " + v.table)
		}
	}
}

// rigs returns a rig for each database.
func rigs(f *testing.F) map[string]*rig {
	all := map[string]*rig{}
	for name, s := range stores(f) {
		all[name] = newRig(f, s)
	}
	return all
}

// FuzzRows writes hostile values into rows of every table, while a worker is running.
func FuzzRows(f *testing.F) {
	for seed := range uint64(12) {
		f.Add(seed)
	}
	all := rigs(f)
	long := reliability.Soak(f)
	f.Fuzz(func(t *testing.T, seed uint64) {
		for name, r := range all {
			row := reliability.Row{Fault: "hostile rows, " + name, Injected: "random values in every column of every table"}
			for end := time.Now().Add(long / time.Duration(12*len(all))); row.Runs == 0 || time.Now().Before(end) && !t.Failed(); row.Runs++ {
				row.Messages += r.survive(t, seed+1000*uint64(row.Runs))
			}
			if long > 0 {
				reliability.Report(t, row)
			}
		}
	})
}
