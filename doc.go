// Package pgqrs is a durable queue and a durable workflow engine inside your application. It runs
// on the database that the application already has: PostgreSQL, SQLite or Turso/libSQL, through
// database/sql and the driver of your choice. It imports the standard library only.
//
//	store := pgqrs.New(db, pgqrs.Postgres) // db is your *sql.DB; or Open(ctx, "sqlite:queue.db")
//	err := store.Install(ctx)              // makes the tables
//	emails := pgqrs.NewQueue[Email](store, "emails")
//	checkout := pgqrs.NewWorkflow[Order, Receipt](store, "checkout")
//
//	id, err := emails.WithTx(tx).Enqueue(ctx, Email{To: "ada"}) // in your *sql.Tx
//	run, err := checkout.Start(ctx, order, pgqrs.Key(order.ID))
//
//	w := &pgqrs.Worker{
//		Handlers: []pgqrs.Handler{emails.Handle(send), checkout.Handle(runCheckout)},
//	}
//
// A [Store] is a database that holds queues. Its methods are for operators. A [Queue] is a name and
// the type of its payloads, which are stored as JSON. A [Message] is one delivery of a stored
// payload.
//
// A [Worker] claims messages of one or several queues, runs a [Handler] for each and records the
// outcome. If the handler returns nil, the message is acked. If it returns an error, the message is
// retried as the queue's [Policy] says, and goes to the dead letters after the last attempt.
// Dequeue, Ack and Fail do the same by hand.
//
// A [Schedule], given to a Worker, enqueues messages or starts runs by the clock. It does so once
// for each instant, however many Workers have it.
//
// A [Workflow] is a function in steps. Its code has a [Run], through which it takes each [Step],
// sleeps, waits for a [Signal] and starts children. The caller that starts a run gets a
// [RunHandle], to wait for the result and to change the run's course. The result of a step is
// recorded. After a crash or a wait the function runs again from its beginning, and a recorded step
// returns its result instead of running again.
//
// The guarantees, on every database:
//   - A message is delivered until it is acked, deleted or dead, whatever process is killed.
//   - While its lease lasts, nobody else receives the message. A worker that has lost the lease
//     changes nothing.
//   - Work in the caller's transaction happens if and only if the transaction commits.
//   - A message that crashes its worker ends in the dead letters, with its last error.
//   - A step has one result, and a run ends together with its message.
//
// Delivery is at least once. Handlers and steps must tolerate running twice, or use
// [Queue.HandleTx] and [StepTx]. The database's clock decides what is due.
//
// For several processes on several machines use [Postgres], 13 or newer. [SQLite], 3.38 or newer,
// serves processes of one machine that share a file, one write at a time. [Turso] does the same for
// libSQL. A file of Turso itself belongs to one process.
//
// These structs marshal to JSON: MessageInfo, QueueInfo, QueueDepth, PolicyInfo, WorkerInfo,
// RunInfo, StepInfo, ScheduleInfo, ScheduleRun and Report. Names are in snake_case. Zero times are
// left out. Durations are in seconds, as retry_in_seconds. A text that a listing has cut is a
// string. A struct that embeds one of them inherits its MarshalJSON.
//
// To read the source, begin with queue.go and message.go. lease.go settles messages, and worker.go,
// worker_loop.go and worker_delivery.go run handlers. Workflows are in workflow.go, run.go,
// step.go, signal.go and child.go. All SQL is in the files dialect_*.go, with its contracts in
// dialect.go, and conn.go runs it. open.go and internal/dsn implement Open. docs/STATEMENTS.md
// lists the statements of each call.
package pgqrs
