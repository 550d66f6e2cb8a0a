package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A migration is one numbered file.
type migration struct {
	version    int64
	name       string
	statements []string
}

// Statements stand between goose's markers, one a block: go-libsql would run
// only the first of several.
var (
	block     = regexp.MustCompile(`(?s)-- \+goose StatementBegin\n(.*?)\n-- \+goose StatementEnd`)
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
		for _, found := range block.FindAllStringSubmatch(string(text), -1) {
			m.statements = append(m.statements, found[1])
		}
		list = append(list, m)
	}
	return list, nil
}

// Install makes the tables, or brings them up to date: on an empty database,
// on one that an older version of this library installed, and on one that
// pgqrs 0.15 did. It loses nothing, may be repeated, and may be called by many
// processes at once. With nothing to do it only reads. It makes Config.Schema
// if that does not exist, and under Config.Concurrent it puts a Turso database
// into MVCC mode, which stays with the file.
//
// It returns an error matching ErrUnsupported under Config.Concurrent if the
// database has no BEGIN CONCURRENT, and if a newer version of the
// library has changed the schema so that this one cannot work on it. It returns one
// matching ErrUnsupported as well if the database is not what the dialect says, or if the encoding of text is not UTF-8. It returns one
// matching ErrState, and changes nothing, if a table, view or type of the application has one of the library's names;
// on PostgreSQL Config.Schema keeps the two apart.
func (s *Store) Install(ctx context.Context) error {
	err := s.pooled("Install")
	if err == nil {
		err = explainRefusal(s.install(ctx))
	}
	return wrap(ctx, err, "install")
}

// explainRefusal says what keeps Install from making tables.
func explainRefusal(err error) error {
	switch sqlState(err) {
	case "3F000": // invalid_schema_name, of a CREATE TABLE
		return fmt.Errorf("%w: search_path names no schema that exists and that this user may use; set it, or Config.Schema (%w)", ErrUnsupported, &rawError{err})
	case insufficientPrivilege:
		return fmt.Errorf(lackedRight+" that Install needs; have one that owns the schema call it (%w)", err)
	}
	return err
}

// A rawError is one of the database's from which nothing more is to be concluded.
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
	applied, err := conn{s, nil}.versions(ctx)
	if err != nil && !missing(err) {
		return err
	}
	if err == nil {
		if err := tooNew(applied, known); err != nil {
			return err
		}
		there, err := conn{s, nil}.objects(ctx)
		if err != nil {
			return err
		}
		if len(pendingOf(known, applied, there)) == 0 {
			if shared, indexed, err := (conn{s, nil}).shared(ctx); err != nil || !shared || indexed {
				return err
			}
		}
	}
	return s.alone(ctx, func(c conn) error { return c.migrate(ctx, known) })
}

// enableConcurrent sees that write transactions can begin, and puts the
// database into MVCC mode if that is what they lack.
func (s *Store) enableConcurrent(ctx context.Context) error {
	err := s.beginConcurrent(ctx)
	if !errors.Is(err, errNoMVCC) {
		return err
	}
	enable := func() error {
		return conn{s, nil}.rows(ctx, s.dialect.mvcc, nil, func(*sql.Rows) error { return nil })
	}
	if err := s.retry(ctx, enable); err != nil {
		return err
	}
	return s.beginConcurrent(ctx)
}

// beginConcurrent finds out whether write transactions can begin.
func (s *Store) beginConcurrent(ctx context.Context) error {
	return s.atomic(ctx, func(conn) error { return nil })
}

// migrate applies what is missing, with other installers kept out.
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
	return c.share(ctx)
}

// checkMade finds out whether migrations have made everything: IF NOT EXISTS passes over what has the name of something else.
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
	err := c.rows(ctx, "/* pgqrs:schema.exists */ SELECT 1 FROM pg_namespace WHERE nspname = $1", []any{c.store.cfg.Schema}, func(*sql.Rows) error {
		exists = true
		return nil
	})
	if err != nil || exists {
		return err
	}
	// The name is an identifier that check has passed.
	_, err = c.exec(ctx, `/* pgqrs:schema.make */ CREATE SCHEMA "`+c.store.cfg.Schema+`"`)
	return err
}

// Uninstall drops every table that Install makes, with all that is in them. The
// Store may go on to Install them anew. It leaves a type that was there before Install, and one that a table of the
// application uses. It returns an error matching ErrState, and drops nothing, if pgqrs 0.15 installed the tables, whose they are
// then, and if one of them is not the library's.
func (s *Store) Uninstall(ctx context.Context) error {
	err := s.pooled("Uninstall")
	if err == nil {
		err = s.alone(ctx, func(c conn) error { return c.uninstall(ctx) })
	}
	if err == nil {
		s.forget()
	}
	return wrap(ctx, err, "uninstall")
}

// forget drops what the Store knows of tables that are gone: the rows of Dequeue's consumers, and prepared statements.
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

// checkOwn returns an error if something has the name of one of the library's tables or types and is not that.
func (s *Store) checkOwn(known []migration, there objects) error {
	for o := range there {
		if o.kind == "other" {
			return fmt.Errorf("%w: %s is the application's: it is a %s; %s", ErrState, o.table, o.name, s.elsewhere())
		}
	}
	for _, want := range foundation(known) {
		owner := object{kind: "table", table: want.table}
		if want.kind == "value" {
			owner.kind = "type"
		}
		if there[owner] && !there[want] {
			return fmt.Errorf("%w: %s is the application's: it has no %s %s; %s", ErrState, owner, want.kind, want.name, s.elsewhere())
		}
	}
	return nil
}

// elsewhere says how the library and the application keep out of each other's way.
func (s *Store) elsewhere() string {
	if s.dialect.schemas {
		return "give the library a schema of its own by Config.Schema"
	}
	return "give the library a database file of its own"
}

// foundation lists what has been in the library's tables and types from their beginning, in pgqrs 0.15 too.
func foundation(known []migration) []object {
	var list []object
	added := map[object]bool{}
	for _, m := range known {
		for _, statement := range m.statements {
			if found := createTable.FindStringSubmatch(statement); found != nil {
				for _, column := range columnLine.FindAllStringSubmatch(found[2], -1) {
					list = append(list, object{"column", found[1], column[1]})
				}
			}
			for _, found := range createEnum.FindAllStringSubmatch(statement, -1) {
				for _, label := range enumLabel.FindAllStringSubmatch(found[2], -1) {
					list = append(list, object{"value", found[1], label[1]})
				}
			}
			if found := addValue.FindStringSubmatch(statement); found != nil {
				added[object{"value", found[1], found[2]}] = true
			}
		}
	}
	return slices.DeleteFunc(list, func(o object) bool { return added[o] })
}

// An object is a table, column or index, or an enumerated type or a value of one.
type object struct{ kind, table, name string }

func (o object) String() string {
	switch o.kind {
	case "table", "type":
		return o.kind + " " + o.table
	case "value":
		return fmt.Sprintf("value %s of type %s", o.name, o.table)
	}
	return fmt.Sprintf("%s %s of table %s", o.kind, o.name, o.table)
}

type objects map[object]bool

func (o objects) has(kind, table, name string) bool { return o[object{kind, table, name}] }

var (
	createTable = regexp.MustCompile(`(?s)^CREATE TABLE IF NOT EXISTS (\w+) \((.*)\)$`)
	createIndex = regexp.MustCompile(`^CREATE (?:UNIQUE )?INDEX IF NOT EXISTS (\w+) ON (\w+)`)
	columnLine  = regexp.MustCompile(`(?m)^\t([a-z_]+) `)
	addMissing  = regexp.MustCompile(`^ALTER TABLE (\w+) ADD COLUMN (?:IF NOT EXISTS )?(\w+)`)
	createEnum  = regexp.MustCompile(`CREATE TYPE (\w+) AS ENUM \(([^)]*)\)`)
	enumLabel   = regexp.MustCompile(`'(\w+)'`)
	addValue    = regexp.MustCompile(`^ALTER TYPE (\w+) ADD VALUE IF NOT EXISTS '(\w+)'`)
)

// wanted lists what the migrations make.
func wanted(known []migration) []object {
	var list []object
	for _, m := range known {
		for _, statement := range m.statements {
			if found := createTable.FindStringSubmatch(statement); found != nil {
				list = append(list, object{"table", found[1], ""})
				for _, column := range columnLine.FindAllStringSubmatch(found[2], -1) {
					list = append(list, object{"column", found[1], column[1]})
				}
			}
			if found := addMissing.FindStringSubmatch(statement); found != nil {
				list = append(list, object{"column", found[1], found[2]})
			}
			if found := addValue.FindStringSubmatch(statement); found != nil {
				list = append(list, object{"value", found[1], found[2]})
			}
			if found := createIndex.FindStringSubmatch(statement); found != nil {
				list = append(list, object{"index", found[2], found[1]})
			}
		}
	}
	return list
}

// missingOf lists what the migrations make and is not there.
func missingOf(known []migration, there objects) []object {
	return slices.DeleteFunc(wanted(known), func(o object) bool { return there[o] })
}

func (c conn) objects(ctx context.Context) (objects, error) {
	there := objects{}
	err := c.rows(ctx, c.store.dialect.schema.objects, nil, func(rows *sql.Rows) error {
		var o object
		err := rows.Scan(&o.kind, &o.table, &o.name)
		there[o] = true
		return err
	})
	return there, err
}

// An appliedMigration is a row of pgqrs_migrations. oldest is the oldest
// schema version that a library may have been made for and still work.
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

// pendingOf returns the migrations that have not been applied, or of whose
// work something has gone since.
func pendingOf(known []migration, applied []appliedMigration, there objects) []migration {
	return slices.DeleteFunc(slices.Clone(known), func(m migration) bool {
		recorded := slices.ContainsFunc(applied, func(a appliedMigration) bool { return a.version == m.version })
		return recorded && len(missingOf([]migration{m}, there)) == 0
	})
}

// tooNew reports that the schema has moved on too far for this library.
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
