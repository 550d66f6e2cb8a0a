package pgqrs

// sqlitePolicyOf is what a queue q has been told, as one column: the list that configure takes, without the name.
const sqlitePolicyOf = `CAST(json_array(q.policy, q.max_held, q.rate_interval, q.rate_burst,
					q.group_limit, q.group_interval, q.group_burst, q.group_skip, q.dead_letter) AS BLOB)`

var sqlitePolicies = policySQL{
	configure: `/* pgqrs:queue.configure */
		UPDATE pgqrs_queues
		SET policy = g.policy, max_held = g.max_held, rate_interval = g.rate_interval, rate_burst = g.rate_burst,
			rate_at = CASE WHEN pgqrs_queues.rate_interval IS g.rate_interval AND pgqrs_queues.rate_burst IS g.rate_burst THEN pgqrs_queues.rate_at END,
			group_limit = g.group_limit, group_interval = g.group_interval, group_burst = g.group_burst, group_skip = g.group_skip, dead_letter = g.dead_letter
		FROM (
			SELECT json_extract(value, '$[0]') AS name, json_extract(value, '$[1]') AS policy, json_extract(value, '$[2]') AS max_held,
				json_extract(value, '$[3]') AS rate_interval, json_extract(value, '$[4]') AS rate_burst, json_extract(value, '$[5]') AS group_limit,
				json_extract(value, '$[6]') AS group_interval, json_extract(value, '$[7]') AS group_burst, json_extract(value, '$[8]') AS group_skip,
				json_extract(value, '$[9]') AS dead_letter
			FROM json_each(?)
		) AS g
		WHERE pgqrs_queues.queue_name = g.name
			AND NOT (pgqrs_queues.policy IS g.policy AND pgqrs_queues.max_held IS g.max_held
				AND pgqrs_queues.rate_interval IS g.rate_interval AND pgqrs_queues.rate_burst IS g.rate_burst
				AND pgqrs_queues.group_limit IS g.group_limit AND pgqrs_queues.group_interval IS g.group_interval AND pgqrs_queues.group_burst IS g.group_burst
				AND pgqrs_queues.group_skip IS g.group_skip AND pgqrs_queues.dead_letter IS g.dead_letter)`,
}
