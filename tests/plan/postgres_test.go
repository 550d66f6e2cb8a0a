//go:build unix

package plan_test

import (
	"context"

	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/pgqrs/pgqrs-go"
	"github.com/pgqrs/pgqrs-go/tests/postgres"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// fillPostgres adds messages in every state, and the worker that holds them.
const fillPostgres = `
	WITH holder AS (
		INSERT INTO pgqrs_workers (name, queue_id, status, go_state) SELECT 'holder ' || gen_random_uuid(), id, 'polling', 'live' FROM pgqrs_queues WHERE queue_name = 'big'
		RETURNING id, queue_id
	)
	INSERT INTO pgqrs_messages (queue_id, payload, priority, vt, archived_at, failed_at, consumer_worker_id, claim_ct, read_ct, due_at, last_error, dedup_key)
	SELECT CASE k.kind WHEN 'idle' THEN (SELECT id FROM pgqrs_queues WHERE queue_name = 'idle') ELSE h.queue_id END, to_jsonb(i), mod(i, 4) - 1,
		CASE WHEN k.kind IN ('scheduled', 'idle') THEN now() + interval '1 h' + i * interval '1 s' WHEN k.kind = 'leased' THEN now() + interval '1 h' + i * interval '1 ms'
			ELSE now() - i * interval '1 ms' END,
		CASE WHEN k.kind IN ('archived', 'dead') THEN now() - i * interval '0.5 s' END,
		CASE k.kind WHEN 'dead' THEN now() - i * interval '0.5 s' END,
		CASE WHEN k.kind IN ('archived', 'leased') THEN h.id END, 1, 1,
		CASE k.kind WHEN 'leased' THEN now() END, CASE k.kind WHEN 'dead' THEN 'x' END, CASE k.kind WHEN 'dead' THEN 'k' || i END
	FROM holder h CROSS JOIN (VALUES ('archived', %d), ('scheduled', %d), ('leased', %d), ('ready', %d), ('dead', %d), ('idle', %d)) AS k (kind, n)
	CROSS JOIN LATERAL generate_series(1, k.n) AS i`

// Numbers of messages: archived, scheduled, leased, ready, dead, and scheduled in a queue with no
// other messages.
var (
	fewMessages  = []any{1000, 1000, 1000, 1000, 1000, 1000}
	manyMessages = []any{1_000_000, 300_000, leased, 100_000, 10_000, 100_000}
)

func TestPostgres(t *testing.T) {
	c, err := pq.NewConnector(postgres.Schema(t, "postgres"))
	must(t, err)
	p := &postgresPlans{t: t, failed: map[string]bool{}}
	p.check = p.checkMessages
	w := &watcher{Connector: c, look: p.look, also: []string{"message.next_claim", "message.passed"}}
	w.reset()
	db := watchedDB(t, w)
	exec := func(text string) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), text)
		must(t, err)
	}
	must(t, pgqrs.New(db, pgqrs.Postgres).Install(t.Context()))
	exec(`ALTER TABLE pgqrs_messages SET (autovacuum_enabled = off)`)
	exec(`INSERT INTO pgqrs_queues (queue_name) VALUES ('big'), ('idle')`)
	exec(`SET plan_cache_mode = force_generic_plan`)
	// As when the queue is idle: the partial indexes are empty.
	exec(`VACUUM ANALYZE pgqrs_messages`)
	exec(fmt.Sprintf(fillPostgres, fewMessages...))

	operate(t, w, db, pgqrs.Postgres) // it leaves its generic plans in the session

	exec(fmt.Sprintf(fillPostgres, manyMessages...))
	p.when = "a table that has grown since the plans were made"
	operate(t, w, db, pgqrs.Postgres)
	exec(`DEALLOCATE ALL`)
	p.when = "a table that was never analyzed"
	operate(t, w, db, pgqrs.Postgres)
	exec(`ANALYZE`)
	exec(`DEALLOCATE ALL`)
	p.when = "an analyzed table"
	operate(t, w, db, pgqrs.Postgres)
	p.when = "a shared database"
	operateShared(t, w, db, pgqrs.Postgres)
}

func TestGroupsOnPostgres(t *testing.T) {
	c, err := pq.NewConnector(postgres.Schema(t, "postgres"))
	must(t, err)
	p := &postgresPlans{t: t, failed: map[string]bool{}}
	p.check = p.checkMessages
	w := &watcher{Connector: c, look: p.look}
	w.reset()
	db := watchedDB(t, w)
	must(t, pgqrs.New(db, pgqrs.Postgres).Install(t.Context()))
	for _, text := range []string{`ALTER TABLE pgqrs_messages SET (autovacuum_enabled = off)`, `SET plan_cache_mode = force_generic_plan`, `VACUUM ANALYZE`} {
		_, err := db.ExecContext(t.Context(), text)
		must(t, err)
	}
	planGroups(t, w, db, pgqrs.Postgres, [][2]string{
		{"a table that has grown since the plans were made", ""}, {"a table that was never analyzed", "DEALLOCATE ALL"}, {"an analyzed table", "ANALYZE; DEALLOCATE ALL"},
	}, func(when string) { p.when = when })
}

// A postgresPlans explains statements and checks how much their plans read.
type postgresPlans struct {
	t      *testing.T
	when   string // the situation, or empty before the first
	failed map[string]bool
	check  func(tag, kind, raw string) error // checks a plan in JSON
}

// look explains a statement with its arguments, and without them in a generic plan.
func (p *postgresPlans) look(ctx context.Context, c driver.Conn, tag, text string, args []driver.NamedValue) error {
	begin, end := "SAVEPOINT look", "ROLLBACK TO look"
	if err := do(ctx, c, begin); err != nil { // the statement is not in a transaction
		begin, end = "BEGIN", "ROLLBACK"
	} else if err := do(ctx, c, "RELEASE look"); err != nil {
		return err
	}
	generic, err := prepared(ctx, c, tag, text, args)
	if err != nil {
		return err
	}
	for kind, explained := range map[string]struct {
		text string
		args []driver.NamedValue
	}{"a generic plan": {generic, nil}, "a plan for its arguments": {text, args}} {
		if err := do(ctx, c, begin); err != nil {
			return err
		}
		raw, err := query(ctx, c, "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "+explained.text, explained.args)
		if err := errors.Join(err, do(ctx, c, end)); err != nil {
			return err
		}
		if err := p.check(tag, kind, raw); err != nil {
			return err
		}
	}
	if tag == "message.claim" {
		time.Sleep(25 * time.Millisecond) // so that the next claim continues where it ends
	}
	return nil
}

// prepared prepares a statement under its tag and returns the text that executes it.
func prepared(ctx context.Context, c driver.Conn, tag, text string, args []driver.NamedValue) (string, error) {
	name := `"` + tag + `"`
	known, err := query(ctx, c, "SELECT count(*)::text FROM pg_prepared_statements WHERE name = $1", []driver.NamedValue{{Ordinal: 1, Value: tag}})
	if err == nil && known == "0" {
		err = do(ctx, c, "PREPARE "+name+" AS "+text)
	}
	if len(args) == 0 {
		return "EXECUTE " + name, err
	}
	literals := make([]string, len(args))
	for i, arg := range args {
		switch v := arg.Value.(type) {
		case nil:
			literals[i] = "NULL"
		case string:
			literals[i] = pq.QuoteLiteral(v)
		default:
			literals[i] = fmt.Sprint(v)
		}
	}
	return "EXECUTE " + name + " (" + strings.Join(literals, ", ") + ")", err
}

func do(ctx context.Context, c driver.Conn, text string) error {
	_, err := c.(driver.ExecerContext).ExecContext(ctx, text, nil)
	return err
}

// query returns the single value of a query.
func query(ctx context.Context, c driver.Conn, text string, args []driver.NamedValue) (string, error) {
	rows, err := c.(driver.QueryerContext).QueryContext(ctx, text, args)
	if err != nil {
		return "", fmt.Errorf("%w, of %s", err, text)
	}
	row := make([]driver.Value, 1)
	err = rows.Next(row)
	answer := fmt.Sprintf("%s", row[0])
	for err == nil {
		err = rows.Next(row)
	}
	if err == io.EOF {
		err = nil
	}
	return answer, errors.Join(err, rows.Close())
}

// A node is a step of a plan.
type node struct {
	Type     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Rows     float64 `json:"Actual Rows"`
	Loops    float64 `json:"Actual Loops"`
	Filtered float64 `json:"Rows Removed by Filter"`
	Checked  float64 `json:"Rows Removed by Index Recheck"`
	Hit      int64   `json:"Shared Hit Blocks"`
	Read     int64   `json:"Shared Read Blocks"`
	Plans    []node
}

// most returns the node that reads the most of a table.
func (n node) most(table string) (most node, count int64) {
	if n.Relation == table {
		most, count = n, int64((n.Rows+n.Filtered+n.Checked)*n.Loops)
	}
	for _, sub := range n.Plans {
		if m, c := sub.most(table); c > count {
			most, count = m, c
		}
	}
	return most, count
}

func (p *postgresPlans) checkMessages(tag, kind, raw string) error {
	var explained []struct{ Plan node }
	if err := json.Unmarshal([]byte(raw), &explained); err != nil {
		return err
	}
	what := fmt.Sprintf("%s, %s on %s", tag, kind, p.when)
	if p.when == "" || p.failed[what] {
		return nil
	}
	plan := explained[0].Plan
	limit := reads[tag] + 2*asked
	if tag == "message.claim" || tag == "message.next_claim" {
		limit = 2 * max(10, int64(plan.Rows))
	}
	// A row costs a few pages in the table and each index.
	pages, maxPages := plan.Hit+plan.Read, 60*asked+2*reads[tag]
	if tag == "message.next_claim" {
		maxPages += leased // it may be the first to skip the dead rows of message.disown
	}
	if most, count := plan.most("pgqrs_messages"); count > limit || pages > maxPages {
		p.failed[what] = true
		p.t.Errorf("%s: %s %s reads %d messages, %d at most wanted; all reads %d pages, %d at most wanted\n%s",
			what, most.Type, most.Index, count, limit, pages, maxPages, raw)
	}
	return nil
}
