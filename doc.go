// Package pgqrs is a durable queue and durable workflows inside your
// application, on the database it already has: PostgreSQL, SQLite or
// Turso/libSQL, through database/sql and the driver of your choice. It imports
// the standard library only.
//
//	store := pgqrs.New(db, pgqrs.Postgres) // db is your *sql.DB; or Open(ctx, "sqlite:queue.db")
//	err := store.Install(ctx)              // makes the tables
//	emails := pgqrs.NewQueue[Email](store, "emails")
//	checkout := pgqrs.NewWorkflow[Order, Receipt](store, "checkout")
//
//	id, err := emails.WithTx(tx).Enqueue(ctx, Email{To: "ada"}) // in your *sql.Tx
//	run, err := checkout.Start(ctx, order, pgqrs.Key(order.ID))
//
//	w := &pgqrs.Worker{Handlers: []pgqrs.Handler{emails.Handle(send), checkout.Handle(runCheckout)}}
//	err = w.Run(ctx) // until ctx is done
//
// A [Store] is a database that holds queues; its methods are what an operator
// needs. A [Queue] is a name and the type of its payloads, which are stored as
// JSON. A [Message] is one of them on delivery. A [Worker] claims messages of
// one or several queues, runs a [Handler] for each and records what came of
// it: nil acks the message, an error has it tried again as the queue's
// [Policy] says, and in the end sends it to the dead letters. Dequeue, Ack and
// Fail do the same by hand.
//
// A [Schedule], given to a Worker, enqueues messages or starts runs by the
// clock, once for each instant, however many Workers have it.
//
// A [Workflow] is a function in steps. Its code has a [Run], through which it
// takes each [Step], sleeps, waits for a [Signal] and starts children; whoever
// started it has a [RunHandle], to wait for the result and change its course.
// What a step returns is recorded. After a crash or a wait the function runs
// again from its beginning and gets the records instead of taking the steps twice.
//
// What it guarantees, on every database:
//   - A message is delivered until it is acked, deleted or dead, whatever process is killed.
//   - While its lease lasts, nobody else receives it, and who has lost it changes nothing.
//   - What is done in the caller's transaction happens if and only if that commits.
//   - A message that crashes its worker ends in the dead letters, with its last error.
//   - A step has one result, and a run ends together with its message.
//
// Delivery is at least once: handlers and steps should bear to run twice, or
// use [Queue.HandleTx] and [StepTx]. The database's clock decides what is due.
//
// For several processes on several machines use [Postgres], 13 or newer.
// [SQLite], 3.38 or newer, and [Turso] serve processes that share a file, one
// write at a time.
//
// Structs that describe things marshal to JSON: MessageInfo, QueueInfo, QueueDepth, PolicyInfo,
// WorkerInfo, RunInfo, StepInfo, ScheduleInfo, ScheduleRun and Report. Names are in snake_case.
// Zero times are left out. Durations are in seconds, as retry_in_seconds. A text that a listing has
// cut is a string. A struct that embeds one of them inherits its MarshalJSON.
//
// To read the source, begin with queue.go and message.go, then lease.go, which settles messages,
// and worker.go, worker_loop.go and worker_delivery.go; for workflows workflow.go, run.go, step.go,
// signal.go and child.go. All SQL stands in the files dialect_*.go, with its contracts in
// dialect.go; conn.go runs it. open.go and internal/dsn are Open's. docs/STATEMENTS.md lists what
// each call sends.
package pgqrs
