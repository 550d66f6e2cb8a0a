package bench

import (
	"encoding/json"

	"github.com/lib/pq"
)

var rawPostgres = rawSQL{
	queue:  `INSERT INTO pgqrs_queues (queue_name) VALUES ($1) RETURNING id`,
	insert: `INSERT INTO pgqrs_messages (queue_id, payload) VALUES ($1, $2::jsonb) RETURNING id`,
	insertMany: `INSERT INTO pgqrs_messages (queue_id, payload)
		SELECT $1, p::jsonb FROM unnest($2::text[]) AS p
		RETURNING id`,
	claim: `WITH due AS MATERIALIZED (
			SELECT id FROM pgqrs_messages
			WHERE queue_id = $1 AND priority = 0 AND archived_at IS NULL AND vt <= now()
			ORDER BY vt, id
			LIMIT (SELECT $2::bigint)
			FOR UPDATE SKIP LOCKED
		)
		UPDATE pgqrs_messages m SET vt = now() + interval '30 seconds', read_ct = read_ct + 1, consumer_worker_id = 1
		WHERE m.id = ANY (ARRAY(SELECT id FROM due))
		RETURNING m.id, m.payload`,
	complete:  `UPDATE pgqrs_messages SET archived_at = now() WHERE id = ANY ($1::bigint[])`,
	workflow:  `INSERT INTO pgqrs_workflows (name, queue_id) VALUES ($1, $2) RETURNING id`,
	startRun:  `INSERT INTO pgqrs_workflow_runs (workflow_id, message_id, status, input) VALUES ($1, $2, 'RUNNING', '{}') RETURNING id`,
	saveStep:  `INSERT INTO pgqrs_workflow_steps (run_id, step_name, status, output, completed_at) VALUES ($1, $2, 'SUCCESS', $3, now())`,
	finishRun: `UPDATE pgqrs_workflow_runs SET status = 'SUCCESS', output = $1, completed_at = now() WHERE id = $2`,
	texts:     func(list []string) any { return pq.Array(list) },
	ids:       func(list []int64) any { return pq.Array(list) },
}

// sqliteNow selects the time in the format of the library's tables.
const sqliteNow = `strftime('%Y-%m-%d %H:%M:%f', 'now')`

var rawSQLite = rawSQL{
	queue:  `INSERT INTO pgqrs_queues (queue_name) VALUES (?) RETURNING id`,
	insert: `INSERT INTO pgqrs_messages (queue_id, payload, vt) VALUES (?, ?, ` + sqliteNow + `) RETURNING id`,
	insertMany: `INSERT INTO pgqrs_messages (queue_id, payload, vt)
		SELECT ?, value, ` + sqliteNow + ` FROM json_each(?)
		RETURNING id`,
	claim: `UPDATE pgqrs_messages SET vt = strftime('%Y-%m-%d %H:%M:%f', 'now', '30 seconds'), read_ct = read_ct + 1, consumer_worker_id = 1
		WHERE id IN (
			SELECT id FROM pgqrs_messages
			WHERE queue_id = ? AND priority = 0 AND archived_at IS NULL AND vt <= ` + sqliteNow + `
			ORDER BY vt, id
			LIMIT ?)
		RETURNING id, payload`,
	complete:  `UPDATE pgqrs_messages SET archived_at = ` + sqliteNow + ` WHERE id IN (SELECT value FROM json_each(?))`,
	workflow:  `INSERT INTO pgqrs_workflows (name, queue_id) VALUES (?, ?) RETURNING id`,
	startRun:  `INSERT INTO pgqrs_workflow_runs (workflow_id, message_id, status, input) VALUES (?, ?, 'RUNNING', '{}') RETURNING id`,
	saveStep:  `INSERT INTO pgqrs_workflow_steps (run_id, step_name, status, output, completed_at) VALUES (?, ?, 'SUCCESS', ?, ` + sqliteNow + `)`,
	finishRun: `UPDATE pgqrs_workflow_runs SET status = 'SUCCESS', output = ?, completed_at = ` + sqliteNow + ` WHERE id = ?`,
	texts:     func(list []string) any { return asJSON(list) },
	ids:       func(list []int64) any { return asJSON(list) },
}

func asJSON(list any) string {
	text, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings and numbers cannot fail
	}
	return string(text)
}
