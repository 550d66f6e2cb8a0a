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

// Config holds the settings of a [Store]. Its zero value is ready to use. Printing or logging a
// Config does not show the encryption key, unless the Config is in an unexported field of another
// value.
type Config struct {
	// Schema is the PostgreSQL schema that holds the tables. The name has up to 63 letters, digits,
	// _ and $, and does not begin with a digit or $. Empty means that search_path decides.
	Schema string

	// NoPrepare disables prepared statements. Otherwise the Store prepares a statement after
	// sending it ten times, unless it detects a pooler that hands each transaction to another
	// server connection. Set NoPrepare behind such a pooler, where prepared statements are not
	// safe.
	NoPrepare bool

	// Concurrent opens write transactions with BEGIN CONCURRENT, on a Turso database in MVCC mode,
	// so that several can write at a time. A transaction that conflicts with another is run again,
	// up to 25 times in about 5 s. After that the call returns the database's error. Several
	// consumers of a queue may then take messages of one priority in any order. A single consumer
	// keeps the order. Experimental.
	Concurrent bool

	// VFS is the way in which Turso reaches its file:
	//   - "syscall"
	//   - "io_uring", on Linux. Elsewhere the Store uses syscall and logs that.
	//   - "auto" leaves it to the engine.
	//   - "memory" is a database in memory, on every driver of SQLite's family. Stores of this
	//     process share it by its path.
	//
	// VFS is for Open only.
	VFS string

	// EncryptionKey is the key of an encrypted file, in hexadecimal. Empty means that the file is
	// not encrypted. Cipher names the cipher. Empty means the driver's default. A Cipher without a
	// key is an error, so that naming a cipher guards against a lost key. Both are for Open only.
	// docs/BACKENDS.md says which drivers have encryption.
	EncryptionKey, Cipher string

	// Limits bounds the messages that may be enqueued.
	Limits Limits

	// StrictPayloads refuses a field that the type of a queue's payload or of a workflow's input
	// does not have, at any depth. A message with such a field goes to the dead letters, and a run
	// ends as Failed, as if the payload did not decode. StrictPayloads does not apply to signals
	// and to the results of steps and children. A run reads these again after a deploy, and its
	// records must not be refused because a type has lost a field. A type with an UnmarshalJSON
	// method decides for itself.
	StrictPayloads bool

	// Logger receives the errors that no call can return, such as errors in workers. Nil discards
	// them.
	Logger *slog.Logger

	// Observer is called as messages move. Nil calls nothing.
	Observer *Observer

	// Notifier notifies Workers in other processes of new messages at once. Nil means that they
	// find the messages by their next poll.
	Notifier Notifier

	// Headers returns headers for a message that is being enqueued with ctx, such as a trace
	// context. Where both set a name, the Headers option wins. A name that is reserved for the
	// library (see [Headers]) is an error of the call. Nil adds none.
	Headers func(ctx context.Context) map[string]string
}

// Version is the version of this library.
const Version = "0.1.0"

// An Observer is called as messages move. A nil field is skipped. The functions run inline. They
// should return at once and must be safe for concurrent use. A panic in one is logged and has no
// other effect. More fields may be added.
type Observer struct {
	// Enqueued is called with the ids of messages that were stored: by an enqueue with its callback
	// of Then, by the start of a run (also by Child and RerunFrom), by a schedule, or as
	// dead-letter copies. The queue of a run's message is the workflow's name. Messages whose key
	// was taken are left out. Enqueued is called after the commit. In a caller's transaction it is
	// called before the commit, so the messages may still be rolled back.
	Enqueued func(ctx context.Context, queue string, ids []int64)
	// Claimed is called with each message that was leased.
	Claimed func(ctx context.Context, m *MessageInfo)
	// Finished is called by a Worker after a handler has returned, with the time that the handler
	// took and its error.
	Finished func(ctx context.Context, m *MessageInfo, took time.Duration, err error)
	// Stepping is called in a workflow before each attempt of a step's function. The function and
	// Stepped get the ctx that Stepping returns, which must descend from the ctx that Stepping is
	// given. If Stepping returns nil, the ctx stays as it is.
	Stepping func(ctx context.Context, runID int64, step string) context.Context
	// Stepped is called in a workflow after the function of a step has returned, with the time that
	// the function took and its error.
	Stepped func(ctx context.Context, runID int64, step string, took time.Duration, err error)
}

// safely returns a copy of the Observer whose functions recover from panics and log them.
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

// A Store is a database that holds queues. It is safe for concurrent use, and is meant to be made
// once and kept. A Store made by [Open] owns its *sql.DB. A Store made by [New] does not.
//
// Errors of its methods, and of everything made from it, name the operation and its operand. They
// match ErrNotInstalled if the tables are missing, and context.Canceled or context.DeadlineExceeded
// if ctx is done.
type Store struct {
	*core
	tx          Tx        // nil means the pool
	err         error     // why tx cannot be used
	afterCommit *[]func() // of a transaction of the library's own: its after-commit hooks
	// notified is of a transaction. It has the queues that the Notifier was notified of, so that it
	// is notified once.
	notified *sync.Map
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
	rate           *bucket    // nil means no limit
	notifications  notifications
	prepared       preparedCache
	texts          sync.Map // text to its rendering for cfg.Schema
	acks           coalesce.Group[[]settlement, []int64]
	stepWrites     coalesce.Group[stepWrite, RunState]
	unblockRetries unblockRetries
	writer         writerSlot
	collisions     sync.Map // queue to the time.Time of the latest claim that had to be repeated

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

// New returns a Store on db. It does no I/O and never fails. If db is nil, the dialect is unknown
// or a setting is bad, every call returns an error that says so. The caller closes db, after the
// Store.
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

// WithTx returns a copy of the Store that works in the caller's transaction. Nothing is visible,
// and nothing takes effect, until the transaction commits. Nothing is retried in it. On SQLite and
// Turso begin the transaction with a write, or with BEGIN IMMEDIATE, since a transaction that reads
// first may fail at its first write. On Turso in MVCC mode end the transaction at its first error
// (see [StepTx]).
//
// tx is a *sql.Tx, or a *sql.Conn on which the caller has begun a transaction. It may also be
// another type's transaction that sends statements as they are: a *sqlx.Tx, GORM's
// tx.Statement.ConnPool, or the Tx in a bun.Tx. If tx is nil, or can begin a transaction as a
// *sql.DB can, every call returns an error matching ErrUnsupported.
func (s *Store) WithTx(tx Tx) *Store {
	return &Store{core: s.core, tx: tx, notified: new(sync.Map), err: checkTx(tx)}
}

// checkTx returns the reason why a value is not a transaction.
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

// begins reports whether a type has a method that begins a transaction. The names are constants, so
// that the linker keeps no other methods because of this function.
func begins(t reflect.Type) bool {
	_, plain := t.MethodByName("Begin")
	_, withOptions := t.MethodByName("BeginTx")
	_, sqlx := t.MethodByName("Beginx")
	_, sqlxWithOptions := t.MethodByName("BeginTxx")
	return plain || withOptions || sqlx || sqlxWithOptions
}

// Close marks the worker rows of this Store's Dequeue calls stopped and closes its prepared
// statements. It closes the *sql.DB too if [Open] made the Store, and leaves it open if [New] did.
// Messages that were dequeued and not settled are delivered again when their leases end.
//
// After Close, further calls return an error matching ErrState, except Close, which returns nil.
// Close takes at most 5 s, plus the time that the driver needs for statements that still run. End
// Workers before calling it.
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

// usable returns an error if the Store cannot be used at all.
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
