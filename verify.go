package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A Report is what Verify found.
type Report struct {
	Dialect Dialect
	// Engine is the database's own name and version.
	Engine string
	// Concurrency says who may write at once: "multi-process" (PostgreSQL: any number of processes do),
	// "single-writer" (SQLite, Turso: they take turns) or "experimental" (Config.Concurrent).
	Concurrency string
	// Schema is the version of the schema that is installed; Library is the one that this library makes.
	Schema, Library int64
	// Missing names tables, columns and indexes that should be there. If it is not empty, Install helps.
	Missing []string
	// Denied names rights that a Worker needs and that this user lacks, such as "UPDATE on pgqrs_messages",
	// on PostgreSQL. Whoever does less needs fewer: docs/BACKENDS.md lists them. Install does not help.
	Denied []string
	// Newer names migrations that this library does not know.
	Newer []string
	// Warnings say what else is worth a look: settings of the database that lose data or make processes
	// fail each other's calls, as one connection of the pool has them, and a pool that is too small.
	Warnings []string

	tooNew bool // whether this library is too old for it
	unread bool // whether this user may not read the version of the schema
}

// OK reports whether the library can work on what Verify found.
// Rights that are missing do not count, except that of a whole schema, since roles need different ones.
func (r Report) OK() bool {
	return len(r.Missing) == 0 && (r.Schema >= r.Library || r.unread) && !r.tooNew
}

// Verify looks at what is installed, by looking at it rather than by trusting
// version numbers, and changes nothing. A schema that is missing, older or
// newer is not an error but in the Report, and so are queues with ready messages that no live worker takes,
// and rights that this user lacks. The Schema is 0 if the user may not read it.
// A database that is not what the dialect says is an error that matches ErrUnsupported, and so is
// an encoding of text that is not UTF-8.
func (s *Store) Verify(ctx context.Context) (Report, error) {
	err := s.usable()
	r := Report{Dialect: s.name}
	if err == nil {
		r.Concurrency = s.concurrency()
		err = conn{s, s.tx}.verify(ctx, &r)
	}
	if err == nil && r.OK() {
		err = conn{s, s.tx}.checkQueues(ctx, &r)
	}
	return r, wrap(ctx, err, "verify")
}

// engineNames are the databases that each dialect is for.
var engineNames = map[Dialect]string{Postgres: "PostgreSQL", SQLite: "SQLite", Turso: "Turso or libSQL"}

// checkEngine returns an error if the database is not what the dialect says. It asks until it knows.
func (s *Store) checkEngine(ctx context.Context) error {
	if s.engineKnown.Load() {
		return nil
	}
	_, err := conn{s, nil}.engine(ctx)
	s.engineKnown.Store(err == nil)
	return err
}

// engine returns the database's own name and version, or an error if it is not what the dialect says.
func (c conn) engine(ctx context.Context) (string, error) {
	name, err := c.nameAs(ctx, c.store.name)
	if err != nil {
		return "", c.mistaken(ctx, err)
	}
	if isTurso(name) && c.store.name != Turso {
		return "", c.store.mistakenFor(name)
	}
	return name, c.checkEncoding(ctx)
}

// checkEncoding returns an error if text is not UTF-8 on its way to the database and back: keys
// would not be found, and messages would be leased and not read.
func (c conn) checkEncoding(ctx context.Context) error {
	encoding, err := c.text(ctx, c.store.dialect.schema.encoding)
	if err != nil || encoding == "" || strings.EqualFold(strings.ReplaceAll(encoding, "-", ""), "UTF8") {
		return err
	}
	return fmt.Errorf("%w: the encoding of text is %s, and has to be UTF-8: that of a SQLite file from its beginning, and client_encoding on PostgreSQL",
		ErrUnsupported, encoding)
}

// nameAs asks the database what it is, in the words of a dialect.
func (c conn) nameAs(ctx context.Context, d Dialect) (string, error) {
	texts := dialects[d].schema
	name, err := c.text(ctx, texts.engine)
	if err != nil {
		return "", err
	}
	for _, text := range texts.turso {
		turso, err := c.text(ctx, text)
		if err != nil && !containsAny(err, []string{"no such function"}) {
			return "", err
		}
		if err == nil && isTurso(turso) {
			name = turso
		}
	}
	return name, nil
}

func isTurso(engine string) bool { return strings.HasPrefix(engine, "Turso ") }

// mistaken returns what is wrong if a database of another kind answers, and err otherwise.
func (c conn) mistaken(ctx context.Context, err error) error {
	if unreachable(err) || ctx.Err() != nil {
		return err
	}
	for _, d := range []Dialect{Postgres, SQLite} {
		if d == c.store.name {
			continue
		}
		if name, otherErr := c.nameAs(ctx, d); otherErr == nil && name != "" {
			return c.store.mistakenFor(name)
		}
	}
	return err
}

func (s *Store) mistakenFor(engine string) error {
	return fmt.Errorf("%w: this is %s, not %s; give the Store the dialect of its database", ErrUnsupported, engine, engineNames[s.name])
}

// text runs a query of one row and column.
func (c conn) text(ctx context.Context, text string) (answer string, err error) {
	err = c.rows(ctx, text, nil, func(rows *sql.Rows) error { return rows.Scan(&answer) })
	return answer, err
}

func (c conn) verify(ctx context.Context, r *Report) error {
	d := c.store.dialect
	var err error
	if r.Engine, err = c.engine(ctx); err != nil {
		return err
	}
	if err := c.checkSettings(ctx, r); err != nil {
		return err
	}
	if err := c.rights(ctx, r); err != nil {
		return err
	}
	known, err := d.all()
	if err != nil {
		return err
	}
	r.Library = known[len(known)-1].version
	if r.hidden() {
		return nil
	}
	there, err := c.objects(ctx)
	if err != nil {
		return err
	}
	foreign := c.store.checkOwn(known, there)
	if foreign != nil {
		r.Warnings = append(r.Warnings, unprefixed(foreign))
	}
	for _, o := range missingOf(known, there) {
		r.Missing = append(r.Missing, o.String())
	}
	r.unread = slices.Contains(r.Denied, "SELECT on pgqrs_migrations")
	if foreign != nil || r.unread || !there.has("table", "pgqrs_migrations", "") {
		return nil
	}
	applied, err := c.versions(ctx)
	if err != nil {
		return err
	}
	for _, a := range applied {
		r.Schema = max(r.Schema, a.version)
		if a.version > r.Library {
			r.Newer = append(r.Newer, fmt.Sprintf("%d (%s)", a.version, a.name))
		}
	}
	if err := tooNew(applied, known); err != nil {
		r.tooNew = true
		r.Warnings = append(r.Warnings, err.Error())
	}
	return nil
}

// rights finds out which rights of a Worker this user lacks.
func (c conn) rights(ctx context.Context, r *Report) error {
	for _, text := range c.store.dialect.schema.rights {
		err := c.rows(ctx, text, nil, func(rows *sql.Rows) error {
			var right string
			err := rows.Scan(&right)
			r.Denied = append(r.Denied, right)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hidden reports whether this user may not see what is in the schema, so that nothing can be missed there.
func (r *Report) hidden() bool {
	return slices.ContainsFunc(r.Denied, func(right string) bool { return strings.HasPrefix(right, "USAGE on schema ") })
}

// singleWriter is the concurrency of a database that does one write after the other.
const singleWriter = "single-writer"

func (s *Store) concurrency() string {
	if s.cfg.Concurrent {
		return "experimental"
	}
	return s.dialect.concurrency
}

// settingWarnings are the answers of the dialects' settings that are worth a warning.
var settingWarnings = map[string]map[string]string{
	"read_only":          {"on": readOnly, "1": readOnly},
	"fsync":              {"off": "a crash of the server's machine can corrupt the database"},
	"synchronous_commit": {"off": "what was enqueued or acked in the last moments before a crash of the server is lost"},
	"journal_mode":       {"delete": noWAL, "truncate": noWAL, "persist": noWAL, "off": "a crash can corrupt the database"},
	"busy_timeout":       {"0": "a call fails at once while another process writes; set it to 5000 ms on every connection"},
	"synchronous":        {"0": "a power cut can corrupt the database; set it to NORMAL or FULL on every connection"},
}

// mvccTimeout is the warning of a busy timeout in MVCC mode: the engine ends the
// process (Turso 0.7.2, "transaction should exist in txs map") where an INSERT
// of BEGIN CONCURRENT has to wait for a transaction that began otherwise.
const mvccTimeout = "in MVCC mode the engine may end the process when an INSERT waits for another transaction; set it to 0 on every connection, conflicts are tried again anyway"

const readOnly = "nothing can be enqueued or worked: it is a standby, or set to be read-only"

const noWAL = "readers and writers keep each other out; set it to WAL"

// checkSettings asks one connection for its settings, and the pool for its size.
func (c conn) checkSettings(ctx context.Context, r *Report) error {
	settings := c.store.dialect.schema.settings
	names := slices.Sorted(maps.Keys(settings))
	answers := map[string]string{}
	for _, name := range names {
		var err error
		if answers[name], err = c.text(ctx, settings[name]); err != nil {
			return err
		}
	}
	for _, name := range names {
		warning := settingWarnings[name][answers[name]]
		if name == "busy_timeout" && answers["journal_mode"] == "mvcc" {
			warning = map[bool]string{false: mvccTimeout}[answers[name] == "0"]
		}
		if warning != "" {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s is %s: %s", name, answers[name], warning))
		}
	}
	if warning := c.walReset(r.Engine, answers["journal_mode"]); warning != "" {
		r.Warnings = append(r.Warnings, warning)
	}
	if c.store.db.Stats().MaxOpenConnections == 1 {
		r.Warnings = append(r.Warnings, "the pool has one connection (SetMaxOpenConns(1)): code that uses the *sql.DB while it has a transaction open waits for itself; allow at least 2")
	}
	if !c.store.cfg.Concurrent || c.tx != nil {
		return nil
	}
	err := c.store.beginConcurrent(ctx)
	if errors.Is(err, errNoConcurrent) || errors.Is(err, errNoMVCC) {
		r.Warnings = append(r.Warnings, err.Error())
		return nil
	}
	return err
}

// The WAL-reset bug of SQLite, of which 3.7.0 to 3.51.2 have it; see docs/BACKENDS.md. These releases of a branch, and all later ones of it, have the fix.
var walResetFixes = [][3]int{{3, 44, 6}, {3, 50, 7}, {3, 51, 3}}

// walReset warns of an engine that can corrupt a database in WAL mode. Turso is not made of SQLite's code.
func (c conn) walReset(engine, journal string) string {
	var version [3]int
	if n, _ := fmt.Sscanf(engine, "SQLite %d.%d.%d", &version[0], &version[1], &version[2]); n < 3 || journal != "wal" {
		return ""
	}
	if slices.Compare(version[:], walResetFixes[len(walResetFixes)-1][:]) >= 0 {
		return ""
	}
	for _, fix := range walResetFixes {
		if version[1] == fix[1] && version[2] >= fix[2] {
			return ""
		}
	}
	return fmt.Sprintf("%s of the driver %s has SQLite's WAL-reset bug: a commit during a checkpoint can corrupt the database, rarely; "+
		"take a driver with SQLite 3.51.3 or newer (libSQL has none yet), or keep to one connection in one process", engine, driverPackage(c.store.db.Driver()))
}

// driverPackage is the package of a driver's type.
func driverPackage(d driver.Driver) string {
	t := reflect.TypeOf(d)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return cmp.Or(t.PkgPath(), t.String())
}

// maxUnattended is how many queues one report names.
const maxUnattended = 20

// An unattendedQueue has had a ready message for so long that nobody takes.
type unattendedQueue struct {
	name   string
	oldest time.Duration
}

// unattended finds queues with messages that have been ready for so long, and that no live worker takes from.
func (c conn) unattended(ctx context.Context, waited time.Duration) ([]unattendedQueue, error) {
	var list []unattendedQueue
	args := []any{silence.Microseconds(), waited.Microseconds(), maxUnattended}
	err := c.rows(ctx, c.store.dialect.queue.unattended, args, func(rows *sql.Rows) error {
		var q unattendedQueue
		var oldest int64
		_, err := scanLoosely(rows, "queue oldest", &q.name, &oldest) // that of a malformed message has no age
		q.oldest = durationOf(oldest)
		list = append(list, q)
		return err
	})
	return list, err
}

// checkQueues warns of queues that no live worker takes from.
func (c conn) checkQueues(ctx context.Context, r *Report) error {
	list, err := c.unattended(ctx, 0)
	if len(r.Denied) > 0 && sqlState(err) == insufficientPrivilege {
		return nil // which Denied says
	}
	for _, q := range list {
		r.Warnings = append(r.Warnings, fmt.Sprintf("queue %q has ready messages, the oldest for %s, and no live worker takes them", q.name, shortDuration(q.oldest.Round(time.Second))))
	}
	return err
}

// reportDatabase logs what Verify has to say of the database.
func (r *running) reportDatabase(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, readingTimeout)
	defer cancel()
	var report Report
	if err := (conn{r.store, nil}).verify(limited, &report); err != nil {
		r.upkeepFailed(ctx, "look at the database's settings", err)
		return
	}
	for _, warning := range report.Warnings {
		r.log.Warn("pgqrs: the database is not set up as it should be", "engine", report.Engine, "warning", warning)
	}
	if len(report.Denied) > 0 {
		r.log.Warn("pgqrs: this user lacks rights that a worker needs", "denied", strings.Join(report.Denied, ", "))
	}
	if len(report.Missing) > 0 {
		r.log.Warn("pgqrs: the schema is not complete; call Install", "missing", strings.Join(report.Missing, ", "))
	}
}

// reportUnattended logs which queues no live worker takes from. A worker that is just being started again is not missed.
func (r *running) reportUnattended(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, readingTimeout)
	defer cancel()
	list, err := conn{r.store, nil}.unattended(limited, silence)
	if err != nil {
		r.upkeepFailed(ctx, "look for queues without workers", err)
		return
	}
	for _, q := range list {
		r.log.Warn("pgqrs: a queue has ready messages, and no live worker takes them", "queue", q.name, "oldest", q.oldest.Round(time.Second))
	}
}
