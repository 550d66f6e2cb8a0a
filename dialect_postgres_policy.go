package pgqrs

// postgresPolicyOf is what a queue q has been told, as one column: the list that configure takes, without the name.
const postgresPolicyOf = `json_build_array(q.policy::text, q.max_held, q.rate_interval, q.rate_burst,
				q.group_limit, q.group_interval, q.group_burst, q.group_skip::int, q.dead_letter)::text`

// postgresLimited says whether the queue of a row of pgqrs_workers has a limit.
const postgresLimited = `(SELECT q.max_held IS NOT NULL OR q.rate_interval IS NOT NULL FROM pgqrs_queues q WHERE q.id = pgqrs_workers.queue_id)`

// What room and take know of a queue's bucket: how far its next message is due ahead of the clock, in microseconds. One that is much further
// ahead than a burst is the work of a clock that has gone back since, and begins anew. An interval that no policy can have is none.
const (
	postgresAhead = `CASE WHEN q.rate_at <= arg.now + (` + postgresBucket + ` + 60000000) * interval '1 microsecond'
				THEN (extract(epoch FROM GREATEST(q.rate_at, arg.now) - arg.now) * 1000000)::bigint ELSE 0 END`
	postgresBucket   = `LEAST(GREATEST(` + postgresInterval + `::float8 * q.rate_burst, 0), ` + postgresLongest + `)::bigint`
	postgresInterval = `(CASE WHEN q.rate_interval BETWEEN 1 AND ` + postgresLongest + ` THEN q.rate_interval END)`
	postgresLongest  = `9200000000000000` // microseconds; a time.Duration holds no more
)

var postgresLimits = limitSQL{
	lock: `/* pgqrs:limit.lock */
		WITH patience AS MATERIALIZED (SELECT set_config('lock_timeout', '250ms', true))
		SELECT q.id FROM patience CROSS JOIN pgqrs_queues q
		WHERE q.id = (SELECT w.queue_id FROM pgqrs_workers w WHERE w.id = $1::bigint) AND (q.max_held IS NOT NULL OR q.rate_interval IS NOT NULL)
		FOR NO KEY UPDATE OF q`,
	room: `/* pgqrs:limit.room */
		WITH arg AS MATERIALIZED (SELECT $1::bigint AS queue_id, $2::bigint AS n, clock_timestamp() AS now),
		` + postgresHeld + `, bucket AS MATERIALIZED (
			SELECT q.max_held, ` + postgresInterval + ` AS rate_interval, ` + postgresBucket + ` AS full_bucket, ` + postgresAhead + ` AS ahead
			FROM arg JOIN pgqrs_queues q ON q.id = arg.queue_id
		)
		SELECT LEAST((SELECT n FROM arg), b.max_held - CASE WHEN b.max_held IS NOT NULL THEN
				(SELECT count(*) FROM held WHERE queue_id = (SELECT queue_id FROM arg) AND vt > (SELECT now FROM arg)) END, (b.full_bucket - b.ahead) / b.rate_interval),
			GREATEST(0, COALESCE(b.ahead - (b.full_bucket - b.rate_interval), 0)), b.rate_interval IS NOT NULL
		FROM bucket b`,
	take: `/* pgqrs:limit.take */
		UPDATE pgqrs_queues q SET rate_at = arg.now + (` + postgresAhead + ` + LEAST(arg.n::float8 * ` + postgresInterval + `, ` + postgresLongest + `)::bigint) * interval '1 microsecond'
		FROM (SELECT $1::bigint AS queue_id, $2::bigint AS n, clock_timestamp() AS now) arg
		WHERE q.id = arg.queue_id AND q.rate_interval IS NOT NULL`,
}

var postgresPolicies = policySQL{
	configure: `/* pgqrs:queue.configure */
		WITH given AS MATERIALIZED (
			SELECT j.value ->> 0 AS name, (j.value ->> 1)::jsonb AS policy, (j.value ->> 2)::int AS max_held, (j.value ->> 3)::bigint AS rate_interval,
				(j.value ->> 4)::int AS rate_burst, (j.value ->> 5)::int AS group_limit, (j.value ->> 6)::bigint AS group_interval, (j.value ->> 7)::int AS group_burst,
				(j.value ->> 8)::boolean AS group_skip, j.value ->> 9 AS dead_letter
			FROM json_array_elements($1::json) AS j (value)
		)
		UPDATE pgqrs_queues q
		SET policy = g.policy, max_held = g.max_held, rate_interval = g.rate_interval, rate_burst = g.rate_burst,
			rate_at = CASE WHEN (q.rate_interval, q.rate_burst) IS NOT DISTINCT FROM (g.rate_interval, g.rate_burst) THEN q.rate_at END,
			group_limit = g.group_limit, group_interval = g.group_interval, group_burst = g.group_burst, group_skip = g.group_skip, dead_letter = g.dead_letter
		FROM given g
		WHERE q.queue_name = g.name
			AND (q.policy, q.max_held, q.rate_interval, q.rate_burst, q.group_limit, q.group_interval, q.group_burst, q.group_skip, q.dead_letter)
				IS DISTINCT FROM (g.policy, g.max_held, g.rate_interval, g.rate_burst, g.group_limit, g.group_interval, g.group_burst, g.group_skip, g.dead_letter)`,
	deadLetter: `/* pgqrs:message.dead_letter */
		WITH arg AS MATERIALIZED (SELECT $1::text AS queue, $2::json AS ids, clock_timestamp() AS now)
		INSERT INTO pgqrs_messages (queue_id, payload, vt, enqueued_at, read_ct, priority, headers)
		SELECT t.id, m.payload, arg.now, arg.now, 0, m.priority, CASE jsonb_typeof(m.headers) WHEN 'object' THEN m.headers ELSE '{}' END - '{pgqrs-group,pgqrs-batch}'::text[] || jsonb_build_object('dead-letter-queue', q.queue_name,
			'dead-letter-id', m.id::text, 'dead-letter-attempts', m.read_ct::text, 'dead-letter-error', COALESCE(m.last_error, ''))
		FROM arg JOIN pgqrs_queues t ON t.queue_name = arg.queue
		JOIN pgqrs_messages m ON m.id = ANY (ARRAY(SELECT json_array_elements_text(a.ids)::bigint FROM arg a)) JOIN pgqrs_queues q ON q.id = m.queue_id
		WHERE m.failed_at IS NOT NULL AND COALESCE(m.headers ->> 'dead-letter-queue', '') <> arg.queue
		ORDER BY m.id
		RETURNING id`,
}
