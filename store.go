package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/coalesce"
	"github.com/pgqrs/pgqrs-go/internal/foreign"
)

// Config holds what a [Store] can be told. Its zero value is ready to use.
// Printed or logged it does not show the encryption key, unless it is in an
// unexported field of something else.
type Config struct {
	// Schema is the PostgreSQL schema that holds the tables: up to 63 of
	// letters, digits, _ and $, not beginning with a digit or $. Empty means
	// that search_path decides.
	Schema string

	// NoPrepare turns prepared statements off, which a Store makes of what it
	// has sent ten times. Set it behind a pooler that hands each
	// transaction to another server connection, where they are not safe. Without
	// it the Store looks for such a pooler before it prepares the first.
	NoPrepare bool

	// Concurrent opens write transactions with BEGIN CONCURRENT, on a Turso
	// database in MVCC mode, so that several write at a time. One that meets a
	// conflict with another is run again, up to 25 times in about 5 s; then the
	// call returns the database's error. Several consumers of a queue may then
	// take messages of one priority in any order; one by itself keeps it.
	// Experimental.
	Concurrent bool

	// VFS says how Turso reaches its file: "syscall", "io_uring" (on Linux;
	// elsewhere syscall is used, and the Logger told) or "auto", which leaves
	// it to the engine. "memory" is a database in memory, on every driver of
	// SQLite's family, that Stores of this process share by its path. For Open only.
	VFS string

	// EncryptionKey is the key of an encrypted file, in hexadecimal; empty
	// means that it is not encrypted. Cipher names the cipher; empty means the
	// driver's default. A Cipher without a key is an error, so that naming one
	// guards against a key that got lost. For Open only; docs/BACKENDS.md says
	// which drivers have encryption.
	EncryptionKey, Cipher string

	// Limits bounds what may be enqueued.
	Limits Limits

	// StrictPayloads refuses a field that the type of a queue's payload or a
	// workflow's input does not have, at any depth. A message with one goes to
	// the dead letters, and a run ends as Failed, as if the payload did not
	// decode. Results of steps and children and signals are not concerned: a
	// run that is under way reads them again after a deploy, and its records must
	// not be refused because a type has lost a field. A type with an
	// UnmarshalJSON method decides for itself.
	StrictPayloads bool

	// Logger gets what happens where nobody waits for an error: in workers.
	// Nil discards it.
	Logger *slog.Logger

	// Observer is called as messages move. Nil calls nothing.
	Observer *Observer

	// Notifier tells Workers in other processes of new messages at once,
	// rather than by their next poll. Nil leaves it to the polls.
	Notifier Notifier

	// Headers returns headers for a message that is being enqueued with ctx,
	// such as a trace context. The Headers option wins over it, key by key. A name that is
	// reserved for the library (see [Headers]) is an error of the call.
	// Nil adds none.
	Headers func(ctx context.Context) map[string]string
}

// Version is the version of this library.
const Version = "0.1.0"

// An Observer is called as messages move. A nil field is skipped. The
// functions run in line: they should return at once, and must be safe for
// concurrent use. More fields may be added.
type Observer struct {
	// Enqueued is called after messages were stored; in a caller's transaction, before it commits.
	Enqueued func(ctx context.Context, queue string, ids []int64)
	// Claimed is called with each message that was leased.
	Claimed func(ctx context.Context, m *MessageInfo)
	// Finished is called by a Worker when a handler has returned: after how long, and with what.
	Finished func(ctx context.Context, m *MessageInfo, took time.Duration, err error)
	// Stepping is called in a workflow before the function of a step is, for each attempt. What it
	// returns is the ctx that the function and Stepped get; it must descend from the one that
	// Stepping is given. A nil one changes nothing.
	Stepping func(ctx context.Context, runID int64, step string) context.Context
	// Stepped is called in a workflow when the function of a step has returned: after how long, and
	// with what.
	Stepped func(ctx context.Context, runID int64, step string, took time.Duration, err error)
}

// safely returns the Observer with functions whose panics are logged, and change nothing.
func (o *Observer) safely(failures *failureLogs) *Observer {
	if o == nil {
		return nil
	}
	call := func(name string) func(func()) {
		failure := failures.key("Observer." + name)
		return func(fn func()) {
			if err := foreign.Catch(fn); err != nil {
				failure.Error("pgqrs: a function of the Observer panicked", "function", name, "err", err)
				return
			}
			failure.over()
		}
	}
	safe := *o
	if fn := o.Enqueued; fn != nil {
		call := call("Enqueued")
		safe.Enqueued = func(ctx context.Context, queue string, ids []int64) { call(func() { fn(ctx, queue, ids) }) }
	}
	if fn := o.Claimed; fn != nil {
		call := call("Claimed")
		safe.Claimed = func(ctx context.Context, m *MessageInfo) { call(func() { fn(ctx, m) }) }
	}
	if fn := o.Finished; fn != nil {
		call := call("Finished")
		safe.Finished = func(ctx context.Context, m *MessageInfo, took time.Duration, err error) {
			call(func() { fn(ctx, m, took, err) })
		}
	}
	if fn := o.Stepping; fn != nil {
		call := call("Stepping")
		safe.Stepping = func(ctx context.Context, runID int64, step string) (changed context.Context) {
			call(func() { changed = fn(ctx, runID, step) })
			return changed
		}
	}
	if fn := o.Stepped; fn != nil {
		call := call("Stepped")
		safe.Stepped = func(ctx context.Context, runID int64, step string, took time.Duration, err error) {
			call(func() { fn(ctx, runID, step, took, err) })
		}
	}
	return &safe
}

// A Store is a database that holds queues. It is safe for concurrent use, and
// meant to be made once and kept. One that [Open] made owns its *sql.DB; one
// that [New] made does not.
//
// Errors of all its methods, and of everything made from it, name what was
// asked for and match ErrNotInstalled when the tables are missing, and
// context.Canceled or context.DeadlineExceeded when ctx is done.
type Store struct {
	*core
	tx          Tx        // nil: the pool
	err         error     // why tx cannot be used
	afterCommit *[]func() // of a transaction of the library's own: what to tell once it has committed
	notified    *sync.Map // of a transaction: queues that the Notifier was told of, so that it is once
}

// core is what a Store and its copies in transactions share.
type core struct {
	db        *sql.DB
	name      Dialect
	dialect   *dialect
	cfg       Config
	log       *slog.Logger
	configErr error // why no call can work
	ownsDB    bool  // whether Close closes db

	engineKnown atomic.Bool // the database is what the dialect says

	failures       failureLogs
	poolSizeMu     sync.Mutex // held where the pool is made larger
	rate           *bucket    // nil: no limit
	notifications  notifications
	prepared       preparedCache
	texts          sync.Map // text to its rendering for cfg.Schema
	acks           coalesce.Group[[]settlement, []int64]
	stepWrites     coalesce.Group[stepWrite, RunState]
	unblockRetries unblockRetries
	writer         writerSlot
	collisions     sync.Map // queue to when a claim of it last had to be made again, a time.Time

	mu        sync.Mutex
	closed    bool
	consumers map[string]*consumer                          // worker rows of Dequeue, by queue
	wakers    map[string]map[*waker]struct{}                // workers of this process, by queue
	enqueuers map[string]*coalesce.Group[enqueueRow, int64] // by queue
	localRuns localRuns
	runPoller runPoller
}

// New returns a Store on db with default settings. See [Config.New].
func New(db *sql.DB, d Dialect) *Store { return Config{}.New(db, d) }

// New returns a Store on db. It does no I/O and never fails: a nil db, an
// unknown dialect or a bad setting makes every call return an error that says so.
// The caller closes db, after the Store.
func (c Config) New(db *sql.DB, d Dialect) *Store {
	s := &core{db: db, name: d, cfg: c, log: foreign.NewLogger(c.Logger), consumers: map[string]*consumer{}, wakers: map[string]map[*waker]struct{}{},
		enqueuers: map[string]*coalesce.Group[enqueueRow, int64]{}}
	s.failures.log = s.log
	s.cfg.Observer = c.Observer.safely(&s.failures)
	s.cfg.EncryptionKey = "" // nothing needs it any more
	s.prepared.off = c.NoPrepare
	if s.dialect, s.configErr = c.check(db, d); s.configErr == nil {
		s.rate = newBucket(c.Limits)
	}
	pool := &Store{core: s}
	if s.configErr == nil && pool.singleWriter() {
		s.writer = make(writerSlot, 1)
	}
	s.acks.Alone, s.acks.Together = pool.settle, pool.settleTogether
	s.stepWrites.Alone, s.stepWrites.Together = pool.saveStep, pool.saveSteps
	s.acks.Admit, s.stepWrites.Admit = pool.outsideTx, pool.outsideTx
	s.acks.Timeout, s.stepWrites.Timeout = statementTimeout, statementTimeout
	if s.configErr == nil {
		s.acks.Refused, s.stepWrites.Refused = s.dialect.isRefused, s.dialect.isRefused
	}
	return pool
}

func (c Config) check(db *sql.DB, d Dialect) (*dialect, error) {
	def, ok := dialects[d]
	switch {
	case db == nil:
		return nil, fmt.Errorf("%w: New was given a nil *sql.DB", ErrUnsupported)
	case !ok:
		return nil, unknownDialect(d)
	case c.Schema != "" && !def.schemas:
		return nil, fmt.Errorf("%w: Config.Schema %q: only PostgreSQL has schemas", ErrUnsupported, c.Schema)
	case c.Schema != "" && !schemaNames.MatchString(c.Schema):
		return nil, fmt.Errorf("%w: Config.Schema %q is not a plain identifier of up to 63 characters", ErrUnsupported, c.Schema)
	case c.Concurrent && def.transaction.concurrent == "":
		return nil, fmt.Errorf("%w: Config.Concurrent: %s has no BEGIN CONCURRENT", ErrUnsupported, d)
	case c.VFS != "" || c.EncryptionKey != "" || c.Cipher != "":
		return nil, fmt.Errorf("%w: Config.VFS, EncryptionKey and Cipher are for Open; New was given a database that is open", ErrUnsupported)
	}
	return def, c.Limits.check()
}

// DB returns the database that the Store was made with, or that Open opened.
func (s *Store) DB() *sql.DB { return s.db }

// Dialect returns the dialect that the Store was made with.
func (s *Store) Dialect() Dialect { return s.name }

// WithTx returns a copy of the Store that does its work in the caller's
// transaction: nothing is visible, and nothing is done, until it commits. Nothing
// is retried there. On SQLite and Turso begin the transaction with a write, or
// with BEGIN IMMEDIATE: one that reads first may find at its first write that it
// cannot go on. On Turso in MVCC mode end it at its first error; see [StepTx].
//
// tx is a *sql.Tx, or a *sql.Conn on which the caller has begun a transaction, or another type's
// transaction, if that sends statements as they are: a *sqlx.Tx, GORM's tx.Statement.ConnPool, or
// the Tx in a bun.Tx. Given nil, or a value that can begin a transaction and so is none, as a
// *sql.DB can, every call returns an error matching ErrUnsupported.
func (s *Store) WithTx(tx Tx) *Store {
	return &Store{core: s.core, tx: tx, notified: new(sync.Map), err: checkTx(tx)}
}

// checkTx returns why a value is no transaction.
func checkTx(tx Tx) error {
	if tx == nil {
		return fmt.Errorf("%w: WithTx was given nil", ErrUnsupported)
	}
	if v := reflect.ValueOf(tx); v.Kind() == reflect.Pointer && v.IsNil() {
		return fmt.Errorf("%w: WithTx was given a nil %T", ErrUnsupported, tx)
	}
	switch tx.(type) {
	case *sql.Tx, *sql.Conn:
		return nil
	}
	if !begins(reflect.TypeOf(tx)) {
		return nil
	}
	return fmt.Errorf("%w: WithTx was given a %T, which is no transaction, or one that rewrites what it is sent, for it can begin others; "+
		"begin one and give WithTx the *sql.Tx, a *sqlx.Tx, GORM's tx.Statement.ConnPool, the Tx in a bun.Tx, or the *sql.Conn in a connection of these", ErrUnsupported, tx)
}

// begins reports whether a type has a method that begins a transaction. The names are constants,
// for which the linker keeps no other methods.
func begins(t reflect.Type) bool {
	_, plain := t.MethodByName("Begin")
	_, withOptions := t.MethodByName("BeginTx")
	_, sqlx := t.MethodByName("Beginx")
	_, sqlxWithOptions := t.MethodByName("BeginTxx")
	return plain || withOptions || sqlx || sqlxWithOptions
}

// Close marks the worker rows of this Store's Dequeue calls stopped and closes
// its prepared statements. It closes the *sql.DB too if [Open] made the Store,
// and leaves it open if [New] did. What was dequeued and not settled is
// delivered again when its lease ends. Later calls return an error matching
// ErrState, but for Close, which returns nil. It takes 5 s at most, and what
// the driver needs for statements that still run. End Workers before.
func (s *Store) Close() error {
	if s.configErr != nil {
		return nil
	}
	s.mu.Lock()
	consumers := s.consumers
	closed := s.closed
	s.closed, s.consumers = true, nil
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.unblockRetries.stop()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	if err := (&Store{core: s.core}).retire(ctx, registered(consumers)); err != nil {
		errs = append(errs, fmt.Errorf("pgqrs: close: stop the workers of Dequeue: %w", err))
	}
	errs = append(errs, s.prepared.close(s.core))
	if s.ownsDB {
		errs = append(errs, s.catchPanic(true, s.db.Close))
	}
	return errors.Join(errs...)
}

// usable returns why the Store cannot be used at all, if so.
func (s *Store) usable() error {
	if s.configErr != nil {
		return s.configErr
	}
	if s.err != nil {
		return s.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("%w: the Store is closed", ErrState)
	}
	return nil
}

// pooled is usable for calls that cannot run in a caller's transaction.
func (s *Store) pooled(what string) error {
	if err := s.usable(); err != nil {
		return err
	}
	if s.tx != nil {
		return fmt.Errorf("%w: %s in a caller's transaction; call it on the Store itself", ErrUnsupported, what)
	}
	return nil
}

// render returns a text with the schema put in.
func (s *core) render(text string) string {
	if s.cfg.Schema == "" {
		return text
	}
	if done, ok := s.texts.Load(text); ok {
		return done.(string)
	}
	done := qualify(text, s.cfg.Schema)
	s.texts.Store(text, done)
	return done
}

const lackedRight = "this user lacks a right"
