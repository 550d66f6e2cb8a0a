package pgqrs

// sqliteBlocked is the vt of a blocked message.
const sqliteBlocked = `'9999-12-31 23:59:59.999'`

// sqliteBlockedOf counts what is blocked in a queue q, up to depthLimit.
const sqliteBlockedOf = `(SELECT count(*) FROM (SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND parked_vt IS NOT NULL LIMIT ` + depthLimit + `))`

// What a group has under way, and what is blocked, of a group g.
const (
	sqliteGroupLive    = `pgqrs_messages m WHERE m.queue_id = g.queue_id AND m.group_key = g.group_key AND m.group_key IS NOT NULL AND m.archived_at IS NULL AND m.parked_vt IS NULL`
	sqliteGroupBlocked = `pgqrs_messages m WHERE m.queue_id = g.queue_id AND m.group_key = g.group_key AND m.archived_at IS NULL AND m.parked_vt IS NOT NULL`
)

// sqliteGroups reads a list of groups with what their queues say of them.
const sqliteGroups = `arg (list, now) AS (SELECT ?, ` + sqliteNow + `),
			given (queue_id, queue_name, group_key, group_limit, group_interval, group_burst, group_skip) AS MATERIALIZED (
				SELECT q.id, q.queue_name, json_extract(j.value, '$[1]'), q.group_limit, ` + sqliteGroupInterval + `, q.group_burst, q.group_skip
				FROM arg CROSS JOIN json_each(arg.list) j CROSS JOIN pgqrs_queues q
				WHERE q.queue_name = json_extract(j.value, '$[0]')
			)`

// sqliteGroupInterval is what lies between two messages of a group in a queue q, in microseconds: whole milliseconds, as its times are.
const sqliteGroupInterval = `(q.group_interval + 999) / 1000 * 1000`

// sqliteGroupNext is when the next message of a group r would be due by the rate of g; NULL without a rate. One that is much further ahead than what is
// under way is the work of a clock that has gone back since, or of a message that was deleted before its time: then the rate begins anew.
const sqliteGroupNext = `CASE WHEN (julianday(r.next_at) - julianday((SELECT now FROM arg))) * 86400 <= (g.group_burst + g.group_limit) * g.group_interval / 1000000.0 + 60 THEN r.next_at END`

// sqliteGroupAside says that others may pass a message m of a group g with the row r: it is not due, and that is not for the group's rate alone.
const sqliteGroupAside = `m.vt > (SELECT now FROM arg) AND m.consumer_worker_id IS NULL
					AND m.vt > COALESCE(strftime('%Y-%m-%d %H:%M:%f', ` + sqliteGroupNext + `, printf('-%.6f seconds', g.group_burst * g.group_interval / 1000000.0)), '')`

// Where an engine finds nothing in the subquery of a RETURNING, all is done that a policy could ask for.
const sqliteGroupPolicies = `COALESCE((SELECT q.group_limit > 1 FROM pgqrs_queues q WHERE q.id = queue_id), 1),
				COALESCE((SELECT q.group_interval IS NOT NULL FROM pgqrs_queues q WHERE q.id = queue_id), 1), COALESCE((SELECT q.group_skip FROM pgqrs_queues q WHERE q.id = queue_id), 1)`

var sqliteGroupTexts = groupSQL{
	lock: `/* pgqrs:group.lock */
			WITH arg (list, now) AS (SELECT ?, ` + sqliteNow + `)
			INSERT INTO pgqrs_groups (queue_id, group_key, touched_at)
			SELECT q.id, json_extract(j.value, '$[1]'), arg.now
			FROM arg CROSS JOIN json_each(arg.list) j CROSS JOIN pgqrs_queues q
			WHERE q.queue_name = json_extract(j.value, '$[0]')
			ON CONFLICT (queue_id, group_key) DO UPDATE SET touched_at = excluded.touched_at
			RETURNING ` + sqliteGroupPolicies,
	tryLock: `/* pgqrs:group.try_lock */
			WITH ` + sqliteGroups + `
			UPDATE pgqrs_groups SET touched_at = (SELECT now FROM arg)
			WHERE rowid IN (SELECT r.rowid FROM given CROSS JOIN pgqrs_groups r WHERE r.queue_id = given.queue_id AND r.group_key = given.group_key)
			RETURNING (SELECT CAST(q.queue_name AS BLOB) FROM pgqrs_queues q WHERE q.id = queue_id), CAST(group_key AS BLOB), ` + sqliteGroupPolicies,
	enqueue: `/* pgqrs:message.group_enqueue */
			WITH arg (queue, items, now) AS MATERIALIZED (SELECT ?, ?, ` + sqliteNow + `),
			item (n, value, blocked, due) AS MATERIALIZED (
				SELECT j.key, j.value, json_extract(j.value, '$[6]') IS NOT NULL OR COALESCE(json_extract(j.value, '$[7]') = 0, 0),
					CASE WHEN json_extract(j.value, '$[2]') IS NOT NULL THEN max(arg.now, strftime('%Y-%m-%d %H:%M:%f', json_extract(j.value, '$[2]') / 1000000.0, 'unixepoch'))
						WHEN json_extract(j.value, '$[1]') = 0 THEN arg.now
						ELSE strftime('%Y-%m-%d %H:%M:%f', arg.now, printf('%.6f seconds', json_extract(j.value, '$[1]') / 1000000.0)) END
				FROM arg CROSS JOIN json_each(arg.items) j
			)
			INSERT INTO pgqrs_messages (queue_id, payload, vt, parked_vt, enqueued_at, read_ct, priority, dedup_key, headers, group_key, batch_id)
			SELECT q.id, json_extract(item.value, '$[0]'), CASE WHEN item.blocked THEN ` + sqliteBlocked + ` ELSE item.due END,
				CASE WHEN item.blocked THEN item.due END, arg.now, 0, json_extract(item.value, '$[3]'),
				json_extract(item.value, '$[4]'), json_extract(item.value, '$[5]'), json_extract(item.value, '$[6]'), NULLIF(json_extract(item.value, '$[7]'), 0)
			FROM arg CROSS JOIN pgqrs_queues q CROSS JOIN item
			WHERE q.queue_name = arg.queue
			ORDER BY item.n
			ON CONFLICT (queue_id, dedup_key) WHERE archived_at IS NULL AND dedup_key IS NOT NULL DO NOTHING
			RETURNING id, CAST(dedup_key AS BLOB)`,
	park: `/* pgqrs:group.park */
			WITH ` + sqliteGroups + `
			UPDATE pgqrs_messages SET parked_vt = vt, vt = ` + sqliteBlocked + `
			WHERE id IN (
				SELECT m.id FROM given g CROSS JOIN pgqrs_groups r CROSS JOIN ` + sqliteGroupLive + `
					AND r.queue_id = g.queue_id AND r.group_key = g.group_key AND g.group_skip AND ` + sqliteGroupAside + `)
			RETURNING id`,
	refund: `/* pgqrs:group.refund */
			WITH back (queue_id, group_key, wait) AS MATERIALIZED (
				SELECT m.queue_id, m.group_key, printf('-%.6f seconds', sum(` + sqliteGroupInterval + `) / 1000000.0)
				FROM json_each(?) j CROSS JOIN pgqrs_messages m CROSS JOIN pgqrs_queues q
				WHERE m.id = j.value AND q.id = m.queue_id AND q.group_interval IS NOT NULL
				GROUP BY m.queue_id, m.group_key
			)
			UPDATE pgqrs_groups SET next_at = (
				SELECT strftime('%Y-%m-%d %H:%M:%f', pgqrs_groups.next_at, b.wait) FROM back b WHERE b.queue_id = pgqrs_groups.queue_id AND b.group_key = pgqrs_groups.group_key)
			WHERE rowid IN (SELECT r.rowid FROM back b CROSS JOIN pgqrs_groups r WHERE r.queue_id = b.queue_id AND r.group_key = b.group_key)`,
	promote: `/* pgqrs:group.promote */
			WITH ` + sqliteGroups + `, first (id, vt) AS MATERIALIZED (
				SELECT CASE WHEN g.group_skip
						THEN (SELECT m.id FROM ` + sqliteGroupBlocked + ` ORDER BY m.parked_vt, m.id LIMIT 1)
						ELSE (SELECT m.id FROM ` + sqliteGroupBlocked + ` ORDER BY m.id LIMIT 1) END,
					max((SELECT now FROM arg), COALESCE(strftime('%Y-%m-%d %H:%M:%f', ` + sqliteGroupNext + `, printf('-%.6f seconds', (g.group_burst - 1) * g.group_interval / 1000000.0)), ''))
				FROM given g CROSS JOIN pgqrs_groups r
				WHERE r.queue_id = g.queue_id AND r.group_key = g.group_key AND (SELECT count(*) FROM ` + sqliteGroupLive + `) < g.group_limit
			)
			UPDATE pgqrs_messages SET vt = max(parked_vt, (SELECT f.vt FROM first f WHERE f.id = pgqrs_messages.id)), parked_vt = NULL
			WHERE id IN (SELECT id FROM first)
			RETURNING id`,
	pace: `/* pgqrs:group.pace */
			WITH arg (ids, now) AS (SELECT ?, ` + sqliteNow + `),
			gone (queue_id, group_key, group_limit, group_interval, group_burst, at) AS MATERIALIZED (
				SELECT m.queue_id, m.group_key, q.group_limit, ` + sqliteGroupInterval + `, q.group_burst, CASE WHEN q.group_skip OR q.group_limit > 1 THEN arg.now ELSE m.vt END
				FROM arg CROSS JOIN json_each(arg.ids) j CROSS JOIN pgqrs_messages m CROSS JOIN pgqrs_queues q
				WHERE m.id = j.value AND q.id = m.queue_id AND q.group_interval IS NOT NULL
			), next (id, at) AS MATERIALIZED (
				SELECT r.rowid, strftime('%Y-%m-%d %H:%M:%f', max(g.at, COALESCE(` + sqliteGroupNext + `, '')), printf('%.6f seconds', g.group_interval / 1000000.0))
				FROM gone g CROSS JOIN pgqrs_groups r
				WHERE r.queue_id = g.queue_id AND r.group_key = g.group_key
			)
			UPDATE pgqrs_groups SET next_at = (SELECT n.at FROM next n WHERE n.id = pgqrs_groups.rowid)
			WHERE rowid IN (SELECT id FROM next)`,
	of: `/* pgqrs:group.of */
			SELECT DISTINCT CAST(q.queue_name AS BLOB), CAST(m.group_key AS BLOB), m.batch_id, p.id
			FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = m.queue_id LEFT JOIN pgqrs_workflow_runs r ON r.message_id = m.id
				LEFT JOIN pgqrs_workflow_runs p ON p.id = r.parent_run_id AND p.status IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING')
			WHERE m.id IN (SELECT value FROM json_each(?)) AND (m.group_key IS NOT NULL OR m.batch_id IS NOT NULL OR p.id IS NOT NULL)`,
	redrive: `/* pgqrs:group.redrive */
			WITH chosen (id, queue_id, dedup_key) AS (
				SELECT m.id, m.queue_id, m.dedup_key FROM pgqrs_messages m
				WHERE m.id IN (SELECT value FROM json_each(?)) AND m.archived_at IS NOT NULL AND m.group_key IS NOT NULL
			)
			UPDATE pgqrs_messages
			SET archived_at = NULL, failed_at = NULL, read_ct = 0, vt = ` + sqliteBlocked + `, parked_vt = ` + sqliteNow + `, due_at = NULL, dequeued_at = NULL, consumer_worker_id = NULL
			WHERE id IN (
				SELECT c.id FROM chosen c
				WHERE c.dedup_key IS NULL
					OR NOT EXISTS (SELECT 1 FROM pgqrs_messages o WHERE o.queue_id = c.queue_id AND o.dedup_key = c.dedup_key AND o.dedup_key IS NOT NULL AND o.archived_at IS NULL)
					AND NOT EXISTS (SELECT 1 FROM chosen o WHERE o.queue_id = c.queue_id AND o.dedup_key = c.dedup_key AND o.id < c.id))
			RETURNING id`,
	sweep: `/* pgqrs:group.sweep */
			WITH arg (queues, queue_id, group_key, now) AS (SELECT ?, ?, ?, ` + sqliteNow + `),
			page (queue_id, group_key) AS MATERIALIZED (
				SELECT r.queue_id, r.group_key FROM pgqrs_groups r
				WHERE r.queue_id IN (SELECT q.id FROM json_each((SELECT queues FROM arg)) j CROSS JOIN pgqrs_queues q WHERE q.queue_name = json_extract(j.value, '$[0]'))
					AND (r.queue_id, r.group_key) > ((SELECT queue_id FROM arg), (SELECT group_key FROM arg)) AND typeof(r.group_key) = 'text'
				ORDER BY r.queue_id, r.group_key
				LIMIT ? + 0
			)
			SELECT g.queue_id, CAST(q.queue_name AS BLOB), CAST(g.group_key AS BLOB), EXISTS (SELECT 1 FROM ` + sqliteGroupBlocked + `) AND q.group_limit > (
				SELECT count(*) FROM ` + sqliteGroupLive + ` AND NOT (q.group_skip AND m.vt > (SELECT now FROM arg) AND m.consumer_worker_id IS NULL))
			FROM page g CROSS JOIN pgqrs_queues q
			WHERE q.id = g.queue_id
			ORDER BY g.queue_id, g.group_key`,
	prune: `/* pgqrs:group.prune */
			WITH arg (until) AS (SELECT strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.6f seconds', ? / 1000000.0)))
			DELETE FROM pgqrs_groups WHERE rowid IN (
				SELECT g.rowid FROM pgqrs_groups g
				WHERE g.touched_at < (SELECT until FROM arg) AND COALESCE(g.next_at, g.touched_at) < (SELECT until FROM arg)
					AND NOT EXISTS (SELECT 1 FROM ` + sqliteGroupLive + `) AND NOT EXISTS (SELECT 1 FROM ` + sqliteGroupBlocked + `)
				LIMIT ? + 0)`,
}

// Of messages that wait for batches.
const (
	sqliteBatchWaiting = `id IN (SELECT value FROM json_each(?)) AND parked_vt IS NOT NULL AND group_key IS NULL AND archived_at IS NULL`
	sqliteBatchOpen    = `EXISTS (SELECT 1 FROM pgqrs_messages o WHERE o.batch_id = pgqrs_messages.id AND o.batch_id IS NOT NULL AND o.archived_at IS NULL)`
	sqliteBatchCount   = `(SELECT count(*) FROM pgqrs_messages o WHERE o.batch_id = pgqrs_messages.id AND o.batch_id IS NOT NULL AND o.failed_at`
)

// sqliteUnneeded says of a message m that has ended that nobody has yet to read what became of it.
const sqliteUnneeded = `NOT EXISTS (SELECT 1 FROM pgqrs_messages b WHERE b.id = m.batch_id AND b.archived_at IS NULL AND b.parked_vt IS NOT NULL)
					AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs r JOIN pgqrs_workflow_runs p ON p.id = r.parent_run_id
						WHERE r.message_id = m.id AND p.status IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING'))`

var sqliteBatches = batchSQL{
	tryLock: `/* pgqrs:batch.try_lock */
			UPDATE pgqrs_messages SET parked_vt = parked_vt WHERE id IN (SELECT value FROM json_each(?))
			RETURNING id`,
	finish: `/* pgqrs:batch.finish */
			UPDATE pgqrs_messages
			SET vt = max(` + sqliteNow + `, parked_vt), parked_vt = NULL, headers = json_patch(CASE WHEN json_valid(headers) THEN CASE json_type(headers) WHEN 'object' THEN headers ELSE '{}' END ELSE '{}' END,
				json_object('pgqrs-batch-done', CAST(` + sqliteBatchCount + ` IS NULL) AS TEXT), 'pgqrs-batch-dead', CAST(` + sqliteBatchCount + ` IS NOT NULL) AS TEXT)))
			WHERE ` + sqliteBatchWaiting + ` AND NOT ` + sqliteBatchOpen + `
			RETURNING id, (SELECT CAST(q.queue_name AS BLOB) FROM pgqrs_queues q WHERE q.id = queue_id)`,
	sweep: `/* pgqrs:batch.sweep */
			WITH arg (queues) AS (SELECT ?)
			SELECT pgqrs_messages.id FROM pgqrs_queues q CROSS JOIN pgqrs_messages
			WHERE q.queue_name IN (SELECT json_extract(value, '$[0]') FROM json_each((SELECT queues FROM arg)))
				AND pgqrs_messages.queue_id = q.id AND pgqrs_messages.group_key IS NULL AND pgqrs_messages.archived_at IS NULL AND pgqrs_messages.parked_vt IS NOT NULL
				AND NOT ` + sqliteBatchOpen + `
			LIMIT ? + 0`,
}
