package pgqrs

// policySQL is for the policies of queues: what operators see of them, and what holds in all processes.
type policySQL struct {
	// configure writes policies to the rows of queues that exist, where they differ. A rate that changes begins anew.
	// Exec; JSON array of [queue, policy as a string of JSON, messages held at most or null, rate's interval or null, its burst or null,
	// messages of a group at a time, interval of a group's rate or null, its burst or null, whether groups skip what failed, dead-letter queue or null].
	configure string
	// deadLetter copies dead messages to another queue, which exists, with headers that say where they come from. It leaves those
	// that are copies of that queue's own dead letters. Query; queue, JSON array of ids; rows: id of the copies.
	deadLetter string
}

// limitSQL is for claims from queues whose rows have a limit: MaxHeld or Rate. The three run in one transaction, with lease.claim
// between room and take. They are apart because on PostgreSQL a statement that waited for a lock does not see what the one that had it did.
type limitSQL struct {
	// lock keeps other such claims of a worker's queue out until the transaction ends. On PostgreSQL it waits for them, but fails after
	// a quarter of a second (55P03, lock_not_available): other queues of the worker wait too. In MVCC mode the second one fails. Query; worker; 1 row: queue's id; none if the queue has no such limit.
	lock string
	// room says how many messages may be leased now. Query; queue's id, how many are wanted;
	// 1 row: how many of them may be (0 or less: none), microseconds until the rate lets the next one begin (0: at once), whether there is a rate.
	room string
	// take takes tokens for what was claimed. Exec; queue's id, how many.
	take string
}
