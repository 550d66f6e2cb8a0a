package pgqrs

import "database/sql"

// Timestamps are UTC text with milliseconds, as far as SQLite's clock reads.
// They sort with those of pgqrs 0.15, which have six digits or none.
const sqliteNow = `strftime('%Y-%m-%d %H:%M:%f', 'now')`

// A limit is ? + 0: SQLite compiles a statement with LIMIT ? again whenever it is run.

// Conditions that look redundant, as x = ? AND x IS NOT NULL, or x <= ? beside
// (x, id) < (?, ?), are for Turso, which does not see by itself that an index serves them.

// User text and timestamps are selected as BLOB: go-libsql hands text that
// looks like a date back changed. None of it is empty but last_error, which is
// NULL then: go-sqlite3 of ncruces v0.18.4 cannot read an empty BLOB.
const sqliteDelivery = `id, CAST(payload AS BLOB), priority, read_ct, claim_ct, CAST(dedup_key AS BLOB), CAST(headers AS BLOB), CAST(NULLIF(last_error, '') AS BLOB),
	CAST(enqueued_at AS BLOB), CAST(due_at AS BLOB), CAST(vt AS BLOB)`

const (
	sqliteInfo = `m.id, substr(CAST(m.payload AS BLOB), 1, ` + listedText + `), m.priority, m.read_ct, m.claim_ct, CAST(m.dedup_key AS BLOB),
	CASE WHEN length(CAST(m.headers AS BLOB)) <= ` + listedHeaders + ` THEN CAST(m.headers AS BLOB) END, substr(CAST(NULLIF(m.last_error, '') AS BLOB), 1, ` + listedError + `),` + sqliteStanding
	// sqliteSizes are the last columns of a listing.
	sqliteSizes = `, length(CAST(m.payload AS BLOB)), COALESCE(length(CAST(m.headers AS BLOB)), 0) > ` + listedHeaders
	// sqliteWhole is sqliteInfo with nothing cut.
	sqliteWhole = `m.id, CAST(m.payload AS BLOB), m.priority, m.read_ct, m.claim_ct, CAST(m.dedup_key AS BLOB), CAST(m.headers AS BLOB),
	CAST(NULLIF(m.last_error, '') AS BLOB),` + sqliteStanding
	sqliteStanding = `
	CAST(m.enqueued_at AS BLOB), CAST(m.due_at AS BLOB), CAST(COALESCE(m.parked_vt, m.vt) AS BLOB),
	CAST(q.queue_name AS BLOB), m.consumer_worker_id, CAST(m.archived_at AS BLOB), CAST(m.failed_at AS BLOB),
	CASE WHEN m.failed_at IS NOT NULL THEN 'dead' WHEN m.archived_at IS NOT NULL THEN 'archived'
		WHEN m.parked_vt IS NOT NULL THEN 'blocked' WHEN m.vt <= ` + sqliteNow + ` THEN 'ready' WHEN m.consumer_worker_id IS NULL THEN 'scheduled' ELSE 'leased' END`
)

// sqliteAheadRank is the order of message.ahead.
const sqliteAheadRank = `CASE WHEN o.parked_vt IS NOT NULL THEN 3 WHEN o.vt <= ` + sqliteNow + ` THEN 2 WHEN o.consumer_worker_id IS NULL THEN 1 ELSE 0 END`

// sqliteClaimed is what a claim returns.
const sqliteClaimed = sqliteDelivery + `, (SELECT runs FROM worker)`

// sqliteLeases reads a JSON array of lease tuples.
const sqliteLeases = `
	SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS worker_id, json_extract(value, '$[2]') AS claim_ct,
		printf('%.6f seconds', json_extract(value, '$[3]') / 1000000.0) AS delay, json_extract(value, '$[3]') IS NULL AS dead, json_extract(value, '$[4]') AS error
	FROM json_each(?)`

// sqliteWorkerID is the id of a new row of pgqrs_workers: 48 random bits.
const sqliteWorkerID = `(random() & 281474976710655) + 1`

// sqliteIncarnation tells who had a row of pgqrs_workers from who took it over: when that was.
const sqliteIncarnation = `CAST(round((julianday(started_at) - 2440587.5) * 86400000) AS INTEGER)`

// sqliteFence is the condition that a row is still held as the tuple held says.
const sqliteFence = `pgqrs_messages.id = held.id AND pgqrs_messages.consumer_worker_id = held.worker_id AND pgqrs_messages.claim_ct = held.claim_ct`

// A band is the due messages of one priority, in the order of the claim's
// index. Of a worker that is not active, or whose queue is paused, nothing is due.
const (
	sqliteDue = `worker (queue_id, runs) AS (
				SELECT w.queue_id, EXISTS (SELECT 1 FROM pgqrs_workflows f WHERE f.name = q.queue_name) FROM pgqrs_workers w JOIN pgqrs_queues q ON q.id = w.queue_id
				WHERE w.id = (SELECT worker_id FROM arg) AND w.status IN ('ready', 'polling') AND q.paused_at IS NULL
			), due (id, rank, vt, crashed, size) AS MATERIALIZED (
				SELECT * FROM (SELECT id, -2` + sqliteBand + `2` + sqliteBandEnd + `
				UNION ALL SELECT * FROM (SELECT id, -1` + sqliteBand + `1` + sqliteBandEnd + `
				UNION ALL SELECT * FROM (SELECT id, 0` + sqliteBand + `0` + sqliteBandEnd + `
				UNION ALL SELECT * FROM (SELECT id, 1` + sqliteBand + `-1` + sqliteBandEnd + `
				LIMIT ? + 0
			)`
	sqliteBand    = ` AS rank, vt, consumer_worker_id IS NOT NULL OR due_at IS NOT NULL AS crashed, length(CAST(payload AS BLOB)) AS size FROM pgqrs_messages WHERE queue_id = (SELECT queue_id FROM worker) AND archived_at IS NULL AND vt <= (SELECT now FROM arg) AND priority = `
	sqliteBandEnd = ` ORDER BY vt, id)`
	sqliteClaim   = `
			UPDATE pgqrs_messages
			SET consumer_worker_id = (SELECT worker_id FROM arg), vt = (SELECT strftime('%Y-%m-%d %H:%M:%f', now, lease) FROM arg), due_at = vt,
				read_ct = min(max(CAST(COALESCE(read_ct, 0) AS INTEGER), 0), 2147483646) + 1, claim_ct = min(CAST(claim_ct AS INTEGER), 9223372036854775806) + 1, woken = 0, failed_at = NULL, dequeued_at = COALESCE(dequeued_at, (SELECT now FROM arg))
			WHERE id IN (`
)

// Listings walk one state in an order that an index has, from a cursor on. The
// live ones merge the four priorities, the ended ones go from new to old.
const (
	sqliteListArg = `
		WITH arg (queue, at, id) AS (VALUES (?, ?, ?)), now (t) AS (SELECT ` + sqliteNow + `),
		queue (id) AS (SELECT q.id FROM pgqrs_queues q WHERE q.queue_name = (SELECT queue FROM arg))`
	sqliteListBand  = `SELECT id, vt FROM pgqrs_messages WHERE queue_id = (SELECT id FROM queue) AND archived_at IS NULL AND `
	sqliteListReady = sqliteListBand + `(vt, id) > (COALESCE((SELECT at FROM arg), ''), (SELECT id FROM arg)) AND vt <= (SELECT t FROM now)
					AND priority = `
	// SQLite begins at one bound only: the later of now and the cursor. The + keeps it from another.
	sqliteListScheduled = sqliteListBand + `vt >= (SELECT max(t, COALESCE((SELECT at FROM arg), '')) FROM now)
					AND vt < ` + sqliteBlocked + ` AND +vt > (SELECT t FROM now) AND (+vt, id) > (COALESCE((SELECT at FROM arg), ''), (SELECT id FROM arg)) AND consumer_worker_id IS NULL
					AND priority = `
	sqliteListBlocked = sqliteListBand + `vt = ` + sqliteBlocked + ` AND parked_vt IS NOT NULL AND id > (SELECT id FROM arg) AND priority = `
	sqliteListPage    = `, page (id) AS MATERIALIZED (SELECT id FROM (`
	sqliteListPageEnd = `
				ORDER BY vt, id LIMIT ? + 0))
			SELECT ` + sqliteInfo + `, CAST(m.vt AS BLOB)` + sqliteSizes + ` FROM page CROSS JOIN pgqrs_messages m CROSS JOIN pgqrs_queues q
			WHERE m.id = page.id AND q.id = m.queue_id
			ORDER BY m.vt, m.id`
	// Without the + Turso does not see that a time bounds what is to be read.
	sqliteListFrom = `
		FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = +m.queue_id WHERE m.queue_id = (SELECT id FROM queue) AND `
	// That an owner's id is above 0, and the +, make pgqrs_messages_held the index to use.
	sqliteListHeld = `
		FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = m.queue_id WHERE +m.queue_id = (SELECT id FROM queue) AND m.consumer_worker_id > 0 AND `
)

// What queue.depth counts of a queue q, a priority at a time.
const (
	sqliteDepthBands    = `(SELECT count(*) FROM (SELECT m.id FROM json_each('[2,1,0,-1]') band CROSS JOIN pgqrs_messages m WHERE m.queue_id = q.id AND m.priority = band.value AND m.archived_at IS NULL AND m.vt `
	sqliteDepthFirst    = `COALESCE((SELECT vt FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND vt <= (SELECT now FROM arg) AND priority = `
	sqliteDepthFirstEnd = ` ORDER BY vt, id LIMIT 1), '~')`
)

var sqlite = dialect{
	migrations:  "sqlite",
	isolation:   sql.LevelDefault,
	open:        "/* pgqrs:open */ UPDATE pgqrs_queues SET queue_name = queue_name WHERE 0",
	begin:       "/* pgqrs:begin */ BEGIN IMMEDIATE",
	ask:         "/* pgqrs:ask */ SELECT pgqrs_ask",
	concurrency: singleWriter,
	busy: []string{
		"database is locked",
		"database table is locked",
		"database schema is locked",
		"database is busy",
		"sqlite_busy",
		"snapshot is stale",
		"write-write conflict",
		"commit dependency aborted",
		"database schema conflict",
	},
	gone: []string{
		"database or disk is full",
		"disk i/o error",
		"readonly database",
		"unable to open database file",
	},

	schema: schemaSQL{
		lock: `/* pgqrs:schema.lock */ SELECT 1`,
		settings: map[string]string{
			"journal_mode": `/* pgqrs:schema.journal_mode */ PRAGMA journal_mode`,
			"busy_timeout": `/* pgqrs:schema.busy_timeout */ PRAGMA busy_timeout`,
			"synchronous":  `/* pgqrs:schema.synchronous */ PRAGMA synchronous`,
			"read_only":    `/* pgqrs:schema.read_only */ PRAGMA query_only`,
		},
		encoding: `/* pgqrs:schema.encoding */ PRAGMA encoding`,
		engine:   `/* pgqrs:schema.engine */ SELECT 'SQLite ' || sqlite_version()`,
		turso:    []string{`/* pgqrs:schema.turso */ SELECT 'Turso ' || turso_version()`},
		objects: `/* pgqrs:schema.objects */
			SELECT 'table', name, '' FROM sqlite_master WHERE type = 'table' AND (name LIKE 'pgqrs%' OR name = '_sqlx_migrations')
			UNION ALL
			SELECT 'other', name, 'view' FROM sqlite_master WHERE type = 'view' AND name LIKE 'pgqrs%'
			UNION ALL
			SELECT 'column', m.name, p.name FROM sqlite_master m JOIN pragma_table_info(m.name) p WHERE m.type = 'table' AND m.name LIKE 'pgqrs%'
			UNION ALL
			SELECT 'index', tbl_name, name FROM sqlite_master WHERE type = 'index' AND tbl_name LIKE 'pgqrs%'`,
		versions: `/* pgqrs:schema.versions */ SELECT version, name, oldest FROM pgqrs_migrations ORDER BY version`,
		shared: `/* pgqrs:schema.shared */
			SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = 'pgqrs_messages_consumer')
			WHERE EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name IN ('_sqlx_migrations', 'pgqrs_schema_version'))
				OR EXISTS (SELECT 1 FROM pgqrs_workers WHERE go_state IS NULL)`,
		share: []string{
			`/* pgqrs:schema.share_runs */ CREATE INDEX IF NOT EXISTS pgqrs_workflow_runs_worker ON pgqrs_workflow_runs (worker_id) WHERE worker_id IS NOT NULL`,
			`/* pgqrs:schema.share_producers */ CREATE INDEX IF NOT EXISTS pgqrs_messages_producer ON pgqrs_messages (producer_worker_id) WHERE producer_worker_id IS NOT NULL`,
			`/* pgqrs:schema.share_consumers */ CREATE INDEX IF NOT EXISTS pgqrs_messages_consumer ON pgqrs_messages (consumer_worker_id) WHERE consumer_worker_id IS NOT NULL`,
		},
		drop: []string{
			`/* pgqrs:schema.drop_groups */ DROP TABLE IF EXISTS pgqrs_groups`,
			`/* pgqrs:schema.drop_schedule_runs */ DROP TABLE IF EXISTS pgqrs_schedule_runs`,
			`/* pgqrs:schema.drop_schedules */ DROP TABLE IF EXISTS pgqrs_schedules`,
			`/* pgqrs:schema.drop_signals */ DROP TABLE IF EXISTS pgqrs_workflow_signals`,
			`/* pgqrs:schema.drop_steps */ DROP TABLE IF EXISTS pgqrs_workflow_steps`,
			`/* pgqrs:schema.drop_runs */ DROP TABLE IF EXISTS pgqrs_workflow_runs`,
			`/* pgqrs:schema.drop_workflows */ DROP TABLE IF EXISTS pgqrs_workflows`,
			`/* pgqrs:schema.drop_messages */ DROP TABLE IF EXISTS pgqrs_messages`,
			`/* pgqrs:schema.drop_workers */ DROP TABLE IF EXISTS pgqrs_workers`,
			`/* pgqrs:schema.drop_queues */ DROP TABLE IF EXISTS pgqrs_queues`,
			`/* pgqrs:schema.drop_migrations */ DROP TABLE IF EXISTS pgqrs_migrations`,
		},
	},

	queue: queueSQL{
		make: `/* pgqrs:queue.make */ INSERT INTO pgqrs_queues (queue_name) VALUES (?) ON CONFLICT (queue_name) DO NOTHING`,
		pause: `/* pgqrs:queue.pause */
			WITH arg (name, paused) AS (VALUES (?, ?))
			UPDATE pgqrs_queues SET paused_at = CASE WHEN (SELECT paused FROM arg) THEN COALESCE(paused_at, ` + sqliteNow + `) END
			WHERE queue_name = (SELECT name FROM arg)
			RETURNING id`,
		stats: `/* pgqrs:queue.stats */
			WITH arg (names, now) AS (SELECT ?, ` + sqliteNow + `),
			count (id, name, created_at, paused_at, ready, waiting, leased, archived, dead, oldest, policy, blocked) AS (
				SELECT q.id, q.queue_name, q.created_at, q.paused_at,
					(SELECT count(*) FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND vt <= arg.now),
					(SELECT count(*) FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND vt > arg.now AND vt < ` + sqliteBlocked + `),
					(SELECT count(*) FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND consumer_worker_id IS NOT NULL AND vt > arg.now),
					(SELECT count(*) FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NOT NULL AND failed_at IS NULL),
					(SELECT count(*) FROM pgqrs_messages WHERE queue_id = q.id AND failed_at IS NOT NULL),
					(SELECT CAST((julianday(arg.now) - julianday(min(vt))) * 86400000000 AS INTEGER) FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND vt <= arg.now),
					` + sqlitePolicyOf + `, ` + sqliteBlockedOf + `
				FROM arg CROSS JOIN pgqrs_queues q
				WHERE arg.names IS NULL OR q.queue_name IN (SELECT json_extract(value, '$[0]') FROM json_each((SELECT names FROM arg)))
			)
			SELECT id, CAST(name AS BLOB), CAST(created_at AS BLOB), CAST(paused_at AS BLOB), ready, waiting - leased, leased, archived, dead, COALESCE(oldest, 0), policy, blocked
			FROM count ORDER BY name`,
		depth: `/* pgqrs:queue.depth */
			WITH arg (names, now, since) AS MATERIALIZED (SELECT ?, ` + sqliteNow + `, strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 minute'))
			SELECT CAST(q.queue_name AS BLOB), CAST(q.paused_at AS BLOB),
				` + sqliteDepthBands + `<= (SELECT now FROM arg) LIMIT ` + depthLimit + `)),
				` + sqliteDepthBands + `> (SELECT now FROM arg) AND m.vt < ` + sqliteBlocked + ` LIMIT ` + depthLimit + `)),
				(SELECT count(*) FROM pgqrs_messages WHERE +queue_id = q.id AND archived_at IS NULL AND consumer_worker_id IS NOT NULL AND consumer_worker_id > 0 AND vt > (SELECT now FROM arg)),
				(SELECT count(*) FROM (SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND failed_at IS NOT NULL LIMIT ` + depthLimit + `)),
				(SELECT count(*) FROM (SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NOT NULL AND failed_at IS NULL AND archived_at > (SELECT since FROM arg) LIMIT ` + depthLimit + `)),
				(SELECT count(*) FROM (SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND failed_at IS NOT NULL AND failed_at > (SELECT since FROM arg) LIMIT ` + depthLimit + `)),
				COALESCE(CAST((julianday((SELECT now FROM arg)) - julianday(NULLIF(min(` + sqliteDepthFirst + `2` + sqliteDepthFirstEnd + `, ` + sqliteDepthFirst + `1` + sqliteDepthFirstEnd + `, ` +
			sqliteDepthFirst + `0` + sqliteDepthFirstEnd + `, ` + sqliteDepthFirst + `-1` + sqliteDepthFirstEnd + `), '~'))) * 86400000000 AS INTEGER), 0),
				` + sqlitePolicyOf + `, ` + sqliteBlockedOf + `, COALESCE(live.workers, 0)
			FROM pgqrs_queues q LEFT JOIN (
				SELECT queue_id, count(*) AS workers FROM pgqrs_workers
				WHERE status IN ('ready', 'polling') AND heartbeat_at > strftime('%Y-%m-%d %H:%M:%f', 'now', CASE WHEN go_state IS NULL THEN '-600 seconds' ELSE '-30 seconds' END)
				GROUP BY queue_id
			) live ON live.queue_id = q.id
			WHERE (SELECT names FROM arg) IS NULL OR q.queue_name IN (SELECT json_extract(value, '$[0]') FROM json_each((SELECT names FROM arg)))
			ORDER BY q.queue_name`,
		unattended: `/* pgqrs:queue.unattended */
			WITH given (silence, waited) AS (SELECT ?, ?),
			arg (now, alive, alive_shared, until) AS MATERIALIZED (
				SELECT ` + sqliteNow + `, strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.6f seconds', silence / 1000000.0)),
					strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.6f seconds', silence * 20 / 1000000.0)), strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.6f seconds', waited / 1000000.0))
				FROM given
			), first (name, vt) AS (
				SELECT q.queue_name, min(` + sqliteDepthFirst + `2` + sqliteDepthFirstEnd + `, ` + sqliteDepthFirst + `1` + sqliteDepthFirstEnd + `, ` +
			sqliteDepthFirst + `0` + sqliteDepthFirstEnd + `, ` + sqliteDepthFirst + `-1` + sqliteDepthFirstEnd + `)
				FROM pgqrs_queues q
				WHERE q.paused_at IS NULL AND q.id NOT IN (
					SELECT w.queue_id FROM pgqrs_workers w
					WHERE w.queue_id IS NOT NULL AND w.status IN ('ready', 'polling')
						AND w.heartbeat_at > CASE WHEN w.go_state IS NULL THEN (SELECT alive_shared FROM arg) ELSE (SELECT alive FROM arg) END)
			)
			SELECT CAST(name AS BLOB), CAST((julianday((SELECT now FROM arg)) - julianday(vt)) * 86400000000 AS INTEGER)
			FROM first WHERE vt <= (SELECT until FROM arg)
			ORDER BY name
			LIMIT ? + 0`,
		freeze: []string{`/* pgqrs:queue.freeze */ UPDATE pgqrs_queues SET queue_name = queue_name WHERE 0`},
		inUse: `/* pgqrs:queue.in_use */
			WITH arg (name, silence) AS (SELECT ?, printf('-%.6f seconds', ? / 1000000.0))
			SELECT q.id,
				EXISTS (SELECT 1 FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL)
					OR EXISTS (SELECT 1 FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NOT NULL AND failed_at IS NULL)
					OR EXISTS (SELECT 1 FROM pgqrs_messages WHERE queue_id = q.id AND failed_at IS NOT NULL),
				(SELECT count(*) FROM pgqrs_workers w WHERE w.queue_id = q.id AND w.status <> 'stopped' AND w.heartbeat_at > strftime('%Y-%m-%d %H:%M:%f', 'now', (SELECT silence FROM arg)))
			FROM pgqrs_queues q WHERE q.queue_name = (SELECT name FROM arg)`,
		drop: []string{
			`/* pgqrs:queue.drop_workers */ DELETE FROM pgqrs_workers WHERE queue_id = ?`,
			`/* pgqrs:queue.drop_workflow */ DELETE FROM pgqrs_workflows WHERE queue_id = ?`,
			`/* pgqrs:queue.drop_row */ DELETE FROM pgqrs_queues WHERE id = ?`,
		},
	},

	message: messageSQL{
		enqueue: `/* pgqrs:message.enqueue */
			WITH arg (queue, payload, delay, at, priority, key, headers, now) AS (SELECT ?, ?, ?, ?, ?, ?, ?, ` + sqliteNow + `)
			INSERT INTO pgqrs_messages (queue_id, payload, vt, enqueued_at, read_ct, priority, dedup_key, headers)
			SELECT q.id, arg.payload,
				CASE WHEN arg.at IS NOT NULL THEN max(arg.now, strftime('%Y-%m-%d %H:%M:%f', arg.at / 1000000.0, 'unixepoch'))
					WHEN arg.delay = 0 THEN arg.now
					ELSE strftime('%Y-%m-%d %H:%M:%f', arg.now, printf('%.6f seconds', arg.delay / 1000000.0)) END,
				arg.now, 0, arg.priority, arg.key, arg.headers
			FROM arg JOIN pgqrs_queues q ON q.queue_name = arg.queue
			WHERE true
			ON CONFLICT (queue_id, dedup_key) WHERE archived_at IS NULL AND dedup_key IS NOT NULL DO NOTHING
			RETURNING id`,
		// The list is the innermost loop, so that the rows are stored in its order; to sort them would cost a third.
		// For an object or an array json_each has its text.
		enqueueBatch: `/* pgqrs:message.batch_enqueue */
			WITH arg (queue, items, now) AS MATERIALIZED (SELECT ?, ?, ` + sqliteNow + `)
			INSERT INTO pgqrs_messages (queue_id, payload, vt, enqueued_at, read_ct, priority)
			SELECT q.id, value, arg.now, arg.now, 0, 0
			FROM arg CROSS JOIN pgqrs_queues q CROSS JOIN json_each(arg.items)
			WHERE q.queue_name = arg.queue
			RETURNING id`,
		enqueueMixed: `/* pgqrs:message.mixed_enqueue */
			WITH arg (queue, items, now) AS MATERIALIZED (SELECT ?, ?, ` + sqliteNow + `)
			INSERT INTO pgqrs_messages (queue_id, payload, vt, enqueued_at, read_ct, priority, dedup_key, headers)
			SELECT q.id, json_extract(value, '$[0]'),
				CASE WHEN json_extract(value, '$[2]') IS NOT NULL THEN max(arg.now, strftime('%Y-%m-%d %H:%M:%f', json_extract(value, '$[2]') / 1000000.0, 'unixepoch'))
					WHEN json_extract(value, '$[1]') = 0 THEN arg.now
					ELSE strftime('%Y-%m-%d %H:%M:%f', arg.now, printf('%.6f seconds', json_extract(value, '$[1]') / 1000000.0)) END,
				arg.now, 0, json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]')
			FROM arg CROSS JOIN pgqrs_queues q CROSS JOIN json_each(arg.items)
			WHERE q.queue_name = arg.queue
			ON CONFLICT (queue_id, dedup_key) WHERE archived_at IS NULL AND dedup_key IS NOT NULL DO NOTHING
			RETURNING id, CAST(dedup_key AS BLOB)`,
		keyed: `/* pgqrs:message.keyed */
			WITH arg (queue, keys) AS (VALUES (?, ?))
			SELECT CAST(m.dedup_key AS BLOB), m.id
			FROM arg JOIN pgqrs_queues q ON q.queue_name = arg.queue CROSS JOIN json_each(arg.keys) k CROSS JOIN pgqrs_messages m
			WHERE m.queue_id = q.id AND m.dedup_key = json_extract(k.value, '$[0]') AND m.dedup_key IS NOT NULL AND m.archived_at IS NULL`,
		get: `/* pgqrs:message.get */
			SELECT ` + sqliteInfo + `, ''` + sqliteSizes + `
			FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = m.queue_id
			WHERE m.id IN (SELECT value FROM json_each(?))
			ORDER BY m.id`,
		whole: `/* pgqrs:message.whole */
			SELECT ` + sqliteWhole + `, ''
			FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = m.queue_id
			WHERE m.id = ?`,
		ahead: `/* pgqrs:message.ahead */
			WITH self (id, queue_id, group_key) AS (SELECT m.id, m.queue_id, m.group_key FROM pgqrs_messages m WHERE m.id = ? AND m.archived_at IS NULL AND m.parked_vt IS NOT NULL),
			other (id, vt, rank) AS (
				SELECT * FROM (
					SELECT o.id, o.vt, ` + sqliteAheadRank + ` FROM self CROSS JOIN pgqrs_messages o
					WHERE o.queue_id = self.queue_id AND o.group_key = self.group_key AND o.group_key IS NOT NULL AND o.archived_at IS NULL AND o.parked_vt IS NULL
					LIMIT 1000)
				UNION ALL
				SELECT * FROM (
					SELECT o.id, o.vt, ` + sqliteAheadRank + ` FROM self CROSS JOIN pgqrs_messages o
					WHERE o.batch_id = self.id AND o.batch_id IS NOT NULL AND o.archived_at IS NULL
					LIMIT 1000)
			)
			SELECT id FROM other ORDER BY rank, vt, id LIMIT ? + 0`,
		list: map[State]string{
			Ready: `/* pgqrs:message.list_ready */` + sqliteListArg + sqliteListPage + sqliteListReady + `2
				UNION ALL ` + sqliteListReady + `1
				UNION ALL ` + sqliteListReady + `0
				UNION ALL ` + sqliteListReady + `-1` + sqliteListPageEnd,
			Scheduled: `/* pgqrs:message.list_scheduled */` + sqliteListArg + sqliteListPage + sqliteListScheduled + `2
				UNION ALL ` + sqliteListScheduled + `1
				UNION ALL ` + sqliteListScheduled + `0
				UNION ALL ` + sqliteListScheduled + `-1` + sqliteListPageEnd,
			Blocked: `/* pgqrs:message.list_blocked */` + sqliteListArg + sqliteListPage + sqliteListBlocked + `2
				UNION ALL ` + sqliteListBlocked + `1
				UNION ALL ` + sqliteListBlocked + `0
				UNION ALL ` + sqliteListBlocked + `-1` + sqliteListPageEnd,
			Leased: `/* pgqrs:message.list_leased */` + sqliteListArg + `
				SELECT ` + sqliteInfo + `, CAST(m.vt AS BLOB)` + sqliteSizes + `` + sqliteListHeld + `m.archived_at IS NULL AND m.consumer_worker_id IS NOT NULL AND m.vt > (SELECT t FROM now)
					AND (m.vt, m.id) > (COALESCE((SELECT at FROM arg), ''), (SELECT id FROM arg))
				ORDER BY m.vt, m.id
				LIMIT ? + 0`,
			Archived: `/* pgqrs:message.list_archived */` + sqliteListArg + `
				SELECT ` + sqliteInfo + `, CAST(m.archived_at AS BLOB)` + sqliteSizes + `` + sqliteListFrom + `m.archived_at IS NOT NULL AND m.failed_at IS NULL
					AND m.archived_at <= (SELECT COALESCE(at, '~') FROM arg) AND (m.archived_at, m.id) < (COALESCE((SELECT at FROM arg), '~'), (SELECT id FROM arg))
				ORDER BY m.archived_at DESC, m.id DESC
				LIMIT ? + 0`,
			Dead: `/* pgqrs:message.list_dead */` + sqliteListArg + `
				SELECT ` + sqliteInfo + `, CAST(m.failed_at AS BLOB)` + sqliteSizes + `` + sqliteListFrom + `m.failed_at IS NOT NULL
					AND m.failed_at <= (SELECT COALESCE(at, '~') FROM arg) AND (m.failed_at, m.id) < (COALESCE((SELECT at FROM arg), '~'), (SELECT id FROM arg))
				ORDER BY m.failed_at DESC, m.id DESC
				LIMIT ? + 0`,
		},
		lock: `/* pgqrs:message.lock */
			WITH arg (ids, state, now) AS (SELECT ?, ?, ` + sqliteNow + `)
			SELECT m.id FROM pgqrs_messages m
			WHERE m.id IN (SELECT value FROM json_each((SELECT ids FROM arg))) AND CASE (SELECT state FROM arg)
				WHEN '' THEN true
				WHEN 'ready' THEN m.archived_at IS NULL AND m.vt <= (SELECT now FROM arg)
				WHEN 'scheduled' THEN m.archived_at IS NULL AND m.vt > (SELECT now FROM arg) AND m.consumer_worker_id IS NULL AND m.parked_vt IS NULL
				WHEN 'blocked' THEN m.archived_at IS NULL AND m.parked_vt IS NOT NULL
				WHEN 'leased' THEN m.archived_at IS NULL AND m.vt > (SELECT now FROM arg) AND m.consumer_worker_id IS NOT NULL
				WHEN 'archived' THEN m.archived_at IS NOT NULL AND m.failed_at IS NULL AND ` + sqliteUnneeded + `
				WHEN 'dead' THEN m.failed_at IS NOT NULL AND ` + sqliteUnneeded + ` END
			ORDER BY m.id`,
		remove: []string{
			`/* pgqrs:message.remove_steps */ DELETE FROM pgqrs_workflow_steps WHERE run_id IN (SELECT id FROM pgqrs_workflow_runs WHERE message_id IN (SELECT value FROM json_each(?)))`,
			`/* pgqrs:message.remove_signals */ DELETE FROM pgqrs_workflow_signals WHERE run_id IN (SELECT id FROM pgqrs_workflow_runs WHERE message_id IN (SELECT value FROM json_each(?)))`,
			`/* pgqrs:message.remove_runs */ DELETE FROM pgqrs_workflow_runs WHERE message_id IN (SELECT value FROM json_each(?))`,
			`/* pgqrs:message.remove_rows */ DELETE FROM pgqrs_messages WHERE id IN (SELECT value FROM json_each(?))`,
		},
		redrive: `/* pgqrs:message.redrive */
			WITH chosen (id, queue_id, dedup_key) AS (
				SELECT m.id, m.queue_id, m.dedup_key FROM pgqrs_messages m
				WHERE m.id IN (SELECT value FROM json_each(?)) AND m.archived_at IS NOT NULL AND m.group_key IS NULL
			)
			UPDATE pgqrs_messages
			SET archived_at = NULL, failed_at = NULL, read_ct = 0, vt = ` + sqliteNow + `, due_at = NULL, dequeued_at = NULL, consumer_worker_id = NULL
			WHERE id IN (
				SELECT c.id FROM chosen c
				WHERE c.dedup_key IS NULL
					OR NOT EXISTS (SELECT 1 FROM pgqrs_messages o WHERE o.queue_id = c.queue_id AND o.dedup_key = c.dedup_key AND o.dedup_key IS NOT NULL AND o.archived_at IS NULL)
					AND NOT EXISTS (SELECT 1 FROM chosen o WHERE o.queue_id = c.queue_id AND o.dedup_key = c.dedup_key AND o.id < c.id))
			RETURNING id`,
		prune: `/* pgqrs:message.prune */
			WITH arg (queue_id, until) AS (
				SELECT q.id, strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.6f seconds', json_extract(value, '$[1]') / 1000000.0))
				FROM json_each(?) CROSS JOIN pgqrs_queues q ON q.queue_name = json_extract(value, '$[0]')
			)
			DELETE FROM pgqrs_messages WHERE id IN (
				SELECT m.id FROM arg CROSS JOIN pgqrs_messages m ON m.queue_id = arg.queue_id
				WHERE m.archived_at IS NOT NULL AND m.failed_at IS NULL AND m.archived_at < arg.until
					AND (m.batch_id IS NULL OR NOT EXISTS (SELECT 1 FROM pgqrs_messages b WHERE b.id = m.batch_id AND b.parked_vt IS NOT NULL))
					AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs r WHERE r.message_id = m.id)
				LIMIT ? + 0)`,
		disown: `/* pgqrs:message.disown */
			WITH arg (until) AS (SELECT strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.6f seconds', ? / 1000000.0)))
			UPDATE pgqrs_messages SET consumer_worker_id = NULL, due_at = COALESCE(due_at, vt)
			WHERE id IN (
				SELECT id FROM pgqrs_messages
				WHERE consumer_worker_id IS NOT NULL AND archived_at IS NULL AND vt <= (SELECT until FROM arg)
				LIMIT ? + 0)`,
		unreachable: `/* pgqrs:message.unreachable */
			WITH arg (queues) AS (SELECT ?),
			line (id) AS MATERIALIZED (
				SELECT m.id FROM arg CROSS JOIN json_each(arg.queues) j CROSS JOIN pgqrs_queues q CROSS JOIN json_each('[2,1,0,-1]') band CROSS JOIN pgqrs_messages m
				WHERE q.queue_name = json_extract(j.value, '$[0]') AND m.queue_id = q.id AND m.priority = band.value AND m.archived_at IS NULL AND m.vt > ` + sqliteBlocked + `
				UNION ALL
				SELECT m.id FROM arg CROSS JOIN json_each(arg.queues) j CROSS JOIN pgqrs_queues q CROSS JOIN json_each('[2,1,0,-1]') band CROSS JOIN pgqrs_messages m
				WHERE q.queue_name = json_extract(j.value, '$[0]') AND m.queue_id = q.id AND m.priority = band.value AND m.archived_at IS NULL AND m.vt IS NULL
				LIMIT ? + 0
			)
			UPDATE pgqrs_messages
			SET archived_at = ` + sqliteNow + `, failed_at = ` + sqliteNow + `, vt = ` + sqliteNow + `, due_at = NULL, last_error = ` + unreachableReason + `
			WHERE id IN (SELECT id FROM line) AND parked_vt IS NULL`,
	},

	lease: leaseSQL{
		claim: `/* pgqrs:message.claim */
			WITH arg (worker_id, lease, alone, now) AS (
				SELECT ?, printf('%.6f seconds', ? / 1000000.0), ?, ` + sqliteNow + `
			), ` + sqliteDue + `, crashed (rank, vt, id) AS (
				SELECT rank, vt, id FROM due WHERE crashed ORDER BY rank, vt, id LIMIT 1
			)` + sqliteClaim + `
				SELECT d.id FROM due d
				WHERE (NOT EXISTS (SELECT 1 FROM crashed c WHERE (c.rank, c.vt, c.id) <= (d.rank, d.vt, d.id))
					OR (SELECT alone FROM arg) AND d.id = (SELECT id FROM due ORDER BY rank, vt, id LIMIT 1))
					AND ((SELECT sum(size) FROM due) < ` + claimedBytes + `
						OR d.id IN (SELECT id FROM (SELECT id, sum(size) OVER (ORDER BY rank, vt, id) - size AS before FROM due) WHERE before < ` + claimedBytes + `)))
			RETURNING ` + sqliteClaimed,
		check: `/* pgqrs:message.check */
			UPDATE pgqrs_messages SET claim_ct = claim_ct
			WHERE id = ? AND consumer_worker_id = ? AND claim_ct = ? AND archived_at IS NULL
			RETURNING id`,
		ack: `/* pgqrs:message.ack */
			UPDATE pgqrs_messages SET archived_at = COALESCE(archived_at, ` + sqliteNow + `), due_at = NULL
			FROM (` + sqliteLeases + `) AS held WHERE ` + sqliteFence + ` AND failed_at IS NULL
			RETURNING id`,
		delete: `/* pgqrs:message.delete */
			DELETE FROM pgqrs_messages
			WHERE archived_at IS NULL AND id IN (SELECT held.id FROM (` + sqliteLeases + `) AS held CROSS JOIN pgqrs_messages m
				WHERE m.id = held.id AND m.consumer_worker_id = held.worker_id AND m.claim_ct = held.claim_ct)
				AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs r WHERE r.message_id = pgqrs_messages.id)
			RETURNING id`,
		release: `/* pgqrs:message.release */
			UPDATE pgqrs_messages
			SET vt = strftime('%Y-%m-%d %H:%M:%f', 'now', CASE WHEN woken THEN '0 seconds' ELSE held.delay END), consumer_worker_id = NULL, due_at = NULL, read_ct = max(CAST(COALESCE(read_ct, 0) AS INTEGER), 1) - 1
			FROM (` + sqliteLeases + `) AS held WHERE ` + sqliteFence + ` AND archived_at IS NULL
			RETURNING id`,
		fail: `/* pgqrs:message.fail */
			UPDATE pgqrs_messages
			SET last_error = held.error, due_at = NULL,
				vt = CASE WHEN held.dead THEN vt ELSE strftime('%Y-%m-%d %H:%M:%f', 'now', held.delay) END,
				consumer_worker_id = CASE WHEN held.dead THEN consumer_worker_id END,
				archived_at = CASE WHEN held.dead THEN ` + sqliteNow + ` END,
				failed_at = CASE WHEN held.dead THEN ` + sqliteNow + ` END
			FROM (` + sqliteLeases + `) AS held WHERE ` + sqliteFence + ` AND archived_at IS NULL
			RETURNING id`,
		extend: `/* pgqrs:message.extend */
			WITH arg (until) AS (SELECT strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%.6f seconds', ? / 1000000.0)))
			UPDATE pgqrs_messages SET vt = (SELECT until FROM arg)
			FROM (` + sqliteLeases + `) AS held WHERE ` + sqliteFence + ` AND archived_at IS NULL
			RETURNING id`,
		renew: `/* pgqrs:message.renew */
			WITH arg (until) AS (SELECT strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%.6f seconds', ? / 1000000.0)))
			UPDATE pgqrs_messages SET vt = max(vt, (SELECT until FROM arg))
			FROM (` + sqliteLeases + `) AS held WHERE ` + sqliteFence + ` AND archived_at IS NULL
			RETURNING id`,
		strays: `/* pgqrs:message.strays */
			WITH arg (worker_id, incarnation, ids) AS (VALUES (?, ?, ?))
			UPDATE pgqrs_messages SET vt = ` + sqliteNow + `, consumer_worker_id = NULL, due_at = NULL, read_ct = max(CAST(COALESCE(read_ct, 0) AS INTEGER), 1) - 1
			WHERE consumer_worker_id = (SELECT id FROM pgqrs_workers WHERE id = (SELECT worker_id FROM arg) AND ` + sqliteIncarnation + ` = (SELECT incarnation FROM arg)) AND consumer_worker_id IS NOT NULL AND archived_at IS NULL
				AND id NOT IN (SELECT value FROM json_each((SELECT ids FROM arg)))`,
	},

	worker: workerSQL{
		register: `/* pgqrs:worker.register */
			WITH arg (queue, name, status, silence, now) AS (
				SELECT ?, ?, ?, printf('-%.6f seconds', ? / 1000000.0), ` + sqliteNow + `
			)
			INSERT INTO pgqrs_workers (id, name, queue_id, status, started_at, heartbeat_at, go_state)
			SELECT ` + sqliteWorkerID + `, arg.name, q.id, arg.status, arg.now, arg.now, 'live'
			FROM arg JOIN pgqrs_queues q ON q.queue_name = arg.queue
			WHERE NOT EXISTS (
				SELECT 1 FROM pgqrs_workers w
				WHERE w.name = arg.name AND w.status <> 'stopped' AND w.heartbeat_at >= strftime('%Y-%m-%d %H:%M:%f', arg.now, arg.silence))
			ON CONFLICT (name) DO UPDATE
			SET queue_id = excluded.queue_id, status = excluded.status, started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at, shutdown_at = NULL, go_state = excluded.go_state
			RETURNING id, ` + sqliteLimited + `, ` + sqliteIncarnation,
		heartbeat: `/* pgqrs:worker.heartbeat */
			UPDATE pgqrs_workers SET heartbeat_at = CASE WHEN status = 'stopped' THEN heartbeat_at ELSE ` + sqliteNow + ` END WHERE id IN (SELECT value FROM json_each(?))
			RETURNING id, CASE WHEN status = 'stopped' AND go_state = 'live' AND (shutdown_at <= heartbeat_at OR shutdown_at >= strftime('%Y-%m-%d %H:%M:%f', heartbeat_at, '3 seconds'))
				THEN 'silent' ELSE status END, ` + sqliteLimited + `, ` + sqliteIncarnation,
		retire: `/* pgqrs:worker.retire */
			UPDATE pgqrs_workers SET status = 'stopped', shutdown_at = ` + sqliteNow + `, go_state = 'stopped'
			FROM (SELECT json_extract(value, '$[0]') AS worker_id, json_extract(value, '$[1]') AS incarnation FROM json_each(?)) AS own
			WHERE pgqrs_workers.id = own.worker_id AND pgqrs_workers.status <> 'stopped' AND ` + sqliteIncarnation + ` = own.incarnation`,
		poll: `/* pgqrs:worker.poll */
			WITH arg (ids, now) AS (SELECT ?, ` + sqliteNow + `)
			SELECT w.id FROM pgqrs_workers w JOIN pgqrs_queues q ON q.id = w.queue_id
			WHERE w.id IN (SELECT value FROM json_each((SELECT ids FROM arg))) AND w.status IN ('ready', 'polling') AND q.paused_at IS NULL
				AND (EXISTS (SELECT 1 FROM pgqrs_messages m WHERE m.queue_id = q.id AND m.priority = 2 AND m.archived_at IS NULL AND m.vt <= (SELECT now FROM arg))
				OR EXISTS (SELECT 1 FROM pgqrs_messages m WHERE m.queue_id = q.id AND m.priority = 1 AND m.archived_at IS NULL AND m.vt <= (SELECT now FROM arg))
				OR EXISTS (SELECT 1 FROM pgqrs_messages m WHERE m.queue_id = q.id AND m.priority = 0 AND m.archived_at IS NULL AND m.vt <= (SELECT now FROM arg))
				OR EXISTS (SELECT 1 FROM pgqrs_messages m WHERE m.queue_id = q.id AND m.priority = -1 AND m.archived_at IS NULL AND m.vt <= (SELECT now FROM arg)))`,
		move: `/* pgqrs:worker.move */
			WITH arg (id, status, old) AS (VALUES (?, ?, ?))
			UPDATE pgqrs_workers SET status = (SELECT status FROM arg), shutdown_at = CASE WHEN (SELECT status FROM arg) = 'stopped' THEN ` + sqliteNow + ` END,
				go_state = CASE WHEN go_state IS NOT NULL THEN CASE WHEN (SELECT status FROM arg) = 'stopped' THEN 'stopped' ELSE 'live' END END
			WHERE id = (SELECT id FROM arg) AND status IN (SELECT value FROM json_each((SELECT old FROM arg)))
			RETURNING id`,
		status: `/* pgqrs:worker.status */ SELECT status FROM pgqrs_workers WHERE id = ?`,
		list: `/* pgqrs:worker.list */
			SELECT w.id, CAST(w.name AS BLOB), CAST(q.queue_name AS BLOB), w.status, CAST(w.started_at AS BLOB), CAST(w.heartbeat_at AS BLOB), CAST(w.shutdown_at AS BLOB),
				(SELECT count(*) FROM pgqrs_messages m WHERE m.consumer_worker_id = w.id AND m.consumer_worker_id IS NOT NULL AND m.archived_at IS NULL)
			FROM pgqrs_workers w LEFT JOIN pgqrs_queues q ON q.id = w.queue_id
			ORDER BY w.started_at, w.id`,
		expire: `/* pgqrs:worker.expire */
			UPDATE pgqrs_workers SET status = 'stopped', shutdown_at = heartbeat_at
			WHERE go_state = 'live' AND status <> 'stopped' AND heartbeat_at < strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.6f seconds', ? / 1000000.0))`,
		prune: `/* pgqrs:worker.prune */
			WITH arg (until) AS (SELECT strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.6f seconds', ? / 1000000.0)))
			DELETE FROM pgqrs_workers WHERE id IN (
				SELECT w.id FROM pgqrs_workers w
				WHERE w.go_state IS NOT NULL AND w.status = 'stopped' AND COALESCE(w.shutdown_at, w.heartbeat_at) < (SELECT until FROM arg)
					AND NOT EXISTS (SELECT 1 FROM pgqrs_messages m WHERE m.consumer_worker_id = w.id AND m.consumer_worker_id IS NOT NULL AND m.archived_at IS NULL)
				LIMIT ? + 0)`,
		pruneShared: `/* pgqrs:worker.shared_prune */
			WITH arg (until) AS (SELECT strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.6f seconds', ? / 1000000.0)))
			DELETE FROM pgqrs_workers WHERE id IN (
				SELECT w.id FROM pgqrs_workers w
				WHERE w.go_state IS NOT NULL AND w.status = 'stopped' AND COALESCE(w.shutdown_at, w.heartbeat_at) < (SELECT until FROM arg)
					AND NOT EXISTS (SELECT 1 FROM pgqrs_messages m WHERE m.consumer_worker_id = w.id AND m.consumer_worker_id IS NOT NULL)
				LIMIT ? + 0)`,
	},

	policy:   sqlitePolicies,
	limit:    sqliteLimits,
	workflow: sqliteWorkflow,
	step:     sqliteSteps,
	signal:   sqliteSignals,
	schedule: sqliteSchedules,
	group:    sqliteGroupTexts,
	batch:    sqliteBatches,
}
