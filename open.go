package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
)

// Open opens the database that a DSN names, with default settings. See [Config.Open].
func Open(ctx context.Context, dsn string) (*Store, error) { return Config{}.Open(ctx, dsn) }

// Open opens the database that a DSN names and returns a Store that owns it:
// [Store.Close] closes the *sql.DB. It connects once, so that a wrong address,
// password or key is an error here, and leaves [Store.Install] to the caller.
// ctx bounds Open alone, not what is done with the Store.
//
//	postgres://user:password@host/database    also postgresql://
//	sqlite:queue.db                           also sqlite://queue.db; sqlite:///var/lib/queue.db; sqlite::memory:
//	turso:queue.db                            also turso://queue.db, file:queue.db; turso::memory:
//
// The application imports a driver; Open finds it by the name it registers:
// postgres (lib/pq), else pgx (pgx's stdlib); sqlite3 (ncruces or mattn), else
// sqlite (modernc); turso, else libsql. On each connection to a file it sets
// what a queue needs: WAL, a busy timeout of 5 s, foreign keys, synchronous
// NORMAL. A database in memory is shared by all connections of the Store and
// lasts as long as it; docs/BACKENDS.md says what to import for it. The pool
// keeps up to 16 connections that are idle; [Store.DB] can be told otherwise.
//
// Options stand in the query. What follows a path is decoded: write %3F for a ?
// in it. Those that are fields of Config too may be given there instead.
//
//	schema=NAME                             Config.Schema, on PostgreSQL; all other parameters are the driver's there
//	synchronous=full                        a commit survives a loss of power; normal may lose those since the last checkpoint then, and nothing else
//	mvcc=1                                  Config.Concurrent
//	vfs=auto|syscall|io_uring|memory        Config.VFS
//	encryption_key=HEX, cipher=NAME         Config.EncryptionKey, Config.Cipher
//
// An unknown scheme or option, an option given twice, a field and an option
// that disagree, and what the driver does not have are errors matching
// ErrUnsupported. No error, and nothing that is logged, has the key or a
// password in it. Errors of a driver that connects are in no chain, since they
// may hold the DSN: [errors.Is] finds what they match, [errors.As] finds a
// *net.OpError and a method SQLState() string, and nothing else of them.
func (c Config) Open(ctx context.Context, dsn string) (*Store, error) {
	return c.openOn(ctx, dsn, runtime.GOOS)
}

func (c Config) openOn(ctx context.Context, dsn, goos string) (*Store, error) {
	hide := secretsOf(dsn, c.EncryptionKey)
	src, err := parseDSN(dsn)
	if err != nil {
		return nil, hide.from(wrap(ctx, err, "open"))
	}
	src.goos = goos
	s, err := c.open(ctx, src, hide)
	if err != nil {
		return nil, hide.from(wrap(ctx, err, "open %s %q", src.dialect, src.place))
	}
	return s, nil
}

func (c Config) open(ctx context.Context, src source, hide secrets) (*Store, error) {
	if err := src.merge(&c); err != nil {
		return nil, err
	}
	found, err := find(src.dialect, sql.Drivers())
	if err != nil {
		return nil, err
	}
	p, err := found.plan(src)
	if err != nil {
		return nil, err
	}
	pool, err := p.open(ctx, found, hide)
	if err != nil {
		return nil, p.explain(err)
	}
	pool.SetMaxIdleConns(maxIdle)
	c.VFS, c.Cipher, c.EncryptionKey = "", "", ""
	s := c.New(pool, src.dialect)
	s.owned = true
	if err := s.bad; err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	if p.note != "" {
		s.log.Warn("pgqrs: a part of the DSN is left aside", "why", p.note)
	}
	err = s.retry(ctx, func() error { return pool.PingContext(ctx) })
	if err == nil {
		err = s.checkEngine(ctx)
	}
	if err != nil {
		return nil, errors.Join(p.explain(err), pool.Close())
	}
	return s, nil
}

// maxIdle is how many connections stay open, as many as a Worker runs handlers.
// database/sql's own 2 make it open and close them all the time.
const maxIdle = 16
