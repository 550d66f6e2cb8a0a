package pgqrs

// scheduleSQL is for schedules. What a worker does is guarded by the number of
// changes that it has seen: of two that see the same one does it.
type scheduleSQL struct {
	// put makes a schedule, or writes its definition over one that differs. Then the next instant is the given one, if the rule
	// or its zone differ; otherwise it stays.
	// Query; name, queue, whether it starts runs, payload, priority, key or NULL, headers or NULL, rule, zone, catch-up, instant or NULL; 1 row: id, or none if nothing differed.
	put string
	// find reads what decides when schedules run. Query; JSON array of [name]; a row for each: name, now, id or NULL if there is no such schedule,
	// rule, zone, number of changes, next instant or NULL, paused_at, resumed_at.
	find string
	// advance sets the next instant. Query; id, number of changes, instant or NULL; 1 row: id; none if that number is out of date, or, on
	// PostgreSQL, if another transaction has the row locked.
	advance string
	// record adds to the history, but for instants that are there. Query; id, JSON array of
	// [instant or null for now, by hand, held, message or null, run or null]; rows: instant of those added.
	record string
	// take reads what a schedule enqueues; on the SQLite family it takes the write lock, on PostgreSQL it locks the row.
	// Query; name; 1 row: id, queue, whether it starts runs, payload, priority, key, headers; none if there is no such schedule.
	take string
	// pause sets (true) or clears (false) paused_at, which is a change for advance. Query; name, paused; 1 row: id, or none if there is no such schedule.
	pause string
	// list describes all schedules, by name, cut. Query; no arguments; rows: id, name, queue, whether it starts runs, payload, priority, key, headers,
	// rule, zone, catch-up, created_at, updated_at, paused_at, next instant or NULL, and runColumns of the latest run, NULLs if there is none.
	list string
	// named is list for some schedules: it reads no others. Query; JSON array of [name]; rows: as list.
	named string
	// history lists the runs of a schedule, the latest first. Query; name, limit;
	// rows (runColumns): instant, ran_at, by hand, held, message, run, state of either or NULL if it is gone.
	history string
	// remove deletes a schedule, which take has locked, with its history. Exec, in this order; each takes the id.
	remove []string
	// prune deletes history past the latest so many runs of a schedule. Exec; JSON array of [name], how many stay, limit.
	prune string
}
