package pgqrs

import (
	"context"
	"database/sql"
)

// shared reports whether pgqrs 0.15 works on the tables too, and if so whether
// Install has made the indexes for that. A message there refers to the workers
// that sent and received it, by foreign keys if pgqrs 0.15 made the tables: a
// worker's row can go only when no message does so any more, archived ones included.
func (c conn) shared(ctx context.Context) (shared, indexed bool, err error) {
	err = c.rows(ctx, c.store.dialect.schema.shared, nil, func(rows *sql.Rows) error {
		shared = true
		return rows.Scan(&indexed)
	})
	return shared, indexed, err
}

// share makes what is missing for a database that pgqrs 0.15 works on too.
func (c conn) share(ctx context.Context) error {
	shared, indexed, err := c.shared(ctx)
	if err != nil || !shared || indexed {
		return err
	}
	for _, text := range c.store.dialect.schema.share {
		if _, err := c.exec(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// tidyShared does what only a shared database needs, and deletes rows of workers long gone.
func (r *running) tidyShared(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	shared, indexed, err := conn{r.store, nil}.shared(limited)
	if err == nil && shared {
		err = r.joinShared(limited)
	}
	if err != nil {
		r.upkeepFailed(ctx, "look after what is shared with pgqrs 0.15", err)
		return
	}
	text := r.store.dialect.worker.prune
	if shared {
		text = r.store.dialect.worker.pruneShared
	}
	if shared && !indexed {
		r.log.Info("pgqrs: pgqrs 0.15 has joined; rows of stopped workers are kept until Install is called again")
		return
	}
	r.chunks(ctx, "prune worker rows", text, pruneWorkers.Microseconds(), upkeepChunk)
}

// joinShared wakes runs whose children pgqrs 0.15 has ended: it knows of no parents.
func (r *running) joinShared(ctx context.Context) error {
	var queues []string
	for _, l := range r.lanes {
		if l.workflow {
			queues = append(queues, l.queue)
		}
	}
	if len(queues) == 0 {
		return nil
	}
	list, err := jsonList(queues)
	if err != nil {
		return err
	}
	return r.store.atomic(ctx, func(c conn) error { return c.woken(ctx, r.store.dialect.workflow.joinShared, list) })
}
