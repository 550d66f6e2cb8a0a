package pgqrs

// turso is SQLite plus what differs.
var turso = func() dialect {
	d := sqlite
	// Differs because it can, under Config.Concurrent.
	d.concurrent = "/* pgqrs:begin */ BEGIN CONCURRENT"
	d.mvcc = "/* pgqrs:schema.mvcc */ PRAGMA journal_mode = 'mvcc'"
	d.step = tursoSteps
	return d
}()

// tursoSteps differs because Turso 0.7.2 returns NULL for a subquery in the
// RETURNING of an upsert that updates. So a row is made first, and updated if
// it is there already.
var tursoSteps = func() stepSQL {
	const keep = `
		ON CONFLICT (run_id, step_name) DO NOTHING`
	const update = `
		UPDATE pgqrs_workflow_steps
		SET status = held.status, output = held.output, error = held.error, retry_count = held.retries, updated_at = held.now,
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
		UPDATE pgqrs_workflow_steps SET status = 'RUNNING', updated_at = ` + sqliteNow + `
		WHERE run_id = (SELECT arg.run_id FROM arg` + sqliteHolding + `) AND step_name = (SELECT name FROM arg) AND ` + sqliteOpenStep + sqliteOpened,
	}
	return d
}()
