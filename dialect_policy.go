package pgqrs

// policySQL is for the policies of queues: what operators see of them, and what holds in all processes.
type policySQL struct {
	// configure writes policies to the rows of queues that exist, where they differ. A rate that changes begins anew.
	// Exec; JSON array of [queue, policy as a string of JSON, messages held at most or null, rate's interval or null, its burst or null,
	// messages of a group at a time, interval of a group's rate or null, its burst or null, whether groups skip what failed, dead-letter queue or null].
	configure string
}
