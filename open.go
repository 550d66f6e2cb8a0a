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

// Open opens the database that a DSN names and returns a Store that owns it: [Store.Close] closes
// the *sql.DB. Open connects once, so that a wrong address, password or key is an error of Open. It
// does not call [Store.Install]. ctx bounds Open alone, not the later use of the Store.
//
//	postgres://user:password@host/database    also postgresql://
//	sqlite:queue.db                           also sqlite://queue.db; sqlite::memory:
//	                                          sqlite:///var/lib/queue.db
//	turso:queue.db                            also turso://queue.db, file:queue.db; turso::memory:
//
// The application imports a driver, and Open finds the driver by the name that it registers:
//   - postgres (lib/pq), or else pgx (pgx's stdlib)
//   - sqlite3 (ncruces or mattn), or else sqlite (modernc)
//   - turso, or else libsql
//
// On each connection to a file Open sets WAL, a busy timeout of 5 s, foreign keys, and synchronous
// NORMAL. A database in memory is shared by all connections of the Store and lasts as long as the
// Store. docs/BACKENDS.md names the import that it needs. The pool keeps up to 16 idle connections,
// which can be changed through [Store.DB].
//
// Options are parameters of the DSN's query. The text after a path is decoded, so write %3F for a ?
// in it. An option that is a field of Config too may be set there instead.
//
//	schema=NAME                         Config.Schema, on PostgreSQL, where all
//	                                    other parameters are the driver's
//	synchronous=full                    a commit survives a loss of power; with
//	                                    normal, a loss of power may lose the
//	                                    commits since the last checkpoint, and
//	                                    nothing else
//	mvcc=1                              Config.Concurrent
//	vfs=auto|syscall|io_uring|memory    Config.VFS
//	encryption_key=HEX, cipher=NAME     Config.EncryptionKey, Config.Cipher
//
// Open returns an error matching ErrUnsupported if:
//   - a scheme or option is unknown.
//   - an option is given twice or differs from its field.
//   - the driver does not support an option.
//
// Errors and logs never contain the key or a password. The error of a connecting driver may contain
// the DSN, so it is not in the chain of Open's error. The function [errors.Is] finds what the
// driver's error matches. The function [errors.As] finds in it a *net.OpError and a method
// SQLState() string, and nothing else.
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

// unsupported makes an error of package dsn match ErrUnsupported if it matches dsn.ErrUnsupported.
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

// maxIdle is how many connections stay open, as many as a Worker runs handlers. The default of
// database/sql is 2, with which it opens and closes connections all the time.
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
