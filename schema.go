package pgqrs

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// A migration is one numbered file.
type migration struct {
	version    int64
	name       string
	statements []string
}

// Each statement of a file is a block between goose's markers, because go-libsql would run only the
// first of several statements.
var (
	doBlock   = regexp.MustCompile(`(?s)-- \+goose StatementBegin\n(.*?)\n-- \+goose StatementEnd`)
	addColumn = regexp.MustCompile(`^ALTER TABLE (\w+) ADD COLUMN (\w+)`)
)

// all returns the dialect's migrations in order.
func (d *dialect) all() ([]migration, error) {
	dir := "migrations/" + d.migrations
	files, err := fs.ReadDir(migrations, dir)
	if err != nil {
		return nil, err
	}
	var list []migration
	for _, file := range files { // sorted by name
		text, err := fs.ReadFile(migrations, dir+"/"+file.Name())
		if err != nil {
			return nil, err
		}
		number, rest, _ := strings.Cut(file.Name(), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, err
		}
		m := migration{version: version, name: strings.TrimSuffix(rest, ".up.sql")}
		for _, found := range doBlock.FindAllStringSubmatch(string(text), -1) {
			m.statements = append(m.statements, found[1])
		}
		list = append(list, m)
	}
	return list, nil
}

// Install makes the tables, or brings them up to date. It works on an empty database, on a database
// that an older version of this library installed, and on a database that pgqrs 0.15 installed. It
// loses nothing, may be repeated, and may be called by many processes at once. If there is nothing
// to do, it only reads. It makes Config.Schema if that does not exist. Under Config.Concurrent it
// puts a Turso database into MVCC mode, which stays with the file.
//
// Install returns an error matching ErrUnsupported if:
//   - Config.Concurrent is set and the database has no BEGIN CONCURRENT.
//   - a newer version of the library has changed the schema so that this version cannot work on it.
//   - the database is not what the dialect says.
//   - the encoding of text is not UTF-8.
//
// It returns an error matching ErrState, and changes nothing, if a table, view or type of the
// application has one of the library's names. On PostgreSQL Config.Schema keeps the two apart.
func (s *Store) Install(ctx context.Context) error {
	err := s.pooled("Install")
	if err == nil {
		err = explainRefusal(s.install(ctx))
	}
	return wrap(ctx, err, "install")
}

// explainRefusal explains why the database refuses to make the tables.
func explainRefusal(err error) error {
	switch {
	case sqlerr.NoSchema(err):
		return fmt.Errorf("%w: search_path names no schema that exists and that this user may use; set it, or Config.Schema (%w)", ErrUnsupported, &rawError{err})
	case sqlerr.Denied(err):
		return fmt.Errorf(lackedRight+" that Install needs; have one that owns the schema call it (%w)", err)
	}
	return err
}

// A rawError is an error of the database that wrap must not classify.
type rawError struct{ err error }

func (e *rawError) Error() string { return e.err.Error() }

func (s *Store) install(ctx context.Context) error {
	known, err := s.dialect.all()
	if err != nil {
		return err
	}
	if err := s.checkEngine(ctx); err != nil {
		return err
	}
	if s.cfg.Concurrent {
		if err := s.enableConcurrent(ctx); err != nil {
			return err
		}
	}
	applied, err := s.onPool().versions(ctx)
	if err != nil && !sqlerr.Missing(err) {
		return err
	}
	if err == nil {
		if err := tooNew(applied, known); err != nil {
			return err
		}
		there, err := s.onPool().objects(ctx)
		if err != nil {
			return err
		}
		if len(pendingOf(known, applied, there)) == 0 {
			if shared, indexed, err := s.onPool().usesInterop(ctx); err != nil || !shared || indexed {
				return err
			}
		}
	}
	return s.exclusive(ctx, func(c conn) error { return c.migrate(ctx, known) })
}

// enableConcurrent makes sure that write transactions can begin. If they need MVCC mode, it puts
// the database into that mode.
func (s *Store) enableConcurrent(ctx context.Context) error {
	err := s.beginConcurrent(ctx)
	if !errors.Is(err, errNoMVCC) {
		return err
	}
	enable := func() error {
		return s.onPool().rows(ctx, s.dialect.requireMVCC, nil, func(*sql.Rows) error { return nil })
	}
	if err := s.retry(ctx, enable); err != nil {
		return err
	}
	return s.beginConcurrent(ctx)
}

// beginConcurrent returns an error if write transactions cannot begin.
func (s *Store) beginConcurrent(ctx context.Context) error {
	return s.atomic(ctx, func(conn) error { return nil })
}

// migrate applies the missing migrations, with other installers kept out.
func (c conn) migrate(ctx context.Context, known []migration) error {
	d := c.store.dialect
	if err := c.rows(ctx, d.schema.lock, nil, func(*sql.Rows) error { return nil }); err != nil {
		return err
	}
	if c.store.cfg.Schema != "" {
		if err := c.makeSchema(ctx); err != nil {
			return err
		}
	}
	there, err := c.objects(ctx)
	if err != nil {
		return err
	}
	if err := c.store.checkOwn(known, there); err != nil {
		return err
	}
	var applied []appliedMigration
	if there.has("table", "pgqrs_migrations", "") {
		if applied, err = c.versions(ctx); err != nil {
			return err
		}
	}
	pending := pendingOf(known, applied, there)
	for _, m := range pending {
		for _, statement := range m.statements {
			// SQLite has no ADD COLUMN IF NOT EXISTS.
			if col := addColumn.FindStringSubmatch(statement); col != nil && there.has("column", col[1], col[2]) {
				continue
			}
			if _, err := c.exec(ctx, statement); err != nil {
				return fmt.Errorf("migration %d (%s): %w", m.version, m.name, err)
			}
		}
	}
	if err := c.checkMade(ctx, pending); err != nil {
		return err
	}
	return c.joinInterop(ctx)
}

// checkMade returns an error if migrations have not made everything. IF NOT EXISTS makes nothing if
// another object has the name.
func (c conn) checkMade(ctx context.Context, done []migration) error {
	if len(done) == 0 {
		return nil
	}
	there, err := c.objects(ctx)
	if err != nil {
		return err
	}
	missing := missingOf(done, there)
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%w: there is no %v yet, so something of the application has its name; %s", ErrState, missing[0], c.store.elsewhere())
}

func (c conn) makeSchema(ctx context.Context) error {
	exists := false
	err := c.rows(ctx, c.store.dialect.schema.exists, []any{c.store.cfg.Schema}, func(*sql.Rows) error {
		exists = true
		return nil
	})
	if err != nil || exists {
		return err
	}
	// The name is an identifier that check has passed.
	_, err = c.exec(ctx, c.store.dialect.schema.make+`"`+c.store.cfg.Schema+`"`)
	return err
}

// Uninstall drops every table that Install makes, with all rows. After that the Store may Install
// again. Uninstall keeps a type that was there before Install, and a type that a table of the
// application uses. It returns an error matching ErrState, and drops nothing, if pgqrs 0.15
// installed the tables, or if one of the tables is not the library's.
func (s *Store) Uninstall(ctx context.Context) error {
	err := s.pooled("Uninstall")
	if err == nil {
		err = s.exclusive(ctx, func(c conn) error { return c.uninstall(ctx) })
	}
	if err == nil {
		s.forget()
	}
	return wrap(ctx, err, "uninstall")
}

// forget drops the Store's state about dropped tables: the rows of Dequeue's consumers, and
// prepared statements.
func (s *Store) forget() {
	s.mu.Lock()
	if !s.closed {
		s.consumers = map[string]*consumer{}
	}
	s.mu.Unlock()
	s.collisions.Clear()
	if err := s.prepared.forget(s.core); err != nil {
		s.log.Warn("pgqrs: could not close prepared statements", "err", err)
	}
}

func (c conn) uninstall(ctx context.Context) error {
	d := c.store.dialect
	if err := c.rows(ctx, d.schema.lock, nil, func(*sql.Rows) error { return nil }); err != nil {
		return err
	}
	there, err := c.objects(ctx)
	if err != nil {
		return err
	}
	for _, table := range []string{"_sqlx_migrations", "pgqrs_schema_version"} {
		if there.has("table", table, "") {
			return fmt.Errorf("%w: there is a table %s, so pgqrs 0.15 may have installed the tables; drop them by hand", ErrState, table)
		}
	}
	known, err := d.all()
	if err != nil {
		return err
	}
	if err := c.store.checkOwn(known, there); err != nil {
		return err
	}
	for _, text := range d.schema.drop {
		if _, err := c.exec(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// checkOwn returns an error if an object that is not the library's has the name of one of its
// tables or types.
func (s *Store) checkOwn(known []migration, there schemaObjects) error {
	for o := range there {
		if o.kind == "other" {
			return fmt.Errorf("%w: %s is the application's: it is a %s; %s", ErrState, o.table, o.name, s.elsewhere())
		}
	}
	for _, want := range baseMigration(known) {
		owner := schemaObject{kind: "table", table: want.table}
		if want.kind == "value" {
			owner.kind = "type"
		}
		if there[owner] && !there[want] {
			return fmt.Errorf("%w: %s is the application's: it has no %s %s; %s", ErrState, owner, want.kind, want.name, s.elsewhere())
		}
	}
	return nil
}

// elsewhere advises how to keep the library and the application apart.
func (s *Store) elsewhere() string {
	if s.dialect.schemas {
		return "give the library a schema of its own by Config.Schema"
	}
	return "give the library a database file of its own"
}

// baseMigration lists the objects that the library's tables and types have had from their
// beginning, in pgqrs 0.15 too.
func baseMigration(known []migration) []schemaObject {
	var list []schemaObject
	added := map[schemaObject]bool{}
	for _, m := range known {
		for _, statement := range m.statements {
			if found := createTable.FindStringSubmatch(statement); found != nil {
				for _, column := range columnLine.FindAllStringSubmatch(found[2], -1) {
					list = append(list, schemaObject{"column", found[1], column[1]})
				}
			}
			for _, found := range createEnum.FindAllStringSubmatch(statement, -1) {
				for _, label := range enumLabel.FindAllStringSubmatch(found[2], -1) {
					list = append(list, schemaObject{"value", found[1], label[1]})
				}
			}
			if found := addValue.FindStringSubmatch(statement); found != nil {
				added[schemaObject{"value", found[1], found[2]}] = true
			}
		}
	}
	return slices.DeleteFunc(list, func(o schemaObject) bool { return added[o] })
}

// A schemaObject is a table, column, index or trigger, or an enumerated type or a value of one.
type schemaObject struct{ kind, table, name string }

func (o schemaObject) String() string {
	switch o.kind {
	case "table", "type":
		return o.kind + " " + o.table
	case "value":
		return fmt.Sprintf("value %s of type %s", o.name, o.table)
	}
	return fmt.Sprintf("%s %s of table %s", o.kind, o.name, o.table)
}

type schemaObjects map[schemaObject]bool

func (o schemaObjects) has(kind, table, name string) bool { return o[schemaObject{kind, table, name}] }

var (
	createTable   = regexp.MustCompile(`(?s)^CREATE TABLE IF NOT EXISTS (\w+) \((.*)\)$`)
	createTrigger = regexp.MustCompile(`CREATE TRIGGER (\w+) BEFORE [\w ]+ ON (\w+)`)
	createIndex   = regexp.MustCompile(`^CREATE (?:UNIQUE )?INDEX IF NOT EXISTS (\w+) ON (\w+)`)
	columnLine    = regexp.MustCompile(`(?m)^\t([a-z_]+) `)
	addMissing    = regexp.MustCompile(`^ALTER TABLE (\w+) ADD COLUMN (?:IF NOT EXISTS )?(\w+)`)
	createEnum    = regexp.MustCompile(`CREATE TYPE (\w+) AS ENUM \(([^)]*)\)`)
	enumLabel     = regexp.MustCompile(`'(\w+)'`)
	addValue      = regexp.MustCompile(`^ALTER TYPE (\w+) ADD VALUE IF NOT EXISTS '(\w+)'`)
)

// schemaObjectsOf lists the objects that the migrations make.
func schemaObjectsOf(known []migration) []schemaObject {
	var list []schemaObject
	for _, m := range known {
		for _, statement := range m.statements {
			if found := createTable.FindStringSubmatch(statement); found != nil {
				list = append(list, schemaObject{"table", found[1], ""})
				for _, column := range columnLine.FindAllStringSubmatch(found[2], -1) {
					list = append(list, schemaObject{"column", found[1], column[1]})
				}
			}
			if found := addMissing.FindStringSubmatch(statement); found != nil {
				list = append(list, schemaObject{"column", found[1], found[2]})
			}
			if found := addValue.FindStringSubmatch(statement); found != nil {
				list = append(list, schemaObject{"value", found[1], found[2]})
			}
			if found := createIndex.FindStringSubmatch(statement); found != nil {
				list = append(list, schemaObject{"index", found[2], found[1]})
			}
			if found := createTrigger.FindStringSubmatch(statement); found != nil {
				list = append(list, schemaObject{"trigger", found[2], found[1]})
			}
		}
	}
	return list
}

// missingOf lists the objects that the migrations make and that do not exist.
func missingOf(known []migration, there schemaObjects) []schemaObject {
	return slices.DeleteFunc(schemaObjectsOf(known), func(o schemaObject) bool { return there[o] })
}

func (c conn) objects(ctx context.Context) (schemaObjects, error) {
	there := schemaObjects{}
	err := c.rows(ctx, c.store.dialect.schema.objects, nil, func(rows *sql.Rows) error {
		var o schemaObject
		err := rows.Scan(&o.kind, &o.table, &o.name)
		there[o] = true
		return err
	})
	return there, err
}

// An appliedMigration is a row of pgqrs_migrations. A library that was made for a schema version
// older than oldest cannot work on the schema.
type appliedMigration struct {
	version int64
	name    string
	oldest  int64
}

func (c conn) versions(ctx context.Context) ([]appliedMigration, error) {
	var list []appliedMigration
	err := c.rows(ctx, c.store.dialect.schema.versions, nil, func(rows *sql.Rows) error {
		var a appliedMigration
		err := rows.Scan(&a.version, &a.name, &a.oldest)
		list = append(list, a)
		return err
	})
	return list, err
}

// pendingOf returns the migrations that have not been applied, or whose objects do not all exist
// any more.
func pendingOf(known []migration, applied []appliedMigration, there schemaObjects) []migration {
	return slices.DeleteFunc(slices.Clone(known), func(m migration) bool {
		recorded := slices.ContainsFunc(applied, func(a appliedMigration) bool { return a.version == m.version })
		return recorded && len(missingOf([]migration{m}, there)) == 0
	})
}

// tooNew returns an error if the schema is too new for this library.
func tooNew(applied []appliedMigration, known []migration) error {
	library := known[len(known)-1].version
	for _, a := range applied {
		if a.oldest > library {
			return fmt.Errorf("%w: schema version %d (%s) needs a library of schema version %d or newer; this one is of version %d: upgrade it",
				ErrUnsupported, a.version, a.name, a.oldest, library)
		}
	}
	return nil
}

// Writers is how many may write to a database at once.
type Writers string

const (
	// ManyWriters may write at once, in any number of processes, as on PostgreSQL.
	ManyWriters Writers = "multi-process"
	// SingleWriter means that writers take turns, as on SQLite and Turso.
	SingleWriter Writers = "single-writer"
	// ConcurrentWriters may write at once under [Config].Concurrent, which is experimental.
	ConcurrentWriters Writers = "experimental"
)

// A Report is the result of Verify.
type Report struct {
	Dialect Dialect `json:"dialect"`
	// Engine is the database's own name and version.
	Engine string `json:"engine"`
	// Writers is how many may write at once.
	Writers Writers `json:"writers"`
	// SchemaVersion is the version of the installed schema. LibraryVersion is the version that this
	// library installs.
	SchemaVersion  int64 `json:"schema_version"`
	LibraryVersion int64 `json:"library_version"`
	// Missing names tables, columns and indexes that should exist. If it is not empty, call
	// Install.
	Missing []string `json:"missing,omitempty"`
	// Denied names rights that a Worker needs and that this user lacks, such as "UPDATE on
	// pgqrs_messages", on PostgreSQL. Other callers need fewer rights, which docs/BACKENDS.md
	// lists. Install does not help.
	Denied []string `json:"denied,omitempty"`
	// Newer names migrations that this library does not know.
	Newer []string `json:"newer,omitempty"`
	// Warnings are further findings: settings of the database that lose data or that make calls of
	// other processes fail, and a pool that is too small. The settings are read on one connection
	// of the pool.
	Warnings []string `json:"warnings,omitempty"`

	tooNew bool // whether this library is too old for it
	unread bool // whether this user may not read the version of the schema
}

// OK reports whether the library can work on the database. Missing rights do not count, since roles
// need different ones, except the right to use the schema.
func (r Report) OK() bool {
	return len(r.Missing) == 0 && (r.SchemaVersion >= r.LibraryVersion || r.unread) && !r.tooNew
}

// Verify inspects the installed schema, and does not rely on version numbers. It changes nothing.
// The following are not errors but part of the Report:
//   - a schema that is missing, older or newer
//   - queues with ready messages that no live worker takes
//   - queues with limits that no policy can have
//   - rights that this user lacks
//
// SchemaVersion is 0 if the user may not read it. Verify returns an error matching ErrUnsupported
// if the database is not what the dialect says, or if the encoding of text is not UTF-8.
func (s *Store) Verify(ctx context.Context) (Report, error) {
	err := s.usable()
	r := Report{Dialect: s.name}
	if err == nil {
		r.Writers = s.writers()
		err = s.conn().verify(ctx, &r)
	}
	if err == nil && r.OK() {
		err = s.conn().checkQueues(ctx, &r)
	}
	return r, wrap(ctx, err, "verify")
}

// checkEngine returns an error if the database is not what the dialect says. It asks the database
// until it has an answer.
func (s *Store) checkEngine(ctx context.Context) error {
	if s.engineKnown.Load() {
		return nil
	}
	_, err := s.onPool().engine(ctx)
	s.engineKnown.Store(err == nil)
	return err
}

// engine returns the database's own name and version, or an error if the database is not what the
// dialect says.
func (c conn) engine(ctx context.Context) (string, error) {
	name, err := c.nameAs(ctx, c.store.name)
	if err != nil {
		return "", c.wrongEngine(ctx, err)
	}
	if isTurso(name) && !c.store.dialect.turso {
		return "", c.store.mistakenFor(name)
	}
	return name, c.checkEncoding(ctx)
}

// checkEncoding returns an error if text is not UTF-8 on its way to the database and back. Keys
// would then not be found, and leased messages would not be readable.
func (c conn) checkEncoding(ctx context.Context) error {
	encoding, err := c.queryText(ctx, c.store.dialect.schema.encoding)
	if err != nil || encoding == "" || strings.EqualFold(strings.ReplaceAll(encoding, "-", ""), "UTF8") {
		return err
	}
	return fmt.Errorf("%w: the encoding of text is %s, and has to be UTF-8: that of a SQLite file from its beginning, and client_encoding on PostgreSQL",
		ErrUnsupported, encoding)
}

// nameAs asks the database for its name, by the statement of a dialect.
func (c conn) nameAs(ctx context.Context, d Dialect) (string, error) {
	texts := dialects[d].schema
	name, err := c.queryText(ctx, texts.engine)
	if err != nil {
		return "", err
	}
	for _, text := range texts.turso {
		turso, err := c.queryText(ctx, text)
		if err != nil && !sqlerr.NoFunction(err) {
			return "", err
		}
		if err == nil && isTurso(turso) {
			name = turso
		}
	}
	return name, nil
}

func isTurso(engine string) bool { return strings.HasPrefix(engine, "Turso ") }

// wrongEngine returns an error that names the engine if the database is of another kind. Otherwise
// it returns err.
func (c conn) wrongEngine(ctx context.Context, err error) error {
	if sqlerr.Unreachable(err) || ctx.Err() != nil {
		return err
	}
	for _, d := range slices.Sorted(maps.Keys(dialects)) {
		if dialects[d].schema.engine == c.store.dialect.schema.engine {
			continue
		}
		if name, otherErr := c.nameAs(ctx, d); otherErr == nil && name != "" {
			return c.store.mistakenFor(name)
		}
	}
	return err
}

func (s *Store) mistakenFor(engine string) error {
	return fmt.Errorf("%w: this is %s, not %s; give the Store the dialect of its database", ErrUnsupported, engine, s.dialect.engineName)
}

// queryText runs a query of one row and column.
func (c conn) queryText(ctx context.Context, text string) (answer string, err error) {
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
	r.LibraryVersion = known[len(known)-1].version
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
		r.SchemaVersion = max(r.SchemaVersion, a.version)
		if a.version > r.LibraryVersion {
			r.Newer = append(r.Newer, fmt.Sprintf("%d (%s)", a.version, a.name))
		}
	}
	if err := tooNew(applied, known); err != nil {
		r.tooNew = true
		r.Warnings = append(r.Warnings, err.Error())
	}
	return nil
}

// rights adds the rights of a Worker that this user lacks.
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

// hidden reports whether this user cannot see the objects of the schema, so that none can be called
// missing.
func (r *Report) hidden() bool {
	return slices.ContainsFunc(r.Denied, func(right string) bool { return strings.HasPrefix(right, "USAGE on schema ") })
}

func (s *Store) writers() Writers {
	if s.cfg.Concurrent {
		return ConcurrentWriters
	}
	return s.dialect.writers
}

// singleWriter reports whether the database has one writer at a time.
func (s *Store) singleWriter() bool { return s.dialect.singleWriter && !s.cfg.Concurrent }

// settingWarnings maps the dialects' settings and their values to warnings.
var settingWarnings = map[string]map[string]string{
	"read_only":          {"on": readOnly, "1": readOnly},
	"fsync":              {"off": "a crash of the server's machine can corrupt the database"},
	"synchronous_commit": {"off": "what was enqueued or acked in the last moments before a crash of the server is lost"},
	"journal_mode":       {"delete": noWAL, "truncate": noWAL, "persist": noWAL, "off": "a crash can corrupt the database"},
	"busy_timeout":       {"0": "a call fails at once while another process writes; set it to 5000 ms on every connection"},
	"synchronous":        {"0": "a power cut can corrupt the database; set it to NORMAL or FULL on every connection"},
}

// mvccTimeout is the warning about a busy timeout in MVCC mode. There the engine ends the process
// (Turso 0.7.2, "transaction should exist in txs map") if an INSERT of BEGIN CONCURRENT has to wait
// for a transaction that began otherwise.
const mvccTimeout = "in MVCC mode the engine may end the process when an INSERT waits for another transaction; set it to 0 on every connection, conflicts are tried again anyway"

const readOnly = "nothing can be enqueued or worked: it is a standby, or set to be read-only"

const noWAL = "readers and writers keep each other out; set it to WAL"

// checkSettings checks the settings of one connection, and the size of the pool.
func (c conn) checkSettings(ctx context.Context, r *Report) error {
	settings := c.store.dialect.schema.settings
	names := slices.Sorted(maps.Keys(settings))
	answers := map[string]string{}
	for _, name := range names {
		var err error
		if answers[name], err = c.queryText(ctx, settings[name]); err != nil {
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
	if versionWarning := c.store.dialect.versionWarning; versionWarning != nil {
		if warning := versionWarning(r.Engine, answers["journal_mode"], driverPackage(c.store.db.Driver())); warning != "" {
			r.Warnings = append(r.Warnings, warning)
		}
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

// walResetFixes are the first releases of their branches without the WAL-reset bug of SQLite. The
// releases 3.7.0 to 3.51.2 have the bug. See docs/BACKENDS.md.
var walResetFixes = [][3]int{{3, 44, 6}, {3, 50, 7}, {3, 51, 3}}

// walResetWarning returns a warning about an engine that can corrupt a database in WAL mode. Turso
// does not consist of SQLite's code.
func walResetWarning(engine, journal, driver string) string {
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
		"take a driver with SQLite 3.51.3 or newer (libSQL has none yet), or keep to one connection in one process", engine, driver)
}

// driverPackage is the package of a driver's type.
func driverPackage(d driver.Driver) string {
	t := reflect.TypeOf(d)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return cmp.Or(t.PkgPath(), t.String())
}

// maxUnattended is how many queues a report names.
const maxUnattended = 20

// An unattendedQueue has a message that has been ready for long, and no worker that takes it.
type unattendedQueue struct {
	name   string
	oldest time.Duration
}

// unattended returns queues with messages that have been ready for as long as waited and that no
// live worker takes.
func (c conn) unattended(ctx context.Context, waited time.Duration) ([]unattendedQueue, error) {
	var list []unattendedQueue
	args := []any{heartbeatTimeout.Microseconds(), waited.Microseconds(), maxUnattended}
	err := c.rows(ctx, c.store.dialect.queue.unattended, args, func(rows *sql.Rows) error {
		var q unattendedQueue
		var oldest int64
		_, err := scanLoosely(rows, "queue oldest", &q.name, &oldest) // a malformed message has no age
		q.oldest = durationOf(oldest)
		list = append(list, q)
		return err
	})
	return list, err
}

// checkQueues adds warnings of queues without a live worker, and of invalid limits.
func (c conn) checkQueues(ctx context.Context, r *Report) error {
	list, err := c.unattended(ctx, 0)
	if len(r.Denied) > 0 && sqlerr.Denied(err) {
		return nil // Denied has the reason
	}
	if err != nil {
		return err
	}
	for _, q := range list {
		r.Warnings = append(r.Warnings, fmt.Sprintf("queue %q has ready messages, the oldest for %s, and no live worker takes them", q.name, shortDuration(q.oldest.Round(time.Second))))
	}
	names, err := c.misfits(ctx)
	for _, name := range names {
		r.Warnings = append(r.Warnings, fmt.Sprintf("queue %q has limits that no policy can have, and is served as if it had none; a worker of the queue, or Configure, writes its policy again", name))
	}
	return err
}

// misfits returns queues whose rows have limits that no policy can have.
func (c conn) misfits(ctx context.Context) (names []string, err error) {
	err = c.rows(ctx, c.store.dialect.queue.misfit, []any{maxUnattended}, func(rows *sql.Rows) error {
		var name string
		_, err := scanLoosely(rows, "name", &name)
		names = append(names, name)
		return err
	})
	return names, err
}

// usesInterop reports whether pgqrs 0.15 works on the tables too, and whether Install has made the
// indexes for that. A message of pgqrs 0.15 refers to the workers that sent and received it, by
// foreign keys if pgqrs 0.15 made the tables. A worker's row can only be deleted when no message
// refers to it, archived messages included.
func (c conn) usesInterop(ctx context.Context) (shared, indexed bool, err error) {
	err = c.rows(ctx, c.store.dialect.schema.interop, nil, func(rows *sql.Rows) error {
		shared = true
		return rows.Scan(&indexed)
	})
	return shared, indexed, err
}

// joinInterop makes the missing objects for a database that pgqrs 0.15 works on too.
func (c conn) joinInterop(ctx context.Context) error {
	shared, indexed, err := c.usesInterop(ctx)
	if err != nil || !shared || indexed {
		return err
	}
	for _, text := range c.store.dialect.schema.joinInterop {
		if _, err := c.exec(ctx, text); err != nil {
			return err
		}
	}
	return nil
}
