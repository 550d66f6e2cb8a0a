//go:build unix

package orm_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"github.com/uptrace/bun/schema"
	pggorm "gorm.io/driver/postgres"
	litegorm "gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	_ "modernc.org/sqlite"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// A database has the library's tables, and a table of the application.
type database struct {
	*sql.DB
	dialect pgqrs.Dialect
	store   *pgqrs.Store
}

func open(t *testing.T, driver, dsn string, dialect pgqrs.Dialect) database {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	store := pgqrs.New(db, dialect)
	must(t, store.Install(t.Context()))
	_, err = db.ExecContext(t.Context(), `CREATE TABLE users (name TEXT)`)
	must(t, err)
	return database{db, dialect, store}
}

// onEach runs a test on a database of each kind.
func onEach(t *testing.T, test func(t *testing.T, db database)) {
	t.Run("SQLite", func(t *testing.T) {
		test(t, open(t, "sqlite", "file:"+filepath.Join(t.TempDir(), "q.db")+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)", pgqrs.SQLite))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		test(t, open(t, "postgres", postgres.Schema(t, "postgres"), pgqrs.Postgres))
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// messages counts the messages in the queue.
func (db database) messages(t *testing.T) int {
	t.Helper()
	queues, err := db.store.Queues(t.Context(), "welcome")
	must(t, err)
	if len(queues) == 0 {
		return 0
	}
	return int(queues[0].Ready)
}

// enqueue enqueues a message in a transaction.
func (db database) enqueue(ctx context.Context, tx pgqrs.Tx) error {
	_, err := pgqrs.NewQueue[string](db.store, "welcome").WithTx(tx).Enqueue(ctx, "ada")
	return err
}

func (db database) gorm(t *testing.T, prepare bool) *gorm.DB {
	t.Helper()
	dialector := gorm.Dialector(litegorm.New(litegorm.Config{Conn: db.DB}))
	if db.dialect == pgqrs.Postgres {
		dialector = pggorm.New(pggorm.Config{Conn: db.DB})
	}
	orm, err := gorm.Open(dialector, &gorm.Config{PrepareStmt: prepare, Logger: logger.Discard})
	must(t, err)
	return orm
}

func (db database) sqlx() *sqlx.DB {
	return sqlx.NewDb(db.DB, map[pgqrs.Dialect]string{pgqrs.Postgres: "postgres", pgqrs.SQLite: "sqlite3"}[db.dialect])
}

func (db database) bun() *bun.DB {
	dialect := schema.Dialect(sqlitedialect.New())
	if db.dialect == pgqrs.Postgres {
		dialect = pgdialect.New()
	}
	return bun.NewDB(db.DB, dialect)
}

var errNo = errors.New("the application changes its mind")

// A library begins a transaction with a row of the application and runs fn in it. It commits the
// transaction unless fn fails.
type library struct {
	name string
	run  func(t *testing.T, db database, fn func(pgqrs.Tx) error) error
}

func viaGORM(prepare bool) func(t *testing.T, db database, fn func(pgqrs.Tx) error) error {
	return func(t *testing.T, db database, fn func(pgqrs.Tx) error) error {
		return db.gorm(t, prepare).WithContext(t.Context()).Transaction(func(tx *gorm.DB) error {
			if err := tx.Exec("INSERT INTO users (name) VALUES (?)", "ada").Error; err != nil {
				return err
			}
			return fn(tx.Statement.ConnPool)
		})
	}
}

var libraries = []library{
	{"a *sqlx.Tx", func(t *testing.T, db database, fn func(pgqrs.Tx) error) error {
		tx, err := db.sqlx().BeginTxx(t.Context(), nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.NamedExecContext(t.Context(), "INSERT INTO users (name) VALUES (:name)", map[string]any{"name": "ada"}); err != nil {
			return err
		}
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Commit()
	}},
	{"GORM's ConnPool", viaGORM(false)},
	{"GORM's ConnPool with PrepareStmt", viaGORM(true)},
	{"the Tx in a bun.Tx", func(t *testing.T, db database, fn func(pgqrs.Tx) error) error {
		return db.bun().RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
			if _, err := tx.NewRaw("INSERT INTO users (name) VALUES (?)", "ada").Exec(ctx); err != nil {
				return err
			}
			return fn(tx.Tx)
		})
	}},
}

// A message that is enqueued in a library's transaction exists if and only if the transaction
// commits.
func TestTransactionsOfOtherLibraries(t *testing.T) {
	onEach(t, func(t *testing.T, db database) {
		for _, l := range libraries {
			t.Run(l.name, func(t *testing.T) {
				before := db.messages(t)
				err := l.run(t, db, func(tx pgqrs.Tx) error { return errors.Join(db.enqueue(t.Context(), tx), errNo) })
				if err == nil || err.Error() != errNo.Error() {
					t.Fatalf("the transaction that is rolled back: %v", err)
				}
				if n := db.messages(t); n != before {
					t.Errorf("%d messages after the rollback, %d before", n, before)
				}
				for range 3 { // so that prepared statements are used again
					must(t, l.run(t, db, func(tx pgqrs.Tx) error { return db.enqueue(t.Context(), tx) }))
				}
				if n := db.messages(t); n != before+3 {
					t.Errorf("%d messages after three commits, %d before", n, before)
				}
			})
		}
	})
}

// A library's pool is no transaction: a message that is enqueued with it would exist after a
// rollback.
func TestPoolsOfOtherLibrariesAreRefused(t *testing.T) {
	onEach(t, func(t *testing.T, db database) {
		conn, err := db.sqlx().Connx(t.Context())
		must(t, err)
		defer conn.Close()
		bunConn, err := db.bun().Conn(t.Context())
		must(t, err)
		defer bunConn.Close()
		bunTx, err := db.bun().BeginTx(t.Context(), nil)
		must(t, err)
		defer bunTx.Rollback()
		for name, tx := range map[string]pgqrs.Tx{
			"a *sqlx.DB":                          db.sqlx(),
			"a *sqlx.Conn":                        conn,
			"a nil *sqlx.Tx":                      (*sqlx.Tx)(nil),
			"GORM's pool":                         db.gorm(t, false).Statement.ConnPool,
			"GORM's pool of prepared statements":  db.gorm(t, true).Statement.ConnPool,
			"a bun.Conn":                          bunConn,
			"a bun.Tx, which rewrites statements": bunTx,
		} {
			if err := db.enqueue(t.Context(), tx); !errors.Is(err, pgqrs.ErrUnsupported) {
				t.Errorf("%s: error is %v; want one that matches ErrUnsupported", name, err)
			}
		}
		if n := db.messages(t); n != 0 {
			t.Errorf("%d messages are there", n)
		}
	})
}
