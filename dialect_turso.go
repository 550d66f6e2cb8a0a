package pgqrs

// turso is the dialect of SQLite with the differences of Turso.
var turso = func() dialect {
	d := sqlite
	d.engineName = "Turso or libSQL"
	d.turso = true
	// Differs because SQLite itself has no BEGIN CONCURRENT. It is sent under Config.Concurrent
	// only.
	d.transaction.concurrent = "/* pgqrs:begin */ BEGIN CONCURRENT"
	// Differs because in MVCC mode the engine ends a transaction at a conflict, and commits each
	// later statement by itself.
	d.transaction.savepoint = "/* pgqrs:savepoint */ SAVEPOINT pgqrs"
	d.transaction.release = "/* pgqrs:release */ RELEASE pgqrs"
	// Differs because the engine needs it for BEGIN CONCURRENT.
	d.requireMVCC = "/* pgqrs:schema.mvcc */ PRAGMA journal_mode = 'mvcc'"
	// Differs because only on Turso two workers may claim at the same time and collide. Elsewhere
	// locks prevent that.
	d.claimFromOffset = tursoSpread
	d.schema.objects = tursoObjects
	d.step = tursoSteps
	// Differs because Turso 0.7.2 finds no CTE in a subquery that depends on the query around it.
	// So runs of a status are searched among all runs.
	d.workflow.statusList = `/* pgqrs:run.status_list */` + sqliteListRuns
	// Differs because Turso 0.7.2 does not run the recursive query. So the times of all scheduled
	// messages are read.
	d.message.unreachable = `/* pgqrs:message.unreachable */
			WITH arg (queues) AS (SELECT ?),
			line (id, queue) AS MATERIALIZED (
			SELECT m.id, CAST(q.queue_name AS BLOB)` + sqliteHiddenLive + `m.priority = band.value AND m.vt > ` + sqliteNow + ` AND m.vt < ` + sqliteBlocked + ` AND ` + sqliteNoTime + `
			UNION ALL
` + sqliteHiddenRest
	// Differs because in MVCC mode two transactions only conflict if both write the same row.
	d.limit.lock = `/* pgqrs:limit.lock */
		UPDATE pgqrs_queues SET queue_name = queue_name
		WHERE id = (SELECT w.queue_id FROM pgqrs_workers w WHERE w.id = ?) AND (max_held IS NOT NULL OR rate_interval IS NOT NULL)
		RETURNING id`
	// Differs because in MVCC mode a transaction that has not seen this one fails only if both
	// write the same row, or this one changes the schema.
	d.queue.freeze = []string{
		`/* pgqrs:queue.freeze */ CREATE TABLE pgqrs_freeze (id INTEGER)`,
		`/* pgqrs:queue.thaw */ DROP TABLE pgqrs_freeze`,
	}
	return d
}()

// tursoSpread is lease.claim from an offset. It skips the first skip messages, or fewer if the
// highest priority that is due has not n more. It skips nothing if no other worker of the queue is
// active, or if the first message of all is a suspect. Query: worker, lease, alone, n, skip, n +
// skip. Rows: as for lease.claim.
const tursoSpread = `/* pgqrs:message.spread_claim */
			WITH arg (worker_id, lease, alone, n, skip, now) AS (
				SELECT ?, printf('%.6f seconds', ? / 1000000.0), ?, ?, ?, ` + sqliteNow + `
			), ` + sqliteDue + `, line (id, rank, crashed, size, place, top) AS (
				SELECT id, rank, crashed, size, row_number() OVER (ORDER BY rank, vt, id), min(rank) OVER () FROM due
			), cut (id, crashed, size, place, start) AS (
				SELECT line.id, line.crashed, line.size, line.place, 1 + arg.skip % (max(count(*) FILTER (WHERE line.rank = line.top) OVER () - arg.n, 0) + 1)
					* (max(line.crashed AND line.place = 1) OVER () = 0)
					* EXISTS (SELECT 1 FROM pgqrs_workers o WHERE o.queue_id = (SELECT queue_id FROM worker) AND o.id <> arg.worker_id AND o.status IN ('ready', 'polling'))
				FROM line CROSS JOIN arg
			), chosen (id, place, start, crashes, before) AS (
				SELECT id, place, start, sum(crashed AND place >= start) OVER (ORDER BY place), sum(size * (place >= start)) OVER (ORDER BY place) - size FROM cut
			)` + sqliteClaim + `
				SELECT c.id FROM chosen c CROSS JOIN arg
				WHERE c.place >= c.start AND c.place < c.start + arg.n AND (c.crashes = 0 OR arg.alone AND c.place = c.start) AND c.before < ` + claimedBytes + `)
			RETURNING ` + sqliteClaimed

// tursoObjects differs because on Turso 0.7.2 a statement with pragma_table_info leaves the
// connection unable to commit. Later writes succeed, are in no transaction, and are lost. So the
// columns are read from the statement that made the table. They are the words at its beginning and
// after each bracket, comma and line. Some of these words are not columns.
const tursoObjects = `/* pgqrs:schema.objects */
	WITH word (tbl, text) AS (
		SELECT m.name, ltrim(j.value) FROM sqlite_master m CROSS JOIN json_each('["' || replace(replace(replace(replace(replace(replace(replace(
			m.sql, '\', ''), '"', ''), char(9), ' '), char(13), ' '), char(10), ','), '(', ','), ',', '","') || '"]') j
		WHERE m.type = 'table' AND m.name LIKE 'pgqrs%'
	)
	SELECT 'table', name, '' FROM sqlite_master WHERE type = 'table' AND (name LIKE 'pgqrs%' OR name = '_sqlx_migrations')
	UNION ALL
	SELECT 'other', name, 'view' FROM sqlite_master WHERE type = 'view' AND name LIKE 'pgqrs%'
	UNION ALL
	SELECT 'column', tbl, substr(text, 1, instr(text || ' ', ' ') - 1) FROM word
	UNION ALL
	SELECT 'index', tbl_name, name FROM sqlite_master WHERE type = 'index' AND tbl_name LIKE 'pgqrs%'`

// tursoSteps differs because Turso 0.7.2 returns NULL for a subquery in the RETURNING of an upsert
// that updates. So a row is inserted first, and updated if it exists already.
var tursoSteps = func() stepSQL {
	const keep = `
		ON CONFLICT (run_id, step_name) DO NOTHING`
	const update = `
		UPDATE pgqrs_workflow_steps
		SET status = held.status, output = held.output, error = held.error, retry_count = held.retries, updated_at = held.now,
			started_at = COALESCE(pgqrs_workflow_steps.started_at, strftime('%Y-%m-%d %H:%M:%f', held.now, printf('-%.6f seconds', held.took / 1000000.0))),
			retry_at = CASE WHEN held.wait IS NOT NULL THEN strftime('%Y-%m-%d %H:%M:%f', held.now, printf('%.6f seconds', held.wait / 1000000.0)) END,
			completed_at = CASE WHEN held.status IN ('SUCCESS', 'ERROR') AND held.wait IS NULL THEN held.now END
		FROM (SELECT arg.* FROM arg` + sqliteHolding + `) AS held
		WHERE pgqrs_workflow_steps.run_id = held.run_id AND pgqrs_workflow_steps.step_name = held.name AND ` + sqliteOpenStep
	d := sqliteSteps
	d.save = []string{
		`/* pgqrs:step.save */` + sqliteSaveOne + sqliteSave + keep + sqliteOpened,
		`/* pgqrs:step.resave */` + sqliteSaveOne + update + sqliteOpened,
	}
	d.saveBatch = []string{
		`/* pgqrs:step.batch_save */` + sqliteSaveMany + sqliteSave + keep + sqliteSaved,
		`/* pgqrs:step.batch_resave */` + sqliteSaveMany + update + sqliteSaved,
	}
	d.open = []string{
		`/* pgqrs:step.open */` + sqliteOpen + keep + sqliteOpened,
		`/* pgqrs:step.reopen */
		WITH arg (run_id, name, message_id, worker_id, claim_ct) AS (VALUES (?, ?, ?, ?, ?))
		UPDATE pgqrs_workflow_steps SET status = 'RUNNING', updated_at = ` + sqliteNow + `, started_at = COALESCE(started_at, ` + sqliteNow + `)
		WHERE run_id = (SELECT arg.run_id FROM arg` + sqliteHolding + `) AND step_name = (SELECT name FROM arg) AND ` + sqliteOpenStep + sqliteOpened,
	}
	return d
}()
