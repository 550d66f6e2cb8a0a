package pgqrs

import (
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// A Dialect names the kind of database a [Store] runs on. It is a closed set,
// so that it reads from a flag or a configuration file; any other value makes
// every call of the Store return an error that lists the three.
type Dialect string

const (
	// Postgres is PostgreSQL 13 or newer, through lib/pq or pgx's stdlib package.
	Postgres Dialect = "postgres"
	// SQLite is SQLite 3.38 or newer, through any driver.
	SQLite Dialect = "sqlite"
	// Turso is Turso or libSQL. It runs SQLite's statements but for a few named overrides.
	Turso Dialect = "turso"
)

//go:embed migrations
var migrations embed.FS

// Migrations returns the numbered SQL files that [Store.Install] applies, for
// applications that run all their migrations with one tool: goose takes the
// files as they are, golang-migrate by their names. Their last statement
// records them in pgqrs_migrations, so that Install, Verify and the tool
// agree. On SQLite they expect a database without pgqrs tables; one that
// pgqrs 0.15 made needs Install, which looks for each column first; so does
// one for Config.Concurrent.
//
// It panics if d is not one of the three dialects.
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

// A dialect is what differs from one kind of database to the next: SQL text
// and how it takes locks. It holds no logic. All dialects take the same
// arguments in the same order and return the same columns; the contracts
// below are written once, for all of them.
//
// Text on PostgreSQL uses $1 to $n, ascending, each once; the SQLite family
// uses bare ?, because nothing else binds alike on all of its drivers. Every
// text begins with a tag, /* pgqrs:group.name */, that is documented and
// stable: it shows in slow logs, and users' sqlmock expectations match on it.
// No tag is a prefix of another.
//
// Durations are bound as integer microseconds, instants as microseconds since
// 1970, lists as one JSON argument of type string. A lease in a list is the
// array [id, worker, claim, ...], which the contracts call a lease tuple.
type dialect struct {
	// engineName names the database for people, as in an error.
	engineName string
	// migrations is the directory below migrations/.
	migrations string
	// turso is whether the database may be Turso, which otherwise passes for SQLite.
	turso bool
	// schemas is whether Config.Schema makes sense.
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

	// errors are the texts by which errors without a code are told apart.
	errors errorTexts
	// versionWarning warns of a version of the engine with a known fault. It takes the answers to
	// schema.engine and to the setting journal_mode, and the driver's package. Nil warns of none.
	versionWarning func(engine, journal, driver string) string

	transaction transactionSQL

	// session tells the server's sessions apart, which a pooler may change underneath.
	// Query; no arguments; 1 row: text. Empty: there are none.
	session string
	// requireMVCC makes transaction.concurrent work, for good, on an engine that must be told.
	// Query; no arguments; rows to ignore.
	requireMVCC string
	// claimFromOffset is lease.claim under Config.Concurrent for workers whose claims collide; see
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

// errorTexts are texts of errors, in lower case, on a database whose drivers have no codes in
// common.
type errorTexts struct {
	// busy asks to try again: a lock was taken, or a snapshot went stale.
	busy []string
	// unavailable says that the database cannot be used just now.
	unavailable []string
}

// transactionSQL begins and ends transactions.
type transactionSQL struct {
	// isolation is that of transactions of database/sql.
	isolation sql.IsolationLevel
	// open makes a transaction of database/sql one of the library's. On the SQLite family it takes
	// the write lock, because a transaction that begins by reading may not write later. On
	// PostgreSQL it makes the transaction as read-only as the session, which lib/pq would override,
	// and it has the server end a transaction whose process falls silent. Exec; no arguments.
	open string
	// begin opens a transaction that excludes other writers on the SQLite family. Exec; no
	// arguments.
	begin string
	// concurrent is begin under Config.Concurrent. Empty: the database has none. Exec; no
	// arguments.
	concurrent string
	// commit and rollback end a transaction that begin or concurrent opened. Exec; no arguments.
	commit, rollback string
	// savepoint marks a transaction for user code under Config.Concurrent, where an engine may end
	// the transaction underneath. Exec; no arguments.
	savepoint string
	// release fails with "no such savepoint" if the transaction has ended since. Exec; no
	// arguments.
	release string
	// probe asks a transaction how it is, after user code has returned an error. On the SQLite
	// family it fails, to show how an error of the driver looks. Query; no arguments; rows to
	// ignore.
	probe string
}

// schemaSQL is for Install, Uninstall and Verify.
type schemaSQL struct {
	// exists looks for the schema of Config.Schema. Query; name; a row if it exists.
	exists string
	// make makes that schema. Its name follows, quoted. Exec; no arguments.
	make string
	// lock keeps other installers out until the transaction ends. Query; no arguments; rows to
	// ignore.
	lock string
	// settings are settings of the connection that Verify knows warnings for, by name. Query; no
	// arguments; 1 row: text.
	settings map[string]string
	// encoding names the encoding of text between the database and this connection.
	// Query; no arguments; 1 row: text, or none where there is but one.
	encoding string
	// engine names the engine and its version. It fails on a database of another kind. Query; no
	// arguments; 1 row: text.
	engine string
	// turso names Turso and its version, which passes for SQLite. It fails on every other engine.
	// Query; no arguments; 1 row: text.
	turso []string
	// objects lists what is there. Query; no arguments; rows: kind ("table", "column", "index",
	// "type", "value"), table or type, name; more columns than there are do no harm. What has a
	// table's or type's name and is none is of the kind "other"; its name says what it is.
	objects string
	// rights lists the rights that a Worker needs and this user lacks, as "UPDATE on
	// pgqrs_messages". Tables that are not there are left out. None where the database has no
	// rights. Query; no arguments; rows: text.
	rights []string
	// versions lists the applied migrations. Query; no arguments; rows: version, name, oldest.
	versions string
	// shared says whether pgqrs 0.15 installed the tables, or has workers in them. Query; no
	// arguments; 1 row: whether share has been done; none if they are this library's alone.
	interop string
	// share makes indexes by which a worker's row can be deleted where messages refer to it. Exec,
	// in this order; no arguments.
	joinInterop []string
	// drop removes everything Install made. It leaves a type that was there before, or that
	// something else uses. Exec, in this order; no arguments.
	drop []string
}

// queueSQL is for the queues themselves.
type queueSQL struct {
	// make adds a queue, or does nothing if it is there. Exec; name.
	make string
	// pause sets (true) or clears (false) paused_at. Query; name, paused; 1 row: id, or none if
	// there is no such queue.
	pause string
	// stats counts a queue's messages by state. Query; JSON array of [name], or NULL for all, by
	// name; rows: id, name, created_at, paused_at, ready, scheduled, leased, archived, dead, age of
	// the oldest ready one in microseconds, policy as a JSON array of what policy.configure took.
	stats string
	// depth is stats within bounds: it counts no further than depthLimit, which stands in the text,
	// for Turso 0.7.2 does not begin a bound LIMIT anew for the next queue. "Just" is within a
	// minute. Query; JSON array of [name], or NULL for all, by name; rows: name, paused_at, ready,
	// scheduled and leased, leased, dead, just archived, just dead, age of the oldest ready one in
	// microseconds, policy as in stats, blocked, live workers that take from it.
	depth string
	// unattended finds queues that are not paused and have ready messages, and that no live worker
	// takes from. A worker of pgqrs 0.15, which is silent while it is busy, may be silent for
	// twenty times as long. Query; microseconds after which a silent worker is dead, microseconds
	// that the oldest message must have been ready, limit; rows: name, age of the oldest ready one
	// in microseconds; by name.
	unattended string
	// misfit finds queues with limits that no policy can have, which are as good as none. Query;
	// limit; rows: name, by name.
	misfit string
	// freeze keeps enqueuers out until the transaction ends, and makes those fail that did not see
	// its end: on PostgreSQL by a SHARE ROW EXCLUSIVE lock on messages. Exec, in this order; no
	// arguments.
	freeze []string
	// inUse says what still belongs to a queue. Query; name, microseconds after which a silent
	// worker is dead; 1 row: id, messages (at most 1), live workers; or none if there is no such
	// queue.
	inUse string
	// drop deletes an unused queue. Exec, in this order; each takes the queue's id.
	drop []string
}

// messageSQL is for messages that the caller does not hold.
type messageSQL struct {
	// enqueue stores one message, unless its key is taken. It waits for another transaction that is
	// storing the same key. Query; queue, payload, delay, instant or NULL (then the delay counts),
	// priority, key or NULL, headers or NULL; 1 row: id; none if there is no such queue or the key
	// is taken.
	enqueue string
	// enqueueBatch stores many that are due at once and have neither priority, key nor headers, in
	// the list's order. Query; queue, JSON array of payloads, each an object or an array; rows: id.
	// Ids ascend in the list's order.
	enqueueBatch string
	// enqueueMixed stores many, in the list's order. Query; queue, JSON array of [payload as a
	// string, delay, instant or null, priority, key or null, headers as a string or null]; rows:
	// id, key of those stored. Ids ascend in the list's order.
	enqueueMixed string
	// keyed finds unfinished messages by key. Query; queue, JSON array of [key]; rows: key, id.
	keyed string
	// get lists messages by id, cut. Query; JSON array of ids; rows: infoColumns, by id.
	get string
	// whole is get for one message, with nothing cut. Query; id; 1 row: infoColumns without the
	// last two, or none.
	whole string
	// ahead finds what a blocked message waits for: the messages of its group that are not blocked,
	// or those of its batch that have not ended. It reads no payload, and looks at no more than
	// 1000 of either. The leased come first, then the scheduled, the ready and the blocked. Query;
	// id, limit; rows: id.
	ahead string
	// list reads one state of a queue from a cursor on, by a time and id that each state names
	// below. Payloads, headers and errors are cut (see listedText), so that a page is no larger
	// than its number of rows allows. Query; queue, cursor's time or NULL, cursor's id, limit;
	// rows: infoColumns.
	list map[MessageState]string
	// lock finds which of some messages are (still) in a state, and on PostgreSQL locks them. Of
	// those that have ended it passes over what others have yet to read: messages of a batch that
	// is waited for, and runs whose parent has not ended. Query; JSON array of ids, state or '';
	// rows: id.
	lock string
	// remove deletes messages and all that hangs on them. Exec, in this order; each takes a JSON
	// array of ids. The last one's count is that of the messages.
	remove []string
	// redrive makes dead or archived messages new: attempts at 0, due now. It passes over those
	// whose key is taken, and those of groups. Query; JSON array of ids; rows: id.
	redrive string
	// prune deletes archived messages past their retention. Exec; JSON array of [queue, retention],
	// limit.
	prune string
	// disown clears the owner of leases that expired a while ago, so that pgqrs 0.15 sees the
	// messages too. Exec; slack, limit.
	clearExpiredOwner string
	// unreachable finds messages that no claim would ever reach, since something other than this
	// library wrote a vt that is NULL, after that of blocked messages or no time, or a priority
	// that is none; and messages that have ended, whose time of the end is after all times or none,
	// so that no retention reaches them. Query; JSON array of [queue, ...], limit; rows: id, queue.
	unreachable string
	// bury makes dead letters of those of the messages that unreachable would find, with the
	// reason. Query; JSON array of ids; rows: id.
	bury string
}

// leaseSQL is for messages that the caller holds. All but claim and orphans
// are fenced: they touch a row only if worker and claim number are its own.
type leaseSQL struct {
	// claim leases up to n due messages of the worker's queue, by priority, due time and id, unless
	// the worker is not active or the queue is paused. It stops short of a message whose last lease
	// expired; such a one is returned alone, when it is first and alone is true. On PostgreSQL rows
	// that others hold locked are passed over. A dead letter that pgqrs 0.15 replayed is one no
	// more. It also stops short of the message before which the payloads, headers, errors and keys
	// have claimedBytes. Query; worker, lease, alone, n; rows: deliveryColumns, whether the queue
	// is a workflow's; in no order.
	claim string
	// nextClaim is claim, but passes over what is before a place in its order: of that place's
	// priority and higher ones, the messages whose due time and id are not after its own. None for
	// a database that keeps no dead rows in an index; see claimCursor. Query; worker, lease, alone,
	// n, priority, due time (microseconds since 1970), id; rows: as of claim.
	nextClaim string
	// passed is what nextClaim passes over that is due: of its place's priority and higher ones,
	// what is not after it. None where there is no nextClaim. Query; worker, at most how many,
	// priority, due time, id of the place; rows: due time (microseconds since 1970), id; the first
	// by due time and id.
	skipped string
	// check finds out early whether a lease still stands; on the SQLite family it takes the write
	// lock. Query; id, worker, claim; 1 row: id, or none.
	check string
	// ack archives. Doing it again is no error. Query; JSON array of lease tuples; rows: id of
	// those done.
	ack string
	// delete deletes, but for messages of runs. Query; JSON array of lease tuples; rows: id of
	// those done.
	delete string
	// release gives back, and takes the attempt off the count.
	// Query; JSON array of lease tuples, each followed by a delay; rows: id of those done.
	release string
	// fail records an error and gives back after a delay, or makes a dead letter where the delay is
	// null. Query; JSON array of lease tuples, each followed by a delay or null and the error;
	// rows: id of those done.
	fail string
	// extend makes leases end a lease from now. Query; lease, JSON array of lease tuples; rows: id
	// of those done.
	extend string
	// renew makes leases end no earlier than a lease from now. On PostgreSQL it passes over rows
	// that are locked and returns them as still held. Query; lease, JSON array of lease tuples;
	// rows: id of those still held.
	renew string
	// orphans releases, uncounted, what a worker holds in the table but not in hand. It leaves a row
	// of another incarnation alone. Exec; worker, incarnation, JSON array of ids in hand.
	orphans string
}

// workerSQL is for worker rows.
type workerSQL struct {
	// register makes a worker's row, which is marked as this library's, or takes over one of the
	// same name that stopped or went silent. The id of a new row is a random number, so that no id
	// is ever used again: neither by tables that were dropped and made anew, nor by a sequence that
	// was set back, nor after a backup was restored. A row that is taken over keeps its id, and
	// gets another incarnation. Query; queue, name, status, microseconds after which a silent
	// worker is dead; 1 row: id, whether the queue has a limit (see limitSQL), incarnation; none if
	// there is no such queue or the name is in use.
	register string
	// heartbeat says that workers live, but for stopped ones. Query; JSON array of ids; rows: id;
	// status, or "silent" for one that expire stopped, or pgqrs 0.15 did because it had been
	// silent: for 3 s or more, and by no call of this library; whether the queue has a limit;
	// incarnation.
	heartbeat string
	// retire marks rows stopped that are still of the given incarnations. Exec; JSON array of [id,
	// incarnation].
	retire string
	// poll looks for due messages. Query; JSON array of worker ids; rows: id of each active worker
	// whose unpaused queue has some.
	poll string
	// move changes a status. Query; id, new status, JSON array of statuses it may come from; 1 row:
	// id, or none.
	move string
	// status reads one. Query; id; 1 row: status, or none.
	status string
	// list lists all, by started_at and id. Query; no arguments; rows: id, name, queue or NULL,
	// status, started_at, heartbeat_at, shutdown_at, messages held.
	list string
	// expire marks silent workers stopped, as of their last heartbeat, which tells them from those
	// that somebody stopped. It leaves those of pgqrs 0.15, which are silent while they are busy.
	// Exec; microseconds of silence.
	expire string
	// prune deletes rows of this library that stopped long ago and hold nothing. Exec; microseconds
	// since, limit.
	prune string
	// pruneShared does so in a shared database: only those that no message refers to. Exec;
	// microseconds since, limit.
	pruneInterop string
}

// The errors of the messages that message.unreachable finds.
const (
	unreachableTime     = `'pgqrs: malformed row: vt: no claim reaches it'`
	unreachablePriority = `'pgqrs: malformed row: priority: no claim reaches it'`
	unreachableEnd      = `'pgqrs: malformed row: archived_at: no retention reaches it'`
	unreachableDeath    = `'pgqrs: malformed row: failed_at: it is after all times'`
)

// Listings cut what users wrote in SQL: a payload, input, output, error or rule and a name or key
// to its first bytes (characters on PostgreSQL), and headers, which are of no use in part,
// altogether. The last columns of a listing are its sizes as stored, before the cut.
const (
	listedText     = "16384"                            // ListedBytes, as the statements have it
	listedError    = "16385"                            // one more, which tells that there is more
	claimedBytes   = "8388608"                          // payloads, headers, errors and keys of a claim, but for the last: maxPrefetchSize
	listedNoPolicy = `'"it has more than 16384 bytes"'` // in the place of a policy that has, which no Policy is
	listedName     = "1025"                             // of a name or key, which has no more than 255 characters: one more than maxListedName
	listedHeaders  = "131072"                           // bytes of JSON: whatever was enqueued fits, as PostgreSQL writes it
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

// groupSQL is for groups. A message of a group that must wait for others is
// blocked: its vt is blockedUntil and parked_vt is when it is due by itself.
//
// What moves messages between the two holds the lock of the group's row, which
// one statement takes and the next relies on: on PostgreSQL a statement does not
// see what was committed while it waited. A list of groups is a JSON array of [queue, group].
//
// The policies that lock and tryLock return are hints: whether the group may have several messages
// under way, has a rate, and passes over what has failed. They spare statements that would do
// nothing.
type groupSQL struct {
	// lock makes the rows of groups, and locks them. It waits for other transactions that have.
	// Query; groups, in order; rows: the three policies; one for each group whose queue exists.
	lock string
	// tryLock locks the rows of groups, but passes over those that are locked. Query; groups; rows:
	// queue, group, the three policies.
	tryLock string
	// enqueue is message.mixed_enqueue with a group and a batch for each message: those with a
	// group are stored blocked, as is one that waits for a batch. Query; queue, JSON array of
	// [payload as a string, delay, instant or null, priority, key or null, headers as a string or
	// null, group or null, batch or null]; a batch of 0 says that the message itself waits for one;
	// rows: id, key of those stored. Ids ascend in the list's order.
	enqueue string
	// park blocks what was let go and is not due yet, in groups that pass over what has failed; but
	// not what waits for its group's rate. Query; groups; rows: id.
	park string
	// refund takes back what pace has noted of messages that are blocked again. Exec; JSON array of
	// ids.
	refund string
	// promote lets go the first blocked message of each group that has room. Query; groups; rows:
	// id.
	promote string
	// pace notes of messages just let go what their groups' rates say about the next, one message
	// of a group. Where those need not wait for it, a message counts as of now, even if it is due
	// later. Exec; JSON array of ids.
	pace string
	// of returns the groups and batches of messages, and the unfinished runs that started theirs as
	// children. Query; JSON array of ids; rows: queue, group or NULL, batch or NULL, parent run or
	// NULL; each once.
	dependents string
	// redrive is message.redrive for messages of groups: it makes them blocked at their old places.
	// Query; JSON array of ids; rows: id.
	redrive string
	// sweep lists groups from a cursor on, and whether each has room for one that is blocked.
	// Query; JSON array of [queue], queue's id, group, limit; rows: queue's id, queue, group, room;
	// in order of the first and the third.
	sweep string
	// prune deletes rows of groups that have no messages and have not been used for a while. Exec;
	// microseconds, limit.
	prune string
}

// batchSQL is for batches. The message that waits for one is blocked until no
// other message that names its id is unfinished. What lets it go holds the lock of its row.
type batchSQL struct {
	// tryLock locks messages that wait for batches, or have done so, but passes over those that are
	// locked. Query; JSON array of ids; rows: id.
	tryLock string
	// finish lets go those that wait for nothing any more, and writes into their headers what
	// became of their batches. Query; JSON array of ids; rows: id, queue.
	finish string
	// sweep finds those that wait for nothing. Query; JSON array of [queue], limit; rows: id.
	sweep string
}

// policySQL is for the policies of queues: what operators see of them, and what holds in all
// processes.
type policySQL struct {
	// configure writes policies to the rows of queues that exist, where they differ. A rate that
	// changes begins anew. Exec; JSON array of [queue, policy as a string of JSON, messages held at
	// most or null, rate's interval or null, its burst or null, messages of a group at a time,
	// interval of a group's rate or null, its burst or null, whether groups skip what failed,
	// dead-letter queue or null].
	configure string
	// deadLetter copies dead messages to another queue, which exists, with headers that say where
	// they come from. It leaves those that are copies of that queue's own dead letters. Query;
	// queue, JSON array of ids; rows: id of the copies.
	deadLetter string
}

// limitSQL is for claims from queues whose rows have a limit: MaxLeased or Rate. The three run in
// one transaction, with lease.claim between room and take. They are apart because on PostgreSQL a
// statement that waited for a lock does not see what the one that had it did.
type limitSQL struct {
	// lock keeps other such claims of a worker's queue out until the transaction ends. On
	// PostgreSQL it waits for them, but fails after a quarter of a second (55P03,
	// lock_not_available): other queues of the worker wait too. In MVCC mode the second one fails.
	// Query; worker; 1 row: queue's id; none if the queue has no such limit.
	lock string
	// room says how many messages may be leased now. Query; queue's id, how many are wanted; 1 row:
	// how many of them may be (0 or less: none), microseconds until the rate lets the next one
	// begin (0: at once), whether there is a rate.
	capacity string
	// take takes tokens for what was claimed. Exec; queue's id, how many.
	spend string
}

// scheduleSQL is for schedules. What a worker does is guarded by the number of
// changes that it has seen: of two that see the same one does it.
type scheduleSQL struct {
	// put makes a schedule, or writes its definition over one that differs. Then the next instant
	// is the given one, if the rule or its zone differ; otherwise it stays. Query; name, queue,
	// whether it starts runs, payload, priority, key or NULL, headers or NULL, rule, zone,
	// catch-up, instant or NULL; 1 row: id, or none if nothing differed.
	put string
	// find reads what decides when schedules run. Query; JSON array of [name]; a row for each:
	// name, now, id or NULL if there is no such schedule, rule, zone, number of changes, next
	// instant or NULL, paused_at, resumed_at.
	find string
	// advance sets the next instant. Query; id, number of changes, instant or NULL; 1 row: id; none
	// if that number is out of date, or, on PostgreSQL, if another transaction has the row locked.
	advance string
	// record adds to the history, but for instants that are there. Query; id, JSON array of
	// [instant or null for now, by hand, held, message or null, run or null]; rows: instant of
	// those added.
	record string
	// take reads what a schedule enqueues; on the SQLite family it takes the write lock, on
	// PostgreSQL it locks the row. Query; name; 1 row: id, queue, whether it starts runs, payload,
	// priority, key, headers; none if there is no such schedule.
	lock string
	// pause sets (true) or clears (false) paused_at, which is a change for advance. Query; name,
	// paused; 1 row: id, or none if there is no such schedule.
	pause string
	// list describes all schedules, by name, cut. Query; no arguments; rows: id, name, queue,
	// whether it starts runs, payload, priority, key, headers, rule, zone, catch-up, created_at,
	// updated_at, paused_at, next instant or NULL, and runColumns of the latest run, NULLs if there
	// is none.
	list string
	// named is list for some schedules: it reads no others. Query; JSON array of [name]; rows: as
	// list.
	named string
	// history lists the runs of a schedule, the latest first. Query; name, limit; rows
	// (runColumns): instant, ran_at, by hand, held, message, run, state of either or NULL if it is
	// gone.
	history string
	// remove deletes a schedule, which take has locked, with its history. Exec, in this order; each
	// takes the id.
	remove []string
	// prune deletes history past the latest so many runs of a schedule. Exec; JSON array of [name],
	// how many stay, limit.
	prune string
}

// workflowSQL is for workflows and their runs. A run is found by its id or by
// its message's; what a worker does in a run's name is fenced by the lease on that message.
type workflowSQL struct {
	// make adds a definition for the queue of the same name, or does nothing if it is there. Exec;
	// name.
	make string
	// insert makes runs for messages, with the message's payload as input. It passes over those
	// whose key is taken. Query; workflow, JSON array of [message, key or null, parent run or null,
	// parent step or null]; rows: run, message. Runs ascend in the list's order.
	insert string
	// start is message.enqueue and insert in one, for a run without a key, a group and a parent.
	// None where one statement cannot do it. Query; workflow, payload, delay, at or NULL, priority,
	// headers or NULL; 1 row: run, message; none if the workflow has not been made.
	start []string
	// keyed finds runs by key. Query; workflow, JSON array of keys; rows: key, run.
	keyed string
	// takeBack deletes messages that have no run. Exec; JSON array of messages.
	adopt string
	// begin starts or continues the execution of a message's run. Query; message, worker, claim; 1
	// row: run, status after, whether it is its first execution and has no steps; none if the lease
	// is lost or there is no run.
	begin string
	// exists says whether a message has a run. Query; message; 1 row: run, or none.
	exists string
	// finish ends a run: as the status given, or as CANCELLED if it is being cancelled. A final
	// status stays. Query; run, status, output or NULL, error or NULL; 1 row: status, parent run or
	// NULL; none if it had ended.
	finish string
	// end is finish and lease.ack in one, for a run that nobody is cancelling and that has no
	// parent. None where one statement cannot do it. Query; run, message, worker, claim, status,
	// output or NULL, error or NULL; 1 row: status; none, and nothing done, if the run is another,
	// has ended, or the lease is lost.
	end []string
	// cancel asks unfinished runs to end. Query; JSON array of runs; rows: run of those that were
	// not being cancelled.
	cancel string
	// unstartedArchive archives the messages of runs that are being cancelled, have no steps, and
	// are leased to nobody. It leaves the order of their groups. Query; JSON array of runs; rows:
	// run, queue, group or NULL, batch or NULL.
	unstartedArchive string
	// unstartedEnd ends the runs of such messages. Query; JSON array of runs; rows: run, parent run
	// or NULL.
	unstartedEnd string
	// pause stops an unfinished run at its next step. Query; run; 1 row: run, or none.
	pause string
	// resume takes back pause. Query; run; 1 row: run, or none.
	resume string
	// retry makes a failed run unfinished, to go on at its failed steps; a step that has started
	// children waits for them. Exec, then Query; each takes the run; the second returns 1 row:
	// message, or none if the run has not failed.
	retry []string
	// copySteps gives a run the finished steps of another that were recorded before a step, and
	// notes that it has some. Exec; to run, from run, step; then to run.
	copySteps []string
	// join tells the parent of a run that has ended, if that was the last one its step waits for.
	// The parent's message is locked first, so that of two that end at once the later sees the
	// other. Exec, then Query; each takes the run; the second returns 1 row: parent run, queue; or
	// none.
	join []string
	// joinShared is join for a shared database, after the fact: it finds runs that wait for
	// children which have all ended, and that nothing has told, because pgqrs 0.15 ended the last
	// one. Query; JSON array of queues; rows: run, queue.
	joinShared string
	// wake makes the messages of unfinished runs due, or, while leased, not to be put off.
	// Query; JSON array of runs; rows: run, queue.
	wake string
	// interrupted lists the runs among messages that are being cancelled. Query; JSON array of
	// messages; rows: message.
	interrupted string
	// ofMessages finds the runs of messages. Query; JSON array of messages; rows: message, run.
	ofMessages string
	// stranded reads a page of the runs of a workflow in an unfinished state, and says of which the
	// message has ended without them. It reads no others, however many there are. Query; workflow,
	// status, run that it begins after, microseconds since a message must have ended, limit; rows:
	// run, message, 'archived', 'dead', 'gone', or 'elsewhere' if the message is another queue's
	// (or '' if it is unfinished), last error; by run.
	stranded string
	// children lists unfinished runs started by runs. Query; JSON array of runs; rows: run.
	children string
	// results reads the runs started by a step. Query; run, step; rows: run, workflow, status,
	// output, error, by run.
	results string
	// get reads one run. Query; run; 1 row: runColumns, with NULL for a workflow that is not there,
	// or none.
	get string
	// polled reads what calls of Result need of runs. Query; JSON array of runs; rows: run,
	// workflow, status, output, error.
	polled string
	// list lists runs from new to old, cut. Query; workflow or NULL, status or NULL, since or NULL,
	// until or NULL (both instants), run that it begins before, limit; rows: runColumns, sizes of
	// input and output.
	list string
	// statusList is list for a status, by the index of a workflow's runs of one. It reads no
	// others, however many there are. Query; as list, but the status is not NULL; rows: runColumns.
	statusList string
	// childList is list for the runs that the steps of a run started. It reads no others, however
	// many there are. Query; as list, with the parent before the limit; rows: runColumns.
	childList string
	// warn records a warning. Exec; run, text.
	warn string
	// expired finds archived messages with runs that are past their retention, unless a parent
	// still waits for one. Query; JSON array of [queue, retention], limit; rows: message.
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
	// save records a step, fenced by the lease, unless it has ended already. On Turso a second text
	// takes over where there is a row. Query; run, step, message, worker, claim, status, output or
	// NULL, error or NULL, retries, delay until the next try or NULL, how long its function took; 1
	// row: the run's status; none if the lease is lost or the step has ended.
	save []string
	// saveBatch is save for several steps, no two the same. What the second text returns may have
	// been returned before. Query; JSON array of save's arguments; rows: run, step, the run's
	// status.
	saveBatch []string
	// open begins a step in a transaction: its row, locked until the end. Otherwise as save; the
	// status is RUNNING. Query; run, step, message, worker, claim; 1 row: the run's status.
	open []string
	// close records the result of a step that open began in the same transaction, fenced by the
	// lease. Query; run, step, message, worker, claim, output; 1 row: the run's status; none if the
	// lease or the row is lost.
	close string
}

// signalSQL is for signals.
type signalSQL struct {
	// insert stores one. Exec; run, name, payload.
	insert string
	// take delivers the oldest one that nothing has taken to a step. Query; run, name, step; 1 row:
	// payload, or none.
	take string
}
