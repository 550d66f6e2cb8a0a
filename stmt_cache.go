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

// A preparedCache has a prepared statement for each text that is run often on the pool. The
// library's own transactions use the statements too.
//
// Behind a pooler that hands each transaction to another server connection it prepares nothing. The
// driver lib/pq names statements 1, 2, 3, and on another server connection the same name may be
// another statement. So the cache looks for a pooler before it prepares the first statement. A
// pooler that it does not find shows by errors: a prepared statement does not exist (26000), or
// exists already (42P05).
type preparedCache struct {
	mu         sync.Mutex
	off        bool
	probing    bool      // the probe for a pooler is in progress
	probed     bool      // the probe has found none
	probeAfter time.Time // no probe before then
	texts      map[string]*preparedText
	wanted     []string // texts that transactions run often and cannot prepare themselves
}

type preparedText struct {
	uses      int
	prepareAt int  // number of uses after which it is prepared, or prepared again
	prepared  int  // how often it was prepared
	busy      bool // being prepared
	stmt      *sql.Stmt
	older     *sql.Stmt // the previous statement, which a call may still use
}

// isDue reports whether the text is to be prepared now.
func (e *preparedText) isDue() bool { return e.uses > e.prepareAt && !e.busy }

// nextText is the text to prepare next. pgx does not prepare a text again that it knows.
func (e *preparedText) nextText(text string) string {
	if e.prepared == 0 {
		return text
	}
	return fmt.Sprintf("%s /* plan %d */", text, e.prepared+1)
}

const (
	prepareAfter     = 10               // executions of a text before it is prepared
	reprepareAfter   = 4                // factor of that number for each further time
	poolerProbeWait  = time.Second      // for two connections to probe with
	poolerProbes     = 5                // since a pooler may use the same server connection by chance
	poolerProbeRetry = 10 * time.Minute // after a probe that did not get two connections
	prepareWait      = time.Second      // for a connection to prepare on, after a transaction
)

// get returns the prepared statement of a text, or nil if the text has none yet. Every wait in it
// ends with the caller's ctx, with one exception. Closing the statement before the previous one
// waits for a call that has used it since before the latest one was made.
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

// store stores the statement that was made for an entry. It returns the statement to use, and a
// statement to close.
func (p *preparedCache) store(entry *preparedText, made *sql.Stmt, err error) (stmt, older *sql.Stmt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	entry.busy = false
	switch {
	case err != nil:
		entry.uses, entry.prepareAt = 0, prepareAfter
		return entry.stmt, nil // running the text will return the error
	case p.off:
		return nil, made // meanwhile the Store was closed, or a pooler was found
	}
	older = entry.older
	entry.stmt, entry.older = made, entry.stmt
	entry.prepareAt = reprepareAfter * entry.uses
	entry.prepared++
	return made, older
}

// count counts a use of a text and returns its statement. If the caller has to prepare one, count
// also returns the entry, which is marked busy.
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

// getForTx is get for a transaction, which holds a connection and must not wait for another. It
// records a text that is worth preparing.
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

// prepareWanted prepares the texts that transactions have recorded. If the pool is busy it delays
// its caller, which needs none of them, for a moment only.
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
	case err != nil: // perhaps a small pool without a spare connection
		entry.busy = false
		if ctx.Err() != nil {
			return false // the caller has gone, and the next call probes
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

// stopAfter stops preparing if the driver has panicked. The connection of a prepared statement is
// known to database/sql alone.
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

// behindPooler reports whether two connections of the pool share connections of the server.
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
// another session. A pooler may hand out its most recently or its least recently returned session.
// With two sessions, a connection that is asked during transactions alone could get the same one
// each time. So it is asked twice after them, too.
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

// changedSession reports whether the session of a connection has changed.
func (s *core) changedSession(ctx context.Context, one *session, own string) (bool, error) {
	again, err := s.sessionOf(ctx, textTx{one})
	return err == nil && again != own, err
}

// sessionOf returns the server's session of a connection.
func (s *core) sessionOf(ctx context.Context, on transaction) (id string, err error) {
	err = conn{&Store{core: s}, on}.rows(ctx, s.dialect.session, nil, func(rows *sql.Rows) error { return rows.Scan(&id) })
	return id, err
}

// poolerAdvice is the advice for an error of a driver's own prepared statements.
const poolerAdvice = "lib/pq needs binary_parameters=yes there, pgx default_query_exec_mode=exec; see docs/BACKENDS.md"

// unprepared reports whether err means that the server does not know the prepared statement. In
// that case nothing was run.
func (p *preparedCache) unprepared(err error, s *core) bool {
	if !sqlerr.Unprepared(err) {
		return err != nil && err.Error() == "sql: statement is closed" // another call has noticed it first
	}
	p.mu.Lock()
	p.stop(s, fmt.Sprintf("the server does not keep prepared statements: %v", err))
	p.mu.Unlock()
	if err := p.close(s); err != nil { // pgx would continue to use them for the same text
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

// forget closes all statements. Texts that are run often from now on are prepared again.
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
