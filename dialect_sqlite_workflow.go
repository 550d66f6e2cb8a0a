package pgqrs

// What run.get returns (runColumns), and what the listings of runs do, which cut what users wrote.
const (
	sqliteRun    = sqliteRunHead + `CAST(r.input AS BLOB), CAST(r.output AS BLOB), CAST(r.error AS BLOB), ` + sqliteRunRest
	sqliteRunCut = sqliteRunHead + `substr(CAST(r.input AS BLOB), 1, ` + listedText + `), substr(CAST(r.output AS BLOB), 1, ` + listedText + `), substr(CAST(r.error AS BLOB), 1, ` + listedError + `), ` +
		sqliteRunRest + `, COALESCE(length(CAST(r.input AS BLOB)), 0), COALESCE(length(CAST(r.output AS BLOB)), 0)`
	sqliteRunHead = `r.id, CAST(w.name AS BLOB), r.message_id, r.status, `
	sqliteRunRest = `CAST(r.run_key AS BLOB),
	r.parent_run_id, CAST(r.parent_step AS BLOB), CAST(r.warning AS BLOB),
	CAST(r.created_at AS BLOB), CAST(r.started_at AS BLOB), CAST(r.paused_at AS BLOB), CAST(r.completed_at AS BLOB), CAST(m.vt AS BLOB), COALESCE(m.read_ct, 0)`
)

// What step.get and step.load return (stepColumns), and what step.list does, which cuts.
const (
	sqliteStep     = sqliteStepHead + `CAST(s.output AS BLOB), CAST(s.error AS BLOB), ` + sqliteStepRest
	sqliteStepCut  = sqliteStepHead + `substr(CAST(s.output AS BLOB), 1, ` + listedText + `), substr(CAST(s.error AS BLOB), 1, ` + listedError + `), ` + sqliteStepRest + `, COALESCE(length(CAST(s.output AS BLOB)), 0)`
	sqliteStepHead = `CAST(s.step_name AS BLOB), s.status, `
	sqliteStepRest = `s.retry_count,
	CAST((julianday(s.retry_at) - julianday('now')) * 86400000000 AS INTEGER), CAST(COALESCE(s.started_at, s.created_at) AS BLOB), CAST(s.completed_at AS BLOB), s.last_retry_at IS NOT NULL`
)

// sqliteHolding is the message of a run, while the lease that was bound as arg stands.
const sqliteHolding = ` JOIN pgqrs_messages m ON m.id = arg.message_id AND m.consumer_worker_id = arg.worker_id AND m.claim_ct = arg.claim_ct AND m.archived_at IS NULL`

// sqliteOpenStep is the condition that a step has not ended.
const sqliteOpenStep = `pgqrs_workflow_steps.status <> 'SUCCESS' AND NOT (pgqrs_workflow_steps.status = 'ERROR' AND pgqrs_workflow_steps.retry_at IS NULL)`

const sqliteRunOf = `(SELECT r.status FROM pgqrs_workflow_runs r WHERE r.id = run_id)`

// What step.save and its batch write, by one statement or, on Turso, two.
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
	// sqliteSave makes the rows of arg, unless a lease is lost.
	sqliteSave = `
		INSERT INTO pgqrs_workflow_steps (run_id, step_name, status, output, error, retry_count, retry_at, created_at, updated_at, started_at, completed_at)
		SELECT arg.run_id, arg.name, arg.status, arg.output, arg.error, arg.retries,
			CASE WHEN arg.wait IS NOT NULL THEN strftime('%Y-%m-%d %H:%M:%f', arg.now, printf('%.6f seconds', arg.wait / 1000000.0)) END,
			arg.now, arg.now, strftime('%Y-%m-%d %H:%M:%f', arg.now, printf('-%.6f seconds', arg.took / 1000000.0)),
			CASE WHEN arg.status IN ('SUCCESS', 'ERROR') AND arg.wait IS NULL THEN arg.now END
		FROM arg` + sqliteHolding + `
		WHERE true`
	// sqliteSaveOver writes those that are there, unless they have ended.
	sqliteSaveOver = `
		ON CONFLICT (run_id, step_name) DO UPDATE
		SET status = excluded.status, output = excluded.output, error = excluded.error, retry_count = excluded.retry_count, retry_at = excluded.retry_at,
			updated_at = excluded.updated_at, started_at = COALESCE(pgqrs_workflow_steps.started_at, excluded.started_at), completed_at = excluded.completed_at
		WHERE ` + sqliteOpenStep
	// sqliteOpen makes the row that step.open opens.
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

// What run.list and run.child_list have in common: their arguments, and the runs that these ask for. See postgresListed.
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
	takeBack: `/* pgqrs:run.take_back */
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
		SELECT r.id, r.message_id, CASE WHEN m.id IS NULL THEN 'gone' WHEN m.failed_at < (SELECT until FROM arg) THEN 'dead'
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
		FROM pgqrs_workflow_runs r JOIN pgqrs_workflows w ON w.id = r.workflow_id LEFT JOIN pgqrs_messages m ON m.id = r.message_id
		WHERE r.id = ?`,
	polled: `/* pgqrs:run.polled */
		SELECT r.id, CAST(w.name AS BLOB), r.status, CAST(r.output AS BLOB), CAST(r.error AS BLOB)
		FROM pgqrs_workflow_runs r JOIN pgqrs_workflows w ON w.id = r.workflow_id
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
		SELECT m.id FROM arg CROSS JOIN pgqrs_messages m ON m.queue_id = arg.queue_id CROSS JOIN pgqrs_workflow_runs r ON r.message_id = m.id
		WHERE m.archived_at IS NOT NULL AND m.failed_at IS NULL AND m.archived_at < arg.until
			AND NOT EXISTS (SELECT 1 FROM pgqrs_workflow_runs p WHERE p.id = r.parent_run_id AND p.status IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING'))
		LIMIT ? + 0`,
}

var sqliteSteps = stepSQL{
	load:      `/* pgqrs:step.load */ SELECT ` + sqliteStep + ` FROM pgqrs_workflow_steps s WHERE s.run_id = ? ORDER BY s.id`,
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
}
