package pgqrs

import (
	"database/sql"
)

// postgresMicros and postgresMicrosEnd enclose a time and select it as microseconds since 1970. A
// driver that reads times as text fails under some settings of DateStyle, and a statement that has
// committed must not fail because of its answer. A time outside of the years 1 to 9999, such as an
// infinite time, is NULL. It would overflow, or Go could not write it as JSON.
const (
	postgresMicros    = `(date_part('epoch', NULLIF(NULLIF(LEAST(GREATEST(`
	postgresMicrosEnd = `, ` + postgresFirstTime + `), ` + postgresLastTime + `), ` + postgresFirstTime + `), ` + postgresLastTime + `)) * 1000000)::bigint`
	postgresFirstTime = `timestamptz '0001-01-01 00:00:00+00'`
	postgresLastTime  = `timestamptz '9999-12-31 23:59:59.999999+00'`
)

// postgresAge and postgresAgeEnd enclose a time and select the age of the earliest one, in
// microseconds. An infinite age is NULL, and other ages stay within the range of a time.Duration.
const (
	postgresAge    = `(extract(epoch FROM (SELECT now FROM arg) - min(GREATEST(`
	postgresAgeEnd = `, timestamptz 'epoch'))) * 1000000)::bigint`
)

// These are the columns of a claim (deliveryColumns). Each dialect selects them in a form that
// scanDelivery can read.
const (
	postgresDelivery = postgresMessage + `, ` + postgresMicros + `m.vt` + postgresMicrosEnd
	postgresMessage  = `m.id, m.payload, m.priority, m.read_ct, m.claim_ct, m.dedup_key, m.headers, m.last_error, ` +
		postgresMicros + `m.enqueued_at` + postgresMicrosEnd + `, ` + postgresMicros + `m.due_at` + postgresMicrosEnd
)

// These are the columns of a listing (infoColumns): a delivery and its state. The last column is
// the time by which the listing is ordered, as text for its cursor.
const (
	postgresInfo    = `m.id, ` + postgresCut + postgresInfoKey + `CASE WHEN ` + postgresHeadersFit + ` THEN m.headers END` + postgresInfoEnd
	postgresInfoKey = `, m.priority, m.read_ct, m.claim_ct, left(m.dedup_key, ` + listedName + `), `
	postgresInfoEnd = `, left(m.last_error, ` + listedError + `), ` + postgresTimes + `, left(q.queue_name, ` + listedName + `)` + postgresState
	// postgresHeaders is the headers to which the library adds its own. It is {} if they are not an
	// object, or too large for a listing.
	postgresHeaders    = `CASE WHEN jsonb_typeof(m.headers) = 'object' AND ` + postgresHeadersFit + ` THEN m.headers ELSE '{}' END`
	postgresHeadersFit = `pg_column_size(m.headers #> '{}') <= ` + listedHeaders
	// postgresCut is the beginning of a payload. It is empty if the text of the payload would take
	// long to make. Then the size in postgresSizes is the size of the JSONB.
	postgresCut   = `CASE WHEN ` + postgresLarge + ` THEN '' ELSE left(m.payload::text, ` + listedText + `) END`
	postgresLarge = `pg_column_size(m.payload) > 2000 AND pg_column_size(m.payload #> '{}') > ` + listedWholly
	// postgresSizes are the last columns of a listing.
	postgresSizes    = `, ` + postgresTextSize + `, NOT COALESCE(` + postgresHeadersFit + `, true)`
	postgresTextSize = `CASE WHEN ` + postgresLarge + ` THEN pg_column_size(m.payload #> '{}') ELSE octet_length(m.payload::text) END`
	// postgresWhole is postgresInfo with nothing cut.
	postgresWhole = `m.id, m.payload, m.priority, m.read_ct, m.claim_ct, m.dedup_key, m.headers, m.last_error, ` + postgresTimes + `, q.queue_name` + postgresState
	postgresTimes = postgresMicros + `m.enqueued_at` + postgresMicrosEnd + `, ` + postgresMicros + `m.due_at` + postgresMicrosEnd + `, ` +
		postgresMicros + `COALESCE(m.parked_vt, m.vt)` + postgresMicrosEnd
	postgresState = `, m.consumer_worker_id, ` +
		postgresMicros + `m.archived_at` + postgresMicrosEnd + `, ` + postgresMicros + `m.failed_at` + postgresMicrosEnd + `,
	CASE WHEN m.failed_at IS NOT NULL THEN 'dead' WHEN m.archived_at IS NOT NULL THEN 'archived'
		WHEN m.parked_vt IS NOT NULL THEN 'blocked' WHEN m.vt <= clock_timestamp() THEN 'ready' WHEN m.consumer_worker_id IS NULL THEN 'scheduled' ELSE 'leased' END`
)

// postgresAheadRank is the order of message.ahead.
const postgresAheadRank = `CASE WHEN o.parked_vt IS NOT NULL THEN 3 WHEN o.vt <= clock_timestamp() THEN 2 WHEN o.consumer_worker_id IS NULL THEN 1 ELSE 0 END AS rank`

// The planner must choose the same index whether or not the tables were analyzed, and when it plans
// for unknown arguments. A LATERAL or scalar query that is limited and ordered like the index makes
// it do so. It may turn EXISTS or a join into a scan of the whole table.

// postgresHeld reads the few messages that have an owner. The range of owners excludes none. It
// makes the planner use pgqrs_messages_held. It is the only condition, so that no other condition
// can make the planner prefer another index.
const postgresHeld = `held AS MATERIALIZED (
				SELECT id, queue_id, vt FROM pgqrs_messages
				WHERE consumer_worker_id BETWEEN (SELECT 0) AND (SELECT 9223372036854775807) AND archived_at IS NULL
			)`

// Listings read one state in the order of an index, from a cursor on. Listings of live messages
// merge the four priorities. Listings of ended messages go from new to old.
const (
	postgresListArg = `
		WITH arg AS MATERIALIZED (
			SELECT $1::text AS queue, $2::text::timestamptz AS at, $3::bigint AS id, $4::boolean AS payloads, $5::bigint AS n, clock_timestamp() AS now
		)
		SELECT m.id, CASE WHEN arg.payloads THEN ` + postgresCut + ` END` + postgresInfoKey + `CASE WHEN arg.payloads AND ` + postgresHeadersFit + ` THEN m.headers END` + postgresInfoEnd + `, `
	postgresListFrom = `, CASE WHEN arg.payloads THEN ` + postgresTextSize + ` END, arg.payloads AND NOT COALESCE(` + postgresHeadersFit + `, true)
		FROM arg JOIN pgqrs_queues q ON q.queue_name = arg.queue`
	postgresListLive = postgresListArg + postgresVTCursor + postgresListFrom + `
		CROSS JOIN (VALUES (2), (1), (0), (-1)) AS band (priority)
		CROSS JOIN LATERAL (
			SELECT * FROM pgqrs_messages o
			WHERE o.queue_id = q.id AND o.priority = band.priority AND o.archived_at IS NULL
				AND `
	postgresListLiveEnd = `
			ORDER BY o.vt, o.id
			LIMIT (SELECT n FROM arg)
		) m
		ORDER BY m.vt, m.id
		LIMIT (SELECT n FROM arg)`
	postgresListEnded = `
		CROSS JOIN LATERAL (
			SELECT * FROM pgqrs_messages o
			WHERE o.queue_id = q.id AND `
)

// These are the times by which listings are ordered, as text for their cursors. The function
// to_char has no infinite time, and writes no year before the first.
const (
	postgresVTCursor       = `CASE WHEN isfinite(m.vt)` + postgresCursor + `m.vt` + postgresCursorEnd + `m.vt::text END`
	postgresArchivedCursor = `CASE WHEN isfinite(m.archived_at)` + postgresCursor + `m.archived_at` + postgresCursorEnd + `m.archived_at::text END`
	postgresFailedCursor   = `CASE WHEN isfinite(m.failed_at)` + postgresCursor + `m.failed_at` + postgresCursorEnd + `m.failed_at::text END`
	postgresCursor         = ` THEN to_char(GREATEST(`
	postgresCursorEnd      = `, ` + postgresFirstTime + `) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || 'Z' ELSE `
)

// postgresDepthBands reads the live messages of a queue q, a priority at a time.
const postgresDepthBands = `SELECT m.vt FROM (VALUES (2), (1), (0), (-1)) AS band (priority) CROSS JOIN LATERAL (
					SELECT id, vt FROM pgqrs_messages WHERE queue_id = q.id AND priority = band.priority AND archived_at IS NULL AND `

// postgresTaking is the condition that a row of pgqrs_workers belongs to a live worker that claims.
// See queue.unattended.
const postgresTaking = `status IN ('ready', 'polling') AND heartbeat_at > clock_timestamp() - interval '30 seconds' * CASE WHEN go_state IS NULL THEN 20 ELSE 1 END`

// postgresLeases reads a JSON array of lease tuples.
const postgresLeases = `
	SELECT (j.value ->> 0)::bigint AS id, (j.value ->> 1)::bigint AS worker_id, (j.value ->> 2)::bigint AS claim_ct, j.value ->> 3 AS delay, j.value ->> 4 AS error`

// postgresWorkerID is the id of a new row of pgqrs_workers: 48 random bits. A setseed of the
// application does not affect them.
const postgresWorkerID = `('x' || right(gen_random_uuid()::text, 12))::bit(48)::bigint + 1`

// postgresIncarnation distinguishes the owners of a row of pgqrs_workers by the time at which they
// took it.
const postgresIncarnation = postgresMicros + `started_at` + postgresMicrosEnd

// postgresFence is the condition that the lease tuple held still holds a row of pgqrs_messages m.
const postgresFence = `m.id = held.id AND m.consumer_worker_id = held.worker_id AND m.claim_ct = held.claim_ct`

// postgresLive is the condition that a row m is not archived. It is written so that the planner
// does not use a partial index for it. After a vacuum in an idle moment the planner takes partial
// indexes for empty, and prefers them to the primary key.
const postgresLive = `COALESCE(m.archived_at, 'infinity') = 'infinity'`

// postgresFences is postgresFence for a list held. The ids are also an array, since the planner
// assumes a handful of rows for an array, and many for a list.
const postgresFences = `m.id = ANY (ARRAY(SELECT id FROM held)) AND ` + postgresFence

var postgres = dialect{
	engineName:         "PostgreSQL",
	migrations:         "postgres",
	schemas:            true,
	writers:            ManyWriters,
	claimsFromPosition: true,
	runsByOneStatement: true,
	session:            "/* pgqrs:session.id */ SELECT pg_backend_pid()::text",

	transaction: transactionSQL{
		isolation: sql.LevelReadCommitted,
		open:      "/* pgqrs:open */ SELECT set_config('transaction_read_only', CASE 'on' WHEN current_setting('transaction_read_only') THEN 'on' ELSE current_setting('default_transaction_read_only') END, true), set_config('idle_in_transaction_session_timeout', COALESCE(NULLIF(current_setting('idle_in_transaction_session_timeout'), '0'), '1min'), true)",
		begin:     "/* pgqrs:begin */ BEGIN ISOLATION LEVEL READ COMMITTED",
		commit:    "/* pgqrs:commit */ COMMIT",
		rollback:  "/* pgqrs:rollback */ ROLLBACK",
		probe:     "/* pgqrs:ask */ SELECT 1",
	},

	schema: postgresSchemaTexts,
	queue: queueSQL{
		make:  `/* pgqrs:queue.make */ INSERT INTO pgqrs_queues (queue_name) VALUES ($1) ON CONFLICT (queue_name) DO NOTHING`,
		pause: `/* pgqrs:queue.pause */ UPDATE pgqrs_queues SET paused_at = CASE WHEN a.paused THEN COALESCE(paused_at, clock_timestamp()) END FROM (SELECT $1::text AS name, $2::boolean AS paused) a WHERE queue_name = a.name RETURNING id`,
		stats: `/* pgqrs:queue.stats */
			WITH arg AS MATERIALIZED (SELECT $1::json AS names, clock_timestamp() AS now)
			SELECT q.id, left(q.queue_name, ` + listedName + `), ` + postgresMicros + `q.created_at` + postgresMicrosEnd + `, ` + postgresMicros + `q.paused_at` + postgresMicrosEnd + `,
				(SELECT count(*) FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND vt <= arg.now),
				(SELECT count(*) FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND vt > arg.now AND vt < ` + postgresBlocked + `)
					- (SELECT count(*) FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND consumer_worker_id IS NOT NULL AND vt > arg.now),
				(SELECT count(*) FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND consumer_worker_id IS NOT NULL AND vt > arg.now),
				(SELECT count(*) FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NOT NULL AND failed_at IS NULL),
				(SELECT count(*) FROM pgqrs_messages WHERE queue_id = q.id AND failed_at IS NOT NULL),
				COALESCE((SELECT ` + postgresAge + `vt` + postgresAgeEnd + ` FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND vt <= arg.now), 0),
				` + postgresPolicyOf + `, ` + postgresBlockedOf + `
			FROM arg CROSS JOIN pgqrs_queues q
			WHERE arg.names IS NULL OR q.queue_name IN (SELECT json_array_elements(arg.names) ->> 0)
			ORDER BY q.queue_name`,
		depth: `/* pgqrs:queue.depth */
			WITH arg AS MATERIALIZED (SELECT $1::json AS names, clock_timestamp() AS now, clock_timestamp() - interval '1 minute' AS since),
			` + postgresHeld + `
			SELECT left(q.queue_name, ` + listedName + `), ` + postgresMicros + `q.paused_at` + postgresMicrosEnd + `,
				(SELECT count(*) FROM (` + postgresDepthBands + `vt <= (SELECT now FROM arg) ORDER BY vt, id LIMIT ` + depthLimit + `) m LIMIT ` + depthLimit + `) c),
				(SELECT count(*) FROM (` + postgresDepthBands + `vt > (SELECT now FROM arg) AND vt < ` + postgresBlocked + ` ORDER BY vt, id LIMIT ` + depthLimit + `) m LIMIT ` + depthLimit + `) c),
				(SELECT count(*) FROM held WHERE queue_id = q.id AND vt > (SELECT now FROM arg)),
				(SELECT count(*) FROM (SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND failed_at IS NOT NULL ORDER BY failed_at, id LIMIT ` + depthLimit + `) c),
				(SELECT count(*) FROM (SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NOT NULL AND failed_at IS NULL
					AND archived_at > (SELECT since FROM arg) ORDER BY archived_at, id LIMIT ` + depthLimit + `) c),
				(SELECT count(*) FROM (SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND failed_at > (SELECT since FROM arg) ORDER BY failed_at, id LIMIT ` + depthLimit + `) c),
				COALESCE((SELECT ` + postgresAge + `c.vt` + postgresAgeEnd + `
					FROM (` + postgresDepthBands + `vt <= (SELECT now FROM arg) ORDER BY vt, id LIMIT 1) m) c), 0),
				` + postgresPolicyOf + `, ` + postgresBlockedOf + `, COALESCE(live.workers, 0)
			FROM arg CROSS JOIN pgqrs_queues q LEFT JOIN (
				SELECT queue_id, count(*) AS workers FROM pgqrs_workers WHERE ` + postgresTaking + ` GROUP BY queue_id
			) live ON live.queue_id = q.id
			WHERE arg.names IS NULL OR q.queue_name IN (SELECT json_array_elements(arg.names) ->> 0)
			ORDER BY q.queue_name`,
		unattended: `/* pgqrs:queue.unattended */
			WITH arg AS MATERIALIZED (
				SELECT clock_timestamp() AS now, $1::bigint * interval '1 microsecond' AS silence, $2::bigint * interval '1 microsecond' AS waited
			), alone AS MATERIALIZED (
				SELECT q.id, q.queue_name FROM pgqrs_queues q
				WHERE q.paused_at IS NULL AND q.id NOT IN (
					SELECT w.queue_id FROM arg CROSS JOIN pgqrs_workers w
					WHERE w.queue_id IS NOT NULL AND w.status IN ('ready', 'polling') AND w.heartbeat_at > arg.now - arg.silence * CASE WHEN w.go_state IS NULL THEN 20 ELSE 1 END)
			)
			SELECT left(a.queue_name, ` + listedName + `), (extract(epoch FROM arg.now - f.vt) * 1000000)::bigint
			FROM arg CROSS JOIN alone a CROSS JOIN LATERAL (
				SELECT min(GREATEST(m.vt, timestamptz 'epoch')) AS vt
				FROM (VALUES (2), (1), (0), (-1)) AS band (priority)
				CROSS JOIN LATERAL (
					SELECT o.vt FROM pgqrs_messages o
					WHERE o.queue_id = a.id AND o.priority = band.priority AND o.archived_at IS NULL AND o.vt <= (SELECT now FROM arg)
					ORDER BY o.vt, o.id
					LIMIT 1
				) m
			) f
			WHERE f.vt <= arg.now - arg.waited
			ORDER BY a.queue_name
			LIMIT $3::bigint`,
		misfit: `/* pgqrs:queue.misfit */
			SELECT left(q.queue_name, ` + listedName + `) FROM pgqrs_queues q
			WHERE q.max_held <= 0 OR q.group_limit <= 0
				OR q.rate_interval IS NOT NULL AND NOT (q.rate_interval BETWEEN 1 AND ` + postgresLongest + ` AND COALESCE(q.rate_burst, 0) > 0)
				OR q.group_interval IS NOT NULL AND NOT (q.group_interval BETWEEN 1 AND ` + postgresLongest + ` AND COALESCE(q.group_burst, 0) > 0)
			ORDER BY q.queue_name
			LIMIT $1::bigint`,
		freeze: []string{`/* pgqrs:queue.freeze */ DO $$
			DECLARE patience text := current_setting('lock_timeout');
			BEGIN
				PERFORM set_config('lock_timeout', '250ms', true);
				LOCK TABLE pgqrs_messages IN SHARE ROW EXCLUSIVE MODE;
				PERFORM set_config('lock_timeout', patience, true);
			END
			$$`},
		inUse: `/* pgqrs:queue.in_use */
			SELECT q.id,
				CASE WHEN COALESCE(
					(SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL ORDER BY priority DESC, vt, id LIMIT 1),
					(SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NOT NULL AND failed_at IS NULL ORDER BY archived_at, id LIMIT 1),
					(SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND failed_at IS NOT NULL ORDER BY failed_at, id LIMIT 1)
				) IS NULL THEN 0 ELSE 1 END,
				(SELECT count(*) FROM pgqrs_workers w WHERE w.queue_id = q.id AND w.status <> 'stopped' AND w.heartbeat_at > arg.alive)
			FROM (SELECT $1::text AS name, clock_timestamp() - $2::bigint * interval '1 microsecond' AS alive) arg
			JOIN pgqrs_queues q ON q.queue_name = arg.name`,
		drop: []string{
			`/* pgqrs:queue.drop_workers */ DELETE FROM pgqrs_workers WHERE queue_id = $1`,
			`/* pgqrs:queue.drop_workflow */ DELETE FROM pgqrs_workflows WHERE queue_id = $1`,
			`/* pgqrs:queue.drop_row */ DELETE FROM pgqrs_queues WHERE id = $1`,
		},
	},

	message: messageSQL{
		// The planner adds no step for a FROM that computes nothing, so clock_timestamp is not in a
		// FROM.
		enqueue: `/* pgqrs:message.enqueue */
			INSERT INTO pgqrs_messages (queue_id, payload, vt, enqueued_at, read_ct, priority, dedup_key, headers)
			SELECT q.id, arg.payload, CASE WHEN arg.at IS NULL THEN statement_timestamp() + arg.delay * interval '1 microsecond'
					ELSE GREATEST(statement_timestamp(), timestamptz 'epoch' + arg.at * interval '1 microsecond') END,
				statement_timestamp(), 0, arg.priority, arg.key, arg.headers
			FROM (
				SELECT $1::text AS queue, $2::jsonb AS payload, $3::bigint AS delay, $4::bigint AS at, $5::smallint AS priority, $6::text AS key, $7::jsonb AS headers
			) arg JOIN pgqrs_queues q ON q.queue_name = arg.queue
			ON CONFLICT (queue_id, dedup_key) WHERE archived_at IS NULL AND dedup_key IS NOT NULL DO NOTHING
			RETURNING id`,
		// As JSONB the list is parsed once for all. Without ON CONFLICT a row is written once, and
		// with less log.
		enqueueBatch: `/* pgqrs:message.batch_enqueue */
			WITH arg AS MATERIALIZED (SELECT $1::text AS queue, $2::jsonb AS items, clock_timestamp() AS now)
			INSERT INTO pgqrs_messages (queue_id, payload, vt, enqueued_at, read_ct)
			SELECT q.id, item.value, arg.now, arg.now, 0
			FROM arg JOIN pgqrs_queues q ON q.queue_name = arg.queue CROSS JOIN jsonb_array_elements(arg.items) WITH ORDINALITY AS item (value, n)
			ORDER BY item.n
			RETURNING id`,
		enqueueMixed: `/* pgqrs:message.mixed_enqueue */
			WITH arg AS MATERIALIZED (SELECT $1::text AS queue, $2::json AS items, clock_timestamp() AS now)
			INSERT INTO pgqrs_messages (queue_id, payload, vt, enqueued_at, read_ct, priority, dedup_key, headers)
			SELECT q.id, (item.value ->> 0)::jsonb,
				CASE WHEN item.value ->> 2 IS NOT NULL THEN GREATEST(arg.now, timestamptz 'epoch' + (item.value ->> 2)::bigint * interval '1 microsecond')
					ELSE arg.now + (item.value ->> 1)::bigint * interval '1 microsecond' END,
				arg.now, 0, (item.value ->> 3)::smallint, item.value ->> 4, (item.value ->> 5)::jsonb
			FROM arg JOIN pgqrs_queues q ON q.queue_name = arg.queue CROSS JOIN json_array_elements(arg.items) WITH ORDINALITY AS item (value, n)
			ORDER BY item.n
			ON CONFLICT (queue_id, dedup_key) WHERE archived_at IS NULL AND dedup_key IS NOT NULL DO NOTHING
			RETURNING id, dedup_key`,
		keyed: `/* pgqrs:message.keyed */
			WITH arg AS MATERIALIZED (SELECT $1::text AS queue, $2::json AS keys)
			SELECT m.dedup_key, m.id FROM pgqrs_messages m
			WHERE m.queue_id = (SELECT q.id FROM arg JOIN pgqrs_queues q ON q.queue_name = arg.queue)
				AND m.dedup_key = ANY (ARRAY(SELECT json_array_elements(arg.keys) ->> 0 FROM arg)) AND m.archived_at IS NULL`,
		get: `/* pgqrs:message.get */
			SELECT ` + postgresInfo + `, ''` + postgresSizes + `
			FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = m.queue_id
			WHERE m.id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint))
			ORDER BY m.id`,
		whole: `/* pgqrs:message.whole */
			SELECT ` + postgresWhole + `, ''
			FROM pgqrs_messages m JOIN pgqrs_queues q ON q.id = m.queue_id
			WHERE m.id = $1`,
		ahead: `/* pgqrs:message.ahead */
			WITH self AS MATERIALIZED (SELECT m.id, m.queue_id, m.group_key FROM pgqrs_messages m WHERE m.id = $1 AND ` + postgresLive + ` AND m.parked_vt IS NOT NULL),
			other AS MATERIALIZED (
				SELECT m.id, m.vt, m.rank FROM self CROSS JOIN LATERAL (
					SELECT o.id, o.vt, ` + postgresAheadRank + ` FROM pgqrs_messages o
					WHERE o.queue_id = self.queue_id AND o.group_key = self.group_key AND o.archived_at IS NULL AND o.parked_vt IS NULL
					ORDER BY o.id
					LIMIT 1000) m
				UNION ALL
				SELECT m.id, m.vt, m.rank FROM self CROSS JOIN LATERAL (
					SELECT o.id, o.vt, ` + postgresAheadRank + ` FROM pgqrs_messages o
					WHERE o.batch_id = self.id AND o.archived_at IS NULL
					LIMIT 1000) m
			)
			SELECT id FROM other ORDER BY rank, vt, id LIMIT $2::bigint`,
		list: map[MessageState]string{
			Ready: `/* pgqrs:message.list_ready */` + postgresListLive + `(o.vt, o.id) > (COALESCE(arg.at, '-infinity'), arg.id) AND o.vt <= arg.now` + postgresListLiveEnd,
			Scheduled: `/* pgqrs:message.list_scheduled */` + postgresListLive + `(o.vt, o.id) > (GREATEST(arg.at, arg.now), CASE WHEN arg.at > arg.now THEN arg.id ELSE 9223372036854775807 END)
				AND o.vt < ` + postgresBlocked + ` AND o.consumer_worker_id IS NULL` + postgresListLiveEnd,
			Blocked: `/* pgqrs:message.list_blocked */` + postgresListLive + `(o.vt, o.id) > (` + postgresBlocked + `, arg.id) AND o.parked_vt IS NOT NULL` + postgresListLiveEnd,
			Leased: `/* pgqrs:message.list_leased */` + postgresListArg + postgresVTCursor + postgresListFrom + `
				JOIN pgqrs_messages m ON m.queue_id = q.id
				WHERE m.id = ANY (ARRAY(
					WITH ` + postgresHeld + `
					SELECT h.id FROM held h CROSS JOIN arg
					WHERE h.queue_id = (SELECT w.id FROM arg a JOIN pgqrs_queues w ON w.queue_name = a.queue) AND h.vt > arg.now
						AND (h.vt, h.id) > (COALESCE(arg.at, '-infinity'), arg.id)
					ORDER BY h.vt, h.id
					LIMIT (SELECT n FROM arg)))
				ORDER BY m.vt, m.id`,
			Archived: `/* pgqrs:message.list_archived */` + postgresListArg + postgresArchivedCursor + postgresListFrom + postgresListEnded + `o.archived_at IS NOT NULL AND o.failed_at IS NULL
					AND (o.archived_at, o.id) < (COALESCE(arg.at, 'infinity'), arg.id)
				ORDER BY o.archived_at DESC, o.id DESC
				LIMIT (SELECT n FROM arg)
			) m
			ORDER BY m.archived_at DESC, m.id DESC`,
			Dead: `/* pgqrs:message.list_dead */` + postgresListArg + postgresFailedCursor + postgresListFrom + postgresListEnded + `o.failed_at IS NOT NULL
					AND (o.failed_at, o.id) < (COALESCE(arg.at, 'infinity'), arg.id)
				ORDER BY o.failed_at DESC, o.id DESC
				LIMIT (SELECT n FROM arg)
			) m
			ORDER BY m.failed_at DESC, m.id DESC`,
		},
		lock: `/* pgqrs:message.lock */
			WITH arg AS MATERIALIZED (SELECT $1::json AS ids, $2::text AS state, clock_timestamp() AS now)
			SELECT m.id FROM pgqrs_messages m CROSS JOIN arg
			WHERE m.id = ANY (ARRAY(SELECT json_array_elements_text(arg.ids)::bigint FROM arg)) AND CASE arg.state
				WHEN '' THEN true
				WHEN 'ready' THEN m.archived_at IS NULL AND m.vt <= arg.now
				WHEN 'scheduled' THEN m.archived_at IS NULL AND m.vt > arg.now AND m.consumer_worker_id IS NULL AND m.parked_vt IS NULL
				WHEN 'blocked' THEN m.archived_at IS NULL AND m.parked_vt IS NOT NULL
				WHEN 'leased' THEN m.archived_at IS NULL AND m.vt > arg.now AND m.consumer_worker_id IS NOT NULL
				WHEN 'archived' THEN m.archived_at IS NOT NULL AND m.failed_at IS NULL AND ` + postgresUnneeded + `
				WHEN 'dead' THEN m.failed_at IS NOT NULL AND ` + postgresUnneeded + ` END
			ORDER BY m.id
			FOR UPDATE OF m`,
		remove: []string{
			`/* pgqrs:message.remove_steps */ DELETE FROM pgqrs_workflow_steps WHERE run_id IN (SELECT id FROM pgqrs_workflow_runs WHERE message_id IN (SELECT json_array_elements_text($1::json)::bigint))`,
			`/* pgqrs:message.remove_signals */ DELETE FROM pgqrs_workflow_signals WHERE run_id IN (SELECT id FROM pgqrs_workflow_runs WHERE message_id IN (SELECT json_array_elements_text($1::json)::bigint))`,
			`/* pgqrs:message.remove_runs */ DELETE FROM pgqrs_workflow_runs WHERE message_id IN (SELECT json_array_elements_text($1::json)::bigint)`,
			`/* pgqrs:message.remove_rows */ DELETE FROM pgqrs_messages WHERE id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint))`,
		},
		redrive: `/* pgqrs:message.redrive */
			WITH arg AS MATERIALIZED (SELECT json_array_elements_text($1::json)::bigint AS id),
			chosen AS MATERIALIZED (
				SELECT m.id, m.queue_id, m.dedup_key FROM pgqrs_messages m
				WHERE m.id = ANY (ARRAY(SELECT id FROM arg)) AND m.archived_at IS NOT NULL AND m.group_key IS NULL
				ORDER BY m.id
				FOR UPDATE OF m
			)
			UPDATE pgqrs_messages m
			SET archived_at = NULL, failed_at = NULL, read_ct = 0, vt = clock_timestamp(), due_at = NULL, dequeued_at = NULL, consumer_worker_id = NULL
			WHERE m.id = ANY (ARRAY(
				SELECT c.id FROM chosen c
				WHERE c.dedup_key IS NULL
					OR NOT EXISTS (SELECT 1 FROM pgqrs_messages o WHERE o.queue_id = c.queue_id AND o.dedup_key = c.dedup_key AND o.archived_at IS NULL)
					AND NOT EXISTS (SELECT 1 FROM chosen o WHERE o.queue_id = c.queue_id AND o.dedup_key = c.dedup_key AND o.id < c.id)))
			RETURNING m.id`,
		prune: `/* pgqrs:message.prune */
			WITH arg AS MATERIALIZED (
				SELECT q.id AS queue_id, clock_timestamp() - (j.value ->> 1)::bigint * interval '1 microsecond' AS until
				FROM json_array_elements($1::json) AS j (value) JOIN pgqrs_queues q ON q.queue_name = j.value ->> 0
			)
			DELETE FROM pgqrs_messages WHERE id = ANY (ARRAY(
				SELECT m.id FROM arg CROSS JOIN LATERAL (
					SELECT o.id FROM pgqrs_messages o
					WHERE o.queue_id = arg.queue_id AND o.archived_at IS NOT NULL AND o.failed_at IS NULL AND o.archived_at < arg.until
						AND (o.batch_id IS NULL OR NOT EXISTS (SELECT 1 FROM pgqrs_messages b WHERE b.id = o.batch_id AND b.parked_vt IS NOT NULL))
						AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs r WHERE r.message_id = o.id)
					ORDER BY o.archived_at, o.id
					FOR UPDATE OF o SKIP LOCKED
				) m
				LIMIT $2::bigint))`,
		clearExpiredOwner: `/* pgqrs:message.disown */
			WITH arg AS MATERIALIZED (SELECT clock_timestamp() - $1::bigint * interval '1 microsecond' AS until),
			` + postgresHeld + `
			UPDATE pgqrs_messages SET consumer_worker_id = NULL, due_at = COALESCE(due_at, vt)
			WHERE id = ANY (ARRAY(
				SELECT m.id FROM pgqrs_messages m
				WHERE m.id = ANY (ARRAY(SELECT h.id FROM held h WHERE h.vt <= (SELECT until FROM arg) LIMIT $2::bigint))
					AND m.consumer_worker_id IS NOT NULL AND ` + postgresLive + ` AND m.vt <= (SELECT until FROM arg)
				FOR UPDATE SKIP LOCKED))`,
		unreachable: `/* pgqrs:message.unreachable */
			WITH arg AS MATERIALIZED (SELECT $1::json AS queues, $2::bigint AS n)
			SELECT u.id, q.queue_name
			FROM arg CROSS JOIN json_array_elements(arg.queues) AS j (value) JOIN pgqrs_queues q ON q.queue_name = j.value ->> 0
				CROSS JOIN LATERAL (
					SELECT live.id FROM (VALUES (2), (1), (0), (-1)) AS band (priority) CROSS JOIN LATERAL (
						(SELECT o.id FROM pgqrs_messages o
						WHERE o.queue_id = q.id AND o.priority = band.priority AND o.archived_at IS NULL AND o.vt > ` + postgresBlocked + ` AND o.parked_vt IS NULL
						ORDER BY o.vt, o.id
						LIMIT (SELECT n FROM arg))
						UNION ALL
						(SELECT o.id FROM pgqrs_messages o
						WHERE o.queue_id = q.id AND o.priority = band.priority AND o.archived_at IS NULL AND o.vt IS NULL AND o.parked_vt IS NULL
						ORDER BY o.id
						LIMIT (SELECT n FROM arg))
					) live
					UNION ALL
					(SELECT o.id FROM pgqrs_messages o
					WHERE o.queue_id = q.id AND o.archived_at IS NOT NULL AND o.failed_at IS NULL AND o.archived_at > ` + postgresBlocked + `
					ORDER BY o.archived_at, o.id
					LIMIT (SELECT n FROM arg))
					UNION ALL
					(SELECT o.id FROM pgqrs_messages o
					WHERE o.queue_id = q.id AND o.failed_at IS NOT NULL AND o.failed_at > ` + postgresBlocked + ` AND o.archived_at IS NOT NULL
					ORDER BY o.failed_at, o.id
					LIMIT (SELECT n FROM arg))
				) u
			LIMIT (SELECT n FROM arg)`,
		bury: `/* pgqrs:message.bury */
			UPDATE pgqrs_messages m
			SET archived_at = clock_timestamp(), failed_at = clock_timestamp(), vt = CASE WHEN m.archived_at IS NULL THEN clock_timestamp() ELSE m.vt END, due_at = NULL,
				last_error = CASE WHEN m.archived_at IS NULL THEN ` + unreachableTime + ` WHEN m.failed_at IS NULL THEN ` + unreachableEnd + ` ELSE ` + unreachableDeath + ` END
			WHERE m.id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint)) AND CASE WHEN m.archived_at IS NULL THEN COALESCE(m.vt, 'infinity') > ` + postgresBlocked + ` AND m.parked_vt IS NULL
				WHEN m.failed_at IS NULL THEN m.archived_at > ` + postgresBlocked + ` ELSE m.failed_at > ` + postgresBlocked + ` END
			RETURNING m.id`,
	},

	lease: leaseSQL{
		claim:     `/* pgqrs:message.claim */` + postgresClaim + postgresClaimEnd,
		nextClaim: `/* pgqrs:message.next_claim */` + postgresClaim + postgresClaimAfter + postgresClaimEnd,
		skipped:   `/* pgqrs:message.passed */` + postgresPassed,
		check: `/* pgqrs:message.check */
			SELECT m.id FROM pgqrs_messages m JOIN (SELECT $1::bigint AS id, $2::bigint AS worker_id, $3::bigint AS claim_ct) held ON ` + postgresFence + `
			WHERE m.archived_at IS NULL`,
		ack: `/* pgqrs:message.ack */
			WITH held AS MATERIALIZED (` + postgresLeases + ` FROM json_array_elements($1::json) AS j (value))
			UPDATE pgqrs_messages m SET archived_at = COALESCE(m.archived_at, clock_timestamp()), due_at = NULL
			FROM held WHERE ` + postgresFences + ` AND m.failed_at IS NULL
			RETURNING m.id`,
		delete: `/* pgqrs:message.delete */
			WITH held AS MATERIALIZED (` + postgresLeases + ` FROM json_array_elements($1::json) AS j (value))
			DELETE FROM pgqrs_messages m USING held WHERE ` + postgresFences + ` AND ` + postgresLive + `
				AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs r WHERE r.message_id = m.id)
			RETURNING m.id`,
		release: `/* pgqrs:message.release */
			WITH held AS MATERIALIZED (` + postgresLeases + ` FROM json_array_elements($1::json) AS j (value))
			UPDATE pgqrs_messages m
			SET vt = clock_timestamp() + CASE WHEN m.woken THEN 0 ELSE held.delay::bigint END * interval '1 microsecond', consumer_worker_id = NULL, due_at = NULL, read_ct = GREATEST(m.read_ct, 1) - 1
			FROM held WHERE ` + postgresFences + ` AND ` + postgresLive + `
			RETURNING m.id`,
		fail: `/* pgqrs:message.fail */
			WITH held AS MATERIALIZED (` + postgresLeases + `, clock_timestamp() AS now FROM json_array_elements($1::json) AS j (value))
			UPDATE pgqrs_messages m
			SET last_error = held.error, due_at = NULL,
				vt = CASE WHEN held.delay IS NULL THEN m.vt ELSE held.now + held.delay::bigint * interval '1 microsecond' END,
				consumer_worker_id = CASE WHEN held.delay IS NULL THEN m.consumer_worker_id END,
				archived_at = CASE WHEN held.delay IS NULL THEN held.now END,
				failed_at = CASE WHEN held.delay IS NULL THEN held.now END
			FROM held WHERE ` + postgresFences + ` AND ` + postgresLive + `
			RETURNING m.id`,
		// The clock is read for each row, and again after a wait for the row.
		extend: `/* pgqrs:message.extend */
			WITH arg AS MATERIALIZED (SELECT $1::bigint * interval '1 microsecond' AS lease, $2::json AS leases),
			held AS MATERIALIZED (` + postgresLeases + `, arg.lease FROM arg CROSS JOIN json_array_elements(arg.leases) AS j (value))
			UPDATE pgqrs_messages m SET vt = clock_timestamp() + held.lease
			FROM held WHERE ` + postgresFences + ` AND ` + postgresLive + `
			RETURNING m.id`,
		renew: `/* pgqrs:message.renew */
			WITH arg AS MATERIALIZED (SELECT clock_timestamp() + $1::bigint * interval '1 microsecond' AS until, $2::json AS leases),
			held AS MATERIALIZED (` + postgresLeases + ` FROM arg CROSS JOIN json_array_elements(arg.leases) AS j (value)),
			free AS MATERIALIZED (
				SELECT m.id FROM pgqrs_messages m JOIN held ON ` + postgresFences + `
				WHERE ` + postgresLive + ` AND m.vt < (SELECT until FROM arg)
				FOR UPDATE OF m SKIP LOCKED
			), renewed AS (
				UPDATE pgqrs_messages SET vt = (SELECT until FROM arg) WHERE id = ANY (ARRAY(SELECT id FROM free))
			)
			SELECT m.id FROM pgqrs_messages m JOIN held ON ` + postgresFences + ` WHERE ` + postgresLive,
		orphans: `/* pgqrs:message.strays */
			WITH arg AS MATERIALIZED (SELECT $1::bigint AS worker_id, $2::bigint AS incarnation, $3::json AS ids)
			UPDATE pgqrs_messages SET vt = clock_timestamp(), consumer_worker_id = NULL, due_at = NULL, read_ct = GREATEST(read_ct, 1) - 1
			WHERE consumer_worker_id = (SELECT id FROM arg JOIN pgqrs_workers ON id = worker_id AND ` + postgresIncarnation + ` = incarnation) AND archived_at IS NULL
				AND id <> ALL (ARRAY(SELECT json_array_elements_text(arg.ids)::bigint FROM arg))`,
	},

	worker: workerSQL{
		register: `/* pgqrs:worker.register */
			WITH arg AS MATERIALIZED (
				SELECT $1::text AS queue, $2::text AS name, $3::text AS status, $4::bigint * interval '1 microsecond' AS silence, clock_timestamp() AS now
			)
			INSERT INTO pgqrs_workers (id, name, queue_id, status, started_at, heartbeat_at, go_state) OVERRIDING SYSTEM VALUE
			SELECT ` + postgresWorkerID + `, arg.name, q.id, arg.status::worker_status, arg.now, arg.now, 'live'
			FROM arg JOIN pgqrs_queues q ON q.queue_name = arg.queue
			ON CONFLICT (name) DO UPDATE
			SET queue_id = excluded.queue_id, status = excluded.status, started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at, shutdown_at = NULL, go_state = excluded.go_state
			WHERE pgqrs_workers.status = 'stopped' OR pgqrs_workers.heartbeat_at < excluded.heartbeat_at - (SELECT silence FROM arg)
			RETURNING id, ` + postgresLimited + `, ` + postgresIncarnation,
		heartbeat: `/* pgqrs:worker.heartbeat */
			UPDATE pgqrs_workers SET heartbeat_at = CASE WHEN status = 'stopped' THEN heartbeat_at ELSE clock_timestamp() END
			WHERE id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint))
			RETURNING id, CASE WHEN status = 'stopped' AND go_state = 'live' AND (shutdown_at <= heartbeat_at OR shutdown_at >= LEAST(heartbeat_at, ` + postgresLastTime + `) + interval '3 seconds')
				THEN 'silent' ELSE status::text END, ` + postgresLimited + `, ` + postgresIncarnation,
		retire: `/* pgqrs:worker.retire */
			UPDATE pgqrs_workers SET status = 'stopped', shutdown_at = clock_timestamp(), go_state = 'stopped'
			FROM (SELECT (j.value ->> 0)::bigint AS id, (j.value ->> 1)::bigint AS incarnation FROM json_array_elements($1::json) AS j (value)) own
			WHERE pgqrs_workers.id = own.id AND status <> 'stopped' AND ` + postgresIncarnation + ` = own.incarnation`,
		poll: `/* pgqrs:worker.poll */
			WITH arg AS MATERIALIZED (SELECT $1::json AS ids, clock_timestamp() AS now)
			SELECT w.id FROM pgqrs_workers w JOIN pgqrs_queues q ON q.id = w.queue_id
			WHERE w.id = ANY (ARRAY(SELECT json_array_elements_text(arg.ids)::bigint FROM arg)) AND w.status IN ('ready', 'polling') AND q.paused_at IS NULL
				AND EXISTS (
					SELECT 1 FROM (VALUES (2), (1), (0), (-1)) AS band (priority)
					CROSS JOIN LATERAL (
						SELECT o.id FROM pgqrs_messages o
						WHERE o.queue_id = q.id AND o.priority = band.priority AND o.archived_at IS NULL AND o.vt <= (SELECT now FROM arg)
						ORDER BY o.vt, o.id
						LIMIT 1
					) m)`,
		move: `/* pgqrs:worker.move */
			WITH arg AS MATERIALIZED (SELECT $1::bigint AS id, $2::text AS status, $3::json AS old)
			UPDATE pgqrs_workers w SET status = arg.status::worker_status, shutdown_at = CASE WHEN arg.status = 'stopped' THEN clock_timestamp() END,
				go_state = CASE WHEN w.go_state IS NOT NULL THEN CASE WHEN arg.status = 'stopped' THEN 'stopped' ELSE 'live' END END
			FROM arg WHERE w.id = arg.id AND w.status::text IN (SELECT json_array_elements_text(arg.old))
			RETURNING w.id`,
		status: `/* pgqrs:worker.status */ SELECT status::text FROM pgqrs_workers WHERE id = $1`,
		list: `/* pgqrs:worker.list */
			SELECT w.id, w.name, q.queue_name, w.status::text, ` + postgresMicros + `w.started_at` + postgresMicrosEnd + `, ` + postgresMicros + `w.heartbeat_at` + postgresMicrosEnd + `, ` + postgresMicros + `w.shutdown_at` + postgresMicrosEnd + `,
				(SELECT count(*) FROM pgqrs_messages m WHERE m.consumer_worker_id = w.id AND m.archived_at IS NULL)
			FROM pgqrs_workers w LEFT JOIN pgqrs_queues q ON q.id = w.queue_id
			ORDER BY w.started_at, w.id`,
		expire: `/* pgqrs:worker.expire */
			UPDATE pgqrs_workers SET status = 'stopped', shutdown_at = heartbeat_at
			WHERE go_state = 'live' AND status <> 'stopped' AND heartbeat_at < clock_timestamp() - $1::bigint * interval '1 microsecond'`,
		prune: `/* pgqrs:worker.prune */
			WITH arg AS MATERIALIZED (SELECT clock_timestamp() - $1::bigint * interval '1 microsecond' AS until)
			DELETE FROM pgqrs_workers WHERE id = ANY (ARRAY(
				SELECT w.id FROM pgqrs_workers w
				WHERE w.go_state IS NOT NULL AND w.status = 'stopped' AND COALESCE(w.shutdown_at, w.heartbeat_at) < (SELECT until FROM arg)
					AND NOT EXISTS (SELECT 1 FROM pgqrs_messages m WHERE m.consumer_worker_id = w.id AND m.archived_at IS NULL)
				LIMIT $2::bigint
				FOR UPDATE SKIP LOCKED))`,
		pruneInterop: `/* pgqrs:worker.shared_prune */
			WITH arg AS MATERIALIZED (SELECT clock_timestamp() - $1::bigint * interval '1 microsecond' AS until)
			DELETE FROM pgqrs_workers WHERE id = ANY (ARRAY(
				SELECT w.id FROM pgqrs_workers w
				WHERE w.go_state IS NOT NULL AND w.status = 'stopped' AND COALESCE(w.shutdown_at, w.heartbeat_at) < (SELECT until FROM arg)
					AND NOT EXISTS (SELECT 1 FROM pgqrs_messages m WHERE m.consumer_worker_id = w.id)
				LIMIT $2::bigint
				FOR UPDATE SKIP LOCKED))`,
	},

	policy:   postgresPolicies,
	limit:    postgresLimits,
	workflow: postgresWorkflow,
	step:     postgresSteps,
	signal:   postgresSignals,
	schedule: postgresSchedules,
	group:    postgresGroupTexts,
	batch:    postgresBatches,
}

var postgresSchemaTexts = schemaSQL{
	exists: `/* pgqrs:schema.exists */ SELECT 1 FROM pg_namespace WHERE nspname = $1`,
	make:   `/* pgqrs:schema.make */ CREATE SCHEMA `,
	lock:   `/* pgqrs:schema.lock */ SELECT pg_advisory_xact_lock(7021870436)`,
	settings: map[string]string{
		"fsync":              `/* pgqrs:schema.fsync */ SELECT current_setting('fsync')`,
		"synchronous_commit": `/* pgqrs:schema.synchronous_commit */ SELECT current_setting('synchronous_commit')`,
		"read_only":          `/* pgqrs:schema.read_only */ SELECT current_setting('transaction_read_only')`,
	},
	encoding: `/* pgqrs:schema.encoding */ SELECT current_setting('client_encoding')`,
	engine:   `/* pgqrs:schema.engine */ SELECT 'PostgreSQL ' || current_setting('server_version')`,
	objects: `/* pgqrs:schema.objects */
		WITH known AS (
			SELECT to_regclass(name) AS oid
			FROM (VALUES ('pgqrs_migrations'), ('pgqrs_queues'), ('pgqrs_workers'), ('pgqrs_messages'),
				('pgqrs_workflows'), ('pgqrs_workflow_runs'), ('pgqrs_workflow_steps'), ('pgqrs_workflow_signals'), ('pgqrs_schedules'), ('pgqrs_schedule_runs'), ('pgqrs_groups'), ('_sqlx_migrations'), ('pgqrs_schema_version')) AS t (name)
		), tables AS (
			SELECT c.oid, c.relname, c.relkind FROM known JOIN pg_class c ON c.oid = known.oid
		), types AS (
			SELECT t.oid, t.typname, t.typtype FROM pg_type t WHERE t.oid IN (to_regtype('worker_status'), to_regtype('pgqrs_workflow_status'))
		)
		SELECT CASE WHEN relkind IN ('r', 'p') THEN 'table' ELSE 'other' END, relname::text, CASE WHEN relkind IN ('r', 'p') THEN '' WHEN relkind IN ('v', 'm') THEN 'view' ELSE 'relation' END FROM tables
		UNION ALL
		SELECT CASE typtype WHEN 'e' THEN 'type' ELSE 'other' END, typname::text, CASE typtype WHEN 'e' THEN '' WHEN 'c' THEN 'table or composite type' ELSE 'type that is no enumeration' END FROM types
		UNION ALL
		SELECT 'column', t.relname::text, a.attname::text FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
		UNION ALL
		SELECT 'index', t.relname::text, i.relname::text FROM tables t JOIN pg_index x ON x.indrelid = t.oid AND x.indisvalid JOIN pg_class i ON i.oid = x.indexrelid
		UNION ALL
		SELECT 'trigger', t.relname::text, g.tgname::text FROM tables t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
		UNION ALL
		SELECT 'value', t.typname::text, e.enumlabel::text FROM types t JOIN pg_enum e ON e.enumtypid = t.oid`,
	// The first rows are about tables, the next ones about sequences, and the last one is about a
	// schema that search_path names. Without USAGE of the schema no table in it is found.
	rights: []string{`/* pgqrs:schema.rights */
		WITH needed (name, rights, sequence) AS (
			VALUES ('pgqrs_migrations', '{SELECT}'::text[], false),
				('pgqrs_queues', '{SELECT,INSERT,UPDATE}', true),
				('pgqrs_workers', '{SELECT,INSERT,UPDATE,DELETE}', false),
				('pgqrs_messages', '{SELECT,INSERT,UPDATE,DELETE}', true),
				('pgqrs_groups', '{SELECT,UPDATE,DELETE}', false),
				('pgqrs_workflows', '{SELECT,INSERT}', true),
				('pgqrs_workflow_runs', '{SELECT,INSERT,UPDATE,DELETE}', true),
				('pgqrs_workflow_steps', '{SELECT,INSERT,UPDATE,DELETE}', true),
				('pgqrs_workflow_signals', '{SELECT,UPDATE,DELETE}', false),
				('pgqrs_schedules', '{SELECT,INSERT,UPDATE}', true),
				('pgqrs_schedule_runs', '{SELECT,INSERT,DELETE}', true)
		), tables AS (
			SELECT c.oid, c.relname::text AS name, n.rights FROM needed n JOIN pg_class c ON c.oid = to_regclass(n.name)
		)
		SELECT r.privilege || ' on ' || t.name FROM tables t CROSS JOIN unnest(t.rights) AS r (privilege)
		WHERE NOT has_table_privilege(t.oid, r.privilege)
		UNION ALL
		SELECT 'USAGE on sequence ' || c.relname FROM needed n JOIN pg_class c ON c.oid = to_regclass(n.name || '_id_seq')
		WHERE n.sequence AND CASE WHEN c.relkind = 'S' THEN NOT has_sequence_privilege(c.oid, 'USAGE') END
		UNION ALL
		SELECT 'USAGE on schema ' || n.nspname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'pgqrs' || '_messages'
		WHERE NOT has_schema_privilege(n.oid, 'USAGE') AND to_regclass('pgqrs_messages') IS NULL
			AND n.nspname = ANY (regexp_split_to_array(replace(current_setting('search_path'), '"', ''), ' *, *'))`},
	versions: `/* pgqrs:schema.versions */ SELECT version, name, oldest FROM pgqrs_migrations ORDER BY version`,
	interop: `/* pgqrs:schema.shared */
		SELECT EXISTS (SELECT 1 FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
			WHERE x.indrelid = to_regclass('pgqrs_messages') AND x.indisvalid AND i.relname = 'pgqrs_messages_consumer')
		WHERE to_regclass('_sqlx_migrations') IS NOT NULL OR EXISTS (SELECT 1 FROM pgqrs_workers WHERE go_state IS NULL)`,
	joinInterop: []string{
		`/* pgqrs:schema.share_runs */ CREATE INDEX IF NOT EXISTS pgqrs_workflow_runs_worker ON pgqrs_workflow_runs (worker_id) WHERE worker_id IS NOT NULL`,
		`/* pgqrs:schema.share_consumers */ CREATE INDEX IF NOT EXISTS pgqrs_messages_consumer ON pgqrs_messages (consumer_worker_id) WHERE consumer_worker_id IS NOT NULL`,
	},
	drop: []string{
		`/* pgqrs:schema.drop_tables */ DROP TABLE IF EXISTS pgqrs_groups, pgqrs_schedule_runs, pgqrs_schedules, pgqrs_workflow_signals, pgqrs_workflow_steps, pgqrs_workflow_runs, pgqrs_workflows, pgqrs_messages, pgqrs_workers, pgqrs_queues, pgqrs_migrations`,
		`/* pgqrs:schema.drop_function */
		DO $$
		BEGIN
			DROP FUNCTION IF EXISTS pgqrs_refuse_row();
		EXCEPTION WHEN dependent_objects_still_exist THEN NULL; -- it is that of another schema
		END
		$$`,
		`/* pgqrs:schema.drop_types */
		DO $$
		BEGIN
			IF obj_description(to_regtype('worker_status'), 'pg_type') = 'made by pgqrs' THEN
				BEGIN
					DROP TYPE worker_status;
				EXCEPTION WHEN dependent_objects_still_exist THEN NULL;
				END;
			END IF;
			IF obj_description(to_regtype('pgqrs_workflow_status'), 'pg_type') = 'made by pgqrs' THEN
				BEGIN
					DROP TYPE pgqrs_workflow_status;
				EXCEPTION WHEN dependent_objects_still_exist THEN NULL;
				END;
			END IF;
		END
		$$`,
	},
}

// A claim takes the due messages of each priority in the order of the claim's index, from the
// beginning or from a position on. It does not join a row of arguments for the position. With a
// join the scan of the index would not start at the position.
const (
	postgresClaim = `
			WITH arg AS MATERIALIZED (
				SELECT $1::bigint AS worker_id, $2::bigint * interval '1 microsecond' AS lease, $3::boolean AS alone, $4::bigint AS n, clock_timestamp() AS now
			), worker AS MATERIALIZED (
				SELECT w.queue_id, (SELECT f.id FROM pgqrs_workflows f WHERE f.name = q.queue_name) IS NOT NULL AS runs FROM arg JOIN pgqrs_workers w ON w.id = arg.worker_id JOIN pgqrs_queues q ON q.id = w.queue_id
				WHERE w.status IN ('ready', 'polling') AND q.paused_at IS NULL
			), due AS MATERIALIZED (
				SELECT m.id, band.rank, m.vt, m.crashed, m.size
				FROM (VALUES (2, -2), (1, -1), (0, 0), (-1, 1)) AS band (priority, rank)
				CROSS JOIN LATERAL (
					SELECT id, vt, consumer_worker_id IS NOT NULL OR due_at IS NOT NULL AS crashed, ` + postgresSize + ` AS size
					FROM pgqrs_messages
					WHERE queue_id = (SELECT queue_id FROM worker) AND priority = band.priority AND archived_at IS NULL AND vt <= (SELECT now FROM arg)`
	postgresClaimAfter = `
						AND (vt, id) > (CASE WHEN band.priority >= (SELECT $5::smallint) THEN (SELECT timestamptz 'epoch' + $6::bigint * interval '1 microsecond') ELSE '-infinity' END, (SELECT $7::bigint))`
	postgresClaimEnd = `
					ORDER BY vt, id
					LIMIT (SELECT n FROM arg)
					FOR UPDATE SKIP LOCKED
				) m
				LIMIT (SELECT n FROM arg)
			), crashed AS MATERIALIZED (
				SELECT rank, vt, id FROM due WHERE crashed ORDER BY rank, vt, id LIMIT 1
			), first AS MATERIALIZED (
				SELECT id FROM due ORDER BY rank, vt, id LIMIT 1
			)
			UPDATE pgqrs_messages m
			SET consumer_worker_id = arg.worker_id, vt = arg.now + arg.lease, due_at = m.vt, read_ct = LEAST(GREATEST(m.read_ct, 0), 2147483646) + 1,
				claim_ct = LEAST(m.claim_ct, 9223372036854775806) + 1, woken = false, failed_at = NULL, dequeued_at = COALESCE(m.dequeued_at, arg.now)
			FROM arg
			WHERE m.id = ANY (ARRAY(
				SELECT d.id FROM due d
				WHERE (NOT EXISTS (SELECT 1 FROM crashed c WHERE (c.rank, c.vt, c.id) <= (d.rank, d.vt, d.id))
					OR (SELECT alone FROM arg) AND d.id = (SELECT id FROM first))
					AND ((SELECT sum(size) FROM due) < ` + claimedBytes + `
						OR d.id IN (SELECT s.id FROM (SELECT id, sum(size) OVER (ORDER BY rank, vt, id) - size AS before FROM due) s WHERE s.before < ` + claimedBytes + `))))
			RETURNING ` + postgresDelivery + `, (SELECT runs FROM worker)`
)

// postgresSize is the size of a message as a claim counts it. JSON as text may be a thousand times
// longer than it is stored, because of compression and of numbers with many digits. A claim would
// take too long if it made the text of many large payloads, so it estimates theirs.
const postgresSize = `CASE WHEN pg_column_size(payload) > 2000 AND pg_column_size(payload #> '{}') > 2097152
							THEN 2 * pg_column_size(payload #> '{}') ELSE octet_length(payload::text) END + COALESCE(octet_length(headers::text), 0)
						+ COALESCE(octet_length(last_error), 0) + COALESCE(octet_length(dedup_key), 0)`

// postgresPassed reads the messages that a claim from a position on skips, by the claim's index.
const postgresPassed = `
			WITH arg AS MATERIALIZED (
				SELECT $1::bigint AS worker_id, $2::bigint AS n, $3::smallint AS priority, timestamptz 'epoch' + $4::bigint * interval '1 microsecond' AS due, $5::bigint AS id
			)
			SELECT (extract(epoch FROM GREATEST(m.vt, ` + postgresFirstTime + `)) * 1000000)::bigint, m.id
			FROM (VALUES (2), (1), (0), (-1)) AS band (priority)
			CROSS JOIN LATERAL (
				SELECT o.vt, o.id FROM pgqrs_messages o
				WHERE o.queue_id = (SELECT w.queue_id FROM pgqrs_workers w WHERE w.id = (SELECT worker_id FROM arg))
					AND o.priority = band.priority AND o.archived_at IS NULL AND (o.vt, o.id) <= ((SELECT due FROM arg), (SELECT id FROM arg))
				ORDER BY o.vt, o.id
				LIMIT (SELECT n FROM arg)
			) m
			WHERE band.priority >= (SELECT priority FROM arg)
			ORDER BY m.vt, m.id
			LIMIT (SELECT n FROM arg)`

// postgresBlocked is the vt of a blocked message.
const postgresBlocked = `timestamptz '9999-12-31 23:59:59.999+00'`

// postgresBlockedOf counts the blocked messages of a queue q, up to depthLimit.
const postgresBlockedOf = `(SELECT count(*) FROM (SELECT id FROM pgqrs_messages WHERE queue_id = q.id AND archived_at IS NULL AND parked_vt IS NOT NULL
					ORDER BY group_key, id LIMIT ` + depthLimit + `) c)`

// These are the leased or unblocked messages of a group g, and its blocked messages.
const (
	postgresGroupLive    = `pgqrs_messages m WHERE m.queue_id = g.queue_id AND m.group_key = g.group_key AND m.archived_at IS NULL AND m.parked_vt IS NULL`
	postgresGroupBlocked = `pgqrs_messages m WHERE m.queue_id = g.queue_id AND m.group_key = g.group_key AND m.archived_at IS NULL AND m.parked_vt IS NOT NULL`
)

// postgresGroups reads a list of groups with the policies of their queues.
const postgresGroups = `arg AS MATERIALIZED (SELECT $1::json AS list, clock_timestamp() AS now),
			given AS MATERIALIZED (
				SELECT q.id AS queue_id, q.queue_name, j.value ->> 1 AS group_key, ` + postgresGroupLimit + ` AS group_limit, ` + postgresGroupInterval + ` AS group_interval, q.group_burst, q.group_skip
				FROM arg CROSS JOIN json_array_elements(arg.list) AS j (value) JOIN pgqrs_queues q ON q.queue_name = j.value ->> 0
			)`

// postgresGroupLimit is how many messages of a group in a queue q may be leased at a time. An
// invalid number has the effect of none.
const postgresGroupLimit = `GREATEST(q.group_limit, 1)`

// postgresGroupInterval is the time between two messages of a group in a queue q, in microseconds.
// An invalid number is NULL.
const postgresGroupInterval = `CASE WHEN q.group_interval BETWEEN 1 AND ` + postgresLongest + ` THEN q.group_interval END`

// postgresGroupNext is the time at which the next message of a group r would be due by the rate of
// g, or NULL without a rate. The time may be much further ahead than the messages in progress
// explain, if the clock has gone back since or a message was deleted before its time. Then it is
// NULL too, and the rate starts again.
const postgresGroupNext = `CASE WHEN r.next_at NOT BETWEEN ` + postgresFirstTime + ` AND ` + postgresLastTime + ` THEN NULL WHEN extract(epoch FROM r.next_at - (SELECT now FROM arg)) <= (g.group_burst + g.group_limit::float8) * g.group_interval / 1e6 + 60 THEN r.next_at END`

// postgresGroupAside is the condition that others may go before a message m of a group g: it is not
// due, and not only because of the group's rate.
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
	dependents: `/* pgqrs:group.of */
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
			SELECT g.queue_id, q.queue_name, g.group_key, EXISTS (SELECT 1 FROM ` + postgresGroupBlocked + `) AND ` + postgresGroupLimit + ` > (
				SELECT count(*) FROM (SELECT m.id FROM ` + postgresGroupLive + `
					AND NOT (q.group_skip AND m.vt > (SELECT now FROM arg) AND m.consumer_worker_id IS NULL) ORDER BY m.id LIMIT ` + postgresGroupLimit + `) l)
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

// postgresBatchOver is the condition that no message of the batch for which m waits is unfinished.
// It does not use EXISTS, which the planner might turn into a join that reads all live messages.
// Without its ORDER BY the planner might scan in the hope of an early match.
const postgresBatchOver = `(SELECT o.id FROM pgqrs_messages o WHERE o.batch_id = m.id AND o.archived_at IS NULL ORDER BY o.archived_at LIMIT 1) IS NULL`

// postgresUnneeded is the condition that the outcome of an ended message m is not needed any more.
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
			SET vt = GREATEST(clock_timestamp(), m.parked_vt), parked_vt = NULL, headers = ` + postgresHeaders + ` || (
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

// postgresPolicyOf is the policy of a queue q as one column: the list that configure takes, without
// the name.
const postgresPolicyOf = `json_build_array(CASE WHEN octet_length(q.policy::text) > ` + listedText + ` THEN ` + listedNoPolicy + ` ELSE q.policy::text END, q.max_held, q.rate_interval, q.rate_burst,
				q.group_limit, q.group_interval, q.group_burst, q.group_skip::int, left(q.dead_letter, ` + listedName + `))::text`

// postgresLimited is the condition that the queue of a row of pgqrs_workers has a limit.
const postgresLimited = `(SELECT q.max_held IS NOT NULL OR q.rate_interval IS NOT NULL FROM pgqrs_queues q WHERE q.id = pgqrs_workers.queue_id)`

// These are used by capacity and spend for a queue's bucket. It has the time by which its next
// message is due ahead of the clock, in microseconds. A time that is much further ahead than a
// burst means that the clock has gone back since, and the bucket starts again. An invalid interval
// is NULL.
const (
	postgresAhead = `CASE WHEN q.rate_at <= arg.now + (` + postgresBucket + ` + 60000000) * interval '1 microsecond'
				THEN (extract(epoch FROM GREATEST(q.rate_at, arg.now) - arg.now) * 1000000)::bigint ELSE 0 END`
	postgresBucket   = `LEAST(GREATEST(` + postgresInterval + `::float8 * q.rate_burst, 0), ` + postgresLongest + `)::bigint`
	postgresInterval = `(CASE WHEN q.rate_interval BETWEEN 1 AND ` + postgresLongest + ` AND q.rate_burst > 0 THEN q.rate_interval END)`
	postgresLongest  = `9200000000000000` // microseconds, the most that a time.Duration holds
)

var postgresLimits = limitSQL{
	lock: `/* pgqrs:limit.lock */
		WITH patience AS MATERIALIZED (SELECT set_config('lock_timeout', '250ms', true))
		SELECT q.id FROM patience CROSS JOIN pgqrs_queues q
		WHERE q.id = (SELECT w.queue_id FROM pgqrs_workers w WHERE w.id = $1::bigint) AND (q.max_held IS NOT NULL OR q.rate_interval IS NOT NULL)
		FOR NO KEY UPDATE OF q`,
	capacity: `/* pgqrs:limit.room */
		WITH arg AS MATERIALIZED (SELECT $1::bigint AS queue_id, $2::bigint AS n, clock_timestamp() AS now),
		` + postgresHeld + `, bucket AS MATERIALIZED (
			SELECT CASE WHEN q.max_held > 0 THEN q.max_held END AS max_held, ` + postgresInterval + ` AS rate_interval, ` + postgresBucket + ` AS full_bucket, ` + postgresAhead + ` AS ahead
			FROM arg JOIN pgqrs_queues q ON q.id = arg.queue_id
		)
		SELECT LEAST((SELECT n FROM arg), b.max_held - CASE WHEN b.max_held IS NOT NULL THEN
				(SELECT count(*) FROM held WHERE queue_id = (SELECT queue_id FROM arg) AND vt > (SELECT now FROM arg)) END, (b.full_bucket - b.ahead) / b.rate_interval),
			GREATEST(0, COALESCE(b.ahead - (b.full_bucket - b.rate_interval), 0)), b.rate_interval IS NOT NULL
		FROM bucket b`,
	spend: `/* pgqrs:limit.take */
		UPDATE pgqrs_queues q SET rate_at = arg.now + (` + postgresAhead + ` + LEAST(arg.n::float8 * ` + postgresInterval + `, ` + postgresLongest + `)::bigint) * interval '1 microsecond'
		FROM (SELECT $1::bigint AS queue_id, $2::bigint AS n, clock_timestamp() AS now) arg
		WHERE q.id = arg.queue_id AND ` + postgresInterval + ` IS NOT NULL`,
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
		SELECT t.id, m.payload, arg.now, arg.now, 0, m.priority, ` + postgresHeaders + ` - '{pgqrs-group,pgqrs-batch}'::text[] || jsonb_build_object('dead-letter-queue', q.queue_name,
			'dead-letter-id', m.id::text, 'dead-letter-attempts', m.read_ct::text, 'dead-letter-error', COALESCE(m.last_error, ''))
		FROM arg JOIN pgqrs_queues t ON t.queue_name = arg.queue
		JOIN pgqrs_messages m ON m.id = ANY (ARRAY(SELECT json_array_elements_text(a.ids)::bigint FROM arg a)) JOIN pgqrs_queues q ON q.id = m.queue_id
		WHERE m.failed_at IS NOT NULL AND COALESCE(m.headers ->> 'dead-letter-queue', '') <> arg.queue
		ORDER BY m.id
		RETURNING id`,
}

// postgresScheduleRun is a run of a schedule r, with the state of its workflow's run w, or of its
// message m.
const postgresScheduleRun = postgresMicros + `r.due_at` + postgresMicrosEnd + `, ` + postgresMicros + `r.ran_at` + postgresMicrosEnd + `, r.by_hand, r.held, COALESCE(r.message_id, w.message_id), r.run_id, CASE WHEN r.run_id IS NOT NULL THEN w.status::text
	WHEN m.id IS NULL THEN NULL WHEN m.failed_at IS NOT NULL THEN 'dead' WHEN m.archived_at IS NOT NULL THEN 'archived'
	WHEN m.parked_vt IS NOT NULL THEN 'blocked' WHEN m.vt <= clock_timestamp() THEN 'ready' WHEN m.consumer_worker_id IS NULL THEN 'scheduled' ELSE 'leased' END`

// postgresTick is the next count of changes of a schedule s. After the largest number it starts
// again, since only a difference matters.
const postgresTick = `CASE WHEN s.tick_ct = 9223372036854775807 THEN 0 ELSE s.tick_ct + 1 END`

// Both are looked up one by one. LIMIT keeps the planner from a merge join, which would read all
// older rows.
const postgresScheduleRunFrom = `
		LEFT JOIN LATERAL (SELECT * FROM pgqrs_messages o WHERE o.id = r.message_id LIMIT 1) m ON true
		LEFT JOIN LATERAL (SELECT * FROM pgqrs_workflow_runs o WHERE o.id = r.run_id LIMIT 1) w ON true`

// These are the columns of schedule.named_list, and of schedule.list, which cuts them.
const (
	postgresScheduleNamed = `
		SELECT s.id, s.name, s.queue_name, s.starts_runs, s.payload, s.priority, s.dedup_key, s.headers, s.rule, s.zone,` + postgresScheduleRest + postgresScheduleFrom
	postgresScheduleList = `
		SELECT s.id, left(s.name, ` + listedName + `), left(s.queue_name, ` + listedName + `), s.starts_runs, left(s.payload::text, ` + listedText + `), s.priority, left(s.dedup_key, ` + listedName + `),
			CASE WHEN octet_length(s.headers::text) <= ` + listedHeaders + ` THEN s.headers END, left(s.rule, ` + listedError + `), left(s.zone, ` + listedName + `),` + postgresScheduleRest + `,
			octet_length(s.payload::text), COALESCE(octet_length(s.headers::text), 0) > ` + listedHeaders + postgresScheduleFrom
	postgresScheduleRest = ` s.catch_up,
			` + postgresMicros + `s.created_at` + postgresMicrosEnd + `, ` + postgresMicros + `s.updated_at` + postgresMicrosEnd + `, ` + postgresMicros + `s.paused_at` + postgresMicrosEnd + `, ` + postgresMicros + `s.next_at` + postgresMicrosEnd + `, ` + postgresScheduleRun
	postgresScheduleFrom = `
		FROM pgqrs_schedules s
			LEFT JOIN LATERAL (SELECT * FROM pgqrs_schedule_runs o WHERE o.schedule_id = s.id ORDER BY o.due_at DESC, o.id DESC LIMIT 1) r ON true` + postgresScheduleRunFrom
)

var postgresSchedules = scheduleSQL{
	put: `/* pgqrs:schedule.put */
		WITH arg AS MATERIALIZED (
			SELECT $1::text AS name, $2::text AS queue, $3::boolean AS starts_runs, $4::text::jsonb AS payload, $5::smallint AS priority, $6::text AS key,
				$7::text::jsonb AS headers, $8::text AS rule, $9::text AS zone, $10::integer AS catch_up,
				timestamptz 'epoch' + $11::bigint * interval '1 microsecond' AS next_at, clock_timestamp() AS now
		)
		INSERT INTO pgqrs_schedules AS s (name, queue_name, starts_runs, payload, priority, dedup_key, headers, rule, zone, catch_up, next_at, created_at, updated_at)
		SELECT name, queue, starts_runs, payload, priority, key, headers, rule, zone, catch_up, next_at, now, now FROM arg
		ON CONFLICT (name) DO UPDATE
		SET queue_name = excluded.queue_name, starts_runs = excluded.starts_runs, payload = excluded.payload, priority = excluded.priority,
			dedup_key = excluded.dedup_key, headers = excluded.headers, rule = excluded.rule, zone = excluded.zone, catch_up = excluded.catch_up,
			next_at = CASE WHEN (s.rule, s.zone) = (excluded.rule, excluded.zone) THEN s.next_at ELSE excluded.next_at END,
			tick_ct = ` + postgresTick + `, updated_at = excluded.updated_at
		WHERE (s.queue_name, s.starts_runs, s.payload, s.priority, s.dedup_key, s.headers, s.rule, s.zone, s.catch_up)
			IS DISTINCT FROM (excluded.queue_name, excluded.starts_runs, excluded.payload, excluded.priority, excluded.dedup_key, excluded.headers, excluded.rule, excluded.zone, excluded.catch_up)
		RETURNING s.id`,
	find: `/* pgqrs:schedule.find */
		SELECT j.value ->> 0, ` + postgresMicros + `clock_timestamp()` + postgresMicrosEnd + `, s.id, s.rule, s.zone, COALESCE(s.tick_ct, 0), ` +
		postgresMicros + `s.next_at` + postgresMicrosEnd + `, ` + postgresMicros + `s.paused_at` + postgresMicrosEnd + `, ` + postgresMicros + `s.resumed_at` + postgresMicrosEnd + `
		FROM json_array_elements($1::json) AS j (value) LEFT JOIN pgqrs_schedules s ON s.name = j.value ->> 0`,
	advance: `/* pgqrs:schedule.advance */
		WITH arg AS MATERIALIZED (SELECT $1::bigint AS id, $2::bigint AS tick_ct, timestamptz 'epoch' + $3::bigint * interval '1 microsecond' AS next_at),
		free AS MATERIALIZED (
			SELECT s.id FROM pgqrs_schedules s
			WHERE s.id = (SELECT id FROM arg) AND s.tick_ct = (SELECT tick_ct FROM arg)
			FOR NO KEY UPDATE SKIP LOCKED
		)
		UPDATE pgqrs_schedules s SET next_at = arg.next_at, tick_ct = ` + postgresTick + `
		FROM arg WHERE s.id = (SELECT id FROM free)
		RETURNING s.id`,
	record: `/* pgqrs:schedule.record */
		WITH arg AS MATERIALIZED (SELECT $1::bigint AS id, $2::json AS runs, clock_timestamp() AS now)
		INSERT INTO pgqrs_schedule_runs (schedule_id, due_at, ran_at, by_hand, held, message_id, run_id)
		SELECT arg.id, COALESCE(timestamptz 'epoch' + (j.value ->> 0)::bigint * interval '1 microsecond', arg.now), arg.now,
			(j.value ->> 1)::boolean, (j.value ->> 2)::boolean, (j.value ->> 3)::bigint, (j.value ->> 4)::bigint
		FROM arg CROSS JOIN json_array_elements(arg.runs) WITH ORDINALITY AS j (value, n)
		ORDER BY j.n
		ON CONFLICT DO NOTHING
		RETURNING ` + postgresMicros + `due_at` + postgresMicrosEnd,
	lock: `/* pgqrs:schedule.take */
		UPDATE pgqrs_schedules SET name = name WHERE name = $1
		RETURNING id, queue_name, starts_runs, payload, priority, dedup_key, headers`,
	pause: `/* pgqrs:schedule.pause */
		UPDATE pgqrs_schedules s
		SET paused_at = CASE WHEN arg.paused THEN COALESCE(s.paused_at, clock_timestamp()) END,
			resumed_at = CASE WHEN arg.paused OR s.paused_at IS NULL THEN s.resumed_at ELSE clock_timestamp() END,
			tick_ct = ` + postgresTick + `
		FROM (SELECT $1::text AS name, $2::boolean AS paused) arg WHERE s.name = arg.name
		RETURNING s.id`,
	list: `/* pgqrs:schedule.list */` + postgresScheduleList + `
		ORDER BY s.name`,
	named: `/* pgqrs:schedule.named_list */` + postgresScheduleNamed + `
		WHERE s.name = ANY (ARRAY(SELECT json_array_elements($1::json) ->> 0))
		ORDER BY s.name`,
	history: `/* pgqrs:schedule.history */
		WITH arg AS MATERIALIZED (SELECT $1::text AS name, $2::bigint AS n)
		SELECT ` + postgresScheduleRun + `
		FROM arg JOIN pgqrs_schedules s ON s.name = arg.name
			CROSS JOIN LATERAL (SELECT * FROM pgqrs_schedule_runs o WHERE o.schedule_id = s.id ORDER BY o.due_at DESC, o.id DESC LIMIT (SELECT n FROM arg)) r` + postgresScheduleRunFrom + `
		ORDER BY r.due_at DESC, r.id DESC`,
	remove: []string{
		`/* pgqrs:schedule.remove_runs */ DELETE FROM pgqrs_schedule_runs WHERE schedule_id = $1`,
		`/* pgqrs:schedule.remove_row */ DELETE FROM pgqrs_schedules WHERE id = $1`,
	},
	prune: `/* pgqrs:schedule.prune */
		WITH arg AS MATERIALIZED (SELECT $1::json AS names, $2::bigint AS stay, $3::bigint AS n)
		DELETE FROM pgqrs_schedule_runs WHERE id = ANY (ARRAY(
			SELECT r.id
			FROM arg CROSS JOIN json_array_elements(arg.names) AS j (value) JOIN pgqrs_schedules s ON s.name = j.value ->> 0
				CROSS JOIN LATERAL (SELECT o.id FROM pgqrs_schedule_runs o WHERE o.schedule_id = s.id ORDER BY o.due_at DESC, o.id DESC OFFSET arg.stay) r
			LIMIT (SELECT n FROM arg)))`,
}

// These are the columns of run.get (runColumns), and of the listings of runs, which cut texts of
// users.
const (
	postgresRun    = `r.id, w.name, r.message_id, r.status::text, r.input, r.output, r.error, r.run_key, r.parent_run_id, r.parent_step, r.warning,` + postgresRunRest
	postgresRunCut = `r.id, left(w.name, ` + listedName + `), r.message_id, r.status::text, CASE WHEN ` + postgresLargeInput + ` THEN '' ELSE left(r.input::text, ` + listedText + `) END,
	CASE WHEN ` + postgresLargeOutput + ` THEN '' ELSE left(r.output::text, ` + listedText + `) END, left(r.error::text, ` + listedError + `), left(r.run_key, ` + listedName + `),
	r.parent_run_id, left(r.parent_step, ` + listedName + `), left(r.warning, ` + listedError + `),` +
		postgresRunRest + `, COALESCE(CASE WHEN ` + postgresLargeInput + ` THEN pg_column_size(r.input #> '{}') ELSE octet_length(r.input::text) END, 0),
	COALESCE(CASE WHEN ` + postgresLargeOutput + ` THEN pg_column_size(r.output #> '{}') ELSE octet_length(r.output::text) END, 0)`
	// As with postgresLarge, no text is made of a large input or output.
	postgresLargeInput  = `pg_column_size(r.input) > 2000 AND pg_column_size(r.input #> '{}') > ` + listedWholly
	postgresLargeOutput = `pg_column_size(r.output) > 2000 AND pg_column_size(r.output #> '{}') > ` + listedWholly
	postgresRunRest     = `
	` + postgresMicros + `r.created_at` + postgresMicrosEnd + `, ` + postgresMicros + `r.started_at` + postgresMicrosEnd + `, ` + postgresMicros + `r.paused_at` + postgresMicrosEnd + `, ` +
		postgresMicros + `r.completed_at` + postgresMicrosEnd + `, ` + postgresMicros + `m.vt` + postgresMicrosEnd + `, COALESCE(m.read_ct, 0)`
)

// These are the columns of step.get (stepColumns), of step.load, which leaves out large outputs,
// and of step.list, which cuts them.
const (
	postgresStepLoad = `s.step_name, s.status::text, CASE WHEN pg_column_size(s.output #> '{}') <= ` + loadedOutput + ` THEN s.output END, s.error, ` + postgresStepRest +
		`, COALESCE(pg_column_size(s.output #> '{}') > ` + loadedOutput + `, false)`
	postgresStep    = `s.step_name, s.status::text, s.output, s.error, ` + postgresStepRest
	postgresStepCut = `left(s.step_name, ` + listedName + `), s.status::text, CASE WHEN ` + postgresLargeStep + ` THEN '' ELSE left(s.output::text, ` + listedText + `) END, left(s.error::text, ` + listedError + `), ` + postgresStepRest + `,
	COALESCE(CASE WHEN ` + postgresLargeStep + ` THEN pg_column_size(s.output #> '{}') ELSE octet_length(s.output::text) END, 0)`
	postgresLargeStep = `pg_column_size(s.output) > 2000 AND pg_column_size(s.output #> '{}') > ` + listedWholly
	postgresStepRest  = `s.retry_count,
	(extract(epoch FROM CASE WHEN s.retry_at < ` + postgresFirstTime + ` THEN ` + postgresFirstTime + ` WHEN s.retry_at > ` + postgresLastTime + ` THEN ` + postgresLastTime + ` ELSE s.retry_at END - clock_timestamp()) * 1000000)::bigint, ` +
		postgresMicros + `COALESCE(s.started_at, s.created_at)` + postgresMicrosEnd + `, ` + postgresMicros + `s.completed_at` + postgresMicrosEnd + `, s.last_retry_at IS NOT NULL`
)

// postgresHolding is the message of a run, if the lease that was bound as arg is valid. Without
// postgresLive the planner would search all messages that the worker has leased since the latest
// vacuum. LIMIT makes the planner look messages up by id, one after the other. For several messages
// it would otherwise read the whole table, until that has some ten thousand rows.
const postgresHolding = ` CROSS JOIN LATERAL (
			SELECT m.id FROM pgqrs_messages m
			WHERE m.id = arg.message_id AND m.consumer_worker_id = arg.worker_id AND m.claim_ct = arg.claim_ct AND ` + postgresLive + ` LIMIT 1) m`

// postgresOpenStep is the condition that a step has not ended.
const postgresOpenStep = `pgqrs_workflow_steps.status <> 'SUCCESS' AND NOT (pgqrs_workflow_steps.status = 'ERROR' AND pgqrs_workflow_steps.retry_at IS NULL)`

const postgresRunOf = `(SELECT r.status::text FROM pgqrs_workflow_runs r WHERE r.id = run_id)`

// postgresSave writes the steps of arg, unless a lease is lost or a step has ended.
const postgresSave = `
		INSERT INTO pgqrs_workflow_steps (run_id, step_name, status, output, error, retry_count, retry_at, created_at, updated_at, started_at, completed_at)
		SELECT arg.run_id, arg.name, arg.status::pgqrs_workflow_status, arg.output::jsonb, arg.error::jsonb, arg.retries, arg.now + arg.delay,
			arg.now, arg.now, arg.now - arg.took, CASE WHEN arg.status IN ('SUCCESS', 'ERROR') AND arg.delay IS NULL THEN arg.now END
		FROM arg` + postgresHolding + `
		ON CONFLICT (run_id, step_name) DO UPDATE
		SET status = excluded.status, output = excluded.output, error = excluded.error, retry_count = excluded.retry_count, retry_at = excluded.retry_at,
			updated_at = excluded.updated_at, started_at = COALESCE(pgqrs_workflow_steps.started_at, excluded.started_at), completed_at = excluded.completed_at
		WHERE ` + postgresOpenStep

// These are the common parts of run.list and run.child_list: their arguments, and the runs that
// they select. A condition that may be empty is a CASE, which the planner takes for likely.
// Otherwise it would read and sort all runs for a page of them. For the same reason run.child_list
// sorts by an expression, and run.status_list bounds the status instead of comparing it. The
// primary key is not the way to find children, or the one run in a million that has failed.
const (
	postgresListing = `$1::text AS workflow, $2::text AS status, timestamptz 'epoch' + $3::bigint * interval '1 microsecond' AS since,
				timestamptz 'epoch' + $4::bigint * interval '1 microsecond' AS until, $5::bigint AS before`
	postgresListed = `
		SELECT ` + postgresRunCut + `
		FROM pgqrs_workflow_runs r JOIN pgqrs_workflows w ON w.id = r.workflow_id LEFT JOIN pgqrs_messages m ON m.id = r.message_id
		WHERE r.id = ANY (ARRAY(
			SELECT o.id FROM pgqrs_workflow_runs o
			WHERE o.id < (SELECT before FROM arg)
				AND CASE WHEN (SELECT workflow FROM arg) IS NULL THEN true ELSE o.workflow_id = (SELECT f.id FROM arg JOIN pgqrs_workflows f ON f.name = arg.workflow) END
				AND CASE WHEN (SELECT status FROM arg) IS NULL THEN true ELSE o.status = (SELECT status FROM arg)::pgqrs_workflow_status END
				AND CASE WHEN (SELECT since FROM arg) IS NULL THEN true ELSE o.created_at >= (SELECT since FROM arg) END
				AND CASE WHEN (SELECT until FROM arg) IS NULL THEN true ELSE o.created_at < (SELECT until FROM arg) END`
)

var postgresWorkflow = workflowSQL{
	make: `/* pgqrs:workflow.make */
		INSERT INTO pgqrs_workflows (name, queue_id) SELECT q.queue_name, q.id FROM pgqrs_queues q WHERE q.queue_name = $1 ON CONFLICT (name) DO NOTHING`,
	insert: `/* pgqrs:run.insert */
		WITH arg AS MATERIALIZED (SELECT $1::text AS workflow, $2::json AS items)
		INSERT INTO pgqrs_workflow_runs (workflow_id, message_id, status, input, run_key, parent_run_id, parent_step, created_at, updated_at)
		SELECT w.id, m.id, 'QUEUED', m.payload, j.value ->> 1, (j.value ->> 2)::bigint, j.value ->> 3, clock_timestamp(), clock_timestamp()
		FROM arg JOIN pgqrs_workflows w ON w.name = arg.workflow
			CROSS JOIN json_array_elements(arg.items) WITH ORDINALITY AS j (value, n)
			JOIN pgqrs_messages m ON m.id = (j.value ->> 0)::bigint
		ORDER BY j.n
		ON CONFLICT DO NOTHING
		RETURNING id, message_id`,
	start: []string{`/* pgqrs:run.start */
		WITH arg AS MATERIALIZED (
			SELECT w.id AS workflow_id, q.id AS queue_id, given.payload::jsonb AS payload, given.priority, given.headers::jsonb AS headers, given.now,
				CASE WHEN given.at IS NULL THEN given.now + given.delay ELSE GREATEST(given.now, given.at) END AS vt
			FROM (
				SELECT $1::text AS name, $2::text AS payload, $3::bigint * interval '1 microsecond' AS delay,
					timestamptz 'epoch' + $4::bigint * interval '1 microsecond' AS at, $5::smallint AS priority, $6::text AS headers, clock_timestamp() AS now
			) given JOIN pgqrs_queues q ON q.queue_name = given.name JOIN pgqrs_workflows w ON w.name = given.name
		),
		message AS (
			INSERT INTO pgqrs_messages (queue_id, payload, vt, enqueued_at, read_ct, priority, headers)
			SELECT queue_id, payload, vt, now, 0, priority, headers FROM arg
			RETURNING id
		)
		INSERT INTO pgqrs_workflow_runs (workflow_id, message_id, status, input, created_at, updated_at)
		SELECT arg.workflow_id, message.id, 'QUEUED', arg.payload, arg.now, arg.now FROM arg CROSS JOIN message
		RETURNING id, message_id`},
	keyed: `/* pgqrs:run.keyed */
		WITH arg AS MATERIALIZED (SELECT $1::text AS workflow, $2::json AS keys)
		SELECT r.run_key, r.id FROM arg JOIN pgqrs_workflows w ON w.name = arg.workflow JOIN pgqrs_workflow_runs r ON r.workflow_id = w.id
		WHERE r.run_key IN (SELECT json_array_elements(arg.keys) ->> 0)`,
	adopt: `/* pgqrs:run.take_back */
		DELETE FROM pgqrs_messages m
		WHERE m.id IN (SELECT json_array_elements_text($1::json)::bigint) AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs r WHERE r.message_id = m.id)`,
	begin: `/* pgqrs:run.begin */
		WITH arg AS MATERIALIZED (SELECT $1::bigint AS message_id, $2::bigint AS worker_id, $3::bigint AS claim_ct)
		UPDATE pgqrs_workflow_runs r
		SET status = CASE WHEN r.status = 'QUEUED' OR r.status = 'PAUSED' AND r.error IS NOT NULL THEN 'RUNNING' ELSE r.status END,
			execution_ct = CASE WHEN r.status = 'QUEUED' AND r.started_at IS NULL AND r.execution_ct = 0 THEN 1 ELSE LEAST(r.execution_ct, 9223372036854775805) + 2 END,
			started_at = CASE WHEN r.status = 'QUEUED' THEN COALESCE(r.started_at, clock_timestamp()) ELSE r.started_at END,
			error = CASE WHEN r.status = 'PAUSED' THEN NULL ELSE r.error END,
			updated_at = clock_timestamp()
		FROM arg` + postgresHolding + `
		WHERE r.message_id = arg.message_id
		RETURNING r.id, r.status::text, r.execution_ct = 1 AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_steps s WHERE s.run_id = r.id)`,
	exists: `/* pgqrs:run.exists */ SELECT id FROM pgqrs_workflow_runs WHERE message_id = $1`,
	finish: `/* pgqrs:run.finish */
		WITH arg AS MATERIALIZED (SELECT $1::bigint AS id, $2::text AS status, $3::text AS output, $4::text AS error)
		UPDATE pgqrs_workflow_runs r
		SET status = CASE WHEN r.status = 'CANCELLING' THEN 'CANCELLED' ELSE arg.status::pgqrs_workflow_status END,
			output = CASE WHEN r.status = 'CANCELLING' THEN NULL ELSE arg.output::jsonb END,
			error = CASE WHEN r.status = 'CANCELLING' THEN NULL ELSE arg.error::jsonb END,
			completed_at = clock_timestamp(), updated_at = clock_timestamp()
		FROM arg WHERE r.id = arg.id AND r.status IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING')
		RETURNING r.status::text, r.parent_run_id`,
	// The run is locked before its message, as by run.finish and message.ack in one transaction.
	end: []string{`/* pgqrs:run.end */
		WITH arg AS MATERIALIZED (
			SELECT $1::bigint AS id, $2::bigint AS message_id, $3::bigint AS worker_id, $4::bigint AS claim_ct, $5::text AS status, $6::text AS output, $7::text AS error
		),
		ending AS MATERIALIZED (
			SELECT r.id FROM pgqrs_workflow_runs r WHERE r.id = (SELECT id FROM arg) AND r.status = 'RUNNING' AND r.parent_run_id IS NULL FOR NO KEY UPDATE
		),
		acked AS (
			UPDATE pgqrs_messages m SET archived_at = clock_timestamp(), due_at = NULL
			FROM ending CROSS JOIN arg
			WHERE m.id = arg.message_id AND m.consumer_worker_id = arg.worker_id AND m.claim_ct = arg.claim_ct AND ` + postgresLive + `
			RETURNING m.id
		)
		UPDATE pgqrs_workflow_runs r
		SET status = arg.status::pgqrs_workflow_status, output = arg.output::jsonb, error = arg.error::jsonb, completed_at = clock_timestamp(), updated_at = clock_timestamp()
		FROM acked CROSS JOIN arg WHERE r.id = arg.id
		RETURNING r.status::text`},
	cancel: `/* pgqrs:run.cancel */
		UPDATE pgqrs_workflow_runs SET status = 'CANCELLING', updated_at = clock_timestamp()
		WHERE id IN (SELECT json_array_elements_text($1::json)::bigint) AND status IN ('QUEUED', 'RUNNING', 'PAUSED')
		RETURNING id`,
	unstartedArchive: `/* pgqrs:run.unstarted_archive */
		UPDATE pgqrs_messages m SET archived_at = clock_timestamp(), due_at = NULL, vt = COALESCE(m.parked_vt, m.vt), parked_vt = NULL
		FROM pgqrs_workflow_runs r JOIN pgqrs_workflows w ON w.id = r.workflow_id
		WHERE r.id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint)) AND r.status = 'CANCELLING' AND m.id = r.message_id
			AND ` + postgresLive + ` AND (m.consumer_worker_id IS NULL OR m.vt <= clock_timestamp())
			AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_steps s WHERE s.run_id = r.id)
		RETURNING r.id, w.name, m.group_key, m.batch_id`,
	unstartedEnd: `/* pgqrs:run.unstarted_end */
		UPDATE pgqrs_workflow_runs SET status = 'CANCELLED', output = NULL, error = NULL, completed_at = clock_timestamp(), updated_at = clock_timestamp()
		WHERE id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint)) AND status = 'CANCELLING'
		RETURNING id, parent_run_id`,
	pause: `/* pgqrs:run.pause */
		UPDATE pgqrs_workflow_runs SET status = 'PAUSED', paused_at = clock_timestamp(), updated_at = clock_timestamp(), error = NULL
		WHERE id = $1 AND status IN ('QUEUED', 'RUNNING')
		RETURNING id`,
	resume: `/* pgqrs:run.resume */
		UPDATE pgqrs_workflow_runs SET status = CASE WHEN started_at IS NULL THEN 'QUEUED' ELSE 'RUNNING' END::pgqrs_workflow_status, paused_at = NULL, updated_at = clock_timestamp()
		WHERE id = $1 AND status = 'PAUSED'
		RETURNING id`,
	retry: []string{
		`/* pgqrs:run.clear_failed */
		UPDATE pgqrs_workflow_steps s
		SET status = 'QUEUED', output = NULL, error = NULL, retry_count = 0, retry_at = NULL, started_at = NULL, completed_at = NULL,
			last_retry_at = clock_timestamp(), updated_at = clock_timestamp()
		FROM pgqrs_workflow_runs r
		WHERE r.id = $1 AND r.status = 'ERROR' AND s.run_id = r.id AND s.status <> 'SUCCESS' AND s.output IS NULL
			AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs c WHERE c.parent_run_id = s.run_id AND c.parent_step = s.step_name)`,
		`/* pgqrs:run.retry */
		UPDATE pgqrs_workflow_runs SET status = 'RUNNING', error = NULL, completed_at = NULL, updated_at = clock_timestamp()
		WHERE id = $1 AND status = 'ERROR'
		RETURNING message_id`,
	},
	copySteps: []string{`/* pgqrs:run.copy_steps */
		WITH arg AS MATERIALIZED (SELECT $1::bigint AS target, $2::bigint AS source, $3::text AS step)
		INSERT INTO pgqrs_workflow_steps (run_id, step_name, status, output, error, created_at, updated_at, started_at, completed_at, retry_count, last_retry_at)
		SELECT arg.target, s.step_name, s.status, s.output, s.error, s.created_at, s.updated_at, s.started_at, s.completed_at, s.retry_count, s.last_retry_at
		FROM arg JOIN pgqrs_workflow_steps s ON s.run_id = arg.source
		WHERE s.id < (SELECT o.id FROM pgqrs_workflow_steps o WHERE o.run_id = arg.source AND o.step_name = arg.step)
			AND (s.status = 'SUCCESS' OR s.status = 'ERROR' AND s.retry_at IS NULL)
		ORDER BY s.id`,
		`/* pgqrs:run.mark_copied */ UPDATE pgqrs_workflow_runs SET execution_ct = 2 WHERE id = $1`},
	join: []string{
		`/* pgqrs:run.lock_parent */
		UPDATE pgqrs_messages SET woken = woken
		WHERE id = (SELECT p.message_id FROM pgqrs_workflow_runs r JOIN pgqrs_workflow_runs p ON p.id = r.parent_run_id WHERE r.id = $1)`,
		`/* pgqrs:run.join_parent */
		UPDATE pgqrs_messages m
		SET woken = true, vt = CASE WHEN m.consumer_worker_id IS NULL AND m.parked_vt IS NULL THEN LEAST(m.vt, clock_timestamp()) ELSE m.vt END,
			parked_vt = CASE WHEN m.parked_vt IS NOT NULL THEN LEAST(m.parked_vt, clock_timestamp()) END
		FROM pgqrs_workflow_runs r JOIN pgqrs_workflow_runs p ON p.id = r.parent_run_id JOIN pgqrs_workflows w ON w.id = p.workflow_id
		WHERE r.id = $1 AND m.id = p.message_id AND m.archived_at IS NULL
			AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs o WHERE o.parent_run_id = r.parent_run_id AND o.parent_step = r.parent_step
				AND o.status IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING'))
		RETURNING p.id, w.name`,
	},
	joinShared: `/* pgqrs:run.shared_join */
		WITH arg AS MATERIALIZED (SELECT $1::json AS queues, clock_timestamp() AS now),
		waiting AS MATERIALIZED (
			SELECT o.id AS message_id, p.id AS run_id, q.queue_name, arg.now
			FROM arg CROSS JOIN LATERAL json_array_elements_text(arg.queues) AS j (name) JOIN pgqrs_queues q ON q.queue_name = j.name
				CROSS JOIN (VALUES (2), (1), (0), (-1)) AS band (priority)
				CROSS JOIN LATERAL (
					SELECT id FROM pgqrs_messages
					WHERE queue_id = q.id AND priority = band.priority AND archived_at IS NULL AND parked_vt IS NULL AND vt > arg.now + interval '50 years'
					ORDER BY vt, id
				) o
				JOIN pgqrs_workflow_runs p ON p.message_id = o.id
			WHERE p.status = 'RUNNING' AND EXISTS (
				SELECT 1 FROM pgqrs_workflow_steps s WHERE s.run_id = p.id AND s.status = 'PAUSED'
					AND (s.output IS NOT NULL OR EXISTS (SELECT 1 FROM pgqrs_workflow_runs c WHERE c.parent_run_id = p.id AND c.parent_step = s.step_name))
					AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs c WHERE c.parent_run_id = p.id AND c.parent_step = s.step_name
						AND c.status IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING')))
		)
		UPDATE pgqrs_messages m SET woken = true, vt = waiting.now
		FROM waiting WHERE m.id = waiting.message_id AND m.consumer_worker_id IS NULL AND m.archived_at IS NULL
		RETURNING waiting.run_id, waiting.queue_name`,
	wake: `/* pgqrs:run.wake */
		UPDATE pgqrs_messages m
		SET woken = true, vt = CASE WHEN m.consumer_worker_id IS NULL AND m.parked_vt IS NULL THEN LEAST(m.vt, clock_timestamp()) ELSE m.vt END,
			parked_vt = CASE WHEN m.parked_vt IS NOT NULL THEN LEAST(m.parked_vt, clock_timestamp()) END
		FROM pgqrs_workflow_runs r JOIN pgqrs_workflows w ON w.id = r.workflow_id
		WHERE r.id IN (SELECT json_array_elements_text($1::json)::bigint) AND m.id = r.message_id AND m.archived_at IS NULL
		RETURNING r.id, w.name`,
	interrupted: `/* pgqrs:run.interrupted */
		SELECT message_id FROM pgqrs_workflow_runs
		WHERE message_id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint)) AND status = 'CANCELLING'`,
	ofMessages: `/* pgqrs:run.of_messages */
		SELECT message_id, id FROM pgqrs_workflow_runs
		WHERE message_id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint))`,
	stranded: `/* pgqrs:run.stranded */
		WITH arg AS MATERIALIZED (
			SELECT $1::text AS workflow, $2::text AS status, $3::bigint AS after, clock_timestamp() - $4::bigint * interval '1 microsecond' AS until, $5::bigint AS n
		), page AS MATERIALIZED (
			SELECT i.id, i.message_id FROM pgqrs_workflow_runs i
			WHERE i.workflow_id = (SELECT f.id FROM arg JOIN pgqrs_workflows f ON f.name = arg.workflow)
				AND i.status <= (SELECT status FROM arg)::pgqrs_workflow_status AND (i.status, i.id) > ((SELECT status FROM arg)::pgqrs_workflow_status, (SELECT after FROM arg))
			ORDER BY i.status, i.id
			LIMIT (SELECT n FROM arg)
		)
		SELECT page.id, page.message_id, CASE WHEN m.id IS NULL THEN 'gone'
				WHEN m.queue_id <> (SELECT q.id FROM arg JOIN pgqrs_queues q ON q.queue_name = arg.workflow) THEN 'elsewhere' WHEN m.failed_at < arg.until THEN 'dead'
				WHEN m.failed_at IS NULL AND m.archived_at < arg.until THEN 'archived' ELSE '' END, left(m.last_error, ` + listedText + `)
		FROM arg CROSS JOIN page LEFT JOIN LATERAL (
			SELECT o.id, o.queue_id, o.archived_at, o.failed_at, o.last_error FROM pgqrs_messages o WHERE o.id = page.message_id LIMIT 1) m ON true
		ORDER BY page.id`,
	children: `/* pgqrs:run.children */
		SELECT id FROM pgqrs_workflow_runs
		WHERE parent_run_id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint)) AND status IN ('QUEUED', 'RUNNING', 'PAUSED')`,
	results: `/* pgqrs:run.results */
		WITH arg AS MATERIALIZED (SELECT $1::bigint AS run_id, $2::text AS step)
		SELECT r.id, w.name, r.status::text, r.output, r.error
		FROM arg JOIN pgqrs_workflow_runs r ON r.parent_run_id = arg.run_id AND r.parent_step = arg.step JOIN pgqrs_workflows w ON w.id = r.workflow_id
		ORDER BY r.id`,
	get: `/* pgqrs:run.get */
		SELECT ` + postgresRun + `
		FROM pgqrs_workflow_runs r LEFT JOIN pgqrs_workflows w ON w.id = r.workflow_id LEFT JOIN pgqrs_messages m ON m.id = r.message_id
		WHERE r.id = $1`,
	polled: `/* pgqrs:run.polled */
		SELECT r.id, w.name, r.status::text, r.output, r.error
		FROM pgqrs_workflow_runs r LEFT JOIN pgqrs_workflows w ON w.id = r.workflow_id
		WHERE r.id = ANY (ARRAY(SELECT json_array_elements_text($1::json)::bigint))`,
	list: `/* pgqrs:run.list */
		WITH arg AS MATERIALIZED (SELECT ` + postgresListing + `)` + postgresListed + `
			ORDER BY o.id DESC
			LIMIT $6::bigint))
		ORDER BY r.id DESC`,
	statusList: `/* pgqrs:run.status_list */
		WITH arg AS MATERIALIZED (SELECT ` + postgresListing + `, $6::bigint AS n)
		SELECT ` + postgresRunCut + `
		FROM pgqrs_workflow_runs r JOIN pgqrs_workflows w ON w.id = r.workflow_id LEFT JOIN pgqrs_messages m ON m.id = r.message_id
		WHERE r.id = ANY (ARRAY(
			SELECT o.id
			FROM arg JOIN pgqrs_workflows f ON arg.workflow IS NULL OR f.name = arg.workflow
				CROSS JOIN LATERAL (
					SELECT i.id FROM pgqrs_workflow_runs i
					WHERE i.workflow_id = f.id AND i.status >= arg.status::pgqrs_workflow_status AND (i.status, i.id) < (arg.status::pgqrs_workflow_status, arg.before)
						AND CASE WHEN arg.since IS NULL THEN true ELSE i.created_at >= arg.since END
						AND CASE WHEN arg.until IS NULL THEN true ELSE i.created_at < arg.until END
					ORDER BY i.status DESC, i.id DESC
					LIMIT (SELECT n FROM arg)
				) o
			ORDER BY o.id DESC
			LIMIT (SELECT n FROM arg)))
		ORDER BY r.id DESC`,
	childList: `/* pgqrs:run.child_list */
		WITH arg AS MATERIALIZED (SELECT ` + postgresListing + `, $6::bigint AS parent)` + postgresListed + `
				AND o.parent_run_id = (SELECT parent FROM arg)
			ORDER BY o.id + 0 DESC
			LIMIT $7::bigint))
		ORDER BY r.id DESC`,
	warn: `/* pgqrs:run.warn */
		UPDATE pgqrs_workflow_runs SET warning = a.text FROM (SELECT $1::bigint AS id, $2::text AS text) a WHERE pgqrs_workflow_runs.id = a.id`,
	expired: `/* pgqrs:run.expired */
		WITH arg AS MATERIALIZED (
			SELECT q.id AS queue_id, clock_timestamp() - (j.value ->> 1)::bigint * interval '1 microsecond' AS until
			FROM json_array_elements($1::json) AS j (value) JOIN pgqrs_queues q ON q.queue_name = j.value ->> 0
		)
		SELECT old.id FROM arg CROSS JOIN LATERAL (
			SELECT m.id FROM pgqrs_messages m
			WHERE m.queue_id = arg.queue_id AND m.archived_at IS NOT NULL AND m.failed_at IS NULL AND m.archived_at < arg.until
				AND EXISTS (SELECT 1 FROM pgqrs_workflow_runs o WHERE o.message_id = m.id)
				AND ` + postgresUnneeded + `
			ORDER BY m.archived_at, m.id
		) old
		LIMIT $2::bigint`,
}

var postgresSteps = stepSQL{
	load: `/* pgqrs:step.load */ SELECT ` + postgresStepLoad + ` FROM pgqrs_workflow_steps s WHERE s.run_id = $1 ORDER BY s.id`,
	list: `/* pgqrs:step.list */ SELECT ` + postgresStepCut + ` FROM pgqrs_workflow_steps s WHERE s.run_id = $1 ORDER BY s.id`,
	get: `/* pgqrs:step.get */
		SELECT ` + postgresStep + ` FROM (SELECT $1::bigint AS run_id, $2::text AS name) arg
		JOIN pgqrs_workflow_steps s ON s.run_id = arg.run_id AND s.step_name = arg.name`,
	save: []string{`/* pgqrs:step.save */
		WITH arg AS MATERIALIZED (
			SELECT $1::bigint AS run_id, $2::text AS name, $3::bigint AS message_id, $4::bigint AS worker_id, $5::bigint AS claim_ct,
				$6::text AS status, $7::text AS output, $8::text AS error, $9::int AS retries, $10::bigint * interval '1 microsecond' AS delay,
				$11::bigint * interval '1 microsecond' AS took, clock_timestamp() AS now
		)` + postgresSave + `
		RETURNING ` + postgresRunOf},
	saveBatch: []string{`/* pgqrs:step.batch_save */
		WITH arg AS MATERIALIZED (
			SELECT (j.value ->> 0)::bigint AS run_id, j.value ->> 1 AS name, (j.value ->> 2)::bigint AS message_id, (j.value ->> 3)::bigint AS worker_id,
				(j.value ->> 4)::bigint AS claim_ct, j.value ->> 5 AS status, j.value ->> 6 AS output, j.value ->> 7 AS error, (j.value ->> 8)::int AS retries,
				(j.value ->> 9)::bigint * interval '1 microsecond' AS delay, (j.value ->> 10)::bigint * interval '1 microsecond' AS took, clock_timestamp() AS now
			FROM json_array_elements($1::json) AS j (value)
		)` + postgresSave + `
		RETURNING run_id, step_name, ` + postgresRunOf},
	open: []string{`/* pgqrs:step.open */
		WITH arg AS MATERIALIZED (SELECT $1::bigint AS run_id, $2::text AS name, $3::bigint AS message_id, $4::bigint AS worker_id, $5::bigint AS claim_ct, clock_timestamp() AS now)
		INSERT INTO pgqrs_workflow_steps (run_id, step_name, status, created_at, updated_at, started_at)
		SELECT arg.run_id, arg.name, 'RUNNING', arg.now, arg.now, arg.now
		FROM arg` + postgresHolding + `
		ON CONFLICT (run_id, step_name) DO UPDATE
		SET status = excluded.status, updated_at = excluded.updated_at, started_at = COALESCE(pgqrs_workflow_steps.started_at, excluded.started_at)
		WHERE ` + postgresOpenStep + `
		RETURNING ` + postgresRunOf},
	close: `/* pgqrs:step.close */
		WITH arg AS MATERIALIZED (
			SELECT $1::bigint AS run_id, $2::text AS name, $3::bigint AS message_id, $4::bigint AS worker_id, $5::bigint AS claim_ct, $6::text AS output, clock_timestamp() AS now
		)
		UPDATE pgqrs_workflow_steps s
		SET status = 'SUCCESS', output = arg.output::jsonb, error = NULL, retry_at = NULL, updated_at = arg.now, completed_at = arg.now
		FROM arg` + postgresHolding + `
		WHERE s.run_id = arg.run_id AND s.step_name = arg.name AND s.status = 'RUNNING'
		RETURNING (SELECT r.status::text FROM pgqrs_workflow_runs r WHERE r.id = s.run_id)`,
}

var postgresSignals = signalSQL{
	insert: `/* pgqrs:signal.insert */ INSERT INTO pgqrs_workflow_signals (run_id, name, payload, created_at) VALUES ($1::bigint, $2::text, $3::text::jsonb, clock_timestamp())`,
	take: `/* pgqrs:signal.take */
		WITH arg AS MATERIALIZED (SELECT $1::bigint AS run_id, $2::text AS name, $3::text AS step)
		UPDATE pgqrs_workflow_signals s SET step_name = arg.step
		FROM arg
		WHERE s.id = (SELECT o.id FROM pgqrs_workflow_signals o WHERE o.run_id = arg.run_id AND o.name = arg.name AND o.step_name IS NULL ORDER BY o.id LIMIT 1)
		RETURNING s.payload`,
	takeFirst: `/* pgqrs:signal.first */
		WITH arg AS MATERIALIZED (SELECT $1::bigint AS run_id, $2::text AS step, $3::json AS names)
		UPDATE pgqrs_workflow_signals s SET step_name = arg.step
		FROM arg
		WHERE s.id = (
			SELECT f.id FROM json_array_elements(arg.names) AS j (value) CROSS JOIN LATERAL (
				SELECT o.id FROM pgqrs_workflow_signals o WHERE o.run_id = arg.run_id AND o.name = j.value ->> 0 AND o.step_name IS NULL ORDER BY o.id LIMIT 1
			) f
			ORDER BY f.id
			LIMIT 1)
		RETURNING s.name, s.payload`,
}
