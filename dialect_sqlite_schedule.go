package pgqrs

// What a run of a schedule r became: the state of its workflow's run w, or of its message m.
const sqliteScheduleRun = `CAST(r.due_at AS BLOB), CAST(r.ran_at AS BLOB), r.by_hand, r.held, COALESCE(r.message_id, w.message_id), r.run_id, CASE WHEN r.run_id IS NOT NULL THEN w.status
	WHEN m.id IS NULL THEN NULL WHEN m.failed_at IS NOT NULL THEN 'dead' WHEN m.archived_at IS NOT NULL THEN 'archived'
	WHEN m.parked_vt IS NOT NULL THEN 'blocked' WHEN m.vt <= ` + sqliteNow + ` THEN 'ready' WHEN m.consumer_worker_id IS NULL THEN 'scheduled' ELSE 'leased' END`

const sqliteScheduleRunFrom = `
			LEFT JOIN pgqrs_messages m ON m.id = r.message_id
			LEFT JOIN pgqrs_workflow_runs w ON w.id = r.run_id`

// sqliteTick is the next count of changes of a schedule. It begins again at its end: only that it differs matters.
const sqliteTick = `CASE WHEN CAST(pgqrs_schedules.tick_ct AS INTEGER) = 9223372036854775807 THEN 0 ELSE CAST(pgqrs_schedules.tick_ct AS INTEGER) + 1 END`

// sqliteInstant reads an instant, or NULL.
const sqliteInstant = `strftime('%Y-%m-%d %H:%M:%f', ? / 1000000.0, 'unixepoch')`

// What schedule.named_list returns, and what schedule.list does, which cuts.
const (
	sqliteScheduleNamed = `
		SELECT s.id, CAST(s.name AS BLOB), CAST(s.queue_name AS BLOB), s.starts_runs, CAST(s.payload AS BLOB), s.priority, CAST(s.dedup_key AS BLOB), CAST(s.headers AS BLOB),` + sqliteScheduleRest + sqliteScheduleFrom
	sqliteScheduleList = `
		SELECT s.id, CAST(s.name AS BLOB), CAST(s.queue_name AS BLOB), s.starts_runs, substr(CAST(s.payload AS BLOB), 1, ` + listedText + `), s.priority, CAST(s.dedup_key AS BLOB),
			CASE WHEN length(CAST(s.headers AS BLOB)) <= ` + listedHeaders + ` THEN CAST(s.headers AS BLOB) END,` + sqliteScheduleRest + `,
			length(CAST(s.payload AS BLOB)), COALESCE(length(CAST(s.headers AS BLOB)), 0) > ` + listedHeaders + sqliteScheduleFrom
	sqliteScheduleRest = `
			CAST(s.rule AS BLOB), CAST(s.zone AS BLOB), s.catch_up, CAST(s.created_at AS BLOB), CAST(s.updated_at AS BLOB), CAST(s.paused_at AS BLOB), CAST(s.next_at AS BLOB),
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
	take: `/* pgqrs:schedule.take */
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
