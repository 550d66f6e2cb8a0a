package pgqrs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgqrs/pgqrs-go/internal/sqlerr"
)

// A preparedCache holds a statement for each text that is run often on the
// pool. Transactions of the library's own use them too. Behind a pooler that hands each transaction to another server
// connection it prepares nothing: lib/pq names statements 1, 2, 3, and another
// connection may have a statement of the same name that does something else.
// So it looks before it prepares the first one. What that does not show, the
// errors of a statement that is not there (26000), or of one that is already
// (42P05), do.
type preparedCache struct {
	mu      sync.Mutex
	off     bool
	looking bool      // for a pooler
	looked  bool      // and there is none
	later   time.Time // not to look before then
	texts   map[string]*preparedText
	wanted  []string // texts that transactions run often, which cannot prepare them
}

type preparedText struct {
	uses  int
	due   int  // uses after which it is prepared, or prepared anew
	plans int  // how often it was prepared
	busy  bool // being prepared
	stmt  *sql.Stmt
	older *sql.Stmt // the one before, which a call may have in its hands
}

// ripe reports whether the text is to be prepared now.
func (e *preparedText) ripe() bool { return e.uses > e.due && !e.busy }

// next is the text as it is prepared next: pgx does not send one again that it knows.
func (e *preparedText) next(text string) string {
	if e.plans == 0 {
		return text
	}
	return fmt.Sprintf("%s /* plan %d */", text, e.plans+1)
}

const (
	hotAfter    = 10               // executions of a text before it is prepared
	anewAfter   = 4                // times as many, before it is prepared again
	lookWait    = time.Second      // for two connections, to look for a pooler on
	lookTimes   = 5                // as it may use the same server connection by chance
	lookLater   = 10 * time.Minute // after two could not be had
	catchUpWait = time.Second      // for a connection to prepare on, after a transaction
)

// get returns the prepared statement of a text, or nil while it is not worth
// one. It waits for nobody else: what a call waits for ends with its own ctx; but
// for closing the statement before last, if a call is running that still, since before the last one was made.
func (p *preparedCache) get(ctx context.Context, s *core, text string) *sql.Stmt {
	entry, stmt := p.use(text)
	if entry == nil || !p.look(ctx, s, entry) {
		return stmt
	}
	var made *sql.Stmt
	err := s.guard(false, func() (err error) {
		made, err = s.db.PrepareContext(ctx, entry.next(text))
		return err
	})
	p.stopAfter(err, s)
	stmt, older := p.take(entry, made, err)
	if older != nil {
		if err := s.guard(true, older.Close); err != nil {
			s.log.Warn("pgqrs: could not close prepared statements", "err", err)
		}
	}
	return stmt
}

// take puts the statement that was made for an entry in its place. It returns the one to use, and one to close.
func (p *preparedCache) take(entry *preparedText, made *sql.Stmt, err error) (stmt, older *sql.Stmt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	entry.busy = false
	switch {
	case err != nil:
		entry.uses, entry.due = 0, hotAfter
		return entry.stmt, nil // running the text will tell what is wrong
	case p.off:
		return nil, made // the Store was closed, or a pooler found, meanwhile
	}
	older = entry.older
	entry.stmt, entry.older = made, entry.stmt
	entry.due = anewAfter * entry.uses
	entry.plans++
	return made, older
}

// use counts a use of a text and returns its statement. If the caller is to
// prepare one it returns the entry for it too, which is marked busy.
func (p *preparedCache) use(text string) (*preparedText, *sql.Stmt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return nil, nil
	}
	entry := p.entry(text)
	entry.uses++
	if entry.ripe() && !p.looking && time.Now().After(p.later) {
		entry.busy, p.looking = true, !p.looked
		return entry, entry.stmt
	}
	return nil, entry.stmt
}

// known is get for a transaction: it holds a connection, and must not wait for
// another. It leaves a note that the text is worth a statement.
func (p *preparedCache) known(text string) *sql.Stmt {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return nil
	}
	entry := p.entry(text)
	entry.uses++
	if entry.ripe() && !slices.Contains(p.wanted, text) {
		p.wanted = append(p.wanted, text)
	}
	return entry.stmt
}

// catchUp prepares what transactions would have liked to be prepared. A busy
// pool keeps the caller, who has what they wanted, for a moment only.
func (p *preparedCache) catchUp(ctx context.Context, s *core) {
	p.mu.Lock()
	wanted := p.wanted
	p.wanted = nil
	p.mu.Unlock()
	if len(wanted) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	for _, text := range wanted {
		p.get(ctx, s, text)
	}
}

// entry returns the entry of a text. The caller holds p.mu.
func (p *preparedCache) entry(text string) *preparedText {
	entry := p.texts[text]
	if entry == nil {
		if p.texts == nil {
			p.texts = map[string]*preparedText{}
		}
		entry = &preparedText{due: hotAfter}
		p.texts[text] = entry
	}
	return entry
}

// look reports whether statements can be prepared.
func (p *preparedCache) look(ctx context.Context, s *core, entry *preparedText) bool {
	p.mu.Lock()
	looking := p.looking
	p.mu.Unlock()
	if !looking {
		return true
	}
	pooled, err := s.behindPooler(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looking = false
	switch {
	case err != nil: // a small pool with nothing to spare, perhaps
		entry.busy = false
		if ctx.Err() != nil {
			return false // the caller has gone; the next one looks
		}
		p.later = time.Now().Add(lookLater)
		s.log.Info("pgqrs: preparing no statements for a while", "why", "could not look for a pooler", "for", lookLater, "err", err)
		return false
	case pooled:
		p.stop(s, "a pooler changes the server connection under each transaction")
		return false
	}
	p.looked = true
	return true
}

// stop prepares no more. The caller holds p.mu.
func (p *preparedCache) stop(s *core, why string) {
	if !p.off {
		p.off = true
		s.log.Warn("pgqrs: going on without prepared statements", "why", why)
	}
}

// stopAfter prepares no more if the driver has panicked: of a prepared statement database/sql
// alone knows the connection.
func (p *preparedCache) stopAfter(err error, s *core) {
	panicked, ok := err.(*driverPanic)
	if !ok {
		return
	}
	p.mu.Lock()
	p.stop(s, "the driver panicked")
	p.mu.Unlock()
	if !panicked.held {
		s.discardLatest()
	}
}

// behindPooler reports whether two connections of the pool share those of the server.
func (s *core) behindPooler(ctx context.Context) (bool, error) {
	if s.dialect.session == "" {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	waiting, stop := context.WithTimeout(ctx, lookWait)
	defer stop()
	one, err := s.session(waiting)
	if err != nil {
		return false, err
	}
	defer one.release()
	other, err := s.session(waiting)
	if err != nil {
		return false, err
	}
	defer other.release()
	own, err := s.sessionOf(ctx, textTx{one})
	for range lookTimes {
		if err != nil {
			return false, err
		}
		var shared bool
		if shared, err = s.shares(ctx, one, other, own); shared {
			return true, nil
		}
	}
	return false, err
}

// shares reports whether a transaction on other takes the session of one, or
// leaves it another. Of its sessions a pooler may hand out that first which it got back last, or first: with two
// of them, one that is asked during transactions alone could get the same each time. So it is asked after them too, twice.
func (s *core) shares(ctx context.Context, one, other *session, own string) (bool, error) {
	tx, err := other.begin(ctx, sql.LevelDefault)
	if err != nil {
		return false, err
	}
	theirs, err := s.sessionOf(ctx, &poolTx{Tx: tx, textTx: textTx{other}, store: s})
	another := false
	if err == nil && theirs != own {
		another, err = s.leaves(ctx, one, own)
	}
	ended := other.end(tx.Rollback)
	switch {
	case err != nil || theirs == own || another:
		return err == nil, err
	case ended != nil:
		return false, ended
	}
	another, err = s.leaves(ctx, one, own)
	if err == nil && !another {
		another, err = s.leaves(ctx, one, own)
	}
	return another, err
}

// leaves reports whether a connection has another session than before.
func (s *core) leaves(ctx context.Context, one *session, own string) (bool, error) {
	again, err := s.sessionOf(ctx, textTx{one})
	return err == nil && again != own, err
}

// sessionOf asks which of the server's sessions a connection has.
func (s *core) sessionOf(ctx context.Context, on transaction) (id string, err error) {
	err = conn{&Store{core: s}, on}.rows(ctx, s.dialect.session, nil, func(rows *sql.Rows) error { return rows.Scan(&id) })
	return id, err
}

// poolerAdvice is what an error says that a driver's own prepared statements have met.
const poolerAdvice = "lib/pq needs binary_parameters=yes there, pgx default_query_exec_mode=exec; see docs/BACKENDS.md"

// gone reports whether err says that the server does not know the prepared
// statement. Nothing was run then.
func (p *preparedCache) gone(err error, s *core) bool {
	if !sqlerr.Unprepared(err) {
		return err != nil && err.Error() == "sql: statement is closed" // another call has found out meanwhile
	}
	p.mu.Lock()
	p.stop(s, fmt.Sprintf("the server does not keep prepared statements: %v", err))
	p.mu.Unlock()
	if err := p.close(s); err != nil { // pgx would go on using them for the same text
		s.log.Warn("pgqrs: could not close prepared statements", "err", err)
	}
	return true
}

// close closes all statements and prepares no more.
func (p *preparedCache) close(s *core) error {
	p.mu.Lock()
	p.off = true
	p.mu.Unlock()
	return p.forget(s)
}

// forget closes all statements. What is run often from now on is prepared anew.
func (p *preparedCache) forget(s *core) error {
	p.mu.Lock()
	texts := p.texts
	p.texts, p.wanted = nil, nil
	p.mu.Unlock()
	var errs []error
	for _, entry := range texts {
		for _, stmt := range []*sql.Stmt{entry.stmt, entry.older} {
			if stmt != nil {
				errs = append(errs, s.guard(true, stmt.Close))
			}
		}
	}
	return errors.Join(errs...)
}
