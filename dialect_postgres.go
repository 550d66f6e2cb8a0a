package pgqrs

import "database/sql"

// postgresMicros and postgresMicrosEnd enclose a time and select it as microseconds since 1970.
// A driver that reads times as text fails under some settings of DateStyle, and a statement that
// has committed must not fail on its answer. A time outside of the years 1 to 9999, as an infinite
// one, is NULL: it would overflow, or Go could not write it as JSON.
const (
	postgresMicros    = `(date_part('epoch', NULLIF(NULLIF(LEAST(GREATEST(`
	postgresMicrosEnd = `, ` + postgresFirstTime + `), ` + postgresLastTime + `), ` + postgresFirstTime + `), ` + postgresLastTime + `)) * 1000000)::bigint`
	postgresFirstTime = `timestamptz '0001-01-01 00:00:00+00'`
	postgresLastTime  = `timestamptz '9999-12-31 23:59:59.999999+00'`
)

// postgresAge and postgresAgeEnd enclose a time and select how long ago the earliest one is, in
// microseconds. What is infinitely long ago has no age, and a time.Duration has its limits.
const (
	postgresAge    = `(extract(epoch FROM (SELECT now FROM arg) - min(GREATEST(`
	postgresAgeEnd = `, timestamptz 'epoch'))) * 1000000)::bigint`
)

// What a claim returns (deliveryColumns). Each dialect spells the columns so
// that scanDelivery reads them alike.
const (
	postgresDelivery = postgresMessage + `, ` + postgresMicros + `m.vt` + postgresMicrosEnd
	postgresMessage  = `m.id, m.payload, m.priority, m.read_ct, m.claim_ct, m.dedup_key, m.headers, m.last_error, ` +
		postgresMicros + `m.enqueued_at` + postgresMicrosEnd + `, ` + postgresMicros + `m.due_at` + postgresMicrosEnd
)

// What a listing returns (infoColumns): a delivery and where it stands. One
// more column follows, the time that orders the listing, as text for its cursor.
const (
	postgresInfo = `m.id, left(m.payload::text, ` + listedText + `), m.priority, m.read_ct, m.claim_ct, m.dedup_key,
	CASE WHEN octet_length(m.headers::text) <= ` + listedHeaders + ` THEN m.headers END, left(m.last_error, ` + listedError + `), ` + postgresStanding
	// postgresSizes are the last columns of a listing.
	postgresSizes = `, octet_length(m.payload::text), COALESCE(octet_length(m.headers::text), 0) > ` + listedHeaders
	// postgresWhole is postgresInfo with nothing cut.
	postgresWhole    = `m.id, m.payload, m.priority, m.read_ct, m.claim_ct, m.dedup_key, m.headers, m.last_error, ` + postgresStanding
	postgresStanding = postgresMicros + `m.enqueued_at` + postgresMicrosEnd + `, ` + postgresMicros + `m.due_at` + postgresMicrosEnd + `, ` +
		postgresMicros + `COALESCE(m.parked_vt, m.vt)` + postgresMicrosEnd + `, q.queue_name, m.consumer_worker_id, ` +
		postgresMicros + `m.archived_at` + postgresMicrosEnd + `, ` + postgresMicros + `m.failed_at` + postgresMicrosEnd + `,
	CASE WHEN m.failed_at IS NOT NULL THEN 'dead' WHEN m.archived_at IS NOT NULL THEN 'archived'
		WHEN m.parked_vt IS NOT NULL THEN 'blocked' WHEN m.vt <= clock_timestamp() THEN 'ready' WHEN m.consumer_worker_id IS NULL THEN 'scheduled' ELSE 'leased' END`
)

// postgresAheadRank is the order of message.ahead.
const postgresAheadRank = `CASE WHEN o.parked_vt IS NOT NULL THEN 3 WHEN o.vt <= clock_timestamp() THEN 2 WHEN o.consumer_worker_id IS NULL THEN 1 ELSE 0 END AS rank`

// The planner must come to the same index whether or not the tables were
// analyzed, and when it plans for any arguments. What makes it: a LATERAL or
// scalar query ordered as the index is and limited, rather than EXISTS or a
// join, which it may turn into a scan of everything.

// postgresHeld reads the few messages that have an owner. The range of owners
// excludes nobody; it makes pgqrs_messages_held the index to use, and it stands
// alone, so that no other condition can speak for another index.
const postgresHeld = `held AS MATERIALIZED (
				SELECT id, queue_id, vt FROM pgqrs_messages
				WHERE consumer_worker_id BETWEEN (SELECT 0) AND (SELECT 9223372036854775807) AND archived_at IS NULL
			)`

// Listings walk one state in an order that an index has, from a cursor on. The
// live ones merge the four priorities, the ended ones go from new to old.
const (
	postgresListArg = `
		WITH arg AS MATERIALIZED (
			SELECT $1::text AS queue, $2::text::timestamptz AS at, $3::bigint AS id, $4::bigint AS n, clock_timestamp() AS now
		)
		SELECT ` + postgresInfo + `, `
	postgresListFrom = postgresSizes + `
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

// The times that order the listings, as text for their cursors. to_char knows no infinite time, and writes no year before the first.
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

// postgresTaking says that a row of pgqrs_workers is of a live worker that claims; see queue.unattended.
const postgresTaking = `status IN ('ready', 'polling') AND heartbeat_at > clock_timestamp() - interval '30 seconds' * CASE WHEN go_state IS NULL THEN 20 ELSE 1 END`

// postgresLeases reads a JSON array of lease tuples.
const postgresLeases = `
	SELECT (j.value ->> 0)::bigint AS id, (j.value ->> 1)::bigint AS worker_id, (j.value ->> 2)::bigint AS claim_ct, j.value ->> 3 AS delay, j.value ->> 4 AS error`

// postgresWorkerID is the id of a new row of pgqrs_workers: 48 random bits, which no setseed of the application decides.
const postgresWorkerID = `('x' || right(gen_random_uuid()::text, 12))::bit(48)::bigint + 1`

// postgresIncarnation tells who had a row of pgqrs_workers from who took it over: when that was.
const postgresIncarnation = postgresMicros + `started_at` + postgresMicrosEnd

// postgresFence is the condition that a row of pgqrs_messages m is still held as the tuple held says.
const postgresFence = `m.id = held.id AND m.consumer_worker_id = held.worker_id AND m.claim_ct = held.claim_ct`

// postgresLive says that a row m is not archived, in words from which the
// planner does not conclude that a partial index would do: after a vacuum in an
// idle moment it takes those for empty, and prefers them to the primary key.
const postgresLive = `COALESCE(m.archived_at, 'infinity') = 'infinity'`

// postgresFences is postgresFence for a list held. The ids come as an array
// too, for the planner takes that for a handful of rows, and a list for many.
const postgresFences = `m.id = ANY (ARRAY(SELECT id FROM held)) AND ` + postgresFence

var postgres = dialect{
	migrations:  "postgres",
	isolation:   sql.LevelReadCommitted,
	open:        "/* pgqrs:open */ SELECT set_config('transaction_read_only', CASE 'on' WHEN current_setting('transaction_read_only') THEN 'on' ELSE current_setting('default_transaction_read_only') END, true), set_config('idle_in_transaction_session_timeout', COALESCE(NULLIF(current_setting('idle_in_transaction_session_timeout'), '0'), '1min'), true)",
	begin:       "/* pgqrs:begin */ BEGIN ISOLATION LEVEL READ COMMITTED",
	ask:         "/* pgqrs:ask */ SELECT 1",
	session:     "/* pgqrs:session.id */ SELECT pg_backend_pid()::text",
	concurrency: "multi-process",
	schemas:     true,

	schema: postgresSchemaTexts,
	queue: queueSQL{
		make:  `/* pgqrs:queue.make */ INSERT INTO pgqrs_queues (queue_name) VALUES ($1) ON CONFLICT (queue_name) DO NOTHING`,
		pause: `/* pgqrs:queue.pause */ UPDATE pgqrs_queues SET paused_at = CASE WHEN a.paused THEN COALESCE(paused_at, clock_timestamp()) END FROM (SELECT $1::text AS name, $2::boolean AS paused) a WHERE queue_name = a.name RETURNING id`,
		stats: `/* pgqrs:queue.stats */
			WITH arg AS MATERIALIZED (SELECT $1::json AS names, clock_timestamp() AS now)
			SELECT q.id, q.queue_name, ` + postgresMicros + `q.created_at` + postgresMicrosEnd + `, ` + postgresMicros + `q.paused_at` + postgresMicrosEnd + `,
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
			SELECT q.queue_name, ` + postgresMicros + `q.paused_at` + postgresMicrosEnd + `,
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
			SELECT a.queue_name, (extract(epoch FROM arg.now - f.vt) * 1000000)::bigint
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
		freeze: []string{`/* pgqrs:queue.freeze */ LOCK TABLE pgqrs_messages IN SHARE ROW EXCLUSIVE MODE`},
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
		// Of a FROM that computes nothing the planner makes no step of its own; so there is no clock_timestamp in one.
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
		// As JSONB the list is parsed once for all. Without ON CONFLICT a row is written once, with less log.
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
		list: map[State]string{
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
		disown: `/* pgqrs:message.disown */
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
			UPDATE pgqrs_messages m
			SET archived_at = clock_timestamp(), failed_at = clock_timestamp(), vt = clock_timestamp(), due_at = NULL, last_error = ` + unreachableReason + `
			WHERE m.id = ANY (ARRAY(
				SELECT u.id
				FROM arg CROSS JOIN json_array_elements(arg.queues) AS j (value) JOIN pgqrs_queues q ON q.queue_name = j.value ->> 0
					CROSS JOIN (VALUES (2), (1), (0), (-1)) AS band (priority)
					CROSS JOIN LATERAL (
						(SELECT o.id FROM pgqrs_messages o
						WHERE o.queue_id = q.id AND o.priority = band.priority AND o.archived_at IS NULL AND o.vt > ` + postgresBlocked + `
						ORDER BY o.vt, o.id
						LIMIT (SELECT n FROM arg))
						UNION ALL
						(SELECT o.id FROM pgqrs_messages o
						WHERE o.queue_id = q.id AND o.priority = band.priority AND o.archived_at IS NULL AND o.vt IS NULL
						ORDER BY o.id
						LIMIT (SELECT n FROM arg))
					) u
				LIMIT (SELECT n FROM arg)))
				AND ` + postgresLive + ` AND COALESCE(m.vt, 'infinity') > ` + postgresBlocked + ` AND m.parked_vt IS NULL`,
	},

	lease: leaseSQL{
		claim:     `/* pgqrs:message.claim */` + postgresClaim + postgresClaimEnd,
		nextClaim: []string{`/* pgqrs:message.next_claim */` + postgresClaim + postgresClaimAfter + postgresClaimEnd},
		passed:    []string{`/* pgqrs:message.passed */` + postgresPassed},
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
		// The clock is read for each row, and anew if that had to be waited for.
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
		strays: `/* pgqrs:message.strays */
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
		pruneShared: `/* pgqrs:worker.shared_prune */
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
