package pgqrs

// postgresPolicyOf is what a queue q has been told, as one column: the list that configure takes, without the name.
const postgresPolicyOf = `json_build_array(q.policy::text, q.max_held, q.rate_interval, q.rate_burst,
				q.group_limit, q.group_interval, q.group_burst, q.group_skip::int, q.dead_letter)::text`

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
}
