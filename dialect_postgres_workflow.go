package pgqrs

// What run.get returns (runColumns), and what the listings of runs do, which cut what users wrote.
const (
	postgresRun    = postgresRunHead + `r.input, r.output, r.error, ` + postgresRunRest
	postgresRunCut = postgresRunHead + `left(r.input::text, ` + listedText + `), left(r.output::text, ` + listedText + `), left(r.error::text, ` + listedError + `), ` +
		postgresRunRest + `, COALESCE(octet_length(r.input::text), 0), COALESCE(octet_length(r.output::text), 0)`
	postgresRunHead = `r.id, w.name, r.message_id, r.status::text, `
	postgresRunRest = `r.run_key, r.parent_run_id, r.parent_step, r.warning,
	` + postgresMicros + `r.created_at` + postgresMicrosEnd + `, ` + postgresMicros + `r.started_at` + postgresMicrosEnd + `, ` + postgresMicros + `r.paused_at` + postgresMicrosEnd + `, ` +
		postgresMicros + `r.completed_at` + postgresMicrosEnd + `, ` + postgresMicros + `m.vt` + postgresMicrosEnd + `, COALESCE(m.read_ct, 0)`
)

// What step.get and step.load return (stepColumns), and what step.list does, which cuts.
const (
	postgresStep     = postgresStepHead + `s.output, s.error, ` + postgresStepRest
	postgresStepCut  = postgresStepHead + `left(s.output::text, ` + listedText + `), left(s.error::text, ` + listedError + `), ` + postgresStepRest + `, COALESCE(octet_length(s.output::text), 0)`
	postgresStepHead = `s.step_name, s.status::text, `
	postgresStepRest = `s.retry_count,
	(extract(epoch FROM CASE WHEN s.retry_at < ` + postgresFirstTime + ` THEN ` + postgresFirstTime + ` WHEN s.retry_at > ` + postgresLastTime + ` THEN ` + postgresLastTime + ` ELSE s.retry_at END - clock_timestamp()) * 1000000)::bigint, ` +
		postgresMicros + `COALESCE(s.started_at, s.created_at)` + postgresMicrosEnd + `, ` + postgresMicros + `s.completed_at` + postgresMicrosEnd + `, s.last_retry_at IS NOT NULL`
)

// postgresHolding is the message of a run, while the lease that was bound as arg stands. Without postgresLive it would be
// looked for among all that the worker holds, and has held since the last vacuum. The LIMIT makes the planner look for
// one after the other by id: for several it would rather read the whole table, until that has some ten thousand rows.
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

// What run.list and run.child_list have in common: their arguments, and the runs that these ask for. A condition that may be
// void is a CASE, which the planner takes for likely; otherwise it would read and sort all runs for a page of them. For the
// same reason run.child_list sorts by an expression, and run.status_list by a status that it bounds rather than equals: the
// primary key is no way to find children, or the one run in a million that has failed.
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
	takeBack: `/* pgqrs:run.take_back */
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
		SELECT page.id, page.message_id, CASE WHEN m.id IS NULL THEN 'gone' WHEN m.failed_at < arg.until THEN 'dead'
				WHEN m.failed_at IS NULL AND m.archived_at < arg.until THEN 'archived' ELSE '' END, left(m.last_error, ` + listedText + `)
		FROM arg CROSS JOIN page LEFT JOIN LATERAL (
			SELECT o.id, o.archived_at, o.failed_at, o.last_error FROM pgqrs_messages o WHERE o.id = page.message_id LIMIT 1) m ON true
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
		FROM pgqrs_workflow_runs r JOIN pgqrs_workflows w ON w.id = r.workflow_id LEFT JOIN pgqrs_messages m ON m.id = r.message_id
		WHERE r.id = $1`,
	polled: `/* pgqrs:run.polled */
		SELECT r.id, w.name, r.status::text, r.output, r.error
		FROM pgqrs_workflow_runs r JOIN pgqrs_workflows w ON w.id = r.workflow_id
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
		SELECT m.id FROM arg CROSS JOIN LATERAL (
			SELECT o.id FROM pgqrs_messages o JOIN pgqrs_workflow_runs r ON r.message_id = o.id
			WHERE o.queue_id = arg.queue_id AND o.archived_at IS NOT NULL AND o.failed_at IS NULL AND o.archived_at < arg.until
				AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs p WHERE p.id = r.parent_run_id AND p.status IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING'))
			ORDER BY o.archived_at, o.id
		) m
		LIMIT $2::bigint`,
}

var postgresSteps = stepSQL{
	load: `/* pgqrs:step.load */ SELECT ` + postgresStep + ` FROM pgqrs_workflow_steps s WHERE s.run_id = $1 ORDER BY s.id`,
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
}
