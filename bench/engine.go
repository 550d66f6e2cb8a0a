package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	_ "github.com/lib/pq"
	_ "github.com/ncruces/go-sqlite3/driver"

	"github.com/pgqrs/pgqrs-go"
)

// An engine is a kind of database with its driver and the durability of its commits. The library
// and the hand-written loops both run on it.
type engine struct {
	name        string // the value of the flag -engine
	title       string
	dialect     pgqrs.Dialect
	driver      string
	synchronous string // SQLite's PRAGMA, or empty on PostgreSQL
	parameters  string // more parameters of the DSN, on SQLite
	base        string // on PostgreSQL the DSN, otherwise a directory
	statements  *statements
	raw         rawSQL
	server      *server // if this program has started one
}

// made numbers the databases of this process.
var made atomic.Int64

// Sizes of pools. Every peer that allows a choice gets PostgreSQL's size.
const (
	postgresConns = 16
	sqliteConns   = 4
)

// counting returns the engine with pools that count their statements.
func (e *engine) counting(s *statements) *engine {
	counting := *e
	counting.statements = s
	return &counting
}

func (e *engine) postgres() bool { return e.dialect == pgqrs.Postgres }

// conns returns the default size of a pool.
func (e *engine) conns() int {
	if e.postgres() {
		return postgresConns
	}
	return sqliteConns
}

// A database is new and empty. The method drop removes it.
type database struct {
	*sql.DB
	engine *engine
	dsn    string
	schema string // on PostgreSQL
	dir    string // otherwise
}

// fresh creates a database: a schema on PostgreSQL, otherwise a file.
func (e *engine) fresh(ctx context.Context, conns int) (*database, error) {
	d := &database{engine: e}
	if e.postgres() {
		d.schema = fmt.Sprintf("bench_%d_%d", os.Getpid(), made.Add(1))
		if err := e.admin(ctx, "CREATE SCHEMA "+d.schema); err != nil {
			return nil, err
		}
		d.dsn = withParameter(e.base, "search_path", d.schema)
	} else {
		dir, err := os.MkdirTemp(e.base, "sqlite-")
		if err != nil {
			return nil, err
		}
		d.dir = dir
		d.dsn = "file:" + filepath.Join(dir, "queue.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=foreign_keys(on)&_pragma=synchronous(" + e.synchronous + ")" + e.parameters
	}
	var err error
	if d.DB, err = e.open(d.dsn, conns); err == nil {
		err = d.PingContext(ctx) // only one connection may turn on WAL
	}
	return d, err
}

// open opens a pool that keeps all its connections.
func (e *engine) open(dsn string, conns int) (*sql.DB, error) {
	db, err := sql.Open(e.driver, dsn)
	if err != nil {
		return nil, err
	}
	if e.statements != nil {
		db = sql.OpenDB(e.statements.connector(db.Driver(), dsn))
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// admin runs one statement outside every pool.
func (e *engine) admin(ctx context.Context, statement string) error {
	db, err := sql.Open(e.driver, e.base)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, statement)
	return err
}

// withParameter adds a parameter to a DSN in URL or key=value form.
func withParameter(dsn, name, value string) string {
	if !strings.Contains(dsn, "://") {
		return dsn + " " + name + "=" + value
	}
	if strings.Contains(dsn, "?") {
		return dsn + "&" + name + "=" + value
	}
	return dsn + "?" + name + "=" + value
}

// drop closes the pool and removes the database.
func (d *database) drop() error {
	err := d.Close()
	if d.schema == "" {
		return errors.Join(err, os.RemoveAll(d.dir))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(err, d.engine.admin(ctx, "DROP SCHEMA "+d.schema+" CASCADE"))
}

// settle is called after a database is filled, before the clock starts. It does work that the
// filling has left to do, so that no contestant pays for it. On PostgreSQL it runs VACUUM ANALYZE
// on the tables, and on SQLite a checkpoint.
func (d *database) settle(ctx context.Context) error {
	if d.schema != "" {
		return d.engine.vacuum(ctx, d.schema)
	}
	var busy, log, done int
	return d.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done)
}

// vacuum runs VACUUM ANALYZE on the tables of a schema.
func (e *engine) vacuum(ctx context.Context, schema string) error {
	db, err := sql.Open(e.driver, e.base)
	if err != nil {
		return err
	}
	defer db.Close()
	var tables sql.NullString
	err = db.QueryRowContext(ctx, "SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables WHERE schemaname = $1", schema).Scan(&tables)
	if err == nil && tables.Valid {
		_, err = db.ExecContext(ctx, "VACUUM ANALYZE "+tables.String)
	}
	return err
}

// count returns the number that a query selects.
func (d *database) count(ctx context.Context, query string, args ...any) (int, error) {
	var n int
	err := d.QueryRowContext(ctx, query, args...).Scan(&n)
	return n, err
}

// archived counts the archived messages.
func (d *database) archived(ctx context.Context) (int, error) {
	return d.count(ctx, "SELECT count(*) FROM pgqrs_messages WHERE archived_at IS NOT NULL AND failed_at IS NULL")
}

// stored counts the messages in all states.
func (d *database) stored(ctx context.Context) (int, error) {
	return d.count(ctx, "SELECT count(*) FROM pgqrs_messages")
}

// A logbook collects the library's warnings.
type logbook struct {
	slog.Handler
	warnings atomic.Int64
	first    atomic.Pointer[string]
}

func newLogbook() *logbook { return &logbook{Handler: slog.DiscardHandler} }

func (l *logbook) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	l.warnings.Add(1)
	l.first.CompareAndSwap(nil, &text)
	return nil
}

func (l *logbook) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *logbook) WithGroup(string) slog.Handler      { return l }

// err returns an error if there were warnings. The rate of a run that lost leases or claims is not
// meaningful.
func (l *logbook) err() error {
	if n := l.warnings.Load(); n > 0 {
		return fmt.Errorf("the library warned %d times; first: %s", n, *l.first.Load())
	}
	return nil
}

// store returns a Store on the database.
func (d *database) store(l *logbook) *pgqrs.Store {
	return pgqrs.Config{Logger: slog.New(l)}.New(d.DB, d.engine.dialect)
}

// installed creates a database with the library's tables.
func (e *engine) installed(ctx context.Context, conns int) (*database, error) {
	d, err := e.fresh(ctx, conns)
	if err != nil {
		return nil, err
	}
	store := pgqrs.New(d.DB, e.dialect)
	return d, errors.Join(store.Install(ctx), store.Close())
}
