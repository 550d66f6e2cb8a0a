package pgqrs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"

	"github.com/pgqrs/pgqrs-go/internal/dsn"
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

func (c Config) openOn(ctx context.Context, text, goos string) (*Store, error) {
	hide := dsn.SecretsOf(text, c.EncryptionKey)
	src, err := dsn.Parse(text)
	if err != nil {
		return nil, hide.Redact(wrap(ctx, unsupported(err), "open"))
	}
	s, err := c.open(ctx, src, goos, hide)
	if err != nil {
		return nil, hide.Redact(wrap(ctx, unsupported(err), "open %s %q", src.Dialect, src.Place))
	}
	return s, nil
}

func (c Config) open(ctx context.Context, src dsn.Source, goos string, hide dsn.Secrets) (*Store, error) {
	settings := dsn.Settings{Schema: c.Schema, VFS: c.VFS, Cipher: c.Cipher, EncryptionKey: c.EncryptionKey, Concurrent: c.Concurrent}
	if err := src.Merge(&settings); err != nil {
		return nil, err
	}
	pool, err := src.Open(ctx, goos, hide)
	if err != nil {
		return nil, err
	}
	pool.DB.SetMaxIdleConns(maxIdle)
	c.Schema, c.Concurrent = settings.Schema, settings.Concurrent
	c.VFS, c.Cipher, c.EncryptionKey = "", "", ""
	s := c.New(pool.DB, Dialect(src.Dialect))
	s.ownsDB = true
	if err := s.configErr; err != nil {
		return nil, errors.Join(err, pool.DB.Close())
	}
	if pool.Note != "" {
		s.log.Warn("pgqrs: a part of the DSN is left aside", "why", pool.Note)
	}
	err = s.retry(ctx, func() error { return pool.DB.PingContext(ctx) })
	if err == nil {
		err = s.checkEngine(ctx)
	}
	if err != nil {
		return nil, errors.Join(pool.Explain(err), pool.DB.Close())
	}
	return s, nil
}

// unsupported makes an error of package dsn match ErrUnsupported, if it matches that of the
// package.
func unsupported(err error) error {
	if !errors.Is(err, dsn.ErrUnsupported) {
		return err
	}
	return &unsupportedError{err}
}

type unsupportedError struct{ err error }

func (e *unsupportedError) Error() string        { return e.err.Error() }
func (e *unsupportedError) Unwrap() error        { return e.err }
func (e *unsupportedError) Is(target error) bool { return target == ErrUnsupported }

// maxIdle is how many connections stay open, as many as a Worker runs handlers.
// database/sql's own 2 make it open and close them all the time.
const maxIdle = 16

// Format prints the Config as [fmt] would, without the encryption key.
func (c Config) Format(f fmt.State, verb rune) {
	type plain Config // has no Format
	if c.EncryptionKey != "" {
		c.EncryptionKey = dsn.Redacted
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), plain(c))
}

// LogValue implements [slog.LogValuer]. It leaves the encryption key out.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("%+v", c)) }
