// Pgqrs operates the queues and workflows of a database. It shows which messages and runs are stuck
// and why, and runs them again.
//
//	export PGQRS_DSN=postgres://user:password@host/database    # or sqlite:queue.db
//	pgqrs queues                          what is in each queue
//	pgqrs dead list emails                dead letters, with their errors
//	pgqrs messages show 42                one message: payload, error, attempts
//	pgqrs dead redrive 42 43              run these again
//	pgqrs dead redrive -all emails        run all of them again
//	pgqrs runs list -state error          failed workflow runs
//	pgqrs runs show 7                     the steps of one, with their durations
//	pgqrs runs retry 7                    go on from the failed step
//	pgqrs top                             live
//	pgqrs demo                            a database to try all this on
//
// The command pgqrs help lists every command, and pgqrs COMMAND -help explains one. DSNs have the
// form that pgqrs.Open accepts. From a checkout use go run ./cmd/pgqrs.
//
// The flags -dsn and -dsn-file name a database too. A DSN with a password belongs into PGQRS_DSN or
// a file, because lists of processes and shell histories show -dsn. The command warns of such a
// DSN.
//
// # Output
//
// Tables are for people. They cut payloads, errors and names to fit. They leave out columns without
// any value, and columns for which a terminal is too narrow. Text that a terminal could take for a
// command is escaped. Notes and questions go to standard error.
//
// With -json each object is one line of JSON with all of its fields. Listings cut payloads, inputs,
// outputs and errors of more than 16 KiB, and leave out headers of that size. Then "cut" is true, a
// cut payload is a string, and "payload_size" is its size in bytes. The commands "messages show",
// "runs show" and "schedules list NAME" print them in full. The steps of a run are a listing. A
// listing ends after -limit objects, unless -all is given.
//
// # Exit codes
//
//	0  done
//	1  failed: the database, the network, a file
//	2  wrong usage
//	3  nothing found: a named object does not exist, or none was left to work on
//	4  not confirmed: the answer was no, or there was no terminal to ask on and no -yes
//	5  not possible in this state, such as to retry a run that did not fail
//
// # Drivers
//
// PostgreSQL (lib/pq) and SQLite (ncruces) are built in. A build with -tags libsql, which needs
// cgo, also opens turso: DSNs, by go-libsql.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/charmbracelet/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	a.asks = term.IsTerminal(os.Stdin.Fd()) && term.IsTerminal(os.Stderr.Fd())
	if term.IsTerminal(os.Stdout.Fd()) {
		a.width, a.height, _ = term.GetSize(os.Stdout.Fd()) // a size of 0 means unknown
	}
	a.progress = term.IsTerminal(os.Stderr.Fd())
	os.Exit(a.run(ctx, os.Args))
}
