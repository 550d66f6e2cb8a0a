package pq_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

// A grant is a set of privileges on one object.
type grant struct {
	on     string
	rights []string
}

// A part is a role of the page, with exactly the privileges that it needs.
type part struct {
	name, does string
	grants     []grant
	do         func(t *testing.T, r *rights, s *pgqrs.Store) error
}

func table(name string, rights ...string) grant { return grant{"pgqrs_" + name, rights} }

// sequences returns the grants for the sequences of tables' ids.
func sequences(tables ...string) []grant {
	var list []grant
	for _, table := range tables {
		list = append(list, grant{"SEQUENCE pgqrs_" + table + "_id_seq", []string{"USAGE"}})
	}
	return list
}

// readable returns grants to read tables.
func readable(tables ...string) []grant {
	var list []grant
	for _, name := range tables {
		list = append(list, table(name, "SELECT"))
	}
	return list
}

var parts = []part{
	{"enqueue only", "Enqueue and EnqueueBatch to queues that exist, with Key, Unique, Delay, Priority and Headers", append([]grant{
		table("queues", "SELECT (id)", "SELECT (queue_name)"),
		table("messages", "SELECT (id)", "SELECT (queue_id)", "SELECT (dedup_key)", "SELECT (archived_at)",
			"INSERT (queue_id)", "INSERT (payload)", "INSERT (vt)", "INSERT (enqueued_at)", "INSERT (read_ct)", "INSERT (priority)", "INSERT (dedup_key)", "INSERT (headers)"),
	}, sequences("messages")...), enqueueOnly},
	{"producer", "the same to any queue, with Group and Then", append([]grant{
		table("queues", "SELECT", "INSERT"), table("messages", "SELECT", "INSERT", "UPDATE"), table("groups", "SELECT", "INSERT", "UPDATE"),
	}, sequences("queues", "messages")...), produce},
	{"starter and signaller", "Start, Find, Result, Info, Steps, Cancel, and Send of a Signal", append([]grant{
		table("queues", "SELECT", "INSERT"), table("messages", "SELECT", "INSERT", "UPDATE"), table("workflows", "SELECT", "INSERT"),
		table("workflow_runs", "SELECT", "INSERT", "UPDATE"), table("workflow_steps", "SELECT"), table("workflow_signals", "INSERT"),
	}, sequences("queues", "messages", "workflows", "workflow_runs", "workflow_signals")...), start},
	{"worker", "Worker.Run with handlers of queues and workflows, and with schedules", append([]grant{
		table("queues", "SELECT", "INSERT", "UPDATE"), table("workers", "SELECT", "INSERT", "UPDATE", "DELETE"),
		table("messages", "SELECT", "INSERT", "UPDATE", "DELETE"), table("groups", "SELECT", "UPDATE", "DELETE"),
		table("workflows", "SELECT", "INSERT"), table("workflow_runs", "SELECT", "INSERT", "UPDATE", "DELETE"),
		table("workflow_steps", "SELECT", "INSERT", "UPDATE", "DELETE"), table("workflow_signals", "SELECT", "UPDATE", "DELETE"),
		table("schedules", "SELECT", "INSERT", "UPDATE"), table("schedule_runs", "SELECT", "INSERT", "DELETE"),
	}, sequences("queues", "messages", "workflows", "workflow_runs", "workflow_steps", "schedules", "schedule_runs")...), runWorker},
	{"viewer", "all that lists and shows, and Verify", readable("migrations", "queues", "workers", "messages", "workflows", "workflow_runs", "workflow_steps", "schedules", "schedule_runs"), view},
	{"operator", "all of a viewer, the dashboard's actions, Purge, and Send of a Signal", append([]grant{
		table("migrations", "SELECT"), table("queues", "SELECT", "UPDATE"), table("workers", "SELECT", "UPDATE"),
		table("messages", "SELECT", "INSERT", "UPDATE", "DELETE"), table("groups", "SELECT", "INSERT", "UPDATE"),
		table("workflows", "SELECT"), table("workflow_runs", "SELECT", "INSERT", "UPDATE", "DELETE"),
		table("workflow_steps", "SELECT", "UPDATE", "DELETE"), table("workflow_signals", "SELECT", "INSERT", "DELETE"),
		table("schedules", "SELECT", "UPDATE"), table("schedule_runs", "SELECT", "INSERT"),
	}, sequences("messages", "workflow_runs", "workflow_signals", "schedule_runs")...), operate},
}

// A rights is a schema with the library in it, and a role with privileges on it.
type rights struct {
	owner        *pgqrs.Store
	schema, role string
	dsn          string
	n            int
}

func newRights(t *testing.T) *rights {
	dsn := postgres.URL(postgres.Schema(t, "postgres"))
	r := &rights{role: "pgqrs_" + strings.ToLower(rand.Text()), dsn: dsn}
	u, err := url.Parse(dsn)
	check(t, err)
	r.schema = u.Query().Get("search_path")
	r.owner, err = pgqrs.Open(t.Context(), dsn)
	check(t, err)
	check(t, r.owner.Install(t.Context()))
	r.exec(t, "CREATE ROLE %s", r.role)
	t.Cleanup(func() {
		r.exec(t, "DROP OWNED BY %s", r.role)
		r.exec(t, "DROP ROLE %s", r.role)
		check(t, r.owner.Close())
	})
	return r
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rights) exec(t *testing.T, format string, args ...any) {
	t.Helper()
	_, err := r.owner.DB().ExecContext(context.Background(), fmt.Sprintf(format, args...))
	check(t, err)
}

// as opens the database as the role, until the test ends.
func (r *rights) as(t *testing.T, log *logs) *pgqrs.Store {
	t.Helper()
	db, err := sql.Open("postgres", r.dsn+"&role="+r.role)
	check(t, err)
	t.Cleanup(func() { check(t, db.Close()) })
	return pgqrs.Config{Logger: slog.New(slog.NewTextHandler(log, nil)), NoPrepare: true}.New(db, pgqrs.Postgres)
}

// A logs keeps log lines.
type logs struct {
	sync.Mutex
	bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.Buffer.Write(p)
}

// denied returns the first line about something that the role may not do.
func (l *logs) denied() error {
	l.Lock()
	defer l.Unlock()
	for _, line := range strings.Split(l.String(), "\n") {
		if strings.Contains(line, "permission denied") {
			return errors.New(line)
		}
	}
	return nil
}

// try makes a part do its work with the role's current privileges.
func (r *rights) try(t *testing.T, p part) error {
	r.n++
	log := &logs{}
	s := r.as(t, log)
	err := p.do(t, r, s)
	return errors.Join(err, log.denied())
}

func (r *rights) name(prefix string) string { return fmt.Sprintf("%s-%d", prefix, r.n) }

// steps calls functions one after the other, until one fails.
func steps(fns ...func() error) error {
	for _, fn := range fns {
		if err := fn(); err != nil {
			return err
		}
	}
	return nil
}

func enqueueOnly(t *testing.T, r *rights, s *pgqrs.Store) error {
	name := r.name("known")
	check(t, pgqrs.NewQueue[int](r.owner, name).Configure(t.Context()))
	return enqueue(t, pgqrs.NewQueue[int](s, name))
}

func enqueue(t *testing.T, q *pgqrs.Queue[int]) error {
	one := func(opts ...pgqrs.Option) func() error {
		return func() error {
			_, err := q.Enqueue(t.Context(), 1, opts...)
			return err
		}
	}
	return steps(
		one(), one(pgqrs.Key("k")), one(pgqrs.Key("k")), one(pgqrs.Delay(time.Hour), pgqrs.Priority(2), pgqrs.Headers(map[string]string{"h": "v"})),
		func() error {
			if err := one(pgqrs.Unique("k"))(); !errors.Is(err, pgqrs.ErrDuplicate) {
				return fmt.Errorf("a duplicate: %w", err)
			}
			_, err := q.EnqueueBatch(t.Context(), []int{1, 2, 3})
			return err
		},
	)
}

func produce(t *testing.T, r *rights, s *pgqrs.Store) error {
	q := pgqrs.NewQueue[int](s, r.name("new"))
	return steps(
		func() error { return enqueue(t, q) },
		func() error {
			_, err := q.Enqueue(t.Context(), 1, pgqrs.Group("g"))
			return err
		},
		func() error {
			_, err := q.EnqueueBatch(t.Context(), []int{1, 2}, pgqrs.Then(q, 3))
			return err
		},
	)
}

func start(t *testing.T, r *rights, s *pgqrs.Store) error {
	w := pgqrs.NewWorkflow[int, int](s, r.name("flow"))
	var h *pgqrs.RunHandle[int]
	return steps(
		func() (err error) { h, err = w.Start(t.Context(), 1, pgqrs.Key("k")); return err },
		func() (err error) { _, err = w.Start(t.Context(), 1, pgqrs.Key("k")); return err },
		func() (err error) { _, err = w.Find(t.Context(), "k"); return err },
		func() (err error) { _, err = h.Info(t.Context()); return err },
		func() (err error) { _, err = h.Steps(t.Context()); return err },
		func() error { return approved.Send(t.Context(), s, h.ID(), true) },
		func() error { return h.Cancel(t.Context()) },
		func() error {
			if _, err := h.Result(t.Context()); !errors.Is(err, pgqrs.ErrCancelled) {
				return fmt.Errorf("result: %w", err)
			}
			return nil
		},
	)
}

const approved pgqrs.Signal[bool] = "approved"

func view(t *testing.T, r *rights, s *pgqrs.Store) error {
	check(t, produce(t, r, r.owner))
	h, err := pgqrs.NewWorkflow[int, int](r.owner, r.name("seen")).Start(t.Context(), 1)
	check(t, err)
	q := r.name("new")
	return steps(
		func() (err error) { _, err = s.Queues(t.Context()); return err },
		func() (err error) { _, err = s.Depths(t.Context(), q); return err },
		func() (err error) {
			_, err = s.Messages(t.Context(), pgqrs.MessageFilter{Queue: q, State: pgqrs.Ready})
			return err
		},
		func() (err error) { _, err = s.Workers(t.Context()); return err },
		func() (err error) { _, err = s.Runs(t.Context(), pgqrs.RunFilter{}); return err },
		func() (err error) { _, err = s.RunHandle(h.ID()).Info(t.Context()); return err },
		func() (err error) { _, err = s.RunHandle(h.ID()).Steps(t.Context()); return err },
		func() (err error) { _, err = s.Schedules(t.Context()); return err },
		func() (err error) { _, err = s.ScheduleRuns(t.Context(), "none", 10); return ignoreNotFound(err) },
		func() error {
			report, err := s.Verify(t.Context())
			if err == nil && (!report.OK() || report.SchemaVersion != report.LibraryVersion) {
				err = fmt.Errorf("Verify: permission denied? %+v", report)
			}
			return err
		},
	)
}

// operate executes the actions of the dashboard, on messages with and without a group or batch, on
// runs, on a worker and on schedules.
func operate(t *testing.T, r *rights, s *pgqrs.Store) error {
	if err := view(t, r, s); err != nil {
		return err
	}
	ctx := t.Context()
	queue, runs := r.name("operated"), r.name("operated-flow")
	q := pgqrs.NewQueue[int](r.owner, queue)
	dead := func() int64 {
		_, err := q.EnqueueBatch(ctx, []int{1, 2, 3}, pgqrs.Group("g"), pgqrs.Then(q, 3))
		check(t, err)
		ms, err := q.Dequeue(ctx, 1, time.Minute)
		check(t, err)
		check(t, q.Fail(ctx, pgqrs.Permanent(errors.New("no")), ms[0]))
		return ms[0].ID
	}
	flow := pgqrs.NewWorkflow[int, int](r.owner, runs)
	start := func() *pgqrs.RunHandle[int] {
		h, err := flow.Start(ctx, 1)
		check(t, err)
		return h
	}
	failed, schedules := r.failed(t, flow), []string{r.name("message"), r.name("run")}
	running := start()
	check(t, approved.Send(ctx, r.owner, start().ID(), true))
	first := dead() // Dequeue creates the row of a worker
	workers, err := r.owner.Workers(ctx)
	check(t, err)
	worker := workers[slices.IndexFunc(workers, func(w pgqrs.WorkerInfo) bool { return w.Queue == queue })].ID
	counted := func(_ int64, err error) error { return err }
	return steps(
		func() error { return counted(s.Redrive(ctx, first)) },
		func() error { dead(); return counted(s.RedriveAll(ctx, queue)) },
		func() error { return counted(s.Delete(ctx, dead())) },
		func() error { return counted(s.Purge(ctx, queue, pgqrs.Ready)) },
		func() error { return counted(s.Purge(ctx, queue, pgqrs.Blocked)) },
		func() error { return s.PauseQueue(ctx, queue) },
		func() error { return s.ResumeQueue(ctx, queue) },
		func() error { return s.SuspendWorker(ctx, worker) },
		func() error { return s.ResumeWorker(ctx, worker) },
		func() error { return s.StopWorker(ctx, worker) },
		func() error { return approved.Send(ctx, s, running.ID(), true) },
		func() error { return s.RunHandle(running.ID()).Pause(ctx) },
		func() error { return s.RunHandle(running.ID()).Resume(ctx) },
		func() error { return s.RunHandle(running.ID()).Cancel(ctx) },
		func() error { return s.RunHandle(failed).Retry(ctx) },
		func() error { return counted(s.Purge(ctx, runs, pgqrs.Ready)) },
		func() error { return s.PauseSchedule(ctx, schedules[0]) },
		func() error { return s.ResumeSchedule(ctx, schedules[0]) },
		func() error { _, err := s.RunSchedule(ctx, schedules[0]); return err },
		func() error { _, err := s.RunSchedule(ctx, schedules[1]); return err },
	)
}

// failed runs a worker of the owner that creates schedules of a message and of a run. It returns a
// run that the worker failed.
func (r *rights) failed(t *testing.T, flow *pgqrs.Workflow[int, int]) int64 {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	h, err := flow.Start(ctx, 1)
	check(t, err)
	w := &pgqrs.Worker{
		Handlers: []pgqrs.Handler{flow.Handle(func(ctx context.Context, run *pgqrs.Run, in int) (int, error) {
			return pgqrs.Step(ctx, run, "step", func(context.Context) (int, error) { return 0, pgqrs.Permanent(errors.New("no")) })
		})},
		Schedules: []pgqrs.Schedule{
			{Name: r.name("message"), Rule: pgqrs.Every(24 * time.Hour), Target: pgqrs.NewQueue[int](r.owner, r.name("new")).Target(1, pgqrs.Group("g"))},
			{Name: r.name("run"), Rule: pgqrs.Every(24 * time.Hour), Target: flow.Target(1)},
		},
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	_, err = h.Result(ctx)
	if err == nil || ctx.Err() != nil {
		t.Fatalf("the run that fails returns %v", err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		list, err := r.owner.Schedules(ctx, r.name("message"), r.name("run"))
		check(t, err)
		if len(list) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the schedules are not there")
		}
	}
	stop()
	check(t, <-ended)
	return h.ID()
}

func ignoreNotFound(err error) error {
	if errors.Is(err, pgqrs.ErrNotFound) {
		return nil
	}
	return err
}

// runWorker runs a Worker of the role that does everything that workers do. It ends when the work
// is done or a privilege is missing.
func runWorker(t *testing.T, r *rights, _ *pgqrs.Store) error {
	log := &logs{}
	s := r.as(t, log)
	names := map[string]string{}
	for _, kind := range []string{"plain", "tx", "batch", "grouped", "dead", "next", "tick", "flow", "child", "rescued"} {
		names[kind] = r.name(kind)
	}
	queue := func(s *pgqrs.Store, kind string) *pgqrs.Queue[int] { return pgqrs.NewQueue[int](s, names[kind]) }
	flow := func(s *pgqrs.Store, kind string) *pgqrs.Workflow[int, int] {
		return pgqrs.NewWorkflow[int, int](s, names[kind])
	}
	for _, kind := range []string{"plain", "tx", "batch", "grouped", "dead"} {
		_, err := queue(r.owner, kind).EnqueueBatch(t.Context(), []int{1, 2, 3}, pgqrs.Group("g"), pgqrs.Then(queue(r.owner, "next"), 4))
		check(t, err)
	}
	h, err := flow(r.owner, "flow").Start(t.Context(), 1)
	check(t, err)
	check(t, approved.Send(t.Context(), r.owner, h.ID(), true))
	old := r.old(t)
	gone, err := flow(r.owner, "flow").Start(t.Context(), 1)
	check(t, errors.Join(err, gone.Cancel(t.Context())))
	r.exec(t, `UPDATE pgqrs_workflow_runs SET completed_at = now() - interval '90 days' WHERE id = %d`, gone.ID())
	r.exec(t, `UPDATE pgqrs_messages SET archived_at = now() - interval '90 days' WHERE archived_at IS NOT NULL`)

	failing := func(ctx context.Context, m *pgqrs.Message[int]) error {
		if m.Attempt < 2 {
			return pgqrs.RetryAfter(time.Millisecond, errors.New("again"))
		}
		return pgqrs.Permanent(errors.New("no"))
	}
	w := &pgqrs.Worker{
		Name: r.name("worker"), Lease: 3 * time.Second,
		Schedules: []pgqrs.Schedule{{Name: names["tick"], Rule: pgqrs.Every(time.Second), Target: queue(s, "next").Target(5)}},
		Handlers: []pgqrs.Handler{
			queue(s, "plain").With(pgqrs.Policy{Rate: pgqrs.Rate{N: 1000, Per: time.Second}, MaxLeased: 10, Retention: time.Hour}).Handle(ok),
			queue(s, "tx").HandleTx(func(ctx context.Context, tx *sql.Tx, m *pgqrs.Message[int]) error {
				_, err := queue(s, "next").WithTx(tx).Enqueue(ctx, 6)
				return err
			}),
			queue(s, "batch").HandleBatch(func(context.Context, []*pgqrs.Message[int]) error { return nil }, 3, time.Millisecond),
			queue(s, "grouped").Handle(ok), queue(s, "next").Handle(ok),
			queue(s, "dead").With(pgqrs.Policy{DeadLetter: names["rescued"]}).Handle(failing),
			flow(s, "child").Handle(func(ctx context.Context, run *pgqrs.Run, in int) (int, error) { return in, nil }),
			flow(s, "flow").Handle(func(ctx context.Context, run *pgqrs.Run, in int) (int, error) {
				out, err := pgqrs.Step(ctx, run, "step", func(context.Context) (int, error) { return in, nil })
				return out, steps(
					func() error { return err },
					func() error { return run.DoTx(ctx, "tx", func(context.Context, *sql.Tx) error { return nil }) },
					func() error { return run.Sleep(ctx, "nap", 10*time.Millisecond) },
					func() error { _, err := approved.Wait(ctx, run, time.Minute); return err },
					func() error { _, err := flow(s, "child").Child(ctx, run, "child", 1); return err },
				)
			}),
		},
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	done := func() bool {
		info, err := h.Info(t.Context())
		check(t, err)
		depths, err := r.owner.Depths(t.Context())
		check(t, err)
		busy := slices.ContainsFunc(depths, func(d pgqrs.QueueDepth) bool {
			return strings.HasSuffix(d.Name, fmt.Sprint("-", r.n)) && d.Name != names["rescued"] && d.Name != names["next"] && d.Ready+d.Leased+d.Scheduled > 0
		})
		ticks, err := r.owner.ScheduleRuns(t.Context(), names["tick"], 1)
		_, missing := gone.Info(t.Context())
		return errors.Is(missing, pgqrs.ErrNotFound) && !busy && info.Status == pgqrs.Succeeded && err == nil && len(ticks) > 0 && old()
	}
	deadline := time.Now().Add(time.Minute)
	for {
		select {
		case err := <-ended:
			return errors.Join(err, log.denied())
		case <-time.After(50 * time.Millisecond):
		}
		denied := log.denied()
		if denied == nil && !done() && time.Now().Before(deadline) {
			continue
		}
		if denied == nil && !done() {
			denied = errors.New("the worker did not get done: permission denied?")
		}
		stop()
		return errors.Join(denied, <-ended, log.denied())
	}
}

func ok(context.Context, *pgqrs.Message[int]) error { return nil }

// old creates the row of a worker that ended long ago. The returned function reports whether
// maintenance has deleted the row.
func (r *rights) old(t *testing.T) func() bool {
	t.Helper()
	gone, err := pgqrs.Open(t.Context(), r.dsn)
	check(t, err)
	_, err = pgqrs.NewQueue[int](gone, r.name("old")).Dequeue(t.Context(), 1, time.Second)
	check(t, errors.Join(err, gone.Close()))
	r.exec(t, `UPDATE pgqrs_workers SET heartbeat_at = now() - interval '90 days', shutdown_at = now() - interval '90 days' WHERE status = 'stopped'`)
	return func() bool {
		var n int
		err := r.owner.DB().QueryRowContext(t.Context(), `SELECT count(*) FROM pgqrs_workers WHERE heartbeat_at < now() - interval '30 days'`).Scan(&n)
		check(t, err)
		return n == 0
	}
}

func (r *rights) grant(t *testing.T, right, on string) {
	r.exec(t, "GRANT %s ON %s TO %s", right, on, r.role)
}

func (r *rights) revoke(t *testing.T, right, on string) {
	r.exec(t, "REVOKE %s ON %s FROM %s", right, on, r.role)
}

// TestRights removes one privilege at a time from each role of the page, and checks that the role
// fails.
func TestRights(t *testing.T) {
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			r := newRights(t)
			grants := append([]grant{{"SCHEMA " + r.schema, []string{"USAGE"}}}, p.grants...)
			for _, g := range grants {
				for _, right := range g.rights {
					r.grant(t, right, g.on)
				}
			}
			if err := r.try(t, p); err != nil {
				t.Fatalf("the rights of the page are not enough: %v", err)
			}
			for _, g := range grants {
				for _, right := range g.rights {
					r.revoke(t, right, g.on)
					err := r.try(t, p)
					if err == nil || !strings.Contains(err.Error(), "permission denied") && !strings.HasPrefix(g.on, "SCHEMA") {
						t.Errorf("%s ON %s is not needed: %v", right, g.on, err)
					}
					r.grant(t, right, g.on)
				}
			}
		})
	}
}

// A role that installs needs the schema only, and then owns the tables.
func TestRightsToInstall(t *testing.T) {
	r := newRights(t)
	check(t, r.owner.Uninstall(t.Context()))
	s := r.as(t, &logs{})
	r.grant(t, "CREATE", "SCHEMA "+r.schema)
	if err := s.Install(t.Context()); err == nil {
		t.Error("Install needs no USAGE of the schema")
	}
	r.revoke(t, "CREATE", "SCHEMA "+r.schema)
	r.grant(t, "USAGE", "SCHEMA "+r.schema)
	if err := s.Install(t.Context()); err == nil {
		t.Error("Install needs no CREATE on the schema")
	}
	r.grant(t, "CREATE", "SCHEMA "+r.schema)
	check(t, s.Install(t.Context()))
	if report, err := s.Verify(t.Context()); err != nil || !report.OK() || len(report.Denied) > 0 {
		t.Errorf("the owner of the tables lacks something: %+v, %v", report, err)
	}
}

// page returns the table of docs/BACKENDS.md.
func page() string {
	var b strings.Builder
	b.WriteString("| role | what it does | rights on tables | USAGE on sequences |\n|---|---|---|---|\n")
	for _, p := range parts {
		var tables, sequences []string
		for _, g := range p.grants {
			if sequence, ok := strings.CutPrefix(g.on, "SEQUENCE "); ok {
				sequences = append(sequences, "`"+sequence+"`")
				continue
			}
			tables = append(tables, fmt.Sprintf("`%s`: %s", g.on, strings.Join(g.rights, ", ")))
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", p.name, p.does, strings.Join(tables, "; "), strings.Join(sequences, ", "))
	}
	return b.String()
}

func TestThePageHasTheRights(t *testing.T) {
	text, err := os.ReadFile("../../../docs/BACKENDS.md")
	check(t, err)
	if !strings.Contains(string(text), page()) {
		t.Errorf("docs/BACKENDS.md does not have this table:\n%s", page())
	}
}

// If privileges are missing, Verify and errors report missing privileges, not missing tables.
func TestVerifyNamesMissingRights(t *testing.T) {
	r := newRights(t)
	s := r.as(t, &logs{})
	report, err := s.Verify(t.Context())
	want := "USAGE on schema " + r.schema
	if err != nil || report.OK() || len(report.Missing) > 0 || !slices.Contains(report.Denied, want) {
		t.Errorf("without the schema: %+v, %v; want %s", report, err, want)
	}
	r.grant(t, "USAGE", "SCHEMA "+r.schema)
	report, err = s.Verify(t.Context())
	if err != nil || len(report.Missing) > 0 || report.SchemaVersion != 0 {
		t.Errorf("without a right on a table: %+v, %v", report, err)
	}
	var needed []string
	for _, g := range append(parts[3].grants, table("migrations", "SELECT")) {
		for _, right := range g.rights {
			needed = append(needed, right+" on "+strings.Replace(g.on, "SEQUENCE", "sequence", 1))
		}
	}
	slices.Sort(needed)
	if slices.Sort(report.Denied); !slices.Equal(report.Denied, needed) {
		t.Errorf("Verify names\n%q, want those of a worker\n%q", report.Denied, needed)
	}
	_, err = s.Queues(t.Context())
	if err == nil || errors.Is(err, pgqrs.ErrNotInstalled) || !strings.Contains(err.Error(), "this user lacks a right; Verify names those it lacks") {
		t.Errorf("the error of a call is %v", err)
	}
	for _, g := range parts[3].grants {
		for _, right := range g.rights {
			r.grant(t, right, g.on)
		}
	}
	r.grant(t, "SELECT", "pgqrs_migrations")
	if report, err = s.Verify(t.Context()); err != nil || !report.OK() || len(report.Denied) > 0 || report.SchemaVersion != report.LibraryVersion {
		t.Errorf("with all rights: %+v, %v", report, err)
	}
}
