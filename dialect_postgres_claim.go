package pgqrs

// A claim takes the due messages of each priority in the order of the claim's index, from the beginning or from a place on.
// The latter is no join with a row of arguments, which would keep the place from being where the scan of the index begins.
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

// postgresSize is the size of a payload as a claim counts it. A small one counts as it is stored,
// so that a claim of such writes no JSON twice. It may be compressed, a hundred times or more.
const postgresSize = `CASE WHEN pg_column_size(payload) <= 2000 THEN pg_column_size(payload) ELSE octet_length(payload::text) END`

// postgresPassed reads what a claim from a place on passes over, by the claim's index.
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
