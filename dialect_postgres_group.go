package pgqrs

// postgresBlocked is the vt of a blocked message.
const postgresBlocked = `timestamptz '9999-12-31 23:59:59.999+00'`

// postgresBlockedOf counts what is blocked in a queue q, up to depthLimit.
const postgresBlockedOf = `(SELECT count(*) FROM (SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND parked_vt IS NOT NULL
					ORDER BY group_key, id LIMIT ` + depthLimit + `) c)`

// What a group has under way, and what is blocked, of a group g.
const (
	postgresGroupLive    = `pgqrs_messages m WHERE m.queue_id = g.queue_id AND m.group_key = g.group_key AND m.archived_at IS NULL AND m.parked_vt IS NULL`
	postgresGroupBlocked = `pgqrs_messages m WHERE m.queue_id = g.queue_id AND m.group_key = g.group_key AND m.archived_at IS NULL AND m.parked_vt IS NOT NULL`
)

// postgresGroups reads a list of groups with what their queues say of them.
const postgresGroups = `arg AS MATERIALIZED (SELECT $1::json AS list, clock_timestamp() AS now),
			given AS MATERIALIZED (
				SELECT q.id AS queue_id, q.queue_name, j.value ->> 1 AS group_key, q.group_limit, ` + postgresGroupInterval + ` AS group_interval, q.group_burst, q.group_skip
				FROM arg CROSS JOIN json_array_elements(arg.list) AS j (value) JOIN pgqrs_queues q ON q.queue_name = j.value ->> 0
			)`

// postgresGroupInterval is what lies between two messages of a group in a queue q, in microseconds. One that no policy can have is none.
const postgresGroupInterval = `CASE WHEN q.group_interval BETWEEN 1 AND ` + postgresLongest + ` THEN q.group_interval END`

// postgresGroupNext is when the next message of a group r would be due by the rate of g; NULL without a rate. One that is much further ahead than what
// is under way is the work of a clock that has gone back since, or of a message that was deleted before its time: then the rate begins anew.
const postgresGroupNext = `CASE WHEN r.next_at NOT BETWEEN ` + postgresFirstTime + ` AND ` + postgresLastTime + ` THEN NULL WHEN extract(epoch FROM r.next_at - (SELECT now FROM arg)) <= (g.group_burst + g.group_limit::float8) * g.group_interval / 1e6 + 60 THEN r.next_at END`

// postgresGroupAside says that others may pass a message m of a group g: it is not due, and that is not for the group's rate alone.
const postgresGroupAside = `m.vt > (SELECT now FROM arg) AND m.consumer_worker_id IS NULL AND m.vt > COALESCE(r.next_at - GREATEST(LEAST(g.group_burst::float8 * g.group_interval, ` + postgresLongest + `), 0) * interval '1 microsecond', '-infinity')`

// postgresGroupRow joins a group's row r with postgresGroupNext.
const postgresGroupRow = `CROSS JOIN LATERAL (SELECT ` + postgresGroupNext + ` AS next_at FROM pgqrs_groups r WHERE r.queue_id = g.queue_id AND r.group_key = g.group_key LIMIT 1) r`

var postgresGroupTexts = groupSQL{
	lock: `/* pgqrs:group.lock */
			WITH arg AS MATERIALIZED (SELECT $1::json AS list, clock_timestamp() AS now),
			locked AS (
				INSERT INTO pgqrs_groups (queue_id, group_key, touched_at)
				SELECT q.id, j.value ->> 1, arg.now
				FROM arg CROSS JOIN json_array_elements(arg.list) WITH ORDINALITY AS j (value, n) JOIN pgqrs_queues q ON q.queue_name = j.value ->> 0
				ORDER BY j.n
				ON CONFLICT (queue_id, group_key) DO UPDATE SET touched_at = excluded.touched_at
				RETURNING queue_id
			)
			SELECT q.group_limit > 1, q.group_interval IS NOT NULL, q.group_skip FROM locked l JOIN pgqrs_queues q ON q.id = l.queue_id`,
	tryLock: `/* pgqrs:group.try_lock */
			WITH ` + postgresGroups + `
			SELECT given.queue_name, g.group_key, given.group_limit > 1, given.group_interval IS NOT NULL, given.group_skip
			FROM given CROSS JOIN LATERAL (
				SELECT r.group_key FROM pgqrs_groups r WHERE r.queue_id = given.queue_id AND r.group_key = given.group_key
				LIMIT 1
				FOR UPDATE SKIP LOCKED
			) g`,
	enqueue: `/* pgqrs:message.group_enqueue */
			WITH arg AS MATERIALIZED (SELECT $1::text AS queue, $2::json AS items, clock_timestamp() AS now),
			item AS MATERIALIZED (
				SELECT j.n, j.value, j.value ->> 6 AS group_key, j.value ->> 6 IS NOT NULL OR j.value ->> 7 = '0' AS blocked,
					CASE WHEN j.value ->> 2 IS NOT NULL THEN GREATEST(arg.now, timestamptz 'epoch' + (j.value ->> 2)::bigint * interval '1 microsecond')
						ELSE arg.now + (j.value ->> 1)::bigint * interval '1 microsecond' END AS due
				FROM arg CROSS JOIN json_array_elements(arg.items) WITH ORDINALITY AS j (value, n)
			)
			INSERT INTO pgqrs_messages (queue_id, payload, vt, parked_vt, enqueued_at, read_ct, priority, dedup_key, headers, group_key, batch_id)
			SELECT q.id, (item.value ->> 0)::jsonb, CASE WHEN item.blocked THEN ` + postgresBlocked + ` ELSE item.due END,
				CASE WHEN item.blocked THEN item.due END, arg.now, 0,
				(item.value ->> 3)::smallint, item.value ->> 4, (item.value ->> 5)::jsonb, item.group_key, NULLIF((item.value ->> 7)::bigint, 0)
			FROM arg JOIN pgqrs_queues q ON q.queue_name = arg.queue CROSS JOIN item
			ORDER BY item.n
			ON CONFLICT (queue_id, dedup_key) WHERE archived_at IS NULL AND dedup_key IS NOT NULL DO NOTHING
			RETURNING id, dedup_key`,
	park: `/* pgqrs:group.park */
			WITH ` + postgresGroups + `
			UPDATE pgqrs_messages SET parked_vt = vt, vt = ` + postgresBlocked + `
			WHERE id = ANY (ARRAY(
				SELECT o.id FROM pgqrs_messages o
				WHERE o.id = ANY (ARRAY(
						SELECT m.id FROM given g ` + postgresGroupRow + `
							CROSS JOIN LATERAL (SELECT m.id, m.vt, m.consumer_worker_id FROM ` + postgresGroupLive + ` ORDER BY m.id LIMIT ` + depthLimit + `) m
						WHERE g.group_skip AND ` + postgresGroupAside + `))
					AND COALESCE(o.archived_at, 'infinity') = 'infinity' AND o.parked_vt IS NULL AND o.consumer_worker_id IS NULL
				ORDER BY o.id
				FOR UPDATE OF o))
			RETURNING id`,
	refund: `/* pgqrs:group.refund */
			WITH back AS MATERIALIZED (
				SELECT m.queue_id, m.group_key, LEAST(count(*)::float8 * ` + postgresGroupInterval + `, ` + postgresLongest + `) * interval '1 microsecond' AS wait
				FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = m.queue_id
				WHERE m.id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint)) AND q.group_interval IS NOT NULL
				GROUP BY m.queue_id, m.group_key, q.group_interval
			)
			UPDATE pgqrs_groups r SET next_at = r.next_at - b.wait
			FROM back b WHERE r.queue_id = b.queue_id AND r.group_key = b.group_key AND r.next_at BETWEEN ` + postgresFirstTime + ` AND ` + postgresLastTime,
	promote: `/* pgqrs:group.promote */
			WITH ` + postgresGroups + `, first AS MATERIALIZED (
				SELECT r.next_at - GREATEST(LEAST((g.group_burst::float8 - 1) * g.group_interval, ` + postgresLongest + `), 0) * interval '1 microsecond' AS earliest,
					CASE WHEN g.group_skip
						THEN (SELECT m.id FROM ` + postgresGroupBlocked + ` ORDER BY m.parked_vt, m.id LIMIT 1)
						ELSE (SELECT m.id FROM ` + postgresGroupBlocked + ` ORDER BY m.id LIMIT 1) END AS id
				FROM given AS g ` + postgresGroupRow + `
				WHERE (SELECT count(*) FROM (SELECT m.id FROM ` + postgresGroupLive + ` ORDER BY m.id LIMIT g.group_limit) l) < g.group_limit
			), locked AS MATERIALIZED (
				SELECT m.id FROM pgqrs_messages m
				WHERE m.id = ANY (ARRAY(SELECT id FROM first)) AND ` + postgresLive + ` AND m.parked_vt IS NOT NULL
				ORDER BY m.id
				FOR UPDATE OF m
			)
			UPDATE pgqrs_messages m SET vt = GREATEST(arg.now, m.parked_vt, first.earliest), parked_vt = NULL
			FROM first CROSS JOIN arg
			WHERE m.id = ANY (ARRAY(SELECT id FROM locked)) AND m.id = first.id
			RETURNING m.id`,
	pace: `/* pgqrs:group.pace */
			WITH arg AS MATERIALIZED (SELECT $1::json AS ids, clock_timestamp() AS now),
			gone AS MATERIALIZED (
				SELECT m.queue_id, m.group_key, q.group_limit, ` + postgresGroupInterval + ` AS group_interval, q.group_burst,
					CASE WHEN q.group_skip OR q.group_limit > 1 THEN (SELECT now FROM arg) ELSE LEAST(m.vt, ` + postgresLastTime + `) END AS at
				FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = m.queue_id
				WHERE m.id = ANY (ARRAY(SELECT json_array_elements_text(arg.ids)::bigint FROM arg)) AND q.group_interval IS NOT NULL
			)
			UPDATE pgqrs_groups r SET next_at = GREATEST(` + postgresGroupNext + `, g.at) + g.group_interval * interval '1 microsecond'
			FROM gone g WHERE r.queue_id = g.queue_id AND r.group_key = g.group_key`,
	of: `/* pgqrs:group.of */
			SELECT DISTINCT q.queue_name, m.group_key, m.batch_id, p.id
			FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = m.queue_id LEFT JOIN pgqrs_workflow_runs r ON r.message_id = m.id
				LEFT JOIN pgqrs_workflow_runs p ON p.id = r.parent_run_id AND p.status IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING')
			WHERE m.id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint)) AND (m.group_key IS NOT NULL OR m.batch_id IS NOT NULL OR p.id IS NOT NULL)`,
	redrive: `/* pgqrs:group.redrive */
			WITH arg AS MATERIALIZED (SELECT json_array_elements_text($1::json)::bigint AS id),
			chosen AS MATERIALIZED (
				SELECT m.id, m.queue_id, m.dedup_key FROM pgqrs_messages m
				WHERE m.id = ANY (ARRAY(SELECT id FROM arg)) AND m.archived_at IS NOT NULL AND m.group_key IS NOT NULL
				ORDER BY m.id
				FOR UPDATE OF m
			)
			UPDATE pgqrs_messages m
			SET archived_at = NULL, failed_at = NULL, read_ct = 0, vt = ` + postgresBlocked + `, parked_vt = clock_timestamp(), due_at = NULL, dequeued_at = NULL, consumer_worker_id = NULL
			WHERE m.id = ANY (ARRAY(
				SELECT c.id FROM chosen c
				WHERE c.dedup_key IS NULL
					OR NOT EXISTS (SELECT 1 FROM pgqrs_messages o WHERE o.queue_id = c.queue_id AND o.dedup_key = c.dedup_key AND o.archived_at IS NULL)
					AND NOT EXISTS (SELECT 1 FROM chosen o WHERE o.queue_id = c.queue_id AND o.dedup_key = c.dedup_key AND o.id < c.id)))
			RETURNING m.id`,
	sweep: `/* pgqrs:group.sweep */
			WITH arg AS MATERIALIZED (
				SELECT $1::json AS queues, $2::bigint AS queue_id, $3::text AS group_key, $4::bigint AS n, clock_timestamp() AS now
			), page AS MATERIALIZED (
				SELECT r.queue_id, r.group_key FROM pgqrs_groups r
				WHERE r.queue_id = ANY (ARRAY(SELECT q.id FROM pgqrs_queues q WHERE q.queue_name = ANY (ARRAY(SELECT json_array_elements(arg.queues) ->> 0 FROM arg))))
					AND (r.queue_id, r.group_key) > ((SELECT queue_id FROM arg), (SELECT group_key FROM arg))
				ORDER BY r.queue_id, r.group_key
				LIMIT (SELECT n FROM arg)
			)
			SELECT g.queue_id, q.queue_name, g.group_key, EXISTS (SELECT 1 FROM ` + postgresGroupBlocked + `) AND q.group_limit > (
				SELECT count(*) FROM (SELECT m.id FROM ` + postgresGroupLive + `
					AND NOT (q.group_skip AND m.vt > (SELECT now FROM arg) AND m.consumer_worker_id IS NULL) ORDER BY m.id LIMIT q.group_limit) l)
			FROM page g JOIN pgqrs_queues q ON q.id = g.queue_id
			ORDER BY g.queue_id, g.group_key`,
	prune: `/* pgqrs:group.prune */
			WITH arg AS MATERIALIZED (SELECT clock_timestamp() - $1::bigint * interval '1 microsecond' AS until)
			DELETE FROM pgqrs_groups r USING (
				SELECT g.queue_id, g.group_key FROM pgqrs_groups g
				WHERE g.touched_at < (SELECT until FROM arg) AND COALESCE(g.next_at, g.touched_at) < (SELECT until FROM arg)
					AND NOT EXISTS (SELECT 1 FROM ` + postgresGroupLive + `) AND NOT EXISTS (SELECT 1 FROM ` + postgresGroupBlocked + `)
				LIMIT $2::bigint
				FOR UPDATE OF g SKIP LOCKED
			) old
			WHERE r.queue_id = old.queue_id AND r.group_key = old.group_key`,
}

// postgresBatchOver says that no message of the batch for which m waits is unfinished. It has no EXISTS, of which the
// planner might make a join that reads all live messages, and asks for an order, or it might hope to come across one soon.
const postgresBatchOver = `(SELECT o.id FROM pgqrs_messages o WHERE o.batch_id = m.id AND o.archived_at IS NULL ORDER BY o.archived_at LIMIT 1) IS NULL`

// postgresUnneeded says of a message m that has ended that nobody has yet to read what became of it.
const postgresUnneeded = `NOT EXISTS (SELECT 1 FROM pgqrs_messages b WHERE b.id = m.batch_id AND b.archived_at IS NULL AND b.parked_vt IS NOT NULL)
					AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs r JOIN pgqrs_workflow_runs p ON p.id = r.parent_run_id
						WHERE r.message_id = m.id AND p.status IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING'))`

var postgresBatches = batchSQL{
	tryLock: `/* pgqrs:batch.try_lock */
			SELECT m.id FROM pgqrs_messages m
			WHERE m.id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint))
			ORDER BY m.id
			FOR UPDATE OF m SKIP LOCKED`,
	finish: `/* pgqrs:batch.finish */
			UPDATE pgqrs_messages m
			SET vt = GREATEST(clock_timestamp(), m.parked_vt), parked_vt = NULL, headers = CASE jsonb_typeof(m.headers) WHEN 'object' THEN m.headers ELSE '{}' END || (
				SELECT jsonb_build_object('pgqrs-batch-done', (count(*) FILTER (WHERE o.failed_at IS NULL))::text, 'pgqrs-batch-dead', (count(*) FILTER (WHERE o.failed_at IS NOT NULL))::text)
				FROM pgqrs_messages o WHERE o.batch_id = m.id)
			FROM pgqrs_queues q
			WHERE m.id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint)) AND m.parked_vt IS NOT NULL AND m.group_key IS NULL AND ` + postgresLive + `
				AND q.id = m.queue_id AND ` + postgresBatchOver + `
			RETURNING m.id, q.queue_name`,
	sweep: `/* pgqrs:batch.sweep */
			WITH arg AS MATERIALIZED (SELECT $1::json AS queues, $2::bigint AS n)
			SELECT m.id FROM arg CROSS JOIN json_array_elements(arg.queues) AS j (value) JOIN pgqrs_queues q ON q.queue_name = j.value ->> 0
				CROSS JOIN LATERAL (
					SELECT b.id FROM pgqrs_messages b WHERE b.queue_id = q.id AND b.group_key IS NULL AND b.archived_at IS NULL AND b.parked_vt IS NOT NULL
					ORDER BY b.group_key, b.id LIMIT ` + depthLimit + `
				) m
			WHERE ` + postgresBatchOver + `
			LIMIT (SELECT n FROM arg)`,
}
