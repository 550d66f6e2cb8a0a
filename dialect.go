package pgqrs

import (
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// A Dialect names the kind of database that a [Store] runs on. The set is closed, so that a value
// can come from a flag or a configuration file. With any other value every call of the Store
// returns an error that lists the three.
type Dialect string

const (
	// Postgres is PostgreSQL 13 or newer, through lib/pq or pgx's stdlib package.
	Postgres Dialect = "postgres"
	// SQLite is SQLite 3.38 or newer, through any driver.
	SQLite Dialect = "sqlite"
	// Turso is Turso or libSQL. It runs the statements of SQLite with a few named exceptions.
	Turso Dialect = "turso"
)

//go:embed migrations
var migrations embed.FS

// Migrations returns the numbered SQL files that [Store.Install] applies. They are for applications
// that run all their migrations with one tool. The tool goose takes the files as they are, and
// golang-migrate takes them by their names. The last statement of a file records it in
// pgqrs_migrations, so that Install, Verify and the tool agree.
//
// On SQLite the files expect a database without pgqrs tables. A database that pgqrs 0.15 made needs
// Install, which looks for each column first. A database for Config.Concurrent needs Install, too.
//
// Migrations panics if d is not one of the three dialects.
func (d Dialect) Migrations() fs.FS {
	def, ok := dialects[d]
	if !ok {
		panic(unknownDialect(d).Error())
	}
	sub, err := fs.Sub(migrations, "migrations/"+def.migrations)
	if err != nil {
		panic(err) // the path is embedded
	}
	return sub
}

func unknownDialect(d Dialect) error {
	return fmt.Errorf("%w: unknown dialect %q; use pgqrs.Postgres, pgqrs.SQLite or pgqrs.Turso", ErrUnsupported, string(d))
}

// A dialect has the differences between kinds of databases: SQL texts, and how they take locks. It
// has no logic. All dialects take the same arguments in the same order and return the same columns.
// The contracts below hold for all of them.
//
// PostgreSQL's texts use $1 to $n, ascending, each once. The SQLite family's texts use bare ?,
// because all of its drivers bind only that alike. Every text begins with a tag, /*
// pgqrs:group.name */, which is documented and stable. The tag shows in slow logs, and users'
// sqlmock expectations match it. No tag is a prefix of another.
//
// Durations are bound as integer microseconds, instants as microseconds since 1970, and lists as
// one JSON argument of type string. A lease in a list is the array [id, worker, claim, ...], which
// the contracts call a lease tuple.
type dialect struct {
	// engineName is the database's name in errors.
	engineName string
	// migrations is the directory below migrations/.
	migrations string
	// turso is whether the database may be Turso, which otherwise looks like SQLite.
	turso bool
	// schemas is whether Config.Schema has a meaning.
	schemas bool

	// writers is Report.Writers without Config.Concurrent.
	writers Writers
	// singleWriter is whether the database has one writer at a time, without Config.Concurrent.
	singleWriter bool
	// claimsFromPosition is whether lease.nextClaim and lease.skipped exist: on a database that
	// keeps dead rows in an index.
	claimsFromPosition bool
	// runsByOneStatement is whether workflow.start and workflow.end exist.
	runsByOneStatement bool

	// errors has the texts that identify errors without a code.
	errors errorTexts
	// versionWarning returns a warning about a version of the engine with a known fault, or "". It
	// takes the answers to schema.engine and to the setting journal_mode, and the driver's package.
	// It is nil if there are no such warnings.
	versionWarning func(engine, journal, driver string) string

	transaction transactionSQL

	// session identifies the server's session, which a pooler may change. It is empty if there are
	// no sessions.
	// Query: no arguments. 1 row: text.
	session string
	// requireMVCC makes transaction.concurrent work, permanently, on an engine that needs it.
	// Query: no arguments. The rows are ignored.
	requireMVCC string
	// claimFromOffset is lease.claim under Config.Concurrent for workers whose claims collide. See
	// tursoSpread.
	claimFromOffset string

	schema  schemaSQL
	queue   queueSQL
	policy  policySQL
	limit   limitSQL
	message messageSQL
	lease   leaseSQL
	worker  workerSQL

	workflow workflowSQL
	step     stepSQL
	signal   signalSQL
	schedule scheduleSQL
	group    groupSQL
	batch    batchSQL
}

// errorTexts are texts of errors, in lower case. They are for a database whose drivers have no
// codes in common.
type errorTexts struct {
	// busy means that the work may succeed if it runs again: a lock was taken, or a snapshot went
	// stale.
	busy []string
	// unavailable means that the database cannot be used at present.
	unavailable []string
}

// transactionSQL begins and ends transactions.
type transactionSQL struct {
	// isolation is the isolation level of transactions of database/sql.
	isolation sql.IsolationLevel
	// open prepares a transaction of database/sql for the library. On the SQLite family it takes
	// the write lock, because a transaction that begins by reading may not be able to write later.
	// On PostgreSQL it makes the transaction as read-only as the session, which lib/pq would
	// override. There it also makes the server end a transaction whose process no longer sends
	// anything.
	// Exec: no arguments.
	open string
	// begin opens a transaction that excludes other writers on the SQLite family.
	// Exec: no arguments.
	begin string
	// concurrent is begin under Config.Concurrent. It is empty if the database has none.
	// Exec: no arguments.
	concurrent string
	// commit and rollback end a transaction that begin or concurrent opened.
	// Exec: no arguments.
	commit, rollback string
	// savepoint marks a transaction for user code under Config.Concurrent, where an engine may end
	// the transaction by itself.
	// Exec: no arguments.
	savepoint string
	// release fails with "no such savepoint" if the transaction has ended since.
	// Exec: no arguments.
	release string
	// probe finds out the state of a transaction after user code has returned an error. On the
	// SQLite family it always fails, to show the form of the driver's errors.
	// Query: no arguments. The rows are ignored.
	probe string
}

// schemaSQL is for Install, Uninstall and Verify.
type schemaSQL struct {
	// exists looks for the schema of Config.Schema.
	// Query: name. A row if it exists.
	exists string
	// make makes the schema of Config.Schema. Its quoted name follows the text.
	// Exec: no arguments.
	make string
	// lock keeps other installers out until the transaction ends.
	// Query: no arguments. The rows are ignored.
	lock string
	// settings has the settings of a connection for which Verify has warnings, by name.
	// Query: no arguments. 1 row: text.
	settings map[string]string
	// encoding is the encoding of text between the database and this connection.
	// Query: no arguments. 1 row: text, or none if the database has only one.
	encoding string
	// engine is the engine's name and version. It fails on a database of another kind.
	// Query: no arguments. 1 row: text.
	engine string
	// turso is Turso's name and version, since Turso looks like SQLite. It fails on every other
	// engine.
	// Query: no arguments. 1 row: text.
	turso []string
	// objects lists the objects that exist. It may list columns that do not exist. An object that
	// has the name of a table or type, and is neither, has the kind "other", and its name is a
	// description.
	// Query: no arguments. Rows: kind ("table", "column", "index", "type", "value"), table or type,
	// name.
	objects string
	// rights lists the rights that a Worker needs and this user lacks, such as "UPDATE on
	// pgqrs_messages". It leaves out tables that do not exist. It is empty if the database has no
	// rights.
	// Query: no arguments. Rows: text.
	rights []string
	// versions lists the applied migrations.
	// Query: no arguments. Rows: version, name, oldest.
	versions string
	// interop finds out whether pgqrs 0.15 installed the tables, or has workers in them.
	// Query: no arguments. 1 row: whether joinInterop has been done, or none if only this library
	// uses the tables.
	interop string
	// joinInterop makes indexes that let a worker's row be deleted although messages may refer to
	// it.
	// Exec, in this order: no arguments.
	joinInterop []string
	// drop removes everything that Install made. It keeps a type that was there before Install, or
	// that something else uses.
	// Exec, in this order: no arguments.
	drop []string
}

// queueSQL is for queues.
type queueSQL struct {
	// make adds a queue, or does nothing if it exists.
	// Exec: name.
	make string
	// pause sets (true) or clears (false) paused_at.
	// Query: name, paused. 1 row: id, or none if there is no such queue.
	pause string
	// stats counts a queue's messages by state. It returns queues by name.
	// Query: JSON array of [name], or NULL for all. Rows: id, name, created_at, paused_at, ready,
	// scheduled, leased, archived, dead, age of the oldest ready message in microseconds, policy as
	// a JSON array of the arguments of policy.configure.
	stats string
	// depth is stats with bounded counts. It counts up to depthLimit, which is part of the text,
	// because Turso 0.7.2 does not start a bound LIMIT again for the next queue. The columns with
	// "just" count the last minute.
	// Query: JSON array of [name], or NULL for all. Rows: name, paused_at, ready, scheduled and
	// leased, leased, dead, just archived, just dead, age of the oldest ready message in
	// microseconds, policy as in stats, blocked, live workers that take from the queue.
	depth string
	// unattended finds queues, by name, that are not paused and have ready messages, but no live
	// worker that takes them. A worker of pgqrs 0.15 does not heartbeat while it is busy, so its
	// limit is twenty times as long.
	// Query: microseconds without a heartbeat after which a worker is dead, microseconds that the
	// oldest message must have been ready, limit. Rows: name, age of the oldest ready message in
	// microseconds.
	unattended string
	// misfit finds queues, by name, with limits that no policy can have. Such limits have no
	// effect.
	// Query: limit. Rows: name.
	misfit string
	// freeze keeps enqueuers out until the transaction ends. An enqueue that did not see the end of
	// the transaction fails. On PostgreSQL freeze takes a SHARE ROW EXCLUSIVE lock on messages. All
	// enqueuers wait while it waits for the lock, so it fails (55P03) after 250 ms.
	// Exec, in this order: no arguments.
	freeze []string
	// inUse finds out what still belongs to a queue.
	// Query: name, microseconds without a heartbeat after which a worker is dead. 1 row: id,
	// messages (at most 1), live workers, or none if there is no such queue.
	inUse string
	// drop deletes an unused queue.
	// Exec, in this order: each takes the queue's id.
	drop []string
}

// messageSQL is for messages that the caller has not leased.
type messageSQL struct {
	// enqueue stores one message, unless its key is taken. It waits for another transaction that is
	// storing the same key.
	// Query: queue, payload, delay, instant or NULL (then the delay counts), priority, key or NULL,
	// headers or NULL. 1 row: id, or none if there is no such queue or the key is taken.
	enqueue string
	// enqueueBatch stores messages that are due at once and have no priority, key or headers.
	// Query: queue, JSON array of payloads, each an object or an array. Rows: id. The ids ascend in
	// the order of the list.
	enqueueBatch string
	// enqueueMixed stores messages with options.
	// Query: queue, JSON array of [payload as a string, delay, instant or null, priority, key or
	// null, headers as a string or null]. Rows: id, key of the stored messages. The ids ascend in
	// the order of the list.
	enqueueMixed string
	// keyed finds unfinished messages by key.
	// Query: queue, JSON array of [key]. Rows: key, id.
	keyed string
	// get lists messages by id, cut.
	// Query: JSON array of ids. Rows: infoColumns, by id.
	get string
	// whole is get for one message, with nothing cut.
	// Query: id. 1 row: infoColumns without the last two, or none.
	whole string
	// ahead finds the messages that a blocked message waits for: the messages of its group that are
	// not blocked, or the messages of its batch that have not ended. It reads no payload, and no
	// more than 1000 messages of a group or batch. Leased messages come first, then scheduled,
	// ready and blocked ones.
	// Query: id, limit. Rows: id.
	ahead string
	// list lists the messages of a queue in one state, from a cursor on, ordered by a time and the
	// id. Payloads, headers and errors are cut (see listedText), so that the number of rows bounds
	// the size of a page. A caller that needs no payloads leaves them out, since many large ones
	// take long.
	// Query: queue, cursor's time or NULL, cursor's id, whether to return payloads, limit. Rows:
	// infoColumns.
	list map[MessageState]string
	// lock finds the messages that are (still) in a state, and on PostgreSQL locks them. It skips
	// ended messages whose outcome others have yet to read: messages of a batch that another
	// message waits for, and of runs whose parent has not ended.
	// Query: JSON array of ids, state or ''. Rows: id.
	lock string
	// remove deletes messages and everything that belongs to them. The count of the last statement
	// is the number of the messages.
	// Exec, in this order: each takes a JSON array of ids.
	remove []string
	// redrive makes dead or archived messages ready again, with 0 attempts. It skips messages whose
	// key is taken, and messages of groups.
	// Query: JSON array of ids. Rows: id.
	redrive string
	// prune deletes archived messages past their retention.
	// Exec: JSON array of [queue, retention], limit.
	prune string
	// clearExpiredOwner clears the owner of leases that expired a while ago, so that pgqrs 0.15
	// sees the messages too.
	// Exec: slack, limit.
	clearExpiredOwner string
	// unreachable finds two kinds of messages with columns that something other than this library
	// wrote. No claim would reach a message whose vt is NULL, is later than the vt of blocked
	// messages, or is not a time, or whose priority is invalid. No retention would reach an ended
	// message whose time of the end is after all times or is not a time.
	// Query: JSON array of [queue, ...], limit. Rows: id, queue.
	unreachable string
	// bury makes dead letters of the messages that unreachable would find, with the reason.
	// Query: JSON array of ids. Rows: id.
	bury string
}

// leaseSQL is for messages that the caller has leased. All statements except claim, nextClaim,
// skipped and orphans are fenced: they change a row only if its worker and its claim number are the
// caller's.
type leaseSQL struct {
	// claim leases up to n due messages of the worker's queue, by priority, due time and id. It
	// leases none if the worker is not active or the queue is paused. A suspect, whose previous
	// lease expired, is only returned alone, if it is the first message and alone is true.
	// Otherwise claim stops before it. It also stops once payloads, headers, errors and keys reach
	// claimedBytes. On PostgreSQL it skips rows that are locked. A dead letter that pgqrs 0.15
	// replayed is no longer a dead letter.
	// Query: worker, lease, alone, n. Rows, in no order: deliveryColumns, whether the queue is a
	// workflow's.
	claim string
	// nextClaim is claim from a position on. In each priority not below the position's it skips the
	// messages whose due time and id are not after the position's. It is empty for a database that
	// keeps no dead rows in an index (see claimCursor).
	// Query: worker, lease, alone, n, priority, due time (microseconds since 1970), id. Rows: as
	// for claim.
	nextClaim string
	// skipped finds due messages that nextClaim skips, the first ones by due time and id. It is
	// empty if there is no nextClaim.
	// Query: worker, limit, priority, due time and id of the position. Rows: due time (microseconds
	// since 1970), id.
	skipped string
	// check finds out early whether a lease is still valid. On the SQLite family it takes the write
	// lock.
	// Query: id, worker, claim. 1 row: id, or none.
	check string
	// ack archives messages. Repeating it is not an error.
	// Query: JSON array of lease tuples. Rows: id of the archived messages.
	ack string
	// delete deletes messages, except messages of runs.
	// Query: JSON array of lease tuples. Rows: id of the deleted messages.
	delete string
	// release makes messages ready again after a delay, and does not count the attempt.
	// Query: JSON array of lease tuples, each followed by a delay. Rows: id of the released
	// messages.
	release string
	// fail records an error. It makes a message ready again after a delay, or a dead letter if the
	// delay is null.
	// Query: JSON array of lease tuples, each followed by a delay or null and the error. Rows: id
	// of the changed messages.
	fail string
	// extend makes leases end after the given time from now.
	// Query: lease, JSON array of lease tuples. Rows: id of the extended messages.
	extend string
	// renew makes leases end no earlier than the given time from now. On PostgreSQL it skips rows
	// that are locked and returns them as leased.
	// Query: lease, JSON array of lease tuples. Rows: id of the messages that are still leased.
	renew string
	// orphans releases the messages that a worker has leased in the table but does not know. The
	// attempt does not count. It leaves a row of another incarnation alone.
	// Exec: worker, incarnation, JSON array of the ids that the worker knows.
	orphans string
}

// workerSQL is for worker rows.
type workerSQL struct {
	// register makes a worker's row, which is marked as this library's, or takes over a row of the
	// same name that stopped or has had no heartbeat for too long. The id of a new row is a random
	// number. So no id is ever used again, even if tables are dropped and made again, a sequence is
	// reset or a backup is restored. A row that is taken over keeps its id, and gets another
	// incarnation.
	// Query: queue, name, status, microseconds without a heartbeat after which a worker is dead. 1
	// row: id, whether the queue has a limit (see limitSQL), incarnation, or none if there is no
	// such queue or the name is in use.
	register string
	// heartbeat records a heartbeat for workers that are not stopped. Instead of the status it
	// returns "silent" for a worker that was stopped for missing heartbeats. Either expire stopped
	// it, or pgqrs 0.15 did after at least 3 s without a heartbeat, and no call of this library.
	// Query: JSON array of ids. Rows: id, status or "silent", whether the queue has a limit,
	// incarnation.
	heartbeat string
	// retire marks rows stopped that still have the given incarnations.
	// Exec: JSON array of [id, incarnation].
	retire string
	// poll finds the workers that have due messages.
	// Query: JSON array of worker ids. Rows: id of each active worker whose unpaused queue has a
	// due message.
	poll string
	// move changes a status.
	// Query: id, new status, JSON array of the statuses from which it may change. 1 row: id, or
	// none.
	move string
	// status reads a status.
	// Query: id. 1 row: status, or none.
	status string
	// list lists all workers, by started_at and id.
	// Query: no arguments. Rows: id, name, queue or NULL, status, started_at, heartbeat_at,
	// shutdown_at, number of leased messages.
	list string
	// expire marks workers without heartbeats stopped, as of their last heartbeat, which tells them
	// from workers that a caller stopped. It leaves out workers of pgqrs 0.15, which do not
	// heartbeat while they are busy.
	// Exec: microseconds without a heartbeat.
	expire string
	// prune deletes rows of this library that stopped long ago and have leased nothing.
	// Exec: microseconds since they stopped, limit.
	prune string
	// pruneInterop is prune for a database that pgqrs 0.15 uses too. It deletes only rows that no
	// message refers to.
	// Exec: microseconds since they stopped, limit.
	pruneInterop string
}

// These are the errors of the messages that message.unreachable finds.
const (
	unreachableTime     = `'pgqrs: malformed row: vt: no claim reaches it'`
	unreachablePriority = `'pgqrs: malformed row: priority: no claim reaches it'`
	unreachableEnd      = `'pgqrs: malformed row: archived_at: no retention reaches it'`
	unreachableDeath    = `'pgqrs: malformed row: failed_at: it is after all times'`
)

// Listings cut texts of users in SQL. They cut a payload, input, output, error or rule, and a name
// or key, to its first bytes (characters on PostgreSQL). They leave out all headers that are too
// long, since a part of them is of no use. The last columns of a listing are the sizes of the
// stored texts.
const (
	loadedOutput = "65536" // bytes of a step's output, up to which the output is loaded with the other steps
	listedText   = "16384" // ListedBytes, as the statements have it
	listedError  = "16385" // one more, so that a longer text is recognised
	// listedWholly is in bytes of JSONB. On PostgreSQL a listing makes no text of a larger payload.
	listedWholly = "4194304"
	// claimedBytes bounds the payloads, headers, errors and keys of a claim, without the last
	// message. It is maxPrefetchSize.
	claimedBytes = "8388608"
	// listedNoPolicy replaces a policy that is too large. No Policy has this form.
	listedNoPolicy = `'"it has more than 16384 bytes"'`
	// listedName is one more than maxListedName. A name or key has no more than 255 characters.
	listedName = "1025"
	// listedHeaders is in bytes of JSON. Everything that was enqueued fits, as PostgreSQL writes
	// it.
	listedHeaders = "131072"
)

var dialects = map[Dialect]*dialect{
	Postgres: &postgres,
	SQLite:   &sqlite,
	Turso:    &turso,
}

var (
	tableNames  = regexp.MustCompile(`\b(_sqlx_migrations|pgqrs_(?:schema_version|migrations|queues|workers|messages|workflows|workflow_runs|workflow_steps|workflow_signals|schedules|schedule_runs|groups)|worker_status|pgqrs_workflow_status)\b`)
	schemaNames = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]{0,62}$`)
)

// qualify puts a schema before the names of tables and types in a text.
func qualify(text, schema string) string {
	return tableNames.ReplaceAllString(text, `"`+strings.ReplaceAll(schema, "$", "$$")+`".$1`)
}

// groupSQL is for groups. A message of a group that must wait for others is blocked. Its vt is
// blockedUntil, and its parked_vt is the time from which it is due by itself.
//
// Statements that block or unblock messages need the lock of the group's row, which an earlier
// statement takes. On PostgreSQL a statement does not see changes that were committed while it
// waited. A list of groups is a JSON array of [queue, group].
//
// The three policies that lock and tryLock return save statements that would do nothing. They are
// whether several messages of the group may be leased at a time, whether it has a rate, and whether
// it skips failed messages.
type groupSQL struct {
	// lock makes the rows of groups, and locks them. It waits for other transactions that have
	// locked them.
	// Query: groups, in order. Rows: the three policies, for each group whose queue exists.
	lock string
	// tryLock locks the rows of groups, and skips rows that are locked.
	// Query: groups. Rows: queue, group, the three policies.
	tryLock string
	// enqueue is message.mixed_enqueue with a group and a batch for each message. It stores
	// messages with a group, and a message that waits for a batch, as blocked. A batch of 0 means
	// that the message itself waits for a batch.
	// Query: queue, JSON array of [payload as a string, delay, instant or null, priority, key or
	// null, headers as a string or null, group or null, batch or null]. Rows: id, key of the stored
	// messages. The ids ascend in the order of the list.
	enqueue string
	// park blocks messages again that were unblocked and are not due yet, in groups that skip
	// failed messages. It does not block messages that wait for the rate of their group.
	// Query: groups. Rows: id.
	park string
	// refund reverts pace for messages that are blocked again.
	// Exec: JSON array of ids.
	refund string
	// promote unblocks the first blocked message of each group whose limit allows it.
	// Query: groups. Rows: id.
	promote string
	// pace counts messages that were just unblocked, one of each group, for the rates of their
	// groups. If the next messages need not wait for a message, it counts as of now, even if it is
	// due later.
	// Exec: JSON array of ids.
	pace string
	// dependents returns the groups and batches of messages, and the unfinished parents of their
	// runs, each once.
	// Query: JSON array of ids. Rows: queue, group or NULL, batch or NULL, parent run or NULL.
	dependents string
	// redrive is message.redrive for messages of groups. It makes them blocked, at their old places
	// in their groups.
	// Query: JSON array of ids. Rows: id.
	redrive string
	// sweep lists groups from a cursor on, by queue's id and group, and whether the limit of each
	// allows a blocked message.
	// Query: JSON array of [queue], queue's id, group, limit. Rows: queue's id, queue, group, room.
	sweep string
	// prune deletes rows of groups that have no messages and have not been used for a while.
	// Exec: microseconds, limit.
	prune string
}

// batchSQL is for batches. A message that waits for a batch is blocked until no other message that
// names its id is unfinished. Statements that unblock it need the lock of its row.
type batchSQL struct {
	// tryLock locks messages that wait for batches, or have waited, and skips messages that are
	// locked.
	// Query: JSON array of ids. Rows: id.
	tryLock string
	// finish unblocks the messages that no longer wait for anything, and writes the counts of their
	// batches into their headers.
	// Query: JSON array of ids. Rows: id, queue.
	finish string
	// sweep finds blocked messages that no longer wait for anything.
	// Query: JSON array of [queue], limit. Rows: id.
	sweep string
}

// policySQL is for the policies of queues: the part for operators, and the limits that hold in all
// processes.
type policySQL struct {
	// configure writes policies to the rows of existing queues, where they differ. A rate that
	// changes starts again.
	// Exec: JSON array of [queue, policy as a string of JSON, maximum of leased messages or null,
	// rate's interval or null, its burst or null, messages of a group at a time, interval of a
	// group's rate or null, its burst or null, whether groups skip failed messages, dead-letter
	// queue or null].
	configure string
	// deadLetter copies dead messages to another queue, which exists, with headers that name their
	// origin. It skips copies of that queue's own dead letters.
	// Query: queue, JSON array of ids. Rows: id of the copies.
	deadLetter string
}

// limitSQL is for claims from queues whose rows have a limit, MaxLeased or Rate. The three
// statements run in one transaction, with lease.claim between capacity and spend. They are separate
// statements, since on PostgreSQL a statement that waited for a lock does not see the changes of
// the transaction that held the lock.
type limitSQL struct {
	// lock keeps other claims with a limit from a worker's queue out until the transaction ends. On
	// PostgreSQL it waits for them, but fails after a quarter of a second (55P03,
	// lock_not_available), since other queues of the worker wait too. In MVCC mode the second claim
	// fails.
	// Query: worker. 1 row: queue's id, or none if the queue has no such limit.
	lock string
	// capacity returns how many messages may be leased now.
	// Query: queue's id, how many are wanted. 1 row: how many of these may be leased (0 or less
	// means none), microseconds until the rate lets the next one begin (0 means at once), whether
	// there is a rate.
	capacity string
	// spend takes the tokens of claimed messages.
	// Exec: queue's id, number of messages.
	spend string
}

// scheduleSQL is for schedules. The statements of a worker take the number of changes that it has
// seen. If two workers have seen the same number, only one of them succeeds.
type scheduleSQL struct {
	// put makes a schedule, or overwrites a definition that differs. If the rule or its zone
	// differ, the next instant becomes the given one, and otherwise it stays.
	// Query: name, queue, whether it starts runs, payload, priority, key or NULL, headers or NULL,
	// rule, zone, catch-up, instant or NULL. 1 row: id, or none if nothing differed.
	put string
	// find reads the columns that decide when schedules run.
	// Query: JSON array of [name]. A row for each: name, now, id or NULL if there is no such
	// schedule, rule, zone, number of changes, next instant or NULL, paused_at, resumed_at.
	find string
	// advance sets the next instant.
	// Query: id, number of changes, instant or NULL. 1 row: id, or none if that number is out of
	// date, or, on PostgreSQL, if another transaction has the row locked.
	advance string
	// record adds runs to the history, and skips instants that the history already has.
	// Query: id, JSON array of [instant or null for now, by hand, held, message or null, run or
	// null]. Rows: instant of the added runs.
	record string
	// lock reads the target of a schedule. On the SQLite family it takes the write lock, and on
	// PostgreSQL it locks the row.
	// Query: name. 1 row: id, queue, whether it starts runs, payload, priority, key, headers, or
	// none if there is no such schedule.
	lock string
	// pause sets (true) or clears (false) paused_at, which is a change for advance.
	// Query: name, paused. 1 row: id, or none if there is no such schedule.
	pause string
	// list describes all schedules, by name, cut.
	// Query: no arguments. Rows: id, name, queue, whether it starts runs, payload, priority, key,
	// headers, rule, zone, catch-up, created_at, updated_at, paused_at, next instant or NULL, and
	// runColumns of the latest run, or NULLs.
	list string
	// named is list for some schedules. It reads no others.
	// Query: JSON array of [name]. Rows: as for list.
	named string
	// history lists the runs of a schedule, the latest first.
	// Query: name, limit. Rows (runColumns): instant, ran_at, by hand, held, message, run, state of
	// either or NULL if it is gone.
	history string
	// remove deletes a schedule, which lock has locked, with its history.
	// Exec, in this order: each takes the id.
	remove []string
	// prune deletes all except the latest runs of a schedule from its history.
	// Exec: JSON array of [name], how many are kept, limit.
	prune string
}

// workflowSQL is for workflows and their runs. A run is found by its id or by the id of its
// message. Statements of a worker for a run are fenced by the lease of that message.
type workflowSQL struct {
	// make adds a definition for the queue of the same name, or does nothing if it exists.
	// Exec: name.
	make string
	// insert makes runs for messages, with the message's payload as input. It skips messages whose
	// key is taken.
	// Query: workflow, JSON array of [message, key or null, parent run or null, parent step or
	// null]. Rows: run, message. The runs ascend in the order of the list.
	insert string
	// start is message.enqueue and insert in one statement, for a run without a key, a group and a
	// parent. It is empty if one statement cannot do it.
	// Query: workflow, payload, delay, at or NULL, priority, headers or NULL. 1 row: run, message,
	// or none if the workflow has not been made.
	start []string
	// keyed finds runs by key.
	// Query: workflow, JSON array of keys. Rows: key, run.
	keyed string
	// adopt deletes messages that have no run.
	// Exec: JSON array of messages.
	adopt string
	// begin starts or continues the execution of a message's run.
	// Query: message, worker, claim. 1 row: run, new status, whether it is its first execution and
	// has no steps, or none if the lease is lost or there is no run.
	begin string
	// exists finds out whether a message has a run.
	// Query: message. 1 row: run, or none.
	exists string
	// finish ends a run with the given status, or as CANCELLED if it is being cancelled. A final
	// status stays.
	// Query: run, status, output or NULL, error or NULL. 1 row: status, parent run or NULL, or none
	// if it had ended.
	finish string
	// end is finish and lease.ack in one statement, for a run that is not being cancelled and has
	// no parent. It is empty if one statement cannot do it.
	// Query: run, message, worker, claim, status, output or NULL, error or NULL. 1 row: status. It
	// returns no row, and does nothing, if the message has another run, the run has ended, or the
	// lease is lost.
	end []string
	// cancel asks unfinished runs to end.
	// Query: JSON array of runs. Rows: run, for the runs that were not being cancelled.
	cancel string
	// unstartedArchive archives the messages of runs that are being cancelled, have no steps, and
	// are not leased. It ignores the order of their groups.
	// Query: JSON array of runs. Rows: run, queue, group or NULL, batch or NULL.
	unstartedArchive string
	// unstartedEnd ends the runs of such messages.
	// Query: JSON array of runs. Rows: run, parent run or NULL.
	unstartedEnd string
	// pause stops an unfinished run at its next step.
	// Query: run. 1 row: run, or none.
	pause string
	// resume ends pause.
	// Query: run. 1 row: run, or none.
	resume string
	// retry makes a failed run unfinished, so that it continues at its failed steps. A step that
	// has started children waits for them.
	// Exec, then Query: each takes the run. The second returns 1 row: message, or none if the run
	// has not failed.
	retry []string
	// copySteps copies the finished steps of a run that were recorded before a step to another run,
	// and records that this run has steps.
	// Exec: to run, from run, step for the first text, and to run for the second.
	copySteps []string
	// join updates the parent of a run that has ended, if that was the last run that the parent's
	// step waits for. It locks the parent's message first, so that of two runs that end at the same
	// time the later one sees the other.
	// Exec, then Query: each takes the run. The second returns 1 row: parent run, queue, or none.
	join []string
	// joinShared is join for runs that pgqrs 0.15 has ended. It finds runs that wait for children
	// which have all ended, and that join has not updated.
	// Query: JSON array of queues. Rows: run, queue.
	joinShared string
	// wake makes the messages of unfinished runs due. A leased message becomes due when it is
	// released, without a delay.
	// Query: JSON array of runs. Rows: run, queue.
	wake string
	// interrupted finds the messages whose runs are being cancelled.
	// Query: JSON array of messages. Rows: message.
	interrupted string
	// ofMessages finds the runs of messages.
	// Query: JSON array of messages. Rows: message, run.
	ofMessages string
	// stranded reads a page of the runs of a workflow in an unfinished state, by run, with the
	// state of their messages. It reads no other runs. The state is 'archived', 'dead' or 'gone' if
	// the message has ended without the run, 'elsewhere' if it is in another queue, and '' if it is
	// unfinished.
	// Query: workflow, status, run that the page begins after, microseconds since a message must
	// have ended, limit. Rows: run, message, state, last error.
	stranded string
	// children lists the unfinished runs that runs have started.
	// Query: JSON array of runs. Rows: run.
	children string
	// results reads the runs that a step has started, by run.
	// Query: run, step. Rows: run, workflow, status, output, error.
	results string
	// get reads a run.
	// Query: run. 1 row: runColumns, with NULL for a workflow that does not exist, or none.
	get string
	// polled reads the columns of runs that calls of Result need.
	// Query: JSON array of runs. Rows: run, workflow, status, output, error.
	polled string
	// list lists runs from new to old, cut.
	// Query: workflow or NULL, status or NULL, since or NULL, until or NULL (both instants), run
	// that the page begins before, limit. Rows: runColumns, sizes of input and output.
	list string
	// statusList is list for a status, by the index of a workflow's runs by status. It reads no
	// other runs.
	// Query: as for list, with a status that is not NULL. Rows: runColumns.
	statusList string
	// childList is list for the runs that the steps of a run started. It reads no other runs.
	// Query: as for list, with the parent before the limit. Rows: runColumns.
	childList string
	// warn records a warning.
	// Exec: run, text.
	warn string
	// expired finds archived messages with runs that are past their retention, unless a parent
	// still waits for one.
	// Query: JSON array of [queue, retention], limit. Rows: message.
	expired string
}

// stepSQL is for the steps of runs.
type stepSQL struct {
	// load reads a run's steps, by id. It leaves out outputs that are larger than loadedOutput.
	// Query: run. Rows: stepColumns, whether the output is left out.
	load string
	// list is load, cut.
	// Query: run. Rows: stepColumns, size of the output.
	list string
	// get reads a step.
	// Query: run, step. 1 row: stepColumns, or none.
	get string
	// save records a step, fenced by the lease, unless the step has already ended. On Turso a
	// second text updates an existing row.
	// Query: run, step, message, worker, claim, status, output or NULL, error or NULL, retries,
	// delay until the next try or NULL, how long its function took. 1 row: the run's status, or
	// none if the lease is lost or the step has ended.
	save []string
	// saveBatch is save for several different steps. The second text may return steps that the
	// first has already returned.
	// Query: JSON array of save's arguments. Rows: run, step, the run's status.
	saveBatch []string
	// open begins a step in a transaction: it makes the step's row, with the status RUNNING, and
	// locks it until the end. Otherwise it is like save.
	// Query: run, step, message, worker, claim. 1 row: the run's status.
	open []string
	// close records the result of a step that open began in the same transaction, fenced by the
	// lease.
	// Query: run, step, message, worker, claim, output. 1 row: the run's status, or none if the
	// lease or the row is lost.
	close string
}

// signalSQL is for signals.
type signalSQL struct {
	// insert stores a signal.
	// Exec: run, name, payload.
	insert string
	// take delivers the oldest undelivered signal to a step.
	// Query: run, name, step. 1 row: payload, or none.
	take string
	// takeFirst is take for the oldest signal of several names.
	// Query: run, step, JSON array of [name]. 1 row: name, payload, or none.
	takeFirst string
}
