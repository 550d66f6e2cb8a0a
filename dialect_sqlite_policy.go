package pgqrs

// sqlitePolicyOf is what a queue q has been told, as one column: the list that configure takes, without the name.
// JSON can hold no BLOB, which any column may.
const sqlitePolicyOf = `CAST(json_array(CAST(q.policy AS TEXT), CAST(q.max_held AS INTEGER), CAST(q.rate_interval AS INTEGER), CAST(q.rate_burst AS INTEGER),
					CAST(q.group_limit AS INTEGER), CAST(q.group_interval AS INTEGER), CAST(q.group_burst AS INTEGER), CAST(q.group_skip AS INTEGER), CAST(q.dead_letter AS TEXT)) AS BLOB)`

// sqliteHeaders is the headers of a message m, without those that are no object. Turso looks at both sides of an AND.
const sqliteHeaders = `CASE WHEN json_valid(m.headers) THEN CASE json_type(m.headers) WHEN 'object' THEN m.headers ELSE '{}' END ELSE '{}' END`

// sqliteLimited says whether the queue of a row of pgqrs_workers has a limit.
const sqliteLimited = `(SELECT q.max_held IS NOT NULL OR q.rate_interval IS NOT NULL FROM pgqrs_queues q WHERE q.id = pgqrs_workers.queue_id)`

// What room and take know of a queue's bucket: how far its next message is due ahead of the clock, in microseconds. One that is much further
// ahead than a burst is the work of a clock that has gone back since, and begins anew.
const (
	sqliteMicros = `CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)`
	sqliteAhead  = `CASE WHEN rate_at <= (SELECT now FROM arg) + rate_interval * rate_burst + 60000000 THEN max(0, rate_at - (SELECT now FROM arg)) ELSE 0 END`
)

var sqliteLimits = limitSQL{
	lock: `/* pgqrs:limit.lock */
		SELECT q.id FROM pgqrs_queues q
		WHERE q.id = (SELECT w.queue_id FROM pgqrs_workers w WHERE w.id = ?) AND (q.max_held IS NOT NULL OR q.rate_interval IS NOT NULL)`,
	room: `/* pgqrs:limit.room */
		WITH arg (queue_id, n, now) AS (SELECT ?, ?, ` + sqliteMicros + `),
		bucket (max_held, rate_interval, full_bucket, ahead) AS (
			SELECT max_held, rate_interval, rate_interval * rate_burst, ` + sqliteAhead + `
			FROM pgqrs_queues WHERE id = (SELECT queue_id FROM arg)
		)
		SELECT min((SELECT n FROM arg),
				CASE WHEN max_held IS NULL THEN (SELECT n FROM arg) ELSE max_held - (SELECT count(*) FROM pgqrs_messages WHERE +queue_id = (SELECT queue_id FROM arg)
					AND archived_at IS NULL AND consumer_worker_id IS NOT NULL AND consumer_worker_id > 0 AND vt > ` + sqliteNow + `) END,
				COALESCE((full_bucket - ahead) / rate_interval, (SELECT n FROM arg))),
			max(0, COALESCE(ahead - (full_bucket - rate_interval), 0)), rate_interval IS NOT NULL
		FROM bucket`,
	take: `/* pgqrs:limit.take */
		WITH arg (queue_id, n, now) AS (SELECT ?, ?, ` + sqliteMicros + `)
		UPDATE pgqrs_queues SET rate_at = (SELECT now FROM arg) + ` + sqliteAhead + ` + (SELECT n FROM arg) * rate_interval
		WHERE id = (SELECT queue_id FROM arg) AND rate_interval IS NOT NULL`,
}

var sqlitePolicies = policySQL{
	configure: `/* pgqrs:queue.configure */
		UPDATE pgqrs_queues
		SET policy = g.policy, max_held = g.max_held, rate_interval = g.rate_interval, rate_burst = g.rate_burst,
			rate_at = CASE WHEN pgqrs_queues.rate_interval IS g.rate_interval AND pgqrs_queues.rate_burst IS g.rate_burst THEN pgqrs_queues.rate_at END,
			group_limit = g.group_limit, group_interval = g.group_interval, group_burst = g.group_burst, group_skip = g.group_skip, dead_letter = g.dead_letter
		FROM (
			SELECT json_extract(value, '$[0]') AS name, json_extract(value, '$[1]') AS policy, json_extract(value, '$[2]') AS max_held,
				json_extract(value, '$[3]') AS rate_interval, json_extract(value, '$[4]') AS rate_burst, json_extract(value, '$[5]') AS group_limit,
				json_extract(value, '$[6]') AS group_interval, json_extract(value, '$[7]') AS group_burst, json_extract(value, '$[8]') AS group_skip,
				json_extract(value, '$[9]') AS dead_letter
			FROM json_each(?)
		) AS g
		WHERE pgqrs_queues.queue_name = g.name
			AND NOT (pgqrs_queues.policy IS g.policy AND pgqrs_queues.max_held IS g.max_held
				AND pgqrs_queues.rate_interval IS g.rate_interval AND pgqrs_queues.rate_burst IS g.rate_burst
				AND pgqrs_queues.group_limit IS g.group_limit AND pgqrs_queues.group_interval IS g.group_interval AND pgqrs_queues.group_burst IS g.group_burst
				AND pgqrs_queues.group_skip IS g.group_skip AND pgqrs_queues.dead_letter IS g.dead_letter)`,
	deadLetter: `/* pgqrs:message.dead_letter */
		WITH arg (queue, ids, now) AS (SELECT ?, ?, ` + sqliteNow + `)
		INSERT INTO pgqrs_messages (queue_id, payload, vt, enqueued_at, read_ct, priority, headers)
		SELECT t.id, m.payload, arg.now, arg.now, 0, m.priority, json_patch(` + sqliteHeaders + `, json_object('pgqrs-group', NULL, 'pgqrs-batch', NULL, 'dead-letter-queue', q.queue_name,
			'dead-letter-id', CAST(m.id AS TEXT), 'dead-letter-attempts', CAST(m.read_ct AS TEXT), 'dead-letter-error', COALESCE(m.last_error, '')))
		FROM arg JOIN pgqrs_queues t ON t.queue_name = arg.queue
		JOIN pgqrs_messages m ON m.id IN (SELECT value FROM json_each((SELECT ids FROM arg))) JOIN pgqrs_queues q ON q.id = m.queue_id
		WHERE m.failed_at IS NOT NULL AND COALESCE(json_extract(` + sqliteHeaders + `, '$."dead-letter-queue"'), '') <> arg.queue
		ORDER BY m.id
		RETURNING id`,
}
