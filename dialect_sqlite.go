package pgqrs

import "database/sql"

// Timestamps are UTC text with milliseconds, the resolution of SQLite's clock. They sort together
// with the timestamps of pgqrs 0.15, which have six digits or none.
const sqliteNow = `strftime('%Y-%m-%d %H:%M:%f', 'now')`

// A limit is written ? + 0, because SQLite compiles a statement with LIMIT ? each time it runs.

// Some conditions look redundant, such as x = ? AND x IS NOT NULL, or x <= ? beside (x, id) < (?,
// ?). They are for Turso, which otherwise does not recognise that an index serves them.

// User text and timestamps are selected as BLOB, because go-libsql changes text that looks like a
// date. Only last_error may be empty, and is NULL then, because go-sqlite3 of ncruces v0.18.4
// cannot read an empty BLOB.
const sqliteDelivery = `id, CAST(payload AS BLOB), priority, read_ct, claim_ct, CAST(dedup_key AS BLOB), CAST(headers AS BLOB), CAST(NULLIF(last_error, '') AS BLOB),
	CAST(enqueued_at AS BLOB), CAST(due_at AS BLOB), CAST(vt AS BLOB)`

const (
	sqliteInfo       = `m.id, ` + sqliteCut + sqliteInfoKey + `CASE WHEN ` + sqliteHeadersFit + ` THEN CAST(m.headers AS BLOB) END` + sqliteInfoEnd
	sqliteCut        = `substr(CAST(m.payload AS BLOB), 1, ` + listedText + `)`
	sqliteHeadersFit = `length(CAST(m.headers AS BLOB)) <= ` + listedHeaders
	sqliteInfoKey    = `, m.priority, m.read_ct, m.claim_ct, substr(CAST(m.dedup_key AS BLOB), 1, ` + listedName + `), `
	sqliteInfoEnd    = `, substr(CAST(NULLIF(m.last_error, '') AS BLOB), 1, ` + listedError + `),` + sqliteTimes + `
	substr(CAST(q.queue_name AS BLOB), 1, ` + listedName + `), ` + sqliteState
	// sqliteSizes are the last columns of a listing.
	sqliteSizes = `, length(CAST(m.payload AS BLOB)), NOT COALESCE(` + sqliteHeadersFit + `, 1)`
	// sqliteWhole is sqliteInfo with nothing cut.
	sqliteWhole = `m.id, CAST(m.payload AS BLOB), m.priority, m.read_ct, m.claim_ct, CAST(m.dedup_key AS BLOB), CAST(m.headers AS BLOB),
	CAST(NULLIF(m.last_error, '') AS BLOB),` + sqliteTimes + `
	CAST(q.queue_name AS BLOB), ` + sqliteState
	sqliteTimes = `
	CAST(m.enqueued_at AS BLOB), CAST(m.due_at AS BLOB), CAST(COALESCE(m.parked_vt, m.vt) AS BLOB),`
	sqliteState = `m.consumer_worker_id, CAST(m.archived_at AS BLOB), CAST(m.failed_at AS BLOB),
	CASE WHEN m.failed_at IS NOT NULL THEN 'dead' WHEN m.archived_at IS NOT NULL THEN 'archived'
		WHEN m.parked_vt IS NOT NULL THEN 'blocked' WHEN m.vt <= ` + sqliteNow + ` THEN 'ready' WHEN m.consumer_worker_id IS NULL THEN 'scheduled' ELSE 'leased' END`
)

// sqliteAheadRank is the order of message.ahead.
const sqliteAheadRank = `CASE WHEN o.parked_vt IS NOT NULL THEN 3 WHEN o.vt <= ` + sqliteNow + ` THEN 2 WHEN o.consumer_worker_id IS NULL THEN 1 ELSE 0 END`

// sqliteClaimed has the columns of a claim.
const sqliteClaimed = sqliteDelivery + `, (SELECT runs FROM worker)`

// sqliteLeases reads a JSON array of lease tuples.
const sqliteLeases = `
	SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS worker_id, json_extract(value, '$[2]') AS claim_ct,
		printf('%.6f seconds', json_extract(value, '$[3]') / 1000000.0) AS delay, json_extract(value, '$[3]') IS NULL AS dead, json_extract(value, '$[4]') AS error
	FROM json_each(?)`

// sqliteWorkerID is the id of a new row of pgqrs_workers: 48 random bits.
const sqliteWorkerID = `(random() & 281474976710655) + 1`

// sqliteIncarnation distinguishes the owners of a row of pgqrs_workers by the time at which they
// took it.
const sqliteIncarnation = `CAST(round((julianday(started_at) - 2440587.5) * 86400000) AS INTEGER)`

// sqliteFence is the condition that the lease tuple held still holds a row.
const sqliteFence = `pgqrs_messages.id = held.id AND pgqrs_messages.consumer_worker_id = held.worker_id AND pgqrs_messages.claim_ct = held.claim_ct`

// A band has the due messages of one priority, in the order of the claim's index. It is empty for a
// worker that is not active, and for a paused queue.
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
	// sqliteSize is the size of a message as a claim counts it. A row of SQLite may have a text of
	// any size even in a column for a time.
	sqliteSize = `length(CAST(payload AS BLOB)) + COALESCE(length(CAST(headers AS BLOB)), 0) + COALESCE(length(CAST(last_error AS BLOB)), 0)
				+ COALESCE(length(CAST(dedup_key AS BLOB)), 0) + COALESCE(length(CAST(enqueued_at AS BLOB)), 0) + length(CAST(vt AS BLOB))`
	sqliteBand    = ` AS rank, vt, consumer_worker_id IS NOT NULL OR due_at IS NOT NULL AS crashed, ` + sqliteSize + ` AS size FROM pgqrs_messages WHERE queue_id = (SELECT queue_id FROM worker) AND archived_at IS NULL AND vt <= (SELECT now FROM arg) AND priority = `
	sqliteBandEnd = ` ORDER BY vt, id)`
	sqliteClaim   = `
			UPDATE pgqrs_messages
			SET consumer_worker_id = (SELECT worker_id FROM arg), vt = (SELECT strftime('%Y-%m-%d %H:%M:%f', now, lease) FROM arg), due_at = vt,
				read_ct = min(max(CAST(COALESCE(read_ct, 0) AS INTEGER), 0), 2147483646) + 1, claim_ct = min(CAST(claim_ct AS INTEGER), 9223372036854775806) + 1, woken = 0, failed_at = NULL, dequeued_at = COALESCE(dequeued_at, (SELECT now FROM arg))
			WHERE id IN (`
)

// Listings read one state in the order of an index, from a cursor on. Listings of live messages
// merge the four priorities. Listings of ended messages go from new to old.
const (
	sqliteListArg = `
		WITH arg (queue, at, id, payloads) AS (VALUES (?, ?, ?, ?)), now (t) AS (SELECT ` + sqliteNow + `),
		queue (id) AS (SELECT q.id FROM pgqrs_queues q WHERE q.queue_name = (SELECT queue FROM arg))`
	sqliteListBand  = `SELECT id, vt FROM pgqrs_messages WHERE queue_id = (SELECT id FROM queue) AND archived_at IS NULL AND `
	sqliteListReady = sqliteListBand + `(vt, id) > (COALESCE((SELECT at FROM arg), ''), (SELECT id FROM arg)) AND vt <= (SELECT t FROM now)
					AND priority = `
	// SQLite starts an index scan at one bound only: the later of now and the cursor. The + keeps
	// it from using another.
	sqliteListScheduled = sqliteListBand + `vt >= (SELECT max(t, COALESCE((SELECT at FROM arg), '')) FROM now)
					AND vt < ` + sqliteBlocked + ` AND +vt > (SELECT t FROM now) AND (+vt, id) > (COALESCE((SELECT at FROM arg), ''), (SELECT id FROM arg)) AND consumer_worker_id IS NULL
					AND priority = `
	sqliteListBlocked = sqliteListBand + `vt = ` + sqliteBlocked + ` AND parked_vt IS NOT NULL AND id > (SELECT id FROM arg) AND priority = `
	sqliteListInfo    = `m.id, CASE WHEN (SELECT payloads FROM arg) THEN ` + sqliteCut + ` END` + sqliteInfoKey +
		`CASE WHEN (SELECT payloads FROM arg) AND ` + sqliteHeadersFit + ` THEN CAST(m.headers AS BLOB) END` + sqliteInfoEnd
	sqliteListSizes   = `, CASE WHEN (SELECT payloads FROM arg) THEN length(CAST(m.payload AS BLOB)) END, (SELECT payloads FROM arg) AND NOT COALESCE(` + sqliteHeadersFit + `, 1)`
	sqliteListPage    = `, page (id) AS MATERIALIZED (SELECT id FROM (`
	sqliteListPageEnd = `
				ORDER BY vt, id LIMIT ? + 0))
			SELECT ` + sqliteListInfo + `, substr(CAST(m.vt AS BLOB), 1, ` + listedName + `)` + sqliteListSizes + ` FROM page CROSS JOIN pgqrs_messages m CROSS JOIN pgqrs_queues q
			WHERE m.id = page.id AND q.id = m.queue_id
			ORDER BY m.vt, m.id`
	// Without the + Turso does not use the time as a bound of the scan.
	sqliteListFrom = `
		FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = +m.queue_id WHERE m.queue_id = (SELECT id FROM queue) AND `
	// The condition that an owner's id is above 0, and the +, make pgqrs_messages_held the index to
	// use.
	sqliteListHeld = `
		FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = m.queue_id WHERE +m.queue_id = (SELECT id FROM queue) AND m.consumer_worker_id > 0 AND `
)

// These are the searches of message.unreachable. A text that does not begin with a day is not a
// time. So for each day one scheduled message is read, and the next search starts after the end of
// that day.
const (
	sqliteWalk       = `(SELECT o.vt FROM pgqrs_messages o WHERE o.archived_at IS NULL AND o.queue_id = `
	sqliteWalkEnd    = ` AND o.vt < ` + sqliteBlocked + ` ORDER BY o.vt LIMIT 1)`
	sqliteHiddenFrom = ` FROM arg CROSS JOIN json_each(arg.queues) j CROSS JOIN pgqrs_queues q`
	sqliteHiddenLive = sqliteHiddenFrom + ` CROSS JOIN json_each('[2,1,0,-1]') band CROSS JOIN pgqrs_messages m
			WHERE q.queue_name = json_extract(j.value, '$[0]') AND m.queue_id = q.id AND m.archived_at IS NULL AND `
	sqliteNoTime = `NOT (date(substr(m.vt, 1, 10)) IS substr(m.vt, 1, 10) AND substr(m.vt, 11, 1) = ' ')`
	// sqliteHiddenRest has the other messages that message.unreachable finds.
	sqliteHiddenRest = `			SELECT m.id, CAST(q.queue_name AS BLOB)` + sqliteHiddenLive + `m.priority = band.value AND m.vt > ` + sqliteBlocked + ` AND m.parked_vt IS NULL
			UNION ALL
			SELECT m.id, CAST(q.queue_name AS BLOB)` + sqliteHiddenLive + `m.priority = band.value AND m.vt IS NULL AND m.parked_vt IS NULL
			UNION ALL
			SELECT m.id, CAST(q.queue_name AS BLOB)` + sqliteHiddenLive + `m.priority > band.value AND m.priority < band.value + 1 AND m.parked_vt IS NULL
			UNION ALL
			SELECT m.id, CAST(q.queue_name AS BLOB)` + sqliteHiddenFrom + ` CROSS JOIN pgqrs_messages m
			WHERE q.queue_name = json_extract(j.value, '$[0]') AND m.queue_id = q.id AND m.archived_at IS NOT NULL AND m.failed_at IS NULL AND m.archived_at > ` + sqliteBlocked + `
			UNION ALL
			SELECT m.id, CAST(q.queue_name AS BLOB)` + sqliteHiddenFrom + ` CROSS JOIN pgqrs_messages m
			WHERE q.queue_name = json_extract(j.value, '$[0]') AND m.queue_id = q.id AND m.failed_at IS NOT NULL AND m.failed_at > ` + sqliteBlocked + ` AND m.archived_at IS NOT NULL
			LIMIT ? + 0)
			SELECT id, queue FROM line`
)

// These are the counts of queue.depth for a queue q, a priority at a time.
const (
	sqliteDepthBands    = `(SELECT count(*) FROM (SELECT m.id FROM json_each('[2,1,0,-1]') band CROSS JOIN pgqrs_messages m WHERE m.queue_id = q.id AND m.priority = band.value AND m.archived_at IS NULL AND m.vt `
	sqliteDepthFirst    = `COALESCE((SELECT vt FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND vt <= (SELECT now FROM arg) AND priority = `
	sqliteDepthFirstEnd = ` ORDER BY vt, id LIMIT 1), '~')`
)

var sqlite = dialect{
	engineName:     "SQLite",
	migrations:     "sqlite",
	writers:        SingleWriter,
	singleWriter:   true,
	versionWarning: walResetWarning,

	errors: errorTexts{
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
		unavailable: []string{
			"database or disk is full",
			"disk i/o error",
			"readonly database",
			"unable to open database file",
		},
	},
	transaction: transactionSQL{
		isolation: sql.LevelDefault,
		open:      "/* pgqrs:open */ UPDATE pgqrs_queues SET queue_name = queue_name WHERE 0",
		begin:     "/* pgqrs:begin */ BEGIN IMMEDIATE",
		commit:    "/* pgqrs:commit */ COMMIT",
		rollback:  "/* pgqrs:rollback */ ROLLBACK",
		probe:     "/* pgqrs:ask */ SELECT pgqrs_ask",
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
		interop: `/* pgqrs:schema.shared */
			SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = 'pgqrs_messages_consumer')
			WHERE EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name IN ('_sqlx_migrations', 'pgqrs_schema_version'))
				OR EXISTS (SELECT 1 FROM pgqrs_workers WHERE go_state IS NULL)`,
		joinInterop: []string{
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
			SELECT id, substr(CAST(name AS BLOB), 1, ` + listedName + `), CAST(created_at AS BLOB), CAST(paused_at AS BLOB), ready, waiting - leased, leased, archived, dead, COALESCE(oldest, 0), policy, blocked
			FROM count ORDER BY name`,
		depth: `/* pgqrs:queue.depth */
			WITH arg (names, now, since) AS MATERIALIZED (SELECT ?, ` + sqliteNow + `, strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 minute'))
			SELECT substr(CAST(q.queue_name AS BLOB), 1, ` + listedName + `), CAST(q.paused_at AS BLOB),
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
			SELECT substr(CAST(name AS BLOB), 1, ` + listedName + `), CAST((julianday((SELECT now FROM arg)) - julianday(vt)) * 86400000000 AS INTEGER)
			FROM first WHERE vt <= (SELECT until FROM arg)
			ORDER BY name
			LIMIT ? + 0`,
		misfit: `/* pgqrs:queue.misfit */
			SELECT substr(CAST(q.queue_name AS BLOB), 1, ` + listedName + `) FROM pgqrs_queues q
			WHERE q.max_held IS NOT NULL AND NOT (typeof(q.max_held) = 'integer' AND q.max_held > 0)
				OR NOT (typeof(q.group_limit) = 'integer' AND q.group_limit > 0)
				OR q.rate_interval IS NOT NULL AND NOT (typeof(q.rate_interval) = 'integer' AND q.rate_interval > 0 AND typeof(q.rate_burst) = 'integer' AND q.rate_burst > 0)
				OR q.group_interval IS NOT NULL AND NOT (typeof(q.group_interval) = 'integer' AND q.group_interval > 0 AND typeof(q.group_burst) = 'integer' AND q.group_burst > 0)
			ORDER BY q.queue_name
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
		// The list is the innermost loop, so that the rows are stored in its order. Sorting them
		// would cost a third more time. For an object or an array json_each returns its text.
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
		list: map[MessageState]string{
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
				SELECT ` + sqliteListInfo + `, substr(CAST(m.vt AS BLOB), 1, ` + listedName + `)` + sqliteListSizes + `` + sqliteListHeld + `m.archived_at IS NULL AND m.consumer_worker_id IS NOT NULL AND m.vt > (SELECT t FROM now)
					AND (m.vt, m.id) > (COALESCE((SELECT at FROM arg), ''), (SELECT id FROM arg))
				ORDER BY m.vt, m.id
				LIMIT ? + 0`,
			Archived: `/* pgqrs:message.list_archived */` + sqliteListArg + `
				SELECT ` + sqliteListInfo + `, substr(CAST(m.archived_at AS BLOB), 1, ` + listedName + `)` + sqliteListSizes + `` + sqliteListFrom + `m.archived_at IS NOT NULL AND m.failed_at IS NULL
					AND m.archived_at <= (SELECT COALESCE(at, '~') FROM arg) AND (m.archived_at, m.id) < (COALESCE((SELECT at FROM arg), '~'), (SELECT id FROM arg))
				ORDER BY m.archived_at DESC, m.id DESC
				LIMIT ? + 0`,
			Dead: `/* pgqrs:message.list_dead */` + sqliteListArg + `
				SELECT ` + sqliteListInfo + `, substr(CAST(m.failed_at AS BLOB), 1, ` + listedName + `)` + sqliteListSizes + `` + sqliteListFrom + `m.failed_at IS NOT NULL
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
		clearExpiredOwner: `/* pgqrs:message.disown */
			WITH arg (until) AS (SELECT strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.6f seconds', ? / 1000000.0)))
			UPDATE pgqrs_messages SET consumer_worker_id = NULL, due_at = COALESCE(due_at, vt)
			WHERE id IN (
				SELECT id FROM pgqrs_messages
				WHERE consumer_worker_id IS NOT NULL AND archived_at IS NULL AND vt <= (SELECT until FROM arg)
				LIMIT ? + 0)`,
		unreachable: `/* pgqrs:message.unreachable */
			WITH RECURSIVE arg (queues) AS (SELECT ?),
			walk (queue_id, queue, priority, vt) AS (
				SELECT q.id, q.queue_name, band.value, ` + sqliteWalk + `q.id AND o.priority = band.value AND o.vt > ` + sqliteNow + sqliteWalkEnd + sqliteHiddenFrom + ` CROSS JOIN json_each('[2,1,0,-1]') band
				WHERE q.queue_name = json_extract(j.value, '$[0]')
				UNION ALL
				SELECT m.queue_id, m.queue, m.priority, ` + sqliteWalk + `m.queue_id AND o.priority = m.priority
					AND o.vt > CASE WHEN ` + sqliteNoTime + ` THEN m.vt ELSE substr(m.vt, 1, 11) || char(1114111) END` + sqliteWalkEnd + `
				FROM walk m WHERE m.vt IS NOT NULL
				LIMIT ` + depthLimit + `
			),
			line (id, queue) AS MATERIALIZED (
			SELECT o.id, CAST(m.queue AS BLOB) FROM walk m CROSS JOIN pgqrs_messages o
			WHERE ` + sqliteNoTime + ` AND o.queue_id = m.queue_id AND o.priority = m.priority AND o.archived_at IS NULL AND o.vt = m.vt
			UNION ALL
` + sqliteHiddenRest,
		bury: `/* pgqrs:message.bury */
			UPDATE pgqrs_messages
			SET archived_at = ` + sqliteNow + `, failed_at = ` + sqliteNow + `, vt = CASE WHEN archived_at IS NULL THEN ` + sqliteNow + ` ELSE vt END, due_at = NULL,
				priority = CASE WHEN priority IN (2, 1, 0, -1) THEN priority ELSE 0 END, last_error = hidden.reason
			FROM (
				SELECT m.id AS hidden_id, CASE WHEN m.archived_at IS NULL AND m.parked_vt IS NULL THEN
						CASE WHEN m.priority NOT IN (2, 1, 0, -1) THEN ` + unreachablePriority + `
							WHEN m.vt IS NULL OR m.vt > ` + sqliteBlocked + ` OR m.vt > ` + sqliteNow + ` AND ` + sqliteNoTime + ` THEN ` + unreachableTime + ` END
					WHEN m.archived_at IS NOT NULL AND m.failed_at IS NULL AND m.archived_at > ` + sqliteBlocked + ` THEN ` + unreachableEnd + `
					WHEN m.archived_at IS NOT NULL AND m.failed_at > ` + sqliteBlocked + ` THEN ` + unreachableDeath + ` END AS reason
				FROM pgqrs_messages m WHERE m.id IN (SELECT value FROM json_each(?))
			) AS hidden
			WHERE pgqrs_messages.id = hidden.hidden_id AND hidden.reason IS NOT NULL
			RETURNING id`,
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
		orphans: `/* pgqrs:message.strays */
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
			SELECT w.id, substr(CAST(w.name AS BLOB), 1, ` + listedName + `), substr(CAST(q.queue_name AS BLOB), 1, ` + listedName + `), w.status, CAST(w.started_at AS BLOB), CAST(w.heartbeat_at AS BLOB), CAST(w.shutdown_at AS BLOB),
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
		pruneInterop: `/* pgqrs:worker.shared_prune */
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

// sqliteBlocked is the vt of a blocked message.
const sqliteBlocked = `'9999-12-31 23:59:59.999'`

// sqliteBlockedOf counts the blocked messages of a queue q, up to depthLimit.
const sqliteBlockedOf = `(SELECT count(*) FROM (SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND parked_vt IS NOT NULL LIMIT ` + depthLimit + `))`

// These are the leased or unblocked messages of a group g, and its blocked messages.
const (
	sqliteGroupLive    = `pgqrs_messages m WHERE m.queue_id = g.queue_id AND m.group_key = g.group_key AND m.group_key IS NOT NULL AND m.archived_at IS NULL AND m.parked_vt IS NULL`
	sqliteGroupBlocked = `pgqrs_messages m WHERE m.queue_id = g.queue_id AND m.group_key = g.group_key AND m.archived_at IS NULL AND m.parked_vt IS NOT NULL`
)

// sqliteGroups reads a list of groups with the policies of their queues.
const sqliteGroups = `arg (list, now) AS (SELECT ?, ` + sqliteNow + `),
			given (queue_id, queue_name, group_key, group_limit, group_interval, group_burst, group_skip) AS MATERIALIZED (
				SELECT q.id, q.queue_name, json_extract(j.value, '$[1]'), ` + sqliteGroupLimit + `, ` + sqliteGroupInterval + `, q.group_burst, q.group_skip
				FROM arg CROSS JOIN json_each(arg.list) j CROSS JOIN pgqrs_queues q
				WHERE q.queue_name = json_extract(j.value, '$[0]')
			)`

// sqliteGroupInterval is the time between two messages of a group in a queue q, in microseconds. It
// is in whole milliseconds, as the times of SQLite are.
const sqliteGroupInterval = `CASE WHEN q.group_interval > 0 THEN (q.group_interval + 999) / 1000 * 1000 END`

// sqliteGroupLimit is how many messages of a group in a queue q may be leased at a time. An invalid
// number has the effect of none.
const sqliteGroupLimit = `max(CAST(q.group_limit AS INTEGER), 1)`

// sqliteGroupNext is the time at which the next message of a group r would be due by the rate of g,
// or NULL without a rate. The time may be much further ahead than the messages in progress explain,
// if the clock has gone back since or a message was deleted before its time. Then it is NULL too,
// and the rate starts again.
const sqliteGroupNext = `CASE WHEN (julianday(r.next_at) - julianday((SELECT now FROM arg))) * 86400 <= (g.group_burst + g.group_limit) * g.group_interval / 1000000.0 + 60 THEN r.next_at END`

// sqliteGroupAside is postgresGroupAside with the row r of the group g.
const sqliteGroupAside = `m.vt > (SELECT now FROM arg) AND m.consumer_worker_id IS NULL
					AND m.vt > COALESCE(strftime('%Y-%m-%d %H:%M:%f', ` + sqliteGroupNext + `, printf('-%.6f seconds', g.group_burst * g.group_interval / 1000000.0)), '')`

// If an engine finds nothing in the subquery of a RETURNING, the group is assumed to have all
// policies.
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
	dependents: `/* pgqrs:group.of */
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
			SELECT g.queue_id, CAST(q.queue_name AS BLOB), CAST(g.group_key AS BLOB), EXISTS (SELECT 1 FROM ` + sqliteGroupBlocked + `) AND ` + sqliteGroupLimit + ` > (
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

// These are conditions on messages that wait for batches.
const (
	sqliteBatchWaiting = `id IN (SELECT value FROM json_each(?)) AND parked_vt IS NOT NULL AND group_key IS NULL AND archived_at IS NULL`
	sqliteBatchOpen    = `EXISTS (SELECT 1 FROM pgqrs_messages o WHERE o.batch_id = pgqrs_messages.id AND o.batch_id IS NOT NULL AND o.archived_at IS NULL)`
	sqliteBatchCount   = `(SELECT count(*) FROM pgqrs_messages o WHERE o.batch_id = pgqrs_messages.id AND o.batch_id IS NOT NULL AND o.failed_at`
)

// sqliteUnneeded is the condition that the outcome of an ended message m is not needed any more.
const sqliteUnneeded = `NOT EXISTS (SELECT 1 FROM pgqrs_messages b WHERE b.id = m.batch_id AND b.archived_at IS NULL AND b.parked_vt IS NOT NULL)
					AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs r JOIN pgqrs_workflow_runs p ON p.id = r.parent_run_id
						WHERE r.message_id = m.id AND p.status IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING'))`

var sqliteBatches = batchSQL{
	tryLock: `/* pgqrs:batch.try_lock */
			UPDATE pgqrs_messages SET parked_vt = parked_vt WHERE id IN (SELECT value FROM json_each(?))
			RETURNING id`,
	finish: `/* pgqrs:batch.finish */
			UPDATE pgqrs_messages
			SET vt = max(` + sqliteNow + `, parked_vt), parked_vt = NULL, headers = json_patch(CASE WHEN length(CAST(headers AS BLOB)) <= ` + listedHeaders + ` AND json_valid(headers) THEN CASE json_type(headers) WHEN 'object' THEN headers ELSE '{}' END ELSE '{}' END,
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

// sqlitePolicyOf is the policy of a queue q as one column: the list that configure takes, without
// the name. Any column may have a BLOB, which JSON cannot hold.
const sqlitePolicyOf = `CAST(json_array(CASE WHEN length(q.policy) > ` + listedText + ` THEN ` + listedNoPolicy + ` ELSE CAST(q.policy AS TEXT) END, CAST(q.max_held AS INTEGER), CAST(q.rate_interval AS INTEGER), CAST(q.rate_burst AS INTEGER),
					CAST(q.group_limit AS INTEGER), CAST(q.group_interval AS INTEGER), CAST(q.group_burst AS INTEGER), CAST(q.group_skip AS INTEGER), CAST(substr(q.dead_letter, 1, ` + listedName + `) AS TEXT)) AS BLOB)`

// sqliteHeaders is the headers of a message m to which the library adds its own. It is {} if they
// are not an object, or too large for a listing. Turso evaluates both sides of an AND.
const sqliteHeaders = `CASE WHEN ` + sqliteHeadersFit + ` AND json_valid(m.headers) THEN CASE json_type(m.headers) WHEN 'object' THEN m.headers ELSE '{}' END ELSE '{}' END`

// sqliteLimited is the condition that the queue of a row of pgqrs_workers has a limit.
const sqliteLimited = `(SELECT q.max_held IS NOT NULL OR q.rate_interval IS NOT NULL FROM pgqrs_queues q WHERE q.id = pgqrs_workers.queue_id)`

// These are used by capacity and spend for a queue's bucket. It has the time by which its next
// message is due ahead of the clock, in microseconds. A time that is much further ahead than a
// burst means that the clock has gone back since, and the bucket starts again.
const (
	// An invalid limit is no limit.
	sqliteInterval = `CASE WHEN typeof(rate_interval) = 'integer' AND rate_interval > 0 AND typeof(rate_burst) = 'integer' AND rate_burst > 0 THEN rate_interval END`
	sqliteMicros   = `CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)`
	sqliteAhead    = `CASE WHEN rate_at <= (SELECT now FROM arg) + ` + sqliteInterval + ` * rate_burst + 60000000 THEN max(0, rate_at - (SELECT now FROM arg)) ELSE 0 END`
)

var sqliteLimits = limitSQL{
	lock: `/* pgqrs:limit.lock */
		SELECT q.id FROM pgqrs_queues q
		WHERE q.id = (SELECT w.queue_id FROM pgqrs_workers w WHERE w.id = ?) AND (q.max_held IS NOT NULL OR q.rate_interval IS NOT NULL)`,
	capacity: `/* pgqrs:limit.room */
		WITH arg (queue_id, n, now) AS (SELECT ?, ?, ` + sqliteMicros + `),
		bucket (max_held, rate_interval, full_bucket, ahead) AS (
			SELECT CASE WHEN typeof(max_held) = 'integer' AND max_held > 0 THEN max_held END, ` + sqliteInterval + `, ` + sqliteInterval + ` * rate_burst, ` + sqliteAhead + `
			FROM pgqrs_queues WHERE id = (SELECT queue_id FROM arg)
		)
		SELECT min((SELECT n FROM arg),
				CASE WHEN max_held IS NULL THEN (SELECT n FROM arg) ELSE max_held - (SELECT count(*) FROM pgqrs_messages WHERE +queue_id = (SELECT queue_id FROM arg)
					AND archived_at IS NULL AND consumer_worker_id IS NOT NULL AND consumer_worker_id > 0 AND vt > ` + sqliteNow + `) END,
				COALESCE((full_bucket - ahead) / rate_interval, (SELECT n FROM arg))),
			max(0, COALESCE(ahead - (full_bucket - rate_interval), 0)), rate_interval IS NOT NULL
		FROM bucket`,
	spend: `/* pgqrs:limit.take */
		WITH arg (queue_id, n, now) AS (SELECT ?, ?, ` + sqliteMicros + `)
		UPDATE pgqrs_queues SET rate_at = (SELECT now FROM arg) + ` + sqliteAhead + ` + (SELECT n FROM arg) * rate_interval
		WHERE id = (SELECT queue_id FROM arg) AND ` + sqliteInterval + ` IS NOT NULL`,
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

// sqliteScheduleRun is a run of a schedule r, with the state of its workflow's run w, or of its
// message m.
const sqliteScheduleRun = `CAST(r.due_at AS BLOB), CAST(r.ran_at AS BLOB), r.by_hand, r.held, COALESCE(r.message_id, w.message_id), r.run_id, CASE WHEN r.run_id IS NOT NULL THEN w.status
	WHEN m.id IS NULL THEN NULL WHEN m.failed_at IS NOT NULL THEN 'dead' WHEN m.archived_at IS NOT NULL THEN 'archived'
	WHEN m.parked_vt IS NOT NULL THEN 'blocked' WHEN m.vt <= ` + sqliteNow + ` THEN 'ready' WHEN m.consumer_worker_id IS NULL THEN 'scheduled' ELSE 'leased' END`

const sqliteScheduleRunFrom = `
			LEFT JOIN pgqrs_messages m ON m.id = r.message_id
			LEFT JOIN pgqrs_workflow_runs w ON w.id = r.run_id`

// sqliteTick is the next count of changes of a schedule. After the largest number it starts again,
// since only a difference matters.
const sqliteTick = `CASE WHEN CAST(pgqrs_schedules.tick_ct AS INTEGER) = 9223372036854775807 THEN 0 ELSE CAST(pgqrs_schedules.tick_ct AS INTEGER) + 1 END`

// sqliteInstant reads an instant, or NULL.
const sqliteInstant = `strftime('%Y-%m-%d %H:%M:%f', ? / 1000000.0, 'unixepoch')`

// These are the columns of schedule.named_list, and of schedule.list, which cuts them.
const (
	sqliteScheduleNamed = `
		SELECT s.id, CAST(s.name AS BLOB), CAST(s.queue_name AS BLOB), s.starts_runs, CAST(s.payload AS BLOB), s.priority, CAST(s.dedup_key AS BLOB), CAST(s.headers AS BLOB),
			CAST(s.rule AS BLOB), CAST(s.zone AS BLOB),` + sqliteScheduleRest + sqliteScheduleFrom
	sqliteScheduleList = `
		SELECT s.id, substr(CAST(s.name AS BLOB), 1, ` + listedName + `), substr(CAST(s.queue_name AS BLOB), 1, ` + listedName + `), s.starts_runs, substr(CAST(s.payload AS BLOB), 1, ` + listedText + `), s.priority, substr(CAST(s.dedup_key AS BLOB), 1, ` + listedName + `),
			CASE WHEN length(CAST(s.headers AS BLOB)) <= ` + listedHeaders + ` THEN CAST(s.headers AS BLOB) END,
			substr(CAST(s.rule AS BLOB), 1, ` + listedError + `), substr(CAST(s.zone AS BLOB), 1, ` + listedName + `),` + sqliteScheduleRest + `,
			length(CAST(s.payload AS BLOB)), COALESCE(length(CAST(s.headers AS BLOB)), 0) > ` + listedHeaders + sqliteScheduleFrom
	sqliteScheduleRest = `
			s.catch_up, CAST(s.created_at AS BLOB), CAST(s.updated_at AS BLOB), CAST(s.paused_at AS BLOB), CAST(s.next_at AS BLOB),
			` + sqliteScheduleRun
	sqliteScheduleFrom = `
		FROM pgqrs_schedules s
			LEFT JOIN pgqrs_schedule_runs r ON r.id = (SELECT o.id FROM pgqrs_schedule_runs o WHERE o.schedule_id = s.id ORDER BY o.due_at DESC, o.id DESC LIMIT 1)` + sqliteScheduleRunFrom
)

var sqliteSchedules = scheduleSQL{
	put: `/* pgqrs:schedule.put */
		WITH arg (name, queue, starts_runs, payload, priority, key, headers, rule, zone, catch_up, next_at, now) AS (
			SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ` + sqliteInstant + `, ` + sqliteNow + `
		)
		INSERT INTO pgqrs_schedules (name, queue_name, starts_runs, payload, priority, dedup_key, headers, rule, zone, catch_up, next_at, created_at, updated_at)
		SELECT name, queue, starts_runs, payload, priority, key, headers, rule, zone, catch_up, next_at, now, now FROM arg
		WHERE true
		ON CONFLICT (name) DO UPDATE
		SET queue_name = excluded.queue_name, starts_runs = excluded.starts_runs, payload = excluded.payload, priority = excluded.priority,
			dedup_key = excluded.dedup_key, headers = excluded.headers, rule = excluded.rule, zone = excluded.zone, catch_up = excluded.catch_up,
			next_at = CASE WHEN pgqrs_schedules.rule = excluded.rule AND pgqrs_schedules.zone = excluded.zone THEN pgqrs_schedules.next_at ELSE excluded.next_at END,
			tick_ct = ` + sqliteTick + `, updated_at = excluded.updated_at
		WHERE pgqrs_schedules.queue_name <> excluded.queue_name OR pgqrs_schedules.starts_runs <> excluded.starts_runs OR pgqrs_schedules.payload <> excluded.payload
			OR pgqrs_schedules.priority <> excluded.priority OR pgqrs_schedules.dedup_key IS NOT excluded.dedup_key OR pgqrs_schedules.headers IS NOT excluded.headers
			OR pgqrs_schedules.rule <> excluded.rule OR pgqrs_schedules.zone <> excluded.zone OR pgqrs_schedules.catch_up <> excluded.catch_up
		RETURNING id`,
	find: `/* pgqrs:schedule.find */
		WITH arg (names, now) AS (SELECT ?, ` + sqliteNow + `)
		SELECT CAST(json_extract(j.value, '$[0]') AS BLOB), CAST(arg.now AS BLOB), s.id, CAST(s.rule AS BLOB), CAST(s.zone AS BLOB), COALESCE(s.tick_ct, 0),
			CAST(s.next_at AS BLOB), CAST(s.paused_at AS BLOB), CAST(s.resumed_at AS BLOB)
		FROM arg CROSS JOIN json_each(arg.names) j LEFT JOIN pgqrs_schedules s ON s.name = json_extract(j.value, '$[0]')`,
	advance: `/* pgqrs:schedule.advance */
		WITH arg (id, tick_ct, next_at) AS (SELECT ?, ?, ` + sqliteInstant + `)
		UPDATE pgqrs_schedules SET next_at = (SELECT next_at FROM arg), tick_ct = ` + sqliteTick + `
		WHERE id = (SELECT id FROM arg) AND tick_ct = (SELECT tick_ct FROM arg)
		RETURNING id`,
	record: `/* pgqrs:schedule.record */
		WITH arg (id, runs, now) AS (SELECT ?, ?, ` + sqliteNow + `)
		INSERT INTO pgqrs_schedule_runs (schedule_id, due_at, ran_at, by_hand, held, message_id, run_id)
		SELECT arg.id, COALESCE(strftime('%Y-%m-%d %H:%M:%f', json_extract(value, '$[0]') / 1000000.0, 'unixepoch'), arg.now), arg.now,
			json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]'), json_extract(value, '$[4]')
		FROM arg CROSS JOIN json_each(arg.runs)
		WHERE true
		ON CONFLICT DO NOTHING
		RETURNING CAST(due_at AS BLOB)`,
	lock: `/* pgqrs:schedule.take */
		UPDATE pgqrs_schedules SET name = name WHERE name = ?
		RETURNING id, CAST(queue_name AS BLOB), starts_runs, CAST(payload AS BLOB), priority, CAST(dedup_key AS BLOB), CAST(headers AS BLOB)`,
	pause: `/* pgqrs:schedule.pause */
		WITH arg (name, paused) AS (VALUES (?, ?))
		UPDATE pgqrs_schedules
		SET paused_at = CASE WHEN (SELECT paused FROM arg) THEN COALESCE(paused_at, ` + sqliteNow + `) END,
			resumed_at = CASE WHEN (SELECT paused FROM arg) OR paused_at IS NULL THEN resumed_at ELSE ` + sqliteNow + ` END, tick_ct = ` + sqliteTick + `
		WHERE name = (SELECT arg.name FROM arg)
		RETURNING id`,
	list: `/* pgqrs:schedule.list */` + sqliteScheduleList + `
		ORDER BY s.name`,
	named: `/* pgqrs:schedule.named_list */` + sqliteScheduleNamed + `
		WHERE s.name IN (SELECT json_extract(value, '$[0]') FROM json_each(?))
		ORDER BY s.name`,
	history: `/* pgqrs:schedule.history */
		SELECT ` + sqliteScheduleRun + `
		FROM pgqrs_schedule_runs r` + sqliteScheduleRunFrom + `
		WHERE r.schedule_id = (SELECT s.id FROM pgqrs_schedules s WHERE s.name = ?)
		ORDER BY r.due_at DESC, r.id DESC
		LIMIT ? + 0`,
	remove: []string{
		`/* pgqrs:schedule.remove_runs */ DELETE FROM pgqrs_schedule_runs WHERE schedule_id = ? + 0`,
		`/* pgqrs:schedule.remove_row */ DELETE FROM pgqrs_schedules WHERE id = ?`,
	},
	prune: `/* pgqrs:schedule.prune */
		WITH arg (names, stay) AS (VALUES (?, ?)),
		ranked (id, place) AS (
			SELECT r.id, row_number() OVER (PARTITION BY r.schedule_id ORDER BY r.due_at DESC, r.id DESC)
			FROM pgqrs_schedule_runs r
			WHERE r.schedule_id IN (SELECT s.id FROM pgqrs_schedules s WHERE s.name IN (SELECT json_extract(value, '$[0]') FROM json_each((SELECT names FROM arg))))
		)
		DELETE FROM pgqrs_schedule_runs WHERE id IN (SELECT id FROM ranked WHERE place > (SELECT stay FROM arg) LIMIT ? + 0)`,
}

// These are the columns of run.get (runColumns), and of the listings of runs, which cut texts of
// users.
const (
	sqliteRun = `r.id, CAST(w.name AS BLOB), r.message_id, r.status, CAST(r.input AS BLOB), CAST(r.output AS BLOB), CAST(r.error AS BLOB), CAST(r.run_key AS BLOB),
	r.parent_run_id, CAST(r.parent_step AS BLOB), CAST(r.warning AS BLOB),` + sqliteRunRest
	sqliteRunCut = `r.id, substr(CAST(w.name AS BLOB), 1, ` + listedName + `), r.message_id, substr(CAST(r.status AS BLOB), 1, ` + listedName + `), substr(CAST(r.input AS BLOB), 1, ` + listedText + `), substr(CAST(r.output AS BLOB), 1, ` + listedText + `), substr(CAST(r.error AS BLOB), 1, ` + listedError + `), substr(CAST(r.run_key AS BLOB), 1, ` + listedName + `),
	r.parent_run_id, substr(CAST(r.parent_step AS BLOB), 1, ` + listedName + `), substr(CAST(r.warning AS BLOB), 1, ` + listedError + `),` +
		sqliteRunRest + `, COALESCE(length(CAST(r.input AS BLOB)), 0), COALESCE(length(CAST(r.output AS BLOB)), 0)`
	sqliteRunRest = `
	CAST(r.created_at AS BLOB), CAST(r.started_at AS BLOB), CAST(r.paused_at AS BLOB), CAST(r.completed_at AS BLOB), CAST(m.vt AS BLOB), COALESCE(m.read_ct, 0)`
)

// These are the columns of step.get (stepColumns), of step.load, which leaves out large outputs,
// and of step.list, which cuts them.
const (
	sqliteStepLoad = `CAST(s.step_name AS BLOB), s.status, CASE WHEN length(CAST(s.output AS BLOB)) <= ` + loadedOutput + ` THEN CAST(s.output AS BLOB) END, CAST(s.error AS BLOB), ` + sqliteStepRest +
		`, COALESCE(length(CAST(s.output AS BLOB)) > ` + loadedOutput + `, false)`
	sqliteStep     = `CAST(s.step_name AS BLOB), s.status, CAST(s.output AS BLOB), CAST(s.error AS BLOB), ` + sqliteStepRest
	sqliteStepCut  = `substr(CAST(s.step_name AS BLOB), 1, ` + listedName + `), substr(CAST(s.status AS BLOB), 1, ` + listedName + `), substr(CAST(s.output AS BLOB), 1, ` + listedText + `), substr(CAST(s.error AS BLOB), 1, ` + listedError + `), ` + sqliteStepRest + `, COALESCE(length(CAST(s.output AS BLOB)), 0)`
	sqliteStepRest = `s.retry_count,
	CAST((julianday(s.retry_at) - julianday('now')) * 86400000000 AS INTEGER), CAST(COALESCE(s.started_at, s.created_at) AS BLOB), CAST(s.completed_at AS BLOB), s.last_retry_at IS NOT NULL`
)

// sqliteHolding is the message of a run, if the lease that was bound as arg is valid.
const sqliteHolding = ` JOIN pgqrs_messages m ON m.id = arg.message_id AND m.consumer_worker_id = arg.worker_id AND m.claim_ct = arg.claim_ct AND m.archived_at IS NULL`

// sqliteOpenStep is the condition that a step has not ended.
const sqliteOpenStep = `pgqrs_workflow_steps.status <> 'SUCCESS' AND NOT (pgqrs_workflow_steps.status = 'ERROR' AND pgqrs_workflow_steps.retry_at IS NULL)`

const sqliteRunOf = `(SELECT r.status FROM pgqrs_workflow_runs r WHERE r.id = run_id)`

// These are the rows that step.save and its batch write, by one statement or, on Turso, two.
const (
	sqliteStepArg = ` (run_id, name, message_id, worker_id, claim_ct, status, output, error, retries, wait, took, now)`
	sqliteSaveOne = `
		WITH arg` + sqliteStepArg + ` AS (SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ` + sqliteNow + `)`
	sqliteSaveMany = `
		WITH arg` + sqliteStepArg + ` AS (
			SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]'), json_extract(value, '$[4]'),
				json_extract(value, '$[5]'), json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]'), json_extract(value, '$[9]'), json_extract(value, '$[10]'), ` + sqliteNow + `
			FROM json_each(?)
		)`
	// sqliteSave inserts the rows of arg, unless a lease is lost.
	sqliteSave = `
		INSERT INTO pgqrs_workflow_steps (run_id, step_name, status, output, error, retry_count, retry_at, created_at, updated_at, started_at, completed_at)
		SELECT arg.run_id, arg.name, arg.status, arg.output, arg.error, arg.retries,
			CASE WHEN arg.wait IS NOT NULL THEN strftime('%Y-%m-%d %H:%M:%f', arg.now, printf('%.6f seconds', arg.wait / 1000000.0)) END,
			arg.now, arg.now, strftime('%Y-%m-%d %H:%M:%f', arg.now, printf('-%.6f seconds', arg.took / 1000000.0)),
			CASE WHEN arg.status IN ('SUCCESS', 'ERROR') AND arg.wait IS NULL THEN arg.now END
		FROM arg` + sqliteHolding + `
		WHERE true`
	// sqliteSaveOver updates existing rows, unless their steps have ended.
	sqliteSaveOver = `
		ON CONFLICT (run_id, step_name) DO UPDATE
		SET status = excluded.status, output = excluded.output, error = excluded.error, retry_count = excluded.retry_count, retry_at = excluded.retry_at,
			updated_at = excluded.updated_at, started_at = COALESCE(pgqrs_workflow_steps.started_at, excluded.started_at), completed_at = excluded.completed_at
		WHERE ` + sqliteOpenStep
	// sqliteOpen inserts the row that step.open opens.
	sqliteOpen = `
		WITH arg (run_id, name, message_id, worker_id, claim_ct, now) AS (SELECT ?, ?, ?, ?, ?, ` + sqliteNow + `)
		INSERT INTO pgqrs_workflow_steps (run_id, step_name, status, created_at, updated_at, started_at)
		SELECT arg.run_id, arg.name, 'RUNNING', arg.now, arg.now, arg.now
		FROM arg` + sqliteHolding + `
		WHERE true`
	sqliteSaved = `
		RETURNING run_id, CAST(step_name AS BLOB), ` + sqliteRunOf
	sqliteOpened = `
		RETURNING ` + sqliteRunOf
)

// These are the common parts of run.list and run.child_list: their arguments, and the runs that
// they select. See postgresListed.
const (
	sqliteListing = `?, ?, strftime('%Y-%m-%d %H:%M:%f', ? / 1000000.0, 'unixepoch'), strftime('%Y-%m-%d %H:%M:%f', ? / 1000000.0, 'unixepoch'), ?`
	sqliteListed  = `pgqrs_workflow_runs r JOIN pgqrs_workflows w ON w.id = r.workflow_id LEFT JOIN pgqrs_messages m ON m.id = r.message_id
		WHERE r.id < (SELECT before FROM arg)
			AND w.name = COALESCE((SELECT workflow FROM arg), w.name) AND r.status = COALESCE((SELECT status FROM arg), r.status)
			AND r.created_at >= COALESCE((SELECT since FROM arg), '') AND r.created_at < COALESCE((SELECT until FROM arg), '~')`
)

const sqliteListRuns = `
		WITH arg (workflow, status, since, until, before) AS (SELECT ` + sqliteListing + `)
		SELECT ` + sqliteRunCut + `
		FROM ` + sqliteListed + `
		ORDER BY r.id DESC
		LIMIT ? + 0`

var sqliteWorkflow = workflowSQL{
	make: `/* pgqrs:workflow.make */
		INSERT INTO pgqrs_workflows (name, queue_id) SELECT q.queue_name, q.id FROM pgqrs_queues q WHERE q.queue_name = ? ON CONFLICT (name) DO NOTHING`,
	insert: `/* pgqrs:run.insert */
		WITH arg (workflow, items, now) AS (SELECT ?, ?, ` + sqliteNow + `),
		item (n, message_id, run_key, parent_run_id, parent_step) AS (
			SELECT key, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]')
			FROM arg CROSS JOIN json_each(arg.items)
		)
		INSERT INTO pgqrs_workflow_runs (workflow_id, message_id, status, input, run_key, parent_run_id, parent_step, created_at, updated_at)
		SELECT w.id, m.id, 'QUEUED', m.payload, item.run_key, item.parent_run_id, item.parent_step, arg.now, arg.now
		FROM arg JOIN pgqrs_workflows w ON w.name = arg.workflow CROSS JOIN item CROSS JOIN pgqrs_messages m
		WHERE m.id = item.message_id
		ORDER BY item.n
		ON CONFLICT DO NOTHING
		RETURNING id, message_id`,
	keyed: `/* pgqrs:run.keyed */
		WITH arg (workflow, keys) AS (VALUES (?, ?))
		SELECT CAST(r.run_key AS BLOB), r.id
		FROM arg JOIN pgqrs_workflows w ON w.name = arg.workflow CROSS JOIN json_each(arg.keys) k CROSS JOIN pgqrs_workflow_runs r
		WHERE r.workflow_id = w.id AND r.run_key = json_extract(k.value, '$[0]') AND r.run_key IS NOT NULL`,
	adopt: `/* pgqrs:run.take_back */
		DELETE FROM pgqrs_messages
		WHERE id IN (SELECT value FROM json_each(?)) AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs r WHERE r.message_id = pgqrs_messages.id)`,
	begin: `/* pgqrs:run.begin */
		WITH arg (message_id, worker_id, claim_ct) AS (VALUES (?, ?, ?))
		UPDATE pgqrs_workflow_runs
		SET status = CASE WHEN status = 'QUEUED' OR status = 'PAUSED' AND error IS NOT NULL THEN 'RUNNING' ELSE status END,
			execution_ct = CASE WHEN status = 'QUEUED' AND started_at IS NULL AND execution_ct = 0 THEN 1 ELSE min(CAST(execution_ct AS INTEGER), 9223372036854775805) + 2 END,
			started_at = CASE WHEN status = 'QUEUED' THEN COALESCE(started_at, ` + sqliteNow + `) ELSE started_at END,
			error = CASE WHEN status = 'PAUSED' THEN NULL ELSE error END,
			updated_at = ` + sqliteNow + `
		WHERE message_id = (SELECT m.id FROM arg` + sqliteHolding + `)
		RETURNING id, status, execution_ct = 1 AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_steps s WHERE s.run_id = pgqrs_workflow_runs.id)`,
	exists: `/* pgqrs:run.exists */ SELECT id FROM pgqrs_workflow_runs WHERE message_id = ?`,
	finish: `/* pgqrs:run.finish */
		WITH arg (id, status, output, error) AS (VALUES (?, ?, ?, ?))
		UPDATE pgqrs_workflow_runs
		SET status = CASE WHEN status = 'CANCELLING' THEN 'CANCELLED' ELSE (SELECT arg.status FROM arg) END,
			output = CASE WHEN status = 'CANCELLING' THEN NULL ELSE (SELECT arg.output FROM arg) END,
			error = CASE WHEN status = 'CANCELLING' THEN NULL ELSE (SELECT arg.error FROM arg) END,
			completed_at = ` + sqliteNow + `, updated_at = ` + sqliteNow + `
		WHERE id = (SELECT arg.id FROM arg) AND status NOT IN ('SUCCESS', 'ERROR', 'CANCELLED')
		RETURNING status, parent_run_id`,
	cancel: `/* pgqrs:run.cancel */
		UPDATE pgqrs_workflow_runs SET status = 'CANCELLING', updated_at = ` + sqliteNow + `
		WHERE id IN (SELECT value FROM json_each(?)) AND status IN ('QUEUED', 'RUNNING', 'PAUSED')
		RETURNING id`,
	unstartedArchive: `/* pgqrs:run.unstarted_archive */
		UPDATE pgqrs_messages SET archived_at = ` + sqliteNow + `, due_at = NULL, vt = COALESCE(parked_vt, vt), parked_vt = NULL
		WHERE id IN (SELECT r.message_id FROM pgqrs_workflow_runs r WHERE r.id IN (SELECT value FROM json_each(?)) AND r.status = 'CANCELLING'
				AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_steps s WHERE s.run_id = r.id))
			AND archived_at IS NULL AND (consumer_worker_id IS NULL OR vt <= ` + sqliteNow + `)
		RETURNING (SELECT r.id FROM pgqrs_workflow_runs r WHERE r.message_id = pgqrs_messages.id),
			(SELECT CAST(q.queue_name AS BLOB) FROM pgqrs_queues q WHERE q.id = queue_id), CAST(group_key AS BLOB), batch_id`,
	unstartedEnd: `/* pgqrs:run.unstarted_end */
		UPDATE pgqrs_workflow_runs SET status = 'CANCELLED', output = NULL, error = NULL, completed_at = ` + sqliteNow + `, updated_at = ` + sqliteNow + `
		WHERE id IN (SELECT value FROM json_each(?)) AND status = 'CANCELLING'
		RETURNING id, parent_run_id`,
	pause: `/* pgqrs:run.pause */
		UPDATE pgqrs_workflow_runs SET status = 'PAUSED', paused_at = ` + sqliteNow + `, updated_at = ` + sqliteNow + `, error = NULL
		WHERE id = ? AND status IN ('QUEUED', 'RUNNING')
		RETURNING id`,
	resume: `/* pgqrs:run.resume */
		UPDATE pgqrs_workflow_runs SET status = CASE WHEN started_at IS NULL THEN 'QUEUED' ELSE 'RUNNING' END, paused_at = NULL, updated_at = ` + sqliteNow + `
		WHERE id = ? AND status = 'PAUSED'
		RETURNING id`,
	retry: []string{
		`/* pgqrs:run.clear_failed */
		UPDATE pgqrs_workflow_steps
		SET status = 'QUEUED', output = NULL, error = NULL, retry_count = 0, retry_at = NULL, started_at = NULL, completed_at = NULL,
			last_retry_at = ` + sqliteNow + `, updated_at = ` + sqliteNow + `
		WHERE run_id = (SELECT id FROM pgqrs_workflow_runs WHERE id = ? AND status = 'ERROR') AND status <> 'SUCCESS' AND output IS NULL
			AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs c WHERE c.parent_run_id = pgqrs_workflow_steps.run_id AND c.parent_run_id IS NOT NULL AND c.parent_step = step_name)`,
		`/* pgqrs:run.retry */
		UPDATE pgqrs_workflow_runs SET status = 'RUNNING', error = NULL, completed_at = NULL, updated_at = ` + sqliteNow + `
		WHERE id = ? AND status = 'ERROR'
		RETURNING message_id`,
	},
	copySteps: []string{`/* pgqrs:run.copy_steps */
		WITH arg (target, source, step) AS (VALUES (?, ?, ?))
		INSERT INTO pgqrs_workflow_steps (run_id, step_name, status, output, error, created_at, updated_at, started_at, completed_at, retry_count, last_retry_at)
		SELECT (SELECT target FROM arg), s.step_name, s.status, s.output, s.error, s.created_at, s.updated_at, s.started_at, s.completed_at, s.retry_count, s.last_retry_at
		FROM pgqrs_workflow_steps s
		WHERE s.run_id = (SELECT source FROM arg)
			AND +s.id < (SELECT o.id FROM pgqrs_workflow_steps o WHERE o.run_id = (SELECT source FROM arg) AND o.step_name = (SELECT step FROM arg))
			AND (s.status = 'SUCCESS' OR s.status = 'ERROR' AND s.retry_at IS NULL)
		ORDER BY s.id`,
		`/* pgqrs:run.mark_copied */ UPDATE pgqrs_workflow_runs SET execution_ct = 2 WHERE id = ?`},
	join: []string{
		`/* pgqrs:run.lock_parent */
		UPDATE pgqrs_messages SET woken = woken
		WHERE id = (SELECT p.message_id FROM pgqrs_workflow_runs r JOIN pgqrs_workflow_runs p ON p.id = r.parent_run_id WHERE r.id = ?)`,
		`/* pgqrs:run.join_parent */
		WITH child (parent_run_id, parent_step) AS (SELECT r.parent_run_id, r.parent_step FROM pgqrs_workflow_runs r WHERE r.id = ?)
		UPDATE pgqrs_messages
		SET woken = 1, vt = CASE WHEN consumer_worker_id IS NULL AND parked_vt IS NULL THEN min(vt, ` + sqliteNow + `) ELSE vt END, parked_vt = min(parked_vt, ` + sqliteNow + `)
		WHERE id = (SELECT p.message_id FROM pgqrs_workflow_runs p WHERE p.id = (SELECT parent_run_id FROM child)) AND archived_at IS NULL
			AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs o WHERE o.parent_run_id = (SELECT parent_run_id FROM child) AND o.parent_run_id IS NOT NULL
				AND o.parent_step = (SELECT parent_step FROM child) AND o.status IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING'))
		RETURNING (SELECT r.id FROM pgqrs_workflow_runs r WHERE r.message_id = pgqrs_messages.id),
			(SELECT CAST(q.queue_name AS BLOB) FROM pgqrs_queues q WHERE q.id = queue_id)`,
	},
	joinShared: `/* pgqrs:run.shared_join */
		WITH arg (queues, now) AS (SELECT ?, ` + sqliteNow + `),
		waiting (message_id) AS MATERIALIZED (
			SELECT o.id
			FROM pgqrs_queues q CROSS JOIN pgqrs_messages o CROSS JOIN pgqrs_workflow_runs p
			WHERE q.queue_name IN (SELECT value FROM json_each((SELECT queues FROM arg)))
				AND o.queue_id = q.id AND o.priority IN (2, 1, 0, -1) AND o.archived_at IS NULL AND o.vt > (SELECT strftime('%Y-%m-%d %H:%M:%f', now, '50 years') FROM arg)
				AND o.consumer_worker_id IS NULL AND o.parked_vt IS NULL AND p.message_id = o.id AND p.status = 'RUNNING' AND EXISTS (
					SELECT 1 FROM pgqrs_workflow_steps s WHERE s.run_id = p.id AND s.status = 'PAUSED'
						AND (s.output IS NOT NULL
							OR EXISTS (SELECT 1 FROM pgqrs_workflow_runs c WHERE c.parent_run_id = p.id AND c.parent_run_id IS NOT NULL AND c.parent_step = s.step_name))
						AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs c WHERE c.parent_run_id = p.id AND c.parent_run_id IS NOT NULL AND c.parent_step = s.step_name
							AND c.status IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING')))
		)
		UPDATE pgqrs_messages SET woken = 1, vt = (SELECT now FROM arg)
		WHERE id IN (SELECT message_id FROM waiting)
		RETURNING (SELECT r.id FROM pgqrs_workflow_runs r WHERE r.message_id = pgqrs_messages.id),
			(SELECT CAST(q.queue_name AS BLOB) FROM pgqrs_queues q WHERE q.id = queue_id)`,
	wake: `/* pgqrs:run.wake */
		UPDATE pgqrs_messages
		SET woken = 1, vt = CASE WHEN consumer_worker_id IS NULL AND parked_vt IS NULL THEN min(vt, ` + sqliteNow + `) ELSE vt END, parked_vt = min(parked_vt, ` + sqliteNow + `)
		WHERE id IN (SELECT r.message_id FROM pgqrs_workflow_runs r WHERE r.id IN (SELECT value FROM json_each(?))) AND archived_at IS NULL
		RETURNING (SELECT r.id FROM pgqrs_workflow_runs r WHERE r.message_id = pgqrs_messages.id),
			(SELECT CAST(q.queue_name AS BLOB) FROM pgqrs_queues q WHERE q.id = queue_id)`,
	interrupted: `/* pgqrs:run.interrupted */
		SELECT message_id FROM pgqrs_workflow_runs
		WHERE message_id IN (SELECT value FROM json_each(?)) AND status = 'CANCELLING'`,
	ofMessages: `/* pgqrs:run.of_messages */
		SELECT message_id, id FROM pgqrs_workflow_runs WHERE message_id IN (SELECT value FROM json_each(?))`,
	stranded: `/* pgqrs:run.stranded */
		WITH arg (workflow, status, after, until) AS (SELECT ?, ?, ?, strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.6f seconds', ? / 1000000.0)))
		SELECT r.id, r.message_id, CASE WHEN m.id IS NULL THEN 'gone'
				WHEN m.queue_id <> (SELECT q.id FROM pgqrs_queues q WHERE q.queue_name = (SELECT workflow FROM arg)) THEN 'elsewhere' WHEN m.failed_at < (SELECT until FROM arg) THEN 'dead'
				WHEN m.failed_at IS NULL AND m.archived_at < (SELECT until FROM arg) THEN 'archived' ELSE '' END, substr(CAST(NULLIF(m.last_error, '') AS BLOB), 1, ` + listedText + `)
		FROM pgqrs_workflow_runs r LEFT JOIN pgqrs_messages m ON m.id = r.message_id
		WHERE r.workflow_id = (SELECT w.id FROM pgqrs_workflows w WHERE w.name = (SELECT workflow FROM arg)) AND r.status = (SELECT status FROM arg)
			AND r.id > (SELECT after FROM arg)
		ORDER BY r.id
		LIMIT ? + 0`,
	children: `/* pgqrs:run.children */
		SELECT id FROM pgqrs_workflow_runs
		WHERE parent_run_id IN (SELECT value FROM json_each(?)) AND parent_run_id IS NOT NULL AND status IN ('QUEUED', 'RUNNING', 'PAUSED')`,
	results: `/* pgqrs:run.results */
		WITH arg (run_id, step) AS (VALUES (?, ?))
		SELECT r.id, CAST(w.name AS BLOB), r.status, CAST(r.output AS BLOB), CAST(r.error AS BLOB)
		FROM pgqrs_workflow_runs r JOIN pgqrs_workflows w ON w.id = r.workflow_id
		WHERE r.parent_run_id = (SELECT run_id FROM arg) AND r.parent_run_id IS NOT NULL AND r.parent_step = (SELECT step FROM arg)
		ORDER BY r.id`,
	get: `/* pgqrs:run.get */
		SELECT ` + sqliteRun + `
		FROM pgqrs_workflow_runs r LEFT JOIN pgqrs_workflows w ON w.id = r.workflow_id LEFT JOIN pgqrs_messages m ON m.id = r.message_id
		WHERE r.id = ?`,
	polled: `/* pgqrs:run.polled */
		SELECT r.id, CAST(w.name AS BLOB), r.status, CAST(r.output AS BLOB), CAST(r.error AS BLOB)
		FROM pgqrs_workflow_runs r LEFT JOIN pgqrs_workflows w ON w.id = r.workflow_id
		WHERE r.id IN (SELECT value FROM json_each(?))`,
	list: `/* pgqrs:run.list */` + sqliteListRuns,
	statusList: `/* pgqrs:run.status_list */
		WITH arg (workflow, status, since, until, before, n) AS (SELECT ` + sqliteListing + `, ?)
		SELECT ` + sqliteRunCut + `
		FROM pgqrs_workflows w CROSS JOIN pgqrs_workflow_runs r LEFT JOIN pgqrs_messages m ON m.id = r.message_id
		WHERE w.name = COALESCE((SELECT workflow FROM arg), w.name) AND r.id IN (
			SELECT i.id FROM pgqrs_workflow_runs i
			WHERE i.workflow_id = w.id AND i.status = (SELECT status FROM arg) AND i.id < (SELECT before FROM arg)
				AND i.created_at >= COALESCE((SELECT since FROM arg), '') AND i.created_at < COALESCE((SELECT until FROM arg), '~')
			ORDER BY i.id DESC
			LIMIT (SELECT n FROM arg))
		ORDER BY r.id DESC
		LIMIT (SELECT n FROM arg)`,
	childList: `/* pgqrs:run.child_list */
		WITH arg (workflow, status, since, until, before, parent) AS (SELECT ` + sqliteListing + `, ?)
		SELECT ` + sqliteRunCut + `
		FROM ` + sqliteListed + ` AND r.parent_run_id = (SELECT parent FROM arg)
		ORDER BY r.id + 0 DESC
		LIMIT ? + 0`,
	warn: `/* pgqrs:run.warn */
		WITH arg (id, text) AS (VALUES (?, ?))
		UPDATE pgqrs_workflow_runs SET warning = (SELECT text FROM arg) WHERE id = (SELECT arg.id FROM arg)`,
	expired: `/* pgqrs:run.expired */
		WITH arg (queue_id, until) AS (
			SELECT q.id, strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.6f seconds', json_extract(value, '$[1]') / 1000000.0))
			FROM json_each(?) CROSS JOIN pgqrs_queues q ON q.queue_name = json_extract(value, '$[0]')
		)
		SELECT m.id FROM arg CROSS JOIN pgqrs_messages m ON m.queue_id = arg.queue_id
		WHERE m.archived_at IS NOT NULL AND m.failed_at IS NULL AND m.archived_at < arg.until
			AND EXISTS (SELECT 1 FROM pgqrs_workflow_runs o WHERE o.message_id = m.id)
			AND ` + sqliteUnneeded + `
		LIMIT ? + 0`,
}

var sqliteSteps = stepSQL{
	load:      `/* pgqrs:step.load */ SELECT ` + sqliteStepLoad + ` FROM pgqrs_workflow_steps s WHERE s.run_id = ? ORDER BY s.id`,
	list:      `/* pgqrs:step.list */ SELECT ` + sqliteStepCut + ` FROM pgqrs_workflow_steps s WHERE s.run_id = ? ORDER BY s.id`,
	get:       `/* pgqrs:step.get */ SELECT ` + sqliteStep + ` FROM pgqrs_workflow_steps s WHERE s.run_id = ? AND s.step_name = ?`,
	save:      []string{`/* pgqrs:step.save */` + sqliteSaveOne + sqliteSave + sqliteSaveOver + sqliteOpened},
	saveBatch: []string{`/* pgqrs:step.batch_save */` + sqliteSaveMany + sqliteSave + sqliteSaveOver + sqliteSaved},
	open: []string{`/* pgqrs:step.open */` + sqliteOpen + `
		ON CONFLICT (run_id, step_name) DO UPDATE
		SET status = excluded.status, updated_at = excluded.updated_at, started_at = COALESCE(pgqrs_workflow_steps.started_at, excluded.started_at)
		WHERE ` + sqliteOpenStep + sqliteOpened},
	close: `/* pgqrs:step.close */
		WITH arg (run_id, name, message_id, worker_id, claim_ct, output) AS (VALUES (?, ?, ?, ?, ?, ?))
		UPDATE pgqrs_workflow_steps
		SET status = 'SUCCESS', output = (SELECT output FROM arg), error = NULL, retry_at = NULL, updated_at = ` + sqliteNow + `, completed_at = ` + sqliteNow + `
		WHERE run_id = (SELECT arg.run_id FROM arg` + sqliteHolding + `) AND step_name = (SELECT name FROM arg) AND status = 'RUNNING'
		RETURNING ` + sqliteRunOf,
}

var sqliteSignals = signalSQL{
	insert: `/* pgqrs:signal.insert */ INSERT INTO pgqrs_workflow_signals (run_id, name, payload, created_at) VALUES (?, ?, ?, ` + sqliteNow + `)`,
	take: `/* pgqrs:signal.take */
		WITH arg (run_id, name, step) AS (VALUES (?, ?, ?))
		UPDATE pgqrs_workflow_signals SET step_name = (SELECT step FROM arg)
		WHERE id = (SELECT o.id FROM pgqrs_workflow_signals o WHERE o.run_id = (SELECT run_id FROM arg) AND o.name = (SELECT arg.name FROM arg) AND o.step_name IS NULL ORDER BY o.id LIMIT 1)
		RETURNING CAST(payload AS BLOB)`,
	takeFirst: `/* pgqrs:signal.first */
		WITH arg (run_id, step, names) AS (VALUES (?, ?, ?))
		UPDATE pgqrs_workflow_signals SET step_name = (SELECT step FROM arg)
		WHERE id = (
			SELECT o.id FROM json_each((SELECT names FROM arg)) j CROSS JOIN pgqrs_workflow_signals o
			WHERE o.run_id = (SELECT run_id FROM arg) AND o.name = json_extract(j.value, '$[0]') AND o.step_name IS NULL
			ORDER BY o.id
			LIMIT 1)
		RETURNING CAST(name AS BLOB), CAST(payload AS BLOB)`,
}
