package pgqrs

// workflowSQL is for workflows and their runs. A run is found by its id or by
// its message's; what a worker does in a run's name is fenced by the lease on that message.
type workflowSQL struct {
	// make adds a definition for the queue of the same name, or does nothing if it is there. Exec; name.
	make string
	// insert makes runs for messages, with the message's payload as input. It passes over those whose key is taken.
	// Query; workflow, JSON array of [message, key or null, parent run or null, parent step or null]; rows: run, message. Runs ascend in the list's order.
	insert string
	// start is message.enqueue and insert in one, for a run without a key, a group and a parent. None where one statement cannot do it.
	// Query; workflow, payload, delay, at or NULL, priority, headers or NULL; 1 row: run, message; none if the workflow has not been made.
	start []string
	// keyed finds runs by key. Query; workflow, JSON array of keys; rows: key, run.
	keyed string
	// takeBack deletes messages that have no run. Exec; JSON array of messages.
	takeBack string
	// begin starts or continues the execution of a message's run. Query; message, worker, claim;
	// 1 row: run, status after, whether it is its first execution and has no steps; none if the lease is lost or there is no run.
	begin string
	// exists says whether a message has a run. Query; message; 1 row: run, or none.
	exists string
	// finish ends a run: as the status given, or as CANCELLED if it is being cancelled. A final status stays.
	// Query; run, status, output or NULL, error or NULL; 1 row: status, parent run or NULL; none if it had ended.
	finish string
	// end is finish and lease.ack in one, for a run that nobody is cancelling and that has no parent. None where one statement cannot do it.
	// Query; run, message, worker, claim, status, output or NULL, error or NULL; 1 row: status; none, and nothing done, if the run is
	// another, has ended, or the lease is lost.
	end []string
	// cancel asks unfinished runs to end. Query; JSON array of runs; rows: run of those that were not being cancelled.
	cancel string
	// unstartedArchive archives the messages of runs that are being cancelled, have no steps, and are leased to nobody. It leaves the
	// order of their groups. Query; JSON array of runs; rows: run, queue, group or NULL, batch or NULL.
	unstartedArchive string
	// unstartedEnd ends the runs of such messages. Query; JSON array of runs; rows: run, parent run or NULL.
	unstartedEnd string
	// pause stops an unfinished run at its next step. Query; run; 1 row: run, or none.
	pause string
	// resume takes back pause. Query; run; 1 row: run, or none.
	resume string
	// retry makes a failed run unfinished, to go on at its failed steps; a step that has started children waits for them. Exec, then Query; each takes the run;
	// the second returns 1 row: message, or none if the run has not failed.
	retry []string
	// copySteps gives a run the finished steps of another that were recorded before a step, and notes that it has some.
	// Exec; to run, from run, step; then to run.
	copySteps []string
	// join tells the parent of a run that has ended, if that was the last one its step waits for. The parent's message is
	// locked first, so that of two that end at once the later sees the other. Exec, then Query; each takes the run;
	// the second returns 1 row: parent run, queue; or none.
	join []string
	// joinShared is join for a shared database, after the fact: it finds runs that wait for children which have all ended, and
	// that nothing has told, because pgqrs 0.15 ended the last one. Query; JSON array of queues; rows: run, queue.
	joinShared string
	// wake makes the messages of unfinished runs due, or, while leased, not to be put off.
	// Query; JSON array of runs; rows: run, queue.
	wake string
	// interrupted lists the runs among messages that are being cancelled. Query; JSON array of messages; rows: message.
	interrupted string
	// ofMessages finds the runs of messages. Query; JSON array of messages; rows: message, run.
	ofMessages string
	// stranded reads a page of the runs of a workflow in an unfinished state, and says of which the message has ended without them.
	// It reads no others, however many there are.
	// Query; workflow, status, run that it begins after, microseconds since a message must have ended, limit;
	// rows: run, message, 'archived', 'dead' or 'gone' (or '' if the message is unfinished), last error; by run.
	stranded string
	// children lists unfinished runs started by runs. Query; JSON array of runs; rows: run.
	children string
	// results reads the runs started by a step. Query; run, step; rows: run, workflow, status, output, error, by run.
	results string
	// get reads one run. Query; run; 1 row: runColumns, or none.
	get string
	// polled reads what calls of Result need of runs. Query; JSON array of runs; rows: run, workflow, status, output, error.
	polled string
	// list lists runs from new to old, cut. Query; workflow or NULL, status or NULL, since or NULL, until or NULL (both instants), run that
	// it begins before, limit; rows: runColumns, sizes of input and output.
	list string
	// statusList is list for a status, by the index of a workflow's runs of one. It reads no others, however many there are.
	// Query; as list, but the status is not NULL; rows: runColumns.
	statusList string
	// childList is list for the runs that the steps of a run started. It reads no others, however many there are.
	// Query; as list, with the parent before the limit; rows: runColumns.
	childList string
	// warn records a warning. Exec; run, text.
	warn string
	// expired finds archived messages with runs that are past their retention, unless a parent still waits for one.
	// Query; JSON array of [queue, retention], limit; rows: message.
	expired string
}

// stepSQL is for the steps of runs.
type stepSQL struct {
	// load reads a run's steps. Query; run; rows: stepColumns, by id.
	load string
	// list is load, cut. Query; run; rows: stepColumns, size of the output; by id.
	list string
	// get reads one step. Query; run, step; 1 row: stepColumns, or none.
	get string
	// save records a step, fenced by the lease, unless it has ended already. On Turso a second text takes over where there is a row.
	// Query; run, step, message, worker, claim, status, output or NULL, error or NULL, retries, delay until the next try or NULL,
	// how long its function took;
	// 1 row: the run's status; none if the lease is lost or the step has ended.
	save []string
	// saveBatch is save for several steps, no two the same. What the second text returns may have been returned before. Query; JSON array of save's arguments; rows: run, step, the run's status.
	saveBatch []string
	// open begins a step in a transaction: its row, locked until the end. Otherwise as save; the status is RUNNING.
	// Query; run, step, message, worker, claim; 1 row: the run's status.
	open []string
	// close records the result of a step that open began in the same transaction, fenced by the lease.
	// Query; run, step, message, worker, claim, output; 1 row: the run's status; none if the lease or the row is lost.
	close string
}

// signalSQL is for signals.
type signalSQL struct {
	// insert stores one. Exec; run, name, payload.
	insert string
	// take delivers the oldest one that nothing has taken to a step. Query; run, name, step; 1 row: payload, or none.
	take string
}
