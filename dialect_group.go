package pgqrs

// groupSQL is for groups. A message of a group that must wait for others is
// blocked: its vt is blockedUntil and parked_vt is when it is due by itself.
//
// What moves messages between the two holds the lock of the group's row, which
// one statement takes and the next relies on: on PostgreSQL a statement does not
// see what was committed while it waited. A list of groups is a JSON array of [queue, group].
//
// The policies that lock and tryLock return are hints: whether the group may have several messages under way, has a rate,
// and passes over what has failed. They spare statements that would do nothing.
type groupSQL struct {
	// lock makes the rows of groups, and locks them. It waits for other transactions that have. Query; groups, in order;
	// rows: the three policies; one for each group whose queue exists.
	lock string
	// tryLock locks the rows of groups, but passes over those that are locked. Query; groups; rows: queue, group, the three policies.
	tryLock string
	// enqueue is message.mixed_enqueue with a group and a batch for each message: those with a group are stored blocked, as is one that waits for a batch. Query; queue, JSON
	// array of [payload as a string, delay, instant or null, priority, key or null, headers as a string or null, group or null, batch or null];
	// a batch of 0 says that the message itself waits for one;
	// rows: id, key of those stored. Ids ascend in the list's order.
	enqueue string
	// park blocks what was let go and is not due yet, in groups that pass over what has failed; but not what waits for its group's rate.
	// Query; groups; rows: id.
	park string
	// refund takes back what pace has noted of messages that are blocked again. Exec; JSON array of ids.
	refund string
	// promote lets go the first blocked message of each group that has room. Query; groups; rows: id.
	promote string
	// pace notes of messages just let go what their groups' rates say about the next, one message of a group. Where those need not wait
	// for it, a message counts as of now, even if it is due later. Exec; JSON array of ids.
	pace string
	// of returns the groups and batches of messages, and the unfinished runs that started theirs as children.
	// Query; JSON array of ids; rows: queue, group or NULL, batch or NULL, parent run or NULL; each once.
	of string
	// redrive is message.redrive for messages of groups: it makes them blocked at their old places. Query; JSON array of ids; rows: id.
	redrive string
	// sweep lists groups from a cursor on, and whether each has room for one that is blocked. Query; JSON array of [queue],
	// queue's id, group, limit; rows: queue's id, queue, group, room; in order of the first and the third.
	sweep string
	// prune deletes rows of groups that have no messages and have not been used for a while. Exec; microseconds, limit.
	prune string
}

// batchSQL is for batches. The message that waits for one is blocked until no
// other message that names its id is unfinished. What lets it go holds the lock of its row.
type batchSQL struct {
	// tryLock locks messages that wait for batches, or have done so, but passes over those that are locked. Query; JSON array of ids; rows: id.
	tryLock string
	// finish lets go those that wait for nothing any more, and writes into their headers what became of their batches.
	// Query; JSON array of ids; rows: id, queue.
	finish string
	// sweep finds those that wait for nothing. Query; JSON array of [queue], limit; rows: id.
	sweep string
}
