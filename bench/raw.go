package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pgqrs/pgqrs-go/bench/internal/measure"
)

// A rawSQL has statements that somebody would write by hand for the library's tables. They support
// one queue, and have no keys, fences or retries. They are the limit that the library is compared
// with. Each statement is prepared once.
type rawSQL struct {
	queue      string // make a queue. 1 row: id
	insert     string // queue, payload. 1 row: id
	insertMany string // queue, payloads. rows: id
	claim      string // queue, number. rows: id, payload
	complete   string // ids
	startRun   string // workflow, a number of its own. 1 row: id
	saveStep   string // run, name, output
	finishRun  string // output, run
	workflow   string // name, queue. 1 row: id

	texts func([]string) any // binds a list of texts
	ids   func([]int64) any  // and of numbers
}

// A raw is a database with the library's tables and one queue.
type raw struct {
	*database
	queue int64
}

func (e *engine) openRaw(ctx context.Context, conns int) (*raw, error) {
	db, err := e.installed(ctx, conns)
	if err != nil {
		return nil, err
	}
	r := &raw{database: db}
	return r, db.QueryRowContext(ctx, e.raw.queue, "raw").Scan(&r.queue)
}

// rawEnqueue inserts one row with each call, on a number of connections.
func rawEnqueue(e *engine, conns int) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		r, err := e.openRaw(ctx, conns)
		if err != nil {
			return nil, err
		}
		insert, err := r.PrepareContext(ctx, e.raw.insert)
		if err != nil {
			return nil, err
		}
		payload := measure.NewJob(1e15).Text()
		return r.enqueuing(spec, func(ctx context.Context, _ int) error {
			var id int64
			return insert.QueryRowContext(ctx, r.queue, payload).Scan(&id)
		}), nil
	}
}

// rawEnqueueBatch inserts many rows with each call and reads their ids.
func rawEnqueueBatch(e *engine) opener {
	return func(ctx context.Context, spec measure.Spec) (*measure.Session, error) {
		r, err := e.openRaw(ctx, 1)
		if err != nil {
			return nil, err
		}
		insert, err := r.PrepareContext(ctx, e.raw.insertMany)
		if err != nil {
			return nil, err
		}
		var payloads []string
		for _, job := range measure.Jobs(spec.Items) {
			payloads = append(payloads, job.Text())
		}
		return r.enqueuing(spec, func(ctx context.Context, _ int) error {
			ids, err := numbers(insert.QueryContext(ctx, r.queue, e.raw.texts(payloads)))
			if err == nil && len(ids) != len(payloads) {
				err = fmt.Errorf("%d ids for %d rows", len(ids), len(payloads))
			}
			return err
		}), nil
	}
}

// numbers reads rows of one number.
func numbers(rows *sql.Rows, err error) ([]int64, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []int64
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, errors.Join(rows.Err(), rows.Close())
}

// enqueuing returns a session whose rounds call fn, which stores spec.Items messages.
func (d *database) enqueuing(spec measure.Spec, fn func(context.Context, int) error) *measure.Session {
	total := 0
	round := func(ctx context.Context) (measure.Sample, error) {
		if err := d.settle(ctx); err != nil {
			return nil, err
		}
		sample, n, err := measure.Loop(ctx, spec.Goroutines, spec.Items, spec.Time, fn)
		if err != nil {
			return nil, err
		}
		total += n * spec.Items
		stored, err := d.stored(ctx)
		if err == nil && stored != total {
			err = fmt.Errorf("%d messages were enqueued and %d stored", total, stored)
		}
		return sample, err
	}
	return &measure.Session{Round: round, Close: d.drop}
}

// rawDrain claims and completes a hundred rows at a time on one connection, until none is left. It
// runs no handler.
func rawDrain(e *engine) opener {
	return rounds(func(ctx context.Context, spec measure.Spec) (measure.Sample, error) {
		r, err := e.openRaw(ctx, 1)
		if err != nil {
			return nil, err
		}
		defer r.drop()
		if err := r.fill(ctx, spec.Backlog); err != nil {
			return nil, err
		}
		claim, err := r.PrepareContext(ctx, e.raw.claim)
		if err != nil {
			return nil, err
		}
		complete, err := r.PrepareContext(ctx, e.raw.complete)
		if err != nil {
			return nil, err
		}
		done := 0
		sample, err := measure.Timed(ctx, func() (int, error) {
			for until := time.Now().Add(spec.Limit); done < spec.Backlog && time.Now().Before(until); {
				n, err := r.cycle(ctx, claim, complete, 100)
				if err != nil {
					return 0, err
				}
				done += n
			}
			return done, nil
		})
		if err != nil {
			return nil, err
		}
		return sample, r.check(ctx, sample, spec.Backlog)
	})
}

// fill stores a backlog.
func (r *raw) fill(ctx context.Context, n int) error {
	for left := n; left > 0; left -= 1000 {
		var payloads []string
		for _, job := range measure.Jobs(min(left, 1000)) {
			payloads = append(payloads, job.Text())
		}
		if _, err := numbers(r.QueryContext(ctx, r.engine.raw.insertMany, r.queue, r.engine.raw.texts(payloads))); err != nil {
			return err
		}
	}
	return r.settle(ctx)
}

// cycle claims and completes once.
func (r *raw) cycle(ctx context.Context, claim, complete *sql.Stmt, n int) (int, error) {
	ids, err := claimed(claim.QueryContext(ctx, r.queue, n))
	if err != nil {
		return 0, err
	}
	result, err := complete.ExecContext(ctx, r.engine.raw.ids(ids))
	if err != nil {
		return 0, err
	}
	done, err := result.RowsAffected()
	if err == nil && int(done) != len(ids) {
		err = fmt.Errorf("%d rows were claimed and %d completed", len(ids), done)
	}
	return len(ids), err
}

// claimed reads rows of an id and a payload.
func claimed(rows *sql.Rows, err error) ([]int64, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []int64
	var payload []byte
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id, &payload); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, errors.Join(rows.Err(), rows.Close())
}

// check returns an error unless the table has as many archived messages as the sample counts. It
// marks the sample as capped if messages are left.
func (d *database) check(ctx context.Context, sample measure.Sample, backlog int) error {
	archived, err := d.archived(ctx)
	if err != nil {
		return err
	}
	if done := int(sample[measure.Done]); archived != done {
		return fmt.Errorf("%d messages were counted as done, and %d are archived", done, archived)
	}
	if archived < backlog {
		sample[measure.Capped] = 1
	}
	return nil
}
