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

// A preparedCache holds a statement for each text that is run often on the pool. Transactions of
// the library's own use them too. Behind a pooler that hands each transaction to another server
// connection it prepares nothing: lib/pq names statements 1, 2, 3, and another connection may have
// a statement of the same name that does something else. So it looks before it prepares the first
// one. What that does not show, the errors of a statement that is not there (26000), or of one that
// is already (42P05), do.
type preparedCache struct {
	mu         sync.Mutex
	off        bool
	probing    bool      // for a pooler
	probed     bool      // and there is none
	probeAfter time.Time // not to look before then
	texts      map[string]*preparedText
	wanted     []string // texts that transactions run often, which cannot prepare them
}

type preparedText struct {
	uses      int
	prepareAt int  // uses after which it is prepared, or prepared anew
	prepared  int  // how often it was prepared
	busy      bool // being prepared
	stmt      *sql.Stmt
	older     *sql.Stmt // the one before, which a call may have in its hands
}

// isDue reports whether the text is to be prepared now.
func (e *preparedText) isDue() bool { return e.uses > e.prepareAt && !e.busy }

// nextText is the text as it is prepared next: pgx does not send one again that it knows.
func (e *preparedText) nextText(text string) string {
	if e.prepared == 0 {
		return text
	}
	return fmt.Sprintf("%s /* plan %d */", text, e.prepared+1)
}

const (
	prepareAfter     = 10               // executions of a text before it is prepared
	reprepareAfter   = 4                // times as many, before it is prepared again
	poolerProbeWait  = time.Second      // for two connections, to look for a pooler on
	poolerProbes     = 5                // as it may use the same server connection by chance
	poolerProbeRetry = 10 * time.Minute // after two could not be had
	prepareWait      = time.Second      // for a connection to prepare on, after a transaction
)

// get returns the prepared statement of a text, or nil while it is not worth one. It waits for
// nobody else: what a call waits for ends with its own ctx; but for closing the statement before
// last, if a call is running that still, since before the last one was made.
func (p *preparedCache) get(ctx context.Context, s *core, text string) *sql.Stmt {
	entry, stmt := p.count(text)
	if entry == nil || !p.probe(ctx, s, entry) {
		return stmt
	}
	var made *sql.Stmt
	err := s.catchPanic(false, func() (err error) {
		made, err = s.db.PrepareContext(ctx, entry.nextText(text))
		return err
	})
	p.stopAfter(err, s)
	stmt, older := p.store(entry, made, err)
	if older != nil {
		if err := s.catchPanic(true, older.Close); err != nil {
			s.log.Warn("pgqrs: could not close prepared statements", "err", err)
		}
	}
	return stmt
}

// store puts the statement that was made for an entry in its place. It returns the one to use, and
// one to close.
func (p *preparedCache) store(entry *preparedText, made *sql.Stmt, err error) (stmt, older *sql.Stmt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	entry.busy = false
	switch {
	case err != nil:
		entry.uses, entry.prepareAt = 0, prepareAfter
		return entry.stmt, nil // running the text will tell what is wrong
	case p.off:
		return nil, made // the Store was closed, or a pooler found, meanwhile
	}
	older = entry.older
	entry.stmt, entry.older = made, entry.stmt
	entry.prepareAt = reprepareAfter * entry.uses
	entry.prepared++
	return made, older
}

// count counts a use of a text and returns its statement. If the caller is to
// prepare one it returns the entry for it too, which is marked busy.
func (p *preparedCache) count(text string) (*preparedText, *sql.Stmt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return nil, nil
	}
	entry := p.entry(text)
	entry.uses++
	if entry.isDue() && !p.probing && time.Now().After(p.probeAfter) {
		entry.busy, p.probing = true, !p.probed
		return entry, entry.stmt
	}
	return nil, entry.stmt
}

// getForTx is get for a transaction: it holds a connection, and must not wait for
// another. It leaves a note that the text is worth a statement.
func (p *preparedCache) getForTx(text string) *sql.Stmt {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return nil
	}
	entry := p.entry(text)
	entry.uses++
	if entry.isDue() && !slices.Contains(p.wanted, text) {
		p.wanted = append(p.wanted, text)
	}
	return entry.stmt
}

// prepareWanted prepares what transactions would have liked to be prepared. A busy
// pool keeps the caller, who has what they wanted, for a moment only.
func (p *preparedCache) prepareWanted(ctx context.Context, s *core) {
	p.mu.Lock()
	wanted := p.wanted
	p.wanted = nil
	p.mu.Unlock()
	if len(wanted) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, prepareWait)
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
		entry = &preparedText{prepareAt: prepareAfter}
		p.texts[text] = entry
	}
	return entry
}

// probe reports whether statements can be prepared.
func (p *preparedCache) probe(ctx context.Context, s *core, entry *preparedText) bool {
	p.mu.Lock()
	looking := p.probing
	p.mu.Unlock()
	if !looking {
		return true
	}
	pooled, err := s.behindPooler(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probing = false
	switch {
	case err != nil: // a small pool with nothing to spare, perhaps
		entry.busy = false
		if ctx.Err() != nil {
			return false // the caller has gone; the next one looks
		}
		p.probeAfter = time.Now().Add(poolerProbeRetry)
		s.log.Info("pgqrs: preparing no statements for a while", "why", "could not look for a pooler", "for", poolerProbeRetry, "err", err)
		return false
	case pooled:
		p.stop(s, "a pooler changes the server connection under each transaction")
		return false
	}
	p.probed = true
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
	waiting, stop := context.WithTimeout(ctx, poolerProbeWait)
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
	for range poolerProbes {
		if err != nil {
			return false, err
		}
		var shared bool
		if shared, err = s.sharesSession(ctx, one, other, own); shared {
			return true, nil
		}
	}
	return false, err
}

// sharesSession reports whether a transaction on other takes the session of one, or leaves it
// another. Of its sessions a pooler may hand out that first which it got back last, or first: with
// two of them, one that is asked during transactions alone could get the same each time. So it is
// asked after them too, twice.
func (s *core) sharesSession(ctx context.Context, one, other *session, own string) (bool, error) {
	tx, err := other.begin(ctx, sql.LevelDefault)
	if err != nil {
		return false, err
	}
	theirs, err := s.sessionOf(ctx, &poolTx{Tx: tx, textTx: textTx{other}, store: s})
	another := false
	if err == nil && theirs != own {
		another, err = s.changedSession(ctx, one, own)
	}
	ended := other.endTx(tx.Rollback)
	switch {
	case err != nil || theirs == own || another:
		return err == nil, err
	case ended != nil:
		return false, ended
	}
	another, err = s.changedSession(ctx, one, own)
	if err == nil && !another {
		another, err = s.changedSession(ctx, one, own)
	}
	return another, err
}

// changedSession reports whether a connection has another session than before.
func (s *core) changedSession(ctx context.Context, one *session, own string) (bool, error) {
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

// unprepared reports whether err says that the server does not know the prepared
// statement. Nothing was run then.
func (p *preparedCache) unprepared(err error, s *core) bool {
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
				errs = append(errs, s.catchPanic(true, stmt.Close))
			}
		}
	}
	return errors.Join(errs...)
}
