package pgqrs

// What a run of a schedule r became: the state of its workflow's run w, or of its message m.
const postgresScheduleRun = postgresMicros + `r.due_at` + postgresMicrosEnd + `, ` + postgresMicros + `r.ran_at` + postgresMicrosEnd + `, r.by_hand, r.held, COALESCE(r.message_id, w.message_id), r.run_id, CASE WHEN r.run_id IS NOT NULL THEN w.status::text
	WHEN m.id IS NULL THEN NULL WHEN m.failed_at IS NOT NULL THEN 'dead' WHEN m.archived_at IS NOT NULL THEN 'archived'
	WHEN m.parked_vt IS NOT NULL THEN 'blocked' WHEN m.vt <= clock_timestamp() THEN 'ready' WHEN m.consumer_worker_id IS NULL THEN 'scheduled' ELSE 'leased' END`

// postgresTick is the next count of changes of a schedule s. It begins again at its end: only that it differs matters.
const postgresTick = `CASE WHEN s.tick_ct = 9223372036854775807 THEN 0 ELSE s.tick_ct + 1 END`

// Both are looked up one by one: a LIMIT keeps the planner from a merge join, which would read all that is older than they.
const postgresScheduleRunFrom = `
		LEFT JOIN LATERAL (SELECT * FROM pgqrs_messages o WHERE o.id = r.message_id LIMIT 1) m ON true
		LEFT JOIN LATERAL (SELECT * FROM pgqrs_workflow_runs o WHERE o.id = r.run_id LIMIT 1) w ON true`

// What schedule.named_list returns, and what schedule.list does, which cuts.
const (
	postgresScheduleNamed = `
		SELECT s.id, s.name, s.queue_name, s.starts_runs, s.payload, s.priority, s.dedup_key, s.headers,` + postgresScheduleRest + postgresScheduleFrom
	postgresScheduleList = `
		SELECT s.id, s.name, s.queue_name, s.starts_runs, left(s.payload::text, ` + listedText + `), s.priority, s.dedup_key,
			CASE WHEN octet_length(s.headers::text) <= ` + listedHeaders + ` THEN s.headers END,` + postgresScheduleRest + `,
			octet_length(s.payload::text), COALESCE(octet_length(s.headers::text), 0) > ` + listedHeaders + postgresScheduleFrom
	postgresScheduleRest = ` s.rule, s.zone, s.catch_up,
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
	take: `/* pgqrs:schedule.take */
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
